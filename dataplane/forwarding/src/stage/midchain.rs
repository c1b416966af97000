//! `midchain`: into the tunnel.
//!
//! 1. Larger than the tunnel takes: `icmp-error`, `too-big`. Time to live of the inner packet down by one unless it is our
//!    own; it ends here: `icmp-error`, `ttl-expired`.
//! 2. The ready outer frame (Ethernet, IPv4, GRE) in front of the inner packet in one piece. What came by a tunnel with
//!    headers of the same length moves by nothing.
//! 3. What only the packet knows: total length, identification (RFC 6864), DSCP (RFC 2983 §4.1: the inner one; ECN is
//!    cleared, RFC 6040 compatibility mode); the checksum from the adjacency's ready sum.
//! 4. Count, `tx`.

use wire::buf::PacketBuf;
use wire::ipv4;

use super::{count_hops, start_before};
use crate::DropReason;
use crate::adjacency::{Adjacency, KEYED_LEN, KEYLESS_LEN, LINK_LEN};
use crate::graph::Node;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Midchain as u8;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Midchain);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, .. } = walk;
    let (bufs, meta, counters) = (bufs.as_mut_slice(), &mut **meta, &**counters);
    let (mut sent, mut id) = (walk.sent, walk.ip_id);
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        let form = usize::from(entry.form);
        if !start_before(buf, meta.offset.into(), form) {
            frames.drop(meta, slot, DropReason::NoHeadroom);
            continue;
        }
        let bytes = buf.bytes_mut();
        let len = bytes.len().wrapping_sub(form);
        if len > entry.mtu.into() {
            meta.offset = entry.form.into();
            frames.refuse::<ME>(meta, slot, DropReason::TooBig);
            continue;
        }
        id = id.wrapping_add(1);
        let out = Outer { entry, len, id, hops: meta.hops };
        let emitted =
            if form == KEYED_LEN { out.emit::<KEYED_LEN>(bytes) } else { out.emit::<KEYLESS_LEN>(bytes) };
        match emitted {
            Ok(()) => {
                counters.count_adjacency(meta.adjacency, len);
                sent.send(meta, entry.port);
            }
            Err(reason) => {
                meta.offset = entry.form.into();
                frames.refuse::<ME>(meta, slot, reason);
            }
        }
    }
    (walk.sent, walk.ip_id) = (sent, id);
}

/// What goes before one packet.
struct Outer<'a> {
    entry: &'a Adjacency,
    /// Length of the inner packet.
    len: usize,
    /// Identification.
    id: u16,
    hops: u8,
}

impl Outer<'_> {
    /// Writes the outer frame, `LEN` bytes long, to the front of `frame`, and takes the hops off the inner packet behind it.
    #[inline(always)]
    fn emit<const LEN: usize>(&self, frame: &mut [u8]) -> Result<(), DropReason> {
        let Some((outer, inner)) = frame.split_first_chunk_mut::<LEN>() else {
            return Err(DropReason::BadHeader);
        };
        let Some(inner) = inner.first_chunk_mut::<{ ipv4::LEN }>() else { return Err(DropReason::BadHeader) };
        let Some(ready) = self.entry.rewrite.first_chunk::<LEN>() else { return Err(DropReason::StaleIndex) };
        if !count_hops(inner, self.hops) {
            return Err(DropReason::TtlExpired);
        }
        let tos = inner[1] & 0xfc;
        // The tunnel's MTU keeps the sum within 16 bits.
        let total = (self.len + LEN - LINK_LEN) as u16;
        let sum = u32::from(self.entry.checksum) + u32::from(tos) + u32::from(total) + u32::from(self.id);
        let sum = (sum >> 16) + (sum & 0xffff);
        let checksum = !((sum >> 16) + sum) as u16;
        *outer = *ready;
        outer[LINK_LEN + 1] = tos;
        outer[LINK_LEN + 2..LINK_LEN + 4].copy_from_slice(&total.to_be_bytes());
        outer[LINK_LEN + 4..LINK_LEN + 6].copy_from_slice(&self.id.to_be_bytes());
        outer[LINK_LEN + 10..LINK_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }
}
