//! Coming up, and why not.

use model::ike::Identity;
use model::program::{Key, Object};

use crate::net::*;

/// Who wants is protected one and a half round trips later, its peer when the first packet shows that it is.
#[test]
fn two_engines_come_up_and_talk() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(millis(40));
    assert!(net.is_up(0, 1));
    assert!(!net.is_up(1, 0), "nothing showed yet that the initiator has its SAs");
    assert_eq!((net.packet(0, 1), net.packet(1, 0)), (Fate::Arrived, Fate::Arrived));
    assert!(net.is_up(1, 0));
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    assert_eq!(net.nodes[1].up[&net.peer(1, 0)], Identity::Address(address(0)));
    assert_eq!((net.failures(0), net.failures(1)), (vec![], vec![]));
}

/// The same with cryptography that is some, in every group.
#[test]
fn two_engines_come_up_with_real_cryptography() {
    for suite in [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm16-prfsha256-ecp256",
        "aes256-sha256-prfsha256-ecp384",
        "aes256-sha384-prfsha512-ecp521",
        "aes256gcm16-prfsha256-modp2048",
        "aes256gcm16-prfsha384-x25519-mlkem768",
    ] {
        let mut net = Net::new(2, &format!("{PSK} proposals = ['{suite}']\n"));
        net.real = true;
        net.start();
        net.want(0, 1);
        net.run(seconds(1));
        assert!(net.can_talk(0, 1), "{suite}: {:?} {:?}", net.failures(0), net.failures(1));
        assert_eq!(net.established(0)[0].suite.unwrap().to_string(), suite);
        net.assert_one_pair(0, 1);
    }
}

/// The responder's outbound SA waits for nobody for ever.
#[test]
fn a_responder_seals_after_a_while_though_nothing_comes() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(millis(30));
    assert_eq!(net.nodes[1].outbound.len(), 0);
    net.run(millis(149));
    assert_eq!(net.nodes[1].outbound.len(), 0);
    net.run(millis(2));
    assert_eq!(net.nodes[1].outbound.len(), 1);
    assert!(net.is_up(1, 0));
}

#[test]
fn what_was_wanted_twice_is_begun_once() {
    let mut net = Net::new(2, PSK);
    net.start();
    for _ in 0..5 {
        net.want(0, 1);
    }
    net.run(seconds(1));
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    assert_eq!(net.nodes[0].engine.counts().begun, 1);
}

/// Of a peer nothing is known at first, and later that port 4500 is the one: wanted by both names it is begun with once, also after it was cleared,
/// and after it was away; and of two that were begun all the same the older one goes.
#[test]
fn who_is_wanted_by_two_names_is_begun_with_once() {
    let mut net = Net::new(2, PSK);
    net.nat.insert(0, Nat { outside: "192.0.2.77".parse().unwrap(), first: 30_000 });
    net.start();
    let peer = net.peer(0, 1);
    assert_eq!(peer.port, 4500);
    net.want_server(0, 1);
    net.give(0, ike::Input::Want { peer, is_server: true });
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    assert_eq!(net.nodes[0].engine.counts().begun, 1);
    for nth in 2..5 {
        net.give(0, ike::Input::Clear(ike::Clear::default()));
        net.run(seconds(8));
        net.assert_one_pair(0, 1);
        assert_eq!((net.established(0).len(), net.nodes[0].engine.counts().begun), (1, nth));
    }
    net.kill(1);
    net.run(seconds(300));
    assert!(net.established(0).is_empty());
    let before = net.nodes[0].engine.counts().begun;
    net.run(seconds(300));
    let attempts = net.nodes[0].engine.counts().begun - before;
    assert!(
        (3..=5).contains(&attempts),
        "{attempts}: a quarter of a minute without an answer, and a minute's rest"
    );
    net.start_one(1, true);
    net.run(seconds(70));
    net.assert_one_pair(0, 1);
}

/// Without a NAT ESP is protocol 50; with one in front of either it is in UDP, and the port is that of IKE behind it.
#[test]
fn a_nat_on_the_way_is_found_on_either_side() {
    for (behind, begins) in [(0, 0), (1, 1), (0, 1)] {
        let mut net = Net::new(2, PSK);
        net.nat.insert(behind, Nat { outside: "192.0.2.77".parse().unwrap(), first: 30_000 });
        if begins != behind {
            // Somebody outside knows the port of who is inside, and the way in is open.
            net.start();
            let peer = net.peer(begins, behind);
            net.give(begins, ike::Input::Want { peer, is_server: false });
        } else {
            net.start();
            net.want(begins, 1 - begins);
        }
        net.run(seconds(1));
        assert!(net.is_up(0, 1) && net.is_up(1, 0), "{:?} {:?}", net.failures(0), net.failures(1));
        net.assert_one_pair(0, 1);
        let other = 1 - behind;
        assert_eq!(net.established(other)[0].protection.port, 30_001);
        assert!(net.established(other)[0].nat_there && net.established(behind)[0].nat_here);
    }
}

/// Two behind one NAT differ by port, and both work.
#[test]
fn two_peers_behind_one_nat() {
    let mut net = Net::new(3, PSK);
    for node in [1, 2] {
        net.nat
            .insert(node, Nat { outside: "192.0.2.77".parse().unwrap(), first: 30_000 + 100 * node as u16 });
    }
    net.start();
    net.want(1, 0);
    net.want(2, 0);
    net.run(seconds(1));
    assert!(net.can_talk(0, 1) && net.can_talk(0, 2));
    assert_eq!(net.established(0).len(), 2);
    assert_eq!(net.nodes[0].outbound.len(), 2);
}

/// Every message of both may get lost, one after the other and the same one twice: it only takes longer.
#[test]
fn any_message_may_get_lost() {
    for suites in ["", "proposals = ['aes256gcm16-prfsha384-x25519-mlkem768']\n"] {
        for nth in 0..8 {
            let mut net = Net::new(2, &format!("{PSK}{suites}"));
            let mut count = 0;
            net.is_bad = true;
            net.loses = Some(Box::new(move |_, _| {
                count += 1;
                count - 1 == nth || count - 1 == nth + 1
            }));
            net.start();
            net.want(0, 1);
            net.run(seconds(8));
            assert!(net.can_talk(0, 1), "{nth}");
            net.assert_one_pair(0, 1);
        }
    }
}

/// What comes twice changes nothing the second time.
#[test]
fn every_message_may_come_twice_and_late() {
    for seed in 1..40 {
        let mut net = Net::seeded(2, PSK, seed);
        net.doubled = 900;
        net.is_bad = true;
        net.shaken = millis(400);
        net.start();
        net.want(0, 1);
        net.run(seconds(20));
        net.doubled = 0;
        net.run(seconds(40));
        net.assert_one_pair(0, 1);
    }
}

#[test]
fn what_is_refused_is_said_in_words() {
    let cases = [
        ("psk = [{ secret = 'one' }]\n", "psk = [{ secret = 'another' }]\n", "AUTHENTICATION_FAILED", ""),
        (
            "psk = [{ secret = 'x' }]\nproposals = ['aes256gcm16-prfsha384-x25519']\n",
            "psk = [{ secret = 'x' }]\nproposals = ['aes256-sha256-prfsha256-ecp256']\n",
            "peer accepts none of aes256gcm16-prfsha384-x25519",
            "peer proposed only",
        ),
        (
            "psk = [{ secret = 'x' }]\nesp = ['aes256gcm16']\n",
            "psk = [{ secret = 'x' }]\nesp = ['aes128gcm16']\n",
            "NO_PROPOSAL_CHOSEN",
            "for ESP; profile branch accepts aes128gcm16",
        ),
        (
            "psk = [{ secret = 'x' }]\n",
            "psk = [{ secret = 'x' }]\npeers = ['*.elsewhere']\n",
            "AUTHENTICATION_FAILED",
            "",
        ),
    ];
    for (initiator, responder, there, here) in cases {
        let mut net = Net::new(2, initiator);
        net.nodes[1].config = responder.to_owned();
        net.start();
        net.want(0, 1);
        net.run(seconds(5));
        assert!(net.failures(0)[0].contains(there), "{:?}", net.failures(0));
        assert!(net.failures(1)[0].contains(here), "{:?}", net.failures(1));
        assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
        assert!(net.nodes.iter().all(|n| n.inbound.is_empty() && n.outbound.is_empty()));
        net.run(seconds(120));
        assert_eq!(net.nodes[1].engine.sizes(), (0, 0, 0), "nothing is left of it");
    }
}

/// The peer's mode is another one: tunnel mode where transport is wanted is refused, and the other way round is answered with tunnel mode.
#[test]
fn modes_have_to_agree() {
    use model::sa::SaMode::{Transport, Tunnel};
    for (initiator, responder, comes_up) in [
        (Transport, Transport, true),
        (Tunnel, Tunnel, true),
        (Transport, Tunnel, false),
        (Tunnel, Transport, false),
    ] {
        let mut net = Net::new(2, PSK);
        net.nodes[0].mode = initiator;
        net.nodes[1].mode = responder;
        net.start();
        net.want(0, 1);
        net.run(seconds(3));
        assert_eq!(net.is_up(0, 1), comes_up, "{initiator} {responder}: {:?}", net.failures(0));
        if comes_up {
            assert!(net.nodes[0].inbound.values().all(|sa| sa.mode == initiator));
            net.assert_one_pair(0, 1);
        } else {
            net.run(seconds(40));
            assert!(net.nodes.iter().all(|n| n.inbound.is_empty() && n.outbound.is_empty()));
        }
    }
}

/// RFC 7296 §1.2, §2.6: a peer that wants another group, and one that wants a cookie, are given what they want.
#[test]
fn another_group_and_a_cookie_are_one_more_round_trip_each() {
    let config =
        format!("{PSK}proposals = ['aes256gcm16-prfsha384-x25519', 'aes256gcm16-prfsha384-ecp384']\n");
    let mut net = Net::new(2, &config);
    net.nodes[1].config =
        format!("{PSK}proposals = ['aes256gcm16-prfsha384-ecp384']\nlimits = {{ cookies_above = 0 }}\n");
    net.start();
    net.want(0, 1);
    net.run(millis(90));
    assert!(net.is_up(0, 1), "{:?}", net.failures(0));
    assert_eq!(net.established(0)[0].suite.unwrap().to_string(), "aes256gcm16-prfsha384-ecp384");
    assert_eq!(net.nodes[1].engine.counts().cookies, 1);
}

/// RFC 7383: messages that are larger than the path takes go in parts, in any order.
#[test]
fn large_messages_go_in_fragments() {
    let config = format!("{PSK}fragment_size = 300\nproposals = ['aes256gcm16-prfsha384-x25519-mlkem768']\n");
    for seed in 1..20 {
        let mut net = Net::seeded(2, &config, seed);
        net.shaken = millis(30);
        net.start();
        net.want(0, 1);
        net.run(seconds(2));
        net.assert_one_pair(0, 1);
        let longest = net.nodes[0].sent.iter().skip(1).map(|(_, _, bytes)| bytes.len()).max().unwrap();
        assert!(longest + 28 <= 300, "{longest}");
    }
}

/// What is programmed is what the profile says.
#[test]
fn what_is_programmed_is_complete() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    let n = &net.nodes[0];
    let (inbound, outbound) = (n.inbound.values().next().unwrap(), n.outbound.values().next().unwrap());
    assert!(inbound.esn && inbound.window == 1024 && inbound.protection == net.peer(0, 1));
    assert_eq!(outbound.worker.0, inbound.spi.worker(), "both are the same worker's");
    assert_eq!((outbound.lease.first, outbound.lease.last), (1, u64::MAX));
    let key = Object::OutboundSa(outbound.clone()).key();
    assert_eq!(key, Key::OutboundSa(net.peer(0, 1), outbound.worker));
    let (peer, identity, _) = n.engine.peer_of(inbound.spi).unwrap();
    assert_eq!((*peer, identity.clone()), (net.peer(0, 1), Identity::Address(address(1))));
    let (local, remote) = (peer.local, peer.remote);
    assert_eq!(
        n.engine.protection_towards(profile_name(), model::TableId(0), local, remote),
        Some(net.peer(0, 1))
    );
}
