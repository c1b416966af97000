//! What follows from the configuration and from the addresses of its interfaces, as a whole and without a memory: the
//! conductor compares it with what was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use model::config::{self, Config, Mode};
use model::program::{Binding, InboundSa, Interface, Key, Object, Path, Replica, Tunnel, TunnelMode};
use model::sa::{ProfileName, Protection, Spi};
use model::{InterfaceAddr, InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

use super::agreed::Agreed;
use super::lease::{Moved, Sealer};
use crate::kernel::{Kind, TwinSpec};
use crate::rib::{Link, NextHop, Origin, Target};

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
    /// SAs from us.
    pub(crate) sealers: Vec<Sealer>,
    /// Tunnels whose SAs IKE makes.
    pub(crate) domains: BTreeMap<InterfaceName, Domain>,
    /// UDP ports of the peers of protected tunnels, as static keys or IKE say them, 0 for native ESP, where there is but one of the address.
    ports: BTreeMap<InterfaceName, BTreeMap<NbmaAddr, u16>>,
    /// Twins of tunnels, and of the ports whose Ethernet address is known.
    pub(crate) twins: Vec<TwinSpec>,
}

/// Addresses that the kernel says each twin has, in the order in which they came.
pub(crate) type Seen = BTreeMap<InterfaceName, Vec<InterfaceAddr>>;

impl Topology {
    /// `moved`: peers of static keys that are elsewhere than they are configured, by inbound SPI.
    pub(crate) fn new(
        config: &Config,
        seen: &Seen,
        macs: &BTreeMap<String, Mac>,
        moved: &BTreeMap<Spi, Moved>,
        agreed: &Agreed,
    ) -> Self {
        let mut topology = Self::default();
        for interface in &config.interfaces {
            topology.interface(config, interface, seen, macs);
        }
        for tunnel in &config.tunnels {
            topology.protect(config, tunnel, seen, moved);
            topology.protect_by_ike(config, tunnel, seen, agreed);
            topology.tunnel(config, tunnel, seen);
        }
        for route in &config.routes {
            topology.fixed(route);
        }
        topology
    }

    /// A static route, or one more next hop of it.
    fn fixed(&mut self, route: &config::Route) {
        let at = (Origin::Static, route.table, route.prefix);
        let target = match (route.next_hop, route.interface) {
            (Some(addr), interface) => {
                let next_hop = NextHop { addr, interface };
                if let Some(Target::NextHops(hops)) = self.routes.get_mut(&at) {
                    return hops.push(next_hop);
                }
                Target::NextHops(vec![next_hop])
            }
            (None, Some(interface)) => Target::Path(Path::Attached(interface)),
            (None, None) => return,
        };
        self.routes.insert(at, target);
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
            vlan: interface.vlan,
            mtu: interface.mtu,
            table: interface.table,
            forwarding,
            netns: config.netns(interface.table),
        }));
        // Without its port's Ethernet address the twin would answer ARP with a wrong one. A VLAN has that of its port.
        if let Some(&mac) = macs.get(port) {
            self.twins.push(TwinSpec {
                name,
                kind: Kind::Tap { mac },
                mtu: interface.mtu,
                addresses: interface.addresses.clone(),
                configured: !interface.addresses.is_empty(),
                table: interface.table,
                netns: config.netns(interface.table),
            });
        }
    }

    fn tunnel(&mut self, config: &Config, tunnel: &config::Tunnel, seen: &Seen) {
        let name = tunnel.name;
        let source = nbma_of(config, tunnel, seen);
        let addresses = tunnel.overlay_addresses();
        let mtu = config.tunnel_mtu(tunnel);
        let (mode, link) = match (tunnel.mode, tunnel.destination) {
            (Mode::Gre, Some(destination)) => (TunnelMode::PointToPoint { destination }, Link::PointToPoint),
            _ => (TunnelMode::Multipoint, Link::Multipoint),
        };
        self.sources.insert(name, source);
        self.underlays.insert(name, tunnel.underlay_table);
        self.twins.push(TwinSpec {
            name,
            kind: Kind::Tun,
            mtu,
            addresses: addresses.clone(),
            configured: true,
            table: tunnel.table,
            netns: config.netns(tunnel.table),
        });
        if let Some(nhrp) = &tunnel.nhrp {
            self.nhrp.push(nhrp::Tunnel {
                name,
                mode,
                nbma: source,
                addresses: addresses.clone(),
                mtu,
                table: tunnel.table,
                nhrp: nhrp.clone(),
            });
        }
        let Some(source) = source else { return };
        self.links.insert(name, link);
        self.addresses(name, tunnel.table, &addresses, seen);
        self.objects.push(Object::Tunnel(Tunnel {
            name,
            mode,
            source,
            source_interface: tunnel.source,
            key: tunnel.key,
            mtu,
            ttl: tunnel.ttl,
            network_id: tunnel.nhrp.as_ref().map_or(0, |n| n.network_id),
            redirect: tunnel.nhrp.as_ref().is_some_and(|n| n.redirect),
            table: tunnel.table,
            underlay_table: tunnel.underlay_table,
            outer_df: tunnel.outer_df,
            tcp_mss: tunnel.tcp_mss.0,
            netns: config.netns(tunnel.table),
            protection: tunnel.protection,
        }));
        if let TunnelMode::PointToPoint { destination: nbma } = mode {
            let port = self.port(name, nbma, 0);
            self.objects.push(Object::Binding(Binding {
                tunnel: name,
                next_hop: THE_PEER,
                nbma,
                link: None,
                expires_in: None,
                port,
            }));
            self.objects.push(Object::Replica(Replica { tunnel: name, nbma, link: None, port }));
        }
    }

    /// SAs of the static keys of its profile, and the ports of their peers. Tunnels of one source share them.
    fn protect(
        &mut self,
        config: &Config,
        tunnel: &config::Tunnel,
        seen: &Seen,
        moved: &BTreeMap<Spi, Moved>,
    ) {
        let profile = tunnel.protection.and_then(|name| config.profile(name));
        let (Some(profile), Some(local)) = (profile, nbma_of(config, tunnel, seen)) else { return };
        let mut ports: BTreeMap<NbmaAddr, Vec<u16>> = BTreeMap::new();
        for peer in &profile.statics {
            let spi = peer.inbound.spi;
            let (remote, port) = moved.get(&spi).map_or((peer.remote, peer.port), |moved| moved.to);
            if peer.local.is_some_and(|own| own != local) || remote.0.is_ipv4() != local.0.is_ipv4() {
                continue;
            }
            let protection =
                Protection { profile: profile.name, table: tunnel.underlay_table, local, remote, port };
            // A key is for one peer of one of our addresses: the check sees to that, but for addresses that come from elsewhere.
            let others = self.sealers.iter().any(|s| (s.inbound == spi) != (s.protection == protection));
            if others {
                continue;
            }
            ports.entry(remote).or_default().push(port);
            if self.inbound(spi).is_some() {
                continue;
            }
            let (mode, lifetimes) = (profile.mode, profile.lifetimes);
            self.objects.push(Object::InboundSa(InboundSa {
                spi,
                protection,
                mode,
                key: peer.inbound.key.0.clone(),
                esn: peer.inbound.esn,
                window: profile.replay_window,
                lifetimes,
            }));
            self.sealers.push(Sealer {
                protection,
                inbound: spi,
                spi: peer.outbound.spi,
                mode,
                key: peer.outbound.key.0.clone(),
                esn: peer.outbound.esn,
                lifetimes,
            });
        }
        let only = ports.into_iter().filter_map(|(remote, ports)| match ports[..] {
            [port] => Some((remote, port)),
            _ => None,
        });
        self.ports.insert(tunnel.name, only.collect());
    }

    /// The domain of a tunnel whose SAs IKE makes, and the ports of its peers.
    fn protect_by_ike(&mut self, config: &Config, tunnel: &config::Tunnel, seen: &Seen, agreed: &Agreed) {
        let profile = tunnel.protection.and_then(|name| config.profile(name)).filter(|p| p.ike.is_some());
        let (Some(profile), Some(local)) = (profile, nbma_of(config, tunnel, seen)) else { return };
        let domain = Domain { profile: profile.name, table: tunnel.underlay_table, local };
        self.domains.insert(tunnel.name, domain);
        self.ports.insert(tunnel.name, agreed.only_ports(domain));
    }

    /// The UDP port of the only peer at an address of a tunnel.
    pub(crate) fn only_port(&self, tunnel: InterfaceName, nbma: NbmaAddr) -> Option<u16> {
        self.ports.get(&tunnel)?.get(&nbma).copied()
    }

    /// It is another one now.
    pub(crate) fn set_only_port(&mut self, tunnel: InterfaceName, nbma: NbmaAddr, port: Option<u16>) {
        let Some(ports) = self.ports.get_mut(&tunnel) else { return };
        match port {
            Some(port) => ports.insert(nbma, port),
            None => ports.remove(&nbma),
        };
    }

    /// Whether a tunnel's packets are protected, as far as it has a source.
    pub(crate) fn is_protected(&self, tunnel: InterfaceName) -> bool {
        self.ports.contains_key(&tunnel)
    }

    /// UDP ports of the peers of a tunnel, where static keys say them.
    pub(crate) fn ports_of(&self, tunnel: InterfaceName) -> impl Iterator<Item = (&NbmaAddr, &u16)> {
        self.ports.get(&tunnel).into_iter().flatten()
    }

    /// The UDP port of a peer: where static keys say none, that which was heard of it. In the clear there is none. Of those whose keys IKE
    /// agreed on several may be at one address: who was heard of there is not taken for another.
    pub(crate) fn port(&self, tunnel: InterfaceName, nbma: NbmaAddr, heard: u16) -> u16 {
        if heard != 0 && self.domains.contains_key(&tunnel) {
            return heard;
        }
        self.ports.get(&tunnel).map_or(0, |ports| ports.get(&nbma).copied().unwrap_or(heard))
    }

    /// The key by which is programmed what NHRP calls by this one.
    pub(crate) fn programmed(&self, key: Key) -> Key {
        match key {
            Key::Replica(tunnel, nbma, heard) => Key::Replica(tunnel, nbma, self.port(tunnel, nbma, heard)),
            key => key,
        }
    }

    /// An SA to us.
    pub(crate) fn inbound(&self, spi: Spi) -> Option<&InboundSa> {
        self.objects.iter().find_map(|object| match object {
            Object::InboundSa(sa) if sa.spi == spi => Some(sa),
            _ => None,
        })
    }

    /// Routes of an interface's addresses: those of the configuration, and those that its twin got from elsewhere.
    ///
    /// An IPv6 link-local address is received, but its prefix is attached to no interface: it is that of every one, and a next hop in
    /// it is nothing without its interface.
    fn addresses(&mut self, name: InterfaceName, table: TableId, configured: &[InterfaceAddr], seen: &Seen) {
        let learnt = learnt(name, configured, seen);
        let all = configured.iter().map(|&a| (Origin::Address, a));
        for (origin, address) in all.chain(learnt.map(|a| (Origin::LearntAddress, a))) {
            let mut own = BTreeSet::from([Prefix::host(address.addr())]);
            own.extend(broadcast(address).map(Prefix::host));
            if is_link_local(address.addr()) {
                // VLANs of one port have one Ethernet address, and so may have one link-local address, and so may tunnels: the first has it.
                let at = (origin, table, Prefix::host(address.addr()));
                self.routes.entry(at).or_insert(Target::Path(Path::Receive(name)));
                continue;
            }
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

/// What the peers of a tunnel are protected in: its profile, and its source in the underlay. Tunnels that have the same share SAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Domain {
    pub(crate) profile: ProfileName,
    pub(crate) table: TableId,
    pub(crate) local: NbmaAddr,
}

impl Domain {
    /// That of a peer.
    pub(crate) fn of(peer: &Protection) -> Self {
        Self { profile: peer.profile, table: peer.table, local: peer.local }
    }

    /// A peer in it.
    pub(crate) fn peer(self, remote: NbmaAddr, port: u16) -> Protection {
        let Self { profile, table, local } = self;
        Protection { profile, table, local, remote, port }
    }
}

/// The next hop of a point-to-point tunnel's one binding; packets of both families take it.
pub(crate) const THE_PEER: ProtocolAddr = ProtocolAddr(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

/// Where the peer of an inbound SPI is configured to be.
pub(crate) fn place_of(config: &Config, spi: Spi) -> Option<(NbmaAddr, u16)> {
    let mut peers = config.profiles.iter().flat_map(|profile| &profile.statics);
    peers.find(|peer| peer.inbound.spi == spi).map(|peer| (peer.remote, peer.port))
}

/// The data plane's port of an interface.
pub(crate) fn port_of(interface: &config::Interface) -> &str {
    interface.port.as_deref().unwrap_or(interface.name.as_str())
}

/// The NBMA address of a tunnel: one of its source's configured ones, else one of those that its twin got from elsewhere.
fn nbma_of(config: &Config, tunnel: &config::Tunnel, seen: &Seen) -> Option<NbmaAddr> {
    let source = config.interfaces.iter().find(|i| i.name == tunnel.source)?;
    let configured = tunnel.nbma_of(source.addresses.iter().copied());
    configured.or_else(|| tunnel.nbma_of(learnt(source.name, &source.addresses, seen)))
}

/// Addresses that a twin got from elsewhere, or that its kernel gave it (link-local ones).
fn learnt(
    name: InterfaceName,
    configured: &[InterfaceAddr],
    seen: &Seen,
) -> impl Iterator<Item = InterfaceAddr> {
    let seen = seen.get(&name).into_iter().flatten();
    seen.filter(move |a| !configured.contains(a)).copied()
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
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
    use model::program::{OuterDf, TcpMss};

    fn routes(text: &str, seen: &[(&str, &str)]) -> Vec<String> {
        let config: Config = Config::parse(text).unwrap();
        let mut all = Seen::new();
        for (name, address) in seen {
            all.entry(name.parse().unwrap()).or_default().push(address.parse().unwrap());
        }
        let topology = Topology::new(&config, &all, &BTreeMap::new(), &BTreeMap::new(), &Agreed::default());
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
                "LearntAddress fe80::1/128 Path(Receive(\"wan0\"))",
            ]
        );
    }

    #[test]
    fn a_tunnel_without_a_source_address_is_not_programmed_yet() {
        let text = "[[interfaces]]\nname = \"wan0\"\n[[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\n\
            source = \"wan0\"\naddresses = [\"10.0.0.2/24\"]\n[tunnels.nhrp]\nnetwork_id = 1\n";
        let config: Config = Config::parse(text).unwrap();
        let topology =
            Topology::new(&config, &Seen::new(), &BTreeMap::new(), &BTreeMap::new(), &Agreed::default());
        assert_eq!(topology.objects.len(), 1);
        assert_eq!(topology.nhrp[0].nbma, None);
        assert_eq!(topology.twins.len(), 1, "its twin is there, the port's is not: no Ethernet address yet");

        let seen = Seen::from([("wan0".parse().unwrap(), vec!["192.0.2.7/24".parse().unwrap()])]);
        let macs = BTreeMap::from([("wan0".to_owned(), Mac([2, 0, 0, 0, 0, 1]))]);
        let topology = Topology::new(&config, &seen, &macs, &BTreeMap::new(), &Agreed::default());
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

    #[test]
    fn an_ipv6_address_has_no_broadcast_and_two_may_have_one_link_local_address() {
        let text = "[[interfaces]]\nname = \"lan0\"\naddresses = [\"2001:db8::1/64\"]\n\
            [[interfaces]]\nname = \"lan0.7\"\nport = \"lan0\"\nvlan = 7\naddresses = [\"2001:db8:7::1/127\"]\n";
        assert_eq!(
            routes(text, &[("lan0", "fe80::1/64"), ("lan0.7", "fe80::1/64"), ("lan0.7", "fe80::2/64")]),
            [
                "Address 2001:db8::/64 Path(Attached(\"lan0\"))",
                "Address 2001:db8::1/128 Path(Receive(\"lan0\"))",
                "Address 2001:db8:7::/127 Path(Attached(\"lan0.7\"))",
                "Address 2001:db8:7::1/128 Path(Receive(\"lan0.7\"))",
                "LearntAddress fe80::1/128 Path(Receive(\"lan0\"))",
                "LearntAddress fe80::2/128 Path(Receive(\"lan0.7\"))",
            ]
        );
    }

    #[test]
    fn a_tunnel_with_ipv6_has_a_link_local_address_on_its_twin_and_for_nhrp() {
        let text = "[[interfaces]]\nname = \"wan0\"\naddresses = [\"192.0.2.1/24\"]\n[[tunnels]]\nname = \"tunnel0\"\n\
            mode = \"gre-multipoint\"\nsource = \"wan0\"\naddresses = [\"2001:db8::1/64\"]\nnhrp = { network_id = 1 }\n";
        let config = Config::parse(text).unwrap();
        // The kernel tells the address that it was given.
        let seen = Seen::from([("tunnel0".parse().unwrap(), vec!["fe80::1/64".parse().unwrap()])]);
        let topology = Topology::new(&config, &seen, &BTreeMap::new(), &BTreeMap::new(), &Agreed::default());
        let expected = ["2001:db8::1/64", "fe80::1/64"].map(|a| a.parse::<InterfaceAddr>().unwrap());
        let twin = topology.twins.iter().find(|twin| twin.name.as_str() == "tunnel0").unwrap();
        assert_eq!((&twin.addresses[..], &topology.nhrp[0].addresses[..]), (&expected[..], &expected[..]));
        let own = (Origin::Address, TableId(0), "fe80::1/128".parse().unwrap());
        let receive = Target::Path(Path::Receive("tunnel0".parse().unwrap()));
        assert_eq!(topology.routes.get(&own), Some(&receive));
        assert!(!topology.routes.contains_key(&(Origin::LearntAddress, own.1, own.2)));
    }

    #[test]
    fn what_a_table_and_a_vlan_make_of_interfaces_and_tunnels() {
        let text = "[[tables]]\nid = 10\nnetns = \"red\"\n[[tables]]\nid = 11\n\
            [[interfaces]]\nname = \"wan0\"\naddresses = [\"192.0.2.1/24\"]\n\
            [[interfaces]]\nname = \"red0\"\nport = \"wan0\"\nvlan = 7\ntable = 10\naddresses = [\"10.0.0.1/24\"]\n\
            [[interfaces]]\nname = \"blue0\"\ntable = 11\naddresses = [\"10.0.0.1/24\"]\n\
            [[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\nsource = \"wan0\"\ntable = 11\n\
            outer_df = \"clear\"\ntcp_mss = 1300\naddresses = [\"10.1.0.1/24\"]\nnhrp = { network_id = 1 }\n";
        let config = Config::parse(text).unwrap();
        let macs = BTreeMap::from([("wan0".to_owned(), Mac([2, 0, 0, 0, 0, 1]))]);
        let topology = Topology::new(&config, &Seen::new(), &macs, &BTreeMap::new(), &Agreed::default());
        let interface = |name: &str| {
            topology.objects.iter().find_map(|o| match o {
                Object::Interface(i) if i.name.as_str() == name => Some(i.clone()),
                _ => None,
            })
        };
        let red = interface("red0").unwrap();
        assert_eq!((red.port.as_str(), red.vlan.map(u16::from)), ("wan0", Some(7)));
        assert_eq!((red.table, red.netns.as_deref()), (TableId(10), Some("red")));
        assert_eq!(interface("wan0").unwrap().netns, None);
        assert_eq!(interface("blue0").unwrap().netns.as_deref(), Some("nave-11"));
        let tunnel = topology.objects.iter().find_map(|o| match o {
            Object::Tunnel(t) => Some(t.clone()),
            _ => None,
        });
        let tunnel = tunnel.unwrap();
        assert_eq!((tunnel.table, tunnel.underlay_table), (TableId(11), TableId(0)));
        assert_eq!(tunnel.netns.as_deref(), Some("nave-11"));
        assert_eq!((tunnel.outer_df, tunnel.tcp_mss), (OuterDf::Clear, TcpMss::Most(1300)));
        let twins: Vec<_> = topology.twins.iter().map(|t| (t.name.as_str(), t.table.0, &t.netns)).collect();
        let (red, blue) = (Some("red".to_owned()), Some("nave-11".to_owned()));
        assert_eq!(
            twins,
            [("wan0", 0, &None), ("red0", 10, &red), ("tunnel0", 11, &blue)],
            "blue0 has no port"
        );
        // The same addresses in two tables are two routes.
        let host = "10.0.0.1/32".parse().unwrap();
        assert!(topology.routes.contains_key(&(Origin::Address, TableId(10), host)));
        assert!(topology.routes.contains_key(&(Origin::Address, TableId(11), host)));
    }

    #[test]
    fn the_peers_say_of_which_family_the_own_nbma_address_is() {
        let text = |nhs: &str| {
            format!(
                "[[interfaces]]\nname = \"wan0\"\n[[tunnels]]\nname = \"tunnel0\"\nmode = \"gre-multipoint\"\n\
                 source = \"wan0\"\naddresses = [\"10.0.0.2/24\"]\n[tunnels.nhrp]\nnetwork_id = 1\n{nhs}"
            )
        };
        let addresses = ["fe80::1/64", "192.0.2.7/24", "2001:db8::7/64"].map(|a| a.parse().unwrap());
        let seen = Seen::from([("wan0".parse().unwrap(), addresses.to_vec())]);
        let source = |nhs: &str| {
            let config = Config::parse(&text(nhs)).unwrap();
            Topology::new(&config, &seen, &BTreeMap::new(), &BTreeMap::new(), &Agreed::default()).nhrp[0]
                .nbma
                .unwrap()
                .to_string()
        };
        assert_eq!(source(""), "192.0.2.7", "the first that is not link-local");
        assert_eq!(source("nhs = [{ protocol = \"10.0.0.1\", nbma = \"192.0.2.1\" }]\n"), "192.0.2.7");
        assert_eq!(source("nhs = [{ protocol = \"10.0.0.1\", nbma = \"2001:db8::1\" }]\n"), "2001:db8::7");
    }

    #[test]
    fn several_static_routes_to_one_prefix_are_one_of_several_next_hops() {
        let text = "[[interfaces]]\nname = \"lan0\"\naddresses = [\"192.168.2.1/24\"]\n\
            [[routes]]\nprefix = \"10.0.0.0/8\"\nnext_hop = \"192.168.2.8\"\n\
            [[routes]]\nprefix = \"10.0.0.0/8\"\nnext_hop = \"192.168.2.9\"\ninterface = \"lan0\"\n";
        let config = Config::parse(text).unwrap();
        let topology =
            Topology::new(&config, &Seen::new(), &BTreeMap::new(), &BTreeMap::new(), &Agreed::default());
        let target = &topology.routes[&(Origin::Static, TableId(0), "10.0.0.0/8".parse().unwrap())];
        let hop = |addr: &str, interface: Option<&str>| NextHop {
            addr: addr.parse().unwrap(),
            interface: interface.map(|name| name.parse().unwrap()),
        };
        assert_eq!(
            *target,
            Target::NextHops(vec![hop("192.168.2.8", None), hop("192.168.2.9", Some("lan0"))])
        );
    }
}
