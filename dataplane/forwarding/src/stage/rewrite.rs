//! `rewrite`: onto the link.
//!
//! 1. Larger than the link takes: `icmp-error`, `too-big`. Time to live down by one unless the packet is our own; it ends
//!    here: `icmp-error`, `ttl-expired`.
//! 2. The ready Ethernet header in front, over whatever was there: of a packet that came by a port it takes the place of
//!    the old one, of a packet that came by a tunnel the outer headers fall away.
//! 3. Count, `tx`.

use wire::buf::PacketBuf;
use wire::ipv4;

use super::{count_hops, start_before};
use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Rewrite as u8;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Rewrite);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, .. } = walk;
    let (bufs, meta, counters) = (bufs.as_mut_slice(), &mut **meta, &**counters);
    let mut sent = walk.sent;
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        if !start_before(buf, meta.offset.into(), LINK_LEN) {
            frames.drop(meta, slot, DropReason::NoHeadroom);
            continue;
        }
        let bytes = buf.bytes_mut();
        let len = bytes.len().wrapping_sub(LINK_LEN);
        let Some((link, ip)) = split(bytes) else {
            frames.drop(meta, slot, DropReason::BadHeader);
            continue;
        };
        if len > entry.mtu.into() {
            meta.offset = LINK_LEN as u16;
            frames.refuse::<ME>(meta, slot, DropReason::TooBig);
            continue;
        }
        if !count_hops(ip, meta.hops) {
            meta.offset = LINK_LEN as u16;
            frames.refuse::<ME>(meta, slot, DropReason::TtlExpired);
            continue;
        }
        if let Some(ready) = entry.rewrite.first_chunk::<LINK_LEN>() {
            *link = *ready;
        }
        counters.count_adjacency(meta.adjacency, len);
        sent.send(meta, entry.port);
    }
    walk.sent = sent;
}

/// Ethernet and IPv4 header of a frame.
#[inline(always)]
fn split(frame: &mut [u8]) -> Option<(&mut [u8; LINK_LEN], &mut [u8; ipv4::LEN])> {
    let (link, rest) = frame.split_first_chunk_mut::<LINK_LEN>()?;
    Some((link, rest.first_chunk_mut::<{ ipv4::LEN }>()?))
}
