//! Every NHRP message that we send is well formed to a dissector that nobody here wrote, and has the sizes that the field's
//! own messages have.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::collections::BTreeSet;

use tests::capture::{self, Capture};
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::{lock, tshark};

/// Eight characters, as in the messages that the sizes were taken from.
const AUTHENTICATION: &str = "cisco123";

#[test]
fn tshark_finds_no_fault_and_the_field_s_sizes() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    for node in &mut cloud.nodes {
        let tunnel = &mut node.config["tunnels"][0]["nhrp"];
        tunnel.as_table_mut().unwrap().insert("authentication".to_owned(), AUTHENTICATION.into());
    }
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    cloud.start().unwrap();
    // 56 bytes of ping make 84 bytes of packet: small enough to be quoted whole in a traffic indication.
    assert!(cloud.pings(SPOKE1, cloud.nodes[SPOKE2].host.address()).unwrap());
    // A clean end, with its purges.
    let hub = cloud.nodes[HUB].nbma.to_string();
    cloud.stop().unwrap();
    let frames = capture.finish().unwrap();

    let file = cloud.directory().join("underlay.pcap");
    capture::save(&file, &frames).unwrap();
    let messages = tshark::nhrp(&file).unwrap();
    for message in &messages {
        println!("{message:?}");
    }
    let bad: Vec<_> = messages.iter().filter(|m| !m.checksum_good || !m.complaints.is_empty()).collect();
    assert!(bad.is_empty(), "{bad:#?}");

    let seen: BTreeSet<_> =
        messages.iter().map(|m| (m.kind, m.source == hub, m.size, m.extensions_at)).collect();
    for (what, golden) in [
        ("registration request", (3, false, 108, 52)),
        ("registration reply", (4, true, 128, 52)),
        ("traffic indication", (8, true, 144, 124)),
        ("resolution request of a spoke", (1, false, 88, 52)),
        ("resolution request passed on by the hub", (1, true, 108, 52)),
    ] {
        assert!(seen.contains(&golden), "{what}: {golden:?} is not among {seen:?}");
    }
    for (kind, what) in [(2, "resolution reply"), (5, "purge request")] {
        assert!(seen.iter().any(|m| m.0 == kind), "no {what}");
    }
}
