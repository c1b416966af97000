//! Ethernet II frames (IEEE 802.3, RFC 894), without FCS.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, view};

/// EtherType of IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// The address that every station receives.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Length of the header in bytes.
pub const LEN: usize = size_of::<Header>();

/// The header of a frame.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                      destination address                      |
/// +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                               |                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
/// |                        source address                         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           EtherType           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Who the frame is for.
    pub destination: [u8; 6],
    /// Who sent it.
    pub source: [u8; 6],
    ethertype: U16,
}

impl Header {
    /// A header.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Self {
        Self { destination, source, ethertype: U16::new(ethertype) }
    }

    /// What the payload is.
    #[inline(always)]
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }

    /// Whether the frame is for a group of stations, broadcast included.
    #[inline(always)]
    #[must_use]
    pub const fn is_group(&self) -> bool {
        self.destination[0] & 1 != 0
    }
}

/// Header and payload of a frame.
///
/// # Errors
/// [`Malformed::Truncated`] below 14 bytes.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    view::split(bytes, "ethernet header")
}

/// As [`parse`], writable.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    view::split_mut(bytes, "ethernet header")
}

/// The group address of an IPv4 multicast address (RFC 1112 §6.4): 01:00:5e and its low 23 bits.
#[must_use]
pub const fn multicast(group: std::net::Ipv4Addr) -> [u8; 6] {
    let [_, b, c, d] = group.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bytes() {
        let mut bytes = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x06, 0xaa];
        let (header, payload) = parse(&bytes).unwrap();
        assert_eq!((header.destination, header.source), ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]));
        assert_eq!((header.ethertype(), header.is_group(), payload), (ARP, false, &[0xaa][..]));
        assert_eq!(Header::new(header.destination, header.source, ARP).as_bytes(), &bytes[..LEN]);
        parse_mut(&mut bytes).unwrap().0.destination = BROADCAST;
        assert!(parse(&bytes).unwrap().0.is_group());
        assert_eq!(
            parse(&bytes[..13]),
            Err(Malformed::Truncated { field: "ethernet header", needed: 14, have: 13 })
        );
        assert_eq!(multicast("224.128.0.5".parse().unwrap()), [1, 0, 0x5e, 0, 0, 5]);
    }
}
