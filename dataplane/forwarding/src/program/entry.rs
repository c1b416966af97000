//! Adjacencies as workers read them: neighbours, midchains stacked on them, and balanced ones.

use std::net::IpAddr;
use std::sync::Arc;

use model::program::{Hop, Key, Object, OuterDf, TcpMss, Tunnel, TunnelMode};
use model::{NbmaAddr, ProtocolAddr};
use wire::{ethernet, gre, ipv4, ipv6};
use zerocopy::IntoBytes;

use super::build::{Change, is_point_to_point};
use super::slots::{PEER, Target};
use super::{Program, Way};
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

    /// What is sent to an NBMA address by a tunnel, and by which link.
    pub(super) fn ways_to(&self, tunnel: InterfaceId, nbma: IpAddr) -> impl Iterator<Item = &Way> {
        let first = (tunnel, nbma, Target::NoRoute, Target::NoRoute);
        self.ways.range(first..).take_while(move |way| (way.0, way.1) == (tunnel, nbma))
    }

    /// Notes by which link a tunnel's adjacency sends to its NBMA address: the control plane's packets to that address go the
    /// same way. Whether that changed anything.
    pub(super) fn note_way(&mut self, target: Target, link: Option<Target>) -> bool {
        let Some(tunnel) = target.interface() else { return false };
        let way = link.and_then(|link| Some((tunnel, self.outer_of(target)?, target, link)));
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
            let id = self.ways_to(tunnel, nbma).next().and_then(|(.., link)| self.slots.id(*link));
            let nbmas = Arc::make_mut(&mut self.nbmas);
            match id {
                Some(id) => nbmas.insert((tunnel, nbma, 0), id),
                None => nbmas.remove(&(tunnel, nbma, 0)),
            };
        }
        true
    }

    /// The neighbour that a midchain is stacked on.
    fn link(&self, target: Target) -> Option<Target> {
        let (_, link) = self.outer(target)?;
        let hop = link?;
        self.port_interface(hop.interface)?;
        self.hop(hop)
    }

    /// Where a tunnel's adjacency sends, and by which link.
    fn outer(&self, target: Target) -> Option<(IpAddr, Option<Hop>)> {
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
                let nbma = match self.tunnel(name)?.mode {
                    TunnelMode::Multipoint => binding.nbma,
                    TunnelMode::PointToPoint { destination } => destination,
                };
                Some((nbma.0, binding.link))
            }
            Target::Replica(id, nbma) => {
                let key = Key::Replica(self.interface_name(id)?, NbmaAddr(nbma), 0);
                let Object::Replica(replica) = self.objects.winner(key)? else { return None };
                Some((nbma, replica.link))
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
            Target::Replica(id, _) => self.midchain(target, link).unwrap_or_else(|| Adjacency {
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

    /// A next hop or receiver on a tunnel, if it has a link: a midchain, or what waits for its link to be resolved.
    fn midchain(&self, target: Target, link: Option<Target>) -> Option<Adjacency> {
        let id = target.interface()?;
        let name = self.interface_name(id)?;
        let tunnel = self.tunnel(name)?;
        let (nbma, _) = self.outer(target)?;
        let below = self.adjacencies.at(self.slots.id(link?)?);
        let wants = permit::TRANSIT | permit::TUNNEL;
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
        let outer = write_outer(&mut entry, start, tunnel, nbma)?;
        let form =
            start + outer + gre::write(entry.rewrite.get_mut(start + outer..)?, gre::IPV4, tunnel.key)?;
        entry.form = form as u8;
        if start == LINK_LEN && nbma.is_ipv4() {
            entry.flags |= flag::PLAIN;
        }
        // With its outer headers it is never more than the link takes, and the path as far as it is known.
        let overhead = (form - start) as u16;
        let path = match self.objects.winner(Key::PathMtu(name, NbmaAddr(nbma))) {
            Some(Object::PathMtu(path)) => path.mtu.max(LEAST_PATH_MTU[usize::from(nbma.is_ipv6())]),
            _ => u16::MAX,
        };
        entry.mtu = tunnel.mtu.min(below.mtu.min(path).saturating_sub(overhead));
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

/// Writes the outer header of a midchain behind its link's; its length. What depends on the packet is zero and filled in then:
/// lengths, identification, marks.
fn write_outer(entry: &mut Adjacency, start: usize, tunnel: &Tunnel, nbma: IpAddr) -> Option<usize> {
    match (tunnel.source.0, nbma) {
        (IpAddr::V4(source), IpAddr::V4(nbma)) => {
            let mut header = ipv4::Header::new(source, nbma, ipv4::GRE, tunnel.ttl, 0)?;
            match tunnel.outer_df {
                OuterDf::Copy => entry.flags |= flag::DF_COPY,
                OuterDf::Set => {
                    entry.flags |= flag::DF_SET;
                    header = header.with_flags(ipv4::DONT_FRAGMENT);
                }
                OuterDf::Clear => {}
            }
            let outer = entry.rewrite.get_mut(start..start + ipv4::LEN)?;
            outer.copy_from_slice(header.as_bytes());
            outer[2..4].fill(0);
            outer[10..12].fill(0);
            entry.checksum = !wire::checksum::checksum(outer);
            Some(ipv4::LEN)
        }
        (IpAddr::V6(source), IpAddr::V6(nbma)) => {
            entry.flags |= flag::OUTER6;
            let header = ipv6::Header::new(source, nbma, ipv4::GRE, tunnel.ttl, 0)?;
            entry.rewrite.get_mut(start..start + ipv6::LEN)?.copy_from_slice(header.as_bytes());
            Some(ipv6::LEN)
        }
        _ => None,
    }
}
