//! The bench: nodes, an underlay, a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::config::{Map, MapMulticast, Nhrp, Nhs, Registration};
use model::program::{Hop, Key, Object, Path, TunnelMode};
use model::time::{HoldingTime, Instant};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Engine, Event, Found, Input, Limits, Reject, Routes, Snapshot, To, Tunnel};
use wire::nhrp::{Message, MessageType};

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

/// Node 0 is the hub. 10.0/16 is the underlay, 172.16/16 the tunnel, 192.168.n.0/24 (or 10.128+/24) the LAN of node n.
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

/// A small RIB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rib(pub(crate) BTreeMap<Prefix, Lead>);

/// Where its routes lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    Local,
    Lan,
    Attached,
    Via(ProtocolAddr),
}

impl Rib {
    pub(crate) fn best(&self, addr: IpAddr) -> Option<(Prefix, Lead)> {
        let matches = self.0.iter().filter(|(p, _)| p.contains(addr));
        matches.max_by_key(|(p, _)| p.length()).map(|(p, l)| (*p, *l))
    }

    fn to(lead: Lead, addr: IpAddr) -> To {
        match lead {
            Lead::Local => To::Local,
            Lead::Lan => To::Elsewhere(name("lan0")),
            Lead::Attached => To::Tunnel(Hop { interface: tunnel0(), next_hop: addr }),
            Lead::Via(hop) => To::Tunnel(Hop { interface: tunnel0(), next_hop: hop.0 }),
        }
    }
}

impl Routes for Rib {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let (prefix, lead) = self.best(addr.0)?;
        Some(Found { prefix, to: Self::to(lead, addr.0) })
    }

    fn is_split(&self, _: TableId, prefix: Prefix, to: &To) -> bool {
        let parts = self.0.iter().filter(|(p, _)| p.length() > prefix.length() && prefix.contains(p.addr()));
        parts.into_iter().any(|(p, lead)| {
            let part = Self::to(*lead, p.addr());
            part != To::Local && part != *to
        })
    }
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
    pub(crate) alive: bool,
    /// What it waits for.
    deadline: Option<Instant>,
}

/// A cloud.
pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    by_nbma: BTreeMap<NbmaAddr, usize>,
    queue: BTreeMap<(Instant, u64), (usize, Input)>,
    deadlines: BTreeSet<(Instant, usize)>,
    order: u64,
    pub(crate) latency: Duration,
    /// Faults of the underlay, in thousandths of its packets.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Extra delay, by chance up to this.
    pub(crate) shaken: Duration,
    chance: u64,
    /// Whether snapshots are taken when they are worth it.
    pub(crate) saving: bool,
    /// What nodes behind a NAT, one to one, look like from outside.
    pub(crate) nat: BTreeMap<usize, NbmaAddr>,
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

pub(crate) fn tunnel(node: usize, setup: &Setup) -> Tunnel {
    let is_hub = node == 0;
    Tunnel {
        name: tunnel0(),
        mode: TunnelMode::Multipoint,
        nbma: Some(nbma(node)),
        addresses: vec![format!("{}/16", overlay(node)).parse().unwrap()],
        mtu: setup.mtu,
        table: TableId(0),
        nhrp: Nhrp {
            network_id: 1,
            authentication: setup.authentication.clone(),
            holding_time: HoldingTime(setup.holding),
            nhs: if is_hub { vec![] } else { vec![Nhs::new(overlay(0), nbma(0))] },
            map: Vec::<Map>::new(),
            map_multicast: vec![if is_hub { MapMulticast::Dynamic } else { MapMulticast::Nbma(nbma(0)) }],
            redirect: is_hub && setup.redirect,
            shortcut: !is_hub && setup.shortcut,
            registration: Registration { unique: setup.unique },
            ..Nhrp::new(1)
        },
    }
}

impl Net {
    /// A hub and so many spokes, started.
    pub(crate) fn new(spokes: usize, setup: &Setup) -> Self {
        let mut net = Self::idle(spokes, setup);
        for node in 0..net.nodes.len() {
            net.start(node);
        }
        net
    }

    /// As [`Self::new`], but nothing is started.
    pub(crate) fn idle(spokes: usize, setup: &Setup) -> Self {
        let mut net = Self {
            now: Instant::default() + seconds(1),
            nodes: Vec::new(),
            by_nbma: BTreeMap::new(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            order: 0,
            latency: millis(10),
            lost: 0,
            doubled: 0,
            shaken: Duration::ZERO,
            chance: 42,
            saving: true,
            nat: BTreeMap::new(),
        };
        for node in 0..=spokes {
            let mut rib = Rib::default();
            rib.0.insert(Prefix::host(overlay(node).0), Lead::Local);
            rib.0.insert(prefix("172.16.0.0/16"), Lead::Attached);
            if node == 0 {
                for spoke in 1..=spokes {
                    rib.0.insert(lan(spoke), Lead::Via(overlay(spoke)));
                }
            } else {
                rib.0.insert(prefix("192.168.0.0/16"), Lead::Via(overlay(0)));
                rib.0.insert(lan(node), Lead::Lan);
                rib.0.insert(Prefix::host(host(node, 1).0), Lead::Local);
            }
            net.by_nbma.insert(nbma(node), node);
            net.nodes.push(Node {
                engine: Engine::new(Instant::default(), node as u64, None),
                tunnel: tunnel(node, setup),
                rib,
                program: BTreeMap::new(),
                events: Vec::new(),
                sent: Vec::new(),
                saved: Default::default(),
                alive: true,
                deadline: None,
            });
        }
        net
    }

    pub(crate) fn start(&mut self, node: usize) {
        let tunnel = self.nodes[node].tunnel.clone();
        self.by_nbma.remove(&tunnel.nbma.unwrap());
        self.by_nbma.insert(self.outside(node), node);
        self.give(node, Input::Configure(vec![tunnel]));
    }

    /// Where others see a node.
    fn outside(&self, node: usize) -> NbmaAddr {
        self.nat.get(&node).copied().unwrap_or_else(|| self.nodes[node].tunnel.nbma.unwrap())
    }

    /// It was only deaf and dumb for a while.
    pub(crate) fn revive(&mut self, node: usize) {
        self.nodes[node].alive = true;
        self.give(node, Input::Tick);
    }

    /// kill -9 and start again from the last snapshot that was worth saving.
    pub(crate) fn restart(&mut self, node: usize) {
        let (at, snapshot) = self.nodes[node].saved.clone();
        let aged = snapshot.aged(self.now.since(at));
        let n = &mut self.nodes[node];
        n.engine = Engine::with_limits(self.now, node as u64 + 1000, Some(aged), Limits::default());
        n.events.clear();
        n.sent.clear();
        self.start(node);
    }

    /// Gives an input to a node, and does what it wants.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let n = &mut self.nodes[node];
        if !n.alive {
            // The dead hear no clock.
            if let Some(old) = n.deadline.take() {
                self.deadlines.remove(&(old, node));
            }
            return;
        }
        let mut actions = Vec::new();
        n.engine.handle(self.now, input, &n.rib, &mut actions);
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
            // Names are the business of who tests them.
            Action::LookUp { .. } => {}
            Action::Send { tunnel, to, bytes, .. } => {
                n.sent.push((now, to, bytes.clone()));
                let source = self.outside(node);
                let Some(&peer) = self.by_nbma.get(&to) else { return };
                let copies = 1 + usize::from(self.toss(self.doubled));
                for _ in 0..copies {
                    if self.toss(self.lost) {
                        continue;
                    }
                    let shaken = u64::try_from(self.shaken.as_micros()).unwrap();
                    let extra = Duration::from_micros(self.random() % (shaken + 1));
                    let input =
                        Input::Packet { tunnel, from: source.into(), destination: to, bytes: bytes.clone() };
                    self.order += 1;
                    self.queue.insert((now + self.latency + extra, self.order), (peer, input));
                }
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

    fn random(&mut self) -> u64 {
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
        for node in &self.nodes {
            for (key, (_, expires)) in &node.program {
                assert!(expires.is_none_or(|at| at >= end), "{key:?} outlived its holding time");
            }
        }
    }

    pub(crate) fn routes_changed(&mut self, node: usize, prefixes: &[Prefix]) {
        self.give(node, Input::RoutesChanged(prefixes.to_vec()));
    }

    /// A data packet, walked through the data planes; it takes no time. The nodes that it passed, or `None` if it was dropped.
    /// Gleans, redirects and use are reported as a data plane does.
    pub(crate) fn packet(
        &mut self,
        from: usize,
        source: ProtocolAddr,
        to: ProtocolAddr,
    ) -> Option<Vec<usize>> {
        let mut walked = vec![from];
        let mut reports = Vec::new();
        let mut came_from = None;
        let delivered = loop {
            let here = *walked.last().unwrap();
            let n = &self.nodes[here];
            let routed = n.rib.best(to.0);
            let shortcut = n
                .program
                .values()
                .filter_map(|(o, _)| match o {
                    Object::Route(r) if r.prefix.contains(to.0) => Some((r.prefix, r.path.clone())),
                    _ => None,
                })
                .max_by_key(|(p, _)| p.length());
            let lead = match (routed, shortcut) {
                (Some((rp, lead)), Some((sp, _))) if rp.length() > sp.length() => Some(lead),
                (_, Some((_, Path::Via(hop)))) => Some(Lead::Via(ProtocolAddr(hop.next_hop))),
                (routed, _) => routed.map(|(_, lead)| lead),
            };
            let hop = match lead {
                None => break false,
                Some(Lead::Local | Lead::Lan) => break true,
                Some(Lead::Attached) => to,
                Some(Lead::Via(hop)) => hop,
            };
            let bound = |hop| match n.program.get(&Key::Binding(tunnel0(), hop)) {
                Some((Object::Binding(b), _)) => Some(b.nbma),
                _ => None,
            };
            let (used, nbma) = match bound(hop) {
                Some(nbma) => (hop, nbma),
                None => {
                    reports.push((here, Input::Glean { tunnel: tunnel0(), next_hop: hop }));
                    let Some((Object::Fallback(f), _)) = n.program.get(&Key::Fallback(tunnel0())) else {
                        break false;
                    };
                    (f.next_hop, bound(f.next_hop).unwrap())
                }
            };
            reports.push((here, Input::Used { tunnel: tunnel0(), next_hops: vec![used] }));
            if let Some(source_nbma) = came_from
                && n.tunnel.nhrp.redirect
            {
                let bytes = ip_packet(source, to);
                reports.push((
                    here,
                    Input::Redirect { tunnel: tunnel0(), source: source_nbma, port: None, bytes },
                ));
            }
            came_from = Some(self.outside(here));
            let Some(&next) = self.by_nbma.get(&nbma) else { break false };
            if !self.nodes[next].alive {
                break false;
            }
            walked.push(next);
            // TTL.
            if walked.len() > 9 {
                break false;
            }
        };
        for (node, report) in reports {
            self.give(node, report);
        }
        delivered.then_some(walked)
    }

    /// Packets both ways between the LANs of two spokes, ten a second, none of them lost; the longest walk of them.
    pub(crate) fn converse(&mut self, a: usize, b: usize, duration: Duration) -> usize {
        let end = self.now + duration;
        let mut longest = 0;
        while self.now < end {
            for (from, to) in [(a, b), (b, a)] {
                let walk = self.packet(from, host(from, 9), host(to, 9));
                let walk = walk.unwrap_or_else(|| panic!("lost at {} from {from} to {to}", self.now));
                longest = longest.max(walk.len());
            }
            self.run(millis(100));
        }
        longest
    }

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
        let name = nhrp::show::message_name(kind);
        traffic.messages.iter().find(|c| c.message == name).unwrap().received
    }
}

/// The first octets of an ICMP packet, 84 in all.
pub(crate) fn ip_packet(source: ProtocolAddr, to: ProtocolAddr) -> Vec<u8> {
    let mut bytes = vec![0; 84];
    if let (IpAddr::V6(source), IpAddr::V6(to)) = (source.0, to.0) {
        bytes[0] = 0x60;
        bytes[5] = 44;
        bytes[6] = 58;
        bytes[7] = 62;
        bytes[8..24].copy_from_slice(&source.octets());
        bytes[24..40].copy_from_slice(&to.octets());
        return bytes;
    }
    bytes[0] = 0x45;
    bytes[3] = 84;
    bytes[8] = 62;
    bytes[9] = 1;
    let (IpAddr::V4(source), IpAddr::V4(to)) = (source.0, to.0) else { panic!("two families") };
    bytes[12..16].copy_from_slice(&source.octets());
    bytes[16..20].copy_from_slice(&to.octets());
    bytes
}
