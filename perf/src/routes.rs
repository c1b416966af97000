//! `nave-perf routes`: a real data plane gets a public table's routes through gRPC; then routes change while packets run.
//!
//! ```text
//!                       ┌──────── nave-dataplane ────────┐
//!   traffic ── memif ── lan ── look-up ── one of 16 ── wan ── memif ── traffic
//!   thread              └─────────────── gRPC ───────────┘             thread
//!                                         │
//!                           batches of routes, acks
//! ```

mod plan;
mod traffic;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::value_parser;
use model::program::Op;
use serde::Serialize;
use tokio::time::interval;

use crate::intervals::Intervals;
use crate::machine::resident;
use crate::mix::{IPV4, Route};
use crate::process::{Dataplane, Folder, Setup};
use crate::programmer::Programmer;
use crate::routes::plan::{HOPS, Plan};
use crate::routes::traffic::{Counted, Load, Traffic};

/// Ports of the data plane.
const PORTS: [&str; 2] = ["lan", "wan"];
/// Seed of the routes.
const SEED: u64 = 0x6e61_7665;
/// Batches of churn a second.
const TICKS: u32 = 100;
/// Traffic before the churn: every packet finds one of the routes that were programmed.
const BEFORE: Duration = Duration::from_secs(1);

/// Command line of `nave-perf routes`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Routes, as in a public IPv4 table
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u32).range(1000..=2_000_000))]
    routes: u32,
    /// Routes of a batch
    #[arg(long, default_value_t = 4096, value_parser = value_parser!(u32).range(1..=16_384))]
    batch: u32,
    /// Batches on their way that have not been acknowledged
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=64))]
    window: u32,
    /// Routes that are removed each second while packets run, each put back 10 ms later
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(100..=100_000))]
    churn: u32,
    /// Seconds of that
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=3600))]
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
    routes: u32,
    batch: u32,
    window: u32,
    /// From the first batch to the last acknowledgement.
    seconds: f64,
    /// Growth of the data plane's memory by that, in bytes: all that is in RAM, and its share of what it has in common with others.
    rss_growth: u64,
    pss_growth: u64,
    /// And all of it then.
    rss: u64,
    /// Routes that were removed and put back, and in how many seconds.
    churned: u64,
    churn_seconds: f64,
    /// Longest time that a batch of churn waited for its acknowledgement, in seconds.
    churn_ack_max: f64,
    /// Packets before the churn, and during it.
    before: Counted,
    during: Counted,
    /// Whether every packet came back, by a next hop that its address had at that time.
    verified: bool,
    /// Whether the data plane's packet buffers are in huge pages.
    huge_pages: bool,
}

/// Runs it; whether no packet was lost or misled.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let routes: Vec<Route<u32>> = IPV4.routes(args.routes, SEED);
    let folder = Folder::new()?;
    let dataplane = Dataplane::start(args.dataplane.as_deref(), &folder, &Setup::memif(&PORTS)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(args, routes, &dataplane))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

async fn measure(args: &Args, routes: Vec<Route<u32>>, dataplane: &Dataplane) -> anyhow::Result<Report> {
    let plan = Plan::new()?;
    let mut programmer = Programmer::connect(dataplane.socket.clone()).await?;
    let base = programmer.batch(plan.base()?);
    programmer.apply([base].into(), 1).await?;
    let traffic = Traffic::connect(programmer.mac(PORTS[0])?)?;
    let puts: Vec<Op> = routes.iter().map(|route| plan.put(route)).collect();
    let batches = puts.chunks(args.batch as usize).map(|ops| programmer.batch(ops.to_vec())).collect();
    drop(puts);

    let empty = resident(&dataplane.process.number())?;
    let begun = Instant::now();
    programmer.apply(batches, args.window as usize).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let full = resident(&dataplane.process.number())?;

    let churned = apart(&routes, args.churn as usize);
    let load = Arc::new(load(routes, churned));
    let (traffic, before) = run_traffic(traffic, &load, false, until(Instant::now() + BEFORE)).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let running = tokio::spawn({
        let load = Arc::clone(&load);
        async move { run_traffic(traffic, &load, true, move || stopped.load(Ordering::Relaxed)).await }
    });
    let changed = churn(&mut programmer, &plan, &load.churned, args).await;
    stop.store(true, Ordering::Relaxed);
    let (_, during) = running.await.context("the traffic's task")??;
    let changed = changed?;
    Ok(Report {
        routes: args.routes,
        batch: args.batch,
        window: args.window,
        seconds,
        rss_growth: full.rss.saturating_sub(empty.rss),
        pss_growth: full.pss.saturating_sub(empty.pss),
        rss: full.rss,
        churned: changed.routes,
        churn_seconds: changed.seconds,
        churn_ack_max: changed.ack_max,
        verified: before.all_right() && during.all_right(),
        before,
        during,
        huge_pages: dataplane.huge_pages,
    })
}

fn until(end: Instant) -> impl Fn() -> bool + Send + 'static {
    move || Instant::now() >= end
}

/// Packets on a thread of their own, until there have been enough.
async fn run_traffic(
    mut traffic: Traffic,
    load: &Arc<Load>,
    churning: bool,
    enough: impl Fn() -> bool + Send + 'static,
) -> anyhow::Result<(Traffic, Counted)> {
    let load = Arc::clone(load);
    let thread = tokio::task::spawn_blocking(move || {
        let counted = traffic.run(&load, churning, enough)?;
        Ok((traffic, counted))
    });
    thread.await.context("the traffic's thread")?
}

/// What the traffic has to know: where each address leads with all routes, and without those that come and go.
fn load(routes: Vec<Route<u32>>, churned: Vec<Route<u32>>) -> Load {
    // Under all others is the default route.
    let under = Route { first: 0, len: 0, word: HOPS };
    let gone: HashSet<u32> = churned.iter().map(|route| route.word).collect();
    let with = Intervals::of(routes.iter().chain([&under]));
    let stay = routes.iter().filter(|route| !gone.contains(&route.word));
    let without = Intervals::of(stay.chain([&under]));
    Load { routes, churned, with, without }
}

/// The first `count` routes (or fewer) of which none lies in another one: an address is in one of them at most.
fn apart(routes: &[Route<u32>], count: usize) -> Vec<Route<u32>> {
    let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
    let mut apart = Vec::with_capacity(count);
    for route in routes {
        let meets = taken.range(..=route.last()).next_back().is_some_and(|(_, last)| *last >= route.first);
        if !meets && apart.len() < count {
            taken.insert(route.first, route.last());
            apart.push(*route);
        }
    }
    apart
}

/// What the churn was.
struct Changed {
    routes: u64,
    seconds: f64,
    ack_max: f64,
}

/// A hundred batches a second: each removes some routes and puts back those that the one before removed.
async fn churn(
    programmer: &mut Programmer,
    plan: &Plan,
    churned: &[Route<u32>],
    args: &Args,
) -> anyhow::Result<Changed> {
    let each = (args.churn / TICKS) as usize;
    let mut ticks = interval(Duration::from_secs(1) / TICKS);
    let (begun, mut ack_max, mut routes) = (Instant::now(), 0.0_f64, 0);
    let mut gone: Vec<Route<u32>> = Vec::new();
    let mut next = churned.iter().cycle();
    for left in (0..=args.seconds * TICKS).rev() {
        ticks.tick().await;
        let mut ops: Vec<Op> = gone.iter().map(|route| plan.put(route)).collect();
        routes += gone.len() as u64;
        // The last batch only puts back.
        gone = next.by_ref().take(if left == 0 { 0 } else { each }).copied().collect();
        ops.extend(gone.iter().map(|route| plan.remove(route)));
        let batch = programmer.batch(ops);
        let sent = Instant::now();
        programmer.apply([batch].into(), 1).await?;
        ack_max = ack_max.max(sent.elapsed().as_secs_f64());
    }
    Ok(Changed { routes, seconds: begun.elapsed().as_secs_f64(), ack_max })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        writeln!(
            f,
            "{} routes in {:.2} s through gRPC, {} a batch, {} batches on their way{}",
            self.routes,
            self.seconds,
            self.batch,
            self.window,
            if self.huge_pages { "" } else { "; no huge pages for the data plane's packets" }
        )?;
        writeln!(
            f,
            "{:7.1} MB more in the data plane (its share: {:.1} MB), {:.1} MB in all",
            mb(self.rss_growth),
            mb(self.pss_growth),
            mb(self.rss)
        )?;
        writeln!(f, "{} before the churn", self.before)?;
        writeln!(f, "{} during the churn", self.during)?;
        writeln!(
            f,
            "{:7} routes removed and put back in {:.1} s; a batch was acknowledged after at most {:.1} ms",
            self.churned,
            self.churn_seconds,
            self.churn_ack_max * 1e3
        )?;
        match self.verified {
            true => write!(f, "verified: every packet came back, by a next hop of its address"),
            false => write!(f, "WRONG: packets were lost or misled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn churned_routes_do_not_meet() {
        let routes: Vec<Route<u32>> = IPV4.routes(5000, 1);
        let churned = apart(&routes, 1000);
        assert_eq!(churned.len(), 1000);
        for (at, one) in churned.iter().enumerate() {
            for other in &churned[at + 1..] {
                assert!(one.last() < other.first || other.last() < one.first, "{one:?} {other:?}");
            }
        }
        let load = load(routes, churned);
        let route = load.churned[0];
        assert_eq!(load.with.lookup(route.first), crate::intervals::scan(&load.routes, route.first));
        assert_ne!(load.without.lookup(route.first), route.word);
    }
}
