//! Adjacencies: what to do with a packet whose next hop is known, or that it is not.
//!
//! One entry is two cache lines, and the first holds all that an IPv4 packet into an IPv4 GRE tunnel needs:
//!
//! ```text
//!  0       1      2       3      4    6       7    8         10  12      14       16   20    22                64            128
//! +-------+------+-------+------+----+-------+----+---------+---+-------+--------+----+-----+-----------------:-------------+
//! | epoch | kind | wants | form |port| flags |link|interface|mtu|network|checksum| SA | mss | rewrite         :             |
//! +-------+------+-------+------+----+-------+----+---------+---+-------+--------+----+-----+-----------------:-------------+
//!                                                                                           | Ethernet IPv4 GRE key |  room for
//! ```                                                                                                            tag, IPv6, ESP
//!
//! An adjacency says how to send, not what: packets of both families take the same one, and the two bytes of a rewrite that
//! name the family of what follows are the packet's own. Where there is nothing to send by, the rewrite's place holds the next hop
//! that is to be resolved, or the adjacencies among which flows are balanced.
//!
//! Entries live in chunks behind `Arc`: a change copies one chunk and the list of chunks, whatever the number of entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wire::{ipv4, ipv6, udp};
use zerocopy::{Immutable, IntoBytes};

use crate::sa::UNPROTECTED;

/// An adjacency's index and, against reuse, epoch; what the FIB's words hold.
///
/// ```text
///  31    28 27     20 19                 0
/// +--------+---------+--------------------+
/// |   0    |  epoch  |       index        |
/// +--------+---------+--------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AdjacencyId(u32);

impl AdjacencyId {
    /// Most adjacencies: 2^20.
    pub const LIMIT: usize = 1 << 20;

    /// The id of a slot in a life.
    #[must_use]
    pub const fn new(index: u32, epoch: u8) -> Self {
        Self((epoch as u32) << 20 | (index & (Self::LIMIT as u32 - 1)))
    }

    /// As it stands in the FIB.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// As it stands in the FIB.
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The slot.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize & (Self::LIMIT - 1)
    }

    /// The slot's life.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u8 {
        (self.0 >> 20) as u8
    }
}

/// What an adjacency does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, Immutable)]
#[repr(u8)]
pub enum Kind {
    /// The slot is not in use.
    #[default]
    Free,
    /// A resolved neighbour on a port: Ethernet header, out.
    Neighbour,
    /// A resolved next hop on a tunnel, stacked on a neighbour: outer frame, out.
    Midchain,
    /// An attached prefix: the destination is the next hop, and is not resolved.
    Glean,
    /// A next hop that is not resolved, or a midchain whose link is not: then `interface` and `next_hop` are the link's.
    Incomplete,
    /// Our own address: to the twin of `interface`.
    Receive,
    /// A multicast group.
    Multicast,
    /// Nowhere, and the sender is told.
    Unreachable,
    /// Nowhere.
    Blackhole,
    /// A destination that is no destination.
    Martian,
    /// Nothing matched.
    NoRoute,
    /// One of several others, flow by flow.
    Balanced,
    /// A resolved next hop on a protected tunnel for which there is no outbound SA: packets take the tunnel's fall-back, and never go
    /// in the clear. `interface` is the tunnel, the rewrite's place has the next hop.
    Unprotected,
}

/// What a packet is allowed, and what an adjacency wants of it: one bit each.
pub(crate) mod permit {
    /// To leave again, not only to stay here.
    pub(crate) const TRANSIT: u8 = 1;
    /// To leave by a port that does not forward.
    pub(crate) const CLOSED_PORT: u8 = 2;
    /// To enter a tunnel.
    pub(crate) const TUNNEL: u8 = 4;
}

/// What there is to know of an adjacency's rewrite: one bit each.
pub(crate) mod flag {
    /// The rewrite is [`super::KEYED_LEN`] or [`super::KEYLESS_LEN`] long: Ethernet without a tag, IPv4, GRE. Of midchains.
    pub(crate) const PLAIN: u8 = 1;
    /// The outer header is IPv6. Of midchains.
    pub(crate) const OUTER6: u8 = 2;
    /// Don't-fragment of the outer header as of the inner one: the bit that stands for it there. Of midchains.
    pub(crate) const DF_COPY: u8 = 0x40;
    /// Don't-fragment of the outer header is set, and stands so in the rewrite. Of midchains.
    pub(crate) const DF_SET: u8 = 8;
    /// The next hop is an IPv6 address. Of what is not resolved.
    pub(crate) const HOP6: u8 = 16;
    /// The tunnel is point-to-point. Of midchains.
    pub(crate) const PEER: u8 = 32;
    /// What goes by it is sealed. Of midchains: the rewrite is Ethernet, IP, UDP where [`ESP_UDP`] says so, and GRE; between UDP, or IP, and
    /// what is behind it 16 bytes that the rewrite does not have: SPI, sequence number, IV.
    pub(crate) const ESP: u8 = 4;
    /// ESP is in UDP. Of protected midchains.
    pub(crate) const ESP_UDP: u8 = 0x80;
    /// Tunnel mode: an IP header of its own stands before GRE in the rewrite. Of protected midchains (on which [`HOP6`] means nothing).
    pub(crate) const ESP_TUNNEL: u8 = 16;
}

/// Length of an Ethernet header in bytes.
pub(crate) const LINK_LEN: usize = 14;
/// Length of one with an 802.1Q tag.
pub(crate) const TAGGED_LEN: usize = 18;
/// Length of a midchain's rewrite with key: Ethernet without a tag, IPv4, GRE.
pub(crate) const KEYED_LEN: usize = 42;
/// Length of a midchain's rewrite without key.
pub(crate) const KEYLESS_LEN: usize = 38;

/// The network of an adjacency that is on no tunnel. A packet that came by no tunnel, or by one without redirects, has 0.
pub(crate) const NO_NETWORK: u16 = u16::MAX;

/// One entry. All fields are host order but the rewrite, which is bytes as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C, align(128))]
pub(crate) struct Adjacency {
    pub(crate) epoch: u8,
    pub(crate) kind: Kind,
    /// Of [`permit`]: what a packet must be allowed to come this way.
    pub(crate) wants: u8,
    /// Length of the rewrite in bytes; of `Balanced` the number of adjacencies.
    pub(crate) form: u8,
    /// The port to send by.
    pub(crate) port: u16,
    /// Of [`flag`].
    pub(crate) flags: u8,
    /// Length of the link's header in the rewrite: 14 or, with a tag, 18.
    pub(crate) link: u8,
    /// Where the next hop is; of `Receive` whose address it is.
    pub(crate) interface: u16,
    /// Largest IP packet that it takes, in bytes, before a midchain puts its headers in front. (An IPv6 packet of up to 1,280 bytes
    /// is taken by midchains whatever stands here: RFC 8200 §5.)
    pub(crate) mtu: u16,
    /// The tunnel's network, 1 and up; [`NO_NETWORK`] on ports.
    pub(crate) network: u16,
    /// Sum of the outer IPv4 header without type of service, length and identification, folded, not complemented.
    pub(crate) checksum: u16,
    /// Slot of the outbound SA ([`crate::sa`]) of a protected midchain; [`UNPROTECTED`] of all others.
    pub(crate) protection: u32,
    /// Most that TCP SYNs over IPv4 may ask for by it, over IPv6 20 less; 0: whatever they want. Of midchains.
    pub(crate) mss: u16,
    pub(crate) rewrite: [u8; 106],
}

const _: () =
    assert!(size_of::<Adjacency>() == 128 && std::mem::offset_of!(Adjacency, rewrite) + KEYED_LEN == 64);

/// What of an adjacency's first eight bytes is wanted, besides the epoch, and which bits of them matter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    head: u64,
    mask: u64,
}

impl Wanted {
    /// What sends by the same port as `like`, on a link without a tag, is of this kind with a rewrite of this length, and takes what has these
    /// permits. Of `flags` those are set of `of_flags`, and no others.
    #[inline(always)]
    pub(crate) fn new(
        like: &Adjacency,
        kind: Kind,
        form: usize,
        permits: u8,
        flags: u8,
        of_flags: u8,
    ) -> Self {
        let [port, port_high] = like.port.to_le_bytes();
        Self {
            head: u64::from_le_bytes([0, kind as u8, 0, form as u8, port, port_high, flags, LINK_LEN as u8]),
            mask: u64::from_le_bytes([0xff, 0xff, !permits, 0xff, 0xff, 0xff, of_flags, 0xff]),
        }
    }
}

impl Adjacency {
    /// A slot without use.
    pub(crate) const FREE: Self = Self {
        kind: Kind::Free,
        epoch: 0,
        wants: 0,
        form: 0,
        port: 0,
        interface: 0,
        mtu: 0,
        network: NO_NETWORK,
        checksum: 0,
        flags: 0,
        link: 0,
        mss: 0,
        protection: UNPROTECTED,
        rewrite: [0; 106],
    };

    /// Whether it is what is wanted, in the life that `id` means: all in one look.
    #[inline(always)]
    pub(crate) fn is(&self, wanted: Wanted, id: AdjacencyId) -> bool {
        let head = self.as_bytes().first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        (head ^ wanted.head ^ u64::from(id.epoch())) & wanted.mask == 0
    }

    /// Whether what goes by it is sealed in transport mode, and the rewrite Ethernet without a tag, IPv4, UDP if ESP is in that, and, behind the
    /// gap for ESP, GRE with a key.
    #[inline(always)]
    pub(crate) fn is_plainly_sealed(&self) -> bool {
        let udp = if self.flags & flag::ESP_UDP == 0 { 0 } else { udp::LEN };
        self.flags & (flag::ESP | flag::OUTER6 | flag::ESP_TUNNEL) == flag::ESP
            && usize::from(self.form) == KEYED_LEN + udp
            && self.link == LINK_LEN as u8
    }

    /// An entry that needs nothing but its kind.
    pub(crate) const fn of(kind: Kind, wants: u8) -> Self {
        Self { kind, wants, ..Self::FREE }
    }

    /// Where a midchain sends: the destination in its outer header.
    pub(crate) fn nbma(&self) -> IpAddr {
        if self.flags & flag::OUTER6 != 0 {
            Ipv6Addr::from(self.rewritten::<16>(usize::from(self.link) + 24)).into()
        } else {
            Ipv4Addr::from(self.rewritten::<4>(usize::from(self.link) + 16)).into()
        }
    }

    /// Where in the rewrite SPI, sequence number and IV go, of what is sealed.
    pub(crate) fn gap(&self) -> Option<usize> {
        let ip = if self.flags & flag::OUTER6 != 0 { ipv6::LEN } else { ipv4::LEN };
        let udp = if self.flags & flag::ESP_UDP != 0 { udp::LEN } else { 0 };
        let sealed = self.kind == Kind::Midchain && self.flags & flag::ESP != 0;
        sealed.then_some(usize::from(self.link) + ip + udp)
    }

    /// The next hop that is to be resolved; of `Incomplete`.
    pub(crate) fn next_hop(&self) -> IpAddr {
        if self.flags & flag::HOP6 != 0 {
            Ipv6Addr::from(self.rewritten::<16>(0)).into()
        } else {
            Ipv4Addr::from(self.rewritten::<4>(0)).into()
        }
    }

    /// The same entry with a next hop that is to be resolved.
    pub(crate) fn with_next_hop(mut self, next_hop: IpAddr) -> Self {
        match next_hop {
            IpAddr::V4(addr) => self.rewrite[..4].copy_from_slice(&addr.octets()),
            IpAddr::V6(addr) => {
                self.flags |= flag::HOP6;
                self.rewrite[..16].copy_from_slice(&addr.octets());
            }
        }
        self
    }

    /// The adjacency that a flow takes of those of a `Balanced`. The hash's upper bits decide, so that any hash does that mixes
    /// upwards.
    #[inline(always)]
    pub(crate) fn member(&self, hash: u32) -> AdjacencyId {
        let at = ((u64::from(hash) * u64::from(self.form)) >> 32) as usize;
        AdjacencyId::from_word(u32::from_ne_bytes(self.rewritten(at * 4)))
    }

    /// A `Balanced` of these, 26 at most.
    pub(crate) fn balanced(members: &[AdjacencyId], wants: u8) -> Self {
        let mut entry = Self::of(Kind::Balanced, wants);
        for (place, member) in entry.rewrite.chunks_exact_mut(4).zip(members) {
            place.copy_from_slice(&member.word().to_ne_bytes());
            entry.form += 1;
        }
        entry
    }

    fn rewritten<const LEN: usize>(&self, at: usize) -> [u8; LEN] {
        self.rewrite.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LEN])
    }
}

/// Entries of a chunk.
pub(crate) const CHUNK: usize = 64;

/// Adjacencies that are published and copied together.
#[derive(Debug, Clone)]
pub(crate) struct Chunk(pub(crate) [Adjacency; CHUNK]);

/// All adjacencies, as a worker reads them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Adjacencies {
    chunks: Vec<Arc<Chunk>>,
}

/// What is found where no chunk is.
pub(crate) static NOWHERE: Adjacency = Adjacency::FREE;

impl Adjacencies {
    /// The entry in the slot of `id`, whatever its epoch.
    #[inline(always)]
    pub(crate) fn slot(&self, id: AdjacencyId) -> &Adjacency {
        self.slots()(id)
    }

    /// [`Adjacencies::slot`] for a loop.
    #[inline(always)]
    pub(crate) fn slots<'a>(&'a self) -> impl Fn(AdjacencyId) -> &'a Adjacency {
        let chunks = self.chunks.as_slice();
        move |id| {
            let index = id.index();
            match chunks.get(index / CHUNK) {
                Some(chunk) => &chunk.0[index % CHUNK],
                None => &NOWHERE,
            }
        }
    }

    /// Asks the cache for the entry's first line.
    #[inline(always)]
    pub(crate) fn prefetch(&self, id: AdjacencyId) {
        memory::prefetch_read(self.slot(id));
    }

    /// The entry, unless its slot has another life now.
    #[inline(always)]
    pub(crate) fn at(&self, id: AdjacencyId) -> Option<&Adjacency> {
        let entry = self.slot(id);
        (entry.epoch == id.epoch() && entry.kind != Kind::Free).then_some(entry)
    }

    /// Stores an entry. Copies its chunk if somebody else reads it.
    pub(crate) fn store(&mut self, index: usize, entry: Adjacency) {
        while self.chunks.len() <= index / CHUNK {
            self.chunks.push(Arc::new(Chunk([Adjacency::FREE; CHUNK])));
        }
        Arc::make_mut(&mut self.chunks[index / CHUNK]).0[index % CHUNK] = entry;
    }
}
