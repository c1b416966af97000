//! `host-unreachable`: the sender is told (RFC 792; RFC 1812 §5.2.7.1).
//!
//! 1. Who is told, and of what nobody is (§4.3.2.7): the rules of `wire::icmp::error`.
//! 2. Ten times a second for each source, and a thousand in all (§4.3.2.8). Of what nobody is told takes no part of that.
//! 3. The error, from the address of the interface that the packet came by, enters in the next breath by `inject` and is
//!    routed like any packet.
//! 4. The packet itself: drop `host-unreachable`.

use wire::buf::PacketBuf;
use wire::icmp;

use crate::DropReason;
use crate::adjacency::permit;
use crate::burst::Meta;
use crate::graph::Node;
use crate::ports::Ports;
use crate::tables::Tables;
use crate::walk::{Carried, Entry, Walk};

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::HostUnreachable);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        if let Some(error) = error(walk, tables, slot) {
            tell(walk, ports, slot, &error);
        }
        walk.drop(slot, DropReason::HostUnreachable);
    }
}

/// The error about a packet, if there is to be one.
fn error<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8) -> Option<Vec<u8>> {
    let at = usize::from(slot);
    let meta = &walk.meta[at];
    // The control plane's own packets have no sender to be told.
    if meta.permits & permit::TUNNEL == 0 {
        return None;
    }
    // The total alone decides under a flood, before an error is made.
    if !walk.errors.is_open(walk.now) {
        return None;
    }
    let own = tables.interface(meta.interface)?.address?;
    let packet = walk.bufs[at].bytes().get(usize::from(meta.offset)..)?;
    let source = packet.get(12..16)?.first_chunk::<4>()?;
    let error = icmp::error(own, icmp::Header::unreachable(icmp::HOST_UNREACHABLE), packet)?;
    walk.errors.pass(walk.now, u32::from_be_bytes(*source).into()).then_some(error)
}

/// Leaves an error for the next breath.
fn tell<P: Ports>(walk: &mut Walk<P::Buf>, ports: &mut P, slot: u8, error: &[u8]) {
    let Some(mut buf) = ports.alloc() else { return walk.drop_copy(DropReason::NoBuffer) };
    let Some(room) = buf.append(error.len()) else {
        return walk.refuse_copy(ports, buf, DropReason::NoBuffer);
    };
    room.copy_from_slice(error);
    let destination =
        error.get(16..20).and_then(|addr| addr.first_chunk::<4>()).map_or(0, |a| u32::from_be_bytes(*a));
    let interface = walk.meta[usize::from(slot)].interface;
    let meta = Meta { destination, interface, permits: permit::TRANSIT | permit::TUNNEL, ..Meta::NEW };
    match walk.carry(Carried { buf, meta, entry: Entry::Lookup, trace: 0 }) {
        Ok(()) => {
            walk.flow.copied += 1;
            walk.flow.parked += 1;
        }
        Err(buf) => walk.refuse_copy(ports, buf, DropReason::NoBuffer),
    }
}
