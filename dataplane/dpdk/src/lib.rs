//! Safe DPDK: the EAL, mempools, mbufs, ports and their queues.
//!
//! What the types promise, and how DPDK's rules become theirs:
//!
//! - [`Eal`] is proof that the environment runs; everything that needs it asks for it. It runs once, until the process ends.
//! - A [`Mempool`] lives as long as the process: it is a `Copy` handle, and an [`Mbuf`] can never outlive its pool.
//! - An [`Mbuf`] has one owner and no freeing `Drop`: it is sent, freed, or moved on. Losing one leaks a buffer, safely.
//! - [`RxQueue`] and [`TxQueue`] are `Send`, not `Clone`, and burst through `&mut self`: one worker owns one queue.
//!   A port stops and closes when its [`Port`] and all its queues are gone.
//! - A worker registers its thread ([`register_worker_thread`]) to have mempool caches of its own.
//!
//! Nothing on the burst path allocates, locks or counts references.
#![allow(unsafe_code)]

mod eal;
mod errno;
mod flow;
pub mod lpm;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod ring;
mod worker;

pub use eal::{Eal, EalArgs, EalError, LogLevel, Memory};
pub use errno::Errno;
pub use flow::{EspForm, EspRule, RuleRefused};
pub use mbuf::{HEADROOM, Mbuf, free_bulk};
pub use mempool::{Mempool, MempoolConfig, MempoolError};
pub use port::{Link, Offloading, Offloads, Opened, Port, PortConfig, PortError, PortStats, Step};
pub use queue::{RxQueue, TxQueue};
pub use ring::{RingError, RingRx, RingTx, ring};
pub use worker::{Ahead, WorkerError, WorkerToken, register_worker_thread, run_ahead};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_takes_along_moves_between_threads() {
        fn moves<T: Send>() {}
        fn shared<T: Send + Sync>() {}
        moves::<(Mbuf, RxQueue, TxQueue, RingRx, RingTx, Port)>();
        shared::<(Eal, Mempool)>();
        assert_eq!(size_of::<Option<Mbuf>>(), size_of::<usize>());
    }
}
