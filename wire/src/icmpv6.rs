//! ICMP for IPv6 (RFC 4443): echo, and the errors that a router sends.

use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, ipv4, ipv6, view};

/// Type of destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type of packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type of time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type of parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type of an echo request.
pub const ECHO: u8 = 128;
/// Type of an echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Type of a router solicitation (RFC 4861 §4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type of a router advertisement (RFC 4861 §4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type of a neighbour solicitation (RFC 4861 §4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement (RFC 4861 §4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Type of a redirect (RFC 4861 §4.5).
pub const REDIRECT: u8 = 137;
/// Code of [`UNREACHABLE`]: no route.
pub const NO_ROUTE: u8 = 0;
/// Code of [`UNREACHABLE`]: administratively prohibited.
pub const PROHIBITED: u8 = 1;
/// Code of [`UNREACHABLE`]: the source address does not reach as far as the destination is.
pub const BEYOND_SCOPE: u8 = 2;
/// Code of [`UNREACHABLE`]: a route, but the next hop does not answer.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Code of [`PARAMETER_PROBLEM`]: an option that is not known.
pub const UNKNOWN_OPTION: u8 = 2;
/// Length of the header in bytes.
pub const LEN: usize = size_of::<Header>();
/// The same with that of IP before it.
pub const HEADERS: usize = ipv6::LEN + LEN;
/// Most bytes of the packet at fault that an error quotes: the error then has 1,280 bytes (§2.4 (c)).
pub const QUOTED: usize = ipv6::MIN_MTU - HEADERS;

/// The header of a message.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      |     Code      |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   identifier and sequence number, or MTU, or pointer, or 0    |
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
    parameter: U32,
}

impl Header {
    /// A header; its checksum is filled in by [`Header::fill_checksum`].
    const fn new(kind: u8, code: u8, parameter: u32) -> Self {
        Self { kind, code, checksum: U16::ZERO, parameter: U32::new(parameter) }
    }

    /// An echo request.
    #[must_use]
    pub const fn echo(identifier: u16, sequence: u16) -> Self {
        Self::new(ECHO, 0, (identifier as u32) << 16 | sequence as u32)
    }

    /// The answer to an echo request.
    #[must_use]
    pub const fn echo_reply(identifier: u16, sequence: u16) -> Self {
        Self::new(ECHO_REPLY, 0, (identifier as u32) << 16 | sequence as u32)
    }

    /// Destination unreachable, for the reason `code` (§3.1).
    #[must_use]
    pub const fn unreachable(code: u8) -> Self {
        Self::new(UNREACHABLE, code, 0)
    }

    /// Larger than `mtu` bytes, which the next link takes (§3.2).
    #[must_use]
    pub const fn packet_too_big(mtu: u32) -> Self {
        Self::new(PACKET_TOO_BIG, 0, mtu)
    }

    /// Hop limit exceeded in transit (§3.3).
    #[must_use]
    pub const fn time_exceeded() -> Self {
        Self::new(TIME_EXCEEDED, 0, 0)
    }

    /// The byte at `pointer` of the packet cannot be dealt with, for the reason `code` (§3.4).
    #[must_use]
    pub const fn parameter_problem(code: u8, pointer: u32) -> Self {
        Self::new(PARAMETER_PROBLEM, code, pointer)
    }

    /// Identifier of an echo.
    #[must_use]
    pub const fn identifier(&self) -> u16 {
        (self.parameter.get() >> 16) as u16
    }

    /// Sequence number of an echo.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        self.parameter.get() as u16
    }

    /// MTU of the next link, in a [`PACKET_TOO_BIG`].
    #[must_use]
    pub const fn mtu(&self) -> u32 {
        self.parameter.get()
    }

    /// Where the fault is, in a [`PARAMETER_PROBLEM`].
    #[must_use]
    pub const fn pointer(&self) -> u32 {
        self.parameter.get()
    }

    /// Computes the checksum of the message that is this header and `body`, in a packet with the header `ip`.
    pub fn fill_checksum(&mut self, ip: &ipv6::Header, body: &[u8]) {
        self.checksum = U16::ZERO;
        self.checksum.set(self.sum(ip, body));
    }

    /// The checksum over pseudo header, header and `body` (§2.3).
    fn sum(&self, ip: &ipv6::Header, body: &[u8]) -> u16 {
        ip.pseudo_sum(ipv6::ICMPV6, (LEN + body.len()) as u32).bytes(self.as_bytes()).bytes(body).checksum()
    }

    /// Whether this tells of an error: the high bit of the type is clear (§2.1).
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.kind < 128
    }
}

/// Header and body of a message that is the upper packet of `ip`, its checksum verified.
///
/// # Errors
/// [`Malformed`] if it is short or its checksum wrong.
pub fn parse<'a>(ip: &ipv6::Header, bytes: &'a [u8]) -> Result<(&'a Header, &'a [u8]), Malformed> {
    let (header, body) = view::split::<Header>(bytes, "icmpv6 header")?;
    if header.sum(ip, body) != 0 {
        return Err(Malformed::Checksum("icmpv6"));
    }
    Ok((header, body))
}

/// Header and body of a message, writable, the checksum not looked at.
///
/// # Errors
/// [`Malformed`] if it is short.
pub fn parse_mut(bytes: &mut [u8]) -> Result<(&mut Header, &mut [u8]), Malformed> {
    view::split_mut(bytes, "icmpv6 header")
}

/// An IPv6 packet with the message `header` and `body` in it. `None` if its payload would pass 65,535 bytes.
#[must_use]
pub fn packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    traffic_class: u8,
    header: Header,
    body: &[u8],
) -> Option<Vec<u8>> {
    Some([&headers(source, destination, hop_limit, traffic_class, header, body)?, body].concat())
}

/// What stands before the body of a message.
fn headers(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    traffic_class: u8,
    mut header: Header,
    body: &[u8],
) -> Option<[u8; HEADERS]> {
    let ip = ipv6::Header::new(source, destination, ipv6::ICMPV6, hop_limit, LEN + body.len())?;
    let ip = ip.with_traffic_class(traffic_class);
    header.fill_checksum(&ip, body);
    let mut both = [0; HEADERS];
    both[..ipv6::LEN].copy_from_slice(ip.as_bytes());
    both[ipv6::LEN..].copy_from_slice(header.as_bytes());
    Some(both)
}

/// The error `header` about the IPv6 packet at the front of `offending`, from `source` to its sender, with as much of it as fits
/// into 1,280 bytes (§2.4 (c)). Precedence as of control traffic. `None` if nobody may be told (§2.4 (e)): it is an ICMPv6
/// error or redirect itself, from no single node, or to a group, unless it is too big or has an option that wants this told;
/// or its headers lead nowhere, so that nobody can say what it is.
///
/// A later fragment is told about: an error fits every link and has no fragments.
///
/// The headers, and what is quoted behind them: whoever has a buffer puts them together without another one.
#[must_use]
pub fn error(source: Ipv6Addr, header: Header, offending: &[u8]) -> Option<([u8; HEADERS], &[u8])> {
    let (ip, payload) = ipv6::parse(offending).ok()?;
    let offending = &offending[..ipv6::LEN + payload.len()];
    let (from, to) = (ip.source(), ip.destination());
    let may_be_to_group =
        matches!((header.kind, header.code), (PACKET_TOO_BIG, _) | (PARAMETER_PROBLEM, UNKNOWN_OPTION));
    let nobody = from.is_unspecified() || from.is_loopback() || from.is_multicast();
    if nobody || to.is_multicast() && !may_be_to_group {
        return None;
    }
    let upper = ipv6::upper(offending).ok()?;
    if upper.protocol == ipv6::ICMPV6 && !upper.is_later_fragment() {
        // One without a type may be an error.
        let kind = *offending.get(upper.offset)?;
        if kind < 128 || kind == REDIRECT {
            return None;
        }
    }
    let quoted = &offending[..offending.len().min(QUOTED)];
    Some((headers(source, from, 64, ipv4::CS6, header, quoted)?, quoted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
    const TO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

    fn at_fault(from: Ipv6Addr, to: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let ip = ipv6::Header::new(from, to, next_header, 1, payload.len()).unwrap();
        [ip.as_bytes(), payload].concat()
    }

    #[test]
    fn an_echo_has_known_bytes() {
        let bytes = packet(OWN, FROM, 64, 0, Header::echo(0x1234, 1), b"ab").unwrap();
        // Sum by hand: pseudo header 2 * (2001 + 0db8) + 0001 + 0009 + 000a + 003a = 5bc0; 8000 + 1234 + 0001 + 6162 = f397;
        // together 1_4f57, folded 4f58, complement b0a7.
        assert_eq!(bytes[40..], [128, 0, 0xb0, 0xa7, 0x12, 0x34, 0, 1, b'a', b'b']);
        let (ip, message) = ipv6::parse(&bytes).unwrap();
        assert_eq!((ip.next_header, ip.hop_limit), (ipv6::ICMPV6, 64));
        let (header, body) = parse(ip, message).unwrap();
        assert_eq!(
            (header.kind, header.identifier(), header.sequence(), body),
            (ECHO, 0x1234, 1, &b"ab"[..])
        );
        let mut broken = message.to_vec();
        broken[9] ^= 1;
        assert_eq!(parse(ip, &broken), Err(Malformed::Checksum("icmpv6")));
        assert!(matches!(parse(ip, &message[..7]), Err(Malformed::Truncated { .. })));
        let (header, body) = parse_mut(&mut broken).unwrap();
        header.fill_checksum(ip, body);
        assert!(parse(ip, &broken).is_ok());
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let mut offending = at_fault(FROM, TO, ipv6::UDP, &[0x55; 1400]);
        offending.extend([0xee; 9]); // padding of the frame
        let told = error(OWN, Header::packet_too_big(1300), &offending).unwrap();
        let bytes = [&told.0, told.1].concat();
        assert_eq!(bytes.len(), 1280);
        let (ip, message) = ipv6::parse(&bytes).unwrap();
        assert_eq!((ip.source(), ip.destination(), ip.traffic_class()), (OWN, FROM, ipv4::CS6));
        let (header, body) = parse(ip, message).unwrap();
        assert_eq!((header.kind, header.code, header.mtu()), (PACKET_TOO_BIG, 0, 1300));
        assert_eq!(body, &offending[..QUOTED]);
        let mut short = at_fault(FROM, TO, ipv6::UDP, &[0x55; 30]);
        short.extend([0xee; 9]);
        assert_eq!(error(OWN, Header::unreachable(NO_ROUTE), &short).unwrap().1, &short[..70]);
    }

    #[test]
    fn nobody_is_told_about_errors_and_groups() {
        let told = |offending: &[u8]| error(OWN, Header::time_exceeded(), offending).is_some();
        let udp = b"12345678";
        assert!(told(&at_fault(FROM, TO, ipv6::UDP, udp)));
        assert!(told(&at_fault(FROM, TO, ipv6::ICMPV6, Header::echo(1, 1).as_bytes())));
        for header in [
            Header::time_exceeded(),
            Header::packet_too_big(1280),
            Header::parameter_problem(0, 40),
            Header::new(REDIRECT, 0, 0),
            Header::new(127, 0, 0),
        ] {
            assert!(!told(&at_fault(FROM, TO, ipv6::ICMPV6, header.as_bytes())), "{header:?}");
            // However many headers stand before it.
            let behind = [&[ipv6::ICMPV6, 0, 1, 4, 0, 0, 0, 0][..], header.as_bytes()].concat();
            assert!(!told(&at_fault(FROM, TO, ipv6::DESTINATION_OPTIONS, &behind)), "{header:?}");
        }
        assert!(!told(&at_fault(FROM, TO, ipv6::ICMPV6, &[])));
        assert!(!told(&at_fault(FROM, TO, ipv6::DESTINATION_OPTIONS, &[ipv6::UDP, 9, 0, 0, 0, 0, 0, 0])));
        for nobody in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, GROUP] {
            assert!(!told(&at_fault(nobody, TO, ipv6::UDP, udp)), "{nobody}");
        }
        let to_group = at_fault(FROM, GROUP, ipv6::UDP, udp);
        assert!(!told(&to_group));
        assert!(error(OWN, Header::packet_too_big(1280), &to_group).is_some());
        assert!(error(OWN, Header::parameter_problem(UNKNOWN_OPTION, 42), &to_group).is_some());
        assert!(error(OWN, Header::parameter_problem(1, 42), &to_group).is_none());
    }

    #[test]
    fn a_later_fragment_is_told_about() {
        let fragment = |offset| {
            let header = ipv6::Fragment::new(ipv6::ICMPV6, offset, true, 1);
            at_fault(FROM, TO, ipv6::FRAGMENT, &[header.as_bytes(), &[3; 8]].concat())
        };
        assert!(error(OWN, Header::packet_too_big(1280), &fragment(8)).is_some());
        assert!(error(OWN, Header::packet_too_big(1280), &fragment(0)).is_none());
    }
}
