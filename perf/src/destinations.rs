//! Where the packets of a scenario go: prefixes, and addresses in them.

use std::net::IpAddr;

use model::Prefix;

use crate::intervals::Intervals;
use crate::mix::{IPV4, IPV6, Mix, Route, probe};
use crate::reference::Random;
use crate::scenario::Family;
use crate::width::Width;

/// Seed of the routes of a public table.
const SEED: u64 = 0x6e61_7665;

/// Prefixes, each with a number from 0.
#[derive(Debug)]
pub(crate) enum Destinations {
    /// So many, one behind the other: /24 from 20.0.0.0 on, /48 from 2a00:: on.
    Dense(Family, u32),
    /// As in a public table.
    V4(Public<u32>),
    V6(Public<u128>),
}

/// Routes as in a public table, and where their addresses lead.
#[derive(Debug)]
pub(crate) struct Public<A> {
    routes: Vec<Route<A>>,
    oracle: Intervals<A>,
}

impl<A: Width> Public<A> {
    fn new(mix: &Mix, count: u32) -> Self {
        let routes = mix.routes(count, SEED);
        Self { oracle: Intervals::of(&routes), routes }
    }

    /// An address in a prefix that is chosen at random, and the number of the longest one that it is in.
    fn draw(&self, random: &mut Random) -> (A::Ip, u32) {
        let addr = probe(&self.routes, random);
        // In one prefix at least, and words are from 1.
        (addr.ip(), self.oracle.lookup(addr).saturating_sub(1))
    }

    fn each(&self, mut to: impl FnMut(Prefix, u32))
    where
        A::Ip: Into<IpAddr>,
    {
        for route in &self.routes {
            to(prefix(route.first.ip().into(), route.len), route.word - 1);
        }
    }
}

impl Destinations {
    /// So many prefixes of the family.
    pub(crate) fn new(family: Family, count: u32, public: bool) -> Self {
        match (public, family) {
            (false, _) => Self::Dense(family, count),
            (true, Family::Ipv4) => Self::V4(Public::new(&IPV4, count)),
            (true, Family::Ipv6) => Self::V6(Public::new(&IPV6, count)),
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Dense(_, count) => *count as usize,
            Self::V4(public) => public.routes.len(),
            Self::V6(public) => public.routes.len(),
        }
    }

    /// Whether they are as in a public table.
    pub(crate) fn is_public(&self) -> bool {
        !matches!(self, Self::Dense(..))
    }

    /// An address, the prefix chosen at random, and the number of the prefix that it is in.
    pub(crate) fn draw(&self, random: &mut Random) -> (IpAddr, u32) {
        match self {
            Self::Dense(family, count) => {
                let number = random.below(*count);
                (host(*family, number, random), number)
            }
            Self::V4(public) => {
                let (addr, number) = public.draw(random);
                (addr.into(), number)
            }
            Self::V6(public) => {
                let (addr, number) = public.draw(random);
                (addr.into(), number)
            }
        }
    }

    /// Gives every prefix with its number.
    pub(crate) fn each(&self, mut to: impl FnMut(Prefix, u32)) {
        match self {
            Self::Dense(family, count) => {
                (0..*count).for_each(|number| to(dense_prefix(*family, number), number));
            }
            Self::V4(public) => public.each(to),
            Self::V6(public) => public.each(to),
        }
    }
}

/// A host of the prefix with this number.
fn dense(family: Family, number: u32, host: u32) -> IpAddr {
    match family {
        Family::Ipv4 => (u32::from_be_bytes([20, 0, 0, 0]) + (number << 8) + host).ip().into(),
        Family::Ipv6 => ((0x2a00 << 112) + (u128::from(number) << 80) + u128::from(host)).ip().into(),
    }
}

/// An address in the prefix with this number, if they are not as in a public table.
pub(crate) fn host(family: Family, number: u32, random: &mut Random) -> IpAddr {
    dense(family, number, random.below(254) + 1)
}

/// The prefix with this number, if they are not as in a public table.
pub(crate) fn dense_prefix(family: Family, number: u32) -> Prefix {
    prefix(dense(family, number, 0), if family == Family::Ipv4 { 24 } else { 48 })
}

fn prefix(addr: IpAddr, len: u8) -> Prefix {
    Prefix::new(addr, len).unwrap_or(Prefix::host(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output: every address that is drawn is in the prefix that it is said to be in, and numbers are those of the prefixes.
    #[test]
    fn an_address_is_in_its_prefix() {
        for (family, public) in [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|f| [(f, false), (f, true)])
        {
            let destinations = Destinations::new(family, 500, public);
            let mut prefixes = vec![None; 500];
            destinations.each(|prefix, number| prefixes[number as usize] = Some(prefix));
            assert_eq!((destinations.count(), destinations.is_public()), (500, public));
            let mut random = Random(5);
            for _ in 0..2000 {
                let (addr, number) = destinations.draw(&mut random);
                let prefix = prefixes[number as usize].unwrap();
                assert!(prefix.contains(addr), "{addr} in {prefix}");
            }
        }
    }
}
