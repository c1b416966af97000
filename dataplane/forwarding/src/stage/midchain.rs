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
//! 7. To a peer whom an SA protects: 16 bytes more in front, the gap between the outer header, or UDP, and GRE, where ESP has its own;
//!    lengths with all that ESP adds; in tunnel mode the lengths of the header before GRE. Then `esp-encrypt` in place of `tx`.
//!
//! IPv4 over IPv4 on a link without a tag is done by ip-lookup, or in the loop, to be sealed if GRE has a key and no IP header of tunnel mode
//! before it; all else in [`Outer::emit_any`] and [`protected`].

use wire::buf::PacketBuf;
use wire::{checksum, esp, ethernet, gre, ipv4, ipv6, tcp, udp};

use super::{TCP_FLAGS, may_be_cut, room_v4, start_before, take_hops};
use crate::DropReason;
use crate::adjacency::{Adjacency, KEYED_LEN, KEYLESS_LEN, LINK_LEN, flag};
use crate::burst::{End, Frames, Meta, Sent, family};
use crate::counters::Tally;
use crate::graph::Node;
use crate::packet::{clamp_mss, count_any_hops, flow, traffic_class};
use crate::sa::Sas;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Midchain as u8;

/// Don't-fragment, in the byte that has the flags of an IPv4 header.
const DF: u8 = (ipv4::DONT_FRAGMENT >> 8) as u8;
const _: () = assert!(DF == flag::DF_COPY, "what is copied is the bit itself");

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::Midchain);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, secret, .. } = walk;
    let (bufs, meta, tally) = (bufs.as_mut_slice(), &mut **meta, counters.adjacencies());
    let (mut sent, mut id) = (walk.sent, walk.ip_id);
    let first = &meta[usize::from(frames.slot(frame, 0))];
    sent.expect(tables.adjacencies.slot(first.adjacency).port);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        id = id.wrapping_add(1);
        if meta.family & family::V6 == 0
            && let Some(len) = encap_clear(entry, buf, meta, id)
        {
            tally.count(meta.adjacency, len);
            sent.send(meta, entry.port);
            continue;
        }
        if meta.family & family::V6 == 0
            && let Some(len) = encap_sealed(entry, buf, meta.offset.into(), meta.hops, id)
        {
            tally.count(meta.adjacency, len);
            to_seal(entry, meta, frames, sas, slot);
            continue;
        }
        let len = buf.len().wrapping_sub(meta.offset.into());
        let out = Outer { entry, len, id, hops: meta.hops };
        let mut to = To { frames, sent: &mut sent, tally, secret: *secret };
        if entry.flags & flag::ESP != 0 {
            sas.outbound.prefetch(entry.protection);
            protected(&out, buf, meta, &mut to, slot);
        } else {
            unusual(&out, buf, meta, &mut to, slot);
        }
    }
    (walk.sent, walk.ip_id) = (sent, id);
}

/// Puts `LEN` bytes of Ethernet without a tag, IPv4 and GRE in front of an IPv4 packet of `len` bytes for which there is room ([`room_v4`]).
#[inline(always)]
pub(super) fn encap_v4<const LEN: usize>(entry: &Adjacency, frame: &mut [u8], len: usize, hops: u8, id: u16) {
    let emitted = Outer { entry, len, id, hops }.emit::<LEN>(frame);
    debug_assert!(emitted.is_some(), "the frame has room for both headers");
}

/// As [`encap_v4`], if it is for that and there is room; the packet's length. `None`, and nothing is done: it is for others, which say why
/// not, or do it.
#[inline(always)]
pub(super) fn encap_clear<B: PacketBuf>(
    entry: &Adjacency,
    buf: &mut B,
    meta: &Meta,
    id: u16,
) -> Option<usize> {
    if entry.flags & (flag::PLAIN | flag::ESP) != flag::PLAIN {
        return None;
    }
    let (form, hops) = (usize::from(entry.form), meta.hops);
    let len = room_v4(buf, meta.offset.into(), form, entry.mtu, hops)?;
    let frame = buf.bytes_mut();
    if form == KEYED_LEN {
        encap_v4::<KEYED_LEN>(entry, frame, len, hops, id);
    } else {
        encap_v4::<KEYLESS_LEN>(entry, frame, len, hops, id);
    }
    Some(len)
}

/// As [`encap_v4`], of what is to be sealed in transport mode, in a tunnel with a key: Ethernet, IPv4 and UDP, `ESP` bytes together; the gap for
/// ESP; GRE.
#[inline(always)]
pub(super) fn encap_esp<const ESP: usize>(
    entry: &Adjacency,
    frame: &mut [u8],
    len: usize,
    hops: u8,
    id: u16,
) {
    let emitted = Outer { entry, len, id, hops }.emit_sealed::<ESP>(frame);
    debug_assert!(emitted.is_some(), "the frame has room for all headers");
}

/// As [`encap_clear`], of [`encap_esp`]. ESP starts at [`esp_at`] then.
#[inline(always)]
pub(super) fn encap_sealed<B: PacketBuf>(
    entry: &Adjacency,
    buf: &mut B,
    offset: usize,
    hops: u8,
    id: u16,
) -> Option<usize> {
    if !entry.is_plainly_sealed() {
        return None;
    }
    let is_native = entry.flags & flag::ESP_UDP == 0;
    let len = room_v4(buf, offset, sealed_len(if is_native { NATIVE } else { IN_UDP }), entry.mtu, hops)?;
    if is_native {
        encap_esp::<NATIVE>(entry, buf.bytes_mut(), len, hops, id);
    } else {
        encap_esp::<IN_UDP>(entry, buf.bytes_mut(), len, hops, id);
    }
    Some(len)
}

/// Hands a packet on that has been done so.
#[inline(always)]
pub(super) fn to_seal(entry: &Adjacency, meta: &mut Meta, frames: &mut Frames, sas: &Sas, slot: u8) {
    sas.outbound.prefetch(entry.protection);
    meta.offset = esp_at(entry) as u16;
    meta.destination = entry.protection;
    meta.target = entry.port;
    meta.next_header = ipv4::GRE;
    frames.hand::<ME, { Node::EspEncrypt as u8 }>(slot);
}

/// Notes what esp-encrypt wants to know of a packet that goes out by this entry.
#[inline(always)]
pub(super) fn note_sealing(entry: &Adjacency, meta: &mut Meta) {
    meta.target = entry.port;
    meta.next_header = match (entry.flags & flag::ESP_TUNNEL != 0, entry.flags & flag::OUTER6 != 0) {
        (false, _) => ipv4::GRE,
        (true, false) => esp::IPV4,
        (true, true) => esp::IPV6,
    };
    if entry.flags & (flag::OUTER6 | flag::ESP_UDP) == flag::OUTER6 | flag::ESP_UDP {
        meta.family |= family::TO_SUM;
    }
}

/// Where a packet that is not plain may go, and what it takes.
struct To<'a> {
    frames: &'a mut Frames,
    sent: &'a mut Sent,
    tally: Tally<'a>,
    /// What flows are numbered by.
    secret: u64,
}

/// The whole path of a packet that is not plain.
#[inline(never)]
fn unusual<B: PacketBuf>(out: &Outer<'_>, buf: &mut B, meta: &mut Meta, to: &mut To<'_>, slot: u8) {
    let (entry, form) = (out.entry, usize::from(out.entry.form));
    let too_big = out.len > entry.mtu.into();
    if too_big && !passes(out, meta) {
        return stop(buf, meta, to, slot);
    }
    if !start_before(buf, meta.offset.into(), form) {
        return to.frames.drop(meta, slot, DropReason::NoHeadroom);
    }
    if let Err(reason) = out.emit_any(buf.bytes_mut(), to.secret) {
        meta.offset = entry.form.into();
        return to.frames.refuse::<ME>(meta, slot, reason);
    }
    to.tally.count(meta.adjacency, out.len);
    if too_big {
        meta.offset = entry.form.into();
        meta.end = End::Frame;
        meta.target = entry.port;
        return to.frames.hand::<ME, { Node::Fragment as u8 }>(slot);
    }
    to.sent.send(meta, entry.port);
}

/// Whether a packet that is larger than the tunnel takes goes on all the same.
#[cold]
fn passes(out: &Outer<'_>, meta: &Meta) -> bool {
    meta.family & family::V6 != 0 && out.len <= ipv6::MIN_MTU
}

/// What is too large is cut, or its sender told.
#[cold]
fn stop<B: PacketBuf>(buf: &B, meta: &mut Meta, to: &mut To<'_>, slot: u8) {
    if may_be_cut(meta, buf.bytes()) {
        to.frames.hand::<ME, { Node::Fragment as u8 }>(slot);
    } else {
        to.frames.refuse::<ME>(meta, slot, DropReason::TooBig);
    }
}

/// Where ESP starts in a frame by a protected adjacency.
#[inline(always)]
pub(super) fn esp_at(entry: &Adjacency) -> usize {
    let outer = if entry.flags & flag::OUTER6 == 0 { ipv4::LEN } else { ipv6::LEN };
    let udp = if entry.flags & flag::ESP_UDP == 0 { 0 } else { udp::LEN };
    usize::from(entry.link) + outer + udp
}

/// Largest outer packet by an adjacency.
pub(super) fn largest(entry: &Adjacency) -> usize {
    let (link, form, mtu) = (usize::from(entry.link), usize::from(entry.form), usize::from(entry.mtu));
    if entry.flags & flag::ESP == 0 {
        return mtu + form - link;
    }
    let esp = esp_at(entry);
    esp - link + esp::packet_len(form.saturating_sub(esp) + mtu)
}

/// The path of a packet that is to be sealed.
#[inline(never)]
fn protected<B: PacketBuf>(out: &Outer<'_>, buf: &mut B, meta: &mut Meta, to: &mut To<'_>, slot: u8) {
    let (entry, esp) = (out.entry, esp_at(out.entry));
    let too_big = out.len > entry.mtu.into();
    if too_big && !passes(out, meta) {
        return stop(buf, meta, to, slot);
    }
    let front = usize::from(entry.form) + esp::LEN;
    if !start_before(buf, meta.offset.into(), front) {
        return to.frames.drop(meta, slot, DropReason::NoHeadroom);
    }
    if let Err(reason) = out.emit_any_sealed(buf.bytes_mut(), esp, to.secret) {
        meta.offset = front as u16;
        return to.frames.refuse::<ME>(meta, slot, reason);
    }
    to.tally.count(meta.adjacency, out.len);
    if too_big {
        meta.end = End::Frame;
    }
    meta.offset = esp as u16;
    meta.destination = entry.protection;
    note_sealing(entry, meta);
    to.frames.hand::<ME, { Node::EspEncrypt as u8 }>(slot);
}

/// Where ESP starts in a frame without a tag over IPv4: by itself, and in UDP. Length of GRE with a key.
pub(super) const NATIVE: usize = LINK_LEN + ipv4::LEN;
pub(super) const IN_UDP: usize = NATIVE + udp::LEN;
pub(super) const KEYED: usize = KEYED_LEN - NATIVE;

/// All that is in front of the inner packet if ESP starts at `esp` and GRE has a key.
#[inline(always)]
pub(super) const fn sealed_len(esp: usize) -> usize {
    esp + esp::LEN + KEYED
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
    /// behind it, which has more. `None`, and nothing is done, if it is not there.
    #[inline(always)]
    fn emit<const LEN: usize>(&self, frame: &mut [u8]) -> Option<()> {
        let ready = self.entry.rewrite.first_chunk::<LEN>()?;
        let (outer, packet) = frame.split_first_chunk_mut::<LEN>()?;
        let inner = packet.first_chunk_mut::<{ ipv4::LEN }>()?;
        take_hops(inner, self.hops);
        let tos = inner[1];
        let df = inner[6] & self.entry.flags & flag::DF_COPY;
        if inner[9] == ipv4::TCP {
            self.clamp_syn(packet);
        }
        put(outer, ready);
        let header = outer.get_mut(LINK_LEN..)?.first_chunk_mut()?;
        self.finish_v4(header, self.len + LEN - LINK_LEN, tos, df);
        Some(())
    }

    /// As [`Outer::emit`], of what is to be sealed in transport mode: `ESP` bytes before ESP's own, GRE with a key behind them.
    #[inline(always)]
    fn emit_sealed<const ESP: usize>(&self, frame: &mut [u8]) -> Option<()> {
        let (ready, behind) = self.entry.rewrite.split_first_chunk::<ESP>()?;
        let gre = behind.first_chunk::<KEYED>()?;
        let (outer, rest) = frame.split_first_chunk_mut::<ESP>()?;
        let (_, rest) = rest.split_first_chunk_mut::<{ esp::LEN }>()?;
        let (own, packet) = rest.split_first_chunk_mut::<KEYED>()?;
        let inner = packet.first_chunk_mut::<{ ipv4::LEN }>()?;
        take_hops(inner, self.hops);
        let (tos, df) = (inner[1], inner[6] & self.entry.flags & flag::DF_COPY);
        if inner[9] == ipv4::TCP {
            self.clamp_syn(packet);
        }
        *outer = *ready;
        *own = *gre;
        let (_, header) = outer.split_at_mut(LINK_LEN);
        let total = ESP - LINK_LEN + esp::packet_len(KEYED + self.len);
        self.finish_v4(header.first_chunk_mut()?, total, tos, df);
        if ESP == IN_UDP {
            set_length(header, ipv4::LEN, total);
        }
        Some(())
    }

    /// The same for any family over any, in either mode, on any link; ESP starts at `esp`.
    fn emit_any_sealed(&self, frame: &mut [u8], esp: usize, secret: u64) -> Result<(), DropReason> {
        let Self { entry, .. } = *self;
        let (link, form) = (usize::from(entry.link), usize::from(entry.form));
        let ready = entry.rewrite.get(..form).and_then(|ready| ready.split_at_checked(esp));
        let (before, behind) = ready.ok_or(DropReason::StaleIndex)?;
        let split = frame.split_at_mut_checked(form + esp::LEN).ok_or(DropReason::BadHeader)?;
        let (front, packet) = split;
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        count_any_hops(packet, self.hops)?;
        clamp_mss(packet, entry.mss);
        let (outer, own) = front.split_at_mut_checked(esp).ok_or(DropReason::StaleIndex)?;
        let own = own.get_mut(esp::LEN..).ok_or(DropReason::StaleIndex)?;
        outer.copy_from_slice(before);
        own.copy_from_slice(behind);

        let over_v6 = entry.flags & flag::OUTER6 != 0;
        let (class, label) = (traffic_class(packet), if over_v6 { flow(packet, secret) } else { 0 });
        let inner = match (entry.flags & flag::ESP_TUNNEL != 0, over_v6) {
            (false, _) => 0,
            (true, false) => ipv4::LEN,
            (true, true) => ipv6::LEN,
        };
        set_protocol(own, inner + 4, if v6 { gre::IPV6 } else { gre::IPV4 });
        let behind = own.len() + self.len;
        if inner != 0 {
            finish_inner(own, behind, class, label)?;
        }
        let (head, header) = outer.split_at_mut_checked(link).ok_or(DropReason::StaleIndex)?;
        set_protocol(head, link, if over_v6 { ethernet::IPV6 } else { ethernet::IPV4 });
        let total = esp - link + esp::packet_len(behind);
        let ip = if over_v6 { ipv6::LEN } else { ipv4::LEN };
        if entry.flags & flag::ESP_UDP != 0 {
            set_length(header, ip, total);
        }
        if over_v6 {
            let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
            finish_v6(header, total - ipv6::LEN, class, label);
        } else {
            let df = if entry.flags & flag::DF_COPY != 0 { self.df_of(packet, v6) } else { 0 };
            let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
            self.finish_v4(header, total, class, df);
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

    /// Fills in what only the packet knows; `total` is the length of the outer packet.
    #[inline(always)]
    fn finish_v4(&self, outer: &mut [u8; ipv4::LEN], total: usize, tos: u8, df: u8) {
        // The tunnel's MTU keeps it within 16 bits.
        let (total, id, flags) = (total as u16, self.id, self.entry.flags);
        let sum = u32::from(self.entry.checksum) + u32::from(tos) + u32::from(total) + u32::from(id);
        let sum = sum + (u32::from(df) << 8);
        // Halves added, and what that carries.
        let checksum = !(sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16;
        outer[1] = tos;
        // Length and identification.
        outer[2..6].copy_from_slice(&(u32::from(total) << 16 | u32::from(id)).to_be_bytes());
        // What stands there is not read: it has just been written in a wider piece.
        outer[6] = df | if flags & flag::DF_SET != 0 { DF } else { 0 };
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
            finish_v6(header, self.len + form - link - ipv6::LEN, class, flow(packet, secret));
        } else {
            let df = if entry.flags & flag::DF_COPY != 0 { self.df_of(packet, v6) } else { 0 };
            let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
            self.finish_v4(header, self.len + form - link, class, df);
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
}

/// Copies 32 to 48 bytes in three words, of which the last overlaps the one before it.
#[inline(always)]
fn put<const LEN: usize>(place: &mut [u8; LEN], ready: &[u8; LEN]) {
    const WORD: usize = 16;
    const { assert!(LEN >= 2 * WORD && LEN <= 3 * WORD) };
    for at in [0, WORD, LEN - WORD] {
        let from = ready.get(at..).and_then(<[u8]>::first_chunk::<WORD>);
        let to = place.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<WORD>);
        if let Some((to, from)) = to.zip(from) {
            *to = *from;
        }
    }
}

/// As [`Outer::finish_v4`], for an outer IPv6 header; `behind` is the length of what is behind it.
fn finish_v6(outer: &mut [u8; ipv6::LEN], behind: usize, class: u8, flow: u32) {
    // 0 is no label.
    let label = (flow >> 12).max(1);
    let first = 6 << 28 | u32::from(class) << 20 | label;
    outer[..4].copy_from_slice(&first.to_be_bytes());
    outer[4..6].copy_from_slice(&(behind as u16).to_be_bytes());
}

/// Fills in the header that tunnel mode has before GRE, of a packet of `total` bytes (RFC 4301 §5.1.2). It is in one piece when it comes
/// out, so that an IPv4 one needs no identification (RFC 6864).
fn finish_inner(header: &mut [u8], total: usize, class: u8, flow: u32) -> Result<(), DropReason> {
    if header.first().is_some_and(|first| first >> 4 == 6) {
        let header = header.first_chunk_mut().ok_or(DropReason::StaleIndex)?;
        finish_v6(header, total - ipv6::LEN, class, flow);
        return Ok(());
    }
    let header = header.first_chunk_mut::<{ ipv4::LEN }>().ok_or(DropReason::StaleIndex)?;
    header[1] = class;
    header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    header[4..6].fill(0);
    header[6..8].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::checksum(&*header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// Writes the length of the datagram that starts at `at` of an outer packet of `total` bytes.
#[inline(always)]
fn set_length(outer: &mut [u8], at: usize, total: usize) {
    if let Some(place) = outer.get_mut(at + 4..at + 6) {
        place.copy_from_slice(&((total - at) as u16).to_be_bytes());
    }
}

/// Writes the two bytes before `end`, which say what follows.
fn set_protocol(header: &mut [u8], end: usize, protocol: u16) {
    if let Some(place) = header.get_mut(end - 2..end) {
        place.copy_from_slice(&protocol.to_be_bytes());
    }
}
