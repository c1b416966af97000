//! `replicate`: multicast that the host sends on a tunnel.
//!
//! 1. Nobody receives it: drop `no-replica`.
//! 2. A copy for each receiver, as many as this walk has slots for; the last receiver gets the packet itself. The rest is
//!    made in the next breaths: the packet waits, with the number of copies made. Too many wait: drop `replicate-full`.
//! 3. Each goes to its receiver's adjacency: `midchain`, or `glean` if the link there is not resolved. The receiver has no
//!    link: drop `unresolved`, or on a protected tunnel no SA: drop `no-outbound-sa`; a copy for one receiver is none for the NHS. All are
//!    full copies: each is sealed in place.

use wire::buf::PacketBuf;

use crate::DropReason;
use crate::adjacency::{AdjacencyId, Kind};
use crate::burst::{End, Meta, SLOTS};
use crate::graph::Node;
use crate::ports::Ports;
use crate::tables::Tables;
use crate::walk::{REPLICATED, Walk};

const ME: u8 = Node::Replicate as u8;

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::Replicate);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let meta = walk.meta[usize::from(slot)];
        let made = meta.adjacency.word() as usize;
        let replicas = tables.tunnel(meta.interface).map_or(&[][..], |tunnel| &tunnel.replicas);
        let Some((last, others)) = replicas.get(made..).and_then(<[_]>::split_last) else {
            walk.drop(slot, DropReason::NoReplica);
            continue;
        };
        let room = SLOTS - walk.bufs.len();
        for id in others.iter().take(room) {
            copy(walk, tables, ports, slot, *id);
        }
        if others.len() <= room {
            send(walk, tables, slot, *last);
        } else if walk.replicating < REPLICATED {
            walk.replicating += 1;
            let meta = &mut walk.meta[usize::from(slot)];
            meta.adjacency = AdjacencyId::from_word((made + room) as u32);
            meta.end = End::Replicate;
        } else {
            walk.drop(slot, DropReason::ReplicateFull);
        }
    }
}

/// A copy of the packet in `slot`, on its way to a receiver.
fn copy<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P, slot: u8, id: AdjacencyId) {
    let at = usize::from(slot);
    let meta = Meta { offset: 0, ..walk.meta[at] };
    let offset = usize::from(walk.meta[at].offset);
    let Some(mut copy) = ports.alloc() else { return walk.drop_copy(DropReason::NoBuffer) };
    let packet = walk.bufs[at].bytes().get(offset..).unwrap_or_default();
    let Some(room) = copy.append(packet.len()) else {
        return walk.refuse_copy(ports, copy, DropReason::NoBuffer);
    };
    room.copy_from_slice(packet);
    let trace = walk.trace.id(slot);
    match walk.seat(copy, meta, trace) {
        Ok(slot) => {
            walk.flow.copied += 1;
            send(walk, tables, slot, id);
        }
        Err(copy) => walk.refuse_copy(ports, copy, DropReason::NoBuffer),
    }
}

fn send<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8, id: AdjacencyId) {
    let meta = &mut walk.meta[usize::from(slot)];
    meta.adjacency = id;
    meta.given = true;
    match tables.adjacencies.at(id).map(|entry| (entry.kind, entry.interface)) {
        Some((Kind::Midchain, _)) => walk.frames.hand::<ME, { Node::Midchain as u8 }>(slot),
        Some((Kind::Incomplete, on)) if tables.port(on).is_some() => {
            walk.frames.hand::<ME, { Node::Glean as u8 }>(slot);
        }
        Some((Kind::Incomplete, _)) => walk.drop(slot, DropReason::Unresolved),
        Some((Kind::Unprotected, _)) => walk.drop(slot, DropReason::NoOutboundSa),
        _ => walk.drop(slot, DropReason::StaleIndex),
    }
}
