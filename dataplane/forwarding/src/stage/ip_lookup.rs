//! `ip-lookup`: where to? Of IPv4; [`super::ip6_lookup`] does the same for IPv6.
//!
//! 1. Destination to adjacency, by longest prefix in the packet's table. All packets first, so that their cache misses overlap.
//! 2. The adjacency is gone and its slot has another life, or the FIB is newer than our view: again in the next breath,
//!    four times; then drop `stale-index`.
//! 3. One of several ways: the flow decides which.
//! 4. Not allowed this way: `underlay-transit` (transit by a port that does not forward, or by it to our own address on
//!    another interface: what is behind the port reaches the overlay through the tunnel alone), by `icmp-error` if the packet did not
//!    come by such a port; or drop `nbma-via-tunnel` (the control plane's own packet would go into a tunnel again).
//! 5. By its kind: resolved to `rewrite` or `midchain`, not resolved to `glean`, own address to `punt`, else drop. What
//!    leaves by the network it came from goes to `redirect` as well.
//! 6. Multicast: from a port to its twin; from a tunnel to the tunnel's twin if it is link-local (224.0.0.0/24), else
//!    drop `multicast`: copying it on would make a loop of the cloud.

use std::ops::Range;

use wire::buf::PacketBuf;

use super::{midchain, rewrite};
use crate::DropReason;
use crate::adjacency::{Adjacency, AdjacencyId, KEYED_LEN, Kind, LINK_LEN, NOWHERE, permit};
use crate::burst::{End, Frame, Frames, Meta, family};
use crate::graph::Node;
use crate::packet::{current, flow};
use crate::sa::Sas;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::IpLookup as u8;

/// Times that a packet is looked up again.
const TRIES: u8 = 4;

/// Packets that are looked up at once, so that their cache misses overlap; few enough for what they touch to stay at hand.
const AT_ONCE: usize = 32;

/// A packet, and what is in the slot of its adjacency.
#[derive(Clone, Copy)]
struct Found<'a> {
    entry: &'a Adjacency,
    slot: u8,
}

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::IpLookup);
    walk.enter(frame);
    let mut found = [Found { entry: &NOWHERE, slot: 0 }; AT_ONCE];
    let mut from = 0;
    while from < frame.len() {
        let places = from..(from + AT_ONCE).min(frame.len());
        from = places.end;
        let found = &mut found[..places.len()];
        look_up(walk, tables, frame, places, found);
        if walk.observes() {
            send(walk, tables, found);
        } else {
            walk.end_lap(Some(Node::IpLookup));
            let most = forward(walk, tables, sas, found);
            walk.end_lap(Some(most));
        }
    }
}

/// Destination to adjacency.
#[inline(always)]
fn look_up<'a, B: PacketBuf>(
    walk: &mut Walk<B>,
    tables: &'a Tables,
    frame: Frame,
    places: Range<usize>,
    found: &mut [Found<'a>],
) {
    let Walk { meta, frames, counters, .. } = walk;
    let (meta, tally) = (&mut **meta, counters.adjacencies());
    let mut table = meta[usize::from(frames.slot(frame, places.start))].table;
    let mut fib = &*tables.fibs[usize::from(table)].v4;
    for (at, found) in places.zip(found) {
        let slot = frames.slot(frame, at);
        let meta = &mut meta[usize::from(slot)];
        if meta.table != table {
            table = meta.table;
            fib = &*tables.fibs[usize::from(table)].v4;
        }
        let id = AdjacencyId::from_word(fib.lookup(meta.destination.into()));
        meta.adjacency = id;
        *found = Found { entry: tables.adjacencies.slot(id), slot };
        memory::prefetch_read(found.entry);
        tally.prefetch(id);
    }
}

/// What is most, IPv4 to a neighbour or into a tunnel, leaves here, or goes to esp-encrypt at once: its adjacency is at hand, and so is
/// its header; who does the work of rewrite and midchain later would have to fetch both again. All else is handed on. The node that
/// most packets went through.
#[inline(always)]
fn forward<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas, found: &[Found<'_>]) -> Node {
    let Walk { bufs, meta, frames, counters, secret, .. } = walk;
    let (bufs, metas, tally) = (bufs.as_mut_slice(), &mut **meta, counters.adjacencies());
    let (mut sent, mut ip_id) = (walk.sent, walk.ip_id);
    let way = Onward { tables, secret: *secret };
    let (mut rewritten, mut encapped, mut to_seal) = (0, 0, 0);
    if let Some(Found { entry, slot }) = found.first() {
        sent.expect(entry.port);
        if entry.kind == Kind::Midchain && metas[usize::from(*slot)].offset < entry.form.into() {
            ask_for_room(bufs, found);
        }
    }
    for &Found { entry, slot } in found {
        let Some(buf) = bufs.get_mut(usize::from(slot)) else { continue };
        let meta = &mut metas[usize::from(slot)];
        let refused = (entry.epoch ^ meta.adjacency.epoch()) | entry.wants & !meta.permits;
        if refused == 0 && entry.kind == Kind::Neighbour {
            if let Some(len) = rewrite::link_v4(entry, buf, meta) {
                tally.count(meta.adjacency, len);
                sent.leave(meta, entry.port);
                rewritten += 1;
                continue;
            }
        } else if refused == 0 && entry.kind == Kind::Midchain && entry.network != meta.network {
            ip_id = ip_id.wrapping_add(1);
            if let Some(len) = midchain::encap_v4(entry, buf, meta, ip_id) {
                tally.count(meta.adjacency, len);
                sent.leave(meta, entry.port);
                encapped += 1;
                continue;
            }
            if let Some(len) = midchain::encap_sealed(entry, buf, meta.offset.into(), meta.hops, ip_id) {
                tally.count(meta.adjacency, len);
                midchain::to_seal(entry, meta, frames, sas, slot);
                to_seal += 1;
                continue;
            }
        }
        way.send::<B, ME>(buf, meta, frames, slot, entry);
    }
    sent.packets += rewritten + encapped;
    encapped += to_seal;
    (walk.sent, walk.ip_id) = (sent, ip_id);
    walk.frames.pass::<ME, { Node::Rewrite as u8 }>(rewritten);
    walk.frames.pass::<ME, { Node::Midchain as u8 }>(encapped);
    match (rewritten, encapped) {
        (0, 0) => Node::IpLookup,
        _ if encapped > rewritten => Node::Midchain,
        _ => Node::Rewrite,
    }
}

/// Asks for the line before each packet, where its outer header will be.
#[inline(always)]
fn ask_for_room<B: PacketBuf>(bufs: &[B], found: &[Found<'_>]) {
    for Found { slot, .. } in found {
        if let Some(buf) = bufs.get(usize::from(*slot)) {
            memory::prefetch_address(buf.bytes().as_ptr().wrapping_sub(KEYED_LEN - LINK_LEN));
        }
    }
}

/// The same while somebody wants to see packets at nodes: each is handed on.
#[cold]
#[inline(never)]
fn send<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, found: &[Found<'_>]) {
    let Walk { bufs, meta, frames, secret, .. } = walk;
    let way = Onward { tables, secret: *secret };
    for Found { entry, slot } in found {
        if let Some(buf) = bufs.get(usize::from(*slot)) {
            way.send::<B, ME>(buf, &mut meta[usize::from(*slot)], frames, *slot, entry);
        }
    }
}

/// From an adjacency to the node that does what it says. `ME` is the node that found it.
pub(super) struct Onward<'a> {
    pub(super) tables: &'a Tables,
    /// What flows are spread by.
    pub(super) secret: u64,
}

impl Onward<'_> {
    /// By `entry`, which is in the slot of the packet's adjacency.
    #[inline(always)]
    pub(super) fn send<B: PacketBuf, const ME: u8>(
        &self,
        buf: &B,
        meta: &mut Meta,
        frames: &mut Frames,
        slot: u8,
        entry: &Adjacency,
    ) {
        let refused = (entry.epoch ^ meta.adjacency.epoch()) | entry.wants & !meta.permits;
        if refused == 0 && entry.kind == Kind::Midchain {
            if meta.offset < entry.form.into() {
                // The line before the packet, where the outer header will be.
                memory::prefetch_address(buf.bytes().as_ptr().wrapping_sub(KEYED_LEN - LINK_LEN));
            }
            if entry.network == meta.network {
                frames.hand::<ME, { Node::Redirect as u8 }>(slot);
            }
            frames.hand::<ME, { Node::Midchain as u8 }>(slot);
        } else if refused == 0 && entry.kind == Kind::Neighbour {
            frames.hand::<ME, { Node::Rewrite as u8 }>(slot);
        } else {
            self.elsewhere::<B, ME>(buf, meta, frames, slot, entry);
        }
    }

    /// What is neither a neighbour nor a midchain, or may not go there.
    #[inline(never)]
    fn elsewhere<B: PacketBuf, const ME: u8>(
        &self,
        buf: &B,
        meta: &mut Meta,
        frames: &mut Frames,
        slot: u8,
        entry: &Adjacency,
    ) {
        if entry.epoch != meta.adjacency.epoch() {
            return again(meta, frames, slot);
        }
        if entry.wants & !meta.permits & permit::TUNNEL != 0 {
            return frames.drop(meta, slot, DropReason::NbmaViaTunnel);
        }
        if entry.wants & !meta.permits != 0 {
            return closed::<ME>(meta, frames, slot);
        }
        match entry.kind {
            Kind::Balanced => self.balance::<B, ME>(buf, meta, frames, slot, entry),
            Kind::Midchain => {
                if entry.network == meta.network {
                    frames.hand::<ME, { Node::Redirect as u8 }>(slot);
                }
                frames.hand::<ME, { Node::Midchain as u8 }>(slot);
            }
            Kind::Neighbour => frames.hand::<ME, { Node::Rewrite as u8 }>(slot),
            Kind::Glean | Kind::Incomplete | Kind::Unprotected => {
                frames.hand::<ME, { Node::Glean as u8 }>(slot);
            }
            Kind::Receive if meta.permits & permit::TRANSIT == 0 && entry.interface != meta.interface => {
                frames.drop(meta, slot, DropReason::UnderlayTransit);
            }
            Kind::Receive => to_host::<ME>(meta, frames, slot, entry.interface),
            Kind::Multicast
                if is_link_local(meta, buf.bytes()) || self.tables.port(meta.interface).is_some() =>
            {
                to_host::<ME>(meta, frames, slot, meta.interface);
            }
            Kind::Unreachable => frames.refuse::<ME>(meta, slot, DropReason::HostUnreachable),
            Kind::Multicast => frames.drop(meta, slot, DropReason::Multicast),
            Kind::Blackhole => frames.drop(meta, slot, DropReason::Blackhole),
            Kind::Martian => frames.drop(meta, slot, DropReason::Martian),
            Kind::NoRoute => frames.refuse::<ME>(meta, slot, DropReason::NoRoute),
            Kind::Free => again(meta, frames, slot),
        }
    }

    /// The one of several ways that a packet's flow takes. If that is not resolved the packet waits for this one, and does not ask the
    /// FIB again.
    fn balance<B: PacketBuf, const ME: u8>(
        &self,
        buf: &B,
        meta: &mut Meta,
        frames: &mut Frames,
        slot: u8,
        group: &Adjacency,
    ) {
        meta.adjacency = group.member(flow(current(meta, buf.bytes()), self.secret));
        let entry = self.tables.adjacencies.slot(meta.adjacency);
        if entry.kind == Kind::Balanced {
            return again(meta, frames, slot);
        }
        meta.given = matches!(entry.kind, Kind::Glean | Kind::Incomplete);
        self.elsewhere::<B, ME>(buf, meta, frames, slot, entry);
    }
}

/// A port that does not forward: who is on this side of it is told (RFC 1812 §5.2.7.1), who is beyond it is not.
fn closed<const ME: u8>(meta: &mut Meta, frames: &mut Frames, slot: u8) {
    if meta.permits & permit::TRANSIT == 0 {
        frames.drop(meta, slot, DropReason::UnderlayTransit);
    } else {
        frames.refuse::<ME>(meta, slot, DropReason::UnderlayTransit);
    }
}

/// Whether a multicast packet's destination goes no farther than its link: 224.0.0.0/24 (RFC 5771 §4), ff02::/16 (RFC 4291 §2.7).
fn is_link_local(meta: &Meta, bytes: &[u8]) -> bool {
    if meta.family & family::V6 == 0 {
        return meta.destination >> 8 == 0x00e0_0000;
    }
    // The flags do not matter.
    matches!(current(meta, bytes).get(24..26), Some([0xff, scope]) if scope & 0xf == 2)
}

pub(super) fn to_host<const ME: u8>(meta: &mut Meta, frames: &mut Frames, slot: u8, interface: u16) {
    meta.end = End::Host;
    meta.target = interface;
    frames.hand::<ME, { Node::Punt as u8 }>(slot);
}

pub(super) fn again(meta: &mut Meta, frames: &mut Frames, slot: u8) {
    if meta.tries == TRIES {
        return frames.drop(meta, slot, DropReason::StaleIndex);
    }
    meta.tries += 1;
    meta.given = false;
    meta.end = End::Again;
}
