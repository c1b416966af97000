//! A pair of child SAs (RFC 7296 §1.3): how it is made, and in which order it is programmed.
//!
//! ```text
//!   initiator of the exchange:  request ── inbound SA ── outbound SA (takes over between two packets) ── the old one is closed
//!   responder:                  inbound SA ── answer ── the peer shows that it has its inbound SA, or time passes ── outbound SA
//! ```
//! So nobody seals by an SA whose other end is not there yet. An outbound SA is put once: a key that was replaced is never put again.

use std::time::Duration;

use model::WorkerId;
use model::ike::EspSuite;
use model::program::{InboundSa, Object, OutboundSa};
use model::sa::{Lease, SaKey, SaMode, Spi};
use model::time::Instant;
use wire::ike::{NotifyType, Payload, Proposal, Selector};

use crate::engine::Engine;
use crate::limits::{OUTBOUND_AFTER, OUTBOUND_FORGOTTEN_AFTER, OUTBOUND_INSTEAD_AFTER};
use crate::path::notify;
use crate::programmed::NOBODY;
use crate::sa::{Sa, find};
use crate::turn::Turn;
use crate::{Event, Profile, Reject, selector, suite};

/// A pair of child SAs.
#[derive(Debug)]
pub(crate) struct Child {
    /// The SPI that we chose: its name.
    pub(crate) inbound: Spi,
    /// The SPI that the peer chose.
    pub(crate) outbound: Spi,
    pub(crate) worker: WorkerId,
    pub(crate) suite: EspSuite,
    pub(crate) at: Instant,
    pub(crate) rekey_at: Instant,
    pub(crate) sealing: Sealing,
    /// We close it: that is asked, or on the list.
    pub(crate) is_closing: bool,
    /// The one in its place, once there is one.
    pub(crate) successor: Option<Spi>,
    /// The peer ought to close it until then.
    pub(crate) close_at: Option<Instant>,
    /// No data plane has it any more.
    pub(crate) is_lost: bool,
    /// It is one more, of a worker (RFC 9611).
    pub(crate) is_additional: bool,
}

/// What became of the outbound SA.
#[derive(Debug)]
pub(crate) enum Sealing {
    /// It waits for the peer's inbound SA.
    Waiting(Box<Waiting>),
    /// It was put, and nothing in its place yet.
    Put,
    /// It never will be; or it was, and another took its place.
    Never,
}

/// An outbound SA that is not put yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    object: OutboundSa,
    /// So long after the last transmission of our answer.
    pub(crate) wait: Duration,
    pub(crate) until: Instant,
}

impl Child {
    /// When it is to be looked at.
    pub(crate) fn due(&self) -> Option<Instant> {
        let rekey = (!self.is_closing && self.successor.is_none()).then_some(self.rekey_at);
        let waiting = match &self.sealing {
            Sealing::Waiting(waiting) => Some(waiting.until),
            _ => None,
        };
        let close = self.close_at.filter(|_| !self.is_closing);
        rekey.into_iter().chain(waiting).chain(close).min()
    }

    /// It carries packets, or is about to.
    pub(crate) fn is_live(&self) -> bool {
        !self.is_closing
            && !self.is_lost
            && self.successor.is_none()
            && !matches!(self.sealing, Sealing::Never)
    }
}

/// What both sides agreed on.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) worker: WorkerId,
    pub(crate) suite: EspSuite,
}

/// Why an answer comes too late: it is another data plane, of fewer workers or places.
pub(crate) const ELSEWHERE: &str = "the data plane that the SA was asked for is gone";

/// Why there is no child: what the peer is told, how it is counted, and in words.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: NotifyType,
    pub(crate) reject: Reject,
    pub(crate) words: String,
}

impl Refusal {
    pub(crate) fn new(kind: NotifyType, reject: Reject, words: impl Into<String>) -> Self {
        Self { kind, reject, words: words.into() }
    }
}

/// What a request for a child says, beside its key exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    proposals: &'a [Proposal],
    theirs: &'a [Selector],
    ours: &'a [Selector],
    is_transport: bool,
}

impl<'a> Wish<'a> {
    /// Of the payloads of a request, or of an answer, in which the initiator is the peer or we are.
    pub(crate) fn of(payloads: &'a [Payload], peer_asks: bool) -> Option<Self> {
        let proposals = find(payloads, |payload| match payload {
            Payload::Sa(proposals) => Some(&proposals[..]),
            _ => None,
        })?;
        let initiator = find(payloads, |payload| match payload {
            Payload::SelectorsInitiator(selectors) => Some(&selectors[..]),
            _ => None,
        })?;
        let responder = find(payloads, |payload| match payload {
            Payload::SelectorsResponder(selectors) => Some(&selectors[..]),
            _ => None,
        })?;
        let (theirs, ours) = if peer_asks { (initiator, responder) } else { (responder, initiator) };
        let is_transport = says(payloads, NotifyType::USE_TRANSPORT_MODE);
        Some(Self { proposals, theirs, ours, is_transport })
    }

    /// Whether the mode is that of the profile.
    fn check_mode(&self, mode: SaMode) -> Result<(), Refusal> {
        if self.is_transport || mode == SaMode::Tunnel {
            return Ok(());
        }
        let words = "peer wants tunnel mode; the profile is for transport mode";
        Err(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Reject::Selectors, words))
    }
}

/// Whether a notification is there.
pub(crate) fn says(payloads: &[Payload], wanted: NotifyType) -> bool {
    payloads.iter().any(|payload| matches!(payload, Payload::Notify { kind, .. } if *kind == wanted))
}

/// The first error among notifications (RFC 7296 §3.10.1: below 16384).
pub(crate) fn error(payloads: &[Payload]) -> Option<(NotifyType, &[u8])> {
    find(payloads, |payload| match payload {
        Payload::Notify { kind, data, .. } if kind.0 < 16384 => Some((*kind, &data[..])),
        _ => None,
    })
}

/// Payloads of a request for a child: proposals, selectors, mode. The nonce and the key exchange come between, where they belong.
pub(crate) fn wished(sa: &Sa, inbound: Spi, keyed: bool) -> (Payload, Vec<Payload>) {
    let (ours, theirs) = selector::proposed(&sa.path);
    let mut rest = vec![Payload::SelectorsInitiator(ours), Payload::SelectorsResponder(theirs)];
    if sa.profile.mode == SaMode::Transport {
        rest.push(notify(NotifyType::USE_TRANSPORT_MODE, Vec::new()));
    }
    rest.push(notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, Vec::new()));
    (Payload::Sa(suite::esp_proposals(&sa.profile.ike.esp, inbound, keyed)), rest)
}

/// Agreeing.
impl Engine {
    /// The worker of the next child of a peer: that of the children it has, so that each takes the place of another; else the emptiest.
    pub(crate) fn worker_for(&self, sa: &Sa) -> Option<WorkerId> {
        let known = self.peers.get(&sa.peer()).and_then(|peer| peer.outbound.first());
        let workers = self.spis.as_ref()?.workers();
        let known = known.map(|outbound| outbound.worker).filter(|worker| worker.0 < workers);
        known.or_else(|| self.spis.as_ref()?.emptiest())
    }

    /// A new inbound SPI.
    pub(crate) fn take_spi(&mut self, worker: WorkerId) -> Option<Spi> {
        self.spis.as_mut()?.take(&mut *self.crypto, worker)
    }

    /// Whether the data plane that is there has the place that was set aside for a child of ours.
    pub(crate) fn is_home(&self, (spi, worker): (Spi, WorkerId)) -> bool {
        self.spis.as_ref().is_some_and(|spis| spis.is_home(spi, worker))
    }

    /// Gives an SPI back that never got an SA.
    pub(crate) fn give_back(&mut self, spi: Spi) {
        if let Some(spis) = &mut self.spis {
            spis.give_back(spi);
        }
    }

    /// As responder: chooses of what the peer wants, and says how it is answered. `sent`: method of its key exchange; `keyed`: whether
    /// there may be one.
    pub(crate) fn agree(
        &mut self,
        sa: &Sa,
        profile: &Profile,
        wish: &Wish<'_>,
        keyed: Option<Option<u16>>,
        worker: Option<WorkerId>,
    ) -> Result<(Agreed, Payload, Vec<Payload>), Refusal> {
        let none = NotifyType::NO_PROPOSAL_CHOSEN;
        wish.check_mode(profile.mode)?;
        let narrowed = selector::narrowed(&sa.path, sa.nat, wish.theirs, wish.ours);
        let (theirs, ours) = narrowed.ok_or_else(|| {
            let words = "peer's traffic selectors do not have GRE between the two of us";
            Refusal::new(NotifyType::TS_UNACCEPTABLE, Reject::Selectors, words)
        })?;
        let no_room =
            || Refusal::new(NotifyType::NO_ADDITIONAL_SAS, Reject::NoRoom, "no place for another SA");
        let worker = worker.or_else(|| self.worker_for(sa)).ok_or_else(no_room)?;
        let inbound = self.take_spi(worker).ok_or_else(no_room)?;
        let (sent, keyed) = (keyed.flatten(), keyed.is_some());
        let chosen = suite::choose_esp(&profile.name, &profile.ike.esp, wish.proposals, sent, inbound, keyed);
        let chosen = chosen.map_err(|words| {
            self.give_back(inbound);
            Refusal::new(none, Reject::NoProposal, words)
        })?;
        let agreed = Agreed { inbound, outbound: chosen.spi, worker, suite: chosen.suite };
        let mut rest = vec![Payload::SelectorsInitiator(theirs), Payload::SelectorsResponder(ours)];
        if profile.mode == SaMode::Transport {
            rest.push(notify(NotifyType::USE_TRANSPORT_MODE, Vec::new()));
        }
        rest.push(notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, Vec::new()));
        Ok((agreed, Payload::Sa(vec![chosen.answer]), rest))
    }

    /// As initiator: whether the answer is one to what we wanted.
    pub(crate) fn agreed(
        &self,
        sa: &Sa,
        wish: &Wish<'_>,
        offered: &[EspSuite],
        keyed: bool,
        (inbound, worker): (Spi, WorkerId),
    ) -> Result<Agreed, Refusal> {
        wish.check_mode(sa.profile.mode)?;
        if wish.is_transport && sa.profile.mode == SaMode::Tunnel {
            let words = "peer answered with transport mode, which it was not offered";
            return Err(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Reject::Selectors, words));
        }
        if !selector::is_answer(&sa.path, sa.nat, wish.ours, wish.theirs) {
            let words = "peer's traffic selectors are not those that it was offered";
            return Err(Refusal::new(NotifyType::TS_UNACCEPTABLE, Reject::Selectors, words));
        }
        let chosen = suite::accept_esp(offered, wish.proposals, keyed);
        let chosen = chosen
            .map_err(|words| Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Reject::NoProposal, words))?;
        Ok(Agreed { inbound, outbound: chosen.spi, worker, suite: chosen.suite })
    }
}

/// Programming.
impl Engine {
    /// A new child of an IKE SA: its inbound SA is put now, its outbound one waits. `keys`: of what comes in, and of what goes out.
    pub(crate) fn add_child(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        agreed: &Agreed,
        (key_in, key_out): (SaKey, SaKey),
        (is_rekey, is_additional): (bool, bool),
    ) {
        let (peer, profile) = (sa.peer(), sa.profile.clone());
        let Agreed { inbound, outbound, worker, suite } = *agreed;
        let lease = Lease { first: 1, last: if suite.esn { u64::MAX } else { u32::MAX.into() } };
        self.put_inbound(
            turn,
            sa.ours,
            InboundSa {
                spi: inbound,
                protection: peer,
                mode: profile.mode,
                key: key_in,
                esn: suite.esn,
                window: profile.replay_window,
                lifetimes: profile.lifetimes,
            },
        );
        let object = OutboundSa {
            protection: peer,
            worker,
            spi: outbound,
            mode: profile.mode,
            key: key_out,
            esn: suite.esn,
            lease,
            lifetimes: profile.lifetimes,
        };
        let before = self.peers.get(&peer).and_then(|programmed| programmed.outbound.first());
        let wait = match before {
            None => OUTBOUND_AFTER,
            Some(before) if before.sa == NOBODY => OUTBOUND_FORGOTTEN_AFTER,
            Some(_) => OUTBOUND_INSTEAD_AFTER,
        };
        let lifetime = Duration::from_secs(profile.ike.child_lifetime.max(10).into());
        let rekey_at = turn.now + self.jittered(lifetime);
        let Some(established) = sa.established_mut() else { return };
        established.childless = None;
        established.used = turn.now;
        established.children.push(Child {
            inbound,
            outbound,
            worker,
            suite,
            at: turn.now,
            rekey_at,
            sealing: Sealing::Waiting(Box::new(Waiting { object, wait, until: turn.now + wait })),
            is_closing: false,
            successor: None,
            close_at: None,
            is_lost: false,
            is_additional,
        });
        turn.event(Event::ChildUp { peer, inbound, outbound, suite, is_rekey });
    }

    /// The peer's inbound SA is there: ours outbound takes over.
    pub(crate) fn seal_by(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, inbound: Spi) {
        let ours = sa.ours;
        let Some(established) = sa.established_mut() else { return };
        let peer = established.peer;
        let Some(child) = established.children.iter_mut().find(|child| child.inbound == inbound) else {
            return;
        };
        if !matches!(child.sealing, Sealing::Waiting(_)) {
            return;
        }
        let Sealing::Waiting(waiting) = std::mem::replace(&mut child.sealing, Sealing::Put) else { return };
        let mut object = waiting.object;
        // The peer may have moved meanwhile.
        object.protection = peer;
        let (worker, spi) = (object.worker, object.spi);
        turn.put(Object::OutboundSa(object));
        self.sealed_by(turn, sa, peer, (worker, spi, ours));
    }

    /// The peer spoke after it had our answers: it has all its inbound SAs (RFC 7296 §2.8).
    pub(crate) fn seal_all(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        for inbound in waiting(sa, |_| true) {
            self.seal_by(turn, sa, inbound);
        }
    }

    /// Takes a child out of an IKE SA. What it still gets is taken for a while if it `lingers`.
    pub(crate) fn drop_child(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        inbound: Spi,
        lingers: bool,
        reason: &str,
    ) {
        let (now, ours) = (turn.now, sa.ours);
        sa.asking.tasks.retain(|task| {
            !matches!(task, crate::sa::Task::Replace(spi) | crate::sa::Task::Delete(spi) if *spi == inbound)
        });
        let Some(established) = sa.established_mut() else { return };
        let Some(at) = established.children.iter().position(|child| child.inbound == inbound) else { return };
        let child = established.children.remove(at);
        let peer = established.peer;
        if established.children.is_empty() {
            established.childless = Some(now);
        }
        // Whoever waits in its place takes it before it goes.
        if matches!(child.sealing, Sealing::Put) && !child.is_lost {
            let next = waiting(sa, |other| other.worker == child.worker);
            if let Some(next) = next.last() {
                self.seal_by(turn, sa, *next);
            }
        }
        if !child.is_lost {
            self.unprogram(turn, (peer, ours), &child, lingers);
        }
        turn.event(Event::ChildDown { peer, inbound, outbound: child.outbound, reason: reason.to_owned() });
    }
}

/// Inbound SPIs of those whose outbound SA waits.
fn waiting(sa: &Sa, is_meant: impl Fn(&Child) -> bool) -> Vec<Spi> {
    let children = sa.established().map_or(&[][..], |established| &established.children[..]);
    let waits = |child: &&Child| matches!(child.sealing, Sealing::Waiting(_)) && is_meant(child);
    children.iter().filter(waits).map(|child| child.inbound).collect()
}
