//! The task against the real kernel, in network namespaces of its own. Runs as root.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use model::TableId;
use model::program::Path;
use twin::{Queue, in_netns};

use super::*;

mod ipv6;
mod tables;

/// A network namespace that goes with the test.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        let netns = Self::unmade();
        netns.make();
        netns
    }

    /// Only its name.
    fn unmade() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("kernel-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    fn make(&self) {
        assert!(Command::new("ip").args(["netns", "add", &self.0]).status().unwrap().success());
    }

    fn is_there(&self) -> bool {
        std::path::Path::new(twin::NAMED).join(&self.0).exists()
    }

    fn ip(&self, args: &str) -> String {
        let output = Command::new("ip").args(["-n", &self.0]).args(args.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every line of `text` is an `ip` command.
    fn batch(&self, text: &str) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.0, "-batch", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut ip.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }

    fn setting(&self, path: &str) -> String {
        let path = format!("/proc/sys/net/{path}");
        in_netns(self.0.as_ref(), || std::fs::read_to_string(path)).unwrap().unwrap().trim().to_owned()
    }

    /// Runs the task and its test on a thread in the namespace. When the test returns, the task is dropped as by a kill.
    fn run<F: Future<Output = ()>>(&self, test: impl FnOnce(Kernel) -> F + Send) {
        let body = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (orders, notices) = spawn();
                test(Kernel { orders, notices }).await;
            });
        };
        in_netns(self.0.as_ref(), body).unwrap();
    }

    fn attach(&self, name: &str, kind: twin::Kind) -> Queue {
        Queue::attach(name, kind, Some(&PathBuf::from(&self.0))).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let mut delete = Command::new("ip");
        delete.args(["netns", "del", &self.0]).stderr(std::process::Stdio::null()).status().ok();
    }
}

/// `ip monitor` of addresses and routes.
struct Watch<'a> {
    netns: &'a Netns,
    monitor: std::process::Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl<'a> Watch<'a> {
    fn new(netns: &'a Netns) -> Self {
        let mut ip = Command::new("ip");
        ip.args(["-n", &netns.0, "monitor", "address", "route"]).stdout(std::process::Stdio::piped());
        let mut monitor = ip.spawn().unwrap();
        let stdout = std::io::BufReader::new(monitor.stdout.take().unwrap());
        let (heard, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            std::io::BufRead::lines(stdout).map_while(Result::ok).try_for_each(|line| heard.send(line))
        });
        let mut watch = Self { netns, monitor, lines };
        watch.seen_until("127.9.9.1");
        watch
    }

    /// What it said until now.
    fn seen(&mut self) -> Vec<String> {
        self.seen_until("127.9.9.2")
    }

    /// Adds an address again and again until it is seen, and leaves it.
    fn seen_until(&mut self, mark: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let end = Instant::now() + Duration::from_secs(10);
        while !lines.iter().any(|line: &String| line.contains(mark)) {
            assert!(Instant::now() < end, "ip monitor hears nothing");
            self.netns.batch(&format!("addr replace {mark}/32 dev lo\n"));
            std::thread::sleep(Duration::from_millis(20));
            lines.extend(std::iter::from_fn(|| self.lines.try_recv().ok()));
        }
        // An address is two lines; the second may come later.
        lines.retain(|line| !line.contains("127.9.9.") && !line.contains("valid_lft"));
        lines
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.monitor.kill().ok();
        self.monitor.wait().ok();
    }
}

/// Our end of the task.
struct Kernel {
    orders: mpsc::Sender<Order>,
    notices: mpsc::Receiver<Notice>,
}

impl Kernel {
    async fn order(&self, order: Order) {
        self.orders.send(order).await.unwrap();
    }

    async fn next(&mut self) -> Notice {
        tokio::time::timeout(Duration::from_secs(10), self.notices.recv()).await.expect("a notice").unwrap()
    }

    /// All notices up to and with the first that is `wanted`.
    async fn until(&mut self, wanted: impl Fn(&Notice) -> bool) -> Vec<Notice> {
        let mut heard = Vec::new();
        loop {
            let notice = self.next().await;
            let found = wanted(&notice);
            heard.push(notice);
            if found {
                return heard;
            }
        }
    }

    /// Orders the twins and returns what is told up to `Synced`, which is not among it.
    async fn twins(&mut self, twins: Vec<TwinSpec>) -> Vec<Notice> {
        self.order(Order::Twins(twins)).await;
        let mut heard = self.until(|notice| *notice == Notice::Synced).await;
        heard.pop();
        heard
    }

    /// Nothing is told for a while.
    async fn quiet(&mut self) {
        let heard = tokio::time::timeout(Duration::from_millis(300), self.notices.recv()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

fn lan(addresses: &[&str]) -> TwinSpec {
    TwinSpec {
        name: "lan0".parse().unwrap(),
        kind: Kind::Tap { mac: "02:00:00:00:00:07".parse().unwrap() },
        mtu: 1500,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        configured: true,
        table: TableId(0),
        netns: None,
    }
}

fn tunnel() -> TwinSpec {
    TwinSpec {
        name: "tunnel0".parse().unwrap(),
        kind: Kind::Tun,
        mtu: 1400,
        addresses: vec!["10.255.0.1/24".parse().unwrap()],
        configured: true,
        table: TableId(0),
        netns: None,
    }
}

fn address(interface: &str, address: &str, present: bool) -> Notice {
    Notice::Address { interface: interface.parse().unwrap(), address: address.parse().unwrap(), present }
}

fn hop(interface: &str, next_hop: &str) -> Hop {
    Hop { interface: interface.parse().unwrap(), next_hop: next_hop.parse().unwrap() }
}

fn route(prefix: &str, path: Path) -> Route {
    Route { table: TableId(0), prefix: prefix.parse().unwrap(), path, expires_in: None }
}

fn balanced(hops: &[(&str, &str)]) -> Path {
    Path::to(hops.iter().map(|(interface, next_hop)| hop(interface, next_hop))).unwrap()
}

fn told(prefix: &str, interface: &str, next_hop: &str, present: bool) -> Notice {
    Notice::Route { route: route(prefix, Path::Via(hop(interface, next_hop))), present }
}

fn index(netns: &Netns, name: &str) -> String {
    netns.ip(&format!("-o link show {name}")).split(':').next().unwrap().to_owned()
}

#[test]
fn twins_are_as_they_were_ordered_and_keep_carrier_without_a_data_plane() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        let heard = kernel.twins(vec![lan(&["10.1.0.1/24", "10.2.0.1/30"]), tunnel()]).await;
        assert_eq!(
            heard,
            [
                address("lan0", "10.1.0.1/24", true),
                address("lan0", "10.2.0.1/30", true),
                address("tunnel0", "10.255.0.1/24", true)
            ]
        );
        let port = netns.ip("-d link show lan0");
        for part in [
            "LOWER_UP",
            "mtu 1500",
            "02:00:00:00:00:07",
            "tap",
            "multi_queue",
            "persist on",
            "alias nave twin",
        ] {
            assert!(port.contains(part), "{part}: {port}");
        }
        let tunnel = netns.ip("-d link show tunnel0");
        for part in ["POINTOPOINT,MULTICAST,NOARP,UP,LOWER_UP", "mtu 1400", "tun type tun", "persist on"] {
            assert!(tunnel.contains(part), "{part}: {tunnel}");
        }
        assert!(netns.ip("addr show lan0").contains("inet 10.1.0.1/24 brd 10.1.0.255 scope global"));
        // Multicast leaves by the tunnel, as OSPF's does.
        assert!(netns.ip("route get 224.0.0.5 oif tunnel0").contains("dev tunnel0"));
        for (setting, value) in [
            ("ipv4/conf/lan0/forwarding", "0"),
            ("ipv4/conf/tunnel0/rp_filter", "0"),
            ("ipv4/conf/lan0/send_redirects", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/lan0/arp_ignore", "1"),
            ("ipv4/conf/lan0/promote_secondaries", "1"),
            ("ipv4/neigh/lan0/retrans_time_ms", "200"),
            ("ipv4/neigh/lan0/ucast_solicit", "15"),
            ("ipv4/neigh/lan0/mcast_solicit", "15"),
            ("ipv6/conf/tunnel0/disable_ipv6", "1"),
        ] {
            assert_eq!(netns.setting(setting), value, "{setting}");
        }
        kernel.quiet().await;
    });
}

#[test]
fn strict_reverse_path_filtering_is_loosened_on_twins() {
    let netns = Netns::new();
    in_netns(netns.0.as_ref(), || std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))
        .unwrap()
        .unwrap();
    netns.run(async |mut kernel| {
        kernel.twins(vec![tunnel()]).await;
        assert_eq!(netns.setting("ipv4/conf/tunnel0/rp_filter"), "2");
        assert_eq!(netns.setting("ipv4/conf/all/rp_filter"), "1");
    });
}

#[test]
fn a_killed_control_plane_finds_its_twins_and_nothing_flaps() {
    let netns = Netns::new();
    let static_route = route("172.16.0.0/12", Path::Via(hop("lan0", "10.1.0.254")));
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24", "10.1.0.2/24"]), tunnel()]).await;
        kernel.order(Order::Routes(vec![static_route.clone()])).await;
        kernel.quiet().await;
    });
    netns.ip("addr add 10.9.0.1/24 dev lan0");
    netns.ip("route add 192.168.7.0/24 via 10.255.0.2 dev tunnel0 proto ospf metric 20");
    let (lan_index, tunnel_index) = (index(&netns, "lan0"), index(&netns, "tunnel0"));
    let mut changes = Watch::new(&netns);
    netns.run(async |mut kernel| {
        let heard = kernel.twins(vec![lan(&["10.1.0.1/24", "10.3.0.1/24"]), tunnel()]).await;
        kernel.order(Order::Routes(vec![static_route])).await;
        assert_eq!(
            heard,
            [
                address("lan0", "10.1.0.1/24", true),
                address("lan0", "10.3.0.1/24", true),
                address("lan0", "10.9.0.1/24", true),
                address("tunnel0", "10.255.0.1/24", true),
                told("192.168.7.0/24", "tunnel0", "10.255.0.2", true),
            ],
            "what was ours and is no more wanted is gone, what is another's stays"
        );
        kernel.quiet().await;
        assert!(netns.ip("link show lan0").contains("LOWER_UP"));
    });
    assert_eq!((index(&netns, "lan0"), index(&netns, "tunnel0")), (lan_index, tunnel_index));
    assert!(netns.ip("route").contains("172.16.0.0/12 via 10.1.0.254 dev lan0 proto 78 onlink"));
    let changes = changes.seen();
    // Of two addresses and their routes (connected, local, broadcast), and of nothing else.
    let said = |line: &String| !line.starts_with(' ');
    assert!(
        changes.iter().any(|line| line.contains("Deleted") && line.contains("10.1.0.2/24")),
        "{changes:?}"
    );
    for line in changes.iter().filter(|line| said(line)) {
        assert!(line.contains("10.1.0.2") || line.contains("10.3.0."), "{changes:#?}");
    }
}

#[test]
fn twins_that_are_not_wanted_go_and_what_we_did_not_make_stays() {
    let netns = Netns::new();
    netns.ip("tuntap add dev other0 mode tap multi_queue");
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
    });
    netns.run(async |mut kernel| {
        let heard = kernel.twins(vec![tunnel()]).await;
        assert_eq!(heard, [address("tunnel0", "10.255.0.1/24", true)]);
        let links = netns.ip("link show");
        assert!(!links.contains("lan0") && links.contains("other0"), "{links}");
        // The same name, another kind.
        let port = TwinSpec { name: "tunnel0".parse().unwrap(), ..lan(&["10.1.0.1/24"]) };
        let heard = kernel.twins(vec![port]).await;
        assert_eq!(
            heard,
            [address("tunnel0", "10.255.0.1/24", false), address("tunnel0", "10.1.0.1/24", true)]
        );
    });
}

#[test]
fn a_name_that_is_taken_is_told_once_and_had_when_it_is_free() {
    let netns = Netns::new();
    netns.ip("link add lan0 type veth peer name far0");
    netns.run(async |mut kernel| {
        let heard = kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
        assert_eq!(
            heard,
            [
                Notice::Failed {
                    order: "make a twin".into(),
                    reason: "`lan0` exists and is not a persistent TAP with several queues".into()
                },
                address("tunnel0", "10.255.0.1/24", true)
            ]
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        netns.ip("link del lan0");
        // Nothing of the failures in between.
        assert_eq!(kernel.next().await, address("lan0", "10.1.0.1/24", true));
    });
}

#[test]
fn what_is_taken_away_from_a_twin_is_put_back() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
        let path = Path::Via(hop("lan0", "10.1.0.254"));
        kernel
            .order(Order::Routes(vec![route("172.16.0.0/12", path), route("10.0.0.0/8", Path::Blackhole)]))
            .await;
        kernel.quiet().await;

        netns.ip("addr del 10.1.0.1/24 dev lan0");
        assert_eq!(kernel.next().await, address("lan0", "10.1.0.1/24", false));
        assert_eq!(kernel.next().await, address("lan0", "10.1.0.1/24", true));
        kernel.quiet().await;
        assert!(netns.ip("route").contains("172.16.0.0/12 via 10.1.0.254 dev lan0 proto 78"));

        netns.ip("link del lan0");
        assert_eq!(kernel.next().await, address("lan0", "10.1.0.1/24", false));
        kernel.until(|notice| *notice == address("lan0", "10.1.0.1/24", true)).await;
        kernel.until(|notice| *notice == Notice::Synced).await;
        kernel.quiet().await;
        assert!(netns.ip("link show lan0").contains("LOWER_UP"));
        assert!(netns.ip("route").contains("172.16.0.0/12 via 10.1.0.254 dev lan0 proto 78"));

        // Down is somebody's will; what it takes is put back when it is up.
        netns.ip("link set lan0 down");
        let heard = kernel.next().await;
        assert!(
            matches!(&heard, Notice::Failed { order, .. } if order == "put route 172.16.0.0/12"),
            "{heard:?}"
        );
        assert!(!netns.ip("link show lan0").contains(",UP"));
        netns.ip("link set lan0 up");
        kernel.quiet().await;
        assert!(netns.ip("route").contains("172.16.0.0/12 via 10.1.0.254 dev lan0 proto 78"));
    });
}

#[test]
fn an_unconfigured_twin_has_the_addresses_that_it_is_given() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"])]).await;
        let heard = kernel.twins(vec![TwinSpec { configured: false, ..lan(&[]) }]).await;
        assert_eq!(heard, [address("lan0", "10.1.0.1/24", false)]);
        netns.ip("addr add 10.4.0.1/24 dev lan0");
        assert_eq!(kernel.next().await, address("lan0", "10.4.0.1/24", true));
        netns.ip("addr del 10.4.0.1/24 dev lan0");
        assert_eq!(kernel.next().await, address("lan0", "10.4.0.1/24", false));
        kernel.quiet().await;
    });
}

#[test]
fn static_routes_are_kept_marked_and_not_told() {
    let netns = Netns::new();
    netns.ip("link set lo up");
    netns.ip("route add 10.7.0.0/16 dev lo");
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
        let via = |next_hop| Path::Via(hop("lan0", next_hop));
        let mut routes = vec![
            route("0.0.0.0/0", via("10.1.0.254")),
            route("10.5.0.0/16", Path::Attached("tunnel0".parse().unwrap())),
            route("10.6.0.0/16", Path::Unreachable),
            route("10.7.0.0/16", via("10.1.0.254")),
            route("10.8.0.0/16", Path::Via(hop("nowhere0", "10.1.0.254"))),
            Route { table: TableId(5), ..route("10.9.0.0/16", via("10.1.0.254")) },
            route("10.10.0.0/16", balanced(&[("lan0", "10.1.0.253"), ("tunnel0", "10.255.0.2")])),
        ];
        kernel.order(Order::Routes(routes.clone())).await;
        let failed = |prefix: &str, why: &str| Notice::Failed {
            order: format!("put route {prefix}"),
            reason: why.into(),
        };
        assert!(matches!(kernel.next().await, Notice::Failed { order, reason }
                if order == "put route 10.7.0.0/16" && reason.contains("exists")),);
        assert_eq!(kernel.next().await, failed("10.8.0.0/16", "no twin `nowhere0`"));
        assert_eq!(kernel.next().await, failed("10.9.0.0/16", "no twin is in table 5"));
        kernel.quiet().await;
        let kept = netns.ip("route show proto 78");
        let kept: Vec<_> = kept.lines().map(str::trim).collect();
        assert_eq!(
            kept,
            [
                "default via 10.1.0.254 dev lan0 onlink",
                "10.5.0.0/16 dev tunnel0 scope link",
                "unreachable 10.6.0.0/16",
                "10.10.0.0/16",
                "nexthop via 10.1.0.253 dev lan0 weight 1 onlink",
                "nexthop via 10.255.0.2 dev tunnel0 weight 1 onlink",
            ]
        );
        let mut watch = Watch::new(&netns);
        kernel.order(Order::Routes(routes.clone())).await;
        kernel.until(|notice| *notice == failed("10.9.0.0/16", "no twin is in table 5")).await;
        assert_eq!(watch.seen(), [""; 0], "what is there is left as it is");

        routes = vec![route("0.0.0.0/0", via("10.1.0.253")), route("10.6.0.0/16", Path::Blackhole)];
        kernel.order(Order::Routes(routes)).await;
        kernel.quiet().await;
        let kept = netns.ip("route show proto 78");
        let kept: Vec<_> = kept.lines().map(str::trim).collect();
        assert_eq!(kept, ["default via 10.1.0.253 dev lan0 onlink", "blackhole 10.6.0.0/16"]);
        assert!(netns.ip("route").contains("10.7.0.0/16 dev lo"));
    });
}

#[test]
fn routes_of_daemons_are_mirrored() {
    let netns = Netns::new();
    netns.ip("link add other0 type veth peer name other1");
    netns.ip("link set other0 up");
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
        netns.ip("route add 192.168.7.0/24 via 10.255.0.2 dev tunnel0 proto ospf metric 20");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "tunnel0", "10.255.0.2", true));
        netns.ip("route replace 192.168.7.0/24 via 10.255.0.3 dev tunnel0 proto ospf metric 20");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "tunnel0", "10.255.0.3", true));
        netns.ip("route add 192.168.7.0/24 via 10.1.0.254 dev lan0 proto static");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "lan0", "10.1.0.254", true));
        netns.ip("route del 192.168.7.0/24 metric 0 proto static");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "tunnel0", "10.255.0.3", true));

        // By a nexthop object, as FRR has them.
        netns.ip("nexthop add id 12 via 10.255.0.4 dev tunnel0");
        netns.ip("route add 192.168.8.0/24 nhid 12 proto bgp");
        assert_eq!(kernel.next().await, told("192.168.8.0/24", "tunnel0", "10.255.0.4", true));
        netns.ip("nexthop replace id 12 via 10.255.0.5 dev tunnel0");
        assert_eq!(kernel.next().await, told("192.168.8.0/24", "tunnel0", "10.255.0.5", true));
        netns.ip("nexthop del id 12");
        assert_eq!(kernel.next().await, told("192.168.8.0/24", "tunnel0", "10.255.0.5", false));

        // All next hops by twins, and those that discard.
        let told_path =
            |prefix, path, present| Notice::Route { route: route(prefix, path), present };
        netns.ip(
            "route add 192.168.10.0/24 proto bgp nexthop via 10.255.0.2 dev tunnel0 nexthop via 10.1.0.254 dev lan0 nexthop dev other0",
        );
        let ways = balanced(&[("tunnel0", "10.255.0.2"), ("lan0", "10.1.0.254")]);
        let by_port = Path::Via(hop("lan0", "10.1.0.254"));
        let underlay = Notice::Underlay { route: route("192.168.10.0/24", by_port), present: true };
        assert_eq!(kernel.next().await, underlay);
        assert_eq!(kernel.next().await, told_path("192.168.10.0/24", ways.clone(), true));
        netns.ip("route replace blackhole 192.168.10.0/24 proto bgp");
        assert_eq!(kernel.next().await, told_path("192.168.10.0/24", Path::Blackhole, true));
        kernel.next().await;
        for kind in ["unreachable", "prohibit"] {
            netns.ip(&format!("route add {kind} 192.168.11.0/24 proto bgp"));
            assert_eq!(kernel.next().await, told_path("192.168.11.0/24", Path::Unreachable, true));
            netns.ip(&format!("route del {kind} 192.168.11.0/24 proto bgp"));
            assert_eq!(kernel.next().await, told_path("192.168.11.0/24", Path::Unreachable, false));
        }
        netns.ip("route add throw 192.168.11.0/24 proto bgp");

        // Neither of another link nor of another table.
        netns.ip("route add 192.168.9.0/24 dev other0");
        netns.ip("route add 192.168.9.0/24 via 10.255.0.2 dev tunnel0 table 9");
        kernel.quiet().await;

        // The kernel says nothing of the routes that a link takes with it.
        netns.ip("link set tunnel0 down");
        assert_eq!(kernel.next().await, told("192.168.7.0/24", "tunnel0", "10.255.0.3", false));
        kernel.quiet().await;
    });
}

/// Reads frames until an ARP request for `address`; its sender is answered as if from `mac`.
fn answer_arp(queue: &Queue, address: [u8; 4], mac: [u8; 6]) {
    let request = arp_request(queue, address).expect("an ARP request");
    let mut reply = request.clone();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&mac);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&mac);
    reply[28..32].copy_from_slice(&address);
    reply[32..42].copy_from_slice(&request[22..32]);
    queue.write(&reply).unwrap();
}

fn arp_request(queue: &Queue, address: [u8; 4]) -> Option<Vec<u8>> {
    let end = Instant::now() + Duration::from_secs(2);
    let mut frame = [0; 2048];
    while Instant::now() < end {
        match queue.read(&mut frame) {
            Ok(length) if frame[12..14] == [8, 6] && frame[21] == 1 && frame[38..42] == address => {
                return Some(frame[..length].to_vec());
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

#[test]
fn a_neighbour_is_asked_for_at_once_and_told() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"]), tunnel()]).await;
        let queue = netns.attach("lan0", twin::Kind::Tap);
        let neighbour = hop("lan0", "10.1.0.9");
        let asked = Instant::now();
        kernel.order(Order::Resolve(neighbour)).await;
        // The task has this thread as well.
        tokio::task::yield_now().await;
        let thread = std::thread::spawn(move || {
            answer_arp(&queue, [10, 1, 0, 9], [2, 0, 0, 0, 0, 9]);
            queue
        });
        let resolved = Notice::Neighbour { hop: neighbour, mac: Some(Mac([2, 0, 0, 0, 0, 9])) };
        assert_eq!(kernel.next().await, resolved);
        assert!(asked.elapsed() < Duration::from_millis(900), "the first request was answered");
        let queue = thread.join().unwrap();
        let entry = netns.ip("neigh show 10.1.0.9 dev lan0");
        assert!(entry.contains("managed") && entry.contains("proto 78"), "{entry}");

        // Told again to who asks again, without a request.
        kernel.order(Order::Resolve(neighbour)).await;
        assert_eq!(kernel.next().await, resolved);
        // Another address of the same neighbour tells.
        netns.ip("neigh replace 10.1.0.9 lladdr 02:00:00:00:00:0a dev lan0 nud permanent");
        let moved = Notice::Neighbour { hop: neighbour, mac: Some(Mac([2, 0, 0, 0, 0, 10])) };
        assert_eq!(kernel.next().await, moved);
        kernel.order(Order::Resolve(neighbour)).await;
        assert_eq!(kernel.next().await, moved);
        assert!(netns.ip("neigh show 10.1.0.9 dev lan0").contains("PERMANENT"), "what somebody set stays");
        netns.ip("neigh del 10.1.0.9 dev lan0");
        assert_eq!(kernel.next().await, Notice::Neighbour { hop: neighbour, mac: None });

        kernel.order(Order::Resolve(hop("tunnel0", "10.255.0.2"))).await;
        assert_eq!(
            kernel.next().await,
            Notice::Failed {
                order: "resolve 10.255.0.2 on `tunnel0`".into(),
                reason: "that is no twin of a port".into()
            }
        );
        drop(queue);
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_told_and_let_go() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"])]).await;
        let neighbour = hop("lan0", "10.1.0.9");
        kernel.order(Order::Resolve(neighbour)).await;
        assert_eq!(kernel.next().await, Notice::Neighbour { hop: neighbour, mac: None });
        kernel.quiet().await;
        assert_eq!(netns.ip("neigh show dev lan0"), "", "the kernel asks no more");
    });
}

#[test]
fn a_neighbour_of_ours_that_goes_stale_is_used() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![lan(&["10.1.0.1/24"])]).await;
        let mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        netns.ip("neigh add 10.1.0.8 lladdr 02:00:00:00:00:09 dev lan0 nud stale");
        netns.ip("neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev lan0 nud stale protocol 78");
        assert_eq!(kernel.next().await, Notice::Neighbour { hop: hop("lan0", "10.1.0.8"), mac });
        assert_eq!(kernel.next().await, Notice::Neighbour { hop: hop("lan0", "10.1.0.9"), mac });
        kernel.quiet().await;
        assert!(netns.ip("neigh show 10.1.0.8 dev lan0").contains("STALE"), "another's");
        assert!(
            netns.ip("neigh show 10.1.0.9 dev lan0").contains("DELAY"),
            "to be asked for in five seconds"
        );
    });
}

#[test]
fn after_lost_notifications_all_is_told_anew() {
    let netns = Netns::new();
    netns.run(async |mut kernel| {
        kernel.twins(vec![tunnel()]).await;
        const ROUTES: usize = 30_000;
        let prefix = |n: usize| format!("{}.{}.{}.0/24", 20 + n / 65536, n / 256 % 256, n % 256);
        let batch = |what: &str, range: std::ops::Range<usize>| {
            range
                .map(|n| format!("route {what} {} via 10.255.0.2 dev tunnel0\n", prefix(n)))
                .collect::<String>()
        };
        // While this thread is here the task reads nothing.
        netns.batch(&batch("add", 0..ROUTES));
        netns.batch(&batch("del", 0..10));
        let mut there = std::collections::BTreeSet::new();
        let mut synced = false;
        while !(synced && there.len() == ROUTES - 10) {
            match kernel.next().await {
                Notice::Route { route, present: true } => drop(there.insert(route.prefix)),
                Notice::Route { route, present: false } => drop(there.remove(&route.prefix)),
                Notice::Synced => synced = true,
                Notice::Address { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(!there.contains(&prefix(0).parse().unwrap()));
    });
}

#[test]
fn a_clean_stop_removes_what_is_ours_and_another_leaves_it() {
    let netns = Netns::new();
    let specs = vec![lan(&["10.1.0.1/24"]), tunnel()];
    netns.run(async |mut kernel| {
        kernel.twins(specs.clone()).await;
        kernel.order(Order::Routes(vec![route("10.0.0.0/8", Path::Blackhole)])).await;
        kernel.order(Order::Stop { remove_twins: false }).await;
        assert_eq!(kernel.notices.recv().await, None);
    });
    assert!(netns.ip("link show").contains("lan0") && netns.ip("route").contains("blackhole"));
    let queue = netns.attach("lan0", twin::Kind::Tap);
    netns.run(async |mut kernel| {
        kernel.twins(specs.clone()).await;
        kernel.order(Order::Stop { remove_twins: true }).await;
        assert_eq!(kernel.notices.recv().await, None);
    });
    let links = netns.ip("link show");
    assert!(!links.contains("lan0") && !links.contains("tunnel0"), "{links}");
    assert_eq!(netns.ip("route"), "");
    assert!(twin::is_gone(&queue.read(&mut [0; 64]).unwrap_err()));
}
