//! `[tunnels.nhrp]`.

use std::net::IpAddr;

use super::tunnels::{check_nbma, off_link};
use super::{Checked, fault, is_on_link, not_a_host};
use crate::ProtocolAddr;
use crate::config::{Config, Interface, MapMulticast, Mode, Nhrp, Tunnel};

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
    check_servers(path, nhrp, tunnel, source)?;
    check_map(path, nhrp, tunnel, source)?;
    check_multicast(path, nhrp, tunnel, source)?;
    for (field, set) in [("redirect", nhrp.redirect), ("shortcut", nhrp.shortcut)] {
        if set && tunnel.mode == Mode::Gre {
            return fault(format_args!("{path}.{field}"), "is for mode gre-multipoint only");
        }
    }
    Ok(())
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
    if !tunnel.addresses.iter().any(|own| own.addr().is_ipv4() == protocol.0.is_ipv4()) {
        return off_link(path, protocol.0, tunnel);
    }
    match is_on_link(&tunnel.addresses, protocol.0) {
        Some(false) => off_link(path, protocol.0, tunnel),
        _ => Ok(()),
    }
}

fn check_servers(path: &str, nhrp: &Nhrp, tunnel: &Tunnel, source: &Interface) -> Checked {
    for (n, nhs) in nhrp.nhs.iter().enumerate() {
        let path = format!("{path}.nhs[{n}]");
        check_protocol(&format!("{path}.protocol"), nhs.protocol, tunnel)?;
        check_nbma(&format!("{path}.nbma"), nhs.nbma, tunnel, source)?;
        if let Some(other) = nhrp.nhs[..n].iter().position(|other| other.protocol == nhs.protocol) {
            return fault(path + ".protocol", format_args!("{} is also nhs[{other}]", nhs.protocol));
        }
        if let Some(destination) = tunnel.destination.filter(|&destination| destination != nhs.nbma) {
            return fault(
                path + ".nbma",
                format_args!("{} is not the tunnel's destination, {destination}", nhs.nbma),
            );
        }
    }
    Ok(())
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
        if let Some(other) =
            nhrp.nhs.iter().position(|nhs| nhs.protocol == map.protocol && nhs.nbma != map.nbma)
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
            (MapMulticast::Dynamic, Some(_)) => {
                return fault(path, "`dynamic` is for mode gre-multipoint only");
            }
            (MapMulticast::Nbma(nbma), Some(destination)) if *nbma != destination => {
                return fault(path, format_args!("{nbma} is not the tunnel's destination, {destination}"));
            }
            (MapMulticast::Nbma(nbma), _) => check_nbma(&path, *nbma, tunnel, source)?,
            (MapMulticast::Dynamic, None) => {}
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
            push(format!("nhrp.nhs[{n}].protocol"), nhs.protocol.0, false);
            push(format!("nhrp.nhs[{n}].nbma"), nhs.nbma.0, true);
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
