//! More than one table on a node: clouds that have the same addresses, a default route through a tunnel, an underlay apart from
//! the overlay, and flows that are spread over several next hops.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use tests::capture::Capture;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::frr::Frr;
use tests::netns::Namespace;
use tests::node::Host;
use tests::traffic::{Flow, Stream};
use tests::vlan::VlanSwitch;
use tests::{lock, path, trail, wait};

/// VLANs of the LAN ports, as `examples/cloud/tables` has them.
const BLUE: u16 = 20;
const RED: u16 = 10;

/// The two clouds of `examples/cloud/tables`: blue's hosts are those of the nodes, red's come besides.
fn two_clouds() -> (Cloud, Vec<Host>) {
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "tables", Ports::Tap).unwrap();
    let guardian = cloud.guardian();
    let mut red = Vec::new();
    for node in &mut cloud.nodes {
        let name = |what: &str| format!("{}-{what}", node.namespace.name());
        let namespace = Arc::new(Namespace::add(&guardian, &name("red-host")).unwrap());
        let host = Host { namespace, number: node.host.number };
        let hosts = [(BLUE, &*node.host.namespace), (RED, &*host.namespace)];
        node.switch = Some(VlanSwitch::new(&guardian, &name("lan"), &hosts).unwrap());
        node.host.settle(None, false).unwrap();
        host.settle(None, false).unwrap();
        red.push(host);
    }
    (cloud, red)
}

fn reach(from: &Host, to: Ipv4Addr, cloud: &Cloud) {
    wait::until_true("the first ping", Duration::from_secs(15), || from.pings(to).unwrap())
        .unwrap_or_else(|e| panic!("{e:#}: {} → {to}\n{}", from.namespace.name(), cloud.logs()));
}

/// GRE keys of inner packets between two hosts, in a capture of the underlay: how many of each.
fn keys(cloud: &Cloud, frames: &[tests::capture::Frame], to: Ipv4Addr) -> BTreeMap<Option<u32>, usize> {
    let mut keys = BTreeMap::new();
    let from = IpAddr::from(cloud.nodes[SPOKE1].host.address());
    for frame in frames {
        let one = std::slice::from_ref(frame);
        if let (Some(outer), false) = (trail::gre(frame), trail::legs(one, (from, to.into())).is_empty()) {
            *keys.entry(outer.key).or_default() += 1;
        }
    }
    keys
}

/// Input: two clouds with the same overlay and LAN addresses, in two tables of the same three nodes, on one source address, their
/// hosts in two VLANs of one port; the same flow (addresses and ports) in both at once. Output: each arrives in its own cloud, whole,
/// by the shortcut; what only one cloud has is unreachable from the other.
#[test]
fn two_clouds_with_the_same_addresses_share_the_nodes() {
    let _turn = lock::take_turn().unwrap();
    let (mut cloud, red) = two_clouds();
    // An address that only red has.
    let only_red = Ipv4Addr::new(192, 168, 12, 66);
    red[SPOKE2].namespace.ip(&format!("addr add {only_red}/24 dev eth0")).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start().unwrap();
    let to = red[SPOKE2].address();
    reach(&cloud.nodes[SPOKE1].host, to, &cloud);
    reach(&red[SPOKE1], to, &cloud);
    reach(&red[SPOKE1], only_red, &cloud);

    // The same packets, but for where they are.
    let flow_of_blue = cloud.flow(SPOKE1, SPOKE2, 7300, 500);
    let flow_of_red = Flow {
        from: red[SPOKE1].namespace.clone(),
        to: red[SPOKE2].namespace.clone(),
        ..flow_of_blue.clone()
    };
    let streams = [flow_of_blue, flow_of_red].map(|flow| Stream::start(flow).unwrap());
    sleep(Duration::from_secs(3));
    // Both at once stop sending, and nobody has got what was the other's.
    streams.iter().for_each(Stream::stop);
    let sent = streams.map(|stream| {
        let tally = stream.finish().unwrap();
        assert!(tally.is_whole(), "{tally}\n{}", cloud.logs());
        tally.sent
    });
    println!("blue and red sent {sent:?}");

    // By its own shortcut each, with its own key.
    let hops = [IpAddr::from(red[SPOKE1].router()), cloud.nodes[SPOKE2].tunnel.into(), to.into()];
    for host in [&cloud.nodes[SPOKE1].host, &red[SPOKE1]] {
        assert_eq!(path::hops(&host.namespace, to.into()).unwrap(), hops, "{}", host.namespace.name());
    }
    let shortcuts = cloud.nodes[SPOKE1].nave_json("show fib").unwrap();
    for table in [0, 10] {
        let found = shortcuts.as_array().unwrap().iter().any(|entry| {
            (entry["table"] == table, &entry["prefix"], &entry["owner"])
                == (true, &"192.168.12.0/24".into(), &"nhrp".into())
        });
        assert!(found, "no shortcut in table {table}: {shortcuts:#}");
    }

    // What the other has is not there.
    assert!(!cloud.nodes[SPOKE1].host.pings(only_red).unwrap(), "blue reaches what only red has");
    assert!(red[SPOKE1].pings(only_red).unwrap());
    let frames = capture.finish().unwrap();
    let of_both = keys(&cloud, &frames, to);
    assert_eq!(of_both.keys().copied().collect::<Vec<_>>(), [Some(42), Some(43)]);
    let (blue_sent, red_sent) = (usize::try_from(sent[0]).unwrap(), usize::try_from(sent[1]).unwrap());
    assert!(of_both[&Some(42)] >= blue_sent && of_both[&Some(43)] >= red_sent, "{of_both:?}");

    // The node itself is in both: its twins of table 10 live apart.
    let netns = cloud.nodes[SPOKE1].config["tables"][0]["netns"].as_str().unwrap().to_owned();
    let ping = ["netns", "exec", &netns, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1"];
    let ping =
        |to: &str| std::process::Command::new("ip").args(ping).arg(to).output().unwrap().status.success();
    assert!(ping(&red[SPOKE1].address().to_string()), "the node reaches red's LAN host");
    assert!(ping("10.255.0.1"), "the node reaches red's hub through red's tunnel");

    // Red goes, blue stays.
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, 7301, 500)).unwrap();
    for node in &mut cloud.nodes {
        for list in ["interfaces", "routes", "tunnels", "tables"] {
            let is_red = |element: &toml::Value| {
                let table = if list == "tables" { "id" } else { "table" };
                element.get(table).and_then(toml::Value::as_integer) == Some(10)
            };
            node.config[list].as_array_mut().unwrap().retain(|element| !is_red(element));
        }
        node.apply().unwrap();
    }
    sleep(Duration::from_secs(1));
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}\n{}", cloud.logs());
    assert!(!red[SPOKE1].pings(to).unwrap(), "red is gone");
    cloud.check_alive().unwrap();
}

/// Who tells spoke2 its default route.
const OSPF: &str = "
interface tunnel0
 ip ospf network point-to-multipoint
 ip ospf hello-interval 1
 ip ospf dead-interval 4
router ospf
 network 10.255.0.0/24 area 0
";

/// Somewhere on the Internet, which is behind the hub.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Waits until spoke2's default route leads into the tunnel.
fn default_by_tunnel(cloud: &Cloud) {
    wait::until("the default route by the tunnel", Duration::from_secs(40), || {
        let fib = cloud.nodes[SPOKE2].nave_json("show fib")?;
        let entries = fib.as_array().cloned().unwrap_or_default();
        let of_table_0 = entries.iter().find(|e| e["prefix"] == "0.0.0.0/0" && e["table"] == 0);
        anyhow::ensure!(of_table_0.is_some_and(|e| e.to_string().contains("tunnel0")), "{fib:#}");
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
}

/// Traffic of the overlay: by the hub, by the shortcut across the router, and out by the default route.
fn all_is_well(cloud: &Cloud) {
    for (from, to) in [(HUB, SPOKE2), (SPOKE1, SPOKE2), (SPOKE2, SPOKE1)] {
        let to = cloud.nodes[to].host.address();
        wait::until_true("a ping", Duration::from_secs(10), || cloud.pings(from, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: host{from} → {to}\n{}", cloud.logs()));
    }
    assert!(cloud.pings(SPOKE2, FAR).unwrap(), "the default route carries nothing");
}

/// Input: a spoke whose underlay is reached by a default route, and which learns a better default route through the tunnel. Output:
/// its traffic goes into the tunnel, the tunnel goes where it went: no packet is lost, no registration ends.
#[test]
fn a_default_route_learnt_through_the_tunnel_leaves_the_underlay_up() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.put_behind_router(SPOKE2, 1500).unwrap();
    // What the router's network would be told by a provider: a default route. No other leads to the hub.
    let routes = cloud.nodes[SPOKE2].config["routes"].as_array_mut().unwrap();
    routes.retain(|route| route["prefix"].as_str() != Some("203.0.113.0/24"));
    cloud.nodes[HUB].host.namespace.ip(&format!("addr add {FAR}/32 dev lo")).unwrap();
    let to_far = format!("prefix = \"{FAR}/32\"\nnext_hop = \"192.168.1.10\"");
    cloud.nodes[HUB].add("routes", &to_far).unwrap();
    cloud.start_processes().unwrap();
    // FRR takes the first byte of a metric for the distance: further than a route of OSPF.
    let by_router = format!("route add default via 198.51.100.254 dev wan metric {}", 200_u32 << 24);
    let own = &cloud.nodes[SPOKE2].namespace;
    wait::until("the route", Duration::from_secs(5), || own.ip(&by_router)).unwrap();
    for spoke in [SPOKE1, SPOKE2] {
        cloud.wait_registered(spoke).unwrap();
    }
    assert!(!cloud.pings(SPOKE2, FAR).unwrap(), "the underlay knows nothing of it");
    let host = &cloud.nodes[SPOKE2].host;
    wait::until_true("the first ping", Duration::from_secs(10), || {
        cloud.pings(SPOKE1, host.address()).unwrap()
    })
    .unwrap();

    let streams = [(SPOKE1, SPOKE2, 7400), (HUB, SPOKE2, 7401), (SPOKE2, HUB, 7402)]
        .map(|(from, to, port)| Stream::start(cloud.flow(from, to, port, 500)).unwrap());
    let hub = format!("{OSPF} default-information originate always metric 10\n");
    let daemons = [(HUB, hub.as_str()), (SPOKE2, OSPF)]
        .map(|(node, configuration)| Frr::start(&cloud.nodes[node], configuration).unwrap());
    default_by_tunnel(&cloud);
    sleep(Duration::from_secs(2));
    all_is_well(&cloud);
    assert!(cloud.is_registered(SPOKE2).unwrap());
    // Cold: with no way to the hub but what is there now.
    cloud.nodes[SPOKE2].nave("clear nhrp").unwrap();
    all_is_well(&cloud);
    drop(daemons);
    wait::until_true("the end of the learnt route", Duration::from_secs(20), || {
        !cloud.pings(SPOKE2, FAR).unwrap()
    })
    .unwrap();
    for stream in streams {
        let tally = stream.finish().unwrap();
        assert!(tally.is_whole(), "{tally}\n{}", cloud.logs());
    }
    cloud.wait_registered(SPOKE2).unwrap();
    cloud.check_alive().unwrap();
}

/// Input: a spoke with its underlay in table 30 and its overlay in table 0, with a default route in each. Output: its tunnel goes by
/// the one, its LAN by the other.
#[test]
fn a_front_door_table_keeps_underlay_and_overlay_apart() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.put_behind_router(SPOKE2, 1500).unwrap();
    let guardian = cloud.guardian();
    let spoke = &mut cloud.nodes[SPOKE2];
    let netns = format!("{}-door", spoke.namespace.name());
    guardian.watch_namespace(&netns).unwrap();
    spoke.add("tables", &format!("id = 30\nnetns = \"{netns}\"")).unwrap();
    for (list, name, field) in [("interfaces", "wan", "table"), ("tunnels", "tunnel0", "underlay_table")] {
        let elements = spoke.config[list].as_array_mut().unwrap();
        let element = elements.iter_mut().find(|element| element["name"].as_str() == Some(name)).unwrap();
        element.as_table_mut().unwrap().insert(field.to_owned(), 30.into());
    }
    spoke.config.remove("routes");
    spoke.add("routes", "prefix = \"0.0.0.0/0\"\nnext_hop = \"198.51.100.254\"\ntable = 30").unwrap();
    spoke.add("routes", "prefix = \"0.0.0.0/0\"\nnext_hop = \"10.255.0.1\"").unwrap();
    cloud.nodes[HUB].host.namespace.ip(&format!("addr add {FAR}/32 dev lo")).unwrap();
    let to_far = format!("prefix = \"{FAR}/32\"\nnext_hop = \"192.168.1.10\"");
    cloud.nodes[HUB].add("routes", &to_far).unwrap();
    cloud.start().unwrap();
    default_by_tunnel(&cloud);
    all_is_well(&cloud);

    // The shortcut's next hop is bound by the router of table 30, and traced through table 0.
    let host = &cloud.nodes[SPOKE2].host;
    let hops = path::hops(&host.namespace, cloud.nodes[SPOKE1].host.address().into()).unwrap();
    let expected = [
        IpAddr::from(host.router()),
        cloud.nodes[SPOKE1].tunnel.into(),
        cloud.nodes[SPOKE1].host.address().into(),
    ];
    assert_eq!(hops, expected);
    // Neither reaches the other: the router is not there for the LAN, the LAN not for the underlay.
    assert!(!cloud.pings(SPOKE2, Ipv4Addr::new(198, 51, 100, 254)).unwrap());
    let router = cloud.router.as_ref().unwrap();
    router.ip("route add 192.168.12.0/24 via 198.51.100.12").unwrap();
    let ping = ["-n", "-c", "2", "-i", "0.2", "-W", "1", "192.168.12.10"];
    assert!(!router.output("ping", &ping).unwrap().status.success(), "the underlay reaches the LAN");
    // The twin of the port is where its table says, and answers there.
    assert!(!cloud.nodes[SPOKE2].namespace.has_link("wan"));
    let ping = ["-n", "-c", "2", "-i", "0.2", "-W", "1", "198.51.100.12"];
    assert!(router.output("ping", &ping).unwrap().status.success(), "the port's own address is silent");
    cloud.check_alive().unwrap();
}

/// An address that both spokes' hosts have, of each family.
const ANYCAST: [&str; 2] = ["192.168.100.1", "2001:db8:a:100::1"];
/// Source ports of flows to it.
const FLOWS: std::ops::Range<u16> = 20_000..20_200;
const PACKETS: usize = 3;

/// Sends some packets of each flow from the hub's host, and says where they arrived: by source port, how many at each spoke's host.
fn spread(cloud: &Cloud, to: IpAddr) -> BTreeMap<u16, [usize; 2]> {
    let listen = |spoke: usize| {
        let socket = cloud.nodes[spoke].host.namespace.run(|| UdpSocket::bind((to, 7500))).unwrap().unwrap();
        // All that arrives is read afterwards.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    };
    let listeners = [SPOKE1, SPOKE2].map(listen);
    let host = &cloud.nodes[HUB].host;
    let from: IpAddr = if to.is_ipv4() { host.address().into() } else { host.address6().into() };
    let senders: Vec<_> =
        host.namespace.run(|| FLOWS.map(|port| UdpSocket::bind((from, port)).unwrap()).collect()).unwrap();
    for _ in 0..PACKETS {
        for sender in &senders {
            sender.send_to(b"which way?", SocketAddr::new(to, 7500)).unwrap();
            sleep(Duration::from_micros(300));
        }
    }
    let mut flows: BTreeMap<u16, [usize; 2]> = BTreeMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        while let Ok((_, sender)) = listener.recv_from(&mut [0; 64]) {
            flows.entry(sender.port()).or_default()[at] += 1;
        }
    }
    flows
}

/// Input: routes of both families to one prefix by both spokes, 200 flows from the hub's host; then one of the routes is withdrawn, and
/// comes back. Output: each flow goes one way, both ways are used; then all go the other; then as before.
#[test]
fn flows_are_spread_over_next_hops_of_equal_cost_and_keep_their_way() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Tap).unwrap();
    let mut routes = Vec::new();
    for spoke in [SPOKE1, SPOKE2] {
        let node = &cloud.nodes[spoke];
        let host = node.host.clone();
        host.namespace.allow_ipv6().unwrap();
        for (prefix, own, by_host, by_tunnel) in [
            ("192.168.100.0/24", ANYCAST[0], host.address().into(), IpAddr::from(node.tunnel)),
            ("2001:db8:a:100::/64", ANYCAST[1], host.address6().into(), node.tunnel6.into()),
        ] {
            host.namespace.ip(&format!("addr add {own} dev lo")).unwrap();
            let route = |next_hop: IpAddr| format!("prefix = \"{prefix}\"\nnext_hop = \"{next_hop}\"");
            routes.push((spoke, route(by_host)));
            routes.push((HUB, route(by_tunnel)));
        }
    }
    for (node, route) in routes {
        cloud.nodes[node].add("routes", &route).unwrap();
    }
    cloud.start().unwrap();
    for spoke in [SPOKE1, SPOKE2] {
        let host = &cloud.nodes[spoke].host;
        for to in [IpAddr::from(host.address()), host.address6().into()] {
            wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(HUB, to).unwrap())
                .unwrap_or_else(|e| panic!("{e:#}: {to}\n{}", cloud.logs()));
        }
    }
    let anycast = ANYCAST.map(|to| to.parse::<IpAddr>().unwrap());
    let before = anycast.map(|to| spread(&cloud, to));
    for flows in &before {
        assert_eq!(flows.len(), FLOWS.len(), "{flows:?}");
        let torn: Vec<_> =
            flows.iter().filter(|(_, at)| !matches!(at, [PACKETS, 0] | [0, PACKETS])).collect();
        assert!(torn.is_empty(), "flows that went both ways, or lost packets: {torn:?}");
        let first = flows.values().filter(|at| at[0] > 0).count();
        assert!((60..=140).contains(&first), "{first} of {} flows by the first spoke", FLOWS.len());
    }

    // One way is withdrawn.
    let with = cloud.nodes[HUB].config.clone();
    let gone = [cloud.nodes[SPOKE1].tunnel.to_string(), cloud.nodes[SPOKE1].tunnel6.to_string()];
    let routes = cloud.nodes[HUB].config["routes"].as_array_mut().unwrap();
    routes.retain(|route| {
        let to_anycast = route["prefix"].as_str().is_some_and(|prefix| prefix.contains("100"));
        !(to_anycast && gone.iter().any(|hop| route["next_hop"].as_str() == Some(hop)))
    });
    cloud.nodes[HUB].apply().unwrap();
    sleep(Duration::from_millis(500));
    for flows in anycast.map(|to| spread(&cloud, to)) {
        assert_eq!(flows.len(), FLOWS.len());
        assert!(flows.values().all(|at| *at == [0, PACKETS]), "{flows:?}");
    }
    // And is there again.
    cloud.nodes[HUB].config = with;
    cloud.nodes[HUB].apply().unwrap();
    sleep(Duration::from_millis(500));
    assert_eq!(anycast.map(|to| spread(&cloud, to)), before);

    // The same two ways on the word of the kernel, as a routing daemon would give it.
    let to_anycast = "192.168.100.0/24";
    let routes = cloud.nodes[HUB].config["routes"].as_array_mut().unwrap();
    routes.retain(|route| route["prefix"].as_str() != Some(to_anycast));
    cloud.nodes[HUB].apply().unwrap();
    let fib = || cloud.nodes[HUB].nave("show fib").unwrap();
    wait::until_true("the routes' end", Duration::from_secs(5), || !fib().contains(to_anycast)).unwrap();
    let ways = [SPOKE1, SPOKE2].map(|spoke| format!("nexthop via {}", cloud.nodes[spoke].tunnel));
    let route = format!("route add {to_anycast} proto static {}", ways.join(" "));
    cloud.nodes[HUB].namespace.ip(&route).unwrap();
    wait::until_true("the kernel's route", Duration::from_secs(5), || fib().contains(to_anycast)).unwrap();
    sleep(Duration::from_millis(200));
    assert_eq!(spread(&cloud, anycast[0]), before[0]);
    cloud.check_alive().unwrap();
}
