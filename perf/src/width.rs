//! Addresses of both families as numbers, for what is measured in both.

use std::net::{Ipv4Addr, Ipv6Addr};

use forwarding::fib::Address;

use crate::reference::Random;

/// An address as a number: `u32` or `u128`.
pub(crate) trait Width: Address {
    /// The address as DPDK's tables want it: IPv4 in host byte order, IPv6 as in a packet.
    type Raw: Copy;

    /// The number, whatever its width.
    fn wide(self) -> u128;
    /// The lower bits of a number.
    fn from_wide(wide: u128) -> Self;
    /// The address whose first 64 bits (32 of IPv4) are the first of these.
    fn from_top(top: u64) -> Self;
    /// The first octet.
    fn first_octet(self) -> u8;
    /// Any address.
    fn random(random: &mut Random) -> Self;
    /// With its type.
    fn ip(self) -> Self::Ip;
    /// As DPDK's tables want it.
    fn raw(self) -> Self::Raw;
}

impl Width for u32 {
    type Raw = u32;

    fn wide(self) -> u128 {
        self.into()
    }
    fn from_wide(wide: u128) -> Self {
        wide as u32
    }
    fn from_top(top: u64) -> Self {
        (top >> 32) as u32
    }
    fn first_octet(self) -> u8 {
        (self >> 24) as u8
    }
    fn random(random: &mut Random) -> Self {
        (random.next() >> 32) as u32
    }
    fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self)
    }
    fn raw(self) -> u32 {
        self
    }
}

impl Width for u128 {
    type Raw = [u8; 16];

    fn wide(self) -> u128 {
        self
    }
    fn from_wide(wide: u128) -> Self {
        wide
    }
    fn from_top(top: u64) -> Self {
        u128::from(top) << 64
    }
    fn first_octet(self) -> u8 {
        (self >> 120) as u8
    }
    fn random(random: &mut Random) -> Self {
        u128::from(random.next()) << 64 | u128::from(random.next())
    }
    fn ip(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self)
    }
    fn raw(self) -> [u8; 16] {
        self.to_be_bytes()
    }
}
