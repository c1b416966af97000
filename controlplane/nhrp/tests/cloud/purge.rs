//! Purge: what is no longer true is forgotten where it was told.

use model::{Prefix, ProtocolAddr};
use nhrp::{Input, Reject, Sender};
use wire::nhrp::{Body, Cie, ExtensionType, Flags, Kind, Message, MessageType};

use crate::net::*;

fn conversing() -> Net {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    net
}

/// The LAN behind node 2 goes away: node 1 is told, drops its shortcut, and asks anew when it is needed.
#[test]
fn a_withdrawn_route_is_purged_where_it_was_told() {
    let mut net = conversing();
    net.nodes[2].rib.0.remove(&lan(2));
    net.routes_changed(2, &[lan(2)]);
    net.run(millis(15));
    assert_eq!(net.route(1, lan(2)), None);
    let (_, to, purge) = net.messages(2, MessageType::PurgeRequest).pop().unwrap();
    assert_eq!(to, nbma(1));
    let Body::Exchange { entries, flags, .. } = &purge.body else { panic!() };
    let entry = entries[0];
    assert_eq!((entry.prefix, entry.protocol, entry.holding_time), (24, Some(lan(2).addr()), 0));
    assert_eq!(*flags, Flags::default());
    // The reply stops it from being sent again.
    net.run(seconds(10));
    assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 1);
    let (_, _, reply) = net.messages(1, MessageType::PurgeReply).pop().unwrap();
    assert!(matches!((&reply.body, &purge.body),
        (Body::Exchange { request_id: a, kind: Kind::PurgeReply, .. }, Body::Exchange { request_id: b, .. }) if a == b));
    // Packets went there, so it was asked for again at once, and there was nothing. It comes back, wider: asked for after the rest, it is
    // answered as it is now.
    assert!(net.has_event(1, |e| matches!(e, nhrp::Event::Unresolved { .. })));
    net.run(seconds(16));
    net.nodes[2].rib.0.insert(prefix("192.168.2.0/23"), Lead::Lan);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(50));
    assert_eq!(net.route(1, prefix("192.168.2.0/23")), Some(overlay(2)));
}

#[test]
fn a_route_that_is_as_it_was_purges_nothing() {
    let mut net = conversing();
    net.routes_changed(2, &[lan(2), prefix("0.0.0.0/0")]);
    net.routes_changed(1, &[lan(2), prefix("0.0.0.0/0")]);
    assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 0);
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
}

/// What was answered is narrower than the route, as its requester wanted: it is true for as long as the route is there.
#[test]
fn an_answer_that_its_requester_clamped_is_not_purged_by_a_route_that_is_as_it_was() {
    for is_restarted in [false, true] {
        let mut net = Net::new(2, &Setup::default());
        net.run(seconds(1));
        net.packet(1, host(1, 9), host(2, 9));
        net.run(millis(50));
        let (_, to, mut request) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
        let Body::Exchange { entries, request_id, .. } = &mut request.body else { panic!() };
        entries[0].prefix = 26;
        *request_id += 1000;
        request.source = Some(overlay(7).0);
        let bytes = request.encode();
        net.give(2, Input::Packet { tunnel: tunnel0(), from: to.into(), destination: nbma(2), bytes });
        if is_restarted {
            net.restart(2);
        }
        net.routes_changed(2, &[lan(2)]);
        assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 0);
        net.nodes[2].rib.0.remove(&lan(2));
        net.routes_changed(2, &[lan(2)]);
        assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 2);
    }
}

/// A more specific route elsewhere makes the answer untrue for its part.
#[test]
fn a_new_part_purges_the_whole() {
    let mut net = conversing();
    net.nodes[2].rib.0.insert(prefix("192.168.2.64/26"), Lead::Via(overlay(0)));
    net.routes_changed(2, &[prefix("192.168.2.64/26")]);
    net.run(millis(15));
    assert_eq!(net.route(1, lan(2)), None);
}

/// The requester's own routes change: a shortcut beside a route that is gone, or leads elsewhere, is dropped.
#[test]
fn a_shortcut_ends_with_the_route_it_left_aside() {
    let mut net = conversing();
    net.nodes[1].rib.0.insert(lan(2), Lead::Lan);
    net.routes_changed(1, &[lan(2)]);
    assert_eq!(net.route(1, lan(2)), None);
    let mut net = conversing();
    net.nodes[1].rib.0.insert(prefix("192.168.0.0/16"), Lead::Via(overlay(3)));
    net.routes_changed(1, &[prefix("192.168.0.0/16")]);
    assert_eq!(net.route(1, lan(2)), None);
}

#[test]
fn a_purge_is_repeated_and_then_left() {
    let mut net = conversing();
    net.nodes[1].alive = false;
    net.nodes[2].rib.0.remove(&lan(2));
    net.routes_changed(2, &[lan(2)]);
    net.run(seconds(300));
    let purges = net.messages(2, MessageType::PurgeRequest);
    let pauses: Vec<_> = purges.windows(2).map(|w| w[1].0.since(w[0].0).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8]);
    assert!(purges.iter().all(|(_, _, m)| m == &purges[0].2), "one request");
    assert_eq!(net.nodes[2].engine.census().purges, 0);
}

fn purge(net: &Net, from: usize, protocol: model::ProtocolAddr, prefix: u8, flags: Flags) -> Message {
    let (_, _, mut message) = net.messages(from, MessageType::RegistrationRequest).pop().unwrap();
    let entry = Cie { prefix, protocol: Some(protocol.0), ..Cie::default() };
    message.body = Body::Exchange { kind: Kind::PurgeRequest, flags, request_id: 7, entries: vec![entry] };
    message
}

#[test]
fn a_client_takes_back_its_own_registration_and_no_other() {
    let mut net = conversing();
    let message = purge(&net, 1, overlay(2), 32, Flags::default());
    net.hear(0, 1, &message);
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
    let message = purge(&net, 1, overlay(1), 32, Flags::default());
    net.hear(0, 1, &message);
    assert_eq!(net.binding(0, overlay(1)), None);
    // (A whole subnet is what is behind the sender; its registration is not.)
    net.run(seconds(200));
    let message = purge(&net, 1, "172.16.0.0".parse().unwrap(), 16, Flags::NO_REPLY);
    net.hear(0, 1, &message);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    // Answered both times: also where nothing matched.
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 2);
    let message = purge(&net, 1, overlay(1), 32, Flags::NO_REPLY);
    net.hear(0, 1, &message);
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 2, "N: no reply wanted");
}

#[test]
fn a_purged_next_hop_takes_its_shortcuts_along() {
    let mut net = conversing();
    let mut message = purge(&net, 2, overlay(2), 0, Flags::default());
    message.destination = Some(overlay(1).0);
    net.hear(1, 2, &message);
    assert_eq!((net.binding(1, overlay(2)), net.route(1, lan(2))), (None, None));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 0, 2]));
}

#[test]
fn an_unsolicited_reply_is_ignored() {
    let mut net = conversing();
    let mut message = purge(&net, 1, overlay(2), 32, Flags::default());
    if let Body::Exchange { kind, .. } = &mut message.body {
        *kind = Kind::PurgeReply;
    }
    net.hear(1, 0, &message);
    assert_eq!(net.rejects(1, Reject::Unsolicited), 1);
}

/// A clean stop: the hub and the other spoke forget at once.
#[test]
fn a_shutdown_says_goodbye() {
    let mut net = conversing();
    net.give(1, Input::Shutdown);
    net.run(millis(15));
    assert_eq!(net.binding(0, overlay(1)), None);
    assert_eq!((net.route(2, lan(1)), net.binding(2, overlay(1))), (None, None));
    let purges = net.messages(1, MessageType::PurgeRequest);
    assert_eq!(purges.len(), 2);
    assert!(purges.iter().all(|(_, _, m)| matches!(m.body, Body::Exchange { flags: Flags::NO_REPLY, .. })));
}

/// A change of the NBMA address reaches those who send straight to the old one.
#[test]
fn a_new_nbma_address_is_told_to_whom_the_old_one_was_told() {
    let mut net = conversing();
    net.nodes[1].tunnel.nbma = Some(nbma(7));
    net.start(1);
    net.run(millis(30));
    assert_eq!(net.route(2, lan(1)), None);
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)).unwrap()[..2], [2, 0]);
    net.run(millis(100));
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 1]));
    assert_eq!(net.binding(2, overlay(1)), Some(nbma(7)));
}

/// Who was only asked, and took our binding from that, is told as well.
#[test]
fn a_new_nbma_address_is_told_to_whom_was_asked() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.binding(2, overlay(1)), Some(nbma(1)));
    net.nodes[1].tunnel.nbma = Some(nbma(7));
    net.start(1);
    net.run(millis(30));
    assert_eq!(net.binding(2, overlay(1)), None);
}

#[test]
fn an_operators_clear_forgets_what_matches() {
    let mut net = Net::new(3, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    net.converse(1, 3, seconds(1));
    let clear = |address| nhrp::Clear { tunnel: Some(tunnel0()), address };
    net.give(1, Input::Clear(clear(Some(overlay(2)))));
    assert_eq!((net.binding(1, overlay(2)), net.route(1, lan(2))), (None, None));
    assert_eq!((net.binding(1, overlay(3)), net.route(1, lan(3))), (Some(nbma(3)), Some(overlay(3))));
    net.give(1, Input::Clear(nhrp::Clear { tunnel: Some(name("tunnel1")), address: None }));
    assert_eq!(net.route(1, lan(3)), Some(overlay(3)));
    net.give(1, Input::Clear(clear(None)));
    assert_eq!(net.routes(1), [] as [Prefix; 0]);
    assert_eq!(net.binding(1, overlay(0)), Some(nbma(0)), "the server is configured");
}

/// A hub that answers for its clients from its cache, and has told node 1 where node 2 is.
fn told_by_the_hub(setup: &Setup) -> Net {
    let mut net = Net::idle(3, setup);
    net.nodes[0].tunnel.nhrp.answer_from_cache = true;
    net.start_all();
    net.run(seconds(1));
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(2)));
    assert_eq!(net.received(2, MessageType::ResolutionRequest), 0, "the hub answered");
    net
}

/// What the hub tells others to forget.
fn purged_by_the_hub(net: &Net) -> Vec<(model::NbmaAddr, ProtocolAddr)> {
    let purges = net.messages(0, MessageType::PurgeRequest);
    let of = |m: &Message| match &m.body {
        Body::Exchange { entries, .. } => ProtocolAddr(entries[0].protocol.unwrap()),
        _ => panic!(),
    };
    purges.iter().map(|(_, to, m)| (*to, of(m))).collect()
}

/// RFC 2332 §5.2.5: a server that is told to forget a client tells whom it had told of it, with a request of its own.
#[test]
fn a_server_tells_those_that_it_told_when_a_client_leaves() {
    let mut net = told_by_the_hub(&Setup::default());
    net.give(2, Input::Shutdown);
    net.kill(2);
    net.run(millis(25));
    assert_eq!((net.binding(0, overlay(2)), net.binding(1, overlay(2))), (None, None));
    let (_, to, purge) = net.messages(0, MessageType::PurgeRequest).pop().unwrap();
    assert_eq!((to, purge.source, purge.destination), (nbma(1), Some(overlay(0).0), Some(overlay(1).0)));
    assert_eq!(purge.source_nbma, Some(nbma(0).0));
    let Body::Exchange { entries, flags, .. } = &purge.body else { panic!() };
    let wanted = Cie { prefix: 32, protocol: Some(overlay(2).0), ..Cie::default() };
    assert_eq!((entries.as_slice(), *flags), (&[wanted][..], Flags::default()));
    // It is answered, and said once.
    net.run(seconds(60));
    assert_eq!(purged_by_the_hub(&net), [(nbma(1), overlay(2))]);
    assert_eq!(net.nodes[0].engine.census().told, 0);
}

/// What is asked for again after a purge is asked with authority, and heard as it is now.
#[test]
fn what_was_purged_is_asked_for_again_where_it_is_wanted() {
    let mut net = told_by_the_hub(&Setup::default());
    net.nodes[2].tunnel.nbma = Some(nbma(7));
    net.start(2);
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), None);
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(7)));
    let (_, _, request) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
    assert!(matches!(request.body, Body::Exchange { flags, .. } if flags.has(Flags::AUTHORITATIVE)));
}

/// A client that is elsewhere, without having said that it left: by a registration that takes the place of the other.
#[test]
fn a_server_tells_those_that_it_told_when_a_client_moves() {
    let mut net = told_by_the_hub(&Setup { unique: false, ..Setup::default() });
    net.kill(2);
    net.nodes[3].tunnel.addresses = net.nodes[2].tunnel.addresses.clone();
    net.start(3);
    net.run(millis(100));
    assert_eq!((net.binding(0, overlay(2)), net.binding(1, overlay(2))), (Some(nbma(3)), None));
    assert_eq!(purged_by_the_hub(&net), [(nbma(1), overlay(2))]);
}

/// A refresh is no move, and of what ends by itself at the same time nobody need be told.
#[test]
fn a_refresh_and_an_end_that_was_foretold_purge_nothing() {
    let mut net = told_by_the_hub(&Setup { holding: 60, ..Setup::default() });
    net.run(seconds(30));
    assert_eq!(purged_by_the_hub(&net), []);
    net.kill(2);
    net.run(seconds(120));
    assert_eq!((net.binding(0, overlay(2)), net.binding(1, overlay(2))), (None, None));
    assert_eq!(purged_by_the_hub(&net), []);
}

/// The operator clears the entry, or says himself where the client is.
#[test]
fn a_server_tells_those_that_it_told_when_its_operator_says_otherwise() {
    let mut net = told_by_the_hub(&Setup::default());
    net.give(0, Input::Clear(nhrp::Clear { tunnel: None, address: Some(overlay(2)) }));
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), None);
    let mut net = told_by_the_hub(&Setup::default());
    net.nodes[0].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(2), nbma: nbma(9) });
    net.start(0);
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), None);
    assert_eq!(purged_by_the_hub(&net), [(nbma(1), overlay(2))]);
    // And when he takes that back, or says something else.
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(9)));
    net.nodes[0].tunnel.nhrp.map.clear();
    net.start(0);
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), None);
}

/// It is said again until it is answered, also after a restart of the server between the answer and the purge.
#[test]
fn those_that_were_told_are_told_through_loss_and_restart() {
    let mut net = told_by_the_hub(&Setup::default());
    net.restart(0);
    net.give(2, Input::Shutdown);
    net.kill(2);
    net.cut.insert((0, 1));
    net.run(seconds(2));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(2)));
    net.cut.clear();
    net.run(seconds(5));
    assert_eq!(net.binding(1, overlay(2)), None);
    assert_eq!(net.nodes[0].engine.census().purges, 0);
}

/// The answer that a client gave itself it takes back itself; its server only passes on what is for others.
#[test]
fn an_answer_that_only_passed_is_taken_back_by_its_client() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.received(2, MessageType::ResolutionRequest), 1);
    net.give(2, Input::Shutdown);
    net.run(millis(50));
    assert_eq!(net.binding(1, overlay(2)), None);
    assert_eq!(purged_by_the_hub(&net), []);
}

/// Nobody takes back what another registered: nothing is forgotten, nobody is told, and it is answered as any.
#[test]
fn nobody_takes_back_what_another_registered() {
    let mut net = told_by_the_hub(&Setup::default());
    let message = purge(&net, 3, overlay(2), 32, Flags::default());
    net.hear(0, 3, &message);
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 1);
    // Nor in its name, where IKE knows who it is.
    let registration = net.messages(2, MessageType::RegistrationRequest).pop().unwrap().2;
    let by = |identity: &str| Sender {
        nbma: nbma(2),
        port: None,
        identity: Some(identity.to_owned()),
        certified: None,
    };
    let mut say = |from: Sender, message: &Message| {
        let bytes = message.encode();
        net.give(0, Input::Packet { tunnel: tunnel0(), from, destination: nbma(0), bytes });
        net.binding(0, overlay(2))
    };
    let mut leave = registration.clone();
    let entry = Cie { prefix: 32, protocol: Some(overlay(2).0), ..Cie::default() };
    leave.body = Body::Exchange {
        kind: Kind::PurgeRequest,
        flags: Flags::NO_REPLY,
        request_id: 7,
        entries: vec![entry],
    };
    say(by("spoke2"), &registration);
    assert_eq!(say(by("spoke3"), &leave), Some(nbma(2)));
    // A purge of where it was, that comes late, is none of where it is.
    let mut late = leave.clone();
    if let Body::Exchange { entries, .. } = &mut late.body {
        entries[0].nbma = Some(nbma(9).0);
    }
    assert_eq!(say(by("spoke2"), &late), Some(nbma(2)));
    assert_eq!(say(by("spoke2"), &leave), None);
    net.run(millis(50));
    assert_eq!(purged_by_the_hub(&net), [(nbma(1), overlay(2))]);
}

/// RFC 2332 §5.2.6: the reply is the request with its type changed and its extensions filled.
#[test]
fn a_purge_reply_is_the_request_with_its_extensions_filled() {
    let mut net = Net::new(1, &Setup { authentication: Some("secret".to_owned()), ..Setup::default() });
    net.run(seconds(1));
    let mut request = purge(&net, 1, overlay(7), 32, Flags::default());
    // Without knowledge of its server, a client names itself (RFC 2332 §5.2.5).
    request.destination = request.source;
    net.hear(0, 1, &request);
    let (_, to, reply) = net.messages(0, MessageType::PurgeReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    let Body::Exchange { flags, request_id, entries, .. } = request.body.clone() else { panic!() };
    assert_eq!(reply.body, Body::Exchange { kind: Kind::PurgeReply, flags, request_id, entries });
    assert_eq!(
        (reply.source, reply.source_nbma, reply.destination),
        (request.source, request.source_nbma, request.destination)
    );
    let kinds = |m: &Message| m.extensions.iter().flatten().map(|e| e.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(&reply), kinds(&request));
    let responder = reply.extension(ExtensionType::RESPONDER).unwrap().entries(reply.families).unwrap();
    assert_eq!((responder[0].protocol, responder[0].nbma), (Some(overlay(0).0), Some(nbma(0).0)));
}

/// A prefix of a node that is withdrawn while packets go there: the way that is left is asked for at once, not when the server
/// redirects again.
#[test]
fn a_purged_shortcut_in_use_is_asked_for_again_at_once() {
    let mut net = conversing();
    net.nodes[2].rib.0.remove(&lan(2));
    net.nodes[2].rib.0.insert(prefix("192.168.2.0/25"), Lead::Lan);
    net.routes_changed(2, &[lan(2), prefix("192.168.2.0/25")]);
    net.run(millis(100));
    assert_eq!((net.route(1, lan(2)), net.route(1, prefix("192.168.2.0/25"))), (None, Some(overlay(2))));
}
