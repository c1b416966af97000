//! Resolution (RFC 2332 §5.2.1, §5.2.2): asking for the way to an address, and answering.
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
//! Answering: the node where the route to the address leaves the cloud answers, with the prefix of that route; every node
//! before it passes the request on (`forward`). It takes the requester's binding from the request, and answers straight to it.
//!
//! Behind a NAT, a node says in the NAT extension (Cisco's) of what it asks and answers where its server sees it.

use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, Extension, ExtensionType, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::{Cloud, request_extensions};
use crate::input::Peer;
use crate::limits::{
    ANSWERED, ASK_ATTEMPTS, ASK_RETRY_LONGEST, HOP_COUNT, REST_FIRST, REST_LONGEST, REST_MEMORY, RETRY_FIRST,
    backoff, shortest_answer,
};
use crate::purge::host_bits;
use crate::registration::fill_responder;
use crate::shortcut::Better;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject, To};

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

/// What somebody was told of us.
#[derive(Debug)]
pub(crate) struct Told {
    /// Where it is.
    pub(crate) peer: Peer,
    /// The address that it asked for.
    pub(crate) destination: ProtocolAddr,
    /// It wanted no shorter prefix than this long.
    pub(crate) shortest: u8,
    /// The client whose binding it was told, from the cache; `None`: what is here.
    pub(crate) by: Option<ProtocolAddr>,
    /// It forgets by itself then.
    pub(crate) until: Instant,
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

    /// Whether an address is that of one of our servers.
    pub(crate) fn is_server(&self, address: ProtocolAddr) -> bool {
        self.servers.iter().any(|s| s.protocol == Some(address))
    }

    /// The server to ask: the one that the routes lead by, else the first that responds, else the first; of those that we are
    /// registered with in the family of the address.
    fn server_for(&self, turn: &Turn<'_>, destination: ProtocolAddr) -> Option<NbmaAddr> {
        let hop = self.route_by_tunnel(turn, destination).map(|(hop, _)| hop);
        let mut servers = self.servers.iter().filter(|s| s.is_of_family(destination));
        let by_route = servers.clone().find(|s| hop.is_some() && s.protocol == hop);
        let up = servers.clone().find(|s| s.is_up());
        by_route.or(up).or(servers.next()).and_then(|s| s.nbma)
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
    pub(crate) fn resolution_reply(&mut self, turn: &mut Turn<'_>, message: &Message) -> Result<(), Reject> {
        let Body::Exchange { request_id, flags, entries, .. } = &message.body else {
            return Err(Reject::Malformed);
        };
        let destination = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        let outstanding = self.asks.get(&destination).map(|a| a.phase);
        if !matches!(outstanding, Some(Phase::Asking { id, .. }) if id == *request_id) {
            return Err(Reject::Unsolicited);
        }
        self.answered.push_back(*request_id);
        if self.answered.len() > ANSWERED {
            self.answered.pop_front();
        }
        // The first of the best (RFC 2332 §5.2.2).
        let usable = entries.iter().filter(|e| e.code == CieCode::SUCCESS && e.holding_time > 0);
        let Some(entry) = usable.rev().max_by_key(|e| e.preference) else {
            turn.cancel(Timer::Ask(self.name(), destination));
            self.rest(turn, destination);
            return Ok(());
        };
        let next_hop = ProtocolAddr(entry.protocol.unwrap_or(destination.0));
        let said = entry.nbma.map(NbmaAddr);
        let nbma = nat_address(message, Some(next_hop)).or(said).ok_or(Reject::Address)?;
        let claimed = said.filter(|said| *said != nbma);
        check_peer(self, next_hop, nbma)?;
        if self.is_full(next_hop) {
            return Err(Reject::NoRoom);
        }
        turn.cancel(Timer::Ask(self.name(), destination));
        self.asks.remove(&destination);
        let holding_time = HoldingTime(entry.holding_time);
        let learnt = Learnt {
            nbma,
            port: None,
            claimed,
            holding_time,
            mtu: entry.mtu,
            authoritative: flags.has(Flags::AUTHORITATIVE),
            implicit: false,
        };
        self.learn(turn, next_hop, learnt);
        let length = entry.length(message.families);
        self.take_shortcut(turn, Better { destination, next_hop, length, holding_time })
    }

    /// Takes a binding that came by a resolution, unless a better one is there.
    fn learn(&mut self, turn: &mut Turn<'_>, address: ProtocolAddr, learnt: Learnt) {
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
struct Learnt {
    nbma: NbmaAddr,
    /// UDP port of its packets, where that is known.
    port: Option<u16>,
    /// What it says itself, behind a NAT.
    claimed: Option<NbmaAddr>,
    holding_time: HoldingTime,
    mtu: u16,
    authoritative: bool,
    implicit: bool,
}

/// The public address of a node behind a NAT: the NAT extension's entry for it, or its first one.
pub(crate) fn nat_address(message: &Message, of: Option<ProtocolAddr>) -> Option<NbmaAddr> {
    let entries = message.extension(ExtensionType::NAT)?.entries(message.families).ok()?;
    let meant = entries.iter().find(|e| of.is_none_or(|of| e.protocol == Some(of.0)));
    meant.and_then(|e| e.nbma).map(NbmaAddr)
}

/// Answering.
impl Cloud {
    /// The prefix that this node answers for when it is asked for an address; `None` if the address is not behind it.
    pub(crate) fn answer_prefix(&self, turn: &Turn<'_>, destination: ProtocolAddr) -> Option<Prefix> {
        let host = Prefix::host(destination.0);
        if self.is_own(destination) {
            return Some(host);
        }
        // What is behind this node is told only where that is wanted.
        if !self.tunnel.nhrp.shortcut {
            return None;
        }
        let table = self.tunnel.table;
        let found = turn.routes.lookup(table, destination)?;
        match found.to {
            To::Local => Some(host),
            To::Nowhere => None,
            To::Tunnel(hop) if turn.is_in_network(hop.interface, self.tunnel.nhrp.network_id) => None,
            To::Tunnel(_) | To::Elsewhere(_) => {
                let shortest = found.prefix.length();
                if shortest < shortest_answer(destination.0.is_ipv4()) {
                    return Some(host);
                }
                // RFC 2332 §6.3: the shortest that holds no other route.
                let mut lengths = (shortest..=host_bits(destination))
                    .filter_map(|length| Prefix::new(destination.0, length));
                let is_whole = |prefix: &Prefix| {
                    !turn.routes.is_split(table, *prefix, &found.to) && !self.has_registered_part(*prefix)
                };
                lengths.find(is_whole).or(Some(host))
            }
        }
    }

    /// Answers a resolution request: for `prefix`, straight to the requester.
    pub(crate) fn answer(
        &mut self,
        turn: &mut Turn<'_>,
        source: Peer,
        mut message: Message,
        prefix: Prefix,
    ) -> Result<(), Reject> {
        let client = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let destination = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        let own = self.identity(client).ok_or(Reject::Unreachable)?;
        let Body::Exchange { flags, entries, .. } = &message.body else { return Err(Reject::Malformed) };
        let (flags, asked) = (*flags, entries.first().copied().unwrap_or_default());
        // A requester may want nothing wider than this; 0, 0xff and a host say nothing (RFC 2332 §5.2.1).
        let shortest = asked.length(message.families).unwrap_or(0);
        let prefix = clamped(prefix, destination, shortest).ok_or(Reject::Malformed)?;
        let public = nat_address(&message, None);
        let requester = public.or(message.source_nbma.map(NbmaAddr)).unwrap_or(source.nbma);
        check_peer(self, client, requester)?;
        let peer = Peer { nbma: requester, port: self.port_of(client, requester, source) };
        // RFC 2332 §6.2.1: only what says that it is stable, and for how long.
        if flags.has(Flags::SOURCE_STABLE) && asked.holding_time > 0 && !self.is_full(client) {
            let learnt = Learnt {
                nbma: requester,
                port: peer.port,
                claimed: message.source_nbma.map(NbmaAddr).filter(|said| *said != requester),
                holding_time: HoldingTime(asked.holding_time),
                mtu: asked.mtu,
                authoritative: false,
                implicit: true,
            };
            self.learn(turn, client, learnt);
        }
        let next_hop = if self.is_own(destination) { destination } else { own.protocol };
        let entry = Cie { prefix: prefix.length(), protocol: Some(next_hop.0), ..self.own_entry(&own) };
        let kept = Flags::ROUTER | Flags::SOURCE_STABLE | Flags::NAT;
        let given = Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE;
        make_reply(&mut message, (flags & kept) | given, entry);
        fill_responder(&mut message, &self.own_entry(&own));
        if let Some(nbma) = self.public() {
            self.say_where(&mut message, nbma, next_hop);
        }
        let until = turn.now + self.tunnel.nhrp.holding_time.duration();
        self.told.insert((prefix, client), Told { peer, destination, shortest, by: None, until });
        turn.save();
        self.send(turn, peer, message);
        turn.event(Event::ResolutionAnswered { tunnel: self.name(), client, prefix });
        Ok(())
    }

    /// The UDP port of a peer that is at `nbma`: that of the message, if it came straight from it, or else that which is known.
    fn port_of(&self, peer: ProtocolAddr, nbma: NbmaAddr, source: Peer) -> Option<u16> {
        if source.nbma == nbma {
            return source.port;
        }
        self.binding(peer).filter(|known| known.nbma == nbma).and_then(|known| known.port)
    }

    /// Says in a reply where we are seen, beside what its requester may say of itself.
    fn say_where(&self, message: &mut Message, nbma: NbmaAddr, us: ProtocolAddr) {
        let families = message.families;
        let entry = self.seen_entry(families, nbma, us);
        if message.extension(ExtensionType::NAT).is_none() {
            let extensions = message.extensions.get_or_insert_default();
            extensions.push(Extension::empty(ExtensionType::NAT, false));
        }
        if let Some(addresses) = message.extension_mut(ExtensionType::NAT) {
            // A few entries have room.
            let _ = addresses.push(&entry, families);
        }
    }

    /// Refuses a resolution request. The refusal takes the way back that the request came.
    pub(crate) fn refuse(&mut self, turn: &mut Turn<'_>, source: Peer, mut message: Message, code: CieCode) {
        let Some(own) = message.source.and_then(|s| self.identity(ProtocolAddr(s))) else { return };
        let Body::Exchange { flags, .. } = &message.body else { return };
        let flags = *flags & (Flags::ROUTER | Flags::SOURCE_STABLE | Flags::NAT);
        make_reply(&mut message, flags, Cie { code, ..Cie::default() });
        fill_responder(&mut message, &self.own_entry(&own));
        self.send(turn, source, message);
    }

    /// Whether no more answers can be remembered; without that they could not be purged (RFC 2332 §5.2.2, code 5).
    pub(crate) fn has_told_enough(&self, turn: &Turn<'_>) -> bool {
        self.told.len() >= turn.common.limits.told
    }
}

/// The part of `prefix` around an address that is no shorter than its requester wants.
pub(crate) fn clamped(prefix: Prefix, destination: ProtocolAddr, shortest: u8) -> Option<Prefix> {
    Prefix::new(destination.0, prefix.length().max(shortest))
}

/// Makes a resolution request its own reply; extensions stay (RFC 2332 §5.2.2).
fn make_reply(message: &mut Message, reply_flags: Flags, entry: Cie) {
    message.hop_count = HOP_COUNT;
    if let Body::Exchange { kind, flags, entries, .. } = &mut message.body {
        *kind = Kind::ResolutionReply;
        *flags = reply_flags;
        *entries = vec![entry];
    }
}
