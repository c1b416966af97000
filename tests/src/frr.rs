//! FRR's zebra and a routing daemon beside a node, on its kernel twins.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::node::Node;
use crate::process::Process;

/// Where Debian keeps the daemons.
const DAEMONS: &str = "/usr/lib/frr";

/// The two daemons of one node. Dropped, they end.
#[derive(Debug)]
pub struct Frr {
    directory: PathBuf,
    processes: Vec<Process>,
}

impl Frr {
    /// Starts zebra and ospfd in the node's namespace, ospfd with this configuration.
    ///
    /// # Errors
    /// They are not installed, or do not come up.
    pub fn start(node: &Node, configuration: &str) -> Result<Self> {
        Self::start_daemon(node, "ospfd", configuration)
    }

    /// The same with ospf6d: OSPFv3, for IPv6.
    ///
    /// # Errors
    /// As [`Frr::start`].
    pub fn start_ospf6(node: &Node, configuration: &str) -> Result<Self> {
        Self::start_daemon(node, "ospf6d", configuration)
    }

    fn start_daemon(node: &Node, daemon: &str, configuration: &str) -> Result<Self> {
        let directory = node.directory().join("frr");
        fs::create_dir_all(&directory)?;
        // Debian's daemons change to this user and want to write there.
        let user = nix::unistd::User::from_name("frr")?.context("no user frr (Debian: frr)")?;
        std::os::unix::fs::chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let mut processes = Vec::new();
        for (daemon, configuration) in [("zebra", ""), (daemon, configuration)] {
            let file = directory.join(format!("{daemon}.conf"));
            fs::write(&file, configuration)?;
            let program = PathBuf::from(DAEMONS).join(daemon);
            ensure!(program.exists(), "{} is not installed (Debian: frr)", program.display());
            let mut command = Command::new(program);
            command.args(["-A", "127.0.0.1", "-P", "0"]);
            command.arg("-f").arg(&file).arg("-i").arg(directory.join(format!("{daemon}.pid")));
            command.arg("-z").arg(directory.join("zserv.api")).arg("--vty_socket").arg(&directory);
            let log = directory.join(format!("{daemon}.log"));
            let name = format!("{daemon} of {}", node.name);
            processes.push(Process::start(&name, &node.namespace, &log, &mut command)?);
            // It looks for zebra's socket once in a while only.
            let socket = directory.join(format!("{daemon}.vty"));
            crate::wait::until_true(&name, std::time::Duration::from_secs(10), || socket.exists())?;
        }
        Ok(Self { directory, processes })
    }

    /// A `show … json` of `vtysh`.
    ///
    /// # Errors
    /// The daemons are gone or print something else.
    pub fn show(&self, what: &str) -> Result<Value> {
        let mut vtysh = Command::new("vtysh");
        let output = vtysh.arg("--vty_socket").arg(&self.directory).args(["-c", what]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).with_context(|| {
            format!("{what}: {text}{}\n{}", String::from_utf8_lossy(&output.stderr), self.logs())
        })
    }

    /// What the daemons said.
    #[must_use]
    pub fn logs(&self) -> String {
        self.processes.iter().map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }
}
