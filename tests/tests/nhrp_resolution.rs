//! How answers come: straight from who is asked, across servers that know each other only, and what is learnt by the way.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::probe::Probe;
use tests::site::Site;
use tests::traffic::Stream;
use tests::tshark::{self, Spoken};
use tests::{frame, lock, trail, wait};

const SOON: Duration = Duration::from_secs(10);
const RESOLUTION_REQUEST: u8 = 1;
const RESOLUTION_REPLY: u8 = 2;
/// Flag A of a resolution.
const AUTHORITATIVE: u16 = 0x4000;
/// Extension: servers that a request has passed.
const FORWARD_TRANSIT: u16 = 4;

/// Input: packets one way from a spoke with a short holding time to another. Output: the other answers straight, not by the hub; it has
/// learnt of the first by its request, implicitly, passes on who asks it, and forgets the first with that holding time.
#[test]
fn who_asks_is_answered_straight_and_known_implicitly_for_as_long_as_it_says() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.nodes[SPOKE1].nhrp().unwrap().insert("holding_time".to_owned(), 8.into());
    cloud.start().unwrap();
    let [hub, spoke1, spoke2] = [HUB, SPOKE1, SPOKE2].map(|node| IpAddr::from(cloud.nodes[node].nbma));
    let asked = IpAddr::from(cloud.nodes[SPOKE2].host.address());
    let capture = || Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let probe = Probe::plug_in(&cloud).unwrap();
    probe.resolve(cloud.nodes[SPOKE1].nbma).unwrap();
    let mac = probe.resolve(cloud.nodes[SPOKE2].nbma).unwrap();

    let wire = capture();
    // One way only: what the other knows of the first it has from the request.
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, 7200, 100)).unwrap();
    wait::until_true("the shortcut", SOON, || {
        cloud.nodes[SPOKE1].entry("192.168.12.0/24").unwrap().is_some()
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    drop(stream.finish().unwrap());
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    let request =
        heard.iter().find(|m| m.is(RESOLUTION_REQUEST, spoke1, hub) && m.to == Some(asked)).unwrap();
    let same = |m: &&Spoken| m.kind <= 2 && m.request == request.request && m.from == request.from;
    let same: Vec<_> = heard.iter().filter(same).collect();
    assert!(same.iter().any(|m| m.is(RESOLUTION_REQUEST, hub, spoke2)), "{same:#?}");
    let replies: Vec<_> = same.iter().filter(|m| m.kind == RESOLUTION_REPLY).collect();
    assert_eq!(replies.len(), 1, "{same:#?}");
    assert!(replies[0].is(RESOLUTION_REPLY, spoke2, spoke1), "straight: {replies:#?}");

    let learnt = || cloud.nodes[SPOKE2].entry(&format!("{}/32", cloud.nodes[SPOKE1].tunnel)).unwrap();
    let entry = learnt().unwrap();
    assert_eq!((&entry["type"], &entry["nbma"]), (&"cached".into(), &spoke1.to_string().into()), "{entry:#}");
    assert_eq!(entry["flags"]["implicit"], true, "{entry:#}");
    assert_eq!(entry["flags"]["authoritative"], false, "{entry:#}");

    // Whoever asks for it is answered by the first itself, with authority.
    let wire = capture();
    let (client, of) = ([10, 255, 0, 66].into(), cloud.nodes[SPOKE1].tunnel);
    let message = frame::nhrp_resolution(7, Probe::ADDRESS, client, of, Some("wheel"));
    let packet = frame::gre(Some(42), trail::NHRP, &message);
    probe.send(mac, &frame::ipv4((Probe::ADDRESS, cloud.nodes[SPOKE2].nbma), 47, 64, &packet)).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    let to_probe: Vec<_> = heard.iter().filter(|m| m.destination == Probe::ADDRESS).collect();
    assert!(!to_probe.is_empty(), "{heard:#?}");
    for reply in to_probe {
        assert!(reply.is(RESOLUTION_REPLY, spoke1, Probe::ADDRESS), "{reply:#?}");
        assert!(reply.flags & AUTHORITATIVE != 0 && reply.codes.first() == Some(&0), "{reply:#?}");
    }
    wait::until_true("the end of its holding time", SOON, || learnt().is_none())
        .unwrap_or_else(|e| panic!("{e:#}: {:#?}", learnt()));
    cloud.check_alive().unwrap();
}

const TOP: usize = 0;
const MIDDLE: usize = 1;
const BELOW: usize = 2;
const BESIDE: usize = 3;

/// The servers that a request has passed, as it says.
fn passed(message: &Spoken) -> &[IpAddr] {
    assert!(message.extensions.contains(&FORWARD_TRANSIT), "{message:#?}");
    &message.clients
}

/// Input: a server that is itself a client of another; a spoke of each. Output: an address that the first server does not know is asked
/// of the second, and the other way round by the routes; each request names both servers, and the answer comes straight.
#[test]
fn a_server_asks_its_own_server_for_what_it_does_not_know() {
    let _turn = lock::take_turn().unwrap();
    let tunnel = |number: u8| Ipv4Addr::new(10, 255, 0, number);
    let site = |name: &str, number: u8| Site::new(name, number, &format!("{}/24", tunnel(number))).unwrap();
    let client_of =
        |number: u8| format!("[[nhs]]\nprotocol = \"{}\"\nnbma = \"203.0.113.{number}\"", tunnel(number));
    let (below, beside) = ("192.168.11.0/24", "192.168.12.0/24");
    let top = site("top", 1).nhrp("redirect = true").unwrap().route(below, tunnel(2)).unwrap();
    let middle = site("middle", 2).nhrp(&format!("redirect = true\n{}", client_of(1))).unwrap();
    let sites = [
        top.route(beside, tunnel(12)).unwrap(),
        middle.route(below, tunnel(11)).unwrap().route(beside, tunnel(12)).unwrap(),
        // By the other spoke itself, whom its server does not know.
        site("below", 11)
            .nhrp(&format!("shortcut = true\n{}", client_of(2)))
            .unwrap()
            .route(beside, tunnel(12))
            .unwrap(),
        site("beside", 12)
            .nhrp(&format!("shortcut = true\n{}", client_of(1)))
            .unwrap()
            .route(below, tunnel(1))
            .unwrap(),
    ];
    let mut cloud = Cloud::lay_sites(&cloud::test_prefix(), &sites, Ports::Tap).unwrap();
    let wire = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start_processes().unwrap();
    wait::until("registrations", SOON, || {
        for (server, client) in [(TOP, MIDDLE), (MIDDLE, BELOW), (TOP, BESIDE)] {
            let binding = cloud.nodes[server].binding(cloud.nodes[client].tunnel)?;
            ensure!(binding.is_some(), "{} at {}", cloud.nodes[client].name, cloud.nodes[server].name);
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    assert_eq!(cloud.nodes[MIDDLE].binding(tunnel(12)).unwrap(), None);
    let [top, middle, below, beside] =
        [TOP, MIDDLE, BELOW, BESIDE].map(|node| IpAddr::from(cloud.nodes[node].nbma));
    wait::until("the ways of both", Duration::from_secs(15), || {
        ensure!(cloud.pings(BELOW, cloud.nodes[BESIDE].host.address())?, "no ping");
        let bound = cloud.nodes[BELOW].binding(tunnel(12))?;
        ensure!(bound == Some(("cached".to_owned(), beside)), "below has {bound:?}");
        let shortcut = cloud.nodes[BESIDE].entry("192.168.11.0/24")?;
        ensure!(shortcut.as_ref().is_some_and(|s| s["nbma"] == below.to_string()), "beside has {shortcut:?}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    let servers = [tunnel(2), tunnel(1)].map(IpAddr::from);
    for (path, asked) in [
        ([below, middle, top, beside], IpAddr::from(tunnel(12))),
        ([beside, top, middle, below], cloud.nodes[BELOW].host.address().into()),
    ] {
        let legs: Vec<_> = path.windows(2).map(|leg| (leg[0], leg[1])).collect();
        let first =
            heard.iter().find(|m| m.is(RESOLUTION_REQUEST, legs[0].0, legs[0].1) && m.to == Some(asked));
        let first = first.unwrap_or_else(|| panic!("nobody asks for {asked}: {heard:#?}"));
        let same: Vec<_> = heard
            .iter()
            .filter(|m| m.kind <= 2 && m.request == first.request && m.from == first.from)
            .collect();
        for (from, to) in &legs {
            assert!(same.iter().any(|m| m.is(RESOLUTION_REQUEST, *from, *to)), "{from} to {to}: {same:#?}");
        }
        let last = same.iter().find(|m| m.is(RESOLUTION_REQUEST, legs[2].0, legs[2].1)).unwrap();
        assert!(servers.iter().all(|server| passed(last).contains(server)), "{last:#?}");
        assert!(same.iter().any(|m| m.is(RESOLUTION_REPLY, path[3], path[0])), "{same:#?}");
    }
    // Both ways are straight now.
    let wire = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    assert!(cloud.pings(BELOW, cloud.nodes[BESIDE].host.address()).unwrap());
    let ends = [BELOW, BESIDE].map(|node| IpAddr::from(cloud.nodes[node].host.address()));
    let legs = trail::legs(&wire.finish().unwrap(), (ends[0], ends[1]));
    assert!(!legs.is_empty() && legs.iter().all(|(_, from, to)| (*from, *to) == (below, beside)), "{legs:?}");
    cloud.check_alive().unwrap();
}
