//! Spokes of Linux, FRR and strongSwan, whose GRE is protected by IKEv2, with a protected Nave hub: they register, and reach each other and a Nave
//! spoke by the hub and then directly. `make test-interop` runs this.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;
use tests::capture::{Capture, Frame};
use tests::census::{Census, Secrets};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::guest::Guest;
use tests::pki::{Authority, KeyKind};
use tests::swan::{Connection, Proof, Swan};
use tests::vm::Vm;
use tests::{lock, trail, wait};

/// A cloud that IKE protects, whose hub has routes to the LANs of these guests. Nothing runs yet.
fn cloud(guests: &[u8]) -> (Cloud, Authority) {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let authority = cloud.protect_by_ike().unwrap();
    for number in guests {
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        cloud.nodes[HUB].add("routes", &route).unwrap();
    }
    (cloud, authority)
}

/// A spoke whose kernel has GRE protected, to whomever it goes: strongSwan is asked as soon as a packet needs an SA.
fn trapped(cloud: &Cloud, authority: &Authority, number: u8) -> Guest {
    let mut guest = Guest::spoke(cloud, number);
    let own = authority.issue(&guest.name, &[guest.tunnel.into()], KeyKind::P256).unwrap();
    let mut swan = Swan::believing(authority).with(&guest.name, &own);
    swan.connections.push(Connection {
        name: "cloud".to_owned(),
        local: guest.nbma,
        remote: None,
        ike: "aes256gcm16-prfsha384-x25519".to_owned(),
        esp: "aes256gcm16-esn".to_owned(),
        own: Proof::Certificate(guest.name.clone()),
        peer: Proof::Certificate(String::new()),
        encap: false,
        trap: true,
        more: "unique = replace\n dpd_delay = 10".to_owned(),
    });
    guest.swan = Some(swan);
    guest
}

/// How many pings.
const PINGS: usize = 25;

/// Bytes that the pings carry: no message of NHRP is as long.
const PAYLOAD: usize = 300;

/// Pings that a spoke of Linux and FRR may lose by itself. Seen once between two of them, seconds after each had begun an IKE SA with the other: the
/// request had come to the second one, straight and sealed, and nothing left it.
const THEIRS: usize = 1;

/// Pings from one LAN to another, to a guest (`answers`) or to a Nave node, and what of it was on the underlay: by the hub first and directly in
/// the end, both ways. What came to the hub left it, what came to a Nave node was answered, and what a guest sent came there: none was lost,
/// but what a guest lost on its own.
fn meets(cloud: &Cloud, vm: &Vm, answers: Option<&Vm>, (to, nbma): (Ipv4Addr, Ipv4Addr)) {
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let command = format!("ping -c {PINGS} -i 0.2 -W 3 -s {PAYLOAD} -I {} {to}", vm.lan);
    let (_, said) = vm.run(&command).unwrap();
    let frames = capture.finish().unwrap();
    let legs: Vec<_> =
        trail::sealed_legs(&frames, 28 + PAYLOAD).into_iter().map(|(_, from, to)| (from, to)).collect();
    let inside = |vm: &Vm| match vm.run("ip -s neigh; grep -v '\\b0$' /proc/net/xfrm_stat") {
        Ok((_, said)) => format!("--- {}\n{said}\n{}\n{}", vm.nbma, vm.log(), vm.swan_log()),
        Err(error) => format!("--- {}\n{error:#}", vm.nbma),
    };
    // As they are now, and not when what follows has failed.
    let guests = std::iter::once(vm).chain(answers).map(inside).collect::<Vec<_>>().join("\n");
    let seen = || format!("{said}\n{legs:?}\n{guests}\n{}", cloud.logs());
    let [here, there, hub] = [vm.nbma, nbma, cloud.nodes[HUB].nbma].map(IpAddr::from);
    let count = |from, to| legs.iter().filter(|leg| **leg == (from, to)).count();
    assert_eq!(count(here, hub), count(hub, there), "requests got lost in the hub: {}", seen());
    assert_eq!(count(there, hub), count(hub, here), "answers got lost in the hub: {}", seen());
    let asked = count(hub, there) + count(here, there);
    let answered = count(hub, here) + count(there, here);
    let received = said.lines().filter(|line| line.contains("bytes from")).count();
    let lost_there = if answers.is_some() { THEIRS } else { 0 };
    assert!(asked - answered <= lost_there, "{asked} came there, {answered} came back: {}", seen());
    assert!(PINGS - received <= THEIRS, "{received} of {PINGS}: {}", seen());
    if received < PINGS {
        eprintln!("a guest lost {} of {PINGS} pings: {}", PINGS - received, seen());
    }
    for (from, to) in [(here, there), (there, here)] {
        assert!(legs.contains(&(from, to)), "never directly from {from} to {to}: {}", seen());
    }
    assert_eq!(legs.first(), Some(&(here, hub)), "not by the hub at first: {}", seen());
    let last = &legs[legs.len() - 2..];
    assert!(last.iter().all(|leg| [(here, there), (there, here)].contains(leg)), "{}", seen());
}

/// What Nave nodes sent is sealed.
fn sealed(cloud: &Cloud, frames: &[Frame]) {
    let ours: Vec<_> = cloud.nodes.iter().map(|node| node.nbma.octets()).collect();
    let is_ours = |frame: &&Frame| {
        frame.bytes.get(26..30).is_some_and(|source| ours.iter().any(|nbma| nbma == source))
            || frame.bytes.get(12..14) == Some(&[8, 6])
    };
    let frames: Vec<_> = frames.iter().filter(is_ours).cloned().collect();
    Census::of(Secrets::of(cloud), &frames).check().unwrap();
}

/// Input: two spokes of FRR with trap policies, certificates of the cloud's authority, a Nave hub and a Nave spoke. Output: all register; each
/// of FRR's reaches the other and the Nave spoke, by the hub first and then directly, no ping lost; nothing of a Nave node is in the clear.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_trap_policies_register_and_reach_each_other_and_a_nave_spoke() {
    are_at_home(trapped);
}

/// The same of spokes whose nhrpd asks strongSwan for SAs itself, and waits for them (`tunnel protection vici`).
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn spokes_with_tunnel_protection_register_and_reach_each_other_and_a_nave_spoke() {
    are_at_home(|cloud, authority, number| {
        let mut guest = trapped(cloud, authority, number);
        if let Some(swan) = &mut guest.swan {
            swan.connections[0].trap = false;
            swan.pattern = swan.connections.first().cloned();
        }
        guest
    });
}

fn are_at_home(spoke: impl Fn(&Cloud, &Authority, u8) -> Guest) {
    let _turn = lock::take_turn().unwrap();
    let (mut cloud, authority) = cloud(&[13, 14]);
    let all = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    for index in [HUB, SPOKE1] {
        cloud.start_node(index).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let guests = [13, 14].map(|number| spoke(&cloud, &authority, number));
    let [left, right] = Vm::boot(&cloud, guests).unwrap();
    for vm in [&left, &right] {
        vm.wait_registered(&cloud.nodes[HUB], vm.nbma)
            .unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", vm.swan_log(), cloud.logs()));
    }
    let nave = &cloud.nodes[SPOKE1];
    meets(&cloud, &left, Some(&right), (right.lan, right.nbma));
    meets(&cloud, &right, None, (nave.host.address(), nave.nbma));
    // And from the Nave spoke, which knows nothing of this one yet.
    wait::until("a ping from the Nave spoke", Duration::from_secs(10), || {
        ensure!(cloud.pings(SPOKE1, left.lan)?, "no answer");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}\n{}", left.swan_log(), cloud.logs()));
    cloud.check_alive().unwrap();
    sealed(&cloud, &all.finish().unwrap());
}

/// Input: a spoke whose certificate is of the authority, but does not name the tunnel address that it has. Output: the hub does not register
/// it, and it reaches nothing.
#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn a_spoke_cannot_register_an_address_that_its_certificate_does_not_name() {
    let _turn = lock::take_turn().unwrap();
    let (mut cloud, authority) = cloud(&[13]);
    cloud.start_node(HUB).unwrap();
    let mut guest = trapped(&cloud, &authority, 13);
    let name = guest.name.clone();
    let own = authority.issue(&name, &[Ipv4Addr::new(10, 255, 0, 99).into()], KeyKind::P256).unwrap();
    let connections = guest.swan.take().unwrap().connections;
    let mut swan = Swan::believing(&authority).with(&name, &own);
    swan.connections = connections;
    guest.swan = Some(swan);
    let [vm] = Vm::boot(&cloud, [guest]).unwrap();
    wait::until_true("an IKE SA", Duration::from_secs(20), || {
        vm.swanctl("--list-sas").is_ok_and(|said| said.contains("INSTALLED"))
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.swan_log()));
    assert!(!vm.reaches(cloud.nodes[HUB].host.address()).unwrap());
    assert_eq!(cloud.nodes[HUB].entry_of(vm.tunnel).unwrap(), None);
    cloud.check_alive().unwrap();
}
