//! Rekeying an IKE SA (RFC 7296 §1.3.2, §2.18), both sides: a new one takes its children and their work, and the old one is closed by who began.
//! With an additional key exchange an IKE_FOLLOWUP_KE completes it (RFC 9370 §2.2.4).
//!
//! Both may begin at once (RFC 7296 §2.8.2). Then there are two new ones and four nonces; the one that was made with the lowest is closed by who
//! asked for it, the other one has the children, and the old one is closed by who asked for that.

use std::time::Duration;

use model::ike::IkeSuite;
use wire::ike::{Exchange, NotifyType, Payload};

use crate::child::error;
use crate::credential::Proven;
use crate::crypto::Secret;
use crate::engine::Engine;
use crate::init::{key_exchange, nonce, wanted_group};
use crate::keymat::{IkeKeys, Seeds, Side};
use crate::limits::{CLOSE_INSTEAD, NONCE, RESTARTS, TEMPORARY};
use crate::path::notify;
use crate::receive::Opened;
use crate::sa::{Answering, Asked, AskedFollowup, AskedRekey, Asking, Established, Sa, Stage, Task, find};
use crate::turn::Turn;
use crate::{Event, Reject, suite};

/// What could not be rekeyed is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// A new IKE SA on its way: what its keys are made from.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) ours: u64,
    pub(crate) theirs: u64,
    pub(crate) side: Side,
    pub(crate) suite: IkeSuite,
    pub(crate) shared: Vec<Secret>,
    pub(crate) initiator_nonce: Vec<u8>,
    pub(crate) responder_nonce: Vec<u8>,
}

impl Draft {
    fn lowest(&self) -> Vec<u8> {
        self.initiator_nonce.clone().min(self.responder_nonce.clone())
    }
}

/// As responder: IKE_FOLLOWUP_KE is awaited, and says so by this.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) draft: Draft,
    pub(crate) link: Vec<u8>,
}

/// What links the exchanges of one rekeying (RFC 9370 §2.2.4).
fn link(payloads: &[Payload]) -> Option<&[u8]> {
    find(payloads, |payload| match payload {
        Payload::Notify { kind: NotifyType::ADDITIONAL_KEY_EXCHANGE, data, .. } => Some(&data[..]),
        _ => None,
    })
}

fn proposals(payloads: &[Payload]) -> Option<&[wire::ike::Proposal]> {
    find(payloads, |payload| match payload {
        Payload::Sa(proposals) => Some(&proposals[..]),
        _ => None,
    })
}

/// As initiator.
impl Engine {
    pub(crate) fn ask_rekey(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let Some(established) = sa.established() else { return };
        if established.is_ending || established.close_at.is_some() {
            return;
        }
        let present = sa.keys.as_ref().map(|keys| keys.suite().group);
        let suites = &sa.profile.ike.proposals;
        let present = present.filter(|group| suites.iter().any(|suite| suite.group == *group));
        let Some(group) = present.or_else(|| suites.first().map(|suite| suite.group)) else { return };
        let ours = self.new_spi();
        self.ask_rekey_with(turn, sa, ours, group, 0);
    }

    fn ask_rekey_with(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        ours: u64,
        group: model::ike::Group,
        restarts: u8,
    ) {
        let Ok(begun) = self.crypto.begin(group) else { return };
        let nonce = self.random(NONCE);
        let payloads = [
            Payload::Sa(suite::proposals(&sa.profile.ike.proposals, Some(ours))),
            Payload::Nonce(nonce.clone()),
            Payload::KeyExchange { method: suite::method(group), data: begun.public.clone() },
        ];
        let asked = Asked::Rekey(Box::new(AskedRekey { ours, nonce, begun, restarts }));
        self.ask(turn, sa, Exchange::CREATE_CHILD_SA, &payloads, asked);
    }

    pub(crate) fn rekey_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        asked: AskedRekey,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let payloads = &opened.payloads;
        if let Some((kind, data)) = error(payloads) {
            let group = (kind == NotifyType::INVALID_KE_PAYLOAD && asked.restarts < RESTARTS)
                .then(|| wanted_group(data))
                .flatten();
            let suites = &sa.profile.ike.proposals;
            if let Some(group) = group.filter(|group| suites.iter().any(|suite| suite.group == *group)) {
                self.ask_rekey_with(turn, sa, asked.ours, group, asked.restarts + 1);
                return Ok(());
            }
            return self.rekey_refused(turn, sa, kind);
        }
        let AskedRekey { ours, nonce: initiator_nonce, begun, .. } = asked;
        let chosen = proposals(payloads).map(|answer| suite::accept(&sa.profile.ike.proposals, answer, true));
        let (Some(Ok(chosen)), Some(responder_nonce), Some((method, public))) =
            (chosen, nonce(payloads), key_exchange(payloads))
        else {
            return self.rekey_broken(turn, sa, "peer's answer to the rekeying makes no sense");
        };
        let is_its = chosen.suite.group == begun.group && method == suite::method(begun.group);
        let shared = is_its.then(|| self.crypto.finish(begun, public));
        let (Some(Ok(shared)), Some(theirs)) = (shared, chosen.spi) else {
            return self.rekey_broken(turn, sa, "peer's public value in the rekeying is none");
        };
        let draft = Draft {
            ours,
            theirs,
            side: Side::Initiator,
            suite: chosen.suite,
            shared: vec![shared],
            initiator_nonce,
            responder_nonce: responder_nonce.to_vec(),
        };
        let Some(additional) = chosen.suite.additional else {
            self.rekeyed(turn, sa, draft);
            return Ok(());
        };
        let (Some(link), Ok(begun)) = (link(payloads), self.crypto.begin(additional)) else {
            return self.rekey_broken(turn, sa, "peer's answer lacks the additional key exchange");
        };
        let payloads = [
            Payload::KeyExchange { method: suite::method(additional), data: begun.public.clone() },
            notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link.to_vec()),
        ];
        let asked = Asked::Followup(Box::new(AskedFollowup { draft, begun }));
        self.ask(turn, sa, Exchange::IKE_FOLLOWUP_KE, &payloads, asked);
        Ok(())
    }

    pub(crate) fn followup_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        asked: AskedFollowup,
        opened: &Opened,
    ) -> Result<(), Reject> {
        if let Some((kind, _)) = error(&opened.payloads) {
            return self.rekey_refused(turn, sa, kind);
        }
        let AskedFollowup { mut draft, begun } = asked;
        let method = suite::method(begun.group);
        let public = key_exchange(&opened.payloads).filter(|(sent, _)| *sent == method);
        let Some(Ok(shared)) = public.map(|(_, public)| self.crypto.finish(begun, public)) else {
            return self.rekey_broken(turn, sa, "peer's public value in the rekeying is none");
        };
        draft.shared.push(shared);
        self.rekeyed(turn, sa, draft);
        Ok(())
    }

    /// There is no new one, or only the peer's.
    fn rekey_refused(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, kind: NotifyType) -> Result<(), Reject> {
        if let Some((theirs, _)) = sa.established_mut().and_then(|established| established.rival.take()) {
            self.with(turn, theirs, |_, _, theirs| settled(theirs));
            self.retire(turn, sa, false);
            return Ok(());
        }
        let is_temporary = kind == NotifyType::TEMPORARY_FAILURE;
        let at = turn.now + self.jittered(if is_temporary { TEMPORARY } else { TRY_AGAIN });
        if let Some(established) = sa.established_mut() {
            established.rekey_at = at;
        }
        if !is_temporary {
            let words = format!("peer refused to rekey the IKE SA: {}", crate::show::notify_name(kind));
            let identity = sa.established().map(|established| established.identity.clone());
            self.failed(turn, Some(sa), sa.path.remote, identity, words);
        }
        Ok(())
    }

    /// The peer has a new one, and we cannot have it: both have to begin again.
    fn rekey_broken(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, words: &str) -> Result<(), Reject> {
        let identity = sa.established().map(|established| established.identity.clone());
        self.failed(turn, Some(sa), sa.path.remote, identity, words);
        self.end(turn, sa, words);
        Err(Reject::KeyExchange)
    }

    /// As initiator we have a new one: whose is it to close (RFC 7296 §2.8.2)?
    fn rekeyed(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, draft: Draft) {
        let lowest = draft.lowest();
        let was_ending = sa.established().is_none_or(|established| established.is_ending);
        let mut new = self.drafted(turn, sa, draft);
        if was_ending {
            // We closed the old one meanwhile; the peer has the new one, and is told the same of that.
            self.end(turn, &mut new, "closed");
            return self.settle(turn, new);
        }
        let rival = sa.established_mut().and_then(|established| established.rival.take());
        match rival {
            Some((theirs, their_lowest)) if lowest < their_lowest => {
                self.with(turn, theirs, |_, _, theirs| settled(theirs));
                self.end(turn, &mut new, "the peer rekeyed at the same time");
                self.retire(turn, sa, false);
            }
            rival => {
                if let Some((theirs, _)) = rival {
                    self.with(turn, theirs, |engine, turn, theirs| {
                        settled(theirs);
                        engine.inherit(theirs, &mut new);
                        engine.retire(turn, theirs, false);
                    });
                }
                self.inherit(sa, &mut new);
                self.retire(turn, sa, true);
            }
        }
        self.settle(turn, new);
    }
}

/// As responder.
impl Engine {
    pub(crate) fn rekey_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let (payloads, path) = (&opened.payloads, &opened.path);
        let exchange = Exchange::CREATE_CHILD_SA;
        let pending = sa.asking.pending.as_ref().map(|pending| &pending.asked);
        // RFC 7296 §2.25.2: not while it is being closed, nor while children are being made or closed by us.
        let is_busy = matches!(pending, Some(Asked::Child(_) | Asked::Delete(_)));
        let is_leaving = sa.established().is_none_or(|established| {
            established.is_ending || established.close_at.is_some() || established.rival.is_some()
        });
        if is_busy || is_leaving || sa.answering.draft.is_some() {
            self.refuse(turn, sa, path, exchange, NotifyType::TEMPORARY_FAILURE);
            return Ok(());
        }
        let all = (proposals(payloads), nonce(payloads), key_exchange(payloads));
        let (Some(offered), Some(initiator_nonce), Some((method, public))) = all else {
            self.refuse(turn, sa, path, exchange, NotifyType::INVALID_SYNTAX);
            return Err(Reject::Incomplete);
        };
        let (ours, profile) = (self.new_spi(), sa.profile.clone());
        let chosen = suite::choose(&profile.name, &profile.ike.proposals, offered, Some(method), Some(ours));
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(words) => {
                let identity = sa.established().map(|established| established.identity.clone());
                self.failed(turn, Some(sa), path.remote, identity, words);
                self.refuse(turn, sa, path, exchange, NotifyType::NO_PROPOSAL_CHOSEN);
                return Err(Reject::NoProposal);
            }
        };
        let wanted = suite::method(chosen.suite.group);
        if method != wanted {
            let payload = notify(NotifyType::INVALID_KE_PAYLOAD, wanted.to_be_bytes().to_vec());
            self.answer(turn, sa, path, exchange, &[payload]);
            return Err(Reject::KeyExchange);
        }
        let answered = self.crypto.answer(chosen.suite.group, public);
        let (Ok((data, shared)), Some(theirs)) = (answered, chosen.spi) else {
            self.refuse(turn, sa, path, exchange, NotifyType::INVALID_SYNTAX);
            return Err(Reject::KeyExchange);
        };
        let draft = Draft {
            ours,
            theirs,
            side: Side::Responder,
            suite: chosen.suite,
            shared: vec![shared],
            initiator_nonce: initiator_nonce.to_vec(),
            responder_nonce: self.random(NONCE),
        };
        let mut answer = vec![
            Payload::Sa(vec![chosen.answer]),
            Payload::Nonce(draft.responder_nonce.clone()),
            Payload::KeyExchange { method, data },
        ];
        if chosen.suite.additional.is_some() {
            let link = self.random(8);
            answer.push(notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, link.clone()));
            sa.answering.draft = Some(Box::new(Awaited { draft, link }));
            self.answer(turn, sa, path, exchange, &answer);
        } else {
            self.answer(turn, sa, path, exchange, &answer);
            self.rekeyed_by_peer(turn, sa, draft);
        }
        Ok(())
    }

    pub(crate) fn followup_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let (payloads, path) = (&opened.payloads, &opened.path);
        let exchange = Exchange::IKE_FOLLOWUP_KE;
        let awaited = sa.answering.draft.take();
        let awaited = awaited.filter(|awaited| link(payloads) == Some(&awaited.link[..]));
        let Some(Awaited { mut draft, .. }) = awaited.map(|awaited| *awaited) else {
            // RFC 9370 §2.2.4: it is not there any more.
            self.refuse(turn, sa, path, exchange, NotifyType(STATE_NOT_FOUND));
            return Err(Reject::Unexpected);
        };
        let group = draft.suite.additional;
        let exchanged = group.zip(key_exchange(payloads)).filter(|(g, (m, _))| suite::method(*g) == *m);
        let answered = exchanged.map(|(group, (_, public))| self.crypto.answer(group, public));
        let (Some(Ok((data, shared))), Some(group)) = (answered, group) else {
            self.refuse(turn, sa, path, exchange, NotifyType::INVALID_SYNTAX);
            return Err(Reject::KeyExchange);
        };
        draft.shared.push(shared);
        let payload = Payload::KeyExchange { method: suite::method(group), data };
        self.answer(turn, sa, path, exchange, &[payload]);
        self.rekeyed_by_peer(turn, sa, draft);
        Ok(())
    }

    /// As responder we have a new one. Its peer goes on with it; but if we are rekeying as well, that may change.
    fn rekeyed_by_peer(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, draft: Draft) {
        let lowest = draft.lowest();
        let mut new = self.drafted(turn, sa, draft);
        sa.asking.tasks.retain(|task| *task != Task::Rekey);
        self.inherit(sa, &mut new);
        if sa.is_rekeying() {
            let (old, ours) = (sa.ours, new.ours);
            if let Some(established) = sa.established_mut() {
                established.rival = Some((ours, lowest));
            }
            if let Some(established) = new.established_mut() {
                established.rival_of = Some(old);
            }
        } else {
            self.retire(turn, sa, false);
        }
        self.settle(turn, new);
    }
}

/// STATE_NOT_FOUND (RFC 9370 §4.2).
const STATE_NOT_FOUND: u16 = 47;

/// What was between two is settled.
fn settled(sa: &mut Sa) {
    if let Some(established) = sa.established_mut() {
        established.rival_of = None;
    }
}

/// Both.
impl Engine {
    /// A new IKE SA in an old one's place; its children come by [`Self::inherit`].
    fn drafted(&mut self, turn: &mut Turn<'_>, old: &Sa, draft: Draft) -> Box<Sa> {
        let (initiator_spi, responder_spi) = match draft.side {
            Side::Initiator => (draft.ours, draft.theirs),
            Side::Responder => (draft.theirs, draft.ours),
        };
        let seeds = Seeds {
            initiator_nonce: &draft.initiator_nonce,
            responder_nonce: &draft.responder_nonce,
            initiator_spi,
            responder_spi,
        };
        let shared: Vec<_> = draft.shared.iter().map(|shared| &shared[..]).collect();
        let keys = old.keys.as_ref();
        let keys = keys.map(|keys| IkeKeys::rekeyed(&*self.crypto, keys, draft.suite, &shared, &seeds));
        let peer = old.peer();
        let rekey_at = turn.now + self.ike_lifetime(old);
        let stage = old.established().map_or(Stage::Over, |established| {
            let proven = Proven {
                identity: established.identity.clone(),
                addresses: established.addresses.clone(),
                by: established.by.clone(),
            };
            let nonce = draft.initiator_nonce.clone();
            let mut new = Established::new(peer, proven, nonce, turn.now, rekey_at);
            new.used = established.used;
            new.is_full = established.is_full;
            Stage::Established(Box::new(new))
        });
        if let Some(new) = stage_established(&stage) {
            let is_initiator = draft.side == Side::Initiator;
            let (identity, suite) = (new.identity.clone(), draft.suite);
            turn.event(Event::IkeUp { peer, identity, suite, is_initiator, is_rekey: true });
        }
        self.counts.rekeyed += 1;
        self.peers.entry(peer).or_default().sas.push(draft.ours);
        Box::new(Sa {
            ours: draft.ours,
            theirs: draft.theirs,
            side: draft.side,
            path: old.path,
            first: old.first,
            nat: old.nat,
            profile: old.profile.clone(),
            keys,
            stage,
            asking: Asking::default(),
            answering: Answering::default(),
            takes_fragments: old.takes_fragments,
            begun: turn.now,
            heard: turn.now,
            sent: turn.now,
            wanted_as: None,
        })
    }

    /// The children, and what is to be done with them, are the new one's (RFC 7296 §2.18).
    pub(crate) fn inherit(&mut self, old: &mut Sa, new: &mut Sa) {
        let (was, ours) = (old.ours, new.ours);
        let tasks = old.asking.tasks.extract_if(.., |task| !matches!(task, Task::Rekey | Task::End));
        new.asking.tasks.extend(tasks);
        new.asking.hold_until = new.asking.hold_until.max(old.asking.hold_until);
        let (Some(from), Some(to)) = (old.established_mut(), new.established_mut()) else { return };
        for child in &from.children {
            if let Some(inbound) = self.inbounds.get_mut(&child.inbound) {
                inbound.sa = ours;
            }
        }
        for peer in [Some(from.peer), from.moved_from].into_iter().flatten() {
            let programmed = self.peers.get_mut(&peer).map(|peer| &mut peer.outbound);
            let outbound = programmed.into_iter().flatten().filter(|outbound| outbound.sa == was);
            outbound.for_each(|outbound| outbound.sa = ours);
        }
        // What goes for the old one's sake goes for the new one's.
        let others = self.peers.get(&from.peer).map(|peer| peer.sas.clone()).unwrap_or_default();
        for other in others {
            let other = self.sas.get_mut(&other).and_then(|other| other.established_mut());
            if let Some(other) = other.filter(|other| other.yields_to == Some(was)) {
                other.yields_to = Some(ours);
            }
        }
        to.moved_from = from.moved_from.take().or(to.moved_from);
        to.children.append(&mut from.children);
        if !to.children.is_empty() {
            to.childless = None;
        }
        from.childless = None;
    }

    /// An IKE SA without children: another has its place. Who began that one closes this; the other waits for it, and not for ever.
    fn retire(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, closes: bool) {
        let ours = sa.ours;
        let Some(established) = sa.established_mut() else { return };
        let (peer, identity) = (established.peer, Some(established.identity.clone()));
        established.is_ending = true;
        established.close_at = (!closes).then(|| turn.now + CLOSE_INSTEAD);
        sa.asking.tasks.clear();
        if closes {
            sa.add(Task::End);
        }
        if let Some(programmed) = self.peers.get_mut(&peer) {
            programmed.sas.retain(|other| *other != ours);
        }
        turn.event(Event::IkeDown { peer, identity, reason: "rekeyed".to_owned() });
    }

    /// One of two that were to be compared is over before that: the children stay with the other.
    pub(crate) fn release_rivals(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let Some(established) = sa.established_mut() else { return };
        if let Some((theirs, _)) = established.rival.take() {
            self.with(turn, theirs, |_, _, theirs| settled(theirs));
        }
        let Some(established) = sa.established_mut() else { return };
        if let Some(old) = established.rival_of.take() {
            // The peer closed its own: it knows that ours is the one, and we are about to hear of it.
            self.with(turn, old, |engine, _, old| {
                if let Some(established) = old.established_mut().filter(|old| !old.is_ending) {
                    established.rival = None;
                    engine.inherit(sa, old);
                }
            });
        }
    }
}

fn stage_established(stage: &Stage) -> Option<&Established> {
    match stage {
        Stage::Established(established) => Some(established),
        _ => None,
    }
}
