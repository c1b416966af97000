//! GRE (RFC 2784) with key and sequence number (RFC 2890).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, checksum, view};

/// Protocol type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Protocol type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Protocol type of NHRP (RFC 2332 §5).
pub const NHRP: u16 = 0x2001;
/// Flag C: checksum and reserved field are there.
pub const CHECKSUM: u16 = 0x8000;
/// Flag K: the key is there (RFC 2890).
pub const KEY: u16 = 0x2000;
/// Flag S: the sequence number is there (RFC 2890).
pub const SEQUENCE: u16 = 0x1000;
/// What RFC 2784 §2.3 wants refused if set: routing (RFC 1701), strict source route, recursion; and any version but 0.
const REFUSED: u16 = 0x4000 | 0x0800 | 0x0400 | 0x0007;

/// What every header starts with.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |C| |K|S| Reserved0       | Ver |         Protocol Type         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |      Checksum (optional)      |       Reserved1 (Optional)    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Key (optional)                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                 Sequence Number (Optional)                    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    flags: U16,
    protocol: U16,
}

impl Header {
    /// A header with nothing optional in it.
    #[must_use]
    pub const fn new(protocol: u16) -> Self {
        Self { flags: U16::ZERO, protocol: U16::new(protocol) }
    }

    /// Flags, reserved bits and version.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u16 {
        self.flags.get()
    }

    /// What the payload is.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u16 {
        self.protocol.get()
    }
}

/// A header with a key and nothing else optional: what DMVPN sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Keyed {
    fixed: Header,
    key: U32,
}

impl Keyed {
    /// A header with `key`.
    #[must_use]
    pub const fn new(protocol: u16, key: u32) -> Self {
        Self { fixed: Header { flags: U16::new(KEY), protocol: U16::new(protocol) }, key: U32::new(key) }
    }
}

/// What a header says, options resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// What the payload is.
    pub protocol: u16,
    /// The key, if there is one.
    pub key: Option<u32>,
    /// The sequence number, if there is one.
    pub sequence: Option<u32>,
    /// Length of the header in bytes: 4 to 16.
    pub len: usize,
}

/// Length in bytes of the header that [`write()`] writes.
#[must_use]
pub const fn len(key: Option<u32>) -> usize {
    if key.is_some() { size_of::<Keyed>() } else { size_of::<Header>() }
}

/// Writes a header with or without key to the front of `out`; the number of bytes written, `None` without the room.
#[must_use]
pub fn write(out: &mut [u8], protocol: u16, key: Option<u32>) -> Option<usize> {
    match key {
        Some(key) => Keyed::new(protocol, key).write_to_prefix(out).ok()?,
        None => Header::new(protocol).write_to_prefix(out).ok()?,
    }
    Some(len(key))
}

/// Header and payload of a GRE packet, and whether its checksum is right if it has one.
///
/// # Errors
/// As [`parse`], but for a wrong checksum.
pub fn read(bytes: &[u8]) -> Result<(Fields, Option<bool>, &[u8]), Malformed> {
    let (header, rest) = view::split::<Header>(bytes, "gre header")?;
    let (fields, summed, payload) = options(bytes, header.flags(), header.protocol(), rest)?;
    Ok((fields, summed.then(|| checksum::checksum(bytes) == 0), payload))
}

/// Header and payload of a GRE packet. A checksum, if there is one, is verified (it covers the payload).
///
/// # Errors
/// [`Malformed`] if the packet is short, its checksum wrong, or if it has a version or flags that RFC 2784 §2.3 wants
/// refused.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(Fields, &[u8]), Malformed> {
    let (header, rest) = view::split::<Header>(bytes, "gre header")?;
    let (flags, protocol) = (header.flags(), header.protocol());
    if flags == KEY {
        let (key, payload) = view::split::<U32>(rest, "gre key")?;
        return Ok((Fields { protocol, key: Some(key.get()), sequence: None, len: 8 }, payload));
    }
    if flags == 0 {
        return Ok((Fields { protocol, key: None, sequence: None, len: 4 }, rest));
    }
    parse_options(bytes, flags, protocol, rest)
}

/// The rest of [`parse`]: what is rare.
#[cold]
fn parse_options<'a>(
    bytes: &'a [u8],
    flags: u16,
    protocol: u16,
    rest: &'a [u8],
) -> Result<(Fields, &'a [u8]), Malformed> {
    let (fields, summed, payload) = options(bytes, flags, protocol, rest)?;
    if summed && checksum::checksum(bytes) != 0 {
        return Err(Malformed::Checksum("gre"));
    }
    Ok((fields, payload))
}

/// What `rest` has of the options that `flags` names, whether a checksum is among them, and the payload behind them.
fn options<'a>(
    bytes: &'a [u8],
    flags: u16,
    protocol: u16,
    mut rest: &'a [u8],
) -> Result<(Fields, bool, &'a [u8]), Malformed> {
    if flags & REFUSED != 0 {
        return Err(Malformed::Value { field: "gre flags", found: flags.into() });
    }
    let mut optional = |flag, field| {
        if flags & flag == 0 {
            return Ok(None);
        }
        let (word, behind) = view::split::<U32>(rest, field)?;
        rest = behind;
        Ok(Some(word.get()))
    };
    let sum = optional(CHECKSUM, "gre checksum")?;
    let key = optional(KEY, "gre key")?;
    let sequence = optional(SEQUENCE, "gre sequence number")?;
    Ok((Fields { protocol, key, sequence, len: bytes.len() - rest.len() }, sum.is_some(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let bytes = [0x20, 0, 0x08, 0, 0, 0, 0, 42, 0xaa];
        let (fields, payload) = parse(&bytes).unwrap();
        assert_eq!(fields, Fields { protocol: IPV4, key: Some(42), sequence: None, len: 8 });
        assert_eq!(payload, [0xaa]);
        let mut out = [0; 9];
        assert_eq!(write(&mut out, IPV4, Some(42)), Some(8));
        assert_eq!(out[..8], bytes[..8]);
        assert_eq!(write(&mut out[..4], NHRP, None), Some(4));
        assert_eq!(out[..4], [0, 0, 0x20, 0x01]);
        assert_eq!(write(&mut out[..7], NHRP, Some(1)), None);
        let (fields, payload) = parse(&[0, 0, 0x86, 0xdd]).unwrap();
        assert_eq!((fields.protocol, fields.key, fields.len, payload.len()), (IPV6, None, 4, 0));
    }

    #[test]
    fn options_stand_in_order_and_the_checksum_is_verified() {
        let mut bytes = [0xb0, 0, 0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 0, b'x', b'y', b'z'];
        let sum = checksum::checksum(&bytes);
        bytes[4..6].copy_from_slice(&sum.to_be_bytes());
        let (fields, payload) = parse(&bytes).unwrap();
        assert_eq!(fields, Fields { protocol: NHRP, key: Some(7), sequence: Some(256), len: 16 });
        assert_eq!(payload, b"xyz");
        assert_eq!(read(&bytes), Ok((fields, Some(true), payload)));
        bytes[18] ^= 1;
        assert_eq!(parse(&bytes), Err(Malformed::Checksum("gre")));
        assert_eq!(read(&bytes).map(|(_, right, _)| right), Ok(Some(false)));
        for cut in 4..16 {
            assert!(matches!(parse(&bytes[..cut]), Err(Malformed::Truncated { .. })), "{cut}");
        }
        // Bits 6 to 12 are ignored on receipt.
        assert!(parse(&[0x03, 0xf8, 0x08, 0]).is_ok());
    }

    #[test]
    fn routing_recursion_and_other_versions_are_refused() {
        for flags in [0x4000_u16, 0x0800, 0x0400, 0x0001, 0x0007, 0x2001] {
            let [a, b] = flags.to_be_bytes();
            assert_eq!(
                parse(&[a, b, 8, 0, 0, 0, 0, 0]),
                Err(Malformed::Value { field: "gre flags", found: flags.into() })
            );
        }
        assert!(matches!(parse(&[0x20, 0, 8, 0, 0]), Err(Malformed::Truncated { field: "gre key", .. })));
    }
}
