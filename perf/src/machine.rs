//! What a measurement wants of the machine: cores, DPDK, huge pages.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use dpdk::{Eal, EalArgs, Memory};

/// So many cores: the last ones, since the first gets most interrupts.
pub(crate) fn cores(count: u16) -> anyhow::Result<Vec<core_affinity::CoreId>> {
    let all = core_affinity::get_core_ids().context("cannot tell which cores there are")?;
    let count = usize::from(count);
    ensure!(count <= all.len(), "{count} cores are wanted, there are {}", all.len());
    Ok(all.into_iter().rev().take(count).collect())
}

/// Starts DPDK with so much memory, on huge pages if enough of them are free; whether they were. It can be started once only, so
/// they are counted first. Devices are virtual ones, with their arguments, or PCI addresses.
pub(crate) fn start_dpdk(megabytes: u32, devices: Vec<String>) -> anyhow::Result<(Eal, bool)> {
    let huge = free_huge_megabytes() >= megabytes;
    let memory = if huge { Memory::InMemory } else { Memory::NoHuge { mb: megabytes } };
    let file_prefix = Some("nave-perf".into());
    let (vdevs, pci) = devices.into_iter().partition(|device| device.starts_with("net_"));
    let eal = Eal::start(&EalArgs { memory, vdevs, pci, file_prefix, ..EalArgs::default() })?;
    Ok((eal, huge))
}

/// Free huge pages of 2 MiB, in mebibytes.
pub(crate) fn free_huge_megabytes() -> u32 {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    free.ok().and_then(|pages| pages.trim().parse::<u32>().ok()).map_or(0, |pages| pages.saturating_mul(2))
}

/// Memory that can be had without others having to give theirs, in bytes.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn available() -> anyhow::Result<u64> {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes << 10).with_context(|| format!("{path} has no MemAvailable"))
}

/// Time that this thread was on a core: what others take of it is not ours.
pub(crate) fn on_core() -> anyhow::Result<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Ok(Duration::try_from(time)?)
}

/// Memory of a process in RAM, in bytes: all of it, and its share of what it has in common with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

/// Memory of a process (`self` for this one).
///
/// # Errors
/// The process is gone, or is another user's.
pub(crate) fn resident(process: &str) -> anyhow::Result<Resident> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes << 10).with_context(|| format!("{path} has no {name}"))
    };
    Ok(Resident { rss: field("Rss:")?, pss: field("Pss:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_is_resident() {
        let before = resident("self").unwrap();
        let written = vec![1_u8; 64 << 20];
        let after = resident("self").unwrap();
        assert!(after.rss - before.rss > 48 << 20, "{before:?} {after:?}");
        assert!(after.pss <= after.rss);
        assert_eq!(written.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64 << 20);
        assert!(resident("0").is_err());
    }
}
