//! What was told of the twins. Pure: facts in, notices out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use model::program::{Hop, Path, Route};
use model::{InterfaceAddr, InterfaceName, Mac, Prefix, TableId};

use super::fact::{Certainty, Change, Fact, KernelRoute, Life, Way};
use super::{Kind, Notice};

#[derive(Debug, Default)]
pub(super) struct Mirror {
    /// By index of the link.
    twins: BTreeMap<u32, (InterfaceName, Kind)>,
    known: Known,
}

#[derive(Debug, Default, Clone)]
struct Known {
    addresses: BTreeSet<(InterfaceName, InterfaceAddr)>,
    neighbours: HashMap<Hop, (Mac, Certainty)>,
    /// In the kernel's order: by metric, then as put and appended. The first is the one that is told, and the first by a port.
    routes: BTreeMap<Prefix, Vec<Leading>>,
}

/// A route to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leading {
    metric: u32,
    path: Path,
    by_port: bool,
}

/// What is told of a prefix.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Said {
    best: Option<Path>,
    /// By a port, if the best is not.
    underlay: Option<Path>,
}

impl Said {
    fn of(ways: &[Leading]) -> Self {
        let best = ways.first();
        let underlay = ways.iter().find(|way| way.by_port).filter(|_| best.is_some_and(|way| !way.by_port));
        Self { best: best.map(|way| way.path), underlay: underlay.map(|way| way.path) }
    }

    /// Tells what is different from before. In between there is always a way by a port, if there is one before and after.
    fn tell(self, prefix: Prefix, before: Self, out: &mut VecDeque<Notice>) {
        let route = |path| Route { table: TableId(0), prefix, path, expires_in: None };
        if let Some(path) = self.underlay.filter(|_| self.underlay != before.underlay) {
            out.push_back(Notice::Underlay { route: route(path), present: true });
        }
        match (before.best, self.best) {
            (Some(old), None) => out.push_back(Notice::Route { route: route(old), present: false }),
            (old, Some(new)) if old != Some(new) => {
                out.push_back(Notice::Route { route: route(new), present: true });
            }
            _ => {}
        }
        if let Some(path) = before.underlay.filter(|_| self.underlay.is_none()) {
            out.push_back(Notice::Underlay { route: route(path), present: false });
        }
    }
}

impl Mirror {
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
            ways.retain(|way| interface(&way.path) != Some(name));
        }
        rest.routes.retain(|_, ways| !ways.is_empty());
        let before = std::mem::replace(&mut self.known, rest);
        before.tell_missing_from(&self.known, out);
        self.known.tell_routes_changed_since(&before, out);
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
        before.tell_missing_from(&self.known, out);
        self.known.tell_all(&before, out);
    }

    /// Takes in all routes that there are: tells what changed.
    pub(super) fn resync_routes(&mut self, facts: Vec<Fact>, out: &mut VecDeque<Notice>) {
        let routes = std::mem::take(&mut self.known.routes);
        self.take_in(facts);
        let before = Known { routes, ..Known::default() };
        before.tell_missing_from(&self.known, out);
        self.known.tell_routes_changed_since(&before, out);
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
        let path = self.path(&route.way).filter(|path| !route.ours && interface(path).is_some());
        let is_port = |name| matches!(self.link(name), Some((_, Kind::Tap { .. })));
        let way = path.map(|path| Leading {
            metric: route.metric,
            path,
            by_port: interface(&path).is_some_and(is_port),
        });
        let ways = self.known.routes.entry(route.prefix).or_default();
        let before = Said::of(ways);
        // What a dump told may be notified after it.
        let again = |other: &Leading| Some(*other) == way;
        if change == Change::Append && ways.iter().any(again) {
            return;
        }
        let first = ways.partition_point(|way| way.metric < route.metric);
        if change == Change::Replace && ways.get(first).is_some_and(|way| way.metric == route.metric) {
            ways.remove(first);
        }
        if change != Change::Append {
            ways.retain(|way| !again(way));
        }
        let end = ways.partition_point(|way| way.metric <= route.metric);
        match (change, way) {
            (Change::Put | Change::Replace, Some(way)) => ways.insert(first, way),
            (Change::Append, Some(way)) => ways.insert(end, way),
            (Change::Remove, _) | (_, None) => {}
        }
        let after = Said::of(ways);
        if ways.is_empty() {
            self.known.routes.remove(&route.prefix);
        }
        after.tell(route.prefix, before, out);
    }

    /// Where a route leads; `None` if not by a twin.
    pub(super) fn path(&self, way: &Way) -> Option<Path> {
        match way {
            Way::Out(hops) => hops.iter().find_map(|(index, gateway)| {
                let (interface, _) = self.twin(*index)?;
                Some(match gateway {
                    Some(next_hop) => Path::Via(Hop { interface, next_hop: *next_hop }),
                    None => Path::Attached(interface),
                })
            }),
            Way::Unreachable => Some(Path::Unreachable),
            Way::Blackhole => Some(Path::Blackhole),
        }
    }
}

impl Known {
    /// Tells what is not in `now`.
    fn tell_missing_from(&self, now: &Self, out: &mut VecDeque<Notice>) {
        for (prefix, ways) in self.routes.iter().filter(|(prefix, _)| !now.routes.contains_key(prefix)) {
            Said::default().tell(*prefix, Said::of(ways), out);
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

    fn tell_routes_changed_since(&self, before: &Self, out: &mut VecDeque<Notice>) {
        for (prefix, ways) in &self.routes {
            Said::of(ways).tell(*prefix, before.said(prefix), out);
        }
    }

    fn said(&self, prefix: &Prefix) -> Said {
        self.routes.get(prefix).map(|ways| Said::of(ways)).unwrap_or_default()
    }

    /// Tells all, and which routes by a port are no longer needed beside the best.
    fn tell_all(&self, before: &Self, out: &mut VecDeque<Notice>) {
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
            said.tell(*prefix, Said { best: None, underlay }, out);
        }
    }
}

/// The twin that a path leaves by.
fn interface(path: &Path) -> Option<InterfaceName> {
    match path {
        Path::Via(hop) => Some(hop.interface),
        Path::Attached(interface) | Path::Receive(interface) => Some(*interface),
        Path::Unreachable | Path::Blackhole => None,
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
        let blackhole = KernelRoute { way: Way::Blackhole, ..route(0, 2, "172.16.0.1") };
        assert!(said(&mut mirror, Change::Put, blackhole).is_empty());
    }

    #[test]
    fn of_several_ways_the_first_by_a_twin_is_told() {
        let mut mirror = mirror();
        let mut two = route(20, 2, "172.16.0.1");
        two.way = Way::Out(vec![
            (2, Some("172.16.0.1".parse().unwrap())),
            (TUNNEL, Some("10.255.0.2".parse().unwrap())),
        ]);
        assert_eq!(said(&mut mirror, Change::Put, two), ["10.255.0.2"]);
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
