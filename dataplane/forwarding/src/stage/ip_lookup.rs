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
//! What goes to a neighbour or, in the clear, into a tunnel leaves here, with the work of rewrite and midchain; what goes into a tunnel sealed
//! goes to `esp-encrypt`, with that of midchain.

use std::ops::Range;

use wire::buf::PacketBuf;
use wire::{esp, ipv4};

use super::midchain::{IN_UDP, KEYED, NATIVE, sealed_len};
use super::{Ahead, midchain, rewrite, room_v4};
use crate::DropReason;
use crate::adjacency::{
    Adjacency, AdjacencyId, KEYED_LEN, KEYLESS_LEN, Kind, LINK_LEN, NOWHERE, Wanted, flag, permit,
};
use crate::burst::{AT_ONCE, End, Frame, Frames, Meta, Places, SLOTS, Train, family};
use crate::counters::Tally;
use crate::graph::Node;
use crate::packet::{current, flow};
use crate::sa::{Outbound, Sas};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::IpLookup as u8;

/// Times that a packet is looked up again.
const TRIES: u8 = 4;

/// Packets of the queue that are looked up at once: more than of a train, since no other node's work is done with theirs.
const QUEUED: usize = 32;

/// Where an inner packet starts that came in ESP over IPv4, in transport mode, in GRE with a key; and if ESP was in UDP.
const SEALED_LEN: usize = sealed_len(NATIVE);
const SEALED_IN_UDP: usize = sealed_len(IN_UDP);

/// A packet's adjacency, and what is in the slot of that.
#[derive(Clone, Copy)]
struct Found<'a> {
    entry: &'a Adjacency,
    id: AdjacencyId,
}

impl Found<'_> {
    const NONE: Self = Self { entry: &NOWHERE, id: AdjacencyId::new(0, 0) };
}

/// Those of a train, by place.
struct FoundAll<'a> {
    entries: [&'a Adjacency; AT_ONCE],
    ids: [AdjacencyId; AT_ONCE],
}

impl<'a> FoundAll<'a> {
    const NONE: Self = Self { entries: [&NOWHERE; AT_ONCE], ids: [AdjacencyId::new(0, 0); AT_ONCE] };

    fn first(&self, places: Places) -> Option<&'a Adjacency> {
        places.iter().next().map(|at| self.entries[at])
    }
}

/// The packet in a slot, with its adjacency.
#[derive(Clone, Copy)]
struct Waiting<'a> {
    found: Found<'a>,
    slot: u8,
}

impl Waiting<'_> {
    const NONE: Self = Self { found: Found::NONE, slot: 0 };
}

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::IpLookup);
    walk.enter(frame);
    let mut found = [Waiting::NONE; QUEUED];
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
    found: &mut [Waiting<'a>],
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
        let entry = tables.adjacencies.slot(id);
        *found = Waiting { found: Found { entry, id }, slot };
        memory::prefetch_read(entry);
        tally.prefetch(id);
    }
}

/// What is most leaves here, packet by packet, as of [`leave`]; all else is handed on. The node that most packets went through.
#[inline(never)]
fn send<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas, found: &[Waiting<'_>]) -> Node {
    let Walk { bufs, meta, frames, counters, secret, sent, ip_id, .. } = walk;
    let (bufs, metas, tally) = (bufs.as_mut_slice(), &mut **meta, counters.adjacencies());
    let way = Onward { tables, secret: *secret };
    let (mut rewritten, mut encapped, mut to_seal, mut number) = (0, 0, 0, *ip_id);
    let mut total = *sent;
    if let Some(first) = found.first() {
        total.expect(first.found.entry.port);
    }
    for &Waiting { found: Found { entry, id }, slot } in found {
        let Some(buf) = bufs.get_mut(usize::from(slot)) else { continue };
        let meta = &mut metas[usize::from(slot)];
        let refused = (entry.epoch ^ id.epoch()) | entry.wants & !meta.permits;
        if refused == 0 && entry.kind == Kind::Neighbour && entry.form == LINK_LEN as u8 {
            let room = room_v4(buf, meta.offset.into(), LINK_LEN, entry.mtu, meta.hops);
            if let Some(len) = room {
                rewrite::link_v4(entry, buf.bytes_mut(), meta.hops);
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
    sent.packets += rewritten + encapped;
    if rewritten != 0 {
        counters.count_node(Node::Rewrite, rewritten);
    }
    if encapped != 0 {
        counters.count_node(Node::Midchain, encapped);
    }
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
    walk.counters.count_node(Node::IpLookup, train.places.count());
    let mut found = FoundAll::NONE;
    let ahead = Ahead { bufs: walk.bufs.get(train.slots.end..).unwrap_or_default(), grows: walk.grows };
    look_up_train(tables, walk.counters.adjacencies(), train, new.table, &ahead, &mut found);
    walk.end_lap(Some(Node::IpLookup));
    // Where they start, the compiler is told, which makes shorter loops of it; in transit they all are.
    let came = Came { slots: train.slots.clone(), new, outbound: &sas.outbound };
    let (left, mut most) = match usize::from(new.offset) {
        LINK_LEN => leave::<B, LINK_LEN>(walk, &mut found, train.places, &came),
        KEYED_LEN => leave::<B, KEYED_LEN>(walk, &mut found, train.places, &came),
        SEALED_LEN => leave::<B, SEALED_LEN>(walk, &mut found, train.places, &came),
        SEALED_IN_UDP => leave::<B, SEALED_IN_UDP>(walk, &mut found, train.places, &came),
        _ => (train.places, Node::IpLookup),
    };
    if !left.is_empty() {
        let mut rest = [Waiting::NONE; AT_ONCE];
        let count = write_metas(walk, &found, left, train, new, &mut rest);
        let of_rest = send(walk, tables, sas, rest.get(..count).unwrap_or_default());
        most = if most == Node::IpLookup { of_rest } else { most };
    }
    walk.end_lap(Some(most));
}

/// Destination to adjacency, of a train.
#[inline(always)]
fn look_up_train<'a, B: PacketBuf>(
    tables: &'a Tables,
    tally: Tally<'_>,
    train: &Train,
    table: u16,
    ahead: &Ahead<'_, B>,
    found: &mut FoundAll<'a>,
) {
    let (slot, lookup) = (tables.adjacencies.slots(), tables.fibs[usize::from(table)].v4.lookups());
    let find = |to: u32, entry: &mut &'a Adjacency, id: &mut AdjacencyId| {
        *id = AdjacencyId::from_word(lookup(to.into()));
        *entry = slot(*id);
        memory::prefetch_read(*entry);
        tally.prefetch(*id);
    };
    let (count, FoundAll { entries, ids }) = (train.slots.len(), found);
    if train.places == Places::up_to(count) {
        let to = train.destinations.get(..count).unwrap_or_default();
        for (at, ((to, entry), id)) in to.iter().zip(entries).zip(ids).enumerate() {
            ahead.ask(at);
            find(*to, entry, id);
        }
    } else {
        (0..AT_ONCE).for_each(|at| ahead.ask(at));
        for at in train.places.iter() {
            find(train.destinations[at], &mut entries[at], &mut ids[at]);
        }
    }
}

/// Writes what is known of those of a train that do not leave at once; how many they are.
#[inline(always)]
fn write_metas<'a, B>(
    walk: &mut Walk<B>,
    found: &FoundAll<'a>,
    left: Places,
    train: &Train,
    new: &Meta,
    rest: &mut [Waiting<'a>; AT_ONCE],
) -> usize {
    let mut count = 0;
    for (at, rest) in left.iter().zip(rest) {
        let found = Found { entry: found.entries[at], id: found.ids[at] };
        let slot = train.slots.start + at;
        let meta = &mut walk.meta[slot % SLOTS];
        *meta = *new;
        meta.destination = train.destinations[at];
        meta.adjacency = found.id;
        *rest = Waiting { found, slot: slot as u8 };
        count += 1;
    }
    count
}

/// What all packets of a train have in common that leave at once.
struct Came<'a> {
    slots: Range<usize>,
    /// What is known of all of them.
    new: &'a Meta,
    outbound: &'a Outbound,
}

/// What is most, IPv4 to a neighbour or into a tunnel, leaves here, or goes to esp-encrypt at once: its adjacency is at hand,
/// and so is its header; who does the work of rewrite and midchain later would have to fetch both again. It is `OFFSET` bytes behind the front
/// of its buffer: a loop for each kind, for what is like the first. Which are left, and the node that most went through.
#[inline(always)]
fn leave<B: PacketBuf, const OFFSET: usize>(
    walk: &mut Walk<B>,
    found: &mut FoundAll<'_>,
    places: Places,
    came: &Came<'_>,
) -> (Places, Node) {
    let Some(entry) = found.first(places) else { return (places, Node::IpLookup) };
    walk.sent.expect(entry.port);
    let (left, node) = leave_like::<B, OFFSET>(walk, entry, found, places, came);
    let most = if left == places { Node::IpLookup } else { node };
    let Some(other) = found.first(left) else { return (left, most) };
    // Those of another kind or port. Nobody is to send those again that are gone.
    for at in places.without(left).iter() {
        found.entries[at] = &NOWHERE;
    }
    (leave_like::<B, OFFSET>(walk, other, found, left, came).0, most)
}

/// Those that go by an adjacency like this one: which are left, and the node that the others went through.
#[inline(always)]
fn leave_like<B: PacketBuf, const OFFSET: usize>(
    walk: &mut Walk<B>,
    like: &Adjacency,
    found: &FoundAll<'_>,
    places: Places,
    came: &Came<'_>,
) -> (Places, Node) {
    if like.flags & flag::ESP != 0 {
        return (seal_like::<B, OFFSET>(walk, like, found, places, came), Node::Midchain);
    }
    let form = if like.form == KEYLESS_LEN as u8 { KEYLESS_LEN } else { KEYED_LEN };
    let Walk { bufs, counters, ip_id, grows, .. } = &mut *walk;
    *grows = like.kind == Kind::Midchain && OFFSET < form;
    let (bufs, tally) = (bufs.get_mut(came.slots.clone()).unwrap_or_default(), counters.adjacencies());
    let (left, node) = if like.kind != Kind::Midchain {
        let wanted = Wanted::new(like, Kind::Neighbour, LINK_LEN, came.new.permits, 0, 0);
        (link_all::<B, OFFSET>(bufs, tally, found, wanted), Node::Rewrite)
    } else {
        let of_flags = flag::PLAIN | flag::ESP;
        let wanted = Wanted::new(like, Kind::Midchain, form, came.new.permits, flag::PLAIN, of_flags);
        let id = ip_id.wrapping_add(1);
        let left = if form == KEYLESS_LEN {
            encap_all::<B, OFFSET, KEYLESS_LEN>(bufs, tally, found, wanted, came.new.network, id)
        } else {
            encap_all::<B, OFFSET, KEYED_LEN>(bufs, tally, found, wanted, came.new.network, id)
        };
        (left, Node::Midchain)
    };
    let (left, gone) = (left.and(places), places.without(left));
    if !gone.is_empty() {
        if node == Node::Midchain {
            walk.ip_id = walk.ip_id.wrapping_add(came.slots.len() as u16);
        }
        let count = walk.sent.send_train(&mut walk.meta, came.slots.start, gone, like.port);
        walk.counters.count_node(node, count);
    }
    (left, node)
}

/// Those that go by an adjacency like this protected one, to esp-encrypt; which are left.
#[inline(always)]
fn seal_like<B: PacketBuf, const OFFSET: usize>(
    walk: &mut Walk<B>,
    like: &Adjacency,
    found: &FoundAll<'_>,
    places: Places,
    came: &Came<'_>,
) -> Places {
    walk.grows = OFFSET < usize::from(like.form) + esp::LEN;
    if !like.is_plainly_sealed() {
        return places;
    }
    let left = if like.flags & flag::ESP_UDP == 0 {
        seal_all::<B, OFFSET, NATIVE>(walk, like, found, came)
    } else {
        seal_all::<B, OFFSET, IN_UDP>(walk, like, found, came)
    };
    let (left, gone) = (left.and(places), places.without(left));
    if !gone.is_empty() {
        walk.ip_id = walk.ip_id.wrapping_add(came.slots.len() as u16);
        walk.frames
            .hand_train::<{ Node::Midchain as u8 }, { Node::EspEncrypt as u8 }>(came.slots.start, gone);
        walk.counters.count_node(Node::Midchain, gone.count());
    }
    left
}

/// Sends what goes to a neighbour; which are left.
#[inline(never)]
fn link_all<B: PacketBuf, const OFFSET: usize>(
    bufs: &mut [B],
    tally: Tally<'_>,
    found: &FoundAll<'_>,
    wanted: Wanted,
) -> Places {
    Places::refused(bufs.iter_mut().zip(&found.entries).zip(&found.ids), |_, ((buf, entry), &id)| {
        if entry.is(wanted, id)
            && let Some(len) = room_v4(buf, OFFSET, LINK_LEN, entry.mtu, 1)
        {
            rewrite::link_v4(entry, buf.bytes_mut(), 1);
            tally.count(id, len);
            return true;
        }
        false
    })
}

/// Sends what goes into a tunnel in the clear, with `LEN` bytes of outer frame, and not back to `network` where it came from; which are
/// left. The packets' identifications are `first` and those behind it.
#[inline(never)]
fn encap_all<B: PacketBuf, const OFFSET: usize, const LEN: usize>(
    bufs: &mut [B],
    tally: Tally<'_>,
    found: &FoundAll<'_>,
    wanted: Wanted,
    network: u16,
    first: u16,
) -> Places {
    Places::refused(bufs.iter_mut().zip(&found.entries).zip(&found.ids), |at, ((buf, entry), &id)| {
        if entry.is(wanted, id)
            && entry.network != network
            && let Some(len) = room_v4(buf, OFFSET, LEN, entry.mtu, 1)
        {
            midchain::encap_v4::<LEN>(entry, buf.bytes_mut(), len, 1, first.wrapping_add(at as u16));
            tally.count(id, len);
            return true;
        }
        false
    })
}

/// Makes ready what is to be sealed, with ESP from `ESP` on, and notes what esp-encrypt wants to know of it; which are left. All is as of
/// [`encap_all`], but that nobody has been asked yet for the SA.
#[inline(never)]
fn seal_all<B: PacketBuf, const OFFSET: usize, const ESP: usize>(
    walk: &mut Walk<B>,
    like: &Adjacency,
    found: &FoundAll<'_>,
    came: &Came<'_>,
) -> Places {
    let Walk { bufs, meta, counters, ip_id, .. } = walk;
    let slots = came.slots.clone();
    let (bufs, metas) =
        (bufs.get_mut(slots.clone()).unwrap_or_default(), meta.get_mut(slots).unwrap_or_default());
    let (tally, network, first) = (counters.adjacencies(), came.new.network, ip_id.wrapping_add(1));
    let flags = if ESP == IN_UDP { flag::ESP | flag::ESP_UDP } else { flag::ESP };
    let wanted = Wanted::new(like, Kind::Midchain, ESP + KEYED, came.new.permits, flags, SEALED_FLAGS);
    let ready = Meta { offset: ESP as u16, target: like.port, next_header: ipv4::GRE, ..*came.new };
    let all = bufs.iter_mut().zip(metas).zip(&found.entries).zip(&found.ids);
    Places::refused(all, |at, (((buf, meta), entry), &id)| {
        if entry.is(wanted, id)
            && entry.network != network
            && let Some(len) = room_v4(buf, OFFSET, sealed_len(ESP), entry.mtu, 1)
        {
            came.outbound.prefetch(entry.protection);
            midchain::encap_esp::<ESP>(entry, buf.bytes_mut(), len, 1, first.wrapping_add(at as u16));
            *meta = Meta { destination: entry.protection, adjacency: id, ..ready };
            tally.count(id, len);
            return true;
        }
        false
    })
}

/// What tells a protected midchain's kinds apart.
const SEALED_FLAGS: u8 = flag::ESP | flag::OUTER6 | flag::ESP_UDP | flag::ESP_TUNNEL;

/// The same while somebody wants to see packets at nodes: each is handed on.
#[cold]
#[inline(never)]
fn hand_on<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, found: &[Waiting<'_>]) {
    let Walk { bufs, meta, frames, secret, .. } = walk;
    let way = Onward { tables, secret: *secret };
    for Waiting { found: Found { entry, .. }, slot } in found {
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
