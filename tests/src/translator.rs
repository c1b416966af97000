//! A box that translates addresses, between the underlay and a network of its own. Made here and by hand, of two taps and a thread, so
//! that it needs nothing of the kernel but bridges, and does the same on every one.
//!
//! ```text
//!   hub, others ── br0 ── nat-out ┌───────────┐ nat-in ── br2 ── nodes behind it
//!     203.0.113.0/24              │  this box │ .254      10.0.0.0/24
//!                                 └───────────┘
//! ```
//!
//! One to one, each inner address has an outer one of its own. With one outer address for all, datagrams of UDP are told apart by ports: each
//! inner address has its own outer one. Of anything else what comes back is told apart by the peer alone: GRE and ESP have no ports. As in Linux, the flow with a peer is that of who began it, until it has been silent for
//! [`IDLE`]; what others send to that peer does not pass. There are boxes that let it pass, and give what comes back to who sent last.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use twin::{Anchor, Kind, Queue};

use crate::cloud::{BRIDGE, Cloud};
use crate::esp::{NAT_PORT, udp_ports};
use crate::frame;
use crate::ike::PORT;

/// The bridge behind the box.
pub const INNER_BRIDGE: &str = "br2";
/// A flow with one peer that has been silent for so long may become somebody else's.
pub const IDLE: Duration = Duration::from_secs(3);

/// The box's address inside.
const INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
/// Its Ethernet address inside, and outside.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x77, 1], [2, 0, 0, 0, 0x77, 2]];
const BROADCAST: [u8; 6] = [0xff; 6];
const INSIDE: usize = 0;
const OUTSIDE: usize = 1;

/// What becomes of addresses.
#[derive(Debug, Clone)]
pub enum Translation {
    /// Each inner address is this outer one.
    OneToOne(Vec<(Ipv4Addr, Ipv4Addr)>),
    /// All are one; a peer's flow is that of who began it.
    First(Ipv4Addr),
    /// All are one; a peer's flow is that of who sent last.
    Last(Ipv4Addr),
    /// All are one, and each has a port of it for its port 4500 of UDP, and the one before for its port 500. Nothing else passes.
    Ports(Ipv4Addr, Vec<(Ipv4Addr, u16)>),
}

/// The box. Dropped, it stops.
#[derive(Debug)]
pub struct Translator {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    // They keep the taps.
    _anchors: Vec<Anchor>,
}

impl Translator {
    /// Packets that were not let out, for their flow is somebody else's.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Cloud {
    /// Puts nodes into a network of their own behind a box that translates, before they are started. Their addresses and routes are
    /// changed accordingly: 10.0.0.`number`.
    ///
    /// # Errors
    /// The box cannot be made.
    pub fn put_behind_translator(&mut self, nodes: &[usize], translation: Translation) -> Result<Translator> {
        self.internet.ip(&format!("link add {INNER_BRIDGE} type bridge mcast_snooping 0 forward_delay 0"))?;
        self.internet.ip(&format!("link set {INNER_BRIDGE} up"))?;
        for &index in nodes {
            let node = &mut self.nodes[index];
            let (old, new) = (node.nbma, Ipv4Addr::new(10, 0, 0, node.host.number));
            node.nbma = new;
            node.bridge = INNER_BRIDGE.to_owned();
            node.edit(|text| text.replace(&format!("\"{old}/"), &format!("\"{new}/")))?;
            node.add("routes", &format!("prefix = \"203.0.113.0/24\"\nnext_hop = \"{INNER}\""))?;
        }
        let (mut anchors, mut queues) = (Vec::new(), Vec::new());
        for (name, bridge) in [("nat-in", INNER_BRIDGE), ("nat-out", BRIDGE)] {
            anchors.push(self.internet.run(|| Anchor::create(name, Kind::Tap))??);
            self.internet.ip(&format!("link set dev {name} master {bridge} up"))?;
            queues.push(Queue::attach(name, Kind::Tap, Some(Path::new(self.internet.name())))?);
        }
        let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, refused) = (stop.clone(), refused.clone());
            let mut rewriter = Rewriter { translation, flows: HashMap::new(), macs: HashMap::new(), refused };
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut all: Vec<_> =
                        queues.iter().map(|q| PollFd::new(q.as_fd(), PollFlags::POLLIN)).collect();
                    let _ = poll(&mut all, PollTimeout::from(20_u8));
                    rewriter.carry(&queues);
                }
            }
        });
        Ok(Translator { stop, refused, thread: Some(thread), _anchors: anchors })
    }
}

const UDP: u8 = 17;
/// Where UDP has its ports, behind an IPv4 header without options.
const SOURCE_PORT: usize = 20;
const DESTINATION_PORT: usize = 22;

/// Writes a port of a datagram, which has no checksum then (RFC 768 allows that over IPv4, RFC 3948 §2.1 wants it of ESP).
fn set_port(packet: &mut [u8], at: usize, port: u16) {
    if packet.len() >= 28 {
        packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
        packet[26..28].fill(0);
    }
}

struct Rewriter {
    translation: Translation,
    /// Whose a flow with a peer is, and when it was last heard of.
    flows: HashMap<(Ipv4Addr, u8), (Ipv4Addr, Instant)>,
    /// Ethernet addresses on each side.
    macs: HashMap<(usize, Ipv4Addr), [u8; 6]>,
    refused: Arc<AtomicU64>,
}

impl Rewriter {
    fn carry(&mut self, queues: &[Queue]) {
        let mut buffer = [0_u8; 2048];
        for (side, queue) in queues.iter().enumerate() {
            while let Ok(length) = queue.read(&mut buffer) {
                let Some((header, payload)) = buffer[..length].split_at_checked(14) else { continue };
                match header[12..14] {
                    [8, 6] => self.arp(queue, side, payload),
                    [8, 0] => self.packet(queues, side, payload),
                    _ => {}
                }
            }
        }
    }

    fn is_own(&self, side: usize, address: Ipv4Addr) -> bool {
        match &self.translation {
            _ if side == INSIDE => address == INNER,
            Translation::OneToOne(pairs) => pairs.iter().any(|(_, outer)| *outer == address),
            Translation::First(outer) | Translation::Last(outer) | Translation::Ports(outer, _) => {
                *outer == address
            }
        }
    }

    /// Learns from every ARP packet, and answers for the box's own addresses.
    fn arp(&mut self, queue: &Queue, side: usize, packet: &[u8]) {
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let mac = packet.get(8..14).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let (Some(mac), Some(sender), Some(target)) = (mac, address(14), address(24)) else { return };
        self.macs.insert((side, sender), mac);
        if packet[6..8] == [0, 1] && self.is_own(side, target) {
            let reply = frame::arp(true, MACS[side], target, mac, sender);
            let _ = queue.write(&frame::ethernet(mac, MACS[side], 0x0806, &reply));
        }
    }

    fn packet(&mut self, queues: &[Queue], side: usize, packet: &[u8]) {
        let Some(total) = packet.get(2..4).map(|l| usize::from(u16::from_be_bytes([l[0], l[1]]))) else {
            return;
        };
        // Packets with options are none of ours.
        let Some(packet) = packet.get(..total).filter(|p| p.len() >= 20 && p[0] == 0x45) else { return };
        let mut packet = packet.to_vec();
        let address = |packet: &[u8], at: usize| {
            Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
        };
        let (source, destination) = (address(&packet, 12), address(&packet, 16));
        let mut out = OUTSIDE;
        if side == INSIDE {
            let Some((outer, port)) = self.outer(source, destination, &packet) else {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return;
            };
            packet[12..16].copy_from_slice(&outer.octets());
            if let Some(port) = port {
                set_port(&mut packet, SOURCE_PORT, port);
            }
        }
        // From outside, or back to where it came from (a hairpin).
        if self.is_own(OUTSIDE, destination) {
            let peer = address(&packet, 12);
            let Some((inner, port)) = self.inner(peer, destination, &packet) else { return };
            packet[16..20].copy_from_slice(&inner.octets());
            if let Some(port) = port {
                set_port(&mut packet, DESTINATION_PORT, port);
            }
            out = INSIDE;
        } else if side == OUTSIDE {
            return;
        }
        packet[8] = packet[8].saturating_sub(1);
        frame::seal_ipv4(&mut packet);
        self.send(&queues[out], out, address(&packet, 16), &packet);
    }

    /// The outer address of a packet from inside, and its port if it gets another; `None`: it does not pass.
    fn outer(&mut self, inner: Ipv4Addr, peer: Ipv4Addr, packet: &[u8]) -> Option<(Ipv4Addr, Option<u16>)> {
        let (now, protocol) = (Instant::now(), packet[9]);
        match &self.translation {
            Translation::OneToOne(pairs) => {
                pairs.iter().find(|(own, _)| *own == inner).map(|(_, outer)| (*outer, None))
            }
            Translation::First(outer) => {
                let flow = self.flows.entry((peer, protocol)).or_insert((inner, now));
                if flow.0 != inner && flow.1.elapsed() < IDLE {
                    return None;
                }
                *flow = (inner, now);
                Some((*outer, None))
            }
            Translation::Last(outer) => {
                self.flows.insert((peer, protocol), (inner, now));
                Some((*outer, None))
            }
            Translation::Ports(outer, ports) => {
                let (from, _) = udp_ports(&packet[20..]).filter(|_| protocol == UDP)?;
                let of = ports.iter().find(|(own, _)| *own == inner).map(|(_, port)| *port)?;
                match from {
                    NAT_PORT => Some((*outer, Some(of))),
                    PORT => Some((*outer, Some(of - 1))),
                    _ => None,
                }
            }
        }
    }

    /// Whom a packet from a peer is for, and for which port if that is another there; `None`: nobody.
    fn inner(&self, peer: Ipv4Addr, outer: Ipv4Addr, packet: &[u8]) -> Option<(Ipv4Addr, Option<u16>)> {
        match &self.translation {
            Translation::OneToOne(pairs) => {
                pairs.iter().find(|(_, own)| *own == outer).map(|(inner, _)| (*inner, None))
            }
            Translation::First(_) | Translation::Last(_) => {
                self.flows.get(&(peer, packet[9])).map(|flow| (flow.0, None))
            }
            Translation::Ports(_, ports) => {
                let (_, to) = udp_ports(&packet[20..]).filter(|_| packet[9] == UDP)?;
                let own = |(inner, port): &(Ipv4Addr, u16)| match to.checked_add(1)? {
                    next if next == *port => Some((*inner, Some(PORT))),
                    _ => (to == *port).then_some((*inner, Some(NAT_PORT))),
                };
                ports.iter().find_map(own)
            }
        }
    }

    /// To a station whose Ethernet address is known; of another it asks, and the packet is lost.
    fn send(&self, queue: &Queue, side: usize, to: Ipv4Addr, packet: &[u8]) {
        let frame = match self.macs.get(&(side, to)) {
            Some(mac) => frame::ethernet(*mac, MACS[side], 0x0800, packet),
            None => {
                let own = match &self.translation {
                    _ if side == INSIDE => INNER,
                    Translation::OneToOne(pairs) => pairs.first().map_or(INNER, |(_, outer)| *outer),
                    Translation::First(outer) | Translation::Last(outer) | Translation::Ports(outer, _) => {
                        *outer
                    }
                };
                let request = frame::arp(false, MACS[side], own, [0; 6], to);
                frame::ethernet(BROADCAST, MACS[side], 0x0806, &request)
            }
        };
        let _ = queue.write(&frame);
    }
}
