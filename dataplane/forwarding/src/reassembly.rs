//! Packets that wait for the rest of their fragments: bounded in number, in bytes and in time.
//!
//! Fragments of one GRE packet leave its sender back to back, and a router between delays one against the other by what its queue
//! holds at most. So a second is long: longer than that only helps who floods us, and makes it likelier that the identification
//! comes round and parts of two packets are put together (RFC 4963: IPv4 has 65,536, which 1 Gbit/s of full packets uses up in 0.8 s).
//! The 15 s of RFC 791 and 60 s of RFC 8200 are for the end of a path of any length; who sends again does so after a second.
//!
//! Bounds: 512 packets and 1,024 fragments in a worker, 2.5 MB of buffers out of the 8,192 that are a worker's to keep; 16 packets of a
//! source; 32 fragments of a packet (9,216 bytes in pieces of 576 are 17). Who floods with one source displaces their own oldest; with
//! many sources, the oldest of all, which has waited longest in vain: fragments that come back to back find each other all the same.
//!
//! Fragments that lie over each other, or contradict each other, make a packet that is refused as a whole, whatever else comes of it
//! until its time is over (RFC 5722; of IPv4 as well). The same fragment twice is one.

use std::time::Duration;

use model::time::Instant;
use wire::buf::PacketBuf;

use crate::DropReason;
use crate::pieces::{Key, Said, make_whole};
use crate::tables::spread;

/// Packets in all.
const PACKETS: u16 = 512;
/// Fragments in all.
const FRAGMENTS: usize = 1024;
/// Packets of a source.
pub(crate) const OF_SOURCE: usize = 16;
/// Fragments of a packet.
pub(crate) const OF_PACKET: usize = 32;
/// How long a packet waits from its first fragment on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Chains of packets by source.
const CHAINS: usize = 256;
/// Nothing follows.
const NONE: u16 = u16::MAX;

/// Where a fragment's buffer is.
#[derive(Debug)]
pub(crate) enum Held<B> {
    /// In a slot of this walk.
    Slot(u8),
    /// Here.
    Buf(B),
}

/// A fragment of a packet that is waited for.
#[derive(Debug)]
pub(crate) struct Fragment<B> {
    pub(crate) said: Said,
    pub(crate) held: Held<B>,
}

#[derive(Debug)]
struct Packet<B> {
    key: Key,
    until: Instant,
    /// By where they belong.
    fragments: Vec<Fragment<B>>,
    /// Length of the data in all, once the last fragment is there, and of those that are there.
    end: Option<u16>,
    have: usize,
    /// Why nothing more is taken.
    refused: Option<DropReason>,
    /// The next packet of the chain, an older one.
    next: u16,
    /// The neighbours by age.
    older: u16,
    newer: u16,
}

/// What has become of a packet by one more fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// More are to come.
    Waits,
    /// All are there.
    Whole,
    /// The one in this place covers the same bytes.
    Twice(usize),
    /// It cannot be: nothing of the packet is to be taken.
    Refused(DropReason),
}

/// What is there of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The packet that was asked for.
    pub(crate) packet: Option<u16>,
    /// Packets of its source.
    count: usize,
    /// The oldest other one of them.
    oldest: Option<u16>,
}

/// The packets of one worker.
#[derive(Debug)]
pub(crate) struct Reassembly<B> {
    /// The room of a place for fragments is taken when it is first used, and kept: most workers never use many.
    packets: Vec<Packet<B>>,
    free: Vec<u16>,
    chains: [u16; CHAINS],
    /// The ends of the line by age.
    oldest: u16,
    newest: u16,
    /// Fragments that are held.
    count: usize,
    secret: u64,
}

impl<B> Reassembly<B> {
    /// `secret` is nobody else's: which sources share a chain is not to be known.
    pub(crate) fn new(secret: u64) -> Self {
        Self {
            packets: Vec::with_capacity(PACKETS.into()),
            free: Vec::with_capacity(PACKETS.into()),
            chains: [NONE; CHAINS],
            oldest: NONE,
            newest: NONE,
            count: 0,
            secret,
        }
    }

    /// Packets that wait, and packets that are refused for now.
    pub(crate) fn len(&self) -> usize {
        self.packets.len() - self.free.len()
    }

    /// Looks for a packet, and at the others of its source.
    pub(crate) fn find(&self, key: &Key) -> Found {
        let mut found = Found { packet: None, count: 0, oldest: None };
        let mut at = self.chains[self.chain(key)];
        while let Some(packet) = self.packets.get(usize::from(at)) {
            if packet.key.source == key.source && packet.key.v6 == key.v6 && packet.key.table == key.table {
                found.count += 1;
                if packet.key == *key {
                    found.packet = Some(at);
                } else {
                    found.oldest = Some(at);
                }
            }
            at = packet.next;
        }
        found
    }

    /// Who has to go before a fragment of what was looked for is taken: to be ended by the caller, which asks again then.
    pub(crate) fn displaced(&self, found: &Found) -> Option<u16> {
        let new = found.packet.is_none();
        if new && found.count >= OF_SOURCE {
            return found.oldest;
        }
        if self.count < FRAGMENTS && !(new && self.len() >= usize::from(PACKETS)) {
            return None;
        }
        let other = |at: u16| (at != NONE && Some(at) != found.packet).then_some(at);
        found.oldest.or_else(|| other(self.oldest)).or_else(|| {
            let oldest = self.packets.get(usize::from(self.oldest))?;
            other(oldest.newer)
        })
    }

    /// Begins to wait for a packet. Whoever had to go for it has gone.
    pub(crate) fn begin(&mut self, now: Instant, key: Key) -> u16 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.packets.push(Packet {
                key,
                until: now,
                fragments: Vec::with_capacity(OF_PACKET),
                end: None,
                have: 0,
                refused: None,
                next: NONE,
                older: NONE,
                newer: NONE,
            });
            (self.packets.len() - 1) as u16
        });
        let chain = self.chain(&key);
        let (next, older) = (self.chains[chain], self.newest);
        let packet = &mut self.packets[usize::from(place)];
        (packet.key, packet.until) = (key, now + PATIENCE);
        (packet.end, packet.have, packet.refused) = (None, 0, None);
        (packet.next, packet.older, packet.newer) = (next, older, NONE);
        self.chains[chain] = place;
        self.newest = place;
        match self.packets.get_mut(usize::from(older)) {
            Some(older) => older.newer = place,
            None => self.oldest = place,
        }
        place
    }

    /// Why nothing more of a packet is taken, if so.
    pub(crate) fn refused(&self, place: u16) -> Option<DropReason> {
        self.packets[usize::from(place)].refused
    }

    /// Adds the fragment in a slot of this walk to its packet; it stays in the slot until [`Reassembly::hold`].
    pub(crate) fn add(&mut self, place: u16, said: Said, slot: u8) -> Added {
        let packet = &mut self.packets[usize::from(place)];
        let Said { start, end, more, .. } = said;
        let at = packet.fragments.partition_point(|other| other.said.start < start);
        let (before, behind) = packet.fragments.split_at(at);
        if let Some(same) = behind.first()
            && (same.said.start, same.said.end, same.said.more) == (start, end, more)
        {
            return Added::Twice(at);
        }
        let over = before.last().is_some_and(|other| other.said.end > start)
            || behind.first().is_some_and(|other| other.said.start < end);
        let last = packet.fragments.last().map_or(0, |other| other.said.end);
        let contradicts = match packet.end {
            // The end is where it was, and no fragment reaches it but the last.
            Some(known) => !more || end >= known,
            None => !more && last > end,
        };
        if over || contradicts {
            return Added::Refused(DropReason::FragmentOverlap);
        }
        if packet.fragments.len() >= OF_PACKET {
            return Added::Refused(DropReason::ReassemblyFull);
        }
        if !more {
            packet.end = Some(end);
        }
        packet.have += usize::from(end - start);
        packet.fragments.insert(at, Fragment { said, held: Held::Slot(slot) });
        self.count += 1;
        if packet.end.is_some_and(|end| packet.have == usize::from(end)) {
            Added::Whole
        } else {
            Added::Waits
        }
    }

    /// One of a packet's fragments.
    pub(crate) fn fragment(&self, place: u16, at: usize) -> Option<&Fragment<B>> {
        self.packets.get(usize::from(place))?.fragments.get(at)
    }

    /// The walk is over: the fragment's buffer leaves its slot.
    pub(crate) fn hold(&mut self, place: u16, slot: u8, buf: B) {
        let fragments = &mut self.packets[usize::from(place)].fragments;
        let of_slot = |fragment: &&mut Fragment<B>| matches!(fragment.held, Held::Slot(held) if held == slot);
        match fragments.iter_mut().find(of_slot) {
            Some(fragment) => fragment.held = Held::Buf(buf),
            None => unreachable!("what is held is a fragment of a packet that is waited for"),
        }
    }

    /// A packet whose time is over.
    pub(crate) fn expired(&self, now: Instant) -> Option<u16> {
        let oldest = self.packets.get(usize::from(self.oldest))?;
        (now >= oldest.until).then_some(self.oldest)
    }

    /// Waits no longer for a packet; its fragments in order. The vector comes back by [`Reassembly::give_back`].
    pub(crate) fn end(&mut self, place: u16) -> Vec<Fragment<B>> {
        let packet = &self.packets[usize::from(place)];
        let (key, next, older, newer) = (packet.key, packet.next, packet.older, packet.newer);
        let chain = self.chain(&key);
        if self.chains[chain] == place {
            self.chains[chain] = next;
        } else {
            let mut at = self.chains[chain];
            while let Some(packet) = self.packets.get_mut(usize::from(at)) {
                if packet.next == place {
                    packet.next = next;
                    break;
                }
                at = packet.next;
            }
        }
        match self.packets.get_mut(usize::from(older)) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.packets.get_mut(usize::from(newer)) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.free.push(place);
        self.fragments_of(place)
    }

    /// Takes nothing more of a packet until its time is over; what was there of it, as [`Reassembly::end`] gives it.
    pub(crate) fn refuse(&mut self, place: u16, reason: DropReason) -> Vec<Fragment<B>> {
        self.packets[usize::from(place)].refused = Some(reason);
        self.fragments_of(place)
    }

    /// The emptied vector of a packet, for the next one in its place.
    pub(crate) fn give_back(&mut self, place: u16, fragments: Vec<Fragment<B>>) {
        debug_assert!(fragments.is_empty());
        self.packets[usize::from(place)].fragments = fragments;
    }

    fn fragments_of(&mut self, place: u16) -> Vec<Fragment<B>> {
        let fragments = std::mem::take(&mut self.packets[usize::from(place)].fragments);
        self.count -= fragments.len();
        fragments
    }

    fn chain(&self, key: &Key) -> usize {
        // Each half is mixed by itself, the secret first, so that neither low bits in common nor halves that make up for each other
        // lead to one chain.
        let mix = |bits: u64, word: u64| {
            let bits = (bits ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            bits ^ bits >> 33
        };
        let bits = mix(mix(self.secret, (key.source >> 64) as u64), key.source as u64);
        spread(bits) % CHAINS
    }
}

/// Puts a packet together in the buffer of the fragment in `slot`, where its IP header starts at `base`; in the other buffers too.
/// Where its data start then.
///
/// # Errors
/// [`DropReason::ReassemblyTooBig`] if the buffer does not hold it; [`DropReason::Congestion`] if a router marked a fragment and another
/// says that its sender knows no marks (RFC 3168 §5.3).
pub(crate) fn join<B: PacketBuf>(
    bufs: &mut [B],
    slot: u8,
    base: usize,
    fragments: &[Fragment<B>],
) -> Result<usize, DropReason> {
    let too_big = DropReason::ReassemblyTooBig;
    let (Some(first), Some(last)) = (fragments.first(), fragments.last()) else { return Err(too_big) };
    let marks = fragments.iter().fold(0, |marks, fragment| marks | 1_u8 << fragment.said.mark);
    let congested = marks & 1 << 3 != 0;
    if congested && marks & 1 != 0 {
        return Err(DropReason::Congestion);
    }
    let (head, len) = (usize::from(first.said.head), usize::from(last.said.end));
    let (data, whole) = (base + head, base + head + len);
    let (before, rest) = bufs.split_at_mut(slot.into());
    let Some((own, behind)) = rest.split_first_mut() else { return Err(too_big) };
    if let Some(lacking) = whole.checked_sub(own.len())
        && own.append(lacking).is_none()
    {
        return Err(too_big);
    }
    let bytes = own.bytes_mut();
    // Its own data first: nothing lies yet where they belong. Then the others, each into a place of its own.
    for fragment in fragments.iter().filter(|fragment| is_in(fragment, slot)) {
        let from = base + usize::from(fragment.said.data);
        let count = usize::from(fragment.said.end - fragment.said.start);
        bytes.copy_within(from..from + count, data + usize::from(fragment.said.start));
    }
    for fragment in fragments.iter().filter(|fragment| !is_in(fragment, slot)) {
        let Said { start, end, data: from, .. } = fragment.said;
        let other = match &fragment.held {
            Held::Buf(buf) => buf.bytes(),
            Held::Slot(at) if *at < slot => before[usize::from(*at)].bytes(),
            Held::Slot(at) => behind[usize::from(*at - slot - 1)].bytes(),
        };
        let from = base + usize::from(from);
        let count = usize::from(end - start);
        let to = data + usize::from(start);
        bytes[to..to + count].copy_from_slice(&other[from..from + count]);
        if start == 0 {
            bytes[base..data].copy_from_slice(&other[base..data]);
        }
    }
    make_whole(&mut bytes[base..data], len, first.said.names, congested);
    let cut = own.truncate(whole);
    debug_assert!(cut, "it is as long by now");
    Ok(data)
}

fn is_in<B>(fragment: &Fragment<B>, slot: u8) -> bool {
    matches!(fragment.held, Held::Slot(held) if held == slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::{Pieces, read};
    use proptest::prelude::*;
    use wire::buf::TestBuf;
    use wire::{IntoBytes, checksum, ipv4, ipv6};

    const BASE: usize = 14;

    fn pieces(packet: &[u8], limit: usize, id: u32) -> Vec<Vec<u8>> {
        let v6 = packet[0] >> 4 == 6;
        let pieces =
            if v6 { Pieces::of_v6(packet, limit, id) } else { Pieces::of_v4(packet, limit) }.unwrap();
        let pieces: Vec<_> = pieces.iter().map(|p| [p.head.bytes(), &packet[p.data]].concat()).collect();
        assert!(pieces.iter().all(|piece| piece.len() <= limit));
        pieces
    }

    /// Takes fragments in this order, each in a walk of its own, or all in one; the whole packet.
    fn put_together(fragments: &[Vec<u8>], one_walk: bool) -> Option<Vec<u8>> {
        let mut reassembly = Reassembly::new(7);
        let mut bufs = Vec::new();
        for (at, bytes) in fragments.iter().enumerate() {
            if !one_walk {
                bufs.clear();
            }
            let slot = bufs.len() as u8;
            let frame = [&[at as u8; BASE][..], bytes].concat();
            bufs.push(TestBuf::with_room(0, &frame, 65_536));
            let said = read(bytes, 0).unwrap();
            let found = reassembly.find(&said.key);
            let place = found.packet.unwrap_or_else(|| reassembly.begin(Instant(5), said.key));
            match reassembly.add(place, said, slot) {
                Added::Waits if one_walk => {}
                Added::Waits => reassembly.hold(place, slot, bufs[usize::from(slot)].clone()),
                Added::Whole => {
                    let all = reassembly.end(place);
                    join(&mut bufs, slot, BASE, &all).unwrap();
                    assert_eq!((at, reassembly.len()), (fragments.len() - 1, 0));
                    return Some(bufs[usize::from(slot)].bytes()[BASE..].to_vec());
                }
                other => panic!("{other:?}"),
            }
        }
        None
    }

    fn v4_packet(options: &[u8], len: usize, id: u16) -> Vec<u8> {
        let header =
            ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), ipv4::GRE, 9, options.len() + len);
        let mut packet = [header.unwrap().with_id(id).with_tos(2).as_bytes(), options].concat();
        packet[0] += (options.len() / 4) as u8;
        packet[10..12].fill(0);
        let sum = checksum::checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend((0..len).map(|at| (at * 7 + at / 256) as u8));
        packet
    }

    fn v6_packet(len: usize) -> Vec<u8> {
        let addr = |n| std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
        let header = ipv6::Header::new(addr(1), addr(2), ipv6::GRE, 64, len).unwrap();
        let mut packet = header.with_traffic_class(0xb9).as_bytes().to_vec();
        packet.extend((0..len).map(|at| (at * 7 + at / 256) as u8));
        packet
    }

    /// Options of which some are copied and some not, a multiple of four bytes.
    fn options() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(1_u8), Just(7), Just(131), Just(136)], 0..6).prop_map(
            |kinds| {
                let mut options = Vec::new();
                for kind in kinds {
                    match kind {
                        1 => options.push(1),
                        kind => options.extend([kind, 5, 4, kind, 0]),
                    }
                }
                options.truncate(ipv4::OPTIONS);
                options.resize(options.len().next_multiple_of(4), 0);
                options
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn cut_and_put_together_is_as_before(
            len in 1_usize..9000,
            limit in 576_usize..1500,
            again in 300_usize..576,
            options in options(),
            v6 in any::<bool>(),
            cut_again in any::<bool>(),
            one_walk in any::<bool>(),
            order in any::<u64>(),
        ) {
            let packet = if v6 { v6_packet(len) } else { v4_packet(&options, len, 77) };
            let mut cut = pieces(&packet, limit, 77);
            prop_assume!(cut.len() > 1);
            if cut_again && !v6 {
                cut = cut.iter().flat_map(|piece| pieces(piece, again, 77)).collect();
            }
            prop_assume!(cut.len() <= OF_PACKET);
            // Some order: by a number that is everybody's own.
            cut.sort_by_key(|piece| checksum::checksum(piece) as u64 ^ order & 0xffff);
            let whole = put_together(&cut, one_walk).unwrap();
            prop_assert_eq!(whole, packet);
        }

        #[test]
        fn what_is_wrong_is_refused_and_never_put_together_otherwise(
            starts in prop::collection::vec((0_u16..20, 1_u16..8, any::<bool>()), 1..12),
        ) {
            // Against a map of bytes.
            let mut reassembly: Reassembly<TestBuf> = Reassembly::new(7);
            let mut covered = [false; 256];
            let mut taken: Vec<(u16, u16, bool)> = Vec::new();
            let (mut end, mut place) = (None, None);
            for (slot, (start, len, more)) in starts.into_iter().enumerate() {
                let (from, to) = (start * 8, (start + len) * 8);
                let said = Said { start: from, end: to, more, ..read(&v4_packet(&[], 8, 7), 0).unwrap() };
                let at = *place.get_or_insert_with(|| reassembly.begin(Instant(5), said.key));
                let range = usize::from(from)..usize::from(to);
                let over = covered[range.clone()].iter().any(|covered| *covered);
                let farthest = taken.iter().map(|taken| taken.1).max().unwrap_or(0);
                let contradicts = match end {
                    Some(end) => !more || to >= end,
                    None => !more && farthest > to,
                };
                let added = reassembly.add(at, said, slot as u8);
                if taken.contains(&(from, to, more)) {
                    prop_assert!(matches!(added, Added::Twice(_)));
                    continue;
                }
                if over || contradicts {
                    prop_assert_eq!(added, Added::Refused(DropReason::FragmentOverlap));
                    break;
                }
                covered[range].fill(true);
                taken.push((from, to, more));
                end = end.or((!more).then_some(to));
                let whole = end.is_some_and(|end| covered[..usize::from(end)].iter().all(|covered| *covered));
                prop_assert_eq!(added, if whole { Added::Whole } else { Added::Waits });
                if whole {
                    break;
                }
            }
        }
    }

    #[test]
    fn marks_are_merged_as_rfc_3168_has_it() {
        // Marks of two fragments, and of the whole.
        for (marks, whole) in [
            ([0, 0], Some(0)),
            ([2, 2], Some(2)),
            ([2, 3], Some(3)),
            ([3, 1], Some(3)),
            ([3, 3], Some(3)),
            ([0, 3], None),
            ([3, 0], None),
        ] {
            for mut packet in [v4_packet(&[], 1000, 7), v6_packet(1000)] {
                let v6 = packet[0] >> 4 == 6;
                if v6 {
                    packet[1] &= 0x0f;
                }
                let mut cut = pieces(&packet, 600, 7);
                assert_eq!(cut.len(), 2);
                for (piece, mark) in cut.iter_mut().zip(marks) {
                    if v6 {
                        piece[1] = piece[1] & 0xcf | mark << 4;
                    } else {
                        piece[1] = mark;
                    }
                }
                let mut reassembly = Reassembly::<TestBuf>::new(7);
                let mut bufs: Vec<_> = cut.iter().map(|piece| TestBuf::with_room(0, piece, 2048)).collect();
                let said = cut.iter().map(|piece| read(piece, 0).unwrap()).collect::<Vec<_>>();
                let place = reassembly.begin(Instant(5), said[0].key);
                assert_eq!(reassembly.add(place, said[0], 0), Added::Waits);
                assert_eq!(reassembly.add(place, said[1], 1), Added::Whole);
                let joined = join(&mut bufs, 1, 0, &reassembly.end(place));
                match whole {
                    None => assert_eq!(joined, Err(DropReason::Congestion)),
                    Some(mark) => {
                        joined.unwrap();
                        let bytes = bufs[1].bytes();
                        let is = if v6 { bytes[1] >> 4 & 3 } else { bytes[1] & 3 };
                        assert_eq!(is, mark, "{marks:?}");
                        assert!(v6 || ipv4::verify(bytes).is_ok());
                    }
                }
            }
        }
    }

    #[test]
    fn the_oldest_of_a_source_goes_first_and_then_the_oldest_of_all() {
        let mut reassembly: Reassembly<TestBuf> = Reassembly::new(7);
        let key = |source: u128, id| Key { source, destination: 9, id, protocol: 47, v6: false, table: 0 };
        let begin = |reassembly: &mut Reassembly<TestBuf>, key: Key, now: u64| {
            let mut gone = Vec::new();
            loop {
                let found = reassembly.find(&key);
                let Some(place) = reassembly.displaced(&found) else { break };
                gone.push(reassembly.packets[usize::from(place)].key);
                let fragments = reassembly.end(place);
                reassembly.give_back(place, fragments);
            }
            reassembly.begin(Instant(now), key);
            gone
        };
        assert_eq!(begin(&mut reassembly, key(99, 1), 0), []);
        for id in 0..16 {
            assert_eq!(begin(&mut reassembly, key(1, id), 1), []);
        }
        assert_eq!(begin(&mut reassembly, key(1, 16), 2), [key(1, 0)]);
        assert_eq!(begin(&mut reassembly, key(1, 17), 2), [key(1, 1)]);
        assert_eq!((reassembly.len(), reassembly.find(&key(99, 1)).count), (17, 1));
        for source in 1000..1000 + 495 {
            assert_eq!(begin(&mut reassembly, key(source, 1), 3), []);
        }
        // Full: a new source displaces the oldest of all, one that is there its own.
        assert_eq!(reassembly.len(), 512);
        assert_eq!(begin(&mut reassembly, key(5000, 1), 4), [key(99, 1)]);
        assert_eq!(begin(&mut reassembly, key(5001, 1), 4), [key(1, 2)]);
        assert_eq!(begin(&mut reassembly, key(1100, 2), 4), [key(1100, 1)]);
        assert_eq!(reassembly.len(), 512);
        // All of them end, the oldest first.
        let mut ended = 0;
        while let Some(place) = reassembly.expired(Instant(1_000_004)) {
            let until = reassembly.packets[usize::from(place)].until;
            assert!(until.0 <= 1_000_004);
            reassembly.end(place);
            ended += 1;
        }
        assert_eq!((ended, reassembly.len(), reassembly.count), (512, 0, 0));
        assert_eq!((reassembly.oldest, reassembly.newest), (NONE, NONE));
        assert!(reassembly.chains.iter().all(|chain| *chain == NONE));
    }

    #[test]
    fn nobody_can_choose_sources_that_share_a_chain() {
        let reassembly: Reassembly<TestBuf> = Reassembly::new(7);
        let key = |source, v6| Key { source, destination: 2, id: 1, protocol: 47, v6, table: 0 };
        // Hosts with one number in many networks; addresses whose halves make up for each other's differences.
        let hosts = |n: u32| key(u128::from(n << 12 | 1), false);
        let halves = |n: u64| key(u128::from(n.rotate_left(29)) << 64 | u128::from(n), true);
        let chains = |keys: &mut dyn Iterator<Item = Key>| {
            keys.map(|key| reassembly.chain(&key)).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!(chains(&mut (0..512).map(hosts)) > 180);
        assert!(chains(&mut (0..512).map(halves)) > 180);
    }

    #[test]
    fn what_is_refused_stays_refused_until_its_time_is_over() {
        let mut reassembly: Reassembly<TestBuf> = Reassembly::new(7);
        let said = read(&pieces(&v4_packet(&[], 2000, 7), 600, 7)[0], 0).unwrap();
        let place = reassembly.begin(Instant(0), said.key);
        assert_eq!(reassembly.add(place, said, 0), Added::Waits);
        let over = Said { start: 8, end: 16, ..said };
        assert_eq!(reassembly.add(place, over, 1), Added::Refused(DropReason::FragmentOverlap));
        assert_eq!(reassembly.refuse(place, DropReason::FragmentOverlap).len(), 1);
        assert_eq!(reassembly.find(&said.key).packet, Some(place));
        assert_eq!(reassembly.refused(place), Some(DropReason::FragmentOverlap));
        assert_eq!(
            (reassembly.expired(Instant(999_999)), reassembly.expired(Instant(1_000_000))),
            (None, Some(place))
        );
        reassembly.end(place);
        let place = reassembly.begin(Instant(0), said.key);
        assert_eq!(reassembly.refused(place), None);
    }
}
