//! From what was said to what workers read.
//!
//! ```text
//! route ──────────► prefix ─► target ─► adjacency ◄─ neighbour, binding, replica
//! neighbour, ┐                  ▲           │ link
//! binding ───┴ host entry ──────┘           ▼
//!   (where an attached route covers it)  adjacency of a neighbour, on which midchains are stacked
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use model::program::{Hop, Key, Object, Path, Tunnel, TunnelMode};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use wire::{ethernet, gre, ipv4};
use zerocopy::IntoBytes;

use super::slots::Target;
use super::{INTERFACES, Port, Program};
use crate::adjacency::{Adjacency, AdjacencyId, KEYED_LEN, KEYLESS_LEN, Kind, LINK_LEN, NO_NETWORK, permit};
use crate::fib::{V4Prefix, Word};
use crate::ports::{InterfaceId, PortId};
use crate::tables::{
    Decap, DecapKey, DecapTunnel, Interface, Interfaces, PortInterface, Role, Tables, TunnelInterface,
};

/// Prefixes that lead where no route may lead (RFC 1812 §5.3.7; RFC 1122 §3.2.1.3), and multicast.
const FIXED_PREFIXES: [(Ipv4Addr, u8, Target); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Target::Martian),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Target::Martian),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Target::Multicast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Target::Martian),
];

/// The table that everything is in.
const TABLE: TableId = TableId(0);

/// What one commit has to do.
#[derive(Debug, Default)]
struct Change {
    /// Adjacencies to build anew.
    targets: BTreeSet<Target>,
    /// Prefixes to look at again.
    prefixes: BTreeSet<V4Prefix>,
    /// FIB words to store.
    words: BTreeMap<V4Prefix, Option<Target>>,
    /// References to give back when nothing needs them any more.
    released: Vec<Target>,
    /// Whether interfaces, tunnels or their receivers changed.
    interfaces: bool,
}

impl Program {
    /// What is there before anything is programmed.
    pub(super) fn install_fixed(&mut self) {
        let mut change = Change::default();
        change.targets.extend(Target::FIXED);
        for (addr, len, target) in FIXED_PREFIXES {
            if let Some(prefix) = V4Prefix::new(addr, len) {
                self.install(prefix, Some(target), &mut change);
            }
        }
        change.interfaces = true;
        self.carry_out(change);
    }

    /// Makes the tables agree with the objects that the batch touched.
    pub(super) fn commit(&mut self) {
        let touched: BTreeSet<_> = self.objects.touched().collect();
        if touched.is_empty() {
            return;
        }
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
        for prefix in std::mem::take(&mut change.prefixes) {
            let target = self.desired(prefix);
            self.install(prefix, target, &mut change);
        }
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
    }

    fn touch(&mut self, key: Key, change: &mut Change) {
        match key {
            Key::Interface(name) | Key::Tunnel(name) => {
                change.interfaces = true;
                if self.is_there(name) {
                    let id = self.number(name);
                    let on_it = self.slots.iter().filter(|(target, _)| target.interface() == Some(id));
                    change.targets.extend(on_it.map(|(target, _)| target));
                    // A tunnel that became point-to-point, or no longer is, changes what its routes and bindings lead to.
                    change.prefixes.extend(self.prefixes_on(name));
                    if matches!(key, Key::Tunnel(_)) {
                        let hosts = self.hosts.iter().filter(|(_, on)| *on == id);
                        change.prefixes.extend(hosts.map(|(addr, _)| V4Prefix::host(*addr)));
                    }
                    let on_it: Vec<_> = self.pins.keys().filter(|key| is_on(**key, name)).copied().collect();
                    on_it.into_iter().for_each(|key| self.pin(key, change));
                }
                if matches!(key, Key::Tunnel(_)) {
                    // Tunnels of one network take its number from the first of them.
                    change.targets.extend(self.slots.iter().map(|(target, _)| target));
                }
                self.pin(key, change);
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
            Key::Route(_, prefix) => {
                let Ok(prefix) = V4Prefix::try_from(prefix) else { return };
                change.prefixes.insert(prefix);
                let covered: Vec<_> = self.hosts_in(prefix).map(|(addr, _)| addr).collect();
                change.prefixes.extend(covered.into_iter().map(V4Prefix::host));
            }
        }
    }

    /// The number of an interface or tunnel that is there.
    fn number(&mut self, name: InterfaceName) -> InterfaceId {
        if let Some(id) = self.ids.get(&name) {
            return *id;
        }
        let id = if self.names.len() < INTERFACES {
            self.names.push(None);
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

    /// Prefixes whose route leads to an interface or tunnel.
    pub(super) fn prefixes_on(&self, name: InterfaceName) -> Vec<V4Prefix> {
        let on_it = |object: &Object| match object {
            Object::Route(route) if super::names(object).contains(&Some(name)) => Some(route.prefix),
            _ => None,
        };
        let prefixes = self.objects.all().filter_map(|(_, claim)| on_it(&claim.object));
        prefixes.filter_map(|prefix| V4Prefix::try_from(prefix).ok()).collect()
    }

    /// Notes whether an address is a resolved next hop of an interface.
    fn host(&mut self, key: Key, name: InterfaceName, addr: IpAddr, change: &mut Change) {
        let (Some(id), IpAddr::V4(addr)) = (self.ids.get(&name).copied(), addr) else { return };
        let addr = addr.to_bits();
        // A point-to-point tunnel's one next hop is no address.
        if self.objects.winner(key).is_some() && addr != 0 {
            self.hosts.insert((addr, id));
        } else {
            self.hosts.remove(&(addr, id));
        }
        change.prefixes.insert(V4Prefix::host(addr));
    }

    pub(super) fn hosts_in(&self, prefix: V4Prefix) -> impl Iterator<Item = (u32, InterfaceId)> + '_ {
        let (from, to) = ((prefix.first(), InterfaceId(0)), (prefix.last(), InterfaceId(u16::MAX)));
        self.hosts.range(from..=to).copied()
    }

    /// Keeps the adjacency of an object that is there in its place, and lets that of one that is gone go.
    fn pin(&mut self, key: Key, change: &mut Change) {
        let target = self.objects.winner(key).and_then(|object| self.pinned(object));
        change.targets.extend(target);
        let old = self.pins.get(&key).copied();
        // What depended on the object depends on its absence now.
        change.targets.extend(old);
        if target == old {
            return;
        }
        if let Some(target) = target {
            self.refer(target, change);
            self.pins.insert(key, target);
        } else {
            self.pins.remove(&key);
        }
        change.released.extend(old);
    }

    fn pinned(&self, object: &Object) -> Option<Target> {
        match object {
            Object::Neighbour(neighbour) => self.hop(neighbour.hop.interface, neighbour.hop.next_hop),
            Object::Binding(binding) => self.hop(binding.tunnel, binding.next_hop.0),
            Object::Replica(replica) => {
                let id = self.ids.get(&replica.tunnel)?;
                Some(Target::Replica(*id, v4(replica.nbma.0)?))
            }
            Object::Fallback(fallback) => self.hop(fallback.tunnel, fallback.next_hop.0),
            Object::Tunnel(tunnel) if is_point_to_point(tunnel) => {
                self.hop(tunnel.name, Ipv4Addr::UNSPECIFIED.into())
            }
            Object::Tunnel(_) | Object::Interface(_) | Object::Route(_) => None,
        }
    }

    /// The adjacency of a next hop.
    pub(super) fn hop(&self, name: InterfaceName, addr: IpAddr) -> Option<Target> {
        let id = *self.ids.get(&name)?;
        let addr = if self.tunnel(name).is_some_and(is_point_to_point) { 0 } else { v4(addr)? };
        Some(Target::Hop(id, addr))
    }

    fn tunnel(&self, name: InterfaceName) -> Option<&Tunnel> {
        match self.objects.winner(Key::Tunnel(name))? {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    fn port_interface(&self, name: InterfaceName) -> Option<&model::program::Interface> {
        match self.objects.winner(Key::Interface(name))? {
            Object::Interface(interface) => Some(interface),
            _ => None,
        }
    }

    fn route(&self, prefix: V4Prefix) -> Option<Path> {
        let prefix = Prefix::new(Ipv4Addr::from(prefix.first()).into(), prefix.length())?;
        match self.objects.winner(Key::Route(TABLE, prefix))? {
            Object::Route(route) => Some(route.path),
            _ => None,
        }
    }

    /// What a prefix should lead to.
    pub(super) fn desired(&self, prefix: V4Prefix) -> Option<Target> {
        for (addr, len, target) in FIXED_PREFIXES {
            let fixed = V4Prefix::new(addr, len)?;
            if fixed.contains(prefix) {
                return (fixed == prefix).then_some(target);
            }
        }
        if let Some(path) = self.route(prefix) {
            return self.along(path);
        }
        if prefix.length() < 32 {
            return None;
        }
        // A host entry: on the interface whose attached route covers it.
        let name = self.attached_over(prefix.first())?;
        let id = *self.ids.get(&name)?;
        if !self.hosts.contains(&(prefix.first(), id)) {
            return None;
        }
        self.hop(name, Ipv4Addr::from(prefix.first()).into())
    }

    /// The interface on whose attached prefix an address is, if no longer one of another kind covers it.
    pub(super) fn attached_over(&self, addr: u32) -> Option<InterfaceName> {
        let cover = (0..32).rev().find_map(|len| self.route(V4Prefix::new(addr.into(), len)?))?;
        if let Path::Attached(name) = cover { Some(name) } else { None }
    }

    /// What a path leads to.
    pub(super) fn along(&self, path: Path) -> Option<Target> {
        match path {
            Path::Via(Hop { interface, next_hop }) if next_hop.is_unspecified() => {
                self.along(Path::Attached(interface))
            }
            Path::Via(hop) => self.hop(hop.interface, hop.next_hop),
            Path::Attached(name) if self.tunnel(name).is_some_and(is_point_to_point) => {
                self.hop(name, Ipv4Addr::UNSPECIFIED.into())
            }
            Path::Attached(name) => self.ids.get(&name).map(|id| Target::Glean(*id)),
            Path::Receive(name) => self.ids.get(&name).map(|id| Target::Receive(*id)),
            Path::Unreachable => Some(Target::Unreachable),
            Path::Blackhole => Some(Target::Blackhole),
        }
    }

    fn refer(&mut self, target: Target, change: &mut Change) {
        if self.slots.refer(target) {
            change.targets.insert(target);
            if let Some(id) = self.slots.id(target) {
                self.before.insert(target, self.carried(id));
            }
        }
    }

    /// Notes what a prefix leads to from now on.
    fn install(&mut self, prefix: V4Prefix, target: Option<Target>, change: &mut Change) {
        let old = self.installed.get(&prefix).copied();
        if old == target {
            return;
        }
        if let Some(target) = target {
            self.refer(target, change);
            self.installed.insert(prefix, target);
        } else {
            self.installed.remove(&prefix);
        }
        change.words.insert(prefix, target);
        change.released.extend(old);
        if prefix.length() == 32 {
            for target in [old, target].into_iter().flatten() {
                let Target::Receive(id) = target else { continue };
                change.interfaces = true;
                if Some(target) == self.installed.get(&prefix).copied() {
                    self.own.insert((id, prefix.first()));
                } else {
                    self.own.remove(&(id, prefix.first()));
                }
            }
        }
    }

    /// Builds, publishes, stores, and lets go; in this order.
    fn carry_out(&mut self, mut change: Change) {
        let built = self.build_adjacencies(&mut change);
        if change.interfaces {
            self.build_interfaces();
        }
        if built || change.interfaces {
            self.publish();
        }
        let stored = !change.words.is_empty();
        self.store(&change.words);
        let gone = self.let_go(change.released);
        if stored || !gone.is_empty() {
            let generation = self.publish();
            self.fib.retire(generation);
            for id in gone {
                self.slots.retire(id, generation);
            }
        }
    }

    /// Stores words: what comes before what goes, so that no packet takes the way of a shorter prefix while others take the
    /// place of its own.
    fn store(&mut self, words: &BTreeMap<V4Prefix, Option<Target>>) {
        for (prefix, target) in words.iter().filter_map(|(prefix, target)| Some((*prefix, (*target)?))) {
            let Some(word) = self.slots.id(target).and_then(|id| Word::new(id.word())) else {
                unreachable!("no prefix leads to the adjacency of no route")
            };
            let put = self.fib.put(prefix, word);
            debug_assert!(put.is_ok(), "groups were reserved");
        }
        for prefix in words.iter().filter_map(|(prefix, target)| target.is_none().then_some(*prefix)) {
            self.fib.remove(prefix);
        }
    }

    fn publish(&mut self) -> u64 {
        self.publisher.publish(Tables {
            fib: self.fib.fib(),
            adjacencies: self.adjacencies.clone(),
            interfaces: Arc::clone(&self.interfaces),
            decap: Arc::clone(&self.decap),
            nbmas: Arc::clone(&self.nbmas),
        })
    }

    /// Notes by which link a tunnel's adjacency sends to its NBMA address: the control plane's packets to that address go the
    /// same way. Whether that changed anything.
    fn note_way(&mut self, target: Target, link: Option<Target>) -> bool {
        let Some(tunnel) = target.interface() else { return false };
        let way = link.and_then(|link| Some((tunnel, self.outer_of(target)?.to_bits(), target, link)));
        let old = self.way_of.get(&target).copied();
        if old == way {
            return false;
        }
        if let Some(old) = old {
            self.ways.remove(&old);
            self.way_of.remove(&target);
        }
        if let Some(way) = way {
            self.ways.insert(way);
            self.way_of.insert(target, way);
        }
        for (tunnel, nbma, ..) in old.into_iter().chain(way) {
            let first = (tunnel, nbma, Target::NoRoute, Target::NoRoute);
            let way = self.ways.range(first..).next().filter(|way| (way.0, way.1) == (tunnel, nbma));
            let id = way.and_then(|(.., link)| self.slots.id(*link));
            let nbmas = Arc::make_mut(&mut self.nbmas);
            match id {
                Some(id) => nbmas.insert((tunnel, nbma), id),
                None => nbmas.remove(&(tunnel, nbma)),
            };
        }
        true
    }

    /// Gives references back, and empties the places that nobody refers to any more.
    fn let_go(&mut self, mut released: Vec<Target>) -> Vec<AdjacencyId> {
        let mut gone = Vec::new();
        while let Some(target) = released.pop() {
            let Some(id) = self.slots.release(target) else { continue };
            self.before.remove(&target);
            self.asked.remove(&target);
            self.note_way(target, None);
            if let Some(link) = self.links.remove(&target) {
                self.stacked.remove(&(link, target));
                released.push(link);
            }
            let epoch = id.epoch().wrapping_add(1);
            self.adjacencies.store(id.index(), Adjacency { epoch, ..Adjacency::FREE });
            gone.push(id);
        }
        gone
    }

    /// Builds the adjacencies that changed, and those that are stacked on them; whether there were any.
    fn build_adjacencies(&mut self, change: &mut Change) -> bool {
        let mut built = false;
        while let Some(target) = change.targets.pop_first() {
            let Some(id) = self.slots.id(target) else { continue };
            let link = self.link(target);
            let old = self.links.get(&target).copied();
            if link != old {
                if let Some(old) = old {
                    self.stacked.remove(&(old, target));
                    self.links.remove(&target);
                    change.released.push(old);
                }
                if let Some(link) = link {
                    self.refer(link, change);
                    self.stacked.insert((link, target));
                    self.links.insert(target, link);
                }
            }
            built |= self.note_way(target, link);
            let entry = Adjacency { epoch: id.epoch(), ..self.entry(target, link) };
            if *self.adjacencies.slot(id) != entry {
                built = true;
                self.adjacencies.store(id.index(), entry);
                let stacked =
                    self.stacked.range((target, Target::NoRoute)..).take_while(|(link, _)| *link == target);
                change.targets.extend(stacked.map(|(_, midchain)| *midchain));
            }
        }
        built
    }

    /// The neighbour that a midchain is stacked on.
    fn link(&self, target: Target) -> Option<Target> {
        let (_, link) = self.outer(target)?;
        let hop = link?;
        self.port_interface(hop.interface)?;
        self.hop(hop.interface, hop.next_hop)
    }

    /// Where a tunnel's adjacency sends, and by which link.
    fn outer(&self, target: Target) -> Option<(Ipv4Addr, Option<Hop>)> {
        match target {
            Target::Hop(id, addr) => {
                let name = self.interface_name(id)?;
                let next_hop = ProtocolAddr(Ipv4Addr::from(addr).into());
                let Object::Binding(binding) = self.objects.winner(Key::Binding(name, next_hop))? else {
                    return None;
                };
                let nbma = match self.tunnel(name)?.mode {
                    TunnelMode::Multipoint => binding.nbma,
                    TunnelMode::PointToPoint { destination } => destination,
                };
                Some((v4(nbma.0)?.into(), binding.link))
            }
            Target::Replica(id, nbma) => {
                let nbma = Ipv4Addr::from(nbma);
                let key = Key::Replica(self.interface_name(id)?, NbmaAddr(nbma.into()));
                let Object::Replica(replica) = self.objects.winner(key)? else { return None };
                Some((nbma, replica.link))
            }
            _ => None,
        }
    }

    /// Where a tunnel's adjacency sends.
    pub(super) fn outer_of(&self, target: Target) -> Option<Ipv4Addr> {
        Some(self.outer(target)?.0)
    }

    /// What workers read of a target.
    fn entry(&self, target: Target, link: Option<Target>) -> Adjacency {
        let transit = |kind| Adjacency::of(kind, permit::TRANSIT);
        match target {
            Target::NoRoute => transit(Kind::NoRoute),
            Target::Unreachable => transit(Kind::Unreachable),
            Target::Blackhole => transit(Kind::Blackhole),
            Target::Martian => transit(Kind::Martian),
            Target::Multicast => Adjacency::of(Kind::Multicast, permit::TUNNEL),
            Target::Receive(id) => {
                Adjacency { interface: id.0, ..Adjacency::of(Kind::Receive, permit::TUNNEL) }
            }
            Target::Glean(id) => Adjacency { interface: id.0, ..Adjacency::of(Kind::Glean, self.wants(id)) },
            Target::Hop(id, addr) => self.midchain(target, link).unwrap_or_else(|| self.neighbour(id, addr)),
            Target::Replica(id, _) => self.midchain(target, link).unwrap_or_else(|| Adjacency {
                interface: id.0,
                ..Adjacency::of(Kind::Incomplete, self.wants(id))
            }),
        }
    }

    /// What a packet must be allowed to leave by an interface.
    fn wants(&self, id: InterfaceId) -> u8 {
        let port = self.interface_name(id).and_then(|name| self.port_interface(name));
        permit::TRANSIT
            | match port {
                Some(port) if port.forwarding => 0,
                Some(_) => permit::CLOSED_PORT,
                None => permit::TUNNEL,
            }
    }

    /// A next hop on a port; or one of a tunnel that has no link.
    fn neighbour(&self, id: InterfaceId, addr: u32) -> Adjacency {
        let incomplete =
            Adjacency { interface: id.0, next_hop: addr, ..Adjacency::of(Kind::Incomplete, self.wants(id)) };
        let complete = || {
            let name = self.interface_name(id)?;
            let interface = self.port_interface(name)?;
            let key = Key::Neighbour(Hop { interface: name, next_hop: Ipv4Addr::from(addr).into() });
            let Object::Neighbour(neighbour) = self.objects.winner(key)? else { return None };
            let (id, port) = self.port(&interface.port)?;
            let mut entry = Adjacency {
                kind: Kind::Neighbour,
                form: LINK_LEN as u8,
                port: id.0,
                mtu: interface.mtu.min(port.mtu),
                ..incomplete
            };
            let header = ethernet::Header::new(neighbour.mac.0, port.mac.0, ethernet::IPV4);
            entry.rewrite[..LINK_LEN].copy_from_slice(header.as_bytes());
            Some(entry)
        };
        complete().unwrap_or(incomplete)
    }

    /// A next hop or receiver on a tunnel, if it has a link: a midchain, or what waits for its link to be resolved.
    fn midchain(&self, target: Target, link: Option<Target>) -> Option<Adjacency> {
        let id = target.interface()?;
        let tunnel = self.tunnel(self.interface_name(id)?)?;
        let (nbma, _) = self.outer(target)?;
        let below = self.adjacencies.at(self.slots.id(link?)?);
        let wants = permit::TRANSIT | permit::TUNNEL;
        let Some(below) = below.filter(|below| below.kind == Kind::Neighbour) else {
            let Some(Target::Hop(on, next_hop)) = link else { return None };
            return Some(Adjacency { interface: on.0, next_hop, ..Adjacency::of(Kind::Incomplete, wants) });
        };
        let form = if tunnel.key.is_some() { KEYED_LEN } else { KEYLESS_LEN };
        let mut entry = Adjacency {
            kind: Kind::Midchain,
            wants,
            form: form as u8,
            port: below.port,
            interface: id.0,
            // With its outer headers it is never more than the link takes.
            mtu: tunnel.mtu.min(below.mtu.saturating_sub((form - LINK_LEN) as u16)),
            network: self.network(tunnel),
            ..Adjacency::FREE
        };
        // The length, the identification and what depends on them are filled in packet by packet.
        let source = Ipv4Addr::from(v4(tunnel.source.0)?);
        let mut outer = [0; ipv4::LEN];
        outer.copy_from_slice(ipv4::Header::new(source, nbma, ipv4::GRE, tunnel.ttl, 0)?.as_bytes());
        outer[2..4].fill(0);
        outer[10..12].fill(0);
        entry.checksum = !wire::checksum::checksum(&outer);
        let (link, rest) = entry.rewrite.split_at_mut(LINK_LEN);
        link.copy_from_slice(&below.rewrite[..LINK_LEN]);
        rest[..ipv4::LEN].copy_from_slice(&outer);
        gre::write(&mut rest[ipv4::LEN..], gre::IPV4, tunnel.key)?;
        Some(entry)
    }

    /// A number for a tunnel's network id: one more than that of the first tunnel with it.
    fn network(&self, tunnel: &Tunnel) -> u16 {
        let first = self.tunnels().find(|other| other.network_id == tunnel.network_id);
        first.and_then(|first| self.ids.get(&first.name)).map_or(NO_NETWORK, |id| id.0 + 1)
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let all = self.objects.all().map(|(_, claim)| &claim.object);
        all.skip_while(|object| matches!(object, Object::Interface(_))).map_while(|object| match object {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
    }

    pub(super) fn port(&self, name: &str) -> Option<(PortId, &Port)> {
        let at = self.ports.iter().position(|port| port.name == name)?;
        Some((PortId(at as u16), &self.ports[at]))
    }

    fn build_interfaces(&mut self) {
        let mut interfaces =
            Interfaces { all: vec![None; self.names.len()], by_port: vec![None; self.ports.len()] };
        let mut tunnels = Vec::new();
        for (name, id) in &self.ids {
            let own = self.own.range((*id, 0)..=(*id, u32::MAX)).next();
            let address = own.map(|(_, addr)| Ipv4Addr::from(*addr));
            let role = if let Some(interface) = self.port_interface(*name) {
                let Some((port, Port { mac, .. })) = self.port(&interface.port) else { continue };
                interfaces.by_port[usize::from(port.0)] = Some(*id);
                Role::Port(PortInterface { port, mac: mac.0, forwarding: interface.forwarding })
            } else if let Some(tunnel) = self.tunnel(*name) {
                let Some(local) = v4(tunnel.source.0) else { continue };
                let remote = match tunnel.mode {
                    TunnelMode::Multipoint => 0,
                    TunnelMode::PointToPoint { destination } => v4(destination.0).unwrap_or(0),
                };
                let redirects = if tunnel.redirect { self.network(tunnel) } else { 0 };
                tunnels.push((
                    DecapKey { local, key: tunnel.key, remote },
                    DecapTunnel { interface: *id, redirects },
                ));
                Role::Tunnel(TunnelInterface {
                    source: local.into(),
                    key: tunnel.key,
                    ttl: tunnel.ttl,
                    fallback: self.pins.get(&Key::Fallback(*name)).and_then(|target| self.slots.id(*target)),
                    point_to_point: is_point_to_point(tunnel),
                    replicas: self.replicas(tunnel),
                })
            } else {
                continue;
            };
            interfaces.all[usize::from(id.0)] = Some(Interface { address, role });
        }
        self.interfaces = Arc::new(interfaces);
        self.decap = Arc::new(Decap::new(&tunnels));
    }

    /// Who gets what is sent to a group on a tunnel; on a point-to-point one the peer, whatever is programmed.
    fn replicas(&self, tunnel: &Tunnel) -> Arc<[AdjacencyId]> {
        if is_point_to_point(tunnel) {
            return self
                .pins
                .get(&Key::Tunnel(tunnel.name))
                .and_then(|peer| self.slots.id(*peer))
                .into_iter()
                .collect();
        }
        let first = Key::Replica(tunnel.name, NbmaAddr(Ipv4Addr::UNSPECIFIED.into()));
        let keys = self.objects.from(first).map(|(key, _)| key);
        let mut keys: Vec<_> =
            keys.take_while(|key| matches!(key, Key::Replica(name, _) if *name == tunnel.name)).collect();
        keys.dedup();
        keys.iter().filter_map(|key| self.slots.id(*self.pins.get(key)?)).collect()
    }
}

/// Whether an object's adjacency is on this tunnel.
pub(super) fn is_on(key: Key, tunnel: InterfaceName) -> bool {
    matches!(key, Key::Binding(name, _) | Key::Fallback(name) if name == tunnel)
}

pub(super) fn is_point_to_point(tunnel: &Tunnel) -> bool {
    matches!(tunnel.mode, TunnelMode::PointToPoint { .. })
}

/// The bits of an IPv4 address; programs have no others.
pub(super) fn v4(addr: IpAddr) -> Option<u32> {
    match addr {
        IpAddr::V4(addr) => Some(addr.to_bits()),
        IpAddr::V6(_) => None,
    }
}
