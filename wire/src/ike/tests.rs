use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

fn header() -> impl Strategy<Value = Header> {
    (any::<(u64, u64, u32)>(), 0..16_u8, any::<u8>(), any::<(bool, bool, bool)>()).prop_map(
        |((initiator_spi, responder_spi, message_id), minor, exchange, flags)| Header {
            initiator_spi,
            responder_spi,
            version: (2, minor),
            exchange: Exchange(exchange),
            is_response: flags.0,
            can_higher: flags.1,
            is_initiator: flags.2,
            message_id,
        },
    )
}

fn attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
    prop_oneof![
        // Short ones, but for the key length, which has its own field.
        (0x8000..=0xffff_u16, any::<[u8; 2]>())
            .prop_filter_map("the key length", |(kind, value)| (kind != 0x800e)
                .then_some((kind, value.to_vec()))),
        (0..0x8000_u16, bytes(20)),
    ]
}

fn transform() -> impl Strategy<Value = Transform> {
    let attributes = vec(attribute(), 0..3);
    (any::<(u8, u16)>(), option::of(any::<u16>()), attributes).prop_map(
        |((kind, id), key_length, attributes)| Transform {
            kind: TransformType(kind),
            id,
            key_length,
            attributes,
        },
    )
}

fn proposal() -> impl Strategy<Value = Proposal> {
    (any::<(u8, u8)>(), bytes(8), vec(transform(), 0..6)).prop_map(|((number, protocol), spi, transforms)| {
        Proposal { number, protocol: Protocol(protocol), spi, transforms }
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let v4 = any::<[u32; 2]>().prop_map(|[a, b]| (Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into()));
    let v6 = any::<[u128; 2]>().prop_map(|[a, b]| (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into()));
    let unknown = any::<u8>().prop_filter("known", |kind| ![7, 8].contains(kind));
    prop_oneof![
        (any::<(u8, (u16, u16))>(), prop_oneof![v4, v6]).prop_map(|((protocol, ports), addresses)| {
            Selector::Addresses { protocol, ports, addresses }
        }),
        (unknown, any::<u8>(), bytes(20)).prop_map(|(kind, protocol, data)| Selector::Unknown {
            kind,
            protocol,
            data
        }),
    ]
}

fn identification() -> impl Strategy<Value = Identification> {
    (any::<u8>(), bytes(40)).prop_map(|(kind, data)| Identification { kind, data })
}

/// A payload as a decoder makes it.
fn payload() -> impl Strategy<Value = Payload> {
    let unknown = prop_oneof![1..33_u8, 47..53_u8, 54..=255_u8];
    prop_oneof![
        vec(proposal(), 0..4).prop_map(Payload::Sa),
        (any::<u16>(), bytes(70)).prop_map(|(method, data)| Payload::KeyExchange { method, data }),
        identification().prop_map(Payload::IdInitiator),
        identification().prop_map(Payload::IdResponder),
        (any::<u8>(), bytes(70)).prop_map(|(encoding, data)| Payload::Certificate { encoding, data }),
        (any::<u8>(), bytes(70)).prop_map(|(encoding, data)| Payload::CertificateRequest { encoding, data }),
        (any::<u8>(), bytes(70)).prop_map(|(method, data)| Payload::Authentication { method, data }),
        vec(any::<u8>(), 16..=256).prop_map(Payload::Nonce),
        (any::<(u8, u16)>(), bytes(8), bytes(40)).prop_map(|((protocol, kind), spi, data)| {
            Payload::Notify { protocol, spi, kind: NotifyType(kind), data }
        }),
        (any::<u8>(), vec(any::<[u8; 4]>().prop_map(|spi| spi.to_vec()), 0..5))
            .prop_map(|(protocol, spis)| Payload::Delete { protocol, spis }),
        bytes(40).prop_map(Payload::Vendor),
        vec(selector(), 0..4).prop_map(Payload::SelectorsInitiator),
        vec(selector(), 0..4).prop_map(Payload::SelectorsResponder),
        (unknown, any::<bool>(), bytes(40)).prop_map(|(kind, is_critical, data)| Payload::Unknown {
            kind: PayloadType(kind),
            is_critical,
            data
        }),
    ]
}

fn payloads() -> impl Strategy<Value = Vec<Payload>> {
    vec(payload(), 0..8)
}

/// A sealed message, its parts put together.
fn sealed(header: Header, first: u8, fragment: Option<(u16, u16)>, body: &[u8]) -> Vec<u8> {
    [&encode_front(header, first, fragment, body.len())[..], body].concat()
}

proptest! {
    #[test]
    fn decode_undoes_encode(header in header(), payloads in payloads()) {
        let bytes = encode(header, &payloads);
        prop_assert_eq!(Message::decode(&bytes), Ok(Message { header, payloads, sealed: None }));
    }

    #[test]
    fn chains_are_read_as_they_are_written(payloads in payloads()) {
        let (first, bytes) = encode_payloads(&payloads);
        prop_assert_eq!(decode_payloads(first, &bytes), Ok(payloads));
    }

    /// What is sealed is delimited without knowing its cipher, and everything before it is what is authenticated beside it.
    #[test]
    fn what_is_sealed_is_found_whatever_its_cipher(
        header in header(),
        first: u8,
        fragment in option::of((1..=9_u16, 9..=20_u16)),
        body in bytes(100),
    ) {
        let bytes = sealed(header, first, fragment, &body);
        let front = encode_front(header, first, fragment, body.len());
        let sealed = Some(Sealed { front: &front, body: &body, first, fragment });
        prop_assert_eq!(Message::decode(&bytes), Ok(Message { header, payloads: vec![], sealed }));
    }

    /// Whatever payloads hold, what is written is well formed.
    #[test]
    fn encode_is_total(header in header(), huge in vec(any::<u8>(), 66_000..70_000), transform in transform(), selector in selector()) {
        let many = Proposal { number: 1, protocol: Protocol::ESP, spi: huge.clone(), transforms: vec![transform.clone(); 300] };
        let wide = Transform { attributes: vec![(3, huge.clone()), (0x8001, vec![])], ..transform };
        let of = |transform: &Transform| Proposal { spi: vec![], transforms: vec![transform.clone()], ..many.clone() };
        let mixed = Selector::Addresses { protocol: 47, ports: (0, 1), addresses: ([10, 0, 0, 1].into(), [1; 16].into()) };
        for payload in [
            Payload::Sa(vec![many.clone(); 100]),
            Payload::Sa(vec![of(&wide); 3]),
            Payload::KeyExchange { method: 31, data: huge.clone() },
            Payload::Vendor(huge.clone()),
            Payload::Notify { protocol: 3, spi: huge.clone(), kind: NotifyType::COOKIE, data: huge.clone() },
            Payload::Delete { protocol: 3, spis: vec![vec![1, 2, 3, 4]; 20_000] },
            Payload::Delete { protocol: 3, spis: vec![vec![], vec![1]] },
            Payload::Delete { protocol: 3, spis: vec![vec![1, 2, 3, 4], vec![1]] },
            Payload::Delete { protocol: 3, spis: vec![huge.clone()] },
            Payload::SelectorsInitiator(vec![selector; 300]),
            Payload::SelectorsResponder(vec![mixed, Selector::Unknown { kind: 9, protocol: 0, data: huge.clone() }]),
        ] {
            let bytes = encode(header, &[payload]);
            let read = Message::decode(&bytes);
            prop_assert!(read.is_ok(), "{:?}", read);
            // What is left of it is written again as it was.
            prop_assert_eq!(encode(header, &read.unwrap().payloads), bytes);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in bytes(200), first: u8) {
        let _ = Message::decode(&bytes);
        let _ = decode_payloads(first, &bytes);
    }

    /// Nearly good bytes get further into the parser; what it takes, it can write and read again.
    #[test]
    fn no_tampered_message_panics(header in header(), payloads in payloads(), at: prop::sample::Index, byte: u8, cut in 0..8_usize) {
        let mut bytes = encode(header, &payloads);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.min(bytes.len() - Header::LEN));
        let length = bytes.len() as u32;
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        if let Ok(message) = Message::decode(&bytes) && message.sealed.is_none() {
            let written = encode(message.header, &message.payloads);
            prop_assert_eq!(Message::decode(&written), Ok(message));
        }
    }
}

fn refused(bytes: &[u8]) -> Malformed {
    Message::decode(bytes).unwrap_err()
}

const HEADER: Header = Header {
    initiator_spi: 0x0102_0304_0506_0708,
    responder_spi: 0,
    version: (2, 0),
    exchange: Exchange::IKE_SA_INIT,
    is_response: false,
    can_higher: false,
    is_initiator: true,
    message_id: 0,
};

/// A message with one payload of these bytes.
fn with(kind: PayloadType, body: &[u8]) -> Vec<u8> {
    encode(HEADER, &[Payload::Unknown { kind, is_critical: false, data: body.to_vec() }])
}

#[test]
fn the_bytes_are_those_of_the_rfc() {
    let transform =
        Transform { kind: TransformType::ENCRYPTION, id: 20, key_length: Some(256), attributes: vec![] };
    let prf = Transform::new(TransformType::PRF, 5);
    let proposal =
        Proposal { number: 1, protocol: Protocol::IKE, spi: vec![], transforms: vec![transform, prf] };
    let nonce = Payload::Nonce(vec![0xaa; 16]);
    let bytes = encode(HEADER, &[Payload::Sa(vec![proposal]), nonce]);
    #[rustfmt::skip]
    let wanted = [
        1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, // SPIs
        33, 0x20, 34, 0x08, 0, 0, 0, 0, 0, 0, 0, 80, // next, version, exchange, flags, message id, length
        40, 0, 0, 32, // SA
        0, 0, 0, 28, 1, 1, 0, 2, // proposal
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0, // encryption, with its key length
        0, 0, 0, 8, 2, 0, 0, 5, // PRF
        0, 0, 0, 20, // nonce
    ];
    assert_eq!(bytes, [&wanted[..], &[0xaa; 16]].concat());
}

/// RFC 7296 §2.5: reserved bits and flag C of a known payload are ignored.
#[test]
fn reserved_bits_are_ignored() {
    let payloads = vec![Payload::Nonce(vec![1; 32]), Payload::Vendor(vec![2])];
    let mut bytes = encode(HEADER, &payloads);
    bytes[19] |= 0xc7;
    bytes[Header::LEN + 1] = 0xff;
    assert_eq!(Message::decode(&bytes).unwrap().payloads, payloads);
}

/// RFC 7296 §2.5: flag C of an unknown payload is told to who refuses the message for it.
#[test]
fn unknown_payloads_are_kept_with_their_critical_flag() {
    for is_critical in [false, true] {
        let unknown = Payload::Unknown { kind: PayloadType(99), is_critical, data: vec![1, 2] };
        let bytes = encode(HEADER, std::slice::from_ref(&unknown));
        assert_eq!(bytes[Header::LEN + 1], if is_critical { 0x80 } else { 0 });
        assert_eq!(Message::decode(&bytes).unwrap().payloads, [unknown]);
    }
}

/// RFC 7296 §2.5: a message of a higher major version is none of ours, but its header can be read to answer it.
#[test]
fn a_higher_major_version_is_refused_and_a_higher_minor_one_is_not() {
    let nonce = [Payload::Nonce(vec![0; 16])];
    let minor = Header { version: (2, 7), ..HEADER };
    assert_eq!(Message::decode(&encode(minor, &nonce)).unwrap().header, minor);
    let major = Header { version: (3, 0), ..HEADER };
    let bytes = encode(major, &nonce);
    assert_eq!(refused(&bytes), Malformed::Value { field: "Major Version", found: 3 });
    assert_eq!(Header::decode(&bytes), Ok((major, PayloadType::NONCE, bytes.len() as u32)));
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    let good = encode(HEADER, &[Payload::Nonce(vec![0; 16]), Payload::Vendor(vec![7; 3])]);
    for len in 0..good.len() {
        assert!(Message::decode(&good[..len]).is_err(), "cut to {len} bytes");
    }
    // What stands behind the message is no part of it, and neither is it anything else.
    let longer = [&good[..], &[0]].concat();
    assert_eq!(refused(&longer), Malformed::Length { field: "Length", says: good.len(), have: longer.len() });
    for (at, byte) in [(Header::LEN + 3, 3), (Header::LEN + 3, 200), (27, 0), (24, 1)] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        assert!(Message::decode(&bytes).is_err(), "byte {at}: {byte}");
    }
    // The chain ends, the message does not.
    let mut bytes = good;
    bytes[Header::LEN] = 0;
    assert_eq!(refused(&bytes), Malformed::Length { field: "Length", says: 0, have: 7 });
}

/// RFC 7296 §3.9.
#[test]
fn nonces_have_16_to_256_bytes() {
    for (len, is_good) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
        let bytes = with(PayloadType::NONCE, &vec![1; len]);
        assert_eq!(Message::decode(&bytes).is_ok(), is_good, "{len}");
    }
}

#[test]
fn bodies_that_are_not_what_they_say_are_refused() {
    for (kind, body) in [
        // Proposals: marks and counts that are wrong, a transform without its end, an attribute beyond it.
        (PayloadType::SA, &[0, 0, 0, 8, 1, 1, 0, 1][..]),
        (PayloadType::SA, &[2, 0, 0, 8, 1, 1, 0, 0]),
        (PayloadType::SA, &[0, 0, 0, 8, 1, 1, 0, 0, 0, 0, 0, 8, 1, 1, 0, 0]),
        (PayloadType::SA, &[1, 0, 0, 8, 1, 1, 0, 0]),
        (PayloadType::SA, &[0, 0, 0, 7, 1, 1, 0, 0]),
        (PayloadType::SA, &[0, 0, 0, 9, 1, 1, 0, 0, 0]),
        (PayloadType::SA, &[0, 0, 0, 8, 1, 3, 4, 0]),
        (PayloadType::SA, &[0, 0, 0, 16, 1, 1, 0, 1, 3, 0, 0, 8, 1, 0, 0, 1]),
        (PayloadType::SA, &[0, 0, 0, 15, 1, 1, 0, 1, 0, 0, 0, 7, 1, 0, 0]),
        (PayloadType::SA, &[0, 0, 0, 20, 1, 1, 0, 1, 0, 0, 0, 12, 1, 0, 0, 1, 0, 14, 0, 1]),
        (PayloadType::KE, &[0, 31, 0]),
        (PayloadType::IDI, &[1, 0, 0]),
        (PayloadType::CERT, &[]),
        (PayloadType::AUTH, &[2]),
        (PayloadType::NOTIFY, &[3, 4, 0, 11, 1, 2, 3]),
        // SPIs of no size, fewer and more than are said.
        (PayloadType::DELETE, &[3, 0, 0xff, 0xff]),
        (PayloadType::DELETE, &[3, 4, 0, 2, 1, 2, 3, 4]),
        (PayloadType::DELETE, &[3, 4, 0, 1, 1, 2, 3, 4, 5]),
        (PayloadType::TSI, &[1, 0, 0, 0]),
        (PayloadType::TSI, &[0, 0, 0, 0, 9, 0, 0, 4]),
        (PayloadType::TSR, &[1, 0, 0, 0, 7, 47, 0, 15, 0, 0, 0, 1, 1, 2, 3, 4, 1, 2, 3]),
        (PayloadType::TSR, &[1, 0, 0, 0, 7, 47, 0, 17, 0, 0, 0, 1, 1, 2, 3, 4, 1, 2, 3, 4, 5]),
    ] {
        assert!(Message::decode(&with(kind, body)).is_err(), "{kind:?} {body:?}");
    }
}

/// RFC 7296 §3.14, RFC 7383 §2.5.
#[test]
fn what_is_sealed_stands_last_and_is_sealed_once() {
    let good = sealed(HEADER, 41, None, &[1; 40]);
    assert!(Message::decode(&good).is_ok());
    let mut bytes = [&good[..], &[0, 0, 0, 4]].concat();
    bytes[27] += 4;
    assert!(Message::decode(&bytes).is_err());
    for (kind, first) in [(PayloadType::SK, 46), (PayloadType::SKF, 53)] {
        assert_eq!(
            decode_payloads(first, &[0, 0, 0, 8, 0, 1, 0, 1]),
            Err(Malformed::Value { field: "Next Payload", found: kind.0.into() })
        );
    }
    for (fragment, is_good) in [((1, 1), true), ((2, 2), true), ((0, 1), false), ((2, 1), false)] {
        let bytes = sealed(HEADER, 41, Some(fragment), &[1; 40]);
        assert_eq!(Message::decode(&bytes).is_ok(), is_good, "{fragment:?}");
    }
}

#[test]
fn payloads_beyond_all_measure_are_refused() {
    let chain = vec![Payload::Vendor(vec![]); MOST_PAYLOADS];
    assert!(Message::decode(&encode(HEADER, &chain)).is_ok());
    let chain = vec![Payload::Vendor(vec![]); MOST_PAYLOADS + 1];
    assert_eq!(
        refused(&encode(HEADER, &chain)),
        Malformed::Value { field: "number of payloads", found: MOST_PAYLOADS as u64 + 1 }
    );
}
