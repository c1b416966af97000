//! How large packets may be: through an overlay of 1,400 bytes, over underlays that take 1,500 or, behind a router, 1,300; both
//! families inside, either outside. The hosts' own links take 9,000 bytes, so that whatever is too large is the node's business.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use tests::cloud::{self, Cloud, Ports, SPOKE1, SPOKE2};
use tests::netns::Namespace;
use tests::path::{self, Traced};
use tests::traffic::{Flow, Stream};
use tests::{lock, wait};

/// Of the hosts' links and of the ports.
const LAN: u16 = 9000;
/// Of the tunnels.
const TUNNEL: u16 = 1400;
/// Of the router's links, where there is one.
const NARROW: u16 = 1300;
/// Bytes of GRE with its key.
const GRE: u16 = 8;
/// What every link of IPv6 has to take (RFC 8200 §5).
const LEAST_OF_IPV6: u16 = 1280;

/// What one address family has between the spokes' hosts.
struct Family {
    ipv6: bool,
    /// Headers of an echo request.
    headers: u16,
    /// Both hosts.
    ends: [IpAddr; 2],
    /// Their node's address on the LAN of the first.
    router: IpAddr,
    /// The way, the second host included.
    hops: [IpAddr; 3],
}

impl Family {
    fn both(cloud: &Cloud) -> [Self; 2] {
        let [here, there] = [SPOKE1, SPOKE2].map(|node| &cloud.nodes[node]);
        let (v4, v6) = (here.host.router().into(), here.host.router6().into());
        let ends4 = [here, there].map(|node| IpAddr::from(node.host.address()));
        let ends6 = [here, there].map(|node| IpAddr::from(node.host.address6()));
        let hops4 = [v4, there.tunnel.into(), ends4[1]];
        let hops6 = [v6, there.tunnel6.into(), ends6[1]];
        [
            Self { ipv6: false, headers: 28, ends: ends4, router: v4, hops: hops4 },
            Self { ipv6: true, headers: 48, ends: ends6, router: v6, hops: hops6 },
        ]
    }

    fn to(&self) -> IpAddr {
        self.ends[1]
    }

    fn flow(&self, cloud: &Cloud, port: u16) -> Flow {
        let flow = if self.ipv6 { Cloud::flow6 } else { Cloud::flow };
        // Eight datagrams of 8 kB each tenth of a second.
        Flow { payload: 8000, ..flow(cloud, SPOKE1, SPOKE2, port, 80) }
    }
}

/// A phase 3 cloud of both families with wide LANs, its spokes' hosts in touch by the shortcuts.
fn up(over_ipv6: bool, router: bool) -> Cloud {
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Pcap).unwrap();
    cloud.widen_lans(LAN).unwrap();
    if over_ipv6 {
        cloud.number_in_ipv6().unwrap();
    }
    if router {
        cloud.put_behind_router(SPOKE2, NARROW).unwrap();
    }
    cloud.start().unwrap();
    for family in Family::both(&cloud) {
        let to = family.to();
        wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {to}\n{}", cloud.logs()));
        wait::until("the shortcut", Duration::from_secs(10), || {
            let hops = path::hops(host(&cloud, SPOKE1), to)?;
            anyhow::ensure!(hops == family.hops, "{hops:?}");
            Ok(())
        })
        .unwrap();
    }
    cloud
}

fn host(cloud: &Cloud, node: usize) -> &Namespace {
    &cloud.nodes[node].host.namespace
}

/// What the spokes have dropped, and what they know of paths.
fn counted(cloud: &Cloud) -> String {
    let shown =
        |node: usize, what: &str| cloud.nodes[node].nave(what).unwrap_or_else(|fault| fault.to_string());
    let of = |node| {
        format!(
            "{}{}{}",
            shown(node, "show drops"),
            shown(node, "show counters"),
            shown(node, "show adjacency")
        )
    };
    format!("{}\n{}", of(SPOKE1), of(SPOKE2))
}

/// Nobody who may not cut a packet gets one through that is larger than `mtu`, everybody gets through what is not, and who asks
/// is told.
fn sizes(cloud: &Cloud, family: &Family, mtu: u16) {
    let (from, to) = (host(cloud, SPOKE1), family.to());
    path::forget(from).unwrap();
    let largest = path::largest_of_every_size(from, to, 9000)
        .unwrap_or_else(|fault| panic!("{fault:#}\n{}", counted(cloud)));
    assert_eq!(largest, mtu - family.headers, "the largest ping to {to}");
    assert_eq!(path::known_mtu(from, to).unwrap(), Some(u32::from(mtu)), "{to}");
    // Just too large, and as large as the LAN takes.
    for size in [mtu - family.headers + 1, LAN - family.headers] {
        let told = path::refusal(from, to, size).unwrap();
        assert_eq!(told, (family.router, u32::from(mtu)), "about {size} bytes to {to}");
    }
    path::forget(from).unwrap();
    let traced = path::traced(from, to).unwrap();
    assert_eq!(traced, Traced { mtu: mtu.into(), hops: 3 }, "{to}");
}

/// What may be cut arrives whole: pings, and datagrams of 8 kB. Of IPv4 the node cuts, of IPv6 the host.
fn cut(cloud: &Cloud, family: &Family, port: u16) {
    for node in [SPOKE1, SPOKE2] {
        path::forget(host(cloud, node)).unwrap();
        // Datagrams go out whole and may be cut on the way.
        host(cloud, node).switch("ipv4/ip_no_pmtu_disc", true).unwrap();
    }
    let to = family.to().to_string();
    let ping = |size: u16, count: &str| {
        let args = ["-n", "-c", count, "-i", "0.2", "-W", "2", "-M", "dont", "-s", &size.to_string(), &to];
        String::from_utf8(host(cloud, SPOKE1).output("ping", &args).unwrap().stdout).unwrap()
    };
    if family.ipv6 {
        // That hosts on both sides learn what they have to cut to.
        ping(8000, "12");
    }
    for size in [TUNNEL - family.headers + 1, 2000, 4000, 8000, LAN - family.headers] {
        let said = ping(size, "2");
        assert!(said.contains(" 0% packet loss"), "{size} bytes to {to}: {said}");
    }
    let stream = Stream::start(family.flow(cloud, port)).unwrap();
    sleep(Duration::from_secs(2));
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole() && tally.sent > 100, "{tally}");
    for node in [SPOKE1, SPOKE2] {
        host(cloud, node).switch("ipv4/ip_no_pmtu_disc", false).unwrap();
    }
}

/// TCP takes its segments from the tunnel, without a refusal where the path takes what the tunnel takes (`exact`); and where the
/// tunnel does not say, from the refusals.
fn tcp(cloud: &mut Cloud, exact: bool) {
    for clamp in ["auto", "off"] {
        for spoke in [SPOKE1, SPOKE2] {
            let tunnel = cloud.nodes[spoke].config["tunnels"][0].as_table_mut().unwrap();
            tunnel.insert("tcp_mss".to_owned(), clamp.into());
            cloud.nodes[spoke].apply().unwrap();
        }
        for family in Family::both(cloud) {
            let [client, server] = [SPOKE1, SPOKE2].map(|node| host(cloud, node));
            for host in [client, server] {
                path::forget(host).unwrap();
            }
            let refusals = || [client, server].map(|host| path::too_bigs(host, family.ipv6).unwrap());
            let before = refusals();
            let tcp = path::tcp(client, server, family.to(), 2).unwrap();
            let (after, to) = (refusals(), family.to());
            println!("TCP to {to}, clamp {clamp}: {tcp:?}, refusals {before:?} to {after:?}");
            assert!(tcp.bytes > 1_000_000, "to {to}, clamp {clamp}: {tcp:?}");
            // Without the headers of IP and TCP.
            let most = u64::from(TUNNEL - (family.headers - 8) - 20);
            if clamp == "off" {
                assert!(tcp.segment > most, "to {to}: {tcp:?}");
                assert!(after[0] > before[0], "to {to}: the client was told");
            } else {
                assert!(tcp.segment <= most && tcp.segment + 200 > most, "to {to}: {tcp:?}, not {most}");
                assert!(after == before || !exact, "to {to}: somebody had to be told");
            }
        }
    }
}

/// What a node of the graph of spoke2 has taken.
fn packets(cloud: &Cloud, node: &str) -> u64 {
    let counters = cloud.nodes[SPOKE2].nave_json("show counters").unwrap();
    let nodes = counters["nodes"].as_array().unwrap();
    let found = nodes.iter().find(|n| n["node"] == node);
    found.unwrap_or_else(|| panic!("no {node} in {counters}"))["packets"].as_u64().unwrap()
}

/// Over an underlay that takes what the tunnel makes.
fn wide(over_ipv6: bool) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = up(over_ipv6, false);
    for (family, port) in Family::both(&cloud).iter().zip(7100..) {
        sizes(&cloud, family, TUNNEL);
        cut(&cloud, family, port);
    }
    tcp(&mut cloud, true);
    assert_eq!(packets(&cloud, "reassemble"), 0, "no outer packet was cut");
    cloud.check_alive().unwrap();
}

/// Over one that takes less, which nobody knows beforehand.
fn narrow(over_ipv6: bool) {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = up(over_ipv6, true);
    let [v4, v6] = Family::both(&cloud);
    let inner = NARROW - GRE - if over_ipv6 { 40 } else { 20 };
    if !over_ipv6 {
        // As long as nobody has asked for more than the path takes: the router cuts what the node cut already.
        cut(&cloud, &v4, 7200);
        assert!(packets(&cloud, "reassemble") > 100, "the outer packets were cut, and put together again");
    }
    sizes(&cloud, &v4, inner);
    let peer =
        if over_ipv6 { cloud.nodes[SPOKE2].nbma6.into() } else { IpAddr::from(cloud.nodes[SPOKE2].nbma) };
    let adjacencies = cloud.nodes[SPOKE1].nave_json("show adjacency").unwrap();
    let mtus: Vec<_> =
        adjacencies.as_array().unwrap().iter().filter(|a| a["nbma"] == peer.to_string()).collect();
    assert!(!mtus.is_empty() && mtus.iter().all(|a| a["mtu"] == inner), "{mtus:#?}");
    // IPv6 hosts are told no less than the least, and that goes in two pieces.
    let before = packets(&cloud, "reassemble");
    sizes(&cloud, &v6, LEAST_OF_IPV6);
    assert!(packets(&cloud, "reassemble") > before, "the outer packets were cut, and put together again");
    cut(&cloud, &v4, 7201);
    cut(&cloud, &v6, 7202);
    tcp(&mut cloud, false);
    cloud.check_alive().unwrap();
}

/// Input: sizes 1 to 9,000, TCP, datagrams of 8 kB, of both families over IPv4 links of 1,500. Output: exactly what 1,400 take.
#[test]
fn a_tunnel_of_1400_over_links_of_1500() {
    wide(false);
}

/// Input: the same over IPv6 links of 1,500. Output: the same.
#[test]
fn a_tunnel_of_1400_over_ipv6_links_of_1500() {
    wide(true);
}

/// Input: the same with a router of 1,300 bytes in between. Output: exactly what it takes, 1,272, and 1,280 of IPv6.
#[test]
fn a_router_of_1300_in_between() {
    narrow(false);
}

/// Input: the same over IPv6. Output: 1,252, and 1,280 of IPv6.
#[test]
fn a_router_of_1300_in_between_over_ipv6() {
    narrow(true);
}
