//! A node in a test: a program, a worker, and ports that are vectors. Shared by the tests and the walk example, each of
//! which uses a part of it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use forwarding::{
    AdjacencyId, Breath, Command, Counters, DropReason, Injected, InterfaceId, Notice, Origin, Port, PortId,
    Ports, Program, Punt, Worker, breathe,
};
use model::program::{
    Batch, Binding, Fallback, Hop, Interface, Neighbour, Object, Op, Owner, Path, Refused, Replica, Route,
    Tunnel, TunnelMode,
};
use model::time::Instant;
use model::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};
use wire::buf::{PacketBuf, TestBuf};
use wire::{ethernet, gre, ipv4, udp};
use zerocopy::IntoBytes;

/// Ports of vectors.
#[derive(Default)]
pub struct TestPorts {
    pub rx: Vec<VecDeque<TestBuf>>,
    pub tx: Vec<Vec<TestBuf>>,
    pub punts: Vec<(Punt, TestBuf)>,
    pub inject: VecDeque<Injected<TestBuf>>,
    pub notices: Vec<Notice>,
    pub commands: VecDeque<Command>,
    pub freed: usize,
    /// How many packets the ports, the punt queue and the allocator still take or give.
    pub tx_room: usize,
    pub punt_room: usize,
    pub buffers: usize,
}

impl TestPorts {
    pub fn new(count: usize) -> Self {
        Self {
            rx: (0..count).map(|_| VecDeque::new()).collect(),
            tx: (0..count).map(|_| Vec::new()).collect(),
            tx_room: usize::MAX,
            punt_room: usize::MAX,
            buffers: usize::MAX,
            ..Self::default()
        }
    }
}

impl Ports for TestPorts {
    type Buf = TestBuf;

    fn count(&self) -> u16 {
        self.rx.len() as u16
    }

    fn rx(&mut self, port: PortId, into: &mut Vec<TestBuf>, max: usize) {
        let queue = &mut self.rx[usize::from(port.0)];
        into.extend(queue.drain(..max.min(queue.len())));
    }

    fn tx(&mut self, port: PortId, from: &mut Vec<TestBuf>) {
        let taken = from.len().min(self.tx_room);
        self.tx_room -= taken;
        self.tx[usize::from(port.0)].extend(from.drain(..taken));
    }

    fn alloc(&mut self) -> Option<TestBuf> {
        self.buffers = self.buffers.checked_sub(1)?;
        Some(TestBuf::with_room(128, &[], 2048))
    }

    fn free(&mut self, bufs: &mut Vec<TestBuf>) {
        self.freed += bufs.len();
        bufs.clear();
    }

    fn punt(&mut self, punt: Punt, buf: TestBuf) -> Result<(), TestBuf> {
        match self.punt_room.checked_sub(1) {
            None => Err(buf),
            Some(room) => {
                self.punt_room = room;
                self.punts.push((punt, buf));
                Ok(())
            }
        }
    }

    fn injected(&mut self, into: &mut Vec<Injected<TestBuf>>, max: usize) {
        let count = max.min(self.inject.len());
        into.extend(self.inject.drain(..count));
    }

    fn notice(&mut self, notice: Notice) -> bool {
        self.notices.push(notice);
        true
    }

    fn command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }
}

/// One data plane in a test.
pub struct TestNode {
    pub program: Program,
    pub worker: Worker<TestBuf>,
    pub ports: TestPorts,
    pub now: Instant,
    batches: u64,
}

impl TestNode {
    /// Ports are named `p0`, `p1`, …; their addresses are 02:00:00:00:`node`:`port`.
    pub fn new(node: u8, ports: u8) -> Self {
        Self::with_room(node, ports, AdjacencyId::LIMIT, 1 << 16)
    }

    /// With room for so many adjacencies, and so many /24 with longer prefixes.
    pub fn with_room(node: u8, ports: u8, adjacencies: usize, groups: usize) -> Self {
        let list =
            (0..ports).map(|port| Port { name: format!("p{port}"), mac: port_mac(node, port), mtu: 1500 });
        let mut program = Program::with_room(list.collect(), adjacencies, groups).unwrap();
        let worker = program.worker().unwrap();
        let now = Instant::default() + Duration::from_secs(1000);
        Self { program, worker, ports: TestPorts::new(ports.into()), now, batches: 0 }
    }

    pub fn try_apply(&mut self, ops: Vec<Op>) -> Result<(), Refused> {
        self.batches += 1;
        self.program.apply(self.now, &Batch { number: self.batches, ops })
    }

    /// Puts objects, in the name of the configuration.
    pub fn put(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.try_apply(objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect()).unwrap();
    }

    pub fn remove(&mut self, object: &Object) {
        self.try_apply(vec![Op::Remove(Owner::Config, object.key())]).unwrap();
    }

    /// One breath, a microsecond after the last; the law holds.
    pub fn breathe(&mut self) -> Breath {
        self.now = self.now + Duration::from_micros(1);
        let breath = breathe(&mut self.worker, self.now, &mut self.ports);
        assert_eq!(breath.came, breath.gone, "{breath:?}");
        breath
    }

    /// Breathes until nothing is left to do.
    pub fn settle(&mut self) {
        while !self.breathe().is_idle() {}
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// A frame arrives; what goes out then, port by port.
    pub fn receive(&mut self, port: usize, frame: &[u8]) {
        self.ports.rx[port].push_back(TestBuf::new(frame));
        self.settle();
    }

    pub fn inject(&mut self, origin: Origin, bytes: &[u8]) {
        self.ports.inject.push_back(Injected { origin, buf: TestBuf::new(bytes) });
        self.settle();
    }

    /// The frames that went out of a port since the last call.
    pub fn sent(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.ports.tx[port].drain(..).map(|buf| buf.bytes().to_vec()).collect()
    }

    pub fn punted(&mut self) -> Vec<(Punt, Vec<u8>)> {
        self.ports.punts.drain(..).map(|(punt, buf)| (punt, buf.bytes().to_vec())).collect()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.program.dropped(reason)
    }

    /// All drops, by reason.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter().map(|reason| (reason, self.dropped(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub fn id(&self, name: &str) -> InterfaceId {
        self.program.interface_id(self::name(name)).unwrap()
    }

    pub fn counters(&self) -> std::sync::Arc<Counters> {
        self.worker.counters()
    }
}

pub fn port_mac(node: u8, port: u8) -> Mac {
    Mac([2, 0, 0, 0, node, port])
}

/// The address of a station that is no node.
pub fn station(number: u8) -> Mac {
    Mac([2, 0, 0, 1, 0, number])
}

pub fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

pub fn addr(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn hop(interface: &str, next_hop: &str) -> Hop {
    Hop { interface: name(interface), next_hop: next_hop.parse().unwrap() }
}

pub fn interface(interface: &str, port: &str, forwarding: bool) -> Object {
    let table = TableId(0);
    Object::Interface(Interface { name: name(interface), port: port.into(), mtu: 1500, table, forwarding })
}

pub fn tunnel(tunnel: &str, source: &str, source_interface: &str, key: Option<u32>) -> Tunnel {
    Tunnel {
        name: name(tunnel),
        mode: TunnelMode::Multipoint,
        source: NbmaAddr(source.parse().unwrap()),
        source_interface: name(source_interface),
        key,
        mtu: 1400,
        ttl: 64,
        network_id: 1,
        redirect: false,
        table: TableId(0),
        underlay_table: TableId(0),
    }
}

pub fn neighbour(interface: &str, next_hop: &str, mac: Mac) -> Object {
    Object::Neighbour(Neighbour { hop: hop(interface, next_hop), mac })
}

pub fn binding(tunnel: &str, next_hop: &str, nbma: &str, link: Option<Hop>) -> Object {
    Object::Binding(Binding {
        tunnel: name(tunnel),
        next_hop: ProtocolAddr(next_hop.parse().unwrap()),
        nbma: NbmaAddr(nbma.parse().unwrap()),
        link,
        expires_in: None,
    })
}

pub fn replica(tunnel: &str, nbma: &str, link: Option<Hop>) -> Object {
    Object::Replica(Replica { tunnel: name(tunnel), nbma: NbmaAddr(nbma.parse().unwrap()), link })
}

pub fn fallback(tunnel: &str, next_hop: &str) -> Object {
    Object::Fallback(Fallback { tunnel: name(tunnel), next_hop: ProtocolAddr(next_hop.parse().unwrap()) })
}

pub fn route(prefix: &str, path: Path) -> Object {
    let prefix: Prefix = prefix.parse().unwrap();
    Object::Route(Route { table: TableId(0), prefix, path, expires_in: None })
}

pub fn via(prefix: &str, interface: &str, next_hop: &str) -> Object {
    route(prefix, Path::Via(hop(interface, next_hop)))
}

pub fn attached(prefix: &str, interface: &str) -> Object {
    route(prefix, Path::Attached(name(interface)))
}

pub fn receive(prefix: &str, interface: &str) -> Object {
    route(prefix, Path::Receive(name(interface)))
}

pub fn frame(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [ethernet::Header::new(to.0, from.0, ethertype).as_bytes(), payload].concat()
}

/// An IPv4 packet, time to live 64 unless changed with [`with_ttl`].
pub fn ip(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Header::new(addr(from), addr(to), protocol, 64, payload.len()).unwrap();
    [header.as_bytes(), payload].concat()
}

pub fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    udp_ports(from, to, (4000, 4001), payload)
}

pub fn udp_ports(from: &str, to: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let ip = ipv4::Header::new(addr(from), addr(to), ipv4::UDP, 64, payload.len() + 8).unwrap();
    let mut header = udp::Header::new(ports.0, ports.1, payload.len()).unwrap();
    header.fill_checksum(&ip, payload);
    [ip.as_bytes(), header.as_bytes(), payload].concat()
}

/// A packet with another time to live.
pub fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    let (header, payload) = ipv4::parse(packet).unwrap();
    let new = ipv4::Header::new(header.source(), header.destination(), header.protocol, ttl, payload.len())
        .unwrap();
    [new.as_bytes(), payload].concat()
}

/// A GRE packet in IPv4.
pub fn gre_packet(from: &str, to: &str, key: Option<u32>, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; gre::len(key)];
    gre::write(&mut header, protocol, key).unwrap();
    ip(from, to, ipv4::GRE, &[&header, payload].concat())
}

/// Outer source, destination, key, and inner packet of a frame; everything checked.
pub fn open_tunnel(frame: &[u8]) -> (String, String, Option<u32>, Vec<u8>) {
    let (_, outer) = ethernet::parse(frame).unwrap();
    ipv4::verify(outer).unwrap();
    let (header, payload) = ipv4::parse(outer).unwrap();
    assert_eq!(header.protocol, ipv4::GRE);
    assert_eq!(usize::from(header.total_length()), outer.len());
    let (fields, inner) = gre::parse(payload).unwrap();
    if fields.protocol == gre::IPV4 {
        ipv4::verify(inner).unwrap();
    }
    (header.source().to_string(), header.destination().to_string(), fields.key, inner.to_vec())
}

/// A hub with a WAN and a LAN: `wan` on p0 (192.0.2.1, does not forward), `lan` on p1 (10.1.0.1/24), `tun` (10.0.0.1/24, key 42),
/// a LAN host 10.1.0.2 that is resolved, and spokes `10.0.0.n` at `192.0.2.n` with the LAN `10.1.n.0/24` behind each.
pub fn hub(spokes: &[u8]) -> TestNode {
    hub_of(TestNode::new(1, 2), spokes)
}

/// The same of a node that is there.
pub fn hub_of(mut node: TestNode, spokes: &[u8]) -> TestNode {
    node.put([
        interface("wan", "p0", false),
        interface("lan", "p1", true),
        Object::Tunnel(tunnel("tun", "192.0.2.1", "wan", Some(42))),
        receive("192.0.2.1/32", "wan"),
        receive("10.1.0.1/32", "lan"),
        receive("10.0.0.1/32", "tun"),
        attached("192.0.2.0/24", "wan"),
        attached("10.1.0.0/24", "lan"),
        attached("10.0.0.0/24", "tun"),
        neighbour("lan", "10.1.0.2", station(2)),
    ]);
    for spoke in spokes {
        node.put(spoke_objects(*spoke));
    }
    node
}

pub fn spoke_objects(spoke: u8) -> [Object; 3] {
    let nbma = format!("192.0.2.{spoke}");
    [
        neighbour("wan", &nbma, station(spoke)),
        binding("tun", &format!("10.0.0.{spoke}"), &nbma, Some(hop("wan", &nbma))),
        via(&format!("10.1.{spoke}.0/24"), "tun", &format!("10.0.0.{spoke}")),
    ]
}

/// The address of the hub's WAN port, and of its LAN port.
pub const WAN: Mac = Mac([2, 0, 0, 0, 1, 0]);
pub const LAN: Mac = Mac([2, 0, 0, 0, 1, 1]);
