//! What an operator sees of single packets on the running system: where one goes through the graph (`nave trace`), what passes a port
//! or a node (`nave capture`), and why an address is reached the way it is (`nave explain`).
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use tests::cloud::{self, Cloud, HUB, Ports, SPOKE1, SPOKE2};
use tests::node::Node;
use tests::tshark;
use tests::{lock, wait};

/// How long after its start a command sees what passes.
const ARMED: Duration = Duration::from_millis(500);

/// `nave` with these words, which goes on by itself.
fn begin(node: &Node, words: &str) -> Child {
    let mut command = node.nave_command().unwrap();
    command.args(words.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    sleep(ARMED);
    child
}

/// What it printed. It has to end within five seconds.
fn end(mut child: Child) -> Vec<u8> {
    let ended =
        wait::until_true("nave's end", Duration::from_secs(5), || child.try_wait().unwrap().is_some());
    if ended.is_err() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(ended.is_ok() && output.status.success(), "{}: {words}", output.status);
    output.stdout
}

/// JSON, an object a line.
fn lines(output: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(output.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A datagram from one host to another, of the family of `to`.
fn send(cloud: &Cloud, from: usize, to: IpAddr) {
    let host = &cloud.nodes[from].host;
    let own: IpAddr = if to.is_ipv4() { host.address().into() } else { host.address6().into() };
    let socket = host.namespace.run(|| UdpSocket::bind((own, 4000))).unwrap().unwrap();
    socket.send_to(b"nave", (to, 4001)).unwrap();
}

/// The node of each step.
fn nodes(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["node"].as_str().unwrap()).collect()
}

/// The bytes of a step.
fn bytes(step: &Value) -> Vec<u8> {
    let text = step["bytes"].as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

fn traces(cloud: &Cloud) {
    let (spoke1, spoke2) = (&cloud.nodes[SPOKE1], &cloud.nodes[SPOKE2]);
    for (to, lookup, inner) in [
        (IpAddr::from(spoke2.host.address()), "ip-lookup", [8_u8, 0]),
        (spoke2.host.address6().into(), "ip6-lookup", [0x86, 0xdd]),
    ] {
        let words = format!("--json trace -n 1 --address {to}");
        // Others are not traced: they do not name the address.
        let traces = [begin(spoke1, &words), begin(spoke2, &words)];
        assert!(cloud.pings(SPOKE1, cloud.nodes[HUB].host.address()).unwrap());
        send(cloud, SPOKE1, to);
        let [outbound, inbound] = traces.map(|trace| lines(&end(trace)));
        assert_eq!(nodes(&outbound), ["rx", "classify", lookup, "midchain", "tx"], "{outbound:#?}");
        assert_eq!(nodes(&inbound), ["rx", "classify", "gre-decap", lookup, "rewrite", "tx"], "{inbound:#?}");
        // It came by the LAN; and at the other side by the port, and then by the tunnel.
        assert_eq!(outbound[2]["interface"], "lan");
        assert_eq!(inbound[3]["interface"], "tunnel0");
        assert_eq!(inbound[3]["destination"], to.to_string());
        // What went out at one side is what came in at the other, and in it is what the host sent.
        let (sent, received) = (bytes(outbound.last().unwrap()), bytes(&inbound[0]));
        assert_eq!(sent[12..], received[12..]);
        assert_eq!(sent[12..14], [8, 0], "outside it is IPv4");
        assert_eq!(sent[14 + 20 + 2..][..2], inner, "the type of GRE's payload");
        let host_sent = bytes(&outbound[0]);
        let time_to_live = if to.is_ipv4() { 8 } else { 7 };
        assert_eq!(sent[14 + 20 + 8 + time_to_live], host_sent[14 + time_to_live] - 1);
        assert_eq!(bytes(inbound.last().unwrap()).len(), host_sent.len());
    }
    // In words, for people; with the reason where one ends.
    let trace = begin(spoke1, "trace -n 1 --address 198.18.0.1");
    send(cloud, SPOKE1, "198.18.0.1".parse().unwrap());
    let said = String::from_utf8(end(trace)).unwrap();
    println!("{said}");
    assert!(said.contains("ip-lookup") && said.contains("no-route"), "{said}");
}

/// Captures of a port and of a node, read by others.
fn captures(cloud: &Cloud) {
    let spoke1 = &cloud.nodes[SPOKE1];
    let to = cloud.nodes[SPOKE2].host.address();
    let fields = ["ip.src", "ip.dst", "gre.key", "gre.proto", "icmp.type"];
    let ping = || assert!(cloud.pings(SPOKE1, to).unwrap());

    // Three requests out and three replies in, on the wire of the underlay, to standard output.
    let capture = begin(spoke1, &format!("capture --port wan --address {to} -c 6 -w -"));
    ping();
    let packets = tshark::fields(&end(capture), &fields).unwrap();
    let (own, other) = (spoke1.nbma.to_string(), cloud.nodes[SPOKE2].nbma.to_string());
    let (here, there) = (spoke1.host.address().to_string(), to.to_string());
    let request = [
        format!("{own},{here}"),
        format!("{other},{there}"),
        "0x0000002a".into(),
        "0x0800".into(),
        "8".into(),
    ];
    let reply = [
        format!("{other},{there}"),
        format!("{own},{here}"),
        "0x0000002a".into(),
        "0x0800".into(),
        "0".into(),
    ];
    assert_eq!(packets.len(), 6);
    assert_eq!(packets.iter().filter(|p| **p == request).count(), 3, "{packets:?}");
    assert_eq!(packets.iter().filter(|p| **p == reply).count(), 3, "{packets:?}");

    // The same on the LAN, to a file, without tunnel headers.
    let file = cloud.directory().join("lan.pcapng");
    let capture = begin(spoke1, &format!("capture --port lan --address {to} -c 6 -w {}", file.display()));
    ping();
    end(capture);
    let packets = tshark::fields(&fs::read(&file).unwrap(), &fields).unwrap();
    let plain =
        |source: &str, destination: &str, kind: &str| [source, destination, "", "", kind].map(str::to_owned);
    assert_eq!(packets.iter().filter(|p| **p == plain(&here, &there, "8")).count(), 3, "{packets:?}");
    assert_eq!(packets.iter().filter(|p| **p == plain(&there, &here, "0")).count(), 3, "{packets:?}");

    // What a node is given: to the tunnel's rewrite come the requests alone.
    let capture = begin(spoke1, &format!("capture --node midchain --address {to} -c 3 -w -"));
    ping();
    let packets = tshark::fields(&end(capture), &fields).unwrap();
    assert_eq!(packets, vec![plain(&here, &there, "8").to_vec(); 3]);

    // Nothing of that name.
    for (words, wrong) in [("--port wam", "wam"), ("--node midchian", "midchian")] {
        let said = spoke1.nave(&format!("capture {words} -c 1")).unwrap_err().to_string();
        assert!(said.contains(wrong), "{said}");
    }
}

/// Why an address is reached as it is.
fn explains(cloud: &Cloud) {
    let spoke1 = &cloud.nodes[SPOKE1];
    let node2 = &cloud.nodes[SPOKE2];
    for (to, next_hop, prefix) in [
        (node2.host.address().to_string(), node2.tunnel.to_string(), "192.168.12.0/24"),
        (node2.host.address6().to_string(), node2.tunnel6.to_string(), "2001:db8:a:12::/64"),
    ] {
        let said = spoke1.nave(&format!("explain {to}")).unwrap();
        println!("{said}");
        // The shortcut, on whose word; where that is; by what it is reached.
        for word in [prefix, "nhrp", &next_hop, "tunnel0", &node2.nbma.to_string(), "wan"] {
            assert!(said.contains(word), "no {word}: {said}");
        }
        let explained = spoke1.nave_json(&format!("explain {to}")).unwrap();
        assert_eq!(explained["address"], to, "{explained:#}");
        assert!(!explained["routes"].as_array().unwrap().is_empty(), "{explained:#}");
        assert!(!explained["adjacencies"].as_array().unwrap().is_empty(), "{explained:#}");
    }
    let said = spoke1.nave("explain 198.18.0.1").unwrap();
    println!("{said}");
    assert!(said.contains("no route"), "{said}");
    let own = spoke1.nave(&format!("explain {}", spoke1.host.router())).unwrap();
    assert!(own.contains("lan"), "{own}");
    assert!(spoke1.nave("explain 10.0.0.1 --table 99").is_err(), "there is no such table");
}

/// Input: packets between the spokes' hosts, of both families, by the shortcut. Output: each node of their way with their bytes; both
/// directions of a port as tshark reads them; route, next hop and its place in the underlay.
#[test]
fn packets_are_traced_captured_and_explained() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay_example(&cloud::test_prefix(), "dual-stack", Ports::Tap).unwrap();
    cloud.start().unwrap();
    let host = &cloud.nodes[SPOKE2].host;
    for to in [IpAddr::from(host.address()), host.address6().into()] {
        wait::until_true("the first ping", Duration::from_secs(10), || cloud.pings(SPOKE1, to).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {to}\n{}", cloud.logs()));
    }
    let shortcuts = || {
        let fib = cloud.nodes[SPOKE1].nave("show fib").unwrap();
        ["192.168.12.0/24", "2001:db8:a:12::/64"].iter().all(|prefix| fib.contains(prefix))
    };
    wait::until_true("the shortcuts", Duration::from_secs(10), shortcuts).unwrap();
    traces(&cloud);
    captures(&cloud);
    explains(&cloud);
    cloud.check_alive().unwrap();
}
