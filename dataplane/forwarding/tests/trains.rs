//! Packets that come together, of which most leave at once: the same happens to each as to one that comes by itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use forwarding::{CaptureOrder, Command, DropReason, Node, Tap};
use lab::esp::{Guard, PLAIN};
use lab::*;
use model::program::Object;
use model::sa::SaMode;
use wire::buf::TestBuf;
use wire::{ethernet, gre, ipv4, tcp};

/// A hub with two tunnels on one address, three spokes, and a router on the LAN.
fn node() -> TestNode {
    let mut node = hub(&[2, 3]);
    node.put([
        Object::Tunnel(tunnel("tun2", "192.0.2.1", "wan", Some(43))),
        receive("10.9.0.1/32", "tun2"),
        attached("10.9.0.0/24", "tun2"),
        neighbour("wan", "192.0.2.7", station(7)),
        binding("tun2", "10.9.0.7", "192.0.2.7", Some(hop("wan", "192.0.2.7"))),
        via("10.1.7.0/24", "tun2", "10.9.0.7"),
        neighbour("lan", "10.1.0.3", station(3)),
        via("10.5.0.0/16", "lan", "10.1.0.3"),
    ]);
    node
}

/// What comes by the LAN (port 1) and in tunnels by the WAN: what leaves at once, in each order beside what does not.
fn arrivals() -> Vec<(usize, Vec<u8>)> {
    let lan = |packet: &[u8]| (1, frame(LAN, station(9), ethernet::IPV4, packet));
    let in_tunnel = |key, packet: &[u8]| {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(key), gre::IPV4, packet);
        (0, frame(WAN, station(2), ethernet::IPV4, &outer))
    };
    let to = |destination: &str| udp("10.1.0.2", destination, &[7; 40]);
    let from_spoke = |destination: &str| udp("10.1.2.9", destination, &[8; 40]);
    let mut padded = lan(&udp("10.1.0.2", "10.1.3.9", b"x"));
    padded.1.resize(60, 0);
    let kinds = [
        lan(&to("10.5.1.1")),
        lan(&to("10.1.2.9")),
        lan(&to("10.1.7.9")),
        lan(&with_ttl(&to("10.5.1.2"), 1)),
        lan(&with_ttl(&to("10.1.2.9"), 1)),
        lan(&to("203.0.113.1")),
        lan(&to("10.1.0.1")),
        lan(&udp("10.1.0.2", "10.1.2.9", &[1; 1500])),
        padded,
        lan(&tcp_packet("10.1.0.2", "10.1.3.9", tcp::SYN, 9000)),
        in_tunnel(42, &from_spoke("10.5.1.1")),
        in_tunnel(42, &from_spoke("10.1.7.9")),
        in_tunnel(43, &from_spoke("10.5.1.1")),
        in_tunnel(43, &from_spoke("10.1.3.9")),
        in_tunnel(44, &from_spoke("10.5.1.1")),
        in_tunnel(42, &with_ttl(&from_spoke("10.1.7.9"), 1)),
        in_tunnel(42, &tcp_packet("10.1.2.9", "10.5.1.1", tcp::SYN, 9000)),
        in_tunnel(42, &from_spoke("10.1.0.1")),
    ];
    // Each behind and before each other, one kind many times on end as well.
    let pairs = kinds.iter().flat_map(|one| kinds.iter().flat_map(move |other| [one, other]));
    let runs = kinds.iter().flat_map(|one| std::iter::repeat_n(one, 40));
    pairs.chain(runs).cloned().collect()
}

/// A frame without what depends on its place among others: the outer header's identification and with it the checksum.
fn without_number(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == ethernet::IPV4.to_be_bytes() && frame[23] == ipv4::GRE {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

/// What left by each port, in order of bytes and without ICMP errors, which are limited in number; and drops.
type Result = (Vec<Vec<Vec<u8>>>, Vec<(DropReason, u64)>);

fn result(together: usize) -> Result {
    let mut node = node();
    for arrivals in arrivals().chunks(together) {
        for (port, frame) in arrivals {
            node.ports.rx[*port].push_back(TestBuf::new(frame));
        }
        node.settle();
    }
    let mut sent: Vec<Vec<_>> =
        (0..2).map(|port| node.sent(port).into_iter().map(without_number).collect()).collect();
    for sent in &mut sent {
        sent.retain(|frame: &Vec<u8>| frame.get(23) != Some(&ipv4::ICMP));
        sent.sort();
    }
    (sent, node.drops())
}

#[test]
fn what_comes_together_leaves_as_what_comes_alone() {
    let alone = result(1);
    assert!(alone.0.iter().all(|sent| sent.len() > 100));
    assert!(alone.1.len() >= 3, "{:?}", alone.1);
    for together in [2, 15, 16, 17, 100] {
        assert_eq!(result(together), alone, "{together} at once");
    }
}

/// Identifications of outer headers are each used once, in trains as well.
#[test]
fn packets_of_a_train_are_numbered_one_by_one() {
    let mut node = node();
    let arriving = frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x"));
    let expired = frame(LAN, station(9), ethernet::IPV4, &with_ttl(&udp("10.1.0.2", "10.1.2.9", b"x"), 1));
    for at in 0..100 {
        node.ports.rx[1].push_back(TestBuf::new(if at % 7 == 3 { &expired } else { &arriving }));
    }
    node.settle();
    let mut numbers: Vec<_> =
        node.sent(0).iter().map(|frame| u16::from_be_bytes([frame[18], frame[19]])).collect();
    let sent = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((sent, numbers.len()), (86, 86));
}

/// Input: two flows, each in a tunnel of its own, irregularly one behind the other, in one burst; of one flow some have an outer mark that goes
/// over to the inner header, or are SYNs that are to ask for less. Output: each flow leaves in the order in which it came.
#[test]
fn flows_keep_their_order_beside_each_other_and_whatever_is_changed_in_them() {
    let mut node = node();
    let mut came = [Vec::new(), Vec::new()];
    for number in 0_u16..120 {
        let flow = usize::from(number.wrapping_mul(7) % 5 > 2);
        let is_marked = flow == 0 && number % 4 == 1;
        // A SYN's segment size is its number.
        let inner = match number % 11 {
            3 if flow == 0 => tcp_packet("10.1.2.9", "10.5.1.1", tcp::SYN, number),
            _ => udp("10.1.2.9", "10.5.1.1", &number.to_be_bytes()),
        };
        // ECT(0) inside, congestion experienced outside (RFC 6040).
        let inner = with_class(&inner, if is_marked { 2 } else { flow as u8 * 4 });
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some([42, 43][flow]), gre::IPV4, &inner);
        let outer = if is_marked { with_class(&outer, 3) } else { outer };
        node.ports.rx[0].push_back(TestBuf::new(&frame(WAN, station(2), ethernet::IPV4, &outer)));
        came[flow].push((number, is_marked));
    }
    node.settle();
    let mut left = [Vec::new(), Vec::new()];
    for frame in node.sent(1) {
        let (packet, is_tcp) = (&frame[ethernet::LEN..], frame[23] == ipv4::TCP);
        let at = if is_tcp { ipv4::LEN + 22 } else { ipv4::LEN + 8 };
        let number = u16::from_be_bytes([packet[at], packet[at + 1]]);
        left[usize::from(packet[1] >> 2)].push((number, packet[1] & 3 == 3));
    }
    assert_eq!(left.each_ref().map(Vec::len), came.each_ref().map(Vec::len));
    assert_eq!(left, came);
}

/// The ways that spokes 2 to 6 of one protected tunnel are sealed for.
fn guards() -> [(u8, Guard); 5] {
    let in_udp = Guard { port: 4501, ..PLAIN };
    [(2, PLAIN), (3, in_udp), (4, PLAIN), (5, in_udp), (6, Guard { mode: SaMode::Tunnel, ..PLAIN })]
}

/// What comes by the LAN (port 1) and sealed by the WAN, to be sealed for each spoke: plain, and not.
fn to_seal() -> Vec<(usize, u8, Vec<u8>)> {
    let mut kinds = Vec::new();
    for (spoke, _) in guards() {
        let to = format!("10.1.{spoke}.9");
        let from_lan = |packet: &[u8]| (1, 0, packet.to_vec());
        kinds.extend([
            from_lan(&udp("10.1.0.2", &to, &[7; 40])),
            from_lan(&with_class(&udp("10.1.0.2", &to, &[6; 41]), 0xba)),
            from_lan(&tcp_packet("10.1.0.2", &to, tcp::SYN, 9000)),
            from_lan(&with_ttl(&udp("10.1.0.2", &to, b"x"), 1)),
            from_lan(&udp("10.1.0.2", &to, &[5; 1400])),
            (0, 2, udp("10.1.2.9", &to, &[8; 42])),
            (0, 3, udp("10.1.3.9", &to, &[9; 43])),
        ]);
    }
    kinds.push((1, 0, udp("10.1.0.2", "203.0.113.1", b"x")));
    kinds.push((0, 2, udp("10.1.2.9", "10.1.0.2", &[4; 44])));
    let pairs = kinds.iter().flat_map(|one| kinds.iter().flat_map(move |other| [one, other]));
    let runs = kinds.iter().flat_map(|one| std::iter::repeat_n(one, 40));
    pairs.chain(runs).cloned().collect()
}

/// What was sealed for each spoke, as outer header without what depends on its place among others and as inner packet, in order of bytes; what
/// left in the clear; drops.
type Sealed = (Vec<Vec<(Vec<u8>, Vec<u8>)>>, Vec<Vec<u8>>, Vec<(DropReason, u64)>);

/// Seals them, so many in a burst; `seen`: while somebody captures at nodes, and each goes from node to node.
fn sealed(together: usize, seen: bool) -> Sealed {
    let mut node = PLAIN.bare_hub(|_| {});
    for (spoke, guard) in guards() {
        node.put(guard.sas(spoke));
        node.put(guard.spoke(spoke));
    }
    if seen {
        let order = CaptureOrder { at: Tap::Node(Node::Punt), packets: 0, snap: 1, only: None };
        node.ports.commands.push_back(Command::Capture(Some(order)));
    }
    node.settle();
    let mut peers = guards().map(|(spoke, guard)| guard.peer(spoke));
    let frames: Vec<_> = to_seal()
        .into_iter()
        .map(|(port, from, packet)| {
            let frame = match from {
                0 => frame(LAN, station(9), ethernet::IPV4, &packet),
                spoke => peers[usize::from(spoke - 2)].seal(&packet),
            };
            (port, frame)
        })
        .collect();
    let (mut opened, mut clear) = (vec![Vec::new(); peers.len()], Vec::new());
    for frames in frames.chunks(together) {
        for (port, frame) in frames {
            node.ports.rx[*port].push_back(TestBuf::new(frame));
        }
        node.settle();
        for frame in node.sent(0) {
            let at = usize::from(frame[33] - 2);
            let (number, packet) = peers[at].open(&frame);
            let mut outer = frame[ethernet::LEN..ethernet::LEN + ipv4::LEN].to_vec();
            outer[4..6].fill(0);
            outer[10..12].fill(0);
            opened[at].push((number, (outer, packet)));
        }
        clear.extend(node.sent(1));
    }
    // Each sequence number is used once; an error leaves in the place of its packet, and is sealed later.
    for opened in &opened {
        let mut numbers: Vec<u64> = opened.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=opened.len() as u64));
    }
    let mut opened: Vec<Vec<_>> =
        opened.into_iter().map(|of_spoke| of_spoke.into_iter().map(|(_, packet)| packet).collect()).collect();
    clear.retain(|frame: &Vec<u8>| frame.get(23) != Some(&ipv4::ICMP));
    clear.sort();
    for opened in &mut opened {
        opened.retain(|(_, packet)| packet.get(9) != Some(&ipv4::ICMP));
        opened.sort();
    }
    (opened, clear, node.drops())
}

#[test]
fn what_is_sealed_together_leaves_as_what_is_sealed_alone() {
    let alone = sealed(1, true);
    assert!(alone.0.iter().all(|of_spoke| of_spoke.len() > 300));
    assert!(alone.1.len() > 40 && alone.2.len() >= 2, "{:?}", alone.2);
    for (together, seen) in [(1, false), (2, false), (15, false), (16, false), (17, false), (100, false)] {
        assert!(sealed(together, seen) == alone, "{together} at once");
    }
}

/// Identifications of outer headers are each used once among what is sealed, too.
#[test]
fn sealed_packets_of_a_train_are_numbered_one_by_one() {
    for guard in [PLAIN, Guard { port: 4501, ..PLAIN }] {
        let mut node = guard.hub(&[2]);
        for at in 0..100_u8 {
            let packet = udp("10.1.0.2", "10.1.2.9", &[at]);
            let packet = if at % 7 == 3 { with_ttl(&packet, 1) } else { packet };
            node.ports.rx[1].push_back(TestBuf::new(&guard.under().from_lan(&packet)));
        }
        node.settle();
        let sent = node.sent(0);
        let mut numbers: Vec<_> =
            sent.iter().map(|frame| u16::from_be_bytes([frame[18], frame[19]])).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((sent.len(), numbers.len()), (86, 86));
        let peer = guard.peer(2);
        let order: Vec<_> = sent.iter().map(|frame| *peer.open(frame).1.last().unwrap()).collect();
        assert!(order.is_sorted(), "a flow keeps its order");
    }
}
