//! What a run of `wire` says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::generator::Flight;
use crate::histogram::AtRate;
use crate::report::{Compared, Subject, median};
use crate::wire::meter::Spent;
use crate::wire::{Bench, Beside, Kind};

/// How far graph and wire may be apart.
const APART: f64 = 0.25;

/// What the passes cost.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    sent: u64,
    came: u64,
    mpps: Vec<f64>,
    graph: Vec<f64>,
    ports: Vec<f64>,
    nodes: Vec<BTreeMap<String, f64>>,
    drops: BTreeMap<String, u64>,
    reference: Vec<f64>,
    sealing: Vec<f64>,
}

impl Costs {
    /// One more pass, and cycles of a round of both reference loops behind it.
    pub(crate) fn add(&mut self, flight: &Flight, spent: &Spent, (reference, sealing): (f64, f64)) {
        self.sent += flight.sent as u64;
        self.came += flight.came as u64;
        self.mpps.push(flight.mpps());
        self.graph.push(spent.graph());
        self.ports.push(spent.ports);
        self.nodes.push(spent.nodes.clone());
        for (reason, count) in &spent.drops {
            *self.drops.entry(reason.clone()).or_default() += count;
        }
        self.reference.push(reference);
        self.sealing.push(sealing);
    }
}

/// One run. Cycles are those of the time stamp counter.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// `wire`, which `nave-perf graph` does not say.
    pub(crate) measured: &'static str,
    /// What was between source and data plane: `memif`, `pcap`, `nic`.
    pub(crate) link: &'static str,
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// In all nodes of the graph, by the data plane's own node counters; the median of the passes, and the best one.
    pub(crate) cycles_per_packet: f64,
    pub(crate) cycles_per_packet_min: f64,
    /// Of breaths that had packets what is in no node: the ports' drivers, which copy each packet twice, and the clock.
    pub(crate) port_cycles_per_packet: f64,
    /// Millions of packets a second that came back at full load, and 10⁹ bits a second of frames of `mean_size` bytes.
    pub(crate) mpps: f64,
    pub(crate) gbps: f64,
    pub(crate) nodes: BTreeMap<String, f64>,
    pub(crate) drops: BTreeMap<String, u64>,
    /// Packets of the passes; of a file those that were counted.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    /// At a share of the full load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<AtRate>,
    #[serde(flatten)]
    pub(crate) compared: Compared,
    /// Whether every byte of every packet was right; of a file's packets of those that were sampled.
    pub(crate) verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sampled: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wrong: Option<String>,
    /// What `nave-perf graph` takes without its ports, before and after this, and how much of that this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) graph_cycles_per_packet: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) graph_ratio: Option<f64>,
    pub(crate) passes: usize,
    pub(crate) cycles_per_second: u64,
    pub(crate) huge_pages: bool,
    /// Whether a worker had to share its core with the source.
    pub(crate) shares_core: bool,
}

impl Report {
    pub(crate) fn new(bench: &Bench, link: Kind, costs: Costs, wrong: Option<String>) -> Self {
        let scenario = &bench.scenario;
        let cycles_per_packet = median(costs.graph.iter().copied());
        let mpps = median(costs.mpps.iter().copied());
        let mut names: Vec<&String> = costs.nodes.iter().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let node = |name: &&String| {
            let passes = costs.nodes.iter().map(|nodes| nodes.get(*name).copied().unwrap_or(0.0));
            ((*name).clone(), median(passes))
        };
        let subject = Subject::of(scenario, bench.workers.into());
        Self {
            measured: "wire",
            link: match link {
                Kind::Memif => "memif",
                Kind::Pcap => "pcap",
                Kind::Nic => "nic",
            },
            cycles_per_packet,
            cycles_per_packet_min: costs.graph.iter().copied().fold(f64::INFINITY, f64::min),
            port_cycles_per_packet: median(costs.ports.iter().copied()),
            mpps,
            gbps: subject.gbps(mpps),
            subject,
            nodes: names.iter().map(node).collect(),
            sent: costs.sent,
            lost: costs.sent - costs.came,
            latency: None,
            compared: Compared::of(&costs.graph, &costs.reference, &costs.sealing),
            verified: wrong.is_none(),
            sampled: None,
            wrong,
            graph_cycles_per_packet: None,
            graph_ratio: None,
            passes: costs.graph.len(),
            drops: costs.drops,
            cycles_per_second: memory::cycles_per_second(),
            huge_pages: bench.dataplane.huge_pages,
            shares_core: bench.shares_core,
        }
    }

    /// Packets came out wrong.
    pub(crate) fn is_wrong(&mut self, wrong: String) {
        self.verified = false;
        self.wrong = Some(wrong);
    }

    /// Beside what the graph alone takes.
    pub(crate) fn compare(&mut self, graph: &Beside) {
        self.graph_cycles_per_packet = Some(graph.cycles_per_packet());
        self.graph_ratio = Some(self.cycles_per_packet / graph.cycles_per_packet());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, through nave-dataplane by {}{}{}",
            self.subject,
            self.link,
            if self.huge_pages { "" } else { ", no huge pages" },
            if self.shares_core { ", WHICH SHARES ITS CORE WITH THE SOURCE" } else { "" },
        )?;
        if let Some(esp) = &self.subject.esp {
            writeln!(f, "{esp}")?;
        }
        writeln!(f, "{:7.2} Mpps, {:.2} Gb/s at full load ({} passes)", self.mpps, self.gbps, self.passes)?;
        writeln!(
            f,
            "{:7.1} cycles per packet in the graph (best pass {:.1}), {:.1} more in the ports",
            self.cycles_per_packet, self.cycles_per_packet_min, self.port_cycles_per_packet
        )?;
        if let Some((cycles, ratio)) = self.graph_cycles_per_packet.zip(self.graph_ratio) {
            let apart = (ratio - 1.0).abs();
            let verdict = if apart <= APART { "agrees" } else { "DOES NOT AGREE" };
            writeln!(
                f,
                "{cycles:7.1} in `nave-perf graph` without its ports: {ratio:.2} of that, which {verdict}"
            )?;
        }
        writeln!(f, "{}", self.compared)?;
        for (node, cycles) in &self.nodes {
            writeln!(f, "{cycles:7.1} {node}")?;
        }
        if let Some(latency) = &self.latency {
            writeln!(f, "{latency}")?;
        }
        for (reason, count) in &self.drops {
            writeln!(f, "{count:7} dropped: {reason}")?;
        }
        match (&self.wrong, self.sampled) {
            (Some(wrong), _) => write!(f, "WRONG: {wrong}"),
            (None, Some(sampled)) => {
                write!(f, "verified: every byte of {sampled} packets that were captured")
            }
            (None, None) => write!(f, "verified: every byte of {} packets", self.sent),
        }
    }
}
