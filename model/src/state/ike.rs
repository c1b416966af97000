//! IKE SAs, and peers that are wanted and have none (`show ike`). No key of theirs is shown anywhere.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::time::{Clock, maybe_seconds, seconds};
use super::{Filter, list};
use crate::WorkerId;
use crate::ike::{EspSuite, Identity, IkeSuite};
use crate::sa::{Protection, Spi};

/// Where an IKE SA stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IkeState {
    /// The peer is wanted; the last attempt failed, and the next one is due later.
    Waiting,
    /// Keys are being agreed on (IKE_SA_INIT).
    Connecting,
    /// The peers prove who they are (IKE_AUTH).
    Authenticating,
    /// It is established.
    Up,
    /// It is established, and its successor is being made.
    Rekeying,
    /// It is being deleted, or lingers behind its successor.
    Closing,
}

impl IkeState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Connecting, Self::Authenticating, Self::Up, Self::Rekeying, Self::Closing];
}

impl fmt::Display for IkeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Authenticating => "authenticating",
            Self::Up => "up",
            Self::Rekeying => "rekeying",
            Self::Closing => "closing",
        })
    }
}

/// Who began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// We did.
    Initiator,
    /// The peer did.
    Responder,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Initiator, Self::Responder];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        })
    }
}

/// An IKE SA, or a peer that is wanted and has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeSa {
    /// The peer: profile, addresses, and the UDP port that ESP to it has (0: it is not in UDP, or nothing is known yet).
    pub protection: Protection,
    /// Who the peer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// By what the peer proved it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// The addresses that its certificate names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Who began it.
    pub role: Role,
    /// Where it stands.
    pub state: IkeState,
    /// What it is protected by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<IkeSuite>,
    /// The SPI of its initiator; 0: there is none.
    pub spi_initiator: u64,
    /// The SPI of its responder; 0: it has not told it.
    pub spi_responder: u64,
    /// How long it has been there, or wanted.
    #[serde(with = "seconds")]
    pub age: Duration,
    /// When it is rekeyed, or tried again.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    pub rekey_in: Option<Duration>,
    /// How long ago the peer was last heard of, by IKE or ESP.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    pub heard: Option<Duration>,
    /// A NAT is in front of us.
    pub nat_here: bool,
    /// A NAT is in front of the peer.
    pub nat_there: bool,
    /// It is a next-hop server of ours: it is tried for ever, and not let go when idle.
    pub server: bool,
    /// How often the request that is under way was sent again.
    pub retransmissions: u32,
    /// Why the last attempt failed, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Its child SAs.
    pub children: Vec<Child>,
}

/// A pair of child SAs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The SPI that we chose.
    pub inbound: Spi,
    /// The SPI that the peer chose.
    pub outbound: Spi,
    /// What it is sealed with.
    pub suite: EspSuite,
    /// The worker that has both.
    pub worker: WorkerId,
    /// How old it is.
    #[serde(with = "seconds")]
    pub age: Duration,
    /// When it is rekeyed; `None`: it is not, a successor has taken its place.
    #[serde(default, with = "maybe_seconds", skip_serializing_if = "Option::is_none")]
    pub rekey_in: Option<Duration>,
}

impl IkeSa {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        let Protection { table, local, remote, .. } = self.protection;
        filter.admits_table(table)
            && filter.admits_address(|addr| {
                local.0 == addr
                    || remote.0 == addr
                    || self.addresses.contains(&addr)
                    || self.identity == Some(Identity::Address(addr))
            })
    }
}

list! {
    /// IKE SAs, and peers that are wanted and have none.
    IkeSas of IkeSa
}

/// An age or a remaining time, or `-`.
fn clock(of: Option<Duration>) -> String {
    or_dash(of.map(Clock))
}

impl fmt::Display for IkeSas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "Profile",
            "Local",
            "Remote",
            ">Port",
            "Identity",
            "Role",
            "State",
            "Suite",
            ">Children",
            "Age",
            "Rekey in",
            "Heard",
        ];
        let mut table = Table::new(headings, "no IKE SAs");
        for sa in &self.0 {
            let Protection { profile, local, remote, port, .. } = sa.protection;
            table.row([
                profile.to_string(),
                local.to_string(),
                remote.to_string(),
                or_dash((port != 0).then_some(port)),
                or_dash(sa.identity.as_ref()),
                sa.role.to_string(),
                sa.state.to_string(),
                or_dash(sa.suite),
                sa.children.len().to_string(),
                Clock(sa.age).to_string(),
                clock(sa.rekey_in),
                clock(sa.heard),
            ]);
        }
        table.fmt(f)?;
        for sa in &self.0 {
            if let Some(why) = &sa.failure {
                writeln!(f, "{}: {why}", sa.protection.remote)?;
            }
        }
        Ok(())
    }
}

impl IkeSas {
    pub(super) fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "no IKE SAs");
        }
        for (n, sa) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            sa.detail(f)?;
        }
        Ok(())
    }
}

impl IkeSa {
    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = if self.server { ", a server of ours" } else { "" };
        writeln!(f, "{}: {}, we are {}{server}", self.protection, self.state, self.role)?;
        let identity = or_dash(self.identity.as_ref());
        let proof = self.proof.as_ref().map(|by| format!(", proved by {by}")).unwrap_or_default();
        writeln!(f, "    Identity: {identity}{proof}")?;
        if !self.addresses.is_empty() {
            let all: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
            writeln!(f, "    Certified addresses: {}", all.join(", "))?;
        }
        let suite = or_dash(self.suite);
        writeln!(f, "    Suite: {suite}; SPIs {:016x}, {:016x}", self.spi_initiator, self.spi_responder)?;
        let when = if self.state == IkeState::Waiting { "next attempt in" } else { "rekey in" };
        let (age, next) = (Clock(self.age), clock(self.rekey_in));
        let heard = self
            .heard
            .map_or_else(|| "not heard of".to_owned(), |ago| format!("last heard {} ago", Clock(ago)));
        writeln!(f, "    Age {age}; {when} {next}; {heard}; retransmissions {}", self.retransmissions)?;
        let nat = match (self.nat_here, self.nat_there) {
            (false, false) => "none",
            (true, false) => "in front of us",
            (false, true) => "in front of the peer",
            (true, true) => "in front of both",
        };
        writeln!(f, "    NAT: {nat}")?;
        for child in &self.children {
            let (age, next) = (Clock(child.age), clock(child.rekey_in));
            let Child { inbound, outbound, suite, worker, .. } = child;
            writeln!(
                f,
                "    Child: in {inbound}, out {outbound}, {suite}, worker {}; age {age}; rekey in {next}",
                worker.0
            )?;
        }
        if let Some(why) = &self.failure {
            writeln!(f, "    Last failure: {why}")?;
        }
        Ok(())
    }
}
