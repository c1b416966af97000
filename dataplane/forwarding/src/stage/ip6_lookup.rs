//! `ip6-lookup`: where to? As [`super::ip_lookup`], for IPv6.
//!
//! 1. Destination to adjacency, by longest prefix in the packet's table, many at once so that their cache misses overlap. A link-local
//!    address is looked up with the number of the link on which it came.
//! 2. To a link-local address: it stays on that link (RFC 4291 §2.5.6). To a next hop of the same multipoint tunnel, by `midchain`, or
//!    by `glean` if its link is not resolved: a cloud is one link, in which a hub relays. What else comes by a port or tunnel goes to the
//!    twin, whose kernel knows which of these addresses are its own. What a multipoint tunnel's own twin sends to a station that is not
//!    known: to `glean`. On a port or a point-to-point tunnel: drop `scope`.
//! 3. From a link-local address, or from what is no station's, to somewhere beyond us: `icmp-error`, `scope`.
//! 4. All else as in ip-lookup; multicast that stays on its link is ff02::/16.

use std::net::Ipv6Addr;

use wire::buf::PacketBuf;
use wire::ipv6;

use super::ip_lookup::{Onward, again, to_host};
use crate::DropReason;
use crate::adjacency::{AdjacencyId, Kind};
use crate::burst::{Frames, Meta};
use crate::graph::Node;
use crate::packet::{current, number};
use crate::tables::{Tables, on_link};
use crate::walk::Walk;

const ME: u8 = Node::Ip6Lookup as u8;

/// Packets that are looked up at once.
const AT_ONCE: usize = 64;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::Ip6Lookup);
    walk.enter(frame);
    let Walk { bufs, meta, frames, counters, secret, .. } = walk;
    let (bufs, meta, tally) = (bufs.as_slice(), &mut **meta, counters.adjacencies());
    let way = Onward { tables, secret: *secret };
    let (mut to, mut reaches) = ([Ipv6Addr::UNSPECIFIED; AT_ONCE], [true; AT_ONCE]);
    let mut words = [0; AT_ONCE];
    let mut from = 0;
    while from < frame.len() {
        let len = AT_ONCE.min(frame.len() - from);
        for at in 0..len {
            let slot = usize::from(frames.slot(frame, from + at));
            let header = bufs.get(slot).and_then(|buf| current(&meta[slot], buf.bytes()).first_chunk());
            let header = header.unwrap_or(&[0; ipv6::LEN]);
            to[at] = on_link(number(header, 24), meta[slot].interface).into();
            reaches[at] = reaches_beyond_link(number(header, 8));
        }
        let table = |at: usize| meta[usize::from(frames.slot(frame, from + at))].table;
        let mut first = 0;
        while first < len {
            let place = table(first);
            let end = (first..len).find(|at| table(*at) != place).unwrap_or(len);
            tables.fibs[usize::from(place)].v6.lookup_bulk(&to[first..end], &mut words[first..end]);
            first = end;
        }
        for word in &words[..len] {
            let id = AdjacencyId::from_word(*word);
            tables.adjacencies.prefetch(id);
            tally.prefetch(id);
        }
        for at in 0..len {
            let slot = frames.slot(frame, from + at);
            let (Some(buf), meta) = (bufs.get(usize::from(slot)), &mut meta[usize::from(slot)]) else {
                continue;
            };
            meta.adjacency = AdjacencyId::from_word(words[at]);
            if to[at].is_unicast_link_local() {
                stay(tables, meta, frames, slot);
            } else if !reaches[at] && leads_on(tables, meta.adjacency) {
                frames.refuse::<ME>(meta, slot, DropReason::Scope);
            } else {
                way.send::<B, ME>(buf, meta, frames, slot, tables.adjacencies.slot(meta.adjacency));
            }
        }
        from += len;
    }
}

/// To where a link-local address is, on the link that the packet came by.
fn stay(tables: &Tables, meta: &mut Meta, frames: &mut Frames, slot: u8) {
    let Some(entry) = tables.adjacencies.at(meta.adjacency) else { return again(meta, frames, slot) };
    meta.given = true;
    match entry.kind {
        Kind::Midchain => frames.hand::<ME, { Node::Midchain as u8 }>(slot),
        Kind::Incomplete | Kind::Unprotected => frames.hand::<ME, { Node::Glean as u8 }>(slot),
        Kind::Glean if meta.hops == 0 => frames.hand::<ME, { Node::Glean as u8 }>(slot),
        _ if meta.hops == 0 => frames.drop(meta, slot, DropReason::Scope),
        _ => to_host::<ME>(meta, frames, slot, meta.interface),
    }
}

/// Whether a router may forward what comes from an address: not from none, the loopback's, a link-local or a group's (RFC 4291 §2.5.2,
/// §2.5.3, §2.5.6, §2.7).
fn reaches_beyond_link(source: u128) -> bool {
    source > 1 && source >> 118 != 0xfe80 >> 6 && source >> 120 != 0xff
}

/// Whether an adjacency leads to another station.
fn leads_on(tables: &Tables, id: AdjacencyId) -> bool {
    let on =
        [Kind::Midchain, Kind::Neighbour, Kind::Glean, Kind::Incomplete, Kind::Balanced, Kind::Unprotected];
    tables.adjacencies.at(id).is_some_and(|entry| on.contains(&entry.kind))
}
