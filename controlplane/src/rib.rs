//! The routing information base: routes of every owner, and what follows from them.
//!
//! A prefix has candidates, in the order of preference that the data plane forwards by as well: a receive route first, then
//! by [`Origin`]. A candidate counts while its path can be used: its interface is there, and its next hop resolves; of several
//! next hops of equal cost, those count that do. Changes are collected and taken with [`Rib::commit`], which says for which
//! prefixes something is different now.
//!
//! Tables know nothing of each other: a next hop resolves in the table of its route, whatever the others hold.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use model::program::{Hop, Owner, Path};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use nhrp::{Found, Routes, To};

/// Where a route comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// An NHRP shortcut.
    Shortcut,
    /// A peer of a tunnel that has host addresses only.
    Peer,
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
            Self::Shortcut | Self::Peer => Owner::Nhrp,
            Self::Address | Self::Static => Owner::Config,
            Self::LearntAddress | Self::Kernel | Self::Underlay => Owner::Netlink,
        }
    }

    /// What it is called where it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shortcut => "shortcut",
            Self::Peer => "peer",
            Self::Address => "address",
            Self::Static => "static",
            Self::LearntAddress => "learnt address",
            Self::Kernel => "kernel",
            Self::Underlay => "kernel, by a port",
        }
    }

    /// Whether next hops resolve, and NHRP answers, by such a route.
    const fn is_relied_on(self) -> bool {
        !matches!(self, Self::Shortcut | Self::Underlay)
    }
}

/// Where a route says that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As it is programmed.
    Path(Path),
    /// To any of these, as far as they resolve.
    NextHops(Vec<NextHop>),
}

/// One of the next hops of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Its address.
    pub addr: IpAddr,
    /// Its interface; `None`: that follows from the other routes.
    pub interface: Option<InterfaceName>,
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        Self { addr, interface: None }
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Routes with next hops only: those, and what they resolved to at the last commit.
    recursive: BTreeMap<(TableId, Prefix), (Vec<IpAddr>, Option<Path>)>,
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    origin: Origin,
    target: Target,
}

impl Candidate {
    fn rank(&self) -> (bool, Origin) {
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
            candidates.sort_by_key(Candidate::rank);
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

    /// Keeps in mind which next hops the routes to a prefix rest on, if they have none but those.
    fn note_dependence(&mut self, table: TableId, prefix: Prefix) {
        let candidates = self.tables.get(&table).and_then(|t| t.prefixes.get(&prefix));
        let next_hops = candidates.into_iter().flatten().flat_map(|c| match &c.target {
            Target::NextHops(hops) => hops.as_slice(),
            Target::Path(_) => &[],
        });
        let next_hops: Vec<IpAddr> =
            next_hops.filter(|hop| hop.interface.is_none()).map(|hop| hop.addr).collect();
        let at = (table, prefix);
        let (before, path) = self.recursive.remove(&at).unwrap_or_default();
        for old in before.iter().filter(|old| !next_hops.contains(old)) {
            if let Some(prefixes) = self.dependants.get_mut(&(table, *old)) {
                prefixes.remove(&prefix);
                if prefixes.is_empty() {
                    self.dependants.remove(&(table, *old));
                }
            }
        }
        for next_hop in &next_hops {
            self.dependants.entry((table, *next_hop)).or_default().insert(prefix);
        }
        if !next_hops.is_empty() {
            self.recursive.insert(at, (next_hops, path));
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
        self.usable(table, candidates.iter().find(|c| c.origin == origin)?)
    }

    /// The route of one origin to a prefix.
    #[must_use]
    pub fn route(&self, origin: Origin, table: TableId, prefix: Prefix) -> Option<Target> {
        let candidates = self.tables.get(&table)?.prefixes.get(&prefix)?;
        candidates.iter().find(|c| c.origin == origin).map(|c| c.target.clone())
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
            if let Some(path) = self.usable(table, candidate) {
                program.push((owner, path));
            }
        }
        program
    }

    /// The port interface and neighbour by which an NBMA address is reached. Routes through tunnels do not count, however
    /// they were learnt: a tunnel never carries itself. Of several ways of equal cost each address keeps to one of them.
    #[must_use]
    pub fn underlay(&self, table: TableId, nbma: NbmaAddr) -> Option<Hop> {
        match self.underlay_route(table, nbma)?.2 {
            Path::Attached(interface) => Some(Hop { interface, next_hop: nbma.0 }),
            path => spread(path.hops(), nbma),
        }
    }

    /// The route by which an NBMA address is reached, and of its paths those by ports.
    #[must_use]
    pub fn underlay_route(&self, table: TableId, nbma: NbmaAddr) -> Option<(Prefix, Origin, Path)> {
        let is_port = |name: &InterfaceName| matches!(self.interfaces.get(name), Some(Link::Port { .. }));
        self.longest(table, nbma.0, |candidate, path| match path {
            _ if candidate.origin == Origin::Shortcut => None,
            Path::Via(_) | Path::Balanced(_) => {
                Path::to(path.hops().iter().copied().filter(|hop| is_port(&hop.interface)))
            }
            Path::Attached(name) | Path::Receive(name) => is_port(name).then(|| path.clone()),
            Path::Unreachable | Path::Blackhole => Some(path.clone()),
        })
    }

    /// Longest match over every owner's routes, as the data plane does it.
    #[must_use]
    pub fn best(&self, table: TableId, addr: IpAddr) -> Option<(Prefix, Path)> {
        let is_programmed = |candidate: &Candidate| candidate.origin != Origin::Underlay;
        let found = self.longest(table, addr, |c, path| is_programmed(c).then(|| path.clone()));
        found.map(|(prefix, _, path)| (prefix, path))
    }

    /// Every route, in order of table and prefix, the preferred first.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let mut tables: Vec<_> = self.tables.iter().collect();
        tables.sort_by_key(|(id, _)| **id);
        let prefixes = tables.into_iter().flat_map(|(&table, routes)| {
            routes.prefixes.iter().map(move |(&prefix, candidates)| (table, prefix, candidates))
        });
        prefixes.flat_map(|(table, prefix, candidates)| self.show(table, prefix, candidates)).collect()
    }

    /// Every route to a prefix that holds an address, longest prefix first, of one prefix the preferred first.
    #[must_use]
    pub fn holding(&self, table: TableId, addr: IpAddr) -> Vec<Shown> {
        let matches = self.matches(table, addr);
        matches.flat_map(|(prefix, candidates)| self.show(table, prefix, candidates)).collect()
    }

    /// The routes to one prefix.
    fn show(&self, table: TableId, prefix: Prefix, candidates: &[Candidate]) -> Vec<Shown> {
        let mut is_taken = false;
        let shown = candidates.iter().map(|candidate| {
            let path = self.usable(table, candidate);
            let best = path.is_some() && !is_taken && candidate.origin != Origin::Underlay;
            is_taken |= best;
            Shown { table, prefix, origin: candidate.origin, path, best }
        });
        shown.collect()
    }

    /// Longest match over the candidates that can be used: the first of which `take` takes something.
    fn longest(
        &self,
        table: TableId,
        addr: IpAddr,
        take: impl Fn(&Candidate, &Path) -> Option<Path>,
    ) -> Option<(Prefix, Origin, Path)> {
        let of_prefix = |prefix, candidates: &[Candidate]| {
            candidates.iter().find_map(|candidate| {
                let path = take(candidate, &self.usable(table, candidate)?)?;
                Some((prefix, candidate.origin, path))
            })
        };
        self.matches(table, addr).find_map(|(prefix, candidates)| of_prefix(prefix, candidates))
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

    /// The candidate's path, as far as its interfaces are there and its next hops resolve.
    fn usable(&self, table: TableId, candidate: &Candidate) -> Option<Path> {
        match &candidate.target {
            Target::Path(path) => self.present(path),
            Target::NextHops(hops) => self.resolve_all(table, hops, MAX_RECURSION, &Cell::new(MAX_LOOKUPS)),
        }
    }

    /// The path, as far as its interfaces are there; in the form that fits the interfaces.
    fn present(&self, path: &Path) -> Option<Path> {
        match path {
            Path::Via(_) | Path::Balanced(_) => self.through(path.hops()),
            Path::Attached(interface) | Path::Receive(interface) => {
                self.interfaces.contains_key(interface).then(|| path.clone())
            }
            Path::Unreachable | Path::Blackhole => Some(path.clone()),
        }
    }

    /// The path to any of these hops whose interface is there. On a tunnel with one peer the next hop is that peer, whatever its
    /// address.
    fn through(&self, hops: &[Hop]) -> Option<Path> {
        let fitting = |hop: &Hop| match self.interfaces.get(&hop.interface)? {
            Link::PointToPoint => Some(Hop { next_hop: NO_ADDRESS, ..*hop }),
            Link::Port { .. } | Link::Multipoint => Some(*hop),
        };
        match Path::to(hops.iter().filter_map(fitting))? {
            Path::Via(hop) if self.interfaces.get(&hop.interface) == Some(&Link::PointToPoint) => {
                Some(Path::Attached(hop.interface))
            }
            path => Some(path),
        }
    }

    fn recursive_path(&self, table: TableId, prefix: Prefix) -> Option<Path> {
        let candidates = self.tables.get(&table)?.prefixes.get(&prefix)?;
        let candidate = candidates.iter().find(|c| matches!(c.target, Target::NextHops(_)))?;
        self.usable(table, candidate)
    }

    /// The path to any of some next hops that resolve. Where all that do lead nowhere, so does the path.
    fn resolve_all(
        &self,
        table: TableId,
        next_hops: &[NextHop],
        depth: u8,
        lookups: &Cell<u16>,
    ) -> Option<Path> {
        let (mut hops, mut nowhere) = (Vec::new(), None);
        for &NextHop { addr, interface } in next_hops {
            let path = match interface {
                Some(interface) => self.present(&Path::Via(Hop { interface, next_hop: addr })),
                None => self.resolve(table, addr, depth, lookups),
            };
            match path {
                Some(Path::Attached(interface)) => hops.push(Hop { interface, next_hop: NO_ADDRESS }),
                Some(path @ (Path::Via(_) | Path::Balanced(_))) => hops.extend(path.hops()),
                Some(path) => nowhere = nowhere.or(Some(path)),
                None => {}
            }
        }
        self.through(&hops).or(nowhere)
    }

    /// The path to a next hop, over routes of any origin but NHRP and not over a default route: what leads to everything
    /// says nothing about this hop.
    fn resolve(&self, table: TableId, next_hop: IpAddr, depth: u8, lookups: &Cell<u16>) -> Option<Path> {
        let depth = depth.checked_sub(1)?;
        lookups.set(lookups.get().checked_sub(1)?);
        for (prefix, candidates) in self.matches(table, next_hop) {
            if prefix.is_default() {
                continue;
            }
            for candidate in candidates.iter().filter(|c| c.origin.is_relied_on()) {
                let path = match &candidate.target {
                    Target::Path(path) => self.present(path),
                    Target::NextHops(further) => self.resolve_all(table, further, depth, lookups),
                };
                match path {
                    None => {}
                    Some(Path::Attached(interface)) => {
                        return self.present(&Path::Via(Hop { interface, next_hop }));
                    }
                    // Our own address is nobody's next hop.
                    Some(Path::Receive(_)) => return None,
                    Some(path) => return Some(path),
                }
            }
        }
        None
    }

    /// Where NHRP sees a path lead. Of several ways that which leaves the cloud says it, else the first: it must be the same as long
    /// as they are.
    fn to(&self, path: &Path, addr: IpAddr) -> To {
        match path {
            Path::Receive(_) => To::Local,
            Path::Unreachable | Path::Blackhole => To::Nowhere,
            Path::Attached(interface) => self.to_hop(Hop { interface: *interface, next_hop: addr }),
            Path::Via(_) | Path::Balanced(_) => {
                let ways = path.hops().iter().map(|&hop| match self.interfaces.get(&hop.interface) {
                    Some(Link::PointToPoint) => self.to_hop(Hop { next_hop: addr, ..hop }),
                    _ => self.to_hop(hop),
                });
                let rank = |to: &To| match to {
                    To::Elsewhere(_) => 0,
                    To::Local | To::Tunnel(_) => 1,
                    To::Nowhere => 2,
                };
                ways.min_by_key(rank).unwrap_or(To::Nowhere)
            }
        }
    }

    fn to_hop(&self, hop: Hop) -> To {
        match self.interfaces.get(&hop.interface) {
            Some(Link::Port { is_open: true }) => To::Elsewhere(hop.interface),
            // What comes through the tunnel is dropped there.
            Some(Link::Port { is_open: false }) => To::Nowhere,
            _ => To::Tunnel(hop),
        }
    }
}

/// Next hop of whatever goes through a tunnel with one peer, of either family.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The one of several hops that an NBMA address keeps to: that with the greatest weight for it (rendezvous hashing), so that one
/// that comes or goes moves only the addresses that are its own, and the next life of this process chooses the same.
fn spread(hops: &[Hop], nbma: NbmaAddr) -> Option<Hop> {
    hops.iter().copied().max_by_key(|hop| (weight(nbma, hop), *hop))
}

fn weight(nbma: NbmaAddr, hop: &Hop) -> u64 {
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    };
    let (nbma, next_hop) = (octets(nbma.0), octets(hop.next_hop));
    let bytes = nbma.iter().chain(&next_hop).chain(hop.interface.as_str().as_bytes());
    // FNV-1a, and the end of SplitMix64: FNV's last bytes change its upper bits too little.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// A next hop that takes more steps than this to reach an interface does not resolve; so a circle of routes ends.
const MAX_RECURSION: u8 = 5;
/// A route takes no more look-ups than this to resolve: 16 next hops of five steps take 80, circles of such routes a million.
const MAX_LOOKUPS: u16 = 256;

impl Routes for Rib {
    fn lookup(&self, table: TableId, addr: ProtocolAddr) -> Option<Found> {
        let take = |c: &Candidate, path: &Path| c.origin.is_relied_on().then(|| path.clone());
        let (prefix, _, path) = self.longest(table, addr.0, take)?;
        Some(Found { prefix, to: self.to(&path, addr.0) })
    }

    /// An address of the box itself inside the prefix splits nothing: whoever sends the whole prefix here reaches it as well.
    fn is_split(&self, table: TableId, prefix: Prefix, to: &To) -> bool {
        let Some(routes) = self.tables.get(&table) else { return false };
        let inside = routes.prefixes.range(prefix..).skip_while(|(p, _)| **p == prefix);
        let inside = inside.take_while(|(p, _)| prefix.contains(p.addr()));
        inside.into_iter().any(|(part, candidates)| {
            let mut usable = candidates.iter().filter(|c| c.origin.is_relied_on());
            let Some(path) = usable.find_map(|c| self.usable(table, c)) else { return false };
            match (self.to(&path, part.addr()), to) {
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

#[cfg(test)]
mod tests;
