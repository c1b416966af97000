//! What is between the source and the data plane.

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use model::Mac;
use wire::ethernet;

use crate::process::{Folder, Setup, other_ends};
use crate::scenario::{self, PORTS, Scenario, TUNNEL_HEADERS};
use crate::wire::replay;

/// Largest IP packet of the data plane's ports, in bytes: a memif takes no larger ones.
pub(crate) const MTU: u16 = 1500;

/// What kind of link it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Shared memory between the two processes (net_memif)
    Memif,
    /// Frames of a file again and again (net_pcap with infinite_rx), and nobody takes what comes out (net_null): what arrives sealed would be a replay
    Pcap,
    /// Devices of this machine, by --port and --own-port
    Nic,
}

/// See the module.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Link {
    /// What is between the source and the data plane; nic if ports are given, else memif
    #[arg(long = "link", value_enum)]
    kind: Option<Kind>,
    /// The data plane's ports lan and wan, as its command line has them: lan=0000:01:00.0
    #[arg(long = "port", value_name = "NAME=DEVICE[,ARGS]", requires = "own_ports")]
    ports: Vec<String>,
    /// The source's ports, cabled to those
    #[arg(long = "own-port", value_name = "NAME=DEVICE[,ARGS]", requires = "ports")]
    own_ports: Vec<String>,
}

/// The port by which a file's frames arrive, if they can.
pub(crate) fn replayed(kind: &scenario::Kind) -> Option<&'static str> {
    PORTS.get(usize::from(kind.in_port())).map(|(name, _)| *name)
}

/// DPDK's name of a device, without its arguments.
pub(crate) fn name(device: &str) -> &str {
    device.split_once(',').map_or(device, |(name, _)| name)
}

/// The devices of the ports lan and wan, in this order.
fn in_order(flag: &str, given: &[String]) -> anyhow::Result<Vec<String>> {
    let device = |name: &str| {
        let mut of_it = given.iter().filter_map(|port| port.split_once('=').filter(|(is, _)| *is == name));
        let device = of_it.next().filter(|_| of_it.next().is_none());
        Ok(device.with_context(|| format!("{flag} {name}=… is wanted once"))?.1.to_owned())
    };
    ensure!(given.len() == PORTS.len(), "{flag} is wanted for lan and for wan");
    PORTS.iter().map(|(name, _)| device(name)).collect()
}

impl Link {
    pub(crate) fn kind(&self) -> Kind {
        self.kind.unwrap_or(if self.ports.is_empty() { Kind::Memif } else { Kind::Nic })
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// It says why.
    pub(crate) fn check(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let (kind, of) = (self.kind(), scenario.kind);
        ensure!(
            (kind == Kind::Nic) != self.ports.is_empty(),
            "--port and --own-port are of --link nic, which wants both"
        );
        ensure!(
            !(kind == Kind::Pcap && of.is_protected() && of.arrives_in_tunnel()),
            "--link pcap: what arrives sealed in {} would be the same packets again and again, which the replay window drops; it has ipv4, ipv6, encap, decap, gre-relay and encrypt",
            of.name()
        );
        let around = if of.is_plain() { 0 } else { TUNNEL_HEADERS };
        let (most, largest) = (usize::from(MTU - around) + ethernet::LEN, scenario.size.largest());
        ensure!(
            largest <= most,
            "--size {largest}: with what is put around a packet it has to fit into {MTU} bytes, so {most} at most in {}",
            of.name()
        );
        if kind == Kind::Nic {
            in_order("--port", &self.ports)?;
            in_order("--own-port", &self.own_ports)?;
        }
        Ok(())
    }

    /// Whether no device of the network namespace that we begin in is wanted.
    pub(crate) fn is_alone(&self) -> bool {
        !self.ports.iter().chain(&self.own_ports).any(|port| port.contains("=net_"))
    }

    /// How the data plane is started. Makes the file, if it is one; the scenario's addresses are those that its frames are for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn setup(
        &self,
        folder: &Folder,
        scenario: &mut Scenario,
        workers: Vec<usize>,
    ) -> anyhow::Result<Setup> {
        let mut setup = Setup::memif_on(&PORTS.map(|(name, _)| name), workers);
        match self.kind() {
            Kind::Memif => {}
            Kind::Nic => {
                let devices = in_order("--port", &self.ports)?;
                let port = |((name, _), device): (&(&str, Mac), String)| format!("{name}={device}");
                setup.ports = PORTS.iter().zip(devices).map(port).collect();
            }
            Kind::Pcap => {
                let file = folder.file("arrivals.pcap");
                let into = usize::from(scenario.kind.in_port());
                scenario.macs[into] = replay::MAC;
                let frames = replay::write(&file, scenario, setup.workers.len() as u16)?;
                let (from, to) = ("net_pcap0,infinite_rx=1,rx_pcap=", "net_null1,no-rx=1");
                let device =
                    |at: usize| if at == into { format!("{from}{}", file.display()) } else { to.to_owned() };
                setup.ports =
                    (0..).zip(PORTS).map(|(at, (name, _))| format!("{name}={}", device(at))).collect();
                // The driver keeps a copy of the file for each queue, besides what a data plane has anyway.
                let buffers = (frames + 32_768) * setup.workers.len();
                setup.flags.extend(["--buffers".to_owned(), (buffers.next_power_of_two() - 1).to_string()]);
                setup.megabytes *= 3;
            }
        }
        Ok(setup)
    }

    /// The source's devices.
    ///
    /// # Errors
    /// They are not given.
    pub(crate) fn far_ends(&self) -> anyhow::Result<Vec<String>> {
        match self.kind() {
            Kind::Nic => in_order("--own-port", &self.own_ports),
            _ => Ok(other_ends(&PORTS.map(|(name, _)| name))),
        }
    }
}
