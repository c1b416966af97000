//! Answering resolution requests (RFC 2332 §5.2.1, §5.2.2).
//!
//! Who answers:
//! - the node that has the address;
//! - the node where the route to the address leaves the cloud: with the prefix of that route, no wider than what is true;
//! - the server of a registered client, for that client's own address, where `answer_from_cache` wants that. Otherwise an authoritative
//!   request is passed on to the client, as every node before the one that answers passes it on (`forward`);
//! - whoever has the address in its cache, if the request does not insist on authority. What was only learnt from resolutions is never given
//!   out as authoritative.
//!
//! The answer of who has the address, or the prefix, goes straight to the requester, whose binding is taken from the request (behind a NAT
//! there is more to it, see `nat`). That of a server for its client goes straight to a requester that is registered here, too, and else the
//! way back that the request came; it learns nothing from it. Each answer is remembered, so that it can be taken back (`purge`).
//!
//! A requester may want a unique binding (U). Ours is, unless we register it otherwise; a registered one is if its registration says so,
//! a configured one always; a learnt one never is (code 13). What is behind us is answered for address by address then: it has one way, by us.

use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, ExtensionType, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::Cloud;
use crate::forward::Toward;
use crate::input::Peer;
use crate::limits::{HOP_COUNT, shortest_answer};
use crate::nat::{self, Requester};
use crate::purge::host_bits;
use crate::registration::fill_responder;
use crate::resolution::Learnt;
use crate::turn::Turn;
use crate::{Event, Reject, To};

/// What somebody was told of us, or of a client of ours.
#[derive(Debug)]
pub(crate) struct Told {
    /// Where it is.
    pub(crate) peer: Peer,
    /// The address that it asked for.
    pub(crate) destination: ProtocolAddr,
    /// It wanted no shorter prefix than this long.
    pub(crate) shortest: u8,
    /// It forgets by itself then.
    pub(crate) until: Instant,
    /// Whose binding it was, if not ours.
    pub(crate) by: Option<ProtocolAddr>,
}

/// What a requester wants.
struct Wanted {
    client: ProtocolAddr,
    destination: ProtocolAddr,
    flags: Flags,
    /// What it says of itself.
    itself: Cie,
    requester: Requester,
}

impl Wanted {
    fn read(message: &Message, came: Peer) -> Result<Self, Reject> {
        let client = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let destination = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        let Body::Exchange { flags, entries, .. } = &message.body else { return Err(Reject::Malformed) };
        Ok(Self {
            client,
            destination,
            flags: *flags,
            itself: entries.first().copied().unwrap_or_default(),
            requester: Requester::of(message, client, came),
        })
    }

    fn is_unique(&self) -> bool {
        self.flags.has(Flags::UNIQUE_WANTED)
    }
}

/// What is answered.
struct Answer {
    entry: Cie,
    flags: Flags,
    /// Where the next hop is seen, if that is not where it is.
    seen: Option<NbmaAddr>,
}

/// What is answered with of somebody else.
pub(crate) struct Held {
    prefix: Prefix,
    /// Whose address it is, or prefix.
    holder: ProtocolAddr,
    peer: Peer,
    claimed: Option<NbmaAddr>,
    mtu: u16,
    holding_time: HoldingTime,
    is_authority: bool,
    is_unique: bool,
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

    /// Answers a resolution request with what we have: for `prefix`, straight to the requester.
    pub(crate) fn answer_own(
        &mut self,
        turn: &mut Turn<'_>,
        came: Peer,
        mut message: Message,
        prefix: Prefix,
    ) -> Result<(), Reject> {
        let wanted = Wanted::read(&message, came)?;
        let Wanted { client, destination, flags, itself, requester } = wanted;
        let own = self.identity(client).ok_or(Reject::Unreachable)?;
        check_peer(self, client, requester.nbma)?;
        if self.public() == Some(requester.nbma) {
            // Behind the same address as we.
            self.refuse(turn, came, message, CieCode::ADMINISTRATIVELY_PROHIBITED);
            return Err(Reject::Unproven);
        }
        let is_host_wanted = wanted.is_unique();
        if is_host_wanted && self.is_own(destination) && !self.is_held_uniquely() {
            self.refuse(turn, came, message, CieCode::NOT_UNIQUE);
            return Err(Reject::NotUnique);
        }
        if self.has_told_enough(turn) {
            self.refuse(turn, came, message, CieCode::INSUFFICIENT_RESOURCES);
            return Err(Reject::NoRoom);
        }
        // A requester may want nothing wider than this; 0, 0xff and a host say nothing (RFC 2332 §5.2.1), but with U.
        let shortest = itself.length(message.families).unwrap_or(0);
        let shortest = if is_host_wanted { host_bits(destination) } else { shortest };
        let prefix = clamped(prefix, destination, shortest).ok_or(Reject::Malformed)?;
        let next_hop = if self.is_own(destination) { destination } else { own.protocol };
        let mut entry = Cie { prefix: prefix.length(), protocol: Some(next_hop.0), ..self.own_entry(&own) };
        let mut seen = self.public();
        if !flags.has(Flags::NAT) && message.extension(ExtensionType::NAT).is_none() {
            // It would not look for our public address elsewhere.
            entry.nbma = seen.take().map_or(entry.nbma, |public| Some(public.0));
        }
        let given = Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE;
        self.make_reply(&mut message, &wanted, Answer { entry, flags: given, seen }, next_hop);
        if !self.fits(&message) {
            return Err(Reject::TooLong);
        }
        let peer = Peer { nbma: requester.nbma, port: self.port_of(client, requester.nbma, came) };
        // Nothing of us gets through its NAT before it has sent something to us.
        let is_shut_out = !requester.is_proven(came) && self.public().is_none();
        // RFC 2332 §6.2.1: only what says that it is stable, and for how long.
        if flags.has(Flags::SOURCE_STABLE)
            && itself.holding_time > 0
            && requester.is_proven(came)
            && !self.is_full(client)
        {
            let learnt = Learnt {
                nbma: requester.nbma,
                port: peer.port,
                claimed: requester.claimed,
                holding_time: HoldingTime(itself.holding_time),
                mtu: itself.mtu,
                authoritative: false,
                implicit: true,
            };
            self.learn(turn, client, learnt);
        }
        let until = turn.now + self.tunnel.nhrp.holding_time.duration();
        self.told.insert((prefix, client), Told { peer, destination, shortest, until, by: None });
        turn.save();
        self.send(turn, if is_shut_out { came } else { peer }, message);
        turn.event(Event::ResolutionAnswered { tunnel: self.name(), client, prefix });
        Ok(())
    }

    /// What a request for an address of somebody else is answered with here, if it is not passed on. `toward` is where the way leads.
    pub(crate) fn held(
        &self,
        turn: &Turn<'_>,
        message: &Message,
        destination: ProtocolAddr,
        toward: Toward,
    ) -> Option<Held> {
        let Body::Exchange { flags, .. } = &message.body else { return None };
        let cached = self.held_in_cache(turn, destination).filter(|held| {
            // A longer route may lead elsewhere than the prefix of a client.
            let at = Toward::Peer { tunnel: self.name(), peer: held.peer };
            toward == at
        });
        let heard = self.heard_of(turn, destination).map(|heard| Held {
            prefix: Prefix::host(destination.0),
            holder: destination,
            peer: heard.nbma.into(),
            claimed: None,
            mtu: heard.mtu,
            holding_time: remaining(turn, heard.until),
            is_authority: false,
            is_unique: false,
        });
        let insists = flags.has(Flags::AUTHORITATIVE);
        let is_wanted = |held: &Held| !insists || (held.is_authority && self.tunnel.nhrp.answer_from_cache);
        cached.or(heard).filter(|held| {
            is_wanted(held)
                && self.is_multipoint()
                && held.holding_time.0 > 0
                && message.source != Some(held.holder.0)
        })
    }

    /// What the cache has of an address: of itself, or of the prefix that a client registered.
    fn held_in_cache(&self, turn: &Turn<'_>, destination: ProtocolAddr) -> Option<Held> {
        let host = Prefix::host(destination.0);
        let (prefix, holder) = if self.cache.contains_key(&destination) {
            (host, destination)
        } else {
            self.registered_route(destination)?
        };
        let entry = self.cache.get(&holder)?;
        let of_prefix = self.shortcuts.get(&prefix).filter(|_| prefix != host).map(|s| s.expires);
        let until = [entry.expires, of_prefix].into_iter().flatten().min();
        Some(Held {
            prefix,
            holder,
            peer: entry.peer(),
            claimed: entry.claimed,
            mtu: entry.mtu,
            // One of the configuration holds as long as we say of ourselves.
            holding_time: until.map_or(self.tunnel.nhrp.holding_time, |until| remaining(turn, until)),
            is_authority: is_authority(entry),
            // A prefix is more than one binding (RFC 2332 §5.2.1).
            is_unique: prefix == host && (entry.unique || entry.origin.is_configured()),
        })
    }

    /// Answers a resolution request with what we hold of a peer.
    pub(crate) fn answer_for(
        &mut self,
        turn: &mut Turn<'_>,
        came: Peer,
        mut message: Message,
        held: Held,
    ) -> Result<(), Reject> {
        let wanted = Wanted::read(&message, came)?;
        let (client, destination, requester) = (wanted.client, wanted.destination, wanted.requester);
        let Held { holder, claimed, holding_time, is_authority, is_unique, .. } = held;
        let nbma = held.peer.nbma;
        let shortest = wanted.itself.length(message.families).unwrap_or(0);
        let prefix = clamped(held.prefix, destination, shortest).ok_or(Reject::Malformed)?;
        let given = Cie {
            prefix: prefix.length(),
            mtu: held.mtu,
            holding_time: holding_time.0,
            nbma: Some(nbma.0),
            protocol: Some(holder.0),
            ..Cie::default()
        };
        let refusal = if nbma == requester.nbma {
            Some((CieCode::NO_BINDING, Reject::NoBinding))
        } else if came.is_behind_pat() && held.peer.is_behind_pat() {
            Some((CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Unproven))
        } else if wanted.is_unique() && !is_unique {
            Some((CieCode::NOT_UNIQUE, Reject::NotUnique))
        } else if self.has_told_enough(turn) {
            Some((CieCode::INSUFFICIENT_RESOURCES, Reject::NoRoom))
        } else {
            None
        };
        if let Some((code, reject)) = refusal {
            self.refuse(turn, came, message, code);
            return Err(reject);
        }
        let given_flags =
            if is_authority { Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE } else { Flags::default() };
        let answer = Answer { entry: given, flags: given_flags, seen: claimed.map(|_| nbma) };
        self.make_reply(&mut message, &wanted, answer, holder);
        if !self.fits(&message) {
            return Err(Reject::TooLong);
        }
        let peer = self.binding(client).unwrap_or(came);
        let until = turn.now + holding_time.duration();
        let told = Told { peer, destination, shortest, until, by: Some(holder) };
        self.told.insert((prefix, client), told);
        turn.save();
        self.send(turn, peer, message);
        turn.event(Event::ResolutionAnswered { tunnel: self.name(), client, prefix });
        Ok(())
    }

    /// Whether our address is ours alone: a server's is; a client's, if it registers it so.
    fn is_held_uniquely(&self) -> bool {
        self.servers.is_empty() || self.tunnel.nhrp.registration.unique
    }

    /// The UDP port of a peer that is at `nbma`: that of the message, if it came straight from it, or else that which is known.
    fn port_of(&self, peer: ProtocolAddr, nbma: NbmaAddr, source: Peer) -> Option<u16> {
        if source.nbma == nbma {
            return source.port;
        }
        self.binding(peer).filter(|known| known.nbma == nbma).and_then(|known| known.port)
    }

    /// Makes a resolution request its own positive reply; extensions stay (RFC 2332 §5.2.2).
    fn make_reply(&self, message: &mut Message, wanted: &Wanted, answer: Answer, next_hop: ProtocolAddr) {
        let kept = Flags::ROUTER | Flags::SOURCE_STABLE | Flags::UNIQUE_WANTED | Flags::NAT;
        turn_round(message, (wanted.flags & kept) | answer.flags, answer.entry);
        if let Some(own) = self.identity(wanted.client) {
            fill_responder(message, &self.own_entry(&own));
        }
        if let Some(nbma) = answer.seen {
            nat::make_room(message);
            let families = message.families;
            self.say_where(message, families, nbma, next_hop);
        }
    }

    /// Refuses a resolution request. The refusal takes the way back that the request came.
    pub(crate) fn refuse(&mut self, turn: &mut Turn<'_>, source: Peer, mut message: Message, code: CieCode) {
        let Some(own) = message.source.and_then(|s| self.identity(ProtocolAddr(s))) else { return };
        let Body::Exchange { flags, .. } = &message.body else { return };
        let flags = *flags & (Flags::ROUTER | Flags::SOURCE_STABLE | Flags::NAT);
        turn_round(&mut message, flags, Cie { code, ..Cie::default() });
        fill_responder(&mut message, &self.own_entry(&own));
        self.send(turn, source, message);
    }

    /// Whether no more answers can be remembered; without that they could not be purged (RFC 2332 §5.2.2, code 5).
    fn has_told_enough(&self, turn: &Turn<'_>) -> bool {
        self.told.len() >= turn.common.limits.told
    }
}

/// What remains of a holding time (RFC 2332 §5.2.2: not what was registered).
fn remaining(turn: &Turn<'_>, until: Instant) -> HoldingTime {
    HoldingTime(u16::try_from(until.since(turn.now).as_secs()).unwrap_or(u16::MAX))
}

/// Whether an entry is the word of who has the address, given to us as its server: a registration, or the configuration.
fn is_authority(entry: &Entry) -> bool {
    entry.origin > Origin::Cached && !entry.implicit
}

/// The part of `prefix` around an address that is no shorter than its requester wants.
pub(crate) fn clamped(prefix: Prefix, destination: ProtocolAddr, shortest: u8) -> Option<Prefix> {
    Prefix::new(destination.0, prefix.length().max(shortest))
}

/// Makes a resolution request its own reply; extensions stay (RFC 2332 §5.2.2).
fn turn_round(message: &mut Message, reply_flags: Flags, entry: Cie) {
    message.hop_count = HOP_COUNT;
    if let Body::Exchange { kind, flags, entries, .. } = &mut message.body {
        *kind = Kind::ResolutionReply;
        *flags = reply_flags;
        *entries = vec![entry];
    }
}
