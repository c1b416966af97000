//! `nave-perf wire` and `ndr` as a user runs them, with the data plane of the same build (`cargo build --bins` first, as for the black-box tests).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn perf(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap()
}

/// One run at a time: its workers never sleep.
static TURN: Mutex<()> = Mutex::new(());

fn report(arguments: &[&str]) -> Value {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = perf(&[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// Input: scenarios in the clear and protected, through a real data plane. Output: every packet came back, every byte right, the nodes that the
/// graph has were at work, and every figure is there.
#[test]
fn every_packet_of_every_scenario_comes_back_right() {
    let wanted = [
        ("ipv4", "64", "100", vec!["classify", "ip-lookup", "rewrite"]),
        ("encap", "354", "10", vec!["classify", "ip-lookup", "midchain"]),
        ("decap", "1400", "1", vec!["classify", "gre-decap", "rewrite"]),
        ("gre-relay", "1414", "50", vec!["gre-decap", "midchain"]),
        ("encrypt", "64", "10", vec!["midchain", "esp-encrypt"]),
        ("decrypt", "354", "20", vec!["esp-decrypt", "rewrite"]),
        ("relay", "imix", "200", vec!["esp-decrypt", "midchain", "esp-encrypt"]),
    ];
    for (scenario, size, spokes, nodes) in wanted {
        let few = ["--packets", "1", "--load", "5"];
        let report = report(
            &[&["wire", "--scenario", scenario, "--size", size, "--spokes", spokes], &few[..]].concat(),
        );
        assert_eq!(report["scenario"], scenario);
        assert_eq!((&report["verified"], &report["lost"]), (&Value::Bool(true), &Value::from(0)), "{report}");
        assert_eq!(report["sent"], 3 * 16_384);
        assert_eq!((&report["drops"], &report["link"]), (&json!({}), &Value::from("memif")), "{report}");
        for figure in ["cycles_per_packet", "port_cycles_per_packet", "mpps", "gbps", "reference_ratio"] {
            assert!(report[figure].as_f64().unwrap() > 0.0, "{scenario}: {figure}");
        }
        for node in nodes {
            assert!(report["nodes"][node].as_f64().unwrap() > 0.0, "{scenario}: {node}");
        }
        let latency = &report["latency"];
        let at = |name: &str| latency[name].as_f64().unwrap();
        assert!(at("p50_us") > 0.0 && at("p50_us") <= at("p99_us") && at("p99_us") <= at("p99_9_us"));
        assert!(at("p99_9_us") <= at("max_us") * 1.01, "{latency}");
        assert_eq!(latency["packets"].as_u64().unwrap() + latency["lost"].as_u64().unwrap(), latency["sent"]);
    }
}

/// Input: a file's frames again and again. Output: packets counted, a sample of what left checked.
#[test]
fn frames_of_a_file_are_forwarded_again_and_again() {
    for scenario in ["ipv4", "gre-relay", "encrypt"] {
        let few = ["--spokes", "20", "--packets", "1", "--link", "pcap"];
        let report = report(&[&["wire", "--scenario", scenario], &few[..]].concat());
        assert_eq!((&report["verified"], &report["link"]), (&Value::Bool(true), &Value::from("pcap")));
        assert_eq!(report["drops"], json!({}), "{report}");
        assert!(
            report["sampled"].as_u64().unwrap() > 0 && report["sent"].as_u64().unwrap() > 1000,
            "{report}"
        );
        assert!(report["cycles_per_packet"].as_f64().unwrap() > 0.0, "{report}");
    }
}

/// Input: a search by trials of a hundredth of a second, which may lose something: others use the cores, too. Output: a rate, between the ends
/// that the trials drew in.
#[test]
fn a_search_ends_between_what_held_and_what_did_not() {
    let search = ["ndr", "--scenario", "encap", "--spokes", "10", "--sizes", "64,1400", "--seconds", "0.01"];
    let report = report(&[&search[..], &["--resolution", "20", "--loss", "10"]].concat());
    assert_eq!((&report["verified"], &report["measured"]), (&Value::Bool(true), &Value::from("ndr")));
    let rates = report["rates"].as_array().unwrap();
    assert_eq!(rates.iter().map(|found| found["size"].as_u64().unwrap()).collect::<Vec<_>>(), [64, 1400]);
    for found in rates {
        let trials = found["trials"].as_array().unwrap();
        let with = |held: bool| {
            let trials = trials.iter().filter(move |trial| trial["held"] == held);
            trials.map(|trial| trial["mpps"].as_f64().unwrap())
        };
        let highest = with(true).fold(0.0, f64::max);
        assert!(!trials.is_empty(), "{found}");
        match found["mpps"].as_f64() {
            Some(mpps) => assert!((mpps / highest - 1.0).abs() < 1e-9, "{found}"),
            None => assert_eq!(highest, 0.0, "{found}"),
        }
    }
}

/// State (`Z` of one that has ended and nobody has asked for) and parent of a process (proc(5)), by its number in `/proc`.
fn look_at(number: &str) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The process that this one has started, once it is there.
fn child_of(parent: u32) -> Option<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = entries.filter_map(|entry| entry.file_name().into_string().ok());
    numbers.find(|number| look_at(number).is_some_and(|(_, of)| of == parent))
}

/// Input: a `nave-perf` that is killed in the middle of a measurement. Output: its data plane, which polls, ends too.
#[test]
fn a_data_plane_ends_with_a_nave_perf_that_is_killed() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let until = Instant::now() + Duration::from_secs(60);
    let mut perf = Command::new(env!("CARGO_BIN_EXE_nave-perf"))
        .args(["wire", "--scenario", "ipv4", "--packets", "1000000000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let dataplane = loop {
        if let Some(number) = child_of(perf.id()) {
            break number;
        }
        assert!(Instant::now() < until && perf.try_wait().unwrap().is_none(), "no data plane was started");
        std::thread::sleep(Duration::from_millis(10));
    };
    // Its workers run when it has threads of that name.
    let task = format!("/proc/{dataplane}/task");
    let has_worker = || {
        let threads = std::fs::read_dir(&task).into_iter().flatten().flatten();
        let mut names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.any(|name| name.starts_with("nave-worker"))
    };
    while !has_worker() {
        assert!(Instant::now() < until && perf.try_wait().unwrap().is_none(), "its worker does not run");
        std::thread::sleep(Duration::from_millis(10));
    }
    perf.kill().unwrap();
    perf.wait().unwrap();
    while look_at(&dataplane).is_some_and(|(state, _)| state != 'Z') {
        assert!(Instant::now() < until, "process {dataplane} is left behind");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let refused = [
        (vec!["wire", "--scenario", "relay", "--link", "pcap"], "replay window"),
        (vec!["wire", "--scenario", "ipv4", "--link", "nic"], "--own-port"),
        (vec!["wire", "--scenario", "encap", "--size", "1415"], "1414 at most"),
        (vec!["ndr", "--scenario", "ipv4", "--link", "pcap"], "without a rate"),
        (vec!["wire", "--scenario", "ipv4", "--dataplane", "/nowhere/nave-dataplane"], "starting /nowhere"),
    ];
    for (arguments, named) in refused {
        let output = perf(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text.contains(named), "{arguments:?}: {text}");
    }
    // As many workers as there are cores, if there may be so many.
    let cores = std::thread::available_parallelism().unwrap().get();
    if cores <= 16 {
        let output = perf(&["ndr", "--scenario", "ipv4", "--workers", &cores.to_string()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("a core for the source of packets"), "{text}");
    }
    for arguments in [["wire", "--load", "0"], ["wire", "--rate", "fast"], ["ndr", "--tries", "0"]] {
        assert_eq!(perf(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}
