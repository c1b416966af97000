//! `nave-perf soak`: full load for a long time, while all that changes in a hub's life changes.
//!
//! | what | how often |
//! | --- | --- |
//! | child SAs are renewed, make before break: inbound, outbound, the old inbound goes a second later | each every `--rekey-seconds` |
//! | routes go and come | `--churn` a second, each away for 10 ms |
//! | spokes come, get their packets, and go with all that is theirs | `--visits` a second, each for 5 s |
//!
//! Packets come sealed from a spoke and leave sealed for another one. Every one is counted by its number, opened and compared byte by byte.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::value_parser;
use model::program::{Key, Object, Op, Owner};
use model::sa::{Direction, SaMode, Suite};
use model::state::{State, What};
use model::{Mac, Prefix, TableId};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::destinations::{Destinations, dense_prefix};
use crate::esp::{Child, Esp, HALF};
use crate::hub::Hub;
use crate::load::{Churned, Count, Counted, Load, Pace, Turn};
use crate::machine::resident;
use crate::peers::End;
use crate::process::{Dataplane, Folder, Setup};
use crate::programmer::Programmer;
use crate::scenario::{Family, Kind, Scenario};
use crate::size::Size;

/// Ports of the data plane.
const PORTS: [&str; 2] = ["lan", "wan"];
/// Of the ports.
const MTU: u16 = 1500;
/// Batches a second.
const TICKS: u64 = 100;
/// How long a spoke that comes stays, and how long what is no longer used is kept, in batches: till then whatever was on its way has arrived.
const STAY: u64 = 5 * TICKS;
const LINGER: u64 = TICKS;
/// Prefixes that come and go.
const CHURNED: u32 = 2048;
/// Of the run, what passes before memory is measured for the first time.
const WARM: f64 = 0.2;
/// Bytes that memory may grow by: the allocator's pieces, and lists that get as long as they ever will.
const GROWTH: u64 = 4 << 20;

/// Command line of `nave-perf soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Minutes
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
    /// Spokes that stay
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(2..=50_000))]
    spokes: u32,
    /// Bytes of the frame in the clear: 64 to 1400, or imix
    #[arg(long, default_value = "64")]
    size: Size,
    /// Seconds after which each child SA is renewed
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(2..=3600))]
    rekey_seconds: u32,
    /// Routes that go each second, each back 10 ms later
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(0..=100_000))]
    churn: u32,
    /// Spokes that come each second, each for 5 s
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(0..=100))]
    visits: u32,
    /// The data plane's program; the one beside this program if not given
    #[arg(long)]
    dataplane: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// One run.
#[derive(Debug, Serialize)]
struct Report {
    seconds: f64,
    spokes: u32,
    packets: Counted,
    /// SAs that were renewed, routes that went and came back, spokes that came and went.
    renewed: u64,
    churned: u64,
    visited: u64,
    /// Longest time that a batch waited for its acknowledgement, in milliseconds.
    ack_max_ms: f64,
    /// Packets that the data plane dropped, by reason.
    drops: Vec<(String, u64)>,
    /// The data plane's memory in RAM when a fifth of the time had passed, and at the end, in bytes.
    rss_warm: u64,
    rss: u64,
    /// Whether every packet came back and right, none was dropped, and memory did not grow.
    verified: bool,
    /// Whether the data plane's packet buffers are in huge pages.
    huge_pages: bool,
}

/// Runs it; whether all is as it must be.
///
/// # Errors
/// What keeps it from running, in one sentence; the first packet that is wrong.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    Hub::alone()?;
    let folder = Folder::new()?;
    let mut setup = Setup::memif(&PORTS)?;
    setup.flags.extend(["--idle".to_owned(), "poll".to_owned()]);
    let dataplane = Dataplane::start(args.dataplane.as_deref(), &folder, &setup)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(soak(args, &dataplane))?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.verified)
}

/// Spokes that are away or there, of those that come and go: no number is used again before all that it had is gone.
fn visitors(args: &Args) -> u32 {
    ((STAY + LINGER) * u64::from(args.visits) / TICKS) as u32 + 100
}

/// The spokes that stay are the first.
fn scenario(args: &Args, macs: [Mac; 2]) -> Scenario {
    let spokes = args.spokes + visitors(args);
    let esp = Esp {
        suite: Suite::AesGcm128,
        mode: SaMode::Transport,
        is_udp: false,
        esn: true,
        window: 1024,
        provider: aead::Provider::best(),
    };
    Scenario {
        kind: Kind::Relay,
        inner: Family::Ipv4,
        outer: Family::Ipv4,
        spokes,
        destinations: Arc::new(Destinations::new(Family::Ipv4, spokes, false)),
        size: args.size,
        esp: Some(esp),
        macs,
        mtu: MTU,
    }
}

async fn soak(args: &Args, dataplane: &Dataplane) -> anyhow::Result<Report> {
    let mut programmer = Programmer::connect(dataplane.socket.clone()).await?;
    let scenario = scenario(args, [programmer.mac(PORTS[0])?, programmer.mac(PORTS[1])?]);
    let churned = Churned { first: HALF / 2, count: CHURNED, spokes: args.spokes };
    let (mut load, turns) = Load::connect(&scenario, 1, Some(churned))?;
    let mut life = Life::new(args, scenario, churned, turns)?;
    for ops in life.beginning()?.chunks(1024) {
        let batch = programmer.batch(ops.to_vec());
        programmer.apply([batch].into(), 1).await?;
    }

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let running = tokio::task::spawn_blocking(move || {
        let mut count = Count::new()?;
        load.run(Pace::Full, || stopped.load(Ordering::Relaxed), &mut count)?;
        anyhow::Ok(Counted::from(&count))
    });
    let begun = Instant::now();
    let lived = live(args, &mut life, &mut programmer, dataplane, || running.is_finished()).await;
    stop.store(true, Ordering::Relaxed);
    let packets = running.await.context("the load's thread")??;
    let lived = lived?;
    let State::Drops(drops) = programmer.show(What::Drops).await? else { bail!("drops were asked for") };
    let drops: Vec<_> =
        drops.0.into_iter().filter(|drop| drop.count > 0).map(|drop| (drop.name, drop.count)).collect();
    let rss = resident(&dataplane.process.number())?.rss;
    programmer.close().await;
    Ok(Report {
        seconds: begun.elapsed().as_secs_f64(),
        spokes: args.spokes,
        renewed: life.renewed,
        churned: life.churned,
        visited: life.visited,
        ack_max_ms: lived.ack_max * 1e3,
        verified: packets.all_right() && drops.is_empty() && rss <= lived.rss_warm + GROWTH,
        packets,
        drops,
        rss_warm: lived.rss_warm,
        rss,
        huge_pages: dataplane.huge_pages,
    })
}

/// What was seen while it lasted.
struct Lived {
    ack_max: f64,
    rss_warm: u64,
}

/// A batch each tick, for as long as it is to last or packets run.
async fn live(
    args: &Args,
    life: &mut Life,
    programmer: &mut Programmer,
    dataplane: &Dataplane,
    is_over: impl Fn() -> bool,
) -> anyhow::Result<Lived> {
    let number = dataplane.process.number();
    let mut ticks = interval(Duration::from_secs(1) / TICKS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let (begun, mut lived) = (Instant::now(), Lived { ack_max: 0.0, rss_warm: 0 });
    while begun.elapsed() < length && !is_over() {
        ticks.tick().await;
        let batch = programmer.batch(life.tick()?);
        let sent = Instant::now();
        programmer.apply([batch].into(), 1).await?;
        lived.ack_max = lived.ack_max.max(sent.elapsed().as_secs_f64());
        life.acknowledged()?;
        if lived.rss_warm == 0 && begun.elapsed() > length.mul_f64(WARM) {
            lived.rss_warm = resident(&number)?.rss;
        }
    }
    Ok(lived)
}

/// What changes, and when.
struct Life {
    scenario: Scenario,
    esp: Esp,
    prefixes: Churned,
    turns: Sender<Turn>,
    /// Lives of the child SAs of the spokes that stay.
    lives: Vec<u32>,
    /// Ticks in which each of them is renewed once.
    round: u64,
    /// Routes of each tick; spokes that come each second.
    churn: u32,
    visits: u64,
    tick: u64,
    /// Prefixes that are away, and the one that goes next.
    away: Vec<u32>,
    next_prefix: u32,
    /// What is to be done in later ticks, in order.
    later: VecDeque<(u64, Later)>,
    /// What is told to the load when the batch is acknowledged.
    then: Vec<Turn>,
    /// Numbers of spokes that come, to use again.
    visitors: VecDeque<Child>,
    renewed: u64,
    churned: u64,
    visited: u64,
}

/// Something in a later tick.
#[derive(Debug, Clone, Copy)]
enum Later {
    /// The outbound half of a renewal, after the inbound one was acknowledged.
    Outbound(Child),
    /// The end of an inbound SA that is used no longer.
    End(Child),
    /// A spoke goes: first its packets, then the rest of it.
    Goes(Child),
    Gone(Child),
}

impl Life {
    fn new(args: &Args, scenario: Scenario, prefixes: Churned, turns: Sender<Turn>) -> anyhow::Result<Self> {
        let esp = scenario.esp.context("a protected tunnel")?;
        Ok(Self {
            scenario,
            esp,
            prefixes,
            turns,
            lives: vec![0; args.spokes as usize],
            round: u64::from(args.rekey_seconds) * TICKS,
            churn: args.churn / TICKS as u32,
            visits: args.visits.into(),
            tick: 0,
            away: Vec::new(),
            next_prefix: prefixes.first,
            later: VecDeque::new(),
            then: Vec::new(),
            visitors: (0..visitors(args)).map(|n| Child { spoke: args.spokes + n, life: 0 }).collect(),
            renewed: 0,
            churned: 0,
            visited: 0,
        })
    }

    /// What there is before the first packet.
    fn beginning(&mut self) -> anyhow::Result<Vec<Op>> {
        let mut objects = self.scenario.base()?;
        for spoke in 0..self.prefixes.spokes {
            self.come(Child { spoke, life: 0 }, &mut objects)?;
        }
        for prefix in self.prefixes.first..self.prefixes.first + self.prefixes.count {
            objects.push(self.churned_route(prefix)?);
        }
        // Under those that go: what they lead to then.
        let all = Prefix::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).context("the default route")?;
        objects.push(self.scenario.route_to(all, 0)?);
        self.acknowledged()?;
        Ok(objects.into_iter().map(put).collect())
    }

    /// A spoke comes: what is to be put for it. Packets are told when that is done.
    fn come(&mut self, child: Child, objects: &mut Vec<Object>) -> anyhow::Result<()> {
        for direction in [Direction::Inbound, Direction::Outbound] {
            objects.push(self.esp.child_sa(direction, self.scenario.outer, child)?);
        }
        objects.extend(self.scenario.spoke(child.spoke)?);
        let end = |direction| End::of_child(&self.esp, direction, child);
        let turns = [
            Turn::Opens(child, end(Direction::Outbound)?),
            Turn::Seals(child, end(Direction::Inbound)?),
            Turn::Comes(child.spoke),
        ];
        self.then.extend(turns);
        Ok(())
    }

    /// The steps of the next batch.
    fn tick(&mut self) -> anyhow::Result<Vec<Op>> {
        self.tick += 1;
        let mut ops = Vec::new();
        self.churn(&mut ops)?;
        while let Some((_, later)) = self.later.pop_front_if(|(tick, _)| *tick <= self.tick) {
            self.later(later, &mut ops)?;
        }
        let stay = self.lives.len() as u64;
        let share = |tick: u64| (tick % self.round * stay / self.round) as usize;
        let (from, to) = (share(self.tick - 1), share(self.tick));
        for spoke in from..if to < from { self.lives.len() } else { to } {
            self.renew(spoke, &mut ops)?;
        }
        let visits = self.tick * self.visits / TICKS - (self.tick - 1) * self.visits / TICKS;
        for _ in 0..visits {
            let Some(child) = self.visitors.pop_front() else { break };
            let mut objects = Vec::new();
            self.come(child, &mut objects)?;
            ops.extend(objects.into_iter().map(put));
            self.at(STAY, Later::Goes(child));
        }
        Ok(ops)
    }

    /// The batch is done.
    fn acknowledged(&mut self) -> anyhow::Result<()> {
        for turn in self.then.drain(..) {
            self.turns.send(turn).map_err(|_| anyhow::anyhow!("no packets run any more"))?;
        }
        Ok(())
    }

    /// Kept in order: times are of a few kinds, so what is later is mostly behind.
    fn at(&mut self, ticks: u64, later: Later) {
        let due = self.tick + ticks;
        let place = self.later.partition_point(|(tick, _)| *tick <= due);
        self.later.insert(place, (due, later));
    }

    fn churn(&mut self, ops: &mut Vec<Op>) -> anyhow::Result<()> {
        for prefix in std::mem::take(&mut self.away) {
            ops.push(put(self.churned_route(prefix)?));
            self.churned += 1;
        }
        for _ in 0..self.churn {
            let prefix = self.next_prefix;
            self.next_prefix = if prefix + 1 < self.prefixes.first + self.prefixes.count {
                prefix + 1
            } else {
                self.prefixes.first
            };
            self.away.push(prefix);
            let key = Key::Route(TableId(0), dense_prefix(self.scenario.inner, prefix));
            ops.push(Op::Remove(Owner::Nhrp, key));
        }
        Ok(())
    }

    fn churned_route(&self, prefix: u32) -> anyhow::Result<Object> {
        self.scenario.route_to(dense_prefix(self.scenario.inner, prefix), self.prefixes.spoke(prefix))
    }

    /// Begins the renewal of a child SA: the inbound one first.
    fn renew(&mut self, spoke: usize, ops: &mut Vec<Op>) -> anyhow::Result<()> {
        let old = Child { spoke: spoke as u32, life: self.lives[spoke] };
        let new = Child { life: old.life + 1, ..old };
        self.lives[spoke] = new.life;
        ops.push(put(self.esp.child_sa(Direction::Inbound, self.scenario.outer, new)?));
        self.then.push(Turn::Seals(new, End::of_child(&self.esp, Direction::Inbound, new)?));
        // The load knows of it one tick before the data plane does.
        self.then.push(Turn::Opens(new, End::of_child(&self.esp, Direction::Outbound, new)?));
        self.at(1, Later::Outbound(new));
        self.at(LINGER, Later::End(old));
        self.renewed += 1;
        Ok(())
    }

    fn later(&mut self, later: Later, ops: &mut Vec<Op>) -> anyhow::Result<()> {
        match later {
            Later::Outbound(new) => {
                ops.push(put(self.esp.child_sa(Direction::Outbound, self.scenario.outer, new)?));
            }
            Later::End(old) => ops.push(self.remove_inbound(old)?),
            Later::Goes(child) => {
                self.turns.send(Turn::Goes(child.spoke)).context("no packets run any more")?;
                self.at(LINGER, Later::Gone(child));
            }
            Later::Gone(child) => {
                for object in self.scenario.spoke(child.spoke)? {
                    ops.push(Op::Remove(owner(&object), object.key()));
                }
                ops.push(self.remove_inbound(child)?);
                let outbound = self.esp.child_sa(Direction::Outbound, self.scenario.outer, child)?;
                ops.push(Op::Remove(Owner::Ike, outbound.key()));
                // With another key it comes again.
                self.visitors.push_back(Child { life: child.life + 1, ..child });
                self.visited += 1;
            }
        }
        Ok(())
    }

    fn remove_inbound(&self, child: Child) -> anyhow::Result<Op> {
        Ok(Op::Remove(Owner::Ike, Key::InboundSa(self.esp.child_spi(Direction::Inbound, child)?)))
    }
}

fn put(object: Object) -> Op {
    Op::Put(owner(&object), object)
}

/// On whose word an object exists in a real node.
pub(crate) fn owner(object: &Object) -> Owner {
    match object {
        Object::InboundSa(_) | Object::OutboundSa(_) => Owner::Ike,
        Object::Binding(_) | Object::Route(_) => Owner::Nhrp,
        _ => Owner::Config,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} s of full load, {} spokes{}",
            self.seconds,
            self.spokes,
            if self.huge_pages { "" } else { "; no huge pages for the data plane's packets" }
        )?;
        writeln!(f, "{}", self.packets)?;
        writeln!(
            f,
            "{:7} SAs renewed, {} routes gone and back, {} spokes come and gone; a batch was acknowledged after at most {:.1} ms",
            self.renewed, self.churned, self.visited, self.ack_max_ms
        )?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        writeln!(f, "{:7.1} MB in the data plane, {:.1} MB at the end", mb(self.rss_warm), mb(self.rss))?;
        for (reason, count) in &self.drops {
            writeln!(f, "{count:7} dropped: {reason}")?;
        }
        match self.verified {
            true => write!(f, "verified: every packet came back, opened and right; none dropped; no growth"),
            false => write!(f, "WRONG: packets were lost, or memory grew"),
        }
    }
}
