//! What was counted (`show counters`): nodes of the graph, NHRP messages, rejects, and what has a name of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Filter;
use super::table::Table;
use crate::InterfaceName;

/// One node of the graph, over all workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounter {
    /// The node.
    pub node: String,
    /// Bursts that it took.
    pub bursts: u64,
    /// Packets in them.
    pub packets: u64,
    /// Processor cycles in it; 0 if not measured.
    pub cycles: u64,
}

/// NHRP messages of one type on one tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounter {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// Name of the message type.
    pub message: String,
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// NHRP error indications of one code on one tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCounter {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// The code; 0: all that RFC 2332 does not name.
    pub code: u16,
    /// Its name.
    pub name: String,
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// Something counted that has a name and a sentence: a drop reason, a reject, a term of the conservation law.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Name.
    pub name: String,
    /// What it means, one sentence.
    pub sentence: String,
    /// How often.
    pub count: u64,
}

impl Counter {
    // A filter selects none of its fields.
    #[allow(clippy::unused_self)]
    pub(super) fn is_admitted(&self, _: &Filter) -> bool {
        true
    }
}

/// All counters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Of nodes.
    pub nodes: Vec<NodeCounter>,
    /// Of NHRP messages.
    pub messages: Vec<MessageCounter>,
    /// Of NHRP messages that were not accepted.
    pub rejects: Vec<Counter>,
    /// All others.
    pub others: Vec<Counter>,
}

impl Counters {
    /// Keeps what the filter admits.
    pub fn retain(&mut self, filter: &Filter) {
        self.messages.retain(|m| filter.admits_interface(Some(m.tunnel)));
    }

    /// Appends those of another source.
    pub fn extend(&mut self, more: Self) {
        self.nodes.extend(more.nodes);
        self.messages.extend(more.messages);
        self.rejects.extend(more.rejects);
        self.others.extend(more.others);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = |a: u64, b: u64| a.checked_div(b).map_or_else(|| "-".to_owned(), |r| r.to_string());
        let headings = ["Node", ">Packets", ">Bursts", ">Packets/burst", ">Cycles/packet"];
        let mut nodes = Table::new(headings, "no node was visited");
        for n in &self.nodes {
            let cycles = if n.cycles == 0 { "-".to_owned() } else { ratio(n.cycles, n.packets) };
            let per_burst = ratio(n.packets, n.bursts);
            nodes.row([n.node.clone(), n.packets.to_string(), n.bursts.to_string(), per_burst, cycles]);
        }
        nodes.fmt(f)?;
        if !self.messages.is_empty() {
            let mut messages = Table::new(["NHRP message", "Tunnel", ">Sent", ">Received"], "");
            for m in &self.messages {
                let (sent, received) = (m.sent.to_string(), m.received.to_string());
                messages.row([m.message.clone(), m.tunnel.to_string(), sent, received]);
            }
            write!(f, "\n{messages}")?;
        }
        for (heading, counters) in [("NHRP reject", &self.rejects), ("Counter", &self.others)] {
            if !counters.is_empty() {
                write!(f, "\n{}", named(heading, counters, ""))?;
            }
        }
        Ok(())
    }
}

/// A table of named counters.
pub(super) fn named(heading: &'static str, counters: &[Counter], empty: &'static str) -> Table<3> {
    let mut table = Table::new([heading, ">Count", "Meaning"], empty);
    for c in counters {
        table.row([c.name.clone(), c.count.to_string(), c.sentence.clone()]);
    }
    table
}
