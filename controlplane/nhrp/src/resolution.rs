//! Resolution (RFC 2332 §5.2.1, §5.2.2): asking for the way to an address.
//!
//! Asking, one state for each address:
//!
//! ```text
//!   (nothing) --glean, redirect, stale--> asking --answer--> (entry, shortcut)
//!       ^                                 |    ^
//!       |        refused, or six requests |    | asked for again after the rest
//!       +-- 300 s later -- resting <------+----'
//!                          15, 30 .. 240 s
//! ```
//!
//! Whatever the state, traffic has a way: by the server. A refusal takes nothing away.
//!
//! Answering is in `answer`. Behind a NAT, a node says where its server sees it (`nat`).

use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, CieCode, ErrorCode, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::{Cloud, request_extensions};
use crate::input::Peer;
use crate::limits::{
    ANSWERED, ASK_ATTEMPTS, ASK_RETRY_LONGEST, REST_FIRST, REST_LONGEST, REST_MEMORY, RETRY_FIRST, backoff,
};
use crate::nat::nat_address;
use crate::purge::host_bits;
use crate::shortcut::Better;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject};

/// An address that is asked for, or rests.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) created: Instant,
    pub(crate) phase: Phase,
    /// Failures in a row.
    failures: u32,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request is outstanding: the same id in every retransmission.
    Asking {
        /// Its id.
        id: u32,
        /// How often it was sent.
        attempts: u32,
    },
    /// Nothing is asked until then.
    Resting {
        /// Then.
        until: Instant,
    },
}

/// Asking.
impl Cloud {
    /// Packets want a next hop that the data plane knows no binding for (phase 2).
    pub(crate) fn glean(&mut self, turn: &mut Turn<'_>, next_hop: ProtocolAddr) {
        if self.is_multipoint() && !self.is_own(next_hop) && !self.is_known(turn, next_hop) {
            self.ask(turn, next_hop);
        }
    }

    /// Asks for an address, unless it is being asked for, or rests.
    pub(crate) fn ask(&mut self, turn: &mut Turn<'_>, destination: ProtocolAddr) {
        let now = turn.now;
        let old = self.asks.get(&destination);
        match old.map(|a| a.phase) {
            Some(Phase::Asking { .. }) => return,
            Some(Phase::Resting { until }) if until > now => return,
            _ => {}
        }
        let failures = old.map_or(0, |a| a.failures);
        let limits = turn.common.limits;
        let is_new = old.is_none();
        if !turn.common.asks.take(now, limits.asks_per_second) {
            return turn.reject(Reject::RateLimited);
        }
        // What carries traffic is asked for whatever else is.
        if is_new
            && self.asks.len() >= limits.asks
            && !self.carries(destination)
            && !self.forget_resting(turn)
        {
            return turn.reject(Reject::NoRoom);
        }
        let phase = Phase::Asking { id: turn.request_id(), attempts: 0 };
        self.asks.insert(destination, Ask { created: now, phase, failures });
        self.ask_again(turn, destination);
    }

    /// Whether there is an entry for the address, or a shortcut that was made for it.
    fn carries(&self, destination: ProtocolAddr) -> bool {
        let by = |prefix: &Prefix| self.shortcuts.get(prefix).is_some_and(|s| s.destination == destination);
        self.cache.contains_key(&destination)
            || (0..=host_bits(destination))
                .filter_map(|length| Prefix::new(destination.0, length))
                .any(|prefix| by(&prefix))
    }

    /// Makes room by forgetting the addresses whose rest ends first: a sixteenth of all, so that it is seldom done.
    fn forget_resting(&mut self, turn: &mut Turn<'_>) -> bool {
        let resting = self.asks.iter().filter_map(|(address, ask)| match ask.phase {
            Phase::Resting { until } => Some((until, *address)),
            Phase::Asking { .. } => None,
        });
        let mut resting: Vec<_> = resting.collect();
        resting.sort_unstable();
        resting.truncate(self.asks.len() / 16 + 1);
        for (_, address) in &resting {
            self.wake(turn, *address);
        }
        !resting.is_empty()
    }

    /// Sends the request, or gives up: the first time, or the timer fired.
    pub(crate) fn ask_again(&mut self, turn: &mut Turn<'_>, destination: ProtocolAddr) {
        let Some(ask) = self.asks.get_mut(&destination) else { return };
        let Phase::Asking { id, attempts } = &mut ask.phase else {
            // The rest is over for long.
            self.asks.remove(&destination);
            return;
        };
        let (id, before) = (*id, *attempts);
        *attempts += 1;
        let server = self.server_for(turn, destination);
        let (Some(server), Some(own)) = (server, self.identity(destination)) else {
            return self.rest(turn, destination);
        };
        if before >= ASK_ATTEMPTS {
            return self.rest(turn, destination);
        }
        let flags = Flags::ROUTER | Flags::AUTHORITATIVE | Flags::SOURCE_STABLE | Flags::NAT;
        let prefix = if self.tunnel.nhrp.registration.unique { 0xff } else { own.families.protocol.bits() };
        let entry = self.requesters_entry(prefix);
        let public = self.public().map(|nbma| self.seen_entry(own.families, nbma, own.protocol));
        let extensions = request_extensions(public, own.families);
        let message = own.request(Kind::ResolutionRequest, flags, id, destination, vec![entry], extensions);
        self.send(turn, server, message);
        if before == 0 {
            turn.event(Event::ResolutionSent { tunnel: self.name(), destination });
        }
        let again = turn.jittered(backoff(RETRY_FIRST, before, ASK_RETRY_LONGEST));
        turn.set(Timer::Ask(self.name(), destination), again);
    }

    /// What is asked for is asked for again at once: the answers may have gone where we cannot be reached.
    pub(crate) fn ask_anew(&mut self, turn: &mut Turn<'_>) {
        let asking = self.asks.iter().filter(|(_, ask)| matches!(ask.phase, Phase::Asking { .. }));
        for destination in asking.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.ask_again(turn, destination);
        }
    }

    /// It could not be resolved. Traffic stays where it is.
    fn rest(&mut self, turn: &mut Turn<'_>, destination: ProtocolAddr) {
        let Some(ask) = self.asks.get_mut(&destination) else { return };
        let rest = backoff(REST_FIRST, ask.failures, REST_LONGEST);
        ask.failures = ask.failures.saturating_add(1);
        ask.phase = Phase::Resting { until: turn.now + rest };
        turn.set(Timer::Ask(self.name(), destination), rest + REST_MEMORY);
        turn.event(Event::Unresolved { tunnel: self.name(), destination });
    }

    /// An address that rested is known now.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr) {
        if matches!(self.asks.get(&address), Some(Ask { phase: Phase::Resting { .. }, .. })) {
            turn.cancel(Timer::Ask(self.name(), address));
            self.asks.remove(&address);
        }
    }

    /// Routes changed: what could not be resolved by the old ones need not rest.
    pub(crate) fn wake_changed(&mut self, turn: &mut Turn<'_>, changed: &[Prefix]) {
        for prefix in changed {
            let first = ProtocolAddr(prefix.addr());
            let inside = self.asks.range(first..).map(|(a, _)| *a).take_while(|a| prefix.contains(a.0));
            for address in inside.collect::<Vec<_>>() {
                self.wake(turn, address);
            }
        }
    }

    /// A reply to one of our resolution requests; it may come by the server or straight.
    pub(crate) fn resolution_reply(
        &mut self,
        turn: &mut Turn<'_>,
        came: Peer,
        message: &Message,
    ) -> Result<(), Reject> {
        let Body::Exchange { request_id, flags, entries, .. } = &message.body else {
            return Err(Reject::Malformed);
        };
        let destination = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        if !self.is_asking(destination, *request_id) {
            return Err(Reject::Unsolicited);
        }
        // The first of the best (RFC 2332 §5.2.2).
        let usable = entries.iter().filter(|e| e.code == CieCode::SUCCESS && e.holding_time > 0);
        let best = usable.rev().max_by_key(|e| e.preference);
        let next_hop = ProtocolAddr(best.and_then(|e| e.protocol).unwrap_or(destination.0));
        let said = best.and_then(|e| e.nbma).map(NbmaAddr);
        let nbma = nat_address(message, next_hop).or(said);
        let claimed = said.filter(|said| Some(*said) != nbma);
        // Of a node behind a NAT only what came straight proves the way; that may still come.
        if claimed.is_some() && nbma != Some(came.nbma) {
            return Err(Reject::Unproven);
        }
        self.answered.push_back(*request_id);
        if self.answered.len() > ANSWERED {
            self.answered.pop_front();
        }
        let Some(entry) = best else {
            self.rest(turn, destination);
            return Ok(());
        };
        let nbma = match self.check_answer(next_hop, nbma) {
            Ok(nbma) => nbma,
            Err(reject) => {
                self.rest(turn, destination);
                return Err(reject);
            }
        };
        turn.cancel(Timer::Ask(self.name(), destination));
        self.asks.remove(&destination);
        let holding_time = HoldingTime(entry.holding_time);
        let learnt = Learnt {
            nbma,
            port: came.port.filter(|_| came.nbma == nbma),
            claimed,
            holding_time,
            mtu: entry.mtu,
            authoritative: flags.has(Flags::AUTHORITATIVE),
            implicit: false,
        };
        self.learn(turn, next_hop, learnt);
        // What says something on this link only has no route, and wants none.
        if destination.is_link_local() {
            return Ok(());
        }
        let length = entry.length(message.families);
        self.take_shortcut(turn, Better { destination, next_hop, length, holding_time })
    }

    /// The NBMA address that an answer gives, if a peer can be there, and there is room for it.
    fn check_answer(&self, next_hop: ProtocolAddr, nbma: Option<NbmaAddr>) -> Result<NbmaAddr, Reject> {
        let nbma = nbma.ok_or(Reject::Address)?;
        check_peer(self, next_hop, nbma)?;
        // Seen at the same address as we: the NAT sends nothing back inside.
        if self.public() == Some(nbma) {
            return Err(Reject::Unproven);
        }
        if self.is_full(next_hop) {
            return Err(Reject::NoRoom);
        }
        Ok(nbma)
    }

    /// Whether this is the id of the request for an address that is outstanding.
    fn is_asking(&self, destination: ProtocolAddr, request_id: u32) -> bool {
        let outstanding = self.asks.get(&destination).map(|a| a.phase);
        matches!(outstanding, Some(Phase::Asking { id, .. }) if id == request_id)
    }

    /// An error indication came about one of our requests. Where the same request would meet the same error, it is not sent again.
    pub(crate) fn resolution_error(
        &mut self,
        turn: &mut Turn<'_>,
        destination: ProtocolAddr,
        request_id: u32,
        code: ErrorCode,
    ) {
        // A protocol error may be one of the way: a checksum. An invalid reply is no error of a request.
        let passes = [ErrorCode::PROTOCOL_ERROR, ErrorCode::INVALID_RESOLUTION_REPLY];
        if ErrorCode::ALL.contains(&code)
            && !passes.contains(&code)
            && self.is_asking(destination, request_id)
        {
            self.rest(turn, destination);
        }
    }

    /// Takes a binding that came by a resolution, unless a better one is there.
    pub(crate) fn learn(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr, learnt: Learnt) {
        let Learnt { nbma, port, claimed, holding_time, mtu, authoritative, implicit } = learnt;
        let old = self.cache.get(&address);
        if old.is_some_and(|o| o.origin > Origin::Cached) {
            return;
        }
        let is_new = old.is_none_or(|o| o.nbma != nbma);
        let port = port.or_else(|| old.filter(|o| o.nbma == nbma)?.port);
        // What is known for longer is not known for less because of a second source.
        let expires = turn.now + holding_time.duration();
        let (expires, holding_time) =
            match old.filter(|o| o.nbma == nbma).map(|o| (o.expires, o.holding_time)) {
                Some((Some(old_expires), old_holding)) if old_expires > expires => (old_expires, old_holding),
                _ => (expires, holding_time),
            };
        let implicit = implicit && old.is_none_or(|o| o.implicit || o.nbma != nbma);
        let authoritative =
            authoritative || (!implicit && old.is_some_and(|o| o.authoritative && o.nbma == nbma));
        let entry = Entry {
            origin: Origin::Cached,
            nbma,
            port,
            claimed,
            unique: false,
            authoritative,
            implicit,
            replica: false,
            mtu,
            created: turn.now,
            holding_time,
            expires: Some(expires),
            last_used: None,
            identity: None,
        };
        self.install(turn, address, entry);
        if is_new {
            turn.event(Event::Resolved { tunnel: self.name(), next_hop: address, nbma });
        }
    }
}

/// A binding that came by a resolution.
pub(crate) struct Learnt {
    pub(crate) nbma: NbmaAddr,
    /// UDP port of its packets, where that is known.
    pub(crate) port: Option<u16>,
    /// What it says itself, behind a NAT.
    pub(crate) claimed: Option<NbmaAddr>,
    pub(crate) holding_time: HoldingTime,
    pub(crate) mtu: u16,
    pub(crate) authoritative: bool,
    pub(crate) implicit: bool,
}
