//! Both address families at once, inside and outside: what the demonstration tells of IPv4 over IPv4 holds for all four combinations.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::traffic::Stream;
use tests::trail::{self, Way};
use tests::tshark::{self, Spoken};
use tests::{lock, path, wait};

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
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start().unwrap();
    let nbma = |node: usize| -> IpAddr {
        let node = &cloud.nodes[node];
        if over_ipv6 { node.nbma6.into() } else { node.nbma.into() }
    };
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
    let nbmas = [HUB, SPOKE1, SPOKE2].map(nbma);
    registered_and_resolved(&cloud, nbmas, &tshark::spoken(&frames).unwrap());
    purged(&mut cloud, nbmas);
    cloud.check_alive().unwrap();
}

/// What NHRP said of each family's addresses, and what the nodes have of it.
fn registered_and_resolved(cloud: &Cloud, nbmas: [IpAddr; 3], heard: &[Spoken]) {
    let [hub, spoke1, spoke2] = nbmas;
    let far = &cloud.nodes[SPOKE2];
    for (tunnel, host, lan) in [
        (IpAddr::from(far.tunnel), IpAddr::from(far.host.address()), "192.168.12.0/24"),
        (far.tunnel6.into(), far.host.address6().into(), "2001:db8:a:12::/64"),
    ] {
        let registration = |m: &&Spoken| m.is(4, hub, spoke2) && m.from == Some(tunnel);
        let registration = heard.iter().find(registration).unwrap_or_else(|| panic!("{tunnel}: {heard:#?}"));
        assert_eq!(registration.codes.first(), Some(&0), "{registration:#?}");
        let at = |node: usize| cloud.nodes[node].binding(tunnel).unwrap();
        assert_eq!(at(HUB), Some(("dynamic".to_owned(), spoke2)));

        // The spoke asks the hub, who asks the other; that one answers straight.
        let of_host = |m: &&Spoken| m.to == Some(host);
        let request = heard.iter().filter(of_host).find(|m| m.is(1, spoke1, hub)).unwrap();
        let of_request = |m: &&Spoken| m.kind <= 2 && m.request == request.request && m.from == request.from;
        assert!(heard.iter().filter(of_request).any(|m| m.is(1, hub, spoke2)), "{heard:#?}");
        let reply = heard.iter().filter(of_request).find(|m| m.kind == 2).unwrap();
        assert!(reply.is(2, spoke2, spoke1) && reply.codes.first() == Some(&0), "{reply:#?}");
        assert_eq!(at(SPOKE1), Some(("cached".to_owned(), spoke2)));
        let shortcut = cloud.nodes[SPOKE1].entry(lan).unwrap().unwrap();
        assert_eq!(shortcut["next_hop"], tunnel.to_string(), "{shortcut:#}");
    }
}

/// The second spoke leaves, and everybody is told so for each family.
fn purged(cloud: &mut Cloud, nbmas: [IpAddr; 3]) {
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.nodes[SPOKE2].stop().unwrap();
    let tunnels = [IpAddr::from(cloud.nodes[SPOKE2].tunnel), cloud.nodes[SPOKE2].tunnel6.into()];
    wait::until("the leave", Duration::from_secs(5), || {
        for (node, tunnel) in [HUB, SPOKE1].into_iter().flat_map(|node| tunnels.map(|tunnel| (node, tunnel)))
        {
            let left = cloud.nodes[node].binding(tunnel)?;
            anyhow::ensure!(left.is_none(), "{tunnel} at {}: {left:?}", cloud.nodes[node].name);
        }
        for lan in ["192.168.12.0/24", "2001:db8:a:12::/64"] {
            anyhow::ensure!(cloud.nodes[SPOKE1].entry(lan)?.is_none(), "{lan} is still there");
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    let heard = tshark::spoken(&capture.finish().unwrap()).unwrap();
    let [hub, spoke1, spoke2] = nbmas;
    for (to, tunnel) in [hub, spoke1].into_iter().flat_map(|to| tunnels.map(|tunnel| (to, tunnel))) {
        let purge = heard.iter().find(|m| m.is(5, spoke2, to) && m.clients.contains(&tunnel));
        assert!(purge.is_some(), "of {tunnel} to {to}: {heard:#?}");
    }
}

#[test]
fn both_families_go_by_the_hub_and_then_direct() {
    from_cold(false);
}

#[test]
fn both_families_go_by_the_hub_and_then_direct_over_ipv6() {
    from_cold(true);
}
