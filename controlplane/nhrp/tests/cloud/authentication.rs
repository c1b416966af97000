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

/// So many a second to one peer, and no more than so many to all.
#[test]
fn few_error_indications_are_sent_a_second() {
    let mut net = Net::idle(1, &with(Some("wrong")));
    net.nodes[0].tunnel = tunnel(0, &with(Some("secret")));
    net.start(0);
    net.start(1);
    let (_, _, bytes) = net.nodes[1].sent[0].clone();
    let give = |net: &mut Net, from: usize| {
        let packet = Input::Packet {
            tunnel: tunnel0(),
            from: nbma(from).into(),
            destination: nbma(0),
            bytes: bytes.clone(),
        };
        net.give(0, packet);
    };
    for _ in 0..1000 {
        give(&mut net, 1);
    }
    let told = |net: &Net| net.messages(0, MessageType::ErrorIndication).len();
    assert_eq!((net.rejects(0, Reject::Authentication), told(&net)), (1000, 4));
    for from in 2..1002 {
        give(&mut net, from);
    }
    assert_eq!((net.rejects(0, Reject::Authentication), told(&net)), (2000, 100));
    // A second later all may be told again.
    net.run(seconds(1));
    let before = told(&net);
    give(&mut net, 7);
    assert_eq!(told(&net), before + 1);
}

/// A node whose clouds have no text takes messages that have one, and passes them on without: the tag is of one hop, and whether it is there
/// is a matter of who checks it (RFC 2332 §5.3.4).
#[test]
fn a_text_that_nobody_wants_is_taken_off() {
    let mut net = Net::idle(1, &with(Some("secret")));
    net.nodes[0].tunnel = tunnel(0, &with(None));
    net.start(0);
    net.start(1);
    net.run(seconds(1));
    assert_eq!(net.binding(0, overlay(1)), Some(nbma(1)));
    let (_, _, reply) = net.messages(0, MessageType::RegistrationReply).pop().unwrap();
    assert!(reply.extension(wire::nhrp::ExtensionType::AUTHENTICATION).is_none());
}

/// Nothing of a message is acted upon, and nobody is told anything but that, before its text is right: not of a loop, a missing hop or an
/// extension.
#[test]
fn the_text_is_looked_at_before_all_else() {
    let mut net = Net::new(2, &with(Some("secret")));
    net.run(seconds(1));
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(15));
    let (_, _, request) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
    let passed = net.messages(0, MessageType::ResolutionRequest).len();
    let mut wrong = request.clone();
    wrong.hop_count = 0;
    let unknown = wire::nhrp::ExtensionType::new(0x3f01).unwrap();
    wrong.extensions.as_mut().unwrap().push(wire::nhrp::Extension::empty(unknown, true));
    let text = wrong.extension_mut(wire::nhrp::ExtensionType::AUTHENTICATION).unwrap();
    *text = wire::nhrp::Extension::new(text.kind(), true, b"\0\0\0\x01secreT".to_vec());
    let bytes = wrong.encode();
    // Behind the fixed header, the addresses, one entry and the empty extensions before it.
    let place = bytes.windows(4).position(|w| w == [0x80, 7, 0, 10]).unwrap();
    let packet = Input::Packet { tunnel: tunnel0(), from: nbma(1).into(), destination: nbma(0), bytes };
    net.give(0, packet);
    assert_eq!(net.messages(0, MessageType::ResolutionRequest).len(), passed);
    let errors = net.messages(0, MessageType::ErrorIndication);
    assert_eq!(errors.len(), 1);
    assert!(matches!(errors[0].2.body, Body::Error { code: ErrorCode::AUTHENTICATION_FAILURE, offset, .. }
        if usize::from(offset) == place));
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
    // Whose addresses can be read, is told what is wrong and where.
    let told: Vec<_> =
        net.messages(0, MessageType::ErrorIndication).into_iter().map(|(_, _, m)| m.body).collect();
    let places = told.iter().map(|body| match body {
        Body::Error { code: ErrorCode::PROTOCOL_ERROR, offset, .. } => *offset,
        _ => u16::MAX,
    });
    assert_eq!(places.collect::<Vec<_>>(), [12, 16]);
}
