//! The tables that are measured, ours and DPDK's, behind one face.

use std::hint::black_box;

use anyhow::Context as _;
use clap::ValueEnum;
use dpdk::Eal;
use dpdk::lpm::{Fib, Fib6, Lpm, Lpm6, Room};
use forwarding::fib::{Address, FibPrefix, Footprint, Table, TableWriter, Word};

use crate::mix::Route;
use crate::width::Width;

/// Whose table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// forwarding::fib
    Nave,
    /// DPDK's rte_lpm, rte_lpm6
    RteLpm,
    /// DPDK's rte_fib (dir24_8), rte_fib6 (trie)
    RteFib,
}

/// How addresses are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One after the other; the processor overlaps what it can.
    Single,
    /// So many at once, by the table's own bulk look-up.
    Bulk(usize),
    /// So many: each is asked of the cache first, then each is looked up.
    Early(usize),
}

impl Mode {
    pub(crate) const ALL: [Self; 5] =
        [Self::Single, Self::Bulk(32), Self::Bulk(128), Self::Early(32), Self::Early(128)];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Bulk(32) => "bulk-32",
            Self::Bulk(_) => "bulk-128",
            Self::Early(32) => "early-32",
            Self::Early(_) => "early-128",
        }
    }
}

/// Addresses to look up, in the forms that tables want.
pub(crate) struct Probes<A: Width> {
    pub(crate) addrs: Vec<A>,
    pub(crate) ips: Vec<A::Ip>,
    pub(crate) raw: Vec<A::Raw>,
}

impl<A: Width> Probes<A> {
    pub(crate) fn new(addrs: Vec<A>) -> Self {
        let (ips, raw) = addrs.iter().map(|addr| (addr.ip(), addr.raw())).unzip();
        Self { addrs, ips, raw }
    }
}

/// A table with routes.
pub(crate) trait Lookup<A: Width> {
    /// Adds a route.
    fn put(&mut self, route: &Route<A>) -> anyhow::Result<()>;

    /// Removes one.
    fn remove(&mut self, route: &Route<A>) -> anyhow::Result<()>;

    /// Looks all of them up; `false`, and nothing done, if the table has no such way. The answers stay in a form of the table's own.
    fn run(&mut self, mode: Mode, probes: &Probes<A>) -> bool;

    /// The answers of the last run: words of routes, 0 for none.
    fn answers(&self, into: &mut Vec<u32>);

    /// What removed routes have left is free now: nobody looks anything up.
    fn settle(&mut self) {}

    /// Memory of the table in bytes, where `heap` is by how much DPDK's heaps have grown since before it was made.
    fn memory(&self, heap: usize) -> usize;
}

/// Ours.
pub(crate) struct Nave<A: Width> {
    writer: TableWriter<A>,
    table: std::sync::Arc<Table<A>>,
    words: Vec<u32>,
    generation: u64,
}

impl<A: Width> Nave<A> {
    pub(crate) fn new(groups: u32) -> anyhow::Result<Self> {
        let writer = TableWriter::new(groups as usize)?;
        let table = writer.fib();
        Ok(Self { writer, table, words: Vec::new(), generation: 0 })
    }
}

fn prefix<A: Width>(route: &Route<A>) -> anyhow::Result<FibPrefix<A>> {
    FibPrefix::new(route.first.ip(), route.len).context("a prefix longer than an address")
}

impl<A: Width> Lookup<A> for Nave<A> {
    fn put(&mut self, route: &Route<A>) -> anyhow::Result<()> {
        let word = Word::new(route.word).context("a word of no more than 31 bits")?;
        self.writer.put(prefix(route)?, word)?;
        Ok(())
    }

    fn remove(&mut self, route: &Route<A>) -> anyhow::Result<()> {
        self.writer.remove(prefix(route)?).map(drop).context("the route is not there")
    }

    fn run(&mut self, mode: Mode, probes: &Probes<A>) -> bool {
        self.words.resize(probes.ips.len(), 0);
        let (table, words) = (&*self.table, &mut self.words[..]);
        match mode {
            Mode::Single => each(table, &probes.ips, words),
            Mode::Bulk(burst) => {
                for (ips, words) in probes.ips.chunks(burst).zip(words.chunks_mut(burst)) {
                    table.lookup_bulk(ips, words);
                }
            }
            Mode::Early(burst) => {
                for (ips, words) in probes.ips.chunks(burst).zip(words.chunks_mut(burst)) {
                    ips.iter().for_each(|ip| table.prefetch(*ip));
                    each(table, ips, words);
                }
            }
        }
        black_box(words);
        true
    }

    fn answers(&self, into: &mut Vec<u32>) {
        into.clone_from(&self.words);
    }

    fn settle(&mut self) {
        self.generation += 1;
        self.writer.retire(self.generation);
        self.writer.reclaim(self.generation);
    }

    /// DPDK's heaps have no part in it.
    fn memory(&self, _: usize) -> usize {
        let Footprint { first, groups, shadow } = self.writer.footprint();
        first + groups + shadow
    }
}

#[inline(always)]
fn each<A: Address>(table: &Table<A>, ips: &[A::Ip], words: &mut [u32]) {
    for (ip, word) in ips.iter().zip(words) {
        *word = table.lookup(*ip);
    }
}

/// rte_lpm.
pub(crate) struct RteLpm {
    table: Lpm,
    words: Vec<u32>,
}

impl RteLpm {
    pub(crate) fn new(eal: &Eal, room: &Room<'_>) -> anyhow::Result<Self> {
        Ok(Self { table: Lpm::create(eal, room)?, words: Vec::new() })
    }
}

impl Lookup<u32> for RteLpm {
    fn put(&mut self, route: &Route<u32>) -> anyhow::Result<()> {
        Ok(self.table.add(route.first, route.len, route.word)?)
    }

    fn remove(&mut self, route: &Route<u32>) -> anyhow::Result<()> {
        Ok(self.table.delete(route.first, route.len)?)
    }

    fn run(&mut self, mode: Mode, probes: &Probes<u32>) -> bool {
        self.words.resize(probes.raw.len(), 0);
        match mode {
            Mode::Single => self.table.lookup_each(&probes.raw, &mut self.words),
            Mode::Bulk(burst) => {
                for (addrs, words) in probes.raw.chunks(burst).zip(self.words.chunks_mut(burst)) {
                    self.table.lookup_bulk(addrs, words);
                }
            }
            Mode::Early(_) => return false,
        }
        true
    }

    fn answers(&self, into: &mut Vec<u32>) {
        into.clear();
        into.extend(self.words.iter().map(|word| Lpm::hop(*word)));
    }

    fn memory(&self, heap: usize) -> usize {
        heap
    }
}

/// rte_fib. It has no look-up but the one in bulk: a single one is a burst of one.
pub(crate) struct RteFib {
    table: Fib,
    hops: Vec<u64>,
}

impl RteFib {
    pub(crate) fn new(eal: &Eal, room: &Room<'_>) -> anyhow::Result<Self> {
        Ok(Self { table: Fib::create(eal, room)?, hops: Vec::new() })
    }
}

impl Lookup<u32> for RteFib {
    fn put(&mut self, route: &Route<u32>) -> anyhow::Result<()> {
        Ok(self.table.add(route.first, route.len, route.word)?)
    }

    fn remove(&mut self, route: &Route<u32>) -> anyhow::Result<()> {
        Ok(self.table.delete(route.first, route.len)?)
    }

    fn run(&mut self, mode: Mode, probes: &Probes<u32>) -> bool {
        self.hops.resize(probes.raw.len(), 0);
        let burst = match mode {
            Mode::Single => 1,
            Mode::Bulk(burst) => burst,
            Mode::Early(_) => return false,
        };
        for (addrs, hops) in probes.raw.chunks(burst).zip(self.hops.chunks_mut(burst)) {
            self.table.lookup_bulk(addrs, hops);
        }
        true
    }

    fn answers(&self, into: &mut Vec<u32>) {
        into.clear();
        into.extend(self.hops.iter().map(|hop| *hop as u32));
    }

    fn memory(&self, heap: usize) -> usize {
        heap
    }
}

/// rte_lpm6.
pub(crate) struct RteLpm6 {
    table: Lpm6,
    hops: Vec<i32>,
}

impl RteLpm6 {
    pub(crate) fn new(eal: &Eal, room: &Room<'_>) -> anyhow::Result<Self> {
        Ok(Self { table: Lpm6::create(eal, room)?, hops: Vec::new() })
    }
}

impl Lookup<u128> for RteLpm6 {
    fn put(&mut self, route: &Route<u128>) -> anyhow::Result<()> {
        Ok(self.table.add(&route.first.raw(), route.len, route.word)?)
    }

    fn remove(&mut self, route: &Route<u128>) -> anyhow::Result<()> {
        Ok(self.table.delete(&route.first.raw(), route.len)?)
    }

    fn run(&mut self, mode: Mode, probes: &Probes<u128>) -> bool {
        self.hops.resize(probes.raw.len(), 0);
        match mode {
            Mode::Single => {
                for (addr, hop) in probes.raw.iter().zip(&mut self.hops) {
                    *hop = self.table.lookup(addr) as i32;
                }
            }
            Mode::Bulk(burst) => {
                for (addrs, hops) in probes.raw.chunks(burst).zip(self.hops.chunks_mut(burst)) {
                    self.table.lookup_bulk(addrs, hops);
                }
            }
            Mode::Early(_) => return false,
        }
        true
    }

    fn answers(&self, into: &mut Vec<u32>) {
        into.clear();
        into.extend(self.hops.iter().map(|hop| u32::try_from(*hop).unwrap_or(0)));
    }

    fn memory(&self, heap: usize) -> usize {
        heap
    }
}

/// rte_fib6; a single look-up is a burst of one, as of [`RteFib`].
pub(crate) struct RteFib6 {
    table: Fib6,
    hops: Vec<u64>,
}

impl RteFib6 {
    pub(crate) fn new(eal: &Eal, room: &Room<'_>) -> anyhow::Result<Self> {
        Ok(Self { table: Fib6::create(eal, room)?, hops: Vec::new() })
    }
}

impl Lookup<u128> for RteFib6 {
    fn put(&mut self, route: &Route<u128>) -> anyhow::Result<()> {
        Ok(self.table.add(&route.first.raw(), route.len, route.word)?)
    }

    fn remove(&mut self, route: &Route<u128>) -> anyhow::Result<()> {
        Ok(self.table.delete(&route.first.raw(), route.len)?)
    }

    fn run(&mut self, mode: Mode, probes: &Probes<u128>) -> bool {
        self.hops.resize(probes.raw.len(), 0);
        let burst = match mode {
            Mode::Single => 1,
            Mode::Bulk(burst) => burst,
            Mode::Early(_) => return false,
        };
        for (addrs, hops) in probes.raw.chunks(burst).zip(self.hops.chunks_mut(burst)) {
            self.table.lookup_bulk(addrs, hops);
        }
        true
    }

    fn answers(&self, into: &mut Vec<u32>) {
        into.clear();
        into.extend(self.hops.iter().map(|hop| *hop as u32));
    }

    fn memory(&self, heap: usize) -> usize {
        heap
    }
}
