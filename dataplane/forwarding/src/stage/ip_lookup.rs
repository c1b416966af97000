//! `ip-lookup`: where to?
//!
//! 1. Destination to adjacency, by longest prefix. All packets first, so that their cache misses overlap.
//! 2. The adjacency is gone and its slot has another life, or the FIB is newer than our view: again in the next breath,
//!    four times; then drop `stale-index`.
//! 3. Not allowed this way: drop `underlay-transit` (transit by a port that does not forward) or `nbma-via-tunnel` (the
//!    control plane's own packet would go into a tunnel again).
//! 4. By its kind: resolved to `rewrite` or `midchain`, not resolved to `glean`, own address to `punt`, else drop. What
//!    leaves by the network it came from goes to `redirect` as well.
//! 5. Multicast: from a port to its twin; from a tunnel to the tunnel's twin if it is link-local (224.0.0.0/24), else
//!    drop `multicast`: copying it on would make a loop of the cloud.

use wire::buf::PacketBuf;

use crate::DropReason;
use crate::adjacency::{Adjacency, AdjacencyId, Kind, permit};
use crate::burst::End;
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::IpLookup as u8;

/// Times that a packet is looked up again.
const TRIES: u8 = 4;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::IpLookup);
    walk.enter(Node::IpLookup, frame.slots());
    for &slot in frame.slots() {
        let meta = &mut walk.meta[usize::from(slot)];
        let id = AdjacencyId::from_word(tables.fib.lookup(meta.destination.into()));
        meta.adjacency = id;
        tables.adjacencies.prefetch(id);
        walk.counters.prefetch_adjacency(id);
    }
    for &slot in frame.slots() {
        let meta = &mut walk.meta[usize::from(slot)];
        let entry = tables.adjacencies.slot(meta.adjacency);
        if entry.epoch != meta.adjacency.epoch() || entry.wants & !meta.permits != 0 {
            refuse(walk, slot, entry);
            continue;
        }
        match entry.kind {
            Kind::Midchain => {
                if entry.network == meta.network {
                    walk.frames.hand::<ME, { Node::Redirect as u8 }>(slot);
                }
                walk.frames.hand::<ME, { Node::Midchain as u8 }>(slot);
            }
            Kind::Neighbour => walk.frames.hand::<ME, { Node::Rewrite as u8 }>(slot),
            _ => elsewhere(walk, tables, slot, entry),
        }
    }
}

/// What is neither a neighbour nor a midchain.
#[inline(never)]
fn elsewhere<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8, entry: &Adjacency) {
    let meta = &mut walk.meta[usize::from(slot)];
    match entry.kind {
        Kind::Glean | Kind::Incomplete => walk.frames.hand::<ME, { Node::Glean as u8 }>(slot),
        Kind::Receive => {
            meta.end = End::Host;
            meta.target = entry.interface;
            walk.frames.hand::<ME, { Node::Punt as u8 }>(slot);
        }
        Kind::Multicast if tables.port(meta.interface).is_some() || meta.destination >> 8 == 0x00e0_0000 => {
            meta.end = End::Host;
            meta.target = meta.interface;
            walk.frames.hand::<ME, { Node::Punt as u8 }>(slot);
        }
        Kind::Unreachable => walk.frames.hand::<ME, { Node::HostUnreachable as u8 }>(slot),
        Kind::Multicast => walk.drop(slot, DropReason::Multicast),
        Kind::Blackhole => walk.drop(slot, DropReason::Blackhole),
        Kind::Martian => walk.drop(slot, DropReason::Martian),
        Kind::NoRoute => walk.drop(slot, DropReason::NoRoute),
        Kind::Free | Kind::Midchain | Kind::Neighbour => again(walk, slot),
    }
}

/// The packet may not go this way, or its adjacency is not the one that it was meant for.
#[cold]
fn refuse<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, entry: &Adjacency) {
    let meta = &walk.meta[usize::from(slot)];
    if entry.epoch != meta.adjacency.epoch() {
        again(walk, slot);
    } else if entry.wants & !meta.permits & permit::TUNNEL != 0 {
        walk.drop(slot, DropReason::NbmaViaTunnel);
    } else {
        walk.drop(slot, DropReason::UnderlayTransit);
    }
}

fn again<B: PacketBuf>(walk: &mut Walk<B>, slot: u8) {
    let meta = &mut walk.meta[usize::from(slot)];
    if meta.tries == TRIES {
        return walk.drop(slot, DropReason::StaleIndex);
    }
    meta.tries += 1;
    meta.end = End::Again;
}
