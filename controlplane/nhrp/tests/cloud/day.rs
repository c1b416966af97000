//! A day of holding times, which takes seconds.

use nhrp::Event;
use wire::nhrp::MessageType;

use crate::invariants::check;
use crate::net::*;

const DAY: u64 = 24 * 3600;

/// A day in which now and then somebody talks with somebody. Everybody stays registered with both hubs the whole day, and asks for it no more
/// often than it must; nothing grows.
fn day(spokes: usize, holding: u16) -> Net {
    let mut net = Net::with_hubs(2, spokes, &Setup { holding, ..Setup::default() });
    net.run(seconds(1));
    let mut most = 0;
    for hour in 0..24 {
        for quarter in 0..4 {
            let a = 2 + (hour * 7 + quarter) % spokes;
            let b = 2 + (hour * 7 + quarter + 1 + hour % (spokes - 1)) % spokes;
            net.converse(a, b, seconds(5));
            assert!(net.is_direct(a, b), "{a} and {b} at {}", net.now);
            net.run(seconds(895));
        }
        check(&net);
        let timers: usize = net.nodes.iter().map(|n| n.engine.census().timers).sum();
        most = most.max(timers);
    }
    // A registration and a binding for each spoke with each hub, and what the last hours of conversations left.
    let lasting = 4 * spokes;
    assert!(most <= lasting + 200, "{most} timers");
    for spoke in net.spokes() {
        for hub in 0..2 {
            assert_eq!(net.binding(hub, overlay(spoke)), Some(nbma(spoke)));
        }
        let requests = net.messages(spoke, MessageType::RegistrationRequest).len() as u64;
        let least = 2 * DAY / (u64::from(holding) / 3);
        assert!(
            (least..=least * 11 / 10 + 2).contains(&requests),
            "spoke {spoke}: {requests}, not about {least}"
        );
        assert!(!net.has_event(spoke, |e| matches!(e, Event::ServerDown { .. })));
    }
    for hub in 0..2 {
        assert!(!net.has_event(hub, |e| matches!(e, Event::Gone { .. })));
        assert!(!net.has_event(hub, |e| matches!(e, Event::Rejected { .. })));
    }
    net
}

#[test]
fn a_day_of_fifty_spokes_that_hold_ten_minutes() {
    let mut net = day(50, 600);
    net.run(seconds(2000));
    for spoke in net.spokes() {
        let census = net.nodes[spoke].engine.census();
        assert_eq!((census.entries, census.shortcuts, census.timers), (2, 0, 2), "spoke {spoke}");
    }
}

#[test]
fn a_day_of_two_hundred_spokes_that_hold_two_hours() {
    day(200, 7200);
}
