//! Proposals of a security association payload (RFC 7296 §3.3.1, §3.3.2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+  proposal (§3.3.1)
//! | 0 last, 2 more| reserved      | length with its transforms    |
//! +---------------+---------------+---------------+---------------+
//! | number        | protocol      | length of SPI | transforms    |
//! +---------------+---------------+---------------+---------------+
//! | SPI                                                           |
//! +---------------+---------------+-------------------------------+  transform (§3.3.2)
//! | 0 last, 3 more| reserved      | length with its attributes    |
//! +---------------+---------------+-------------------------------+
//! | type          | reserved      | id                            |
//! +-+-------------+---------------+-------------------------------+  attribute (§3.3.5)
//! |1| type                        | value                         |
//! |0| type                        | length of the value, which follows
//! +-+-----------------------------+-------------------------------+
//! ```

use crate::Malformed;
use crate::reader::Reader;

use super::fitting;

/// The protocol of an SA, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IKE.
    pub const IKE: Self = Self(1);
    /// ESP.
    pub const ESP: Self = Self(3);
}

/// What a transform is for, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransformType(pub u8);

impl TransformType {
    /// Encryption: 12 AES-CBC, 20 AES-GCM with an ICV of 16 bytes.
    pub const ENCRYPTION: Self = Self(1);
    /// Pseudo-random function: 5 HMAC-SHA2-256, 6 -384, 7 -512.
    pub const PRF: Self = Self(2);
    /// Integrity: 12 HMAC-SHA2-256-128, 13 HMAC-SHA2-384-192.
    pub const INTEGRITY: Self = Self(3);
    /// Key exchange method.
    pub const KEY_EXCHANGE: Self = Self(4);
    /// Sequence numbers: 0 32 bits, 1 64 bits.
    pub const ESN: Self = Self(5);
    /// The first additional key exchange (RFC 9370 §2.1); six more follow.
    pub const ADDITIONAL_KEY_EXCHANGE_1: Self = Self(6);
}

/// One algorithm that a proposal offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Which it is, as the number of its registry.
    pub id: u16,
    /// The key length attribute, in bits (§3.3.5).
    pub key_length: Option<u16>,
    /// Other attributes, as they came: type with its format bit, and value.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// One combination of algorithms, to be taken or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its number, from 1 on.
    pub number: u8,
    /// What for.
    pub protocol: Protocol,
    /// The SPI that its sender would take packets by; none in the first exchange.
    pub spi: Vec<u8>,
    /// One of each type is to be chosen.
    pub transforms: Vec<Transform>,
}

/// Format bit of an attribute: its value is two bytes long and stands where others have their length.
const SHORT: u16 = 0x8000;

/// The key length attribute, which is a short one (RFC 7296 §3.3.5).
const KEY_LENGTH: u16 = SHORT | 14;

/// What stands before proposals that others follow, and before such transforms.
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

impl Transform {
    /// An algorithm without a key length.
    #[must_use]
    pub const fn new(kind: TransformType, id: u16) -> Self {
        Self { kind, id, key_length: None, attributes: Vec::new() }
    }

    /// Reads one, and whether another follows.
    fn decode(reader: &mut Reader<'_>) -> Result<(Self, bool), Malformed> {
        let has_more = more(reader, "Last Substruc of a Transform", MORE_TRANSFORMS)?;
        let mut reader = part(reader, "Transform Length", 4)?;
        let kind = TransformType(reader.u8("Transform Type")?);
        let _reserved = reader.u8("RESERVED")?;
        let mut transform = Self::new(kind, reader.u16("Transform ID")?);
        while !reader.is_empty() {
            let kind = reader.u16("Attribute Type")?;
            let len = if kind & SHORT != 0 { 2 } else { reader.u16("Attribute Length")?.into() };
            let value = reader.take(len, "Attribute Value")?;
            match (kind, value) {
                (KEY_LENGTH, &[high, low]) if transform.key_length.is_none() => {
                    transform.key_length = Some(u16::from_be_bytes([high, low]));
                }
                _ => transform.attributes.push((kind, value.to_vec())),
            }
        }
        Ok((transform, has_more))
    }

    /// Without what its list puts before it. What is longer than a transform can be is left out.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind.0, 0];
        out.extend(self.id.to_be_bytes());
        if let Some(bits) = self.key_length {
            out.extend(KEY_LENGTH.to_be_bytes());
            out.extend(bits.to_be_bytes());
        }
        for (kind, value) in &self.attributes {
            let len = value.len();
            if out.len() + 4 + len > usize::from(u16::MAX) / 2 {
                break;
            }
            out.extend(kind.to_be_bytes());
            if kind & SHORT != 0 {
                out.extend((0..2).map(|at| value.get(at).copied().unwrap_or(0)));
            } else {
                out.extend((len as u16).to_be_bytes());
                out.extend(value);
            }
        }
        out
    }
}

impl Proposal {
    fn decode(reader: &mut Reader<'_>) -> Result<(Self, bool), Malformed> {
        let has_more = more(reader, "Last Substruc of a Proposal", MORE_PROPOSALS)?;
        let mut reader = part(reader, "Proposal Length", 4)?;
        let number = reader.u8("Proposal Num")?;
        let protocol = Protocol(reader.u8("Protocol ID")?);
        let spi_len = reader.u8("SPI Size")?;
        let count = reader.u8("Num Transforms")?;
        let spi = reader.take(spi_len.into(), "SPI")?.to_vec();
        let mut transforms = Vec::new();
        for left in (0..count).rev() {
            let (transform, has_more) = Transform::decode(&mut reader)?;
            if has_more != (left > 0) {
                return Err(Malformed::Value { field: "Num Transforms", found: count.into() });
            }
            transforms.push(transform);
        }
        ended(&reader, "Proposal Length")?;
        Ok((Self { number, protocol, spi, transforms }, has_more))
    }

    /// Without what its list puts before it.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let spi = &self.spi[..self.spi.len().min(u8::MAX.into())];
        let transforms = self.transforms.iter().map(Transform::encode);
        let transforms = fitting(transforms, u8::MAX.into(), 4, 8 + spi.len());
        out.extend([self.number, self.protocol.0, spi.len() as u8, transforms.len() as u8]);
        out.extend(spi);
        parts(&transforms, MORE_TRANSFORMS, &mut out);
        out
    }
}

/// Reads the body of a security association payload.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Proposal>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut proposals = Vec::new();
    while !reader.is_empty() {
        let (proposal, has_more) = Proposal::decode(&mut reader)?;
        proposals.push(proposal);
        if has_more == reader.is_empty() {
            let found = if has_more { MORE_PROPOSALS } else { 0 };
            return Err(Malformed::Value { field: "Last Substruc of a Proposal", found: found.into() });
        }
    }
    Ok(proposals)
}

/// Writes one. What is longer than a payload can be is left out.
pub(super) fn encode(proposals: &[Proposal], out: &mut Vec<u8>) {
    let proposals = proposals.iter().map(Proposal::encode);
    parts(&fitting(proposals, usize::MAX, 4, 0), MORE_PROPOSALS, out);
}

/// Whether another one follows: the first two bytes of a proposal or transform.
fn more(reader: &mut Reader<'_>, field: &'static str, more: u8) -> Result<bool, Malformed> {
    let mark = reader.u8(field)?;
    let _reserved = reader.u8("RESERVED")?;
    match mark {
        0 => Ok(false),
        mark if mark == more => Ok(true),
        mark => Err(Malformed::Value { field, found: mark.into() }),
    }
}

/// What a length delimits that counts `before` bytes before what it delimits: itself, and what stands before it.
pub(super) fn part<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
    before: usize,
) -> Result<Reader<'a>, Malformed> {
    let says = usize::from(reader.u16(field)?);
    let have = reader.left().len() + before;
    let rest = says.checked_sub(before).ok_or(Malformed::Length { field, says, have })?;
    reader.take(rest, field).map(Reader::new)
}

/// Nothing is left: the length that delimits `reader` is right.
pub(super) fn ended(reader: &Reader<'_>, field: &'static str) -> Result<(), Malformed> {
    match reader.left().len() {
        0 => Ok(()),
        have => Err(Malformed::Length { field, says: 0, have }),
    }
}

/// Writes proposals or transforms one after the other, each with its length, and with what marks it as not the last one.
fn parts(parts: &[Vec<u8>], more: u8, out: &mut Vec<u8>) {
    for (at, part) in parts.iter().enumerate() {
        out.extend([if at + 1 < parts.len() { more } else { 0 }, 0]);
        out.extend((part.len() as u16 + 4).to_be_bytes());
        out.extend(part);
    }
}
