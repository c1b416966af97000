//! Error indications (RFC 2332 §5.2.7): what is wrong with a message, told to whom it came from. Few a second, never about
//! another one, and nothing is done upon those that come.

use std::net::IpAddr;

use model::{InterfaceName, ProtocolAddr};
use wire::nhrp::{Body, ErrorCode, Message};

use crate::engine::Engine;
use crate::input::Peer;
use crate::limits::{ERROR_CONTENTS, HOP_COUNT};
use crate::turn::Turn;

/// What to complain about.
pub(crate) struct Complaint<'a> {
    pub(crate) tunnel: InterfaceName,
    pub(crate) source: Peer,
    pub(crate) message: &'a Message,
    pub(crate) bytes: &'a [u8],
    pub(crate) code: ErrorCode,
    /// Offset in bytes of what is wrong.
    pub(crate) offset: u16,
}

impl Engine {
    /// Sends an error indication, unless there were enough of them.
    pub(crate) fn complain(&mut self, turn: &mut Turn<'_>, complaint: Complaint<'_>) {
        let Complaint { tunnel, source, message, bytes, code, offset } = complaint;
        if matches!(message.body, Body::Error { .. }) {
            return;
        }
        let Some(cloud) = self.clouds.get_mut(&tunnel) else { return };
        // To whom sent the message at fault: of a reply, that is who it was for before.
        let is_reply = matches!(&message.body, Body::Exchange { kind, .. } if kind.is_reply());
        let culprit = if is_reply { message.destination } else { message.source };
        let Some(culprit) = culprit.map(ProtocolAddr) else { return };
        let Some(own) = cloud.identity(culprit) else { return };
        if cloud.is_own(culprit) {
            return;
        }
        let limits = turn.common.limits;
        if !turn.common.errors.take(turn.now, limits.errors_per_second) {
            return;
        }
        // An even number of octets: FRR's checksum of an odd one differs (see `wire::nhrp`), and no End may follow.
        let even = bytes.len().min(ERROR_CONTENTS) & !1;
        let addresses: (Option<IpAddr>, Option<IpAddr>) = (Some(own.protocol.0), Some(culprit.0));
        let indication = Message {
            families: own.families,
            hop_count: HOP_COUNT,
            source_nbma: Some(own.nbma.0),
            source: addresses.0,
            destination: addresses.1,
            body: Body::Error { code, offset, packet: bytes[..even].to_vec() },
            extensions: None,
        };
        cloud.send(turn, source, indication);
    }
}
