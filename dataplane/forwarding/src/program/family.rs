//! The two address families, and the tables of a FIB, which has both.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memory::MapError;
use model::program::Owner;
use model::{Prefix, TableId};

use super::build::{Change, Looks};
use super::objects::Objects;
use super::routes::RouteClaims;
use super::slots::Target;
use crate::fib::{self, FibPrefix, TableWriter};
use crate::ports::InterfaceId;
use crate::tables;

/// `u32` for IPv4, `u128` for IPv6: what the builder keeps of each.
pub(super) trait Family: fib::Address + crate::tables::Address {
    /// A prefix and an owner in few bytes, in the order of prefixes and then owners.
    type ClaimKey: Copy + Ord + Hash + Debug + Send + Sync;

    /// Prefixes that lead where no route may lead, and what they lead to instead.
    const FIXED: &'static [(Self, u8, Target)];

    /// The address.
    fn addr(self) -> IpAddr;
    /// Prefix and owner to key.
    fn claim_key(prefix: FibPrefix<Self>, owner: Owner) -> Self::ClaimKey;
    /// Key to prefix and owner.
    fn claimed(key: Self::ClaimKey) -> (FibPrefix<Self>, Owner);
    /// This family's half of a table.
    fn half(table: &TableState) -> &Half<Self>;
    /// The same, to change it.
    fn half_mut(table: &mut TableState) -> &mut Half<Self>;
    /// This family's routes.
    fn routes(objects: &Objects) -> &RouteClaims<Self>;
    /// This family's part of a change.
    fn looks(change: &mut Change) -> &mut Looks<Self>;

    /// As the FIB has it, a next hop of a tunnel: a link-local one with the tunnel's number in it.
    #[must_use]
    fn on(self, _tunnel: InterfaceId) -> Self {
        self
    }

    /// Of such a one the number, and the address without it.
    fn link(self) -> Option<(InterfaceId, Self)> {
        None
    }

    /// The prefix in the model's words.
    fn prefix_of(prefix: FibPrefix<Self>) -> Prefix {
        let addr = prefix.first().addr();
        Prefix::new(addr, prefix.length()).unwrap_or(Prefix::host(addr))
    }
}

/// RFC 1812 §5.3.7, RFC 1122 §3.2.1.3; and multicast (RFC 1112 §4).
const FIXED4: [(u32, u8, Target); 4] = [
    (0, 8, Target::Martian),
    (127 << 24, 8, Target::Martian),
    (224 << 24, 4, Target::Multicast),
    (240 << 24, 4, Target::Martian),
];

/// RFC 4291: unspecified (§2.5.2), loopback (§2.5.3), IPv4-mapped (§2.5.5.2; RFC 4942 §2.2), link-local (§2.5.6: forwarded by nobody,
/// so that only own addresses in it lead somewhere), multicast (§2.7).
const FIXED6: [(u128, u8, Target); 5] = [
    (0, 128, Target::Martian),
    (1, 128, Target::Martian),
    (0xffff << 32, 96, Target::Martian),
    (0xfe80 << 112, LINK_LOCAL_LEN, Target::Martian),
    (0xff00 << 112, 8, Target::Multicast),
];
const LINK_LOCAL_LEN: u8 = 10;
/// Groups that [`FIXED6`] takes: 13 on the way to the two hosts, one more for the last octet of the mapped prefix.
const FIXED6_GROUPS: usize = 14;

impl Family for u32 {
    type ClaimKey = u64;
    const FIXED: &'static [(Self, u8, Target)] = &FIXED4;

    fn addr(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
    fn claim_key(prefix: FibPrefix<u32>, owner: Owner) -> u64 {
        <u32 as fib::Address>::key(prefix) << 2 | owner as u64
    }
    fn claimed(key: u64) -> (FibPrefix<u32>, Owner) {
        (<u32 as fib::Address>::prefix(key >> 2), Owner::ALL[(key & 3) as usize])
    }
    fn half(table: &TableState) -> &Half<u32> {
        &table.v4
    }
    fn half_mut(table: &mut TableState) -> &mut Half<u32> {
        &mut table.v4
    }
    fn routes(objects: &Objects) -> &RouteClaims<u32> {
        &objects.v4
    }
    fn looks(change: &mut Change) -> &mut Looks<u32> {
        &mut change.v4
    }
}

impl Family for u128 {
    type ClaimKey = (u64, u64, u16);
    const FIXED: &'static [(Self, u8, Target)] = &FIXED6;

    fn addr(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
    fn claim_key(prefix: FibPrefix<u128>, owner: Owner) -> (u64, u64, u16) {
        let (high, low, len) = <u128 as fib::Address>::key(prefix);
        (high, low, u16::from(len) << 2 | owner as u16)
    }
    fn claimed((high, low, len): (u64, u64, u16)) -> (FibPrefix<u128>, Owner) {
        let prefix = <u128 as fib::Address>::prefix((high, low, (len >> 2) as u8));
        (prefix, Owner::ALL[usize::from(len & 3)])
    }
    fn half(table: &TableState) -> &Half<u128> {
        &table.v6
    }
    fn half_mut(table: &mut TableState) -> &mut Half<u128> {
        &mut table.v6
    }
    fn routes(objects: &Objects) -> &RouteClaims<u128> {
        &objects.v6
    }
    fn looks(change: &mut Change) -> &mut Looks<u128> {
        &mut change.v6
    }
    fn on(self, tunnel: InterfaceId) -> Self {
        tables::on_link(self, tunnel.0)
    }
    fn link(self) -> Option<(InterfaceId, Self)> {
        let number = (self >> tables::LINK_SHIFT) as u16;
        let plain = self & !(0xffff << tables::LINK_SHIFT);
        (number != 0 && tables::is_on_link(plain)).then(|| (InterfaceId(number - 1), plain))
    }
}

const _: () = assert!(Owner::ALL.len() <= 4, "an owner has two bits");

/// What a fixed prefix makes of a prefix in it; `None` if it is in none.
pub(super) fn fixed<A: Family>(prefix: FibPrefix<A>) -> Option<Fixed> {
    let holds =
        |(first, len, _): &&(A, u8, Target)| prefix.length() >= *len && prefix.first().floor(*len) == *first;
    let (first, len, target) = A::FIXED.iter().find(holds)?;
    Some(match prefix.length() == *len {
        true => Fixed::Leads(*target),
        false if (first.addr(), *len) == (LINK_LOCAL, LINK_LOCAL_LEN) => Fixed::LinkLocal,
        false => Fixed::Within,
    })
}

const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

/// Of a prefix that is fixed, or lies in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixed {
    /// It is one, and leads there.
    Leads(Target),
    /// It lies in fe80::/10.
    LinkLocal,
    /// It lies in another.
    Within,
}

/// One table: its place is its index in the program's list.
#[derive(Debug)]
pub(super) struct TableState {
    pub(super) id: TableId,
    pub(super) v4: Half<u32>,
    pub(super) v6: Half<u128>,
}

/// One family of a table.
#[derive(Debug)]
pub(super) struct Half<A: Family> {
    pub(super) fib: TableWriter<A>,
    /// Resolved next hops by address, with their interfaces: each may have a host entry in the FIB.
    pub(super) hosts: BTreeSet<(A, InterfaceId)>,
}

impl TableState {
    /// An empty table with room for so many blocks of IPv4 with long prefixes in them, and four times as many of IPv6 (see
    /// [`crate::fib`]).
    pub(super) fn new(id: TableId, groups: usize) -> Result<Self, MapError> {
        let v6 = groups * GROUPS6 + FIXED6_GROUPS;
        Ok(Self { id, v4: Half::new(groups)?, v6: Half::new(v6)? })
    }

    /// Every reader has acknowledged `generation`.
    pub(super) fn reclaim(&mut self, generation: u64) {
        self.v4.fib.reclaim(generation);
        self.v6.fib.reclaim(generation);
    }

    /// What was freed may be used again when every reader has acknowledged `generation`.
    pub(super) fn retire(&mut self, generation: u64) {
        self.v4.fib.retire(generation);
        self.v6.fib.retire(generation);
    }
}

/// Groups of an IPv6 table for each of an IPv4 table: a prefix may need several there.
const GROUPS6: usize = 4;

impl<A: Family> Half<A> {
    fn new(groups: usize) -> Result<Self, MapError> {
        Ok(Self { fib: TableWriter::new(groups)?, hosts: BTreeSet::new() })
    }

    /// The resolved next hops in a prefix.
    pub(super) fn hosts_in(&self, prefix: FibPrefix<A>) -> impl Iterator<Item = A> + '_ {
        let (from, to) = ((prefix.first(), InterfaceId(0)), (prefix.last(), InterfaceId(u16::MAX)));
        self.hosts.range(from..=to).map(|(addr, _)| *addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_there_and_back<A: Family>(prefixes: &[&str]) {
        let mut keys = Vec::new();
        for prefix in prefixes {
            let prefix: Prefix = prefix.parse().unwrap();
            let ours = FibPrefix::<A>::try_from(prefix).unwrap();
            assert_eq!(A::prefix_of(ours), prefix);
            for owner in Owner::ALL {
                let key = A::claim_key(ours, owner);
                assert_eq!(A::claimed(key), (ours, owner));
                keys.push(key);
            }
        }
        assert!(keys.is_sorted());
    }

    #[test]
    fn keys_hold_prefix_and_owner_in_their_order() {
        goes_there_and_back::<u32>(&["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "255.255.255.255/32"]);
        goes_there_and_back::<u128>(&["::/0", "2001:db8::/32", "2001:db8::/128", "ffff::/16"]);
    }

    #[test]
    fn what_no_route_may_lead_to_is_fixed() {
        let of = |text: &str| {
            let prefix: Prefix = text.parse().unwrap();
            match FibPrefix::<u32>::try_from(prefix) {
                Ok(prefix) => fixed(prefix),
                Err(prefix) => fixed(FibPrefix::<u128>::try_from(prefix).unwrap()),
            }
        };
        let martian = Some(Fixed::Leads(Target::Martian));
        assert_eq!(["127.0.0.0/8", "::/128", "::1/128", "::ffff:0:0/96", "fe80::/10"].map(of), [martian; 5]);
        assert_eq!(["127.1.0.0/16", "::ffff:1.2.3.4/128", "ff02::1/128"].map(of), [Some(Fixed::Within); 3]);
        assert_eq!(of("fe80::/64"), Some(Fixed::LinkLocal));
        assert_eq!(["0.0.0.0/0", "::/0", "::/96", "2000::/3", "10.0.0.0/8"].map(of), [None; 5]);
    }

    #[test]
    fn a_link_local_address_takes_the_number_of_its_link_and_no_other_does() {
        let bits = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
        for id in [0, 7, 4095] {
            let on = bits("fe80::1:2:3:4").on(InterfaceId(id));
            assert_eq!(on.link(), Some((InterfaceId(id), bits("fe80::1:2:3:4"))));
        }
        for text in ["fe80::1", "2001:db8::1", "fe80:1:1::1", "fe81:1::1", "fec0:1::1", "::"] {
            assert_eq!(bits(text).link(), None, "{text}");
        }
        for text in ["2001:db8::1", "fec0::1", "ff02::1", "::"] {
            assert_eq!(bits(text).on(InterfaceId(0)), bits(text), "{text}");
        }
        for text in ["fe80:0:1::1", "fe80:1::1", "fe81::1", "febf:ffff::1"] {
            assert_eq!(bits(text).on(InterfaceId(0)).link(), None, "{text}");
        }
    }
}
