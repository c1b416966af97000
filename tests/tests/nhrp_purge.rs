//! Who leaves is forgotten at once, wherever it was known, and what still has a way goes on.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::traffic::Stream;
use tests::tshark::{self, Spoken};
use tests::{lock, wait};

/// How long what follows at once may take; holding times are 600 s.
const SOON: Duration = Duration::from_secs(5);
/// The LAN of spoke 2.
const LAN2: &str = "192.168.12.0/24";

const PURGE_REQUEST: u8 = 5;
const PURGE_REPLY: u8 = 6;
/// Flag N of a purge request: no reply is wanted.
const NO_REPLY: u16 = 0x8000;

/// Packets from the first spoke's host to the second's until there is a shortcut to `nbma`.
fn shorten(cloud: &Cloud, nbma: IpAddr) {
    let to = cloud.nodes[SPOKE2].host.address();
    wait::until(&format!("a shortcut to {nbma}"), Duration::from_secs(10), || {
        cloud.pings(SPOKE1, to)?;
        let shortcut = cloud.nodes[SPOKE1].entry(LAN2)?;
        anyhow::ensure!(shortcut.as_ref().is_some_and(|s| s["nbma"] == nbma.to_string()), "{shortcut:?}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    // Both ways: the second knows where the first is.
    let back = cloud.nodes[SPOKE2].binding(cloud.nodes[SPOKE1].tunnel).unwrap();
    assert_eq!(back, Some(("cached".to_owned(), cloud.nodes[SPOKE1].nbma.into())));
}

/// Waits until neither the hub nor the first spoke knows anything of the second at `nbma`.
fn is_forgotten(cloud: &Cloud, nbma: IpAddr) {
    let tunnel = cloud.nodes[SPOKE2].tunnel;
    wait::until("who left to be forgotten", SOON, || {
        for node in [HUB, SPOKE1] {
            let binding = cloud.nodes[node].binding(tunnel)?;
            anyhow::ensure!(
                binding.as_ref().is_none_or(|b| b.1 != nbma),
                "{binding:?} at {}",
                cloud.nodes[node].name
            );
        }
        let shortcut = cloud.nodes[SPOKE1].entry(LAN2)?;
        anyhow::ensure!(shortcut.as_ref().is_none_or(|s| s["nbma"] != nbma.to_string()), "{shortcut:?}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    let fib = cloud.nodes[SPOKE1].nave("show fib").unwrap();
    assert!(cloud.nodes[SPOKE1].entry(LAN2).unwrap().is_some() || !fib.contains(LAN2), "{fib}");
}

/// Requests to forget the second spoke's tunnel address from `nbma` to the hub and to the first spoke.
fn requests(cloud: &Cloud, heard: &[Spoken], from: IpAddr) -> Vec<Spoken> {
    let tunnel = IpAddr::from(cloud.nodes[SPOKE2].tunnel);
    let requests = [HUB, SPOKE1].map(|node| {
        let to = cloud.nodes[node].nbma;
        let found = heard.iter().find(|m| m.is(PURGE_REQUEST, from, to) && m.clients.contains(&tunnel));
        found.cloned().unwrap_or_else(|| panic!("nothing from {from} to {to}: {heard:#?}"))
    });
    requests.into()
}

/// Input: a spoke that others have a shortcut to stops, loses its tunnel, changes its underlay address. Output: each time hub and
/// other spoke forget it at once, upon purge requests; with a new address traffic goes on by the hub, and then by a new shortcut.
#[test]
fn a_spoke_that_leaves_is_forgotten_at_once() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    // As by DHCP: the underlay address of the second spoke comes from outside.
    let first = cloud.nodes[SPOKE2].nbma;
    let second = Ipv4Addr::new(203, 0, 113, 22);
    cloud.nodes[SPOKE2].edit(|text| text.replace(&format!("addresses = [\"{first}/24\"]"), "")).unwrap();
    let own = |cloud: &Cloud, word: &str, address: Ipv4Addr| {
        cloud.nodes[SPOKE2].namespace.ip(&format!("addr {word} {address}/24 dev wan")).unwrap();
    };
    cloud.start_processes().unwrap();
    cloud.wait_registered(SPOKE1).unwrap();
    own(&cloud, "add", first);
    cloud.wait_registered(SPOKE2).unwrap();
    let internet = cloud.internet.clone();
    let capture = || Capture::start(&internet, BRIDGE, |_| true).unwrap();

    // Another address: the old one is purged from the new one, replies come; and packets still find the way.
    shorten(&cloud, first.into());
    let wire = capture();
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, 7000, 200)).unwrap();
    own(&cloud, "del", first);
    own(&cloud, "add", second);
    is_forgotten(&cloud, first.into());
    let arrived = stream.arrived();
    wait::until_true("packets by the hub", SOON, || stream.arrived() > arrived + 100).unwrap();
    shorten(&cloud, second.into());
    drop(stream.finish().unwrap());
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    for request in requests(&cloud, &heard, second.into()) {
        assert!(request.flags & NO_REPLY == 0 && request.nbmas.contains(&first.into()), "{request:#?}");
        let reply = heard
            .iter()
            .find(|m| m.is(PURGE_REPLY, request.destination, request.source) && m.request == request.request);
        assert!(reply.is_some(), "no reply to {request:#?} in {heard:#?}");
    }
    assert_eq!(
        cloud.nodes[HUB].binding(cloud.nodes[SPOKE2].tunnel).unwrap(),
        Some(("dynamic".to_owned(), second.into()))
    );

    // Without the tunnel, by configuration: the last words need no reply.
    let wire = capture();
    let whole = cloud.nodes[SPOKE2].config.clone();
    for part in ["tunnels", "routes"] {
        cloud.nodes[SPOKE2].config.remove(part);
    }
    cloud.nodes[SPOKE2].apply().unwrap();
    is_forgotten(&cloud, second.into());
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    for request in requests(&cloud, &heard, second.into()) {
        assert!(request.flags & NO_REPLY != 0, "{request:#?}");
    }
    assert_eq!(heard.iter().filter(|m| m.kind == PURGE_REPLY).count(), 0, "{heard:#?}");
    cloud.nodes[SPOKE2].config = whole;
    cloud.nodes[SPOKE2].apply().unwrap();
    cloud.wait_registered(SPOKE2).unwrap();

    // A clean stop.
    shorten(&cloud, second.into());
    let wire = capture();
    cloud.nodes[SPOKE2].stop().unwrap();
    is_forgotten(&cloud, second.into());
    let heard = tshark::spoken(&wire.finish().unwrap()).unwrap();
    requests(&cloud, &heard, second.into());
    assert!(cloud.pings(SPOKE1, cloud.nodes[HUB].host.address()).unwrap());
    cloud.check_alive().unwrap();
}
