//! IKE_SA_INIT, both sides (RFC 7296 §1.2): a key exchange with somebody who has proved nothing yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::ike::{Group, IkeSuite};
use model::sa::Protection;
use wire::ike::{Exchange, Message, NAT_PORT, NotifyType, PORT, Payload, Proposal};

use crate::auth::Hashes;
use crate::child::{error, says};
use crate::engine::Engine;
use crate::keymat::{IkeKeys, Seeds, Side};
use crate::limits::{BETTER_ANSWER, HALF_OPEN, HALF_OPEN_CROWDED, NONCE, RESTARTS, TRANSMISSIONS};
use crate::path::{Nat, Path, notify};
use crate::sa::{Answering, Asked, Asking, Opening, Proving, Sa, Stage, find};
use crate::suite::ChosenIke;
use crate::turn::Turn;
use crate::want::Failure;
use crate::{Profile, Reject, suite};

/// What every IKE_SA_INIT has.
struct Basics<'a> {
    proposals: &'a [Proposal],
    method: u16,
    public: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> Basics<'a> {
    fn of(payloads: &'a [Payload]) -> Option<Self> {
        let proposals = find(payloads, |payload| match payload {
            Payload::Sa(proposals) => Some(&proposals[..]),
            _ => None,
        })?;
        let (method, public) = key_exchange(payloads)?;
        let nonce = nonce(payloads)?;
        Some(Self { proposals, method, public, nonce })
    }
}

/// The key exchange payload: its method, and the value.
pub(crate) fn key_exchange(payloads: &[Payload]) -> Option<(u16, &[u8])> {
    find(payloads, |payload| match payload {
        Payload::KeyExchange { method, data } => Some((*method, &data[..])),
        _ => None,
    })
}

/// The nonce, which has 16 to 256 bytes (RFC 7296 §3.9).
pub(crate) fn nonce(payloads: &[Payload]) -> Option<&[u8]> {
    let found = find(payloads, |payload| match payload {
        Payload::Nonce(nonce) => Some(&nonce[..]),
        _ => None,
    });
    found.filter(|nonce| (16..=256).contains(&nonce.len()))
}

/// The group that INVALID_KE_PAYLOAD asks for (RFC 7296 §1.3).
pub(crate) fn wanted_group(data: &[u8]) -> Option<Group> {
    suite::group(u16::from_be_bytes(data.try_into().ok()?))
}

fn notified(payloads: &[Payload], wanted: NotifyType) -> Option<&[u8]> {
    find(payloads, move |payload| match payload {
        Payload::Notify { kind, data, .. } if *kind == wanted => Some(&data[..]),
        _ => None,
    })
}

/// Hash algorithms that the peer takes (RFC 7427 §4).
fn hashes(payloads: &[Payload]) -> Hashes {
    notified(payloads, NotifyType::SIGNATURE_HASH_ALGORITHMS).map_or_else(Hashes::default, Hashes::of)
}

/// As initiator.
impl Engine {
    /// Begins with a peer. Our SPI, if there is something to begin with.
    pub(crate) fn begin(
        &mut self,
        turn: &mut Turn<'_>,
        peer: Protection,
        profile: Arc<Profile>,
    ) -> Option<u64> {
        // A peer whose port is known is behind a NAT, which lets answers to port 4500 in (RFC 7296 §2.23).
        let (ours, theirs) = if peer.port == 0 { (PORT, PORT) } else { (NAT_PORT, peer.port) };
        let path = Path {
            table: peer.table,
            local: SocketAddr::new(peer.local.0, ours),
            remote: SocketAddr::new(peer.remote.0, theirs),
        };
        let group = profile.ike.proposals.first()?.group;
        let begun = self.crypto.begin(group).ok()?;
        let ours = self.new_spi();
        let opening = Opening {
            begun,
            nonce: self.random(NONCE),
            request: Vec::new(),
            cookie: None,
            restarts: 0,
            refusal: None,
        };
        let mut sa = Box::new(Sa {
            ours,
            theirs: 0,
            side: Side::Initiator,
            path,
            first: path,
            nat: Nat::default(),
            profile,
            keys: None,
            stage: Stage::Opening(Box::new(opening)),
            asking: Asking::default(),
            answering: Answering::default(),
            takes_fragments: false,
            begun: turn.now,
            heard: turn.now,
            sent: turn.now,
            wanted_as: Some(peer),
        });
        self.counts.begun += 1;
        self.open(turn, &mut sa);
        self.settle(turn, sa);
        Some(ours)
    }

    /// Sends IKE_SA_INIT, for the first time or once more with something else in it.
    fn open(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        let notifications = Nat::notifications(&*self.crypto, (sa.ours, 0), &sa.path);
        // Its message id is 0 every time (RFC 7296 §2.2).
        sa.asking.next = 0;
        let header = sa.header(Exchange::IKE_SA_INIT, 0, false);
        let Stage::Opening(opening) = &mut sa.stage else { return };
        let suites = &sa.profile.ike.proposals;
        let mut payloads = Vec::with_capacity(9);
        // RFC 7296 §2.6: the cookie is the first payload.
        payloads.extend(opening.cookie.iter().map(|cookie| notify(NotifyType::COOKIE, cookie.clone())));
        payloads.push(Payload::Sa(suite::proposals(suites, None)));
        let method = suite::method(opening.begun.group);
        payloads.push(Payload::KeyExchange { method, data: opening.begun.public.clone() });
        payloads.push(Payload::Nonce(opening.nonce.clone()));
        payloads.extend(notifications);
        payloads.push(notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
        payloads.push(Hashes::notify());
        if suites.iter().any(|suite| suite.additional.is_some()) {
            payloads.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new()));
        }
        opening.request = wire::ike::encode(header, &payloads);
        let request = opening.request.clone();
        turn.send(&sa.path, &request);
        sa.asks(turn.now, Exchange::IKE_SA_INIT, vec![request], Asked::Stage);
    }

    pub(crate) fn init_answer(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let ours = message.header.initiator_spi;
        let sa = self.sas.get(&ours).ok_or(Reject::UnknownSpi)?;
        let is_expected = matches!(sa.stage, Stage::Opening(_))
            && !message.header.is_initiator
            && message.header.message_id == 0
            && *path == sa.path;
        if !is_expected {
            return Err(Reject::Unexpected);
        }
        let Some(mut sa) = self.sas.remove(&ours) else { return Err(Reject::UnknownSpi) };
        let result = self.opened(turn, &mut sa, message, bytes);
        self.settle(turn, sa);
        result
    }

    fn opened(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let payloads = &message.payloads;
        let Stage::Opening(opening) = &mut sa.stage else { return Err(Reject::Unexpected) };
        if let Some(cookie) = notified(payloads, NotifyType::COOKIE) {
            if opening.restarts >= RESTARTS || !(1..=64).contains(&cookie.len()) {
                return Err(Reject::Cookie);
            }
            opening.restarts += 1;
            opening.cookie = Some(cookie.to_vec());
            self.open(turn, sa);
            return Ok(());
        }
        if let Some((kind, data)) = error(payloads) {
            return self.init_refused(turn, sa, kind, data);
        }
        if payloads.iter().any(|payload| matches!(payload, Payload::Unknown { is_critical: true, .. })) {
            return Err(Reject::Critical);
        }
        let basics = Basics::of(payloads).ok_or(Reject::Incomplete)?;
        let theirs = message.header.responder_spi;
        if theirs == 0 {
            return Err(Reject::Incomplete);
        }
        let chosen = suite::accept(&sa.profile.ike.proposals, basics.proposals, false);
        let chosen = match chosen {
            Ok(chosen) => chosen.suite,
            Err(words) => {
                opening.refusal = Some(words);
                return Err(Reject::NoProposal);
            }
        };
        let group = opening.begun.group;
        if chosen.group != group || basics.method != suite::method(group) {
            return Err(Reject::KeyExchange);
        }
        let is_intermediate = says(payloads, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
        if chosen.additional.is_some() && !is_intermediate {
            return Err(Reject::NoProposal);
        }
        self.opened_well(turn, sa, (theirs, chosen), &basics, message, bytes)
    }

    /// Somebody answered, and everything fits: the keys are computed.
    fn opened_well(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        (theirs, chosen): (u64, IkeSuite),
        basics: &Basics<'_>,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let stage = std::mem::replace(&mut sa.stage, Stage::Over);
        let Stage::Opening(opening) = stage else { return Err(Reject::Unexpected) };
        let Opening { begun, nonce, request, .. } = *opening;
        let group = begun.group;
        let Ok(shared) = self.crypto.finish(begun, basics.public) else {
            self.give_up(turn, sa, Failure::Refused, &format!("peer's public value is none of {group}"));
            return Err(Reject::KeyExchange);
        };
        sa.theirs = theirs;
        let seeds = Seeds {
            initiator_nonce: &nonce,
            responder_nonce: basics.nonce,
            initiator_spi: sa.ours,
            responder_spi: theirs,
        };
        sa.keys = Some(IkeKeys::first(&*self.crypto, chosen, &shared, &seeds));
        sa.nat = Nat::detect(&*self.crypto, (sa.ours, theirs), &sa.path, &message.payloads);
        if sa.nat.is_any() {
            sa.path = sa.path.floated();
        }
        sa.takes_fragments = says(&message.payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        sa.asking.pending = None;
        sa.heard = turn.now;
        let proving = Proving {
            request,
            response: bytes.to_vec(),
            initiator_nonce: nonce,
            responder_nonce: basics.nonce.to_vec(),
            hashes: hashes(&message.payloads),
            additional: chosen.additional,
            begun: None,
            intermediate: None,
            before: None,
            child: None,
            until: turn.now + HALF_OPEN * 2,
        };
        sa.stage = Stage::Proving(Box::new(proving));
        match chosen.additional {
            Some(additional) => self.ask_intermediate(turn, sa, additional),
            None => self.ask_proof(turn, sa),
        }
        Ok(())
    }

    /// An error in the clear.
    fn init_refused(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        kind: NotifyType,
        data: &[u8],
    ) -> Result<(), Reject> {
        let Stage::Opening(opening) = &mut sa.stage else { return Err(Reject::Unexpected) };
        if kind == NotifyType::INVALID_KE_PAYLOAD && opening.restarts < RESTARTS {
            let group = wanted_group(data).filter(|group| {
                let offered = sa.profile.ike.proposals.iter().any(|suite| suite.group == *group);
                offered && *group != opening.begun.group
            });
            if let Some(group) = group {
                let Ok(begun) = self.crypto.begin(group) else { return Err(Reject::KeyExchange) };
                opening.restarts += 1;
                opening.begun = begun;
                self.open(turn, sa);
                return Ok(());
            }
        }
        let accepted = &sa.profile.ike.proposals;
        let words = match kind {
            NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
                let offered: Vec<_> = accepted.iter().map(ToString::to_string).collect();
                format!("peer accepts none of {}", offered.join(", "))
            }
            _ => format!("peer refused IKE_SA_INIT: {}", crate::show::notify_name(kind)),
        };
        opening.refusal.get_or_insert(words);
        if let Some(pending) = &mut sa.asking.pending
            && pending.times < TRANSMISSIONS
        {
            pending.times = TRANSMISSIONS;
            pending.due = turn.now + BETTER_ANSWER;
        }
        Ok(())
    }
}

/// As responder.
impl Engine {
    pub(crate) fn init_request(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let header = message.header;
        let is_first = header.is_initiator
            && header.message_id == 0
            && header.responder_spi == 0
            && header.initiator_spi != 0
            && message.sealed.is_none();
        if !is_first {
            return Err(Reject::Unexpected);
        }
        if let Some(ours) = self.half_open.get(&(*path, header.initiator_spi)) {
            let sa = self.sas.get(ours).ok_or(Reject::UnknownSpi)?;
            let Stage::Proving(proving) = &sa.stage else { return Err(Reject::Unexpected) };
            if proving.request != bytes {
                return Err(Reject::Unexpected);
            }
            // RFC 7296 §2.1: it came again, so the answer does as well.
            turn.send(path, &proving.response);
            self.counts.repeated += 1;
            return Ok(());
        }
        let profiles = self.profiles_at(path.table, path.local);
        let Some(limits) = profiles.first().map(|profile| profile.ike.limits) else {
            return Err(Reject::NoProfile);
        };
        if self.spis.is_none() {
            return Err(Reject::NoProfile);
        }
        let Some(basics) = Basics::of(&message.payloads) else {
            // RFC 7296 §2.21.1: nothing is kept of it.
            let payload = notify(NotifyType::INVALID_SYNTAX, Vec::new());
            self.answer_clear(turn, path, message, &[payload]);
            return Err(Reject::Incomplete);
        };
        self.check_cookie(turn, path, message, basics.nonce)?;
        if self.sas.len() >= limits.sas as usize || !self.crowd.has_room(&limits, path.remote) {
            return Err(Reject::NoRoom);
        }
        let critical = message.payloads.iter().find_map(|payload| match payload {
            Payload::Unknown { kind, is_critical: true, .. } if !(33..=48).contains(&kind.0) => Some(*kind),
            _ => None,
        });
        if let Some(kind) = critical {
            let payload = notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind.0]);
            self.answer_clear(turn, path, message, &[payload]);
            return Err(Reject::Critical);
        }
        self.answer_init(turn, path, message, bytes, &basics, &profiles)
    }

    /// RFC 7296 §2.6: where there are many who have not proved anything, one more has to show that it is where it says.
    fn check_cookie(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        nonce: &[u8],
    ) -> Result<(), Reject> {
        let profiles = self.profiles_at(path.table, path.local);
        let is_wanted =
            profiles.iter().any(|profile| self.crowd.wants_cookies(&profile.ike.limits, turn.now));
        if !is_wanted {
            return Ok(());
        }
        let from = (path, message.header.initiator_spi, nonce);
        let cookie = notified(&message.payloads, NotifyType::COOKIE);
        if cookie.is_some_and(|cookie| self.crowd.is_good(&mut *self.crypto, turn.now, cookie, from)) {
            return Ok(());
        }
        let cookie = self.crowd.cookie(&mut *self.crypto, turn.now, from);
        self.counts.cookies += 1;
        self.send_clear(turn, path, message.header, &[notify(NotifyType::COOKIE, cookie)]);
        Err(Reject::Cookie)
    }

    /// What of the offer is accepted, and by which of the profiles.
    fn choose_init(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        basics: &Basics<'_>,
        profiles: &[Arc<Profile>],
    ) -> Result<(Arc<Profile>, ChosenIke), Reject> {
        let is_intermediate = says(&message.payloads, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
        let mut refusal = None;
        let chosen = profiles.iter().find_map(|profile| {
            let suites = profile.ike.proposals.iter().copied();
            let suites: Vec<_> =
                suites.filter(|suite| suite.additional.is_none() || is_intermediate).collect();
            let sent = Some(basics.method);
            match suite::choose(&profile.name, &suites, basics.proposals, sent, None) {
                Ok(chosen) => Some((profile.clone(), chosen)),
                Err(words) => {
                    refusal.get_or_insert(words);
                    None
                }
            }
        });
        let Some((profile, chosen)) = chosen else {
            let words = refusal.unwrap_or_default();
            self.failed(turn, None, path.remote, None, words);
            let payload = notify(NotifyType::NO_PROPOSAL_CHOSEN, Vec::new());
            self.answer_clear(turn, path, message, &[payload]);
            return Err(Reject::NoProposal);
        };
        let method = suite::method(chosen.suite.group);
        if basics.method != method {
            // RFC 7296 §1.2: with that group it would be accepted.
            let payload = notify(NotifyType::INVALID_KE_PAYLOAD, method.to_be_bytes().to_vec());
            self.send_clear(turn, path, message.header, &[payload]);
            return Err(Reject::KeyExchange);
        }
        Ok((profile, chosen))
    }

    /// What stands in the answer behind proposal, key exchange and nonce.
    fn init_notifications(
        &self,
        spis: (u64, u64),
        path: &Path,
        message: &Message<'_>,
        suite: IkeSuite,
    ) -> Vec<Payload> {
        let mut payloads = Vec::new();
        if says(&message.payloads, NotifyType::NAT_DETECTION_SOURCE_IP) {
            payloads.extend(Nat::notifications(&*self.crypto, spis, path));
        }
        if says(&message.payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED) {
            payloads.push(notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, Vec::new()));
        }
        if says(&message.payloads, NotifyType::SIGNATURE_HASH_ALGORITHMS) {
            payloads.push(Hashes::notify());
        }
        if suite.additional.is_some() {
            payloads.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new()));
        }
        payloads
    }

    fn answer_init(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        bytes: &[u8],
        basics: &Basics<'_>,
        profiles: &[Arc<Profile>],
    ) -> Result<(), Reject> {
        let (profile, chosen) = self.choose_init(turn, path, message, basics, profiles)?;
        let suite = chosen.suite;
        let Ok((data, shared)) = self.crypto.answer(suite.group, basics.public) else {
            // RFC 6989 §2: it is none of the group.
            let payload = notify(NotifyType::INVALID_SYNTAX, Vec::new());
            self.answer_clear(turn, path, message, &[payload]);
            return Err(Reject::KeyExchange);
        };
        let (ours, theirs, nonce) = (self.new_spi(), message.header.initiator_spi, self.random(NONCE));
        let seeds = Seeds {
            initiator_nonce: basics.nonce,
            responder_nonce: &nonce,
            initiator_spi: theirs,
            responder_spi: ours,
        };
        let keys = IkeKeys::first(&*self.crypto, suite, &shared, &seeds);
        let mut payloads = vec![
            Payload::Sa(vec![chosen.answer]),
            Payload::KeyExchange { method: basics.method, data },
            Payload::Nonce(nonce.clone()),
        ];
        payloads.extend(self.init_notifications((theirs, ours), path, message, suite));
        payloads.extend(profile.credentials.requests());
        let is_crowded = self.crowd.wants_cookies(&profile.ike.limits, turn.now);
        let time: Duration = if is_crowded { HALF_OPEN_CROWDED } else { HALF_OPEN };
        let proving = Proving {
            request: bytes.to_vec(),
            response: Vec::new(),
            initiator_nonce: basics.nonce.to_vec(),
            responder_nonce: nonce,
            hashes: hashes(&message.payloads),
            additional: suite.additional,
            begun: None,
            intermediate: None,
            before: None,
            child: None,
            until: turn.now + time,
        };
        let mut sa = Box::new(Sa {
            ours,
            theirs,
            side: Side::Responder,
            path: *path,
            first: *path,
            // RFC 7296 §2.23: hashes of the first message are over an SPI of 0 of ours.
            nat: Nat::detect(&*self.crypto, (theirs, 0), path, &message.payloads),
            profile,
            keys: Some(keys),
            stage: Stage::Proving(Box::new(proving)),
            asking: Asking::default(),
            answering: Answering { next: 1, ..Answering::default() },
            takes_fragments: says(&message.payloads, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
            begun: turn.now,
            heard: turn.now,
            sent: turn.now,
            wanted_as: None,
        });
        let header = sa.header(Exchange::IKE_SA_INIT, 0, true);
        let response = wire::ike::encode(header, &payloads);
        turn.send(path, &response);
        if let Stage::Proving(proving) = &mut sa.stage {
            proving.response = response;
        }
        self.half_open.insert((*path, theirs), ours);
        self.crowd.add(path.remote);
        self.settle(turn, sa);
        Ok(())
    }
}
