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
//!
//! What goes to a neighbour or, in the clear, into a tunnel leaves here, with the work of rewrite and midchain.

use std::ops::Range;

use wire::buf::PacketBuf;

use super::{midchain, rewrite, room_v4};
use crate::DropReason;
use crate::adjacency::{
    Adjacency, AdjacencyId, KEYED_LEN, KEYLESS_LEN, Kind, LINK_LEN, NOWHERE, flag, permit,
};
use crate::burst::{AT_ONCE, End, Frame, Frames, Meta, SLOTS, Sent, Train, family};
use crate::counters::{Counters, Tally};
use crate::graph::Node;
use crate::packet::{current, flow};
use crate::sa::Sas;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::IpLookup as u8;

/// Times that a packet is looked up again.
const TRIES: u8 = 4;

/// Packets of the queue that are looked up at once: more than of a train, since no other node's work is done with theirs.
const QUEUED: usize = 32;

/// A packet's adjacency, and what is in the slot of that.
#[derive(Clone, Copy)]
struct Found<'a> {
    entry: &'a Adjacency,
    id: AdjacencyId,
    slot: u8,
}

impl Found<'_> {
    const NONE: Self = Self { entry: &NOWHERE, id: AdjacencyId::new(0, 0), slot: 0 };
}

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::IpLookup);
    walk.enter(frame);
    let mut found = [Found::NONE; QUEUED];
    let mut from = 0;
    while from < frame.len() {
        let places = from..(from + QUEUED).min(frame.len());
        from = places.end;
        let count = places.len();
        look_up(walk, tables, frame, places, &mut found);
        if walk.observes() {
            hand_on(walk, tables, &found[..count]);
        } else {
            walk.end_lap(Some(Node::IpLookup));
            let most = send(walk, tables, sas, &found[..count]);
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
        *found = Found { entry: tables.adjacencies.slot(id), id, slot };
        memory::prefetch_read(found.entry);
        tally.prefetch(id);
    }
}

/// What is most leaves here, packet by packet, as of [`leave`]; all else is handed on. The node that most packets went through.
#[inline(never)]
fn send<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas, found: &[Found<'_>]) -> Node {
    let Walk { bufs, meta, frames, counters, secret, sent, ip_id, .. } = walk;
    let (bufs, metas, tally) = (bufs.as_mut_slice(), &mut **meta, counters.adjacencies());
    let way = Onward { tables, secret: *secret };
    let (mut rewritten, mut encapped, mut to_seal, mut number) = (0, 0, 0, *ip_id);
    let mut total = *sent;
    if let Some(Found { entry, .. }) = found.first() {
        total.expect(entry.port);
    }
    for &Found { entry, id, slot } in found {
        let Some(buf) = bufs.get_mut(usize::from(slot)) else { continue };
        let meta = &mut metas[usize::from(slot)];
        let refused = (entry.epoch ^ id.epoch()) | entry.wants & !meta.permits;
        if refused == 0 && entry.kind == Kind::Neighbour && entry.form == LINK_LEN as u8 {
            let room = room_v4(buf, meta.offset.into(), LINK_LEN, entry.mtu, meta.hops);
            if let Some((frame, len)) = room {
                rewrite::link_v4(entry, frame, meta.hops);
                tally.count(id, len);
                total.differ |= meta.leave(entry.port) ^ total.port;
                rewritten += 1;
                continue;
            }
        } else if refused == 0 && entry.kind == Kind::Midchain && entry.network != meta.network {
            number = number.wrapping_add(1);
            if let Some(len) = midchain::encap_clear(entry, buf, meta, number) {
                tally.count(id, len);
                total.differ |= meta.leave(entry.port) ^ total.port;
                encapped += 1;
                continue;
            }
            if let Some(len) = midchain::encap_sealed(entry, buf, meta.offset.into(), meta.hops, number) {
                tally.count(id, len);
                midchain::to_seal(entry, meta, frames, sas, slot);
                to_seal += 1;
                continue;
            }
        }
        way.send::<B, ME>(buf, meta, frames, slot, entry);
    }
    (*sent, *ip_id) = (total, number);
    count(counters, sent, Node::Rewrite, rewritten, 0);
    count(counters, sent, Node::Midchain, encapped, 0);
    if to_seal != 0 {
        counters.count_node(Node::Midchain, to_seal);
    }
    match (rewritten, encapped + to_seal) {
        (0, 0) => Node::IpLookup,
        (rewritten, into_tunnels) if into_tunnels > rewritten => Node::Midchain,
        _ => Node::Rewrite,
    }
}

/// Looks up packets that classify or gre-decap has just seen, and sends them. `new`: what is known of all of them.
#[inline(never)]
pub(super) fn forward<B: PacketBuf>(
    walk: &mut Walk<B>,
    tables: &Tables,
    sas: &Sas,
    train: &Train,
    new: &Meta,
) {
    let wagons = train.wagons();
    walk.counters.count_node(Node::IpLookup, wagons.len());
    let mut found = [Found::NONE; AT_ONCE];
    let (tally, slot) = (walk.counters.adjacencies(), tables.adjacencies.slots());
    let lookup = tables.fibs[usize::from(new.table)].v4.lookups();
    for (found, wagon) in found.iter_mut().zip(wagons) {
        let id = AdjacencyId::from_word(lookup(wagon.destination.into()));
        *found = Found { entry: slot(id), id, slot: wagon.slot };
        memory::prefetch_read(found.entry);
        tally.prefetch(id);
    }
    walk.end_lap(Some(Node::IpLookup));
    let found = found.get_mut(..wagons.len()).unwrap_or_default();
    // Where they start and that they are in transit, the compiler is told, which makes shorter loops of it.
    let came = Came { hops: 1, ..Came::of(new) };
    let (left, mut most) = match came.offset {
        LINK_LEN => leave(walk, found, |_| Came { offset: LINK_LEN, hops: 1, ..came }),
        KEYED_LEN => leave(walk, found, |_| Came { offset: KEYED_LEN, hops: 1, ..came }),
        _ => leave(walk, found, |_| came),
    };
    if left != 0 {
        let rest = found.get(..left).unwrap_or_default();
        write_metas(walk, rest, train, new);
        let of_rest = send(walk, tables, sas, rest);
        most = if most == Node::IpLookup { of_rest } else { most };
    }
    walk.end_lap(Some(most));
}

/// Writes what is known of those of a train that do not leave at once.
#[inline(always)]
fn write_metas<B>(walk: &mut Walk<B>, rest: &[Found<'_>], train: &Train, new: &Meta) {
    // Both are in order.
    let mut wagons = train.wagons().iter();
    for Found { id, slot, .. } in rest {
        let Some(wagon) = wagons.find(|wagon| wagon.slot == *slot) else { return };
        let meta = &mut walk.meta[usize::from(*slot)];
        *meta = *new;
        meta.destination = wagon.destination;
        meta.adjacency = *id;
    }
}

/// What of [`Meta`] the way of a packet depends on that leaves at once.
#[derive(Clone, Copy)]
struct Came {
    offset: usize,
    network: u16,
    permits: u8,
    hops: u8,
}

impl Came {
    #[inline(always)]
    fn of(meta: &Meta) -> Self {
        let Meta { offset, network, permits, hops, .. } = *meta;
        Self { offset: offset.into(), network, permits, hops }
    }
}

/// What is most, IPv4 to a neighbour or into a tunnel, leaves here, or goes to esp-encrypt at once ([`send`]): its adjacency is at hand,
/// and so is its header; who does the work of rewrite and midchain later would have to fetch both again. Here what goes in the clear, a loop
/// for each kind. How many are left, in front and in order, and the node that most went through.
#[inline(always)]
fn leave<B: PacketBuf>(
    walk: &mut Walk<B>,
    found: &mut [Found<'_>],
    came: impl Fn(&Meta) -> Came + Copy,
) -> (usize, Node) {
    let all = found.len();
    let Some(Found { entry: first, slot, .. }) = found.first() else { return (all, Node::IpLookup) };
    walk.sent.expect(first.port);
    let is_tunnel = first.kind == Kind::Midchain;
    walk.grows = is_tunnel && came(&walk.meta[usize::from(*slot)]).offset < first.form.into();
    let (left, most) = if !is_tunnel {
        (link(walk, found, came), Node::Rewrite)
    } else if first.flags & flag::ESP != 0 {
        return (all, Node::IpLookup);
    } else if first.form == KEYLESS_LEN as u8 {
        (encap::<B, KEYLESS_LEN>(walk, found, came), Node::Midchain)
    } else {
        (encap::<B, KEYED_LEN>(walk, found, came), Node::Midchain)
    };
    let most = if left == all { Node::IpLookup } else { most };
    let rest = found.get_mut(..left).unwrap_or_default();
    match (rest.is_empty(), is_tunnel) {
        (true, _) => (0, most),
        (false, true) => (link(walk, rest, came), most),
        (false, false) => (encap::<B, KEYED_LEN>(walk, rest, came), most),
    }
}

/// Sends what goes to a neighbour; how many are left, in front.
#[inline(always)]
fn link<B: PacketBuf>(walk: &mut Walk<B>, found: &mut [Found<'_>], came: impl Fn(&Meta) -> Came) -> usize {
    let Walk { bufs, meta, counters, sent, .. } = walk;
    let (left, differ) = link_all(bufs, meta, counters.adjacencies(), sent.port, found, came);
    count(counters, sent, Node::Rewrite, found.len() - left, differ);
    left
}

/// The loop of [`link`], by itself, so that what it needs has room in registers; and the bits in which ports differ from `port`.
#[inline(never)]
fn link_all<B: PacketBuf>(
    bufs: &mut [B],
    metas: &mut [Meta; SLOTS],
    tally: Tally<'_>,
    port: u16,
    found: &mut [Found<'_>],
    came: impl Fn(&Meta) -> Came,
) -> (usize, u16) {
    let (mut left, mut differ) = (0, 0);
    for at in 0..found.len() {
        let Found { entry, id, slot } = found[at];
        let (Some(buf), meta) = (bufs.get_mut(usize::from(slot)), &mut metas[usize::from(slot)]) else {
            continue;
        };
        let came = came(meta);
        if entry.takes(Kind::Neighbour, LINK_LEN, id, came.permits)
            && let Some((frame, len)) = room_v4(buf, came.offset, LINK_LEN, entry.mtu, came.hops)
        {
            tally.count(id, len);
            differ |= meta.leave(entry.port) ^ port;
            rewrite::link_v4(entry, frame, came.hops);
        } else {
            found[left] = found[at];
            left += 1;
        }
    }
    (left, differ)
}

/// Sends what goes into a tunnel in the clear, with `LEN` bytes of outer frame, and not back to where it came from; how many are left, in
/// front.
#[inline(always)]
fn encap<B: PacketBuf, const LEN: usize>(
    walk: &mut Walk<B>,
    found: &mut [Found<'_>],
    came: impl Fn(&Meta) -> Came,
) -> usize {
    let Walk { bufs, meta, counters, sent, ip_id, .. } = walk;
    let tally = counters.adjacencies();
    let (left, differ) =
        encap_all::<B, LEN>(bufs, meta, tally, sent.port, found, ip_id.wrapping_add(1), came);
    let gone = found.len() - left;
    *ip_id = ip_id.wrapping_add(gone as u16);
    count(counters, sent, Node::Midchain, gone, differ);
    left
}

/// The loop of [`encap`]. The packets' identifications are `first` and those behind it.
#[inline(never)]
fn encap_all<B: PacketBuf, const LEN: usize>(
    bufs: &mut [B],
    metas: &mut [Meta; SLOTS],
    tally: Tally<'_>,
    port: u16,
    found: &mut [Found<'_>],
    first: u16,
    came: impl Fn(&Meta) -> Came,
) -> (usize, u16) {
    let (mut left, mut differ) = (0, 0);
    for at in 0..found.len() {
        let Found { entry, id, slot } = found[at];
        let (Some(buf), meta) = (bufs.get_mut(usize::from(slot)), &mut metas[usize::from(slot)]) else {
            continue;
        };
        let came = came(meta);
        if entry.takes(Kind::Midchain, LEN, id, came.permits)
            && entry.network != came.network
            && midchain::is_clear::<LEN>(entry)
            && let Some((frame, len)) = room_v4(buf, came.offset, LEN, entry.mtu, came.hops)
        {
            tally.count(id, len);
            differ |= meta.leave(entry.port) ^ port;
            midchain::encap_v4::<LEN>(entry, frame, len, came.hops, first.wrapping_add((at - left) as u16));
        } else {
            found[left] = found[at];
            left += 1;
        }
    }
    (left, differ)
}

/// Counts packets for the node whose work was done here.
#[inline(always)]
fn count(counters: &Counters, sent: &mut Sent, node: Node, packets: usize, differ: u16) {
    if packets != 0 {
        sent.packets += packets;
        sent.differ |= differ;
        counters.count_node(node, packets);
    }
}

/// The same while somebody wants to see packets at nodes: each is handed on.
#[cold]
#[inline(never)]
fn hand_on<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, found: &[Found<'_>]) {
    let Walk { bufs, meta, frames, secret, .. } = walk;
    let way = Onward { tables, secret: *secret };
    for Found { entry, slot, .. } in found {
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
