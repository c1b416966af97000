//! Registration requests that come to us (RFC 2332 §5.2.3, §5.2.4: the server's side). The client's side is in `nhs`.
//!
//! A binding is kept for as long as the client says; a second NBMA address for one that is unique is refused (14); clients get
//! multicast if the tunnel is told to give it to them. A client may register a prefix where the configuration allows that: it is
//! a route by way of the client for as long. Where IKE says which addresses a peer may register, it registers those, and no prefix.

use std::net::IpAddr;
use std::sync::Arc;

use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, Prefix, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, Extension, ExtensionType, Families, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::Cloud;
use crate::input::Peer;
use crate::limits::HOP_COUNT;
use crate::shortcut::Shortcut;
use crate::turn::Turn;
use crate::{Event, Reject, Sender};

/// Who registers.
#[derive(Debug, Clone, Copy)]
struct Registrant<'a> {
    /// Its protocol address.
    address: ProtocolAddr,
    /// Where it says that it is.
    claimed: NbmaAddr,
    /// Where it is.
    peer: Peer,
    identity: Option<&'a str>,
    /// What it may register; `None`: anything.
    certified: Option<&'a [IpAddr]>,
    /// It wants its binding kept against others.
    unique: bool,
}

impl Registrant<'_> {
    /// Whether it may register an address. A link-local one goes with the IPv6 address that has the same last 64 bits: it is made of that.
    fn may_be(&self, client: ProtocolAddr) -> bool {
        let is_it = |own: &IpAddr| match (*own, client.0) {
            (own, client) if own == client => true,
            (IpAddr::V6(own), IpAddr::V6(client)) => {
                client.is_unicast_link_local() && own.to_bits() as u64 == client.to_bits() as u64
            }
            _ => false,
        };
        self.certified.is_none_or(|all| all.iter().any(is_it))
    }
}

/// A binding to be registered.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    client: ProtocolAddr,
    peer: Peer,
    /// Where it says that it is, if it is not there.
    claimed: Option<NbmaAddr>,
    identity: Option<&'a str>,
    unique: bool,
    mtu: u16,
    holding_time: HoldingTime,
}

/// Why an entry of a registration request is refused: for its client, and for our counters.
#[derive(Debug)]
struct Refusal(CieCode, Reject);

impl Refusal {
    const PROHIBITED: Self = Self(CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Prohibited);
    const NO_ROOM: Self = Self(CieCode::INSUFFICIENT_RESOURCES, Reject::NoRoom);
    const ALREADY_REGISTERED: Self = Self(CieCode::ALREADY_REGISTERED, Reject::AlreadyRegistered);
}

impl Entry {
    /// Whether who registers this now is who registered it before: from the same NBMA address and UDP port; or by the word of IKE,
    /// from wherever; or a client behind a NAT that has another port now.
    fn is_of(&self, wanted: &Wanted<'_>) -> bool {
        let same_identity = self.identity.as_deref().zip(wanted.identity).map(|(a, b)| a == b);
        self.peer() == wanted.peer
            || same_identity == Some(true)
            || (self.nbma == wanted.peer.nbma
                && self.claimed == wanted.claimed
                && same_identity != Some(false))
    }
}

/// The server.
impl Cloud {
    /// A registration request for us. It is answered where it came from.
    pub(crate) fn registration_request(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        mut message: Message,
    ) -> Result<(), Reject> {
        let address = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let Some(own) = self.identity(address) else {
            return self.cannot_serve(turn, sender.peer(), message);
        };
        let families = message.families;
        // Nobody is in an underlay of the other family.
        if families != own.families {
            return Err(Reject::Address);
        }
        let claimed = NbmaAddr(message.source_nbma.unwrap_or(sender.nbma.0));
        // A client that does not come from where it says is behind a NAT, and reached where it comes from. But what passed
        // another server comes from that, and so does what protected it.
        let passed = message.extension(ExtensionType::FORWARD_TRANSIT).is_some_and(|e| !e.value().is_empty());
        let (peer, identity) =
            if passed { (claimed.into(), None) } else { (sender.peer(), sender.identity.as_deref()) };
        let Body::Exchange { kind, flags, entries, .. } = &mut message.body else {
            return Err(Reject::Malformed);
        };
        *kind = Kind::RegistrationReply;
        let unique = flags.has(Flags::UNIQUE);
        // RFC 2332 §5.2.3: with U there is one entry.
        if entries.is_empty() || (unique && entries.len() > 1) {
            return Err(Reject::Malformed);
        }
        // What passed another server was let in by that one's certificate, which has to name the client, too: else whoever says that it
        // passed one could register anything.
        let certified = sender.certified.as_deref();
        let registrant = Registrant { address, claimed, peer, identity, certified, unique };
        let mut rejects = Vec::new();
        for entry in entries.iter_mut() {
            // RFC 2332 §5.2.4: each entry has its own code.
            entry.code = CieCode::SUCCESS;
            if let Err(Refusal(code, reject)) = self.register_entry(turn, registrant, entry, families) {
                entry.code = code;
                // RFC 2332 §5.2.0.1: 0 in a refusal.
                entry.holding_time = 0;
                rejects.push(reject);
            }
        }
        message.hop_count = HOP_COUNT;
        fill_responder(&mut message, &self.own_entry(&own));
        if claimed != peer.nbma {
            self.add_observed(&mut message, peer.nbma, address);
        }
        // RFC 2332 §5.2.4: straight to the client.
        self.send(turn, peer, message);
        for reject in rejects {
            turn.reject_from(self.name(), sender.nbma, reject);
        }
        Ok(())
    }

    /// Refuses a client that names itself, as it does not know its server, in a family that the tunnel has no address of (RFC 2332
    /// §5.2.3: a server that cannot serve an address says so).
    fn cannot_serve(
        &mut self,
        turn: &mut Turn<'_>,
        client: Peer,
        mut message: Message,
    ) -> Result<(), Reject> {
        if let Body::Exchange { kind, entries, .. } = &mut message.body {
            *kind = Kind::RegistrationReply;
            for entry in entries {
                entry.code = CieCode::ADMINISTRATIVELY_PROHIBITED;
                entry.holding_time = 0;
            }
        }
        message.hop_count = HOP_COUNT;
        self.send(turn, client, message);
        Err(Reject::Unreachable)
    }

    /// One entry of a request: a client, or a prefix behind the one who registers.
    fn register_entry(
        &mut self,
        turn: &mut Turn<'_>,
        who: Registrant<'_>,
        entry: &Cie,
        families: Families,
    ) -> Result<(), Refusal> {
        if entry.holding_time == 0 {
            return Err(Refusal::PROHIBITED);
        }
        let client = ProtocolAddr(entry.protocol.unwrap_or(who.address.0));
        let said = NbmaAddr(entry.nbma.unwrap_or(who.claimed.0));
        let is_own = said == who.claimed;
        let peer = if is_own { who.peer } else { said.into() };
        let holding_time = HoldingTime(entry.holding_time);
        if !who.may_be(client) {
            return Err(Refusal::PROHIBITED);
        }
        let mut wanted = Wanted {
            client,
            peer,
            claimed: (said != peer.nbma).then_some(said),
            identity: who.identity,
            unique: who.unique,
            mtu: entry.mtu,
            holding_time,
        };
        let Some(length) = entry.length(families) else {
            return self.enroll(turn, wanted);
        };
        if who.certified.is_some() {
            return Err(Refusal::PROHIBITED);
        }
        // A prefix of addresses is more than one peer may claim; behind it may be what the configuration says. RFC 2332 §5.2.3: with
        // U it is a host.
        let prefix = Prefix::new(client.0, length).filter(|_| is_own && !who.unique);
        let prefix = prefix.filter(|prefix| self.accepts(*prefix)).ok_or(Refusal::PROHIBITED)?;
        if !self.has_room_for_prefix(turn, prefix, who.address) {
            return Err(Refusal::NO_ROOM);
        }
        wanted.client = who.address;
        self.enroll(turn, wanted)?;
        self.enroll_prefix(turn, who.address, prefix, holding_time);
        Ok(())
    }

    /// Takes one client, or says why not.
    fn enroll(&mut self, turn: &mut Turn<'_>, wanted: Wanted<'_>) -> Result<(), Refusal> {
        let Wanted { client, peer, claimed, unique, mtu, holding_time, .. } = wanted;
        check_peer(self, client, peer.nbma)
            .map_err(|reject| Refusal(CieCode::ADMINISTRATIVELY_PROHIBITED, reject))?;
        if !self.has_room_for_client(turn, client) {
            return Err(Refusal::NO_ROOM);
        }
        let old = self.cache.get(&client).filter(|old| old.origin != Origin::Cached);
        // RFC 2332 §5.2.3; with and without U: who wants it kept against others means all of them.
        if old.is_some_and(|old| old.is_registered() && old.unique && !old.is_of(&wanted)) {
            return Err(Refusal::ALREADY_REGISTERED);
        }
        // The configuration says where it is; it may only agree.
        let origin = match old {
            Some(old) if old.origin.is_configured() && old.nbma != peer.nbma => {
                return Err(Refusal::PROHIBITED);
            }
            Some(old) => old.origin,
            None => Origin::Dynamic,
        };
        let refresh = old.is_some_and(|old| old.is_registered() && old.nbma == peer.nbma);
        // Nothing is made anew of what is the same.
        let known = old.and_then(|old| old.identity.clone());
        let identity = match wanted.identity {
            Some(identity) if known.as_deref() == Some(identity) => known,
            identity => identity.map(Arc::from),
        };
        let registered = Entry {
            origin,
            nbma: peer.nbma,
            port: peer.port,
            claimed,
            unique,
            authoritative: true,
            implicit: false,
            replica: false,
            mtu,
            created: turn.now,
            holding_time,
            expires: Some(turn.now + holding_time.duration()),
            last_used: None,
            identity,
        };
        self.install(turn, client, registered);
        turn.event(Event::Registered { tunnel: self.name(), client, nbma: peer.nbma, refresh });
        Ok(())
    }

    /// Whether clients may register a prefix.
    pub(crate) fn accepts(&self, prefix: Prefix) -> bool {
        let is_inside = |outer: &Prefix| outer.length() <= prefix.length() && outer.contains(prefix.addr());
        let holds_us = self.tunnel.addresses.iter().any(|a| prefix.contains(a.addr()));
        self.is_multipoint() && !holds_us && self.tunnel.nhrp.accept_prefixes.iter().any(is_inside)
    }

    /// Takes the prefix of a client that is enrolled: a route by way of it. Whose it was before has it no more.
    fn enroll_prefix(
        &mut self,
        turn: &mut Turn<'_>,
        client: ProtocolAddr,
        prefix: Prefix,
        holding_time: HoldingTime,
    ) {
        let old = self.shortcuts.get(&prefix);
        let same = old.filter(|old| old.registered && old.next_hop == client);
        let (is_new, created) = (same.is_none(), same.map_or(turn.now, |same| same.created));
        if let Some(former) = old.filter(|old| old.registered && old.next_hop != client) {
            let former = former.next_hop;
            self.withdraw(turn, former, prefix);
        }
        let route = Shortcut {
            next_hop: client,
            destination: ProtocolAddr(prefix.addr()),
            instead_of: client,
            registered: true,
            created,
            holding_time,
            expires: turn.now + holding_time.duration(),
        };
        self.install_shortcut(turn, prefix, route);
        if is_new {
            turn.event(Event::ShortcutUp { tunnel: self.name(), prefix, next_hop: client });
            // What was answered for a wider one is not true of this part any more.
            self.purge_changed(turn, &[prefix]);
        }
    }

    /// Ends the registrations of prefixes that the configuration does not allow any more.
    pub(crate) fn drop_unaccepted_prefixes(&mut self, turn: &mut Turn<'_>) {
        let registered = self.shortcuts.iter().filter(|(_, s)| s.registered).map(|(prefix, _)| *prefix);
        for prefix in registered.filter(|prefix| !self.accepts(*prefix)).collect::<Vec<_>>() {
            self.drop_shortcut(turn, prefix);
        }
    }

    /// The longest prefix around an address that a client registered, and the client.
    pub(crate) fn registered_route(&self, address: ProtocolAddr) -> Option<(Prefix, ProtocolAddr)> {
        if self.registered_prefixes == 0 {
            return None;
        }
        let lengths = (0..=Prefix::host(address.0).length()).rev();
        lengths.filter_map(|length| Prefix::new(address.0, length)).find_map(|prefix| {
            let route = self.shortcuts.get(&prefix).filter(|s| s.registered)?;
            Some((prefix, route.next_hop))
        })
    }

    /// Whether a client registered a part of a prefix.
    pub(crate) fn has_registered_part(&self, prefix: Prefix) -> bool {
        let inside = self.shortcuts.range(prefix..).take_while(|(p, _)| prefix.contains(p.addr()));
        self.registered_prefixes > 0 && inside.into_iter().any(|(p, s)| s.registered && *p != prefix)
    }

    /// Tells a client behind a NAT what it looks like from here (Cisco's NAT extension, second entry).
    fn add_observed(&self, message: &mut Message, nbma: NbmaAddr, client: ProtocolAddr) {
        let families = message.families;
        let observed = self.seen_entry(families, nbma, client);
        if let Some(addresses) = message.extension_mut(ExtensionType::NAT) {
            // One entry more in a list of one has room.
            let _ = addresses.push(&observed, families);
        }
    }
}

/// Room.
impl Cloud {
    /// Whether a registration of a client has room. That of a known one always has; and a client's own word takes the place of
    /// what others said.
    fn has_room_for_client(&mut self, turn: &mut Turn<'_>, client: ProtocolAddr) -> bool {
        let old = self.cache.get(&client).map(|old| old.origin);
        if old.is_some_and(|origin| origin != Origin::Cached) {
            return true;
        }
        let limits = self.tunnel.nhrp.limits;
        let has_room = self.registrations() < limits.registrations as usize;
        has_room && (!self.is_full(client) || self.displace_cached(turn))
    }

    /// The same of a prefix; its client, who is registered with it, wants room as well if it is new.
    fn has_room_for_prefix(&self, turn: &Turn<'_>, prefix: Prefix, client: ProtocolAddr) -> bool {
        let most = self.tunnel.nhrp.limits.registrations as usize;
        let is_new = self.cache.get(&client).is_none_or(|old| old.origin == Origin::Cached);
        let has_room = self.registrations() + usize::from(is_new) < most;
        match self.shortcuts.get(&prefix) {
            Some(old) if old.registered => true,
            Some(_) => has_room,
            None => has_room && self.shortcuts.len() < turn.common.limits.shortcuts,
        }
    }

    /// Hosts and prefixes that are registered.
    fn registrations(&self) -> usize {
        self.registered_clients + self.registered_prefixes
    }

    /// Makes room by forgetting resolved bindings, those that end first: a sixteenth of the cache, so that it is seldom done.
    fn displace_cached(&mut self, turn: &mut Turn<'_>) -> bool {
        let cached = self.cache.iter().filter(|(_, e)| e.origin == Origin::Cached);
        let mut cached: Vec<(Option<Instant>, ProtocolAddr)> = cached.map(|(a, e)| (e.expires, *a)).collect();
        cached.sort_unstable();
        cached.truncate(self.cache.len() / 16 + 1);
        for (_, address) in &cached {
            self.forget(turn, *address);
        }
        !cached.is_empty()
    }
}

/// Fills the responder extension of a reply, where its request asked for that (RFC 2332 §5.3.1).
pub(crate) fn fill_responder(message: &mut Message, own: &Cie) {
    let families = message.families;
    if let Some(responder) = message.extension_mut(ExtensionType::RESPONDER) {
        let mut filled = Extension::empty(ExtensionType::RESPONDER, responder.compulsory());
        // An empty extension has room for one entry.
        let _ = filled.push(own, families);
        *responder = filled;
    }
}
