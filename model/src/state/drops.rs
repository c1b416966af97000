//! Packets dropped, by reason (`show drops`).

use std::fmt;

use super::counters::{Counter, named};
use super::list;

list! {
    /// Drops by reason: name and sentence of the reason, and how many packets.
    Drops of Counter
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named("Reason", &self.0, "no packet was dropped").fmt(f)
    }
}
