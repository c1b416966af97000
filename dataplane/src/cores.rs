//! Which thread may run where: a worker owns its core, everything else runs on the others.

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of this process, divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Of the workers, one each.
    pub(crate) workers: Vec<usize>,
    /// Of every other thread. If the workers take all that the process may use, these are the same ones: then the workers share.
    pub(crate) others: Vec<usize>,
}

impl Cores {
    /// Divides the cores that the calling thread may use.
    ///
    /// # Errors
    /// A worker's core that the process may not use.
    pub(crate) fn divide(workers: &[usize]) -> anyhow::Result<Self> {
        let allowed = allowed().context("reading the allowed cores")?;
        if let Some(core) = workers.iter().find(|core| !allowed.contains(core)) {
            bail!("--workers: core {core} is not one that this process may use ({allowed:?})");
        }
        let mut others: Vec<usize> = allowed.iter().copied().filter(|core| !workers.contains(core)).collect();
        if others.is_empty() {
            others = allowed;
        }
        Ok(Self { workers: workers.to_vec(), others })
    }

    /// Whether workers share their cores with other threads of the process.
    pub(crate) fn shared(&self) -> bool {
        self.others.iter().any(|core| self.workers.contains(core))
    }

    /// Keeps the calling thread, and every thread it starts, off the workers' cores.
    pub(crate) fn keep_off_workers(&self) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        for core in &self.others {
            set.set(*core).with_context(|| format!("core {core}"))?;
        }
        sched_setaffinity(Pid::from_raw(0), &set).context("setting the allowed cores")
    }
}

/// The cores that the calling thread may use, in order.
fn allowed() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_others_are_apart_unless_there_is_no_other_core() {
        let all = allowed().unwrap();
        let cores = Cores::divide(&all[..1]).unwrap();
        assert_eq!(cores.shared(), all.len() == 1);
        assert!(Cores::divide(&all).unwrap().shared());
        let error = Cores::divide(&[CpuSet::count() - 1]).unwrap_err().to_string();
        assert!(error.contains("is not one that this process may use"), "{error}");
    }
}
