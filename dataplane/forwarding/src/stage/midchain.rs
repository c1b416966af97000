//! `midchain`: into the tunnel.
//!
//! 1. Larger than the tunnel takes: drop `too-big`. Time to live of the inner packet down by one unless it is our own; it
//!    ends here: drop `ttl-expired`.
//! 2. The ready outer frame (Ethernet, IPv4, GRE) in front of the inner packet in one piece. What came by a tunnel with
//!    headers of the same length moves by nothing.
//! 3. What only the packet knows: total length, identification (RFC 6864), DSCP (RFC 2983 §4.1: the inner one; ECN is
//!    cleared, RFC 6040 compatibility mode); the checksum from the adjacency's ready sum.
//! 4. Count, `tx`.

use wire::buf::PacketBuf;

use super::{forward, start_before};
use crate::DropReason;
use crate::adjacency::{Adjacency, KEYED_LEN, KEYLESS_LEN, LINK_LEN};
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

/// Packets ahead of the current one for whose outer header the cache line is asked for.
const AHEAD: usize = 4;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Midchain);
    let slots = frame.slots();
    walk.enter(Node::Midchain, slots);
    for (turn, &slot) in slots.iter().enumerate() {
        if let Some(ahead) = slots.get(turn + AHEAD) {
            // The line before the packet, where the outer header will be.
            memory::prefetch_address(
                walk.bufs[usize::from(*ahead)].bytes().as_ptr().wrapping_sub(KEYED_LEN - LINK_LEN),
            );
        }
        let at = usize::from(slot);
        let meta = &walk.meta[at];
        let entry = tables.adjacencies.slot(meta.adjacency);
        let (id, offset, hops) = (meta.adjacency, usize::from(meta.offset), meta.hops);
        let buf = &mut walk.bufs[at];
        let Some(inner) = buf.bytes_mut().get_mut(offset..) else {
            walk.drop(slot, DropReason::BadHeader);
            continue;
        };
        let len = inner.len();
        if let Err(reason) = forward(inner, hops, entry.mtu) {
            walk.drop(slot, reason);
            continue;
        }
        let tos = inner.get(1).map_or(0, |tos| tos & 0xfc);
        if !start_before(buf, offset, usize::from(entry.form)) {
            walk.drop(slot, DropReason::NoHeadroom);
            continue;
        }
        walk.ip_id = walk.ip_id.wrapping_add(1);
        if usize::from(entry.form) == KEYED_LEN {
            emit::<KEYED_LEN>(buf.bytes_mut(), entry, len, tos, walk.ip_id);
        } else {
            emit::<KEYLESS_LEN>(buf.bytes_mut(), entry, len, tos, walk.ip_id);
        }
        walk.counters.count_adjacency(id, len);
        walk.send(slot, entry.port);
    }
}

/// Writes the outer frame of `LEN` bytes to the front of `frame`, which holds `len` bytes of inner packet behind it.
#[inline(always)]
fn emit<const LEN: usize>(frame: &mut [u8], entry: &Adjacency, len: usize, tos: u8, id: u16) {
    let (Some(out), Some(ready)) = (frame.first_chunk_mut::<LEN>(), entry.rewrite.first_chunk::<LEN>())
    else {
        return debug_assert!(false, "the packet was made to start before its outer header");
    };
    // The tunnel's MTU keeps the sum within 16 bits.
    let total = (len + LEN - LINK_LEN) as u16;
    let sum = u32::from(entry.checksum) + u32::from(tos) + u32::from(total) + u32::from(id);
    let sum = (sum >> 16) + (sum & 0xffff);
    let checksum = !((sum >> 16) + sum) as u16;
    *out = *ready;
    out[LINK_LEN + 1] = tos;
    out[LINK_LEN + 2..LINK_LEN + 4].copy_from_slice(&total.to_be_bytes());
    out[LINK_LEN + 4..LINK_LEN + 6].copy_from_slice(&id.to_be_bytes());
    out[LINK_LEN + 10..LINK_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
}
