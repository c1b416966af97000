//! What the engine shows of itself.

use std::time::Duration;

use model::config::NhsNbma;
use model::state::counters::{Counter, ErrorCounter, MessageCounter};
use model::state::nhrp::{Entry, EntryFlags, EntryType};
use model::state::nhs::{Server, ServerState};
use model::time::Instant;
use model::{Prefix, ProtocolAddr};
use wire::nhrp::{ErrorCode, MessageType};

use crate::Reject;
use crate::cloud::Cloud;
use crate::engine::Engine;
use crate::heard::Heard;
use crate::nhs::{Refusal, Standing};
use crate::resolution::Phase;
use crate::shortcut::Shortcut;
use crate::turn::Timer;

/// What was received, sent and not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Messages by tunnel and type.
    pub messages: Vec<MessageCounter>,
    /// Messages, and words of the data plane, that were not acted upon, by reason; all reasons, in their order.
    pub rejects: Vec<Counter>,
    /// Error indications by tunnel and code; those that there were.
    pub errors: Vec<ErrorCounter>,
}

/// Why a server said no.
fn refusal_name(refusal: Refusal) -> String {
    match refusal {
        Refusal::Entry(code) => code.name().map_or_else(|| format!("code {}", code.0), str::to_owned),
        Refusal::Error(code) => error_name(code),
    }
}

/// The name of an error code (RFC 2332 §5.2.7).
fn error_name(code: ErrorCode) -> String {
    code.name().map_or_else(|| "other error".to_owned(), str::to_owned)
}

impl Engine {
    /// Bindings of all tunnels, own addresses, and addresses that are asked for or rest.
    #[must_use]
    pub fn entries(&self, now: Instant) -> Vec<Entry> {
        self.clouds.values().flat_map(|cloud| cloud.entries(now)).collect()
    }

    /// What requests that passed said of their sources: implicit, programmed nowhere.
    #[must_use]
    pub fn heard(&self, now: Instant) -> Vec<Entry> {
        self.clouds.values().flat_map(|cloud| cloud.shown_heard(now)).collect()
    }

    /// Shortcuts of all tunnels.
    #[must_use]
    pub fn shortcuts(&self, now: Instant) -> Vec<Entry> {
        self.clouds.values().flat_map(|cloud| cloud.shown_shortcuts(now)).collect()
    }

    /// Servers of all tunnels.
    #[must_use]
    pub fn servers(&self, now: Instant) -> Vec<Server> {
        let due = |timer| self.common.timers.due(timer).map(|at| at.since(now));
        self.clouds.values().flat_map(|cloud| cloud.shown_servers(now, due)).collect()
    }

    /// Counters.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let messages = self.clouds.values().flat_map(|cloud| {
            MessageType::ALL.into_iter().zip(cloud.messages).map(|(message, (sent, received))| {
                MessageCounter { tunnel: cloud.name(), message: message.name().to_owned(), sent, received }
            })
        });
        let rejects = Reject::ALL.map(|reject| Counter {
            name: reject.name().to_owned(),
            sentence: reject.sentence().to_owned(),
            count: self.common.rejects.get(&reject).copied().unwrap_or(0),
        });
        let errors = self.clouds.values().flat_map(|cloud| {
            cloud.errors.iter().map(|(code, (sent, received))| ErrorCounter {
                tunnel: cloud.name(),
                code: *code,
                name: error_name(ErrorCode(*code)),
                sent: *sent,
                received: *received,
            })
        });
        Traffic { messages: messages.collect(), rejects: rejects.into(), errors: errors.collect() }
    }
}

impl Cloud {
    fn shown(&self, address: ProtocolAddr, entry_type: EntryType) -> Entry {
        Entry {
            tunnel: self.name(),
            prefix: Prefix::host(address.0),
            next_hop: address,
            entry_type,
            flags: EntryFlags::default(),
            nbma: None,
            claimed_nbma: None,
            created: Duration::ZERO,
            expires_in: None,
            mtu: 0,
        }
    }

    fn entries(&self, now: Instant) -> Vec<Entry> {
        let own = self.tunnel.addresses.iter().map(|a| Entry {
            nbma: self.tunnel.nbma,
            mtu: self.tunnel.mtu,
            ..self.shown(ProtocolAddr(a.addr()), EntryType::Local)
        });
        let bindings = self.cache.iter().map(|(address, e)| Entry {
            flags: e.flags(now),
            nbma: Some(e.nbma),
            claimed_nbma: e.claimed,
            created: now.since(e.created),
            expires_in: e.ends().map(|at| at.since(now)),
            mtu: e.mtu,
            ..self.shown(*address, e.origin.entry_type())
        });
        // What forwards while it is asked for again is shown as what it is.
        let asked = self.asks.iter().filter(|(address, _)| !self.cache.contains_key(address));
        let asked = asked.filter_map(|(address, ask)| {
            let (entry_type, expires_in) = match ask.phase {
                Phase::Asking { .. } => (EntryType::Incomplete, None),
                Phase::Resting { until } if until > now => (EntryType::Negative, Some(until.since(now))),
                Phase::Resting { .. } => return None,
            };
            Some(Entry { created: now.since(ask.created), expires_in, ..self.shown(*address, entry_type) })
        });
        own.chain(bindings).chain(self.shown_prefixes(now)).chain(asked).collect()
    }

    /// What clients registered beside their own addresses.
    fn shown_prefixes(&self, now: Instant) -> impl Iterator<Item = Entry> {
        let registered = self.shortcuts.iter().filter(|(_, s)| s.registered);
        registered.map(move |(prefix, s)| self.shown_route(now, *prefix, s, EntryType::Dynamic))
    }

    fn shown_heard(&self, now: Instant) -> Vec<Entry> {
        let heard = self.heard.iter().filter(|(_, heard)| heard.until > now);
        let entry = |(address, heard): (&ProtocolAddr, &Heard)| Entry {
            flags: EntryFlags { implicit: true, ..EntryFlags::default() },
            nbma: Some(heard.nbma),
            created: now.since(heard.created),
            expires_in: Some(heard.until.since(now)),
            mtu: heard.mtu,
            ..self.shown(*address, EntryType::Cached)
        };
        heard.map(entry).collect()
    }

    fn shown_shortcuts(&self, now: Instant) -> Vec<Entry> {
        let shortcuts = self.shortcuts.iter().filter(|(_, s)| !s.registered);
        shortcuts.map(|(prefix, s)| self.shown_route(now, *prefix, s, EntryType::Cached)).collect()
    }

    fn shown_route(&self, now: Instant, prefix: Prefix, s: &Shortcut, entry_type: EntryType) -> Entry {
        let binding = self.cache.get(&s.next_hop);
        let flags = binding.map(|b| b.flags(now)).unwrap_or_default();
        Entry {
            prefix,
            flags: EntryFlags { registered: s.registered, ..flags },
            nbma: binding.map(|b| b.nbma),
            created: now.since(s.created),
            expires_in: Some(s.expires.since(now)),
            mtu: binding.map_or(0, |b| b.mtu),
            ..self.shown(s.next_hop, entry_type)
        }
    }

    fn shown_servers(&self, now: Instant, due: impl Fn(Timer) -> Option<Duration>) -> Vec<Server> {
        let server = |s: &crate::nhs::Server| Server {
            tunnel: self.name(),
            protocol: s.protocol,
            nbma: s.at(),
            name: match &s.nhs.nbma {
                NhsNbma::Addr(_) => None,
                NhsNbma::Name(name) => Some(name.clone()),
            },
            priority: s.nhs.priority,
            cluster: s.nhs.cluster,
            state: match s.standing {
                _ if s.nbma.is_none() => ServerState::Waiting,
                Standing::Waiting => ServerState::Waiting,
                Standing::Expecting => ServerState::Expecting,
                Standing::Responding => ServerState::Responding,
            },
            since: now.since(s.since),
            requests: s.requests,
            replies: s.replies,
            refusals: s.refusals,
            refusal: s.refusal.map(refusal_name),
            next_request: due(Timer::Register(self.name(), s.id)),
        };
        self.servers.iter().map(server).collect()
    }
}
