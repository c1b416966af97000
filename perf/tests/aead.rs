//! `nave-perf aead` as a user runs it: every packet is sealed and opened rightly by each provider, and what it says makes sense.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use serde_json::Value;

fn aead(arguments: &[&str]) -> Output {
    let arguments = [&["aead", "--passes", "3"], arguments].concat();
    Command::new(env!("CARGO_BIN_EXE_nave-perf")).args(arguments).output().unwrap()
}

/// Input: two numbers of SAs, two lengths, keys of 256 bits. Output: of each the same providers, ring and `aes-gcm` among them; verified;
/// ring is one ring, and no best pass is above its median.
#[test]
fn every_provider_is_verified_and_measured_beside_ring() {
    let output = aead(&["--sas", "1,50", "--sizes", "64,0", "--bits", "256", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((output.status.code(), &report["verified"]), (Some(0), &Value::Bool(true)), "{text}");
    assert_eq!((&report["bits"], &report["passes"]), (&Value::from(256), &Value::from(3)), "{text}");
    let lines = report["lines"].as_array().unwrap();
    let providers: Vec<_> = lines[..lines.len() / 4].iter().map(|line| line["provider"].clone()).collect();
    assert!(providers.contains(&"ring".into()) && providers.contains(&"aes-gcm".into()), "{text}");
    let shapes = [(1, "64"), (1, "imix"), (50, "64"), (50, "imix")];
    let wanted = shapes.iter().flat_map(|shape| providers.iter().map(move |provider| (shape, provider)));
    for (line, ((sas, size), provider)) in lines.iter().zip(wanted) {
        assert_eq!((&line["sas"], &line["size"]), (&Value::from(*sas), &Value::from(*size)), "{text}");
        assert_eq!(&line["provider"], provider, "{text}");
        for what in ["seal", "open"] {
            let figure = |name: &str| line[what][name].as_f64().unwrap();
            assert!(figure("cycles") >= figure("cycles_min") && figure("cycles_min") > 1.0, "{line}");
            assert!(figure("ring_ratio") > 0.0 && figure("ring_ratio_min") > 0.0, "{line}");
            assert!(provider != "ring" || figure("ring_ratio") == 1.0, "{line}");
        }
    }
}

#[test]
fn it_speaks_to_people_and_refuses_what_means_nothing() {
    let output = aead(&["--sas", "3", "--sizes", "100", "--providers", "aes-gcm"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.ends_with("verified: every packet was opened, by aes-gcm too, and is what it was\n"),
        "{text}"
    );
    let lines = text.lines().filter(|line| line.trim_start().starts_with("3 "));
    assert_eq!(lines.count(), 2, "ring and aes-gcm: {text}");
    for arguments in [["--sas", "0"], ["--sizes", "1501"], ["--bits", "192"], ["--providers", "openssl"]] {
        let output = aead(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text.contains(arguments[1]), "{arguments:?}: {text}");
    }
}
