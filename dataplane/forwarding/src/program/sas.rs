//! SAs: from what was said to what workers are told.
//!
//! ```text
//! InboundSa, OutboundSa ─► place ─► what is programmed there, what was told ─► the orders between, as the queues have room
//!                            │
//!                            └─ a peer's slot opens when all workers have been told: what packets take to it is built anew and published;
//!                               it closes first, and its SAs go when all workers have acknowledged that
//! ```
//!
//! A place that waits has no order of its own: what is told is what is programmed when its turn comes. So a queue that is full costs a
//! number for each SA and no key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::WorkerId;
use model::program::{InboundSa, Key, Object, OutboundSa, Tunnel};
use model::report::Report;
use model::sa::{Direction, Lease, Protection, SaMode, Spi};
use model::state::sa::Sa;

use super::Program;
use super::build::Change;
use super::ledger::{Domain, GivenInbound, GivenOutbound, Place, Sealer};
use crate::sa::{Change as Told, InboundCount, NewInbound, NewOutbound, Order};

/// How packets to a peer are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sealing {
    /// The slot of its outbound SA.
    pub(super) slot: u32,
    pub(super) mode: SaMode,
}

impl Program {
    /// The worker that an SPI names.
    pub(super) fn opener(&self, spi: Spi) -> u16 {
        (usize::from(spi.worker()) % self.workers.len().max(1)) as u16
    }

    /// The number of a tunnel's domain; 0: nothing protects it.
    pub(super) fn domain_of(&self, tunnel: &Tunnel) -> u16 {
        Domain::of_tunnel(tunnel).and_then(|domain| self.ledger.domain(&domain)).unwrap_or(0)
    }

    /// How packets of a protected tunnel to a peer are sealed; `None`: they cannot be.
    pub(super) fn sealing(&self, tunnel: &Tunnel, remote: IpAddr, port: u16) -> Option<Sealing> {
        let slot = self.ledger.slot(&Domain::of_tunnel(tunnel)?.peer(remote, port))?;
        let peer = self.ledger.peer(slot).filter(|peer| peer.open)?;
        Some(Sealing { slot, mode: peer.mode })
    }

    pub(super) fn touch_inbound(&mut self, spi: Spi) {
        if let Some(sa) = inbound(self.objects.winner(Key::InboundSa(spi))) {
            self.ledger.number(Domain::of(&sa.protection));
        }
        self.ledger.queue(Place::Inbound(self.opener(spi), spi.slot()));
    }

    /// The SAs of a peer changed. One that has none any more is closed to packets at once.
    pub(super) fn touch_outbound(&mut self, protection: Protection, change: &mut Change) {
        let mode = self.objects.outbound_of(protection).next().map(|sa| sa.mode);
        let slot = match (mode, self.ledger.slot(&protection)) {
            (None, None) => return,
            (_, Some(slot)) => slot,
            (Some(mode), None) => self.ledger.settle(protection, mode),
        };
        let next = self.publisher.generation() + 1;
        let Some(peer) = self.ledger.peer_mut(slot) else { return };
        let before = (peer.open, peer.mode);
        peer.open &= mode.is_some();
        peer.mode = mode.unwrap_or(peer.mode);
        let after = (peer.open, peer.mode);
        if before != after {
            peer.gate = next;
            self.reach(protection, slot, after.0, change);
        }
        self.ledger.queue(Place::Outbound(slot));
    }

    /// What is sealed for a peer is another thing from now on.
    fn reach(&mut self, protection: Protection, slot: u32, open: bool, change: &mut Change) {
        let domain = Domain::of(&protection);
        let key = (self.ledger.number(domain), protection.remote.0, protection.port);
        let protections = Arc::make_mut(&mut self.protections);
        if open {
            protections.insert(key, slot);
        } else {
            protections.remove(&key);
        }
        change.protections = true;
        let tunnels = self.tunnels().filter(|tunnel| Domain::of_tunnel(tunnel) == Some(domain));
        let ids = tunnels.filter_map(|tunnel| self.ids.get(&tunnel.name));
        let ways = ids.flat_map(|id| self.ways_to(*id, protection.remote.0, Some(protection.port)));
        change.targets.extend(ways);
    }

    /// Tells workers what there is to tell, as far as their queues have room.
    pub(super) fn give_orders(&mut self, change: &mut Change) {
        for sender in &mut self.orders {
            sender.erase_returned();
        }
        for _ in 0..self.ledger.waiting() {
            if !self.orders.iter().any(|sender| sender.has_room()) {
                break;
            }
            let Some(place) = self.ledger.next() else { break };
            let done = match place {
                Place::Inbound(worker, slot) => self.give_inbound(worker, slot),
                Place::Outbound(slot) => self.give_outbound(slot, change),
            };
            if !done {
                self.ledger.queue(place);
            }
        }
    }

    /// Tells a worker of the inbound SA in a slot; whether that is done.
    fn give_inbound(&mut self, worker: u16, slot: u32) -> bool {
        let wanted = self.objects.inbound_in(slot).find(|sa| self.opener(sa.spi) == worker);
        let given = self.ledger.inbound.get(&(worker, slot));
        let (told, now) = match (wanted, given) {
            (None, None) => return true,
            (None, Some(_)) => (Some(Told::Inbound(Box::new(None))), None),
            (Some(sa), given) => {
                let now = GivenInbound {
                    identity: self.ledger.identity_of_inbound(sa),
                    domain: self.ledger.domain(&Domain::of(&sa.protection)).unwrap_or(0),
                    remote: sa.protection.remote.0,
                    port: sa.protection.port,
                    limits: sa.lifetimes.into(),
                };
                if given == Some(&now) {
                    return true;
                }
                // The window stays with the key, and its size: what came once comes never again.
                let told = if given.is_some_and(|given| given.identity == now.identity) {
                    let GivenInbound { domain, remote, port, .. } = now;
                    let lifetimes = sa.lifetimes;
                    Some(Told::InboundPeer { spi: sa.spi.value(), domain, remote, port, lifetimes })
                } else if self.has_room(worker) {
                    self.new_inbound(sa, &now)
                } else {
                    return false;
                };
                (told, Some(now))
            }
        };
        let Some(told) = told else { return true };
        if !self.give(worker, slot, told) {
            return false;
        }
        match now {
            Some(now) => self.ledger.inbound.insert((worker, slot), now),
            None => self.ledger.inbound.remove(&(worker, slot)),
        };
        true
    }

    /// Tells all workers who seals for a peer; whether that is done.
    fn give_outbound(&mut self, slot: u32, change: &mut Change) -> bool {
        let Some(peer) = self.ledger.peer(slot) else { return true };
        let (protection, gate) = (peer.protection, peer.gate);
        let lowest = self.objects.outbound_of(protection).next().map(|sa| sa.worker.0);
        if lowest.is_none() && gate > self.publisher.acknowledged() {
            return false;
        }
        // Who seals from now on first, who does not any more last.
        let mut done = true;
        for stage in [Self::give_own, Self::give_elsewhere, Self::take_own] {
            for worker in 0..self.workers.len() as u16 {
                done &= stage(self, worker, slot, protection, lowest);
            }
        }
        if !done {
            return false;
        }
        let generation = self.publisher.generation();
        let Some(peer) = self.ledger.peer_mut(slot) else { return true };
        if lowest.is_none() {
            self.ledger.retire(slot, generation, &self.orders);
        } else if !peer.open {
            peer.open = true;
            self.reach(protection, slot, true, change);
        }
        true
    }

    /// Gives a worker its own SA of a peer, if it is to have one; whether that is done.
    fn give_own(&mut self, worker: u16, slot: u32, protection: Protection, _: Option<u16>) -> bool {
        let Some(sa) = outbound(self.objects.winner(Key::OutboundSa(protection, WorkerId(worker)))) else {
            return true;
        };
        let given = self.sealer(slot, worker).own;
        let (first, last) = (sa.lease.first, sa.lease.last.min(last_of_all(sa.esn)));
        let mut now = GivenOutbound {
            identity: self.ledger.identity_of_outbound(sa),
            since: first,
            last,
            limits: sa.lifetimes.into(),
        };
        let told = match given {
            // Where there is a gap before the lease, somebody else may have had what is in it.
            Some(given) if given.identity == now.identity && first <= given.last.saturating_add(1) => {
                now.last = given.last.max(last);
                now.since = given.since;
                if now.last > given.last {
                    let count = self.lines[usize::from(worker)].outbound(slot, sa.spi);
                    now.since = count.map_or(given.since, |count| count.next);
                }
                if (now.last, &now.limits) == (given.last, &given.limits) {
                    return true;
                }
                Some(Told::Lease { spi: sa.spi.value(), last: now.last, lifetimes: sa.lifetimes })
            }
            _ if !self.has_room(worker) => return false,
            given => {
                // The same key otherwise used: none of the numbers that it could have used.
                let same = given.filter(|given| {
                    (given.identity.spi, given.identity.key) == (now.identity.spi, now.identity.key)
                });
                now.since = same.map_or(first, |given| first.max(given.last.saturating_add(1)));
                self.new_outbound(sa, &now)
            }
        };
        let Some(told) = told else { return true };
        if !self.give(worker, slot, told) {
            return false;
        }
        self.sealer_mut(slot, worker, |sealer| sealer.own = Some(now));
        true
    }

    /// Tells a worker without an SA of a peer who has one; whether that is done.
    fn give_elsewhere(
        &mut self,
        worker: u16,
        slot: u32,
        protection: Protection,
        lowest: Option<u16>,
    ) -> bool {
        let is_own = self.objects.winner(Key::OutboundSa(protection, WorkerId(worker))).is_some();
        if is_own || self.sealer(slot, worker).elsewhere == lowest {
            return true;
        }
        if !self.give(worker, slot, Told::Elsewhere(lowest)) {
            return false;
        }
        self.sealer_mut(slot, worker, |sealer| sealer.elsewhere = lowest);
        true
    }

    /// Takes a worker's own SA of a peer away, if it is to have none; whether that is done.
    fn take_own(&mut self, worker: u16, slot: u32, protection: Protection, _: Option<u16>) -> bool {
        let is_own = self.objects.winner(Key::OutboundSa(protection, WorkerId(worker))).is_some();
        if is_own || self.sealer(slot, worker).own.is_none() {
            return true;
        }
        if !self.give(worker, slot, Told::Outbound(Box::new(None))) {
            return false;
        }
        self.sealer_mut(slot, worker, |sealer| sealer.own = None);
        true
    }

    fn sealer(&self, slot: u32, worker: u16) -> Sealer {
        let peer = self.ledger.peer(slot);
        peer.and_then(|peer| peer.sealers.get(usize::from(worker))).cloned().unwrap_or_default()
    }

    fn sealer_mut(&mut self, slot: u32, worker: u16, change: impl FnOnce(&mut Sealer)) {
        let peer = self.ledger.peer_mut(slot);
        if let Some(sealer) = peer.and_then(|peer| peer.sealers.get_mut(usize::from(worker))) {
            change(sealer);
        }
    }

    fn has_room(&self, worker: u16) -> bool {
        self.orders.get(usize::from(worker)).is_some_and(|sender| sender.has_room())
    }

    /// Gives an order; `false`: there is no room for it now.
    fn give(&mut self, worker: u16, slot: u32, change: Told) -> bool {
        let sender = self.orders.get_mut(usize::from(worker));
        sender.is_some_and(|sender| sender.give(Order { slot, change }).is_ok())
    }

    /// `None`: the provider cannot be used, which the check has refused.
    fn new_inbound(&self, sa: &InboundSa, now: &GivenInbound) -> Option<Told> {
        let key = aead::Key::new(self.provider, sa.key.key()).ok()?;
        Some(Told::Inbound(Box::new(Some(NewInbound {
            spi: sa.spi.value(),
            salt: sa.key.salt(),
            domain: now.domain,
            remote: now.remote,
            port: now.port,
            mode: sa.mode,
            esn: sa.esn,
            window: sa.window.next_multiple_of(64),
            lifetimes: sa.lifetimes,
            key: Some(key),
        }))))
    }

    /// As [`Program::new_inbound`].
    fn new_outbound(&self, sa: &OutboundSa, now: &GivenOutbound) -> Option<Told> {
        let key = aead::Key::new(self.provider, sa.key.key()).ok()?;
        Some(Told::Outbound(Box::new(Some(NewOutbound {
            spi: sa.spi.value(),
            salt: sa.key.salt(),
            mode: sa.mode,
            esn: sa.esn,
            lease: Lease { first: now.since, last: now.last },
            lifetimes: sa.lifetimes,
            key: Some(key),
        }))))
    }

    /// Goes on with what workers' queues had no room for, or what had to wait for them, and erases the keys that came back. Whether there is
    /// more. To be called every few milliseconds, and more often while an answer waits for [`Program::are_orders_taken`].
    pub fn pump(&mut self) -> bool {
        self.reclaim();
        let mut change = Change::default();
        self.give_orders(&mut change);
        self.carry_out(change);
        self.ledger.waiting() > 0
    }

    /// Whether every worker has carried out all that there is to tell it of SAs.
    #[must_use]
    pub fn are_orders_taken(&self) -> bool {
        self.ledger.waiting() == 0 && self.orders.iter().all(|sender| sender.are_taken())
    }

    /// The SAs by which workers seal for the peer of a slot, in order of worker.
    pub(super) fn spis(&self, slot: u32) -> Vec<Spi> {
        let sealers = self.ledger.peer(slot).into_iter().flat_map(|peer| &peer.sealers);
        sealers.filter_map(|sealer| Some(sealer.own.as_ref()?.identity.spi)).collect()
    }

    /// All SAs with what they have carried: inbound ones in order of SPI, then outbound ones in order of peer and worker.
    pub fn sas(&self) -> impl Iterator<Item = Sa> {
        let mut last = None;
        let claims = self.objects.all().map(|(_, claim)| &claim.object);
        // Of several owners the first counts.
        let winners = claims.filter(move |object| last.replace(object.key()) != Some(object.key()));
        winners.filter_map(|object| match object {
            Object::InboundSa(sa) => Some(self.inbound_show(sa)),
            Object::OutboundSa(sa) => Some(self.outbound_show(sa)),
            _ => None,
        })
    }

    fn inbound_show(&self, sa: &InboundSa) -> Sa {
        let worker = self.opener(sa.spi);
        let count = self.lines.get(usize::from(worker)).and_then(|lines| lines.inbound(sa.spi));
        let InboundCount { top, packets, bytes, replayed, forged, reached } = count.unwrap_or_default();
        Sa {
            direction: Direction::Inbound,
            spi: sa.spi,
            protection: sa.protection,
            mode: sa.mode,
            suite: sa.key.suite(),
            esn: sa.esn,
            worker: WorkerId(worker),
            packets,
            bytes,
            sequence: top,
            leased: None,
            replayed,
            bad_icv: forged,
            reached,
            refused: None,
            age: None,
            rekey_in: None,
        }
    }

    fn outbound_show(&self, sa: &OutboundSa) -> Sa {
        let slot = self.ledger.slot(&sa.protection);
        let lines = self.lines.get(usize::from(sa.worker.0));
        let count = slot.and_then(|slot| lines?.outbound(slot, sa.spi)).unwrap_or_default();
        let own = slot.and_then(|slot| self.sealer(slot, sa.worker.0).own);
        Sa {
            direction: Direction::Outbound,
            spi: sa.spi,
            protection: sa.protection,
            mode: sa.mode,
            suite: sa.key.suite(),
            esn: sa.esn,
            worker: sa.worker,
            packets: count.packets,
            bytes: count.bytes,
            sequence: if count.packets > 0 { count.next.saturating_sub(1) } else { 0 },
            leased: Some(own.map_or(sa.lease.last, |own| own.last)),
            replayed: 0,
            bad_icv: 0,
            reached: count.reached,
            refused: None,
            age: None,
            rekey_in: None,
        }
    }

    /// What SAs want of the control plane: leases that run low, and lifetimes that were reached. To be asked about once a second.
    pub fn sa_reports(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        for ((worker, _), given) in &self.ledger.inbound {
            let spi = given.identity.spi;
            let Some(count) = self.lines[usize::from(*worker)].inbound(spi) else { continue };
            let Some(reached) = count.reached else { continue };
            let Some(sa) = inbound(self.objects.winner(Key::InboundSa(spi))) else { continue };
            let (protection, direction) = (sa.protection, Direction::Inbound);
            reports.push(Report::SaLifetime { protection, spi, direction, reached });
        }
        for (slot, peer) in self.ledger.peers() {
            let protection = peer.protection;
            for (worker, sealer) in peer.sealers.iter().enumerate() {
                let Some(given) = &sealer.own else { continue };
                let spi = given.identity.spi;
                let Some(count) = self.lines[worker].outbound(slot, spi) else { continue };
                if let Some(reached) = count.reached {
                    let direction = Direction::Outbound;
                    reports.push(Report::SaLifetime { protection, spi, direction, reached });
                }
                if given.is_low(count.next) {
                    let worker = WorkerId(worker as u16);
                    reports.push(Report::LeaseLow { protection, worker, spi, next: count.next });
                }
            }
        }
        reports
    }

    /// The inbound SAs by which authentic packets came since this was asked last, once a second; `None`: none did.
    pub fn sas_used(&mut self) -> Option<Report> {
        let mut heard = HashMap::with_capacity(self.ledger.inbound.len());
        let mut spis = Vec::new();
        for ((worker, _), given) in &self.ledger.inbound {
            let spi = given.identity.spi;
            let Some(count) = self.lines[usize::from(*worker)].inbound(spi) else { continue };
            // One that came anew counts from 0.
            let before = self.ledger.heard.get(&spi).copied().unwrap_or(0);
            if count.packets != 0 && count.packets != before {
                spis.push(spi);
            }
            heard.insert(spi, count.packets);
        }
        self.ledger.heard = heard;
        spis.sort_unstable();
        (!spis.is_empty()).then_some(Report::SaUsed { spis })
    }
}

impl GivenOutbound {
    /// Whether more than half of the sequence numbers are used that it had when it was last given some. What has all that there are
    /// can be given no more.
    fn is_low(&self, next: u64) -> bool {
        let left = |from: u64| (u128::from(self.last) + 1).saturating_sub(from.into());
        self.last < last_of_all(self.identity.esn) && left(next) * 2 < left(self.since).max(1)
    }
}

/// The last sequence number that an SA can use (RFC 4303 §3.3.3): one more is a number still.
const fn last_of_all(esn: bool) -> u64 {
    if esn { u64::MAX - 1 } else { u32::MAX as u64 }
}

fn inbound(object: Option<&Object>) -> Option<&InboundSa> {
    match object {
        Some(Object::InboundSa(sa)) => Some(sa),
        _ => None,
    }
}

fn outbound(object: Option<&Object>) -> Option<&OutboundSa> {
    match object {
        Some(Object::OutboundSa(sa)) => Some(sa),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
