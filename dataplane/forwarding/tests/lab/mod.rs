//! A node in a test: a program, a worker, and ports that are vectors. Shared by the tests and the walk example, each of
//! which uses a part of it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::wrong_self_convention
)]

pub mod esp;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use forwarding::{
    AdjacencyId, Breath, Command, Counters, DropReason, HandedOff, Injected, InterfaceId, Notice, Origin,
    Port, PortId, Ports, Program, Punt, Worker, breathe,
};
use model::program::{
    Batch, Binding, Fallback, Hop, Interface, Neighbour, Object, Op, OuterDf, Owner, Path, Refused, Replica,
    Route, TcpMss, Tunnel, TunnelMode,
};
use model::time::Instant;
use model::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};
use wire::buf::{PacketBuf, TestBuf};
use wire::{ethernet, gre, ipv4, ipv6, tcp, udp};
use zerocopy::IntoBytes;

/// Ports of vectors.
#[derive(Default)]
pub struct TestPorts {
    pub rx: Vec<VecDeque<TestBuf>>,
    /// Whether all ports check IPv4 header checksums.
    pub checks_ipv4: bool,
    pub tx: Vec<Vec<TestBuf>>,
    pub punts: Vec<(Punt, TestBuf)>,
    pub inject: VecDeque<Injected<TestBuf>>,
    pub notices: Vec<Notice>,
    pub commands: VecDeque<Command>,
    pub freed: usize,
    /// What was handed off, and to whom; what other workers hand in.
    pub handed_off: Vec<(usize, HandedOff<TestBuf>)>,
    pub handed_in: VecDeque<HandedOff<TestBuf>>,
    pub handoff_room: usize,
    /// How many packets the ports, the punt queue and the allocator still take or give.
    pub tx_room: usize,
    pub punt_room: usize,
    pub buffers: usize,
    /// Buffers that the allocator gives before it makes new ones.
    pub spare: Vec<TestBuf>,
}

impl TestPorts {
    pub fn new(count: usize) -> Self {
        Self {
            rx: (0..count).map(|_| VecDeque::new()).collect(),
            tx: (0..count).map(|_| Vec::new()).collect(),
            tx_room: usize::MAX,
            punt_room: usize::MAX,
            handoff_room: usize::MAX,
            buffers: usize::MAX,
            ..Self::default()
        }
    }

    /// So that nothing here takes memory until so many packets and notices have left: buffers, which are all that there are then, and room.
    pub fn stock(&mut self, packets: usize) {
        self.buffers = packets;
        self.spare = (0..packets).map(|_| TestBuf::with_room(128, &[], 2048)).collect();
        self.tx.iter_mut().for_each(|tx| tx.reserve(packets));
        self.punts.reserve(packets);
        self.notices.reserve(packets);
        self.handed_off.reserve(packets);
        self.handed_in.reserve(packets);
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

    fn checks_ipv4(&self, _: PortId) -> bool {
        self.checks_ipv4
    }

    fn tx(&mut self, port: PortId, from: &mut Vec<TestBuf>) {
        let taken = from.len().min(self.tx_room);
        self.tx_room -= taken;
        self.tx[usize::from(port.0)].extend(from.drain(..taken));
    }

    fn alloc(&mut self) -> Option<TestBuf> {
        self.buffers = self.buffers.checked_sub(1)?;
        Some(self.spare.pop().unwrap_or_else(|| TestBuf::with_room(128, &[], 2048)))
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

    fn hand_off(&mut self, to: usize, packet: HandedOff<TestBuf>) -> Result<(), HandedOff<TestBuf>> {
        if self.handed_off.len() >= self.handoff_room {
            return Err(packet);
        }
        self.handed_off.push((to, packet));
        Ok(())
    }

    fn handed_in(&mut self, into: &mut Vec<HandedOff<TestBuf>>, max: usize) {
        let count = max.min(self.handed_in.len());
        into.extend(self.handed_in.drain(..count));
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

pub fn addr6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub fn hop(interface: &str, next_hop: &str) -> Hop {
    Hop { interface: name(interface), next_hop: next_hop.parse().unwrap() }
}

pub fn interface(interface: &str, port: &str, forwarding: bool) -> Object {
    Object::Interface(Interface {
        name: name(interface),
        port: port.into(),
        vlan: None,
        mtu: 1500,
        table: TableId(0),
        forwarding,
        netns: None,
    })
}

/// The same of a VLAN of a port.
pub fn vlan(name: &str, port: &str, vlan: u16, forwarding: bool) -> Object {
    match interface(name, port, forwarding) {
        Object::Interface(plain) => {
            Object::Interface(Interface { vlan: Some(vlan.try_into().unwrap()), ..plain })
        }
        other => other,
    }
}

/// An interface or route, in another table; a tunnel, inner and outer packets both.
pub fn in_table(object: Object, table: u32) -> Object {
    let table = TableId(table);
    match object {
        Object::Interface(interface) => Object::Interface(Interface { table, ..interface }),
        Object::Tunnel(tunnel) => Object::Tunnel(Tunnel { table, underlay_table: table, ..tunnel }),
        Object::Route(route) => Object::Route(Route { table, ..route }),
        other => other,
    }
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
        outer_df: OuterDf::default(),
        tcp_mss: TcpMss::default(),
        netns: None,
        protection: None,
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
        port: 0,
    })
}

pub fn replica(tunnel: &str, nbma: &str, link: Option<Hop>) -> Object {
    Object::Replica(Replica { tunnel: name(tunnel), nbma: NbmaAddr(nbma.parse().unwrap()), link, port: 0 })
}

pub fn fallback(tunnel: &str, next_hop: &str) -> Object {
    Object::Fallback(Fallback { tunnel: name(tunnel), next_hop: ProtocolAddr(next_hop.parse().unwrap()) })
}

/// To a prefix, or to one address.
pub fn route(prefix: &str, path: Path) -> Object {
    let prefix: Prefix = prefix.parse().unwrap_or_else(|_| Prefix::host(prefix.parse().unwrap()));
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

/// An IPv6 packet, hop limit 64 unless changed with [`with_ttl`].
pub fn ip6(from: &str, to: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header::new(addr6(from), addr6(to), next_header, 64, payload.len()).unwrap();
    [header.as_bytes(), payload].concat()
}

pub fn udp6(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    udp6_ports(from, to, (4000, 4001), payload)
}

pub fn udp6_ports(from: &str, to: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let ip = ipv6::Header::new(addr6(from), addr6(to), ipv6::UDP, 64, payload.len() + 8).unwrap();
    let mut header = udp::Header::new(ports.0, ports.1, payload.len()).unwrap();
    header.fill_checksum_v6(&ip, payload);
    [ip.as_bytes(), header.as_bytes(), payload].concat()
}

/// A packet of the family of its addresses.
pub fn any_ip(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if is_v6(from) { ip6(from, to, protocol, payload) } else { ip(from, to, protocol, payload) }
}

/// The same, UDP.
pub fn any_udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    if is_v6(from) { udp6(from, to, payload) } else { udp(from, to, payload) }
}

pub fn is_v6(addr: &str) -> bool {
    addr.contains(':')
}

/// EtherType of an IP packet, and its GRE protocol type.
pub fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 { ethernet::IPV6 } else { ethernet::IPV4 }
}

/// A TCP segment with these flags that asks for segments of `mss` bytes; its checksum is right.
pub fn tcp_packet(from: &str, to: &str, flags: u8, mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    let mut segment =
        vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x60, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, high, low];
    let sum = tcp_sum(&any_ip(from, to, ipv4::TCP, &segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    any_ip(from, to, ipv4::TCP, &segment)
}

/// What a TCP packet's checksum would have to be if it were 0; 0 if it is right.
pub fn tcp_sum(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 6 {
        let (header, segment) = ipv6::parse(packet).unwrap();
        return header.pseudo_sum(ipv6::TCP, segment.len() as u32).bytes(segment).checksum();
    }
    let (header, segment) = ipv4::parse(packet).unwrap();
    header.pseudo_sum(segment.len() as u16).bytes(segment).checksum()
}

/// The segment size that a TCP packet of [`tcp_packet`]'s asks for, everything checked.
pub fn mss_of(packet: &[u8]) -> u16 {
    assert_eq!(tcp_sum(packet), 0);
    let (_, options) = tcp::parse(&packet[packet.len() - 24..]).unwrap();
    assert_eq!(options[..2], [2, 4]);
    u16::from_be_bytes([options[2], options[3]])
}

/// A packet with another time to live or hop limit.
pub fn with_ttl(packet: &[u8], ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        let mut packet = packet.to_vec();
        packet[7] = ttl;
        return packet;
    }
    let mut packet = packet.to_vec();
    packet[8] = ttl;
    summed(packet)
}

/// A packet with another DSCP and congestion mark.
pub fn with_class(packet: &[u8], class: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        (packet[0], packet[1]) = (0x60 | class >> 4, class << 4 | packet[1] & 0xf);
        return packet;
    }
    packet[1] = class;
    summed(packet)
}

/// DSCP and congestion mark of a packet.
pub fn class_of(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 6 { packet[0] << 4 | packet[1] >> 4 } else { packet[1] }
}

/// An IPv4 packet that nobody may cut.
pub fn whole(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[6] |= 0x40;
    summed(packet)
}

/// With the checksum of its IPv4 header computed anew.
pub fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0xf) * 4;
    let sum = wire::checksum::checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A GRE packet in IPv4 or IPv6.
pub fn gre_packet(from: &str, to: &str, key: Option<u32>, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; gre::len(key)];
    gre::write(&mut header, protocol, key).unwrap();
    any_ip(from, to, ipv4::GRE, &[&header, payload].concat())
}

/// The VLAN and the packet of a frame; its EtherType is the packet's.
pub fn open_frame(frame: &[u8]) -> (Option<u16>, Vec<u8>) {
    let (link, payload) = ethernet::parse(frame).unwrap();
    let (vlan, kind, packet) = if link.ethertype() == ethernet::VLAN {
        let (tag, packet) = ethernet::parse_tag(payload).unwrap();
        (Some(tag.vid()), tag.ethertype(), packet)
    } else {
        (None, link.ethertype(), payload)
    };
    assert_eq!(kind, ethertype(packet));
    (vlan, packet.to_vec())
}

/// Outer source, destination, key, and inner packet of a frame of either family over either, with or without a tag; everything
/// checked.
pub fn open_tunnel(frame: &[u8]) -> (String, String, Option<u32>, Vec<u8>) {
    let (_, outer) = open_frame(frame);
    let (from, to, payload): (IpAddr, IpAddr, &[u8]) = if outer[0] >> 4 == 6 {
        let (header, payload) = ipv6::parse(&outer).unwrap();
        assert_eq!((header.next_header, ipv6::LEN + payload.len()), (ipv6::GRE, outer.len()));
        (header.source().into(), header.destination().into(), payload)
    } else {
        ipv4::verify(&outer).unwrap();
        let (header, payload) = ipv4::parse(&outer).unwrap();
        assert_eq!((header.protocol, usize::from(header.total_length())), (ipv4::GRE, outer.len()));
        (header.source().into(), header.destination().into(), payload)
    };
    let (fields, inner) = gre::parse(payload).unwrap();
    match fields.protocol {
        gre::IPV4 => ipv4::verify(inner).unwrap(),
        gre::IPV6 => assert_eq!(inner[0] >> 4, 6),
        _ => {}
    }
    (from.to_string(), to.to_string(), fields.key, inner.to_vec())
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

/// The numbers of a hub of both families: which the underlay has, and by which interfaces it is reached.
pub struct Dual {
    /// The underlay is IPv6, `2001:db8::n`; else IPv4, `192.0.2.n`.
    pub over_v6: bool,
    /// `wan` and `lan` are VLAN 10 and 20 of their ports.
    pub tagged: bool,
}

impl Dual {
    pub const ALL: [Self; 4] = [
        Self { over_v6: false, tagged: false },
        Self { over_v6: true, tagged: false },
        Self { over_v6: false, tagged: true },
        Self { over_v6: true, tagged: true },
    ];

    pub fn nbma(&self, node: u8) -> String {
        if self.over_v6 { format!("2001:db8::{node}") } else { format!("192.0.2.{node}") }
    }

    /// As [`hub`], for both families, with LANs `10.1.n.0/24` and `fd00:1:n::/64`, the hub's with number 0 and a host 2, and protocol
    /// addresses `10.0.0.n` and `fd00::n`; `change` changes its tunnel.
    pub fn hub(&self, spokes: &[u8], change: impl FnOnce(&mut Tunnel)) -> TestNode {
        let mut node = TestNode::new(1, 2);
        let mut tun = tunnel("tun", &self.nbma(1), "wan", Some(42));
        change(&mut tun);
        node.put(self.base(tun));
        for spoke in spokes {
            node.put(self.spoke(*spoke));
        }
        node
    }

    /// All of such a hub but its spokes.
    pub fn base(&self, tun: Tunnel) -> Vec<Object> {
        let wire = |name: &str, port, id, forwarding| {
            if self.tagged { vlan(name, port, id, forwarding) } else { interface(name, port, forwarding) }
        };
        let underlay = if self.over_v6 { "2001:db8::/64" } else { "192.0.2.0/24" };
        let mut all = vec![
            wire("wan", "p0", 10, false),
            wire("lan", "p1", 20, true),
            Object::Tunnel(tun),
            receive(&self.nbma(1), "wan"),
            attached(underlay, "wan"),
        ];
        for (lan, host, overlay, own) in [
            ("10.1.0.0/24", "10.1.0.2", "10.0.0.0/24", ["10.1.0.1", "10.0.0.1"]),
            ("fd00:1:0::/64", "fd00:1:0::2", "fd00::/64", ["fd00:1:0::1", "fd00::1"]),
        ] {
            all.extend([
                receive(own[0], "lan"),
                receive(own[1], "tun"),
                attached(lan, "lan"),
                attached(overlay, "tun"),
                neighbour("lan", host, station(2)),
            ]);
        }
        all
    }

    pub fn spoke(&self, spoke: u8) -> Vec<Object> {
        let nbma = self.nbma(spoke);
        let link = Some(hop("wan", &nbma));
        vec![
            neighbour("wan", &nbma, station(spoke)),
            binding("tun", &format!("10.0.0.{spoke}"), &nbma, link),
            binding("tun", &format!("fd00::{spoke}"), &nbma, link),
            via(&format!("10.1.{spoke}.0/24"), "tun", &format!("10.0.0.{spoke}")),
            via(&format!("fd00:1:{spoke}::/64"), "tun", &format!("fd00::{spoke}")),
        ]
    }

    /// A packet as it comes by the WAN from a station.
    pub fn from_wan(&self, station: Mac, packet: &[u8]) -> Vec<u8> {
        self.framed(WAN, station, 10, packet)
    }

    /// The same by the LAN.
    pub fn from_lan(&self, packet: &[u8]) -> Vec<u8> {
        self.framed(LAN, station(2), 20, packet)
    }

    /// A packet in a frame, with a tag if these hubs have them.
    pub fn framed(&self, to: Mac, from: Mac, vlan: u16, packet: &[u8]) -> Vec<u8> {
        if self.tagged { tagged(to, from, vlan, packet) } else { frame(to, from, ethertype(packet), packet) }
    }

    /// A packet as a spoke sends it through the tunnel.
    pub fn tunnelled(&self, spoke: u8, packet: &[u8]) -> Vec<u8> {
        let outer = gre_packet(&self.nbma(spoke), &self.nbma(1), Some(42), ethertype(packet), packet);
        self.from_wan(station(spoke), &outer)
    }

    /// The VLAN that frames of a port have.
    pub fn vlan(&self, port: usize) -> Option<u16> {
        self.tagged.then_some([10, 20][port])
    }
}

/// Hosts of the lab by family: of the hub's LAN, and of a spoke's.
pub fn hosts(v6: bool, spoke: u8) -> (String, String) {
    if v6 {
        ("fd00:1::2".into(), format!("fd00:1:{spoke}::9"))
    } else {
        ("10.1.0.2".into(), format!("10.1.{spoke}.9"))
    }
}

/// An IP packet in a frame with a tag.
pub fn tagged(to: Mac, from: Mac, vlan: u16, packet: &[u8]) -> Vec<u8> {
    let tag = ethernet::Tag::new(0, vlan, ethertype(packet));
    frame(to, from, ethernet::VLAN, &[tag.as_bytes(), packet].concat())
}
