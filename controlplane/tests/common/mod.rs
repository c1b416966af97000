//! A cloud of conductors on a virtual clock, each with a data plane and a kernel that are maps.

#![allow(dead_code)] // Each test file uses its part.

pub(crate) mod process;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use controlplane::conductor::{Conductor, Datagram, Endpoint, Input, Kept, Output, Recorded};
use controlplane::credentials;
use controlplane::kernel::{Notice, Order};
use controlplane::lookup::LookUp;
use model::config::Config;
use model::program::{Hop, InboundSa, Key, Object, Op, OutboundSa, Owner, Path as Way, PathMtu, Refusal};
use model::report::{PacketIn, PuntReason, Report};
use model::sa::{ProfileName, Protection, Spi};
use model::state::event::Happening;
use model::time::Instant;
use model::{Instance, InterfaceAddr, InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

pub(crate) fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

pub(crate) fn protocol(text: &str) -> ProtocolAddr {
    text.parse().unwrap()
}

pub(crate) fn nbma(text: &str) -> NbmaAddr {
    text.parse().unwrap()
}

pub(crate) fn hop(interface: &str, next_hop: &str) -> Hop {
    Hop { interface: name(interface), next_hop: next_hop.parse().unwrap() }
}

pub(crate) fn route(prefix: &str) -> Key {
    Key::Route(TableId(0), prefix.parse::<Prefix>().unwrap())
}

pub(crate) fn binding(next_hop: &str) -> Key {
    Key::Binding(name("tunnel0"), protocol(next_hop))
}

/// A file of the demonstration cloud.
pub(crate) fn example(phase: u8, node: &str) -> String {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/cloud");
    std::fs::read_to_string(examples.join(format!("phase{phase}/{node}.toml"))).unwrap()
}

/// A node of phase 3 with peers of static keys: address, port, and a number that SPIs and keys are made of.
pub(crate) fn protected(node: &str, peers: &[(&str, u16, u32)]) -> String {
    let text = example(3, node).replacen("source = \"wan\"", "source = \"wan\"\nprotection = \"lab\"", 1);
    let mut profile = "\n[[profiles]]\nname = \"lab\"\n".to_owned();
    for (remote, port, n) in peers {
        let key = |way: u32| format!("{:08x}", n * 2 + way).repeat(5);
        profile.push_str(&format!(
            "[[profiles.static]]\nremote = \"{remote}\"\nport = {port}\ninbound = {{ spi = {}, key = \"{}\" }}\n\
             outbound = {{ spi = {}, key = \"{}\" }}\n",
            0x1000 + n,
            key(0),
            0x2000 + n,
            key(1)
        ));
    }
    text + &profile
}

pub(crate) type Programmed = BTreeMap<(Key, Owner), Object>;

/// What was in a place, and whether it was stale.
pub(crate) type Before = ((Key, Owner), Option<(Object, bool)>);

/// A data plane: what it was told, and the rules that it keeps.
#[derive(Debug, Default, Clone)]
pub(crate) struct Dataplane {
    objects: BTreeMap<(Key, Owner), (Object, bool)>,
    /// Everything that was ever removed or swept.
    pub(crate) removed: Vec<(Key, Owner)>,
    /// Puts that it refuses.
    pub(crate) refuses: Option<(Key, Refusal)>,
    pub(crate) steps: usize,
    /// How often it began anew.
    life: u64,
}

impl Dataplane {
    pub(crate) fn take(&mut self, op: &Op) -> Result<(), Refusal> {
        self.steps += 1;
        match op {
            Op::Put(owner, object) => {
                let key = object.key();
                if let Some((refused, refusal)) = &self.refuses
                    && *refused == key
                {
                    return Err(refusal.clone());
                }
                if let Object::InboundSa(sa) = object
                    && let Some(by) = self.spi_in_slot_of(sa.spi)
                {
                    return Err(Refusal::SlotTaken(sa.spi, by));
                }
                if let Some(missing) = needs(object).into_iter().find(|i| !self.has_interface(*i)) {
                    return Err(Refusal::NoInterface(missing));
                }
                self.objects.insert((key, *owner), (object.clone(), false));
            }
            Op::Remove(owner, key) => {
                if let Key::Interface(name) | Key::Tunnel(name) = key
                    && self.objects.values().any(|(o, _)| o.key() != *key && needs(o).contains(name))
                {
                    return Err(Refusal::Referred(*name));
                }
                if self.objects.remove(&(*key, *owner)).is_some() {
                    self.removed.push((*key, *owner));
                }
            }
            Op::ResyncBegin(owner) => {
                for (_, (_, stale)) in self.objects.iter_mut().filter(|((_, o), _)| o == owner) {
                    *stale = true;
                }
            }
            Op::ResyncEnd(owner) => {
                let swept: Vec<_> = self
                    .objects
                    .iter()
                    .filter(|((_, o), (_, stale))| o == owner && *stale)
                    .map(|(at, _)| *at)
                    .collect();
                for at in swept {
                    self.objects.remove(&at);
                    self.removed.push(at);
                }
            }
        }
        Ok(())
    }

    /// What a step would take away or put something in the place of.
    pub(crate) fn undo(&self, op: &Op) -> Option<Before> {
        let at = match op {
            Op::Put(owner, object) => (object.key(), *owner),
            Op::Remove(owner, key) => (*key, *owner),
            Op::ResyncBegin(_) | Op::ResyncEnd(_) => return None,
        };
        Some((at, self.objects.get(&at).cloned()))
    }

    pub(crate) fn restore(&mut self, at: (Key, Owner), old: Option<(Object, bool)>) {
        match old {
            Some(old) => self.objects.insert(at, old),
            None => self.objects.remove(&at),
        };
    }

    /// The SA by which packets to an address leave.
    pub(crate) fn seals_for(&self, remote: NbmaAddr) -> Option<Spi> {
        self.objects.values().find_map(|(object, _)| match object {
            Object::OutboundSa(sa) if sa.protection.remote == remote => Some(sa.spi),
            _ => None,
        })
    }

    /// Another SPI with the slot of this one.
    fn spi_in_slot_of(&self, spi: Spi) -> Option<Spi> {
        self.objects.keys().find_map(|(key, _)| match key {
            Key::InboundSa(other) if *other != spi && other.slot() == spi.slot() => Some(*other),
            _ => None,
        })
    }

    fn has_interface(&self, name: InterfaceName) -> bool {
        self.objects.keys().any(|(key, _)| *key == Key::Interface(name) || *key == Key::Tunnel(name))
    }

    /// As it shows itself.
    pub(crate) fn shown(&self) -> model::state::Program {
        let object = |((_, owner), (object, stale)): (&(Key, Owner), &(Object, bool))| {
            model::state::program::Programmed { owner: *owner, object: object.clone(), stale: *stale }
        };
        model::state::Program(self.objects.iter().map(object).collect())
    }

    /// What is programmed, without remaining times.
    pub(crate) fn program(&self) -> Programmed {
        let timeless = |object: &Object| {
            let mut object = object.clone();
            match &mut object {
                Object::Binding(binding) => binding.expires_in = None,
                Object::Route(route) => route.expires_in = None,
                Object::PathMtu(path) => path.expires_in = None,
                _ => {}
            }
            object
        };
        self.objects.iter().map(|(at, (object, _))| (*at, timeless(object))).collect()
    }

    pub(crate) fn object(&self, owner: Owner, key: Key) -> Option<&Object> {
        self.objects.get(&(key, owner)).map(|(object, _)| object)
    }

    /// The owner and way that packets to this prefix go.
    pub(crate) fn way(&self, prefix: &str) -> Option<Way> {
        let routes = self.objects.iter().filter(|((key, _), _)| *key == route(prefix));
        routes.min_by_key(|((_, owner), _)| *owner).and_then(|(_, (object, _))| match object {
            Object::Route(route) => Some(route.path.clone()),
            _ => None,
        })
    }

    /// NBMA address and link of a binding, whoever made it.
    pub(crate) fn bound(&self, next_hop: &str) -> Option<(NbmaAddr, Option<Hop>)> {
        let found = self.objects.iter().find(|((key, _), _)| *key == binding(next_hop));
        found.and_then(|(_, (object, _))| match object {
            Object::Binding(binding) => Some((binding.nbma, binding.link)),
            _ => None,
        })
    }
}

/// The interfaces that an object refers to.
fn needs(object: &Object) -> Vec<InterfaceName> {
    match object {
        Object::Interface(_) | Object::InboundSa(_) | Object::OutboundSa(_) => vec![],
        Object::Tunnel(tunnel) => vec![tunnel.source_interface],
        Object::Neighbour(neighbour) => vec![neighbour.hop.interface],
        Object::Binding(binding) => {
            [Some(binding.tunnel), binding.link.map(|l| l.interface)].into_iter().flatten().collect()
        }
        Object::Replica(replica) => {
            [Some(replica.tunnel), replica.link.map(|l| l.interface)].into_iter().flatten().collect()
        }
        Object::Fallback(fallback) => vec![fallback.tunnel],
        Object::Route(route) => route.path.interfaces().collect(),
        Object::PathMtu(path) => vec![path.tunnel],
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) conductor: Conductor,
    pub(crate) dataplane: Dataplane,
    connection: u64,
    /// Its kernel says nothing for now.
    pub(crate) is_deaf: bool,
    unheard: Vec<Notice>,
    /// Its packets and those to it are lost.
    pub(crate) is_gone: bool,
    /// What the kernel put on its twins.
    addresses: Vec<(InterfaceName, InterfaceAddr)>,
    pub(crate) orders: Vec<Order>,
    pub(crate) events: Vec<Happening>,
    pub(crate) saves: usize,
    /// The file of leases.
    pub(crate) recorded: Recorded,
    /// NHRP messages sent, by the type in their header (RFC 2332 §5.1).
    pub(crate) sent: Vec<u8>,
    /// To which UDP ports.
    pub(crate) sent_to: Vec<(NbmaAddr, u16)>,
    /// UDP port that its packets come from, where they are encapsulated.
    pub(crate) udp_port: u16,
    /// Its sockets of IKE.
    pub(crate) endpoints: Vec<Endpoint>,
    /// How often its control plane began anew.
    lives: u64,
}

impl Node {
    fn is_by_ike(&self) -> bool {
        self.conductor.config().profiles.iter().any(|profile| profile.ike.is_some())
    }

    /// The SA by which it takes what another sealed by this one: of the same SPI and key.
    fn opens(&self, outbound: &OutboundSa, from: NbmaAddr) -> Option<InboundSa> {
        match self.dataplane.objects.get(&(Key::InboundSa(outbound.spi), Owner::Ike)) {
            Some((Object::InboundSa(sa), _)) => {
                let is_same =
                    sa.key == outbound.key && sa.esn == outbound.esn && sa.protection.remote == from;
                is_same.then(|| sa.clone())
            }
            _ => None,
        }
    }
    pub(crate) fn has_seen(&self, what: impl Fn(&Happening) -> bool) -> bool {
        self.events.iter().any(what)
    }

    pub(crate) fn refusals(&self) -> Vec<&Happening> {
        self.events.iter().filter(|e| matches!(e, Happening::ProgramRefused { .. })).collect()
    }
}

/// Any beginning but 0: the shell's is the calendar's.
const BEGAN: Instant = Instant(1_790_000_000_000_000);

/// Nodes on one underlay.
pub(crate) struct Cloud {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    waiting: VecDeque<(usize, Input)>,
    /// Packets to peers without an SA, and packets by an SA that the receiver does not have.
    pub(crate) unsealed: usize,
    pub(crate) unopened: usize,
    /// Datagrams of IKE for which there was no socket.
    pub(crate) unsent: usize,
    /// Datagrams of IKE that were sent.
    pub(crate) datagrams: usize,
    /// Pairs of nodes between which no datagram of IKE passes, the lower first.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// What DNS says, and what it was asked.
    pub(crate) names: BTreeMap<String, Vec<NbmaAddr>>,
    pub(crate) looked_up: Vec<LookUp>,
}

impl Cloud {
    /// Hub and two spokes of the examples, running for some seconds.
    pub(crate) fn phase(phase: u8) -> Self {
        let mut cloud = Self::of(["hub", "spoke1", "spoke2"].map(|node| example(phase, node)).as_slice());
        for node in 0..cloud.nodes.len() {
            cloud.start(node);
        }
        cloud.run(Duration::from_secs(5));
        cloud
    }

    pub(crate) fn of(configs: &[String]) -> Self {
        let nodes = (0..).zip(configs).map(|(n, text)| {
            let node = node(text, Kept::default());
            Node { conductor: with_ike(node.conductor, n), ..node }
        });
        Self {
            now: BEGAN,
            nodes: nodes.collect(),
            waiting: VecDeque::new(),
            unsealed: 0,
            unopened: 0,
            datagrams: 0,
            unsent: 0,
            cut: BTreeSet::new(),
            names: BTreeMap::new(),
            looked_up: Vec::new(),
        }
    }

    /// Starts the control plane, and has its data plane greet.
    pub(crate) fn start(&mut self, node: usize) {
        self.give(node, Input::Tick);
        self.greet(node);
    }

    pub(crate) fn greet(&mut self, node: usize) {
        for (n, port) in ["wan", "lan"].into_iter().enumerate() {
            let mac = Mac([2, 0, 0, 0, node as u8, n as u8]);
            self.give(node, Input::Report(Report::Port { port: port.to_owned(), mac, up: true, mtu: 1500 }));
        }
        self.nodes[node].connection += 1;
        let connection = self.nodes[node].connection;
        let dataplane = &self.nodes[node].dataplane;
        let ike = dataplane.objects.iter().filter(|((_, owner), _)| *owner == Owner::Ike);
        let greeted = Input::Greeted {
            connection,
            instance: Instance(1 + node as u64 + 1000 * dataplane.life),
            version: "1".to_owned(),
            workers: 2,
            slots: 1 << 18,
            ike: ike.map(|(_, (object, _))| object.clone()).collect(),
        };
        self.give(node, greeted);
    }

    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let mut out = Vec::new();
        self.nodes[node].conductor.handle(self.now, input, &mut out);
        self.carry_out(node, out);
    }

    /// Kills a data plane; another one takes its place after a while.
    pub(crate) fn restart_dataplane(&mut self, node: usize, away: Duration) {
        self.give(node, Input::Away { reason: "killed".to_owned() });
        let life = self.nodes[node].dataplane.life + 1;
        self.nodes[node].dataplane = Dataplane { life, ..Dataplane::default() };
        self.run(away);
        self.greet(node);
    }

    /// The connection between the two is cut and comes back.
    pub(crate) fn reconnect(&mut self, node: usize) {
        self.give(node, Input::Away { reason: "cut".to_owned() });
        self.greet(node);
    }

    /// Kills a control plane and starts it again with what it had saved.
    pub(crate) fn restart(&mut self, node: usize, away: Duration) {
        self.restart_with(node, away, Vec::new());
    }

    /// As [`Self::restart`], and its data plane tells of what paths take.
    pub(crate) fn restart_with(&mut self, node: usize, away: Duration, path_mtus: Vec<PathMtu>) {
        let kept = self.nodes[node].conductor.kept(self.now);
        let config = self.nodes[node].conductor.config().clone();
        let text = serde_json::to_string(&kept).unwrap();
        let mut kept: Kept = serde_json::from_str(&text).unwrap();
        kept.nhrp = kept.nhrp.map(|snapshot| snapshot.aged(away));
        self.now = self.now + away;
        let conductor = Conductor::new(self.now, config, 77, kept);
        self.nodes[node].lives += 1;
        let seed = self.nodes[node].lives * 1000 + node as u64;
        self.nodes[node].conductor = with_ike(conductor, seed);
        let recorded = self.nodes[node].recorded.clone();
        self.nodes[node].conductor.resume_leases(recorded);
        self.nodes[node].dataplane.removed.clear();
        self.nodes[node].events.clear();
        self.give(node, Input::Tick);
        self.give(node, Input::Forwarding { bindings: Vec::new(), path_mtus });
        self.greet(node);
    }

    pub(crate) fn apply(&mut self, node: usize, text: &str) -> Result<usize, String> {
        let (config, changes) = self.nodes[node].conductor.plan(text).map_err(|fault| fault.to_string())?;
        let mut out = Vec::new();
        let credentials = credentials::load(&config).map_err(|fault| fault.to_string())?;
        self.nodes[node].conductor.hold_credentials(credentials);
        self.nodes[node].conductor.apply(self.now, config, &mut out);
        self.carry_out(node, out);
        Ok(changes.len())
    }

    /// Lets everything happen that does within a time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some((node, input)) = self.waiting.pop_front() {
                self.give(node, input);
            }
            let next = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].conductor.next_deadline()?, n)))
                .min()
                .filter(|(due, _)| *due <= end);
            let Some((due, node)) = next else { break };
            self.now = self.now.max(due);
            self.give(node, Input::Tick);
        }
        self.now = end;
    }

    /// The data plane of the hub relayed a packet between spokes and says so.
    pub(crate) fn redirect(&mut self, from: &str, source: &str, destination: &str) {
        let mut packet = match source.parse::<std::net::IpAddr>().unwrap() {
            std::net::IpAddr::V4(_) => vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0],
            std::net::IpAddr::V6(_) => vec![0x60, 0, 0, 0, 0, 8, 17, 64],
        };
        for address in [source, destination] {
            match address.parse::<std::net::IpAddr>().unwrap() {
                std::net::IpAddr::V4(address) => packet.extend(address.octets()),
                std::net::IpAddr::V6(address) => packet.extend(address.octets()),
            }
        }
        if packet[0] == 0x45 {
            let sum = packet.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum::<u32>();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet.extend([0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let packet = PacketIn {
            reason: PuntReason::Redirect,
            tunnel: name("tunnel0"),
            source: nbma(from),
            destination: nbma("203.0.113.1"),
            udp_port: 0,
            bytes: packet,
            dropped_before: 0,
            spi: None,
        };
        self.give(0, Input::Packet(packet));
    }

    pub(crate) fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::LookUp(what) => {
                    let addresses = self.names.get(&what.name).cloned().unwrap_or_default();
                    let (tunnel, name) = (what.tunnel, what.name.clone());
                    self.waiting.push_back((node, Input::LookedUp { tunnel, name, addresses }));
                    self.looked_up.push(what);
                }
                Output::Program(steps) => {
                    assert_eq!(steps.connection, self.nodes[node].connection);
                    for op in &steps.ops {
                        if let Err(reason) = self.nodes[node].dataplane.take(op) {
                            self.waiting.push_back((node, Input::Refused { op: op.clone(), reason }));
                        }
                    }
                    self.waiting.push_back((node, Input::Taken(steps.number)));
                }
                Output::Send(packet) => self.deliver(node, packet),
                Output::Datagram(datagram) => self.carry(node, datagram),
                Output::Listen(endpoints) => self.nodes[node].endpoints = endpoints,
                Output::Kernel(order) => {
                    self.obey(node, &order);
                    self.nodes[node].orders.push(order);
                }
                Output::Record { number, recorded } => {
                    self.nodes[node].recorded = recorded;
                    self.waiting.push_back((node, Input::Recorded(number)));
                }
                Output::Save => self.nodes[node].saves += 1,
                Output::Journal(_) => panic!("nobody keeps a journal here"),
                Output::Event(event) => self.nodes[node].events.push(event),
            }
        }
    }

    fn deliver(&mut self, node: usize, packet: model::report::PacketOut) {
        assert_eq!(packet.protocol_type, 0x2001);
        self.nodes[node].sent.push(packet.bytes[17]);
        self.nodes[node].sent_to.push((packet.destination, packet.port));
        let tunnel = Key::Tunnel(packet.tunnel);
        let Some(Object::Tunnel(from)) = self.nodes[node].dataplane.object(Owner::Config, tunnel) else {
            panic!("a packet through a tunnel that the data plane does not have");
        };
        let (source, key) = (from.source, from.key);
        let (profile, is_clear) = (from.protection, from.protection.is_none());
        let sealed = profile.and_then(|profile| self.seal(node, profile, &packet));
        for to in 0..self.nodes.len() {
            if self.nodes[node].is_gone || self.nodes[to].is_gone {
                continue;
            }
            let tunnels = self.nodes[to].dataplane.objects.values().filter_map(|(object, _)| match object {
                Object::Tunnel(t) if t.source == packet.destination && t.key == key => Some(t.name),
                _ => None,
            });
            for tunnel in tunnels.collect::<Vec<_>>() {
                let (mut spi, mut udp_port) = (None, self.nodes[node].udp_port);
                match &sealed {
                    // Of static keys the tests look at what is programmed.
                    _ if is_clear || !self.nodes[node].is_by_ike() => {}
                    Some(outbound) => match self.nodes[to].opens(outbound, source) {
                        Some(inbound) => (spi, udp_port) = (Some(inbound.spi), inbound.protection.port),
                        None => {
                            self.unopened += 1;
                            continue;
                        }
                    },
                    None => {
                        self.unsealed += 1;
                        continue;
                    }
                }
                let packet = PacketIn {
                    reason: PuntReason::Nhrp,
                    tunnel,
                    source,
                    destination: packet.destination,
                    udp_port,
                    bytes: packet.bytes.clone(),
                    dropped_before: 0,
                    spi,
                };
                self.waiting.push_back((to, Input::Packet(packet)));
            }
        }
    }

    /// The SA that a packet leaves by.
    fn seal(
        &self,
        node: usize,
        profile: ProfileName,
        packet: &model::report::PacketOut,
    ) -> Option<OutboundSa> {
        let is_it = |sa: &OutboundSa| {
            let Protection { profile: of, remote, port, .. } = sa.protection;
            (of, remote, port) == (profile, packet.destination, packet.port)
        };
        let objects = self.nodes[node].dataplane.objects.values();
        let mut sas = objects.filter_map(|(object, _)| match object {
            Object::OutboundSa(sa) if is_it(sa) => Some(sa.clone()),
            _ => None,
        });
        sas.next()
    }

    /// A datagram of IKE on its way: to whoever has a socket there.
    fn carry(&mut self, node: usize, datagram: Datagram) {
        let Datagram { table, local, remote, bytes } = datagram;
        let has_socket = |node: &Node, at: SocketAddr| node.endpoints.iter().any(|e| e.local == at);
        // A last word, behind the close of its socket.
        if !has_socket(&self.nodes[node], local) {
            self.unsent += 1;
            return;
        }
        self.datagrams += 1;
        for to in 0..self.nodes.len() {
            let is_lost = self.nodes[node].is_gone || self.nodes[to].is_gone || self.is_cut(node, to);
            if to != node && !is_lost && has_socket(&self.nodes[to], remote) {
                let datagram = Datagram { table, local: remote, remote: local, bytes: bytes.clone() };
                self.waiting.push_back((to, Input::Datagram(datagram)));
            }
        }
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn notify(&mut self, node: usize, notice: Notice) {
        if self.nodes[node].is_deaf {
            self.nodes[node].unheard.push(notice);
        } else {
            self.waiting.push_back((node, Input::Kernel(notice)));
        }
    }

    /// Its kernel says all that it had to say.
    pub(crate) fn hear(&mut self, node: usize) {
        self.nodes[node].is_deaf = false;
        for notice in std::mem::take(&mut self.nodes[node].unheard) {
            self.give(node, Input::Kernel(notice));
        }
    }

    /// The kernel: every address is there, every neighbour answers.
    fn obey(&mut self, node: usize, order: &Order) {
        match order {
            Order::Twins(twins) => {
                for (interface, address) in std::mem::take(&mut self.nodes[node].addresses) {
                    let twin = twins.iter().find(|t| t.name == interface);
                    if twin.is_none_or(|t| t.configured && !t.addresses.contains(&address)) {
                        self.notify(node, Notice::Address { interface, address, present: false });
                    }
                }
                for twin in twins {
                    for &address in &twin.addresses {
                        let notice = Notice::Address { interface: twin.name, address, present: true };
                        self.nodes[node].addresses.push((twin.name, address));
                        self.notify(node, notice);
                    }
                }
                self.notify(node, Notice::Synced);
            }
            Order::Resolve(hop) => {
                let mac = Some(Mac([2, 0xee, 0, 0, 0, 1]));
                self.notify(node, Notice::Neighbour { hop: *hop, mac });
            }
            Order::Routes(_) | Order::Stop { .. } => {}
        }
    }
}

pub(crate) fn node(text: &str, kept: Kept) -> Node {
    Node {
        conductor: Conductor::new(BEGAN, Config::parse(text).unwrap(), 42, kept),
        dataplane: Dataplane::default(),
        connection: 0,
        is_deaf: false,
        unheard: Vec::new(),
        is_gone: false,
        addresses: Vec::new(),
        orders: Vec::new(),
        events: Vec::new(),
        saves: 0,
        recorded: Recorded::default(),
        sent: Vec::new(),
        sent_to: Vec::new(),
        udp_port: 0,
        endpoints: Vec::new(),
        lives: 0,
    }
}

/// Cryptography that is the same in each run, and what the files of its profiles hold.
fn with_ike(mut conductor: Conductor, seed: u64) -> Conductor {
    conductor.encrypt_by(Box::new(ike::crypto::fake::Fake::new(seed)));
    let credentials = credentials::load(conductor.config()).unwrap();
    conductor.hold_credentials(credentials);
    conductor
}
