//! `nave-perf ike` as a user runs it: every peer is protected, and what it says of the cost makes sense.
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
