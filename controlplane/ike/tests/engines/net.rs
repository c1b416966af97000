//! The bench: nodes, an underlay, a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ike::crypto::fake::Fake;
use ike::input::Adopted;
use ike::{Action, Credentials, Crypto, Engine, Event, Input, Profile, Reject};
use model::ike::Identity;
use model::program::{InboundSa, Key, Object, OutboundSa};
use model::sa::{Direction, Lifetimes, ProfileName, Protection, SaMode, Spi};
use model::state::ike::{IkeSa, IkeState};
use model::time::Instant;
use model::{NbmaAddr, TableId, WorkerId};

use crate::made::{Files, NOW};

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn profile_name() -> ProfileName {
    "branch".parse().unwrap()
}

thread_local! {
    /// The underlay is IPv6.
    static IPV6: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From here on the underlay of this test is IPv6.
pub(crate) fn over_ipv6() {
    IPV6.set(true);
}

/// Where a node is, as it sees itself.
pub(crate) fn address(node: usize) -> IpAddr {
    if IPV6.get() {
        return std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, node as u16 + 1).into();
    }
    Ipv4Addr::new(10, 0, (node / 250) as u8, (node % 250 + 1) as u8).into()
}

/// What most nodes have.
pub(crate) const PSK: &str = "psk = [{ secret = 'of all' }]\n";

/// A NAT in front of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nat {
    /// Its address outside.
    pub(crate) outside: IpAddr,
    /// Port 500 of the node looks like this one outside, and 4500 like the next one.
    pub(crate) first: u16,
}

/// A node: the engine, what its data plane has, and what it said.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) config: String,
    /// Further profiles of the same source.
    pub(crate) others: Vec<(&'static str, String)>,
    pub(crate) mode: SaMode,
    pub(crate) workers: u16,
    pub(crate) slots: u32,
    pub(crate) inbound: BTreeMap<Spi, InboundSa>,
    /// What a data plane before had.
    lost: BTreeSet<Spi>,
    pub(crate) outbound: BTreeMap<(Protection, WorkerId), OutboundSa>,
    /// Whom it was told that it can talk to.
    pub(crate) up: BTreeMap<Protection, Identity>,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) downs: Vec<(Instant, Protection, bool)>,
    pub(crate) sent: Vec<(Instant, SocketAddr, Vec<u8>)>,
    pub(crate) alive: bool,
    /// Without a control plane its data plane goes on.
    pub(crate) has_control: bool,
    lives: u64,
    deadline: Option<Instant>,
}

/// Engines, and what is between them.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    queue: BTreeMap<(Instant, u64), (usize, Input)>,
    order: u64,
    deadlines: BTreeSet<(Instant, usize)>,
    pub(crate) latency: Duration,
    /// Faults of the underlay, in thousandths of its packets.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Extra delay, by chance up to this: so messages overtake each other.
    pub(crate) shaken: Duration,
    chance: u64,
    pub(crate) nat: BTreeMap<usize, Nat>,
    /// What is asked of every message.
    pub(crate) loses: Option<Loses>,
    /// Keys that were programmed for sealing, and for opening.
    sealed: BTreeSet<Vec<u8>>,
    opened: BTreeSet<Vec<u8>>,
    /// A data plane was lost: what was there may be there no more.
    had_losses: bool,
    /// Pairs that talk every ten milliseconds, and what of that was lost or could not leave.
    talks: Vec<Talk>,
    ticks: Instant,
    /// Messages get lost, or come late.
    pub(crate) is_bad: bool,
    pub(crate) real: bool,
    pub(crate) seed: u64,
    /// Files that profiles name.
    pub(crate) files: Files,
}

/// Whether a message gets lost, by its sender and its bytes.
pub(crate) type Loses = Box<dyn FnMut(usize, &[u8]) -> bool>;

/// A conversation.
pub(crate) struct Talk {
    from: usize,
    to: usize,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) held: u64,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrived,
    /// There is no SA to send it by.
    Held,
    Lost,
}

/// Making nets.
impl Net {
    /// So many nodes with this configuration, not begun.
    pub(crate) fn new(nodes: usize, config: &str) -> Self {
        Self::seeded(nodes, config, 1)
    }

    pub(crate) fn seeded(nodes: usize, config: &str, seed: u64) -> Self {
        let mut net = Self {
            now: Instant(NOW * 1_000_000),
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            order: 0,
            deadlines: BTreeSet::new(),
            latency: millis(10),
            lost: 0,
            doubled: 0,
            shaken: Duration::ZERO,
            chance: seed,
            nat: BTreeMap::new(),
            loses: None,
            sealed: BTreeSet::new(),
            opened: BTreeSet::new(),
            had_losses: false,
            talks: Vec::new(),
            ticks: Instant(NOW * 1_000_000),
            is_bad: false,
            real: false,
            seed,
            files: Files::default(),
        };
        for _ in 0..nodes {
            net.nodes.push(Node {
                engine: Engine::new(Box::new(Fake::new(0))),
                config: config.to_owned(),
                others: Vec::new(),
                mode: SaMode::Transport,
                workers: 2,
                slots: 4096,
                inbound: BTreeMap::new(),
                lost: BTreeSet::new(),
                outbound: BTreeMap::new(),
                up: BTreeMap::new(),
                events: Vec::new(),
                downs: Vec::new(),
                sent: Vec::new(),
                alive: true,
                has_control: true,
                lives: 0,
                deadline: None,
            });
        }
        net
    }

    /// Starts all of them.
    pub(crate) fn start(&mut self) {
        for node in 0..self.nodes.len() {
            self.start_one(node, true);
        }
    }

    /// A new life of a control plane.
    pub(crate) fn start_one(&mut self, node: usize, is_new: bool) {
        let n = &mut self.nodes[node];
        n.lives += 1;
        let seed = self.seed << 20 | (node as u64) << 8 | n.lives;
        let crypto: Box<dyn Crypto> =
            if self.real { Box::new(ike::crypto::aws_lc::AwsLc) } else { Box::new(Fake::new(seed)) };
        n.engine = Engine::new(crypto);
        n.alive = true;
        n.has_control = true;
        n.up.clear();
        self.configure(node);
        self.greet(node, is_new);
    }

    /// Tells a node its configuration.
    pub(crate) fn configure(&mut self, node: usize) {
        let n = &self.nodes[node];
        let all =
            std::iter::once(("branch", &n.config)).chain(n.others.iter().map(|(name, ike)| (*name, ike)));
        let profiles = all.map(|(name, ike)| {
            let ike: model::config::Ike = toml::from_str(ike).unwrap();
            let credentials = Credentials::load(&ike, &|path| self.files.read(path)).unwrap();
            Profile {
                name: name.parse().unwrap(),
                mode: n.mode,
                replay_window: 1024,
                lifetimes: Lifetimes::default(),
                ike,
                credentials: Arc::new(credentials),
                sources: vec![(TableId(0), NbmaAddr(address(node)))],
            }
        });
        let profiles = profiles.collect();
        self.give(node, Input::Configure(profiles));
    }

    /// A data plane is there.
    pub(crate) fn greet(&mut self, node: usize, is_new: bool) {
        let n = &mut self.nodes[node];
        if is_new {
            self.had_losses |= !n.inbound.is_empty();
            n.lost = std::mem::take(&mut n.inbound).into_keys().collect();
            n.outbound.clear();
        }
        let (workers, slots) = (n.workers, n.slots);
        self.give(node, Input::Dataplane { workers, slots, reserved: Vec::new(), is_new });
    }
}

/// What happens to nodes.
impl Net {
    /// How a node knows another.
    pub(crate) fn peer(&self, of: usize, to: usize) -> Protection {
        let (remote, port) = match self.nat.get(&to) {
            Some(nat) => (nat.outside, nat.first + 1),
            None => (address(to), if self.nat.contains_key(&of) { 4500 } else { 0 }),
        };
        let (local, remote) = (NbmaAddr(address(of)), NbmaAddr(remote));
        Protection { profile: profile_name(), table: TableId(0), local, remote, port }
    }

    pub(crate) fn want(&mut self, node: usize, to: usize) {
        let peer = Protection { port: 0, ..self.peer(node, to) };
        self.give(node, Input::Want { peer, is_server: false });
    }

    pub(crate) fn want_server(&mut self, node: usize, to: usize) {
        let peer = Protection { port: 0, ..self.peer(node, to) };
        self.give(node, Input::Want { peer, is_server: true });
    }

    /// kill -9 of the control plane alone.
    pub(crate) fn behead(&mut self, node: usize) {
        self.nodes[node].has_control = false;
        self.unwind(node);
    }

    /// Power off.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.had_losses = true;
        self.nodes[node].inbound.clear();
        self.nodes[node].outbound.clear();
        self.unwind(node);
    }

    /// A control plane comes back to a data plane that went on.
    pub(crate) fn adopt(&mut self, node: usize) {
        self.start_one(node, false);
        let n = &self.nodes[node];
        let inbound = n.inbound.values().map(|sa| Adopted {
            peer: sa.protection,
            direction: Direction::Inbound,
            spi: sa.spi,
            worker: WorkerId(sa.spi.worker()),
        });
        let outbound = n.outbound.values().map(|sa| Adopted {
            peer: sa.protection,
            direction: Direction::Outbound,
            spi: sa.spi,
            worker: sa.worker,
        });
        let adopted = inbound.chain(outbound).collect();
        self.give(node, Input::Adopt(adopted));
    }

    fn unwind(&mut self, node: usize) {
        if let Some(old) = self.nodes[node].deadline.take() {
            self.deadlines.remove(&(old, node));
        }
    }

    /// Gives an input to a node, and does what it wants.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let n = &mut self.nodes[node];
        if !n.alive || !n.has_control {
            return self.unwind(node);
        }
        let mut actions = Vec::new();
        n.engine.handle(self.now, input, &mut actions);
        let deadline = n.engine.next_deadline();
        assert!(deadline.is_none_or(|due| due > self.now), "it wants to be called at once, for ever");
        if deadline != n.deadline {
            if let Some(old) = n.deadline {
                self.deadlines.remove(&(old, node));
            }
            self.deadlines.extend(deadline.map(|due| (due, node)));
            n.deadline = deadline;
        }
        for action in actions {
            self.carry_out(node, action);
        }
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Send { local, remote, bytes, .. } => {
                assert!(local.ip() == address(node) && matches!(local.port(), 500 | 4500), "{local}");
                self.nodes[node].sent.push((now, remote, bytes.clone()));
                self.send(node, local, remote, bytes);
            }
            Action::Put(Object::InboundSa(sa)) => {
                let n = &mut self.nodes[node];
                let spi = sa.spi;
                assert!(u32::from(spi.worker()) < u32::from(n.workers) && spi.slot() < n.slots);
                let same_place = |other: &&Spi| (other.worker(), other.slot()) == (spi.worker(), spi.slot());
                assert_eq!(n.inbound.keys().find(same_place), None, "a place is given twice");
                self.opened.insert(sa.key.keymat().to_vec());
                n.inbound.insert(spi, sa);
            }
            Action::Put(Object::OutboundSa(sa)) => {
                let key = sa.key.keymat().to_vec();
                assert!(self.sealed.insert(key.clone()), "a key is programmed for sealing twice");
                let is_there =
                    |n: &Node| n.inbound.get(&sa.spi).is_some_and(|there| there.key.keymat() == key);
                let takes_over = self.nodes[node].outbound.keys().any(|(peer, _)| *peer == sa.protection);
                // Where nothing is that could carry packets meanwhile, and an answer got lost, there is nothing better.
                let may_be_early = self.is_bad && (!takes_over || self.had_losses);
                let was_there = self.had_losses && self.opened.contains(&key);
                if !(self.nodes.iter().any(is_there) || was_there || may_be_early) {
                    eprintln!("{}", self.story(seconds(30)));
                }
                assert!(
                    self.nodes.iter().any(is_there) || was_there || may_be_early,
                    "{now}: node {node} seals by {} and its peer does not have that",
                    sa.spi
                );
                assert_eq!((sa.lease.first, sa.lease.last > 1 << 31), (1, true));
                self.nodes[node].outbound.insert((sa.protection, sa.worker), sa);
            }
            Action::Put(other) => panic!("{other:?} is not IKE's"),
            Action::Remove(Key::InboundSa(spi)) => {
                let n = &mut self.nodes[node];
                let is_gone = n.inbound.remove(&spi).is_some() || n.lost.remove(&spi);
                assert!(is_gone, "{spi} was removed twice or never put");
            }
            Action::Remove(Key::OutboundSa(peer, worker)) => {
                self.nodes[node].outbound.remove(&(peer, worker));
            }
            Action::Remove(other) => panic!("{other:?} is not IKE's"),
            Action::Up { peer, was, identity, .. } => {
                let n = &mut self.nodes[node];
                assert!(n.outbound.keys().any(|(to, _)| *to == peer), "up without an SA");
                if let Some(was) = was {
                    assert!(n.up.remove(&was).is_some(), "{was} was not up");
                }
                assert!(n.up.insert(peer, identity).is_none(), "{peer} was up");
            }
            Action::Down { peer, is_dead } => {
                let n = &mut self.nodes[node];
                assert!(n.up.remove(&peer).is_some(), "{peer} was not up");
                assert!(!n.outbound.keys().any(|(to, _)| *to == peer), "down with an SA");
                n.downs.push((now, peer, is_dead));
            }
            Action::Event(event) => self.nodes[node].events.push((now, event)),
        }
    }
}

/// The underlay.
impl Net {
    fn outside(&self, node: usize, inside: SocketAddr) -> SocketAddr {
        match self.nat.get(&node) {
            Some(nat) => (nat.outside, nat.first + u16::from(inside.port() == 4500)).into(),
            None => inside,
        }
    }

    /// Who is reached at a place, and by which port of its own.
    fn inside(&self, place: SocketAddr) -> Option<(usize, SocketAddr)> {
        (0..self.nodes.len()).find_map(|node| {
            let own = |port| SocketAddr::new(address(node), port);
            [500, 4500]
                .map(own)
                .into_iter()
                .find(|own| self.outside(node, *own) == place)
                .map(|own| (node, own))
        })
    }

    fn send(&mut self, node: usize, local: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.loses.as_mut().is_some_and(|loses| loses(node, &bytes)) {
            return;
        }
        let remote = self.outside(node, local);
        let Some((peer, local)) = self.inside(to) else { return };
        let copies = 1 + usize::from(self.toss(self.doubled));
        for _ in 0..copies {
            if self.toss(self.lost) {
                continue;
            }
            let shaken = u64::try_from(self.shaken.as_micros()).unwrap();
            let extra = Duration::from_micros(self.random() % (shaken + 1));
            let input = Input::Datagram { table: TableId(0), local, remote, bytes: bytes.clone() };
            self.later(peer, self.latency + extra, input);
        }
    }

    /// A datagram from anywhere.
    pub(crate) fn inject(&mut self, node: usize, local: u16, remote: SocketAddr, bytes: Vec<u8>) {
        let local = SocketAddr::new(address(node), local);
        self.give(node, Input::Datagram { table: TableId(0), local, remote, bytes });
    }

    pub(crate) fn later(&mut self, node: usize, after: Duration, input: Input) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), (node, input));
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    fn toss(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.random() % 1000 < thousandths
    }

    /// Lets time pass; data planes tell what was used once in a while.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let message = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.deadlines.first().map(|(at, _)| *at);
            let talk = (!self.talks.is_empty()).then(|| self.ticks + millis(10));
            let next = message.into_iter().chain(timer).chain(talk).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if message == Some(next) {
                let (_, (node, input)) = self.queue.pop_first().unwrap();
                self.give(node, input);
            } else if timer == Some(next) {
                let (_, node) = *self.deadlines.first().unwrap();
                self.give(node, Input::Tick);
            } else {
                self.ticks = self.now;
                self.talk();
            }
        }
        self.now = end;
    }
}

/// Packets.
impl Net {
    /// Two nodes talk, from now on, both ways.
    pub(crate) fn converse(&mut self, a: usize, b: usize) {
        self.ticks = self.now;
        for (from, to) in [(a, b), (b, a)] {
            self.talks.push(Talk { from, to, sent: 0, lost: 0, held: 0 });
        }
    }

    /// Packets that were lost, and that could not leave.
    pub(crate) fn talked(&mut self) -> (u64, u64, u64) {
        let talks = std::mem::take(&mut self.talks);
        let sum = |of: fn(&Talk) -> u64| talks.iter().map(of).sum();
        (sum(|talk| talk.sent), sum(|talk| talk.lost), sum(|talk| talk.held))
    }

    fn talk(&mut self) {
        let mut talks = std::mem::take(&mut self.talks);
        for talk in &mut talks {
            talk.sent += 1;
            match self.packet(talk.from, talk.to) {
                Fate::Arrived => {}
                Fate::Held => talk.held += 1,
                Fate::Lost => {
                    talk.lost += 1;
                }
            }
        }
        self.talks = talks;
    }

    /// One packet, and what the data planes tell of it. It takes no time: what is there now is what counts.
    pub(crate) fn packet(&mut self, from: usize, to: usize) -> Fate {
        let remote = self.nat.get(&to).map_or(address(to), |nat| nat.outside);
        let port = self.nat.get(&to).map(|nat| nat.first + 1);
        let n = &self.nodes[from];
        let is_to = |(peer, _): &&(Protection, WorkerId)| {
            peer.remote.0 == remote && port.is_none_or(|port| peer.port == port)
        };
        let Some(key) = n.outbound.keys().find(is_to).copied() else { return Fate::Held };
        let sa = &n.outbound[&key];
        let (spi, keymat) = (sa.spi, sa.key.keymat().to_vec());
        let there = self.nodes[to].inbound.get(&spi).filter(|sa| sa.key.keymat() == keymat);
        if !self.nodes[to].alive || there.is_none() {
            return Fate::Lost;
        }
        self.give(from, Input::Used { inbound: Vec::new(), outbound: vec![key.0] });
        self.give(to, Input::Used { inbound: vec![spi], outbound: Vec::new() });
        Fate::Arrived
    }

    /// Whether both have what it takes to talk, both ways.
    pub(crate) fn can_talk(&mut self, a: usize, b: usize) -> bool {
        self.packet(a, b) == Fate::Arrived && self.packet(b, a) == Fate::Arrived
    }
}

/// What there is to see.
impl Net {
    /// What happened lately, for who reads a test that failed.
    pub(crate) fn story(&self, lately: Duration) -> String {
        let mut lines = Vec::new();
        for (node, n) in self.nodes.iter().enumerate() {
            let recent = |at: &Instant| self.now.since(*at) <= lately;
            let events = n.events.iter().filter(|(at, _)| recent(at));
            lines.extend(events.map(|(at, event)| format!("{at} node {node}: {event:?}")));
            let sent = n.sent.iter().filter(|(at, ..)| recent(at));
            lines.extend(sent.map(|(at, to, bytes)| {
                let header = wire::ike::Message::decode(bytes.strip_prefix(&[0; 4]).unwrap_or(bytes));
                format!("{at} node {node} to {to}: {:?}", header.map(|message| message.header))
            }));
        }
        lines.sort();
        lines.join("\n")
    }

    pub(crate) fn sas(&self, node: usize) -> Vec<IkeSa> {
        self.nodes[node].engine.sas(self.now)
    }

    pub(crate) fn established(&self, node: usize) -> Vec<IkeSa> {
        self.sas(node)
            .into_iter()
            .filter(|sa| matches!(sa.state, IkeState::Up | IkeState::Rekeying))
            .collect()
    }

    /// Why things failed at a node, in words.
    pub(crate) fn failures(&self, node: usize) -> Vec<String> {
        let events = self.nodes[node].events.iter();
        let failures = events.filter_map(|(_, event)| match event {
            Event::Failed { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        failures.collect()
    }

    pub(crate) fn rejects(&self, node: usize, reject: Reject) -> u64 {
        self.nodes[node].engine.rejects().find(|(one, _)| *one == reject).unwrap().1
    }

    pub(crate) fn is_up(&self, node: usize, to: usize) -> bool {
        self.nodes[node].up.contains_key(&self.peer(node, to))
    }

    /// The same within some seconds: what was replaced just now lingers.
    pub(crate) fn assert_one_pair_soon(&mut self, a: usize, b: usize) {
        let count = |n: &Node, remote: NbmaAddr| {
            n.inbound.values().filter(|sa| sa.protection.remote == remote).count()
        };
        for _ in 0..200 {
            let there = [(a, b), (b, a)].map(|(node, to)| {
                let children: usize = self.established(node).iter().map(|sa| sa.children.len()).sum();
                (count(&self.nodes[node], self.peer(node, to).remote), children)
            });
            if there == [(1, 1), (1, 1)] {
                break;
            }
            self.run(millis(100));
        }
        self.assert_one_pair(a, b);
    }

    /// After things have settled between two: one IKE SA each, with one pair of children for each other, and nothing else that is programmed.
    pub(crate) fn assert_one_pair(&mut self, a: usize, b: usize) {
        for (node, to) in [(a, b), (b, a)] {
            let all = self.established(node);
            let remote = self.peer(node, to).remote;
            let with: Vec<_> = all.iter().filter(|sa| sa.protection.remote == remote).collect();
            assert_eq!(with.len(), 1, "node {node}: {:#?}", self.sas(node));
            assert_eq!(with[0].children.len(), 1, "node {node}: {:#?}", with[0]);
            let inbound =
                self.nodes[node].inbound.values().filter(|sa| sa.protection.remote == remote).count();
            let outbound = self.nodes[node].outbound.keys().filter(|(p, _)| p.remote == remote).count();
            assert_eq!((inbound, outbound), (1, 1), "node {node}");
        }
        assert!(self.can_talk(a, b));
    }
}
