//! `gre-decap`: GRE of our tunnels (RFC 2784, RFC 2890), over IPv4 or IPv6.
//!
//! 1. GRE header: version, flags, checksum if there is one, else drop `gre-malformed` or `gre-checksum`. A sequence number
//!    is read over.
//! 2. Tunnel by own address, key, table of the interface and, where point-to-point, source; else drop `gre-no-tunnel`. A multipoint
//!    tunnel takes any source with the right key: a direct reply may come before the binding does. A protected tunnel takes what an SA of
//!    its own protection brought: in the clear: drop `unprotected-in`; by another SA, or to a tunnel that is not protected: drop
//!    `sa-mismatch`.
//! 3. NHRP: `punt` to the control plane.
//! 4. IPv4 or IPv6: the inner header is checked as classify does. A congestion mark of the outer header goes over to it (RFC 6040 §4.2),
//!    or ends it: drop `congestion`. A TCP SYN asks for no more than the tunnel takes the other way. Then `ip-lookup` or `ip6-lookup`, as
//!    come by the tunnel, in the tunnel's table.
//! 5. All else: drop `gre-protocol`.
//!
//! What is most, GRE with a key over IPv4 before IPv4 for one tunnel, goes on from [`forward`] at once.

use std::ops::Range;

use wire::buf::PacketBuf;
use wire::{Malformed, esp, gre, ipv4, tcp};

use super::{TCP_FLAGS, check_ip, destination, ip_lookup, is_plain, source, total_length};
use crate::DropReason;
use crate::adjacency::{LINK_LEN, permit};
use crate::burst::{AT_ONCE, End, Frames, Meta, Places, SLOTS, Train, family};
use crate::fib::Fib;
use crate::graph::Node;
use crate::packet::{check_ip6, clamp_mss, merge_marks, number, traffic_class};
use crate::sa::{InboundSa, Sas};
use crate::tables::{DecapKey, DecapTunnel, Tables};
use crate::walk::Walk;

const ME: u8 = Node::GreDecap as u8;

/// GRE header with a key.
const KEYED_LEN: usize = 8;
/// Where GRE starts behind an outer IPv4 header without options, and where the inner packet behind a key.
const GRE_AT: usize = LINK_LEN + ipv4::LEN;
const INNER_AT: usize = GRE_AT + KEYED_LEN;

/// A tunnel over IPv4 as a packet came to it.
struct Found<'a> {
    key: DecapKey<u32>,
    tunnel: DecapTunnel,
    /// Of inner packets.
    fib: &'a Fib,
}

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::GreDecap);
    walk.enter(frame);
    let Walk { bufs, meta, frames, .. } = walk;
    let (bufs, meta) = (bufs.as_mut_slice(), &mut **meta);
    let mut plainly = Plainly::new(tables);
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        // Where GRE starts, what came in the clear tells at compile time.
        let taken = if meta.offset == GRE_AT as u16 {
            plainly.take_out(buf, meta, plain)
        } else {
            plainly.take_out_decrypted(buf, meta)
        };
        match taken {
            Some(Ok(())) => frames.hand::<ME, { Node::IpLookup as u8 }>(slot),
            Some(Err(reason)) => frames.drop(meta, slot, reason),
            None => unusual(buf, meta, frames, tables, slot),
        }
    }
}

/// What is most, packet by packet: IPv4 in GRE with a key, over IPv4.
pub(super) struct Plainly<'a> {
    tables: &'a Tables,
    point_to_point: bool,
    /// That of the packet before: most are of the same.
    last: Option<Found<'a>>,
}

impl<'a> Plainly<'a> {
    #[inline(always)]
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, point_to_point: tables.decap.v4.point_to_point, last: None }
    }

    /// Takes a packet that was decrypted, whose GRE starts at its offset, out of its tunnel: it is for ip-lookup then. `None`: it is not
    /// plain, and as it was.
    #[inline(always)]
    pub(super) fn take_out_decrypted<B: PacketBuf>(
        &mut self,
        buf: &mut B,
        meta: &mut Meta,
    ) -> Option<Result<(), DropReason>> {
        let (gre, over_v4) = (usize::from(meta.offset), meta.family & family::OUTER6 == 0);
        self.take_out(buf, meta, |bytes| decrypted(bytes, bytes.get(gre..)?, gre).filter(|_| over_v4))
    }

    /// The same of one that `look` sees to be plain.
    #[inline(always)]
    fn take_out<B: PacketBuf>(
        &mut self,
        buf: &mut B,
        meta: &mut Meta,
        look: impl FnOnce(&[u8]) -> Option<Plain<'_>>,
    ) -> Option<Result<(), DropReason>> {
        let bytes = buf.bytes();
        let Plain { from, marks, key, ip, inner } = look(bytes)?;
        let key = u32::from_be_bytes(key);
        let remote = if self.point_to_point { from } else { 0 };
        let key = DecapKey { local: meta.destination, remote, key: Some(key), table: meta.table };
        if self.last.as_ref().is_none_or(|last| last.key != key) {
            self.last = Found::by(self.tables, key);
        }
        let Some(Found { tunnel, fib, .. }) = &self.last else { return Some(Err(DropReason::GreNoTunnel)) };
        if tunnel.domain != meta.domain {
            return Some(Err(foreign(meta)));
        }
        let whole = inner + total_length(ip);
        let to = destination(ip);
        fib.prefetch(to.into());
        let (is_syn, is_marked) = (is_syn(ip, inner, bytes, tunnel.mss), is_marked(ip, marks));
        if whole < bytes.len() {
            cut(buf, whole);
        }
        enter(meta, *tunnel, inner, to);
        if is_syn | is_marked {
            return Some(alter(buf, inner, marks, tunnel.mss));
        }
        Some(Ok(()))
    }
}

/// Packets that esp-decrypt has opened, taken out of their tunnel at once to be looked up together: those of one tunnel that came one way,
/// with nothing about them that is not plain.
pub(super) struct Inside<'a> {
    tables: &'a Tables,
    closed: bool,
    /// How all of them came, and where their GRE starts.
    way: u64,
    local: u32,
    remote: u32,
    gre: usize,
    /// Their key, in network order.
    key: [u8; 4],
    /// What their SAs carry.
    carries: u32,
    mss: u16,
    fib: &'a Fib,
    /// What is known of them as they are inside.
    new: Meta,
    /// Which they are, and their destinations, by slot.
    places: [Places; SLOTS / AT_ONCE],
    destinations: [[u32; AT_ONCE]; SLOTS / AT_ONCE],
    count: usize,
}

impl<'a> Inside<'a> {
    /// None yet, and none at all if somebody wants to see packets at gre-decap.
    pub(super) fn new(tables: &'a Tables, closed: bool) -> Self {
        Self {
            tables,
            closed,
            // No packet's.
            way: u64::MAX,
            local: 0,
            remote: 0,
            gre: 0,
            key: [0; 4],
            carries: 0,
            mss: 0,
            fib: &tables.fibs[0].v4,
            new: Meta::NEW,
            places: [Places::NONE; SLOTS / AT_ONCE],
            destinations: [[0; AT_ONCE]; SLOTS / AT_ONCE],
            count: 0,
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes out a packet that came by `sa`, with a text that is decrypted; `false`: it is as it was.
    #[inline(always)]
    pub(super) fn take<B: PacketBuf>(
        &mut self,
        buf: &mut B,
        (meta, slot): (&Meta, u8),
        sa: InboundSa<'_>,
        text: Range<usize>,
    ) -> bool {
        const LEN: usize = KEYED_LEN + ipv4::LEN;
        let (bytes, gre) = (buf.bytes(), text.start);
        let (Some(text), Some(outer)) = (bytes.get(text), outer::<{ ipv4::LEN }>(bytes)) else {
            return false;
        };
        let (Some(head), Some(padding)) = (text.first_chunk::<LEN>(), esp_padding(text)) else {
            return false;
        };
        let (Some([first, key]), Some(ip)) = (head.as_chunks::<4>().0.first_chunk(), head.last_chunk())
        else {
            return false;
        };
        let have = text.len().saturating_sub(KEYED_LEN + esp::TRAILER + padding);
        if *first != KEYED_IPV4 || !is_plain(ip, have) || is_marked(ip, outer[1]) {
            return false;
        }
        let is_same = meta.destination == self.local
            && meta.way() == self.way
            && gre == self.gre
            && *key == self.key
            && sa.carries() == self.carries
            && (self.remote == 0 || self.remote == source(outer));
        let inner = gre + KEYED_LEN;
        if !is_same && !self.begin(meta, sa, gre, source(outer), *key) || is_syn(ip, inner, bytes, self.mss) {
            return false;
        }
        let to = destination(ip);
        self.fib.prefetch(to.into());
        cut(buf, inner + total_length(ip));
        let slot = usize::from(slot);
        self.destinations[slot / AT_ONCE][slot % AT_ONCE] = to;
        self.places[slot / AT_ONCE].insert(slot % AT_ONCE);
        self.count += 1;
        true
    }

    /// Of the first packet: the others are to be like it. `false`: it is not the first, or for no tunnel that takes it.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, came: &Meta, sa: InboundSa<'_>, gre: usize, from: u32, key: [u8; 4]) -> bool {
        if self.closed || self.count != 0 || came.family & family::OUTER6 != 0 {
            return false;
        }
        let remote = if self.tables.decap.v4.point_to_point { from } else { 0 };
        let of = DecapKey {
            local: came.destination,
            remote,
            key: Some(u32::from_be_bytes(key)),
            table: came.table,
        };
        let found = Found::by(self.tables, of).filter(|found| sa.is_transport_of(found.tunnel.domain));
        let Some(Found { tunnel, fib, .. }) = found else { return false };
        self.new = Meta { family: came.family, hops: came.hops, domain: tunnel.domain, ..Meta::NEW };
        enter(&mut self.new, tunnel, gre + KEYED_LEN, 0);
        (self.way, self.local, self.remote, self.gre) = (came.way(), came.destination, remote, gre);
        (self.key, self.carries, self.mss, self.fib) = (key, sa.carries(), tunnel.mss, fib);
        true
    }

    /// Looks them all up and sends them on.
    #[inline(never)]
    pub(super) fn forward<B: PacketBuf>(&self, walk: &mut Walk<B>, sas: &Sas) {
        walk.counters.count_node(Node::GreDecap, self.count);
        let rows = self.places.iter().zip(&self.destinations).enumerate();
        for (row, (places, destinations)) in rows.filter(|(_, (places, _))| !places.is_empty()) {
            let slots = row * AT_ONCE..walk.bufs.len().min((row + 1) * AT_ONCE);
            let train = Train { slots, places: *places, destinations: *destinations };
            ip_lookup::forward(walk, self.tables, sas, &train, &self.new);
        }
    }
}

/// Work of the same kind on packets that classify has just seen, behind IPv4 without options, for our address `local`: what is most goes on to be
/// looked up at once, if it is of one tunnel; all else waits for [`run`]: what is sent leaves in the order in which it came, whoever was done
/// first. `came`: what is known of all of them as they came.
#[inline(never)]
pub(super) fn forward<B: PacketBuf>(
    walk: &mut Walk<B>,
    tables: &Tables,
    sas: &Sas,
    slots: &Range<usize>,
    places: Places,
    local: u32,
    came: &Meta,
) {
    let bufs = walk.bufs.get_mut(slots.clone()).unwrap_or_default();
    let mut inside = Train { slots: slots.clone(), ..Train::EMPTY };
    let found = places.iter().find_map(|at| first_of(tables, bufs.get(at)?.bytes(), local, came));
    let mut others = places;
    if let Some(Found { key, tunnel, fib }) = &found {
        let only = Only { key: key.key.unwrap_or_default(), remote: key.remote, mss: tunnel.mss, fib };
        others = if key.remote == 0 {
            take_all::<B, false>(bufs, places, &only, &mut inside.destinations)
        } else {
            take_all::<B, true>(bufs, places, &only, &mut inside.destinations)
        };
        inside.places = places.without(others);
    }
    for at in others.iter() {
        hand_in::<B, { Node::Classify as u8 }>(walk, (slots.start + at) as u8, local, came);
    }
    if let Some(Found { tunnel, .. }) = found.filter(|_| !inside.places.is_empty()) {
        walk.counters.count_node(Node::GreDecap, inside.places.count());
        let mut new = Meta { family: family::OUTER4, ..*came };
        enter(&mut new, tunnel, INNER_AT, 0);
        walk.end_lap(Some(Node::GreDecap));
        ip_lookup::forward(walk, tables, sas, &inside, &new);
    }
}

/// The tunnel of a packet, if that is plain and the tunnel takes it.
fn first_of<'a>(tables: &'a Tables, bytes: &[u8], local: u32, came: &Meta) -> Option<Found<'a>> {
    let Plain { from, key, .. } = plain(bytes)?;
    let remote = if tables.decap.v4.point_to_point { from } else { 0 };
    let key = DecapKey { local, remote, key: Some(u32::from_be_bytes(key)), table: came.table };
    Found::by(tables, key).filter(|found| found.tunnel.domain == came.domain)
}

/// What all packets of a train have that come out of a tunnel.
struct Only<'a> {
    key: u32,
    /// Their source, of those of a point-to-point tunnel, if there is one.
    remote: u32,
    mss: u16,
    fib: &'a Fib,
}

/// The loop of [`forward`]; which packets are something else. `REMOTE`: whether the source matters.
#[inline(never)]
fn take_all<B: PacketBuf, const REMOTE: bool>(
    bufs: &mut [B],
    places: Places,
    only: &Only<'_>,
    destinations: &mut [u32; AT_ONCE],
) -> Places {
    let Only { key, remote, mss, fib } = *only;
    let [flags, key] = [u32::from_be_bytes(KEYED_IPV4), key].map(u32::to_be_bytes);
    let mut keyed = [0; KEYED_LEN];
    keyed.iter_mut().zip(flags.into_iter().chain(key)).for_each(|(to, from)| *to = from);
    let (keyed, prefetch) = (u64::from_ne_bytes(keyed), fib.prefetches());
    let refused = Places::refused(bufs.iter_mut().zip(destinations), |at, (buf, to)| {
        let bytes = buf.bytes();
        let Some(head) = bytes.first_chunk::<{ INNER_AT + ipv4::LEN }>() else { return false };
        let (Some(outer), Some(ip)) = (outer::<{ ipv4::LEN }>(head), head.last_chunk::<{ ipv4::LEN }>())
        else {
            return false;
        };
        let gre = head.get(GRE_AT..).and_then(<[u8]>::first_chunk).map(|gre| u64::from_ne_bytes(*gre));
        if gre != Some(keyed)
            || !places.has(at)
            || REMOTE && source(outer) != remote
            || !is_plain(ip, bytes.len() - INNER_AT)
            || is_syn(ip, INNER_AT, bytes, mss) | is_marked(ip, outer[1])
        {
            return false;
        }
        let whole = INNER_AT + total_length(ip);
        *to = destination(ip);
        prefetch((*to).into());
        if whole < bytes.len() {
            cut(buf, whole);
        }
        true
    });
    refused.and(places)
}

/// Hands a packet of such a train to [`run`].
#[cold]
pub(super) fn hand_in<B: PacketBuf, const FROM: u8>(walk: &mut Walk<B>, slot: u8, local: u32, came: &Meta) {
    walk.meta[usize::from(slot)] =
        Meta { destination: local, family: family::OUTER4, offset: GRE_AT as u16, ..*came };
    walk.frames.hand::<FROM, ME>(slot);
}

/// Whether an inner packet is a TCP SYN that may ask for more than the tunnel takes.
#[inline(always)]
fn is_syn(ip: &[u8; ipv4::LEN], inner: usize, bytes: &[u8], mss: u16) -> bool {
    ip[9] == ipv4::TCP
        && mss != 0
        && bytes.get(inner + ipv4::LEN + TCP_FLAGS).is_some_and(|flags| flags & tcp::SYN != 0)
}

/// Whether the outer header has a mark that goes over to the inner one: of these only ECT(1) and CE change anything.
#[inline(always)]
fn is_marked(ip: &[u8; ipv4::LEN], marks: u8) -> bool {
    marks & 1 != 0 && (marks ^ ip[1]) & 3 != 0
}

/// What is most: over IPv4 without options, a key and nothing else optional, IPv4 without options, nothing wrong with it.
struct Plain<'a> {
    /// Source and type of service of the outer header.
    from: u32,
    marks: u8,
    /// In network order.
    key: [u8; 4],
    /// The inner header, and where it starts.
    ip: &'a [u8; ipv4::LEN],
    inner: usize,
}

/// All of it stands at known places then. (No IPv6 header is so short that GRE could start where it does behind an IPv4 header.)
#[inline(always)]
fn plain(bytes: &[u8]) -> Option<Plain<'_>> {
    let head = bytes.first_chunk::<{ INNER_AT + ipv4::LEN }>()?;
    let (outer, ip) = (outer(head)?, head.last_chunk()?);
    let [first, key] = head.get(GRE_AT..INNER_AT)?.as_chunks::<4>().0 else { return None };
    let is_plain = *first == KEYED_IPV4 && is_plain(ip, bytes.len() - INNER_AT);
    is_plain.then(|| Plain { from: source(outer), marks: outer[1], key: *key, ip, inner: INNER_AT })
}

/// Flags and protocol type of a GRE header with a key, before IPv4.
const KEYED_IPV4: [u8; 4] = ((gre::KEY as u32) << 16 | gre::IPV4 as u32).to_be_bytes();

/// The same of what esp-decrypt brings over IPv4, whose GRE is behind the headers of ESP: `text`, at `gre`.
#[inline(always)]
fn decrypted<'a>(bytes: &'a [u8], text: &'a [u8], gre: usize) -> Option<Plain<'a>> {
    const LEN: usize = KEYED_LEN + ipv4::LEN;
    let (head, outer) = (text.first_chunk::<LEN>()?, outer(bytes)?);
    let ([first, key], ip) = (head.first_chunk::<KEYED_LEN>()?.as_chunks::<4>().0, head.last_chunk()?) else {
        return None;
    };
    let is_plain = *first == KEYED_IPV4 && is_plain(ip, text.len() - KEYED_LEN);
    is_plain.then(|| Plain { from: source(outer), marks: outer[1], key: *key, ip, inner: gre + KEYED_LEN })
}

/// What is most: the padding of a decrypted text that is GRE, if it has as little as senders usually add (RFC 4303 §2.4), and nothing is wrong with
/// it. Looked at in one word.
#[inline(always)]
fn esp_padding(text: &[u8]) -> Option<usize> {
    /// Most padding, and what a text with so much ends with: 1, 2, 3 …, its length, the next header.
    const MOST: usize = 6;
    const ENDS: [u64; MOST + 1] = {
        let (mut ends, mut pad) = ([0; MOST + 1], 0);
        while pad <= MOST {
            let (mut end, mut at) = ((ipv4::GRE as u64) << 8 | pad as u64, pad as u64);
            while at > 0 {
                end = end << 8 | at;
                at -= 1;
            }
            ends[pad] = end << (8 * (MOST - pad));
            pad += 1;
        }
        ends
    };
    let last = text.last_chunk().map(|last| u64::from_le_bytes(*last))?;
    let pad = usize::from((last >> 48) as u8);
    // What is before the padding is shifted out.
    ((last ^ ENDS.get(pad)?) >> (8 * (MOST - pad)) == 0).then_some(pad)
}

/// Why a tunnel does not take a packet that has another protection than its own.
#[cold]
fn foreign(meta: &Meta) -> DropReason {
    if meta.domain == 0 { DropReason::UnprotectedIn } else { DropReason::SaMismatch }
}

/// From outer to inner packet, which is at `offset`.
#[inline(always)]
fn enter(meta: &mut Meta, tunnel: DecapTunnel, offset: usize, destination: u32) {
    meta.destination = destination;
    meta.offset = offset as u16;
    meta.interface = tunnel.interface.0;
    meta.network = tunnel.redirects;
    meta.table = tunnel.table;
    meta.permits = permit::TRANSIT | permit::TUNNEL;
}

/// What an inner packet takes over from the outer one, and what its SYN may ask for.
#[cold]
#[inline(never)]
fn alter<B: PacketBuf>(buf: &mut B, inner: usize, marks: u8, mss: u16) -> Result<(), DropReason> {
    let packet = buf.bytes_mut().get_mut(inner..).unwrap_or_default();
    merge_marks(marks, packet)?;
    clamp_mss(packet, mss);
    Ok(())
}

/// The whole path of a packet that is not plain.
#[cold]
#[inline(never)]
fn unusual<B: PacketBuf>(buf: &mut B, meta: &mut Meta, frames: &mut Frames, tables: &Tables, slot: u8) {
    match open(buf, meta, tables) {
        Ok(gre::NHRP) => {
            meta.end = End::Nhrp;
            frames.hand::<ME, { Node::Punt as u8 }>(slot);
        }
        Ok(gre::IPV6) => frames.hand::<ME, { Node::Ip6Lookup as u8 }>(slot),
        Ok(_) => frames.hand::<ME, { Node::IpLookup as u8 }>(slot),
        Err(reason) => frames.drop(meta, slot, reason),
    }
}

/// Looks at the whole of it; the GRE protocol type: IPv4, IPv6 or NHRP.
fn open<B: PacketBuf>(buf: &mut B, meta: &mut Meta, tables: &Tables) -> Result<u16, DropReason> {
    let bytes = buf.bytes();
    let gre = bytes.get(usize::from(meta.offset)..).ok_or(DropReason::GreMalformed)?;
    let (fields, inner) = gre::parse(gre).map_err(|malformed| match malformed {
        Malformed::Checksum(_) => DropReason::GreChecksum,
        _ => DropReason::GreMalformed,
    })?;
    let tunnel = if meta.family & family::OUTER6 == 0 {
        let remote = outer(bytes).map_or(0, source);
        tables.decap.v4.tunnel(DecapKey {
            local: meta.destination,
            remote,
            key: fields.key,
            table: meta.table,
        })
    } else {
        tunnel_over_v6(tables, meta, bytes, fields.key)
    };
    let tunnel = tunnel.ok_or(DropReason::GreNoTunnel)?;
    if tunnel.domain != meta.domain {
        return Err(foreign(meta));
    }
    let (total, destination) = match fields.protocol {
        gre::NHRP => (inner.len(), 0),
        gre::IPV4 => check_ip(inner).map(|ip| (ip.total, ip.destination))?,
        gre::IPV6 => {
            meta.family |= family::V6;
            (check_ip6(inner)?.total, 0)
        }
        _ => return Err(DropReason::GreProtocol),
    };
    let marks = traffic_class(bytes.get(LINK_LEN..).unwrap_or_default());
    let inner = usize::from(meta.offset) + fields.len;
    enter(meta, tunnel, inner, destination);
    cut(buf, inner + total);
    if fields.protocol != gre::NHRP {
        alter(buf, inner, marks, tunnel.mss)?;
    }
    Ok(fields.protocol)
}

impl<'a> Found<'a> {
    fn by(tables: &'a Tables, key: DecapKey<u32>) -> Option<Self> {
        let tunnel = tables.decap.v4.tunnel(key)?;
        Some(Self { key, tunnel, fib: &tables.fibs[usize::from(tunnel.table)].v4 })
    }
}

/// The outer header, of either family: where it stands until the packet leaves.
#[inline(always)]
fn outer<const LEN: usize>(bytes: &[u8]) -> Option<&[u8; LEN]> {
    bytes.get(LINK_LEN..)?.first_chunk()
}

/// The tunnel of a packet over IPv6.
fn tunnel_over_v6(tables: &Tables, meta: &Meta, bytes: &[u8], key: Option<u32>) -> Option<DecapTunnel> {
    let header = outer(bytes)?;
    let (remote, local) = (number(header, 8), number(header, 24));
    tables.decap.v6.tunnel(DecapKey { local, remote, key, table: meta.table })
}

fn cut<B: PacketBuf>(buf: &mut B, whole: usize) {
    let cut = buf.truncate(whole);
    debug_assert!(cut, "the total length is within the packet");
}
