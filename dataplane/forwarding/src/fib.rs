//! The IPv4 FIB: longest-prefix match in one memory access, two for prefixes longer than 24 bits.
//!
//! ```text
//!   address  31                    8 7        0
//!           +-----------------------+----------+
//!           |      index into 2^24  |  low 8   |
//!           +-----------------------+----------+
//!                      │                  │
//!   first     +--------▼---------+        │
//!   2^24 words| 0: default       |        │
//!             | word             |        │
//!             | 1<<31 | group  ──┼──► +---▼--------------+
//!             +------------------+    | 0: default       |  groups of
//!                                     | word             |  256 words
//!                                     +------------------+
//! ```
//!
//! (The scheme is DIR-24-8: Gupta, Lin, McKeown, "Routing lookups in hardware at memory access speeds", 1998.)
//!
//! Both arrays are mapped lazily and zero means "the default word", kept apart: an empty table or one with nothing but a
//! default route costs no memory, and a cloud of a thousand spokes a few pages.
//!
//! The [`Writer`] stores words in place while workers read. A word changes by one atomic store, so that a reader sees the
//! old route of an address or the new one and never a third thing. A group that is no longer pointed to is used again only
//! after every reader has taken a new breath: [`Writer::retire`] and [`Writer::reclaim`].

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memory::{HugeVec, MapError, prefetch_slice};

/// Set in a word of the first array: the rest is the number of a group.
const GROUP: u32 = 1 << 31;
/// Words of a group.
const GROUP_LEN: usize = 256;
/// Words of the first array.
const FIRST_LEN: usize = 1 << 24;
/// Unit in which memory is accounted: the kernel maps huge pages of this size where it can.
const PAGE: usize = 2 << 20;

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

/// An IPv4 prefix; bits behind the length are zero. Ordered by address, then by length: a prefix stands before all that it
/// covers, and they stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4Prefix {
    first: u32,
    len: u8,
}

impl V4Prefix {
    /// The prefix of `len` bits that holds `addr`; `None` above 32.
    #[must_use]
    pub fn new(addr: Ipv4Addr, len: u8) -> Option<Self> {
        (len <= 32).then(|| Self::of(addr.to_bits(), len))
    }

    /// The prefix of one host.
    #[must_use]
    pub const fn host(addr: u32) -> Self {
        Self { first: addr, len: 32 }
    }

    /// Its first address.
    #[must_use]
    pub const fn first(self) -> u32 {
        self.first
    }

    /// Its length in bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.len
    }

    fn of(addr: u32, len: u8) -> Self {
        Self { first: addr & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0), len }
    }

    /// Its last address.
    pub(crate) fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(self.len.into()).unwrap_or(0)
    }

    /// Whether `other` lies in it whole.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.len <= other.len && Self::of(other.first, self.len) == self
    }

    /// Its order in 40 bits: the key of the shadow table.
    fn key(self) -> u64 {
        u64::from(self.first) << 8 | u64::from(self.len)
    }

    fn from_key(key: u64) -> Self {
        Self { first: (key >> 8) as u32, len: key as u8 }
    }
}

impl TryFrom<model::Prefix> for V4Prefix {
    type Error = model::Prefix;

    /// The prefix is handed back if it is not IPv4.
    fn try_from(prefix: model::Prefix) -> Result<Self, model::Prefix> {
        match prefix.addr() {
            std::net::IpAddr::V4(addr) => Ok(Self::of(addr.to_bits(), prefix.length())),
            std::net::IpAddr::V6(_) => Err(prefix),
        }
    }
}

/// All groups are in use: no room for another /24 with longer prefixes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the FIB has no room for more prefixes longer than 24 bits: all {groups} groups are in use")]
pub struct Full {
    /// Groups of the table.
    pub groups: usize,
}

/// The table as workers read it.
#[derive(Debug)]
pub struct Fib {
    first: HugeVec<AtomicU32>,
    groups: HugeVec<AtomicU32>,
    default: AtomicU32,
}

impl Fib {
    /// The word of the longest prefix that holds `addr`; 0: no route.
    #[inline(always)]
    #[must_use]
    pub fn lookup(&self, addr: Ipv4Addr) -> u32 {
        let addr = addr.to_bits();
        let mut word = self.first[(addr >> 8) as usize].load(Ordering::Acquire);
        if word & GROUP != 0 {
            word = self.groups[slot_in_group(word, addr)].load(Ordering::Acquire);
        }
        if word != 0 { word } else { self.default.load(Ordering::Relaxed) }
    }

    /// Asks the cache for the word that [`Fib::lookup`] of `addr` reads first.
    #[inline(always)]
    pub fn prefetch(&self, addr: Ipv4Addr) {
        prefetch_slice(&self.first, (addr.to_bits() >> 8) as usize);
    }

    /// [`Fib::lookup`] of many addresses, so that their cache misses overlap. Looks up as many as the shorter slice has.
    #[inline]
    pub fn lookup_bulk(&self, addrs: &[Ipv4Addr], words: &mut [u32]) {
        for addr in addrs {
            self.prefetch(*addr);
        }
        for (addr, word) in addrs.iter().zip(words.iter_mut()) {
            *word = self.first[(addr.to_bits() >> 8) as usize].load(Ordering::Acquire);
            if *word & GROUP != 0 {
                prefetch_slice(&self.groups, slot_in_group(*word, addr.to_bits()));
            }
        }
        let default = self.default.load(Ordering::Relaxed);
        for (addr, word) in addrs.iter().zip(words) {
            if *word & GROUP != 0 {
                *word = self.groups[slot_in_group(*word, addr.to_bits())].load(Ordering::Acquire);
            }
            if *word == 0 {
                *word = default;
            }
        }
    }
}

/// Index of an address's word in the array of groups.
#[inline(always)]
fn slot_in_group(word: u32, addr: u32) -> usize {
    (word & !GROUP) as usize * GROUP_LEN + (addr & 0xff) as usize
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

/// The one writer of a table. It knows the routes (the shadow table), so that a removed route uncovers the next shorter.
#[derive(Debug)]
pub struct Writer {
    fib: Arc<Fib>,
    /// Every route by [`V4Prefix::key`].
    routes: BTreeMap<u64, u32>,
    /// Groups from here on were never used.
    fresh: u32,
    /// Groups to use again, now.
    free: Vec<u32>,
    /// Groups that no word points to since the last [`Writer::retire`].
    freed: Vec<u32>,
    /// Groups that await their generation.
    retired: VecDeque<(u64, Vec<u32>)>,
    /// Which pages of the first array were written.
    touched: [bool; FIRST_LEN * size_of::<AtomicU32>() / PAGE],
}

impl Writer {
    /// An empty table with room for `groups` /24 that hold longer prefixes. Address space is taken at once (64 MiB, and 1
    /// KiB a group), memory when it is written.
    ///
    /// # Errors
    /// [`MapError`] if there is no address space.
    pub fn new(groups: usize) -> Result<Self, MapError> {
        let groups = groups.min(1 << 24);
        let fib = Fib {
            first: HugeVec::zeroed(FIRST_LEN)?,
            groups: HugeVec::zeroed(groups * GROUP_LEN)?,
            default: AtomicU32::new(0),
        };
        Ok(Self {
            fib: Arc::new(fib),
            routes: BTreeMap::new(),
            fresh: 0,
            free: Vec::new(),
            freed: Vec::new(),
            retired: VecDeque::new(),
            touched: [false; FIRST_LEN * size_of::<AtomicU32>() / PAGE],
        })
    }

    /// The table, to look things up in.
    #[must_use]
    pub fn fib(&self) -> Arc<Fib> {
        Arc::clone(&self.fib)
    }

    /// Makes `prefix` lead to `word`, whatever it led to.
    ///
    /// # Errors
    /// [`Full`], and nothing changed, if it needs a group and there is none.
    pub fn put(&mut self, prefix: V4Prefix, word: Word) -> Result<(), Full> {
        if prefix.len > 24 {
            self.make_group(prefix)?;
        }
        self.routes.insert(prefix.key(), word.0);
        self.cover(prefix, word.0);
        Ok(())
    }

    /// Removes the route of exactly this prefix; whether there was one. What it covered falls to the next shorter prefix.
    pub fn remove(&mut self, prefix: V4Prefix) -> bool {
        if self.routes.remove(&prefix.key()).is_none() {
            return false;
        }
        // The default route is not stored under every address: it has its own word.
        let cover = self.covering(prefix).filter(|(cover, _)| cover.len > 0);
        let word = cover.map_or(0, |(_, word)| word);
        if prefix.len > 24 && !self.has_long(prefix) {
            self.drop_group(prefix, word);
        } else {
            self.cover(prefix, word);
        }
        true
    }

    /// The word of the route of exactly this prefix.
    #[must_use]
    pub fn route(&self, prefix: V4Prefix) -> Option<Word> {
        self.routes.get(&prefix.key()).map(|word| Word(*word))
    }

    /// The longest prefix that holds `addr`, and its word.
    #[must_use]
    pub fn longest_match(&self, addr: Ipv4Addr) -> Option<(V4Prefix, Word)> {
        let host = V4Prefix::of(addr.to_bits(), 32);
        let exact = self.routes.get(&host.key()).map(|word| (host, *word));
        exact.or_else(|| self.covering(host)).map(|(prefix, word)| (prefix, Word(word)))
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether the /24 of an address has a group: then its prefixes need no other.
    #[must_use]
    pub fn has_group(&self, addr: Ipv4Addr) -> bool {
        self.fib.first[(addr.to_bits() >> 8) as usize].load(Ordering::Relaxed) & GROUP != 0
    }

    /// Groups that can be used now. A [`Writer::put`] of a prefix longer than 24 bits takes one at most, others none.
    #[must_use]
    pub fn free_groups(&self) -> usize {
        self.free.len() + self.fib.groups.len() / GROUP_LEN - self.fresh as usize
    }

    /// Memory of the table.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint {
            first: self.touched.iter().filter(|touched| **touched).count() * PAGE,
            groups: (self.fresh as usize * GROUP_LEN * size_of::<AtomicU32>()).next_multiple_of(PAGE),
            // A key and a word in nodes that are two thirds full, and the nodes' own fields.
            shadow: self.routes.len() * 20,
        }
    }

    /// What was freed until now may be used again when every reader has acknowledged `generation`: one that was published
    /// after the stores that freed it.
    pub fn retire(&mut self, generation: u64) {
        if !self.freed.is_empty() {
            self.retired.push_back((generation, std::mem::take(&mut self.freed)));
        }
    }

    /// Every reader has acknowledged `generation`.
    pub fn reclaim(&mut self, generation: u64) {
        while let Some((_, groups)) = self.retired.pop_front_if(|(wanted, _)| *wanted <= generation) {
            self.free.extend(groups);
        }
    }

    /// The longest route that is shorter than `prefix` and holds it.
    fn covering(&self, prefix: V4Prefix) -> Option<(V4Prefix, u32)> {
        let mut longest = prefix.len.checked_sub(1)?;
        loop {
            let bound = V4Prefix::of(prefix.first, longest).key();
            let (key, word) = self.routes.range(..=bound).next_back()?;
            let found = V4Prefix::from_key(*key);
            if found.contains(prefix) {
                return Some((found, *word));
            }
            // `found` lies between the prefix and whatever covers it, so that is no longer than what the two share.
            longest = (found.first ^ prefix.first).leading_zeros() as u8;
        }
    }

    /// Whether the /24 of `prefix` holds routes longer than 24 bits.
    fn has_long(&self, prefix: V4Prefix) -> bool {
        let slot = V4Prefix::of(prefix.first, 24);
        let (from, to) = (V4Prefix { first: slot.first, len: 25 }, V4Prefix { first: slot.last(), len: 32 });
        self.routes.range(from.key()..=to.key()).next().is_some()
    }

    /// Stores `word` for every address of `prefix` that no longer route holds.
    fn cover(&mut self, prefix: V4Prefix, word: u32) {
        if prefix.len == 0 {
            self.fib.default.store(word, Ordering::Release);
            return;
        }
        let within = V4Prefix { first: prefix.last(), len: 32 }.key();
        // Addresses below `next` are done; it passes the last address by one at most.
        let mut next = u64::from(prefix.first);
        for (key, _) in self.routes.range((Bound::Excluded(prefix.key()), Bound::Included(within))) {
            let longer = V4Prefix::from_key(*key);
            if u64::from(longer.first) > next {
                store(&self.fib, &mut self.touched, next as u32..=longer.first - 1, word);
            }
            next = next.max(u64::from(longer.last()) + 1);
        }
        if next <= u64::from(prefix.last()) {
            store(&self.fib, &mut self.touched, next as u32..=prefix.last(), word);
        }
    }

    /// Gives the /24 of `prefix` a group that says what its word said, unless it has one.
    fn make_group(&mut self, prefix: V4Prefix) -> Result<(), Full> {
        let slot = (prefix.first >> 8) as usize;
        let word = self.fib.first[slot].load(Ordering::Relaxed);
        if word & GROUP != 0 {
            return Ok(());
        }
        let groups = self.fib.groups.len() / GROUP_LEN;
        let group = match self.free.pop() {
            Some(group) => group,
            None if (self.fresh as usize) < groups => {
                self.fresh += 1;
                self.fresh - 1
            }
            None => return Err(Full { groups }),
        };
        let start = group as usize * GROUP_LEN;
        for place in &self.fib.groups[start..start + GROUP_LEN] {
            place.store(word, Ordering::Relaxed);
        }
        self.touched[slot * size_of::<AtomicU32>() / PAGE] = true;
        // Release: who reads the pointer reads the group's words.
        self.fib.first[slot].store(GROUP | group, Ordering::Release);
        Ok(())
    }

    /// Puts `word` in place of the group of the /24 of `prefix`.
    fn drop_group(&mut self, prefix: V4Prefix, word: u32) {
        let slot = &self.fib.first[(prefix.first >> 8) as usize];
        let group = slot.load(Ordering::Relaxed);
        slot.store(word, Ordering::Release);
        self.freed.push(group & !GROUP);
    }
}

/// Stores `word` for a range of addresses. Where a /24 has a group, in the group; a /24 without one is in the range whole.
fn store(fib: &Fib, touched: &mut [bool], range: RangeInclusive<u32>, word: u32) {
    let (start, end) = range.into_inner();
    for slot in start >> 8..=end >> 8 {
        let place = &fib.first[slot as usize];
        let pointer = place.load(Ordering::Relaxed);
        if pointer & GROUP == 0 {
            debug_assert!(start <= slot << 8 && end >= slot << 8 | 0xff);
            place.store(word, Ordering::Release);
            touched[slot as usize * size_of::<AtomicU32>() / PAGE] = true;
            continue;
        }
        let (low, high) = (start.max(slot << 8), end.min(slot << 8 | 0xff));
        for place in &fib.groups[slot_in_group(pointer, low)..=slot_in_group(pointer, high)] {
            place.store(word, Ordering::Release);
        }
    }
}
