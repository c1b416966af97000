//! Living together: dead peers, idle ones, and goodbyes.

use ike::{Clear, Event, Input};
use model::NbmaAddr;
use model::ike::Identity;

use crate::net::*;

fn pair(config: &str) -> Net {
    let mut net = Net::new(2, &format!("{PSK}{config}"));
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    net
}

/// RFC 7296 §2.4: who hears nothing asks, and who answers lives.
#[test]
fn silence_is_asked_and_nothing_comes_of_it() {
    let mut net = pair("dead_peer_detection = 5\n");
    let before = net.nodes[0].sent.len() + net.nodes[1].sent.len();
    net.run(seconds(300));
    let asked = net.nodes[0].sent.len() + net.nodes[1].sent.len() - before;
    assert!((100..=130).contains(&asked), "a question and its answer every five seconds: {asked}");
    net.assert_one_pair(0, 1);
}

/// Packets show that a peer lives as well as messages do.
#[test]
fn who_talks_is_not_asked() {
    let mut net = pair("dead_peer_detection = 5\n");
    net.converse(0, 1);
    let before = net.nodes[0].sent.len() + net.nodes[1].sent.len();
    net.run(seconds(100));
    assert_eq!(net.nodes[0].sent.len() + net.nodes[1].sent.len(), before);
}

#[test]
fn a_dead_peer_is_told_of_and_leaves_nothing() {
    let mut net = pair("dead_peer_detection = 5\n");
    let peer = net.peer(0, 1);
    net.kill(1);
    net.run(seconds(5 + 15));
    assert_eq!(net.nodes[0].downs.len(), 0);
    net.run(seconds(1));
    let [(_, down, is_dead)] = net.nodes[0].downs[..] else { panic!("{:?}", net.nodes[0].downs) };
    assert_eq!((down, is_dead), (peer, true));
    assert!(net.nodes[0].inbound.is_empty() && net.nodes[0].outbound.is_empty());
    assert_eq!(net.nodes[0].engine.sizes(), (0, 0, 0));
    net.run(seconds(600));
    assert!(net.sas(0).is_empty(), "nobody wants it any more");
}

/// A server is tried for ever, and found when it is back.
#[test]
fn a_server_comes_back() {
    let mut net = pair("dead_peer_detection = 5\n");
    net.want_server(0, 1);
    net.kill(1);
    net.run(seconds(400));
    assert!(!net.is_up(0, 1) && net.failures(0).iter().any(|why| why == "no answer"));
    net.start_one(1, true);
    net.run(seconds(80));
    net.assert_one_pair(0, 1);
}

/// Who forgot everything begins anew, and says so (INITIAL_CONTACT): nobody waits for the dead.
#[test]
fn a_peer_that_forgot_everything_takes_over_at_once() {
    let mut net = pair("");
    net.kill(1);
    net.run(seconds(2));
    net.start_one(1, true);
    net.want(1, 0);
    net.run(millis(100));
    assert!(net.can_talk(1, 0));
    net.run(seconds(6));
    net.assert_one_pair(0, 1);
    assert_eq!(net.nodes[0].downs, [], "it was protected all the time");
}

#[test]
fn who_is_idle_goes_and_a_server_stays() {
    let mut net = pair("idle = 20\n");
    net.run(seconds(30));
    assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
    assert!(net.nodes[0].downs.iter().all(|(_, _, is_dead)| !is_dead));
    assert_eq!((net.nodes[0].engine.sizes(), net.nodes[1].engine.sizes()), ((0, 0, 0), (0, 0, 0)));

    let mut net = pair("idle = 20\n");
    net.nodes[1].config = PSK.to_owned();
    net.configure(1);
    net.want_server(0, 1);
    net.run(seconds(100));
    net.assert_one_pair(0, 1);
    net.want(0, 1);
    net.run(seconds(30));
    assert!(!net.is_up(0, 1), "it is no server any more");
}

#[test]
fn what_is_cleared_is_gone_on_both_sides_and_servers_come_back() {
    for by_identity in [false, true] {
        let mut net = pair("");
        let clear = if by_identity {
            Clear { identity: Some(Identity::Address(address(1))), remote: None }
        } else {
            Clear { remote: Some(NbmaAddr(address(1))), identity: None }
        };
        let other = Clear { remote: Some(NbmaAddr(address(7))), identity: None };
        net.give(0, Input::Clear(other));
        net.assert_one_pair(0, 1);
        net.give(0, Input::Clear(clear.clone()));
        net.run(seconds(6));
        assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
        assert!(net.nodes.iter().all(|n| n.inbound.is_empty() && n.outbound.is_empty()));
        net.want_server(0, 1);
        net.run(seconds(1));
        net.assert_one_pair(0, 1);
        net.give(0, Input::Clear(clear));
        net.run(seconds(9));
        net.assert_one_pair(0, 1);
    }
}

#[test]
fn who_stops_says_so() {
    let mut net = pair("");
    net.give(0, Input::Shutdown);
    assert!(net.nodes[0].inbound.is_empty() && net.nodes[0].outbound.is_empty());
    net.run(millis(20));
    assert!(!net.is_up(1, 0));
    net.run(seconds(6));
    assert_eq!(net.nodes[1].engine.sizes(), (0, 0, 0));
    assert_eq!(net.nodes[0].engine.sizes(), (0, 0, 0));
}

/// A profile that goes takes its SAs with it, and one that does not admit the peer any more as well.
#[test]
fn what_the_configuration_has_no_more_ends() {
    let mut net = pair("");
    net.give(0, Input::Configure(Vec::new()));
    net.run(seconds(6));
    assert!(net.nodes.iter().all(|n| n.up.is_empty() && n.inbound.is_empty() && n.outbound.is_empty()));

    let mut net = pair("");
    net.nodes[0].config = format!("{PSK}peers = ['10.9.9.9']\n");
    net.configure(0);
    net.run(seconds(6));
    assert!(net.nodes.iter().all(|n| n.up.is_empty() && n.inbound.is_empty() && n.outbound.is_empty()));

    let mut net = pair("");
    net.nodes[0].config = format!("{PSK}child_lifetime = 60\n");
    net.configure(0);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    assert!(net.nodes[0].downs.is_empty(), "other changes end nothing");
}

/// RFC 3948 §4: who is behind a NAT keeps it open.
#[test]
fn a_nat_is_kept_open() {
    let mut net = Net::new(2, &format!("{PSK}dead_peer_detection = 600\n"));
    net.nat.insert(0, Nat { outside: "192.0.2.77".parse().unwrap(), first: 30_000 });
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    net.run(seconds(200));
    let keepalives = net.nodes[0].sent.iter().filter(|(_, _, bytes)| bytes[..] == [0xff]).count();
    assert!((9..=10).contains(&keepalives), "{keepalives}");
    assert!(
        !net.nodes[1].sent.iter().any(|(_, _, bytes)| bytes[..] == [0xff]),
        "the other is not behind one"
    );
    net.assert_one_pair(0, 1);
}

/// Each change of state is told, with why.
#[test]
fn what_happens_is_told() {
    let mut net = pair("");
    net.give(0, Input::Clear(Clear::default()));
    net.run(seconds(6));
    let told = |node: usize| {
        let events = net.nodes[node].events.iter();
        let words = events.map(|(_, event)| match event {
            Event::IkeUp { is_initiator, .. } => format!("ike up {is_initiator}"),
            Event::ChildUp { .. } => "child up".to_owned(),
            Event::ChildDown { reason, .. } => format!("child down: {reason}"),
            Event::IkeDown { reason, .. } => format!("ike down: {reason}"),
            other => format!("{other:?}"),
        });
        words.collect::<Vec<_>>()
    };
    let why = "the operator cleared it";
    assert_eq!(
        told(0),
        ["ike up true", "child up", &format!("child down: {why}"), &format!("ike down: {why}")]
    );
    assert_eq!(
        told(1),
        ["ike up false", "child up", "child down: peer closed it", "ike down: peer closed it"]
    );
}
