//! Messages for others: passed on along the routes, hop by hop (RFC 2332 §5.2.0.1: requests and indications towards their
//! destination, replies towards their source).
//!
//! 1. Who is known here is reached straight.
//! 2. Else the routes lead the way: nothing depends on what servers know of each other. Where they end, a reply goes back to the server that
//!    its request came from, as the record of the request says.
//! 3. Else a server asks its own servers, if it has any: not the one that the message comes from, and none that it has passed.
//!
//! Every server that a message passes takes a hop, names itself in the record of its direction, makes its authentication anew, and says
//! where its own client is seen that is behind a NAT and does not say so (`nat`). One that does not know a compulsory extension of it
//! takes the hop and makes the authentication anew, and that is all (RFC 2332 §5.3).

use std::net::IpAddr;

use model::{InterfaceName, Prefix, ProtocolAddr};
use wire::nhrp::{Body, ErrorCode, ExtensionType, Family, Message};

use crate::cloud::Cloud;
use crate::complaint::culprit;
use crate::engine::Engine;
use crate::extension;
use crate::input::Peer;
use crate::nhs::Server;
use crate::receive::Came;
use crate::turn::Turn;
use crate::{Reject, Routes, To};

/// More than is ever added to a message that is passed on: six entries and a text.
const ADDED: usize = 6 * 44 + 16;

/// Where an address is, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    /// Here.
    Own,
    /// Behind this node: the route leaves the cloud.
    Egress,
    /// By way of a peer.
    Peer {
        /// On this tunnel.
        tunnel: InterfaceName,
        /// It is this one.
        peer: Peer,
    },
    /// By way of a peer that nothing is known of, or there is no route.
    Unbound,
    /// Nowhere: a route says so.
    Nowhere,
}

impl Engine {
    /// Where an address is, seen from a tunnel.
    pub(crate) fn toward(&self, from: InterfaceName, address: ProtocolAddr, routes: &dyn Routes) -> Toward {
        let Some(cloud) = self.clouds.get(&from) else { return Toward::Nowhere };
        if self.is_own(from, address) {
            return Toward::Own;
        }
        if let Some(peer) = cloud.binding(address) {
            return Toward::Peer { tunnel: from, peer };
        }
        // On every link there may be the same one: no route says by which.
        if address.is_link_local() {
            return Toward::Unbound;
        }
        let found = routes.lookup(cloud.tunnel.table, address);
        let registered = cloud.registered_route(address);
        let is_longest = |prefix: Prefix| found.is_none_or(|f| f.prefix.length() <= prefix.length());
        if let Some((_, client)) = registered.filter(|(prefix, _)| is_longest(*prefix))
            && let Some(peer) = cloud.binding(client)
        {
            return Toward::Peer { tunnel: from, peer };
        }
        let Some(found) = found else { return Toward::Unbound };
        let hop = match found.to {
            To::Nowhere => return Toward::Nowhere,
            To::Local => return Toward::Own,
            To::Elsewhere(_) => return Toward::Egress,
            To::Tunnel(hop) => hop,
        };
        let next = self.clouds.get(&hop.interface);
        let next = next.filter(|c| c.tunnel.nhrp.network_id == cloud.tunnel.nhrp.network_id);
        // Another cloud, or a tunnel without NHRP: this one ends here.
        let Some(next) = next else { return Toward::Egress };
        match next.peer(ProtocolAddr(hop.next_hop)) {
            Some(peer) => Toward::Peer { tunnel: hop.interface, peer },
            None => Toward::Unbound,
        }
    }

    /// As [`Self::toward`] for a message that came, and what is not known here is known to a server, if there is one that has not seen the
    /// message yet: a server asks its own.
    pub(crate) fn toward_or_server(
        &self,
        came: Came<'_>,
        message: &Message,
        address: ProtocolAddr,
        routes: &dyn Routes,
    ) -> Toward {
        let toward = self.toward(came.tunnel, address, routes);
        if toward != Toward::Unbound {
            return toward;
        }
        if let Some(peer) = self.back(came.tunnel, message) {
            return Toward::Peer { tunnel: came.tunnel, peer };
        }
        let passed = recorded(message, record_of(message));
        let is_new = |server: &Server| {
            server.at() != Some(came.from.nbma)
                && server.protocol.is_none_or(|p| Some(p.0) != message.source && !passed.contains(&p.0))
        };
        let cloud = self.clouds.get(&came.tunnel);
        match cloud.and_then(|c| c.best_server(address, is_new)) {
            Some(nbma) => Toward::Peer { tunnel: came.tunnel, peer: nbma.into() },
            None => Toward::Unbound,
        }
    }

    /// Where the request of a reply came from that passed here, as its record says: the server that it passed before this one.
    fn back(&self, tunnel: InterfaceName, message: &Message) -> Option<Peer> {
        if !is_reply(message) {
            return None;
        }
        let passed = recorded(message, ExtensionType::FORWARD_TRANSIT);
        let us = passed.iter().position(|a| self.is_own(tunnel, ProtocolAddr(*a)))?;
        let before = passed.get(us.checked_sub(1)?)?;
        self.clouds.get(&tunnel)?.binding(ProtocolAddr(*before))
    }

    /// Passes a message on that came.
    pub(crate) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        message: Message,
    ) -> Result<(), Reject> {
        let target = ProtocolAddr(target_of(&message).ok_or(Reject::Address)?);
        self.check_way(turn, came, &message)?;
        let toward = self.toward_or_server(came, &message, target, turn.routes);
        self.pass_on(turn, came, message, toward)
    }

    /// Passes a message on, the way of which has been looked at.
    pub(crate) fn pass_on(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        mut message: Message,
        toward: Toward,
    ) -> Result<(), Reject> {
        let target = ProtocolAddr(target_of(&message).ok_or(Reject::Address)?);
        let culprit = culprit(&message);
        let (out, peer) = match toward {
            // In an underlay of the other family nobody is where the message says.
            Toward::Peer { tunnel, peer } if Family::of(peer.nbma.0) == message.families.nbma => {
                (tunnel, peer)
            }
            _ => {
                self.complain(turn, came, culprit, ErrorCode::PROTOCOL_ADDRESS_UNREACHABLE, 0);
                return Err(Reject::Unreachable);
            }
        };
        if out == came.tunnel && peer == came.source() {
            self.complain(turn, came, culprit, ErrorCode::LOOP_DETECTED, 0);
            return Err(Reject::Loop);
        }
        // RFC 2332 §5.1: what comes with 0 has no hop left.
        if message.hop_count == 0 {
            self.complain(turn, came, culprit, ErrorCode::HOP_COUNT_EXCEEDED, 9);
            return Err(Reject::HopCount);
        }
        message.hop_count -= 1;
        // RFC 2332 §5.3: who does not know a compulsory extension passes it on, and does not name itself.
        if extension::unrecognized(&message).is_none() {
            if let Some(cloud) = self.clouds.get_mut(&came.tunnel) {
                cloud.hear(turn, came.source(), &message);
                cloud.say_where_clients_are(&mut message);
            }
            if let Some(cloud) = self.clouds.get(&out) {
                cloud.sign(&mut message, target);
            }
        }
        let Some(cloud) = self.clouds.get_mut(&out) else { return Err(Reject::NoTunnel) };
        if came.bytes.len() + ADDED > usize::from(cloud.tunnel.mtu) && !cloud.fits(&message) {
            self.complain(turn, came, culprit, ErrorCode::SDU_SIZE_EXCEEDED, 0);
            return Err(Reject::TooLong);
        }
        cloud.send(turn, peer, message);
        Ok(())
    }

    /// Refuses to pass on what has passed here before (RFC 2332 §5.3.1, §5.3.2, §5.3.3), and what hides whether it has.
    pub(crate) fn check_way(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        message: &Message,
    ) -> Result<(), Reject> {
        // Of that, the rest is not our business.
        if extension::unrecognized(message).is_some() {
            return Ok(());
        }
        if let Some(place) = extension::invalid(message) {
            let offset = extension::offset(message, place, came.bytes);
            self.complain(turn, came, culprit(message), ErrorCode::INVALID_EXTENSION, offset);
            return Err(Reject::InvalidExtension);
        }
        let mut records = vec![record_of(message)];
        records.extend(is_reply(message).then_some(ExtensionType::RESPONDER));
        let names_us = |record: &ExtensionType| {
            recorded(message, *record).iter().any(|a| self.is_own(came.tunnel, ProtocolAddr(*a)))
        };
        let Some(record) = records.into_iter().find(names_us) else { return Ok(()) };
        let place = message.extensions.iter().flatten().position(|e| e.kind() == record);
        let offset = place.map_or(0, |place| extension::offset(message, place, came.bytes));
        self.complain(turn, came, culprit(message), ErrorCode::LOOP_DETECTED, offset);
        Err(Reject::Loop)
    }
}

impl Cloud {
    /// Names this node in the record of a message that leaves towards `target`, if its sender wants that.
    fn sign(&self, message: &mut Message, target: ProtocolAddr) {
        let Some(own) = self.identity(target) else { return };
        let (families, record, entry) = (message.families, record_of(message), self.own_entry(&own));
        if let Some(passed) = message.extension_mut(record) {
            // What has no room here is too long for every way.
            let _ = passed.push(&entry, families);
        }
    }

    /// Whether a message is as short as the tunnel takes.
    pub(crate) fn fits(&self, message: &Message) -> bool {
        message.encode().len() <= usize::from(self.tunnel.mtu)
    }
}

/// The extension in which the servers name themselves that a message passes.
fn record_of(message: &Message) -> ExtensionType {
    if is_reply(message) { ExtensionType::REVERSE_TRANSIT } else { ExtensionType::FORWARD_TRANSIT }
}

/// The protocol address that a message travels to.
fn target_of(message: &Message) -> Option<IpAddr> {
    if is_reply(message) { message.source } else { message.destination }
}

fn is_reply(message: &Message) -> bool {
    matches!(&message.body, Body::Exchange { kind, .. } if kind.is_reply())
}

/// The protocol addresses that an extension names.
fn recorded(message: &Message, record: ExtensionType) -> Vec<IpAddr> {
    let entries = message.extension(record).and_then(|e| e.entries(message.families).ok());
    entries.into_iter().flatten().filter_map(|e| e.protocol).collect()
}
