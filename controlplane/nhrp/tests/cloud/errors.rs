//! Error indications: each code where it belongs, and what is done upon one.

use model::program::Key;
use nhrp::{Event, Input, Reject};
use wire::nhrp::{Body, ErrorCode, Extension, ExtensionType, Kind, Message, MessageType};

use crate::net::*;

fn ready(spokes: usize) -> Net {
    let mut net = Net::new(spokes, &Setup::default());
    net.run(seconds(1));
    net
}

/// A resolution request of node 1 for a host behind node 2, as it sends it.
fn request(net: &mut Net) -> Message {
    net.packet(1, host(1, 9), host(2, 9));
    net.run(millis(15));
    net.messages(1, MessageType::ResolutionRequest).pop().unwrap().2
}

fn give_bytes(net: &mut Net, node: usize, from: usize, bytes: &[u8]) {
    let packet = Input::Packet {
        tunnel: tunnel0(),
        from: nbma(from).into(),
        destination: nbma(node),
        bytes: bytes.to_vec(),
    };
    net.give(node, packet);
}

/// The last error indication of a node: to whom, and what.
fn last(net: &Net, node: usize) -> Option<(model::NbmaAddr, Message)> {
    net.messages(node, MessageType::ErrorIndication).pop().map(|(_, to, m)| (to, m))
}

/// Code, offset and copy of it.
fn said(message: &Message) -> (ErrorCode, usize, Vec<u8>) {
    match &message.body {
        Body::Error { code, offset, packet } => (*code, usize::from(*offset), packet.clone()),
        other => panic!("{other:?}"),
    }
}

fn counted(net: &Net, node: usize, code: ErrorCode) -> (u64, u64) {
    let traffic = net.nodes[node].engine.traffic();
    traffic.errors.iter().find(|e| e.code == code.0).map_or((0, 0), |e| (e.sent, e.received))
}

/// What one looks like: from the station that saw it to the one whose packet it was, the packet's beginning in it, no extensions, and as
/// many hops as a request.
#[test]
fn an_indication_names_both_stations_and_holds_the_packet() {
    let mut net = ready(2);
    let mut request = request(&mut net);
    request.hop_count = 0;
    net.hear(0, 1, &request);
    let (to, error) = last(&net, 0).unwrap();
    assert_eq!((to, error.hop_count, error.extensions.as_ref()), (nbma(1), 255, None));
    assert_eq!(
        (error.source_nbma, error.source, error.destination),
        (Some(nbma(0).0), Some(overlay(0).0), Some(overlay(1).0))
    );
    let bytes = request.encode();
    let (code, offset, packet) = said(&error);
    assert_eq!((code, offset), (ErrorCode::HOP_COUNT_EXCEEDED, 9));
    assert!(bytes.starts_with(&packet) && packet.len() + 1 >= bytes.len());
    assert_eq!(counted(&net, 0, ErrorCode::HOP_COUNT_EXCEEDED), (1, 0));
    net.run(millis(20));
    assert_eq!(counted(&net, 1, ErrorCode::HOP_COUNT_EXCEEDED), (0, 1));
}

/// Code 7: version, type, family, lengths and checksum; the place is that of the field.
#[test]
fn what_cannot_be_read_is_a_protocol_error() {
    let mut net = ready(2);
    let good = request(&mut net).encode();
    for (at, value, place) in [
        (16, 2, 16),
        (17, 9, 17),
        (17, 200, 17),
        (11, 0xff, 10),
        (15, 0xff, 14),
        (13, good[13] ^ 1, 12),
        (22 + 30, 77, 12),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        net.run(seconds(1));
        let before = net.messages(0, MessageType::ErrorIndication).len();
        give_bytes(&mut net, 0, 1, &bytes);
        let errors = net.messages(0, MessageType::ErrorIndication);
        assert_eq!(errors.len(), before + 1, "octet {at}");
        let (code, offset, packet) = said(&errors[before].2);
        assert_eq!((code, offset), (ErrorCode::PROTOCOL_ERROR, place), "octet {at}");
        assert!(bytes.starts_with(&packet));
    }
    // Nobody can be told whose addresses cannot be read.
    net.run(seconds(1));
    let before = net.messages(0, MessageType::ErrorIndication).len();
    for (at, value) in [(1, 9), (3, 9), (18, 7), (20, 9)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        give_bytes(&mut net, 0, 1, &bytes);
    }
    give_bytes(&mut net, 0, 1, &good[..30]);
    assert_eq!(net.messages(0, MessageType::ErrorIndication).len(), before);
}

/// Never about an error indication, whatever is wrong with it; never to ourselves; never to a group.
#[test]
fn some_are_never_told() {
    let mut net = ready(2);
    let request = request(&mut net);
    let mut wrong = request.clone();
    wrong.hop_count = 0;
    net.hear(0, 1, &wrong);
    let (_, error) = last(&net, 0).unwrap();
    net.run(seconds(1));
    let before = net.nodes[0].sent.len();
    // For somebody unknown, without a hop, with a wrong checksum, and from ourselves.
    let mut nowhere = error.clone();
    nowhere.source = Some(overlay(77).0);
    nowhere.destination = Some("203.0.113.9".parse().unwrap());
    net.hear(0, 1, &nowhere);
    nowhere.destination = Some(overlay(2).0);
    nowhere.hop_count = 0;
    net.hear(0, 1, &nowhere);
    let mut bytes = error.encode();
    bytes[13] ^= 1;
    give_bytes(&mut net, 0, 1, &bytes);
    net.hear(0, 1, &error);
    // Requests that say they are from us, or from a group.
    for source in [overlay(0), "224.0.0.5".parse().unwrap(), "255.255.255.255".parse().unwrap()] {
        let mut request = wrong.clone();
        request.source = Some(source.0);
        net.hear(0, 1, &request);
    }
    assert_eq!(net.nodes[0].sent.len(), before);
    assert!(net.rejects(0, Reject::Loop) >= 2, "our own, back again");
}

/// Code 1: only who is to answer says so, and says which extension it is.
#[test]
fn an_unknown_compulsory_extension_is_told_by_who_is_to_answer() {
    let mut net = ready(2);
    let mut request = request(&mut net);
    let unknown = Extension::new(ExtensionType::new(0x3f01).unwrap(), true, vec![1, 2, 3]);
    request.extensions.as_mut().unwrap().insert(2, unknown);
    net.hear(0, 1, &request);
    assert_eq!(last(&net, 0), None, "in transit it is passed on");
    let (_, _, passed) = net.messages(0, MessageType::ResolutionRequest).pop().unwrap();
    net.hear(2, 0, &passed);
    let (to, error) = last(&net, 2).unwrap();
    let (code, offset, _) = said(&error);
    let place = passed.encode().windows(2).position(|w| w == [0xbf, 0x01]).unwrap();
    assert_eq!((to, code, offset), (nbma(0), ErrorCode::UNRECOGNIZED_EXTENSION, place));
    // Of a registration, the server.
    let (_, _, mut message) = net.messages(1, MessageType::RegistrationRequest).pop().unwrap();
    let unknown = Extension::empty(ExtensionType::new(0x3f01).unwrap(), true);
    message.extensions.as_mut().unwrap().push(unknown);
    let replies = net.messages(0, MessageType::RegistrationReply).len();
    net.hear(0, 1, &message);
    assert_eq!(said(&last(&net, 0).unwrap().1).0, ErrorCode::UNRECOGNIZED_EXTENSION);
    assert_eq!(net.messages(0, MessageType::RegistrationReply).len(), replies);
}

/// Code 9: an extension that stands there twice, or cannot be read. Vendors may have several, and what need not be understood is let be.
#[test]
fn an_extension_that_is_not_as_it_must_be_is_told() {
    let mut net = ready(2);
    let request = request(&mut net);
    let mut try_with = |extensions: Vec<Extension>, node: usize| {
        net.run(seconds(1));
        let mut message = request.clone();
        message.extensions = Some(extensions);
        let before = net.messages(node, MessageType::ErrorIndication).len();
        net.hear(node, 1, &message);
        let errors = net.messages(node, MessageType::ErrorIndication);
        let first = usize::from(u16::from_be_bytes(message.encode()[14..16].try_into().unwrap()));
        errors.get(before).map(|(_, _, m)| (said(m).0, said(m).1 - first))
    };
    let empty = |kind| Extension::empty(kind, true);
    let twice = || vec![empty(ExtensionType::RESPONDER), empty(ExtensionType::RESPONDER)];
    let broken = |kind| vec![empty(ExtensionType::RESPONDER), Extension::new(kind, true, vec![0; 7])];
    let invalid = Some((ErrorCode::INVALID_EXTENSION, 4));
    for node in [0, 2] {
        assert_eq!(try_with(twice(), node), invalid, "on the way, and who is to answer");
        assert_eq!(try_with(broken(ExtensionType::FORWARD_TRANSIT), node), invalid);
        assert_eq!(try_with(broken(ExtensionType::NAT), node), invalid);
        // RFC 2735 has something else by that number.
        let other = Extension::new(ExtensionType::NAT, false, vec![0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(try_with(vec![other], node), None);
        let vendor = Extension::new(ExtensionType::VENDOR, false, vec![0, 0, 12]);
        assert_eq!(try_with(vec![vendor.clone(), vendor], node), None);
    }
}

/// Code 8: what would be larger than the way on takes.
#[test]
fn what_is_larger_than_the_way_is_told() {
    let mut net = ready(2);
    let mut request = request(&mut net);
    let pad = |length| Extension::new(ExtensionType::VENDOR, false, vec![0; length]);
    request.extensions.as_mut().unwrap().push(pad(0));
    let rest = request.encode().len();
    // Just as it came it would fit, but not with our record.
    *request.extensions.as_mut().unwrap().last_mut().unwrap() = pad(1400 - rest);
    assert_eq!(request.encode().len(), 1400);
    let before = net.messages(0, MessageType::ResolutionRequest).len();
    net.hear(0, 1, &request);
    assert_eq!(said(&last(&net, 0).unwrap().1).0, ErrorCode::SDU_SIZE_EXCEEDED);
    *request.extensions.as_mut().unwrap().last_mut().unwrap() = pad(1400 - rest - 20);
    net.hear(0, 1, &request);
    let passed = net.messages(0, MessageType::ResolutionRequest);
    assert_eq!((passed.len(), passed[before].2.encode().len()), (before + 1, 1400));
    // Who would answer, but cannot, says so.
    net.hear(2, 0, &passed[before].2);
    assert_eq!(said(&last(&net, 2).unwrap().1).0, ErrorCode::SDU_SIZE_EXCEEDED);
    assert_eq!(net.rejects(2, Reject::TooLong), 1);
    for node in 0..3 {
        assert!(net.nodes[node].sent.iter().all(|(_, _, bytes)| bytes.len() <= 1400));
    }
}

/// Code 6: a message for whom there is no way. Of a resolution that is a reply, with code 12.
#[test]
fn no_way_to_whom_it_is_for() {
    let mut net = ready(2);
    let (_, _, mut registration) = net.messages(1, MessageType::RegistrationRequest).pop().unwrap();
    registration.destination = Some("203.0.113.9".parse().unwrap());
    net.hear(0, 1, &registration);
    assert_eq!(said(&last(&net, 0).unwrap().1).0, ErrorCode::PROTOCOL_ADDRESS_UNREACHABLE);
    assert_eq!(net.rejects(0, Reject::Unreachable), 1);
    // A reply nobody is there for: who answered is told.
    let asked = request(&mut net);
    net.hear(2, 0, &asked);
    let (_, _, mut reply) = net.messages(2, MessageType::ResolutionReply).pop().unwrap();
    reply.source = Some("203.0.113.9".parse().unwrap());
    net.run(seconds(1));
    net.hear(0, 2, &reply);
    let (to, error) = last(&net, 0).unwrap();
    assert_eq!((to, error.destination), (nbma(2), Some(overlay(2).0)));
}

/// A way that leads back to where a message came from is a loop: code 3.
#[test]
fn nothing_goes_back_to_where_it_came_from() {
    let mut net = ready(2);
    let (_, _, mut registration) = net.messages(1, MessageType::RegistrationRequest).pop().unwrap();
    registration.destination = Some(host(1, 9).0);
    registration.source = Some(overlay(77).0);
    let before = net.nodes[0].sent.len();
    net.hear(0, 1, &registration);
    assert_eq!(said(&last(&net, 0).unwrap().1).0, ErrorCode::LOOP_DETECTED);
    assert_eq!((net.nodes[0].sent.len(), net.rejects(0, Reject::Loop)), (before + 1, 1));
}

/// An error that the same request would meet again ends it early; traffic stays on the hub, and is asked for after a rest.
#[test]
fn an_error_about_our_request_ends_it() {
    for (code, ends) in [
        (ErrorCode::PROTOCOL_ADDRESS_UNREACHABLE, true),
        (ErrorCode::HOP_COUNT_EXCEEDED, true),
        (ErrorCode::LOOP_DETECTED, true),
        (ErrorCode::AUTHENTICATION_FAILURE, true),
        (ErrorCode::SDU_SIZE_EXCEEDED, true),
        (ErrorCode::PROTOCOL_ERROR, false),
        (ErrorCode(99), false),
    ] {
        let mut net = ready(2);
        net.nodes[2].alive = false;
        net.packet(1, host(1, 9), host(2, 9));
        net.run(millis(15));
        let (_, _, request) = net.messages(1, MessageType::ResolutionRequest).pop().unwrap();
        let error = |bytes: &[u8], id: Option<u32>| {
            let mut about = bytes.to_vec();
            if let Some(id) = id {
                about[24..28].copy_from_slice(&id.to_be_bytes());
            }
            Message {
                hop_count: 0,
                source: Some(overlay(0).0),
                source_nbma: Some(nbma(0).0),
                destination: Some(overlay(1).0),
                body: Body::Error { code, offset: 0, packet: about },
                extensions: None,
                ..request.clone()
            }
        };
        let bytes = request.encode();
        let is_resting = |net: &Net| net.has_event(1, |e| matches!(e, Event::Unresolved { .. }));
        net.hear(1, 0, &error(&bytes, Some(4711)));
        assert!(!is_resting(&net), "about another request");
        // Of the packet there may be no more than header and addresses.
        net.hear(1, 0, &error(&bytes[..40], None));
        assert_eq!(is_resting(&net), ends, "{code:?}");
        net.run(seconds(10));
        let requests = net.messages(1, MessageType::ResolutionRequest).len();
        assert_eq!(requests == 1, ends, "{code:?}: {requests}");
        assert!(net.has(1, Key::Fallback(tunnel0())));
    }
}

/// An error about our registration is shown as the reason; registering goes on.
#[test]
fn an_error_about_our_registration_is_the_reason_that_is_shown() {
    let mut net = Net::idle(1, &Setup { authentication: Some("wrong".into()), ..Setup::default() });
    net.nodes[0].tunnel = tunnel(0, &Setup { authentication: Some("secret".into()), ..Setup::default() });
    net.start(0);
    net.start(1);
    net.run(millis(50));
    let shown = |net: &Net| net.nodes[1].engine.servers(net.now)[0].refusal.clone();
    assert_eq!(shown(&net).as_deref(), Some("authentication failure"));
    net.run(seconds(10));
    assert!(net.messages(1, MessageType::RegistrationRequest).len() >= 3, "it is asked on");
    net.nodes[0].tunnel = tunnel(0, &Setup { authentication: Some("wrong".into()), ..Setup::default() });
    net.start(0);
    net.run(seconds(20));
    assert_eq!((shown(&net), net.binding(0, overlay(1))), (None, Some(nbma(1))));
}

/// Two nodes that find everything wrong with each other fall silent.
#[test]
fn two_that_do_not_understand_each_other_fall_silent() {
    let with = |text: &str| Setup { authentication: Some(text.to_owned()), ..Setup::default() };
    let mut net = Net::idle(1, &with("one"));
    net.nodes[0].tunnel = tunnel(0, &with("other"));
    net.start(0);
    net.start(1);
    net.run(seconds(20));
    let requests = net.messages(1, MessageType::RegistrationRequest).len();
    let errors = net.messages(0, MessageType::ErrorIndication).len();
    assert!(errors <= requests && requests < 8);
    assert_eq!(net.messages(1, MessageType::ErrorIndication).len(), 0);
    assert!(matches!(
        net.messages(1, MessageType::RegistrationRequest)[0].2.body,
        Body::Exchange { kind: Kind::RegistrationRequest, .. }
    ));
}
