//! What follows from the configuration and from the addresses of its interfaces, as a whole and without a memory: the
//! conductor compares it with what was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use model::config::{self, Config, Mode};
use model::program::{Binding, Hop, Interface, Object, Path, Replica, Tunnel, TunnelMode};
use model::{InterfaceAddr, InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

use crate::kernel::{Kind, TwinSpec};
use crate::rib::{Link, Origin, Target};

/// What follows.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// The interfaces that routes may use: ports, and the tunnels that have a source.
    pub(crate) links: BTreeMap<InterfaceName, Link>,
    /// Interfaces, tunnels, and the one binding and replica of each point-to-point tunnel. Without links.
    pub(crate) objects: Vec<Object>,
    /// Routes of addresses, and static ones.
    pub(crate) routes: BTreeMap<(Origin, TableId, Prefix), Target>,
    /// The FIB table in which each tunnel's NBMA addresses are looked up.
    pub(crate) underlays: BTreeMap<InterfaceName, TableId>,
    /// Own NBMA address of each tunnel.
    pub(crate) sources: BTreeMap<InterfaceName, Option<NbmaAddr>>,
    /// Tunnels that run NHRP.
    pub(crate) nhrp: Vec<nhrp::Tunnel>,
    /// Twins of tunnels, and of the ports whose Ethernet address is known.
    pub(crate) twins: Vec<TwinSpec>,
}

/// Addresses that the kernel says each twin has, in the order in which they came.
pub(crate) type Seen = BTreeMap<InterfaceName, Vec<InterfaceAddr>>;

impl Topology {
    pub(crate) fn new(config: &Config, seen: &Seen, macs: &BTreeMap<String, Mac>) -> Self {
        let mut topology = Self::default();
        for interface in &config.interfaces {
            topology.interface(config, interface, seen, macs);
        }
        for tunnel in &config.tunnels {
            topology.tunnel(config, tunnel, seen);
        }
        for route in &config.routes {
            let target = match (route.next_hop, route.interface) {
                (Some(next_hop), Some(interface)) => Target::Path(Path::Via(Hop { interface, next_hop })),
                (Some(next_hop), None) => Target::NextHop(next_hop),
                (None, Some(interface)) => Target::Path(Path::Attached(interface)),
                (None, None) => continue,
            };
            topology.routes.insert((Origin::Static, route.table, route.prefix), target);
        }
        topology
    }

    fn interface(
        &mut self,
        config: &Config,
        interface: &config::Interface,
        seen: &Seen,
        macs: &BTreeMap<String, Mac>,
    ) {
        let name = interface.name;
        let port = port_of(interface);
        let is_source = config.tunnels.iter().any(|t| t.source == name);
        let forwarding = interface.forwarding.unwrap_or(!is_source);
        self.links.insert(name, Link::Port { is_open: forwarding });
        self.addresses(name, interface.table, &interface.addresses, seen);
        self.objects.push(Object::Interface(Interface {
            name,
            port: port.to_owned(),
            mtu: interface.mtu,
            table: interface.table,
            forwarding,
        }));
        // Without its port's Ethernet address the twin would answer ARP with a wrong one.
        if let Some(&mac) = macs.get(port) {
            self.twins.push(TwinSpec {
                name,
                kind: Kind::Tap { mac },
                mtu: interface.mtu,
                addresses: interface.addresses.clone(),
                configured: !interface.addresses.is_empty(),
            });
        }
    }

    fn tunnel(&mut self, config: &Config, tunnel: &config::Tunnel, seen: &Seen) {
        let name = tunnel.name;
        let source = nbma_of(config, tunnel.source, seen);
        let (mode, link) = match (tunnel.mode, tunnel.destination) {
            (Mode::Gre, Some(destination)) => (TunnelMode::PointToPoint { destination }, Link::PointToPoint),
            _ => (TunnelMode::Multipoint, Link::Multipoint),
        };
        self.sources.insert(name, source);
        self.underlays.insert(name, tunnel.underlay_table);
        self.twins.push(TwinSpec {
            name,
            kind: Kind::Tun,
            mtu: tunnel.mtu,
            addresses: tunnel.addresses.clone(),
            configured: true,
        });
        if let Some(nhrp) = &tunnel.nhrp {
            self.nhrp.push(nhrp::Tunnel {
                name,
                mode,
                nbma: source,
                addresses: tunnel.addresses.clone(),
                mtu: tunnel.mtu,
                table: tunnel.table,
                nhrp: nhrp.clone(),
            });
        }
        let Some(source) = source else { return };
        self.links.insert(name, link);
        self.addresses(name, tunnel.table, &tunnel.addresses, seen);
        self.objects.push(Object::Tunnel(Tunnel {
            name,
            mode,
            source,
            source_interface: tunnel.source,
            key: tunnel.key,
            mtu: tunnel.mtu,
            ttl: tunnel.ttl,
            network_id: tunnel.nhrp.as_ref().map_or(0, |n| n.network_id),
            redirect: tunnel.nhrp.as_ref().is_some_and(|n| n.redirect),
            table: tunnel.table,
            underlay_table: tunnel.underlay_table,
        }));
        if let TunnelMode::PointToPoint { destination: nbma } = mode {
            self.objects.push(Object::Binding(Binding {
                tunnel: name,
                next_hop: THE_PEER,
                nbma,
                link: None,
                expires_in: None,
            }));
            self.objects.push(Object::Replica(Replica { tunnel: name, nbma, link: None }));
        }
    }

    /// Routes of an interface's addresses: those of the configuration, and those that its twin got from elsewhere.
    fn addresses(&mut self, name: InterfaceName, table: TableId, configured: &[InterfaceAddr], seen: &Seen) {
        let learnt = learnt(name, configured, seen);
        let all = configured.iter().map(|&a| (Origin::Address, a));
        for (origin, address) in all.chain(learnt.map(|a| (Origin::LearntAddress, a))) {
            let mut own = BTreeSet::from([Prefix::host(address.addr())]);
            own.extend(broadcast(address).map(Prefix::host));
            for prefix in own {
                self.routes.insert((origin, table, prefix), Target::Path(Path::Receive(name)));
            }
            // Where two interfaces have addresses of one prefix, the first has the prefix.
            self.routes
                .entry((origin, table, address.prefix()))
                .or_insert(Target::Path(Path::Attached(name)));
        }
    }
}

/// The next hop of a point-to-point tunnel's one binding.
pub(crate) const THE_PEER: ProtocolAddr = ProtocolAddr(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// The data plane's port of an interface.
pub(crate) fn port_of(interface: &config::Interface) -> &str {
    interface.port.as_deref().unwrap_or(interface.name.as_str())
}

/// The NBMA address of tunnels whose source is this interface: the first one configured, else the first one learnt.
fn nbma_of(config: &Config, source: InterfaceName, seen: &Seen) -> Option<NbmaAddr> {
    let interface = config.interfaces.iter().find(|i| i.name == source)?;
    let configured = interface.addresses.first().copied();
    configured.or_else(|| learnt(source, &interface.addresses, seen).next()).map(|a| NbmaAddr(a.addr()))
}

/// Addresses that a twin got from elsewhere. IPv6 link-local ones are the kernel's own affair: every twin has one, all in
/// the same prefix.
fn learnt(
    name: InterfaceName,
    configured: &[InterfaceAddr],
    seen: &Seen,
) -> impl Iterator<Item = InterfaceAddr> {
    let is_link_local = |a: &InterfaceAddr| matches!(a.addr(), IpAddr::V6(a) if a.is_unicast_link_local());
    let seen = seen.get(&name).into_iter().flatten();
    seen.filter(move |a| !configured.contains(a) && !is_link_local(a)).copied()
}

/// The subnet broadcast address (RFC 922): received, never forwarded (RFC 2644). Prefixes of 31 bits have none (RFC 3021).
fn broadcast(address: InterfaceAddr) -> Option<IpAddr> {
    match address.addr() {
        IpAddr::V4(addr) if address.length() < 31 => {
            Some(Ipv4Addr::from(u32::from(addr) | (u32::MAX >> address.length())).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str, seen: &[(&str, &str)]) -> Vec<String> {
        let config: Config = Config::parse(text).unwrap();
        let mut all = Seen::new();
        for (name, address) in seen {
            all.entry(name.parse().unwrap()).or_default().push(address.parse().unwrap());
        }
        let topology = Topology::new(&config, &all, &BTreeMap::new());
        let shown = topology.routes.iter().map(|((o, _, p), t)| format!("{o:?} {p} {t:?}"));
        shown.collect()
    }

    #[test]
    fn an_address_is_a_prefix_itself_and_a_broadcast_address() {
        assert_eq!(
            routes(
                "[[interfaces]]\nname = \"lan0\"\naddresses = [\"192.168.2.1/24\", \"10.9.9.9/32\"]\n",
                &[]
            ),
            [
                "Address 10.9.9.9/32 Path(Receive(\"lan0\"))",
                "Address 192.168.2.0/24 Path(Attached(\"lan0\"))",
                "Address 192.168.2.1/32 Path(Receive(\"lan0\"))",
                "Address 192.168.2.255/32 Path(Receive(\"lan0\"))",
            ]
        );
        assert_eq!(
            routes("[[interfaces]]\nname = \"wan0\"\n", &[("wan0", "192.0.2.2/31"), ("wan0", "fe80::1/64")]),
            [
                "LearntAddress 192.0.2.2/31 Path(Attached(\"wan0\"))",
                "LearntAddress 192.0.2.2/32 Path(Receive(\"wan0\"))",
            ]
        );
    }

    #[test]
    fn a_tunnel_without_a_source_address_is_not_programmed_yet() {
        let text = "[[interfaces]]\nname = \"wan0\"\n[[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\n\
            source = \"wan0\"\naddresses = [\"10.0.0.2/24\"]\n[tunnels.nhrp]\nnetwork_id = 1\n";
        let config: Config = Config::parse(text).unwrap();
        let topology = Topology::new(&config, &Seen::new(), &BTreeMap::new());
        assert_eq!(topology.objects.len(), 1);
        assert_eq!(topology.nhrp[0].nbma, None);
        assert_eq!(topology.twins.len(), 1, "its twin is there, the port's is not: no Ethernet address yet");

        let seen = Seen::from([("wan0".parse().unwrap(), vec!["192.0.2.7/24".parse().unwrap()])]);
        let macs = BTreeMap::from([("wan0".to_owned(), Mac([2, 0, 0, 0, 0, 1]))]);
        let topology = Topology::new(&config, &seen, &macs);
        assert!(
            topology
                .objects
                .iter()
                .any(|o| matches!(o, Object::Tunnel(t) if t.source.to_string() == "192.0.2.7"))
        );
        assert_eq!(topology.twins.len(), 2);
        // The source of a tunnel does not forward unless told to.
        assert!(topology.objects.iter().any(|o| matches!(o, Object::Interface(i) if !i.forwarding)));
    }
}
