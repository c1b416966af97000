//! Both address families at once, inside and outside: what the demonstration tells of IPv4 over IPv4 holds for all four combinations.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::traffic::Stream;
use tests::trail::{self, Way};
use tests::{lock, path};

/// Packets a second of each of four flows.
const RATE: u32 = 250;

/// Input: packets of both families both ways between the spokes' hosts, from the first ARP and neighbour solicitation on. Output: all
/// arrive once, by the hub at first and then straight, in the underlay's family; and TCP of both families after them.
fn from_cold(over_ipv6: bool) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Tap).unwrap();
    if over_ipv6 {
        cloud.number_in_ipv6().unwrap();
    }
    cloud.start().unwrap();
    let nbma = |node: usize| -> IpAddr {
        let node = &cloud.nodes[node];
        if over_ipv6 { node.nbma6.into() } else { node.nbma.into() }
    };
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    let flows = [
        (cloud.flow(SPOKE1, SPOKE2, 7600, RATE), (SPOKE1, SPOKE2)),
        (cloud.flow6(SPOKE1, SPOKE2, 7601, RATE), (SPOKE1, SPOKE2)),
        (cloud.flow(SPOKE2, SPOKE1, 7602, RATE), (SPOKE2, SPOKE1)),
        (cloud.flow6(SPOKE2, SPOKE1, 7603, RATE), (SPOKE2, SPOKE1)),
    ];
    let streams = flows.clone().map(|(flow, _)| Stream::start(flow).unwrap());
    sleep(Duration::from_secs(4));
    streams.iter().for_each(Stream::stop);
    let tallies = streams.map(|stream| stream.finish().unwrap());
    let frames = capture.finish().unwrap();
    for (tally, (flow, (from, to))) in tallies.iter().zip(&flows) {
        println!("{tally}");
        assert!(tally.is_whole(), "{tally}\n{}", cloud.logs());
        let steps = trail::steps(&frames, (flow.source, flow.destination), flow.port);
        let way = Way::of(&steps, nbma(*from), nbma(HUB), nbma(*to)).unwrap();
        println!("{} → {}: {way}", flow.source, flow.destination);
        // What goes back may find the way prepared.
        assert!(way.direct > 0 && (way.relayed > 0 || *from == SPOKE2), "{way}");
    }
    let [client, server] = [SPOKE1, SPOKE2].map(|node| &cloud.nodes[node].host);
    for to in [IpAddr::from(server.address()), server.address6().into()] {
        let tcp = path::tcp(&client.namespace, &server.namespace, to, 1).unwrap();
        assert!(tcp.bytes > 1_000_000, "to {to}: {tcp:?}");
    }
    cloud.check_alive().unwrap();
}

#[test]
fn both_families_go_by_the_hub_and_then_direct() {
    from_cold(false);
}

#[test]
fn both_families_go_by_the_hub_and_then_direct_over_ipv6() {
    from_cold(true);
}
