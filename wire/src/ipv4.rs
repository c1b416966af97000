//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Sum};
use crate::{Malformed, view};

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of GRE.
pub const GRE: u8 = 47;
/// Protocol number of ESP.
pub const ESP: u8 = 50;
/// Protocol number of NHRP, should it ever be carried by IP itself.
pub const NARP: u8 = 54;
/// Protocol number of OSPF.
pub const OSPF: u8 = 89;
/// Length in bytes of a header without options.
pub const LEN: usize = size_of::<Header>();
/// Flag: do not fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Bits of the fragment offset, which counts 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;
/// Bit of an option's kind: it stands in every fragment, not in the first alone (RFC 791 §3.1).
pub const OPTION_COPIED: u8 = 0x80;
/// Kind of the option that ends the list.
pub const OPTION_END: u8 = 0;
/// Kind of the option that is one byte of padding.
pub const OPTION_NO_OPERATION: u8 = 1;
/// Most bytes of options.
pub const OPTIONS: usize = 40;
/// Type of service of network control (DSCP CS6, RFC 2474 §4.2.2): routing protocols, NHRP.
pub const CS6: u8 = 0xc0;

/// The fixed part of a header; options, if any, follow it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version|  IHL  |Type of Service|          Total Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Identification        |Flags|      Fragment Offset    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       Source Address                          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Destination Address                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_ihl: u8,
    /// Type of service: DSCP and ECN.
    pub tos: u8,
    total_length: U16,
    id: U16,
    flags_offset: U16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Header {
    /// A header without options in front of `payload_len` bytes, its checksum filled in; type of service, identification and
    /// flags are zero. `None` if the packet would pass 65,535 bytes.
    #[must_use]
    pub fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        ttl: u8,
        payload_len: usize,
    ) -> Option<Self> {
        let total_length = u16::try_from(payload_len.checked_add(LEN)?).ok()?;
        let header = Self {
            version_ihl: 0x45,
            tos: 0,
            total_length: U16::new(total_length),
            id: U16::ZERO,
            flags_offset: U16::ZERO,
            ttl,
            protocol,
            checksum: U16::ZERO,
            source: source.octets(),
            destination: destination.octets(),
        };
        Some(header.summed())
    }

    /// The same with another type of service, checksum right.
    #[must_use]
    pub fn with_tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self.summed()
    }

    /// The same with another identification, checksum right.
    #[must_use]
    pub fn with_id(mut self, id: u16) -> Self {
        self.id = U16::new(id);
        self.summed()
    }

    /// The same with these flags and fragment offset ([`DONT_FRAGMENT`], [`MORE_FRAGMENTS`], [`OFFSET_MASK`]), checksum right.
    #[must_use]
    pub fn with_flags(mut self, flags_offset: u16) -> Self {
        self.flags_offset = U16::new(flags_offset);
        self.summed()
    }

    /// Length of the header with options, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    /// Length of the packet, header included, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn total_length(&self) -> u16 {
        self.total_length.get()
    }

    /// What the fragments of one packet have in common.
    #[inline(always)]
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id.get()
    }

    /// Flags and fragment offset: [`DONT_FRAGMENT`], [`MORE_FRAGMENTS`], [`OFFSET_MASK`].
    #[inline(always)]
    #[must_use]
    pub const fn flags_offset(&self) -> u16 {
        self.flags_offset.get()
    }

    /// Whether this is a part of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Where the payload belongs in the whole packet, in bytes: a multiple of 8.
    #[inline(always)]
    #[must_use]
    pub const fn fragment_offset(&self) -> u16 {
        (self.flags_offset.get() & OFFSET_MASK) << 3
    }

    /// Whether more fragments follow this one.
    #[inline(always)]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// Whether nobody may cut the packet.
    #[inline(always)]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// The header checksum as it stands.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Sender.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// Receiver.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }

    /// Sets the total length and corrects the checksum (RFC 1624).
    #[inline(always)]
    pub fn set_total_length(&mut self, total_length: u16) {
        self.checksum.set(checksum::update(self.checksum.get(), self.total_length.get(), total_length));
        self.total_length.set(total_length);
    }

    /// Sets the identification and corrects the checksum (RFC 1624).
    #[inline(always)]
    pub fn set_id(&mut self, id: u16) {
        self.checksum.set(checksum::update(self.checksum.get(), self.id.get(), id));
        self.id.set(id);
    }

    /// Sets the type of service and corrects the checksum (RFC 1624).
    #[inline(always)]
    pub fn set_tos(&mut self, tos: u8) {
        self.checksum.set(checksum::update(self.checksum.get(), self.tos.into(), tos.into()));
        self.tos = tos;
    }

    /// Takes one hop off the time to live and corrects the checksum (RFC 1624). The caller has made sure that it is above 0.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        self.ttl = self.ttl.wrapping_sub(1);
        // RFC 1624, equation 3, with the field that holds the time to live going down by 0x0100: ~m + m' = 0xfeff.
        let sum = u32::from(!self.checksum.get()) + 0xfeff;
        self.checksum.set(!((sum + (sum >> 16)) as u16));
    }

    /// Whether the checksum of a header **without options** is right; of one with options use [`verify`].
    #[inline(always)]
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        checksum::checksum(self.as_bytes()) == 0
    }

    /// With the checksum computed anew over the fixed part.
    #[must_use]
    fn summed(mut self) -> Self {
        self.checksum = U16::ZERO;
        self.checksum.set(checksum::checksum(self.as_bytes()));
        self
    }

    /// The pseudo header of UDP and TCP (RFC 768, RFC 9293 §3.1) with a payload of `len` bytes, summed.
    #[must_use]
    pub fn pseudo_sum(&self, len: u16) -> Sum {
        Sum::new().bytes(&self.source).bytes(&self.destination).u16(self.protocol.into()).u16(len)
    }
}

/// Lengths that a packet's header claims, checked against `have` bytes.
#[inline(always)]
fn check(header: &Header, have: usize) -> Result<(usize, usize), Malformed> {
    if header.version_ihl >> 4 != 4 {
        return Err(Malformed::Value { field: "ipv4 version", found: u64::from(header.version_ihl >> 4) });
    }
    let (start, end) = (header.header_len(), usize::from(header.total_length()));
    if start < LEN {
        return Err(Malformed::Value { field: "ipv4 header length", found: start as u64 });
    }
    if end > have {
        return Err(Malformed::Length { field: "ipv4 total length", says: end, have });
    }
    if start > end {
        return Err(Malformed::Length { field: "ipv4 header length", says: start, have: end });
    }
    Ok((start, end))
}

/// Header and payload: behind the options, without what follows the packet (a frame's padding). The checksum is not looked
/// at: see [`verify`].
///
/// # Errors
/// [`Malformed`] if version or lengths are wrong.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, _) = view::split::<Header>(bytes, "ipv4 header")?;
    let (start, end) = check(header, bytes.len())?;
    Ok((header, &bytes[start..end]))
}

/// As [`parse`], writable.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    let have = bytes.len();
    let (header, rest) = view::split_mut::<Header>(bytes, "ipv4 header")?;
    let (start, end) = check(header, have)?;
    Ok((header, &mut rest[start - LEN..end - LEN]))
}

/// The options of a packet that [`parse`] accepted; empty of others.
#[must_use]
pub fn options(bytes: &[u8]) -> &[u8] {
    parse(bytes).map_or(&[], |(header, _)| &bytes[LEN..header.header_len()])
}

/// Writes those of `options` that stand in every fragment to the front of `into`, padded to a multiple of four bytes with the
/// end of the list (RFC 791 §3.1); their length in bytes.
///
/// # Errors
/// [`Malformed`] if an option passes the end of the list.
pub fn copied_options(options: &[u8], into: &mut [u8; OPTIONS]) -> Result<usize, Malformed> {
    let (mut rest, mut len) = (options, 0);
    while let Some(&kind) = rest.first() {
        let size = match kind {
            OPTION_END => break,
            OPTION_NO_OPERATION => 1,
            _ => rest.get(1).copied().map_or(0, usize::from),
        };
        if size > rest.len() || size < 2 && kind != OPTION_NO_OPERATION {
            return Err(Malformed::Length { field: "ipv4 option", says: size, have: rest.len() });
        }
        let (option, behind) = rest.split_at(size);
        if kind & OPTION_COPIED != 0 {
            let room = into.get_mut(len..len + size).ok_or(Malformed::Length {
                field: "ipv4 options",
                says: len + size,
                have: OPTIONS,
            })?;
            room.copy_from_slice(option);
            len += size;
        }
        rest = behind;
    }
    let padded = len.next_multiple_of(4);
    into[len..padded].fill(OPTION_END);
    Ok(padded)
}

/// Whether the header checksum is right, options included, of bytes that start with a header.
///
/// # Errors
/// [`Malformed::Checksum`] if not; [`Malformed::Truncated`] if there is no header.
#[inline(always)]
pub fn verify(bytes: &[u8]) -> Result<(), Malformed> {
    let (header, _) = view::split::<Header>(bytes, "ipv4 header")?;
    let len = header.header_len();
    let right = if len == LEN {
        header.checksum_ok()
    } else {
        let header = bytes.get(..len).ok_or(Malformed::Truncated {
            field: "ipv4 options",
            needed: len,
            have: bytes.len(),
        })?;
        checksum::checksum(header) == 0
    };
    if right { Ok(()) } else { Err(Malformed::Checksum("ipv4 header")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header whose checksum is widely known: b861.
    const KNOWN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
        0xa8, 0x00, 0xc7,
    ];

    fn known_packet() -> Vec<u8> {
        let mut packet = KNOWN.to_vec();
        packet.resize(0x73, 0xaa);
        packet
    }

    #[test]
    fn known_bytes() {
        let mut packet = known_packet();
        packet.extend([0; 9]); // padding of the frame
        let (header, payload) = parse(&packet).unwrap();
        assert_eq!((header.header_len(), payload.len()), (20, 0x73 - 20));
        assert_eq!((header.total_length(), header.checksum(), header.ttl), (0x73, 0xb861, 64));
        assert_eq!((header.protocol, header.is_fragment()), (UDP, false));
        assert_eq!(header.source().to_string(), "192.168.0.1");
        assert_eq!(header.destination().to_string(), "192.168.0.199");
        verify(&packet).unwrap();
        let built = Header::new(header.source(), header.destination(), UDP, 64, payload.len()).unwrap();
        assert_eq!(built.with_flags(DONT_FRAGMENT).as_bytes(), KNOWN);
        assert!(Header::new(header.source(), header.destination(), UDP, 64, 65516).is_none());
    }

    #[test]
    fn changes_keep_the_checksum_right() {
        let mut packet = known_packet();
        let (header, _) = parse_mut(&mut packet).unwrap();
        while header.ttl > 0 {
            header.decrement_ttl();
            assert_eq!(header.summed(), *header, "ttl {}", header.ttl);
        }
        for id in 0..=u16::MAX {
            let mut header = header.with_id(id);
            header.ttl = 9;
            let mut header = header.summed();
            header.decrement_ttl();
            assert_eq!(header.summed(), header, "id {id}");
        }
        for value in (0..=u16::MAX).step_by(13) {
            header.set_id(value);
            header.set_total_length(!value);
            header.set_tos(value as u8);
            assert!(header.checksum_ok(), "{value}");
        }
    }

    #[test]
    fn options_are_skipped_and_summed() {
        let mut packet = known_packet();
        packet[0] = 0x46;
        packet.splice(20..20, [1, 1, 1, 0]);
        packet[3] += 4;
        packet[10..12].fill(0);
        let sum = checksum::checksum(&packet[..24]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        verify(&packet).unwrap();
        let (header, payload) = parse(&packet).unwrap();
        assert_eq!((header.header_len(), payload[0], options(&packet)), (24, 0xaa, &[1, 1, 1, 0][..]));
        packet[20] = 7;
        assert_eq!(verify(&packet), Err(Malformed::Checksum("ipv4 header")));
    }

    #[test]
    fn only_copied_options_go_into_each_fragment() {
        // RFC 791 §3.1: no operation, record route (7) is not copied, loose source route (131) and stream id (136) are.
        let options = [1, 7, 7, 4, 0, 0, 0, 0, 131, 7, 4, 10, 0, 0, 1, 1, 136, 4, 0x12, 0x34, 0, 131, 9, 9];
        let mut into = [0xff; OPTIONS];
        assert_eq!(copied_options(&options, &mut into), Ok(12));
        assert_eq!(into[..13], [131, 7, 4, 10, 0, 0, 1, 136, 4, 0x12, 0x34, 0, 0xff]);
        assert_eq!(copied_options(&[7, 3, 4, 0], &mut into), Ok(0));
        assert_eq!(copied_options(&[131, 40].repeat(20), &mut into), Ok(40));
        for broken in [&[131][..], &[131, 0, 0, 0], &[7, 1, 0, 0], &[1, 131, 4, 0], &[131, 41, 0, 0]] {
            assert!(matches!(copied_options(broken, &mut into), Err(Malformed::Length { .. })), "{broken:?}");
        }
        assert!(copied_options(&[131, 44].repeat(22), &mut into).is_err());
    }

    #[test]
    fn flags_and_offset() {
        let header = Header::new([0; 4].into(), [0; 4].into(), UDP, 64, 0).unwrap();
        let middle = header.with_flags(MORE_FRAGMENTS | 185);
        assert_eq!(
            (middle.fragment_offset(), middle.more_fragments(), middle.dont_fragment()),
            (1480, true, false)
        );
        let whole = header.with_flags(DONT_FRAGMENT);
        assert_eq!(
            (whole.fragment_offset(), whole.more_fragments(), whole.dont_fragment()),
            (0, false, true)
        );
        assert_eq!(header.with_flags(0xffff).fragment_offset(), 65528);
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |at: usize, value: u8| {
            let mut packet = known_packet();
            packet[at] = value;
            assert_eq!(parse(&packet).is_err(), parse_mut(&mut packet).is_err());
            parse(&packet).unwrap_err()
        };
        assert_eq!(refused(0, 0x65), Malformed::Value { field: "ipv4 version", found: 6 });
        assert_eq!(refused(0, 0x44), Malformed::Value { field: "ipv4 header length", found: 16 });
        assert_eq!(
            refused(3, 0x74),
            Malformed::Length { field: "ipv4 total length", says: 0x74, have: 0x73 }
        );
        assert_eq!(refused(3, 19), Malformed::Length { field: "ipv4 header length", says: 20, have: 19 });
        assert!(matches!(parse(&KNOWN[..19]), Err(Malformed::Truncated { .. })));
        assert!(verify(&[0x4f; 20]).is_err());
    }
}
