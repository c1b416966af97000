//! Latencies: what a histogram of them says.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::report::median;

/// Longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// Nanoseconds of a microsecond.
const MICROSECOND: f64 = 1e3;

/// Times between giving packets to what is measured and having them back, counted in cycles of the time stamp counter.
#[derive(Debug)]
pub(crate) struct Latencies {
    nanoseconds: Histogram<u64>,
    per_cycle: f64,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let nanoseconds = Histogram::new_with_max(LONGEST, 3).context("a histogram")?;
        Ok(Self { nanoseconds, per_cycle: 1e9 / memory::cycles_per_second() as f64 })
    }

    /// One more.
    pub(crate) fn record(&mut self, cycles: u64) {
        self.nanoseconds.saturating_record((cycles as f64 * self.per_cycle) as u64);
    }

    /// Those of the other, too.
    pub(crate) fn add(&mut self, other: &Self) {
        // Both have the same bounds, so all fit.
        let _ = self.nanoseconds.add(&other.nanoseconds);
    }

    /// What they say.
    pub(crate) fn summary(&self) -> Latency {
        let at = |quantile| self.nanoseconds.value_at_quantile(quantile) as f64 / MICROSECOND;
        let steps = self
            .nanoseconds
            .iter_quantiles(2)
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / MICROSECOND));
        Latency {
            packets: self.nanoseconds.len(),
            mean_us: self.nanoseconds.mean() / MICROSECOND,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: self.nanoseconds.max() as f64 / MICROSECOND,
            quantiles: steps.collect(),
        }
    }
}

/// Latencies of many packets, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Latency {
    pub(crate) packets: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) max_us: f64,
    /// For a plot: shares of the packets, and what none of them exceeds.
    pub(crate) quantiles: Vec<(f64, f64)>,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_us, p99_us, p99_9_us, max_us, packets, .. } = self;
        write!(
            f,
            "p50 {p50_us:.1} µs, p99 {p99_us:.1}, p99.9 {p99_9_us:.1}, max {max_us:.1} of {packets} packets"
        )
    }
}

/// Trials at a rate.
pub(crate) const TRIALS: usize = 5;

/// A trial at a rate.
#[derive(Debug)]
pub(crate) struct Timed {
    /// Millions of packets a second that came back.
    pub(crate) mpps: f64,
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    /// By how much a packet was sent behind its time at most.
    pub(crate) late: Duration,
    pub(crate) latencies: Latencies,
}

/// Latency at a rate.
#[derive(Debug, Serialize)]
pub(crate) struct AtRate {
    /// Millions of packets a second that came back, the median of the trials, and those that were wanted.
    pub(crate) mpps: f64,
    pub(crate) wanted_mpps: f64,
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    /// By how much a packet was sent behind its time at most: the sender was kept from its core, or, where it is the worker itself, at work.
    pub(crate) sender_late_max_us: f64,
    /// All trials together, and the one with the lowest p99.9.
    #[serde(flatten)]
    pub(crate) all: Latency,
    pub(crate) best: Latency,
}

impl AtRate {
    /// Of such trials at this rate.
    ///
    /// # Errors
    /// There was none.
    pub(crate) fn new(wanted_mpps: f64, trials: &[Timed]) -> anyhow::Result<Self> {
        let mut all = Latencies::new()?;
        let mut best: Option<Latency> = None;
        for trial in trials {
            all.add(&trial.latencies);
            let summary = trial.latencies.summary();
            if best.as_ref().is_none_or(|best| summary.p99_9_us < best.p99_9_us) {
                best = Some(summary);
            }
        }
        let late = trials.iter().map(|trial| trial.late).max().unwrap_or_default();
        Ok(Self {
            mpps: median(trials.iter().map(|trial| trial.mpps)),
            wanted_mpps,
            sent: trials.iter().map(|trial| trial.sent).sum(),
            lost: trials.iter().map(|trial| trial.lost).sum(),
            sender_late_max_us: late.as_secs_f64() * 1e6,
            all: all.summary(),
            best: best.context("there were trials")?,
        })
    }
}

impl fmt::Display for AtRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "latency at {:.2} Mpps ({} lost): {}", self.mpps, self.lost, self.all)?;
        writeln!(f, "        of the best trial: {}", self.best)?;
        write!(f, "        the sender was {:.1} µs late at most", self.sender_late_max_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: a thousand latencies of 1 to 1,000 µs, in two halves. Output: the quantiles, to the three digits that are kept.
    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let a_second = memory::cycles_per_second();
        let [mut all, mut rest] = [Latencies::new().unwrap(), Latencies::new().unwrap()];
        for microsecond in 1..=1000 {
            let to = if microsecond % 2 == 0 { &mut all } else { &mut rest };
            to.record(a_second * microsecond / 1_000_000);
        }
        all.add(&rest);
        let latency = all.summary();
        let near = |is: f64, wanted: f64| assert!((is / wanted - 1.0).abs() < 0.01, "{is} {wanted}");
        near(latency.p50_us, 500.0);
        near(latency.p99_us, 990.0);
        near(latency.p99_9_us, 999.0);
        near(latency.max_us, 1000.0);
        near(latency.mean_us, 500.5);
        assert_eq!(latency.packets, 1000);
        assert!(latency.quantiles.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{latency:?}");
    }
}
