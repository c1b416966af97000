//! ESP (RFC 4303) as AES-GCM fills it (RFC 4106), and ESP in UDP (RFC 3948).
//!
//! What is here are bytes: header, trailer, and what a datagram of port 4500 is. Keys are another's.

use zerocopy::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, view};

/// Length in bytes of SPI, sequence number and IV.
pub const LEN: usize = size_of::<Header>();
/// Length of the integrity check value in bytes (RFC 4106 §6: AES-GCM with a 16-octet ICV).
pub const ICV: usize = 16;
/// Length in bytes of the trailer behind the padding: pad length and next header.
pub const TRAILER: usize = 2;
/// What the encrypted text is a multiple of, in bytes (RFC 4303 §2.4: the next header field ends on a 4-byte boundary).
pub const ALIGNMENT: usize = 4;
/// Next header: a dummy packet, to be discarded without notice (RFC 4303 §2.6).
pub const NO_NEXT_HEADER: u8 = 59;
/// Next header: an IPv4 packet, in tunnel mode.
pub const IPV4: u8 = 4;
/// The same, an IPv6 packet.
pub const IPV6: u8 = 41;
/// What stands in front of IKE on port 4500, where an SPI would be, that is never zero (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The payload of a NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// What a packet begins with. The IV is the explicit part of the nonce (RFC 4106 §3.1).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// |               Security Parameters Index (SPI)                 | ^
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ | authenticated, with the
/// |                      Sequence Number                          | v high half of ESN between
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// |                     Initialization Vector                     |
/// |                            (8 octets)                         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// ~                     Payload Data (variable)                   ~ ^
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ | encrypted,
/// |               |     Padding (0-255 bytes)                     | | authenticated
/// +-+-+-+-+-+-+-+-+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ |
/// |                               |  Pad Length   | Next Header   | v
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+ ----
/// ~                Integrity Check Value (16 octets)              ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    spi: U32,
    sequence: U32,
    iv: U64,
}

impl Header {
    /// A header. Of the sequence number the low half is sent (RFC 4303 §2.2.1).
    #[inline(always)]
    #[must_use]
    pub const fn new(spi: u32, sequence: u64, iv: u64) -> Self {
        let low = sequence as u32;
        Self { spi: U32::new(spi), sequence: U32::new(low), iv: U64::new(iv) }
    }

    /// Which SA. 1 to 255 are reserved, 0 is never sent (RFC 4303 §2.1).
    #[inline(always)]
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi.get()
    }

    /// Sequence number, of an extended one the low half.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// The initialization vector, as a number. A sender may count it apart from the sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn iv(&self) -> u64 {
        self.iv.get()
    }
}

/// Header of a packet, and what is behind it: encrypted text and integrity check value.
///
/// # Errors
/// [`Malformed`] if there is no room for a trailer and an integrity check value behind it.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, rest) = view::split::<Header>(bytes, "esp header")?;
    room(rest.len())?;
    Ok((header, rest))
}

/// As [`parse`], writable.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    let (header, rest) = view::split_mut::<Header>(bytes, "esp header")?;
    room(rest.len())?;
    Ok((header, rest))
}

#[inline(always)]
const fn room(have: usize) -> Result<(), Malformed> {
    const NEEDED: usize = TRAILER + ICV;
    if have < NEEDED {
        return Err(Malformed::Truncated { field: "esp trailer and icv", needed: NEEDED, have });
    }
    Ok(())
}

/// Bytes of padding behind a payload, 0 to 3: the fewest that align the text.
#[inline(always)]
#[must_use]
pub const fn padding(payload: usize) -> usize {
    (payload + TRAILER).wrapping_neg() % ALIGNMENT
}

/// Length in bytes of the text that is encrypted: payload, padding, pad length and next header.
#[inline(always)]
#[must_use]
pub const fn text_len(payload: usize) -> usize {
    payload + padding(payload) + TRAILER
}

/// Length in bytes of the whole packet, from SPI to integrity check value.
#[inline(always)]
#[must_use]
pub const fn packet_len(payload: usize) -> usize {
    LEN + text_len(payload) + ICV
}

/// Padding and pad length as eight bytes have them, by the padding's length.
const PADDED: [u64; ALIGNMENT] = [0, 0x01_01, 0x02_02_01, 0x03_03_02_01];

/// Writes padding, pad length and next header behind the first `payload` bytes of `text`: the length of what is then to
/// be encrypted, [`text_len`]; `None` without the room. Of what is behind it up to six bytes may be overwritten: the ICV's room is there.
#[inline(always)]
#[must_use]
pub fn write_trailer(text: &mut [u8], payload: usize, next_header: u8) -> Option<usize> {
    let pad = padding(payload);
    let end = text_len(payload);
    if let Some(place) = text.get_mut(payload..)?.first_chunk_mut() {
        // In one word, if there is room for that.
        let next = u64::from(next_header) << (8 * pad + 8);
        *place = (PADDED[pad % ALIGNMENT] | next).to_le_bytes();
        return Some(end);
    }
    let trailer = text.get_mut(payload..end)?;
    // RFC 4303 §2.4: the padding is 1, 2, 3, …
    for (byte, count) in trailer.iter_mut().zip(1..=u8::MAX) {
        *byte = count;
    }
    let [.., pad_length, next] = trailer else { return None };
    (*pad_length, *next) = (pad as u8, next_header);
    Some(end)
}

/// What a decrypted text ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Length of the payload in bytes, without padding. A payload that knows its length may have more padding behind it
    /// (RFC 4303 §2.7).
    pub payload: usize,
    /// What the payload is: a protocol number of IP.
    pub next_header: u8,
}

/// The trailer of a decrypted text, that is without the integrity check value.
///
/// # Errors
/// [`Malformed`] if there is less text than it says, or the padding is not 1, 2, 3, … (RFC 4303 §2.4: a receiver looks).
#[inline(always)]
pub fn trailer(text: &[u8]) -> Result<Trailer, Malformed> {
    let &[.., pad_length, next_header] = text else {
        return Err(Malformed::Truncated { field: "esp trailer", needed: TRAILER, have: text.len() });
    };
    let end = text.len() - TRAILER;
    let says = usize::from(pad_length);
    let Some(payload) = end.checked_sub(says) else {
        return Err(Malformed::Length { field: "esp pad length", says, have: end });
    };
    for (byte, count) in text[payload..end].iter().zip(1..=u8::MAX) {
        if *byte != count {
            return Err(Malformed::Value { field: "esp padding", found: (*byte).into() });
        }
    }
    Ok(Trailer { payload, next_header })
}

/// What a datagram from or to port 4500 carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUdp<'a> {
    /// An ESP packet, from its SPI on (RFC 3948 §2.1).
    Esp(&'a [u8]),
    /// An IKE message, without the marker in front of it (§2.2).
    Ike(&'a [u8]),
    /// It kept a mapping of a NAT alive, and is to be ignored (§2.3).
    Keepalive,
    /// Too short for an SPI or a marker.
    Neither,
}

/// Tells them apart by the payload of the datagram.
#[inline(always)]
#[must_use]
pub fn in_udp(payload: &[u8]) -> InUdp<'_> {
    match payload {
        [0, 0, 0, 0, ike @ ..] => InUdp::Ike(ike),
        [_, _, _, _, ..] => InUdp::Esp(payload),
        [0xff] => InUdp::Keepalive,
        _ => InUdp::Neither,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let header = Header::new(0x0102_0304, 0x0000_0007_0506_0708, 0x090a_0b0c_0d0e_0f10);
        let bytes: Vec<u8> = (1..=34).collect();
        assert_eq!(header.as_bytes(), &bytes[..16]);
        let (parsed, rest) = parse(&bytes).unwrap();
        assert_eq!((parsed.spi(), parsed.sequence(), parsed.iv()), (0x0102_0304, 0x0506_0708, header.iv()));
        assert_eq!(rest, &bytes[16..]);
        let mut copy = bytes.clone();
        let (writable, rest) = parse_mut(&mut copy).unwrap();
        *writable = Header::new(1, 2, 3);
        rest.fill(0xee);
        assert_eq!(copy[..16], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(copy[16..], [0xee; 18]);
    }

    #[test]
    fn what_has_no_room_for_trailer_and_icv_is_refused() {
        assert_eq!(parse(&[1; 15]), Err(Malformed::Truncated { field: "esp header", needed: 16, have: 15 }));
        let short = Malformed::Truncated { field: "esp trailer and icv", needed: 18, have: 17 };
        assert_eq!(parse(&[1; 33]), Err(short));
        assert_eq!(parse_mut(&mut [1; 33]), Err(short));
        assert!(parse(&[1; 34]).is_ok());
    }

    #[test]
    fn padding_aligns_the_text_and_counts() {
        let lengths = [(0, 2, 4), (1, 1, 4), (2, 0, 4), (3, 3, 8), (4, 2, 8), (88, 2, 92), (101, 1, 104)];
        for (payload, pad, text) in lengths {
            assert_eq!((padding(payload), text_len(payload)), (pad, text), "{payload}");
            assert_eq!(packet_len(payload), 16 + text + 16);
        }
        let mut text = [0xee; 9];
        assert_eq!(write_trailer(&mut text, 3, 47), Some(8));
        assert_eq!(text, [0xee, 0xee, 0xee, 1, 2, 3, 3, 47, 0xee]);
        assert_eq!(trailer(&text[..8]), Ok(Trailer { payload: 3, next_header: 47 }));
        assert_eq!(write_trailer(&mut text[..7], 3, 47), None);
        assert_eq!(write_trailer(&mut text[..3], 4, 47), None);
    }

    #[test]
    fn a_wrong_trailer_is_refused() {
        assert_eq!(trailer(&[4]), Err(Malformed::Truncated { field: "esp trailer", needed: 2, have: 1 }));
        let long = Malformed::Length { field: "esp pad length", says: 3, have: 2 };
        assert_eq!(trailer(&[1, 2, 3, 4]), Err(long));
        assert_eq!(trailer(&[1, 2, 2, 4]), Ok(Trailer { payload: 0, next_header: 4 }));
        for padding in [[0, 0], [1, 1], [2, 1]] {
            let [a, b] = padding;
            let found = if a == 1 { b } else { a };
            let wrong = Malformed::Value { field: "esp padding", found: found.into() };
            assert_eq!(trailer(&[9, a, b, 2, 4]), Err(wrong));
        }
        // The longest padding that there is.
        let mut text: Vec<u8> = (0..=255).collect();
        text.extend([255, NO_NEXT_HEADER]);
        assert_eq!(trailer(&text), Ok(Trailer { payload: 1, next_header: NO_NEXT_HEADER }));
    }

    #[test]
    fn datagrams_are_told_apart_by_their_first_bytes() {
        assert_eq!(in_udp(&[0, 0, 1, 0, 5]), InUdp::Esp(&[0, 0, 1, 0, 5]));
        assert_eq!(in_udp(&[&NON_ESP_MARKER[..], &[7, 8]].concat()), InUdp::Ike(&[7, 8]));
        assert_eq!(in_udp(&NON_ESP_MARKER), InUdp::Ike(&[]));
        assert_eq!(in_udp(&KEEPALIVE), InUdp::Keepalive);
        // As long as an SPI it is one.
        assert_eq!(in_udp(&[0xff; 4]), InUdp::Esp(&[0xff; 4]));
        for neither in [&[][..], &[0], &[0xfe], &[0xff, 0xff], &[0, 0, 0]] {
            assert_eq!(in_udp(neither), InUdp::Neither, "{neither:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A payload comes out of its text as it went in.
        #[test]
        fn trailers_come_back(payload in prop::collection::vec(any::<u8>(), 0..300), next_header: u8) {
            let mut text = payload.clone();
            text.resize(payload.len() + 12, 0xee);
            let end = write_trailer(&mut text, payload.len(), next_header).unwrap();
            prop_assert_eq!(end % ALIGNMENT, 0);
            prop_assert!(end - payload.len() < TRAILER + ALIGNMENT);
            prop_assert_eq!(trailer(&text[..end]), Ok(Trailer { payload: payload.len(), next_header }));
            prop_assert_eq!(&text[..payload.len()], &payload[..]);
            prop_assert!(text[payload.len() + 8..].iter().all(|byte| *byte == 0xee));
            text[payload.len()..].fill(0xdd);
            let close = write_trailer(&mut text[..end], payload.len(), next_header);
            prop_assert_eq!(close, Some(end));
            prop_assert_eq!(trailer(&text[..end]), Ok(Trailer { payload: payload.len(), next_header }));
            prop_assert!(text[end..].iter().all(|byte| *byte == 0xdd));
        }

        /// Any bytes are read or refused; what is read lies within them.
        #[test]
        fn any_bytes_end_well(bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 3, 4, 255]), 0..60)) {
            match trailer(&bytes) {
                Ok(Trailer { payload, .. }) => {
                    let pad = bytes.len() - TRAILER - payload;
                    prop_assert_eq!(usize::from(bytes[bytes.len() - TRAILER]), pad);
                    let counts = (1..=pad).eq(bytes[payload..payload + pad].iter().map(|b| usize::from(*b)));
                    prop_assert!(counts);
                }
                Err(_) => {
                    let pad = bytes.len().checked_sub(TRAILER).map(|at| usize::from(bytes[at]));
                    let fits = pad.is_some_and(|pad| pad + TRAILER <= bytes.len());
                    let end = bytes.len().saturating_sub(TRAILER);
                    let start = end.saturating_sub(pad.unwrap_or(0));
                    let counts = (1..).zip(&bytes[start..end]).all(|(count, byte)| count == usize::from(*byte));
                    prop_assert!(!(fits && counts));
                }
            }
            let read = parse(&bytes).map(|(header, rest)| (*header, rest.len()));
            prop_assert_eq!(read.is_ok(), bytes.len() >= LEN + TRAILER + ICV);
            let mut copy = bytes.clone();
            prop_assert_eq!(read, parse_mut(&mut copy).map(|(header, rest)| (*header, rest.len())));
            match in_udp(&bytes) {
                InUdp::Esp(esp) => prop_assert_eq!(esp, &bytes[..]),
                InUdp::Ike(ike) => prop_assert_eq!(ike.len() + 4, bytes.len()),
                InUdp::Keepalive => prop_assert_eq!(&bytes[..], &KEEPALIVE[..]),
                InUdp::Neither => prop_assert!(bytes.len() < 4),
            }
        }
    }
}
