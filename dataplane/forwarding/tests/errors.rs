//! Packets that cannot go on: who is told of it, of what, and by which way.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use std::time::Duration;

use forwarding::{DropReason, Origin, Punt};
use lab::*;
use model::program::Path;
use wire::{ethernet, gre, icmp, icmpv6, ipv4, ipv6};
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
fn what_comes_by_a_closed_port_is_dropped_in_silence_and_what_would_leave_by_it_is_prohibited() {
    let mut node = hub(&[2]);
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &udp("192.0.2.2", "198.18.0.1", b"x")));
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &udp("192.0.2.2", "10.1.0.2", b"x")));
    assert_eq!((node.sent(0).len(), node.sent(1).len()), (0, 0));
    assert_eq!(node.drops(), [(DropReason::UnderlayTransit, 2)]);
    let packet = udp("10.1.0.2", "192.0.2.2", b"x");
    node.receive(1, &frame(LAN, station(2), ethernet::IPV4, &packet));
    let [sent] = &node.sent(1)[..] else { panic!("one error") };
    let prohibited = ("10.1.0.1".to_owned(), icmp::UNREACHABLE, icmp::PROHIBITED, 0);
    assert_eq!((open_error(&sent[14..], &packet), node.sent(0).len()), (prohibited, 0));
}

#[test]
fn who_waits_for_a_neighbour_in_vain_is_told_after_a_second() {
    let mut node = dual(&[2]);
    let v4 = udp("10.1.2.9", "10.1.0.77", b"x");
    let v6 = udp6("fd02::9", "fd01::77", b"x");
    for (protocol, packet) in [(gre::IPV4, &v4), (gre::IPV6, &v6)] {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), protocol, packet);
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    }
    assert_eq!((node.breathe().waiting, node.sent(0).len()), (2, 0));
    node.pass(Duration::from_secs(1));
    node.settle();
    let mut told: Vec<_> = node.sent(0).iter().map(|frame| open_tunnel(frame).3).collect();
    told.sort_by_key(|packet| packet[0]);
    assert_eq!(
        open_error(&told[0], &v4),
        ("10.0.0.1".to_owned(), icmp::UNREACHABLE, icmp::HOST_UNREACHABLE, 0)
    );
    let unreachable = ("fd00::1".to_owned(), icmpv6::UNREACHABLE, icmpv6::ADDRESS_UNREACHABLE, 0);
    assert_eq!(open_error6(&told[1], &v6), unreachable);
    assert_eq!((told.len(), node.drops()), (2, vec![(DropReason::Unresolved, 2)]));
}

/// The hub of the lab with IPv6 beside: `lan` has fd01::1/64 with a host fd01::2, `tun` fd00::1/64, and spokes fd00::n have fd0n::/64
/// behind them, over the same IPv4 underlay.
fn dual(spokes: &[u8]) -> TestNode {
    let mut node = hub(spokes);
    node.put([
        receive("fd01::1/128", "lan"),
        receive("fd00::1/128", "tun"),
        attached("fd01::/64", "lan"),
        attached("fd00::/64", "tun"),
        neighbour("lan", "fd01::2", station(2)),
    ]);
    for spoke in spokes {
        let nbma = format!("192.0.2.{spoke}");
        node.put([
            binding("tun", &format!("fd00::{spoke}"), &nbma, Some(hop("wan", &nbma))),
            via(&format!("fd0{spoke}::/64"), "tun", &format!("fd00::{spoke}")),
        ]);
    }
    node
}

/// Source, type, code and parameter of an ICMPv6 error about `about`, everything checked.
fn open_error6(packet: &[u8], about: &[u8]) -> (String, u8, u8, u32) {
    let (header, message) = ipv6::parse(packet).unwrap();
    let (error, quoted) = icmpv6::parse(header, message).unwrap();
    assert_eq!(
        (header.destination(), header.traffic_class()),
        (ipv6::parse(about).unwrap().0.source(), ipv4::CS6)
    );
    assert_eq!(quoted, &about[..about.len().min(icmpv6::QUOTED)], "as it came");
    (header.source().to_string(), error.kind, error.code, error.mtu())
}

#[test]
fn the_sender_of_an_ipv6_packet_that_cannot_go_on_hears_of_it_where_it_came_from() {
    let mut node = dual(&[2, 3]);
    node.put([route("fd0e::/64", Path::Unreachable), route("fd0f::/64", Path::Blackhole)]);
    let last_hop = |from, to| {
        let mut packet = udp6(from, to, b"x");
        packet[7] = 1;
        packet
    };
    let large = |from, to, len: usize| udp6(from, to, &vec![7; len - 48]);
    let unreachable = icmpv6::UNREACHABLE;
    let from_lan = [
        (last_hop("fd01::2", "fd02::9"), (icmpv6::TIME_EXCEEDED, 0, 0)),
        (last_hop("fd01::2", "fd01::2"), (icmpv6::TIME_EXCEEDED, 0, 0)),
        (large("fd01::2", "fd02::9", 1401), (icmpv6::PACKET_TOO_BIG, 0, 1400)),
        (udp6("fd01::2", "2001:db8::1", b"x"), (unreachable, icmpv6::NO_ROUTE, 0)),
        (udp6("fd01::2", "fd0e::1", b"x"), (unreachable, icmpv6::ADDRESS_UNREACHABLE, 0)),
        (udp6("fd01::2", "fd00::99", b"x"), (unreachable, icmpv6::ADDRESS_UNREACHABLE, 0)),
    ];
    for (packet, (kind, code, parameter)) in &from_lan {
        node.receive(1, &frame(LAN, station(2), ethernet::IPV6, packet));
        let [sent] = &node.sent(1)[..] else { panic!("{kind} {code}: not one error") };
        assert_eq!(sent[..14], frame(station(2), LAN, ethernet::IPV6, &[])[..]);
        assert_eq!(open_error6(&sent[14..], packet), ("fd01::1".to_owned(), *kind, *code, *parameter));
        assert_eq!(node.sent(0).len(), 0);
    }
    let from_tunnel = [
        (last_hop("fd02::9", "fd03::9"), (icmpv6::TIME_EXCEEDED, 0, 0)),
        (large("fd02::9", "fd03::9", 1401), (icmpv6::PACKET_TOO_BIG, 0, 1400)),
        (udp6("fd02::9", "2001:db8::1", b"x"), (unreachable, icmpv6::NO_ROUTE, 0)),
    ];
    for (packet, (kind, code, parameter)) in &from_tunnel {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV6, packet);
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
        let [sent] = &node.sent(0)[..] else { panic!("{kind} {code}: not one error") };
        let (_, to, key, error) = open_tunnel(sent);
        assert_eq!((to.as_str(), key), ("192.0.2.2", Some(42)));
        assert_eq!(open_error6(&error, packet), ("fd00::1".to_owned(), *kind, *code, *parameter));
    }
    // Of what goes nowhere by intent, and of errors, nobody hears.
    let error = icmpv6::packet(
        "fd01::2".parse().unwrap(),
        "2001:db8::1".parse().unwrap(),
        64,
        0,
        icmpv6::Header::time_exceeded(),
        &udp6("2001:db8::1", "fd01::2", b"x"),
    );
    for packet in [udp6("fd01::2", "fd0f::1", b"x"), error.unwrap()] {
        node.receive(1, &frame(LAN, station(2), ethernet::IPV6, &packet));
    }
    assert_eq!((node.sent(0).len(), node.sent(1).len(), node.dropped(DropReason::Blackhole)), (0, 0, 1));
}

#[test]
fn a_link_local_source_is_told_by_its_own_link_that_it_reaches_no_farther() {
    let mut node = dual(&[2]);
    let packet = udp6("fe80::9", "fd02::9", b"x");
    node.receive(1, &frame(LAN, station(9), ethernet::IPV6, &packet));
    let [sent] = &node.sent(1)[..] else { panic!("one error") };
    assert_eq!(sent[..14], frame(station(9), LAN, ethernet::IPV6, &[])[..]);
    let beyond = ("fd01::1".to_owned(), icmpv6::UNREACHABLE, icmpv6::BEYOND_SCOPE, 0);
    assert_eq!(open_error6(&sent[14..], &packet), beyond);
    assert_eq!((node.sent(0).len(), node.drops()), (0, vec![(DropReason::Scope, 1)]));
}

#[test]
fn an_interface_without_an_address_speaks_with_another_of_its_table() {
    let mut node = dual(&[2]);
    node.remove(&receive("10.0.0.1/32", "tun"));
    node.remove(&receive("fd00::1/128", "tun"));
    let arriving = |protocol, packet: &[u8]| {
        frame(
            WAN,
            station(2),
            ethernet::IPV4,
            &gre_packet("192.0.2.2", "192.0.2.1", Some(42), protocol, packet),
        )
    };
    let v4 = with_ttl(&udp("10.1.2.9", "10.1.0.2", b"x"), 1);
    node.receive(0, &arriving(gre::IPV4, &v4));
    let told = open_error(&open_tunnel(&node.sent(0)[0]).3, &v4);
    assert!(["192.0.2.1", "10.1.0.1"].contains(&told.0.as_str()), "{told:?}");
    let mut v6 = udp6("fd02::9", "fd01::2", b"x");
    v6[7] = 1;
    node.receive(0, &arriving(gre::IPV6, &v6));
    assert_eq!(open_error6(&open_tunnel(&node.sent(0)[0]).3, &v6).0, "fd01::1");
    // Without any there is nothing to say it with.
    node.remove(&receive("fd01::1/128", "lan"));
    node.receive(0, &arriving(gre::IPV6, &v6));
    assert_eq!((node.sent(0).len(), node.dropped(DropReason::TtlExpired)), (0, 3));
}

#[test]
fn an_interface_that_has_a_link_local_address_alone_speaks_beyond_its_link_with_another() {
    let mut node = dual(&[2]);
    node.remove(&receive("fd01::1/128", "lan"));
    node.put([receive("fe80::1/128", "lan")]);
    let mut packet = udp6("fd01::2", "fd02::9", b"x");
    packet[7] = 1;
    node.receive(1, &frame(LAN, station(2), ethernet::IPV6, &packet));
    let [sent] = &node.sent(1)[..] else { panic!("one error: {:?}", node.drops()) };
    assert_eq!(open_error6(&sent[14..], &packet).0, "fd00::1");
    // On the link it is the one.
    let packet = udp6("fe80::9", "fd02::9", b"x");
    node.receive(1, &frame(LAN, station(9), ethernet::IPV6, &packet));
    assert_eq!(open_error6(&node.sent(1)[0][14..], &packet).0, "fe80::1");
}

#[test]
fn a_flood_of_other_errors_does_not_hide_what_a_path_takes() {
    let mut node = dual(&[2]);
    for n in 0..1200_u16 {
        let [high, low] = n.to_be_bytes();
        let flood = udp(&format!("10.1.{high}.{low}"), "198.18.0.1", b"x");
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &flood));
    }
    node.sent(1);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "198.18.0.1", b"x")));
    assert_eq!(node.sent(1).len(), 0, "the limit is reached");
    let v4 = whole(&udp("10.1.0.2", "10.1.2.9", &[7; 1473]));
    let v6 = udp6("fd01::2", "fd02::9", &[7; 1400]);
    for packet in [v4, v6] {
        node.receive(1, &frame(LAN, station(2), ethertype(&packet), &packet));
        assert_eq!(node.sent(1).len(), 1);
    }
}

#[test]
fn what_no_station_sends_from_goes_no_farther() {
    let mut node = dual(&[2]);
    for from in ["::", "::1", "ff02::1", "ff0e::1"] {
        node.receive(1, &frame(LAN, station(9), ethernet::IPV6, &udp6(from, "fd02::9", b"x")));
    }
    assert_eq!((node.sent(0).len(), node.sent(1).len()), (0, 0));
    assert_eq!(node.drops(), [(DropReason::Scope, 4)]);
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
fn our_own_kernel_hears_of_its_packets_from_an_address_that_is_not_its_own() {
    let mut node = dual(&[2]);
    let large = whole(&udp("10.0.0.1", "10.1.2.9", &[7; 1400]));
    let unreachable = udp("10.0.0.1", "10.0.0.99", b"x");
    let needed = (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 1400);
    for (packet, told) in [(large, needed), (unreachable, (icmp::UNREACHABLE, icmp::HOST_UNREACHABLE, 0))] {
        let tun = node.id("tun");
        node.inject(Origin::Twin(tun), &packet);
        let [(punt, error)] = &node.punted()[..] else { panic!("one error") };
        assert_eq!((*punt, node.sent(0).len()), (Punt::Host(tun), 0));
        let to = ipv4::parse(&packet).unwrap().0.destination().to_string();
        assert_eq!(open_error(error, &packet), (to, told.0, told.1, told.2));
    }
}

#[test]
fn nobody_is_told_about_errors_and_later_fragments() {
    let mut node = hub(&[]);
    node.put([route("203.0.113.0/24", Path::Unreachable)]);
    let about = udp("203.0.113.9", "10.1.0.2", b"x");
    let (headers, quoted) = icmp::error(addr("10.1.0.2"), icmp::Header::unreachable(3), &about).unwrap();
    let error = [&headers, quoted].concat();
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
