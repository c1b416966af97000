//! Losing data planes, control planes, and peers' places.

use ike::{Event, Input};

use crate::net::*;

/// A new data plane has none of the SAs: each is replaced by one with keys of its own, and the peer is told by CREATE_CHILD_SA.
#[test]
fn another_data_plane_gets_other_keys() {
    for workers in [1, 2, 5] {
        let mut net = Net::new(4, PSK);
        net.start();
        for node in 1..4 {
            net.want(node, 0);
        }
        net.run(seconds(1));
        let before: Vec<_> = net.nodes[0].inbound.keys().copied().collect();
        net.nodes[0].workers = workers;
        net.greet(0, true);
        assert!(net.nodes[0].up.is_empty(), "nothing is protected at this moment");
        net.run(millis(100));
        for node in 1..4 {
            assert!(net.can_talk(0, node), "{workers}: node {node}");
        }
        net.run(seconds(7));
        for node in 1..4 {
            net.assert_one_pair(0, node);
        }
        assert!(net.nodes[0].inbound.keys().all(|spi| !before.contains(spi)));
        assert_eq!(net.established(0).len(), 3, "the IKE SAs are the same");
        assert_eq!(net.nodes[0].engine.counts().established, 3);
    }
}

/// Both lose theirs at the same time.
#[test]
fn both_lose_their_data_planes() {
    for late in [0, 5, 15, 25] {
        let mut net = Net::new(2, PSK);
        net.start();
        net.want(0, 1);
        net.run(seconds(1));
        net.greet(0, true);
        net.run(millis(late));
        net.greet(1, true);
        net.run(seconds(10));
        assert!(net.can_talk(0, 1), "{late}");
        net.run(seconds(60));
        net.assert_one_pair(0, 1);
    }
}

/// The same data plane once more is none of that.
#[test]
fn the_same_data_plane_again_changes_nothing() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    let before = net.nodes[0].inbound.clone();
    net.converse(0, 1);
    net.greet(0, false);
    net.run(seconds(1));
    assert_eq!(net.nodes[0].inbound, before);
    let (_, lost, held) = net.talked();
    assert_eq!((lost, held), (0, 0));
}

/// Whatever is on its way when a data plane comes, the first child of a peer or a later one, the same data plane or another: its place is nobody
/// else's when the answer comes. (That no place is given twice is looked at with every action.)
#[test]
fn a_child_on_its_way_keeps_its_place() {
    for (seed, is_new, is_first) in (1..30).flat_map(|seed| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(is_new, is_first)| (seed, is_new, is_first))
    }) {
        let mut net = Net::seeded(4, PSK, seed);
        (net.nodes[0].workers, net.nodes[0].slots) = (1, 8);
        net.start();
        if !is_first {
            net.want(0, 1);
            net.run(seconds(1));
        }
        // Those that begin with it come to prove who they are 30 ms from now, and get places before the answer is there.
        net.want(2, 0);
        net.want(3, 0);
        if is_first {
            net.want(0, 1);
            net.run(millis(25));
        } else {
            net.run(millis(25));
            let (peer, spi) = (net.peer(0, 1), *net.nodes[0].inbound.keys().next().unwrap());
            let (direction, reached) = (model::sa::Direction::Inbound, model::sa::Reached::Soft);
            net.give(0, Input::Lifetime { peer, spi, direction, reached });
        }
        net.greet(0, is_new);
        net.run(seconds(10));
        for node in 1..4 {
            assert!(net.can_talk(0, node), "{seed} {is_new} {is_first}: node {node}");
            net.assert_one_pair(0, node);
        }
    }
}

/// A child that was asked for comes to a data plane that has no such place, or no such worker: another one is asked for at once.
#[test]
fn a_child_for_a_larger_data_plane_is_replaced() {
    for (workers, slots) in [(4, 2), (1, 4096)] {
        for seed in 1..10 {
            let mut net = Net::seeded(2, PSK, seed);
            net.nodes[0].workers = 4;
            net.start();
            net.want(0, 1);
            net.run(seconds(1));
            let (peer, spi) = (net.peer(0, 1), *net.nodes[0].inbound.keys().next().unwrap());
            let (direction, reached) = (model::sa::Direction::Inbound, model::sa::Reached::Soft);
            net.give(0, Input::Lifetime { peer, spi, direction, reached });
            (net.nodes[0].workers, net.nodes[0].slots) = (workers, slots);
            net.greet(0, true);
            net.run(millis(100));
            assert!(net.can_talk(0, 1), "{workers} {slots} {seed}");
            net.run(seconds(10));
            net.assert_one_pair(0, 1);
        }
    }
}

/// What a peer knows as lost is the name of nothing else: a new SPI is another one, however few there are.
#[test]
fn what_was_lost_lends_its_name_to_nobody() {
    let mut net = Net::new(2, PSK);
    (net.nodes[0].workers, net.nodes[0].slots) = (1, 1);
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    for nth in 0..1000 {
        let before: Vec<_> = net.nodes[0].inbound.keys().copied().collect();
        net.greet(0, true);
        net.run(millis(100));
        assert!(net.can_talk(0, 1), "{nth}");
        assert!(net.nodes[0].inbound.keys().all(|spi| !before.contains(spi)), "{nth}: {before:?}");
    }
}

/// A control plane is killed under traffic and comes back later: packets go on by the old SAs all the time, until new ones are in their place.
#[test]
fn a_control_plane_comes_back_under_traffic() {
    for (node, away) in [(0, 1), (1, 1), (0, 40), (1, 40)] {
        let mut net = Net::new(2, &format!("{PSK}dead_peer_detection = 20\n"));
        net.start();
        net.want(0, 1);
        net.run(seconds(1));
        net.converse(0, 1);
        net.behead(node);
        net.run(seconds(away));
        net.adopt(node);
        assert_eq!(net.nodes[node].inbound.len(), 1);
        net.run(seconds(20));
        let (sent, lost, held) = net.talked();
        assert!(sent > 4000 && (lost, held) == (0, 0), "node {node}: {lost} {held} of {sent}");
        net.assert_one_pair(0, 1);
        assert!(net.is_up(0, 1) && net.is_up(1, 0));
    }
}

/// The same of a hub with many, some of them behind NATs.
#[test]
fn a_hub_comes_back_to_all_its_spokes() {
    let mut net = Net::new(40, &format!("{PSK}dead_peer_detection = 20\n"));
    for node in 1..10 {
        let first = 20_000 + 10 * node as u16;
        net.nat.insert(node, Nat { outside: "192.0.2.77".parse().unwrap(), first });
    }
    net.start();
    for node in 1..40 {
        net.want_server(node, 0);
    }
    net.run(seconds(2));
    for node in 1..40 {
        net.converse(0, node);
    }
    net.behead(0);
    net.run(seconds(5));
    net.adopt(0);
    net.run(seconds(20));
    let (_, lost, held) = net.talked();
    assert_eq!((lost, held), (0, 0));
    assert_eq!((net.nodes[0].inbound.len(), net.nodes[0].outbound.len()), (39, 39));
    assert_eq!(net.established(0).len(), 39);
}

/// What a former life had, and nobody is there for any more, ends when it would have.
#[test]
fn what_is_adopted_ends_with_its_lifetime() {
    let mut net = Net::new(2, &format!("{PSK}child_lifetime = 300\n"));
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    net.behead(0);
    net.kill(1);
    net.adopt(0);
    net.run(seconds(299));
    assert_eq!((net.nodes[0].inbound.len(), net.nodes[0].outbound.len()), (1, 1));
    net.run(seconds(2));
    assert_eq!((net.nodes[0].inbound.len(), net.nodes[0].outbound.len()), (0, 0));
    assert_eq!(net.nodes[0].engine.sizes().2, 0);
}

fn behind_nat(config: &str) -> Net {
    let mut net = Net::new(2, &format!("{PSK}{config}"));
    net.nat.insert(1, Nat { outside: "192.0.2.77".parse().unwrap(), first: 30_000 });
    net.start();
    net.want_server(1, 0);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    net
}

/// RFC 7296 §2.23: a NAT gives a peer another place; it is followed after its next authentic message.
#[test]
fn a_peer_is_followed_to_another_place() {
    let mut net = behind_nat("dead_peer_detection = 5\n");
    let was = net.peer(0, 1);
    net.nat.insert(1, Nat { outside: "192.0.2.99".parse().unwrap(), first: 41_000 });
    let now = net.peer(0, 1);
    net.run(seconds(10));
    assert_eq!(net.nodes[0].up.keys().collect::<Vec<_>>(), [&now]);
    assert!(net.nodes[0].events.iter().any(|(_, e)| *e == Event::Moved { peer: now, was }));
    assert!(net.nodes[0].downs.is_empty());
    net.run(seconds(10));
    net.assert_one_pair(0, 1);
}

/// The same after an ESP packet, which comes sooner; and back again before anything else happened.
#[test]
fn packets_show_the_other_place_too() {
    let mut net = behind_nat("dead_peer_detection = 600\n");
    let old = net.nat[&1];
    let new = Nat { outside: "192.0.2.99".parse().unwrap(), first: 41_000 };
    net.nat.insert(1, new);
    let spi = *net.nodes[0].inbound.keys().next().unwrap();
    net.give(0, Input::Moved { spi, remote: (new.outside, new.first + 1).into() });
    net.run(millis(100));
    assert!(net.can_talk(0, 1));
    net.run(seconds(10));
    net.assert_one_pair(0, 1);

    // There and back, and the messages about it get lost meanwhile.
    net.loses = Some(Box::new(|_, _| true));
    net.is_bad = true;
    let spi = *net.nodes[0].inbound.keys().next().unwrap();
    net.give(0, Input::Moved { spi, remote: (old.outside, old.first + 1).into() });
    net.run(seconds(2));
    net.give(0, Input::Moved { spi, remote: (new.outside, new.first + 1).into() });
    net.run(seconds(1));
    net.loses = None;
    net.run(seconds(20));
    net.assert_one_pair(0, 1);
    assert!(net.is_up(0, 1));
}

/// Who is not behind a NAT is not followed: who answers from elsewhere is somebody in between.
#[test]
fn nobody_else_is_followed() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    let spi = *net.nodes[0].inbound.keys().next().unwrap();
    net.give(0, Input::Moved { spi, remote: "192.0.2.99:4500".parse().unwrap() });
    net.run(seconds(1));
    assert!(!net.nodes[0].events.iter().any(|(_, e)| matches!(e, Event::Moved { .. })));
    net.assert_one_pair(0, 1);
}
