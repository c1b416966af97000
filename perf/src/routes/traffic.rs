//! Packets through the data plane: into one memif port, out of the other, each one accounted for.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dpdk::{Eal, Mbuf, Mempool, MempoolConfig, Opened, PortConfig, free_bulk};
use model::Mac;
use serde::Serialize;
use wire::buf::PacketBuf;
use wire::{IntoBytes, ethernet, ipv4, udp};

use super::PORTS;
use super::plan::station;
use crate::intervals::Intervals;
use crate::machine::{cores, start_dpdk};
use crate::mix::{Route, probe};
use crate::process::{open_linked, other_ends};
use crate::reference::Random;

/// Most packets on their way: half of what a ring of a memif holds, so that none is ever full.
const WINDOW: usize = 512;
/// Packets that are made at a time.
const BURST: usize = 32;
/// Addresses that packets are sent to in turn.
const ADDRESSES: usize = 1 << 16;
/// What a packet looks like before the numbers.
const MARK: u32 = 0x6e61_7665;
/// After this time without any packet those on their way are lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Mebibytes of packet buffers here.
const MEGABYTES: u32 = 96;
/// A frame of the traffic: Ethernet, IPv4, UDP, mark and number, in 64 bytes.
const FRAME: usize = 64;
/// Where mark and number are in it.
const MARKED: usize = ethernet::LEN + ipv4::LEN + udp::LEN;

/// Where packets go.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) routes: Vec<Route<u32>>,
    /// Those that come and go.
    pub(super) churned: Vec<Route<u32>>,
    /// Where addresses lead with all routes, and without those.
    pub(super) with: Intervals<u32>,
    pub(super) without: Intervals<u32>,
}

/// Packets of a time, each counted once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Counted {
    sent: u64,
    /// Came back by a next hop that their address had.
    received: u64,
    /// Did not come back.
    lost: u64,
    /// Came back by another next hop, or changed where they must not be.
    misled: u64,
    /// Came back again, or after they were given up.
    surplus: u64,
    /// Millions of packets a second.
    mpps: f64,
}

impl Counted {
    /// Whether there were packets, and each came back once and rightly.
    pub(super) fn all_right(&self) -> bool {
        self.sent > 0 && self.received == self.sent && self.misled == 0 && self.surplus == 0
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, lost, misled, surplus, mpps } = self;
        write!(f, "{sent:7} packets sent, {received} came back, {lost} lost, {misled} misled")?;
        if *surplus > 0 {
            write!(f, ", {surplus} more than were sent")?;
        }
        write!(f, " ({mpps:.2} Mpps)")
    }
}

/// A packet on its way.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: u32,
    to: Address,
}

/// An address, and the next hops that it may have.
#[derive(Debug, Clone, Copy)]
struct Address {
    addr: u32,
    stations: [Mac; 2],
}

/// Our ends of the memifs.
pub(super) struct Traffic {
    eal: Eal,
    /// Where the packets' thread runs: not where the data plane's worker does.
    core: core_affinity::CoreId,
    pool: Mempool,
    /// Into the data plane, and out of it.
    lan: Opened,
    wan: Opened,
    /// Where frames are sent to.
    to: Mac,
    random: Random,
    /// Number of the next packet.
    next: u32,
    /// Packets on their way, by the lower bits of their numbers; how many there are.
    waiting: Vec<Option<Waiting>>,
    in_flight: usize,
}

impl Traffic {
    /// Starts DPDK here and waits until both ends of both memifs have found each other.
    ///
    /// # Errors
    /// They do not, or there is no memory.
    pub(super) fn connect(to: Mac) -> anyhow::Result<Self> {
        // Now, while this thread may still run on all of them.
        let core = cores(2)?[1];
        let (eal, _) = start_dpdk(MEGABYTES, other_ends(&PORTS))?;
        let pool = Mempool::create(&eal, &MempoolConfig { count: 16_383, ..MempoolConfig::default() })?;
        let [lan, wan] = open_linked(&eal, ["net_memif0", "net_memif1"], &PortConfig::new(pool))?;
        // Twice the window: whoever is lost is noticed when his place is needed again.
        let waiting = vec![None; 2 * WINDOW];
        Ok(Self { eal, core, pool, lan, wan, to, random: Random(7), next: 0, waiting, in_flight: 0 })
    }

    /// Sends packets, half of them (if routes are `churning`) to routes that come and go, until there were enough and the last
    /// is back or lost.
    ///
    /// # Errors
    /// What keeps it from running.
    pub(super) fn run(
        &mut self,
        load: &Load,
        churning: bool,
        enough: impl Fn() -> bool,
    ) -> anyhow::Result<Counted> {
        ensure!(core_affinity::set_for_current(self.core), "cannot be pinned to core {}", self.core.id);
        let _token = dpdk::register_worker_thread(&self.eal)?;
        let addresses = self.addresses(load, churning);
        let (mut counted, mut made, mut came) =
            (Counted::default(), Vec::new(), Vec::with_capacity(2 * BURST));
        let (begun, mut last) = (Instant::now(), Instant::now());
        let mut at = 0;
        loop {
            let sending = !enough();
            if !sending && self.in_flight == 0 && made.is_empty() {
                break;
            }
            while sending && made.len() < BURST && self.in_flight < WINDOW {
                made.push(self.make(addresses[at % ADDRESSES], &mut counted)?);
                at += 1;
            }
            let sent = self.lan.tx[0].burst(&mut made);
            // What else the data plane sends there is nobody's.
            self.lan.rx[0].burst(&mut came, BURST);
            free_bulk(&mut came);
            let received = self.wan.rx[0].burst(&mut came, BURST);
            came.iter().for_each(|packet| self.account(packet, &mut counted));
            free_bulk(&mut came);
            if received > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                free_bulk(&mut made);
                self.give_up(&mut counted);
                last = Instant::now();
            } else if sent == 0 {
                std::thread::yield_now();
            }
        }
        counted.mpps = counted.received as f64 / begun.elapsed().as_secs_f64() / 1e6;
        Ok(counted)
    }

    fn addresses(&mut self, load: &Load, churning: bool) -> Vec<Address> {
        let mut address = |number: usize| {
            let from = if churning && number.is_multiple_of(2) { &load.churned } else { &load.routes };
            let addr = probe(from, &mut self.random);
            let with = load.with.lookup(addr);
            let without = if churning { load.without.lookup(addr) } else { with };
            Address { addr, stations: [station(with), station(without)] }
        };
        (0..ADDRESSES).map(&mut address).collect()
    }

    /// The next packet, which is on its way from now on.
    fn make(&mut self, to: Address, counted: &mut Counted) -> anyhow::Result<Mbuf> {
        let mut packet = self.pool.alloc().context("no packet buffer is free")?;
        let payload = FRAME - ethernet::LEN - ipv4::LEN;
        let (from, addr) = (Ipv4Addr::new(192, 168, 1, 1), Ipv4Addr::from_bits(to.addr));
        let ip = ipv4::Header::new(from, addr, ipv4::UDP, 64, payload).context("a packet of 50 bytes")?;
        // Without a checksum, which IPv4 allows.
        let udp = udp::Header::new(1000, 2000, payload - udp::LEN).context("a datagram of 30 bytes")?;
        let frame = packet.append(FRAME).context("a frame of 64 bytes")?;
        frame.fill(0);
        let link = ethernet::Header::new(self.to.0, [2, 0, 0, 1, 0, 1], ethernet::IPV4);
        frame[..ethernet::LEN].copy_from_slice(link.as_bytes());
        frame[ethernet::LEN..][..ipv4::LEN].copy_from_slice(ip.as_bytes());
        frame[ethernet::LEN + ipv4::LEN..MARKED].copy_from_slice(udp.as_bytes());
        frame[MARKED..][..4].copy_from_slice(&MARK.to_be_bytes());
        frame[MARKED + 4..][..4].copy_from_slice(&self.next.to_be_bytes());
        let waiting = Waiting { number: self.next, to };
        let place = self.next as usize % self.waiting.len();
        if self.waiting[place].replace(waiting).is_some() {
            counted.lost += 1;
        } else {
            self.in_flight += 1;
        }
        self.next = self.next.wrapping_add(1);
        counted.sent += 1;
        Ok(packet)
    }

    /// A packet came out of the data plane.
    fn account(&mut self, packet: &Mbuf, counted: &mut Counted) {
        let bytes = packet.bytes();
        // What the data plane's kernel has to say on its own account is not ours.
        let Some(number) = bytes
            .get(MARKED..)
            .and_then(|rest| rest.strip_prefix(&MARK.to_be_bytes())?.first_chunk())
            .map(|number| u32::from_be_bytes(*number))
        else {
            return;
        };
        let place = number as usize % self.waiting.len();
        let Some(waiting) = self.waiting[place].take_if(|waiting| waiting.number == number) else {
            counted.surplus += 1;
            return;
        };
        self.in_flight -= 1;
        let right = waiting.to.stations.iter().any(|station| bytes.starts_with(&station.0))
            && ipv4::parse(&bytes[ethernet::LEN..])
                .is_ok_and(|(ip, _)| (ip.destination().to_bits(), ip.ttl) == (waiting.to.addr, 63));
        if right {
            counted.received += 1;
        } else {
            counted.misled += 1;
        }
    }

    /// What is on its way will not come.
    fn give_up(&mut self, counted: &mut Counted) {
        counted.lost += self.in_flight as u64;
        self.in_flight = 0;
        self.waiting.fill(None);
    }
}
