//! Nave spokes with a hub that nobody here wrote: Linux + FRR nhrpd in a virtual machine, redirects and multicast as its manual has it.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::time::Duration;

use tests::capture::{self, Capture};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::guest::Guest;
use tests::node::Node;
use tests::vm::{Binding, Vm};
use tests::{lock, trail, tshark, wait};

/// A cloud whose hub's place is empty. Nothing runs yet.
fn cloud() -> Cloud {
    Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap()
}

/// The node's only server, as `nave show nhs` has it.
fn server(node: &Node) -> serde_json::Value {
    let servers = node.nave_json("show nhs").unwrap();
    assert_eq!(servers.as_array().unwrap().len(), 1, "{servers:#}");
    servers[0].clone()
}

fn wait_responding(node: &Node) {
    wait::until(&format!("{}'s server", node.name), Duration::from_secs(40), || {
        let server = server(node);
        anyhow::ensure!(server["state"] == "responding", "{server:#}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", node.logs()));
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn nave_spokes_and_an_frr_spoke_are_at_home_with_an_frr_hub() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let guests = [Guest::hub(&cloud, &[11, 12, 13]), Guest::spoke(&cloud, 13)];
    let [hub, vm] = Vm::boot(&cloud, guests).unwrap();
    for index in [SPOKE1, SPOKE2] {
        cloud.start_node(index).unwrap();
    }
    // What the hub knows of them: all the same.
    for index in [SPOKE1, SPOKE2] {
        let spoke = &cloud.nodes[index];
        wait_responding(spoke);
        hub.wait_known(&Binding::held("dynamic", spoke.tunnel, spoke.nbma)).unwrap();
    }
    hub.wait_known(&Binding::held("dynamic", vm.tunnel, vm.nbma)).unwrap();
    let registered = capture.frames().len();

    // From a host behind a Nave spoke to the FRR spoke's LAN, and to that behind the other Nave spoke.
    let [host, far] = [SPOKE1, SPOKE2].map(|index| &cloud.nodes[index].host);
    for to in [vm.lan, far.address()] {
        let args = ["-c", "20", "-i", "0.2", &to.to_string()];
        let output = host.namespace.output("ping", &args).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(" 0% packet loss"), "first packets are not lost: {text}\n{}", hub.log());
    }
    // And from the FRR spoke, which has the way already, or not.
    vm.ping(far.address()).unwrap();

    let frames = capture.finish().unwrap();
    let end = |index: usize| {
        let node = &cloud.nodes[index];
        (IpAddr::from(node.host.address()), IpAddr::from(node.nbma))
    };
    let theirs = (vm.lan.into(), vm.nbma.into());
    for ends in [[end(SPOKE1), theirs], [end(SPOKE1), end(SPOKE2)], [theirs, end(SPOKE2)]] {
        trail::by_the_hub_then_direct(&frames[registered..], hub.nbma.into(), ends)
            .unwrap_or_else(|e| panic!("{e:#}\n{}", hub.log()));
    }
    for index in [SPOKE1, SPOKE2] {
        let spoke = &cloud.nodes[index];
        let expected = Binding::held("dynamic", spoke.tunnel, spoke.nbma);
        assert_eq!(vm.known(spoke.tunnel).unwrap(), Some(expected), "{}", vm.log());
        let entries = spoke.nave_json("show nhrp").unwrap();
        let shortcut = entries.as_array().unwrap().iter().find(|e| e["prefix"] == "192.168.13.0/24");
        let shortcut = shortcut.unwrap_or_else(|| panic!("{}: {entries:#}", spoke.name));
        assert_eq!(shortcut["nbma"], *vm.nbma.to_string());
        assert_eq!(shortcut["next_hop"], *vm.tunnel.to_string());
    }
    let expected = [SPOKE1, SPOKE2].map(|index| {
        let node = &cloud.nodes[index];
        (format!("192.168.{}.0/24", node.host.number), node.tunnel.to_string())
    });
    assert_eq!(vm.shortcuts().unwrap(), expected, "{}", vm.log());

    let file = cloud.directory().join("underlay.pcap");
    capture::save(&file, &frames).unwrap();
    let theirs = [&hub, &vm].map(|vm| vm.nbma.to_string());
    assert_eq!(tshark::faults(&file, &theirs).unwrap(), []);
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_hub_lets_a_nave_spoke_in_only_with_its_word() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let [hub] = Vm::boot(&cloud, [Guest::hub(&cloud, &[11]).saying(Some("axle"))]).unwrap();
    cloud.start_node(SPOKE1).unwrap();
    let nbma = cloud.nodes[SPOKE1].nbma;
    wait::until_true("an error indication", Duration::from_secs(20), || {
        let error = |m: &trail::Message| m.kind == 7 && m.source == hub.nbma && m.destination == nbma;
        trail::nhrp(&capture.frames()).iter().any(error)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", hub.log()));
    wait::until("the reason", Duration::from_secs(5), || {
        let server = server(&cloud.nodes[SPOKE1]);
        anyhow::ensure!(server["state"] != "responding", "{server:#}");
        anyhow::ensure!(server.to_string().contains("authentication"), "{server:#}");
        Ok(())
    })
    .unwrap();
    assert_eq!(hub.known(cloud.nodes[SPOKE1].tunnel).unwrap(), None);
    // Two that answer each other's errors would do so for ever.
    let errors: Vec<_> =
        trail::nhrp(&capture.frames()).into_iter().filter(|m| m.kind == 7 && m.source == nbma).collect();
    assert_eq!(errors, []);

    // With the right word it is let in, without a restart.
    let spoke = &mut cloud.nodes[SPOKE1];
    spoke.edit(|text| text.replace("wheel", "axle")).unwrap();
    spoke.apply().unwrap();
    let spoke = &cloud.nodes[SPOKE1];
    wait_responding(spoke);
    hub.wait_known(&Binding::held("dynamic", spoke.tunnel, spoke.nbma)).unwrap();
    assert!(cloud.pings(SPOKE1, hub.lan).unwrap(), "{}", hub.log());
    assert_eq!(cloud.nodes[HUB].nbma, hub.nbma, "in the place of the cloud's own");
    cloud.check_alive().unwrap();
}
