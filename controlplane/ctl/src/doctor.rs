//! `nave doctor`: what of this machine, and of the data plane on it, costs speed, and what to do about it, on one screen.
//!
//! It reads the machine itself (/proc and /sys), and asks the node if one runs: it works before anything is started, too. Nothing is changed.

mod check;
mod machine;

use std::fmt;
use std::path::Path;

use model::state::{Filter, Show, State, What, count};
use proto::client::Management;
use serde::Serialize;

use crate::arguments::Doctor;
use crate::run::{Failure, print, print_json};
use check::Site;
use machine::{Machine, Planned};

/// How much something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Nothing.
    Ok,
    /// Nothing can be said, or little is to be won.
    Note,
    /// Packets per second.
    Slow,
    /// Most of them, or the data plane does not start.
    Bad,
}

impl Verdict {
    /// The exit status.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Ok | Self::Note => 0,
            Self::Slow => 1,
            Self::Bad => 2,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Slow => "slow",
            Self::Bad => "bad",
        })
    }
}

/// What was found of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The thing, in a word or two.
    topic: &'static str,
    verdict: Verdict,
    /// How it is.
    found: String,
    /// What to do about it, if anything can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn new(topic: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { topic, verdict, found: found.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    /// The worst of them.
    verdict: Verdict,
    findings: Vec<Finding>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { topic, verdict, found, remedy } in &self.findings {
            writeln!(f, "{verdict:<5} {topic:<13} {found}")?;
            if let Some(remedy) = remedy {
                writeln!(f, "{:<19} → {remedy}", "")?;
            }
        }
        let costly = self.findings.iter().filter(|finding| finding.verdict >= Verdict::Slow).count();
        match costly {
            0 => writeln!(f, "\nNothing that is known here costs speed."),
            costly => writeln!(f, "\n{} speed.", count(costly as u64, "finding costs", "findings cost")),
        }
    }
}

/// Looks, and says what there is.
pub(crate) async fn doctor(node: &Management, doctor: Doctor, json: bool) -> Result<(), Failure> {
    let planned = Planned { workers: doctor.workers, devices: doctor.devices };
    let root = doctor.root.unwrap_or_else(|| Path::new("/").to_owned());
    let mut site = Site { machine: Machine::read(&root), planned, workers: Vec::new(), ports: Vec::new() };
    let of = |what| Show { what, filter: Filter::default() };
    // Without a node what the machine says has to do.
    if let Ok(State::Workers(workers)) = node.show(of(What::Workers)).await {
        site.workers = workers.0;
    }
    if let Ok(State::Ports(ports)) = node.show(of(What::Ports)).await {
        site.ports = ports.0;
    }
    let findings = site.findings();
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    let diagnosis = Diagnosis { verdict, findings };
    if json {
        print_json(&diagnosis)?
    } else {
        print(&diagnosis)?
    }
    match verdict.status() {
        0 => Ok(()),
        status => Err(Failure::Diagnosed { status }),
    }
}
