//! Datagrams: from their bytes to the IKE SA that they are for, and to what it does with them.
//!
//! Before a message has proved to be authentic it changes nothing, but where it begins something (IKE_SA_INIT).

use wire::ike::{
    Exchange, Header, KEEPALIVE, Message, NAT_PORT, NON_ESP_MARKER, NotifyType, Payload, Sealed,
};

use crate::Reject;
use crate::child::Sealing;
use crate::engine::Engine;
use crate::fragment::{Fragments, Joined};
use crate::limits::{FRAGMENTED, FRAGMENTED_UNPROVED, FRAGMENTS, FRAGMENTS_HELD};
use crate::path::{Path, notify};
use crate::programmed::Ending;
use crate::sa::{Asked, Sa, Stage};
use crate::sk;
use crate::turn::Turn;
use crate::want::Failure;

/// An authentic message, whole.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) payloads: Vec<Payload>,
    /// Type of its first payload and the chain of them, as they were encrypted (RFC 9242 §3.3.2).
    pub(crate) inner: (u8, Vec<u8>),
    /// The way that it, or the last of its fragments, came.
    pub(crate) path: Path,
}

impl Engine {
    pub(crate) fn datagram(&mut self, turn: &mut Turn<'_>, path: Path, bytes: &[u8]) -> Result<(), Reject> {
        let mut bytes = bytes;
        if path.local.port() == NAT_PORT {
            if bytes == KEEPALIVE {
                return Ok(());
            }
            bytes = bytes.strip_prefix(&NON_ESP_MARKER).ok_or(Reject::Malformed)?;
        }
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(_) => {
                return Err(match Header::decode(bytes) {
                    Ok((header, ..)) if header.version.0 > 2 => self.other_version(turn, &path, header),
                    _ => Reject::Malformed,
                });
            }
        };
        self.counts.received += 1;
        let header = message.header;
        if header.exchange == Exchange::IKE_SA_INIT {
            return if header.is_response {
                self.init_answer(turn, &path, &message, bytes)
            } else {
                self.init_request(turn, &path, &message, bytes)
            };
        }
        let (ours, theirs) = match header.is_initiator {
            true => (header.responder_spi, header.initiator_spi),
            false => (header.initiator_spi, header.responder_spi),
        };
        let Some(mut sa) = self.sas.remove(&ours) else {
            self.unknown_spi(turn, &path, &message);
            return Err(Reject::UnknownSpi);
        };
        let is_theirs = sa.theirs == theirs && sa.side == other(header.is_initiator);
        let result =
            if is_theirs { self.sealed(turn, &mut sa, &path, &message) } else { Err(Reject::UnknownSpi) };
        self.settle(turn, sa);
        result
    }

    /// RFC 7296 §2.5: the highest version that we speak.
    fn other_version(&mut self, turn: &mut Turn<'_>, path: &Path, header: Header) -> Reject {
        if !header.is_response && self.clear.take(turn.now, crate::limits::CLEAR_PER_SECOND) {
            self.send_clear(turn, path, header, &[notify(NotifyType::INVALID_MAJOR_VERSION, Vec::new())]);
        }
        Reject::Version
    }

    /// RFC 7296 §2.21.4: who talks by an IKE SA that we do not have may be told so; of what is said so the other takes note at most.
    fn unknown_spi(&mut self, turn: &mut Turn<'_>, path: &Path, message: &Message<'_>) {
        if !message.header.is_response && !self.profiles_at(path.table, path.local).is_empty() {
            let payload = notify(NotifyType::INVALID_IKE_SPI, Vec::new());
            self.answer_clear(turn, path, message, &[payload]);
        }
    }

    /// A message that is encrypted.
    fn sealed(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        path: &Path,
        message: &Message<'_>,
    ) -> Result<(), Reject> {
        let header = message.header;
        let Some(sealed) = &message.sealed else {
            self.in_the_clear(turn, sa, path, message);
            return Err(Reject::Unexpected);
        };
        let is_repeated = if header.is_response {
            let pending = sa.asking.pending.as_ref().ok_or(Reject::MessageId)?;
            if (pending.id, pending.exchange) != (header.message_id, header.exchange) {
                return Err(Reject::MessageId);
            }
            false
        } else {
            let is_next = header.message_id == sa.answering.next && !matches!(sa.stage, Stage::Refused(_));
            let is_last = header.message_id.wrapping_add(1) == sa.answering.next;
            if !is_next && !is_last {
                return Err(Reject::MessageId);
            }
            is_last
        };
        let before = match &sa.stage {
            Stage::Proving(proving) if is_repeated => proving.before.as_ref(),
            _ => None,
        };
        let keys = before.or(sa.keys.as_ref()).ok_or(Reject::Unexpected)?;
        let part = sk::open(&*self.crypto, keys, sa.their_side(), sealed);
        let part = part.map_err(|_| Reject::NotAuthentic)?;
        if is_repeated {
            self.repeat(turn, sa, path, sealed);
            return Ok(());
        }
        let Some(inner) = self.joined(sa, header, sealed, part)? else { return Ok(()) };
        self.whole(turn, sa, path, header, inner)
    }

    /// RFC 7296 §1.5, §2.21.4: an error in the clear may be anybody's. It makes us ask whether the peer lives, and nothing else.
    fn in_the_clear(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, path: &Path, message: &Message<'_>) {
        let is_from_there = (path.table, path.remote.ip()) == (sa.path.table, sa.path.remote.ip());
        let says = crate::child::says(&message.payloads, NotifyType::INVALID_IKE_SPI);
        let Some(established) = sa.established_mut() else { return };
        if message.header.is_response
            && is_from_there
            && says
            && turn.now.since(established.probed) >= crate::limits::PROBE_AGAIN
        {
            established.probed = turn.now;
            sa.add(crate::sa::Task::Probe);
        }
    }

    /// The last request came again: so did not our answer (RFC 7296 §2.1). Of fragments the first stands for all (RFC 7383 §2.6.1).
    fn repeat(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, path: &Path, sealed: &Sealed<'_>) {
        if sealed.fragment.is_some_and(|(number, _)| number != 1) {
            return;
        }
        sa.answering.last.iter().for_each(|message| turn.send(path, message));
        self.counts.repeated += 1;
        let Some(established) = sa.established_mut() else { return };
        for child in &mut established.children {
            if let Sealing::Waiting(waiting) = &mut child.sealing {
                waiting.until = turn.now + waiting.wait;
            }
        }
    }

    /// Puts fragments together; of a message that is none, all of it is there.
    fn joined(
        &mut self,
        sa: &mut Sa,
        header: Header,
        sealed: &Sealed<'_>,
        part: Vec<u8>,
    ) -> Result<Option<(u8, Vec<u8>)>, Reject> {
        let Some((number, all)) = sealed.fragment else { return Ok(Some((sealed.first, part))) };
        if all > FRAGMENTS || self.fragments_held + part.len() > FRAGMENTS_HELD {
            return Err(Reject::Fragment);
        }
        let most = if sa.established().is_some() { FRAGMENTED } else { FRAGMENTED_UNPROVED };
        let place = if header.is_response { &mut sa.asking.fragments } else { &mut sa.answering.fragments };
        // RFC 7383 §2.6: those of a message that was fragmented into more, smaller ones replace what is there; fewer are too late.
        let before = place.as_ref().filter(|held| held.id == header.message_id).map_or(0, |held| held.all());
        if before > all.into() {
            return Err(Reject::Fragment);
        }
        if before < all.into() {
            let bytes = place.as_ref().map_or(0, |held| held.bytes);
            self.fragments_held = self.fragments_held.saturating_sub(bytes);
            *place = Some(Box::new(Fragments::new(header.message_id, all)));
        }
        let Some(held) = place else { return Err(Reject::Fragment) };
        let length = part.len();
        match held.add(number, sealed.first, part, most) {
            Joined::More => {
                self.fragments_held += length;
                Ok(None)
            }
            Joined::Refused => Err(Reject::Fragment),
            Joined::Whole(first, chain) => {
                self.fragments_held = self.fragments_held.saturating_sub(held.bytes - length);
                *place = None;
                Ok(Some((first, chain)))
            }
        }
    }

    /// An authentic message is there.
    fn whole(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        path: &Path,
        header: Header,
        inner: (u8, Vec<u8>),
    ) -> Result<(), Reject> {
        if !header.is_response && header.exchange == Exchange::IKE_AUTH && !self.may_prove(turn, sa) {
            // It comes again, and was not answered.
            return Err(Reject::RateLimited);
        }
        sa.heard = turn.now;
        let payloads = wire::ike::decode_payloads(inner.0, &inner.1);
        let Ok(payloads) = payloads else {
            self.nonsense(turn, sa, path, header);
            return Err(Reject::Malformed);
        };
        let unknown = payloads.iter().find_map(|payload| match payload {
            // RFC 7296 §2.5: the flag says nothing of payloads of that RFC, 33 to 48.
            Payload::Unknown { kind, is_critical: true, .. } if !(33..=48).contains(&kind.0) => Some(*kind),
            _ => None,
        });
        if let Some(kind) = unknown {
            if !header.is_response {
                let payload = notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind.0]);
                self.answer(turn, sa, path, header.exchange, &[payload]);
                if sa.established().is_none() {
                    self.turn_down(turn, sa);
                }
            } else {
                self.nonsense(turn, sa, path, header);
            }
            return Err(Reject::Critical);
        }
        self.follow(turn, sa, path, header.is_response);
        let opened = Opened { header, payloads, inner, path: *path };
        if header.is_response {
            self.take_answer(turn, sa, &opened)
        } else {
            self.take_request(turn, sa, &opened)
        }
    }

    /// Authentic, and not a message: whoever made it cannot be talked to (RFC 7296 §2.21.3).
    fn nonsense(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, path: &Path, header: Header) {
        let reason = "peer sent a message that cannot be read";
        if !header.is_response {
            self.refuse(turn, sa, path, header.exchange, NotifyType::INVALID_SYNTAX);
        }
        if sa.established().is_some() {
            self.failed(turn, Some(sa), path.remote, None, reason);
            self.finish(turn, sa, Ending::Cut, reason);
        } else if header.is_response {
            self.give_up(turn, sa, Failure::Refused, reason);
        } else {
            self.turn_down(turn, sa);
        }
    }

    /// Who began is refused; its request is answered again for a while.
    pub(crate) fn turn_down(&mut self, turn: &Turn<'_>, sa: &mut Sa) {
        self.give_back_reserved(sa);
        sa.stage = Stage::Refused(turn.now + crate::limits::REFUSED);
    }

    fn take_request(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, opened: &Opened) -> Result<(), Reject> {
        match (&sa.stage, opened.header.exchange) {
            (Stage::Proving(_), Exchange::IKE_INTERMEDIATE) => self.intermediate_request(turn, sa, opened),
            (Stage::Proving(_), Exchange::IKE_AUTH) => self.proof_request(turn, sa, opened),
            (Stage::Established(_), exchange) => {
                // The peer went on: what we answered before has reached it. Of what it closes now nothing more is used.
                if exchange != Exchange::INFORMATIONAL {
                    self.seal_all(turn, sa);
                }
                match exchange {
                    Exchange::CREATE_CHILD_SA => self.create_request(turn, sa, opened),
                    Exchange::INFORMATIONAL => self.informational_request(turn, sa, opened),
                    Exchange::IKE_FOLLOWUP_KE => self.followup_request(turn, sa, opened),
                    _ => {
                        self.refuse(turn, sa, &opened.path, exchange, NotifyType::INVALID_SYNTAX);
                        Err(Reject::Unexpected)
                    }
                }
            }
            _ => Err(Reject::Unexpected),
        }
    }

    fn take_answer(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, opened: &Opened) -> Result<(), Reject> {
        let Some(pending) = sa.asking.pending.take() else { return Err(Reject::MessageId) };
        match pending.asked {
            Asked::Stage => match pending.exchange {
                Exchange::IKE_INTERMEDIATE => self.intermediate_answer(turn, sa, opened),
                _ => self.proof_answer(turn, sa, opened),
            },
            Asked::Child(child) => self.child_answer(turn, sa, *child, opened),
            Asked::Rekey(rekey) => self.rekey_answer(turn, sa, *rekey, opened),
            Asked::Followup(followup) => self.followup_answer(turn, sa, *followup, opened),
            Asked::Delete(children) => self.delete_answer(turn, sa, &children),
            Asked::End => {
                self.finish(turn, sa, Ending::Told, "closed");
                Ok(())
            }
            Asked::Probe => Ok(()),
            Asked::Complaint => {
                sa.stage = Stage::Over;
                Ok(())
            }
        }
    }
}

/// Our side, by what the peer's flag I says of itself.
fn other(is_initiator: bool) -> crate::keymat::Side {
    if is_initiator { crate::keymat::Side::Responder } else { crate::keymat::Side::Initiator }
}
