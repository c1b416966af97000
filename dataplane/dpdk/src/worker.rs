//! Workers: threads that DPDK knows.

use crate::errno::Errno;
use crate::{Eal, mempool};
use nix::libc;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    /// Whether this thread has an lcore id: a second registration would lose the first.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread's registration with DPDK: an lcore id, and with it a cache of its own in every [`crate::Mempool`].
/// Dropping it empties those caches into their pools and gives the id back. It stays on its thread.
#[derive(Debug)]
#[must_use = "the thread is registered for as long as its token lives"]
pub struct WorkerToken(PhantomData<*const ()>);

/// A thread that could not become a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// The thread is one already: it holds a token, or it started the EAL.
    #[error("this thread is registered with DPDK already")]
    Registered,
    /// No lcore id is left (128 in Debian's build), or DPDK refuses for another reason.
    #[error("registering a worker thread with DPDK: {0}")]
    Refused(Errno),
}

/// Registers the calling thread. Pin it first: DPDK notes the CPUs that the thread may use now.
///
/// # Errors
/// [`WorkerError`] when the thread is registered already or DPDK refuses it.
pub fn register_worker_thread(_: &Eal) -> Result<WorkerToken, WorkerError> {
    if KNOWN.get() {
        return Err(WorkerError::Registered);
    }
    // SAFETY: the EAL runs, and this thread has no lcore id yet.
    if unsafe { dpdk_sys::rte_thread_register() } < 0 {
        return Err(WorkerError::Refused(Errno::last()));
    }
    KNOWN.set(true);
    Ok(WorkerToken(PhantomData))
}

/// Notes that the calling thread became EAL's main lcore.
pub(crate) fn note_main_thread() {
    KNOWN.set(true);
}

/// The calling thread ahead of others. Dropping it puts the thread back among the ordinary ones. It stays on its thread.
#[derive(Debug)]
#[must_use = "the thread is ahead for as long as this lives"]
pub struct Ahead(PhantomData<*const ()>);

/// Puts the calling thread ahead of all on its core that have the priority it has now: into `SCHED_FIFO` (sched(7)), or a step up there. Threads
/// that it starts are ordinary ones. One that never sleeps has the core to itself but for what the kernel keeps for ordinary threads: 50 ms
/// of each second, in one piece.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` or a limit `RLIMIT_RTPRIO`.
pub fn run_ahead() -> Result<Ahead, Errno> {
    let mut now = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call writes `now` and nothing else.
    unsafe { libc::sched_getparam(0, &raw mut now) };
    schedule(libc::SCHED_FIFO, now.sched_priority + 1)?;
    Ok(Ahead(PhantomData))
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Everybody may: what is inherited stays as it is.
        let _ = schedule(libc::SCHED_OTHER, 0);
    }
}

/// Gives the calling thread this policy and priority of it, and those that it starts none.
fn schedule(policy: libc::c_int, priority: libc::c_int) -> Result<(), Errno> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: the call reads `param` and changes nothing but how the calling thread is scheduled.
    match unsafe { libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const param) } {
        0 => Ok(()),
        _ => Err(Errno(nix::errno::Errno::last_raw())),
    }
}

impl Drop for WorkerToken {
    fn drop(&mut self) {
        mempool::flush_caches_of_this_thread();
        // SAFETY: this thread registered itself and did not unregister since; the token cannot leave it.
        unsafe { dpdk_sys::rte_thread_unregister() };
        KNOWN.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output: a thread that is ahead has real-time priority, one that it starts has none, and it has none afterwards. Where it may not be ahead
    /// the kernel says why, and it is as before.
    #[test]
    fn a_thread_is_ahead_until_it_is_not_and_those_it_starts_are_ordinary() {
        fn policy() -> libc::c_int {
            // SAFETY: the call reads how the calling thread is scheduled.
            unsafe { libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK }
        }
        let started = || std::thread::spawn(policy).join().unwrap();
        std::thread::spawn(move || {
            assert_eq!(policy(), libc::SCHED_OTHER);
            match run_ahead() {
                Ok(ahead) => {
                    assert_eq!((policy(), started()), (libc::SCHED_FIFO, libc::SCHED_OTHER));
                    drop(ahead);
                }
                Err(refused) => assert_eq!(refused.0, libc::EPERM),
            }
            assert_eq!((policy(), started()), (libc::SCHED_OTHER, libc::SCHED_OTHER));
        })
        .join()
        .unwrap();
    }
}
