//! How large packets may be on protected tunnels: ESP in transport mode, native over IPv4 and IPv6 and in UDP, over links of 1,500
//! bytes and behind a router that takes 1,300. The hosts' own links take 9,000 bytes.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::net::IpAddr;
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::netns::Namespace;
use tests::{esp, lock, path, wait};

/// Of the hosts' links and of the ports.
const LAN: u16 = 9000;
/// Of the router's links.
const NARROW: u16 = 1300;
/// Headers of an echo request over IPv4.
const PING: u16 = 28;
/// What stands around an inner packet, besides the outer IP header and UDP: SPI, sequence number, IV and ICV (RFC 4303 §2, RFC 4106).
const AROUND: u16 = 16 + 16;

/// The largest inner packet, of what a link takes: what is encrypted, GRE with its key and the trailer of two bytes included, is a
/// multiple of four (RFC 4303 §2.4).
fn largest(link: u16, outer: u16) -> u16 {
    (link - outer - AROUND) / 4 * 4 - 2 - 8
}

fn host(cloud: &Cloud, node: usize) -> &Namespace {
    &cloud.nodes[node].host.namespace
}

/// Two pings that may not be cut: whether both are echoed, and what was said.
fn pings(from: &Namespace, to: IpAddr, size: u16) -> (bool, String) {
    let args =
        ["-n", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", &size.to_string(), &to.to_string()];
    let said = String::from_utf8(from.output("ping", &args).unwrap().stdout).unwrap();
    (said.contains(" 0% packet loss"), said)
}

/// Pings that may not be cut, through a tunnel of this MTU: one as large as the path takes is echoed, of a larger one the sender is told by
/// its node what the path takes.
fn boundary(cloud: &Cloud, to: usize, tunnel: u16, mtu: u16) {
    let (from, to) = (host(cloud, SPOKE1), IpAddr::from(cloud.nodes[to].host.address()));
    let router = IpAddr::from(cloud.nodes[SPOKE1].host.router());
    let known = || cloud.nodes[SPOKE1].nave("show adjacency").unwrap();
    // What the underlay takes is learnt from the first that is too large for it, which is lost.
    wait::until("what the path takes", Duration::from_secs(10), || {
        path::forget(from)?;
        pings(from, to, tunnel - PING);
        for size in [LAN - PING, mtu - PING + 1] {
            let told = path::refusal(from, to, size)?;
            anyhow::ensure!(told == (router, u32::from(mtu)), "{told:?} about {size} bytes");
        }
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}: not {mtu} to {to}\n{}", known()));
    for size in [mtu - PING, mtu - PING - 1, mtu - PING - 2, mtu - PING - 3, 100] {
        let (echoed, said) = pings(from, to, size);
        assert!(echoed, "{size} bytes to {to}: {said}\n{}", known());
    }
}

/// What may be cut arrives whole: it is cut before ESP, or its ESP by a router of IPv4.
fn cut(cloud: &Cloud, to: usize) {
    let to = cloud.nodes[to].host.address().to_string();
    let ping = |size: u16| {
        let args = ["-n", "-c", "2", "-i", "0.2", "-W", "2", "-M", "dont", "-s", &size.to_string(), &to];
        String::from_utf8(host(cloud, SPOKE1).output("ping", &args).unwrap().stdout).unwrap()
    };
    if cloud.is_over_ipv6() {
        // A router of IPv6 cuts nothing: the other end learns what the path takes from its first reply.
        ping(2000);
    }
    for size in [2000, 8000, LAN - PING] {
        let said = ping(size);
        assert!(said.contains(" 0% packet loss"), "{size} bytes to {to}: {said}");
    }
}

/// TCP's segments fit, so that nobody has to be told.
fn tcp(cloud: &Cloud, to: usize, mtu: u16) {
    let [client, server] = [SPOKE1, to].map(|node| host(cloud, node));
    for host in [client, server] {
        path::forget(host).unwrap();
    }
    let before = path::too_bigs(client, false).unwrap();
    let tcp = path::tcp(client, server, cloud.nodes[to].host.address().into(), 1).unwrap();
    let after = path::too_bigs(client, false).unwrap();
    println!("{tcp:?}");
    assert!(tcp.bytes > 1_000_000 && tcp.segment <= u64::from(mtu - 40), "{tcp:?}");
    assert_eq!(before, after, "the client had to be told");
}

/// `mtu`: of the tunnel, where the configuration says it.
fn sizes(over_ipv6: bool, in_udp: bool, mtu: Option<u16>) {
    let _turn = lock::take_turn().unwrap();
    let outer = if over_ipv6 { 40 } else { 20 } + if in_udp { 8 } else { 0 };
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Pcap).unwrap();
    cloud.widen_lans(LAN).unwrap();
    if over_ipv6 {
        cloud.number_in_ipv6().unwrap();
    }
    cloud.put_behind_router(SPOKE2, NARROW).unwrap();
    if in_udp { cloud.protect_in_udp() } else { cloud.protect() }.unwrap();
    for node in &mut cloud.nodes {
        let tunnel = node.config["tunnels"][0].as_table_mut().unwrap();
        match mtu {
            Some(mtu) => drop(tunnel.insert("mtu".to_owned(), i64::from(mtu).into())),
            None => drop(tunnel.remove("mtu")),
        }
    }
    cloud.start().unwrap();
    for to in [HUB, SPOKE2] {
        let to = cloud.nodes[to].host.address();
        wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {to}\n{}", cloud.logs()));
    }
    wait::until_true("the shortcut", Duration::from_secs(10), || {
        cloud.nodes[SPOKE1].nave("show fib").is_ok_and(|fib| fib.contains("192.168.12.0/24"))
    })
    .unwrap();

    // Where nobody says otherwise, it is what fits with UDP, since a NAT may be before any peer.
    let outer_of_all = if over_ipv6 { 48 } else { 28 };
    let tunnel = mtu.unwrap_or(largest(1500, outer_of_all));
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    boundary(&cloud, HUB, tunnel, tunnel);
    let frames = capture.finish().unwrap();
    let longest = frames.iter().filter(|frame| esp::packet(frame).is_some()).map(|frame| frame.length).max();
    let text = tunnel + 2 + 8;
    assert_eq!(longest, Some(usize::from(14 + outer + AROUND + text.next_multiple_of(4))));
    cut(&cloud, HUB);
    tcp(&cloud, HUB, tunnel);

    // Behind the router nobody knows beforehand. The tunnel's own MTU is what TCP takes its segments from.
    boundary(&cloud, SPOKE2, tunnel, largest(NARROW, outer));
    cut(&cloud, SPOKE2);
    cloud.check_alive().unwrap();
}

/// Input: sizes around what fits, over IPv4 links of 1,500, and a router of 1,300 in between. Output: 1,438 bytes, which make a packet of
/// exactly 1,500; and 1,238, as the router says in a message that quotes ESP.
#[test]
fn what_fits_in_esp_over_links_of_1500_and_behind_a_router_of_1300() {
    assert_eq!((largest(1500, 20), largest(1300, 20)), (1438, 1238));
    sizes(false, false, Some(1438));
}

/// Input: the same with ESP in UDP, and no MTU in the configuration. Output: 1,430 and 1,230 bytes.
#[test]
fn what_fits_in_esp_in_udp_over_links_of_1500_and_behind_a_router_of_1300() {
    assert_eq!((largest(1500, 28), largest(1300, 28)), (1430, 1230));
    sizes(false, true, None);
}

/// Input: the same with native ESP over IPv6, and no MTU in the configuration. Output: 1,410, since UDP would have to fit too, and 1,218.
#[test]
fn what_fits_in_esp_over_ipv6_links_of_1500_and_behind_a_router_of_1300() {
    assert_eq!((largest(1500, 48), largest(1300, 40)), (1410, 1218));
    sizes(true, false, None);
}
