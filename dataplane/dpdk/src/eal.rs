//! The environment abstraction layer: DPDK's start-up.

use crate::errno::Errno;
use crate::worker;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where DPDK's memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Memory {
    /// Huge pages through a mounted hugetlbfs; the files are unlinked as soon as they are mapped.
    Huge {
        /// The mount; by default the one that the kernel reports.
        dir: Option<PathBuf>,
    },
    /// Huge pages through anonymous memory (memfd): no mount, no files. Needs reserved huge pages all the same.
    #[default]
    InMemory,
    /// Ordinary pages: for tests and virtual ports. All of it is reserved at start.
    NoHuge {
        /// Size in MiB.
        mb: u32,
    },
}

/// What DPDK writes to standard error and syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing but failures.
    Error,
    /// Failures, and what works worse than it could.
    #[default]
    Warning,
    /// What drivers find worth noting.
    Notice,
    /// Drivers' progress.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How DPDK starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EalArgs {
    /// Where memory comes from.
    pub memory: Memory,
    /// Virtual devices to create, in DPDK's words: `net_tap0,iface=lan0`. The name before the comma is the port's.
    pub vdevs: Vec<String>,
    /// PCI devices to take, with their arguments if any: `0000:3b:00.0`. With none the PCI bus is left alone.
    pub pci: Vec<String>,
    /// Prefix of hugetlbfs file names; by default `nave`.
    pub file_prefix: Option<String>,
    /// CPUs of DPDK's own threads (interrupts, alarms): those that no worker has. Empty: those the caller may use.
    pub cpus: Vec<usize>,
    /// What DPDK logs.
    pub log: LogLevel,
}

/// Proof that DPDK runs in this process.
#[derive(Debug, Clone, Copy)]
pub struct Eal(());

/// DPDK did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// It runs, or failed to start, already: once per process is DPDK's rule.
    #[error("DPDK was started in this process before")]
    Started,
    /// An argument holds a zero byte.
    #[error("EAL argument {0:?} holds a zero byte")]
    Argument(String),
    /// The calling thread's CPUs could not be read or set.
    #[error("CPUs of DPDK's threads {cpus:?}: {source}")]
    Affinity {
        /// The CPUs asked for.
        cpus: Vec<usize>,
        /// What the kernel said.
        source: nix::errno::Errno,
    },
    /// `rte_eal_init` failed; its own words are on standard error.
    #[error("starting DPDK ({arguments}): {errno}{}", memory_hint(arguments))]
    Init {
        /// The EAL's command line.
        arguments: String,
        /// Why.
        errno: Errno,
    },
    /// A virtual device could not be created; the driver's own words are on standard error.
    #[error("creating {device}: {errno}{}", hint(device))]
    Vdev {
        /// The device and its arguments.
        device: String,
        /// Why.
        errno: Errno,
    },
}

/// What a driver needs that does not say so itself.
fn hint(device: &str) -> &'static str {
    if device.starts_with("net_tap") {
        " (needs CAP_NET_ADMIN, /dev/net/tun and a free interface name)"
    } else if device.starts_with("net_af_packet") {
        " (needs CAP_NET_RAW and iface= of an existing interface)"
    } else {
        ""
    }
}

/// What most often keeps DPDK from starting; its own error number is seldom about it.
fn memory_hint(arguments: &str) -> &'static str {
    if arguments.contains("--no-huge") {
        ""
    } else if arguments.contains("--in-memory") {
        "; are huge pages reserved (sysctl vm.nr_hugepages)?"
    } else {
        "; are huge pages reserved (sysctl vm.nr_hugepages) and is a hugetlbfs mounted?"
    }
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts DPDK, once per process.
    ///
    /// 1. DPDK's control threads get [`EalArgs::cpus`]: the calling thread takes that affinity for the time of the call
    ///    (they inherit it) and its own back afterwards.
    /// 2. The EAL starts, without telemetry and without files shared between processes.
    /// 3. Virtual devices are created one by one, so that an error names its device.
    ///
    /// The calling thread counts as registered ([`crate::register_worker_thread`]) from here on.
    ///
    /// # Errors
    /// [`EalError`]; after any but [`EalError::Argument`] and [`EalError::Affinity`] the process cannot try again.
    pub fn start(args: &EalArgs) -> Result<Self, EalError> {
        let own = affinity().map_err(|source| EalError::Affinity { cpus: Vec::new(), source })?;
        let cpus = if args.cpus.is_empty() { own.clone() } else { args.cpus.clone() };
        let words = command_line(args, &cpus);
        let argv = words.iter().map(|word| c_string(word)).collect::<Result<Vec<_>, _>>()?;
        let vdevs = args.vdevs.iter().map(|vdev| split_vdev(vdev)).collect::<Result<Vec<_>, _>>()?;
        set_affinity(&cpus)?;
        let started = Self::init(&argv).map_err(|error| match error {
            Some(errno) => EalError::Init { arguments: words.join(" "), errno },
            None => EalError::Started,
        });
        set_affinity(&own)?;
        let eal = started?;
        worker::note_main_thread();
        for ((name, arguments), vdev) in vdevs.iter().zip(&args.vdevs) {
            // SAFETY: the EAL runs; it copies both strings.
            let created = unsafe { dpdk_sys::rte_vdev_init(name.as_ptr(), arguments.as_ptr()) };
            Errno::check(created).map_err(|errno| EalError::Vdev { device: vdev.clone(), errno })?;
        }
        Ok(eal)
    }

    /// Runs `rte_eal_init`; `Err(None)` if that happened before.
    fn init(argv: &[CString]) -> Result<Self, Option<Errno>> {
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(None);
        }
        // DPDK permutes the array and keeps pointers into the strings: both stay for good.
        let argv: &'static mut [*mut c_char] =
            argv.iter().map(|word| word.clone().into_raw()).collect::<Vec<_>>().leak();
        let argc = c_int::try_from(argv.len()).map_err(|_| Some(Errno(nix::errno::Errno::E2BIG as i32)))?;
        // SAFETY: argv holds argc strings for good, and this is the process's only call.
        if unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) } < 0 {
            return Err(Some(Errno::last()));
        }
        Ok(Self(()))
    }
}

/// The EAL's command line.
fn command_line(args: &EalArgs, cpus: &[usize]) -> Vec<String> {
    let mut words: Vec<String> = vec!["nave".into(), "--no-telemetry".into(), "--no-shconf".into()];
    words.push(format!("--file-prefix={}", args.file_prefix.as_deref().unwrap_or("nave")));
    words.push(format!("--log-level={}", args.log.word()));
    if args.log == LogLevel::Debug {
        words.push("--log-level=*:debug".into());
    }
    if matches!(args.log, LogLevel::Error | LogLevel::Warning) {
        // net_tap calls it an error that a kernel lacks the multiq qdisc of rte_flow, which nobody asked for. What
        // really fails there comes back as an error of ours.
        words.push("--log-level=pmd.net.tap:critical".into());
    }
    let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    words.push(format!("--lcores=0@({})", cpus.join(",")));
    match &args.memory {
        Memory::Huge { dir } => {
            words.push("--huge-unlink=always".into());
            words.extend(dir.iter().map(|dir| format!("--huge-dir={}", dir.display())));
        }
        Memory::InMemory => words.push("--in-memory".into()),
        Memory::NoHuge { mb } => words.extend(["--no-huge".into(), "-m".into(), mb.to_string()]),
    }
    if args.pci.is_empty() {
        words.push("--no-pci".into());
    }
    words.extend(args.pci.iter().map(|device| format!("--allow={device}")));
    words
}

fn c_string(word: &str) -> Result<CString, EalError> {
    CString::new(word).map_err(|_| EalError::Argument(word.to_owned()))
}

/// A virtual device's name, and its arguments behind the first comma.
fn split_vdev(vdev: &str) -> Result<(CString, CString), EalError> {
    let (name, arguments) = vdev.split_once(',').unwrap_or((vdev, ""));
    Ok((c_string(name)?, c_string(arguments)?))
}

/// The CPUs that the calling thread may use.
fn affinity() -> Result<Vec<usize>, nix::errno::Errno> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Moves the calling thread to `cpus`.
fn set_affinity(cpus: &[usize]) -> Result<(), EalError> {
    let set = || {
        let mut set = CpuSet::new();
        cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
        sched_setaffinity(Pid::from_raw(0), &set)
    };
    set().map_err(|source| EalError::Affinity { cpus: cpus.to_vec(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_the_command_line() {
        let args = EalArgs { memory: Memory::NoHuge { mb: 64 }, ..EalArgs::default() };
        let line = command_line(&args, &[0, 2]).join(" ");
        assert_eq!(
            line,
            "nave --no-telemetry --no-shconf --file-prefix=nave --log-level=warning --log-level=pmd.net.tap:critical --lcores=0@(0,2) --no-huge -m 64 --no-pci"
        );
        let huge = Memory::Huge { dir: Some("/mnt/huge".into()) };
        let args = EalArgs { memory: huge, pci: vec!["0000:3b:00.0".into()], ..EalArgs::default() };
        let line = command_line(&args, &[1]).join(" ");
        assert!(
            line.ends_with("--lcores=0@(1) --huge-unlink=always --huge-dir=/mnt/huge --allow=0000:3b:00.0"),
            "{line}"
        );
    }

    #[test]
    fn what_cannot_be_an_argument_is_refused_before_anything_starts() {
        let args = EalArgs { vdevs: vec!["net_null0,a\0b".into()], ..EalArgs::default() };
        assert!(matches!(Eal::start(&args), Err(EalError::Argument(word)) if word == "a\0b"));
        let args = EalArgs { cpus: vec![1 << 20], ..EalArgs::default() };
        assert!(matches!(Eal::start(&args), Err(EalError::Affinity { .. })));
        let (name, arguments) = split_vdev("net_tap0,iface=lan0,remote=x").unwrap();
        assert_eq!((name.to_str(), arguments.to_str()), (Ok("net_tap0"), Ok("iface=lan0,remote=x")));
    }
}
