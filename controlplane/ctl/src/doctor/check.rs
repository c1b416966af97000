//! What is looked for, one function a thing. Each says something, be it that all is well.

use std::collections::BTreeSet;

use model::state::count;
use model::state::ports::{OffloadKind, OffloadState, Port};
use model::state::workers::{Idle, Worker};

use super::machine::{Cores, Dataplane, Machine, Planned, pci};
use super::{Finding, Verdict};

/// Less than this in MiB, free and in huge pages, is too little for a data plane with some ports.
const LEAST_FREE: u64 = 256;

/// Kernel drivers that leave a device to a process, or share it with one.
const GIVING: [&str; 7] =
    ["vfio-pci", "uio_pci_generic", "igb_uio", "uio_hv_generic", "mlx5_core", "mlx4_core", "mana"];

/// DPDK drivers whose packets go through the kernel.
const THROUGH_KERNEL: [&str; 4] = ["net_tap", "net_af_packet", "net_af_xdp", "net_pcap"];

/// DPDK drivers that do not spread flows over queues.
const NOT_SPREADING: [&str; 6] =
    ["net_memif", "net_ring", "net_null", "net_pcap", "net_af_packet", "net_tap"];

/// All that is known.
pub(super) struct Site {
    pub(super) machine: Machine,
    pub(super) planned: Planned,
    /// What the node says, if it was there to be asked.
    pub(super) workers: Vec<Worker>,
    pub(super) ports: Vec<Port>,
}

/// Of each physical device that is a port, or is to be one: what it is called, and its PCI address.
type Devices = Vec<(String, String)>;

impl Site {
    /// Every finding, in the order in which they are best mended.
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        if !self.planned.workers.is_empty() || !self.planned.devices.is_empty() {
            let ports = self.planned.devices.iter().map(|device| (device.clone(), pci(device))).collect();
            let workers = self.planned.workers.clone();
            self.machine.dataplanes.push(Dataplane { workers, ports, ..Dataplane::default() });
        }
        let checks: [fn(&Self) -> Vec<Finding>; 14] = [
            Self::dataplane,
            Self::huge_pages,
            Self::transparent,
            Self::cores,
            Self::sharing,
            Self::interrupts,
            Self::governor,
            Self::processor,
            Self::clock,
            Self::numa,
            Self::ports,
            Self::spreading,
            Self::offloads,
            Self::idle,
        ];
        checks.iter().flat_map(|check| check(self)).collect()
    }

    fn all_workers(&self) -> Vec<usize> {
        self.machine.dataplanes.iter().flat_map(|dataplane| dataplane.workers.iter().copied()).collect()
    }

    fn worker_cores(&self) -> Cores {
        self.all_workers().into_iter().collect()
    }

    fn devices(&self) -> Devices {
        let ports = self.machine.dataplanes.iter().flat_map(|dataplane| &dataplane.ports);
        ports.filter(|(_, device)| !is_virtual(device)).cloned().collect()
    }

    /// Who is looked at.
    fn dataplane(&self) -> Vec<Finding> {
        let topic = "data plane";
        let all = &self.machine.dataplanes;
        if all.is_empty() {
            let found = "none runs here: only the machine is looked at";
            let remedy = "--workers and --device say which cores and NICs one is to have";
            return vec![Finding::new(topic, Verdict::Note, found).remedy(remedy)];
        }
        let say = |dataplane: &Dataplane| {
            let who = match dataplane.pid {
                0 => "one that is to run".to_owned(),
                pid => format!("process {pid}"),
            };
            let found = format!(
                "{who}: workers on {}; {}",
                named(dataplane.workers.iter().copied()),
                count(dataplane.ports.len() as u64, "port", "ports")
            );
            Finding::new(topic, Verdict::Ok, found)
        };
        all.iter().map(say).collect()
    }

    fn huge_pages(&self) -> Vec<Finding> {
        let topic = "huge pages";
        let ordinary =
            self.machine.dataplanes.iter().find(|dataplane| {
                dataplane.memory.as_ref().is_some_and(|memory| memory.starts_with("no-huge"))
            });
        let sizes: BTreeSet<u64> = self.machine.huge.iter().map(|pages| pages.size).collect();
        let of = |size: u64| {
            let pages = self.machine.huge.iter().filter(move |pages| pages.size == size);
            pages.fold((0, 0), |(all, free), pages| (all + pages.all, free + pages.free))
        };
        let (mut words, mut all_mib, mut free_mib) = (Vec::new(), 0, 0);
        for size in sizes {
            let (all, free) = of(size);
            all_mib += all * size / 1024;
            free_mib += free * size / 1024;
            if all > 0 {
                words.push(format!("{all} of {} MiB, {free} free", size / 1024));
            }
        }
        let found = if words.is_empty() { "none are reserved".to_owned() } else { words.join("; ") };
        let reserve = "sysctl vm.nr_hugepages=1024, and the same in /etc/sysctl.d (2 GiB of 2 MiB pages, on each NUMA node with workers)";
        if let Some(dataplane) = ordinary {
            let found =
                format!("process {} has its packet buffers in ordinary pages; {found}", dataplane.pid);
            let remedy = "--memory in-memory, the default".to_owned();
            let remedy = if free_mib < LEAST_FREE { format!("{reserve}; then {remedy}") } else { remedy };
            return vec![Finding::new(topic, Verdict::Slow, found).remedy(remedy)];
        }
        let runs = self.machine.dataplanes.iter().any(|dataplane| dataplane.pid != 0);
        let verdict = match (all_mib, runs) {
            (0, _) => Verdict::Bad,
            (_, false) if free_mib < LEAST_FREE => Verdict::Bad,
            _ => Verdict::Ok,
        };
        let finding = Finding::new(topic, verdict, found);
        vec![if verdict == Verdict::Ok { finding } else { finding.remedy(reserve) }]
    }

    fn transparent(&self) -> Vec<Finding> {
        let topic = "tables";
        vec![match self.machine.transparent.as_deref() {
            Some("never") => Finding::new(
                topic,
                Verdict::Slow,
                "transparent huge pages are off: look-ups in large tables miss the TLB",
            )
            .remedy("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
            Some(word) => Finding::new(topic, Verdict::Ok, format!("transparent huge pages: {word}")),
            None => Finding::new(topic, Verdict::Note, "this kernel has no transparent huge pages"),
        }]
    }

    /// Whether the kernel leaves workers' cores alone.
    fn cores(&self) -> Vec<Finding> {
        let topic = "cores";
        let workers = self.worker_cores();
        if workers.is_empty() {
            let isolated = &self.machine.isolated;
            let found = match isolated.is_empty() {
                true => format!("{} online, none isolated", self.machine.online.len()),
                false => format!(
                    "{} online, isolated: {}",
                    self.machine.online.len(),
                    named(isolated.iter().copied())
                ),
            };
            return vec![Finding::new(topic, Verdict::Note, found)];
        }
        let absent: Vec<_> = workers.difference(&self.machine.online).copied().collect();
        if !absent.is_empty() {
            let found = format!("not online: {}", named(absent));
            return vec![
                Finding::new(topic, Verdict::Bad, found).remedy("give --workers cores that there are"),
            ];
        }
        if self.machine.online.is_subset(&workers) {
            let found = "workers have all cores: interrupts, the kernel twins and the control plane take their time from them";
            return vec![
                Finding::new(topic, Verdict::Slow, found)
                    .remedy("leave one core, the first, to everything else"),
            ];
        }
        let mut missing = Vec::new();
        let lacking = |cores: &Cores| -> Vec<usize> { workers.difference(cores).copied().collect() };
        for (cores, words) in [
            (lacking(&self.machine.isolated), "not isolated from the scheduler"),
            (lacking(&self.machine.tickless), "with the timer's tick"),
        ] {
            if !cores.is_empty() {
                missing.push(format!("{words}: {}", named(cores)));
            }
        }
        if missing.is_empty() {
            return vec![Finding::new(
                topic,
                Verdict::Ok,
                format!("isolated, and without a tick: {}", named(workers)),
            )];
        }
        let list = kernel_list(&workers);
        let remedy = format!("boot with isolcpus={list} nohz_full={list} rcu_nocbs={list}");
        vec![Finding::new(topic, Verdict::Slow, missing.join("; ")).remedy(remedy)]
    }

    /// Whether a worker has its physical core for itself.
    fn sharing(&self) -> Vec<Finding> {
        let topic = "sharing";
        let workers = self.all_workers();
        let cores = self.worker_cores();
        let mut findings = Vec::new();
        let twice: Cores =
            cores.iter().copied().filter(|core| workers.iter().filter(|w| *w == core).count() > 1).collect();
        if !twice.is_empty() {
            let found = format!("several workers have one: {}", named(twice));
            findings.push(
                Finding::new(topic, Verdict::Bad, found)
                    .remedy("give each worker, of each data plane, a core of its own"),
            );
        }
        let siblings = |core: &usize| {
            let known = self.machine.cores.get(core).map(|core| core.siblings.clone()).unwrap_or_default();
            known
                .into_iter()
                .filter(|other| other != core && self.machine.online.contains(other))
                .collect::<Cores>()
        };
        let paired: Cores =
            cores.iter().copied().filter(|core| !siblings(core).is_disjoint(&cores)).collect();
        if !paired.is_empty() {
            let found = format!("hyper-threads of one physical core: {}", named(paired.clone()));
            findings.push(Finding::new(topic, Verdict::Slow, found).remedy("one worker for each physical core: see thread_siblings_list in /sys/devices/system/cpu/cpu*/topology"));
        }
        let beside: Cores = cores
            .difference(&paired)
            .flat_map(siblings)
            .filter(|other| !self.machine.isolated.contains(other))
            .collect();
        if !beside.is_empty() {
            let found =
                format!("the other hyper-thread of a worker may run anything: {}", named(beside.clone()));
            let remedy = format!(
                "isolcpus={} as well, or echo 0 > /sys/devices/system/cpu/cpuN/online",
                kernel_list(&beside)
            );
            findings.push(Finding::new(topic, Verdict::Note, found).remedy(remedy));
        }
        for dataplane in &self.machine.dataplanes {
            let own: Cores = dataplane.workers.iter().copied().collect();
            let names: BTreeSet<_> = dataplane
                .others
                .iter()
                .filter(|(_, allowed)| !allowed.is_disjoint(&own))
                .map(|(name, _)| name.clone())
                .collect();
            if !names.is_empty() {
                let found = format!(
                    "{} of process {} may run on workers' cores",
                    names.into_iter().collect::<Vec<_>>().join(", "),
                    dataplane.pid
                );
                findings.push(Finding::new(topic, Verdict::Slow, found).remedy("let the process have one core more than it has workers (taskset, CPUAffinity= of systemd, cpuset)"));
            }
        }
        if findings.is_empty() && !cores.is_empty() {
            findings.push(Finding::new(topic, Verdict::Ok, "each worker has a physical core for itself"));
        }
        findings
    }

    fn interrupts(&self) -> Vec<Finding> {
        let topic = "interrupts";
        let workers = self.worker_cores();
        if workers.is_empty() {
            return Vec::new();
        }
        let there: Vec<_> =
            self.machine.interrupts.iter().filter(|irq| !irq.cores.is_disjoint(&workers)).collect();
        if there.is_empty() {
            return vec![Finding::new(topic, Verdict::Ok, "none goes to a worker's core")];
        }
        let others: Cores = self.machine.online.difference(&workers).copied().collect();
        let numbers: Vec<_> = there.iter().take(6).map(|irq| irq.number.to_string()).collect();
        let more = if there.len() > numbers.len() { ", …" } else { "" };
        let found = format!(
            "{} to workers' cores: IRQ {}{more}",
            count(there.len() as u64, "goes", "go"),
            numbers.join(", ")
        );
        let remedy = format!(
            "stop irqbalance, and echo {} > /proc/irq/N/smp_affinity_list for each",
            kernel_list(if others.is_empty() { &self.machine.online } else { &others })
        );
        vec![Finding::new(topic, Verdict::Slow, found).remedy(remedy)]
    }

    fn governor(&self) -> Vec<Finding> {
        let topic = "frequency";
        let workers = self.worker_cores();
        let cores = if workers.is_empty() { self.machine.online.clone() } else { workers };
        let governor = |core: &usize| self.machine.cores.get(core)?.governor.clone();
        let known: Vec<_> = cores.iter().filter_map(|core| Some((*core, governor(core)?))).collect();
        if known.is_empty() {
            return vec![Finding::new(topic, Verdict::Ok, "not this system's to choose")];
        }
        let saving: Cores =
            known.iter().filter(|(_, governor)| governor != "performance").map(|(core, _)| *core).collect();
        if saving.is_empty() {
            return vec![Finding::new(topic, Verdict::Ok, "governor performance")];
        }
        let names: BTreeSet<_> = known.iter().map(|(_, governor)| governor.clone()).collect();
        let found =
            format!("governor {} on {}", names.into_iter().collect::<Vec<_>>().join(", "), named(saving));
        vec![Finding::new(topic, Verdict::Slow, found).remedy("cpupower frequency-set -g performance")]
    }

    /// Who seals and opens ESP, and whether the processor could do better.
    fn processor(&self) -> Vec<Finding> {
        let topic = "AES-GCM";
        let has = |words: &[&str]| words.iter().all(|word| self.machine.flags.contains(*word));
        let has_vaes = has(&["vaes", "vpclmulqdq", "avx2"]);
        let best = match () {
            () if has_vaes && has(&["avx512f", "avx512bw", "avx512vl"]) => "vaes512",
            () if has_vaes => "vaes256",
            () if has(&["aes", "pclmulqdq", "avx2", "bmi1", "bmi2"]) => "aesni",
            () if has(&["aes", "pclmulqdq"]) => "ring",
            () => "aes-gcm",
        };
        let rank = |provider: &str| {
            ["aes-gcm", "ring", "aesni", "vaes256", "vaes512"].iter().position(|name| *name == provider)
        };
        let used: BTreeSet<&str> = self.workers.iter().map(|worker| worker.aead.as_str()).collect();
        let worst = used.iter().copied().min_by_key(|provider| rank(provider));
        if let Some(worst) = worst.filter(|worst| rank(worst) < rank(best)) {
            let found = format!("{worst} is used, and the processor can do {best}");
            return vec![Finding::new(topic, Verdict::Slow, found).remedy(
                "start nave-dataplane without --aead; its first log line says why it takes another one",
            )];
        }
        let provider = worst.unwrap_or(best);
        let (verdict, words) = match provider {
            "vaes512" => (Verdict::Ok, "VAES in 512 bits"),
            "vaes256" => (Verdict::Note, "VAES in 256 bits, for the processor has no AVX-512"),
            "aesni" => (
                Verdict::Note,
                "AES-NI, for the processor has no VAES, which would do two or four blocks at a time",
            ),
            "ring" => (Verdict::Slow, "the processor has no AVX2 and BMI, which our own kernels need"),
            _ => (Verdict::Bad, "the processor has no instructions for AES"),
        };
        vec![Finding::new(topic, verdict, format!("{provider}: {words}"))]
    }

    fn clock(&self) -> Vec<Finding> {
        let has = |word: &str| self.machine.flags.contains(word);
        let is_steady = has("constant_tsc") && has("nonstop_tsc");
        let mut findings = vec![match self.machine.clock.as_deref() {
            Some("tsc") | None if is_steady => Finding::new("clock", Verdict::Ok, "the TSC runs steadily"),
            clock => {
                let found = format!(
                    "{}; the kernel's is {}",
                    if is_steady {
                        "the TSC runs steadily"
                    } else {
                        "the TSC is not said to run steadily: times and rates may be wrong"
                    },
                    clock.unwrap_or("not known")
                );
                let verdict = if is_steady { Verdict::Note } else { Verdict::Slow };
                Finding::new("clock", verdict, found).remedy(
                    "on the host: expose an invariant TSC; here: boot with clocksource=tsc tsc=reliable",
                )
            }
        }];
        if has("hypervisor") {
            let found = "this is a virtual machine: its host may take cores away at any time";
            findings.push(Finding::new("machine", Verdict::Note, found).remedy("on the host: pin each virtual core to a core of its own, and back the memory with huge pages"));
        }
        findings
    }

    /// Whether ports, workers and memory are close to each other.
    fn numa(&self) -> Vec<Finding> {
        let topic = "NUMA";
        let node_of = |core: &usize| self.machine.cores.get(core).and_then(|core| core.node);
        let workers: BTreeSet<usize> = self.worker_cores().iter().filter_map(node_of).collect();
        let nodes: BTreeSet<usize> = self.machine.cores.values().filter_map(|core| core.node).collect();
        if nodes.len() < 2 {
            return vec![Finding::new(topic, Verdict::Ok, "one node")];
        }
        let mut findings = Vec::new();
        if workers.len() > 1 {
            let found =
                format!("workers are on nodes {}: they read each other's memory", listed(workers.clone()));
            findings.push(
                Finding::new(topic, Verdict::Slow, found)
                    .remedy("workers on the cores of one node, or a data plane for each"),
            );
        }
        for (name, address) in self.devices() {
            let node = self.machine.devices.get(&address).and_then(|device| device.node);
            if let Some(node) = node.filter(|node| !workers.is_empty() && !workers.contains(node)) {
                let found = format!(
                    "port {name} ({address}) is on node {node}, workers on {}",
                    listed(workers.clone())
                );
                findings.push(
                    Finding::new(topic, Verdict::Slow, found)
                        .remedy(format!("workers on cores of node {node}")),
                );
            }
        }
        for node in &workers {
            let here = || self.machine.huge.iter().filter(|pages| pages.node == *node);
            if here().all(|pages| pages.all == 0) && self.machine.huge.iter().any(|pages| pages.all > 0) {
                let found = format!("node {node} has workers and no huge pages");
                let remedy = format!(
                    "echo 1024 > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"
                );
                findings.push(Finding::new(topic, Verdict::Slow, found).remedy(remedy));
            }
        }
        if findings.is_empty() {
            findings.push(Finding::new(topic, Verdict::Ok, "ports, workers and memory are on one node"));
        }
        findings
    }

    /// Whether packets come straight from a card.
    fn ports(&self) -> Vec<Finding> {
        let topic = "ports";
        let mut findings = Vec::new();
        for (name, address) in self.devices() {
            let Some(device) = self.machine.devices.get(&address) else {
                let found = format!("port {name}: there is no PCI device {address}");
                findings.push(Finding::new(topic, Verdict::Bad, found).remedy("lspci says which there are"));
                continue;
            };
            if let Some(driver) = device.driver.as_deref().filter(|driver| !GIVING.contains(driver)) {
                let found = format!("port {name}: {address} is the kernel's, by its driver {driver}");
                let remedy = format!("dpdk-devbind.py --bind=vfio-pci {address}");
                findings.push(Finding::new(topic, Verdict::Bad, found).remedy(remedy));
            }
        }
        let all = self.machine.dataplanes.iter().flat_map(|dataplane| &dataplane.ports);
        let slow: Vec<_> = all
            .filter(|(_, device)| THROUGH_KERNEL.iter().any(|driver| device.starts_with(driver)))
            .map(|(name, device)| format!("{name} ({})", driver(device)))
            .collect();
        if !slow.is_empty() {
            let found = format!("packets of {} go through the kernel", slow.join(", "));
            findings.push(
                Finding::new(topic, Verdict::Slow, found)
                    .remedy("a NIC by its PCI address, or net_memif to another process"),
            );
        }
        if findings.is_empty() && !self.machine.dataplanes.is_empty() {
            findings.push(Finding::new(topic, Verdict::Ok, "none goes through the kernel"));
        }
        findings
    }

    /// Whether every worker gets packets.
    fn spreading(&self) -> Vec<Finding> {
        let topic = "spreading";
        let most = self.machine.dataplanes.iter().map(|dataplane| dataplane.workers.len()).max().unwrap_or(0);
        if most < 2 {
            return Vec::new();
        }
        let dataplanes = self.machine.dataplanes.iter().filter(|dataplane| dataplane.workers.len() > 1);
        let devices = dataplanes.flat_map(|dataplane| &dataplane.ports);
        let chosen: BTreeSet<String> = devices
            .filter(|(_, device)| NOT_SPREADING.contains(&driver(device)))
            .filter(|(name, _)| !self.ports.iter().any(|port| port.name == *name && self.is_short(port)))
            .map(|(name, device)| format!("{name} ({})", driver(device)))
            .collect();
        let short = self.ports.iter().filter(|port| self.is_short(port));
        let short: Vec<_> =
            short.map(|port| format!("{} ({}, queues: {})", port.name, port.driver, port.queues)).collect();
        let mut findings = Vec::new();
        if !short.is_empty() {
            let found = format!(
                "fewer queues than workers: software spreads what comes by {}, and a worker with a queue looks at every packet",
                short.join(", ")
            );
            findings.push(
                Finding::new(topic, Verdict::Slow, found)
                    .remedy("a NIC with RSS and a queue for each worker, or one worker"),
            );
        }
        if !chosen.is_empty() {
            let chosen = chosen.into_iter().collect::<Vec<_>>().join(", ");
            let found = format!("without RSS, the other end chooses the worker: {chosen}");
            findings.push(
                Finding::new(topic, Verdict::Note, found).remedy(
                    "a NIC with RSS; or --queues NAME=1, then software spreads flows over all workers",
                ),
            );
        }
        if findings.is_empty() {
            findings.push(Finding::new(topic, Verdict::Ok, "ports spread flows over the workers' queues"));
        }
        findings
    }

    /// Whether a port has fewer queues than there are workers.
    fn is_short(&self, port: &Port) -> bool {
        usize::from(port.queues) < self.workers.len()
    }

    /// Whether cards do what they can in place of the workers.
    fn offloads(&self) -> Vec<Finding> {
        let topic = "offloads";
        let cards = || self.ports.iter().filter(|port| !NOT_SPREADING.contains(&&*port.driver));
        let several = self.workers.len() > 1;
        let in_state = |state| -> Vec<String> {
            let of = |port: &Port| {
                let those = port.offloads.iter().filter(|offload| offload.state == state);
                // What there is a use for.
                let those = those.filter(|offload| match offload.kind {
                    OffloadKind::Ipv4Checksum => true,
                    OffloadKind::Rss => several,
                    // Not asked: for the reason that RSS is not used for.
                    OffloadKind::EspSteering => several && state != OffloadState::Unused,
                    OffloadKind::InlineCrypto => false,
                });
                let kinds: Vec<_> = those.map(|offload| offload.kind.to_string()).collect();
                (!kinds.is_empty()).then(|| format!("{} ({})", port.name, kinds.join(", ")))
            };
            cards().filter_map(of).collect()
        };
        let unused = in_state(OffloadState::Unused);
        if !unused.is_empty() {
            let found = format!("offered and not used: {}", unused.join(", "));
            let remedy =
                "start nave-dataplane without --offloads NAME=none, and with a queue for each worker";
            return vec![Finding::new(topic, Verdict::Slow, found).remedy(remedy)];
        }
        let refused = in_state(OffloadState::Refused);
        if !refused.is_empty() {
            let found = format!("not offered: {}; workers do it themselves", refused.join(", "));
            return vec![Finding::new(topic, Verdict::Note, found)];
        }
        let used = in_state(OffloadState::Used);
        match used.is_empty() {
            true => Vec::new(),
            false => vec![Finding::new(topic, Verdict::Ok, format!("used: {}", used.join(", ")))],
        }
    }

    fn idle(&self) -> Vec<Finding> {
        let topic = "idle";
        let mut findings = Vec::new();
        for dataplane in &self.machine.dataplanes {
            let all_virtual = dataplane.ports.iter().all(|(_, device)| is_virtual(device));
            let asked = dataplane.idle.as_deref();
            let told = (self.machine.dataplanes.len() == 1)
                .then(|| self.workers.first().map(|worker| worker.idle))
                .flatten();
            let sleeps = told.map_or_else(
                || asked.map_or(all_virtual, |idle| idle == "adaptive"),
                |idle| idle == Idle::Adaptive,
            );
            findings.push(match (sleeps, all_virtual) {
                (false, _) => Finding::new(topic, Verdict::Ok, "workers poll and never sleep"),
                (true, true) => {
                    let found = "workers sleep up to 200 µs when nothing comes, as is usual with virtual ports only";
                    Finding::new(topic, Verdict::Note, found).remedy("--idle poll, where latency counts more than the power of a core")
                }
                (true, false) => {
                    let found = "workers sleep up to 200 µs when nothing comes, and a card's ring may overflow meanwhile";
                    Finding::new(topic, Verdict::Slow, found).remedy("start nave-dataplane without --idle adaptive")
                }
            });
        }
        findings.dedup();
        findings
    }
}

fn is_virtual(device: &str) -> bool {
    device.starts_with("net_")
}

/// `net_tap0` is one of `net_tap`.
fn driver(device: &str) -> &str {
    device.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// `core 1`, `cores 1, 2`.
fn named(cores: impl IntoIterator<Item = usize>) -> String {
    let list = listed(cores);
    if list.contains(',') { format!("cores {list}") } else { format!("core {list}") }
}

/// `1, 2`
fn listed(numbers: impl IntoIterator<Item = usize>) -> String {
    let numbers: Vec<_> = numbers.into_iter().map(|number| number.to_string()).collect();
    numbers.join(", ")
}

/// As the kernel's command line wants them.
fn kernel_list(cores: &Cores) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
