//! OSPFv3 on the kernel twins of a cloud: its next hops are link-local addresses, which NHRP registers and resolves and the data plane finds
//! tunnel by tunnel.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::time::Duration;

use tests::cloud::{self, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::frr::Frr;
use tests::{lock, wait};

/// The hub is the designated router: it alone hears all.
fn ospf6(number: u8, priority: u8) -> String {
    format!(
        "interface tunnel0
 ipv6 ospf6 area 0
 ipv6 ospf6 network broadcast
 ipv6 ospf6 priority {priority}
 ipv6 ospf6 hello-interval 1
 ipv6 ospf6 dead-interval 4
interface lan
 ipv6 ospf6 area 0
 ipv6 ospf6 passive
router ospf6
 ospf6 router-id 10.255.0.{number}
"
    )
}

/// The link-local address that goes with 2001:db8:ff::`number`.
fn link_local(cloud: &Cloud, node: usize) -> String {
    format!("fe80::{}", cloud.nodes[node].host.number)
}

/// Input: a dual-stack cloud without static routes; ospf6d on every node. Output: the hub is full with both spokes; every LAN's route is by a
/// link-local next hop, of the station that has it, in kernel and FIB; traffic goes by them, between the spokes by the one that was resolved.
#[test]
fn ospf_for_ipv6_goes_by_link_local_next_hops_from_hub_to_spokes_and_between_them() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Tap).unwrap();
    for node in &mut cloud.nodes {
        node.config.remove("routes");
        // What OSPF does not do, shortcuts shall not.
        node.nhrp().unwrap().remove("redirect");
        node.nhrp().unwrap().remove("shortcut");
    }
    cloud.start().unwrap();
    for node in [HUB, SPOKE1, SPOKE2] {
        let addresses = cloud.nodes[node].namespace.ip("-6 -o addr show dev tunnel0 scope link").unwrap();
        let own = format!("{}/64", link_local(&cloud, node));
        assert!(addresses.lines().count() == 1 && addresses.contains(&own), "{addresses}");
    }
    for spoke in [SPOKE1, SPOKE2] {
        let address: std::net::IpAddr = link_local(&cloud, spoke).parse().unwrap();
        wait::until("the registration of a link-local address", Duration::from_secs(15), || {
            let bound = cloud.nodes[HUB].binding(address)?;
            anyhow::ensure!(
                bound.is_some_and(|(_, nbma)| nbma == std::net::IpAddr::from(cloud.nodes[spoke].nbma)),
                "{}",
                cloud.nodes[HUB].nave("show nhrp")?
            );
            Ok(())
        })
        .unwrap();
    }
    let far = cloud.nodes[SPOKE2].host.address6();
    assert!(!cloud.pings(SPOKE1, far).unwrap(), "no route yet");

    let daemons: Vec<_> = cloud
        .nodes
        .iter()
        .map(|node| {
            let priority = if node.name == "hub" { 10 } else { 0 };
            Frr::start_ospf6(node, &ospf6(node.host.number, priority)).unwrap()
        })
        .collect();
    for (node, wanted) in [(HUB, 2), (SPOKE1, 1), (SPOKE2, 1)] {
        let what = format!("{wanted} full OSPFv3 neighbours of {}", cloud.nodes[node].name);
        wait::until(&what, Duration::from_secs(60), || {
            let neighbours = daemons[node].show("show ipv6 ospf6 neighbor json")?;
            let full = neighbours.to_string().matches("\"state\":\"Full\"").count();
            anyhow::ensure!(full == wanted, "{neighbours:#}");
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.nodes[node].nave("show drops").unwrap()));
    }

    // Both ways, and between the spokes, each by the station that has the LAN.
    for (node, to) in [(HUB, SPOKE1), (HUB, SPOKE2), (SPOKE1, HUB), (SPOKE1, SPOKE2), (SPOKE2, SPOKE1)] {
        let network = format!("2001:db8:a:{}::/64", cloud.nodes[to].host.number);
        let next_hop = link_local(&cloud, to);
        let what = format!("the route of {} to {network}", cloud.nodes[node].name);
        wait::until(&what, Duration::from_secs(30), || {
            let kernel = cloud.nodes[node].namespace.ip("-6 route show proto ospf")?;
            let by_it = |line: &str| {
                line.starts_with(&network) && line.contains(&format!("via {next_hop} dev tunnel0 "))
            };
            anyhow::ensure!(kernel.lines().any(by_it), "kernel: {kernel}");
            let fib = cloud.nodes[node].nave_json("show fib")?;
            let entry = fib.as_array().and_then(|all| all.iter().find(|e| e["prefix"] == network.as_str()));
            anyhow::ensure!(entry.is_some_and(|e| e["owner"] == "netlink"), "fib: {fib:#}");
            Ok(())
        })
        .unwrap();
    }
    for to in [HUB, SPOKE2] {
        let far = cloud.nodes[to].host.address6();
        wait::until_true("ping between the LANs", Duration::from_secs(20), || {
            cloud.pings(SPOKE1, far).unwrap()
        })
        .unwrap();
    }
    // The other spoke was asked for by its link-local address, and is reached straight.
    let peer: std::net::IpAddr = link_local(&cloud, SPOKE2).parse().unwrap();
    wait::until("the binding of the other spoke", Duration::from_secs(20), || {
        cloud.pings(SPOKE1, far)?;
        let bound = cloud.nodes[SPOKE1].binding(peer)?;
        let nbma = std::net::IpAddr::from(cloud.nodes[SPOKE2].nbma);
        anyhow::ensure!(
            bound.is_some_and(|(_, found)| found == nbma),
            "{}",
            cloud.nodes[SPOKE1].nave("show nhrp")?
        );
        Ok(())
    })
    .unwrap();
    // What the hub's daemon sent to groups went to both spokes, and is counted for each.
    let adjacencies = cloud.nodes[HUB].nave_json("show adjacency --interface tunnel0").unwrap();
    let replicas: Vec<_> =
        adjacencies.as_array().unwrap().iter().filter(|a| a["multicast"] == true).collect();
    for spoke in [SPOKE1, SPOKE2] {
        let nbma = cloud.nodes[spoke].nbma.to_string();
        let of_it = replicas.iter().find(|a| a["nbma"] == nbma.as_str());
        let count = |field: &str| of_it.and_then(|a| a[field].as_u64()).unwrap_or(0);
        assert!(count("packets") >= 5 && count("bytes") > 40 * count("packets"), "{adjacencies:#}");
    }
    assert_eq!(replicas.len(), 2, "{adjacencies:#}");
    for node in &cloud.nodes {
        let drops = node.nave_json("show drops").unwrap();
        let scope = drops.as_array().into_iter().flatten().filter(|d| d["name"] == "scope");
        assert_eq!(scope.map(|d| d["count"].as_u64().unwrap_or(0)).sum::<u64>(), 0, "{drops:#}");
    }
}
