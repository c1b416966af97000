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
//!    static, nhs: as the configuration says; nothing learnt replaces them, and what is registered beside them ends by itself
//! ```
//!
//! A cached entry in use is asked for again before its time is over (`used`), and forwards meanwhile. What is being asked
//! for, or could not be resolved, is in `resolution`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use model::program::{Binding, Key, Object};
use model::state::nhrp::{EntryFlags, EntryType};
use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr};

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
    /// Gets multicast because it is registered.
    pub(crate) replica: bool,
    pub(crate) mtu: u16,
    pub(crate) created: Instant,
    /// Holding time as it was told.
    pub(crate) holding_time: HoldingTime,
    /// When it ends. Of one that is configured, only what its client registered ends; `None`: it did not.
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

    /// Whether its client registered it, whatever else is known of it.
    pub(crate) const fn is_registered(&self) -> bool {
        matches!(self.origin, Origin::Dynamic) || (self.origin.is_configured() && self.expires.is_some())
    }

    /// When it is gone; `None`: never.
    pub(crate) const fn ends(&self) -> Option<Instant> {
        if self.origin.is_configured() { None } else { self.expires }
    }

    pub(crate) fn flags(&self, now: Instant) -> EntryFlags {
        EntryFlags {
            authoritative: self.authoritative,
            implicit: self.implicit,
            registered: self.is_registered(),
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
    pub(crate) fn is_full(&self, address: ProtocolAddr) -> bool {
        self.cache.len() >= self.tunnel.nhrp.limits.entries as usize && !self.cache.contains_key(&address)
    }

    /// Takes an entry in place of the one that was there, and programs it. Its age, and that it is in use, stay those of the
    /// old one if it says the same. Where it says otherwise, whoever we told the old one is told.
    pub(crate) fn install(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr, mut entry: Entry) {
        self.heard.remove(&address);
        let old = self.cache.remove(&address);
        let same_place = old.as_ref().filter(|o| o.nbma == entry.nbma);
        if let Some(old) = same_place.filter(|o| o.origin == entry.origin) {
            entry.created = old.created;
            entry.last_used = old.last_used;
        }
        // The configuration learns of a client that is registered already.
        if let Some(old) = same_place.filter(|o| o.is_registered())
            && entry.origin.is_configured()
            && entry.expires.is_none()
        {
            entry = Entry { origin: entry.origin, replica: false, created: entry.created, ..old.clone() };
        }
        entry.replica = entry.is_registered() && self.replicates_to_clients();
        let is_moved = old.as_ref().is_some_and(|o| o.nbma != entry.nbma);
        let was_replica = old.as_ref().filter(|o| o.replica).map(Entry::peer);
        if was_replica != entry.replica.then(|| entry.peer()) {
            if entry.replica {
                self.acquire_replica(turn, entry.peer());
            }
            if let Some(peer) = was_replica {
                self.release_replica(turn, peer);
            }
        }
        let timer = Timer::Binding(self.name(), address);
        match entry.expires {
            Some(at) => turn.common.timers.set(timer, at),
            None => turn.cancel(timer),
        }
        turn.save();
        self.registered_clients += usize::from(entry.origin == Origin::Dynamic);
        self.registered_clients -= usize::from(old.is_some_and(|o| o.origin == Origin::Dynamic));
        self.program_binding(turn, address, &entry);
        self.reach(turn, address, &entry);
        self.cache.insert(address, entry);
        self.wake(turn, address);
        if is_moved {
            self.withdraw(turn, address, Prefix::host(address.0));
        }
    }

    /// The holding time of a binding is over, or that of what its client registered.
    pub(crate) fn binding_expired(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr) {
        if self.cache.get(&address).is_some_and(|e| e.origin.is_configured()) {
            self.end_registration(turn, address);
        } else {
            self.forget(turn, address);
        }
    }

    /// A client that the configuration knows took leave, or fell silent. Where it is remains known.
    pub(crate) fn end_registration(&mut self, turn: &mut Turn<'_>, client: ProtocolAddr) {
        let tunnel = self.name();
        let Some(entry) = self.cache.get_mut(&client) else { return };
        if !entry.origin.is_configured() || !entry.is_registered() {
            return;
        }
        let configured = Entry::configured(entry.origin, entry.nbma, entry.created);
        let old = std::mem::replace(entry, configured);
        entry.last_used = old.last_used;
        turn.cancel(Timer::Binding(tunnel, client));
        if old.replica {
            self.release_replica(turn, old.peer());
        }
        turn.save();
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
            expires_in: entry.ends().map(|at| at.since(turn.now)),
            port: entry.port.unwrap_or(0),
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
            self.release_replica(turn, entry.peer());
        }
        self.registered_clients -= usize::from(entry.origin == Origin::Dynamic);
        self.withdraw(turn, address, Prefix::host(address.0));
        if self.is_multipoint() {
            turn.remove(Key::Binding(tunnel, address));
            self.lose_reach(turn, address);
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
            .filter(|s| !s.registered && is_stale(s.expires, s.holding_time))
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
        self.heard.retain(|address, _| !matches(*address));
        for address in self.asks.keys().copied().filter(|a| matches(*a)).collect::<Vec<_>>() {
            turn.cancel(Timer::Ask(self.name(), address));
            self.asks.remove(&address);
        }
    }
}

/// Refuses addresses that no peer can have.
pub(crate) fn check_peer(cloud: &Cloud, address: ProtocolAddr, nbma: NbmaAddr) -> Result<(), Reject> {
    if !is_host(address.0) || !is_host(nbma.0) || cloud.is_own(address) || cloud.tunnel.nbma == Some(nbma) {
        return Err(Reject::Address);
    }
    Ok(())
}

/// Whether a host can have an address.
pub(crate) fn is_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}
