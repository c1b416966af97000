//! The source of packets that is not the data plane: its own ends of the links, on a core of its own. Every packet is made before it is sent and
//! checked after all are back, so that meanwhile this thread does nothing but send, receive, and look at the clock.
//!
//! ```text
//!   make 16,384 packets ─► send, as many on their way as the window lets ─► take back ─► check each byte, latency of each
//!   make a trial's      ─► send each when it is due at the rate           ─► take back ─► the same
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dpdk::{Eal, Mbuf, Mempool, MempoolConfig, Opened, Port, PortConfig, RxQueue, TxQueue, free_bulk};
use memory::cycles;
use wire::buf::PacketBuf;

use crate::histogram::{AtRate, Latencies, TRIALS, Timed};
use crate::lane::DISTINCT;
use crate::packets::Packets;
use crate::process::open_linked;
use crate::progress::Progress;
use crate::scenario::Scenario;

/// Packets on their way in a pass: fewer than a ring of a memif holds, so that none is ever full, and more than a worker takes at once.
const WINDOW: usize = 896;
/// Packets that are sent, or taken back, at a time.
const BURST: usize = 64;
/// After this time without any packet those on their way are lost.
const PATIENCE: Duration = Duration::from_millis(200);
/// Bytes of a frame's room: the largest one, and what a tunnel puts around it.
const ROOM: usize = 2048;
/// How long a trial is at the rate at which latency is measured.
const TRIAL_SECONDS: f64 = 0.2;
/// Whoever sends so much later than it was due has been kept from its core.
const LATE: Duration = Duration::from_micros(200);

/// What a pass or a trial was.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) sent: usize,
    /// Those that the link did not take, since its ring was full; they are lost like all that did not come back.
    pub(crate) refused: usize,
    pub(crate) came: usize,
    /// Time stamp counter from the first packet sent to the last one back.
    pub(crate) cycles: u64,
    /// By how much the last packet was behind its time: the rate was not kept.
    pub(crate) late_max: Duration,
    pub(crate) latencies: Latencies,
}

impl Flight {
    /// Packets that did not come back.
    pub(crate) fn lost(&self) -> usize {
        self.sent - self.came
    }

    /// Millions of packets a second.
    pub(crate) fn mpps(&self) -> f64 {
        self.came as f64 * memory::cycles_per_second() as f64 / self.cycles as f64 / 1e6
    }

    /// Whether this thread was kept from its core while it sent.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.late_max > LATE
    }
}

/// What goes into one worker, and comes out of it.
struct Lane {
    packets: Packets,
    tx: TxQueue,
    rx: RxQueue,
    /// What is to be sent, the next one last.
    made: Vec<Mbuf>,
    burst: Vec<Mbuf>,
    came: Vec<Mbuf>,
    /// When each packet was sent, by its number; how many have come at which time.
    sent_at: Vec<u64>,
    came_at: Vec<(usize, u64)>,
    /// Of what came, how many are frames of ours: what the data plane's kernel has to say on its own account goes to many.
    ours: usize,
}

/// See the module.
pub(crate) struct Generator {
    pool: Mempool,
    lanes: Vec<Lane>,
    /// What comes out of the port that nothing should come out of, if it is another one.
    other: Vec<RxQueue>,
    out_port: u16,
    _ports: Vec<Port>,
}

impl Generator {
    /// Opens the far ends of the data plane's ports `lan` and `wan`, and waits until the links are up. There is a queue for each worker, or
    /// one for all of them.
    ///
    /// # Errors
    /// A device cannot be opened, or a link does not come up.
    pub(crate) fn connect(
        eal: &Eal,
        devices: [&str; 2],
        scenario: &Scenario,
        workers: u16,
        queues: u16,
    ) -> anyhow::Result<Self> {
        let count = (2 * DISTINCT as u32 + 8192) * u32::from(queues);
        let pool = Mempool::create(eal, &MempoolConfig { count, ..MempoolConfig::default() })?;
        let config =
            PortConfig { rx_queues: queues, tx_queues: queues, promiscuous: true, ..PortConfig::new(pool) };
        let kind = scenario.kind;
        let mut ports = open_linked(eal, devices, &config)?;
        let from = usize::from(kind.out_port());
        let tx = std::mem::take(&mut ports[usize::from(kind.in_port())].tx);
        let rx = std::mem::take(&mut ports[from].rx);
        ensure!(
            tx.len() == usize::from(queues) && rx.len() == tx.len(),
            "{devices:?} do not have {queues} queues"
        );
        let other = std::mem::take(&mut ports[1 - from].rx);
        let lanes = (0..).zip(tx.into_iter().zip(rx)).map(|(number, (tx, rx))| {
            let of = if queues == workers { number..number + 1 } else { 0..workers };
            Ok(Lane::new(Packets::new(scenario.clone(), of)?, tx, rx))
        });
        let lanes = lanes.collect::<anyhow::Result<_>>()?;
        let ports = ports.into_iter().map(|opened: Opened| opened.port).collect();
        Ok(Self { pool, lanes, other, out_port: kind.out_port(), _ports: ports })
    }

    /// The packets of each queue.
    pub(crate) fn packets(&mut self) -> impl Iterator<Item = &mut Packets> {
        self.lanes.iter_mut().map(|lane| &mut lane.packets)
    }

    /// How many queues there are.
    pub(crate) fn queues(&self) -> usize {
        self.lanes.len()
    }

    /// Sends 16,384 packets by each queue as fast as they are taken and come back, and checks them.
    ///
    /// # Errors
    /// A packet came out wrong.
    pub(crate) fn pass(&mut self) -> anyhow::Result<Flight> {
        self.sweep();
        for lane in &mut self.lanes {
            lane.load(&self.pool)?;
        }
        let begun = cycles();
        let mut last = Instant::now();
        loop {
            let mut came = 0;
            for lane in &mut self.lanes {
                came += lane.receive();
                lane.send();
            }
            if self.lanes.iter().all(|lane| lane.ours == DISTINCT) {
                break;
            }
            if came > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                break;
            }
        }
        let cycles = cycles() - begun;
        let mut latencies = Latencies::new()?;
        let mut came = 0;
        for lane in &mut self.lanes {
            came += lane.verify(self.out_port, &mut latencies)?;
        }
        let sent = self.lanes.len() * DISTINCT;
        Ok(Flight { sent, refused: 0, came, cycles, late_max: Duration::ZERO, latencies })
    }

    /// Forgets what lies in the links, of a pass that lost its packets, or of the data plane's kernel.
    fn sweep(&mut self) {
        let mut came = Vec::with_capacity(BURST);
        for lane in &mut self.lanes {
            free_bulk(&mut lane.made);
            free_bulk(&mut lane.burst);
            free_bulk(&mut lane.came);
        }
        for lane in &mut self.lanes {
            while lane.rx.burst(&mut came, BURST) > 0 {
                free_bulk(&mut came);
            }
        }
        for rx in &mut self.other {
            while rx.burst(&mut came, BURST) > 0 {
                free_bulk(&mut came);
            }
        }
    }

    /// Latency at a rate, in several short trials: together, and of the one that was disturbed least.
    ///
    /// # Errors
    /// A packet came out wrong.
    pub(crate) fn at_rate(&mut self, mpps: f64) -> anyhow::Result<AtRate> {
        let mut progress = Progress::new();
        self.packets().for_each(|packets| packets.allow_loss());
        let count = (mpps * 1e6 * TRIAL_SECONDS / self.queues() as f64).ceil() as usize;
        let mut trials = Vec::with_capacity(TRIALS);
        for trial in 0..TRIALS {
            progress.tell(format_args!("trial {} of {TRIALS} at {mpps:.2} Mpps", trial + 1));
            let flight = self.trial(count, mpps * 1e6)?;
            trials.push(Timed {
                mpps: flight.mpps(),
                sent: flight.sent,
                lost: flight.lost(),
                late: flight.late_max,
                latencies: flight.latencies,
            });
        }
        AtRate::new(mpps, &trials)
    }

    /// Sends `count` packets by each queue, each when it is due at `rate` a second over all queues, takes back what comes, and checks it.
    ///
    /// # Errors
    /// A packet came out wrong.
    pub(crate) fn trial(&mut self, count: usize, rate: f64) -> anyhow::Result<Flight> {
        self.sweep();
        let mut trials = Vec::with_capacity(self.lanes.len());
        for lane in &mut self.lanes {
            trials.push(Trial::new(lane, count)?);
        }
        let per_cycle = rate / self.lanes.len() as f64 / memory::cycles_per_second() as f64;
        let begun = cycles();
        let (mut last, mut late) = (begun, 0.0_f64);
        let patience = (PATIENCE.as_secs_f64() * memory::cycles_per_second() as f64) as u64;
        loop {
            let now = cycles();
            let due = (now - begun) as f64 * per_cycle;
            let (mut came, mut done) = (0, true);
            for (lane, trial) in self.lanes.iter_mut().zip(&mut trials) {
                if trial.sent < count {
                    late = late.max(due.min(count as f64) - trial.sent as f64);
                    trial.send(lane, &self.pool, due as usize)?;
                }
                came += trial.receive(lane);
                done &= trial.sent == count && trial.came.len() + trial.refused >= count;
            }
            if came > 0 || trials.iter().any(|trial| trial.sent < count) {
                last = now;
            }
            if done || now - last > patience {
                break;
            }
        }
        let cycles = if trials.iter().all(|trial| trial.came.is_empty()) { 1 } else { last - begun };
        let late_max = Duration::from_secs_f64(late / per_cycle / memory::cycles_per_second() as f64);
        let mut flight =
            Flight { sent: 0, refused: 0, came: 0, cycles, late_max, latencies: Latencies::new()? };
        for (lane, trial) in self.lanes.iter_mut().zip(trials) {
            flight.sent += trial.sent;
            flight.refused += trial.refused;
            flight.came += trial.verify(lane, self.out_port, &mut flight.latencies)?;
        }
        Ok(flight)
    }
}

impl Lane {
    fn new(packets: Packets, tx: TxQueue, rx: RxQueue) -> Self {
        let bufs = |count| Vec::with_capacity(count);
        Self {
            packets,
            tx,
            rx,
            made: bufs(DISTINCT),
            burst: bufs(BURST),
            came: bufs(DISTINCT + BURST),
            sent_at: Vec::with_capacity(DISTINCT),
            came_at: Vec::with_capacity(DISTINCT),
            ours: 0,
        }
    }

    /// Makes the packets of a pass.
    fn load(&mut self, pool: &Mempool) -> anyhow::Result<()> {
        self.sent_at.clear();
        self.came_at.clear();
        self.ours = 0;
        self.packets.begin();
        ensure!(pool.alloc_bulk(&mut self.made, DISTINCT as u32), "the mempool is too small");
        let mut frame = Vec::with_capacity(ROOM);
        for buf in self.made.iter_mut().rev() {
            self.packets.make(&mut frame)?;
            buf.append(frame.len()).context("a frame does not fit a buffer")?.copy_from_slice(&frame);
        }
        Ok(())
    }

    /// Sends what the window lets.
    fn send(&mut self) {
        let room = (self.ours + WINDOW).saturating_sub(self.sent_at.len());
        if self.burst.is_empty() {
            let from = self.made.len().saturating_sub(room.min(BURST));
            self.burst.extend(self.made.drain(from..).rev());
        }
        if self.burst.is_empty() {
            return;
        }
        let now = cycles();
        let taken = self.tx.burst(&mut self.burst);
        self.sent_at.extend(std::iter::repeat_n(now, taken));
    }

    /// Takes what came; how many.
    fn receive(&mut self) -> usize {
        let from = self.came.len();
        let got = self.rx.burst(&mut self.came, BURST);
        if got > 0 {
            self.came_at.push((self.came.len(), cycles()));
            self.ours += self.came[from..].iter().filter(|buf| is_ours(buf.bytes())).count();
        }
        got
    }

    /// Checks what came back and gives its buffers back; how many packets.
    fn verify(&mut self, port: u16, latencies: &mut Latencies) -> anyhow::Result<usize> {
        let (mut from, mut count) = (0, 0);
        for (to, at) in self.came_at.drain(..) {
            for buf in self.came[from..to].iter_mut().filter(|buf| is_ours(buf.bytes())) {
                let index = self.packets.check(port, buf.bytes_mut())?;
                latencies.record(at.saturating_sub(self.sent_at[index]));
                count += 1;
            }
            from = to;
        }
        free_bulk(&mut self.came);
        Ok(count)
    }
}

/// Whether a frame is to one station: the kernel's own in the data plane are to many.
fn is_ours(frame: &[u8]) -> bool {
    frame.first().is_some_and(|byte| byte & 1 == 0)
}

/// Frames one behind the other.
struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Room for so many, whose pages are there already.
    fn new(count: usize, bytes: usize) -> Self {
        let mut all = vec![1; bytes];
        all.clear();
        Self { bytes: all, ends: Vec::with_capacity(count) }
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn frame(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at]]
    }

    fn frame_mut(&mut self, at: usize) -> &mut [u8] {
        let start = self.start(at);
        &mut self.bytes[start..self.ends[at]]
    }
}

/// One queue's part of a trial: its frames, in ordinary memory, since there are not as many buffers as a second has packets.
struct Trial {
    made: Frames,
    sent: usize,
    refused: usize,
    sent_at: Vec<u64>,
    came: Frames,
    came_at: Vec<u64>,
}

impl Trial {
    fn new(lane: &mut Lane, count: usize) -> anyhow::Result<Self> {
        lane.packets.begin();
        let mut made = Frames::new(count, 0);
        let mut frame = Vec::with_capacity(ROOM);
        for _ in 0..count {
            lane.packets.make(&mut frame)?;
            made.push(&frame);
        }
        // What a tunnel puts around it has at most as many bytes.
        let came = Frames::new(count, made.bytes.len() + count * 128);
        let times = || {
            let mut times = vec![1; count];
            times.clear();
            times
        };
        Ok(Self { made, sent: 0, refused: 0, sent_at: times(), came, came_at: times() })
    }

    /// Sends up to the packet that is due, a burst at most.
    fn send(&mut self, lane: &mut Lane, pool: &Mempool, due: usize) -> anyhow::Result<()> {
        let count = due.min(self.made.len()).saturating_sub(self.sent).min(BURST);
        if count == 0 {
            return Ok(());
        }
        let burst = &mut lane.burst;
        ensure!(pool.alloc_bulk(burst, count as u32), "no packet buffer is free");
        for (at, buf) in (self.sent..).zip(&mut *burst) {
            let frame = self.made.frame(at);
            buf.append(frame.len()).context("a frame does not fit a buffer")?.copy_from_slice(frame);
        }
        let now = cycles();
        let taken = lane.tx.burst(burst);
        self.refused += count - taken;
        free_bulk(burst);
        self.sent += count;
        self.sent_at.extend(std::iter::repeat_n(now, count));
        Ok(())
    }

    /// Takes what came; how many.
    fn receive(&mut self, lane: &mut Lane) -> usize {
        let bufs = &mut lane.came;
        if lane.rx.burst(bufs, BURST) == 0 {
            return 0;
        }
        let now = cycles();
        let before = self.came.len();
        for buf in bufs.iter().filter(|buf| is_ours(buf.bytes())) {
            self.came.push(buf.bytes());
            self.came_at.push(now);
        }
        free_bulk(bufs);
        self.came.len() - before
    }

    /// Checks what came back; how many packets.
    fn verify(mut self, lane: &mut Lane, port: u16, latencies: &mut Latencies) -> anyhow::Result<usize> {
        for at in 0..self.came.len() {
            let index = lane.packets.check(port, self.came.frame_mut(at))?;
            latencies.record(self.came_at[at].saturating_sub(self.sent_at[index]));
        }
        Ok(self.came.len())
    }
}
