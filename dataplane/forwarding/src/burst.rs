//! The packets of one walk: their buffers, what the stages know of each, and who is to look at them next.

use std::ops::Range;

use crate::DropReason;
use crate::adjacency::AdjacencyId;
use crate::graph::{self, Node};

/// Most packets of one walk. A slot is a `u8`, so that no index into the arrays here needs a check.
pub(crate) const SLOTS: usize = 256;

/// Where a packet's walk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum End {
    /// Not yet.
    #[default]
    Open,
    /// Out of port `target`.
    Tx,
    /// To the twin of interface `target`.
    Host,
    /// To the control plane, as NHRP from tunnel `interface`.
    Nhrp,
    /// Nowhere, for `reason`.
    Drop,
    /// Waits for a next hop, in queue `target` of the parking.
    Park,
    /// Waits for its copies to be made.
    Replicate,
    /// Looked up again in the next breath: the FIB was newer than our adjacencies.
    Again,
    /// Goes on by the adjacency that it has in the next breath, behind the other pieces: the last piece of an IP packet that was cut.
    Piece,
    /// The same, out of port `target`: the last piece of a frame whose outer packet was cut. Also how midchain hands to `fragment` what
    /// is a whole frame by then.
    Frame,
    /// To worker `target`, which has the SA that it came by: enters there at esp-decrypt.
    HandDecrypt,
    /// The same of the SA that it goes by: at esp-encrypt.
    HandEncrypt,
    /// The same of a packet of the control plane's: at inject.
    HandControl,
    /// Is held for the rest of the packet that it is a fragment of.
    Hold,
    /// Is a part of a packet in another slot now.
    Merged,
}

/// What a packet is, and what it came in: one bit each.
pub(crate) mod family {
    /// The packet at `offset` is IPv6, not IPv4.
    pub(crate) const V6: u8 = 1;
    /// It came in a tunnel: the outer header is still in the buffer, behind an Ethernet header without a tag, and is IPv4 …
    pub(crate) const OUTER4: u8 = 2;
    /// … or IPv6.
    pub(crate) const OUTER6: u8 = 4;
    /// ESP that it came in was in UDP.
    pub(crate) const IN_UDP: u8 = 8;
    /// It is ESP that we have sealed: a frame, or an IP packet of the control plane's.
    pub(crate) const SEALED: u8 = 16;
    /// It is to be ESP in UDP over IPv6, whose checksum wants all of it.
    pub(crate) const TO_SUM: u8 = 32;
}

/// What the stages know of a packet. Numbers are in host order.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Meta {
    /// IPv4 destination. Written by classify, gre-decap and inject; read by ip-lookup. (That of an IPv6 packet is read from it.) Between
    /// midchain and esp-encrypt the slot of the SA.
    pub(crate) destination: u32,
    /// Where it goes. Written by ip-lookup, glean and replicate; read by whom they hand it to.
    pub(crate) adjacency: AdjacencyId,
    /// Where the current header starts in the buffer: IP; between classify and gre-decap GRE or ESP; between midchain and esp-encrypt ESP.
    pub(crate) offset: u16,
    /// The interface it came by: the port's, then the tunnel's.
    pub(crate) interface: u16,
    /// The network of the tunnel it came by if that redirects, else 0.
    pub(crate) network: u16,
    /// See [`End`]. Between midchain and esp-encrypt the port that it will leave by.
    pub(crate) target: u16,
    /// Place of the FIB table that it is looked up in: that of the interface.
    pub(crate) table: u16,
    /// Of [`family`].
    pub(crate) family: u8,
    /// Of [`crate::adjacency::permit`]: what it may do.
    pub(crate) permits: u8,
    /// What its time to live goes down by here: 1 in transit, 0 if it is our own.
    pub(crate) hops: u8,
    pub(crate) end: End,
    /// See [`End::Drop`].
    pub(crate) reason: DropReason,
    /// Times that it was looked up in vain because of [`End::Again`].
    pub(crate) tries: u8,
    /// What the SA that it came by protects: the number of a profile, underlay table and own address; 0: it came in the clear.
    pub(crate) domain: u16,
    /// Whether it goes on by the adjacency that it has if it has to wait, and does not ask the FIB again: a copy of replicate, a piece,
    /// what goes by one of several ways or by the NHS, what the control plane sends to a peer.
    pub(crate) given: bool,
    /// Between midchain and esp-encrypt what is behind the ESP header: a protocol number.
    pub(crate) next_header: u8,
}

const _: () = assert!(size_of::<Meta>() == 32);

impl Meta {
    pub(crate) const NEW: Self = Self {
        destination: 0,
        adjacency: AdjacencyId::new(0, 0),
        offset: 0,
        interface: 0,
        network: 0,
        target: 0,
        table: 0,
        family: 0,
        permits: 0,
        hops: 0,
        end: End::Open,
        reason: DropReason::StaleIndex,
        tries: 0,
        domain: 0,
        given: false,
        next_header: 0,
    };

    /// What of it the way of a packet of some tunnel depends on, but for addresses, as one number: where it came by and in what. It is never
    /// `u64::MAX`.
    #[inline(always)]
    pub(crate) fn way(&self) -> u64 {
        u64::from(self.table)
            | u64::from(self.family) << 16
            | u64::from(self.permits) << 24
            | u64::from(self.hops) << 32
    }

    /// Ends the packet's walk: out of `port`, which is the result. Whoever does so counts it in [`Sent`].
    #[inline(always)]
    pub(crate) fn leave(&mut self, port: u16) -> u16 {
        self.end = End::Tx;
        self.target = port;
        port
    }
}

/// The slots that wait for a node, in order of arrival.
#[derive(Debug, Clone, Copy)]
struct Queue {
    len: usize,
    slots: [u8; SLOTS],
}

/// What a node is to look at in this walk: the first slots of its queue, which nobody adds to meanwhile, since no edge leads
/// from a node to itself. (The queue is read where it is: it has just been written byte by byte, and a copy in wider pieces
/// would wait until all stores before it are through, some hundred cycles.)
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Frame {
    node: Node,
    len: usize,
}

impl Frame {
    /// Whose it is.
    #[inline(always)]
    pub(crate) fn node(self) -> Node {
        self.node
    }

    /// Number of slots.
    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Places of the slots, for [`Frames::slot`].
    #[inline(always)]
    pub(crate) fn places(self) -> std::ops::Range<usize> {
        0..self.len
    }
}

/// A queue for each node.
#[derive(Debug)]
pub(crate) struct Frames([Queue; Node::COUNT]);

impl Frames {
    pub(crate) fn new() -> Self {
        Self([Queue { len: 0, slots: [0; SLOTS] }; Node::COUNT])
    }

    #[inline(always)]
    fn push(&mut self, node: usize, slot: u8) {
        let Queue { len, slots, .. } = &mut self.0[node];
        // A slot comes to a node once a walk, so that there are no more of them than places.
        debug_assert!(*len < SLOTS);
        slots[usize::from(*len as u8)] = slot;
        *len += 1;
    }

    /// Hands a packet from a node to another. It does not compile without the edge.
    #[inline(always)]
    pub(crate) fn hand<const FROM: u8, const TO: u8>(&mut self, slot: u8) {
        const { assert!(FROM != TO && graph::is_edge(FROM, TO), "the graph has no such edge") };
        self.push(const { TO as usize }, slot);
    }

    /// The same of packets of a train, of which that in slot `first` has place 0.
    #[inline(always)]
    pub(crate) fn hand_train<const FROM: u8, const TO: u8>(&mut self, first: usize, places: Places) {
        let Queue { len, slots } = &mut self.0[const { TO as usize }];
        if places == Places::up_to(AT_ONCE)
            && let Some(run) = slots.get_mut(*len..).and_then(<[u8]>::first_chunk_mut::<AT_ONCE>)
        {
            *run = std::array::from_fn(|at| (first + at) as u8);
            *len += AT_ONCE;
            return;
        }
        for at in places.iter() {
            self.hand::<FROM, TO>((first + at) as u8);
        }
    }

    /// Hands a packet to `drop`; every node may.
    #[inline(always)]
    pub(crate) fn drop(&mut self, meta: &mut Meta, slot: u8, reason: DropReason) {
        meta.end = End::Drop;
        meta.reason = reason;
        self.push(Node::Drop as usize, slot);
    }

    /// Hands a packet that is to be dropped to `icmp-error`, which tells its sender first if there is somebody to be told. The
    /// packet is the one that came, from `meta.offset` on.
    #[cold]
    pub(crate) fn refuse<const FROM: u8>(&mut self, meta: &mut Meta, slot: u8, reason: DropReason) {
        meta.reason = reason;
        self.hand::<FROM, { Node::IcmpError as u8 }>(slot);
    }

    /// What a node is to look at now; its queue is empty then, and its slots stay readable for the length of its turn.
    #[inline(always)]
    pub(crate) fn take(&mut self, node: Node) -> Frame {
        let len = std::mem::take(&mut self.0[node as usize].len);
        Frame { node, len: len.min(SLOTS) }
    }

    /// What a node will look at, and whoever looks before it.
    #[inline(always)]
    pub(crate) fn peek(&self, node: Node) -> Frame {
        Frame { node, len: self.0[node as usize].len.min(SLOTS) }
    }

    /// The slot at a place of a frame.
    #[inline(always)]
    pub(crate) fn slot(&self, frame: Frame, at: usize) -> u8 {
        self.0[frame.node as usize].slots[usize::from(at as u8)]
    }

    /// All slots of a frame, in order, to look at while packets are handed on; what is behind them means nothing.
    #[inline(always)]
    pub(crate) fn slots(&self, frame: Frame) -> [u8; SLOTS] {
        self.0[frame.node as usize].slots
    }

    /// The same of a node that is known beforehand.
    #[inline(always)]
    pub(crate) fn slot_of<const NODE: u8>(&self, at: usize) -> u8 {
        self.0[const { NODE as usize }].slots[usize::from(at as u8)]
    }

    /// Whether a node has nothing to look at.
    #[inline(always)]
    pub(crate) fn is_empty(&self, node: Node) -> bool {
        self.0[node as usize].len == 0
    }
}

/// Packets that go through the clear path together, from classify to their end, before the next are looked at: few enough for what they
/// touch to stay in the first-level cache, and its pages in the first-level TLB. Their slots are those between two multiples of it.
pub(crate) const AT_ONCE: usize = 16;

/// Some of the packets that are looked at together: bit n for the one in slot `first + n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Places(u16);

impl Places {
    pub(crate) const NONE: Self = Self(0);

    /// The first so many.
    #[inline(always)]
    pub(crate) fn up_to(count: usize) -> Self {
        Self((1_u32 << count.min(AT_ONCE)).wrapping_sub(1) as u16)
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, at: usize) {
        self.0 |= 1 << (at % AT_ONCE);
    }

    #[inline(always)]
    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        // What is most is quick.
        if self.0 == u16::MAX { AT_ONCE } else { self.0.count_ones() as usize }
    }

    /// In order.
    #[inline(always)]
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let at = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (at < AT_ONCE).then_some(at)
        })
    }

    /// Whether a packet is of them.
    #[inline(always)]
    pub(crate) fn has(self, at: usize) -> bool {
        self.0 >> (at % AT_ONCE) & 1 != 0
    }

    /// Those that both have.
    #[inline(always)]
    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Does something with each of those that are looked at together; those with which it did not.
    #[inline(always)]
    pub(crate) fn refused<T>(all: impl Iterator<Item = T>, mut does: impl FnMut(usize, T) -> bool) -> Self {
        let mut refused = Self::NONE;
        for (at, one) in all.enumerate() {
            if !does(at, one) {
                refused.insert(at);
            }
        }
        refused
    }
}

/// IPv4 packets without options that came one way: of what [`Meta`] says all but the destination is the same. It is written when a packet
/// is handed to a node, and not before; most never are.
#[derive(Debug)]
pub(crate) struct Train {
    /// The slots that are looked at together.
    pub(crate) slots: Range<usize>,
    /// Those that are of it.
    pub(crate) places: Places,
    /// Their IPv4 destinations.
    pub(crate) destinations: [u32; AT_ONCE],
}

impl Train {
    pub(crate) const EMPTY: Self = Self { slots: 0..0, places: Places::NONE, destinations: [0; AT_ONCE] };
}

/// Packets of a walk that were handed to `tx`, and whether for one port.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    pub(crate) packets: usize,
    /// The port that the first was expected to go to.
    pub(crate) port: u16,
    /// Bits in which another's port differs from it.
    pub(crate) differ: u16,
    /// Of those that left in trains for that port, a bit for each slot: their [`Meta`] is not written.
    in_trains: [u16; SLOTS / AT_ONCE],
}

impl Sent {
    /// What is sent next goes to `port`, it seems.
    #[inline(always)]
    pub(crate) fn expect(&mut self, port: u16) {
        if self.packets == 0 {
            self.port = port;
        }
    }

    /// Ends a packet's walk: out of `port`.
    #[inline(always)]
    pub(crate) fn send(&mut self, meta: &mut Meta, port: u16) {
        self.differ |= meta.leave(port) ^ self.port;
        self.packets += 1;
    }

    /// The same of packets of a train, of which that in slot `first` has place 0; how many they are.
    #[inline(always)]
    pub(crate) fn send_train(
        &mut self,
        metas: &mut [Meta; SLOTS],
        first: usize,
        places: Places,
        port: u16,
    ) -> usize {
        if port == self.port {
            if let Some(those) = self.in_trains.get_mut(first / AT_ONCE) {
                *those |= places.0 << (first % AT_ONCE);
            }
        } else {
            for at in places.iter() {
                self.differ |= metas[(first + at) % SLOTS].leave(port) ^ self.port;
            }
        }
        let count = places.count();
        self.packets += count;
        count
    }

    /// Whether the packet in a slot has left in a train, for [`Sent::port`].
    #[inline(always)]
    pub(crate) fn is_in_train(&self, slot: usize) -> bool {
        self.in_trains.get(slot / AT_ONCE).is_some_and(|those| those >> (slot % AT_ONCE) & 1 != 0)
    }
}

/// What happened in one breath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breath {
    /// Packets that came: received, injected, copied, split, unparked.
    pub came: u64,
    /// Packets that went: sent, punted, dropped, parked, merged.
    pub gone: u64,
    /// Whether something waits for the next breath: do not sleep now.
    pub more: bool,
    /// Packets that wait for a next hop, and packets that wait for the rest of their fragments. A second at most: do not sleep for
    /// longer.
    pub waiting: usize,
}

impl Breath {
    /// Whether nothing happened and nothing is to be done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.more && self.came == 0 && self.gone == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some sets of places: none, all, each by itself, and many in between.
    fn sets() -> impl Iterator<Item = Places> + Clone {
        let alone = (0..AT_ONCE).map(|at| Places(1 << at));
        let mixed = (0..400_u16).map(|n| Places(n.wrapping_mul(40_503) ^ n >> 3));
        [Places::NONE, Places(u16::MAX)].into_iter().chain(alone).chain(mixed)
    }

    /// A set as a naive version has it.
    fn list(places: Places) -> Vec<usize> {
        (0..AT_ONCE).filter(|&at| places.0 & 1 << at != 0).collect()
    }

    #[test]
    fn places_are_a_set() {
        for places in sets() {
            let those = list(places);
            assert_eq!(places.iter().collect::<Vec<_>>(), those);
            assert_eq!((places.count(), places.is_empty()), (those.len(), those.is_empty()));
            assert!((0..AT_ONCE).all(|at| places.has(at) == those.contains(&at)));
            let mut inserted = Places::NONE;
            those.iter().rev().for_each(|&at| inserted.insert(at));
            assert_eq!(inserted, places);
            for others in sets().step_by(7) {
                let (with, without): (Vec<_>, Vec<_>) = those.iter().partition(|&&at| others.has(at));
                assert_eq!(list(places.and(others)), with);
                assert_eq!(list(places.without(others)), without);
            }
        }
        for count in 0..=AT_ONCE + 1 {
            assert_eq!(list(Places::up_to(count)), (0..count.min(AT_ONCE)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn refused_are_those_with_which_nothing_was_done() {
        for places in sets() {
            for count in 0..=AT_ONCE {
                let mut seen = Vec::new();
                let refused = Places::refused((0..count).map(|at| at * 3), |at, three| {
                    assert_eq!(three, at * 3);
                    seen.push(at);
                    !places.has(at)
                });
                assert_eq!(seen, (0..count).collect::<Vec<_>>());
                assert_eq!(refused, places.and(Places::up_to(count)));
            }
        }
    }

    /// A train hands on what its packets one by one do, from wherever the queue is.
    #[test]
    fn a_train_is_handed_on_like_its_packets() {
        const FROM: u8 = Node::Midchain as u8;
        const TO: u8 = Node::EspEncrypt as u8;
        for places in sets() {
            let (mut frames, mut naive) = (Frames::new(), Vec::new());
            for first in (0..SLOTS).step_by(AT_ONCE) {
                let those = if first % (3 * AT_ONCE) == 0 { Places(u16::MAX) } else { places };
                frames.hand_train::<FROM, TO>(first, those);
                naive.extend(list(those).into_iter().map(|at| (first + at) as u8));
            }
            let frame = frames.take(Node::EspEncrypt);
            let slots: Vec<_> = frame.places().map(|at| frames.slot(frame, at)).collect();
            assert_eq!(slots, naive);
        }
    }

    /// What is sent in trains and one by one, by two ports: each packet counts, those of trains for the expected port are marked and nothing of
    /// them is written, all others say themselves where they go.
    #[test]
    fn trains_and_packets_are_sent_side_by_side() {
        for (number, places) in sets().enumerate() {
            let (mut sent, mut metas) = (Sent::default(), [Meta::NEW; SLOTS]);
            let expected = 5;
            sent.expect(expected);
            let (mut gone, mut is_mixed) = ([None; SLOTS], false);
            for (train, first) in (0..SLOTS).step_by(AT_ONCE).enumerate() {
                let port = if (number + train) % 5 == 4 { 6 } else { expected };
                let count = sent.send_train(&mut metas, first, places, port);
                assert_eq!(count, list(places).len());
                is_mixed |= port != expected && count != 0;
                list(places).iter().for_each(|&at| gone[first + at] = Some((port, port == expected)));
                // Another port is not expected any more once something was sent.
                sent.expect(if sent.packets == 0 { expected } else { 9 });
                // The rest of each second train goes one by one.
                for at in list(Places::up_to(AT_ONCE).without(places)) {
                    if train % 2 == 1 {
                        sent.send(&mut metas[first + at], expected);
                        gone[first + at] = Some((expected, false));
                    }
                }
            }
            assert_eq!((sent.port, sent.differ != 0), (expected, is_mixed));
            assert_eq!(sent.packets, gone.iter().flatten().count());
            for (slot, (meta, gone)) in metas.iter().zip(gone).enumerate() {
                assert_eq!(sent.is_in_train(slot), gone.is_some_and(|(_, in_train)| in_train), "{slot}");
                let written = gone.filter(|(_, in_train)| !in_train).map(|(port, _)| (End::Tx, port));
                assert_eq!((meta.end, meta.target), written.unwrap_or((End::Open, 0)), "{slot}");
            }
        }
    }
}
