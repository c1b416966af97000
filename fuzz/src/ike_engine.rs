//! The engine of IKE as a state machine: two nodes, a peer that has the keys and keeps to nothing, an underlay that loses, doubles, reorders and
//! changes, and a clock. Cryptography is a fake one, so that what is said gets through, and fast.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ike::crypto::fake::Fake;
use ike::input::Adopted;
use ike::{Action, Clear, Credentials, Engine, Input, Profile};
use model::program::{InboundSa, Key, Object, OutboundSa};
use model::sa::{Direction, Lifetimes, ProfileName, Protection, Reached, SaMode, Spi};
use model::time::Instant;
use model::{NbmaAddr, TableId, WorkerId};
use wire::ike::{KEEPALIVE, Message, NAT_PORT, NON_ESP_MARKER, PORT};

use crate::ike_puppet::{self, Puppet};
use crate::script::Script;

const NODES: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
const WORKERS: u16 = 2;
const SLOTS: u32 = 64;

/// How nodes are configured.
const CONFIGS: [&str; 4] = [
    "psk = [{ secret = 'of all' }]\n",
    "psk = [{ secret = 'of all' }]\nproposals = ['aes256gcm16-prfsha384-x25519-mlkem768', 'aes128gcm16-prfsha256-x25519']\nesp = ['aes256gcm16-esn-x25519', 'aes128gcm16']\n",
    "psk = [{ secret = 'of all' }]\nlifetime = 300\nchild_lifetime = 120\ndead_peer_detection = 10\nidle = 60\nfragment_size = 576\nlimits = { half_open = 4, half_open_per_address = 2, cookies_above = 1, auth_per_second = 5, sas = 6 }\n",
    "psk = [{ secret = 'of all' }]\nchild_per_worker = true\nproposals = ['aes256-sha384-prfsha512-x25519', 'aes256gcm16-prfsha384-x25519']\n",
];

/// Datagrams on the way at most; more are lost.
const UNDERLAY: usize = 64;

/// Messages that one input may make, beside those of each IKE SA that was there: fragments of an answer, and what it begins.
const SENDS: usize = 24;

/// Runs a script.
///
/// # Panics
/// A promise is broken: what is sent is no message; a key seals twice, or two have a place; what is told is not what is programmed; limits do
/// not hold; a step makes a storm; or, when all is quiet again, two nodes do not come up.
pub fn ike_engine(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut world = World::new(&mut script);
    while let Some(what) = script.next() {
        world.step(what, &mut script);
    }
    world.end_well();
}

struct Node {
    engine: Engine,
    config: usize,
    lives: u64,
    inbound: BTreeMap<Spi, InboundSa>,
    outbound: BTreeMap<(Protection, WorkerId), OutboundSa>,
    up: BTreeSet<Protection>,
    is_stopped: bool,
    /// It had small limits all its life.
    is_small: bool,
}

/// A datagram on the way.
#[derive(Clone)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct World {
    now: Instant,
    nodes: [Node; 2],
    puppet: Puppet,
    underlay: VecDeque<Datagram>,
    /// Keys that were programmed for sealing.
    sealed: BTreeSet<Vec<u8>>,
}

fn profile_name() -> ProfileName {
    "fuzz".parse().expect("a name")
}

fn loaded(config: usize) -> (model::config::Ike, Credentials) {
    let ike: model::config::Ike = toml::from_str(CONFIGS[config]).expect("a good section");
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let credentials = Credentials::load(&ike, &none).expect("no files");
    (ike, credentials)
}

fn peer(of: usize, remote: [u8; 4]) -> Protection {
    let (local, remote) = (NbmaAddr(NODES[of].into()), NbmaAddr(remote.into()));
    Protection { profile: profile_name(), table: TableId(0), local, remote, port: 0 }
}

impl World {
    fn new(script: &mut Script<'_>) -> Self {
        let (_, credentials) = loaded(0);
        let node = |script: &mut Script<'_>| Node {
            engine: Engine::new(Box::new(Fake::new(0))),
            config: script.of(CONFIGS.len()),
            lives: 0,
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            up: BTreeSet::new(),
            is_stopped: false,
            is_small: false,
        };
        let mut world = Self {
            now: Instant(1_700_000_000_000_000),
            nodes: [node(script), node(script)],
            puppet: Puppet::new(credentials),
            underlay: VecDeque::new(),
            sealed: BTreeSet::new(),
        };
        (0..2).for_each(|node| world.start(node, true));
        world
    }

    /// A new life of a control plane, with the data plane that was there or a new one.
    fn start(&mut self, node: usize, is_new: bool) {
        let n = &mut self.nodes[node];
        n.lives += 1;
        n.engine = Engine::new(Box::new(Fake::new((node as u64) << 32 | n.lives)));
        n.up.clear();
        n.is_stopped = false;
        n.is_small = n.config == 2;
        self.configure(node);
        self.greet(node, is_new);
        let n = &self.nodes[node];
        let inbound = n.inbound.values().map(|sa| {
            let worker = WorkerId(sa.spi.worker());
            Adopted { peer: sa.protection, direction: Direction::Inbound, spi: sa.spi, worker }
        });
        let outbound = n.outbound.values().map(|sa| Adopted {
            peer: sa.protection,
            direction: Direction::Outbound,
            spi: sa.spi,
            worker: sa.worker,
        });
        let adopted: Vec<_> = inbound.chain(outbound).collect();
        if !adopted.is_empty() {
            self.give(node, Input::Adopt(adopted));
        }
    }

    fn configure(&mut self, node: usize) {
        self.nodes[node].is_small &= self.nodes[node].config == 2;
        let (ike, credentials) = loaded(self.nodes[node].config);
        let profile = Profile {
            name: profile_name(),
            mode: SaMode::Transport,
            replay_window: 64,
            lifetimes: Lifetimes::default(),
            ike,
            credentials: Arc::new(credentials),
            sources: vec![(TableId(0), NbmaAddr(NODES[node].into()))],
        };
        self.give(node, Input::Configure(vec![profile]));
    }

    fn greet(&mut self, node: usize, is_new: bool) {
        if is_new {
            self.nodes[node].inbound.clear();
            self.nodes[node].outbound.clear();
        }
        let input = Input::Dataplane { workers: WORKERS, slots: SLOTS, reserved: Vec::new(), is_new };
        self.give(node, input);
    }

    /// One step of the script.
    fn step(&mut self, what: u8, script: &mut Script<'_>) {
        let node = usize::from(what >> 7);
        match what & 31 {
            0..=10 => drop(self.deliver()),
            11 => drop(self.underlay.pop_front()),
            12 => self.underlay.extend(self.underlay.front().cloned()),
            13 => self.underlay.rotate_left(1.min(self.underlay.len())),
            14 => {
                let (at, by) = (script.half(), script.byte());
                if let Some(datagram) = self.underlay.front_mut() {
                    let at = usize::from(at) % datagram.bytes.len();
                    datagram.bytes[at] ^= by;
                }
                self.deliver();
            }
            15..=17 => self.pass_to_deadline(),
            18 => self.pass(Duration::from_millis(1 << script.of(17))),
            19 => {
                let remote = if script.flip() { NODES[1 - node] } else { ike_puppet::ADDRESS };
                self.give(node, Input::Want { peer: peer(node, remote), is_server: script.flip() });
            }
            20 => {
                let n = &self.nodes[node];
                let inbound = n.inbound.keys().filter(|_| script.flip()).copied().collect();
                let outbound = n.outbound.keys().filter(|_| script.flip()).map(|(peer, _)| *peer).collect();
                self.give(node, Input::Used { inbound, outbound });
            }
            21 => self.lifetime(node, script),
            22 => {
                let at = script.of(self.nodes[node].inbound.len());
                let spi = self.nodes[node].inbound.keys().nth(at).copied();
                let remote = SocketAddr::from(([10, 0, 0, script.byte()], script.half()));
                if let Some(spi) = spi {
                    self.give(node, Input::Moved { spi, remote });
                }
            }
            // These end much of what was: they are seldom.
            23..=25 if script.of(4) > 0 => self.pass_to_deadline(),
            23 => self.restart(node, script),
            24 => {
                let remote = script.flip().then(|| NbmaAddr(NODES[1 - node].into()));
                self.give(node, Input::Clear(Clear { remote, identity: None }));
            }
            25 => {
                self.nodes[node].config = script.of(CONFIGS.len());
                self.configure(node);
            }
            26 => self.noise(node, script),
            27 => {
                let bytes = self.puppet.begin(script);
                self.of_puppet(node, vec![bytes], PORT);
            }
            28 => {
                let said = self.puppet.prove(NODES[node], script);
                self.of_puppet(node, said, NAT_PORT);
            }
            29 | 30 => {
                let said = self.puppet.speak(NODES[node], script);
                self.of_puppet(node, said, NAT_PORT);
            }
            _ => {
                let said = self.puppet.answer(NODES[node], script);
                self.of_puppet(node, said, NAT_PORT);
            }
        }
    }

    fn lifetime(&mut self, node: usize, script: &mut Script<'_>) {
        let n = &self.nodes[node];
        let reached = if script.flip() { Reached::Soft } else { Reached::Hard };
        let (at, of) = (script.of(n.inbound.len()), script.of(n.outbound.len()));
        let input = if script.flip() {
            let sa = n.inbound.values().nth(at);
            sa.map(|sa| Input::Lifetime {
                peer: sa.protection,
                spi: sa.spi,
                direction: Direction::Inbound,
                reached,
            })
        } else {
            let sa = n.outbound.values().nth(of);
            sa.map(|sa| Input::Lifetime {
                peer: sa.protection,
                spi: sa.spi,
                direction: Direction::Outbound,
                reached,
            })
        };
        if let Some(input) = input {
            self.give(node, input);
        }
    }

    /// Ends of processes.
    fn restart(&mut self, node: usize, script: &mut Script<'_>) {
        match script.of(5) {
            0 => self.start(node, true),
            1 => self.start(node, false),
            2 => self.greet(node, true),
            3 => self.greet(node, false),
            _ => {
                self.give(node, Input::Shutdown);
                let n = &mut self.nodes[node];
                n.is_stopped = true;
                assert_eq!((n.inbound.len(), n.outbound.len(), n.up.len()), (0, 0, 0), "something is left");
                assert_eq!(n.engine.next_deadline(), None, "something is still due");
            }
        }
    }

    /// Any bytes from anywhere.
    fn noise(&mut self, node: usize, script: &mut Script<'_>) {
        let port = if script.flip() { PORT } else { NAT_PORT };
        let from = SocketAddr::from(([10, 0, 0, script.byte()], script.half()));
        let mut bytes = script.bytes(255);
        // The marker, and a version that is ours, seldom come by chance.
        if port == NAT_PORT && script.flip() {
            bytes.splice(0..0, NON_ESP_MARKER);
        }
        let to = SocketAddr::from((NODES[node], port));
        self.receive(&Datagram { from, to, bytes });
    }

    /// What the puppet says is on its way.
    fn of_puppet(&mut self, node: usize, said: Vec<Vec<u8>>, port: u16) {
        for bytes in said {
            let bytes = if port == NAT_PORT { [&NON_ESP_MARKER[..], &bytes].concat() } else { bytes };
            let (from, to) = ((ike_puppet::ADDRESS, port).into(), (NODES[node], port).into());
            self.put_on_the_way(Datagram { from, to, bytes });
        }
    }

    fn put_on_the_way(&mut self, datagram: Datagram) {
        if self.underlay.len() < UNDERLAY {
            self.underlay.push_back(datagram);
        }
    }

    /// The next datagram arrives; whether there was one.
    fn deliver(&mut self) -> bool {
        let Some(datagram) = self.underlay.pop_front() else { return false };
        self.receive(&datagram);
        true
    }

    fn receive(&mut self, datagram: &Datagram) {
        let Datagram { from, to, bytes } = datagram;
        if !matches!(to.port(), PORT | NAT_PORT) {
            return;
        }
        if let Some(node) = NODES.iter().position(|own| IpAddr::from(*own) == to.ip()) {
            let (local, remote, bytes) = (*to, *from, bytes.clone());
            self.give(node, Input::Datagram { table: TableId(0), local, remote, bytes });
        } else if to.ip() == IpAddr::from(ike_puppet::ADDRESS) {
            let message = if to.port() == NAT_PORT { bytes.get(4..) } else { Some(&bytes[..]) };
            // What was changed on the way it does not understand.
            let message = message.filter(|message| Message::decode(message).is_ok());
            let answer = message.and_then(|message| self.puppet.hear(message));
            if let Some(bytes) = answer {
                self.put_on_the_way(Datagram { from: *to, to: *from, bytes: marked(bytes, to.port()) });
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        (0..2).for_each(|node| self.give(node, Input::Tick));
    }

    fn deadline(&self) -> Option<Instant> {
        self.nodes.iter().filter_map(|node| node.engine.next_deadline()).min()
    }

    fn pass_to_deadline(&mut self) {
        if let Some(due) = self.deadline() {
            self.now = self.now.max(due);
            (0..2).for_each(|node| self.give(node, Input::Tick));
        }
    }

    /// Gives an input to a node, and carries out what it wants.
    fn give(&mut self, node: usize, input: Input) {
        let n = &mut self.nodes[node];
        if n.is_stopped {
            return;
        }
        let (before, ..) = n.engine.sizes();
        let is_tick = matches!(input, Input::Tick);
        let mut actions = Vec::new();
        n.engine.handle(self.now, input, &mut actions);
        let deadline = n.engine.next_deadline();
        let is_due = deadline.is_some_and(|due| due <= self.now);
        assert!(!is_due || !is_tick, "it wants to be called at once, for ever");
        let sends = actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
        assert!(sends <= SENDS + 8 * before, "{sends} messages of one step with {before} IKE SAs");
        for action in actions {
            self.carry_out(node, action);
        }
        self.check(node);
        // What is configured otherwise may be due at once.
        if is_due {
            self.give(node, Input::Tick);
        }
    }

    /// What must be so after each step.
    fn check(&self, node: usize) {
        let n = &self.nodes[node];
        let (sas, half_open, _) = n.engine.sizes();
        let limits = model::config::IkeLimits::default();
        let limits = if n.is_small { small() } else { limits };
        assert!(half_open <= limits.half_open as usize, "{half_open} half-open IKE SAs");
        // The new ones of rekeyings are not refused for the limit, nor those that we want ourselves.
        assert!(sas <= 2 * limits.sas as usize + 8, "{sas} IKE SAs");
        for peer in &n.up {
            assert!(n.outbound.keys().any(|(to, _)| to == peer), "{peer} is up without an SA");
            assert!(n.engine.is_up(peer), "{peer} was told to be up");
        }
        // What shows itself does so without a fault.
        drop(n.engine.sas(self.now));
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        let n = &mut self.nodes[node];
        match action {
            Action::Send { local, remote, bytes, .. } => {
                assert_eq!(local.ip(), IpAddr::from(NODES[node]));
                check_sent(local, &bytes);
                self.put_on_the_way(Datagram { from: local, to: remote, bytes });
            }
            Action::Put(Object::InboundSa(sa)) => {
                let spi = sa.spi;
                assert!(spi.worker() < WORKERS && spi.slot() < SLOTS && spi.generation() > 0, "{spi}");
                let place = |spi: Spi| (spi.worker(), spi.slot());
                assert!(n.inbound.keys().all(|other| place(*other) != place(spi)), "a place is given twice");
                n.inbound.insert(spi, sa);
            }
            Action::Put(Object::OutboundSa(sa)) => {
                assert!(
                    self.sealed.insert(sa.key.keymat().to_vec()),
                    "a key is programmed for sealing twice"
                );
                assert!((sa.lease.first, sa.worker.0 < WORKERS) == (1, true));
                // Where the peer has an SA with this SPI that is for us, it has the same key.
                let us = NbmaAddr(NODES[node].into());
                let other = &self.nodes[1 - node];
                let there = other.inbound.get(&sa.spi).filter(|there| {
                    there.protection.remote == us && sa.protection.remote == NbmaAddr(NODES[1 - node].into())
                });
                assert!(there.is_none_or(|there| there.key == sa.key), "the peer has another key");
                self.nodes[node].outbound.insert((sa.protection, sa.worker), sa);
            }
            Action::Remove(Key::InboundSa(spi)) => {
                n.inbound.remove(&spi);
            }
            Action::Remove(Key::OutboundSa(peer, worker)) => {
                n.outbound.remove(&(peer, worker));
            }
            Action::Put(other) => panic!("{other:?} is not IKE's"),
            Action::Remove(other) => panic!("{other:?} is not IKE's"),
            Action::Up { peer, was, .. } => {
                assert!(n.outbound.keys().any(|(to, _)| *to == peer), "up without an SA");
                if let Some(was) = was {
                    assert!(n.up.remove(&was), "{was} was not up");
                }
                assert!(n.up.insert(peer), "{peer} was up");
            }
            Action::Down { peer, .. } => {
                assert!(n.up.remove(&peer), "{peer} was not up");
                assert!(!n.outbound.keys().any(|(to, _)| *to == peer), "down with an SA");
            }
            Action::Event(event) => drop(format!("{event:?}")),
        }
    }

    /// Whatever was: when the underlay is good again and nobody lies, who wants the other gets it.
    fn end_well(&mut self) {
        self.underlay.clear();
        for node in 0..2 {
            self.nodes[node].config = 0;
            if self.nodes[node].is_stopped {
                self.start(node, true);
            } else {
                self.configure(node);
            }
        }
        let want = Input::Want { peer: peer(0, NODES[1]), is_server: true };
        self.give(0, want);
        let end = self.now + Duration::from_secs(400);
        for turn in 0.. {
            assert!(turn < 20_000, "they do not come to rest");
            // The puppet is gone.
            self.underlay.retain(|datagram| NODES.iter().any(|own| IpAddr::from(*own) == datagram.to.ip()));
            if self.underlay.is_empty() {
                match self.deadline() {
                    Some(due) if due <= end => self.pass_to_deadline(),
                    _ => break,
                }
            } else {
                self.now = self.now + Duration::from_millis(5);
                self.deliver();
            }
        }
        for (node, other) in [(0, 1), (1, 0)] {
            let remote = NbmaAddr(NODES[other].into());
            let is_good = |((to, _), sa): (&(Protection, WorkerId), &OutboundSa)| {
                let there = self.nodes[other].inbound.get(&sa.spi);
                to.remote == remote && there.is_some_and(|there| there.key == sa.key)
            };
            assert!(self.nodes[node].outbound.iter().any(is_good), "node {node} cannot send to the other");
        }
    }
}

/// The limits of the third configuration.
fn small() -> model::config::IkeLimits {
    loaded(2).0.limits
}

fn marked(bytes: Vec<u8>, port: u16) -> Vec<u8> {
    if port == NAT_PORT { [&NON_ESP_MARKER[..], &bytes].concat() } else { bytes }
}

/// What is sent is a message as it should be, or keeps a mapping of a NAT.
fn check_sent(local: SocketAddr, bytes: &[u8]) {
    let message = match local.port() {
        PORT => bytes,
        NAT_PORT if *bytes == KEEPALIVE => return,
        NAT_PORT => bytes.strip_prefix(&NON_ESP_MARKER).expect("the marker stands before it"),
        other => panic!("from port {other}"),
    };
    let read = Message::decode(message).expect("what is sent is well formed");
    match read.sealed {
        None => assert_eq!(wire::ike::encode(read.header, &read.payloads), message),
        Some(sealed) => {
            let front =
                wire::ike::encode_front(read.header, sealed.first, sealed.fragment, sealed.body.len());
            assert_eq!(front, sealed.front);
        }
    }
}
