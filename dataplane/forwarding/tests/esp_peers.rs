//! Peers whom an SA protects: who has none, who moves, how much they may be sent, what their paths take.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::net::IpAddr;
use std::time::Duration;

use forwarding::{DropReason, Notice};
use lab::esp::*;
use lab::*;
use model::program::{InboundSa, Object, OutboundSa};
use model::report::Report;
use model::sa::{Amount, Lease, Lifetimes, Reached};
use wire::{icmp, icmpv6, ipv4, ipv6};

fn packet(to: u8) -> Vec<u8> {
    udp("10.1.0.2", &format!("10.1.{to}.9"), b"x")
}

fn from_lan(packet: &[u8]) -> Vec<u8> {
    PLAIN.under().from_lan(packet)
}

#[test]
fn a_peer_without_sa_is_reached_through_the_server_alone() {
    let mut node = PLAIN.hub(&[2]);
    node.put(PLAIN.spoke(3));
    // Nobody to fall back on: the sender is told, ten times a second at most.
    node.receive(1, &from_lan(&packet(3)));
    assert_eq!(node.sent(0), Vec::<Vec<u8>>::new());
    let told = node.sent(1);
    assert_eq!((told.len(), node.drops()), (1, vec![(DropReason::NoOutboundSa, 1)]));
    let (_, message) = ipv4::parse(&told[0][14..]).unwrap();
    let (error, _) = icmp::parse(message).unwrap();
    assert_eq!((error.kind, error.code), (icmp::UNREACHABLE, icmp::HOST_UNREACHABLE));
    // There is a server: its SA.
    node.put([fallback("tun", "10.0.0.2")]);
    node.receive(1, &from_lan(&packet(3)));
    let sent = node.sent(0);
    assert_eq!(sent.len(), 1);
    assert_eq!(PLAIN.peer(2).open(&sent[0]).1, with_ttl(&packet(3), 63));
    // But not back to the server whence it came.
    node.receive(0, &PLAIN.peer(2).seal_as(1, &udp("10.1.2.9", "10.1.3.9", b"x")));
    let told = node.sent(0);
    assert_eq!((told.len(), node.dropped(DropReason::NoOutboundSa)), (1, 2));
    let (_, error) = PLAIN.peer(2).open(&told[0]);
    assert_eq!(ipv4::parse(&error).unwrap().0.protocol, ipv4::ICMP);
    // Its SA goes, and the server has none any more: nothing leaves.
    node.remove(&Object::OutboundSa(PLAIN.outbound(2, out_spi(2))));
    node.settle();
    for to in [2, 3] {
        node.receive(1, &from_lan(&packet(to)));
    }
    assert_eq!((node.sent(0).len(), node.dropped(DropReason::NoOutboundSa)), (0, 4));
    // The control plane was told, once a second at most, that packets want these SAs.
    let wanted: Vec<IpAddr> = node
        .ports
        .notices
        .iter()
        .map(|notice| match notice {
            Notice::Glean { next_hop, .. } => *next_hop,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(wanted, ["10.0.0.3", "10.0.0.2"].map(|hop| hop.parse::<IpAddr>().unwrap()));
    // IPv6 likewise.
    node.receive(1, &from_lan(&udp6("fd00:1::2", "fd00:1:3::9", b"x")));
    let told = node.sent(1).pop().unwrap();
    let (header, message) = ipv6::parse(&told[14..]).unwrap();
    let (error, _) = icmpv6::parse(header, message).unwrap();
    assert_eq!((error.kind, error.code), (icmpv6::UNREACHABLE, icmpv6::ADDRESS_UNREACHABLE));
}

#[test]
fn a_peer_behind_a_nat_may_move_and_is_told_of_once_a_second() {
    let guard = Guard { port: 4500, ..PLAIN };
    let mut node = guard.hub(&[2]);
    let (mut peer, back) = (guard.peer(2), udp("10.1.2.9", "10.1.0.2", b"x"));
    node.receive(0, &peer.seal(&back));
    assert_eq!(node.ports.notices, []);
    // Not authentic: nobody has moved.
    peer.from = ("198.51.100.7".into(), 7777);
    let mut forged = peer.seal(&back);
    *forged.last_mut().unwrap() ^= 1;
    node.receive(0, &forged);
    // Authentic and older than the newest: on its way before the peer moved.
    let old = peer.seal_as(3, &back);
    node.receive(0, &peer.seal_as(9, &back));
    let moved = Notice::SaMoved { spi: in_spi(2).value(), nbma: addr("198.51.100.7").into(), port: 7777 };
    assert_eq!(std::mem::take(&mut node.ports.notices), [moved]);
    node.pass(Duration::from_secs(2));
    node.receive(0, &old);
    assert_eq!(node.ports.notices, []);
    node.receive(0, &peer.seal_as(10, &back));
    node.receive(0, &peer.seal_as(11, &back));
    assert_eq!(std::mem::take(&mut node.ports.notices), [moved]);
    // All of it was taken but what was forged.
    assert_eq!((node.sent(1).len(), node.drops()), (5, vec![(DropReason::BadIcv, 1)]));
    // ESP that is not in UDP may not move, and this SA is in UDP.
    let mut native = guard.peer(2);
    native.guard = PLAIN;
    node.receive(0, &native.seal_as(12, &back));
    assert_eq!(node.dropped(DropReason::SaMismatch), 1);
}

#[test]
fn a_lease_ends_and_goes_on_where_it_ended() {
    let mut node = PLAIN.bare_hub(|_| {});
    let sa = |last| OutboundSa { lease: Lease { first: 11, last }, ..PLAIN.outbound(2, out_spi(2)) };
    node.put([Object::OutboundSa(sa(13))]);
    node.put(PLAIN.spoke(2));
    node.settle();
    let mut numbers = Vec::new();
    for last in [13, 15, 14, 16] {
        // A shorter lease takes nothing back; the SA goes on with its next number, whatever `first` says.
        node.put([Object::OutboundSa(sa(last))]);
        node.settle();
        (0..4).for_each(|_| node.receive(1, &from_lan(&packet(2))));
        numbers.push(node.sent(0).iter().map(|frame| PLAIN.peer(2).open(frame).0).collect::<Vec<_>>());
    }
    assert_eq!(numbers, [vec![11, 12, 13], vec![14, 15], vec![], vec![16]]);
    assert_eq!(node.drops(), [(DropReason::LeaseSpent, 10)]);
}

#[test]
fn lifetimes_are_reached_by_packets_and_by_bytes_in_both_directions() {
    let none = Amount { bytes: None, packets: None };
    // A packet has 28 bytes; with GRE header, trailer and padding 40.
    let of_packets =
        Lifetimes { soft: Amount { packets: Some(2), ..none }, hard: Amount { packets: Some(4), ..none } };
    let of_bytes =
        Lifetimes { soft: Amount { bytes: Some(80), ..none }, hard: Amount { bytes: Some(199), ..none } };
    for lifetimes in [of_packets, of_bytes] {
        let mut node = PLAIN.bare_hub(|_| {});
        node.put([
            Object::InboundSa(InboundSa { lifetimes, ..PLAIN.inbound(2, in_spi(2)) }),
            Object::OutboundSa(OutboundSa { lifetimes, ..PLAIN.outbound(2, out_spi(2)) }),
        ]);
        node.put(PLAIN.spoke(2));
        node.settle();
        let (mut peer, mut reached) = (PLAIN.peer(2), Vec::new());
        for _ in 0..6 {
            node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.2.9", b"")));
            node.receive(0, &peer.seal(&udp("10.1.2.9", "10.1.0.2", b"")));
            let mut now = [None; 2];
            for report in node.program.sa_reports() {
                if let Report::SaLifetime { direction, reached, .. } = report {
                    now[direction as usize] = Some(reached);
                }
            }
            reached.push(now);
        }
        assert_eq!((node.sent(0).len(), node.sent(1).len()), (4, 4), "{lifetimes:?}");
        assert_eq!(node.drops(), [(DropReason::LifetimeEnded, 4)]);
        let hard = if lifetimes == of_packets { 3 } else { 4 };
        for (at, reached) in reached.iter().enumerate() {
            let expected = match at {
                0 => None,
                _ if at < hard => Some(Reached::Soft),
                _ => Some(Reached::Hard),
            };
            assert_eq!(*reached, [expected; 2], "{lifetimes:?} after {}", at + 1);
        }
    }
}

/// What a router says about a packet of ours, of which it quotes so many bytes.
fn told(guard: &Guard, mtu: u16, ours: &[u8], quotes: usize) -> Vec<u8> {
    let packet = if guard.over_v6 {
        let error = icmpv6::Header::packet_too_big(mtu.into());
        let router = addr6("2001:db8::77");
        icmpv6::packet(router, addr6("2001:db8::1"), 64, 0, error, &ours[..quotes]).unwrap()
    } else {
        let error = icmp::Header::fragmentation_needed(mtu);
        icmp::packet(addr("192.0.2.77"), addr("192.0.2.1"), 64, 0, error, &ours[..quotes]).unwrap()
    };
    guard.under().from_wan(station(77), &packet)
}

#[test]
fn a_path_is_learnt_from_what_quotes_a_live_sa_or_peer() {
    for guard in Guard::all() {
        let mut node = guard.hub(&[2]);
        node.receive(1, &guard.under().from_lan(&udp("10.1.0.2", "10.1.2.9", &[7; 1200])));
        let ours = open_frame(&node.sent(0)[0]).1;
        // The least that is quoted: 8 bytes behind the header.
        let least = if guard.over_v6 { 48 } else { 28 };
        let notice = Notice::PathMtu { tunnel: node.id("tun"), nbma: guard.nbma(2).0, mtu: 1290 };
        let hears = |node: &mut TestNode, ours: &[u8], quotes| {
            node.pass(Duration::from_secs(2));
            node.receive(0, &told(&guard, 1290, ours, quotes));
            std::mem::take(&mut node.ports.notices)
        };
        let long = {
            let mut long = ours.clone();
            long.resize(1400, 0);
            let place = if guard.over_v6 { 4 } else { 2 };
            let len = (1400 - if guard.over_v6 { 40 } else { 0_u16 }).to_be_bytes();
            long[place..place + 2].copy_from_slice(&len);
            long
        };
        assert_eq!(hears(&mut node, &long, least), [notice], "{}", guard.port);
        assert_eq!(hears(&mut node, &long, 500), [notice]);
        // Another SPI, or another port; another peer.
        let mut other = long.clone();
        other[least - 5] ^= 1;
        assert_eq!(hears(&mut node, &other, 500), []);
        let mut other = long.clone();
        other[least - 9] ^= 1;
        assert_eq!(hears(&mut node, &other, 500), []);
        // In the clear nothing was sent.
        let clear = gre_packet(&guard.under().nbma(1), &guard.under().nbma(2), Some(42), 0x800, &[0; 1380]);
        assert_eq!(hears(&mut node, &clear, 100), []);
        // The SA goes.
        node.remove(&Object::OutboundSa(guard.outbound(2, out_spi(2))));
        node.settle();
        node.pass(Duration::from_secs(2));
        node.receive(0, &told(&guard, 1290, &long, 500));
        assert_eq!(node.ports.notices, []);
    }
}
