//! Addresses of both families as the FIB sees them, and prefixes of them.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u128 {}
}

/// The bits of an address: `u32` for IPv4, `u128` for IPv6.
pub trait Address: sealed::Sealed + Copy + Eq + Ord + Hash + Debug + Send + Sync + 'static {
    /// The address with its type.
    type Ip: Copy;
    /// A prefix in few bytes, ordered as [`FibPrefix`] is.
    type Key: Copy + Ord + Debug + Send + Sync;

    /// Bits of an address.
    const BITS: u8;
    /// Strides of 8 bits behind the first 24.
    const STRIDES: usize = (Self::BITS as usize - 24) / 8;
    /// The first address.
    const MIN: Self;
    /// The last address.
    const MAX: Self;

    /// The address's bits.
    fn bits(addr: Self::Ip) -> Self;
    /// The address's bits, if it is of this family.
    fn of(addr: IpAddr) -> Option<Self>;
    /// With the bits behind the first `len` zero.
    #[must_use]
    fn floor(self, len: u8) -> Self;
    /// With the bits behind the first `len` one.
    #[must_use]
    fn ceil(self, len: u8) -> Self;
    /// How many bits two addresses share from the front.
    fn shared(self, other: Self) -> u8;
    /// Its place in a block of words: the first 24 bits for depth 0, the next 8 for depth 1, and so on.
    fn place(self, depth: usize) -> usize;
    /// The next address; `None` behind the last.
    fn next(self) -> Option<Self>;
    /// The address before; of the first one, the last.
    #[must_use]
    fn previous(self) -> Self;
    /// Prefix to key.
    fn key(prefix: FibPrefix<Self>) -> Self::Key;
    /// Key to prefix.
    fn prefix(key: Self::Key) -> FibPrefix<Self>;
}

macro_rules! address {
    ($bits:ty, $ip:ident, $family:ident, $key:ty, $to_key:expr, $from_key:expr) => {
        impl Address for $bits {
            type Ip = $ip;
            type Key = $key;
            const BITS: u8 = <$bits>::BITS as u8;
            const MIN: Self = 0;
            const MAX: Self = Self::MAX;

            #[inline(always)]
            fn bits(addr: $ip) -> Self {
                addr.to_bits()
            }
            fn of(addr: IpAddr) -> Option<Self> {
                if let IpAddr::$family(addr) = addr { Some(addr.to_bits()) } else { None }
            }
            #[inline]
            fn floor(self, len: u8) -> Self {
                self & Self::MAX.checked_shl(Self::BITS - u32::from(len)).unwrap_or(0)
            }
            #[inline]
            fn ceil(self, len: u8) -> Self {
                self | Self::MAX.checked_shr(len.into()).unwrap_or(0)
            }
            #[inline]
            fn shared(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
            #[inline(always)]
            fn place(self, depth: usize) -> usize {
                let rest = self >> (Self::BITS - 24 - 8 * depth as u32);
                if depth == 0 { rest as usize } else { rest as usize & 0xff }
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Self {
                self.wrapping_sub(1)
            }
            #[inline]
            fn key(prefix: FibPrefix<Self>) -> Self::Key {
                $to_key(prefix.first, prefix.len)
            }
            #[inline]
            fn prefix(key: Self::Key) -> FibPrefix<Self> {
                let (first, len) = $from_key(key);
                FibPrefix { first, len }
            }
        }
    };
}
address!(u32, Ipv4Addr, V4, u64, |first, len| u64::from(first) << 8 | u64::from(len), |key| (
    (key >> 8) as u32,
    key as u8
));
address!(u128, Ipv6Addr, V6, (u64, u64, u8), |first, len| ((first >> 64) as u64, first as u64, len), |(
    high,
    low,
    len,
)| (
    u128::from(high) << 64 | u128::from(low),
    len
));

/// A prefix; bits behind the length are zero. Ordered by address, then by length: a prefix stands before all that it
/// covers, and they stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FibPrefix<A> {
    first: A,
    len: u8,
}

/// An IPv4 prefix.
pub type V4Prefix = FibPrefix<u32>;
/// An IPv6 prefix.
pub type V6Prefix = FibPrefix<u128>;

impl<A: Address> FibPrefix<A> {
    /// The prefix of `len` bits that holds `addr`; `None` if the family has fewer bits.
    #[must_use]
    pub fn new(addr: A::Ip, len: u8) -> Option<Self> {
        (len <= A::BITS).then(|| Self::of(A::bits(addr), len))
    }

    /// The prefix of one host.
    #[must_use]
    pub const fn host(addr: A) -> Self {
        Self { first: addr, len: A::BITS }
    }

    /// Its first address.
    #[must_use]
    pub const fn first(self) -> A {
        self.first
    }

    /// Its length in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.len
    }

    /// The prefix of `len` bits, which the family has, that holds `addr`.
    pub(crate) fn of(addr: A, len: u8) -> Self {
        Self { first: addr.floor(len), len }
    }

    /// Its last address.
    pub(crate) fn last(self) -> A {
        self.first.ceil(self.len)
    }

    /// Whether `other` lies in it whole.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.len <= other.len && other.first.floor(self.len) == self.first
    }

    /// Groups between the first array and the words of this prefix.
    pub(super) fn depth(self) -> usize {
        usize::from(self.len.saturating_sub(24)).div_ceil(8)
    }
}

impl<A: Address> TryFrom<model::Prefix> for FibPrefix<A> {
    type Error = model::Prefix;

    /// The prefix is handed back if it is of the other family.
    fn try_from(prefix: model::Prefix) -> Result<Self, model::Prefix> {
        A::of(prefix.addr()).map(|addr| Self::of(addr, prefix.length())).ok_or(prefix)
    }
}
