//! `rewrite`: onto the link.
//!
//! 1. Larger than the link takes: `fragment`, if it is IPv4 and may be cut, else `icmp-error`, `too-big`. Time to live down by one unless
//!    the packet is our own; it ends here: `icmp-error`, `ttl-expired`.
//! 2. The ready Ethernet header, with or without a tag, in front, over whatever was there: of a packet that came by a port it takes the
//!    place of the old one, of a packet that came by a tunnel the outer headers fall away. Its EtherType is the packet's own.
//! 3. Count, `tx`.

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4};

use super::{count_hops, may_be_cut, start_before};
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
    let (bufs, meta, counters) = (bufs.as_mut_slice(), &mut **meta, &**counters);
    let mut sent = walk.sent;
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        let len = buf.len().wrapping_sub(meta.offset.into());
        if len > entry.mtu.into() {
            if may_be_cut(meta, buf.bytes()) {
                frames.hand::<ME, { Node::Fragment as u8 }>(slot);
            } else {
                frames.refuse::<ME>(meta, slot, DropReason::TooBig);
            }
            continue;
        }
        if !start_before(buf, meta.offset.into(), entry.form.into()) {
            frames.drop(meta, slot, DropReason::NoHeadroom);
            continue;
        }
        let bytes = buf.bytes_mut();
        let plain = entry.form == LINK_LEN as u8 && meta.family & family::V6 == 0;
        let emitted = if plain { emit(entry, meta, bytes) } else { emit_any(entry, meta, bytes) };
        match emitted {
            Ok(()) => {
                counters.count_adjacency(meta.adjacency, len);
                sent.send(meta, entry.port);
            }
            Err(reason @ DropReason::TtlExpired) => {
                meta.offset = entry.form.into();
                frames.refuse::<ME>(meta, slot, reason);
            }
            Err(reason) => frames.drop(meta, slot, reason),
        }
    }
    walk.sent = sent;
}

/// Writes the header of a link without a tag in front of an IPv4 packet.
#[inline(always)]
fn emit(entry: &Adjacency, meta: &Meta, frame: &mut [u8]) -> Result<(), DropReason> {
    let Some((link, ip)) = split(frame) else { return Err(DropReason::BadHeader) };
    if !count_hops(ip, meta.hops) {
        return Err(DropReason::TtlExpired);
    }
    if let Some(ready) = entry.rewrite.first_chunk::<LINK_LEN>() {
        *link = *ready;
    }
    Ok(())
}

/// Ethernet and IPv4 header of a frame.
#[inline(always)]
fn split(frame: &mut [u8]) -> Option<(&mut [u8; LINK_LEN], &mut [u8; ipv4::LEN])> {
    let (link, rest) = frame.split_first_chunk_mut::<LINK_LEN>()?;
    Some((link, rest.first_chunk_mut::<{ ipv4::LEN }>()?))
}

/// The same for either family, on any link.
#[inline(never)]
fn emit_any(entry: &Adjacency, meta: &Meta, frame: &mut [u8]) -> Result<(), DropReason> {
    let form = usize::from(entry.form);
    let (link, packet) = frame.split_at_mut_checked(form).ok_or(DropReason::BadHeader)?;
    count_any_hops(packet, meta.hops)?;
    link.copy_from_slice(entry.rewrite.get(..form).ok_or(DropReason::StaleIndex)?);
    let ethertype = if meta.family & family::V6 == 0 { ethernet::IPV4 } else { ethernet::IPV6 };
    if let Some(own) = link.last_chunk_mut::<2>() {
        *own = ethertype.to_be_bytes();
    }
    Ok(())
}
