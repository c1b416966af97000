//! Rekeying while packets go: none is lost, none has to wait.

use ike::{Event, Input};
use model::sa::{Direction, Reached};

use crate::net::*;

fn talking(config: &str, other: &str) -> Net {
    let mut net = Net::new(2, &format!("{PSK}{config}"));
    net.nodes[1].config = format!("{PSK}{other}");
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    net.converse(0, 1);
    net
}

fn rekeyed(net: &Net, node: usize) -> (usize, usize) {
    let events = &net.nodes[node].events;
    let children = events.iter().filter(|(_, e)| matches!(e, Event::ChildUp { is_rekey: true, .. })).count();
    let ike = events.iter().filter(|(_, e)| matches!(e, Event::IkeUp { is_rekey: true, .. })).count();
    (children, ike)
}

#[test]
fn children_are_rekeyed_without_a_loss_by_either_side() {
    let short = "child_lifetime = 30\n";
    for (config, other) in [
        (short, ""),
        ("", short),
        (short, short),
        ("child_lifetime = 30\nesp = ['aes256gcm16-esn-x25519']\n", "esp = ['aes256gcm16-esn-x25519']\n"),
        // RFC 7296 §1.3: the peer wants another group.
        (
            "child_lifetime = 30\nesp = ['aes128gcm16-x25519', 'aes128gcm16-ecp256']\n",
            "esp = ['aes128gcm16-ecp256']\n",
        ),
        (
            "child_lifetime = 30\nesp = ['aes128gcm16', 'aes128gcm16-ecp256']\n",
            "esp = ['aes128gcm16-ecp256']\n",
        ),
    ] {
        let mut net = talking(config, other);
        net.run(seconds(300));
        let (sent, lost, held) = net.talked();
        assert_eq!((sent > 50_000, lost, held), (true, 0, 0), "{config} {other}");
        let (children, ike) = rekeyed(&net, 0);
        assert!(
            (9..=13).contains(&children) && ike == 0,
            "{config} {other}: {children} {:?}",
            net.failures(0)
        );
        net.assert_one_pair_soon(0, 1);
        assert_eq!(net.nodes[0].downs.len() + net.nodes[1].downs.len(), 0);
    }
}

#[test]
fn ike_sas_are_rekeyed_without_a_loss_by_either_side() {
    let hybrid = "proposals = ['aes256gcm16-prfsha384-x25519-mlkem768']\n";
    for (config, other) in [
        ("lifetime = 40\n".to_owned(), String::new()),
        (String::new(), "lifetime = 40\n".to_owned()),
        ("lifetime = 40\n".to_owned(), "lifetime = 40\n".to_owned()),
        (format!("lifetime = 40\n{hybrid}"), hybrid.to_owned()),
        ("lifetime = 40\nchild_lifetime = 15\n".to_owned(), "child_lifetime = 17\n".to_owned()),
    ] {
        let mut net = talking(&config, &other);
        net.run(seconds(400));
        let (_, lost, held) = net.talked();
        assert_eq!((lost, held), (0, 0), "{config} {other}");
        let (_, ike) = rekeyed(&net, 0);
        assert!((9..=13).contains(&ike), "{config} {other}: {ike} {:?}", net.failures(0));
        net.assert_one_pair_soon(0, 1);
        assert_eq!(net.nodes[0].downs.len() + net.nodes[1].downs.len(), 0);
        assert_eq!((net.sas(0).len(), net.sas(1).len()), (1, 1), "the old ones are gone");
    }
}

/// An SA that carried as much as it may is replaced, whichever it is.
#[test]
fn a_lifetime_in_bytes_or_packets_is_one() {
    for (node, direction) in [(0, Direction::Inbound), (0, Direction::Outbound), (1, Direction::Outbound)] {
        let mut net = talking("", "");
        let peer = net.peer(node, 1 - node);
        let child = net.established(node)[0].children[0].clone();
        let spi = if direction == Direction::Inbound { child.inbound } else { child.outbound };
        for _ in 0..3 {
            net.give(node, Input::Lifetime { peer, spi, direction, reached: Reached::Soft });
        }
        net.run(seconds(10));
        let (_, lost, held) = net.talked();
        assert_eq!((lost, held), (0, 0));
        assert_eq!(rekeyed(&net, 0).0, 1, "once");
        net.assert_one_pair(0, 1);
        assert_ne!(net.established(node)[0].children[0].inbound, child.inbound);
    }
}

/// The same over an underlay that loses a fifth, doubles and reorders: it takes longer, and loses nothing.
#[test]
fn a_bad_underlay_makes_rekeying_longer_and_no_more() {
    for seed in 1..12 {
        let config = format!("{PSK}child_lifetime = 20\nlifetime = 50\ndead_peer_detection = 10\n");
        let mut net = Net::seeded(2, &config, seed);
        net.start();
        net.want(0, 1);
        net.run(seconds(1));
        net.assert_one_pair(0, 1);
        net.is_bad = true;
        net.lost = 200;
        net.doubled = 200;
        net.shaken = millis(300);
        net.converse(0, 1);
        net.run(seconds(300));
        let (_, lost, held) = net.talked();
        assert_eq!((lost, held), (0, 0), "seed {seed}");
        let (children, ike) = rekeyed(&net, 0);
        assert!(children >= 10 && ike >= 4, "seed {seed}: {children} {ike}");
        (net.lost, net.doubled, net.shaken) = (0, 0, millis(0));
        net.run(seconds(60));
        net.assert_one_pair_soon(0, 1);
    }
}

/// RFC 9611: a child for each worker, of both sides, where both want that; and one where one does not know of it.
#[test]
fn each_worker_has_a_child_where_both_want_that() {
    let mut net = Net::new(2, &format!("{PSK}child_per_worker = true\nchild_lifetime = 40\nlifetime = 90\n"));
    net.nodes[0].workers = 3;
    net.nodes[1].workers = 4;
    net.start();
    net.want(0, 1);
    net.run(seconds(20));
    let workers = |net: &Net, node: usize| {
        let mut all: Vec<_> = net.nodes[node].outbound.keys().map(|(_, worker)| worker.0).collect();
        all.dedup();
        all
    };
    assert_eq!((workers(&net, 0), workers(&net, 1)), (vec![0, 1, 2], vec![0, 1, 2, 3]));
    net.converse(0, 1);
    net.run(seconds(300));
    let (_, lost, held) = net.talked();
    assert_eq!((lost, held), (0, 0));
    net.run(seconds(6));
    assert_eq!((workers(&net, 0), workers(&net, 1)), (vec![0, 1, 2], vec![0, 1, 2, 3]));
    let children = net.established(0)[0].children.len();
    assert!((4..=5).contains(&children), "{children}");
    assert_eq!(net.nodes[0].inbound.len(), children);
}
