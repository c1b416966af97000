//! A spoke that nobody here wrote, Linux + FRR nhrpd in a virtual machine, in a cloud of Nave. `make test-interop` runs this: it
//! needs packages from the network for the virtual machine's image.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tests::capture::{self, Capture};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::vm::Vm;
use tests::{lock, trail, tshark, wait};

const NUMBER: u8 = 13;

fn cloud() -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let routes = cloud.nodes[HUB].config["routes"].as_array_mut().unwrap();
    let route = format!("prefix = \"192.168.{NUMBER}.0/24\"\nnext_hop = \"10.255.0.{NUMBER}\"");
    routes.push(route.parse::<toml::Table>().unwrap().into());
    cloud.start().unwrap();
    cloud
}

fn is_known(cloud: &Cloud, client: Ipv4Addr) -> bool {
    let entries = cloud.nodes[HUB].nave_json("show nhrp").unwrap();
    entries.as_array().unwrap().iter().any(|e| e["type"] == "dynamic" && e["next_hop"] == *client.to_string())
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_spoke_pings_a_nave_spoke_by_the_hub_and_then_directly() {
    let _turn = lock::take_turn().unwrap();
    let cloud = cloud();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let mut vm = Vm::boot(&cloud, NUMBER, "wheel").unwrap();
    wait::until_true("FRR's registration", Duration::from_secs(30), || is_known(&cloud, vm.tunnel))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.log().unwrap()));

    let host = cloud.nodes[SPOKE1].host.address();
    let (status, output) = vm.run(&format!("ping -c 20 -i 0.2 -I {} {host}", vm.lan)).unwrap();
    println!("{output}");
    assert_eq!(status, 0, "{}", vm.log().unwrap());
    assert!(output.contains(" 0% packet loss"), "first packets are not lost");

    let frames = capture.finish().unwrap();
    for message in trail::nhrp(&frames) {
        println!(
            "{:.3} {} → {} {}",
            message.at.as_secs_f64(),
            message.source,
            message.destination,
            message.name()
        );
    }
    let [hub, spoke, vm_nbma, lan, host] =
        [cloud.nodes[HUB].nbma, cloud.nodes[SPOKE1].nbma, vm.nbma, vm.lan, host].map(IpAddr::from);
    for (ends, from, to) in [((lan, host), vm_nbma, spoke), ((host, lan), spoke, vm_nbma)] {
        let legs: Vec<_> = trail::legs(&frames, ends).into_iter().map(|(_, a, b)| (a, b)).collect();
        assert_eq!(legs.first(), Some(&(from, hub)), "{ends:?} begins by the hub");
        assert_eq!(legs.last(), Some(&(from, to)), "{ends:?} ends directly: {}", vm.log().unwrap());
    }

    // What we said to it, and to each other, is well formed. (FRR's own checksum of an odd length is not our business.)
    let file = cloud.directory().join("underlay.pcap");
    capture::save(&file, &frames).unwrap();
    let theirs = vm.nbma.to_string();
    let bad = |m: &&tshark::Dissected| m.source != theirs && (!m.checksum_good || !m.complaints.is_empty());
    let messages = tshark::nhrp(&file).unwrap();
    assert!(messages.len() > 6);
    assert_eq!(messages.iter().filter(bad).collect::<Vec<_>>(), Vec::<&tshark::Dissected>::new());
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_spoke_with_another_word_stays_out() {
    let _turn = lock::take_turn().unwrap();
    let cloud = cloud();
    let mut vm = Vm::boot(&cloud, NUMBER, "spoke").unwrap();
    wait::until_true("a rejected registration", Duration::from_secs(20), || {
        let counters = cloud.nodes[HUB].nave_json("show counters").unwrap();
        let rejects = counters["rejects"].as_array().unwrap().clone();
        rejects.iter().any(|r| r["name"] == "authentication" && r["count"].as_u64() > Some(0))
    })
    .unwrap();
    assert!(!is_known(&cloud, vm.tunnel));
    let (status, output) = vm.run(&format!("ping -c 2 -W 1 -I {} 10.255.0.1", vm.lan)).unwrap();
    assert_ne!(status, 0, "{output}");
}
