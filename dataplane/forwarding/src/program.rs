//! The program: what the control plane's batches make of the tables.
//!
//! ```text
//! batch ─► check and note every step (or take all back) ─► reserve ─► rebuild what changed
//!        ─► publish new adjacencies, tunnels, interfaces ─► store FIB words ─► publish without what is gone
//! ```
//!
//! In this order no packet meets a word whose adjacency it cannot have: what is new is published before a word refers to
//! it, what is old goes after the last word did. Only what a batch touches is rebuilt: the program knows which prefix,
//! next hop, link and tunnel hang on which.

mod build;
mod check;
mod objects;
mod reserve;
mod show;
mod slots;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use memory::MapError;
use model::program::{Batch, Key, Object, Op, Owner, Refusal, Refused};
use model::report::Report;
use model::time::{Instant, Timers};
use model::{InterfaceName, Mac};
use wire::buf::PacketBuf;

use crate::adjacency::{Adjacencies, AdjacencyId};
use crate::counters::{Counters, Traffic};
use crate::fib::{V4Prefix, Writer};
use crate::ports::{InterfaceId, Notice};
use crate::publish::Publisher;
use crate::tables::{Decap, Interfaces, Nbmas, Tables};
use crate::worker::Worker;
use objects::{Objects, names};
pub use show::{AdjacencyShow, FibShow, InterfaceShow, NextHopShow, RouteShow, TunnelShow};
use slots::{Slots, Target};

/// Most interfaces and tunnels together.
const INTERFACES: usize = 4096;
/// /24 of the FIB that may hold longer prefixes.
const FIB_GROUPS: usize = 1 << 16;

/// A port of the data plane. Its place in the list that the program is made with is its [`crate::PortId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name on the command line, which `Interface::port` refers to.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Largest IP packet that it takes, in bytes.
    pub mtu: u16,
}

/// Tunnel, NBMA address, what sends there, and the link by which it does.
type Way = (InterfaceId, u32, Target, Target);

/// The one writer of the tables.
#[derive(Debug)]
pub struct Program {
    ports: Vec<Port>,
    objects: Objects,
    timers: Timers<(Key, Owner)>,
    /// Numbers of interfaces and tunnels, and numbers to use again, oldest first.
    ids: BTreeMap<InterfaceName, InterfaceId>,
    names: Vec<Option<InterfaceName>>,
    free_ids: VecDeque<InterfaceId>,
    slots: Slots,
    /// What each prefix of the FIB leads to.
    installed: BTreeMap<V4Prefix, Target>,
    /// What an object keeps in its place, used or not.
    pins: HashMap<Key, Target>,
    /// Resolved next hops by address, with their interfaces: each may have a host entry in the FIB.
    hosts: BTreeSet<(u32, InterfaceId)>,
    /// The link of each midchain, and the midchains of each link.
    links: HashMap<Target, Target>,
    stacked: BTreeSet<(Target, Target)>,
    /// Own addresses of each interface.
    own: BTreeSet<(InterfaceId, u32)>,
    fib: Writer,
    adjacencies: Adjacencies,
    interfaces: Arc<Interfaces>,
    decap: Arc<Decap>,
    nbmas: Arc<Nbmas>,
    /// The ways to NBMA addresses, by address and by what sends that way.
    ways: BTreeSet<Way>,
    way_of: HashMap<Target, Way>,
    publisher: Publisher<Tables>,
    workers: Vec<Arc<Counters>>,
    /// What workers spread the keys of their limits by.
    secret: u64,
    /// What each place had carried when its adjacency came, and when it was last asked about.
    before: HashMap<Target, Traffic>,
    asked: HashMap<Target, u64>,
}

impl Program {
    /// An empty program for these ports.
    ///
    /// # Errors
    /// [`MapError`] without address space for the FIB (64 MiB, and as much for long prefixes).
    pub fn new(ports: Vec<Port>) -> Result<Self, MapError> {
        Self::with_room(ports, AdjacencyId::LIMIT, FIB_GROUPS)
    }

    /// An empty program with room for so many adjacencies (at most [`AdjacencyId::LIMIT`]) and so many /24 that hold longer
    /// prefixes.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn with_room(ports: Vec<Port>, adjacencies: usize, groups: usize) -> Result<Self, MapError> {
        let fib = Writer::new(groups)?;
        let empty = Tables {
            fib: fib.fib(),
            adjacencies: Adjacencies::default(),
            interfaces: Arc::default(),
            decap: Arc::default(),
            nbmas: Arc::default(),
        };
        let mut program = Self {
            ports,
            objects: Objects::default(),
            timers: Timers::default(),
            ids: BTreeMap::new(),
            names: Vec::new(),
            free_ids: VecDeque::new(),
            slots: Slots::new(adjacencies.min(AdjacencyId::LIMIT)),
            installed: BTreeMap::new(),
            pins: HashMap::new(),
            hosts: BTreeSet::new(),
            links: HashMap::new(),
            stacked: BTreeSet::new(),
            own: BTreeSet::new(),
            fib,
            adjacencies: Adjacencies::default(),
            interfaces: Arc::default(),
            decap: Arc::default(),
            nbmas: Arc::default(),
            ways: BTreeSet::new(),
            way_of: HashMap::new(),
            publisher: Publisher::new(empty),
            workers: Vec::new(),
            secret: 0,
            before: HashMap::new(),
            asked: HashMap::new(),
        };
        program.install_fixed();
        Ok(program)
    }

    /// Gives the workers that are made from now on a secret, so that nobody who sends packets can tell which of them share
    /// places in the tables of what is limited.
    #[must_use]
    pub fn with_secret(mut self, secret: u64) -> Self {
        self.secret = secret;
        self
    }

    /// Another worker, for a thread of its own. Workers are counted from 0 in the order of these calls.
    ///
    /// # Errors
    /// [`MapError`] without address space for its counters (16 MiB).
    pub fn worker<B: PacketBuf>(&mut self) -> Result<Worker<B>, MapError> {
        let counters = Arc::new(Counters::new(AdjacencyId::LIMIT)?);
        let index = self.workers.len();
        self.workers.push(Arc::clone(&counters));
        Ok(Worker::new(self.publisher.reader(), counters, self.ports.len(), self.secret, index))
    }

    /// Does all of a batch, or nothing.
    ///
    /// # Errors
    /// [`Refused`]: which step, and why.
    pub fn apply(&mut self, now: Instant, batch: &Batch) -> Result<(), Refused> {
        self.reclaim();
        self.objects.begin();
        match self.note(now, &batch.ops) {
            Ok(()) => {
                self.commit();
                Ok(())
            }
            Err(refused) => {
                self.objects.roll_back();
                Err(refused)
            }
        }
    }

    /// Notes every step; the caller takes all back if one is refused.
    fn note(&mut self, now: Instant, ops: &[Op]) -> Result<(), Refused> {
        let mut removed = BTreeMap::new();
        for (op, step) in ops.iter().enumerate() {
            match step {
                Op::Put(owner, object) => {
                    self.check(object).map_err(|reason| Refused { op, reason })?;
                    let expires = expires_in(object).map(|left| now + left);
                    self.objects.put(*owner, object.clone(), expires);
                }
                Op::Remove(owner, key) => {
                    self.objects.remove(*owner, *key);
                    if let Key::Interface(name) | Key::Tunnel(name) = key {
                        removed.insert(*name, op);
                    }
                }
                Op::ResyncBegin(owner) => self.objects.mark(*owner),
                Op::ResyncEnd(owner) => self.sweep(*owner),
            }
        }
        for (name, op) in removed {
            if !self.is_there(name) && !self.referring(name).is_empty() {
                return Err(Refused { op, reason: Refusal::Referred(name) });
            }
        }
        self.reserve(ops)
    }

    /// Removes an owner's stale objects. What else is on an interface that goes with them has no meaning any more and goes too.
    fn sweep(&mut self, owner: Owner) {
        let mut stale: Vec<_> = self.objects.stale(owner).into_iter().map(|key| (key, owner)).collect();
        while let Some((key, owner)) = stale.pop() {
            self.objects.remove(owner, key);
            if let Key::Interface(name) | Key::Tunnel(name) = key
                && !self.is_there(name)
            {
                stale.extend(self.referring(name));
            }
        }
    }

    fn is_there(&self, name: InterfaceName) -> bool {
        [Key::Interface(name), Key::Tunnel(name)].iter().any(|key| self.objects.winner(*key).is_some())
    }

    /// What names an interface or tunnel.
    fn referring(&self, name: InterfaceName) -> Vec<(Key, Owner)> {
        let refers = |object: &Object| names(object).contains(&Some(name));
        let found = self.objects.all().filter(|(_, claim)| refers(&claim.object));
        found.map(|(owner, claim)| (claim.object.key(), owner)).collect()
    }

    /// Lets go what has expired. Reports the bindings that did and that nobody else has.
    pub fn expire(&mut self, now: Instant) -> Vec<Report> {
        self.reclaim();
        let mut reports = Vec::new();
        self.objects.begin();
        while let Some((key, owner)) = self.timers.expire(now) {
            self.objects.remove(owner, key);
            if let Key::Binding(tunnel, next_hop) = key
                && self.objects.winner(key).is_none()
            {
                reports.push(Report::BindingExpired { tunnel, next_hop });
            }
        }
        self.commit();
        reports
    }

    /// When [`Program::expire`] has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// A worker's notice in the control plane's words; `None` if its interface is gone.
    #[must_use]
    pub fn report(&self, notice: Notice) -> Option<Report> {
        let Notice::Glean { interface, next_hop } = notice;
        let interface = self.interface_name(interface)?;
        Some(Report::Glean(model::program::Hop { interface, next_hop: next_hop.into() }))
    }

    /// The name of an interface or tunnel.
    #[must_use]
    pub fn interface_name(&self, id: InterfaceId) -> Option<InterfaceName> {
        *self.names.get(usize::from(id.0))?
    }

    /// The number of an interface or tunnel.
    #[must_use]
    pub fn interface_id(&self, name: InterfaceName) -> Option<InterfaceId> {
        self.ids.get(&name).copied()
    }

    /// The counters of each worker.
    #[must_use]
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.workers
    }

    /// Takes back what workers have let go of.
    fn reclaim(&mut self) {
        let acknowledged = self.publisher.acknowledged();
        self.slots.reclaim(acknowledged);
        self.fib.reclaim(acknowledged);
        self.publisher.collect();
    }
}

fn expires_in(object: &Object) -> Option<Duration> {
    match object {
        Object::Binding(binding) => binding.expires_in,
        Object::Route(route) => route.expires_in,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use model::program::{Hop, Interface, Neighbour, Path, Route};
    use model::{Prefix, TableId};
    use wire::buf::TestBuf;
    use wire::{ethernet, ipv4};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::fib::Word;
    use crate::ports::{Injected, PortId, Ports, Punt};
    use crate::{Breath, DropReason, breathe};

    /// One port, which takes everything.
    #[derive(Default)]
    struct OnePort {
        rx: VecDeque<TestBuf>,
        tx: usize,
    }

    impl Ports for OnePort {
        type Buf = TestBuf;
        fn count(&self) -> u16 {
            1
        }
        fn rx(&mut self, _: PortId, into: &mut Vec<TestBuf>, max: usize) {
            let count = max.min(self.rx.len());
            into.extend(self.rx.drain(..count));
        }
        fn tx(&mut self, _: PortId, from: &mut Vec<TestBuf>) {
            self.tx += from.len();
            from.clear();
        }
        fn alloc(&mut self) -> Option<TestBuf> {
            None
        }
        fn free(&mut self, bufs: &mut Vec<TestBuf>) {
            bufs.clear();
        }
        fn punt(&mut self, _: Punt, buf: TestBuf) -> Result<(), TestBuf> {
            Err(buf)
        }
        fn injected(&mut self, _: &mut Vec<Injected<TestBuf>>, _: usize) {}
        fn notice(&mut self, _: Notice) -> bool {
            true
        }
    }

    /// A program with a route to a neighbour, and the frame of a packet that takes it.
    fn one_route() -> (Program, V4Prefix, TestBuf) {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut program = Program::new(vec![Port { name: "p0".into(), mac, mtu: 1500 }]).unwrap();
        let (name, table): (InterfaceName, _) = ("lan".parse().unwrap(), TableId(0));
        let prefix: Prefix = "10.9.0.0/16".parse().unwrap();
        let hop = Hop { interface: name, next_hop: "10.1.0.2".parse().unwrap() };
        let objects = [
            Object::Interface(Interface { name, port: "p0".into(), mtu: 1500, table, forwarding: true }),
            Object::Neighbour(Neighbour { hop, mac: Mac([2, 0, 0, 0, 0, 2]) }),
            Object::Route(Route { table, prefix, path: Path::Via(hop), expires_in: None }),
        ];
        let ops = objects.map(|object| Op::Put(Owner::Config, object)).to_vec();
        program.apply(Instant::default(), &Batch { number: 1, ops }).unwrap();
        let link = ethernet::Header::new(mac.0, [2, 0, 0, 0, 0, 9], ethernet::IPV4);
        let ip = ipv4::Header::new([10, 1, 0, 9].into(), [10, 9, 0, 9].into(), ipv4::UDP, 64, 8).unwrap();
        let frame = [link.as_bytes(), ip.as_bytes(), &[0; 8]].concat();
        (program, prefix.try_into().unwrap(), TestBuf::new(&frame))
    }

    /// While a /24 and two /25 take each other's place, an address of theirs never takes the default route.
    #[test]
    fn prefixes_that_others_replace_go_when_those_are_there() {
        let (mut program, _, _) = one_route();
        let hop =
            |next_hop: &str| Hop { interface: "lan".parse().unwrap(), next_hop: next_hop.parse().unwrap() };
        let route = |prefix: &str, path| {
            Object::Route(Route {
                table: TableId(0),
                prefix: prefix.parse().unwrap(),
                path,
                expires_in: None,
            })
        };
        let put = |object| Op::Put(Owner::Config, object);
        let remove = |object: &Object| Op::Remove(Owner::Config, object.key());
        let whole = route("10.8.0.0/24", Path::Via(hop("10.1.0.3")));
        let halves = ["10.8.0.0/25", "10.8.0.128/25"].map(|half| route(half, Path::Via(hop("10.1.0.4"))));
        let start = vec![put(route("0.0.0.0/0", Path::Blackhole)), put(whole.clone())];
        program.apply(Instant::default(), &Batch { number: 1, ops: start }).unwrap();
        let address = "10.8.0.200".parse().unwrap();
        let fib = program.fib.fib();
        let default = fib.lookup("8.8.8.8".parse().unwrap());
        let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut astray = 0;
                while !done.load(Ordering::Relaxed) {
                    astray += u64::from(fib.lookup(address) == default);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                astray
            });
            // Until the reader has looked in between many times, whatever core it has.
            for number in 0.. {
                let there = halves.iter().cloned().map(put).chain([remove(&whole)]).collect();
                let back = halves.iter().map(remove).chain([put(whole.clone())]).collect();
                for ops in [there, back] {
                    program.apply(Instant::default(), &Batch { number, ops }).unwrap();
                }
                if number > 5_000 && looks.load(Ordering::Relaxed) > 1_000_000 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(reader.join().unwrap(), 0);
        });
    }

    #[test]
    fn a_word_newer_than_the_view_is_looked_at_again_and_given_up_in_the_end() {
        for breaths in [0, 1, 4, 5] {
            let (mut program, prefix, frame) = one_route();
            let mut worker = program.worker::<TestBuf>().unwrap();
            let word = program.fib.route(prefix).unwrap();
            // The next life of the adjacency's place, which no worker has been told of.
            let newer = AdjacencyId::from_word(word.value());
            let newer = AdjacencyId::new(newer.index() as u32, newer.epoch() + 1);
            program.fib.put(prefix, Word::new(newer.word()).unwrap()).unwrap();
            let mut ports = OnePort { rx: [frame].into(), tx: 0 };
            let mut more = Breath::default();
            for _ in 0..breaths {
                more = breathe(&mut worker, Instant::default(), &mut ports);
                assert_eq!(more.came, more.gone);
            }
            assert_eq!(more.more, (1..5).contains(&breaths), "{breaths}");
            program.fib.put(prefix, word).unwrap();
            for _ in 0..2 {
                let _ = breathe(&mut worker, Instant::default(), &mut ports);
            }
            let dropped = program.dropped(DropReason::StaleIndex);
            assert_eq!((ports.tx, dropped), if breaths < 5 { (1, 0) } else { (0, 1) }, "{breaths}");
        }
    }
}
