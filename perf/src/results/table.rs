//! The table of what is wanted beside what there is, as text.

use std::fmt::Write as _;

use super::targets::{SIZES, TARGETS, Target};
use super::{Run, Runs, grouped, size};

/// One cell of the table: a run, and what is wanted of it.
pub(super) struct Cell<'a> {
    pub(super) target: Option<&'static Target>,
    /// Place of its size in [`SIZES`].
    pub(super) at: usize,
    pub(super) run: Option<&'a Run>,
}

/// A row: a scenario with so many spokes.
pub(super) struct Row<'a> {
    pub(super) scenario: String,
    pub(super) spokes: u64,
    pub(super) cells: Vec<Cell<'a>>,
}

/// The rows: those of which something is wanted, then the others that there are runs of.
pub(super) fn rows(runs: &Runs) -> Vec<Row<'_>> {
    let mut keys: Vec<(String, u64)> =
        TARGETS.iter().map(|target| (target.scenario.to_owned(), target.spokes)).collect();
    for run in runs.runs.iter().filter(|run| run.is_usual() && SIZES.contains(&run.size().as_str())) {
        let key = (run.scenario.clone(), run.spokes);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let row = |(scenario, spokes): (String, u64)| {
        let target = Target::of(&scenario, spokes);
        let cell = |(at, size): (usize, &&str)| Cell { target, at, run: runs.graph(&scenario, spokes, size) };
        let cells: Vec<_> = SIZES.iter().enumerate().map(cell).collect();
        Row { scenario, spokes, cells }
    };
    keys.into_iter().map(row).filter(|row| row.cells.iter().any(|cell| cell.run.is_some())).collect()
}

impl Cell<'_> {
    /// The figure that counts: the best pass, as of the peer; beside it the median.
    pub(super) fn cycles(&self) -> Option<f64> {
        self.run.map(|run| run.cycles_per_packet_min)
    }

    /// Of what must be reached; `None`: nothing is wanted, or there is no run.
    pub(super) fn of_must(&self) -> Option<f64> {
        Some(self.cycles()? / self.target?.must[self.at])
    }

    /// Of what the peer takes.
    pub(super) fn of_peer(&self) -> Option<f64> {
        Some(self.cycles()? / self.target?.peer[self.at])
    }

    /// What is reached.
    pub(super) fn verdict(&self) -> &'static str {
        let (Some(cycles), Some(target)) = (self.cycles(), self.target) else { return "" };
        match () {
            () if cycles <= target.aim[self.at] => "aim",
            () if cycles <= target.must[self.at] => "must",
            () if cycles <= target.peer[self.at] => "ahead of peer",
            () => "behind peer",
        }
    }
}

pub(super) fn text(runs: &Runs) -> String {
    let mut out = String::new();
    let rows = rows(runs);
    if !rows.is_empty() {
        out += "Cycles of the time stamp counter per packet, one worker: best pass (median). must, aim and peer (VPP) are figures of another\n\
                machine (Zen 4, AVX-512): to compare machines take the ratios to the reference loops of the same run.\n\n";
        let _ = writeln!(
            out,
            "{:<10} {:>6} {:>5}  {:>7} {:>8}  {:>5} {:>5} {:>5}  {:>7} {:>7}  {:>9} {:>8}  reached",
            "scenario",
            "spokes",
            "size",
            "best",
            "median",
            "must",
            "aim",
            "peer",
            "of must",
            "of peer",
            "reference",
            "sealing"
        );
        rows.iter().for_each(|row| write_row(&mut out, row));
    }
    write_others(&mut out, runs);
    write_peers(&mut out, runs);
    for latency in &runs.latencies {
        let [p50, p99, p99_9, max] = latency.shown;
        let _ = writeln!(
            out,
            "latency, {}: p50 {p50:.1} µs, p99 {p99:.1}, p99.9 {p99_9:.1}, max {max:.1}",
            latency.of
        );
    }
    if runs.runs.iter().any(|run| !run.huge_pages) {
        out += "\nSome runs had no huge pages: packets on pages of 4 KiB cost about as much again.\n";
    }
    for run in runs.runs.iter().filter(|run| !run.verified) {
        let _ = writeln!(out, "WRONG: {}", run.name());
    }
    out
}

fn write_row(out: &mut String, row: &Row<'_>) {
    for (cell, size) in row.cells.iter().zip(SIZES) {
        let Some(run) = cell.run else { continue };
        let wanted = |of: fn(&Target) -> [f64; 3]| {
            cell.target.map_or(String::new(), |target| format!("{:.0}", of(target)[cell.at]))
        };
        let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            out,
            "{:<10} {:>6} {:>5}  {:>7.1} {:>8}  {:>5} {:>5} {:>5}  {:>7} {:>7}  {:>9.2} {:>8}  {}",
            row.scenario,
            grouped(row.spokes),
            size,
            run.cycles_per_packet_min,
            format!("({:.1})", run.cycles_per_packet),
            wanted(|target| target.must),
            wanted(|target| target.aim),
            wanted(|target| target.peer),
            ratio(cell.of_must()),
            ratio(cell.of_peer()),
            run.reference_ratio,
            run.sealing_reference_ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
            cell.verdict(),
        );
    }
}

/// Runs that are no rows of the table.
fn write_others(out: &mut String, runs: &Runs) {
    let mut first = true;
    for run in &runs.runs {
        if run.is_usual() && SIZES.contains(&run.size().as_str()) {
            continue;
        }
        if std::mem::take(&mut first) {
            out.push_str("\nOthers: best pass (median), ratio to the reference loop, all workers together\n");
        }
        let _ = writeln!(
            out,
            "{:<64} {:>7.1} {:>8} {:>6.2} {:>7.2} Mpps {:>7.2} Gb/s",
            run.name(),
            run.cycles_per_packet_min,
            format!("({:.1})", run.cycles_per_packet),
            run.reference_ratio,
            run.mpps,
            run.gbps
        );
        for (reason, count) in &run.drops {
            let _ = writeln!(out, "    {count} dropped: {reason}");
        }
    }
}

fn write_peers(out: &mut String, runs: &Runs) {
    if runs.peers.is_empty() {
        return;
    }
    out.push_str("\nOther people's programs on this machine: cycles per packet without their ports (with), and ours over theirs\n");
    for peer in &runs.peers {
        let (with, size) = (peer.cycles_per_packet, size(&peer.size));
        let net = with - peer.port_cycles_per_packet;
        let spokes = if peer.scenario == "ipv4" { 1000 } else { 1 };
        let ours = runs.graph(&peer.scenario, spokes, &size).map(|run| run.cycles_per_packet_min / net);
        let _ = writeln!(
            out,
            "{:<16} {:<8} {:>5}  {net:>7.1} {:>9}  {:>5}  {}",
            peer.peer,
            peer.scenario,
            size,
            format!("({with:.1})"),
            ours.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            peer.setup
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn verdict(cycles: f64) -> &'static str {
        let mut runs = Runs::default();
        runs.add(&line("relay", 10_000, "354", cycles + 5.0)).unwrap();
        let rows = rows(&runs);
        let [row] = &rows[..] else { panic!("one row") };
        assert!(row.cells[0].run.is_none() && row.cells[2].verdict().is_empty());
        row.cells[1].verdict()
    }

    #[test]
    fn a_figure_is_compared_with_what_is_wanted_of_its_scenario_spokes_and_size() {
        assert_eq!(
            [520.0, 521.0, 700.0, 701.0, 2355.0, 2356.0].map(verdict),
            ["aim", "must", "must", "ahead of peer", "ahead of peer", "behind peer"]
        );
    }

    #[test]
    fn the_table_has_our_figures_the_wanted_ones_and_the_ratios() {
        let mut runs = Runs::default();
        runs.add(&line("relay", 1000, "1400", 2105.0)).unwrap();
        runs.add(&line("decap", 1000, "64", 90.0)).unwrap();
        runs.add(&line("relay", 10_000, "imix", 900.0)).unwrap();
        runs.add(r#"{"peer": "ipsec-secgw", "scenario": "encrypt", "size": 64, "cycles_per_packet": 300, "port_cycles_per_packet": 40}"#)
            .unwrap();
        let text = text(&runs);
        let row = |start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(
            row("relay "),
            [
                "relay", "1,000", "1400", "2100.0", "(2105.0)", "1050", "900", "1298", "2.00", "1.62",
                "0.70", "0.050", "behind", "peer"
            ]
        );
        assert_eq!(row("decap "), ["decap", "1,000", "64", "85.0", "(90.0)", "0.70", "0.050"]);
        assert_eq!(row("relay imix")[4..6], ["895.0", "(900.0)"]);
        assert_eq!(row("ipsec-secgw")[3..], ["260.0", "(300.0)"]);
        assert!(!text.contains("WRONG") && !text.contains("huge pages"));
    }
}
