//! An IKE SA is established, beside others with the same peer, or in their place.
//!
//! Both may have begun at once. Then both IKE SAs come up, and both sides know the nonces: the one whose initiator had the lower nonce is
//! closed by it, once the other carries a child. A peer that begins when the other IKE SA is up already has another reason: it forgot that one
//! (and says so by INITIAL_CONTACT, RFC 7296 §2.4), or it replaces it and will close it.

use std::time::Duration;

use model::sa::Protection;
use model::time::Instant;

use crate::Event;
use crate::child::{Child, Sealing};
use crate::credential::Proven;
use crate::engine::Engine;
use crate::keymat::{IkeKeys, Side};
use crate::limits::CLOSE_INSTEAD;
use crate::programmed::Ending;
use crate::sa::{Established, Proving, Sa, Stage, Task};
use crate::turn::Turn;
use crate::want::names;

/// Of two that were begun at once ours goes after this, if it is the one.
const YIELD_AFTER: Duration = Duration::from_millis(500);

impl Established {
    pub(crate) fn new(
        peer: Protection,
        proven: Proven,
        nonce: Vec<u8>,
        now: Instant,
        rekey_at: Instant,
    ) -> Self {
        Self {
            peer,
            identity: proven.identity,
            addresses: proven.addresses,
            by: proven.by,
            nonce,
            children: Vec::new(),
            at: now,
            rekey_at,
            used: now,
            childless: Some(now),
            is_ending: false,
            close_at: None,
            yields_to: None,
            rival: None,
            rival_of: None,
            moved_from: None,
            moved_at: Instant::default(),
            probed: Instant::default(),
            is_full: false,
        }
    }

    /// Whether a child of it carries packets, or is about to.
    pub(crate) fn is_carrying(&self) -> bool {
        self.children.iter().any(Child::is_live)
    }
}

impl Engine {
    /// The peer has proved who it is. `is_only`: it says that there is no other IKE SA between us.
    pub(crate) fn establish(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        proven: Proven,
        stage: &Proving,
        is_only: bool,
    ) {
        let peer = sa.path.protection(sa.profile.name, sa.nat);
        let identity = proven.identity.clone();
        let rekey_at = turn.now + self.ike_lifetime(sa);
        let established = Established::new(peer, proven, stage.initiator_nonce.clone(), turn.now, rekey_at);
        sa.stage = Stage::Established(Box::new(established));
        sa.heard = turn.now;
        self.counts.established += 1;
        let others = self.replaced_by(turn, sa, is_only);
        for other in others {
            self.with(turn, other, |engine, turn, other| {
                engine.finish(turn, other, Ending::Replaced, "the peer has another one with us");
            });
        }
        self.peers.entry(peer).or_default().sas.push(sa.ours);
        let suite = sa.keys.as_ref().map(IkeKeys::suite);
        if let Some(suite) = suite {
            let is_initiator = sa.side == Side::Initiator;
            turn.event(Event::IkeUp { peer, identity, suite, is_initiator, is_rekey: false });
        }
    }

    /// Until an IKE SA is rekeyed.
    pub(crate) fn ike_lifetime(&mut self, sa: &Sa) -> Duration {
        self.jittered(Duration::from_secs(sa.profile.ike.lifetime.max(10).into()))
    }

    /// IKE SAs that are over because of this new one: with who was at its address before, and, if it says so, all others with the same.
    fn replaced_by(&self, turn: &Turn<'_>, sa: &Sa, is_only: bool) -> Vec<u64> {
        let Some(new) = sa.established() else { return Vec::new() };
        let first = Protection { port: 0, ..new.peer };
        let last = Protection { port: u16::MAX, ..new.peer };
        let at_its_address = self.peers.range(first..=last).flat_map(|(_, programmed)| &programmed.sas);
        let is_replaced = |other: &&u64| {
            let Some(other) = self.sas.get(*other) else { return false };
            let Some(old) = other.established() else { return false };
            let is_same = old.identity == new.identity;
            if old.peer == new.peer && !is_same {
                return true;
            }
            is_only && is_same && !are_crossing(turn.now, sa, other)
        };
        at_its_address.filter(is_replaced).copied().collect()
    }

    /// What becomes of other IKE SAs with the same peer, now that this one has a child.
    pub(crate) fn settle_crossing(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let (now, ours) = (turn.now, sa.ours);
        let Some(new) = sa.established() else { return };
        let nonce = new.nonce.clone();
        let others = self.peers.get(&new.peer).map(|peer| peer.sas.clone()).unwrap_or_default();
        self.drop_attempts(turn, sa);
        for other in others.into_iter().filter(|other| *other != ours) {
            let Some(old) = self.sas.get(&other) else { continue };
            let Some(established) = old.established() else { continue };
            let crossing = are_crossing(now, sa, old);
            let (is_carrying, old_side) = (established.is_carrying(), old.side);
            if crossing && nonce < established.nonce {
                let close_at = now + if sa.side == Side::Initiator { YIELD_AFTER } else { CLOSE_INSTEAD };
                yields(sa, other, close_at, is_carrying);
            } else {
                // Of two that we began ourselves nobody else closes the older one.
                let is_ours = old_side == Side::Initiator && (crossing || sa.side == Side::Initiator);
                let close_at = now + if is_ours { YIELD_AFTER } else { CLOSE_INSTEAD };
                self.with(turn, other, |_, _, old| yields(old, ours, close_at, crossing));
            }
        }
    }

    /// Attempts of ours at the same peer that have not come as far as to say who we are, are given up without a word.
    fn drop_attempts(&mut self, turn: &mut Turn<'_>, sa: &Sa) {
        let Some(peer) = sa.established().map(|established| established.peer) else { return };
        for wanted in names(peer) {
            let attempt = self.wants.get(&wanted).and_then(|wanted| wanted.attempt);
            let attempt = attempt.filter(|attempt| *attempt != sa.ours);
            if let Some(attempt) = attempt
                && self.sas.get(&attempt).is_some_and(|sa| matches!(sa.stage, Stage::Opening(_)))
            {
                self.with(turn, attempt, |_, _, attempt| attempt.stage = Stage::Over);
            }
        }
        for wanted in [Some(peer), sa.wanted_as].into_iter().flatten() {
            self.attempt_succeeded(wanted);
        }
    }

    /// An IKE SA goes: others with the same peer take over.
    pub(crate) fn seal_others(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let others = self.peers.get(&peer).map(|programmed| programmed.sas.clone()).unwrap_or_default();
        for other in others {
            self.with(turn, other, |engine, turn, sa| {
                engine.seal_all(turn, sa);
                let Some(established) = sa.established_mut().filter(|other| !other.is_ending) else { return };
                // Those that were never to seal would have to now.
                if established.yields_to.take().is_some() {
                    established.close_at = None;
                }
                let is_mute = |child: &&Child| matches!(child.sealing, Sealing::Never) && !child.is_closing;
                let mute = established.children.iter().find(is_mute).map(|child| child.inbound);
                if let Some(mute) = mute.filter(|_| !established.is_carrying()) {
                    sa.add(Task::Replace(mute));
                }
            });
        }
    }
}

/// Whether both were begun at once: by different sides, and the peer's before ours was up.
fn are_crossing(now: Instant, new: &Sa, old: &Sa) -> bool {
    let up = |sa: &Sa| sa.established().map_or(now, |established| established.at);
    match (new.side, old.side) {
        (Side::Initiator, Side::Responder) => old.begun <= up(new),
        (Side::Responder, Side::Initiator) => new.begun <= up(old),
        _ => false,
    }
}

/// This one goes for another one's sake. Its outbound SA is not put over the other's (`is_mute`).
fn yields(sa: &mut Sa, to: u64, close_at: Instant, is_mute: bool) {
    let Some(established) = sa.established_mut().filter(|established| !established.is_ending) else { return };
    established.yields_to = Some(to);
    established.close_at = Some(close_at);
    if is_mute {
        for child in &mut established.children {
            if matches!(child.sealing, Sealing::Waiting(_)) {
                child.sealing = Sealing::Never;
            }
        }
    }
}
