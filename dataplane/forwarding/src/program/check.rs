//! Whether a step of a batch can be done: before anything is.

use std::net::IpAddr;

use model::program::{
    Hop, InboundSa, Interface, Key, Object, OutboundSa, Path, PathMtu, Refusal, Tunnel, TunnelMode,
};
use model::sa::{Lease, Protection, SaMode};
use model::{InterfaceName, NbmaAddr, Prefix, TableId};

use super::Program;
use super::build::is_point_to_point;
use super::family::{Family, Fixed, fixed};
use crate::fib::FibPrefix;

impl Program {
    /// Checks an object that is no route against all that is programmed.
    pub(super) fn check(&self, object: &Object) -> Result<(), Refusal> {
        match object {
            Object::Interface(interface) => self.check_interface(interface),
            Object::Tunnel(tunnel) => self.check_tunnel(tunnel),
            Object::Neighbour(neighbour) => {
                self.port_named(neighbour.hop.interface)?;
                specified(neighbour.hop.next_hop)
            }
            Object::Binding(binding) => {
                let tunnel = self.tunnel_named(binding.tunnel)?;
                if !is_point_to_point(tunnel) {
                    specified(binding.next_hop.0)?;
                }
                self.check_outer(tunnel, binding.nbma, binding.link)
            }
            Object::Route(route) => {
                check_prefix(route.prefix)?;
                self.check_path(route.table, route.prefix.addr().is_ipv4(), &route.path)
            }
            Object::Replica(replica) => {
                self.check_outer(self.tunnel_named(replica.tunnel)?, replica.nbma, replica.link)
            }
            Object::Fallback(fallback) => {
                self.tunnel_named(fallback.tunnel)?;
                specified(fallback.next_hop.0)
            }
            Object::PathMtu(PathMtu { tunnel, nbma, .. }) => {
                self.check_outer(self.tunnel_named(*tunnel)?, *nbma, None)
            }
            Object::InboundSa(sa) => self.check_inbound(sa),
            Object::OutboundSa(sa) => self.check_outbound(sa),
        }
    }

    fn check_inbound(&self, sa: &InboundSa) -> Result<(), Refusal> {
        self.check_protection(&sa.protection)?;
        if !(64..=4096).contains(&sa.window) {
            let what = format!("a replay window of {} packets is not one of 64 to 4096", sa.window);
            return Err(Refusal::Senseless(what));
        }
        let worker = self.opener(sa.spi);
        let mut others = self.objects.inbound_in(sa.spi.slot());
        match others.find(|other| other.spi != sa.spi && self.opener(other.spi) == worker) {
            Some(other) => Err(Refusal::SlotTaken(sa.spi, other.spi)),
            None => Ok(()),
        }
    }

    fn check_outbound(&self, sa: &OutboundSa) -> Result<(), Refusal> {
        self.check_protection(&sa.protection)?;
        let (Lease { first, last }, workers) = (sa.lease, self.workers.len());
        if usize::from(sa.worker.0) >= workers {
            let what = format!("there is no worker {}: they are {workers}, from 0 on", sa.worker.0);
            return Err(Refusal::Senseless(what));
        }
        if first == 0 || first - 1 > last {
            return Err(Refusal::Senseless(format!("sequence numbers {first} to {last} are no lease")));
        }
        if sa.mode == SaMode::Tunnel && sa.protection.port != 0 && sa.protection.remote.0.is_ipv6() {
            // With a key or a VLAN it is more than an adjacency has room for.
            return Err(Refusal::Unsupported("tunnel mode in UDP over IPv6".to_owned()));
        }
        Ok(())
    }

    fn check_protection(&self, protection: &Protection) -> Result<(), Refusal> {
        specified(protection.local.0)?;
        specified(protection.remote.0)?;
        same_family(protection.local.0, protection.remote.0)?;
        if self.workers.is_empty() {
            return Err(Refusal::Senseless("there is no worker for an SA".to_owned()));
        }
        if !self.provider.is_usable() {
            return Err(Refusal::Unsupported(format!("the AES-GCM provider {}", self.provider)));
        }
        Ok(())
    }

    fn check_interface(&self, interface: &Interface) -> Result<(), Refusal> {
        if !self.ports.iter().any(|port| port.name == interface.port) {
            return Err(Refusal::NoPort(interface.port.clone()));
        }
        if self.objects.winner(Key::Tunnel(interface.name)).is_some() {
            return Err(Refusal::InUse(interface.name.to_string(), interface.name));
        }
        let others = self.objects.all().map_while(|(_, claim)| match &claim.object {
            Object::Interface(other) => Some(other),
            _ => None,
        });
        for other in others {
            let same = (&other.port, other.vlan) == (&interface.port, interface.vlan);
            if same && other.name != interface.name {
                let vlan = interface.vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
                return Err(Refusal::InUse(format!("{}{vlan}", interface.port), other.name));
            }
        }
        Ok(())
    }

    fn check_tunnel(&self, tunnel: &Tunnel) -> Result<(), Refusal> {
        specified(tunnel.source.0)?;
        if let TunnelMode::PointToPoint { destination } = tunnel.mode {
            specified(destination.0)?;
            same_family(tunnel.source.0, destination.0)?;
        }
        if self.objects.winner(Key::Interface(tunnel.name)).is_some() {
            return Err(Refusal::InUse(tunnel.name.to_string(), tunnel.name));
        }
        let on = self.port_named(tunnel.source_interface)?;
        same_table(tunnel.name, tunnel.underlay_table, on)?;
        for other in self.tunnels().filter(|other| other.name != tunnel.name) {
            let same = (other.source, other.key, other.underlay_table)
                == (tunnel.source, tunnel.key, tunnel.underlay_table);
            let apart = matches!(
                (other.mode, tunnel.mode),
                (TunnelMode::PointToPoint { destination: a }, TunnelMode::PointToPoint { destination: b }) if a != b
            );
            if same && !apart {
                return Err(Refusal::SameKey(other.name));
            }
        }
        Ok(())
    }

    /// Checks where a tunnel sends, and by which link: a neighbour of a port, so that no NBMA address is reached by a tunnel.
    fn check_outer(&self, tunnel: &Tunnel, nbma: NbmaAddr, link: Option<Hop>) -> Result<(), Refusal> {
        specified(nbma.0)?;
        same_family(tunnel.source.0, nbma.0)?;
        let Some(link) = link else { return Ok(()) };
        let on = self.port_named(link.interface)?;
        same_table(tunnel.name, tunnel.underlay_table, on)?;
        specified(link.next_hop)?;
        same_family(nbma.0, link.next_hop)
    }

    /// Checks where routes of a table and family lead.
    pub(super) fn check_path(&self, table: TableId, v4: bool, path: &Path) -> Result<(), Refusal> {
        if let Path::Balanced(hops) = path
            && (!(2..=Path::MOST_HOPS).contains(&hops.len()) || !hops.is_sorted_by(|a, b| a < b))
        {
            let what = format!("a route by other than 2 to {} next hops, sorted, each once", Path::MOST_HOPS);
            return Err(Refusal::Unsupported(what));
        }
        for hop in path.hops() {
            let peer = match self.tunnel(hop.interface) {
                Some(tunnel) => is_point_to_point(tunnel),
                None => false,
            };
            self.in_table(hop.interface, table)?;
            if peer {
                continue;
            }
            specified(hop.next_hop)?;
            if hop.next_hop.is_ipv4() != v4 {
                let what = format!("a next hop of the other family ({})", hop.next_hop);
                return Err(Refusal::Unsupported(what));
            }
        }
        match path {
            Path::Attached(name) | Path::Receive(name) => self.in_table(*name, table),
            Path::Via(_) | Path::Balanced(_) | Path::Unreachable | Path::Blackhole => Ok(()),
        }
    }

    /// Whether routes of a table may lead to an interface or tunnel: to those that are in it.
    fn in_table(&self, name: InterfaceName, table: TableId) -> Result<(), Refusal> {
        let of_port = self.port_interface(name).map(|interface| interface.table);
        let of = of_port.or_else(|| self.tunnel(name).map(|tunnel| tunnel.table));
        match of {
            None => Err(Refusal::NoInterface(name)),
            Some(of) if of == table => Ok(()),
            Some(of) => Err(Refusal::Unsupported(format!(
                "a route of table {} by `{name}`, which is in table {},",
                table.0, of.0
            ))),
        }
    }

    fn port_named(&self, name: InterfaceName) -> Result<&Interface, Refusal> {
        self.port_interface(name).ok_or(Refusal::NoInterface(name))
    }

    fn tunnel_named(&self, name: InterfaceName) -> Result<&Tunnel, Refusal> {
        self.tunnel(name).ok_or(Refusal::NoInterface(name))
    }
}

/// Whether there may be a route to a prefix.
pub(super) fn check_prefix(prefix: Prefix) -> Result<(), Refusal> {
    fn is_free<A: Family>(prefix: FibPrefix<A>) -> bool {
        matches!(fixed(prefix), None | Some(Fixed::LinkLocal))
    }
    let free = match FibPrefix::<u32>::try_from(prefix) {
        Ok(prefix) => is_free(prefix),
        // The whole of fe80::/10 is on every link.
        Err(prefix) => FibPrefix::<u128>::try_from(prefix).is_ok_and(is_free) || prefix == link_local(),
    };
    if free { Ok(()) } else { Err(Refusal::Unsupported(format!("a route to {prefix}"))) }
}

fn link_local() -> Prefix {
    let addr = IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));
    Prefix::new(addr, 10).unwrap_or(Prefix::host(addr))
}

fn specified(addr: IpAddr) -> Result<(), Refusal> {
    if addr.is_unspecified() { Err(Refusal::Unsupported(format!("the address {addr}"))) } else { Ok(()) }
}

fn same_family(one: IpAddr, other: IpAddr) -> Result<(), Refusal> {
    if one.is_ipv4() == other.is_ipv4() {
        return Ok(());
    }
    Err(Refusal::Unsupported(format!("a tunnel between families ({one}, {other})")))
}

/// A tunnel's packets leave by interfaces of its underlay's table.
fn same_table(tunnel: InterfaceName, underlay: TableId, on: &Interface) -> Result<(), Refusal> {
    if on.table == underlay {
        return Ok(());
    }
    Err(Refusal::Unsupported(format!(
        "an underlay of `{tunnel}` in table {} by `{}`, which is in table {},",
        underlay.0, on.name, on.table.0
    )))
}
