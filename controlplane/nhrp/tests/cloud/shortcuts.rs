//! Phase 2 and phase 3: from the hub's path to the direct one, and back.

use model::program::{Key, Object};
use model::state::nhrp::EntryType;
use model::{Prefix, ProtocolAddr};
use nhrp::{Engine, Event, Input, Limits, Reject};
use wire::nhrp::{Flags, MessageType};

use crate::net::*;

/// A cloud in which the routes name the remote spoke (phase 2).
fn phase2(spokes: usize, setup: &Setup) -> Net {
    let mut net = Net::idle(spokes, setup);
    for node in 1..=spokes {
        for other in (1..=spokes).filter(|o| *o != node) {
            net.nodes[node].rib.0.insert(lan(other), Lead::Via(overlay(other)));
        }
    }
    for node in 0..=spokes {
        net.nodes[node].tunnel.nhrp.redirect = false;
        net.nodes[node].tunnel.nhrp.shortcut = false;
        net.start(node);
    }
    net
}

#[test]
fn phase_2_first_packets_take_the_hub_and_then_the_way_is_direct() {
    let mut net = phase2(2, &Setup::default());
    net.run(seconds(1));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 0, 2]));
    // Request and forwarded request, and the answer straight back: three times 10 ms.
    net.run(millis(31));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 1]), "learnt from the request");
    assert_eq!(net.messages(2, MessageType::ResolutionRequest).len(), 0);
    assert_eq!((net.routes(1).len(), net.routes(2).len()), (0, 0), "a binding is enough");
    let entries = net.nodes[2].engine.entries(net.now);
    let implicit = entries.iter().find(|e| e.next_hop == overlay(1)).unwrap();
    assert!(
        implicit.entry_type == EntryType::Cached && implicit.flags.implicit && !implicit.flags.authoritative
    );
    let entries = net.nodes[1].engine.entries(net.now);
    let asked = entries.iter().find(|e| e.next_hop == overlay(2)).unwrap();
    assert!(asked.entry_type == EntryType::Cached && asked.flags.authoritative && !asked.flags.implicit);
}

#[test]
fn phase_3_both_ways_within_a_tenth_of_a_second() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let began = net.now;
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 0, 2]));
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 0, 1]));
    while net.packet(1, host(1, 9), host(2, 9)) != Some(vec![1, 2])
        || net.packet(2, host(2, 9), host(1, 9)) != Some(vec![2, 1])
    {
        net.run(millis(1));
        assert!(net.now.since(began) <= millis(100));
    }
    // Redirect, request, forwarded request, answer: 40 ms of this underlay.
    assert!(net.now.since(began) <= millis(41), "{:?}", net.now.since(began));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    assert_eq!(net.route(2, lan(1)), Some(overlay(1)));
    net.run(seconds(1));
    for spoke in [1, 2] {
        assert_eq!(net.messages(spoke, MessageType::ResolutionRequest).len(), 1);
        let other = 3 - spoke;
        let (_, to, reply) = net.messages(spoke, MessageType::ResolutionReply).pop().unwrap();
        assert_eq!(to, nbma(other), "straight to the requester");
        assert!(matches!(reply.body, wire::nhrp::Body::Exchange { flags, .. }
            if flags.has(Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE | Flags::ROUTER | Flags::SOURCE_STABLE)));
        let (prefix, next_hop) = (lan(other), overlay(other));
        assert!(net.has_event(spoke, |e| *e == Event::ShortcutUp { tunnel: tunnel0(), prefix, next_hop }));
        let shown = net.nodes[spoke].engine.shortcuts(net.now);
        assert_eq!((shown.len(), shown[0].prefix, shown[0].nbma), (1, prefix, Some(nbma(other))));
    }
    assert_eq!(net.messages(0, MessageType::TrafficIndication).len(), 2);
    assert_eq!(net.messages(0, MessageType::ErrorIndication).len(), 0);
}

#[test]
fn one_way_traffic_gets_its_shortcut_too() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(50));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
    assert_eq!(net.route(2, lan(1)), None);
    assert_eq!(net.binding(2, overlay(1)), Some(nbma(1)), "taken from the request");
}

#[test]
fn from_tunnel_address_to_tunnel_address() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    assert_eq!(net.packet(1, overlay(1), overlay(2)), Some(vec![1, 0, 2]));
    net.run(millis(50));
    assert_eq!(net.packet(1, overlay(1), overlay(2)), Some(vec![1, 2]));
    assert_eq!(net.routes(1), [], "the attached route leads there");
}

/// A tunnel with a host address (as FRR wants it) routes all of the cloud by way of the hub.
#[test]
fn a_host_route_where_the_tunnel_is_not_attached() {
    let mut net = Net::idle(2, &Setup::default());
    for node in [1, 2] {
        net.nodes[node].rib.0.remove(&prefix("172.16.0.0/16"));
        net.nodes[node].rib.0.insert(prefix("0.0.0.0/0"), Lead::Via(overlay(0)));
    }
    for node in 0..3 {
        net.start(node);
    }
    net.run(seconds(1));
    net.packet(1, overlay(1), overlay(2));
    net.run(millis(50));
    assert_eq!(net.routes(1), [Prefix::host(overlay(2).0)]);
    assert_eq!(net.packet(1, overlay(1), overlay(2)), Some(vec![1, 2]));
}

#[test]
fn used_shortcuts_live_on_and_unused_ones_end() {
    let mut net = Net::new(3, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.converse(1, 3, seconds(1));
    // Ten holding times of talk between 1 and 2: once direct, it never goes by way of the hub again.
    net.converse(1, 2, seconds(1));
    let longest = net.converse(1, 2, seconds(600));
    assert_eq!(longest, 2);
    assert!(!net.has_event(1, |e| *e == Event::ShortcutDown { tunnel: tunnel0(), prefix: lan(2) }));
    // Each renewal is one request: 601 s at one per 40 to 60 s.
    let requests = net.messages(1, MessageType::ResolutionRequest).len();
    assert!((11..=18).contains(&requests), "{requests}");
    assert_eq!((net.route(1, lan(3)), net.binding(1, overlay(3))), (None, None), "unused for long");
    net.run(seconds(61));
    assert_eq!((net.route(1, lan(2)), net.binding(1, overlay(2))), (None, None));
    assert!(net.has_event(1, |e| *e == Event::ShortcutDown { tunnel: tunnel0(), prefix: lan(2) }));
    assert!(net.has_event(1, |e| *e == Event::Gone { tunnel: tunnel0(), address: overlay(2) }));
}

#[test]
fn phase_2_bindings_in_use_live_on() {
    let mut net = phase2(2, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    assert_eq!(net.converse(1, 2, seconds(600)), 2);
    net.run(seconds(61));
    assert_eq!((net.binding(1, overlay(2)), net.binding(2, overlay(1))), (None, None));
}

/// No answer takes anything away: traffic stays on the hub's path, and is asked for ever more seldom.
#[test]
fn what_cannot_be_resolved_stays_on_the_hub() {
    let mut net = Net::idle(2, &Setup::default());
    // Node 2 does not want shortcuts: it refuses.
    net.nodes[2].tunnel.nhrp.shortcut = false;
    for node in 0..3 {
        net.start(node);
    }
    net.run(seconds(1));
    for _ in 0..6000 {
        assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 0, 2]));
        net.run(millis(100));
    }
    let unresolved = Event::Unresolved { tunnel: tunnel0(), destination: host(2, 9) };
    assert!(net.has_event(1, |e| *e == unresolved));
    // 15, 30, 60, 120, 240 s of rest in 600 s.
    let requests = net.messages(1, MessageType::ResolutionRequest).len();
    assert!((4..=6).contains(&requests), "{requests}");
    assert!(net.rejects(2, Reject::Prohibited) >= 4);
}

/// What could not be resolved is asked for at once when the routes to it change.
#[test]
fn changed_routes_wake_what_rests() {
    let mut net = Net::idle(2, &Setup::default());
    net.nodes[2].tunnel.nhrp.shortcut = false;
    for node in 0..3 {
        net.start(node);
    }
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(seconds(3));
    net.nodes[2].tunnel.nhrp.shortcut = true;
    net.start(2);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(100));
    assert_eq!(net.route(1, lan(2)), None, "it rests");
    net.routes_changed(1, &[prefix("192.168.0.0/16")]);
    net.run(seconds(3));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(100));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
}

/// A destination that falls silent is asked for six times, and then rests.
#[test]
fn six_requests_with_one_id_and_then_rest() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.nodes[2].alive = false;
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(2) });
    let incomplete = |net: &Net| {
        let entries = net.nodes[1].engine.entries(net.now);
        entries.iter().find(|e| e.next_hop == overlay(2)).map(|e| e.entry_type)
    };
    assert_eq!(incomplete(&net), Some(EntryType::Incomplete));
    net.run(seconds(35));
    assert_eq!(incomplete(&net), Some(EntryType::Negative));
    let requests = net.messages(1, MessageType::ResolutionRequest);
    let ids: std::collections::BTreeSet<_> =
        requests.iter().map(|(_, _, m)| format!("{:?}", m.body)).collect();
    assert_eq!((requests.len(), ids.len()), (6, 1));
    let last = requests[5].0.since(requests[0].0);
    assert!(last > seconds(20) && last <= seconds(23), "{last:?}");
}

/// A hub has nobody to ask for a spoke that has not registered. When it does, it is known at once.
#[test]
fn a_hub_knows_no_spoke_that_has_not_registered() {
    let mut net = Net::idle(1, &Setup::default());
    net.start(0);
    assert_eq!(net.packet(0, overlay(0), overlay(1)), None);
    net.run(seconds(1));
    assert!(net.has_event(0, |e| matches!(e, Event::Unresolved { .. })));
    assert!(net.nodes[0].sent.is_empty());
    net.start(1);
    net.run(seconds(1));
    assert_eq!(net.packet(0, overlay(0), overlay(1)), Some(vec![0, 1]));
    let entries = net.nodes[0].engine.entries(net.now);
    assert!(entries.iter().all(|e| e.entry_type != EntryType::Negative));
}

/// RFC 2332 §6.4: only where a flow enters the cloud is it asked for.
#[test]
fn a_redirect_for_somebody_elses_flow_is_ignored() {
    let mut net = Net::new(3, &Setup::default());
    net.run(seconds(1));
    // Node 1 is told of a flow from node 3 to node 2, and of one from nowhere.
    let indication = |net: &mut Net, source: ProtocolAddr| {
        net.give(
            0,
            Input::Redirect {
                tunnel: tunnel0(),
                source: nbma(1),
                port: None,
                bytes: ip_packet(source, host(2, 9)),
            },
        );
        net.run(millis(20));
    };
    indication(&mut net, host(3, 9));
    assert_eq!(net.rejects(1, Reject::Intermediate), 1);
    indication(&mut net, "203.0.113.1".parse().unwrap());
    assert_eq!(net.rejects(1, Reject::Unreachable), 1);
    assert_eq!(net.messages(1, MessageType::ResolutionRequest).len(), 0);
}

#[test]
fn redirects_are_paced_per_flow() {
    let mut net = Net::new(3, &Setup::default());
    net.run(seconds(1));
    net.nodes[1].tunnel.nhrp.shortcut = false;
    net.start(1);
    for _ in 0..1000 {
        net.packet(1, host(1, 9), host(2, 9));
        net.packet(1, host(1, 9), host(3, 9));
        net.run(millis(10));
    }
    // 0, 1, 3, 7 s: four each in ten seconds.
    let indications = net.messages(0, MessageType::TrafficIndication);
    assert_eq!(indications.len(), 8);
    assert!(indications.iter().all(|(_, to, _)| *to == nbma(1)));
    assert_eq!(net.messages(1, MessageType::ResolutionRequest).len(), 0);
}

#[test]
fn nobody_is_redirected_to_where_it_came_from_or_to_nowhere() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let redirect = |net: &mut Net, to: ProtocolAddr| {
        net.give(
            0,
            Input::Redirect {
                tunnel: tunnel0(),
                source: nbma(1),
                port: None,
                bytes: ip_packet(host(1, 9), to),
            },
        );
    };
    redirect(&mut net, host(1, 7));
    redirect(&mut net, "203.0.113.1".parse().unwrap());
    redirect(&mut net, overlay(77));
    assert_eq!(net.messages(0, MessageType::TrafficIndication).len(), 0);
    assert_eq!(net.rejects(0, Reject::Unreachable), 3);
}

/// What is answered: the route's prefix, but a host instead of the default route, and no more than one route's worth.
#[test]
fn the_answer_is_as_wide_as_is_true() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let rib = &mut net.nodes[2].rib.0;
    rib.insert(prefix("0.0.0.0/0"), Lead::Lan);
    rib.insert(prefix("10.8.0.0/16"), Lead::Lan);
    rib.insert(prefix("10.8.64.0/18"), Lead::Via(overlay(0)));
    let asked = |net: &mut Net, address: &str| {
        net.nodes[1].rib.0.insert(prefix("0.0.0.0/0"), Lead::Via(overlay(0)));
        net.nodes[0].rib.0.insert(prefix("0.0.0.0/0"), Lead::Via(overlay(2)));
        let address: ProtocolAddr = address.parse().unwrap();
        net.packet(1, host(1, 9), address);
        net.run(millis(50));
        net.routes(1).into_iter().find(|p| p.contains(address.0)).map(|p| p.to_string())
    };
    assert_eq!(asked(&mut net, "203.0.113.5"), Some("203.0.113.5/32".into()), "not the default route");
    assert_eq!(asked(&mut net, "10.8.0.1"), Some("10.8.0.0/18".into()), "what holds no other route");
    assert_eq!(asked(&mut net, "10.8.128.1"), Some("10.8.128.0/17".into()));
    assert_eq!(asked(&mut net, "192.168.2.1"), Some("192.168.2.1/32".into()), "the router itself");
}

/// A node behind a NAT is found where its server sees it, by whom it asks and by who asks for it, and leaves as any other.
#[test]
fn spokes_behind_a_nat_reach_each_other_where_they_are_seen() {
    let public = |node: usize| format!("203.0.113.{node}").parse().unwrap();
    for (behind, phase_2) in [(&[1][..], true), (&[2], true), (&[1, 2], true), (&[1, 2], false)] {
        let mut net = Net::idle(2, &Setup { redirect: !phase_2, shortcut: !phase_2, ..Setup::default() });
        for &node in behind {
            net.nat.insert(node, public(node));
        }
        for (node, other) in [(1, 2), (2, 1)] {
            if phase_2 {
                net.nodes[node].rib.0.insert(lan(other), Lead::Via(overlay(other)));
            }
            net.nodes[node].tunnel.nhrp.shortcut = !phase_2;
        }
        for node in 0..3 {
            net.start(node);
        }
        net.run(seconds(1));
        net.converse(1, 2, seconds(1));
        assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
        assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 1]));
        for &node in behind {
            net.restart(node);
            net.run(seconds(1));
            assert!(net.messages(node, MessageType::PurgeRequest).is_empty(), "nothing is new to it");
        }
        for &node in behind {
            let other = 3 - node;
            assert_eq!(net.binding(other, overlay(node)), Some(public(node)));
            let entries = net.nodes[other].engine.entries(net.now);
            let entry = entries.iter().find(|e| e.next_hop == overlay(node)).unwrap();
            assert_eq!(entry.claimed_nbma, Some(nbma(node)));
            net.give(node, Input::Shutdown);
            net.run(millis(50));
            assert_eq!(net.binding(other, overlay(node)), None, "it took leave");
        }
    }
}

/// A node asks before its server told it that it is behind a NAT: what it said of itself is taken back.
#[test]
fn what_was_said_before_the_nat_was_known_is_taken_back() {
    let mut net = Net::idle(2, &Setup { redirect: false, shortcut: false, ..Setup::default() });
    net.nat.insert(1, "203.0.113.1".parse().unwrap());
    for (node, other) in [(1, 2), (2, 1)] {
        net.nodes[node].rib.0.insert(lan(other), Lead::Via(overlay(other)));
    }
    net.start(0);
    net.start(2);
    net.run(seconds(1));
    net.start(1);
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(100));
    assert!(net.packet(2, host(2, 9), host(1, 9)).is_some());
    net.converse(1, 2, seconds(1));
    assert_eq!(net.packet(2, host(2, 9), host(1, 9)), Some(vec![2, 1]));
}

/// The requester takes no shorter prefix than the route that it has.
#[test]
fn the_requester_clamps_the_prefix() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.nodes[1].rib.0.insert(prefix("192.168.2.128/25"), Lead::Via(overlay(0)));
    net.packet(1, host(1, 9), host(2, 200));
    net.run(millis(50));
    assert_eq!(net.routes(1), [prefix("192.168.2.128/25")]);
}

/// Bindings that a resolution gave never replace what is configured or registered.
#[test]
fn a_registration_is_stronger_than_a_resolution() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let bytes = net.messages(1, MessageType::RegistrationRequest).pop().unwrap().2.encode();
    // Node 1 registers with node 2 as well, and then asks it for something.
    net.give(2, Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(2), bytes });
    net.converse(1, 2, seconds(1));
    let entries = net.nodes[2].engine.entries(net.now);
    assert!(entries.iter().all(|e| e.next_hop != overlay(1)
        || e.entry_type == EntryType::Dynamic
        || e.entry_type == EntryType::Cached));
    let dynamic = entries.iter().find(|e| e.next_hop == overlay(1)).unwrap();
    // Addressed to the hub, it was passed on and not taken: node 2 is not whom it is for.
    assert_eq!(dynamic.entry_type, EntryType::Cached);
}

#[test]
fn what_is_used_is_marked() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    let used = |net: &Net| {
        let entries = net.nodes[1].engine.entries(net.now);
        entries.iter().find(|e| e.next_hop == overlay(2)).unwrap().flags.used
    };
    assert!(used(&net));
    net.run(seconds(61));
    assert!(!used(&net));
}

/// A glean for what is known (the data plane forgot) programs it again; nobody is asked.
#[test]
fn a_glean_for_what_is_known_programs_it_again() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    net.nodes[0].program.remove(&Key::Binding(tunnel0(), overlay(1)));
    net.give(0, Input::Glean { tunnel: tunnel0(), next_hop: overlay(1) });
    let put = net.nodes[0].program.get(&Key::Binding(tunnel0(), overlay(1)));
    assert!(matches!(put, Some((Object::Binding(b), Some(_))) if b.nbma == nbma(1)));
}

/// Somebody scans: what could not be resolved makes room for what may be, and what carries traffic is renewed all the same.
#[test]
fn a_scan_keeps_nobody_from_asking() {
    let mut net = Net::idle(3, &Setup { holding: 60, ..Setup::default() });
    let limits = Limits { asks: 8, ..Limits::default() };
    net.nodes[1].engine = Engine::with_limits(net.now, 1, None, limits);
    for node in 0..=3 {
        net.start(node);
    }
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    // Eight that nobody has, asked for and refused.
    for n in 100..108 {
        net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(n) });
    }
    net.run(seconds(1));
    let negative = |net: &Net| {
        let entries = net.nodes[1].engine.entries(net.now);
        entries.iter().filter(|e| e.entry_type == EntryType::Negative).count()
    };
    assert_eq!(negative(&net), 8);
    net.converse(1, 3, seconds(1));
    assert_eq!(net.route(1, lan(3)), Some(overlay(3)));
    assert_eq!(net.rejects(1, Reject::NoRoom), 0);
    // As many as may be are outstanding at once. A new one has to wait, a shortcut in use does not.
    net.nodes[0].alive = false;
    for n in 120..140 {
        net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(n) });
    }
    assert_eq!(net.rejects(1, Reject::NoRoom), 12);
    net.nodes[0].alive = true;
    net.run(seconds(44));
    for n in 140..160 {
        net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(n) });
    }
    let asked = net.messages(1, MessageType::ResolutionRequest).len();
    net.give(1, Input::Used { tunnel: tunnel0(), next_hops: vec![overlay(3)] });
    let requests = net.messages(1, MessageType::ResolutionRequest);
    assert_eq!(requests.len(), asked + 1);
    assert_eq!(requests.last().unwrap().2.destination, Some(host(3, 9).0));
}
