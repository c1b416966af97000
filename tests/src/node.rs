//! One node: its two processes, its configuration, and the operator's command for it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::Namespace;
use crate::process::Process;
use crate::{process, wait};

/// How long a process may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A host on a node's LAN: a namespace with one plain kernel interface.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where it is.
    pub namespace: Arc<Namespace>,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A node of the cloud.
#[derive(Debug)]
pub struct Node {
    /// `hub`, `spoke1` …
    pub name: String,
    /// Where its processes and its kernel twins are.
    pub namespace: Arc<Namespace>,
    /// Where the kernel's ends of its ports are, if not there.
    pub ports: Option<Arc<Namespace>>,
    /// Its address on the underlay.
    pub nbma: Ipv4Addr,
    /// Its address on the tunnel.
    pub tunnel: Ipv4Addr,
    /// The host behind it.
    pub host: Host,
    /// What its control plane is started with. An edit holds from the next start on.
    pub config: toml::Table,
    pub(crate) directory: PathBuf,
    pub(crate) port_args: Vec<String>,
    pub(crate) core: usize,
    /// Its data plane, while it runs.
    pub dataplane: Option<Process>,
    /// Its control plane, while it runs.
    pub controlplane: Option<Process>,
}

/// Where this build put the programs: beside the one that runs.
///
/// # Errors
/// The system does not say which program runs.
pub fn programs() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.parent().context("a program in no directory")?;
    let is_test = directory.file_name().is_some_and(|n| n == "deps");
    Ok(if is_test { directory.parent().context("deps in no directory")? } else { directory }.to_owned())
}

/// The path of one of our programs.
///
/// # Errors
/// It has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = programs()?.join(name);
    ensure!(
        path.exists(),
        "{} is not built: `cargo build --bins` with the same profile first",
        path.display()
    );
    Ok(path)
}

impl Node {
    /// The data plane's socket.
    #[must_use]
    pub fn dataplane_socket(&self) -> PathBuf {
        self.directory.join("dataplane.sock")
    }

    /// The control plane's socket: what `nave --socket` wants.
    #[must_use]
    pub fn management_socket(&self) -> PathBuf {
        self.directory.join("controlplane.sock")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("nave.toml")
    }

    /// Where its things are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts the data plane and waits until it serves.
    pub(crate) fn spawn_dataplane(&mut self) -> Result<()> {
        let mut command = Command::new(program("nave-dataplane")?);
        command.arg("--socket").arg(self.dataplane_socket());
        for port in &self.port_args {
            command.args(["--port", port]);
        }
        command.args(["--workers", &self.core.to_string(), "--idle", "adaptive", "--memory", "no-huge:128"]);
        command.args(["--file-prefix", self.namespace.name()]);
        let home = self.ports.as_ref().unwrap_or(&self.namespace);
        if self.ports.is_some() {
            command.args(["--host-netns", self.namespace.name()]);
        }
        let log = self.directory.join("dataplane.log");
        let process = Process::start(&format!("{} data plane", self.name), home, &log, &mut command)?;
        let process = self.dataplane.insert(process);
        wait_for_socket(process, &self.directory.join("dataplane.sock"))
    }

    /// Writes the configuration, starts the control plane and waits until it serves.
    ///
    /// # Errors
    /// It ends, or does not serve in time.
    pub fn start_controlplane(&mut self) -> Result<()> {
        fs::write(self.config_file(), toml::to_string(&self.config)?)?;
        let mut command = Command::new(program("nave-controlplane")?);
        command.arg("--config").arg(self.config_file());
        let log = self.directory.join("controlplane.log");
        let process =
            Process::start(&format!("{} control plane", self.name), &self.namespace, &log, &mut command)?;
        let process = self.controlplane.insert(process);
        wait_for_socket(process, &self.directory.join("controlplane.sock"))
    }

    /// Kills the control plane (SIGKILL).
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_controlplane(&mut self) -> Result<()> {
        self.controlplane.take().context("no control plane")?.kill()
    }

    /// Kills the data plane (SIGKILL).
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_dataplane(&mut self) -> Result<()> {
        self.dataplane.take().context("no data plane")?.kill()
    }

    /// Fails if a process that was started has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        for process in [&mut self.dataplane, &mut self.controlplane].into_iter().flatten() {
            process.check_alive()?;
        }
        Ok(())
    }

    /// The `nave` command for this node.
    ///
    /// # Errors
    /// It has not been built.
    pub fn nave_command(&self) -> Result<Command> {
        let mut command = Command::new(program("nave")?);
        command.arg("--socket").arg(self.management_socket()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `nave` with these words: what it prints.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn nave(&self, words: &str) -> Result<String> {
        let output = self.nave_command()?.args(words.split_whitespace()).output().context("running nave")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: nave {words}: {}", self.name, errors.trim_end());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// As [`Node::nave`], with `--json`.
    ///
    /// # Errors
    /// It fails or prints something else than JSON.
    pub fn nave_json(&self, words: &str) -> Result<Value> {
        let text = self.nave(&format!("{words} --json"))?;
        serde_json::from_str(&text).with_context(|| format!("nave {words} --json printed: {text}"))
    }

    /// `nave watch --json`: one line for each event, on its standard output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn watch(&self) -> Result<Child> {
        let mut command = self.nave_command()?;
        command.args(["watch", "--json"]).stdout(Stdio::piped()).stderr(Stdio::null());
        self.namespace.spawn(&mut command)
    }

    /// The ends of its logs, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        let log = |name| {
            let tail = process::tail(&self.directory.join(name));
            format!("--- {} {name}\n{tail}\n", self.name)
        };
        format!("{}{}", log("dataplane.log"), log("controlplane.log"))
    }

    /// Asks both processes to end, the control plane first: so that it takes its twins with it.
    ///
    /// # Errors
    /// One of them has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        let controlplane = self.controlplane.take().map(|p| p.stop(Duration::from_secs(5)));
        let dataplane = self.dataplane.take().map(|p| p.stop(Duration::from_secs(5)));
        controlplane.transpose()?;
        dataplane.transpose()?;
        Ok(())
    }
}

fn wait_for_socket(process: &mut Process, socket: &Path) -> Result<()> {
    let what = socket.display().to_string();
    let mut dead = None;
    wait::until(&what, START, || match process.check_alive() {
        Err(error) => {
            dead = Some(error);
            Ok(())
        }
        Ok(()) => Ok(UnixStream::connect(socket).map(|_| ())?),
    })
    .with_context(|| process.log_tail())?;
    dead.map_or(Ok(()), Err)
}
