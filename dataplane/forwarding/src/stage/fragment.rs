//! `fragment`: what is larger than the link or tunnel takes, and may be cut.
//!
//! 1. An IPv4 packet without don't-fragment, as it came, for the adjacency that it has (RFC 791 §3.2): pieces of its largest size. Its
//!    time to live would end here: `icmp-error`, `ttl-expired`, about the packet as a whole.
//! 2. A finished frame of midchain's or esp-encrypt's, whose outer packet is to be cut (RFC 2473 §7.1, RFC 4213 §3.2: an IPv6 packet of 1,280 bytes is to
//!    pass whatever the underlay takes): pieces of the outer packet, each in a frame of its own. Outer IPv4 loses don't-fragment.
//! 3. All pieces go on in the next breath, in order, the last of them in the packet's own buffer: IP packets by `midchain` or `rewrite`,
//!    which take the hop off each; frames by `tx`.
//! 4. Not even eight bytes fit: drop `too-big`. Too many pieces wait: drop `fragment-full`. A buffer is lacking: drop `no-buffer`, and
//!    none of the packet goes on.

use wire::buf::PacketBuf;

use super::midchain::largest;
use crate::DropReason;
use crate::adjacency::Adjacency;
use crate::burst::{End, Meta, family};
use crate::graph::Node;
use crate::packet::current;
use crate::pieces::{Piece, Pieces};
use crate::ports::Ports;
use crate::tables::Tables;
use crate::walk::{Carried, Entry, Walk};

const ME: u8 = Node::Fragment as u8;

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::Fragment);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let meta = walk.meta[usize::from(slot)];
        let entry = tables.adjacencies.slot(meta.adjacency);
        let cut = if meta.end == End::Frame {
            cut_frame(walk, ports, slot, entry)
        } else {
            cut_packet(walk, ports, slot, entry)
        };
        match cut {
            Ok(()) => {}
            Err(reason @ DropReason::TtlExpired) => {
                walk.frames.refuse::<ME>(&mut walk.meta[usize::from(slot)], slot, reason);
            }
            Err(reason) => walk.drop(slot, reason),
        }
    }
}

/// A packet for an adjacency.
fn cut_packet<P: Ports>(
    walk: &mut Walk<P::Buf>,
    ports: &mut P,
    slot: u8,
    entry: &Adjacency,
) -> Result<(), DropReason> {
    let meta = walk.meta[usize::from(slot)];
    let packet = current(&meta, walk.bufs[usize::from(slot)].bytes());
    if packet.get(8).is_some_and(|ttl| *ttl <= meta.hops) {
        return Err(DropReason::TtlExpired);
    }
    let pieces = Pieces::of_v4(packet, entry.mtu.into())?;
    // What it came in stays behind, and where it goes is settled.
    let piece = Meta { offset: 0, family: meta.family & family::V6, given: true, end: End::Open, ..meta };
    send(
        walk,
        ports,
        slot,
        &pieces,
        Split { before: meta.offset.into(), link: 0, meta: piece, entry: Entry::Adjacency },
    )?;
    walk.meta[usize::from(slot)].end = End::Piece;
    Ok(())
}

/// A frame for a port.
fn cut_frame<P: Ports>(
    walk: &mut Walk<P::Buf>,
    ports: &mut P,
    slot: u8,
    entry: &Adjacency,
) -> Result<(), DropReason> {
    let link = usize::from(entry.link);
    let meta = Meta { offset: 0, ..walk.meta[usize::from(slot)] };
    let packet = walk.bufs[usize::from(slot)].bytes().get(link..).unwrap_or_default();
    let limit = largest(entry);
    let pieces = if packet.first().is_some_and(|first| first >> 4 == 6) {
        walk.ip6_id = walk.ip6_id.wrapping_add(1);
        Pieces::of_v6(packet, limit, walk.ip6_id)?
    } else {
        Pieces::of_v4(packet, limit)?
    };
    let piece = Meta { end: End::Open, ..meta };
    send(walk, ports, slot, &pieces, Split { before: 0, link, meta: piece, entry: Entry::Frame })?;
    walk.meta[usize::from(slot)].end = End::Frame;
    Ok(())
}

/// What the pieces of a packet have in common.
struct Split {
    /// Bytes in the buffer that no piece has.
    before: usize,
    /// Bytes behind them that each piece begins with: the frame's header.
    link: usize,
    meta: Meta,
    entry: Entry,
}

/// Leaves all pieces but the last to the next breath; the last is in the slot then, with the others' meta.
fn send<P: Ports>(
    walk: &mut Walk<P::Buf>,
    ports: &mut P,
    slot: u8,
    pieces: &Pieces,
    split: Split,
) -> Result<(), DropReason> {
    let at = usize::from(slot);
    let further = pieces.iter().count().saturating_sub(1);
    if !walk.has_room_for(further + 1) {
        return Err(DropReason::FragmentFull);
    }
    let mut copies = std::mem::take(&mut walk.copies);
    let bytes = walk.bufs[at].bytes().get(split.before..).unwrap_or_default();
    for piece in pieces.iter().take(further) {
        let filled = ports.alloc().is_some_and(|mut buf| {
            let filled = fill(&mut buf, bytes, split.link, &piece);
            copies.push(buf);
            filled
        });
        if !filled {
            ports.free(&mut copies);
            walk.copies = copies;
            return Err(DropReason::NoBuffer);
        }
    }
    let trace = walk.trace.id(slot);
    for buf in copies.drain(..) {
        walk.flow.split += 1;
        walk.flow.parked += 1;
        walk.pieces.push_back((slot, Carried { buf, meta: split.meta, entry: split.entry, trace }));
    }
    walk.copies = copies;
    let Some(last) = pieces.iter().last() else { return Err(DropReason::BadHeader) };
    let moved = keep_last(&mut walk.bufs[at], &split, &last);
    debug_assert!(moved, "the last piece is a part of the packet");
    walk.meta[at] = split.meta;
    Ok(())
}

/// Writes a piece into an empty buffer; whether it holds it.
fn fill<B: PacketBuf>(buf: &mut B, bytes: &[u8], link: usize, piece: &Piece) -> bool {
    let (head, Some(data)) =
        (piece.head.bytes(), bytes.get(link..).and_then(|packet| packet.get(piece.data.clone())))
    else {
        return false;
    };
    let Some(room) = buf.append(link + head.len() + data.len()) else { return false };
    room[..link].copy_from_slice(&bytes[..link]);
    room[link..link + head.len()].copy_from_slice(head);
    room[link + head.len()..].copy_from_slice(data);
    true
}

/// Makes the buffer of the whole packet that of its last piece: its head, and the link's header, over data that others have by now.
fn keep_last<B: PacketBuf>(buf: &mut B, split: &Split, last: &Piece) -> bool {
    let head = last.head.bytes();
    let packet = split.before + split.link;
    let (from, len) = (packet + last.data.start, split.link + head.len());
    let Some(start) = from.checked_sub(len) else { return false };
    if !buf.truncate(packet + last.data.end) {
        return false;
    }
    let bytes = buf.bytes_mut();
    bytes.copy_within(split.before..packet, start);
    bytes[start + split.link..from].copy_from_slice(head);
    buf.trim_front(start)
}
