//! kill -9 of a control plane: what was known is programmed again at once, and request ids go on.

use std::collections::BTreeSet;

use model::program::{Binding, Key};
use nhrp::{Engine, Event, Input, Snapshot};
use wire::nhrp::{Body, Message};

use crate::net::*;

fn ids(net: &Net, node: usize) -> BTreeSet<u32> {
    let messages = net.nodes[node].sent.iter().map(|(_, _, bytes)| Message::decode(bytes).unwrap());
    messages
        .filter_map(|m| match m.body {
            Body::Exchange { kind, request_id, .. } if !kind.is_reply() => {
                (m.source == Some(overlay(node).0)).then_some(request_id)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_hub_knows_its_spokes_again_before_they_say_anything() {
    let mut net = Net::new(20, &Setup::default());
    net.run(seconds(100));
    let before: Vec<_> = net.nodes[0].program.keys().copied().collect();
    net.nodes[0].program.clear();
    net.restart(0);
    // In the same instant: the same objects, with the time that remains and no more.
    assert_eq!(net.nodes[0].program.keys().copied().collect::<Vec<_>>(), before);
    for (key, (_, expires)) in &net.nodes[0].program {
        if matches!(key, Key::Binding(..)) {
            let remaining = expires.unwrap().since(net.now);
            assert!(remaining > seconds(490) && remaining <= seconds(501), "{key:?} {remaining:?}");
        }
    }
    assert!(!net.has_event(0, |e| matches!(e, Event::Registered { .. } | Event::Gone { .. })));
    let created =
        net.nodes[0].engine.entries(net.now).into_iter().find(|e| e.next_hop == overlay(1)).unwrap();
    assert!(created.created > seconds(98), "its age goes on");
    net.run(seconds(60));
    for spoke in 1..=20 {
        assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)));
    }
    // And refreshes after it are refreshes.
    net.run(seconds(200));
    assert!(!net.has_event(0, |e| matches!(e, Event::Registered { refresh: false, .. })));
}

#[test]
fn a_spoke_keeps_its_shortcuts_and_its_request_ids_go_on() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    let used = ids(&net, 1);
    net.nodes[1].program.clear();
    net.restart(1);
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]), "no packet by way of the hub");
    net.converse(1, 2, seconds(700));
    let again = ids(&net, 1);
    assert!(again.first() > used.last(), "{used:?} {again:?}");
    // Several lives, each too short for a refresh.
    let mut last = *again.last().unwrap();
    for _ in 0..5 {
        net.restart(1);
        net.run(millis(30));
        let now = ids(&net, 1);
        assert!(*now.first().unwrap() > last);
        last = *now.last().unwrap();
    }
}

/// However many ids are used, those in the snapshot are above them.
#[test]
fn the_snapshot_is_ahead_of_the_ids() {
    let mut net = Net::new(1, &Setup { holding: 3, ..Setup::default() });
    for _ in 0..60 {
        net.run(seconds(10));
        assert!(net.nodes[1].saved.1.request_id > *ids(&net, 1).last().unwrap());
    }
    assert!(ids(&net, 1).len() > 500);
}

#[test]
fn a_snapshot_that_lay_too_long_holds_nothing() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    let snapshot = net.nodes[1].engine.snapshot(net.now);
    assert_eq!((snapshot.tunnels[0].bindings.len(), snapshot.tunnels[0].shortcuts.len()), (1, 1));
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    let aged = snapshot.aged(seconds(601));
    assert_eq!((aged.tunnels[0].bindings.len(), aged.tunnels[0].shortcuts.len()), (0, 0));
}

/// A node whose engine never starts, because its data plane does not come, keeps what it was given, and no longer than it holds.
#[test]
fn what_is_not_applied_yet_is_kept_and_ages() {
    let mut net = Net::new(3, &Setup::default());
    net.run(seconds(10));
    let snapshot = net.nodes[0].engine.snapshot(net.now);
    let began = net.now;
    let waiting = || Engine::new(began, 7, Some(snapshot.clone()));
    assert_eq!(waiting().snapshot(began).tunnels, snapshot.tunnels);
    assert_eq!(waiting().snapshot(began + seconds(300)).tunnels, snapshot.clone().aged(seconds(300)).tunnels);
    assert_eq!(waiting().snapshot(began + seconds(600)).tunnels[0].bindings, []);

    net.nodes[0].program.clear();
    net.nodes[0].engine = waiting();
    for node in 1..=3 {
        net.nodes[node].alive = false;
    }
    net.run(seconds(500));
    net.start(0);
    for (key, (_, expires)) in &net.nodes[0].program {
        let remaining = expires.map(|at| at.since(net.now));
        assert!(remaining.is_none_or(|r| r <= seconds(100)), "{key:?} {remaining:?}");
    }
    assert_eq!(net.binding(0, overlay(3)), Some(nbma(3)));
    net.run(seconds(101));
    assert_eq!(net.binding(0, overlay(3)), None);
}

/// What was answered and programmed, but not saved, forwards on.
#[test]
fn bindings_of_the_data_plane_are_adopted() {
    let mut net = Net::new(3, &Setup::default());
    net.run(seconds(10));
    let mut snapshot = net.nodes[0].engine.snapshot(net.now);
    let bindings = &mut snapshot.tunnels[0].bindings;
    bindings.retain(|b| b.address != overlay(1));
    // One registered again, from elsewhere, and one had been told later than the data plane was.
    bindings[0].nbma = nbma(9);
    bindings[0].remaining -= seconds(100);
    let forwarding = |node, remaining| Binding {
        tunnel: tunnel0(),
        next_hop: overlay(node),
        nbma: nbma(node),
        link: None,
        expires_in: remaining,
        port: 0,
    };
    let left = bindings[0].remaining + seconds(50);
    let forwarding = [
        forwarding(1, Some(seconds(400))),
        forwarding(2, Some(left)),
        Binding { nbma: nbma(9), ..forwarding(3, Some(seconds(5))) },
        forwarding(8, None),
    ];
    let began = net.now;
    net.nodes[0].program.clear();
    net.nodes[0].events.clear();
    net.nodes[0].engine = Engine::new(began, 7, Some(snapshot));
    net.nodes[0].engine.adopt(began, &forwarding);
    net.start(0);
    for node in 1..=3 {
        assert_eq!(net.binding(0, overlay(node)), Some(nbma(node)), "spoke {node}");
    }
    assert_eq!(net.binding(0, overlay(8)), None);
    assert_eq!(net.nodes[0].program[&Key::Binding(tunnel0(), overlay(1))].1, Some(began + seconds(400)));
    assert!(
        net.has(0, Key::Replica(tunnel0(), nbma(1), 0)),
        "it gets multicast, as a registered client does"
    );
    // Later lives of the data plane say nothing new.
    net.nodes[0].engine.adopt(began, &[Binding { nbma: nbma(5), ..forwarding[0] }]);
    net.give(0, Input::Configure(vec![net.nodes[0].tunnel.clone()]));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
}

/// A route that goes after the restart, or while the node was down, is purged where the former life told it.
#[test]
fn answers_of_a_former_life_are_purged() {
    for goes_while_down in [false, true] {
        let mut net = Net::new(2, &Setup::default());
        net.run(seconds(1));
        net.converse(1, 2, seconds(1));
        assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
        if goes_while_down {
            net.nodes[2].rib.0.remove(&lan(2));
        }
        net.restart(2);
        net.run(millis(15));
        assert_eq!(net.route(1, lan(2)), (!goes_while_down).then_some(overlay(2)));
        net.nodes[2].rib.0.remove(&lan(2));
        net.routes_changed(2, &[lan(2)]);
        net.run(millis(15));
        assert_eq!(net.route(1, lan(2)), None);
    }
}

/// The NBMA address changed while the node was down: its server had the old one, and is told.
#[test]
fn an_address_that_changed_in_between_is_purged() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    net.nodes[1].tunnel.nbma = Some(nbma(7));
    net.restart(1);
    net.run(millis(100));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(7)));
}

#[test]
fn the_same_inputs_make_the_same_actions() {
    let run = || {
        let mut net = Net::new(5, &Setup::default());
        net.lost = 100;
        net.run(seconds(1));
        net.converse(1, 2, seconds(300));
        net.nodes.iter().map(|n| n.sent.clone()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
