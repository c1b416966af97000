//! One node: its two processes, its configuration, and the operator's command for it.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cloud::hextet;
use crate::netns::Namespace;
use crate::process::Process;
use crate::vlan::VlanSwitch;
use crate::{process, wait};

/// How long a process may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A host on a node's LAN: a namespace with one plain kernel interface, `eth0`. Its node is its router.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where it is.
    pub namespace: Arc<Namespace>,
    /// The number of its node, which stands in its addresses: 1, 11, 12.
    pub number: u8,
}

impl Host {
    /// 192.168.`number`.10.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.number, 10)
    }

    /// 2001:db8:a:`number`::10, where it has IPv6.
    #[must_use]
    pub fn address6(&self) -> Ipv6Addr {
        Ipv6Addr::from([0x2001, 0xdb8, 0xa, hextet(self.number), 0, 0, 0, 0x10])
    }

    /// Its node's address on the LAN.
    #[must_use]
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.number, 1)
    }

    /// Its node's IPv6 address on the LAN.
    #[must_use]
    pub fn router6(&self) -> Ipv6Addr {
        Ipv6Addr::from([0x2001, 0xdb8, 0xa, hextet(self.number), 0, 0, 0, 1])
    }

    /// Gives `eth0` its addresses and default routes. Without `mtu` it is an ordinary link, and the routes know what the overlay
    /// takes, so that TCP makes its segments small enough; with one the host has to find that out.
    ///
    /// # Errors
    /// There is no `eth0`.
    pub fn settle(&self, mtu: Option<u16>, ipv6: bool) -> Result<()> {
        let (host, number) = (&self.namespace, self.number);
        host.ip(&format!(
            "link set eth0 address 02:00:00:00:{number:02x}:02 mtu {} up",
            mtu.unwrap_or(1500)
        ))?;
        let known = if mtu.is_some() { "" } else { " mtu 1400" };
        host.ip(&format!("addr replace {}/24 dev eth0", self.address()))?;
        host.ip(&format!("route replace default via {}{known}", self.router()))?;
        if ipv6 {
            host.allow_ipv6()?;
            host.ip(&format!("addr replace {}/64 dev eth0 nodad", self.address6()))?;
            host.ip(&format!("route replace default via {}{known}", self.router6()))?;
        }
        Ok(())
    }

    /// Whether it reaches an address: three pings, at least one answered.
    ///
    /// # Errors
    /// No `ping`.
    pub fn pings(&self, to: impl Into<IpAddr>) -> Result<bool> {
        let args = ["-c", "3", "-i", "0.2", "-W", "1", &to.into().to_string()];
        Ok(self.namespace.output("ping", &args)?.status.success())
    }
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
    /// Its address on an underlay of IPv6.
    pub nbma6: Ipv6Addr,
    /// Its address on the tunnel.
    pub tunnel: Ipv4Addr,
    /// Its IPv6 address on the tunnel, where it has one.
    pub tunnel6: Ipv6Addr,
    /// The host behind it.
    pub host: Host,
    /// The switch between its LAN port and the hosts, if there is more than one.
    pub switch: Option<VlanSwitch>,
    /// What its control plane is started with. An edit holds from the next start on.
    pub config: toml::Table,
    pub(crate) directory: PathBuf,
    /// Bridge of the underlay that it is plugged into.
    pub(crate) bridge: String,
    /// What its ports and its LAN take, if that is not 1500.
    pub(crate) mtu: Option<u16>,
    pub(crate) port_args: Vec<String>,
    /// Cores of the data plane's workers, one each, before it is started.
    pub workers: Vec<usize>,
    /// What all its ports do in place of the workers, if not what is usual: `all` or `none`.
    pub offloads: Option<&'static str>,
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

    /// Whether its LAN has IPv6 beside IPv4.
    #[must_use]
    pub fn is_dual_stack(&self) -> bool {
        self.config.to_string().contains("2001:db8:a:")
    }

    /// Changes the configuration as text, before the control plane is started.
    ///
    /// # Errors
    /// It is no TOML then.
    pub fn edit(&mut self, change: impl FnOnce(String) -> String) -> Result<()> {
        let text = change(toml::to_string(&self.config)?);
        self.config = text.parse().with_context(|| text.clone())?;
        Ok(())
    }

    /// Adds an element to a list of the configuration, before the control plane is started: `routes`, `tables` ….
    ///
    /// # Errors
    /// `element` is no TOML, or what has that name is no list.
    pub fn add(&mut self, list: &str, element: &str) -> Result<()> {
        let element: toml::Table = element.parse().with_context(|| element.to_owned())?;
        let entry = self.config.entry(list).or_insert_with(|| toml::Value::Array(Vec::new()));
        entry.as_array_mut().with_context(|| format!("{list} is no list"))?.push(element.into());
        Ok(())
    }

    /// What its first tunnel has under `nhrp`, to be changed before the control plane is started, or applied.
    ///
    /// # Errors
    /// There is no tunnel, or it has none.
    pub fn nhrp(&mut self) -> Result<&mut toml::Table> {
        let tunnel = self.config.get_mut("tunnels").and_then(|tunnels| tunnels.get_mut(0));
        let nhrp = tunnel.and_then(|tunnel| tunnel.get_mut("nhrp")).and_then(toml::Value::as_table_mut);
        nhrp.context("no tunnel with nhrp")
    }

    /// Makes the configuration as it stands here the running one (`nave apply`).
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self) -> Result<()> {
        self.write_config()?;
        self.nave(&format!("apply {}", self.config_file().display())).map(drop)
    }

    /// For nobody else's eyes: there may be keys in it.
    fn write_config(&self) -> Result<()> {
        let mut file = File::options();
        file.create(true).truncate(true).write(true).mode(0o600);
        file.open(self.config_file())?.write_all(toml::to_string(&self.config)?.as_bytes())?;
        Ok(())
    }

    /// Starts the data plane and waits until it serves.
    pub(crate) fn spawn_dataplane(&mut self) -> Result<()> {
        if self.config.to_string().contains("2001:db8:") {
            // Lets the control plane have IPv6 on its twins; what is made besides has none until then.
            self.namespace.switch("ipv6/conf/all/disable_ipv6", false)?;
            self.namespace.switch("ipv6/conf/default/disable_ipv6", true)?;
        }
        let mut command = Command::new(program("nave-dataplane")?);
        command.arg("--socket").arg(self.dataplane_socket());
        for port in &self.port_args {
            command.args(["--port", port]);
        }
        if let Some(offloads) = self.offloads {
            let names = self.port_args.iter().filter_map(|port| port.split('=').next());
            command.args(names.flat_map(|name| ["--offloads".to_owned(), format!("{name}={offloads}")]));
        }
        let workers: Vec<_> = self.workers.iter().map(ToString::to_string).collect();
        let memory = format!("no-huge:{}", 128 * workers.len());
        command.args(["--workers", &workers.join(","), "--idle", "adaptive", "--memory", &memory]);
        command.args(["--file-prefix", self.namespace.name()]);
        if let Some(mtu) = self.mtu {
            // Buffers are as large as the MTU: fewer of them in the same memory.
            command.args(["--mtu", &mtu.to_string(), "--buffers", "8191"]);
        }
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
        self.write_config()?;
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

    /// Whether the node itself reaches an address: three pings from its namespace, at least one answered.
    ///
    /// # Errors
    /// No `ping`.
    pub fn pings(&self, to: impl Into<IpAddr>) -> Result<bool> {
        let args = ["-c", "3", "-i", "0.2", "-W", "1", &to.into().to_string()];
        Ok(self.namespace.output("ping", &args)?.status.success())
    }

    /// What `nave show nhrp` has of a prefix, if anything.
    ///
    /// # Errors
    /// It fails.
    pub fn entry(&self, prefix: &str) -> Result<Option<Value>> {
        let entries = self.nave_json("show nhrp")?;
        let found = entries.as_array().and_then(|all| all.iter().find(|entry| entry["prefix"] == prefix));
        Ok(found.cloned())
    }

    /// Where a tunnel address is, as `nave show nhrp` has it, and what type of entry says so.
    ///
    /// # Errors
    /// It fails.
    pub fn binding(&self, address: impl Into<IpAddr>) -> Result<Option<(String, IpAddr)>> {
        let entry = self.entry_of(address)?;
        let said =
            |entry: Value| Some((entry["type"].as_str()?.to_owned(), entry["nbma"].as_str()?.parse().ok()?));
        Ok(entry.and_then(said))
    }

    /// What `nave show nhs` has of a server.
    ///
    /// # Errors
    /// It fails, or has nothing.
    pub fn server(&self, protocol: impl Into<IpAddr>) -> Result<Value> {
        let protocol = protocol.into().to_string();
        let servers = self.nave_json("show nhs")?;
        let found = servers.as_array().and_then(|all| all.iter().find(|s| s["protocol"] == protocol));
        found.cloned().with_context(|| format!("no {protocol} in {servers:#}"))
    }

    /// What `nave show nhrp` has of exactly this address.
    ///
    /// # Errors
    /// As [`Node::entry`].
    pub fn entry_of(&self, address: impl Into<IpAddr>) -> Result<Option<Value>> {
        let address = address.into();
        self.entry(&format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
    }

    /// Packets that its data plane dropped for this reason.
    ///
    /// # Errors
    /// `nave` fails.
    pub fn drops(&self, reason: &str) -> Result<u64> {
        let drops = self.nave_json("show drops")?;
        let found = drops.as_array().and_then(|all| all.iter().find(|drop| drop["name"] == reason));
        Ok(found.and_then(|drop| drop["count"].as_u64()).unwrap_or(0))
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
