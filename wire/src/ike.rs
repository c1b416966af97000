//! IKEv2 messages (RFC 7296 §3; fragments: RFC 7383), owned. What is encrypted stays sealed here: keys are not this crate's.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+  header, 28 bytes (§3.1)
//! | SPI of the IKE SA's initiator, 8 bytes                        |
//! +---------------------------------------------------------------+
//! | SPI of its responder, 8 bytes; 0 in the first request         |
//! +---------------+-------+-------+---------------+---------------+
//! | next payload  | major | minor | exchange type | X X R V I X X X
//! +---------------+-------+-------+---------------+---------------+
//! | message id                                                    |
//! +---------------------------------------------------------------+
//! | length of all this                                            |
//! +---------------+-+-------------+-------------------------------+  each payload (§3.2)
//! | next payload  |C| reserved    | length with this header       |
//! +---------------+-+-------------+-------------------------------+
//! ```
//!
//! On UDP port 4500 four zero bytes stand before the header ([`NON_ESP_MARKER`], RFC 3948 §2.2); they are not part of a message.

mod header;
mod name;
mod payload;
mod proposal;
mod selector;
#[cfg(test)]
mod tests;

pub use header::{Exchange, Header};
pub use name::method_name;
pub use payload::{Identification, NotifyType, Payload, PayloadType};
pub use proposal::{Proposal, Protocol, Transform, TransformType};
pub use selector::Selector;

pub use crate::esp::{KEEPALIVE, NON_ESP_MARKER};
pub use crate::udp::{IKE as PORT, IKE_NAT as NAT_PORT};

use crate::Malformed;
use crate::reader::Reader;

use proposal::{ended, part};

/// A message as it came: what is in the clear, and what is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// Payloads in the clear: all of them in IKE_SA_INIT, none in what follows (RFC 7296 §3.14).
    pub payloads: Vec<Payload>,
    /// The encrypted payload, the last one.
    pub sealed: Option<Sealed<'a>>,
}

/// An encrypted payload (RFC 7296 §3.14), or an encrypted fragment (RFC 7383 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// From the first byte of the message to the last one before the IV: what an AEAD authenticates beside (RFC 5282 §5.1).
    pub front: &'a [u8],
    /// IV, ciphertext and ICV.
    pub body: &'a [u8],
    /// Type of the first payload in it, as its number; in later fragments 0.
    pub first: u8,
    /// Number of this fragment and of all of them, 1 and up.
    pub fragment: Option<(u16, u16)>,
}

/// The longest body of a payload in bytes: its length has 16 bits, and counts four more.
const LONGEST_BODY: usize = u16::MAX as usize - 4;

/// The most payloads of a message that are read. Real ones have no more than some thirty; empty payloads without end would make much out of
/// few bytes.
pub const MOST_PAYLOADS: usize = 128;

impl<'a> Message<'a> {
    /// Reads a message: the datagram without [`NON_ESP_MARKER`]. Of major version 2: see [`Header::decode`] for others.
    ///
    /// # Errors
    /// It is not one. A payload of an unknown type is none: see [`Payload::Unknown`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, mut next, length) = Header::decode(bytes)?;
        if header.version.0 != 2 {
            return Err(Malformed::Value { field: "Major Version", found: header.version.0.into() });
        }
        let says = length as usize;
        if says != bytes.len() {
            return Err(Malformed::Length { field: "Length", says, have: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        reader.take(Header::LEN, "IKE header")?;
        let mut payloads = Vec::new();
        while next != PayloadType::NONE {
            let part = Part::decode(&mut reader)?;
            if next == PayloadType::SK || next == PayloadType::SKF {
                let sealed = Sealed::decode(bytes, &part, next == PayloadType::SKF)?;
                // §3.14: it is the last one. Its next payload is the first of what is in it.
                ended(&reader, "Length")?;
                return Ok(Self { header, payloads, sealed: Some(sealed) });
            }
            payloads.push(part.payload(next, payloads.len())?);
            next = part.next;
        }
        ended(&reader, "Length")?;
        Ok(Self { header, payloads, sealed: None })
    }
}

impl<'a> Sealed<'a> {
    /// Of the last payload of a message.
    fn decode(message: &'a [u8], part: &Part<'a>, is_fragment: bool) -> Result<Self, Malformed> {
        let mut reader = Reader::new(part.body);
        let mut fragment = None;
        if is_fragment {
            let (number, of) = (reader.u16("Fragment Number")?, reader.u16("Total Fragments")?);
            // RFC 7383 §2.5: from 1 on, and none behind the last.
            if number == 0 || number > of {
                return Err(Malformed::Value { field: "Fragment Number", found: number.into() });
            }
            fragment = Some((number, of));
        }
        let body = reader.rest();
        let front = message.get(..message.len().saturating_sub(body.len())).unwrap_or_default();
        Ok(Self { front, body, first: part.next.0, fragment })
    }
}

/// A payload as its generic header delimits it (RFC 7296 §3.2).
struct Part<'a> {
    next: PayloadType,
    is_critical: bool,
    body: &'a [u8],
}

impl<'a> Part<'a> {
    /// Flag C; the other bits of its byte are ignored.
    const CRITICAL: u8 = 0x80;

    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let next = PayloadType(reader.u8("Next Payload")?);
        let is_critical = reader.u8("Critical")? & Self::CRITICAL != 0;
        let body = part(reader, "Payload Length", 4)?.rest();
        Ok(Self { next, is_critical, body })
    }

    /// As the payload that it is: of this type, after so many others.
    fn payload(&self, kind: PayloadType, before: usize) -> Result<Payload, Malformed> {
        if before >= MOST_PAYLOADS {
            return Err(Malformed::Value { field: "number of payloads", found: before as u64 + 1 });
        }
        Payload::decode(kind, self.is_critical, self.body)
    }
}

/// A message in the clear. The payloads' lengths are those of messages: under 64 KiB in all. A payload that is longer is cut.
#[must_use]
pub fn encode(header: Header, payloads: &[Payload]) -> Vec<u8> {
    let (first, chain) = encode_payloads(payloads);
    let mut out = Vec::with_capacity(Header::LEN + chain.len());
    header.encode(first, chain.len(), &mut out);
    out.extend(chain);
    out
}

/// Reads what an encrypted payload holds: the chain whose first payload is of type `first`, without padding and its length.
///
/// # Errors
/// It is not a chain of payloads.
pub fn decode_payloads(first: u8, bytes: &[u8]) -> Result<Vec<Payload>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut next = PayloadType(first);
    let mut payloads = Vec::new();
    while next != PayloadType::NONE {
        let part = Part::decode(&mut reader)?;
        payloads.push(part.payload(next, payloads.len())?);
        next = part.next;
    }
    ended(&reader, "Payload Length")?;
    Ok(payloads)
}

/// A chain of payloads, and the type of the first (0 of none).
#[must_use]
pub fn encode_payloads(payloads: &[Payload]) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    for (at, payload) in payloads.iter().enumerate() {
        let next = payloads.get(at + 1).map_or(PayloadType::NONE, Payload::kind);
        // §2.5: flag C is clear in payloads that every implementation knows.
        let is_critical = matches!(payload, Payload::Unknown { is_critical: true, .. });
        let start = out.len();
        out.extend([next.0, if is_critical { Part::CRITICAL } else { 0 }, 0, 0]);
        payload.encode(&mut out);
        let length = (out.len() - start) as u16;
        out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    (payloads.first().map_or(PayloadType::NONE, Payload::kind).0, out)
}

/// Everything of a message before the IV of its one payload, which is encrypted: [`Sealed::front`]. `first`: type of the first payload in
/// it. `body`: length in bytes of what follows, IV, ciphertext and ICV; no more than a payload has room for.
#[must_use]
pub fn encode_front(header: Header, first: u8, fragment: Option<(u16, u16)>, body: usize) -> Vec<u8> {
    let (kind, own) = match fragment {
        None => (PayloadType::SK, 4),
        Some(_) => (PayloadType::SKF, 8),
    };
    let mut out = Vec::with_capacity(Header::LEN + own);
    header.encode(kind.0, own + body, &mut out);
    out.extend([first, 0]);
    out.extend(u16::try_from(own + body).unwrap_or(u16::MAX).to_be_bytes());
    if let Some((number, of)) = fragment {
        out.extend(number.to_be_bytes());
        out.extend(of.to_be_bytes());
    }
    out
}

/// The first of these parts that go into a payload together: no more than `most`, each with `header` bytes before it, and `beside` bytes
/// beside them all.
fn fitting(parts: impl Iterator<Item = Vec<u8>>, most: usize, header: usize, beside: usize) -> Vec<Vec<u8>> {
    let mut taken = beside;
    let fits = |part: &Vec<u8>| {
        taken += part.len() + header;
        taken <= LONGEST_BODY
    };
    parts.take(most).take_while(fits).collect()
}
