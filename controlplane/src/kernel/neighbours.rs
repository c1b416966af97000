//! Neighbours that were asked for: ARP and, the same to netlink, Neighbour Discovery.

use std::collections::VecDeque;
use std::net::IpAddr;

use model::program::Hop;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use tracing::debug;

use super::fact::{Certainty, Life};
use super::mirror::Mirror;
use super::netlink::{self, Netlink};
use super::{Failure, Kind, Notice, PROTOCOL};

/// Has a neighbour resolved and kept. `manages`: whether this kernel keeps neighbours resolved by itself; not known before the
/// first.
pub(super) async fn resolve(
    netlink: &Netlink,
    mirror: &Mirror,
    hop: Hop,
    manages: &mut Option<bool>,
    out: &mut VecDeque<Notice>,
) -> Result<(), Failure> {
    let failed = |reason: &dyn ToString| {
        Failure::new(format!("resolve {} on `{}`", hop.next_hop, hop.interface), reason.to_string())
    };
    let Some((link, Kind::Tap { .. })) = mirror.link(hop.interface) else {
        return Err(failed(&"that is no twin of a port"));
    };
    if let Some((mac, certainty)) = mirror.neighbour(&hop) {
        out.push_back(Notice::Neighbour { hop, mac: Some(mac) });
        if matches!(certainty, Certainty::Fixed | Certainty::Managed) {
            return Ok(());
        }
    }
    if *manages != Some(false) {
        ask(netlink, manage(link, &hop)).await.map_err(|error| failed(&error))?;
    }
    if manages.is_none() {
        *manages = Some(is_managed(netlink, link, &hop).await.map_err(|error| failed(&error))?);
    }
    if *manages == Some(false) {
        ask(netlink, make_use(link, &hop)).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Keeps resolved what we asked for, as long as it answers.
pub(super) async fn see(netlink: &Netlink, mirror: &Mirror, index: u32, next_hop: IpAddr, life: Life) {
    let Some((interface, _)) = mirror.twin(index) else { return };
    let hop = Hop { interface, next_hop };
    let result = match life {
        // The kernel does not keep it, and nothing that the kernel sees uses it.
        Life::Resolved { certainty: Certainty::Stale, .. } => ask(netlink, make_use(index, &hop)).await,
        // It would be asked for, for ever.
        Life::Failed => {
            let message = RouteNetlinkMessage::DelNeighbour(neighbour(index, &hop));
            netlink.change(message, 0).await
        }
        Life::Resolved { .. } | Life::Asking | Life::Gone => return,
    };
    if let Err(error) = result
        && !error.is_absence()
    {
        debug!(%error, %next_hop, %interface, "the kernel does not keep a neighbour");
    }
}

async fn ask(netlink: &Netlink, message: NeighbourMessage) -> Result<(), netlink::Error> {
    let message = RouteNetlinkMessage::NewNeighbour(message);
    netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE).await
}

/// Whether the kernel understood: before Linux 5.16 it does not, and says nothing.
async fn is_managed(netlink: &Netlink, link: u32, hop: &Hop) -> Result<bool, netlink::Error> {
    let answer = netlink.one(RouteNetlinkMessage::GetNeighbour(neighbour(link, hop))).await?;
    let Some(RouteNetlinkMessage::NewNeighbour(message)) = answer else { return Ok(false) };
    Ok(message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    }))
}

fn neighbour(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link;
    message.header.family = if hop.next_hop.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.state = NeighbourState::None;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(hop.next_hop.into()));
    message
}

/// Marked as asked for by us.
fn ours(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = neighbour(link, hop);
    message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    message
}

/// The kernel resolves the neighbour now and whenever it goes stale (`NTF_EXT_MANAGED`).
fn manage(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = ours(link, hop);
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    message
}

/// As if a packet had been sent to the neighbour (`NTF_USE`): resolves it, or confirms it within seconds.
fn make_use(link: u32, hop: &Hop) -> NeighbourMessage {
    let mut message = ours(link, hop);
    message.header.flags = NeighbourFlags::Use;
    message
}
