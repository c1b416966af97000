//! What the control plane shows of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::config::{self, MapMulticast, Mode};
use model::program::{Hop, Key, Object, Op, Owner, Path, Route};
use model::state::counters::Counter;
use model::state::dmvpn::{Dmvpn, Peer, PeerAttributes, PeerState, Tunnel};
use model::state::nhrp::{Entry, EntryType};
use model::state::nhs::{Server, ServerState};
use model::state::routes::RibRoute;
use model::state::{Cache, Counters, NhrpTraffic, Routes, Servers, State, What, count};
use model::time::Instant;
use model::{InterfaceName, NbmaAddr, ProtocolAddr};

use super::{Conductor, Dataplane, event, topology};
use crate::rib::{Origin, Shown};

impl Conductor {
    /// What is known of this here; of what only the data plane knows, nothing.
    #[must_use]
    pub fn show(&self, now: Instant, what: What) -> State {
        match what {
            What::Dmvpn => State::Dmvpn(self.show_dmvpn(now)),
            What::Nhrp => {
                let entries = self.engine.entries(now).into_iter().chain(self.engine.shortcuts(now));
                let entries = entries.chain(self.engine.heard(now));
                State::Nhrp(Cache(entries.collect()))
            }
            What::Nhs => State::Nhs(Servers(self.engine.servers(now))),
            What::Routes => State::Routes(self.show_routes(now)),
            What::Counters => State::Counters(self.show_counters()),
            What::NhrpTraffic => {
                let nhrp::Traffic { messages, errors, rejects } = self.engine.traffic();
                State::NhrpTraffic(NhrpTraffic { messages, errors, rejects })
            }
            What::Sa => State::Sa(self.show_sas()),
            What::Ike => State::Ike(self.show_ike(now)),
            other => State::empty(other),
        }
    }

    fn show_routes(&self, now: Instant) -> Routes {
        let route = |Shown { table, prefix, origin, path, best }: Shown| {
            // A next hop that does not resolve is no route.
            let mut route = Route { table, prefix, path: path?, expires_in: None };
            if matches!(origin, Origin::Shortcut | Origin::Peer)
                && let Op::Put(_, Object::Route(told)) =
                    self.desired.step(now, Owner::Nhrp, Key::Route(table, prefix))
            {
                route.expires_in = told.expires_in;
            }
            Some(RibRoute { route, owner: origin.owner(), best })
        };
        Routes(self.rib.shown().into_iter().filter_map(route).collect())
    }

    fn show_counters(&self) -> Counters {
        let counter =
            |name: &str, sentence: String, count| Counter { name: name.to_owned(), sentence, count };
        let nhrp::Traffic { messages, rejects, .. } = self.engine.traffic();
        let mut counters = Counters { messages, rejects, ..Counters::default() };
        let of_ike = self.ike.rejects().filter(|(_, count)| *count > 0);
        counters.others.extend(of_ike.map(|(reject, count)| {
            let sentence = format!("IKE messages that were not accepted: {}", reject.sentence());
            counter(&format!("ike-{}", reject.name()), sentence, count)
        }));
        for (reason, &count) in &self.counted.punts_lost {
            let sentence = format!("packets ({reason:?}) for which the data plane's punt queue had no room");
            counters.others.push(counter("punts-lost", sentence, count));
        }
        let unsent = "NHRP packets for which there was no data plane".to_owned();
        counters.others.push(counter("unsent", unsent, self.counted.unsent));
        let unprotected = "NHRP packets that were dropped because no SA came in time".to_owned();
        counters.others.push(counter("unprotected", unprotected, self.ike.unprotected()));
        let unknown =
            "NHRP packets by SAs of a former life, of whom nobody knows what they may register".to_owned();
        counters.others.push(counter("unknown-peer", unknown, self.counted.unknown));
        let paths = "path MTUs that were not taken because too many are known".to_owned();
        counters.others.push(counter("paths-without-room", paths, self.counted.paths_without_room));
        let objects = "objects in the desired program".to_owned();
        counters.others.push(counter("desired-objects", objects, self.desired.len() as u64));
        for (&(owner, key), refused) in &self.refused {
            let step = event::step(&self.desired.step(Instant::default(), owner, key));
            counters.others.push(counter("refused", format!("{step}: {}", refused.reason), 1));
        }
        counters
    }

    fn show_dmvpn(&self, now: Instant) -> Dmvpn {
        let mut entries: BTreeMap<InterfaceName, Vec<Entry>> = BTreeMap::new();
        for entry in self.engine.entries(now).into_iter().chain(self.engine.shortcuts(now)) {
            entries.entry(entry.tunnel).or_default().push(entry);
        }
        let servers = self.engine.servers(now);
        let tunnels = self.config.tunnels.iter().filter_map(|tunnel| {
            let nhrp = tunnel.nhrp.as_ref()?;
            let servers = servers.iter().filter(|s| s.tunnel == tunnel.name).collect();
            let entries = entries.remove(&tunnel.name).unwrap_or_default();
            Some(self.show_tunnel(now, tunnel, nhrp, entries, servers))
        });
        Dmvpn(tunnels.collect())
    }

    fn show_tunnel(
        &self,
        now: Instant,
        tunnel: &config::Tunnel,
        nhrp: &config::Nhrp,
        entries: Vec<Entry>,
        servers: Vec<&Server>,
    ) -> Tunnel {
        let name = tunnel.name;
        let of = |owner| self.desired.of(owner).map(|(_, object)| object);
        let shortcuts: BTreeSet<ProtocolAddr> =
            of(Owner::Nhrp).filter_map(|o| shortcut_of(o, name)).collect();
        let replicas = of(Owner::Nhrp).chain(of(Owner::Config)).filter_map(|o| match o {
            Object::Replica(r) if r.tunnel == name => Some(r.nbma),
            _ => None,
        });
        let fallback = of(Owner::Nhrp).find_map(|o| match o {
            Object::Fallback(f) if f.tunnel == name => Some(f.next_hop),
            _ => None,
        });
        let mut groups: BTreeMap<(ProtocolAddr, Option<NbmaAddr>), Vec<Entry>> = BTreeMap::new();
        for server in &servers {
            groups.extend(server.protocol.map(|protocol| ((protocol, server.nbma), Vec::new())));
        }
        for entry in entries {
            groups.entry((entry.next_hop, entry.nbma)).or_default().push(entry);
        }
        let peers = groups.into_iter().map(|((protocol, nbma), entries)| {
            let server = servers.iter().find(|s| s.protocol == Some(protocol)).copied();
            let mut peer = self.show_peer(now, tunnel, (protocol, nbma), &entries, server);
            peer.attributes.shortcut = shortcuts.contains(&protocol);
            peer
        });
        Tunnel {
            name,
            hub: tunnel.mode == Mode::GreMultipoint
                && (nhrp.nhs.is_empty() || nhrp.map_multicast.contains(&MapMulticast::Dynamic)),
            spoke: !nhrp.nhs.is_empty(),
            network_id: nhrp.network_id,
            addresses: tunnel.addresses.clone(),
            source_interface: tunnel.source,
            source: self.topology.sources.get(&name).copied().flatten(),
            key: tunnel.key,
            mtu: self.config.tunnel_mtu(tunnel),
            fallback,
            replicas: replicas.collect(),
            peers: peers.collect(),
        }
    }

    fn show_peer(
        &self,
        now: Instant,
        tunnel: &config::Tunnel,
        (protocol, nbma): (ProtocolAddr, Option<NbmaAddr>),
        entries: &[Entry],
        server: Option<&Server>,
    ) -> Peer {
        let is = |wanted: &[EntryType]| entries.iter().any(|e| wanted.contains(&e.entry_type));
        let attributes = PeerAttributes {
            statically: server.is_some() || is(&[EntryType::Static, EntryType::Nhs]),
            dynamic: is(&[EntryType::Dynamic, EntryType::Cached]),
            incomplete: is(&[EntryType::Incomplete, EntryType::Negative]),
            local: is(&[EntryType::Local]),
            nated: entries.iter().any(|e| e.claimed_nbma.is_some()),
            shortcut: false,
        };
        let link = nbma.and_then(|nbma| self.rib.underlay(tunnel.underlay_table, nbma));
        let wrong = if attributes.local {
            None
        } else {
            self.missing(tunnel, (protocol, nbma), link, server, attributes)
        };
        let (state, reason) = wrong.map_or((PeerState::Up, None), |(state, why)| (state, Some(why)));
        let own = entries.iter().find(|e| e.prefix.is_host() && e.prefix.addr() == protocol.0);
        let known = own.or(entries.first()).map(|e| e.created);
        let known = server.map(|s| s.since).or(known).unwrap_or_default();
        let expires_in =
            own.map_or_else(|| entries.iter().filter_map(|e| e.expires_in).max(), |entry| entry.expires_in);
        Peer {
            entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            nbma,
            protocol,
            state,
            since: self.since(now, tunnel, nbma, link, known),
            attributes,
            nhs: server.is_some(),
            reason,
            expires_in,
            link,
            prefixes: entries.iter().map(|e| e.prefix).collect(),
        }
    }

    /// The first thing that is missing, seen from below.
    fn missing(
        &self,
        tunnel: &config::Tunnel,
        (protocol, nbma): (ProtocolAddr, Option<NbmaAddr>),
        link: Option<Hop>,
        server: Option<&Server>,
        attributes: PeerAttributes,
    ) -> Option<(PeerState, String)> {
        if let Some(why) = self.interface_fault(tunnel) {
            return Some((PeerState::Interface, why));
        }
        if let Some(nbma) = nbma {
            let Some(hop) = link else {
                return Some((PeerState::Route, format!("no route to {nbma}")));
            };
            if self.desired.object(Owner::Netlink, Key::Neighbour(hop)).is_none() {
                let why = format!("neighbour {} on {} does not answer", hop.next_hop, hop.interface);
                return Some((PeerState::Route, why));
            }
        }
        let entry = self.desired.object(Owner::Nhrp, Key::Binding(tunnel.name, protocol));
        let port =
            entry.map_or(0, |object| if let Object::Binding(binding) = object { binding.port } else { 0 });
        if let Some(why) = nbma.and_then(|nbma| self.unprotected_peer(tunnel.name, nbma, port)) {
            return Some((PeerState::Ike, why));
        }
        match server {
            Some(server) if server.state != ServerState::Responding => {
                let why = match &server.refusal {
                    Some(refusal) => format!("it refused our registration: {refusal}"),
                    None => {
                        let requests =
                            count(server.requests, "registration request", "registration requests");
                        format!("it did not answer {requests}")
                    }
                };
                Some((PeerState::Nhrp, why))
            }
            None if attributes.incomplete || nbma.is_none() => {
                Some((PeerState::Nhrp, "its NBMA address is not resolved".to_owned()))
            }
            _ => None,
        }
    }

    fn interface_fault(&self, tunnel: &config::Tunnel) -> Option<String> {
        if self.topology.sources.get(&tunnel.name).copied().flatten().is_none() {
            return Some(format!("source interface {} has no address", tunnel.source));
        }
        if self.dataplane == Dataplane::Away {
            return Some("the data plane is away".to_owned());
        }
        let interface = self.config.interfaces.iter().find(|i| i.name == tunnel.source)?;
        let port = topology::port_of(interface);
        match self.ports.get(port).and_then(|p| p.link) {
            Some(link) if link.up => None,
            Some(_) => Some(format!("port {port} has no link")),
            None => Some(format!("the data plane has no port {port}")),
        }
    }

    /// How long nothing that the state rests on has changed.
    fn since(
        &self,
        now: Instant,
        tunnel: &config::Tunnel,
        nbma: Option<NbmaAddr>,
        link: Option<Hop>,
        known: Duration,
    ) -> Duration {
        let route = nbma.and_then(|nbma| self.changed.routes.get(&(tunnel.underlay_table, nbma)));
        let neighbour = link.and_then(|hop| self.changed.neighbours.get(&hop));
        let interface = self.changed.interfaces.get(&tunnel.source);
        let last = [route, neighbour, interface].into_iter().flatten().copied().max();
        last.map_or(known, |at| known.min(now.since(at)))
    }
}

/// The next hop of a shortcut on this tunnel.
fn shortcut_of(object: &Object, tunnel: InterfaceName) -> Option<ProtocolAddr> {
    match object {
        Object::Route(Route { path: Path::Via(hop), .. }) if hop.interface == tunnel => {
            Some(ProtocolAddr(hop.next_hop))
        }
        _ => None,
    }
}
