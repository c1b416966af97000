//! Who answers a resolution request, and with what.

use std::time::Duration;

use model::config::Nhs;
use model::program::{Hop, TunnelMode};
use model::time::Instant;
use model::{InterfaceName, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Engine, Event, Found, Input, Limits, Reject, Routes, To};
use wire::nhrp::{Body, Cie, CieCode, ExtensionType, Flags, Message, MessageType};

use crate::net::*;

/// A cloud whose hub answers for its clients, or not, with routes that name the remote spoke (phase 2).
fn phase2(spokes: usize, setup: &Setup, answer_from_cache: bool) -> Net {
    let mut net = Net::idle(spokes, setup);
    for node in 0..=spokes {
        let nhrp = &mut net.nodes[node].tunnel.nhrp;
        (nhrp.redirect, nhrp.shortcut) = (false, false);
        nhrp.answer_from_cache = answer_from_cache && node == 0;
        for other in (1..=spokes).filter(|o| node > 0 && *o != node) {
            net.nodes[node].rib.0.insert(lan(other), Lead::Via(overlay(other)));
        }
    }
    net.start_all();
    net.run(seconds(1));
    net
}

/// A request of node `from` for an address, with these flags.
fn request(net: &mut Net, from: usize, destination: ProtocolAddr, flags: Flags) -> Message {
    net.give(from, Input::Glean { tunnel: tunnel0(), next_hop: overlay(200) });
    let (_, _, mut request) = net.messages(from, MessageType::ResolutionRequest).pop().unwrap();
    request.destination = Some(destination.0);
    if let Body::Exchange { flags: had, request_id, .. } = &mut request.body {
        (*had, *request_id) = (flags, 4711);
    }
    request
}

fn last_reply(net: &Net, node: usize) -> Option<(model::NbmaAddr, Flags, Cie)> {
    net.messages(node, MessageType::ResolutionReply).pop().map(|(_, to, m)| match m.body {
        Body::Exchange { flags, entries, .. } => {
            assert_eq!(entries.len(), 1);
            (to, flags, entries[0])
        }
        _ => unreachable!(),
    })
}

const ASK: Flags = Flags(0xc802);

/// A server that is told to answers for its client: where it sees it, for as long as the registration still holds, as the authority that
/// it is. The client hears nothing of it.
#[test]
fn a_server_answers_for_its_clients_where_that_is_wanted() {
    let mut net = phase2(2, &Setup { holding: 60, ..Setup::default() }, true);
    let (at, _, _) = net.messages(2, MessageType::RegistrationRequest).pop().unwrap();
    net.run(seconds(10));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(21));
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(2)), "one round trip to the hub");
    assert!(net.messages(0, MessageType::ResolutionRequest).is_empty(), "nothing is passed on");
    let (to, flags, entry) = last_reply(&net, 0).unwrap();
    let remains = 60 - net.now.since(at).as_secs();
    assert_eq!(to, nbma(1));
    assert!(
        flags.has(Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE | Flags::ROUTER | Flags::SOURCE_STABLE)
    );
    assert_eq!(
        (entry.nbma, entry.protocol, entry.prefix, entry.mtu),
        (Some(nbma(2).0), Some(overlay(2).0), 32, 1400)
    );
    assert!(u64::from(entry.holding_time).abs_diff(remains) <= 1, "{} {remains}", entry.holding_time);
    let (_, _, reply) = net.messages(0, MessageType::ResolutionReply).pop().unwrap();
    let responder = reply.extension(ExtensionType::RESPONDER).unwrap().entries(reply.families).unwrap();
    assert_eq!(responder[0].protocol, Some(overlay(0).0), "who answered is not who has it");
    // It moves: who was told is told again.
    net.nodes[2].tunnel.nbma = Some("10.0.9.9".parse().unwrap());
    net.start(2);
    net.run(millis(100));
    assert_eq!(net.binding(1, overlay(2)), None);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(100));
    assert_eq!(net.binding(1, overlay(2)), Some("10.0.9.9".parse().unwrap()));
}

/// By default it is the client's own word that is wanted.
#[test]
fn an_authoritative_request_is_passed_on_to_the_client() {
    let mut net = phase2(2, &Setup::default(), false);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(50));
    assert_eq!(net.messages(0, MessageType::ResolutionRequest).len(), 1);
    assert_eq!(net.messages(0, MessageType::ResolutionReply).len(), 0);
    let (to, flags, entry) = last_reply(&net, 2).unwrap();
    assert!(to == nbma(1) && flags.has(Flags::AUTHORITATIVE) && entry.holding_time == 600);
}

/// What was learnt from a request is given to who does not insist on authority, without authority, for what remains of it; who insists is
/// passed on. A registration is given with authority, whatever is wanted.
#[test]
fn what_was_learnt_is_never_given_out_as_authoritative() {
    let mut net = phase2(3, &Setup::default(), true);
    net.packet(1, host(1, 9), host(3, 9));
    net.run(millis(50));
    // Node 3 asks straight for node 1, which the hub answered for, and node 1 learns so of node 3.
    let mut asked = request(&mut net, 3, overlay(1), ASK);
    net.hear(1, 3, &asked);
    let implicit = |net: &Net| {
        let entries = net.nodes[1].engine.entries(net.now);
        entries.iter().find(|e| e.next_hop == overlay(3)).map(|e| e.flags.implicit)
    };
    assert!(implicit(&net).is_some());
    net.nodes[1].engine = Engine::new(net.now, 1, None);
    net.nodes[1].program.clear();
    net.start(1);
    net.run(seconds(1));
    net.hear(1, 3, &asked);
    assert_eq!(implicit(&net), Some(true));
    net.run(seconds(100));

    let without = Flags(ASK.0 & !Flags::AUTHORITATIVE.0);
    asked = request(&mut net, 2, overlay(3), without);
    net.hear(1, 2, &asked);
    let (to, flags, entry) = last_reply(&net, 1).unwrap();
    assert_eq!((to, entry.nbma, entry.protocol), (nbma(2), Some(nbma(3).0), Some(overlay(3).0)));
    assert!(!flags.has(Flags::AUTHORITATIVE) && !flags.has(Flags::DESTINATION_STABLE));
    assert!((495..=500).contains(&entry.holding_time), "{}", entry.holding_time);
    // With authority wanted it goes on to who has it.
    net.nodes[1].tunnel.nhrp.answer_from_cache = true;
    net.start(1);
    let replies = net.messages(1, MessageType::ResolutionReply).len();
    asked = request(&mut net, 2, overlay(3), ASK);
    net.hear(1, 2, &asked);
    assert_eq!(net.messages(1, MessageType::ResolutionReply).len(), replies);
    assert_eq!(net.messages(1, MessageType::ResolutionRequest).pop().unwrap().1, nbma(3));
    // Of a registration the server is the authority.
    asked = request(&mut net, 2, overlay(3), without);
    net.hear(0, 2, &asked);
    assert!(last_reply(&net, 0).unwrap().1.has(Flags::AUTHORITATIVE));
}

/// Only what says that it is stable, and for how long, is taken from a request.
#[test]
fn a_source_is_learnt_only_if_it_is_stable() {
    for (stable, holding, learnt) in [(true, 600, true), (false, 600, false), (true, 0, false)] {
        let mut net = phase2(2, &Setup::default(), false);
        let flags = Flags(if stable { ASK.0 } else { ASK.0 & !Flags::SOURCE_STABLE.0 });
        let mut asked = request(&mut net, 1, overlay(2), flags);
        if let Body::Exchange { entries, .. } = &mut asked.body {
            entries[0].holding_time = holding;
        }
        net.hear(2, 0, &asked);
        assert_eq!(net.binding(2, overlay(1)).is_some(), learnt, "{stable} {holding}");
        assert!(last_reply(&net, 2).is_some(), "it is answered all the same");
    }
}

/// Who wants a unique binding gets one, or code 13.
#[test]
fn a_unique_binding_is_given_or_none() {
    let unique = Flags(ASK.0 | Flags::UNIQUE_WANTED.0);
    for (is_unique, from_cache) in [(true, true), (true, false), (false, true), (false, false)] {
        let setup = Setup { unique: is_unique, ..Setup::default() };
        let mut net = phase2(2, &setup, from_cache);
        let asked = request(&mut net, 1, overlay(2), unique);
        let answers = if from_cache { 0 } else { 2 };
        net.hear(answers, 1, &asked);
        let (_, flags, entry) = last_reply(&net, answers).unwrap();
        if is_unique {
            assert!(flags.has(Flags::UNIQUE_WANTED) && entry.code == CieCode::SUCCESS);
        } else {
            assert_eq!((entry.code, entry.holding_time), (CieCode::NOT_UNIQUE, 0));
            assert_eq!(net.rejects(answers, Reject::NotUnique), 1);
        }
    }
    // What is behind a node: address by address.
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let asked = request(&mut net, 1, host(2, 9), unique);
    net.hear(2, 0, &asked);
    let (_, flags, entry) = last_reply(&net, 2).unwrap();
    assert!(flags.has(Flags::UNIQUE_WANTED) && entry.prefix == 32 && entry.code == CieCode::SUCCESS);
}

/// Of several entries the first of those with the highest preference counts (RFC 2332 §5.2.2); refusals and those that hold no time do not.
#[test]
fn the_best_of_several_entries_is_taken() {
    let mut net = phase2(4, &Setup::default(), false);
    net.nodes[2].alive = false;
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(15));
    let (_, _, mut reply) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
    if let Body::Exchange { kind, entries, .. } = &mut reply.body {
        *kind = wire::nhrp::Kind::ResolutionReply;
        let entry = |preference, at: usize, holding_time, code| Cie {
            code,
            preference,
            holding_time,
            nbma: Some(nbma(at).0),
            protocol: Some(overlay(2).0),
            ..Cie::default()
        };
        let ok = CieCode::SUCCESS;
        *entries = vec![
            entry(1, 4, 600, ok),
            entry(9, 4, 600, CieCode::INSUFFICIENT_RESOURCES),
            entry(9, 4, 0, ok),
            entry(5, 3, 600, ok),
            entry(5, 4, 600, ok),
        ];
    }
    net.hear(1, 0, &reply);
    assert_eq!(net.binding(1, overlay(2)), Some(nbma(3)));
}

/// More answers than can be taken back are not given: code 5.
#[test]
fn no_more_is_answered_than_can_be_taken_back() {
    let mut net = Net::idle(2, &Setup::default());
    net.nodes[2].engine = Engine::with_limits(net.now, 2, None, Limits { told: 1, ..Limits::default() });
    net.start_all();
    net.run(seconds(1));
    for (host_number, code) in [(9, CieCode::SUCCESS), (77, CieCode::INSUFFICIENT_RESOURCES)] {
        net.nodes[2].rib.0.insert(Prefix::host(host(2, host_number).0), Lead::Lan);
        let asked = request(&mut net, 1, host(2, host_number), ASK);
        net.hear(2, 0, &asked);
        assert_eq!(last_reply(&net, 2).unwrap().2.code, code);
    }
    assert_eq!(net.rejects(2, Reject::NoRoom), 1);
}

/// Extensions of a request are in its reply, and in its refusal: those that nobody knows too, as they were, in their order.
#[test]
fn the_reply_has_every_extension_of_the_request() {
    let mut net = phase2(2, &Setup::default(), true);
    let unknown = |value| wire::nhrp::Extension::new(ExtensionType::new(0x3f01).unwrap(), false, value);
    let vendor = |value| wire::nhrp::Extension::new(ExtensionType::VENDOR, false, value);
    for (destination, node) in [(overlay(2), 2), (overlay(2), 0), (overlay(99), 0)] {
        let mut asked = request(&mut net, 1, destination, ASK);
        let extensions = asked.extensions.as_mut().unwrap();
        extensions.insert(0, vendor(vec![0, 0, 9, 1]));
        extensions.insert(2, unknown(vec![7; 5]));
        extensions.push(vendor(vec![0, 0, 9, 2]));
        net.hear(node, 1, &asked);
        let (_, _, reply) = net.messages(node, MessageType::ResolutionReply).pop().unwrap();
        let kinds = |m: &Message| m.extensions.iter().flatten().map(|e| e.kind()).collect::<Vec<_>>();
        assert_eq!(kinds(&asked), kinds(&reply));
        for (had, has) in asked.extensions.iter().flatten().zip(reply.extensions.iter().flatten()) {
            if ![ExtensionType::RESPONDER, ExtensionType::NAT].contains(&had.kind()) {
                assert_eq!(had, has);
            }
        }
    }
}

/// After its goodbye a node answers nothing that nobody could take back.
#[test]
fn a_node_that_leaves_answers_no_more() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    net.give(2, Input::Shutdown);
    net.run(millis(5));
    let asked = request(&mut net, 1, host(2, 9), ASK);
    net.hear(2, 0, &asked);
    assert_eq!(last_reply(&net, 2).unwrap().2.code, CieCode::ADMINISTRATIVELY_PROHIBITED);
    net.run(seconds(1));
    assert_eq!((net.route(1, lan(2)), net.binding(1, overlay(2))), (None, None));
}

/// A used shortcut whose answer is taken back is asked for again at once, not only when the hub redirects the next time.
#[test]
fn what_is_purged_in_use_is_asked_for_again_at_once() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(2));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    // A part of the LAN moves behind the hub.
    net.nodes[2].rib.0.insert(prefix("192.168.2.128/25"), Lead::Via(overlay(0)));
    net.routes_changed(2, &[prefix("192.168.2.128/25")]);
    net.run(millis(60));
    assert_eq!(net.routes(1), [prefix("192.168.2.0/25")], "no packet went since");
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
    // Unused for long, it is only dropped.
    net.run(seconds(120));
    let asked = net.messages(1, MessageType::ResolutionRequest).len();
    net.nodes[2].rib.0.insert(prefix("192.168.2.64/26"), Lead::Via(overlay(0)));
    net.routes_changed(2, &[prefix("192.168.2.64/26")]);
    net.run(millis(60));
    assert_eq!((net.routes(1).len(), net.messages(1, MessageType::ResolutionRequest).len()), (0, asked));
}

/// A link-local address has no route: a node that does not know it asks the server of that tunnel; neither a shortcut nor a redirect is
/// made for it.
#[test]
fn a_link_local_address_is_asked_for_by_its_tunnel_alone() {
    let mut net = Net::idle(2, &Setup::default());
    for node in 0..3 {
        let tunnel = &mut net.nodes[node].tunnel;
        tunnel.addresses = vec![
            format!("2001:db8::{}/64", node + 1).parse().unwrap(),
            format!("fe80::{}/64", node + 1).parse().unwrap(),
        ];
        if node > 0 {
            tunnel.nhrp.nhs = vec![Nhs::new("2001:db8::1".parse().unwrap(), nbma(0))];
        }
        // Whatever the routes say of it.
        net.nodes[node].rib.0.insert(prefix("::/0"), Lead::Lan);
    }
    let far = model::config::Map { protocol: "fe80::3".parse().unwrap(), nbma: nbma(2) };
    net.nodes[0].tunnel.nhrp.map.push(far);
    net.start_all();
    net.run(seconds(1));
    let far: ProtocolAddr = "fe80::3".parse().unwrap();
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: far });
    net.run(millis(100));
    assert_eq!(net.binding(1, far), Some(nbma(2)));
    assert!(net.routes(1).is_empty());
    assert!(!net.has_event(1, |e| matches!(e, Event::Unresolved { .. })));
    let bytes = ip_packet("fe80::2".parse().unwrap(), far);
    net.give(0, Input::Redirect { tunnel: tunnel0(), source: nbma(1), port: None, bytes });
    assert_eq!(net.messages(0, MessageType::TrafficIndication).len(), 0);
}

/// Several tunnels of one node. Two of one network are one cloud; a third is another.
struct Tunnels;

impl Routes for Tunnels {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let by = |tunnel: &str, next_hop: &str| {
            To::Tunnel(Hop { interface: name(tunnel), next_hop: next_hop.parse().unwrap() })
        };
        let found = |text: &str, to| Some(Found { prefix: prefix(text), to });
        match addr.to_string() {
            a if a.starts_with("192.168.1.") => found("192.168.1.0/24", by("tunnel0", "172.16.0.2")),
            a if a.starts_with("192.168.2.") => found("192.168.2.0/24", by("tunnel1", "172.17.0.2")),
            a if a.starts_with("192.168.3.") => found("192.168.3.0/24", by("tunnel2", "172.18.0.2")),
            _ => None,
        }
    }

    fn is_split(&self, _: TableId, _: Prefix, _: &To) -> bool {
        false
    }
}

#[test]
fn redirects_and_requests_stay_in_their_network() {
    let now = Instant::default() + Duration::from_secs(1);
    let mut engine = Engine::new(now, 1, None);
    let tunnels = [("tunnel0", "172.16", 1), ("tunnel1", "172.17", 1), ("tunnel2", "172.18", 2)];
    let configured = tunnels.map(|(tunnel, net, network_id)| {
        let mut t = tunnel_of(0, true, &[], &Setup::default());
        t.name = name(tunnel);
        t.addresses = vec![format!("{net}.0.1/24").parse().unwrap()];
        t.nhrp.network_id = network_id;
        t.nhrp.map = vec![model::config::Map {
            protocol: format!("{net}.0.2").parse().unwrap(),
            nbma: format!("10.9.{}.2", &net[4..]).parse().unwrap(),
        }];
        assert_eq!(t.mode, TunnelMode::Multipoint);
        t
    });
    let mut give = |input: Input| -> Vec<(InterfaceName, String, Message)> {
        let mut actions = Vec::new();
        engine.handle(now, input, &Tunnels, &mut actions);
        let sent = actions.into_iter().filter_map(|a| match a {
            Action::Send { tunnel, to, bytes, .. } => {
                Some((tunnel, to.to_string(), Message::decode(&bytes).unwrap()))
            }
            _ => None,
        });
        sent.collect()
    };
    give(Input::Configure(configured.to_vec()));
    let mut redirected = |to: &str| {
        let bytes = ip_packet("192.168.1.9".parse().unwrap(), to.parse().unwrap());
        give(Input::Redirect {
            tunnel: name("tunnel0"),
            source: "10.9.16.2".parse().unwrap(),
            port: None,
            bytes,
        })
    };
    let within = redirected("192.168.2.9");
    assert_eq!(within.len(), 1);
    assert_eq!((within[0].0, within[0].1.as_str()), (name("tunnel0"), "10.9.16.2"));
    assert_eq!(within[0].2.message_type(), MessageType::TrafficIndication);
    assert!(redirected("192.168.3.9").is_empty(), "another network");
    assert!(redirected("192.168.1.7").is_empty(), "where it came from");

    let mut asked = |to: &str| {
        let own = tunnel_of(1, false, &[0], &Setup::default());
        let mut spoke = Engine::new(now, 2, None);
        let mut actions = Vec::new();
        spoke.handle(now, Input::Configure(vec![own]), &Tunnels, &mut actions);
        let glean = Input::Glean { tunnel: tunnel0(), next_hop: to.parse().unwrap() };
        actions.clear();
        spoke.handle(now, glean, &Tunnels, &mut actions);
        let Some(Action::Send { bytes, .. }) = actions.into_iter().find(|a| matches!(a, Action::Send { .. }))
        else {
            panic!("nothing was asked");
        };
        let from = nbma(1).into();
        give(Input::Packet { tunnel: name("tunnel0"), from, destination: nbma(0), bytes })
    };
    let passed = asked("192.168.2.9");
    assert_eq!(passed.len(), 1);
    assert_eq!((passed[0].0, passed[0].1.as_str()), (name("tunnel1"), "10.9.17.2"));
    // The cloud ends here; what is behind this node is told only where that is wanted.
    let refused = asked("192.168.3.9");
    assert_eq!(refused[0].2.message_type(), MessageType::ResolutionReply);
    assert!(matches!(&refused[0].2.body, Body::Exchange { entries, .. }
        if entries[0].code == CieCode::ADMINISTRATIVELY_PROHIBITED));
}

/// Two hubs on the way of a request: that which does not know its source keeps what it says, if it says that it is stable and for how long.
/// It forwards nothing by it, and gives it only to who does not insist on authority, for what remains.
#[test]
fn the_source_of_a_request_that_passes_is_implicit() {
    let mut net = Net::regions(&[1, 1], &Setup::default());
    net.run(seconds(1));
    let (far, near) = (2, 3);
    // From the spoke of hub 1 by hub 1 and hub 0 to that of hub 0.
    let asked = request(&mut net, near, overlay(far), ASK);
    let passes = |net: &mut Net, asked: &Message| {
        net.hear(1, near, asked);
        net.run(millis(15));
    };
    let implicit = |net: &Net, hub: usize| {
        let heard = net.nodes[hub].engine.heard(net.now);
        assert!(heard.iter().all(|e| e.flags.implicit && !e.flags.authoritative));
        heard.into_iter().find(|e| e.next_hop == overlay(near))
    };
    for (flags, holding) in [(ASK.0 & !Flags::SOURCE_STABLE.0, 600), (ASK.0, 0)] {
        let mut asked = asked.clone();
        if let Body::Exchange { flags: had, entries, .. } = &mut asked.body {
            (*had, entries[0].holding_time) = (Flags(flags), holding);
        }
        passes(&mut net, &asked);
        assert!(implicit(&net, 0).is_none());
    }
    // Nor from one with a compulsory extension that is not known here.
    let mut unknown = asked.clone();
    let extension = wire::nhrp::Extension::empty(ExtensionType::new(0x3f01).unwrap(), true);
    unknown.extensions.as_mut().unwrap().push(extension);
    passes(&mut net, &unknown);
    assert!(implicit(&net, 0).is_none());

    passes(&mut net, &asked);
    assert!(implicit(&net, 1).is_none(), "it is registered there");
    let entry = implicit(&net, 0).unwrap();
    assert!(!entry.flags.authoritative && entry.nbma == Some(nbma(near)));
    assert_eq!(net.binding(0, overlay(near)), None, "nothing is forwarded by it");
    net.run(seconds(100));
    let mut wants = request(&mut net, far, overlay(near), Flags(ASK.0 & !Flags::AUTHORITATIVE.0));
    net.hear(0, far, &wants);
    let (to, flags, entry) = last_reply(&net, 0).unwrap();
    assert_eq!((to, entry.nbma, entry.protocol), (nbma(far), Some(nbma(near).0), Some(overlay(near).0)));
    assert!(!flags.has(Flags::AUTHORITATIVE) && (495..=500).contains(&entry.holding_time));
    // With authority wanted, hub 0 is asked in vain: the routes do not lead to it.
    wants = request(&mut net, far, overlay(near), ASK);
    net.hear(0, far, &wants);
    assert_eq!(last_reply(&net, 0).unwrap().2.code, CieCode::NO_BINDING);
    net.run(seconds(501));
    assert!(implicit(&net, 0).is_none());
}
