//! `rewrite`: onto the link.
//!
//! 1. Larger than the link takes: drop `too-big`. Time to live down by one unless the packet is our own; it ends here:
//!    drop `ttl-expired`.
//! 2. The ready Ethernet header in front, over whatever was there: of a packet that came by a port it takes the place of
//!    the old one, of a packet that came by a tunnel the outer headers fall away.
//! 3. Count, `tx`.

use wire::buf::PacketBuf;

use super::{forward, start_before};
use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Rewrite);
    walk.enter(Node::Rewrite, frame.slots());
    for &slot in frame.slots() {
        let at = usize::from(slot);
        let meta = &walk.meta[at];
        let entry = tables.adjacencies.slot(meta.adjacency);
        let (id, offset, hops) = (meta.adjacency, usize::from(meta.offset), meta.hops);
        let buf = &mut walk.bufs[at];
        let Some(packet) = buf.bytes_mut().get_mut(offset..) else {
            walk.drop(slot, DropReason::BadHeader);
            continue;
        };
        let len = packet.len();
        if let Err(reason) = forward(packet, hops, entry.mtu) {
            walk.drop(slot, reason);
            continue;
        }
        if !start_before(buf, offset, LINK_LEN) {
            walk.drop(slot, DropReason::NoHeadroom);
            continue;
        }
        if let (Some(link), Some(ready)) =
            (buf.bytes_mut().first_chunk_mut::<LINK_LEN>(), entry.rewrite.first_chunk::<LINK_LEN>())
        {
            *link = *ready;
        }
        walk.counters.count_adjacency(id, len);
        walk.send(slot, entry.port);
    }
}
