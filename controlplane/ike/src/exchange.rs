//! Requests and answers (RFC 7296 §2.1 to §2.3): one request at a time in each direction, sent again until it is answered; an answer is kept
//! for who asks again.

use model::time::Instant;
use wire::ike::{Exchange, Header, Message, NotifyType, Payload};

use crate::engine::Engine;
use crate::keymat::Side;
use crate::limits::{
    RETRANSMIT_FIRST, RETRANSMIT_LONGEST, TRANSMISSIONS, TRANSMISSIONS_TO_THE_LIVING, backoff,
};
use crate::path::{Path, notify};
use crate::programmed::Ending;
use crate::sa::{Asked, Pending, Sa, Stage, Task};
use crate::sk;
use crate::turn::Turn;
use crate::want::Failure;

impl Sa {
    /// The header of a message of ours.
    pub(crate) fn header(&self, exchange: Exchange, message_id: u32, is_response: bool) -> Header {
        let (initiator_spi, responder_spi) = self.spis();
        Header {
            initiator_spi,
            responder_spi,
            version: (2, 0),
            exchange,
            is_response,
            can_higher: false,
            is_initiator: self.side == Side::Initiator,
            message_id,
        }
    }

    /// Notes a request of ours, which is sent for the first time now.
    pub(crate) fn asks(&mut self, now: Instant, exchange: Exchange, messages: Vec<Vec<u8>>, asked: Asked) {
        let id = self.asking.next;
        self.asking.next = id.wrapping_add(1);
        self.asking.fragments = None;
        self.sent = now;
        let due = now + RETRANSMIT_FIRST;
        self.asking.pending = Some(Box::new(Pending { id, exchange, messages, times: 1, due, asked }));
    }
}

impl Engine {
    /// Seals a message of ours.
    fn seal(&mut self, sa: &mut Sa, header: Header, payloads: &[Payload]) -> Vec<Vec<u8>> {
        let (side, largest) = (sa.side, sa.largest());
        let Some(keys) = sa.keys.as_mut() else { return Vec::new() };
        sk::seal(&mut *self.crypto, keys, side, header, payloads, largest)
    }

    /// Sends a request. Nothing else may be outstanding.
    pub(crate) fn ask(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        exchange: Exchange,
        payloads: &[Payload],
        asked: Asked,
    ) {
        let header = sa.header(exchange, sa.asking.next, false);
        let messages = self.seal(sa, header, payloads);
        messages.iter().for_each(|message| turn.send(&sa.path, message));
        sa.asks(turn.now, exchange, messages, asked);
    }

    /// Answers the peer's request, to where it came from (RFC 7296 §2.11), and keeps the answer.
    pub(crate) fn answer(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        path: &Path,
        exchange: Exchange,
        payloads: &[Payload],
    ) {
        let id = sa.answering.next;
        sa.answering.next = id.wrapping_add(1);
        let header = sa.header(exchange, id, true);
        let messages = self.seal(sa, header, payloads);
        messages.iter().for_each(|message| turn.send(path, message));
        sa.answering.last = messages;
        sa.sent = turn.now;
    }

    /// Answers with one notification.
    pub(crate) fn refuse(
        &mut self,
        turn: &mut Turn<'_>,
        sa: &mut Sa,
        path: &Path,
        exchange: Exchange,
        kind: NotifyType,
    ) {
        self.answer(turn, sa, path, exchange, &[notify(kind, Vec::new())]);
    }

    /// A request of ours is due: it is sent again, as it was (RFC 7296 §2.1), or the peer is dead (§2.4).
    pub(crate) fn retransmit(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        // RFC 7296 §2.4: who sends packets is not dead. Its control plane may be, and come back.
        let lives = sa.established().is_some_and(|established| !established.is_ending)
            && turn.now.since(sa.heard) < sa.silence();
        let most = if lives { TRANSMISSIONS_TO_THE_LIVING } else { TRANSMISSIONS };
        let Some(pending) = sa.asking.pending.as_mut().filter(|pending| pending.due <= turn.now) else {
            return;
        };
        if pending.times < most {
            pending.due = turn.now + backoff(RETRANSMIT_FIRST, pending.times, RETRANSMIT_LONGEST);
            pending.times += 1;
            pending.messages.iter().for_each(|message| turn.send(&sa.path, message));
            sa.sent = turn.now;
            self.counts.retransmitted += 1;
            return;
        }
        let no_answer = "no answer";
        match &mut sa.stage {
            Stage::Opening(opening) => {
                let reason = opening.refusal.take().unwrap_or_else(|| no_answer.to_owned());
                self.give_up(turn, sa, Failure::Refused, &reason);
            }
            Stage::Proving(_) => self.give_up(turn, sa, Failure::Refused, no_answer),
            Stage::Refused(_) | Stage::Over => sa.stage = Stage::Over,
            Stage::Established(_) => self.finish(turn, sa, Ending::Dead, no_answer),
        }
    }

    /// An attempt of ours comes to nothing, before anything was established.
    pub(crate) fn give_up(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, failure: Failure, reason: &str) {
        self.give_back_reserved(sa);
        self.failed(turn, Some(sa), sa.path.remote, None, reason);
        if let Some(wanted) = sa.wanted_as.take() {
            self.attempt_failed(turn, (wanted, sa.ours), failure, reason);
        }
        sa.asking.pending = None;
        sa.stage = Stage::Over;
    }

    /// Gives back what was set aside for a child that does not come.
    pub(crate) fn give_back_reserved(&mut self, sa: &mut Sa) {
        if let Stage::Proving(proving) = &mut sa.stage
            && let Some((spi, _)) = proving.child.take()
        {
            self.give_back(spi);
        }
        if let Some(Pending { asked: Asked::Child(child), .. }) = sa.asking.pending.as_deref() {
            self.give_back(child.inbound);
        }
        for fragments in [&mut sa.asking.fragments, &mut sa.answering.fragments] {
            if let Some(fragments) = fragments.take() {
                self.fragments_held = self.fragments_held.saturating_sub(fragments.bytes);
            }
        }
    }

    /// An established IKE SA is over: nothing of it is left, and whoever wants its peer tries again.
    pub(crate) fn finish(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, ending: Ending, reason: &str) {
        self.release(turn, sa, ending, reason);
        self.give_back_reserved(sa);
        sa.asking.pending = None;
        sa.stage = Stage::Over;
    }

    /// What an IKE SA has goes, once.
    fn release(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, ending: Ending, reason: &str) {
        let peer = sa.peer();
        let Some(established) = sa.established_mut().filter(|established| !established.is_ending) else {
            return;
        };
        established.is_ending = true;
        sa.asking.tasks.clear();
        self.release_rivals(turn, sa);
        self.drop_children(turn, sa, ending, reason);
        if ending != Ending::Replaced {
            self.lost(turn, peer);
        }
    }

    /// We want an IKE SA to be over: its SAs go now, the peer is told (RFC 7296 §1.4.1), and it is kept until the peer has answered. Of one
    /// that is not established nobody is told.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, reason: &str) {
        if sa.established().is_some() {
            self.release(turn, sa, Ending::Told, reason);
            sa.add(Task::End);
        } else if matches!(sa.stage, Stage::Opening(_)) || sa.side == Side::Initiator && !sa.is_refused() {
            self.give_up(turn, sa, Failure::Refused, reason);
        } else {
            self.leave_crowd(sa);
            self.give_back_reserved(sa);
            sa.stage = Stage::Over;
        }
    }

    /// Tells the peer once, without waiting for the answer.
    pub(crate) fn say_end(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        if sa.established().is_none()
            || sa.asking.pending.as_ref().is_some_and(|pending| {
                pending.exchange == Exchange::INFORMATIONAL && matches!(pending.asked, Asked::End)
            })
        {
            return;
        }
        // With a request outstanding the next number is beyond the window (RFC 7296 §2.3); a peer that is there asks again and learns it.
        let delete = Payload::Delete { protocol: wire::ike::Protocol::IKE.0, spis: Vec::new() };
        self.ask(turn, sa, Exchange::INFORMATIONAL, &[delete], Asked::End);
    }

    /// Asks the next thing on the list, if nothing else is asked.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>, sa: &mut Sa) {
        while sa.asking.pending.is_none() && sa.established().is_some() {
            let is_held = turn.now < sa.asking.hold_until;
            let may = |task: &Task| !is_held || matches!(task, Task::Delete(_) | Task::End | Task::Probe);
            // Nothing else is of use when it is to end.
            let tasks = &mut sa.asking.tasks;
            let at = tasks.iter().position(|task| *task == Task::End).or_else(|| tasks.iter().position(may));
            let Some(at) = at else { return };
            let task = sa.asking.tasks.remove(at);
            self.undertake(turn, sa, task);
        }
    }

    fn undertake(&mut self, turn: &mut Turn<'_>, sa: &mut Sa, task: Task) {
        match task {
            Task::Child(worker, is_additional) => {
                let has_one = |child: &crate::child::Child| child.worker == worker && child.is_live();
                let is_needless = sa.established().is_none_or(|established| {
                    is_additional && (established.is_full || established.children.iter().any(has_one))
                });
                if !is_needless {
                    self.ask_child(turn, sa, worker, None, is_additional);
                }
            }
            Task::Replace(spi) => self.ask_replacement(turn, sa, spi),
            Task::Delete(spi) => self.ask_delete(turn, sa, spi),
            Task::Rekey => self.ask_rekey(turn, sa),
            Task::End => self.say_end(turn, sa),
            Task::Probe => self.ask(turn, sa, Exchange::INFORMATIONAL, &[], Asked::Probe),
        }
    }

    /// An answer in the clear to somebody with whom we have nothing: rarely (RFC 7296 §2.21).
    pub(crate) fn answer_clear(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        message: &Message<'_>,
        payloads: &[Payload],
    ) {
        if !self.clear.take(turn.now, crate::limits::CLEAR_PER_SECOND) {
            return;
        }
        self.send_clear(turn, path, message.header, payloads);
    }

    /// The same, always.
    pub(crate) fn send_clear(
        &mut self,
        turn: &mut Turn<'_>,
        path: &Path,
        request: Header,
        payloads: &[Payload],
    ) {
        let header = Header {
            version: (2, 0),
            is_response: true,
            can_higher: false,
            is_initiator: !request.is_initiator,
            ..request
        };
        turn.send(path, &wire::ike::encode(header, payloads));
    }

    /// An IKE SA is not half-open any more.
    pub(crate) fn leave_crowd(&mut self, sa: &Sa) {
        if !sa.is_half_open() {
            return;
        }
        let from = sa.first;
        if self.half_open.remove(&(from, sa.theirs)).is_some() {
            self.crowd.remove(from.remote);
        }
    }
}
