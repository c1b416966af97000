//! Any process may be killed at any time; what the others had agreed on goes on.
//!
//! Traffic runs throughout: between the spokes' hosts (by the shortcut), and between the hub's and the spokes' (by the hub).
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::flows::{Flows, WAYS};
use tests::probe::Probe;
use tests::process::Process;
use tests::{frame, lock, trail, wait};

const NAMES: [&str; 3] = ["hub", "spoke1", "spoke2"];

fn cloud(ports: Ports) -> Cloud {
    let cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, ports).unwrap();
    for (from, to) in [(SPOKE1, SPOKE2), (HUB, SPOKE1), (HUB, SPOKE2)] {
        let to = cloud.nodes[to].host.address();
        wait::until_true("first ping", Duration::from_secs(10), || cloud.pings(from, to).unwrap()).unwrap();
    }
    wait::until_true("the shortcut", Duration::from_secs(5), || has_shortcut(&cloud)).unwrap();
    cloud
}

fn has_shortcut(cloud: &Cloud) -> bool {
    cloud.nodes[SPOKE1].nave("show nhrp").is_ok_and(|t| t.contains("192.168.12.0/24"))
}

/// All flows, both ways.
fn talk(cloud: &Cloud) -> Flows {
    Flows::start(cloud, &WAYS, 6000, 1000, Duration::from_secs(10)).unwrap()
}

#[test]
fn killing_the_hub_s_control_plane_costs_no_packet_and_no_spoke() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(Ports::Tap);
    let flows = talk(&cloud);
    sleep(Duration::from_secs(1));
    cloud.nodes[HUB].kill_controlplane().unwrap();
    sleep(Duration::from_secs(2));
    cloud.nodes[HUB].start_controlplane().unwrap();
    let restarted = Instant::now();
    // No refresh is due for 200 s: what is there is what was kept.
    for spoke in [SPOKE1, SPOKE2] {
        cloud.wait_registered(spoke).unwrap();
    }
    while restarted.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_secs(5));
        cloud.check_alive().unwrap();
        assert!(cloud.is_registered(SPOKE1).unwrap() && cloud.is_registered(SPOKE2).unwrap());
    }
    flows.are_whole(&cloud).unwrap();
}

#[test]
fn killing_a_spoke_s_control_plane_costs_no_packet() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(Ports::Tap);
    let flows = talk(&cloud);
    sleep(Duration::from_secs(1));
    cloud.nodes[SPOKE1].kill_controlplane().unwrap();
    sleep(Duration::from_secs(2));
    cloud.nodes[SPOKE1].start_controlplane().unwrap();
    sleep(Duration::from_secs(10));
    cloud.check_alive().unwrap();
    cloud.wait_registered(SPOKE1).unwrap();
    assert!(has_shortcut(&cloud), "the shortcut is forgotten");
    flows.are_whole(&cloud).unwrap();
}

/// Addresses, routes and links of a node as the kernel has them, without counters and times.
fn kernel_view(cloud: &Cloud, node: usize) -> [String; 3] {
    let namespace = &cloud.nodes[node].namespace;
    ["-brief address", "route show table all", "-brief link"].map(|words| namespace.ip(words).unwrap())
}

fn kill_dataplane(node: usize) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = cloud(Ports::AfPacket);
    let before = kernel_view(&cloud, node);
    let flows = talk(&cloud);
    sleep(Duration::from_secs(1));
    let killed = Instant::now();
    cloud.nodes[node].kill_dataplane().unwrap();
    sleep(Duration::from_secs(2));
    assert_eq!(kernel_view(&cloud, node), before, "the twins of {} suffer from the death", NAMES[node]);

    let start = Instant::now();
    cloud.start_dataplane(node).unwrap();
    let to = cloud.nodes[SPOKE1].host.address();
    flows.go_on(&cloud, "traffic of all flows").unwrap();
    let (back, away) = (start.elapsed(), killed.elapsed());
    println!(
        "{}: all six flows are back {} ms after the start of its data plane",
        NAMES[node],
        back.as_millis()
    );
    assert!(back < Duration::from_secs(3), "back after {back:?}");
    assert_eq!(kernel_view(&cloud, node), before, "the twins of {} suffer from the return", NAMES[node]);

    let tallies = flows.finish().unwrap();
    tallies.iter().for_each(|tally| println!("{tally}"));
    // A packet a millisecond while it was away: nothing may be lost later.
    let limit = away.as_millis();
    assert!(tallies.iter().all(|t| u128::from(t.lost) <= limit && t.duplicated == 0), "{limit}");
    assert!(cloud.pings(HUB, to).unwrap());
}

#[test]
fn a_spoke_s_data_plane_comes_back_without_hands() {
    kill_dataplane(SPOKE1);
}

#[test]
fn the_hub_s_data_plane_comes_back_without_hands() {
    kill_dataplane(HUB);
}

#[test]
fn a_stalled_client_holds_up_nobody() {
    const MESSAGES: u32 = 20_000;
    let _turn = lock::take_turn().unwrap();
    let cloud = cloud(Ports::Tap);
    let hub = &cloud.nodes[HUB];
    let watch = |name: &str| {
        let log = hub.directory().join(name);
        let mut command = hub.nave_command().unwrap();
        let watch = Process::start("watch", &hub.namespace, &log, command.args(["watch", "--json"])).unwrap();
        sleep(Duration::from_millis(300));
        (watch, log)
    };
    let (live, seen) = watch("live.log");
    let stalled = ["a.log", "b.log", "c.log", "d.log"].map(watch);
    stalled.iter().for_each(|(watch, _)| watch.signal(Signal::SIGSTOP).unwrap());
    let flows = talk(&cloud);

    // Events enough to fill what lies between: each of these messages is rejected, and worth an event.
    let probe = Probe::plug_in(&cloud).unwrap();
    let mac = probe.resolve(hub.nbma).unwrap();
    let message = frame::nhrp_registration(1, Probe::ADDRESS, Probe::ADDRESS, hub.tunnel, Some("spoke"));
    let packet = frame::gre(Some(42), trail::NHRP, &message);
    let packet = frame::ipv4((Probe::ADDRESS, hub.nbma), 47, 64, &packet);
    let mut slowest = Duration::ZERO;
    for number in 0..MESSAGES {
        probe.send(mac, &packet).unwrap();
        sleep(Duration::from_micros(200));
        if number % 500 == 0 {
            let asked = Instant::now();
            hub.nave("show dmvpn").unwrap();
            slowest = slowest.max(asked.elapsed());
        }
    }
    println!("slowest answer: {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "an answer took {slowest:?}");
    wait::until_true("the live watch", Duration::from_secs(5), || count_events(&seen) > 1000).unwrap();
    flows.are_whole(&cloud).unwrap();

    // They were stalled indeed: when they go on, they hear of what they missed.
    for (watch, log) in stalled {
        watch.signal(Signal::SIGCONT).unwrap();
        wait::until_true("a watch that missed events", Duration::from_secs(5), || {
            std::fs::read_to_string(&log).unwrap().contains("\"missed\"")
        })
        .unwrap_or_else(|e| panic!("{e:#}: {} events in {}", count_events(&log), log.display()));
    }
    drop(live);
}

fn count_events(log: &std::path::Path) -> usize {
    std::fs::read_to_string(log).unwrap().lines().count()
}
