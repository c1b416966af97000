//! A bad underlay: loss, duplicates, reordering. What must hold does, only later.

use nhrp::{Event, Reject};
use wire::nhrp::MessageType;

use crate::net::*;

#[test]
fn a_cloud_converges_over_a_bad_underlay() {
    let mut net = Net::idle(200, &Setup { holding: 300, ..Setup::default() });
    net.lost = 200;
    net.doubled = 200;
    net.shaken = millis(200);
    for node in 0..=200 {
        net.start(node);
    }
    net.run(seconds(60));
    for spoke in 1..=200 {
        assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)), "spoke {spoke}");
    }
    // Five holding times: three tries in each third of one are enough for a fifth of loss, but for a very unlucky spoke.
    net.run(seconds(1500));
    let gone = net.nodes[0].events.iter().filter(|(_, e)| matches!(e, Event::Gone { .. })).count();
    assert!(gone <= 2, "{gone}");
    // Every pair of neighbours gets its shortcuts, and no packet of theirs was ever without a way.
    for spoke in (1..200).step_by(20) {
        net.converse(spoke, spoke + 1, seconds(30));
        assert_eq!(net.packet(spoke, host(spoke, 9), host(spoke + 1, 9)), Some(vec![spoke, spoke + 1]));
    }
    // Duplicates of replies are no offence, and start no quarrel; those of purges that were answered are counted.
    let unsolicited: u64 = (0..=200).map(|n| net.rejects(n, Reject::Unsolicited)).sum();
    let errors: usize = (0..=200).map(|n| net.messages(n, MessageType::ErrorIndication).len()).sum();
    assert!(unsolicited <= 50 && errors <= 5, "{unsolicited} {errors}");
}

/// All of them talk to one at the same time.
#[test]
fn everybody_to_one() {
    let mut net = Net::new(200, &Setup::default());
    net.run(seconds(1));
    for spoke in 2..=200 {
        assert!(net.packet(spoke, host(spoke, 9), host(1, 9)).is_some());
        assert!(net.packet(1, host(1, 9), host(spoke, 9)).is_some());
    }
    net.run(millis(100));
    for spoke in 2..=200 {
        assert_eq!(net.packet(spoke, host(spoke, 9), host(1, 9)), Some(vec![spoke, 1]));
        assert_eq!(net.packet(1, host(1, 9), host(spoke, 9)), Some(vec![1, spoke]));
    }
    assert_eq!(net.nodes[1].engine.shortcuts(net.now).len(), 199);
}

/// The hub restarts every minute under a conversation; nobody loses a packet, and shortcuts stay.
#[test]
fn a_hub_that_keeps_dying() {
    let mut net = Net::new(10, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.converse(1, 2, seconds(2));
    for _ in 0..10 {
        net.nodes[0].alive = false;
        assert_eq!(net.converse(1, 2, seconds(5)), 2);
        net.nodes[0].alive = true;
        net.restart(0);
        assert_eq!(net.converse(1, 2, seconds(55)), 2);
    }
}

/// The wire is silent for longer than any holding time; when it is back, so is everything.
#[test]
fn a_long_silence_heals() {
    let mut net = Net::new(5, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.lost = 1000;
    net.run(seconds(600));
    assert_eq!(net.binding(0, overlay(1)), None);
    net.lost = 0;
    net.run(seconds(65));
    for spoke in 1..=5 {
        assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)));
    }
    net.converse(1, 2, seconds(1));
    assert_eq!(net.packet(1, host(1, 9), host(2, 9)), Some(vec![1, 2]));
}
