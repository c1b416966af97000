//! What forwards (`show fib`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::routes::{is_by, owner, path};
use super::table::Table;
use super::{Filter, list};
use crate::program::{Owner, Path};
use crate::{Prefix, TableId};

/// An entry of the FIB: the best route to a prefix, resolved to an adjacency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FibEntry {
    /// Table.
    pub table: TableId,
    /// Destination.
    pub prefix: Prefix,
    /// Where to.
    pub path: Path,
    /// Whose route it is.
    pub owner: Owner,
    /// Index of the adjacency that it points at.
    pub adjacency: u32,
}

impl FibEntry {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        is_by(&self.path, filter)
            && filter.admits_table(self.table)
            && filter.admits_owner(self.owner)
            && filter.admits_address(|a| self.prefix.contains(a))
    }
}

list! {
    /// What forwards.
    Fib of FibEntry
}

impl fmt::Display for Fib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([">Table", "Prefix", "Path", "Owner", ">Adjacency"], "no FIB entries");
        for e in &self.0 {
            table.row([
                e.table.0.to_string(),
                e.prefix.to_string(),
                path(&e.path),
                owner(e.owner).to_owned(),
                e.adjacency.to_string(),
            ]);
        }
        table.fmt(f)
    }
}
