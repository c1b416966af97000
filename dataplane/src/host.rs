//! The host thread: carries packets between the workers' rings and the kernel twins, and hands punts to the service.
//!
//! 1. Take what the service says: which twins there are.
//! 2. Attach to twins that were not there yet (the control plane makes them), a few times a second.
//! 3. Empty the workers' rings: into the twins, and to the service.
//! 4. Read the twins: into the workers' rings, worker 0 for all, so that what the kernel sends in order leaves in order.
//! 5. With nothing left to do sleep until a twin is readable or a worker wakes it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel;
use dpdk::Mempool;
use forwarding::{Injected, InterfaceId, Origin};
use model::report::PuntReason;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc;
use twin::{Kind, Queue};
use wire::buf::PacketBuf;

use crate::rings::{Rings, Waker};

/// Time between tries to attach to a twin that is not there.
const ATTACH_AGAIN: Duration = Duration::from_millis(5);
/// Longest sleep.
const SLEEP_MS: u16 = 50;
/// Packets that are read from one twin before the others get their turn.
const TURN: usize = 64;
/// The waker's number among the epoll events; interfaces have 16 bits.
const WAKER: u64 = u64::MAX;

/// What the service says.
#[derive(Debug)]
pub(crate) enum Order {
    /// These are the twins now.
    Twins(Vec<(InterfaceId, String, Kind)>),
    /// The process ends.
    Stop,
}

/// A packet on its way to the control plane.
#[derive(Debug)]
pub(crate) struct Punted {
    pub(crate) reason: PuntReason,
    pub(crate) tunnel: InterfaceId,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
    pub(crate) dropped_before: u64,
}

/// What the host thread counts.
#[derive(Debug, Default)]
pub(crate) struct HostCounters {
    /// Packets given to the kernel.
    pub(crate) to_kernel: AtomicU64,
    /// Packets that the kernel or its twin did not take.
    pub(crate) to_kernel_lost: AtomicU64,
    /// Packets taken from the kernel.
    pub(crate) from_kernel: AtomicU64,
    /// Packets from the kernel that were lost for want of a buffer or of room in a ring.
    pub(crate) from_kernel_lost: AtomicU64,
}

impl HostCounters {
    /// Name, sentence and value of each, for `show counters`.
    pub(crate) fn all(&self) -> [(&'static str, &'static str, u64); 4] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("to-kernel", "Packets that the kernel took from the twins.", value(&self.to_kernel)),
            (
                "to-kernel-lost",
                "Packets for a twin that is not there, is down or is full.",
                value(&self.to_kernel_lost),
            ),
            ("from-kernel", "Packets that the kernel sent by the twins.", value(&self.from_kernel)),
            (
                "from-kernel-lost",
                "Of these, lost for want of a buffer or of room in a ring.",
                value(&self.from_kernel_lost),
            ),
        ]
    }
}

/// A twin that should be served.
struct Twin {
    name: String,
    kind: Kind,
    /// `None` while it is not there.
    queue: Option<Queue>,
}

/// The thread's state.
pub(crate) struct Host {
    epoll: Epoll,
    twins: HashMap<InterfaceId, Twin>,
    netns: Option<PathBuf>,
    orders: channel::Receiver<Order>,
    rings: Vec<Arc<Rings>>,
    waker: Arc<Waker>,
    pool: Mempool,
    punts: mpsc::Sender<Punted>,
    counters: Arc<HostCounters>,
    attach_at: Option<Instant>,
    scratch: Vec<u8>,
}

impl Host {
    pub(crate) fn new(
        netns: Option<PathBuf>,
        orders: channel::Receiver<Order>,
        rings: Vec<Arc<Rings>>,
        waker: Arc<Waker>,
        pool: Mempool,
        punts: mpsc::Sender<Punted>,
        counters: Arc<HostCounters>,
    ) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(waker.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        let scratch = vec![0; usize::from(u16::MAX)];
        Ok(Self {
            epoll,
            twins: HashMap::new(),
            netns,
            orders,
            rings,
            waker,
            pool,
            punts,
            counters,
            attach_at: None,
            scratch,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let mut busy = Vec::new();
        loop {
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Twins(twins) => self.serve(twins),
                    Order::Stop => return,
                }
            }
            self.attach();
            let worked = self.empty_rings();
            // A twin that had a whole turn's packets is read again before anybody sleeps.
            busy.retain(|interface| self.read(*interface) == TURN);
            let timeout = if worked || !busy.is_empty() { EpollTimeout::ZERO } else { self.sleep_time() };
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            self.waker.awake();
            for event in &events[..count] {
                let Ok(number) = u16::try_from(event.data()) else { continue };
                let interface = InterfaceId(number);
                if self.read(interface) == TURN && !busy.contains(&interface) {
                    busy.push(interface);
                }
            }
        }
    }

    /// How long to sleep: not at all if a worker filled a ring meanwhile.
    fn sleep_time(&self) -> EpollTimeout {
        self.waker.about_to_sleep();
        let filled = self.rings.iter().any(|rings| rings.wants_host()) || !self.orders.is_empty();
        if filled { EpollTimeout::ZERO } else { EpollTimeout::from(SLEEP_MS) }
    }

    /// Keeps the queues of twins that stay, lets go of the others.
    fn serve(&mut self, twins: Vec<(InterfaceId, String, Kind)>) {
        let mut old = std::mem::take(&mut self.twins);
        for (interface, name, kind) in twins {
            let queue = match old.remove(&interface) {
                Some(twin) if twin.name == name && twin.kind == kind => twin.queue,
                _ => None,
            };
            self.twins.insert(interface, Twin { name, kind, queue });
        }
        self.attach_at = Some(Instant::now());
    }

    fn attach(&mut self) {
        if self.attach_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.attach_at = None;
        for (interface, twin) in self.twins.iter_mut().filter(|(_, twin)| twin.queue.is_none()) {
            match Queue::attach(&twin.name, twin.kind, self.netns.as_deref()) {
                Ok(queue) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(interface.0));
                    match self.epoll.add(queue.as_fd(), event) {
                        Ok(()) => {
                            tracing::info!(twin = twin.name, "attached");
                            twin.queue = Some(queue);
                        }
                        Err(error) => tracing::error!(twin = twin.name, %error, "cannot be waited for"),
                    }
                }
                Err(error @ twin::Error::Absent { .. }) => tracing::debug!(%error, "not there yet"),
                Err(error) => tracing::warn!(%error, "not attached"),
            }
        }
        if self.twins.values().any(|twin| twin.queue.is_none()) {
            self.attach_at = Some(Instant::now() + ATTACH_AGAIN);
        }
    }

    /// Whether there was anything.
    fn empty_rings(&mut self) -> bool {
        let mut worked = false;
        for rings in self.rings.clone() {
            for _ in 0..TURN {
                let Some((interface, buf)) = rings.to_host.pop() else { break };
                worked = true;
                self.write(interface, buf.bytes());
                buf.free();
            }
            for reason in PuntReason::ALL {
                for _ in 0..TURN {
                    let Some(packet) = rings.pop_control(reason) else { break };
                    worked = true;
                    let dropped_before = rings.take_control_drops(reason);
                    let punted = Punted {
                        reason,
                        tunnel: packet.tunnel,
                        source: packet.source,
                        destination: packet.destination,
                        bytes: packet.buf.bytes().to_vec(),
                        dropped_before,
                    };
                    packet.buf.free();
                    if self.punts.try_send(punted).is_err() {
                        rings.count_control_drops(reason, dropped_before + 1);
                    }
                }
            }
        }
        worked
    }

    fn write(&mut self, interface: InterfaceId, packet: &[u8]) {
        let queue = self.twins.get(&interface).and_then(|twin| twin.queue.as_ref());
        match queue.map(|queue| queue.write(packet)) {
            Some(Ok(())) => self.counters.to_kernel.fetch_add(1, Ordering::Relaxed),
            Some(Err(error)) if twin::is_gone(&error) => {
                self.lose(interface);
                self.counters.to_kernel_lost.fetch_add(1, Ordering::Relaxed)
            }
            _ => self.counters.to_kernel_lost.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Reads a turn's packets at most, and says how many there were.
    fn read(&mut self, interface: InterfaceId) -> usize {
        for count in 0..TURN {
            let Some(queue) = self.twins.get(&interface).and_then(|twin| twin.queue.as_ref()) else {
                return count;
            };
            match queue.read(&mut self.scratch) {
                Ok(len) => {
                    self.counters.from_kernel.fetch_add(1, Ordering::Relaxed);
                    let Some(buf) = self.pool.alloc_copy(&self.scratch[..len]) else {
                        self.counters.from_kernel_lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    if let Err(buf) = self.rings[0].inject(Injected { origin: Origin::Twin(interface), buf })
                    {
                        buf.free();
                        self.counters.from_kernel_lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if twin::is_gone(&error) => {
                    self.lose(interface);
                    return count;
                }
                Err(_) => return count,
            }
        }
        TURN
    }

    /// The twin was deleted: attach again when there is another.
    fn lose(&mut self, interface: InterfaceId) {
        if let Some(twin) = self.twins.get_mut(&interface) {
            tracing::warn!(twin = twin.name, "gone");
            twin.queue = None;
            self.attach_at = Some(Instant::now() + ATTACH_AGAIN);
        }
    }
}
