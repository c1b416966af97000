//! `midchain`: into the tunnel.
//!
//! 1. Larger than the tunnel takes: `fragment`, if it is IPv4 and may be cut; an IPv6 packet of up to 1,280 bytes goes on all the same
//!    (RFC 2473 §7.1), and `fragment` cuts the outer packet; else `icmp-error`, `too-big`.
//! 2. Time to live of the inner packet down by one unless it is our own; it ends here: `icmp-error`, `ttl-expired`.
//! 3. The ready outer frame (Ethernet, IPv4 or IPv6, GRE) in front of the inner packet in one piece. What came by a tunnel with
//!    headers of the same length moves by nothing.
//! 4. What only the packet knows: lengths, identification (RFC 6864), don't-fragment if it is the inner one's; DSCP (RFC 2983 §4.1) and
//!    the congestion mark (RFC 6040 §4.1, normal mode) are the inner ones; the checksum from the adjacency's ready sum. Over IPv6 the
//!    flow label is the inner flow's (RFC 6438), so that the underlay can spread them.
//! 5. A TCP SYN asks for no more than the tunnel takes.
//! 6. Count, `tx`.
//!
//! IPv4 over IPv4 on a link without a tag is done in the loop, all else in [`Outer::emit_any`].

use wire::buf::PacketBuf;
use wire::{ethernet, gre, ipv4, ipv6, tcp};

use super::{TCP_FLAGS, count_hops, may_be_cut, start_before};
use crate::DropReason;
use crate::adjacency::{Adjacency, KEYED_LEN, KEYLESS_LEN, LINK_LEN, flag};
use crate::burst::{End, Frames, Meta, Sent, family};
use crate::counters::Counters;
use crate::graph::Node;
use crate::packet::{clamp_mss, count_any_hops, flow, traffic_class};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Midchain as u8;

/// Don't-fragment, in the byte that has the flags of an IPv4 header.
const DF: u8 = (ipv4::DONT_FRAGMENT >> 8) as u8;
const _: () = assert!(DF == flag::DF_COPY, "what is copied is the bit itself");

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Midchain);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, secret, .. } = walk;
    let (bufs, meta, counters) = (bufs.as_mut_slice(), &mut **meta, &**counters);
    let (mut sent, mut id) = (walk.sent, walk.ip_id);
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        let form = usize::from(entry.form);
        let len = buf.len().wrapping_sub(meta.offset.into());
        let plain = entry.flags & flag::PLAIN != 0 && meta.family & family::V6 == 0;
        if !plain || len > entry.mtu.into() {
            let out = Outer { entry, len, id: id.wrapping_add(1), hops: meta.hops };
            id = out.id;
            unusual(&out, buf, meta, &mut To { frames, sent: &mut sent, counters, secret: *secret }, slot);
            continue;
        }
        if !start_before(buf, meta.offset.into(), form) {
            frames.drop(meta, slot, DropReason::NoHeadroom);
            continue;
        }
        id = id.wrapping_add(1);
        let (out, bytes) = (Outer { entry, len, id, hops: meta.hops }, buf.bytes_mut());
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

/// Where a packet that is not plain may go, and what it takes.
struct To<'a> {
    frames: &'a mut Frames,
    sent: &'a mut Sent,
    counters: &'a Counters,
    /// What flows are numbered by.
    secret: u64,
}

/// The whole path of a packet that is not plain.
#[inline(never)]
fn unusual<B: PacketBuf>(out: &Outer<'_>, buf: &mut B, meta: &mut Meta, to: &mut To<'_>, slot: u8) {
    let (entry, form) = (out.entry, usize::from(out.entry.form));
    let too_big = out.len > entry.mtu.into();
    let passes = meta.family & family::V6 != 0 && out.len <= ipv6::MIN_MTU;
    if too_big && !passes {
        if may_be_cut(meta, buf.bytes()) {
            return to.frames.hand::<ME, { Node::Fragment as u8 }>(slot);
        }
        return to.frames.refuse::<ME>(meta, slot, DropReason::TooBig);
    }
    if !start_before(buf, meta.offset.into(), form) {
        return to.frames.drop(meta, slot, DropReason::NoHeadroom);
    }
    if let Err(reason) = out.emit_any(buf.bytes_mut(), to.secret) {
        meta.offset = entry.form.into();
        return to.frames.refuse::<ME>(meta, slot, reason);
    }
    to.counters.count_adjacency(meta.adjacency, out.len);
    if too_big {
        meta.offset = entry.form.into();
        meta.end = End::Frame;
        meta.target = entry.port;
        return to.frames.hand::<ME, { Node::Fragment as u8 }>(slot);
    }
    to.sent.send(meta, entry.port);
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
    /// Writes the outer frame of IPv4 over IPv4, `LEN` bytes long, to the front of `frame`, and takes the hops off the inner packet
    /// behind it.
    #[inline(always)]
    fn emit<const LEN: usize>(&self, frame: &mut [u8]) -> Result<(), DropReason> {
        let Some((outer, packet)) = frame.split_first_chunk_mut::<LEN>() else {
            return Err(DropReason::BadHeader);
        };
        let Some(inner) = packet.first_chunk_mut::<{ ipv4::LEN }>() else {
            return Err(DropReason::BadHeader);
        };
        let Some(ready) = self.entry.rewrite.first_chunk::<LEN>() else { return Err(DropReason::StaleIndex) };
        if !count_hops(inner, self.hops) {
            return Err(DropReason::TtlExpired);
        }
        let tos = inner[1];
        let df = inner[6] & self.entry.flags & flag::DF_COPY;
        if inner[9] == ipv4::TCP {
            self.clamp_syn(packet);
        }
        *outer = *ready;
        let (_, header) = outer.split_at_mut(LINK_LEN);
        if let Some(header) = header.first_chunk_mut() {
            self.finish_v4(header, LEN - LINK_LEN, tos, df);
        }
        Ok(())
    }

    /// Lowers what a SYN asks for; any other segment stays as it is.
    #[inline(always)]
    fn clamp_syn(&self, packet: &mut [u8]) {
        let segment = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
        if self.entry.mss != 0 && packet.get(segment + TCP_FLAGS).is_some_and(|flags| flags & tcp::SYN != 0) {
            clamp_mss(packet, self.entry.mss);
        }
    }

    /// Fills in what only the packet knows; `overhead` is the length of the outer header with all behind it that is ours.
    #[inline(always)]
    fn finish_v4(&self, outer: &mut [u8; ipv4::LEN], overhead: usize, tos: u8, df: u8) {
        // The tunnel's MTU keeps the sum within 16 bits.
        let total = (self.len + overhead) as u16;
        let sum = u32::from(self.entry.checksum) + u32::from(tos) + u32::from(total) + u32::from(self.id);
        let sum = sum + (u32::from(df) << 8);
        let sum = (sum >> 16) + (sum & 0xffff);
        let checksum = !((sum >> 16) + sum) as u16;
        outer[1] = tos;
        outer[2..4].copy_from_slice(&total.to_be_bytes());
        outer[4..6].copy_from_slice(&self.id.to_be_bytes());
        // What stands there is not read: it has just been written in a wider piece.
        outer[6] = df | if self.entry.flags & flag::DF_SET != 0 { DF } else { 0 };
        outer[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    /// As [`Outer::emit`], for any family over any, on any link.
    fn emit_any(&self, frame: &mut [u8], secret: u64) -> Result<(), DropReason> {
        let Self { entry, .. } = *self;
        let (link, form) = (usize::from(entry.link), usize::from(entry.form));
        let ready = entry.rewrite.get(..form).ok_or(DropReason::StaleIndex)?;
        let (outer, packet) = frame.split_at_mut_checked(form).ok_or(DropReason::BadHeader)?;
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        count_any_hops(packet, self.hops)?;
        clamp_mss(packet, entry.mss);
        outer.copy_from_slice(ready);

        let (head, class) = (outer.split_at_mut_checked(link), traffic_class(packet));
        let (before, header) = head.ok_or(DropReason::StaleIndex)?;
        let over_v6 = entry.flags & flag::OUTER6 != 0;
        set_protocol(before, link, if over_v6 { ethernet::IPV6 } else { ethernet::IPV4 });
        let gre = if over_v6 { ipv6::LEN } else { ipv4::LEN };
        // Flags of the GRE header: the key is the only part that there may be.
        set_protocol(header, gre + 4, if v6 { gre::IPV6 } else { gre::IPV4 });
        if over_v6 {
            let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
            self.finish_v6(header, form - link - ipv6::LEN, class, flow(packet, secret));
        } else {
            let df = if entry.flags & flag::DF_COPY != 0 { self.df_of(packet, v6) } else { 0 };
            let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
            self.finish_v4(header, form - link, class, df);
        }
        Ok(())
    }

    /// Don't-fragment of an outer header that has it of the inner one. No router cuts IPv6; but what must get through whatever the
    /// underlay takes may be cut there.
    fn df_of(&self, packet: &[u8], v6: bool) -> u8 {
        match packet.get(6) {
            Some(flags) if !v6 => flags & DF,
            _ if self.len > ipv6::MIN_MTU => DF,
            _ => 0,
        }
    }

    /// As [`Outer::finish_v4`], for an outer IPv6 header; `behind` is the length of what is ours behind it.
    fn finish_v6(&self, outer: &mut [u8; ipv6::LEN], behind: usize, class: u8, flow: u32) {
        // 0 is no label.
        let label = (flow >> 12).max(1);
        let first = 6 << 28 | u32::from(class) << 20 | label;
        outer[..4].copy_from_slice(&first.to_be_bytes());
        outer[4..6].copy_from_slice(&((self.len + behind) as u16).to_be_bytes());
    }
}

/// Writes the two bytes before `end`, which say what follows.
fn set_protocol(header: &mut [u8], end: usize, protocol: u16) {
    if let Some(place) = header.get_mut(end - 2..end) {
        place.copy_from_slice(&protocol.to_be_bytes());
    }
}
