//! Messages for others: passed on along the routes, hop by hop (RFC 2332 §5.2.0.1: requests and indications towards their
//! destination, replies towards their source).

use model::{InterfaceName, Prefix, ProtocolAddr};
use wire::nhrp::{Body, ErrorCode, ExtensionType, Message};

use crate::complaint::Complaint;
use crate::engine::Engine;
use crate::input::Peer;
use crate::turn::Turn;
use crate::{Reject, Routes, To};

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
    /// By way of a peer that nothing is known of.
    Unbound,
    /// Nowhere.
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
        let found = routes.lookup(cloud.tunnel.table, address);
        let registered = cloud.registered_route(address);
        let is_longest = |prefix: Prefix| found.is_none_or(|f| f.prefix.length() <= prefix.length());
        if let Some((_, client)) = registered.filter(|(prefix, _)| is_longest(*prefix))
            && let Some(peer) = cloud.binding(client)
        {
            return Toward::Peer { tunnel: from, peer };
        }
        let Some(found) = found else { return Toward::Nowhere };
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

    /// As [`Self::toward`], and what has no binding is known to the server, if there is one: a server asks its own.
    pub(crate) fn toward_or_server(
        &self,
        from: InterfaceName,
        source: Peer,
        address: ProtocolAddr,
        routes: &dyn Routes,
    ) -> Toward {
        match self.toward(from, address, routes) {
            Toward::Unbound => {
                let servers = self.clouds.get(&from).map(|c| &c.servers);
                let of_family = servers.into_iter().flatten().filter(|s| s.is_of_family(address));
                let up = of_family.into_iter().find(|s| s.is_up() && s.nbma != Some(source.nbma));
                let nbma = up.and_then(|s| s.nbma);
                nbma.map_or(Toward::Unbound, |nbma| Toward::Peer { tunnel: from, peer: nbma.into() })
            }
            toward => toward,
        }
    }

    /// Passes a message on that came by `tunnel` from `source`.
    pub(crate) fn forward(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        source: Peer,
        mut message: Message,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let is_reply = matches!(&message.body, Body::Exchange { kind, .. } if kind.is_reply());
        let target = if is_reply { message.source } else { message.destination };
        let target = ProtocolAddr(target.ok_or(Reject::Address)?);
        let complain = |engine: &mut Self, turn: &mut Turn<'_>, message: &Message, code, offset| {
            engine.complain(turn, Complaint { tunnel, source, message, bytes, code, offset });
        };
        let Toward::Peer { tunnel: out, peer } = self.toward_or_server(tunnel, source, target, turn.routes)
        else {
            complain(self, turn, &message, ErrorCode::PROTOCOL_ADDRESS_UNREACHABLE, 0);
            return Err(Reject::Unreachable);
        };
        if out == tunnel && peer == source {
            return Err(Reject::Loop);
        }
        if message.hop_count == 0 {
            complain(self, turn, &message, ErrorCode::HOP_COUNT_EXCEEDED, 9);
            return Err(Reject::HopCount);
        }
        message.hop_count -= 1;
        let record = if is_reply { ExtensionType::REVERSE_TRANSIT } else { ExtensionType::FORWARD_TRANSIT };
        if self.has_passed(tunnel, &message, record)
            || (is_reply && self.has_passed(tunnel, &message, ExtensionType::RESPONDER))
        {
            complain(self, turn, &message, ErrorCode::LOOP_DETECTED, 0);
            return Err(Reject::Loop);
        }
        let Some(cloud) = self.clouds.get_mut(&out) else { return Err(Reject::NoTunnel) };
        // RFC 2332 §5.3: who does not know a compulsory extension passes it on, and does not name itself.
        if unrecognized(&message).is_none()
            && let Some(own) = cloud.identity(target)
        {
            let (families, entry) = (message.families, cloud.own_entry(&own));
            if let Some(passed) = message.extension_mut(record)
                && !passed.push(&entry, families)
            {
                return Err(Reject::NoRoom);
            }
        }
        cloud.send(turn, peer, message);
        Ok(())
    }

    /// Whether a record of servers in a message that came by a tunnel names this node (RFC 2332 §5.3.2: by its protocol address).
    fn has_passed(&self, tunnel: InterfaceName, message: &Message, record: ExtensionType) -> bool {
        let Some(Ok(entries)) = message.extension(record).map(|e| e.entries(message.families)) else {
            return false;
        };
        let protocols = entries.iter().filter_map(|e| e.protocol);
        protocols.into_iter().any(|a| self.is_own(tunnel, ProtocolAddr(a)))
    }
}

/// The first compulsory extension that is not known here.
pub(crate) fn unrecognized(message: &Message) -> Option<ExtensionType> {
    const KNOWN: [ExtensionType; 6] = [
        ExtensionType::RESPONDER,
        ExtensionType::FORWARD_TRANSIT,
        ExtensionType::REVERSE_TRANSIT,
        ExtensionType::AUTHENTICATION,
        ExtensionType::VENDOR,
        ExtensionType::NAT,
    ];
    let extensions = message.extensions.iter().flatten();
    extensions.filter(|e| e.compulsory()).map(|e| e.kind()).find(|k| !KNOWN.contains(k))
}
