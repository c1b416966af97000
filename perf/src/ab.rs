//! `nave-perf ab`: two revisions side by side, on one machine, in turn.
//!
//! Each is built in a git worktree of its own under `target/ab`, once; registry crates are shared. Then both run in turn, A B, B A, A B …: a
//! machine that becomes slower meanwhile becomes so for both. Of each pair the ratio of cycles per packet counts, and from the ratios comes
//! how sure their mean is (Student's t, 95 %). Passes within a run are no pairs: what disturbs one disturbs the next, too.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use serde_json::Value;

/// Quantiles of Student's t for 95 % in the middle, by degrees of freedom from 1 on; with more than there are here 1.96 is near enough.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// Command line of `nave-perf ab`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A revision of this repository; `.` is what is in its folder now
    a: String,
    /// Another one
    b: String,
    /// Pairs of runs
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(2..=1000))]
    pairs: u32,
    /// What both run, --json aside: `graph --scenario relay --packets 262144`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Builds both, runs them in turn, says which is faster; whether all came out right.
///
/// # Errors
/// A revision that there is none of or that does not build, a run that fails.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let root = PathBuf::from(said(Command::new("git").args(["rev-parse", "--show-toplevel"]))?);
    let (a, b) = (built(&root, &args.a)?, built(&root, &args.b)?);
    let mut pairs = Vec::new();
    for number in 0..args.pairs {
        // Who begins changes.
        let (first, second) = if number % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let (first, second) = (cycles(first, &args.command)?, cycles(second, &args.command)?);
        let pair = if number % 2 == 0 { (first, second) } else { (second, first) };
        println!("{:3}  A {:8.1}  B {:8.1}  B/A {:.4}", number + 1, pair.0, pair.1, pair.1 / pair.0);
        pairs.push(pair);
    }
    println!("A {}, B {}: {}", args.a, args.b, Comparison::of(&pairs));
    Ok(true)
}

/// What a program wrote, without the end of the last line.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| program.clone())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The `nave-perf` of a revision.
fn built(root: &Path, revision: &str) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/ab");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    if revision == "." {
        return build(root, &folder, &folder.join("nave-perf-here"));
    }
    let commit = format!("{revision}^{{commit}}");
    let commit = said(Command::new("git").current_dir(root).args(["rev-parse", "--verify", &commit]))?;
    let binary = folder.join(format!("nave-perf-{commit}"));
    if binary.exists() {
        return Ok(binary);
    }
    let worktree = folder.join(&commit);
    let git = |arguments: &[&str]| {
        said(Command::new("git").current_dir(root).arg("worktree").args(arguments).arg(&worktree))
    };
    // One that an earlier run left half way is not there for git any more, or is what it should be.
    let _ = git(&["remove", "--force"]);
    said(
        Command::new("git")
            .current_dir(root)
            .args(["worktree", "add", "--detach"])
            .arg(&worktree)
            .arg(&commit),
    )?;
    let done = build(&worktree, &folder, &binary);
    git(&["remove", "--force"])?;
    done
}

/// Builds `nave-perf` in a folder, and copies it.
fn build(source: &Path, folder: &Path, binary: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("building {}", source.display());
    let target = folder.join("build");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(source).env("CARGO_TARGET_DIR", &target);
    cargo.args(["build", "--release", "--quiet", "--package", "perf", "--bin", "nave-perf"]);
    ensure!(cargo.status().context("cargo")?.success(), "{} does not build", source.display());
    std::fs::copy(target.join("release/nave-perf"), binary).context("copying nave-perf")?;
    Ok(binary.to_owned())
}

/// One run: its cycles per packet, the median of its passes.
fn cycles(binary: &Path, command: &[String]) -> anyhow::Result<f64> {
    let report = said(Command::new(binary).args(command).arg("--json"))?;
    let report: Value =
        serde_json::from_str(&report).with_context(|| format!("what {command:?} says with --json"))?;
    ensure!(report["verified"] == Value::Bool(true), "{}: packets came out wrong", binary.display());
    report["cycles_per_packet"].as_f64().with_context(|| format!("{command:?} says no cycles_per_packet"))
}

/// B's cycles over A's: the mean of the pairs' ratios, and the interval that it lies in with 95 %.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Comparison {
    ratio: f64,
    low: f64,
    high: f64,
}

impl Comparison {
    /// Of two pairs at least.
    fn of(pairs: &[(f64, f64)]) -> Self {
        // Ratios are symmetric as logarithms: twice as much is as far from the same as half.
        let logarithms: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
        let count = logarithms.len() as f64;
        let mean = logarithms.iter().sum::<f64>() / count;
        let squares = logarithms.iter().map(|one| (one - mean).powi(2)).sum::<f64>();
        let error = (squares / (count - 1.0) / count).sqrt();
        let reach = T.get(logarithms.len().saturating_sub(2)).copied().unwrap_or(1.96) * error;
        Self { ratio: mean.exp(), low: (mean - reach).exp(), high: (mean + reach).exp() }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ratio, low, high } = self;
        let verdict = match () {
            () if *high < 1.0 => "B takes less",
            () if *low > 1.0 => "B takes more",
            () => "no difference can be told",
        };
        write!(f, "B/A {ratio:.4} ({low:.4} to {high:.4} with 95 %): {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_student_s() {
        // Logarithms 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt 3, t of two degrees 4.303.
        let pairs = [0.1_f64, 0.2, 0.3].map(|log| (100.0, 100.0 * log.exp()));
        let Comparison { ratio, low, high } = Comparison::of(&pairs);
        let near = |is: f64, wanted: f64| assert!((is.ln() - wanted).abs() < 1e-3, "{is} {wanted}");
        near(ratio, 0.2);
        near(low, 0.2 - 4.303 * 0.1 / 3_f64.sqrt());
        near(high, 0.2 + 4.303 * 0.1 / 3_f64.sqrt());
    }

    #[test]
    fn only_what_is_sure_is_said_to_be_faster() {
        let said = |pairs: &[(f64, f64)]| Comparison::of(pairs).to_string();
        assert!(said(&[(100.0, 90.0), (101.0, 91.0), (99.0, 89.0)]).ends_with("B takes less"));
        assert!(said(&[(90.0, 100.0), (91.0, 101.0), (89.0, 99.0)]).ends_with("B takes more"));
        assert!(said(&[(100.0, 90.0), (100.0, 110.0), (100.0, 99.0)]).ends_with("no difference can be told"));
    }

    /// What is no revision is refused before anything is built.
    #[test]
    fn a_revision_that_there_is_none_of_is_refused() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(built(&root, "no-such-revision").is_err());
    }
}
