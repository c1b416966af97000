//! Traffic all ways through a cloud of a hub and two spokes, and whether it goes on while its processes die.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cloud::{Cloud, HUB, SPOKE1, SPOKE2};
use crate::traffic::{Stream, Tally};
use crate::wait;

/// Ways that traffic takes: by the shortcut, and to and from the hub.
pub const WAYS: [(usize, usize); 6] =
    [(SPOKE1, SPOKE2), (SPOKE2, SPOKE1), (HUB, SPOKE1), (SPOKE1, HUB), (HUB, SPOKE2), (SPOKE2, HUB)];

/// Nodes whose processes are killed: the server of the others, and one that it serves.
const MORTAL: [usize; 2] = [HUB, SPOKE1];
/// How often each process is.
const KILLS: usize = 10;

/// A flow each of some ways.
#[derive(Debug)]
pub struct Flows {
    streams: Vec<Stream>,
    /// Packets a second of each.
    rate: u32,
    /// How long one may stand still.
    patience: Duration,
}

impl Flows {
    /// Starts them, with `rate` packets a second each; their UDP ports are `port` and those behind it. None may stand still for longer than
    /// `patience` when somebody waits for it.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn start(
        cloud: &Cloud,
        ways: &[(usize, usize)],
        port: u16,
        rate: u32,
        patience: Duration,
    ) -> Result<Self> {
        let start = |(&(from, to), port)| Stream::start(cloud.flow(from, to, port, rate));
        let streams = ways.iter().zip(port..).map(start).collect::<Result<_>>()?;
        Ok(Self { streams, rate, patience })
    }

    /// Waits until more than a tenth of a second's packets of every flow have arrived that were not there before.
    ///
    /// # Errors
    /// One does not go on in time; with all that the cloud knows. `what` goes on, says the error.
    pub fn go_on(&self, cloud: &Cloud, what: &str) -> Result<()> {
        let counts = || self.streams.iter().map(Stream::arrived).collect::<Vec<_>>();
        let old = counts();
        let all_more = || counts().iter().zip(&old).all(|(new, old)| *new > old + u64::from(self.rate / 10));
        wait::until_true(what, self.patience, all_more)
            .with_context(|| format!("{old:?} … {:?}\n{}", counts(), cloud.what_is_known()))
    }

    /// Ends all of them at once: what became of each.
    ///
    /// # Errors
    /// A socket failed.
    pub fn finish(self) -> Result<Vec<Tally>> {
        self.streams.iter().for_each(Stream::stop);
        self.streams.into_iter().map(Stream::finish).collect()
    }

    /// Ends all of them at once.
    ///
    /// # Errors
    /// A packet was lost, came twice or behind a later one: with all that the cloud knows.
    pub fn are_whole(self, cloud: &Cloud) -> Result<()> {
        let torn = self
            .finish()?
            .iter()
            .filter(|tally| !tally.is_whole())
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        ensure!(torn.is_empty(), "{}\n{}", torn.join("\n"), cloud.what_is_known());
        Ok(())
    }
}

/// Kills (SIGKILL) each process of the hub and of a spoke ten times while traffic goes all ways: control planes alone, which costs no packet; then
/// data planes, every second time with the control plane.
///
/// # Errors
/// Traffic does not go on after one of them, or a packet comes twice.
pub fn go_on_through_kills(cloud: &mut Cloud, port: u16, rate: u32, patience: Duration) -> Result<()> {
    let flows = Flows::start(cloud, &WAYS, port, rate, patience)?;
    flows.go_on(cloud, "traffic")?;
    for node in MORTAL.repeat(KILLS / 2) {
        cloud.nodes[node].kill_controlplane()?;
        flows.go_on(cloud, "traffic without a control plane")?;
        cloud.nodes[node].start_controlplane()?;
        flows.go_on(cloud, "traffic with a new control plane")?;
    }
    flows.are_whole(cloud)?;

    let flows = Flows::start(cloud, &WAYS, port, rate, patience)?;
    for (turn, node) in (0..KILLS).flat_map(|turn| MORTAL.map(|node| (turn, node))) {
        let both = turn % 2 == 0;
        cloud.nodes[node].kill_dataplane()?;
        if both {
            cloud.nodes[node].kill_controlplane()?;
        }
        cloud.start_dataplane(node)?;
        if both {
            cloud.nodes[node].start_controlplane()?;
        }
        flows.go_on(cloud, "traffic with a new data plane")?;
    }
    for tally in flows.finish()? {
        ensure!(tally.duplicated == 0, "{tally}");
    }
    Ok(())
}
