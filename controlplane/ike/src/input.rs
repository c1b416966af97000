//! The alphabet in.

use std::net::SocketAddr;
use std::sync::Arc;

use model::config::Ike;
use model::ike::Identity;
use model::sa::{Direction, Lifetimes, ProfileName, Protection, Reached, SaMode, Spi};
use model::{NbmaAddr, TableId};

use crate::Credentials;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The profiles are these now, and the addresses that their tunnels have; replaces what was. SAs of what is gone end.
    Configure(Vec<Profile>),
    /// A data plane is there: whose inbound SPIs are to be chosen so that they are at home in it ([`Spi`]). If it is another one than before
    /// (`is_new`) all child SAs are lost there: each is replaced by a new one, and none of their keys is used again.
    Dataplane {
        /// Its workers.
        workers: u16,
        /// Places for inbound SAs of each worker.
        slots: u32,
        /// SPIs that are taken otherwise: of static keys.
        reserved: Vec<Spi>,
        /// It has none of our SAs.
        is_new: bool,
    },
    /// SAs of a former life that the data plane has, and goes on with: whose keys nobody knows any more. Each is removed when a new
    /// pair stands in its place, or when it would have ended (the lifetime of its profile from now on).
    Adopt(Vec<Adopted>),
    /// A datagram came. Exactly its UDP payload: on port 4500 with the non-ESP marker, or a keepalive.
    Datagram {
        /// In this FIB table.
        table: TableId,
        /// To which of our addresses and ports.
        local: SocketAddr,
        /// From where.
        remote: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Somebody wants to talk to this peer. Its port is 0 if nothing is known of it: then UDP port 500 is tried, and the port that it has is
    /// told by [`crate::Action::Up`]. Nothing happens if it is protected or on the way. `is_server`: it is not let go when it is idle, and tried
    /// for ever; what was said last counts.
    Want {
        /// The peer.
        peer: Protection,
        /// It is a next-hop server of ours.
        is_server: bool,
    },
    /// Packets of these peers came in within the last second or so (`inbound`), or went out.
    Used {
        /// Inbound SPIs by which authentic packets came.
        inbound: Vec<Spi>,
        /// Peers to whom packets went.
        outbound: Vec<Protection>,
    },
    /// An SA reached a lifetime in bytes or packets.
    Lifetime {
        /// The peer.
        peer: Protection,
        /// The SA.
        spi: Spi,
        /// Which way it goes.
        direction: Direction,
        /// Which lifetime.
        reached: Reached,
    },
    /// The newest packet of an inbound SA in UDP came from another place than its peer's, and is authentic (RFC 7296 §2.23).
    Moved {
        /// The SA.
        spi: Spi,
        /// Where the peer is now.
        remote: SocketAddr,
    },
    /// The operator wants IKE SAs gone.
    Clear(Clear),
    /// The node stops for good: peers are told.
    Shutdown,
    /// Time passed.
    Tick,
}

/// A profile, and who we are by it.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// What ESP stands around.
    pub mode: SaMode,
    /// Sequence numbers that replay windows span.
    pub replay_window: u16,
    /// How much an SA carries.
    pub lifetimes: Lifetimes,
    /// The operator's section.
    pub ike: Ike,
    /// What its files hold.
    pub credentials: Arc<Credentials>,
    /// FIB tables and addresses of tunnels that it protects: where peers may begin.
    pub sources: Vec<(TableId, NbmaAddr)>,
}

/// An SA of a former life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// Whose it is.
    pub peer: Protection,
    /// Which way it goes.
    pub direction: Direction,
    /// Its SPI.
    pub spi: Spi,
    /// The worker that has it.
    pub worker: model::WorkerId,
}

/// Which IKE SAs to end: all that match. What is wanted comes back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clear {
    /// With this address.
    pub remote: Option<NbmaAddr>,
    /// With this identity.
    pub identity: Option<Identity>,
}
