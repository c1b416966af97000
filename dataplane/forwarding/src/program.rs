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
//!
//! A route is said a million times more often than anything else. It costs what its owner said (16 bytes, its path being
//! shared), its word in the FIB and that word's shadow; the way back to before a batch costs as much again until the batch is done.

mod build;
mod check;
mod entry;
mod family;
mod interfaces;
mod ledger;
mod objects;
mod outer;
mod paths;
mod pins;
mod reserve;
mod routes;
mod sas;
mod show;
mod slots;
mod ways;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use memory::MapError;
use model::program::{Batch, Hop, Key, Object, Op, Owner, Path, Refusal, Refused};
use model::report::Report;
use model::sa::Spi;
use model::time::{Instant, Timers};
use model::{InterfaceName, Mac, NbmaAddr, TableId};
use wire::buf::PacketBuf;

use crate::adjacency::{Adjacencies, AdjacencyId};
use crate::counters::Counters;
use crate::ports::{InterfaceId, Notice};
use crate::publish::Publisher;
use crate::sa::{Lines, OrderSender, Orders, Sas, orders};
use crate::tables::{Decap, Fibs, Interfaces, Nbmas, Protections, Tables};
use crate::worker::Worker;
use check::check_prefix;
use family::TableState;
use ledger::Ledger;
use objects::{Claim, Misfits, Objects, names};
use paths::PathId;
use pins::Pins;
pub use show::{AdjacencyShow, FibShow, InterfaceShow, NextHopShow, RouteShow, TunnelShow};
use slots::{Slots, Target};
use ways::Ways;

/// Most interfaces and tunnels together.
const INTERFACES: usize = 4096;
/// Most tables.
const TABLES: usize = 256;
/// /24 of a table's IPv4 that may hold longer prefixes; blocks of its IPv6 four times as many.
const FIB_GROUPS: usize = 1 << 16;

/// A port of the data plane. Its place in the list that the program is made with is its [`crate::PortId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name on the command line, which `Interface::port` refers to.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Largest IP packet that it takes, in bytes. A VLAN's tag comes on top: 4 bytes more that the port must be able to send.
    pub mtu: u16,
}

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
    /// The place of the table of each number's interface or tunnel.
    places_of: Vec<u16>,
    slots: Slots,
    /// The tables by place, and the places by table. Tables come and never go.
    tables: Vec<TableState>,
    places: BTreeMap<TableId, u16>,
    /// The same as workers read them.
    fibs: Arc<[Fibs]>,
    /// Room of each table for long prefixes.
    groups: usize,
    /// What an object keeps in its place, used or not.
    pins: Pins,
    /// Among what balanced adjacencies choose, in order.
    members: HashMap<Target, Arc<[Target]>>,
    /// Own addresses of each interface, with the places of the tables in which they are.
    own: BTreeSet<(InterfaceId, u16, IpAddr)>,
    adjacencies: Adjacencies,
    interfaces: Arc<Interfaces>,
    decap: Arc<Decap>,
    nbmas: Arc<Nbmas>,
    /// Links of midchains, and the ways to NBMA addresses.
    ways: Ways,
    publisher: Publisher<Tables>,
    workers: Vec<Arc<Counters>>,
    /// What workers were told of SAs, and the slots of the peers that are sealed for.
    ledger: Ledger,
    protections: Arc<Protections>,
    /// Who makes the keys of SAs.
    provider: aead::Provider,
    /// What each worker is told of its SAs, and what is shown of them.
    orders: Vec<OrderSender>,
    lines: Arc<[Arc<Lines>]>,
    /// What workers spread the keys of their limits by.
    secret: u64,
}

impl Program {
    /// An empty program for these ports.
    ///
    /// # Errors
    /// [`MapError`] without address space for the FIB (448 MiB for a table of both families; memory is taken when it is used).
    pub fn new(ports: Vec<Port>) -> Result<Self, MapError> {
        Self::with_room(ports, AdjacencyId::LIMIT, FIB_GROUPS)
    }

    /// An empty program with room for so many adjacencies (at most [`AdjacencyId::LIMIT`]) and, in each table, so many /24
    /// that hold longer prefixes.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn with_room(ports: Vec<Port>, adjacencies: usize, groups: usize) -> Result<Self, MapError> {
        let empty = Tables {
            fibs: Arc::new([]),
            adjacencies: Adjacencies::default(),
            interfaces: Arc::default(),
            decap: Arc::default(),
            nbmas: Arc::default(),
            protections: Arc::default(),
            lines: Arc::new([]),
        };
        let mut program = Self {
            ports,
            objects: Objects::default(),
            timers: Timers::default(),
            ids: BTreeMap::new(),
            names: Vec::new(),
            free_ids: VecDeque::new(),
            places_of: Vec::new(),
            slots: Slots::new(adjacencies.min(AdjacencyId::LIMIT)),
            tables: Vec::new(),
            places: BTreeMap::new(),
            fibs: Arc::new([]),
            groups,
            pins: Pins::default(),
            members: HashMap::new(),
            own: BTreeSet::new(),
            adjacencies: Adjacencies::default(),
            interfaces: Arc::default(),
            decap: Arc::default(),
            nbmas: Arc::default(),
            ways: Ways::default(),
            publisher: Publisher::new(empty),
            workers: Vec::new(),
            provider: aead::Provider::best(),
            ledger: Ledger::default(),
            protections: Arc::default(),
            orders: Vec::new(),
            lines: Arc::new([]),
            secret: 0,
        };
        program.add_table(TableId::default())?;
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

    /// Has keys made for another provider than the fastest one that is usable here.
    #[must_use]
    pub fn with_provider(mut self, provider: aead::Provider) -> Self {
        self.provider = provider;
        self
    }

    /// Another worker, for a thread of its own. Workers are counted from 0 in the order of these calls. All are made before the first SA
    /// is programmed: an SPI names its worker modulo their number.
    ///
    /// # Errors
    /// [`MapError`] without address space for its counters (16 MiB) and its SAs (600 MiB; memory is taken when it is used).
    pub fn worker<B: PacketBuf>(&mut self) -> Result<Worker<B>, MapError> {
        let index = self.workers.len();
        let (counters, orders, lines) = self.add_worker()?;
        let sas = Sas::new(orders, lines, self.provider, index)?;
        self.orders[index].lie_on(sas.pages());
        Ok(Worker::new(self.publisher.reader(), counters, sas, self.ports.len(), self.secret, index))
    }

    /// What is shared with one more worker.
    fn add_worker(&mut self) -> Result<(Arc<Counters>, Orders, Arc<Lines>), MapError> {
        let counters = Arc::new(Counters::new()?);
        let lines = Arc::new(Lines::new()?);
        let (sender, orders) = orders();
        self.workers.push(Arc::clone(&counters));
        self.lines = self.lines.iter().chain([&lines]).map(Arc::clone).collect();
        self.orders.push(sender);
        self.ledger.add_worker();
        // Now all know how many they are.
        self.publish();
        Ok((counters, orders, lines))
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
        // Interfaces and tunnels that went, perhaps to come again, or that became what not everything may be on.
        let (mut removed, mut moved) = (BTreeMap::new(), BTreeMap::new());
        let mut checked = Checked::default();
        for (op, step) in ops.iter().enumerate() {
            let refuse = |reason| Refused { op, reason };
            match step {
                Op::Put(owner, Object::Route(route)) => {
                    check_prefix(route.prefix).map_err(refuse)?;
                    let of = (route.table, route.prefix.addr().is_ipv4());
                    let known = self.know(&mut checked, op, of, &route.path).map_err(refuse)?;
                    let due = route.expires_in.map(|left| now + left);
                    self.objects.put_route(known.place, route.prefix, *owner, known.id, due);
                }
                Op::Put(owner, object) => {
                    checked = Checked::default();
                    self.check(object).map_err(refuse)?;
                    for table in tables_of(object).into_iter().flatten() {
                        self.table(table).map_err(refuse)?;
                    }
                    if let Object::Interface(_) | Object::Tunnel(_) = object
                        && let Some(old) = self.objects.winner(object.key())
                        && is_moved(old, object)
                    {
                        moved.extend(name_of(object).map(|name| (name, op)));
                    }
                    self.objects.put(*owner, object.clone(), expires_in(object).map(|left| now + left));
                }
                Op::Remove(owner, key) => {
                    checked = Checked::default();
                    self.forget(*owner, *key);
                    if let Key::Interface(name) | Key::Tunnel(name) = key {
                        removed.insert(*name, op);
                    }
                }
                Op::ResyncBegin(owner) => self.objects.mark(*owner),
                Op::ResyncEnd(owner) => {
                    checked = Checked::default();
                    self.sweep(*owner);
                }
            }
        }
        for (name, op) in removed.into_iter().chain(moved) {
            let is_well = if self.is_there(name) {
                self.fits(name, Misfits::Stale)
            } else {
                !self.is_referred_to(name)
            };
            if !is_well {
                return Err(Refused { op, reason: Refusal::Referred(name) });
            }
        }
        self.reserve(ops)
    }

    /// Checks the path that a step names for routes of a table and family, unless the batch has done so.
    fn know<'a>(
        &mut self,
        checked: &mut Checked<'a>,
        op: usize,
        (table, v4): (TableId, bool),
        path: &'a Path,
    ) -> Result<Known<'a>, Refusal> {
        if let Some(last) = checked.last
            && (last.table, last.v4) == (table, v4)
            && last.path == path
        {
            return Ok(last);
        }
        let before = self.objects.paths.find(path).and_then(|id| checked.all.get(&(table, v4, id)));
        let known = match before {
            Some(known) => *known,
            None => {
                self.check_path(table, v4, path)?;
                let place = self.table(table)?;
                let id = self.objects.know_path(path, op);
                let known = Known { table, v4, path, place, id };
                checked.all.insert((table, v4, id), known);
                known
            }
        };
        checked.last = Some(known);
        Ok(known)
    }

    /// The place of a table, which is made if it is not there.
    fn table(&mut self, id: TableId) -> Result<u16, Refusal> {
        if let Some(place) = self.places.get(&id) {
            return Ok(*place);
        }
        let full = || Refusal::Full("tables".to_owned());
        if self.tables.len() >= TABLES {
            return Err(full());
        }
        self.add_table(id).map_err(|_| full())
    }

    fn add_table(&mut self, id: TableId) -> Result<u16, MapError> {
        let place = self.tables.len() as u16;
        self.tables.push(TableState::new(id, self.groups)?);
        self.places.insert(id, place);
        self.objects.add_table();
        self.install_fixed_in::<u32>(place);
        self.install_fixed_in::<u128>(place);
        let fibs = |table: &TableState| Fibs { v4: table.v4.fib.fib(), v6: table.v6.fib.fib() };
        self.fibs = self.tables.iter().map(fibs).collect();
        Ok(place)
    }

    /// Removes what one owner says of an object.
    fn forget(&mut self, owner: Owner, key: Key) {
        match key {
            Key::Route(table, prefix) => {
                if let Some(place) = self.places.get(&table) {
                    self.objects.remove_route(*place, prefix, owner);
                }
            }
            _ => self.objects.remove(owner, key),
        }
    }

    /// Removes an owner's stale objects. What else is on an interface that goes with them has no meaning any more and goes too, and
    /// so does what may not be on what another owner says that the interface or tunnel is.
    fn sweep(&mut self, owner: Owner) {
        self.objects.sweep_routes(owner);
        let stale = self.objects.stale(owner);
        self.let_fall(stale.iter().map(|key| (*key, owner)).collect());
        for key in stale {
            if let Key::Interface(name) | Key::Tunnel(name) = key
                && self.is_there(name)
            {
                self.fits(name, Misfits::All);
            }
        }
    }

    /// Removes objects that are no routes, and everything on the interfaces and tunnels among them.
    fn let_fall(&mut self, mut stale: Vec<(Key, Owner)>) {
        while let Some((key, owner)) = stale.pop() {
            self.objects.remove(owner, key);
            if let Key::Interface(name) | Key::Tunnel(name) = key
                && !self.is_there(name)
            {
                self.objects.remove_routes_on(name);
                stale.extend(self.referring(name));
            }
        }
    }

    fn is_there(&self, name: InterfaceName) -> bool {
        [Key::Interface(name), Key::Tunnel(name)].iter().any(|key| self.objects.winner(*key).is_some())
    }

    /// What names an interface or tunnel, but routes.
    fn referring(&self, name: InterfaceName) -> Vec<(Key, Owner)> {
        let refers = |object: &Object| names(object).contains(&Some(name));
        let found = self.objects.all().filter(|(_, claim)| refers(&claim.object));
        found.map(|(owner, claim)| (claim.object.key(), owner)).collect()
    }

    fn is_referred_to(&self, name: InterfaceName) -> bool {
        let mut all = self.objects.all();
        all.any(|(_, claim)| names(&claim.object).contains(&Some(name)))
            || !self.objects.routed_on(name).is_empty()
    }

    /// Whether all that names an interface or tunnel may do so as it is now. What may not and is stale goes: its owner is about
    /// to say everything anew, and cannot take it back first.
    fn fits(&mut self, name: InterfaceName, going: Misfits) -> bool {
        let naming = self.objects.all().filter(|(_, claim)| names(&claim.object).contains(&Some(name)));
        let misfits: Vec<_> = naming.filter(|(_, claim)| self.check(&claim.object).is_err()).collect();
        let stay = |(owner, claim): &(Owner, &Claim)| !self.objects.is_stale(*owner, claim);
        if going == Misfits::Stale && misfits.iter().any(stay) {
            return false;
        }
        let misfits = misfits.into_iter().map(|(owner, claim)| (claim.object.key(), owner)).collect();
        self.let_fall(misfits);
        let mut routed = self.objects.routed_on(name);
        routed.retain(|(place, v4, id)| {
            let path = self.objects.paths.path(*id);
            path.is_some_and(|path| self.check_path(self.tables[usize::from(*place)].id, *v4, path).is_err())
        });
        self.objects.remove_routes_by(&routed, going)
    }

    /// Lets go what has expired. Reports the bindings that did and that nobody else has.
    pub fn expire(&mut self, now: Instant) -> Vec<Report> {
        self.reclaim();
        let mut reports = Vec::new();
        self.objects.begin();
        while let Some((key, owner)) = self.timers.expire(now) {
            self.forget(owner, key);
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
        Some(match notice {
            Notice::Glean { interface, next_hop } => {
                Report::Glean(Hop { interface: self.interface_name(interface)?, next_hop })
            }
            Notice::PathMtu { tunnel, nbma, mtu } => {
                Report::PathMtu { tunnel: self.interface_name(tunnel)?, nbma: NbmaAddr(nbma), mtu }
            }
            Notice::SaMoved { spi, nbma, port } => {
                Report::SaMoved { spi: Spi::new(spi)?, nbma: NbmaAddr(nbma), port }
            }
        })
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

    /// The table at a place, as workers know it.
    #[must_use]
    pub fn table_id(&self, place: u16) -> Option<TableId> {
        self.tables.get(usize::from(place)).map(|table| table.id)
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
        self.ledger.reclaim(acknowledged, &self.orders);
        for table in &mut self.tables {
            table.reclaim(acknowledged);
        }
        self.publisher.collect();
    }
}

/// Paths that a batch has checked, until something changes what they may be.
#[derive(Debug, Default)]
struct Checked<'a> {
    /// Routes come in runs that take the same path.
    last: Option<Known<'a>>,
    all: HashMap<(TableId, bool, PathId), Known<'a>>,
}

/// A path that routes of a table and family may take.
#[derive(Debug, Clone, Copy)]
struct Known<'a> {
    table: TableId,
    /// Whether of IPv4, or of IPv6.
    v4: bool,
    path: &'a Path,
    place: u16,
    id: PathId,
}

fn expires_in(object: &Object) -> Option<Duration> {
    match object {
        Object::Binding(binding) => binding.expires_in,
        Object::Route(route) => route.expires_in,
        Object::PathMtu(path) => path.expires_in,
        _ => None,
    }
}

/// The name of an interface or tunnel.
fn name_of(object: &Object) -> Option<InterfaceName> {
    match object {
        Object::Interface(interface) => Some(interface.name),
        Object::Tunnel(tunnel) => Some(tunnel.name),
        _ => None,
    }
}

/// Whether an interface or tunnel came to another table or underlay, from a peer or to one, or into another family: what was on
/// it may not be on it any more.
fn is_moved(old: &Object, new: &Object) -> bool {
    let of_tunnel = |object: &Object| match object {
        Object::Tunnel(tunnel) => Some((build::is_point_to_point(tunnel), tunnel.source.0.is_ipv4())),
        _ => None,
    };
    tables_of(old) != tables_of(new) || of_tunnel(old) != of_tunnel(new)
}

/// The tables that an interface or tunnel is in.
fn tables_of(object: &Object) -> [Option<TableId>; 2] {
    match object {
        Object::Interface(interface) => [Some(interface.table), None],
        Object::Tunnel(tunnel) => [Some(tunnel.table), Some(tunnel.underlay_table)],
        _ => [None, None],
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
    use crate::fib::{V4Prefix, Word, Writer};
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

    fn fib(program: &mut Program) -> &mut Writer {
        &mut program.tables[0].v4.fib
    }

    /// A program with a route to a neighbour, and the frame of a packet that takes it.
    fn one_route() -> (Program, V4Prefix, TestBuf) {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let mut program = Program::new(vec![Port { name: "p0".into(), mac, mtu: 1500 }]).unwrap();
        let (name, table): (InterfaceName, _) = ("lan".parse().unwrap(), TableId(0));
        let prefix: Prefix = "10.9.0.0/16".parse().unwrap();
        let hop = Hop { interface: name, next_hop: "10.1.0.2".parse().unwrap() };
        let objects = [
            Object::Interface(Interface {
                name,
                port: "p0".into(),
                vlan: None,
                mtu: 1500,
                table,
                forwarding: true,
                netns: None,
            }),
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
        let fib = fib(&mut program).fib();
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
            let word = fib(&mut program).route(prefix).unwrap();
            // The next life of the adjacency's place, which no worker has been told of.
            let newer = AdjacencyId::from_word(word.value());
            let newer = AdjacencyId::new(newer.index() as u32, newer.epoch() + 1);
            fib(&mut program).put(prefix, Word::new(newer.word()).unwrap()).unwrap();
            let mut ports = OnePort { rx: [frame].into(), tx: 0 };
            let mut more = Breath::default();
            for _ in 0..breaths {
                more = breathe(&mut worker, Instant::default(), &mut ports);
                assert_eq!(more.came, more.gone);
            }
            assert_eq!(more.more, (1..5).contains(&breaths), "{breaths}");
            fib(&mut program).put(prefix, word).unwrap();
            for _ in 0..2 {
                let _ = breathe(&mut worker, Instant::default(), &mut ports);
            }
            let dropped = program.dropped(DropReason::StaleIndex);
            assert_eq!((ports.tx, dropped), if breaths < 5 { (1, 0) } else { (0, 1) }, "{breaths}");
        }
    }
}
