//! Interfaces, tunnels and what is decapsulated, as workers read them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::NbmaAddr;
use model::program::{Key, Object, Tunnel, TunnelMode};

use super::build::is_point_to_point;
use super::entry::segment;
use super::slots::PEER;
use super::{Port, Program};
use crate::adjacency::AdjacencyId;
use crate::ports::{InterfaceId, PortId};
use crate::tables::{
    Decap, DecapKey, DecapTable, DecapTunnel, Interface, Interfaces, PortInterface, Role, TunnelInterface,
};

impl Program {
    /// All tunnels, in order of name.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let all = self.objects.all().map(|(_, claim)| &claim.object);
        all.skip_while(|object| matches!(object, Object::Interface(_))).map_while(|object| match object {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        })
    }

    pub(super) fn port(&self, name: &str) -> Option<(PortId, &Port)> {
        let at = self.ports.iter().position(|port| port.name == name)?;
        Some((PortId(at as u16), &self.ports[at]))
    }

    pub(super) fn build_interfaces(&mut self) {
        let mut interfaces = Interfaces {
            all: vec![None; self.names.len()],
            by_port: vec![None; self.ports.len()],
            by_vlan: BTreeMap::new(),
        };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (name, id) in &self.ids {
            let role = if let Some(interface) = self.port_interface(*name) {
                let Some((port, Port { mac, .. })) = self.port(&interface.port) else { continue };
                match interface.vlan {
                    None => interfaces.by_port[usize::from(port.0)] = Some(*id),
                    Some(vlan) => {
                        interfaces.by_vlan.insert((port, vlan.into()), *id);
                    }
                }
                Role::Port(PortInterface {
                    port,
                    mac: mac.0,
                    forwarding: interface.forwarding,
                    vlan: interface.vlan.map_or(0, u16::from),
                })
            } else if let Some(tunnel) = self.tunnel(*name) {
                let underlay = self.places.get(&tunnel.underlay_table).copied().unwrap_or(0);
                let domain = self.domain_of(tunnel);
                let belongs = DecapTunnel {
                    domain,
                    interface: *id,
                    redirects: if tunnel.redirect { self.network(tunnel) } else { 0 },
                    table: self.place_of(*name),
                    mss: segment(tunnel.tcp_mss, tunnel.mtu),
                };
                let key = |local, remote| DecapKey { local, remote, key: tunnel.key, table: underlay };
                let key6 = |local, remote| DecapKey { local, remote, key: tunnel.key, table: underlay };
                match (tunnel.source.0, destination(tunnel)) {
                    (IpAddr::V4(local), Some(IpAddr::V4(remote))) => {
                        v4.push((key(local.to_bits(), remote.to_bits()), belongs));
                    }
                    (IpAddr::V6(local), Some(IpAddr::V6(remote))) => {
                        v6.push((key6(local.to_bits(), remote.to_bits()), belongs));
                    }
                    (IpAddr::V4(local), _) => v4.push((key(local.to_bits(), 0), belongs)),
                    (IpAddr::V6(local), _) => v6.push((key6(local.to_bits(), 0), belongs)),
                }
                Role::Tunnel(TunnelInterface {
                    source: tunnel.source.0,
                    underlay,
                    key: tunnel.key,
                    ttl: tunnel.ttl,
                    fallback: self.pinned_by(Key::Fallback(*name)),
                    point_to_point: is_point_to_point(tunnel),
                    replicas: self.replicas(tunnel),
                    domain,
                })
            } else {
                continue;
            };
            let table = self.place_of(*name);
            let (address, address6) = self.own_addresses(*id, table);
            interfaces.all[usize::from(id.0)] = Some(Interface { address, address6, table, role });
        }
        self.interfaces = Arc::new(interfaces);
        self.decap = Arc::new(Decap { v4: DecapTable::new(&v4), v6: DecapTable::new(&v6) });
    }

    /// The first own address of each family; of IPv6 one that reaches farther than the link before one that does not.
    fn own_addresses(&self, id: InterfaceId, table: u16) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        let all = || self.own.range((id, table, PEER)..);
        let own = || all().take_while(|(on, of, _)| (*on, *of) == (id, table)).map(|(.., addr)| *addr);
        let v4 = own().find_map(|addr| if let IpAddr::V4(addr) = addr { Some(addr) } else { None });
        let v6 = || own().filter_map(|addr| if let IpAddr::V6(addr) = addr { Some(addr) } else { None });
        (v4, v6().find(|addr| !addr.is_unicast_link_local()).or_else(|| v6().next()))
    }

    /// Who gets what is sent to a group on a tunnel; on a point-to-point one the peer, whatever is programmed.
    fn replicas(&self, tunnel: &Tunnel) -> Arc<[AdjacencyId]> {
        if is_point_to_point(tunnel) {
            return self.pinned_by(Key::Tunnel(tunnel.name)).into_iter().collect();
        }
        let all = self.replica_addresses(tunnel).into_iter();
        let keys = all.map(|(nbma, port)| Key::Replica(tunnel.name, nbma, port));
        keys.filter_map(|key| self.pinned_by(key)).collect()
    }

    /// The receivers of multicast that are programmed for a tunnel, with their UDP ports, each once.
    pub(super) fn replica_addresses(&self, tunnel: &Tunnel) -> Vec<(NbmaAddr, u16)> {
        // No address stands before this one.
        let first = Key::Replica(tunnel.name, NbmaAddr(PEER), 0);
        let addresses = self.objects.from(first).map_while(|(key, _)| match key {
            Key::Replica(name, nbma, port) if name == tunnel.name => Some((nbma, port)),
            _ => None,
        });
        let mut addresses: Vec<_> = addresses.collect();
        addresses.dedup();
        addresses
    }
}

fn destination(tunnel: &Tunnel) -> Option<IpAddr> {
    match tunnel.mode {
        TunnelMode::Multipoint => None,
        TunnelMode::PointToPoint { destination } => Some(destination.0),
    }
}
