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
use crate::load::{Counted, Load, Pace, Turn};
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
    /// Steps of all batches.
    steps: usize,
    /// From the first batch to the last acknowledgement: then every worker has its SAs.
    seconds: f64,
    /// The same for one more inbound SA of each spoke.
    renewal_seconds: f64,
    /// Growth of the data plane's memory in RAM by a spoke, and by one more inbound SA of it, in bytes.
    bytes_per_spoke: f64,
    bytes_per_sa: f64,
    /// Packets before the spokes came, and while they did; nothing if there was no core for them.
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
    let there = batches(&mut programmer, args, base)?;
    programmer.apply(there, 1).await?;
    let there = spokes(&scenario, args, 0..THERE)?;
    let there = batches(&mut programmer, args, there)?;
    programmer.apply(there, 1).await?;
    let esp = scenario.esp.context("a protected tunnel")?;

    let mut traffic = None;
    let mut before = None;
    if has_traffic {
        let (connected, turns) = Load::connect(&scenario, args.workers, None)?;
        for spoke in 0..THERE {
            let child = Child { spoke, life: 0 };
            turns.send(Turn::Opens(child, End::of_child(&esp, Direction::Outbound, child)?))?;
            turns.send(Turn::Comes(spoke))?;
        }
        let end = Instant::now() + Duration::from_secs(args.seconds.into());
        let (connected, counted) = run_traffic(connected, move || Instant::now() >= end).await?;
        (traffic, before) = (Some(connected), Some(counted));
    }
    let new = spokes(&scenario, args, THERE..THERE + args.spokes)?;
    let steps = new.len();
    let new = batches(&mut programmer, args, new)?;

    let number = dataplane.process.number();
    let empty = resident(&number)?.rss;
    let stop = Arc::new(AtomicBool::new(false));
    let running = traffic.map(|traffic| {
        let stop = Arc::clone(&stop);
        tokio::spawn(run_traffic(traffic, move || stop.load(Ordering::Relaxed)))
    });
    let begun = Instant::now();
    let applied = programmer.apply(new, args.window as usize).await;
    let seconds = begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let during = match running {
        Some(running) => Some(running.await.context("the traffic's task")??.1),
        None => None,
    };
    applied?;
    tokio::time::sleep(SETTLE).await;
    let full = resident(&number)?.rss;

    let renewals = batches(&mut programmer, args, renewals(&scenario, args)?)?;
    let begun = Instant::now();
    programmer.apply(renewals, args.window as usize).await?;
    let renewal_seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let renewed = resident(&number)?.rss;
    programmer.close().await;

    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / f64::from(args.spokes);
    let verified = [&before, &during].into_iter().flatten().all(Counted::all_right);
    Ok(Report {
        spokes: args.spokes,
        workers: args.workers,
        batch: args.batch,
        window: args.window,
        steps,
        seconds,
        renewal_seconds,
        bytes_per_spoke: each(full, empty),
        bytes_per_sa: each(renewed, full),
        verified,
        before,
        during,
        huge_pages: dataplane.huge_pages,
    })
}

/// Spokes of these numbers, complete.
fn spokes(scenario: &Scenario, args: &Args, numbers: Range<u32>) -> anyhow::Result<Vec<Object>> {
    let esp = scenario.esp.context("a protected tunnel")?;
    let mut objects = Vec::new();
    for spoke in numbers {
        let child = Child { spoke, life: 0 };
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

/// One more inbound SA of each spoke that came, as there is one beside that of before while it is renewed.
fn renewals(scenario: &Scenario, args: &Args) -> anyhow::Result<Vec<Object>> {
    let esp = scenario.esp.context("a protected tunnel")?;
    let children = (THERE..THERE + args.spokes).map(|spoke| Child { spoke, life: 1 });
    children.map(|child| esp.child_sa(Direction::Inbound, scenario.outer, child)).collect()
}

/// Objects in batches.
fn batches(
    programmer: &mut Programmer,
    args: &Args,
    objects: Vec<Object>,
) -> anyhow::Result<VecDeque<Batch>> {
    let ops: Vec<Op> = objects.into_iter().map(|object| Op::Put(owner(&object), object)).collect();
    Ok(ops.chunks(args.batch as usize).map(|ops| programmer.batch(ops.to_vec())).collect())
}

/// Packets on a thread of their own, until there have been enough.
async fn run_traffic(
    mut traffic: Load,
    enough: impl Fn() -> bool + Send + 'static,
) -> anyhow::Result<(Load, Counted)> {
    let thread = tokio::task::spawn_blocking(move || {
        let counted = traffic.run(Pace::Tick(TICK), enough)?;
        Ok((traffic, counted))
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
        writeln!(f, "{during} while they did")?;
        match self.verified {
            true => write!(f, "verified: every packet came back, opened and right"),
            false => write!(f, "WRONG: packets were lost or wrong"),
        }
    }
}
