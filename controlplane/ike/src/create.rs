//! CREATE_CHILD_SA for children (RFC 7296 §1.3.1, §1.3.3), both sides: a new one, or one in the place of an old one.
//!
//! Both may replace the same one at once (§2.8.1). Then there are two new ones and four nonces; the one that was made with the lowest is
//! closed by who asked for it, and the old one by who asked for the other:
//!
//! ```text
//!   lowest nonce in ours:     our new one is closed by us;        the peer's stays, and the peer closes the old one
//!   lowest nonce in theirs:   the peer's is closed by the peer;   ours stays, and we close the old one
//! ```

use std::time::Duration;

use model::WorkerId;
use model::ike::Group;
use model::sa::Spi;
use wire::ike::{Exchange, NotifyType, Payload, Protocol};

use crate::child::{Agreed, Child, ELSEWHERE, Sealing, Wish, error, says, wished};
use crate::crypto::Secret;
use crate::engine::Engine;
use crate::init::{key_exchange, nonce, wanted_group};
use crate::keymat::{Side, child_keys};
use crate::limits::{CHILDREN, CLOSE_INSTEAD, NONCE, RESTARTS, TEMPORARY};
use crate::path::notify;
use crate::receive::Opened;
use crate::sa::{Asked, AskedChild, Pending, Sa, Task, find};
use crate::turn::Turn;
use crate::{Reject, suite};

/// What could not be replaced is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The responder asks for further children this long after the first.
const SPARES_AFTER: Duration = Duration::from_secs(1);

/// As initiator.
impl Engine {
    /// Asks for a child in the place of one.
    pub(crate) fn ask_replacement(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, old: Spi) {
        let Some(established) = sa.established() else { return };
        let Some(child) = established.children.iter().find(|child| child.inbound == old) else { return };
        // One whose answer may not have arrived yet is replaced when the peer has it.
        let is_waiting = matches!(child.sealing, Sealing::Waiting(_));
        if child.is_closing || child.successor.is_some() || is_waiting {
            return;
        }
        let is_additional = child.is_additional;
        let workers = self.spis.as_ref().map_or(0, crate::spi::Spis::workers);
        let worker = if child.worker.0 < workers { Some(child.worker) } else { self.worker_for(sa) };
        match worker {
            Some(worker) => self.ask_child(turn, sa, worker, Some(old), is_additional),
            None => self.try_again(turn, sa, old),
        }
    }

    /// One more child for each worker that has none (RFC 9611), if the profile wants that. The responder leaves the first word to the initiator.
    pub(crate) fn add_spares(&mut self, turn: &Turn<'_>, sa: &mut Sa) {
        let Some(spis) = self.spis.as_ref().filter(|_| sa.profile.ike.child_per_worker) else { return };
        if sa.side == Side::Responder {
            sa.asking.hold_until = sa.asking.hold_until.max(turn.now + SPARES_AFTER);
        }
        let used: Vec<_> = sa
            .established()
            .map(|established| established.children.iter().map(|child| child.worker).collect())
            .unwrap_or_default();
        let spare = (0..spis.workers()).map(WorkerId).filter(|worker| !used.contains(worker));
        spare.for_each(|worker| sa.add(Task::Child(worker, true)));
    }

    /// It stays for now.
    fn try_again(&mut self, turn: &Turn<'_>, sa: &mut Sa, old: Spi) {
        let at = turn.now + self.jittered(TRY_AGAIN);
        if let Some(child) = child_mut(sa, old) {
            child.rekey_at = at;
        }
    }

    /// Asks for a child.
    pub(crate) fn ask_child(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        worker: WorkerId,
        replaces: Option<Spi>,
        is_additional: bool,
    ) {
        let Some(inbound) = self.take_spi(worker) else {
            if let Some(old) = replaces {
                self.try_again(turn, sa, old);
            }
            return;
        };
        let group = sa.profile.ike.esp.first().and_then(|suite| suite.group);
        let asked = AskedChild {
            inbound,
            worker,
            nonce: Vec::new(),
            begun: None,
            offered: sa.profile.ike.esp.clone(),
            replaces,
            is_additional,
            restarts: 0,
            rival: None,
        };
        self.ask_with(turn, sa, asked, group);
    }

    /// Asks with a key exchange of this group, or with none.
    fn ask_with(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, mut asked: AskedChild, group: Option<Group>) {
        asked.nonce = self.random(NONCE);
        asked.begun = group.and_then(|group| self.crypto.begin(group).ok());
        let mut payloads = Vec::with_capacity(8);
        if let Some(old) = asked.replaces {
            // RFC 7296 §1.3.3: by the SPI that we take packets by.
            let spi = old.value().to_be_bytes().to_vec();
            let kind = NotifyType::REKEY_SA;
            payloads.push(Payload::Notify { protocol: Protocol::ESP.0, spi, kind, data: Vec::new() });
        }
        if asked.is_additional {
            // RFC 9611 §3: it is one more, for a part of our resources.
            payloads.push(notify(NotifyType::SA_RESOURCE_INFO, Vec::new()));
        }
        let (proposals, rest) = wished(sa, asked.inbound, true);
        payloads.push(proposals);
        payloads.push(Payload::Nonce(asked.nonce.clone()));
        if let Some(begun) = &asked.begun {
            let method = suite::method(begun.group);
            payloads.push(Payload::KeyExchange { method, data: begun.public.clone() });
        }
        payloads.extend(rest);
        self.ask(turn, sa, Exchange::CREATE_CHILD_SA, &payloads, Asked::Child(Box::new(asked)));
    }

    pub(crate) fn child_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        mut asked: AskedChild,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let payloads = &opened.payloads;
        if sa.established().is_none_or(|established| established.is_ending) {
            self.give_back(asked.inbound);
            return Ok(());
        }
        if let Some((kind, data)) = error(payloads) {
            return self.child_refused(turn, sa, asked, kind, data);
        }
        let begun = asked.begun.take();
        let keyed = begun.as_ref().map(|begun| begun.group);
        let agreed = self.child_agreed(sa, &asked, payloads, keyed);
        let made = agreed.and_then(|agreed| {
            let shared = match begun.filter(|_| agreed.suite.group.is_some()) {
                None => None,
                Some(begun) => {
                    let (_, public) = key_exchange(payloads).ok_or("peer answered without a key exchange")?;
                    let shared = self.crypto.finish(begun, public);
                    Some(shared.map_err(|_| "peer's public value is none")?)
                }
            };
            let theirs = nonce(payloads).ok_or("peer answered without a nonce")?;
            Ok((agreed, shared, theirs.to_vec()))
        });
        let (agreed, shared, theirs) = match made {
            Ok(made) => made,
            Err(words) => {
                // The peer has it, and is told that we do not (RFC 7296 §1.3.1): before anything else, for it would take that to mean that we have
                // it, and seal by it.
                self.child_failed(turn, sa, &asked, &words);
                sa.asking.tasks.insert(0, Task::Delete(asked.inbound));
                return Err(Reject::NoProposal);
            }
        };
        let Some(keys) = sa.keys.as_ref() else { return Err(Reject::Unexpected) };
        let shared = shared.as_ref().map(|shared: &Secret| &shared[..]);
        let keys = child_keys(&*self.crypto, keys, agreed.suite, shared, &asked.nonce, &theirs);
        let Ok((there, back)) = keys else {
            self.give_back(asked.inbound);
            return Err(Reject::KeyExchange);
        };
        let is_rekey = asked.replaces.is_some();
        self.add_child(turn, sa, &agreed, (back, there), (is_rekey, asked.is_additional));
        let lowest = asked.nonce.min(theirs);
        self.replaced(turn, sa, asked.replaces, agreed.inbound, (lowest, asked.rival));
        if asked.is_additional && !says(payloads, NotifyType::SA_RESOURCE_INFO) {
            // It does not know what they are for (RFC 9611 §3): one is enough.
            if let Some(established) = sa.established_mut() {
                established.is_full = true;
            }
            sa.add(Task::Delete(agreed.inbound));
        }
        Ok(())
    }

    fn child_agreed(
        &self,
        sa: &Sa,
        asked: &AskedChild,
        payloads: &[Payload],
        keyed: Option<Group>,
    ) -> Result<Agreed, String> {
        let wish = Wish::of(payloads, false).ok_or("peer's answer lacks proposal or selectors")?;
        let place = (asked.inbound, asked.worker);
        if !self.is_home(place) {
            return Err(ELSEWHERE.to_owned());
        }
        let agreed = self.agreed(sa, &wish, &asked.offered, true, place);
        let agreed = agreed.map_err(|refusal| refusal.words)?;
        if agreed.suite.group.is_some() && agreed.suite.group != keyed {
            return Err("peer chose a key exchange that was not begun".to_owned());
        }
        Ok(agreed)
    }

    /// As initiator we have a new one: whose is it to close, ours, the peer's, or the old one (RFC 7296 §2.8.1)?
    fn replaced(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        old: Option<Spi>,
        new: Spi,
        (lowest, rival): (Vec<u8>, Option<(Spi, Vec<u8>)>),
    ) {
        let now = turn.now;
        match rival {
            Some((theirs, their_lowest)) if lowest < their_lowest => {
                // Ours has the lowest: it goes, and the peer closes the old one, or has done so.
                if let Some(old) = old.and_then(|old| child_mut(sa, old)) {
                    old.successor = Some(theirs);
                    old.close_at = Some(now + CLOSE_INSTEAD);
                }
                if let Some(child) = child_mut(sa, new) {
                    child.sealing = Sealing::Never;
                }
                sa.add(Task::Delete(new));
            }
            rival => {
                let old = old.and_then(|old| child_mut(sa, old)).map(|old| {
                    old.successor = Some(new);
                    old.inbound
                });
                self.seal_by(turn, sa, new);
                if let Some(theirs) = rival.and_then(|(theirs, _)| child_mut(sa, theirs)) {
                    // The peer's has the lowest: it closes it.
                    if matches!(theirs.sealing, Sealing::Waiting(_)) {
                        theirs.sealing = Sealing::Never;
                    }
                    theirs.successor = Some(new);
                    theirs.close_at = Some(now + CLOSE_INSTEAD);
                }
                old.into_iter().for_each(|old| sa.add(Task::Delete(old)));
            }
        }
    }

    /// There is no new child.
    fn child_failed(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, asked: &AskedChild, words: &str) {
        let identity = sa.established().map(|established| established.identity.clone());
        self.failed(turn, Some(sa), sa.path.remote, identity, words);
        if let Some(old) = asked.replaces {
            self.try_again(turn, sa, old);
        }
    }

    fn child_refused(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        mut asked: AskedChild,
        kind: NotifyType,
        data: &[u8],
    ) -> Result<(), Reject> {
        if kind == NotifyType::INVALID_KE_PAYLOAD && asked.restarts < RESTARTS {
            let group = wanted_group(data);
            let is_offered = |group| asked.offered.iter().any(|suite| suite.group == group);
            if group.is_some() && is_offered(group) {
                asked.restarts += 1;
                self.ask_with(turn, sa, asked, group);
                return Ok(());
            }
        }
        self.give_back(asked.inbound);
        let again = asked.replaces.map_or(Task::Child(asked.worker, asked.is_additional), Task::Replace);
        match kind {
            NotifyType::TEMPORARY_FAILURE => {
                // RFC 7296 §2.25: what it was busy with may have made ours needless.
                sa.asking.hold_until = turn.now + self.jittered(TEMPORARY);
                match asked.rival.take() {
                    None => sa.add(again),
                    Some((theirs, _)) => {
                        if let Some(old) = asked.replaces.and_then(|old| child_mut(sa, old)) {
                            old.successor = Some(theirs);
                            old.close_at = Some(turn.now + CLOSE_INSTEAD);
                        }
                    }
                }
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                // RFC 7296 §2.25.1: it has it no more. So we have not, and begin from scratch if nothing else is there.
                if let Some(old) = asked.replaces {
                    self.drop_child(turn, sa, old, true, "peer has it no more");
                }
                if sa.established().is_some_and(|established| !established.is_carrying()) {
                    sa.add(Task::Child(asked.worker, asked.is_additional));
                }
            }
            NotifyType::NO_ADDITIONAL_SAS | NotifyType::TS_MAX_QUEUE if asked.replaces.is_none() => {
                if let Some(established) = sa.established_mut() {
                    established.is_full = true;
                }
                sa.asking.tasks.retain(|task| !matches!(task, Task::Child(..)));
            }
            _ => {
                let words = format!("peer refused a child SA: {}", crate::show::notify_name(kind));
                self.child_failed(turn, sa, &asked, &words);
                if kind == NotifyType::NO_ADDITIONAL_SAS {
                    // RFC 7296 §1.3: it does not rekey; a new IKE SA takes this one's place.
                    self.begin_beside(turn, sa);
                }
            }
        }
        Ok(())
    }

    /// Begins another IKE SA with the same peer; when it is up it takes over, and the old one goes.
    fn begin_beside(&mut self, turn: &mut Turn<'_>, sa: &Sa) {
        let (peer, profile) = (sa.peer(), sa.profile.clone());
        let wanted = self.wants.entry(peer).or_default();
        if wanted.attempt.is_some() {
            return;
        }
        if let Some(ours) = self.begin(turn, peer, profile)
            && let Some(wanted) = self.wants.get_mut(&peer)
        {
            wanted.attempt = Some(ours);
        }
    }
}

/// As responder.
impl Engine {
    pub(crate) fn create_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let protocol = find(&opened.payloads, |payload| match payload {
            Payload::Sa(proposals) => proposals.first().map(|proposal| proposal.protocol),
            _ => None,
        });
        if protocol == Some(Protocol::IKE) {
            return self.rekey_request(turn, sa, opened);
        }
        let path = &opened.path;
        match self.create(turn, sa, opened) {
            Ok(answer) => {
                self.answer(turn, sa, path, Exchange::CREATE_CHILD_SA, &answer);
                Ok(())
            }
            Err((payload, reject, words)) => {
                if let Some(words) = words {
                    let identity = sa.established().map(|established| established.identity.clone());
                    self.failed(turn, Some(sa), path.remote, identity, words);
                }
                self.answer(turn, sa, path, Exchange::CREATE_CHILD_SA, &[payload]);
                Err(reject)
            }
        }
    }

    /// Makes the child that the peer asks for, and the answer.
    fn create(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<Vec<Payload>, (Payload, Reject, Option<String>)> {
        let payloads = &opened.payloads;
        let say = |kind, reject| (notify(kind, Vec::new()), reject, None);
        let Some(established) = sa.established() else {
            return Err(say(NotifyType::TEMPORARY_FAILURE, Reject::Unexpected));
        };
        // RFC 7296 §2.25.2: not while this IKE SA is being rekeyed or closed.
        if established.is_ending || sa.is_rekeying() || sa.answering.draft.is_some() || self.spis.is_none() {
            return Err(say(NotifyType::TEMPORARY_FAILURE, Reject::Unexpected));
        }
        let old = self.meant(sa, payloads)?;
        if established.children.len() >= CHILDREN {
            return Err(say(NotifyType::NO_ADDITIONAL_SAS, Reject::NoRoom));
        }
        let (Some(wish), Some(theirs)) = (Wish::of(payloads, true), nonce(payloads)) else {
            return Err(say(NotifyType::INVALID_SYNTAX, Reject::Incomplete));
        };
        let is_additional = says(payloads, NotifyType::SA_RESOURCE_INFO);
        let worker = match old {
            Some((_, worker)) => Some(worker),
            None if is_additional => self.spare_worker(sa),
            None => None,
        };
        let exchange = key_exchange(payloads);
        let profile = sa.profile.clone();
        let sent = Some(exchange.map(|(method, _)| method));
        let agreed = self.agree(sa, &profile, &wish, sent, worker);
        let (agreed, proposals, rest) = agreed
            .map_err(|refusal| (notify(refusal.kind, Vec::new()), refusal.reject, Some(refusal.words)))?;
        let (public, shared) = match self.exchanged(agreed.suite.group, exchange) {
            Ok(exchanged) => exchanged.unzip(),
            Err(payload) => {
                self.give_back(agreed.inbound);
                return Err((payload, Reject::KeyExchange, None));
            }
        };
        let ours = self.random(NONCE);
        let shared = shared.as_ref().map(|shared| &shared[..]);
        let keys =
            sa.keys.as_ref().map(|keys| child_keys(&*self.crypto, keys, agreed.suite, shared, theirs, &ours));
        let Some(Ok(keys)) = keys else {
            self.give_back(agreed.inbound);
            return Err(say(NotifyType::NO_PROPOSAL_CHOSEN, Reject::KeyExchange));
        };
        self.add_child(turn, sa, &agreed, keys, (old.is_some(), is_additional));
        if let Some((old, _)) = old {
            self.replaced_by_peer(turn, sa, old, agreed.inbound, theirs.min(&ours).to_vec());
        }
        let mut answer = vec![proposals, Payload::Nonce(ours)];
        if let (Some(data), Some(group)) = (public, agreed.suite.group) {
            answer.push(Payload::KeyExchange { method: suite::method(group), data });
        }
        if is_additional {
            answer.push(notify(NotifyType::SA_RESOURCE_INFO, Vec::new()));
        }
        answer.extend(rest);
        Ok(answer)
    }

    /// Our half of a key exchange, if there is one: what is sent, and the secret.
    fn exchanged(
        &mut self,
        group: Option<Group>,
        theirs: Option<(u16, &[u8])>,
    ) -> Result<Option<(Vec<u8>, Secret)>, Payload> {
        let Some(group) = group else { return Ok(None) };
        let method = suite::method(group);
        let Some((_, public)) = theirs.filter(|(sent, _)| *sent == method) else {
            // RFC 7296 §1.3.1: with that group it would be accepted.
            return Err(notify(NotifyType::INVALID_KE_PAYLOAD, method.to_be_bytes().to_vec()));
        };
        let answered = self.crypto.answer(group, public);
        answered.map(Some).map_err(|_| notify(NotifyType::INVALID_SYNTAX, Vec::new()))
    }

    /// The child that REKEY_SA means, with its worker; none if there is no such notification.
    #[allow(clippy::type_complexity)] // As of its caller.
    fn meant(
        &self,
        sa: &Sa,
        payloads: &[Payload],
    ) -> Result<Option<(Spi, WorkerId)>, (Payload, Reject, Option<String>)> {
        let spi = find(payloads, |payload| match payload {
            Payload::Notify { spi, kind: NotifyType::REKEY_SA, .. } => Some(spi),
            _ => None,
        });
        let Some(spi) = spi else { return Ok(None) };
        let children = sa.established().map_or(&[][..], |established| &established.children[..]);
        let child = children.iter().find(|child| child.outbound.value().to_be_bytes()[..] == spi[..]);
        let Some(child) = child else {
            // RFC 7296 §2.25.1
            let kind = NotifyType::CHILD_SA_NOT_FOUND;
            let payload =
                Payload::Notify { protocol: Protocol::ESP.0, spi: spi.clone(), kind, data: Vec::new() };
            return Err((payload, Reject::Unexpected, None));
        };
        if child.is_closing || sa.asking.tasks.contains(&Task::Delete(child.inbound)) {
            return Err((notify(NotifyType::TEMPORARY_FAILURE, Vec::new()), Reject::Unexpected, None));
        }
        let workers = self.spis.as_ref().map_or(0, crate::spi::Spis::workers);
        let worker = if child.worker.0 < workers { child.worker } else { WorkerId(0) };
        Ok(Some((child.inbound, worker)))
    }

    /// A worker that has no child of this peer yet (RFC 9611); if each has one, the emptiest.
    pub(crate) fn spare_worker(&self, sa: &Sa) -> Option<WorkerId> {
        let spis = self.spis.as_ref()?;
        let children = sa.established().map_or(&[][..], |established| &established.children[..]);
        let is_spare =
            |worker: &WorkerId| !children.iter().any(|child| child.worker == *worker && child.is_live());
        (0..spis.workers()).map(WorkerId).find(is_spare).or_else(|| spis.emptiest())
    }

    /// As responder we have a new one in an old one's place.
    fn replaced_by_peer(&mut self, turn: &Turn<'_>, sa: &mut Sa, old: Spi, new: Spi, lowest: Vec<u8>) {
        sa.asking.tasks.retain(|task| *task != Task::Replace(old));
        if let Some(Pending { asked: Asked::Child(asked), .. }) = sa.asking.pending.as_deref_mut()
            && asked.replaces == Some(old)
        {
            asked.rival = Some((new, lowest));
            return;
        }
        let Some(old) = child_mut(sa, old) else { return };
        old.successor = Some(new);
        old.close_at = Some(turn.now + CLOSE_INSTEAD);
    }
}

/// The child with this inbound SPI.
pub(crate) fn child_mut(sa: &mut Sa, inbound: Spi) -> Option<&mut Child> {
    sa.established_mut()?.children.iter_mut().find(|child| child.inbound == inbound)
}

/// What is asked now is for this child.
pub(crate) fn is_asked(sa: &Sa, inbound: Spi) -> bool {
    match sa.asking.pending.as_deref() {
        Some(Pending { asked: Asked::Delete(spis), .. }) => spis.contains(&inbound),
        _ => false,
    }
}
