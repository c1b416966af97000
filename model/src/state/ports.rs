//! Ports of the data plane (`show ports`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Table, or_dash};
use super::{Filter, list};
use crate::{InterfaceName, Mac};

/// Packets and bytes one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, with Ethernet header.
    pub bytes: u64,
    /// Packets lost there: no buffer, queue full, bad.
    pub errors: u64,
}

/// What a port's device may do in place of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffloadKind {
    /// Spreads flows over receive queues (RSS).
    Rss,
    /// Checks the IPv4 header checksum of what it receives.
    Ipv4Checksum,
    /// Puts ESP into the queue of the worker that has its SA, by its SPI.
    EspSteering,
    /// Seals and opens ESP. Never used: there is a hook alone.
    InlineCrypto,
}

impl OffloadKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rss, Self::Ipv4Checksum, Self::EspSteering, Self::InlineCrypto];
}

impl fmt::Display for OffloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rss => "rss",
            Self::Ipv4Checksum => "ipv4-checksum",
            Self::EspSteering => "esp-steering",
            Self::InlineCrypto => "inline-crypto",
        })
    }
}

/// Whether it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffloadState {
    /// It does.
    Used,
    /// It could, or has not been asked, and is not wanted to: there is no use for it, or it is switched off.
    Unused,
    /// It cannot, or has refused.
    Refused,
}

impl OffloadState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Used, Self::Unused, Self::Refused];
}

/// One thing that a port's device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offload {
    /// What.
    pub kind: OffloadKind,
    /// Whether it does.
    pub state: OffloadState,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name on the data plane's command line.
    pub name: String,
    /// DPDK driver.
    pub driver: String,
    /// The interface that is programmed on it.
    pub interface: Option<InterfaceName>,
    /// Ethernet address.
    pub mac: Mac,
    /// Whether its link is up.
    pub up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Queue pairs.
    pub queues: u16,
    /// Received.
    pub rx: Traffic,
    /// Sent.
    pub tx: Traffic,
    /// What its device does in place of the workers, and what it could do.
    pub offloads: Vec<Offload>,
}

impl Port {
    /// What is used of its device, then in brackets what is not and could be.
    fn told_offloads(&self) -> String {
        let of = |state| -> Vec<_> {
            let those = self.offloads.iter().filter(|offload| offload.state == state);
            those.map(|offload| offload.kind.to_string()).collect()
        };
        let (mut words, unused) = (of(OffloadState::Used), of(OffloadState::Unused));
        words.extend(unused.into_iter().map(|kind| format!("({kind})")));
        if words.is_empty() { "-".to_owned() } else { words.join(" ") }
    }

    pub(super) fn is_admitted(&self, filter: &Filter) -> bool {
        filter.admits_interface(self.interface)
            || filter.interface.is_some_and(|wanted| wanted.as_str() == self.name)
    }
}

list! {
    /// Ports.
    Ports of Port
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = [
            "Port",
            "Interface",
            "Driver",
            "MAC",
            "Link",
            ">MTU",
            ">Queues",
            ">Rx packets",
            ">Rx bytes",
            ">Rx errors",
            ">Tx packets",
            ">Tx bytes",
            ">Tx errors",
            "Offloads (unused)",
        ];
        let mut table = Table::new(headings, "no ports");
        for p in &self.0 {
            table.row([
                p.name.clone(),
                or_dash(p.interface),
                p.driver.clone(),
                p.mac.to_string(),
                if p.up { "up" } else { "down" }.to_owned(),
                p.mtu.to_string(),
                p.queues.to_string(),
                p.rx.packets.to_string(),
                p.rx.bytes.to_string(),
                p.rx.errors.to_string(),
                p.tx.packets.to_string(),
                p.tx.bytes.to_string(),
                p.tx.errors.to_string(),
                p.told_offloads(),
            ]);
        }
        table.fmt(f)
    }
}
