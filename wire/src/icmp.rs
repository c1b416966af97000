//! ICMP for IPv4 (RFC 792): echo, and the errors that a router sends (RFC 1812 §4.3).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, checksum, ipv4, view};

/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type of destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type of a redirect.
pub const REDIRECT: u8 = 5;
/// Type of an echo request.
pub const ECHO: u8 = 8;
/// Type of time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type of parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: no route.
pub const NET_UNREACHABLE: u8 = 0;
/// Code of [`UNREACHABLE`]: a route, but the next hop does not answer.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: larger than the next link allows, and not to be fragmented.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Code of [`UNREACHABLE`]: administratively prohibited.
pub const PROHIBITED: u8 = 13;
/// Length of the header in bytes.
pub const LEN: usize = size_of::<Header>();
/// The same with that of IP before it.
pub const HEADERS: usize = ipv4::LEN + LEN;
/// Most bytes of the packet at fault that an error quotes: the error then has 576 bytes (RFC 1812 §4.3.2.3).
pub const QUOTED: usize = 576 - HEADERS;

/// The header of a message.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |           Checksum            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |    identifier, or 0           |   sequence number, or MTU     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Kind of message.
    pub kind: u8,
    /// Kind within the kind.
    pub code: u8,
    checksum: U16,
    first: U16,
    second: U16,
}

impl Header {
    /// A header; its checksum is filled in by [`Header::fill_checksum`].
    const fn new(kind: u8, code: u8, first: u16, second: u16) -> Self {
        Self { kind, code, checksum: U16::ZERO, first: U16::new(first), second: U16::new(second) }
    }

    /// An echo request.
    #[must_use]
    pub const fn echo(identifier: u16, sequence: u16) -> Self {
        Self::new(ECHO, 0, identifier, sequence)
    }

    /// The answer to an echo request.
    #[must_use]
    pub const fn echo_reply(identifier: u16, sequence: u16) -> Self {
        Self::new(ECHO_REPLY, 0, identifier, sequence)
    }

    /// Destination unreachable, for the reason `code`.
    #[must_use]
    pub const fn unreachable(code: u8) -> Self {
        Self::new(UNREACHABLE, code, 0, 0)
    }

    /// Destination unreachable: larger than `mtu` bytes (RFC 1191 §4).
    #[must_use]
    pub const fn fragmentation_needed(mtu: u16) -> Self {
        Self::new(UNREACHABLE, FRAGMENTATION_NEEDED, 0, mtu)
    }

    /// Time to live exceeded in transit.
    #[must_use]
    pub const fn time_exceeded() -> Self {
        Self::new(TIME_EXCEEDED, 0, 0, 0)
    }

    /// Identifier of an echo.
    #[must_use]
    pub const fn identifier(&self) -> u16 {
        self.first.get()
    }

    /// Sequence number of an echo.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        self.second.get()
    }

    /// MTU of the next link, in a [`FRAGMENTATION_NEEDED`].
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.second.get()
    }

    /// Computes the checksum of the message that is this header and `body`.
    pub fn fill_checksum(&mut self, body: &[u8]) {
        self.checksum = U16::ZERO;
        self.checksum.set(checksum::Sum::new().bytes(self.as_bytes()).bytes(body).checksum());
    }

    /// Whether this tells of an error; errors are not answered with errors.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self.kind, UNREACHABLE | 4 | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }
}

/// Header and body of a message, its checksum verified.
///
/// # Errors
/// [`Malformed`] if it is short or its checksum wrong.
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let parts = view::split(bytes, "icmp header")?;
    if checksum::checksum(bytes) != 0 {
        return Err(Malformed::Checksum("icmp"));
    }
    Ok(parts)
}

/// As [`parse`], writable, the checksum not looked at.
///
/// # Errors
/// [`Malformed`] if it is short.
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    view::split_mut(bytes, "icmp header")
}

/// An IPv4 packet with the message `header` and `body` in it. `None` if it would pass 65,535 bytes.
#[must_use]
pub fn packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    tos: u8,
    header: Header,
    body: &[u8],
) -> Option<Vec<u8>> {
    Some([&headers(source, destination, ttl, tos, header, body)?, body].concat())
}

/// What stands before the body of a message.
fn headers(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    tos: u8,
    mut header: Header,
    body: &[u8],
) -> Option<[u8; HEADERS]> {
    let ip = ipv4::Header::new(source, destination, ipv4::ICMP, ttl, LEN + body.len())?.with_tos(tos);
    header.fill_checksum(body);
    let mut both = [0; HEADERS];
    both[..ipv4::LEN].copy_from_slice(ip.as_bytes());
    both[ipv4::LEN..].copy_from_slice(header.as_bytes());
    Some(both)
}

/// The error `header` about the IPv4 packet at the front of `offending`, from `source` to its sender, with as much of it as RFC
/// 1812 §4.3.2.3 lets one quote. Precedence as of control traffic (§4.3.2.5). `None` if nobody may be told (§4.3.2.7): it
/// is an ICMP error itself, a later fragment, to or from a group, or from no single host.
///
/// The headers, and what is quoted behind them: whoever has a buffer puts them together without another one.
#[must_use]
pub fn error(source: Ipv4Addr, header: Header, offending: &[u8]) -> Option<([u8; HEADERS], &[u8])> {
    let (ip, payload) = ipv4::parse(offending).ok()?;
    let (from, to) = (ip.source(), ip.destination());
    let nobody =
        from.is_unspecified() || from.is_loopback() || from.is_multicast() || from.octets()[0] >= 240;
    if nobody || to.is_multicast() || to.is_broadcast() || ip.flags_offset() & ipv4::OFFSET_MASK != 0 {
        return None;
    }
    if ip.protocol == ipv4::ICMP && view::split::<Header>(payload, "icmp").is_ok_and(|(h, _)| h.is_error()) {
        return None;
    }
    let quoted = &offending[..usize::from(ip.total_length()).min(QUOTED)];
    Some((headers(source, from, 64, ipv4::CS6, header, quoted)?, quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_fault(payload: &[u8], protocol: u8, to: [u8; 4]) -> Vec<u8> {
        let ip = ipv4::Header::new([10, 0, 0, 9].into(), to.into(), protocol, 1, payload.len()).unwrap();
        [ip.as_bytes(), payload].concat()
    }

    #[test]
    fn an_echo_has_known_bytes() {
        let bytes =
            packet([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 64, 0, Header::echo(0x1234, 1), b"ab")
                .unwrap();
        // Sum by hand: 0800 + 1234 + 0001 + 6162 = 7b97.
        assert_eq!(bytes[20..], [8, 0, 0x84, 0x68, 0x12, 0x34, 0, 1, b'a', b'b']);
        let (ip, message) = ipv4::parse(&bytes).unwrap();
        assert_eq!((ip.protocol, ip.checksum_ok()), (ipv4::ICMP, true));
        let (header, body) = parse(message).unwrap();
        assert_eq!(
            (header.kind, header.identifier(), header.sequence(), body),
            (ECHO, 0x1234, 1, &b"ab"[..])
        );
        let mut broken = message.to_vec();
        broken[9] ^= 1;
        assert_eq!(parse(&broken), Err(Malformed::Checksum("icmp")));
        assert!(matches!(parse(&message[..7]), Err(Malformed::Truncated { .. })));
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let offending = at_fault(&[0x55; 1000], ipv4::UDP, [10, 1, 0, 1]);
        let told = error([10, 0, 0, 1].into(), Header::fragmentation_needed(1400), &offending).unwrap();
        let bytes = [&told.0, told.1].concat();
        assert_eq!(bytes.len(), 576);
        let (ip, message) = ipv4::parse(&bytes).unwrap();
        assert_eq!((ip.destination().octets(), ip.tos), ([10, 0, 0, 9], ipv4::CS6));
        let (header, body) = parse(message).unwrap();
        assert_eq!((header.kind, header.code, header.mtu()), (UNREACHABLE, 4, 1400));
        assert_eq!(body, &offending[..QUOTED]);
    }

    #[test]
    fn nobody_is_told_about_errors_groups_and_later_fragments() {
        let told =
            |offending: &[u8]| error([10, 0, 0, 1].into(), Header::time_exceeded(), offending).is_some();
        assert!(told(&at_fault(b"12345678", ipv4::UDP, [10, 1, 0, 1])));
        assert!(told(&at_fault(Header::echo(1, 1).as_bytes(), ipv4::ICMP, [10, 1, 0, 1])));
        assert!(!told(&at_fault(Header::time_exceeded().as_bytes(), ipv4::ICMP, [10, 1, 0, 1])));
        assert!(!told(&at_fault(b"12345678", ipv4::UDP, [224, 0, 0, 5])));
        let mut fragment = at_fault(b"12345678", ipv4::UDP, [10, 1, 0, 1]);
        fragment[7] = 1;
        assert!(!told(&fragment));
        let mut nowhere = at_fault(b"12345678", ipv4::UDP, [10, 1, 0, 1]);
        nowhere[12..16].fill(0);
        assert!(!told(&nowhere));
    }
}
