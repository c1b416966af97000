//! The alphabet out. The shell carries out every action, in order; none is optional.

use std::net::{IpAddr, SocketAddr};

use model::TableId;
use model::ike::Identity;
use model::program::{Key, Object};
use model::sa::Protection;

use crate::Event;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a datagram: exactly this UDP payload.
    Send {
        /// In this FIB table.
        table: TableId,
        /// From this address of ours and this port, 500 or 4500.
        local: SocketAddr,
        /// To here.
        remote: SocketAddr,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// Program this for owner IKE: an inbound or an outbound SA. A new outbound one takes the place of the old one of its peer and worker.
    /// Its lease is its first and only: all its numbers (a key of IKE never gets into a second data plane).
    Put(Object),
    /// Program it away.
    Remove(Key),
    /// A peer is protected: packets to it can leave, as soon as what was put before is programmed. Said once, and again if its port or who it is
    /// changed (`was`: what it was told as before).
    Up {
        /// The peer, with the UDP port that ESP to it has now.
        peer: Protection,
        /// The same before.
        was: Option<Protection>,
        /// Who it proved to be.
        identity: Identity,
        /// The addresses that its certificate names.
        addresses: Vec<IpAddr>,
    },
    /// A peer is not protected any more, and what was its has been removed: packets to it go by the server.
    Down {
        /// The peer.
        peer: Protection,
        /// It did not answer any more (RFC 7296 §2.4): NHRP forgets it, too.
        is_dead: bool,
    },
    /// Tell whoever listens.
    Event(Event),
}
