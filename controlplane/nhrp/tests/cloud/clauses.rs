//! Clauses of RFC 2332 that no scenario of the other files holds; docs/compliance/nhrp.md names the test of each.

use nhrp::{Input, Reject};
use wire::nhrp::{Body, Cie, CieCode, ErrorCode, Extension, ExtensionType, Flags, Message, MessageType};

use crate::net::*;

fn ready(spokes: usize) -> Net {
    let mut net = Net::new(spokes, &Setup::default());
    net.run(seconds(1));
    net
}

/// The last message of a kind that a node sent, and where to.
fn last(net: &Net, node: usize, kind: MessageType) -> (model::NbmaAddr, Message) {
    let (_, to, message) = net.messages(node, kind).pop().unwrap_or_else(|| panic!("no {kind:?} of {node}"));
    (to, message)
}

/// A resolution request of node 1 for a host behind node 2, as it sends it; nobody has heard it yet.
fn request(net: &mut Net) -> Message {
    net.cut.insert((0, 1));
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(2) });
    net.cut.clear();
    let mut message = last(net, 1, MessageType::ResolutionRequest).1;
    message.destination = Some(host(2, 9).0);
    message
}

fn exchange(message: &Message) -> (Flags, u32, &[Cie]) {
    match &message.body {
        Body::Exchange { flags, request_id, entries, .. } => (*flags, *request_id, entries),
        other => panic!("{other:?}"),
    }
}

fn change(message: &mut Message, with: impl FnOnce(&mut Flags, &mut Vec<Cie>)) {
    match &mut message.body {
        Body::Exchange { flags, entries, .. } => with(flags, entries),
        other => panic!("{other:?}"),
    }
}

/// §5.2.3, §5.2.5: a client without its server's protocol address puts its own in its place, when it registers and when it leaves.
#[test]
fn a_client_that_does_not_know_its_server_names_itself() {
    let mut net = Net::idle(1, &Setup::default());
    net.start(0);
    net.cut.insert((0, 1));
    net.start(1);
    let (_, mut request) = last(&net, 1, MessageType::RegistrationRequest);
    request.destination = request.source;
    net.hear(0, 1, &request);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)), "for the server it is the same");
    assert_eq!(last(&net, 0, MessageType::RegistrationReply).1.destination, request.source);
    let mut purge = request;
    if let Body::Exchange { kind, flags, entries, .. } = &mut purge.body {
        *kind = wire::nhrp::Kind::PurgeRequest;
        *flags = Flags::default();
        *entries = vec![Cie { prefix: 32, protocol: Some(overlay(1).0), ..Cie::default() }];
    }
    net.hear(0, 1, &purge);
    assert_eq!(net.binding(0, overlay(1)), None);
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 1);
}

/// §5.2.3: what is for another server is passed on to it; §5.2.4: its reply goes straight to the client.
#[test]
fn a_registration_for_another_server_is_passed_on_and_answered_straight() {
    // Hubs 0 and 1, where 1 is a client of 0; spoke 2 is 0's.
    let mut net = Net::regions(&[1, 1], &Setup::default());
    net.run(seconds(1));
    let mut request = last(&net, 2, MessageType::RegistrationRequest).1;
    request.destination = Some(overlay(1).0);
    net.hear(0, 2, &request);
    let (to, passed) = last(&net, 0, MessageType::RegistrationRequest);
    assert_eq!((to, passed.hop_count), (nbma(1), request.hop_count - 1));
    net.run(millis(15));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(2)));
    let (to, reply) = last(&net, 1, MessageType::RegistrationReply);
    assert_eq!(to, nbma(2));
    assert_eq!((reply.source, exchange(&reply).1), (request.source, exchange(&request).1));
    assert_eq!(
        reply.extension(ExtensionType::FORWARD_TRANSIT),
        passed.extension(ExtensionType::FORWARD_TRANSIT),
        "the responder does not add itself (§5.3.2)"
    );
}

/// §5.2.0.1, §5.2.2, §5.2.4: a refusal has holding time 0; one of a resolution has one entry, with nothing in it.
#[test]
fn a_refusal_holds_nothing() {
    let mut net = ready(2);
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    net.run(millis(15));
    let (_, reply) = last(&net, 0, MessageType::ResolutionReply);
    assert_eq!(exchange(&reply).2, [Cie { code: CieCode::NO_BINDING, ..Cie::default() }]);

    // The address of node 2 for node 1.
    let mut request = last(&net, 1, MessageType::RegistrationRequest).1;
    request.source = Some(overlay(2).0);
    net.hear(0, 1, &request);
    let (_, reply) = last(&net, 0, MessageType::RegistrationReply);
    let entry = exchange(&reply).2[0];
    assert_eq!((entry.code, entry.holding_time), (CieCode::ALREADY_REGISTERED, 0));
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
}

/// §6.2.1: a server that is only passed forwards by nothing of what passes, and learns nothing of a reply.
#[test]
fn what_passes_teaches_a_server_nothing_that_it_forwards_by() {
    let mut net = Net::regions(&[1, 1], &Setup::default());
    net.run(seconds(1));
    let known = |net: &Net| net.nodes[..2].iter().map(|n| n.engine.census().entries).collect::<Vec<_>>();
    let before = known(&net);
    net.converse(2, 3, seconds(1));
    assert!(net.is_direct(2, 3));
    assert_eq!(known(&net), before);
    // An answer that takes the way back by servers that never saw the request.
    let (_, reply) = last(&net, 3, MessageType::ResolutionReply);
    let mut net = Net::regions(&[1, 1], &Setup::default());
    net.run(seconds(1));
    net.hear(1, 3, &reply);
    net.run(millis(30));
    assert_eq!(net.messages(0, MessageType::ResolutionReply).len(), 1);
    assert_eq!(known(&net), before);
    assert!((0..2).all(|hub| net.nodes[hub].engine.heard(net.now).is_empty()));
}

/// §5.2.2, §5.3: what a request brought along, its reply brings back, in the same order; vendors' own may be several. What it passed is as
/// it was: the responder adds nothing there.
#[test]
fn an_answer_brings_back_every_extension_in_its_place() {
    let mut net = ready(2);
    let request = request(&mut net);
    let mut passed = {
        net.hear(0, 1, &request);
        last(&net, 0, MessageType::ResolutionRequest).1
    };
    let vendor = |octet| Extension::new(ExtensionType::VENDOR, false, vec![0, 0, 12, octet]);
    let extensions = passed.extensions.as_mut().unwrap();
    extensions.insert(0, vendor(1));
    extensions.insert(3, vendor(2));
    extensions.push(vendor(3));
    net.hear(2, 0, &passed);
    let (_, reply) = last(&net, 2, MessageType::ResolutionReply);
    let kinds = |m: &Message| m.extensions.iter().flatten().map(|e| e.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(&reply), kinds(&passed));
    let vendors: Vec<_> =
        reply.extensions.iter().flatten().filter(|e| e.kind() == ExtensionType::VENDOR).cloned().collect();
    assert_eq!(vendors, [1, 2, 3].map(vendor));
    for record in [ExtensionType::FORWARD_TRANSIT, ExtensionType::REVERSE_TRANSIT] {
        assert_eq!(reply.extension(record), passed.extension(record));
    }
}

/// §5.3.1, §5.3.3: a reply that was here before, or that we gave, is not passed on again.
#[test]
fn a_reply_that_names_us_is_in_a_loop() {
    for record in [ExtensionType::RESPONDER, ExtensionType::REVERSE_TRANSIT] {
        let mut net = ready(2);
        let request = request(&mut net);
        net.hear(2, 0, &request);
        let mut reply = last(&net, 2, MessageType::ResolutionReply).1;
        let us = Cie { nbma: Some(nbma(0).0), protocol: Some(overlay(0).0), ..Cie::default() };
        let families = reply.families;
        let mut named = Extension::empty(record, true);
        let _ = named.push(&us, families);
        *reply.extension_mut(record).unwrap() = named;
        let before = net.messages(0, MessageType::ResolutionReply).len();
        net.hear(0, 2, &reply);
        assert_eq!(net.messages(0, MessageType::ResolutionReply).len(), before, "{record:?}");
        assert_eq!(net.rejects(0, Reject::Loop), 1);
        // Who answered is told; that is nobody else if we did.
        let errors = net.messages(0, MessageType::ErrorIndication);
        let is_loop = |m: &Message| matches!(m.body, Body::Error { code: ErrorCode::LOOP_DETECTED, .. });
        assert_eq!(errors.len(), usize::from(record == ExtensionType::REVERSE_TRANSIT));
        assert!(errors.iter().all(|(_, to, error)| *to == nbma(2) && is_loop(error)));
    }
}

/// §5.3.1, §5.3.2: a node with several addresses is the same one wherever it names itself.
#[test]
fn a_server_names_itself_by_one_of_its_addresses() {
    let mut net = Net::idle(2, &Setup::default());
    net.nodes[0].tunnel.addresses.push("172.16.200.1/16".parse().unwrap());
    net.start_all();
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(60));
    let names = |message: &Message, record| {
        let entries = message.extension(record).unwrap().entries(message.families).unwrap();
        entries.iter().map(|e| e.protocol.unwrap()).collect::<Vec<_>>()
    };
    let (_, reply) = last(&net, 0, MessageType::RegistrationReply);
    assert_eq!(names(&reply, ExtensionType::RESPONDER), [overlay(0).0]);
    let (_, passed) = last(&net, 0, MessageType::ResolutionRequest);
    assert_eq!(names(&passed, ExtensionType::FORWARD_TRANSIT), [overlay(0).0]);
}

/// §2.2: not one request for each packet.
#[test]
fn a_thousand_packets_ask_once() {
    let mut net = ready(2);
    for _ in 0..1000 {
        net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    }
    assert_eq!(net.messages(1, MessageType::ResolutionRequest).len(), 1);
}

/// §6.4: what comes in by the cloud asks for nothing, at no hub that it passes; only where it comes in from elsewhere is there a request.
#[test]
fn no_domino_falls() {
    let mut net = Net::regions(&[1, 1, 1], &Setup::default());
    net.run(seconds(1));
    // Packets that find every hub on their way, again and again.
    net.nodes[4].tunnel.nhrp.shortcut = false;
    net.start(4);
    net.converse(4, 5, seconds(20));
    for hub in 0..3 {
        let asked = net.messages(hub, MessageType::ResolutionRequest);
        let ours = asked.iter().filter(|(_, _, m)| (0..3).any(|h| m.source == Some(overlay(h).0)));
        assert_eq!(ours.count(), 0, "hub {hub}");
    }
    assert_eq!(net.messages(4, MessageType::ResolutionRequest).len(), 0);
    assert!(!net.messages(5, MessageType::ResolutionRequest).is_empty());
}

/// §5.2.7: one packet, one indication; and it goes no further.
#[test]
fn a_packet_is_complained_of_once_and_goes_no_further() {
    let mut net = ready(2);
    let mut request = request(&mut net);
    // Wrong in three ways: no hop left, passed here before, and an extension twice.
    request.hop_count = 0;
    let us = Cie { nbma: Some(nbma(0).0), protocol: Some(overlay(0).0), ..Cie::default() };
    let families = request.families;
    let _ = request.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap().push(&us, families);
    let twice = Extension::empty(ExtensionType::RESPONDER, true);
    request.extensions.as_mut().unwrap().push(twice);
    let before = net.nodes[0].sent.len();
    net.hear(0, 1, &request);
    assert_eq!(net.nodes[0].sent.len() - before, 1);
    assert_eq!(net.messages(0, MessageType::ErrorIndication).len(), 1);
}

/// §5.2.3: what is unique is one.
#[test]
fn a_unique_registration_has_one_entry() {
    let mut net = ready(1);
    let mut request = last(&net, 1, MessageType::RegistrationRequest).1;
    change(&mut request, |flags, entries| {
        assert!(flags.has(Flags::UNIQUE));
        entries.push(Cie {
            holding_time: 60,
            nbma: Some(nbma(1).0),
            protocol: Some(overlay(9).0),
            ..Cie::default()
        });
    });
    net.hear(0, 1, &request);
    assert_eq!((net.binding(0, overlay(9)), net.rejects(0, Reject::Malformed)), (None, 1));
    change(&mut request, |flags, _| *flags = Flags::default());
    net.hear(0, 1, &request);
    assert_eq!(net.binding(0, overlay(9)), Some(nbma(1)), "without U there may be more");
}

/// §5.2.2: what is behind a node is told only where the configuration wants that (4).
#[test]
fn a_resolution_is_refused_for_policy() {
    let mut net = ready(2);
    net.nodes[2].tunnel.nhrp.shortcut = false;
    net.start(2);
    let asked = request(&mut net);
    net.hear(2, 1, &asked);
    let (_, reply) = last(&net, 2, MessageType::ResolutionReply);
    assert_eq!(exchange(&reply).2, [Cie { code: CieCode::ADMINISTRATIVELY_PROHIBITED, ..Cie::default() }]);
}
