//! What FRR's own tests assert of nhrpd in its topologies `nhrp_topo` and `nhrp_redundancy`, asserted of Nave: tunnels with host
//! addresses, short holding times, a hub behind a router, servers in reserve.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, Ports};
use tests::node::Node;
use tests::site::Site;
use tests::{lock, tshark, wait};

/// In FRR's topology r1 and r4 are spokes, r2 is the hub behind the router r3.
const R1: usize = 0;
const R2: usize = 1;
const R4: usize = 2;

/// Tunnel address of a node.
const fn tunnel(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 255, number)
}

/// The hub's address behind the router.
const HUB_NBMA: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

fn site(number: u8) -> Site {
    let site = Site::new(&format!("r{number}"), number, &format!("{}/32", tunnel(number))).unwrap();
    site.nhrp("holding_time = 10\nauthentication = \"secret\"").unwrap()
}

fn spoke(number: u8) -> Site {
    let other = if number == 1 { 4 } else { 1 };
    let server = format!("shortcut = true\n[[nhs]]\nprotocol = \"{}\"\nnbma = \"{HUB_NBMA}\"", tunnel(2));
    let routes = [2, other].map(|lan| format!("192.168.{lan}.0/24"));
    let site = site(number).nhrp(&server).unwrap();
    routes.iter().fold(site, |site, prefix| site.route(prefix, tunnel(2)).unwrap())
}

/// The topology, with r1, r2 and r4 started and registered.
fn up() -> Cloud {
    let hub = site(2).nhrp("redirect = true\nmap_multicast = [\"dynamic\"]").unwrap();
    let hub = [1, 4]
        .iter()
        .fold(hub, |hub, number| hub.route(&format!("192.168.{number}.0/24"), tunnel(*number)).unwrap());
    let sites = [spoke(1), hub, spoke(4)];
    let mut cloud = Cloud::lay_sites(&cloud::test_prefix(), &sites, Ports::Tap).unwrap();
    cloud.put_behind_router(R2, 1500).unwrap();
    cloud.start_processes().unwrap();
    converge(&cloud);
    cloud
}

/// What a node has of each tunnel address: type and NBMA address.
fn has(node: &Node, wanted: &[(u8, &str, Ipv4Addr)]) -> anyhow::Result<()> {
    for &(number, kind, nbma) in wanted {
        let found = node.binding(tunnel(number))?;
        ensure!(found == Some((kind.to_owned(), nbma.into())), "{} has {found:?} of r{number}", node.name);
    }
    Ok(())
}

/// Waits for the caches and host routes of a converged topology.
fn converge(cloud: &Cloud) {
    let nbma = |node: usize| cloud.nodes[node].nbma;
    wait::until("convergence", Duration::from_secs(20), || {
        has(&cloud.nodes[R1], &[(1, "local", nbma(R1)), (2, "nhs", HUB_NBMA)])?;
        has(&cloud.nodes[R2], &[(1, "dynamic", nbma(R1)), (2, "local", HUB_NBMA), (4, "dynamic", nbma(R4))])?;
        has(&cloud.nodes[R4], &[(2, "nhs", HUB_NBMA), (4, "local", nbma(R4))])?;
        for (node, peers) in [(R1, &[2][..]), (R2, &[1, 4]), (R4, &[2])] {
            peers.iter().try_for_each(|peer| is_reached(&cloud.nodes[node], *peer, true))?;
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
}

/// Whether a node has a host route to a peer, of NHRP, and its kernel too.
fn is_reached(node: &Node, peer: u8, wanted: bool) -> anyhow::Result<()> {
    let address = tunnel(peer);
    let routes = node.nave_json("show routes")?;
    let is_it = |route: &&Value| route["prefix"] == format!("{address}/32") && route["owner"] == "nhrp";
    let found = routes.as_array().is_some_and(|routes| routes.iter().any(|route| is_it(&route)));
    ensure!(found == wanted, "{}: {routes:#}", node.name);
    let kernel = node.namespace.ip("route")?;
    ensure!(kernel.contains(&format!("{address} dev tunnel0")) == wanted, "{}: {kernel}", node.name);
    Ok(())
}

/// The shortcut of r1 to the LAN of r4.
fn has_shortcut(cloud: &Cloud) -> anyhow::Result<()> {
    cloud.pings(R1, cloud.nodes[R4].host.address())?;
    let shortcut = cloud.nodes[R1].entry("192.168.4.0/24")?;
    ensure!(shortcut.as_ref().is_some_and(|s| s["next_hop"] == tunnel(4).to_string()), "{shortcut:?}");
    Ok(())
}

/// As `nhrp_topo`: caches and host routes, pings, the shortcut; a wrong word breaks it, the right one mends it.
#[test]
fn a_hub_behind_a_router_and_spokes_with_host_addresses() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = up();
    assert!(cloud.nodes[R1].pings(tunnel(2)).unwrap(), "r1 to r2, through their kernels");
    assert!(cloud.nodes[R4].pings(tunnel(2)).unwrap());
    assert!(cloud.pings(R1, cloud.nodes[R2].host.address()).unwrap());
    wait::until("the shortcut", Duration::from_secs(10), || has_shortcut(&cloud))
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    is_reached(&cloud.nodes[R1], 4, true).unwrap();

    let word = |cloud: &mut Cloud, word: &str| {
        cloud.nodes[R1].nhrp().unwrap().insert("authentication".to_owned(), word.into());
        cloud.nodes[R1].apply().unwrap();
    };
    word(&mut cloud, "wrong");
    wait::until_true("no ping with the wrong word", Duration::from_secs(20), || {
        !cloud.nodes[R1].pings(tunnel(2)).unwrap()
    })
    .unwrap();
    word(&mut cloud, "secret");
    wait::until_true("a ping with the right word", Duration::from_secs(10), || {
        cloud.nodes[R1].pings(tunnel(2)).unwrap()
    })
    .unwrap();
    converge(&cloud);
    cloud.check_alive().unwrap();
}

/// How often an address is asked for before it rests.
const ATTEMPTS: usize = 6;

/// As `nhrp_topo` with r4 shut off from NHRP: it is asked for again and again with one request id, and then not any more; packets
/// go by the hub all the while.
#[test]
fn an_address_that_nobody_answers_for_is_asked_for_six_times_and_rests() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = up();
    // The hub is to know it for longer than that takes.
    cloud.nodes[R4].nhrp().unwrap().insert("holding_time".to_owned(), 600.into());
    cloud.nodes[R4].apply().unwrap();
    wait::until_true("the longer holding time", Duration::from_secs(5), || {
        let entry = cloud.nodes[R2].entry(&format!("{}/32", tunnel(4))).unwrap();
        entry.is_some_and(|entry| entry["expires_in"].as_f64().is_some_and(|left| left > 60.0))
    })
    .unwrap();
    let far = cloud.nodes[R4].host.address();
    // Its LAN is resolved for good: who died asks nobody.
    assert!(cloud.pings(R2, far).unwrap());
    cloud.nodes[R4].kill_controlplane().unwrap();
    // As it leaves r1: behind the router it passes a second bridge.
    let capture =
        Capture::start(&cloud.internet, BRIDGE, |frame| frame[6..12] == [2, 0, 0, 0, 1, 3]).unwrap();
    assert!(cloud.pings(R1, far).unwrap());
    let asked = IpAddr::from(far);
    let of_address = || cloud.nodes[R1].entry(&format!("{far}/32")).unwrap();
    assert_eq!(of_address().unwrap()["type"], "incomplete");
    wait::until_true("the rest", Duration::from_secs(45), || {
        of_address().is_some_and(|entry| entry["type"] == "negative")
    })
    .unwrap_or_else(|e| panic!("{e:#}: {:?}\n{}", of_address(), cloud.logs()));
    assert!(cloud.pings(R1, far).unwrap(), "by the hub");
    let heard = tshark::spoken(&capture.finish().unwrap()).unwrap();
    let r1 = cloud.nodes[R1].nbma;
    let requests: Vec<_> = heard.iter().filter(|m| m.is(1, r1, HUB_NBMA) && m.to == Some(asked)).collect();
    assert_eq!(requests.len(), ATTEMPTS, "{requests:#?}");
    assert!(requests.iter().all(|m| m.request == requests[0].request), "{requests:#?}");
}
