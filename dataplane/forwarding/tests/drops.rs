//! Every reason to drop a packet is reached, by a packet that deserves it and counted once.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::time::Duration;

use forwarding::{DropReason, InterfaceId, Origin};
use lab::*;
use model::program::{Object, Path};
use wire::buf::TestBuf;
use wire::{ethernet, gre, ipv4};
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
        DropReason::InjectFamily => node.inject(twin, &[0x60; 40]),
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
        DropReason::GreFragment => {
            let packet = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet());
            let (header, payload) = ipv4::parse(&packet).unwrap();
            node.receive(
                0,
                &from_wan(&[header.with_flags(ipv4::MORE_FRAGMENTS).as_bytes(), payload].concat()),
            );
        }
        DropReason::GreMalformed => node.receive(0, &raw_gre(&[0x40, 0, 8, 0, 0, 0, 0, 42])),
        DropReason::GreChecksum => node.receive(0, &raw_gre(&[0xa0, 0, 8, 0, 1, 2, 0, 0, 0, 0, 0, 42])),
        DropReason::GreNoTunnel => {
            node.receive(0, &from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(43), gre::IPV4, &packet())));
        }
        DropReason::GreProtocol => node.receive(0, &tunnelled(gre::IPV6, b"x")),
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
            let destination = addr("10.1.2.9");
            node.inject(Origin::Control { tunnel: tun, destination, protocol_type: gre::NHRP }, b"x");
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
        DropReason::TooBig => node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.2.9", &[0; 1400]))),
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
    }
}

#[test]
fn each_is_reached_and_counted_once() {
    for reason in DropReason::ALL {
        let mut node = hub(&[2]);
        provoke(&mut node, reason);
        assert_eq!(node.drops(), [(reason, 1)], "{reason}");
        assert_eq!(node.program.node(forwarding::Node::Drop).packets, 1, "{reason}");
        assert!(node.counters().flow().balances(), "{reason}");
    }
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
