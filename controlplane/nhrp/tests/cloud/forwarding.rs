//! The hub in between: requests and replies of others.

use nhrp::{Input, Reject};
use wire::nhrp::{Body, ErrorCode, Extension, ExtensionType, Kind, Message, MessageType};

use crate::net::*;

/// A resolution request of node 1 for a host behind node 2, as it would send it.
fn request(net: &mut Net) -> Message {
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(15));
    net.messages(1, MessageType::ResolutionRequest).pop().unwrap().2
}

fn ready() -> Net {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net
}

fn give(net: &mut Net, node: usize, from: usize, message: &Message) {
    let (source, destination) = (nbma(from), nbma(node));
    net.give(
        node,
        Input::Packet { tunnel: tunnel0(), from: source.into(), destination, bytes: message.encode() },
    );
}

fn forwarded(net: &Net) -> Option<Message> {
    net.messages(0, MessageType::ResolutionRequest).pop().map(|(_, to, m)| {
        assert_eq!(to, nbma(2));
        m
    })
}

fn error(net: &Net, node: usize) -> Option<ErrorCode> {
    net.messages(node, MessageType::ErrorIndication).pop().map(|(_, _, m)| match m.body {
        Body::Error { code, .. } => code,
        _ => unreachable!(),
    })
}

#[test]
fn a_request_is_passed_on_with_a_record_and_a_hop_less() {
    let mut net = ready();
    let request = request(&mut net);
    give(&mut net, 0, 1, &request);
    let passed = forwarded(&net).unwrap();
    assert_eq!((request.hop_count, passed.hop_count), (255, 254));
    let record = passed.extension(ExtensionType::FORWARD_TRANSIT).unwrap();
    let entries = record.entries(passed.families).unwrap();
    assert_eq!(
        (entries.len(), entries[0].nbma, entries[0].protocol),
        (1, Some(nbma(0).0), Some(overlay(0).0))
    );
    // All else is as it was.
    let mut same = passed.clone();
    same.hop_count = 255;
    *same.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap() =
        Extension::empty(ExtensionType::FORWARD_TRANSIT, true);
    assert_eq!(same, request);
    // The hub answers nothing itself, and learns nothing.
    assert_eq!(net.messages(0, MessageType::ResolutionReply).len(), 0);
}

/// A reply may come by way of the hub, as FRR sends it.
#[test]
fn a_reply_is_passed_on_towards_its_source() {
    let mut net = ready();
    let asked = request(&mut net);
    give(&mut net, 2, 0, &asked);
    let (_, to, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    give(&mut net, 0, 2, &reply);
    let (_, to, passed) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    let record = passed.extension(ExtensionType::REVERSE_TRANSIT).unwrap().entries(passed.families).unwrap();
    assert_eq!((record.len(), record[0].protocol), (1, Some(overlay(0).0)));
    give(&mut net, 1, 0, &passed);
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    // The other one, straight, is a duplicate then; that is no offence.
    give(&mut net, 1, 2, &reply);
    assert_eq!((net.rejects(1, Reject::Unsolicited), error(&net, 1)), (1, None));
}

#[test]
fn a_reply_to_nothing_is_an_offence() {
    let mut net = ready();
    let asked = request(&mut net);
    give(&mut net, 2, 0, &asked);
    let (_, _, mut reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    if let Body::Exchange { request_id, .. } = &mut reply.body {
        *request_id = 4711;
    }
    give(&mut net, 1, 2, &reply);
    assert_eq!(error(&net, 1), Some(ErrorCode::INVALID_RESOLUTION_REPLY));
    assert_eq!(net.route(1, lan(2)), None);
}

#[test]
fn a_loop_is_found_by_the_protocol_address() {
    let mut net = ready();
    let request = request(&mut net);
    give(&mut net, 0, 1, &request);
    let passed = forwarded(&net).unwrap();
    give(&mut net, 0, 1, &passed);
    assert_eq!((error(&net, 0), net.rejects(0, Reject::Loop)), (Some(ErrorCode::LOOP_DETECTED), 1));
}

#[test]
fn no_hop_is_left() {
    let mut net = ready();
    let mut request = request(&mut net);
    request.hop_count = 0;
    let before = net.messages(0, MessageType::ResolutionRequest).len();
    give(&mut net, 0, 1, &request);
    assert_eq!(net.messages(0, MessageType::ResolutionRequest).len(), before);
    assert_eq!((error(&net, 0), net.rejects(0, Reject::HopCount)), (Some(ErrorCode::HOP_COUNT_EXCEEDED), 1));
}

/// Unknown extensions: passed on untouched; who must know a compulsory one says that it does not, who may ignore one gives it
/// back.
#[test]
fn unknown_extensions() {
    let mut net = ready();
    let mut request = request(&mut net);
    let unknown = |compulsory| Extension::new(ExtensionType::new(0x3f01).unwrap(), compulsory, vec![1, 2, 3]);
    request.extensions.as_mut().unwrap().insert(1, unknown(true));
    give(&mut net, 0, 1, &request);
    let passed = forwarded(&net).unwrap();
    assert_eq!(passed, Message { hop_count: 254, ..request.clone() }, "and no record of us");
    give(&mut net, 2, 0, &passed);
    assert_eq!(error(&net, 2), Some(ErrorCode::UNRECOGNIZED_EXTENSION));
    assert_eq!(net.rejects(2, Reject::UnrecognizedExtension), 1);

    request.extensions.as_mut().unwrap()[1] = unknown(false);
    let vendor = Extension::new(ExtensionType::VENDOR, false, vec![0, 0, 12, 9]);
    request.extensions.as_mut().unwrap().push(vendor.clone());
    give(&mut net, 2, 0, &request);
    let (_, _, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    let extensions = reply.extensions.unwrap();
    assert_eq!((extensions[1].clone(), extensions[5].clone()), (unknown(false), vendor));
    assert_eq!(extensions[0].entries(reply.families).unwrap().len(), 1, "who answered");
}

/// What nobody knows is refused with code 12, and the refusal finds its way.
#[test]
fn what_nobody_has_is_refused() {
    let mut net = ready();
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    net.run(millis(25));
    let (_, to, reply) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    assert!(matches!(&reply.body, Body::Exchange { kind: Kind::ResolutionReply, entries, .. }
        if entries.len() == 1 && entries[0].code == wire::nhrp::CieCode::NO_BINDING));
    assert!(net.has_event(1, |e| matches!(e, nhrp::Event::Unresolved { .. })));
    assert_eq!(net.rejects(0, Reject::NoBinding), 1);
}

/// Never an error about an error, and none is answered.
#[test]
fn an_error_ends_it() {
    let mut net = ready();
    let mut request = request(&mut net);
    request.hop_count = 0;
    give(&mut net, 0, 1, &request);
    let (_, _, error) = net.messages(0, MessageType::ErrorIndication).pop().unwrap();
    let before: Vec<_> = net.nodes.iter().map(|n| n.sent.len()).collect();
    for (node, from) in [(1, 0), (0, 1), (2, 1)] {
        give(&mut net, node, from, &error);
    }
    // Node 2 passes on what is for node 1 (by its server); that is all.
    let after: Vec<_> = net.nodes.iter().map(|n| n.sent.len()).collect();
    assert_eq!((after[0] - before[0], after[1] - before[1]), (0, 0));
    assert!(net.messages(2, MessageType::ErrorIndication).len() <= 1);
}

/// Two regions, each with its hub; the hubs know each other by static maps. A request passes both.
#[test]
fn a_request_passes_two_hubs() {
    let mut net = Net::idle(3, &Setup::default());
    // Node 3 becomes the second hub, with node 2 as its client.
    let map = |protocol: usize| model::config::Map { protocol: overlay(protocol), nbma: nbma(protocol) };
    let second = &mut net.nodes[3];
    second.tunnel.nhrp.nhs.clear();
    second.tunnel.nhrp.redirect = true;
    second.tunnel.nhrp.map.push(map(0));
    second.rib.0.insert(lan(2), Lead::Via(overlay(2)));
    second.rib.0.insert(prefix("192.168.0.0/16"), Lead::Via(overlay(0)));
    net.nodes[2].tunnel.nhrp.nhs = vec![model::config::Nhs::new(overlay(3), nbma(3))];
    net.nodes[2].rib.0.insert(prefix("192.168.0.0/16"), Lead::Via(overlay(3)));
    net.nodes[0].tunnel.nhrp.map.push(map(3));
    net.nodes[0].rib.0.insert(lan(2), Lead::Via(overlay(3)));
    for node in 0..4 {
        net.start(node);
    }
    net.run(seconds(1));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 0, 3, 2]));
    net.run(millis(60));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
    let passed = &net.messages(3, MessageType::ResolutionRequest)[0].2;
    let record = passed.extension(ExtensionType::FORWARD_TRANSIT).unwrap().entries(passed.families).unwrap();
    let passed: Vec<_> = record.iter().map(|e| e.protocol.unwrap()).collect();
    assert_eq!(passed, [overlay(0).0, overlay(3).0]);
}
