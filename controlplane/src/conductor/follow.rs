//! What follows from a change of the topology or of routes: the program of the configuration, the orders to the kernel, and
//! what stands on NBMA addresses.

use std::collections::BTreeSet;

use model::program::{Binding, Hop, Key, Object, Op, Owner, Replica, Route};
use model::state::event::Happening;
use model::time::Instant;
use model::{InterfaceName, NbmaAddr, Prefix, TableId};

use super::next_hops::tunnel_of;
use super::topology::{self, Topology};
use super::{Conductor, Dataplane, Output};
use crate::kernel::Order;
use crate::rib::Origin;

impl Conductor {
    pub(super) fn follow_topology(&mut self, now: Instant, out: &mut Vec<Output>) {
        let macs = self.ports.iter().map(|(name, port)| (name.clone(), port.mac)).collect();
        self.moved.retain(|spi, moved| topology::place_of(&self.config, *spi) == Some(moved.from));
        let new = Topology::new(&self.config, &self.seen, &macs, &self.moved, &self.ike.agreed);
        let old = std::mem::replace(&mut self.topology, new);
        self.are_sas_old |= old.sealers != self.topology.sealers;
        self.reached
            .retain(|(protection, ..), _| self.topology.sealers.iter().any(|s| s.protection == *protection));

        for (tunnel, nbma) in &self.topology.sources {
            if old.sources.get(tunnel).is_some_and(|before| before != nbma) {
                out.push(Output::Event(Happening::SourceChanged { tunnel: *tunnel, nbma: *nbma }));
            }
        }
        self.changed.interfaces.retain(|name, _| self.config.interfaces.iter().any(|i| i.name == *name));
        self.seen.retain(|name, _| self.topology.twins.iter().any(|t| t.name == *name));
        self.rib.set_interfaces(self.topology.links.clone());
        for &(origin, table, prefix) in old.routes.keys() {
            if !self.topology.routes.contains_key(&(origin, table, prefix)) {
                self.rib.set(origin, table, prefix, None);
            }
        }
        for (&(origin, table, prefix), target) in &self.topology.routes {
            self.rib.set(origin, table, prefix, Some(target.clone()));
        }
        self.order_twins(out);
        self.follow_objects(now, &old);
        self.follow_ports(now, &old, out);
        self.follow_tunnels(now, out);
        if old.domains != self.topology.domains {
            self.want_all();
        }
        self.ike.is_old = true;
        self.review_servers();
        self.order_routes(now, out);
        if self.is_engine_started && old.nhrp != self.topology.nhrp {
            self.engine(now, nhrp::Input::Configure(self.topology.nhrp.clone()), out);
        }
    }

    /// The kernel removes twins that are not in the order: none goes out before the Ethernet addresses of the ports are known,
    /// from the last life or from the data plane.
    fn order_twins(&mut self, out: &mut Vec<Output>) {
        let is_known = self.config.interfaces.iter().all(|i| self.ports.contains_key(topology::port_of(i)));
        let may_order = self.twins.is_some() || is_known || self.dataplane != Dataplane::Away;
        if may_order && self.twins.as_ref() != Some(&self.topology.twins) {
            self.twins = Some(self.topology.twins.clone());
            out.push(Output::Kernel(Order::Twins(self.topology.twins.clone())));
        }
    }

    /// Objects of the configuration, and neighbours of interfaces that are gone.
    fn follow_objects(&mut self, now: Instant, old: &Topology) {
        let keys: BTreeSet<Key> = self.topology.objects.iter().map(Object::key).collect();
        for key in old.objects.iter().map(Object::key).filter(|key| !keys.contains(key)) {
            self.desired.remove(Owner::Config, key);
            self.unplace(Owner::Config, key);
        }
        for mut object in self.topology.objects.clone() {
            self.place(Owner::Config, &mut object);
            self.desired.put(now, Owner::Config, object);
        }
        let is_gone = |key: &Key| matches!(key, Key::Neighbour(hop) if !self.topology.links.contains_key(&hop.interface));
        let gone: Vec<Key> = self.desired.of(Owner::Netlink).map(|(key, _)| key).filter(is_gone).collect();
        for key in gone {
            self.desired.remove(Owner::Netlink, key);
        }
    }

    /// What NHRP programmed on tunnels that have no source address now waits until they have one again.
    fn follow_tunnels(&mut self, now: Instant, out: &mut Vec<Output>) {
        let links = self.topology.links.clone();
        let is_gone = |object: &Object| tunnel_of(object).is_some_and(|t| !links.contains_key(&t));
        let of_nhrp = self.desired.of(Owner::Nhrp);
        let gone: Vec<Key> = of_nhrp.filter(|(_, o)| is_gone(o)).map(|(key, _)| key).collect();
        for key in gone {
            if let Op::Put(_, mut object) = self.desired.step(now, Owner::Nhrp, key) {
                // As NHRP said it.
                if let (Key::Route(table, prefix), Object::Route(route)) = (key, &mut object)
                    && let Some(path) = self.peers.path((table, prefix))
                {
                    route.path = path.clone();
                }
                let object = self.as_said(&self.topology, object);
                self.uninstall(key);
                self.parked.insert(object.key(), (object, now));
            }
        }
        let back: Vec<Key> =
            self.parked.iter().filter(|(_, (o, _))| !is_gone(o)).map(|(key, _)| *key).collect();
        for key in back {
            if let Some((object, since)) = self.parked.remove(&key) {
                self.install(since, object, out);
            }
        }
        self.forget_paths_of_gone_tunnels();
        // Another underlay table, or routes to one: everything is stacked again.
        for (owner, key, table, nbma) in self.stack.places() {
            if let Some(now_in) = self.underlay_of(key).filter(|now_in| *now_in != table) {
                let left = self.stack.set(owner, key, now_in, nbma);
                self.forget_way(left);
            }
        }
        for (table, nbma) in self.stack.all() {
            self.restack(now, table, nbma, out);
        }
    }

    pub(super) fn follow_routes(&mut self, now: Instant, out: &mut Vec<Output>) {
        let changed = self.rib.commit();
        if changed.is_empty() {
            return;
        }
        for &(table, prefix) in &changed {
            let program = self.rib.program(table, prefix);
            for owner in [Owner::Config, Owner::Netlink] {
                match program.iter().find(|(o, _)| *o == owner) {
                    Some((_, path)) => {
                        let route = Route { table, prefix, path: path.clone(), expires_in: None };
                        self.desired.put(now, owner, Object::Route(route));
                    }
                    None => self.desired.remove(owner, Key::Route(table, prefix)),
                }
            }
            for nbma in self.stack.within(table, prefix) {
                self.restack(now, table, nbma, out);
            }
        }
        let statics = &self.topology.routes;
        if changed.iter().any(|&(table, prefix)| statics.contains_key(&(Origin::Static, table, prefix))) {
            self.order_routes(now, out);
        }
        if self.is_engine_started {
            let mut prefixes: Vec<Prefix> = changed.into_iter().map(|(_, prefix)| prefix).collect();
            prefixes.dedup();
            self.engine(now, nhrp::Input::RoutesChanged(prefixes), out);
        }
    }

    /// Static routes and those to peers go to the kernel as well, each to the network namespace of its table: what the box itself sends
    /// takes them.
    pub(super) fn order_routes(&mut self, now: Instant, out: &mut Vec<Output>) {
        let statics = self.topology.routes.keys().filter(|(origin, ..)| *origin == Origin::Static);
        let mut routes: Vec<Route> = statics
            .filter_map(|&(origin, table, prefix)| {
                let path = self.rib.path(origin, table, prefix)?;
                Some(Route { table, prefix, path, expires_in: None })
            })
            .collect();
        // The configuration's word on a prefix comes first.
        let fixed: BTreeSet<_> = routes.iter().map(|route| (route.table, route.prefix)).collect();
        routes.extend(self.peers.routes().filter(|route| !fixed.contains(&(route.table, route.prefix))));
        // Not before the twins that they leave by.
        if self.twins.is_some() {
            self.peers.ordered(now);
        }
        let before = self.kernel_routes.as_ref();
        if self.twins.is_some() && before != Some(&routes) && (before.is_some() || !routes.is_empty()) {
            self.kernel_routes = Some(routes.clone());
            out.push(Output::Kernel(Order::Routes(routes)));
        }
    }

    /// Stacks an object that needs it; returns on what.
    pub(super) fn place(&mut self, owner: Owner, object: &mut Object) -> Option<Hop> {
        let key = object.key();
        let (nbma, link) = match object {
            Object::Binding(binding) => (binding.nbma, &mut binding.link),
            Object::Replica(replica) => (replica.nbma, &mut replica.link),
            _ => return None,
        };
        let table = self.underlay_of(key).unwrap_or_default();
        let before = self.stack.place(owner, key);
        let left = self.stack.set(owner, key, table, nbma);
        self.forget_way(left);
        self.forget_path(key, before);
        *link = self.rib.underlay(table, nbma);
        *link
    }

    /// The object stands nowhere any more.
    pub(super) fn unplace(&mut self, owner: Owner, key: Key) {
        let before = self.stack.place(owner, key);
        let left = self.stack.remove(owner, key);
        self.forget_way(left);
        self.forget_path(key, before);
    }

    /// Nothing stands on this address any more.
    fn forget_way(&mut self, left: Option<(TableId, NbmaAddr)>) {
        if let Some(left) = left {
            self.changed.routes.remove(&left);
        }
    }

    /// The way to an NBMA address changed: whatever stands on it moves.
    fn restack(&mut self, now: Instant, table: TableId, nbma: NbmaAddr, out: &mut Vec<Output>) {
        let hop = self.rib.underlay(table, nbma);
        let mut is_moved = false;
        for (owner, key) in self.stack.objects(table, nbma) {
            self.desired.alter(owner, key, |object| {
                if let Object::Binding(Binding { link, .. }) | Object::Replica(Replica { link, .. }) = object
                {
                    is_moved |= *link != hop;
                    *link = hop;
                }
            });
        }
        if is_moved {
            self.changed.routes.insert((table, nbma), now);
        }
        if let Some(hop) = hop {
            self.want(now, hop, out);
        }
    }

    /// The table in which an object's NBMA address is looked up.
    fn underlay_of(&self, key: Key) -> Option<TableId> {
        match key {
            Key::Binding(tunnel, _) | Key::Replica(tunnel, _, _) => self.underlay_table(tunnel),
            _ => None,
        }
    }

    /// The table in which a tunnel's NBMA addresses are looked up.
    pub(super) fn underlay_table(&self, tunnel: InterfaceName) -> Option<TableId> {
        self.topology.underlays.get(&tunnel).copied()
    }
}
