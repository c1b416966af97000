//! What a server refuses, or does not hear, because it is too much.

use model::Prefix;
use model::config::NhrpLimits;
use model::program::Key;
use nhrp::{Event, Input, Reject, Sender};
use wire::nhrp::{Body, CieCode, Flags, Kind, Message, MessageType};

use crate::net::*;
use crate::registration::{TAKEN, entry, register, request_of, sender, with_entries};

const FULL: [CieCode; 1] = [CieCode::INSUFFICIENT_RESOURCES];

fn limited(spokes: usize, limits: NhrpLimits) -> Net {
    let mut net = Net::idle(spokes, &Setup::default());
    net.nodes[0].tunnel.nhrp.limits = limits;
    net.start_all();
    net.run(seconds(1));
    net
}

/// RFC 2332 §5.2.4, code 5: one client too many is told so. Those that are there are not touched, and refresh; when one leaves, the
/// next one has its room.
#[test]
fn one_registration_too_many_is_refused_and_no_refresh_is() {
    let mut net = limited(3, NhrpLimits { registrations: 2, ..NhrpLimits::default() });
    let refused = net.spokes().find(|n| net.binding(0, overlay(*n)).is_none()).unwrap();
    assert!(net.rejects(0, Reject::NoRoom) > 0);
    let servers = net.nodes[refused].engine.servers(net.now);
    assert_eq!(servers[0].refusal.as_deref(), Some("insufficient resources"));
    let known: Vec<_> = net.spokes().filter(|n| *n != refused).collect();
    for node in &known {
        let request = request_of(&net, *node);
        assert_eq!(register(&mut net, &sender(*node, None, None), &request), TAKEN);
    }
    net.run(seconds(3600));
    assert_eq!(net.spokes().filter(|n| net.binding(0, overlay(*n)).is_some()).count(), 2);
    assert!(!net.has_event(0, |e| matches!(e, Event::Gone { .. })));
    net.give(known[0], Input::Shutdown);
    net.kill(known[0]);
    net.run(seconds(65));
    assert_eq!(net.binding(0, overlay(refused)), Some(nbma(refused)));
}

/// A client of the configuration has its room by that.
#[test]
fn a_configured_client_is_never_one_too_many() {
    let mut net = Net::idle(2, &Setup::default());
    net.nodes[0].tunnel.nhrp.limits.registrations = 1;
    net.nodes[0].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(2), nbma: nbma(2) });
    net.start_all();
    net.run(seconds(1));
    assert_eq!(net.rejects(0, Reject::NoRoom), 0);
    assert!(entry(&net, 0, Prefix::host(overlay(2).0)).unwrap().flags.registered);
}

#[test]
fn registered_prefixes_count() {
    let mut net = limited(1, NhrpLimits { registrations: 2, ..NhrpLimits::default() });
    net.nodes[0].tunnel.nhrp.accept_prefixes = vec![prefix("10.20.0.0/16")];
    net.start(0);
    let of = |network: &str| {
        let network = prefix(network);
        let (prefix, protocol) = (network.length(), Some(network.addr()));
        wire::nhrp::Cie { prefix, protocol, holding_time: 60, ..Default::default() }
    };
    let mut request = with_entries(request_of(&net, 1), &[of("10.20.1.0/24"), of("10.20.2.0/24")]);
    if let Body::Exchange { flags, .. } = &mut request.body {
        *flags = Flags::default();
    }
    let codes = [CieCode::SUCCESS, CieCode::INSUFFICIENT_RESOURCES];
    assert_eq!(register(&mut net, &sender(1, None, None), &request), codes);
    assert_eq!(register(&mut net, &sender(1, None, None), &request), codes, "its refresh is no second one");
    assert_eq!(net.routes(0), [prefix("10.20.1.0/24")]);
}

/// A request that a client of the hub makes in somebody's name, as one that floods makes thousands of.
fn learn(net: &mut Net, of: usize) {
    let Some((_, _, mut request)) = net.messages(1, MessageType::RegistrationRequest).pop() else { panic!() };
    if let Body::Exchange { kind, flags, entries, request_id } = &mut request.body {
        *kind = Kind::ResolutionRequest;
        *flags = Flags::SOURCE_STABLE | Flags::AUTHORITATIVE;
        *request_id = u32::try_from(of).unwrap();
        entries[0].holding_time = u16::try_from(of).unwrap();
    }
    request.source = Some(overlay(of).0);
    request.source_nbma = Some(nbma(of).0);
    request.destination = Some(overlay(0).0);
    request.extensions = None;
    let bytes = request.encode();
    net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(of).into(), destination: nbma(0), bytes });
}

/// The cache is bounded as a whole. What others say of a peer makes way for what a client says of itself.
#[test]
fn the_cache_is_bounded_and_clients_come_before_what_is_only_learnt() {
    let mut net = limited(1, NhrpLimits { entries: 10, ..NhrpLimits::default() });
    for node in 10..30 {
        learn(&mut net, node);
    }
    let bindings = |net: &Net| {
        let keys = net.nodes[0].program.keys();
        keys.filter(|key| matches!(key, Key::Binding(..))).count()
    };
    assert_eq!(bindings(&net), 10);
    let request = request_of(&net, 1);
    let mut newcomer = |node: usize| {
        let request =
            Message { source: Some(overlay(node).0), source_nbma: Some(nbma(node).0), ..request.clone() };
        register(&mut net, &sender(node, None, None), &request)
    };
    for node in 50..59 {
        assert_eq!(newcomer(node), TAKEN);
    }
    // Nothing is left that is only learnt.
    assert_eq!(newcomer(59), FULL);
    assert_eq!(newcomer(50), TAKEN);
    assert_eq!(bindings(&net), 10);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
}

/// One that floods is not heard beyond its share, and not answered either: to answer a flood is to make another. The others are
/// heard, those behind the same address as well.
#[test]
fn a_flood_of_one_peer_takes_nothing_of_the_others() {
    let each = 10;
    let limits =
        NhrpLimits { requests_per_second: 100, requests_per_second_per_peer: each, ..NhrpLimits::default() };
    let mut net = limited(2, limits);
    net.run(seconds(2));
    let sent = |net: &mut Net, from: Sender, node: usize| {
        let before = net.messages(0, MessageType::RegistrationReply).len();
        let bytes = request_of(net, node).encode();
        net.give(0, Input::Packet { tunnel: tunnel0(), from, destination: nbma(0), bytes });
        net.messages(0, MessageType::RegistrationReply).len() - before
    };
    let events = net.nodes[0].events.len();
    let answers: usize = (0..1000).map(|_| sent(&mut net, sender(1, Some(4500), None), 1)).sum();
    assert_eq!(answers, 10);
    assert_eq!(net.rejects(0, Reject::RateLimited), 990);
    // A number, and not a thousand lines.
    assert_eq!(net.nodes[0].events.len(), events + 10);
    assert_eq!(sent(&mut net, sender(1, Some(1024), None), 1), 1);
    assert_eq!(sent(&mut net, sender(2, None, None), 2), 1);
    net.run(seconds(1));
    assert_eq!(sent(&mut net, sender(1, Some(4500), None), 1), 1);
}

/// A flood from everywhere is not heard beyond what all may ask together; what is known stays, and goes on when it is over.
#[test]
fn a_flood_from_everywhere_is_bounded_and_takes_nothing_that_is_known() {
    let limits = NhrpLimits { requests_per_second: 100, ..NhrpLimits::default() };
    let mut net = limited(2, limits);
    net.run(seconds(2));
    let request = request_of(&net, 1);
    let before = net.messages(0, MessageType::RegistrationReply).len();
    for node in 0..5_000 {
        let request = Message { source: Some(overlay(1000 + node).0), ..request.clone() };
        let bytes = request.encode();
        let from = nbma(1000 + node).into();
        net.give(0, Input::Packet { tunnel: tunnel0(), from, destination: nbma(0), bytes });
    }
    assert_eq!(net.messages(0, MessageType::RegistrationReply).len() - before, 100);
    net.run(seconds(3600));
    assert_eq!([1, 2].map(|n| net.binding(0, overlay(n))), [1, 2].map(|n| Some(nbma(n))));
}
