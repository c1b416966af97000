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
    net.hear(0, 1, &request);
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
    net.hear(2, 0, &asked);
    let (_, to, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    net.hear(0, 2, &reply);
    let (_, to, passed) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    let record = passed.extension(ExtensionType::REVERSE_TRANSIT).unwrap().entries(passed.families).unwrap();
    assert_eq!((record.len(), record[0].protocol), (1, Some(overlay(0).0)));
    net.hear(1, 0, &passed);
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    // The other one, straight, is a duplicate then; that is no offence.
    net.hear(1, 2, &reply);
    assert_eq!((net.rejects(1, Reject::Unsolicited), error(&net, 1)), (1, None));
}

#[test]
fn a_reply_to_nothing_is_an_offence() {
    let mut net = ready();
    let asked = request(&mut net);
    net.hear(2, 0, &asked);
    let (_, _, mut reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    if let Body::Exchange { request_id, .. } = &mut reply.body {
        *request_id = 4711;
    }
    net.hear(1, 2, &reply);
    assert_eq!(error(&net, 1), Some(ErrorCode::INVALID_RESOLUTION_REPLY));
    assert_eq!(net.route(1, lan(2)), None);
}

#[test]
fn a_loop_is_found_by_the_protocol_address() {
    let mut net = ready();
    let request = request(&mut net);
    net.hear(0, 1, &request);
    let passed = forwarded(&net).unwrap();
    net.hear(0, 1, &passed);
    assert_eq!((error(&net, 0), net.rejects(0, Reject::Loop)), (Some(ErrorCode::LOOP_DETECTED), 1));
}

#[test]
fn no_hop_is_left() {
    let mut net = ready();
    let mut request = request(&mut net);
    request.hop_count = 0;
    let before = net.messages(0, MessageType::ResolutionRequest).len();
    net.hear(0, 1, &request);
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
    net.hear(0, 1, &request);
    let passed = forwarded(&net).unwrap();
    assert_eq!(passed, Message { hop_count: 254, ..request.clone() }, "and no record of us");
    net.hear(2, 0, &passed);
    assert_eq!(error(&net, 2), Some(ErrorCode::UNRECOGNIZED_EXTENSION));
    assert_eq!(net.rejects(2, Reject::UnrecognizedExtension), 1);

    request.extensions.as_mut().unwrap()[1] = unknown(false);
    let vendor = Extension::new(ExtensionType::VENDOR, false, vec![0, 0, 12, 9]);
    request.extensions.as_mut().unwrap().push(vendor.clone());
    net.hear(2, 0, &request);
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
    net.hear(0, 1, &request);
    let (_, _, error) = net.messages(0, MessageType::ErrorIndication).pop().unwrap();
    let before: Vec<_> = net.nodes.iter().map(|n| n.sent.len()).collect();
    for (node, from) in [(1, 0), (0, 1), (2, 1)] {
        net.hear(node, from, &error);
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

/// Three levels of servers: what the lowest does not know it asks the next for, and that one the highest, which knows. Every one names
/// itself, in order; the answer comes straight.
#[test]
fn a_server_asks_its_server_and_that_one_its_own() {
    let mut net = Net::idle_regions(&[1, 0, 1], &Setup::default());
    // Hub 2 is a client of hub 1, which is one of hub 0.
    net.nodes[2].tunnel.nhrp.nhs = vec![model::config::Nhs::new(overlay(1), nbma(1))];
    net.start_all();
    net.run(seconds(1));
    let (high, low) = (3, 4);
    assert_eq!(net.binding(2, overlay(high)), None);
    net.give(low, Input::Glean { tunnel: tunnel0(), next_hop: overlay(high) });
    net.run(millis(60));
    assert_eq!(net.binding(low, overlay(high)), Some(nbma(high)));
    let (_, to, passed) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    let record = passed.extension(ExtensionType::FORWARD_TRANSIT).unwrap().entries(passed.families).unwrap();
    let record: Vec<_> = record.iter().map(|e| e.protocol.unwrap()).collect();
    assert_eq!((to, record), (nbma(high), vec![overlay(2).0, overlay(1).0, overlay(0).0]));
    assert_eq!(passed.hop_count, 252);
    // Nobody has this one: the highest says so, and that finds its way down.
    net.give(low, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    net.run(millis(100));
    let unresolved = nhrp::Event::Unresolved { tunnel: tunnel0(), destination: overlay(99) };
    assert!(net.has_event(low, |e| *e == unresolved));
    assert_eq!(net.rejects(0, Reject::NoBinding), 1);
    let (_, _, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    let record = reply.extension(ExtensionType::REVERSE_TRANSIT).unwrap().entries(reply.families).unwrap();
    let record: Vec<_> = record.iter().map(|e| e.protocol.unwrap()).collect();
    assert_eq!(record, [overlay(1).0, overlay(2).0], "who answered does not name itself");
}

/// Hubs that are servers of each other, each with its own spokes.
fn friends(hubs: usize) -> Net {
    let mut net = Net::idle_with_hubs(hubs, hubs, &Setup::default());
    for hub in 0..hubs {
        let others = (0..hubs).filter(|o| *o != hub);
        net.nodes[hub].tunnel.nhrp.nhs =
            others.map(|o| model::config::Nhs::new(overlay(o), nbma(o))).collect();
        net.nodes[hubs + hub].tunnel.nhrp.nhs = vec![model::config::Nhs::new(overlay(hub), nbma(hub))];
    }
    net.start_all();
    net.run(seconds(3));
    net
}

#[test]
fn hubs_that_are_servers_of_each_other_find_everybody_and_no_loop() {
    for hubs in [2, 3] {
        let mut net = friends(hubs);
        let (asker, other) = (hubs, hubs + 1);
        net.give(asker, Input::Glean { tunnel: tunnel0(), next_hop: overlay(other) });
        net.run(millis(60));
        assert_eq!(net.binding(asker, overlay(other)), Some(nbma(other)));
        let passed = |net: &Net| -> usize {
            (0..hubs).map(|hub| net.messages(hub, MessageType::ResolutionRequest).len()).sum()
        };
        let before = passed(&net);
        net.give(asker, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
        net.run(seconds(1));
        assert!(net.has_event(asker, |e| matches!(e, nhrp::Event::Unresolved { .. })));
        // Every hub but the last passes it on, once; nobody sees it twice.
        assert_eq!(passed(&net) - before, hubs - 1);
        for node in 0..2 * hubs {
            assert_eq!((net.rejects(node, Reject::Loop), error(&net, node)), (0, None));
        }
    }
}

/// Without the record nothing tells that it was here before; the hops end it.
#[test]
fn without_a_record_the_hops_end_a_loop() {
    let mut net = friends(3);
    net.give(3, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    let (_, _, mut request) = net.messages(3, MessageType::ResolutionRequest).pop().unwrap();
    request.extensions = Some(vec![]);
    request.hop_count = 20;
    net.run(seconds(1));
    let passed = |net: &Net| -> usize {
        (0..3).map(|hub| net.messages(hub, MessageType::ResolutionRequest).len()).sum()
    };
    let before = passed(&net);
    net.hear(0, 3, &request);
    net.run(seconds(1));
    assert_eq!(passed(&net) - before, 20);
    let ended: u64 = (0..3).map(|hub| net.rejects(hub, Reject::HopCount)).sum();
    assert_eq!(ended, 1);
}

/// A route is followed before any server is asked, and a blackhole route ends it.
#[test]
fn a_route_comes_before_a_server() {
    let mut net = friends(3);
    net.nodes[0].rib.0.insert(prefix("10.77.0.0/16"), Lead::Via(overlay(2)));
    net.give(3, Input::Glean { tunnel: tunnel0(), next_hop: "10.77.0.1".parse().unwrap() });
    net.run(millis(15));
    let (_, to, _) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    assert_eq!(to, nbma(2), "and not to hub 1, the first server");
}

/// A registration is for whom it names: every other server passes it on, and the one that is meant answers straight.
#[test]
fn a_registration_is_passed_on_to_whom_it_names() {
    let mut net = friends(2);
    let (_, _, mut registration) = net.messages(2, MessageType::RegistrationRequest).pop().unwrap();
    registration.destination = Some(overlay(1).0);
    assert_eq!(net.binding(1, overlay(2)), None);
    net.hear(0, 2, &registration);
    net.run(millis(30));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(2)));
    let (_, to, _) = net.messages(1, MessageType::RegistrationReply).pop().unwrap();
    assert_eq!(to, nbma(2));
}

/// Whose own address is in the record of a reply, or is the responder's, has seen it before.
#[test]
fn a_reply_that_comes_back_is_a_loop() {
    let mut net = ready();
    let asked = request(&mut net);
    net.hear(2, 0, &asked);
    let (_, _, reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    net.hear(0, 2, &reply);
    let (_, _, passed) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    net.hear(0, 2, &passed);
    assert_eq!((error(&net, 0), net.rejects(0, Reject::Loop)), (Some(ErrorCode::LOOP_DETECTED), 1));
    let mut ours = reply;
    let families = ours.families;
    let responder = ours.extension_mut(ExtensionType::RESPONDER).unwrap();
    *responder = Extension::empty(ExtensionType::RESPONDER, true);
    let entry = wire::nhrp::Cie { protocol: Some(overlay(0).0), ..wire::nhrp::Cie::default() };
    assert!(responder.push(&entry, families));
    net.hear(0, 2, &ours);
    assert_eq!(net.rejects(0, Reject::Loop), 2);
}
