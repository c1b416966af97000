//! The machine, as its /proc and /sys tell of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Cores, by their numbers.
pub(super) type Cores = BTreeSet<usize>;

/// Everything that is looked at.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Words that the processor says of itself.
    pub(super) flags: BTreeSet<String>,
    /// What the kernel tells the time by.
    pub(super) clock: Option<String>,
    /// Reserved huge pages, by NUMA node and size.
    pub(super) huge: Vec<HugePages>,
    /// Which memory becomes huge pages by itself: `always`, `madvise`, `never`.
    pub(super) transparent: Option<String>,
    pub(super) online: Cores,
    /// Cores that the scheduler leaves alone, and those without a tick.
    pub(super) isolated: Cores,
    pub(super) tickless: Cores,
    pub(super) cores: BTreeMap<usize, Core>,
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) dataplanes: Vec<Dataplane>,
    /// PCI devices, by address.
    pub(super) devices: BTreeMap<String, Device>,
}

/// Huge pages of one size on one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HugePages {
    pub(super) node: usize,
    /// Size of a page in KiB.
    pub(super) size: u64,
    pub(super) all: u64,
    pub(super) free: u64,
}

/// A core.
#[derive(Debug, Default)]
pub(super) struct Core {
    /// All threads of the same physical core, this one too.
    pub(super) siblings: Cores,
    pub(super) governor: Option<String>,
    pub(super) node: Option<usize>,
}

/// An interrupt that has come at least once.
#[derive(Debug)]
pub(super) struct Interrupt {
    pub(super) number: u32,
    /// Where it comes.
    pub(super) cores: Cores,
}

/// A PCI device.
#[derive(Debug)]
pub(super) struct Device {
    /// The kernel's driver that has it.
    pub(super) driver: Option<String>,
    pub(super) node: Option<usize>,
}

/// A data plane that runs, or one that is to run.
#[derive(Debug, Default)]
pub(super) struct Dataplane {
    /// 0: it does not run yet.
    pub(super) pid: u32,
    /// Cores of its workers, in their order.
    pub(super) workers: Vec<usize>,
    /// Names of its ports, and their devices.
    pub(super) ports: Vec<(String, String)>,
    /// As its command line has it; none if that says nothing.
    pub(super) idle: Option<String>,
    pub(super) memory: Option<String>,
    /// Its threads that are no workers, and where they may run.
    pub(super) others: Vec<(String, Cores)>,
}

/// What the operator has in mind.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) workers: Vec<usize>,
    /// PCI addresses.
    pub(super) devices: Vec<String>,
}

/// `0-3,8` as the kernel writes it.
pub(super) fn cores(text: &str) -> Cores {
    let parts = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    });
    parts.flatten().collect()
}

/// A folder that /proc and /sys are in.
struct Root<'a>(&'a Path);

impl Root<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Text of a file, without white space around it; none if there is no such file, or none that may be read.
    fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.at(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    fn cores(&self, path: &str) -> Option<Cores> {
        self.text(path).map(|text| cores(&text))
    }

    /// Names in a folder that begin so, with what follows.
    fn names(&self, path: &str, prefix: &str) -> Vec<(String, String)> {
        let names = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| Some((name.clone(), name.strip_prefix(prefix)?.to_owned())))
            .collect();
        names.sort();
        names
    }

    /// The same where a number follows.
    fn numbered(&self, path: &str, prefix: &str) -> Vec<usize> {
        let names = self.names(path, prefix);
        let mut numbers: Vec<_> = names.iter().filter_map(|(_, rest)| rest.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl Machine {
    /// Reads what there is; what is not there is not known.
    pub(super) fn read(root: &Path) -> Self {
        let root = Root(root);
        let cpu = "sys/devices/system/cpu";
        let known = root.numbered(cpu, "cpu");
        let nodes = root.numbered("sys/devices/system/node", "node");
        Self {
            flags: flags(&root),
            clock: root.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            huge: huge_pages(&root, &nodes),
            transparent: root.text("sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| {
                let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('['));
                chosen.map(|word| word.trim_end_matches(']').to_owned())
            }),
            online: root.cores(&format!("{cpu}/online")).unwrap_or_else(|| known.iter().copied().collect()),
            isolated: root.cores(&format!("{cpu}/isolated")).unwrap_or_default(),
            tickless: root.cores(&format!("{cpu}/nohz_full")).unwrap_or_default(),
            cores: known.iter().map(|number| (*number, core(&root, *number, &nodes))).collect(),
            interrupts: interrupts(&root),
            dataplanes: dataplanes(&root),
            devices: devices(&root),
        }
    }
}

fn flags(root: &Root<'_>) -> BTreeSet<String> {
    let text = root.text("proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    line.map(|(_, words)| words.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

fn huge_pages(root: &Root<'_>, nodes: &[usize]) -> Vec<HugePages> {
    let mut found = Vec::new();
    let folders = nodes.iter().map(|node| (*node, format!("sys/devices/system/node/node{node}/hugepages")));
    let mut folders: Vec<_> = folders.collect();
    if folders.is_empty() {
        folders.push((0, "sys/kernel/mm/hugepages".to_owned()));
    }
    for (node, folder) in folders {
        for (name, size) in root.names(&folder, "hugepages-") {
            let number = |file: &str| root.number(&format!("{folder}/{name}/{file}")).unwrap_or(0);
            if let Ok(size) = size.trim_end_matches("kB").parse() {
                let (all, free) = (number("nr_hugepages"), number("free_hugepages"));
                found.push(HugePages { node, size, all, free });
            }
        }
    }
    found
}

fn core(root: &Root<'_>, number: usize, nodes: &[usize]) -> Core {
    let folder = format!("sys/devices/system/cpu/cpu{number}");
    let list = |node: &usize| root.cores(&format!("sys/devices/system/node/node{node}/cpulist"));
    Core {
        siblings: root.cores(&format!("{folder}/topology/thread_siblings_list")).unwrap_or_default(),
        governor: root.text(&format!("{folder}/cpufreq/scaling_governor")),
        node: nodes.iter().copied().find(|node| list(node).is_some_and(|cores| cores.contains(&number))),
    }
}

/// Those that have come, and the cores that they go to now.
fn interrupts(root: &Root<'_>) -> Vec<Interrupt> {
    let text = root.text("proc/interrupts").unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines().skip(1) {
        let Some((number, rest)) = line.split_once(':') else { continue };
        // Those with names are the cores' own: timers, calls from one to the other.
        let Ok(number) = number.trim().parse() else { continue };
        let has_come = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok()).any(|n| n > 0);
        let folder = format!("proc/irq/{number}");
        let cores = root.cores(&format!("{folder}/effective_affinity_list"));
        let cores = cores.filter(|cores| !cores.is_empty());
        let cores = cores.or_else(|| root.cores(&format!("{folder}/smp_affinity_list")));
        if let Some(cores) = cores.filter(|_| has_come) {
            found.push(Interrupt { number, cores });
        }
    }
    found
}

fn devices(root: &Root<'_>) -> BTreeMap<String, Device> {
    let folder = "sys/bus/pci/devices";
    let device = |(address, _): (String, String)| {
        let driver = fs::read_link(root.at(&format!("{folder}/{address}/driver"))).ok();
        let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
        // -1: the machine has one, or does not say.
        let node = root.text(&format!("{folder}/{address}/numa_node")).and_then(|node| node.parse().ok());
        (address, Device { driver, node })
    };
    root.names(folder, "").into_iter().map(device).collect()
}

fn dataplanes(root: &Root<'_>) -> Vec<Dataplane> {
    let pids = root.numbered("proc", "");
    let is_one =
        |pid: &usize| root.text(&format!("proc/{pid}/comm")).is_some_and(|name| name == "nave-dataplane");
    pids.into_iter().filter(is_one).map(|pid| dataplane(root, pid)).collect()
}

fn dataplane(root: &Root<'_>, pid: usize) -> Dataplane {
    let line = root.text(&format!("proc/{pid}/cmdline")).unwrap_or_default();
    let mut found = Dataplane { pid: u32::try_from(pid).unwrap_or(0), ..Dataplane::default() };
    let mut words = line.split('\0').filter(|word| !word.is_empty()).skip(1);
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, value.to_owned()),
            _ => (word, String::new()),
        };
        if !matches!(name, "--workers" | "--port" | "--idle" | "--memory") {
            continue;
        }
        let value = if value.is_empty() { words.next().unwrap_or_default().to_owned() } else { value };
        match name {
            "--workers" => {
                found.workers.extend(value.split(',').filter_map(|core| core.parse::<usize>().ok()))
            }
            "--port" => {
                if let Some((port, device)) = value.split_once('=') {
                    let device = device.split(',').next().unwrap_or(device);
                    found.ports.push((port.to_owned(), pci(device)));
                }
            }
            "--idle" => found.idle = Some(value),
            _ => found.memory = Some(value),
        }
    }
    for thread in root.numbered(&format!("proc/{pid}/task"), "") {
        let of = |file: &str| root.text(&format!("proc/{pid}/task/{thread}/{file}"));
        let (Some(name), Some(status)) = (of("comm"), of("status")) else { continue };
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        if !name.starts_with("nave-worker") {
            found.others.push((name, cores(allowed.unwrap_or_default())));
        }
    }
    found
}

/// A PCI address as the kernel writes it; anything else as it is.
pub(super) fn pci(device: &str) -> String {
    let is_short = device.matches(':').count() == 1 && device.matches('.').count() == 1;
    if is_short { format!("0000:{device}").to_ascii_lowercase() } else { device.to_ascii_lowercase() }
}
