//! What IKE says of peers: what they may register, which of them are dead, and where they moved.

use std::net::IpAddr;

use model::program::{Key, Object};
use model::state::nhs::ServerState;
use model::{NbmaAddr, ProtocolAddr};
use nhrp::{Event, Input, Reject, Sender};
use wire::nhrp::{Cie, ExtensionType, Flags, Message, MessageType};

use crate::net::*;
use crate::registration::{PROHIBITED, TAKEN, register, request_of, sender, with_entries, with_flags};

fn certified(node: usize, all: &[&str]) -> Sender {
    let certified: Vec<IpAddr> = all.iter().map(|text| text.parse().unwrap()).collect();
    Sender { certified: Some(certified), ..sender(node, None, Some("spoke")) }
}

/// The certificate names 172.16.0.2, which is spoke 1.
#[test]
fn a_peer_registers_what_its_certificate_names_and_nothing_else() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let request = request_of(&net, 1);
    assert_eq!(register(&mut net, &certified(1, &["10.9.9.9", "172.16.0.2"]), &request), TAKEN);
    for all in [&[][..], &["172.16.0.3"], &["::ffff:172.16.0.2"]] {
        assert_eq!(register(&mut net, &certified(1, all), &request), PROHIBITED, "{all:?}");
    }
    assert_eq!(net.rejects(0, Reject::Prohibited), 3);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)), "what it has stays");
    // An entry for somebody else in a request of its own.
    let other = Cie { protocol: Some(overlay(7).0), holding_time: 600, ..Cie::default() };
    let both = with_flags(with_entries(request, &[other]), Flags::default());
    assert_eq!(register(&mut net, &certified(1, &["172.16.0.2"]), &both), PROHIBITED);
    assert_eq!(net.binding(0, overlay(7)), None);
}

#[test]
fn a_certificate_of_hosts_lets_no_prefix_in() {
    let mut net = Net::idle(1, &Setup::default());
    net.nodes[0].tunnel.nhrp.accept_prefixes = vec![prefix("192.168.0.0/16")];
    net.start_all();
    net.run(seconds(1));
    let lan = Cie { prefix: 24, protocol: Some(host(1, 0).0), holding_time: 600, ..Cie::default() };
    let request = with_flags(with_entries(request_of(&net, 1), &[lan]), Flags::default());
    assert_eq!(register(&mut net, &certified(1, &["172.16.0.2", "192.168.1.0"]), &request), PROHIBITED);
    assert_eq!(register(&mut net, &sender(1, None, Some("spoke")), &request), TAKEN);
}

/// Whoever says that his request passed another server is bound by the certificate of who sent it all the same.
#[test]
fn what_passed_another_server_needs_that_ones_certificate() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let mut passed =
        Message { source: Some(overlay(5).0), source_nbma: Some(nbma(5).0), ..request_of(&net, 1) };
    let hub = Cie { nbma: Some(nbma(9).0), protocol: Some(overlay(9).0), ..Cie::default() };
    let families = passed.families;
    assert!(passed.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap().push(&hub, families));
    assert_eq!(register(&mut net, &certified(1, &["172.16.0.2"]), &passed), PROHIBITED);
    assert_eq!(register(&mut net, &certified(1, &["172.16.0.6"]), &passed), TAKEN);
}

#[test]
fn what_a_dead_peer_registered_is_forgotten_and_whoever_was_told_hears_so() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(seconds(1));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    // Spoke 2 is dead: for the hub, and for spoke 1, which had a straight way.
    let lost = || Input::Lost { tunnel: tunnel0(), nbma: nbma(2), port: None };
    net.give(0, lost());
    net.give(1, lost());
    assert_eq!(net.binding(0, overlay(2)), None);
    assert!(!net.has(0, Key::Replica(tunnel0(), nbma(2), 0)));
    assert!(net.has_event(0, |e| *e == Event::Gone { tunnel: tunnel0(), address: overlay(2) }));
    assert_eq!((net.binding(1, overlay(2)), net.route(1, lan(2))), (None, None), "by the hub again");
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)), "nobody else is");
}

/// Two behind one address: one of them is dead.
#[test]
fn a_dead_peer_behind_a_nat_takes_nobody_with_it() {
    let mut net = Net::idle(2, &Setup::default());
    let outside: NbmaAddr = "198.51.100.1".parse().unwrap();
    net.pat.insert(1, (outside, 1024));
    net.pat.insert(2, (outside, 2048));
    net.start_all();
    net.run(seconds(1));
    assert_eq!([1, 2].map(|spoke| net.binding(0, overlay(spoke))), [Some(outside); 2]);
    net.give(0, Input::Lost { tunnel: tunnel0(), nbma: outside, port: Some(1024) });
    assert_eq!([1, 2].map(|spoke| net.binding(0, overlay(spoke))), [None, Some(outside)]);
}

#[test]
fn a_dead_server_is_down_at_once_and_asked_again() {
    let mut net = Net::with_hubs(2, 1, &Setup::default());
    net.run(seconds(10));
    let state = |net: &Net| net.nodes[2].engine.servers(net.now)[0].state;
    assert_eq!(state(&net), ServerState::Responding);
    net.kill(0);
    let asked = |net: &Net| {
        net.messages(2, MessageType::RegistrationRequest).iter().filter(|(_, to, _)| *to == nbma(0)).count()
    };
    let before = asked(&net);
    net.give(2, Input::Lost { tunnel: tunnel0(), nbma: nbma(0), port: None });
    assert_eq!(state(&net), ServerState::Expecting);
    assert!(net.has_event(2, |e| *e == Event::ServerDown { tunnel: tunnel0(), nhs: overlay(0) }));
    let fallback = net.nodes[2].program.get(&Key::Fallback(tunnel0()));
    assert!(matches!(fallback, Some((Object::Fallback(f), _)) if f.next_hop == overlay(1)), "{fallback:?}");
    assert_eq!(asked(&net), before + 1);
    assert_eq!(net.binding(2, overlay(0)), Some(nbma(0)), "the configuration says where it is");
    // It answers IKE again: nobody waits for the next attempt.
    net.revive(0);
    net.give(2, Input::Reconnected);
    net.run(millis(50));
    assert_eq!(state(&net), ServerState::Responding);
}

#[test]
fn what_is_known_of_a_peer_moves_with_it() {
    let mut net = Net::idle(2, &Setup::default());
    let outside: NbmaAddr = "198.51.100.1".parse().unwrap();
    let elsewhere: NbmaAddr = "198.51.100.2".parse().unwrap();
    net.pat.insert(1, (outside, 1024));
    net.pat.insert(2, (outside, 2048));
    net.start_all();
    net.run(seconds(1));
    let programmed =
        |net: &Net, client: ProtocolAddr| match &net.nodes[0].program[&Key::Binding(tunnel0(), client)] {
            (Object::Binding(binding), _) => (binding.nbma, binding.port),
            other => panic!("{other:?}"),
        };
    let (tunnel, from) = (tunnel0(), outside);
    let from_port = Some(1024);
    net.give(0, Input::Moved { tunnel, from, from_port, to: elsewhere, to_port: Some(4096) });
    assert_eq!(programmed(&net, overlay(1)), (elsewhere, 4096));
    assert_eq!(programmed(&net, overlay(2)), (outside, 2048));
    assert!(
        net.has(0, Key::Replica(tunnel, elsewhere, 4096)) && !net.has(0, Key::Replica(tunnel, outside, 1024))
    );
    // Its registration goes on: nothing was told anew to it.
    let entry = net.nodes[0].engine.entries(net.now).into_iter().find(|e| e.next_hop == overlay(1)).unwrap();
    assert!(entry.flags.registered && entry.expires_in.unwrap() > seconds(590));
}

/// Input: an SA with a server that there was none with. Output: a server that was told before is told again, one that is being asked is not
/// asked twice, and one that had been given up is asked at once.
#[test]
fn a_server_with_a_new_sa_hears_where_we_are() {
    let mut net = Net::new(1, &Setup::default());
    let asked = |net: &Net| net.messages(1, MessageType::RegistrationRequest).len();
    let met = |net: &mut Net| net.give(1, Input::Protected { tunnel: tunnel0(), nbma: nbma(0) });
    assert_eq!(asked(&net), 1);
    met(&mut net);
    assert_eq!(asked(&net), 1, "one is on its way");
    net.run(seconds(1));
    met(&mut net);
    net.run(seconds(1));
    assert_eq!(asked(&net), 2);
    assert!(net.has_event(0, |e| matches!(e, Event::Registered { refresh: true, .. })));
    // Of a peer that is no server there is nothing to say.
    net.give(1, Input::Protected { tunnel: tunnel0(), nbma: nbma(7) });
    net.give(0, Input::Protected { tunnel: tunnel0(), nbma: nbma(1) });
    assert_eq!(asked(&net), 2);
    net.kill(0);
    net.run(seconds(400));
    let before = asked(&net);
    assert!(before > 5);
    net.revive(0);
    met(&mut net);
    net.run(millis(50));
    assert_eq!(
        (asked(&net), net.nodes[1].engine.servers(net.now)[0].state),
        (before + 1, ServerState::Responding)
    );
}

#[test]
fn only_an_answer_to_a_resolution_is_one() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(seconds(1));
    for node in 0..3 {
        for (_, _, bytes) in &net.nodes[node].sent {
            let is_reply = Message::decode(bytes).unwrap().message_type() == MessageType::ResolutionReply;
            assert_eq!(nhrp::is_resolution_reply(bytes), is_reply);
        }
    }
    assert!(net.nodes[2].sent.iter().any(|(_, _, bytes)| nhrp::is_resolution_reply(bytes)));
    assert!(!nhrp::is_resolution_reply(&[0; 28]) && !nhrp::is_resolution_reply(&[]));
}
