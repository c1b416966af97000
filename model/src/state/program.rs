//! What is programmed, as the data plane has it (`show program`): interfaces, tunnels, neighbours, bindings, routes, replicas,
//! fall-backs.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::routes::{is_by, owner, path};
use super::table::{Table, or_dash};
use super::time::expiry;
use super::{Filter, list};
use crate::TableId;
use crate::program::{Hop, Object, Owner, TunnelMode};

/// A programmed object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Programmed {
    /// Whose it is.
    pub owner: Owner,
    /// The object; its `expires_in` is what remains now.
    pub object: Object,
    /// Marked by a resync and not put again yet.
    pub stale: bool,
}

impl Programmed {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_owner(self.owner)
            && self.is_on(filter)
            && self.table().is_none_or(|table| filter.admits_table(table))
            && filter.admits_address(|a| self.has(a))
    }

    fn is_on(&self, filter: &Filter) -> bool {
        let name = match &self.object {
            Object::Interface(o) => o.name,
            Object::Tunnel(o) => o.name,
            Object::Neighbour(o) => o.hop.interface,
            Object::Binding(o) => o.tunnel,
            Object::Route(o) => return is_by(&o.path, filter),
            Object::Replica(o) => o.tunnel,
            Object::Fallback(o) => o.tunnel,
            Object::PathMtu(o) => o.tunnel,
            // Of a profile's tunnels, which it does not name.
            Object::InboundSa(_) | Object::OutboundSa(_) => return filter.admits_interface(None),
        };
        filter.admits_interface(Some(name))
    }

    fn table(&self) -> Option<TableId> {
        match &self.object {
            Object::Interface(o) => Some(o.table),
            Object::Tunnel(o) => Some(o.table),
            Object::Route(o) => Some(o.table),
            Object::InboundSa(o) => Some(o.protection.table),
            Object::OutboundSa(o) => Some(o.protection.table),
            _ => None,
        }
    }

    fn has(&self, addr: IpAddr) -> bool {
        match &self.object {
            Object::Interface(_) => false,
            Object::Tunnel(o) => o.source.0 == addr,
            Object::Neighbour(o) => o.hop.next_hop == addr,
            Object::Binding(o) => o.next_hop.0 == addr || o.nbma.0 == addr,
            Object::Route(o) => o.prefix.contains(addr),
            Object::Replica(o) => o.nbma.0 == addr,
            Object::Fallback(o) => o.next_hop.0 == addr,
            Object::PathMtu(o) => o.nbma.0 == addr,
            Object::InboundSa(o) => o.protection.remote.0 == addr || o.protection.local.0 == addr,
            Object::OutboundSa(o) => o.protection.remote.0 == addr || o.protection.local.0 == addr,
        }
    }

    /// Kind, name, and what else there is to say.
    fn cells(&self) -> (&'static str, String, String, Option<Duration>) {
        match &self.object {
            Object::Interface(o) => {
                let forwarding = if o.forwarding { "forwarding" } else { "not forwarding" };
                let vlan = o.vlan.map_or_else(String::new, |vlan| format!(", VLAN {vlan}"));
                let more = format!("port {}{vlan}, table {}, MTU {}, {forwarding}", o.port, o.table.0, o.mtu);
                ("interface", o.name.to_string(), more, None)
            }
            Object::Tunnel(o) => {
                let to = match o.mode {
                    TunnelMode::Multipoint => "multipoint".to_owned(),
                    TunnelMode::PointToPoint { destination } => format!("to {destination}"),
                };
                let redirect = if o.redirect { ", redirect" } else { "" };
                let protection = o.protection.map_or_else(String::new, |by| format!(", protected by {by}"));
                let more = format!(
                    "{to}, from {} ({}), key {}, network id {}, table {}/{}, MTU {}, TTL {}{redirect}{protection}",
                    o.source,
                    o.source_interface,
                    or_dash(o.key),
                    o.network_id,
                    o.table.0,
                    o.underlay_table.0,
                    o.mtu,
                    o.ttl
                );
                ("tunnel", o.name.to_string(), more, None)
            }
            Object::Neighbour(o) => ("neighbour", hop(&o.hop), format!("at {}", o.mac), None),
            Object::Binding(o) => {
                let name = format!("{} on {}", o.next_hop, o.tunnel);
                ("binding", name, format!("at {}, {}", o.nbma, link(o.link)), o.expires_in)
            }
            Object::Route(o) => {
                ("route", format!("{} in {}", o.prefix, o.table.0), path(&o.path), o.expires_in)
            }
            Object::Replica(o) => ("replica", format!("{} on {}", o.nbma, o.tunnel), link(o.link), None),
            Object::Fallback(o) => ("fallback", o.tunnel.to_string(), format!("to {}", o.next_hop), None),
            Object::PathMtu(o) => {
                ("path-mtu", format!("{} on {}", o.nbma, o.tunnel), o.mtu.to_string(), o.expires_in)
            }
            Object::InboundSa(o) => {
                let more = format!("{}, {}, {}, window {}", o.protection, o.key.suite(), o.mode, o.window);
                ("inbound-sa", o.spi.to_string(), more, None)
            }
            Object::OutboundSa(o) => {
                let name = format!("{} by worker {}", o.protection, o.worker.0);
                let lease = format!("sequence numbers {} to {}", o.lease.first, o.lease.last);
                ("outbound-sa", name, format!("{}, {}, {}, {lease}", o.spi, o.key.suite(), o.mode), None)
            }
        }
    }
}

fn hop(hop: &Hop) -> String {
    format!("{} on {}", hop.next_hop, hop.interface)
}

fn link(link: Option<Hop>) -> String {
    link.map_or_else(|| "no underlay path".to_owned(), |l| format!("via {}", hop(&l)))
}

list! {
    /// Programmed objects.
    Program of Programmed
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["Kind", "Object", "Owner", "Expires", "What"], "nothing is programmed");
        for p in &self.0 {
            let (kind, name, more, expires_in) = p.cells();
            let whose = owner(p.owner);
            let whose = if p.stale { format!("{whose} (stale)") } else { whose.to_owned() };
            table.row([kind.to_owned(), name, whose, expiry(expires_in), more]);
        }
        table.fmt(f)
    }
}
