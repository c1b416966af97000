//! Peers of each tunnel (`show dmvpn`).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::{Clock, expiry, maybe_seconds, seconds};
use super::{Filter, list};
use crate::program::Hop;
use crate::{InterfaceAddr, InterfaceName, NbmaAddr, Prefix, ProtocolAddr};

/// Whether a peer can be reached; if not, the first thing that is missing, seen from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Packets go to it.
    Up,
    /// The tunnel itself is down: its source interface has no address, or its port no link.
    Interface,
    /// The underlay has no route to its NBMA address, or the neighbour on it does not answer.
    Route,
    /// The tunnel is protected, and the peer has no SA: IKE has not come to one with it.
    Ike,
    /// NHRP has no answer: not registered, not resolved.
    Nhrp,
}

impl PeerState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Up, Self::Interface, Self::Route, Self::Ike, Self::Nhrp];
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "UP",
            Self::Interface => "INTF",
            Self::Route => "ROUTE",
            Self::Ike => "IKE",
            Self::Nhrp => "NHRP",
        })
    }
}

/// How a peer is known: the letters of the `Attrb` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PeerAttributes {
    /// `S`: written in the configuration (NHS or map).
    #[serde(rename = "static")]
    pub statically: bool,
    /// `D`: learnt.
    pub dynamic: bool,
    /// `I`: not resolved yet.
    pub incomplete: bool,
    /// `L`: this node itself.
    pub local: bool,
    /// `N`: behind network address translation.
    pub nated: bool,
    /// `T1`: a shortcut route to it is installed.
    pub shortcut: bool,
}

impl fmt::Display for PeerAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.statically, "S"),
            (self.dynamic, "D"),
            (self.incomplete, "I"),
            (self.local, "L"),
            (self.nated, "N"),
            (self.shortcut, "T1"),
        ];
        let text: String = letters.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect();
        f.pad(&text)
    }
}

/// A peer: all NHRP entries of one overlay and underlay address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Number of NHRP entries (prefixes) of this peer.
    pub entries: u32,
    /// Underlay address; `None` while unknown.
    pub nbma: Option<NbmaAddr>,
    /// Overlay address.
    pub protocol: ProtocolAddr,
    /// Whether it can be reached.
    pub state: PeerState,
    /// How long it has been so.
    #[serde(with = "seconds")]
    pub since: Duration,
    /// How it is known.
    pub attributes: PeerAttributes,
    /// Whether it is a next-hop server of this tunnel.
    pub nhs: bool,
    /// What is wrong, in a sentence; `None` if it is up.
    pub reason: Option<String>,
    /// Remaining holding time; `None`: forever.
    #[serde(with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
    /// Port interface and neighbour by which its NBMA address is reached.
    pub link: Option<Hop>,
    /// Prefixes that lead to it.
    pub prefixes: Vec<Prefix>,
}

impl Peer {
    fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_address(|a| {
            self.protocol.0 == a
                || self.nbma.is_some_and(|n| n.0 == a)
                || self.prefixes.iter().any(|p| p.contains(a))
        })
    }
}

/// A tunnel and its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Name.
    pub name: InterfaceName,
    /// Whether clients may register here.
    pub hub: bool,
    /// Whether it registers with a server.
    pub spoke: bool,
    /// NHRP network id.
    pub network_id: u32,
    /// Own overlay addresses.
    pub addresses: Vec<InterfaceAddr>,
    /// Source interface.
    pub source_interface: InterfaceName,
    /// Own NBMA address; `None` while the source interface has none.
    pub source: Option<NbmaAddr>,
    /// GRE key.
    pub key: Option<u32>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// The NHS that unresolved packets go to.
    pub fallback: Option<ProtocolAddr>,
    /// Where multicast is replicated to.
    pub replicas: Vec<NbmaAddr>,
    /// Its peers.
    pub peers: Vec<Peer>,
}

impl Tunnel {
    pub(super) fn is_admitted(&mut self, filter: &Filter) -> bool {
        self.peers.retain(|peer| peer.is_admitted(filter));
        filter.admits_interface(Some(self.name)) && (filter.address.is_none() || !self.peers.is_empty())
    }

    fn role(&self) -> &'static str {
        match (self.hub, self.spoke) {
            (true, true) => "Hub/Spoke",
            (true, false) => "Hub",
            (false, _) => "Spoke",
        }
    }

    /// Its heading, the same in table and detail.
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.peers.iter().filter(|peer| !peer.attributes.local).count();
        writeln!(f, "\nInterface: {}, NHRP Details", self.name)?;
        writeln!(f, "Type:{}, NHRP Peers:{count}", self.role())
    }
}

list! {
    /// Peers of each tunnel.
    Dmvpn of Tunnel
}

const LEGEND: &str = "\
Legend: Attrb --> S - Static, D - Dynamic, I - Incomplete
        N - NATed, L - Local, T1 - Route Installed
        # Ent --> Number of NHRP entries with same NBMA peer
        State --> UP; or what is missing: INTF (source address or link),
        ROUTE (underlay route or neighbour), IKE (no SA with a peer that is
        to have one), NHRP (registration or resolution)
        UpDn Tm --> Up or Down Time
==========================================================================
";

/// Columns of the table; the widest IPv4 address has 15 characters, an IPv6 address moves its line.
const COLUMNS: &str = concat!(
    " # Ent  Peer NBMA Addr Peer Tunnel Add State  UpDn Tm Attrb\n",
    " ----- --------------- --------------- ----- -------- -----"
);

impl fmt::Display for Dmvpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LEGEND)?;
        for tunnel in &self.0 {
            tunnel.heading(f)?;
            writeln!(f, "\n{COLUMNS}")?;
            for peer in &tunnel.peers {
                writeln!(f, "{}", peer.line().trim_end())?;
            }
        }
        Ok(())
    }
}

impl Peer {
    fn line(&self) -> String {
        let nbma = self.nbma.map_or_else(|| "UNKNOWN".to_owned(), |n| n.to_string());
        let (state, since) = (self.state.to_string(), Clock(self.since));
        let attributes = self.attributes.to_string();
        let line = format!(
            " {:>5} {nbma:>15} {:>15} {state:>5} {since:>8} {attributes:>5}",
            self.entries, self.protocol
        );
        match &self.reason {
            Some(reason) => format!("{line}  {reason}"),
            None => line,
        }
    }
}

impl Dmvpn {
    pub(super) fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LEGEND)?;
        for tunnel in &self.0 {
            tunnel.heading(f)?;
            tunnel.detail(f)?;
        }
        Ok(())
    }
}

impl Tunnel {
    fn detail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.map_or_else(|| "no address".to_owned(), |s| s.to_string());
        writeln!(f, "Source addr: {source} ({}), MTU {} bytes", self.source_interface, self.mtu)?;
        let key = self.key.map_or_else(|| "none".to_owned(), |k| k.to_string());
        writeln!(f, "Tunnel addr: {}, key {key}, network id {}", join(&self.addresses), self.network_id)?;
        if let Some(nhs) = self.fallback {
            writeln!(f, "Unresolved packets go to: {nhs}")?;
        }
        if !self.replicas.is_empty() {
            writeln!(f, "Multicast goes to: {}", join(&self.replicas))?;
        }
        writeln!(f, "\n{COLUMNS}")?;
        for peer in &self.peers {
            writeln!(f, "{}", peer.line().trim_end())?;
            if !peer.prefixes.is_empty() {
                writeln!(f, "       Target Network: {}", join(&peer.prefixes))?;
            }
            let link = peer.link.map_or_else(
                || "no underlay path".to_owned(),
                |hop| format!("via {} on {}", hop.next_hop, hop.interface),
            );
            let nhs = if peer.nhs { ", NHS" } else { "" };
            writeln!(f, "       Underlay: {link}; expires {}{nhs}", expiry(peer.expires_in))?;
        }
        Ok(())
    }
}

fn join<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
