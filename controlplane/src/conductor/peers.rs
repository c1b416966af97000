//! Host routes to the peers of tunnels that have host addresses only, as the kernel is told of them: in one with the static routes, once
//! a second at most, for a hub may have very many.

use std::collections::BTreeMap;
use std::time::Duration;

use model::program::{Path, Route};
use model::time::Instant;
use model::{Prefix, TableId};

/// How long the kernel may know less than the data plane, where many come at once.
const PACE: Duration = Duration::from_secs(1);

/// The routes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    routes: BTreeMap<(TableId, Prefix), Path>,
    /// They are not what was ordered last.
    is_changed: bool,
    /// When that was.
    ordered: Option<Instant>,
}

impl Peers {
    /// A peer came, or went.
    pub(super) fn set(&mut self, at: (TableId, Prefix), path: Option<&Path>) {
        self.is_changed |= match path {
            Some(path) if self.routes.get(&at) == Some(path) => false,
            Some(path) => {
                self.routes.insert(at, path.clone());
                true
            }
            None => self.routes.remove(&at).is_some(),
        };
    }

    /// How a peer is reached, as NHRP said it.
    pub(super) fn path(&self, at: (TableId, Prefix)) -> Option<&Path> {
        self.routes.get(&at)
    }

    /// When the kernel is to be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_changed.then(|| self.ordered.map_or_else(Instant::default, |at| at + PACE))
    }

    /// The kernel is told of them now.
    pub(super) fn ordered(&mut self, now: Instant) {
        self.is_changed = false;
        self.ordered = Some(now);
    }

    /// All of them.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().map(|(&(table, prefix), path)| Route {
            table,
            prefix,
            path: path.clone(),
            expires_in: None,
        })
    }
}
