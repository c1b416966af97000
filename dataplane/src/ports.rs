//! A worker's ports: a queue pair of each DPDK port, the packet pool, and the rings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dpdk::{Mbuf, Mempool, RxQueue, TxQueue, free_bulk};
use forwarding::{Command, HandedOff, Injected, Notice, PortId, Ports, Punt};
use wire::buf::PacketBuf;

use crate::handoff::Handoff;
use crate::rings::{ForControl, Rings, rank};

/// Drivers that chain buffers without having been asked to scatter, when a packet is larger than one. All others drop it:
/// ports are opened with buffers as large as their MTU.
const CHAINING: [&str; 2] = ["net_memif", "net_pcap"];

/// What a worker has of one port.
pub(crate) struct QueuePair {
    pub(crate) rx: RxQueue,
    pub(crate) tx: TxQueue,
    /// Whether packets may come in several segments.
    chains: bool,
}

impl QueuePair {
    pub(crate) fn new(rx: RxQueue, tx: TxQueue, driver: &str) -> Self {
        Self { rx, tx, chains: CHAINING.contains(&driver) }
    }
}

/// What one worker breathes through.
pub(crate) struct QueuePorts {
    /// A queue pair of each port, by port id.
    pub(crate) queues: Vec<QueuePair>,
    /// Where copies come from.
    pub(crate) pool: Mempool,
    /// To and from the rest of the process.
    pub(crate) rings: Arc<Rings>,
    /// To and from the other workers.
    pub(crate) handoff: Handoff<HandedOff<Mbuf>>,
}

impl Ports for QueuePorts {
    type Buf = Mbuf;

    fn count(&self) -> u16 {
        // Port ids are 16 bits wide in DPDK, so there are no more.
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn rx(&mut self, port: PortId, into: &mut Vec<Mbuf>, max: usize) {
        let Some(pair) = self.queues.get_mut(usize::from(port.0)) else { return };
        let before = into.len();
        pair.rx.burst(into, max);
        if pair.chains {
            self.join_segments(into, before);
        }
    }

    fn tx(&mut self, port: PortId, from: &mut Vec<Mbuf>) {
        if let Some(pair) = self.queues.get_mut(usize::from(port.0)) {
            pair.tx.burst(from);
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
    /// Makes one segment of each packet from `first` on; drops and counts those that do not fit into one.
    fn join_segments(&self, into: &mut Vec<Mbuf>, first: usize) {
        let mut at = first;
        while at < into.len() {
            if into[at].segments() == 1 || into[at].linearise() {
                at += 1;
            } else {
                into.remove(at).free();
                self.rings.segmented.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
