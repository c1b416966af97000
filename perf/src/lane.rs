//! One worker's lane: its queue pairs on the ring ports, the far ends of those rings, and its packets.
//!
//! A lane is one thread. In a pass for the cycles all packets lie in front of the port when the worker begins; in one for the latency each is put
//! there when it is due, between two breaths, and the worker's core does that besides: what the machine takes of the core is in it, and nothing
//! that another core would add.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use dpdk::{Mbuf, Mempool, RingRx, RingTx, RxQueue, TxQueue, free_bulk};
use forwarding::{Breath, Command, Injected, Notice, PortId, Ports, Punt, Worker, breathe};
use memory::cycles;
use model::time::Instant;
use wire::buf::PacketBuf;

use crate::histogram::Latencies;
use crate::packets::Packets;
use crate::reference::Random;
use crate::scenario::Scenario;

/// Packets of a pass, each in a buffer of its own. Nothing of a packet is touched while the others have their turn.
pub(crate) const DISTINCT: usize = 16_384;

/// What the clock goes on by in a breath that is counted.
const BREATH: Duration = Duration::from_micros(10);

/// The ports that the worker breathes through.
pub(crate) struct LanePorts {
    pub(crate) queues: [(RxQueue, TxQueue); 2],
    pub(crate) pool: Mempool,
    pub(crate) command: Option<Command>,
}

impl Ports for LanePorts {
    type Buf = Mbuf;

    fn count(&self) -> u16 {
        2
    }

    #[inline]
    fn rx(&mut self, port: PortId, into: &mut Vec<Mbuf>, max: usize) {
        if let Some((rx, _)) = self.queues.get_mut(usize::from(port.0)) {
            rx.burst(into, max);
        }
    }

    #[inline]
    fn tx(&mut self, port: PortId, from: &mut Vec<Mbuf>) {
        if let Some((_, tx)) = self.queues.get_mut(usize::from(port.0)) {
            tx.burst(from);
        }
    }

    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.alloc()
    }

    fn free(&mut self, bufs: &mut Vec<Mbuf>) {
        free_bulk(bufs);
    }

    /// There is no host here: a packet that is punted is dropped, which the check of the pass finds.
    fn punt(&mut self, _: Punt, buf: Mbuf) -> Result<(), Mbuf> {
        Err(buf)
    }

    fn injected(&mut self, _: &mut Vec<Injected<Mbuf>>, _: usize) {}

    fn notice(&mut self, _: Notice) -> bool {
        false
    }

    fn command(&mut self) -> Option<Command> {
        self.command.take()
    }
}

/// What a pass at a rate was, in cycles.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paced {
    /// By how much a packet was put in front of the port behind its time at most.
    pub(crate) late: u64,
    /// From the first packet until the last was behind the other port.
    pub(crate) cycles: u64,
}

/// See the module.
pub(crate) struct Lane {
    pub(crate) packets: Packets,
    pub(crate) worker: Worker<Mbuf>,
    pub(crate) ports: LanePorts,
    /// Into the port by which packets arrive.
    feed: RingTx,
    /// What left by each port.
    drains: [RingRx; 2],
    /// The buffers between passes, in the order of the pass.
    bufs: Vec<Mbuf>,
    /// Packets that are put in front of the port together.
    due: Vec<Mbuf>,
    clock: memory::Clock,
}

impl Lane {
    /// The lane of the worker with this number, with all its buffers. They are in random order, so that no packet tells the processor where the next one is.
    pub(crate) fn new(
        scenario: Scenario,
        worker: Worker<Mbuf>,
        ports: LanePorts,
        feed: RingTx,
        drains: [RingRx; 2],
        number: u16,
    ) -> anyhow::Result<Self> {
        let mut bufs = Vec::with_capacity(DISTINCT);
        ensure!(ports.pool.alloc_bulk(&mut bufs, DISTINCT as u32), "the mempool is too small");
        let mut random = Random(u64::from(number) + 1);
        for at in (1..bufs.len()).rev() {
            bufs.swap(at, random.below(at as u32 + 1) as usize);
        }
        let (packets, clock) = (Packets::new(scenario, number..number + 1)?, memory::Clock::start());
        let due = Vec::with_capacity(DISTINCT);
        Ok(Self { packets, worker, ports, feed, drains, bufs, due, clock })
    }

    /// Puts new packets in front of the port.
    pub(crate) fn load(&mut self) -> anyhow::Result<()> {
        self.make()?;
        self.feed.burst(&mut self.bufs);
        ensure!(self.bufs.is_empty(), "the feeding ring is too small");
        Ok(())
    }

    /// Writes new packets into all buffers, sealed if they arrive so.
    fn make(&mut self) -> anyhow::Result<()> {
        self.packets.begin();
        let mut frame = Vec::with_capacity(2048);
        for buf in &mut self.bufs {
            self.packets.make(&mut frame)?;
            buf.reset();
            buf.append(frame.len()).context("a frame does not fit a buffer")?.copy_from_slice(&frame);
        }
        Ok(())
    }

    /// Switches the counting of each node's cycles; the breath that it takes finds no packet.
    pub(crate) fn measure_nodes(&mut self, on: bool) {
        self.ports.command = Some(Command::Measure(on));
        let _ = self.breathe();
    }

    pub(crate) fn breathe(&mut self) -> Breath {
        // The clock is read once a breath, as the data plane's worker does it.
        let now = Instant(self.clock.microseconds());
        breathe(&mut self.worker, now, &mut self.ports)
    }

    /// Breathes until all packets are through; the cycles that it took.
    pub(crate) fn run(&mut self) -> u64 {
        let mut left = DISTINCT as u64;
        let begun = cycles();
        while left > 0 {
            let gone = self.breathe().gone;
            if gone == 0 {
                break;
            }
            left = left.saturating_sub(gone);
        }
        cycles() - begun
    }

    /// The same on a clock of its own, which goes on by so much a breath: nothing that callgrind counts in here depends on the time.
    #[inline(never)]
    pub(crate) fn run_counted(&mut self) {
        let mut now = Instant(self.clock.microseconds());
        loop {
            now = now + BREATH;
            if breathe(&mut self.worker, now, &mut self.ports).gone == 0 {
                break;
            }
        }
    }

    /// A pass in which each packet is put in front of the port when it is due, one in so many cycles, and its latency: from then until it is
    /// behind the other port.
    ///
    /// # Errors
    /// What is wrong with the first packet that is.
    pub(crate) fn run_at(&mut self, interval: f64, latencies: &mut Latencies) -> anyhow::Result<Paced> {
        self.make()?;
        // The next one last.
        self.bufs.reverse();
        let mut came: Vec<Mbuf> = Vec::with_capacity(DISTINCT);
        let mut came_at: Vec<(usize, u64)> = Vec::with_capacity(DISTINCT);
        let (mut sent, mut late) = (0, 0);
        let out = usize::from(self.packets.scenario.kind.out_port());
        let due_at = |index: usize| (index as f64 * interval) as u64;
        let begun = cycles();
        let mut idle_since = begun;
        while came.len() < DISTINCT {
            let now = cycles();
            let due = (((now - begun) as f64 / interval) as usize + 1).min(DISTINCT);
            if due > sent {
                late = late.max(now - begun - due_at(sent));
                let left = self.bufs.len() - (due - sent);
                self.due.extend(self.bufs.drain(left..).rev());
                sent += self.feed.burst(&mut self.due);
                ensure!(self.due.is_empty(), "the feeding ring is too small");
            }
            let _ = self.breathe();
            if self.drains[out].burst(&mut came, DISTINCT) > 0 {
                idle_since = cycles();
                came_at.push((came.len(), idle_since - begun));
            } else if sent == DISTINCT && now.saturating_sub(idle_since) > memory::cycles_per_second() {
                break;
            }
        }
        let mut from = 0;
        for (to, at) in came_at {
            for buf in &mut came[from..to] {
                let index = self.packets.check(out as u16, buf.bytes_mut())?;
                latencies.record(at.saturating_sub(due_at(index)));
            }
            from = to;
        }
        self.bufs.append(&mut came);
        self.verify()?;
        Ok(Paced { late, cycles: idle_since - begun })
    }

    /// Takes back what left and checks every byte of it: each packet once, by the right port, to the right spoke, which can open it.
    ///
    /// # Errors
    /// What is wrong with the first packet that is.
    pub(crate) fn verify(&mut self) -> anyhow::Result<()> {
        for port in 0..self.drains.len() {
            let from = self.bufs.len();
            while self.drains[port].burst(&mut self.bufs, DISTINCT) > 0 {}
            for buf in &mut self.bufs[from..] {
                self.packets.check(port as u16, buf.bytes_mut())?;
            }
        }
        let missing = self.packets.missing();
        ensure!(missing == 0, "{DISTINCT} packets went in, {missing} did not come out");
        Ok(())
    }
}
