//! What requests that pass say of their sources: the implicit entries of a server in transit (RFC 2332 §6.2.1).
//!
//! Only what says that it is stable (S) and for how long is kept, and no longer; of who is registered, configured or resolved here nothing is,
//! nor of one behind a NAT. It is given to who asks without insisting on authority, and never as authoritative; nothing is forwarded by it,
//! neither packets nor messages: who said it does not know that we heard it, and tells nobody of us when it is not true any more.

use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Flags, Kind, Message};

use crate::cache::check_peer;
use crate::cloud::Cloud;
use crate::input::Peer;
use crate::limits::HEARD;
use crate::nat::Requester;
use crate::turn::Turn;

/// A binding of somebody whose request passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) nbma: NbmaAddr,
    pub(crate) mtu: u16,
    pub(crate) created: Instant,
    pub(crate) until: Instant,
}

impl Cloud {
    /// Keeps what a message says of its source, if it is a resolution request and says enough.
    pub(crate) fn hear(&mut self, turn: &Turn<'_>, came: Peer, message: &Message) {
        let Body::Exchange { kind: Kind::ResolutionRequest, flags, entries, .. } = &message.body else {
            return;
        };
        let (Some(source), Some(entry)) = (message.source.map(ProtocolAddr), entries.first()) else { return };
        if !flags.has(Flags::SOURCE_STABLE) || entry.holding_time == 0 || self.cache.contains_key(&source) {
            return;
        }
        let requester = Requester::of(message, source, came);
        if requester.claimed.is_some() || check_peer(self, source, requester.nbma).is_err() {
            return;
        }
        let now = turn.now;
        if !self.heard.contains_key(&source) && self.heard.len() >= HEARD {
            return;
        }
        let until = now + HoldingTime(entry.holding_time).duration();
        let same = self.heard.get(&source).filter(|old| old.nbma == requester.nbma);
        let created = same.map_or(now, |old| old.created);
        self.heard.insert(source, Heard { nbma: requester.nbma, mtu: entry.mtu, created, until });
    }

    /// What was heard of an address, and still holds.
    pub(crate) fn heard_of(&self, turn: &Turn<'_>, address: ProtocolAddr) -> Option<Heard> {
        self.heard.get(&address).copied().filter(|heard| heard.until > turn.now)
    }
}
