//! The FIB: longest-prefix match for both families, by the first 24 bits of an address at once and then by 8 at a time.
//!
//! ```text
//!   address        24 bits             8          8      …  IPv4: one stride behind the first, IPv6: 13
//!           +-----------------------+----------+----------+
//!           |      index into 2^24  |  octet   |  octet   |
//!           +-----------------------+----------+----------+
//!                      │                  │          │
//!   first     +--------▼---------+        │          │
//!   2^24 words| 0: default       |        │          │
//!             | word             |        │          │
//!             | 1<<31 | group  ──┼──► +---▼------+   │        groups of 256 words, the same at every depth
//!             +------------------+    | 0        |   │
//!                                     | word     |   │
//!                                     | group  ──┼─► +---▼------+
//!                                     +----------+   | …        |
//! ```
//!
//! (For IPv4 the scheme is DIR-24-8: Gupta, Lin, McKeown, "Routing lookups in hardware at memory access speeds", 1998.)
//!
//! | longest prefix in the block of 24 bits | /24 | /32 | /40 | /48 | /56 | /64 | /128 |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | memory accesses | 1 | 2 | 3 | 4 | 5 | 6 | 14 |
//!
//! Both arrays are mapped lazily and zero means "the default word", kept apart: an empty table or one with nothing but a
//! default route costs no memory, a cloud of a thousand spokes a few pages, a full one 64 MiB for the first array. A group is 1
//! KiB: one for each distinct block of 24, 32, 40 … bits with longer prefixes in it. So an IPv6 table of n /48 takes 2 groups
//! for each where they are far apart (24 to 32 bits shared by all of a registry's), and 256 of them together take one; a host
//! route in a /64 of its own takes 8.
//!
//! The [`Writer`] stores words in place while workers read. A word changes by one atomic store, so that a reader sees the
//! old route of an address or the new one and never a third thing; a group is filled before a word points to it. A group that is
//! no longer pointed to is used again only after every reader has taken a new breath: [`TableWriter::retire`] and
//! [`TableWriter::reclaim`].

mod prefix;
mod writer;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use memory::{HugeVec, prefetch_slice};

pub use prefix::{Address, FibPrefix, V4Prefix, V6Prefix};
pub use writer::TableWriter;

/// The IPv4 table.
pub type Fib = Table<u32>;
/// The IPv6 table.
pub type Fib6 = Table<u128>;
/// The writer of an IPv4 table.
pub type Writer = TableWriter<u32>;
/// The writer of an IPv6 table.
pub type Writer6 = TableWriter<u128>;

/// Set in a word: the rest is the number of a group.
const GROUP: u32 = 1 << 31;
/// Words of a group.
const GROUP_LEN: usize = 256;
/// Words of the first array.
const FIRST_LEN: usize = 1 << 24;

/// What a route leads to, in 31 bits that the user of the table gives a meaning to; not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(u32);

impl Word {
    /// `None` if the value is 0 or needs more than 31 bits.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value & GROUP != 0 { None } else { Some(Self(value)) }
    }

    /// The value.
    #[inline(always)]
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

/// More groups are needed than are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the FIB has no room for more prefixes longer than 24 bits: of {groups} groups too few are free")]
pub struct Full {
    /// Groups of the table.
    pub groups: usize,
}

/// Memory of a table in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Pages of the first array that were written.
    pub first: usize,
    /// Pages of the groups that were written.
    pub groups: usize,
    /// The shadow table, about.
    pub shadow: usize,
}

/// The table as workers read it: [`Fib`] or [`Fib6`].
#[derive(Debug)]
pub struct Table<A> {
    first: HugeVec<AtomicU32>,
    groups: HugeVec<AtomicU32>,
    default: AtomicU32,
    family: PhantomData<A>,
}

impl<A: Address> Table<A> {
    /// The word of the longest prefix that holds `addr`; 0: no route.
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self, addr: A::Ip) -> u32 {
        self.lookups()(addr)
    }

    /// [`Table::lookup`] for a loop: where the table is does not stand between one look-up and the next.
    #[inline(always)]
    pub(crate) fn lookups(&self) -> impl Fn(A::Ip) -> u32 {
        let (first, groups) = (self.all_first(), &*self.groups);
        move |addr| {
            let addr = A::bits(addr);
            let mut word = first[addr.place(0)].load(Ordering::Acquire);
            // What is most, neither a group nor nothing, in one look.
            if word.cast_signed() > 0 {
                return word;
            }
            for depth in 1..=A::STRIDES {
                if word & GROUP == 0 {
                    break;
                }
                word = groups[place_in_group(word, addr, depth)].load(Ordering::Acquire);
            }
            if word != 0 { word } else { self.default.load(Ordering::Relaxed) }
        }
    }

    /// The first array: as many words as there are blocks of 24 bits, so that none needs a check.
    #[inline(always)]
    fn all_first(&self) -> &[AtomicU32; FIRST_LEN] {
        match self.first.first_chunk() {
            Some(first) => first,
            None => unreachable!("it is made so long"),
        }
    }

    /// Asks the cache for the word that [`Table::lookup`] of `addr` reads first.
    #[inline(always)]
    pub fn prefetch(&self, addr: A::Ip) {
        self.prefetches()(addr);
    }

    /// [`Table::prefetch`] for a loop.
    #[inline(always)]
    pub(crate) fn prefetches(&self) -> impl Fn(A::Ip) {
        let first = &*self.first;
        move |addr| prefetch_slice(first, A::bits(addr).place(0))
    }

    /// [`Table::lookup`] of many addresses, so that their cache misses overlap. Looks up as many as the shorter slice has.
    #[inline]
    pub fn lookup_bulk(&self, addrs: &[A::Ip], words: &mut [u32]) {
        let bits = || addrs.iter().map(|addr| A::bits(*addr));
        for addr in addrs {
            self.prefetch(*addr);
        }
        let mut deeper = false;
        for (addr, word) in bits().zip(words.iter_mut()) {
            *word = self.first[addr.place(0)].load(Ordering::Acquire);
            deeper |= self.prefetch_group(*word, addr, 1);
        }
        for depth in 1..=A::STRIDES {
            if !std::mem::take(&mut deeper) {
                break;
            }
            for (addr, word) in bits().zip(words.iter_mut()) {
                if *word & GROUP != 0 {
                    *word = self.groups[place_in_group(*word, addr, depth)].load(Ordering::Acquire);
                    deeper |= depth < A::STRIDES && self.prefetch_group(*word, addr, depth + 1);
                }
            }
        }
        let default = self.default.load(Ordering::Relaxed);
        for (_, word) in addrs.iter().zip(words).filter(|(_, word)| **word == 0) {
            *word = default;
        }
    }

    /// Asks the cache for the word of `addr` in the group that `word` points to; whether it does.
    #[inline(always)]
    fn prefetch_group(&self, word: u32, addr: A, depth: usize) -> bool {
        if word & GROUP != 0 {
            prefetch_slice(&self.groups, place_in_group(word, addr, depth));
        }
        word & GROUP != 0
    }

    /// The words of the group that a word points to; `None` if it is no pointer.
    fn group(&self, word: u32) -> Option<&[AtomicU32]> {
        let start = (word & !GROUP) as usize * GROUP_LEN;
        (word & GROUP != 0).then(|| &self.groups[start..start + GROUP_LEN])
    }
}

/// Index of an address's word in the array of groups.
#[inline(always)]
fn place_in_group<A: Address>(word: u32, addr: A, depth: usize) -> usize {
    (word & !GROUP) as usize * GROUP_LEN + addr.place(depth)
}
