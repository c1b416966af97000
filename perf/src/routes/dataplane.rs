//! The data plane that is measured: a process of its own with two memif ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::{Resident, cores, free_huge_megabytes, resident};

/// How long it may take until it serves, and until it ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// Mebibytes of its packet buffers.
const MEGABYTES: u32 = 128;
/// Its ports.
pub(super) const PORTS: [&str; 2] = ["lan", "wan"];

/// The process; it ends with this.
#[derive(Debug)]
pub(super) struct Dataplane {
    child: Child,
    directory: PathBuf,
    pub(super) huge_pages: bool,
}

impl Dataplane {
    /// Starts it with its worker on the last core, and waits until it serves.
    ///
    /// # Errors
    /// It is not built, or does not start.
    pub(super) fn start(program: Option<&Path>) -> anyhow::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?.with_file_name("nave-dataplane"),
        };
        let worker = cores(2).context("one core forwards, one sends")?[0];
        let directory = std::env::temp_dir().join(format!("nave-perf-{}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let huge_pages = free_huge_megabytes() >= 2 * MEGABYTES;
        let memory = if huge_pages { "in-memory".to_owned() } else { format!("no-huge:{MEGABYTES}") };
        let mut command = Command::new(&program);
        for (number, port) in PORTS.iter().enumerate() {
            let device = format!("{port}=net_memif{number},role=server,{}", memif_socket(port));
            command.args(["--port", &device]);
        }
        command.args(["--workers", &worker.id.to_string(), "--memory", &memory, "--socket"]);
        command.arg(directory.join(SOCKET));
        // Without being told otherwise it speaks of what is worth a look only.
        command.env("NAVE_LOG", std::env::var("NAVE_LOG").unwrap_or_else(|_| "warn".into()));
        let child = command.spawn().with_context(|| {
            format!(
                "starting {}: is it built (cargo build --release --package dataplane)?",
                program.display()
            )
        })?;
        let mut started = Self { child, directory, huge_pages };
        let until = Instant::now() + PATIENCE;
        while !started.socket().exists() {
            ensure!(started.child.try_wait()?.is_none(), "{} ended at once", program.display());
            ensure!(Instant::now() < until, "{} does not serve", program.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    /// Where it serves.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Its memory.
    pub(super) fn resident(&self) -> anyhow::Result<Resident> {
        resident(&self.child.id().to_string())
    }
}

const SOCKET: &str = "dataplane.sock";

/// The argument of a memif device at either end: the (abstract) socket by which the ends find each other.
pub(super) fn memif_socket(port: &str) -> String {
    format!("socket=nave-perf-{}-{port}", std::process::id())
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        let asked =
            i32::try_from(self.child.id()).is_ok_and(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok());
        let until = Instant::now() + PATIENCE;
        while asked && Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // If it has ended this does nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
