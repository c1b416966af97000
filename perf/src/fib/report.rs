//! What a run of `nave-perf fib` says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::tables::{Mode, Which};
use super::{Filled, Set};
use crate::report::median;
use crate::width::Width;

/// One run. Cycles are those of the time stamp counter.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Every table that was measured.
    tables: Vec<Line>,
    /// Cycles of one round of the reference loop, by family.
    reference_cycles: BTreeMap<&'static str, f64>,
    /// Whether every answer of every table was that of the oracle.
    pub(crate) verified: bool,
    /// What was not, or what kept a table from being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
    /// Runs that the medians are of, and look-ups of each.
    passes: u32,
    lookups_per_pass: usize,
    /// Rate of the time stamp counter per second.
    cycles_per_second: u64,
    /// Whether DPDK's memory is in huge pages.
    huge_pages: bool,
}

/// One table with so many routes.
#[derive(Debug, Serialize)]
struct Line {
    family: &'static str,
    routes: usize,
    table: &'static str,
    /// Of the table with its routes.
    memory_bytes: usize,
    /// Cycles a route, of all of them in random order into the empty table; and seconds of all.
    insert_cycles: f64,
    insert_seconds: f64,
    /// Cycles a route, of a thousand that are removed from the full table, and of the same put back.
    delete_cycles: f64,
    put_back_cycles: f64,
    /// Cycles a look-up by way of looking up: the median of the runs.
    cycles: BTreeMap<&'static str, f64>,
    /// The same of the best run.
    cycles_min: BTreeMap<&'static str, f64>,
    /// How many more than with the fewest routes.
    over_fewest: BTreeMap<&'static str, f64>,
    /// Cycles a look-up over those of the reference loop behind the same pass; the median.
    reference_ratio: BTreeMap<&'static str, f64>,
}

impl Report {
    pub(crate) fn new(passes: u32, lookups_per_pass: usize, huge_pages: bool) -> Self {
        Self {
            tables: Vec::new(),
            reference_cycles: BTreeMap::new(),
            verified: true,
            wrong: None,
            passes,
            lookups_per_pass,
            cycles_per_second: memory::cycles_per_second(),
            huge_pages,
        }
    }

    pub(crate) fn wrong(&mut self, error: &anyhow::Error) {
        self.verified = false;
        self.wrong.get_or_insert_with(|| format!("{error:#}"));
    }

    /// Adds what was measured of one family, tables with the fewest routes first; `rounds` are the reference loops.
    pub(super) fn add<A: Width>(&mut self, family: &'static str, sets: &[Set<A>], rounds: &[f64]) {
        self.reference_cycles.insert(family, median(rounds.iter().copied()));
        for set in sets {
            for filled in &set.tables {
                let fewest = sets.first().and_then(|set| set.tables.iter().find(|f| f.which == filled.which));
                let (rate, routes) = (self.cycles_per_second as f64, set.routes.len());
                self.tables.push(Line {
                    family,
                    routes,
                    table: name(filled.which, family),
                    memory_bytes: filled.memory,
                    insert_cycles: filled.insert,
                    insert_seconds: filled.insert * routes as f64 / rate,
                    delete_cycles: filled.delete,
                    put_back_cycles: filled.put_back,
                    cycles: filled.by_mode(|_, runs| median(runs.iter().copied())),
                    cycles_min: filled.by_mode(|_, runs| runs.iter().copied().fold(f64::INFINITY, f64::min)),
                    over_fewest: filled.by_mode(|at, runs| {
                        let few = fewest.map_or(f64::NAN, |fewest| median(fewest.runs[at].iter().copied()));
                        median(runs.iter().copied()) - few
                    }),
                    reference_ratio: filled
                        .by_mode(|_, runs| median(runs.iter().zip(rounds).map(|(run, round)| run / round))),
                });
            }
        }
    }
}

fn name(which: Which, family: &str) -> &'static str {
    match (which, family) {
        (Which::Nave, _) => "nave",
        (Which::RteLpm, "ipv4") => "rte_lpm",
        (Which::RteLpm, _) => "rte_lpm6",
        (Which::RteFib, "ipv4") => "rte_fib",
        (Which::RteFib, _) => "rte_fib6",
    }
}

impl<A: Width> Filled<A> {
    /// A figure of the runs of each mode that there were any of.
    fn by_mode(&self, figure: impl Fn(usize, &[f64]) -> f64) -> BTreeMap<&'static str, f64> {
        let modes = Mode::ALL.iter().zip(&self.runs).enumerate();
        let ran = modes.filter(|(_, (_, runs))| !runs.is_empty());
        ran.map(|(at, (mode, runs))| (mode.name(), figure(at, runs))).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "cycles a look-up, uniform over all prefixes: medians of {} runs of {}{}",
            self.passes,
            self.lookups_per_pass,
            if self.huge_pages { "" } else { "; no huge pages for DPDK's tables" }
        )?;
        write!(f, "{:>6} {:>8} {:9}", "family", "routes", "table")?;
        for mode in Mode::ALL {
            write!(f, " {:>9}", mode.name())?;
        }
        writeln!(f, " {:>9} {:>9} {:>9} {:>9} {:>8}", "insert", "delete", "put back", "fill", "memory")?;
        for line in &self.tables {
            write!(f, "{:>6} {:>8} {:9}", line.family, line.routes, line.table)?;
            for mode in Mode::ALL {
                match line.cycles.get(mode.name()) {
                    Some(cycles) => write!(f, " {cycles:9.1}")?,
                    None => write!(f, " {:>9}", "-")?,
                }
            }
            writeln!(
                f,
                " {:9.0} {:9.0} {:9.0} {:7.2} s {:5.1} MB",
                line.insert_cycles,
                line.delete_cycles,
                line.put_back_cycles,
                line.insert_seconds,
                line.memory_bytes as f64 / 1e6
            )?;
        }
        for line in self.tables.iter().filter(|line| line.over_fewest.values().any(|more| *more != 0.0)) {
            write!(f, "{:>6} {:>8} {:9}", line.family, line.routes, line.table)?;
            for mode in Mode::ALL {
                match line.over_fewest.get(mode.name()) {
                    Some(more) => write!(f, " {more:+9.1}")?,
                    None => write!(f, " {:>9}", "-")?,
                }
            }
            writeln!(f, " more than with the fewest routes")?;
        }
        for (family, cycles) in &self.reference_cycles {
            writeln!(f, "{family:>6} reference loop {cycles:.1}")?;
        }
        match &self.wrong {
            None => write!(f, "verified: every answer of every table"),
            Some(wrong) => write!(f, "WRONG: {wrong}"),
        }
    }
}
