//! Spokes whose addresses are translated on the way: where they are registered, and who reaches them.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::translator::{IDLE, Translation, Translator};
use tests::{lock, trail, wait};

/// The outer address of the box.
const OUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 70);
/// A holding time as short as this has registrations come again every three seconds.
const HOLDING: i64 = 9;

fn cloud(behind: &[usize], translation: Translation) -> (Cloud, Translator) {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let nat = cloud.put_behind_translator(behind, translation).unwrap();
    (cloud, nat)
}

/// The hub's entry of a spoke: where it is, and where it says that it is.
fn registered(cloud: &Cloud, spoke: usize) -> Option<(String, String)> {
    let entry = cloud.nodes[HUB].entry(&format!("{}/32", cloud.nodes[spoke].tunnel)).unwrap()?;
    let text = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
    Some((text("nbma"), text("claimed_nbma")))
}

/// Input: a spoke behind a box that gives it an outer address of its own. Output: the hub has it there, and knows what it says of
/// itself; the other spoke has a shortcut to there, and it one to the other; packets go straight both ways.
#[test]
fn a_spoke_behind_a_one_to_one_nat_is_reached_where_its_server_sees_it() {
    let _turn = lock::take_turn().unwrap();
    let inner = Ipv4Addr::new(10, 0, 0, 11);
    let (mut cloud, _nat) = cloud(&[SPOKE1], Translation::OneToOne(vec![(inner, OUTER)]));
    cloud.start().unwrap();
    assert_eq!(registered(&cloud, SPOKE1), Some((OUTER.to_string(), inner.to_string())));
    let hosts = [SPOKE1, SPOKE2].map(|node| cloud.nodes[node].host.address());
    let far = cloud.nodes[SPOKE2].nbma;
    wait::until("shortcuts both ways", Duration::from_secs(15), || {
        cloud.pings(SPOKE1, hosts[1])?;
        for (node, lan, nbma) in [(SPOKE1, "192.168.12.0/24", far), (SPOKE2, "192.168.11.0/24", OUTER)] {
            let shortcut = cloud.nodes[node].entry(lan)?;
            let is_it = shortcut.as_ref().is_some_and(|s| s["nbma"] == nbma.to_string());
            anyhow::ensure!(is_it, "{lan} at {}: {shortcut:?}", cloud.nodes[node].name);
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    assert!(cloud.pings(SPOKE1, hosts[1]).unwrap() && cloud.pings(SPOKE2, hosts[0]).unwrap());
    let frames = capture.finish().unwrap();
    // The capture is of both bridges: those inside are one leg more.
    let [one, two] = hosts.map(IpAddr::from);
    let (outer, far) = (IpAddr::from(OUTER), IpAddr::from(far));
    for (ends, leg) in [((one, two), (outer, far)), ((two, one), (far, outer))] {
        let legs = trail::legs(&frames, ends);
        assert!(legs.iter().any(|(_, from, to)| (*from, *to) == leg), "{legs:?}");
        let hub = IpAddr::from(cloud.nodes[HUB].nbma);
        assert!(legs.iter().all(|(_, from, to)| *from != hub && *to != hub), "{legs:?}");
    }
    cloud.check_alive().unwrap();
}

/// Input: two spokes behind one outer address, with a box that knows one flow with each peer. Output: who came first is registered and
/// reached; the other is not let out, and disturbs nobody. When the first is gone, the other is served.
#[test]
fn of_two_spokes_behind_one_address_the_second_waits_and_disturbs_nobody() {
    let _turn = lock::take_turn().unwrap();
    let (mut cloud, nat) = cloud(&[SPOKE1, SPOKE2], Translation::First(OUTER));
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].nhrp().unwrap().insert("holding_time".to_owned(), HOLDING.into());
    }
    for node in [HUB, SPOKE1] {
        cloud.start_node(node).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let at = |cloud: &Cloud, spoke: usize| Some((OUTER.to_string(), cloud.nodes[spoke].nbma.to_string()));
    assert_eq!(registered(&cloud, SPOKE1), at(&cloud, SPOKE1));
    let [one, two] = [SPOKE1, SPOKE2].map(|node| cloud.nodes[node].host.address());
    assert!(cloud.pings(HUB, one).unwrap());

    cloud.start_node(SPOKE2).unwrap();
    wait::until_true("a packet that is not let out", Duration::from_secs(10), || nat.refused() > 0).unwrap();
    // Longer than a holding time: the first is refreshed, the second is nowhere.
    for _ in 0..HOLDING + 1 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(registered(&cloud, SPOKE1), at(&cloud, SPOKE1));
        assert_eq!(registered(&cloud, SPOKE2), None);
    }
    let server = cloud.nodes[HUB].tunnel;
    assert_eq!(cloud.nodes[SPOKE1].server(server).unwrap()["state"], "responding");
    assert_eq!(cloud.nodes[SPOKE2].server(server).unwrap()["state"], "expecting");
    assert!(cloud.pings(HUB, one).unwrap() && !cloud.pings(HUB, two).unwrap());

    cloud.nodes[SPOKE1].stop().unwrap();
    let patience = IDLE + Duration::from_secs(20);
    wait::until_true("the second to be served", patience, || {
        registered(&cloud, SPOKE2) == at(&cloud, SPOKE2)
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    assert_eq!(registered(&cloud, SPOKE1), None);
    wait::until_true("a ping to it", Duration::from_secs(5), || cloud.pings(HUB, two).unwrap()).unwrap();
    cloud.check_alive().unwrap();
}

/// Input: two spokes behind one outer address, with a box that gives what comes back to who sent last. Output: both are registered
/// there, each as what it is, and stay so; neither takes the other's place.
#[test]
fn two_spokes_behind_one_address_have_a_registration_each() {
    let _turn = lock::take_turn().unwrap();
    let (mut cloud, _nat) = cloud(&[SPOKE1, SPOKE2], Translation::Last(OUTER));
    for spoke in [SPOKE1, SPOKE2] {
        cloud.nodes[spoke].nhrp().unwrap().insert("holding_time".to_owned(), HOLDING.into());
    }
    cloud.start().unwrap();
    for _ in 0..HOLDING + 1 {
        std::thread::sleep(Duration::from_secs(1));
        for spoke in [SPOKE1, SPOKE2] {
            let own = cloud.nodes[spoke].nbma.to_string();
            assert_eq!(registered(&cloud, spoke), Some((OUTER.to_string(), own)), "{}", cloud.logs());
        }
    }
    // Who sends is who is answered.
    for spoke in [SPOKE1, SPOKE2] {
        assert!(cloud.pings(spoke, cloud.nodes[HUB].host.address()).unwrap());
    }
    // One leaves, and the other does not notice.
    cloud.nodes[SPOKE1].stop().unwrap();
    wait::until_true("the leave", Duration::from_secs(5), || registered(&cloud, SPOKE1).is_none()).unwrap();
    assert!(registered(&cloud, SPOKE2).is_some());
    assert!(cloud.pings(SPOKE2, cloud.nodes[HUB].host.address()).unwrap());
    cloud.check_alive().unwrap();
}
