//! Static routes: that each leads somewhere, and that none leads the underlay into its own tunnel.

use std::net::IpAddr;

use super::{Checked, Own, fault, is_link_local, is_on_link, nhrp, not_a_host, of_family};
use crate::config::{Config, Route, Tunnel};
use crate::{InterfaceAddr, InterfaceName, TableId, program};

pub(super) fn check(config: &Config) -> Checked {
    let own = config.own_addresses();
    for (n, route) in config.routes.iter().enumerate() {
        let path = format!("routes[{n}]");
        check_interface(config, &path, route)?;
        check_prefix(config, &path, n, route, &own)?;
        match (route.next_hop, route.interface) {
            (None, None) => return fault(path, "leads nowhere: needs next_hop, interface, or both"),
            (Some(next_hop), _) => {
                check_next_hop(config, &format!("{path}.next_hop"), route, next_hop, &own)?
            }
            (None, Some(_)) => {}
        }
    }
    check_recursion(config, &own)
}

fn check_interface(config: &Config, path: &str, route: &Route) -> Checked {
    let Some(name) = route.interface else { return Ok(()) };
    let path = format_args!("{path}.interface");
    match table_of(config, name) {
        None => fault(path, format_args!("`{name}` is not an interface and not a tunnel")),
        Some(table) if table != route.table => {
            fault(path, format_args!("`{name}` is in table {}, the route in {}", table.0, route.table.0))
        }
        Some(_) => Ok(()),
    }
}

fn check_prefix(config: &Config, path: &str, n: usize, route: &Route, own: &[Own]) -> Checked {
    let (prefix, path) = (route.prefix, format!("{path}.prefix"));
    if !prefix.is_routable() {
        return fault(path, format_args!("{prefix} cannot be routed"));
    }
    let same = |other: &&Route| (other.table, other.prefix) == (route.table, prefix);
    for (m, other) in config.routes[..n].iter().enumerate().filter(|(_, other)| same(other)) {
        // Of equal cost: each with another next hop.
        let apart = other.next_hop != route.next_hop || other.interface != route.interface;
        if !apart || other.next_hop.is_none() || route.next_hop.is_none() {
            return fault(path, format_args!("{prefix} is also routes[{m}]"));
        }
    }
    if config.routes[..n].iter().filter(same).count() == program::Path::MOST_HOPS {
        return fault(path, format_args!("{prefix} has more than {} next hops", program::Path::MOST_HOPS));
    }
    if let Some(own) = own.iter().find(|own| own.table == route.table && own.addr.prefix() == prefix) {
        return fault(path, format_args!("{prefix} is connected: {}", own.path));
    }
    Ok(())
}

fn check_next_hop(config: &Config, path: &str, route: &Route, next_hop: IpAddr, own: &[Own]) -> Checked {
    if let Some(other) = not_a_host(next_hop) {
        return fault(path, format_args!("{next_hop} is {other}"));
    }
    if next_hop.is_ipv4() != route.prefix.addr().is_ipv4() {
        return fault(path, format_args!("{next_hop} is not of the family of {}", route.prefix));
    }
    if let Some(own) = own.iter().find(|own| own.table == route.table && own.addr.addr() == next_hop) {
        return fault(
            path,
            format_args!("{next_hop} is our own address, {}: the route would loop", own.path),
        );
    }
    if is_link_local(next_hop) {
        return match route.interface {
            Some(_) => Ok(()),
            None => fault(path, format_args!("{next_hop} is link-local: of which interface?")),
        };
    }
    if let Some(name) = route.interface {
        // An address of the other family says nothing of it, unless there is no other.
        let all = addresses_of(config, name).unwrap_or_default();
        let of_family = of_family(all, next_hop);
        let own = if of_family.is_empty() { all } else { of_family.as_slice() };
        return match is_on_link(own, next_hop) {
            Some(false) => fault(path, format_args!("{next_hop} is in no prefix of `{name}`")),
            _ => Ok(()),
        };
    }
    // An interface that gets its addresses from elsewhere may be the one.
    let of_table = config.interfaces.iter().filter(|interface| interface.table == route.table);
    if of_table.into_iter().any(|interface| interface.addresses.is_empty()) {
        return Ok(());
    }
    let connected = own.iter().any(|own| own.table == route.table && own.addr.prefix().contains(next_hop));
    // A tunnel with host addresses only reaches every peer that NHRP finds.
    let may_be_peer = |tunnel: &Tunnel| {
        let of_family = of_family(&tunnel.addresses, next_hop);
        let is_off_link = !of_family.is_empty() && is_on_link(&of_family, next_hop).is_none();
        tunnel.table == route.table && tunnel.nhrp.is_some() && is_off_link
    };
    if connected || config.tunnels.iter().any(may_be_peer) {
        return Ok(());
    }
    fault(
        path,
        format_args!("{next_hop} is not connected: no interface or tunnel has a prefix that holds it"),
    )
}

/// No NBMA address of a tunnel is reached through that tunnel.
fn check_recursion(config: &Config, own: &[Own]) -> Checked {
    for foreign in nhrp::foreign(config).into_iter().filter(|foreign| foreign.is_nbma) {
        let (tunnel, nbma) = (&config.tunnels[foreign.tunnel], foreign.addr);
        // What the source interface gets from elsewhere may be a better way.
        if config.interface(tunnel.source).is_none_or(|source| source.addresses.is_empty()) {
            continue;
        }
        let Some((n, route)) = best_route(config, own, tunnel.underlay_table, nbma) else { continue };
        let out = route.interface.or_else(|| {
            let next_hop = route.next_hop?;
            let own =
                own.iter().find(|own| own.table == route.table && own.addr.prefix().contains(next_hop))?;
            Some(own.interface)
        });
        if out == Some(tunnel.name) {
            let problem = format_args!(
                "{} leads {nbma}, which is {}, into its own tunnel `{}`",
                route.prefix, foreign.path, tunnel.name
            );
            return fault(format_args!("routes[{n}]"), problem);
        }
    }
    Ok(())
}

/// The static route that an address takes, unless it is connected by a prefix that is longer.
fn best_route<'a>(
    config: &'a Config,
    own: &[Own],
    table: TableId,
    addr: IpAddr,
) -> Option<(usize, &'a Route)> {
    let routes = config.routes.iter().enumerate();
    let matching = routes.filter(|(_, route)| route.table == table && route.prefix.contains(addr));
    let best = matching.max_by_key(|(_, route)| route.prefix.length())?;
    let connected = own.iter().filter(|own| own.table == table && own.addr.prefix().contains(addr));
    let connected = connected.map(|own| own.addr.length()).max();
    connected.is_none_or(|length| length < best.1.prefix.length()).then_some(best)
}

/// The table of an interface or tunnel.
fn table_of(config: &Config, name: InterfaceName) -> Option<TableId> {
    let tunnel = || config.tunnels.iter().find(|tunnel| tunnel.name == name).map(|tunnel| tunnel.table);
    config.interface(name).map(|interface| interface.table).or_else(tunnel)
}

/// Addresses of an interface or tunnel.
fn addresses_of(config: &Config, name: InterfaceName) -> Option<&[InterfaceAddr]> {
    let tunnel =
        || config.tunnels.iter().find(|tunnel| tunnel.name == name).map(|tunnel| &tunnel.addresses[..]);
    config.interface(name).map(|interface| &interface.addresses[..]).or_else(tunnel)
}
