//! The bench: nodes, an underlay, a clock.
//!
//! `Net::new(spokes, &setup)` is a hub (node 0) with its spokes (1, 2 ..); `Net::with_hubs(hubs, spokes, &setup)` has the hubs first, and every
//! spoke registers with each of them; in `Net::regions(&[3, 4], &setup)` each hub has its own spokes, and the other hubs are clients of the
//! first. The `idle_..` ones start nothing, so that a test can change nodes before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use model::config::{MapMulticast, Nhrp, Nhs, Registration};
use model::program::{Key, Object, Path, TunnelMode};
use model::time::{HoldingTime, Instant};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::journal::{self, Line};
use nhrp::{Action, Engine, Event, Input, Reject, Sender, Snapshot, Tunnel};
use wire::nhrp::{Message, MessageType};

pub(crate) use crate::rib::{Lead, Rib};
pub(crate) use crate::walk::{Walk, ip_packet};

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

pub(crate) fn tunnel0() -> InterfaceName {
    name("tunnel0")
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// 10.0/16 is the underlay, 172.16/16 the tunnel, 192.168.n.0/24 the LAN of node n.
pub(crate) fn nbma(node: usize) -> NbmaAddr {
    Ipv4Addr::new(10, 0, (node / 250) as u8, (node % 250 + 1) as u8).into()
}

pub(crate) fn overlay(node: usize) -> ProtocolAddr {
    Ipv4Addr::new(172, 16, (node / 250) as u8, (node % 250 + 1) as u8).into()
}

pub(crate) fn host(node: usize, host: u8) -> ProtocolAddr {
    Ipv4Addr::new(192, 168, node as u8, host).into()
}

pub(crate) fn lan(node: usize) -> Prefix {
    Prefix::new(host(node, 0).0, 24).unwrap()
}

/// A node: the engine, what it programmed, and what it said.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) tunnel: Tunnel,
    pub(crate) rib: Rib,
    pub(crate) program: BTreeMap<Key, (Object, Option<Instant>)>,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) sent: Vec<(Instant, NbmaAddr, Vec<u8>)>,
    pub(crate) saved: (Instant, Snapshot),
    /// Its journal, if it is kept ([`Net::record`]).
    pub(crate) journal: Option<Vec<String>>,
    /// The whole box.
    pub(crate) alive: bool,
    /// Its control plane; without it, the data plane goes on with what it has.
    pub(crate) has_control: bool,
    /// How often it began.
    lives: u64,
    /// What it waits for.
    deadline: Option<Instant>,
}

/// A cloud.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// The first nodes are the hubs.
    pub(crate) hubs: usize,
    by_nbma: BTreeMap<NbmaAddr, usize>,
    queue: BTreeMap<(Instant, u64), (usize, Input)>,
    deadlines: BTreeSet<(Instant, usize)>,
    order: u64,
    pub(crate) latency: Duration,
    /// Faults of the underlay, in thousandths of its packets.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Extra delay, by chance up to this: so packets overtake each other.
    pub(crate) shaken: Duration,
    pub(crate) chance: u64,
    /// Pairs of nodes between which nothing passes, the lower first.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Whether snapshots are taken when they are worth it.
    pub(crate) saving: bool,
    /// What nodes behind a NAT, one to one, look like from outside.
    pub(crate) nat: BTreeMap<usize, NbmaAddr>,
    /// Nodes behind a NAT that has one address for several, and the UDP port that tells each from the others (they are encapsulated).
    /// Nobody gets in to whom nothing went out.
    pub(crate) pat: BTreeMap<usize, (NbmaAddr, u16)>,
    /// Who spoke last from behind an address to whom outside, and everybody who ever did.
    opened: BTreeMap<(NbmaAddr, NbmaAddr), Vec<usize>>,
    /// Who IKE says that nodes are.
    pub(crate) identities: BTreeMap<usize, String>,
    /// What a resolver knows. What is not in it has no address.
    pub(crate) names: BTreeMap<String, Vec<NbmaAddr>>,
    /// What was looked up, and by whom.
    pub(crate) looked_up: Vec<(Instant, usize, String)>,
}

/// How a node is configured.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) holding: u16,
    pub(crate) authentication: Option<String>,
    pub(crate) unique: bool,
    pub(crate) redirect: bool,
    pub(crate) shortcut: bool,
    pub(crate) mtu: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self { holding: 600, authentication: None, unique: true, redirect: true, shortcut: true, mtu: 1400 }
    }
}

/// The tunnel of a node of a cloud with one hub.
pub(crate) fn tunnel(node: usize, setup: &Setup) -> Tunnel {
    let servers: &[usize] = if node == 0 { &[] } else { &[0] };
    tunnel_of(node, node == 0, servers, setup)
}

/// The tunnel of a node that registers with `servers`.
pub(crate) fn tunnel_of(node: usize, is_hub: bool, servers: &[usize], setup: &Setup) -> Tunnel {
    let to_servers = servers.iter().map(|server| MapMulticast::Nbma(nbma(*server)));
    let to_clients = is_hub.then_some(MapMulticast::Dynamic);
    Tunnel {
        name: tunnel0(),
        mode: TunnelMode::Multipoint,
        nbma: Some(nbma(node)),
        addresses: vec![format!("{}/16", overlay(node)).parse().unwrap()],
        mtu: setup.mtu,
        table: TableId(0),
        nhrp: Nhrp {
            authentication: setup.authentication.clone(),
            holding_time: HoldingTime(setup.holding),
            nhs: servers.iter().map(|server| Nhs::new(overlay(*server), nbma(*server))).collect(),
            map_multicast: to_clients.into_iter().chain(to_servers).collect(),
            redirect: is_hub && setup.redirect,
            shortcut: !is_hub && setup.shortcut,
            registration: Registration { unique: setup.unique },
            ..Nhrp::new(1)
        },
    }
}

/// Making clouds.
impl Net {
    /// A hub and so many spokes, started.
    pub(crate) fn new(spokes: usize, setup: &Setup) -> Self {
        Self::with_hubs(1, spokes, setup)
    }

    /// As [`Self::new`], but nothing is started.
    pub(crate) fn idle(spokes: usize, setup: &Setup) -> Self {
        Self::idle_with_hubs(1, spokes, setup)
    }

    /// Several hubs that do not know each other, and spokes that register with each of them; started. Routes lead by the first hub.
    pub(crate) fn with_hubs(hubs: usize, spokes: usize, setup: &Setup) -> Self {
        let mut net = Self::idle_with_hubs(hubs, spokes, setup);
        net.start_all();
        net
    }

    /// As [`Self::with_hubs`], but nothing is started.
    pub(crate) fn idle_with_hubs(hubs: usize, spokes: usize, setup: &Setup) -> Self {
        let mut net = Self::empty(hubs);
        let servers: Vec<_> = (0..hubs).collect();
        for node in 0..hubs + spokes {
            let is_hub = node < hubs;
            net.add(tunnel_of(node, is_hub, if is_hub { &[] } else { &servers }, setup));
            for spoke in hubs..hubs + spokes {
                if is_hub {
                    net.lead(node, lan(spoke), spoke);
                }
            }
            if !is_hub {
                net.settle(node, 0);
            }
        }
        net
    }

    /// Regions, started: each hub has so many spokes of its own, and knows only those; the other hubs are clients of the first. A packet
    /// between two regions passes two or three hubs.
    pub(crate) fn regions(spokes: &[usize], setup: &Setup) -> Self {
        let mut net = Self::idle_regions(spokes, setup);
        net.start_all();
        net
    }

    /// As [`Self::regions`], but nothing is started.
    pub(crate) fn idle_regions(spokes: &[usize], setup: &Setup) -> Self {
        let hubs = spokes.len();
        let mut net = Self::empty(hubs);
        for hub in 0..hubs {
            net.add(tunnel_of(hub, true, if hub == 0 { &[] } else { &[0] }, setup));
            if hub > 0 {
                net.lead(hub, prefix("192.168.0.0/16"), 0);
            }
        }
        for (hub, spokes) in spokes.iter().enumerate() {
            for _ in 0..*spokes {
                let spoke = net.nodes.len();
                net.add(tunnel_of(spoke, false, &[hub], setup));
                net.settle(spoke, hub);
                net.lead(hub, lan(spoke), spoke);
                if hub > 0 {
                    net.lead(0, lan(spoke), hub);
                }
            }
        }
        net
    }

    fn empty(hubs: usize) -> Self {
        Self {
            now: Instant::default() + seconds(1),
            nodes: Vec::new(),
            hubs,
            by_nbma: BTreeMap::new(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            order: 0,
            latency: millis(10),
            lost: 0,
            doubled: 0,
            shaken: Duration::ZERO,
            chance: 42,
            cut: BTreeSet::new(),
            saving: true,
            nat: BTreeMap::new(),
            pat: BTreeMap::new(),
            opened: BTreeMap::new(),
            identities: BTreeMap::new(),
            names: BTreeMap::new(),
            looked_up: Vec::new(),
        }
    }

    fn add(&mut self, tunnel: Tunnel) {
        let node = self.nodes.len();
        let mut rib = Rib::default();
        rib.0.insert(Prefix::host(overlay(node).0), Lead::Local);
        rib.0.insert(prefix("172.16.0.0/16"), Lead::Attached);
        self.by_nbma.insert(nbma(node), node);
        self.nodes.push(Node {
            engine: Engine::new(Instant::default(), node as u64, None),
            tunnel,
            rib,
            program: BTreeMap::new(),
            events: Vec::new(),
            sent: Vec::new(),
            saved: Default::default(),
            journal: None,
            alive: true,
            has_control: true,
            lives: 0,
            deadline: None,
        });
    }

    /// Gives a spoke its LAN, and everything else behind a hub.
    fn settle(&mut self, spoke: usize, hub: usize) {
        self.lead(spoke, prefix("192.168.0.0/16"), hub);
        let rib = &mut self.nodes[spoke].rib.0;
        rib.insert(lan(spoke), Lead::Lan);
        rib.insert(Prefix::host(host(spoke, 1).0), Lead::Local);
    }

    fn lead(&mut self, node: usize, prefix: Prefix, by: usize) {
        self.nodes[node].rib.0.insert(prefix, Lead::Via(overlay(by)));
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
    }

    pub(crate) fn spokes(&self) -> std::ops::Range<usize> {
        self.hubs..self.nodes.len()
    }
}

/// What becomes of nodes.
impl Net {
    /// A routing protocol found that a spoke's way leads by another hub now.
    pub(crate) fn lead_by(&mut self, spoke: usize, hub: usize) {
        let all = prefix("192.168.0.0/16");
        self.lead(spoke, all, hub);
        self.routes_changed(spoke, &[all]);
    }

    pub(crate) fn start(&mut self, node: usize) {
        let tunnel = self.nodes[node].tunnel.clone();
        self.by_nbma.retain(|_, n| *n != node);
        if !self.pat.contains_key(&node) {
            self.by_nbma.insert(self.outside(node), node);
        }
        self.give(node, Input::Configure(vec![tunnel]));
    }

    /// A node that was not started yet keeps a journal from here on.
    pub(crate) fn record(&mut self, node: usize) {
        let opened = Line::opened(Instant::default(), node as u64, None);
        self.nodes[node].journal = Some(vec![opened.to_text().unwrap()]);
    }

    /// Where others see a node.
    pub(crate) fn outside(&self, node: usize) -> NbmaAddr {
        let pat = self.pat.get(&node).map(|(nbma, _)| *nbma);
        self.nat.get(&node).copied().or(pat).unwrap_or_else(|| self.nodes[node].tunnel.nbma.unwrap())
    }

    /// Power off: nothing of it answers or forwards any more.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.unwind(node);
    }

    /// kill -9 of the control plane alone: the data plane forwards on.
    pub(crate) fn behead(&mut self, node: usize) {
        self.nodes[node].has_control = false;
        self.unwind(node);
    }

    /// It was only deaf and dumb for a while.
    pub(crate) fn revive(&mut self, node: usize) {
        self.nodes[node].alive = true;
        self.give(node, Input::Tick);
    }

    /// Starts a control plane, or a whole box, again from the last snapshot that was worth saving. What it does not program again is swept.
    pub(crate) fn restart(&mut self, node: usize) {
        let (at, snapshot) = self.nodes[node].saved.clone();
        self.begin_again(node, Some(snapshot.aged(self.now.since(at))));
    }

    /// As [`Self::restart`], but its state file is gone.
    pub(crate) fn restart_without_snapshot(&mut self, node: usize) {
        self.begin_again(node, None);
    }

    fn begin_again(&mut self, node: usize, snapshot: Option<Snapshot>) {
        let n = &mut self.nodes[node];
        n.lives += 1;
        let seed = node as u64 + 1000 * n.lives;
        if let Some(journal) = &mut n.journal {
            journal.push(Line::opened(self.now, seed, snapshot.clone()).to_text().unwrap());
        }
        n.engine = Engine::new(self.now, seed, snapshot);
        n.program.clear();
        n.events.clear();
        n.sent.clear();
        n.alive = true;
        n.has_control = true;
        self.start(node);
    }

    /// The dead hear no clock.
    fn unwind(&mut self, node: usize) {
        if let Some(old) = self.nodes[node].deadline.take() {
            self.deadlines.remove(&(old, node));
        }
    }

    /// A message reaches a node as if it came from another, which need not have said it.
    pub(crate) fn hear(&mut self, node: usize, from: usize, message: &Message) {
        let (from, destination, bytes) = (nbma(from).into(), nbma(node), message.encode());
        self.give(node, Input::Packet { tunnel: tunnel0(), from, destination, bytes });
    }

    /// Gives an input to a node, and does what it wants.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let n = &mut self.nodes[node];
        if !n.alive || !n.has_control {
            return self.unwind(node);
        }
        let mut actions = Vec::new();
        match &mut n.journal {
            Some(journal) => {
                let line = journal::handle(&mut n.engine, self.now, input, &n.rib, &mut actions);
                journal.push(line.to_text().unwrap());
            }
            None => n.engine.handle(self.now, input, &n.rib, &mut actions),
        }
        let deadline = n.engine.next_deadline();
        if deadline != n.deadline {
            if let Some(old) = n.deadline {
                self.deadlines.remove(&(old, node));
            }
            self.deadlines.extend(deadline.map(|d| (d, node)));
            n.deadline = deadline;
        }
        for action in actions {
            self.carry_out(node, action);
        }
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        let now = self.now;
        let n = &mut self.nodes[node];
        match action {
            Action::Send { tunnel, to, port, bytes } => {
                n.sent.push((now, to, bytes.clone()));
                self.send(node, tunnel, (to, port), &bytes);
            }
            Action::LookUp { tunnel, name } => {
                self.looked_up.push((now, node, name.clone()));
                let addresses = self.names.get(&name).cloned().unwrap_or_default();
                self.deliver(node, self.latency, Input::LookedUp { tunnel, name, addresses });
            }
            Action::Put(object) => {
                let expires = match &object {
                    Object::Binding(b) => b.expires_in,
                    Object::Route(r) => r.expires_in,
                    _ => None,
                };
                n.program.insert(object.key(), (object, expires.map(|e| now + e)));
            }
            Action::Remove(key) => {
                assert!(n.program.remove(&key).is_some(), "{key:?} was removed twice or never put");
            }
            Action::Save if !self.saving => {}
            Action::Save => n.saved = (now, n.engine.snapshot(now)),
            Action::Event(event) => n.events.push((now, event)),
        }
    }
}

/// The underlay.
impl Net {
    fn send(
        &mut self,
        node: usize,
        tunnel: InterfaceName,
        (to, port): (NbmaAddr, Option<u16>),
        bytes: &[u8],
    ) {
        let Some(peer) = self.carry(node, to, port) else { return };
        let identity = self.identities.get(&node).cloned();
        let from = Sender { nbma: self.outside(node), port: self.port(node), identity, certified: None };
        let copies = 1 + usize::from(self.toss(self.doubled));
        for _ in 0..copies {
            if self.toss(self.lost) {
                continue;
            }
            let shaken = u64::try_from(self.shaken.as_micros()).unwrap();
            let extra = Duration::from_micros(self.random() % (shaken + 1));
            let input = Input::Packet { tunnel, from: from.clone(), destination: to, bytes: bytes.to_vec() };
            self.deliver(peer, self.latency + extra, input);
        }
    }

    fn deliver(&mut self, node: usize, after: Duration, input: Input) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), (node, input));
    }

    /// Whom a packet to an NBMA address reaches. Behind a NAT of many the port tells; without one it is who spoke last.
    pub(crate) fn carry(&mut self, from: usize, to: NbmaAddr, port: Option<u16>) -> Option<usize> {
        if self.pat.contains_key(&from) {
            let speakers = self.opened.entry((self.outside(from), to)).or_default();
            speakers.retain(|n| *n != from);
            speakers.push(from);
        }
        let inside = || {
            let speakers = self.opened.get(&(to, self.outside(from)))?;
            speakers.iter().rev().find(|n| port.is_none() || self.port(**n) == port).copied()
        };
        let peer = self.by_nbma.get(&to).copied().or_else(inside)?;
        (!self.cut.contains(&(from.min(peer), from.max(peer)))).then_some(peer)
    }

    /// The UDP port that tells a node from others behind the same address.
    pub(crate) fn port(&self, node: usize) -> Option<u16> {
        self.pat.get(&node).map(|(_, port)| *port)
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.chance >> 33
    }

    fn toss(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.random() % 1000 < thousandths
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let packet = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer = self.deadlines.first().map(|(at, _)| *at);
            let Some(next) = packet.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, (node, input)) = self.queue.pop_first().unwrap();
                self.give(node, input);
            } else {
                let (_, node) = *self.deadlines.first().unwrap();
                self.give(node, Input::Tick);
            }
        }
        self.now = end;
        for node in &mut self.nodes {
            let is_over = |expires: &Option<Instant>| expires.is_some_and(|at| at < end);
            if node.alive && node.has_control {
                let left = node.program.iter().find(|(_, (_, expires))| is_over(expires));
                assert!(left.is_none(), "{left:?} outlived its holding time");
            } else if node.alive {
                // Nobody else ends them.
                node.program.retain(|_, (_, expires)| !is_over(expires));
            }
        }
    }

    pub(crate) fn routes_changed(&mut self, node: usize, prefixes: &[Prefix]) {
        self.give(node, Input::RoutesChanged(prefixes.to_vec()));
    }
}

/// What there is to see.
impl Net {
    pub(crate) fn has(&self, node: usize, key: Key) -> bool {
        self.nodes[node].program.contains_key(&key)
    }

    pub(crate) fn binding(&self, node: usize, of: ProtocolAddr) -> Option<NbmaAddr> {
        match self.nodes[node].program.get(&Key::Binding(tunnel0(), of)) {
            Some((Object::Binding(b), _)) => Some(b.nbma),
            _ => None,
        }
    }

    pub(crate) fn route(&self, node: usize, prefix: Prefix) -> Option<ProtocolAddr> {
        match self.nodes[node].program.get(&Key::Route(TableId(0), prefix)) {
            Some((Object::Route(r), _)) => match &r.path {
                Path::Via(hop) => Some(ProtocolAddr(hop.next_hop)),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn routes(&self, node: usize) -> Vec<Prefix> {
        let keys = self.nodes[node].program.keys();
        keys.filter_map(|k| match k {
            Key::Route(_, prefix) => Some(*prefix),
            _ => None,
        })
        .collect()
    }

    pub(crate) fn has_event(&self, node: usize, event: impl Fn(&Event) -> bool) -> bool {
        self.nodes[node].events.iter().any(|(_, e)| event(e))
    }

    pub(crate) fn messages(&self, node: usize, kind: MessageType) -> Vec<(Instant, NbmaAddr, Message)> {
        let sent = self.nodes[node].sent.iter();
        sent.map(|(at, to, bytes)| (*at, *to, Message::decode(bytes).unwrap()))
            .filter(|(_, _, m)| m.message_type() == kind)
            .collect()
    }

    pub(crate) fn rejects(&self, node: usize, reject: Reject) -> u64 {
        let traffic = self.nodes[node].engine.traffic();
        traffic.rejects.iter().find(|c| c.name == reject.name()).unwrap().count
    }

    pub(crate) fn received(&self, node: usize, kind: MessageType) -> u64 {
        let traffic = self.nodes[node].engine.traffic();
        let name = kind.name();
        traffic.messages.iter().find(|c| c.message == name).unwrap().received
    }
}
