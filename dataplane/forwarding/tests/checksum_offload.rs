//! Ports that check IPv4 headers, and those that do not: what is forwarded, dropped and counted is the same.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use forwarding::{DropReason, Node};
use lab::*;
use wire::buf::TestBuf;
use wire::{ethernet, gre, ipv4};

/// A frame of the LAN (port 1) or of the underlay, and whether its header is right.
struct Arrival {
    port: usize,
    frame: Vec<u8>,
    right: bool,
}

/// With options: the general path.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut longer = [&packet[..ipv4::LEN], &[1, 1, 1, 0], &packet[ipv4::LEN..]].concat();
    longer[0] = 0x46;
    let total = u16::try_from(longer.len()).unwrap();
    longer[2..4].copy_from_slice(&total.to_be_bytes());
    longer[10..12].fill(0);
    let sum = wire::checksum::checksum(&longer[..ipv4::LEN + 4]);
    longer[10..12].copy_from_slice(&sum.to_be_bytes());
    longer
}

/// Packets to be forwarded, encapsulated and decapsulated, to ourselves and of a length that is not there, each also with a bit of any byte
/// of its header changed.
fn arrivals() -> Vec<Arrival> {
    let inner = udp("10.1.2.9", "10.1.0.2", b"inner");
    let mut short = udp("10.1.0.2", "10.1.0.9", b"more is told than there is");
    short.truncate(30);
    let plain = [
        (1, udp("10.1.0.2", "10.1.2.9", b"encapsulated")),
        (1, udp("10.1.0.2", "10.1.0.1", b"for us")),
        (1, udp("10.1.0.2", "203.0.113.1", b"no route")),
        (1, with_options(&udp("10.1.0.2", "10.1.2.9", b"options"))),
        (1, short),
        (0, gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner)),
        (0, ip("192.0.2.2", "192.0.2.1", ipv4::ESP, &[7; 60])),
    ];
    let mut all = Vec::new();
    for (port, packet) in plain {
        let frame = |packet: &[u8]| match port {
            0 => frame(WAN, station(2), ethernet::IPV4, packet),
            _ => frame(LAN, station(9), ethernet::IPV4, packet),
        };
        all.push(Arrival { port, frame: frame(&packet), right: true });
        for at in 0..ipv4::LEN {
            let mut packet = packet.clone();
            packet[at] ^= 1 << (at % 8);
            all.push(Arrival { port, frame: frame(&packet), right: false });
        }
    }
    all
}

/// What a port says of a packet that is right.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Port {
    ChecksNothing,
    /// It says so of each, or of every other.
    Checks(Says),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    All,
    EveryOther,
}

/// What leaves by each port, what is punted, drops, and packets of each node.
type Result = (Vec<Vec<Vec<u8>>>, Vec<Vec<u8>>, Vec<(DropReason, u64)>, Vec<u64>);

fn result(port: Port) -> Result {
    let mut hub = hub(&[2]);
    hub.ports.checks_ipv4 = port != Port::ChecksNothing;
    for (number, Arrival { port: at, frame, right }) in arrivals().into_iter().enumerate() {
        let says = match port {
            Port::ChecksNothing => false,
            Port::Checks(Says::All) => right,
            Port::Checks(Says::EveryOther) => right && number % 2 == 0,
        };
        let buf = TestBuf::new(&frame);
        hub.ports.rx[at].push_back(if says { buf.ipv4_summed() } else { buf });
    }
    hub.settle();
    let sent = (0..2).map(|port| hub.sent(port)).collect();
    let punted = hub.punted().into_iter().map(|(_, bytes)| bytes).collect();
    let nodes = Node::ALL.iter().map(|node| hub.program.node(*node).packets).collect();
    (sent, punted, hub.drops(), nodes)
}

#[test]
fn a_port_that_checks_headers_changes_no_result() {
    let without = result(Port::ChecksNothing);
    let drops: std::collections::BTreeMap<_, _> =
        without.2.iter().map(|(reason, count)| (reason.name(), *count)).collect();
    assert!(drops["bad-checksum"] > 80 && drops["bad-header"] > 10, "{drops:?}");
    assert!(without.0.iter().all(|sent| !sent.is_empty()) && !without.1.is_empty());
    for says in [Says::All, Says::EveryOther] {
        assert_eq!(result(Port::Checks(says)), without, "{says:?}");
    }
}

/// Input: a wrong checksum that the buffer says is right. Output: forwarded where the port is one that checks, so the header is not summed
/// twice; dropped where it is not one: what the buffer says is then of somebody else.
#[test]
fn what_the_port_found_right_is_not_summed_again() {
    let mut packet = udp("10.1.0.2", "10.1.2.9", b"x");
    packet[10] ^= 0x40;
    let frame = frame(LAN, station(9), ethernet::IPV4, &packet);
    for (checks, forwarded) in [(true, 1), (false, 0)] {
        let mut hub = hub(&[2]);
        hub.ports.checks_ipv4 = checks;
        hub.ports.rx[1].push_back(TestBuf::new(&frame).ipv4_summed());
        hub.settle();
        assert_eq!(hub.sent(0).len(), forwarded, "{checks}");
        assert_eq!(hub.dropped(DropReason::BadChecksum), 1 - forwarded as u64);
    }
}
