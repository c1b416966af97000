//! A hub of both processes with one port, and the router of its underlay, which is this program: all peers are behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dpdk::{Eal, Mbuf, Mempool, MempoolConfig, Opened, PortConfig, free_bulk};
use model::state::adjacency::AdjacencyKind;
use model::state::{State, What};
use nix::sched::{CloneFlags, unshare};
use proto::client::Management;
use tokio::runtime::Runtime;
use wire::buf::PacketBuf;
use wire::{IntoBytes, arp, ethernet, ipv4};

use crate::machine::{cores, start_dpdk};
use crate::process::{Dataplane, Folder, Process, Setup, open_linked, other_ends};

/// Ports of the data plane.
const PORTS: [&str; 1] = ["wan"];
/// The router.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 1, 0, 1];
/// Packets that are made, and taken, at a time.
pub(crate) const BURST: usize = 32;
/// How long nothing at all may come, and how long something else than packets may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Sleep when nothing came: the cores are for those that are measured.
pub(crate) const PAUSE: Duration = Duration::from_micros(50);
/// Mebibytes of packet buffers here.
const MEGABYTES: u32 = 64;

/// A hub and its router. The control plane ends before the data plane, since it takes its twins along.
pub(crate) struct Hub {
    pub(crate) router: Router,
    pub(crate) runtime: Runtime,
    pub(crate) management: Management,
    pub(crate) controlplane: Process,
    pub(crate) dataplane: Dataplane,
}

impl Hub {
    /// Moves into a network namespace of its own: before there is another thread, so that all that are started from here on are in it. Twins,
    /// addresses and routes go with it.
    ///
    /// # Errors
    /// This is not root.
    pub(crate) fn alone() -> anyhow::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own, which root may have")
    }

    /// Starts both processes, the control plane with this configuration, and waits until the hub, which has this address on its port, knows its router.
    ///
    /// # Errors
    /// A process does not start or serve.
    pub(crate) fn start(
        programs: (Option<&Path>, Option<&Path>),
        folder: &Folder,
        config: &str,
        address: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        let dataplane = Dataplane::start(programs.0, folder, &Setup::memif(&PORTS)?)?;
        let file = folder.file("nave.toml");
        let socket = folder.file("controlplane.sock");
        std::fs::write(&file, config)?;
        let arguments = ["--config".to_owned(), file.display().to_string()];
        let controlplane = Process::start(programs.1, "controlplane", &arguments, &socket)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let management = Management::at(socket);
        let router = Router::connect()?;
        let mut hub = Self { router, runtime, management, controlplane, dataplane };
        let until = Instant::now() + PATIENCE;
        while !hub.is_ready(address)? {
            ensure!(Instant::now() < until, "the hub does not find the router of its underlay");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(hub)
    }

    /// Whether the data plane knows the router's Ethernet address, and we know the data plane's.
    fn is_ready(&mut self, address: Ipv4Addr) -> anyhow::Result<bool> {
        let mut came = Vec::new();
        self.router.receive(&mut came);
        for packet in &came {
            self.router.answer_arp(packet.bytes());
        }
        free_bulk(&mut came);
        self.router.ask(address)?;
        // Until it has greeted the data plane it says that that is away.
        let Ok(state) = self.runtime.block_on(self.management.show(What::Adjacency.into())) else {
            return Ok(false);
        };
        let State::Adjacency(adjacencies) = state else { bail!("adjacencies were asked for") };
        let is_router = |hop| hop == Some(IpAddr::V4(ROUTER));
        let found = adjacencies.0.iter().any(|a| a.kind == AdjacencyKind::Neighbour && is_router(a.next_hop));
        let State::Ports(ports) = self.runtime.block_on(self.management.show(What::Ports.into()))? else {
            bail!("ports were asked for")
        };
        let port = ports.0.first().context("the data plane has no port")?;
        self.router.hub = port.mac.0;
        Ok(found)
    }
}

/// The router: our end of the memif.
pub(crate) struct Router {
    _eal: Eal,
    pool: Mempool,
    port: Opened,
    /// Ethernet address of the hub.
    hub: [u8; 6],
    /// What is to be sent.
    made: Vec<Mbuf>,
}

impl Router {
    /// Starts DPDK here, on another core than the data plane's worker, and waits until the ends of the memif have found each other.
    fn connect() -> anyhow::Result<Self> {
        let core = cores(2)?[1];
        let (eal, _) = start_dpdk(MEGABYTES, other_ends(&PORTS))?;
        ensure!(core_affinity::set_for_current(core), "core {} cannot be had", core.id);
        let pool = Mempool::create(&eal, &MempoolConfig { count: 8191, ..MempoolConfig::default() })?;
        let [port] = open_linked(&eal, ["net_memif0"], &PortConfig::new(pool))?;
        Ok(Self { _eal: eal, pool, port, hub: [0; 6], made: Vec::with_capacity(BURST) })
    }

    /// An IPv4 packet from somebody behind the router, as it arrives at the hub.
    ///
    /// # Errors
    /// It is too long for one.
    pub(crate) fn frame(
        &self,
        (from, to): (Ipv4Addr, Ipv4Addr),
        protocol: u8,
        payload: &[&[u8]],
    ) -> anyhow::Result<Vec<u8>> {
        let length = payload.iter().map(|part| part.len()).sum();
        let ip = ipv4::Header::new(from, to, protocol, 254, length).context("a packet that is too long")?;
        let link = ethernet::Header::new(self.hub, ROUTER_MAC, ethernet::IPV4);
        Ok([&[link.as_bytes(), ip.as_bytes()], payload].concat().concat())
    }

    /// Takes what came.
    pub(crate) fn receive(&mut self, came: &mut Vec<Mbuf>) -> usize {
        came.reserve(BURST);
        self.port.rx[0].burst(came, BURST)
    }

    /// If somebody asks for an Ethernet address in the underlay: it is ours.
    pub(crate) fn answer_arp(&mut self, frame: &[u8]) {
        let asked = ethernet::parse(frame).ok().filter(|(link, _)| link.ethertype() == ethernet::ARP);
        let Some((header, _)) = asked.and_then(|(_, packet)| arp::parse(packet).ok()) else { return };
        if (header.operation(), header.target()) == (arp::REQUEST, ROUTER) {
            let link = ethernet::Header::new(header.sender_mac, ROUTER_MAC, ethernet::ARP);
            let reply = header.reply(ROUTER_MAC);
            // If there is no buffer it is asked again.
            let _ = self.push(&[link.as_bytes(), reply.as_bytes()].concat());
        }
    }

    /// Asks for the hub's Ethernet address: so it learns the router's.
    fn ask(&mut self, hub: Ipv4Addr) -> anyhow::Result<()> {
        let link = ethernet::Header::new(ethernet::BROADCAST, ROUTER_MAC, ethernet::ARP);
        let request = arp::Header::request(ROUTER_MAC, ROUTER, hub);
        self.push(&[link.as_bytes(), request.as_bytes()].concat())?;
        self.send();
        Ok(())
    }

    /// Room for more before the next [`Self::send`].
    pub(crate) fn room(&self) -> usize {
        BURST.saturating_sub(self.made.len())
    }

    /// Makes a packet of a frame.
    ///
    /// # Errors
    /// No buffer is free.
    pub(crate) fn push(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let mut packet = self.pool.alloc().context("no packet buffer is free")?;
        packet.append(frame.len()).context("a frame that fits")?.copy_from_slice(frame);
        self.made.push(packet);
        Ok(())
    }

    /// Sends what was made, as much as there is room for.
    pub(crate) fn send(&mut self) -> usize {
        self.port.tx[0].burst(&mut self.made)
    }
}

/// What a frame has of IPv4: where it is to, its protocol, and what it carries.
pub(crate) fn ipv4_in(frame: &[u8]) -> Option<(Ipv4Addr, u8, &[u8])> {
    let (link, packet) = ethernet::parse(frame).ok()?;
    if link.ethertype() != ethernet::IPV4 {
        return None;
    }
    let (ip, payload) = ipv4::parse(packet).ok()?;
    let payload = payload.get(..usize::from(ip.total_length()).checked_sub(ipv4::LEN)?)?;
    Some((ip.destination(), ip.protocol, payload))
}
