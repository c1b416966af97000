//! FRR spokes behind a NAT, with a Nave hub: one to one, and behind one address that several share. In clear GRE, which has no ports.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use tests::capture::{Capture, Frame};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1};
use tests::guest::Guest;
use tests::nat::{Nat, NatRouter};
use tests::vm::{Binding, Vm};
use tests::{lock, trail, wait};

/// The router's number.
const OUTSIDE: u8 = 99;

/// A hub with routes to the LANs of these guests, and a spoke. Runs.
fn cloud(guests: &[u8]) -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    for number in guests {
        let route = format!("prefix = \"192.168.{number}.0/24\"\nnext_hop = \"10.255.0.{number}\"");
        cloud.nodes[HUB].add("routes", &route).unwrap();
    }
    for index in [HUB, SPOKE1] {
        cloud.start_node(index).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    cloud
}

/// As others know somebody behind the NAT: seen at one address, said to be at another.
fn translated(protocol: Ipv4Addr, nbma: Ipv4Addr, claimed: Ipv4Addr) -> Binding {
    Binding { claimed: Some(claimed), ..Binding::held("dynamic", protocol, nbma) }
}

/// The hub has a registration of this machine where it sees it, and knows where it says that it is.
fn wait_registered_through(cloud: &Cloud, vm: &Vm, nat: &NatRouter) {
    vm.wait_registered(&cloud.nodes[HUB], nat.outside).unwrap();
    let entry = cloud.nodes[HUB].entry_of(vm.tunnel).unwrap().unwrap();
    assert_eq!(entry["claimed_nbma"], *vm.nbma.to_string(), "{entry:#}");
    // It hears of it from the reply.
    let own = Binding { ends: false, ..translated(vm.tunnel, nat.outside, vm.nbma) };
    vm.wait_known(&Binding { kind: "local".to_owned(), ..own }).unwrap();
}

/// From one LAN address to another, each with its node as the underlay sees it: by the hub first, directly in the end.
fn assert_direct_in_the_end(cloud: &Cloud, frames: &[Frame], ends: [(Ipv4Addr, Ipv4Addr); 2], logs: &str) {
    let ends = ends.map(|(lan, nbma)| (lan.into(), nbma.into()));
    let hub = cloud.nodes[HUB].nbma.into();
    trail::by_the_hub_then_direct(frames, hub, ends).unwrap_or_else(|e| panic!("{e:#}\n{logs}"));
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn an_frr_spoke_behind_a_nat_one_to_one_is_reached_directly() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(&[13, 14]);
    let nat = NatRouter::add(&cloud, OUTSIDE, Nat::OneToOne(13)).unwrap();
    let guests = [Guest::spoke(&cloud, 13).behind(&nat), Guest::spoke(&cloud, 14)];
    let [inside, public] = Vm::boot(&cloud, guests).unwrap();
    wait_registered_through(&cloud, &inside, &nat);
    public.wait_registered(&cloud.nodes[HUB], public.nbma).unwrap();

    // Whoever begins: others reach it where the hub sees it, and it reaches them.
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let spoke = &cloud.nodes[SPOKE1];
    public.ping(inside.lan).unwrap();
    inside.ping(spoke.host.address()).unwrap();
    let frames = capture.finish().unwrap();
    let here = (inside.lan, nat.outside);
    let logs = format!("{}\n{}", inside.log(), public.log());
    assert_direct_in_the_end(&cloud, &frames, [(public.lan, public.nbma), here], &logs);
    assert_direct_in_the_end(&cloud, &frames, [here, (spoke.host.address(), spoke.nbma)], &logs);

    for protocol in [inside.tunnel, inside.lan] {
        let expected = translated(protocol, nat.outside, inside.nbma);
        assert_eq!(public.known(protocol).unwrap(), Some(expected), "{}", public.log());
    }
    for (protocol, nbma) in [(public.tunnel, public.nbma), (spoke.tunnel, spoke.nbma)] {
        let expected = Binding::held("dynamic", protocol, nbma);
        assert_eq!(inside.known(protocol).unwrap(), Some(expected), "{}", inside.log());
    }
    let entry = spoke.entry_of(inside.tunnel).unwrap().unwrap();
    assert_eq!(entry["nbma"], *nat.outside.to_string(), "{entry:#}");
    assert_eq!(entry["claimed_nbma"], *inside.nbma.to_string(), "{entry:#}");
    cloud.check_alive().unwrap();
}

#[test]
#[ignore = "needs packages from the network: make test-interop"]
fn of_two_frr_spokes_behind_one_address_the_first_works_and_the_second_disturbs_nobody() {
    let _turn = lock::take_turn().unwrap();
    let cloud = cloud(&[13, 14, 15]);
    let nat = NatRouter::add(&cloud, OUTSIDE, Nat::Masquerade).unwrap();
    let first = Guest::spoke(&cloud, 13).behind(&nat).holding(12);
    let [first, public] = Vm::boot(&cloud, [first, Guest::spoke(&cloud, 14)]).unwrap();
    wait_registered_through(&cloud, &first, &nat);
    public.wait_registered(&cloud.nodes[HUB], public.nbma).unwrap();
    let hub = &cloud.nodes[HUB];
    assert!(first.reaches(hub.host.address()).unwrap());

    let wire = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let inside = Capture::start(&nat.namespace, NatRouter::BRIDGE, |_| true).unwrap();
    let [second] = Vm::boot(&cloud, [Guest::spoke(&cloud, 15).behind(&nat).holding(12)]).unwrap();
    // It asks, and the router keeps it to itself: of what leaves it, nothing but the source address is left to tell two flows to
    // the hub apart, and that would be the same.
    wait::until("requests of the second", Duration::from_secs(20), || {
        let frames = inside.frames();
        let asked = trail::nhrp(&frames).iter().filter(|m| m.source == second.nbma && m.kind == 3).count();
        ensure!(asked >= 3, "{asked} so far");
        Ok(())
    })
    .unwrap();
    assert_eq!(hub.entry_of(second.tunnel).unwrap(), None);
    assert!(!second.reaches(hub.tunnel).unwrap());
    // The first has been registered anew meanwhile, three times in a holding time, and is where it was.
    wait::until("the first's next registrations", Duration::from_secs(20), || {
        let frames = wire.frames();
        let again = trail::nhrp(&frames).iter().filter(|m| m.source == nat.outside && m.kind == 3).count();
        ensure!(again >= 3, "{again} so far");
        Ok(())
    })
    .unwrap();
    let entry = hub.entry_of(first.tunnel).unwrap().unwrap();
    assert_eq!(
        (&entry["nbma"], &entry["claimed_nbma"]),
        (&nat.outside.to_string().into(), &first.nbma.to_string().into())
    );
    first.ping(hub.host.address()).unwrap();

    // A public spoke and the first reach each other directly once both have sent: the router lets in what answers.
    let spoke = &cloud.nodes[SPOKE1];
    first.ping(public.lan).unwrap();
    // Before its holding time ends, which is short.
    let known = public.known(first.tunnel).unwrap();
    first.ping(spoke.host.address()).unwrap();
    let here = (first.lan, nat.outside);
    let frames = wire.frames();
    let logs = format!("{}\n{}", first.log(), public.log());
    assert_direct_in_the_end(&cloud, &frames, [here, (public.lan, public.nbma)], &logs);
    assert_direct_in_the_end(&cloud, &frames, [here, (spoke.host.address(), spoke.nbma)], &logs);
    let expected = translated(first.tunnel, nat.outside, first.nbma);
    assert_eq!(known, Some(expected), "{}", public.log());

    // When the first is gone, and the router has forgotten it, the second is let in, and the hub knows both apart.
    drop(first);
    std::thread::sleep(NatRouter::MEMORY + Duration::from_secs(2)); // Of silence: it is what the router waits for.
    second.register_anew().unwrap();
    wait_registered_through(&cloud, &second, &nat);
    second.ping(hub.host.address()).unwrap();
}
