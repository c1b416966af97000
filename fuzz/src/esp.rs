//! ESP through the graph of the data plane: whatever comes, what was sealed for us is delivered once, and nothing of a protected tunnel
//! leaves in the clear.

use std::collections::{BTreeSet, VecDeque};

use ::aead::{Key, Packet, Provider, open_one, seal_one};
use forwarding::{DropReason, Injected, Notice, PortId, Ports, Program, Punt, Worker, breathe};
use model::program::{
    Batch, Binding, Hop, InboundSa, Interface, Neighbour, Object, Op, OutboundSa, OuterDf, Owner, Path,
    Route, TcpMss, Tunnel, TunnelMode,
};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::time::Instant;
use model::{InterfaceName, Mac, NbmaAddr, ProtocolAddr, TableId, WorkerId};
use wire::buf::{PacketBuf, TestBuf};
use wire::{esp, ethernet, gre, ipv4, udp};
use zerocopy::IntoBytes;

/// Our addresses, and those of the peer and of a host behind it and one behind us.
const US: [u8; 4] = [192, 0, 2, 1];
const PEER: [u8; 4] = [192, 0, 2, 2];
const OURS: [u8; 4] = [192, 168, 1, 9];
const THEIRS: [u8; 4] = [192, 168, 2, 9];
/// What only packets have that were sealed by the peer.
const MARK: &[u8; 8] = b"sealed:\x07";
const WINDOW: u64 = 64;

/// Reads bytes as what comes by the ports: frames as they are, ESP of any bytes, ESP with any text under the right key, packets that the
/// peer sealed right (late, early, twice), and packets for it.
///
/// # Panics
/// A promise is broken: a packet of the peer is delivered that was before, or is too old, or one that is new is not; one for it cannot be
/// opened by it or has a number that was used; something else than ESP leaves by the underlay; packets do not add up.
pub fn esp(bytes: &[u8]) {
    let Some((&flags, mut bytes)) = bytes.split_first() else { return };
    let mut node = Node::new(flags);
    while let Some((&[what, length, step], rest)) = bytes.split_first_chunk() {
        let (taken, rest) = rest.split_at(usize::from(length).min(rest.len()));
        bytes = rest;
        let sequence = node.sequence(step);
        match what % 8 {
            0 => node.port(0, taken.to_vec()),
            1 => node.port(0, node.outer(ipv4::ESP, taken)),
            2 => {
                let datagram = udp::Header::new(node.udp.max(1), udp::IKE_NAT, taken.len());
                let header = datagram.expect("a short one");
                node.port(0, node.outer(ipv4::UDP, &[header.as_bytes(), taken].concat()));
            }
            3 => {
                let frame = node.sealed(sequence, taken.to_vec());
                // It may be a packet like any other, whose number is taken then.
                node.unknown(sequence);
                node.port(0, frame);
            }
            4 | 5 => node.of_peer(sequence, taken),
            6 => {
                let mut frame = node.sealed(sequence, node.text(taken));
                let at = usize::from(step) * 7 % frame.len();
                frame[at] ^= what | 1;
                // Where nobody looks, as at the sender's Ethernet address, it changes nothing.
                node.allowed += 1;
                node.unknown(sequence);
                node.port(0, frame);
            }
            _ => node.for_peer(taken),
        }
        if step & 3 == 0 {
            node.walk();
        }
    }
    node.walk();
}

/// Ports of queues.
#[derive(Default)]
struct Queues {
    rx: [VecDeque<TestBuf>; 2],
    tx: [Vec<TestBuf>; 2],
}

impl Ports for Queues {
    type Buf = TestBuf;

    fn count(&self) -> u16 {
        2
    }

    fn rx(&mut self, port: PortId, into: &mut Vec<TestBuf>, max: usize) {
        let queue = &mut self.rx[usize::from(port.0)];
        into.extend(queue.drain(..max.min(queue.len())));
    }

    fn tx(&mut self, port: PortId, from: &mut Vec<TestBuf>) {
        self.tx[usize::from(port.0)].append(from);
    }

    fn alloc(&mut self) -> Option<TestBuf> {
        Some(TestBuf::with_room(128, &[], 2048))
    }

    fn free(&mut self, bufs: &mut Vec<TestBuf>) {
        bufs.clear();
    }

    fn punt(&mut self, _: Punt, _: TestBuf) -> Result<(), TestBuf> {
        Ok(())
    }

    fn injected(&mut self, _: &mut Vec<Injected<TestBuf>>, _: usize) {}

    fn notice(&mut self, _: Notice) -> bool {
        true
    }
}

/// The data plane of a node with one peer, and what has to come of what was given to it.
struct Node {
    program: Program,
    worker: Worker<TestBuf>,
    ports: Queues,
    now: Instant,
    udp: u16,
    mode: SaMode,
    esn: bool,
    /// The peer's key of what it seals, and ours.
    keys: [(Key, [u8; 4]); 2],
    /// Numbers of packets that have come, and of those that may have.
    came: BTreeSet<u64>,
    maybe: BTreeSet<u64>,
    top: u64,
    /// Packets of the peer that have to be delivered, and that may be.
    wanted: usize,
    allowed: usize,
    /// Our own last number.
    last: u64,
}

impl Node {
    fn new(flags: u8) -> Self {
        let mac = |port: u8| Mac([2, 0, 0, 0, 1, port]);
        let port = |n: u8| forwarding::Port { name: format!("p{n}"), mac: mac(n), mtu: 1500 };
        let mut program = Program::with_room(vec![port(0), port(1)], 64, 64).expect("address space");
        let worker = program.worker().expect("address space");
        let udp = if flags & 1 == 0 { 0 } else { 4501 };
        let mode = if flags & 2 == 0 { SaMode::Transport } else { SaMode::Tunnel };
        let esn = flags & 4 != 0;
        let keymat = [[1_u8; 20], [2; 20]];
        let key = |of: usize| SaKey::new(&keymat[of]).expect("20 bytes");
        let provider = Provider::best();
        let keys = [0, 1].map(|of| (Key::new(provider, key(of).key()).expect("16 bytes"), key(of).salt()));
        let ops = objects(udp, mode, esn, &key).into_iter().map(|object| Op::Put(Owner::Config, object));
        program.apply(Instant::default(), &Batch { number: 1, ops: ops.collect() }).expect("a good program");
        let mut node = Self {
            program,
            worker,
            ports: Queues::default(),
            now: Instant::default(),
            udp,
            mode,
            esn,
            keys,
            came: BTreeSet::new(),
            maybe: BTreeSet::new(),
            top: 0,
            wanted: 0,
            allowed: 0,
            last: 0,
        };
        while node.program.pump() || !node.program.are_orders_taken() {
            node.walk();
        }
        node
    }

    /// A number near the highest that came: up to 30 ahead, or some 220 behind.
    fn sequence(&self, step: u8) -> u64 {
        (self.top + 30).saturating_sub(step.into()).max(1)
    }

    /// This number may be used up from now on, or not: nobody can say.
    fn unknown(&mut self, sequence: u64) {
        self.maybe.insert(sequence);
        // What was too old before may be, after.
        self.top = self.top.max(sequence);
    }

    fn port(&mut self, port: usize, frame: Vec<u8>) {
        self.ports.rx[port].push_back(TestBuf::with_room(128, &frame, 256));
    }

    fn frame(packet: &[u8], port: u8) -> Vec<u8> {
        let link = ethernet::Header::new([2, 0, 0, 0, 1, port], [2, 0, 0, 0, 9, port], ethernet::IPV4);
        [link.as_bytes(), packet].concat()
    }

    fn ip(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = ipv4::Header::new(from.into(), to.into(), protocol, 64, payload.len());
        [header.expect("a short one").as_bytes(), payload].concat()
    }

    fn outer(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        Self::frame(&Self::ip(PEER, US, protocol, payload), 0)
    }

    /// Text of a right packet for a host of ours.
    fn text(&self, payload: &[u8]) -> Vec<u8> {
        let packet = Self::ip(THEIRS, OURS, 253, &[MARK, payload].concat());
        let mut gre = vec![0; 8];
        gre::write(&mut gre, gre::IPV4, Some(42)).expect("8 bytes");
        gre.extend(packet);
        let (mut text, next_header) = match self.mode {
            SaMode::Transport => (gre, ipv4::GRE),
            SaMode::Tunnel => (Self::ip(PEER, US, ipv4::GRE, &gre), esp::IPV4),
        };
        let payload = text.len();
        text.resize(esp::text_len(payload), 0);
        esp::write_trailer(&mut text, payload, next_header).expect("room for it");
        text
    }

    fn sealed(&self, sequence: u64, mut text: Vec<u8>) -> Vec<u8> {
        text.resize(text.len() + esp::ICV, 0);
        let (key, salt) = &self.keys[0];
        let spi = inbound().value();
        let (salt, esn) = (*salt, self.esn);
        seal_one(Packet { key, salt, iv: sequence, sequence, spi, esn, text: &mut text });
        let packet = [esp::Header::new(spi, sequence, sequence).as_bytes(), &text].concat();
        if self.udp == 0 {
            return self.outer(ipv4::ESP, &packet);
        }
        let header = udp::Header::new(self.udp, udp::IKE_NAT, packet.len()).expect("a short one");
        self.outer(ipv4::UDP, &[header.as_bytes(), &packet].concat())
    }

    /// A right packet of the peer.
    fn of_peer(&mut self, sequence: u64, payload: &[u8]) {
        let frame = self.sealed(sequence, self.text(payload));
        self.port(0, frame);
        let is_sure = self.maybe.is_empty();
        let is_new = self.top < sequence + WINDOW && !self.came.contains(&sequence);
        if is_new || !is_sure {
            self.allowed += usize::from(!self.came.contains(&sequence));
            self.wanted += usize::from(is_new && is_sure);
            self.came.insert(sequence);
            self.top = self.top.max(sequence);
        }
    }

    /// A packet of a host of ours for one behind the peer.
    fn for_peer(&mut self, payload: &[u8]) {
        let packet = Self::ip(OURS, THEIRS, 253, payload);
        self.port(1, Self::frame(&packet, 1));
    }

    /// Walks until nothing is left to do, and looks at what came of it.
    fn walk(&mut self) {
        loop {
            let breath = breathe(&mut self.worker, self.now, &mut self.ports);
            assert_eq!(breath.came, breath.gone, "packets do not add up");
            if breath.is_idle() {
                break;
            }
        }
        for frame in std::mem::take(&mut self.ports.tx[0]) {
            self.check_underlay(frame.bytes());
        }
        let delivered = std::mem::take(&mut self.ports.tx[1]);
        let is_marked = |frame: &&TestBuf| frame.bytes().get(34..42) == Some(MARK);
        let delivered = delivered.iter().filter(is_marked).count();
        assert!(delivered >= self.wanted, "{delivered} of {}: {:?}", self.wanted, self.drops());
        assert!(delivered <= self.allowed, "{delivered}, and no more than {} are new", self.allowed);
        (self.wanted, self.allowed) = (0, 0);
    }

    /// What leaves by the underlay: ESP that the peer can open and that has a number of its own, or a word about a path.
    fn check_underlay(&mut self, frame: &[u8]) {
        let (ip, payload) = ipv4::parse(frame.get(14..).expect("a frame")).expect("an IPv4 packet");
        let packet = match (ip.protocol, self.udp) {
            (ipv4::ICMP, _) => return,
            (ipv4::ESP, 0) => payload,
            (ipv4::UDP, 4501) => udp::parse(payload).expect("a datagram").1,
            (protocol, _) => panic!("protocol {protocol} on the underlay"),
        };
        let (header, text) = esp::parse(packet).expect("ESP");
        assert!(header.iv() > self.last, "number {} after {}", header.iv(), self.last);
        self.last = header.iv();
        let (key, salt) = &self.keys[1];
        let (mut text, salt, esn, sequence) = (text.to_vec(), *salt, self.esn, header.iv());
        let spi = outbound().value();
        assert!(open_one(Packet { key, salt, iv: sequence, sequence, spi, esn, text: &mut text }));
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter().map(|reason| (reason, self.program.dropped(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

fn inbound() -> Spi {
    Spi::of(0, 5, 9).expect("fields in their ranges")
}

fn outbound() -> Spi {
    Spi::new(0xabcd_ef01).expect("above 255")
}

fn name(text: &str) -> InterfaceName {
    text.parse().expect("a name")
}

/// What the node is programmed with.
fn objects(port: u16, mode: SaMode, esn: bool, key: &dyn Fn(usize) -> SaKey) -> Vec<Object> {
    let table = TableId(0);
    let [us, peer] = [US, PEER].map(|addr| NbmaAddr(std::net::IpAddr::from(addr)));
    let profile = "fuzz".parse().expect("a name");
    let protection = Protection { profile, table, local: us, remote: peer, port };
    let hop = |on: &str, addr: [u8; 4]| Hop { interface: name(on), next_hop: addr.into() };
    let interface = |on: &str, port: &str, forwarding| {
        let (name, port) = (name(on), port.to_owned());
        Object::Interface(Interface { name, port, vlan: None, mtu: 1500, table, forwarding, netns: None })
    };
    let neighbour = |hop, last| Object::Neighbour(Neighbour { hop, mac: Mac([2, 0, 0, 0, 9, last]) });
    let route = |prefix: &str, path| {
        let prefix = prefix.parse().expect("a prefix");
        Object::Route(Route { table, prefix, path, expires_in: None })
    };
    let overlay = ProtocolAddr([10, 0, 0, 2].into());
    vec![
        interface("wan", "p0", false),
        interface("lan", "p1", true),
        Object::Tunnel(Tunnel {
            name: name("tun"),
            mode: TunnelMode::Multipoint,
            source: us,
            source_interface: name("wan"),
            key: Some(42),
            mtu: 1300,
            ttl: 64,
            network_id: 1,
            redirect: false,
            table,
            underlay_table: table,
            outer_df: OuterDf::default(),
            tcp_mss: TcpMss::default(),
            netns: None,
            protection: Some(profile),
        }),
        neighbour(hop("wan", PEER), 0),
        neighbour(hop("lan", OURS), 1),
        Object::Binding(Binding {
            tunnel: name("tun"),
            next_hop: overlay,
            nbma: peer,
            link: Some(hop("wan", PEER)),
            expires_in: None,
            port,
        }),
        route("192.0.2.1/32", Path::Receive(name("wan"))),
        route("192.168.1.0/24", Path::Via(hop("lan", OURS))),
        route("192.168.2.0/24", Path::Via(Hop { interface: name("tun"), next_hop: overlay.0 })),
        Object::InboundSa(InboundSa {
            spi: inbound(),
            protection,
            mode,
            key: key(0),
            esn,
            window: WINDOW as u16,
            lifetimes: Lifetimes::default(),
        }),
        Object::OutboundSa(OutboundSa {
            protection,
            worker: WorkerId(0),
            spi: outbound(),
            mode,
            key: key(1),
            esn,
            lease: Lease { first: 1, last: 1 << 22 },
            lifetimes: Lifetimes::default(),
        }),
    ]
}
