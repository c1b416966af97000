//! A Nave hub and Nave spokes among FRR spokes when somebody starts anew, forgets, or goes. FRR has no purges: it sends none, and answers
//! none, so whatever is gone has to end by itself.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::guest::Guest;
use tests::vm::{Binding, Vm};
use tests::{lock, trail, wait};

/// A cloud whose hub has routes to the LANs of these guests. Nothing runs yet.
fn cloud(guests: &[u8]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    for number in guests {
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        cloud.nodes[HUB].add("routes", &route).unwrap();
    }
    cloud
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn frr_spokes_survive_a_hub_that_starts_anew_and_the_loss_of_their_own_cache() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13, 14]);
    cloud.start_node(HUB).unwrap();
    let guests = [13, 14].map(|number| Guest::spoke(&cloud, number).holding(30));
    let [left, right] = Vm::boot(&cloud, guests).unwrap();
    for vm in [&left, &right] {
        vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
    }
    left.ping(right.lan).unwrap();
    let shortcut = [("192.168.14.0/24".to_owned(), right.tunnel.to_string())];
    assert_eq!(left.shortcuts().unwrap(), shortcut);

    // Both processes of the hub are killed, and what it remembers is lost: shortcuts do not need it, and the spokes' next
    // registrations, a third of the holding time later at most, are all that it needs.
    cloud.nodes[HUB].kill_controlplane().unwrap();
    cloud.nodes[HUB].kill_dataplane().unwrap();
    fs::remove_file(cloud.nodes[HUB].directory().join("state.json")).unwrap();
    left.ping(right.lan).unwrap();
    cloud.start_node(HUB).unwrap();
    let host = cloud.nodes[HUB].host.address();
    for vm in [&left, &right] {
        vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
        assert!(vm.reaches(host).unwrap(), "{}", vm.log());
    }

    // One forgets everything: registered again, redirected again, the way is as short as before.
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    for what in ["clear ip nhrp shortcut", "clear ip nhrp cache"] {
        left.vtysh(what).unwrap();
    }
    assert_eq!(left.shortcuts().unwrap(), []);
    let hub = (cloud.nodes[HUB].tunnel, cloud.nodes[HUB].nbma);
    left.wait_known(&Binding::held("nhs", hub.0, hub.1)).unwrap();
    wait::until("the shortcut", Duration::from_secs(30), || {
        ensure!(left.reaches(right.lan)?, "no ping");
        let shortcuts = left.shortcuts()?;
        ensure!(shortcuts == shortcut, "{shortcuts:?}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", left.log()));
    left.ping(right.lan).unwrap();
    let frames = capture.finish().unwrap();
    let legs = trail::legs(&frames, (left.lan.into(), right.lan.into()));
    let ways: Vec<_> = legs.into_iter().map(|(_, from, to)| (from, to)).collect();
    assert!(ways.contains(&(left.nbma.into(), hub.1.into())), "by the hub at first: {ways:?}");
    assert_eq!(ways.last(), Some(&(left.nbma.into(), right.nbma.into())));
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn what_an_frr_spoke_leaves_behind_ends_with_its_holding_time() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13]);
    for index in [HUB, SPOKE1] {
        cloud.start_node(index).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let [vm] = Vm::boot(&cloud, [Guest::spoke(&cloud, 13).holding(12)]).unwrap();
    vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
    vm.ping(cloud.nodes[SPOKE1].host.address()).unwrap();
    // It lasts beyond a holding time as long as it is said again, and used.
    let (status, output) = vm.run("ping -q -c 60 -i 0.25 -I 192.168.13.1 192.168.11.10").unwrap();
    assert!(status == 0 && output.contains(" 0% packet loss"), "{output}");
    let tunnel = vm.tunnel;
    assert_eq!(cloud.nodes[HUB].entry_of(tunnel).unwrap().unwrap()["type"], "dynamic");
    let shortcut = |cloud: &Cloud| {
        let entries = cloud.nodes[SPOKE1].nave("show nhrp").unwrap();
        entries.contains("192.168.13.0/24") || entries.contains("10.255.0.13")
    };
    assert!(shortcut(&cloud));

    // It is gone without a word. The spoke's traffic to it, straight and in the end by the hub, finds nobody; nothing is kept.
    drop(vm);
    wait::until_true("the end of its registration", Duration::from_secs(16), || {
        let entry = cloud.nodes[HUB].entry_of(tunnel).unwrap();
        entry.is_none_or(|entry| entry["type"] != "dynamic")
    })
    .unwrap();
    wait::until_true("the end of what the spoke knows", Duration::from_secs(16), || !shortcut(&cloud))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.nodes[SPOKE1].nave("show nhrp").unwrap()));
    let host = &cloud.nodes[SPOKE1].host.namespace;
    let output = host.output("ping", &["-c", "1", "-W", "2", "192.168.13.1"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Unreachable"), "the hub says that it has no way: {text}");
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn purges_that_frr_never_answers_end() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13]);
    for index in [HUB, SPOKE1] {
        cloud.start_node(index).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let [vm] = Vm::boot(&cloud, [Guest::spoke(&cloud, 13)]).unwrap();
    vm.wait_registered(&cloud.nodes[HUB], vm.nbma).unwrap();
    vm.ping(cloud.nodes[SPOKE1].host.address()).unwrap();
    // Whoever asked first: it is FRR that must have been told.
    wait::until_true("FRR's shortcut", Duration::from_secs(15), || {
        vm.shortcuts().unwrap().iter().any(|(prefix, _)| prefix == "192.168.11.0/24")
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", vm.log()));

    // The LAN that FRR was told of goes: it is told so, and hears, and says nothing. It is told again, and not for ever.
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let spoke = cloud.nodes[SPOKE1].nbma;
    cloud.nodes[SPOKE1].edit(|text| text.replace("192.168.11.1/24", "192.168.111.1/24")).unwrap();
    cloud.nodes[SPOKE1].apply().unwrap();
    let purges = || {
        let frames = capture.frames();
        let to_frr = |m: &trail::Message| m.kind == 5 && m.source == spoke && m.destination == vm.nbma;
        trail::nhrp(&frames).into_iter().filter(to_frr).collect::<Vec<_>>()
    };
    wait::until_true("a second purge", Duration::from_secs(20), || purges().len() >= 2).unwrap();
    let (mut count, mut quiet) = (purges().len(), 0);
    wait::until("twelve seconds without a purge", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_secs(1));
        let now = purges().len();
        quiet = if now == count { quiet + 1 } else { 0 };
        count = now;
        ensure!(quiet >= 12, "{count} so far");
        Ok(())
    })
    .unwrap();
    assert!(count <= 10, "{:?}", purges());
    let answers = trail::nhrp(&capture.frames()).into_iter().filter(|m| m.kind == 6).count();
    assert_eq!(answers, 0, "FRR answers purges: this test is out of date");
    // What FRR still believes does no harm: it is registered, and the hub is reached.
    assert!(vm.reaches(cloud.nodes[HUB].host.address()).unwrap(), "{}", vm.log());
    cloud.check_alive().unwrap();
}
