//! The conductor on a virtual clock: both families in one tunnel, over either; several tables; several ways of equal cost; and
//! what the paths to peers take.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use controlplane::conductor::Input;
use controlplane::kernel::{Notice, Order};
use model::program::{Hop, Key, Object, Owner, Path, PathMtu, Route};
use model::report::Report;
use model::state::dmvpn::PeerState;
use model::state::event::Happening;
use model::state::{State, What};
use model::{InterfaceName, Prefix, TableId};

const HUB: usize = 0;
const SPOKE1: usize = 1;
const SPOKE2: usize = 2;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Where a node is in the underlay: node 1 is the hub.
fn at(node: u8, is_ipv6: bool) -> String {
    if is_ipv6 { format!("2001:db9::{node}") } else { format!("203.0.113.{node}") }
}

/// A phase 3 cloud of both families: the hub is node 1, the spokes 11 and 12.
fn dual_stack(is_over_ipv6: bool) -> Cloud {
    let length = if is_over_ipv6 { 64 } else { 24 };
    let node = |n: u8, nhrp: &str, routes: &str| {
        format!(
            "[[interfaces]]\nname = \"wan\"\naddresses = [\"{wan}/{length}\"]\n\
             [[interfaces]]\nname = \"lan\"\naddresses = [\"192.168.{n}.1/24\", \"2001:db8:{n}::1/64\"]\n{routes}\
             [[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\nkey = 42\n\
             addresses = [\"10.255.0.{n}/24\", \"fd00::{n}/64\"]\n[tunnels.nhrp]\nnetwork_id = 1\n{nhrp}",
            wan = at(n, is_over_ipv6),
        )
    };
    let hub = at(1, is_over_ipv6);
    let route =
        |prefix: &str, hop: &str| format!("[[routes]]\nprefix = \"{prefix}\"\nnext_hop = \"{hop}\"\n");
    let to_spokes: String = [11, 12]
        .map(|n| {
            route(&format!("192.168.{n}.0/24"), &format!("10.255.0.{n}"))
                + &route(&format!("2001:db8:{n}::/64"), &format!("fd00::{n}"))
        })
        .concat();
    let to_hub = route("192.168.0.0/16", "10.255.0.1") + &route("2001:db8::/32", "fd00::1");
    let server = format!(
        "shortcut = true\nmap_multicast = [\"{hub}\"]\nnhs = [{{ protocol = \"10.255.0.1\", nbma = \"{hub}\" }}, \
         {{ protocol = \"fd00::1\", nbma = \"{hub}\" }}]\n"
    );
    let mut cloud = Cloud::of(&[
        node(1, "redirect = true\nmap_multicast = [\"dynamic\"]\n", &to_spokes),
        node(11, &server, &to_hub),
        node(12, &server, &to_hub),
    ]);
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    cloud
}

#[test]
fn a_redirect_in_either_family_makes_a_shortcut_of_that_family_over_either() {
    for is_over_ipv6 in [false, true] {
        let mut cloud = dual_stack(is_over_ipv6);
        let bound = |n: u8| {
            let nbma = at(n, is_over_ipv6);
            Some((nbma.parse().unwrap(), Some(hop("wan", &nbma))))
        };
        for (protocol, n) in [("10.255.0.11", 11), ("fd00::11", 11), ("10.255.0.12", 12), ("fd00::12", 12)] {
            assert_eq!(cloud.nodes[HUB].dataplane.bound(protocol), bound(n));
        }
        let spoke = &cloud.nodes[SPOKE1].dataplane;
        assert_eq!(spoke.way("2001:db8::/32"), Some(Path::Via(hop("tunnel0", "fd00::1"))));
        assert_eq!(spoke.way("2001:db8:11::1/128"), Some(Path::Receive(name("lan"))));
        let fallbacks =
            spoke.program().into_keys().filter(|(key, _)| matches!(key, Key::Fallback(_))).count();
        assert_eq!(fallbacks, 1, "one way for both families");

        cloud.redirect(&at(11, is_over_ipv6), "2001:db8:11::9", "2001:db8:12::9");
        cloud.run(seconds(1));
        let spoke = &cloud.nodes[SPOKE1].dataplane;
        assert_eq!(spoke.way("2001:db8:12::/64"), Some(Path::Via(hop("tunnel0", "fd00::12"))));
        assert_eq!(spoke.bound("fd00::12"), bound(12));
        assert_eq!(spoke.way("192.168.12.0/24"), None, "nobody asked for that");
        cloud.redirect(&at(11, is_over_ipv6), "192.168.11.9", "192.168.12.9");
        cloud.run(seconds(1));
        let spoke = &cloud.nodes[SPOKE1];
        assert_eq!(spoke.dataplane.way("192.168.12.0/24"), Some(Path::Via(hop("tunnel0", "10.255.0.12"))));
        for node in &cloud.nodes {
            assert!(node.refusals().is_empty(), "{:?}", node.refusals());
            assert!(!node.has_seen(|e| matches!(e, Happening::Rejected { .. })), "{:?}", node.events);
        }
        let State::Dmvpn(dmvpn) = spoke.conductor.show(cloud.now, What::Dmvpn) else { panic!() };
        for peer in ["10.255.0.1", "fd00::1", "10.255.0.12", "fd00::12"] {
            let shown = dmvpn.0[0].peers.iter().find(|p| p.protocol == protocol(peer)).unwrap();
            assert_eq!(shown.state, PeerState::Up, "{shown:?}");
        }

        // A new life sweeps nothing of it.
        let before = spoke.dataplane.program();
        cloud.restart(SPOKE1, seconds(2));
        cloud.run(seconds(5));
        assert_eq!(cloud.nodes[SPOKE1].dataplane.program(), before);
    }
}

#[test]
fn an_explanation_goes_from_the_address_to_the_neighbour() {
    let mut cloud = dual_stack(true);
    cloud.redirect(&at(11, true), "2001:db8:11::9", "2001:db8:12::9");
    cloud.run(seconds(1));
    let path_mtu = Report::PathMtu { tunnel: name("tunnel0"), nbma: nbma(&at(12, true)), mtu: 1300 };
    cloud.give(SPOKE1, Input::Report(path_mtu));
    let explain =
        |addr: &str| cloud.nodes[SPOKE1].conductor.explain(cloud.now, TableId(0), addr.parse().unwrap());

    let far = explain("2001:db8:12::77");
    let chosen = far.chosen().unwrap();
    assert_eq!((chosen.origin.as_str(), chosen.owner), ("shortcut", Owner::Nhrp));
    let others: Vec<_> = far.routes.iter().map(|r| (r.prefix.to_string(), r.chosen)).collect();
    assert_eq!(others, [("2001:db8:12::/64".to_owned(), true), ("2001:db8::/32".to_owned(), false)]);
    let peer = far.hops[0].peer.as_ref().unwrap();
    assert_eq!(far.hops[0].hop, hop("tunnel0", "fd00::12"));
    assert_eq!((peer.nbma, peer.link), (Some(nbma("2001:db9::12")), Some(hop("wan", "2001:db9::12"))));
    assert_eq!(peer.underlay.as_ref().unwrap().route.path, Path::Attached(name("wan")));
    assert!(peer.mac.is_some() && peer.entry.is_some() && peer.path_mtu == Some(1300), "{peer:?}");

    let near = explain("192.168.11.9");
    assert_eq!(near.chosen().unwrap().path, Some(Path::Attached(name("lan"))));
    assert_eq!((near.hops[0].hop, near.hops[0].mac), (hop("lan", "192.168.11.9"), None));
    let own = explain("10.255.0.11");
    assert_eq!(own.chosen().unwrap().why, "it is an address of this box");
    assert!(own.hops.is_empty());
    let unresolved = explain("10.255.0.99");
    let peer = unresolved.hops[0].peer.as_ref().unwrap();
    assert_eq!((peer.nbma, peer.fallback), (None, Some(protocol("10.255.0.1"))));
    assert!(unresolved.hops[0].why.contains("by way of the server 10.255.0.1"));
    assert!(explain("9.9.9.9").chosen().is_none());
    assert!(explain("9.9.9.9").to_string().starts_with("9.9.9.9 in table 0: no route\n"));
}

/// A hub of two clouds, each in a table of its own and with the same addresses, and a spoke of each.
fn two_tables() -> Cloud {
    let hub = "[[tables]]\nid = 10\nnetns = \"red\"\n[[tables]]\nid = 11\n\
        [[interfaces]]\nname = \"wan\"\naddresses = [\"203.0.113.1/24\"]\n\
        [[interfaces]]\nname = \"red\"\nport = \"lan\"\nvlan = 10\ntable = 10\naddresses = [\"192.168.1.1/24\"]\n\
        [[interfaces]]\nname = \"blue\"\nport = \"lan\"\nvlan = 11\ntable = 11\naddresses = [\"192.168.1.1/24\"]\n\
        [[routes]]\nprefix = \"172.16.0.0/16\"\nnext_hop = \"192.168.1.9\"\ntable = 10\n\
        [[routes]]\nprefix = \"172.16.0.0/16\"\nnext_hop = \"10.255.0.12\"\ntable = 11\n\
        [[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\nkey = 10\ntable = 10\n\
        addresses = [\"10.255.0.1/24\"]\nnhrp = { network_id = 10, redirect = true }\n\
        [[tunnels]]\nname = \"tunnel1\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\nkey = 11\ntable = 11\n\
        addresses = [\"10.255.0.2/24\"]\nnhrp = { network_id = 11, redirect = true }\n";
    // A spoke has the address that the hub has in the other table.
    let spoke = |n: u8, key: u8, own: u8, hub: u8| {
        format!(
            "[[interfaces]]\nname = \"wan\"\naddresses = [\"203.0.113.{n}/24\"]\n\
             [[interfaces]]\nname = \"lan\"\naddresses = [\"192.168.{n}.1/24\"]\n\
             [[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\nkey = {key}\n\
             addresses = [\"10.255.0.{own}/24\"]\n[tunnels.nhrp]\nnetwork_id = 1\n\
             nhs = [{{ protocol = \"10.255.0.{hub}\", nbma = \"203.0.113.1\" }}]\n"
        )
    };
    let mut cloud = Cloud::of(&[hub.to_owned(), spoke(11, 10, 2, 1), spoke(12, 11, 1, 2)]);
    for node in 0..3 {
        cloud.start(node);
    }
    cloud.run(seconds(5));
    cloud
}

fn learnt(table: u32, prefix: &str, path: Path) -> Input {
    let route = Route { table: TableId(table), prefix: prefix.parse().unwrap(), path, expires_in: None };
    Input::Kernel(Notice::Route { route, present: true })
}

#[test]
fn two_clouds_with_the_same_addresses_and_a_default_route_over_each_tunnel() {
    let mut cloud = two_tables();
    let path = |cloud: &Cloud, table: u32, prefix: &str| {
        let key = Key::Route(TableId(table), prefix.parse::<Prefix>().unwrap());
        [Owner::Config, Owner::Netlink].into_iter().find_map(|owner| {
            match cloud.nodes[HUB].dataplane.object(owner, key) {
                Some(Object::Route(route)) => Some(route.path.clone()),
                _ => None,
            }
        })
    };
    let link = |cloud: &Cloud, tunnel: &str, peer: &str| match cloud.nodes[HUB]
        .dataplane
        .object(Owner::Nhrp, Key::Binding(name(tunnel), protocol(peer)))
    {
        Some(Object::Binding(binding)) => binding.link,
        _ => None,
    };
    let is_whole = |cloud: &Cloud| {
        // What is our own address in one table is the spoke's in the other.
        assert_eq!(link(cloud, "tunnel0", "10.255.0.2"), Some(hop("wan", "203.0.113.11")));
        assert_eq!(link(cloud, "tunnel1", "10.255.0.1"), Some(hop("wan", "203.0.113.12")));
        for node in &cloud.nodes {
            assert!(node.refusals().is_empty(), "{:?}", node.refusals());
            assert!(!node.has_seen(|e| matches!(e, Happening::Rejected { .. })), "{:?}", node.events);
            assert!(!node.has_seen(|e| matches!(e, Happening::ServerDown { .. })), "{:?}", node.events);
        }
    };
    is_whole(&cloud);
    assert_eq!(path(&cloud, 10, "192.168.1.0/24"), Some(Path::Attached(name("red"))));
    assert_eq!(path(&cloud, 11, "192.168.1.0/24"), Some(Path::Attached(name("blue"))));
    assert_eq!(path(&cloud, 0, "192.168.1.0/24"), None);
    assert_eq!(path(&cloud, 10, "172.16.0.0/16"), Some(Path::Via(hop("red", "192.168.1.9"))));
    assert_eq!(path(&cloud, 11, "172.16.0.0/16"), Some(Path::Via(hop("tunnel1", "10.255.0.12"))));
    // Each static route goes to the namespace of its table, and so do the twins.
    let routes = cloud.nodes[HUB].orders.iter().rev().find_map(|order| match order {
        Order::Routes(routes) => Some(routes.iter().map(|r| r.table.0).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(routes, Some(vec![10, 11]));
    let netns = cloud.nodes[HUB].orders.iter().rev().find_map(|order| match order {
        Order::Twins(twins) => Some(twins.iter().map(|t| t.netns.clone()).collect::<Vec<_>>()),
        _ => None,
    });
    let (red, blue) = (Some("red".to_owned()), Some("nave-11".to_owned()));
    assert_eq!(netns, Some(vec![None, red.clone(), blue.clone(), red, blue]));

    // A default route over each tunnel, on the hub and on the spokes, where it is in the table of the underlay.
    cloud.give(HUB, learnt(10, "0.0.0.0/0", Path::Via(hop("tunnel0", "10.255.0.2"))));
    cloud.give(HUB, learnt(11, "0.0.0.0/0", Path::Via(hop("tunnel1", "10.255.0.1"))));
    cloud.give(SPOKE1, learnt(0, "0.0.0.0/0", Path::Via(hop("tunnel0", "10.255.0.1"))));
    cloud.give(SPOKE2, learnt(0, "203.0.113.0/25", Path::Via(hop("tunnel0", "10.255.0.2"))));
    cloud.run(seconds(1300));
    is_whole(&cloud);
    assert_eq!(path(&cloud, 10, "0.0.0.0/0"), Some(Path::Via(hop("tunnel0", "10.255.0.2"))));
    assert_eq!(path(&cloud, 11, "0.0.0.0/0"), Some(Path::Via(hop("tunnel1", "10.255.0.1"))));
    assert_eq!(path(&cloud, 0, "0.0.0.0/0"), None);
    let hub = Some((nbma("203.0.113.1"), Some(hop("wan", "203.0.113.1"))));
    assert_eq!(cloud.nodes[SPOKE1].dataplane.bound("10.255.0.1"), hub);
    assert_eq!(cloud.nodes[SPOKE2].dataplane.bound("10.255.0.2"), hub);

    // And all of that again after both sides were killed.
    let before = cloud.nodes[HUB].dataplane.program();
    cloud.restart(HUB, seconds(1));
    cloud.run(seconds(5));
    let after = cloud.nodes[HUB].dataplane.program();
    let lost: Vec<_> = before.keys().filter(|at| !after.contains_key(at)).collect();
    let learnt = |key: &Key| matches!(key, Key::Route(_, prefix) if prefix.is_default());
    assert!(lost.iter().all(|(key, _)| learnt(key)), "only what the kernel did not tell again: {lost:?}");
}

#[test]
fn static_routes_of_equal_cost_are_one_and_each_may_be_withdrawn() {
    let with = |routes: &[&str]| {
        let route = |hop: &&str| format!("[[routes]]\nprefix = \"172.16.0.0/16\"\nnext_hop = \"{hop}\"\n");
        let routes: String = routes.iter().map(route).collect();
        example(3, "spoke1") + &routes
    };
    let mut cloud = Cloud::of(&[example(3, "hub"), with(&["192.168.11.8", "192.168.11.9", "10.255.0.1"])]);
    cloud.start(HUB);
    cloud.start(SPOKE1);
    cloud.run(seconds(2));
    let way = |cloud: &Cloud| cloud.nodes[SPOKE1].dataplane.way("172.16.0.0/16");
    let ordered = |cloud: &Cloud| {
        cloud.nodes[SPOKE1].orders.iter().rev().find_map(|order| match order {
            Order::Routes(routes) => {
                Some(routes.iter().find(|r| r.prefix.to_string() == "172.16.0.0/16").map(|r| r.path.clone()))
            }
            _ => None,
        })
    };
    let (a, b) = (hop("lan", "192.168.11.8"), hop("lan", "192.168.11.9"));
    let all = Path::to([b, a, hop("tunnel0", "10.255.0.1")]);
    assert!(matches!(all, Some(Path::Balanced(_))));
    assert_eq!(way(&cloud), all);
    assert_eq!(ordered(&cloud), Some(all), "what the box itself sends goes the same ways");
    cloud.apply(SPOKE1, &with(&["192.168.11.9", "10.255.0.1"])).unwrap();
    assert_eq!(way(&cloud), Path::to([b, hop("tunnel0", "10.255.0.1")]));
    cloud.apply(SPOKE1, &with(&["192.168.11.9"])).unwrap();
    assert_eq!(way(&cloud), Some(Path::Via(b)));
    assert_eq!(ordered(&cloud), Some(Some(Path::Via(b))));
    cloud.apply(SPOKE1, &with(&[])).unwrap();
    cloud.run(seconds(1));
    assert_eq!((way(&cloud), ordered(&cloud)), (None, Some(None)));
    assert!(cloud.nodes[SPOKE1].refusals().is_empty());
}

#[test]
fn peers_behind_several_gateways_spread_and_move_only_with_their_own() {
    let mut cloud = Cloud::phase(3);
    let gateway = |n: u8| hop("wan", &format!("203.0.113.{n}"));
    let told = |hops: &[Hop]| learnt(0, "198.51.100.0/24", Path::to(hops.iter().copied()).unwrap());
    cloud.give(HUB, told(&[gateway(101), gateway(102), gateway(103)]));
    let maps: String = (1..=60)
        .map(|n| {
            format!("[[tunnels.nhrp.map]]\nprotocol = \"10.255.0.{}\"\nnbma = \"198.51.100.{n}\"\n", n + 100)
        })
        .collect();
    cloud.apply(HUB, &(example(3, "hub") + &maps)).unwrap();
    let links = |cloud: &Cloud| -> Vec<Hop> {
        let link =
            |n: u8| cloud.nodes[HUB].dataplane.bound(&format!("10.255.0.{}", n + 100)).unwrap().1.unwrap();
        (1..=60).map(link).collect()
    };
    let before = links(&cloud);
    for n in 101..=103 {
        assert!(before.iter().filter(|link| **link == gateway(n)).count() > 5, "{before:?}");
    }
    cloud.give(HUB, told(&[gateway(101), gateway(103)]));
    let after = links(&cloud);
    assert!(after.iter().all(|link| *link != gateway(102)));
    assert!(before.iter().zip(&after).all(|(was, is)| was == is || *was == gateway(102)));
    // One of the ways is the tunnel itself, as of a default route that a daemon balances: it carries no tunnel.
    cloud.give(HUB, told(&[gateway(103), hop("tunnel0", "10.255.0.11")]));
    assert!(links(&cloud).iter().all(|link| *link == gateway(103)));
}

fn path_mtu(cloud: &Cloud, node: usize, of: &str) -> Option<u16> {
    let key = Key::PathMtu(name("tunnel0"), nbma(of));
    match cloud.nodes[node].dataplane.object(Owner::Nhrp, key) {
        Some(Object::PathMtu(path)) => Some(path.mtu),
        _ => None,
    }
}

fn report(cloud: &mut Cloud, node: usize, of: &str, mtu: u16) {
    let tunnel: InterfaceName = name("tunnel0");
    cloud.give(node, Input::Report(Report::PathMtu { tunnel, nbma: nbma(of), mtu }));
}

#[test]
fn a_path_mtu_is_taken_if_it_is_less_and_ends_by_itself() {
    let mut cloud = Cloud::phase(3);
    let hub = "203.0.113.1";
    let events = |cloud: &Cloud| {
        let events = cloud.nodes[SPOKE1].events.iter();
        events.filter(|e| matches!(e, Happening::PathMtu { .. })).map(ToString::to_string).collect::<Vec<_>>()
    };
    let whole = match cloud.nodes[SPOKE1].dataplane.object(Owner::Config, Key::Tunnel(name("tunnel0"))) {
        Some(Object::Tunnel(tunnel)) => tunnel.mtu + if tunnel.key.is_some() { 28 } else { 24 },
        _ => panic!("no tunnel"),
    };
    report(&mut cloud, SPOKE1, hub, whole);
    report(&mut cloud, SPOKE1, "203.0.113.77", 1300);
    assert_eq!((path_mtu(&cloud, SPOKE1, hub), path_mtu(&cloud, SPOKE1, "203.0.113.77")), (None, None));
    report(&mut cloud, SPOKE1, hub, 1300);
    assert_eq!(path_mtu(&cloud, SPOKE1, hub), Some(1300));
    report(&mut cloud, SPOKE1, hub, 1350);
    assert_eq!(path_mtu(&cloud, SPOKE1, hub), Some(1300), "never raised by what a router says");
    report(&mut cloud, SPOKE1, hub, 68);
    assert_eq!(path_mtu(&cloud, SPOKE1, hub), Some(576), "nor believed below the floor");
    let said = [
        "tunnel0: the path to 203.0.113.1 takes packets of 1300 bytes",
        "tunnel0: the path to 203.0.113.1 takes packets of 576 bytes",
    ];
    assert_eq!(events(&cloud), said);

    // Renewed it lives on, and not renewed it ends.
    cloud.run(seconds(500));
    report(&mut cloud, SPOKE1, hub, 576);
    cloud.run(seconds(500));
    assert_eq!((path_mtu(&cloud, SPOKE1, hub), events(&cloud).len()), (Some(576), 2));
    cloud.run(seconds(101));
    assert_eq!(path_mtu(&cloud, SPOKE1, hub), None);
    report(&mut cloud, SPOKE1, hub, 1300);
    assert_eq!(path_mtu(&cloud, SPOKE1, hub), Some(1300), "and may be learnt anew");

    let mut cloud = dual_stack(true);
    report(&mut cloud, SPOKE1, "2001:db9::1", 600);
    assert_eq!(path_mtu(&cloud, SPOKE1, "2001:db9::1"), Some(1280));
    assert!(cloud.nodes[SPOKE1].refusals().is_empty());
}

#[test]
fn a_path_mtu_goes_with_its_peer_and_stays_over_a_restart() {
    let mut cloud = Cloud::phase(3);
    report(&mut cloud, HUB, "203.0.113.11", 1300);
    report(&mut cloud, HUB, "203.0.113.12", 1200);
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.11"), Some(1300));
    // The data plane tells the next life what it keeps to, and for how long still.
    let left = |mtu, nbma_of: &str, left| PathMtu {
        tunnel: name("tunnel0"),
        nbma: nbma(nbma_of),
        mtu,
        expires_in: Some(seconds(left)),
    };
    cloud.restart_with(
        HUB,
        seconds(1),
        vec![left(1300, "203.0.113.11", 599), left(1200, "203.0.113.12", 30)],
    );
    cloud.run(seconds(10));
    assert!(!cloud.nodes[HUB].dataplane.removed.iter().any(|(key, _)| matches!(key, Key::PathMtu(..))));
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.12"), Some(1200));
    cloud.run(seconds(30));
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.12"), None);
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.11"), Some(1300));
    // The spoke takes leave.
    let mut out = Vec::new();
    cloud.nodes[SPOKE1].conductor.stop(cloud.now, &mut out);
    cloud.carry_out(SPOKE1, out);
    cloud.run(Duration::ZERO);
    assert_eq!(cloud.nodes[HUB].dataplane.bound("10.255.0.11"), None);
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.11"), None);
    // A tunnel that goes takes its paths along, before it.
    report(&mut cloud, HUB, "203.0.113.12", 1300);
    let text = example(3, "hub").split("[[tunnels]]").next().unwrap().to_owned();
    let text = text.split("[[routes]]").next().unwrap().to_owned();
    cloud.apply(HUB, &text).unwrap();
    cloud.run(seconds(2));
    assert_eq!(path_mtu(&cloud, HUB, "203.0.113.12"), None);
    assert!(cloud.nodes[HUB].refusals().is_empty(), "{:?}", cloud.nodes[HUB].refusals());
}
