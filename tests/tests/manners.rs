//! What a router tells the senders of packets that cannot go on, as hosts hear it: the hops of a path, and that nothing leads
//! there. Of both families. How large a packet may be: `mtu.rs`.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::time::Duration;

use tests::cloud::{self, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::{lock, path, wait};

/// The spokes' hosts in touch, of both families.
fn reach(cloud: &Cloud) {
    let host = &cloud.nodes[SPOKE2].host;
    for to in [IpAddr::from(host.address()), host.address6().into()] {
        wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {to}\n{}", cloud.logs()));
    }
}

/// Hops from the first spoke's host to the second's, IPv4 and IPv6.
fn hops(cloud: &Cloud) -> [Vec<IpAddr>; 2] {
    let (from, to) = (&cloud.nodes[SPOKE1].host, &cloud.nodes[SPOKE2].host);
    [to.address().into(), to.address6().into()].map(|to| path::hops(&from.namespace, to).unwrap())
}

/// Addresses of nodes in the order of a path, IPv4 and IPv6: the first node's on its LAN, the others' on the tunnel, the host's.
fn by(cloud: &Cloud, nodes: &[usize]) -> [Vec<IpAddr>; 2] {
    let (first, host) = (&cloud.nodes[SPOKE1].host, &cloud.nodes[SPOKE2].host);
    let tunnels = |of: fn(&tests::node::Node) -> IpAddr| nodes.iter().map(move |&n| of(&cloud.nodes[n]));
    let v4 = tunnels(|node| node.tunnel.into());
    let v6 = tunnels(|node| node.tunnel6.into());
    [
        std::iter::once(first.router().into()).chain(v4).chain([host.address().into()]).collect(),
        std::iter::once(first.router6().into()).chain(v6).chain([host.address6().into()]).collect(),
    ]
}

/// Input: traceroute between the spokes' hosts, of both families, before and after the hub tells of better ways. Output: each
/// node by the address of the interface that the packet came in by.
fn a_path_shows_its_hops(over_ipv6: bool) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Tap).unwrap();
    if over_ipv6 {
        cloud.number_in_ipv6().unwrap();
    }
    let redirect = |cloud: &mut Cloud, on: bool| {
        let nhrp = cloud.nodes[HUB].config["tunnels"][0]["nhrp"].as_table_mut().unwrap();
        nhrp.insert("redirect".to_owned(), on.into());
    };
    redirect(&mut cloud, false);
    cloud.start().unwrap();
    reach(&cloud);
    assert_eq!(hops(&cloud), by(&cloud, &[HUB, SPOKE2]));

    redirect(&mut cloud, true);
    cloud.nodes[HUB].apply().unwrap();
    wait::until("the shortcuts", Duration::from_secs(10), || {
        let hops = hops(&cloud);
        anyhow::ensure!(hops == by(&cloud, &[SPOKE2]), "{hops:?}");
        Ok(())
    })
    .unwrap();

    // Where no route leads.
    let from = &cloud.nodes[SPOKE1].host;
    for (far, router, words) in [
        ("198.18.0.1", IpAddr::from(from.router()), "Destination Net Unreachable"),
        ("2001:db8:bad::1", from.router6().into(), "Destination unreachable: No route"),
    ] {
        let said = from.namespace.output("ping", &["-n", "-c", "1", "-W", "2", far]).unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains(&format!("From {router}")) && said.contains(words), "{said}");
    }
    cloud.check_alive().unwrap();
}

#[test]
fn a_path_shows_its_hops_in_both_families() {
    a_path_shows_its_hops(false);
}

#[test]
fn a_path_over_ipv6_shows_its_hops_in_both_families() {
    a_path_shows_its_hops(true);
}
