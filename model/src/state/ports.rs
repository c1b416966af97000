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
}

impl Port {
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
            ]);
        }
        table.fmt(f)
    }
}
