//! The NHRP cache (`show nhrp`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::time::{Clock, expiry, maybe_seconds, seconds};
use super::{Filter, list};
use crate::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr};

/// How an entry came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryType {
    /// Asked for, no answer yet.
    Incomplete,
    /// Answered: no such binding.
    Negative,
    /// Learnt from a resolution.
    Cached,
    /// Registered by a client.
    Dynamic,
    /// A next-hop server.
    Nhs,
    /// Configured.
    Static,
    /// This node itself.
    Local,
}

impl EntryType {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Incomplete, Self::Negative, Self::Cached, Self::Dynamic, Self::Nhs, Self::Static, Self::Local];
}

impl fmt::Display for EntryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Incomplete => "incomplete",
            Self::Negative => "negative",
            Self::Cached => "cached",
            Self::Dynamic => "dynamic",
            Self::Nhs => "nhs",
            Self::Static => "static",
            Self::Local => "local",
        })
    }
}

/// What is known of an entry beside its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EntryFlags {
    /// It came from the node it speaks of, or from its server.
    pub authoritative: bool,
    /// Learnt from a message about something else.
    pub implicit: bool,
    /// Registered by the client itself.
    pub registered: bool,
    /// The client wants it kept against other NBMA addresses.
    pub unique: bool,
    /// Packets used it of late.
    pub used: bool,
}

impl fmt::Display for EntryFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.authoritative, "authoritative"),
            (self.implicit, "implicit"),
            (self.registered, "registered"),
            (self.unique, "unique"),
            (self.used, "used"),
        ];
        let set: Vec<_> = names.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
        f.pad(&if set.is_empty() { "-".to_owned() } else { set.join(" ") })
    }
}

/// An entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// What the entry is about: a peer (host prefix), or a network behind one.
    pub prefix: Prefix,
    /// The overlay address that it leads to; the prefix's own address for a peer.
    pub next_hop: ProtocolAddr,
    /// How it came to be.
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    /// What else is known.
    pub flags: EntryFlags,
    /// Where it is; `None` while unknown.
    pub nbma: Option<NbmaAddr>,
    /// NBMA address that the client claims, where it differs from where its packets come from (NAT).
    pub claimed_nbma: Option<NbmaAddr>,
    /// Time since it was created.
    #[serde(with = "seconds")]
    pub created: Duration,
    /// Remaining holding time; `None`: forever.
    #[serde(with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
    /// MTU that the peer told, in bytes; 0 if none.
    pub mtu: u16,
}

impl Entry {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_interface(Some(self.tunnel))
            && filter.admits_address(|a| {
                self.prefix.contains(a) || self.next_hop.0 == a || self.nbma.is_some_and(|n| n.0 == a)
            })
    }
}

list! {
    /// The NHRP cache.
    Cache of Entry
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["Target", "Via", "NBMA", "Tunnel", "Type", "Created", "Expires", "Flags"];
        let mut table = Table::new(headings, NOTHING);
        for e in &self.0 {
            table.row([
                e.prefix.to_string(),
                e.next_hop.to_string(),
                or_dash(e.nbma),
                e.tunnel.to_string(),
                e.entry_type.to_string(),
                Clock(e.created).to_string(),
                expiry(e.expires_in),
                e.flags.to_string(),
            ]);
        }
        table.fmt(f)
    }
}

const NOTHING: &str = "no NHRP entries";

impl Cache {
    pub(super) fn brief(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["Target", "Via", "NBMA", "Type", "Tunnel"], NOTHING);
        for e in &self.0 {
            table.row([
                e.prefix.to_string(),
                e.next_hop.to_string(),
                or_dash(e.nbma),
                e.entry_type.to_string(),
                e.tunnel.to_string(),
            ]);
        }
        write!(f, "{table}")
    }

    pub(super) fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "{NOTHING}");
        }
        for e in &self.0 {
            writeln!(f, "{} via {}", e.prefix, e.next_hop)?;
            writeln!(f, "   {} created {}, expire {}", e.tunnel, Clock(e.created), expiry(e.expires_in))?;
            writeln!(f, "   Type: {}, Flags: {}", e.entry_type, e.flags)?;
            writeln!(f, "   NBMA address: {}", or_dash(e.nbma))?;
            if let Some(claimed) = e.claimed_nbma {
                writeln!(f, "   Claimed NBMA address: {claimed}")?;
            }
            if e.mtu > 0 {
                writeln!(f, "   MTU: {} bytes", e.mtu)?;
            }
        }
        Ok(())
    }
}
