//! UDP (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Sum;
use crate::{Malformed, ipv4, ipv6, view};

/// Length of the header in bytes.
pub const LEN: usize = size_of::<Header>();
/// Port of IKE (RFC 7296).
pub const IKE: u16 = 500;
/// Port of IKE and ESP behind a NAT (RFC 3948).
pub const IKE_NAT: u16 = 4500;

/// The header of a datagram.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |          Source Port          |       Destination Port        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |            Length             |           Checksum            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    length: U16,
    checksum: U16,
}

impl Header {
    /// A header in front of `payload_len` bytes, without a checksum (0: not computed). `None` if the datagram would pass
    /// 65,535 bytes.
    #[must_use]
    pub fn new(source_port: u16, destination_port: u16, payload_len: usize) -> Option<Self> {
        let length = u16::try_from(payload_len.checked_add(LEN)?).ok()?;
        Some(Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            length: U16::new(length),
            checksum: U16::ZERO,
        })
    }

    /// Port of the sender.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// Port of the receiver.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> u16 {
        self.length.get()
    }

    /// The checksum as it stands; 0: the sender did not compute one.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Computes the checksum of the datagram that is this header and `payload`, in a packet with the header `ip`. A sum of
    /// zero is sent as ones (RFC 768).
    pub fn fill_checksum(&mut self, ip: &ipv4::Header, payload: &[u8]) {
        self.fill(ip.pseudo_sum(self.length()), payload);
    }

    /// As [`Header::fill_checksum`], in an IPv6 packet.
    pub fn fill_checksum_v6(&mut self, ip: &ipv6::Header, payload: &[u8]) {
        self.fill(ip.pseudo_sum(ipv6::UDP, self.length().into()), payload);
    }

    fn fill(&mut self, pseudo: Sum, payload: &[u8]) {
        self.checksum = U16::ZERO;
        let sum = pseudo.bytes(self.as_bytes()).bytes(payload).checksum();
        self.checksum.set(if sum == 0 { 0xffff } else { sum });
    }
}

/// Header and payload of a datagram.
///
/// # Errors
/// [`Malformed`] if its length is wrong.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, _) = view::split::<Header>(bytes, "udp header")?;
    let payload = usize::from(header.length());
    if payload < LEN || payload > bytes.len() {
        return Err(Malformed::Length { field: "udp length", says: payload, have: bytes.len() });
    }
    Ok((header, &bytes[LEN..payload]))
}

/// As [`parse`], writable.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    let have = bytes.len();
    let (header, rest) = view::split_mut::<Header>(bytes, "udp header")?;
    let payload = usize::from(header.length());
    if payload < LEN || payload > have {
        return Err(Malformed::Length { field: "udp length", says: payload, have });
    }
    Ok((header, &mut rest[..payload - LEN]))
}

/// Whether the checksum of the datagram in `bytes`, carried under `ip`, is right or absent.
///
/// # Errors
/// [`Malformed::Checksum`] if not; otherwise as [`parse`].
pub fn verify(ip: &ipv4::Header, bytes: &[u8]) -> Result<(), Malformed> {
    let (header, payload) = parse(bytes)?;
    let sum = ip.pseudo_sum(header.length()).bytes(header.as_bytes()).bytes(payload).checksum();
    if header.checksum() == 0 || sum == 0 { Ok(()) } else { Err(Malformed::Checksum("udp")) }
}

/// Whether the checksum of the datagram in `bytes`, carried under `ip`, is right; it may not be absent (RFC 8200 §8.1).
///
/// # Errors
/// [`Malformed::Checksum`] if not; otherwise as [`parse`].
pub fn verify_v6(ip: &ipv6::Header, bytes: &[u8]) -> Result<(), Malformed> {
    let (header, payload) = parse(bytes)?;
    let pseudo = ip.pseudo_sum(ipv6::UDP, header.length().into());
    let right = header.checksum() != 0 && pseudo.bytes(header.as_bytes()).bytes(payload).checksum() == 0;
    if right { Ok(()) } else { Err(Malformed::Checksum("udp")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let ip = ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), ipv4::UDP, 64, 11).unwrap();
        let mut header = Header::new(500, 4500, 3).unwrap();
        header.fill_checksum(&ip, b"abc");
        // Sum by hand: 0a00+0001+0a00+0002+0011+000b + 01f4+1194+000b + 6162+6300 = eb14.
        let mut bytes = [0x01, 0xf4, 0x11, 0x94, 0, 11, 0x14, 0xeb, b'a', b'b', b'c', 0xee];
        let sum: u32 = 0x0a00 + 1 + 0x0a00 + 2 + 0x11 + 11 + 0x01f4 + 0x1194 + 11 + 0x6162 + 0x6300;
        bytes[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        assert_eq!([header.as_bytes(), b"abc"].concat(), bytes[..11]);
        let (parsed, payload) = parse(&bytes).unwrap();
        assert_eq!((parsed.source_port(), parsed.destination_port(), payload), (IKE, IKE_NAT, &b"abc"[..]));
        verify(&ip, &bytes).unwrap();
        bytes[9] ^= 1;
        assert_eq!(verify(&ip, &bytes), Err(Malformed::Checksum("udp")));
        bytes[6..8].fill(0);
        verify(&ip, &bytes).unwrap();
    }

    #[test]
    fn in_ipv6_the_checksum_must_be_there() {
        let from = "2001:db8::1".parse().unwrap();
        let ip = ipv6::Header::new(from, "2001:db8::2".parse().unwrap(), ipv6::UDP, 64, 11).unwrap();
        let mut header = Header::new(500, 4500, 3).unwrap();
        header.fill_checksum_v6(&ip, b"abc");
        // Sum by hand: 2 * (2001 + 0db8) + 0001 + 0002 + 000b + 0011 + 01f4 + 1194 + 000b + 6162 + 6300.
        let sum: u32 = 2 * (0x2001 + 0x0db8) + 1 + 2 + 11 + 0x11 + 0x01f4 + 0x1194 + 11 + 0x6162 + 0x6300;
        assert_eq!(u32::from(!header.checksum()), (sum & 0xffff) + (sum >> 16));
        let mut bytes = [header.as_bytes(), b"abc"].concat();
        verify_v6(&ip, &bytes).unwrap();
        bytes[6..8].fill(0);
        assert_eq!(verify_v6(&ip, &bytes), Err(Malformed::Checksum("udp")));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        for length in [0_u8, 7, 13] {
            let mut bytes = [0, 1, 0, 2, 0, length, 0, 0, 1, 2, 3, 4];
            assert!(matches!(parse(&bytes), Err(Malformed::Length { .. })), "{length}");
            assert!(parse_mut(&mut bytes).is_err());
        }
        assert!(matches!(parse(&[0; 7]), Err(Malformed::Truncated { .. })));
        assert!(Header::new(1, 2, 65528).is_none());
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_ones() {
        let ip = ipv4::Header::new([0; 4].into(), [0; 4].into(), ipv4::UDP, 64, 10).unwrap();
        let mut header = Header::new(0, 0, 2).unwrap();
        // Pseudo header 0011+000a, header 000a: the payload that completes ffff.
        header.fill_checksum(&ip, &(0xffff_u16 - 0x25).to_be_bytes());
        assert_eq!(header.checksum(), 0xffff);
    }
}
