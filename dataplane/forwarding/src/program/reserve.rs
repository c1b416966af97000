//! Whether there is room for a batch: before anything is stored.
//!
//! What is there already has its room, and what goes needs none: a full table can be put again, and be emptied.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use model::InterfaceName;
use model::program::{Hop, Key, Object, Op, Path, Refusal, Refused, Tunnel};
use model::sa::Protection;

use super::build::{is_point_to_point, link_of};
use super::family::Family;
use super::ledger::Domain;
use super::paths::PathId;
use super::slots::Target;
use super::{INTERFACES, Program};
use crate::fib::FibPrefix;
use crate::ports::InterfaceId;

/// What a batch needs that is not there.
#[derive(Debug, Default)]
struct Need {
    /// Interfaces without a number, with one that none has.
    names: BTreeMap<InterfaceName, InterfaceId>,
    targets: BTreeSet<Target>,
    /// Adjacencies of interfaces that have no number yet, and of those that become others.
    more_targets: usize,
    /// Paths whose adjacencies are among them.
    paths: HashSet<PathId>,
    v4: Blocks<u32>,
    v6: Blocks<u128>,
    /// Peers without a slot for their outbound SAs, and domains without a number.
    protections: BTreeSet<Protection>,
    domains: BTreeSet<Domain>,
}

/// Blocks of addresses that need a group and have none.
#[derive(Debug)]
struct Blocks<A: Family> {
    /// With the places of their tables.
    all: HashSet<(u16, FibPrefix<A>)>,
    /// How many, by place.
    counts: BTreeMap<u16, usize>,
}

impl<A: Family> Default for Blocks<A> {
    fn default() -> Self {
        Self { all: HashSet::new(), counts: BTreeMap::new() }
    }
}

impl<A: Family> Blocks<A> {
    /// Whether it was not among them yet.
    fn insert(&mut self, place: u16, block: FibPrefix<A>) -> bool {
        let new = self.all.insert((place, block));
        if new {
            *self.counts.entry(place).or_default() += 1;
        }
        new
    }
}

impl Program {
    /// Whether there is room for all that the batch needs, counted from above; its steps are noted and not carried out.
    ///
    /// # Errors
    /// The step that finds none.
    pub(super) fn reserve(&self, ops: &[Op]) -> Result<(), Refused> {
        let (mut need, mut seen) = (Need::default(), BTreeSet::new());
        for (key, _) in self.objects.touched().filter(|(key, _)| seen.insert(*key)) {
            self.note_need(key, &mut need);
            if let Some(what) = self.lacks(&need) {
                return Err(full(ops, what, &key));
            }
        }
        for (path, op) in self.objects.known() {
            if need.paths.insert(path) {
                self.note_path(path, &mut need);
                if let Some(what) = self.lacks(&need) {
                    return Err(Refused { op, reason: Refusal::Full(what.to_owned()) });
                }
            }
        }
        self.reserve_routes(ops, &mut need, |need| &mut need.v4)?;
        self.reserve_routes(ops, &mut need, |need| &mut need.v6)
    }

    fn reserve_routes<A: Family>(
        &self,
        ops: &[Op],
        need: &mut Need,
        blocks: impl Fn(&mut Need) -> &mut Blocks<A>,
    ) -> Result<(), Refused> {
        for touched in A::routes(&self.objects).touched() {
            let (place, prefix) = (touched.place, touched.prefix);
            let half = self.half::<A>(place);
            let mut grown = false;
            if !half.hosts.is_empty() {
                // Whether the route comes or goes, next hops in it may come to a host entry.
                for addr in half.hosts_in(prefix) {
                    let host = FibPrefix::host(addr);
                    if self.host_entry(place, host).is_some() {
                        grown |= self.note_blocks(place, host, blocks(need));
                    }
                }
            }
            // Where puts lead is known.
            if touched.uncovers
                && let Some(path) = self.objects.route(place, prefix)
                && need.paths.insert(path)
            {
                self.note_path(path, need);
                grown = true;
            }
            if prefix.length() > 24 && (!touched.uncovers || self.objects.route(place, prefix).is_some()) {
                grown |= self.note_blocks(place, prefix, blocks(need));
            }
            if grown && let Some(what) = self.lacks(need) {
                return Err(full(
                    ops,
                    what,
                    &Key::Route(self.tables[usize::from(place)].id, A::prefix_of(prefix)),
                ));
            }
        }
        Ok(())
    }

    fn lacks(&self, need: &Need) -> Option<&'static str> {
        if self.slots.room() < need.targets.len() + need.more_targets {
            return Some("adjacencies");
        }
        let mut v4 = need.v4.counts.iter();
        let mut v6 = need.v6.counts.iter();
        if v4.any(|(place, needed)| self.half::<u32>(*place).fib.free_groups() < *needed)
            || v6.any(|(place, needed)| self.half::<u128>(*place).fib.free_groups() < *needed)
        {
            return Some("long prefixes");
        }
        if self.ledger.slots_left() < need.protections.len() {
            return Some("peers with SAs");
        }
        if self.ledger.domains_left() < need.domains.len() {
            return Some("profiles and addresses with SAs");
        }
        (self.ids.len() + need.names.len() > INTERFACES).then_some("interfaces")
    }

    fn note_need(&self, key: Key, need: &mut Need) {
        let Some(object) = self.objects.winner(key) else { return };
        match object {
            Object::Interface(interface) => {
                self.note_name(interface.name, need);
                self.note_moved_hosts(interface.name, &mut need.v4);
                self.note_moved_hosts(interface.name, &mut need.v6);
            }
            Object::Tunnel(tunnel) => self.note_tunnel(tunnel, need),
            Object::Neighbour(neighbour) => self.note_next_hop(neighbour.hop, need),
            Object::Binding(binding) => {
                let hop = Hop { interface: binding.tunnel, next_hop: binding.next_hop.0 };
                self.note_next_hop(hop, need);
                if let (Some(id), IpAddr::V6(addr)) = (self.number_of(hop.interface, need), hop.next_hop)
                    && addr.is_unicast_link_local()
                {
                    let host = FibPrefix::host(addr.to_bits().on(id));
                    self.note_blocks(self.place_of(hop.interface), host, &mut need.v6);
                }
                binding.link.into_iter().for_each(|link| self.note_target(self.hop(link), need));
            }
            Object::Replica(replica) => {
                let id = self.ids.get(&replica.tunnel);
                self.note_target(id.map(|id| Target::Replica(*id, replica.nbma.0, replica.port)), need);
                replica.link.into_iter().for_each(|link| self.note_target(self.hop(link), need));
            }
            Object::Fallback(fallback) => {
                let hop = Hop { interface: fallback.tunnel, next_hop: fallback.next_hop.0 };
                self.note_target(self.hop(hop), need);
            }
            Object::InboundSa(sa) => self.note_domain(Domain::of(&sa.protection), need),
            Object::OutboundSa(sa) => {
                self.note_domain(Domain::of(&sa.protection), need);
                if self.ledger.slot(&sa.protection).is_none() {
                    need.protections.insert(sa.protection);
                }
            }
            Object::Route(_) | Object::PathMtu(_) => {}
        }
    }

    fn note_domain(&self, domain: Domain, need: &mut Need) {
        if self.ledger.domain(&domain).is_none() {
            need.domains.insert(domain);
        }
    }

    fn note_name(&self, name: InterfaceName, need: &mut Need) {
        if !self.ids.contains_key(&name) {
            let number = InterfaceId((INTERFACES + need.names.len()) as u16);
            need.names.entry(name).or_insert(number);
        }
    }

    /// The number of an interface, or one that stands for that which it will have.
    fn number_of(&self, name: InterfaceName, need: &Need) -> Option<InterfaceId> {
        self.ids.get(&name).or_else(|| need.names.get(&name)).copied()
    }

    fn note_tunnel(&self, tunnel: &Tunnel, need: &mut Need) {
        self.note_name(tunnel.name, need);
        Domain::of_tunnel(tunnel).into_iter().for_each(|domain| self.note_domain(domain, need));
        self.note_moved_hosts(tunnel.name, &mut need.v4);
        self.note_moved_hosts(tunnel.name, &mut need.v6);
        if !is_point_to_point(tunnel)
            && let Some(id) = self.number_of(tunnel.name, need)
        {
            self.note_target(Some(Target::Glean(id)), need);
            self.note_blocks(self.place_of(tunnel.name), link_of(id), &mut need.v6);
        }
        if is_point_to_point(tunnel) != self.pinned_by(Key::Tunnel(tunnel.name)).is_some() {
            // All that leads to next hops on it leads to others.
            let id = self.ids.get(&tunnel.name);
            let pins = id.map_or(0, |id| self.pins.of_peers(tunnel.name, *id).count());
            let paths = self.objects.paths.naming(tunnel.name).map(|(_, path)| 1 + path.hops().len());
            need.more_targets += 1 + 2 * pins + paths.sum::<usize>();
        }
    }

    fn note_path(&self, path: PathId, need: &mut Need) {
        self.note_target(self.along(path), need);
        if let Some(Path::Balanced(hops)) = self.objects.paths.path(path) {
            hops.iter().for_each(|hop| self.note_target(self.hop(*hop), need));
        }
    }

    /// `None`: on an interface without a number.
    fn note_target(&self, target: Option<Target>, need: &mut Need) {
        match target {
            Some(target) if self.slots.id(target).is_some() => {}
            Some(target) => {
                need.targets.insert(target);
            }
            None => need.more_targets += 1,
        }
    }

    /// A resolved next hop. On an attached prefix it has an entry in the FIB.
    fn note_next_hop(&self, hop: Hop, need: &mut Need) {
        self.note_target(self.hop(hop), need);
        let place = self.place_of(hop.interface);
        match hop.next_hop {
            IpAddr::V4(addr) => self.note_host_blocks(place, hop, addr.to_bits(), &mut need.v4),
            IpAddr::V6(addr) => self.note_host_blocks(place, hop, addr.to_bits(), &mut need.v6),
        }
    }

    fn note_host_blocks<A: Family>(&self, place: u16, hop: Hop, addr: A, blocks: &mut Blocks<A>) {
        let host = FibPrefix::host(addr);
        if self.attached_over(place, host) == Some(hop.interface) {
            self.note_blocks(place, host, blocks);
        }
    }

    /// Next hops of what comes to another table may have their entries there.
    fn note_moved_hosts<A: Family>(&self, name: InterfaceName, blocks: &mut Blocks<A>) {
        let Some(id) = self.ids.get(&name).copied() else { return };
        let (from, to) = (self.places_of[usize::from(id.0)], self.place_of(name));
        if from == to {
            return;
        }
        for (addr, _) in self.half::<A>(from).hosts.iter().filter(|(_, on)| *on == id) {
            let host = FibPrefix::host(*addr);
            if addr.link().is_some() || self.attached_over(to, host) == Some(name) {
                self.note_blocks(to, host, blocks);
            }
        }
    }

    /// Whether there are blocks among those of a prefix that need a group now and did not.
    fn note_blocks<A: Family>(&self, place: u16, prefix: FibPrefix<A>, blocks: &mut Blocks<A>) -> bool {
        let needed = self.half::<A>(place).fib.groups_needed(prefix);
        needed.fold(false, |grown, block| blocks.insert(place, block) | grown)
    }
}

/// The refusal of a step that finds no room: the last that puts what `key` names. Without one it is what another step
/// uncovers: then the last put.
fn full(ops: &[Op], what: &str, key: &Key) -> Refused {
    let puts = |op: &Op| matches!(op, Op::Put(_, object) if object.key() == *key);
    let is_put = |op: &Op| matches!(op, Op::Put(..));
    let op = ops.iter().rposition(puts).or_else(|| ops.iter().rposition(is_put)).unwrap_or(0);
    Refused { op, reason: Refusal::Full(what.to_owned()) }
}
