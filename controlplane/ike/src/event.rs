//! What is worth telling: typed. Log, metrics, `nave watch` and tests consume it.

use std::net::SocketAddr;

use model::ike::{EspSuite, Identity, IkeSuite};
use model::sa::{ProfileName, Protection, Spi};

/// Something that happened in IKE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An IKE SA is established: its peer is who it says it is.
    IkeUp {
        /// The peer.
        peer: Protection,
        /// Who it is.
        identity: Identity,
        /// What it is protected by.
        suite: IkeSuite,
        /// We began.
        is_initiator: bool,
        /// It takes the place of one that was rekeyed.
        is_rekey: bool,
    },
    /// An IKE SA is gone.
    IkeDown {
        /// The peer.
        peer: Protection,
        /// Who it was.
        identity: Option<Identity>,
        /// Why, in words.
        reason: String,
    },
    /// A pair of child SAs is programmed.
    ChildUp {
        /// The peer.
        peer: Protection,
        /// The SPI that we chose.
        inbound: Spi,
        /// The SPI that the peer chose.
        outbound: Spi,
        /// What it is sealed with.
        suite: EspSuite,
        /// It takes the place of one that was rekeyed.
        is_rekey: bool,
    },
    /// A pair of child SAs is gone.
    ChildDown {
        /// The peer.
        peer: Protection,
        /// The SPI that we chose.
        inbound: Spi,
        /// The SPI that the peer chose.
        outbound: Spi,
        /// Why, in words.
        reason: String,
    },
    /// A peer was not protected, or refused us.
    Failed {
        /// The profile, where it is known.
        profile: Option<ProfileName>,
        /// Where the peer is.
        remote: SocketAddr,
        /// Who it says it is, if it said that.
        identity: Option<Identity>,
        /// Why, in words: "peer proposed only AES-CBC for ESP; profile branch-v2 accepts aes128gcm16".
        reason: String,
    },
    /// A peer is at another place: a NAT on the way gave it another one.
    Moved {
        /// The peer, as it is now.
        peer: Protection,
        /// Where it was.
        was: Protection,
    },
}
