//! What the data plane has of each peer, whoever put it there: SAs of IKE SAs that live, of IKE SAs that are gone, and of a former life.
//!
//! An SA whose IKE SA is gone without the peer having said so (a new one says INITIAL_CONTACT; a former life of ours made it) is nobody's. It
//! stays until an outbound SA is put in its place; then its inbound ones take what is on the way for [`LINGER`], and go.

use std::net::IpAddr;

use model::WorkerId;
use model::ike::Identity;
use model::program::{InboundSa, Key, Object};
use model::sa::{Direction, Protection, Spi};

use crate::child::{Child, Sealing};
use crate::engine::{Engine, Timer};
use crate::input::Adopted;
use crate::limits::LINGER;
use crate::sa::Sa;
use crate::turn::Turn;
use crate::{Action, Event};

/// Nobody's: in the place of an IKE SA's SPI.
pub(crate) const NOBODY: u64 = 0;

/// What is programmed of a peer, and what was told of it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Its IKE SAs that are established: our SPIs.
    pub(crate) sas: Vec<u64>,
    /// The outbound SA of each worker.
    pub(crate) outbound: Vec<Outbound>,
    /// Inbound SAs, those that linger as well.
    pub(crate) inbound: Vec<Spi>,
    /// What [`Action::Up`] said last.
    pub(crate) told: Option<(Identity, Vec<IpAddr>)>,
}

/// An outbound SA that is programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outbound {
    pub(crate) worker: WorkerId,
    pub(crate) spi: Spi,
    /// Whose: our SPI of the IKE SA, or [`NOBODY`].
    pub(crate) sa: u64,
}

/// An inbound SA that is programmed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inbound {
    pub(crate) peer: Protection,
    /// As [`Outbound::sa`].
    pub(crate) sa: u64,
    pub(crate) lingers: bool,
}

/// The outbound SA with this SPI has lost its place; its key is never put again.
fn spend(sa: &mut Sa, spi: Spi) {
    let children = sa.established_mut().map(|established| &mut established.children);
    let child = children.into_iter().flatten().find(|child| child.outbound == spi);
    child.into_iter().for_each(|child| child.sealing = Sealing::Never);
}

impl Engine {
    pub(crate) fn put_inbound(&mut self, turn: &mut Turn<'_>, sa: u64, object: InboundSa) {
        let (spi, peer) = (object.spi, object.protection);
        self.inbounds.insert(spi, Inbound { peer, sa, lingers: false });
        self.peers.entry(peer).or_default().inbound.push(spi);
        turn.put(Object::InboundSa(object));
    }

    /// An outbound SA was put: who had its place has not any more, and the peer is protected.
    pub(crate) fn sealed_by(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        peer: Protection,
        (worker, spi, ours): (WorkerId, Spi, u64),
    ) {
        let Some(established) = sa.established_mut() else { return };
        let was = established.moved_from.take().filter(|was| *was != peer);
        let now = (established.identity.clone(), established.addresses.clone());
        let programmed = self.peers.entry(peer).or_default();
        let before: Vec<_> =
            programmed.outbound.extract_if(.., |outbound| outbound.worker == worker).collect();
        programmed.outbound.push(Outbound { worker, spi, sa: ours });
        for Outbound { spi, sa: whose, .. } in before {
            if whose == ours {
                spend(sa, spi);
            } else if let Some(other) = self.sas.get_mut(&whose) {
                spend(other, spi);
            }
        }
        let was_told = was.and_then(|was| self.peers.get_mut(&was)).and_then(|old| old.told.take());
        let programmed = self.peers.entry(peer).or_default();
        if programmed.told.as_ref() != Some(&now) {
            let before = programmed.told.replace(now.clone());
            let (identity, addresses) = now;
            let was = was.filter(|_| was_told.is_some()).or_else(|| before.map(|_| peer));
            turn.act(Action::Up { peer, was, identity, addresses });
        }
        self.clear_orphans(turn, peer);
        if let Some(was) = was {
            self.clear_moved(turn, was, ours);
        }
    }

    /// What is nobody's goes: another stands in its place.
    fn clear_orphans(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let Some(programmed) = self.peers.get_mut(&peer) else { return };
        let orphans = programmed.outbound.extract_if(.., |outbound| outbound.sa == NOBODY);
        orphans.for_each(|outbound| turn.remove(Key::OutboundSa(peer, outbound.worker)));
        for spi in programmed.inbound.clone() {
            if self.inbounds.get(&spi).is_some_and(|inbound| inbound.sa == NOBODY && !inbound.lingers) {
                self.linger(turn, spi);
            }
        }
        self.timers.cancel(Timer::Orphans(peer));
    }

    /// The outbound SAs of an IKE SA whose peer was at another place go from there.
    fn clear_moved(&mut self, turn: &mut Turn<'_>, was: Protection, sa: u64) {
        let Some(programmed) = self.peers.get_mut(&was) else { return };
        let moved = programmed.outbound.extract_if(.., |outbound| outbound.sa == sa);
        moved.for_each(|outbound| turn.remove(Key::OutboundSa(was, outbound.worker)));
        self.tidy(turn, was, false);
    }

    /// An inbound SA takes what is on the way, and then goes.
    pub(crate) fn linger(&mut self, turn: &Turn<'_>, spi: Spi) {
        if let Some(inbound) = self.inbounds.get_mut(&spi) {
            inbound.lingers = true;
            self.timers.set(Timer::Linger(spi), turn.now + LINGER);
        }
    }

    /// An inbound SA goes now.
    pub(crate) fn drop_inbound(&mut self, turn: &mut Turn<'_>, spi: Spi) {
        let Some(inbound) = self.inbounds.remove(&spi) else { return };
        self.timers.cancel(Timer::Linger(spi));
        self.give_back(spi);
        turn.remove(Key::InboundSa(spi));
        if let Some(programmed) = self.peers.get_mut(&inbound.peer) {
            programmed.inbound.retain(|other| *other != spi);
        }
        self.tidy(turn, inbound.peer, false);
    }

    /// A child is over.
    pub(crate) fn unprogram(
        &mut self,
        turn: &mut Turn<'_>,
        (peer, sa): (Protection, u64),
        child: &Child,
        lingers: bool,
    ) {
        if lingers {
            self.linger(turn, child.inbound);
        } else {
            self.drop_inbound(turn, child.inbound);
        }
        if let Some(programmed) = self.peers.get_mut(&peer) {
            let is_its = |outbound: &mut Outbound| {
                (outbound.worker, outbound.spi, outbound.sa) == (child.worker, child.outbound, sa)
            };
            let gone = programmed.outbound.extract_if(.., is_its);
            gone.for_each(|outbound| turn.remove(Key::OutboundSa(peer, outbound.worker)));
        }
        self.tidy(turn, peer, false);
    }

    /// Says that a peer is not protected any more if that is so, and forgets a peer of whom there is nothing.
    pub(crate) fn tidy(&mut self, turn: &mut Turn<'_>, peer: Protection, is_dead: bool) {
        let Some(programmed) = self.peers.get_mut(&peer) else { return };
        if programmed.outbound.is_empty() && programmed.told.take().is_some() {
            turn.act(Action::Down { peer, is_dead });
        }
        if programmed.outbound.is_empty() && programmed.inbound.is_empty() && programmed.sas.is_empty() {
            self.peers.remove(&peer);
            self.timers.cancel(Timer::Orphans(peer));
        }
    }

    /// The data plane that had the outbound SAs of a peer is gone.
    pub(crate) fn lose_outbound(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let Some(programmed) = self.peers.get_mut(&peer) else { return };
        for outbound in std::mem::take(&mut programmed.outbound) {
            turn.remove(Key::OutboundSa(peer, outbound.worker));
        }
        self.tidy(turn, peer, false);
    }

    /// SAs of a former life are nobody's, until something stands in their place or their lifetime ends.
    pub(crate) fn adopt(&mut self, turn: &mut Turn<'_>, adopted: Vec<Adopted>) {
        for Adopted { peer, direction, spi, worker } in adopted {
            let Some(profile) = self.profile(&peer) else {
                turn.remove(match direction {
                    Direction::Inbound => Key::InboundSa(spi),
                    Direction::Outbound => Key::OutboundSa(peer, worker),
                });
                continue;
            };
            let lifetime = std::time::Duration::from_secs(profile.ike.child_lifetime.into());
            let programmed = self.peers.entry(peer).or_default();
            match direction {
                Direction::Inbound if self.inbounds.contains_key(&spi) => {}
                Direction::Inbound => {
                    self.inbounds.insert(spi, Inbound { peer, sa: NOBODY, lingers: false });
                    programmed.inbound.push(spi);
                    if let Some(spis) = &mut self.spis {
                        spis.reserve(spi);
                    }
                }
                Direction::Outbound if programmed.outbound.iter().any(|other| other.worker == worker) => {}
                Direction::Outbound => programmed.outbound.push(Outbound { worker, spi, sa: NOBODY }),
            }
            self.timers.set(Timer::Orphans(peer), turn.now + lifetime);
            self.want_adopted(turn, peer);
        }
    }

    /// SAs that are nobody's have ended.
    pub(crate) fn drop_orphans(&mut self, turn: &mut Turn<'_>, peer: Protection, is_dead: bool) {
        let Some(programmed) = self.peers.get_mut(&peer) else { return };
        let orphans = programmed.outbound.extract_if(.., |outbound| outbound.sa == NOBODY);
        orphans.for_each(|outbound| turn.remove(Key::OutboundSa(peer, outbound.worker)));
        let inbound = programmed.inbound.clone();
        // Before anything else says that it is not protected any more, and not why.
        self.tidy(turn, peer, is_dead);
        for spi in inbound {
            if self.inbounds.get(&spi).is_some_and(|inbound| inbound.sa == NOBODY) {
                self.drop_inbound(turn, spi);
            }
        }
    }

    /// The IKE SA goes, and its children with it (RFC 7296 §1.4.1). `lingers`: the peer knows, and what it sent before is still taken.
    pub(crate) fn drop_children(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, ending: Ending, reason: &str) {
        let ours = sa.ours;
        let Some(established) = sa.established_mut() else { return };
        let (peer, moved_from) = (established.peer, established.moved_from.take());
        let children = std::mem::take(&mut established.children);
        let identity = Some(established.identity.clone());
        if ending != Ending::Replaced {
            self.seal_others(turn, peer);
        }
        for child in &children {
            if !child.is_lost {
                match ending {
                    Ending::Told => self.unprogram_quietly(turn, (peer, ours), child, true),
                    Ending::Dead | Ending::Cut => self.unprogram_quietly(turn, (peer, ours), child, false),
                    Ending::Replaced => self.orphan(peer, ours, child),
                }
            }
            let (inbound, outbound) = (child.inbound, child.outbound);
            turn.event(Event::ChildDown { peer, inbound, outbound, reason: reason.to_owned() });
        }
        if let Some(was) = moved_from {
            self.clear_moved(turn, was, ours);
        }
        if let Some(programmed) = self.peers.get_mut(&peer) {
            programmed.sas.retain(|other| *other != ours);
            if programmed.sas.is_empty() && ending != Ending::Replaced {
                self.drop_orphans(turn, peer, ending == Ending::Dead);
            }
        }
        self.tidy(turn, peer, ending == Ending::Dead);
        turn.event(Event::IkeDown { peer, identity, reason: reason.to_owned() });
    }

    /// As [`Self::unprogram`], without a word of what that means for the peer.
    fn unprogram_quietly(
        &mut self,
        turn: &mut Turn<'_>,
        (peer, sa): (Protection, u64),
        child: &Child,
        lingers: bool,
    ) {
        let told = self.peers.get_mut(&peer).and_then(|programmed| programmed.told.take());
        self.unprogram(turn, (peer, sa), child, lingers);
        if let Some(told) = told {
            self.peers.entry(peer).or_default().told = Some(told);
        }
    }

    /// A child's SAs are nobody's now.
    fn orphan(&mut self, peer: Protection, sa: u64, child: &Child) {
        if let Some(inbound) = self.inbounds.get_mut(&child.inbound) {
            inbound.sa = NOBODY;
        }
        let outbound = self.peers.get_mut(&peer).map(|programmed| &mut programmed.outbound);
        let outbound = outbound.into_iter().flatten().filter(|outbound| outbound.sa == sa);
        outbound.for_each(|outbound| outbound.sa = NOBODY);
    }
}

/// How an IKE SA goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both sides know.
    Told,
    /// The peer does not answer any more.
    Dead,
    /// At once, whatever the peer thinks.
    Cut,
    /// The peer has another one with us, and forgot this one: its SAs stay until others are in their place.
    Replaced,
}
