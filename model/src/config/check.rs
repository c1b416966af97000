//! Whether a configuration makes sense. It is read whole or not at all: the first thing that is wrong is a [`Fault`].
//!
//! In order: the text is TOML; every field is known and of its type; each thing makes sense alone; all of it makes sense together.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{Config, Interface, is_link_local};
use crate::{InterfaceAddr, InterfaceName, Prefix, TableId};

mod ike;
mod nhrp;
mod profiles;
mod read;
mod routes;
mod tunnels;

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;

/// What is wrong, and where: `tunnels[2].nhrp.holding_time: 0 is not allowed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Fault {
    /// Path of the field in the file; `file` for text that is no TOML.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

type Checked = Result<(), Fault>;

impl Config {
    /// Reads a file's text and checks it.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let config: Self = read::read(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what was read, or made otherwise.
    ///
    /// # Errors
    /// The first fault, with its path.
    pub fn check(&self) -> Checked {
        self.check_files()?;
        self.check_tables()?;
        self.check_names()?;
        for (n, interface) in self.interfaces.iter().enumerate() {
            check_interface(n, interface)?;
        }
        for (n, tunnel) in self.tunnels.iter().enumerate() {
            tunnels::check(self, n, tunnel)?;
        }
        self.check_addresses()?;
        tunnels::check_together(self)?;
        profiles::check(self)?;
        routes::check(self)
    }

    fn check_files(&self) -> Checked {
        if self.node.name.trim().is_empty() {
            return fault("node.name", "must not be empty");
        }
        let files = [
            ("node.state_file", &self.node.state_file),
            ("dataplane.socket", &self.dataplane.socket),
            ("management.socket", &self.management.socket),
        ];
        for (n, (path, file)) in files.into_iter().enumerate() {
            check_file(path, file)?;
            if let Some((other, _)) = files[..n].iter().find(|(_, other)| *other == file) {
                return fault(path, format_args!("{} is also {other}", file.display()));
            }
        }
        Ok(())
    }

    /// Tables against each other, and that everything is in one that there is.
    fn check_tables(&self) -> Checked {
        if self.tables.len() > MOST_TABLES {
            return fault("tables", format_args!("{} are more than {MOST_TABLES}", self.tables.len()));
        }
        for (n, table) in self.tables.iter().enumerate() {
            let path = format!("tables[{n}]");
            if table.id == TableId(0) {
                return fault(path + ".id", "0 is there without being named");
            }
            let name = table.netns();
            let is_name = |name: &str| {
                !name.is_empty() && name.len() <= 64 && !name.contains('/') && name != "." && name != ".."
            };
            if !is_name(&name) {
                let problem = format_args!("`{name}` is not a name of a network namespace");
                return fault(path + ".netns", problem);
            }
            for (m, other) in self.tables[..n].iter().enumerate() {
                if other.id == table.id {
                    return fault(path + ".id", format_args!("{} is also tables[{m}]", table.id.0));
                }
                if other.netns() == name {
                    return fault(path + ".netns", format_args!("`{name}` is also that of tables[{m}]"));
                }
            }
        }
        let interfaces = self.interfaces.iter().enumerate();
        let used = interfaces.map(|(n, i)| (format!("interfaces[{n}].table"), i.table));
        let tunnels = self.tunnels.iter().enumerate();
        let used = used.chain(tunnels.flat_map(|(n, t)| {
            let underlay = (format!("tunnels[{n}].underlay_table"), t.underlay_table);
            [(format!("tunnels[{n}].table"), t.table), underlay]
        }));
        let routes = self.routes.iter().enumerate().map(|(n, r)| (format!("routes[{n}].table"), r.table));
        for (path, table) in used.chain(routes) {
            if self.netns(table).is_none() && table != TableId(0) {
                return fault(path, format_args!("{} is not one of tables", table.0));
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Checked {
        let mut names = HashMap::new();
        let interfaces =
            self.interfaces.iter().enumerate().map(|(n, i)| (format!("interfaces[{n}]"), i.name));
        let tunnels = self.tunnels.iter().enumerate().map(|(n, t)| (format!("tunnels[{n}]"), t.name));
        for (path, name) in interfaces.chain(tunnels) {
            if name.as_str() == "lo" {
                return fault(path + ".name", "`lo` is the kernel's own interface");
            }
            if let Some(other) = names.get(&name) {
                return fault(path + ".name", format_args!("`{name}` is also {other}"));
            }
            names.insert(name, path);
        }
        let mut ports = HashMap::new();
        for (n, interface) in self.interfaces.iter().enumerate() {
            let (field, port) = match &interface.port {
                Some(port) => ("port", port.as_str()),
                None => ("name", interface.name.as_str()),
            };
            if port.is_empty() {
                return fault(format_args!("interfaces[{n}].port"), "must not be empty");
            }
            if let Some(other) = ports.insert((port, interface.vlan), n) {
                let vlan = interface.vlan.map_or_else(String::new, |vlan| format!("VLAN {vlan} of "));
                let problem = format_args!("{vlan}port `{port}` is also that of interfaces[{other}]");
                return fault(format_args!("interfaces[{n}].{field}"), problem);
            }
        }
        Ok(())
    }

    /// Own addresses against each other. Several of one interface may be in one prefix.
    fn check_addresses(&self) -> Checked {
        let all = self.own_addresses();
        for (n, own) in all.iter().enumerate() {
            for other in all[..n].iter().filter(|other| other.table == own.table) {
                // Each link has its own.
                let both_link_local = [own, other].iter().all(|o| is_link_local(o.addr.addr()));
                if own.interface != other.interface && both_link_local {
                    continue;
                }
                if own.addr.addr() == other.addr.addr() {
                    return fault(&own.path, format_args!("{} is also {}", own.addr.addr(), other.path));
                }
                if own.interface != other.interface && overlap(own.addr, other.addr) {
                    return fault(
                        &own.path,
                        format_args!("{} overlaps {}, {}", own.addr, other.path, other.addr),
                    );
                }
            }
        }
        Ok(())
    }

    /// Every own address, in the order of the file.
    fn own_addresses(&self) -> Vec<Own> {
        let of = |path: String, interface, table, addresses: &[InterfaceAddr]| {
            let own = |(n, &addr)| Own { path: format!("{path}.addresses[{n}]"), interface, table, addr };
            addresses.iter().enumerate().map(own).collect::<Vec<_>>()
        };
        let interfaces = self.interfaces.iter().enumerate();
        let interfaces =
            interfaces.flat_map(|(n, i)| of(format!("interfaces[{n}]"), i.name, i.table, &i.addresses));
        let tunnels = self.tunnels.iter().enumerate();
        let tunnels = tunnels.flat_map(|(n, t)| of(format!("tunnels[{n}]"), t.name, t.table, &t.addresses));
        interfaces.chain(tunnels).collect()
    }

    /// The interface of that name.
    fn interface(&self, name: InterfaceName) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }
}

/// Tables beside table 0: each takes 64 MiB of address space, and memory as it has routes.
const MOST_TABLES: usize = 255;

/// An own address.
struct Own {
    path: String,
    interface: InterfaceName,
    table: TableId,
    addr: InterfaceAddr,
}

fn fault<T>(path: impl Display, problem: impl Display) -> Result<T, Fault> {
    Err(Fault { path: path.to_string(), problem: problem.to_string() })
}

fn check_file(path: &str, file: &Path) -> Checked {
    if !file.is_absolute() {
        return fault(path, format_args!("`{}` is not an absolute path", file.display()));
    }
    // `sun_path` of Linux has 108 bytes, the last of them zero.
    if path.ends_with("socket") && file.as_os_str().len() > 107 {
        return fault(path, format_args!("`{}` has more than 107 bytes", file.display()));
    }
    Ok(())
}

fn check_interface(n: usize, interface: &Interface) -> Checked {
    let path = format!("interfaces[{n}]");
    check_mtu(&path, interface.mtu, &interface.addresses)?;
    check_own(&path, &interface.addresses)
}

/// From what every IPv4 host takes (RFC 791: 576) or IPv6 link carries (RFC 8200: 1280) to what a jumbo frame holds.
fn check_mtu(path: &str, mtu: u16, addresses: &[InterfaceAddr]) -> Checked {
    let least = if addresses.iter().any(|a| a.addr().is_ipv6()) { 1280 } else { 576 };
    if (least..=9216).contains(&mtu) {
        return Ok(());
    }
    fault(format_args!("{path}.mtu"), format_args!("{mtu} is not between {least} and 9216"))
}

/// Each of an interface's own addresses alone.
fn check_own(path: &str, addresses: &[InterfaceAddr]) -> Checked {
    for (n, own) in addresses.iter().enumerate() {
        let path = format_args!("{path}.addresses[{n}]");
        let addr = own.addr();
        if let Some(other) = not_a_host(addr) {
            return fault(path, format_args!("{addr} is {other}"));
        }
        if is_link_local(addr) && !matches!(addr, IpAddr::V6(v6) if v6.to_bits() >> 64 == 0xfe80 << 48) {
            return fault(path, format_args!("{addr} is link-local, but not in fe80::/64"));
        }
        if own.length() == 0 {
            return fault(path, format_args!("{own} has a prefix that holds every address"));
        }
        if let (IpAddr::V4(v4), 1..=30) = (addr, own.length()) {
            let hosts = u32::MAX >> own.length();
            if u32::from(v4) & hosts == 0 {
                return fault(path, format_args!("{own} is the network, not a host in it"));
            }
            if u32::from(v4) & hosts == hosts {
                return fault(path, format_args!("{own} is the broadcast address of its prefix"));
            }
        }
    }
    Ok(())
}

/// What an address is, if it is not one that a host can have.
fn not_a_host(addr: IpAddr) -> Option<&'static str> {
    if addr.is_unspecified() {
        return Some("the unspecified address");
    }
    if addr.is_multicast() {
        return Some("a multicast address");
    }
    if addr.is_loopback() {
        return Some("a loopback address");
    }
    let IpAddr::V4(v4) = addr else { return None };
    match v4.octets()[0] {
        // RFC 1122 §3.2.1.3.
        0 => Some("an address of this network alone"),
        240.. if v4 == Ipv4Addr::BROADCAST => Some("the broadcast address"),
        // RFC 1112 §4.
        240.. => Some("a reserved address"),
        _ => None,
    }
}

fn is_own(interface: &Interface, addr: IpAddr) -> bool {
    interface.addresses.iter().any(|own| own.addr() == addr)
}

fn overlap(a: InterfaceAddr, b: InterfaceAddr) -> bool {
    a.prefix().contains(b.prefix().addr()) || b.prefix().contains(a.prefix().addr())
}

/// Whether one of an interface's own prefixes holds an address; `None` if it has only host prefixes, which hold nobody else.
fn is_on_link(addresses: &[InterfaceAddr], addr: IpAddr) -> Option<bool> {
    let mut prefixes = addresses.iter().map(|a| a.prefix()).filter(|p| !p.is_host()).peekable();
    prefixes.peek()?;
    Some(prefixes.any(|prefix| prefix.contains(addr)))
}

/// Those of an interface's own addresses that are of the family of another.
fn of_family(addresses: &[InterfaceAddr], addr: IpAddr) -> Vec<InterfaceAddr> {
    let is_like = |own: IpAddr| own.is_ipv4() == addr.is_ipv4() && is_link_local(own) == is_link_local(addr);
    addresses.iter().filter(|own| is_like(own.addr())).copied().collect()
}

/// Prefixes as they are written in a fault.
struct Prefixes<'a>(&'a [InterfaceAddr]);

impl Display for Prefixes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.0.iter().map(|a| Prefix::to_string(&a.prefix())).collect();
        f.write_str(&prefixes.join(", "))
    }
}
