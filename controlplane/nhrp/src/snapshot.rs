//! What survives a restart: bindings and shortcuts with what remains of their holding times, and how far request ids have
//! been used. The engine knows no calendar, so who stores a snapshot says how long it lay ([`Snapshot::aged`]).

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::{NhsNbma, NhsProtocol};
use model::program::Binding;
use model::time::{HoldingTime, Instant};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr};
use serde::{Deserialize, Serialize};

use crate::answer::Told;
use crate::cache::{Entry, Origin};
use crate::cloud::Cloud;
use crate::engine::Engine;
use crate::input::Peer;
use crate::limits::ANSWERS_REMEMBERED;
use crate::nhs::{Held, Known, Server};
use crate::shortcut::Shortcut;
use crate::turn::Turn;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Snapshot {
    /// No request id from this one on was used yet.
    pub request_id: u32,
    /// Each tunnel.
    pub tunnels: Vec<RememberedTunnel>,
}

/// What a tunnel knew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedTunnel {
    /// Its name.
    pub name: InterfaceName,
    /// Bindings that were registered or resolved; those of configured ones that were registered as well.
    pub bindings: Vec<RememberedBinding>,
    /// Shortcuts.
    pub shortcuts: Vec<RememberedShortcut>,
    /// Servers that we registered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<RememberedServer>,
    /// Answers that we gave: those that hold longest, if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<RememberedAnswer>,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedBinding {
    /// Protocol address.
    pub address: ProtocolAddr,
    /// NBMA address.
    pub nbma: NbmaAddr,
    /// UDP port of its packets, where encapsulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who registered it, where IKE knows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What the client claims its NBMA address is, where that differs (NAT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<NbmaAddr>,
    /// Registered with us, or else learnt by a resolution.
    pub registered: bool,
    /// To be kept against other registrations.
    pub unique: bool,
    /// Given by who has the address.
    pub authoritative: bool,
    /// Learnt from a request.
    pub implicit: bool,
    /// MTU that the peer told, in bytes.
    pub mtu: u16,
    /// Holding time as it was told.
    pub holding_time: HoldingTime,
    /// What remains of it.
    pub remaining: Duration,
    /// Time since it was created.
    pub age: Duration,
}

/// A server that has us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedServer {
    /// As the configuration has it: its protocol address,
    pub protocol: NhsProtocol,
    /// and its NBMA address or name.
    pub nbma: NhsNbma,
    /// Its addresses, when it accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<(ProtocolAddr, NbmaAddr)>,
    /// It was one of those that we registered with to use them.
    #[serde(default)]
    pub is_taken: bool,
    /// What it has of us: first of our global address, then of the link-local one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<RememberedRegistration>,
    /// Where it sees us, where that is not where we are (NAT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<NbmaAddr>,
}

/// A registration of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedRegistration {
    /// This address
    pub protocol: ProtocolAddr,
    /// at this one,
    pub nbma: NbmaAddr,
    /// as the server was told at this address of its own.
    pub at: NbmaAddr,
    /// It said that it has it; else it may have.
    pub is_accepted: bool,
}

/// An answer that we gave: who has it is told when it is not true any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedAnswer {
    /// What we answered for.
    pub prefix: Prefix,
    /// Who asked.
    pub client: ProtocolAddr,
    /// Where it is.
    pub nbma: NbmaAddr,
    /// UDP port of its packets, where encapsulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address that it asked for.
    pub destination: ProtocolAddr,
    /// It wanted no shorter prefix than this long.
    #[serde(default)]
    pub shortest: u8,
    /// The client whose binding it was, if it was not of us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<ProtocolAddr>,
    /// What remains of the holding time that we gave.
    pub remaining: Duration,
}

/// A shortcut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedShortcut {
    /// What is reached by it.
    pub prefix: Prefix,
    /// Next hop.
    pub next_hop: ProtocolAddr,
    /// The address that was asked for.
    pub destination: ProtocolAddr,
    /// Next hop of the route that it leaves aside.
    pub instead_of: ProtocolAddr,
    /// Its next hop registered it.
    #[serde(default)]
    pub registered: bool,
    /// Holding time as it was told.
    pub holding_time: HoldingTime,
    /// What remains of it.
    pub remaining: Duration,
    /// Time since it was created.
    pub age: Duration,
}

impl Snapshot {
    /// The snapshot after it lay for `time`: holding times went on, and what outlived them is gone.
    #[must_use]
    pub fn aged(mut self, time: Duration) -> Self {
        for tunnel in &mut self.tunnels {
            tunnel.bindings.retain_mut(|b| pass(&mut b.remaining, &mut b.age, time));
            tunnel.shortcuts.retain_mut(|s| pass(&mut s.remaining, &mut s.age, time));
            tunnel.told.retain_mut(|t| pass(&mut t.remaining, &mut Duration::default(), time));
        }
        self
    }

    /// Takes bindings that forward and are not in it, or that end later there than here: what was told later is in none of the
    /// snapshots. Nobody can say any more whose word they were, so they count as registered: nobody else renews those.
    pub(crate) fn adopt(&mut self, forwarding: &[Binding]) {
        let mut places: BTreeMap<_, _> = self.tunnels.iter().zip(0..).map(|(t, i)| (t.name, i)).collect();
        let known = |tunnel: &RememberedTunnel| {
            tunnel.bindings.iter().zip(0..).map(|(b, i)| (b.address, i)).collect()
        };
        let mut known: Vec<BTreeMap<ProtocolAddr, usize>> = self.tunnels.iter().map(known).collect();
        for found in forwarding {
            let Some(remaining) = found.expires_in.filter(|r| !r.is_zero()) else { continue };
            let place: usize = *places.entry(found.tunnel).or_insert_with(|| {
                self.tunnels.push(RememberedTunnel::new(found.tunnel));
                known.push(BTreeMap::new());
                self.tunnels.len() - 1
            });
            let bindings = &mut self.tunnels[place].bindings;
            if let Some(&at) = known[place].get(&found.next_hop) {
                let old = &mut bindings[at];
                // The data plane's clock is not ours to the microsecond.
                if remaining > old.remaining + Duration::from_secs(1) {
                    old.remaining = remaining;
                    if old.nbma != found.nbma {
                        old.nbma = found.nbma;
                        old.claimed = None;
                        old.port = None;
                        old.identity = None;
                    }
                }
                continue;
            }
            let whole = u16::try_from(remaining.as_secs()).unwrap_or(u16::MAX).saturating_add(1);
            bindings.push(RememberedBinding {
                address: found.next_hop,
                nbma: found.nbma,
                port: None,
                identity: None,
                claimed: None,
                registered: true,
                unique: false,
                authoritative: true,
                implicit: false,
                mtu: 0,
                holding_time: HoldingTime(whole),
                remaining,
                age: Duration::ZERO,
            });
        }
    }
}

impl RememberedTunnel {
    const fn new(name: InterfaceName) -> Self {
        Self { name, bindings: Vec::new(), shortcuts: Vec::new(), servers: Vec::new(), told: Vec::new() }
    }
}

fn pass(remaining: &mut Duration, age: &mut Duration, time: Duration) -> bool {
    *remaining = remaining.saturating_sub(time);
    *age = age.saturating_add(time);
    !remaining.is_zero()
}

impl Engine {
    /// What is to survive a restart.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        // What nobody asked for yet is kept for the next life.
        let restored = self.restored.clone().unwrap_or_default().aged(now.since(self.restored_at));
        let mut tunnels = restored.tunnels;
        tunnels.extend(self.clouds.values().map(|cloud| cloud.remembered(now)));
        Snapshot { request_id: self.common.ids.reserved, tunnels }
    }
}

impl Cloud {
    fn remembered(&self, now: Instant) -> RememberedTunnel {
        let binding = |(address, entry): (&ProtocolAddr, &Entry)| {
            Some(RememberedBinding {
                address: *address,
                nbma: entry.nbma,
                port: entry.port,
                identity: entry.identity.as_deref().map(str::to_owned),
                claimed: entry.claimed,
                registered: entry.is_registered(),
                unique: entry.unique,
                authoritative: entry.authoritative,
                implicit: entry.implicit,
                mtu: entry.mtu,
                holding_time: entry.holding_time,
                remaining: entry.expires?.since(now),
                age: now.since(entry.created),
            })
        };
        let shortcut = |(prefix, shortcut): (&Prefix, &Shortcut)| RememberedShortcut {
            prefix: *prefix,
            next_hop: shortcut.next_hop,
            destination: shortcut.destination,
            instead_of: shortcut.instead_of,
            registered: shortcut.registered,
            holding_time: shortcut.holding_time,
            remaining: shortcut.expires.since(now),
            age: now.since(shortcut.created),
        };
        RememberedTunnel {
            name: self.name(),
            bindings: self.cache.iter().filter_map(binding).collect(),
            shortcuts: self.shortcuts.iter().map(shortcut).collect(),
            servers: self.servers.iter().filter(|s| s.global.held.is_some()).map(remembered_server).collect(),
            told: self.remembered_answers(now),
        }
    }

    fn remembered_answers(&self, now: Instant) -> Vec<RememberedAnswer> {
        let answer = |((prefix, client), told): (&(Prefix, ProtocolAddr), &Told)| RememberedAnswer {
            prefix: *prefix,
            client: *client,
            nbma: told.peer.nbma,
            port: told.peer.port,
            destination: told.destination,
            shortest: told.shortest,
            by: told.by,
            remaining: told.until.since(now),
        };
        let holding = self.told.iter().filter(|(_, told)| told.until > now);
        let mut answers: Vec<_> = holding.map(answer).collect();
        if answers.len() > ANSWERS_REMEMBERED {
            answers.sort_unstable_by_key(|a| std::cmp::Reverse(a.remaining));
            answers.truncate(ANSWERS_REMEMBERED);
        }
        answers
    }

    /// Takes what a former life knew, and programs it again with the time that remains.
    pub(crate) fn remember(&mut self, turn: &mut Turn<'_>, remembered: RememberedTunnel) {
        let now = turn.now;
        let own = self.tunnel.nbma;
        let is_elsewhere = |nbma: NbmaAddr| own.is_some_and(|own| own.0.is_ipv4() != nbma.0.is_ipv4());
        for r in remembered.servers {
            self.remember_server(turn, r);
        }
        self.seen_at = self.public();
        self.bind_servers(turn);
        for b in remembered.bindings {
            let learnt = if b.registered { Origin::Dynamic } else { Origin::Cached };
            // What the configuration says of it stands; beside that, that it is registered where the configuration says.
            let origin = match self.cache.get(&b.address) {
                Some(known) if known.origin.is_configured() && known.nbma == b.nbma && b.registered => {
                    known.origin
                }
                Some(_) => continue,
                None => learnt,
            };
            if is_elsewhere(b.nbma) || b.remaining.is_zero() || self.is_full(b.address) {
                continue;
            }
            let entry = Entry {
                origin,
                nbma: b.nbma,
                port: b.port,
                claimed: b.claimed,
                unique: b.unique,
                authoritative: b.authoritative,
                implicit: b.implicit,
                replica: false,
                mtu: b.mtu,
                created: now - b.age,
                holding_time: b.holding_time,
                expires: Some(now + b.remaining),
                last_used: None,
                identity: b.identity.map(Into::into),
            };
            self.install(turn, b.address, entry);
        }
        for s in remembered.shortcuts {
            let is_allowed = !s.registered || self.accepts(s.prefix);
            if s.remaining.is_zero() || !is_allowed || !self.cache.contains_key(&s.next_hop) {
                continue;
            }
            let shortcut = Shortcut {
                next_hop: s.next_hop,
                destination: s.destination,
                instead_of: s.instead_of,
                registered: s.registered,
                created: now - s.age,
                holding_time: s.holding_time,
                expires: now + s.remaining,
            };
            self.install_shortcut(turn, s.prefix, shortcut);
        }
        for t in remembered.told {
            let RememberedAnswer { nbma, port, destination, shortest, by, .. } = t;
            let told =
                Told { peer: Peer { nbma, port }, destination, shortest, by, until: now + t.remaining };
            self.told.insert((t.prefix, t.client), told);
        }
    }

    fn remember_server(&mut self, turn: &mut Turn<'_>, remembered: RememberedServer) {
        let own = self.tunnel.nbma;
        let RememberedServer { protocol, nbma, accepted_at, is_taken, has, observed } = remembered;
        let is_it = |s: &&mut Server| s.nhs.protocol == protocol && s.nhs.nbma == nbma;
        let Some(server) = self.servers.iter_mut().find(is_it) else { return };
        let known = accepted_at.map(|(protocol, nbma)| Known { protocol, nbma });
        // What is in an underlay of the other family is not there any more.
        let is_here = |known: &Known| own.is_none_or(|own| own.0.is_ipv4() == known.nbma.0.is_ipv4());
        server.restore(turn.now, known.filter(is_here), is_taken);
        for r in has {
            let RememberedRegistration { protocol, nbma, at, is_accepted } = r;
            let held = Held { protocol, nbma, at, is_accepted };
            let which = if protocol.is_link_local() { &mut server.link_local } else { &mut server.global };
            which.held = Some(held);
        }
        // Where we are has not changed, as far as anybody knows.
        if server.global.held.map(|held| held.nbma) == own {
            server.observed = observed;
        }
    }
}

fn remembered_server(server: &Server) -> RememberedServer {
    let held = |held: Held| RememberedRegistration {
        protocol: held.protocol,
        nbma: held.nbma,
        at: held.at,
        is_accepted: held.is_accepted,
    };
    RememberedServer {
        protocol: server.nhs.protocol,
        nbma: server.nhs.nbma.clone(),
        accepted_at: server.accepted_at.map(|known| (known.protocol, known.nbma)),
        is_taken: server.is_taken && server.global.held.is_some_and(|held| held.is_accepted),
        has: [server.global.held, server.link_local.held].into_iter().flatten().map(held).collect(),
        observed: server.observed,
    }
}
