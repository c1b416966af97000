//! `reassemble`: fragments of GRE for us, and of ESP and UDP for an address of a protected tunnel, until all of a packet are there.
//!
//! 1. A fragment that cannot be: drop `bad-header`, `fragment-overlap` or `reassembly-too-big`. One that is the whole packet by itself
//!    (RFC 6946): on as in 5, without its fragment header, whatever else waits.
//! 2. Its packet is waited for, or is from now on. No room: another has to go, of the same source if there is one: drop
//!    `reassembly-full` for that. Refused before, or now, because fragments lie over each other: drop `fragment-overlap` for all of it.
//! 3. More are to come: held; the walk's end takes the buffer out of its slot. Not in time: drop `reassembly-timeout`.
//! 4. All are there: put together in the buffer of the one that came last; the others are merged. The buffer does not hold it: drop
//!    `reassembly-too-big`; congestion marks that contradict each other: drop `congestion`.
//! 5. GRE: `gre-decap`. ESP, and ESP in UDP: `esp-decrypt`; a keepalive: drop `nat-keepalive`. Other UDP, as IKE is: all its fragments go to
//!    the kernel as they came, which may take what no buffer here holds: by `ip-lookup` or `ip6-lookup`, those of earlier walks in the next
//!    breath.

use wire::buf::PacketBuf;
use wire::{esp, ipv4, udp};

use super::classify::{InUdp, in_udp};
use super::look_up;
use crate::DropReason;
use crate::burst::{End, Meta, family};
use crate::graph::Node;
use crate::packet::current;
use crate::pieces::{self, Said};
use crate::reassembly::{Added, Fragment, Held, join};
use crate::walk::{Carried, Entry, Walk};

const ME: u8 = Node::Reassemble as u8;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>) {
    let frame = walk.frames.take(Node::Reassemble);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let meta = &walk.meta[usize::from(slot)];
        match pieces::read(current(meta, walk.bufs[usize::from(slot)].bytes()), meta.table) {
            Err(reason) => walk.drop(slot, reason),
            Ok(said) if said.is_atomic() => {
                let alone = [Fragment { said, held: Held::Slot(slot) }];
                if is_for_kernel(walk, slot, &alone) {
                    let meta = &mut walk.meta[usize::from(slot)];
                    meta.family = if meta.family & family::OUTER6 == 0 { 0 } else { family::V6 };
                    look_up::<ME>(&mut walk.frames, meta, slot);
                } else {
                    whole(walk, slot, &alone);
                }
            }
            Ok(said) => part(walk, slot, said),
        }
    }
}

/// A fragment of something.
fn part<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, said: Said) {
    let found = loop {
        let found = walk.reassembly.find(&said.key);
        let Some(displaced) = walk.reassembly.displaced(&found) else { break found };
        walk.forget(displaced, DropReason::ReassemblyFull);
    };
    let place = found.packet.unwrap_or_else(|| walk.reassembly.begin(walk.now, said.key));
    if let Some(reason) = walk.reassembly.refused(place) {
        return walk.drop(slot, reason);
    }
    match walk.reassembly.add(place, said, slot) {
        Added::Waits => {
            let meta = &mut walk.meta[usize::from(slot)];
            meta.end = End::Hold;
            meta.target = place;
        }
        Added::Twice(at) if is_same(walk, slot, place, at, &said) => {
            walk.drop(slot, DropReason::FragmentOverlap)
        }
        Added::Twice(_) => refuse(walk, slot, place, DropReason::FragmentOverlap),
        Added::Refused(reason) => refuse(walk, slot, place, reason),
        Added::Whole => {
            let mut fragments = walk.reassembly.end(place);
            if is_for_kernel(walk, slot, &fragments) {
                let mut meta = walk.meta[usize::from(slot)];
                meta.family = if meta.family & family::OUTER6 == 0 { 0 } else { family::V6 };
                release(walk, &mut fragments, meta);
            } else if whole(walk, slot, &fragments) {
                merge(walk, slot, &mut fragments);
            } else {
                let reason = walk.meta[usize::from(slot)].reason;
                fragments.retain(|fragment| !matches!(fragment.held, Held::Slot(held) if held == slot));
                walk.drop_fragments(&mut fragments, reason);
            }
            walk.reassembly.give_back(place, fragments);
        }
    }
}

/// Puts a packet together in a slot and hands it on, or drops what is in the slot; whether it was put together.
fn whole<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, fragments: &[Fragment<B>]) -> bool {
    let meta = &mut walk.meta[usize::from(slot)];
    match join(&mut walk.bufs, slot, meta.offset.into(), fragments) {
        Ok(data) => {
            meta.offset = data as u16;
            hand_on(walk, slot, protocol(fragments));
            true
        }
        Err(reason) => {
            walk.drop(slot, reason);
            false
        }
    }
}

/// The protocol of a packet, all of whose fragments these are: the first one says it.
fn protocol<B>(fragments: &[Fragment<B>]) -> u8 {
    fragments.first().map_or(0, |first| first.said.names.1)
}

/// Hands on a packet that is whole.
fn hand_on<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, protocol: u8) {
    let (buf, meta) = (&mut walk.bufs[usize::from(slot)], &mut walk.meta[usize::from(slot)]);
    match protocol {
        ipv4::ESP => walk.frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot),
        ipv4::UDP => match in_udp(current(meta, buf.bytes())) {
            InUdp::Esp(len) => {
                let cut = buf.truncate(usize::from(meta.offset) + len);
                debug_assert!(cut, "the datagram is within the packet");
                meta.family |= family::IN_UDP;
                meta.offset += udp::LEN as u16;
                walk.frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot);
            }
            InUdp::Keepalive => walk.drop(slot, DropReason::NatKeepalive),
            // Its first fragment did not even have the marker.
            InUdp::Else => walk.drop(slot, DropReason::EspMalformed),
        },
        _ => walk.frames.hand::<ME, { Node::GreDecap as u8 }>(slot),
    }
}

/// Whether the fragments of a packet are of a datagram that no SA is asked about.
fn is_for_kernel<B: PacketBuf>(walk: &Walk<B>, slot: u8, fragments: &[Fragment<B>]) -> bool {
    if protocol(fragments) != ipv4::UDP {
        return false;
    }
    let base = usize::from(walk.meta[usize::from(slot)].offset);
    let Some(first) = fragments.first() else { return false };
    let bytes = match &first.held {
        Held::Slot(at) => walk.bufs[usize::from(*at)].bytes(),
        Held::Buf(buf) => buf.bytes(),
    };
    // Ports, length and the first bytes of the payload stand in the first fragment, but for one that nobody sends.
    let datagram = data(bytes, base, &first.said).unwrap_or_default();
    let port = datagram.get(2..4).is_some_and(|port| *port == udp::IKE_NAT.to_be_bytes());
    let marker = datagram.get(udp::LEN..udp::LEN + 4).is_some_and(|spi| *spi == esp::NON_ESP_MARKER);
    !port || marker
}

/// Lets fragments go to the kernel one by one.
fn release<B: PacketBuf>(walk: &mut Walk<B>, fragments: &mut Vec<Fragment<B>>, meta: Meta) {
    for fragment in fragments.drain(..) {
        match fragment.held {
            Held::Slot(slot) => {
                let of = &mut walk.meta[usize::from(slot)];
                (of.family, of.end) = (meta.family, End::Open);
                look_up::<ME>(&mut walk.frames, of, slot);
            }
            // It was parked, and is: the next breath takes it up.
            Held::Buf(buf) => {
                if let Err(buf) = walk.carry(Carried { buf, meta, entry: Entry::Lookup, trace: 0 }) {
                    walk.end_parked(buf, DropReason::ReassemblyFull);
                }
            }
        }
    }
}

/// Ends the fragments that are a part of another slot's packet now.
fn merge<B: PacketBuf>(walk: &mut Walk<B>, into: u8, fragments: &mut Vec<Fragment<B>>) {
    for fragment in fragments.drain(..) {
        match fragment.held {
            Held::Slot(slot) if slot == into => {}
            Held::Slot(slot) => walk.meta[usize::from(slot)].end = End::Merged,
            Held::Buf(buf) => walk.merge(buf),
        }
    }
}

/// Nothing of the packet is taken any more.
#[cold]
fn refuse<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, place: u16, reason: DropReason) {
    let mut fragments = walk.reassembly.refuse(place, reason);
    walk.drop_fragments(&mut fragments, reason);
    walk.reassembly.give_back(place, fragments);
    walk.drop(slot, reason);
}

/// Whether the fragment in a slot has the same data as one that is there.
fn is_same<B: PacketBuf>(walk: &Walk<B>, slot: u8, place: u16, at: usize, said: &Said) -> bool {
    let base = usize::from(walk.meta[usize::from(slot)].offset);
    let Some(other) = walk.reassembly.fragment(place, at) else { return false };
    let held = match &other.held {
        Held::Slot(slot) => walk.bufs[usize::from(*slot)].bytes(),
        Held::Buf(buf) => buf.bytes(),
    };
    data(held, base, &other.said) == data(walk.bufs[usize::from(slot)].bytes(), base, said)
}

/// The data of a fragment whose IP header starts at `base`.
fn data<'a>(bytes: &'a [u8], base: usize, said: &Said) -> Option<&'a [u8]> {
    let from = base + usize::from(said.data);
    bytes.get(from..from + usize::from(said.end - said.start))
}
