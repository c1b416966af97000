//! Routes of the node under test.

use std::collections::BTreeMap;

use model::{Prefix, ProtocolAddr, TableId};
use nhrp::{Found, Routes, To};

/// A small RIB: few routes, looked through.
#[derive(Debug, Default)]
pub(crate) struct Rib(pub(crate) BTreeMap<Prefix, To>);

impl Routes for Rib {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let holding = self.0.iter().filter(|(prefix, _)| prefix.contains(addr.0));
        let (prefix, to) = holding.max_by_key(|(prefix, _)| prefix.length())?;
        let to = match to {
            // Attached: every address is its own next hop.
            To::Tunnel(hop) if hop.next_hop.is_unspecified() => {
                To::Tunnel(model::program::Hop { next_hop: addr.0, ..*hop })
            }
            to => *to,
        };
        Some(Found { prefix: *prefix, to })
    }

    fn is_split(&self, _: TableId, prefix: Prefix, to: &To) -> bool {
        let is_part = |p: &Prefix| p.length() > prefix.length() && prefix.contains(p.addr());
        self.0.iter().any(|(p, leads)| is_part(p) && leads != to && *leads != To::Local)
    }
}
