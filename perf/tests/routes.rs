//! `nave-perf routes` as a user runs it, with the data plane of the same build (`cargo build --bins` first, as for the black-box
//! tests).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

/// Input: few routes, a second of churn. Output: no packet lost or misled, and every figure.
#[test]
fn no_packet_is_lost_while_routes_change() {
    let arguments = ["routes", "--json", "--routes", "5000", "--churn", "1000", "--seconds", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["verified"], &report["routes"]), (&Value::Bool(true), &Value::from(5000)));
    assert_eq!(report["churned"], 1000);
    for phase in ["before", "during"] {
        let count = |name: &str| report[phase][name].as_u64().unwrap();
        assert!(count("sent") > 1000, "{text}");
        assert_eq!(count("received"), count("sent"), "{text}");
        assert_eq!([count("lost"), count("misled"), count("surplus")], [0; 3], "{text}");
    }
    for figure in ["seconds", "rss", "churn_seconds", "churn_ack_max"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {text}");
    }
}

#[test]
fn a_data_plane_that_is_not_there_is_named() {
    let arguments = ["routes", "--dataplane", "/nowhere/nave-dataplane"];
    let output = Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("starting /nowhere/nave-dataplane"), "{text}");
}
