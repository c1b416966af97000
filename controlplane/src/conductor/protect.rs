//! The IKE engine beside NHRP's: who is wanted, what it is told of the data plane, and what becomes of what it wants.
//!
//! ```text
//!   servers, bindings, replicas, packets of NHRP ── Want ──▶ ┌────────┐ ── Put, Remove ──▶ desired program, owner IKE
//!   datagrams of the sockets ── Datagram ──────────────────▶ │ engine │ ── Send ─────────▶ behind what it follows (`held`)
//!   reports, SPIs of packets ── Used, Lifetime, Moved ─────▶ └────────┘ ── Up, Down ─────▶ ports of peers, packets that wait, NHRP
//! ```
//!
//! A key of IKE is given to one data plane and to no other: a new one makes the conductor forget every SA before anything is programmed, and
//! the engine makes new ones. A new life of the control plane has no keys of the old one; what the data plane has is adopted, and goes on
//! until there is something in its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ike::input::Adopted;
use ike::{Action, Credentials};
use model::config::{Ike as Section, Registers};
use model::ike::Identity;
use model::program::{Binding, Fallback, Key, Object, Op, Owner, Replica, TunnelMode};
use model::report::PacketOut;
use model::sa::{Direction, ProfileName, Protection, Spi};
use model::state::{IkeSas, ike::IkeState};
use model::time::Instant;
use model::{Instance, InterfaceName, NbmaAddr, TableId};

use super::agreed::{Agreed, Who};
use super::held::{Datagram, Follows, Sent};
use super::topology::Domain;
use super::{Conductor, Output, event};

/// How long an NHRP packet waits for the SA that it goes by.
const PATIENCE: Duration = Duration::from_secs(2);
/// Packets that wait so, in all.
const MOST_WAITING: usize = 4096;
/// The same for one peer.
const MOST_OF_PEER: usize = 16;
/// Peers whose last failure is remembered for `show dmvpn`.
const MOST_FAILURES: usize = 1024;
/// UDP ports of IKE (RFC 7296 §2.23).
const PORTS: [u16; 2] = [500, 4500];

/// What the files of profiles hold.
pub type AllCredentials = BTreeMap<ProfileName, Arc<Credentials>>;

/// A UDP socket of IKE.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The table whose packets it takes.
    pub table: TableId,
    /// The network namespace of that table; `None`: that of this process.
    pub netns: Option<String>,
    /// Address and port.
    pub local: SocketAddr,
}

/// What the data plane is, as IKE has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Home {
    workers: u16,
    slots: u32,
}

/// IKE, and what it is told.
#[derive(Debug)]
pub(super) struct Ike {
    engine: ike::Engine,
    credentials: AllCredentials,
    /// What it is told of profiles, tunnels or the data plane may be another thing now.
    pub(super) is_old: bool,
    /// As it was configured last.
    configured: Vec<ike::Profile>,
    endpoints: Vec<Endpoint>,
    /// More are open than these.
    are_some_to_close: bool,
    instance: Option<Instance>,
    home: Option<Home>,
    /// SPIs of static keys, as they were told last; `None`: the data plane is to be told.
    reserved: Option<Vec<Spi>>,
    /// It is another data plane than before, and the engine does not know it yet.
    is_new: bool,
    /// SAs of a former life, for the engine.
    to_adopt: Vec<Adopted>,
    /// SAs of a former life that are in the data plane.
    adopted: BTreeSet<Key>,
    /// Steps for SAs that no desired program has.
    steps: Vec<Op>,
    pub(super) agreed: Agreed,
    /// Peers whose SAs are on their way to the data plane: what packets to them follow.
    fresh: BTreeMap<Protection, Follows>,
    /// Who is wanted, and was not said yet.
    wants: BTreeSet<Protection>,
    /// Servers, as they were said.
    servers: BTreeSet<Protection>,
    waiting: VecDeque<Waiting>,
    failures: BTreeMap<IpAddr, String>,
    /// NHRP packets for which there was no SA in time.
    unprotected: u64,
}

/// A packet that waits for an SA.
#[derive(Debug)]
struct Waiting {
    until: Instant,
    /// With the port that was heard of the peer.
    peer: Protection,
    packet: PacketOut,
}

impl Ike {
    pub(super) fn new(crypto: Box<dyn ike::Crypto>) -> Self {
        Self {
            engine: ike::Engine::new(crypto),
            credentials: AllCredentials::new(),
            is_old: true,
            configured: Vec::new(),
            endpoints: Vec::new(),
            are_some_to_close: false,
            instance: None,
            home: None,
            reserved: None,
            is_new: false,
            to_adopt: Vec::new(),
            adopted: BTreeSet::new(),
            steps: Vec::new(),
            agreed: Agreed::default(),
            fresh: BTreeMap::new(),
            wants: BTreeSet::new(),
            servers: BTreeSet::new(),
            waiting: VecDeque::new(),
            failures: BTreeMap::new(),
            unprotected: 0,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|waiting| waiting.until);
        [self.engine.next_deadline(), waiting].into_iter().flatten().min()
    }

    /// NHRP packets that were dropped because no SA came in time.
    pub(super) fn unprotected(&self) -> u64 {
        self.unprotected
    }

    /// IKE messages that were not accepted, by reason.
    pub(super) fn rejects(&self) -> impl Iterator<Item = (ike::Reject, u64)> {
        self.engine.rejects()
    }

    /// Steps for SAs that no desired program has.
    pub(super) fn take_steps(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.steps)
    }
}

/// Whether the engine would notice a difference.
fn is_same(one: &ike::Profile, other: &ike::Profile) -> bool {
    let what = |p: &ike::Profile| (p.name, p.mode, p.replay_window, p.lifetimes);
    what(one) == what(other)
        && (&one.ike, &one.sources) == (&other.ike, &other.sources)
        && Arc::ptr_eq(&one.credentials, &other.credentials)
}

/// An SA as somebody who did not make it names it.
fn adopted_of(object: &Object) -> Option<Adopted> {
    match object {
        Object::InboundSa(sa) => Some(Adopted {
            peer: sa.protection,
            direction: Direction::Inbound,
            spi: sa.spi,
            worker: model::WorkerId(sa.spi.worker()),
        }),
        Object::OutboundSa(sa) => Some(Adopted {
            peer: sa.protection,
            direction: Direction::Outbound,
            spi: sa.spi,
            worker: sa.worker,
        }),
        _ => None,
    }
}

/// Being told.
impl Conductor {
    /// What the files of the profiles hold. Said before the first input, and with each configuration.
    pub fn hold_credentials(&mut self, credentials: AllCredentials) {
        self.ike.credentials = credentials;
        self.ike.is_old = true;
    }

    /// What they hold.
    #[must_use]
    pub fn credentials(&self) -> &AllCredentials {
        &self.ike.credentials
    }

    /// Another cryptography than that of the library. Said before anything else.
    pub fn encrypt_by(&mut self, crypto: Box<dyn ike::Crypto>) {
        self.ike = Ike::new(crypto);
    }

    /// The data plane is there, with these SAs of IKE. In another one than before there is none, and none of those that there were is put again.
    pub(super) fn greet_ike(&mut self, instance: Instance, (workers, slots): (u16, u32), there: &[Object]) {
        let is_first = self.ike.instance.is_none();
        let is_new = self.ike.instance.replace(instance) != Some(instance);
        self.ike.home = Some(Home { workers: workers.max(1), slots });
        self.ike.reserved = None;
        self.ike.is_old = true;
        self.ike.is_new |= is_new;
        if is_new {
            self.forget_ike();
        }
        if is_first {
            self.ike.to_adopt = there.iter().filter_map(adopted_of).collect();
            self.ike.adopted = there.iter().map(Object::key).collect();
            return;
        }
        // What was to go when the connection went.
        self.ike.adopted.retain(|key| there.iter().any(|object| object.key() == *key));
        let is_ours =
            |key: &Key| self.desired.object(Owner::Ike, *key).is_some() || self.ike.adopted.contains(key);
        let stale = there.iter().map(Object::key).filter(|key| !is_ours(key));
        self.ike.steps = stale.map(|key| Op::Remove(Owner::Ike, key)).collect();
    }

    /// Nothing of IKE is in the data plane, and nothing that was is ever put into it.
    fn forget_ike(&mut self) {
        let keys: Vec<Key> = self.desired.of(Owner::Ike).map(|(key, _)| key).collect();
        for key in keys {
            self.desired.remove(Owner::Ike, key);
        }
        self.ike.adopted.clear();
        self.ike.steps.clear();
    }

    /// Brings IKE into line with everything else: profiles, sockets, the data plane, and who is wanted.
    pub(super) fn follow_ike(&mut self, now: Instant, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.ike.is_old) {
            self.configure_ike(now, out);
            self.listen(out);
            self.tell_home(now, out);
        }
        if self.ike.engine.next_deadline().is_some_and(|due| due <= now) {
            self.ike(now, ike::Input::Tick, out);
        }
        while self.ike.reserved.is_some() && self.is_engine_started && !self.ike.wants.is_empty() {
            let servers = self.servers();
            for peer in std::mem::take(&mut self.ike.wants) {
                self.say_want(now, peer, &servers, out);
            }
        }
        self.expire_waiting(now);
    }

    fn configure_ike(&mut self, now: Instant, out: &mut Vec<Output>) {
        let mut profiles = Vec::new();
        for profile in &self.config.profiles {
            let section: Option<&Section> = profile.ike.as_ref();
            let (Some(section), Some(credentials)) = (section, self.ike.credentials.get(&profile.name))
            else {
                continue;
            };
            let domains = self.topology.domains.values().filter(|domain| domain.profile == profile.name);
            let sources: BTreeSet<_> = domains.map(|domain| (domain.table, domain.local)).collect();
            profiles.push(ike::Profile {
                name: profile.name,
                mode: profile.mode,
                replay_window: profile.replay_window,
                lifetimes: profile.lifetimes,
                ike: section.clone(),
                credentials: Arc::clone(credentials),
                sources: sources.into_iter().collect(),
            });
        }
        let old = &self.ike.configured;
        if old.len() == profiles.len() && old.iter().zip(&profiles).all(|(old, new)| is_same(old, new)) {
            return;
        }
        self.ike.configured.clone_from(&profiles);
        self.ike(now, ike::Input::Configure(profiles), out);
        self.want_all();
    }

    /// The sockets that are to be open: two for each of our addresses that peers may come to.
    fn listen(&mut self, out: &mut Vec<Output>) {
        let sources: BTreeSet<_> = self.ike.configured.iter().flat_map(|profile| &profile.sources).collect();
        let endpoint = |(table, local): &(TableId, NbmaAddr), port| Endpoint {
            table: *table,
            netns: self.config.netns(*table),
            local: SocketAddr::new(local.0, port),
        };
        let wanted: Vec<_> =
            sources.into_iter().flat_map(|source| PORTS.map(|port| endpoint(source, port))).collect();
        if wanted == self.ike.endpoints {
            return;
        }
        // By those that go peers are told so: they are closed when that has been sent.
        let mut both = wanted.clone();
        both.extend(self.ike.endpoints.iter().filter(|old| !wanted.contains(old)).cloned());
        self.ike.are_some_to_close = both.len() > wanted.len();
        self.ike.endpoints = wanted;
        out.push(Output::Listen(both));
    }

    /// Closes the sockets that nobody is at any more, behind the last words.
    pub(super) fn close_sockets(&mut self, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.ike.are_some_to_close) {
            out.push(Output::Listen(self.ike.endpoints.clone()));
        }
    }

    /// Whose inbound SPIs are to be chosen, and which of them are taken.
    fn tell_home(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(Home { workers, slots }) = self.ike.home else { return };
        let statics = self.topology.objects.iter().filter_map(|object| match object {
            Object::InboundSa(sa) => Some(sa.spi),
            _ => None,
        });
        let reserved: Vec<Spi> = statics.collect();
        if self.ike.reserved.as_ref() == Some(&reserved) {
            return;
        }
        self.ike.reserved = Some(reserved.clone());
        let is_new = std::mem::take(&mut self.ike.is_new);
        self.ike(now, ike::Input::Dataplane { workers, slots, reserved, is_new }, out);
        let adopted = std::mem::take(&mut self.ike.to_adopt);
        if !adopted.is_empty() {
            let outbound = adopted.iter().filter(|sa| sa.direction == Direction::Outbound);
            let peers: BTreeSet<Protection> = outbound.map(|sa| sa.peer).collect();
            for peer in peers {
                self.ike.agreed.insert(peer, Who::default());
                self.point_anew(now, Domain::of(&peer), peer.remote, out);
            }
            self.ike(now, ike::Input::Adopt(adopted), out);
        }
    }

    /// A datagram came to one of the sockets.
    pub(super) fn datagram(&mut self, now: Instant, datagram: Datagram, out: &mut Vec<Output>) {
        // Without a data plane there is nothing to agree on SAs for.
        if self.ike.reserved.is_some() {
            let Datagram { table, local, remote, bytes } = datagram;
            self.ike(now, ike::Input::Datagram { table, local, remote, bytes }, out);
        }
    }

    /// Authentic packets came by these SAs.
    pub(super) fn sas_used(&mut self, now: Instant, spis: Vec<Spi>, out: &mut Vec<Output>) {
        let is_of_ike = |spi: &Spi| {
            let key = Key::InboundSa(*spi);
            self.desired.object(Owner::Ike, key).is_some() || self.ike.adopted.contains(&key)
        };
        let inbound: Vec<Spi> = spis.into_iter().filter(is_of_ike).collect();
        if !inbound.is_empty() {
            self.ike(now, ike::Input::Used { inbound, outbound: Vec::new() }, out);
        }
    }

    /// These next hops of a tunnel carried packets.
    pub(super) fn hops_used(
        &mut self,
        now: Instant,
        tunnel: InterfaceName,
        next_hops: &[model::ProtocolAddr],
        out: &mut Vec<Output>,
    ) {
        let Some(domain) = self.topology.domains.get(&tunnel).copied() else { return };
        let peer = |next_hop: &model::ProtocolAddr| match self
            .desired
            .object(Owner::Nhrp, Key::Binding(tunnel, *next_hop))
        {
            Some(Object::Binding(binding)) => self.ike.agreed.find(domain, binding.nbma, binding.port),
            _ => None,
        };
        let outbound: Vec<Protection> = next_hops.iter().filter_map(peer).collect();
        if !outbound.is_empty() {
            self.ike(now, ike::Input::Used { inbound: Vec::new(), outbound }, out);
        }
    }

    /// Whether IKE makes the SAs of a profile.
    pub(super) fn is_of_ike(&self, profile: ProfileName) -> bool {
        self.topology.domains.values().any(|domain| domain.profile == profile)
    }

    /// The peer of an inbound SA of IKE.
    pub(super) fn peer_of(&self, spi: Spi) -> Option<Protection> {
        match self.desired.object(Owner::Ike, Key::InboundSa(spi)) {
            Some(Object::InboundSa(sa)) => Some(sa.protection),
            _ => None,
        }
    }

    /// Who a packet came from, by what protected it; `None`: it is not to be taken, because what its sender may register is not known.
    pub(super) fn sender(
        &self,
        nbma: NbmaAddr,
        port: Option<u16>,
        tunnel: InterfaceName,
        spi: Option<Spi>,
    ) -> Option<nhrp::Sender> {
        let mut sender = nhrp::Sender { port, ..nbma.into() };
        let Some(domain) = self.topology.domains.get(&tunnel) else { return Some(sender) };
        let who = spi.and_then(|spi| self.peer_of(spi)).and_then(|peer| self.ike.agreed.who(&peer));
        let identity = who.and_then(|who| who.identity.clone());
        let section = self.config.profile(domain.profile).and_then(|profile| profile.ike.as_ref());
        if section.is_some_and(|ike| ike.registers == Registers::Certified) {
            let mut certified = who?.addresses.clone();
            // Of an SA of a former life nobody knows who it is; its peer comes again by a new one.
            if let Identity::Address(own) = identity.as_ref()? {
                certified.push(*own);
            }
            sender.certified = Some(certified);
        }
        sender.identity = identity.map(|identity| identity.to_string());
        Some(sender)
    }
}

/// Who is wanted.
impl Conductor {
    /// Somebody wants to talk to a peer of a tunnel. It is said to the engine at the end of the turn.
    pub(super) fn want_peer(&mut self, tunnel: InterfaceName, nbma: NbmaAddr, heard: u16) {
        if let Some(domain) = self.topology.domains.get(&tunnel)
            && domain.local.0.is_ipv4() == nbma.0.is_ipv4()
        {
            self.ike.wants.insert(domain.peer(nbma, heard));
        }
    }

    /// Everybody whom the program knows.
    pub(super) fn want_all(&mut self) {
        let objects = [Owner::Config, Owner::Nhrp].into_iter().flat_map(|owner| self.desired.of(owner));
        let peers: Vec<_> = objects.filter_map(|(_, object)| peer_of(object)).collect();
        for (tunnel, nbma, port) in peers {
            self.want_peer(tunnel, nbma, port);
        }
        self.want_destinations();
    }

    /// The one peer of each point-to-point tunnel.
    pub(super) fn want_destinations(&mut self) {
        let destinations = self.config.tunnels.iter().filter_map(|t| Some((t.name, t.destination?)));
        for (tunnel, nbma) in destinations.collect::<Vec<_>>() {
            self.want_peer(tunnel, nbma, 0);
        }
    }

    /// Packets want an SA with the peer behind this next hop.
    pub(super) fn glean_sa(&mut self, tunnel: InterfaceName, next_hop: model::ProtocolAddr) {
        if let Some(Object::Binding(binding)) =
            self.desired.object(Owner::Nhrp, Key::Binding(tunnel, next_hop))
        {
            let (nbma, port) = (binding.nbma, binding.port);
            self.want_peer(tunnel, nbma, port);
        }
    }

    /// Who is tried for ever, and not let go when idle: next-hop servers, and every other peer that the configuration names (of maps, of
    /// multicast, of point-to-point tunnels).
    fn servers(&self) -> BTreeSet<(Domain, NbmaAddr)> {
        if self.topology.domains.is_empty() {
            return BTreeSet::new();
        }
        let domain = |tunnel: &InterfaceName| self.topology.domains.get(tunnel).copied();
        // Those of the engine include what DNS names stand for.
        let known = self.engine.servers(Instant::default());
        let known = known.iter().filter_map(|server| Some((domain(&server.tunnel)?, server.nbma?)));
        let tunnels = self.config.tunnels.iter().filter_map(|tunnel| Some((domain(&tunnel.name)?, tunnel)));
        let named = tunnels.flat_map(|(domain, tunnel)| tunnel.peers().map(move |nbma| (domain, nbma)));
        known.chain(named).collect()
    }

    fn say_want(
        &mut self,
        now: Instant,
        peer: Protection,
        servers: &BTreeSet<(Domain, NbmaAddr)>,
        out: &mut Vec<Output>,
    ) {
        let domain = Domain::of(&peer);
        let is_server = servers.contains(&(domain, peer.remote));
        let was_server =
            if is_server { !self.ike.servers.insert(peer) } else { self.ike.servers.remove(&peer) };
        let found = self.ike.agreed.find(domain, peer.remote, peer.port);
        let is_known =
            found.and_then(|found| self.ike.agreed.who(&found)).is_some_and(|who| who.identity.is_some());
        // A server that is up has to be known as one all the same.
        if !is_known || is_server != was_server {
            self.ike(now, ike::Input::Want { peer: found.unwrap_or(peer), is_server }, out);
        }
    }

    /// Servers may be others now.
    pub(super) fn review_servers(&mut self) {
        self.ike.wants.extend(self.ike.servers.iter().copied());
    }
}

/// What it wants.
impl Conductor {
    /// Gives the engine its input and does what it wants.
    pub(super) fn ike(&mut self, now: Instant, input: ike::Input, out: &mut Vec<Output>) {
        let mut actions = Vec::new();
        self.ike.engine.handle(now, input, &mut actions);
        // What is sent behind an SA promises it.
        let mut follows = Follows::Nothing;
        for action in actions {
            match action {
                Action::Send { table, local, remote, bytes } => {
                    let datagram = Datagram { table, local, remote, bytes };
                    // Behind an SA that nobody takes nothing is promised: the peer asks again.
                    if follows == Follows::Nothing || self.is_programmed() {
                        self.held.push(follows, Sent::Datagram(datagram));
                    }
                }
                Action::Put(object) => {
                    follows = Follows::Turn;
                    self.ike.adopted.remove(&object.key());
                    self.desired.put(now, Owner::Ike, object);
                }
                Action::Remove(key) => self.remove_sa(now, key, out),
                Action::Up { peer, was, identity, addresses } => {
                    let who = Who { identity: Some(identity), addresses };
                    self.peer_up(now, peer, was, who, out);
                }
                Action::Down { peer, is_dead } => self.peer_down(now, peer, is_dead, out),
                Action::Event(event) => self.ike_event(event, out),
            }
        }
    }

    fn ike_event(&mut self, event: ike::Event, out: &mut Vec<Output>) {
        if let ike::Event::Failed { remote, reason, .. } = &event
            && (self.ike.failures.len() < MOST_FAILURES || self.ike.failures.contains_key(&remote.ip()))
        {
            self.ike.failures.insert(remote.ip(), reason.clone());
        }
        out.push(Output::Event(event::of_ike(event)));
    }

    fn remove_sa(&mut self, now: Instant, key: Key, out: &mut Vec<Output>) {
        if self.desired.object(Owner::Ike, key).is_some() {
            return self.desired.remove(Owner::Ike, key);
        }
        if !self.ike.adopted.remove(&key) {
            return;
        }
        self.ike.steps.push(Op::Remove(Owner::Ike, key));
        // The last one by which packets went to a peer of a former life.
        let Key::OutboundSa(peer, _) = key else { return };
        let is_last =
            !self.ike.adopted.iter().any(|other| matches!(other, Key::OutboundSa(of, _) if *of == peer));
        let is_former = self.ike.agreed.who(&peer).is_some_and(|who| who.identity.is_none());
        if is_last && is_former {
            self.ike.agreed.remove(&peer);
            self.point_anew(now, Domain::of(&peer), peer.remote, out);
        }
    }

    fn peer_up(
        &mut self,
        now: Instant,
        peer: Protection,
        was: Option<Protection>,
        who: Who,
        out: &mut Vec<Output>,
    ) {
        let domain = Domain::of(&peer);
        self.ike.failures.remove(&peer.remote.0);
        let moved = was.filter(|was| *was != peer);
        if let Some(was) = moved {
            self.ike.agreed.remove(&was);
        }
        let is_new = self.ike.agreed.insert(peer, who);
        self.ike.fresh.insert(peer, Follows::Turn);
        if let Some(was) = moved {
            let (from_port, to_port) = (some_port(was.port), some_port(peer.port));
            for tunnel in self.tunnels_of(domain) {
                let (from, to) = (was.remote, peer.remote);
                self.tell_nhrp(now, nhrp::Input::Moved { tunnel, from, from_port, to, to_port }, out);
            }
            self.point_anew(now, domain, was.remote, out);
        }
        self.point_anew(now, domain, peer.remote, out);
        let (ready, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.ike.waiting).into_iter().partition(|w| {
                Domain::of(&w.peer) == domain
                    && self.ike.agreed.find(domain, w.peer.remote, w.peer.port) == Some(peer)
            });
        self.ike.waiting = waiting;
        for Waiting { packet, .. } in ready {
            self.hold(Follows::Turn, PacketOut { port: peer.port, ..packet });
        }
        if is_new && moved.is_none() {
            for tunnel in self.tunnels_of(domain) {
                self.tell_nhrp(now, nhrp::Input::Protected { tunnel, nbma: peer.remote }, out);
            }
        }
    }

    fn peer_down(&mut self, now: Instant, peer: Protection, is_dead: bool, out: &mut Vec<Output>) {
        let domain = Domain::of(&peer);
        self.ike.agreed.remove(&peer);
        self.point_anew(now, domain, peer.remote, out);
        if is_dead {
            for tunnel in self.tunnels_of(domain) {
                let (nbma, port) = (peer.remote, some_port(peer.port));
                self.tell_nhrp(now, nhrp::Input::Lost { tunnel, nbma, port }, out);
            }
        }
    }

    fn tell_nhrp(&mut self, now: Instant, input: nhrp::Input, out: &mut Vec<Output>) {
        if self.is_engine_started {
            self.engine(now, input, out);
        }
    }

    fn tunnels_of(&self, domain: Domain) -> Vec<InterfaceName> {
        self.topology.domains.iter().filter(|(_, of)| **of == domain).map(|(name, _)| *name).collect()
    }

    /// The port of a peer may be another one now: what NHRP has there without a port of its own is programmed to that.
    fn point_anew(&mut self, now: Instant, domain: Domain, remote: NbmaAddr, out: &mut Vec<Output>) {
        let port = self.ike.agreed.only_port(domain, remote);
        for tunnel in self.tunnels_of(domain) {
            if self.topology.only_port(tunnel, remote) == port {
                continue;
            }
            let on_it = self.stack.objects(domain.table, remote).into_iter();
            let of_nhrp = on_it.filter(|(owner, key)| *owner == Owner::Nhrp && is_on(*key, tunnel));
            let keys: Vec<Key> = of_nhrp.map(|(_, key)| key).collect();
            let mut said = Vec::new();
            for key in &keys {
                if let Op::Put(_, object) = self.desired.step(now, Owner::Nhrp, *key) {
                    said.push(self.as_said(&self.topology, object));
                }
            }
            for key in keys {
                self.uninstall(key);
            }
            self.topology.set_only_port(tunnel, remote, port);
            // Nobody wants more than before because of that: who was let go stays so.
            let wants = self.ike.wants.clone();
            for object in said {
                self.install(now, object, out);
            }
            self.ike.wants = wants;
            let is_destination =
                |t: &model::config::Tunnel| t.name == tunnel && t.destination == Some(remote);
            self.is_topology_old |= self.config.tunnels.iter().any(is_destination);
        }
    }
}

/// NHRP packets that wait for SAs.
impl Conductor {
    /// Sends a packet to a peer of a protected tunnel: by its SA, or when there is one.
    pub(super) fn send_protected(&mut self, now: Instant, domain: Domain, packet: PacketOut) {
        let peer = domain.peer(packet.destination, packet.port);
        if let Some(found) = self.ike.agreed.find(domain, peer.remote, peer.port) {
            let follows = self.follows(&found);
            return self.hold(follows, PacketOut { port: found.port, ..packet });
        }
        self.want_peer(packet.tunnel, peer.remote, peer.port);
        let of_peer = self.ike.waiting.iter().filter(|waiting| waiting.peer == peer).count();
        if of_peer >= MOST_OF_PEER || self.ike.waiting.len() >= MOST_WAITING {
            self.ike.unprotected += 1;
            return;
        }
        self.ike.waiting.push_back(Waiting { until: now + PATIENCE, peer, packet });
    }

    /// What a packet to a peer that is up follows: its SA, as long as the data plane may not have it.
    fn follows(&self, peer: &Protection) -> Follows {
        self.ike.fresh.get(peer).copied().unwrap_or(Follows::Nothing)
    }

    /// The turn ends with these steps.
    pub(super) fn number_fresh(&mut self) {
        let (last, taken) = (self.steps, self.taken);
        self.ike.fresh.retain(|_, follows| {
            if *follows == Follows::Turn {
                *follows = Follows::Steps(last);
            }
            matches!(follows, Follows::Steps(number) if *number > taken)
        });
    }

    /// For whom no SA came in time: the answer to a resolution reaches him by the server, and anything else is said again by who said it.
    fn expire_waiting(&mut self, now: Instant) {
        while let Some(Waiting { packet, .. }) = self.ike.waiting.pop_front_if(|waiting| waiting.until <= now)
        {
            match self.by_server(&packet).filter(|_| nhrp::is_resolution_reply(&packet.bytes)) {
                Some(found) => {
                    let follows = self.follows(&found);
                    self.hold(follows, PacketOut { destination: found.remote, port: found.port, ..packet });
                }
                None => self.ike.unprotected += 1,
            }
        }
    }

    /// The server that packets without a way of their own go to, if it is protected and another one.
    fn by_server(&self, packet: &PacketOut) -> Option<Protection> {
        let domain = self.topology.domains.get(&packet.tunnel)?;
        let fallback = self.desired.object(Owner::Nhrp, Key::Fallback(packet.tunnel))?;
        let Object::Fallback(Fallback { next_hop, .. }) = fallback else { return None };
        let binding = self.desired.object(Owner::Nhrp, Key::Binding(packet.tunnel, *next_hop))?;
        let Object::Binding(Binding { nbma, port, .. }) = binding else { return None };
        let found = self.ike.agreed.find(*domain, *nbma, *port)?;
        (found.remote != packet.destination).then_some(found)
    }
}

/// What operators see and do.
impl Conductor {
    /// IKE SAs, and peers that are wanted and have none.
    pub(super) fn show_ike(&self, now: Instant) -> IkeSas {
        IkeSas(self.ike.engine.sas(now))
    }

    /// Why a peer of a tunnel cannot be reached for want of an SA; `None`: it has one, or needs none.
    pub(super) fn unprotected_peer(
        &self,
        tunnel: InterfaceName,
        nbma: NbmaAddr,
        port: u16,
    ) -> Option<String> {
        let domain = *self.topology.domains.get(&tunnel)?;
        if self.ike.agreed.find(domain, nbma, port).is_some() {
            return None;
        }
        let why = self.ike.failures.get(&nbma.0);
        Some(why.map_or_else(
            || "there is no SA with it now".to_owned(),
            |why| format!("there is no SA with it: {why}"),
        ))
    }

    /// Ends IKE SAs with a peer; returns how many.
    pub fn clear_ike(&mut self, now: Instant, peer: &Identity, out: &mut Vec<Output>) -> u64 {
        let remote = match peer {
            Identity::Address(address) => Some(NbmaAddr(*address)),
            _ => None,
        };
        let is_meant = |sa: &model::state::ike::IkeSa| {
            sa.state != IkeState::Waiting
                && (Some(sa.protection.remote) == remote || sa.identity.as_ref() == Some(peer))
        };
        let cleared = self.show_ike(now).0.iter().filter(|sa| is_meant(sa)).count();
        if remote.is_some() {
            self.ike(now, ike::Input::Clear(ike::Clear { remote, identity: None }), out);
        }
        let identity = Some(peer.clone());
        self.ike(now, ike::Input::Clear(ike::Clear { remote: None, identity }), out);
        self.settle(now, out);
        cleared as u64
    }

    /// The node stops: peers are told, and no SA of IKE stays.
    pub(super) fn stop_ike(&mut self, now: Instant, out: &mut Vec<Output>) {
        let known = self.desired.of(Owner::Ike).map(|(key, _)| key);
        let known: BTreeSet<Key> = known.chain(self.ike.adopted.iter().copied()).collect();
        self.ike(now, ike::Input::Shutdown, out);
        self.forget_ike();
        self.ike.steps = known.into_iter().rev().map(|key| Op::Remove(Owner::Ike, key)).collect();
    }
}

/// A port as NHRP has it.
fn some_port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// The peer that an object is about.
fn peer_of(object: &Object) -> Option<(InterfaceName, NbmaAddr, u16)> {
    match object {
        Object::Binding(Binding { tunnel, nbma, port, .. })
        | Object::Replica(Replica { tunnel, nbma, port, .. }) => Some((*tunnel, *nbma, *port)),
        Object::Tunnel(tunnel) => match tunnel.mode {
            TunnelMode::PointToPoint { destination } => Some((tunnel.name, destination, 0)),
            TunnelMode::Multipoint => None,
        },
        _ => None,
    }
}

fn is_on(key: Key, tunnel: InterfaceName) -> bool {
    matches!(key, Key::Binding(of, _) | Key::Replica(of, _, _) if of == tunnel)
}
