//! Servers that are known by a DNS name, and servers that say themselves which protocol address they have.

use model::config::{Cluster, MapMulticast, Nhs, NhsNbma, NhsProtocol};
use model::program::{Key, Object};
use model::state::nhs::ServerState::{Expecting, Responding, Waiting};
use model::state::nhs::{Server, ServerState};
use model::time::Instant;
use model::{NbmaAddr, ProtocolAddr};
use nhrp::{Event, Input, Reject};
use wire::nhrp::{Body, ExtensionType, Kind, Message, MessageType};

use crate::net::*;

const NAME: &str = "hub.example.net";

fn by_name(protocol: NhsProtocol, priority: u8) -> Nhs {
    Nhs { protocol, nbma: NhsNbma::Name(NAME.to_owned()), priority, cluster: 0 }
}

/// Two hubs and a spoke (2), nothing started; the spoke has these servers.
fn spoke_of(servers: Vec<Nhs>, holding: u16) -> Net {
    let mut net = Net::idle_with_hubs(2, 1, &Setup { holding, ..Setup::default() });
    net.nodes[2].tunnel.nhrp.nhs = servers;
    net
}

fn resolve(net: &mut Net, hubs: &[usize]) {
    net.names.insert(NAME.to_owned(), hubs.iter().map(|hub| nbma(*hub)).collect());
}

fn shown(net: &Net) -> Vec<Server> {
    net.nodes[2].engine.servers(net.now)
}

fn states(net: &Net) -> Vec<ServerState> {
    shown(net).iter().map(|s| s.state).collect()
}

fn fallback(net: &Net) -> Option<ProtocolAddr> {
    match net.nodes[2].program.get(&Key::Fallback(tunnel0())) {
        Some((Object::Fallback(f), _)) => Some(f.next_hop),
        _ => None,
    }
}

fn look_ups(net: &Net) -> Vec<Instant> {
    assert!(net.looked_up.iter().all(|(_, node, name)| *node == 2 && name == NAME));
    net.looked_up.iter().map(|(at, ..)| *at).collect()
}

fn requests(net: &Net) -> Vec<(Instant, NbmaAddr, Message)> {
    net.messages(2, MessageType::RegistrationRequest)
}

#[test]
fn a_server_is_looked_up_by_its_name_once_and_then_it_is_a_server_as_others() {
    let mut net = spoke_of(vec![by_name(NhsProtocol::Addr(overlay(0)), 0)], 600);
    resolve(&mut net, &[0]);
    net.start_all();
    assert_eq!((net.binding(2, overlay(0)), fallback(&net), states(&net)), (None, None, vec![Waiting]));
    net.run(millis(50));
    assert_eq!((net.binding(2, overlay(0)), fallback(&net)), (Some(nbma(0)), Some(overlay(0))));
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
    let row = &shown(&net)[0];
    assert_eq!((row.state, row.name.as_deref(), row.nbma), (Responding, Some(NAME), Some(nbma(0))));
    net.run(seconds(3000));
    assert_eq!(look_ups(&net).len(), 1, "not for every packet");
    // A new place of our own: the name may be another one there.
    net.nodes[2].tunnel.nbma = Some(nbma(20));
    net.start(2);
    assert_eq!(look_ups(&net).len(), 2);
}

#[test]
fn a_name_without_an_address_is_looked_up_again_with_back_off() {
    let mut net = spoke_of(vec![by_name(NhsProtocol::Addr(overlay(0)), 0)], 600);
    net.start_all();
    net.run(seconds(600));
    let pauses: Vec<_> = look_ups(&net).windows(2).map(|w| w[1].since(w[0])).collect();
    for (pause, nominal) in pauses.iter().zip([5, 10, 20, 40, 64, 64]) {
        assert!(*pause <= seconds(nominal) && *pause >= seconds(nominal) * 9 / 10, "{pauses:?}");
    }
    assert!(pauses.len() >= 10);
    assert_eq!((states(&net), requests(&net).len()), (vec![Waiting], 0));
    assert!(shown(&net)[0].next_request.is_some());
    resolve(&mut net, &[0]);
    net.run(seconds(65));
    assert_eq!(states(&net), [Responding]);
}

/// A name that has no address, or an answer that never comes, does not hold up the next server.
#[test]
fn the_next_server_takes_the_place_of_one_whose_name_has_no_address() {
    let mut net = spoke_of(
        vec![by_name(NhsProtocol::Addr(overlay(0)), 0), Nhs { priority: 1, ..Nhs::new(overlay(1), nbma(1)) }],
        60,
    );
    net.nodes[2].tunnel.nhrp.clusters = vec![Cluster { id: 0, max_connections: 1 }];
    net.start_all();
    net.run(millis(50));
    assert_eq!((states(&net), fallback(&net)), (vec![Waiting, Responding], Some(overlay(1))));
    // It has one now: on probation, and then in its place.
    resolve(&mut net, &[0]);
    net.run(seconds(6));
    assert_eq!((states(&net), fallback(&net)), (vec![Responding, Responding], Some(overlay(1))));
    net.run(seconds(62));
    assert_eq!((states(&net), fallback(&net)), (vec![Responding, Waiting], Some(overlay(0))));
    assert_eq!(net.binding(1, overlay(2)), None);
}

#[test]
fn the_next_address_of_a_name_is_tried_when_one_stays_silent() {
    let mut net = spoke_of(vec![by_name(NhsProtocol::Addr(overlay(0)), 0)], 600);
    resolve(&mut net, &[8, 9, 0]);
    net.start_all();
    net.run(seconds(30));
    let to: Vec<_> = requests(&net).into_iter().map(|(_, to, _)| to).collect();
    assert_eq!(to, [nbma(8), nbma(8), nbma(8), nbma(9), nbma(0)]);
    assert_eq!((states(&net), net.binding(2, overlay(0))), (vec![Responding], Some(nbma(0))));
    // It stays there.
    net.run(seconds(2000));
    assert!(requests(&net)[5..].iter().all(|(_, to, _)| *to == nbma(0)));
}

#[test]
fn a_server_that_moves_is_found_again() {
    let mut net = spoke_of(vec![by_name(NhsProtocol::Addr(overlay(0)), 0)], 60);
    resolve(&mut net, &[0]);
    net.start_all();
    net.run(seconds(5));
    net.nodes[0].tunnel.nbma = Some(nbma(30));
    net.start(0);
    resolve(&mut net, &[30]);
    let moved = net.now;
    while net.binding(2, overlay(0)) != Some(nbma(30)) {
        net.run(millis(100));
        assert!(net.now.since(moved) < seconds(25), "a refresh, and the second repetition of it");
    }
    net.run(millis(50));
    assert_eq!((states(&net), fallback(&net)), (vec![Responding], Some(overlay(0))));
    // Where it was it may be somebody else that has us now.
    let purges = net.messages(2, MessageType::PurgeRequest);
    assert_eq!(purges.first().map(|(_, to, _)| *to), Some(nbma(0)));
    assert!(look_ups(&net).len() <= 3);
}

#[test]
fn what_a_look_up_says_beside_what_was_wanted_does_nothing() {
    let mut net = spoke_of(vec![by_name(NhsProtocol::Addr(overlay(0)), 0)], 600);
    net.start_all();
    net.run(millis(20));
    let say = |net: &mut Net, name: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        net.give(2, Input::LookedUp { tunnel: tunnel0(), name: name.to_owned(), addresses });
    };
    say(&mut net, "other.example.net", &["10.0.0.1"]);
    // Not of our family, our own, and none that a host can have.
    say(&mut net, NAME, &["2001:db8::1", "10.0.0.3", "224.0.0.1", "0.0.0.0", "127.0.0.1"]);
    assert_eq!((shown(&net)[0].nbma, requests(&net).len()), (None, 0));
    say(&mut net, NAME, &["2001:db8::1", "10.0.0.1"]);
    net.run(millis(50));
    assert_eq!((shown(&net)[0].nbma, states(&net)), (Some(nbma(0)), vec![Responding]));
    // An answer that has nothing takes nothing away; one that comes after its server went is for nobody.
    say(&mut net, NAME, &[]);
    assert_eq!((shown(&net)[0].nbma, states(&net)), (Some(nbma(0)), vec![Responding]));
    net.nodes[2].tunnel.nhrp.nhs.clear();
    net.start(2);
    let sent = net.nodes[2].sent.len();
    say(&mut net, NAME, &["10.0.0.2"]);
    net.run(seconds(5));
    assert!(requests(&net).len() == 1 && net.nodes[2].sent.len() <= sent);
    // Nobody asked for this tunnel.
    let tunnel = name("tunnel7");
    net.give(2, Input::LookedUp { tunnel, name: NAME.to_owned(), addresses: vec![nbma(0)] });
}

fn dynamic() -> Vec<Nhs> {
    vec![by_name(NhsProtocol::Dynamic, 0)]
}

#[test]
fn a_dynamic_server_says_which_address_it_has() {
    let mut net = spoke_of(dynamic(), 600);
    resolve(&mut net, &[0]);
    net.start_all();
    net.run(millis(50));
    let (_, to, request) = requests(&net).remove(0);
    // RFC 2332 §5.2.3: it is asked at our own protocol address.
    assert_eq!((to, request.destination, request.source), (nbma(0), Some(overlay(2).0), Some(overlay(2).0)));
    let nat = request.extension(ExtensionType::NAT).unwrap().entries(request.families).unwrap();
    assert_eq!((nat[0].nbma, nat[0].protocol), (Some(nbma(0).0), Some("0.0.0.0".parse().unwrap())));
    assert_eq!((net.binding(2, overlay(0)), fallback(&net)), (Some(nbma(0)), Some(overlay(0))));
    assert_eq!((shown(&net)[0].protocol, states(&net)), (Some(overlay(0)), vec![Responding]));
    assert!(
        net.has_event(2, |e| *e == Event::ServerUp { tunnel: tunnel0(), nhs: overlay(0), refresh: false })
    );
    // What is asked is asked there.
    net.give(2, Input::Glean { tunnel: tunnel0(), next_hop: overlay(9) });
    assert_eq!(net.messages(2, MessageType::ResolutionRequest).last().unwrap().1, nbma(0));
    // RFC 2332 §5.2.5: told to forget us it is named by its address, that is known now; and does.
    net.give(2, Input::Shutdown);
    net.run(millis(50));
    let (_, to, purge) = net.messages(2, MessageType::PurgeRequest).remove(0);
    assert_eq!((to, purge.destination), (nbma(0), Some(overlay(0).0)));
    assert_eq!(net.binding(0, overlay(2)), None);
}

#[test]
fn another_server_behind_the_name_takes_the_place_of_the_one_that_was_there() {
    let mut net = spoke_of(dynamic(), 60);
    resolve(&mut net, &[0]);
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    resolve(&mut net, &[1]);
    net.run(seconds(40));
    assert_eq!((fallback(&net), states(&net)), (Some(overlay(1)), vec![Responding]));
    assert_eq!((net.binding(2, overlay(0)), net.binding(2, overlay(1))), (None, Some(nbma(1))));
    // Who is where the old one was is not known: it is named by our own address (RFC 2332 §5.2.5).
    let (_, to, purge) = net.messages(2, MessageType::PurgeRequest).remove(0);
    assert_eq!((to, purge.destination), (nbma(0), Some(overlay(2).0)));
    for (event, nhs) in [("down", overlay(0)), ("up", overlay(1))] {
        let is_it = |e: &Event| match e {
            Event::ServerDown { nhs: n, .. } => event == "down" && *n == nhs,
            Event::ServerUp { nhs: n, refresh: false, .. } => event == "up" && *n == nhs,
            _ => false,
        };
        assert_eq!(net.nodes[2].events.iter().filter(|(_, e)| is_it(e)).count(), 1, "{event} {nhs}");
    }
}

/// The reply to the request that is outstanding, as `change` makes it.
fn answer(net: &mut Net, change: impl Fn(&mut Message)) {
    let (_, from, mut reply) = requests(net).pop().unwrap();
    let Body::Exchange { kind, .. } = &mut reply.body else { panic!() };
    *kind = Kind::RegistrationReply;
    change(&mut reply);
    let bytes = reply.encode();
    net.give(2, Input::Packet { tunnel: tunnel0(), from: from.into(), destination: nbma(2), bytes });
}

#[test]
fn a_dynamic_server_may_put_itself_into_the_destination_but_nobody_else() {
    let mut net =
        spoke_of(vec![Nhs { protocol: NhsProtocol::Dynamic, ..Nhs::new(overlay(0), nbma(0)) }], 600);
    net.start(2);
    // It says nothing of itself: there is nothing to learn, and it is asked on.
    answer(&mut net, |_| ());
    assert_eq!((states(&net), net.rejects(2, Reject::Address), fallback(&net)), (vec![Expecting], 1, None));
    for nobody in ["0.0.0.0", "224.0.0.9", "172.16.0.3", "127.0.0.1"] {
        answer(&mut net, |m| m.destination = Some(nobody.parse().unwrap()));
        assert_eq!(states(&net), [Expecting], "{nobody}");
    }
    answer(&mut net, |m| m.destination = Some(overlay(0).0));
    assert_eq!((states(&net), fallback(&net)), (vec![Responding], Some(overlay(0))));
    assert_eq!(shown(&net)[0].protocol, Some(overlay(0)));
}

#[test]
fn a_learnt_address_takes_no_static_binding_away() {
    let mut net = spoke_of(dynamic(), 600);
    resolve(&mut net, &[0]);
    net.nodes[2].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(0), nbma: nbma(77) });
    net.start_all();
    net.run(millis(50));
    assert_eq!((states(&net), net.binding(2, overlay(0))), (vec![Responding], Some(nbma(77))));
    net.nodes[2].tunnel.nhrp.map.clear();
    net.start(2);
    net.run(millis(50));
    assert_eq!(net.binding(2, overlay(0)), Some(nbma(0)));
}

/// Routing protocols speak to the servers in use, wherever they are.
#[test]
fn multicast_goes_to_the_servers_that_have_a_place() {
    let servers =
        vec![by_name(NhsProtocol::Addr(overlay(0)), 0), Nhs { priority: 1, ..Nhs::new(overlay(1), nbma(1)) }];
    let mut net = spoke_of(servers, 60);
    let nhrp = &mut net.nodes[2].tunnel.nhrp;
    nhrp.clusters = vec![Cluster { id: 0, max_connections: 1 }];
    nhrp.map_multicast = vec![MapMulticast::Nhs];
    resolve(&mut net, &[0]);
    net.start_all();
    let replicas = |net: &Net| [0, 1, 7].map(|node| net.has(2, Key::Replica(tunnel0(), nbma(node), 0)));
    net.run(seconds(5));
    assert_eq!(replicas(&net), [true, false, false]);
    net.kill(0);
    net.run(seconds(60));
    assert_eq!(replicas(&net), [false, true, false]);
    net.restart(2);
    assert_eq!(replicas(&net), [false, true, false], "in the next life, too");
    net.nodes[2].tunnel.nhrp.map_multicast = vec![MapMulticast::Nbma(nbma(7))];
    net.start(2);
    assert_eq!(replicas(&net), [false, false, true]);
    net.give(2, Input::Configure(vec![]));
    assert_eq!(replicas(&net), [false; 3]);
}

/// What was learnt is known again at once after a restart of the control plane, and no packet lacks a way meanwhile.
#[test]
fn a_restart_knows_what_was_learnt_and_who_was_registered_with() {
    let mut net = spoke_of(dynamic(), 600);
    resolve(&mut net, &[0]);
    net.start_all();
    net.run(seconds(5));
    net.names.clear();
    net.restart(2);
    assert_eq!((net.binding(2, overlay(0)), fallback(&net)), (Some(nbma(0)), Some(overlay(0))));
    net.run(millis(50));
    assert_eq!(states(&net), [Responding]);

    // The best one is lost, the other one has its place: so it is in the next life.
    let servers = vec![Nhs::new(overlay(0), nbma(0)), Nhs { priority: 1, ..Nhs::new(overlay(1), nbma(1)) }];
    let mut net = spoke_of(servers, 60);
    net.nodes[2].tunnel.nhrp.clusters = vec![Cluster { id: 0, max_connections: 1 }];
    net.start_all();
    net.run(seconds(5));
    net.kill(0);
    net.run(seconds(100));
    assert_eq!((fallback(&net), states(&net)), (Some(overlay(1)), vec![Expecting, Responding]));
    for _ in 0..3 {
        net.restart(2);
        assert_eq!(fallback(&net), Some(overlay(1)));
        let to: Vec<_> = requests(&net).into_iter().map(|(_, to, _)| to).collect();
        assert_eq!(to, [nbma(1), nbma(0)], "it is refreshed, and the better one is asked on");
    }
    net.run(seconds(100));
    assert_eq!((fallback(&net), states(&net)), (Some(overlay(1)), vec![Expecting, Responding]));
    assert_eq!(net.messages(2, MessageType::PurgeRequest).len(), 0);
}

/// An address that went while the node was down is taken back from the server that has it, by whatever name that is known.
#[test]
fn an_nbma_address_that_changed_in_between_is_taken_back_from_a_dynamic_server() {
    let mut net = spoke_of(dynamic(), 600);
    resolve(&mut net, &[0]);
    net.start_all();
    net.run(seconds(5));
    net.nodes[2].tunnel.nbma = Some(nbma(20));
    net.restart(2);
    net.run(millis(100));
    assert_eq!((net.binding(0, overlay(2)), states(&net)), (Some(nbma(20)), vec![Responding]));
}
