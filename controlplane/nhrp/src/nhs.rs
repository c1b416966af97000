//! The servers that this node registers with (RFC 2332 §5.2.3, §5.2.4: the client's side).
//!
//! The servers of one family in one cluster share its places. One state for each server:
//!
//! ```text
//!                 has a place                  has none
//!
//!   waiting ----> expecting --- accepted ---+
//!    ^  |             |                     v
//!    |  |       silent, refused        responding <---------- better for long enough, --------+
//!    |  |             |                  |      |             or a place is free              |
//!    |  |             +----------+-------+      |                                             |
//!    |  |                        v           replaced                                         |
//!    |  +- better than one --> expecting ---- | -------------- accepted ------------> responding (on probation)
//!    |     that has a place    (a probe)  <-- | ---------- silent, refused -----------        |
//!    |                           |            |                                               |
//!    +----- not wanted ----------+------------+-----------------------------------------------+
//! ```
//!
//! Who waits is not asked. Who loses its place because it does not answer, or refuses, makes room for the next at once (`election`). A server is
//! known by its addresses or, until they are learnt, by its DNS name (`names`) and its answer (`registering`).
//!
//! A tunnel with addresses of both families registers one of each with the servers of that family; where one node is the server of
//! both, it is two servers here. With servers of IPv6, the link-local address is registered beside the global one.

use std::collections::{BTreeMap, BTreeSet};

use model::config::{self, MapMulticast, NhsNbma, NhsProtocol};
use model::time::Instant;
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{CieCode, ErrorCode, Family};

use crate::Event;
use crate::cache::{Entry, Origin};
use crate::cloud::{Cloud, Identity};
use crate::resolution::{Ask, Phase};
use crate::turn::{Timer, Turn};

mod election;
mod names;
mod registering;

/// A server's number on its tunnel: its protocol address may be unknown, and its NBMA address may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerId(pub(crate) u32);

/// A server, as its client sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    /// As it stands in the configuration.
    pub(crate) nhs: config::Nhs,
    /// Of the addresses that are registered with it.
    pub(crate) family: Family,
    /// Its protocol address: configured, or learnt from its reply.
    pub(crate) protocol: Option<ProtocolAddr>,
    /// Where it is asked: configured, or one of those that its name has.
    pub(crate) nbma: Option<NbmaAddr>,
    /// All that its name has.
    addresses: Vec<NbmaAddr>,
    /// Both addresses, when it accepted last.
    pub(crate) accepted_at: Option<Known>,
    pub(crate) standing: Standing,
    /// It has one of the places of its cluster.
    pub(crate) is_taken: bool,
    pub(crate) since: Instant,
    pub(crate) global: Registration,
    pub(crate) link_local: Registration,
    /// Where it sees us, if that is not where we are: we are behind a NAT.
    pub(crate) observed: Option<NbmaAddr>,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) refusals: u64,
    pub(crate) refusal: Option<Refusal>,
}

/// How a server said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// In the reply.
    Entry(CieCode),
    /// With an error indication. Anybody can have sent it: it informs, and nothing is done upon it.
    Error(ErrorCode),
}

/// One of our addresses, registered with a server: one request for each (RFC 2332 §5.2.3: with U there is one entry).
#[derive(Debug, Default)]
pub(crate) struct Registration {
    /// The request that is outstanding: the same id in every retransmission.
    request: Option<u32>,
    /// The one that was answered last: its retransmissions may be answered too.
    answered: Option<u32>,
    /// Requests since the last answer.
    tries: u32,
    /// Refusals in a row.
    refused: u32,
    pub(crate) held: Option<Held>,
}

/// What a server has of us, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// This address of ours
    pub(crate) protocol: ProtocolAddr,
    /// at this one,
    pub(crate) nbma: NbmaAddr,
    /// as it was told here.
    pub(crate) at: NbmaAddr,
    /// It said so.
    pub(crate) is_accepted: bool,
}

/// Which address is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Global,
    LinkLocal,
}

/// A server whose addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) protocol: ProtocolAddr,
    pub(crate) nbma: NbmaAddr,
}

/// A server, as a message to it needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerAt {
    /// `None`: not learnt yet.
    pub(crate) protocol: Option<ProtocolAddr>,
    pub(crate) nbma: NbmaAddr,
}

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not asked: there is no address to register, or enough better ones answer.
    Waiting,
    /// A request, or a look-up of its name, is outstanding or due.
    Expecting,
    /// It accepted the registration.
    Responding,
}

impl Server {
    /// Whether it accepted the registration.
    pub(crate) fn is_up(&self) -> bool {
        self.standing == Standing::Responding
    }

    /// Where packets for it go: where it accepted last; before that, where it is asked.
    pub(crate) fn known(&self) -> Option<Known> {
        self.accepted_at.or(Some(Known { protocol: self.protocol?, nbma: self.nbma? }))
    }

    /// Where messages for it go.
    pub(crate) fn at(&self) -> Option<NbmaAddr> {
        self.known().map(|known| known.nbma).or(self.nbma)
    }

    /// Its protocol address, if it is known of who is at this NBMA address.
    fn protocol_at(&self, nbma: NbmaAddr) -> Option<ProtocolAddr> {
        let accepted_there = self.accepted_at.filter(|known| known.nbma == nbma);
        self.nhs.protocol.addr().or(accepted_there.map(|known| known.protocol))
    }

    /// Whether its protocol address is learnt from its replies.
    fn is_dynamic(&self) -> bool {
        self.nhs.protocol.addr().is_none()
    }

    /// Its DNS name.
    fn dns_name(&self) -> Option<&str> {
        match &self.nhs.nbma {
            NhsNbma::Addr(_) => None,
            NhsNbma::Name(name) => Some(name),
        }
    }

    fn registration(&mut self, which: Which) -> &mut Registration {
        match which {
            Which::Global => &mut self.global,
            Which::LinkLocal => &mut self.link_local,
        }
    }

    fn new(id: ServerId, nhs: config::Nhs, family: Family, now: Instant) -> Self {
        Self {
            id,
            family,
            protocol: nhs.protocol.addr(),
            nbma: nhs.nbma.addr(),
            addresses: Vec::new(),
            accepted_at: None,
            nhs,
            standing: Standing::Waiting,
            is_taken: false,
            since: now,
            global: Registration::default(),
            link_local: Registration::default(),
            observed: None,
            requests: 0,
            replies: 0,
            refusals: 0,
            refusal: None,
        }
    }

    fn stand(&mut self, turn: &Turn<'_>, standing: Standing) {
        if self.standing != standing {
            self.standing = standing;
            self.since = turn.now;
        }
    }
}

/// The client.
impl Cloud {
    /// Servers came or went, or changed their rank. Nobody is asked yet ([`Self::contact_servers`]).
    pub(crate) fn adopt_servers(&mut self, turn: &mut Turn<'_>) {
        let mut servers = std::mem::take(&mut self.servers);
        for nhs in self.tunnel.nhrp.nhs.clone() {
            let family = self.family_of(&nhs);
            let is_it =
                |s: &Server| (s.nhs.protocol, &s.nhs.nbma, s.family) == (nhs.protocol, &nhs.nbma, family);
            match servers.iter().position(is_it).map(|i| servers.remove(i)) {
                Some(known) => self.servers.push(Server { nhs, ..known }),
                None => {
                    self.server_ids += 1;
                    self.servers.push(Server::new(ServerId(self.server_ids), nhs, family, turn.now));
                }
            }
        }
        let name = self.name();
        self.look_ups.retain(|name, _| self.servers.iter().any(|s| s.dns_name() == Some(name)));
        for mut gone in servers {
            for timer in timers_of(name, gone.id) {
                turn.cancel(timer);
            }
            for which in [Which::Global, Which::LinkLocal] {
                if let Some(held) = gone.registration(which).held {
                    self.take_back(turn, gone.protocol_at(held.at), held, true);
                }
            }
            if let Some(known) = gone.known().filter(|_| gone.is_up()) {
                turn.event(Event::ServerDown { tunnel: name, nhs: known.protocol });
            }
        }
    }

    /// The family of the addresses that are registered with a server.
    fn family_of(&self, nhs: &config::Nhs) -> Family {
        match nhs.protocol {
            NhsProtocol::Addr(address) => Family::of(address.0),
            NhsProtocol::Dynamic if self.own(Family::V4).is_some() => Family::V4,
            NhsProtocol::Dynamic | NhsProtocol::DynamicIpv6 => Family::V6,
        }
    }

    /// Registers with the servers that are wanted; if `is_told_otherwise`, anew with those that were asked before.
    pub(crate) fn contact_servers(&mut self, turn: &mut Turn<'_>, is_told_otherwise: bool) {
        self.renew_link_local(turn);
        if is_told_otherwise && self.tunnel.nbma.is_some() {
            // What a name is in the place where we are now, and where we are seen.
            self.look_ups.clear();
            let own = self.tunnel.nbma;
            for server in self.servers.iter_mut().filter(|s| s.global.held.map(|h| h.nbma) != own) {
                server.observed = None;
            }
            self.seen_at = self.public();
            for i in 0..self.servers.len() {
                let server = &mut self.servers[i];
                if server.standing == Standing::Waiting {
                    continue;
                }
                for which in [Which::Global, Which::LinkLocal] {
                    let registration = server.registration(which);
                    registration.request = None;
                    registration.tries = 0;
                }
                let id = server.id;
                self.look_up(turn, i);
                self.say_moved(turn, i);
                self.register(turn, id);
                self.register_link_local(turn, id);
            }
        }
        self.elect(turn);
    }

    /// Registers again, at once, with every server whose answer is awaited.
    pub(crate) fn contact_silent_servers(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            if server.standing != Standing::Waiting && server.global.tries > 0 {
                server.global.tries = 0;
                let id = server.id;
                self.register(turn, id);
            }
        }
    }

    /// The last word to every server that has us, or may have.
    pub(crate) fn leave_servers(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.servers.len() {
            for which in [Which::Global, Which::LinkLocal] {
                let server = &mut self.servers[i];
                if let Some(held) = server.registration(which).held.take() {
                    let protocol = server.protocol_at(held.at);
                    self.take_back(turn, protocol, held, true);
                }
            }
        }
    }

    /// Tells a server to forget what it has of us.
    fn take_back(
        &mut self,
        turn: &mut Turn<'_>,
        protocol: Option<ProtocolAddr>,
        held: Held,
        is_last_word: bool,
    ) {
        let Some(own) = self.identity_as(held.protocol) else { return };
        let at = ServerAt { protocol, nbma: held.at };
        // Of one that never answered no answer is waited for.
        self.unregister(turn, &own, at, held.nbma, is_last_word || !held.is_accepted);
        turn.save();
    }

    /// As [`Self::take_back`]: what it has of one of our addresses.
    fn unregister_from(&mut self, turn: &mut Turn<'_>, i: usize, which: Which) {
        let server = &mut self.servers[i];
        if let Some(held) = server.registration(which).held.take() {
            let protocol = server.protocol_at(held.at);
            self.take_back(turn, protocol, held, false);
        }
    }

    /// A server that has us at an NBMA address that we left hears so. It is remembered until it knows the new one.
    fn say_moved(&mut self, turn: &mut Turn<'_>, i: usize) {
        for which in [Which::Global, Which::LinkLocal] {
            let server = &mut self.servers[i];
            let held = server.registration(which).held;
            if let Some(held) = held.filter(|held| Some(held.nbma) != self.tunnel.nbma) {
                let protocol = self.servers[i].protocol_at(held.at);
                self.take_back(turn, protocol, held, false);
            }
        }
    }

    /// Own addresses, as a server is told them.
    fn identity_with(&self, i: usize) -> Option<Identity> {
        self.identity_as(self.own(self.servers[i].family)?)
    }
}

/// What else follows from where the servers stand.
impl Cloud {
    /// Servers, the one first that traffic is best given to: those that have a place and answer, those that answer, those that have a place,
    /// and of these the better and the earlier.
    fn servers_by_rank(&self) -> impl Iterator<Item = &Server> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        // Stable: in the order of the configuration.
        servers.sort_by_key(|s| (!(s.is_up() && s.is_taken), !s.is_up(), !s.is_taken, s.nhs.priority));
        servers.into_iter()
    }

    /// As [`Self::servers_by_rank`]: those that are asked for an address. They know where we are in its family.
    fn servers_for(&self, address: ProtocolAddr) -> impl Iterator<Item = &Server> {
        let family = Family::of(address.0);
        self.servers_by_rank().filter(move |s| s.family == family)
    }

    /// Whether a server answers, or has one of the places of its cluster: one that was not asked before has the benefit of the doubt.
    pub(crate) fn uses_server(&self, address: ProtocolAddr) -> bool {
        let is_it = |s: &&Server| s.known().is_some_and(|known| known.protocol == address);
        self.servers.iter().filter(is_it).any(|s| s.is_up() || s.is_taken)
    }

    /// The server to ask for an address: the one that the routes lead by, if it answers, else the best.
    pub(crate) fn server_for(&self, turn: &Turn<'_>, destination: ProtocolAddr) -> Option<NbmaAddr> {
        let hop = self.route_by_tunnel(turn, destination).map(|(hop, _)| hop);
        let is_by_route = |s: &&Server| hop.is_some() && s.known().map(|known| known.protocol) == hop;
        let by_route = self.servers_for(destination).filter(|s| s.is_up()).find(is_by_route);
        by_route.or_else(|| self.servers_for(destination).next()).and_then(Server::at)
    }

    /// The best server that answers, to ask it for an address that somebody else wants to know.
    pub(crate) fn best_server(
        &self,
        address: ProtocolAddr,
        admits: impl Fn(&Server) -> bool,
    ) -> Option<NbmaAddr> {
        self.servers_for(address).find(|s| s.is_up() && admits(s)).and_then(Server::at)
    }

    /// Whether an address is that of one of our servers.
    pub(crate) fn is_server(&self, address: ProtocolAddr) -> bool {
        self.servers.iter().any(|s| s.known().is_some_and(|known| known.protocol == address))
    }

    /// Where others see us, if that is not where we are: as the server says that traffic goes by; while none answers, as any said.
    pub(crate) fn public(&self) -> Option<NbmaAddr> {
        match self.servers_by_rank().next().filter(|s| s.is_up()) {
            Some(server) => server.observed,
            None => self.servers.iter().find_map(|s| s.observed),
        }
    }

    /// Servers stand elsewhere than they did: bindings, the fall-back, and where we are seen follow.
    fn settle_servers(&mut self, turn: &mut Turn<'_>) {
        self.bind_servers(turn);
        let servers = self.bound_servers.keys().copied();
        let changed: Vec<_> = servers.filter(|s| self.uses_server(*s) != self.reached.contains(s)).collect();
        for server in changed {
            self.reach_server(turn, server);
        }
        self.choose_fallback(turn);
        self.replicate_to_servers(turn);
        let public = self.public();
        if self.seen_at == public {
            return;
        }
        turn.save();
        // Whoever heard otherwise from us before, as who asked before the server answered, is told.
        if let Some(said) = std::mem::replace(&mut self.seen_at, public).or(self.tunnel.nbma) {
            self.purge_self(turn, said, false);
        }
        self.ask_anew(turn);
    }

    /// Bindings of the servers, as far as they are known.
    pub(crate) fn bind_servers(&mut self, turn: &mut Turn<'_>) {
        let mut wanted: BTreeMap<ProtocolAddr, NbmaAddr> = BTreeMap::new();
        let map = &self.tunnel.nhrp.map;
        let is_mapped = |address| map.iter().any(|m| m.protocol == address);
        for server in self.servers_by_rank() {
            // Nothing learnt replaces what the configuration says.
            if let Some(known) = server.known().filter(|k| !server.is_dynamic() || !is_mapped(k.protocol)) {
                wanted.entry(known.protocol).or_insert(known.nbma);
            }
        }
        let old = std::mem::replace(&mut self.bound_servers, wanted.clone());
        for address in old.keys().filter(|address| !wanted.contains_key(address)) {
            match self.tunnel.nhrp.map.iter().find(|m| m.protocol == *address).map(|m| m.nbma) {
                Some(nbma) => self.install(turn, *address, Entry::configured(Origin::Static, nbma, turn.now)),
                None => self.forget(turn, *address),
            }
        }
        for (address, nbma) in wanted {
            if old.get(&address) != Some(&nbma) {
                self.install(turn, address, Entry::configured(Origin::Nhs, nbma, turn.now));
            }
        }
    }

    /// Servers that have a place get multicast, if they are told to.
    fn replicate_to_servers(&mut self, turn: &mut Turn<'_>) {
        let servers = self.servers.iter().filter(|s| s.is_taken).filter_map(Server::at);
        let wanted: BTreeSet<_> = match self.tunnel.nhrp.map_multicast.contains(&MapMulticast::Nhs) {
            true => servers.collect(),
            false => BTreeSet::new(),
        };
        let old = std::mem::replace(&mut self.server_replicas, wanted.clone());
        for nbma in wanted.difference(&old) {
            self.acquire_replica(turn, *nbma);
        }
        for nbma in old.difference(&wanted) {
            self.release_replica(turn, *nbma);
        }
    }

    /// The best server is the fall-back; one that does not answer too: its binding is known without that. Of whatever family: the way to a
    /// peer takes packets of both.
    fn choose_fallback(&mut self, turn: &mut Turn<'_>) {
        let best = self.servers_by_rank().find_map(Server::known).map(|known| known.protocol);
        if self.set_fallback(turn, best) {
            self.ask_elsewhere(turn);
        }
    }

    /// Another server is asked now: for what is asked for already, and for what the old one could not tell.
    fn ask_elsewhere(&mut self, turn: &mut Turn<'_>) {
        let is_resting = |ask: &Ask| matches!(ask.phase, Phase::Resting { .. });
        let resting = self.asks.iter().filter(|(_, ask)| is_resting(ask));
        for address in resting.map(|(address, _)| *address).collect::<Vec<_>>() {
            self.wake(turn, address);
        }
        for ask in self.asks.values_mut() {
            if let Phase::Asking { attempts, .. } = &mut ask.phase {
                *attempts = 0;
            }
        }
        self.ask_anew(turn);
    }
}

/// All timers of a server.
pub(crate) fn timers_of(tunnel: model::InterfaceName, id: ServerId) -> [Timer; 3] {
    [Timer::Register(tunnel, id), Timer::LinkLocal(tunnel, id), Timer::FallBack(tunnel, id)]
}
