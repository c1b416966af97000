//! Static routes of the configuration, kept in the kernel so that the node's own sockets and daemons go the way that the data
//! plane goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::Prefix;
use model::program::{Hop, Path, Route};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::fact::Fact;
use super::mirror::Mirror;
use super::netlink::Netlink;
use super::{Failure, PROTOCOL};

/// Makes it so that of our routes these are in the main table and no others. Leaves routes that are not ours alone: where
/// there is one to the same prefix with the same metric, ours is a failure.
pub(super) async fn settle(netlink: &Netlink, wanted: &[&Route], mirror: &Mirror) -> Vec<Failure> {
    let facts = match netlink.routes(Some(RouteProtocol::Other(PROTOCOL))).await {
        Ok(facts) => facts,
        Err(error) => return vec![Failure::new("list routes", error)],
    };
    let ours: BTreeMap<Prefix, Option<Path>> = facts
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Route { route, .. } => Some((route.prefix, mirror.path(&route.way))),
            _ => None,
        })
        .collect();
    let mut failures = Vec::new();
    let prefixes: BTreeSet<Prefix> = wanted.iter().map(|route| route.prefix).collect();
    for prefix in ours.keys().filter(|prefix| !prefixes.contains(prefix)) {
        let mut message = blank(*prefix);
        // Of whatever scope and type.
        message.header.scope = RouteScope::NoWhere;
        match netlink.change(RouteNetlinkMessage::DelRoute(message), 0).await {
            Err(error) if !error.is_absence() => {
                failures.push(Failure::new(format!("remove route {prefix}"), error));
            }
            _ => {}
        }
    }
    for route in wanted {
        let before = ours.get(&route.prefix);
        if before.is_some_and(|path| path.as_ref() == Some(&route.path)) {
            continue;
        }
        let flags = if before.is_some() { NLM_F_REPLACE } else { NLM_F_EXCL };
        let result = match message(route, mirror) {
            Ok(message) => netlink
                .change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flags)
                .await
                .map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        failures
            .extend(result.err().map(|reason| Failure::new(format!("put route {}", route.prefix), reason)));
    }
    failures
}

fn blank(prefix: Prefix) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = match prefix.addr() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.destination_prefix_length = prefix.length();
    message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    message
}

fn message(route: &Route, mirror: &Mirror) -> Result<RouteMessage, String> {
    let link = |interface| {
        mirror.link(interface).map(|(index, _)| index).ok_or_else(|| format!("no twin `{interface}`"))
    };
    let mut message = blank(route.prefix);
    message.header.kind = RouteType::Unicast;
    // Onlink: the configuration says on which twin a next hop is; it need not be in a prefix of it.
    match &route.path {
        Path::Via(hop) => {
            message.attributes.push(RouteAttribute::Oif(link(hop.interface)?));
            message.attributes.push(gateway(route.prefix, hop.next_hop));
            message.header.flags = RouteFlags::Onlink;
        }
        Path::Balanced(hops) => {
            let next_hop = |hop: &Hop| {
                let mut next_hop = RouteNextHop::default();
                next_hop.interface_index = link(hop.interface)?;
                next_hop.flags = RouteNextHopFlags::Onlink;
                next_hop.attributes.push(gateway(route.prefix, hop.next_hop));
                Ok(next_hop)
            };
            let next_hops = hops.iter().map(next_hop).collect::<Result<_, String>>()?;
            message.attributes.push(RouteAttribute::MultiPath(next_hops));
        }
        Path::Attached(interface) => {
            message.attributes.push(RouteAttribute::Oif(link(*interface)?));
            message.header.scope = RouteScope::Link;
        }
        Path::Unreachable => message.header.kind = RouteType::Unreachable,
        Path::Blackhole => message.header.kind = RouteType::BlackHole,
        Path::Receive(_) => return Err("a route to this box is the kernel's to make".to_owned()),
    }
    Ok(message)
}

/// A next hop of the other family goes into an attribute of its own (RFC 5549).
fn gateway(prefix: Prefix, next_hop: IpAddr) -> RouteAttribute {
    use netlink_packet_route::route::RouteVia;
    match next_hop {
        IpAddr::V6(addr) if prefix.addr().is_ipv4() => RouteAttribute::Via(RouteVia::Inet6(addr)),
        addr => RouteAttribute::Gateway(RouteAddress::from(addr)),
    }
}
