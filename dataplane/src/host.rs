//! The host thread: carries packets between the workers' rings and the kernel twins, and hands punts to the service.
//!
//! 1. Take what the service says: which twins there are.
//! 2. Attach to twins that were not there yet (the control plane makes them): at once when told of a new one, then less and less often, a
//!    few times a second in the end. Each is in the network namespace of its table. A namespace that was removed and made anew while a
//!    queue of ours kept the old one is noticed every two seconds.
//! 3. Empty the workers' rings: into the twins, and to the service.
//! 4. Read the twins: into the workers' rings, worker 0 for all, so that what the kernel sends in order leaves in order.
//! 5. With nothing left to do sleep until a twin is readable or a worker wakes it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
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

/// Time to the second try to attach to a twin that is not there; twice as long from try to try, up to the longest.
const ATTACH_AGAIN: Duration = Duration::from_millis(5);
const ATTACH_LONGEST: Duration = Duration::from_millis(250);
/// Time between looks whether the namespaces of attached twins are still those of their names: a `stat` of each.
const LOOK: Duration = Duration::from_secs(2);
/// Longest sleep.
const SLEEP: Duration = Duration::from_millis(50);
/// Packets that are read from one twin before the others get their turn.
const TURN: usize = 64;
/// The waker's number among the epoll events; interfaces have 16 bits.
const WAKER: u64 = u64::MAX;

/// What the service says.
#[derive(Debug)]
pub(crate) enum Order {
    /// These are the twins now.
    Twins(Vec<TwinSpec>),
    /// The process ends.
    Stop,
}

/// A twin that there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TwinSpec {
    /// Whose twin it is.
    pub(crate) interface: InterfaceId,
    /// Its name.
    pub(crate) name: String,
    /// TAP or TUN.
    pub(crate) kind: Kind,
    /// Network namespace that it is in, a name as of `ip netns`; `None`: the one of the command line.
    pub(crate) netns: Option<String>,
}

/// Where orders are given.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    sender: channel::Sender<Order>,
    waker: Arc<Waker>,
}

impl Orders {
    /// And where they arrive.
    pub(crate) fn new(waker: Arc<Waker>) -> (Self, channel::Receiver<Order>) {
        let (sender, receiver) = channel::unbounded();
        (Self { sender, waker }, receiver)
    }

    /// Gives an order. Without a host thread nobody takes it: the process ends.
    pub(crate) fn give(&self, order: Order) {
        let _ = self.sender.send(order);
        self.waker.wake();
    }
}

/// A packet on its way to the control plane.
#[derive(Debug)]
pub(crate) struct Punted {
    pub(crate) reason: PuntReason,
    pub(crate) tunnel: InterfaceId,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// UDP source port of the peer, or 0, and SPI of the SA that it came by, or 0.
    pub(crate) port: u16,
    pub(crate) spi: u32,
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
    spec: TwinSpec,
    /// `None` while it is not there.
    queue: Option<Queue>,
    /// Of the namespace where the queue was attached (see [`twin::netns_id`]).
    netns_id: Option<u64>,
    /// Why it was not attached when it was last tried: said once.
    fault: Option<String>,
}

impl Twin {
    fn new(spec: TwinSpec) -> Self {
        Self { spec, queue: None, netns_id: None, fault: None }
    }

    /// The namespace to look for it in, and which that is now.
    fn netns(&self, default: Option<&Path>) -> (Option<PathBuf>, Option<u64>) {
        let netns = self.spec.netns.as_ref().map(PathBuf::from).or_else(|| default.map(Path::to_owned));
        let id = netns.as_ref().and_then(|netns| twin::netns_id(Some(netns)).ok());
        (netns, id)
    }

    /// What went wrong, if it is not what went wrong the last time.
    fn news(&mut self, fault: String) -> Option<&str> {
        if self.fault.as_ref() == Some(&fault) {
            return None;
        }
        Some(self.fault.insert(fault))
    }
}

/// When twins that are not there are tried next.
#[derive(Debug, Default)]
struct Tries {
    at: Option<Instant>,
    wait: Duration,
}

impl Tries {
    /// At once, and then from the shortest wait on.
    fn begin(&mut self, now: Instant) {
        (self.at, self.wait) = (Some(now), ATTACH_AGAIN);
    }

    /// Whether it is time for a try; then there is no next one yet.
    fn is_due(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// It failed.
    fn again(&mut self, now: Instant) {
        self.at = Some(now + self.wait);
        self.wait = (self.wait * 2).min(ATTACH_LONGEST);
    }

    /// How long until the next try, at most `longest`.
    fn until(&self, now: Instant, longest: Duration) -> Duration {
        self.at.map_or(longest, |at| at.saturating_duration_since(now).min(longest))
    }
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
    tries: Tries,
    look: Instant,
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
            tries: Tries::default(),
            look: Instant::now(),
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
            self.look();
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
        if filled {
            return EpollTimeout::ZERO;
        }
        // A part of a millisecond more, so that it is due then.
        let wait = self.tries.until(Instant::now(), SLEEP).as_micros().div_ceil(1000);
        EpollTimeout::from(u16::try_from(wait).unwrap_or(u16::MAX))
    }

    /// Keeps the queues of twins that stay, lets go of the others.
    fn serve(&mut self, twins: Vec<TwinSpec>) {
        let mut old = std::mem::take(&mut self.twins);
        let mut new = false;
        for spec in twins {
            let interface = spec.interface;
            let twin = old.remove(&interface).filter(|twin| twin.spec == spec).unwrap_or_else(|| {
                new = true;
                Twin::new(spec)
            });
            self.twins.insert(interface, twin);
        }
        if new {
            self.tries.begin(Instant::now());
        }
    }

    fn attach(&mut self) {
        if !self.tries.is_due(Instant::now()) {
            return;
        }
        for (interface, twin) in self.twins.iter_mut().filter(|(_, twin)| twin.queue.is_none()) {
            let (netns, netns_id) = twin.netns(self.netns.as_deref());
            match Queue::attach(&twin.spec.name, twin.spec.kind, netns.as_deref()) {
                Ok(queue) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(interface.0));
                    match self.epoll.add(queue.as_fd(), event) {
                        Ok(()) => {
                            tracing::info!(twin = twin.spec.name, netns = twin.spec.netns, "attached");
                            twin.queue = Some(queue);
                            twin.netns_id = netns_id;
                            twin.fault = None;
                        }
                        Err(error) => {
                            if let Some(error) = twin.news(error.to_string()) {
                                tracing::error!(error, "a twin's queue cannot be waited for");
                            }
                        }
                    }
                }
                Err(error) => {
                    // The control plane makes the namespace, too.
                    let absent =
                        matches!(&error, twin::Error::Absent(_) | twin::Error::Netns { step: "open", .. });
                    match twin.news(error.to_string()) {
                        Some(error) if absent => tracing::debug!(error, "not there yet"),
                        Some(error) => tracing::warn!(error, "not attached"),
                        None => {}
                    }
                }
            }
        }
        if self.twins.values().any(|twin| twin.queue.is_none()) {
            self.tries.again(Instant::now());
        }
    }

    /// Lets go of twins in namespaces that lost their name: an open queue keeps such a one, and nobody sends there any more.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.look {
            return;
        }
        self.look = now + LOOK;
        let netns = self.netns.as_deref();
        let is_lost = |twin: &Twin| twin.queue.is_some() && twin.netns(netns).1 != twin.netns_id;
        let lost: Vec<_> = self.twins.iter().filter(|(_, twin)| is_lost(twin)).map(|(id, _)| *id).collect();
        for interface in lost {
            self.lose(interface);
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
                        port: packet.port,
                        spi: packet.spi,
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
            tracing::warn!(twin = twin.spec.name, "gone");
            twin.queue = None;
            self.tries.begin(Instant::now() + ATTACH_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_until_there_is_an_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tries = Tries::default();
        assert!(!tries.is_due(start));
        tries.begin(start);
        assert!(tries.is_due(start) && !tries.is_due(at(1000)));
        let mut tried = Vec::new();
        tries.again(start);
        for ms in 1..2000 {
            if tries.is_due(at(ms)) {
                tried.push(ms);
                tries.again(at(ms));
            }
        }
        assert_eq!(tried, [5, 15, 35, 75, 155, 315, 565, 815, 1065, 1315, 1565, 1815]);
        assert_eq!(tries.until(at(2000), SLEEP), SLEEP);
        assert_eq!(tries.until(at(2060), SLEEP), Duration::from_millis(5));
        tries.begin(at(2000));
        assert!(tries.is_due(at(2000)));
        tries.again(at(2000));
        assert!(tries.is_due(at(2005)));
    }

    #[test]
    fn a_fault_is_said_once() {
        let mut twin = Twin::new(TwinSpec {
            interface: InterfaceId(1),
            name: "wan".to_owned(),
            kind: Kind::Tap,
            netns: None,
        });
        assert_eq!(twin.news("foreign".to_owned()), Some("foreign"));
        assert_eq!(twin.news("foreign".to_owned()), None);
        assert_eq!(twin.news("refused".to_owned()), Some("refused"));
    }
}
