//! A routing daemon that knows nothing of Nave runs on the kernel twins: OSPF through the tunnel, multicast and all.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::time::Duration;

use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::frr::Frr;
use tests::{lock, wait};

const OSPF: &str = "
interface tunnel0
 ip ospf network point-to-multipoint
 ip ospf hello-interval 1
 ip ospf dead-interval 4
interface lan
 ip ospf passive
router ospf
 network 10.255.0.0/24 area 0
 network 192.168.0.0/16 area 0
";

#[test]
fn ospf_on_the_twins_carries_a_ping() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Two, Ports::Tap).unwrap();
    for node in &mut cloud.nodes {
        // What static routes did, OSPF shall.
        node.config.remove("routes");
    }
    cloud.start().unwrap();
    let far = cloud.nodes[SPOKE2].host.address();
    assert!(!cloud.pings(SPOKE1, far).unwrap(), "no route yet");

    let daemons: Vec<_> = cloud.nodes.iter().map(|n| Frr::start(n, OSPF).unwrap()).collect();
    let full = |node: usize, wanted: usize| {
        let what = format!("{wanted} full OSPF neighbours of {}", cloud.nodes[node].name);
        wait::until(&what, Duration::from_secs(40), || {
            let neighbours = daemons[node].show("show ip ospf neighbor json")?;
            let full = neighbours.to_string().matches("\"converged\":\"Full\"").count();
            anyhow::ensure!(full == wanted, "{neighbours:#}");
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.nodes[node].nave("show drops").unwrap()));
    };
    full(HUB, 2);
    full(SPOKE1, 1);
    full(SPOKE2, 1);

    // What it learnt is in the kernel, in the RIB, in the FIB: and it forwards.
    let network = "192.168.12.0/24";
    wait::until("the learnt route", Duration::from_secs(20), || {
        let kernel = cloud.nodes[SPOKE1].namespace.ip("route show proto ospf")?;
        anyhow::ensure!(kernel.contains(network), "kernel: {kernel}");
        let fib = cloud.nodes[SPOKE1].nave_json("show fib")?;
        let entry = fib.as_array().and_then(|f| f.iter().find(|e| e["prefix"] == network).cloned());
        anyhow::ensure!(entry.is_some_and(|e| e["owner"] == "netlink"), "fib: {fib:#}");
        Ok(())
    })
    .unwrap();
    wait::until_true("ping between the LANs", Duration::from_secs(20), || cloud.pings(SPOKE1, far).unwrap())
        .unwrap();

    // It goes when it is withdrawn.
    drop(daemons);
    wait::until_true("the withdrawal", Duration::from_secs(20), || {
        !cloud.nodes[SPOKE1].nave("show fib").unwrap().contains(network)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.nodes[SPOKE1].namespace.ip("route").unwrap()));
}
