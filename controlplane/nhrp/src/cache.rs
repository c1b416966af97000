//! The cache: who is where. One entry for each protocol address of a peer.
//!
//! ```text
//!            resolution, or the source of one that we answered
//!          +---------------------------------------------------+
//!          v                                                   |
//!    (no entry) --registration--> dynamic <--registration-- cached
//!          ^                         |                         |
//!          +--- holding time over, purge, clear, no room ------+
//!
//!    static, nhs: as the configuration says; nothing learnt replaces them
//! ```
//!
//! A cached entry in use is asked for again before its time is over (`used`), and forwards meanwhile. What is being asked
//! for, or could not be resolved, is in `resolution`.

use std::sync::Arc;

use model::program::{Binding, Key, Object};
use model::state::nhrp::{EntryFlags, EntryType};
use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, ProtocolAddr};

use crate::cloud::Cloud;
use crate::input::Peer;
use crate::limits::{USED_FOR, stale_below};
use crate::turn::{Timer, Turn};
use crate::{Clear, Event, Reject};

/// Whose word an entry is, weakest first: a stronger one is not replaced by a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A resolution.
    Cached,
    /// The client's registration.
    Dynamic,
    /// `nhs` in the configuration.
    Nhs,
    /// `map` in the configuration.
    Static,
}

impl Origin {
    pub(crate) const fn is_configured(self) -> bool {
        matches!(self, Self::Nhs | Self::Static)
    }

    pub(crate) const fn entry_type(self) -> EntryType {
        match self {
            Self::Cached => EntryType::Cached,
            Self::Dynamic => EntryType::Dynamic,
            Self::Nhs => EntryType::Nhs,
            Self::Static => EntryType::Static,
        }
    }
}

/// A binding.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    pub(crate) nbma: NbmaAddr,
    /// UDP port of its packets, where encapsulated.
    pub(crate) port: Option<u16>,
    /// What the client says its NBMA address is, where its packets come from another (NAT).
    pub(crate) claimed: Option<NbmaAddr>,
    pub(crate) unique: bool,
    pub(crate) authoritative: bool,
    pub(crate) implicit: bool,
    /// Gets multicast because it is registered, or was: one of the configuration keeps it until its client takes leave.
    pub(crate) replica: bool,
    pub(crate) mtu: u16,
    pub(crate) created: Instant,
    /// Holding time as it was told; of configured entries without meaning.
    pub(crate) holding_time: HoldingTime,
    /// `None`: never.
    pub(crate) expires: Option<Instant>,
    pub(crate) last_used: Option<Instant>,
    /// Who registered it, where IKE knows that.
    pub(crate) identity: Option<Arc<str>>,
}

impl Entry {
    /// One of the configuration.
    pub(crate) const fn configured(origin: Origin, nbma: NbmaAddr, now: Instant) -> Self {
        Self {
            origin,
            nbma,
            port: None,
            claimed: None,
            unique: false,
            authoritative: true,
            implicit: false,
            replica: false,
            mtu: 0,
            created: now,
            holding_time: HoldingTime(0),
            expires: None,
            last_used: None,
            identity: None,
        }
    }

    pub(crate) const fn peer(&self) -> Peer {
        Peer { nbma: self.nbma, port: self.port }
    }

    pub(crate) fn flags(&self, now: Instant) -> EntryFlags {
        EntryFlags {
            authoritative: self.authoritative,
            implicit: self.implicit,
            registered: self.origin == Origin::Dynamic,
            unique: self.unique,
            used: self.last_used.is_some_and(|at| now.since(at) <= USED_FOR),
        }
    }
}

impl Cloud {
    /// Where a peer is.
    pub(crate) fn binding(&self, address: ProtocolAddr) -> Option<Peer> {
        self.cache.get(&address).map(Entry::peer)
    }

    /// Whether another peer would be one too many.
    pub(crate) fn is_full(&self, turn: &Turn<'_>, address: ProtocolAddr) -> bool {
        !self.cache.contains_key(&address) && self.cache.len() >= turn.common.limits.entries
    }

    /// Takes an entry in place of the one that was there, and programs it. Its age, and that it is in use, stay those of the
    /// old one if it says the same.
    pub(crate) fn install(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr, mut entry: Entry) {
        let old = self.cache.remove(&address);
        if let Some(old) = old.as_ref().filter(|o| o.nbma == entry.nbma && o.origin == entry.origin) {
            entry.created = old.created;
            entry.last_used = old.last_used;
        }
        let is_client = old.as_ref().is_some_and(|o| o.replica && o.nbma == entry.nbma);
        entry.replica = (entry.origin == Origin::Dynamic || is_client) && self.replicates_to_clients();
        if entry.replica {
            self.acquire_replica(turn, entry.nbma);
        }
        if let Some(old) = old.filter(|o| o.replica) {
            self.release_replica(turn, old.nbma);
        }
        let timer = Timer::Binding(self.name(), address);
        match entry.expires {
            Some(at) => turn.common.timers.set(timer, at),
            None => turn.cancel(timer),
        }
        if !entry.origin.is_configured() {
            turn.save();
        }
        self.program_binding(turn, address, &entry);
        self.cache.insert(address, entry);
        self.wake(turn, address);
    }

    fn program_binding(&self, turn: &mut Turn<'_>, address: ProtocolAddr, entry: &Entry) {
        if !self.is_multipoint() {
            return;
        }
        turn.put(Object::Binding(Binding {
            tunnel: self.name(),
            next_hop: address,
            nbma: entry.nbma,
            link: None,
            expires_in: entry.expires.map(|at| at.since(turn.now)),
        }));
    }

    /// The data plane says that it has no binding for an address. If there is one, it is told again.
    pub(crate) fn is_known(&self, turn: &mut Turn<'_>, address: ProtocolAddr) -> bool {
        let entry = self.cache.get(&address);
        if let Some(entry) = entry {
            self.program_binding(turn, address, entry);
        }
        entry.is_some()
    }

    /// Removes an entry and every shortcut by way of it.
    pub(crate) fn forget(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr) {
        let Some(entry) = self.cache.remove(&address) else { return };
        let tunnel = self.name();
        turn.cancel(Timer::Binding(tunnel, address));
        for prefix in self.via.get(&address).cloned().unwrap_or_default() {
            self.drop_shortcut(turn, prefix);
        }
        if entry.replica {
            self.release_replica(turn, entry.nbma);
        }
        if self.is_multipoint() {
            turn.remove(Key::Binding(tunnel, address));
        }
        if !entry.origin.is_configured() {
            turn.save();
            turn.event(Event::Gone { tunnel, address });
        }
    }

    /// Packets went to a next hop. What is used and near its end is asked for again; one request is outstanding at a time,
    /// and the old entry forwards until the answer replaces it.
    pub(crate) fn used(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr) {
        let now = turn.now;
        let Some(entry) = self.cache.get_mut(&address) else { return };
        entry.last_used = Some(now);
        let (origin, expires, holding_time) = (entry.origin, entry.expires, entry.holding_time);
        let is_stale = |expires: Instant, holding| expires.since(now) < stale_below(holding);
        let shortcuts = self.via.get(&address);
        let stale: Vec<_> = shortcuts
            .into_iter()
            .flatten()
            .filter_map(|prefix| self.shortcuts.get(prefix))
            .filter(|s| is_stale(s.expires, s.holding_time))
            .map(|s| s.destination)
            .collect();
        let has_shortcuts = shortcuts.is_some_and(|s| !s.is_empty());
        for destination in stale {
            self.ask(turn, destination);
        }
        // The answer for a shortcut renews its next hop as well.
        if origin == Origin::Cached && !has_shortcuts && expires.is_some_and(|e| is_stale(e, holding_time)) {
            self.ask(turn, address);
        }
    }

    /// Forgets what was learnt, as the operator wants it.
    pub(crate) fn clear(&mut self, turn: &mut Turn<'_>, clear: Clear) {
        let matches = |address: ProtocolAddr| clear.address.is_none_or(|a| a == address);
        let shortcuts: Vec<_> = self
            .shortcuts
            .iter()
            .filter(|(p, s)| {
                matches(s.next_hop)
                    || matches(s.destination)
                    || clear.address.is_some_and(|a| p.contains(a.0))
            })
            .map(|(p, _)| *p)
            .collect();
        for prefix in shortcuts {
            self.drop_shortcut(turn, prefix);
        }
        let learnt = self.cache.iter().filter(|(a, e)| !e.origin.is_configured() && matches(**a));
        for address in learnt.map(|(a, _)| *a).collect::<Vec<_>>() {
            self.forget(turn, address);
        }
        for address in self.asks.keys().copied().filter(|a| matches(*a)).collect::<Vec<_>>() {
            turn.cancel(Timer::Ask(self.name(), address));
            self.asks.remove(&address);
        }
    }
}

/// Refuses addresses that no peer can have.
pub(crate) fn check_peer(cloud: &Cloud, address: ProtocolAddr, nbma: NbmaAddr) -> Result<(), Reject> {
    let ip = address.0;
    let is_host = |ip: std::net::IpAddr| {
        !ip.is_unspecified()
            && !ip.is_multicast()
            && !ip.is_loopback()
            && ip != std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
    };
    if !is_host(ip) || !is_host(nbma.0) || cloud.is_own(address) || cloud.tunnel.nbma == Some(nbma) {
        return Err(Reject::Address);
    }
    Ok(())
}
