//! Registration requests to one server, and its replies.

use std::time::Duration;

use model::time::Instant;
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, ErrorCode, ExtensionType, Family, Flags, Kind, Message};

use crate::cache::check_peer;
use crate::cloud::{Cloud, Identity, request_extensions};
use crate::limits::{
    LOOK_UP_FIRST, LOOK_UP_LONGEST, REFUSED_FIRST, REGISTER_PATIENCE, REGISTER_RETRY_LONGEST, RETRY_FIRST,
    backoff,
};
use crate::nat::nat_address;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject};

use super::{Held, Known, Refusal, Server, ServerId, Standing, Which};

/// Asking.
impl Cloud {
    /// Sends a registration request: the timer fired, or something changed.
    pub(crate) fn register(&mut self, turn: &mut Turn<'_>, id: ServerId) {
        let Some(i) = self.servers.iter().position(|s| s.id == id) else { return };
        let Some(own) = self.identity_with(i) else { return };
        let server = &self.servers[i];
        if server.global.tries >= REGISTER_PATIENCE && (server.is_taken || server.is_up()) {
            self.lose_server(turn, i);
        }
        let server = &self.servers[i];
        if server.standing == Standing::Waiting {
            return;
        }
        let tries = server.global.tries;
        let is_missed = !server.is_taken && !server.is_up() && tries > 0;
        if is_missed {
            self.try_next_address(turn, i);
        }
        // Where a name leads is asked when that is not known, when its server is silent, and before every further attempt.
        if is_missed || tries == REGISTER_PATIENCE - 1 || self.servers[i].nbma.is_none() {
            self.look_up(turn, i);
        }
        let again = match self.servers[i].nbma {
            Some(nbma) => {
                self.request(turn, i, Which::Global, &own, nbma);
                backoff(RETRY_FIRST, tries, REGISTER_RETRY_LONGEST)
            }
            None => backoff(LOOK_UP_FIRST, tries, LOOK_UP_LONGEST),
        };
        let server = &mut self.servers[i];
        server.global.tries = tries.saturating_add(1);
        let again = turn.jittered(again);
        turn.set(Timer::Register(self.name(), id), again);
    }

    /// A server does not answer, as others know: it is down, and asked on.
    pub(crate) fn give_up(&mut self, turn: &mut Turn<'_>, id: ServerId) {
        let Some(server) = self.servers.iter_mut().find(|s| s.id == id) else { return };
        server.global.tries = server.global.tries.max(REGISTER_PATIENCE);
        self.register(turn, id);
    }

    /// A server is to hear from us at once, whatever it has heard before. A request that is on its way is enough.
    pub(crate) fn register_anew(&mut self, turn: &mut Turn<'_>, id: ServerId) {
        let Some(server) = self.servers.iter_mut().find(|s| s.id == id) else { return };
        if server.global.tries != 1 {
            server.global.tries = 0;
            self.register(turn, id);
            self.register_link_local(turn, id);
        }
    }

    /// As [`Self::register`]: of the link-local address, with a server that accepted the global one.
    pub(crate) fn register_link_local(&mut self, turn: &mut Turn<'_>, id: ServerId) {
        let Some(i) = self.servers.iter().position(|s| s.id == id) else { return };
        let server = &self.servers[i];
        let own = self.own_link_local().and_then(|own| self.identity_as(own));
        let (true, Family::V6, Some(own), Some(nbma)) = (server.is_up(), server.family, own, server.nbma)
        else {
            return;
        };
        self.request(turn, i, Which::LinkLocal, &own, nbma);
        let tries = &mut self.servers[i].link_local.tries;
        let again = backoff(RETRY_FIRST, *tries, REGISTER_RETRY_LONGEST);
        *tries = tries.saturating_add(1);
        let again = turn.jittered(again);
        turn.set(Timer::LinkLocal(self.name(), id), again);
    }

    /// The link-local address is another one, or came, or went.
    pub(super) fn renew_link_local(&mut self, turn: &mut Turn<'_>) {
        let own = self.own_link_local();
        for i in 0..self.servers.len() {
            let (name, server) = (self.name(), &mut self.servers[i]);
            let id = server.id;
            if server.link_local.held.is_some_and(|held| Some(held.protocol) != own) {
                server.link_local.request = None;
                turn.cancel(Timer::LinkLocal(name, id));
                self.unregister_from(turn, i, Which::LinkLocal);
            }
            if turn.common.timers.due(Timer::LinkLocal(name, id)).is_none() {
                self.register_link_local(turn, id);
            }
        }
    }

    fn request(&mut self, turn: &mut Turn<'_>, i: usize, which: Which, own: &Identity, nbma: NbmaAddr) {
        let told = Held { protocol: own.protocol, nbma: own.nbma, at: nbma, is_accepted: false };
        let held = self.servers[i].registration(which).held;
        if held.is_some_and(|held| (held.protocol, held.at) != (told.protocol, told.at)) {
            self.unregister_from(turn, i, which);
        }
        self.leave_unregistering(turn, nbma, own);
        let server = &mut self.servers[i];
        if server.registration(which).held.is_none() {
            server.registration(which).held = Some(told);
            turn.save();
        }
        server.requests += 1;
        let request_id = *server.registration(which).request.get_or_insert_with(|| turn.request_id());
        // RFC 2332 §5.2.3: who does not know its server's protocol address names itself.
        let nhs = server.nhs.protocol.addr();
        let unspecified = match server.family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let unique = self.tunnel.nhrp.registration.unique;
        let flags = if unique { Flags::UNIQUE | Flags::NAT } else { Flags::NAT };
        let nat = Cie {
            prefix: own.families.protocol.bits(),
            mtu: self.tunnel.mtu,
            nbma: Some(nbma.0),
            protocol: Some(nhs.map_or(unspecified, |nhs| nhs.0)),
            ..Cie::default()
        };
        // RFC 2332 §5.2.3 wants 0xff with U; the bits of the address mean the same, and are what IOS sends and takes.
        let entry = self.requesters_entry(own.families.protocol.bits());
        let extensions = request_extensions(Some(nat), own.families);
        let (kind, destination) = (Kind::RegistrationRequest, nhs.unwrap_or(own.protocol));
        let message = own.request(kind, flags, request_id, destination, vec![entry], extensions);
        self.send(turn, nbma, message);
    }
}

/// A reply, as far as it is about what was asked.
struct Answer {
    code: CieCode,
    /// How long the server keeps it.
    holding_time: Duration,
}

/// Being answered.
impl Cloud {
    /// A reply to one of our registration requests.
    pub(crate) fn registration_reply(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message,
    ) -> Result<(), Reject> {
        let Body::Exchange { request_id, .. } = &message.body else { return Err(Reject::Malformed) };
        let asked = self.servers.iter().enumerate().find_map(|(i, s)| Some((i, s.asked_by(*request_id)?)));
        let Some((i, which)) = asked else {
            // A retransmission was answered as well, or the underlay doubled the answer.
            let is_copy = self.servers.iter().any(|s| s.was_answered(*request_id));
            return if is_copy { Ok(()) } else { Err(Reject::Unsolicited) };
        };
        let own = match which {
            Which::Global => self.identity_with(i),
            Which::LinkLocal => self.own_link_local().and_then(|own| self.identity_as(own)),
        };
        let own = own.ok_or(Reject::Unsolicited)?;
        let answer = self.answer_to(i, &own, message)?;
        let server = &self.servers[i];
        let nbma = server.nbma.ok_or(Reject::Unsolicited)?;
        let protocol = match server.nhs.protocol.addr() {
            Some(protocol) => Some(protocol),
            None if answer.code == CieCode::SUCCESS => Some(self.learnt_protocol(nbma, message)?),
            None => server.protocol,
        };
        let registration = self.servers[i].registration(which);
        registration.answered = registration.request.take();
        if answer.code != CieCode::SUCCESS {
            match which {
                Which::Global => self.refused(turn, i, answer.code),
                Which::LinkLocal => self.link_local_refused(turn, i),
            }
            return Ok(());
        }
        registration.tries = 0;
        registration.refused = 0;
        self.servers[i].replies += 1;
        let held = Held { protocol: own.protocol, nbma: own.nbma, at: nbma, is_accepted: true };
        if self.servers[i].registration(which).held.replace(held) != Some(held) {
            turn.save();
        }
        match (which, protocol) {
            (Which::Global, Some(protocol)) => {
                let observed = nat_address(message, own.protocol).filter(|nbma| *nbma != own.nbma);
                self.servers[i].observed = observed;
                self.accepted(turn, i, Known { protocol, nbma }, answer.holding_time);
                self.elect(turn);
            }
            _ => {
                let again = self.refresh_after(answer.holding_time);
                let again = turn.jittered(again);
                turn.set(Timer::LinkLocal(self.name(), self.servers[i].id), again);
            }
        }
        Ok(())
    }

    /// What a reply says of the address that was registered; a reply of somebody else, or about somebody else, says nothing.
    fn answer_to(&self, i: usize, own: &Identity, message: &Message) -> Result<Answer, Reject> {
        let Body::Exchange { entries, .. } = &message.body else { return Err(Reject::Malformed) };
        let nhs = self.servers[i].nhs.protocol.addr();
        let is_from_it = nhs.is_none_or(|nhs| message.destination == Some(nhs.0));
        if message.source != Some(own.protocol.0) || !is_from_it {
            return Err(Reject::Unsolicited);
        }
        let is_ours = |e: &&Cie| e.protocol.is_none_or(|protocol| protocol == own.protocol.0);
        let ours: Vec<_> = entries.iter().filter(is_ours).collect();
        let code = ours.iter().map(|e| e.code).find(|c| *c != CieCode::SUCCESS).unwrap_or_default();
        // It may keep it for shorter than we wanted.
        let wanted = self.tunnel.nhrp.holding_time.0;
        let kept = ours.iter().map(|e| e.holding_time).filter(|kept| *kept > 0);
        let holding_time = Duration::from_secs(kept.min().map_or(wanted, |kept| kept.min(wanted)).into());
        if ours.is_empty() { Err(Reject::Malformed) } else { Ok(Answer { code, holding_time }) }
    }

    /// The protocol address of a server that was only known by where it is: it says who answered (RFC 2332 §5.3.1), or puts itself in the place
    /// of the destination.
    fn learnt_protocol(&self, nbma: NbmaAddr, message: &Message) -> Result<ProtocolAddr, Reject> {
        let responder = message.extension(ExtensionType::RESPONDER);
        let responder = responder.and_then(|e| e.entries(message.families).ok());
        let responder = responder.and_then(|entries| entries.first()?.protocol);
        let is_server =
            |address: &ProtocolAddr| !address.is_link_local() && check_peer(self, *address, nbma).is_ok();
        let named = [responder, message.destination].into_iter().flatten().map(ProtocolAddr);
        named.into_iter().find(is_server).ok_or(Reject::Address)
    }

    /// A server accepted the registration.
    fn accepted(&mut self, turn: &mut Turn<'_>, i: usize, known: Known, holding_time: Duration) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        let id = server.id;
        server.refusal = None;
        let before = server.known();
        let is_same = before.is_some_and(|before| before.protocol == known.protocol);
        let refresh = server.is_up() && is_same;
        // Another server has that name now.
        if let Some(before) = before.filter(|_| server.is_up() && !is_same) {
            turn.event(Event::ServerDown { tunnel: name, nhs: before.protocol });
        }
        server.protocol = Some(known.protocol);
        if server.accepted_at.replace(known) != Some(known) {
            turn.save();
        }
        server.stand(turn, Standing::Responding);
        let mut again = self.refresh_after(holding_time);
        if !self.servers[i].is_taken {
            again = again.min(self.probation_pause());
        }
        let again = turn.jittered(again);
        turn.set(Timer::Register(name, id), again);
        turn.event(Event::ServerUp { tunnel: name, nhs: known.protocol, refresh });
        if turn.common.timers.due(Timer::LinkLocal(name, id)).is_none() {
            self.register_link_local(turn, id);
        }
    }

    /// RFC 2332 §5.2.3: a third of the holding time.
    fn refresh_after(&self, holding_time: Duration) -> Duration {
        (holding_time / 3).max(Duration::from_secs(1))
    }

    /// A server will not have us.
    fn refused(&mut self, turn: &mut Turn<'_>, i: usize, code: CieCode) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        let id = server.id;
        server.refusals += 1;
        // What comes next is asked of its next address, if it has one.
        server.global.tries = 1;
        server.global.refused = server.global.refused.saturating_add(1);
        // One event for the loss of a server, and one for a new reason why it will not have us.
        let refusal = Refusal::Entry(code);
        if server.refusal.replace(refusal) != Some(refusal)
            && let Some(known) = server.known().filter(|_| !server.is_up())
        {
            turn.event(Event::ServerDown { tunnel: name, nhs: known.protocol });
        }
        // The server may hold us to an NBMA address that we had: it did not hear that we left it.
        let holds = |nbma: NbmaAddr| Some(nbma) != self.tunnel.nbma;
        let has_old =
            code == CieCode::ALREADY_REGISTERED && server.global.held.is_some_and(|h| holds(h.nbma));
        let refused = server.global.refused;
        if has_old {
            self.say_moved(turn, i);
        }
        let first = if has_old && refused == 1 { RETRY_FIRST } else { REFUSED_FIRST };
        let again = turn.jittered(backoff(first, refused - 1, REGISTER_RETRY_LONGEST));
        turn.set(Timer::Register(name, id), again);
        self.lose_server(turn, i);
    }

    /// An error indication about one of our requests came: it says why the server does not answer, and nothing else changes.
    pub(crate) fn registration_error(&mut self, request_id: u32, code: ErrorCode) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.asked_by(request_id).is_some()) {
            server.refusals += 1;
            server.refusal = Some(Refusal::Error(code));
        }
    }

    fn link_local_refused(&mut self, turn: &mut Turn<'_>, i: usize) {
        let (name, server) = (self.name(), &mut self.servers[i]);
        let id = server.id;
        server.refusals += 1;
        server.link_local.tries = 0;
        server.link_local.refused = server.link_local.refused.saturating_add(1);
        let again = backoff(REFUSED_FIRST, server.link_local.refused - 1, REGISTER_RETRY_LONGEST);
        let again = turn.jittered(again);
        turn.set(Timer::LinkLocal(name, id), again);
    }
}

impl Server {
    /// What was asked by a request that is outstanding.
    fn asked_by(&self, request_id: u32) -> Option<Which> {
        match Some(request_id) {
            id if id == self.global.request => Some(Which::Global),
            id if id == self.link_local.request => Some(Which::LinkLocal),
            _ => None,
        }
    }

    fn was_answered(&self, request_id: u32) -> bool {
        [self.global.answered, self.link_local.answered].contains(&Some(request_id))
    }

    /// As a former life left it.
    pub(crate) fn restore(&mut self, now: Instant, known: Option<Known>, is_taken: bool) {
        self.since = now;
        self.is_taken = is_taken;
        self.accepted_at = known;
        if let Some(known) = known {
            self.protocol = Some(known.protocol);
            self.nbma = Some(known.nbma);
            if self.dns_name().is_some() {
                self.addresses = vec![known.nbma];
            }
        }
    }
}
