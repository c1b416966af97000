//! An afternoon of a node: bytes say what kind of node it is and what happens to it, step by step. After each step every promise is
//! looked at.
//!
//! Eight peers live around the node. What they say is well-formed NHRP most of the time, with anything in it, so that it gets far;
//! some of it is changed on the way, and some is what the node said itself. Every request of the node can be answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use model::config::{self, Cluster, Map, MapMulticast, NhrpLimits, Nhs, NhsFallback, NhsNbma, NhsProtocol};
use model::program::{Hop, TunnelMode};
use model::time::{HoldingTime, Instant};
use model::{InterfaceAddr, InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Action, Clear, Engine, Input, Limits, Sender, To, Tunnel};
use wire::nhrp::{
    Body, Cie, CieCode, ErrorCode, Extension, ExtensionType, Families, Family, Flags, Kind, Message,
};

use crate::promises::{self, Program};
use crate::rib::Rib;
use crate::script::Script;

/// Nodes: the one under test is 0.
const NODES: usize = 8;

/// Steps of an afternoon.
const STEPS: usize = 400;

/// Messages of the node that are remembered.
const REMEMBERED: usize = 32;

/// So little of everything that limits are reached within an afternoon.
const LIMITS: Limits = Limits {
    shortcuts: 6,
    asks: 6,
    asks_per_second: 8,
    told: 6,
    purges: 6,
    redirects: 6,
    redirects_per_second: 8,
    errors_per_second: 8,
    errors_per_second_per_peer: 3,
};

/// Runs an afternoon.
///
/// # Panics
/// A promise is broken.
pub fn engine(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut node = Node::new(&mut script);
    node.configure();
    for _ in 0..STEPS {
        if !node.step(&mut script) {
            break;
        }
    }
    // However it was, the clock brings it on.
    for _ in 0..16 {
        node.wake();
    }
}

/// The node under test, and what its data plane was told.
struct Node {
    now: Instant,
    engine: Engine,
    tunnels: Vec<Tunnel>,
    families: Families,
    rib: Rib,
    program: Program,
    /// To whom, and what; the last ones.
    sent: Vec<(NbmaAddr, Vec<u8>)>,
    lives: u64,
}

fn address(family: Family, net: u8, node: usize, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, net, node as u8, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, node as u16, host.into()).into(),
    }
}

/// The name of the tunnel with that number.
fn name(number: usize) -> InterfaceName {
    format!("tunnel{number}").parse().unwrap()
}

impl Node {
    fn new(script: &mut Script<'_>) -> Self {
        let family = |v6| if v6 { Family::V6 } else { Family::V4 };
        let families = Families { nbma: family(script.flip()), protocol: family(script.flip()) };
        let mut node = Self {
            now: Instant::default() + Duration::from_secs(1),
            engine: Engine::with_limits(Instant::default(), 7, None, LIMITS),
            tunnels: Vec::new(),
            families,
            rib: Rib::default(),
            program: Program::new(),
            sent: Vec::new(),
            lives: 0,
        };
        let tunnels = 1 + usize::from(script.byte() % 8 == 7);
        node.tunnels = (0..tunnels).map(|number| node.tunnel(script, number)).collect();
        node.lay_routes();
        node
    }

    fn nbma(&self, node: usize) -> NbmaAddr {
        NbmaAddr(address(self.families.nbma, 1, node, 1))
    }

    fn overlay(&self, node: usize) -> ProtocolAddr {
        ProtocolAddr(address(self.families.protocol, 2, 0, node as u8 + 1))
    }

    fn host(&self, node: usize, host: u8) -> ProtocolAddr {
        ProtocolAddr(address(self.families.protocol, 3, node, host))
    }

    /// Any address of the overlay that may mean something.
    fn target(&self, script: &mut Script<'_>) -> ProtocolAddr {
        let node = script.of(NODES);
        match script.byte() % 8 {
            0..3 => self.overlay(node),
            3..6 => self.host(node, script.byte()),
            6 => ProtocolAddr(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, node as u16 + 1).into()),
            _ => ProtocolAddr(address(self.families.protocol, script.byte(), node, script.byte())),
        }
    }

    fn tunnel(&self, script: &mut Script<'_>, number: usize) -> Tunnel {
        let width = self.families.protocol.bits();
        let mut addresses = vec![InterfaceAddr::new(self.overlay(0).0, width - 8).unwrap()];
        if self.families.protocol == Family::V6 && script.flip() {
            let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
            addresses.push(InterfaceAddr::new(link_local.into(), 64).unwrap());
        }
        let role = script.byte();
        let (is_server, is_client) = (role & 1 == 0, role & 2 != 0);
        Tunnel {
            name: name(number),
            mode: TunnelMode::Multipoint,
            nbma: Some(self.nbma(0)),
            addresses,
            mtu: 1400,
            table: TableId(0),
            nhrp: self.section(script, number, is_server, is_client),
        }
    }

    fn section(
        &self,
        script: &mut Script<'_>,
        number: usize,
        is_server: bool,
        is_client: bool,
    ) -> config::Nhrp {
        let mut nhrp = config::Nhrp::new(1 + number as u32);
        let how = script.byte();
        nhrp.authentication = (how & 1 != 0).then(|| "secret".to_owned());
        nhrp.registration.unique = how & 2 != 0;
        nhrp.redirect = is_server && how & 4 != 0;
        nhrp.shortcut = how & 8 != 0;
        nhrp.answer_from_cache = how & 16 != 0;
        if how & 32 != 0 {
            nhrp.accept_prefixes = vec![Prefix::new(self.host(0, 0).0, 16).unwrap()];
        }
        if how & 64 != 0 {
            nhrp.map = vec![Map { protocol: self.overlay(7), nbma: self.nbma(7) }];
        }
        nhrp.holding_time = HoldingTime([10, 30, 600, 7200][script.of(4)]);
        if is_server {
            nhrp.map_multicast.push(MapMulticast::Dynamic);
        }
        if is_client {
            nhrp.nhs = self.servers(script);
            nhrp.map_multicast.push(MapMulticast::Nbma(self.nbma(1)));
            nhrp.clusters = vec![Cluster { id: 1, max_connections: script.byte() % 3 }];
            nhrp.nhs_fallback =
                if script.flip() { NhsFallback::Never } else { NhsFallback::After(u16::from(script.byte())) };
        }
        nhrp.limits = NhrpLimits {
            registrations: 4,
            entries: 6,
            requests_per_second: 20,
            requests_per_second_per_peer: 10,
        };
        nhrp
    }

    fn servers(&self, script: &mut Script<'_>) -> Vec<Nhs> {
        (1..=1 + script.of(4))
            .map(|server| {
                let how = script.byte();
                let mut nhs = Nhs::new(self.overlay(server), self.nbma(server));
                match how & 7 {
                    0 => nhs.protocol = NhsProtocol::Dynamic,
                    1 if self.families.protocol == Family::V6 => nhs.protocol = NhsProtocol::DynamicIpv6,
                    2 => nhs.nbma = NhsNbma::Name(format!("hub{server}.example")),
                    _ => {}
                }
                (nhs.priority, nhs.cluster) = (how >> 3 & 3, how >> 5 & 1);
                nhs
            })
            .collect()
    }

    fn lay_routes(&mut self) {
        let width = self.families.protocol.bits();
        let tunnel = name(0);
        let via = |next_hop: ProtocolAddr| To::Tunnel(Hop { interface: tunnel, next_hop: next_hop.0 });
        let unspecified = ProtocolAddr(match self.families.protocol {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        });
        let lan = |node: usize| Prefix::new(self.host(node, 0).0, width - 8).unwrap();
        let mut routes = vec![
            (Prefix::host(self.overlay(0).0), To::Local),
            (Prefix::new(self.overlay(0).0, width - 8).unwrap(), via(unspecified)),
            (lan(0), To::Elsewhere("lan0".parse().unwrap())),
            (Prefix::host(self.host(0, 1).0), To::Local),
        ];
        routes.extend((1..NODES).map(|node| (lan(node), via(self.overlay(if node < 4 { node } else { 1 })))));
        self.rib.0 = routes.into_iter().collect();
    }

    fn configure(&mut self) {
        let tunnels = self.tunnels.clone();
        self.give(Input::Configure(tunnels));
    }

    /// Gives the engine an input, does what it wants, and looks at every promise.
    fn give(&mut self, input: Input) {
        let held = self.engine.census();
        let mut actions = Vec::new();
        self.engine.handle(self.now, input, &self.rib, &mut actions);
        promises::bounded(&actions, &held);
        for action in actions {
            match action {
                Action::Send { tunnel, to, bytes, .. } => {
                    // What a tunnel that ends still says, it says as it was configured.
                    if let Some(tunnel) = self.tunnels.iter().find(|t| t.name == tunnel) {
                        promises::sent(&bytes, tunnel);
                    }
                    if self.sent.len() == REMEMBERED {
                        self.sent.remove(0);
                    }
                    self.sent.push((to, bytes));
                }
                Action::Put(object) => {
                    self.program.insert(object.key(), object);
                }
                Action::Remove(key) => {
                    self.program.remove(&key);
                }
                Action::LookUp { .. } | Action::Save | Action::Event(_) => {}
            }
        }
        promises::programmed(&self.engine, self.now, &self.program);
        promises::limited(&self.engine, self.now, &self.tunnels, &LIMITS);
        promises::awake(&self.engine, self.now);
    }

    /// To the next deadline.
    fn wake(&mut self) {
        if let Some(deadline) = self.engine.next_deadline() {
            self.now = self.now.max(deadline);
            self.give(Input::Tick);
        }
    }

    /// One step; `false` when the script has ended.
    fn step(&mut self, script: &mut Script<'_>) -> bool {
        let Some(what) = script.next() else { return false };
        match what % 32 {
            0..4 => self.wake(),
            4 => {
                self.now = self.now + Duration::from_millis(u64::from(script.half()));
                self.give(Input::Tick);
            }
            5 => {
                self.now = self.now + Duration::from_secs(u64::from(script.half()));
                self.give(Input::Tick);
            }
            6..11 => self.said(script, what % 32),
            11..17 => self.answered(script),
            17 => {
                let bytes = script.bytes(255);
                self.packet(script, bytes);
            }
            18 => self.echoed(script),
            19 => {
                let next_hop = self.target(script);
                self.give(Input::Glean { tunnel: name(0), next_hop });
            }
            20 => {
                let next_hops = vec![self.target(script), self.target(script)];
                self.give(Input::Used { tunnel: name(0), next_hops });
            }
            21..23 => {
                let bytes = self.inner(script);
                let (source, port) = (self.nbma(script.of(NODES)), port(script));
                self.give(Input::Redirect { tunnel: name(0), source, port, bytes });
            }
            23..25 => self.route(script),
            25 => {
                let address = script.flip().then(|| self.target(script));
                self.give(Input::Clear(Clear { tunnel: script.flip().then(|| name(0)), address }));
            }
            26..28 => self.reconfigured(script),
            28 => {
                let addresses = (0..script.of(3)).map(|_| self.nbma(script.of(NODES))).collect();
                let name_of = format!("hub{}.example", 1 + script.of(4));
                self.give(Input::LookedUp { tunnel: name(0), name: name_of, addresses });
            }
            29 => self.restarted(script),
            30 => self.give(Input::Reconnected),
            _ => {
                self.give(Input::Shutdown);
                self.restarted(script);
            }
        }
        true
    }

    /// The control plane starts again, from its snapshot or without; what it does not program again is swept.
    fn restarted(&mut self, script: &mut Script<'_>) {
        let snapshot = script.flip().then(|| self.engine.snapshot(self.now));
        self.lives += 1;
        let away = Duration::from_millis(u64::from(script.half()));
        self.engine = Engine::with_limits(self.now, self.lives, snapshot, LIMITS);
        if script.flip() {
            let bindings = self.program.values().filter_map(|object| match object {
                model::program::Object::Binding(binding) => Some(*binding),
                _ => None,
            });
            self.engine.adopt(self.now, &bindings.collect::<Vec<_>>());
        }
        self.now = self.now + away;
        self.program.clear();
        self.configure();
    }

    fn reconfigured(&mut self, script: &mut Script<'_>) {
        let number = script.of(self.tunnels.len());
        let [nbma, moved] = [self.nbma(0), self.nbma(9)];
        let fresh = self.tunnel(script, number);
        match script.byte() % 8 {
            0 => self.tunnels[number].nbma = None,
            1 => self.tunnels[number].nbma = Some(moved),
            2 => self.tunnels[number].nbma = Some(nbma),
            3 => self.tunnels[number].nhrp = fresh.nhrp,
            4 => self.tunnels[number].addresses = fresh.addresses,
            5 => {
                // None at all, and then those again.
                let tunnels = std::mem::take(&mut self.tunnels);
                self.configure();
                self.tunnels = tunnels;
            }
            6 => self.tunnels[number].nhrp.authentication = fresh.nhrp.authentication,
            _ => self.tunnels[number] = fresh,
        }
        self.configure();
    }

    fn route(&mut self, script: &mut Script<'_>) {
        let width = self.families.protocol.bits();
        let length = width - (script.byte() % 25).min(width);
        let Some(prefix) = Prefix::new(self.target(script).0, length) else { return };
        let next_hop = self.overlay(script.of(NODES)).0;
        match script.byte() % 8 {
            0..3 => {
                self.rib.0.remove(&prefix);
            }
            3..5 => {
                self.rib.0.insert(prefix, To::Elsewhere("lan0".parse().unwrap()));
            }
            5 => {
                self.rib.0.insert(prefix, To::Nowhere);
            }
            6 => {
                self.rib.0.insert(prefix, To::Tunnel(Hop { interface: name(1), next_hop }));
            }
            _ => {
                self.rib.0.insert(prefix, To::Tunnel(Hop { interface: name(0), next_hop }));
            }
        }
        // Sometimes nobody says so.
        if !script.byte().is_multiple_of(8) {
            self.give(Input::RoutesChanged(vec![prefix]));
        }
    }

    /// The beginning of an inner packet.
    fn inner(&self, script: &mut Script<'_>) -> Vec<u8> {
        let (source, destination) = (self.target(script).0, self.target(script).0);
        let mut packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = wire::ipv4::Header::new(source, destination, 17, 63, 40).unwrap();
                [wire::IntoBytes::as_bytes(&header), &[0; 40]].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = wire::ipv6::Header::new(source, destination, 17, 63, 40).unwrap();
                [wire::IntoBytes::as_bytes(&header), &[0; 40]].concat()
            }
            _ => script.bytes(60),
        };
        if script.byte().is_multiple_of(8) {
            packet.truncate(script.byte().into());
        }
        packet
    }

    /// A peer says something by itself.
    fn said(&mut self, script: &mut Script<'_>, what: u8) {
        let from = 1 + script.of(NODES - 1);
        let (source, destination) = match script.byte() % 4 {
            0..3 => (self.overlay(from), self.overlay(0)),
            _ => (self.target(script), self.target(script)),
        };
        let exchange = |kind, flags, entries: Vec<Cie>, request_id| Body::Exchange {
            kind,
            flags: Flags(flags),
            request_id,
            entries,
        };
        let id = u32::from(script.byte());
        let (body, destination) = match what {
            6 => {
                let flags = [0x8002, 0x0002, 0, 0x8000][script.of(4)];
                let entries = self.entries(script);
                (exchange(Kind::RegistrationRequest, flags, entries, id), destination)
            }
            7 => {
                let flags = [0xc802, 0xc802, 0x4800, 0x8002][script.of(4)];
                let entries = self.entries(script);
                (exchange(Kind::ResolutionRequest, flags, entries, id), self.target(script))
            }
            8 => {
                let flags = [0, 0x8000][script.of(2)];
                let entries = self.entries(script);
                (exchange(Kind::PurgeRequest, flags, entries, id), destination)
            }
            9 => {
                let packet = self.sent.last().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
                (Body::Error { code: ErrorCode(script.byte().into()), offset: 0, packet }, destination)
            }
            _ => (Body::Traffic { code: 0, packet: self.inner(script) }, destination),
        };
        let message = Message {
            families: self.families,
            hop_count: if script.byte().is_multiple_of(8) { script.byte() % 3 } else { 255 },
            source_nbma: Some(self.nbma(from).0),
            source: Some(source.0),
            destination: Some(destination.0),
            body,
            extensions: self.extensions(script),
        };
        self.speak(script, from, message);
    }

    fn entries(&self, script: &mut Script<'_>) -> Vec<Cie> {
        let count = [1, 1, 1, 0, 2, 3, 1, 9][script.of(8)];
        (0..count).map(|_| self.entry(script)).collect()
    }

    fn entry(&self, script: &mut Script<'_>) -> Cie {
        let how = script.byte();
        Cie {
            code: CieCode(if how & 7 == 7 { script.byte() % 16 } else { 0 }),
            prefix: [self.families.protocol.bits(), 0, 255, 24, 32, 16, 64, 8][usize::from(how >> 3 & 7)],
            mtu: 1400,
            holding_time: [600, 7200, 10, 0][usize::from(how >> 6)],
            preference: 0,
            nbma: script.flip().then(|| self.nbma(script.of(NODES)).0),
            protocol: script.flip().then(|| self.target(script).0),
        }
    }

    /// Extensions that a peer sends.
    fn extensions(&self, script: &mut Script<'_>) -> Option<Vec<Extension>> {
        let how = script.byte();
        if how == 0xff {
            return None;
        }
        let mut all: Vec<_> =
            [ExtensionType::RESPONDER, ExtensionType::FORWARD_TRANSIT, ExtensionType::REVERSE_TRANSIT]
                .into_iter()
                .map(|kind| Extension::empty(kind, true))
                .collect();
        if how & 1 != 0 {
            let mut nat = Extension::empty(ExtensionType::NAT, false);
            for _ in 0..script.of(3) {
                let _ = nat.push(&self.entry(script), self.families);
            }
            all.push(nat);
        }
        if how & 2 != 0 {
            let entry = self.entry(script);
            let _ = all[script.of(3)].push(&entry, self.families);
        }
        if how & 0x70 == 0x70
            && let Some(kind) = ExtensionType::new(script.half() & 0x3fff)
        {
            all.push(Extension::new(kind, script.flip(), script.bytes(20)));
        }
        let word = match how >> 2 & 3 {
            0 => "wrong",
            _ => "secret",
        };
        let authenticated = self.tunnels.first().is_some_and(|t| t.nhrp.authentication.is_some());
        if authenticated && how & 0x0c != 0x04 {
            let value = [&[0, 0, 0, 1], word.as_bytes()].concat();
            all.push(Extension::new(ExtensionType::AUTHENTICATION, true, value));
        }
        Some(all)
    }

    /// A peer answers a request of the node.
    fn answered(&mut self, script: &mut Script<'_>) {
        let back = script.of(REMEMBERED);
        let Some((to, bytes)) = self.sent.iter().rev().nth(back).or(self.sent.last()).cloned() else {
            return;
        };
        let Ok(mut message) = Message::decode(&bytes) else { return };
        let (source, destination) = (message.source, message.destination);
        let families = message.families;
        let Body::Exchange { kind, entries, flags, .. } = &mut message.body else { return };
        let how = script.byte();
        *kind = match *kind {
            Kind::ResolutionRequest => Kind::ResolutionReply,
            Kind::RegistrationRequest => Kind::RegistrationReply,
            Kind::PurgeRequest => Kind::PurgeReply,
            other => other,
        };
        let node = 1 + usize::from(how >> 5) % (NODES - 1);
        if how & 1 != 0 {
            *entries = self.entries(script);
        } else if *kind == Kind::ResolutionReply {
            *entries = vec![Cie {
                prefix: [families.protocol.bits(), families.protocol.bits() - 8][usize::from(how >> 1 & 1)],
                mtu: 1400,
                holding_time: 600,
                nbma: Some(self.nbma(node).0),
                protocol: Some(self.overlay(node).0),
                ..Cie::default()
            }];
            *flags = *flags | Flags::AUTHORITATIVE | Flags::DESTINATION_STABLE;
        }
        if how & 4 != 0 {
            for entry in entries {
                entry.code = CieCode([0, 4, 5, 12, 13, 14][script.of(6)]);
            }
        }
        if how & 8 != 0 {
            let responder = Cie {
                nbma: Some(self.nbma(node).0),
                protocol: Some(self.overlay(node).0),
                holding_time: 600,
                ..Cie::default()
            };
            if let Some(extension) = message.extension_mut(ExtensionType::RESPONDER) {
                let _ = extension.push(&responder, families);
            }
        }
        if how & 0x10 != 0 && script.flip() {
            // Somebody else's request, passed on to the node as if it were an answer.
            (message.source, message.destination) = (destination, source);
        }
        let from = (1..NODES).find(|node| self.nbma(*node) == to).unwrap_or(1);
        self.speak(script, from, message);
    }

    /// What the node said comes back to it, from somebody else, as it was or changed.
    fn echoed(&mut self, script: &mut Script<'_>) {
        let back = script.of(REMEMBERED);
        let Some((_, bytes)) = self.sent.iter().rev().nth(back).or(self.sent.last()).cloned() else { return };
        let bytes = changed(script, bytes);
        self.packet(script, bytes);
    }

    /// A message reaches the node.
    fn speak(&mut self, script: &mut Script<'_>, from: usize, message: Message) {
        let mut bytes = message.encode();
        if script.byte() % 8 == 7 {
            bytes = changed(script, bytes);
        }
        let from = if script.byte() % 8 == 7 { script.of(NODES) } else { from };
        self.arrive(script, from, bytes);
    }

    fn packet(&mut self, script: &mut Script<'_>, bytes: Vec<u8>) {
        let from = script.of(NODES);
        self.arrive(script, from, bytes);
    }

    fn arrive(&mut self, script: &mut Script<'_>, from: usize, bytes: Vec<u8>) {
        let identity = (script.byte() % 8 == 7).then(|| format!("spoke{}", script.of(3)));
        let from = Sender { nbma: self.nbma(from), port: port(script), identity, certified: None };
        let tunnel = name(usize::from(script.byte() % 16 == 15));
        let destination = self.nbma(0);
        self.give(Input::Packet { tunnel, from, destination, bytes });
    }
}

/// UDP port of a peer, where encapsulated.
fn port(script: &mut Script<'_>) -> Option<u16> {
    match script.byte() {
        byte @ 0xf0.. => Some(4500 + u16::from(byte & 3)),
        _ => None,
    }
}

/// Some bytes changed, the checksum right most of the time.
fn changed(script: &mut Script<'_>, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..script.of(5) {
        let at = usize::from(script.byte());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = script.byte();
        }
    }
    if !script.byte().is_multiple_of(16) && bytes.len() >= wire::nhrp::FIXED {
        let size = usize::from(u16::from_be_bytes([bytes[10], bytes[11]])).min(bytes.len());
        bytes[12..14].fill(0);
        let sum = wire::checksum::checksum(&bytes[..size.max(14)]);
        bytes[12..14].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}
