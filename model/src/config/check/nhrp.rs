//! `[tunnels.nhrp]`.

use std::net::IpAddr;

use super::tunnels::{check_nbma, off_link};
use super::{Checked, fault, is_link_local, is_on_link, not_a_host, of_family};
use crate::ProtocolAddr;
use crate::config::{
    Config, Interface, MapMulticast, Mode, Nhrp, NhrpLimits, Nhs, NhsNbma, NhsProtocol, Tunnel,
};

pub(super) fn check(path: &str, nhrp: &Nhrp, tunnel: &Tunnel, source: &Interface) -> Checked {
    if nhrp.network_id == 0 {
        return fault(format_args!("{path}.network_id"), "0 is not allowed");
    }
    if let Some(text) = &nhrp.authentication {
        check_authentication(path, text)?;
    }
    if nhrp.holding_time.0 == 0 {
        return fault(format_args!("{path}.holding_time"), "0 is not allowed");
    }
    check_identity(path, tunnel)?;
    check_servers(path, nhrp, tunnel, source)?;
    check_clusters(path, nhrp)?;
    check_accepted(path, nhrp)?;
    check_limits(path, &nhrp.limits)?;
    check_map(path, nhrp, tunnel, source)?;
    check_multicast(path, nhrp, tunnel, source)?;
    for (field, set) in [("redirect", nhrp.redirect), ("shortcut", nhrp.shortcut)] {
        if set && tunnel.mode == Mode::Gre {
            return fault(format_args!("{path}.{field}"), "is for mode gre-multipoint only");
        }
    }
    Ok(())
}

/// A node is known to others by a global address; a link-local one is registered beside that.
fn check_identity(path: &str, tunnel: &Tunnel) -> Checked {
    let mut all = tunnel.addresses.iter().map(|own| own.addr()).filter(|addr| addr.is_ipv6()).peekable();
    match all.peek().copied() {
        Some(first) if all.all(is_link_local) => fault(
            format_args!("{}.addresses", path.trim_end_matches(".nhrp")),
            format_args!("{first} is link-local: NHRP needs a global IPv6 address beside it"),
        ),
        _ => Ok(()),
    }
}

fn check_authentication(path: &str, text: &str) -> Checked {
    let path = format!("{path}.authentication");
    if !(1..=8).contains(&text.len()) {
        return fault(path, format_args!("has {} characters, not 1 to 8", text.chars().count()));
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return fault(path, "has other characters than printable ASCII without spaces");
    }
    Ok(())
}

/// A tunnel address of another node.
fn check_protocol(path: &str, protocol: ProtocolAddr, tunnel: &Tunnel) -> Checked {
    if let Some(other) = not_a_host(protocol.0) {
        return fault(path, format_args!("{protocol} is {other}"));
    }
    if tunnel.addresses.iter().any(|own| own.addr() == protocol.0) {
        return fault(path, format_args!("{protocol} is our own address"));
    }
    // What has an address of one family cannot speak of the other.
    let own = of_family(&tunnel.addresses, protocol.0);
    if own.is_empty() {
        return off_link(path, protocol.0, tunnel);
    }
    match is_on_link(&own, protocol.0) {
        Some(false) => off_link(path, protocol.0, tunnel),
        _ => Ok(()),
    }
}

fn check_servers(path: &str, nhrp: &Nhrp, tunnel: &Tunnel, source: &Interface) -> Checked {
    for (n, nhs) in nhrp.nhs.iter().enumerate() {
        let path = format!("{path}.nhs[{n}]");
        check_server_protocol(&format!("{path}.protocol"), nhs.protocol, tunnel)?;
        if let NhsNbma::Addr(nbma) = nhs.nbma {
            check_nbma(&format!("{path}.nbma"), nbma, tunnel, source)?;
        }
        let earlier = |is_same: &dyn Fn(&Nhs) -> bool| nhrp.nhs[..n].iter().position(is_same);
        if let Some(addr) = nhs.protocol.addr()
            && let Some(other) = earlier(&|other| other.protocol.addr() == Some(addr))
        {
            return fault(path + ".protocol", format_args!("{addr} is also nhs[{other}]"));
        }
        if let Some(other) = earlier(&|other| other.protocol == nhs.protocol && other.nbma == nhs.nbma) {
            return fault(path + ".nbma", format_args!("{} is also nhs[{other}]", nhs.nbma));
        }
        if let Some(destination) = tunnel.destination.filter(|&to| nhs.nbma != NhsNbma::Addr(to)) {
            return fault(
                path + ".nbma",
                format_args!("{} is not the tunnel's destination, {destination}", nhs.nbma),
            );
        }
    }
    Ok(())
}

fn check_server_protocol(path: &str, protocol: NhsProtocol, tunnel: &Tunnel) -> Checked {
    match protocol {
        NhsProtocol::Addr(addr) if addr.is_link_local() => fault(
            path,
            format_args!(
                "{addr} is link-local: a server is known by its global address, or as `dynamic-ipv6`"
            ),
        ),
        NhsProtocol::Addr(addr) => check_protocol(path, addr, tunnel),
        NhsProtocol::Dynamic => Ok(()),
        NhsProtocol::DynamicIpv6 if tunnel.addresses.iter().any(|own| own.addr().is_ipv6()) => Ok(()),
        NhsProtocol::DynamicIpv6 => fault(path, "the tunnel has no IPv6 address to register"),
    }
}

fn check_clusters(path: &str, nhrp: &Nhrp) -> Checked {
    for (n, cluster) in nhrp.clusters.iter().enumerate() {
        let path = format!("{path}.clusters[{n}]");
        if cluster.max_connections == 0 {
            return fault(path + ".max_connections", "0 is not allowed");
        }
        if let Some(other) = nhrp.clusters[..n].iter().position(|other| other.id == cluster.id) {
            return fault(path + ".id", format_args!("{} is also clusters[{other}]", cluster.id));
        }
        if !nhrp.nhs.iter().any(|nhs| nhs.cluster == cluster.id) {
            return fault(path + ".id", format_args!("no nhs is in cluster {}", cluster.id));
        }
    }
    Ok(())
}

fn check_accepted(path: &str, nhrp: &Nhrp) -> Checked {
    for (n, prefix) in nhrp.accept_prefixes.iter().enumerate() {
        let path = format!("{path}.accept_prefixes[{n}]");
        if !prefix.is_routable() {
            return fault(path, format_args!("{prefix} holds no hosts that routes lead to"));
        }
        if let Some(other) = nhrp.accept_prefixes[..n].iter().position(|other| other == prefix) {
            return fault(path, format_args!("{prefix} is also accept_prefixes[{other}]"));
        }
    }
    Ok(())
}

fn check_limits(path: &str, limits: &NhrpLimits) -> Checked {
    let all = [
        ("registrations", limits.registrations),
        ("entries", limits.entries),
        ("requests_per_second", limits.requests_per_second),
        ("requests_per_second_per_peer", limits.requests_per_second_per_peer),
    ];
    match all.iter().find(|(_, limit)| *limit == 0) {
        Some((field, _)) => fault(format_args!("{path}.limits.{field}"), "0 is not allowed"),
        None => Ok(()),
    }
}

fn check_map(path: &str, nhrp: &Nhrp, tunnel: &Tunnel, source: &Interface) -> Checked {
    for (n, map) in nhrp.map.iter().enumerate() {
        let path = format!("{path}.map[{n}]");
        if tunnel.mode == Mode::Gre {
            return fault(path, "is for mode gre-multipoint only");
        }
        check_protocol(&format!("{path}.protocol"), map.protocol, tunnel)?;
        check_nbma(&format!("{path}.nbma"), map.nbma, tunnel, source)?;
        if let Some(other) = nhrp.map[..n].iter().position(|other| other.protocol == map.protocol) {
            return fault(path + ".protocol", format_args!("{} is also map[{other}]", map.protocol));
        }
        if let Some(other) = nhrp
            .nhs
            .iter()
            .position(|nhs| nhs.protocol.addr() == Some(map.protocol) && nhs.nbma != NhsNbma::Addr(map.nbma))
        {
            return fault(
                path + ".nbma",
                format_args!("{} is at another address in nhs[{other}]", map.protocol),
            );
        }
    }
    Ok(())
}

fn check_multicast(path: &str, nhrp: &Nhrp, tunnel: &Tunnel, source: &Interface) -> Checked {
    for (n, map) in nhrp.map_multicast.iter().enumerate() {
        let path = format!("{path}.map_multicast[{n}]");
        if let Some(other) = nhrp.map_multicast[..n].iter().position(|other| other == map) {
            return fault(path, format_args!("{map} is also map_multicast[{other}]"));
        }
        match (map, tunnel.destination) {
            (MapMulticast::Dynamic | MapMulticast::Nhs, Some(_)) => {
                return fault(path, format_args!("`{map}` is for mode gre-multipoint only"));
            }
            (MapMulticast::Nhs, None) if nhrp.nhs.is_empty() => return fault(path, "there is no nhs"),
            (MapMulticast::Nbma(nbma), Some(destination)) if *nbma != destination => {
                return fault(path, format_args!("{nbma} is not the tunnel's destination, {destination}"));
            }
            (MapMulticast::Nbma(nbma), _) => check_nbma(&path, *nbma, tunnel, source)?,
            (MapMulticast::Dynamic | MapMulticast::Nhs, None) => {}
        }
    }
    Ok(())
}

/// An address of another node, as it stands in the file.
pub(super) struct Foreign {
    /// Index of the tunnel.
    pub(super) tunnel: usize,
    pub(super) path: String,
    pub(super) addr: IpAddr,
    /// In the underlay, not in the overlay.
    pub(super) is_nbma: bool,
}

/// Every address of other nodes that stands in a tunnel.
pub(super) fn foreign(config: &Config) -> Vec<Foreign> {
    let mut all = Vec::new();
    for (tunnel, of) in config.tunnels.iter().enumerate() {
        let mut push = |field: String, addr, is_nbma| {
            all.push(Foreign { tunnel, path: format!("tunnels[{tunnel}].{field}"), addr, is_nbma });
        };
        if let Some(destination) = of.destination {
            push("destination".to_owned(), destination.0, true);
        }
        let Some(nhrp) = &of.nhrp else { continue };
        for (n, nhs) in nhrp.nhs.iter().enumerate() {
            if let Some(protocol) = nhs.protocol.addr() {
                push(format!("nhrp.nhs[{n}].protocol"), protocol.0, false);
            }
            if let Some(nbma) = nhs.nbma.addr() {
                push(format!("nhrp.nhs[{n}].nbma"), nbma.0, true);
            }
        }
        for (n, map) in nhrp.map.iter().enumerate() {
            push(format!("nhrp.map[{n}].protocol"), map.protocol.0, false);
            push(format!("nhrp.map[{n}].nbma"), map.nbma.0, true);
        }
        for (n, map) in nhrp.map_multicast.iter().enumerate() {
            if let MapMulticast::Nbma(nbma) = map {
                push(format!("nhrp.map_multicast[{n}]"), nbma.0, true);
            }
        }
    }
    all
}
