//! Error indications (RFC 2332 §5.2.7): what is wrong with a message, told to whom it came from; and what is done upon those that come.
//!
//! Few a second in all, and fewer to one peer. Never about another one, never to ourselves, never to a group. They have hop count 255 as
//! requests have, no extensions, and begin with what their sender needs to know its message again.
//!
//! | code | when |
//! |------|------|
//! | 1  | a compulsory extension is not known to the one that is to answer; who passes a message on does not look |
//! | 3  | a message came back: it names us among those that it passed, or the way on is where it came from |
//! | 6  | there is no way to whom a message is for (a resolution request is refused with a reply instead) |
//! | 7  | a packet cannot be read, but its addresses can |
//! | 8  | a message is larger than the way on takes, with what is added on its way |
//! | 9  | a known extension stands there twice, or cannot be read |
//! | 10 | a resolution reply to nothing that was asked |
//! | 11 | authentication is missing or wrong |
//! | 15 | a message for somebody else has no hop left |
//!
//! One that comes about our own resolution request ends it, where the same request would meet the same error again; one about our own
//! registration is shown as the reason. Nothing else is done upon one.

use model::time::Instant;
use model::{InterfaceName, NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Envelope, ErrorCode, ExtensionType, Message, MessageType};

use crate::cloud::Cloud;
use crate::engine::Engine;
use crate::limits::{Bucket, COMPLAINED_TO, ERROR_CONTENTS, HOP_COUNT};
use crate::receive::Came;
use crate::turn::Turn;

/// Whose message it is: of a request its source; of a reply who answered, or else whom it was for as a request.
pub(crate) fn culprit(message: &Message) -> Option<ProtocolAddr> {
    let address = match &message.body {
        Body::Error { .. } => None,
        Body::Exchange { kind, .. } if kind.is_reply() => {
            let responder = message.extension(ExtensionType::RESPONDER);
            let responder = responder.and_then(|e| e.entries(message.families).ok());
            let responder = responder.and_then(|entries| entries.first()?.protocol);
            responder.or(message.destination)
        }
        Body::Exchange { .. } | Body::Traffic { .. } => message.source,
    };
    address.map(ProtocolAddr)
}

/// As [`culprit`], of a packet that cannot be read.
pub(crate) fn culprit_of_unreadable(bytes: &[u8]) -> Option<ProtocolAddr> {
    const ERROR: u8 = MessageType::ErrorIndication as u8;
    const REPLIES: [u8; 3] = [
        MessageType::ResolutionReply as u8,
        MessageType::RegistrationReply as u8,
        MessageType::PurgeReply as u8,
    ];
    let envelope = Envelope::read(bytes).filter(|e| e.number != ERROR)?;
    let address = if REPLIES.contains(&envelope.number) { envelope.destination } else { envelope.source };
    address.map(ProtocolAddr)
}

impl Engine {
    /// Sends an error indication, unless there were enough of them.
    /// `offset` is where in the packet something is wrong.
    pub(crate) fn complain(
        &mut self,
        turn: &mut Turn<'_>,
        came: Came<'_>,
        culprit: Option<ProtocolAddr>,
        code: ErrorCode,
        offset: u16,
    ) {
        let (tunnel, source, bytes) = (came.tunnel, came.source(), came.bytes);
        let Some(culprit) = culprit.filter(|c| is_one(c.0) && !self.is_own(tunnel, *c)) else { return };
        let Some(cloud) = self.clouds.get_mut(&tunnel) else { return };
        let Some(own) = cloud.identity(culprit) else { return };
        if !is_one(source.nbma.0) || cloud.tunnel.nbma == Some(source.nbma) {
            return;
        }
        if !turn.may_complain(source.nbma) {
            return;
        }
        // An even number of octets: FRR's checksum of an odd one differs (see `wire::nhrp`), and no End may follow.
        let even = bytes.len().min(ERROR_CONTENTS) & !1;
        let indication = Message {
            families: own.families,
            hop_count: HOP_COUNT,
            source_nbma: Some(own.nbma.0),
            source: Some(own.protocol.0),
            destination: Some(culprit.0),
            body: Body::Error { code, offset, packet: bytes[..even].to_vec() },
            extensions: None,
        };
        cloud.errors.entry(counted(code)).or_default().0 += 1;
        cloud.send(turn, source, indication);
    }

    /// An error indication for us: about a message of ours, of which `packet` is at least the beginning.
    pub(crate) fn error_indication(
        &mut self,
        turn: &mut Turn<'_>,
        tunnel: InterfaceName,
        code: ErrorCode,
        packet: &[u8],
    ) {
        const RESOLUTION: u8 = MessageType::ResolutionRequest as u8;
        const REGISTRATION: u8 = MessageType::RegistrationRequest as u8;
        let Some(about) = Envelope::read(packet) else { return };
        if !about.source.is_some_and(|source| self.is_own(tunnel, ProtocolAddr(source))) {
            return;
        }
        // It may come by another tunnel than that which the request left by.
        for cloud in self.clouds.values_mut() {
            match (about.number, about.destination) {
                (RESOLUTION, Some(destination)) => {
                    cloud.resolution_error(turn, ProtocolAddr(destination), about.request_id, code);
                }
                (REGISTRATION, _) => cloud.registration_error(about.request_id, code),
                _ => {}
            }
        }
    }
}

impl Cloud {
    /// Counts an error indication that came.
    pub(crate) fn count_error(&mut self, code: ErrorCode) {
        self.errors.entry(counted(code)).or_default().1 += 1;
    }
}

impl Turn<'_> {
    fn may_complain(&mut self, to: NbmaAddr) -> bool {
        let (now, limits) = (self.now, self.common.limits);
        let complained = &mut self.common.complained;
        if complained.len() >= COMPLAINED_TO && !complained.contains_key(&to) {
            complained.retain(|_, (at, _)| !is_over(*at, now));
            if complained.len() >= COMPLAINED_TO {
                return false;
            }
        }
        let (at, bucket) = complained.entry(to).or_insert((now, Bucket::default()));
        *at = now;
        bucket.take(now, limits.errors_per_second_per_peer)
            && self.common.errors.take(now, limits.errors_per_second)
    }
}

/// Whether a peer that was complained to then may be told as much as one that never was.
fn is_over(at: Instant, now: Instant) -> bool {
    now.since(at).as_secs() >= 1
}

/// The code that one is counted as: 0 for all that RFC 2332 does not name.
fn counted(code: ErrorCode) -> u16 {
    if ErrorCode::ALL.contains(&code) { code.0 } else { 0 }
}

/// Whether an address is that of one station.
fn is_one(address: std::net::IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && address != std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}
