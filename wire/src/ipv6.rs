//! IPv6 (RFC 8200): the fixed header, the fragment header, and the way over the extension headers.

use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Sum;
use crate::{Malformed, view};

/// Next header: hop-by-hop options (§4.3).
pub const HOP_BY_HOP: u8 = 0;
/// Next header: TCP.
pub const TCP: u8 = 6;
/// Next header: UDP.
pub const UDP: u8 = 17;
/// Next header: routing (§4.4).
pub const ROUTING: u8 = 43;
/// Next header: [`Fragment`] (§4.5).
pub const FRAGMENT: u8 = 44;
/// Next header: GRE.
pub const GRE: u8 = 47;
/// Next header: ESP (RFC 4303).
pub const ESP: u8 = 50;
/// Next header: authentication (RFC 4302).
pub const AH: u8 = 51;
/// Next header: ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Next header: nothing follows (§4.7).
pub const NO_NEXT: u8 = 59;
/// Next header: destination options (§4.6).
pub const DESTINATION_OPTIONS: u8 = 60;
/// Next header: OSPF.
pub const OSPF: u8 = 89;
/// Next header: mobility (RFC 6275).
pub const MOBILITY: u8 = 135;
/// Next header: host identity (RFC 7401).
pub const HIP: u8 = 139;
/// Next header: shim6 (RFC 5533).
pub const SHIM6: u8 = 140;
/// Length of the fixed header in bytes.
pub const LEN: usize = size_of::<Header>();
/// Every link takes packets of so many bytes (§5).
pub const MIN_MTU: usize = 1280;
/// Most extension headers that [`upper`] goes over. There are eight kinds of them, and none but destination options has a
/// reason to be there twice (§4.1).
pub const EXTENSIONS: usize = 8;

/// The fixed header; extension headers, if any, follow it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Version| Traffic Class |           Flow Label                  |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +                         Source Address                        +
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +                      Destination Address                      +
/// |                                                               |
/// +                                                               +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    payload_length: U16,
    /// What follows this header.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Header {
    /// A header in front of `payload_len` bytes, extension headers among them; traffic class and flow label are zero. `None` if
    /// the payload would pass 65,535 bytes.
    #[must_use]
    pub fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: u8,
        hop_limit: u8,
        payload_len: usize,
    ) -> Option<Self> {
        Some(Self {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(u16::try_from(payload_len).ok()?),
            next_header,
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        })
    }

    /// The same with another traffic class.
    #[must_use]
    pub const fn with_traffic_class(mut self, class: u8) -> Self {
        self.set_traffic_class(class);
        self
    }

    /// The same with another flow label, of which the low 20 bits count.
    #[must_use]
    pub const fn with_flow_label(mut self, label: u32) -> Self {
        self.version_class_flow = U32::new(self.version_class_flow.get() & !0xf_ffff | label & 0xf_ffff);
        self
    }

    /// DSCP and ECN (§7).
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// What the packets of one flow have in common: 20 bits (§6).
    #[inline(always)]
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0xf_ffff
    }

    /// Length of what follows the fixed header, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn payload_length(&self) -> u16 {
        self.payload_length.get()
    }

    /// Sender.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }

    /// Sender, as a number.
    #[inline(always)]
    #[must_use]
    pub const fn source_bits(&self) -> u128 {
        u128::from_be_bytes(self.source)
    }

    /// Receiver.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.destination)
    }

    /// Receiver, as a number.
    #[inline(always)]
    #[must_use]
    pub const fn destination_bits(&self) -> u128 {
        u128::from_be_bytes(self.destination)
    }

    /// Sets the traffic class.
    #[inline(always)]
    pub const fn set_traffic_class(&mut self, class: u8) {
        self.version_class_flow =
            U32::new(self.version_class_flow.get() & !(0xff << 20) | (class as u32) << 20);
    }

    /// Sets the length of what follows the fixed header, in bytes.
    #[inline(always)]
    pub fn set_payload_length(&mut self, len: u16) {
        self.payload_length.set(len);
    }

    /// The pseudo header of an upper protocol (§8.1) with `len` bytes of header and data, summed. `protocol` is what [`upper`]
    /// found: with extension headers it is another than [`Header::next_header`].
    #[must_use]
    pub fn pseudo_sum(&self, protocol: u8, len: u32) -> Sum {
        Sum::new().bytes(&self.source).bytes(&self.destination).u32(len).u32(protocol.into())
    }
}

/// The header of a fragment (§4.5).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                         Identification                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// What the whole packet has here.
    pub next_header: u8,
    reserved: u8,
    offset_more: U16,
    id: U32,
}

impl Fragment {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The header of the fragment at `offset` bytes, of which the low three bits are left out.
    #[must_use]
    pub const fn new(next_header: u8, offset: u16, more: bool, id: u32) -> Self {
        let offset_more = U16::new(offset & !7 | more as u16);
        Self { next_header, reserved: 0, offset_more, id: U32::new(id) }
    }

    /// Where the fragment's data belong, in bytes: a multiple of 8.
    #[inline(always)]
    #[must_use]
    pub const fn offset(&self) -> u16 {
        self.offset_more.get() & !7
    }

    /// Whether more fragments follow.
    #[inline(always)]
    #[must_use]
    pub const fn more(&self) -> bool {
        self.offset_more.get() & 1 != 0
    }

    /// What the fragments of one packet have in common.
    #[inline(always)]
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id.get()
    }
}

/// What a packet carries, behind its extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// The upper protocol. Of a later fragment, what its fragment header names: that may be an extension header.
    pub protocol: u8,
    /// Where it starts, in bytes from the start of the packet.
    pub offset: usize,
    /// Where the byte stands that names it.
    pub named_at: usize,
    /// Which part of a packet this is, if it is not a whole one. Offset 0 and no more to follow: a packet that is a fragment by
    /// itself (RFC 6946).
    pub part: Option<Part>,
}

impl Upper {
    /// Whether this is a fragment that does not have the upper protocol's header.
    #[inline(always)]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.part.is_some_and(|part| part.offset != 0)
    }
}

/// What the fragment header says, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where the fragment header starts, in bytes from the start of the packet: what is before is in each fragment.
    pub at: usize,
    /// Where the byte stands that names the fragment header: takes [`Part::next_header`] when the packet is whole again.
    pub named_at: usize,
    /// What the fragment header names.
    pub next_header: u8,
    /// Where the data belong, in bytes: a multiple of 8.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub id: u32,
}

/// Header and payload, extension headers included, without what follows the packet (a frame's padding). A payload length of
/// zero is an empty packet: no link here takes a jumbogram (RFC 2675).
///
/// # Errors
/// [`Malformed`] if version or length are wrong.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, rest) = view::split::<Header>(bytes, "ipv6 header")?;
    let len = check(header, rest.len())?;
    Ok((header, &rest[..len]))
}

/// As [`parse`], writable.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    let (header, rest) = view::split_mut::<Header>(bytes, "ipv6 header")?;
    let len = check(header, rest.len())?;
    Ok((header, &mut rest[..len]))
}

/// The payload length, checked against the `have` bytes behind the header.
#[inline(always)]
fn check(header: &Header, have: usize) -> Result<usize, Malformed> {
    let version = header.version_class_flow.get() >> 28;
    if version != 6 {
        return Err(Malformed::Value { field: "ipv6 version", found: version.into() });
    }
    let says = usize::from(header.payload_length());
    if says > have {
        return Err(Malformed::Length { field: "ipv6 payload length", says, have });
    }
    Ok(says)
}

/// What the packet carries: the way over its extension headers (§4.1), each of which ends in `packet`. The payload length is not
/// looked at (what [`parse`] accepted is a packet; what an ICMPv6 error quotes is shorter than it says), nor are options.
///
/// # Errors
/// [`Malformed`] if an extension header passes the end of `packet`, if there are more than [`EXTENSIONS`], if hop-by-hop
/// options are not the first (§4.3), or if there is a second fragment header.
#[inline(always)]
pub fn upper(packet: &[u8]) -> Result<Upper, Malformed> {
    let (header, _) = view::split::<Header>(packet, "ipv6 header")?;
    let first = Upper { protocol: header.next_header, offset: LEN, named_at: 6, part: None };
    match header.next_header {
        TCP | UDP | GRE | ESP | ICMPV6 => Ok(first),
        _ => over_extensions(packet, first),
    }
}

/// The rest of [`upper`]: what is rare.
fn over_extensions(packet: &[u8], mut found: Upper) -> Result<Upper, Malformed> {
    for _ in 0..=EXTENSIONS {
        let kind = found.protocol;
        if !is_extension(kind) {
            return Ok(found);
        }
        let rest = packet.get(found.offset..).unwrap_or(&[]);
        let (next, len) = match kind {
            FRAGMENT => {
                let (fragment, _) = view::split::<Fragment>(rest, "ipv6 fragment header")?;
                if found.part.is_some() {
                    return Err(Malformed::Value { field: "ipv6 next header", found: FRAGMENT.into() });
                }
                found.part = Some(Part {
                    at: found.offset,
                    named_at: found.named_at,
                    next_header: fragment.next_header,
                    offset: fragment.offset(),
                    more: fragment.more(),
                    id: fragment.id(),
                });
                (fragment.next_header, Fragment::LEN)
            }
            HOP_BY_HOP if found.offset != LEN => {
                return Err(Malformed::Value { field: "ipv6 next header", found: HOP_BY_HOP.into() });
            }
            _ => {
                let (&[next, len], _) = view::split::<[u8; 2]>(rest, "ipv6 extension header")?;
                // RFC 4302 §2.2: in units of 4 bytes, less two; of the others in units of 8, less one.
                let len = if kind == AH { (usize::from(len) + 2) * 4 } else { (usize::from(len) + 1) * 8 };
                if len > rest.len() {
                    let have = rest.len();
                    return Err(Malformed::Length { field: "ipv6 extension header", says: len, have });
                }
                (next, len)
            }
        };
        (found.protocol, found.named_at) = (next, found.offset);
        found.offset += len;
        if found.is_later_fragment() {
            return Ok(found);
        }
    }
    Err(Malformed::Value { field: "ipv6 extension headers", found: EXTENSIONS as u64 + 1 })
}

/// Whether a header of this kind is followed by another one (IANA, "IPv6 Extension Header Types"). Not ESP: what is behind it
/// is not to be read.
const fn is_extension(kind: u8) -> bool {
    matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AH | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header::new(FROM, TO, next_header, 64, payload.len()).unwrap();
        [header.as_bytes(), payload].concat()
    }

    #[test]
    fn known_bytes() {
        #[rustfmt::skip]
        let bytes = [
            0x6b, 0x81, 0x23, 0x45, 0, 2, 0x3a, 0xff,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
            0xaa, 0xbb, 0, 0, // two bytes of padding
        ];
        let (header, payload) = parse(&bytes).unwrap();
        assert_eq!(
            (header.traffic_class(), header.flow_label(), header.payload_length()),
            (0xb8, 0x1_2345, 2)
        );
        assert_eq!((header.next_header, header.hop_limit, payload), (ICMPV6, 255, &[0xaa, 0xbb][..]));
        assert_eq!((header.source(), header.destination()), (FROM, TO));
        assert_eq!((header.source_bits(), header.destination_bits()), (FROM.to_bits(), TO.to_bits()));
        let built = Header::new(FROM, TO, ICMPV6, 255, 2).unwrap();
        assert_eq!(built.with_flow_label(0xff1_2345).with_traffic_class(0xb8).as_bytes(), &bytes[..LEN]);
        assert_eq!(built.with_traffic_class(0xff).with_traffic_class(0), built);
        assert!(Header::new(FROM, TO, ICMPV6, 255, 65536).is_none());
    }

    #[test]
    fn contradictions_are_refused() {
        let mut bytes = packet(UDP, &[0; 4]);
        assert!(matches!(parse(&bytes[..39]), Err(Malformed::Truncated { .. })));
        let short = Malformed::Length { field: "ipv6 payload length", says: 4, have: 3 };
        assert_eq!(parse(&bytes[..43]), Err(short));
        assert_eq!(parse_mut(&mut bytes[..43]), Err(short));
        parse_mut(&mut bytes).unwrap().0.set_payload_length(3);
        assert_eq!(parse(&bytes).unwrap().1.len(), 3);
        bytes[0] = 0x45;
        assert_eq!(parse(&bytes), Err(Malformed::Value { field: "ipv6 version", found: 4 }));
    }

    #[test]
    fn the_pseudo_header_has_40_bytes() {
        let header = Header::new(FROM, TO, DESTINATION_OPTIONS, 64, 100).unwrap();
        // §8.1: addresses, length of the upper packet, three zeros and its number.
        let laid_out = [&FROM.octets()[..], &TO.octets(), &[0, 1, 0, 5], &[0, 0, 0, ICMPV6]].concat();
        assert_eq!(header.pseudo_sum(ICMPV6, 0x1_0005).checksum(), checksum::checksum(&laid_out));
    }

    #[test]
    fn a_fragment_header_has_known_bytes() {
        let bytes = [17, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef];
        let fragment = Fragment::new(UDP, 1448, true, 0xdead_beef);
        assert_eq!(fragment.as_bytes(), bytes);
        assert_eq!((fragment.offset(), fragment.more(), fragment.id()), (1448, true, 0xdead_beef));
        assert!(!Fragment::new(UDP, 1448, false, 0).more());
    }

    #[test]
    fn the_way_over_every_kind_of_header() {
        let plain = Upper { protocol: GRE, offset: 40, named_at: 6, part: None };
        assert_eq!(upper(&packet(GRE, &[])).unwrap(), plain);
        #[rustfmt::skip]
        let headers = [
            ROUTING, 0, 1, 4, 0, 0, 0, 0,                                   // hop-by-hop at 40
            AH, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                // routing at 48
            DESTINATION_OPTIONS, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1,           // AH at 64: (1 + 2) * 4 bytes
            FRAGMENT, 0, 1, 4, 0, 0, 0, 0,                                  // destination options at 76
            UDP, 0, 0, 1, 0, 0, 0, 7,                                       // first fragment at 84
            0xaa,                                                           // at 92
        ];
        let part = Part { at: 84, named_at: 76, next_header: UDP, offset: 0, more: true, id: 7 };
        let found = upper(&packet(HOP_BY_HOP, &headers)).unwrap();
        assert_eq!(found, Upper { protocol: UDP, offset: 92, named_at: 84, part: Some(part) });
        assert!(!found.is_later_fragment());
        // Of a later fragment nothing behind the fragment header is read.
        let later = [DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 7, 0xff, 0xff];
        let found = upper(&packet(FRAGMENT, &later)).unwrap();
        assert_eq!((found.protocol, found.offset, found.named_at), (DESTINATION_OPTIONS, 48, 40));
        assert!(found.is_later_fragment());
        // ESP, and nothing at all, end the way.
        for last in [ESP, NO_NEXT, 253] {
            assert_eq!(upper(&packet(last, &[])).unwrap(), Upper { protocol: last, ..plain });
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        assert!(matches!(upper(&[0x60; 39]), Err(Malformed::Truncated { .. })));
        for kind in [HOP_BY_HOP, ROUTING, AH, DESTINATION_OPTIONS, MOBILITY, HIP, SHIM6] {
            assert!(matches!(upper(&packet(kind, &[UDP])), Err(Malformed::Truncated { .. })), "{kind}");
            let says = if kind == AH { 12 } else { 16 };
            assert_eq!(
                upper(&packet(kind, &[UDP, 1, 0, 0, 0, 0, 0])),
                Err(Malformed::Length { field: "ipv6 extension header", says, have: 7 })
            );
        }
        assert!(matches!(
            upper(&packet(FRAGMENT, &[UDP, 0, 0, 0, 0, 0, 0])),
            Err(Malformed::Truncated { .. })
        ));
        let twice = [[FRAGMENT, 0, 0, 1, 0, 0, 0, 0], [UDP, 0, 0, 1, 0, 0, 0, 0]].concat();
        let not_here = |found| Err(Malformed::Value { field: "ipv6 next header", found });
        assert_eq!(upper(&packet(FRAGMENT, &twice)), not_here(44));
        assert_eq!(upper(&packet(DESTINATION_OPTIONS, &[0; 16])), not_here(0));
        let options = |count: usize| {
            let mut all = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(count);
            all[(count - 1) * 8] = TCP;
            packet(DESTINATION_OPTIONS, &all)
        };
        assert_eq!(upper(&options(EXTENSIONS)).unwrap().protocol, TCP);
        let found = EXTENSIONS as u64 + 1;
        assert_eq!(
            upper(&options(EXTENSIONS + 1)),
            Err(Malformed::Value { field: "ipv6 extension headers", found })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// What is found lies in the packet, and is where the headers before it lead.
        #[test]
        fn any_bytes_are_walked_within_their_bounds(
            first in prop::sample::select(vec![0_u8, 43, 44, 51, 60, 135, 139, 140, 6]),
            mut payload in prop::collection::vec(any::<u8>(), 0..200),
            kinds in prop::collection::vec((0_usize..200, prop::sample::select(vec![0_u8, 43, 44, 51, 60, 58])), 0..40),
        ) {
            for (at, kind) in kinds {
                if let Some([next, len]) = payload.get_mut(at..at + 2) {
                    (*next, *len) = (kind, *len & 1);
                }
            }
            let bytes = packet(first, &payload);
            if let Ok(found) = upper(&bytes) {
                prop_assert!(found.offset <= bytes.len() && found.named_at < found.offset);
                prop_assert_eq!(bytes[found.named_at], found.protocol);
                prop_assert!(found.is_later_fragment() || !is_extension(found.protocol));
                if let Some(part) = found.part {
                    prop_assert_eq!(bytes[part.named_at], FRAGMENT);
                    prop_assert_eq!(bytes[part.at], part.next_header);
                }
            }
        }
    }
}
