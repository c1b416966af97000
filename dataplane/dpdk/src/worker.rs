//! Workers: threads that DPDK knows.

use crate::errno::Errno;
use crate::{Eal, mempool};
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

impl Drop for WorkerToken {
    fn drop(&mut self) {
        mempool::flush_caches_of_this_thread();
        // SAFETY: this thread registered itself and did not unregister since; the token cannot leave it.
        unsafe { dpdk_sys::rte_thread_unregister() };
        KNOWN.set(false);
    }
}
