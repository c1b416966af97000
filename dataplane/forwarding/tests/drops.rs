//! Every reason to drop a packet is reached, by a packet that deserves it and counted once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::time::Duration;

use forwarding::{DropReason, InterfaceId, Origin};
use lab::esp::*;
use lab::*;
use model::program::{Interface, Object, OutboundSa, Path};
use model::sa::{Amount, Lease, Lifetimes, SaMode, Spi};
use wire::buf::TestBuf;
use wire::{esp, ethernet, gre, ipv4, ipv6};
use zerocopy::IntoBytes;

/// A frame from the LAN.
fn from_lan(packet: &[u8]) -> Vec<u8> {
    frame(LAN, station(9), ethernet::IPV4, packet)
}

/// A frame from the underlay.
fn from_wan(packet: &[u8]) -> Vec<u8> {
    frame(WAN, station(2), ethernet::IPV4, packet)
}

/// A GRE packet to the hub's tunnel.
fn tunnelled(protocol: u16, payload: &[u8]) -> Vec<u8> {
    from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(42), protocol, payload))
}

/// GRE bytes as they are, to the hub's tunnel.
fn raw_gre(bytes: &[u8]) -> Vec<u8> {
    from_wan(&ip("192.0.2.2", "192.0.2.1", ipv4::GRE, bytes))
}

/// A fragment of GRE to the hub's tunnel.
fn fragment(id: u16, flags: u16, data: &[u8]) -> Vec<u8> {
    let (from, to) = (addr("192.0.2.2"), addr("192.0.2.1"));
    let header = ipv4::Header::new(from, to, ipv4::GRE, 64, data.len()).unwrap();
    from_wan(&[header.with_id(id).with_flags(flags).as_bytes(), data].concat())
}

fn packet() -> Vec<u8> {
    udp("10.1.0.2", "10.1.2.9", b"x")
}

/// Makes a hub drop one packet for the reason.
fn provoke(node: &mut TestNode, reason: DropReason) {
    let tun = node.id("tun");
    let twin = Origin::Twin(tun);
    let multicast = ip("10.0.0.1", "224.0.0.5", 89, b"x");
    match reason {
        DropReason::NoInterface => {
            node.remove(&neighbour("lan", "10.1.0.2", station(2)));
            for object in
                [attached("10.1.0.0/24", "lan"), receive("10.1.0.1/32", "lan"), interface("lan", "p1", true)]
            {
                node.remove(&object);
            }
            node.receive(1, &from_lan(&packet()));
        }
        DropReason::InjectForbidden => {
            let wan = node.id("wan");
            node.inject(Origin::Twin(wan), &tunnelled(gre::IPV4, b"x"));
        }
        DropReason::InjectFamily => node.inject(twin, &[0x50; 40]),
        DropReason::Runt => node.receive(1, &[2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9, 8]),
        DropReason::NotForUs => node.receive(1, &frame(station(1), station(9), ethernet::IPV4, &packet())),
        DropReason::BadHeader => {
            let mut packet = packet();
            packet[3] += 1;
            node.receive(1, &from_lan(&packet));
        }
        DropReason::BadChecksum => {
            let mut packet = packet();
            packet[8] += 1;
            node.receive(1, &from_lan(&packet));
        }
        // More to follow, of a length that no place is a multiple of.
        DropReason::FragmentOverlap => node.receive(0, &fragment(7, ipv4::MORE_FRAGMENTS, &[0; 9])),
        DropReason::ReassemblyFull => {
            (0..17).for_each(|id| node.receive(0, &fragment(id, ipv4::MORE_FRAGMENTS, &[0; 8])));
        }
        DropReason::ReassemblyTimeout => {
            node.receive(0, &fragment(7, ipv4::MORE_FRAGMENTS, &[0; 8]));
            node.pass(Duration::from_secs(1));
            node.settle();
        }
        DropReason::ReassemblyTooBig => node.receive(0, &fragment(7, 0x1fff, &[0; 8])),
        DropReason::FragmentFull => {
            // 27 further pieces each, and places for 768.
            let Object::Interface(lan) = interface("lan", "p1", true) else { panic!("an interface") };
            node.put([Object::Interface(Interface { mtu: 68, ..lan })]);
            let packet = tunnelled(gre::IPV4, &udp("10.1.2.9", "10.1.0.2", &[7; 1300]));
            node.ports.rx[0].extend((0..29).map(|_| TestBuf::new(&packet)));
            node.settle();
        }
        DropReason::Congestion => {
            let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet());
            node.receive(0, &from_wan(&with_class(&outer, 3)));
        }
        DropReason::Scope => {
            let packet = udp6("fe80::9", "2001:db8::9", b"x");
            node.put([via("2001:db8::/32", "lan", "fd00::7")]);
            node.receive(1, &frame(LAN, station(9), ethernet::IPV6, &packet));
        }
        DropReason::GreMalformed => node.receive(0, &raw_gre(&[0x40, 0, 8, 0, 0, 0, 0, 42])),
        DropReason::GreChecksum => node.receive(0, &raw_gre(&[0xa0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 42])),
        DropReason::GreNoTunnel => {
            node.receive(0, &from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(43), gre::IPV4, &packet())));
        }
        DropReason::GreProtocol => node.receive(0, &tunnelled(ethernet::ARP, b"x")),
        DropReason::StaleIndex => node.inject(Origin::Twin(InterfaceId(99)), &packet()),
        DropReason::NoRoute => node.receive(1, &from_lan(&udp("10.1.0.2", "203.0.113.1", b"x"))),
        DropReason::Blackhole => {
            node.put([route("203.0.113.0/24", Path::Blackhole)]);
            node.receive(1, &from_lan(&udp("10.1.0.2", "203.0.113.1", b"x")));
        }
        DropReason::Martian => node.receive(1, &from_lan(&udp("10.1.0.2", "127.0.0.1", b"x"))),
        DropReason::Multicast => {
            node.receive(0, &tunnelled(gre::IPV4, &ip("10.1.2.9", "239.1.1.1", ipv4::UDP, b"x")));
        }
        DropReason::UnderlayTransit => node.receive(0, &from_wan(&packet())),
        DropReason::NbmaViaTunnel => {
            let destination = addr("10.1.2.9").into();
            node.inject(
                Origin::Control { tunnel: tun, destination, protocol_type: gre::NHRP, port: 0 },
                b"x",
            );
        }
        DropReason::NoReplica => node.inject(twin, &multicast),
        DropReason::ReplicateFull => {
            let link = Some(hop("wan", "192.0.2.2"));
            node.put((0..5000).map(|n| replica("tun", &format!("198.{}.{}.1", n / 250, n % 250), link)));
            // More than may wait; those that wait get their copies.
            node.ports.inject.extend(
                (0..65).map(|_| forwarding::Injected { origin: twin, buf: TestBuf::new(&multicast) }),
            );
            node.settle();
        }
        DropReason::NoBuffer => {
            node.put(
                ["192.0.2.2", "192.0.2.3"].map(|nbma| replica("tun", nbma, Some(hop("wan", "192.0.2.2")))),
            );
            node.ports.buffers = 0;
            node.inject(twin, &multicast);
        }
        DropReason::ParkFull => {
            for _ in 0..65 {
                node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.0.77", b"x")));
            }
        }
        DropReason::Unresolved => {
            node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.0.77", b"x")));
            node.pass(Duration::from_secs(1));
            node.settle();
        }
        DropReason::TtlExpired => node.receive(1, &from_lan(&with_ttl(&packet(), 1))),
        DropReason::TooBig => node.receive(1, &from_lan(&whole(&udp("10.1.0.2", "10.1.2.9", &[0; 1400])))),
        DropReason::NoHeadroom => {
            node.ports.rx[1].push_back(TestBuf::with_room(8, &from_lan(&packet()), 0));
            node.settle();
        }
        DropReason::HostUnreachable => node.receive(1, &from_lan(&udp("10.1.0.2", "10.0.0.9", b"x"))),
        DropReason::PuntFull => {
            node.ports.punt_room = 0;
            node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.0.1", b"x")));
        }
        DropReason::TxFull => {
            node.ports.tx_room = 0;
            node.receive(1, &from_lan(&packet()));
        }
        // See `provoke_protected`.
        _ => panic!("{reason}"),
    }
}

/// Reasons that tunnels have that are protected.
const OF_PROTECTED: [DropReason; 13] = [
    DropReason::NatKeepalive,
    DropReason::NoSa,
    DropReason::SaMismatch,
    DropReason::Replayed,
    DropReason::BadIcv,
    DropReason::EspMalformed,
    DropReason::EspDummy,
    DropReason::LifetimeEnded,
    DropReason::UnprotectedIn,
    DropReason::NoOutboundSa,
    DropReason::LeaseSpent,
    DropReason::SequenceOverflow,
    DropReason::HandoffFull,
];

/// Makes a hub with a protected tunnel drop one packet for the reason; it has a spoke with SAs.
fn provoke_protected(guard: &Guard, reason: DropReason) -> TestNode {
    let mut node = guard.hub(&[2]);
    let mut peer = guard.peer(2);
    let v6 = guard.over_v6;
    let (host, remote) = hosts(v6, 2);
    let (out, back) = (any_udp(&host, &remote, b"x"), any_udp(&remote, &host, b"x"));
    let lan = guard.under().from_lan(&out);
    // Another SPI, so that it is another SA.
    let other = guard.outbound(2, Spi::new(0x4242_4242).unwrap());
    match reason {
        DropReason::NatKeepalive => {
            let (from, to) = (guard.under().nbma(2), guard.under().nbma(1));
            let keepalive = if v6 {
                udp6_ports(&from, &to, (4500, 4500), &esp::KEEPALIVE)
            } else {
                udp_ports(&from, &to, (4500, 4500), &esp::KEEPALIVE)
            };
            node.receive(0, &guard.under().from_wan(station(2), &keepalive));
        }
        DropReason::NoSa => {
            let nobody = Peer::new(*guard, 2, Spi::of(0, 99, 7).unwrap(), out_spi(2));
            node.receive(0, &nobody.seal_as(1, &back));
        }
        DropReason::SaMismatch => {
            peer.from.0 = guard.under().nbma(3);
            node.receive(0, &peer.seal(&back));
        }
        DropReason::Replayed => {
            node.receive(0, &peer.seal_as(100, &back));
            // (With ESN what is too old is taken for what is far ahead, and not authentic then: RFC 4303 §A2.2.)
            node.receive(0, &peer.seal_as(if guard.esn { 100 } else { 36 }, &back));
        }
        DropReason::BadIcv => {
            let mut frame = peer.seal(&back);
            *frame.last_mut().unwrap() ^= 1;
            node.receive(0, &frame);
        }
        DropReason::EspMalformed => node.receive(0, &peer.framed(&[1; 33])),
        DropReason::EspDummy => node.receive(0, &peer.seal_text(1, &[0; 99], esp::NO_NEXT_HEADER, 0)),
        DropReason::LifetimeEnded => {
            let hard = Amount { packets: Some(1), bytes: None };
            let lifetimes = Lifetimes { hard, ..Lifetimes::default() };
            node.put([Object::OutboundSa(OutboundSa { lifetimes, ..other })]);
            node.settle();
            node.receive(1, &lan);
            node.receive(1, &lan);
        }
        DropReason::UnprotectedIn => {
            let clear =
                gre_packet(&guard.under().nbma(2), &guard.under().nbma(1), Some(42), ethertype(&back), &back);
            node.receive(0, &guard.under().from_wan(station(2), &clear));
        }
        DropReason::NoOutboundSa => {
            node.remove(&Object::OutboundSa(other));
            node.settle();
            node.receive(1, &lan);
        }
        DropReason::LeaseSpent => {
            let lease = Lease { first: 5, last: 5 };
            node.put([Object::OutboundSa(OutboundSa { lease, ..other })]);
            node.settle();
            node.receive(1, &lan);
            node.receive(1, &lan);
        }
        DropReason::SequenceOverflow => {
            let last = if guard.esn { u64::MAX } else { u32::MAX.into() };
            let lease = Lease { first: last - 1, last };
            node.put([Object::OutboundSa(OutboundSa { lease, ..other })]);
            node.settle();
            node.receive(1, &lan);
            node.receive(1, &lan);
            if !guard.esn {
                node.receive(1, &lan);
            }
        }
        DropReason::HandoffFull => {
            // Of a worker that is not this one; there is one more since then.
            let _other = node.program.worker::<TestBuf>().unwrap();
            let elsewhere = Peer::new(*guard, 2, Spi::of(1, 5, 7).unwrap(), out_spi(2));
            node.ports.handoff_room = 0;
            node.receive(0, &elsewhere.seal_as(1, &back));
        }
        _ => panic!("{reason}"),
    }
    node
}

#[test]
fn each_of_a_protected_tunnel_is_reached_and_counted_once() {
    for guard in Guard::all() {
        for reason in OF_PROTECTED {
            // In UDP a packet from elsewhere is taken.
            if reason == DropReason::SaMismatch && guard.port != 0 {
                continue;
            }
            let node = provoke_protected(&guard, reason);
            assert_eq!(node.drops(), [(reason, 1)], "{reason}");
            assert_eq!(node.program.node(forwarding::Node::Drop).packets, 1, "{reason}");
            assert!(node.counters().flow().balances(), "{reason}");
        }
    }
}

#[test]
fn all_that_is_no_gre_of_the_peer_s_is_a_mismatch() {
    let transport = PLAIN;
    let tunnel = Guard { mode: SaMode::Tunnel, ..PLAIN };
    let packet = packet_back();
    let gre = gre_bytes(Some(42), gre::IPV4, &packet);
    let inner = |from: &str, to: &str, protocol| ip(from, to, protocol, &gre);
    let mut part = inner("192.0.2.2", "192.0.2.1", ipv4::GRE);
    part[6] |= 0x20;
    for (guard, payload, next_header) in [
        // Something else in transport mode; tunnel mode in an SA of transport mode, and the reverse.
        (transport, packet.clone(), ipv4::UDP),
        (transport, inner("192.0.2.2", "192.0.2.1", ipv4::GRE), esp::IPV4),
        (tunnel, gre.clone(), ipv4::GRE),
        // Another protocol, other addresses, a fragment.
        (tunnel, inner("192.0.2.2", "192.0.2.1", ipv4::UDP), esp::IPV4),
        (tunnel, inner("192.0.2.3", "192.0.2.1", ipv4::GRE), esp::IPV4),
        (tunnel, inner("192.0.2.2", "192.0.2.9", ipv4::GRE), esp::IPV4),
        (tunnel, summed(part), esp::IPV4),
        (tunnel, any_ip("2001:db8::2", "2001:db8::1", ipv4::GRE, &gre), esp::IPV6),
    ] {
        let mut node = guard.hub(&[2]);
        node.receive(0, &guard.peer(2).seal_text(1, &payload, next_header, 0));
        assert_eq!(node.drops(), [(DropReason::SaMismatch, 1)], "{next_header}");
    }
    // What is in tunnel mode is no IP packet, or padding is not 1, 2, 3; then its key is nobody's.
    for (guard, text, reason) in [
        (tunnel, [&packet[..18], &[1, 1, 4]].concat(), DropReason::EspMalformed),
        (transport, [&gre[..], &[7, 1, 47]].concat(), DropReason::EspMalformed),
        (transport, [&gre[..], &[1, 255, 47]].concat(), DropReason::EspMalformed),
        (
            transport,
            gre_bytes(Some(43), gre::IPV4, &[&packet[..], &[1, 1, 47]].concat()),
            DropReason::GreNoTunnel,
        ),
    ] {
        let mut node = guard.hub(&[2]);
        node.receive(0, &guard.peer(2).seal_bytes(1, text));
        assert_eq!(node.drops(), [(reason, 1)]);
    }
    // Of another profile's SA, and to a tunnel that is not protected.
    for protection in [Some("other".parse().unwrap()), None] {
        let mut node = PLAIN.hub(&[2]);
        let mut other = tunnel_of("tun2", 77);
        other.protection = protection;
        node.put([Object::Tunnel(other)]);
        node.receive(0, &PLAIN.peer(2).seal_gre(1, &gre_bytes(Some(77), gre::IPV4, &packet)));
        assert_eq!(node.drops(), [(DropReason::SaMismatch, 1)]);
    }
}

fn tunnel_of(name: &str, key: u32) -> model::program::Tunnel {
    tunnel(name, "192.0.2.1", "wan", Some(key))
}

fn packet_back() -> Vec<u8> {
    udp("10.1.2.9", "10.1.0.2", b"x")
}

fn of_clear() -> impl Iterator<Item = DropReason> {
    DropReason::ALL.into_iter().filter(|reason| !OF_PROTECTED.contains(reason))
}

#[test]
fn each_is_reached_and_counted_once() {
    for reason in of_clear() {
        let mut node = hub(&[2]);
        provoke(&mut node, reason);
        assert_eq!(node.drops(), [(reason, 1)], "{reason}");
        assert_eq!(node.program.node(forwarding::Node::Drop).packets, 1, "{reason}");
        assert!(node.counters().flow().balances(), "{reason}");
    }
}

/// The same of a hub with an IPv6 underlay and by IPv6 packets; `false` if no such packet can have the reason, or there is nothing of
/// IPv6 about it.
fn provoke_v6(node: &mut TestNode, reason: DropReason) -> bool {
    let under = OVER_V6;
    let (tun, wan) = (node.id("tun"), node.id("wan"));
    let twin = Origin::Twin(tun);
    let (host, remote) = hosts(true, 2);
    let packet = || udp6(&host, &remote, b"x");
    let to = |to: &str| udp6(&host, to, b"x");
    let gre = |key, protocol, bytes: &[u8]| {
        under.from_wan(station(2), &gre_packet("2001:db8::2", "2001:db8::1", Some(key), protocol, bytes))
    };
    let raw_gre =
        |bytes: &[u8]| under.from_wan(station(2), &ip6("2001:db8::2", "2001:db8::1", ipv6::GRE, bytes));
    let part = |id, offset, more, data: &[u8]| {
        let header = ipv6::Fragment::new(ipv6::GRE, offset, more, id);
        let bytes = [header.as_bytes(), data].concat();
        under.from_wan(station(2), &ip6("2001:db8::2", "2001:db8::1", ipv6::FRAGMENT, &bytes))
    };
    let multicast = ip6("fe80::1", "ff02::5", 89, b"x");
    let lan = |packet: &[u8]| under.from_lan(packet);
    match reason {
        DropReason::NoInterface => node.receive(1, &tagged(LAN, station(2), 7, &packet())),
        DropReason::InjectForbidden => node.inject(Origin::Twin(wan), &gre(42, gre::IPV6, b"x")),
        DropReason::NotForUs => node.receive(1, &frame(station(1), station(9), ethernet::IPV6, &packet())),
        DropReason::BadHeader => {
            let mut packet = packet();
            packet[5] += 1;
            node.receive(1, &lan(&packet));
        }
        DropReason::FragmentOverlap => node.receive(0, &part(7, 0, true, &[0; 9])),
        DropReason::ReassemblyFull => (0..17).for_each(|id| node.receive(0, &part(id, 0, true, &[0; 8]))),
        DropReason::ReassemblyTimeout => {
            node.receive(0, &part(7, 0, true, &[0; 8]));
            node.pass(Duration::from_secs(1));
            node.settle();
        }
        DropReason::ReassemblyTooBig => node.receive(0, &part(7, 0xfff8, false, &[0; 8])),
        DropReason::GreMalformed => node.receive(0, &raw_gre(&[0x40, 0, 8, 0, 0, 0, 0, 42])),
        DropReason::GreChecksum => node.receive(0, &raw_gre(&[0xa0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 42])),
        DropReason::GreNoTunnel => node.receive(0, &gre(43, gre::IPV6, &packet())),
        DropReason::GreProtocol => node.receive(0, &gre(42, ethernet::ARP, b"x")),
        DropReason::Congestion => {
            let outer = gre_packet("2001:db8::2", "2001:db8::1", Some(42), gre::IPV6, &packet());
            node.receive(0, &under.from_wan(station(2), &with_class(&outer, 3)));
        }
        DropReason::StaleIndex => node.inject(Origin::Twin(InterfaceId(99)), &packet()),
        DropReason::NoRoute => node.receive(1, &lan(&to("2001:db8:9::1"))),
        DropReason::Blackhole => {
            node.put([route("2001:db8:9::/48", Path::Blackhole)]);
            node.receive(1, &lan(&to("2001:db8:9::1")));
        }
        DropReason::Martian => node.receive(1, &lan(&to("::1"))),
        DropReason::Multicast => node.receive(0, &gre(42, gre::IPV6, &ip6(&remote, "ff05::5", 89, b"x"))),
        DropReason::Scope => node.receive(1, &lan(&udp6("fe80::9", &remote, b"x"))),
        DropReason::UnderlayTransit => node.receive(0, &under.from_wan(station(9), &packet())),
        DropReason::NbmaViaTunnel => {
            let destination = remote.parse().unwrap();
            node.inject(
                Origin::Control { tunnel: tun, destination, protocol_type: gre::NHRP, port: 0 },
                b"x",
            );
        }
        DropReason::NoReplica => node.inject(twin, &multicast),
        DropReason::ReplicateFull => {
            let link = Some(hop("wan", "2001:db8::2"));
            node.put((0..5000).map(|n| replica("tun", &format!("2001:db8:7::{n:x}"), link)));
            node.ports.inject.extend(
                (0..65).map(|_| forwarding::Injected { origin: twin, buf: TestBuf::new(&multicast) }),
            );
            node.settle();
        }
        DropReason::NoBuffer => {
            let link = Some(hop("wan", "2001:db8::2"));
            node.put(["2001:db8::2", "2001:db8::3"].map(|nbma| replica("tun", nbma, link)));
            node.ports.buffers = 0;
            node.inject(twin, &multicast);
        }
        DropReason::ParkFull => (0..65).for_each(|_| node.receive(1, &lan(&to("fd00:1::77")))),
        DropReason::Unresolved => {
            node.receive(1, &lan(&to("fd00:1::77")));
            node.pass(Duration::from_secs(1));
            node.settle();
        }
        DropReason::TtlExpired => node.receive(1, &lan(&with_ttl(&packet(), 1))),
        DropReason::TooBig => node.receive(1, &lan(&udp6(&host, &remote, &[0; 1400]))),
        DropReason::FragmentFull => {
            // 26 further pieces of each outer packet, and places for 768.
            let Object::Interface(wan) = interface("wan", "p0", false) else { panic!("an interface") };
            node.put([Object::Interface(Interface { mtu: 100, ..wan })]);
            let packet = lan(&udp6(&host, &remote, &[0; 1280 - 48]));
            node.ports.rx[1].extend((0..30).map(|_| TestBuf::new(&packet)));
            node.settle();
        }
        DropReason::NoHeadroom => {
            node.ports.rx[1].push_back(TestBuf::with_room(8, &lan(&packet()), 0));
            node.settle();
        }
        DropReason::HostUnreachable => node.receive(1, &lan(&to("fd00::9"))),
        DropReason::PuntFull => {
            node.ports.punt_room = 0;
            node.receive(1, &lan(&to("fd00:1::1")));
        }
        DropReason::TxFull => {
            node.ports.tx_room = 0;
            node.receive(1, &lan(&packet()));
        }
        // Of no family; and IPv6 has no checksum.
        DropReason::InjectFamily | DropReason::Runt | DropReason::BadChecksum => return false,
        _ => panic!("{reason}"),
    }
    true
}

const OVER_V6: Dual = Dual { over_v6: true, tagged: false };

#[test]
fn each_is_reached_in_ipv6_too_and_counted_once() {
    let mut others = Vec::new();
    for reason in of_clear() {
        let mut node = OVER_V6.hub(&[2], |_| {});
        if provoke_v6(&mut node, reason) {
            assert_eq!(node.drops(), [(reason, 1)], "{reason}");
            assert!(node.counters().flow().balances(), "{reason}");
        } else {
            others.push(reason);
        }
    }
    assert_eq!(others, [DropReason::InjectFamily, DropReason::Runt, DropReason::BadChecksum]);
}

#[test]
fn each_has_a_name_and_a_sentence_of_its_own() {
    let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len());
    for reason in DropReason::ALL {
        assert!(reason.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{reason}");
        assert!(reason.sentence().ends_with('.'), "{reason}");
    }
}

#[test]
fn everywhere_that_a_buffer_can_lack_it_is_missed() {
    // A redirect's copy, an ICMP error, a copy of multicast without tailroom for it.
    let mut node = hub(&[2, 3]);
    let mut redirecting = tunnel("tun", "192.0.2.1", "wan", Some(42));
    redirecting.redirect = true;
    node.put([Object::Tunnel(redirecting)]);
    node.ports.buffers = 0;
    node.receive(0, &tunnelled(gre::IPV4, &udp("10.1.2.9", "10.1.3.9", b"x")));
    assert_eq!((node.sent(0).len(), node.drops()), (1, vec![(DropReason::NoBuffer, 1)]));
    node.receive(1, &from_lan(&udp("10.1.0.2", "10.0.0.9", b"x")));
    assert_eq!(node.drops(), [(DropReason::NoBuffer, 2), (DropReason::HostUnreachable, 1)]);
    node.ports.buffers = usize::MAX;
    node.ports.punt_room = 0;
    node.receive(0, &tunnelled(gre::IPV4, &udp("10.1.2.8", "10.1.3.9", b"x")));
    assert_eq!(node.dropped(DropReason::PuntFull), 1);
}

#[test]
fn truncated_and_damaged_gre_is_refused_wherever_it_is_cut() {
    let whole = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet());
    for len in 20..whole.len() {
        let mut node = hub(&[2]);
        let (header, payload) = ipv4::parse(&whole).unwrap();
        let cut = &payload[..len - 20];
        let outer = ip(&header.source().to_string(), "192.0.2.1", ipv4::GRE, cut);
        node.receive(0, &from_wan(&outer));
        let reason = if len < 28 { DropReason::GreMalformed } else { DropReason::BadHeader };
        assert_eq!(node.drops(), [(reason, 1)], "{len}");
    }
}
