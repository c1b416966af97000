//! What a person may see of packets: traces from node to node, and captures at ports and nodes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::net::IpAddr;

use forwarding::{CaptureOrder, Command, DropReason, InterfaceId, Node, Origin, PortId, Tap, TraceOrder};
use lab::*;
use wire::buf::TestBuf;
use wire::{ethernet, gre, ipv4};
use zerocopy::IntoBytes;

fn from_lan(packet: &[u8]) -> Vec<u8> {
    frame(LAN, station(9), ethernet::IPV4, packet)
}

fn capture(node: &mut TestNode, at: Tap, packets: u32, snap: u16, only: Option<IpAddr>) {
    node.ports.commands.push_back(Command::Capture(Some(CaptureOrder { at, packets, snap, only })));
    node.settle();
}

#[test]
fn a_port_is_captured_in_both_directions_as_on_the_wire() {
    let mut node = hub(&[2]);
    capture(&mut node, Tap::Port(PortId(1)), 0, 0, None);
    let mut arriving = from_lan(&udp("10.1.0.2", "10.1.2.9", b"x"));
    arriving.resize(60, 0xaa);
    let back = udp("10.1.2.9", "10.1.0.2", b"y");
    let back = gre_packet("192.0.2.2", "192.0.2.1", Some(42), gre::IPV4, &back);
    node.receive(1, &arriving);
    node.receive(0, &frame(WAN, station(2), ethernet::IPV4, &back));
    let sent = node.sent(1);
    assert!(node.worker.has_observed());
    let captured = node.worker.take_captured();
    let seen: Vec<_> =
        captured.iter().map(|c| (c.at, c.out, c.interface, &c.bytes, c.len, c.reason)).collect();
    let (lan, tap) = (node.id("lan"), Tap::Port(PortId(1)));
    assert_eq!(
        seen,
        [(tap, false, lan, &arriving, 60, None), (tap, true, lan, &sent[0], sent[0].len(), None)]
    );
    assert_eq!(captured[1].time, captured[0].time.max(captured[1].time));
    assert!(!node.worker.has_observed());
    // No more of it.
    node.ports.commands.push_back(Command::Capture(None));
    node.receive(1, &arriving);
    assert!(!node.worker.has_observed());
}

#[test]
fn a_port_that_takes_less_than_it_is_given_shows_what_it_took() {
    let mut node = hub(&[2]);
    capture(&mut node, Tap::Port(PortId(0)), 10, 0, None);
    node.ports.tx_room = 2;
    let arriving = from_lan(&udp("10.1.0.2", "10.1.2.9", b"x"));
    node.ports.rx[1].extend((0..5).map(|_| TestBuf::new(&arriving)));
    node.settle();
    assert_eq!((node.worker.take_captured().len(), node.dropped(DropReason::TxFull)), (2, 3));
    // They do not count.
    node.ports.tx_room = usize::MAX;
    node.ports.rx[1].extend((0..20).map(|_| TestBuf::new(&arriving)));
    node.settle();
    assert_eq!(node.worker.take_captured().len(), 8);
}

#[test]
fn so_many_packets_so_many_bytes_of_each_and_only_of_an_address() {
    let mut node = hub(&[2, 3]);
    let inner = "10.1.3.9".parse().unwrap();
    capture(&mut node, Tap::Port(PortId(0)), 2, 50, Some(inner));
    for _ in 0..3 {
        for to in ["10.1.2.9", "10.1.3.9"] {
            node.receive(1, &from_lan(&udp("10.1.0.2", to, &[7; 100])));
        }
    }
    let captured = node.worker.take_captured();
    let frames = node.sent(0);
    let to_three: Vec<_> = frames.iter().filter(|frame| open_tunnel(frame).1 == "192.0.2.3").collect();
    assert_eq!((captured.len(), to_three.len()), (2, 3));
    for (captured, sent) in captured.iter().zip(to_three) {
        assert_eq!((&captured.bytes[..], captured.len), (&sent[..50], sent.len()));
    }
}

#[test]
fn a_node_shows_what_comes_to_it_and_drop_tells_why() {
    let mut node = hub(&[2]);
    capture(&mut node, Tap::Node(Node::Drop), 0, 0, None);
    let arriving = from_lan(&udp("10.1.0.2", "127.0.0.1", b"x"));
    node.receive(1, &arriving);
    node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.2.9", b"x")));
    let [dropped] = &node.worker.take_captured()[..] else { panic!("one drop") };
    assert_eq!((dropped.reason, &dropped.bytes), (Some(DropReason::Martian), &arriving));
    assert_eq!((dropped.interface, dropped.at), (node.id("lan"), Tap::Node(Node::Drop)));
    // What the kernel sends by a tunnel's twin has no Ethernet header, and gets one.
    capture(&mut node, Tap::Node(Node::IpLookup), 1, 0, None);
    let packet = udp("10.0.0.1", "10.1.2.9", b"x");
    node.inject(Origin::Twin(node.id("tun")), &packet);
    let [looked_up] = &node.worker.take_captured()[..] else { panic!("one packet") };
    let link = ethernet::Header::new([0; 6], [0; 6], ethernet::IPV4);
    assert_eq!(looked_up.bytes, [link.as_bytes(), &packet].concat());
    assert_eq!((looked_up.interface, looked_up.reason), (node.id("tun"), None));
    // What leaves is a frame.
    node.sent(0);
    capture(&mut node, Tap::Node(Node::Tx), 1, 0, None);
    node.inject(Origin::Twin(node.id("tun")), &packet);
    assert_eq!(node.worker.take_captured()[0].bytes, node.sent(0)[0]);
}

#[test]
fn what_nobody_takes_is_counted() {
    let mut node = hub(&[2]);
    capture(&mut node, Tap::Port(PortId(1)), 0, 0, None);
    let small = from_lan(&udp("10.1.0.2", "10.1.2.9", b"x"));
    for _ in 0..50 {
        node.ports.rx[1].extend((0..100).map(|_| TestBuf::new(&small)));
        node.settle();
    }
    assert_eq!((node.worker.observed_lost(), node.worker.take_captured().len()), (904, 4096));
    let large = from_lan(&udp("10.1.0.2", "10.1.2.9", &[7; 1300]));
    for _ in 0..40 {
        node.ports.rx[1].extend((0..100).map(|_| TestBuf::new(&large)));
        node.settle();
    }
    let most = (4 << 20) / large.len();
    assert_eq!(node.worker.take_captured().len(), most);
    assert_eq!(node.worker.observed_lost(), 904 + 4000 - most as u64);
    // And of a trace.
    node.ports.commands.push_back(Command::Capture(None));
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 5000, only: None }));
    for _ in 0..50 {
        node.ports.rx[1].extend((0..100).map(|_| TestBuf::new(&small)));
        node.settle();
    }
    let lost = node.worker.observed_lost();
    assert_eq!(node.worker.take_trace().len(), 8192);
    assert!(lost > 904 + 4000 - most as u64);
}

#[test]
fn a_trace_follows_packets_that_name_an_address_from_node_to_node() {
    let mut node = hub(&[2, 3]);
    let trace = |only: &str| Command::Trace(TraceOrder { packets: 2, only: Some(only.parse().unwrap()) });
    node.ports.commands.push_back(trace("10.1.3.9"));
    for to in ["10.1.2.9", "10.1.3.9", "10.1.2.9", "10.1.3.9", "10.1.3.9"] {
        node.receive(1, &from_lan(&udp("10.1.0.2", to, b"x")));
    }
    let steps = node.worker.take_trace();
    let of =
        |packet| steps.iter().filter(|step| step.packet == packet).map(|step| step.node).collect::<Vec<_>>();
    let path = [Node::Rx, Node::Classify, Node::IpLookup, Node::Midchain, Node::Tx];
    assert_eq!((of(1), of(2), steps.len()), (path.to_vec(), path.to_vec(), 10));
    let destination: IpAddr = "10.1.3.9".parse().unwrap();
    assert!(steps[1..4].iter().all(|step| step.destination == Some(destination)), "{steps:?}");
    assert!(steps[5].time > steps[0].time && steps[0].time == steps[4].time);
    assert_eq!((steps[2].interface, steps[2].table, steps[0].destination), (node.id("lan"), 0, None));
    // The inner address of what comes in a tunnel, and the outer one.
    let inner = udp("10.1.3.9", "10.1.0.2", b"y");
    for (only, from) in [("10.1.3.9", "192.0.2.3"), ("192.0.2.3", "192.0.2.3"), ("192.0.2.2", "192.0.2.3")] {
        node.ports.commands.push_back(trace(only));
        let outer = gre_packet(from, "192.0.2.1", Some(42), gre::IPV4, &inner);
        node.receive(0, &frame(WAN, station(3), ethernet::IPV4, &outer));
        let nodes: Vec<_> = node.worker.take_trace().iter().map(|step| step.node).collect();
        let path = [Node::Rx, Node::Classify, Node::GreDecap, Node::IpLookup, Node::Rewrite, Node::Tx];
        assert_eq!(nodes, if only == "192.0.2.2" { &[][..] } else { &path[..] }, "{only}");
    }
    // What leaves is a frame, whatever it came in.
    node.ports.commands.push_back(trace("10.1.3.9"));
    let mut payload = [0x45; 60];
    payload[20..].fill(0x60);
    let inner = udp("10.1.3.9", "10.1.0.2", &payload);
    let outer = gre_packet("192.0.2.3", "192.0.2.1", Some(42), gre::IPV4, &inner);
    node.receive(0, &frame(WAN, station(3), ethernet::IPV4, &outer));
    let steps = node.worker.take_trace();
    let last = steps.last().unwrap();
    let to: IpAddr = "10.1.0.2".parse().unwrap();
    assert_eq!((last.node, last.offset, last.destination), (Node::Tx, 14, Some(to)));
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 0, only: None }));
    // What the control plane sends names the peer before it has an outer header.
    node.ports.commands.push_back(trace("192.0.2.3"));
    let (tunnel, destination) = (node.id("tun"), "192.0.2.3".parse().unwrap());
    node.inject(Origin::Control { tunnel, destination, protocol_type: gre::NHRP, port: 0 }, b"nhrp");
    let steps = node.worker.take_trace();
    assert_eq!(
        steps.iter().map(|step| step.node).collect::<Vec<_>>(),
        [Node::Inject, Node::Rewrite, Node::Tx]
    );
}

#[test]
fn pieces_and_what_waits_are_followed_over_breaths() {
    let mut node = hub(&[2]);
    node.ports.commands.push_back(Command::Trace(TraceOrder { packets: 1, only: None }));
    node.receive(1, &from_lan(&udp("10.1.0.2", "10.1.2.9", &[7; 1472])));
    let steps = node.worker.take_trace();
    let nodes: Vec<_> = steps.iter().map(|step| (step.packet, step.node)).collect();
    let came = [Node::Rx, Node::Classify, Node::IpLookup, Node::Midchain, Node::Fragment];
    let went = [Node::Inject, Node::Inject, Node::Midchain, Node::Midchain, Node::Tx, Node::Tx];
    let expected: Vec<_> = came.into_iter().chain(went).map(|node| (1, node)).collect();
    assert_eq!(nodes, expected);
    let display = steps[2].to_string();
    assert!(display.starts_with("#1 ip-lookup        if "), "{display}");
    assert!(
        display.contains(" table 0 to 10.1.2.9 ") && display.contains("\n    0000  02 00 00 00 01 01"),
        "{display}"
    );
}

#[test]
fn a_frame_with_a_tag_is_seen_with_it() {
    let mut node = hub(&[2]);
    let addr: IpAddr = "10.1.2.9".parse().unwrap();
    capture(&mut node, Tap::Port(PortId(1)), 0, 0, Some(addr));
    let packet = udp("10.1.0.2", "10.1.2.9", b"x");
    let tag = ethernet::Tag::new(3, 77, ethernet::IPV4);
    let tagged =
        [ethernet::Header::new(LAN.0, station(9).0, ethernet::VLAN).as_bytes(), tag.as_bytes(), &packet]
            .concat();
    node.receive(1, &tagged);
    let [captured] = &node.worker.take_captured()[..] else { panic!("one frame") };
    assert_eq!((&captured.bytes, captured.interface), (&tagged, InterfaceId(u16::MAX)), "no such VLAN");
    assert!(ipv4::verify(&captured.bytes[18..]).is_ok());
}
