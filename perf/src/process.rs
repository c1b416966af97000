//! What is measured from outside: processes of their own, and their files.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dpdk::{Eal, Opened, Port, PortConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::machine::{cores, free_huge_megabytes};

/// How long one may take until it serves, and until it ends.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long both ends of a link may take to find each other.
const LINK: Duration = Duration::from_secs(20);
/// Mebibytes of the data plane's packet buffers.
const MEGABYTES: u32 = 128;

/// A program that serves on a socket; it ends with this, and with this process: its standard input is a pipe of ours, so that it notices even if
/// we are killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`, or the one of this name beside this program, and waits until it serves on `socket`.
    ///
    /// # Errors
    /// It is not built, or does not serve.
    pub(crate) fn start(
        program: Option<&Path>,
        name: &str,
        args: &[String],
        socket: &Path,
    ) -> anyhow::Result<Self> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe()?.with_file_name(format!("nave-{name}")),
        };
        let mut command = Command::new(&program);
        command.args(args).arg("--until-stdin-ends").stdin(Stdio::piped());
        // Without being told otherwise it speaks of what is worth a look only.
        command.env("NAVE_LOG", std::env::var("NAVE_LOG").unwrap_or_else(|_| "warn".into()));
        let child = command.spawn().with_context(|| {
            format!("starting {}: is it built (cargo build --release --package {name})?", program.display())
        })?;
        let mut started = Self { child };
        let until = Instant::now() + PATIENCE;
        // It is there a moment before anybody listens.
        while UnixStream::connect(socket).is_err() {
            ensure!(started.child.try_wait()?.is_none(), "{} ended at once", program.display());
            ensure!(Instant::now() < until, "{} does not serve", program.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(started)
    }

    /// Its number, as the files of `/proc` are called.
    pub(crate) fn number(&self) -> String {
        self.child.id().to_string()
    }

    /// Time that its threads have been on a core, to a tick of the system (10 ms).
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn on_core(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let ticks = ticks(&text).with_context(|| format!("{path} is not as it should be"))?;
        let a_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock without ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
    }
}

/// `utime` and `stime` of a `stat` of `/proc` (proc(5)): the 14th and 15th field. The second one is the name in brackets, with
/// whatever is in it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

impl Drop for Process {
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
    }
}

/// A folder for what processes need; it goes with all that is in it. One whose program was killed goes when the next one is made.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// A file in it, locked for as long as it is in use, whatever ends that. (The folder itself is locked by whoever serves in it.)
    _lock: File,
}

/// What the names of folders begin with; behind it is the number of the process.
const FOLDER: &str = "nave-perf-";

impl Folder {
    /// Makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> anyhow::Result<Self> {
        remove_abandoned(parent);
        let path = parent.join(format!("{FOLDER}{}", std::process::id()));
        let made = || -> std::io::Result<File> {
            loop {
                std::fs::create_dir_all(&path)?;
                // Somebody may take it for an abandoned one before it is locked.
                let lock = match lock_of(&path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    lock => lock?,
                };
                lock.lock()?;
                if path.join("lock").exists() {
                    return Ok(lock);
                }
            }
        };
        let lock = made().with_context(|| path.display().to_string())?;
        Ok(Self { path, _lock: lock })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The file of a folder that is locked.
fn lock_of(folder: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(folder.join("lock"))
}

/// Removes the folders whose programs have ended and had no time to. What is another user's stays.
fn remove_abandoned(parent: &Path) {
    let is_ours = |name: &str| {
        name.strip_prefix(FOLDER).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        let lock = lock_of(&entry.path());
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// How a data plane is started.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Its ports, as its command line has them: name and DPDK device.
    pub(crate) ports: Vec<String>,
    /// Cores of its workers.
    pub(crate) workers: Vec<usize>,
    /// Mebibytes that it has for packet buffers and DPDK.
    pub(crate) megabytes: u32,
    /// Further flags.
    pub(crate) flags: Vec<String>,
}

impl Setup {
    /// One worker on the last core, memif ports with these names.
    ///
    /// # Errors
    /// There is no second core for whoever sends.
    pub(crate) fn memif(ports: &[&str]) -> anyhow::Result<Self> {
        let worker = cores(2).context("one core forwards, one sends")?[0].id;
        Ok(Self::memif_on(ports, vec![worker]))
    }

    /// Workers on these cores, memif ports with these names.
    pub(crate) fn memif_on(ports: &[&str], workers: Vec<usize>) -> Self {
        let device = |(number, port): (usize, &&str)| {
            format!("{port}=net_memif{number},role=server,{}", memif_socket(port))
        };
        let ports = ports.iter().enumerate().map(device).collect();
        let megabytes = MEGABYTES * workers.len() as u32;
        Self { ports, workers, megabytes, flags: Vec::new() }
    }
}

/// A data plane.
#[derive(Debug)]
pub(crate) struct Dataplane {
    pub(crate) process: Process,
    /// Where it serves.
    pub(crate) socket: PathBuf,
    pub(crate) huge_pages: bool,
}

impl Dataplane {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// It is not built, or does not start.
    pub(crate) fn start(program: Option<&Path>, folder: &Folder, setup: &Setup) -> anyhow::Result<Self> {
        let socket = folder.file("dataplane.sock");
        let huge_pages = free_huge_megabytes() >= 2 * setup.megabytes;
        let memory = if huge_pages { "in-memory".to_owned() } else { format!("no-huge:{}", setup.megabytes) };
        let workers: Vec<String> = setup.workers.iter().map(usize::to_string).collect();
        let named = [("--workers", workers.join(",")), ("--memory", memory)];
        let named = named.into_iter().chain([("--socket", socket.display().to_string())]);
        let ports = setup.ports.iter().map(|port| ("--port", port.clone()));
        let mut args: Vec<String> =
            ports.chain(named).flat_map(|(name, value)| [name.to_owned(), value]).collect();
        args.extend_from_slice(&setup.flags);
        let process = Process::start(program, "dataplane", &args, &socket)?;
        Ok(Self { process, socket, huge_pages })
    }
}

/// DPDK's devices that are the other ends of these ports, in their order `net_memif0` and so on.
pub(crate) fn other_ends(ports: &[&str]) -> Vec<String> {
    let device =
        |(number, port): (usize, &&str)| format!("net_memif{number},role=client,{}", memif_socket(port));
    ports.iter().enumerate().map(device).collect()
}

/// Opens devices whose other ends somebody else opens, and waits until all ends have found each other.
///
/// # Errors
/// A device cannot be opened, or its link does not come up.
pub(crate) fn open_linked<const N: usize>(
    eal: &Eal,
    devices: [&str; N],
    config: &PortConfig,
) -> anyhow::Result<[Opened; N]> {
    let open = |device| Port::open(eal, device, config).with_context(|| format!("opening {device}"));
    let ports = devices.into_iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let until = Instant::now() + LINK;
    for (device, opened) in devices.iter().zip(&ports) {
        while !opened.port.link()?.up {
            ensure!(Instant::now() < until, "the link of {device} does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    ports.try_into().ok().context("a port for each device")
}

/// The argument of a memif device at either end: the (abstract) socket by which the ends find each other.
fn memif_socket(port: &str) -> String {
    format!("socket=nave-perf-{}-{port}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: folders of a program that is gone, of one that runs, and what is not ours to judge. Output: the first is gone when the next folder is
    /// made, the others are there; that one goes when it is no longer used.
    #[test]
    fn a_killed_programs_folder_goes_with_the_next_run() {
        let parent = std::env::temp_dir().join(format!("nave-folders-{}", std::process::id()));
        let [killed, running, other] =
            ["nave-perf-1", "nave-perf-2", "nave-perf-results"].map(|name| parent.join(name));
        for folder in [&killed, &running, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(killed.join("nave.toml"), "").unwrap();
        let lock = lock_of(&running).unwrap();
        lock.lock().unwrap();
        let folder = Folder::new_in(&parent).unwrap();
        std::fs::write(folder.file("nave.toml"), "").unwrap();
        let there = |path: &Path| path.exists();
        assert_eq!([there(&killed), there(&running), there(&other)], [false, true, true]);
        let again = Folder::new_in(&parent.join("elsewhere")).unwrap();
        assert!(there(&folder.file("nave.toml")) && again.file("a").parent().is_some_and(there));
        let path = folder.path.clone();
        drop(folder);
        assert!(!there(&path));
        // Who serves in it locks the folder.
        assert!(File::open(&again.path).unwrap().try_lock().is_ok());
        drop(again);
        std::fs::remove_dir_all(parent).unwrap();
    }

    /// Input: a process whose name looks like fields. Output: the fields behind it.
    #[test]
    fn ticks_are_those_of_both_modes() {
        let stat = "7 (a) S 1 2) S 1 7 7 0 -1 4194304 100 0 0 0 250 31 4 5 20 0 3 0 99";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (nave) S 1"), None);
    }
}
