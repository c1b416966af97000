//! What packets of protected tunnels take.

use std::net::IpAddr;

use wire::esp;

use super::*;

/// Over which family, on a link with a tag, in UDP, in which mode, with a GRE key.
fn all_forms() -> impl Iterator<Item = (bool, bool, bool, SaMode, bool)> {
    (0..32_u8).map(|bits| {
        let is = |bit: u8| bits & bit != 0;
        (is(1), is(2), is(4), if is(8) { SaMode::Tunnel } else { SaMode::Transport }, is(16))
    })
}

#[test]
fn a_sealed_midchain_has_every_header_but_the_one_that_is_made_for_each_packet() {
    for (v6, tagged, in_udp, mode, keyed) in all_forms() {
        let what = format!("{v6} {tagged} {in_udp} {mode} {keyed}");
        let mut hub = Hub::new(1);
        let (local, remote) = if v6 { ("2001:db8::1", "2001:db8::9") } else { ("192.0.2.1", "192.0.2.9") };
        let port = if in_udp { 1024 } else { 0 };
        let protection = peer("one", remote, port);
        let sa = OutboundSa { mode, ..outbound_sa(0, 0x1234, protection, 2, (1, 9)) };
        let tunnel = Tunnel { source: nbma(local), ..tunnel("tun", keyed.then_some(42), Some("one")) };
        let sa = Object::OutboundSa(sa);
        hub.put([
            interface(tagged.then_some(10)),
            Object::Tunnel(tunnel),
            neighbour(remote),
            binding("tun", "10.0.0.9", remote, port),
        ]);
        if v6 && in_udp && mode == SaMode::Tunnel {
            hub.refused(sa);
            hub.settle();
            assert_eq!(hub.entry("tun", "10.0.0.9").kind, Kind::Unprotected, "{what}");
            continue;
        }
        hub.put([sa]);
        hub.settle();
        let entry = hub.entry("tun", "10.0.0.9");
        let is = |flag: u8| entry.flags & flag != 0;
        assert_eq!((entry.kind, is(flag::ESP), is(flag::PLAIN)), (Kind::Midchain, true, false), "{what}");
        let flags = (is(flag::ESP_UDP), is(flag::ESP_TUNNEL), is(flag::OUTER6));
        assert_eq!(flags, (in_udp, mode == SaMode::Tunnel, v6), "{what}");
        assert_eq!((entry.nbma(), entry.protection), (remote.parse::<IpAddr>().unwrap(), 0), "{what}");

        let mut at = if tagged { 18 } else { 14 };
        let (ip, protocol_at) = if v6 { (40, 6) } else { (20, 9) };
        let rewrite = &entry.rewrite[..entry.form.into()];
        assert_eq!(rewrite[at + protocol_at], if in_udp { 17 } else { 50 }, "{what}");
        let outer = at;
        at += ip;
        if in_udp {
            // From 4500 (RFC 3948 §2.1) to the peer's port; the rest is each packet's.
            assert_eq!(rewrite[at..at + 8], [0x11, 0x94, 4, 0, 0, 0, 0, 0], "{what}");
            at += 8;
        }
        assert_eq!(entry.gap(), Some(at), "{what}");
        if mode == SaMode::Tunnel {
            assert_eq!(rewrite[at + protocol_at], 47, "{what}");
            let addresses = if v6 { 8..40 } else { 12..20 };
            let of = |ip: usize| &rewrite[ip + addresses.start..ip + addresses.end];
            assert_eq!(of(at), of(outer), "{what}");
            if !v6 {
                assert_eq!(rewrite[at..at + 12], [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 47, 0, 0], "{what}");
            }
            at += ip;
        }
        assert_eq!(rewrite[at..at + 4], [if keyed { 0x20 } else { 0 }, 0, 8, 0], "{what}");
        assert_eq!(rewrite.len(), at + if keyed { 8 } else { 4 }, "{what}");
        // What is shown has the SPI in its place.
        let shown = hub.program.adjacencies().find(|a| a.kind == Kind::Midchain).unwrap();
        let gap = entry.gap().unwrap();
        assert_eq!(shown.rewrite[gap..gap + 16], [0, 0, 0x12, 0x34, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let without = [&shown.rewrite[..gap], &shown.rewrite[gap + 16..]].concat();
        assert_eq!((without, shown.spis), (rewrite.to_vec(), vec![Spi::new(0x1234).unwrap()]), "{what}");
        largest_fits(&hub.entry("tun", "10.0.0.9"), tagged, &what);
    }
}

/// The largest packet that an entry takes is the largest whose outer one is no more than the link's 1,500 bytes.
fn largest_fits(entry: &Adjacency, tagged: bool, what: &str) {
    let clear = entry.gap().unwrap() - if tagged { 18 } else { 14 };
    let sealed = usize::from(entry.form) - entry.gap().unwrap();
    // Straight from RFC 4303 §2: payload, padding until it and the two bytes of trailer are whole words, ICV.
    let outer = |inner: usize| {
        let mut text = sealed + inner + 2;
        while !text.is_multiple_of(4) {
            text += 1;
        }
        clear + 16 + text + esp::ICV
    };
    let naive = (0..=1500).rev().find(|inner| outer(*inner) <= 1500).unwrap();
    assert_eq!(usize::from(entry.mtu), naive.min(1400), "{what}");
    // 40 less than that, as of any midchain.
    assert_eq!(usize::from(entry.mss), naive.min(1400) - 40, "{what}");
}

#[test]
fn a_smaller_path_makes_sealed_packets_smaller() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    hub.put([
        neighbour("192.0.2.9"),
        binding("tun", "10.0.0.9", "192.0.2.9", 0),
        Object::OutboundSa(outbound_sa(0, 0x1234, protection, 2, (1, 9))),
    ]);
    for mtu in 576..700 {
        hub.put([Object::PathMtu(model::program::PathMtu {
            tunnel: name("tun"),
            nbma: nbma("192.0.2.9"),
            mtu,
            expires_in: None,
        })]);
        hub.settle();
        // IPv4, ESP of 16 bytes, GRE of 8, ICV.
        let text = (usize::from(mtu) - 20 - 16 - 16) / 4 * 4;
        assert_eq!(usize::from(hub.entry("tun", "10.0.0.9").mtu), text - 2 - 8, "{mtu}");
    }
}

#[test]
fn two_peers_behind_one_address_are_two() {
    let mut hub = Hub::new(1);
    let ports = [1024, 1025];
    hub.put([neighbour("192.0.2.9")]);
    for (n, port) in ports.into_iter().enumerate() {
        hub.put([
            binding("tun", &format!("10.0.0.{}", n + 2), "192.0.2.9", port),
            replica("tun", "192.0.2.9", port),
        ]);
    }
    let sa = |n: usize| {
        let protection = peer("one", "192.0.2.9", ports[n]);
        Object::OutboundSa(outbound_sa(0, 0x300 + n as u32, protection, n as u8, (1, 9)))
    };
    hub.put([sa(0)]);
    hub.settle();
    let replicas = |hub: &Hub| {
        let all = hub.program.adjacencies().filter(|a| a.replica).map(|a| (a.kind, a.spis));
        all.collect::<Vec<_>>()
    };
    let spi = |n: u32| vec![Spi::new(0x300 + n).unwrap()];
    assert_eq!(replicas(&hub), [(Kind::Midchain, spi(0)), (Kind::Unprotected, vec![])]);
    assert_eq!(hub.entry("tun", "10.0.0.3").kind, Kind::Unprotected);
    hub.put([sa(1)]);
    hub.settle();
    assert_eq!(replicas(&hub), [(Kind::Midchain, spi(0)), (Kind::Midchain, spi(1))]);
    let entries = [hub.entry("tun", "10.0.0.2"), hub.entry("tun", "10.0.0.3")];
    assert_eq!(entries.map(|entry| entry.protection), [0, 1]);
    assert_eq!(entries.map(|entry| [entry.rewrite[36], entry.rewrite[37]]), [[4, 0], [4, 1]]);
    // What the control plane sends goes by the port, too; to one that nobody has there is no way.
    let tables = &hub.workers[0].tables;
    let id = hub.program.interface_id(name("tun")).unwrap();
    let way = |port| {
        let way = tables.way(id, tables.tunnel(id.0).unwrap(), "192.0.2.9".parse().unwrap(), port);
        (way.link.is_some(), way.protection)
    };
    assert_eq!(
        [1024, 1025, 1026, 0].map(way),
        [(true, 0), (true, 1), (false, UNPROTECTED), (false, UNPROTECTED)]
    );
    // Their replicas are one receiver for a tunnel in the clear.
    hub.put([Object::Tunnel(tunnel("tun", Some(42), None))]);
    hub.settle();
    let tables = &hub.workers[0].tables;
    let way = |port| {
        let way = tables.way(id, tables.tunnel(id.0).unwrap(), "192.0.2.9".parse().unwrap(), port);
        (way.link.is_some(), way.protection)
    };
    assert_eq!([1024, 0].map(way), [(true, UNPROTECTED); 2]);
}

#[test]
fn a_peer_that_no_binding_names_yet_can_be_answered() {
    let mut hub = Hub::new(1);
    hub.put([Object::OutboundSa(outbound_sa(0, 0x300, peer("one", "192.0.2.9", 1024), 1, (1, 9)))]);
    hub.settle();
    let tables = &hub.workers[0].tables;
    let id = hub.program.interface_id(name("tun")).unwrap();
    let way = |to: &str, port| tables.way(id, tables.tunnel(id.0).unwrap(), to.parse().unwrap(), port);
    assert_eq!(way("192.0.2.9", 1024), crate::tables::Way { link: None, protection: 0 });
    for (to, port) in [("192.0.2.9", 0), ("192.0.2.8", 1024)] {
        assert_eq!(way(to, port).protection, UNPROTECTED, "{to} {port}");
    }
}

#[test]
fn a_tunnel_that_becomes_protected_has_nothing_in_the_clear_from_one_view_to_the_next() {
    let mut hub = Hub::new(1);
    let clear = || Object::Tunnel(tunnel("tun", Some(42), None));
    let protected = || Object::Tunnel(tunnel("tun", Some(42), Some("one")));
    hub.put([clear(), fallback("tun", "10.0.0.2")]);
    for n in 2..100_u32 {
        let to = format!("192.0.2.{n}");
        hub.put([neighbour(&to), binding("tun", &format!("10.0.0.{n}"), &to, 0), replica("tun", &to, 0)]);
        if n.is_multiple_of(2) {
            let protection = peer("one", &to, 0);
            hub.put([Object::OutboundSa(outbound_sa(0, 0x300 + n, protection, 1, (1, 9)))]);
        }
    }
    hub.settle();
    let counts = |hub: &Hub| {
        let tables = &hub.workers[0].tables;
        let all = hub.program.adjacencies().filter(|a| a.nbma.is_some());
        let entries = all.map(|a| *tables.adjacencies.at(a.id).unwrap());
        let (mut plain, mut sealed, mut none) = (0, 0, 0);
        for entry in entries {
            match (entry.kind, entry.flags & flag::ESP != 0) {
                (Kind::Midchain, false) => plain += 1,
                (Kind::Midchain, true) => sealed += 1,
                (Kind::Unprotected, _) => none += 1,
                other => panic!("{other:?}"),
            }
        }
        (plain, sealed, none)
    };
    let domain = |hub: &Hub| hub.workers[0].tables.tunnel(hub.program.ids[&name("tun")].0).unwrap().domain;
    assert_eq!((counts(&hub), domain(&hub)), ((196, 0, 0), 0));
    for _ in 0..2 {
        // One view has it all.
        let before = hub.program.publisher.generation();
        hub.put([protected()]);
        assert_eq!(hub.program.publisher.generation(), before + 1);
        hub.workers[0].breathe();
        assert_eq!((counts(&hub), domain(&hub)), ((0, 98, 98), 1));
        hub.put([clear()]);
        hub.workers[0].breathe();
        assert_eq!((counts(&hub), domain(&hub)), ((196, 0, 0), 0));
    }
    // Another profile, another domain: none of the SAs is for it.
    hub.put([Object::Tunnel(tunnel("tun", Some(42), Some("two")))]);
    hub.workers[0].breathe();
    assert_eq!((counts(&hub), domain(&hub)), ((0, 0, 196), 2));
}

#[test]
fn a_point_to_point_tunnel_is_sealed_for_its_peer() {
    let mut hub = Hub::new(1);
    let destination = nbma("192.0.2.9");
    let mut tunnel = tunnel("gre1", Some(7), Some("one"));
    tunnel.mode = TunnelMode::PointToPoint { destination };
    let protection = peer("one", "192.0.2.9", 4501);
    hub.put([Object::Tunnel(tunnel), neighbour("192.0.2.9"), binding("gre1", "0.0.0.0", "192.0.2.9", 4501)]);
    hub.settle();
    assert_eq!(hub.entry("gre1", "0.0.0.0").kind, Kind::Unprotected);
    hub.put([Object::OutboundSa(outbound_sa(0, 0x300, protection, 1, (1, 9)))]);
    hub.settle();
    let entry = hub.entry("gre1", "0.0.0.0");
    let flags = flag::ESP | flag::ESP_UDP | flag::PEER;
    assert_eq!((entry.kind, entry.flags & !flag::DF_COPY), (Kind::Midchain, flags));
    hub.remove([Key::Tunnel(name("gre1")), binding("gre1", "0.0.0.0", "192.0.2.9", 4501).key()]);
    hub.settle();
    assert!(hub.workers[0].outbound.contains_key(&0), "an SA needs no tunnel");
}

#[test]
fn an_sa_comes_and_goes_whatever_link_there_is() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    let sa = Object::OutboundSa(outbound_sa(0, 0x300, protection, 1, (1, 9)));
    let Object::Binding(to) = binding("tun", "10.0.0.9", "192.0.2.9", 0) else { panic!("a binding") };
    hub.put([Object::Binding(Binding { link: None, ..to })]);
    let kind = |hub: &mut Hub| {
        hub.settle();
        let entry = hub.entry("tun", "10.0.0.9");
        (entry.kind, entry.interface == hub.program.ids[&name("tun")].0)
    };
    assert_eq!(kind(&mut hub), (Kind::Unprotected, true));
    hub.put([sa.clone()]);
    assert_eq!(kind(&mut hub), (Kind::Incomplete, true));
    hub.put([Object::Binding(to)]);
    assert_eq!(kind(&mut hub), (Kind::Incomplete, false), "the link is to be resolved");
    hub.remove([sa.key()]);
    assert_eq!(kind(&mut hub), (Kind::Unprotected, true));
    hub.put([neighbour("192.0.2.9")]);
    assert_eq!(kind(&mut hub), (Kind::Unprotected, true));
    hub.put([sa.clone()]);
    assert_eq!(kind(&mut hub), (Kind::Midchain, true));
    hub.remove([neighbour("192.0.2.9").key()]);
    assert_eq!(kind(&mut hub), (Kind::Incomplete, false));
    hub.remove([Object::Binding(to).key()]);
    hub.settle();
    assert!(hub.program.adjacencies().all(|a| a.nbma.is_none()));
}
