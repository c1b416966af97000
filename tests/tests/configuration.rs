//! A configuration that makes no sense is refused, with the path of what is wrong, and changes nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2, TUNNEL};
use tests::node::{self, Node};
use tests::traffic::Stream;
use tests::{lock, wait};

/// A good file, what to put in its place, and the path that the refusal must name.
type Mistake = (&'static str, &'static str, &'static str);

/// One of each kind, as a change of `examples/cloud/phase3/spoke1.toml`.
const MISTAKES: [Mistake; 25] = [
    // What is not the file's language at all.
    ("[node]", "[node", "file"),
    ("name = \"spoke1\"", "nmae = \"spoke1\"", "node.nmae"),
    ("shortcut = true", "shortcut = \"yes\"", "tunnels[0].nhrp.shortcut"),
    ("addresses = [\"192.168.11.1/24\"]", "addresses = [\"192.168.11.1/33\"]", "interfaces[1].addresses[0]"),
    ("mode = \"gre-multipoint\"", "mode = \"gre-point\"", "tunnels[0].mode"),
    ("key = 42", "key = 4294967296", "tunnels[0].key"),
    ("mtu = 1400", "mtu = 1400\ntcp_mss = \"loud\"", "tunnels[0].tcp_mss"),
    ("mtu = 1400", "mtu = 1400\nouter_df = \"off\"", "tunnels[0].outer_df"),
    // What cannot be.
    ("name = \"lan\"", "name = \"lan\"\nvlan = 4095", "interfaces[1].vlan"),
    ("holding_time = 600", "holding_time = 0", "tunnels[0].nhrp.holding_time"),
    ("authentication = \"wheel\"", "authentication = \"waterwheel\"", "tunnels[0].nhrp.authentication"),
    ("authentication = \"wheel\"", "authentication = \"\"", "tunnels[0].nhrp.authentication"),
    ("network_id = 1", "network_id = 0", "tunnels[0].nhrp.network_id"),
    ("mtu = 1400", "mtu = 20", "tunnels[0].mtu"),
    // What does not fit together.
    ("source = \"wan\"", "source = \"wam\"", "tunnels[0].source"),
    ("source = \"wan\"", "source = \"tunnel0\"", "tunnels[0].source"),
    ("mode = \"gre-multipoint\"", "mode = \"gre\"", "tunnels[0].destination"),
    ("key = 42", "key = 42\ndestination = \"203.0.113.1\"", "tunnels[0].destination"),
    ("name = \"lan\"", "name = \"wan\"", "interfaces[1].name"),
    ("name = \"tunnel0\"", "name = \"lan\"", "tunnels[0].name"),
    ("next_hop = \"10.255.0.1\"\n", "", "routes[0]"),
    ("mtu = 1400", "mtu = 1400\ntable = 7", "tunnels[0].table"),
    ("mtu = 1400", "mtu = 1400\nunderlay_table = 7", "tunnels[0].underlay_table"),
    ("mtu = 1400", "mtu = 1473", "tunnels[0].mtu"),
    ("nbma = \"203.0.113.1\"", "nbma = \"10.255.0.1\"", "tunnels[0].nhrp.nhs[0].nbma"),
];

fn good() -> String {
    fs::read_to_string(cloud::examples().join("phase3/spoke1.toml")).unwrap()
}

fn spoil((good_text, bad_text, path): Mistake) -> String {
    let good = good();
    assert!(good.contains(good_text), "{path}: the example has no `{good_text}`");
    good.replacen(good_text, bad_text, 1)
}

#[test]
fn a_control_plane_does_not_start_on_a_bad_file() {
    let file = std::env::temp_dir().join(format!("nave-bad-{}.toml", std::process::id()));
    let mut faults = Vec::new();
    for mistake in MISTAKES {
        fs::write(&file, spoil(mistake)).unwrap();
        let output = Command::new(node::program("nave-controlplane").unwrap())
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !words.contains(mistake.2) {
            faults.push(format!("`{}` should name {}: {}, {words}", mistake.1, mistake.2, output.status));
        }
    }
    fs::remove_file(&file).unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// All that the node runs on.
fn system(node: &Node) -> String {
    // Without the columns that change by themselves.
    let program = node.nave("show program").unwrap();
    let routes = node.nave("show routes").unwrap();
    let kernel = node.namespace.ip("-brief address").unwrap();
    let lasting = |line: &&str| !line.contains("nhrp");
    format!("{}{routes}{kernel}", program.lines().filter(lasting).collect::<Vec<_>>().join("\n"))
}

fn apply(node: &Node, text: &str, words: &str) -> (bool, String) {
    let file = node.directory().join("try.toml");
    fs::write(&file, text).unwrap();
    let mut command = node.nave_command().unwrap();
    let output = command.arg("apply").arg(&file).args(words.split_whitespace()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn a_refused_file_leaves_the_running_system_as_it_was() {
    let _turn = lock::take_turn().unwrap();
    let cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let spoke = &cloud.nodes[SPOKE1];
    assert!(cloud.pings(SPOKE1, cloud.nodes[SPOKE2].host.address()).unwrap());
    let before = system(spoke);
    let stream = Stream::start(cloud.flow(SPOKE1, SPOKE2, 7000, 1000)).unwrap();
    let mut faults = Vec::new();
    for mistake in MISTAKES {
        let (accepted, words) = apply(spoke, &spoil(mistake), "");
        if accepted || !words.contains(mistake.2) {
            faults.push(format!("`{}` should be refused with {}: {words}", mistake.1, mistake.2));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(system(spoke), before);
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}");
}

#[test]
fn a_good_file_is_applied_and_a_dry_run_is_not() {
    let _turn = lock::take_turn().unwrap();
    let cloud = Cloud::up(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let hub = &cloud.nodes[HUB];
    let mut config = hub.config.clone();
    let routes = config["routes"].as_array_mut().unwrap();
    let route = format!("prefix = \"198.51.100.0/24\"\nnext_hop = \"{}\"", cloud.nodes[SPOKE1].tunnel);
    routes.push(route.parse::<toml::Table>().unwrap().into());
    let text = toml::to_string(&config).unwrap();
    let is_there = || hub.nave("show fib").unwrap().contains("198.51.100.0/24");

    let (accepted, words) = apply(hub, &text, "--dry-run");
    assert!(accepted && words.contains("198.51.100.0/24"), "{words}");
    assert!(!is_there(), "a dry run changed something");

    let stream = Stream::start(cloud.flow(HUB, SPOKE2, 7001, 1000)).unwrap();
    let (accepted, words) = apply(hub, &text, "");
    assert!(accepted, "{words}");
    wait::until_true("the new route", Duration::from_secs(3), is_there).unwrap();
    let (accepted, words) = apply(hub, &toml::to_string(&hub.config).unwrap(), "");
    assert!(accepted, "{words}");
    wait::until_true("the route's end", Duration::from_secs(3), || !is_there()).unwrap();
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}");
    assert!(hub.nave("show dmvpn").unwrap().contains(TUNNEL));
}
