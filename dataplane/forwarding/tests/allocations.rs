//! Never per packet: an allocation. Every way that a packet can go through the graph is gone by bursts, from the first packet on, while
//! each call of the allocator is counted.
//!
//! Not counted is what is no packet's: tables that are programmed, SAs that are installed; and what somebody asks to see, a trace or a
//! capture. A place in reassembly takes its room when it is first used and keeps it: there the first round is not counted.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::time::Duration;

use aead::{Key, Packet, Provider, open_one, seal_one};
use forwarding::{Breath, DropReason, Injected, Node, Origin, Worker, breathe};
use lab::esp::*;
use lab::*;
use memory::Heap;
use model::program::{Interface, Object, OutboundSa, Path};
use model::sa::{SaMode, Spi};
use model::time::Instant;
use model::{InterfaceName, WorkerId};
use wire::buf::TestBuf;
use wire::{arp, ethernet, gre, icmp, icmpv6, ipv4, ipv6};
use zerocopy::IntoBytes;

#[global_allocator]
static HEAP: Heap = Heap;

/// Packets of a round: more than a burst, so that a round is several breaths.
const ROUND: u16 = 150;
/// Rounds.
const ROUNDS: usize = 3;

/// What comes to a node.
enum Arrival {
    Frame(usize, Vec<u8>),
    Injected(Origin, Vec<u8>),
}

use Arrival::Frame;

/// How often one breath asks for memory; what it did.
fn counted(worker: &mut Worker<TestBuf>, now: Instant, ports: &mut TestPorts) -> (u64, Breath) {
    Heap::count(true);
    let before = Heap::asked();
    let breath = breathe(worker, now, ports);
    (Heap::asked() - before, breath)
}

/// A node on whose ways packets are sent.
struct Ways {
    node: TestNode,
    /// Times that its worker asked for memory.
    asked: u64,
}

impl Ways {
    fn new(mut node: TestNode) -> Self {
        node.settle();
        node.ports.stock(8 * ROUNDS * usize::from(ROUND));
        Self { node, asked: 0 }
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.node.now = self.node.now + Duration::from_micros(1);
            let (asked, breath) = counted(&mut self.node.worker, self.node.now, &mut self.node.ports);
            self.asked += asked;
            if breath.is_idle() {
                break;
            }
        }
    }

    /// All of them arrive at once.
    fn arrive(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        for arrival in arrivals {
            match arrival {
                Frame(port, bytes) => self.node.ports.rx[port].push_back(in_buffer(&bytes)),
                Arrival::Injected(origin, bytes) => {
                    self.node.ports.inject.push_back(Injected { origin, buf: in_buffer(&bytes) });
                }
            }
        }
        self.settle();
    }

    /// The same packets round after round.
    fn rounds(mut self, arrival: impl Fn(u16) -> Arrival) -> Self {
        for _ in 0..ROUNDS {
            self.arrive((0..ROUND).map(&arrival));
        }
        self
    }

    /// Nothing was asked for while packets passed these nodes, and none ended for another reason than these.
    #[track_caller]
    fn took_nothing(self, nodes: &[Node], drops: &[DropReason]) {
        let Self { node, asked } = self;
        for passed in nodes {
            assert!(node.program.node(*passed).packets > 0, "{passed}: no packet came by");
        }
        let reasons: Vec<_> = node.drops().into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(reasons, drops);
        assert_eq!(asked, 0, "times that the worker asked for memory");
    }
}

/// A frame in a buffer like those of a port.
fn in_buffer(frame: &[u8]) -> TestBuf {
    TestBuf::with_room(256, frame, 2048_usize.saturating_sub(frame.len()))
}

/// Hubs of each family under the tunnel, tagged or not.
fn hubs() -> impl Iterator<Item = (Dual, TestNode)> {
    Dual::ALL.into_iter().map(|dual| {
        let node = dual.hub(&[2, 3], |_| {});
        (dual, node)
    })
}

/// A packet of either family from the hub's LAN to a spoke's.
fn to_spoke(n: u16, len: usize) -> Vec<u8> {
    let (host, spoke) = hosts(n % 2 == 1, 2);
    any_udp(&host, &spoke, &vec![n as u8; len])
}

/// The other way.
fn to_lan(n: u16, len: usize) -> Vec<u8> {
    let (host, spoke) = hosts(n % 2 == 1, 2);
    any_udp(&spoke, &host, &vec![n as u8; len])
}

/// From spoke to spoke.
fn across(n: u16) -> Vec<u8> {
    any_udp(&hosts(n % 2 == 1, 2).1, &hosts(n % 2 == 1, 3).1, b"x")
}

/// A port whose links take so much.
fn with_mtu(object: Object, mtu: u16) -> Object {
    let Object::Interface(interface) = object else { panic!("an interface") };
    Object::Interface(Interface { mtu, ..interface })
}

#[test]
fn a_heap_that_is_asked_is_counted() {
    Heap::count(true);
    let before = Heap::asked();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(Heap::asked() - before, 1);
    let mut node = hub(&[2]);
    // A port that has no room for what leaves asks: the count is of this worker's breaths.
    node.ports.rx[1].push_back(in_buffer(&frame(LAN, station(2), ethernet::IPV4, &to_spoke(0, 10))));
    assert_eq!(counted(&mut node.worker, node.now, &mut node.ports).0, 1);
}

#[test]
fn forwarding_encapsulation_decapsulation_and_relay() {
    for (dual, node) in hubs() {
        let path = [Node::Classify, Node::IpLookup, Node::Ip6Lookup, Node::Midchain, Node::Tx];
        Ways::new(node).rounds(|n| Frame(1, dual.from_lan(&to_spoke(n, 100)))).took_nothing(&path, &[]);
    }
    for (dual, node) in hubs() {
        let path = [Node::GreDecap, Node::IpLookup, Node::Ip6Lookup, Node::Rewrite];
        Ways::new(node).rounds(|n| Frame(0, dual.tunnelled(2, &to_lan(n, 100)))).took_nothing(&path, &[]);
    }
    for (dual, node) in hubs() {
        let path = [Node::GreDecap, Node::IpLookup, Node::Ip6Lookup, Node::Midchain];
        Ways::new(node).rounds(|n| Frame(0, dual.tunnelled(2, &across(n)))).took_nothing(&path, &[]);
    }
    for (dual, node) in hubs() {
        let lan = |n: u16| if n % 2 == 1 { ("fd00:1::2", "fd00:1::2") } else { ("10.1.0.9", "10.1.0.2") };
        let packet = |n| any_udp(lan(n).0, lan(n).1, b"x");
        Ways::new(node).rounds(|n| Frame(1, dual.from_lan(&packet(n)))).took_nothing(&[Node::Rewrite], &[]);
    }
}

#[test]
fn redirect_and_punt() {
    for dual in Dual::ALL {
        let node = dual.hub(&[2, 3], |tunnel| tunnel.redirect = true);
        let flow = |n: u16| any_udp(&format!("10.1.2.{}", n % 250 + 1), "10.1.3.9", b"x");
        let path = [Node::Redirect, Node::Midchain];
        let ways = Ways::new(node).rounds(|n| Frame(0, dual.tunnelled(2, &flow(n))));
        assert!(ways.node.ports.punts.len() >= usize::from(ROUND));
        ways.took_nothing(&path, &[]);
    }
    let request = arp::Header::request(station(9).0, addr("10.1.0.2"), addr("10.1.0.1"));
    let ways = Ways::new(hub(&[2])).rounds(|n| match n % 3 {
        0 => Frame(1, frame(LAN, station(9), ethernet::ARP, request.as_bytes())),
        1 => Frame(1, frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.0.1", b"x"))),
        _ => Frame(
            0,
            frame(
                WAN,
                station(2),
                ethernet::IPV4,
                &gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::NHRP, b"an nhrp packet"),
            ),
        ),
    });
    assert_eq!(ways.node.ports.punts.len(), ROUNDS * usize::from(ROUND));
    ways.took_nothing(&[Node::Punt], &[]);
}

#[test]
fn glean_waiting_fallback_and_who_waited_in_vain() {
    // 40 stations that are not known: some packets wait, some find no room.
    let packet = |n: u16| udp("10.1.2.9", &format!("10.1.0.{}", 100 + n % 40), b"x");
    let arriving = |n| {
        Frame(
            0,
            frame(
                WAN,
                station(2),
                ethernet::IPV4,
                &gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet(n)),
            ),
        )
    };
    let mut ways = Ways::new(hub(&[2])).rounds(arriving);
    assert!(ways.node.breathe().waiting > 0);
    ways.node.put((100..120).map(|n| neighbour("lan", &format!("10.1.0.{n}"), station(n))));
    ways.settle();
    assert!(ways.node.sent(1).len() > 20);
    ways.node.pass(Duration::from_secs(1));
    ways.settle();
    assert_eq!(ways.node.breathe().waiting, 0);
    // The sender hears of it.
    assert!(!ways.node.sent(0).is_empty());
    ways.took_nothing(&[Node::Glean, Node::Rewrite], &[DropReason::Unresolved]);

    let mut node = hub(&[2]);
    node.put([fallback("tun", "10.0.0.2"), via("10.7.0.0/16", "tun", "10.0.0.77")]);
    let packet = |n: u16| udp("10.1.0.2", &format!("10.7.0.{}", n % 250), b"x");
    Ways::new(node)
        .rounds(|n| Frame(1, frame(LAN, station(2), ethernet::IPV4, &packet(n))))
        .took_nothing(&[Node::Glean, Node::Midchain], &[]);
}

#[test]
fn replication_and_what_comes_from_above() {
    for (dual, mut node) in hubs() {
        let link = dual.nbma(2);
        let receivers = (0..100).map(|n| dual.nbma(n + 100));
        node.put(receivers.map(|nbma| replica("tun", &nbma, Some(hop("wan", &link)))));
        let tun = node.id("tun");
        let hello = ip("10.0.0.1", "224.0.0.5", 89, b"ospf");
        let mut ways = Ways::new(node);
        ways.node.ports.stock(8000);
        for _ in 0..ROUNDS {
            ways.arrive((0..20).map(|_| Arrival::Injected(Origin::Twin(tun), hello.clone())));
        }
        assert_eq!(ways.node.sent(0).len(), ROUNDS * 20 * 100);
        ways.took_nothing(&[Node::Inject, Node::Replicate, Node::Midchain], &[]);
    }
    for (dual, node) in hubs() {
        let (wan, tunnel) = (node.id("wan"), node.id("tun"));
        let destination = dual.nbma(2).parse().unwrap();
        let control = Origin::Control { tunnel, destination, protocol_type: gre::NHRP, port: 0 };
        let vlan = dual.vlan(0).unwrap_or_default();
        let ways = Ways::new(node).rounds(|n| match n % 3 {
            0 => Arrival::Injected(Origin::Twin(tunnel), to_spoke(n, 20)),
            1 => Arrival::Injected(control, b"a reply".to_vec()),
            _ => {
                let sent = any_udp(&dual.nbma(1), &dual.nbma(2), b"x");
                Arrival::Injected(Origin::Twin(wan), dual.framed(station(2), WAN, vlan, &sent))
            }
        });
        assert_eq!(ways.node.ports.tx[0].len(), ROUNDS * usize::from(ROUND));
        ways.took_nothing(&[Node::Inject, Node::IpLookup, Node::Midchain, Node::Tx], &[]);
    }
}

/// The parts of a packet, each a packet of its own.
fn parts(packet: &[u8], id: u16, at: usize) -> [Vec<u8>; 2] {
    let part = |range: std::ops::Range<usize>, more: bool| {
        if packet[0] >> 4 == 6 {
            let (header, payload) = ipv6::parse(packet).unwrap();
            let part = ipv6::Fragment::new(header.next_header, range.start as u16, more, id.into());
            let data = [part.as_bytes(), &payload[range]].concat();
            let head =
                ipv6::Header::new(header.source(), header.destination(), ipv6::FRAGMENT, 64, data.len());
            return [head.unwrap().as_bytes(), &data].concat();
        }
        let (header, payload) = ipv4::parse(packet).unwrap();
        let head = ipv4::Header::new(header.source(), header.destination(), header.protocol, 64, range.len())
            .unwrap();
        let flags = if more { ipv4::MORE_FRAGMENTS } else { 0 };
        [head.with_id(id).with_flags(flags | (range.start / 8) as u16).as_bytes(), &payload[range]].concat()
    };
    let header = if packet[0] >> 4 == 6 { ipv6::LEN } else { ipv4::LEN };
    [part(0..at, true), part(at..packet.len() - header, false)]
}

#[test]
fn packets_that_are_cut_and_packets_that_come_in_parts() {
    // Into a tunnel that takes less: inner packets are cut.
    for dual in Dual::ALL {
        let node = dual.hub(&[2], |_| {});
        let large = |n: u16| udp("10.1.0.2", "10.1.2.9", &[n as u8; 1400]);
        Ways::new(node)
            .rounds(|n| Frame(1, dual.from_lan(&large(n))))
            .took_nothing(&[Node::Fragment, Node::Midchain], &[]);
    }
    // Onto a link that takes less than any tunnel has to: outer packets are.
    for dual in Dual::ALL.into_iter().filter(|dual| !dual.tagged) {
        let mut node = dual.hub(&[2], |_| {});
        node.put([with_mtu(interface("wan", "p0", false), 1290)]);
        let large = |n: u16| udp6("fd00:1::2", "fd00:1:2::9", &[n as u8; 1232]);
        let ways = Ways::new(node).rounds(|n| Frame(1, dual.from_lan(&large(n))));
        assert_eq!(ways.node.ports.tx[0].len(), 2 * ROUNDS * usize::from(ROUND));
        ways.took_nothing(&[Node::Fragment, Node::Midchain], &[]);
    }
    for dual in Dual::ALL {
        let mut ways = Ways::new(dual.hub(&[2], |_| {}));
        for round in 0..ROUNDS {
            let frames = (0..16_u16).flat_map(|n| {
                let inner = to_lan(n, 1200);
                let (from, to) = (dual.nbma(2), dual.nbma(1));
                let outer = gre_packet(&from, &to, Some(42), ethertype(&inner), &inner);
                parts(&outer, n, 600)
            });
            // All first parts, then all others: sixteen packets wait.
            let (first, others): (Vec<_>, Vec<_>) = frames
                .enumerate()
                .map(|(at, packet)| (at % 2, dual.from_wan(station(2), &packet)))
                .partition(|part| part.0 == 0);
            for frames in [first, others] {
                ways.arrive(frames.into_iter().map(|(_, frame)| Frame(0, frame)));
            }
            if round == 0 {
                ways.asked = 0;
            }
        }
        assert_eq!(ways.node.ports.tx[1].len(), ROUNDS * 16);
        ways.took_nothing(&[Node::Reassemble, Node::GreDecap], &[]);
    }
}

#[test]
fn icmp_errors_and_drops() {
    for (dual, mut node) in hubs() {
        node.put([route("203.0.113.0/24", Path::Blackhole)]);
        let last_hop = |n: u16| with_ttl(&to_spoke(n, 10), 1);
        let ways = Ways::new(node).rounds(|n| match n % 5 {
            0 => Frame(1, dual.from_lan(&last_hop(n / 5))),
            1 => Frame(1, dual.from_lan(&udp("10.1.0.2", "198.51.100.9", b"x"))),
            2 => Frame(1, dual.from_lan(&udp6("fd00:1::2", "2001:db8:7::9", b"x"))),
            3 => Frame(1, dual.from_lan(&whole(&udp("10.1.0.2", "10.1.2.9", &[0; 1400])))),
            _ => Frame(1, dual.from_lan(&udp("10.1.0.2", "203.0.113.1", b"x"))),
        });
        // Ten and more of each family, and of those that say what a path takes.
        assert!(ways.node.ports.tx[1].len() >= 30, "{}", ways.node.ports.tx[1].len());
        let drops = [DropReason::NoRoute, DropReason::Blackhole, DropReason::TtlExpired, DropReason::TooBig];
        ways.took_nothing(&[Node::IcmpError, Node::Drop, Node::Rewrite], &drops);
    }
}

#[test]
fn what_routers_say_of_a_path() {
    for over_v6 in [false, true] {
        let dual = Dual { over_v6, tagged: false };
        let ours = gre_packet(&dual.nbma(1), &dual.nbma(2), Some(42), gre::IPV4, &[7; 1400]);
        let told = if over_v6 {
            let header = icmpv6::Header::packet_too_big(1300);
            let (router, us) = (addr6("2001:db8:9::1"), addr6("2001:db8::1"));
            icmpv6::packet(router, us, 60, 0, header, &ours[..icmpv6::QUOTED]).unwrap()
        } else {
            let (router, us) = (addr("198.51.100.1"), addr("192.0.2.1"));
            icmp::packet(router, us, 60, 0, icmp::Header::fragmentation_needed(1300), &ours[..icmp::QUOTED])
                .unwrap()
        };
        let node = dual.hub(&[2], |_| {});
        let ways = Ways::new(node).rounds(|_| Frame(0, dual.from_wan(station(9), &told)));
        assert!(!ways.node.ports.notices.is_empty());
        ways.took_nothing(&[Node::Punt], &[]);
    }
}

/// Ways through protected tunnels: both modes, over both families, in UDP and not.
fn guards() -> impl Iterator<Item = Guard> {
    Guard::all().into_iter().filter(|guard| !guard.tagged && guard.esn)
}

#[test]
fn esp_both_ways() {
    for guard in guards() {
        let dual = guard.under();
        Ways::new(guard.hub(&[2]))
            .rounds(|n| Frame(1, dual.from_lan(&to_spoke(n, 100))))
            .took_nothing(&[Node::Midchain, Node::EspEncrypt], &[]);
        let (mut peer, mut ways) = (guard.peer(2), Ways::new(guard.hub(&[2, 3])));
        for _ in 0..ROUNDS {
            let frames: Vec<_> =
                (0..ROUND).map(|n| peer.seal(&if n % 3 == 0 { across(n) } else { to_lan(n, 100) })).collect();
            ways.arrive(frames.into_iter().map(|frame| Frame(0, frame)));
        }
        assert_eq!(ways.node.ports.tx[0].len(), ROUNDS * usize::from(ROUND) / 3, "{guard:?}");
        ways.took_nothing(&[Node::EspDecrypt, Node::GreDecap, Node::Rewrite, Node::EspEncrypt], &[]);
    }
}

#[test]
fn esp_that_is_refused_cut_moved_or_from_the_control_plane() {
    let guard = Guard { port: 4500, ..PLAIN };
    let dual = guard.under();
    let (mut peer, mut ways) = (guard.peer(2), Ways::new(guard.hub(&[2])));
    let tunnel = ways.node.id("tun");
    let destination = dual.nbma(2).parse().unwrap();
    let control = Origin::Control { tunnel, destination, protocol_type: gre::NHRP, port: 4500 };
    for round in 0..ROUNDS {
        let mut frames: Vec<_> = (0..ROUND).map(|n| peer.seal(&to_lan(n, 100))).collect();
        // Forged, seen already, and of no SA.
        *frames[7].last_mut().unwrap() ^= 1;
        frames.push(frames[usize::from(ROUND) - 2].clone());
        frames.push(Peer::new(guard, 2, in_spi(9), out_spi(9)).seal(&to_lan(0, 100)));
        ways.arrive(frames.into_iter().map(|frame| Frame(0, frame)));
        ways.arrive((0..ROUND).map(|n| match n % 2 {
            0 => Arrival::Injected(control, b"a reply".to_vec()),
            _ => Frame(1, dual.from_lan(&to_spoke(n, 100))),
        }));
        peer.from = ("198.51.100.7".into(), 7777 + round as u16);
    }
    assert!(!ways.node.ports.notices.is_empty(), "the peer has moved");
    assert_eq!(ways.node.ports.tx[0].len(), ROUNDS * usize::from(ROUND));
    let drops = [DropReason::NoSa, DropReason::Replayed, DropReason::BadIcv];
    ways.took_nothing(&[Node::Inject, Node::EspDecrypt, Node::EspEncrypt, Node::Drop], &drops);

    for guard in guards().filter(|guard| guard.mode == SaMode::Transport && guard.port == 0) {
        let dual = guard.under();
        let mut node = guard.hub(&[2]);
        node.put([with_mtu(interface("wan", "p0", false), 1290)]);
        let large = |n: u16| udp6("fd00:1::2", "fd00:1:2::9", &[n as u8; 1232]);
        Ways::new(node)
            .rounds(|n| Frame(1, dual.from_lan(&large(n))))
            .took_nothing(&[Node::EspEncrypt, Node::Fragment], &[]);
    }
}

#[test]
fn hand_off_between_workers() {
    let guard = PLAIN;
    let mut team = Team::new(2);
    let mut tun = tunnel("tun", "192.0.2.1", "wan", Some(42));
    (tun.protection, tun.mtu) = (Some("guard".parse().unwrap()), 1300);
    team.put(guard.under().base(tun));
    let mut peers = Vec::new();
    for spoke in 2..4_u8 {
        // Inbound and outbound SA of a spoke are of different workers.
        let inbound = Spi::of(u16::from(spoke), spoke.into(), 7).unwrap();
        let worker = WorkerId(u16::from(spoke + 1) % 2);
        team.put([
            Object::InboundSa(guard.inbound(spoke, inbound)),
            Object::OutboundSa(OutboundSa { worker, ..guard.outbound(spoke, out_spi(spoke)) }),
        ]);
        team.put(guard.spoke(spoke));
        peers.push(Peer::new(guard, spoke, inbound, out_spi(spoke)));
    }
    team.settle();
    let name: InterfaceName = "tun".parse().unwrap();
    let tunnel = team.program.interface_id(name).unwrap();
    team.ports.iter_mut().for_each(|ports| ports.stock(8 * ROUNDS * usize::from(ROUND)));
    let mut asked = 0;
    for _ in 0..ROUNDS {
        for n in 0..ROUND {
            let at = usize::from(n % 2);
            let (peer, next) = (&mut peers[at], [3, 2][at]);
            let on = udp(&format!("10.1.{}.9", peer.spoke), &format!("10.1.{next}.9"), b"x");
            // Each by the port of the worker that has not its SA.
            team.ports[1 - at].rx[0].push_back(in_buffer(&peer.seal(&on)));
            let destination = guard.nbma(peer.spoke).0;
            let origin = Origin::Control { tunnel, destination, port: 0, protocol_type: gre::NHRP };
            team.ports[at].inject.push_back(Injected { origin, buf: in_buffer(b"a reply") });
        }
        loop {
            let mut idle = true;
            for at in 0..2 {
                team.now = team.now + Duration::from_micros(1);
                let (more, breath) = counted(&mut team.workers[at], team.now, &mut team.ports[at]);
                asked += more;
                idle &= breath.is_idle();
                let mut handed_off = std::mem::take(&mut team.ports[at].handed_off);
                for (to, packet) in handed_off.drain(..) {
                    team.ports[to].handed_in.push_back(packet);
                }
                team.ports[at].handed_off = handed_off;
            }
            if idle && team.ports.iter().all(|ports| ports.handed_in.is_empty()) {
                break;
            }
        }
    }
    let flows = team.workers.iter().map(|worker| worker.counters().flow());
    assert!(flows.clone().all(|flow| flow.handed_in > 0 && flow.handed_off > 0));
    assert_eq!(flows.map(|flow| flow.sent).sum::<u64>(), 2 * ROUNDS as u64 * u64::from(ROUND));
    assert_eq!((team.drops(), asked), (vec![], 0));
}

#[test]
fn every_provider_of_aes_gcm() {
    Heap::count(true);
    for provider in Provider::ALL.into_iter().filter(|provider| provider.is_usable()) {
        for key in [&[7; 16][..], &[7; 32]] {
            let key = Key::new(provider, key).unwrap();
            let mut text = vec![0; 1416];
            let before = Heap::asked();
            for sequence in 1..50 {
                let (key, salt, text) = (&key, [1; 4], &mut text[..]);
                seal_one(Packet { key, salt, iv: 9, sequence, spi: 300, esn: true, text });
                let authentic = open_one(Packet { key, salt, iv: 9, sequence, spi: 300, esn: true, text });
                assert!(authentic, "{provider}");
            }
            assert_eq!(Heap::asked() - before, 0, "{provider}");
        }
    }
}
