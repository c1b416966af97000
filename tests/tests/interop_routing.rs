//! OSPF through the tunnel between nodes of Nave, with a routing daemon on their twins, and of Linux and FRR: its multicast is carried
//! both ways by the hub, whoever that is.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::frr::Frr;
use tests::guest::Guest;
use tests::vm::Vm;
use tests::{lock, wait};

/// Of a Nave node: what it is told beside its twins.
const OSPF: &str = "
interface tunnel0
 ip ospf network point-to-multipoint
 ip ospf hello-interval 1
 ip ospf dead-interval 8
interface lan
 ip ospf passive
router ospf
 network 10.255.0.0/24 area 0
 network 192.168.0.0/16 area 0
";

/// A cloud in which nothing but what OSPF learns leads from LAN to LAN. Nothing runs yet. Tunnel addresses are hosts, as nhrpd wants them:
/// OSPF compares masks.
fn cloud() -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    for node in &mut cloud.nodes {
        node.config.remove("routes");
        let tunnel = node.tunnel;
        node.edit(|text| text.replace(&format!("{tunnel}/24"), &format!("{tunnel}/32"))).unwrap();
    }
    cloud
}

/// Waits until a router is fully adjacent to these many others.
fn wait_full(show: impl Fn() -> anyhow::Result<Value>, wanted: usize, logs: impl Fn() -> String) {
    wait::until(&format!("{wanted} full OSPF neighbours"), Duration::from_secs(60), || {
        let neighbours = show()?;
        let full = neighbours.to_string().matches("\"converged\":\"Full\"").count();
        ensure!(full == wanted, "{neighbours:#}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", logs()));
}

const NEIGHBOURS: &str = "show ip ospf neighbor json";

/// A Nave node has learnt the way to a LAN, and its FIB goes it.
fn wait_learnt(cloud: &Cloud, node: usize, network: &str) {
    wait::until(&format!("{network} on {}", cloud.nodes[node].name), Duration::from_secs(30), || {
        let fib = cloud.nodes[node].nave_json("show fib")?;
        let entry = fib.as_array().and_then(|f| f.iter().find(|e| e["prefix"] == network).cloned());
        ensure!(entry.is_some_and(|e| e["owner"] == "netlink"), "{fib:#}");
        Ok(())
    })
    .unwrap();
}

/// An FRR machine has learnt the way to a LAN.
fn wait_learnt_by_frr(vm: &Vm, network: &str) {
    wait::until(&format!("{network} on {}", vm.name), Duration::from_secs(30), || {
        let routes = vm.run("ip route show proto ospf")?.1;
        ensure!(routes.contains(network), "{routes}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.log()));
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn ospf_of_an_frr_spoke_goes_through_a_nave_hub() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud();
    for index in [HUB, SPOKE1] {
        cloud.start_node(index).unwrap();
    }
    let [vm] = Vm::boot(&cloud, [Guest::spoke(&cloud, 13).routing()]).unwrap();
    vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
    cloud.wait_registered(SPOKE1).unwrap();
    let hub = Frr::start(&cloud.nodes[HUB], OSPF).unwrap();
    let spoke = Frr::start(&cloud.nodes[SPOKE1], OSPF).unwrap();
    let logs = || format!("{}\n{}\n{}", vm.log(), hub.logs(), cloud.nodes[HUB].nave("show drops").unwrap());
    wait_full(|| hub.show(NEIGHBOURS), 2, logs);
    wait_full(|| spoke.show(NEIGHBOURS), 1, logs);
    wait_full(|| vm.show(NEIGHBOURS), 1, logs);

    wait_learnt(&cloud, HUB, "192.168.13.0/24");
    wait_learnt(&cloud, SPOKE1, "192.168.13.0/24");
    for network in ["192.168.1.0/24", "192.168.11.0/24"] {
        wait_learnt_by_frr(&vm, network);
    }
    vm.ping(cloud.nodes[HUB].host.address()).unwrap();
    vm.ping(cloud.nodes[SPOKE1].host.address()).unwrap();
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn ospf_of_a_nave_spoke_goes_through_an_frr_hub() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud();
    let guests = [Guest::hub(&cloud, &[]).routing(), Guest::spoke(&cloud, 13).routing()];
    let [hub, vm] = Vm::boot(&cloud, guests).unwrap();
    cloud.start_node(SPOKE1).unwrap();
    let spoke = Frr::start(&cloud.nodes[SPOKE1], OSPF).unwrap();
    let logs = || format!("{}\n{}", hub.log(), spoke.logs());
    wait_full(|| hub.show(NEIGHBOURS), 2, logs);
    wait_full(|| spoke.show(NEIGHBOURS), 1, logs);
    for network in ["192.168.1.0/24", "192.168.13.0/24"] {
        wait_learnt(&cloud, SPOKE1, network);
    }
    for vm in [&hub, &vm] {
        wait_learnt_by_frr(vm, "192.168.11.0/24");
    }
    assert!(cloud.pings(SPOKE1, vm.lan).unwrap(), "{}", vm.log());
    cloud.check_alive().unwrap();
}
