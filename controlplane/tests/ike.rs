//! Tunnels whose SAs IKE makes, in a cloud of conductors: who is wanted, in what order it happens, and what becomes of it when something dies.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use controlplane::conductor::Input;
use model::TableId;
use model::program::{Key, Object, Owner};
use model::report::{PacketIn, PuntReason, Report};
use model::sa::{Protection, Spi};
use model::state::dmvpn::PeerState;
use model::state::event::Happening;
use model::state::ike::{IkeSa, IkeState, Role};
use model::state::{Show, State, What};

const HUB: usize = 0;
const SPOKE1: usize = 1;
const SPOKE2: usize = 2;

/// A node of phase 3 that is protected by IKE with a pre-shared key, and more lines of its section.
fn by_ike(node: &str, more: &str) -> String {
    let text = example(3, node).replacen("source = \"wan\"", "source = \"wan\"\nprotection = \"branch\"", 1);
    format!(
        "{text}\n[[profiles]]\nname = \"branch\"\n[profiles.ike]\nidentity = \"{node}.example\"\n{more}\n\
         [[profiles.ike.psk]]\nsecret = \"a secret of the whole cloud\"\n"
    )
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Hub and two spokes, started, and not run yet.
fn started(more: &str) -> Cloud {
    let mut cloud = Cloud::of(&["hub", "spoke1", "spoke2"].map(|node| by_ike(node, more)));
    for node in 0..3 {
        cloud.start(node);
    }
    cloud
}

/// The same, running for some seconds.
fn running(more: &str) -> Cloud {
    let mut cloud = started(more);
    cloud.run(seconds(5));
    cloud
}

fn address(node: usize) -> &'static str {
    ["203.0.113.1", "203.0.113.11", "203.0.113.12"][node]
}

fn peer(from: usize, to: usize) -> Protection {
    Protection {
        profile: "branch".parse().unwrap(),
        table: TableId(0),
        local: nbma(address(from)),
        remote: nbma(address(to)),
        port: 0,
    }
}

fn sas(cloud: &Cloud, node: usize) -> Vec<IkeSa> {
    let State::Ike(shown) = cloud.nodes[node].conductor.show(cloud.now, What::Ike) else { panic!() };
    shown.0
}

/// Objects of owner IKE in a data plane that are of a peer: inbound SPIs, outbound SPIs.
fn programmed(cloud: &Cloud, node: usize, of: Protection) -> (Vec<Spi>, Vec<Spi>) {
    let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
    for ((_, owner), object) in cloud.nodes[node].dataplane.program() {
        match object {
            Object::InboundSa(sa) if owner == Owner::Ike && sa.protection == of => inbound.push(sa.spi),
            Object::OutboundSa(sa) if owner == Owner::Ike && sa.protection == of => outbound.push(sa.spi),
            _ => {}
        }
    }
    (inbound, outbound)
}

fn is_protected(cloud: &Cloud, from: usize, to: usize) -> bool {
    let (inbound, outbound) = programmed(cloud, from, peer(from, to));
    let (theirs, _) = programmed(cloud, to, peer(to, from));
    !inbound.is_empty() && !outbound.is_empty() && outbound.iter().all(|spi| theirs.contains(spi))
}

fn is_registered(cloud: &Cloud, spoke: usize) -> bool {
    let next_hop = ["", "10.255.0.11", "10.255.0.12"][spoke];
    cloud.nodes[HUB].dataplane.bound(next_hop).is_some_and(|(at, _)| at == nbma(address(spoke)))
}

fn dmvpn(cloud: &Cloud, node: usize, protocol: &str) -> Option<(PeerState, Option<String>)> {
    let State::Dmvpn(shown) = cloud.nodes[node].conductor.show(cloud.now, What::Dmvpn) else { panic!() };
    let mut peers = shown.0.into_iter().flat_map(|tunnel| tunnel.peers);
    peers.find(|peer| peer.protocol.to_string() == protocol).map(|peer| (peer.state, peer.reason))
}

fn counter(cloud: &Cloud, node: usize, name: &str) -> u64 {
    let State::Counters(shown) = cloud.nodes[node].conductor.show(cloud.now, What::Counters) else {
        panic!()
    };
    shown.others.iter().filter(|c| c.name == name).map(|c| c.count).sum()
}

/// Spoke 1 has traffic for spoke 2: the hub relays it, and tells spoke 1 of the better way.
fn traffic(cloud: &mut Cloud) {
    cloud.redirect(address(SPOKE1), "192.168.11.9", "192.168.12.9");
}

#[test]
fn spokes_are_registered_and_protected_and_nothing_left_in_the_clear() {
    let cloud = running("");
    for spoke in [SPOKE1, SPOKE2] {
        assert!(is_protected(&cloud, spoke, HUB) && is_protected(&cloud, HUB, spoke), "{spoke}");
        assert!(is_registered(&cloud, spoke), "{spoke}");
        let up = &sas(&cloud, spoke)[0];
        assert_eq!((up.state, up.role, up.server), (IkeState::Up, Role::Initiator, true));
        assert_eq!(up.identity.as_ref().unwrap().to_string(), "hub.example");
        assert_eq!(up.children.len(), 1);
        let is_up = |e: &Happening| matches!(e, Happening::IkeUp { initiator: true, rekey: false, .. });
        assert!(cloud.nodes[spoke].has_seen(is_up));
        assert_eq!(dmvpn(&cloud, spoke, "10.255.0.1"), Some((PeerState::Up, None)));
    }
    assert_eq!(sas(&cloud, HUB).len(), 2);
    assert!(cloud.nodes.iter().all(|node| node.refusals().is_empty()));
    assert_eq!((cloud.unsealed, cloud.unopened), (0, 0), "no packet left before its SA, or met none");
    // The first registration waited for its SA, and was not said again.
    for spoke in [SPOKE1, SPOKE2] {
        let registrations = cloud.nodes[spoke].sent.iter().filter(|kind| **kind == 3).count();
        assert_eq!(registrations, 1);
    }
}

#[test]
fn spokes_meet_when_they_have_traffic_and_by_their_own_sa() {
    let mut cloud = running("");
    assert!(!is_protected(&cloud, SPOKE1, SPOKE2));
    traffic(&mut cloud);
    cloud.run(seconds(1));
    assert!(is_protected(&cloud, SPOKE1, SPOKE2) && is_protected(&cloud, SPOKE2, SPOKE1));
    let shortcut = cloud.nodes[SPOKE1].dataplane.way("192.168.12.0/24");
    assert!(shortcut.is_some(), "{:?}", cloud.nodes[SPOKE1].events);
    assert_eq!((cloud.unsealed, cloud.unopened), (0, 0));
    let [one, other] = [SPOKE1, SPOKE2].map(|spoke| {
        sas(&cloud, spoke).into_iter().filter(|sa| sa.protection == peer(spoke, 3 - spoke)).count()
    });
    assert_eq!((one, other), (1, 1), "one IKE SA between two");
}

/// Input: no datagram passes between the spokes. Output: the answer to the resolution goes by the hub after two seconds, nothing is lost of it.
#[test]
fn an_answer_goes_by_the_server_where_no_sa_comes_up() {
    let mut cloud = running("");
    cloud.cut.insert((SPOKE1, SPOKE2));
    traffic(&mut cloud);
    cloud.run(millis(1900));
    assert!(cloud.nodes[SPOKE1].dataplane.way("192.168.12.0/24").is_none());
    cloud.run(millis(200));
    assert!(cloud.nodes[SPOKE1].dataplane.way("192.168.12.0/24").is_some(), "by the hub");
    assert!(!is_protected(&cloud, SPOKE1, SPOKE2));
    assert_eq!(cloud.unsealed, 0, "packets follow the hub by the data plane's fall-back");
    let shown = dmvpn(&cloud, SPOKE1, "10.255.0.12").unwrap();
    assert_eq!(shown.0, PeerState::Ike, "{shown:?}");
    assert!(shown.1.unwrap().starts_with("there is no SA with it"));
    // The way is free again, and packets want it.
    cloud.cut.clear();
    let hop = hop("tunnel0", "10.255.0.12");
    for _ in 0..20 {
        cloud.give(SPOKE1, Input::Report(Report::Glean(hop)));
        cloud.run(seconds(1));
    }
    assert!(is_protected(&cloud, SPOKE1, SPOKE2));
}

/// Input: packets for a peer that does not answer. Output: they wait two seconds and are counted then; at most so many wait.
#[test]
fn what_waits_for_an_sa_in_vain_is_counted() {
    let mut cloud = started("");
    cloud.nodes[HUB].is_gone = true;
    cloud.run(seconds(10));
    assert!(counter(&cloud, SPOKE1, "unprotected") >= 2, "registration requests");
    assert_eq!(cloud.unsealed, 0);
    assert_eq!(dmvpn(&cloud, SPOKE1, "10.255.0.1").unwrap().0, PeerState::Ike);
    cloud.nodes[HUB].is_gone = false;
    cloud.run(seconds(70));
    assert!(is_registered(&cloud, SPOKE1) && is_registered(&cloud, SPOKE2));
}

/// Input: another data plane in the place of the hub's. Output: no SA of before is put into it, and each peer has new ones.
#[test]
fn no_key_is_put_into_a_second_data_plane() {
    let mut cloud = running("");
    let before = [SPOKE1, SPOKE2].map(|spoke| programmed(&cloud, HUB, peer(HUB, spoke)));
    let had: Vec<Spi> =
        before.iter().flat_map(|(inbound, outbound)| [&inbound[..], outbound].concat()).collect();
    assert_eq!(had.len(), 4);
    let keys = |cloud: &Cloud| {
        let objects = cloud.nodes[HUB].dataplane.program().into_values();
        objects
            .filter_map(|object| if let Object::OutboundSa(sa) = object { Some(sa.key) } else { None })
            .collect::<Vec<_>>()
    };
    let old = keys(&cloud);
    cloud.restart_dataplane(HUB, millis(700));
    cloud.run(seconds(5));
    for spoke in [SPOKE1, SPOKE2] {
        assert!(is_protected(&cloud, HUB, spoke) && is_protected(&cloud, spoke, HUB));
        let (inbound, outbound) = programmed(&cloud, HUB, peer(HUB, spoke));
        assert!(inbound.iter().chain(&outbound).all(|spi| !had.contains(spi)));
    }
    assert!(keys(&cloud).iter().all(|key| !old.contains(key)));
    assert_eq!(sas(&cloud, HUB).iter().filter(|sa| sa.state == IkeState::Up).count(), 2, "the IKE SAs stay");
}

/// Input: the connection between the two processes of the hub is cut and comes back. Output: the same SAs are there, and none is swept.
#[test]
fn a_cut_connection_changes_no_sa() {
    let mut cloud = running("");
    let before = [SPOKE1, SPOKE2].map(|spoke| programmed(&cloud, HUB, peer(HUB, spoke)));
    cloud.nodes[HUB].dataplane.removed.clear();
    cloud.reconnect(HUB);
    cloud.run(seconds(3));
    assert_eq!([SPOKE1, SPOKE2].map(|spoke| programmed(&cloud, HUB, peer(HUB, spoke))), before);
    assert!(cloud.nodes[HUB].dataplane.removed.iter().all(|(_, owner)| *owner != Owner::Ike));
}

/// Input: the hub's control plane is killed. Output: the SAs of its former life stay until new ones are there; then they go.
#[test]
fn a_former_life_s_sas_stay_until_there_are_new_ones() {
    let mut cloud = running("");
    let before = programmed(&cloud, HUB, peer(HUB, SPOKE1));
    cloud.restart(HUB, millis(500));
    assert_eq!(programmed(&cloud, HUB, peer(HUB, SPOKE1)), before, "nothing is swept");
    cloud.run(seconds(20));
    let after = programmed(&cloud, HUB, peer(HUB, SPOKE1));
    assert!(is_protected(&cloud, HUB, SPOKE1) && is_protected(&cloud, SPOKE1, HUB));
    assert!(before.0.iter().all(|spi| !after.0.contains(spi)), "{before:?} {after:?}");
    assert_eq!((after.0.len(), after.1.len()), (1, 1));
    assert!(is_registered(&cloud, SPOKE1) && is_registered(&cloud, SPOKE2));
    assert_eq!((cloud.unsealed, cloud.unopened), (0, 0));
}

/// Input: a spoke dies. Output: the hub finds out, and what the spoke registered is gone; it comes back, and all is there again.
#[test]
fn a_dead_peer_is_forgotten_and_comes_back() {
    let mut cloud = running("dead_peer_detection = 5");
    cloud.nodes[SPOKE1].is_gone = true;
    cloud.run(seconds(60));
    assert!(!is_registered(&cloud, SPOKE1) && is_registered(&cloud, SPOKE2));
    assert_eq!(programmed(&cloud, HUB, peer(HUB, SPOKE1)), (vec![], vec![]));
    assert!(cloud.nodes[HUB].has_seen(
        |e| matches!(e, Happening::IkeDown { protection, .. } if *protection == peer(HUB, SPOKE1))
    ));
    // To the spoke its server is down as well.
    assert!(cloud.nodes[SPOKE1].has_seen(|e| matches!(e, Happening::ServerDown { .. })));
    cloud.nodes[SPOKE1].is_gone = false;
    cloud.run(seconds(70));
    assert!(is_registered(&cloud, SPOKE1) && is_protected(&cloud, HUB, SPOKE1));
}

/// Input: the way between two spokes carried packets, and then none. Output: its SAs go, and those with the server stay.
#[test]
fn an_idle_way_between_spokes_is_let_go_and_the_one_to_the_server_is_not() {
    let mut cloud = running("idle = 30");
    traffic(&mut cloud);
    cloud.run(seconds(1));
    assert!(is_protected(&cloud, SPOKE1, SPOKE2));
    // In use: by packets that leave, and by packets that come.
    for _ in 0..40 {
        let next_hops = vec![protocol("10.255.0.12")];
        cloud.give(SPOKE1, Input::Report(Report::Used { tunnel: name("tunnel0"), next_hops }));
        let (spis, _) = programmed(&cloud, SPOKE2, peer(SPOKE2, SPOKE1));
        cloud.give(SPOKE2, Input::Report(Report::SaUsed { spis }));
        cloud.run(seconds(1));
    }
    assert!(is_protected(&cloud, SPOKE1, SPOKE2), "it is used");
    cloud.run(seconds(45));
    for (one, other) in [(SPOKE1, SPOKE2), (SPOKE2, SPOKE1)] {
        assert_eq!(programmed(&cloud, one, peer(one, other)), (vec![], vec![]));
    }
    assert!(is_protected(&cloud, SPOKE1, HUB) && is_registered(&cloud, SPOKE1));
}

/// Input: the operator ends the IKE SAs with a peer, by address and by identity. Output: as many as there were; a server comes back by itself.
#[test]
fn clear_ends_what_it_names_and_what_is_wanted_comes_back() {
    let mut cloud = running("");
    let clear = |cloud: &mut Cloud, peer: &str| {
        let mut out = Vec::new();
        let cleared = cloud.nodes[SPOKE1].conductor.clear_ike(cloud.now, &peer.parse().unwrap(), &mut out);
        cloud.carry_out(SPOKE1, out);
        cloud.run(seconds(5));
        cleared
    };
    let before = programmed(&cloud, SPOKE1, peer(SPOKE1, HUB));
    assert_eq!(clear(&mut cloud, "nobody.example"), 0);
    assert_eq!(clear(&mut cloud, "203.0.113.1"), 1);
    let after = programmed(&cloud, SPOKE1, peer(SPOKE1, HUB));
    assert!(is_protected(&cloud, SPOKE1, HUB) && before != after);
    assert_eq!(clear(&mut cloud, "hub.example"), 1);
    assert!(is_protected(&cloud, SPOKE1, HUB) && is_registered(&cloud, SPOKE1));
}

/// Input: another secret at one spoke. Output: it is not let in, nothing of it is taken, and both sides say why.
#[test]
fn a_peer_with_a_wrong_secret_is_nobody() {
    let wrong = by_ike("spoke1", "").replace("a secret of the whole cloud", "another one");
    let mut cloud = Cloud::of(&[by_ike("hub", ""), wrong, by_ike("spoke2", "")]);
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(30));
    assert!(!is_registered(&cloud, SPOKE1) && is_registered(&cloud, SPOKE2));
    assert_eq!(programmed(&cloud, HUB, peer(HUB, SPOKE1)), (vec![], vec![]));
    for node in [HUB, SPOKE1] {
        assert!(
            cloud.nodes[node].has_seen(|e| matches!(e, Happening::IkeFailed { .. })),
            "{:?}",
            cloud.nodes[node].events
        );
    }
    let (state, why) = dmvpn(&cloud, SPOKE1, "10.255.0.1").unwrap();
    assert_eq!(state, PeerState::Ike);
    assert!(why.unwrap().contains("there is no SA with it: "));
}

/// Input: `registers = "certified"` and identities that are names. Output: nobody may register anything.
#[test]
fn a_name_certifies_no_address() {
    let cloud = running("registers = \"certified\"");
    assert!(is_protected(&cloud, SPOKE1, HUB));
    assert!(!is_registered(&cloud, SPOKE1) && !is_registered(&cloud, SPOKE2));
}

/// Input: identities that are the tunnel addresses. Output: each registers its own.
#[test]
fn an_identity_that_is_an_address_certifies_that_address() {
    let of = |node: &str, address: &str| {
        by_ike(node, "registers = \"certified\"").replace(&format!("{node}.example"), address)
    };
    let mut cloud =
        Cloud::of(&[of("hub", "10.255.0.1"), of("spoke1", "10.255.0.11"), of("spoke2", "10.255.0.99")]);
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    assert!(is_registered(&cloud, SPOKE1) && !is_registered(&cloud, SPOKE2));
    // Over a restart of the hub's control plane nobody is refused because nobody remembers who it is.
    cloud.restart(HUB, millis(500));
    cloud.nodes[SPOKE1].events.clear();
    cloud.run(seconds(10));
    assert!(is_registered(&cloud, SPOKE1));
    assert!(!cloud.nodes[SPOKE1].has_seen(|e| matches!(e, Happening::ServerDown { .. })));
}

/// Input: a packet by an SA that the hub's former life made, while identities count. Output: it is not taken, and not refused.
#[test]
fn of_an_sa_of_a_former_life_nothing_is_registered_where_that_needs_a_certificate() {
    let of = |node: &str, address: &str| {
        by_ike(node, "registers = \"certified\"").replace(&format!("{node}.example"), address)
    };
    let mut cloud =
        Cloud::of(&[of("hub", "10.255.0.1"), of("spoke1", "10.255.0.11"), of("spoke2", "10.255.0.12")]);
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    let (inbound, _) = programmed(&cloud, HUB, peer(HUB, SPOKE1));
    cloud.cut.extend([(HUB, SPOKE1), (HUB, SPOKE2)]);
    cloud.restart(HUB, millis(500));
    cloud.run(millis(100));
    let packet = PacketIn {
        reason: PuntReason::Nhrp,
        tunnel: name("tunnel0"),
        source: nbma(address(SPOKE1)),
        destination: nbma(address(HUB)),
        udp_port: 0,
        bytes: vec![0; 28],
        dropped_before: 0,
        spi: Some(inbound[0]),
    };
    let before = cloud.nodes[HUB].sent.len();
    cloud.give(HUB, Input::Packet(packet));
    assert_eq!(counter(&cloud, HUB, "unknown-peer"), 1);
    assert_eq!(cloud.nodes[HUB].sent.len(), before);
}

/// Input: a tunnel that is protected from now on, and then is not any more. Output: SAs come and go with it, and sockets too.
#[test]
fn protection_comes_and_goes_with_the_configuration() {
    let mut cloud = Cloud::of(&["hub", "spoke1", "spoke2"].map(|node| example(3, node)));
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    assert!(cloud.nodes[HUB].endpoints.is_empty());
    for (node, text) in ["hub", "spoke1", "spoke2"].into_iter().enumerate() {
        cloud.apply(node, &by_ike(text, "")).unwrap();
    }
    cloud.run(seconds(10));
    let at: Vec<_> = cloud.nodes[HUB].endpoints.iter().map(|e| e.local.to_string()).collect();
    assert_eq!(at, ["203.0.113.1:500", "203.0.113.1:4500"]);
    assert!(is_protected(&cloud, HUB, SPOKE1) && is_protected(&cloud, SPOKE2, HUB));
    for (node, text) in ["hub", "spoke1", "spoke2"].into_iter().enumerate() {
        cloud.apply(node, &example(3, text)).unwrap();
    }
    // Nobody is there any more to answer the last words.
    cloud.run(seconds(40));
    for node in 0..3 {
        assert!(cloud.nodes[node].endpoints.is_empty());
        let program = cloud.nodes[node].dataplane.program();
        let left: Vec<_> = program.keys().filter(|(_, owner)| *owner == Owner::Ike).collect();
        assert!(left.is_empty(), "{node}: {left:?}");
        assert!(sas(&cloud, node).is_empty());
    }
    assert!(is_registered(&cloud, SPOKE1));
}

/// Input: a clean stop of a spoke. Output: its server forgets it, its SAs are gone on both sides, and nothing of IKE stays in its data plane.
#[test]
fn a_clean_stop_takes_the_sas_along() {
    let mut cloud = running("");
    let mut out = Vec::new();
    cloud.nodes[SPOKE1].conductor.stop(cloud.now, &mut out);
    // As the shell does: packets, then datagrams and the program.
    let (last, first): (Vec<_>, Vec<_>) = out.into_iter().partition(|o| {
        use controlplane::conductor::Output;
        matches!(o, Output::Program(_) | Output::Kernel(_) | Output::Datagram(_))
    });
    cloud.carry_out(SPOKE1, first);
    cloud.carry_out(SPOKE1, last);
    cloud.nodes[SPOKE1].is_gone = true;
    cloud.run(seconds(8));
    assert!(!is_registered(&cloud, SPOKE1) && is_registered(&cloud, SPOKE2));
    assert_eq!(programmed(&cloud, HUB, peer(HUB, SPOKE1)), (vec![], vec![]));
    let program = cloud.nodes[SPOKE1].dataplane.program();
    assert!(program.keys().all(|(_, owner)| *owner != Owner::Ike));
}

/// Input: children are rekeyed every few seconds, for minutes, under NHRP's packets. Output: no packet is lost, one pair is left at the end.
#[test]
fn rekeying_loses_nothing() {
    let mut cloud = running("child_lifetime = 20\nlifetime = 70");
    traffic(&mut cloud);
    for _ in 0..300 {
        cloud.run(seconds(1));
        for (node, other) in [(SPOKE1, SPOKE2), (SPOKE2, SPOKE1)] {
            let (spis, _) = programmed(&cloud, node, peer(node, other));
            cloud.give(node, Input::Report(Report::SaUsed { spis }));
        }
    }
    assert!(is_protected(&cloud, SPOKE1, HUB) && is_protected(&cloud, SPOKE1, SPOKE2));
    let rekeyed = |e: &Happening| matches!(e, Happening::ChildUp { rekey: true, .. });
    let ike = |e: &Happening| matches!(e, Happening::IkeUp { rekey: true, .. });
    let seen =
        |what: &dyn Fn(&Happening) -> bool| cloud.nodes[SPOKE1].events.iter().filter(|e| what(e)).count();
    assert!(seen(&rekeyed) > 20 && seen(&ike) > 5, "{} {}", seen(&rekeyed), seen(&ike));
    assert_eq!((cloud.unsealed, cloud.unopened), (0, 0));
    assert!(
        !cloud.nodes[SPOKE1]
            .has_seen(|e| matches!(e, Happening::IkeFailed { .. } | Happening::ServerDown { .. }))
    );
    cloud.run(seconds(8));
    let (inbound, outbound) = programmed(&cloud, SPOKE1, peer(SPOKE1, HUB));
    assert!(inbound.len() <= 2 && outbound.len() == 1, "{inbound:?} {outbound:?}");
}

/// What the operator sees of an SA: how old it is, and when it is replaced.
#[test]
fn sas_of_ike_are_shown_with_their_times() {
    let cloud = running("");
    let (inbound, _) = programmed(&cloud, SPOKE1, peer(SPOKE1, HUB));
    let mut sas = model::state::Sas(vec![model::state::sa::Sa {
        direction: model::sa::Direction::Inbound,
        spi: inbound[0],
        protection: peer(SPOKE1, HUB),
        mode: model::sa::SaMode::Transport,
        suite: model::sa::Suite::AesGcm256,
        esn: true,
        worker: model::WorkerId(0),
        packets: 0,
        bytes: 0,
        sequence: 0,
        leased: None,
        replayed: 0,
        bad_icv: 0,
        reached: None,
        refused: None,
        age: None,
        rekey_in: None,
    }]);
    let Show { what, .. } = What::Ike.into();
    let State::Ike(ike) = cloud.nodes[SPOKE1].conductor.show(cloud.now, what) else { panic!() };
    sas.add_times(&ike);
    let (age, rekey_in) = (sas.0[0].age.unwrap(), sas.0[0].rekey_in.unwrap());
    assert!(
        age < seconds(6) && rekey_in > seconds(3200) && rekey_in <= seconds(3600),
        "{age:?} {rekey_in:?}"
    );
    let lifetime = Key::InboundSa(inbound[0]);
    assert!(cloud.nodes[SPOKE1].dataplane.object(Owner::Ike, lifetime).is_some());
}
