//! What the data plane says of itself: its counters, and by how much they rose.

use std::collections::BTreeMap;

use anyhow::bail;
use model::state::{State, What};

use crate::programmer::Programmer;

/// Nodes that are the ports': what they take is of breaths without packets, too.
pub(crate) const OF_PORTS: [&str; 2] = ["rx", "tx"];

/// Counters of the data plane at some moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Packets that workers took from ports, and cycles of the breaths that had packets.
    packets: u64,
    busy_cycles: u64,
    /// Cycles by node, and packets dropped by reason.
    nodes: BTreeMap<String, u64>,
    drops: BTreeMap<String, u64>,
}

impl Seen {
    /// As they are now.
    pub(crate) async fn by(programmer: &Programmer) -> anyhow::Result<Self> {
        let State::Workers(workers) = programmer.show(What::Workers).await? else {
            bail!("workers were asked for")
        };
        let State::Counters(counters) = programmer.show(What::Counters).await? else {
            bail!("counters were asked for")
        };
        let State::Drops(drops) = programmer.show(What::Drops).await? else { bail!("drops were asked for") };
        Ok(Self {
            packets: workers.0.iter().map(|worker| worker.rx_packets).sum(),
            busy_cycles: workers.0.iter().map(|worker| worker.busy_cycles).sum(),
            nodes: (counters.nodes.into_iter())
                .filter(|node| !OF_PORTS.contains(&node.node.as_str()))
                .map(|node| (node.node, node.cycles))
                .collect(),
            drops: drops.0.into_iter().map(|drop| (drop.name, drop.count)).collect(),
        })
    }
}

/// What was spent between two looks.
#[derive(Debug)]
pub(crate) struct Spent {
    pub(crate) packets: u64,
    /// Cycles per packet, of breaths that had packets: in the ports' drivers and between the nodes; by node.
    pub(crate) ports: f64,
    pub(crate) nodes: BTreeMap<String, f64>,
    /// Packets dropped, by reason.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Spent {
    /// Cycles per packet in the graph: in all nodes but the ports'.
    pub(crate) fn graph(&self) -> f64 {
        self.nodes.values().sum()
    }
}

/// Looks again and again.
pub(crate) struct Meter {
    last: Seen,
}

impl Meter {
    pub(crate) fn new(first: Seen) -> Self {
        Self { last: first }
    }

    /// What was spent since the last look.
    pub(crate) fn spent(&mut self, now: Seen) -> Spent {
        let before = std::mem::replace(&mut self.last, now.clone());
        let packets = now.packets - before.packets;
        let each = |cycles: u64| cycles as f64 / packets.max(1) as f64;
        let risen = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let rise = |(name, count): (&String, &u64)| {
                (name.clone(), count - before.get(name).copied().unwrap_or(0))
            };
            now.iter().map(rise).filter(|(_, rise)| *rise > 0).collect::<BTreeMap<String, u64>>()
        };
        let nodes: BTreeMap<String, f64> =
            risen(&now.nodes, &before.nodes).into_iter().map(|(name, cycles)| (name, each(cycles))).collect();
        let busy = each(now.busy_cycles - before.busy_cycles);
        let ports = busy - nodes.values().sum::<f64>();
        Spent { packets, ports, nodes, drops: risen(&now.drops, &before.drops) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: counters twice. Output: cycles per packet of what lies between them; what no node took is the ports'.
    #[test]
    fn what_is_spent_is_the_rise_per_packet() {
        let map = |entries: &[(&str, u64)]| {
            entries.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<BTreeMap<_, _>>()
        };
        let first = Seen {
            packets: 100,
            busy_cycles: 9000,
            nodes: map(&[("classify", 1000), ("rewrite", 7)]),
            drops: map(&[("no-route", 5)]),
        };
        let second = Seen {
            packets: 110,
            busy_cycles: 9500,
            nodes: map(&[("classify", 1300), ("rewrite", 107)]),
            drops: map(&[("no-route", 5), ("ttl", 2)]),
        };
        let mut meter = Meter::new(first);
        let spent = meter.spent(second.clone());
        assert_eq!((spent.packets, spent.ports, spent.graph()), (10, 10.0, 40.0));
        assert_eq!(spent.drops, map(&[("ttl", 2)]));
        let none = meter.spent(second);
        assert_eq!((none.packets, none.ports, none.nodes.len()), (0, 0.0, 0));
    }
}
