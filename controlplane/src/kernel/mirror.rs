//! What was told of the twins of one namespace. Pure: facts in, notices out.
//!
//! Routes come from the kernel in the words of two families. Among the routes to a prefix with one metric
//!
//! - IPv4 has each for itself, the next hops of a multipath route in one message; a new one stands before the others unless it
//!   is appended, and what is removed is removed whole.
//! - IPv6 has next hops, which are one route as soon as there are two: a message of a new one names all that there are then, a
//!   message of a removed one those that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use model::program::{Hop, Path, Route};
use model::{InterfaceAddr, InterfaceName, Mac, Prefix, TableId};

use super::fact::{Certainty, Change, Fact, KernelRoute, Life, Way};
use super::{Kind, Notice};

#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// What the routes are told as routes of.
    table: TableId,
    /// By index of the link.
    twins: Links,
    known: Known,
}

type Links = BTreeMap<u32, (InterfaceName, Kind)>;

#[derive(Debug, Default, Clone)]
struct Known {
    addresses: BTreeSet<(InterfaceName, InterfaceAddr)>,
    neighbours: HashMap<Hop, (Mac, Certainty)>,
    /// In the kernel's order: by metric, then as put and appended. The best is told, and the best by ports.
    routes: BTreeMap<Prefix, Vec<Leading>>,
}

/// A route to a prefix that leaves by twins, or that discards.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leading {
    metric: u32,
    reluctance: u8,
    path: Path,
    /// That part of the path which leaves by ports.
    by_ports: Option<Path>,
}

impl Leading {
    fn new(metric: u32, reluctance: u8, path: Path, twins: &Links) -> Self {
        let is_port =
            |name| twins.values().any(|(twin, kind)| *twin == name && matches!(kind, Kind::Tap { .. }));
        let by_ports = left(&path, |name| !is_port(name)).filter(|_| path.interfaces().next().is_some());
        Self { metric, reluctance, path, by_ports }
    }

    fn is_by_tunnel(&self) -> bool {
        self.path.interfaces().next().is_some() && self.by_ports.as_ref() != Some(&self.path)
    }

    fn rank(&self) -> (u32, u8) {
        (self.metric, self.reluctance)
    }
}

/// What is left of a path without these interfaces.
fn left(path: &Path, is_gone: impl Fn(InterfaceName) -> bool) -> Option<Path> {
    match path {
        Path::Via(_) | Path::Balanced(_) => {
            Path::to(path.hops().iter().copied().filter(|hop| !is_gone(hop.interface)))
        }
        Path::Attached(name) | Path::Receive(name) if is_gone(*name) => None,
        other => Some(other.clone()),
    }
}

/// What is told of a prefix.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Said {
    best: Option<Path>,
    /// By ports, if the best is not, or not all of it.
    underlay: Option<Path>,
}

impl Said {
    fn of(ways: &[Leading]) -> Self {
        // Of equals the first.
        let Some(best) = ways.iter().min_by_key(|way| way.rank()) else { return Self::default() };
        let by_ports = ways.iter().filter(|way| way.by_ports.is_some()).min_by_key(|way| way.rank());
        let underlay = by_ports.filter(|_| best.is_by_tunnel()).and_then(|way| way.by_ports.clone());
        Self { best: Some(best.path.clone()), underlay }
    }

    /// Tells what is different from before. In between there is always a way by ports, if there is one before and after.
    fn tell(self, table: TableId, prefix: Prefix, before: Self, out: &mut VecDeque<Notice>) {
        let route = |path| Route { table, prefix, path, expires_in: None };
        let has_underlay = self.underlay.is_some();
        if self.underlay != before.underlay
            && let Some(path) = self.underlay
        {
            out.push_back(Notice::Underlay { route: route(path), present: true });
        }
        match (before.best, self.best) {
            (Some(old), None) => out.push_back(Notice::Route { route: route(old), present: false }),
            (old, Some(new)) if old.as_ref() != Some(&new) => {
                out.push_back(Notice::Route { route: route(new), present: true });
            }
            _ => {}
        }
        if let Some(path) = before.underlay.filter(|_| !has_underlay) {
            out.push_back(Notice::Underlay { route: route(path), present: false });
        }
    }
}

impl Mirror {
    /// Of the twins of a table.
    pub(super) fn new(table: TableId) -> Self {
        Self { table, ..Self::default() }
    }

    /// The table that the routes are told as routes of.
    pub(super) fn table(&self) -> TableId {
        self.table
    }

    /// Routes are told as of another table from now on: those that there are, with the next resync.
    pub(super) fn set_table(&mut self, table: TableId, out: &mut VecDeque<Notice>) {
        if self.table != table {
            let routes = std::mem::take(&mut self.known.routes);
            Known { routes, ..Known::default() }.tell_missing_from(&self.known, self.table, out);
            self.table = table;
        }
    }

    /// Nothing is there any more.
    pub(super) fn clear(&mut self, out: &mut VecDeque<Notice>) {
        self.twins.clear();
        std::mem::take(&mut self.known).tell_missing_from(&self.known, self.table, out);
    }

    /// From now on facts of this link are facts of that twin.
    pub(super) fn add(&mut self, index: u32, name: InterfaceName, kind: Kind) {
        self.twins.insert(index, (name, kind));
    }

    /// The twin is gone, and all that was on it.
    pub(super) fn remove(&mut self, name: InterfaceName, out: &mut VecDeque<Notice>) {
        self.twins.retain(|_, (twin, _)| *twin != name);
        let mut rest = self.known.clone();
        rest.addresses.retain(|(twin, _)| *twin != name);
        rest.neighbours.retain(|hop, _| hop.interface != name);
        for ways in rest.routes.values_mut() {
            keep(ways, &self.twins, |way| left(&way.path, |twin| twin == name));
        }
        rest.routes.retain(|_, ways| !ways.is_empty());
        let before = std::mem::replace(&mut self.known, rest);
        before.tell_missing_from(&self.known, self.table, out);
        self.known.tell_routes_changed_since(&before, self.table, out);
    }

    /// Name and kind of the twin that is this link.
    pub(super) fn twin(&self, index: u32) -> Option<(InterfaceName, Kind)> {
        self.twins.get(&index).copied()
    }

    /// The link that is this twin, and its kind.
    pub(super) fn link(&self, name: InterfaceName) -> Option<(u32, Kind)> {
        self.twins.iter().find(|(_, (twin, _))| *twin == name).map(|(index, (_, kind))| (*index, *kind))
    }

    /// A neighbour, if it is resolved.
    pub(super) fn neighbour(&self, hop: &Hop) -> Option<(Mac, Certainty)> {
        self.known.neighbours.get(hop).copied()
    }

    /// Takes a notification in.
    pub(super) fn apply(&mut self, fact: Fact, out: &mut VecDeque<Notice>) {
        match fact {
            Fact::Link { .. } | Fact::NexthopGone => {}
            Fact::Address { index, address, present, .. } => self.address(index, address, present, out),
            Fact::Neighbour { index, address, life, .. } => self.neighbour_lives(index, address, life, out),
            Fact::Route { route, change } => self.route(&route, change, out),
        }
    }

    /// Takes in all addresses, neighbours and routes that there are: tells those that are gone, then all that are there.
    pub(super) fn resync(&mut self, facts: Vec<Fact>, out: &mut VecDeque<Notice>) {
        let before = std::mem::take(&mut self.known);
        self.take_in(facts);
        before.tell_missing_from(&self.known, self.table, out);
        self.known.tell_all(&before, self.table, out);
    }

    /// Takes in all routes that there are: tells what changed.
    pub(super) fn resync_routes(&mut self, facts: Vec<Fact>, out: &mut VecDeque<Notice>) {
        let routes = std::mem::take(&mut self.known.routes);
        self.take_in(facts);
        let before = Known { routes, ..Known::default() };
        before.tell_missing_from(&self.known, self.table, out);
        self.known.tell_routes_changed_since(&before, self.table, out);
    }

    fn take_in(&mut self, facts: Vec<Fact>) {
        let mut unheard = VecDeque::new();
        for fact in facts {
            let fact = match fact {
                // A dump lists the routes in their order.
                Fact::Route { route, .. } => Fact::Route { route, change: Change::Append },
                other => other,
            };
            self.apply(fact, &mut unheard);
        }
    }

    fn address(&mut self, index: u32, address: InterfaceAddr, present: bool, out: &mut VecDeque<Notice>) {
        let Some((interface, _)) = self.twin(index) else { return };
        let changed = if present {
            self.known.addresses.insert((interface, address))
        } else {
            self.known.addresses.remove(&(interface, address))
        };
        if changed {
            out.push_back(Notice::Address { interface, address, present });
        }
    }

    fn neighbour_lives(&mut self, index: u32, next_hop: IpAddr, life: Life, out: &mut VecDeque<Notice>) {
        let Some((interface, Kind::Tap { .. })) = self.twin(index) else { return };
        let hop = Hop { interface, next_hop };
        let neighbours = &mut self.known.neighbours;
        let tell = match life {
            Life::Resolved { mac, certainty } => {
                neighbours.insert(hop, (mac, certainty)).is_none_or(|(before, _)| before != mac)
            }
            // Who waits for it should hear, whatever was known.
            Life::Failed => {
                neighbours.remove(&hop);
                true
            }
            Life::Asking | Life::Gone => neighbours.remove(&hop).is_some(),
        };
        if tell {
            let mac = neighbours.get(&hop).map(|(mac, _)| *mac);
            out.push_back(Notice::Neighbour { hop, mac });
        }
    }

    fn route(&mut self, route: &KernelRoute, change: Change, out: &mut VecDeque<Notice>) {
        // Many hosts have one to 224.0.0.0/4, for what they send themselves.
        if !route.prefix.is_routable() {
            return;
        }
        let path = self.path(&route.way).filter(|_| !route.ours);
        let way = path.map(|path| Leading::new(route.metric, route.reluctance, path, &self.twins));
        let ways = self.known.routes.entry(route.prefix).or_default();
        let before = Said::of(ways);
        match route.prefix.addr() {
            IpAddr::V4(_) => change_one(ways, change, route.metric, way),
            IpAddr::V6(_) => change_next_hops(ways, change, route.metric, way, &self.twins),
        }
        let after = Said::of(ways);
        if ways.is_empty() {
            self.known.routes.remove(&route.prefix);
        }
        after.tell(self.table, route.prefix, before, out);
    }

    /// Where a route leads; `None` if not by a twin. Of several ways those by twins; where some have a gateway, these.
    pub(super) fn path(&self, way: &Way) -> Option<Path> {
        match way {
            Way::Out(hops) => {
                let by_twins =
                    || hops.iter().filter_map(|(index, gateway)| Some((self.twin(*index)?.0, *gateway)));
                let gateways = by_twins()
                    .filter_map(|(interface, gateway)| gateway.map(|next_hop| Hop { interface, next_hop }));
                Path::to(gateways)
                    .or_else(|| by_twins().next().map(|(interface, _)| Path::Attached(interface)))
            }
            Way::Unreachable => Some(Path::Unreachable),
            Way::Blackhole => Some(Path::Blackhole),
        }
    }
}

/// What a message of an IPv4 route does. `None`: of a route that is not told, which may take the place of one that was.
fn change_one(ways: &mut Vec<Leading>, change: Change, metric: u32, way: Option<Leading>) {
    // What a dump told may be notified after it.
    let again = |other: &Leading| Some(other) == way.as_ref();
    if change == Change::Append && ways.iter().any(again) {
        return;
    }
    let first = ways.partition_point(|way| way.metric < metric);
    if change == Change::Replace && ways.get(first).is_some_and(|way| way.metric == metric) {
        ways.remove(first);
    }
    if change != Change::Append {
        ways.retain(|way| !again(way));
    }
    let end = ways.partition_point(|way| way.metric <= metric);
    match (change, way) {
        (Change::Put | Change::Replace, Some(way)) => ways.insert(first, way),
        (Change::Append, Some(way)) => ways.insert(end, way),
        (Change::Remove, _) | (_, None) => {}
    }
}

/// What a message of an IPv6 route does.
fn change_next_hops(
    ways: &mut Vec<Leading>,
    change: Change,
    metric: u32,
    way: Option<Leading>,
    twins: &Links,
) {
    let first = ways.partition_point(|way| way.metric < metric);
    if change == Change::Replace && ways.get(first).is_some_and(|way| way.metric == metric) {
        ways.remove(first);
    }
    let Some(way) = way else { return };
    let is_part = |part: &Leading, of: &Leading| {
        part.metric == of.metric
            && (part.path == of.path
                || !part.path.hops().is_empty()
                    && part.path.hops().iter().all(|hop| of.path.hops().contains(hop)))
    };
    match change {
        Change::Remove => keep(ways, twins, |other| {
            if other.metric != metric || other.path == way.path {
                return (other.metric != metric).then(|| other.path.clone());
            }
            match other.path.hops() {
                [] => Some(other.path.clone()),
                hops => Path::to(hops.iter().copied().filter(|hop| !way.path.hops().contains(hop))),
            }
        }),
        // A message may be older than the dump that told more.
        _ if ways.iter().any(|other| is_part(&way, other)) => {}
        _ => {
            let at = ways.iter().position(|other| is_part(other, &way));
            ways.retain(|other| !is_part(other, &way));
            let end = ways.partition_point(|other| other.metric <= metric);
            let at = if change == Change::Replace { first } else { at.unwrap_or(end) };
            ways.insert(at, way);
        }
    }
}

/// Leaves of each what `rest` says, if anything.
fn keep(ways: &mut Vec<Leading>, twins: &Links, rest: impl Fn(&Leading) -> Option<Path>) {
    ways.retain_mut(|way| {
        let Some(path) = rest(way) else { return false };
        if path != way.path {
            *way = Leading::new(way.metric, way.reluctance, path, twins);
        }
        true
    });
}

impl Known {
    /// Tells what is not in `now`.
    fn tell_missing_from(&self, now: &Self, table: TableId, out: &mut VecDeque<Notice>) {
        for (prefix, ways) in self.routes.iter().filter(|(prefix, _)| !now.routes.contains_key(prefix)) {
            Said::default().tell(table, *prefix, Said::of(ways), out);
        }
        let hops = self.neighbours.keys().filter(|hop| !now.neighbours.contains_key(hop));
        out.extend(hops.map(|hop| Notice::Neighbour { hop: *hop, mac: None }));
        let addresses = self.addresses.difference(&now.addresses);
        out.extend(addresses.map(|(interface, address)| Notice::Address {
            interface: *interface,
            address: *address,
            present: false,
        }));
    }

    fn tell_routes_changed_since(&self, before: &Self, table: TableId, out: &mut VecDeque<Notice>) {
        for (prefix, ways) in &self.routes {
            Said::of(ways).tell(table, *prefix, before.said(prefix), out);
        }
    }

    fn said(&self, prefix: &Prefix) -> Said {
        self.routes.get(prefix).map(|ways| Said::of(ways)).unwrap_or_default()
    }

    /// Tells all, and which routes by ports are no longer needed beside the best.
    fn tell_all(&self, before: &Self, table: TableId, out: &mut VecDeque<Notice>) {
        out.extend(self.addresses.iter().map(|(interface, address)| Notice::Address {
            interface: *interface,
            address: *address,
            present: true,
        }));
        out.extend(
            self.neighbours.iter().map(|(hop, (mac, _))| Notice::Neighbour { hop: *hop, mac: Some(*mac) }),
        );
        for (prefix, ways) in &self.routes {
            let said = Said::of(ways);
            let underlay = before.said(prefix).underlay.filter(|_| said.underlay.is_none());
            said.tell(table, *prefix, Said { best: None, underlay }, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 7;
    const TUNNEL: u32 = 8;

    fn mirror() -> Mirror {
        let mut mirror = Mirror::default();
        mirror.add(LAN, "lan0".parse().unwrap(), Kind::Tap { mac: Mac::default() });
        mirror.add(TUNNEL, "tunnel0".parse().unwrap(), Kind::Tun);
        mirror
    }

    fn route(metric: u32, index: u32, gateway: &str) -> KernelRoute {
        KernelRoute {
            prefix: "192.168.7.0/24".parse().unwrap(),
            metric,
            reluctance: 1,
            ours: false,
            way: Way::Out(vec![(index, Some(gateway.parse().unwrap()))]),
        }
    }

    /// What is said of 192.168.7.0/24: the gateway, or that there is none.
    fn said(mirror: &mut Mirror, change: Change, route: KernelRoute) -> Vec<String> {
        let mut out = VecDeque::new();
        mirror.apply(Fact::Route { route, change }, &mut out);
        out.into_iter()
            .map(|notice| match notice {
                Notice::Route { route: Route { path: Path::Via(hop), .. }, present: true } => {
                    hop.next_hop.to_string()
                }
                Notice::Route { present: false, .. } => "gone".to_owned(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_best_of_several_routes_is_told_and_the_next_takes_its_place() {
        let mut mirror = mirror();
        assert_eq!(said(&mut mirror, Change::Put, route(110, TUNNEL, "10.255.0.2")), ["10.255.0.2"]);
        assert!(said(&mut mirror, Change::Put, route(200, TUNNEL, "10.255.0.3")).is_empty());
        assert!(said(&mut mirror, Change::Append, route(110, TUNNEL, "10.255.0.4")).is_empty());
        assert_eq!(said(&mut mirror, Change::Put, route(20, LAN, "10.1.0.9")), ["10.1.0.9"]);
        assert_eq!(said(&mut mirror, Change::Remove, route(20, LAN, "10.1.0.9")), ["10.255.0.2"]);
        assert_eq!(said(&mut mirror, Change::Remove, route(110, TUNNEL, "10.255.0.2")), ["10.255.0.4"]);
        assert_eq!(said(&mut mirror, Change::Replace, route(110, TUNNEL, "10.255.0.5")), ["10.255.0.5"]);
        assert_eq!(said(&mut mirror, Change::Remove, route(110, TUNNEL, "10.255.0.5")), ["10.255.0.3"]);
        assert_eq!(said(&mut mirror, Change::Remove, route(200, TUNNEL, "10.255.0.3")), ["gone"]);
        assert!(mirror.known.routes.is_empty());
    }

    /// As the words of the notices: `+`, `-` a route, `u+`, `u-` one for the underlay.
    fn words(out: VecDeque<Notice>) -> Vec<String> {
        let word = |notice| {
            let (mark, route, present) = match notice {
                Notice::Route { route, present } => ("", route, present),
                Notice::Underlay { route, present } => ("u", route, present),
                _ => return None,
            };
            let Path::Via(hop) = route.path else { return None };
            Some(format!("{mark}{}{}", if present { '+' } else { '-' }, hop.next_hop))
        };
        out.into_iter().filter_map(word).collect()
    }

    #[test]
    fn a_route_for_multicast_is_the_kernel_s_own_affair() {
        let (mut mirror, mut out) = (mirror(), VecDeque::new());
        let route = KernelRoute { prefix: "224.0.0.0/4".parse().unwrap(), ..route(0, LAN, "10.1.0.9") };
        mirror.apply(Fact::Route { route, change: Change::Put }, &mut out);
        assert_eq!(words(out), [""; 0]);
    }

    #[test]
    fn beside_a_route_by_a_tunnel_the_best_by_a_port_is_told_without_a_gap() {
        let mut mirror = mirror();
        let said = |mirror: &mut Mirror, change, route| {
            let mut out = VecDeque::new();
            mirror.apply(Fact::Route { route, change }, &mut out);
            words(out)
        };
        assert_eq!(said(&mut mirror, Change::Put, route(100, LAN, "10.1.0.9")), ["+10.1.0.9"]);
        let by_tunnel = || route(20, TUNNEL, "10.255.0.1");
        assert_eq!(said(&mut mirror, Change::Put, by_tunnel()), ["u+10.1.0.9", "+10.255.0.1"]);
        assert_eq!(said(&mut mirror, Change::Put, route(50, LAN, "10.1.0.8")), ["u+10.1.0.8"]);
        assert_eq!(said(&mut mirror, Change::Remove, by_tunnel()), ["+10.1.0.8", "u-10.1.0.8"]);
        said(&mut mirror, Change::Put, by_tunnel());
        let mut out = VecDeque::new();
        let fact = |route| Fact::Route { route, change: Change::Append };
        mirror.resync(vec![fact(by_tunnel()), fact(route(50, LAN, "10.1.0.8"))], &mut out);
        assert_eq!(words(std::mem::take(&mut out)), ["u+10.1.0.8", "+10.255.0.1"]);
        mirror.resync(vec![fact(route(50, LAN, "10.1.0.8"))], &mut out);
        assert_eq!(words(std::mem::take(&mut out)), ["+10.1.0.8", "u-10.1.0.8"]);
        said(&mut mirror, Change::Put, by_tunnel());
        mirror.resync_routes(Vec::new(), &mut out);
        assert_eq!(words(out), ["-10.255.0.1", "u-10.1.0.8"]);
    }

    #[test]
    fn a_route_that_moves_to_another_link_is_gone() {
        let mut mirror = mirror();
        said(&mut mirror, Change::Put, route(20, TUNNEL, "10.255.0.2"));
        assert_eq!(said(&mut mirror, Change::Replace, route(20, 2, "172.16.0.1")), ["gone"]);
        assert!(said(&mut mirror, Change::Remove, route(20, 2, "172.16.0.1")).is_empty());
    }

    #[test]
    fn our_own_routes_and_those_of_other_links_are_not_told() {
        let mut mirror = mirror();
        let ours = KernelRoute { ours: true, ..route(0, TUNNEL, "10.255.0.2") };
        assert!(said(&mut mirror, Change::Put, ours).is_empty());
        assert!(said(&mut mirror, Change::Put, route(0, 2, "172.16.0.1")).is_empty());
    }

    /// What is said of the one prefix that these routes are to: `best`, or `best / by ports`.
    fn best(mirror: &Mirror) -> String {
        let path = |path: &Path| match path {
            Path::Via(_) | Path::Balanced(_) => {
                path.hops().iter().map(|hop| hop.next_hop.to_string()).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        assert!(mirror.known.routes.len() <= 1);
        let Some(ways) = mirror.known.routes.values().next() else { return String::new() };
        let said = Said::of(ways);
        let underlay = said.underlay.as_ref().map(|underlay| format!(" / {}", path(underlay)));
        path(&said.best.unwrap()) + &underlay.unwrap_or_default()
    }

    fn ways(metric: u32, prefix: &str, hops: &[(u32, &str)]) -> KernelRoute {
        let hops = hops.iter().map(|(index, gateway)| (*index, Some(gateway.parse().unwrap())));
        KernelRoute {
            prefix: prefix.parse().unwrap(),
            way: Way::Out(hops.collect()),
            ..route(metric, 0, "::")
        }
    }

    #[test]
    fn of_several_ways_those_by_twins_are_told() {
        let mut mirror = mirror();
        let mut apply = |change, route| {
            mirror.apply(Fact::Route { route, change }, &mut VecDeque::new());
            best(&mirror)
        };
        const PREFIX: &str = "192.168.7.0/24";
        let three = ways(20, PREFIX, &[(2, "172.16.0.1"), (TUNNEL, "10.255.0.2"), (LAN, "10.1.0.9")]);
        assert_eq!(apply(Change::Put, three.clone()), "10.1.0.9 10.255.0.2 / 10.1.0.9");
        let discard = KernelRoute { way: Way::Blackhole, ..route(10, 0, "::") };
        assert_eq!(apply(Change::Put, discard.clone()), "Blackhole");
        assert_eq!(apply(Change::Remove, discard), "10.1.0.9 10.255.0.2 / 10.1.0.9");
        assert_eq!(apply(Change::Remove, three), "");
        let attached = KernelRoute { way: Way::Out(vec![(LAN, None)]), ..route(20, 0, "::") };
        assert_eq!(apply(Change::Put, attached), "Attached(\"lan0\")");
    }

    #[test]
    fn next_hops_of_ipv6_come_and_go_one_by_one() {
        let mut mirror = mirror();
        let mut apply = |change, metric, hops: &[(u32, &str)]| {
            let route = ways(metric, "2001:db8::/32", hops);
            mirror.apply(Fact::Route { route, change }, &mut VecDeque::new());
            best(&mirror)
        };
        let (a, b, c) = ((LAN, "fe80::a"), (LAN, "fe80::b"), (LAN, "fe80::c"));
        assert_eq!(apply(Change::Put, 1024, &[a]), "fe80::a");
        // Each message of a new one names all.
        assert_eq!(apply(Change::Append, 1024, &[b, a]), "fe80::a fe80::b");
        assert_eq!(apply(Change::Put, 1024, &[c, a, b]), "fe80::a fe80::b fe80::c");
        assert_eq!(apply(Change::Put, 1024, &[a]), "fe80::a fe80::b fe80::c", "older than what is known");
        assert_eq!(apply(Change::Put, 100, &[(TUNNEL, "fe80::d")]), "fe80::d / fe80::a fe80::b fe80::c");
        assert_eq!(apply(Change::Remove, 1024, &[a]), "fe80::d / fe80::b fe80::c");
        assert_eq!(apply(Change::Remove, 100, &[(TUNNEL, "fe80::d")]), "fe80::b fe80::c");
        assert_eq!(apply(Change::Replace, 1024, &[a, b]), "fe80::a fe80::b");
        assert_eq!(apply(Change::Replace, 1024, &[(2, "fe80::1")]), "");
        assert_eq!(apply(Change::Put, 1024, &[a, b]), "fe80::a fe80::b");
        assert_eq!(apply(Change::Remove, 1024, &[a, b]), "");
    }

    #[test]
    fn among_ipv6_routes_of_one_metric_the_preferred_is_told() {
        let mut mirror = mirror();
        let mut out = VecDeque::new();
        for (reluctance, gateway) in [(1, "fe80::a"), (0, "fe80::b"), (2, "fe80::c")] {
            let way = Way::Out(vec![(LAN, Some(gateway.parse().unwrap()))]);
            let route = KernelRoute { reluctance, way, ..ways(1024, "::/0", &[]) };
            mirror.apply(Fact::Route { route, change: Change::Append }, &mut out);
        }
        assert_eq!(best(&mirror), "fe80::b");
        mirror.remove("lan0".parse().unwrap(), &mut out);
        assert_eq!(best(&mirror), "");
    }

    #[test]
    fn of_a_route_by_several_twins_the_others_stay_when_one_goes() {
        let mut mirror = mirror();
        let mut out = VecDeque::new();
        let route = ways(20, "192.168.7.0/24", &[(TUNNEL, "10.255.0.2"), (LAN, "10.1.0.9")]);
        mirror.apply(Fact::Route { route, change: Change::Put }, &mut out);
        mirror.remove("tunnel0".parse().unwrap(), &mut out);
        assert_eq!(best(&mirror), "10.1.0.9");
    }

    #[test]
    fn routes_of_another_table_are_other_routes() {
        let (mut mirror, mut out) = (mirror(), VecDeque::new());
        let put = || Fact::Route { route: route(20, LAN, "10.1.0.9"), change: Change::Put };
        mirror.apply(put(), &mut out);
        mirror.set_table(TableId(7), &mut out);
        mirror.apply(put(), &mut out);
        mirror.set_table(TableId(7), &mut out);
        let told = out.iter().map(|notice| match notice {
            Notice::Route { route, present } => (route.table.0, *present),
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [(0, true), (0, false), (7, true)]);
    }

    #[test]
    fn a_resync_tells_what_is_gone_and_then_all_that_is_there() {
        let mut mirror = mirror();
        let mut out = VecDeque::new();
        let address = |text: &str, index| Fact::Address {
            index,
            address: text.parse().unwrap(),
            ours: false,
            present: true,
        };
        mirror.apply(address("10.1.0.1/24", LAN), &mut out);
        mirror.apply(address("10.255.0.1/24", TUNNEL), &mut out);
        said(&mut mirror, Change::Put, route(20, TUNNEL, "10.255.0.2"));
        out.clear();
        mirror.resync(vec![address("10.1.0.1/24", LAN), address("10.2.0.1/24", LAN)], &mut out);
        let told: Vec<_> = out
            .iter()
            .map(|notice| match notice {
                Notice::Address { address, present, .. } => format!("{address} {present}"),
                Notice::Route { route, present } => format!("{} {present}", route.prefix),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            ["192.168.7.0/24 false", "10.255.0.1/24 false", "10.1.0.1/24 true", "10.2.0.1/24 true"]
        );
    }

    #[test]
    fn a_removed_twin_takes_all_with_it_and_the_next_best_route_is_told() {
        let mut mirror = mirror();
        let mut out = VecDeque::new();
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let address = "10.1.0.9".parse().unwrap();
        let resolved = Life::Resolved { mac, certainty: Certainty::Fresh };
        mirror.apply(Fact::Neighbour { index: LAN, address, life: resolved, ours: false }, &mut out);
        mirror.apply(Fact::Neighbour { index: TUNNEL, address, life: resolved, ours: false }, &mut out);
        assert_eq!(out.len(), 1, "a tunnel has no neighbours: {out:?}");
        said(&mut mirror, Change::Put, route(20, LAN, "10.1.0.9"));
        said(&mut mirror, Change::Put, route(110, TUNNEL, "10.255.0.2"));
        out.clear();
        mirror.remove("lan0".parse().unwrap(), &mut out);
        let hop = Hop { interface: "lan0".parse().unwrap(), next_hop: address };
        assert_eq!(out.pop_front(), Some(Notice::Neighbour { hop, mac: None }));
        assert!(
            matches!(out.pop_front(), Some(Notice::Route { route: Route { path: Path::Via(hop), .. }, present: true })
                if hop.next_hop.to_string() == "10.255.0.2")
        );
        assert!(out.is_empty());
    }

    #[test]
    fn a_failure_is_told_to_who_waits_for_it_and_a_known_neighbour_once() {
        let mut mirror = mirror();
        let mut out = VecDeque::new();
        let mut live = |life| {
            out.clear();
            let address = "10.1.0.9".parse().unwrap();
            mirror.apply(Fact::Neighbour { index: LAN, address, life, ours: true }, &mut out);
            out.iter()
                .map(|notice| matches!(notice, Notice::Neighbour { mac: Some(_), .. }))
                .collect::<Vec<_>>()
        };
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        assert!(live(Life::Asking).is_empty());
        assert_eq!(live(Life::Failed), [false]);
        assert_eq!(live(Life::Resolved { mac, certainty: Certainty::Fresh }), [true]);
        assert!(live(Life::Resolved { mac, certainty: Certainty::Stale }).is_empty());
        assert_eq!(live(Life::Resolved { mac: Mac([2; 6]), certainty: Certainty::Stale }), [true]);
        assert_eq!(live(Life::Gone), [false]);
        assert!(live(Life::Gone).is_empty());
    }
}
