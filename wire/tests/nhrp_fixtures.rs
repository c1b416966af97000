//! Every NHRP packet of real peers (FRR nhrpd, in the clear and behind a NAT) decodes, and encodes to the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use wire::nhrp::{Body, Message, MessageType};

#[test]
fn packets_of_real_peers_are_read_and_written_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nhrp");
    let mut seen = BTreeMap::new();
    let pair = |hex: &str, i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        for line in std::fs::read_to_string(&path).unwrap().lines().filter(|l| !l.starts_with('#')) {
            let (frame, hex) = line.split_once(' ').unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| pair(hex, i)).collect();
            let message = Message::decode(&bytes).unwrap_or_else(|e| panic!("{path:?} frame {frame}: {e}"));
            assert_eq!(message.encode(), bytes, "{path:?} frame {frame}");
            for extension in message.extensions.iter().flatten() {
                if [3, 4, 5, 9].contains(&extension.kind().number()) {
                    extension.entries(message.families).unwrap();
                }
            }
            *seen.entry(message.message_type()).or_insert(0) += 1;
            if let Body::Traffic { packet, .. } = &message.body {
                assert_eq!(packet[0] >> 4, 4, "{path:?} frame {frame}");
            }
        }
    }
    // As many of each type as a dissector counts in the captures.
    use MessageType::*;
    let counted = [
        (ResolutionRequest, 24),
        (ResolutionReply, 21),
        (RegistrationRequest, 42),
        (RegistrationReply, 42),
        (TrafficIndication, 12),
    ];
    assert_eq!(seen, BTreeMap::from(counted));
}
