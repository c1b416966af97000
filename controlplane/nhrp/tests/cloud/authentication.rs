//! The text that keeps clouds apart.

use nhrp::{Event, Input, Reject};
use wire::nhrp::{Body, ErrorCode, MessageType};

use crate::net::*;

fn with(text: Option<&str>) -> Setup {
    Setup { authentication: text.map(str::to_owned), ..Setup::default() }
}

#[test]
fn the_right_text_is_let_in_and_made_anew_at_every_hop() {
    let mut net = Net::new(2, &with(Some("secret")));
    net.run(seconds(1));
    net.converse(1, 2, seconds(1));
    assert_eq!(net.route(1, lan(2)), Some(overlay(2)));
    for node in 0..3 {
        assert_eq!(net.rejects(node, Reject::Authentication), 0);
        for (_, _, bytes) in &net.nodes[node].sent {
            let message = wire::nhrp::Message::decode(bytes).unwrap();
            let texts: Vec<_> = message
                .extensions
                .iter()
                .flatten()
                .filter(|e| e.kind() == wire::nhrp::ExtensionType::AUTHENTICATION)
                .map(|e| e.value())
                .collect();
            assert_eq!(texts, [b"\0\0\0\x01secret"]);
        }
    }
}

#[test]
fn wrong_missing_or_longer_texts_are_refused_counted_and_told() {
    for (hub, spoke) in [("secret", Some("wrong!")), ("secret", None), ("secret", Some("secrets"))] {
        let mut net = Net::idle(1, &with(spoke));
        net.nodes[0].tunnel = tunnel(0, &with(Some(hub)));
        net.start(0);
        net.start(1);
        net.run(seconds(1));
        assert_eq!(net.binding(0, overlay(1)), None);
        assert!(net.rejects(0, Reject::Authentication) > 0);
        assert!(net.has_event(0, |e| matches!(e, Event::Rejected { reject: Reject::Authentication, .. })));
        let (_, to, error) = net.messages(0, MessageType::ErrorIndication).pop().unwrap();
        assert_eq!((to, error.hop_count, error.extensions.is_none()), (nbma(1), 255, true));
        assert!(matches!(error.body, Body::Error { code: ErrorCode::AUTHENTICATION_FAILURE, .. }));
        // It is received, and not answered.
        assert!(net.received(1, MessageType::ErrorIndication) > 0);
        assert_eq!(net.messages(1, MessageType::ErrorIndication).len(), 0);
    }
}

#[test]
fn few_error_indications_are_sent_a_second() {
    let mut net = Net::idle(1, &with(Some("wrong")));
    net.nodes[0].tunnel = tunnel(0, &with(Some("secret")));
    net.start(0);
    net.start(1);
    let (_, _, bytes) = net.nodes[1].sent[0].clone();
    for _ in 0..1000 {
        net.give(
            0,
            Input::Packet {
                tunnel: tunnel0(),
                from: nbma(1).into(),
                destination: nbma(0),
                bytes: bytes.clone(),
            },
        );
    }
    assert_eq!(net.rejects(0, Reject::Authentication), 1000);
    assert_eq!(net.messages(0, MessageType::ErrorIndication).len(), 10);
}

#[test]
fn rubbish_is_counted_by_what_is_wrong_with_it() {
    let mut net = Net::new(1, &Setup::default());
    let good = net.nodes[1].sent[0].2.clone();
    let mut give = |bytes: &[u8], tunnel| {
        let input =
            Input::Packet { tunnel, from: nbma(1).into(), destination: nbma(0), bytes: bytes.to_vec() };
        net.give(0, input);
    };
    give(&good[..30], tunnel0());
    give(&[], tunnel0());
    let mut flipped = good.clone();
    flipped[40] ^= 1;
    give(&flipped, tunnel0());
    let mut version = good.clone();
    version[16] = 2;
    give(&version, tunnel0());
    give(&good, name("tunnel9"));
    let count = |reject| net.rejects(0, reject);
    assert_eq!(
        [Reject::Truncated, Reject::Checksum, Reject::Malformed, Reject::NoTunnel].map(count),
        [2, 1, 1, 1]
    );
    assert_eq!(net.messages(0, MessageType::ErrorIndication).len(), 0);
}
