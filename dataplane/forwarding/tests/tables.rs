//! What batches make of the tables of both families, of several tables, of VLANs, of balanced paths and of path MTUs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use forwarding::{AdjacencyShow, FibShow, Kind};
use lab::*;
use model::program::{Object, Op, Owner, Path, PathMtu, Refusal, TunnelMode};
use model::{Prefix, TableId};
use proptest::prelude::*;

fn fib(node: &TestNode, table: u32, prefix: &str) -> Option<FibShow> {
    let prefix: Prefix = prefix.parse().unwrap();
    node.program.fib().find(|entry| (entry.table, entry.prefix) == (TableId(table), prefix))
}

fn leads(node: &TestNode, table: u32, prefix: &str) -> Option<(Kind, Option<String>)> {
    let entry = fib(node, table, prefix)?;
    Some((entry.kind, entry.via.map(|hop| format!("{} {}", hop.interface, hop.next_hop))))
}

/// The adjacency of a next hop.
fn adjacency(node: &TestNode, interface: &str, next_hop: &str) -> AdjacencyShow {
    let wanted = (Some(name(interface)), Some(next_hop.parse().unwrap()));
    node.program.adjacencies().find(|a| (a.interface, a.next_hop) == wanted && !a.replica).unwrap()
}

#[test]
fn tables_with_the_same_prefixes_are_apart() {
    let mut node = hub(&[2]);
    node.put([
        in_table(vlan("red", "p1", 7, true), 9),
        in_table(attached("10.1.0.0/24", "red"), 9),
        in_table(receive("10.1.0.2/32", "red"), 9),
        neighbour("red", "10.1.0.1", station(1)),
        in_table(via("10.1.2.0/24", "red", "10.1.0.1"), 9),
    ]);
    assert_eq!(leads(&node, 0, "10.1.0.2/32"), Some((Kind::Neighbour, Some("lan 10.1.0.2".into()))));
    assert_eq!(leads(&node, 9, "10.1.0.2/32"), Some((Kind::Receive, None)));
    assert_eq!(leads(&node, 0, "10.1.0.1/32"), Some((Kind::Receive, None)));
    assert_eq!(leads(&node, 9, "10.1.0.1/32"), Some((Kind::Neighbour, Some("red 10.1.0.1".into()))));
    assert_eq!(leads(&node, 0, "10.1.2.0/24").unwrap().0, Kind::Midchain);
    node.remove(&via("10.1.2.0/24", "tun", "10.0.0.2"));
    assert_eq!((leads(&node, 0, "10.1.2.0/24"), leads(&node, 9, "10.1.2.0/24").is_some()), (None, true));
    // What is fixed is so in every table.
    assert_eq!(leads(&node, 9, "ff00::/8").unwrap().0, Kind::Multicast);
}

#[test]
fn ipv6_has_routes_host_entries_and_own_addresses() {
    let mut node = hub(&[]);
    node.put([
        attached("2001:db8:1::/64", "lan"),
        receive("fe80::1/128", "lan"),
        receive("2001:db8:1::1/128", "lan"),
        neighbour("lan", "2001:db8:1::2", station(2)),
        neighbour("lan", "fe80::2", station(2)),
        via("2001:db8:2::/48", "lan", "fe80::2"),
        attached("fe80::/64", "lan"),
    ]);
    let host = Some((Kind::Neighbour, Some("lan 2001:db8:1::2".into())));
    assert_eq!(leads(&node, 0, "2001:db8:1::2/128"), host);
    assert_eq!(leads(&node, 0, "2001:db8:2::/48").unwrap().1.unwrap(), "lan fe80::2");
    assert_eq!(leads(&node, 0, "fe80::1/128").unwrap().0, Kind::Receive);
    // Of link-local destinations the twins of ports know which are theirs.
    let on_link = node.program.fib().filter(|f| f.prefix.to_string().starts_with("fe80::/64"));
    assert_eq!(on_link.map(|f| f.interface).collect::<Vec<_>>(), [Some(name("tun"))]);
    assert_eq!(leads(&node, 0, "fe80::2/128"), None);
    let shown = node.program.interfaces().find(|i| i.interface.name == name("lan")).unwrap();
    assert_eq!((shown.address, shown.address6), (Some(addr("10.1.0.1")), Some(addr6("2001:db8:1::1"))));
    node.remove(&receive("2001:db8:1::1/128", "lan"));
    let shown = node.program.interfaces().find(|i| i.interface.name == name("lan")).unwrap();
    assert_eq!(shown.address6, Some(addr6("fe80::1")));
    // A longer route of another kind takes the host's entry away.
    node.put([via("2001:db8:1::/65", "lan", "fe80::2")]);
    assert_eq!(leads(&node, 0, "2001:db8:1::2/128"), None);
}

#[test]
fn a_balanced_path_keeps_its_members_and_follows_them() {
    let mut node = hub(&[2, 3]);
    let hops = || [hop("lan", "10.1.0.9"), hop("tun", "10.0.0.2"), hop("tun", "10.0.0.3")];
    let ecmp = route("10.5.0.0/16", Path::to(hops()).unwrap());
    node.put([ecmp.clone()]);
    let balanced = |node: &TestNode| node.program.adjacencies().find(|a| a.kind == Kind::Balanced);
    let kinds = |node: &TestNode| {
        let all: BTreeMap<_, _> = node.program.adjacencies().map(|a| (a.id, a.kind)).collect();
        balanced(node).unwrap().members.iter().map(|id| all[id]).collect::<Vec<_>>()
    };
    assert_eq!(fib(&node, 0, "10.5.0.0/16").unwrap().adjacency, balanced(&node).unwrap().id);
    assert_eq!(kinds(&node), [Kind::Incomplete, Kind::Midchain, Kind::Midchain]);
    // Members stay in their places when what resolves them goes.
    let before = balanced(&node).unwrap().members;
    node.remove(&binding("tun", "10.0.0.3", "192.0.2.3", None));
    node.remove(&via("10.1.3.0/24", "tun", "10.0.0.3"));
    node.put([neighbour("lan", "10.1.0.9", station(9))]);
    assert_eq!(kinds(&node), [Kind::Neighbour, Kind::Midchain, Kind::Incomplete]);
    assert_eq!(balanced(&node).unwrap().members, before);
    // A tunnel that becomes point-to-point has one next hop: the members are others.
    let mut peer = tunnel("tun", "192.0.2.1", "wan", Some(42));
    peer.mode = TunnelMode::PointToPoint { destination: "192.0.2.2".parse().unwrap() };
    node.put([Object::Tunnel(peer)]);
    let members = balanced(&node).unwrap().members;
    assert!(members[1] == members[2] && members[1] != before[1]);
    assert_eq!(members[1], adjacency(&node, "tun", "0.0.0.0").id);
    // Two routes share it; without any it is gone.
    node.put([route("10.6.0.0/16", Path::to(hops()).unwrap())]);
    node.remove(&ecmp);
    assert!(balanced(&node).is_some());
    node.remove(&route("10.6.0.0/16", Path::Blackhole));
    assert!(balanced(&node).is_none());
}

#[test]
fn a_path_mtu_lowers_what_goes_that_way_until_its_time_is_over() {
    let mut node = hub(&[2, 3]);
    let mtu = |node: &TestNode, n: u8| adjacency(node, "tun", &format!("10.0.0.{n}")).mtu;
    assert_eq!([mtu(&node, 2), mtu(&node, 3)], [Some(1400), Some(1400)]);
    let learnt = |mtu| {
        let expires_in = Some(Duration::from_secs(600));
        let nbma = "192.0.2.2".parse().unwrap();
        vec![Op::Put(Owner::Nhrp, Object::PathMtu(PathMtu { tunnel: name("tun"), nbma, mtu, expires_in }))]
    };
    node.try_apply(learnt(1300)).unwrap();
    assert_eq!([mtu(&node, 2), mtu(&node, 3)], [Some(1300 - 28), Some(1400)]);
    // A neighbour that is resolved anew keeps to it; less than any path takes is not believed.
    node.put([neighbour("wan", "192.0.2.2", station(77))]);
    assert_eq!(mtu(&node, 2), Some(1300 - 28));
    node.try_apply(learnt(100)).unwrap();
    assert_eq!(mtu(&node, 2), Some(576 - 28));
    let due = node.program.next_expiry().unwrap();
    assert_eq!(node.program.expire(due), []);
    assert_eq!(mtu(&node, 2), Some(1400));
}

#[test]
fn vlans_of_a_port_have_tags_and_each_one_interface() {
    let mut node = hub(&[]);
    node.put([vlan("v7", "p1", 7, true), vlan("v8", "p1", 8, true), neighbour("v7", "10.7.0.2", station(2))]);
    let taken = node.try_apply(vec![Op::Put(Owner::Config, vlan("again", "p1", 7, true))]).unwrap_err();
    assert_eq!(taken.reason, model::program::Refusal::InUse("p1, VLAN 7".into(), name("v7")));
    let tagged = adjacency(&node, "v7", "10.7.0.2");
    assert_eq!((tagged.rewrite.len(), tagged.mtu), (18, Some(1500)));
    assert_eq!(tagged.rewrite[12..16], [0x81, 0, 0, 7]);
    assert_eq!(adjacency(&node, "lan", "10.1.0.2").rewrite.len(), 14);
}

#[test]
fn a_point_to_point_tunnel_over_ipv6_has_a_longer_header() {
    let mut node = hub(&[]);
    let mut peer = tunnel("gre6", "2001:db8::1", "wan", Some(5));
    peer.mode = TunnelMode::PointToPoint { destination: "2001:db8::2".parse().unwrap() };
    peer.mtu = 1500;
    let link = Some(hop("wan", "fe80::9"));
    node.put([
        neighbour("wan", "fe80::9", station(9)),
        Object::Tunnel(peer),
        binding("gre6", "::", "2001:db8::2", link),
        attached("10.66.0.0/16", "gre6"),
        attached("2001:db8:66::/48", "gre6"),
    ]);
    let midchain = adjacency(&node, "gre6", "0.0.0.0");
    assert_eq!((midchain.kind, midchain.rewrite.len()), (Kind::Midchain, 14 + 40 + 8));
    assert_eq!((midchain.mtu, midchain.nbma), (Some(1500 - 48), Some("2001:db8::2".parse().unwrap())));
    for prefix in ["10.66.0.0/16", "2001:db8:66::/48"] {
        assert_eq!(fib(&node, 0, prefix).unwrap().adjacency, midchain.id);
    }
}

/// Puts of the configuration.
fn puts(objects: impl IntoIterator<Item = Object>) -> Vec<Op> {
    objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect()
}

/// A tunnel `gre` to 192.0.2.3, or to many.
fn gre(is_point_to_point: bool, table: u32) -> Object {
    let mut tunnel = tunnel("gre", "192.0.2.1", "wan", Some(7));
    if is_point_to_point {
        tunnel.mode = TunnelMode::PointToPoint { destination: "192.0.2.3".parse().unwrap() };
    }
    tunnel.table = TableId(table);
    Object::Tunnel(tunnel)
}

#[test]
fn an_own_address_comes_along_to_whatever_table() {
    for (from, to) in [(0, 9), (9, 0)] {
        let mut node = hub(&[]);
        let red = |table| in_table(vlan("red", "p1", 7, true), table);
        let own = |table| in_table(receive("10.8.0.1/32", "red"), table);
        node.put([red(from), own(from)]);
        let mut ops = puts([red(to), own(to)]);
        ops.push(Op::Remove(Owner::Config, own(from).key()));
        node.try_apply(ops).unwrap();
        let shown = node.program.interfaces().find(|i| i.interface.name == name("red")).unwrap();
        assert_eq!(shown.address, Some(addr("10.8.0.1")), "{from} to {to}");
    }
}

#[test]
fn a_tunnel_does_not_become_what_its_routes_and_next_hops_may_not_be_on() {
    let peer = || Path::Via(hop("gre", "0.0.0.0"));
    let both = || Path::to([hop("gre", "0.0.0.0"), hop("lan", "10.1.0.9")]).unwrap();
    let mut six = tunnel("gre", "2001:db8::1", "wan", Some(7));
    six.mode = TunnelMode::PointToPoint { destination: "2001:db8::3".parse().unwrap() };
    let link = Some(hop("wan", "192.0.2.3"));
    let cases = [
        (route("10.5.0.0/16", peer()), gre(false, 0)),
        (route("10.5.0.0/16", both()), gre(false, 0)),
        (via("2001:db8:5::/48", "gre", "10.9.0.1"), gre(false, 0)),
        (attached("10.5.0.0/16", "gre"), gre(true, 9)),
        (replica("gre", "192.0.2.3", link), Object::Tunnel(six)),
    ];
    for (on_it, becomes) in cases {
        let mut node = hub(&[]);
        node.put([gre(true, 0), on_it.clone()]);
        let before: Vec<_> = node.program.objects().collect();
        let gone = Op::Remove(Owner::Config, becomes.key());
        let put = Op::Put(Owner::Config, becomes.clone());
        for ops in [vec![put.clone()], vec![gone, put.clone()]] {
            let refused = node.try_apply(ops).unwrap_err();
            assert_eq!((refused.op, refused.reason), (0, Refusal::Referred(name("gre"))), "{on_it:?}");
            assert!(node.program.objects().eq(before.iter().cloned()));
        }
        // It may, when what is in the way goes with the same batch.
        node.try_apply(vec![put, Op::Remove(Owner::Config, on_it.key())]).unwrap();
    }
}

#[test]
fn what_is_stale_does_not_stand_in_the_way_of_a_tunnel_that_moves() {
    let mut node = hub(&[]);
    node.put([gre(true, 0), route("10.5.0.0/16", Path::Via(hop("gre", "0.0.0.0")))]);
    // A control plane that starts with another file, and more to say than a batch holds.
    node.try_apply(vec![Op::ResyncBegin(Owner::Config)]).unwrap();
    node.put([interface("wan", "p0", false), interface("lan", "p1", true), gre(false, 9)]);
    assert_eq!(fib(&node, 0, "10.5.0.0/16"), None);
    node.put([in_table(attached("10.5.0.0/16", "gre"), 9)]);
    node.try_apply(vec![Op::ResyncEnd(Owner::Config)]).unwrap();
    assert_eq!(leads(&node, 9, "10.5.0.0/16").unwrap().0, Kind::Glean);
}

/// A route of a random program: table, prefix, whether it is there afterwards, and which of some black holes and next hops.
fn any_route() -> impl Strategy<Value = (u32, Prefix, bool, u8)> {
    let v4 = (prop_oneof![Just([10, 0]), Just([10, 128]), Just([172, 16])], any::<[bool; 2]>(), 0_u8..=32)
        .prop_map(|([a, b], [c, d], len)| {
            Prefix::new(IpAddr::from([a, b, c.into(), d.into()]), len).unwrap()
        });
    let v6 = (any::<[bool; 4]>(), 0_u8..=128).prop_map(|(bits, len)| {
        let [a, b, c, d] = bits.map(u16::from);
        Prefix::new(IpAddr::from([0x2001, 0xdb8, a << 15, b, 0, c, 0, d]), len).unwrap()
    });
    (0..2_u32, prop_oneof![v4, v6], prop::bool::weighted(0.7), 0..4_u8)
}

/// The longest of the routes that hold an address.
fn scan(routes: &BTreeMap<(u32, Prefix), u8>, table: u32, addr: IpAddr) -> Option<Prefix> {
    let holding = routes.keys().filter(|(of, prefix)| *of == table && prefix.contains(addr));
    holding.map(|(_, prefix)| *prefix).max_by_key(|prefix| prefix.length())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both families, two tables, batch by batch.
    #[test]
    fn the_fib_of_a_program_is_a_linear_scan(batches in prop::collection::vec(prop::collection::vec(any_route(), 1..20), 1..6)) {
        let mut node = TestNode::new(1, 2);
        node.put([interface("a", "p0", true), in_table(interface("b", "p1", true), 1)]);
        let mut routes = BTreeMap::new();
        let path = |table: u32, v4: bool, kind: u8| match (kind, v4) {
            (0, _) => Path::Unreachable,
            (1, _) => Path::Attached(name(["a", "b"][table as usize])),
            (n, true) => Path::Via(hop(["a", "b"][table as usize], &format!("10.0.0.{n}"))),
            (n, false) => Path::Via(hop(["a", "b"][table as usize], &format!("2001:db8::{n}"))),
        };
        for batch in batches {
            let mut ops = Vec::new();
            for (table, prefix, there, kind) in batch {
                let object = in_table(route(&prefix.to_string(), path(table, prefix.addr().is_ipv4(), kind)), table);
                if there {
                    routes.insert((table, prefix), kind);
                    ops.push(Op::Put(Owner::Config, object));
                } else {
                    routes.remove(&(table, prefix));
                    ops.push(Op::Remove(Owner::Config, object.key()));
                }
            }
            node.try_apply(ops).unwrap();
            let shown: BTreeMap<_, _> = node.program.fib().map(|f| ((f.table.0, f.prefix), f)).collect();
            let fixed = |f: &FibShow| matches!(f.kind, Kind::Martian | Kind::Multicast);
            let held: Vec<_> = shown.values().filter(|f| !fixed(f)).map(|f| (f.table.0, f.prefix)).collect();
            prop_assert_eq!(held, routes.keys().copied().collect::<Vec<_>>());
            for (table, prefix) in routes.keys() {
                // Where the prefix begins, in both tables, what is looked up is what the longest prefix there leads to.
                for table in [*table, 1 - *table] {
                    let word = node.program.lookup(TableId(table), prefix.addr());
                    if word.is_some_and(|id| is_fixed(&node, id)) {
                        continue;
                    }
                    let longest = scan(&routes, table, prefix.addr());
                    prop_assert_eq!(word, longest.map(|longest| shown[&(table, longest)].adjacency));
                }
            }
        }
    }
}

fn is_fixed(node: &TestNode, id: forwarding::AdjacencyId) -> bool {
    node.program.adjacencies().any(|a| a.id == id && matches!(a.kind, Kind::Martian | Kind::Multicast))
}
