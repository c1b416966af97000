//! A packet that came: read, authenticated, and brought to whom it is for.

use model::{InterfaceName, ProtocolAddr};
use wire::nhrp::{Body, CieCode, ErrorCode, Kind, Message};

use crate::auth;
use crate::complaint::Complaint;
use crate::engine::Engine;
use crate::forward::{Toward, unrecognized};
use crate::input::Peer;
use crate::turn::Turn;
use crate::{Reject, Sender};

impl Engine {
    /// A packet came by a tunnel. The path:
    /// 1. the tunnel runs NHRP, 2. the bytes are a message, 3. its authentication is right, 4. there are not too many,
    /// 5. it is for us, or it is passed on.
    pub(crate) fn receive(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        from: &Sender,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let source = from.peer();
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        let message = Message::decode(bytes)?;
        cloud.messages[message.message_type() as usize - 1].1 += 1;
        if let Err(reject) = auth::check(&message, cloud.tunnel.nhrp.authentication.as_deref()) {
            let code = ErrorCode::AUTHENTICATION_FAILURE;
            let complaint = Complaint { tunnel, source, message: &message, bytes, code, offset: 0 };
            self.complain(turn, complaint);
            return Err(reject);
        }
        match &message.body {
            Body::Exchange { kind, .. } => {
                let kind = *kind;
                self.exchange(turn, tunnel, from, kind, message, bytes)
            }
            Body::Traffic { packet, .. } => cloud.traffic_indication(turn, packet),
            // Nothing is done upon one. It is passed on if it is for somebody else; one about us from us is dropped.
            Body::Error { .. } => {
                let is_ours =
                    |a: Option<std::net::IpAddr>| a.is_none_or(|a| self.is_own(tunnel, ProtocolAddr(a)));
                if is_ours(message.destination) || is_ours(message.source) {
                    return Ok(());
                }
                self.forward(turn, tunnel, source, message, bytes)
            }
        }
    }

    /// Types 1 to 6.
    fn exchange(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        sender: &Sender,
        kind: Kind,
        message: Message,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let source = sender.peer();
        let from = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let to = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        if !kind.is_reply() {
            let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
            let limits = cloud.tunnel.nhrp.limits;
            let (all, each) = (limits.requests_per_second, limits.requests_per_second_per_peer);
            // Without an answer: to answer a flood is to make another one.
            if !cloud.requests.take(turn.now, source, all, each) {
                return Err(Reject::RateLimited);
            }
            // Our own request, back again.
            if self.is_own(tunnel, from) {
                return Err(Reject::Loop);
            }
        }
        if kind == Kind::ResolutionRequest {
            return self.resolution_request(turn, tunnel, source, to, message, bytes);
        }
        // A client that does not know its server names itself (RFC 2332 §5.2.3, §5.2.5).
        let is_own = |address| self.is_own(tunnel, address);
        let is_for_us = if kind.is_reply() { is_own(from) } else { is_own(to) || from == to };
        if !is_for_us {
            return self.forward(turn, tunnel, source, message, bytes);
        }
        self.check_extensions(turn, tunnel, source, &message, bytes)?;
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        match kind {
            Kind::RegistrationRequest => cloud.registration_request(turn, sender, message),
            Kind::RegistrationReply => cloud.registration_reply(turn, &message),
            Kind::PurgeRequest => cloud.purge_request(turn, sender, message),
            Kind::PurgeReply => cloud.purge_reply(turn, &message),
            Kind::ResolutionReply | Kind::ResolutionRequest => {
                let Body::Exchange { request_id, .. } = message.body else { return Err(Reject::Malformed) };
                let is_duplicate = cloud.answered.contains(&request_id);
                let done = cloud.resolution_reply(turn, &message);
                if done == Err(Reject::Unsolicited) && !is_duplicate {
                    let code = ErrorCode::INVALID_RESOLUTION_REPLY;
                    let complaint = Complaint { tunnel, source, message: &message, bytes, code, offset: 0 };
                    self.complain(turn, complaint);
                }
                done
            }
        }
    }

    /// Somebody asks for an address: it is answered here, passed on, or refused.
    fn resolution_request(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        source: Peer,
        destination: ProtocolAddr,
        message: Message,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        let toward = self.toward_or_server(tunnel, source, destination, turn.routes);
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        let (code, reject) = match toward {
            Toward::Own | Toward::Egress => {
                let prefix = cloud.answer_prefix(turn, destination);
                match prefix.filter(|_| cloud.is_multipoint()) {
                    None => (CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Prohibited),
                    Some(_) if cloud.has_told_enough(turn) => {
                        (CieCode::INSUFFICIENT_RESOURCES, Reject::NoRoom)
                    }
                    Some(prefix) => {
                        self.check_extensions(turn, tunnel, source, &message, bytes)?;
                        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
                        return cloud.answer(turn, source, message, prefix);
                    }
                }
            }
            // Behind the requester itself: it has no better way than the one that it has.
            Toward::Peer { tunnel: out, peer } if out == tunnel && peer == source => {
                (CieCode::NO_BINDING, Reject::NoBinding)
            }
            Toward::Peer { .. } => return self.forward(turn, tunnel, source, message, bytes),
            Toward::Unbound | Toward::Nowhere => (CieCode::NO_BINDING, Reject::NoBinding),
        };
        cloud.refuse(turn, source, message, code);
        Err(reject)
    }

    /// Refuses a message for us with a compulsory extension that is not known here (RFC 2332 §5.3).
    fn check_extensions(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        source: Peer,
        message: &Message,
        bytes: &[u8],
    ) -> Result<(), Reject> {
        if unrecognized(message).is_none() {
            return Ok(());
        }
        let code = ErrorCode::UNRECOGNIZED_EXTENSION;
        self.complain(turn, Complaint { tunnel, source, message, bytes, code, offset: 0 });
        Err(Reject::UnrecognizedExtension)
    }
}
