//! A worker's ports: its queues of each DPDK port, the packet pool, and the rings.
//!
//! A port that has fewer queues than there are workers is spread by software: who has a receive queue looks whose each packet is
//! ([`forwarding::worker_for`]) and gives others theirs by ring; who has no transmit queue has another worker send. So packets of a flow keep
//! their order, and the graph sees each once, at the worker that forwards it.

use std::sync::atomic::Ordering;

use dpdk::{Mbuf, Mempool, Port, RxQueue, TxQueue, free_bulk};
use forwarding::{Command, HandedOff, Injected, Notice, PortId, Ports, Punt, worker_for};
use wire::buf::PacketBuf;

use crate::handoff::{Handoff, handoffs};
use crate::rings::{ForControl, Rings, WorkerRings, rank};

/// Drivers that chain buffers without having been asked to scatter, when a packet is larger than one. All others drop it:
/// ports are opened with buffers as large as their MTU.
const CHAINING: [&str; 2] = ["net_memif", "net_pcap"];

/// Packets that one worker takes from its queue of a port for all of them in one breath, or sends for those that have no queue.
const BURST: usize = 128;
/// How many packets behind its descriptor the bytes of a packet are asked for.
const AHEAD: usize = 8;

/// What a worker has of one port.
pub(crate) struct PortEnd {
    /// Its queues; `None`: the port has fewer than there are workers.
    rx: Option<RxQueue>,
    tx: Option<TxQueue>,
    /// Whether packets may come in several segments.
    chains: bool,
    /// Whether the port checks IPv4 header checksums.
    checks_ipv4: bool,
    /// Where the port has fewer receive queues than there are workers: frames for the others, and from them.
    arrivals: Option<Handoff<Mbuf>>,
    /// Where it has fewer transmit queues: frames that this worker sends for others, or that another one sends for this.
    departures: Option<Handoff<Mbuf>>,
    /// Who sends for this worker, if it has no transmit queue.
    sender: usize,
    /// Frames of others that the port has not taken yet.
    leaving: Vec<Mbuf>,
}

impl PortEnd {
    /// The ends of so many workers, in order. Worker n has the n-th queue, if there is one.
    pub(crate) fn all(rx: Vec<RxQueue>, tx: Vec<TxQueue>, port: &Port, workers: usize) -> Vec<Self> {
        let mesh = |queues: usize| -> Vec<Option<Handoff<Mbuf>>> {
            let meshes = (queues < workers).then(|| handoffs(workers));
            meshes.map_or_else(
                || (0..workers).map(|_| None).collect(),
                |all| all.into_iter().map(Some).collect(),
            )
        };
        let (arrivals, departures) = (mesh(rx.len()), mesh(tx.len()));
        let senders = tx.len().max(1);
        let (mut rx, mut tx) = (rx.into_iter(), tx.into_iter());
        let end = |(worker, (arrivals, departures))| Self {
            rx: rx.next(),
            tx: tx.next(),
            chains: CHAINING.contains(&port.driver()),
            checks_ipv4: port.used().rx_ipv4_checksum,
            arrivals,
            departures,
            sender: worker % senders,
            leaving: Vec::with_capacity(BURST),
        };
        arrivals.into_iter().zip(departures).enumerate().map(end).collect()
    }

    /// Sends what others gave to this worker to be sent; whether that was anything.
    fn forward(&mut self) -> bool {
        let (Some(departures), Some(tx)) = (&mut self.departures, &mut self.tx) else { return false };
        let room = BURST - self.leaving.len();
        departures.take(&mut self.leaving, room);
        // What the port does not take stays, and keeps its place.
        !self.leaving.is_empty() && tx.burst(&mut self.leaving) > 0
    }

    /// Gives back all packets that are still in its rings, when no worker runs any more.
    pub(crate) fn drain(&mut self) {
        free_bulk(&mut self.leaving);
        let meshes = self.arrivals.iter_mut().chain(&mut self.departures);
        meshes.flat_map(Handoff::drain).for_each(Mbuf::free);
    }
}

/// What one worker breathes through.
pub(crate) struct QueuePorts {
    /// Its end of each port, by port id.
    pub(crate) ends: Vec<PortEnd>,
    /// Its number, and how many workers there are.
    worker: usize,
    workers: usize,
    moved: bool,
    /// A burst that is being spread.
    came: Vec<Mbuf>,
    /// Where copies come from.
    pub(crate) pool: Mempool,
    /// To and from the rest of the process.
    pub(crate) rings: WorkerRings,
    /// To and from the other workers.
    pub(crate) handoff: Handoff<HandedOff<Mbuf>>,
}

impl Ports for QueuePorts {
    type Buf = Mbuf;

    fn count(&self) -> u16 {
        // Port ids are 16 bits wide in DPDK, so there are no more.
        u16::try_from(self.ends.len()).unwrap_or(u16::MAX)
    }

    fn rx(&mut self, port: PortId, into: &mut Vec<Mbuf>, max: usize) {
        let Some(end) = self.ends.get_mut(usize::from(port.0)) else { return };
        self.moved |= end.forward();
        let before = into.len();
        if end.arrivals.is_some() {
            self.spread(port, into, max);
            return;
        }
        if let Some(rx) = &mut end.rx {
            rx.burst(into, max);
        }
        if end.chains {
            join_segments(&self.rings.shared, into, before);
        }
    }

    #[inline]
    fn checks_ipv4(&self, port: PortId) -> bool {
        self.ends.get(usize::from(port.0)).is_some_and(|end| end.checks_ipv4)
    }

    fn tx(&mut self, port: PortId, from: &mut Vec<Mbuf>) {
        let Some(end) = self.ends.get_mut(usize::from(port.0)) else { return };
        match (&mut end.tx, &mut end.departures) {
            (Some(tx), _) => {
                tx.burst(from);
            }
            (None, Some(departures)) => {
                departures.push_all(end.sender, from);
                self.moved = true;
            }
            (None, None) => {}
        }
    }

    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    fn free(&mut self, bufs: &mut Vec<Mbuf>) {
        free_bulk(bufs);
    }

    fn punt(&mut self, punt: Punt, buf: Mbuf) -> Result<(), Mbuf> {
        match punt {
            Punt::Host(interface) => {
                let rank = rank(buf.bytes());
                self.rings.to_host.push(rank, (interface, buf)).map_err(|(_, buf)| buf)
            }
            Punt::Control { reason, tunnel, source, destination, port, spi } => {
                self.rings.push_control(reason, ForControl { tunnel, source, destination, port, spi, buf })
            }
        }
    }

    fn injected(&mut self, into: &mut Vec<Injected<Mbuf>>, max: usize) {
        into.extend(std::iter::from_fn(|| self.rings.pop_injected()).take(max));
    }

    fn hand_off(&mut self, to: usize, packet: HandedOff<Mbuf>) -> Result<(), HandedOff<Mbuf>> {
        self.handoff.push(to, packet)
    }

    fn handed_in(&mut self, into: &mut Vec<HandedOff<Mbuf>>, max: usize) {
        self.handoff.take(into, max);
    }

    fn notice(&mut self, notice: Notice) -> bool {
        self.rings.notices.push(notice).is_ok()
    }

    fn command(&mut self) -> Option<Command> {
        self.rings.commands.pop()
    }
}

impl QueuePorts {
    /// Those of a worker, by its number and how many there are.
    pub(crate) fn new(
        ends: Vec<PortEnd>,
        (worker, workers): (usize, usize),
        pool: Mempool,
        rings: WorkerRings,
        handoff: Handoff<HandedOff<Mbuf>>,
    ) -> Self {
        Self { ends, worker, workers, moved: false, came: Vec::with_capacity(BURST), pool, rings, handoff }
    }

    /// Whether this worker has taken or sent packets for others since it was last asked: it has work then.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Takes what other workers have for this one of a port, then a burst of its own queue, of which it gives others what is theirs.
    #[inline(never)]
    fn spread(&mut self, port: PortId, into: &mut Vec<Mbuf>, max: usize) {
        let Self { ends, rings, came, moved, worker, workers, .. } = self;
        let Some(end) = ends.get_mut(usize::from(port.0)) else { return };
        let Some(arrivals) = &mut end.arrivals else { return };
        let before = into.len();
        arrivals.take(into, max);
        let Some(rx) = &mut end.rx else { return };
        rx.burst(came, max.saturating_sub(into.len() - before));
        if end.chains {
            join_segments(&rings.shared, came, 0);
        }
        for at in 0..came.len() + AHEAD {
            if let Some(packet) = came.get(at) {
                packet.prefetch_descriptor();
            }
            if let Some(packet) = at.checked_sub(AHEAD).and_then(|at| came.get(at)) {
                packet.prefetch_bytes();
            }
        }
        for packet in came.drain(..) {
            let to = worker_for(packet.bytes(), *workers);
            if to == *worker {
                into.push(packet);
                continue;
            }
            *moved = true;
            if let Err(packet) = arrivals.push(to, packet) {
                packet.free();
                rings.shared.spread_full.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Makes one segment of each packet from `first` on; drops and counts those that do not fit into one.
fn join_segments(rings: &Rings, into: &mut Vec<Mbuf>, first: usize) {
    let mut at = first;
    while at < into.len() {
        if into[at].segments() == 1 || into[at].linearise() {
            at += 1;
        } else {
            into.remove(at).free();
            rings.segmented.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dpdk::{MempoolConfig, PortConfig, ring};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::process::tests::eal;
    use crate::rings::rings;

    /// Flows, and packets of each.
    const FLOWS: u16 = 40;
    const EACH: u16 = 25;

    /// The packet of a flow with this number.
    fn packet(flow: u16, number: u16) -> Vec<u8> {
        let (from, to) = ([10, 0, (flow >> 8) as u8, flow as u8].into(), [10, 9, 0, 1].into());
        let ip = wire::ipv4::Header::new(from, to, wire::ipv4::UDP, 64, 12).unwrap();
        let link = wire::ethernet::Header::new([2; 6], [4; 6], wire::ethernet::IPV4);
        let numbers = [&[0; 8][..], &flow.to_be_bytes(), &number.to_be_bytes()].concat();
        [link.as_bytes(), ip.as_bytes(), &numbers].concat()
    }

    /// Input: a port with one queue each way, three workers that send back what they receive, 1,000 packets of 40 flows. Output: each worker
    /// gets some; each flow is one worker's; all leave by the one queue, each once, those of a flow in order.
    #[test]
    fn a_port_with_one_queue_serves_three_workers_and_keeps_the_order_of_flows() {
        let eal = eal();
        let config = MempoolConfig { name: "spread", count: 2047, cache: 0, ..MempoolConfig::default() };
        let pool = Mempool::create(&eal, &config).unwrap();
        let (mut feed, arrives) = ring(&eal, "spread-in", 1024).unwrap();
        let (leaves, mut drain) = ring(&eal, "spread-out", 1024).unwrap();
        let opened =
            Port::over_rings(&eal, "spread", vec![arrives], vec![leaves], &PortConfig::new(pool)).unwrap();
        let ends = PortEnd::all(opened.rx, opened.tx, &opened.port, 3);
        let mut workers: Vec<_> = (0..)
            .zip(ends.into_iter().zip(handoffs(3)))
            .map(|(n, (end, handoff))| QueuePorts::new(vec![end], (n, 3), pool, rings().1, handoff))
            .collect();
        assert_eq!(
            workers.iter().map(|worker| worker.ends[0].rx.is_some()).collect::<Vec<_>>(),
            [true, false, false]
        );

        let order = (0..EACH).flat_map(|number| (0..FLOWS).map(move |flow| (flow, number)));
        let mut sent: Vec<_> =
            order.map(|(flow, number)| pool.alloc_copy(&packet(flow, number)).unwrap()).collect();
        assert_eq!(feed.burst(&mut sent), usize::from(FLOWS * EACH));

        let (mut of_flow, mut counts) = (BTreeMap::new(), [0; 3]);
        let mut burst = Vec::with_capacity(256);
        let mut left = Vec::with_capacity(1024);
        while left.len() < usize::from(FLOWS * EACH) {
            for (n, worker) in workers.iter_mut().enumerate() {
                worker.rx(PortId(0), &mut burst, 100);
                for packet in &burst {
                    let flow = u16::from_be_bytes([packet.bytes()[42], packet.bytes()[43]]);
                    assert_eq!(*of_flow.entry(flow).or_insert(n), n);
                    counts[n] += 1;
                }
                worker.tx(PortId(0), &mut burst);
                assert!(burst.is_empty());
            }
            drain.burst(&mut left, 1024);
        }
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
        assert!(workers.iter_mut().all(QueuePorts::has_moved));
        let mut next = [0; FLOWS as usize];
        for packet in &left {
            let word = |at: usize| u16::from_be_bytes([packet.bytes()[at], packet.bytes()[at + 1]]);
            assert_eq!(word(44), next[usize::from(word(42))]);
            next[usize::from(word(42))] += 1;
        }
        assert_eq!(next, [EACH; FLOWS as usize]);
        free_bulk(&mut left);
        assert_eq!(pool.in_use(), 0);
    }

    /// Input: a worker that does not take what is its own. Output: what its ring has no room for is dropped and counted; nothing is lost to the pool.
    #[test]
    fn what_a_slow_worker_has_no_room_for_is_counted() {
        let eal = eal();
        let config = MempoolConfig { name: "spread-slow", count: 4095, cache: 0, ..MempoolConfig::default() };
        let pool = Mempool::create(&eal, &config).unwrap();
        let (mut feed, arrives) = ring(&eal, "slow-in", 2048).unwrap();
        let (leaves, _drain) = ring(&eal, "slow-out", 64).unwrap();
        let opened =
            Port::over_rings(&eal, "slow", vec![arrives], vec![leaves], &PortConfig::new(pool)).unwrap();
        let mut ends = PortEnd::all(opened.rx, opened.tx, &opened.port, 2).into_iter();
        let (mut all, (shared, rings)) = (handoffs(2).into_iter(), rings());
        let mut first =
            QueuePorts::new(ends.by_ref().take(1).collect(), (0, 2), pool, rings, all.next().unwrap());
        let other = (0..).find(|flow| worker_for(&packet(*flow, 0), 2) == 1).unwrap();
        let mut sent: Vec<_> =
            (0..1500).map(|number| pool.alloc_copy(&packet(other, number)).unwrap()).collect();
        feed.burst(&mut sent);
        let mut burst = Vec::with_capacity(256);
        for _ in 0..20 {
            first.rx(PortId(0), &mut burst, 100);
        }
        assert!(burst.is_empty());
        let dropped = shared.spread_full.load(Ordering::Relaxed);
        assert_eq!(dropped, 1500 - crate::handoff::SLOTS as u64);
        first.ends.iter_mut().chain(&mut ends.collect::<Vec<_>>()).for_each(PortEnd::drain);
        assert_eq!(pool.in_use(), 0);
    }
}
