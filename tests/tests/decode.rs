//! What `nave decode` finds in captures of other people's routers is what a dissector finds that nobody here wrote.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::node::program;
use tests::tshark;

/// Frame, type, size and place of the extensions of each NHRP message.
type Messages = BTreeMap<u64, (u64, u64, u64)>;

const TYPES: [&str; 8] = [
    "resolution-request",
    "resolution-reply",
    "registration-request",
    "registration-reply",
    "purge-request",
    "purge-reply",
    "error-indication",
    "traffic-indication",
];

fn decoded(file: &Path, more: &[&str]) -> Messages {
    let output = Command::new(program("nave").unwrap())
        .args(["--json", "decode", "--check"])
        .args(more)
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let blocks = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let messages = blocks.filter(|block| block["nhrp"].is_object()).map(|block| {
        let nhrp = &block["nhrp"];
        let kind = TYPES.iter().position(|name| nhrp["type"] == *name).unwrap() as u64 + 1;
        let at = nhrp["extensions_at"].as_u64().unwrap_or(0);
        (block["frame"].as_u64().unwrap(), (kind, nhrp["size"].as_u64().unwrap(), at))
    });
    messages.collect()
}

/// Input: captures of Linux and FRR: clear, behind a NAT, on tunnel interfaces, protected. Output: message by message the same as tshark.
#[test]
fn a_dissector_finds_the_same_messages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let mut all = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let dissected = tshark::nhrp(&file).unwrap();
        assert!(dissected.iter().all(|m| m.checksum_good), "{}", file.display());
        let dissected = messages(dissected);
        assert_eq!(decoded(&file, &[]), dissected, "{}", file.display());
        all += dissected.len();
    }
    assert_eq!(all, 283);
}

fn messages(dissected: Vec<tshark::Dissected>) -> Messages {
    let message = |m: tshark::Dissected| (m.kind.into(), m.size as u64, m.extensions_at as u64);
    dissected.into_iter().map(|m| (m.frame.into(), message(m))).collect()
}

/// Input: the same peers inside ESP, native, in UDP, with SAs that are renewed, and a table of their keys. Output: message by message
/// the same as tshark with that table.
#[test]
fn a_dissector_with_the_keys_finds_the_same_messages() {
    for (name, expected) in [("protected", 34), ("encapsulated", 22), ("rekeyed", 42)] {
        let [file, table] = ["pcap", "esp_sa"]
            .map(|kind| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{name}.{kind}")));
        let dissected = tshark::nhrp_in_esp(&file, &std::fs::read_to_string(&table).unwrap()).unwrap();
        assert!(dissected.iter().all(|m| m.checksum_good), "{name}");
        let dissected = messages(dissected);
        assert_eq!(dissected.len(), expected, "{name}");
        assert_eq!(decoded(&file, &["--esp-sa", table.to_str().unwrap()]), dissected, "{name}");
    }
}

/// Input: IKEv2 of strongSwan, with pre-shared keys and certificates, in fragments, rekeyed, and a table of its keys. Output: payload by
/// payload the same as tshark with that table.
#[test]
fn a_dissector_with_the_keys_finds_the_same_ike_payloads() {
    for (name, messages) in [
        ("ike-certificates", 10),
        ("ike-cookie", 8),
        ("ike-psk", 18),
        ("protected", 24),
        ("encapsulated", 12),
        ("rekeyed", 73),
    ] {
        let [file, table] = ["pcap", "ike_keys"]
            .map(|kind| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{name}.{kind}")));
        let dissected = tshark::ike_payloads(&file, &std::fs::read_to_string(&table).unwrap()).unwrap();
        assert_eq!(dissected.len(), messages, "{name}");
        let output = Command::new(program("nave").unwrap())
            .args(["--json", "decode", "--check", "--ike-keys"])
            .args([&table, &file])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let blocks = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let messages = blocks.filter(|block| block["ike"].is_object()).map(|block| {
            let kind = |payload: &Value| payload["type"].as_u64().unwrap() as u8;
            let kinds = block["ike"]["payloads"].as_array().unwrap().iter().map(kind).collect();
            (block["frame"].as_u64().unwrap(), kinds)
        });
        assert_eq!(messages.collect::<Vec<_>>(), dissected, "{name}");
    }
}
