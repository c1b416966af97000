//! Registration, refresh, refusal.

use model::Prefix;
use model::config::MapMulticast;
use model::program::{Key, Object};
use model::state::nhrp::EntryType;
use model::state::nhs::ServerState;
use nhrp::{Clear, Event, Input, Reject, Sender};
use wire::nhrp::{Body, Cie, CieCode, ExtensionType, Flags, Kind, Message, MessageType};

use crate::net::*;

#[test]
fn a_spoke_can_use_its_hub_before_it_has_heard_of_it() {
    let mut net = Net::idle(1, &Setup::default());
    net.start(1);
    assert_eq!(net.binding(1, overlay(0)), Some(nbma(0)));
    assert!(net.has(1, Key::Fallback(tunnel0())));
    assert!(net.has(1, Key::Replica(tunnel0(), nbma(0), 0)));
}

#[test]
fn spokes_register_and_the_hub_programs_them() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    for spoke in [1, 2] {
        assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)));
        assert!(net.has(0, Key::Replica(tunnel0(), nbma(spoke), 0)));
        let up = Event::ServerUp { tunnel: tunnel0(), nhs: overlay(0), refresh: false };
        assert!(net.has_event(spoke, |e| *e == up));
        let (client, nbma) = (overlay(spoke), nbma(spoke));
        let registered = Event::Registered { tunnel: tunnel0(), client, nbma, refresh: false };
        assert!(net.has_event(0, |e| *e == registered));
        let servers = net.nodes[spoke].engine.servers(net.now);
        assert_eq!(
            (servers[0].state, servers[0].requests, servers[0].replies),
            (ServerState::Responding, 1, 1)
        );
        // The next one is due after about a third of 600 s.
        let next = servers[0].next_request.unwrap();
        assert!(next > seconds(175) && next < seconds(200), "{next:?}");
    }
    let entries = net.nodes[0].engine.entries(net.now);
    let dynamic = entries.iter().find(|e| e.next_hop == overlay(1)).unwrap();
    assert_eq!(dynamic.entry_type, EntryType::Dynamic);
    assert!(dynamic.flags.registered && dynamic.flags.unique && dynamic.flags.authoritative);
    assert!(dynamic.expires_in.unwrap() <= seconds(600));
    assert!(entries.iter().any(|e| e.entry_type == EntryType::Local && e.next_hop == overlay(0)));
}

/// A day of holding times, and nothing ever expires.
#[test]
fn registrations_are_refreshed_for_a_day() {
    let mut net = Net::new(200, &Setup::default());
    net.saving = false;
    net.run(seconds(86_400));
    for spoke in 1..=200 {
        assert_eq!(net.binding(0, overlay(spoke)), Some(nbma(spoke)));
    }
    assert!(!net.has_event(0, |e| matches!(e, Event::Gone { .. })));
    let requests = net.received(0, MessageType::RegistrationRequest);
    assert!((200 * 86_400 / 200..200 * 86_400 / 180 + 200).contains(&requests), "{requests}");
    // They began in one instant, and did not stay together: in no second came more than a tenth of them.
    let mut last: Vec<_> = net.nodes[1..].iter().map(|n| n.sent.last().unwrap().0.0 / 1_000_000).collect();
    last.sort_unstable();
    let busiest = last.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap();
    assert!(busiest < 20, "{busiest}");
}

#[test]
fn retries_double_with_one_id_until_the_server_answers() {
    let mut net = Net::idle(1, &Setup::default());
    net.start(1);
    net.run(seconds(200));
    let requests = net.messages(1, MessageType::RegistrationRequest);
    let ids: std::collections::BTreeSet<_> = requests
        .iter()
        .map(|(_, _, m)| match m.body {
            Body::Exchange { request_id, .. } => request_id,
            _ => panic!("{m:?}"),
        })
        .collect();
    assert_eq!(ids.len(), 1, "the same id in every retransmission");
    let pauses: Vec<_> = requests.windows(2).map(|w| w[1].0.since(w[0].0)).collect();
    for (pause, nominal) in pauses.iter().zip([1, 2, 4, 8, 16, 32, 64, 64]) {
        assert!(*pause <= seconds(nominal) && *pause >= seconds(nominal) * 9 / 10, "{pauses:?}");
    }
    assert!(pauses.len() >= 7);
    net.start(0);
    net.run(seconds(64));
    assert!(net.has_event(1, |e| matches!(e, Event::ServerUp { .. })));
}

#[test]
fn a_server_that_falls_silent_is_down_and_traffic_still_has_its_binding() {
    let mut net = Net::new(1, &Setup { holding: 30, ..Setup::default() });
    net.run(seconds(1));
    net.nodes[0].alive = false;
    net.run(seconds(20));
    let down = Event::ServerDown { tunnel: tunnel0(), nhs: overlay(0) };
    assert!(net.has_event(1, |e| *e == down));
    assert_eq!(net.binding(1, overlay(0)), Some(nbma(0)));
    assert_eq!(net.nodes[1].engine.servers(net.now)[0].state, ServerState::Expecting);
    net.revive(0);
    net.run(seconds(70));
    assert_eq!(net.nodes[1].engine.servers(net.now)[0].state, ServerState::Responding);
}

#[test]
fn a_registration_ends_with_its_holding_time() {
    let mut net = Net::new(1, &Setup { holding: 30, ..Setup::default() });
    net.run(seconds(1));
    net.nodes[1].alive = false;
    net.run(seconds(31));
    assert_eq!(net.binding(0, overlay(1)), None);
    assert!(!net.has(0, Key::Replica(tunnel0(), nbma(1), 0)));
    assert!(net.has_event(0, |e| *e == Event::Gone { tunnel: tunnel0(), address: overlay(1) }));
}

#[test]
fn a_hub_that_forgot_hears_again_with_the_next_refresh() {
    let mut net = Net::new(1, &Setup { holding: 30, ..Setup::default() });
    net.run(seconds(1));
    net.give(0, Input::Clear(Clear::default()));
    assert_eq!(net.binding(0, overlay(1)), None);
    net.run(seconds(10));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
}

/// A second NBMA address for a unique registration is refused with code 14, and the first one stays.
#[test]
fn a_unique_registration_is_kept() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let mut thief = net.nodes[2].tunnel.clone();
    thief.addresses = net.nodes[1].tunnel.addresses.clone();
    net.nodes[2].tunnel = thief;
    net.start(2);
    net.run(millis(100));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    assert_eq!(net.rejects(0, Reject::AlreadyRegistered), 1);
    let (_, to, reply) = net.messages(0, MessageType::RegistrationReply).pop().unwrap();
    assert_eq!(to, nbma(2));
    let Body::Exchange { entries, .. } = &reply.body else { panic!("{reply:?}") };
    assert_eq!((entries[0].code, entries[0].holding_time), (CieCode::ALREADY_REGISTERED, 0));
    let server = &net.nodes[2].engine.servers(net.now)[0];
    assert_eq!((server.state, server.refusals), (ServerState::Expecting, 1));
    assert_eq!(server.refusal.as_deref(), Some("unique address already registered"));
    assert!(net.has_event(2, |e| matches!(e, Event::ServerDown { .. })));
}

#[test]
fn a_registration_that_is_not_unique_moves() {
    let mut net = Net::new(2, &Setup { unique: false, ..Setup::default() });
    net.run(seconds(1));
    net.nodes[2].tunnel.addresses = net.nodes[1].tunnel.addresses.clone();
    net.start(2);
    net.run(seconds(1));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(2)));
    assert!(!net.has(0, Key::Replica(tunnel0(), nbma(1), 0)));
    assert!(net.has(0, Key::Replica(tunnel0(), nbma(2), 0)));
}

/// The address of the source interface changes: the old registration is purged, the new one is there at once.
#[test]
fn a_new_nbma_address_is_registered_at_once() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    net.nodes[1].tunnel.nbma = Some(nbma(7));
    net.start(1);
    net.run(millis(100));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(7)));
    assert!(net.has(0, Key::Replica(tunnel0(), nbma(7), 0)));
    assert!(!net.has(0, Key::Replica(tunnel0(), nbma(1), 0)));
    assert_eq!(net.rejects(0, Reject::AlreadyRegistered), 0);
}

/// The same when the purge is lost: the refusal has it sent again.
#[test]
fn a_lost_purge_does_not_lock_a_client_out() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    net.lost = 1000;
    net.nodes[1].tunnel.nbma = Some(nbma(7));
    net.start(1);
    net.lost = 0;
    net.run(seconds(5));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(7)));
}

#[test]
fn a_tunnel_without_an_nbma_address_waits_for_one() {
    let mut net = Net::idle(1, &Setup::default());
    net.start(0);
    let mut tunnel = net.nodes[1].tunnel.clone();
    tunnel.nbma = None;
    net.give(1, Input::Configure(vec![tunnel]));
    net.run(seconds(5));
    assert_eq!(net.nodes[1].engine.servers(net.now)[0].state, ServerState::Waiting);
    assert_eq!(net.nodes[1].sent.len(), 0);
    net.start(1);
    net.run(seconds(1));
    assert_eq!(net.nodes[1].engine.servers(net.now)[0].state, ServerState::Responding);
}

#[test]
fn a_configuration_that_goes_takes_everything_along() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    net.give(1, Input::Configure(vec![]));
    assert!(net.nodes[1].program.is_empty());
    assert_eq!(net.nodes[1].engine.next_deadline(), None);
    net.run(millis(50));
    assert_eq!(net.binding(0, overlay(1)), None, "it said goodbye");
    assert_eq!(net.binding(2, overlay(1)), None, "to the other spoke as well");
    net.give(0, Input::Configure(vec![]));
    assert!(net.nodes[0].program.is_empty());
}

#[test]
fn a_static_map_is_programmed_and_nothing_learnt_replaces_it() {
    let mut net = Net::idle(2, &Setup::default());
    let map = model::config::Map { protocol: overlay(2), nbma: nbma(9) };
    net.nodes[0].tunnel.nhrp.map.push(map);
    net.nodes[0].tunnel.nhrp.map_multicast = vec![MapMulticast::Nbma(nbma(9))];
    for node in 0..3 {
        net.start(node);
    }
    net.run(seconds(1));
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(9)));
    assert!(net.rejects(0, Reject::Prohibited) > 0);
    assert!(
        net.has(0, Key::Replica(tunnel0(), nbma(9), 0)) && !net.has(0, Key::Replica(tunnel0(), nbma(1), 0))
    );
    // `dynamic` brings the registered ones, and their going takes them away.
    net.nodes[0].tunnel.nhrp.map_multicast = vec![MapMulticast::Dynamic];
    net.nodes[0].tunnel.nhrp.map.clear();
    net.start(0);
    assert!(
        net.has(0, Key::Replica(tunnel0(), nbma(1), 0)) && !net.has(0, Key::Replica(tunnel0(), nbma(9), 0))
    );
    assert_eq!(net.binding(0, overlay(2)), None);
}

#[test]
fn what_no_peer_can_have_is_not_registered() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let (_, _, good) = net.messages(1, MessageType::RegistrationRequest).pop().unwrap();
    let mut register = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        let source = nbma(1);
        net.give(
            0,
            Input::Packet {
                tunnel: tunnel0(),
                from: source.into(),
                destination: nbma(0),
                bytes: message.encode(),
            },
        );
        let (_, _, reply) = net.messages(0, MessageType::RegistrationReply).pop().unwrap();
        let Body::Exchange { entries, .. } = reply.body else { panic!() };
        entries[0].code
    };
    assert_eq!(register(&|_| ()), CieCode::SUCCESS);
    let source = |addr: &'static str| move |m: &mut Message| m.source = Some(addr.parse().unwrap());
    assert_eq!(register(&source("224.0.0.5")), CieCode::ADMINISTRATIVELY_PROHIBITED);
    assert_eq!(register(&source("127.0.0.1")), CieCode::ADMINISTRATIVELY_PROHIBITED);
    let entry = |change: fn(&mut wire::nhrp::Cie)| {
        move |m: &mut Message| match &mut m.body {
            Body::Exchange { entries, .. } => change(&mut entries[0]),
            _ => panic!(),
        }
    };
    assert_eq!(register(&entry(|e| e.prefix = 24)), CieCode::ADMINISTRATIVELY_PROHIBITED);
    assert_eq!(register(&entry(|e| e.prefix = 0)), CieCode::SUCCESS);
    assert_eq!(register(&entry(|e| e.prefix = 255)), CieCode::SUCCESS);
    assert_eq!(register(&entry(|e| e.holding_time = 0)), CieCode::ADMINISTRATIVELY_PROHIBITED);
    // Somebody who registers the hub's own address hears nothing that would make the hub's requests look like its own.
    let own = Message { source: Some(overlay(0).0), ..good.clone() };
    net.give(
        0,
        Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(0), bytes: own.encode() },
    );
    assert_eq!(net.rejects(0, Reject::Loop), 1);
}

/// A client that the configuration knows as well gets multicast from its registration on, like any other, until it goes.
#[test]
fn a_client_that_is_configured_too_gets_multicast_once_it_registered() {
    let mut net = Net::idle(1, &Setup::default());
    net.nodes[0].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(1), nbma: nbma(1) });
    let replica = Key::Replica(tunnel0(), nbma(1), 0);
    net.start(0);
    assert!(net.has(0, Key::Binding(tunnel0(), overlay(1))) && !net.has(0, replica));
    net.start(1);
    net.run(seconds(1));
    assert!(net.has(0, replica));
    // A restart of the hub, before it registers again, takes nothing away.
    net.nodes[1].alive = false;
    net.nodes[0].program.clear();
    net.restart(0);
    assert!(net.has(0, replica));
    net.revive(1);
    net.run(seconds(300));
    assert!(net.has(0, replica));
    net.give(1, Input::Shutdown);
    net.run(millis(50));
    assert!(net.has(0, Key::Binding(tunnel0(), overlay(1))) && !net.has(0, replica));
}

/// A client whose packets come from elsewhere than it says is behind a NAT: it is reached where they come from, and told so.
#[test]
fn a_client_behind_a_nat_is_reached_where_it_comes_from() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let (_, _, request) = net.messages(1, MessageType::RegistrationRequest).pop().unwrap();
    let moved =
        Message { source: Some(overlay(5).0), source_nbma: Some("192.0.2.9".parse().unwrap()), ..request };
    net.give(
        0,
        Input::Packet {
            tunnel: tunnel0(),
            from: nbma(1).into(),
            destination: nbma(0),
            bytes: moved.encode(),
        },
    );
    assert_eq!(net.binding(0, overlay(5)), Some(nbma(1)));
    let entries = net.nodes[0].engine.entries(net.now);
    let entry = entries.iter().find(|e| e.next_hop == overlay(5)).unwrap();
    assert_eq!(entry.claimed_nbma.unwrap().to_string(), "192.0.2.9");
    let (_, to, reply) = net.messages(0, MessageType::RegistrationReply).pop().unwrap();
    assert_eq!(to, nbma(1));
    let nat = reply.extension(wire::nhrp::ExtensionType::NAT).unwrap().entries(reply.families).unwrap();
    assert_eq!((nat.len(), nat[1].nbma), (2, Some(nbma(1).0)));
}

/// The data plane was away for minutes: its return is not missed by a minute of back-off.
#[test]
fn silent_servers_are_asked_at_once_when_the_data_plane_is_back() {
    let mut net = Net::new(2, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    net.lost = 1000;
    net.run(seconds(300));
    net.lost = 0;
    assert_eq!(net.binding(0, overlay(1)), None);
    let asked = net.messages(1, MessageType::RegistrationRequest).len();
    net.give(1, Input::Reconnected);
    assert_eq!(net.messages(1, MessageType::RegistrationRequest).len(), asked + 1);
    net.run(millis(50));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    // Nothing is awaited from a server that answered.
    net.give(1, Input::Reconnected);
    assert_eq!(net.messages(1, MessageType::RegistrationRequest).len(), asked + 1);
}

/// What the hub answers to a registration request from `sender`: the code of each entry.
pub(crate) fn register(net: &mut Net, sender: &Sender, request: &Message) -> Vec<CieCode> {
    let before = net.messages(0, MessageType::RegistrationReply).len();
    let (from, bytes) = (sender.clone(), request.encode());
    net.give(0, Input::Packet { tunnel: tunnel0(), from, destination: nbma(0), bytes });
    let replies = net.messages(0, MessageType::RegistrationReply);
    assert_eq!(replies.len(), before + 1, "one answer");
    let Body::Exchange { entries, .. } = &replies[before].2.body else { panic!() };
    assert!(entries.iter().all(|e| (e.code == CieCode::SUCCESS) == (e.holding_time > 0)), "0 in a refusal");
    entries.iter().map(|e| e.code).collect()
}

/// A registration request of a node of the bench, as it was sent last.
pub(crate) fn request_of(net: &Net, node: usize) -> Message {
    net.messages(node, MessageType::RegistrationRequest).pop().unwrap().2
}

pub(crate) fn with_flags(mut message: Message, wanted: Flags) -> Message {
    if let Body::Exchange { flags, .. } = &mut message.body {
        *flags = wanted;
    }
    message
}

pub(crate) fn with_entries(mut message: Message, wanted: &[Cie]) -> Message {
    if let Body::Exchange { entries, .. } = &mut message.body {
        *entries = wanted.to_vec();
    }
    message
}

pub(crate) fn sender(node: usize, port: Option<u16>, identity: Option<&str>) -> Sender {
    Sender { nbma: nbma(node), port, identity: identity.map(str::to_owned), certified: None }
}

pub(crate) fn entry(net: &Net, node: usize, target: Prefix) -> Option<model::state::nhrp::Entry> {
    net.nodes[node].engine.entries(net.now).into_iter().find(|e| e.prefix == target)
}

pub(crate) const TAKEN: [CieCode; 1] = [CieCode::SUCCESS];
pub(crate) const KEPT: [CieCode; 1] = [CieCode::ALREADY_REGISTERED];
pub(crate) const PROHIBITED: [CieCode; 1] = [CieCode::ADMINISTRATIVELY_PROHIBITED];

/// The address of a client that moves without saying so is kept from it, unless IKE says that it is the one who registered it.
#[test]
fn a_unique_address_moves_with_its_ike_identity_and_no_other() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let request = request_of(&net, 1);
    let moved = Message { source_nbma: Some(nbma(7).0), ..request.clone() };
    assert_eq!(register(&mut net, &sender(1, None, Some("spoke1")), &request), TAKEN);
    assert_eq!(register(&mut net, &sender(7, None, Some("spoke2")), &moved), KEPT);
    assert_eq!(register(&mut net, &sender(7, None, None), &moved), KEPT);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    assert_eq!(register(&mut net, &sender(7, None, Some("spoke1")), &moved), TAKEN);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(7)));
    assert!(
        !net.has(0, Key::Replica(tunnel0(), nbma(1), 0)) && net.has(0, Key::Replica(tunnel0(), nbma(7), 0))
    );
    // It is remembered over a restart who that was; that nobody is known is nobody's identity.
    net.restart(0);
    assert_eq!(register(&mut net, &sender(1, None, Some("spoke1")), &request), TAKEN);
    assert_eq!(register(&mut net, &sender(1, None, None), &request), TAKEN);
    assert_eq!(register(&mut net, &sender(7, None, None), &moved), KEPT);
}

/// What passed another server was protected by that server's identity, not by the client's.
#[test]
fn the_identity_of_a_server_on_the_way_is_not_the_clients() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let request = request_of(&net, 1);
    let mut passed = Message { source_nbma: Some(nbma(7).0), ..request.clone() };
    let hub = Cie { nbma: Some(nbma(9).0), protocol: Some(overlay(9).0), ..Cie::default() };
    let families = passed.families;
    assert!(passed.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap().push(&hub, families));
    assert_eq!(register(&mut net, &sender(1, None, Some("hub9")), &request), TAKEN);
    assert_eq!(register(&mut net, &sender(9, None, Some("hub9")), &passed), KEPT);
}

/// A NAT gives its client another port now and then; it is the same client, and answered there.
#[test]
fn a_client_behind_a_nat_may_change_its_udp_port() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let inside = "192.0.2.9".parse().ok();
    let request = Message { source: Some(overlay(5).0), source_nbma: inside, ..request_of(&net, 1) };
    for port in [4500, 1024] {
        assert_eq!(register(&mut net, &sender(1, Some(port), None), &request), TAKEN);
    }
    // Another one behind the same NAT that claims the address is not it, nor is it by the word of IKE.
    let other = Message { source_nbma: "192.0.2.10".parse().ok(), ..request.clone() };
    assert_eq!(register(&mut net, &sender(1, Some(2048), None), &other), KEPT);
    assert_eq!(register(&mut net, &sender(1, Some(1024), Some("spoke5")), &request), TAKEN);
    assert_eq!(register(&mut net, &sender(1, Some(2048), Some("spoke6")), &request), KEPT);
}

#[test]
fn a_registration_that_is_not_unique_takes_no_unique_address() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let request = request_of(&net, 1);
    let moved = with_flags(Message { source_nbma: Some(nbma(7).0), ..request }, Flags::default());
    assert_eq!(register(&mut net, &sender(7, None, None), &moved), KEPT);
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
}

/// Of one that is not unique, the newest holds; with U it is kept from then on (RFC 2332 §5.2.3), and without U no more.
#[test]
fn uniqueness_is_as_it_was_registered_last() {
    let mut net = Net::new(1, &Setup { unique: false, ..Setup::default() });
    net.run(seconds(1));
    let open = request_of(&net, 1);
    assert!(matches!(open.body, Body::Exchange { flags, .. } if !flags.has(Flags::UNIQUE)));
    assert!(!entry(&net, 0, Prefix::host(overlay(1).0)).unwrap().flags.unique);
    let moved = Message { source_nbma: Some(nbma(7).0), ..open.clone() };
    let unique = with_flags(moved.clone(), Flags::UNIQUE);
    assert_eq!(register(&mut net, &sender(7, None, None), &unique), TAKEN);
    assert!(entry(&net, 0, Prefix::host(overlay(1).0)).unwrap().flags.unique);
    assert_eq!(register(&mut net, &sender(1, None, None), &open), KEPT);
    assert_eq!(register(&mut net, &sender(7, None, None), &moved), TAKEN);
    assert_eq!(register(&mut net, &sender(1, None, None), &open), TAKEN);
}

/// RFC 2332 §5.2.4: what can be registered is, and what not has its code. With U there is one entry.
#[test]
fn each_entry_of_a_request_has_its_own_code() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    let of = |node: usize| Cie { holding_time: 60, protocol: Some(overlay(node).0), ..Cie::default() };
    let wider = Cie { prefix: 24, ..of(6) };
    let request = with_entries(request_of(&net, 1), &[of(5), of(2), wider, of(6), of(0)]);
    let codes = register(&mut net, &sender(1, None, None), &with_flags(request.clone(), Flags::default()));
    let prohibited = CieCode::ADMINISTRATIVELY_PROHIBITED;
    let ok = CieCode::SUCCESS;
    assert_eq!(codes, [ok, CieCode::ALREADY_REGISTERED, prohibited, ok, prohibited]);
    assert_eq!((net.binding(0, overlay(5)), net.binding(0, overlay(6))), (Some(nbma(1)), Some(nbma(1))));
    assert_eq!(net.binding(0, overlay(2)), Some(nbma(2)));
    let bytes = request.encode();
    net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(0), bytes });
    assert_eq!(net.rejects(0, Reject::Malformed), 1);
}

/// Addresses of the other family than the underlay's are nobody's.
#[test]
fn a_client_of_another_underlay_is_not_taken() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let mut request = request_of(&net, 1);
    request.families.nbma = wire::nhrp::Family::V6;
    request.source_nbma = "2001:db8::1".parse().ok();
    request.extensions = Some(vec![]);
    let bytes = request.encode();
    net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(0), bytes });
    assert_eq!(net.rejects(0, Reject::Address), 1);
    assert_eq!(net.messages(0, MessageType::RegistrationReply).len(), 1);
}

/// A client that the configuration knows as well and that falls silent gets no more multicast when its holding time is over, and
/// again when it is back. Where it is remains known all the time.
#[test]
fn a_configured_client_that_falls_silent_gets_no_multicast() {
    let mut net = Net::idle(1, &Setup { holding: 60, ..Setup::default() });
    net.nodes[0].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(1), nbma: nbma(1) });
    let (binding, replica) = (Key::Binding(tunnel0(), overlay(1)), Key::Replica(tunnel0(), nbma(1), 0));
    let registered = |net: &Net| {
        let entry = entry(net, 0, Prefix::host(overlay(1).0)).unwrap();
        assert_eq!((entry.entry_type, entry.expires_in), (EntryType::Static, None));
        entry.flags.registered
    };
    net.start(0);
    net.start(1);
    net.run(seconds(1));
    assert!(net.has(0, replica) && registered(&net));
    net.nodes[1].alive = false;
    net.run(seconds(30));
    // A restart meanwhile makes it no longer.
    net.restart(0);
    assert!(net.has(0, replica) && registered(&net));
    net.run(seconds(31));
    assert!(net.has(0, binding) && !net.has(0, replica) && !registered(&net));
    net.revive(1);
    net.run(seconds(30));
    assert!(net.has(0, binding) && net.has(0, replica) && registered(&net));
}

/// A map for a client that is registered already: nothing of its registration is lost, and it ends when it would have.
#[test]
fn a_map_for_a_registered_client_keeps_its_registration() {
    let mut net = Net::new(1, &Setup { holding: 60, ..Setup::default() });
    net.run(seconds(1));
    let replica = Key::Replica(tunnel0(), nbma(1), 0);
    net.nodes[0].tunnel.nhrp.map.push(model::config::Map { protocol: overlay(1), nbma: nbma(1) });
    net.start(0);
    assert!(net.has(0, replica));
    net.nodes[1].alive = false;
    net.run(seconds(61));
    assert!(net.has(0, Key::Binding(tunnel0(), overlay(1))) && !net.has(0, replica));
}

/// Two clients behind one NAT address, told apart by their UDP ports: each has its own entry and its own answers, and what one says
/// or leaves unsaid takes nothing of the other.
#[test]
fn clients_behind_one_address_do_not_disturb_each_other() {
    let mut net = Net::idle(2, &Setup { holding: 60, ..Setup::default() });
    let public = nbma(200);
    net.pat.insert(1, (public, 4500));
    net.pat.insert(2, (public, 1024));
    net.start_all();
    net.run(seconds(1));
    let [first, second] = [4500, 1024].map(|port| Key::Replica(tunnel0(), public, port));
    assert!(net.has(0, first) && net.has(0, second), "each gets multicast at its own port");
    let port =
        |net: &Net, node: usize| match net.nodes[0].program.get(&Key::Binding(tunnel0(), overlay(node))) {
            Some((Object::Binding(binding), _)) => Some(binding.port),
            _ => None,
        };
    assert_eq!((port(&net, 1), port(&net, 2)), (Some(4500), Some(1024)));
    for (node, server) in [1, 2].map(|n| (n, net.nodes[n].engine.servers(net.now))) {
        assert_eq!(server[0].state, ServerState::Responding, "{node}");
        let entry = entry(&net, 0, Prefix::host(overlay(node).0)).unwrap();
        assert_eq!((entry.nbma, entry.claimed_nbma), (Some(public), Some(nbma(node))));
    }
    net.give(1, Input::Shutdown);
    net.run(millis(50));
    assert_eq!((net.binding(0, overlay(1)), net.binding(0, overlay(2))), (None, Some(public)));
    assert!(!net.has(0, first) && net.has(0, second));
    net.nodes[1].alive = false;
    net.run(seconds(120));
    assert!(net.binding(0, overlay(2)) == Some(public) && net.has(0, second));
    net.nodes[2].alive = false;
    net.run(seconds(61));
    assert!(net.binding(0, overlay(2)).is_none() && !net.has(0, second));
}

/// The same where the NAT lets GRE through and there are no ports.
#[test]
fn clients_behind_one_address_without_ports_are_entries_of_their_own() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let template = request_of(&net, 1);
    let request = |node: usize| Message {
        source: Some(overlay(node).0),
        source_nbma: Some(nbma(100 + node).0),
        ..template.clone()
    };
    for node in [5, 6] {
        assert_eq!(register(&mut net, &sender(9, None, None), &request(node)), TAKEN);
    }
    let mut leave = request(5);
    let gone = Cie { prefix: 32, protocol: Some(overlay(5).0), ..Cie::default() };
    let flags = Flags::NO_REPLY;
    leave.body = Body::Exchange { kind: Kind::PurgeRequest, flags, request_id: 9, entries: vec![gone] };
    let bytes = leave.encode();
    net.give(0, Input::Packet { tunnel: tunnel0(), from: nbma(9).into(), destination: nbma(0), bytes });
    assert_eq!((net.binding(0, overlay(5)), net.binding(0, overlay(6))), (None, Some(nbma(9))));
    assert!(net.has(0, Key::Replica(tunnel0(), nbma(9), 0)));
}

/// A registration request of a client with an IPv6 address in the overlay, that does not know its server.
fn request_v6(net: &Net, client: &str) -> Message {
    let request = request_of(net, 1);
    let families = wire::nhrp::Families { protocol: wire::nhrp::Family::V6, ..request.families };
    let client = client.parse().ok();
    let mut nat = wire::nhrp::Extension::empty(ExtensionType::NAT, false);
    let server = Cie { nbma: Some(nbma(0).0), protocol: "::".parse().ok(), ..Cie::default() };
    assert!(nat.push(&server, families));
    let entry = Cie { prefix: 128, holding_time: 60, ..Cie::default() };
    let message = Message { families, source: client, destination: client, ..request };
    with_entries(Message { extensions: Some(vec![nat]), ..message }, &[entry])
}

/// Behind a NAT in an IPv6 overlay: the second entry of the extension is where it is seen, and which address of the overlay is meant. The
/// first is as it came, also where the client does not know its server's address (FRR sends zeros).
#[test]
fn an_ipv6_client_behind_a_nat_is_told_where_it_is_seen() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    for own in ["2001:db8:ffff::1/64", "fe80::1/64"] {
        net.nodes[0].tunnel.addresses.push(own.parse().unwrap());
    }
    net.start(0);
    let client = "2001:db8:ffff::5";
    let inside = Message { source_nbma: "192.0.2.9".parse().ok(), ..request_v6(&net, client) };
    assert_eq!(register(&mut net, &sender(1, Some(4500), None), &inside), TAKEN);
    assert_eq!(net.binding(0, client.parse().unwrap()), Some(nbma(1)));
    let (_, to, reply) = net.messages(0, MessageType::RegistrationReply).pop().unwrap();
    let nat = reply.extension(ExtensionType::NAT).unwrap().entries(reply.families).unwrap();
    assert_eq!((to, nat.len()), (nbma(1), 2));
    assert_eq!((nat[0].nbma, nat[0].protocol), (Some(nbma(0).0), "::".parse().ok()));
    assert_eq!((nat[1].nbma, nat[1].protocol, nat[1].prefix), (Some(nbma(1).0), client.parse().ok(), 128));
    // Our own addresses are no client's, those of the link among them.
    for own in ["2001:db8:ffff::1", "fe80::1"] {
        let entry = Cie { holding_time: 60, protocol: own.parse().ok(), ..Cie::default() };
        let request = with_entries(request_v6(&net, client), &[entry]);
        assert_eq!(register(&mut net, &sender(1, None, None), &request), PROHIBITED, "{own}");
    }
}

/// RFC 2332 §5.2.3: who cannot be served is told so.
#[test]
fn a_client_of_a_family_that_the_server_has_not_is_refused() {
    let mut net = Net::new(1, &Setup::default());
    net.run(seconds(1));
    let request = request_v6(&net, "2001:db8:ffff::5");
    assert_eq!(register(&mut net, &sender(1, None, None), &request), PROHIBITED);
    assert_eq!(net.rejects(0, Reject::Unreachable), 1);
}
