//! IPv4 and IPv6, over and under: all four.

use std::collections::BTreeMap;

use model::config::{MapMulticast, Nhrp, Nhs, NhsNbma};
use model::program::{Hop, Object, TunnelMode};
use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Engine, Found, Input, Routes, To, Tunnel};
use wire::nhrp::{Family, MessageType};

use crate::net::{
    Lead, Net, Rib, Setup, host, lan, millis, name, nbma, overlay, prefix, seconds, tunnel, tunnel0,
};

/// One attached prefix.
struct Attached(Prefix);

impl Routes for Attached {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let to = To::Tunnel(Hop { interface: tunnel0(), next_hop: addr.0 });
        self.0.contains(addr.0).then_some(Found { prefix: self.0, to })
    }
    fn is_split(&self, _: TableId, _: Prefix, _: &To) -> bool {
        false
    }
}

/// A hub and two spokes; the bindings that each has in the end.
fn run(overlays: [&str; 3], nbmas: [&str; 3], subnet: &str) -> Vec<BTreeMap<ProtocolAddr, NbmaAddr>> {
    let overlays = overlays.map(|t| t.parse::<ProtocolAddr>().unwrap());
    let nbmas = nbmas.map(|t| t.parse::<NbmaAddr>().unwrap());
    let routes = Attached(subnet.parse().unwrap());
    let tunnel = |node: usize| Tunnel {
        name: tunnel0(),
        mode: TunnelMode::Multipoint,
        nbma: Some(nbmas[node]),
        addresses: vec![format!("{}/{}", overlays[node], routes.0.length()).parse().unwrap()],
        mtu: 1400,
        table: TableId(0),
        nhrp: Nhrp {
            network_id: 1,
            authentication: Some("secret".into()),
            holding_time: HoldingTime(600),
            nhs: (node > 0).then_some(Nhs::new(overlays[0], nbmas[0])).into_iter().collect(),
            map: vec![],
            map_multicast: vec![MapMulticast::Dynamic],
            redirect: true,
            shortcut: true,
            ..Nhrp::new(1)
        },
    };
    let mut engines: Vec<_> = (0..3).map(|n| Engine::new(Default::default(), n, None)).collect();
    let mut bindings = vec![BTreeMap::new(); 3];
    let mut now = Instant::default();
    let mut inputs: Vec<_> = (0..3).map(|n| (n, Input::Configure(vec![tunnel(n)]))).collect();
    let mut has_gleaned = false;
    while !inputs.is_empty() {
        now = now + millis(1);
        let mut next = Vec::new();
        for (node, input) in inputs {
            let mut actions = Vec::new();
            engines[node].handle(now, input, &routes, &mut actions);
            for action in actions {
                match action {
                    Action::Send { tunnel, to, bytes, .. } => {
                        let peer = nbmas.iter().position(|n| *n == to).unwrap();
                        let source = nbmas[node];
                        next.push((
                            peer,
                            Input::Packet { tunnel, from: source.into(), destination: to, bytes },
                        ));
                    }
                    Action::Put(Object::Binding(b)) => {
                        bindings[node].insert(b.next_hop, b.nbma);
                    }
                    _ => {}
                }
            }
        }
        if next.is_empty() && !has_gleaned {
            has_gleaned = true;
            next.push((1, Input::Glean { tunnel: tunnel0(), next_hop: overlays[2] }));
        }
        inputs = next;
    }
    for engine in &engines {
        assert_eq!(engine.traffic().rejects.iter().map(|r| r.count).sum::<u64>(), 0);
    }
    bindings
}

#[test]
fn all_four_pairs_of_families() {
    let v4 = ["172.16.0.1", "172.16.0.2", "172.16.0.3"];
    let v6 = ["fd00::1", "fd00::2", "fd00::3"];
    let under4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let under6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"];
    for (over, subnet) in [(v4, "172.16.0.0/24"), (v6, "fd00::/64")] {
        for under in [under4, under6] {
            let bindings = run(over, under, subnet);
            let pair = |n: usize| (over[n].parse().unwrap(), under[n].parse().unwrap());
            assert_eq!(bindings[0], BTreeMap::from([pair(1), pair(2)]), "{over:?} {under:?}");
            assert_eq!(bindings[1], BTreeMap::from([pair(0), pair(2)]));
            assert_eq!(bindings[2], BTreeMap::from([pair(0), pair(1)]));
        }
    }
}

fn overlay6(node: usize) -> ProtocolAddr {
    format!("fd00::{}", node + 1).parse().unwrap()
}

fn nbma6(node: usize) -> NbmaAddr {
    format!("2001:db8:ffff::{}", node + 1).parse().unwrap()
}

fn host6(node: usize, host: u8) -> ProtocolAddr {
    format!("2001:db8:{node}::{host}").parse().unwrap()
}

fn lan6(node: usize) -> Prefix {
    Prefix::new(host6(node, 0).0, 64).unwrap()
}

/// Gives a node of a cloud a second family, in the same tunnel and with the same server.
fn add_ipv6(net: &mut Net, node: usize) {
    let spokes = net.nodes.len() - 1;
    let n = &mut net.nodes[node];
    let server = n.tunnel.nhrp.nhs.first().and_then(|nhs| nhs.nbma.addr());
    n.tunnel.addresses.push(format!("{}/64", overlay6(node)).parse().unwrap());
    n.tunnel.nhrp.nhs.extend(server.map(|nbma| Nhs::new(overlay6(0), nbma)));
    n.rib.0.insert(Prefix::host(overlay6(node).0), Lead::Local);
    n.rib.0.insert(prefix("fd00::/64"), Lead::Attached);
    if node == 0 {
        n.rib.0.extend((1..=spokes).map(|spoke| (lan6(spoke), Lead::Via(overlay6(spoke)))));
    } else {
        n.rib.0.insert(prefix("::/0"), Lead::Via(overlay6(0)));
        n.rib.0.insert(lan6(node), Lead::Lan);
        n.rib.0.insert(Prefix::host(host6(node, 1).0), Lead::Local);
    }
}

/// A phase 3 cloud of both families in one tunnel, over IPv4 or IPv6.
fn dual_stack(spokes: usize, is_over_ipv6: bool) -> Net {
    let mut net = Net::idle(spokes, &Setup::default());
    for node in 0..=spokes {
        if is_over_ipv6 {
            let tunnel = &mut net.nodes[node].tunnel;
            tunnel.nbma = Some(nbma6(node));
            for nhs in &mut tunnel.nhrp.nhs {
                nhs.nbma = NhsNbma::Addr(nbma6(0));
            }
            if node > 0 {
                tunnel.nhrp.map_multicast = vec![MapMulticast::Nbma(nbma6(0))];
            }
        }
        add_ipv6(&mut net, node);
        net.start(node);
    }
    net
}

#[test]
fn a_tunnel_of_both_families_registers_resolves_and_takes_shortcuts_in_both() {
    for is_over_ipv6 in [false, true] {
        let mut net = dual_stack(2, is_over_ipv6);
        net.run(seconds(1));
        let at = |node| if is_over_ipv6 { nbma6(node) } else { nbma(node) };
        for spoke in [1, 2] {
            assert_eq!(net.binding(0, overlay(spoke)), Some(at(spoke)));
            assert_eq!(net.binding(0, overlay6(spoke)), Some(at(spoke)));
            let requests = net.messages(spoke, MessageType::RegistrationRequest);
            let families: Vec<_> = requests.iter().map(|(_, _, m)| m.families.protocol).collect();
            assert_eq!(families, [Family::V4, Family::V6], "each with the server of its family");
            assert!(net.nodes[spoke].engine.servers(net.now).iter().all(|s| s.replies == 1));
        }
        // One copy of what is multicast for a node, not one for each of its addresses.
        let replicas = net.nodes[0].program.keys().filter(|k| matches!(k, model::program::Key::Replica(..)));
        assert_eq!(replicas.count(), 2);

        for (from, to) in [(host(1, 9), host(2, 9)), (host6(1, 9), host6(2, 9))] {
            assert_eq!(net.packet(1, from, to), Some(vec![1, 0, 2]));
            assert_eq!(net.packet(2, to, from), Some(vec![2, 0, 1]));
        }
        net.run(millis(50));
        for (from, to) in [(host(1, 9), host(2, 9)), (host6(1, 9), host6(2, 9))] {
            assert_eq!(net.packet(1, from, to), Some(vec![1, 2]), "{from} over {}", at(1));
            assert_eq!(net.packet(2, to, from), Some(vec![2, 1]));
        }
        assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
        assert_eq!(net.route(1, lan6(2)), Some(overlay6(2)));
        assert_eq!(net.binding(1, overlay6(2)), Some(at(2)));
        // Phase 2 in IPv6: a next hop in the tunnel's own prefix.
        assert_eq!(net.packet(1, overlay6(1), overlay6(2)), Some(vec![1, 2]));
        net.run(seconds(1300));
        assert_eq!(net.routes(1), [], "both end with their holding times");
        assert_eq!(net.binding(0, overlay6(1)), Some(at(1)), "registrations do not");
        for node in 0..3 {
            let traffic = net.nodes[node].engine.traffic();
            assert_eq!(traffic.rejects.iter().map(|r| r.count).sum::<u64>(), 0, "{:?}", traffic.rejects);
        }
    }
}

#[test]
fn a_second_family_comes_to_a_running_tunnel_and_disturbs_nothing() {
    let mut net = Net::new(2, &Setup::default());
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(50));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    for node in 0..3 {
        add_ipv6(&mut net, node);
        net.start(node);
    }
    net.run(millis(50));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)), "the shortcut of the other family stays");
    assert_eq!(net.messages(1, MessageType::PurgeRequest).len(), 0);
    assert_eq!(net.binding(0, overlay6(1)), Some(nbma(1)));
    // Without the address it is another tunnel: the servers hear that it went.
    let first = net.nodes[1].tunnel.addresses.remove(1);
    net.start(1);
    net.run(millis(50));
    assert_eq!(net.binding(0, overlay6(1)), None, "{first}");
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)), "it registered again");
}

#[test]
fn what_was_learnt_of_an_underlay_of_the_other_family_is_not_kept() {
    for is_without_for_a_while in [false, true] {
        let mut net = Net::new(1, &Setup::default());
        net.run(seconds(1));
        assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
        let tunnel = &mut net.nodes[0].tunnel;
        let without = nhrp::Tunnel { nbma: None, ..tunnel.clone() };
        tunnel.nbma = Some(nbma6(0));
        if is_without_for_a_while {
            net.give(0, Input::Configure(vec![without]));
        }
        net.start(0);
        assert_eq!(net.binding(0, overlay(1)), None, "{is_without_for_a_while}");
    }
}

#[test]
fn an_address_is_asked_for_where_its_family_is_registered() {
    let mut net = Net::idle(2, &Setup::default());
    for node in 0..3 {
        add_ipv6(&mut net, node);
    }
    // Node 2 is the server of IPv6.
    net.nodes[1].tunnel.nhrp.nhs[1] = Nhs::new(overlay6(2), nbma(2));
    net.nodes[2].tunnel.nhrp.nhs.clear();
    for node in 0..3 {
        net.start(node);
    }
    net.run(seconds(1));
    assert_eq!((net.binding(0, overlay6(1)), net.binding(2, overlay6(1))), (None, Some(nbma(1))));
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay6(9) });
    net.give(1, Input::Glean { tunnel: tunnel0(), next_hop: overlay(9) });
    let asked = net.messages(1, MessageType::ResolutionRequest);
    let asked: Vec<_> = asked.iter().map(|(_, to, m)| (*to, m.destination.unwrap())).collect();
    assert_eq!(asked, [(nbma(2), overlay6(9).0), (nbma(0), overlay(9).0)]);
}

/// Two clouds in two tables of one hub: each has addresses that in the other are somebody else's.
struct TwoTables([Rib; 2]);

impl Routes for TwoTables {
    fn lookup(&self, table: TableId, addr: ProtocolAddr) -> Option<Found> {
        let rib = &self.0[table.0 as usize];
        let mut found = Routes::lookup(rib, table, addr)?;
        if let To::Tunnel(hop) = &mut found.to {
            hop.interface = name(&format!("tunnel{}", table.0));
        }
        Some(found)
    }
    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool {
        Routes::is_split(&self.0[table.0 as usize], table, prefix, to)
    }
}

#[test]
fn an_own_address_in_one_table_is_anybodys_in_another() {
    // The hub is 172.16.0.1 in table 0 and 172.16.0.2 in table 1, where 172.16.0.1 is a spoke; and the other way round.
    let ribs = [0, 1].map(|table: usize| {
        let own = (Prefix::host(overlay(table).0), Lead::Local);
        Rib(BTreeMap::from([(prefix("172.16.0.0/16"), Lead::Attached), own]))
    });
    let routes = TwoTables(ribs);
    let of_table = |table: u32| Tunnel {
        name: name(&format!("tunnel{table}")),
        addresses: vec![format!("{}/16", overlay(table as usize)).parse().unwrap()],
        table: TableId(table),
        ..tunnel(0, &Setup::default())
    };
    let mut hub = Engine::new(Instant::default(), 7, None);
    let now = Instant::default() + seconds(1);
    let mut actions = Vec::new();
    hub.handle(now, Input::Configure(vec![of_table(0), of_table(1)]), &routes, &mut actions);
    for table in [0, 1] {
        let spoke = 1 - table as usize;
        let mut net = Net::idle(1, &Setup::default());
        let tunnel = &mut net.nodes[1].tunnel;
        tunnel.nbma = Some(nbma(40 + spoke));
        tunnel.addresses = vec![format!("{}/16", overlay(spoke)).parse().unwrap()];
        tunnel.nhrp.nhs = vec![Nhs::new(overlay(table as usize), nbma(0))];
        net.start(1);
        let (_, _, bytes) = net.nodes[1].sent.pop().unwrap();
        let tunnel = of_table(table).name;
        let packet = Input::Packet { tunnel, from: nbma(40 + spoke).into(), destination: nbma(0), bytes };
        actions.clear();
        hub.handle(now, packet, &routes, &mut actions);
        let is_bound = |a: &Action| {
            matches!(a, Action::Put(Object::Binding(b))
                if b.tunnel == tunnel && b.next_hop == overlay(spoke) && b.nbma == nbma(40 + spoke))
        };
        assert!(actions.iter().any(is_bound), "{actions:?}");
        assert!(actions.iter().any(|a| matches!(a, Action::Send { tunnel: by, .. } if *by == tunnel)));
    }
}
