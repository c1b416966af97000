//! `nave-perf wire`: the real data plane, a process of its own that is programmed over gRPC, between links by which somebody else sends.
//!
//! ```text
//!                       ┌──────── nave-dataplane ────────┐
//!   generator ── link ── lan ──        graph        ── wan ── link ── generator
//!   (a core of its own) └─────────────── gRPC ───────────┘
//!                         scenario's program ↓   ↑ cycles of workers and nodes, drops
//! ```

mod beside;
mod link;
mod meter;
mod replay;
mod report;

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, ensure};
use clap::{ArgAction, value_parser};
use tokio::runtime::Runtime;

use crate::dimensions::Dimensions;
use crate::generator::Generator;
use crate::hub::Hub;
use crate::lane::DISTINCT;
use crate::machine::{cores, start_dpdk};
use crate::output;
use crate::process::{Dataplane, Folder};
use crate::programmer::Programmer;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::scenario::{PORTS, Scenario};
use crate::size::Size;
use crate::wire::beside::Beside;
pub(crate) use crate::wire::link::{Kind, Link};
use crate::wire::meter::{Meter, Seen};
use crate::wire::report::{Costs, Report};

/// Passes that warm up.
const WARM: u64 = 2;
/// Rounds of the loop that seals after each pass.
const SEALED: usize = DISTINCT / 8;
/// Mebibytes of packet buffers here, for each worker.
const MEGABYTES: u32 = 256;

/// Command line of `nave-perf wire`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dimensions: Dimensions,
    /// Bytes of the frame in the clear, without FCS: 64 to 1800, 70 at least with IPv6 (in GRE the inner packet is 14 bytes shorter); or imix: of
    /// twelve packets seven of 64, four of 570, one of 1400
    #[arg(long, default_value = "64")]
    size: Size,
    #[command(flatten)]
    link: Link,
    /// Packets to measure with, for each worker; rounded up to whole passes of 16,384, three at least
    #[arg(long, default_value_t = 1_048_576, value_parser = value_parser!(u64).range(1..))]
    packets: u64,
    /// Share of the packets a second at full load at which latency is measured, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = value_parser!(u32).range(1..=100))]
    load: u32,
    /// Measure latency at so many million packets a second instead
    #[arg(long, value_name = "MPPS", conflicts_with = "load", value_parser = rate)]
    rate: Option<f64>,
    /// Run `nave-perf graph` with the same arguments before and after it, and compare the cycles
    #[arg(long)]
    graph: bool,
    /// Write a sample of the frames that came out to this pcap file, and beside it, with .esp_sa behind its name, the keys that open them, as
    /// Wireshark reads them
    #[arg(long, value_name = "FILE")]
    write_output: Option<PathBuf>,
    /// Worker's sleep when idle: poll (never) or adaptive
    #[arg(long, default_value = "poll", value_parser = ["poll", "adaptive"])]
    idle: String,
    /// The data plane's program; the one beside this program if not given
    #[arg(long)]
    dataplane: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long, action = ArgAction::SetTrue)]
    json: bool,
}

fn rate(text: &str) -> anyhow::Result<f64> {
    let rate: f64 = text.parse().context("a number of million packets a second")?;
    ensure!((0.001..=200.0).contains(&rate), "0.001 to 200 million packets a second");
    Ok(rate)
}

/// Runs it; whether every packet came out right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let scenario = args.dimensions.scenario(args.size)?;
    args.link.check(&scenario)?;
    let mut beside = args.graph.then(Beside::default);
    if let Some(beside) = &mut beside {
        beside.run(&args.dimensions, args.size)?;
    }
    // On a thread of its own: what it does to cores and namespaces is not for what is run beside it.
    let measured = std::thread::scope(|scope| scope.spawn(|| measure(args, scenario)).join());
    let mut report = measured.map_err(|_| anyhow!("the measurement panicked"))??;
    if let Some(mut beside) = beside {
        beside.run(&args.dimensions, args.size)?;
        report.compare(&beside);
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// A data plane with a scenario's program, and what speaks to it.
pub(crate) struct Bench {
    pub(crate) scenario: Scenario,
    pub(crate) workers: u16,
    pub(crate) programmer: Programmer,
    pub(crate) runtime: Runtime,
    pub(crate) dataplane: Dataplane,
    /// Whether a worker has to share its core with the source of packets.
    pub(crate) shares_core: bool,
    _folder: Folder,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.runtime.block_on(self.programmer.close());
    }
}

impl Bench {
    /// Starts the data plane and programs it; pins this thread to a core that no worker has, if there is one.
    ///
    /// # Errors
    /// It does not start, or refuses the program.
    pub(crate) fn start(
        program: Option<&std::path::Path>,
        dimensions: &Dimensions,
        link: &Link,
        idle: &str,
        mut scenario: Scenario,
    ) -> anyhow::Result<Self> {
        let workers = dimensions.workers;
        let of_workers = cores(workers).context("--workers")?;
        let own = cores(workers + 1).ok().and_then(|cores| cores.last().copied());
        let shares_core = own.is_none();
        warn_of_few_cores(workers);
        let own = own.or(of_workers.last().copied()).context("there is no core")?;
        if link.is_alone() {
            // Without the rights for one there are no kernel twins either, which would send on their own account.
            let _ = Hub::alone();
        }
        let folder = Folder::new()?;
        scenario.mtu = link::MTU;
        let mut setup =
            link.setup(&folder, &mut scenario, of_workers.iter().map(|core| core.id).collect())?;
        let flags = ["--measure-nodes", "--idle", idle, "--mtu", &link::MTU.to_string()].map(str::to_owned);
        setup.flags.extend(flags);
        if let Some(esp) = &scenario.esp {
            setup.flags.extend(["--aead".to_owned(), esp.provider.name().to_owned()]);
        }
        let dataplane = Dataplane::start(program, &folder, &setup)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut programmer = runtime.block_on(Programmer::connect(dataplane.socket.clone()))?;
        for (mac, (name, _)) in scenario.macs.iter_mut().zip(PORTS) {
            let is = programmer.mac(name)?;
            ensure!(
                link.kind() != Kind::Pcap || Some(name) != link::replayed(&scenario.kind) || is == *mac,
                "port {name} has the address {is}, the packets of the file are for {mac}"
            );
            *mac = is;
        }
        let batches = scenario.batches()?.into_iter().chain(scenario.sa_batches(workers)?);
        let batches = batches.map(|batch| programmer.batch(batch.ops)).collect();
        runtime.block_on(programmer.apply(batches, 8)).context("programming the scenario")?;
        ensure!(core_affinity::set_for_current(own), "cannot be pinned to core {}", own.id);
        Ok(Self { scenario, workers, programmer, runtime, dataplane, shares_core, _folder: folder })
    }

    /// What the data plane has counted so far.
    ///
    /// # Errors
    /// It went away.
    pub(crate) fn seen(&self) -> anyhow::Result<Seen> {
        self.runtime.block_on(Seen::by(&self.programmer))
    }

    /// Starts DPDK here, and the source at the far ends of the links.
    ///
    /// # Errors
    /// The links do not come up.
    pub(crate) fn generator(&self, link: &Link) -> anyhow::Result<Generator> {
        let devices = link.far_ends()?;
        let names: Vec<String> = devices.iter().map(|device| link::name(device).to_owned()).collect();
        let (eal, _) = start_dpdk(MEGABYTES * u32::from(self.workers), devices)?;
        let queues = if link.kind() == Kind::Nic { 1 } else { self.workers };
        Generator::connect(&eal, [&names[0], &names[1]], &self.scenario, self.workers, queues)
    }
}

/// Says it where there are fewer cores than threads that want one: the workers, the source, and all others of the data plane together.
fn warn_of_few_cores(workers: u16) {
    let there = std::thread::available_parallelism().map_or(usize::MAX, std::num::NonZero::get);
    let wanted = usize::from(workers) + 2;
    if there < wanted {
        eprintln!(
            "nave-perf: {workers} worker(s), the source of packets and the data plane's other threads want {wanted} cores, there are {there}: they take turns, which latencies and losses have in them"
        );
    }
}

fn measure(args: &Args, scenario: Scenario) -> anyhow::Result<Report> {
    let dataplane = args.dataplane.as_deref();
    let bench = Bench::start(dataplane, &args.dimensions, &args.link, &args.idle, scenario)?;
    let passes = args.packets.div_ceil(DISTINCT as u64).max(3);
    if args.link.kind() == Kind::Pcap {
        return replay::measure(&bench, passes, args.write_output.as_deref());
    }
    let mut generator = bench.generator(&args.link)?;
    let (costs, wrong) = full_load(&bench, &mut generator, passes, args.write_output.is_some())?;
    let mut report = Report::new(&bench, args.link.kind(), costs, wrong);
    if report.verified {
        let rate = args.rate.map_or(report.mpps * f64::from(args.load) / 100.0, |rate| rate);
        match generator.at_rate(rate) {
            Ok(at_rate) => report.latency = Some(at_rate),
            Err(error) => report.is_wrong(format!("{:#}", error.context("at a rate"))),
        }
    }
    if let Some(file) = &args.write_output {
        let frames = generator.packets().flat_map(|packets| packets.take_sample()).collect();
        output::write(file, &bench.scenario, bench.workers, frames)?;
    }
    Ok(report)
}

/// Passes at full load; what is wrong, if something is.
fn full_load(
    bench: &Bench,
    generator: &mut Generator,
    passes: u64,
    keep: bool,
) -> anyhow::Result<(Costs, Option<String>)> {
    let mut progress = Progress::new();
    let mut reference = Reference::new()?;
    let mut costs = Costs::default();
    let mut meter = Meter::new(bench.seen()?);
    for pass in 0..WARM + passes {
        if keep && pass == WARM {
            generator.packets().for_each(|packets| packets.keep(output::SAMPLE));
        }
        let flight = match generator.pass() {
            Ok(flight) => flight,
            Err(error) => return Ok((costs, Some(format!("pass {pass}: {error:#}")))),
        };
        let spent = meter.spent(bench.seen()?);
        let lost = flight.lost();
        if lost > 0 {
            let drops = spent.drops;
            return Ok((
                costs,
                Some(format!("pass {pass}: {lost} of {} packets are lost; {drops:?}", flight.sent)),
            ));
        }
        if pass < WARM {
            continue;
        }
        let plain = reference.measure(DISTINCT);
        costs.add(&flight, &spent, (plain, reference.measure_sealing(SEALED)));
        progress.tell(format_args!("pass {} of {passes}: {:.2} Mpps", pass + 1 - WARM, flight.mpps()));
    }
    Ok((costs, None))
}
