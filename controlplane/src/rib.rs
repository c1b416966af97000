//! The routing information base: routes of every owner, and what follows from them.
//!
//! A prefix has candidates, in the order of preference that the data plane forwards by as well: a receive route first, then
//! by [`Origin`]. A candidate counts while its path can be used: its interface is there, and its next hop resolves. Changes
//! are collected and taken with [`Rib::commit`], which says for which prefixes something is different now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use model::program::{Hop, Owner, Path};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Found, Routes, To};

/// Where a route comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// An NHRP shortcut.
    Shortcut,
    /// An address in the configuration: its prefix, itself, its broadcast address.
    Address,
    /// A static route.
    Static,
    /// An address that the twin got from elsewhere.
    LearntAddress,
    /// A route in the kernel that leaves by a twin.
    Kernel,
    /// The kernel's best route by a port, where its best leaves by a tunnel. Only the underlay takes it; it is not programmed.
    Underlay,
}

impl Origin {
    /// On whose word such a route is programmed.
    #[must_use]
    pub fn owner(self) -> Owner {
        match self {
            Self::Shortcut => Owner::Nhrp,
            Self::Address | Self::Static => Owner::Config,
            Self::LearntAddress | Self::Kernel | Self::Underlay => Owner::Netlink,
        }
    }

    /// Whether next hops resolve, and NHRP answers, by such a route.
    const fn is_relied_on(self) -> bool {
        !matches!(self, Self::Shortcut | Self::Underlay)
    }
}

/// Where a route says that it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// As it is programmed.
    Path(Path),
    /// To a next hop whose interface follows from the other routes.
    NextHop(IpAddr),
}

/// What an interface is to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A port.
    Port {
        /// Transit traffic may enter and leave here.
        is_open: bool,
    },
    /// A multipoint tunnel.
    Multipoint,
    /// A tunnel with one peer: every route through it is attached.
    PointToPoint,
}

/// A route as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Table.
    pub table: TableId,
    /// Destination.
    pub prefix: Prefix,
    /// Where it comes from.
    pub origin: Origin,
    /// Where it leads; `None`: its next hop does not resolve.
    pub path: Option<Path>,
    /// Packets follow it.
    pub best: bool,
}

/// Routes of every owner.
#[derive(Debug, Default)]
pub struct Rib {
    interfaces: BTreeMap<InterfaceName, Link>,
    tables: HashMap<TableId, Table>,
    /// Routes with a next hop only: that, and what it resolved to at the last commit.
    recursive: BTreeMap<(TableId, Prefix), (IpAddr, Option<Path>)>,
    /// Those of each next hop.
    dependants: BTreeMap<(TableId, IpAddr), BTreeSet<Prefix>>,
    changed: BTreeSet<(TableId, Prefix)>,
}

#[derive(Debug, Default)]
struct Table {
    /// In order of address, then length: what is inside a prefix follows it.
    prefixes: BTreeMap<Prefix, Vec<Candidate>>,
    /// How many prefixes there are of each family (IPv6?) and length.
    lengths: BTreeMap<(bool, u8), usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    origin: Origin,
    target: Target,
}

impl Candidate {
    fn rank(self) -> (bool, Origin) {
        (!matches!(self.target, Target::Path(Path::Receive(_))), self.origin)
    }
}

impl Rib {
    /// Sets the interfaces that routes may use.
    pub fn set_interfaces(&mut self, interfaces: BTreeMap<InterfaceName, Link>) {
        if interfaces == self.interfaces {
            return;
        }
        self.interfaces = interfaces;
        for (&id, table) in &self.tables {
            let routes =
                table.prefixes.iter().filter(|(_, c)| c.iter().any(|c| c.origin != Origin::Shortcut));
            self.changed.extend(routes.map(|(&prefix, _)| (id, prefix)));
        }
    }

    /// The interfaces that routes may use.
    #[must_use]
    pub fn interfaces(&self) -> &BTreeMap<InterfaceName, Link> {
        &self.interfaces
    }

    /// Sets, or with `None` removes, the route of one origin to a prefix.
    pub fn set(&mut self, origin: Origin, table: TableId, prefix: Prefix, target: Option<Target>) {
        let entry = self.tables.entry(table).or_default();
        let family = (prefix.addr().is_ipv6(), prefix.length());
        if let Some(target) = target {
            if !entry.prefixes.contains_key(&prefix) {
                *entry.lengths.entry(family).or_default() += 1;
            }
            let candidates = entry.prefixes.entry(prefix).or_default();
            let candidate = Candidate { origin, target };
            if candidates.contains(&candidate) {
                return;
            }
            candidates.retain(|c| c.origin != origin);
            candidates.push(candidate);
            candidates.sort_by_key(|c| c.rank());
        } else {
            let Some(candidates) = entry.prefixes.get_mut(&prefix) else { return };
            let before = candidates.len();
            candidates.retain(|c| c.origin != origin);
            if candidates.len() == before {
                return;
            }
            if candidates.is_empty() {
                entry.prefixes.remove(&prefix);
                if let Some(count) = entry.lengths.get_mut(&family) {
                    *count -= 1;
                    if *count == 0 {
                        entry.lengths.remove(&family);
                    }
                }
            }
        }
        self.note_dependence(table, prefix);
        // Shortcuts are not ours to program, and nothing is answered or stacked by them.
        if origin != Origin::Shortcut {
            self.changed.insert((table, prefix));
        }
    }

    /// Keeps in mind which next hop the route to a prefix rests on, if it has none but that.
    fn note_dependence(&mut self, table: TableId, prefix: Prefix) {
        let candidates = self.tables.get(&table).and_then(|t| t.prefixes.get(&prefix));
        let next_hop = candidates.into_iter().flatten().find_map(|c| match c.target {
            Target::NextHop(next_hop) => Some(next_hop),
            Target::Path(_) => None,
        });
        let before = match next_hop {
            Some(next_hop) => {
                let path = self.recursive.get(&(table, prefix)).and_then(|(_, path)| *path);
                self.recursive.insert((table, prefix), (next_hop, path))
            }
            None => self.recursive.remove(&(table, prefix)),
        };
        if let Some((old, _)) = before.filter(|(old, _)| Some(*old) != next_hop)
            && let Some(prefixes) = self.dependants.get_mut(&(table, old))
        {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.dependants.remove(&(table, old));
            }
        }
        if let Some(next_hop) = next_hop {
            self.dependants.entry((table, next_hop)).or_default().insert(prefix);
        }
    }

    /// The routes whose next hop may resolve to something else: those that changed themselves, those whose next hop is in a
    /// prefix that changed, and those whose next hop is in a prefix of these.
    fn unsettled(&self) -> BTreeSet<(TableId, Prefix)> {
        let mut unsettled = BTreeSet::new();
        let mut waiting: Vec<_> = self.changed.iter().copied().collect();
        while let Some((table, prefix)) = waiting.pop() {
            if self.recursive.contains_key(&(table, prefix)) {
                unsettled.insert((table, prefix));
            }
            // No next hop resolves by a default route.
            if prefix.is_default() {
                continue;
            }
            let inside = self.dependants.range((table, prefix.addr())..);
            let inside = inside.take_while(|((t, addr), _)| *t == table && prefix.contains(*addr));
            for &part in inside.flat_map(|(_, prefixes)| prefixes) {
                if unsettled.insert((table, part)) {
                    waiting.push((table, part));
                }
            }
        }
        unsettled
    }

    /// Where the route of one origin to a prefix leads now.
    #[must_use]
    pub fn path(&self, origin: Origin, table: TableId, prefix: Prefix) -> Option<Path> {
        let candidates = self.tables.get(&table)?.prefixes.get(&prefix)?;
        self.usable(table, *candidates.iter().find(|c| c.origin == origin)?)
    }

    /// The route of one origin to a prefix.
    #[must_use]
    pub fn route(&self, origin: Origin, table: TableId, prefix: Prefix) -> Option<Target> {
        let candidates = self.tables.get(&table)?.prefixes.get(&prefix)?;
        candidates.iter().find(|c| c.origin == origin).map(|c| c.target)
    }

    /// The prefixes for which a route of an owner other than NHRP may be different since the last commit.
    pub fn commit(&mut self) -> Vec<(TableId, Prefix)> {
        if self.changed.is_empty() {
            return Vec::new();
        }
        for (table, prefix) in self.unsettled() {
            let path = self.recursive_path(table, prefix);
            if let Some((_, before)) = self.recursive.get_mut(&(table, prefix))
                && *before != path
            {
                *before = path;
                self.changed.insert((table, prefix));
            }
        }
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// What each owner programs for a prefix.
    #[must_use]
    pub fn program(&self, table: TableId, prefix: Prefix) -> Vec<(Owner, Path)> {
        let mut program: Vec<(Owner, Path)> = Vec::new();
        let candidates = self.tables.get(&table).and_then(|t| t.prefixes.get(&prefix));
        for candidate in candidates.into_iter().flatten() {
            let owner = candidate.origin.owner();
            if candidate.origin == Origin::Underlay || program.iter().any(|&(o, _)| o == owner) {
                continue;
            }
            if let Some(path) = self.usable(table, *candidate) {
                program.push((owner, path));
            }
        }
        program
    }

    /// The port interface and neighbour by which an NBMA address is reached. Routes through tunnels do not count, however
    /// they were learnt: a tunnel never carries itself.
    #[must_use]
    pub fn underlay(&self, table: TableId, nbma: NbmaAddr) -> Option<Hop> {
        let found = self.longest(table, nbma.0, |candidate, path| {
            candidate.origin != Origin::Shortcut
                && interface(path).is_none_or(|i| matches!(self.interfaces.get(&i), Some(Link::Port { .. })))
        });
        match found?.1 {
            Path::Via(hop) => Some(hop),
            Path::Attached(interface) => Some(Hop { interface, next_hop: nbma.0 }),
            Path::Receive(_) | Path::Unreachable | Path::Blackhole => None,
        }
    }

    /// Longest match over every owner's routes, as the data plane does it.
    #[must_use]
    pub fn best(&self, table: TableId, addr: IpAddr) -> Option<(Prefix, Path)> {
        self.longest(table, addr, |candidate, _| candidate.origin != Origin::Underlay)
    }

    /// Every route, in order of table and prefix, the preferred first.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let mut tables: Vec<_> = self.tables.iter().collect();
        tables.sort_by_key(|(id, _)| **id);
        let mut shown = Vec::new();
        for (&table, routes) in tables {
            for (&prefix, candidates) in &routes.prefixes {
                let mut is_taken = false;
                for &candidate in candidates {
                    let path = self.usable(table, candidate);
                    let best = path.is_some() && !is_taken && candidate.origin != Origin::Underlay;
                    is_taken |= best;
                    shown.push(Shown { table, prefix, origin: candidate.origin, path, best });
                }
            }
        }
        shown
    }

    /// Longest match over the candidates that can be used and that `admits` admits.
    fn longest(
        &self,
        table: TableId,
        addr: IpAddr,
        admits: impl Fn(Candidate, Path) -> bool,
    ) -> Option<(Prefix, Path)> {
        for (prefix, candidates) in self.matches(table, addr) {
            for &candidate in candidates {
                if let Some(path) = self.usable(table, candidate)
                    && admits(candidate, path)
                {
                    return Some((prefix, path));
                }
            }
        }
        None
    }

    /// The prefixes that hold an address, longest first.
    fn matches(&self, table: TableId, addr: IpAddr) -> impl Iterator<Item = (Prefix, &[Candidate])> {
        let table = self.tables.get(&table);
        let family = addr.is_ipv6();
        table.into_iter().flat_map(move |table| {
            table.lengths.range((family, 0)..=(family, 128)).rev().filter_map(move |(&(_, length), _)| {
                let prefix = Prefix::new(addr, length)?;
                Some((prefix, table.prefixes.get(&prefix)?.as_slice()))
            })
        })
    }

    /// The candidate's path, if its interface is there and its next hop resolves.
    fn usable(&self, table: TableId, candidate: Candidate) -> Option<Path> {
        match candidate.target {
            Target::Path(path) => self.present(path),
            Target::NextHop(next_hop) => self.resolve(table, next_hop, MAX_RECURSION),
        }
    }

    /// The path, if its interface is there; in the form that fits the interface.
    fn present(&self, path: Path) -> Option<Path> {
        let Some(interface) = interface(path) else { return Some(path) };
        match (self.interfaces.get(&interface)?, path) {
            (Link::PointToPoint, Path::Via(_)) => Some(Path::Attached(interface)),
            _ => Some(path),
        }
    }

    fn recursive_path(&self, table: TableId, prefix: Prefix) -> Option<Path> {
        let candidates = self.tables.get(&table)?.prefixes.get(&prefix)?;
        let candidate = candidates.iter().find(|c| matches!(c.target, Target::NextHop(_)))?;
        self.usable(table, *candidate)
    }

    /// The path to a next hop, over routes of any origin but NHRP and not over a default route: what leads to everything
    /// says nothing about this hop.
    fn resolve(&self, table: TableId, next_hop: IpAddr, depth: u8) -> Option<Path> {
        let depth = depth.checked_sub(1)?;
        for (prefix, candidates) in self.matches(table, next_hop) {
            if prefix.is_default() {
                continue;
            }
            for candidate in candidates.iter().filter(|c| c.origin.is_relied_on()) {
                let path = match candidate.target {
                    Target::Path(path) => self.present(path),
                    Target::NextHop(further) => self.resolve(table, further, depth),
                };
                match path {
                    None => {}
                    Some(Path::Attached(interface)) => {
                        return self.present(Path::Via(Hop { interface, next_hop }));
                    }
                    // Our own address is nobody's next hop.
                    Some(Path::Receive(_)) => return None,
                    Some(path) => return Some(path),
                }
            }
        }
        None
    }

    fn to(&self, path: Path, addr: IpAddr) -> To {
        let hop = match path {
            Path::Receive(_) => return To::Local,
            Path::Unreachable | Path::Blackhole => return To::Nowhere,
            Path::Via(hop) => hop,
            Path::Attached(interface) => Hop { interface, next_hop: addr },
        };
        match self.interfaces.get(&hop.interface) {
            Some(Link::Port { is_open: true }) => To::Elsewhere(hop.interface),
            // What comes through the tunnel is dropped there.
            Some(Link::Port { is_open: false }) => To::Nowhere,
            _ => To::Tunnel(hop),
        }
    }
}

/// A next hop that takes more steps than this to reach an interface does not resolve; so a circle of routes ends.
const MAX_RECURSION: u8 = 5;

impl Routes for Rib {
    fn lookup(&self, table: TableId, addr: ProtocolAddr) -> Option<Found> {
        let (prefix, path) = self.longest(table, addr.0, |c, _| c.origin.is_relied_on())?;
        Some(Found { prefix, to: self.to(path, addr.0) })
    }

    /// An address of the box itself inside the prefix splits nothing: whoever sends the whole prefix here reaches it as well.
    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool {
        let Some(routes) = self.tables.get(&table) else { return false };
        let inside = routes.prefixes.range(prefix..).skip_while(|(p, _)| **p == prefix);
        let inside = inside.take_while(|(p, _)| prefix.contains(p.addr()));
        inside.into_iter().any(|(part, candidates)| {
            let mut usable = candidates.iter().filter(|c| c.origin.is_relied_on());
            let Some(path) = usable.find_map(|&c| self.usable(table, c)) else { return false };
            match (self.to(path, part.addr()), to) {
                (To::Local, _) => false,
                // An attached part of an attached prefix: each address is its own next hop in both.
                (To::Tunnel(hop), To::Tunnel(other)) if matches!(path, Path::Attached(_)) => {
                    hop.interface != other.interface
                }
                (part_to, to) => part_to != *to,
            }
        })
    }
}

/// The interface that a path needs.
fn interface(path: Path) -> Option<InterfaceName> {
    match path {
        Path::Via(hop) => Some(hop.interface),
        Path::Attached(interface) | Path::Receive(interface) => Some(interface),
        Path::Unreachable | Path::Blackhole => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAIN: TableId = TableId(0);

    fn name(text: &str) -> InterfaceName {
        text.parse().unwrap()
    }
    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
    fn via(interface: &str, next_hop: &str) -> Path {
        Path::Via(Hop { interface: name(interface), next_hop: ip(next_hop) })
    }

    fn rib() -> Rib {
        let mut rib = Rib::default();
        rib.set_interfaces(BTreeMap::from([
            (name("wan0"), Link::Port { is_open: false }),
            (name("lan0"), Link::Port { is_open: true }),
            (name("tunnel0"), Link::Multipoint),
            (name("tunnel1"), Link::PointToPoint),
        ]));
        for (interface, text, own) in [
            ("wan0", "198.51.100.0/24", "198.51.100.2/32"),
            ("lan0", "192.168.2.0/24", "192.168.2.1/32"),
            ("tunnel0", "10.0.0.0/24", "10.0.0.2/32"),
            ("tunnel1", "10.1.0.0/24", "10.1.0.2/32"),
        ] {
            let attached = Target::Path(Path::Attached(name(interface)));
            let receive = Target::Path(Path::Receive(name(interface)));
            rib.set(Origin::Address, MAIN, prefix(text), Some(attached));
            rib.set(Origin::Address, MAIN, prefix(own), Some(receive));
        }
        rib.commit();
        rib
    }

    fn fixed(rib: &mut Rib, text: &str, next_hop: &str) {
        rib.set(Origin::Static, MAIN, prefix(text), Some(Target::NextHop(ip(next_hop))));
    }

    #[test]
    fn a_next_hop_gets_the_interface_that_reaches_it_and_follows_it() {
        let mut rib = rib();
        fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
        fixed(&mut rib, "172.16.0.0/16", "192.168.3.7");
        fixed(&mut rib, "192.168.9.0/24", "10.1.0.1");
        assert_eq!(
            rib.best(MAIN, ip("192.168.3.9")),
            Some((prefix("192.168.3.0/24"), via("tunnel0", "10.0.0.3")))
        );
        assert_eq!(
            rib.best(MAIN, ip("172.16.1.1")),
            Some((prefix("172.16.0.0/16"), via("tunnel0", "10.0.0.3")))
        );
        let to_peer = Path::Attached(name("tunnel1"));
        assert_eq!(rib.best(MAIN, ip("192.168.9.1")), Some((prefix("192.168.9.0/24"), to_peer)));
        rib.commit();

        // The tunnel goes: both routes change, though nobody touched them.
        let mut interfaces = rib.interfaces().clone();
        interfaces.remove(&name("tunnel0"));
        rib.set_interfaces(interfaces);
        assert_eq!(rib.best(MAIN, ip("172.16.1.1")), None);
        let changed = rib.commit();
        assert!(changed.contains(&(MAIN, prefix("172.16.0.0/16"))));
        assert!(rib.program(MAIN, prefix("192.168.3.0/24")).is_empty());
    }

    #[test]
    fn only_the_resolution_of_what_depends_on_a_change_is_told() {
        let mut rib = rib();
        fixed(&mut rib, "172.16.0.0/16", "192.168.3.7");
        assert_eq!(rib.commit(), [(MAIN, prefix("172.16.0.0/16"))]);
        fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
        assert_eq!(rib.commit(), [(MAIN, prefix("172.16.0.0/16")), (MAIN, prefix("192.168.3.0/24"))]);
        assert_eq!(rib.commit(), []);
        fixed(&mut rib, "192.168.3.0/24", "10.0.0.3");
        assert_eq!(rib.commit(), [], "the same again is no change");
    }

    #[test]
    fn a_change_settles_anew_only_what_may_rest_on_it() {
        let mut rib = rib();
        for third in 0..100 {
            fixed(&mut rib, &format!("172.16.{third}.0/24"), &format!("10.0.0.{third}"));
        }
        fixed(&mut rib, "172.17.0.0/24", "172.16.7.1");
        rib.commit();
        let kernels = |rib: &mut Rib, text: &str| {
            let by_hub = Some(Target::Path(via("tunnel0", "10.0.0.1")));
            rib.set(Origin::Kernel, MAIN, prefix(text), by_hub);
            let unsettled = rib.unsettled().into_iter().map(|(_, p)| p.to_string()).collect::<Vec<_>>();
            rib.commit();
            unsettled
        };
        assert!(kernels(&mut rib, "203.0.113.0/24").is_empty());
        assert!(kernels(&mut rib, "0.0.0.0/0").is_empty());
        assert_eq!(kernels(&mut rib, "10.0.0.7/32"), ["172.16.7.0/24", "172.17.0.0/24"]);
        // A next hop that is another one now no longer rests on the old one.
        fixed(&mut rib, "172.16.7.0/24", "10.0.0.8");
        rib.commit();
        assert!(kernels(&mut rib, "10.0.0.6/31").contains(&"172.16.6.0/24".to_owned()));
        assert_eq!(rib.dependants.get(&(MAIN, ip("10.0.0.7"))), None);
    }

    #[test]
    fn circles_and_default_routes_do_not_resolve() {
        let mut rib = rib();
        fixed(&mut rib, "172.16.0.0/16", "172.17.0.1");
        fixed(&mut rib, "172.17.0.0/16", "172.16.0.1");
        fixed(&mut rib, "0.0.0.0/0", "203.0.113.1");
        assert_eq!(rib.best(MAIN, ip("172.16.0.9")), None);
        assert_eq!(rib.best(MAIN, ip("8.8.8.8")), None);
        fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
        assert_eq!(rib.best(MAIN, ip("8.8.8.8")).unwrap().1, via("wan0", "198.51.100.1"));
        fixed(&mut rib, "0.0.0.0/0", "192.168.2.1");
        assert_eq!(rib.best(MAIN, ip("8.8.8.8")), None, "our own address is no next hop");
    }

    #[test]
    fn the_underlay_never_leads_through_a_tunnel() {
        let mut rib = rib();
        let nbma = NbmaAddr(ip("203.0.113.7"));
        // A default route learnt over the tunnel does not catch it, however long its prefix.
        let over_tunnel = Some(Target::Path(via("tunnel0", "10.0.0.1")));
        rib.set(Origin::Kernel, MAIN, prefix("0.0.0.0/0"), over_tunnel);
        rib.set(Origin::Kernel, MAIN, prefix("203.0.113.0/24"), over_tunnel);
        rib.set(Origin::Shortcut, MAIN, prefix("203.0.113.7/32"), over_tunnel);
        assert_eq!(rib.underlay(MAIN, nbma), None);
        // The kernel's own route by a port, which the daemon's has pushed aside, serves the underlay and nobody else.
        let gateway = Hop { interface: name("wan0"), next_hop: ip("198.51.100.1") };
        let default = prefix("0.0.0.0/0");
        rib.commit();
        rib.set(Origin::Underlay, MAIN, default, Some(Target::Path(Path::Via(gateway))));
        assert_eq!(rib.commit(), [(MAIN, default)]);
        assert_eq!(rib.underlay(MAIN, nbma), Some(gateway));
        assert_eq!(rib.program(MAIN, default), [(Owner::Netlink, via("tunnel0", "10.0.0.1"))]);
        rib.set(Origin::Kernel, MAIN, default, None);
        assert_eq!((rib.best(MAIN, ip("8.8.8.8")), rib.program(MAIN, default)), (None, Vec::new()));
        assert_eq!(rib.lookup(MAIN, ProtocolAddr(ip("8.8.8.8"))), None);
        assert!(rib.shown().iter().all(|r| r.origin != Origin::Underlay || !r.best));
        rib.set(Origin::Underlay, MAIN, default, None);
        rib.set(Origin::Kernel, MAIN, default, over_tunnel);
        fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
        assert_eq!(rib.underlay(MAIN, nbma), Some(gateway));
        let attached = Hop { interface: name("wan0"), next_hop: ip("198.51.100.9") };
        assert_eq!(rib.underlay(MAIN, NbmaAddr(ip("198.51.100.9"))), Some(attached));
        assert_eq!(rib.underlay(MAIN, NbmaAddr(ip("198.51.100.2"))), None, "that is ourselves");
        assert_eq!(rib.underlay(TableId(7), nbma), None, "another table");
    }

    #[test]
    fn candidates_stand_in_order_and_each_owner_programs_its_best() {
        let mut rib = rib();
        let p = prefix("192.168.3.0/24");
        rib.set(Origin::Kernel, MAIN, p, Some(Target::Path(via("lan0", "192.168.2.9"))));
        fixed(&mut rib, "192.168.3.0/24", "10.0.0.1");
        rib.set(Origin::Shortcut, MAIN, p, Some(Target::Path(via("tunnel0", "10.0.0.3"))));
        assert_eq!(
            rib.program(MAIN, p),
            [
                (Owner::Nhrp, via("tunnel0", "10.0.0.3")),
                (Owner::Config, via("tunnel0", "10.0.0.1")),
                (Owner::Netlink, via("lan0", "192.168.2.9"))
            ]
        );
        // NHRP answers rest on no shortcut.
        let found = rib.lookup(MAIN, ProtocolAddr(ip("192.168.3.5"))).unwrap();
        let hub = Hop { interface: name("tunnel0"), next_hop: ip("10.0.0.1") };
        assert_eq!(found, Found { prefix: p, to: To::Tunnel(hub) });
        rib.set(Origin::LearntAddress, MAIN, p, Some(Target::Path(Path::Receive(name("lan0")))));
        assert_eq!(rib.best(MAIN, ip("192.168.3.5")).unwrap().1, Path::Receive(name("lan0")));
    }

    #[test]
    fn what_engines_are_told() {
        let mut rib = rib();
        let look = |rib: &Rib, addr: &str| rib.lookup(MAIN, ProtocolAddr(ip(addr))).map(|f| f.to);
        assert_eq!(look(&rib, "192.168.2.1"), Some(To::Local));
        assert_eq!(look(&rib, "192.168.2.77"), Some(To::Elsewhere(name("lan0"))));
        let peer = |i: &str, a: &str| Some(To::Tunnel(Hop { interface: name(i), next_hop: ip(a) }));
        assert_eq!(look(&rib, "10.0.0.9"), peer("tunnel0", "10.0.0.9"));
        assert_eq!(look(&rib, "10.1.0.9"), peer("tunnel1", "10.1.0.9"));
        assert_eq!(look(&rib, "9.9.9.9"), None);
        // A port that does not forward is no way for what comes through a tunnel: nothing is answered for by it.
        fixed(&mut rib, "0.0.0.0/0", "198.51.100.1");
        assert_eq!(look(&rib, "9.9.9.9"), Some(To::Nowhere));
        assert_eq!(look(&rib, "198.51.100.9"), Some(To::Nowhere));
        let mut interfaces = rib.interfaces().clone();
        interfaces.insert(name("wan0"), Link::Port { is_open: true });
        rib.commit();
        rib.set_interfaces(interfaces);
        assert_eq!(look(&rib, "9.9.9.9"), Some(To::Elsewhere(name("wan0"))));
        assert!(rib.commit().contains(&(MAIN, prefix("0.0.0.0/0"))), "what was answered is looked at again");
        rib.set(Origin::Static, MAIN, prefix("9.0.0.0/8"), Some(Target::Path(Path::Blackhole)));
        assert_eq!(look(&rib, "9.9.9.9"), Some(To::Nowhere));
    }

    #[test]
    fn a_part_that_leads_elsewhere_splits_a_prefix_and_own_addresses_do_not() {
        let mut rib = rib();
        let lan = To::Elsewhere(name("lan0"));
        let p = prefix("192.168.2.0/24");
        assert!(!rib.is_split(MAIN, p, &lan), "the own address 192.168.2.1/32 is inside");
        rib.set(
            Origin::Shortcut,
            MAIN,
            prefix("192.168.2.128/25"),
            Some(Target::Path(via("tunnel0", "10.0.0.3"))),
        );
        assert!(!rib.is_split(MAIN, p, &lan), "shortcuts do not count");
        rib.set(
            Origin::Static,
            MAIN,
            prefix("192.168.2.64/26"),
            Some(Target::Path(via("lan0", "192.168.2.9"))),
        );
        assert!(!rib.is_split(MAIN, p, &lan));
        rib.set(
            Origin::Kernel,
            MAIN,
            prefix("192.168.2.128/25"),
            Some(Target::Path(via("tunnel0", "10.0.0.3"))),
        );
        assert!(rib.is_split(MAIN, p, &lan));
        assert!(!rib.is_split(MAIN, prefix("192.168.3.0/24"), &lan), "outside");
    }

    proptest! {
        /// What a commit tells is all that is different, as if every route were resolved anew.
        #[test]
        fn a_commit_misses_nothing(
            steps in prop::collection::vec((any::<u32>(), 1u8..=32, any::<u32>(), 0u8..4), 1..80),
        ) {
            let mut rib = rib();
            let pick = |bits: u32| std::net::Ipv4Addr::from(0x0a00_0000 | bits & 0x0001_8181);
            let mut before = BTreeMap::new();
            for (bits, length, hop, kind) in steps {
                let p = Prefix::new(pick(bits).into(), length).unwrap();
                match kind {
                    0 => rib.set(Origin::Static, MAIN, p, None),
                    1 => rib.set(Origin::Kernel, MAIN, p, Some(Target::Path(Path::Attached(name("lan0"))))),
                    2 => rib.set(Origin::Kernel, MAIN, p, None),
                    _ => rib.set(Origin::Static, MAIN, p, Some(Target::NextHop(pick(hop).into()))),
                }
                let told = rib.commit();
                let now: BTreeMap<_, _> =
                    rib.tables[&MAIN].prefixes.keys().map(|&p| (p, rib.program(MAIN, p))).collect();
                for p in now.keys().chain(before.keys()) {
                    let none = Vec::new();
                    let (was, is) = (before.get(p).unwrap_or(&none), now.get(p).unwrap_or(&none));
                    prop_assert!(was == is || told.contains(&(MAIN, *p)) || before.is_empty(), "{}", p);
                }
                before = now;
            }
        }

        /// Longest match agrees with a search through all prefixes, whatever was set and removed before.
        #[test]
        fn longest_match_is_the_longest(
            steps in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 1..60),
            probes in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let mut rib = Rib::default();
            let mut naive: BTreeMap<Prefix, ()> = BTreeMap::new();
            for (bits, length, is_put) in steps {
                // Few different addresses, so that prefixes nest and are removed again.
                let p = Prefix::new(std::net::Ipv4Addr::from(bits & 0x8181_0301).into(), length).unwrap();
                rib.set(Origin::Static, MAIN, p, is_put.then_some(Target::Path(Path::Blackhole)));
                if is_put { naive.insert(p, ()); } else { naive.remove(&p); }
            }
            for bits in probes {
                let addr: IpAddr = std::net::Ipv4Addr::from(bits & 0x8181_0301).into();
                let expected = naive.keys().filter(|p| p.contains(addr)).max_by_key(|p| p.length()).copied();
                prop_assert_eq!(rib.best(MAIN, addr).map(|(p, _)| p), expected);
            }
        }
    }
}
