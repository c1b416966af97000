//! Registration, both sides (RFC 2332 §5.2.3, §5.2.4).
//!
//! Client, one for each server:
//!
//! ```text
//!             NBMA address known               accepted
//!   waiting ----------------------> expecting ----------> responding --+ a third of the holding time:
//!      ^                             |   ^ ^                  |   ^    | ask again
//!      |                             +---+ |                  |   +----+
//!      |             retry after 1, 2 .. 64 s  `--------------+
//!      |                                         refused, or three requests without answer
//!      +---- NBMA address gone (from anywhere)
//! ```
//!
//! A tunnel with addresses of both families registers the first of each with the servers of that family; where one node is the
//! server of both, it is two servers here.
//!
//! The server keeps a binding for as long as the client says, refuses a second NBMA address for one that is unique (14),
//! and gives clients multicast if it is told to.

use std::time::Duration;

use model::config::Nhs;
use model::time::{HoldingTime, Instant};
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, Extension, ExtensionType, Families, Flags, Kind, Message};

use crate::cache::{Entry, Origin, check_peer};
use crate::cloud::{Cloud, request_extensions};
use crate::limits::{HOP_COUNT, REGISTER_PATIENCE, REGISTER_RETRY_LONGEST, RETRY_FIRST, backoff};
use crate::resolution::nat_address;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject};

/// A server, as its client sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) nhs: Nhs,
    pub(crate) standing: Standing,
    pub(crate) since: Instant,
    /// The request that is outstanding: the same id in every retransmission.
    request: Option<u32>,
    /// Requests since the last that was accepted.
    tries: u32,
    /// The NBMA address that the server has of us.
    pub(crate) registered: Option<NbmaAddr>,
    /// Where it sees us, if that is not where we are: we are behind a NAT.
    pub(crate) observed: Option<NbmaAddr>,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) refusals: u64,
    pub(crate) refusal: Option<CieCode>,
}

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is no NBMA address to register.
    Waiting,
    /// A request is outstanding, or due.
    Expecting,
    /// It accepted the registration.
    Responding,
}

impl Server {
    /// Whether it accepted the registration.
    pub(crate) fn is_up(&self) -> bool {
        self.standing == Standing::Responding
    }

    /// Whether it is asked for addresses of the family of this one: it knows where we are in that family.
    pub(crate) fn is_of_family(&self, address: ProtocolAddr) -> bool {
        self.nhs.protocol.0.is_ipv4() == address.0.is_ipv4()
    }

    const fn new(nhs: Nhs, now: Instant) -> Self {
        Self {
            nhs,
            standing: Standing::Waiting,
            since: now,
            request: None,
            tries: 0,
            registered: None,
            observed: None,
            requests: 0,
            replies: 0,
            refusals: 0,
            refusal: None,
        }
    }

    fn stand(&mut self, turn: &Turn<'_>, standing: Standing) {
        if self.standing != standing {
            self.standing = standing;
            self.since = turn.now;
        }
    }
}

/// The client.
impl Cloud {
    /// Servers came or went.
    pub(crate) fn adopt_servers(&mut self, turn: &mut Turn<'_>) {
        let mut servers = std::mem::take(&mut self.servers);
        for nhs in self.tunnel.nhrp.nhs.clone() {
            let known = servers.iter().position(|s| s.nhs == nhs).map(|i| servers.remove(i));
            self.servers.push(known.unwrap_or_else(|| Server::new(nhs, turn.now)));
        }
        for gone in servers {
            turn.cancel(Timer::Register(self.name(), gone.nhs.protocol));
            if gone.registered.is_some() {
                self.unregister(turn, gone.nhs, gone.registered, true);
            }
            if gone.is_up() {
                turn.event(Event::ServerDown { tunnel: self.name(), nhs: gone.nhs.protocol });
            }
        }
        self.choose_fallback(turn);
    }

    /// Registers with every server that has not heard of us, or, if `is_told_otherwise`, with all of them.
    pub(crate) fn contact_servers(&mut self, turn: &mut Turn<'_>, is_told_otherwise: bool) {
        let own_nbma = self.tunnel.nbma;
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            if own_nbma.is_none() {
                turn.cancel(Timer::Register(self.tunnel.name, server.nhs.protocol));
                self.lose_server(turn, i, Standing::Waiting);
            } else if is_told_otherwise || server.standing == Standing::Waiting {
                server.request = None;
                server.tries = 0;
                let (nhs, registered) = (server.nhs, server.registered);
                if registered.is_some() && registered != own_nbma {
                    server.observed = None;
                    self.unregister(turn, nhs, registered, false);
                }
                self.register(turn, nhs.protocol);
            }
        }
    }

    /// Registers again, at once, with every server whose answer is awaited.
    pub(crate) fn contact_silent_servers(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            if server.standing != Standing::Waiting && server.tries > 0 {
                server.tries = 0;
                let nhs = server.nhs.protocol;
                self.register(turn, nhs);
            }
        }
    }

    /// Sends a registration request: the timer fired, or something changed.
    pub(crate) fn register(&mut self, turn: &mut Turn<'_>, nhs: ProtocolAddr) {
        let Some(i) = self.servers.iter().position(|s| s.nhs.protocol == nhs) else { return };
        let Some(own) = self.identity(nhs) else {
            return self.lose_server(turn, i, Standing::Waiting);
        };
        if self.servers[i].tries >= REGISTER_PATIENCE {
            self.lose_server(turn, i, Standing::Expecting);
        }
        let server = &mut self.servers[i];
        if server.standing == Standing::Waiting {
            server.stand(turn, Standing::Expecting);
        }
        let id = *server.request.get_or_insert_with(|| turn.request_id());
        let retry = backoff(RETRY_FIRST, server.tries, REGISTER_RETRY_LONGEST);
        server.tries = server.tries.saturating_add(1);
        server.requests += 1;
        let nbma = server.nhs.nbma;
        let unique = self.tunnel.nhrp.registration.unique;
        let flags = if unique { Flags::UNIQUE | Flags::NAT } else { Flags::NAT };
        let nat = Cie {
            prefix: own.families.protocol.bits(),
            mtu: self.tunnel.mtu,
            nbma: Some(nbma.0),
            protocol: Some(nhs.0),
            ..Cie::default()
        };
        // RFC 2332 §5.2.3 wants 0xff with U; the bits of the address mean the same, and are what IOS sends and takes.
        let entry = self.requesters_entry(own.families.protocol.bits());
        let extensions = request_extensions(Some(nat), own.families);
        let message = own.request(Kind::RegistrationRequest, flags, id, nhs, vec![entry], extensions);
        self.send(turn, nbma, message);
        let retry = turn.jittered(retry);
        turn.set(Timer::Register(self.name(), nhs), retry);
    }

    /// A server is not, or no more, one that has accepted us.
    fn lose_server(&mut self, turn: &mut Turn<'_>, i: usize, standing: Standing) {
        let server = &mut self.servers[i];
        let was = server.standing;
        server.stand(turn, standing);
        let nhs = server.nhs.protocol;
        if was == Standing::Responding {
            turn.event(Event::ServerDown { tunnel: self.name(), nhs });
            self.choose_fallback(turn);
        }
    }

    /// The first server that responds, else the first: its binding is known without it. Of whatever family: the way to a peer takes
    /// packets of both.
    fn choose_fallback(&mut self, turn: &mut Turn<'_>) {
        let up = self.servers.iter().find(|s| s.is_up());
        let server = up.or(self.servers.first()).map(|s| s.nhs.protocol);
        self.set_fallback(turn, server);
    }

    /// A reply to one of our registration requests.
    pub(crate) fn registration_reply(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message,
    ) -> Result<(), Reject> {
        let Body::Exchange { request_id, entries, .. } = &message.body else { return Err(Reject::Malformed) };
        let i = self.servers.iter().position(|s| s.request == Some(*request_id));
        let i = i.ok_or(Reject::Unsolicited)?;
        let code = entries.iter().map(|e| e.code).find(|c| *c != CieCode::SUCCESS).unwrap_or_default();
        let observed = nat_address(message, message.source.map(ProtocolAddr));
        let observed = observed.filter(|nbma| Some(*nbma) != self.tunnel.nbma);
        let server = &mut self.servers[i];
        let nhs = server.nhs;
        let timer = Timer::Register(self.tunnel.name, nhs.protocol);
        server.request = None;
        if code != CieCode::SUCCESS {
            let (known, tries, was_up) = (server.registered, server.tries, server.is_up());
            server.refusals += 1;
            // One event for the loss of a server, and one for a new reason why it will not have us.
            if server.refusal.replace(code) != Some(code) && !was_up {
                turn.event(Event::ServerDown { tunnel: self.tunnel.name, nhs: nhs.protocol });
            }
            self.lose_server(turn, i, Standing::Expecting);
            // The server may hold us to an NBMA address that we had: it did not hear that we left it.
            if code == CieCode::ALREADY_REGISTERED && known.is_some() && known != self.tunnel.nbma {
                self.unregister(turn, nhs, known, false);
            }
            let again = backoff(RETRY_FIRST, tries.saturating_sub(1), REGISTER_RETRY_LONGEST);
            let again = turn.jittered(again);
            turn.set(timer, again);
            return Ok(());
        }
        server.replies += 1;
        server.refusal = None;
        server.tries = 0;
        let refresh = server.standing == Standing::Responding;
        server.stand(turn, Standing::Responding);
        if server.registered != self.tunnel.nbma {
            server.registered = self.tunnel.nbma;
            turn.save();
        }
        self.observe(turn, i, observed);
        let third = (self.tunnel.nhrp.holding_time.duration() / 3).max(Duration::from_secs(1));
        let again = turn.jittered(third);
        turn.set(timer, again);
        turn.event(Event::ServerUp { tunnel: self.name(), nhs: nhs.protocol, refresh });
        if !refresh {
            self.choose_fallback(turn);
        }
        Ok(())
    }
}

/// What the server thinks of one entry of a registration request.
struct Verdict {
    code: CieCode,
    reject: Option<Reject>,
}

impl Verdict {
    const fn refused(code: CieCode, reject: Reject) -> Self {
        Self { code, reject: Some(reject) }
    }
}

/// The server.
impl Cloud {
    /// A registration request for us. `source` is where its outer header says that it comes from.
    pub(crate) fn registration_request(
        &mut self,
        turn: &mut Turn<'_>,
        source: NbmaAddr,
        mut message: Message,
    ) -> Result<(), Reject> {
        let address = ProtocolAddr(message.source.ok_or(Reject::Address)?);
        let claimed = NbmaAddr(message.source_nbma.unwrap_or(source.0));
        let own = self.identity(address).ok_or(Reject::Unreachable)?;
        // A client that does not come from where it says is behind a NAT, and reached where it comes from. But what passed
        // another server comes from that.
        let passed = message.extension(ExtensionType::FORWARD_TRANSIT).is_some_and(|e| !e.value().is_empty());
        let observed = if passed { claimed } else { source };
        let Body::Exchange { kind, flags, entries, .. } = &mut message.body else {
            return Err(Reject::Malformed);
        };
        let flags = *flags;
        *kind = Kind::RegistrationReply;
        // RFC 2332 §5.2.3: with U there is one entry.
        if entries.is_empty() || (flags.has(Flags::UNIQUE) && entries.len() > 1) {
            return Err(Reject::Malformed);
        }
        let mut rejects = Vec::new();
        let families = message.families;
        for entry in entries.iter_mut() {
            let verdict = if entry.length(families).is_some() {
                // A prefix of addresses is more than one peer may claim.
                Verdict::refused(CieCode::ADMINISTRATIVELY_PROHIBITED, Reject::Prohibited)
            } else {
                let client = ProtocolAddr(entry.protocol.unwrap_or(address.0));
                let said = NbmaAddr(entry.nbma.unwrap_or(claimed.0));
                let nbma = if said == claimed { observed } else { said };
                let claimed = (said != nbma).then_some(said);
                self.enroll(turn, client, nbma, claimed, entry, flags.has(Flags::UNIQUE))
            };
            entry.code = verdict.code;
            if verdict.reject.is_some() {
                // RFC 2332 §5.2.0.1: 0 in a refusal.
                entry.holding_time = 0;
            }
            rejects.extend(verdict.reject);
        }
        message.hop_count = HOP_COUNT;
        fill_responder(&mut message, &self.own_entry(&own));
        if claimed != observed {
            self.add_observed(&mut message, observed, address);
        }
        // RFC 2332 §5.2.4: straight to the client.
        self.send(turn, observed, message);
        for reject in rejects {
            turn.reject_from(self.name(), source, reject);
        }
        Ok(())
    }

    /// Takes one client, or says why not.
    fn enroll(
        &mut self,
        turn: &mut Turn<'_>,
        client: ProtocolAddr,
        nbma: NbmaAddr,
        claimed: Option<NbmaAddr>,
        entry: &Cie,
        unique: bool,
    ) -> Verdict {
        let prohibited = CieCode::ADMINISTRATIVELY_PROHIBITED;
        if entry.holding_time == 0 {
            return Verdict::refused(prohibited, Reject::Prohibited);
        }
        if let Err(reject) = check_peer(self, client, nbma) {
            return Verdict::refused(prohibited, reject);
        }
        if self.is_full(turn, client) {
            return Verdict::refused(CieCode::INSUFFICIENT_RESOURCES, Reject::NoRoom);
        }
        let old = self.cache.get(&client);
        match old {
            Some(old) if old.origin.is_configured() => {
                // The configuration says where it is; it may only agree.
                if old.nbma != nbma {
                    return Verdict::refused(prohibited, Reject::Prohibited);
                }
                self.replicate_to_configured(turn, client, true);
                return Verdict { code: CieCode::SUCCESS, reject: None };
            }
            Some(old) if old.origin == Origin::Dynamic && old.unique && old.nbma != nbma => {
                return Verdict::refused(CieCode::ALREADY_REGISTERED, Reject::AlreadyRegistered);
            }
            _ => {}
        }
        let refresh = old.is_some_and(|o| o.origin == Origin::Dynamic && o.nbma == nbma);
        let holding_time = HoldingTime(entry.holding_time);
        let registered = Entry {
            origin: Origin::Dynamic,
            nbma,
            claimed,
            unique,
            authoritative: true,
            implicit: false,
            replica: false,
            mtu: entry.mtu,
            created: turn.now,
            holding_time,
            expires: Some(turn.now + holding_time.duration()),
            last_used: None,
        };
        self.install(turn, client, registered);
        turn.event(Event::Registered { tunnel: self.name(), client, nbma, refresh });
        Verdict { code: CieCode::SUCCESS, reject: None }
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

    /// Where a node is seen, as an entry of the NAT extension.
    pub(crate) fn seen_entry(&self, families: Families, nbma: NbmaAddr, node: ProtocolAddr) -> Cie {
        Cie {
            prefix: families.protocol.bits(),
            mtu: self.tunnel.mtu,
            nbma: Some(nbma.0),
            protocol: Some(node.0),
            ..Cie::default()
        }
    }

    /// A server says where it sees us. Whoever heard otherwise from us before, as who asked before the server answered, is told.
    fn observe(&mut self, turn: &mut Turn<'_>, i: usize, observed: Option<NbmaAddr>) {
        let before = self.public();
        self.servers[i].observed = observed;
        if self.public() != before {
            turn.save();
            if let Some(said) = before.or(self.tunnel.nbma) {
                self.purge_self(turn, said, false);
            }
            self.ask_anew(turn);
        }
    }

    /// Where others see us, if that is not where we are: as the servers say.
    pub(crate) fn public(&self) -> Option<NbmaAddr> {
        self.servers.iter().find_map(|s| s.observed)
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
