use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::checksum::Sum;

const V4: Families = Families { nbma: Family::V4, protocol: Family::V4 };

fn addr(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn addr_of(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => any::<u32>().prop_map(|a| Ipv4Addr::from(a).into()).boxed(),
        Family::V6 => any::<u128>().prop_map(|a| Ipv6Addr::from(a).into()).boxed(),
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn entry(families: Families) -> impl Strategy<Value = Cie> {
    let addrs = (option::of(addr_of(families.nbma)), option::of(addr_of(families.protocol)));
    (any::<(u8, u8, u16, u16, u8)>(), addrs).prop_map(
        |((code, prefix, mtu, holding_time, preference), addrs)| {
            let (nbma, protocol) = addrs;
            Cie { code: CieCode(code), prefix, mtu, holding_time, preference, nbma, protocol }
        },
    )
}

fn body(families: Families) -> impl Strategy<Value = Body> {
    let kinds = prop::sample::select(vec![
        Kind::ResolutionRequest,
        Kind::ResolutionReply,
        Kind::RegistrationRequest,
        Kind::RegistrationReply,
        Kind::PurgeRequest,
        Kind::PurgeReply,
    ]);
    prop_oneof![
        (kinds, any::<u16>(), any::<u32>(), vec(entry(families), 0..4)).prop_map(
            |(kind, flags, request_id, entries)| Body::Exchange {
                kind,
                flags: Flags(flags),
                request_id,
                entries
            }
        ),
        (any::<u16>(), any::<u16>(), vec(any::<u8>(), 0..200))
            .prop_map(|(code, offset, packet)| { Body::Error { code: ErrorCode(code), offset, packet } }),
        (any::<u16>(), vec(any::<u8>(), 0..200)).prop_map(|(code, packet)| Body::Traffic { code, packet }),
    ]
}

fn extension() -> impl Strategy<Value = Extension> {
    (1..=0x3fff_u16, any::<bool>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, compulsory, value)| {
        Extension::new(ExtensionType::new(kind).unwrap(), compulsory, value)
    })
}

fn message() -> impl Strategy<Value = Message> {
    (family(), family()).prop_flat_map(|(nbma, protocol)| {
        let families = Families { nbma, protocol };
        (
            any::<u8>(),
            option::of(addr_of(nbma)),
            option::of(addr_of(protocol)),
            option::of(addr_of(protocol)),
            body(families),
            option::of(vec(extension(), 0..5)),
        )
            .prop_map(move |(hop_count, source_nbma, source, destination, body, extensions)| {
                Message { families, hop_count, source_nbma, source, destination, body, extensions }
            })
    })
}

/// Writes the right checksum into a packet that was tampered with, so that the parser gets past it.
fn seal(bytes: &mut [u8]) {
    bytes[12..14].fill(0);
    let size = usize::from(u16::from_be_bytes([bytes[10], bytes[11]])).min(bytes.len());
    let sum = checksum(&bytes[..size]);
    bytes[12..14].copy_from_slice(&sum.to_be_bytes());
}

proptest! {
    #[test]
    fn decode_undoes_encode(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn encode_undoes_decode_of_canonical_bytes(message in message(), padding in 0..9_usize) {
        let bytes = message.encode();
        let padded = [&bytes[..], &vec![0xa5; padding]].concat();
        prop_assert_eq!(Message::decode(&padded).unwrap().encode(), bytes);
    }

    /// Whatever a message holds, what is written is well formed.
    #[test]
    fn encode_is_total(message in message(), other in family(), huge in vec(any::<u8>(), 65_000..70_000)) {
        let mut message = message;
        message.families.nbma = other;
        match &mut message.body {
            Body::Exchange { entries, .. } => {
                let entry = entries.first().copied().unwrap_or_default();
                entries.extend(std::iter::repeat_n(entry, 6_000));
            }
            Body::Error { packet, .. } | Body::Traffic { packet, .. } => *packet = huge,
        }
        let bytes = message.encode();
        prop_assert!(Message::decode(&bytes).is_ok());
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes);
    }

    /// Nearly good bytes get further into the parser; what it takes, it can write and read again.
    #[test]
    fn no_tampered_packet_panics(message in message(), at in any::<prop::sample::Index>(), byte: u8, cut in 0..8_usize) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.min(bytes.len() - FIXED));
        seal(&mut bytes);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        // Read as a packet, everything in it is written again, byte by byte.
        if let Ok(packet) = Packet::read(&bytes) {
            prop_assert_eq!(packet.encode(), &bytes[..packet.size]);
        }
    }

    #[test]
    fn a_truncated_packet_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
        let bytes = message.encode();
        prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    /// Whichever bit is wrong, the checksum says so.
    #[test]
    fn a_changed_bit_fails_the_checksum(message in message(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Message::decode(&bytes).is_err());
    }
}

fn exchange(kind: Kind, flags: Flags, entry: Cie, extensions: Vec<Extension>) -> Message {
    Message {
        families: V4,
        hop_count: 255,
        source_nbma: addr("10.0.0.11"),
        source: addr("172.16.0.11"),
        destination: addr("172.16.0.1"),
        body: Body::Exchange { kind, flags, request_id: 1, entries: vec![entry] },
        extensions: Some(extensions),
    }
}

fn authentication(text: &str) -> Extension {
    Extension::new(ExtensionType::AUTHENTICATION, true, [&[0, 0, 0, 1], text.as_bytes()].concat())
}

fn record(kind: ExtensionType) -> Extension {
    let mut record = Extension::empty(kind, kind != ExtensionType::NAT);
    let entry = Cie { nbma: addr("10.0.0.1"), protocol: addr("172.16.0.1"), ..Cie::default() };
    assert!(record.push(&entry, V4));
    record
}

fn sizes(message: &Message) -> (usize, u16) {
    let bytes = message.encode();
    (bytes.len(), u16::from_be_bytes([bytes[14], bytes[15]]))
}

/// The sizes that real routers print (SPECIFICATION: golden sizes).
#[test]
fn sizes_are_those_of_real_routers() {
    let entry = Cie { prefix: 32, mtu: 17916, holding_time: 7200, ..Cie::default() };
    let empty = |kind| Extension::empty(kind, kind != ExtensionType::NAT);
    let three = [
        empty(ExtensionType::RESPONDER),
        empty(ExtensionType::FORWARD_TRANSIT),
        empty(ExtensionType::REVERSE_TRANSIT),
    ];
    let with = |more: &[Extension]| three.iter().chain(more).cloned().collect::<Vec<_>>();

    let flags = Flags::UNIQUE | Flags::NAT;
    let nat = record(ExtensionType::NAT);
    let plain = exchange(Kind::RegistrationRequest, flags, entry, with(std::slice::from_ref(&nat)));
    assert_eq!(sizes(&plain), (92, 52));
    let extensions = with(&[nat, authentication("cisco123")]);
    let mut registration = exchange(Kind::RegistrationRequest, flags, entry, extensions);
    assert_eq!(sizes(&registration), (108, 52));
    *registration.extension_mut(ExtensionType::RESPONDER).unwrap() = record(ExtensionType::RESPONDER);
    assert_eq!(sizes(&registration), (128, 52));

    let extensions = with(&[authentication("cisco123"), empty(ExtensionType::NAT)]);
    let flags = Flags::ROUTER | Flags::AUTHORITATIVE | Flags::SOURCE_STABLE | Flags::NAT;
    let mut request = exchange(Kind::ResolutionRequest, flags, entry, extensions);
    assert_eq!(sizes(&request), (88, 52));
    *request.extension_mut(ExtensionType::FORWARD_TRANSIT).unwrap() = record(ExtensionType::FORWARD_TRANSIT);
    assert_eq!(sizes(&request), (108, 52));

    let indication = Message {
        body: Body::Traffic { code: 0, packet: vec![0x45; 84] },
        extensions: Some(vec![authentication("test123")]),
        hop_count: 1,
        ..plain
    };
    assert_eq!(sizes(&indication), (143, 124));
}

/// FRR 10.3 adds the last byte of an odd length in the wrong half; that is taken, the right sum is sent.
#[test]
fn an_odd_length_is_taken_with_either_checksum() {
    let message = Message {
        extensions: None,
        body: Body::Traffic { code: 0, packet: vec![0x45; 85] },
        ..exchange(Kind::PurgeRequest, Flags::default(), Cie::default(), vec![])
    };
    let mut bytes = message.encode();
    assert_eq!((bytes.len() % 2, checksum(&bytes)), (1, 0));
    bytes[12..14].fill(0);
    let wrong = Sum::new().bytes(&bytes[..bytes.len() - 1]).u16(0x45).checksum();
    bytes[12..14].copy_from_slice(&wrong.to_be_bytes());
    assert_eq!(Message::decode(&bytes), Ok(message));
    bytes[12] ^= 1;
    assert_eq!(Message::decode(&bytes), Err(Malformed::Checksum("NHRP")));
}

#[test]
fn a_refusal_names_its_field() {
    let good = exchange(Kind::PurgeRequest, Flags::default(), Cie::default(), vec![]).encode();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        seal(&mut bytes);
        Message::decode(&bytes).unwrap_err().to_string()
    };
    assert_eq!(with(1, 3), "ar$afn: 3 is not allowed");
    assert_eq!(with(2, 9), "ar$pro.type: 2304 is not allowed");
    assert_eq!(with(11, 200), "ar$pktsz: needs 200 bytes, 56 are there");
    assert_eq!(with(11, 19), "ar$pktsz: says 19 bytes, 56 are there");
    assert_eq!(with(15, 57), "ar$extoff: says 57 bytes, 56 are there");
    assert_eq!(with(16, 0), "ar$op.version: 0 is not allowed");
    assert_eq!(with(17, 9), "ar$op.type: 9 is not allowed");
    assert_eq!(with(18, 5), "Source NBMA Address: 5 is not allowed");
    assert_eq!(with(21, 16), "Destination Protocol Address: 16 is not allowed");
    assert_eq!(with(49, 4), "Cli SAddr T/L: 4 is not allowed");
    assert_eq!(with(55, 1), "Extension Value: needs 1 bytes, 0 are there");
    assert_eq!(Message::decode(&good[..19]).unwrap_err().to_string(), "ar$sstl: needs 1 bytes, 0 are there");
}

/// Reserved bits, and an End that is missing, are no reason to refuse (SNAP: RFC 2332 §5.1 has it ignored).
#[test]
fn what_is_reserved_is_ignored() {
    let message = exchange(Kind::PurgeRequest, Flags::default(), Cie::default(), vec![]);
    let mut bytes = message.encode();
    bytes[4..9].fill(7);
    bytes[42..44].fill(9);
    seal(&mut bytes);
    assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
    bytes.truncate(52);
    bytes[11] = 52;
    seal(&mut bytes);
    assert_eq!(Message::decode(&bytes), Ok(message));
}

#[test]
fn a_host_is_written_in_three_ways() {
    let length = |prefix| Cie { prefix, ..Cie::default() }.length(V4);
    assert_eq!((length(0), length(32), length(255), length(24)), (None, None, None, Some(24)));
}

/// A packet is written as it came, whatever its sender put where zeros belong, and however it ended its extensions.
#[test]
fn what_says_nothing_is_kept_by_a_packet() {
    let nat = Extension::empty(ExtensionType::NAT, false);
    let entry = Cie { nbma: addr("10.0.0.1"), ..Cie::default() };
    let mut message = exchange(Kind::PurgeRequest, Flags::default(), entry, vec![nat]);
    let Body::Exchange { entries, .. } = &mut message.body else { unreachable!() };
    entries.push(Cie::default());
    message.source_nbma = None;
    let canonical = message.encode();
    let read = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let size = u16::try_from(bytes.len()).unwrap();
        bytes[10..12].copy_from_slice(&size.to_be_bytes());
        seal(&mut bytes);
        let packet = Packet::read(&bytes).unwrap();
        assert_eq!((packet.checksum, packet.size), (Checksum::Right, bytes.len()));
        assert_eq!(packet.encode(), bytes);
        packet
    };
    let packet = read(&canonical);
    assert!(packet.reserved.is_zero() && packet.message == message);

    // SNAP; E.164 of no address; unused field and E.164 of the second CIE; the bit beside C of the extension.
    let mut bytes = canonical.clone();
    bytes[4..9].copy_from_slice(&[1, 2, 3, 4, 5]);
    bytes[18] = 0x40;
    let second = 36 + 16;
    bytes[second + 2..second + 4].copy_from_slice(&[6, 7]);
    bytes[second + 8] = 0x40;
    let extensions = second + 12;
    bytes[extensions] |= 0x40;
    let packet = read(&bytes);
    let of_entry = ReservedOfEntry { at: 1, unused: 0x0607, e164: true };
    let reserved = Reserved { snap: [1, 2, 3, 4, 5], source_e164: true, ..Reserved::default() };
    assert_eq!(packet.reserved, Reserved { entries: vec![of_entry], ..reserved });
    assert!(packet.message.extension(ExtensionType::NAT).unwrap().unused());

    // No End; End without its C bit; End with a value; something behind End.
    let before_end = &canonical[..canonical.len() - 4];
    for end in [&[][..], &[0, 0, 0, 0], &[0x80, 0, 0, 1, 9], &[0x80, 0, 0, 0, 1, 2, 3]] {
        let packet = read(&[before_end, end].concat());
        assert_eq!((packet.message, packet.reserved.end.as_deref()), (message.clone(), Some(end)));
    }

    // Indications have nothing where others have flags, and type 8 nothing behind its code.
    message.body = Body::Traffic { code: 0, packet: vec![0x45] };
    let mut bytes = message.encode();
    bytes[22..24].copy_from_slice(&[1, 2]);
    bytes[26..28].copy_from_slice(&[3, 4]);
    let packet = read(&bytes);
    assert_eq!((packet.reserved.flags, packet.reserved.word), (0x0102, 0x0304));
    assert_eq!(packet.message, message);
}

/// What is passed on keeps the bit that nobody uses.
#[test]
fn the_unused_bit_of_an_extension_is_passed_on() {
    let unknown = Extension::new(ExtensionType::new(0x3f).unwrap(), true, vec![1, 2, 3]);
    let message = exchange(Kind::PurgeRequest, Flags::default(), Cie::default(), vec![unknown]);
    let mut bytes = message.encode();
    bytes[52] |= 0x40;
    seal(&mut bytes);
    let mut decoded = Message::decode(&bytes).unwrap();
    assert!(decoded.extensions.as_ref().unwrap()[0].unused());
    decoded.hop_count -= 1;
    bytes[9] -= 1;
    seal(&mut bytes);
    assert_eq!(decoded.encode(), bytes);
}

/// A checksum that is wrong is told apart from one that FRR makes, and does not stop who wants to look.
#[test]
fn a_packet_says_what_its_checksum_is() {
    let body = Body::Traffic { code: 0, packet: vec![0x45; 85] };
    let message = Message {
        extensions: None,
        body,
        ..exchange(Kind::PurgeRequest, Flags::default(), Cie::default(), vec![])
    };
    let mut bytes = message.encode();
    assert_eq!(Packet::read(&bytes).unwrap().checksum, Checksum::Right);
    bytes[12..14].fill(0);
    let wrong = Sum::new().bytes(&bytes[..bytes.len() - 1]).u16(0x45).checksum();
    bytes[12..14].copy_from_slice(&wrong.to_be_bytes());
    let packet = Packet::read(&bytes).unwrap();
    assert_eq!((packet.checksum, packet.sum), (Checksum::OddLength, wrong));
    bytes[12] ^= 1;
    assert_eq!(Packet::read(&bytes).unwrap().checksum, Checksum::Wrong);
}

#[test]
fn names_are_those_of_the_rfc() {
    assert_eq!(MessageType::ALL.map(MessageType::name)[2], "registration-request");
    let set = Flags::ROUTER | Flags::SOURCE_STABLE | Flags::NAT;
    assert_eq!(MessageType::ResolutionRequest.flag_names(set), ["router", "source-stable", "nat"]);
    assert_eq!(MessageType::RegistrationReply.flag_names(set), ["unique", "nat"]);
    assert_eq!(MessageType::PurgeRequest.flag_names(set), ["no-reply"]);
    assert!(MessageType::TrafficIndication.flag_names(set).is_empty());
    assert!(ErrorCode::ALL.iter().all(|c| c.name().is_some()));
    assert_eq!((ErrorCode(3).name(), ErrorCode(2).name()), (Some("loop detected"), None));
    assert_eq!((CieCode(12).name(), CieCode(11).name()), (Some("no binding exists"), None));
}
