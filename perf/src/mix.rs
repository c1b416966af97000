//! Routes as in a public table: prefix lengths in its shares, and more specific prefixes inside shorter ones.
//!
//! Shares of lengths, rounded, as the tables of 2024 have them (of which there are reports at bgp.potaroo.net), in percent:
//!
//! | IPv4 | /8–/15 | /16 | /17 | /18 | /19 | /20 | /21 | /22 | /23 | /24 | /25–/32 |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | | 0.4 | 1.4 | 0.9 | 1.5 | 2.6 | 4.6 | 5.3 | 11.4 | 10.2 | 61.2 | 0.5 |
//!
//! | IPv6 | /28–/31 | /32 | /33–/35 | /36 | /37–/39 | /40 | /41–/43 | /44 | /45–/47 | /48 |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | | 2.5 | 11.0 | 5.5 | 5.5 | 2.5 | 8.5 | 3.5 | 8.5 | 6.5 | 46.0 |
//!
//! A public table ends at /24 and /48. The half percent behind that are the routes of its own that a router has besides: links,
//! hosts. 54 % of the IPv4 prefixes and 57 % of the IPv6 prefixes lie in a shorter one, which is chosen at random from those at
//! most 12 bits shorter; the others lie anywhere in the address space that registries give out (IPv6 from /40 on: in the
//! blocks of provider-independent addresses, of which there are few).

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::reference::Random;
use crate::width::Width;

/// A prefix and where it leads: a number from 1, of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<A> {
    pub(crate) first: A,
    pub(crate) len: u8,
    pub(crate) word: u32,
}

impl<A: Width> Route<A> {
    pub(crate) fn last(&self) -> A {
        self.first.ceil(self.len)
    }

    pub(crate) fn holds(&self, addr: A) -> bool {
        addr.floor(self.len) == self.first
    }
}

/// What a family's table is like.
#[derive(Debug)]
pub(crate) struct Mix {
    /// Lengths from short to long with their shares, of 100,000.
    shares: &'static [(u8, u32)],
    /// The most frequent length, which gets what rounding leaves.
    most: u8,
    /// Percentage of prefixes that lie in a shorter one.
    nested: u32,
    /// Where the others lie: the upper 64 bits of an address (IPv4: 32, and zeroes) and how many of them are given.
    blocks: &'static [(u64, u8)],
    /// The same for prefixes of [`Mix::long`] bits and more.
    long_blocks: &'static [(u64, u8)],
    long: u8,
    /// First octets where none of them lies.
    reserved: &'static [RangeInclusive<u8>],
}

/// Bits by which a prefix is at most longer than the one that it was chosen to lie in.
const DEEPEST: u8 = 12;

/// The IPv4 table. Its address space: 1.0.0.0 to 223.255.255.255 without the first octets of private and special addresses,
/// which the scenarios use themselves.
pub(crate) const IPV4: Mix = Mix {
    shares: &[
        (8, 2),
        (9, 2),
        (10, 4),
        (11, 10),
        (12, 30),
        (13, 60),
        (14, 120),
        (15, 200),
        (16, 1_400),
        (17, 850),
        (18, 1_450),
        (19, 2_600),
        (20, 4_600),
        (21, 5_300),
        (22, 11_400),
        (23, 10_200),
        (24, 61_272),
        (25, 50),
        (26, 50),
        (27, 60),
        (28, 80),
        (29, 80),
        (30, 60),
        (31, 20),
        (32, 100),
    ],
    most: 24,
    nested: 54,
    blocks: &[(0, 0)],
    long_blocks: &[],
    long: 33,
    reserved: &[0..=0, 10..=10, 100..=100, 127..=127, 169..=169, 172..=172, 192..=192, 198..=198, 224..=255],
};

/// The IPv6 table. The blocks are those that the five registries give out; the long ones are provider-independent.
pub(crate) const IPV6: Mix = Mix {
    shares: &[
        (28, 100),
        (29, 2_000),
        (30, 300),
        (31, 100),
        (32, 11_000),
        (33, 2_500),
        (34, 2_000),
        (35, 1_000),
        (36, 5_500),
        (37, 500),
        (38, 1_400),
        (39, 600),
        (40, 8_500),
        (41, 700),
        (42, 2_000),
        (43, 800),
        (44, 8_500),
        (45, 1_500),
        (46, 3_000),
        (47, 2_000),
        (48, 46_000),
    ],
    most: 48,
    nested: 57,
    blocks: &[
        (0x2400_0000_0000_0000, 12),
        (0x2600_0000_0000_0000, 12),
        (0x2800_0000_0000_0000, 12),
        (0x2a00_0000_0000_0000, 12),
        (0x2a10_0000_0000_0000, 12),
        (0x2c00_0000_0000_0000, 12),
    ],
    long_blocks: &[
        (0x2001_0678_0000_0000, 29),
        (0x2001_0df0_0000_0000, 29),
        (0x2001_43f8_0000_0000, 29),
        (0x2620_0000_0000_0000, 23),
        (0x2801_0000_0000_0000, 24),
    ],
    long: 40,
    reserved: &[],
};

impl Mix {
    /// So many routes, in random order: the same each time for a number and a seed.
    pub(crate) fn routes<A: Width>(&self, count: u32, seed: u64) -> Vec<Route<A>> {
        let mut random = Random(seed);
        let mut known: Vec<(A, u8)> = Vec::with_capacity(count as usize);
        let mut seen = HashSet::with_capacity(count as usize);
        for (len, wanted) in self.counts(count) {
            let shorter = known.len();
            for _ in 0..wanted {
                let first = loop {
                    let first = self.place(&known[..shorter], len, &mut random);
                    if seen.insert((first, len)) {
                        break first;
                    }
                };
                known.push((first, len));
            }
        }
        for at in (1..known.len()).rev() {
            known.swap(at, random.below(at as u32 + 1) as usize);
        }
        (1..).zip(known).map(|(word, (first, len))| Route { first, len, word }).collect()
    }

    /// Lengths and how many prefixes of each there are among `count`.
    pub(crate) fn counts(&self, count: u32) -> Vec<(u8, u32)> {
        let part = |share: u32| (u64::from(count) * u64::from(share) / 100_000) as u32;
        let mut counts: Vec<_> = self.shares.iter().map(|(len, share)| (*len, part(*share))).collect();
        let left = count - counts.iter().map(|(_, count)| count).sum::<u32>();
        counts.iter_mut().filter(|(len, _)| *len == self.most).for_each(|(_, count)| *count += left);
        counts
    }

    /// A prefix of this length: in one of the `shorter` ones, or anywhere.
    fn place<A: Width>(&self, shorter: &[(A, u8)], len: u8, random: &mut Random) -> A {
        if !shorter.is_empty() && random.below(100) < self.nested {
            for _ in 0..TRIES {
                let (within, len_within) = shorter[random.below(shorter.len() as u32) as usize];
                if len - len_within <= DEEPEST {
                    return join(within, len_within, A::random(random)).floor(len);
                }
            }
        }
        let blocks = if len >= self.long { self.long_blocks } else { self.blocks };
        loop {
            let (top, given) = blocks[random.below(blocks.len() as u32) as usize];
            let first = join(A::from_top(top), given, A::random(random)).floor(len);
            if !self.reserved.iter().any(|octets| octets.contains(&first.first_octet())) {
                return first;
            }
        }
    }
}

/// Choices of a shorter prefix to lie in, before a prefix lies anywhere.
const TRIES: u32 = 16;

/// The first `len` bits of one address and the others of another one.
fn join<A: Width>(high: A, len: u8, low: A) -> A {
    A::from_wide(high.floor(len).wide() | low.wide() & A::MIN.ceil(len).wide())
}

/// An address in a prefix that is chosen at random, all with the same probability.
pub(crate) fn probe<A: Width>(routes: &[Route<A>], random: &mut Random) -> A {
    let route = &routes[random.below(routes.len() as u32) as usize];
    join(route.first, route.len, A::random(random))
}

/// Groups that the routes need in a table that takes 24 bits of an address at once and then 8 at a time.
pub(crate) fn groups<A: Width>(routes: &[Route<A>]) -> u32 {
    let mut blocks = HashSet::new();
    for route in routes {
        for depth in 0..route.len.saturating_sub(24).div_ceil(8) {
            let len = 24 + 8 * depth;
            blocks.insert((route.first.floor(len), len));
        }
    }
    blocks.len() as u32
}

/// Groups that all the routes need if none shares one with another.
pub(crate) fn groups_apart<A: Width>(routes: &[Route<A>]) -> u32 {
    routes.iter().map(|route| u32::from(route.len.saturating_sub(24).div_ceil(8))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forwarding::fib::Address;

    fn nested<A: Width>(routes: &[Route<A>]) -> usize {
        let known: HashSet<_> = routes.iter().map(|route| (route.first, route.len)).collect();
        let covers =
            |route: &&Route<A>| (1..route.len).any(|len| known.contains(&(route.first.floor(len), len)));
        routes.iter().filter(covers).count()
    }

    /// Output: as many as were asked for, each once, in the shares of the documentation, more than half inside others.
    #[test]
    fn a_table_has_the_shares_that_it_says() {
        let routes: Vec<Route<u32>> = IPV4.routes(100_000, 1);
        assert_eq!(routes, IPV4.routes(100_000, 1));
        assert_ne!(routes, IPV4.routes(100_000, 2));
        let distinct: HashSet<_> = routes.iter().map(|route| (route.first, route.len)).collect();
        assert_eq!((routes.len(), distinct.len()), (100_000, 100_000));
        let of = |len| routes.iter().filter(|route| route.len == len).count();
        assert_eq!([of(16), of(22), of(24), of(32)], [1_400, 11_400, 61_272, 100]);
        assert!(routes.iter().all(|route| route.first.floor(route.len) == route.first));
        assert!(routes.iter().all(|route| !matches!(route.first >> 24, 0 | 10 | 127 | 224..)));
        assert!((50_000..60_000).contains(&nested(&routes)), "{}", nested(&routes));

        let routes: Vec<Route<u128>> = IPV6.routes(20_000, 1);
        let mean = routes.iter().map(|route| f64::from(route.len)).sum::<f64>() / 20_000.0;
        assert!((42.0..43.5).contains(&mean), "{mean}");
        assert!((10_800..13_000).contains(&nested(&routes)), "{}", nested(&routes));
    }

    #[test]
    fn the_shares_are_a_whole() {
        for mix in [&IPV4, &IPV6] {
            assert_eq!(mix.shares.iter().map(|(_, share)| share).sum::<u32>(), 100_000);
            assert_eq!(mix.counts(7).iter().map(|(_, count)| count).sum::<u32>(), 7);
        }
    }

    #[test]
    fn groups_are_counted_once() {
        let route = |addr: [u8; 4], len| Route { first: u32::from_be_bytes(addr), len, word: 1 };
        assert_eq!(groups(&[route([1, 0, 0, 0], 24)]), 0);
        let three = [route([1, 0, 0, 0], 25), route([1, 0, 0, 7], 32), route([1, 0, 1, 0], 32)];
        assert_eq!((groups(&three), groups_apart(&three)), (2, 3));
        let host = Route { first: 0x2001_u128 << 112, len: 128, word: 1 };
        assert_eq!(groups(&[host]), 13);
    }
}
