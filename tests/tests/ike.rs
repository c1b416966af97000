//! IKE on the running system: who does not prove who he is stays out, what no peer would say is refused or passed over, and whatever dies under
//! protected traffic, nothing of it is in the clear and no nonce is used twice.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;
use tests::census::{Kind, Lookout};
use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::flows::{self, Flows, WAYS};
use tests::traffic::Stream;
use tests::translator::Translation;
use tests::{lock, wait};

/// Packets a second, each way.
const RATE: u32 = 200;
/// How long a flow may stand still while processes start.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a first ping may take.
const REACH: Duration = Duration::from_secs(20);

/// All hosts have reached each other, and the spokes are protected with each other.
fn meet(cloud: &Cloud) {
    for (from, to) in WAYS {
        cloud.reach(from, to, REACH).unwrap();
    }
    let up = |node: usize, other: usize| {
        let sas = cloud.nodes[node].nave_json("show ike").unwrap();
        let remote = cloud.nodes[other].nbma.to_string();
        sas.as_array().is_some_and(|sas| {
            sas.iter().any(|sa| sa["protection"]["remote"] == *remote && sa["state"] == "up")
        })
    };
    wait::until_true("the shortcut", Duration::from_secs(15), || up(SPOKE1, SPOKE2) && up(SPOKE2, SPOKE1))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
}

/// Input: kills (SIGKILL) of each process of the hub and of a spoke, a control plane alone or with its data plane, while traffic goes all ways.
/// Output: it goes on after each; a control plane that dies alone costs no packet; on the underlay there is nothing of the tunnels but ESP, and
/// no SA uses an IV twice in the whole run.
#[test]
fn kills_of_each_process_leave_all_sealed_and_no_nonce_is_used_twice() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::AfPacket).unwrap();
    cloud.protect_by_ike().unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);
    flows::go_on_through_kills(&mut cloud, 6300, RATE, PATIENCE).unwrap();
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    let census = lookout.finish().unwrap();
    println!("{census}; {} SAs", census.sas());
    census.check().unwrap();
}

/// The outer address of the spokes, where there is a box that translates, and of each the outer port of ESP.
const OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const PORTS: [u16; 2] = [40_011, 40_021];

/// Input: two spokes behind one address, each with ports of its own there. Output: both are registered and protected in UDP, both are reached at
/// once and lose nothing, and so do they from each other.
#[test]
fn two_spokes_behind_one_nat_are_both_protected() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let inner = [11, 12].map(|number| Ipv4Addr::new(10, 0, 0, number));
    let ports = inner.into_iter().zip(PORTS).collect();
    let _nat = cloud.put_behind_translator(&[SPOKE1, SPOKE2], Translation::Ports(OUTER, ports)).unwrap();
    cloud.protect_by_ike().unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    for (spoke, port) in [SPOKE1, SPOKE2].into_iter().zip(PORTS) {
        let entry = cloud.nodes[HUB].entry_of(cloud.nodes[spoke].tunnel).unwrap().unwrap();
        let claimed = cloud.nodes[spoke].nbma.to_string();
        assert_eq!((&entry["nbma"], &entry["claimed_nbma"]), (&OUTER.to_string().into(), &claimed.into()));
        let sas = cloud.nodes[HUB].nave_json("show ike").unwrap();
        let is_it = |sa: &serde_json::Value| {
            let protection = &sa["protection"];
            protection["remote"] == *OUTER.to_string() && protection["port"] == port && sa["state"] == "up"
        };
        assert!(sas.as_array().unwrap().iter().any(is_it), "{sas:#}");
    }
    for (from, to) in WAYS {
        cloud.reach(from, to, REACH).unwrap();
    }
    let flows = Flows::start(&cloud, &WAYS, 6300, RATE, PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(3)); // Of traffic, which nothing disturbs.
    flows.are_whole(&cloud).unwrap();
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    // The capture is of both sides of the box: each packet that passed it is there twice.
    let census = lookout.finish().unwrap();
    assert!(census.is_sealed() && census.count(Kind::Esp) == 0, "{census}");
}

/// Input: SAs that live for seconds, while traffic goes all ways. Output: both kinds are replaced again and again, at every node, and no packet is
/// lost.
#[test]
fn nothing_is_lost_while_sas_are_replaced() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::AfPacket).unwrap();
    cloud.protect_by_ike().unwrap();
    for node in &mut cloud.nodes {
        node.set_ike("lifetime = 20\nchild_lifetime = 10").unwrap();
    }
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);
    let spis = |cloud: &Cloud| {
        let sas = cloud.nodes[SPOKE1].nave_json("show ike").unwrap();
        sas.as_array().unwrap().iter().map(|sa| sa["spi_initiator"].to_string()).collect::<Vec<_>>()
    };
    let before = spis(&cloud);
    let flows = Flows::start(&cloud, &WAYS, 6300, RATE, PATIENCE).unwrap();
    std::thread::sleep(Duration::from_secs(45)); // Two lives of an IKE SA, four of a child.
    flows.are_whole(&cloud).unwrap();
    let after = spis(&cloud);
    assert!(before.iter().all(|spi| !after.contains(spi)), "{before:?} {after:?}");
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    let census = lookout.finish().unwrap();
    census.check().unwrap();
    // Six directions, four lives each and more.
    assert!(census.sas() >= 24, "{} SAs", census.sas());
}

/// Input: a spoke vanishes without a word while its peers talk to it. Output: they notice, and packets to it go by the hub again, which says that
/// there is no way; when it comes back all is as before.
#[test]
fn a_peer_that_dies_is_noticed_and_comes_back() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.protect_by_ike().unwrap();
    for node in &mut cloud.nodes {
        node.set_ike("dead_peer_detection = 2").unwrap();
    }
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);
    cloud.nodes[SPOKE2].kill_controlplane().unwrap();
    cloud.nodes[SPOKE2].kill_dataplane().unwrap();
    let remote = cloud.nodes[SPOKE2].nbma.to_string();
    let gone = |node: usize| {
        let sas = cloud.nodes[node].nave_json("show ike").unwrap();
        !sas.as_array().unwrap().iter().any(|sa| sa["protection"]["remote"] == *remote && sa["state"] == "up")
    };
    wait::until_true("its death", Duration::from_secs(40), || gone(HUB) && gone(SPOKE1))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    assert_eq!(
        cloud.nodes[HUB].entry_of(cloud.nodes[SPOKE2].tunnel).unwrap(),
        None,
        "it is still registered"
    );
    let to = cloud.nodes[SPOKE2].host.address().to_string();
    let said = cloud.nodes[SPOKE1].host.namespace.output("ping", &["-n", "-c", "3", "-W", "1", &to]).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("Unreachable"), "{said}\n{}", cloud.what_is_known());
    cloud.start_node(SPOKE2).unwrap();
    cloud.wait_registered(SPOKE2).unwrap();
    meet(&cloud);
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// The operator ends an SA: what is wanted comes back by itself, and the traffic of others loses nothing.
#[test]
fn what_an_operator_clears_comes_back() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.protect_by_ike().unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap();
    meet(&cloud);
    let spi = |remote: IpAddr| -> anyhow::Result<String> {
        let sas = cloud.nodes[SPOKE1].nave_json("show ike")?;
        let found = sas.as_array().and_then(|sas| {
            sas.iter().find(|sa| sa["protection"]["remote"] == *remote.to_string() && sa["state"] == "up")
        });
        ensure!(found.is_some(), "{sas:#}");
        Ok(sas[0]["spi_initiator"].to_string() + &found.unwrap()["spi_initiator"].to_string())
    };
    let hub = IpAddr::from(cloud.nodes[HUB].nbma);
    let before = spi(hub).unwrap();
    let others = Stream::start(cloud.flow(HUB, SPOKE2, 6400, RATE)).unwrap();
    cloud.nodes[SPOKE1].nave(&format!("clear ike {hub}")).unwrap();
    wait::until("another IKE SA with the hub", Duration::from_secs(15), || {
        ensure!(spi(hub)? != before, "it is the same");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    let tally = others.finish().unwrap();
    assert!(tally.is_whole(), "{tally}");
    cloud.reach(SPOKE1, HUB, REACH).unwrap();
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}
