//! Protected tunnels in a cloud of conductors: what is programmed of static keys, and to which UDP ports peers are spoken.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use controlplane::conductor::Input;
use model::TableId;
use model::program::{Key, Object, Owner};
use model::report::Report;
use model::sa::{Encapsulation, Protection, SaMode, Spi};
use model::state::event::Happening;

const HUB: usize = 0;
const SPOKE1: usize = 1;

/// Hub with these peers, and both spokes, each protected too.
fn cloud(peers: &[(&str, u16, u32)], ports: [u16; 2]) -> Cloud {
    let to_hub = [("203.0.113.1", 4500, 50)];
    let mut cloud =
        Cloud::of(&[protected("hub", peers), protected("spoke1", &to_hub), protected("spoke2", &to_hub)]);
    for (n, port) in ports.into_iter().enumerate() {
        cloud.nodes[SPOKE1 + n].udp_port = port;
    }
    cloud.nodes[HUB].udp_port = 4500;
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(Duration::from_secs(5));
    cloud
}

fn port_to(cloud: &Cloud, next_hop: &str) -> Option<u16> {
    match cloud.nodes[HUB].dataplane.object(Owner::Nhrp, binding(next_hop)) {
        Some(Object::Binding(binding)) => Some(binding.port),
        _ => None,
    }
}

fn replicas(cloud: &Cloud) -> Vec<(String, u16)> {
    let keys = cloud.nodes[HUB].dataplane.program().into_keys();
    keys.filter_map(|(key, _)| match key {
        Key::Replica(_, nbma, port) => Some((nbma.to_string(), port)),
        _ => None,
    })
    .collect()
}

fn protection(remote: &str, port: u16) -> Protection {
    let profile = "lab".parse().unwrap();
    Protection { profile, table: TableId(0), local: nbma("203.0.113.1"), remote: nbma(remote), port }
}

/// Whether the hub's data plane has both SAs of a peer.
fn has_sas(cloud: &Cloud, n: u32, of: Protection) -> bool {
    let program = cloud.nodes[HUB].dataplane.program();
    let inbound = Key::InboundSa(Spi::new(0x1000 + n).unwrap());
    let is_inbound =
        matches!(program.get(&(inbound, Owner::Config)), Some(Object::InboundSa(sa)) if sa.protection == of);
    let is_outbound = program.values().any(|object| {
        matches!(object, Object::OutboundSa(sa) if sa.protection == of && sa.spi.value() == 0x2000 + n)
    });
    is_inbound && is_outbound
}

/// Input: a hub with a native and an encapsulated peer. Output: SAs, bindings, copies of multicast and NHRP's own packets go to the port
/// of each; in the clear nothing has one.
#[test]
fn a_peer_with_static_keys_is_spoken_to_at_its_port() {
    let cloud = cloud(&[("203.0.113.11", 0, 1), ("203.0.113.12", 1024, 2)], [0, 1024]);
    let hub = &cloud.nodes[HUB];
    assert!(hub.refusals().is_empty(), "{:?}", hub.refusals());
    assert!(has_sas(&cloud, 1, protection("203.0.113.11", 0)));
    assert!(has_sas(&cloud, 2, protection("203.0.113.12", 1024)));
    let tunnel = hub.dataplane.object(Owner::Config, Key::Tunnel(name("tunnel0")));
    assert!(matches!(tunnel, Some(Object::Tunnel(t)) if t.protection == Some("lab".parse().unwrap())));
    assert_eq!((port_to(&cloud, "10.255.0.11"), port_to(&cloud, "10.255.0.12")), (Some(0), Some(1024)));
    assert_eq!(replicas(&cloud), [("203.0.113.11".to_owned(), 0), ("203.0.113.12".to_owned(), 1024)]);
    assert!(hub.sent_to.contains(&(nbma("203.0.113.12"), 1024)));
    assert!(hub.sent_to.iter().all(|(to, port)| *port == if *to == nbma("203.0.113.12") { 1024 } else { 0 }));

    let clear = Cloud::phase(3);
    let ports = clear.nodes[HUB].dataplane.program().into_values().filter_map(|object| match object {
        Object::Binding(binding) => Some(binding.port),
        Object::Replica(replica) => Some(replica.port),
        _ => None,
    });
    assert!(ports.into_iter().all(|port| port == 0) && clear.nodes[HUB].sent_to.iter().all(|to| to.1 == 0));
}

/// Input: two entries of one address. Output: which of them a client is, its packets say.
#[test]
fn of_two_peers_at_one_address_packets_say_the_port() {
    let peers = [("203.0.113.11", 0, 1), ("203.0.113.12", 1024, 2), ("203.0.113.12", 1025, 3)];
    let cloud = cloud(&peers, [0, 1025]);
    assert_eq!(port_to(&cloud, "10.255.0.12"), Some(1025));
    assert!(replicas(&cloud).contains(&("203.0.113.12".to_owned(), 1025)));
}

/// Input: the operator writes another port, and takes protection away and back. Output: what NHRP has is programmed to what holds then.
#[test]
fn what_nhrp_has_follows_the_ports_of_the_configuration() {
    let peers = |port| [("203.0.113.11", 0, 1), ("203.0.113.12", port, 2)];
    let mut cloud = cloud(&peers(1024), [0, 1024]);
    cloud.apply(HUB, &protected("hub", &peers(1030))).unwrap();
    cloud.run(Duration::from_millis(500));
    assert_eq!(port_to(&cloud, "10.255.0.12"), Some(1030));
    assert_eq!(replicas(&cloud), [("203.0.113.11".to_owned(), 0), ("203.0.113.12".to_owned(), 1030)]);
    assert!(has_sas(&cloud, 2, protection("203.0.113.12", 1030)));
    assert!(!has_sas(&cloud, 2, protection("203.0.113.12", 1024)));
    cloud.apply(HUB, &example(3, "hub")).unwrap();
    cloud.run(Duration::from_millis(500));
    assert_eq!(port_to(&cloud, "10.255.0.12"), Some(0));
    assert_eq!(replicas(&cloud), [("203.0.113.11".to_owned(), 0), ("203.0.113.12".to_owned(), 0)]);
    let program = cloud.nodes[HUB].dataplane.program();
    assert!(!program.keys().any(|(key, _)| matches!(key, Key::InboundSa(_) | Key::OutboundSa(..))));
    cloud.apply(HUB, &protected("hub", &peers(1024))).unwrap();
    cloud.run(Duration::from_millis(500));
    assert_eq!(port_to(&cloud, "10.255.0.12"), Some(1024));
    assert_eq!(replicas(&cloud), [("203.0.113.11".to_owned(), 0), ("203.0.113.12".to_owned(), 1024)]);
    // The client leaves, and takes all of it along.
    cloud.give(2, Input::Kernel(controlplane::kernel::Notice::Synced));
    let mut out = Vec::new();
    let now = cloud.now;
    cloud.nodes[2].conductor.stop(now, &mut out);
    cloud.carry_out(2, out);
    cloud.run(Duration::from_secs(1));
    assert_eq!((port_to(&cloud, "10.255.0.12"), replicas(&cloud).len()), (None, 1));
}

/// Input: the data plane says that a peer's NAT gave it another port, and then another address. Output: its SAs are those of the new
/// place, with other sequence numbers, and packets to it go to its port; the file counts again when the entry changes.
#[test]
fn a_peer_that_moves_takes_its_sas_along() {
    let peers = [("203.0.113.11", 0, 1), ("203.0.113.12", 1024, 2)];
    let mut cloud = cloud(&peers, [0, 1024]);
    let moved = |cloud: &mut Cloud, n: u32, to: &str, port| {
        let spi = Spi::new(0x1000 + n).unwrap();
        cloud.give(HUB, Input::Report(Report::SaMoved { spi, nbma: nbma(to), port }));
        cloud.run(Duration::from_millis(100));
    };
    let lease = |cloud: &Cloud| {
        let program = cloud.nodes[HUB].dataplane.program();
        let mut sas = program.into_values().filter_map(|object| match object {
            Object::OutboundSa(sa) if sa.spi.value() == 0x2002 => Some(sa.lease.first),
            _ => None,
        });
        (sas.next(), sas.next())
    };
    let first = lease(&cloud);
    moved(&mut cloud, 2, "203.0.113.12", 2048);
    assert!(has_sas(&cloud, 2, protection("203.0.113.12", 2048)));
    assert!(!has_sas(&cloud, 2, protection("203.0.113.12", 1024)));
    assert_eq!(port_to(&cloud, "10.255.0.12"), Some(2048));
    assert_eq!(lease(&cloud), (first.0.map(|at| at + (1 << 22)), None));
    moved(&mut cloud, 2, "203.0.113.77", 2049);
    assert!(has_sas(&cloud, 2, protection("203.0.113.77", 2049)));
    // NHRP has said nothing of another address.
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.12").map(|b| b.0), Some(nbma("203.0.113.12")));
    let events = cloud.nodes[HUB].events.iter().filter_map(|event| match event {
        Happening::SaMoved { protection, from, from_port, .. } => {
            Some((*from, *from_port, protection.remote, protection.port))
        }
        _ => None,
    });
    let (old, new) = (nbma("203.0.113.12"), nbma("203.0.113.77"));
    assert_eq!(events.collect::<Vec<_>>(), [(old, 1024, old, 2048), (old, 2048, new, 2049)]);
    // A native peer does not move, nor one to where another is.
    moved(&mut cloud, 1, "203.0.113.99", 4500);
    assert!(has_sas(&cloud, 1, protection("203.0.113.11", 0)));
    cloud.apply(HUB, &protected("hub", &[peers[0], ("203.0.113.12", 1040, 2)])).unwrap();
    cloud.run(Duration::from_millis(100));
    assert!(has_sas(&cloud, 2, protection("203.0.113.12", 1040)));
}

/// Input: two SPIs of one slot, of which one takes the place of the other. Output: the old one goes before the new one comes.
#[test]
fn an_inbound_sa_makes_room_for_another_one_in_its_slot() {
    let mut cloud = cloud(&[("203.0.113.11", 0, 1)], [0, 0]);
    let text = protected("hub", &[("203.0.113.11", 0, 1)]).replace("spi = 4097", "spi = 0x55001001");
    cloud.nodes[HUB].dataplane.removed.clear();
    cloud.apply(HUB, &text).unwrap();
    cloud.run(Duration::from_millis(100));
    let (old, new) = (Spi::new(0x1001).unwrap(), Spi::new(0x5500_1001).unwrap());
    assert!(cloud.nodes[HUB].dataplane.object(Owner::Config, Key::InboundSa(new)).is_some());
    assert_eq!(cloud.nodes[HUB].dataplane.object(Owner::Config, Key::InboundSa(old)), None);
    assert!(cloud.nodes[HUB].refusals().is_empty(), "{:?}", cloud.nodes[HUB].refusals());
}

/// Input: what a router says of the path to a protected peer. Output: it is learnt if the largest packet with ESP around it does not fit.
#[test]
fn a_path_says_something_where_it_takes_less_than_esp_around_the_largest_packet() {
    let mut cloud = cloud(&[("203.0.113.11", 0, 1)], [0, 0]);
    let tunnel = cloud.nodes[HUB].dataplane.object(Owner::Config, Key::Tunnel(name("tunnel0"))).cloned();
    let Some(Object::Tunnel(tunnel)) = tunnel else { panic!() };
    let around = Encapsulation { mode: SaMode::Transport, is_ipv6: false, is_udp: true };
    let largest = around.packet_len(usize::from(tunnel.mtu) + 8) as u16;
    assert!(tunnel.key.is_some() && largest > tunnel.mtu + 28);
    let mut learns = |mtu| {
        let peer = nbma("203.0.113.11");
        cloud.give(HUB, Input::Report(Report::PathMtu { tunnel: tunnel.name, nbma: peer, mtu }));
        cloud.nodes[HUB].dataplane.object(Owner::Nhrp, Key::PathMtu(tunnel.name, peer)).is_some()
    };
    assert!(!learns(largest));
    assert!(learns(largest - 1));
}
