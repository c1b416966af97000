//! The same packets through the graph alone, in a process of its own, before and after the real data plane has them.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::dimensions::Dimensions;
use crate::size::Size;
use crate::wire::meter::OF_PORTS;

/// Packets of a run of the graph: 16 passes.
const PACKETS: &str = "262144";

/// What `nave-perf graph` said.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Cycles per packet without those of its ports.
    graph: Vec<f64>,
}

impl Beside {
    /// Runs it once.
    ///
    /// # Errors
    /// It does not run, or packets came out wrong.
    pub(crate) fn run(&mut self, dimensions: &Dimensions, size: Size) -> anyhow::Result<()> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("graph").args(dimensions.flags(size)).args(["--packets", PACKETS, "--json"]);
        let output = command.output().context("running nave-perf graph")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nave-perf graph: {}", said.trim());
        let report: Value =
            serde_json::from_slice(&output.stdout).context("the report of nave-perf graph")?;
        let all = report["cycles_per_packet"].as_f64().context("no cycles_per_packet")?;
        let of_ports =
            OF_PORTS.into_iter().chain(["ports"]).filter_map(|node| report["nodes"][node].as_f64());
        self.graph.push(all - of_ports.sum::<f64>());
        Ok(())
    }

    /// The mean of the runs.
    pub(crate) fn cycles_per_packet(&self) -> f64 {
        self.graph.iter().sum::<f64>() / self.graph.len() as f64
    }
}
