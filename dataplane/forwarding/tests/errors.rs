//! Packets that cannot go on: who is told of it, of what, and by which way.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use std::time::Duration;

use forwarding::{DropReason, Punt};
use lab::*;
use model::program::Path;
use wire::{ethernet, gre, icmp, ipv4};
use zerocopy::IntoBytes;

#[test]
fn without_an_nhs_the_sender_is_told() {
    let mut node = hub(&[]);
    let packet = udp("10.1.0.2", "10.0.0.3", b"x");
    node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &packet));
    let sent = node.sent(1);
    assert_eq!((sent.len(), node.sent(0).len()), (1, 0));
    let (header, message) = ipv4::parse(&sent[0][14..]).unwrap();
    assert_eq!((header.source(), header.destination(), header.ttl), (addr("10.1.0.1"), addr("10.1.0.2"), 64));
    let (error, quoted) = icmp::parse(message).unwrap();
    assert_eq!((error.kind, error.code, quoted), (icmp::UNREACHABLE, icmp::HOST_UNREACHABLE, &packet[..]));
    assert_eq!(sent[0][..6], station(2).0);
    // Ten at once for each source, and ten a second.
    for _ in 0..50 {
        node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &packet));
    }
    assert_eq!(node.sent(1).len(), 9);
    node.pass(Duration::from_millis(100));
    node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &packet));
    assert_eq!((node.sent(1).len(), node.dropped(DropReason::HostUnreachable)), (1, 52));
}

/// Source, type, code and MTU of an ICMP error about `about`, everything checked.
fn open_error(packet: &[u8], about: &[u8]) -> (String, u8, u8, u16) {
    ipv4::verify(packet).unwrap();
    let (header, message) = ipv4::parse(packet).unwrap();
    let (error, quoted) = icmp::parse(message).unwrap();
    assert_eq!((header.destination(), header.tos), (ipv4::parse(about).unwrap().0.source(), ipv4::CS6));
    assert_eq!(quoted, &about[..about.len().min(icmp::QUOTED)], "as it came");
    (header.source().to_string(), error.kind, error.code, error.mtu())
}

#[test]
fn the_sender_of_a_packet_that_cannot_go_on_hears_of_it_where_it_came_from() {
    let mut node = hub(&[2, 3]);
    let whole = |packet: &[u8]| {
        let (header, payload) = ipv4::parse(packet).unwrap();
        [header.with_flags(ipv4::DONT_FRAGMENT).as_bytes(), payload].concat()
    };
    // Into the tunnel, onto the LAN, nowhere.
    let last_hop = |from, to| with_ttl(&udp(from, to, b"x"), 1);
    let large = |from, to| whole(&udp(from, to, &[7; 1473]));
    let cases = [
        (last_hop("10.1.0.2", "10.1.2.9"), (icmp::TIME_EXCEEDED, 0, 0)),
        (last_hop("10.1.0.2", "10.1.0.2"), (icmp::TIME_EXCEEDED, 0, 0)),
        (large("10.1.0.2", "10.1.2.9"), (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1400)),
        (large("10.1.0.2", "10.1.0.2"), (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1500)),
        (udp("10.1.0.2", "198.18.0.1", b"x"), (icmp::UNREACHABLE, icmp::NET_UNREACHABLE, 0)),
    ];
    for (packet, (kind, code, mtu)) in &cases {
        node.receive(1, &frame(LAN, station(2), ethernet::IPV4, packet));
        let [sent] = &node.sent(1)[..] else { panic!("{kind} {code}: not one error") };
        assert_eq!(open_error(&sent[14..], packet), ("10.1.0.1".to_owned(), *kind, *code, *mtu));
        assert_eq!(node.sent(0).len(), 0);
    }
    // The same by the tunnel: from the tunnel's address, and into the tunnel, wherever the packet was to go.
    let cases = [
        (last_hop("10.1.2.9", "10.1.3.9"), (icmp::TIME_EXCEEDED, 0, 0)),
        (last_hop("10.1.2.9", "10.1.0.2"), (icmp::TIME_EXCEEDED, 0, 0)),
        (large("10.1.2.9", "10.1.3.9"), (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1400)),
        (large("10.1.2.9", "10.1.0.2"), (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1500)),
        (udp("10.1.2.9", "198.18.0.1", b"x"), (icmp::UNREACHABLE, icmp::NET_UNREACHABLE, 0)),
    ];
    for (packet, (kind, code, mtu)) in &cases {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, packet);
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
        let [sent] = &node.sent(0)[..] else { panic!("{kind} {code}: not one error") };
        let (_, to, key, error) = open_tunnel(sent);
        assert_eq!((to.as_str(), key), ("192.0.2.2", Some(42)));
        assert_eq!(open_error(&error, packet), ("10.0.0.1".to_owned(), *kind, *code, *mtu));
        assert_eq!(node.sent(1).len(), 0);
    }
    assert_eq!(
        node.drops(),
        [(DropReason::NoRoute, 2), (DropReason::TtlExpired, 4), (DropReason::TooBig, 4)]
    );
}

#[test]
fn what_may_be_cut_and_what_comes_by_a_closed_port_is_dropped_in_silence() {
    let mut node = hub(&[2]);
    node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", &[7; 1473])));
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &udp("192.0.2.2", "198.18.0.1", b"x")));
    assert_eq!((node.sent(0).len(), node.sent(1).len()), (0, 0));
    assert_eq!(node.drops(), [(DropReason::UnderlayTransit, 1), (DropReason::TooBig, 1)]);
}

#[test]
fn an_error_about_what_claims_to_be_ours_reaches_the_kernel_in_a_frame() {
    let mut node = hub(&[]);
    node.put([route("203.0.113.0/24", Path::Unreachable)]);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.1", "203.0.113.9", b"x")));
    let punted = node.punted();
    assert_eq!(punted[0].0, Punt::Host(node.id("lan")));
    assert_eq!(punted[0].1[..14], ethernet::Header::new(LAN.0, LAN.0, ethernet::IPV4).as_bytes()[..]);
    ipv4::verify(&punted[0].1[14..]).unwrap();
}

#[test]
fn nobody_is_told_about_errors_and_later_fragments() {
    let mut node = hub(&[]);
    node.put([route("203.0.113.0/24", Path::Unreachable)]);
    let about = udp("203.0.113.9", "10.1.0.2", b"x");
    let error = icmp::error(addr("10.1.0.2"), icmp::Header::unreachable(3), &about).unwrap();
    let mut fragment = udp("10.1.0.2", "203.0.113.9", b"x");
    let (header, payload) = ipv4::parse(&fragment).unwrap();
    fragment = [header.with_flags(7).as_bytes(), payload].concat();
    for packet in [error, fragment] {
        node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &packet));
    }
    // Nor do they use up what the others may be told.
    assert_eq!((node.sent(1).len(), node.drops()), (0, vec![(DropReason::HostUnreachable, 2)]));
    node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &udp("10.1.0.2", "203.0.113.9", b"x")));
    assert_eq!(node.sent(1).len(), 1);
}

#[test]
fn what_came_from_the_nhs_does_not_go_back_to_it() {
    let mut node = hub(&[2, 3]);
    node.put([fallback("tun", "10.0.0.2")]);
    let arriving = |from: &str| {
        let outer = gre_packet(from, "192.0.2.1", Some(42), gre::IPV4, &udp("10.1.3.9", "10.0.0.9", b"x"));
        frame(WAN, station(2), ethernet::IPV4, &outer)
    };
    node.receive(0, &arriving("192.0.2.3"));
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.2");
    node.receive(0, &arriving("192.0.2.2"));
    // Its sender is told, wherever that is.
    let told = open_tunnel(&node.sent(0)[0]);
    assert_eq!((told.1.as_str(), told.3[9]), ("192.0.2.3", ipv4::ICMP));
    assert_eq!(node.drops(), [(DropReason::HostUnreachable, 1)]);
}
