//! A worker's thread: pinned to its core, known to DPDK, breathing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dpdk::Eal;
use forwarding::{Worker, breathe};
use model::time;

use crate::args::Idle;
use crate::ports::QueuePorts;
use crate::rings::Waker;

/// Breaths without a packet before an adaptive worker sleeps for the first time.
const PATIENCE: u32 = 64;
/// Shortest and longest sleep of an adaptive worker. The kernel adds its timer slack of 50 µs.
const NAP: Duration = Duration::from_micros(10);
const SLEEP: Duration = Duration::from_micros(200);

/// What a worker's thread is made of.
pub(crate) struct Plan {
    /// Place in the list of workers.
    pub(crate) index: usize,
    /// The core that it owns.
    pub(crate) core: usize,
    pub(crate) idle: Idle,
    pub(crate) worker: Worker<dpdk::Mbuf>,
    pub(crate) ports: QueuePorts,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) waker: Arc<Waker>,
    /// Beginning of the time that workers and tables are told.
    pub(crate) clock: memory::Clock,
    pub(crate) stop: Arc<AtomicBool>,
}

/// How a worker's loop goes; written by the worker alone.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Breaths.
    pub(crate) breaths: AtomicU64,
    /// Of these, breaths that had packets.
    pub(crate) busy_breaths: AtomicU64,
    /// Cycles ([`memory::cycles`]) of those.
    pub(crate) busy_cycles: AtomicU64,
    /// Generation of the tables it walks by.
    pub(crate) generation: AtomicU64,
}

/// Adds to a counter that nobody else writes.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Plan {
    /// Starts the thread; returns when it is pinned and registered.
    ///
    /// # Errors
    /// The core cannot be had, or DPDK refuses the thread.
    pub(crate) fn start(self, eal: Eal) -> anyhow::Result<std::thread::JoinHandle<QueuePorts>> {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let name = format!("nave-worker-{}", self.index);
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || self.run(eal, &ready))?;
        started.recv().context("the worker's thread ended")?.context(name)?;
        Ok(thread)
    }

    fn run(mut self, eal: Eal, ready: &std::sync::mpsc::SyncSender<anyhow::Result<()>>) -> QueuePorts {
        // The token gives the thread's cache of packet buffers back when it is dropped, so it lives as long as the thread.
        let _token = match self.settle(eal) {
            Ok(token) => token,
            Err(error) => {
                let _ = ready.send(Err(error));
                return self.ports;
            }
        };
        let _ = ready.send(Ok(()));
        match self.idle {
            Idle::Poll => self.poll(),
            Idle::Adaptive => self.adapt(),
        }
        self.ports
    }

    fn settle(&self, eal: Eal) -> anyhow::Result<dpdk::WorkerToken> {
        let core = core_affinity::CoreId { id: self.core };
        if !core_affinity::set_for_current(core) {
            bail!("cannot be pinned to core {}", self.core);
        }
        dpdk::register_worker_thread(&eal).context("registering with DPDK")
    }

    fn now(&self) -> time::Instant {
        time::Instant(self.clock.microseconds())
    }

    /// One breath; whether there were packets.
    fn breath(&mut self) -> bool {
        let begun = memory::cycles();
        let now = self.now();
        let breath = breathe(&mut self.worker, now, &mut self.ports);
        let busy = !breath.is_idle() | self.ports.has_moved();
        if self.worker.has_observed() {
            self.hand_observed();
        }
        // Whoever reads this finds what the breath saw in the rings.
        self.pulse.breaths.store(self.pulse.breaths.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.pulse.generation.store(self.worker.generation(), Ordering::Relaxed);
        if busy {
            add(&self.pulse.busy_breaths, 1);
            add(&self.pulse.busy_cycles, memory::cycles().wrapping_sub(begun));
            if self.ports.rings.wants_host() {
                self.waker.wake();
            }
        }
        busy
    }

    /// Hands on what was traced and captured. A breath sees less than the worker has room for, so nothing is lost before the rings.
    #[cold]
    fn hand_observed(&mut self) {
        let rings = &mut self.ports.rings;
        for step in self.worker.take_trace() {
            if rings.steps.push(step).is_err() {
                rings.shared.steps_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        for captured in self.worker.take_captured() {
            if rings.captured.push(captured).is_err() {
                rings.shared.captured_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn poll(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.breath();
        }
    }

    /// Sleeps twice as long each time, from `NAP` to `SLEEP`, until there is something to do.
    fn adapt(&mut self) {
        let mut empty = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            if self.breath() {
                empty = 0;
                continue;
            }
            empty = empty.saturating_add(1);
            if let Some(times) = empty.checked_sub(PATIENCE) {
                std::thread::sleep((NAP * (1 << times.min(5))).min(SLEEP));
            }
        }
    }
}
