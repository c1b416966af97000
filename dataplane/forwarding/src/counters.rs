//! What is counted: per worker, written by that worker alone, read by anybody at any time.
//!
//! A counter is added to by a relaxed load and store, which costs what a plain addition does. Readers see each counter
//! whole, and several of them not quite at one moment.

use std::sync::atomic::{AtomicU64, Ordering};

use memory::{HugeVec, LineAligned, MapError};

use crate::adjacency::AdjacencyId;
use crate::{DropReason, Node};

/// Packets that a worker took or gave, in total. The law: what came in (`received` to `handed_in`) is what went out (`sent`
/// to `merged`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Taken from ports.
    pub received: u64,
    /// Taken from the host and the control plane.
    pub injected: u64,
    /// Copies, and packets of our own making.
    pub copied: u64,
    /// Further pieces of packets that were cut.
    pub split: u64,
    /// Taken up again after they were parked.
    pub unparked: u64,
    /// Taken from other workers.
    pub handed_in: u64,
    /// Given to ports that took them.
    pub sent: u64,
    /// Given to the kernel twins and the control plane.
    pub punted: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
    /// Put aside for a later breath.
    pub parked: u64,
    /// Given to the workers that have their SAs.
    pub handed_off: u64,
    /// Fragments that became parts of another, which is the whole packet now.
    pub merged: u64,
}

impl Flow {
    /// Whether the law holds.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.came() == self.gone()
    }

    /// Packets that came.
    #[inline(always)]
    fn came(&self) -> u64 {
        self.received + self.injected + self.copied + self.split + self.unparked + self.handed_in
    }

    /// Packets that went.
    #[inline(always)]
    fn gone(&self) -> u64 {
        self.sent + self.punted + self.dropped + self.parked + self.handed_off + self.merged
    }
}

/// One node's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeCount {
    /// Packets that went through.
    pub packets: u64,
    /// Turns in which it had packets, and those of another node that did its work as well.
    pub calls: u64,
    /// Cycles ([`memory::cycles`]) spent in it while [`crate::Command::Measure`] was on. Of several packets that leave in one turn of
    /// ip-lookup all are counted for the node that most of them went through.
    pub cycles: u64,
}

/// Packets and bytes. Bytes are those of IP packets as they come to an adjacency, before encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_sub(other.packets),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline(always)]
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    #[inline(always)]
    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes of one adjacency.
type AdjacencyCounter = [AtomicU64; 2];

/// The counters of one worker.
#[derive(Debug)]
pub struct Counters {
    nodes: [LineAligned<[Counter; 3]>; Node::COUNT],
    drops: [Counter; DropReason::ALL.len()],
    flow: [Counter; 12],
    port_cycles: Counter,
    adjacencies: HugeVec<AdjacencyCounter>,
}

impl Counters {
    /// Counters at zero.
    ///
    /// # Errors
    /// [`MapError`] without the address space.
    pub fn new() -> Result<Self, MapError> {
        Ok(Self {
            nodes: std::array::from_fn(|_| LineAligned::default()),
            drops: std::array::from_fn(|_| Counter::default()),
            flow: std::array::from_fn(|_| Counter::default()),
            port_cycles: Counter::default(),
            adjacencies: HugeVec::zeroed(AdjacencyId::LIMIT)?,
        })
    }

    /// A node's counters.
    #[must_use]
    pub fn node(&self, node: Node) -> NodeCount {
        let [packets, calls, cycles] = &self.nodes[node as usize].0;
        NodeCount { packets: packets.value(), calls: calls.value(), cycles: cycles.value() }
    }

    /// Cycles spent behind [`crate::Ports`] (rx, tx, free, punt) while nodes were measured. They are in no node's count.
    #[must_use]
    pub fn port_cycles(&self) -> u64 {
        self.port_cycles.value()
    }

    /// Packets dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].value()
    }

    /// Totals.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let [
            received,
            injected,
            copied,
            split,
            unparked,
            handed_in,
            sent,
            punted,
            dropped,
            parked,
            handed_off,
            merged,
        ] = std::array::from_fn(|at| self.flow[at].value());
        Flow {
            received,
            injected,
            copied,
            split,
            unparked,
            handed_in,
            sent,
            punted,
            dropped,
            parked,
            handed_off,
            merged,
        }
    }

    /// What an adjacency's slot carried since the worker began, whatever adjacencies have used it.
    #[must_use]
    pub fn adjacency(&self, index: usize) -> Traffic {
        self.adjacencies.get(index).map_or(Traffic::default(), |[packets, bytes]| Traffic {
            packets: packets.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        })
    }

    #[inline(always)]
    pub(crate) fn count_node(&self, node: Node, packets: usize) {
        let [all, calls, _] = &self.nodes[node as usize].0;
        all.add(packets as u64);
        calls.add(1);
    }

    #[inline(always)]
    pub(crate) fn count_cycles(&self, node: Option<Node>, cycles: u64) {
        match node {
            Some(node) => self.nodes[node as usize].0[2].add(cycles),
            None => self.port_cycles.add(cycles),
        }
    }

    #[inline(always)]
    pub(crate) fn count_drop(&self, reason: DropReason, packets: usize) {
        self.drops[reason as usize].add(packets as u64);
    }

    /// Adds a breath's flow; how many packets came and went in it. (The flow itself is not handed on: it has just been stored word by
    /// word, and a copy in wider pieces would wait until all stores of the walk are through, some hundred cycles.)
    #[inline(always)]
    pub(crate) fn count_flow(&self, breath: &Flow) -> (u64, u64) {
        let Flow {
            received,
            injected,
            copied,
            split,
            unparked,
            handed_in,
            sent,
            punted,
            dropped,
            parked,
            handed_off,
            merged,
        } = *breath;
        let flow = [
            received, injected, copied, split, unparked, handed_in, sent, punted, dropped, parked,
            handed_off, merged,
        ];
        for (counter, count) in self.flow.iter().zip(flow) {
            counter.add(count);
        }
        (breath.came(), breath.gone())
    }

    /// Where adjacencies are counted, at hand for a loop over packets.
    #[inline(always)]
    pub(crate) fn adjacencies(&self) -> Tally<'_> {
        match self.adjacencies.first_chunk() {
            Some(all) => Tally(all),
            None => unreachable!("there is one for each id"),
        }
    }
}

/// The counters of all adjacencies: as many as there are ids, so that none needs a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally<'a>(&'a [AdjacencyCounter; AdjacencyId::LIMIT]);

impl Tally<'_> {
    #[inline(always)]
    pub(crate) fn count(self, id: AdjacencyId, bytes: usize) {
        let [all, sum] = &self.0[id.index()];
        all.store(all.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        sum.store(sum.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn prefetch(self, id: AdjacencyId) {
        memory::prefetch_read(&self.0[id.index()]);
    }
}
