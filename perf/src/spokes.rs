//! `nave-perf spokes`: a real data plane gets thousands of protected spokes through gRPC, while packets to some that it has run through it.
//!
//! ```text
//!                        ┌──────────── nave-dataplane ────────────┐
//!   packets ──── memif ── lan ── look-up ── midchain ── ESP ── wan ── memif ── packets, opened and checked
//!   each 200 µs          └────────────────── gRPC ────────────────┘
//!                                             │
//!               batches of spokes: two SAs with each worker, binding, route; acks
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::value_parser;
use model::Mac;
use model::program::{Batch, Object, Op};
use model::sa::{Direction, SaMode, Suite};
use serde::Serialize;

use crate::destinations::Destinations;
use crate::esp::{Child, Esp, HALF};
use crate::hub::Hub;
use crate::load::{Count, Counted, Load, Pace, Standing, Turn};
use crate::machine::{cores, resident};
use crate::peers::End;
use crate::process::{Dataplane, Folder, Setup};
use crate::programmer::Programmer;
use crate::scenario::{Family, Kind, Scenario};
use crate::size::Size;
use crate::soak::owner;

/// Ports of the data plane.
const PORTS: [&str; 2] = ["lan", "wan"];
/// Spokes that are there before, to which packets are sent.
const THERE: u32 = 64;
/// Of the ports.
const MTU: u16 = 1500;
/// Time between bursts.
const TICK: Duration = Duration::from_micros(200);
/// How long packets run before they are counted: until each buffer and each place of the rings has been used once.
const WARM: Duration = Duration::from_millis(200);
/// How long the memory is given to settle before it is measured.
const SETTLE: Duration = Duration::from_millis(500);

/// Command line of `nave-perf spokes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Spokes that come: each two SAs with each worker, a binding, a route
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(100..=i64::from(HALF - THERE)))]
    spokes: u32,
    /// Steps of a batch
    #[arg(long, default_value_t = 1024, value_parser = value_parser!(u32).range(1..=16_384))]
    batch: u32,
    /// Batches on their way that have not been acknowledged
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=64))]
    window: u32,
    /// Workers of the data plane. Where no core is left for packets there are none: time and memory alone
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=16))]
    workers: u16,
    /// Times that the spokes come while packets run, all but the first after those of the time before are gone: a time is short, and what one
    /// packet of a thousand notices in it are a few bursts
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of packets before the spokes come, to compare with
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// The data plane's program; the one beside this program if not given
    #[arg(long)]
    dataplane: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    spokes: u32,
    workers: u16,
    batch: u32,
    window: u32,
    /// Steps of all batches of a round.
    steps: usize,
    /// From the first batch to the last acknowledgement: then every worker has its SAs. Of the first round, and of all.
    seconds: f64,
    rounds: Vec<f64>,
    /// The same for one more inbound SA of each spoke.
    renewal_seconds: f64,
    /// Growth of the data plane's memory in RAM by a spoke, and by one more inbound SA of it, in bytes.
    bytes_per_spoke: f64,
    bytes_per_sa: f64,
    /// Packets before the spokes came, and while they did, in all rounds; nothing if there was no core for them.
    before: Option<Counted>,
    during: Option<Counted>,
    /// Whether every packet came back, opened and right.
    verified: bool,
    /// Whether the data plane's packet buffers are in huge pages.
    huge_pages: bool,
}

/// Runs it; whether no packet was lost or wrong.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    Hub::alone()?;
    let folder = Folder::new()?;
    let has_traffic = cores(args.workers + 1).is_ok();
    let mut setup = Setup::memif(&PORTS)?;
    setup.workers = cores(args.workers).context("--workers")?.iter().map(|core| core.id).collect();
    if has_traffic {
        setup.flags.extend(["--idle".to_owned(), "poll".to_owned()]);
    }
    let dataplane = Dataplane::start(args.dataplane.as_deref(), &folder, &setup)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(args, &dataplane, has_traffic))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// So many spokes of a tunnel that is protected as usual.
fn scenario(spokes: u32, macs: [Mac; 2]) -> Scenario {
    let esp = Esp {
        suite: Suite::AesGcm128,
        mode: SaMode::Transport,
        is_udp: false,
        esn: true,
        window: 1024,
        provider: aead::Provider::best(),
    };
    Scenario {
        kind: Kind::Encrypt,
        inner: Family::Ipv4,
        outer: Family::Ipv4,
        spokes,
        destinations: Arc::new(Destinations::new(Family::Ipv4, spokes, false)),
        size: Size::Bytes(64),
        esp: Some(esp),
        macs,
        mtu: MTU,
    }
}

async fn measure(args: &Args, dataplane: &Dataplane, has_traffic: bool) -> anyhow::Result<Report> {
    let mut programmer = Programmer::connect(dataplane.socket.clone()).await?;
    let scenario = scenario(THERE, [programmer.mac(PORTS[0])?, programmer.mac(PORTS[1])?]);
    let base = scenario.base()?;
    let there = batches(&mut programmer, args, base.into_iter().map(put));
    programmer.apply(there, 1).await?;
    let there = spokes(&scenario, args, 0..THERE, 0)?;
    let there = batches(&mut programmer, args, there.into_iter().map(put));
    programmer.apply(there, 1).await?;

    let mut traffic = if has_traffic { Some(Traffic::start(&scenario, args).await?) } else { None };
    let number = dataplane.process.number();
    tokio::time::sleep(SETTLE).await;
    let empty = resident(&number)?.rss;
    let (steps, seconds) = come(&mut programmer, args, &scenario, &mut traffic, 0).await?;
    tokio::time::sleep(SETTLE).await;
    let full = resident(&number)?.rss;

    let renewals = renewals(&scenario, args)?;
    let begun = Instant::now();
    let new = batches(&mut programmer, args, renewals.iter().cloned().map(put));
    programmer.apply(new, args.window as usize).await?;
    let renewal_seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let renewed = resident(&number)?.rss;

    let mut rounds = vec![seconds];
    let mut gone: Vec<Op> = renewals.iter().map(remove).collect();
    for round in 1..if has_traffic { args.rounds } else { 1 } {
        gone.extend(new_spokes(&scenario, args, round - 1)?.iter().map(remove));
        let gone = batches(&mut programmer, args, gone.drain(..));
        programmer.apply(gone, args.window as usize).await?;
        rounds.push(come(&mut programmer, args, &scenario, &mut traffic, round).await?.1);
    }
    programmer.close().await;

    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / f64::from(args.spokes);
    let before = traffic.as_ref().map(|traffic| Counted::from(&traffic.before));
    let during = traffic.as_ref().map(|traffic| Counted::from(&traffic.during));
    let verified = [&before, &during].into_iter().flatten().all(Counted::all_right);
    Ok(Report {
        spokes: args.spokes,
        workers: args.workers,
        batch: args.batch,
        window: args.window,
        steps,
        seconds,
        rounds,
        renewal_seconds,
        bytes_per_spoke: each(full, empty),
        bytes_per_sa: each(renewed, full),
        verified,
        before,
        during,
        huge_pages: dataplane.huge_pages,
    })
}

/// Packets to the spokes that are there before, and what was counted of them.
struct Traffic {
    /// There, but while it runs.
    load: Option<Load>,
    before: Count,
    during: Count,
}

impl Traffic {
    /// Packets until the data plane is warm, and those before the spokes come.
    async fn start(scenario: &Scenario, args: &Args) -> anyhow::Result<Self> {
        let esp = scenario.esp.context("a protected tunnel")?;
        let (load, turns) = Load::connect(scenario, args.workers, None)?;
        for spoke in 0..THERE {
            let child = Child { spoke, life: 0 };
            turns.send(Turn::Opens(child, End::of_child(&esp, Direction::Outbound, child)?))?;
            turns.send(Turn::Comes(spoke))?;
        }
        let until = |end: Instant| move || Instant::now() >= end;
        let (load, _) = run_traffic(load, Count::new()?, until(Instant::now() + WARM)).await?;
        let end = Instant::now() + Duration::from_secs(args.seconds.into());
        let (load, before) = run_traffic(load, Count::new()?, until(end)).await?;
        Ok(Self { load: Some(load), before, during: Count::new()? })
    }
}

/// The spokes come, for the first time or another, while packets run if any do; in how many steps, and in how many seconds.
async fn come(
    programmer: &mut Programmer,
    args: &Args,
    scenario: &Scenario,
    traffic: &mut Option<Traffic>,
    round: u32,
) -> anyhow::Result<(usize, f64)> {
    let new = new_spokes(scenario, args, round)?;
    let steps = new.len();
    let new = batches(programmer, args, new.into_iter().map(put));
    let stop = Arc::new(AtomicBool::new(false));
    let running = match traffic {
        None => None,
        Some(Traffic { load, during, .. }) => {
            let (load, stop) = (load.take().context("packets run already")?, Arc::clone(&stop));
            let during = std::mem::replace(during, Count::new()?);
            Some(tokio::spawn(run_traffic(load, during, move || stop.load(Ordering::Relaxed))))
        }
    };
    let begun = Instant::now();
    let applied = programmer.apply(new, args.window as usize).await;
    let seconds = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    if let (Some(running), Some(traffic)) = (running, traffic) {
        let (load, during) = running.await.context("the traffic's task")??;
        (traffic.load, traffic.during) = (Some(load), during);
    }
    applied?;
    Ok((steps, seconds))
}

/// Spokes of these numbers, complete, with SAs of this life.
fn spokes(scenario: &Scenario, args: &Args, numbers: Range<u32>, life: u32) -> anyhow::Result<Vec<Object>> {
    let esp = scenario.esp.context("a protected tunnel")?;
    let mut objects = Vec::new();
    for spoke in numbers {
        let child = Child { spoke, life };
        for direction in [Direction::Inbound, Direction::Outbound] {
            objects.push(esp.child_sa(direction, scenario.outer, child)?);
        }
        for worker in 1..args.workers {
            objects.extend(esp.sas(scenario.outer, worker, spoke)?);
        }
        objects.extend(scenario.spoke(spoke)?);
    }
    Ok(objects)
}

/// Those that come in a round: with keys that no round before had, in the same slots.
fn new_spokes(scenario: &Scenario, args: &Args, round: u32) -> anyhow::Result<Vec<Object>> {
    spokes(scenario, args, THERE..THERE + args.spokes, 2 * round)
}

/// One more inbound SA of each spoke that came, as there is one beside that of before while it is renewed.
fn renewals(scenario: &Scenario, args: &Args) -> anyhow::Result<Vec<Object>> {
    let esp = scenario.esp.context("a protected tunnel")?;
    let children = (THERE..THERE + args.spokes).map(|spoke| Child { spoke, life: 1 });
    children.map(|child| esp.child_sa(Direction::Inbound, scenario.outer, child)).collect()
}

fn put(object: Object) -> Op {
    Op::Put(owner(&object), object)
}

fn remove(object: &Object) -> Op {
    Op::Remove(owner(object), object.key())
}

/// Steps in batches.
fn batches(programmer: &mut Programmer, args: &Args, ops: impl Iterator<Item = Op>) -> VecDeque<Batch> {
    let ops: Vec<Op> = ops.collect();
    ops.chunks(args.batch as usize).map(|ops| programmer.batch(ops.to_vec())).collect()
}

/// Packets on a thread of their own, until there have been enough.
async fn run_traffic(
    mut load: Load,
    mut count: Count,
    enough: impl Fn() -> bool + Send + 'static,
) -> anyhow::Result<(Load, Count)> {
    let thread = tokio::task::spawn_blocking(move || {
        load.run(Pace::Tick(TICK), enough, &mut count)?;
        Ok((load, count))
    });
    thread.await.context("the traffic's thread")?
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} spokes in {:.3} s through gRPC: {} steps, {} a batch, {} batches on their way; {} worker(s){}",
            self.spokes,
            self.seconds,
            self.steps,
            self.batch,
            self.window,
            self.workers,
            if self.huge_pages { "" } else { "; no huge pages for the data plane's packets" }
        )?;
        writeln!(f, "{:7.0} bytes of a spoke in the data plane", self.bytes_per_spoke)?;
        writeln!(
            f,
            "{:7.0} bytes of one more inbound SA; {} of them in {:.3} s",
            self.bytes_per_sa, self.spokes, self.renewal_seconds
        )?;
        let (Some(before), Some(during)) = (&self.before, &self.during) else {
            return write!(f, "no packets: no core was left for them");
        };
        writeln!(f, "{before} before the spokes came")?;
        writeln!(f, "{during} while they did, {} times", self.rounds.len())?;
        let sender = match during.sender {
            Standing::Ahead => "ahead of all others on its core (SCHED_FIFO): they do not hold it up",
            Standing::Nice => {
                "not ahead of the others on its core, for want of the right: what holds it up is in these times"
            }
            Standing::Ordinary => {
                "like any other on its core, for want of the right: what holds it up is in these times"
            }
        };
        writeln!(f, "times were taken by a thread {sender}")?;
        match self.verified {
            true => write!(f, "verified: every packet came back, opened and right"),
            false => write!(f, "WRONG: packets were lost or wrong"),
        }
    }
}
