//! Several workers: each has the SAs of some peers, and packets that come by another's queue are handed to the one that has theirs.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tests::census::Lookout;
use tests::cloud::{self, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::node::Node;
use tests::traffic::Stream;
use tests::{lock, wait};

/// Ways that traffic takes, each in many flows: by which queue of a LAN port one comes is the kernel's choice, by its ports.
const WAYS: [(usize, usize); 4] = [(HUB, SPOKE1), (HUB, SPOKE2), (SPOKE1, SPOKE2), (SPOKE2, HUB)];
/// Flows of each way.
const FLOWS: u16 = 12;
/// Packets a second of each flow.
const RATE: u32 = 40;
/// Workers of both SAs of each pair of nodes (hub and spoke1, hub and spoke2, both spokes), at the first and at the second node: so each
/// node has SAs on both.
const WORKERS: [[u32; 2]; 3] = [[0, 0], [1, 1], [1, 0]];

/// A protected phase 3 cloud with two workers on each node.
fn on_two_workers() -> Cloud {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.nodes.iter_mut().for_each(|node| node.workers = vec![0, 1]);
    // Headers that the port has checked, and one queue for both workers: no difference.
    cloud.nodes[SPOKE1].offloads = Some("all");
    cloud.nodes[SPOKE2].offloads = Some("none");
    let next = Cell::new(0);
    cloud
        .protect_by(|pair| {
            let workers = WORKERS[next.replace(next.get() + 1)];
            for (sa, worker) in pair.sas.iter_mut().zip(workers) {
                // The field of the SPI that names the worker.
                sa.spi = sa.spi & !(0x3f << 18) | worker << 18;
            }
        })
        .unwrap();
    cloud
}

fn list(node: &Node, words: &str) -> Vec<Value> {
    node.nave_json(words).unwrap().as_array().cloned().unwrap()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} of {value}"))
}

/// The counters of `show counters` that are not a node's.
fn flow(node: &Node) -> BTreeMap<String, u64> {
    let counters = node.nave_json("show counters").unwrap();
    let others = counters["others"].as_array().cloned().unwrap();
    let named = |counter: &Value| (counter["name"].as_str().unwrap().to_owned(), number(counter, "count"));
    others.iter().map(named).collect()
}

/// What came and what went, as long as all that was handed off has been taken in.
fn balance(node: &Node) -> Result<u64, anyhow::Error> {
    let flow = flow(node);
    let sum = |names: &[&str]| names.iter().map(|name| flow[*name]).sum::<u64>();
    let came = sum(&["received", "injected", "copied", "split", "unparked", "handed-in"]);
    let gone = sum(&["sent", "punted", "dropped", "parked", "handed-off", "merged"]);
    anyhow::ensure!(came == gone, "{}: {came} came and {gone} went: {flow:?}", node.name);
    anyhow::ensure!(flow["handed-in"] == flow["handed-off"], "{}: on the way: {flow:?}", node.name);
    Ok(flow["handed-in"])
}

fn meet(cloud: &Cloud) {
    for (from, to) in [WAYS, WAYS.map(|(from, to)| (to, from))].concat() {
        let host = cloud.nodes[to].host.address();
        wait::until_true("a ping", Duration::from_secs(20), || cloud.pings(from, host).unwrap())
            .unwrap_or_else(|e| panic!("{e:#}: {} → {host}\n{}", cloud.nodes[from].name, cloud.logs()));
    }
    wait::until_true("the shortcut", Duration::from_secs(20), || {
        cloud.nodes[SPOKE1].nave("show fib").is_ok_and(|fib| fib.contains("192.168.12.0/24"))
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
}

/// Input: a protected cloud with two workers a node, each with the SAs of one peer; ports of one spoke do all that they can in place of the workers,
/// those of the other nothing; many flows on four ways. Output: nothing is lost and each
/// flow keeps its order; on the hub both workers received, handed off and were handed packets; on every node what came is what went, and
/// what was handed off was taken in; each SA opened and sealed by its own worker, and refused nothing; on the underlay all is sealed, no IV
/// comes twice and no SA's sequence numbers go back.
#[test]
fn sas_are_spread_over_workers_and_packets_find_theirs() {
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(cores >= 2, "this test needs two cores");
    let _turn = lock::take_turn().unwrap();
    let mut cloud = on_two_workers();
    let lookout = Lookout::start(&cloud).unwrap();
    cloud.start().unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.logs()));
    for (spoke, rss, checksum) in
        [(SPOKE1, "used", "used"), (SPOKE2, "unused", "unused"), (HUB, "used", "unused")]
    {
        for port in list(&cloud.nodes[spoke], "show ports") {
            let offloads = port["offloads"].as_array().unwrap();
            let states: Vec<_> = offloads.iter().map(|offload| &offload["state"]).take(2).collect();
            assert_eq!(states, [rss, checksum], "{port}");
        }
    }
    meet(&cloud);

    let flows = WAYS.into_iter().flat_map(|way| std::iter::repeat_n(way, FLOWS.into())).zip(6200..);
    let start = |((from, to), port)| Stream::start(cloud.flow(from, to, port, RATE)).unwrap();
    let streams: Vec<_> = flows.map(start).collect();
    std::thread::sleep(Duration::from_secs(3));
    streams.iter().for_each(Stream::stop);
    for tally in streams.into_iter().map(|stream| stream.finish().unwrap()) {
        assert!(tally.is_whole() && tally.reordered == 0 && tally.sent >= 60, "{tally}\n{}", cloud.logs());
    }

    for node in &cloud.nodes {
        // What is on its way while somebody looks is there when it is looked again.
        let handed = wait::until("a quiet moment", Duration::from_secs(10), || balance(node)).unwrap();
        assert!(handed > 0, "{}: nothing was handed off", node.name);
        let workers = list(node, "show workers");
        assert_eq!(workers.len(), 2);
        if node.name == cloud.nodes[HUB].name {
            for worker in &workers {
                for field in ["rx_packets", "tx_packets", "handed_in", "handed_off"] {
                    assert!(number(worker, field) > 0, "{field}: {worker}");
                }
            }
        }
        let sas = list(node, "show sa");
        assert_eq!(sas.len(), 4, "{sas:?}");
        for (sa, worker) in sas.iter().zip([0, 1].into_iter().cycle()) {
            assert!(number(sa, "packets") > 0 && number(sa, "bad_icv") + number(sa, "replayed") == 0, "{sa}");
            assert!(sas.iter().any(|sa| number(sa, "worker") == worker));
        }
        assert_eq!(node.drops("handoff-full").unwrap(), 0);
    }
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}
