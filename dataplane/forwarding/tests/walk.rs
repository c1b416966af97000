//! Packets through the graph: the path of each, and the bytes that come out.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use std::time::Duration;

use forwarding::{Command, DropReason, Injected, Node, Notice, Origin, Punt, TraceOrder};
use lab::*;
use model::Mac;
use model::program::{Object, TunnelMode};
use model::report::PuntReason;
use wire::buf::TestBuf;
use wire::{arp, ethernet, gre, ipv4};
use zerocopy::IntoBytes;

#[test]
fn lan_to_lan_gets_the_next_link_and_one_hop_less() {
    let mut node = TestNode::new(1, 2);
    node.put([
        interface("a", "p0", true),
        interface("b", "p1", true),
        attached("10.1.1.0/24", "b"),
        neighbour("b", "10.1.1.7", station(7)),
    ]);
    let packet = udp("10.1.0.2", "10.1.1.7", b"hello");
    node.receive(0, &frame(port_mac(1, 0), station(2), ethernet::IPV4, &packet));
    let expected = frame(station(7), port_mac(1, 1), ethernet::IPV4, &with_ttl(&packet, 63));
    assert_eq!(node.sent(1), [expected]);
    assert_eq!(node.drops(), []);
    let carried: Vec<_> = node.program.adjacencies().filter(|a| a.traffic.packets > 0).collect();
    assert_eq!(carried.len(), 1);
    assert_eq!((carried[0].traffic.packets, carried[0].traffic.bytes), (1, packet.len() as u64));
}

#[test]
fn lan_to_spoke_has_known_bytes() {
    let mut node = hub(&[2]);
    let packet = [
        0x45, 0x00, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x40, 0xfd, 0x11, 0xa9, 10, 1, 0, 2, 10, 1, 2, 9,
        b'n', b'a', b'v', b'e',
    ];
    ipv4::verify(&packet).unwrap();
    // As a switch delivers it: padded to 60 bytes.
    let mut arriving = frame(LAN, station(9), ethernet::IPV4, &packet);
    arriving.resize(60, 0);
    node.receive(1, &arriving);
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 1, 0, 2, 2, 0, 0, 0, 1, 0, 0x08, 0x00,
        // 20 + 8 + 24 bytes, identification 1, don't-fragment as inside, time to live 64, GRE; sums by hand.
        0x45, 0x00, 0x00, 0x34, 0x00, 0x01, 0x40, 0x00, 0x40, 0x2f, 0xb6, 0x96, 192, 0, 2, 1, 192, 0, 2, 2,
        0x20, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x2a,
        0x45, 0x00, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x3f, 0xfd, 0x12, 0xa9, 10, 1, 0, 2, 10, 1, 2, 9,
        b'n', b'a', b'v', b'e',
    ];
    let sent = node.sent(0);
    assert_eq!(sent, [expected.to_vec()]);
    ipv4::verify(&sent[0][14..34]).unwrap();
}

#[test]
fn what_a_port_does_not_take_is_too_big_whatever_its_interface_and_tunnel_say() {
    let mut node = hub(&[2]);
    let large = |object| match object {
        Object::Interface(mut interface) => {
            interface.mtu = 9000;
            Object::Interface(interface)
        }
        other => other,
    };
    let mut wide = tunnel("tun", "192.0.2.1", "wan", Some(42));
    wide.mtu = 8972;
    node.put([
        large(interface("wan", "p0", false)),
        large(interface("lan", "p1", true)),
        Object::Tunnel(wide),
    ]);
    // The lab's ports take 1,500 bytes; IPv4, GRE and a key are 28, IPv4 and UDP before the payload as many.
    for (to, most) in [("10.1.2.9", 1444), ("10.1.0.2", 1472)] {
        for (len, dropped) in [(most, 0), (most + 1, 1)] {
            let before = node.dropped(DropReason::TooBig);
            let packet = whole(&udp("10.1.2.8", to, &vec![7; len]));
            node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &packet));
            let sent = [node.sent(0), node.sent(1)].concat().iter().filter(|frame| frame.len() > len).count();
            assert_eq!(
                (sent, node.dropped(DropReason::TooBig) - before),
                (1 - dropped as usize, dropped),
                "{to} {len}"
            );
        }
    }
}

#[test]
fn workers_number_their_outer_headers_apart() {
    let mut node = hub(&[2]);
    let packet = frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x"));
    let mut ids = Vec::new();
    for _ in 0..4 {
        node.receive(1, &packet);
        let sent = node.sent(0);
        ids.push(u16::from_be_bytes([sent[0][18], sent[0][19]]));
        node.worker = node.program.worker().unwrap();
    }
    assert_eq!(ids, [1, 0x8001, 0x4001, 0xc001]);
}

#[test]
fn a_tunnel_without_key_has_a_shorter_header_and_marks_are_inherited() {
    let mut node = hub(&[]);
    node.put([Object::Tunnel(tunnel("tun", "192.0.2.1", "wan", None))]);
    node.put(spoke_objects(2));
    let mut packet = udp("10.1.0.2", "10.1.2.9", b"x");
    let (header, payload) = ipv4::parse(&packet).unwrap();
    packet = [header.with_tos(0xbb).as_bytes(), payload].concat();
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &packet));
    let sent = node.sent(0);
    let (from, to, key, inner) = open_tunnel(&sent[0]);
    assert_eq!((from.as_str(), to.as_str(), key), ("192.0.2.1", "192.0.2.2", None));
    assert_eq!((sent[0][15], inner[1], inner[8]), (0xbb, 0xbb, 63));
}

#[test]
fn spoke_to_lan_loses_its_outer_headers() {
    let mut node = hub(&[2]);
    let inner = udp("10.1.2.9", "10.1.0.2", b"hello");
    // Any source with the right key: this one has no binding.
    let outer = gre_packet("192.0.2.77", "192.0.2.1", Some(42), gre::IPV4, &inner);
    let mut arriving = frame(WAN, station(77), ethernet::IPV4, &outer);
    arriving.extend([0; 9]);
    node.receive(0, &arriving);
    assert_eq!(node.sent(1), [frame(station(2), LAN, ethernet::IPV4, &with_ttl(&inner, 63))]);
    assert_eq!(node.drops(), []);
}

#[test]
fn gre_options_are_read_over_and_padding_within_is_cut() {
    let mut node = hub(&[2]);
    let inner = udp("10.1.2.9", "10.1.0.2", b"hello");
    let mut gre = vec![0xb0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 9];
    gre.extend(&inner);
    gre.extend([0; 6]);
    let sum = wire::checksum::checksum(&gre);
    gre[4..6].copy_from_slice(&sum.to_be_bytes());
    let mut outer = ip("192.0.2.2", "192.0.2.1", ipv4::GRE, &gre);
    // IPv4 options in the outer header: a router alert and an end.
    outer[0] = 0x47;
    outer.splice(20..20, [0x94, 4, 0, 0, 0, 0, 0, 0]);
    let total = outer.len() as u16;
    outer[2..4].copy_from_slice(&total.to_be_bytes());
    outer[10..12].fill(0);
    let sum = wire::checksum::checksum(&outer[..28]);
    outer[10..12].copy_from_slice(&sum.to_be_bytes());
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    assert_eq!(node.drops(), []);
    assert_eq!(node.sent(1), [frame(station(2), LAN, ethernet::IPV4, &with_ttl(&inner, 63))]);
}

fn redirecting_hub() -> TestNode {
    let mut node = hub(&[2, 3]);
    let mut with_redirect = tunnel("tun", "192.0.2.1", "wan", Some(42));
    with_redirect.redirect = true;
    node.put([Object::Tunnel(with_redirect)]);
    node
}

#[test]
fn spoke_to_spoke_is_relayed_and_redirected_once() {
    let mut node = redirecting_hub();
    let inner = udp("10.1.2.9", "10.1.3.9", &[7; 300]);
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner);
    let arriving = frame(WAN, station(2), ethernet::IPV4, &outer);
    for _ in 0..3 {
        node.receive(0, &arriving);
    }
    let sent = node.sent(0);
    assert_eq!(sent.len(), 3);
    for (id, frame) in sent.iter().enumerate() {
        let (from, to, key, relayed) = open_tunnel(frame);
        assert_eq!((from.as_str(), to.as_str(), key), ("192.0.2.1", "192.0.2.3", Some(42)));
        assert_eq!(relayed, with_ttl(&inner, 63));
        assert_eq!(frame[18..20], (id as u16 + 1).to_be_bytes());
        assert_eq!(frame[..12], [station(3).0, WAN.0].concat());
    }
    let punted = node.punted();
    let tunnel = node.id("tun");
    let expected = Punt::Control {
        reason: PuntReason::Redirect,
        tunnel,
        source: addr("192.0.2.2").into(),
        destination: addr("192.0.2.1").into(),
        port: 0,
        spi: 0,
    };
    assert_eq!(punted, [(expected, inner[..128].to_vec())]);
    // Another pair is another matter; the same one is again after a second.
    let other = udp("10.1.2.8", "10.1.3.9", b"short");
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &other);
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    assert_eq!(node.punted(), [(expected, other)]);
    node.pass(Duration::from_secs(1));
    node.receive(0, &arriving);
    assert_eq!(node.punted().len(), 1);
}

#[test]
fn without_redirect_or_to_another_network_nothing_is_redirected() {
    let mut node = hub(&[2, 3]);
    let inner = udp("10.1.2.9", "10.1.3.9", b"x");
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner);
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    assert_eq!((node.sent(0).len(), node.punted().len()), (1, 0));

    let mut node = redirecting_hub();
    let mut other = tunnel("tun2", "192.0.2.1", "wan", Some(43));
    other.network_id = 2;
    node.put([
        Object::Tunnel(other.clone()),
        binding("tun2", "10.9.0.4", "192.0.2.3", Some(hop("wan", "192.0.2.3"))),
        via("10.1.4.0/24", "tun2", "10.9.0.4"),
    ]);
    let inner = udp("10.1.2.9", "10.1.4.9", b"x");
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner);
    let arriving = frame(WAN, station(2), ethernet::IPV4, &outer);
    node.receive(0, &arriving);
    assert_eq!(open_tunnel(&node.sent(0)[0]).2, Some(43));
    assert_eq!(node.punted().len(), 0);
    // Two tunnels of one network are one cloud.
    other.network_id = 1;
    node.put([Object::Tunnel(other)]);
    node.receive(0, &arriving);
    assert_eq!((node.sent(0).len(), node.punted().len()), (1, 1));
}

#[test]
fn nhrp_goes_to_the_control_plane() {
    let mut node = hub(&[2]);
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::NHRP, b"an nhrp packet");
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    let punt = Punt::Control {
        reason: PuntReason::Nhrp,
        tunnel: node.id("tun"),
        source: addr("192.0.2.2").into(),
        destination: addr("192.0.2.1").into(),
        port: 0,
        spi: 0,
    };
    assert_eq!(node.punted(), [(punt, b"an nhrp packet".to_vec())]);
}

#[test]
fn the_host_gets_what_is_for_it() {
    let mut node = hub(&[2]);
    let (wan, lan, tun) = (node.id("wan"), node.id("lan"), node.id("tun"));
    let request = arp::Header::request(station(9).0, addr("10.1.0.2"), addr("10.1.0.1"));
    let asked = frame(Mac(ethernet::BROADCAST), station(9), ethernet::ARP, request.as_bytes());
    node.receive(1, &asked);
    let answered = frame(LAN, station(9), ethernet::ARP, request.as_bytes());
    node.receive(1, &answered);
    let hello = frame(
        Mac([1, 0, 0x5e, 0, 0, 5]),
        station(9),
        ethernet::IPV4,
        &ip("10.1.0.2", "224.0.0.5", 89, b"ospf"),
    );
    node.receive(1, &hello);
    let ike =
        frame(WAN, station(9), ethernet::IPV4, &udp_ports("198.51.100.1", "192.0.2.1", (500, 500), b"ike"));
    node.receive(0, &ike);
    let host = |id, bytes: &[u8]| (Punt::Host(id), bytes.to_vec());
    assert_eq!(node.punted(), [host(lan, &asked), host(lan, &answered), host(lan, &hello), host(wan, &ike)]);

    // By the tunnel, to the tunnel's own address, to the group, and to the LAN's own address; time to live untouched.
    for (to, expected) in [("10.0.0.1", tun), ("224.0.0.5", tun), ("10.1.0.1", lan)] {
        let inner = with_ttl(&udp("10.0.0.2", to, b"x"), 1);
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner);
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
        let bytes = if expected == lan { frame(LAN, LAN, ethernet::IPV4, &inner) } else { inner };
        assert_eq!(node.punted(), [host(expected, &bytes)], "{to}");
    }
    // GRE to an address of ours that no tunnel has is the kernel's.
    node.put([receive("192.0.2.99/32", "wan")]);
    let stray =
        frame(WAN, station(2), ethernet::IPV4, &gre_packet("192.0.2.2", "192.0.2.99", None, gre::IPV4, b""));
    node.receive(0, &stray);
    assert_eq!(node.punted(), [host(wan, &stray)]);
    assert_eq!(node.drops(), []);
}

#[test]
fn what_the_kernel_sends_on_a_ports_twin_goes_out_as_it_is() {
    let mut node = hub(&[2]);
    let wan = Origin::Twin(node.id("wan"));
    let ike = udp_ports("192.0.2.1", "192.0.2.2", (4500, 4500), &[0, 0, 0, 0, 1, 2, 3, 4]);
    let keepalive = udp_ports("192.0.2.1", "192.0.2.2", (4500, 4500), &[0xff]);
    let request = arp::Header::request(WAN.0, addr("192.0.2.1"), addr("192.0.2.2"));
    let allowed = [
        frame(station(2), WAN, ethernet::IPV4, &ike),
        frame(station(2), WAN, ethernet::IPV4, &keepalive),
        frame(station(2), WAN, ethernet::IPV4, &with_ttl(&udp("192.0.2.1", "192.0.2.2", b"x"), 1)),
        frame(Mac(ethernet::BROADCAST), WAN, ethernet::ARP, request.as_bytes()),
    ];
    let fragment = |packet: &[u8], flags: u16, len: usize| {
        let (header, payload) = ipv4::parse(packet).unwrap();
        let header =
            ipv4::Header::new(header.source(), header.destination(), header.protocol, 64, len).unwrap();
        [header.with_flags(flags).as_bytes(), &payload[..len]].concat()
    };
    let tag = |packet: &[u8]| [&[0, 7, 8, 0], packet].concat();
    let long_ike = udp_ports("192.0.2.1", "192.0.2.2", (4500, 4500), &[0; 100]);
    let allowed = [
        &allowed[..],
        &[
            frame(station(2), WAN, ethernet::IPV4, &fragment(&long_ike, ipv4::MORE_FRAGMENTS, 48)),
            frame(station(2), WAN, ethernet::IPV4, &fragment(&long_ike, 6, 60)),
            frame(station(2), WAN, 0x8100, &tag(&ike)),
        ],
    ]
    .concat();
    for bytes in &allowed {
        node.inject(wan, bytes);
    }
    assert_eq!(node.sent(0), allowed);
    let mut ipv6 = vec![0; 48];
    (ipv6[0], ipv6[6]) = (0x60, ipv4::GRE);
    let gre = gre_packet("192.0.2.1", "192.0.2.2", Some(42), gre::IPV4, b"x");
    let sealed = udp_ports("192.0.2.1", "192.0.2.2", (4500, 4500), b"sealed packet");
    // Headers of eight bytes behind an IPv6 header, and something.
    let v6 = |first: u8, headers: &[[u8; 8]]| {
        let mut header = [0; 40];
        (header[0], header[6]) = (0x60, first);
        [&header[..], headers.as_flattened(), b"sealed.."].concat()
    };
    let forbidden = [
        (ethernet::IPV4, gre_packet("192.0.2.1", "192.0.2.2", Some(42), gre::IPV4, b"x")),
        (ethernet::IPV4, ip("192.0.2.1", "192.0.2.2", ipv4::ESP, b"sealed")),
        (ethernet::IPV4, udp_ports("192.0.2.1", "192.0.2.2", (4500, 4500), b"sealed")),
        (ethernet::IPV4, udp_ports("192.0.2.1", "192.0.2.2", (1024, 4500), b"sealed")),
        (ethernet::IPV6, ipv6),
        (0x8100, tag(&gre)),
        (0x88a8, [&[0, 7, 0x81, 0], &tag(&gre)[..]].concat()),
        (ethernet::IPV4, fragment(&sealed, ipv4::MORE_FRAGMENTS, 16)),
        (ethernet::IPV4, fragment(&sealed, ipv4::MORE_FRAGMENTS, 8)),
        (ethernet::IPV4, fragment(&sealed, 1, 8)),
        (ethernet::IPV6, v6(0, &[[47, 0, 0, 0, 0, 0, 0, 0]])),
        (ethernet::IPV6, v6(60, &[[43, 0, 0, 0, 0, 0, 0, 0], [50, 0, 0, 0, 0, 0, 0, 0]])),
        (ethernet::IPV6, v6(44, &[[47, 0, 0, 1, 0, 0, 0, 0]])),
        (ethernet::IPV6, v6(51, &[[47, 0, 0, 0, 0, 0, 0, 0]])),
        (ethernet::IPV6, v6(17, &[[0x11, 0x94, 0x11, 0x94, 0, 16, 0, 0]])),
    ];
    for (ethertype, packet) in &forbidden {
        node.inject(wan, &frame(station(2), WAN, *ethertype, packet));
    }
    assert_eq!(node.sent(0).len(), 0);
    assert_eq!(node.drops(), [(DropReason::InjectForbidden, forbidden.len() as u64)]);
}

#[test]
fn what_the_kernel_sends_on_a_tunnels_twin_is_routed_or_replicated() {
    let mut node = hub(&[2, 3]);
    let tun = Origin::Twin(node.id("tun"));
    let own = with_ttl(&udp("10.0.0.1", "10.1.2.9", b"x"), 1);
    node.inject(tun, &own);
    assert_eq!(open_tunnel(&node.sent(0)[0]).3, own);

    node.put(["192.0.2.2", "192.0.2.3"].map(|nbma| replica("tun", nbma, Some(hop("wan", nbma)))));
    let hello = with_ttl(&ip("10.0.0.1", "224.0.0.5", 89, b"ospf"), 1);
    node.inject(tun, &hello);
    let copies: Vec<_> = node.sent(0).iter().map(|frame| open_tunnel(frame)).collect();
    let copy = |to: &str| ("192.0.2.1".to_owned(), to.to_owned(), Some(42), hello.clone());
    // The last receiver gets the packet itself, which stands in the first slot.
    assert_eq!(copies, [copy("192.0.2.3"), copy("192.0.2.2")]);
    assert_eq!(node.drops(), []);
}

#[test]
fn many_receivers_get_their_copies_over_several_breaths() {
    let mut node = hub(&[2]);
    node.put([neighbour("wan", "192.0.2.254", station(254))]);
    let link = Some(hop("wan", "192.0.2.254"));
    let receivers: Vec<_> = (0..700).map(|n| format!("198.51.{}.{}", n / 250, n % 250 + 1)).collect();
    node.put(receivers.iter().map(|nbma| replica("tun", nbma, link)));
    let tun = Origin::Twin(node.id("tun"));
    node.inject(tun, &ip("10.0.0.1", "224.0.0.5", 89, b"one"));
    node.inject(tun, &ip("10.0.0.1", "255.255.255.255", 89, b"two"));
    let sent = node.sent(0);
    for text in [b"one", b"two"] {
        let copies = sent.iter().map(|frame| open_tunnel(frame)).filter(|copy| copy.3.ends_with(text));
        let mut to: Vec<_> = copies.map(|copy| copy.1).collect();
        to.sort();
        let mut expected = receivers.clone();
        expected.sort();
        assert_eq!(to, expected);
    }
    assert!(node.counters().flow().copied == 2 * 699);
}

/// Breaths in which what was parked, and what is said about it, leaves no room for what waits for its copies: the places of what is
/// dropped are free again.
#[test]
fn multicast_that_finds_no_room_to_wait_gives_its_place_back() {
    let mut node = hub(&[2]);
    let link = Some(hop("wan", "192.0.2.2"));
    node.put((0..700).map(|n| replica("tun", &format!("198.51.{}.{}", n / 250, n % 250 + 1), link)));
    let tun = Origin::Twin(node.id("tun"));
    let hello = ip("10.0.0.1", "224.0.0.5", 89, b"ospf");
    for round in 0..4_u8 {
        // 1,024 packets that wait for twelve neighbours and four gateways, leave together, and end then: each its sender hears of.
        let stations: Vec<_> = (0..16).map(|n| format!("10.1.0.{}", 100 + 16 * round + n)).collect();
        let mut servers = stations.clone();
        for (at, gateway) in stations.iter().enumerate().skip(12) {
            servers[at] = format!("203.0.113.{}", 16 * usize::from(round) + at);
            node.put([via(&format!("{}/32", servers[at]), "lan", gateway)]);
        }
        for (at, server) in servers.iter().enumerate() {
            let packets =
                (0..64).map(|n| with_ttl(&udp(&format!("10.1.2.{}", at % 4 * 64 + n), server, b"x"), 1));
            let frames = packets.map(|packet| frame(LAN, station(9), ethernet::IPV4, &packet));
            node.ports.rx[1].extend(frames.map(|frame| TestBuf::new(&frame)));
        }
        node.settle();
        assert_eq!(node.breathe().waiting, 1024);
        node.put(stations.iter().map(|server| neighbour("lan", server, station(9))));
        node.ports.inject.extend((0..32).map(|_| Injected { origin: tun, buf: TestBuf::new(&hello) }));
        let before = node.dropped(DropReason::ReplicateFull);
        node.settle();
        assert!(node.dropped(DropReason::ReplicateFull) > before + 16, "{round}: {:?}", node.drops());
        node.pass(Duration::from_secs(2));
    }
    let _ = node.sent(0);
    let before = node.dropped(DropReason::ReplicateFull);
    node.inject(tun, &hello);
    assert_eq!((node.sent(0).len(), node.dropped(DropReason::ReplicateFull)), (700, before));
}

#[test]
fn the_control_plane_sends_through_a_tunnel_straight_to_an_nbma_address() {
    let mut node = hub(&[]);
    node.put([neighbour("wan", "192.0.2.9", station(9))]);
    let tunnel = node.id("tun");
    node.inject(
        Origin::Control { tunnel, destination: addr("192.0.2.9").into(), protocol_type: gre::NHRP, port: 0 },
        b"reply",
    );
    let sent = node.sent(0);
    assert_eq!(sent[0][..12], [station(9).0, WAN.0].concat());
    assert_eq!(
        (sent[0][15], sent[0][22], &sent[0][34..42]),
        (0xc0, 64, &[0x20, 0, 0x20, 1, 0, 0, 0, 42][..])
    );
    let (from, to, key, payload) = open_tunnel(&sent[0]);
    assert_eq!(
        (from.as_str(), to.as_str(), key, &payload[..]),
        ("192.0.2.1", "192.0.2.9", Some(42), &b"reply"[..])
    );
}

#[test]
fn packets_wait_for_a_neighbour_and_go_on_in_order() {
    let mut node = hub(&[]);
    let lan = node.id("lan");
    let packet = |n: u8| udp("10.1.2.9", "10.1.0.77", &[n]);
    for n in 0..3 {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet(n));
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    }
    assert_eq!(node.ports.notices, [Notice::Glean { interface: lan, next_hop: addr("10.1.0.77").into() }]);
    assert_eq!(node.sent(1).len(), 0);
    assert_eq!(node.breathe().waiting, 3);
    node.put([neighbour("lan", "10.1.0.77", station(77))]);
    node.settle();
    let expected: Vec<_> =
        (0..3).map(|n| frame(station(77), LAN, ethernet::IPV4, &with_ttl(&packet(n), 63))).collect();
    assert_eq!(node.sent(1), expected);
    assert_eq!(node.breathe().waiting, 0);
    assert_eq!(node.program.node(Node::Drop).calls, 0);
}

#[test]
fn a_scan_of_a_prefix_keeps_no_gateway_from_being_resolved() {
    let mut node = hub(&[]);
    node.put([attached("10.1.0.0/16", "lan"), via("203.0.113.0/24", "lan", "10.1.0.254")]);
    let lan = node.id("lan");
    // More addresses than are waited for, and than are reported in a second.
    for n in 0..1200 {
        let to = format!("10.1.{}.{}", 1 + n / 250, n % 250 + 1);
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", &to, b"x")));
    }
    assert!(node.dropped(DropReason::ParkFull) > 900 && node.ports.notices.len() < 1010);
    node.ports.notices.clear();
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "203.0.113.5", b"x")));
    assert_eq!(node.ports.notices, [Notice::Glean { interface: lan, next_hop: addr("10.1.0.254").into() }]);
    node.put([neighbour("lan", "10.1.0.254", station(254))]);
    // A few queues are looked at in each breath.
    let breathe = |node: &mut TestNode| (0..30).map(|_| node.breathe().waiting).last();
    breathe(&mut node);
    assert_eq!(node.sent(1).len(), 1);
    // All of it is let go of again.
    node.pass(Duration::from_secs(1));
    assert_eq!(breathe(&mut node), Some(0));
    for n in 0..150 {
        node.receive(
            1,
            &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", &format!("10.1.9.{n}"), b"x")),
        );
    }
    assert_eq!(node.breathe().waiting, 150);
}

#[test]
fn a_gateway_and_the_link_of_a_midchain_are_waited_for_too() {
    let mut node = hub(&[]);
    node.put([via("203.0.113.0/24", "lan", "10.1.0.254"), via("10.1.2.0/24", "tun", "10.0.0.2")]);
    node.put([binding("tun", "10.0.0.2", "198.51.100.2", Some(hop("wan", "192.0.2.254")))]);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "203.0.113.5", b"gateway")));
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"link")));
    let notice = |interface, next_hop| Notice::Glean { interface, next_hop: addr(next_hop).into() };
    let expected = [notice(node.id("lan"), "10.1.0.254"), notice(node.id("wan"), "192.0.2.254")];
    assert_eq!(node.ports.notices, expected);
    assert_eq!(node.breathe().waiting, 2);
    node.put([neighbour("wan", "192.0.2.254", station(254))]);
    node.settle();
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "198.51.100.2");
    node.put([neighbour("lan", "10.1.0.254", station(253))]);
    node.settle();
    assert_eq!(node.sent(1).len(), 1);
    // The neighbour moves: the midchain is stacked anew.
    node.put([neighbour("wan", "192.0.2.254", station(99))]);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"link")));
    assert_eq!(node.sent(0)[0][..6], station(99).0);
}

#[test]
fn a_copy_waits_for_its_receivers_link() {
    let mut node = hub(&[]);
    node.put([replica("tun", "198.51.100.2", Some(hop("wan", "192.0.2.254")))]);
    let tun = Origin::Twin(node.id("tun"));
    node.inject(tun, &ip("10.0.0.1", "224.0.0.5", 89, b"ospf"));
    assert_eq!(node.breathe().waiting, 1);
    node.put([neighbour("wan", "192.0.2.254", station(254))]);
    node.settle();
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "198.51.100.2");
}

#[test]
fn a_copy_for_a_receiver_without_a_link_goes_to_nobody_else() {
    let mut node = hub(&[2]);
    node.put([fallback("tun", "10.0.0.2"), replica("tun", "198.51.100.2", None)]);
    node.put([replica("tun", "192.0.2.2", Some(hop("wan", "192.0.2.2")))]);
    let tun = Origin::Twin(node.id("tun"));
    node.inject(tun, &ip("10.0.0.1", "224.0.0.5", 89, b"ospf"));
    let to: Vec<_> = node.sent(0).iter().map(|frame| open_tunnel(frame).1).collect();
    assert_eq!((to, node.drops()), (vec!["192.0.2.2".to_owned()], vec![(DropReason::Unresolved, 1)]));
    assert_eq!(node.ports.notices, []);
}

#[test]
fn an_unresolved_tunnel_hop_falls_back_to_the_nhs() {
    let mut node = hub(&[2]);
    node.put([fallback("tun", "10.0.0.2"), via("10.1.3.0/24", "tun", "10.0.0.3")]);
    // Phase 2: a route by a next hop that nobody has resolved. And the next hop itself, attached.
    for to in ["10.1.3.9", "10.0.0.3"] {
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x")));
        assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.2");
    }
    // Reported as a next hop of the program's, and as a destination.
    let notice = Notice::Glean { interface: node.id("tun"), next_hop: addr("10.0.0.3").into() };
    assert_eq!(node.ports.notices, [notice, notice]);
    node.put(spoke_objects(3));
    for to in ["10.1.3.9", "10.0.0.3"] {
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x")));
        assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.3");
    }
    // The NHS's own link is not resolved: wait for that.
    node.remove(&neighbour("wan", "192.0.2.2", station(2)));
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.0.0.4", b"x")));
    assert_eq!((node.sent(0).len(), node.breathe().waiting), (0, 1));
    node.put([neighbour("wan", "192.0.2.2", station(2))]);
    node.settle();
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.2");
    assert_eq!(node.drops(), []);
}

#[test]
fn a_point_to_point_tunnel_has_one_peer() {
    let mut node = hub(&[]);
    let mut point = tunnel("gre1", "192.0.2.1", "wan", Some(9));
    point.mode = TunnelMode::PointToPoint { destination: "192.0.2.5".parse().unwrap() };
    node.put([
        Object::Tunnel(point),
        neighbour("wan", "192.0.2.5", station(5)),
        binding("gre1", "0.0.0.0", "192.0.2.5", Some(hop("wan", "192.0.2.5"))),
        attached("10.7.0.0/16", "gre1"),
        via("10.8.0.0/16", "gre1", "10.7.0.1"),
    ]);
    for to in ["10.7.3.4", "10.8.3.4"] {
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x")));
        let (_, outer, key, _) = open_tunnel(&node.sent(0)[0]);
        assert_eq!((outer.as_str(), key), ("192.0.2.5", Some(9)));
    }
    let hello = ip("10.7.0.2", "224.0.0.5", 89, b"ospf");
    node.inject(Origin::Twin(node.id("gre1")), &hello);
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.5");
    // Only the peer is heard.
    let inner = udp("10.7.0.1", "10.1.0.2", b"x");
    for (from, heard) in [("192.0.2.5", 1), ("192.0.2.6", 0)] {
        let outer = gre_packet(from, "192.0.2.1", Some(9), gre::IPV4, &inner);
        node.receive(0, &frame(WAN, station(5), ethernet::IPV4, &outer));
        assert_eq!(node.sent(1).len(), heard);
    }
    assert_eq!(node.drops(), [(DropReason::GreNoTunnel, 1)]);
}

#[test]
fn underlay_and_overlay_meet_nowhere_but_in_the_tunnel() {
    let mut node = hub(&[2]);
    node.put([via("0.0.0.0/0", "wan", "192.0.2.2")]);
    // In by the WAN, to the LAN or to a spoke's LAN: no. Out by the WAN, resolved or not: no.
    for to in ["10.1.0.2", "10.1.2.9", "8.8.8.8"] {
        node.receive(0, &frame(WAN, station(9), ethernet::IPV4, &udp("192.0.2.9", to, b"x")));
    }
    for to in ["8.8.8.8", "192.0.2.2", "192.0.2.200"] {
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x")));
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &udp("10.1.2.9", to, b"x"));
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
    }
    assert_eq!(node.drops(), [(DropReason::UnderlayTransit, 9)]);
    // Who is on this side is told, by the way that he came by, and nobody else hears anything.
    let told = |packet: &[u8]| assert_eq!((packet[9], packet[20], packet[21]), (ipv4::ICMP, 3, 13));
    let (by_tunnel, by_lan) = (node.sent(0), node.sent(1));
    by_tunnel.iter().for_each(|frame| told(&open_tunnel(frame).3));
    by_lan.iter().for_each(|frame| told(&open_frame(frame).1));
    assert_eq!((by_tunnel.len(), by_lan.len(), node.ports.notices.len()), (3, 3, 0));
    // Unless the operator says so.
    node.put([interface("wan", "p0", true)]);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "8.8.8.8", b"x")));
    node.receive(0, &frame(WAN, station(9), ethernet::IPV4, &udp("192.0.2.9", "10.1.0.2", b"x")));
    assert_eq!((node.sent(0).len(), node.sent(1).len()), (1, 1));
}

#[test]
fn a_port_that_does_not_forward_reaches_its_own_addresses_alone() {
    let mut node = hub(&[2]);
    // In the clear, as if from a spoke: to the tunnel's address, to the LAN's. Neither came by the tunnel.
    for to in ["10.0.0.1", "10.1.0.1"] {
        node.receive(0, &frame(WAN, station(9), ethernet::IPV4, &ip("10.0.0.2", to, 89, b"ospf")));
    }
    assert_eq!((node.punted().len(), node.drops()), (0, vec![(DropReason::UnderlayTransit, 2)]));
    // The port's own address, and the same packets through the tunnel or by the LAN.
    let wan = node.id("wan");
    node.receive(0, &frame(WAN, station(9), ethernet::IPV4, &udp("198.51.100.9", "192.0.2.1", b"ike")));
    assert_eq!(node.punted().into_iter().map(|punt| punt.0).collect::<Vec<_>>(), [Punt::Host(wan)]);
    for to in ["10.0.0.1", "10.1.0.1"] {
        let inner = ip("10.0.0.2", to, 89, b"ospf");
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner);
        node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &outer));
        node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x")));
    }
    assert_eq!((node.punted().len(), node.dropped(DropReason::UnderlayTransit)), (4, 2));
}

#[test]
fn a_default_route_by_the_tunnel_does_not_take_the_underlay_with_it() {
    let mut node = hub(&[2]);
    node.put([via("0.0.0.0/0", "tun", "10.0.0.2")]);
    let tunnel = node.id("tun");
    let to = |destination| Origin::Control {
        tunnel,
        destination: addr(destination).into(),
        protocol_type: gre::NHRP,
        port: 0,
    };
    node.inject(to("198.51.100.9"), b"request");
    node.inject(to("192.0.2.1"), b"request");
    assert_eq!(node.drops(), [(DropReason::NbmaViaTunnel, 2)]);
    node.inject(to("192.0.2.2"), b"request");
    assert_eq!(node.sent(0).len(), 1);
    // An NHS behind a gateway, as a spoke has it: the binding's link says the way, whatever route covers the address now.
    let gateway = Some(hop("wan", "192.0.2.254"));
    let server = binding("tun", "10.0.0.3", "198.51.100.9", gateway);
    node.put([server.clone(), via("198.51.0.0/16", "tun", "10.0.0.2")]);
    node.inject(to("198.51.100.9"), b"request");
    assert_eq!((node.sent(0).len(), node.breathe().waiting), (0, 1));
    let notice = Notice::Glean { interface: node.id("wan"), next_hop: addr("192.0.2.254").into() };
    assert_eq!(node.ports.notices, [notice]);
    node.put([neighbour("wan", "192.0.2.254", station(254))]);
    node.settle();
    node.inject(to("198.51.100.9"), b"request");
    let sent = node.sent(0);
    assert_eq!(sent.len(), 2);
    for frame in sent {
        assert_eq!((&frame[..6], open_tunnel(&frame).1.as_str()), (&station(254).0[..], "198.51.100.9"));
    }
    // A receiver of multicast says it as well, another address does not, and what is gone says nothing.
    let receiver = replica("tun", "198.51.100.9", gateway);
    node.put([receiver.clone()]);
    node.remove(&server);
    node.inject(to("198.51.100.9"), b"request");
    node.put([replica("tun", "198.51.100.10", gateway)]);
    node.remove(&receiver);
    node.inject(to("198.51.100.9"), b"request");
    assert_eq!((node.sent(0).len(), node.drops()), (1, vec![(DropReason::NbmaViaTunnel, 3)]));
}

#[test]
fn bursts_of_every_kind_at_once_keep_the_law_and_the_order() {
    let mut node = redirecting_hub();
    let tunnelled = |key, inner: &[u8]| {
        let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(key), gre::IPV4, inner);
        (0, frame(WAN, station(2), ethernet::IPV4, &outer))
    };
    let from_lan = |packet: &[u8]| (1, frame(LAN, station(9), ethernet::IPV4, packet));
    let kinds: [(usize, Vec<u8>); 6] = [
        tunnelled(42, &udp("10.1.2.9", "10.1.3.9", b"relay")),
        tunnelled(42, &udp("10.1.2.9", "10.1.0.2", b"decap")),
        tunnelled(43, b"wrong key"),
        from_lan(&udp("10.1.0.2", "10.1.2.9", b"encap")),
        from_lan(&udp("10.1.0.2", "10.1.0.99", b"glean")),
        from_lan(&udp("10.1.0.2", "10.1.0.1", b"receive")),
    ];
    for n in 0..3000_usize {
        let (port, mut bytes) = kinds[(n * 7 + n / 5) % kinds.len()].clone();
        if bytes.len() > 60 && bytes.ends_with(b"relay") {
            // The first byte behind the UDP header counts; the UDP checksum is nobody's business here.
            let at = bytes.len() - 5;
            bytes[at..at + 2].copy_from_slice(&(n as u16).to_be_bytes());
        }
        node.ports.rx[port].push_back(TestBuf::new(&bytes));
    }
    node.settle();
    let relayed: Vec<u16> = node
        .sent(0)
        .iter()
        .filter(|frame| frame.ends_with(b"lay"))
        .map(|frame| u16::from_be_bytes([frame[frame.len() - 5], frame[frame.len() - 4]]))
        .collect();
    assert!(relayed.len() > 400 && relayed.is_sorted(), "{}", relayed.len());
    assert!(node.dropped(DropReason::GreNoTunnel) > 400 && node.dropped(DropReason::ParkFull) > 300);
    assert_eq!(node.breathe().waiting, 64);
}

#[test]
fn a_trace_shows_the_path_and_costs_nobody_else_anything() {
    let mut node = hub(&[2]);
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 2, only: None }));
    let arriving = frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x"));
    for _ in 0..3 {
        node.receive(1, &arriving);
    }
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "203.0.113.1", b"x")));
    let steps = node.worker.take_trace();
    let path: Vec<_> = steps.iter().map(|step| (step.packet, step.node)).collect();
    let encap = [Node::Rx, Node::Classify, Node::IpLookup, Node::Midchain, Node::Tx];
    let expected: Vec<_> = [1, 2].iter().flat_map(|packet| encap.map(|node| (*packet, node))).collect();
    assert_eq!(path, expected);
    assert_eq!(
        (steps[0].len, steps[4].len, &steps[0].bytes[..]),
        (arriving.len(), arriving.len() + 28, &arriving[..])
    );
    assert!(steps[3].to_string().starts_with("#1 midchain"));
}

#[test]
fn cycles_are_counted_when_asked_for() {
    let mut node = hub(&[2]);
    let arriving = frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x"));
    node.receive(1, &arriving);
    assert_eq!(node.program.node(Node::Midchain).cycles, 0);
    node.ports.commands.push_back(Command::Measure(true));
    node.receive(1, &arriving);
    let midchain = node.program.node(Node::Midchain);
    assert!(midchain.cycles > 0);
    assert_eq!((midchain.packets, midchain.calls), (2, 2));
    assert!(node.counters().port_cycles() > 0);
}
