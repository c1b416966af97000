//! What batches make of the tables: refusals, owners, resync, expiry, host entries, places and their reuse; and the law that a
//! program changed step by step is the program built from nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use forwarding::{Kind, Origin};
use lab::*;
use model::program::{Batch, Key, Object, Op, Owner, Path, Refusal, TunnelMode};
use model::report::Report;
use model::{ProtocolAddr, TableId};
use proptest::prelude::*;
use wire::ethernet;

/// Everything that forwards, by name and not by place.
fn dump(node: &TestNode) -> BTreeMap<String, String> {
    let all: Vec<_> = node.program.adjacencies().collect();
    let named = |id| all.iter().find(|a| a.id == id).map(|a| (a.kind, a.interface, a.next_hop));
    let adjacencies = node.program.adjacencies().map(|a| {
        let members: Vec<_> = a.members.iter().map(|id| named(*id)).collect();
        let key = format!(
            "adjacency {:?} {:?} {:?} {:?} {} {members:?}",
            a.kind, a.interface, a.next_hop, a.nbma, a.replica
        );
        (key, format!("{:?} {:?} {:02x?}", a.link, a.mtu, a.rewrite))
    });
    // What is fixed is in every table, and tables never go.
    let fib = node.program.fib().filter(|f| !matches!(f.kind, Kind::Martian | Kind::Multicast)).map(|f| {
        // Link-local prefixes are in it once for each tunnel.
        (format!("fib {} in {} {:?}", f.prefix, f.table.0, f.interface), format!("{:?} {:?}", f.kind, f.via))
    });
    let interfaces = node.program.interfaces().map(|i| {
        (
            format!("interface {}", i.interface.name),
            format!("{:?} {:?} {:?}", i.interface, i.address, i.address6),
        )
    });
    let tunnels = node.program.tunnel_shows().map(|t| {
        (
            format!("tunnel {}", t.tunnel.name),
            format!("{:?} {:?} {:?} {:?} {:?}", t.tunnel, t.address, t.address6, t.fallback, t.replicas),
        )
    });
    adjacencies.chain(fib).chain(interfaces).chain(tunnels).collect()
}

fn fib_of(node: &TestNode, prefix: &str) -> Option<(Kind, Option<String>)> {
    let entry = node.program.fib().find(|entry| entry.prefix == prefix.parse().unwrap())?;
    Some((entry.kind, entry.via.map(|hop| format!("{} {}", hop.interface, hop.next_hop))))
}

#[test]
fn refusals_say_which_step_and_why_and_change_nothing() {
    let mut node = hub(&[2]);
    let before = dump(&node);
    let p2p = |key| {
        let mut tunnel = tunnel("new", "192.0.2.1", "wan", key);
        tunnel.mode = TunnelMode::PointToPoint { destination: "192.0.2.5".parse().unwrap() };
        Object::Tunnel(tunnel)
    };
    let mut table = tunnel("new", "192.0.2.1", "wan", Some(1));
    table.underlay_table = TableId(7);
    let unsupported = |what: &str| Refusal::Unsupported(what.into());
    let no = |name: &str| Refusal::NoInterface(lab::name(name));
    let cases = [
        (interface("new", "p9", true), Refusal::NoPort("p9".into())),
        (interface("new", "p0", true), Refusal::InUse("p0".into(), name("wan"))),
        (interface("tun", "p0", true), Refusal::InUse("tun".into(), name("tun"))),
        (
            Object::Tunnel(tunnel("lan", "192.0.2.1", "wan", Some(1))),
            Refusal::InUse("lan".into(), name("lan")),
        ),
        (Object::Tunnel(tunnel("new", "192.0.2.1", "nowhere", Some(1))), no("nowhere")),
        (Object::Tunnel(tunnel("new", "192.0.2.1", "wan", Some(42))), Refusal::SameKey(name("tun"))),
        (p2p(Some(42)), Refusal::SameKey(name("tun"))),
        (
            Object::Tunnel(table),
            unsupported("an underlay of `new` in table 7 by `wan`, which is in table 0,"),
        ),
        (
            in_table(attached("10.5.0.0/16", "lan"), 7),
            unsupported("a route of table 7 by `lan`, which is in table 0,"),
        ),
        (
            binding("tun", "10.0.0.9", "2001:db8::9", None),
            unsupported("a tunnel between families (192.0.2.1, 2001:db8::9)"),
        ),
        (
            binding("tun", "10.0.0.9", "192.0.2.9", Some(hop("wan", "2001:db8::9"))),
            unsupported("a tunnel between families (192.0.2.9, 2001:db8::9)"),
        ),
        (binding("tun", "0.0.0.0", "192.0.2.9", None), unsupported("the address 0.0.0.0")),
        (via("10.5.0.0/16", "lan", "0.0.0.0"), unsupported("the address 0.0.0.0")),
        (
            via("10.5.0.0/16", "lan", "2001:db8::2"),
            unsupported("a next hop of the other family (2001:db8::2)"),
        ),
        (
            route("10.5.0.0/16", Path::Balanced([hop("lan", "10.1.0.3"), hop("lan", "10.1.0.2")].into())),
            unsupported("a route by other than 2 to 16 next hops, sorted, each once"),
        ),
        (neighbour("tun", "10.0.0.9", station(9)), no("tun")),
        (binding("lan", "10.0.0.9", "192.0.2.9", None), no("lan")),
        (binding("tun", "10.0.0.9", "192.0.2.9", Some(hop("tun", "10.0.0.2"))), no("tun")),
        (replica("lan", "192.0.2.9", None), no("lan")),
        (fallback("lan", "10.0.0.9"), no("lan")),
        (via("10.5.0.0/16", "nowhere", "10.0.0.2"), no("nowhere")),
        (interface("lan", "p0", true), Refusal::InUse("p0".into(), name("wan"))),
        (in_table(interface("lan", "p1", true), 7), Refusal::Referred(name("lan"))),
    ];
    for (object, reason) in cases {
        let good = via("10.77.0.0/16", "lan", "10.1.0.77");
        let ops = vec![Op::Put(Owner::Config, good), Op::Put(Owner::Config, object.clone())];
        let refused = node.try_apply(ops).unwrap_err();
        assert_eq!((refused.op, refused.reason), (1, reason), "{object:?}");
        assert_eq!(dump(&node), before, "{object:?}");
    }
    let referred = node.try_apply(vec![Op::Remove(Owner::Config, Key::Interface(name("lan")))]).unwrap_err();
    assert_eq!((referred.op, referred.reason), (0, Refusal::Referred(name("lan"))));
    assert_eq!(dump(&node), before);
    // A refused batch leaves no mark either: nothing is stale.
    let ops = vec![Op::ResyncBegin(Owner::Config), Op::Put(Owner::Config, interface("x", "p9", true))];
    node.try_apply(ops).unwrap_err();
    assert!(node.program.routes(node.now).all(|route| !route.stale));
}

#[test]
fn removing_all_leaves_nothing() {
    let empty = dump(&TestNode::new(1, 2));
    let mut node = hub(&[2, 3]);
    node.put([fallback("tun", "10.0.0.2"), replica("tun", "192.0.2.2", Some(hop("wan", "192.0.2.2")))]);
    node.try_apply(vec![Op::ResyncBegin(Owner::Config), Op::ResyncEnd(Owner::Config)]).unwrap();
    assert_eq!(dump(&node), empty);
}

#[test]
fn of_several_owners_receive_wins_then_the_first() {
    let mut node = hub(&[2, 3]);
    let put = |owner, object| Op::Put(owner, object);
    let prefix = "10.5.0.0/16";
    node.try_apply(vec![put(Owner::Netlink, via(prefix, "lan", "10.1.0.2"))]).unwrap();
    assert_eq!(fib_of(&node, prefix).unwrap().1.unwrap(), "lan 10.1.0.2");
    node.try_apply(vec![put(Owner::Config, via(prefix, "tun", "10.0.0.2"))]).unwrap();
    assert_eq!(fib_of(&node, prefix).unwrap().1.unwrap(), "tun 10.0.0.2");
    node.try_apply(vec![put(Owner::Nhrp, via(prefix, "tun", "10.0.0.3"))]).unwrap();
    assert_eq!(fib_of(&node, prefix).unwrap().1.unwrap(), "tun 10.0.0.3");
    node.try_apply(vec![put(Owner::Netlink, receive(prefix, "lan"))]).unwrap();
    assert_eq!(fib_of(&node, prefix), Some((Kind::Receive, None)));
    let best = |node: &TestNode| {
        node.program
            .routes(node.now)
            .filter(|r| r.best && r.prefix == prefix.parse().unwrap())
            .map(|r| r.owner)
            .collect::<Vec<_>>()
    };
    assert_eq!(best(&node), [Owner::Netlink]);
    let key = via(prefix, "lan", "10.1.0.2").key();
    node.try_apply(vec![Op::Remove(Owner::Netlink, key), Op::Remove(Owner::Nhrp, key)]).unwrap();
    assert_eq!(fib_of(&node, prefix).unwrap().1.unwrap(), "tun 10.0.0.2");
    node.try_apply(vec![Op::Remove(Owner::Config, key)]).unwrap();
    assert_eq!(fib_of(&node, prefix), None);
}

#[test]
fn resync_sweeps_what_its_owner_did_not_say_again_and_nothing_else() {
    let mut node = hub(&[2]);
    let put = |owner, object| Op::Put(owner, object);
    let (a, b) = (via("10.5.0.0/16", "lan", "10.1.0.2"), via("10.6.0.0/16", "lan", "10.1.0.2"));
    let ops = [&a, &b].map(|route| put(Owner::Netlink, route.clone()));
    node.try_apply(ops.to_vec()).unwrap();
    node.try_apply(vec![put(Owner::Nhrp, b.clone()), Op::ResyncBegin(Owner::Netlink)]).unwrap();
    let stale = node.program.routes(node.now).filter(|route| route.stale).count();
    assert_eq!(stale, 2);
    assert!(fib_of(&node, "10.5.0.0/16").is_some(), "stale routes forward");
    node.try_apply(vec![put(Owner::Netlink, a), Op::ResyncEnd(Owner::Netlink)]).unwrap();
    let left: Vec<_> = node
        .program
        .routes(node.now)
        .filter(|r| r.owner != Owner::Config)
        .map(|r| (r.prefix.to_string(), r.owner))
        .collect();
    assert_eq!(left, [("10.5.0.0/16".to_owned(), Owner::Netlink), ("10.6.0.0/16".to_owned(), Owner::Nhrp)]);
    // A tunnel that its owner's resync takes away takes along what others said of it.
    let keep: Vec<Object> = vec![interface("wan", "p0", false), interface("lan", "p1", true)];
    node.try_apply(vec![put(Owner::Nhrp, binding("tun", "10.0.0.8", "192.0.2.8", None))]).unwrap();
    let mut ops = vec![Op::ResyncBegin(Owner::Config)];
    ops.extend(keep.into_iter().map(|object| put(Owner::Config, object)));
    ops.push(Op::ResyncEnd(Owner::Config));
    node.try_apply(ops).unwrap();
    assert_eq!(node.program.tunnel_shows().count(), 0);
    assert!(node.program.adjacencies().all(|a| a.interface != Some(name("tun"))));
}

#[test]
fn host_entries_follow_the_attached_route_that_covers_them() {
    let mut node = hub(&[2]);
    let host = "10.1.0.2/32";
    assert_eq!(fib_of(&node, host), Some((Kind::Neighbour, Some("lan 10.1.0.2".into()))));
    assert_eq!(fib_of(&node, "10.0.0.2/32"), Some((Kind::Midchain, Some("tun 10.0.0.2".into()))));
    // A longer route of another kind covers it: then it is not the prefix's own host any more.
    let longer = via("10.1.0.0/25", "tun", "10.0.0.2");
    node.put([longer.clone()]);
    assert_eq!(fib_of(&node, host), None);
    node.remove(&longer);
    assert!(fib_of(&node, host).is_some());
    // A route to the host itself goes before.
    let own = route(host, Path::Blackhole);
    node.put([own.clone()]);
    assert_eq!(fib_of(&node, host), Some((Kind::Blackhole, None)));
    node.remove(&own);
    node.remove(&attached("10.1.0.0/24", "lan"));
    assert_eq!(fib_of(&node, host), None);
    node.put([attached("10.1.0.0/24", "lan")]);
    node.remove(&neighbour("lan", "10.1.0.2", station(2)));
    assert_eq!(fib_of(&node, host), None);
}

#[test]
fn multicast_and_martians_are_nobodys_routes() {
    let mut node = hub(&[2]);
    let before: Vec<_> = node.program.fib().map(|f| (f.prefix, f.kind)).collect();
    for prefix in [
        "0.1.0.0/16",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "239.1.0.0/16",
        "250.0.0.0/24",
        "255.255.255.255/32",
        "::1/128",
        "::ffff:0:0/96",
        "::ffff:10.0.0.0/104",
        "ff02::/16",
    ] {
        let refused = node.try_apply(vec![Op::Put(Owner::Config, attached(prefix, "tun"))]).unwrap_err();
        let prefix: model::Prefix = prefix.parse().unwrap();
        assert_eq!(refused.reason, Refusal::Unsupported(format!("a route to {prefix}")));
    }
    let after: Vec<_> = node.program.fib().map(|f| (f.prefix, f.kind)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_full_table_says_for_what_it_has_no_room_and_can_be_put_again_and_emptied() {
    // Three /24 have own addresses in them; the fourth has room.
    let mut node = hub_of(TestNode::with_room(1, 2, 24, 4), &[2]);
    let full = |what: &str| Refusal::Full(what.into());
    let put = |object: &Object| Op::Put(Owner::Config, object.clone());
    let long = ["10.77.0.0/25", "10.77.0.128/25", "10.78.0.0/25"].map(|prefix| attached(prefix, "lan"));
    let refused = node.try_apply(long.iter().map(put).collect()).unwrap_err();
    assert_eq!((refused.op, refused.reason), (2, full("long prefixes")));
    node.put(long[..2].to_vec());
    // All hosts of a default route have their groups.
    node.put([attached("0.0.0.0/0", "lan")]);
    let hosts: Vec<_> = (100..150).map(|n| neighbour("lan", &format!("10.1.0.{n}"), station(n))).collect();
    let refused = node.try_apply(hosts.iter().map(put).collect()).unwrap_err();
    assert_eq!(refused.reason, full("adjacencies"));
    let room = refused.op;
    node.put(hosts[..room].to_vec());
    let refused = node.try_apply(vec![put(&hosts[0]), put(&long[0]), put(&hosts[room])]).unwrap_err();
    assert_eq!((refused.op, refused.reason), (2, full("adjacencies")));
    // A resync puts all that is there, and its end sweeps.
    let mut again = vec![Op::ResyncBegin(Owner::Config)];
    again.extend(node.program.objects().filter(|(_, o)| !hosts.contains(o)).map(|(_, o)| put(&o)));
    again.push(Op::ResyncEnd(Owner::Config));
    node.try_apply(again).unwrap();
    node.settle();
    node.put(hosts[..room].to_vec());
    node.try_apply(hosts[..room].iter().map(|o| Op::Remove(Owner::Config, o.key())).collect()).unwrap();
    node.try_apply(vec![Op::ResyncBegin(Owner::Config), Op::ResyncEnd(Owner::Config)]).unwrap();
    assert_eq!(dump(&node), dump(&TestNode::new(1, 2)));
}

#[test]
fn bindings_and_shortcuts_go_when_their_time_is_over() {
    let mut node = hub(&[2]);
    let lasting = |object: Object| match object {
        Object::Binding(mut b) => {
            b.expires_in = Some(Duration::from_secs(10));
            Object::Binding(b)
        }
        Object::Route(mut r) => {
            r.expires_in = Some(Duration::from_secs(20));
            Object::Route(r)
        }
        other => other,
    };
    let objects = spoke_objects(3).map(lasting);
    node.try_apply(objects.iter().map(|o| Op::Put(Owner::Nhrp, o.clone())).collect()).unwrap();
    let start = node.now;
    assert_eq!(node.program.next_expiry(), Some(start + Duration::from_secs(10)));
    assert_eq!(node.program.expire(start + Duration::from_secs(9)), []);
    // Told again: it begins anew.
    node.pass(Duration::from_secs(9));
    node.try_apply(vec![Op::Put(Owner::Nhrp, objects[1].clone())]).unwrap();
    assert_eq!(node.program.expire(start + Duration::from_secs(18)), []);
    let expired = node.program.expire(start + Duration::from_secs(19));
    let (tunnel, next_hop) = (name("tun"), ProtocolAddr("10.0.0.3".parse().unwrap()));
    assert_eq!(expired, [Report::BindingExpired { tunnel, next_hop }]);
    assert_eq!(fib_of(&node, "10.1.3.0/24").unwrap().0, Kind::Incomplete);
    assert_eq!(node.program.expire(start + Duration::from_secs(20)), []);
    assert_eq!(fib_of(&node, "10.1.3.0/24"), None);
    assert_eq!(node.program.next_expiry(), None);
}

#[test]
fn used_next_hops_and_the_neighbours_beneath_are_reported_once() {
    let mut node = hub(&[2, 3]);
    assert_eq!(node.program.used(), []);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x")));
    let used = node.program.used();
    let next_hops = vec![ProtocolAddr("10.0.0.2".parse().unwrap())];
    let neighbours = vec![hop("wan", "192.0.2.2")];
    assert_eq!(used, [Report::Used { tunnel: name("tun"), next_hops }, Report::UsedNeighbours(neighbours)]);
    assert_eq!(node.program.used(), []);
}

#[test]
fn a_place_is_used_again_only_when_workers_have_let_go_of_it_and_counts_from_nothing() {
    let mut node = hub(&[2]);
    let place = |node: &TestNode, next_hop: &str| {
        let all = node.program.adjacencies();
        let found = all
            .into_iter()
            .find(|a| a.next_hop == Some(addr(next_hop).into()) && a.interface == Some(name("lan")));
        found.map(|a| (a.id.index(), a.id.epoch(), a.traffic.packets))
    };
    let arriving = |to: &str| frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x"));
    node.put([neighbour("lan", "10.1.0.77", station(77))]);
    node.receive(1, &arriving("10.1.0.77"));
    let (index, epoch, packets) = place(&node, "10.1.0.77").unwrap();
    assert_eq!(packets, 1);
    node.remove(&neighbour("lan", "10.1.0.77", station(77)));
    // The worker has not breathed since: its view still has the old entry.
    node.put([neighbour("lan", "10.1.0.78", station(78))]);
    assert_ne!(place(&node, "10.1.0.78").unwrap().0, index);
    node.breathe();
    node.put([neighbour("lan", "10.1.0.79", station(79))]);
    assert_eq!(place(&node, "10.1.0.79"), Some((index, epoch + 1, 0)));
    node.receive(1, &arriving("10.1.0.79"));
    assert_eq!(place(&node, "10.1.0.79"), Some((index, epoch + 1, 1)));
}

#[test]
fn a_tunnel_may_change_everything_about_itself() {
    let mut node = hub(&[2]);
    let arriving = frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "10.1.2.9", b"x"));
    let mut changed = tunnel("tun", "192.0.2.99", "wan", Some(77));
    changed.ttl = 9;
    node.put([Object::Tunnel(changed.clone())]);
    node.receive(1, &arriving);
    let sent = node.sent(0);
    let (from, _, key, _) = open_tunnel(&sent[0]);
    assert_eq!((from.as_str(), key, sent[0][22]), ("192.0.2.99", Some(77), 9));
    // To point-to-point and back: what led to bindings leads to the one peer, and to bindings again.
    let before = dump(&node);
    changed.mode = TunnelMode::PointToPoint { destination: "192.0.2.2".parse().unwrap() };
    node.put([
        Object::Tunnel(changed.clone()),
        binding("tun", "0.0.0.0", "192.0.2.2", Some(hop("wan", "192.0.2.2"))),
    ]);
    node.receive(1, &arriving);
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "192.0.2.2");
    assert_eq!(fib_of(&node, "10.0.0.2/32"), Some((Kind::Midchain, Some("tun 0.0.0.0".into()))));
    changed.mode = TunnelMode::Multipoint;
    node.remove(&binding("tun", "0.0.0.0", "192.0.2.2", None));
    node.put([Object::Tunnel(changed)]);
    assert_eq!(dump(&node), before);
}

#[test]
fn ten_thousand_spokes_come_one_by_one() {
    let mut node = hub(&[]);
    node.put([neighbour("wan", "192.0.2.254", station(254)), attached("10.0.0.0/16", "tun")]);
    for n in 0..10_000 {
        let (a, b) = (n / 250 + 1, n % 250 + 1);
        let link = Some(hop("wan", "192.0.2.254"));
        node.put([
            binding("tun", &format!("10.0.{a}.{b}"), &format!("198.18.{a}.{b}"), link),
            via(&format!("172.{}.{}.0/24", 16 + n / 250, n % 250), "tun", &format!("10.0.{a}.{b}")),
        ]);
    }
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "172.55.249.7", b"x")));
    assert_eq!(open_tunnel(&node.sent(0)[0]).1, "198.18.40.250");
    // The one neighbour that all are stacked on moves.
    node.put([neighbour("wan", "192.0.2.254", station(1))]);
    node.receive(1, &frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", "172.16.0.7", b"x")));
    assert_eq!(node.sent(0)[0][..6], station(1).0);
}

/// Objects of a small world, so that steps meet: two ports, two tunnels, six next hops, ten prefixes.
fn any_object() -> impl Strategy<Value = Object> {
    let link = prop_oneof![Just(None), (1..4_u8).prop_map(|n| Some(hop("wan", &format!("192.0.2.{n}"))))];
    let tunnel_name = prop_oneof![Just("tun"), Just("gre1")];
    let prefix = prop_oneof![
        Just("0.0.0.0/0"),
        Just("10.0.0.0/8"),
        Just("10.0.0.0/24"),
        Just("10.0.0.2/32"),
        Just("10.1.0.0/24"),
        Just("10.1.0.0/25"),
        Just("10.1.0.2/32"),
        Just("10.1.0.3/32"),
        Just("192.0.2.0/24"),
        Just("10.2.0.0/16"),
    ];
    let path = prop_oneof![
        (1..4_u8).prop_map(|n| Path::Via(hop("tun", &format!("10.0.0.{n}")))),
        (1..4_u8).prop_map(|n| Path::Via(hop("lan", &format!("10.1.0.{n}")))),
        Just(Path::Via(hop("gre1", "10.7.0.1"))),
        prop_oneof![Just("wan"), Just("lan"), Just("tun"), Just("gre1")]
            .prop_map(|n| Path::Attached(name(n))),
        prop_oneof![Just("wan"), Just("lan"), Just("tun")].prop_map(|n| Path::Receive(name(n))),
        Just(Path::Unreachable),
        Just(Path::Blackhole),
    ];
    prop_oneof![
        1 => (any::<bool>(), prop_oneof![Just(("wan", "p0")), Just(("lan", "p1"))]).prop_map(|(f, (n, p))| interface(n, p, f)),
        1 => (any::<bool>(), 1..3_u32, 1..3_u32).prop_map(|(point, key, network)| {
            let mut tunnel = tunnel("gre1", "192.0.2.1", "wan", Some(100 + key));
            tunnel.network_id = network;
            if point {
                tunnel.mode = TunnelMode::PointToPoint { destination: "192.0.2.3".parse().unwrap() };
            }
            Object::Tunnel(tunnel)
        }),
        1 => (1..3_u32, any::<bool>()).prop_map(|(network, redirect)| {
            let mut tunnel = tunnel("tun", "192.0.2.1", "wan", Some(42));
            tunnel.network_id = network;
            tunnel.redirect = redirect;
            Object::Tunnel(tunnel)
        }),
        4 => (prop_oneof![Just(("wan", "192.0.2")), Just(("lan", "10.1.0"))], 1..4_u8, 1..3_u8)
            .prop_map(|((i, net), n, mac)| neighbour(i, &format!("{net}.{n}"), station(mac))),
        5 => (tunnel_name.clone(), 0..6_u8, 1..3_u8, link.clone()).prop_map(|(t, n, nbma, link)| {
            let next_hop = match n {
                0 => "0.0.0.0".to_owned(),
                4 => "fe80::4".to_owned(),
                5 => "fe80::5:0:0:1".to_owned(),
                n => format!("10.0.0.{n}"),
            };
            binding(t, &next_hop, &format!("192.0.2.{nbma}"), link)
        }),
        8 => (prefix, path).prop_map(|(prefix, path)| route(prefix, path)),
        2 => (tunnel_name.clone(), 1..4_u8, link).prop_map(|(t, n, link)| replica(t, &format!("192.0.2.{n}"), link)),
        1 => (tunnel_name, 1..4_u8).prop_map(|(t, n)| fallback(t, &format!("10.0.0.{n}"))),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let owner = || prop_oneof![Just(Owner::Nhrp), Just(Owner::Config), Just(Owner::Netlink)];
    prop_oneof![
        12 => (owner(), any_object()).prop_map(|(owner, object)| Op::Put(owner, object)),
        5 => (owner(), any_object()).prop_map(|(owner, object)| Op::Remove(owner, object.key())),
        1 => owner().prop_map(Op::ResyncBegin),
        1 => owner().prop_map(Op::ResyncEnd),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_make_what_building_from_nothing_makes(
        batches in proptest::collection::vec(proptest::collection::vec(any_op(), 1..6), 1..40),
        // As much as one wants, or hardly more than there is to begin with.
        (adjacencies, groups) in prop_oneof![Just((1 << 20, 1 << 16)), (17..24_usize, 3..6_usize)],
    ) {
        let mut node = hub_of(TestNode::with_room(1, 2, adjacencies, groups), &[2, 3]);
        let mut batch_number = 1000;
        for ops in batches {
            let before = dump(&node);
            batch_number += 1;
            let puts: Vec<_> = ops.iter().map(|op| matches!(op, Op::Put(..))).collect();
            let result = node.program.apply(node.now, &Batch { number: batch_number, ops });
            if let Err(refused) = result {
                prop_assert_eq!(dump(&node), before);
                if puts.contains(&true) && matches!(refused.reason, Refusal::Full(_)) {
                    prop_assert!(puts[refused.op], "{}", refused);
                }
            }
            // Workers breathe now and then, with packets that go everywhere.
            if batch_number % 3 == 0 {
                for to in ["10.0.0.2", "10.1.0.3", "10.9.9.9", "224.0.0.5", "8.8.8.8"] {
                    node.ports.rx[1].push_back(wire::buf::TestBuf::new(&frame(LAN, station(9), ethernet::IPV4, &udp("10.1.0.2", to, b"x"))));
                }
                node.inject_if_there("tun");
                node.settle();
            }
        }
        let said = node.program.objects().map(|(owner, object)| Op::Put(owner, object.clone())).collect();
        let mut fresh = TestNode::new(1, 2);
        fresh.try_apply(said).unwrap();
        prop_assert_eq!(dump(&node), dump(&fresh));
        // And nothing is left of it when all is removed.
        let all: Vec<_> = Owner::ALL.into_iter().flat_map(|owner| [Op::ResyncBegin(owner), Op::ResyncEnd(owner)]).collect();
        node.try_apply(all).unwrap();
        prop_assert_eq!(dump(&node), dump(&TestNode::new(1, 2)));
    }
}

impl TestNode {
    /// A multicast packet from a tunnel's twin, if the tunnel is there.
    fn inject_if_there(&mut self, tunnel: &str) {
        if let Some(id) = self.program.interface_id(name(tunnel)) {
            let buf = wire::buf::TestBuf::new(&ip("10.0.0.1", "224.0.0.5", 89, b"x"));
            self.ports.inject.push_back(forwarding::Injected { origin: Origin::Twin(id), buf });
        }
    }
}
