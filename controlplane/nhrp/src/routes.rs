//! What the engine asks the RIB. Not an input, but a view that the caller lends for the time of one `handle`: a RIB of a
//! million routes is not kept twice. A journal records the answers beside the inputs ([`crate::journal`]), so replay sees the same ones.

use model::program::Hop;
use model::{InterfaceName, Prefix, ProtocolAddr, TableId};
use serde::{Deserialize, Serialize};

/// Routes of every owner but NHRP: an answer must never rest on a shortcut.
pub trait Routes {
    /// Longest match for an address.
    fn lookup(&self, table: TableId, addr: ProtocolAddr) -> Option<Found>;

    /// Whether there is a route to a proper part of `prefix` that leads elsewhere than `to` (RFC 2332 §6.3: what is answered
    /// must hold for the whole prefix). An address of this box itself inside the prefix splits nothing.
    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool;
}

/// A route that matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its prefix.
    pub prefix: Prefix,
    /// Where it leads.
    pub to: To,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// To an address of this box.
    Local,
    /// Through a tunnel. For an attached route (and on a point-to-point tunnel) the next hop is the address looked up.
    Tunnel(Hop),
    /// Out of an interface that is no tunnel: a packet for it leaves the cloud here.
    Elsewhere(InterfaceName),
    /// Nowhere.
    Nowhere,
}
