//! Prefixes that clients register.

use model::Prefix;
use model::state::nhrp::EntryType;
use nhrp::{Event, Input};
use wire::nhrp::{Body, Cie, CieCode, Flags, Kind, Message, MessageType};

use crate::net::*;
use crate::registration::{PROHIBITED, TAKEN, entry, register, request_of, sender, with_entries, with_flags};

const BEHIND: &str = "10.20.0.0/24";

/// A hub that takes prefixes of 10.20/16, and clients that do not ask to be unique.
fn hub_of_prefixes(spokes: usize) -> Net {
    let mut net = Net::idle(spokes, &Setup { unique: false, ..Setup::default() });
    net.nodes[0].tunnel.nhrp.accept_prefixes = vec![prefix("10.20.0.0/16")];
    net.start_all();
    net.run(seconds(1));
    net
}

fn of(network: &str) -> Cie {
    let network = prefix(network);
    let length = network.length();
    Cie { prefix: length, holding_time: 60, protocol: Some(network.addr()), ..Cie::default() }
}

fn request(net: &Net, node: usize, networks: &[&str]) -> Message {
    let entries: Vec<_> = networks.iter().map(|network| of(network)).collect();
    with_entries(request_of(net, node), &entries)
}

fn claim(net: &mut Net, node: usize, network: &str) -> Vec<CieCode> {
    let request = request(net, node, &[network]);
    register(net, &sender(node, None, None), &request)
}

fn purge(net: &mut Net, node: usize, network: &str) {
    let mut message = request_of(net, node);
    let entries = vec![Cie { holding_time: 0, ..of(network) }];
    message.body =
        Body::Exchange { kind: Kind::PurgeRequest, flags: Flags::default(), request_id: 1, entries };
    let bytes = message.encode();
    net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(node).into(), destination: nbma(0), bytes });
}

/// It is a route by way of its client, whose own address is registered as well, and ends with its holding time.
#[test]
fn a_prefix_is_a_route_by_way_of_its_client_for_its_holding_time() {
    let mut net = hub_of_prefixes(1);
    assert_eq!(claim(&mut net, 1, BEHIND), TAKEN);
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(1)));
    let shown = entry(&net, 0, prefix(BEHIND)).unwrap();
    assert_eq!(
        (shown.entry_type, shown.next_hop, shown.nbma),
        (EntryType::Dynamic, overlay(1), Some(nbma(1)))
    );
    assert!(shown.flags.registered && shown.expires_in == Some(seconds(60)));
    assert!(net.nodes[0].engine.shortcuts(net.now).is_empty(), "it is no shortcut");
    net.run(seconds(59));
    assert_eq!(claim(&mut net, 1, BEHIND), TAKEN);
    net.run(seconds(59));
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(1)), "refreshed");
    // A restart takes nothing of its time, and adds none.
    net.restart(0);
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(1)));
    net.run(seconds(2));
    assert_eq!(net.route(0, prefix(BEHIND)), None);
    assert!(entry(&net, 0, prefix(BEHIND)).is_none());
}

/// Also where the request says no more than how long the prefix around its own address is.
#[test]
fn a_prefix_around_the_client_itself() {
    let mut net = hub_of_prefixes(1);
    net.nodes[0].tunnel.nhrp.accept_prefixes = vec![prefix("172.16.0.0/16")];
    net.start(0);
    let around = |length| Cie { prefix: length, holding_time: 60, ..Cie::default() };
    let moved = Message { source: Some("172.16.9.1".parse().unwrap()), ..request_of(&net, 1) };
    let narrow = with_entries(moved.clone(), &[around(24)]);
    assert_eq!(register(&mut net, &sender(1, None, None), &narrow), TAKEN);
    let client = "172.16.9.1".parse().unwrap();
    assert_eq!(net.route(0, prefix("172.16.9.0/24")), Some(client));
    assert_eq!(net.binding(0, client), Some(nbma(1)));
    // Never one that the server itself is in.
    let wide = with_entries(moved, &[around(16)]);
    assert_eq!(register(&mut net, &sender(1, None, None), &wide), PROHIBITED);
}

/// RFC 2332 §5.2.4, code 4: without the operator's word, outside of what he says, with U, and of somebody else.
#[test]
fn a_prefix_that_is_not_allowed_is_refused() {
    let mut net = hub_of_prefixes(1);
    assert_eq!(claim(&mut net, 1, "10.21.0.0/24"), PROHIBITED);
    assert_eq!(claim(&mut net, 1, "10.0.0.0/8"), PROHIBITED, "wider than what is allowed");
    let unique = with_flags(request(&net, 1, &[BEHIND]), Flags::UNIQUE);
    assert_eq!(register(&mut net, &sender(1, None, None), &unique), PROHIBITED);
    let elsewhere = with_entries(request_of(&net, 1), &[Cie { nbma: Some(nbma(9).0), ..of(BEHIND) }]);
    assert_eq!(register(&mut net, &sender(1, None, None), &elsewhere), PROHIBITED);
    assert_eq!(net.routes(0), [] as [Prefix; 0]);
    // 0, the bits of the address and 0xff are a host, wherever.
    for length in [0, 32, 33, 128, 255] {
        let host = Cie { prefix: length, ..of("10.21.0.7/32") };
        let request = with_entries(request_of(&net, 1), &[host]);
        assert_eq!(register(&mut net, &sender(1, None, None), &request), TAKEN, "{length}");
    }
    assert_eq!(net.routes(0), [] as [Prefix; 0]);
}

/// Several in one request, each with its own code.
#[test]
fn prefixes_of_one_request_have_their_own_codes() {
    let mut net = hub_of_prefixes(1);
    let request = request(&net, 1, &[BEHIND, "10.21.0.0/24", "10.20.8.0/22"]);
    let codes = register(&mut net, &sender(1, None, None), &request);
    let (ok, prohibited) = (CieCode::SUCCESS, CieCode::ADMINISTRATIVELY_PROHIBITED);
    assert_eq!(codes, [ok, prohibited, ok]);
    assert_eq!(net.routes(0), [prefix(BEHIND), prefix("10.20.8.0/22")]);
}

/// It ends when its client takes it back, or its own registration; nobody else takes it back.
#[test]
fn a_prefix_is_taken_back_by_its_client_alone() {
    let mut net = hub_of_prefixes(2);
    claim(&mut net, 1, BEHIND);
    purge(&mut net, 2, BEHIND);
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(1)));
    // A part of it is not the prefix.
    purge(&mut net, 1, "10.20.0.0/25");
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(1)));
    purge(&mut net, 1, BEHIND);
    assert_eq!((net.route(0, prefix(BEHIND)), net.binding(0, overlay(1))), (None, Some(nbma(1))));
    claim(&mut net, 1, BEHIND);
    net.give(1, Input::Shutdown);
    net.run(millis(50));
    assert_eq!((net.route(0, prefix(BEHIND)), net.binding(0, overlay(1))), (None, None));
}

/// As of a host that is not unique: the newest holds.
#[test]
fn the_newest_client_has_the_prefix() {
    let mut net = hub_of_prefixes(2);
    claim(&mut net, 1, BEHIND);
    assert_eq!(claim(&mut net, 2, BEHIND), TAKEN);
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(2)));
    // The going of the former one takes nothing away.
    net.give(1, Input::Shutdown);
    net.run(millis(50));
    assert_eq!(net.route(0, prefix(BEHIND)), Some(overlay(2)));
}

/// The operator's word is taken back, and so is what rested on it.
#[test]
fn a_prefix_that_is_not_allowed_any_more_ends() {
    let mut net = hub_of_prefixes(1);
    claim(&mut net, 1, BEHIND);
    net.nodes[0].tunnel.nhrp.accept_prefixes.clear();
    net.start(0);
    assert_eq!((net.route(0, prefix(BEHIND)), net.binding(0, overlay(1))), (None, Some(nbma(1))));
}

/// Who asks for what is in it is led to its client: the request goes there, as with a route, and the client answers.
#[test]
fn requests_for_a_registered_prefix_go_to_its_client() {
    let mut net = hub_of_prefixes(2);
    let behind = prefix(BEHIND);
    net.nodes[1].rib.0.insert(prefix("10.20.0.0/16"), Lead::Via(overlay(0)));
    net.nodes[2].rib.0.insert(behind, Lead::Lan);
    claim(&mut net, 2, BEHIND);
    let (from, to) = (host(1, 9), "10.20.0.9".parse().unwrap());
    assert_eq!(net.packet(1, from, to), Some(vec![1, 0, 2]), "by way of the hub");
    net.run(millis(50));
    let is_redirected = |e: &Event| matches!(e, Event::RedirectSent { .. });
    assert!(net.has_event(0, is_redirected) && net.received(2, MessageType::ResolutionRequest) == 1);
    assert_eq!(net.route(1, behind), Some(overlay(2)));
    assert_eq!(net.packet(1, from, to), Some(vec![1, 2]));
}

/// RFC 2332 §6.3: what a server answers for itself holds no prefix that a client registered.
#[test]
fn an_answer_holds_no_part_that_a_client_registered() {
    let mut net = hub_of_prefixes(2);
    net.nodes[0].rib.0.insert(prefix("10.20.0.0/16"), Lead::Lan);
    net.nodes[0].tunnel.nhrp.shortcut = true;
    net.start(0);
    let mut ask = request_of(&net, 1);
    if let Body::Exchange { kind, .. } = &mut ask.body {
        *kind = Kind::ResolutionRequest;
    }
    ask.destination = "10.20.0.1".parse().ok();
    ask.extensions = None;
    let answer = |net: &mut Net| {
        let bytes = ask.encode();
        net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(0), bytes });
        let (_, _, reply) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
        let Body::Exchange { entries, .. } = reply.body else { panic!() };
        (entries[0].code, entries[0].prefix)
    };
    assert_eq!(answer(&mut net), (CieCode::SUCCESS, 16));
    // Who was told otherwise is told.
    assert_eq!(claim(&mut net, 2, "10.20.128.0/17"), TAKEN);
    let (_, to, purge) = net.messages(0, MessageType::PurgeRequest).pop().unwrap();
    let Body::Exchange { entries, .. } = purge.body else { panic!() };
    assert_eq!((to, entries[0].protocol, entries[0].prefix), (nbma(1), "10.20.0.0".parse().ok(), 16));
    assert_eq!(answer(&mut net), (CieCode::SUCCESS, 17));
}
