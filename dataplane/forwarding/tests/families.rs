//! Both address families, over both, with VLANs: paths, and what a packet is given to take along.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use std::time::Duration;

use forwarding::{DropReason, Node, Notice, Origin, Punt};
use lab::*;
use model::Mac;
use model::program::{Object, OuterDf, TcpMss, TunnelMode};
use model::report::PuntReason;
use wire::{ethernet, gre, ipv4, ipv6};
use zerocopy::IntoBytes;

/// Every underlay with and without tags, and every overlay.
fn all() -> impl Iterator<Item = (Dual, bool)> {
    Dual::ALL.into_iter().flat_map(|under| {
        let Dual { over_v6, tagged } = under;
        [false, true].map(|v6| (Dual { over_v6, tagged }, v6))
    })
}

#[test]
fn either_family_goes_over_either_there_and_back_with_and_without_tags() {
    for (under, v6) in all() {
        let mut node = under.hub(&[2, 3], |_| {});
        let (host, remote) = hosts(v6, 2);
        let packet = any_udp(&host, &remote, b"hello");
        // As a switch delivers it, padded.
        let mut arriving = under.from_lan(&packet);
        arriving.extend([0; 7]);
        node.receive(1, &arriving);
        let [sent] = &node.sent(0)[..] else { panic!("{v6}: {:?}", node.drops()) };
        let expected = (under.nbma(1), under.nbma(2), Some(42), with_ttl(&packet, 63));
        assert_eq!((open_frame(sent).0, open_tunnel(sent)), (under.vlan(0), expected));
        assert_eq!(sent[..12], [station(2).0, WAN.0].concat());
        let outer = open_frame(sent).1;
        assert_eq!(outer[if under.over_v6 { 7 } else { 8 }], 64);

        let back = any_udp(&remote, &host, b"hello");
        let mut arriving = under.tunnelled(2, &back);
        arriving.extend([0; 9]);
        node.receive(0, &arriving);
        assert_eq!(node.sent(1), [under.framed(station(2), LAN, 20, &with_ttl(&back, 63))]);
        // From spoke to spoke.
        let relayed = any_udp(&remote, &hosts(v6, 3).1, b"relay");
        node.receive(0, &under.tunnelled(2, &relayed));
        let opened = open_tunnel(&node.sent(0)[0]);
        assert_eq!(opened, (under.nbma(1), under.nbma(3), Some(42), with_ttl(&relayed, 63)));
        assert_eq!(node.drops(), []);
    }
}

#[test]
fn an_outer_ipv6_header_has_known_bytes_and_a_label_for_each_flow() {
    let under = Dual { over_v6: true, tagged: false };
    let mut node = under.hub(&[2], |_| {});
    let mut labels = Vec::new();
    for n in 0..64 {
        let packet = with_class(&udp_ports("10.1.0.2", "10.1.2.9", (n, 53), b"nave"), 0xb9);
        for _ in 0..2 {
            node.receive(1, &under.from_lan(&packet));
        }
        let sent = node.sent(0);
        let labels_of = |frame: &[u8]| u32::from_be_bytes([0, frame[15] & 0xf, frame[16], frame[17]]);
        assert_eq!(labels_of(&sent[0]), labels_of(&sent[1]), "one flow");
        labels.push(labels_of(&sent[0]));
        #[rustfmt::skip]
        let expected = [
            0x86, 0xdd, 0x6b, 0x90 | sent[0][15] & 0xf, sent[0][16], sent[0][17], 0, 40, 47, 64,
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0x20, 0, 8, 0, 0, 0, 0, 42,
        ];
        assert_eq!(sent[0][12..62], expected);
    }
    assert!(!labels.contains(&0));
    labels.sort_unstable();
    labels.dedup();
    assert!(labels.len() > 60, "{}", labels.len());
}

#[test]
fn extension_headers_before_gre_are_read_over_but_a_route_that_goes_on_is_not() {
    let under = Dual { over_v6: true, tagged: false };
    let mut node = under.hub(&[2], |_| {});
    let inner = udp("10.1.2.9", "10.1.0.2", b"x");
    let gre = gre_packet("2001:db8::2", "2001:db8::1", Some(42), gre::IPV4, &inner)[40..].to_vec();
    let behind =
        |first: u8, headers: &[u8]| ip6("2001:db8::2", "2001:db8::1", first, &[headers, &gre].concat());
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let opened = [
        behind(ipv6::HOP_BY_HOP, &options(ipv6::GRE)),
        behind(ipv6::DESTINATION_OPTIONS, &[options(ipv6::ROUTING), [47, 0, 0, 0, 0, 0, 0, 0]].concat()),
        // RFC 2473 §4.1.1: the limit of encapsulation, as Linux writes it.
        behind(ipv6::DESTINATION_OPTIONS, &[47, 0, 4, 1, 4, 1, 1, 0]),
    ];
    for packet in &opened {
        node.receive(0, &under.from_wan(station(2), packet));
        assert_eq!(node.sent(1).len(), 1, "{:?}", node.drops());
    }
    let wan = Punt::Host(node.id("wan"));
    let kernels = [
        behind(ipv6::ROUTING, &[47, 0, 0, 1, 0, 0, 0, 0]),
        behind(ipv6::HOP_BY_HOP, &[47, 200, 0, 0, 0, 0, 0, 0]),
        ip6("2001:db8::2", "2001:db8::1", ipv6::UDP, &[0; 8]),
    ];
    for packet in &kernels {
        let arriving = under.from_wan(station(2), packet);
        node.receive(0, &arriving);
        assert_eq!((node.punted(), node.sent(1).len()), (vec![(wan, arriving)], 0));
    }
    assert_eq!(node.drops(), []);
}

#[test]
fn dscp_and_congestion_marks_are_copied_into_the_tunnel() {
    for (under, v6) in all() {
        let mut node = under.hub(&[2], |_| {});
        let (host, remote) = hosts(v6, 2);
        for class in 0..=255 {
            let packet = with_class(&any_udp(&host, &remote, b"x"), class);
            node.receive(1, &under.from_lan(&packet));
            let sent = node.sent(0);
            let (outer, inner) = (open_frame(&sent[0]).1, open_tunnel(&sent[0]).3);
            assert_eq!((class_of(&outer), class_of(&inner)), (class, class));
        }
    }
}

#[test]
fn congestion_marks_of_the_outer_header_are_merged_out_of_the_tunnel() {
    // RFC 6040, figure 4: rows are inner, columns outer; 9 is dropped.
    let figure = [[0, 0, 0, 9], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    for (under, v6) in all() {
        let mut node = under.hub(&[2], |_| {});
        let (host, remote) = hosts(v6, 2);
        for inner in 0..4_u8 {
            for outer in 0..4_u8 {
                let packet = with_class(&any_udp(&remote, &host, b"x"), 0xb8 | inner);
                let gre = gre_packet(&under.nbma(2), &under.nbma(1), Some(42), ethertype(&packet), &packet);
                let dropped = node.dropped(DropReason::Congestion);
                node.receive(0, &under.from_wan(station(2), &with_class(&gre, 0x48 | outer)));
                let sent: Vec<_> = node.sent(1).iter().map(|frame| open_frame(frame).1).collect();
                let wanted = figure[usize::from(inner)][usize::from(outer)];
                if wanted == 9 {
                    assert_eq!((sent.len(), node.dropped(DropReason::Congestion)), (0, dropped + 1));
                } else {
                    assert_eq!(sent, [with_class(&with_ttl(&packet, 63), 0xb8 | wanted)], "{inner} {outer}");
                }
            }
        }
    }
}

#[test]
fn syns_ask_for_no_more_than_the_tunnel_takes_in_both_directions() {
    // The tunnel takes 1,400 bytes: IP and TCP headers have 40 or 60 of them.
    let policies =
        [(TcpMss::Auto, [1360, 1340]), (TcpMss::Most(1200), [1200, 1180]), (TcpMss::Off, [1460, 1460])];
    for (under, v6) in all() {
        for (policy, expected) in policies {
            let mut node = under.hub(&[2], |tunnel| tunnel.tcp_mss = policy);
            let (host, remote) = hosts(v6, 2);
            for (flags, asked, mss) in [
                (2, 1460, expected[usize::from(v6)]),
                (0x12, 1460, expected[usize::from(v6)]),
                (2, 536, 536),
                (0x10, 1460, 1460),
            ] {
                node.receive(1, &under.from_lan(&tcp_packet(&host, &remote, flags, asked)));
                assert_eq!(mss_of(&open_tunnel(&node.sent(0)[0]).3), mss, "into: {policy:?} {flags}");
                node.receive(0, &under.tunnelled(2, &tcp_packet(&remote, &host, flags, asked)));
                assert_eq!(mss_of(&open_frame(&node.sent(1)[0]).1), mss, "out of: {policy:?} {flags}");
            }
        }
    }
}

#[test]
fn a_syn_behind_ip_options_asks_for_no_more_either() {
    for (under, _) in all().filter(|(_, v6)| !v6) {
        let mut node = under.hub(&[2], |_| ());
        let (host, remote) = hosts(false, 2);
        let plain = tcp_packet(&host, &remote, 2, 1460);
        // Six words of options: where flags would be without them is a zero.
        let mut packet = [&plain[..20], &[1; 12], &[0; 12], &plain[20..]].concat();
        packet[0] = 0x4b;
        packet[3] += 24;
        let packet = whole(&packet);
        node.receive(1, &under.from_lan(&packet));
        let inner = open_tunnel(&node.sent(0)[0]).3;
        assert_eq!(inner[20 + 24 + 22..20 + 24 + 24], 1360_u16.to_be_bytes());
    }
}

#[test]
fn the_outer_header_may_be_cut_as_the_tunnel_says() {
    let packets = [
        (udp("10.1.0.2", "10.1.2.9", b"x"), false),
        (whole(&udp("10.1.0.2", "10.1.2.9", b"x")), true),
        // IPv6 of up to 1,280 bytes must get through, more need not.
        (udp6("fd00:1::2", "fd00:1:2::9", &[0; 1280 - 48]), false),
        (udp6("fd00:1::2", "fd00:1:2::9", &[0; 1281 - 48]), true),
    ];
    for tagged in [false, true] {
        let under = Dual { over_v6: false, tagged };
        for (policy, fixed) in
            [(OuterDf::Copy, None), (OuterDf::Set, Some(true)), (OuterDf::Clear, Some(false))]
        {
            let mut node = under.hub(&[2], |tunnel| tunnel.outer_df = policy);
            for (packet, copied) in &packets {
                node.receive(1, &under.from_lan(packet));
                let sent = node.sent(0);
                open_tunnel(&sent[0]);
                let outer = open_frame(&sent[0]).1;
                assert_eq!(
                    ipv4::parse(&outer).unwrap().0.dont_fragment(),
                    fixed.unwrap_or(*copied),
                    "{policy:?}"
                );
            }
        }
    }
}

#[test]
fn the_control_plane_speaks_and_hears_over_either_family() {
    for under in Dual::ALL {
        let mut node = under.hub(&[2], |_| {});
        let tunnel = node.id("tun");
        let (source, destination) = (under.nbma(2).parse().unwrap(), under.nbma(1).parse().unwrap());
        let outer = gre_packet(&under.nbma(2), &under.nbma(1), Some(42), gre::NHRP, b"request");
        node.receive(0, &under.from_wan(station(2), &outer));
        let punt = Punt::Control { reason: PuntReason::Nhrp, tunnel, source, destination, port: 0, spi: 0 };
        assert_eq!(node.punted(), [(punt, b"request".to_vec())]);

        // By the link of a binding, and by the table of the underlay.
        node.put([neighbour("wan", &under.nbma(7), station(7))]);
        for to in [2, 7] {
            let destination = under.nbma(to).parse().unwrap();
            node.inject(Origin::Control { tunnel, destination, protocol_type: gre::NHRP, port: 0 }, b"reply");
            let [sent] = &node.sent(0)[..] else { panic!("{:?}", node.drops()) };
            assert_eq!(open_tunnel(sent), (under.nbma(1), under.nbma(to), Some(42), b"reply".to_vec()));
            assert_eq!((&sent[..6], open_frame(sent).0), (&station(to).0[..], under.vlan(0)));
            assert_eq!(class_of(&open_frame(sent).1), ipv4::CS6);
        }
        // What the tunnel cannot say.
        let other = Dual { over_v6: !under.over_v6, tagged: false }.nbma(2).parse().unwrap();
        node.inject(
            Origin::Control { tunnel, destination: other, protocol_type: gre::NHRP, port: 0 },
            b"reply",
        );
        assert_eq!(node.drops(), [(DropReason::NoRoute, 1)]);
    }
}

#[test]
fn ipv6_for_the_host_goes_to_the_right_twin() {
    for under in Dual::ALL {
        let mut node = under.hub(&[2], |_| {});
        let (lan, tun) = (node.id("lan"), node.id("tun"));
        let untagged = |to, packet: &[u8]| frame(to, station(2), ethernet::IPV6, packet);
        let group = |group: &str| Mac(ethernet::multicast_v6(addr6(group)));
        // Solicitations of neighbours for a group and for us, routers' multicast, own and link-local addresses.
        for (to, mac) in [
            ("ff02::1:ff00:1", group("ff02::1:ff00:1")),
            ("ff02::5", group("ff02::5")),
            ("fd00:1::1", LAN),
            ("fe80::1", LAN),
            ("ff02::1", LAN),
        ] {
            let packet = with_ttl(&ip6("fe80::2", to, ipv6::ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]), 255);
            node.receive(1, &under.framed(mac, station(2), 20, &packet));
            assert_eq!(node.punted(), [(Punt::Host(lan), untagged(mac, &packet))], "{to}");
        }
        // By the tunnel: to its addresses, to groups of the link; to the LAN's address in a frame.
        for (to, twin) in [("fd00::1", tun), ("fe80::1", tun), ("ff02::5", tun), ("fd00:1::1", lan)] {
            let packet = with_ttl(&ip6("fd00::2", to, 89, b"ospf"), 1);
            node.receive(0, &under.tunnelled(2, &packet));
            let bytes = if twin == lan { frame(LAN, LAN, ethernet::IPV6, &packet) } else { packet };
            assert_eq!(node.punted(), [(Punt::Host(twin), bytes)], "{to}");
        }
        assert_eq!(node.drops(), []);
        node.receive(0, &under.tunnelled(2, &ip6("fd00::2", "ff05::5", 89, b"site")));
        assert_eq!(node.drops(), [(DropReason::Multicast, 1)]);
    }
}

#[test]
fn what_a_twin_sends_goes_into_its_vlan_or_its_tunnel() {
    for under in Dual::ALL {
        let mut node = under.hub(&[2, 3], |_| {});
        let wan = Origin::Twin(node.id("wan"));
        let ours = any_udp(&under.nbma(1), &under.nbma(2), b"ike");
        node.inject(wan, &frame(station(2), WAN, ethertype(&ours), &ours));
        assert_eq!(node.sent(0), [under.framed(station(2), WAN, 10, &ours)]);
        let forbidden = gre_packet(&under.nbma(1), &under.nbma(2), Some(42), gre::IPV4, b"x");
        node.inject(wan, &frame(station(2), WAN, ethertype(&forbidden), &forbidden));
        assert_eq!((node.sent(0).len(), node.drops()), (0, vec![(DropReason::InjectForbidden, 1)]));

        let tun = Origin::Twin(node.id("tun"));
        for own in [udp("10.0.0.1", "10.1.2.9", b"x"), udp6("fd00::1", "fd00:1:2::9", b"x")] {
            let own = with_ttl(&own, 1);
            node.inject(tun, &own);
            assert_eq!(open_tunnel(&node.sent(0)[0]).3, own);
        }
        node.put([2, 3].map(|n| replica("tun", &under.nbma(n), Some(hop("wan", &under.nbma(n))))));
        for hello in [ip("10.0.0.1", "224.0.0.5", 89, b"ospf"), ip6("fe80::1", "ff02::5", 89, b"ospf")] {
            node.inject(tun, &with_ttl(&hello, 1));
            let copies: Vec<_> = node.sent(0).iter().map(|frame| open_tunnel(frame)).collect();
            let copy = |to| (under.nbma(1), under.nbma(to), Some(42), with_ttl(&hello, 1));
            assert_eq!(copies, [copy(3), copy(2)]);
        }
        assert_eq!(node.drops(), [(DropReason::InjectForbidden, 1)]);
    }
}

#[test]
fn a_point_to_point_tunnel_over_ipv6_has_one_peer_for_all_there_is() {
    let under = Dual { over_v6: true, tagged: false };
    let mut node = under.hub(&[], |_| {});
    let mut point = tunnel("gre1", "2001:db8::1", "wan", None);
    point.mode = TunnelMode::PointToPoint { destination: "2001:db8::5".parse().unwrap() };
    node.put([
        Object::Tunnel(point),
        neighbour("wan", "2001:db8::5", station(5)),
        binding("gre1", "0.0.0.0", "2001:db8::5", Some(hop("wan", "2001:db8::5"))),
        attached("10.7.0.0/16", "gre1"),
        attached("fd07::/64", "gre1"),
    ]);
    let gre1 = Origin::Twin(node.id("gre1"));
    for packet in [
        udp("10.7.0.2", "10.7.3.4", b"x"),
        udp6("fd07::2", "fd07::9", b"x"),
        ip6("fe80::1", "fe80::2", 89, b"x"),
    ] {
        node.inject(gre1, &packet);
        let sent = node.sent(0);
        assert_eq!(open_tunnel(&sent[0]), ("2001:db8::1".into(), "2001:db8::5".into(), None, packet));
    }
    // Only the peer is heard.
    let inner = udp6("fd07::1", "fd00:1::2", b"x");
    for (from, heard) in [("2001:db8::5", 1), ("2001:db8::6", 0)] {
        let outer = gre_packet(from, "2001:db8::1", None, gre::IPV6, &inner);
        node.receive(0, &under.from_wan(station(5), &outer));
        assert_eq!(node.sent(1).len(), heard);
    }
    assert_eq!(node.drops(), [(DropReason::GreNoTunnel, 1)]);
}

#[test]
fn next_hops_of_both_families_are_waited_for_and_fall_back() {
    for (under, v6) in all() {
        let mut node = under.hub(&[2], |_| {});
        let (lan, tun) = (node.id("lan"), node.id("tun"));
        let (_, remote) = hosts(v6, 2);
        let (gateway, behind, attached) = if v6 {
            ("fd00:1::fe", "2001:db8:9::1", "fd00:1::77")
        } else {
            ("10.1.0.254", "203.0.113.5", "10.1.0.77")
        };
        node.put([via(if v6 { "2001:db8:9::/48" } else { "203.0.113.0/24" }, "lan", gateway)]);
        let packets = [behind, attached].map(|to| any_udp(&remote, to, b"x"));
        for packet in &packets {
            node.receive(0, &under.tunnelled(2, packet));
        }
        let notice =
            |interface, next_hop: &str| Notice::Glean { interface, next_hop: next_hop.parse().unwrap() };
        assert_eq!(node.ports.notices, [notice(lan, gateway), notice(lan, attached)]);
        assert_eq!(node.breathe().waiting, 2);
        node.put([neighbour("lan", gateway, station(7)), neighbour("lan", attached, station(8))]);
        node.settle();
        let mut sent = node.sent(1);
        sent.sort();
        let expected = |to, packet: &[u8]| under.framed(station(to), LAN, 20, &with_ttl(packet, 63));
        assert_eq!(sent, [expected(7, &packets[0]), expected(8, &packets[1])]);

        // An unresolved hop of the tunnel: to the NHS, but not back to it.
        node.ports.notices.clear();
        let (server, unknown) = if v6 { ("fd00::2", "fd00::9") } else { ("10.0.0.2", "10.0.0.9") };
        node.put([fallback("tun", server)]);
        node.receive(1, &under.from_lan(&any_udp(&hosts(v6, 2).0, unknown, b"x")));
        assert_eq!(open_tunnel(&node.sent(0)[0]).1, under.nbma(2));
        assert_eq!(node.ports.notices, [notice(tun, unknown)]);
        assert_eq!(node.drops(), []);
        node.receive(0, &under.tunnelled(2, &any_udp(&remote, unknown, b"x")));
        assert_eq!(node.drops(), [(DropReason::HostUnreachable, 1)]);
    }
}

#[test]
fn what_leaves_by_the_network_it_came_from_is_redirected_in_both_families() {
    for (under, v6) in all() {
        let mut node = under.hub(&[2, 3], |tunnel| tunnel.redirect = true);
        let inner = any_udp(&hosts(v6, 2).1, &hosts(v6, 3).1, &[7; 300]);
        for _ in 0..3 {
            node.receive(0, &under.tunnelled(2, &inner));
        }
        assert_eq!(node.sent(0).len(), 3);
        let (source, destination) = (under.nbma(2).parse().unwrap(), under.nbma(1).parse().unwrap());
        let tunnel = node.id("tun");
        let punt =
            Punt::Control { reason: PuntReason::Redirect, tunnel, source, destination, port: 0, spi: 0 };
        assert_eq!(node.punted(), [(punt, inner[..128].to_vec())]);
        node.receive(1, &under.from_lan(&any_udp(&hosts(v6, 2).0, &hosts(v6, 3).1, b"x")));
        node.pass(Duration::from_secs(1));
        node.receive(0, &under.tunnelled(2, &inner));
        assert_eq!(node.punted().len(), 1);
    }
}

#[test]
fn a_tag_decides_whose_a_frame_is() {
    let mut node = TestNode::new(1, 2);
    node.put([
        interface("plain", "p0", true),
        vlan("ten", "p0", 10, true),
        vlan("twenty", "p0", 20, true),
        vlan("only", "p1", 30, true),
        receive("10.0.0.1", "plain"),
        receive("10.0.10.1", "ten"),
        attached("10.0.20.0/24", "twenty"),
        neighbour("twenty", "10.0.20.2", station(2)),
        attached("10.0.30.0/24", "only"),
        neighbour("only", "10.0.30.2", station(3)),
    ]);
    let to = |destination| udp("10.0.99.1", destination, b"x");
    // From VLAN to VLAN of one port, to another port, to one without a tag.
    node.receive(0, &tagged(WAN, station(9), 10, &to("10.0.20.2")));
    assert_eq!(node.sent(0), [tagged(station(2), WAN, 20, &with_ttl(&to("10.0.20.2"), 63))]);
    node.receive(0, &frame(WAN, station(9), ethernet::IPV4, &to("10.0.30.2")));
    assert_eq!(node.sent(1), [tagged(station(3), LAN, 30, &with_ttl(&to("10.0.30.2"), 63))]);
    // To the host: the twin of the VLAN gets it without a tag; VLAN 0 is none.
    let arp = |tag: Option<u16>| {
        let broadcast = Mac(ethernet::BROADCAST);
        match tag {
            None => frame(broadcast, station(9), ethernet::ARP, &[7; 28]),
            Some(vlan) => {
                let tag = ethernet::Tag::new(5, vlan, ethernet::ARP);
                frame(broadcast, station(9), ethernet::VLAN, &[tag.as_bytes(), &[7; 28]].concat())
            }
        }
    };
    for (vlan, twin) in [(None, "plain"), (Some(0), "plain"), (Some(10), "ten"), (Some(20), "twenty")] {
        node.receive(0, &arp(vlan));
        assert_eq!(node.punted(), [(Punt::Host(node.id(twin)), arp(None))]);
    }
    assert_eq!(node.drops(), []);
    // No such VLAN; none without a tag; a second tag; a provider's.
    let second = |outer, inner: u16| {
        let tags = [ethernet::Tag::new(0, 10, inner), ethernet::Tag::new(0, 10, ethernet::IPV4)];
        frame(WAN, station(9), outer, &[tags[0].as_bytes(), tags[1].as_bytes(), &to("10.0.20.2")].concat())
    };
    node.receive(0, &arp(Some(30)));
    node.receive(1, &arp(None));
    node.receive(1, &arp(Some(0)));
    node.receive(0, &second(ethernet::VLAN, ethernet::VLAN));
    node.receive(0, &second(ethernet::VLAN, ethernet::PROVIDER_VLAN));
    node.receive(0, &second(ethernet::PROVIDER_VLAN, ethernet::IPV4));
    assert_eq!(node.drops(), [(DropReason::NoInterface, 6)]);
    // Cut within the tag, or for another station.
    node.receive(0, &arp(Some(10))[..17]);
    node.receive(0, &tagged(station(1), station(9), 10, &to("10.0.20.2")));
    assert_eq!(node.drops()[1..], [(DropReason::Runt, 1), (DropReason::NotForUs, 1)]);
    assert_eq!(node.program.node(Node::Tx).packets, 2);
}
