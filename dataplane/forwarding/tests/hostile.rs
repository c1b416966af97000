//! Whatever arrives: the law holds, no buffer is lost or used twice, and what leaves is well formed.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

mod lab;

use std::time::Duration;

use forwarding::{CaptureOrder, Command, Injected, Node, Origin, Tap, TraceOrder};
use lab::esp::{Guard, PLAIN, Peer, gre_bytes, is_covered};
use lab::*;
use model::program::{OuterDf, Path};
use wire::buf::TestBuf;
use wire::{gre, icmp, icmpv6, ipv4, ipv6};
use zerocopy::IntoBytes;

/// Numbers that look random and are the same each time (Marsaglia's xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }

    /// A payload, mostly small.
    fn payload(&mut self) -> Vec<u8> {
        let most = *self.pick(&[8, 64, 600, 1300, 1460, 2800]);
        let len = self.roll(most);
        vec![self.roll(256) as u8; len]
    }

    /// An IP packet of someone to someone.
    fn inner(&mut self, v6: bool) -> Vec<u8> {
        let addresses: &[&str] = if v6 {
            &[
                "fd00:1::2",
                "fd00:1:2::9",
                "fd00:1:3::9",
                "fd00::99",
                "fd00:1::1",
                "fd00::1",
                "fe80::9",
                "ff02::1",
                "fd77::1",
                "2001:db8::1",
                "fd00:1::77",
                "::1",
                "fd88::1",
            ]
        } else {
            &[
                "10.1.0.2",
                "10.1.2.9",
                "10.1.3.9",
                "10.0.0.99",
                "10.1.0.1",
                "10.0.0.1",
                "224.0.0.5",
                "239.1.1.1",
                "203.0.113.1",
                "192.0.2.1",
                "10.1.0.77",
                "127.0.0.1",
                "198.18.0.1",
            ]
        };
        let (from, to) = (*self.pick(addresses), *self.pick(addresses));
        let mut packet = match self.roll(6) {
            0 => tcp_packet(from, to, *self.pick(&[2, 0x12, 0x10]), 1460),
            1 => {
                let protocol = *self.pick(&[
                    ipv4::ICMP,
                    ipv6::ICMPV6,
                    ipv6::FRAGMENT,
                    ipv6::ROUTING,
                    ipv6::HOP_BY_HOP,
                    0x2f,
                    60,
                    51,
                ]);
                any_ip(from, to, protocol, &self.payload())
            }
            _ => any_udp(from, to, &self.payload()),
        };
        if self.chance(4) {
            let ttl = self.roll(3) as u8;
            packet[if v6 { 7 } else { 8 }] = ttl;
        }
        if self.chance(3) {
            packet = with_class(&packet, self.roll(256) as u8);
        }
        if !v6 {
            if self.chance(3) {
                let flags = *self.pick(&[0x4000, 0x2000, 0x2001, 0x00b9, 0x8000]) as u16;
                packet[6..8].copy_from_slice(&flags.to_be_bytes());
            }
            packet = options(self, packet);
        }
        packet
    }

    /// An inner packet in GRE to the hub, whole or in pieces.
    fn outer(&mut self, under: &Dual) -> Vec<Vec<u8>> {
        let v6 = self.chance(2);
        let inner = self.inner(v6);
        let key = *self.pick(&[Some(42), Some(42), Some(42), None, Some(43)]);
        let mut protocol = ethertype(&inner);
        if self.chance(10) {
            protocol = *self.pick(&[gre::NHRP, gre::IPV4, gre::IPV6, 0x6558]);
        }
        let peer = *self.pick(&[2_u8, 3, 77]);
        let mut header = vec![0; gre::len(key)];
        gre::write(&mut header, protocol, key).unwrap();
        let gre = [header, inner].concat();
        let (from, to) = (under.nbma(peer), under.nbma(1));
        if !self.chance(3) {
            return vec![any_ip(&from, &to, ipv4::GRE, &gre)];
        }
        // Pieces of any size at places that need not be right.
        let id = self.roll(4) as u16;
        let mut parts = Vec::new();
        let step = (1 + self.roll(1 + gre.len() / 8)) * 8;
        let mut at = 0;
        while at < gre.len() {
            let end = (at + step).min(gre.len());
            let mut place = at as u16;
            if self.chance(40) {
                place = (self.roll(8192) * 8) as u16;
            }
            let more = end < gre.len() || self.chance(40);
            if under.over_v6 {
                let part = ipv6::Fragment::new(ipv6::GRE, place, more, id.into());
                let mut payload = [part.as_bytes(), &gre[at..end]].concat();
                let mut kind = ipv6::FRAGMENT;
                if self.chance(8) {
                    payload = [&[kind, 0, 1, 4, 0, 0, 0, 0][..], &payload].concat();
                    kind = ipv6::DESTINATION_OPTIONS;
                }
                parts.push(any_ip(&from, &to, kind, &payload));
            } else {
                let mut packet = any_ip(&from, &to, ipv4::GRE, &gre[at..end]);
                let flags = (place / 8) | if more { ipv4::MORE_FRAGMENTS } else { 0 };
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8].copy_from_slice(&flags.to_be_bytes());
                parts.push(options(self, packet));
            }
            at = end;
        }
        if self.chance(2) {
            let (a, b) = (self.roll(parts.len()), self.roll(parts.len()));
            parts.swap(a, b);
        }
        if self.chance(5) {
            parts.pop();
        }
        if self.chance(8)
            && let Some(first) = parts.first()
        {
            parts.push(first.clone());
        }
        parts
    }

    /// Frames of the underlay or of the LAN.
    fn frames(&mut self, under: &Dual, port: usize) -> Vec<Vec<u8>> {
        let packets = match (port, self.roll(8)) {
            (0, 0) => vec![self.path_mtu(under)],
            (0, 1..6) => self.outer(under),
            _ => {
                let v6 = self.chance(2);
                vec![self.inner(v6)]
            }
        };
        let mut frames: Vec<_> = packets
            .iter()
            .map(|packet| if port == 0 { under.from_wan(station(2), packet) } else { under.from_lan(packet) })
            .collect();
        for frame in &mut frames {
            if self.chance(6) {
                let at = self.roll(frame.len().min(110));
                frame[at] ^= 1 << self.roll(8);
            }
            if self.chance(30) {
                frame.truncate(self.roll(frame.len()));
            }
            if self.chance(10) {
                frame.extend([0x45; 20]);
            }
        }
        frames
    }

    /// What a router says about a packet of ours, or claims to.
    fn path_mtu(&mut self, under: &Dual) -> Vec<u8> {
        let (local, peer) = (under.nbma(1), under.nbma(2));
        let mut header = vec![0; 8];
        gre::write(&mut header, gre::IPV4, Some(42)).unwrap();
        let ours = any_ip(&local, &peer, ipv4::GRE, &[header, vec![0; 1380]].concat());
        let quoted = &ours[..self.roll(200)];
        let mtu = self.roll(1600);
        if under.over_v6 {
            let error = icmpv6::Header::packet_too_big(mtu as u32);
            icmpv6::packet(addr6("2001:db8::77"), addr6(&local), 64, 0, error, quoted).unwrap()
        } else {
            let error = icmp::Header::fragmentation_needed(mtu as u16);
            icmp::packet(addr("192.0.2.77"), addr(&local), 64, 0, error, quoted).unwrap()
        }
    }
}

/// Some options, right or not, and the checksum.
fn options(dice: &mut Dice, mut packet: Vec<u8>) -> Vec<u8> {
    if dice.chance(6) {
        let words = 1 + dice.roll(10);
        let kind = *dice.pick(&[1_u8, 7, 131, 0]);
        let mut list = vec![kind; words * 4];
        if kind > 1 {
            list[1] = (words * 4) as u8;
            list[2] = 4;
        }
        packet.splice(20..20, list);
        packet[0] = 0x45 + words as u8;
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    }
    summed(packet)
}

/// What leaves by a port is a frame with an IP packet in it whose length and checksum are right, no larger than the link takes.
fn check_sent(under: &Dual, port: usize, frame: &[u8]) {
    let (tag, packet) = open_frame(frame);
    assert_eq!(tag, under.vlan(port), "{frame:02x?}");
    check_packet(&packet, 1500);
    let gre = match packet[0] >> 4 {
        4 => ipv4::parse(&packet)
            .ok()
            .filter(|(header, _)| header.protocol == ipv4::GRE && !header.is_fragment()),
        _ => None,
    };
    let over_v6 = ipv6::parse(&packet).ok().filter(|(header, _)| header.next_header == ipv6::GRE);
    // Some of what the LAN gets says that it is GRE.
    if port == 0
        && let Some(payload) = gre.map(|(_, payload)| payload).or(over_v6.map(|(_, payload)| payload))
    {
        let (fields, inner) = gre::parse(payload).unwrap();
        assert_eq!(fields.key, Some(42));
        if fields.protocol != gre::NHRP {
            assert_eq!(fields.protocol, ethertype(inner));
            check_packet(inner, 1476);
        }
    }
}

fn check_packet(packet: &[u8], most: usize) {
    assert!(packet.len() <= most, "{} {packet:02x?}", packet.len());
    if packet[0] >> 4 == 6 {
        let (header, payload) = ipv6::parse(packet).unwrap();
        assert_eq!(ipv6::LEN + payload.len(), packet.len(), "{packet:02x?}");
        assert!(header.hop_limit > 0);
    } else {
        let (header, _) = ipv4::parse(packet).unwrap();
        assert_eq!(usize::from(header.total_length()), packet.len(), "{packet:02x?}");
        ipv4::verify(packet).unwrap();
        assert!(header.ttl > 0);
    }
}

fn node(under: &Dual, dice: &mut Dice) -> TestNode {
    let mtu = *dice.pick(&[1400, 1400, 1476, 700, 1240]);
    let df = *dice.pick(&[OuterDf::Copy, OuterDf::Set, OuterDf::Clear]);
    let redirect = dice.chance(2);
    let mut node = under.hub(&[2, 3], |tunnel| {
        (tunnel.mtu, tunnel.outer_df, tunnel.redirect) = (mtu, df, redirect);
    });
    let balanced = |v6: bool| {
        let mut hops =
            [2, 3, 4].map(|n| hop("tun", &if v6 { format!("fd00::{n}") } else { format!("10.0.0.{n}") }));
        hops.sort();
        Path::Balanced(hops.into())
    };
    node.put([
        route("203.0.113.0/24", balanced(false)),
        route("fd77::/64", balanced(true)),
        route("198.18.0.0/24", Path::Unreachable),
        route("fd88::/64", Path::Unreachable),
        replica("tun", &under.nbma(2), Some(hop("wan", &under.nbma(2)))),
        replica("tun", &under.nbma(3), Some(hop("wan", &under.nbma(3)))),
        replica("tun", &under.nbma(9), Some(hop("wan", &under.nbma(9)))),
    ]);
    if dice.chance(2) {
        node.put([fallback("tun", "10.0.0.2")]);
    }
    node
}

/// Bursts of frames, packets from above and want of buffers; all that came has gone in the end.
fn survives(under: &Dual, seed: u64, rounds: usize) {
    let mut dice = Dice(seed);
    let mut node = node(under, &mut dice);
    let (mut came, mut went) = (0, 0);
    let mut given = 0;
    for round in 0..rounds {
        if dice.chance(20) {
            let order =
                CaptureOrder { at: Tap::Node(*dice.pick(&Node::ALL)), packets: 0, snap: 0, only: None };
            node.ports.commands.push_back(Command::Capture(Some(order)));
            node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 9, only: None }));
        }
        if dice.chance(50) {
            let link = neighbour("wan", &under.nbma(3), station(3));
            if dice.chance(2) { node.remove(&link) } else { node.put([link]) }
        }
        for port in 0..2 {
            let most = *dice.pick(&[1, 5, 40, 150]);
            for _ in 0..dice.roll(most) {
                for frame in dice.frames(under, port) {
                    came += 1;
                    // Some buffers are roomy, as those of the data plane are, and some are not.
                    let (head, tail) = *dice.pick(&[(128, 8000), (128, 8000), (128, 0), (20, 100)]);
                    node.ports.rx[port].push_back(TestBuf::with_room(head, &frame, tail));
                }
            }
        }
        for _ in 0..dice.roll(6) {
            came += 1;
            let (tunnel, v6) = (node.id("tun"), dice.chance(2));
            let (origin, bytes) = if dice.chance(3) {
                let nbma = under.nbma(*dice.pick(&[2, 9, 1]));
                let destination = nbma.parse().unwrap();
                (Origin::Control { tunnel, destination, protocol_type: gre::NHRP, port: 0 }, dice.payload())
            } else {
                (Origin::Twin(tunnel), dice.inner(v6))
            };
            let size = bytes.len();
            if size < 1400 || matches!(origin, Origin::Twin(_)) {
                node.ports.inject.push_back(Injected { origin, buf: TestBuf::new(&bytes) });
            } else {
                came -= 1;
            }
        }
        let scarce = dice.chance(5);
        let before = if scarce { dice.roll(20) } else { 1 << 30 };
        node.ports.buffers = before;
        node.ports.punt_room = if dice.chance(10) { 3 } else { usize::MAX };
        node.ports.tx_room = if dice.chance(10) { 3 } else { usize::MAX };
        for _ in 0..=dice.roll(3) {
            node.breathe();
        }
        given += before - node.ports.buffers;
        if dice.chance(10) {
            let time = Duration::from_millis(dice.roll(1500) as u64);
            node.pass(time);
        }
        for port in 0..2 {
            for frame in node.sent(port) {
                went += 1;
                check_sent(under, port, &frame);
            }
        }
        went += node.punted().len();
        node.worker.take_trace();
        node.worker.take_captured();
        node.ports.notices.clear();
        assert!(node.ports.rx[0].len() < 1 << 20, "{round}");
    }
    (node.ports.buffers, node.ports.punt_room, node.ports.tx_room) = (1 << 30, usize::MAX, usize::MAX);
    node.pass(Duration::from_secs(2));
    node.settle();
    node.pass(Duration::from_secs(2));
    while node.breathe().waiting > 0 {}
    node.settle();
    given += (1 << 30) - node.ports.buffers;
    assert_eq!(node.breathe().waiting, 0);
    went += node.sent(0).len() + node.sent(1).len() + node.punted().len() + node.ports.freed;
    assert_eq!(came + given, went, "buffers: {:?}", node.drops());
    // It is not that all was refused at the door.
    let counters = node.counters();
    for reached in [
        Node::Reassemble,
        Node::Fragment,
        Node::Midchain,
        Node::Rewrite,
        Node::Glean,
        Node::Replicate,
        Node::IcmpError,
    ] {
        assert!(counters.node(reached).packets > 0, "{reached}");
    }
}

#[test]
fn whatever_the_twins_of_ports_send_no_buffer_is_lost() {
    for (at, under) in Dual::ALL.iter().enumerate() {
        let mut dice = Dice(at as u64 + 77);
        let mut node = node(under, &mut dice);
        let mut came = 0;
        for _ in 0..2000 {
            let port = dice.roll(2);
            for frame in dice.frames(under, port) {
                let head = *dice.pick(&[128, 128, 2]);
                let buf = TestBuf::with_room(head, &frame, 0);
                let origin = Origin::Twin(node.id(["wan", "lan"][port]));
                node.ports.inject.push_back(Injected { origin, buf });
                came += 1;
            }
            node.settle();
        }
        assert_eq!(came, node.sent(0).len() + node.sent(1).len() + node.ports.freed);
    }
}

#[test]
fn whatever_arrives_the_law_holds_and_what_leaves_is_well_formed() {
    for (at, under) in Dual::ALL.iter().enumerate() {
        for seed in 1..=3 {
            survives(under, (at as u64 + 1) << 32 | (seed * 0x9e37_79b9), 150);
        }
    }
}

#[test]
fn a_bit_that_is_wrong_anywhere_in_esp_is_refused_and_moves_no_window() {
    for guard in [PLAIN, Guard { esn: false, port: 4500, over_v6: true, ..PLAIN }] {
        let (mut node, mut peer) = (guard.hub(&[2]), guard.peer(2));
        let sealed = peer.seal(&udp("10.1.2.9", "10.1.0.2", b"a payload"));
        let start = if guard.over_v6 { 14 + 40 + 8 } else { 14 + 20 };
        let bits = (sealed.len() - start) * 8;
        for bit in 0..bits {
            let mut forged = sealed.clone();
            forged[start + bit / 8] ^= 1 << (bit % 8);
            node.receive(0, &forged);
        }
        let dropped: u64 = node.drops().iter().map(|(_, count)| count).sum();
        assert_eq!((node.sent(1).len(), dropped), (0, bits as u64), "{:?}", node.drops());
        node.receive(0, &sealed);
        assert_eq!(node.sent(1).len(), 1, "the window has not moved");
    }
}

impl Dice {
    /// What may stand where ESP does, or does: authentic or not, whole or in pieces.
    fn sealed(&mut self, guard: &Guard, peer: &mut Peer) -> Vec<Vec<u8>> {
        let v6 = self.chance(2);
        let inner = self.inner(v6);
        peer.sequence += 1;
        let gre = gre_bytes(Some(42), ethertype(&inner), &inner);
        match self.roll(9) {
            // Old, and from far ahead.
            0 => vec![peer.seal_as(peer.sequence.saturating_sub(self.roll(200) as u64), &inner)],
            1 => {
                peer.sequence += (self.roll(2) << self.roll(34)) as u64;
                vec![peer.seal(&inner)]
            }
            // Authentic, and nonsense: any text, any trailer.
            2 => {
                let len = self.roll(120);
                let text = (0..len).map(|_| *self.pick(&[0, 1, 2, 3, 4, 41, 47, 0x45, 0x60, 0xff])).collect();
                vec![peer.seal_bytes(peer.sequence, text)]
            }
            3 => {
                let (kind, more) = (*self.pick(&[4, 41, 47, 59, 17]), self.roll(60));
                let text = if self.chance(2) { gre } else { inner };
                vec![peer.seal_text(peer.sequence, &text, kind, more)]
            }
            // Not authentic: anything behind an SPI that is somebody's.
            4 => {
                let len = self.roll(100);
                let mut bytes: Vec<u8> = (0..len).map(|_| self.roll(256) as u8).collect();
                if let Some(spi) = bytes.first_chunk_mut::<4>() {
                    *spi = (*self.pick(&[lab::esp::in_spi(2).value(), 0x4000_0001, 7])).to_be_bytes();
                }
                vec![peer.framed(&bytes)]
            }
            // In pieces, not all of them there or in order.
            5 => {
                let outer = open_frame(&peer.seal(&inner)).1;
                let protocol = if guard.port == 0 { ipv4::ESP } else { ipv4::UDP };
                let data = &outer[if guard.over_v6 { 40 } else { 20 }..];
                let step = (1 + self.roll(1 + data.len() / 8)) * 8;
                let id = self.roll(4) as u16;
                let count = data.len().div_ceil(step);
                let mut parts: Vec<_> = (0..count)
                    .map(|at| {
                        let (start, end) = (at * step, ((at + 1) * step).min(data.len()));
                        let (from, to) = (guard.under().nbma(peer.spoke), guard.under().nbma(1));
                        let more = at + 1 < count;
                        let packet = if guard.over_v6 {
                            let header = ipv6::Fragment::new(protocol, start as u16, more, id.into());
                            any_ip(
                                &from,
                                &to,
                                ipv6::FRAGMENT,
                                &[header.as_bytes(), &data[start..end]].concat(),
                            )
                        } else {
                            let mut packet = any_ip(&from, &to, protocol, &data[start..end]);
                            let flags = (start / 8) as u16 | if more { ipv4::MORE_FRAGMENTS } else { 0 };
                            packet[4..6].copy_from_slice(&id.to_be_bytes());
                            packet[6..8].copy_from_slice(&flags.to_be_bytes());
                            options(self, packet)
                        };
                        guard.under().from_wan(station(peer.spoke), &packet)
                    })
                    .collect();
                if self.chance(3) {
                    parts.swap(0, count - 1);
                }
                if self.chance(4) {
                    parts.pop();
                }
                parts
            }
            _ => vec![peer.seal(&inner)],
        }
    }
}

#[test]
fn whatever_comes_as_esp_no_buffer_is_lost_and_nothing_leaves_in_the_clear() {
    for (at, guard) in Guard::all().into_iter().enumerate() {
        let mut dice = Dice(at as u64 * 77 + 5);
        let mut node = guard.hub(&[2, 3]);
        node.put([fallback("tun", "10.0.0.3")]);
        let mut peers = [guard.peer(2), guard.peer(3)];
        let (mut came, mut went, mut given, mut damaged) = (0, 0, 0, 0);
        for _ in 0..60 {
            for _ in 0..dice.roll(80) {
                let peer = &mut peers[dice.roll(2)];
                let mut frames = match dice.roll(8) {
                    0 => dice.frames(&guard.under(), 0),
                    _ => dice.sealed(&guard, peer),
                };
                for frame in &mut frames {
                    if dice.chance(8) && !frame.is_empty() {
                        let at = dice.roll(frame.len());
                        frame[at] ^= 1 << dice.roll(8);
                        damaged += 1;
                    }
                    if dice.chance(20) && !frame.is_empty() {
                        frame.truncate(dice.roll(frame.len()));
                    }
                    came += 1;
                    let (head, tail) = *dice.pick(&[(128, 4000), (128, 4000), (128, 0), (60, 30)]);
                    node.ports.rx[0].push_back(TestBuf::with_room(head, frame, tail));
                }
            }
            for frame in (0..dice.roll(20)).flat_map(|_| dice.frames(&guard.under(), 1)).collect::<Vec<_>>() {
                came += 1;
                let (head, tail) = *dice.pick(&[(128, 4000), (128, 0), (60, 30)]);
                node.ports.rx[1].push_back(TestBuf::with_room(head, &frame, tail));
            }
            let before = if dice.chance(5) { dice.roll(20) } else { 1 << 30 };
            node.ports.buffers = before;
            for _ in 0..=dice.roll(3) {
                node.breathe();
            }
            given += before - node.ports.buffers;
            if dice.chance(10) {
                node.pass(Duration::from_millis(700));
            }
            for frame in node.sent(0) {
                went += 1;
                assert!(is_covered(&frame), "{frame:02x?}");
                check_sent(&guard.under(), 0, &frame);
            }
            for frame in node.sent(1) {
                went += 1;
                check_sent(&guard.under(), 1, &frame);
            }
            went += node.punted().len();
            node.ports.notices.clear();
        }
        node.ports.buffers = 1 << 30;
        node.pass(Duration::from_secs(2));
        node.settle();
        node.pass(Duration::from_secs(2));
        while node.breathe().waiting > 0 {}
        node.settle();
        given += (1 << 30) - node.ports.buffers;
        went += node.sent(0).len() + node.sent(1).len() + node.punted().len() + node.ports.freed;
        assert_eq!(came + given, went, "buffers: {:?}", node.drops());
        // It is not that all was refused at the door.
        let counters = node.counters();
        assert!(damaged > 50);
        for reached in [Node::Reassemble, Node::EspDecrypt, Node::GreDecap, Node::EspEncrypt, Node::Rewrite] {
            assert!(counters.node(reached).packets > 20, "{reached}");
        }
        for reason in [
            forwarding::DropReason::BadIcv,
            forwarding::DropReason::NoSa,
            forwarding::DropReason::Replayed,
            forwarding::DropReason::EspMalformed,
            forwarding::DropReason::UnprotectedIn,
        ] {
            assert!(node.dropped(reason) > 0, "{reason} {:?}", node.drops());
        }
    }
}
