//! Whether a step of a batch can be done: before anything is.

use std::net::IpAddr;

use model::program::{Interface, Key, Object, Path, Refusal, Route, Tunnel, TunnelMode};
use model::{InterfaceName, TableId};

use super::Program;

impl Program {
    /// Checks an object against all that is programmed.
    pub(super) fn check(&self, object: &Object) -> Result<(), Refusal> {
        match object {
            Object::Interface(interface) => self.check_interface(interface),
            Object::Tunnel(tunnel) => self.check_tunnel(tunnel),
            Object::Neighbour(neighbour) => {
                v4(neighbour.hop.next_hop)?;
                self.port_named(neighbour.hop.interface)
            }
            Object::Binding(binding) => {
                self.tunnel_named(binding.tunnel)?;
                v4(binding.next_hop.0)?;
                v4(binding.nbma.0)?;
                binding.link.map_or(Ok(()), |link| self.port_named(link.interface).and(v4(link.next_hop)))
            }
            Object::Route(route) => self.check_route(route),
            Object::Replica(replica) => {
                self.tunnel_named(replica.tunnel)?;
                v4(replica.nbma.0)?;
                replica.link.map_or(Ok(()), |link| self.port_named(link.interface).and(v4(link.next_hop)))
            }
            Object::Fallback(fallback) => {
                self.tunnel_named(fallback.tunnel)?;
                v4(fallback.next_hop.0)
            }
        }
    }

    fn check_interface(&self, interface: &Interface) -> Result<(), Refusal> {
        table(interface.table)?;
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
            if other.port == interface.port && other.name != interface.name {
                return Err(Refusal::InUse(interface.port.clone(), other.name));
            }
        }
        Ok(())
    }

    fn check_tunnel(&self, tunnel: &Tunnel) -> Result<(), Refusal> {
        table(tunnel.table)?;
        table(tunnel.underlay_table)?;
        v4(tunnel.source.0)?;
        if let TunnelMode::PointToPoint { destination } = tunnel.mode {
            v4(destination.0)?;
        }
        if self.objects.winner(Key::Interface(tunnel.name)).is_some() {
            return Err(Refusal::InUse(tunnel.name.to_string(), tunnel.name));
        }
        self.port_named(tunnel.source_interface)?;
        let others = self.objects.all().skip_while(|(_, claim)| matches!(claim.object, Object::Interface(_)));
        let others = others.map_while(|(_, claim)| match &claim.object {
            Object::Tunnel(other) => Some(other),
            _ => None,
        });
        for other in others.filter(|other| other.name != tunnel.name) {
            let same = (other.source, other.key) == (tunnel.source, tunnel.key);
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

    fn check_route(&self, route: &Route) -> Result<(), Refusal> {
        table(route.table)?;
        v4(route.prefix.addr())?;
        if !route.prefix.is_routable() {
            return Err(Refusal::Unsupported(format!("a route to {}", route.prefix)));
        }
        match route.path {
            Path::Via(hop) => v4(hop.next_hop).and(self.named(hop.interface)),
            Path::Attached(name) | Path::Receive(name) => self.named(name),
            Path::Unreachable | Path::Blackhole => Ok(()),
        }
    }

    fn named(&self, name: InterfaceName) -> Result<(), Refusal> {
        self.port_named(name).or_else(|_| self.tunnel_named(name))
    }

    fn port_named(&self, name: InterfaceName) -> Result<(), Refusal> {
        self.objects.winner(Key::Interface(name)).map(drop).ok_or(Refusal::NoInterface(name))
    }

    fn tunnel_named(&self, name: InterfaceName) -> Result<(), Refusal> {
        self.objects.winner(Key::Tunnel(name)).map(drop).ok_or(Refusal::NoInterface(name))
    }
}

fn v4(addr: IpAddr) -> Result<(), Refusal> {
    if addr.is_ipv4() { Ok(()) } else { Err(Refusal::Unsupported(format!("IPv6 ({addr})"))) }
}

fn table(table: TableId) -> Result<(), Refusal> {
    if table == TableId(0) { Ok(()) } else { Err(Refusal::Unsupported(format!("table {}", table.0))) }
}
