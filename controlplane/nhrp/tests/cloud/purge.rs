//! Purge: what is no longer true is forgotten where it was told.

use model::Prefix;
use nhrp::{Input, Reject};
use wire::nhrp::{Body, Cie, Flags, Kind, Message, MessageType};

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
    // It comes back, wider: asked for again, it is answered as it is now.
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
    net.run(seconds(30));
    assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 3);
}

fn purge(net: &Net, from: usize, protocol: model::ProtocolAddr, prefix: u8, flags: Flags) -> Message {
    let (_, _, mut message) = net.messages(from, MessageType::RegistrationRequest).pop().unwrap();
    let entry = Cie { prefix, protocol: Some(protocol.0), ..Cie::default() };
    message.body = Body::Exchange { kind: Kind::PurgeRequest, flags, request_id: 7, entries: vec![entry] };
    message
}

fn give(net: &mut Net, node: usize, from: usize, message: &Message) {
    let (source, destination) = (nbma(from), nbma(node));
    net.give(
        node,
        Input::Packet { tunnel: tunnel0(), from: source.into(), destination, bytes: message.encode() },
    );
}

#[test]
fn a_client_takes_back_its_own_registration_and_no_other() {
    let mut net = conversing();
    let message = purge(&net, 1, overlay(2), 32, Flags::default());
    give(&mut net, 0, 1, &message);
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
    let message = purge(&net, 1, overlay(1), 32, Flags::default());
    give(&mut net, 0, 1, &message);
    assert_eq!(net.binding(0, overlay(1)), None);
    // (A whole subnet is what is behind the sender; its registration is not.)
    net.run(seconds(200));
    let message = purge(&net, 1, "172.16.0.0".parse().unwrap(), 16, Flags::NO_REPLY);
    give(&mut net, 0, 1, &message);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    // Answered both times: also where nothing matched.
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 2);
    let message = purge(&net, 1, overlay(1), 32, Flags::NO_REPLY);
    give(&mut net, 0, 1, &message);
    assert_eq!(net.messages(0, MessageType::PurgeReply).len(), 2, "N: no reply wanted");
}

#[test]
fn a_purged_next_hop_takes_its_shortcuts_along() {
    let mut net = conversing();
    let mut message = purge(&net, 2, overlay(2), 0, Flags::default());
    message.destination = Some(overlay(1).0);
    give(&mut net, 1, 2, &message);
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
    give(&mut net, 1, 0, &message);
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
