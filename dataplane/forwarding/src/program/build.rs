//! From what was said to what workers read.
//!
//! ```text
//! route ──────────► prefix ─► target ─► adjacency ◄─ neighbour, binding, replica, path MTU
//! neighbour, ┐                  ▲           │ link, or members of a balanced one
//! binding ───┴ host entry ──────┘           ▼
//!   (where an attached route covers it)  adjacency of a neighbour, on which midchains are stacked
//! ```
//!
//! What a prefix leads to is not kept beside the FIB: its word names a place, and the places know their targets.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::InterfaceName;
use model::program::{Hop, Key, Object, Path, Tunnel, TunnelMode};

use super::family::{Family, Fixed, Half, fixed};
use super::ledger::Domain;
use super::paths::PathId;
use super::pins::Pin;
use super::slots::{PEER, Target};
use super::{INTERFACES, Program};
use crate::adjacency::{Adjacency, AdjacencyId};
use crate::fib::{self, FibPrefix, Word};
use crate::ports::InterfaceId;
use crate::tables::Tables;

/// What one commit has to do.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Adjacencies to build anew.
    pub(super) targets: BTreeSet<Target>,
    pub(super) v4: Looks<u32>,
    pub(super) v6: Looks<u128>,
    /// References to give back when nothing needs them any more.
    pub(super) released: Vec<Target>,
    /// Where paths lead, as far as the commit has asked. It holds a reference to each for so long.
    led: HashMap<PathId, Option<AdjacencyId>>,
    /// The last of them: routes come in runs that take the same path.
    last: Option<(PathId, AdjacencyId)>,
    /// Whether interfaces, tunnels or their receivers changed.
    pub(super) interfaces: bool,
    /// Whether there are peers that are sealed for now, or are no longer.
    pub(super) protections: bool,
}

/// A change of one family: places of tables, with prefixes.
#[derive(Debug)]
pub(super) struct Looks<A: Family> {
    /// Prefixes to look at again.
    prefixes: Vec<(u16, A::Key)>,
    /// FIB words to store, in order of prefix; `None`: the route goes. Each has a reference to its place.
    words: Vec<(u16, A::Key, Option<AdjacencyId>)>,
}

impl<A: Family> Default for Looks<A> {
    fn default() -> Self {
        Self { prefixes: Vec::new(), words: Vec::new() }
    }
}

/// What a prefix should lead to.
enum Desired {
    Path(PathId),
    Target(Target),
}

impl Program {
    /// What is there before anything is programmed.
    pub(super) fn install_fixed(&mut self) {
        let mut change = Change { interfaces: true, ..Change::default() };
        change.targets.extend(Target::FIXED);
        self.carry_out(change);
    }

    /// Fills a table that nobody has seen yet with what is fixed.
    pub(super) fn install_fixed_in<A: Family>(&mut self, place: u16) {
        for (first, len, target) in A::FIXED {
            let Some(id) = self.slots.id(*target) else { continue };
            self.slots.refer_at(id);
            self.store_word(place, FibPrefix::<A>::of(*first, *len), id);
        }
    }

    /// Makes the tables agree with the objects that the batch touched.
    pub(super) fn commit(&mut self) {
        if !self.objects.is_touched() {
            self.objects.settle();
            return;
        }
        let touched: BTreeSet<_> = self.objects.touched().collect();
        let mut change = Change::default();
        for (key, owner) in &touched {
            match self.objects.claims(*key).find(|(of, _)| of == owner).and_then(|(_, claim)| claim.expires) {
                Some(due) => self.timers.set((*key, *owner), due),
                None => self.timers.cancel((*key, *owner)),
            }
        }
        let keys: BTreeSet<Key> = touched.into_iter().map(|(key, _)| key).collect();
        // In the order of `Key`: interfaces and tunnels have their numbers before others ask for them.
        for key in &keys {
            self.touch(*key, &mut change);
        }
        self.touch_routes::<u32>(&mut change);
        self.touch_routes::<u128>(&mut change);
        self.look_again::<u32>(&mut change);
        self.look_again::<u128>(&mut change);
        // Before what packets take to an SA is published.
        self.give_orders(&mut change);
        self.carry_out(change);
        // Numbers of what is gone, now that nothing refers to them.
        for key in &keys {
            if let Key::Interface(name) | Key::Tunnel(name) = key
                && !self.is_there(*name)
                && let Some(id) = self.ids.remove(name)
            {
                self.names[usize::from(id.0)] = None;
                self.free_ids.push_back(id);
            }
        }
        self.objects.settle();
    }

    fn touch(&mut self, key: Key, change: &mut Change) {
        match key {
            Key::Interface(name) | Key::Tunnel(name) => {
                change.interfaces = true;
                if let Some(domain) = self.tunnel(name).and_then(Domain::of_tunnel) {
                    self.ledger.number(domain);
                }
                if self.is_there(name) {
                    self.touch_interface(name, change);
                }
                if matches!(key, Key::Tunnel(_)) {
                    // Tunnels of one network take its number from the first of them.
                    change.targets.extend(self.slots.iter().map(|(target, _)| target));
                }
                self.pin(key, change);
                if let (Key::Tunnel(_), Some(id)) = (key, self.ids.get(&name)) {
                    let place = self.places_of[usize::from(id.0)];
                    change.v6.prefixes.push((place, <u128 as fib::Address>::key(link_of(*id))));
                }
            }
            Key::Neighbour(hop) => {
                self.host(key, hop.interface, hop.next_hop, change);
                self.pin(key, change);
            }
            Key::Binding(tunnel, next_hop) => {
                self.host(key, tunnel, next_hop.0, change);
                self.pin(key, change);
            }
            Key::Replica(..) | Key::Fallback(..) => {
                change.interfaces = true;
                self.pin(key, change);
            }
            Key::PathMtu(tunnel, nbma) => {
                let Some(id) = self.ids.get(&tunnel).copied() else { return };
                change.targets.extend(self.ways_to(id, nbma.0, None));
            }
            Key::InboundSa(spi) => self.touch_inbound(spi),
            Key::OutboundSa(protection, _) => self.touch_outbound(protection, change),
            Key::Route(..) => {}
        }
    }

    /// An interface or tunnel that is there is new, or says something else about itself.
    fn touch_interface(&mut self, name: InterfaceName, change: &mut Change) {
        let id = self.number(name);
        let on_it = self.slots.iter().filter(|(target, _)| target.interface() == Some(id));
        change.targets.extend(on_it.map(|(target, _)| target));
        let balanced = self.objects.paths.naming(name).map(|(path, _)| Target::Balanced(path));
        change.targets.extend(balanced);
        let place = self.place_of(name);
        let old = std::mem::replace(&mut self.places_of[usize::from(id.0)], place);
        if old != place {
            change.v6.prefixes.push((old, <u128 as fib::Address>::key(link_of(id))));
        }
        self.move_hosts::<u32>(id, (old, place), change);
        self.move_hosts::<u128>(id, (old, place), change);
        let peer = self.tunnel(name).is_some_and(is_point_to_point);
        if peer != self.pinned_by(Key::Tunnel(name)).is_some() {
            // What its routes, next hops and bindings lead to is something else now.
            self.look_at_all_on::<u32>(name, id, change);
            self.look_at_all_on::<u128>(name, id, change);
            let on_it: Vec<_> = self.pins.of_peers(name, id).collect();
            on_it.into_iter().for_each(|key| self.pin(key, change));
        }
    }

    /// The number of an interface or tunnel that is there.
    fn number(&mut self, name: InterfaceName) -> InterfaceId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = if self.names.len() < INTERFACES {
            self.names.push(None);
            self.places_of.push(0);
            InterfaceId((self.names.len() - 1) as u16)
        } else {
            match self.free_ids.pop_front() {
                Some(id) => id,
                None => unreachable!("numbers were reserved"),
            }
        };
        self.names[usize::from(id.0)] = Some(name);
        self.ids.insert(name, id);
        id
    }

    /// The place of the table that an interface, or the inside of a tunnel, is in.
    pub(super) fn place_of(&self, name: InterfaceName) -> u16 {
        let interface = self.port_interface(name).map(|interface| interface.table);
        let table = interface.or_else(|| self.tunnel(name).map(|tunnel| tunnel.table));
        table.and_then(|table| self.places.get(&table)).copied().unwrap_or(0)
    }

    /// Next hops of an interface that has come to another table.
    fn move_hosts<A: Family>(&mut self, id: InterfaceId, (from, to): (u16, u16), change: &mut Change) {
        if from == to {
            return;
        }
        let hosts = self.half::<A>(from).hosts.iter().filter(|(_, on)| *on == id);
        for host in hosts.copied().collect::<Vec<_>>() {
            self.half_mut::<A>(from).hosts.remove(&host);
            self.half_mut::<A>(to).hosts.insert(host);
            let key = A::key(FibPrefix::host(host.0));
            A::looks(change).prefixes.extend([(from, key), (to, key)]);
        }
    }

    /// Prefixes whose route leads to an interface or tunnel, and its next hops.
    fn look_at_all_on<A: Family>(&self, name: InterfaceName, id: InterfaceId, change: &mut Change) {
        let place = self.places_of[usize::from(id.0)];
        let hosts = self.half::<A>(place).hosts.iter().filter(|(_, on)| *on == id);
        let hosts = hosts.map(|(addr, _)| (place, A::key(FibPrefix::host(*addr))));
        let paths = self.objects.paths_naming(name);
        let routes = A::routes(&self.objects).all().filter(|(.., claim)| paths.contains(&claim.path));
        let routes = routes.map(|(place, prefix, ..)| (place, A::key(prefix)));
        A::looks(change).prefixes.extend(hosts.chain(routes));
    }

    fn touch_routes<A: Family>(&mut self, change: &mut Change) {
        let routes = A::routes(&self.objects);
        let looks = A::looks(change);
        looks.prefixes.reserve(routes.touched().size_hint().0);
        for touched in routes.touched() {
            let (place, prefix) = (touched.place, touched.prefix);
            looks.prefixes.push((place, A::key(prefix)));
            let table = &self.tables[usize::from(place)];
            let half = A::half(table);
            if !half.hosts.is_empty() {
                let covered = half.hosts_in(prefix).map(|addr| (place, A::key(FibPrefix::host(addr))));
                looks.prefixes.extend(covered);
            }
            if touched.lasting {
                let timer = (Key::Route(table.id, A::prefix_of(prefix)), touched.owner);
                match routes.due(place, prefix, touched.owner) {
                    Some(due) => self.timers.set(timer, due),
                    None => self.timers.cancel(timer),
                }
            }
        }
    }

    /// Notes whether an address is a resolved next hop of an interface.
    fn host(&mut self, key: Key, name: InterfaceName, addr: IpAddr, change: &mut Change) {
        match addr {
            IpAddr::V4(addr) => self.note_host(key, name, addr.to_bits(), change),
            IpAddr::V6(addr) => self.note_host(key, name, addr.to_bits(), change),
        }
    }

    /// Where those link-local addresses of a tunnel lead that no binding has: they are to be resolved, as any on an attached prefix.
    fn on_link<A: Family>(&self, place: u16, prefix: FibPrefix<A>, id: InterfaceId) -> Option<Target> {
        if prefix.length() == A::BITS {
            return self.host_entry(place, prefix);
        }
        let tunnel = self.tunnel(self.interface_name(id)?)?;
        let of_many = !is_point_to_point(tunnel) && self.places_of[usize::from(id.0)] == place;
        (of_many && prefix.length() == LINK_LEN).then_some(Target::Glean(id))
    }

    fn note_host<A: Family>(&mut self, key: Key, name: InterfaceName, addr: A, change: &mut Change) {
        let Some(id) = self.ids.get(&name).copied() else { return };
        let place = self.places_of[usize::from(id.0)];
        let addr = if matches!(key, Key::Binding(..)) { addr.on(id) } else { addr };
        // A point-to-point tunnel's one next hop is no address.
        let is_host = self.objects.winner(key).is_some() && addr != A::MIN;
        let hosts = &mut self.half_mut::<A>(place).hosts;
        if is_host {
            hosts.insert((addr, id))
        } else {
            hosts.remove(&(addr, id))
        };
        A::looks(change).prefixes.push((place, A::key(FibPrefix::host(addr))));
    }

    /// Keeps the adjacency of an object that is there in its place, and lets that of one that is gone go.
    fn pin(&mut self, key: Key, change: &mut Change) {
        let target = self.objects.winner(key).and_then(|object| self.pinned(object));
        change.targets.extend(target);
        let old = self.pinned_by(key).and_then(|id| self.slots.target(id));
        // What depended on the object depends on its absence now.
        change.targets.extend(old);
        if target == old {
            return;
        }
        let id = target.map(|target| self.refer(target, change));
        if let Some(pin) = self.pin_of(key) {
            self.pins.set(pin, id);
        }
        change.released.extend(old);
    }

    fn pin_of(&self, key: Key) -> Option<Pin> {
        Pin::of(key, |name| self.ids.get(&name).copied())
    }

    /// The place that an object keeps its adjacency in.
    pub(super) fn pinned_by(&self, key: Key) -> Option<AdjacencyId> {
        self.pins.get(self.pin_of(key)?)
    }

    fn pinned(&self, object: &Object) -> Option<Target> {
        match object {
            Object::Neighbour(neighbour) => self.hop(neighbour.hop),
            Object::Binding(binding) => {
                self.hop(Hop { interface: binding.tunnel, next_hop: binding.next_hop.0 })
            }
            Object::Replica(replica) => {
                Some(Target::Replica(*self.ids.get(&replica.tunnel)?, replica.nbma.0, replica.port))
            }
            Object::Fallback(fallback) => {
                self.hop(Hop { interface: fallback.tunnel, next_hop: fallback.next_hop.0 })
            }
            Object::Tunnel(tunnel) if is_point_to_point(tunnel) => {
                self.hop(Hop { interface: tunnel.name, next_hop: PEER })
            }
            Object::Tunnel(_)
            | Object::Interface(_)
            | Object::Route(_)
            | Object::PathMtu(_)
            | Object::InboundSa(_)
            | Object::OutboundSa(_) => None,
        }
    }

    /// The adjacency of a next hop.
    pub(super) fn hop(&self, hop: Hop) -> Option<Target> {
        let id = *self.ids.get(&hop.interface)?;
        let peer = self.tunnel(hop.interface).is_some_and(is_point_to_point);
        Some(Target::Hop(id, if peer { PEER } else { hop.next_hop }))
    }

    pub(super) fn tunnel(&self, name: InterfaceName) -> Option<&Tunnel> {
        match self.objects.winner(Key::Tunnel(name))? {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    pub(super) fn port_interface(&self, name: InterfaceName) -> Option<&model::program::Interface> {
        match self.objects.winner(Key::Interface(name))? {
            Object::Interface(interface) => Some(interface),
            _ => None,
        }
    }

    pub(super) fn half<A: Family>(&self, place: u16) -> &Half<A> {
        A::half(&self.tables[usize::from(place)])
    }

    fn half_mut<A: Family>(&mut self, place: u16) -> &mut Half<A> {
        A::half_mut(&mut self.tables[usize::from(place)])
    }

    fn desired<A: Family>(&self, place: u16, prefix: FibPrefix<A>) -> Option<Desired> {
        match fixed(prefix) {
            Some(Fixed::Leads(target)) => return Some(Desired::Target(target)),
            Some(Fixed::Within) => return None,
            Some(Fixed::LinkLocal) => {
                if let Some((id, _)) = prefix.first().link() {
                    return self.on_link(place, prefix, id).map(Desired::Target);
                }
                let path = self.objects.route(place, prefix)?;
                let own = matches!(self.objects.paths.path(path)?, Path::Receive(_));
                return (own && prefix.length() == A::BITS).then_some(Desired::Path(path));
            }
            None => {}
        }
        let path = self.objects.route(place, prefix).map(Desired::Path);
        path.or_else(|| self.host_entry(place, prefix).map(Desired::Target))
    }

    /// What a resolved next hop's own address leads to, where the attached route of its interface covers it. Of a link-local address
    /// the link itself does.
    pub(super) fn host_entry<A: Family>(&self, place: u16, prefix: FibPrefix<A>) -> Option<Target> {
        let hosts = &self.half::<A>(place).hosts;
        if prefix.length() < A::BITS || hosts.is_empty() {
            return None;
        }
        let (name, id, next_hop) = match prefix.first().link() {
            Some((id, addr)) => (self.interface_name(id)?, id, addr.addr()),
            None => {
                let name = self.attached_over(place, prefix)?;
                (name, *self.ids.get(&name)?, prefix.first().addr())
            }
        };
        hosts.contains(&(prefix.first(), id)).then(|| self.hop(Hop { interface: name, next_hop }))?
    }

    /// The interface on whose attached prefix a host is, if no longer one of another kind covers it.
    pub(super) fn attached_over<A: Family>(&self, place: u16, host: FibPrefix<A>) -> Option<InterfaceName> {
        let cover = A::routes(&self.objects).covering(place, host)?;
        let path = self.objects.route(place, cover)?;
        if let Path::Attached(name) = self.objects.paths.path(path)? { Some(*name) } else { None }
    }

    /// What a path leads to.
    pub(super) fn along(&self, path: PathId) -> Option<Target> {
        let attached = |name: InterfaceName| {
            if self.tunnel(name).is_some_and(is_point_to_point) {
                return self.hop(Hop { interface: name, next_hop: PEER });
            }
            self.ids.get(&name).map(|id| Target::Glean(*id))
        };
        match self.objects.paths.path(path)? {
            Path::Via(hop) => self.hop(*hop),
            Path::Balanced(_) => Some(Target::Balanced(path)),
            Path::Attached(name) => attached(*name),
            Path::Receive(name) => self.ids.get(name).map(|id| Target::Receive(*id)),
            Path::Unreachable => Some(Target::Unreachable),
            Path::Blackhole => Some(Target::Blackhole),
        }
    }

    /// One more reference to a target; its place.
    pub(super) fn refer(&mut self, target: Target, change: &mut Change) -> AdjacencyId {
        let (id, new) = self.slots.refer(target);
        if new {
            change.targets.insert(target);
            self.slots.note_before(id, self.carried(id));
            if let Target::Balanced(path) = target {
                self.objects.paths.refer_again(path);
            }
        }
        id
    }

    /// Where a path leads, with one more reference to that.
    fn refer_along(&mut self, path: PathId, change: &mut Change) -> Option<AdjacencyId> {
        if let Some((last, id)) = change.last
            && last == path
        {
            self.slots.refer_at(id);
            return Some(id);
        }
        let id = match change.led.get(&path) {
            Some(id) => *id,
            None => {
                let target = self.along(path);
                let id = target.map(|target| self.refer(target, change));
                change.released.extend(target);
                change.led.insert(path, id);
                id
            }
        }?;
        change.last = Some((path, id));
        self.slots.refer_at(id);
        Some(id)
    }

    /// Looks at the prefixes again that may lead elsewhere now.
    fn look_again<A: Family>(&mut self, change: &mut Change) {
        let mut prefixes = std::mem::take(&mut A::looks(change).prefixes);
        prefixes.sort_unstable();
        prefixes.dedup();
        A::looks(change).words.reserve_exact(prefixes.len());
        for (place, key) in prefixes {
            let prefix = A::prefix(key);
            let id = match self.desired(place, prefix) {
                Some(Desired::Path(path)) => self.refer_along(path, change),
                Some(Desired::Target(target)) => Some(self.refer(target, change)),
                None => None,
            };
            if prefix.length() == A::BITS {
                self.note_own(place, prefix, id, change);
            }
            A::looks(change).words.push((place, key, id));
        }
    }

    /// Notes whether an address is an own one of an interface from now on.
    fn note_own<A: Family>(
        &mut self,
        place: u16,
        prefix: FibPrefix<A>,
        id: Option<AdjacencyId>,
        change: &mut Change,
    ) {
        let old = self.half::<A>(place).fib.route(prefix).map(|word| AdjacencyId::from_word(word.value()));
        if old == id {
            return;
        }
        let addr = prefix.first().addr();
        if let Some(Target::Receive(on)) = old.and_then(|old| self.slots.target(old)) {
            change.interfaces = true;
            self.own.remove(&(on, place, addr));
        }
        if let Some(Target::Receive(on)) = id.and_then(|id| self.slots.target(id)) {
            change.interfaces = true;
            self.own.insert((on, place, addr));
        }
    }

    /// Builds, publishes, stores, and lets go; in this order.
    pub(super) fn carry_out(&mut self, mut change: Change) {
        let built = self.build_adjacencies(&mut change);
        if change.interfaces {
            self.build_interfaces();
        }
        if built || change.interfaces || change.protections {
            self.publish();
        }
        let mut idle = Vec::new();
        let stored4 = self.store::<u32>(&mut change, &mut idle);
        let stored6 = self.store::<u128>(&mut change, &mut idle);
        let gone = self.let_go(change.released, idle);
        if stored4 || stored6 || !gone.is_empty() {
            let generation = self.publish();
            for table in &mut self.tables {
                table.retire(generation);
            }
            for id in gone {
                self.slots.retire(id, generation);
            }
        }
    }

    /// Stores words: what comes before what goes, so that no packet takes the way of a shorter prefix while others take the
    /// place of its own. Whether there were any; targets that nothing refers to any more are added to `idle`.
    fn store<A: Family>(&mut self, change: &mut Change, idle: &mut Vec<Target>) -> bool {
        let words = std::mem::take(&mut A::looks(change).words);
        let mut stored = false;
        for (place, key, id) in &words {
            let Some(id) = id else { continue };
            let old = self.store_word(*place, A::prefix(*key), *id);
            idle.extend(old.and_then(|old| self.slots.release_at(old)));
            stored |= old != Some(*id);
        }
        for (place, key, _) in words.iter().filter(|(.., id)| id.is_none()) {
            let Some(old) = self.half_mut::<A>(*place).fib.remove(A::prefix(*key)) else { continue };
            idle.extend(self.slots.release_at(AdjacencyId::from_word(old.value())));
            stored = true;
        }
        stored
    }

    /// Stores a word, and gives back what has lost its reference by that: the old one.
    fn store_word<A: Family>(
        &mut self,
        place: u16,
        prefix: FibPrefix<A>,
        id: AdjacencyId,
    ) -> Option<AdjacencyId> {
        let Some(word) = Word::new(id.word()) else {
            unreachable!("no prefix leads to the adjacency of no route")
        };
        match self.half_mut::<A>(place).fib.put(prefix, word) {
            Ok(old) => old.map(|old| AdjacencyId::from_word(old.value())),
            Err(full) => {
                debug_assert!(false, "groups were reserved: {full}");
                Some(id)
            }
        }
    }

    pub(super) fn publish(&mut self) -> u64 {
        self.publisher.publish(Tables {
            fibs: Arc::clone(&self.fibs),
            adjacencies: self.adjacencies.clone(),
            interfaces: Arc::clone(&self.interfaces),
            decap: Arc::clone(&self.decap),
            nbmas: Arc::clone(&self.nbmas),
            protections: Arc::clone(&self.protections),
            lines: Arc::clone(&self.lines),
        })
    }

    /// Gives references back, and empties the places that nothing refers to any more, those of `idle` among them.
    fn let_go(&mut self, mut released: Vec<Target>, mut idle: Vec<Target>) -> Vec<AdjacencyId> {
        let mut gone = Vec::new();
        loop {
            while let Some(target) = released.pop() {
                if self.slots.release(target) {
                    idle.push(target);
                }
            }
            let Some(target) = idle.pop() else { return gone };
            let Some(id) = self.slots.empty(target) else { continue };
            self.note_way(target, id, None, false);
            released.extend(self.link_of(id));
            self.ways.stack(id, None);
            released.extend(self.members.remove(&target).iter().flat_map(|members| members.iter()));
            if let Target::Balanced(path) = target {
                self.objects.paths.release(path);
            }
            let epoch = id.epoch().wrapping_add(1);
            self.adjacencies.store(id.index(), Adjacency { epoch, ..Adjacency::FREE });
            gone.push(id);
        }
    }
}

/// All link-local addresses of a tunnel, as the FIB has them.
pub(super) fn link_of(id: InterfaceId) -> FibPrefix<u128> {
    FibPrefix::of((0xfe80 << 112).on(id), LINK_LEN)
}

/// Length of the prefix that link-local addresses have.
const LINK_LEN: u8 = 64;

pub(super) fn is_point_to_point(tunnel: &Tunnel) -> bool {
    matches!(tunnel.mode, TunnelMode::PointToPoint { .. })
}
