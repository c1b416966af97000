//! Traffic selectors (RFC 7296 §3.13.1).

use std::net::IpAddr;

/// Packets that an SA is for: a range of addresses, of ports, and a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A range of addresses; both ends of one family.
    Addresses {
        /// IP protocol; 0: any.
        protocol: u8,
        /// First and last port; 0 and 65535: all.
        ports: (u16, u16),
        /// First and last address.
        addresses: (IpAddr, IpAddr),
    },
    /// Of a type that is not known.
    Unknown {
        /// Its type.
        kind: u8,
        /// IP protocol.
        protocol: u8,
        /// The rest.
        data: Vec<u8>,
    },
}

impl Selector {
    /// One address, one protocol, all ports.
    #[must_use]
    pub const fn host(address: IpAddr, protocol: u8) -> Self {
        Self::Addresses { protocol, ports: (0, u16::MAX), addresses: (address, address) }
    }
}
