//! `nave-perf gate`: how many instructions a packet takes in each scenario, counted by callgrind, beside the committed numbers.
//!
//! Cycles differ from minute to minute on a shared machine; instructions do not. Each scenario is run by `nave-perf counted` under
//! `valgrind --tool=callgrind`, which counts what is called in [`Lane::run_counted`](crate::lane::Lane::run_counted): two passes over the
//! same packets as those of `graph`, the first to warm up, with a clock that goes on by so much a breath, without huge pages. What is
//! sealed and opened by the portable provider is not counted: valgrind knows none of the instructions of our kernels.
//!
//! The numbers are the same each time and on each machine with the same compiler, libdpdk and C library. So a change of more than
//! [`TOLERANCE`] in a scenario, up or down, is a change of the code, and is said with the functions that it is in. It is accepted with a reason,
//! which stands beside the numbers.

pub(crate) mod callgrind;
pub(crate) mod counted;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use crate::scenario::Kind;

/// Largest part of a scenario's instructions that they may change by without a word.
const TOLERANCE: f64 = 0.01;
/// Least change of a function that is said, in instructions per packet.
const LEAST: f64 = 0.05;

/// Command line of `nave-perf gate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The committed numbers
    #[arg(long, value_name = "FILE", default_value = "perf/gate.json")]
    committed: PathBuf,
    /// Write the numbers as they are now, with this reason for the change
    #[arg(long, value_name = "WHY")]
    accept: Option<String>,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "accept")]
    scenarios: Vec<Kind>,
}

/// The committed numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Committed {
    /// Why they are what they are, where they were accepted last.
    accepted: String,
    /// What they depend on besides the code.
    built_with: BuiltWith,
    /// By scenario.
    scenarios: BTreeMap<String, Counted>,
}

/// What the numbers depend on besides the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BuiltWith {
    rustc: String,
    libdpdk: String,
    libc: String,
}

/// Instructions per packet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    /// By function, those inlined into it included.
    pub(crate) functions: BTreeMap<String, f64>,
    /// By source file, wherever its lines were inlined.
    pub(crate) files: BTreeMap<String, f64>,
}

/// Counts and compares, or counts and writes; whether nothing has changed that nobody accepted.
///
/// # Errors
/// valgrind does not run, or a scenario does not come out right.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let kinds = if args.scenarios.is_empty() { Kind::value_variants() } else { &args.scenarios };
    let built_with = BuiltWith::here()?;
    let mut scenarios = BTreeMap::new();
    for kind in kinds {
        let counted = callgrind::count(*kind).with_context(|| kind.name())?;
        println!("{:<10} {:8.1} instructions per packet", kind.name(), counted.instructions);
        scenarios.insert(kind.name().to_owned(), counted);
    }
    let now = Committed { accepted: args.accept.clone().unwrap_or_default(), built_with, scenarios };
    if let Some(why) = &args.accept {
        ensure!(!why.trim().is_empty(), "--accept wants a reason");
        if let Ok(before) = read(&args.committed) {
            print!("{}", compare(&before, &now).0);
        }
        std::fs::write(&args.committed, serde_json::to_string_pretty(&now)? + "\n")
            .with_context(|| args.committed.display().to_string())?;
        println!("accepted: {why}");
        return Ok(true);
    }
    let before = read(&args.committed)?;
    if before.built_with != now.built_with {
        println!(
            "not compared: the committed numbers are of {}; these are of {}. Count the revision before your change here, too.",
            before.built_with, now.built_with
        );
        return Ok(true);
    }
    let (text, same) = compare(&before, &now);
    print!("{text}");
    if !same {
        println!("If it is meant: make gate ACCEPT=\"why\", and commit {}.", args.committed.display());
    }
    Ok(same)
}

fn read(path: &Path) -> anyhow::Result<Committed> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// What has changed, and whether all of it is within the tolerance.
fn compare(before: &Committed, now: &Committed) -> (String, bool) {
    let (mut text, mut same) = (String::new(), true);
    for (scenario, counted) in &now.scenarios {
        let Some(before) = before.scenarios.get(scenario) else {
            let _ = writeln!(text, "{scenario}: there is no committed number");
            same = false;
            continue;
        };
        let ratio = counted.instructions / before.instructions - 1.0;
        if ratio.abs() <= TOLERANCE {
            continue;
        }
        same = false;
        let _ = writeln!(
            text,
            "{scenario}: {:.1} instructions per packet, {:.1} committed ({:+.1} %)",
            counted.instructions,
            before.instructions,
            ratio * 100.0
        );
        write_changes(&mut text, "function", &before.functions, &counted.functions);
        write_changes(&mut text, "file", &before.files, &counted.files);
    }
    (text, same)
}

/// What has changed by more than a little, most first.
fn write_changes(text: &mut String, what: &str, before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) {
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let at = |map: &BTreeMap<String, f64>, name: &String| map.get(name).copied().unwrap_or(0.0);
    let mut changes: Vec<_> = names
        .into_iter()
        .map(|name| (at(now, name) - at(before, name), at(before, name), at(now, name), name))
        .filter(|change| change.0.abs() >= LEAST)
        .collect();
    changes.sort_by(|one, other| other.0.abs().total_cmp(&one.0.abs()));
    for (by, before, now, name) in changes {
        let _ = writeln!(text, "    {by:+8.2}  {before:8.2} → {now:8.2}  {what} {name}");
    }
}

impl BuiltWith {
    fn here() -> anyhow::Result<Self> {
        let said = |program: &str, arguments: &[&str]| -> anyhow::Result<String> {
            let output =
                Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
            ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        };
        Ok(Self {
            rustc: said("rustc", &["--version"])?,
            libdpdk: said("pkg-config", &["--modversion", "libdpdk"])?,
            libc: said("getconf", &["GNU_LIBC_VERSION"])?,
        })
    }
}

impl std::fmt::Display for BuiltWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, libdpdk {}, {}", self.rustc, self.libdpdk, self.libc)
    }
}

/// The program that counts.
fn valgrind() -> anyhow::Result<Command> {
    let found = Command::new("valgrind").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        bail!("valgrind does not run (on Debian: apt-get install valgrind)");
    }
    Ok(Command::new("valgrind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(figures: &[(&str, &[(&str, f64)])]) -> Committed {
        let counted = |functions: &[(&str, f64)]| Counted {
            instructions: functions.iter().map(|function| function.1).sum(),
            functions: functions.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            files: BTreeMap::new(),
        };
        let built_with = BuiltWith { rustc: "r".into(), libdpdk: "d".into(), libc: "c".into() };
        let scenarios = figures.iter().map(|(name, functions)| ((*name).to_owned(), counted(functions)));
        Committed { accepted: String::new(), built_with, scenarios: scenarios.collect() }
    }

    #[test]
    fn one_per_cent_is_let_pass_and_more_is_said_with_the_function_that_grew() {
        let before = committed(&[("ipv4", &[("classify", 60.0), ("rewrite", 40.0)])]);
        let (text, same) =
            compare(&before, &committed(&[("ipv4", &[("classify", 60.9), ("rewrite", 40.0)])]));
        assert!(same && text.is_empty(), "{text}");
        let (text, same) =
            compare(&before, &committed(&[("ipv4", &[("classify", 64.0), ("rewrite", 39.5)])]));
        assert!(!same);
        let lines: Vec<_> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "ipv4: 103.5 instructions per packet, 100.0 committed (+3.5 %)",
                "+4.00 60.00 → 64.00 function classify",
                "-0.50 40.00 → 39.50 function rewrite"
            ]
        );
    }

    #[test]
    fn fewer_instructions_are_a_change_too_and_so_is_a_new_function_or_scenario() {
        let before = committed(&[("ipv4", &[("classify", 60.0), ("rewrite", 40.0)])]);
        assert!(!compare(&before, &committed(&[("ipv4", &[("classify", 58.0), ("rewrite", 40.0)])])).1);
        let (text, same) = compare(&before, &committed(&[("ipv4", &[("classify", 62.0), ("tx", 40.0)])]));
        assert!(!same && text.contains("function tx") && text.contains("function rewrite"), "{text}");
        assert!(!compare(&before, &committed(&[("encap", &[("classify", 60.0)])])).1);
    }
}
