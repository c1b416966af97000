//! `nave decode --ike-keys` as it is run: on exchanges of other people's daemons, and on what was changed in them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures")
}

fn table(name: &str) -> PathBuf {
    captures().join(format!("{name}.ike_keys"))
}

/// Standard output, standard error, exit status.
fn decode(file: &Path, keys: &Path, more: &[&str]) -> (String, String, Option<i32>) {
    // No node: nothing may want to ask one.
    let mut command = Command::new(env!("CARGO_BIN_EXE_nave"));
    command.args(["--socket", "/nonexistent"]).args(more).args(["decode", "--check", "--ike-keys"]);
    let output = command.arg(keys).arg(file).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// The frames of a capture as they are in its file, each with its header of 16 bytes.
fn frames(name: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let file = std::fs::read(captures().join(format!("{name}.pcap"))).unwrap();
    let (head, mut rest) = file.split_at(24);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let kept = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (frame, behind) = rest.split_at(16 + kept);
        frames.push(frame.to_vec());
        rest = behind;
    }
    (head.to_vec(), frames)
}

/// A file with these bytes.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Captures, each with its table: IKE messages, and those of them that are encrypted, as a dissector counts them.
const CAPTURES: [(&str, u64, u64); 6] = [
    ("ike-certificates", 10, 8),
    ("ike-cookie", 8, 4),
    ("ike-psk", 18, 16),
    ("encapsulated", 12, 6),
    ("protected", 24, 16),
    ("rekeyed", 73, 67),
];

/// Input: exchanges of strongSwan 5.9.8 and 6.0.1 on ports 500 and 4500, with their keys. Output: every message is written byte for byte as
/// it came, what is encrypted in it too, and is authentic; no key is in what is said.
#[test]
fn ike_of_real_peers_is_decrypted_and_written_byte_for_byte() {
    for (name, messages, encrypted) in CAPTURES {
        let (out, err, code) = decode(&captures().join(format!("{name}.pcap")), &table(name), &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{name}");
        assert!(
            out.ends_with("every checksum is right, every encrypted IKE message is authentic\n"),
            "{out}"
        );
        assert!(out.contains(&format!("\n{:<24}{messages:>8}\n", "IKE messages")), "{name}\n{out}");
        assert!(out.contains(&format!("\n  {:<22}{encrypted:>8}\n", "decrypted")), "{name}\n{out}");
        assert_eq!(out.matches(": decrypted with the keys of line ").count() as u64, encrypted, "{name}");
        // Every payload has a name.
        assert!(!out.contains("unknown"), "{name}\n{out}");
        let keys = std::fs::read_to_string(table(name)).unwrap();
        let keys: Vec<_> = keys.split([',', '\n']).filter(|field| field.len() == 40).collect();
        assert!(keys.len() >= 2 && keys.iter().all(|key| !out.contains(key)), "{name}");
    }
}

#[test]
fn payloads_are_told_in_words() {
    let (out, ..) = decode(&captures().join("ike-psk.pcap"), &table("ike-psk"), &[]);
    for words in [
        "
  192.0.2.1 > 192.0.2.2, UDP 500 > 500
  IKE_SA_INIT request 0 from the initiator, SPIs 5187603159667962 0000000000000000, 268 bytes
    security association (33)
      proposal 1 for IKE: encryption AES-GCM-16 with a key of 128 bits, PRF HMAC-SHA2-256, key exchange x25519
      proposal 2 for IKE: encryption AES-GCM-16 with a key of 128 bits, PRF HMAC-SHA2-256, key exchange P-256
    key exchange (34): x25519 (31): 7b3ec7dd",
        "\n    notify (41): SIGNATURE_HASH_ALGORITHMS (16431): SHA2-256, SHA2-384, SHA2-512, identity: 0002000300040005\n",
        "\n    identification of the initiator (35): name \"A.example\": 412e6578616d706c65\n",
        "\n    authentication (39): shared key (2): 6e46e078",
        "proposal 1 for ESP, SPI 2fc141ed: encryption AES-GCM-16 with a key of 128 bits, sequence numbers 64 bits",
        "\n    traffic selectors of the initiator (44): 192.0.2.1, GRE\n",
        "\n    notify (41): REKEY_SA (16393) of ESP 2fc141ed\n",
        "\n    delete (42): ESP 2fc141ed\n",
        // The IKE SA is rekeyed, then the new one is deleted.
        "proposal 1 for IKE, SPI c0303c45e89c2c34: ",
        "
  INFORMATIONAL request 0 from the initiator, SPIs c0303c45e89c2c34 ef01f69dc0389f7e, 65 bytes
    encrypted, 33 bytes: decrypted with the keys of line 2
    delete (42): IKE
",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    let (out, ..) = decode(&captures().join("ike-cookie.pcap"), &table("ike-cookie"), &[]);
    assert_eq!(out.matches("notify (41): COOKIE (16390), ").count(), 2, "{out}");
}

/// RFC 7383: payloads are told with the fragment that was missing last. RFC 7427: the algorithm of a signature is told.
#[test]
fn fragments_are_put_together() {
    let capture = captures().join("ike-certificates.pcap");
    let (out, ..) = decode(&capture, &table("ike-certificates"), &[]);
    for words in [
        "fragment 1 of 2: decrypted with the keys of line 1\n\n",
        "fragment 2 of 2: decrypted with the keys of line 1\n    put together from 2 fragments\n    identification of the initiator (35): ",
        "subject CN=A.example",
        "authentication (39)\n      digital signature (14)\n      ECDSA with SHA-256 (1.2.840.10045.4.3.2)\n",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    let (out, ..) = decode(&capture, &table("ike-certificates"), &["--json"]);
    let blocks: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let whole = blocks.iter().find(|block| block["ike"]["pieces"] == 2).unwrap();
    assert_eq!(whole["ike"]["encrypted"]["fragment"], serde_json::json!([2, 2]));
    let names: Vec<_> = whole["ike"]["payloads"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    assert!(names.len() > 8 && *names[0] == 35, "{names:?}");
    assert!(names.iter().any(|kind| **kind == 37) && names.iter().any(|kind| **kind == 39), "{names:?}");

    // One is missing: in any order, and though the other comes twice.
    let (head, frames) = frames("ike-certificates");
    let without = |at: usize| {
        let mut kept = frames.clone();
        kept.remove(at);
        kept.push(kept[2].clone());
        decode(
            &file("incomplete.pcap", &[head.clone(), kept.concat()].concat()),
            &table("ike-certificates"),
            &[],
        )
    };
    for at in [2, 3] {
        let (out, err, code) = without(at);
        assert_eq!(code, Some(1), "{err}");
        assert!(out.contains("check: frame 3: IKE_AUTH request 1: fragments of it are missing\n"), "{out}");
        assert!(out.contains(&format!("\n  {:<22}{:>8}\n", "incomplete", 1)), "{out}");
    }
    let mut turned = frames.clone();
    turned.swap(2, 3);
    turned.push(frames[2].clone());
    let turned = file("turned.pcap", &[head, turned.concat()].concat());
    let (out, _, code) = decode(&turned, &table("ike-certificates"), &[]);
    assert_eq!(code, Some(0), "{out}");
}

/// Input: each message with one bit changed. Output: it is not authentic, or cannot be read, or does not come out as it came: exit status 1.
#[test]
fn a_changed_message_is_a_finding() {
    let (head, frames) = frames("ike-psk");
    // Frame 3: Ethernet, IPv4, UDP, the marker, the header, the encrypted payload.
    let start = 16 + 14 + 20 + 8 + 4;
    for at in [start + 16, start + 20, start + 24, start + 29, start + 33, start + 50, frames[2].len() - 1] {
        let mut changed = frames.clone();
        changed[2][at] ^= 1;
        let changed = file("changed.pcap", &[head.clone(), changed.concat()].concat());
        let (out, err, code) = decode(&changed, &table("ike-psk"), &[]);
        assert_eq!(code, Some(1), "byte {at}\n{out}");
        assert!(err.contains(" finding"), "{err}");
        assert!(out.contains("check: frame 3: "), "byte {at}\n{out}");
    }
    let mut changed = frames;
    let last = changed[2].len() - 1;
    changed[2][last] ^= 1;
    let changed = file("forged.pcap", &[head, changed.concat()].concat());
    let (out, ..) = decode(&changed, &table("ike-psk"), &[]);
    assert!(
        out.contains("check: frame 3: IKE_AUTH request 1: it is not authentic with the keys of line 1\n"),
        "{out}"
    );
    assert!(out.contains(&format!("\n  {:<22}{:>8}\n", "not authentic", 1)), "{out}");
}

#[test]
fn messages_of_other_sas_and_bad_tables_are_told() {
    let capture = captures().join("ike-psk.pcap");
    let (out, _, code) = decode(&capture, &table("ike-cookie"), &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("check: frame 3: IKE_AUTH request 1: no SA of the table has its SPIs\n"), "{out}");
    assert!(out.contains(&format!("\n  {:<22}{:>8}\n", "of an unknown SPI", 16)), "{out}");
    // What is in the clear is read all the same.
    assert!(out.contains("key exchange (34): x25519 (31)"), "{out}");

    let good = std::fs::read_to_string(table("ike-psk")).unwrap();
    let bad = file("bad.ike_keys", good.replace("AES-GCM-128", "DES").as_bytes());
    let (out, err, code) = decode(&capture, &bad, &[]);
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert!(err.contains("bad.ike_keys: line 1: DES with 16 octet ICV is not decrypted here: "), "{err}");
    let (_, err, code) = decode(&capture, Path::new("/nonexistent"), &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("/nonexistent: "), "{err}");
}
