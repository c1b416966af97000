//! The conductor joins the configuration, the kernel's notices, the data plane's reports and packets, the NHRP engine and the
//! RIB into one desired program, and keeps the data plane and the kernel at it. Pure: time is an argument, and everything
//! that it wants done is an [`Output`].
//!
//! ```text
//!   configuration ─┐                      ┌─ Resync, Program ─▶ programmer ─▶ data plane
//!   kernel ────────┤ topology ─▶ RIB ─┐   ├─ Kernel ──────────▶ twins, addresses, routes, ARP
//!   ports ─────────┘                  ├─▶ desired program
//!   packets, reports ─▶ NHRP engine ──┘   └─ Send, Save, Event
//! ```
//!
//! ```text
//!   Away ── greeted ──▶ Here ── kernel synced, leases recorded, or 2 s ──▶ Resyncing ── all acknowledged ──▶ Up
//!     ▲                  │                                                     │                             │
//!     └──────────────────┴───────────────────────── away ──────────────────────┴─────────────────────────────┘
//! ```
//! A kernel that takes longer than that is not waited for, but nothing is swept before it has told all: what it has not told
//! yet, and all that stands on it, forwards in the data plane. The same goes for a disk that does not take leases (`lease`).
//!
//! The NHRP engine starts on the first way out of `Here`: its first requests would go nowhere before, and what it restored
//! must be in the program before the data plane sweeps.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use model::config::Config;
use model::config::check::Fault;
use model::config::diff::Change;
use model::program::{Binding, Hop, Key, Neighbour, Object, Op, Owner, Refusal, Replica, Route};
use model::report::PuntReason;
use model::sa::{Direction, Protection, Reached, Spi};
use model::state::event::Happening;
use model::time::Instant;
use model::{Instance, InterfaceName, Mac, NbmaAddr, TableId};
use nhrp::Engine;
use nhrp::journal::Line;

use crate::kernel::{Notice, Order, TwinSpec};
use crate::lookup;
use crate::rib::{Link, Origin, Rib, Target};
use desired::Desired;
use held::Held;
use lease::{Leases, Moved};
use path_mtu::PathMtus;
use peers::Peers;
use protect::Ike;
use stack::Stack;
use topology::{Seen, Topology};

mod agreed;
mod desired;
mod event;
mod explain;
mod follow;
mod held;
mod input;
mod lease;
mod next_hops;
mod output;
mod path_mtu;
mod peers;
mod protect;
mod report;
mod sa;
mod show;
mod stack;
mod topology;

pub use held::Datagram;
pub use input::Input;
pub use lease::{Fingerprint, Recorded};
pub use output::{Output, Steps};
pub use protect::{AllCredentials, Endpoint};

/// What survives a restart.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    /// Ethernet addresses of the data plane's ports: a twin is left as it is while the data plane is away.
    pub ports: BTreeMap<String, Mac>,
    /// Registrations, bindings and request ids.
    pub nhrp: Option<nhrp::Snapshot>,
    /// Keys that packets have been sealed with. How far is recorded elsewhere, and durably.
    #[serde(default)]
    pub sealed: BTreeSet<Fingerprint>,
}

/// See the module.
pub struct Conductor {
    config: Config,
    engine: Engine,
    keeps_journal: bool,
    is_engine_started: bool,
    rib: Rib,
    desired: Desired,
    stack: Stack,
    topology: Topology,
    /// The configuration, an address or a port changed: the topology is to be worked out again.
    is_topology_old: bool,
    /// Until then it stays as it is: packets of tunnels that go are on their way.
    parting: Option<Instant>,
    /// Objects of NHRP whose tunnel has no source address now, and since when.
    parked: BTreeMap<Key, (Object, Instant)>,
    seen: Seen,
    is_kernel_synced: bool,
    /// What was programmed since the greeting has swept nothing yet: the kernel had not told all.
    is_unswept: bool,
    ports: BTreeMap<String, Port>,
    /// What was ordered last.
    twins: Option<Vec<TwinSpec>>,
    kernel_routes: Option<Vec<Route>>,
    peers: Peers,
    dataplane: Dataplane,
    connection: u64,
    /// Number of the last steps.
    steps: u64,
    /// Number of the last ones that were acknowledged.
    taken: u64,
    /// What is to be sent, and waits for steps.
    held: Held,
    /// Everything waits until the steps of this number were taken: those make the tunnels that packets go through.
    held_until: Option<u64>,
    /// Neighbours to ask for then.
    wanted: BTreeSet<Hop>,
    refused: BTreeMap<(Owner, Key), Refused>,
    retry_at: Option<Instant>,
    /// When a neighbour was last asked for.
    asked: HashMap<Hop, Instant>,
    /// What the paths to peers take, where that is less than the tunnel's packets may be.
    path_mtus: PathMtus,
    /// Sequence numbers of outbound SAs.
    leases: Leases,
    /// Whom they were given to.
    leased_to: Option<Instance>,
    /// Workers of the data plane.
    workers: u16,
    /// What is wanted of SAs, or who seals, changed.
    are_sas_old: bool,
    /// What was said last of leases that cannot be recorded.
    unrecorded_for: Option<String>,
    /// Lifetimes that SAs have reached.
    reached: BTreeMap<(Protection, Spi, Direction), Reached>,
    /// Peers that are elsewhere than they are configured, by inbound SPI.
    moved: BTreeMap<Spi, Moved>,
    /// Objects of NHRP as it said them, that are programmed to a port.
    said: BTreeMap<Key, Object>,
    counted: Counted,
    changed: Changed,
    ike: Ike,
}

/// A port of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Port {
    mac: Mac,
    /// `None`: not heard of in this life, but it was there.
    link: Option<PortLink>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortLink {
    up: bool,
    mtu: u16,
}

/// Where we stand with the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dataplane {
    Away,
    Here {
        since: Instant,
        instance: Instance,
        version: String,
    },
    /// The steps of this number are its resync.
    Resyncing {
        number: u64,
        instance: Instance,
        version: String,
    },
    Up,
}

/// A step that was not taken.
#[derive(Debug, Clone)]
struct Refused {
    reason: Refusal,
    /// It was sent again, and nothing was heard of it since.
    is_retried: bool,
}

/// What is counted here.
#[derive(Debug, Default)]
struct Counted {
    /// Packets dropped by the data plane because its punt queue was full.
    punts_lost: BTreeMap<PuntReason, u64>,
    /// Packets of ours for which there was no data plane.
    unsent: u64,
    /// NHRP packets by SAs of a former life, of whom nobody knows what they may register.
    unknown: u64,
    /// Words about paths for which there was no room.
    paths_without_room: u64,
}

/// When things last changed that the state of a peer rests on, for as long as one does.
#[derive(Debug, Default)]
struct Changed {
    /// The way to an NBMA address.
    routes: HashMap<(TableId, NbmaAddr), Instant>,
    /// Whether a neighbour is resolved.
    neighbours: HashMap<Hop, Instant>,
    /// With more neighbours than this, those that no peer is behind are let go.
    most_neighbours: usize,
    /// Addresses of a port interface, and the link of its port.
    interfaces: HashMap<InterfaceName, Instant>,
}

/// How long to wait for the kernel, and for the disk that leases are recorded on, before programming what is known without them.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a tunnel stays that is no longer configured, so that its last packets leave by it.
const PARTING: Duration = Duration::from_millis(100);
/// How long until refused steps are sent again.
const RETRY: Duration = Duration::from_secs(5);
/// A neighbour that does not answer is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A neighbour in use is confirmed this often; the kernel calls one stale after 15 to 45 s.
const CONFIRM: Duration = Duration::from_secs(10);
/// Neighbours whose last change is kept whether or not a peer is behind them.
const NEIGHBOURS_NOTED: usize = 1024;

impl Conductor {
    /// `config` was checked, `kept` is as of `now`. The first [`Input::Tick`] makes it so.
    #[must_use]
    pub fn new(now: Instant, config: Config, seed: u64, kept: Kept) -> Self {
        let ports = kept.ports.into_iter().map(|(name, mac)| (name, Port { mac, link: None })).collect();
        Self {
            config,
            engine: Engine::new(now, seed, kept.nhrp),
            keeps_journal: false,
            is_engine_started: false,
            rib: Rib::default(),
            desired: Desired::default(),
            stack: Stack::default(),
            topology: Topology::default(),
            is_topology_old: true,
            parting: None,
            parked: BTreeMap::new(),
            seen: Seen::new(),
            is_kernel_synced: false,
            is_unswept: false,
            ports,
            twins: None,
            kernel_routes: None,
            peers: Peers::default(),
            dataplane: Dataplane::Away,
            connection: 0,
            steps: 0,
            taken: 0,
            held: Held::default(),
            held_until: None,
            wanted: BTreeSet::new(),
            refused: BTreeMap::new(),
            retry_at: None,
            asked: HashMap::new(),
            path_mtus: PathMtus::default(),
            leases: Leases::new(Recorded::default()),
            leased_to: None,
            workers: 1,
            are_sas_old: true,
            unrecorded_for: None,
            reached: BTreeMap::new(),
            moved: BTreeMap::new(),
            said: BTreeMap::new(),
            counted: Counted::default(),
            changed: Changed::default(),
            ike: Ike::new(Box::new(ike::crypto::aws_lc::AwsLc)),
        }
    }

    /// From now on, every call of the engine is an [`Output::Journal`].
    pub fn keep_journal(&mut self) {
        self.keeps_journal = true;
    }

    /// Takes one input; appends what is to be done, in order.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Kernel(notice) => self.notice(now, notice, out),
            Input::Report(report) => self.report(now, report, out),
            Input::Packet(packet) => self.packet(now, packet, out),
            Input::Datagram(datagram) => self.datagram(now, datagram, out),
            Input::LookedUp { tunnel, name, addresses } => {
                let own = self.topology.sources.get(&tunnel).copied().flatten();
                let addresses = lookup::usable(own, addresses);
                self.engine(now, nhrp::Input::LookedUp { tunnel, name, addresses }, out);
            }
            Input::Forwarding { bindings, path_mtus } => {
                self.engine.adopt(now, &bindings);
                if self.keeps_journal {
                    out.push(Output::Journal(Box::new(Line::Adopted { at: now, forwarding: bindings })));
                }
                self.adopt_paths(now, path_mtus);
            }
            Input::Greeted { connection, instance, version, workers, slots, ike } => {
                self.connection = connection;
                self.greet_sas(now, instance, workers, out);
                self.greet_ike(instance, (workers, slots), &ike);
                self.dataplane = Dataplane::Here { since: now, instance, version };
                self.is_topology_old = true;
            }
            Input::Recorded(number) => self.recorded(now, number, out),
            Input::Unrecorded { number, reason } => self.unrecorded(now, number, reason, out),
            Input::Taken(number) => self.taken(now, number, out),
            Input::Away { reason } => self.away(reason, out),
            Input::Refused { op, reason } => self.refusal(now, &op, reason, out),
            Input::Tick => {}
        }
        self.settle(now, out);
    }

    /// When the next [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let engine = self.engine.next_deadline().filter(|_| self.is_engine_started);
        let patience = match self.dataplane {
            Dataplane::Here { since, .. } => Some(since + PATIENCE),
            _ => None,
        };
        let peers = self.peers.due().filter(|_| self.twins.is_some());
        let leases = self.leases.next_deadline();
        let (ike, paths) = (self.ike.next_deadline(), self.path_mtus.next_deadline());
        [engine, patience, self.retry_at, self.parting, peers, paths, leases, ike].into_iter().flatten().min()
    }

    /// The running configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes a checked configuration the running one.
    pub fn apply(&mut self, now: Instant, config: Config, out: &mut Vec<Output>) {
        let changes = self.config.changes_to(&config).len();
        let mut staying = self.topology.nhrp.clone();
        staying.retain(|old| config.tunnels.iter().any(|t| t.name == old.name && t.nhrp.is_some()));
        if self.is_engine_started && staying.len() < self.topology.nhrp.len() {
            // What goes says goodbye, through the tunnels that go.
            self.engine(now, nhrp::Input::Configure(staying), out);
            self.parting = Some(now + PARTING);
        }
        self.config = config;
        self.is_topology_old = true;
        self.settle(now, out);
        let changes = u32::try_from(changes).unwrap_or(u32::MAX);
        out.push(Output::Event(Happening::ConfigApplied { changes }));
    }

    /// The number of the steps that put the running configuration in force; `None` while they are not worked out: a tunnel parts, or the data
    /// plane was just greeted.
    #[must_use]
    pub fn in_force_by(&self) -> Option<u64> {
        let is_worked_out = !self.is_topology_old && !matches!(self.dataplane, Dataplane::Here { .. });
        is_worked_out.then_some(self.steps)
    }

    /// Whether all workers of the data plane go by the steps of that number; or it is away, and nobody knows when it will.
    #[must_use]
    pub fn is_taken(&self, number: u64) -> bool {
        self.dataplane == Dataplane::Away || self.taken >= number
    }

    /// Forgets NHRP entries; returns how many.
    pub fn clear(&mut self, now: Instant, what: nhrp::Clear, out: &mut Vec<Output>) -> u64 {
        let before = self.engine.entries(now).len();
        self.engine(now, nhrp::Input::Clear(what), out);
        self.settle(now, out);
        u64::try_from(before.saturating_sub(self.engine.entries(now).len())).unwrap_or(u64::MAX)
    }

    /// Reads a configuration and says what would change: the transaction up to its commit, [`Conductor::apply`].
    ///
    /// # Errors
    /// The first fault, with its path. What names the process itself to others cannot change while it runs.
    pub fn plan(&self, text: &str) -> Result<(Config, Vec<Change>), Fault> {
        let config = Config::parse(text)?;
        let fixed = [
            ("node.state_file", config.node.state_file == self.config.node.state_file),
            ("dataplane.socket", config.dataplane.socket == self.config.dataplane.socket),
            ("management.socket", config.management.socket == self.config.management.socket),
            ("node.name", config.node.name == self.config.node.name),
        ];
        if let Some((path, _)) = fixed.into_iter().find(|(_, is_same)| !is_same) {
            let problem = "cannot change while nave-controlplane runs; restart it with the new file";
            return Err(Fault { path: path.to_owned(), problem: problem.to_owned() });
        }
        let changes = self.config.changes_to(&config);
        Ok((config, changes))
    }

    /// What is to survive a restart.
    #[must_use]
    pub fn kept(&self, now: Instant) -> Kept {
        let ports = self.ports.iter().map(|(name, port)| (name.clone(), port.mac)).collect();
        Kept { ports, nhrp: Some(self.engine.snapshot(now)), sealed: self.leases.keys() }
    }

    /// Whether packets wait for a program that is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.held_until.is_some()
    }

    /// A clean stop: peers are told, and nothing of ours stays in the data plane or the kernel. Returns what is to survive.
    pub fn stop(&mut self, now: Instant, out: &mut Vec<Output>) -> Kept {
        if self.is_engine_started {
            self.engine(now, nhrp::Input::Shutdown, out);
            // There is no later; most tunnels are there in spite of a program under way.
            self.held_until = None;
            out.extend(self.held.all().into_iter().map(Output::from));
        }
        self.stop_ike(now, out);
        out.extend(self.held.all().into_iter().map(Output::from));
        self.desired = Desired::default();
        if self.is_programmed() {
            let mut ops = self.ike.take_steps();
            ops.extend(self.desired.resync(now));
            self.program(ops, out);
        }
        out.push(Output::Kernel(Order::Stop { remove_twins: true }));
        self.kept(now)
    }

    fn notice(&mut self, now: Instant, notice: Notice, out: &mut Vec<Output>) {
        match notice {
            Notice::Address { interface, address, present } => {
                let seen = self.seen.entry(interface).or_default();
                let was = seen.contains(&address);
                match (present, was) {
                    (true, false) => seen.push(address),
                    (false, true) => seen.retain(|&a| a != address),
                    _ => return,
                }
                self.changed.interfaces.insert(interface, now);
                self.is_topology_old = true;
            }
            Notice::Neighbour { hop, mac } => self.neighbour(now, hop, mac),
            Notice::Route { route: Route { table, prefix, path, .. }, present } => {
                self.rib.set(Origin::Kernel, table, prefix, present.then_some(Target::Path(path)));
            }
            Notice::Underlay { route: Route { table, prefix, path, .. }, present } => {
                self.rib.set(Origin::Underlay, table, prefix, present.then_some(Target::Path(path)));
            }
            Notice::Synced => self.is_kernel_synced = true,
            Notice::Failed { order, reason } => {
                out.push(Output::Event(Happening::KernelRefused { order, reason }));
            }
        }
    }

    fn neighbour(&mut self, now: Instant, hop: Hop, mac: Option<Mac>) {
        if !matches!(self.rib.interfaces().get(&hop.interface), Some(Link::Port { .. })) {
            return;
        }
        let was = self.desired.object(Owner::Netlink, Key::Neighbour(hop)).is_some();
        if was != mac.is_some() {
            self.note_neighbour(now, hop);
        }
        match mac {
            Some(mac) => {
                let neighbour = Object::Neighbour(Neighbour { hop, mac });
                self.desired.put(now, Owner::Netlink, neighbour);
            }
            None => self.desired.remove(Owner::Netlink, Key::Neighbour(hop)),
        }
    }

    /// Most neighbours are hosts of a LAN, which no peer is behind.
    fn note_neighbour(&mut self, now: Instant, hop: Hop) {
        self.changed.neighbours.insert(hop, now);
        if self.changed.neighbours.len() <= self.changed.most_neighbours.max(NEIGHBOURS_NOTED) {
            return;
        }
        let objects = [Owner::Config, Owner::Nhrp].into_iter().flat_map(|owner| self.desired.of(owner));
        let links: HashSet<Hop> = objects
            .filter_map(|(_, object)| match object {
                Object::Binding(Binding { link, .. }) | Object::Replica(Replica { link, .. }) => *link,
                _ => None,
            })
            .collect();
        self.changed.neighbours.retain(|hop, _| links.contains(hop));
        self.changed.most_neighbours = self.changed.neighbours.len() * 2;
    }

    fn taken(&mut self, now: Instant, number: u64, out: &mut Vec<Output>) {
        self.taken = number;
        if self.held_until.is_some_and(|until| until <= number) {
            self.held_until = None;
            for hop in std::mem::take(&mut self.wanted) {
                self.want(now, hop, out);
            }
        }
        if let Dataplane::Resyncing { number: resync, instance, version } = &self.dataplane
            && *resync <= number
        {
            let version = version.clone();
            out.push(Output::Event(Happening::DataplaneUp { instance: instance.0, version }));
            self.dataplane = Dataplane::Up;
        }
    }

    fn away(&mut self, reason: String, out: &mut Vec<Output>) {
        if self.dataplane == Dataplane::Away {
            return;
        }
        self.dataplane = Dataplane::Away;
        self.counted.unsent += self.held.forget();
        self.held_until = None;
        self.refused.clear();
        self.retry_at = None;
        out.push(Output::Event(Happening::DataplaneDown { reason }));
    }

    fn refusal(&mut self, now: Instant, op: &Op, reason: Refusal, out: &mut Vec<Output>) {
        let at = match op {
            Op::Put(owner, object) => (*owner, object.key()),
            Op::Remove(owner, key) => (*owner, *key),
            // The programmer gives up the connection instead.
            Op::ResyncBegin(_) | Op::ResyncEnd(_) => return,
        };
        let is_new = self.refused.get(&at).is_none_or(|r| r.reason != reason);
        if is_new {
            let reason = format!("{}: {reason}", event::step(op));
            out.push(Output::Event(Happening::ProgramRefused { reason }));
        }
        self.refused.insert(at, Refused { reason, is_retried: false });
        self.retry_at.get_or_insert(now + RETRY);
    }

    /// Something stands on this neighbour: the first packet to it should not have to wait. The request for it goes out by a
    /// twin, so not before the data plane is at the twin's other end.
    fn want(&mut self, now: Instant, hop: Hop, out: &mut Vec<Output>) {
        if !self.is_programmed() || self.held_until.is_some() {
            self.wanted.insert(hop);
        } else if self.desired.object(Owner::Netlink, Key::Neighbour(hop)).is_none() {
            self.ask(now, hop, ASK_AGAIN, out);
        }
    }

    /// Asks the kernel for a neighbour, not too often.
    fn ask(&mut self, now: Instant, hop: Hop, again: Duration, out: &mut Vec<Output>) {
        if self.asked.get(&hop).is_some_and(|&at| now.since(at) < again) {
            return;
        }
        if self.asked.len() > 4096 {
            self.asked.retain(|_, at| now.since(*at) < CONFIRM);
        }
        self.asked.insert(hop, now);
        out.push(Output::Kernel(Order::Resolve(hop)));
    }

    /// Brings everything that follows into line.
    fn settle(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.is_topology_old && self.parting.is_none_or(|until| until <= now) {
            self.is_topology_old = false;
            self.parting = None;
            self.follow_topology(now, out);
        }
        self.follow_ike(now, out);
        self.follow_routes(now, out);
        if self.peers.due().is_some_and(|due| due <= now) {
            self.order_routes(now, out);
        }
        self.expire_paths(now);
        self.follow_sas(now, out);
        self.leave_here(now, out);
        self.sweep_late(now, out);
        if self.is_engine_started && self.engine.next_deadline().is_some_and(|due| due <= now) {
            self.engine(now, nhrp::Input::Tick, out);
        }
        self.retry(now, out);
        // Whom NHRP wants now.
        self.follow_ike(now, out);
        if self.is_programmed() {
            let mut ops = self.ike.take_steps();
            ops.extend(self.desired.flush(now));
            self.program(ops, out);
        }
        self.release(out);
        self.number_fresh();
        self.close_sockets(out);
    }

    /// Sends what need not wait any longer.
    fn release(&mut self, out: &mut Vec<Output>) {
        let ready = self.held.end_turn(self.steps, self.held_until, self.taken);
        out.extend(ready.into_iter().map(Output::from));
    }

    fn program(&mut self, ops: Vec<Op>, out: &mut Vec<Output>) {
        if ops.is_empty() {
            return;
        }
        self.steps += 1;
        if ops.iter().any(|op| matches!(op, Op::Put(_, Object::Interface(_) | Object::Tunnel(_)))) {
            self.held_until = Some(self.steps);
        }
        out.push(Output::Program(Steps { connection: self.connection, number: self.steps, ops }));
    }

    fn is_programmed(&self) -> bool {
        matches!(self.dataplane, Dataplane::Resyncing { .. } | Dataplane::Up)
    }

    /// The data plane is greeted and the kernel has told all, or takes long: start the engine if it was not, and program
    /// everything that is known.
    fn leave_here(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Dataplane::Here { since, instance, version } = &self.dataplane else { return };
        if !self.is_all_told() && now < *since + PATIENCE {
            return;
        }
        let (instance, version) = (*instance, version.clone());
        let is_first = !std::mem::replace(&mut self.is_engine_started, true);
        self.dataplane = Dataplane::Resyncing { number: self.steps + 1, instance, version };
        // What the engine sends on its way goes through tunnels that the resync makes.
        self.held_until = Some(self.steps + 1);
        if is_first {
            self.engine(now, nhrp::Input::Configure(self.topology.nhrp.clone()), out);
            // Peers that it remembers: static routes by them are in the resync.
            self.follow_routes(now, out);
        } else {
            self.engine(now, nhrp::Input::Reconnected, out);
        }
        self.is_unswept = !self.is_all_told();
        let ops = if self.is_unswept { self.desired.known(now) } else { self.desired.resync(now) };
        self.program(ops, out);
    }

    /// Whether the program is whole: the kernel has told all, and no SA waits for its lease.
    fn is_all_told(&self) -> bool {
        self.is_kernel_synced && !self.leases.is_waiting()
    }

    /// All has been told at last.
    fn sweep_late(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.is_unswept && self.is_all_told() && self.is_programmed() {
            self.is_unswept = false;
            let ops = self.desired.resync(now);
            self.program(ops, out);
        }
    }

    /// What was refused goes again after a while: what it lacked may be there now.
    fn retry(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        // Nothing was heard of these since they were sent again: they were taken.
        self.refused.retain(|_, refused| !refused.is_retried);
        // What others wait for first, whoever owns it.
        let mut again: Vec<_> = self.refused.keys().map(|&(owner, key)| (key, owner)).collect();
        again.sort_unstable();
        let ops: Vec<Op> = again.iter().map(|&(key, owner)| self.desired.step(now, owner, key)).collect();
        for refused in self.refused.values_mut() {
            refused.is_retried = true;
        }
        self.retry_at = (!ops.is_empty()).then(|| now + RETRY);
        if self.is_programmed() {
            self.program(ops, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_the_hosts_of_a_lan_does_not_grow() {
        let text = "[[interfaces]]\nname = \"lan0\"\naddresses = [\"10.0.0.1/8\"]\n[[interfaces]]\nname = \"wan0\"\n\
            addresses = [\"192.0.2.1/24\"]\n[[tunnels]]\nname = \"tunnel0\"\nmode = \"gre\"\nsource = \"wan0\"\n\
            destination = \"192.0.2.9\"\naddresses = [\"172.16.0.1/24\"]\n";
        let config = Config::parse(text).unwrap();
        let mut conductor = Conductor::new(Instant::default(), config, 1, Kept::default());
        let mut out = Vec::new();
        conductor.handle(Instant::default(), Input::Tick, &mut out);
        let peer = Hop { interface: "wan0".parse().unwrap(), next_hop: "192.0.2.9".parse().unwrap() };
        for host in 0..5 * NEIGHBOURS_NOTED as u32 {
            let next_hop = std::net::Ipv4Addr::from(0x0a00_0002 + host).into();
            let hop = Hop { interface: "lan0".parse().unwrap(), next_hop };
            let (now, mac) = (Instant(u64::from(host)), Some(Mac([2, 0, 0, 0, 0, 1])));
            for (hop, mac) in [(hop, mac), (peer, mac), (hop, None)] {
                conductor.handle(now, Input::Kernel(Notice::Neighbour { hop, mac }), &mut out);
            }
        }
        assert!(conductor.changed.neighbours.len() <= NEIGHBOURS_NOTED);
        assert_eq!(conductor.changed.neighbours.get(&peer), Some(&Instant(0)), "the peer's is kept");
    }
}
