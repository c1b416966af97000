//! Shortcuts: routes to what is behind a peer, straight to that peer.
//!
//! A shortcut leaves aside the route by way of the server; it ends with its holding time, with its next hop's binding, with
//! a purge, or when the route that it leaves aside is not there any more or leads elsewhere. Traffic then takes that route,
//! and the next redirect makes another shortcut.

use model::program::{Hop, Key, Object, Path, Route};
use model::time::{HoldingTime, Instant};
use model::{Prefix, ProtocolAddr};

use crate::cloud::Cloud;
use crate::limits::USED_FOR;
use crate::overlap::overlapping;
use crate::purge::host_bits;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject, To};

/// A shortcut; its prefix is its key.
#[derive(Debug, Clone)]
pub(crate) struct Shortcut {
    pub(crate) next_hop: ProtocolAddr,
    /// The address that was asked for, and is asked for again.
    pub(crate) destination: ProtocolAddr,
    /// Next hop of the route that it leaves aside.
    pub(crate) instead_of: ProtocolAddr,
    /// Its next hop registered it with us: no shortcut, but a route like one.
    pub(crate) registered: bool,
    pub(crate) created: Instant,
    pub(crate) holding_time: HoldingTime,
    pub(crate) expires: Instant,
}

/// A next hop that a resolution gave for an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Better {
    pub(crate) destination: ProtocolAddr,
    pub(crate) next_hop: ProtocolAddr,
    /// Length of the prefix that the answer holds for; `None`: the address alone.
    pub(crate) length: Option<u8>,
    pub(crate) holding_time: HoldingTime,
}

impl Cloud {
    /// The next hop on this tunnel that the routes have for an address, and the length of the prefix.
    pub(crate) fn route_by_tunnel(
        &self,
        turn: &Turn<'_>,
        address: ProtocolAddr,
    ) -> Option<(ProtocolAddr, u8)> {
        let found = turn.routes.lookup(self.tunnel.table, address)?;
        match found.to {
            To::Tunnel(hop) if hop.interface == self.name() => {
                Some((ProtocolAddr(hop.next_hop), found.prefix.length()))
            }
            _ => None,
        }
    }

    /// Installs what a resolution found, if the routes do not lead there anyway.
    pub(crate) fn take_shortcut(&mut self, turn: &mut Turn<'_>, better: Better) -> Result<(), Reject> {
        let Better { destination, next_hop, holding_time, .. } = better;
        let Some((instead_of, route_length)) = self.route_by_tunnel(turn, destination) else {
            return Err(Reject::Unreachable);
        };
        // A peer of a tunnel with host addresses only has its host route by its binding.
        if instead_of == next_hop || (destination == next_hop && self.is_off_link(next_hop.0)) {
            return Ok(());
        }
        // No shorter than the route it leaves aside, or it would draw traffic that has another way; and never everything.
        let host = host_bits(destination);
        let length = better.length.unwrap_or(host).max(route_length);
        let length = if length == 0 { host } else { length };
        let prefix = Prefix::new(destination.0, length).ok_or(Reject::Malformed)?;
        // Where the client itself says that it is.
        if self.shortcuts.get(&prefix).is_some_and(|s| s.registered) {
            return Ok(());
        }
        let is_new = self.shortcuts.get(&prefix).is_none_or(|s| s.next_hop != next_hop);
        if is_new
            && !self.shortcuts.contains_key(&prefix)
            && self.shortcuts.len() >= turn.common.limits.shortcuts
        {
            return Err(Reject::NoRoom);
        }
        let created = self.shortcuts.get(&prefix).filter(|_| !is_new).map_or(turn.now, |s| s.created);
        let expires = turn.now + holding_time.duration();
        let shortcut =
            Shortcut { next_hop, destination, instead_of, registered: false, created, holding_time, expires };
        self.install_shortcut(turn, prefix, shortcut);
        if is_new {
            turn.event(Event::ShortcutUp { tunnel: self.name(), prefix, next_hop });
        }
        // The answer for this address was for another prefix before: that one is not true any more.
        let outdated: Vec<_> = overlapping(&self.shortcuts, prefix, |p| *p)
            .into_iter()
            .filter(|p| {
                let is_outdated = |s: &Shortcut| s.destination == destination && !s.registered;
                *p != prefix && self.shortcuts.get(p).is_some_and(is_outdated)
            })
            .collect();
        for prefix in outdated {
            self.drop_shortcut(turn, prefix);
        }
        Ok(())
    }

    /// Programs a shortcut in place of the one that its prefix had.
    pub(crate) fn install_shortcut(&mut self, turn: &mut Turn<'_>, prefix: Prefix, shortcut: Shortcut) {
        let hop = Hop { interface: self.name(), next_hop: shortcut.next_hop.0 };
        turn.put(Object::Route(Route {
            table: self.tunnel.table,
            prefix,
            path: Path::Via(hop),
            expires_in: Some(shortcut.expires.since(turn.now)),
        }));
        turn.common.timers.set(Timer::Shortcut(self.name(), prefix), shortcut.expires);
        turn.save();
        self.via.entry(shortcut.next_hop).or_default().insert(prefix);
        self.registered_prefixes += usize::from(shortcut.registered);
        let (next_hop, old) = (shortcut.next_hop, self.shortcuts.insert(prefix, shortcut));
        self.registered_prefixes -= usize::from(old.as_ref().is_some_and(|o| o.registered));
        if let Some(old) = old.filter(|o| o.next_hop != next_hop) {
            self.unlink(old.next_hop, prefix);
        }
    }

    /// Removes a shortcut.
    pub(crate) fn drop_shortcut(&mut self, turn: &mut Turn<'_>, prefix: Prefix) {
        let Some(shortcut) = self.shortcuts.remove(&prefix) else { return };
        self.unlink(shortcut.next_hop, prefix);
        if shortcut.registered {
            self.registered_prefixes -= 1;
            self.withdraw(turn, shortcut.next_hop, prefix);
        }
        turn.cancel(Timer::Shortcut(self.name(), prefix));
        turn.remove(Key::Route(self.tunnel.table, prefix));
        turn.event(Event::ShortcutDown { tunnel: self.name(), prefix });
        turn.save();
    }

    /// Removes a shortcut whose answer is not true any more. If packets went by it lately, another answer is asked for at once: until it is
    /// there they go by the server, which may not redirect them again for a while.
    pub(crate) fn replace_shortcut(&mut self, turn: &mut Turn<'_>, prefix: Prefix) {
        let Some((next_hop, destination)) = self.shortcuts.get(&prefix).map(|s| (s.next_hop, s.destination))
        else {
            return;
        };
        let now = turn.now;
        let used = self.cache.get(&next_hop).and_then(|e| e.last_used);
        self.drop_shortcut(turn, prefix);
        if used.is_some_and(|at| now.since(at) <= USED_FOR)
            && self.route_by_tunnel(turn, destination).is_some_and(|(hop, _)| self.is_server(hop))
        {
            self.ask(turn, destination);
        }
    }

    fn unlink(&mut self, next_hop: ProtocolAddr, prefix: Prefix) {
        if let Some(prefixes) = self.via.get_mut(&next_hop) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.via.remove(&next_hop);
            }
        }
    }

    /// Routes to these prefixes changed: shortcuts instead of a route that is not what it was are dropped.
    pub(crate) fn drop_outdated_shortcuts(&mut self, turn: &mut Turn<'_>, changed: &[Prefix]) {
        for prefix in changed {
            for key in overlapping(&self.shortcuts, *prefix, |p| *p) {
                let shortcut = self.shortcuts.get(&key).filter(|s| !s.registered);
                let Some(shortcut) = shortcut else { continue };
                let route = self.route_by_tunnel(turn, shortcut.destination);
                let holds =
                    route.is_some_and(|(hop, length)| hop == shortcut.instead_of && length <= key.length());
                if !holds {
                    self.replace_shortcut(turn, key);
                }
            }
        }
    }
}
