//! Adjacencies: what to do with a packet whose next hop is known, or that it is not.
//!
//! One entry is two cache lines, and the first holds all that an IPv4 packet into an IPv4 GRE tunnel needs:
//!
//! ```text
//!  0      1       2        3      4    6         8   10      12       16       18     22                64            128
//! +------+-------+--------+------+----+---------+---+-------+--------+--------+------+-----------------:-------------+
//! | kind | epoch | wants  | form |port|interface|mtu|network|next hop|checksum| free | rewrite         :             |
//! +------+-------+--------+------+----+---------+---+-------+--------+--------+------+-----------------:-------------+
//!                                                                                    | Ethernet IPv4 GRE key |  room for ESP, IPv6
//! ```
//!
//! Entries live in chunks behind `Arc`: a change copies one chunk and the list of chunks, whatever the number of entries.

use std::sync::Arc;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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

/// Length of an Ethernet header in bytes.
pub(crate) const LINK_LEN: usize = 14;
/// Length of the longest rewrite so far: Ethernet, IPv4, GRE with key.
pub(crate) const KEYED_LEN: usize = 42;
/// Length of a midchain's rewrite without key.
pub(crate) const KEYLESS_LEN: usize = 38;

/// The network of an adjacency that is on no tunnel. A packet that came by no tunnel, or by one without redirects, has 0.
pub(crate) const NO_NETWORK: u16 = u16::MAX;

/// One entry. All fields are host order but the rewrite, which is bytes as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(128))]
pub(crate) struct Adjacency {
    pub(crate) kind: Kind,
    pub(crate) epoch: u8,
    /// Of [`permit`]: what a packet must be allowed to come this way.
    pub(crate) wants: u8,
    /// Length of the rewrite: 14, 38 or 42.
    pub(crate) form: u8,
    /// The port to send by.
    pub(crate) port: u16,
    /// Where the next hop is; of `Receive` whose address it is.
    pub(crate) interface: u16,
    /// Largest IP packet that it takes, in bytes.
    pub(crate) mtu: u16,
    /// The tunnel's network, 1 and up; [`NO_NETWORK`] on ports.
    pub(crate) network: u16,
    /// The next hop, where it is to be resolved.
    pub(crate) next_hop: u32,
    /// Sum of the outer IPv4 header without type of service, length and identification, folded, not complemented.
    pub(crate) checksum: u16,
    pub(crate) free: [u8; 4],
    pub(crate) rewrite: [u8; 106],
}

const _: () =
    assert!(size_of::<Adjacency>() == 128 && std::mem::offset_of!(Adjacency, rewrite) + KEYED_LEN == 64);

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
        next_hop: 0,
        checksum: 0,
        free: [0; 4],
        rewrite: [0; 106],
    };

    /// An entry that needs nothing but its kind.
    pub(crate) const fn of(kind: Kind, wants: u8) -> Self {
        Self { kind, wants, ..Self::FREE }
    }

    /// Where a midchain sends: the destination in its outer header.
    pub(crate) fn nbma(&self) -> u32 {
        let destination = self.rewrite.get(LINK_LEN + 16..).and_then(|rest| rest.first_chunk());
        destination.map_or(0, |nbma| u32::from_be_bytes(*nbma))
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
static NOWHERE: Adjacency = Adjacency::FREE;

impl Adjacencies {
    /// The entry in the slot of `id`, whatever its epoch.
    #[inline(always)]
    pub(crate) fn slot(&self, id: AdjacencyId) -> &Adjacency {
        let index = id.index();
        match self.chunks.get(index / CHUNK) {
            Some(chunk) => &chunk.0[index % CHUNK],
            None => &NOWHERE,
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
