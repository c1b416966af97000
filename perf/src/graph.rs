//! `nave-perf graph`: sets the scenario up, runs passes, says what they cost.

use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::value_parser;
use core_affinity::CoreId;
use dpdk::{Eal, Mempool, MempoolConfig, Port, PortConfig, RingRx, RingTx};
use forwarding::{Counters, DropReason, Node, Program};
use model::program::Batch;
use model::time::Instant;

use crate::dimensions::Dimensions;
use crate::histogram::{AtRate, Latencies, TRIALS, Timed};
use crate::lane::{DISTINCT, Lane, LanePorts, Paced};
use crate::machine::{cores, start_dpdk};
use crate::output;
use crate::reference::Reference;
use crate::report::{Report, median};
use crate::scenario::{PORTS, Scenario};
use crate::size::Size;

/// Breaths that all workers have for the SAs of one batch.
const BREATHS: usize = 100_000;
/// Passes of one trial for latency.
const LATENCY_PASSES: usize = 16;
/// Rounds of the loop that seals after each pass.
const SEALED: usize = DISTINCT / 8;
/// Mebibytes of ordinary pages, where there are no huge ones: buffers and rings of one worker.
pub(crate) const MEGABYTES: u32 = 96;

/// Command line of `nave-perf graph`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dimensions: Dimensions,
    /// Bytes of the frame in the clear, without FCS: 64 to 1800, 70 at least with IPv6 (in GRE the inner packet is 14 bytes shorter); or imix: of
    /// twelve packets seven of 64, four of 570, one of 1400
    #[arg(long, default_value = "64")]
    size: Size,
    /// Packets to measure with, for each worker; rounded up to whole passes of 16,384, three at least
    #[arg(long, default_value_t = 4_194_304, value_parser = value_parser!(u64).range(1..))]
    packets: u64,
    /// Measure latency, too: between the ring ports, at so many percent of the rate of the passes
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u32).range(1..=100))]
    load: Option<u32>,
    /// Write a sample of the frames that came out to this pcap file, and beside it, with .esp_sa behind its name, the keys that open them, as
    /// Wireshark reads them
    #[arg(long, value_name = "FILE")]
    write_output: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What one lane saw in its passes.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    /// Cycles per packet from the rx burst to the tx burst, nodes not measured.
    pub(crate) whole: Vec<f64>,
    /// The same in passes in which they were.
    pub(crate) measured: Vec<f64>,
    /// Cycles per packet of each node, then of the ports, in the measured passes.
    pub(crate) nodes: Vec<[f64; Node::COUNT + 1]>,
    /// Cycles of the reference loop after each pass of `whole`, and of the one that seals.
    pub(crate) reference: Vec<f64>,
    pub(crate) sealing: Vec<f64>,
    /// Frames that came out, if some were to be kept.
    sample: Vec<Vec<u8>>,
}

/// Runs it; whether every packet came out right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let workers = args.dimensions.workers;
    let cores = cores(workers).context("--workers")?;
    let scenario = args.dimensions.scenario(args.size)?;
    let pairs = args.packets.div_ceil(2 * DISTINCT as u64).max(3);
    let (eal, huge) = start_dpdk(MEGABYTES * u32::from(workers), Vec::new())?;
    let mut program = program(&scenario)?;
    let mut lanes = lanes(&eal, workers, &scenario, &mut program)?;
    install(&mut program, &mut lanes, &scenario.sa_batches(workers)?)?;
    if args.write_output.is_some() {
        lanes.iter_mut().for_each(|lane| lane.packets.keep(output::SAMPLE));
    }
    let barrier = Barrier::new(lanes.len());
    let results: Vec<anyhow::Result<Passes>> = thread::scope(|scope| {
        let threads: Vec<_> = (lanes.iter_mut())
            .zip(&cores)
            .map(|(lane, core)| {
                let (eal, barrier) = (&eal, &barrier);
                scope.spawn(move || passes(eal, *core, lane, barrier, pairs))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a lane panicked"))?).collect()
    });
    let mut wrong = None;
    let mut seen = Vec::new();
    for result in results {
        match result {
            Ok(passes) => seen.push(passes),
            Err(error) => wrong = Some(format!("{error:#}")),
        }
    }
    if let Some(file) = &args.write_output {
        let frames = seen.iter_mut().flat_map(|lane| std::mem::take(&mut lane.sample)).collect();
        output::write(file, &scenario, workers, frames)?;
    }
    let mut report = Report::new(&scenario, &seen, drops(&program), huge, wrong);
    if let Some(load) = args.load.filter(|_| report.verified) {
        let rate = report.mpps * f64::from(load) / 100.0;
        match latency(&eal, &cores, &mut lanes, rate) {
            Ok(latency) => report.latency = Some(latency),
            Err(error) => report.is_wrong(format!("{:#}", error.context("at a rate"))),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

pub(crate) fn program(scenario: &Scenario) -> anyhow::Result<Program> {
    let ports = PORTS.map(|(name, mac)| forwarding::Port { name: name.into(), mac, mtu: 9000 });
    let mut program = Program::new(ports.into())?;
    if let Some(esp) = &scenario.esp {
        program = program.with_provider(esp.provider);
    }
    for batch in scenario.batches()? {
        program
            .apply(Instant::default(), &batch)
            .with_context(|| format!("batch {} was refused", batch.number))?;
    }
    Ok(program)
}

/// Programs SAs, which workers take as they breathe.
pub(crate) fn install(program: &mut Program, lanes: &mut [Lane], batches: &[Batch]) -> anyhow::Result<()> {
    for batch in batches {
        program
            .apply(Instant::default(), batch)
            .with_context(|| format!("batch {} of SAs was refused", batch.number))?;
        let mut breaths = 0;
        while !program.are_orders_taken() {
            ensure!(breaths < BREATHS, "workers do not take the SAs of batch {}", batch.number);
            breaths += 1;
            program.pump();
            for lane in &mut *lanes {
                let _ = lane.breathe();
            }
        }
    }
    Ok(())
}

/// Rings, ports over them, and a lane for each worker.
pub(crate) fn lanes(
    eal: &Eal,
    workers: u16,
    scenario: &Scenario,
    program: &mut Program,
) -> anyhow::Result<Vec<Lane>> {
    let count = u32::from(workers) * 16_384 * 5 / 4 - 1;
    let pool = Mempool::create(eal, &MempoolConfig { count, ..MempoolConfig::default() })?;
    let mut far: Vec<Vec<(RingTx, RingRx)>> = Vec::new();
    let mut queues = Vec::new();
    for (number, (name, _)) in (0..).zip(PORTS) {
        let (mut rx, mut tx, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for worker in 0..workers {
            // What is not used in this scenario is short: no packet passes it.
            let slots = |used| if used { DISTINCT as u32 } else { 64 };
            let (feed, queue) =
                dpdk::ring(eal, &format!("{name}-in-{worker}"), slots(scenario.kind.in_port() == number))?;
            let (sent, drain) =
                dpdk::ring(eal, &format!("{name}-out-{worker}"), slots(scenario.kind.out_port() == number))?;
            rx.push(queue);
            tx.push(sent);
            ends.push((feed, drain));
        }
        let opened = Port::over_rings(eal, name, rx, tx, &PortConfig::new(pool))?;
        queues.push(opened.rx.into_iter().zip(opened.tx));
        far.push(ends);
    }
    let (Some(wan_far), Some(lan_far), Some(wan), Some(lan)) =
        (far.pop(), far.pop(), queues.pop(), queues.pop())
    else {
        bail!("there are two ports");
    };
    let mut lanes = Vec::new();
    let ends = lan_far.into_iter().zip(wan_far);
    for (number, ((lan, wan), (lan_far, wan_far))) in (0..).zip(lan.zip(wan).zip(ends)) {
        let ports = LanePorts { queues: [lan, wan], pool, command: None };
        let feed = if scenario.kind.arrives_in_tunnel() { wan_far.0 } else { lan_far.0 };
        let drains = [lan_far.1, wan_far.1];
        lanes.push(Lane::new(scenario.clone(), program.worker()?, ports, feed, drains, number)?);
    }
    Ok(lanes)
}

/// A lane's passes on its own core: two to warm up, then in turn one as it is and one that measures the nodes. Lanes
/// begin each pass together.
fn passes(eal: &Eal, core: CoreId, lane: &mut Lane, barrier: &Barrier, pairs: u64) -> anyhow::Result<Passes> {
    // Whatever happens here, the lanes beside must not wait for this one for ever: an error is kept until the end.
    let mut wrong =
        (!core_affinity::set_for_current(core)).then(|| anyhow!("cannot be pinned to core {}", core.id));
    let _token = dpdk::register_worker_thread(eal)?;
    let mut reference = Reference::new()?;
    let counters = lane.worker.counters();
    let mut passes = Passes::default();
    for pass in 0..2 * pairs + 2 {
        let (warm, measured) = (pass < 2, pass % 2 == 1);
        // Before there are packets, of which its breath would take some.
        lane.measure_nodes(measured);
        let loaded = if wrong.is_none() { lane.load() } else { Ok(()) };
        let before = node_cycles(&counters);
        barrier.wait();
        let per_packet = lane.run() as f64 / DISTINCT as f64;
        let after = node_cycles(&counters);
        if wrong.is_some() {
            continue;
        }
        if let Err(error) = loaded.and_then(|()| lane.verify()) {
            wrong = Some(error.context(format!("pass {pass}")));
            continue;
        }
        let nodes = std::array::from_fn(|at| (after[at] - before[at]) as f64 / DISTINCT as f64);
        let (plain, sealing) = (reference.measure(DISTINCT), reference.measure_sealing(SEALED));
        if warm {
            continue;
        }
        if measured {
            passes.measured.push(per_packet);
            passes.nodes.push(nodes);
        } else {
            passes.whole.push(per_packet);
            passes.reference.push(plain);
            passes.sealing.push(sealing);
        }
    }
    passes.sample = lane.packets.take_sample();
    wrong.map_or(Ok(passes), Err)
}

/// Latency at a rate of all lanes together, each on its core: in so many trials of so many passes.
fn latency(eal: &Eal, cores: &[CoreId], lanes: &mut [Lane], mpps: f64) -> anyhow::Result<AtRate> {
    let interval = memory::cycles_per_second() as f64 * lanes.len() as f64 / (mpps * 1e6);
    let mut trials = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let barrier = Barrier::new(lanes.len());
        let seen: Vec<anyhow::Result<(Latencies, Paced)>> = thread::scope(|scope| {
            let threads: Vec<_> = (lanes.iter_mut().zip(cores))
                .map(|(lane, core)| {
                    let barrier = &barrier;
                    scope.spawn(move || trial(eal, *core, lane, barrier, interval))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a lane panicked"))?).collect()
        });
        let (mut latencies, mut slowest) = (Latencies::new()?, Paced::default());
        for lane in seen {
            let (of_lane, Paced { late, cycles }) = lane?;
            latencies.add(&of_lane);
            slowest = Paced { late: slowest.late.max(late), cycles: slowest.cycles.max(cycles) };
        }
        let sent = lanes.len() * LATENCY_PASSES * DISTINCT;
        trials.push(Timed {
            mpps: sent as f64 / seconds(slowest.cycles) / 1e6,
            sent,
            lost: 0,
            late: Duration::from_secs_f64(seconds(slowest.late)),
            latencies,
        });
    }
    AtRate::new(mpps, &trials)
}

fn seconds(cycles: u64) -> f64 {
    cycles as f64 / memory::cycles_per_second() as f64
}

/// A lane's part of a trial: its latencies, the cycles of all its passes, and by how many a packet was behind its time at most.
fn trial(
    eal: &Eal,
    core: CoreId,
    lane: &mut Lane,
    barrier: &Barrier,
    interval: f64,
) -> anyhow::Result<(Latencies, Paced)> {
    let pinned = core_affinity::set_for_current(core);
    barrier.wait();
    ensure!(pinned, "cannot be pinned to core {}", core.id);
    let _token = dpdk::register_worker_thread(eal)?;
    lane.measure_nodes(false);
    let (mut latencies, mut whole) = (Latencies::new()?, Paced::default());
    for _ in 0..LATENCY_PASSES {
        let pass = lane.run_at(interval, &mut latencies)?;
        whole = Paced { late: whole.late.max(pass.late), cycles: whole.cycles + pass.cycles };
    }
    Ok((latencies, whole))
}

/// Cycles of each node so far, and of the ports.
fn node_cycles(counters: &Counters) -> [u64; Node::COUNT + 1] {
    std::array::from_fn(|at| {
        Node::ALL.get(at).map_or_else(|| counters.port_cycles(), |node| counters.node(*node).cycles)
    })
}

fn drops(program: &Program) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL.into_iter().map(|reason| (reason.name(), program.dropped(reason)));
    all.filter(|(_, count)| *count > 0).collect()
}

impl Passes {
    /// Median cycles per packet.
    pub(crate) fn median(&self) -> f64 {
        median(self.whole.iter().copied())
    }
}
