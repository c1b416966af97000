//! Three servers and two clients: which servers are used, what happens when one dies and when it is back.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::ensure;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, Ports};
use tests::site::Site;
use tests::traffic::Stream;
use tests::{lock, trail, wait};

const SERVERS: [usize; 3] = [0, 1, 2];
const CLIENT1: usize = 3;
const CLIENT2: usize = 4;

/// The LAN of the second client, and its host.
const FAR_LAN: &str = "10.5.5.0/24";
const FAR_HOST: Ipv4Addr = Ipv4Addr::new(10, 5, 5, 5);

const fn tunnel(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 1, 1 + node.to_le_bytes()[0])
}

const fn nbma(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 1 + node.to_le_bytes()[0])
}

fn site(name: &str, node: usize) -> Site {
    let number = 1 + u8::try_from(node).unwrap();
    let site = Site::new(name, number, &format!("{}/32", tunnel(node))).unwrap();
    site.nhrp("registration = { unique = false }").unwrap()
}

/// Three servers, and two clients that know them by these words, with a default route by each server and this under `nhrp`. The second
/// client is behind a router.
fn lay(servers: &str, clients: &str, known_as: impl Fn(usize) -> String) -> Cloud {
    let lans = [(CLIENT1, "192.168.4.0/24"), (CLIENT2, FAR_LAN)];
    let server = |node: usize| {
        let site = site(&format!("nhs{}", node + 1), node).nhrp(servers).unwrap();
        lans.iter().fold(site, |site, (client, lan)| site.route(lan, tunnel(*client)).unwrap())
    };
    let client = |(name, node)| {
        let known =
            SERVERS.map(|server| format!("[[nhs]]\n{}\nnbma = \"{}\"", known_as(server), nbma(server)));
        let site = site(name, node).nhrp(&format!("{clients}\n{}", known.join("\n"))).unwrap();
        SERVERS.iter().fold(site, |site, server| site.route("0.0.0.0/0", tunnel(*server)).unwrap())
    };
    let clients = [("nhc1", CLIENT1), ("nhc2", CLIENT2)].map(client);
    let sites: Vec<_> = SERVERS.map(server).into_iter().chain(clients).collect();
    let mut cloud = Cloud::lay_sites(&cloud::test_prefix(), &sites, Ports::Tap).unwrap();
    cloud.put_behind_router(CLIENT2, 1500).unwrap();
    cloud.nodes[CLIENT2].edit(|text| text.replace("192.168.5.1/24", "10.5.5.1/24")).unwrap();
    cloud
}

fn start(cloud: &mut Cloud) {
    cloud.start_processes().unwrap();
    let host = &cloud.nodes[CLIENT2].host.namespace;
    host.ip(&format!("addr add {FAR_HOST}/24 dev eth0")).unwrap();
    host.ip("route replace default via 10.5.5.1 mtu 1400").unwrap();
}

/// Waits until the clients' servers stand like this, in order.
fn stand(cloud: &Cloud, what: &str, wanted: [&str; 3]) {
    wait::until(what, Duration::from_secs(30), || {
        for client in [CLIENT1, CLIENT2] {
            let said = cloud.nodes[client].nave_json("show nhs")?;
            let state = |server: &usize| {
                let all = said.as_array()?.iter();
                let of_server = |s: &&serde_json::Value| s["nbma"] == nbma(*server).to_string();
                all.into_iter().find(of_server)?["state"].as_str().map(str::to_owned)
            };
            let states: Vec<_> = SERVERS.iter().filter_map(state).collect();
            ensure!(states == wanted, "{}: {said:#}", cloud.nodes[client].name);
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
}

/// Waits until the clients have host routes to these servers alone.
fn reach(cloud: &Cloud, what: &str, wanted: &[usize]) {
    wait::until(what, Duration::from_secs(30), || {
        for client in [CLIENT1, CLIENT2] {
            let fib = cloud.nodes[client].nave("show fib")?;
            for server in SERVERS {
                let has = fib.contains(&format!("{}/32", tunnel(server)));
                ensure!(has == wanted.contains(&server), "{}: {fib}", cloud.nodes[client].name);
            }
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
}

fn kill(cloud: &mut Cloud, node: usize) {
    cloud.nodes[node].kill_controlplane().unwrap();
    cloud.nodes[node].kill_dataplane().unwrap();
}

/// Waits for packets of a flow that arrive from now on.
fn goes_on(stream: &Stream, what: &str) {
    let before = stream.arrived();
    wait::until_true(what, Duration::from_secs(15), || stream.arrived() > before + 50).unwrap();
}

/// The servers by which packets of a flow go now.
fn relays(cloud: &Cloud, port: u16) -> Vec<IpAddr> {
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let frames = capture.finish().unwrap();
    let source = cloud.nodes[CLIENT1].host.address().into();
    let steps = trail::steps(&frames, (source, FAR_HOST.into()), port);
    let mut relays: Vec<_> = steps.iter().map(|step| step.destination).collect();
    let client = IpAddr::from(cloud.nodes[CLIENT2].nbma);
    relays.retain(|to| *to != client);
    relays.sort_unstable();
    relays.dedup();
    relays
}

/// Input: three servers of one cluster with a priority each, of which one may be used, then two. Output: the best that live are, and
/// packets between the clients go by them; who is back is used again after the time that is set, while packets go on.
#[test]
fn the_best_servers_that_live_are_used() {
    let _turn = lock::take_turn().unwrap();
    let words = "holding_time = 6\nnhs_fallback = 2\nclusters = [{ id = 0, max_connections = 1 }]";
    let mut cloud =
        lay("", words, |server| format!("protocol = \"{}\"\npriority = {server}", tunnel(server)));
    start(&mut cloud);
    stand(&cloud, "the best server", ["responding", "waiting", "waiting"]);
    reach(&cloud, "the best server alone", &[0]);
    for (server, known) in [(0, true), (1, false), (2, false)] {
        let binding = cloud.nodes[server].binding(tunnel(CLIENT1)).unwrap();
        assert_eq!(binding.is_some(), known, "nhs{} has {binding:?}", server + 1);
    }
    let mut flow = cloud.flow(CLIENT1, CLIENT2, 7100, 200);
    flow.destination = FAR_HOST.into();
    let stream = Stream::start(flow).unwrap();
    goes_on(&stream, "packets by the first");
    assert_eq!(relays(&cloud, 7100), [IpAddr::from(nbma(0))]);

    kill(&mut cloud, 0);
    let killed = Instant::now();
    stand(&cloud, "the fail-over", ["expecting", "responding", "waiting"]);
    goes_on(&stream, "packets by the second");
    println!(
        "the second server is used {:.1} s after the death of the first",
        killed.elapsed().as_secs_f64()
    );
    assert_eq!(relays(&cloud, 7100), [IpAddr::from(nbma(1))]);

    cloud.start_node(0).unwrap();
    stand(&cloud, "the fall-back", ["responding", "waiting", "waiting"]);
    goes_on(&stream, "packets by the first again");
    assert_eq!(relays(&cloud, 7100), [IpAddr::from(nbma(0))]);

    // Two at a time.
    for client in [CLIENT1, CLIENT2] {
        let clusters = toml::toml! { clusters = [{ id = 0, max_connections = 2 }] };
        cloud.nodes[client].nhrp().unwrap().extend(clusters);
        cloud.nodes[client].apply().unwrap();
    }
    stand(&cloud, "two servers", ["responding", "responding", "waiting"]);
    kill(&mut cloud, 0);
    stand(&cloud, "the third in place of the first", ["expecting", "responding", "responding"]);
    goes_on(&stream, "packets by those that live");
    drop(stream.finish().unwrap());
    cloud.check_alive().unwrap();
}

/// As FRR's `nhrp_redundancy`, with servers whose tunnel addresses are learnt: all three are used; the shortcut comes with packets and
/// goes without; when the first server dies routes leave it, and the shortcut comes again by the others.
#[test]
fn a_shortcut_forms_again_by_the_servers_that_are_left() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = lay("holding_time = 10\nredirect = true", "holding_time = 10\nshortcut = true", |_| {
        "protocol = \"dynamic\"".to_owned()
    });
    start(&mut cloud);
    stand(&cloud, "all servers", ["responding"; 3]);
    reach(&cloud, "all servers", &SERVERS);
    for server in SERVERS {
        for client in [CLIENT1, CLIENT2] {
            let at = Some(("dynamic".to_owned(), cloud.nodes[client].nbma.into()));
            assert_eq!(cloud.nodes[server].binding(tunnel(client)).unwrap(), at);
        }
        let at = Some(("nhs".to_owned(), nbma(server).into()));
        assert_eq!(cloud.nodes[CLIENT1].binding(tunnel(server)).unwrap(), at);
        assert!(cloud.nodes[CLIENT1].pings(tunnel(server)).unwrap(), "nhc1 to nhs{}", server + 1);
    }
    assert!(cloud.nodes[0].pings(tunnel(CLIENT1)).unwrap() && cloud.nodes[0].pings(tunnel(CLIENT2)).unwrap());

    let shortcut = || cloud.nodes[CLIENT1].entry(FAR_LAN).unwrap();
    let form = |what: &str| {
        wait::until(what, Duration::from_secs(15), || {
            cloud.pings(CLIENT1, FAR_HOST)?;
            let shortcut = shortcut();
            let is_it = shortcut.as_ref().is_some_and(|s| s["next_hop"] == tunnel(CLIENT2).to_string());
            ensure!(is_it, "{shortcut:?}");
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    };
    form("the shortcut");
    wait::until_true("its end without packets", Duration::from_secs(15), || shortcut().is_none()).unwrap();

    kill(&mut cloud, 0);
    reach(&cloud, "the servers that are left", &[1, 2]);
    let fib = cloud.nodes[CLIENT1].nave_json("show fib").unwrap();
    let default = fib.as_array().unwrap().iter().find(|route| route["prefix"] == "0.0.0.0/0").unwrap();
    assert!(!default.to_string().contains(&format!("\"{}\"", tunnel(0))), "{default:#}");
    let shortcut = || cloud.nodes[CLIENT1].entry(FAR_LAN).unwrap();
    wait::until("the shortcut again", Duration::from_secs(15), || {
        ensure!(cloud.pings(CLIENT1, FAR_HOST)?, "no ping");
        ensure!(shortcut().is_some(), "no shortcut");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    cloud.check_alive().unwrap();
}
