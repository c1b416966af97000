//! Packets through a data plane that is programmed meanwhile: each sealed, opened and checked by the spokes' ends of the SAs, counted by its
//! number, and timed.
//!
//! SAs, and spokes that packets go to, may change while it runs: whoever programs says so by [`Turn`]s, and before the data plane can know.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dpdk::{Eal, Mbuf, Mempool, MempoolConfig, Opened, PortConfig, free_bulk};
use hdrhistogram::Histogram;
use model::sa::Direction;
use serde::Serialize;
use wire::buf::PacketBuf;

use crate::destinations::host;
use crate::esp::{Child, HALF};
use crate::frame::{Way, esp_of, index_of};
use crate::machine::{cores, start_dpdk};
use crate::peers::{End, Peers};
use crate::process::{open_linked, other_ends};
use crate::reference::Random;
use crate::scenario::{GATEWAY, Scenario, WAN};

/// Packets of a burst.
const BURST: usize = 32;
/// Most packets on their way at full load: half of what a ring of a memif holds, so that none is ever full.
const WINDOW: usize = 512;
/// After this time without any packet those on their way are lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it looks for packets without a sleep, and sleeps then, between bursts that have their time.
const SPIN: Duration = Duration::from_micros(100);
/// The same of a thread that is ahead of the others on its core: what comes late is taken when it comes, and the kernel, which keeps a part of
/// each second for the others, has no reason to.
const SPIN_AHEAD: Duration = Duration::from_millis(1);
/// Priority of this thread, if it may not be ahead of the others. Not the highest: on a machine that others use, too, a thread of much weight
/// draws the share of its whole group to its own core, and the data plane's worker on the other one stands still.
const NICE: i32 = -10;
/// Mebibytes of packet buffers here.
const MEGABYTES: u32 = 96;
/// Longest time that the histogram has, in nanoseconds.
const LONGEST: u64 = 10_000_000_000;

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A burst at a time, the next one not before so much time has passed; the thread sleeps between.
    Tick(Duration),
    /// As many as come back.
    Full,
}

/// How the thread that sends, and takes the time, stands to others on its core: where there are few cores those who program are there, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// Ahead of all of them: it may have real-time priority.
    Ahead,
    /// It may not, and has a higher priority than others.
    Nice,
    /// Neither.
    Ordinary,
}

/// Packets of a time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Counted {
    pub(crate) sender: Standing,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) mpps: f64,
    /// From the burst that sent them to the burst that received them, in microseconds: median, 99 %, 99.9 %, 99.99 %, the longest.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
    /// Of each burst the longest time between two looks for its packets, in microseconds: 99.9 %, the longest. What is in latencies and not
    /// here was not the sender. Nothing at full load.
    pub(crate) away_p999_us: f64,
    pub(crate) away_max_us: f64,
    /// All of them, as steps of the histogram: up to how many microseconds, how many packets.
    pub(crate) histogram: Vec<(f64, u64)>,
}

/// Packets while they run, of one time or of several.
#[derive(Debug)]
pub(crate) struct Count {
    sender: Standing,
    sent: u64,
    lost: u64,
    time: Duration,
    /// In nanoseconds.
    latency: Histogram<u64>,
    /// As of [`Counted::away_p999_us`].
    away: Histogram<u64>,
}

impl Count {
    /// None yet.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3).context("a histogram");
        let (sender, time) = (Standing::Ordinary, Duration::ZERO);
        Ok(Self { sender, sent: 0, lost: 0, time, latency: histogram()?, away: histogram()? })
    }
}

impl From<&Count> for Counted {
    fn from(count: &Count) -> Self {
        let Count { sender, sent, lost, time, latency, away } = count;
        let (sender, sent, lost) = (*sender, *sent, *lost);
        let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        let steps = latency.iter_log(1000, 1.25);
        let steps =
            steps.map(|step| (step.value_iterated_to() as f64 / 1e3, step.count_since_last_iteration()));
        Self {
            sender,
            sent,
            received: latency.len(),
            lost,
            mpps: latency.len() as f64 / time.as_secs_f64() / 1e6,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: latency.max() as f64 / 1e3,
            away_p999_us: away.value_at_quantile(0.999) as f64 / 1e3,
            away_max_us: away.max() as f64 / 1e3,
            histogram: steps.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Counted {
    /// Whether there were packets and each came back. One that is wrong ends the run.
    pub(crate) fn all_right(&self) -> bool {
        self.sent > 0 && self.received == self.sent && self.lost == 0
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, mpps, p50_us, p99_us, p999_us, p9999_us, max_us, .. } = self;
        let Self { away_p999_us, away_max_us, .. } = self;
        write!(f, "{sent:7} packets ({mpps:.2} Mpps), {lost} lost: p50 {p50_us:.1}, p99 {p99_us:.1}, ")?;
        write!(f, "p99.9 {p999_us:.1}, p99.99 {p9999_us:.1}, longest {max_us:.1} µs")?;
        if *away_max_us > 0.0 {
            write!(f, "; the sender was away for {away_p999_us:.1} (p99.9), {away_max_us:.1} at most")?;
        }
        Ok(())
    }
}

/// What changes for the packets.
pub(crate) enum Turn {
    /// The data plane may seal by this SA from now on: its far end.
    Opens(Child, End),
    /// The spoke seals by this SA from now on.
    Seals(Child, End),
    /// Packets go to this spoke, and come from it.
    Comes(u32),
    /// They do no longer.
    Goes(u32),
}

/// Prefixes that come and go: from this number on so many, spread over so many spokes. While one is away, its packets go to the first spoke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Churned {
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) spokes: u32,
}

impl Churned {
    /// The spoke that a prefix leads to.
    pub(crate) fn spoke(self, prefix: u32) -> u32 {
        prefix % self.spokes
    }
}

/// A packet on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    way: Way,
    at: Instant,
    /// The spokes that it may come to.
    to: [u32; 2],
}

/// See the module.
pub(crate) struct Load {
    eal: Eal,
    core: core_affinity::CoreId,
    pool: Mempool,
    lan: Opened,
    wan: Opened,
    scenario: Scenario,
    churned: Option<Churned>,
    peers: Peers,
    turns: Receiver<Turn>,
    /// The spokes that packets go to.
    spokes: Vec<u32>,
    random: Random,
    /// Number of the next packet.
    next: u32,
    /// Packets on their way, by the lower bits of their numbers; how many there are.
    waiting: Vec<Option<Sent>>,
    in_flight: usize,
    /// What came and was not looked into yet, and when it did.
    came: Vec<Mbuf>,
    came_at: Vec<Instant>,
}

impl Load {
    /// Starts DPDK here, on another core than the workers of the data plane, and waits until both ends of both memifs have found each other.
    ///
    /// # Errors
    /// They do not, or there is no memory.
    pub(crate) fn connect(
        scenario: &Scenario,
        workers: u16,
        churned: Option<Churned>,
    ) -> anyhow::Result<(Self, Sender<Turn>)> {
        let core = *cores(workers + 1)?.last().context("a core for packets")?;
        let peers = Peers::none(scenario).context("a protected tunnel")?;
        let (eal, _) = start_dpdk(MEGABYTES, other_ends(&["lan", "wan"]))?;
        let pool = Mempool::create(&eal, &MempoolConfig { count: 16_383, ..MempoolConfig::default() })?;
        let [lan, wan] = open_linked(&eal, ["net_memif0", "net_memif1"], &PortConfig::new(pool))?;
        let (sender, turns) = channel();
        let load = Self {
            eal,
            core,
            pool,
            lan,
            wan,
            scenario: scenario.clone(),
            churned,
            peers,
            turns,
            spokes: Vec::new(),
            random: Random(11),
            next: 0,
            // Twice the window: whoever is lost is noticed when his place is needed again.
            waiting: vec![None; 2 * WINDOW],
            in_flight: 0,
            came: Vec::with_capacity(2 * WINDOW),
            came_at: Vec::with_capacity(2 * WINDOW),
        };
        Ok((load, sender))
    }

    /// Sends packets until there were enough and the last is back or lost, and counts them.
    ///
    /// # Errors
    /// A packet is not what it must be, or what keeps it from running.
    pub(crate) fn run(
        &mut self,
        pace: Pace,
        enough: impl Fn() -> bool,
        count: &mut Count,
    ) -> anyhow::Result<()> {
        ensure!(core_affinity::set_for_current(self.core), "cannot be pinned to core {}", self.core.id);
        let _token = dpdk::register_worker_thread(&self.eal)?;
        let begun = Instant::now();
        match pace {
            Pace::Full => self.run_full(enough, count)?,
            Pace::Tick(tick) => {
                // Who may not says so with the latencies.
                let ahead = dpdk::run_ahead().ok();
                count.sender = match &ahead {
                    Some(_) => Standing::Ahead,
                    None if rustix::process::setpriority_process(None, NICE).is_ok() => Standing::Nice,
                    None => Standing::Ordinary,
                };
                let spin = if ahead.is_some() { SPIN_AHEAD } else { SPIN };
                self.run_ticks(tick, spin, enough, count)?;
            }
        }
        count.time += begun.elapsed();
        Ok(())
    }

    /// As many as come back.
    fn run_full(&mut self, enough: impl Fn() -> bool, count: &mut Count) -> anyhow::Result<()> {
        let mut made = Vec::with_capacity(BURST);
        let mut last = Instant::now();
        loop {
            self.take_turns()?;
            let sending = !enough();
            if !sending && self.in_flight == 0 {
                return Ok(());
            }
            if sending && self.in_flight + BURST <= WINDOW {
                count.sent += self.send(&mut made)?;
            }
            if self.receive() > 0 {
                self.account(&mut count.latency)?;
                last = Instant::now();
            } else if self.in_flight > 0 && last.elapsed() > PATIENCE {
                count.lost += self.give_up();
                last = Instant::now();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// A burst each tick, or later if the one before it is not back. Between bursts the thread sleeps, and it looks into packets when all of a
    /// burst are there, so that it misses none that comes meanwhile.
    fn run_ticks(
        &mut self,
        tick: Duration,
        spin: Duration,
        enough: impl Fn() -> bool,
        count: &mut Count,
    ) -> anyhow::Result<()> {
        let mut made = Vec::with_capacity(BURST);
        loop {
            self.take_turns()?;
            if enough() {
                return Ok(());
            }
            count.sent += self.send(&mut made)?;
            let begun = Instant::now();
            let (mut looked, mut away) = (begun, Duration::ZERO);
            while self.came.len() < self.in_flight && begun.elapsed() < PATIENCE {
                self.receive();
                let now = Instant::now();
                away = away.max(now - looked);
                looked = now;
                if now - begun > spin {
                    // The data plane does not run now: who programs it may.
                    std::thread::sleep(SPIN);
                }
            }
            count.away.saturating_record(away.as_nanos() as u64);
            self.account(&mut count.latency)?;
            if self.in_flight > 0 {
                count.lost += self.give_up();
            }
            std::thread::sleep((begun + tick).saturating_duration_since(Instant::now()));
        }
    }

    fn take_turns(&mut self) -> anyhow::Result<()> {
        while let Ok(turn) = self.turns.try_recv() {
            match turn {
                Turn::Opens(child, end) => self.peers.install(Direction::Outbound, child.slot(), end),
                Turn::Seals(child, end) => self.peers.install(Direction::Inbound, child.spoke, end),
                Turn::Comes(spoke) => self.spokes.push(spoke),
                Turn::Goes(spoke) => {
                    let at = self.spokes.iter().position(|there| *there == spoke);
                    self.spokes.swap_remove(at.context("a spoke that is not there goes")?);
                }
            }
        }
        Ok(())
    }

    /// Sends a burst; how many that were.
    fn send(&mut self, made: &mut Vec<Mbuf>) -> anyhow::Result<u64> {
        let first = self.next;
        let mut frame = Vec::with_capacity(2048);
        for _ in 0..BURST {
            let sent = self.draw()?;
            sent.way.arrival(&self.scenario, Some(&mut self.peers), &mut frame)?;
            let mut packet = self.pool.alloc().context("no packet buffer is free")?;
            packet.append(frame.len()).context("a frame that fits")?.copy_from_slice(&frame);
            made.push(packet);
            let place = self.next as usize % self.waiting.len();
            ensure!(
                self.waiting[place].replace(sent).is_none(),
                "packet {} has been overtaken",
                sent.way.index
            );
            self.next = self.next.wrapping_add(1);
        }
        self.in_flight += BURST;
        let now = Instant::now();
        for number in 0..BURST as u32 {
            let place = first.wrapping_add(number) as usize % self.waiting.len();
            self.waiting[place].iter_mut().for_each(|sent| sent.at = now);
        }
        let port = if self.scenario.kind.in_port() == WAN { &mut self.wan } else { &mut self.lan };
        port.tx[0].burst(made);
        // The ring has room for twice the window.
        ensure!(made.is_empty(), "the memif takes no packets");
        Ok(BURST as u64)
    }

    /// The next packet's way: from a spoke to another, or to a prefix that comes and goes.
    fn draw(&mut self) -> anyhow::Result<Sent> {
        let random = &mut self.random;
        let there = u32::try_from(self.spokes.len())?;
        ensure!(there > 0, "there is no spoke");
        let from = self.spokes[random.below(there) as usize];
        let spoke = self.spokes[random.below(there) as usize];
        let churned = self.churned.filter(|_| random.below(4) == 0);
        let (prefix, to) = match churned {
            Some(churned) => {
                let prefix = churned.first + random.below(churned.count);
                (prefix, [churned.spoke(prefix), 0])
            }
            None => (spoke, [spoke; 2]),
        };
        let size = self.scenario.size.draw(64, random);
        let addr = host(self.scenario.inner, prefix, random);
        let way = Way { index: self.next, pass: 1, size, from, to: addr, route: to[0] };
        Ok(Sent { way, at: Instant::now(), to })
    }

    /// Takes what came; how many were ours.
    fn receive(&mut self) -> usize {
        // What else the data plane sends there is nobody's.
        let first = self.came.len();
        self.lan.rx[0].burst(&mut self.came, 2 * BURST);
        self.came.drain(first..).for_each(Mbuf::free);
        self.wan.rx[0].burst(&mut self.came, 2 * BURST);
        let now = Instant::now();
        // The kernel's twins have something to say, too.
        let others = self.came.extract_if(first.., |packet| !packet.bytes().starts_with(&GATEWAY.0));
        others.for_each(Mbuf::free);
        self.came_at.resize(self.came.len(), now);
        self.came.len() - first
    }

    /// Opens and checks what came, and notes how long each packet took.
    fn account(&mut self, latency: &mut Histogram<u64>) -> anyhow::Result<()> {
        let (mut came, mut came_at) = (std::mem::take(&mut self.came), std::mem::take(&mut self.came_at));
        for (packet, at) in came.iter_mut().zip(came_at.drain(..)) {
            let sent = self.sent(packet)?;
            latency.saturating_record(at.duration_since(sent.at).as_nanos() as u64);
        }
        free_bulk(&mut came);
        (self.came, self.came_at) = (came, came_at);
        Ok(())
    }

    /// A packet came out of the data plane: opens and checks it.
    fn sent(&mut self, packet: &mut Mbuf) -> anyhow::Result<Sent> {
        let esp = esp_of(&self.scenario, packet.bytes_mut())?;
        let (slot, header) = self.peers.open_any(esp)?;
        let frame = packet.bytes();
        let index = index_of(&self.scenario, frame).context("a frame without a payload")?;
        let place = index as usize % self.waiting.len();
        let sent = self.waiting[place].take_if(|sent| sent.way.index == index);
        let Some(sent) = sent else { bail!("packet {index} is not on its way") };
        self.in_flight -= 1;
        let spoke = slot % HALF;
        ensure!(sent.to.contains(&spoke), "packet {index} came to spoke {spoke}: {:?}", sent.way);
        let way = Way { route: spoke, ..sent.way };
        way.check_departure(&self.scenario, WAN, Some(header), frame)
            .with_context(|| format!("packet {index}: {way:?}"))?;
        Ok(sent)
    }

    /// What is on its way will not come.
    fn give_up(&mut self) -> u64 {
        self.waiting.fill(None);
        std::mem::take(&mut self.in_flight) as u64
    }
}
