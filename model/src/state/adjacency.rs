//! How next hops are reached (`show adjacency`).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::time::{expiry, maybe_seconds};
use super::{Filter, list};
use crate::sa::Spi;
use crate::{InterfaceName, NbmaAddr};

/// What an adjacency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdjacencyKind {
    /// A neighbour on a port: its rewrite is an Ethernet header.
    Neighbour,
    /// A peer through a tunnel, stacked on a neighbour.
    Midchain,
    /// The next hop is the packet's destination, to be found.
    Glean,
    /// The next hop is known, its rewrite not yet.
    Incomplete,
    /// This box.
    Receive,
    /// Nowhere.
    Drop,
    /// One of several others, flow by flow.
    Balanced,
    /// A peer through a protected tunnel to which there is no SA: nothing goes there.
    Unprotected,
}

impl AdjacencyKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Neighbour,
        Self::Midchain,
        Self::Glean,
        Self::Incomplete,
        Self::Receive,
        Self::Drop,
        Self::Balanced,
        Self::Unprotected,
    ];
}

impl fmt::Display for AdjacencyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Neighbour => "neighbour",
            Self::Midchain => "midchain",
            Self::Glean => "glean",
            Self::Incomplete => "incomplete",
            Self::Receive => "receive",
            Self::Drop => "drop",
            Self::Balanced => "balanced",
            Self::Unprotected => "unprotected",
        })
    }
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjacency {
    /// Its index.
    pub index: u32,
    /// What it is.
    pub kind: AdjacencyKind,
    /// Its interface; `None` for drop.
    pub interface: Option<InterfaceName>,
    /// Its next hop; `None` where the packet's destination is it.
    pub next_hop: Option<IpAddr>,
    /// Where its packets go in the underlay; of a midchain.
    pub nbma: Option<NbmaAddr>,
    /// Index of the neighbour that it is stacked on; of a midchain.
    pub stacked_on: Option<u32>,
    /// Index of the adjacency that packets take while this one is not complete.
    pub fallback: Option<u32>,
    /// Bytes put before each packet. Of a protected midchain the SPI is among them, and zeros for sequence number and IV.
    #[serde(with = "hex")]
    pub rewrite: Vec<u8>,
    /// Remaining holding time; `None`: forever.
    #[serde(with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
    /// Marked by a resync and not put again yet; it forwards.
    pub stale: bool,
    /// Packets sent by it.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Largest IP packet that it takes, in bytes, before headers are put in front; 0 where nothing is sent.
    #[serde(default)]
    pub mtu: u16,
    /// Indexes of the others; of balanced.
    #[serde(default)]
    pub members: Vec<u32>,
    /// Whether it sends copies of multicast to one receiver, and nothing else.
    #[serde(default)]
    pub multicast: bool,
    /// The SAs that seal for it, in order of worker; of a protected midchain.
    #[serde(default)]
    pub spis: Vec<Spi>,
}

impl Adjacency {
    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_interface(self.interface)
            && filter.admits_address(|a| self.next_hop == Some(a) || self.nbma.is_some_and(|n| n.0 == a))
    }
}

list! {
    /// Adjacencies.
    Adjacencies of Adjacency
}

impl fmt::Display for Adjacencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            ">Index",
            "Kind",
            "Interface",
            "Next hop",
            "NBMA",
            ">Stack",
            ">Fallback",
            ">MTU",
            "SPI",
            "Expires",
            ">Packets",
            ">Bytes",
            "Rewrite",
        ];
        let mut table = Table::new(headings, "no adjacencies");
        for a in &self.0 {
            table.row([
                a.index.to_string(),
                match (a.stale, a.multicast) {
                    (true, _) => format!("{} (stale)", a.kind),
                    (false, true) => format!("{} (multicast)", a.kind),
                    (false, false) => a.kind.to_string(),
                },
                or_dash(a.interface),
                or_dash(a.next_hop),
                or_dash(a.nbma),
                match a.members[..] {
                    [] => or_dash(a.stacked_on),
                    _ => a.members.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
                },
                or_dash(a.fallback),
                or_dash(Some(a.mtu).filter(|mtu| *mtu > 0)),
                match a.spis[..] {
                    [] => "-".to_owned(),
                    _ => a.spis.iter().map(Spi::to_string).collect::<Vec<_>>().join(","),
                },
                expiry(a.expires_in),
                a.packets.to_string(),
                a.bytes.to_string(),
                hex::text(&a.rewrite),
            ]);
        }
        table.fmt(f)
    }
}

/// Bytes as hexadecimal digits.
pub(crate) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn text(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
        let byte = |pair: &str| match pair.len() {
            2 => u8::from_str_radix(pair, 16).map_err(D::Error::custom),
            _ => Err(D::Error::custom("half a byte")),
        };
        pairs.map(byte).collect()
    }
}
