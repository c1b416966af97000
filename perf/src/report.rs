//! What a run says.

use std::collections::BTreeMap;
use std::fmt;

use forwarding::Node;
use serde::Serialize;

use crate::graph::Passes;
use crate::scenario::Scenario;

/// The middle of some numbers; NaN of none.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One run. Cycles are those of the time stamp counter.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    /// Families of the packet and of what the tunnel puts before it.
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) spokes: u32,
    pub(crate) size: usize,
    pub(crate) routes: usize,
    /// Whether they are as in a public table.
    pub(crate) public: bool,
    pub(crate) workers: usize,
    /// From the rx burst to the tx burst, both included; the median of the passes.
    pub(crate) cycles_per_packet: f64,
    /// The same of the best pass.
    pub(crate) cycles_per_packet_min: f64,
    /// Millions of packets a second of all workers at that cost.
    pub(crate) mpps: f64,
    /// 10⁹ bits a second of frames of `size` bytes.
    pub(crate) gbps: f64,
    /// Cycles per packet of each node, and of the ports' own code (`ports`): its share in the passes that measure nodes, of the
    /// cycles per packet.
    pub(crate) nodes: BTreeMap<&'static str, f64>,
    /// Their sum over the cycles per packet: what is missing is between the nodes.
    pub(crate) nodes_ratio: f64,
    /// Packets dropped, by reason.
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// Cycles of one round of the reference loop.
    pub(crate) reference_cycles: f64,
    /// Cycles per packet over those of the reference loop, pass by pass; the median.
    pub(crate) reference_ratio: f64,
    /// Whether every byte of every packet was right.
    pub(crate) verified: bool,
    /// What was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
    /// Passes that the medians are of, and packets of each.
    pub(crate) passes: usize,
    pub(crate) packets_per_pass: usize,
    /// Rate of the time stamp counter per second.
    pub(crate) cycles_per_second: u64,
    /// Whether packet buffers are in huge pages.
    pub(crate) huge_pages: bool,
}

impl Report {
    pub(crate) fn new(
        scenario: &Scenario,
        lanes: &[Passes],
        drops: Vec<(&'static str, u64)>,
        huge_pages: bool,
        wrong: Option<String>,
    ) -> Self {
        let rate = memory::cycles_per_second();
        let whole = || lanes.iter().flat_map(|lane| lane.whole.iter().copied());
        let cycles_per_packet = median(whole());
        let mpps = lanes.iter().map(|lane| rate as f64 / lane.median() / 1e6).sum::<f64>();
        // Of each measured pass the shares, which neither noise nor the cost of measuring disturbs much.
        let share = |at: usize| {
            let passes = lanes.iter().flat_map(|lane| lane.nodes.iter().zip(&lane.measured));
            median(passes.map(|(nodes, all)| nodes[at] / all))
        };
        let names = Node::ALL.iter().map(|node| node.name()).chain(["ports"]);
        let nodes: BTreeMap<_, _> = (0..)
            .zip(names)
            .map(|(at, name)| (name, share(at) * cycles_per_packet))
            .filter(|(_, cycles)| *cycles > 0.0)
            .collect();
        let ratios = lanes.iter().flat_map(|lane| lane.whole.iter().zip(&lane.reference).map(|(a, b)| a / b));
        Self {
            scenario: scenario.kind.name(),
            inner: scenario.inner.name(),
            outer: scenario.outer.name(),
            spokes: scenario.spokes,
            size: scenario.size,
            routes: scenario.destinations.count(),
            public: scenario.destinations.is_public(),
            workers: lanes.len(),
            cycles_per_packet,
            cycles_per_packet_min: whole().fold(f64::INFINITY, f64::min),
            mpps,
            gbps: mpps * scenario.size as f64 * 8.0 / 1e3,
            nodes_ratio: nodes.values().sum::<f64>() / cycles_per_packet,
            nodes,
            drops: drops.into_iter().collect(),
            reference_cycles: median(lanes.iter().flat_map(|lane| lane.reference.iter().copied())),
            reference_ratio: median(ratios),
            verified: wrong.is_none(),
            wrong,
            passes: lanes.iter().map(|lane| lane.whole.len()).sum(),
            packets_per_pass: crate::lane::DISTINCT,
            cycles_per_second: rate,
            huge_pages,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({} over {}), {} spokes, {} {}routes, {} B, {} worker(s), {} passes of {} packets{}",
            self.scenario,
            self.inner,
            self.outer,
            self.spokes,
            self.routes,
            if self.public { "public " } else { "" },
            self.size,
            self.workers,
            self.passes,
            self.packets_per_pass,
            if self.huge_pages { "" } else { ", no huge pages" }
        )?;
        writeln!(
            f,
            "{:7.1} cycles per packet (best pass {:.1}), {:.2} Mpps, {:.2} Gb/s, {:.2} of the reference loop ({:.1})",
            self.cycles_per_packet,
            self.cycles_per_packet_min,
            self.mpps,
            self.gbps,
            self.reference_ratio,
            self.reference_cycles
        )?;
        for (node, cycles) in &self.nodes {
            writeln!(f, "{cycles:7.1} {node}")?;
        }
        writeln!(f, "{:7.3} nodes over all", self.nodes_ratio)?;
        for (reason, count) in &self.drops {
            writeln!(f, "{count:7} dropped: {reason}")?;
        }
        match &self.wrong {
            None => write!(f, "verified: every byte of every packet"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
