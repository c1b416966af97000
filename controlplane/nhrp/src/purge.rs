//! Purge (RFC 2332 §5.2.5, §5.2.6): told to forget, and telling to forget.
//!
//! We tell our servers when we leave an NBMA address or go, and whoever we answered when the answer is no longer true: of us and what
//! is behind us, or of a client that we answered for from the cache.

use std::collections::BTreeMap;

use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, Extension, ExtensionType, Family, Flags, Kind, Message};

use crate::answer::clamped;
use crate::cache::{Entry, Origin};
use crate::cloud::{Cloud, Identity};
use crate::input::Peer;
use crate::limits::{HOP_COUNT, PURGE_ATTEMPTS, PURGE_ENTRIES, RETRY_FIRST, backoff};
use crate::nhs::ServerAt;
use crate::overlap::overlapping;
use crate::registration::fill_responder;
use crate::turn::{Timer, Turn};
use crate::{Reject, Sender};

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
        self.told.retain(|(prefix, client), told| {
            let is_of_us = told.by.is_none();
            if is_of_us && told.until > turn.now {
                peers.entry((*client, told.peer)).or_default().push(entry_of(*prefix));
            }
            !is_of_us
        });
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
                let Some(told) = self.told.get(&key).filter(|t| t.by.is_none()) else { continue };
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

    /// What we answered of a client from our cache is not true any more: whoever was answered is told so. The requests are new ones,
    /// from us (RFC 2332 §5.2.5). An answer that only passed is the client's, which takes it back itself.
    pub(crate) fn withdraw(&mut self, turn: &mut Turn<'_>, client: ProtocolAddr, prefix: Prefix) {
        if self.told.is_empty() {
            return;
        }
        let by_it = overlapping(&self.told, prefix, |(prefix, _)| *prefix).into_iter();
        let by_it: Vec<_> =
            by_it.filter(|key| self.told.get(key).is_some_and(|t| t.by == Some(client))).collect();
        self.retract(turn, by_it);
    }

    /// As [`Self::withdraw`], but not what was answered of the client's own address.
    fn withdraw_behind(&mut self, turn: &mut Turn<'_>, client: ProtocolAddr, prefix: Prefix) {
        let behind = overlapping(&self.told, prefix, |(prefix, _)| *prefix).into_iter();
        let is_behind = |key: &(Prefix, ProtocolAddr)| {
            key.0 != Prefix::host(client.0) && self.told.get(key).is_some_and(|t| t.by == Some(client))
        };
        let behind: Vec<_> = behind.filter(is_behind).collect();
        self.retract(turn, behind);
    }

    fn retract(&mut self, turn: &mut Turn<'_>, answers: Vec<(Prefix, ProtocolAddr)>) {
        for key in answers {
            let Some(told) = self.told.remove(&key).filter(|told| told.until > turn.now) else { continue };
            // It may be elsewhere by now.
            let peer = self.binding(key.1).unwrap_or(told.peer);
            self.purge(turn, key.1, key.0, peer);
            turn.save();
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

/// Who wants something purged.
#[derive(Debug, Clone, Copy)]
struct Purger<'a> {
    address: ProtocolAddr,
    identity: Option<&'a str>,
}

/// Being told.
impl Cloud {
    /// A purge request for us. It is answered where it came from, whether or not there was anything to purge, unless no answer is
    /// wanted (RFC 2332 §5.2.5).
    pub(crate) fn purge_request(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        mut message: Message,
    ) -> Result<(), Reject> {
        let address = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let passed = message.extension(ExtensionType::FORWARD_TRANSIT).is_some_and(|e| !e.value().is_empty());
        let identity = sender.identity.as_deref().filter(|_| !passed);
        let families = message.families;
        let Body::Exchange { kind, flags, entries, .. } = &mut message.body else {
            return Err(Reject::Malformed);
        };
        *kind = Kind::PurgeReply;
        for entry in entries.iter() {
            let Some(address_in_it) = entry.protocol else { continue };
            let length = entry.length(families).unwrap_or(families.protocol.bits());
            let Some(prefix) = Prefix::new(address_in_it, length) else { continue };
            self.purge_matching(turn, Purger { address, identity }, prefix, entry.nbma.map(NbmaAddr));
        }
        if flags.has(Flags::NO_REPLY) {
            return Ok(());
        }
        let own = self.identity(address).ok_or(Reject::Unreachable)?;
        message.hop_count = HOP_COUNT;
        fill_responder(&mut message, &self.own_entry(&own));
        self.send(turn, sender.peer(), message);
        Ok(())
    }

    /// Forgets what was learnt of a prefix. A registration is its client's own: only that takes it back, and where IKE knows it, only
    /// that peer of IKE's. An NBMA address narrows it: a purge of where a client was says nothing of where it is.
    fn purge_matching(
        &mut self,
        turn: &mut Turn<'_>,
        purger: Purger<'_>,
        prefix: Prefix,
        nbma: Option<NbmaAddr>,
    ) {
        let client = purger.address;
        let is_meant = |entry: &Entry| nbma.is_none_or(|n| n == entry.nbma || Some(n) == entry.claimed);
        let is_another =
            |entry: &Entry| entry.identity.as_deref().zip(purger.identity).is_some_and(|(a, b)| a != b);
        let takes_back = self.cache.get(&client).is_some_and(|e| is_meant(e) && !is_another(e));
        for route in overlapping(&self.shortcuts, prefix, |prefix| *prefix) {
            let is_registered = self.shortcuts.get(&route).is_some_and(|s| s.registered);
            let is_its_own = self.shortcuts.get(&route).is_some_and(|s| s.next_hop == client);
            let is_whole = prefix.length() <= route.length();
            if !is_registered {
                self.replace_shortcut(turn, route);
            } else if takes_back && is_its_own && is_whole {
                self.drop_shortcut(turn, route);
            }
        }
        self.heard
            .retain(|address, heard| !(prefix.contains(address.0) && nbma.is_none_or(|n| n == heard.nbma)));
        let goes = |address: &ProtocolAddr| {
            self.cache.get(address).is_some_and(|entry| match entry.origin {
                Origin::Cached => is_meant(entry),
                // A purge of a whole subnet is about what is behind its sender (opennhrp sends one after registering).
                Origin::Dynamic | Origin::Nhs | Origin::Static => {
                    takes_back && *address == client && prefix.is_host()
                }
            })
        };
        let first = ProtocolAddr(prefix.addr());
        let inside = self.cache.range(first..).map(|(a, _)| *a).take_while(|a| prefix.contains(a.0));
        for address in inside.filter(goes).collect::<Vec<_>>() {
            // Where one of the configuration is, is known without its client.
            self.binding_expired(turn, address);
        }
        if takes_back && !prefix.is_host() {
            self.withdraw_behind(turn, client, prefix);
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
