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
/// EtherType of a frame with a [`Tag`] (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// EtherType of a frame with an outer [`Tag`], of the provider (IEEE 802.1ad).
pub const PROVIDER_VLAN: u16 = 0x88a8;
/// The address that every station receives.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// Length of the header in bytes.
pub const LEN: usize = size_of::<Header>();
/// Length of a VLAN tag in bytes.
pub const TAG_LEN: usize = size_of::<Tag>();

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

/// What is between EtherType [`VLAN`] and the payload (IEEE 802.1Q §9.6), and the payload's own EtherType.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | PCP |D|          VID          |           EtherType           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tag {
    control: U16,
    ethertype: U16,
}

impl Tag {
    /// Bits of the VLAN's number.
    pub const VID: u16 = 0x0fff;

    /// The tag of VLAN `vid`, of which 12 bits count, with the priority `pcp`, of which 3 bits count.
    #[inline(always)]
    #[must_use]
    pub const fn new(pcp: u8, vid: u16, ethertype: u16) -> Self {
        Self { control: U16::new((pcp as u16) << 13 | vid & Self::VID), ethertype: U16::new(ethertype) }
    }

    /// Number of the VLAN: 0 if the tag has a priority only, 4095 is nobody's.
    #[inline(always)]
    #[must_use]
    pub const fn vid(&self) -> u16 {
        self.control.get() & Self::VID
    }

    /// Priority code point, 0 to 7.
    #[inline(always)]
    #[must_use]
    pub const fn pcp(&self) -> u8 {
        (self.control.get() >> 13) as u8
    }

    /// Whether the frame may be dropped first.
    #[inline(always)]
    #[must_use]
    pub const fn drop_eligible(&self) -> bool {
        self.control.get() & 0x1000 != 0
    }

    /// What the payload is.
    #[inline(always)]
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        self.ethertype.get()
    }
}

/// Tag and payload of what follows a header with the EtherType [`VLAN`].
///
/// # Errors
/// [`Malformed::Truncated`] below 4 bytes.
#[inline(always)]
pub fn parse_tag(bytes: &[u8]) -> Result<(&Tag, &[u8]), Malformed> {
    view::split(bytes, "vlan tag")
}

/// The group address of an IPv4 multicast address (RFC 1112 §6.4): 01:00:5e and its low 23 bits.
#[must_use]
pub const fn multicast(group: std::net::Ipv4Addr) -> [u8; 6] {
    let [_, b, c, d] = group.octets();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

/// The group address of an IPv6 multicast address (RFC 2464 §7): 33:33 and its low 32 bits.
#[must_use]
pub const fn multicast_v6(group: std::net::Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_known_bytes() {
        let bytes = [0x60, 0x64, 0x08, 0x00, 0x45];
        let (tag, payload) = parse_tag(&bytes).unwrap();
        assert_eq!((tag.pcp(), tag.drop_eligible(), tag.vid(), tag.ethertype()), (3, false, 100, IPV4));
        assert_eq!((payload, Tag::new(3, 100, IPV4).as_bytes()), (&[0x45][..], &bytes[..TAG_LEN]));
        assert_eq!(Tag::new(0xff, 0xffff, ARP).as_bytes(), [0xef, 0xff, 0x08, 0x06]);
        assert!(parse_tag(&[0xff; 4]).unwrap().0.drop_eligible());
        assert!(matches!(parse_tag(&bytes[..3]), Err(Malformed::Truncated { .. })));
        assert_eq!(multicast_v6("ff02::1:ff00:1234".parse().unwrap()), [0x33, 0x33, 0xff, 0, 0x12, 0x34]);
    }

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
