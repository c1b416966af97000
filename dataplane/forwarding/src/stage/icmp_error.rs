//! `icmp-error`: the sender is told why its packet is dropped (RFC 792; RFC 1812 §5.2.7.1, §5.3.1).
//!
//! 1. What there is to say: see [`message`]. Who is told, and of what nobody is (§4.3.2.7): the rules of `wire::icmp::error`.
//! 2. Ten times a second for each source, as many at once, and a thousand a second in all (§4.3.2.8). Of what nobody is told
//!    takes no part of that.
//! 3. The error, from the address of the interface that the packet came by, enters in the next breath by `inject` and is
//!    routed like any packet: about what came by a tunnel, by the tunnel.
//! 4. The packet itself: drop, for the reason that it was handed over with.

use wire::buf::PacketBuf;
use wire::{icmp, ipv4};

use crate::DropReason;
use crate::adjacency::permit;
use crate::burst::Meta;
use crate::graph::Node;
use crate::ports::Ports;
use crate::tables::Tables;
use crate::walk::{Carried, Entry, Walk};

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::IcmpError);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        if let Some(error) = error(walk, tables, slot) {
            tell(walk, ports, slot, &error);
        }
        walk.drop(slot, walk.meta[usize::from(slot)].reason);
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
    let mtu = || tables.adjacencies.slot(meta.adjacency).mtu;
    let error = icmp::error(own, message(meta.reason, packet, mtu)?, packet)?;
    walk.errors.pass(walk.now, u32::from_be_bytes(*source).into()).then_some(error)
}

/// What there is to say about `packet`; `mtu` is that of the adjacency it was to leave by.
fn message(reason: DropReason, packet: &[u8], mtu: impl FnOnce() -> u16) -> Option<icmp::Header> {
    match reason {
        DropReason::HostUnreachable => Some(icmp::Header::unreachable(icmp::HOST_UNREACHABLE)),
        DropReason::NoRoute => Some(icmp::Header::unreachable(icmp::NET_UNREACHABLE)),
        DropReason::TtlExpired => Some(icmp::Header::time_exceeded()),
        DropReason::TooBig => {
            let flags = packet.get(6..8)?.first_chunk::<2>()?;
            let whole = u16::from_be_bytes(*flags) & ipv4::DONT_FRAGMENT != 0;
            whole.then(|| icmp::Header::fragmentation_needed(mtu()))
        }
        _ => None,
    }
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
