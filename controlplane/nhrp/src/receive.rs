//! A packet that came: read, authenticated, and brought to whom it is for.

use model::{InterfaceName, ProtocolAddr};
use wire::nhrp::{Body, CieCode, ErrorCode, ExtensionType, Kind, Message, offset_of};

use crate::auth;
use crate::complaint::{culprit, culprit_of_unreadable};
use crate::engine::Engine;
use crate::extension;
use crate::forward::Toward;
use crate::input::Peer;
use crate::turn::Turn;
use crate::{Reject, Sender};

/// How a message came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    /// By which tunnel.
    pub(crate) tunnel: InterfaceName,
    pub(crate) from: &'a Sender,
    /// As it was on the wire.
    pub(crate) bytes: &'a [u8],
}

impl Came<'_> {
    /// Where it came from: its sender, or the last server that it passed.
    pub(crate) const fn source(&self) -> Peer {
        self.from.peer()
    }
}

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
        let came = Came { tunnel, from, bytes };
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(malformed) => {
                let culprit = culprit_of_unreadable(bytes);
                self.complain(turn, came, culprit, ErrorCode::PROTOCOL_ERROR, offset_of(&malformed));
                return Err(malformed.into());
            }
        };
        cloud.messages[message.message_type() as usize - 1].1 += 1;
        if let Err(reject) = auth::check(&message, cloud.tunnel.nhrp.authentication.as_deref()) {
            let extensions = message.extensions.iter().flatten();
            let place = extensions.clone().position(|e| e.kind() == ExtensionType::AUTHENTICATION);
            let offset = place.map_or(0, |place| extension::offset(&message, place, bytes));
            self.complain(turn, came, culprit(&message), ErrorCode::AUTHENTICATION_FAILURE, offset);
            return Err(reject);
        }
        match &message.body {
            Body::Exchange { kind, .. } => {
                let kind = *kind;
                self.exchange(turn, came, kind, message)
            }
            Body::Traffic { packet, .. } => cloud.traffic_indication(turn, packet),
            Body::Error { code, packet, .. } => {
                cloud.count_error(*code);
                let is_own = |a: std::net::IpAddr| self.is_own(tunnel, ProtocolAddr(a));
                // From us, and back again: quietly dropped (RFC 2332 §5.2.7).
                if message.source.is_some_and(is_own) {
                    return Err(Reject::Loop);
                }
                if message.destination.is_none_or(is_own) {
                    self.error_indication(turn, tunnel, *code, packet);
                    return Ok(());
                }
                self.forward(turn, came, message)
            }
        }
    }

    /// Types 1 to 6.
    fn exchange(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        kind: Kind,
        message: Message,
    ) -> Result<(), Reject> {
        let Came { tunnel, .. } = came;
        let from = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let to = ProtocolAddr(message.destination.ok_or(Reject::Address)?);
        if !kind.is_reply() {
            let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
            let limits = cloud.tunnel.nhrp.limits;
            let (all, each) = (limits.requests_per_second, limits.requests_per_second_per_peer);
            // Without an answer: to answer a flood is to make another one.
            if !cloud.requests.take(turn.now, came.source(), all, each) {
                return Err(Reject::RateLimited);
            }
            // Our own request, back again.
            if self.is_own(tunnel, from) {
                return Err(Reject::Loop);
            }
        }
        if kind == Kind::ResolutionRequest {
            return self.resolution_request(turn, came, to, message);
        }
        // A client that does not know its server names itself (RFC 2332 §5.2.3, §5.2.5).
        let is_own = |address| self.is_own(tunnel, address);
        let is_for_us = if kind.is_reply() { is_own(from) } else { is_own(to) || from == to };
        if !is_for_us {
            return self.forward(turn, came, message);
        }
        self.check_extensions(turn, came, &message)?;
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        match kind {
            Kind::RegistrationRequest => cloud.registration_request(turn, came.from, message),
            Kind::RegistrationReply => cloud.registration_reply(turn, &message),
            Kind::PurgeRequest => cloud.purge_request(turn, came.from, message),
            Kind::PurgeReply => cloud.purge_reply(turn, &message),
            Kind::ResolutionReply | Kind::ResolutionRequest => {
                let Body::Exchange { request_id, .. } = message.body else { return Err(Reject::Malformed) };
                let is_duplicate = cloud.answered.contains(&request_id);
                let done = cloud.resolution_reply(turn, came.source(), &message);
                if done == Err(Reject::Unsolicited) && !is_duplicate {
                    let code = ErrorCode::INVALID_RESOLUTION_REPLY;
                    self.complain(turn, came, culprit(&message), code, 0);
                }
                done
            }
        }
    }

    /// Somebody asks for an address: it is answered here, passed on, or refused.
    fn resolution_request(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        destination: ProtocolAddr,
        message: Message,
    ) -> Result<(), Reject> {
        let Came { tunnel, .. } = came;
        let mut toward = self.toward(tunnel, destination, turn.routes);
        let cloud = self.clouds.get(&tunnel).ok_or(Reject::NoTunnel)?;
        let refusal = match toward {
            Toward::Own | Toward::Egress => {
                let may_answer = cloud.is_multipoint() && !turn.common.is_leaving;
                let prefix = cloud.answer_prefix(turn, destination).filter(|_| may_answer);
                match prefix {
                    None => Some((CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Prohibited)),
                    Some(prefix) => {
                        self.check_extensions(turn, came, &message)?;
                        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
                        let culprit = culprit(&message);
                        let done = cloud.answer_own(turn, came.source(), message, prefix);
                        return self.after_answer(turn, came, culprit, done);
                    }
                }
            }
            _ => {
                if let Some(held) = cloud.held(turn, &message, destination, toward) {
                    self.check_extensions(turn, came, &message)?;
                    let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
                    let culprit = culprit(&message);
                    let done = cloud.answer_for(turn, came.source(), message, held);
                    return self.after_answer(turn, came, culprit, done);
                }
                None
            }
        };
        if refusal.is_none() {
            self.check_way(turn, came, &message)?;
            toward = self.toward_or_server(came, &message, destination, turn.routes);
        }
        let no_binding = (CieCode::NO_BINDING, Reject::NoBinding);
        let (code, reject) = match (refusal, toward) {
            (Some(refusal), _) => refusal,
            // Behind the requester itself: it has no better way than the one that it has.
            (None, Toward::Peer { tunnel: out, peer }) if out == tunnel && peer == came.source() => {
                no_binding
            }
            // Both behind a NAT that gives ports: by way of us is the only way.
            (None, Toward::Peer { tunnel: out, peer }) if self.is_pat_to_pat(came, out, peer) => {
                (CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Unproven)
            }
            (None, Toward::Peer { .. }) => return self.pass_on(turn, came, message, toward),
            (None, _) => no_binding,
        };
        let cloud = self.clouds.get_mut(&tunnel).ok_or(Reject::NoTunnel)?;
        cloud.refuse(turn, came.source(), message, code);
        Err(reject)
    }

    /// An answer that would be larger than its way is an error of the request, whose records are in it.
    fn after_answer(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        culprit: Option<ProtocolAddr>,
        done: Result<(), Reject>,
    ) -> Result<(), Reject> {
        if done == Err(Reject::TooLong) {
            self.complain(turn, came, culprit, ErrorCode::SDU_SIZE_EXCEEDED, 0);
        }
        done
    }

    /// Refuses a message for us with a compulsory extension that is not known here, or with a known one that is not as it must be
    /// (RFC 2332 §5.3).
    fn check_extensions(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        message: &Message,
    ) -> Result<(), Reject> {
        let (place, code, reject) = if let Some(place) = extension::unrecognized(message) {
            (place, ErrorCode::UNRECOGNIZED_EXTENSION, Reject::UnrecognizedExtension)
        } else if let Some(place) = extension::invalid(message) {
            (place, ErrorCode::INVALID_EXTENSION, Reject::InvalidExtension)
        } else {
            return Ok(());
        };
        let offset = extension::offset(message, place, came.bytes);
        self.complain(turn, came, culprit(message), code, offset);
        Err(reject)
    }
}
