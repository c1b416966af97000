//! Purge (RFC 2332 §5.2.5, §5.2.6): told to forget, and telling to forget.
//!
//! We tell our servers when we leave an NBMA address or go, and whoever we answered when the answer is no longer true.

use std::collections::BTreeMap;

use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, Extension, ExtensionType, Family, Flags, Kind, Message};

use crate::Reject;
use crate::cache::{Entry, Origin};
use crate::cloud::{Cloud, Identity};
use crate::input::Peer;
use crate::limits::{HOP_COUNT, PURGE_ATTEMPTS, PURGE_ENTRIES, RETRY_FIRST, backoff};
use crate::nhs::ServerAt;
use crate::overlap::overlapping;
use crate::registration::fill_responder;
use crate::resolution::clamped;
use crate::turn::{Timer, Turn};

/// A purge request without a reply.
#[derive(Debug)]
pub(crate) struct Purge {
    to: Peer,
    message: Message,
    attempts: u32,
}

/// Telling others.
impl Cloud {
    /// Tells a server to forget a registration of ours; `nbma` is where it has us.
    pub(crate) fn unregister(
        &mut self,
        turn: &mut Turn<'_>,
        own: &Identity,
        nhs: ServerAt,
        nbma: NbmaAddr,
        is_last_word: bool,
    ) {
        let entry = Cie { nbma: Some(nbma.0), ..entry_of(Prefix::host(own.protocol.0)) };
        // RFC 2332 §5.2.5: who does not know its server's protocol address names itself.
        let destination = nhs.protocol.unwrap_or(own.protocol);
        self.send_purge(turn, own, nhs.nbma.into(), destination, vec![entry], is_last_word);
    }

    /// Repeats no purge of what a server is to have of us again.
    pub(crate) fn leave_unregistering(&mut self, turn: &mut Turn<'_>, nhs: NbmaAddr, own: &Identity) {
        let left: Vec<_> = self
            .purges
            .iter()
            .filter(|(_, p)| p.to == nhs.into() && names(&p.message, own))
            .map(|(id, _)| *id)
            .collect();
        for id in left {
            self.purges.remove(&id);
            turn.cancel(Timer::Purge(self.name(), id));
        }
    }

    /// Tells one whom we answered that `prefix` is no longer to be reached by us.
    fn purge(&mut self, turn: &mut Turn<'_>, client: ProtocolAddr, prefix: Prefix, to: Peer) {
        let Some(own) = self.identity(client) else { return };
        self.send_purge(turn, &own, to, client, vec![entry_of(prefix)], false);
    }

    /// Tells all that have a binding of us, from our answers or from our requests, that we are not at `nbma` any more.
    pub(crate) fn purge_self(&mut self, turn: &mut Turn<'_>, nbma: NbmaAddr, is_last_word: bool) {
        let mut peers: BTreeMap<(ProtocolAddr, Peer), Vec<Cie>> = BTreeMap::new();
        for ((prefix, client), told) in std::mem::take(&mut self.told) {
            if told.until > turn.now {
                peers.entry((client, told.peer)).or_default().push(entry_of(prefix));
            }
        }
        for (address, entry) in self.cache.iter().filter(|(_, e)| e.origin == Origin::Cached) {
            peers.entry((*address, entry.peer())).or_default();
        }
        for ((client, to), entries) in peers {
            let Some(own) = self.identity(client) else { continue };
            let us = Cie { nbma: Some(nbma.0), ..entry_of(Prefix::host(own.protocol.0)) };
            let entries: Vec<_> = std::iter::once(us).chain(entries).collect();
            for some in entries.chunks(PURGE_ENTRIES) {
                self.send_purge(turn, &own, to, client, some.to_vec(), is_last_word);
            }
        }
    }

    fn send_purge(
        &mut self,
        turn: &mut Turn<'_>,
        own: &Identity,
        to: Peer,
        destination: ProtocolAddr,
        entries: Vec<Cie>,
        is_last_word: bool,
    ) {
        let id = turn.request_id();
        let flags = if is_last_word { Flags::NO_REPLY } else { Flags::default() };
        let extensions = vec![Extension::empty(ExtensionType::RESPONDER, true)];
        let message = own.request(Kind::PurgeRequest, flags, id, destination, entries, extensions);
        if !is_last_word && self.purges.len() < turn.common.limits.purges {
            self.purges.insert(id, Purge { to, message: message.clone(), attempts: 1 });
            turn.set(Timer::Purge(self.name(), id), RETRY_FIRST);
        }
        self.send(turn, to, message);
    }

    /// Sends a purge request again, a few times.
    pub(crate) fn repeat_purge(&mut self, turn: &mut Turn<'_>, id: u32) {
        let Some(purge) = self.purges.get_mut(&id) else { return };
        if purge.attempts >= PURGE_ATTEMPTS {
            self.purges.remove(&id);
            return;
        }
        let again = backoff(RETRY_FIRST, purge.attempts, RETRY_FIRST * 64);
        purge.attempts += 1;
        let (to, message) = (purge.to, purge.message.clone());
        turn.set(Timer::Purge(self.name(), id), again);
        self.send(turn, to, message);
    }

    /// What was answered from these routes is answered anew in thought; whoever would hear something else now is told to
    /// forget.
    pub(crate) fn purge_changed(&mut self, turn: &mut Turn<'_>, changed: &[Prefix]) {
        for prefix in changed {
            for key in overlapping(&self.told, *prefix, |(prefix, _)| *prefix) {
                let Some(told) = self.told.get(&key) else { continue };
                let (peer, is_over) = (told.peer, told.until <= turn.now);
                let answer = self.answer_prefix(turn, told.destination);
                let answer = answer.and_then(|prefix| clamped(prefix, told.destination, told.shortest));
                if !is_over && answer == Some(key.0) {
                    continue;
                }
                self.told.remove(&key);
                if !is_over {
                    self.purge(turn, key.1, key.0, peer);
                }
            }
        }
    }

    /// The last words of a node, or of a tunnel: no reply is waited for.
    pub(crate) fn say_goodbye(&mut self, turn: &mut Turn<'_>) {
        self.leave_servers(turn);
        if let Some(nbma) = self.tunnel.nbma {
            self.purge_self(turn, nbma, true);
        }
    }
}

/// Being told.
impl Cloud {
    /// A purge request for us.
    pub(crate) fn purge_request(
        &mut self,
        turn: &mut Turn<'_>,
        source: Peer,
        mut message: Message,
    ) -> Result<(), Reject> {
        let client = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let families = message.families;
        let Body::Exchange { kind, flags, entries, .. } = &mut message.body else {
            return Err(Reject::Malformed);
        };
        *kind = Kind::PurgeReply;
        for entry in entries.iter() {
            let Some(address) = entry.protocol else { continue };
            let length = entry.length(families).unwrap_or(families.protocol.bits());
            let Some(prefix) = Prefix::new(address, length) else { continue };
            self.purge_matching(turn, client, prefix, entry.nbma.map(NbmaAddr));
        }
        if flags.has(Flags::NO_REPLY) {
            return Ok(());
        }
        let own = self.identity(client).ok_or(Reject::Unreachable)?;
        message.hop_count = HOP_COUNT;
        fill_responder(&mut message, &self.own_entry(&own));
        self.send(turn, source, message);
        Ok(())
    }

    /// Forgets what was learnt of a prefix. A registration is its client's own: only that takes it back.
    fn purge_matching(
        &mut self,
        turn: &mut Turn<'_>,
        client: ProtocolAddr,
        prefix: Prefix,
        nbma: Option<NbmaAddr>,
    ) {
        for shortcut in overlapping(&self.shortcuts, prefix, |prefix| *prefix) {
            self.drop_shortcut(turn, shortcut);
        }
        let takes_leave = |entry: &Entry| nbma.is_none_or(|n| n == entry.nbma);
        if prefix.is_host() && prefix.addr() == client.0 && self.cache.get(&client).is_some_and(takes_leave) {
            self.replicate_to_configured(turn, client, false);
        }
        let goes = |address: &ProtocolAddr| {
            self.cache.get(address).is_some_and(|entry| {
                let is_meant = nbma.is_none_or(|n| n == entry.nbma || Some(n) == entry.claimed);
                match entry.origin {
                    Origin::Cached => is_meant,
                    // A purge of a whole subnet is about what is behind its sender (opennhrp sends one after registering).
                    Origin::Dynamic => is_meant && *address == client && prefix.is_host(),
                    Origin::Nhs | Origin::Static => false,
                }
            })
        };
        let first = ProtocolAddr(prefix.addr());
        let inside = self.cache.range(first..).map(|(a, _)| *a).take_while(|a| prefix.contains(a.0));
        for address in inside.filter(goes).collect::<Vec<_>>() {
            self.forget(turn, address);
        }
    }

    /// A reply to one of our purge requests.
    pub(crate) fn purge_reply(&mut self, turn: &mut Turn<'_>, message: &Message) -> Result<(), Reject> {
        let Body::Exchange { request_id, .. } = &message.body else { return Err(Reject::Malformed) };
        self.purges.remove(request_id).ok_or(Reject::Unsolicited)?;
        turn.cancel(Timer::Purge(self.name(), *request_id));
        Ok(())
    }
}

/// What is to be purged (RFC 2332 §5.2.5: holding time, MTU and preference are 0).
fn entry_of(prefix: Prefix) -> Cie {
    Cie { prefix: prefix.length(), protocol: Some(prefix.addr()), ..Cie::default() }
}

/// Whether a purge request is about these addresses of ours.
fn names(message: &Message, own: &Identity) -> bool {
    let Body::Exchange { entries, .. } = &message.body else { return false };
    entries.iter().any(|e| e.protocol == Some(own.protocol.0) && e.nbma == Some(own.nbma.0))
}

/// Length of a host's prefix.
pub(crate) fn host_bits(address: ProtocolAddr) -> u8 {
    Family::of(address.0).bits()
}
