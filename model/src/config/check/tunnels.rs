//! Tunnels: each against its interface, then all against each other.

use super::{Checked, Prefixes, check_mtu, check_own, fault, is_own, nhrp, not_a_host};
use crate::NbmaAddr;
use crate::config::{Config, Interface, Mode, Tunnel};
use crate::program::TcpMss;

/// One tunnel.
pub(super) fn check(config: &Config, n: usize, tunnel: &Tunnel) -> Checked {
    let path = format!("tunnels[{n}]");
    let source = check_source(config, &path, tunnel)?;
    check_destination(&path, tunnel, source)?;
    if let Some(name) = tunnel.protection
        && config.profile(name).is_none()
    {
        return fault(format_args!("{path}.protection"), format_args!("`{name}` is not one of profiles"));
    }
    check_mtu(&path, config.tunnel_mtu(tunnel), &tunnel.addresses)?;
    check_fit(config, &path, tunnel, source)?;
    check_mss(&path, tunnel)?;
    if tunnel.ttl == 0 {
        return fault(format_args!("{path}.ttl"), "0 is not allowed");
    }
    if tunnel.addresses.is_empty() {
        return fault(format_args!("{path}.addresses"), "a tunnel needs an address");
    }
    check_own(&path, &tunnel.addresses)?;
    match &tunnel.nhrp {
        Some(nhrp) => nhrp::check(&format!("{path}.nhrp"), nhrp, tunnel, source),
        None if tunnel.mode == Mode::GreMultipoint => {
            fault(format_args!("{path}.nhrp"), "missing: mode gre-multipoint learns its peers by NHRP")
        }
        None => Ok(()),
    }
}

fn check_source<'a>(config: &'a Config, path: &str, tunnel: &Tunnel) -> Result<&'a Interface, super::Fault> {
    let name = tunnel.source;
    let Some(source) = config.interface(name) else {
        let is_tunnel = config.tunnels.iter().any(|tunnel| tunnel.name == name);
        let what = if is_tunnel { "is a tunnel, not an interface" } else { "is not an interface" };
        return fault(format_args!("{path}.source"), format_args!("`{name}` {what}"));
    };
    if tunnel.underlay_table != source.table {
        let problem =
            format_args!("{} is not the table of `{name}`, {}", tunnel.underlay_table.0, source.table.0);
        return fault(format_args!("{path}.underlay_table"), problem);
    }
    Ok(source)
}

fn check_destination(path: &str, tunnel: &Tunnel, source: &Interface) -> Checked {
    let path = format!("{path}.destination");
    match (tunnel.mode, tunnel.destination) {
        (Mode::Gre, None) => fault(path, "missing: mode gre has one peer"),
        (Mode::GreMultipoint, Some(_)) => fault(path, "is for mode gre only"),
        (Mode::Gre, Some(destination)) => check_nbma(&path, destination, tunnel, source),
        (Mode::GreMultipoint, None) => Ok(()),
    }
}

/// An NBMA address of another node.
pub(super) fn check_nbma(path: &str, nbma: NbmaAddr, tunnel: &Tunnel, source: &Interface) -> Checked {
    if let Some(other) = not_a_host(nbma.0) {
        return fault(path, format_args!("{nbma} is {other}"));
    }
    if is_own(source, nbma.0) {
        return fault(path, format_args!("{nbma} is our own address, of `{}`", source.name));
    }
    if let Some(own) = tunnel.nbma_of(source.addresses.iter().copied())
        && own.0.is_ipv4() != nbma.0.is_ipv4()
    {
        return fault(path, format_args!("{nbma} is not of the family of {own}, our own NBMA address"));
    }
    let overlay = tunnel.addresses.iter().find(|own| own.prefix().contains(nbma.0));
    if let (Some(overlay), true) = (overlay, tunnel.table == tunnel.underlay_table) {
        return fault(path, format_args!("{nbma} is inside the tunnel: in {}", overlay.prefix()));
    }
    Ok(())
}

/// Its packets with outer and GRE header, and with all that protects them, go out whole.
fn check_fit(config: &Config, path: &str, tunnel: &Tunnel, source: &Interface) -> Checked {
    let (mtu, is_ipv6) = (config.tunnel_mtu(tunnel), tunnel.is_ipv6(source));
    let gre = usize::from(mtu) + tunnel.gre_len();
    let profile = tunnel.protection.and_then(|name| config.profile(name));
    let whole = match profile {
        Some(profile) => {
            let is_udp = profile.statics.iter().any(|peer| peer.port != 0);
            profile.encapsulation(is_ipv6, is_udp).packet_len(gre)
        }
        None => gre + if is_ipv6 { 40 } else { 20 },
    };
    if whole <= usize::from(source.mtu) {
        return Ok(());
    }
    let headers = whole - usize::from(mtu);
    let what = if profile.is_some() { "headers and ESP" } else { "headers" };
    let problem = format_args!(
        "{mtu} and {headers} bytes of {what} do not fit into {}, the MTU of `{}`",
        source.mtu, source.name
    );
    fault(format_args!("{path}.mtu"), problem)
}

/// From what every host takes (RFC 9293 §3.7.1: 536, and some links carry less) without being absurd, to what a jumbo frame holds.
fn check_mss(path: &str, tunnel: &Tunnel) -> Checked {
    match tunnel.tcp_mss.0 {
        TcpMss::Most(most) if !(216..=9176).contains(&most) => {
            fault(format_args!("{path}.tcp_mss"), format_args!("{most} is not between 216 and 9176"))
        }
        _ => Ok(()),
    }
}

/// A packet that arrives belongs to one tunnel only.
pub(super) fn check_together(config: &Config) -> Checked {
    for (n, tunnel) in config.tunnels.iter().enumerate() {
        for (m, other) in config.tunnels[..n].iter().enumerate() {
            let apart = (tunnel.mode == Mode::Gre
                && other.mode == Mode::Gre
                && tunnel.destination != other.destination)
                || is_at_another_address(config, tunnel, other);
            if (tunnel.source, tunnel.key) == (other.source, other.key) && !apart {
                let key = tunnel.key.map_or_else(|| "no key".to_owned(), |key| format!("{key}"));
                let problem = format_args!("tunnels[{m}] has the same source and the same key, {key}");
                return fault(format_args!("tunnels[{n}].key"), problem);
            }
        }
    }
    Ok(())
}

/// Whether two tunnels of one source have different addresses of it.
fn is_at_another_address(config: &Config, tunnel: &Tunnel, other: &Tunnel) -> bool {
    let Some(source) = config.interface(tunnel.source) else { return false };
    let own = |tunnel: &Tunnel| tunnel.nbma_of(source.addresses.iter().copied());
    own(tunnel) != own(other)
}

/// Says that an address is on none of a tunnel's prefixes.
pub(super) fn off_link(path: &str, addr: std::net::IpAddr, tunnel: &Tunnel) -> Checked {
    fault(path, format_args!("{addr} is not in the tunnel's prefix, {}", Prefixes(&tunnel.addresses)))
}
