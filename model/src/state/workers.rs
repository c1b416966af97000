//! Workers of the data plane (`show workers`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::Table;
use super::{Filter, list};
use crate::WorkerId;

/// What a worker does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Never sleeps.
    Poll,
    /// Sleeps shortly.
    Adaptive,
}

impl Idle {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Poll, Self::Adaptive];
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Poll => "poll",
            Self::Adaptive => "adaptive",
        })
    }
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// The core that it is pinned to.
    pub core: u16,
    /// What it does when idle.
    pub idle: Idle,
    /// Turns of its loop.
    pub breaths: u64,
    /// Of these, turns that found packets.
    pub busy_breaths: u64,
    /// Packets received from its queues.
    pub rx_packets: u64,
    /// Packets sent to its queues.
    pub tx_packets: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets taken from other workers: this one has their SAs.
    pub handed_in: u64,
    /// Packets given to the workers that have their SAs.
    pub handed_off: u64,
    /// Processor cycles spent in turns that found packets.
    pub busy_cycles: u64,
    /// Generation of the tables that it forwards by.
    pub generation: u64,
    /// Who seals and opens ESP: `vaes512`, `vaes256`, `aesni`, `ring`, `aes-gcm`.
    pub aead: String,
}

impl Worker {
    // A filter selects none of its fields.
    #[allow(clippy::unused_self)]
    pub(super) fn is_admitted(&self, _: &Filter) -> bool {
        true
    }
}

list! {
    /// Workers.
    Workers of Worker
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            ">Worker",
            ">Core",
            "Idle",
            ">Breaths",
            ">Busy",
            ">Rx packets",
            ">Tx packets",
            ">Dropped",
            ">Handed in",
            ">Handed off",
            ">Cycles/packet",
            ">Generation",
            "AEAD",
        ];
        let mut table = Table::new(headings, "no workers");
        for w in &self.0 {
            table.row([
                w.id.0.to_string(),
                w.core.to_string(),
                w.idle.to_string(),
                w.breaths.to_string(),
                w.busy_breaths.to_string(),
                w.rx_packets.to_string(),
                w.tx_packets.to_string(),
                w.dropped.to_string(),
                w.handed_in.to_string(),
                w.handed_off.to_string(),
                w.busy_cycles.checked_div(w.rx_packets).map_or_else(|| "-".to_owned(), |c| c.to_string()),
                w.generation.to_string(),
                w.aead.clone(),
            ]);
        }
        table.fmt(f)
    }
}
