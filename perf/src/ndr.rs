//! `nave-perf ndr`: the non-drop rate, by sizes of frames (RFC 2544 §26.1): the highest rate at which everything that is sent in a trial comes back.
//!
//! ```text
//!   full load ─► its rate is the upper end ─► trial at the middle ─► lost? ─ yes ─► upper end ─┐
//!                                               ▲                    └───── no ──► lower end ─┤
//!                                               └── until both ends are within a percent ◄────┘
//! ```

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::dimensions::Dimensions;
use crate::generator::{Flight, Generator};
use crate::histogram::Latency;
use crate::machine::{available, cores};
use crate::progress::Progress;
use crate::report::{Protected, median};
use crate::size::Size;
use crate::wire::{Bench, Kind, Link};

/// Passes at full load, for the upper end.
const PASSES: usize = 5;
/// The upper end over the rate at full load, which ends with the last packet: a trial may be as fast.
const ABOVE: f64 = 1.1;
/// Bytes that a trial takes for a packet besides those of its frame before and after: way, times, places, headers of a tunnel.
const BOOKED: f64 = 320.0;
/// Share of the memory that is free which a trial may take.
const SHARE: f64 = 0.5;

/// Command line of `nave-perf ndr`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dimensions: Dimensions,
    #[command(flatten)]
    link: Link,
    /// Sizes of frames in the clear, without FCS, each with a search of its own: bytes, or imix
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', default_value = "64,354,1400")]
    sizes: Vec<Size>,
    /// Seconds that packets are sent for in a trial. RFC 2544 wants 60 in the end; all frames of a trial are made before it and kept until it is
    /// checked, so memory sets the limit
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// How close the ends come to each other, in percent of the rate
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = resolution)]
    resolution: f64,
    /// Loss that a trial may have, in percent of its packets
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = loss)]
    loss: f64,
    /// Trials at a rate before it counts as too high: 1 on a machine of its own; where others take the cores away for milliseconds, more
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    tries: u32,
    /// Sleep of the workers when idle: poll (never) or adaptive
    #[arg(long, default_value = "poll", value_parser = ["poll", "adaptive"])]
    idle: String,
    /// The data plane's program; the one beside this program if not given
    #[arg(long)]
    dataplane: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>) -> anyhow::Result<f64> {
    let number: f64 = text.parse().context("a number")?;
    ensure!(range.contains(&number), "{} to {}", range.start(), range.end());
    Ok(number)
}

fn seconds(text: &str) -> anyhow::Result<f64> {
    number(text, 0.01..=600.0)
}

fn resolution(text: &str) -> anyhow::Result<f64> {
    number(text, 0.1..=20.0)
}

fn loss(text: &str) -> anyhow::Result<f64> {
    number(text, 0.0..=10.0)
}

/// One trial.
#[derive(Debug, Serialize)]
struct Trial {
    /// Rate at which packets were sent, and by how much the latest one was behind its time.
    mpps: f64,
    sender_late_max_us: f64,
    sent: usize,
    lost: usize,
    /// Whether the rate counts as held.
    held: bool,
}

/// What one search found.
#[derive(Debug, Serialize)]
struct Found {
    size: Size,
    mean_size: f64,
    /// At full load, with a window: what the data plane forwards if it is never without packets.
    full_mpps: f64,
    /// The non-drop rate, in millions of packets and 10⁹ bits of frames in the clear a second; none if every trial lost something.
    mpps: Option<f64>,
    gbps: Option<f64>,
    /// At that rate.
    latency: Option<Latency>,
    trials: Vec<Trial>,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    measured: &'static str,
    inner: &'static str,
    outer: &'static str,
    spokes: u32,
    routes: usize,
    public: bool,
    workers: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    esp: Option<Protected>,
    seconds: f64,
    resolution: f64,
    loss: f64,
    tries: u32,
    rates: Vec<Found>,
    /// Whether every byte of every packet was right.
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    huge_pages: bool,
    shares_core: bool,
}

/// Runs it; whether every packet that came out was right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let first = *args.sizes.first().context("--sizes: one at least")?;
    for size in &args.sizes {
        args.link.check(&args.dimensions.scenario(*size)?)?;
    }
    let scenario = args.dimensions.scenario(first)?;
    ensure!(
        args.link.kind() != Kind::Pcap,
        "--link pcap: a file's frames come as fast as they are taken, without a rate"
    );
    cores(args.dimensions.workers + 1)
        .context("--workers: a rate wants a core for the source of packets besides theirs")?;
    let bench = Bench::start(args.dataplane.as_deref(), &args.dimensions, &args.link, &args.idle, scenario)?;
    let mut generator = bench.generator(&args.link)?;
    let scenario = &bench.scenario;
    let mut report = Report {
        scenario: scenario.kind.name(),
        measured: "ndr",
        inner: scenario.inner.name(),
        outer: scenario.outer.name(),
        spokes: scenario.spokes,
        routes: scenario.destinations.count(),
        public: scenario.destinations.is_public(),
        workers: bench.workers,
        esp: scenario.esp.map(Protected::from),
        seconds: args.seconds,
        resolution: args.resolution,
        loss: args.loss,
        tries: args.tries,
        rates: Vec::new(),
        verified: true,
        wrong: None,
        huge_pages: bench.dataplane.huge_pages,
        shares_core: bench.shares_core,
    };
    generator.packets().for_each(|packets| packets.allow_loss());
    for size in &args.sizes {
        match search(args, &mut generator, *size) {
            Ok(found) => report.rates.push(found),
            Err(error) => {
                report.verified = false;
                report.wrong = Some(format!("{:#}", error.context(format!("with {size}"))));
                break;
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// The search for one size.
fn search(args: &Args, generator: &mut Generator, size: Size) -> anyhow::Result<Found> {
    let mut progress = Progress::new();
    generator.packets().for_each(|packets| packets.resize(size));
    let least =
        generator.packets().next().map_or(0, |packets| crate::frame::least_size(packets.scenario.inner));
    let mean_size = size.mean(least);
    let mut full = Vec::new();
    for _ in 0..PASSES {
        full.push(generator.pass()?.mpps());
    }
    let full_mpps = median(full.into_iter());
    let mut found =
        Found { size, mean_size, full_mpps, mpps: None, gbps: None, latency: None, trials: Vec::new() };
    let (mut lower, mut upper) = (0.0, full_mpps * ABOVE);
    room(args.seconds * upper * 1e6, mean_size)?;
    // Where nothing holds the search ends at the first rate that is told apart from none.
    let least_mpps = upper * args.resolution / 100.0;
    while upper - lower > upper * args.resolution / 100.0 && upper > least_mpps {
        let rate = (lower + upper) / 2.0;
        progress.tell(format_args!("{size}: {lower:.3} to {upper:.3} Mpps, trying {rate:.3}"));
        let mut held = None;
        for _ in 0..args.tries {
            let flight = trial(args, generator, rate)?;
            let may_lose = flight.sent as f64 * args.loss / 100.0;
            // A rate that the sender did not keep up is none that was held.
            let holds = flight.lost() as f64 <= may_lose && !flight.is_disturbed();
            found.trials.push(Trial {
                mpps: rate,
                sender_late_max_us: flight.late_max.as_secs_f64() * 1e6,
                sent: flight.sent,
                lost: flight.lost(),
                held: holds,
            });
            if holds {
                held = Some(flight);
                break;
            }
        }
        match held {
            Some(flight) => {
                lower = rate;
                found.mpps = Some(rate);
                found.gbps = Some(rate * mean_size * 8.0 / 1e3);
                found.latency = Some(flight.latencies.summary());
            }
            None => upper = rate,
        }
    }
    Ok(found)
}

fn trial(args: &Args, generator: &mut Generator, mpps: f64) -> anyhow::Result<Flight> {
    let count = (mpps * 1e6 * args.seconds / generator.queues() as f64).ceil() as usize;
    generator.trial(count, mpps * 1e6)
}

/// Whether there is memory for the frames of a trial.
fn room(packets: f64, mean_size: f64) -> anyhow::Result<()> {
    let (wanted, free) = (packets * (2.0 * mean_size + BOOKED), available()? as f64);
    ensure!(
        wanted <= free * SHARE,
        "--seconds: a trial's {:.0} million packets take {:.0} MB, {:.0} of {:.0} may be had",
        packets / 1e6,
        wanted / 1e6,
        free * SHARE / 1e6,
        free / 1e6
    );
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({} over {}) through nave-dataplane, {} spokes, {} {}routes, {} worker(s){}; trials of {} s",
            self.scenario,
            self.inner,
            self.outer,
            self.spokes,
            self.routes,
            if self.public { "public " } else { "" },
            self.workers,
            if self.huge_pages { "" } else { ", no huge pages" },
            self.seconds,
        )?;
        if let Some(esp) = &self.esp {
            writeln!(f, "{esp}")?;
        }
        for found in &self.rates {
            match (found.mpps, found.gbps) {
                (Some(mpps), Some(gbps)) => {
                    write!(f, "{:>7}: {mpps:.3} Mpps, {gbps:.3} Gb/s without loss", found.size.to_string())?;
                }
                _ => write!(f, "{:>7}: no rate without loss", found.size.to_string())?,
            }
            writeln!(f, " ({:.3} Mpps at full load, {} trials)", found.full_mpps, found.trials.len())?;
            if let Some(latency) = &found.latency {
                writeln!(f, "         {latency}")?;
            }
        }
        match &self.wrong {
            None => write!(f, "verified: every byte of every packet that came back"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
