//! Next-hop servers that this node registers with (`show nhs`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::time::{Clock, maybe_seconds, seconds};
use super::{Filter, list};
use crate::{InterfaceName, NbmaAddr, ProtocolAddr};

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// `W`: not asked; the tunnel has no NBMA address, the server's name is not looked up yet, or enough better servers of its cluster
    /// answer.
    Waiting,
    /// `E`: asked, an answer is due.
    Expecting,
    /// `R`: it accepted the registration.
    Responding,
}

impl ServerState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Expecting, Self::Responding];

    /// The letter that the field knows it by.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Waiting => 'W',
            Self::Expecting => 'E',
            Self::Responding => 'R',
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Expecting => "expecting",
            Self::Responding => "responding",
        })
    }
}

/// A next-hop server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// Its overlay address; `None`: not learnt yet.
    pub protocol: Option<ProtocolAddr>,
    /// Its underlay address; `None`: its name is not looked up yet.
    pub nbma: Option<NbmaAddr>,
    /// Its DNS name, if it is configured by that.
    pub name: Option<String>,
    /// Which servers of its cluster are taken first: 0 before 1.
    pub priority: u8,
    /// Its cluster.
    pub cluster: u8,
    /// Where it stands.
    pub state: ServerState,
    /// How long it has been there.
    #[serde(with = "seconds")]
    pub since: Duration,
    /// Registration requests sent.
    pub requests: u64,
    /// Positive replies to them.
    pub replies: u64,
    /// Refusals.
    pub refusals: u64,
    /// Why it refused last: name of the CIE code (RFC 2332 §5.2.0.1).
    pub refusal: Option<String>,
    /// Time to the next request.
    #[serde(with = "maybe_seconds")]
    pub next_request: Option<Duration>,
}

impl Server {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_interface(Some(self.tunnel))
            && filter.admits_address(|a| {
                self.protocol.is_some_and(|p| p.0 == a) || self.nbma.is_some_and(|n| n.0 == a)
            })
    }
}

list! {
    /// Next-hop servers.
    Servers of Server
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "Tunnel",
            "NHS",
            "NBMA",
            "Name",
            ">Priority",
            ">Cluster",
            "State",
            "Since",
            ">Requests",
            ">Replies",
            ">Refusals",
            "Next",
            "Refused",
        ];
        let mut table = Table::new(headings, "no next-hop servers");
        for s in &self.0 {
            table.row([
                s.tunnel.to_string(),
                or_dash(s.protocol),
                or_dash(s.nbma),
                or_dash(s.name.as_deref()),
                s.priority.to_string(),
                s.cluster.to_string(),
                s.state.to_string(),
                Clock(s.since).to_string(),
                s.requests.to_string(),
                s.replies.to_string(),
                s.refusals.to_string(),
                or_dash(s.next_request.map(Clock)),
                or_dash(s.refusal.as_deref()),
            ]);
        }
        table.fmt(f)
    }
}
