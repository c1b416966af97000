//! IKE_INTERMEDIATE (RFC 9242) with an additional key exchange (RFC 9370), and IKE_AUTH (RFC 7296 §1.2), both sides: who is it, and its first
//! child.

use model::NbmaAddr;
use model::ike::{Group, Identity};
use wire::ike::{Exchange, Identification, NotifyType, Payload};

use crate::auth::{Claim, identity_of};
use crate::child::{Agreed, ELSEWHERE, Refusal, Wish, error, says, wished};
use crate::credential::{Octets, Proven};
use crate::engine::Engine;
use crate::init::key_exchange;
use crate::keymat::{IkeKeys, Seeds, Side, child_keys, int_auth};
use crate::path::notify;
use crate::receive::Opened;
use crate::sa::{Asked, Proving, Sa, Stage, find};
use crate::turn::Turn;
use crate::want::Failure;
use crate::{Profile, Reject, suite};

/// What proves who somebody is.
struct Proof<'a> {
    id: &'a Identification,
    auth: &'a Payload,
}

impl<'a> Proof<'a> {
    fn of(payloads: &'a [Payload], by: Side) -> Option<Self> {
        let id = find(payloads, move |payload| match (payload, by) {
            (Payload::IdInitiator(id), Side::Initiator) | (Payload::IdResponder(id), Side::Responder) => {
                Some(id)
            }
            _ => None,
        })?;
        let auth = payloads.iter().find(|payload| matches!(payload, Payload::Authentication { .. }))?;
        Some(Self { id, auth })
    }
}

impl Proving {
    /// What one side proves; `identification` is computed from its ID payload, `extra` with IKE_INTERMEDIATE (RFC 7296 §2.15).
    fn octets<'a>(&'a self, of: Side, identification: &'a [u8], extra: &'a [u8]) -> Octets<'a> {
        let (message, nonce) = match of {
            Side::Initiator => (&self.request, &self.responder_nonce),
            Side::Responder => (&self.response, &self.initiator_nonce),
        };
        Octets { message, nonce, identification, intermediate: extra }
    }

    /// IntAuth, if there were such exchanges. `id`: of the IKE_AUTH request.
    fn extra(&self, id: u32) -> Vec<u8> {
        let both = self.intermediate.as_ref();
        both.map(|(initiator, responder)| int_auth(initiator, responder, id)).unwrap_or_default()
    }
}

fn proving(sa: &Sa) -> Option<&Proving> {
    match &sa.stage {
        Stage::Proving(proving) => Some(proving),
        _ => None,
    }
}

fn proving_mut(sa: &mut Sa) -> Option<&mut Proving> {
    match &mut sa.stage {
        Stage::Proving(proving) => Some(proving),
        _ => None,
    }
}

/// The additional key exchange.
impl Engine {
    pub(crate) fn ask_intermediate(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, group: Group) {
        let Ok(begun) = self.crypto.begin(group) else {
            return self.give_up(turn, sa, Failure::Refused, "the additional key exchange cannot be begun");
        };
        let payloads = [Payload::KeyExchange { method: suite::method(group), data: begun.public.clone() }];
        let header = sa.header(Exchange::IKE_INTERMEDIATE, sa.asking.next, false);
        let (first, inner) = wire::ike::encode_payloads(&payloads);
        let said = sa.keys.as_ref().map(|keys| {
            keys.intermediate(&*self.crypto, Side::Initiator, &[], header, first, &inner).to_vec()
        });
        if let Some(proving) = proving_mut(sa) {
            proving.begun = Some(begun);
            proving.intermediate = said.map(|said| (said, Vec::new()));
        }
        self.ask(turn, sa, Exchange::IKE_INTERMEDIATE, &payloads, Asked::Stage);
    }

    pub(crate) fn intermediate_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let group = proving(sa)
            .and_then(|proving| proving.additional)
            .filter(|_| proving(sa).is_some_and(|proving| proving.intermediate.is_none()));
        let exchange = key_exchange(&opened.payloads);
        let (Some(group), Some((method, public))) = (group, exchange) else {
            self.refuse(turn, sa, &opened.path, Exchange::IKE_INTERMEDIATE, NotifyType::INVALID_SYNTAX);
            self.turn_down(turn, sa);
            return Err(Reject::Unexpected);
        };
        let answered = (method == suite::method(group)).then(|| self.crypto.answer(group, public));
        let Some(Ok((public, shared))) = answered else {
            self.refuse(turn, sa, &opened.path, Exchange::IKE_INTERMEDIATE, NotifyType::INVALID_SYNTAX);
            self.turn_down(turn, sa);
            return Err(Reject::KeyExchange);
        };
        let payloads = [Payload::KeyExchange { method, data: public }];
        let header = sa.header(Exchange::IKE_INTERMEDIATE, opened.header.message_id, true);
        let (first, inner) = wire::ike::encode_payloads(&payloads);
        let Some(keys) = sa.keys.as_ref() else { return Err(Reject::Unexpected) };
        let (crypto, theirs) = (&*self.crypto, &opened.inner);
        let said =
            keys.intermediate(crypto, Side::Initiator, &[], opened.header, theirs.0, &theirs.1).to_vec();
        let ours = keys.intermediate(crypto, Side::Responder, &[], header, first, &inner).to_vec();
        if let Some(proving) = proving_mut(sa) {
            proving.intermediate = Some((said, ours));
        }
        self.answer(turn, sa, &opened.path, Exchange::IKE_INTERMEDIATE, &payloads);
        self.mix(sa, &shared);
        Ok(())
    }

    pub(crate) fn intermediate_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let begun = proving_mut(sa).and_then(|proving| proving.begun.take());
        let (Some(begun), Some((method, public))) = (begun, key_exchange(&opened.payloads)) else {
            self.give_up(turn, sa, Failure::Refused, "peer refused the additional key exchange");
            return Err(Reject::Incomplete);
        };
        let finished = (method == suite::method(begun.group)).then(|| self.crypto.finish(begun, public));
        let Some(Ok(shared)) = finished else {
            self.give_up(
                turn,
                sa,
                Failure::Refused,
                "peer's public value of the additional key exchange is none",
            );
            return Err(Reject::KeyExchange);
        };
        let Some(keys) = sa.keys.as_ref() else { return Err(Reject::Unexpected) };
        let theirs = &opened.inner;
        let said = keys
            .intermediate(&*self.crypto, Side::Responder, &[], opened.header, theirs.0, &theirs.1)
            .to_vec();
        if let Some(both) = proving_mut(sa).and_then(|proving| proving.intermediate.as_mut()) {
            both.1 = said;
        }
        self.mix(sa, &shared);
        self.ask_proof(turn, sa);
        Ok(())
    }

    /// RFC 9370 §2.2.2: the keys from here on come from both key exchanges.
    fn mix(&mut self, sa: &mut Sa, shared: &[u8]) {
        let (initiator_spi, responder_spi) = sa.spis();
        let Some(proving) = proving(sa) else { return };
        let seeds = Seeds {
            initiator_nonce: &proving.initiator_nonce,
            responder_nonce: &proving.responder_nonce,
            initiator_spi,
            responder_spi,
        };
        let mixed = sa.keys.as_ref().map(|keys| IkeKeys::mixed(&*self.crypto, keys, shared, &seeds));
        let before = std::mem::replace(&mut sa.keys, mixed);
        if let Some(proving) = proving_mut(sa) {
            proving.before = before;
        }
    }
}

/// As initiator.
impl Engine {
    pub(crate) fn ask_proof(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let Some(worker) = self.worker_for(sa) else {
            return self.give_up(turn, sa, Failure::Refused, "no data plane is there");
        };
        let Some(inbound) = self.take_spi(worker) else {
            return self.give_up(turn, sa, Failure::Refused, "no place for another SA");
        };
        if let Some(proving) = proving_mut(sa) {
            proving.child = Some((inbound, worker));
        }
        let remote = Identity::Address(sa.path.remote.ip());
        let proof = self.own_proof(sa, &sa.profile.clone(), Some(&remote), sa.asking.next);
        let (id, certificates, auth) = match proof {
            Ok(proof) => proof,
            Err(words) => return self.give_up(turn, sa, Failure::Unbelieved, &words),
        };
        let mut payloads = vec![Payload::IdInitiator(id)];
        payloads.extend(certificates);
        // RFC 7296 §2.4: of what we had with it before nothing is left.
        let peer = sa.peer();
        let at_its_address = model::sa::Protection { port: 0, ..peer };
        if !self.is_protected(&at_its_address) {
            payloads.push(notify(NotifyType::INITIAL_CONTACT, Vec::new()));
        }
        payloads.extend(sa.profile.credentials.requests());
        payloads.push(auth);
        let (proposals, rest) = wished(sa, inbound, false);
        payloads.push(proposals);
        payloads.extend(rest);
        self.ask(turn, sa, Exchange::IKE_AUTH, &payloads, Asked::Stage);
    }

    pub(crate) fn proof_answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let payloads = &opened.payloads;
        let Some(proof) = Proof::of(payloads, Side::Responder) else {
            let (kind, _) = error(payloads).unwrap_or((NotifyType::INVALID_SYNTAX, &[]));
            let (failure, words) = match kind {
                NotifyType::AUTHENTICATION_FAILED => (
                    Failure::Unbelieved,
                    "peer did not believe who we are (AUTHENTICATION_FAILED)".to_owned(),
                ),
                _ => (Failure::Refused, format!("peer refused IKE_AUTH: {}", crate::show::notify_name(kind))),
            };
            self.give_up(turn, sa, failure, &words);
            return Err(Reject::Unproven);
        };
        let proven = match self.check_proof(turn, sa, &sa.profile.clone(), &proof, opened) {
            Ok(proven) => proven,
            Err(words) => {
                self.complain(turn, sa, proof.id, &words);
                return Err(Reject::Unproven);
            }
        };
        let child = proving_mut(sa).and_then(|proving| proving.child.take());
        let Some((stage, child)) = take_proving(sa).zip(child) else { return Err(Reject::Unexpected) };
        let offered = sa.profile.ike.esp.clone();
        let agreed = match Wish::of(payloads, false) {
            _ if !self.is_home(child) => {
                Err(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Reject::NoRoom, ELSEWHERE))
            }
            Some(wish) => self.agreed(sa, &wish, &offered, false, child),
            None => {
                let (kind, _) = error(payloads).unwrap_or((NotifyType::NO_PROPOSAL_CHOSEN, &[]));
                let words = format!("peer refused the child SA: {}", crate::show::notify_name(kind));
                Err(Refusal::new(kind, Reject::NoProposal, words))
            }
        };
        self.establish(turn, sa, proven, &stage, says(payloads, NotifyType::INITIAL_CONTACT));
        let made = agreed.and_then(|agreed| self.first_child(turn, sa, &agreed, &stage));
        match made {
            Ok(inbound) => {
                self.settle_crossing(turn, sa);
                self.seal_by(turn, sa, inbound);
                Ok(())
            }
            Err(refusal) => {
                self.give_back(child.0);
                let identity = sa.established().map(|established| established.identity.clone());
                self.failed(turn, Some(sa), sa.path.remote, identity, refusal.words.clone());
                if let Some(wanted) = sa.wanted_as.take() {
                    self.attempt_failed(turn, (wanted, sa.ours), Failure::Refused, &refusal.words);
                }
                self.end(turn, sa, &refusal.words);
                Err(refusal.reject)
            }
        }
    }

    /// RFC 7296 §2.21.2: we do not believe the responder, and say so in an exchange of its own; then this IKE SA is over.
    fn complain(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, id: &Identification, words: &str) {
        let identity = identity_of(id).ok();
        self.give_back_reserved(sa);
        self.failed(turn, Some(sa), sa.path.remote, identity, words);
        if let Some(wanted) = sa.wanted_as.take() {
            self.attempt_failed(turn, (wanted, sa.ours), Failure::Unbelieved, words);
        }
        sa.stage = Stage::Refused(turn.now + crate::limits::REFUSED);
        let payload = notify(NotifyType::AUTHENTICATION_FAILED, Vec::new());
        self.ask(turn, sa, Exchange::INFORMATIONAL, &[payload], Asked::Complaint);
    }
}

/// As responder.
impl Engine {
    /// Whether a proof may be checked now. One that is not comes again.
    pub(crate) fn may_prove(&mut self, turn: &Turn<'_>, sa: &Sa) -> bool {
        let per_second = sa.profile.ike.limits.auth_per_second;
        proving(sa).is_none() || self.proofs.take(turn.now, per_second)
    }

    pub(crate) fn proof_request(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        opened: &Opened,
    ) -> Result<(), Reject> {
        let payloads = &opened.payloads;
        let is_mixed = proving(sa).is_some_and(|p| p.additional.is_none() || p.intermediate.is_some());
        let (Some(proof), true) = (Proof::of(payloads, Side::Initiator), is_mixed) else {
            self.refuse(turn, sa, &opened.path, Exchange::IKE_AUTH, NotifyType::INVALID_SYNTAX);
            self.leave_crowd_refused(turn, sa);
            return Err(Reject::Incomplete);
        };
        let (profile, proven, own) = match self.believe(turn, sa, &proof, opened) {
            Ok(believed) => believed,
            Err(words) => {
                self.failed(turn, Some(sa), opened.path.remote, identity_of(proof.id).ok(), words);
                self.refuse(turn, sa, &opened.path, Exchange::IKE_AUTH, NotifyType::AUTHENTICATION_FAILED);
                self.leave_crowd_refused(turn, sa);
                return Err(Reject::Unproven);
            }
        };
        self.leave_crowd(sa);
        sa.profile = profile.clone();
        let Some(stage) = take_proving(sa) else { return Err(Reject::Unexpected) };
        let agreed = match Wish::of(payloads, true) {
            Some(wish) => self.agree(sa, &profile, &wish, None, None),
            None => Err(Refusal::new(
                NotifyType::NO_PROPOSAL_CHOSEN,
                Reject::Incomplete,
                "peer asked for no child SA",
            )),
        };
        let identity = proven.identity.clone();
        self.establish(turn, sa, proven, &stage, says(payloads, NotifyType::INITIAL_CONTACT));
        let made = agreed.and_then(|(agreed, answer, rest)| {
            self.first_child(turn, sa, &agreed, &stage).map(|_| (answer, rest))
        });
        let (id, certificates, auth) = own;
        let mut answer = vec![Payload::IdResponder(id)];
        answer.extend(certificates);
        answer.push(auth);
        let result = match made {
            Ok((proposals, rest)) => {
                answer.push(proposals);
                answer.extend(rest);
                self.settle_crossing(turn, sa);
                Ok(())
            }
            Err(refusal) => {
                // RFC 7296 §1.2: the IKE SA stands, without a child.
                answer.push(notify(refusal.kind, Vec::new()));
                self.failed(turn, Some(sa), opened.path.remote, Some(identity), refusal.words);
                Err(refusal.reject)
            }
        };
        self.answer(turn, sa, &opened.path, Exchange::IKE_AUTH, &answer);
        result
    }

    /// Checks the initiator's proof by the profiles that it may be meant for, and makes ours.
    #[allow(clippy::type_complexity)] // Three things that belong together once.
    fn believe(
        &mut self,
        turn: &Turn<'_>,
        sa: &Sa,
        proof: &Proof<'_>,
        opened: &Opened,
    ) -> Result<(std::sync::Arc<Profile>, Proven, (Identification, Vec<Payload>, Payload)), String> {
        let suite = sa.keys.as_ref().map(IkeKeys::suite);
        let mut profiles = vec![sa.profile.clone()];
        let others = self.profiles_at(sa.path.table, sa.path.local);
        profiles.extend(others.into_iter().filter(|other| {
            other.name != sa.profile.name && suite.is_some_and(|suite| other.ike.proposals.contains(&suite))
        }));
        let mut refusal = None;
        for profile in profiles {
            match self.check_proof(turn, sa, &profile, proof, opened) {
                Ok(proven) => {
                    let id = opened.header.message_id;
                    let own = self.own_proof(sa, &profile, Some(&proven.identity), id)?;
                    return Ok((profile, proven, own));
                }
                Err(words) => {
                    refusal.get_or_insert(words);
                }
            }
        }
        Err(refusal.unwrap_or_default())
    }

    fn leave_crowd_refused(&mut self, turn: &Turn<'_>, sa: &mut Sa) {
        self.turn_down(turn, sa);
    }
}

/// Both.
impl Engine {
    /// Whether the peer is who it says, by the credentials of a profile.
    fn check_proof(
        &self,
        turn: &Turn<'_>,
        sa: &Sa,
        profile: &Profile,
        proof: &Proof<'_>,
        opened: &Opened,
    ) -> Result<Proven, String> {
        let (Some(keys), Some(proving)) = (sa.keys.as_ref(), proving(sa)) else {
            return Err("there are no keys".to_owned());
        };
        let side = sa.their_side();
        let identification = keys.identification(&*self.crypto, side, proof.id);
        let extra = proving.extra(opened.header.message_id);
        let octets = proving.octets(side, &identification, &extra);
        let claim = Claim { id: proof.id, certificates: &opened.payloads, auth: proof.auth };
        let (prf, unix) = (keys.suite().prf, turn.now.0 / 1_000_000);
        let proven = profile.credentials.verify(&*self.crypto, prf, unix, &profile.ike, &claim, &octets);
        proven.map_err(|unproven| unproven.0)
    }

    /// Who we are towards the peer, our certificates, and the proof. `id`: of the IKE_AUTH request.
    fn own_proof(
        &self,
        sa: &Sa,
        profile: &Profile,
        peer: Option<&Identity>,
        id: u32,
    ) -> Result<(Identification, Vec<Payload>, Payload), String> {
        let (Some(keys), Some(proving)) = (sa.keys.as_ref(), proving(sa)) else {
            return Err("there are no keys".to_owned());
        };
        let (credentials, ike) = (&profile.credentials, &profile.ike);
        let own = credentials.identification(ike, NbmaAddr(sa.path.local.ip()));
        let identification = keys.identification(&*self.crypto, sa.side, &own);
        let extra = proving.extra(id);
        let octets = proving.octets(sa.side, &identification, &extra);
        let proof = credentials.prove(&*self.crypto, keys.suite().prf, peer, proving.hashes, &octets);
        let (certificates, auth) = proof.map_err(|unproven| unproven.0)?;
        Ok((own, certificates, auth))
    }

    /// The child that comes with IKE_AUTH: its keys come from the nonces of IKE_SA_INIT (RFC 7296 §2.17).
    fn first_child(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        agreed: &Agreed,
        stage: &Proving,
    ) -> Result<model::sa::Spi, Refusal> {
        let refused = || {
            Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Reject::KeyExchange, "the keys cannot be computed")
        };
        let keys = sa.keys.as_ref().ok_or_else(refused)?;
        let (ni, nr) = (&stage.initiator_nonce, &stage.responder_nonce);
        let keys = child_keys(&*self.crypto, keys, agreed.suite, None, ni, nr);
        let (there, back) = keys.map_err(|_| refused())?;
        let keys = match sa.side {
            Side::Initiator => (back, there),
            Side::Responder => (there, back),
        };
        self.add_child(turn, sa, agreed, keys, (false, false));
        self.add_spares(turn, sa);
        Ok(agreed.inbound)
    }
}

fn take_proving(sa: &mut Sa) -> Option<Box<Proving>> {
    match std::mem::replace(&mut sa.stage, Stage::Over) {
        Stage::Proving(proving) => Some(proving),
        other => {
            sa.stage = other;
            None
        }
    }
}
