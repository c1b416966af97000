//! Adjacencies as workers read them: neighbours, midchains stacked on them, and balanced ones.

use std::net::IpAddr;
use std::sync::Arc;

use model::program::{Hop, Key, Object, TcpMss, Tunnel, TunnelMode};
use model::sa::Encapsulation;
use model::{NbmaAddr, ProtocolAddr};
use wire::{ethernet, gre};
use zerocopy::IntoBytes;

use super::build::{Change, is_point_to_point};
use super::sas::Sealing;
use super::slots::{PEER, Target};
use super::{Program, outer};
use crate::adjacency::{Adjacency, AdjacencyId, Kind, LINK_LEN, NO_NETWORK, TAGGED_LEN, flag, permit};
use crate::ports::InterfaceId;

/// No path of IPv4 takes less (RFC 1191 §3 knows of links with less, RFC 791 of hosts that take no more), none of IPv6 (RFC 8200 §5).
const LEAST_PATH_MTU: [u16; 2] = [576, 1280];
/// Headers of a TCP segment over IPv4 without options.
const TCP_HEADERS: u16 = 40;

impl Program {
    /// Builds the adjacencies that changed, and those that are stacked on them; whether there were any.
    pub(super) fn build_adjacencies(&mut self, change: &mut Change) -> bool {
        let mut built = false;
        while let Some(target) = change.targets.pop_first() {
            let Some(id) = self.slots.id(target) else { continue };
            if let Target::Balanced(_) = target {
                self.note_members(target, change);
            }
            let (link, old) = (self.link(target), self.link_of(id));
            if link != old {
                let place = link.map(|link| self.refer(link, change));
                self.ways.stack(id, place);
                change.released.extend(old);
            }
            let to = self.outer(target).map(|(nbma, port, _)| (nbma, port));
            built |= self.note_way(target, id, to, link != old);
            let entry = Adjacency { epoch: id.epoch(), ..self.entry(target, link) };
            if *self.adjacencies.slot(id) != entry {
                built = true;
                self.adjacencies.store(id.index(), entry);
                let stacked = self.ways.stacked_on(id).filter_map(|place| self.slots.at(place));
                change.targets.extend(stacked.map(|(midchain, _)| midchain));
            }
        }
        built
    }

    /// Notes the members of a balanced adjacency. They live as long as it does, in the places that it names.
    fn note_members(&mut self, target: Target, change: &mut Change) {
        let Target::Balanced(path) = target else { return };
        let hops = self.objects.paths.path(path).map_or(&[][..], |path| path.hops());
        let members: Arc<[Target]> = hops.iter().filter_map(|hop| self.hop(*hop)).collect();
        if self.members.get(&target) == Some(&members) {
            return;
        }
        for member in &*members {
            self.refer(*member, change);
        }
        let old = self.members.insert(target, members);
        change.released.extend(old.iter().flat_map(|members| members.iter()));
    }

    /// What is sent to an NBMA address by a tunnel; to one UDP port or to any.
    pub(super) fn ways_to(
        &self,
        tunnel: InterfaceId,
        nbma: IpAddr,
        port: Option<u16>,
    ) -> impl Iterator<Item = Target> {
        let places = self.ways.all_to(tunnel, nbma, port);
        places.filter_map(|place| Some(self.slots.at(place)?.0))
    }

    /// The neighbour that the adjacency in a place was stacked on when it was built.
    pub(super) fn link_of(&self, id: AdjacencyId) -> Option<Target> {
        Some(self.slots.at(self.ways.link(id)?)?.0)
    }

    /// Notes where a tunnel's adjacency sends, and whether by another link than before: the control plane's packets to that NBMA address go the
    /// same way. Whether that changed anything for them.
    pub(super) fn note_way(
        &mut self,
        target: Target,
        id: AdjacencyId,
        to: Option<(IpAddr, u16)>,
        relinked: bool,
    ) -> bool {
        let Some(tunnel) = target.interface() else { return false };
        let old = self.ways.to(id);
        if old == to && !relinked {
            return false;
        }
        self.ways.send(id, tunnel, to);
        let mut changed = false;
        for (nbma, port) in old.into_iter().chain(to) {
            // Of several the first target's, whichever came first.
            let all = self.ways.all_to(tunnel, nbma, Some(port)).filter_map(|place| self.slots.at(place));
            let linked = all.filter_map(|(target, id)| Some((target, self.ways.link(id)?)));
            let id = linked.min().and_then(|(_, link)| Some(self.slots.at(link)?.1));
            if self.nbmas.get(&(tunnel, nbma, port)) == id {
                continue;
            }
            changed = true;
            let nbmas = Arc::make_mut(&mut self.nbmas);
            match id {
                Some(id) => nbmas.insert((tunnel, nbma, port), id),
                None => nbmas.remove(&(tunnel, nbma, port)),
            }
        }
        changed
    }

    /// The neighbour that a midchain is stacked on.
    fn link(&self, target: Target) -> Option<Target> {
        let (.., link) = self.outer(target)?;
        let hop = link?;
        self.port_interface(hop.interface)?;
        self.hop(hop)
    }

    /// Where a tunnel's adjacency sends: NBMA address and UDP port; and by which link.
    fn outer(&self, target: Target) -> Option<(IpAddr, u16, Option<Hop>)> {
        match target {
            Target::Hop(id, next_hop) => {
                let name = self.interface_name(id)?;
                let binding =
                    |next_hop| match self.objects.winner(Key::Binding(name, ProtocolAddr(next_hop)))? {
                        Object::Binding(binding) => Some(binding),
                        _ => None,
                    };
                // A peer's binding has the unspecified address, of whichever family its owner took.
                let binding = binding(next_hop).or_else(|| {
                    (next_hop == PEER).then(|| binding(std::net::Ipv6Addr::UNSPECIFIED.into()))?
                })?;
                let tunnel = self.tunnel(name)?;
                let nbma = match tunnel.mode {
                    TunnelMode::Multipoint => binding.nbma,
                    TunnelMode::PointToPoint { destination } => destination,
                };
                Some((nbma.0, port_of(tunnel, binding.port), binding.link))
            }
            Target::Replica(id, nbma, port) => {
                let name = self.interface_name(id)?;
                let key = Key::Replica(name, NbmaAddr(nbma), port);
                let Object::Replica(replica) = self.objects.winner(key)? else { return None };
                Some((nbma, port_of(self.tunnel(name)?, port), replica.link))
            }
            _ => None,
        }
    }

    /// Where a tunnel's adjacency sends.
    pub(super) fn outer_of(&self, target: Target) -> Option<IpAddr> {
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
            Target::Replica(id, ..) => self.midchain(target, link).unwrap_or_else(|| Adjacency {
                interface: id.0,
                ..Adjacency::of(Kind::Incomplete, self.wants(id))
            }),
            // What else a packet must be allowed its member says.
            Target::Balanced(_) => Adjacency::balanced(&self.member_ids(target), permit::TRANSIT),
        }
    }

    /// Places of the members of a balanced adjacency.
    pub(super) fn member_ids(&self, target: Target) -> Vec<AdjacencyId> {
        let members = self.members.get(&target);
        members.into_iter().flat_map(|all| all.iter()).filter_map(|member| self.slots.id(*member)).collect()
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
    fn neighbour(&self, id: InterfaceId, next_hop: IpAddr) -> Adjacency {
        let incomplete = Adjacency { interface: id.0, ..Adjacency::of(Kind::Incomplete, self.wants(id)) };
        let complete = || {
            let name = self.interface_name(id)?;
            let interface = self.port_interface(name)?;
            let key = Key::Neighbour(Hop { interface: name, next_hop });
            let Object::Neighbour(neighbour) = self.objects.winner(key)? else { return None };
            let (port_id, port) = self.port(&interface.port)?;
            let link = if interface.vlan.is_some() { TAGGED_LEN } else { LINK_LEN };
            let mut entry = Adjacency {
                kind: Kind::Neighbour,
                form: link as u8,
                link: link as u8,
                port: port_id.0,
                mtu: interface.mtu.min(port.mtu),
                ..incomplete
            };
            // The packet's own EtherType takes the place of this one.
            let header = match interface.vlan {
                None => ethernet::Header::new(neighbour.mac.0, port.mac.0, ethernet::IPV4),
                Some(vlan) => {
                    let tag = ethernet::Tag::new(0, vlan.into(), ethernet::IPV4);
                    entry.rewrite[LINK_LEN..TAGGED_LEN].copy_from_slice(tag.as_bytes());
                    ethernet::Header::new(neighbour.mac.0, port.mac.0, ethernet::VLAN)
                }
            };
            entry.rewrite[..LINK_LEN].copy_from_slice(header.as_bytes());
            Some(entry)
        };
        complete().unwrap_or_else(|| incomplete.with_next_hop(next_hop))
    }

    /// A next hop or receiver on a tunnel, if it has a link: a midchain, or what waits for its link to be resolved. On a protected tunnel
    /// it is nothing before there is an SA to the peer, whatever link it has.
    fn midchain(&self, target: Target, link: Option<Target>) -> Option<Adjacency> {
        let id = target.interface()?;
        let name = self.interface_name(id)?;
        let tunnel = self.tunnel(name)?;
        let (nbma, port, _) = self.outer(target)?;
        let wants = permit::TRANSIT | permit::TUNNEL;
        let sealing = match tunnel.protection {
            None => None,
            Some(_) => {
                let Some(sealing) = self.sealing(tunnel, nbma, port) else {
                    let unprotected =
                        Adjacency { interface: id.0, ..Adjacency::of(Kind::Unprotected, wants) };
                    let Target::Hop(_, next_hop) = target else { return Some(unprotected) };
                    return Some(unprotected.with_next_hop(next_hop));
                };
                Some(sealing)
            }
        };
        let below = self.adjacencies.at(self.slots.id(link?)?);
        let Some(below) = below.filter(|below| below.kind == Kind::Neighbour) else {
            let Some(Target::Hop(on, next_hop)) = link else { return None };
            let incomplete = Adjacency { interface: on.0, ..Adjacency::of(Kind::Incomplete, wants) };
            return Some(incomplete.with_next_hop(next_hop));
        };
        let mut entry = Adjacency {
            kind: Kind::Midchain,
            wants,
            link: below.link,
            port: below.port,
            interface: id.0,
            network: self.network(tunnel),
            ..Adjacency::FREE
        };
        if is_point_to_point(tunnel) {
            entry.flags |= flag::PEER;
        }
        let start = usize::from(below.link);
        entry.rewrite[..start].copy_from_slice(&below.rewrite[..start]);
        let outer = outer::write(&mut entry, start, tunnel, (nbma, port), sealing)?;
        let gre = gre::write(entry.rewrite.get_mut(start + outer..)?, gre::IPV4, tunnel.key)?;
        entry.form = (start + outer + gre) as u8;
        if start == LINK_LEN && nbma.is_ipv4() && sealing.is_none() {
            entry.flags |= flag::PLAIN;
        }
        // With its outer headers it is never more than the link takes, and the path as far as it is known.
        let path = match self.objects.winner(Key::PathMtu(name, NbmaAddr(nbma))) {
            Some(Object::PathMtu(path)) => path.mtu.max(LEAST_PATH_MTU[usize::from(nbma.is_ipv6())]),
            _ => u16::MAX,
        };
        let outermost = usize::from(below.mtu.min(path));
        let most = match sealing {
            None => outermost.saturating_sub(outer + gre),
            Some(Sealing { mode, .. }) => {
                let around = Encapsulation { mode, is_ipv6: nbma.is_ipv6(), is_udp: port != 0 };
                around.most(outermost).saturating_sub(gre)
            }
        };
        entry.mtu = tunnel.mtu.min(most as u16);
        entry.mss = segment(tunnel.tcp_mss, entry.mtu);
        Some(entry)
    }

    /// A number for a tunnel's network: one more than that of the first tunnel with this network id in this table.
    pub(super) fn network(&self, tunnel: &Tunnel) -> u16 {
        let same = |other: &&Tunnel| (other.network_id, other.table) == (tunnel.network_id, tunnel.table);
        let first = self.tunnels().find(same);
        first.and_then(|first| self.ids.get(&first.name)).map_or(NO_NETWORK, |id| id.0 + 1)
    }
}

/// Most that a TCP SYN over IPv4 may ask for where packets of `mtu` bytes pass; 0: whatever it wants.
pub(super) fn segment(policy: TcpMss, mtu: u16) -> u16 {
    match policy {
        TcpMss::Off => 0,
        TcpMss::Auto => mtu.saturating_sub(TCP_HEADERS).max(1),
        TcpMss::Most(most) => most,
    }
}

/// A peer's UDP port as far as the tunnel knows of one: what is not protected is not in UDP.
fn port_of(tunnel: &Tunnel, port: u16) -> u16 {
    if tunnel.protection.is_some() { port } else { 0 }
}
