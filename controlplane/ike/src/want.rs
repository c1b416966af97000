//! Who is wanted: peers that somebody here wants to talk to, and what became of that.
//!
//! ```text
//!   Want ──▶ attempt ──▶ established: forgotten, but for servers
//!              │ failed
//!              ▼
//!            rest (1 s, 2, 4 .. 60 s) ──▶ wanted again meanwhile, or a server: attempt
//!              └──▶ forgotten a minute later
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use model::sa::Protection;
use model::time::Instant;
use wire::ike::NAT_PORT;

use crate::engine::{Engine, Timer};
use crate::limits::{PACE_PER_SECOND, REST_FIRST, REST_LONGEST, REST_MEMORY, REST_UNBELIEVED, backoff};
use crate::turn::Turn;

/// Somebody who is wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// It is not let go when it is idle, and tried for ever.
    pub(crate) is_server: bool,
    /// The attempt that is under way: our SPI.
    pub(crate) attempt: Option<u64>,
    /// Attempts that failed one after the other.
    failures: u32,
    /// No attempt before this.
    rests_until: Option<Instant>,
    /// It was wanted while it rested.
    is_asked: bool,
    /// Since when it is wanted.
    pub(crate) since: Instant,
    /// Why the last attempt failed.
    pub(crate) failure: Option<String>,
}

impl Wanted {
    /// Whether nothing is under way.
    pub(crate) fn is_waiting(&self) -> bool {
        self.attempt.is_none() && (self.rests_until.is_some() || self.is_asked || self.is_server)
    }

    /// When the next attempt is, if there is one.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        self.rests_until.filter(|_| self.is_asked || self.is_server)
    }
}

/// The names that a peer without a port translator has: of one of whom nothing is known yet the port is 0, and if either side turns out to be
/// behind a NAT, or says so, it is 4500. So it may be wanted by both, and there is one attempt for both.
fn other_name(peer: &Protection) -> Option<Protection> {
    match peer.port {
        0 => Some(Protection { port: NAT_PORT, ..*peer }),
        NAT_PORT => Some(Protection { port: 0, ..*peer }),
        _ => None,
    }
}

/// Whom something that happened to a peer is about: itself, whoever is at its address, and its other name.
pub(crate) fn names(peer: Protection) -> BTreeSet<Protection> {
    [Some(peer), Some(Protection { port: 0, ..peer }), other_name(&peer)].into_iter().flatten().collect()
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No answer, or a refusal that may end.
    Refused,
    /// It does not believe us, or we do not believe it.
    Unbelieved,
}

impl Engine {
    /// Whether there is an established IKE SA with this peer; of port 0, with anybody at its address.
    pub(crate) fn is_protected(&self, peer: &Protection) -> bool {
        self.peers_at(peer).any(|peer| !peer.sas.is_empty())
    }

    /// What is programmed of a peer; of port 0, of all at its address.
    fn peers_at(&self, peer: &Protection) -> impl Iterator<Item = &crate::programmed::Peer> {
        let last = Protection { port: if peer.port == 0 { u16::MAX } else { peer.port }, ..*peer };
        self.peers.range(*peer..=last).map(|(_, programmed)| programmed)
    }

    /// Whether a peer is not let go when it is idle.
    pub(crate) fn is_server(&self, peer: &Protection) -> bool {
        let unnamed = Protection { port: 0, ..*peer };
        [*peer, unnamed].iter().any(|peer| self.wants.get(peer).is_some_and(|wanted| wanted.is_server))
    }

    pub(crate) fn want(&mut self, turn: &mut Turn<'_>, peer: Protection, is_server: bool) {
        let Some(profile) = self.profile(&peer) else { return };
        let is_known = self.wants.contains_key(&peer);
        if !is_known && self.wants.len() >= profile.ike.limits.sas as usize {
            self.counts.reject(crate::Reject::NoRoom);
            return;
        }
        if self.is_protected(&peer) {
            self.want_child(turn, peer);
            if !is_server && !is_known {
                return;
            }
        }
        let new = Wanted { since: turn.now, ..Wanted::default() };
        let wanted = self.wants.entry(peer).or_insert(new);
        wanted.is_server = is_server;
        wanted.is_asked = true;
        self.want_again(turn, peer);
    }

    /// A peer with whom there is an IKE SA, and maybe no child: it is to have one.
    fn want_child(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let sas: Vec<_> =
            self.peers_at(&peer).flat_map(|programmed| programmed.sas.iter().copied()).collect();
        let has_child = |ours: &u64| {
            let sa = self.sas.get(ours).and_then(|sa| sa.established());
            sa.is_some_and(|established| !established.children.is_empty())
        };
        if !sas.iter().any(has_child)
            && let Some(ours) = sas.first()
        {
            self.with(turn, *ours, |engine, _, sa| engine.without_child(sa, true));
        }
    }

    /// Begins with a peer that is wanted, if nothing is under way and it does not rest.
    pub(crate) fn want_again(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let is_protected = self.is_protected(&peer);
        let other = other_name(&peer).and_then(|other| self.wants.get(&other));
        let is_on_the_way = other.is_some_and(|other| other.attempt.is_some());
        let Some(profile) = self.profile(&peer) else { return };
        let Some(wanted) = self.wants.get_mut(&peer) else { return };
        if is_protected {
            wanted.is_asked = false;
            if !wanted.is_server && wanted.rests_until.is_none() {
                self.wants.remove(&peer);
            }
            return;
        }
        let is_due = wanted.rests_until.is_none_or(|until| until <= turn.now);
        if wanted.attempt.is_some() || !is_due || self.spis.is_none() {
            return;
        }
        wanted.rests_until = None;
        // What becomes of that counts for this one.
        wanted.is_asked = is_on_the_way;
        if is_on_the_way {
            return;
        }
        if let Some(ours) = self.begin(turn, peer, profile)
            && let Some(wanted) = self.wants.get_mut(&peer)
        {
            wanted.attempt = Some(ours);
            self.timers.cancel(Timer::Want(peer));
        }
    }

    /// A peer that a former life had SAs with: it is wanted, some of them at a time.
    pub(crate) fn want_adopted(&mut self, turn: &Turn<'_>, peer: Protection) {
        let nth = u32::try_from(self.wants.len()).unwrap_or(u32::MAX).saturating_add(1);
        let new = Wanted { since: turn.now, ..Wanted::default() };
        let wanted = self.wants.entry(peer).or_insert(new);
        if wanted.attempt.is_none() && wanted.rests_until.is_none() {
            let at = turn.now + Duration::from_secs(1) * nth / PACE_PER_SECOND;
            wanted.rests_until = Some(at);
            wanted.is_asked = true;
            self.timers.set(Timer::Want(peer), at);
        }
    }

    /// A rest is over, or the memory of it.
    pub(crate) fn rested(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let Some(wanted) = self.wants.get_mut(&peer) else { return };
        if wanted.attempt.is_some() {
            return;
        }
        if wanted.is_asked || wanted.is_server {
            self.want_again(turn, peer);
        } else if wanted.rests_until.take().is_some() {
            self.timers.set(Timer::Want(peer), turn.now + REST_MEMORY);
        } else {
            self.wants.remove(&peer);
        }
    }

    /// An attempt came to nothing.
    pub(crate) fn attempt_failed(
        &mut self,
        turn: &Turn<'_>,
        (peer, ours): (Protection, u64),
        failure: Failure,
        reason: &str,
    ) {
        let first = match failure {
            Failure::Refused => REST_FIRST,
            Failure::Unbelieved => REST_UNBELIEVED,
        };
        let Some(wanted) = self.wants.get_mut(&peer).filter(|wanted| wanted.attempt == Some(ours)) else {
            return;
        };
        wanted.attempt = None;
        wanted.failure = Some(reason.to_owned());
        let rest = backoff(first, wanted.failures, REST_LONGEST);
        let failures = wanted.failures.saturating_add(1);
        wanted.failures = failures;
        wanted.is_asked = false;
        self.rest(turn, peer, rest);
        let Some(other) = other_name(&peer) else { return };
        if let Some(waiting) = self.wants.get_mut(&other).filter(|other| other.is_waiting()) {
            waiting.failures = failures;
            self.rest(turn, other, rest);
        }
    }

    fn rest(&mut self, turn: &Turn<'_>, peer: Protection, rest: Duration) {
        let until = turn.now + self.jittered(rest);
        if let Some(wanted) = self.wants.get_mut(&peer) {
            wanted.rests_until = Some(until);
            self.timers.set(Timer::Want(peer), until);
        }
    }

    /// An attempt succeeded, or the peer's did.
    pub(crate) fn attempt_succeeded(&mut self, peer: Protection) {
        for peer in names(peer) {
            let Some(wanted) = self.wants.get_mut(&peer) else { continue };
            wanted.attempt = None;
            wanted.failure = None;
            wanted.failures = 0;
            wanted.rests_until = None;
            wanted.is_asked = false;
            let is_server = wanted.is_server;
            self.timers.cancel(Timer::Want(peer));
            if !is_server {
                self.wants.remove(&peer);
            }
        }
    }

    /// The last IKE SA with a peer is gone: a server is tried again soon.
    pub(crate) fn lost(&mut self, turn: &Turn<'_>, peer: Protection) {
        for peer in names(peer) {
            let is_idle = |wanted: &&Wanted| wanted.is_server && wanted.attempt.is_none();
            if self.wants.get(&peer).filter(is_idle).is_some() && !self.is_protected(&peer) {
                self.rest(turn, peer, REST_FIRST);
            }
        }
    }

    /// Nobody rests any more: the operator wants it tried.
    pub(crate) fn forgive(&mut self, turn: &mut Turn<'_>, peer: Protection) {
        let Some(wanted) = self.wants.get_mut(&peer) else { return };
        wanted.failures = 0;
        if wanted.rests_until.take().is_some() && (wanted.is_server || wanted.is_asked) {
            self.want_again(turn, peer);
        }
    }
}
