//! The RIB (`show routes`): every route of every owner.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::time::expiry;
use super::{Filter, list};
use crate::program::{Hop, Owner, Path, Route};

/// A route of the RIB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RibRoute {
    /// The route.
    #[serde(flatten)]
    pub route: Route,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is the one that is forwarded by, of those to the same prefix.
    pub best: bool,
}

impl RibRoute {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        is_by(&self.route.path, filter)
            && filter.admits_table(self.route.table)
            && filter.admits_owner(self.owner)
            && filter.admits_address(|a| self.route.prefix.contains(a))
    }
}

list! {
    /// The RIB.
    Routes of RibRoute
}

impl fmt::Display for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [">Table", "", "Prefix", "Path", "Owner", "Expires"];
        let mut table = Table::new(headings, "no routes");
        for r in &self.0 {
            table.row([
                r.route.table.0.to_string(),
                if r.best { "*" } else { "" }.to_owned(),
                r.route.prefix.to_string(),
                path(&r.route.path),
                owner(r.owner).to_owned(),
                expiry(r.route.expires_in),
            ]);
        }
        table.fmt(f)
    }
}

/// Whether a filter admits a path by an interface that it leaves by or ends at.
pub(super) fn is_by(path: &Path, filter: &Filter) -> bool {
    filter.admits_interface(None) || path.interfaces().any(|name| filter.admits_interface(Some(name)))
}

/// As it is written in tables.
pub(super) fn path(path: &Path) -> String {
    match path {
        Path::Via(_) | Path::Balanced(_) => {
            let hop = |hop: &Hop| format!("{} on {}", hop.next_hop, hop.interface);
            format!("via {}", path.hops().iter().map(hop).collect::<Vec<_>>().join(", "))
        }
        Path::Attached(interface) => format!("attached to {interface}"),
        Path::Receive(interface) => format!("receive on {interface}"),
        Path::Unreachable => "unreachable".to_owned(),
        Path::Blackhole => "blackhole".to_owned(),
    }
}

/// As it is written in tables.
pub(super) fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::Nhrp => "nhrp",
        Owner::Ike => "ike",
        Owner::Config => "config",
        Owner::Netlink => "netlink",
    }
}
