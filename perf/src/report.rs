//! What a run says.

use std::collections::BTreeMap;
use std::fmt;

use forwarding::Node;
use model::sa::{SaMode, Suite};
use serde::Serialize;

use crate::esp::Esp;
use crate::frame::least_size;
use crate::graph::Passes;
use crate::histogram::AtRate;
use crate::peers::other;
use crate::scenario::Scenario;
use crate::size::Size;

/// The middle of some numbers; NaN of none.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a tunnel is protected.
#[derive(Debug, Serialize)]
pub(crate) struct Protected {
    pub(crate) suite: Suite,
    pub(crate) mode: SaMode,
    pub(crate) udp: bool,
    pub(crate) esn: bool,
    /// Sequence numbers of the replay window.
    pub(crate) window: u16,
    /// Who seals and opens in the graph, and who seals what arrives and opens what left.
    pub(crate) aead: &'static str,
    pub(crate) peers_aead: &'static str,
}

impl From<Esp> for Protected {
    fn from(esp: Esp) -> Self {
        Self {
            suite: esp.suite,
            mode: esp.mode,
            udp: esp.is_udp,
            esn: esp.esn,
            window: esp.window,
            aead: esp.provider.name(),
            peers_aead: other(esp.provider).name(),
        }
    }
}

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} by {} in {} mode{}, {} bits of sequence number, a window of {}; spokes by {}",
            self.suite,
            self.aead,
            self.mode,
            if self.udp { " in UDP" } else { "" },
            if self.esn { 64 } else { 32 },
            self.window,
            self.peers_aead
        )
    }
}

/// What was measured: a scenario in its dimensions.
#[derive(Debug, Serialize)]
pub(crate) struct Subject {
    pub(crate) scenario: &'static str,
    /// Families of the packet and of what the tunnel puts before it.
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) spokes: u32,
    pub(crate) size: Size,
    /// Mean of many frames, in bytes.
    pub(crate) mean_size: f64,
    pub(crate) routes: usize,
    /// Whether they are as in a public table.
    pub(crate) public: bool,
    pub(crate) workers: usize,
    /// What protects the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) esp: Option<Protected>,
}

impl Subject {
    pub(crate) fn of(scenario: &Scenario, workers: usize) -> Self {
        Self {
            scenario: scenario.kind.name(),
            inner: scenario.inner.name(),
            outer: scenario.outer.name(),
            spokes: scenario.spokes,
            size: scenario.size,
            mean_size: scenario.size.mean(least_size(scenario.inner)),
            routes: scenario.destinations.count(),
            public: scenario.destinations.is_public(),
            workers,
            esp: scenario.esp.map(Protected::from),
        }
    }

    /// 10⁹ bits a second of so many million packets a second.
    pub(crate) fn gbps(&self, mpps: f64) -> f64 {
        mpps * self.mean_size * 8.0 / 1e3
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} over {}), {} spokes, {} {}routes, {}, {} worker(s)",
            self.scenario,
            self.inner,
            self.outer,
            self.spokes,
            self.routes,
            if self.public { "public " } else { "" },
            self.size,
            self.workers,
        )
    }
}

/// Cycles per packet beside the loops that never change, each pass beside those right behind it.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    /// Cycles of one round of the reference loop.
    pub(crate) reference_cycles: f64,
    /// Cycles per packet over those of the reference loop, pass by pass; the median.
    pub(crate) reference_ratio: f64,
    /// The same of the loop that seals 1,400 bytes with ring.
    pub(crate) sealing_reference_cycles: f64,
    pub(crate) sealing_reference_ratio: f64,
}

impl Compared {
    /// Cycles per packet of the passes, and of a round of both loops behind each.
    pub(crate) fn of(passes: &[f64], reference: &[f64], sealing: &[f64]) -> Self {
        let ratio =
            |reference: &[f64]| median(passes.iter().zip(reference).map(|(pass, round)| pass / round));
        Self {
            reference_cycles: median(reference.iter().copied()),
            reference_ratio: ratio(reference),
            sealing_reference_cycles: median(sealing.iter().copied()),
            sealing_reference_ratio: ratio(sealing),
        }
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.2} of the reference loop ({:.1}), {:.3} of the one that seals ({:.1})",
            self.reference_ratio,
            self.reference_cycles,
            self.sealing_reference_ratio,
            self.sealing_reference_cycles
        )
    }
}

/// One run. Cycles are those of the time stamp counter.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// From the rx burst to the tx burst, both included; the median of the passes.
    pub(crate) cycles_per_packet: f64,
    /// The same of the best pass.
    pub(crate) cycles_per_packet_min: f64,
    /// Millions of packets a second of all workers at that cost.
    pub(crate) mpps: f64,
    /// 10⁹ bits a second of frames of `mean_size` bytes.
    pub(crate) gbps: f64,
    /// Cycles per packet of each node, and of the ports' own code (`ports`): its share in the passes that measure nodes, of the
    /// cycles per packet.
    pub(crate) nodes: BTreeMap<&'static str, f64>,
    /// Their sum over the cycles per packet: what is missing is between the nodes.
    pub(crate) nodes_ratio: f64,
    /// Packets dropped, by reason.
    pub(crate) drops: BTreeMap<&'static str, u64>,
    /// Between the ring ports, at a share of that rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<AtRate>,
    #[serde(flatten)]
    pub(crate) compared: Compared,
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
        let of_all = |numbers: fn(&Passes) -> &Vec<f64>| -> Vec<f64> {
            lanes.iter().flat_map(|lane| numbers(lane).iter().copied()).collect()
        };
        let (reference, sealing) = (of_all(|lane| &lane.reference), of_all(|lane| &lane.sealing));
        let subject = Subject::of(scenario, lanes.len());
        Self {
            cycles_per_packet,
            cycles_per_packet_min: whole().fold(f64::INFINITY, f64::min),
            mpps,
            gbps: subject.gbps(mpps),
            subject,
            nodes_ratio: nodes.values().sum::<f64>() / cycles_per_packet,
            nodes,
            drops: drops.into_iter().collect(),
            latency: None,
            compared: Compared::of(&of_all(|lane| &lane.whole), &reference, &sealing),
            verified: wrong.is_none(),
            wrong,
            passes: lanes.iter().map(|lane| lane.whole.len()).sum(),
            packets_per_pass: crate::lane::DISTINCT,
            cycles_per_second: rate,
            huge_pages,
        }
    }
}

impl Report {
    /// Packets came out wrong.
    pub(crate) fn is_wrong(&mut self, wrong: String) {
        self.verified = false;
        self.wrong = Some(wrong);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = if self.huge_pages { "" } else { ", no huge pages" };
        writeln!(f, "{}, {} passes of {} packets{pages}", self.subject, self.passes, self.packets_per_pass)?;
        if let Some(esp) = &self.subject.esp {
            writeln!(f, "{esp}")?;
        }
        writeln!(
            f,
            "{:7.1} cycles per packet (best pass {:.1}), {:.2} Mpps, {:.2} Gb/s",
            self.cycles_per_packet, self.cycles_per_packet_min, self.mpps, self.gbps
        )?;
        writeln!(f, "{}", self.compared)?;
        for (node, cycles) in &self.nodes {
            writeln!(f, "{cycles:7.1} {node}")?;
        }
        writeln!(f, "{:7.3} nodes over all", self.nodes_ratio)?;
        for (reason, count) in &self.drops {
            writeln!(f, "{count:7} dropped: {reason}")?;
        }
        if let Some(latency) = &self.latency {
            writeln!(f, "{latency}")?;
        }
        match &self.wrong {
            None if self.subject.esp.is_some() => {
                write!(f, "verified: every byte of every packet, which another provider sealed or opened")
            }
            None => write!(f, "verified: every byte of every packet"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
