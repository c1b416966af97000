//! What is programmed and what it carried, for people: plain structs that the process turns into `model::state`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use model::program::{Hop, Key, Object, Owner, Path, Route, Tunnel};
use model::report::Report;
use model::sa::{SaKey, Spi};
use model::state::program::Programmed;
use model::time::Instant;
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};
use wire::esp;
use zerocopy::IntoBytes;

use super::Program;
use super::family::Family;
use super::routes::is_stale;
use super::slots::Target;
use crate::adjacency::{Adjacency, AdjacencyId, Kind};
use crate::counters::Traffic;
use crate::fib::FibPrefix;
use crate::ports::InterfaceId;
use crate::tables::Role;
use crate::{DropReason, Flow, Node, NodeCount};

/// A route as an owner programmed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteShow {
    /// Its table.
    pub table: TableId,
    /// Destination.
    pub prefix: Prefix,
    /// Who says so.
    pub owner: Owner,
    /// Where to.
    pub path: Path,
    /// Whether it is the one that forwards, of those to this prefix.
    pub best: bool,
    /// Whether its owner has not said it again since it last began to.
    pub stale: bool,
    /// What is left of its time.
    pub expires_in: Option<Duration>,
}

/// An entry of the FIB: of a route, of a resolved next hop, or built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FibShow {
    /// Its table.
    pub table: TableId,
    /// Destination.
    pub prefix: Prefix,
    /// Where it leads.
    pub adjacency: AdjacencyId,
    /// What that does.
    pub kind: Kind,
    /// The next hop, if it leads to one.
    pub via: Option<Hop>,
    /// The interface, if it leads to one.
    pub interface: Option<InterfaceName>,
}

/// An adjacency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjacencyShow {
    /// Its place and life.
    pub id: AdjacencyId,
    /// What it does.
    pub kind: Kind,
    /// Its interface, if it is on one.
    pub interface: Option<InterfaceName>,
    /// Its next hop, if it is one; unspecified on a point-to-point tunnel.
    pub next_hop: Option<IpAddr>,
    /// Where its tunnel sends its packets.
    pub nbma: Option<IpAddr>,
    /// The neighbour that it is stacked on.
    pub link: Option<Hop>,
    /// Among which it spreads flows.
    pub members: Vec<AdjacencyId>,
    /// Whether it is a receiver of multicast.
    pub replica: bool,
    /// Largest packet that it takes, in bytes, if it takes any; of a tunnel the largest inner packet, as its own MTU, its link's
    /// and the path to its NBMA address are.
    pub mtu: Option<u16>,
    /// What stands in front of a packet that leaves by it; where it is sealed with the SPI of the lowest worker's SA, and zeros for
    /// sequence number and IV.
    pub rewrite: Vec<u8>,
    /// The SAs that seal what leaves by it, in order of worker.
    pub spis: Vec<Spi>,
    /// What it carried.
    pub traffic: Traffic,
}

/// A port's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceShow {
    /// Its number.
    pub id: InterfaceId,
    /// As programmed.
    pub interface: model::program::Interface,
    /// The port's Ethernet address.
    pub mac: model::Mac,
    /// Its first own address.
    pub address: Option<Ipv4Addr>,
    /// Its first own IPv6 address, one that reaches farther than the link if it has one.
    pub address6: Option<Ipv6Addr>,
}

/// A tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelShow {
    /// Its number.
    pub id: InterfaceId,
    /// As programmed.
    pub tunnel: Tunnel,
    /// Its first own address.
    pub address: Option<Ipv4Addr>,
    /// Its first own IPv6 address, one that reaches farther than the link if it has one.
    pub address6: Option<Ipv6Addr>,
    /// Its NHS.
    pub fallback: Option<ProtocolAddr>,
    /// Receivers of multicast.
    pub replicas: Vec<NbmaAddr>,
}

/// A binding or neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHopShow {
    /// Who says so.
    pub owner: Owner,
    /// What is left of its time; `None`: forever.
    pub expires_in: Option<Duration>,
    /// Whether its owner has not said it again since it last began to.
    pub stale: bool,
}

/// What an entry puts in front, and of what it seals also the part that is made for each packet.
fn with_gap(entry: &Adjacency, spi: Option<Spi>) -> Vec<u8> {
    let mut rewrite = entry.rewrite[..usize::from(entry.form)].to_vec();
    if let (Some(gap), Some(spi)) = (entry.gap(), spi) {
        let esp = esp::Header::new(spi.value(), 0, 0);
        rewrite.splice(gap..gap, esp.as_bytes().iter().copied());
    }
    rewrite
}

/// An object that is no route, with what is left of its time now, and without keys.
fn with_remaining(object: &Object, left: Option<Duration>) -> Object {
    let mut object = object.clone();
    match &mut object {
        Object::Binding(binding) => binding.expires_in = left,
        Object::PathMtu(path) => path.expires_in = left,
        Object::InboundSa(sa) => sa.key = SaKey::blank(sa.key.suite()),
        Object::OutboundSa(sa) => sa.key = SaKey::blank(sa.key.suite()),
        _ => {}
    }
    object
}

impl Program {
    /// Every object with its owner, routes behind the others. What goes of itself has the time that was left when it was put;
    /// of routes see [`Program::routes`].
    pub fn objects(&self) -> impl Iterator<Item = (Owner, Object)> {
        let routes = self.route_shows(None).map(|route| {
            let RouteShow { table, prefix, path, .. } = route;
            (route.owner, Object::Route(Route { table, prefix, path, expires_in: None }))
        });
        let claims = self.objects.all().map(|(owner, claim)| (owner, claim.object.clone()));
        claims.chain(routes)
    }

    /// Every owner's routes, in order of table, family and prefix.
    pub fn routes(&self, now: Instant) -> impl Iterator<Item = RouteShow> {
        self.route_shows(Some(now))
    }

    fn route_shows(&self, now: Option<Instant>) -> impl Iterator<Item = RouteShow> {
        let v4 = self.route_shows_of::<u32>(now);
        v4.chain(self.route_shows_of::<u128>(now))
    }

    fn route_shows_of<A: Family>(&self, now: Option<Instant>) -> impl Iterator<Item = RouteShow> {
        let routes = A::routes(&self.objects);
        routes.all().filter_map(move |(place, prefix, owner, claim)| {
            let due = now.and_then(|now| Some(routes.due(place, prefix, owner)?.since(now)));
            Some(RouteShow {
                table: self.tables.get(usize::from(place))?.id,
                prefix: A::prefix_of(prefix),
                owner,
                path: self.objects.paths.path(claim.path)?.clone(),
                best: routes.best_owner(&self.objects.paths, place, prefix) == Some(owner),
                stale: is_stale(self.objects.marks(), owner, claim),
                expires_in: due,
            })
        })
    }

    /// The FIB, in order of table, family and prefix; link-local prefixes stand there once for each tunnel.
    pub fn fib(&self) -> impl Iterator<Item = FibShow> {
        self.tables.iter().flat_map(|table| {
            let v4 = table.v4.fib.routes().map(|(prefix, word)| (u32::prefix_of(prefix), word));
            let v6 = table.v6.fib.routes().map(|(prefix, word)| {
                let plain = prefix.first().link().map(|(_, addr)| FibPrefix::of(addr, prefix.length()));
                (u128::prefix_of(plain.unwrap_or(prefix)), word)
            });
            v4.chain(v6).filter_map(|(prefix, word)| {
                let adjacency = AdjacencyId::from_word(word.value());
                let target = self.slots.target(adjacency)?;
                Some(FibShow {
                    table: table.id,
                    prefix,
                    adjacency,
                    kind: self.adjacencies.slot(adjacency).kind,
                    via: self.as_hop(target),
                    interface: target.interface().and_then(|id| self.interface_name(id)),
                })
            })
        })
    }

    /// Where the FIB of a table leads a packet to an address; `None` if there is no such table, or no route in it.
    #[must_use]
    pub fn lookup(&self, table: TableId, addr: IpAddr) -> Option<AdjacencyId> {
        let word = self.fibs.get(usize::from(*self.places.get(&table)?))?.lookup(addr);
        (word != 0).then(|| AdjacencyId::from_word(word))
    }

    /// All adjacencies, in order of place.
    pub fn adjacencies(&self) -> impl Iterator<Item = AdjacencyShow> {
        self.slots.iter().map(|(target, id)| {
            let entry = self.adjacencies.slot(id);
            let sends = matches!(entry.kind, Kind::Neighbour | Kind::Midchain);
            let spis = self.spis(entry.protection);
            AdjacencyShow {
                id,
                kind: entry.kind,
                interface: target.interface().and_then(|id| self.interface_name(id)),
                next_hop: match target {
                    Target::Hop(_, addr) => Some(addr),
                    _ => None,
                },
                nbma: self.outer_of(target),
                link: self.link_of(id).and_then(|link| self.as_hop(link)),
                members: self.member_ids(target),
                replica: matches!(target, Target::Replica(..)),
                mtu: sends.then_some(entry.mtu),
                rewrite: if sends { with_gap(entry, spis.first().copied()) } else { Vec::new() },
                traffic: self.traffic(id),
                spis,
            }
        })
    }

    /// Ports' interfaces, in order of name.
    pub fn interfaces(&self) -> impl Iterator<Item = InterfaceShow> {
        self.ids.iter().filter_map(|(name, id)| {
            let Object::Interface(interface) = self.objects.winner(Key::Interface(*name))? else {
                return None;
            };
            let shown = self.interfaces.all.get(usize::from(id.0))?.as_ref()?;
            let (_, port) = self.port(&interface.port)?;
            Some(InterfaceShow {
                id: *id,
                interface: interface.clone(),
                mac: port.mac,
                address: shown.address,
                address6: shown.address6,
            })
        })
    }

    /// Tunnels, in order of name.
    pub fn tunnel_shows(&self) -> impl Iterator<Item = TunnelShow> {
        self.tunnels().filter_map(|tunnel| {
            let id = *self.ids.get(&tunnel.name)?;
            let interface = self.interfaces.all.get(usize::from(id.0))?.as_ref()?;
            let Role::Tunnel(_) = interface.role else { return None };
            let fallback = match self.objects.winner(Key::Fallback(tunnel.name)) {
                Some(Object::Fallback(fallback)) => Some(fallback.next_hop),
                _ => None,
            };
            Some(TunnelShow {
                id,
                tunnel: tunnel.clone(),
                address: interface.address,
                address6: interface.address6,
                fallback,
                replicas: self.replica_addresses(tunnel).into_iter().map(|(nbma, _)| nbma).collect(),
            })
        })
    }

    /// Everything that is programmed, routes behind the others. Keys are blank.
    pub fn programmed(&self, now: Instant) -> impl Iterator<Item = Programmed> {
        let routes = self.routes(now).map(|route| {
            let RouteShow { table, prefix, owner, path, stale, expires_in, .. } = route;
            Programmed { owner, object: Object::Route(Route { table, prefix, path, expires_in }), stale }
        });
        let claims = self.objects.all().map(move |(owner, claim)| Programmed {
            owner,
            object: with_remaining(&claim.object, claim.expires.map(|due| due.since(now))),
            stale: self.objects.is_stale(owner, claim),
        });
        claims.chain(routes)
    }

    /// On whose word there is a binding or neighbour for a next hop; of several owners the one that counts.
    #[must_use]
    pub fn next_hop(&self, hop: Hop, now: Instant) -> Option<NextHopShow> {
        let keys = [Key::Binding(hop.interface, ProtocolAddr(hop.next_hop)), Key::Neighbour(hop)];
        let (owner, claim) = keys.iter().find_map(|key| self.objects.claims(*key).next())?;
        let expires_in = claim.expires.map(|due| due.since(now));
        Some(NextHopShow { owner, expires_in, stale: self.objects.is_stale(owner, claim) })
    }

    /// A node's counters, of all workers together.
    #[must_use]
    pub fn node(&self, node: Node) -> NodeCount {
        self.workers.iter().map(|worker| worker.node(node)).fold(NodeCount::default(), |sum, one| NodeCount {
            packets: sum.packets + one.packets,
            calls: sum.calls + one.calls,
            cycles: sum.cycles + one.cycles,
        })
    }

    /// Packets that were dropped for a reason, by all workers together.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|worker| worker.dropped(reason)).sum()
    }

    /// Packets in and out, of each worker.
    pub fn flows(&self) -> impl Iterator<Item = Flow> {
        self.workers.iter().map(|worker| worker.flow())
    }

    /// Next hops that carried packets since the last call: to be asked about once a second. A midchain's packets count for
    /// the neighbour that it is stacked on as well.
    pub fn used(&mut self) -> Vec<Report> {
        let mut tunnels = std::collections::BTreeMap::<InterfaceName, Vec<ProtocolAddr>>::new();
        let mut neighbours = std::collections::BTreeSet::new();
        for index in 0..self.slots.len() {
            let Some((target @ (Target::Hop(..) | Target::Replica(..)), id)) = self.slots.at(index) else {
                continue;
            };
            let packets = self.traffic(id).packets;
            if !self.slots.note_asked(id, packets) {
                continue;
            }
            if let Some(link) = self.link_of(id).and_then(|link| self.as_hop(link)) {
                neighbours.insert(link);
            }
            let Some(hop) = self.as_hop(target) else { continue };
            if self.objects.winner(Key::Tunnel(hop.interface)).is_some() {
                tunnels.entry(hop.interface).or_default().push(ProtocolAddr(hop.next_hop));
            } else {
                neighbours.insert(hop);
            }
        }
        let used = tunnels.into_iter().map(|(tunnel, next_hops)| Report::Used { tunnel, next_hops });
        let mut reports: Vec<_> = used.collect();
        if !neighbours.is_empty() {
            reports.push(Report::UsedNeighbours(neighbours.into_iter().collect()));
        }
        reports
    }

    /// What an adjacency carried in its life.
    fn traffic(&self, id: AdjacencyId) -> Traffic {
        self.carried(id) - self.slots.before(id)
    }

    /// What a place carried, whoever was in it.
    pub(super) fn carried(&self, id: AdjacencyId) -> Traffic {
        let all = self.workers.iter().map(|worker| worker.adjacency(id.index()));
        all.fold(Traffic::default(), |sum, one| sum + one)
    }

    /// A next hop in the control plane's words.
    fn as_hop(&self, target: Target) -> Option<Hop> {
        let Target::Hop(id, addr) = target else { return None };
        Some(Hop { interface: self.interface_name(id)?, next_hop: addr })
    }
}
