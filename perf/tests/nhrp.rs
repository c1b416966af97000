//! `nave-perf nhrp` as a user runs it: every request has its answer, and what it says of the cost makes sense. With `--process` both
//! processes of the same build are there (`cargo build --bins` first, as for the black-box tests), and it takes root.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn nhrp(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nave-perf"));
    command.args(["nhrp", "--passes", "2", "--clients"]).args(arguments).output().unwrap()
}

#[test]
fn every_request_is_answered_and_every_figure_is_there() {
    let output = nhrp(&["3000", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((output.status.code(), &report["verified"]), (Some(0), &Value::Bool(true)), "{text}");
    for kind in ["first", "renewal", "forwarded", "answered"] {
        let figure = |name: &str| report[kind][name].as_f64().unwrap();
        assert!(
            figure("nanoseconds") >= figure("nanoseconds_min") && figure("nanoseconds_min") > 0.0,
            "{text}"
        );
        assert!((figure("nanoseconds") * figure("per_second") / 1e9 - 1.0).abs() < 1e-6, "{kind}: {text}");
    }
    assert_eq!(report["first"]["requests"], 3000);
    // As real IOS: its registration with eight characters of authentication has 108 bytes, the reply 128 (with one entry more).
    assert_eq!(report["request_bytes"], serde_json::json!([108, 128, 88]), "{text}");
    assert!((64.0..4096.0).contains(&report["bytes_per_binding"].as_f64().unwrap()), "{text}");
}

/// Input: few clients through both processes of a hub. Output: each is in the cache and bound, and every figure.
#[test]
fn registrations_through_both_processes_are_accepted_and_there() {
    let output = nhrp(&["300", "--process", "--window", "32", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["verified"], &report["window"]), (&Value::Bool(true), &Value::from(32)), "{text}");
    assert_eq!((&report["entries"], &report["bindings"]), (&Value::from(300), &Value::from(300)), "{text}");
    for (kind, registrations) in [("first", 300), ("renewal", 600)] {
        let figure = |name: &str| report[kind][name].as_f64().unwrap();
        assert_eq!(report[kind]["registrations"], registrations, "{text}");
        assert!(figure("per_second_max") >= figure("per_second") && figure("per_second") > 0.0, "{text}");
    }
}

#[test]
fn it_speaks_to_people_and_refuses_what_means_nothing() {
    let output = nhrp(&["500"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("verified: every request brought about what it should have\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" a second ")).count(), 4, "{text}");
    assert_eq!(nhrp(&["0"]).status.code(), Some(2));
    // Nothing is on its way in the engine alone.
    assert_eq!(nhrp(&["500", "--window", "8"]).status.code(), Some(2));
}
