//! How much of everything an engine holds: what is over leaves nothing behind, and a test can see that.

use crate::Engine;
use crate::cloud::Cloud;

/// Numbers of things, over all tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Cache entries, those of the configuration too.
    pub entries: usize,
    /// What clients registered: their addresses and prefixes, those of the configuration not among them.
    pub registrations: usize,
    /// Shortcuts, and prefixes that clients registered.
    pub shortcuts: usize,
    /// Addresses that are asked for, or rest.
    pub asks: usize,
    /// Sources of requests that passed.
    pub heard: usize,
    /// Answers that are remembered for a purge.
    pub told: usize,
    /// Purge requests that wait for their reply.
    pub purges: usize,
    /// Flows that redirects are counted for.
    pub redirected: usize,
    /// Timers.
    pub timers: usize,
}

impl Engine {
    /// Counts.
    #[must_use]
    pub fn census(&self) -> Census {
        let of_all = |of: fn(&Cloud) -> usize| self.clouds.values().map(of).sum();
        Census {
            entries: of_all(|c| c.cache.len()),
            registrations: of_all(|c| c.registered_clients + c.registered_prefixes),
            shortcuts: of_all(|c| c.shortcuts.len()),
            asks: of_all(|c| c.asks.len()),
            heard: of_all(|c| c.heard.len()),
            told: of_all(|c| c.told.len()),
            purges: of_all(|c| c.purges.len()),
            redirected: of_all(|c| c.redirected.len()),
            timers: self.common.timers.len(),
        }
    }
}
