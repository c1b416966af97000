//! `rewrite`: onto the link.
//!
//! 1. Larger than the link takes: `fragment`, if it is IPv4 and may be cut, else `icmp-error`, `too-big`. Time to live down by one unless
//!    the packet is our own; it ends here: `icmp-error`, `ttl-expired`.
//! 2. The ready Ethernet header, with or without a tag, in front, over whatever was there: of a packet that came by a port it takes the
//!    place of the old one, of a packet that came by a tunnel the outer headers fall away. Its EtherType is the packet's own.
//! 3. Count, `tx`.

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4};

use super::{may_be_cut, room_v4, start_before, take_hops};
use crate::DropReason;
use crate::adjacency::{Adjacency, LINK_LEN};
use crate::burst::{Meta, family};
use crate::graph::Node;
use crate::packet::count_any_hops;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Rewrite as u8;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Rewrite);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, .. } = walk;
    let (bufs, meta, tally) = (bufs.as_mut_slice(), &mut **meta, counters.adjacencies());
    let mut sent = walk.sent;
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        if meta.family & family::V6 == 0
            && entry.form == LINK_LEN as u8
            && let Some(len) = room_v4(buf, meta.offset.into(), LINK_LEN, entry.mtu, meta.hops)
        {
            link_v4(entry, buf.bytes_mut(), meta.hops);
            tally.count(meta.adjacency, len);
            sent.send(meta, entry.port);
            continue;
        }
        let len = buf.len().wrapping_sub(meta.offset.into());
        match link_any(entry, buf, meta) {
            Ok(()) => {
                tally.count(meta.adjacency, len);
                sent.send(meta, entry.port);
            }
            Err(DropReason::TooBig) if may_be_cut(meta, buf.bytes()) => {
                frames.hand::<ME, { Node::Fragment as u8 }>(slot);
            }
            Err(reason @ (DropReason::TooBig | DropReason::TtlExpired)) => {
                frames.refuse::<ME>(meta, slot, reason);
            }
            Err(reason) => frames.drop(meta, slot, reason),
        }
    }
    walk.sent = sent;
}

/// What is most: puts the header of a link without a tag in front of an IPv4 packet for which there is room ([`room_v4`]).
#[inline(always)]
pub(super) fn link_v4(entry: &Adjacency, frame: &mut [u8], hops: u8) {
    let ready = entry.rewrite.first_chunk::<LINK_LEN>();
    let words = ready.and_then(|ready| ready.first_chunk::<8>().zip(ready.last_chunk::<8>()));
    let frame = frame.first_chunk_mut::<{ LINK_LEN + ipv4::LEN }>();
    let Some(((first, last), frame)) = words.zip(frame) else { return };
    if let Some(header) = frame.last_chunk_mut() {
        take_hops(header, hops);
    }
    // In two words that overlap.
    if let Some(place) = frame.first_chunk_mut() {
        *place = *first;
    }
    if let Some(place) = frame.get_mut(LINK_LEN - 8..).and_then(<[u8]>::first_chunk_mut) {
        *place = *last;
    }
}

/// The same for either family, on any link. A packet whose hops are used up starts behind the place of the header then.
#[inline(never)]
fn link_any<B: PacketBuf>(entry: &Adjacency, buf: &mut B, meta: &mut Meta) -> Result<(), DropReason> {
    if buf.len().wrapping_sub(meta.offset.into()) > entry.mtu.into() {
        return Err(DropReason::TooBig);
    }
    let form = usize::from(entry.form);
    if !start_before(buf, meta.offset.into(), form) {
        return Err(DropReason::NoHeadroom);
    }
    meta.offset = entry.form.into();
    let (link, packet) = buf.bytes_mut().split_at_mut_checked(form).ok_or(DropReason::BadHeader)?;
    count_any_hops(packet, meta.hops)?;
    link.copy_from_slice(entry.rewrite.get(..form).ok_or(DropReason::StaleIndex)?);
    let ethertype = if meta.family & family::V6 == 0 { ethernet::IPV4 } else { ethernet::IPV6 };
    if let Some(own) = link.last_chunk_mut::<2>() {
        *own = ethertype.to_be_bytes();
    }
    Ok(())
}
