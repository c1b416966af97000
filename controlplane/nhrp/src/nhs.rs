//! The servers that this node registers with (RFC 2332 §5.2.3, §5.2.4: the client's side), one state for each:
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

use std::time::Duration;

use model::config;
use model::time::Instant;
use model::{NbmaAddr, ProtocolAddr};
use wire::nhrp::{Body, Cie, CieCode, ErrorCode, Flags, Kind, Message};

use crate::cloud::{Cloud, request_extensions};
use crate::limits::{REGISTER_PATIENCE, REGISTER_RETRY_LONGEST, RETRY_FIRST, backoff};
use crate::nat::nat_address;
use crate::turn::{Timer, Turn};
use crate::{Event, Reject};

/// A server's number on its tunnel: its protocol address may be unknown, and its NBMA address may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServerId(pub(crate) u32);

/// A server, as its client sees it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    /// As it stands in the configuration.
    pub(crate) nhs: config::Nhs,
    /// Its protocol address: configured, or learnt from its reply.
    pub(crate) protocol: Option<ProtocolAddr>,
    /// Its NBMA address: configured, or what its name has.
    pub(crate) nbma: Option<NbmaAddr>,
    pub(crate) standing: Standing,
    pub(crate) since: Instant,
    /// It refused, or did not answer, the last time that it was asked; before that it has the benefit of the doubt.
    pub(crate) is_silent: bool,
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
    /// What it, or a node on the way to it, said was wrong with our request; until it accepts one.
    pub(crate) error: Option<ErrorCode>,
}

/// A server whose addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) protocol: ProtocolAddr,
    pub(crate) nbma: NbmaAddr,
}

/// A server, as a message to it needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerAt {
    /// `None`: not learnt yet.
    pub(crate) protocol: Option<ProtocolAddr>,
    pub(crate) nbma: NbmaAddr,
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
        self.protocol.is_some_and(|protocol| protocol.0.is_ipv4() == address.0.is_ipv4())
    }

    /// Both of its addresses, as far as they are known.
    pub(crate) fn known(&self) -> Option<Known> {
        Some(Known { protocol: self.protocol?, nbma: self.nbma? })
    }

    fn new(id: ServerId, nhs: config::Nhs, now: Instant) -> Self {
        Self {
            id,
            protocol: nhs.protocol.addr(),
            nbma: nhs.nbma.addr(),
            nhs,
            standing: Standing::Waiting,
            since: now,
            is_silent: false,
            request: None,
            tries: 0,
            registered: None,
            observed: None,
            requests: 0,
            replies: 0,
            refusals: 0,
            refusal: None,
            error: None,
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
            let server = known.unwrap_or_else(|| {
                self.server_ids += 1;
                Server::new(ServerId(self.server_ids), nhs, turn.now)
            });
            self.servers.push(server);
        }
        for gone in servers {
            turn.cancel(Timer::Register(self.name(), gone.id));
            let Some(known) = gone.known() else { continue };
            if let Some(nbma) = gone.registered {
                self.take_back(turn, known, nbma, true);
            }
            if gone.is_up() {
                turn.event(Event::ServerDown { tunnel: self.name(), nhs: known.protocol });
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
                turn.cancel(Timer::Register(self.tunnel.name, server.id));
                self.lose_server(turn, i, Standing::Waiting);
            } else if is_told_otherwise || server.standing == Standing::Waiting {
                server.request = None;
                server.tries = 0;
                let (id, known, registered) = (server.id, server.known(), server.registered);
                if let (Some(known), Some(nbma)) = (known, registered)
                    && registered != own_nbma
                {
                    server.observed = None;
                    self.take_back(turn, known, nbma, false);
                }
                self.register(turn, id);
            }
        }
    }

    /// Tells a server to forget us; `nbma` is where it has us.
    fn take_back(&mut self, turn: &mut Turn<'_>, server: Known, nbma: NbmaAddr, is_last_word: bool) {
        let Some(own) = self.identity(server.protocol) else { return };
        let at = ServerAt { protocol: Some(server.protocol), nbma: server.nbma };
        self.unregister(turn, &own, at, nbma, is_last_word);
    }

    /// The last word to every server that has us.
    pub(crate) fn leave_servers(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.servers.len() {
            if self.servers[i].is_up()
                && let (Some(known), Some(nbma)) =
                    (self.servers[i].known(), self.servers[i].registered.take())
            {
                self.take_back(turn, known, nbma, true);
            }
        }
    }

    /// Registers again, at once, with every server whose answer is awaited.
    pub(crate) fn contact_silent_servers(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.servers.len() {
            let server = &mut self.servers[i];
            if server.standing != Standing::Waiting && server.tries > 0 {
                server.tries = 0;
                let id = server.id;
                self.register(turn, id);
            }
        }
    }

    /// Sends a registration request: the timer fired, or something changed.
    pub(crate) fn register(&mut self, turn: &mut Turn<'_>, id: ServerId) {
        let Some(i) = self.servers.iter().position(|s| s.id == id) else { return };
        let Some(Known { protocol: nhs, nbma }) = self.servers[i].known() else { return };
        let Some(own) = self.identity(nhs) else {
            return self.lose_server(turn, i, Standing::Waiting);
        };
        if self.servers[i].tries >= REGISTER_PATIENCE {
            self.lose_server(turn, i, Standing::Expecting);
        }
        self.leave_unregistering(turn, nbma, &own);
        let server = &mut self.servers[i];
        if server.standing == Standing::Waiting {
            server.stand(turn, Standing::Expecting);
        }
        let request_id = *server.request.get_or_insert_with(|| turn.request_id());
        let retry = backoff(RETRY_FIRST, server.tries, REGISTER_RETRY_LONGEST);
        server.tries = server.tries.saturating_add(1);
        server.requests += 1;
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
        let message = own.request(Kind::RegistrationRequest, flags, request_id, nhs, vec![entry], extensions);
        self.send(turn, nbma, message);
        let retry = turn.jittered(retry);
        turn.set(Timer::Register(self.name(), id), retry);
    }

    /// A server is not, or no more, one that has accepted us.
    fn lose_server(&mut self, turn: &mut Turn<'_>, i: usize, standing: Standing) {
        let server = &mut self.servers[i];
        let was = server.standing;
        server.is_silent = true;
        server.stand(turn, standing);
        let known = server.known();
        if was == Standing::Responding {
            if let Some(Known { protocol: nhs, .. }) = known {
                turn.event(Event::ServerDown { tunnel: self.name(), nhs });
            }
            self.choose_fallback(turn);
        }
        if let Some(Known { protocol: nhs, .. }) = known {
            self.reach_server(turn, nhs);
        }
    }

    /// The first server that responds, else the first: its binding is known without it. Of whatever family: the way to a peer takes
    /// packets of both.
    fn choose_fallback(&mut self, turn: &mut Turn<'_>) {
        let up = self.servers.iter().find(|s| s.is_up());
        let server = up.or(self.servers.first()).and_then(|s| s.protocol);
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
        let observed = message.source.and_then(|us| nat_address(message, ProtocolAddr(us)));
        let observed = observed.filter(|nbma| Some(*nbma) != self.tunnel.nbma);
        let server = &mut self.servers[i];
        let nhs = server.known().ok_or(Reject::Unsolicited)?;
        let timer = Timer::Register(self.tunnel.name, server.id);
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
            if let Some(old) =
                known.filter(|_| code == CieCode::ALREADY_REGISTERED && known != self.tunnel.nbma)
            {
                self.take_back(turn, nhs, old, false);
            }
            let again = backoff(RETRY_FIRST, tries.saturating_sub(1), REGISTER_RETRY_LONGEST);
            let again = turn.jittered(again);
            turn.set(timer, again);
            return Ok(());
        }
        server.replies += 1;
        server.refusal = None;
        server.error = None;
        server.tries = 0;
        server.is_silent = false;
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
            self.reach_server(turn, nhs.protocol);
            self.choose_fallback(turn);
        }
        Ok(())
    }

    /// An error indication came about one of our registration requests: what may be the reason why there is no reply. It is asked on.
    pub(crate) fn registration_error(&mut self, request_id: u32, code: ErrorCode) {
        if let Some(server) = self.servers.iter_mut().find(|s| s.request == Some(request_id)) {
            server.error = Some(code);
            server.refusals += 1;
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
