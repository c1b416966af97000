//! `nave-perf ike` as a user runs it: every peer is protected, and what it says of the cost makes sense. With `--process` both processes of
//! the same build are there (`cargo build --bins` first, as for the black-box tests), and it takes root.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn ike(arguments: &[&str]) -> Output {
    let arguments = [&["ike", "--passes", "2"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap()
}

/// Input: each kind of proof, several groups, more peers than begin together. Output: verified, and every figure.
#[test]
fn every_peer_is_protected_and_every_figure_is_there() {
    for (proof, suite) in [
        ("psk", "aes256gcm16-prfsha384-x25519"),
        ("ecdsa", "aes128gcm16-prfsha256-ecp256"),
        ("ed25519", "aes256-sha256-prfsha256-ecp384"),
        ("psk", "aes256gcm16-prfsha384-x25519-mlkem768"),
    ] {
        let output = ike(&["--peers", "300", "--proof", proof, "--suite", suite, "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((output.status.code(), &report["verified"]), (Some(0), &Value::Bool(true)), "{text}");
        assert_eq!(
            (&report["suite"], &report["proof"]),
            (&Value::from(suite), &Value::from(proof)),
            "{text}"
        );
        let figure = |name: &str, of: &str| report[name][of].as_f64().unwrap();
        for part in ["setup", "init", "auth", "used"] {
            let best = figure(part, "microseconds_min");
            assert!(figure(part, "microseconds") >= best && best >= 0.0, "{part}: {text}");
        }
        let parts = figure("init", "microseconds_min") + figure("auth", "microseconds_min");
        assert!(figure("setup", "microseconds") >= parts && parts > 1.0, "{text}");
        let product = figure("setup", "microseconds") * report["setups_per_second"].as_f64().unwrap();
        assert!((product / 1e6 - 1.0).abs() < 1e-6, "{text}");
        assert!((500.0..16_384.0).contains(&report["bytes_per_setup"].as_f64().unwrap()), "{text}");
        let lengths = report["datagram_bytes"].as_array().unwrap();
        assert!(lengths.iter().all(|length| (150..4000).contains(&length.as_u64().unwrap())), "{text}");
    }
}

/// Input: spokes that come back at once, with each kind of proof. Output: all are protected and registered, and every figure.
#[test]
fn spokes_come_back_at_once_through_both_processes() {
    for proof in ["psk", "ecdsa"] {
        let command = ["ike", "--process", "--peers", "100", "--proof", proof, "--json"];
        let output = Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(command).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&report["verified"], &report["peers"]),
            (&Value::Bool(true), &Value::from(100)),
            "{text}"
        );
        assert_eq!((&report["sas"], &report["entries"]), (&Value::from(100), &Value::from(100)), "{text}");
        let times = |name: &str| -> Vec<f64> {
            report[name].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect()
        };
        let (protected, registered) = (times("protected_milliseconds"), times("registered_milliseconds"));
        assert!(protected[0] > 0.0 && protected.is_sorted() && registered.is_sorted(), "{text}");
        assert!(registered[2] > protected[2], "{text}");
    }
}

#[test]
fn it_speaks_to_people_and_refuses_what_means_nothing() {
    let output = ike(&["--peers", "20", "--fake"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("verified: every peer is protected by the same keys on both sides\n"), "{text}");
    assert!(
        text.contains("; no cryptography") && text.contains(" a second: IKE SA and child SA as responder"),
        "{text}"
    );
    assert_eq!(ike(&["--peers", "0"]).status.code(), Some(2));
    assert_eq!(ike(&["--suite", "3des-md5"]).status.code(), Some(2));
    assert_eq!(ike(&["--peers", "5", "--fake", "--proof", "ecdsa"]).status.code(), Some(1));
}
