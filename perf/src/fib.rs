//! `nave-perf fib`: what a look-up costs, and what a route does, in our table and in DPDK's, side by side.

mod report;
mod tables;

use anyhow::{Context as _, ensure};
use clap::{ValueEnum, value_parser};
use dpdk::Eal;
use dpdk::lpm::{MOST_HOP, Room, heap_bytes};
use memory::cycles;

use crate::fib::report::Report;
use crate::fib::tables::{Lookup, Mode, Nave, Probes, RteFib, RteFib6, RteLpm, RteLpm6, Which};
use crate::intervals::{Intervals, scan};
use crate::machine::{cores, start_dpdk};
use crate::mix::{IPV4, IPV6, Mix, Route, groups, groups_apart, probe};
use crate::reference::{Random, Reference};
use crate::width::Width;

/// Look-ups of one run over a table, each of an address of its own.
const LOOKUPS: usize = 16_384;
/// Routes that are removed from a full table and put back.
const CHURNED: usize = 1000;
/// Seed of the routes.
const SEED: u64 = 0x6e61_7665;
/// Looks at a route that all linear scans of a table may take together.
const SCANNED: usize = 1 << 28;

/// Command line of `nave-perf fib`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address families; both if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    family: Vec<Family>,
    /// Numbers of routes, from few to many; if not given 10, 1,000 and 1,000,000 (IPv6: 200,000), as in a public table
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u32).range(1..=i64::from(MOST_HOP)))]
    routes: Vec<u32>,
    /// Whose tables; all if not given (a million routes in an rte_lpm take two minutes)
    #[arg(long, value_enum, value_delimiter = ',')]
    tables: Vec<Which>,
    /// Runs of 16,384 look-ups in each way over each table
    #[arg(long, default_value_t = 33, value_parser = value_parser!(u32).range(1..))]
    passes: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// An address family, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Family {
    Ipv4,
    Ipv6,
}

/// Runs it; whether every answer was right.
///
/// # Errors
/// What keeps it from running, in one sentence.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let core = cores(1)?[0];
    ensure!(core_affinity::set_for_current(core), "cannot be pinned to core {}", core.id);
    let or = |given: &[_], default: &[_]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
    let families = or_all(&args.family);
    let whose = or_all(&args.tables);
    let plans: Vec<Plan> = families
        .iter()
        .map(|family| match family {
            Family::Ipv4 => Plan { family: *family, sizes: or(&args.routes, &[10, 1000, 1_000_000]) },
            Family::Ipv6 => Plan { family: *family, sizes: or(&args.routes, &[10, 1000, 200_000]) },
        })
        .collect();
    let megabytes = plans.iter().map(Plan::megabytes).max().context("no family")?;
    let (eal, huge_pages) = start_dpdk(megabytes, Vec::new())?;
    let mut report = Report::new(args.passes, LOOKUPS, huge_pages);
    for plan in &plans {
        let measured = match plan.family {
            Family::Ipv4 => measure::<u32>(&eal, &plan.sizes, &whose, args.passes, &mut report),
            Family::Ipv6 => measure::<u128>(&eal, &plan.sizes, &whose, args.passes, &mut report),
        };
        if let Err(error) = measured {
            report.wrong(&error);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// What was given, or all there is; each once.
fn or_all<T: ValueEnum + PartialEq>(given: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().filter(|value| given.is_empty() || given.contains(value));
    all.cloned().collect()
}

struct Plan {
    family: Family,
    /// Numbers of routes.
    sizes: Vec<u32>,
}

impl Plan {
    /// Memory of DPDK's tables, in mebibytes: of each two the first array, and for each route its groups or their share, two nodes of a
    /// tree with the headers of a mempool's objects, and an entry of a hash table.
    fn megabytes(&self) -> u32 {
        let (first, route) = match self.family {
            Family::Ipv4 => (2 * 65, 450),
            Family::Ipv6 => (2 * 65, 4_400),
        };
        let routes = |count: &u32| ((u64::from(*count) * route) >> 20) as u32;
        64 + self.sizes.iter().map(|count| first + routes(count) + 8).sum::<u32>()
    }
}

/// What differs between the families.
trait Families: Width {
    const NAME: &'static str;
    const MIX: &'static Mix;

    /// An empty table of DPDK's, or ours.
    fn table(which: Which, eal: &Eal, room: &Room<'_>) -> anyhow::Result<Box<dyn Lookup<Self>>>;
}

impl Families for u32 {
    const NAME: &'static str = "ipv4";
    const MIX: &'static Mix = &IPV4;

    fn table(which: Which, eal: &Eal, room: &Room<'_>) -> anyhow::Result<Box<dyn Lookup<Self>>> {
        Ok(match which {
            Which::Nave => Box::new(Nave::new(room.groups)?),
            Which::RteLpm => Box::new(RteLpm::new(eal, room)?),
            Which::RteFib => Box::new(RteFib::new(eal, room)?),
        })
    }
}

impl Families for u128 {
    const NAME: &'static str = "ipv6";
    const MIX: &'static Mix = &IPV6;

    fn table(which: Which, eal: &Eal, room: &Room<'_>) -> anyhow::Result<Box<dyn Lookup<Self>>> {
        Ok(match which {
            Which::Nave => Box::new(Nave::new(room.groups)?),
            Which::RteLpm => Box::new(RteLpm6::new(eal, room)?),
            Which::RteFib => Box::new(RteFib6::new(eal, room)?),
        })
    }
}

/// Some routes, and every table with them.
struct Set<A: Width> {
    routes: Vec<Route<A>>,
    oracle: Intervals<A>,
    tables: Vec<Filled<A>>,
}

/// A table, and what it cost.
struct Filled<A: Width> {
    which: Which,
    table: Box<dyn Lookup<A>>,
    /// Bytes.
    memory: usize,
    /// Cycles a route: adding all of them in random order, removing some of the full table, putting those back.
    insert: f64,
    delete: f64,
    put_back: f64,
    /// Cycles a look-up, of each run in each mode.
    runs: [Vec<f64>; Mode::ALL.len()],
}

/// Measures one family; what it finds goes to the report.
fn measure<A: Families>(
    eal: &Eal,
    sizes: &[u32],
    whose: &[Which],
    passes: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut random = Random(SEED + 1);
    let mut sets = Vec::new();
    for count in sizes {
        sets.push(Set::<A>::fill(eal, *count, whose, &mut random)?);
    }
    let (mut reference, mut rounds) = (Reference::new()?, Vec::new());
    // The first pass warms up.
    for pass in 0..=passes as usize {
        for set in &mut sets {
            set.pass(pass, &mut random)?;
        }
        if pass > 0 {
            rounds.push(reference.measure(LOOKUPS));
        }
    }
    report.add(A::NAME, &sets, &rounds);
    Ok(())
}

impl<A: Families> Set<A> {
    /// Makes the routes and fills a table of each kind with them, checks all, churns all, checks all again.
    fn fill(eal: &Eal, count: u32, whose: &[Which], random: &mut Random) -> anyhow::Result<Self> {
        let routes: Vec<Route<A>> = A::MIX.routes(count, SEED);
        let oracle = Intervals::of(&routes);
        let name = format!("{}-{count}", A::NAME);
        let (together, apart) = (groups(&routes), groups_apart(&routes));
        let mut set = Self { routes, oracle, tables: Vec::new() };
        for which in whose {
            let what = || format!("{which:?} of {count} {} routes", A::NAME);
            // rte_fib6 reserves groups for each route as if others shared none with it, and keeps them when the route goes.
            let groups = if *which == Which::RteFib { apart + 3 * CHURNED as u32 } else { together } + 256;
            let room = Room { name: &name, routes: count, groups };
            set.tables.push(set.filled(*which, eal, &room).with_context(what)?);
        }
        let sample = set.sample(random);
        for addr in sample.iter().take((SCANNED / set.routes.len()).max(16)) {
            ensure!(set.oracle.lookup(*addr) == scan(&set.routes, *addr), "the oracle is wrong of {addr:x?}");
        }
        set.check_whole(&sample)?;
        set.churn(&sample).with_context(|| format!("{count} {} routes", A::NAME))?;
        Ok(set)
    }

    fn filled(&self, which: Which, eal: &Eal, room: &Room<'_>) -> anyhow::Result<Filled<A>> {
        let before = heap_bytes(eal);
        let mut table = A::table(which, eal, room)?;
        let begun = cycles();
        for route in &self.routes {
            table.put(route)?;
        }
        let insert = (cycles() - begun) as f64 / self.routes.len() as f64;
        let memory = table.memory(heap_bytes(eal).saturating_sub(before));
        let runs = Default::default();
        Ok(Filled { which, table, memory, insert, delete: f64::NAN, put_back: f64::NAN, runs })
    }

    /// Addresses in prefixes, and at and beside the edges of some.
    fn sample(&self, random: &mut Random) -> Vec<A> {
        let mut sample: Vec<A> = (0..LOOKUPS).map(|_| probe(&self.routes, random)).collect();
        for route in self.routes.iter().take(CHURNED) {
            sample.extend([route.first, route.first.previous(), route.last()]);
            sample.extend(route.last().next());
        }
        sample
    }

    /// Looks the addresses up in every table and in every way.
    fn check(&mut self, sample: &[A], oracle: &Intervals<A>) -> anyhow::Result<()> {
        let probes = Probes::new(sample.to_vec());
        for filled in &mut self.tables {
            for mode in Mode::ALL {
                if filled.table.run(mode, &probes) {
                    filled.verify(&probes, oracle, mode)?;
                }
            }
        }
        Ok(())
    }

    /// Removes routes from the full tables, which then have to be right without them, and puts them back.
    fn churn(&mut self, sample: &[A]) -> anyhow::Result<()> {
        let churned = CHURNED.min(self.routes.len());
        let (gone, stay) = self.routes.split_at(churned);
        let without = Intervals::of(stay);
        let gone = gone.to_vec();
        for filled in &mut self.tables {
            let begun = cycles();
            for route in &gone {
                filled.table.remove(route).with_context(|| format!("{:?}", filled.which))?;
            }
            filled.delete = (cycles() - begun) as f64 / churned as f64;
            filled.table.settle();
        }
        self.check(sample, &without)?;
        for filled in &mut self.tables {
            let begun = cycles();
            for route in &gone {
                filled.table.put(route).with_context(|| format!("{:?}", filled.which))?;
            }
            filled.put_back = (cycles() - begun) as f64 / churned as f64;
        }
        self.check_whole(sample)
    }

    /// [`Set::check`] with all routes.
    fn check_whole(&mut self, sample: &[A]) -> anyhow::Result<()> {
        let oracle = std::mem::take(&mut self.oracle);
        let checked = self.check(sample, &oracle);
        self.oracle = oracle;
        checked
    }

    /// One run of each mode over each table; the table that begins is another one each time.
    fn pass(&mut self, pass: usize, random: &mut Random) -> anyhow::Result<()> {
        for (at, mode) in Mode::ALL.into_iter().enumerate() {
            for turn in 0..self.tables.len() {
                // What was looked up for one table or in one way has been seen: new addresses.
                let probes = Probes::new((0..LOOKUPS).map(|_| probe(&self.routes, random)).collect());
                let which = (pass + turn) % self.tables.len();
                let filled = &mut self.tables[which];
                let begun = cycles();
                let ran = filled.table.run(mode, &probes);
                let spent = cycles() - begun;
                if ran {
                    filled.verify(&probes, &self.oracle, mode)?;
                }
                if ran && pass > 0 {
                    filled.runs[at].push(spent as f64 / LOOKUPS as f64);
                }
            }
        }
        Ok(())
    }
}

impl<A: Width> Filled<A> {
    /// Compares every answer of the last run with the oracle's.
    fn verify(&self, probes: &Probes<A>, oracle: &Intervals<A>, mode: Mode) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        self.table.answers(&mut answers);
        ensure!(answers.len() == probes.addrs.len(), "{:?} left answers out", self.which);
        for (addr, answer) in probes.addrs.iter().zip(answers) {
            let wanted = oracle.lookup(*addr);
            ensure!(
                answer == wanted,
                "{:?}, {}: {addr:x?} leads to {answer}, not {wanted}",
                self.which,
                mode.name()
            );
        }
        Ok(())
    }
}
