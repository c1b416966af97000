//! Packets that are too large, and packets that come in parts: what is cut, what is put together, and what routers say of paths.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::net::IpAddr;
use std::ops::Range;
use std::slice;
use std::time::Duration;

use forwarding::{DropReason, Node, Notice, Punt};
use lab::*;
use model::program::Object;
use wire::buf::TestBuf;
use wire::{ethernet, gre, icmp, icmpv6, ipv4, ipv6};
use zerocopy::IntoBytes;

/// A payload in which every byte's place can be seen.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// The fragments of a packet of either family, with these parts of its data, in bytes.
fn parts(packet: &[u8], ranges: &[Range<usize>]) -> Vec<Vec<u8>> {
    ranges.iter().map(|range| part(packet, range.clone())).collect()
}

fn part(packet: &[u8], range: Range<usize>) -> Vec<u8> {
    let offset = range.start as u16;
    if packet[0] >> 4 == 6 {
        let (header, payload) = ipv6::parse(packet).unwrap();
        let fragment = ipv6::Fragment::new(header.next_header, offset, range.end < payload.len(), 99);
        let data = [fragment.as_bytes(), &payload[range]].concat();
        let head = ipv6::Header::new(header.source(), header.destination(), ipv6::FRAGMENT, 64, data.len());
        return [head.unwrap().as_bytes(), &data].concat();
    }
    let (header, payload) = ipv4::parse(packet).unwrap();
    let more = if range.end < payload.len() { ipv4::MORE_FRAGMENTS } else { 0 };
    let (from, to) = (header.source(), header.destination());
    let head = ipv4::Header::new(from, to, header.protocol, header.ttl, range.len()).unwrap();
    [head.with_id(99).with_flags(more | (offset / 8)).as_bytes(), &payload[range]].concat()
}

/// Puts the fragments of one packet together, whatever their order, by the plainest rules.
fn whole(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut header = Vec::new();
    for fragment in fragments {
        let (offset, head, payload) = if fragment[0] >> 4 == 6 {
            let part = ipv6::upper(fragment).unwrap().part.unwrap();
            let mut head = fragment[..part.at].to_vec();
            head[part.named_at] = part.next_header;
            (usize::from(part.offset), head, &fragment[part.at + 8..])
        } else {
            ipv4::verify(fragment).unwrap();
            let (header, payload) = ipv4::parse(fragment).unwrap();
            let fixed = header.with_flags(0).as_bytes().to_vec();
            (usize::from(header.fragment_offset()), fixed, payload)
        };
        data.resize(data.len().max(offset + payload.len()), 0xee);
        data[offset..offset + payload.len()].copy_from_slice(payload);
        if offset == 0 {
            header = head;
        }
    }
    if header[0] >> 4 == 6 {
        header[4..6].copy_from_slice(&(data.len() as u16).to_be_bytes());
        return [header, data].concat();
    }
    let (fixed, _) = ipv4::parse(&fragments[0]).unwrap();
    let fixed = ipv4::Header::new(fixed.source(), fixed.destination(), fixed.protocol, fixed.ttl, data.len());
    let id = u16::from_be_bytes([header[4], header[5]]);
    [fixed.unwrap().with_id(id).with_tos(header[1]).as_bytes(), &data].concat()
}

/// A frame in a buffer like those of a port: whatever comes in it, there is room for 2,048 bytes.
fn in_buffer(frame: &[u8]) -> TestBuf {
    TestBuf::with_room(128, frame, 2048_usize.saturating_sub(frame.len()))
}

fn receive_fragment(node: &mut TestNode, port: usize, frame: &[u8]) {
    node.ports.rx[port].push_back(in_buffer(frame));
    node.settle();
}

fn from_lan(packet: &[u8]) -> Vec<u8> {
    frame(LAN, station(2), ethertype(packet), packet)
}

fn from_wan(packet: &[u8]) -> Vec<u8> {
    frame(WAN, station(2), ethertype(packet), packet)
}

/// The packets within the frames that the hub sent into the underlay.
fn inner(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| open_tunnel(frame).3).collect()
}

#[test]
fn what_is_too_large_for_a_tunnel_and_may_be_cut_is_cut_and_arrives() {
    let mut node = hub(&[2]);
    for len in [1371, 1372, 1373, 1400, 1472] {
        let packet = udp("10.1.0.2", "10.1.2.9", &pattern(len));
        node.receive(1, &from_lan(&packet));
        let sent = inner(&node.sent(0));
        // The tunnel takes 1,400 bytes, of which 1,376 are data of a piece that is not the last.
        let (pieces, first) = if packet.len() > 1400 { (2, 1396) } else { (1, packet.len()) };
        assert_eq!((sent.len(), sent[0].len()), (pieces, first), "{len}");
        assert_eq!(whole(&sent), with_ttl(&packet, 63), "{len}");
    }
    let flow = node.counters().flow();
    assert_eq!((flow.split, node.drops()), (3, vec![]));
    assert_eq!(node.program.node(Node::Fragment).packets, 3);
}

#[test]
fn what_is_too_large_for_a_port_is_cut_and_a_fragment_again() {
    let mut node = hub(&[2]);
    let Object::Interface(mut lan) = interface("lan", "p1", true) else { panic!("an interface") };
    lan.mtu = 600;
    node.put([Object::Interface(lan)]);
    // A packet that came by the tunnel in three fragments of its own.
    let packet = udp("10.1.2.9", "10.1.0.2", &pattern(3000));
    let fragments = parts(&packet, &[0..1200, 1200..2400, 2400..3008]);
    for fragment in &fragments {
        node.receive(0, &from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, fragment)));
    }
    let sent: Vec<_> = node.sent(1).iter().map(|frame| frame[14..].to_vec()).collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [596, 596, 68, 596, 596, 68, 596, 52]);
    let mut expected = with_ttl(&packet, 63);
    expected[4..6].copy_from_slice(&99_u16.to_be_bytes());
    let whole = whole(&sent);
    assert_eq!((&whole[20..], &whole[4..6], whole[8]), (&expected[20..], &expected[4..6], 63));
    assert_eq!((node.counters().flow().split, node.drops()), (5, vec![]));
}

#[test]
fn a_packet_whose_time_ends_is_not_cut_first() {
    let mut node = hub(&[2]);
    let packet = with_ttl(&udp("10.1.0.2", "10.1.2.9", &pattern(1472)), 1);
    node.receive(1, &from_lan(&packet));
    let [error] = &node.sent(1)[..] else { panic!("one error") };
    let (_, message) = ipv4::parse(&error[14..]).unwrap();
    let (error, quoted) = icmp::parse(message).unwrap();
    assert_eq!((error.kind, quoted), (icmp::TIME_EXCEEDED, &packet[..icmp::QUOTED]));
    assert_eq!((node.sent(0).len(), node.drops()), (0, vec![(DropReason::TtlExpired, 1)]));
}

#[test]
fn pieces_of_many_packets_all_arrive_in_order() {
    let mut node = hub(&[2]);
    let numbered = |n: u16| {
        let packet = udp("10.1.0.2", "10.1.2.9", &pattern(1472));
        let (header, payload) = ipv4::parse(&packet).unwrap();
        [header.with_id(n).as_bytes(), payload].concat()
    };
    node.ports.rx[1].extend((0..500).map(|n| TestBuf::new(&from_lan(&numbered(n)))));
    node.settle();
    let sent = inner(&node.sent(0));
    assert_eq!((sent.len(), node.drops()), (1000, vec![]));
    // Those of one packet one behind the other: who puts them together need not keep many in mind.
    let ids: Vec<u16> = sent.iter().map(|piece| ipv4::parse(piece).unwrap().0.id()).collect();
    assert!(ids.as_chunks::<2>().0.iter().all(|[one, other]| one == other), "{ids:?}");
    for n in 0..500 {
        let pieces: Vec<_> =
            sent.iter().filter(|piece| ipv4::parse(piece).unwrap().0.id() == n).cloned().collect();
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1396, 124], "{n}");
        let (header, payload) = ipv4::parse(&pieces[1]).unwrap();
        assert_eq!((header.fragment_offset(), header.more_fragments(), payload.len()), (1376, false, 104));
    }
}

#[test]
fn without_a_buffer_for_each_piece_nothing_of_the_packet_goes_on() {
    let mut node = hub(&[2]);
    node.ports.buffers = 1;
    let Object::Interface(mut lan) = interface("lan", "p1", true) else { panic!("an interface") };
    lan.mtu = 600;
    node.put([Object::Interface(lan)]);
    let packet = udp("10.1.2.9", "10.1.0.2", &pattern(1300));
    node.receive(0, &from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet)));
    assert_eq!((node.sent(1).len(), node.drops()), (0, vec![(DropReason::NoBuffer, 1)]));
}

#[test]
fn more_pieces_than_can_wait_are_dropped_with_their_packets() {
    let mut node = hub(&[2]);
    let Object::Interface(mut lan) = interface("lan", "p1", true) else { panic!("an interface") };
    lan.mtu = 68;
    node.put([Object::Interface(lan)]);
    let packet = udp("10.1.2.9", "10.1.0.2", &pattern(1300));
    let arriving = from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet));
    // 28 pieces each, the last of which goes when the walk ends: the 29th finds 756 waiting of 768.
    node.ports.rx[0].extend((0..40).map(|_| TestBuf::new(&arriving)));
    node.settle();
    let sent = node.sent(1).len() as u64;
    let dropped = node.dropped(DropReason::FragmentFull);
    assert_eq!((sent, dropped), (28 * 28, 12));
    assert_eq!(node.drops().len(), 1);
}

/// A hub and a spoke of a tunnel over an underlay of either family, in which a link takes 1,300 bytes: overlay fd00::/64, the spoke's LAN
/// fd02::/64 behind fd00::2. Each forwards between the tunnel and a LAN on p1.
fn pair(v6: bool, link: u16) -> [TestNode; 2] {
    let nbma = |n: u8| if v6 { format!("2001:db8::{n}") } else { format!("192.0.2.{n}") };
    let whole = |addr: &str| if v6 { format!("{addr}/128") } else { format!("{addr}/32") };
    [1_u8, 2].map(|n| {
        let peer = 3 - n;
        let mut node = TestNode::new(n, 2);
        let Object::Interface(mut wan) = interface("wan", "p0", false) else { panic!("an interface") };
        wan.mtu = link;
        node.put([
            Object::Interface(wan),
            interface("lan", "p1", true),
            Object::Tunnel(tunnel("tun", &nbma(n), "wan", Some(42))),
            receive(&whole(&nbma(n)), "wan"),
            receive(&format!("fd0{n}::1/128"), "lan"),
            receive(&format!("fd00::{n}/128"), "tun"),
            attached(if v6 { "2001:db8::/64" } else { "192.0.2.0/24" }, "wan"),
            attached(&format!("fd0{n}::/64"), "lan"),
            attached("fd00::/64", "tun"),
            neighbour("lan", &format!("fd0{n}::2"), station(n)),
            neighbour("wan", &nbma(peer), port_mac(peer, 0)),
            binding("tun", &format!("fd00::{peer}"), &nbma(peer), Some(hop("wan", &nbma(peer)))),
            via(&format!("fd0{peer}::/64"), "tun", &format!("fd00::{peer}")),
        ]);
        node
    })
}

#[test]
fn ipv6_of_1280_bytes_passes_any_underlay_and_larger_is_told_so() {
    for v6 in [false, true] {
        for link in [1300, 576, 1280] {
            let [mut hub, mut spoke] = pair(v6, link);
            let packet = ip6("fd01::2", "fd02::2", ipv6::UDP, &pattern(1240));
            hub.receive(1, &frame(port_mac(1, 1), station(1), ethernet::IPV6, &packet));
            let frames = hub.sent(0);
            assert!(frames.len() > 1, "{v6} {link}");
            for frame in &frames {
                assert!(frame.len() <= 14 + usize::from(link), "{v6} {link}: {}", frame.len());
                let (header, packet) = ethernet::parse(frame).unwrap();
                assert_eq!((header.destination, header.source), (port_mac(2, 0).0, port_mac(1, 0).0));
                if v6 {
                    assert!(ipv6::upper(packet).unwrap().part.is_some());
                } else {
                    assert!(!ipv4::parse(packet).unwrap().0.dont_fragment());
                }
            }
            // In whatever order.
            for frame in frames.iter().rev() {
                receive_fragment(&mut spoke, 0, frame);
            }
            let mut expected = packet.clone();
            expected[7] -= 2;
            assert_eq!(
                spoke.sent(1),
                [frame(station(2), port_mac(2, 1), ethernet::IPV6, &expected)],
                "{v6} {link}"
            );
            let flow = spoke.counters().flow();
            assert_eq!(flow.merged, frames.len() as u64 - 1);
            assert_eq!((hub.drops(), spoke.drops(), spoke.breathe().waiting), (vec![], vec![], 0));
            // One byte more is too big, and what passes is the least that there is.
            let packet = ip6("fd01::2", "fd02::2", ipv6::UDP, &pattern(1241));
            hub.receive(1, &frame(port_mac(1, 1), station(1), ethernet::IPV6, &packet));
            let [error] = &hub.sent(1)[..] else { panic!("one error") };
            let (ip, message) = ipv6::parse(&error[14..]).unwrap();
            let (error, quoted) = icmpv6::parse(ip, message).unwrap();
            assert_eq!((error.kind, error.mtu()), (icmpv6::PACKET_TOO_BIG, 1280));
            assert_eq!((ip.source(), quoted), (addr6("fd01::1"), &packet[..icmpv6::QUOTED]));
            assert_eq!(hub.drops(), [(DropReason::TooBig, 1)]);
        }
    }
}

#[test]
fn a_burst_of_outer_packets_that_are_cut_is_put_together_again() {
    for v6 in [false, true] {
        let [mut hub, mut spoke] = pair(v6, 1300);
        let arriving = |n: u8| ip6("fd01::2", "fd02::2", ipv6::UDP, &[n; 1240]);
        let frames = (0..100).map(|n| frame(port_mac(1, 1), station(1), ethernet::IPV6, &arriving(n)));
        hub.ports.rx[1].extend(frames.map(|frame| TestBuf::new(&frame)));
        hub.settle();
        spoke.ports.rx[0].extend(hub.sent(0).iter().map(|frame| in_buffer(frame)));
        spoke.settle();
        let sent = spoke.sent(1);
        assert!(sent.iter().map(|frame| frame[frame.len() - 1]).eq(0..100), "{v6}: {} arrive", sent.len());
        assert_eq!((hub.drops(), spoke.drops()), (vec![], vec![]));
    }
}

/// GRE to the hub's tunnel in IPv4 with this inner packet, and what is expected on the LAN.
fn tunnelled(len: usize) -> (Vec<u8>, Vec<u8>) {
    let packet = udp("10.1.2.9", "10.1.0.2", &pattern(len));
    let outer = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &packet);
    (outer, frame(station(2), LAN, ethernet::IPV4, &with_ttl(&packet, 63)))
}

#[test]
fn fragments_of_gre_are_put_together_in_any_order_and_over_any_time() {
    let (outer, expected) = tunnelled(1400);
    let end = outer.len() - 20;
    let ranges = [0..8, 8..600, 600..1200, 1200..end];
    let fragments = parts(&outer, &ranges);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let mut node = hub(&[2]);
        // Each in a breath of its own, or all in one, padded as a switch does.
        for at in order {
            let mut arriving = from_wan(&fragments[at]);
            arriving.resize(arriving.len().max(60), 0);
            receive_fragment(&mut node, 0, &arriving);
            node.pass(Duration::from_millis(200));
        }
        assert_eq!(node.sent(1), slice::from_ref(&expected), "{order:?}");
        node.ports.rx[0].extend(order.iter().map(|at| in_buffer(&from_wan(&fragments[*at]))));
        node.settle();
        assert_eq!(node.sent(1), slice::from_ref(&expected), "{order:?}");
        let flow = node.counters().flow();
        assert_eq!((flow.received, flow.merged, flow.sent), (8, 6, 2));
        assert_eq!((node.drops(), node.breathe().waiting), (vec![], 0));
        assert_eq!(node.program.node(Node::GreDecap).packets, 2);
    }
}

#[test]
fn fragments_of_two_packets_do_not_mix() {
    let mut node = hub(&[2]);
    let (one, expected) = tunnelled(1400);
    let (two, other) = tunnelled(1300);
    let end = |packet: &[u8]| packet.len() - 20;
    let one = parts(&one, &[0..800, 800..end(&one)]);
    let mut two = parts(&two, &[0..800, 800..end(&two)]);
    for fragment in &mut two {
        let (header, payload) = ipv4::parse(fragment).unwrap();
        *fragment = [header.with_id(100).as_bytes(), payload].concat();
    }
    for fragment in [&one[0], &two[1], &two[0], &one[1]] {
        receive_fragment(&mut node, 0, &from_wan(fragment));
    }
    assert_eq!(node.sent(1), [other, expected]);
}

#[test]
fn the_rest_does_not_come_in_time() {
    let mut node = hub(&[2]);
    let (outer, _) = tunnelled(1400);
    let fragments = parts(&outer, &[0..600, 600..1200, 1200..outer.len() - 20]);
    receive_fragment(&mut node, 0, &from_wan(&fragments[0]));
    receive_fragment(&mut node, 0, &from_wan(&fragments[2]));
    assert_eq!((node.breathe().waiting, node.ports.freed, node.drops()), (1, 0, vec![]));
    node.pass(Duration::from_secs(1));
    assert_eq!(node.breathe().waiting, 0);
    assert_eq!((node.drops(), node.ports.freed), (vec![(DropReason::ReassemblyTimeout, 2)], 2));
    // What is late begins anew.
    receive_fragment(&mut node, 0, &from_wan(&fragments[1]));
    assert_eq!((node.breathe().waiting, node.sent(1).len()), (1, 0));
}

#[test]
fn fragments_that_lie_over_each_other_are_refused_with_all_of_their_packet() {
    let (outer, expected) = tunnelled(1400);
    let end = outer.len() - 20;
    let [first, middle, last] = &parts(&outer, &[0..600, 600..1200, 1200..end])[..] else { panic!("three") };
    for (what, wrong) in [
        ("over the one before", part(&outer, 592..1200)),
        ("over the one behind", part(&outer, 600..1208)),
        ("over both", part(&outer, 8..end)),
        ("more to follow behind the end", part(&tunnelled(2000).0, 1600..1608)),
        ("an end behind the end", part(&tunnelled(1600).0, 1600..1636)),
    ] {
        let mut node = hub(&[2]);
        for fragment in [first, last, &wrong] {
            receive_fragment(&mut node, 0, &from_wan(fragment));
        }
        assert_eq!(node.drops(), [(DropReason::FragmentOverlap, 3)], "{what}");
        // Nor is what still comes of it taken, until its time is over.
        receive_fragment(&mut node, 0, &from_wan(middle));
        assert_eq!((node.drops(), node.sent(1).len()), (vec![(DropReason::FragmentOverlap, 4)], 0), "{what}");
        node.pass(Duration::from_secs(1));
        for fragment in [first, middle, last] {
            receive_fragment(&mut node, 0, &from_wan(fragment));
        }
        assert_eq!(node.sent(1), slice::from_ref(&expected), "{what}");
        assert_eq!(node.drops(), [(DropReason::FragmentOverlap, 4)], "{what}");
    }
}

#[test]
fn the_same_fragment_twice_is_one_and_with_other_bytes_it_is_a_lie() {
    let (outer, expected) = tunnelled(1400);
    let [first, last] = &parts(&outer, &[0..600, 600..outer.len() - 20])[..] else { panic!("two") };
    let mut node = hub(&[2]);
    for fragment in [first, first, last] {
        receive_fragment(&mut node, 0, &from_wan(fragment));
    }
    assert_eq!((node.sent(1), node.drops()), (vec![expected], vec![(DropReason::FragmentOverlap, 1)]));
    let mut lie = first.clone();
    lie[100] ^= 1;
    for fragment in [first, &lie, last] {
        receive_fragment(&mut node, 0, &from_wan(fragment));
    }
    assert_eq!((node.sent(1).len(), node.drops()), (0, vec![(DropReason::FragmentOverlap, 4)]));
}

#[test]
fn who_floods_displaces_their_own_fragments_and_nobody_elses() {
    let mut node = hub(&[2]);
    let (outer, expected) = tunnelled(1400);
    let [first, last] = &parts(&outer, &[0..600, 600..outer.len() - 20])[..] else { panic!("two") };
    receive_fragment(&mut node, 0, &from_wan(first));
    for id in 0..2000_u16 {
        let head = ipv4::Header::new(addr("192.0.2.66"), addr("192.0.2.1"), ipv4::GRE, 64, 8).unwrap();
        let head = head.with_id(id).with_flags(ipv4::MORE_FRAGMENTS | (id % 1000));
        node.ports.rx[0].push_back(in_buffer(&from_wan(&[head.as_bytes(), &[0; 8]].concat())));
    }
    node.settle();
    assert_eq!((node.breathe().waiting, node.drops()), (17, vec![(DropReason::ReassemblyFull, 1984)]));
    receive_fragment(&mut node, 0, &from_wan(last));
    assert_eq!(node.sent(1), [expected]);
    // And a packet in more fragments than anybody needs.
    for at in 0..33_u16 {
        let head = ipv4::Header::new(addr("192.0.2.2"), addr("192.0.2.1"), ipv4::GRE, 64, 8).unwrap();
        let head = head.with_id(7).with_flags(ipv4::MORE_FRAGMENTS | at);
        receive_fragment(&mut node, 0, &from_wan(&[head.as_bytes(), &[0; 8]].concat()));
    }
    assert_eq!(node.drops(), [(DropReason::ReassemblyFull, 1984 + 33)]);
}

#[test]
fn what_no_buffer_holds_is_dropped() {
    let mut node = hub(&[2]);
    let (outer, _) = tunnelled(5000);
    // A buffer has 2,048.
    let ranges: Vec<_> = (0..4).map(|n| n * 1264..((n + 1) * 1264).min(outer.len() - 20)).collect();
    for fragment in &parts(&outer, &ranges) {
        receive_fragment(&mut node, 0, &from_wan(fragment));
    }
    assert_eq!((node.sent(1).len(), node.drops()), (0, vec![(DropReason::ReassemblyTooBig, 4)]));
}

#[test]
fn a_fragment_that_is_the_whole_waits_for_nobody() {
    let [_, mut spoke] = pair(true, 1500);
    let packet = ip6("fd01::2", "fd02::2", ipv6::UDP, &pattern(100));
    let mut gre = vec![0; 8];
    gre::write(&mut gre, gre::IPV6, Some(42)).unwrap();
    let outer = ip6("2001:db8::1", "2001:db8::2", ipv6::GRE, &[&gre[..], &packet].concat());
    let atomic = &part(&outer, 0..outer.len() - 40);
    // While the first part of another packet with the same identification waits.
    let first = &part(&outer, 0..80);
    for fragment in [first, atomic] {
        receive_fragment(&mut spoke, 0, &frame(port_mac(2, 0), station(1), ethernet::IPV6, fragment));
    }
    let mut expected = packet;
    expected[7] -= 1;
    assert_eq!(spoke.sent(1), [frame(station(2), port_mac(2, 1), ethernet::IPV6, &expected)]);
    assert_eq!((spoke.breathe().waiting, spoke.drops()), (1, vec![]));
}

#[test]
fn a_router_of_the_underlay_is_believed_about_what_we_sent_to_a_peer() {
    let mut node = hub(&[2]);
    let about = |from: &str, to: &str, key, len: usize| gre_packet(from, to, key, gre::IPV4, &pattern(len));
    let told = |quoted: &[u8], mtu| {
        let quoted = &quoted[..quoted.len().min(icmp::QUOTED)];
        let header = icmp::Header::fragmentation_needed(mtu);
        from_wan(&icmp::packet(addr("198.51.100.1"), addr("192.0.2.1"), 60, 0, header, quoted).unwrap())
    };
    let tunnel = node.id("tun");
    let ours = about("192.0.2.1", "192.0.2.2", Some(42), 1400);
    let learnt = |nbma: &str, mtu| Notice::PathMtu { tunnel, nbma: nbma.parse().unwrap(), mtu };
    node.receive(0, &told(&ours, 1300));
    assert_eq!(std::mem::take(&mut node.ports.notices), [learnt("192.0.2.2", 1300)]);
    // The twin hears of it as well.
    assert_eq!(node.punted()[0].0, Punt::Host(node.id("wan")));
    // Once a second for each peer.
    for _ in 0..10 {
        node.receive(0, &told(&ours, 1280));
    }
    assert_eq!((node.ports.notices.len(), node.punted().len()), (0, 10));
    node.pass(Duration::from_secs(1));
    node.receive(0, &told(&ours, 100));
    assert_eq!(std::mem::take(&mut node.ports.notices), [learnt("192.0.2.2", 576)]);
    node.pass(Duration::from_secs(1));
    for (why, frame) in [
        ("no such peer", told(&about("192.0.2.1", "192.0.2.3", Some(42), 1400), 1300)),
        ("no such tunnel", told(&about("192.0.2.1", "192.0.2.2", Some(43), 1400), 1300)),
        ("no key", told(&about("192.0.2.1", "192.0.2.2", None, 1400), 1300)),
        ("not from us", told(&about("192.0.2.2", "192.0.2.1", Some(42), 1400), 1300)),
        ("not larger", told(&about("192.0.2.1", "192.0.2.2", Some(42), 1200), 1300)),
        ("not GRE", told(&udp("192.0.2.1", "192.0.2.2", &pattern(1400)), 1300)),
        ("damaged", {
            let mut frame = told(&ours, 1300);
            frame[14 + 20 + 7] ^= 1;
            frame
        }),
    ] {
        node.receive(0, &frame);
        assert_eq!(node.ports.notices, [], "{why}");
    }
    // Nor one who speaks through the tunnel.
    let inner = icmp::Header::fragmentation_needed(1300);
    let inner = icmp::packet(addr("10.1.2.9"), addr("192.0.2.1"), 60, 0, inner, &ours[..100]).unwrap();
    node.receive(0, &from_wan(&gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &inner)));
    assert_eq!(node.ports.notices, []);
    node.receive(0, &told(&ours, 1300));
    assert_eq!(node.ports.notices, [learnt("192.0.2.2", 1300)]);
}

#[test]
fn a_router_of_an_ipv6_underlay_is_believed_too() {
    let [mut hub, _] = pair(true, 1500);
    let mut gre = vec![0; 8];
    gre::write(&mut gre, gre::IPV4, Some(42)).unwrap();
    gre.extend(pattern(1400));
    let ours = ip6("2001:db8::1", "2001:db8::2", ipv6::GRE, &gre);
    let header = icmpv6::Header::packet_too_big(1300);
    let (router, us) = (addr6("2001:db8:9::1"), addr6("2001:db8::1"));
    let told = icmpv6::packet(router, us, 60, 0, header, &ours[..icmpv6::QUOTED]).unwrap();
    hub.receive(0, &frame(port_mac(1, 0), station(9), ethernet::IPV6, &told));
    let nbma: IpAddr = "2001:db8::2".parse().unwrap();
    assert_eq!(hub.ports.notices, [Notice::PathMtu { tunnel: hub.id("tun"), nbma, mtu: 1300 }]);
    assert_eq!(hub.punted()[0].0, Punt::Host(hub.id("wan")));
}
