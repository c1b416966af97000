//! `ip-lookup`: where to?
//!
//! 1. Destination to adjacency, by longest prefix. All packets first, so that their cache misses overlap.
//! 2. The adjacency is gone and its slot has another life, or the FIB is newer than our view: again in the next breath,
//!    four times; then drop `stale-index`.
//! 3. Not allowed this way: drop `underlay-transit` (transit by a port that does not forward, or by it to our own address on
//!    another interface: what is behind the port reaches the overlay through the tunnel alone) or `nbma-via-tunnel` (the
//!    control plane's own packet would go into a tunnel again).
//! 4. By its kind: resolved to `rewrite` or `midchain`, not resolved to `glean`, own address to `punt`, else drop. What
//!    leaves by the network it came from goes to `redirect` as well.
//! 5. Multicast: from a port to its twin; from a tunnel to the tunnel's twin if it is link-local (224.0.0.0/24), else
//!    drop `multicast`: copying it on would make a loop of the cloud.

use wire::buf::PacketBuf;

use crate::DropReason;
use crate::adjacency::{Adjacency, AdjacencyId, KEYED_LEN, Kind, LINK_LEN, permit};
use crate::burst::{End, Frames, Meta};
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::IpLookup as u8;

/// Times that a packet is looked up again.
const TRIES: u8 = 4;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::IpLookup);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, .. } = walk;
    let (bufs, meta, counters, fib) = (bufs.as_slice(), &mut **meta, &**counters, &*tables.fib);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let meta = &mut meta[usize::from(slot)];
        let id = AdjacencyId::from_word(fib.lookup(meta.destination.into()));
        meta.adjacency = id;
        tables.adjacencies.prefetch(id);
        counters.prefetch_adjacency(id);
    }
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let meta = &mut meta[usize::from(slot)];
        let entry = tables.adjacencies.slot(meta.adjacency);
        let refused = (entry.epoch ^ meta.adjacency.epoch()) | entry.wants & !meta.permits;
        if refused == 0 && entry.kind == Kind::Midchain {
            if meta.offset < entry.form.into()
                && let Some(buf) = bufs.get(usize::from(slot))
            {
                // The line before the packet, where the outer header will be.
                memory::prefetch_address(buf.bytes().as_ptr().wrapping_sub(KEYED_LEN - LINK_LEN));
            }
            if entry.network == meta.network {
                frames.hand::<ME, { Node::Redirect as u8 }>(slot);
            }
            frames.hand::<ME, { Node::Midchain as u8 }>(slot);
        } else if refused == 0 && entry.kind == Kind::Neighbour {
            frames.hand::<ME, { Node::Rewrite as u8 }>(slot);
        } else {
            elsewhere(meta, frames, tables, slot, entry);
        }
    }
}

/// What is neither a neighbour nor a midchain, or may not go there.
#[inline(never)]
fn elsewhere(meta: &mut Meta, frames: &mut Frames, tables: &Tables, slot: u8, entry: &Adjacency) {
    if entry.epoch != meta.adjacency.epoch() {
        return again(meta, frames, slot);
    }
    if entry.wants & !meta.permits & permit::TUNNEL != 0 {
        return frames.drop(meta, slot, DropReason::NbmaViaTunnel);
    }
    if entry.wants & !meta.permits != 0 {
        return frames.drop(meta, slot, DropReason::UnderlayTransit);
    }
    let link_local = meta.destination >> 8 == 0x00e0_0000;
    match entry.kind {
        Kind::Glean | Kind::Incomplete => frames.hand::<ME, { Node::Glean as u8 }>(slot),
        Kind::Receive if meta.permits & permit::TRANSIT == 0 && entry.interface != meta.interface => {
            frames.drop(meta, slot, DropReason::UnderlayTransit);
        }
        Kind::Receive => to_host(meta, frames, slot, entry.interface),
        Kind::Multicast if link_local || tables.port(meta.interface).is_some() => {
            to_host(meta, frames, slot, meta.interface);
        }
        Kind::Unreachable => frames.refuse::<ME>(meta, slot, DropReason::HostUnreachable),
        Kind::Multicast => frames.drop(meta, slot, DropReason::Multicast),
        Kind::Blackhole => frames.drop(meta, slot, DropReason::Blackhole),
        Kind::Martian => frames.drop(meta, slot, DropReason::Martian),
        Kind::NoRoute => frames.refuse::<ME>(meta, slot, DropReason::NoRoute),
        Kind::Free | Kind::Midchain | Kind::Neighbour => again(meta, frames, slot),
    }
}

fn to_host(meta: &mut Meta, frames: &mut Frames, slot: u8, interface: u16) {
    meta.end = End::Host;
    meta.target = interface;
    frames.hand::<ME, { Node::Punt as u8 }>(slot);
}

fn again(meta: &mut Meta, frames: &mut Frames, slot: u8) {
    if meta.tries == TRIES {
        return frames.drop(meta, slot, DropReason::StaleIndex);
    }
    meta.tries += 1;
    meta.end = End::Again;
}
