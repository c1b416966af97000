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
    /// In the kernel's order: by metric, then as put and appended. The first is the one that is told.
    routes: BTreeMap<Prefix, Vec<(u32, Path)>>,
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
            ways.retain(|(_, path)| interface(path) != Some(name));
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
        self.known.tell_all(out);
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
        let path = self.path(&route.way).filter(|path| !route.ours && interface(path).is_some());
        let ways = self.known.routes.entry(route.prefix).or_default();
        let before = ways.first().copied();
        // What a dump told may be notified after it.
        let again = |way: &(u32, Path)| Some(*way) == path.map(|path| (route.metric, path));
        if change == Change::Append && ways.iter().any(again) {
            return;
        }
        let first = ways.partition_point(|(metric, _)| *metric < route.metric);
        if change == Change::Replace && ways.get(first).is_some_and(|(metric, _)| *metric == route.metric) {
            ways.remove(first);
        }
        if change != Change::Append {
            ways.retain(|way| !again(way));
        }
        let end = ways.partition_point(|(metric, _)| *metric <= route.metric);
        match (change, path) {
            (Change::Put | Change::Replace, Some(path)) => ways.insert(first, (route.metric, path)),
            (Change::Append, Some(path)) => ways.insert(end, (route.metric, path)),
            (Change::Remove, _) | (_, None) => {}
        }
        let after = ways.first().copied();
        if after.is_none() {
            self.known.routes.remove(&route.prefix);
        }
        match (before, after) {
            (Some((_, old)), None) => out.push_back(notice(route.prefix, old, false)),
            (before, Some((_, new))) if before.map(|(_, old)| old) != Some(new) => {
                out.push_back(notice(route.prefix, new, true));
            }
            _ => {}
        }
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
        for (prefix, ways) in &self.routes {
            if let Some((_, path)) = ways.first().filter(|_| !now.routes.contains_key(prefix)) {
                out.push_back(notice(*prefix, *path, false));
            }
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
            let old = before.routes.get(prefix).and_then(|ways| ways.first()).map(|(_, path)| path);
            if let Some((_, path)) = ways.first().filter(|(_, path)| old != Some(path)) {
                out.push_back(notice(*prefix, *path, true));
            }
        }
    }

    fn tell_all(&self, out: &mut VecDeque<Notice>) {
        out.extend(self.addresses.iter().map(|(interface, address)| Notice::Address {
            interface: *interface,
            address: *address,
            present: true,
        }));
        out.extend(
            self.neighbours.iter().map(|(hop, (mac, _))| Notice::Neighbour { hop: *hop, mac: Some(*mac) }),
        );
        self.tell_routes_changed_since(&Self::default(), out);
    }
}

fn notice(prefix: Prefix, path: Path, present: bool) -> Notice {
    Notice::Route { route: Route { table: TableId(0), prefix, path, expires_in: None }, present }
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
