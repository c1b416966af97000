//! Several servers: who is registered with, who takes whose place, and when.

use std::collections::BTreeSet;

use model::config::{Cluster, NhsFallback};
use model::program::{Key, Object};
use model::state::nhs::{Server, ServerState};
use model::time::Instant;
use model::{NbmaAddr, ProtocolAddr};
use nhrp::{Event, Input, Reject};
use proptest::prelude::*;
use wire::nhrp::{Body, Cie, CieCode, Flags, Message, MessageType};

use crate::net::*;

/// Three hubs and two spokes (3 and 4), nothing started; the servers of the spokes are in cluster 0, with these priorities.
fn three_hubs(priorities: [u8; 3], max_connections: Option<u8>, holding: u16) -> Net {
    let mut net = Net::idle_with_hubs(3, 2, &Setup { holding, ..Setup::default() });
    for spoke in net.spokes() {
        let nhrp = &mut net.nodes[spoke].tunnel.nhrp;
        for (nhs, priority) in nhrp.nhs.iter_mut().zip(priorities) {
            nhs.priority = priority;
        }
        nhrp.clusters =
            max_connections.map(|max_connections| Cluster { id: 0, max_connections }).into_iter().collect();
    }
    net
}

/// The hubs that live and have a spoke.
fn has(net: &Net, spoke: usize) -> Vec<usize> {
    (0..3).filter(|hub| net.nodes[*hub].alive && net.binding(*hub, overlay(spoke)).is_some()).collect()
}

fn shown(net: &Net, node: usize) -> Vec<Server> {
    net.nodes[node].engine.servers(net.now)
}

fn states(net: &Net, node: usize) -> Vec<ServerState> {
    shown(net, node).iter().map(|s| s.state).collect()
}

fn fallback(net: &Net, node: usize) -> Option<ProtocolAddr> {
    match net.nodes[node].program.get(&Key::Fallback(tunnel0())) {
        Some((Object::Fallback(f), _)) => Some(f.next_hop),
        _ => None,
    }
}

/// When a node sent registration requests to an address.
fn asked(net: &Net, node: usize, to: NbmaAddr) -> Vec<Instant> {
    let requests = net.messages(node, MessageType::RegistrationRequest);
    requests.into_iter().filter(|(_, at, _)| *at == to).map(|(when, ..)| when).collect()
}

use ServerState::{Expecting, Responding, Waiting};

#[test]
fn as_many_servers_of_a_cluster_as_it_has_places_are_registered_with_and_the_best_of_them() {
    for (places, taken) in
        [(None, vec![0, 1, 2]), (Some(1), vec![1]), (Some(2), vec![0, 1]), (Some(9), vec![0, 1, 2])]
    {
        let mut net = three_hubs([1, 0, 2], places, 600);
        net.start_all();
        net.run(seconds(1000));
        for spoke in net.spokes() {
            assert_eq!(has(&net, spoke), taken, "{places:?}");
            let expected: Vec<_> =
                (0..3).map(|n| if taken.contains(&n) { Responding } else { Waiting }).collect();
            assert_eq!(states(&net, spoke), expected);
            assert_eq!(fallback(&net, spoke), Some(overlay(1)), "the best, not the first");
            // Who is not wanted was never asked.
            let waiting = shown(&net, spoke).into_iter().filter(|s| s.state == Waiting);
            assert!(waiting.into_iter().all(|s| s.requests == 0 && s.next_request.is_none()));
        }
    }
    // Each cluster has places of its own; of equals, the first in the configuration is taken.
    let mut net = three_hubs([0, 0, 0], None, 600);
    net.nodes[3].tunnel.nhrp.nhs[2].cluster = 1;
    net.nodes[3].tunnel.nhrp.clusters = [0, 1].map(|id| Cluster { id, max_connections: 1 }).into();
    net.start_all();
    net.run(seconds(10));
    assert_eq!(has(&net, 3), [0, 2]);
}

#[test]
fn the_next_server_takes_the_place_of_one_that_falls_silent_which_is_asked_on_with_back_off() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    let died = net.now;
    net.nodes[3].sent.clear();
    net.run(seconds(300));
    // A refresh after 20 s, three requests in 7 s, and the next server in the same moment.
    let first = asked(&net, 3, nbma(1))[0];
    assert!(first.since(died) < seconds(20 + 7), "{:?}", first.since(died));
    assert_eq!((has(&net, 3), fallback(&net, 3)), (vec![1], Some(overlay(1))));
    assert_eq!(states(&net, 3), [Expecting, Responding, Waiting]);
    assert_eq!(asked(&net, 3, nbma(2)).len(), 0);
    let down = Event::ServerDown { tunnel: tunnel0(), nhs: overlay(0) };
    assert_eq!(net.nodes[3].events.iter().filter(|(_, e)| *e == down).count(), 1);
    // Of the lost one, no more is asked than that.
    let probes = asked(&net, 3, nbma(0));
    assert!((7..=10).contains(&probes.len()), "{probes:?}");
    assert!(probes.windows(2).last().unwrap()[1].since(probes[probes.len() - 2]) > seconds(57));
    // The second is lost too: the third. Both are asked on.
    net.kill(1);
    net.run(seconds(61));
    assert_eq!((has(&net, 3), states(&net, 3)), (vec![2], vec![Expecting, Expecting, Responding]));
    // None is left: whoever answers first is taken, at once.
    net.kill(2);
    net.run(seconds(300));
    assert_eq!(states(&net, 3), [Expecting; 3]);
    net.revive(1);
    net.run(seconds(65));
    assert_eq!((has(&net, 3), fallback(&net, 3)), (vec![1], Some(overlay(1))));
}

#[test]
fn the_next_server_takes_the_place_of_one_that_refuses_which_is_not_pestered() {
    let mut net = three_hubs([0, 1, 2], Some(1), 600);
    // The first hub knows the spoke elsewhere.
    let map = model::config::Map { protocol: overlay(3), nbma: nbma(99) };
    net.nodes[0].tunnel.nhrp.map.push(map);
    net.start_all();
    net.run(millis(50));
    assert_eq!((net.binding(1, overlay(3)), fallback(&net, 3)), (Some(nbma(3)), Some(overlay(1))));
    assert_eq!(shown(&net, 3)[0].refusal.as_deref(), Some("administratively prohibited"));
    net.run(seconds(600));
    let pauses: Vec<_> = asked(&net, 3, nbma(0)).windows(2).map(|w| w[1].since(w[0])).collect();
    for (pause, nominal) in pauses.iter().zip([5, 10, 20, 40, 64, 64]) {
        assert!(*pause <= seconds(nominal) + millis(30) && *pause >= seconds(nominal) * 9 / 10, "{pauses:?}");
    }
    assert!(pauses.len() < 16);
    // It changes its mind, and has answered for a minute.
    net.nodes[0].tunnel.nhrp.map.clear();
    net.start(0);
    net.run(seconds(64 + 61));
    assert_eq!((has(&net, 3), shown(&net, 3)[0].refusal.clone()), (vec![0], None));
}

#[test]
fn a_better_server_takes_its_place_again_after_it_answered_for_long_enough_and_the_worse_one_forgets_us() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    net.run(seconds(100));
    assert_eq!(has(&net, 3), [1]);
    net.revive(0);
    net.nodes[3].sent.clear();
    let mut up = None;
    let mut both = 0;
    for _ in 0..1300 {
        net.run(millis(100));
        let hubs = has(&net, 3);
        // It is never without one.
        assert!(!hubs.is_empty());
        if hubs.contains(&0) {
            let up = *up.get_or_insert(net.now);
            if net.now.since(up) < seconds(59) {
                assert_eq!(
                    (hubs, fallback(&net, 3)),
                    (vec![0, 1], Some(overlay(1))),
                    "{:?}",
                    net.now.since(up)
                );
                both += 1;
            }
        }
    }
    assert!(both > 500, "{both}");
    assert_eq!((has(&net, 3), fallback(&net, 3)), (vec![0], Some(overlay(0))));
    assert_eq!(states(&net, 3), [Responding, Waiting, Waiting]);
    // While it was on probation it was asked a few times, not once.
    let since = up.unwrap();
    let during = asked(&net, 3, nbma(0)).into_iter().filter(|at| at.since(since) > seconds(1));
    assert!(during.filter(|at| at.since(since) < seconds(61)).count() >= 3);
    // RFC 2332 §5.2.5: the one that lost its place was told so, and confirmed it.
    let purges = net.messages(3, MessageType::PurgeRequest);
    assert_eq!(purges.iter().map(|(_, to, _)| *to).collect::<Vec<_>>(), [nbma(1)]);
    let Body::Exchange { entries, flags, .. } = &purges[0].2.body else { panic!() };
    assert_eq!((entries[0].protocol, entries[0].nbma), (Some(overlay(3).0), Some(nbma(3).0)));
    assert_eq!((*flags, purges[0].2.destination), (Flags::default(), Some(overlay(1).0)));
    assert!(!net.has_event(1, |e| matches!(e, Event::Registered { client, refresh: false, .. } if *client != overlay(3) && *client != overlay(4))));
}

/// A purge that nobody answers is repeated; not if its server is to have us again.
#[test]
fn a_server_that_is_wanted_again_is_not_told_to_forget_what_it_just_heard() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    net.nodes[3].tunnel.nhrp.nhs_fallback = NhsFallback::After(0);
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    net.run(seconds(100));
    net.revive(0);
    // The answers of the second hub get lost, so its purge is repeated.
    while has(&net, 3) != [0] {
        net.run(millis(100));
    }
    net.kill(1);
    net.nodes[3].tunnel.nhrp.nhs[1].priority = 0;
    net.nodes[3].tunnel.nhrp.nhs[0].priority = 9;
    net.start(3);
    net.run(millis(500));
    net.revive(1);
    net.run(seconds(20));
    assert_eq!(has(&net, 3), [1]);
    assert_eq!(states(&net, 3), [Waiting, Responding, Waiting]);
}

#[test]
fn a_server_that_comes_and_goes_takes_no_place_and_costs_nothing_but_its_own_requests() {
    let mut net = three_hubs([0, 1, 2], Some(1), 600);
    net.start_all();
    net.run(seconds(1));
    net.kill(0);
    net.run(seconds(300));
    assert_eq!(has(&net, 3), [1]);
    net.nodes[3].sent.clear();
    net.nodes[3].events.clear();
    for _ in 0..40 {
        net.revive(0);
        net.run(seconds(50));
        net.kill(0);
        for _ in 0..50 {
            net.run(seconds(1));
            assert_eq!(fallback(&net, 3), Some(overlay(1)));
        }
    }
    assert_eq!(net.messages(3, MessageType::PurgeRequest).len(), 0);
    assert!(!net.has_event(3, |e| *e == Event::ServerDown { tunnel: tunnel0(), nhs: overlay(1) }));
    // In 4,000 s: retries of each fall, and those of its probation.
    let probes = asked(&net, 3, nbma(0)).len();
    assert!(probes < 40 * 10, "{probes}");
    // The other one is refreshed as ever.
    let refreshes = asked(&net, 3, nbma(1)).len();
    assert!((19..=24).contains(&refreshes), "{refreshes}");
}

#[test]
fn where_the_worse_server_is_kept_the_better_one_is_asked_when_that_is_lost() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    for spoke in [3, 4] {
        net.nodes[spoke].tunnel.nhrp.nhs_fallback = NhsFallback::Never;
    }
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    net.run(seconds(100));
    assert_eq!((has(&net, 3), states(&net, 3)), (vec![1], vec![Waiting, Responding, Waiting]));
    net.revive(0);
    net.nodes[3].sent.clear();
    net.run(seconds(1000));
    assert_eq!((has(&net, 3), asked(&net, 3, nbma(0)).len()), (vec![1], 0));
    net.kill(1);
    net.run(seconds(30));
    assert_eq!(
        (net.binding(0, overlay(3)), states(&net, 3)),
        (Some(nbma(3)), vec![Responding, Waiting, Waiting])
    );
}

#[test]
fn priorities_and_places_change_under_way() {
    let mut net = three_hubs([0, 1, 2], Some(1), 600);
    net.start_all();
    net.run(seconds(5));
    assert_eq!(has(&net, 3), [0]);
    let before = shown(&net, 3)[0].clone();
    net.nodes[3].tunnel.nhrp.clusters[0].max_connections = 2;
    net.start(3);
    net.run(seconds(1));
    assert_eq!(has(&net, 3), [0, 1]);
    assert_eq!(
        shown(&net, 3)[0].requests,
        before.requests,
        "who is registered with is not registered with anew"
    );
    // The third is the best now: it is on probation, and then takes the place of the worst.
    net.nodes[3].tunnel.nhrp.nhs[0].priority = 5;
    net.nodes[3].tunnel.nhrp.nhs[2].priority = 0;
    net.start(3);
    net.run(seconds(1));
    assert_eq!(has(&net, 3), [0, 1, 2]);
    net.run(seconds(80));
    assert_eq!((has(&net, 3), fallback(&net, 3)), (vec![1, 2], Some(overlay(2))));
    // One place less: the worse one goes, at once.
    net.nodes[3].tunnel.nhrp.clusters[0].max_connections = 1;
    net.start(3);
    net.run(seconds(1));
    assert_eq!(has(&net, 3), [2]);
    // A server that leaves the configuration makes room.
    net.nodes[3].tunnel.nhrp.nhs.remove(2);
    net.start(3);
    net.run(seconds(1));
    assert_eq!((has(&net, 3), fallback(&net, 3)), (vec![1], Some(overlay(1))));
}

#[test]
fn what_is_asked_goes_to_the_new_server_at_once_and_shortcuts_stay() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    net.start_all();
    net.run(seconds(5));
    net.converse(3, 4, seconds(1));
    assert_eq!(net.route(3, lan(4)), Some(overlay(4)));
    net.kill(0);
    // The route by the tunnel to a node that only the second hub will know: asked for in vain, at first.
    net.run(seconds(10));
    net.give(3, Input::Glean { tunnel: tunnel0(), next_hop: overlay(99) });
    while fallback(&net, 3) == Some(overlay(0)) {
        net.run(millis(10));
    }
    assert_eq!(net.route(3, lan(4)), Some(overlay(4)));
    let requests = net.messages(3, MessageType::ResolutionRequest);
    let (at, to, _) = requests.last().unwrap();
    assert_eq!((*to, net.now.since(*at) <= millis(10)), (nbma(1), true));
}

/// The answer of one of several servers that says where we are seen counts as that of the best.
#[test]
fn a_spoke_behind_a_nat_is_seen_where_its_best_server_says() {
    let mut net = three_hubs([0, 1, 2], Some(1), 60);
    let outside: NbmaAddr = "203.0.113.7".parse().unwrap();
    net.nat.insert(3, outside);
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    net.run(seconds(60));
    assert_eq!(net.binding(1, overlay(3)), Some(outside));
    for spoke in [3, 4] {
        net.lead_by(spoke, 1);
    }
    net.converse(3, 4, seconds(1));
    assert_eq!(net.binding(4, overlay(3)), Some(outside));
}

#[test]
fn a_shorter_holding_time_of_the_server_sets_the_pace() {
    let mut net = three_hubs([0, 1, 2], Some(1), 600);
    net.start(3);
    let (_, _, request) = net.messages(3, MessageType::RegistrationRequest).pop().unwrap();
    answer(&mut net, 3, &request, |entries| entries[0].holding_time = 90);
    assert_eq!(states(&net, 3)[0], Responding);
    let next = shown(&net, 3)[0].next_request.unwrap();
    assert!(next <= seconds(30) && next >= seconds(27), "{next:?}");
}

/// Answers a registration request as its server would.
fn answer(net: &mut Net, node: usize, request: &Message, change: impl Fn(&mut Vec<Cie>)) {
    let mut reply = request.clone();
    let Body::Exchange { kind, entries, .. } = &mut reply.body else { panic!() };
    *kind = wire::nhrp::Kind::RegistrationReply;
    change(entries);
    let packet = Input::Packet {
        tunnel: tunnel0(),
        from: nbma(0).into(),
        destination: nbma(node),
        bytes: reply.encode(),
    };
    net.give(node, packet);
}

#[test]
fn a_reply_counts_for_what_was_asked_and_for_nothing_else() {
    let mut net = three_hubs([0, 1, 2], Some(1), 600);
    net.start(3);
    let (_, _, request) = net.messages(3, MessageType::RegistrationRequest).pop().unwrap();
    let mut other = request.clone();
    other.destination = Some(overlay(1).0);
    answer(&mut net, 3, &other, |_| ());
    assert_eq!((states(&net, 3)[0], net.rejects(3, Reject::Unsolicited)), (Expecting, 1));
    // Entries about others say nothing of ours.
    answer(&mut net, 3, &request, |entries| entries[0].protocol = Some(overlay(4).0));
    assert_eq!((states(&net, 3)[0], net.rejects(3, Reject::Malformed)), (Expecting, 1));
    answer(&mut net, 3, &request, |entries| {
        let refused =
            Cie { code: CieCode::INSUFFICIENT_RESOURCES, protocol: Some(overlay(4).0), ..Cie::default() };
        entries.push(refused);
    });
    assert_eq!(states(&net, 3)[0], Responding);
    // A copy of it is no offence, and changes nothing.
    answer(&mut net, 3, &request, |entries| entries[0].code = CieCode::INSUFFICIENT_RESOURCES);
    assert_eq!((states(&net, 3)[0], net.rejects(3, Reject::Unsolicited)), (Responding, 1));
    // Every refusal is one, whatever its code.
    for code in [4, 5, 12, 13, 14, 99] {
        let mut net = three_hubs([0, 1, 2], Some(1), 600);
        net.start(3);
        let (_, _, request) = net.messages(3, MessageType::RegistrationRequest).pop().unwrap();
        answer(&mut net, 3, &request, |entries| entries[0].code = CieCode(code));
        assert_eq!(states(&net, 3), [Expecting, Expecting, Waiting], "{code}: the next is asked");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Kill(usize),
    Revive(usize),
    Restart(usize),
    Behead(usize),
    Cut(usize),
    Mend(usize),
    Priority(usize, u8),
    Places(u8),
    Lose(u16),
    Run(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let hub = || 0..3_usize;
    prop_oneof![
        3 => hub().prop_map(Step::Kill),
        3 => hub().prop_map(Step::Revive),
        1 => (0..4_usize).prop_map(Step::Restart),
        1 => Just(Step::Behead(3)),
        2 => hub().prop_map(Step::Cut),
        2 => hub().prop_map(Step::Mend),
        1 => (hub(), 0..4_u8).prop_map(|(hub, priority)| Step::Priority(hub, priority)),
        1 => (1..4_u8).prop_map(Step::Places),
        1 => (0..400_u16).prop_map(Step::Lose),
        6 => prop_oneof![0..3_000_u16, 0..60_000_u16].prop_map(Step::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails and comes back: when it has settled, as many servers are registered with as there are places, and the best that live.
    #[test]
    fn the_best_that_live_are_registered_with(steps in prop::collection::vec(step(), 1..60)) {
        let mut net = three_hubs([0, 1, 2], Some(1), 60);
        net.start_all();
        for step in steps {
            match step {
                Step::Kill(hub) => net.kill(hub),
                Step::Revive(hub) => net.revive(hub),
                Step::Restart(node) => net.restart(node),
                Step::Behead(node) => net.behead(node),
                Step::Cut(hub) => {
                    net.cut.insert((hub, 3));
                }
                Step::Mend(hub) => {
                    net.cut.remove(&(hub, 3));
                }
                Step::Priority(hub, priority) => {
                    net.nodes[3].tunnel.nhrp.nhs[hub].priority = priority;
                    net.start(3);
                }
                Step::Places(places) => {
                    net.nodes[3].tunnel.nhrp.clusters[0].max_connections = places;
                    net.start(3);
                }
                Step::Lose(thousandths) => net.lost = thousandths.into(),
                Step::Run(ms) => net.run(millis(ms.into())),
            }
            // At no time more than the places, and one on probation for each.
            let up = states(&net, 3).iter().filter(|s| **s == Responding).count();
            let places = net.nodes[3].tunnel.nhrp.clusters[0].max_connections;
            prop_assert!(!net.nodes[3].has_control || up <= 2 * usize::from(places), "{up} of {places}");
        }
        net.lost = 0;
        if !net.nodes[3].has_control {
            net.restart(3);
        }
        // The longest back-off, probations one after the other, and what nobody refreshes ends.
        net.run(seconds(64 + 3 * 64 + 60));
        let nhrp = &net.nodes[3].tunnel.nhrp;
        let reachable = |hub: &usize| net.nodes[*hub].alive && !net.cut.contains(&(*hub, 3));
        let mut living: Vec<_> = (0..3).filter(reachable).collect();
        living.sort_by_key(|hub| nhrp.nhs[*hub].priority);
        living.truncate(nhrp.clusters[0].max_connections.into());
        let best = living.first().copied();
        let expected: BTreeSet<_> = living.into_iter().collect();
        let up = shown(&net, 3).into_iter().enumerate().filter(|(_, s)| s.state == Responding).map(|(n, _)| n);
        prop_assert_eq!(up.collect::<BTreeSet<_>>(), expected.clone());
        let reachable: BTreeSet<_> = (0..3).filter(reachable).collect();
        prop_assert_eq!(has(&net, 3).into_iter().filter(|hub| reachable.contains(hub)).collect::<BTreeSet<_>>(), expected);
        if let Some(best) = best {
            prop_assert_eq!(fallback(&net, 3), Some(overlay(best)));
        }
    }
}
