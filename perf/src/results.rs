//! `nave-perf report`: what runs said, together: the table of what is wanted beside what there is, and a page with plots.
//!
//! It reads the JSON lines that the other commands write, whichever they are: those of `graph` and `wire` make the table; where a line has
//! latencies, wherever in it they are, they are plotted; lines with a `peer` are somebody else's program on the same machine.

mod page;
mod plot;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Command line of `nave-perf report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files with what commands said with --json, a line each
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write a page with plots there
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// What the page says of the machine and the commit
    #[arg(long, value_name = "TEXT", requires = "html")]
    title: Option<String>,
}

/// A run of `graph` or `wire`, as far as it is of interest here.
#[derive(Debug, Clone, Deserialize)]
struct Run {
    scenario: String,
    /// `wire`; of `graph` nothing.
    #[serde(default)]
    measured: Option<String>,
    #[serde(default)]
    inner: String,
    #[serde(default)]
    outer: String,
    spokes: u64,
    size: Value,
    routes: u64,
    #[serde(default)]
    public: bool,
    workers: u64,
    cycles_per_packet: f64,
    cycles_per_packet_min: f64,
    mpps: f64,
    gbps: f64,
    nodes: BTreeMap<String, f64>,
    #[serde(default)]
    drops: BTreeMap<String, u64>,
    reference_ratio: f64,
    #[serde(default)]
    sealing_reference_ratio: Option<f64>,
    verified: bool,
    #[serde(default)]
    huge_pages: bool,
}

/// What somebody else's program takes on the same machine.
#[derive(Debug, Clone, Deserialize)]
struct Peer {
    peer: String,
    /// What it does.
    scenario: String,
    size: Value,
    cycles_per_packet: f64,
    /// What of that its ports take.
    #[serde(default)]
    port_cycles_per_packet: f64,
    /// How it was set up.
    #[serde(default)]
    setup: String,
}

/// Latencies of packets: by shares of the packets, what none of that share exceeds, in microseconds.
#[derive(Debug, Clone, PartialEq)]
struct Latency {
    of: String,
    quantiles: Vec<(f64, f64)>,
    /// Median, 99 %, 99.9 % and the longest.
    shown: [f64; 4],
}

/// All that the files say.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Run>,
    peers: Vec<Peer>,
    latencies: Vec<Latency>,
}

/// Reads the files, prints the table, writes the page; whether every run was right.
///
/// # Errors
/// A file that cannot be read, or is not what these commands write.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let mut runs = Runs::default();
    for file in &args.files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            runs.add(line).with_context(|| format!("{} line {number}", file.display()))?;
        }
    }
    ensure!(!runs.runs.is_empty() || !runs.latencies.is_empty(), "there is nothing in these files to report");
    print!("{}", table::text(&runs));
    if let Some(html) = &args.html {
        let title = args.title.as_deref().unwrap_or("nave-perf");
        std::fs::write(html, page::html(&runs, title)).with_context(|| html.display().to_string())?;
        println!("\nplots: {}", html.display());
    }
    Ok(runs.runs.iter().all(|run| run.verified))
}

impl Runs {
    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let value: Value = serde_json::from_str(line)?;
        if value.get("peer").is_some() {
            self.peers.push(serde_json::from_value(value)?);
            return Ok(());
        }
        let is_of_packets = value.get("scenario").is_some() && value.get("cycles_per_packet").is_some();
        let mut of = Vec::new();
        if is_of_packets {
            let run: Run = serde_json::from_value(value.clone())?;
            of.push(run.name());
            self.runs.push(run);
        }
        self.find_latencies(&value, &mut of);
        Ok(())
    }

    /// Latencies wherever in a line they are; `of` says what they are of.
    fn find_latencies(&mut self, value: &Value, of: &mut Vec<String>) {
        if let Some(latency) = Latency::of(value, of) {
            self.latencies.push(latency);
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    of.push(name.clone());
                    self.find_latencies(field, of);
                    of.pop();
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                items.iter().for_each(|item| self.find_latencies(item, of));
            }
            _ => {}
        }
    }

    /// The last run of `graph` on one worker with IPv4 in everything and the usual routes.
    fn graph(&self, scenario: &str, spokes: u64, size: &str) -> Option<&Run> {
        self.runs.iter().rev().find(|run| {
            run.is_usual() && (run.scenario.as_str(), run.spokes) == (scenario, spokes) && run.size() == size
        })
    }
}

impl Run {
    /// The size, as on the command line.
    fn size(&self) -> String {
        size(&self.size)
    }

    /// One of the table: the graph by itself, one worker, IPv4, 1,000 routes or one for each spoke.
    fn is_usual(&self) -> bool {
        let is_v4 = |family: &str| family.is_empty() || family == "ipv4";
        self.measured.is_none()
            && self.workers == 1
            && !self.public
            && self.routes == self.spokes.max(1000)
            && is_v4(&self.inner)
            && is_v4(&self.outer)
    }

    /// What tells it from the others.
    fn name(&self) -> String {
        let (size, spokes) = (self.size(), grouped(self.spokes));
        let unit = if self.size.is_number() { " B" } else { "" };
        let mut name = format!("{} {size}{unit}, {spokes} spokes", self.scenario);
        let is_v6 = |family: &str| family == "ipv6";
        if is_v6(&self.inner) || is_v6(&self.outer) {
            name += &format!(", {} over {}", self.inner, self.outer);
        }
        if self.public || self.routes != self.spokes.max(1000) {
            name += &format!(", {}{} routes", grouped(self.routes), if self.public { " public" } else { "" });
        }
        if self.workers != 1 {
            name += &format!(", {} workers", self.workers);
        }
        if let Some(measured) = &self.measured {
            name += &format!(", {measured}");
        }
        name
    }
}

impl Latency {
    fn of(value: &Value, of: &[String]) -> Option<Self> {
        let number = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_f64());
        let shown = [
            number(&["p50_us"])?,
            number(&["p99_us"])?,
            number(&["p99_9_us", "p999_us"])?,
            number(&["max_us"])?,
        ];
        let pairs = |name| serde_json::from_value::<Vec<(f64, f64)>>(value.get(name)?.clone()).ok();
        let quantiles = pairs("quantiles").or_else(|| Some(shares(&pairs("histogram")?)))?;
        Some(Self { of: of.join(" · "), quantiles, shown })
    }
}

/// Quantiles of a histogram's steps, each up to how much and how many.
fn shares(steps: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let all: f64 = steps.iter().map(|step| step.1).sum();
    let mut so_far = 0.0;
    let share = |(up_to, count): &(f64, f64)| {
        so_far += count;
        (so_far / all, *up_to)
    };
    steps.iter().map(share).collect()
}

fn size(size: &Value) -> String {
    size.as_str().map_or_else(|| size.to_string(), str::to_owned)
}

/// A number with its thousands told apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn line(scenario: &str, spokes: u64, size: &str, cycles: f64) -> String {
        serde_json::json!({
            "scenario": scenario, "inner": "ipv4", "outer": "ipv4", "spokes": spokes, "size": size.parse::<u64>().map_or(Value::from(size), Value::from), "routes": spokes.max(1000),
            "public": false, "workers": 1, "cycles_per_packet": cycles, "cycles_per_packet_min": cycles - 5.0, "mpps": 10.0,
            "gbps": 5.0, "nodes": {"classify": 20.0, "rewrite": 15.5}, "drops": {}, "reference_ratio": 0.7,
            "sealing_reference_ratio": 0.05, "verified": true, "huge_pages": true
        })
        .to_string()
    }

    #[test]
    fn the_last_run_counts_and_what_is_not_usual_is_no_row_of_the_table() {
        let mut runs = Runs::default();
        for cycles in [60.0, 50.0] {
            runs.add(&line("ipv4", 1000, "64", cycles)).unwrap();
        }
        let unusual = [
            ("\"workers\":1", "\"workers\":2"),
            ("\"public\":false", "\"public\":true"),
            ("\"inner\":\"ipv4\"", "\"inner\":\"ipv6\""),
            ("\"routes\":1000", "\"routes\":1000000"),
            ("\"drops\"", "\"measured\":\"wire\",\"drops\""),
        ];
        for (usual, unusual) in unusual {
            let line = line("ipv4", 1000, "64", 70.0);
            assert!(line.contains(usual), "{line}");
            runs.add(&line.replace(usual, unusual)).unwrap();
        }
        assert_eq!((runs.runs.len(), runs.graph("ipv4", 1000, "64").unwrap().cycles_per_packet), (7, 50.0));
        assert_eq!(runs.runs[2].name(), "ipv4 64 B, 1,000 spokes, 2 workers");
        assert!(runs.graph("ipv4", 1, "64").is_none() && runs.graph("ipv4", 1000, "354").is_none());
        assert!(
            runs.add("{").is_err() && runs.add(r#"{"scenario": "x", "cycles_per_packet": "y"}"#).is_err()
        );
    }

    #[test]
    fn latencies_are_found_wherever_they_are() {
        let mut runs = Runs::default();
        let with_quantiles =
            r#"{"p50_us": 5, "p99_us": 9, "p99_9_us": 12, "max_us": 50, "quantiles": [[0.5, 5], [1, 50]]}"#;
        let with_steps =
            r#"{"p50_us": 1, "p99_us": 9, "p999_us": 9, "max_us": 9, "histogram": [[1, 30], [9, 10]]}"#;
        runs.add(&format!(
            r#"{{"spokes": 3, "before": {with_quantiles}, "turns": [{{"with": {with_steps}}}]}}"#
        ))
        .unwrap();
        let [before, with] = &runs.latencies[..] else { panic!("two: {:?}", runs.latencies) };
        assert_eq!((before.of.as_str(), &before.quantiles[..]), ("before", &[(0.5, 5.0), (1.0, 50.0)][..]));
        assert_eq!((with.of.as_str(), &with.quantiles[..]), ("turns · with", &[(0.75, 1.0), (1.0, 9.0)][..]));
        assert_eq!(before.shown, [5.0, 9.0, 12.0, 50.0]);
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
