//! Clouds of several hubs, while the underlay is good.

use nhrp::Event;

use crate::net::*;

#[test]
fn every_spoke_registers_with_both_hubs_and_pairs_go_direct() {
    let mut net = Net::with_hubs(2, 20, &Setup::default());
    net.run(seconds(1));
    for spoke in net.spokes() {
        for hub in 0..2 {
            assert_eq!(net.binding(hub, overlay(spoke)), Some(nbma(spoke)), "spoke {spoke} at hub {hub}");
        }
    }
    net.converse(2, 21, seconds(1));
    assert!(net.is_direct(2, 21));
}

/// The hubs of regions are clients of the first: what one does not know it asks its server for.
#[test]
fn spokes_of_three_regions_reach_each_other_directly() {
    let mut net = Net::regions(&[2, 2, 2], &Setup::default());
    net.run(seconds(1));
    for (hub, spokes) in [(0, 3..5), (1, 5..7), (2, 7..9)] {
        for spoke in net.spokes() {
            let at = spokes.contains(&spoke).then_some(nbma(spoke));
            assert_eq!(net.binding(hub, overlay(spoke)), at, "spoke {spoke} at hub {hub}");
        }
    }
    assert_eq!(net.packet(5, host(5, 9), host(8, 9)), Some(vec![5, 1, 0, 2, 8]));
    net.converse(5, 8, seconds(2));
    assert!(net.is_direct(5, 8));
    net.converse(3, 6, seconds(2));
    assert!(net.is_direct(3, 6));
}

/// The data plane forwards on while there is no control plane, until what it has ends.
#[test]
fn a_node_without_control_plane_forwards_on() {
    let mut net = Net::with_hubs(2, 4, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.converse(2, 3, seconds(1));
    net.behead(2);
    for _ in 0..30 {
        net.run(seconds(1));
        assert_eq!(net.packet(2, host(2, 9), host(3, 9)), Some(vec![2, 3]));
    }
    net.restart(2);
    assert_eq!(net.packet(2, host(2, 9), host(3, 9)), Some(vec![2, 3]), "it programs again what it had");
    net.behead(0);
    net.run(seconds(61));
    assert_eq!(net.binding(0, overlay(4)), None, "nobody renews it");
    assert_eq!(net.walk(4, host(4, 9), host(5, 9)), Walk::Dropped(vec![4, 0]));
    net.lead_by(4, 1);
    assert_eq!(net.packet(4, host(4, 9), host(5, 9)), Some(vec![4, 1, 5]));
}

#[test]
fn a_dead_hub_swallows_what_is_sent_to_it_and_the_other_carries_on() {
    let mut net = Net::with_hubs(2, 4, &Setup::default());
    net.run(seconds(1));
    net.kill(0);
    assert_eq!(net.walk(2, host(2, 9), host(3, 9)), Walk::Swallowed(vec![2]));
    for spoke in net.spokes() {
        net.lead_by(spoke, 1);
    }
    net.converse(2, 3, seconds(1));
    assert!(net.is_direct(2, 3));
    net.restart_without_snapshot(0);
    assert!(!net.has_event(0, |e| matches!(e, Event::Registered { .. })), "it has forgotten everybody");
    net.run(seconds(201));
    assert_eq!(
        net.binding(0, overlay(2)),
        Some(nbma(2)),
        "a third of the holding time later they registered again"
    );
}

/// Two spokes behind one address of a NAT: each is reached where it speaks from, and not by who has not heard of it.
#[test]
fn two_spokes_behind_one_address_do_not_disturb_each_other() {
    let mut net = Net::idle(3, &Setup::default());
    let outside = "203.0.113.1".parse().unwrap();
    net.pat.insert(1, (outside, 4001));
    net.pat.insert(2, (outside, 4002));
    net.start_all();
    net.run(seconds(1));
    for spoke in [1, 2] {
        assert_eq!(net.binding(0, overlay(spoke)), Some(outside));
        assert!(net.nodes[spoke].engine.servers(net.now)[0].replies == 1, "the reply reached who asked");
        assert_eq!(net.packet(3, host(3, 9), host(spoke, 9)), Some(vec![3, 0, spoke]));
    }
    net.run(seconds(700));
    assert!(!net.has_event(0, |e| matches!(e, Event::Gone { .. })), "both renew in time");
    assert!((1..3).all(|spoke| !net.has_event(spoke, |e| matches!(e, Event::ServerDown { .. }))));
}
