use super::*;
use proptest::prelude::*;

const MAIN: TableId = TableId(0);

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}
fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}
fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
fn via(interface: &str, next_hop: &str) -> Path {
    Path::Via(Hop { interface: name(interface), next_hop: ip(next_hop) })
}

fn rib() -> Rib {
    let mut rib = Rib::default();
    rib.set_interfaces(BTreeMap::from([
        (name("wan0"), Link::Port { is_open: false }),
        (name("lan0"), Link::Port { is_open: true }),
        (name("tunnel0"), Link::Multipoint),
        (name("tunnel1"), Link::PointToPoint),
    ]));
    for (interface, text, own) in [
        ("wan0", "198.51.100.0/24", "198.51.100.2/32"),
        ("lan0", "192.168.2.0/24", "192.168.2.1/32"),
        ("tunnel0", "10.0.0.0/24", "10.0.0.2/32"),
        ("tunnel1", "10.1.0.0/24", "10.1.0.2/32"),
    ] {
        let attached = Target::Path(Path::Attached(name(interface)));
        let receive = Target::Path(Path::Receive(name(interface)));
        rib.set(Origin::Address, MAIN, prefix(text), Some(attached));
        rib.set(Origin::Address, MAIN, prefix(own), Some(receive));
    }
    rib.commit();
    rib
}

fn fixed(rib: &mut Rib, text: &str, next_hop: &str) {
    rib.set(Origin::Static, MAIN, prefix(text), Some(Target::NextHops(vec![ip(next_hop).into()])));
}

#[test]
fn a_next_hop_gets_the_interface_that_reaches_it_and_follows_it() {
    let mut rib = rib();
    fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
    fixed(&mut rib, "172.16.0.0/16", "192.168.3.7");
    fixed(&mut rib, "192.168.9.0/24", "10.1.0.1");
    assert_eq!(
        rib.best(MAIN, ip("192.168.3.9")),
        Some((prefix("192.168.3.0/24"), via("tunnel0", "10.0.0.3")))
    );
    assert_eq!(rib.best(MAIN, ip("172.16.1.1")), Some((prefix("172.16.0.0/16"), via("tunnel0", "10.0.0.3"))));
    let to_peer = Path::Attached(name("tunnel1"));
    assert_eq!(rib.best(MAIN, ip("192.168.9.1")), Some((prefix("192.168.9.0/24"), to_peer)));
    rib.commit();

    // The tunnel goes: both routes change, though nobody touched them.
    let mut interfaces = rib.interfaces().clone();
    interfaces.remove(&name("tunnel0"));
    rib.set_interfaces(interfaces);
    assert_eq!(rib.best(MAIN, ip("172.16.1.1")), None);
    let changed = rib.commit();
    assert!(changed.contains(&(MAIN, prefix("172.16.0.0/16"))));
    assert!(rib.program(MAIN, prefix("192.168.3.0/24")).is_empty());
}

#[test]
fn only_the_resolution_of_what_depends_on_a_change_is_told() {
    let mut rib = rib();
    fixed(&mut rib, "172.16.0.0/16", "192.168.3.7");
    assert_eq!(rib.commit(), [(MAIN, prefix("172.16.0.0/16"))]);
    fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
    assert_eq!(rib.commit(), [(MAIN, prefix("172.16.0.0/16")), (MAIN, prefix("192.168.3.0/24"))]);
    assert_eq!(rib.commit(), []);
    fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
    assert_eq!(rib.commit(), [], "the same again is no change");
}

#[test]
fn a_change_settles_anew_only_what_may_rest_on_it() {
    let mut rib = rib();
    for third in 0..100 {
        fixed(&mut rib, &format!("172.16.{third}.0/24"), &format!("10.0.0.{third}"));
    }
    fixed(&mut rib, "172.17.0.0/24", "172.16.7.1");
    rib.commit();
    let kernels = |rib: &mut Rib, text: &str| {
        let by_hub = Some(Target::Path(via("tunnel0", "10.0.0.1")));
        rib.set(Origin::Kernel, MAIN, prefix(text), by_hub);
        let unsettled = rib.unsettled().into_iter().map(|(_, p)| p.to_string()).collect::<Vec<_>>();
        rib.commit();
        unsettled
    };
    assert!(kernels(&mut rib, "203.0.113.0/24").is_empty());
    assert!(kernels(&mut rib, "0.0.0.0/0").is_empty());
    assert_eq!(kernels(&mut rib, "10.0.0.7/32"), ["172.16.7.0/24", "172.17.0.0/24"]);
    // A next hop that is another one now no longer rests on the old one.
    fixed(&mut rib, "172.16.7.0/24", "10.0.0.8");
    rib.commit();
    assert!(kernels(&mut rib, "10.0.0.6/31").contains(&"172.16.6.0/24".to_owned()));
    assert_eq!(rib.dependants.get(&(MAIN, ip("10.0.0.7"))), None);
}

#[test]
fn circles_and_default_routes_do_not_resolve() {
    let mut rib = rib();
    fixed(&mut rib, "172.16.0.0/16", "172.17.0.1");
    fixed(&mut rib, "172.17.0.0/16", "172.16.0.1");
    fixed(&mut rib, "0.0.0.0/0", "203.0.113.1");
    assert_eq!(rib.best(MAIN, ip("172.16.0.9")), None);
    assert_eq!(rib.best(MAIN, ip("8.8.8.8")), None);
    fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
    assert_eq!(rib.best(MAIN, ip("8.8.8.8")).unwrap().1, via("wan0", "198.51.100.1"));
    fixed(&mut rib, "0.0.0.0/0", "192.168.2.1");
    assert_eq!(rib.best(MAIN, ip("8.8.8.8")), None, "our own address is no next hop");
}

#[test]
fn the_underlay_never_leads_through_a_tunnel() {
    let mut rib = rib();
    let nbma = NbmaAddr(ip("203.0.113.7"));
    // A default route learnt over the tunnel does not catch it, however long its prefix.
    let over_tunnel = Some(Target::Path(via("tunnel0", "10.0.0.1")));
    rib.set(Origin::Kernel, MAIN, prefix("0.0.0.0/0"), over_tunnel.clone());
    rib.set(Origin::Kernel, MAIN, prefix("203.0.113.0/24"), over_tunnel.clone());
    rib.set(Origin::Shortcut, MAIN, prefix("203.0.113.7/32"), over_tunnel.clone());
    assert_eq!(rib.underlay(MAIN, nbma), None);
    // The kernel's own route by a port, which the daemon's has pushed aside, serves the underlay and nobody else.
    let gateway = Hop { interface: name("wan0"), next_hop: ip("198.51.100.1") };
    let default = prefix("0.0.0.0/0");
    rib.commit();
    rib.set(Origin::Underlay, MAIN, default, Some(Target::Path(Path::Via(gateway))));
    assert_eq!(rib.commit(), [(MAIN, default)]);
    assert_eq!(rib.underlay(MAIN, nbma), Some(gateway));
    assert_eq!(rib.program(MAIN, default), [(Owner::Netlink, via("tunnel0", "10.0.0.1"))]);
    rib.set(Origin::Kernel, MAIN, default, None);
    assert_eq!((rib.best(MAIN, ip("8.8.8.8")), rib.program(MAIN, default)), (None, Vec::new()));
    assert_eq!(rib.lookup(MAIN, ProtocolAddr(ip("8.8.8.8"))), None);
    assert!(rib.shown().iter().all(|r| r.origin != Origin::Underlay || !r.best));
    rib.set(Origin::Underlay, MAIN, default, None);
    rib.set(Origin::Kernel, MAIN, default, over_tunnel);
    fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
    assert_eq!(rib.underlay(MAIN, nbma), Some(gateway));
    let attached = Hop { interface: name("wan0"), next_hop: ip("198.51.100.9") };
    assert_eq!(rib.underlay(MAIN, NbmaAddr(ip("198.51.100.9"))), Some(attached));
    assert_eq!(rib.underlay(MAIN, NbmaAddr(ip("198.51.100.2"))), None, "that is ourselves");
    assert_eq!(rib.underlay(TableId(7), nbma), None, "another table");
}

#[test]
fn candidates_stand_in_order_and_each_owner_programs_its_best() {
    let mut rib = rib();
    let p = prefix("192.168.3.0/24");
    rib.set(Origin::Kernel, MAIN, p, Some(Target::Path(via("lan0", "192.168.2.9"))));
    fixed(&mut rib, "192.168.3.0/24", "10.0.0.1");
    rib.set(Origin::Shortcut, MAIN, p, Some(Target::Path(via("tunnel0", "10.0.0.3"))));
    assert_eq!(
        rib.program(MAIN, p),
        [
            (Owner::Nhrp, via("tunnel0", "10.0.0.3")),
            (Owner::Config, via("tunnel0", "10.0.0.1")),
            (Owner::Netlink, via("lan0", "192.168.2.9"))
        ]
    );
    // NHRP answers rest on no shortcut.
    let found = rib.lookup(MAIN, ProtocolAddr(ip("192.168.3.5"))).unwrap();
    let hub = Hop { interface: name("tunnel0"), next_hop: ip("10.0.0.1") };
    assert_eq!(found, Found { prefix: p, to: To::Tunnel(hub) });
    rib.set(Origin::LearntAddress, MAIN, p, Some(Target::Path(Path::Receive(name("lan0")))));
    assert_eq!(rib.best(MAIN, ip("192.168.3.5")).unwrap().1, Path::Receive(name("lan0")));
}

#[test]
fn what_engines_are_told() {
    let mut rib = rib();
    let look = |rib: &Rib, addr: &str| rib.lookup(MAIN, ProtocolAddr(ip(addr))).map(|f| f.to);
    assert_eq!(look(&rib, "192.168.2.1"), Some(To::Local));
    assert_eq!(look(&rib, "192.168.2.77"), Some(To::Elsewhere(name("lan0"))));
    let peer = |i: &str, a: &str| Some(To::Tunnel(Hop { interface: name(i), next_hop: ip(a) }));
    assert_eq!(look(&rib, "10.0.0.9"), peer("tunnel0", "10.0.0.9"));
    assert_eq!(look(&rib, "10.1.0.9"), peer("tunnel1", "10.1.0.9"));
    assert_eq!(look(&rib, "9.9.9.9"), None);
    // A port that does not forward is no way for what comes through a tunnel: nothing is answered for by it.
    fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
    assert_eq!(look(&rib, "9.9.9.9"), Some(To::Nowhere));
    assert_eq!(look(&rib, "198.51.100.9"), Some(To::Nowhere));
    let mut interfaces = rib.interfaces().clone();
    interfaces.insert(name("wan0"), Link::Port { is_open: true });
    rib.commit();
    rib.set_interfaces(interfaces);
    assert_eq!(look(&rib, "9.9.9.9"), Some(To::Elsewhere(name("wan0"))));
    assert!(rib.commit().contains(&(MAIN, prefix("0.0.0.0/0"))), "what was answered is looked at again");
    rib.set(Origin::Static, MAIN, prefix("9.0.0.0/8"), Some(Target::Path(Path::Blackhole)));
    assert_eq!(look(&rib, "9.9.9.9"), Some(To::Nowhere));
}

#[test]
fn a_part_that_leads_elsewhere_splits_a_prefix_and_own_addresses_do_not() {
    let mut rib = rib();
    let lan = To::Elsewhere(name("lan0"));
    let p = prefix("192.168.2.0/24");
    assert!(!rib.is_split(MAIN, p, &lan), "the own address 192.168.2.1/32 is inside");
    rib.set(
        Origin::Shortcut,
        MAIN,
        prefix("192.168.2.128/25"),
        Some(Target::Path(via("tunnel0", "10.0.0.3"))),
    );
    assert!(!rib.is_split(MAIN, p, &lan), "shortcuts do not count");
    rib.set(Origin::Static, MAIN, prefix("192.168.2.64/26"), Some(Target::Path(via("lan0", "192.168.2.9"))));
    assert!(!rib.is_split(MAIN, p, &lan));
    rib.set(Origin::Kernel, MAIN, prefix("192.168.2.128/25"), Some(Target::Path(via("tunnel0", "10.0.0.3"))));
    assert!(rib.is_split(MAIN, p, &lan));
    assert!(!rib.is_split(MAIN, prefix("192.168.3.0/24"), &lan), "outside");
}

#[test]
fn several_next_hops_count_as_far_as_they_resolve() {
    let mut rib = rib();
    let p = prefix("172.16.0.0/16");
    let all = ["192.168.2.8", "192.168.2.7", "203.0.113.1", "10.1.0.1"];
    let hops = |hops: &[&str]| Some(Target::NextHops(hops.iter().map(|h| ip(h).into()).collect()));
    rib.set(Origin::Static, MAIN, p, hops(&all));
    let lan = |n: u8| Hop { interface: name("lan0"), next_hop: IpAddr::from([192, 168, 2, n]) };
    let peer = Hop { interface: name("tunnel1"), next_hop: NO_ADDRESS };
    assert_eq!(rib.commit(), [(MAIN, p)]);
    assert_eq!(rib.best(MAIN, ip("172.16.1.1")), Some((p, Path::to([lan(7), lan(8), peer]).unwrap())));
    // One more resolves: a route to it came.
    rib.set(Origin::Kernel, MAIN, prefix("203.0.113.0/24"), Some(Target::Path(via("lan0", "192.168.2.9"))));
    assert_eq!(rib.commit(), [(MAIN, p), (MAIN, prefix("203.0.113.0/24"))]);
    assert_eq!(rib.program(MAIN, p), [(Owner::Config, Path::to([lan(7), lan(8), lan(9), peer]).unwrap())]);
    // What is left is one hop, in the form that its interface wants; and then none.
    let mut interfaces = rib.interfaces().clone();
    interfaces.remove(&name("lan0"));
    rib.set_interfaces(interfaces.clone());
    assert!(rib.commit().contains(&(MAIN, p)));
    assert_eq!(rib.program(MAIN, p), [(Owner::Config, Path::Attached(name("tunnel1")))]);
    interfaces.remove(&name("tunnel1"));
    rib.set_interfaces(interfaces);
    assert!(rib.commit().contains(&(MAIN, p)));
    assert_eq!(rib.program(MAIN, p), []);
    rib.set(Origin::Static, MAIN, p, None);
    rib.commit();
    assert!(rib.dependants.is_empty() && rib.recursive.is_empty());
}

#[test]
fn a_next_hop_that_is_itself_balanced_brings_its_hops_and_circles_of_many_end() {
    let mut rib = rib();
    let hops = |hops: &[&str]| Some(Target::NextHops(hops.iter().map(|h| ip(h).into()).collect()));
    rib.set(Origin::Static, MAIN, prefix("172.16.0.0/16"), hops(&["192.168.2.7", "192.168.2.8"]));
    rib.set(Origin::Static, MAIN, prefix("172.17.0.0/16"), hops(&["172.16.0.1", "10.0.0.1"]));
    let path = Path::to([
        Hop { interface: name("lan0"), next_hop: ip("192.168.2.7") },
        Hop { interface: name("lan0"), next_hop: ip("192.168.2.8") },
        Hop { interface: name("tunnel0"), next_hop: ip("10.0.0.1") },
    ]);
    assert_eq!(rib.best(MAIN, ip("172.17.0.9")).map(|(_, path)| path), path);
    let circle: Vec<String> = (0..16).map(|n| format!("172.18.{n}.1")).collect();
    let circle: Vec<&str> = circle.iter().map(String::as_str).collect();
    for n in 0..16 {
        rib.set(Origin::Static, MAIN, prefix(&format!("172.18.{n}.0/24")), hops(&circle));
    }
    rib.commit();
    assert_eq!(rib.best(MAIN, ip("172.18.3.9")), None);
}

#[test]
fn an_nbma_address_keeps_to_one_of_several_ways_and_never_to_a_tunnel() {
    let mut rib = rib();
    let wan = |n: u8| Hop { interface: name("wan0"), next_hop: IpAddr::from([198, 51, 100, n]) };
    let over_tunnel = Hop { interface: name("tunnel0"), next_hop: ip("10.0.0.1") };
    let default = prefix("0.0.0.0/0");
    let set = |rib: &mut Rib, hops: &[Hop]| {
        let path = Path::to(hops.iter().copied()).unwrap();
        rib.set(Origin::Kernel, MAIN, default, Some(Target::Path(path)));
    };
    let all = |rib: &Rib| -> Vec<Hop> {
        let peers = (0..=255).map(|n| NbmaAddr(IpAddr::from([203, 0, 113, n])));
        peers.map(|nbma| rib.underlay(MAIN, nbma).unwrap()).collect()
    };
    set(&mut rib, &[wan(1), wan(2), wan(3), over_tunnel]);
    let before = all(&rib);
    for n in 1..=3 {
        assert!(before.iter().filter(|hop| **hop == wan(n)).count() > 50, "each has its share");
    }
    set(&mut rib, &[wan(1), wan(3), over_tunnel]);
    for (was, is) in before.iter().zip(all(&rib)) {
        assert!(*was == wan(2) || *was == is, "only what was on the one that went moves");
    }
    set(&mut rib, &[over_tunnel]);
    assert_eq!(rib.underlay(MAIN, NbmaAddr(ip("203.0.113.7"))), None);
}

#[test]
fn tables_with_the_same_addresses_keep_apart() {
    let mut rib = rib();
    let red = TableId(10);
    let mut interfaces = rib.interfaces().clone();
    interfaces.insert(name("red0"), Link::Port { is_open: true });
    rib.set_interfaces(interfaces);
    rib.set(Origin::Address, red, prefix("192.168.2.0/24"), Some(Target::Path(Path::Attached(name("red0")))));
    for table in [MAIN, red] {
        let by = Target::NextHops(vec![ip("192.168.2.9").into()]);
        rib.set(Origin::Static, table, prefix("172.16.0.0/16"), Some(by));
    }
    rib.commit();
    assert_eq!(rib.best(MAIN, ip("172.16.0.1")).unwrap().1, via("lan0", "192.168.2.9"));
    assert_eq!(rib.best(red, ip("172.16.0.1")).unwrap().1, via("red0", "192.168.2.9"));
    // What goes in one changes nothing in the other.
    rib.set(Origin::Address, MAIN, prefix("192.168.2.0/24"), None);
    let changed = rib.commit();
    assert!(changed.contains(&(MAIN, prefix("172.16.0.0/16"))));
    assert!(changed.iter().all(|(table, _)| *table == MAIN), "{changed:?}");
    assert_eq!(rib.best(red, ip("172.16.0.1")).unwrap().1, via("red0", "192.168.2.9"));
    assert_eq!(rib.lookup(red, ProtocolAddr(ip("10.0.0.9"))), None);
}

#[test]
fn a_link_local_next_hop_is_one_of_its_interface() {
    let mut rib = rib();
    let daemon = via("lan0", "fe80::1");
    rib.set(Origin::Kernel, MAIN, prefix("2001:db8::/32"), Some(Target::Path(daemon.clone())));
    assert_eq!(rib.best(MAIN, ip("2001:db8::1")), Some((prefix("2001:db8::/32"), daemon)));
    let named = Target::NextHops(vec![
        NextHop { addr: ip("fe80::1"), interface: Some(name("wan0")) },
        NextHop { addr: ip("fe80::2"), interface: Some(name("wan0")) },
    ]);
    rib.set(Origin::Static, MAIN, prefix("::/0"), Some(named));
    let hop = rib.underlay(MAIN, NbmaAddr(ip("2001:db9::7"))).unwrap();
    assert!(
        hop == Hop { interface: name("wan0"), next_hop: ip("fe80::1") }
            || hop == Hop { interface: name("wan0"), next_hop: ip("fe80::2") }
    );
    let nameless = Target::NextHops(vec![ip("fe80::1").into()]);
    rib.set(Origin::Static, MAIN, prefix("2001:db9::/32"), Some(nameless));
    assert_eq!(rib.path(Origin::Static, MAIN, prefix("2001:db9::/32")), None, "of which interface?");
}

#[test]
fn of_several_ways_nhrp_sees_the_one_that_leaves_the_cloud() {
    let mut rib = rib();
    let hop = |interface: &str, next_hop: &str| Hop { interface: name(interface), next_hop: ip(next_hop) };
    let look = |rib: &mut Rib, hops: &[Hop]| {
        let path = Path::to(hops.iter().copied()).unwrap();
        rib.set(Origin::Kernel, MAIN, prefix("172.16.0.0/16"), Some(Target::Path(path)));
        rib.lookup(MAIN, ProtocolAddr(ip("172.16.0.1"))).unwrap().to
    };
    let hubs = [hop("tunnel0", "10.0.0.1"), hop("tunnel0", "10.0.0.254")];
    assert_eq!(look(&mut rib, &hubs), To::Tunnel(hubs[0]));
    assert_eq!(look(&mut rib, &[hubs[0], hop("lan0", "192.168.2.9")]), To::Elsewhere(name("lan0")));
    assert_eq!(look(&mut rib, &[hubs[0], hop("wan0", "198.51.100.9")]), To::Tunnel(hubs[0]));
}

proptest! {
    /// What a commit tells is all that is different, as if every route were resolved anew.
    #[test]
    fn a_commit_misses_nothing(
        steps in prop::collection::vec((any::<u32>(), 1u8..=32, any::<u32>(), 0u8..4), 1..80),
    ) {
        let mut rib = rib();
        let pick = |bits: u32| std::net::Ipv4Addr::from(0x0a00_0000 | bits & 0x0001_8181);
        let mut before = BTreeMap::new();
        for (bits, length, hop, kind) in steps {
            let p = Prefix::new(pick(bits).into(), length).unwrap();
            match kind {
                0 => rib.set(Origin::Static, MAIN, p, None),
                1 => rib.set(Origin::Kernel, MAIN, p, Some(Target::Path(Path::Attached(name("lan0"))))),
                2 => rib.set(Origin::Kernel, MAIN, p, None),
                _ => rib.set(Origin::Static, MAIN, p, Some(Target::NextHops(vec![IpAddr::from(pick(hop)).into()]))),
            }
            let told = rib.commit();
            let now: BTreeMap<_, _> =
                rib.tables[&MAIN].prefixes.keys().map(|&p| (p, rib.program(MAIN, p))).collect();
            for p in now.keys().chain(before.keys()) {
                let none = Vec::new();
                let (was, is) = (before.get(p).unwrap_or(&none), now.get(p).unwrap_or(&none));
                prop_assert!(was == is || told.contains(&(MAIN, *p)) || before.is_empty(), "{}", p);
            }
            before = now;
        }
    }

    /// Longest match agrees with a search through all prefixes, whatever was set and removed before.
    #[test]
    fn longest_match_is_the_longest(
        steps in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 1..60),
        probes in prop::collection::vec(any::<u32>(), 1..20),
    ) {
        let mut rib = Rib::default();
        let mut naive: BTreeMap<Prefix, ()> = BTreeMap::new();
        for (bits, length, is_put) in steps {
            // Few different addresses, so that prefixes nest and are removed again.
            let p = Prefix::new(std::net::Ipv4Addr::from(bits & 0x8181_0301).into(), length).unwrap();
            rib.set(Origin::Static, MAIN, p, is_put.then_some(Target::Path(Path::Blackhole)));
            if is_put { naive.insert(p, ()); } else { naive.remove(&p); }
        }
        for bits in probes {
            let addr: IpAddr = std::net::Ipv4Addr::from(bits & 0x8181_0301).into();
            let expected = naive.keys().filter(|p| p.contains(addr)).max_by_key(|p| p.length()).copied();
            prop_assert_eq!(rib.best(MAIN, addr).map(|(p, _)| p), expected);
        }
    }
}
