//! Why packets to an address go where they go, as far as it is known here.

use std::net::IpAddr;

use model::program::{Binding, Fallback, Hop, Key, Neighbour, Object, Owner, Path, Route};
use model::state::explain::{Candidate, Explanation, Peer, Way};
use model::state::nhrp::EntryType;
use model::state::routes::RibRoute;
use model::time::Instant;
use model::{InterfaceName, Mac, NbmaAddr, ProtocolAddr, TableId};

use super::{Conductor, topology};
use crate::rib::{Link, Origin, Shown, Target};

impl Conductor {
    /// What competes for an address in a table, which route of it is taken, and what its next hops stand on. What the data plane has
    /// of that is not in it.
    #[must_use]
    pub fn explain(&self, now: Instant, table: TableId, address: IpAddr) -> Explanation {
        let holding = self.rib.holding(table, address);
        let chosen = holding.iter().position(|route| route.best);
        let candidates = holding.iter().enumerate();
        let routes = candidates.map(|(n, shown)| Candidate {
            prefix: shown.prefix,
            owner: shown.origin.owner(),
            origin: shown.origin.name().to_owned(),
            path: shown.path.clone(),
            chosen: chosen == Some(n),
            why: self.why(shown, chosen.map(|chosen| &holding[chosen])),
        });
        let routes = routes.collect();
        let path = chosen.and_then(|chosen| holding[chosen].path.as_ref());
        let hops = match path {
            Some(&Path::Attached(interface)) => vec![Hop { interface, next_hop: address }],
            Some(path) => path.hops().to_vec(),
            None => Vec::new(),
        };
        let hops = hops.into_iter().map(|hop| self.way(now, hop)).collect();
        Explanation { routes, hops, ..Explanation::nothing(table, address) }
    }

    /// Why a route is taken, or is not.
    fn why(&self, route: &Shown, chosen: Option<&Shown>) -> String {
        if route.path.is_none() {
            return self.why_unusable(route);
        }
        match chosen {
            _ if route.origin == Origin::Underlay => "for the packets of tunnels themselves only".to_owned(),
            Some(chosen) if chosen == route => match route.path {
                Some(Path::Receive(_)) => "it is an address of this box".to_owned(),
                _ => "the longest prefix with a route that can be used".to_owned(),
            },
            Some(chosen) if chosen.prefix == route.prefix => {
                format!("the route of origin {} goes first", chosen.origin.name())
            }
            _ => "a longer prefix has a route".to_owned(),
        }
    }

    fn why_unusable(&self, route: &Shown) -> String {
        match self.rib.route(route.origin, route.table, route.prefix) {
            Some(Target::NextHops(hops)) => {
                let hops: Vec<String> = hops.iter().map(|hop| hop.addr.to_string()).collect();
                format!("no route leads to {}", hops.join(", "))
            }
            Some(Target::Path(path)) => {
                let names: Vec<String> = path.interfaces().map(|name| name.to_string()).collect();
                format!("{} is not there", names.join(", "))
            }
            None => "it is gone".to_owned(),
        }
    }

    /// What a next hop stands on.
    fn way(&self, now: Instant, hop: Hop) -> Way {
        match self.rib.interfaces().get(&hop.interface) {
            Some(Link::Port { .. }) => {
                let mac = self.mac(hop);
                let why = match mac {
                    Some(_) => "a neighbour".to_owned(),
                    None => "a neighbour that is asked for when a packet needs it".to_owned(),
                };
                Way { hop, mac, peer: None, why }
            }
            Some(link @ (Link::Multipoint | Link::PointToPoint)) => {
                let next_hop = match link {
                    Link::PointToPoint => topology::THE_PEER,
                    _ => ProtocolAddr(hop.next_hop),
                };
                let peer = self.peer(now, hop.interface, next_hop);
                let why = why_peer(&peer);
                Way { hop, mac: None, peer: Some(peer), why }
            }
            None => Way { hop, mac: None, peer: None, why: "its interface is not there".to_owned() },
        }
    }

    fn mac(&self, hop: Hop) -> Option<Mac> {
        match self.desired.object(Owner::Netlink, Key::Neighbour(hop)) {
            Some(Object::Neighbour(Neighbour { mac, .. })) => Some(*mac),
            _ => None,
        }
    }

    fn peer(&self, now: Instant, tunnel: InterfaceName, next_hop: ProtocolAddr) -> Peer {
        let entries = self.engine.entries(now).into_iter();
        let entry = entries
            .filter(|entry| entry.tunnel == tunnel && entry.next_hop == next_hop)
            .find(|entry| entry.entry_type != EntryType::Local);
        let bound = [Owner::Nhrp, Owner::Config]
            .into_iter()
            .find_map(|owner| self.desired.object(owner, Key::Binding(tunnel, next_hop)));
        let nbma = match bound {
            Some(Object::Binding(Binding { nbma, .. })) => Some(*nbma),
            _ => None,
        };
        let fallback = match self.desired.object(Owner::Nhrp, Key::Fallback(tunnel)) {
            Some(Object::Fallback(Fallback { next_hop, .. })) => Some(*next_hop),
            _ => None,
        };
        let link = nbma.and_then(|nbma| self.rib.underlay(self.underlay_table(tunnel)?, nbma));
        Peer {
            entry,
            nbma,
            fallback: fallback.filter(|_| nbma.is_none()),
            underlay: nbma.and_then(|nbma| self.underlay_route(tunnel, nbma)),
            link,
            mac: link.and_then(|link| self.mac(link)),
            path_mtu: nbma.and_then(|nbma| self.path_mtus.of(tunnel, nbma)),
        }
    }

    fn underlay_route(&self, tunnel: InterfaceName, nbma: NbmaAddr) -> Option<RibRoute> {
        let table = self.underlay_table(tunnel)?;
        let (prefix, origin, path) = self.rib.underlay_route(table, nbma)?;
        let route = Route { table, prefix, path, expires_in: None };
        Some(RibRoute { route, owner: origin.owner(), best: origin != Origin::Underlay })
    }
}

/// The first thing that is missing, seen from above.
fn why_peer(peer: &Peer) -> String {
    match (peer.nbma, peer.fallback) {
        (None, Some(server)) => format!("a peer that is not resolved: by way of the server {server}"),
        (None, None) => "a peer that is not resolved: packets wait for NHRP".to_owned(),
        (Some(nbma), _) => match (peer.link, peer.mac) {
            (None, _) => format!("a peer at {nbma}, where no route by a port leads"),
            (Some(link), None) => {
                format!("a peer at {nbma}, by {} on {}, which is not resolved", link.next_hop, link.interface)
            }
            (Some(link), Some(_)) => format!("a peer at {nbma}, by {} on {}", link.next_hop, link.interface),
        },
    }
}
