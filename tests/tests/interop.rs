//! Spokes that nobody here wrote, Linux + FRR nhrpd in virtual machines, in a cloud with a Nave hub. `make test-interop` runs this and
//! the other `interop_*`: they need packages from the network for the virtual machines' image.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::time::Duration;

use tests::capture::{self, Capture, Frame};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::guest::Guest;
use tests::vm::{Binding, Vm};
use tests::{lock, trail, tshark, wait};

/// A cloud whose hub has routes to the LANs of these guests. Nothing runs yet.
fn cloud(guests: &[u8]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    for number in guests {
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        cloud.nodes[HUB].add("routes", &route).unwrap();
    }
    cloud
}

/// What we said is well formed. (FRR's own checksum of an odd length is not our business.)
fn assert_well_formed(cloud: &Cloud, frames: &[Frame], theirs: &[&Vm]) {
    let file = cloud.directory().join("underlay.pcap");
    capture::save(&file, frames).unwrap();
    let theirs: Vec<_> = theirs.iter().map(|vm| vm.nbma.to_string()).collect();
    assert_eq!(tshark::faults(&file, &theirs).unwrap(), []);
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn two_frr_spokes_reach_each_other_by_a_nave_hub_and_then_directly() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13, 14]);
    cloud.start_node(HUB).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let guests = [13, 14].map(|number| Guest::spoke(&cloud, number));
    let [left, right] = Vm::boot(&cloud, guests).unwrap();
    let hub = (cloud.nodes[HUB].tunnel, cloud.nodes[HUB].nbma);
    for vm in [&left, &right] {
        vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
        assert_eq!(vm.servers().unwrap(), [(hub.0.to_string(), hub.1.to_string())]);
        assert_eq!(vm.known(hub.0).unwrap(), Some(Binding::held("nhs", hub.0, hub.1)));
        assert_eq!(vm.shortcuts().unwrap(), []);
    }
    left.ping(right.lan).unwrap();

    let frames = capture.finish().unwrap();
    let ends = [&left, &right].map(|vm| (vm.lan.into(), vm.nbma.into()));
    trail::by_the_hub_then_direct(&frames, hub.1.into(), ends).unwrap();
    assert_well_formed(&cloud, &frames, &[&left, &right]);
    // What each of them knows of the other: the tunnel address, the address that was asked for, and the LAN behind it.
    for (vm, other) in [(&left, &right), (&right, &left)] {
        for protocol in [other.tunnel, other.lan] {
            let expected = Binding::held("dynamic", protocol, other.nbma);
            assert_eq!(vm.known(protocol).unwrap(), Some(expected), "{}", vm.log());
        }
        let shortcut = (format!("192.168.{}.0/24", other.number), other.tunnel.to_string());
        assert_eq!(vm.shortcuts().unwrap(), [shortcut], "{}", vm.log());
        let entry = cloud.nodes[HUB].entry_of(other.tunnel).unwrap().unwrap();
        assert_eq!(entry["flags"]["registered"], true);
        assert_eq!(entry["flags"]["unique"], true, "FRR asks for it");
        let left_of_600 = entry["expires_in"].as_f64().unwrap();
        assert!((500.0..=600.0).contains(&left_of_600), "{entry:#}");
    }
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_spoke_pings_a_nave_spoke_by_the_hub_and_then_directly() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13]);
    cloud.start().unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let [vm] = Vm::boot(&cloud, [Guest::spoke(&cloud, 13)]).unwrap();
    vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
    let host = cloud.nodes[SPOKE1].host.address();
    vm.ping(host).unwrap();

    let frames = capture.finish().unwrap();
    let spoke = &cloud.nodes[SPOKE1];
    let ends = [(vm.lan.into(), vm.nbma.into()), (host.into(), spoke.nbma.into())];
    trail::by_the_hub_then_direct(&frames, cloud.nodes[HUB].nbma.into(), ends).unwrap();
    assert_well_formed(&cloud, &frames, &[&vm]);
    // Each knows the other, and the LAN behind it.
    for protocol in [spoke.tunnel, host] {
        let expected = Binding::held("dynamic", protocol, spoke.nbma);
        assert_eq!(vm.known(protocol).unwrap(), Some(expected), "{}", vm.log());
    }
    let shortcut = ("192.168.11.0/24".to_owned(), spoke.tunnel.to_string());
    assert_eq!(vm.shortcuts().unwrap(), [shortcut], "{}", vm.log());
    let entries = spoke.nave_json("show nhrp").unwrap();
    let ours = entries.as_array().unwrap().iter().find(|e| e["prefix"] == "192.168.13.0/24");
    let ours = ours.unwrap_or_else(|| panic!("{entries:#}"));
    assert_eq!(ours["nbma"], *vm.nbma.to_string());
    assert_eq!(ours["next_hop"], *vm.tunnel.to_string());
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_spoke_with_another_word_stays_out() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13, 14]);
    cloud.start_node(HUB).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let wrong = Guest::spoke(&cloud, 13).saying(Some("spoke"));
    let [wrong, silent] = Vm::boot(&cloud, [wrong, Guest::spoke(&cloud, 14).saying(None)]).unwrap();
    for vm in [&wrong, &silent] {
        let hub = cloud.nodes[HUB].nbma;
        wait::until_true("an error indication to each", Duration::from_secs(20), || {
            let frames = capture.frames();
            let error = |m: &trail::Message| m.kind == 7 && m.source == hub && m.destination == vm.nbma;
            trail::nhrp(&frames).iter().any(error)
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.log()));
        assert_eq!(cloud.nodes[HUB].entry_of(vm.tunnel).unwrap(), None);
        assert!(!vm.reaches(cloud.nodes[HUB].tunnel).unwrap());
    }
    let counters = cloud.nodes[HUB].nave_json("show counters").unwrap();
    let rejects = counters["rejects"].as_array().unwrap();
    let authentication = rejects.iter().find(|r| r["name"] == "authentication").unwrap();
    assert!(authentication["count"].as_u64() >= Some(2), "{authentication}");
    cloud.check_alive().unwrap();
}
