//! Packets that come together, of which most leave at once: the same happens to each as to one that comes by itself.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use forwarding::DropReason;
use lab::*;
use model::program::Object;
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
