//! Twins with IPv6.

use std::net::{Ipv6Addr, UdpSocket};

use super::*;

fn is_link_local(notice: &Notice) -> bool {
    matches!(notice, Notice::Address { address, .. }
        if matches!(address.addr(), std::net::IpAddr::V6(addr) if addr.is_unicast_link_local()))
}

/// Orders them, and waits until each has told its link-local address.
async fn bring_up(kernel: &mut Kernel, specs: Vec<TwinSpec>) -> Vec<Notice> {
    let mut missing = specs.len();
    kernel.order(Order::Twins(specs)).await;
    let mut heard = kernel.until(|notice| *notice == Notice::Synced).await;
    missing -= heard.iter().filter(|notice| is_link_local(notice)).count().min(missing);
    while missing > 0 {
        let notice = kernel.next().await;
        missing -= usize::from(is_link_local(&notice));
        heard.push(notice);
    }
    heard
}

fn tunnel6() -> TwinSpec {
    TwinSpec { addresses: vec!["10.255.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()], ..tunnel() }
}

#[test]
fn an_address_counts_at_once_and_the_twin_is_a_quiet_host() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        let specs = vec![lan(&["2001:db8:1::1/64"]), tunnel6()];
        let heard = bring_up(&mut kernel, specs.clone()).await;
        // No duplicate address detection: nobody is there that it could ask.
        for addr in ["[2001:db8:1::1]:0", "[fd00::1]:0"] {
            UdpSocket::bind(addr).unwrap();
        }
        let addresses = netns.ip("-6 addr show");
        assert!(!addresses.contains("tentative") && !addresses.contains("dadfailed"), "{addresses}");
        assert!(heard.contains(&address("lan0", "2001:db8:1::1/64", true)));
        assert!(heard.contains(&address("tunnel0", "fd00::1/64", true)));
        // Of the port's Ethernet address; of a tunnel whatever the kernel makes.
        assert!(heard.contains(&address("lan0", "fe80::ff:fe00:7/64", true)), "{heard:?}");
        for twin in ["lan0", "tunnel0"] {
            for (key, value) in [
                ("disable_ipv6", "0"),
                ("accept_ra", "0"),
                ("accept_redirects", "0"),
                ("forwarding", "0"),
                ("accept_dad", "0"),
            ] {
                assert_eq!(netns.setting(&format!("ipv6/conf/{twin}/{key}")), value, "{twin} {key}");
            }
            assert_eq!(netns.setting(&format!("ipv6/neigh/{twin}/retrans_time_ms")), "200");
        }
        kernel.quiet().await;

        // As with IPv4, an address stays where it is while somebody has the link down.
        netns.ip("link set lan0 down");
        kernel.until(is_link_local).await;
        assert!(netns.ip("-6 addr show lan0").contains("2001:db8:1::1/64"));
        netns.ip("link set lan0 up");
        kernel.until(is_link_local).await;
        kernel.quiet().await;
        assert!(netns.ip("-6 route").contains("2001:db8:1::/64 dev lan0"));

        let mut watch = Watch::new(&netns);
        bring_up(&mut kernel, specs).await;
        assert_eq!(watch.seen(), [""; 0], "what is there is left as it is");
        // And goes with the configuration.
        let heard = kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel6()]).await;
        assert!(heard.contains(&address("lan0", "2001:db8:1::1/64", false)), "{heard:?}");
        assert_eq!(netns.ip("-6 addr show lan0"), "");
    });
}

#[test]
fn a_link_local_address_of_the_configuration_is_the_only_one() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        bring_up(&mut kernel, vec![lan(&["fe80::1/64", "2001:db8:1::1/64"])]).await;
        kernel.quiet().await;
        let addresses = netns.ip("-6 -o addr show lan0");
        assert_eq!(addresses.lines().count(), 2, "{addresses}");
        assert!(addresses.contains("fe80::1/64"), "{addresses}");
    });
}

/// Reads frames until a solicitation for `target`, and answers it as if from `mac` (RFC 4861 §7.2).
fn answer_solicitation(queue: &Queue, target: Ipv6Addr, mac: [u8; 6]) {
    let end = Instant::now() + Duration::from_secs(2);
    let mut frame = [0; 2048];
    let request = loop {
        assert!(Instant::now() < end, "no solicitation");
        match queue.read(&mut frame) {
            Ok(length)
                if length >= 78
                    && frame[20] == 58
                    && frame[54] == 135
                    && frame[62..78] == target.octets() =>
            {
                break frame[..length].to_vec();
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let source: [u8; 16] = request[22..38].try_into().unwrap();
    let mut body = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    body.extend(target.octets());
    body.extend([2, 1]);
    body.extend(mac);
    let pseudo = [&target.octets()[..], &source, &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
    let sum = pseudo.chunks(2).chain(body.chunks(2));
    let sum: u32 = sum.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut answer = [&request[6..12], &mac, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]].concat();
    answer.extend(target.octets());
    answer.extend(source);
    answer.extend(body);
    queue.write(&answer).unwrap();
}

#[test]
fn a_neighbour_is_solicited_at_once_and_told() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        bring_up(&mut kernel, vec![lan(&["2001:db8:1::1/64"])]).await;
        let queue = netns.attach("lan0", twin::Kind::Tap);
        for (n, next_hop) in [(9, "2001:db8:1::9"), (10, "fe80::a")] {
            let neighbour = hop("lan0", next_hop);
            let mac = [2, 0, 0, 0, 0, n];
            kernel.order(Order::Resolve(neighbour)).await;
            tokio::task::yield_now().await;
            std::thread::scope(|scope| {
                scope.spawn(|| answer_solicitation(&queue, next_hop.parse().unwrap(), mac));
            });
            assert_eq!(kernel.next().await, Notice::Neighbour { hop: neighbour, mac: Some(Mac(mac)) });
            let entry = netns.ip(&format!("-6 neigh show {next_hop} dev lan0"));
            assert!(entry.contains("managed") && entry.contains("proto 78"), "{entry}");
        }
        let silent = hop("lan0", "2001:db8:1::e");
        kernel.order(Order::Resolve(silent)).await;
        assert_eq!(kernel.next().await, Notice::Neighbour { hop: silent, mac: None });
        kernel.quiet().await;
        assert_eq!(netns.ip("-6 neigh show 2001:db8:1::e dev lan0"), "", "the kernel asks no more");
    });
}

#[test]
fn routes_of_daemons_are_mirrored() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        bring_up(&mut kernel, vec![lan(&["2001:db8:1::1/64"]), tunnel6()]).await;
        kernel.quiet().await;
        let told_path = |path, present| Notice::Route { route: route("2001:db8:7::/48", path), present };
        let one = Path::Via(hop("lan0", "fe80::a"));
        let two = balanced(&[("lan0", "fe80::a"), ("lan0", "fe80::b")]);
        netns.ip("-6 route add 2001:db8:7::/48 via fe80::a dev lan0 proto ospf");
        assert_eq!(kernel.next().await, told_path(one.clone(), true));
        netns.ip("-6 route append 2001:db8:7::/48 via fe80::b dev lan0 proto ospf");
        assert_eq!(kernel.next().await, told_path(two.clone(), true));
        netns.ip("-6 route del 2001:db8:7::/48 via fe80::b dev lan0");
        assert_eq!(kernel.next().await, told_path(one.clone(), true));
        netns.ip("-6 route replace 2001:db8:7::/48 proto ospf nexthop via fe80::b dev lan0 nexthop via fe80::a dev lan0");
        assert_eq!(kernel.next().await, told_path(two.clone(), true));
        netns.ip("-6 route replace 2001:db8:7::/48 via fe80::a dev lan0 proto ospf");
        assert_eq!(kernel.next().await, told_path(one, true));
        netns.ip("-6 route del 2001:db8:7::/48");
        kernel.until(|notice| matches!(notice, Notice::Route { present: false, .. })).await;

        netns.ip("-6 route add 2001:db8:7::/48 proto bgp nexthop via fe80::b dev lan0 nexthop via fe80::a dev lan0");
        assert_eq!(kernel.next().await, told_path(two.clone(), true));
        netns.ip("-6 route del 2001:db8:7::/48");
        assert_eq!(kernel.next().await, told_path(two.clone(), false));
        netns.ip("nexthop add id 1 via fe80::a dev lan0");
        netns.ip("nexthop add id 2 via fe80::b dev lan0");
        netns.ip("nexthop add id 12 group 1/2");
        netns.ip("-6 route add 2001:db8:7::/48 nhid 12 proto bgp");
        assert_eq!(kernel.next().await, told_path(two.clone(), true));
        netns.ip("nexthop del id 12");
        assert_eq!(kernel.next().await, told_path(two, false));
        netns.ip("-6 route add unreachable 2001:db8:7::/48 proto bgp");
        assert_eq!(kernel.next().await, told_path(Path::Unreachable, true));
        netns.ip("-6 route del unreachable 2001:db8:7::/48");
        assert_eq!(kernel.next().await, told_path(Path::Unreachable, false));

        // The kernel's own, and one for some sources only.
        netns.ip("-6 route add 2001:db8:8::/48 from 2001:db8:1::/64 via fe80::a dev lan0 proto bgp");
        kernel.quiet().await;
    });
}

#[test]
fn static_routes_are_kept() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        bring_up(&mut kernel, vec![lan(&["2001:db8:1::1/64"]), tunnel6()]).await;
        let routes = vec![
            route("::/0", Path::Via(hop("lan0", "fe80::a"))),
            route("2001:db8:5::/48", Path::Attached("tunnel0".parse().unwrap())),
            route("2001:db8:6::/48", Path::Unreachable),
            route("2001:db8:7::/48", balanced(&[("lan0", "2001:db8:1::fe"), ("tunnel0", "fd00::2")])),
        ];
        kernel.order(Order::Routes(routes.clone())).await;
        kernel.quiet().await;
        let kept = || {
            let kept = netns.ip("-6 route show proto 78");
            kept.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        let all = [
            "2001:db8:5::/48 dev tunnel0 metric 1024 pref medium",
            "unreachable 2001:db8:6::/48 dev lo metric 1024 pref medium",
            "2001:db8:7::/48 metric 1024 pref medium",
            "nexthop via 2001:db8:1::fe dev lan0 weight 1 onlink",
            "nexthop via fd00::2 dev tunnel0 weight 1 onlink",
            "default via fe80::a dev lan0 metric 1024 onlink pref medium",
        ];
        assert_eq!(kept(), all);
        let mut watch = Watch::new(&netns);
        kernel.order(Order::Routes(routes)).await;
        kernel.quiet().await;
        assert_eq!(watch.seen(), [""; 0], "what is there is left as it is");
        kernel
            .order(Order::Routes(vec![
                route("2001:db8:7::/48", Path::Via(hop("tunnel0", "fd00::3"))),
                route("::/0", balanced(&[("lan0", "fe80::a"), ("lan0", "fe80::b")])),
            ]))
            .await;
        kernel.quiet().await;
        let fewer = [
            "2001:db8:7::/48 via fd00::3 dev tunnel0 metric 1024 onlink pref medium",
            "default metric 1024 pref medium",
            "nexthop via fe80::a dev lan0 weight 1 onlink",
            "nexthop via fe80::b dev lan0 weight 1 onlink",
        ];
        assert_eq!(kept(), fewer);
        kernel.order(Order::Routes(vec![])).await;
        kernel.quiet().await;
        assert_eq!(kept(), [""; 0]);
    });
}
