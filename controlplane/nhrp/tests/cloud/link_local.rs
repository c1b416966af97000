//! IPv6 overlays: the link-local address is registered beside the global one, and found.

use model::config::{Nhs, NhsNbma, NhsProtocol};
use model::state::nhs::ServerState;
use model::{Prefix, ProtocolAddr};
use nhrp::Input;
use wire::nhrp::{Body, MessageType};

use crate::net::*;

fn global(node: usize) -> ProtocolAddr {
    format!("fd00::{}", node + 1).parse().unwrap()
}

fn link_local(node: usize) -> ProtocolAddr {
    format!("fe80::{}", node + 1).parse().unwrap()
}

/// A hub and two spokes of both families.
fn cloud() -> Net {
    let mut net = Net::idle(2, &Setup::default());
    for node in 0..3 {
        let n = &mut net.nodes[node];
        for address in [global(node), link_local(node)] {
            n.tunnel.addresses.push(format!("{address}/64").parse().unwrap());
            n.rib.0.insert(Prefix::host(address.0), Lead::Local);
        }
        n.rib.0.insert(prefix("fd00::/64"), Lead::Attached);
        if node > 0 {
            n.tunnel.nhrp.nhs.push(Nhs::new(global(0), nbma(0)));
        }
    }
    net
}

fn rejects(net: &Net) -> u64 {
    net.nodes.iter().flat_map(|n| n.engine.traffic().rejects).map(|r| r.count).sum()
}

#[test]
fn the_link_local_address_is_registered_beside_the_global_one() {
    let mut net = cloud();
    net.start_all();
    net.run(seconds(1));
    for spoke in [1, 2] {
        for address in [overlay(spoke), global(spoke), link_local(spoke)] {
            assert_eq!(net.binding(0, address), Some(nbma(spoke)), "{address}");
        }
        let requests = net.messages(spoke, MessageType::RegistrationRequest);
        let sources: Vec<_> = requests.iter().map(|(_, _, m)| ProtocolAddr(m.source.unwrap())).collect();
        assert_eq!(sources, [overlay(spoke), global(spoke), link_local(spoke)]);
        // RFC 2332 §5.2.3: with U there is one entry; so each is a request of its own, to the same server.
        let ids = requests.iter().map(|(_, _, m)| match &m.body {
            Body::Exchange { request_id, entries, .. } => (*request_id, entries.len()),
            _ => panic!(),
        });
        let ids: std::collections::BTreeMap<_, _> = ids.collect();
        assert!(ids.len() == 3 && ids.values().all(|entries| *entries == 1));
        assert_eq!(requests[2].2.destination, Some(global(0).0));
    }
    // Both are refreshed, and end together.
    net.run(seconds(3000));
    assert_eq!(net.binding(0, link_local(1)), Some(nbma(1)));
    net.give(1, Input::Shutdown);
    net.run(millis(50));
    for address in [overlay(1), global(1), link_local(1)] {
        assert_eq!(net.binding(0, address), None, "{address}");
    }
    assert_eq!(rejects(&net), 0);
}

/// A routing protocol names link-local next hops: those of other spokes, and the hub's.
#[test]
fn a_link_local_next_hop_is_found_by_the_server() {
    let mut net = cloud();
    net.start_all();
    net.run(seconds(1));
    for (node, at) in [(2, nbma(2)), (0, nbma(0))] {
        net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: link_local(node) });
        net.run(millis(100));
        assert_eq!(net.binding(1, link_local(node)), Some(at));
    }
    // No route leads to one, and none is made.
    assert_eq!((net.routes(1), rejects(&net)), (vec![], 0));
    // Nobody knows this one; what is asked for is the binding of a host on the tunnel, whatever the routes say.
    net.nodes[0].rib.0.insert(prefix("::/0"), Lead::Lan);
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: "fe80::99".parse().unwrap() });
    net.run(millis(100));
    assert_eq!(net.binding(1, "fe80::99".parse().unwrap()), None);
}

#[test]
fn a_server_is_up_by_the_global_address_whatever_becomes_of_the_link_local_one() {
    let mut net = cloud();
    // Two spokes have one link-local address: the hub keeps it for the first.
    net.nodes[2].tunnel.addresses[2] = net.nodes[1].tunnel.addresses[2];
    net.start(0);
    net.start(1);
    net.run(seconds(1));
    net.start(2);
    net.run(seconds(300));
    assert_eq!((net.binding(0, link_local(1)), net.binding(0, global(2))), (Some(nbma(1)), Some(nbma(2))));
    let servers = net.nodes[2].engine.servers(net.now);
    assert!(servers.iter().all(|s| s.state == ServerState::Responding), "{servers:?}");
    let tries = net.messages(2, MessageType::RegistrationRequest);
    let tries: Vec<_> =
        tries.iter().filter(|(_, _, m)| m.source == Some(link_local(1).0)).map(|t| t.0).collect();
    assert!((6..=9).contains(&tries.len()), "it is asked on, with back-off: {tries:?}");
    // Its own: registered, and the old one is not touched, which was never its.
    net.nodes[2].tunnel.addresses[2] = format!("{}/64", link_local(2)).parse().unwrap();
    net.start(2);
    net.run(millis(100));
    assert_eq!(
        (net.binding(0, link_local(1)), net.binding(0, link_local(2))),
        (Some(nbma(1)), Some(nbma(2)))
    );
    // And another one: the old one goes.
    net.nodes[2].tunnel.addresses[2] = "fe80::77/64".parse().unwrap();
    net.start(2);
    net.run(millis(100));
    assert_eq!(
        (net.binding(0, link_local(2)), net.binding(0, "fe80::77".parse().unwrap())),
        (None, Some(nbma(2)))
    );
}

/// A tunnel with host addresses only, but for the link-local one: peers have host routes, and only the servers in use.
#[test]
fn peers_of_host_addresses_have_host_routes_and_link_local_ones_have_none() {
    let mut net = Net::idle_with_hubs(2, 1, &Setup { holding: 60, ..Setup::default() });
    for node in 0..3 {
        let addresses = [format!("{}/128", global(node)), format!("{}/64", link_local(node))];
        net.nodes[node].tunnel.addresses = addresses.map(|a| a.parse().unwrap()).into();
    }
    let nhrp = &mut net.nodes[2].tunnel.nhrp;
    nhrp.nhs = [0, 1].map(|hub| Nhs { priority: hub as u8, ..Nhs::new(global(hub), nbma(hub)) }).into();
    nhrp.clusters = vec![model::config::Cluster { id: 0, max_connections: 1 }];
    net.start_all();
    net.run(seconds(5));
    assert_eq!(net.binding(0, link_local(2)), Some(nbma(2)));
    let host = |node: usize| Prefix::host(global(node).0);
    assert_eq!((net.routes(0), net.routes(2)), (vec![host(2)], vec![host(0)]));
    net.kill(0);
    net.run(seconds(60));
    assert_eq!(net.routes(2), [host(1)], "traffic leaves a server that fell silent");
}

#[test]
fn a_new_nbma_address_and_a_restart_are_of_both_addresses() {
    let mut net = cloud();
    net.start_all();
    net.run(seconds(1));
    net.nodes[1].tunnel.nbma = Some(nbma(21));
    net.start(1);
    net.run(millis(100));
    assert_eq!((net.binding(0, global(1)), net.binding(0, link_local(1))), (Some(nbma(21)), Some(nbma(21))));
    net.nodes[1].tunnel.nbma = Some(nbma(31));
    net.restart(1);
    net.run(millis(200));
    assert_eq!((net.binding(0, global(1)), net.binding(0, link_local(1))), (Some(nbma(31)), Some(nbma(31))));
}

/// Servers of both families behind one name are looked up together; each says its own address.
#[test]
fn dynamic_servers_of_both_families_behind_one_name() {
    let mut net = cloud();
    let server =
        |protocol| Nhs { protocol, nbma: NhsNbma::Name("hub.example.net".into()), priority: 0, cluster: 0 };
    net.names.insert("hub.example.net".into(), vec![nbma(0)]);
    net.nodes[1].tunnel.nhrp.nhs = vec![server(NhsProtocol::Dynamic), server(NhsProtocol::DynamicIpv6)];
    net.start_all();
    net.run(seconds(1));
    assert_eq!(net.looked_up.len(), 1);
    let servers = net.nodes[1].engine.servers(net.now);
    assert_eq!(servers.iter().map(|s| s.protocol).collect::<Vec<_>>(), [Some(overlay(0)), Some(global(0))]);
    for address in [overlay(1), global(1), link_local(1)] {
        assert_eq!(net.binding(0, address), Some(nbma(1)), "{address}");
    }
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: link_local(2) });
    net.run(millis(100));
    assert_eq!(net.binding(1, link_local(2)), Some(nbma(2)));
}
