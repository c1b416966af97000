//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, ethernet, view};

/// Operation: who has this address?
pub const REQUEST: u16 = 1;
/// Operation: I do.
pub const REPLY: u16 = 2;
/// Length of a packet in bytes.
pub const LEN: usize = size_of::<Header>();

/// A whole packet: hardware type Ethernet, protocol type IPv4.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |       hardware type (1)       |    protocol type (0x0800)     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  hw length 6  | proto length 4|           operation           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    sender hardware address                    |
/// +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                               |    sender protocol address    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  sender protocol (continued)  |    target hardware address    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    target protocol address                    |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    hardware_type: U16,
    protocol_type: U16,
    hardware_length: u8,
    protocol_length: u8,
    operation: U16,
    /// Ethernet address of the sender.
    pub sender_mac: [u8; 6],
    sender: [u8; 4],
    /// Ethernet address of the target; zero in a request.
    pub target_mac: [u8; 6],
    target: [u8; 4],
}

impl Header {
    /// A packet.
    #[must_use]
    pub const fn new(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Self {
        Self {
            hardware_type: U16::new(1),
            protocol_type: U16::new(ethernet::IPV4),
            hardware_length: 6,
            protocol_length: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender: sender.1.octets(),
            target_mac: target.0,
            target: target.1.octets(),
        }
    }

    /// A request for the Ethernet address of `target`; goes to [`ethernet::BROADCAST`].
    #[must_use]
    pub const fn request(sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self::new(REQUEST, (sender_mac, sender), ([0; 6], target))
    }

    /// The reply to this request: its target has the address `mac`.
    #[must_use]
    pub const fn reply(&self, mac: [u8; 6]) -> Self {
        Self::new(REPLY, (mac, self.target()), (self.sender_mac, self.sender()))
    }

    /// What the packet wants.
    #[must_use]
    pub const fn operation(&self) -> u16 {
        self.operation.get()
    }

    /// IPv4 address of the sender.
    #[must_use]
    pub const fn sender(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.sender)
    }

    /// IPv4 address of the target.
    #[must_use]
    pub const fn target(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.target)
    }
}

/// An ARP packet and the frame's padding.
///
/// # Errors
/// [`Malformed`] if it is too short, or not about IPv4 over Ethernet.
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, rest) = view::split::<Header>(bytes, "arp packet")?;
    let fixed = [
        ("arp hardware type", header.hardware_type.get(), 1),
        ("arp protocol type", header.protocol_type.get(), ethernet::IPV4),
        ("arp hardware length", header.hardware_length.into(), 6),
        ("arp protocol length", header.protocol_length.into(), 4),
    ];
    match fixed.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((field, found, _)) => Err(Malformed::Value { field, found: found.into() }),
        None => Ok((header, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_BYTES: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2];

    #[test]
    fn known_bytes_and_the_reply_to_them() {
        let (request, rest) = parse(&REQUEST_BYTES).unwrap();
        assert_eq!((request.operation(), request.sender_mac, rest.len()), (REQUEST, [2, 0, 0, 0, 0, 9], 0));
        assert_eq!(Header::request([2, 0, 0, 0, 0, 9], request.sender(), request.target()), *request);
        let reply = request.reply([2, 0, 0, 0, 0, 7]);
        assert_eq!(
            reply.as_bytes(),
            [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 7, 192, 0, 2, 2, 2, 0, 0, 0, 0, 9, 192, 0, 2, 1]
        );
    }

    #[test]
    fn other_families_and_short_packets_are_refused() {
        assert!(matches!(parse(&REQUEST_BYTES[..27]), Err(Malformed::Truncated { .. })));
        for at in [1, 3, 4, 5] {
            let mut bytes = REQUEST_BYTES;
            bytes[at] ^= 0x10;
            assert!(matches!(parse(&bytes), Err(Malformed::Value { .. })), "byte {at}");
        }
    }
}
