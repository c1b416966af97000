//! The shell: the tokio tasks around the conductor. It owns sockets, clocks and files; it decides nothing.
//!
//! | task | does | talks to the conductor's task by |
//! | --- | --- | --- |
//! | conductor | the only one that touches the conductor; carries out its outputs | |
//! | programmer | connection to the data plane | inputs (bounded), packets (drop-oldest), steps (bounded: full = resync) |
//! | kernel | netlink | orders and notices (bounded) |
//! | management | one task for each gRPC connection | requests (bounded) with an answer each; events (broadcast, who lags misses some) |
//! | sockets | one task for each UDP socket of IKE | datagrams (drop-oldest), inputs |
//! | look-ups | a thread for each DNS name | inputs |
//! | save | writes the state file, one at a time | its end |
//! | record | writes the file of leases, one at a time | inputs |
//!
//! Nothing waits for a client, and the conductor waits for nobody but the kernel's task to take an order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use model::Epoch;
use model::config::Config;
use model::config::check::Fault;
use model::config::diff::Change;
use model::state::Event;
use model::state::event::Happening;
use model::time::Instant;
use nhrp::journal::Line;
use proto::Applied;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::Level;
use zeroize::{Zeroize, Zeroizing};

use crate::checked_file::Found;
use crate::conductor::{AllCredentials, Conductor, Fingerprint, Input, Kept, Output, Recorded, Steps};
use crate::credentials;
use crate::journal_file::JournalFile;
use crate::kernel::{self, Notice, Order};
use crate::lease_file::{self, LeaseFile};
use crate::lookup::LookUps;
use crate::management::{BEHIND, Management, REQUESTS, Request};
use crate::programmer::Programmer;
use crate::sockets::Sockets;
use crate::state_file::{State, StateFile, next_epoch};

/// Inputs that may wait for the conductor.
const INPUTS: usize = 1024;
/// Changes that come within this time are saved together.
const SAVE_AFTER: Duration = Duration::from_millis(100);
/// At most one part in this many of the time is spent on saving.
const SAVE_SHARE: u32 = 5;
/// A state file that could not be written is tried again after this.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// How long a clean stop waits for each of its steps.
const STOP_STEP: Duration = Duration::from_secs(1);
/// How often it is said that certificates end soon.
const DAY: Duration = Duration::from_secs(86_400);
/// How often the calendar is looked at.
const MINUTE: Duration = Duration::from_secs(60);
/// Certificates are judged by a calendar that may be so many seconds off.
const DRIFT: u64 = 60;
/// Failures of IKE that are written down by default, in a second: anybody can cause any number.
const FAILURES: u32 = 5;

/// Reads and checks a configuration file, and the files of certificates and keys that it names.
///
/// # Errors
/// One cannot be read; or what is wrong with it, with its path.
pub fn read_config(path: &Path) -> Result<(Config, AllCredentials)> {
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(|| path.display().to_string())?);
    let config = Config::parse(&text).with_context(|| path.display().to_string())?;
    let credentials = credentials::load(&config).with_context(|| path.display().to_string())?;
    Ok((config, credentials))
}

/// The world around the shell, as far as it is not made by it.
pub struct World<Stop> {
    /// The configuration file.
    pub config_file: PathBuf,
    /// Where to keep a journal of the NHRP engine.
    pub journal: Option<PathBuf>,
    /// To the kernel's task.
    pub orders: mpsc::Sender<Order>,
    /// From it.
    pub notices: mpsc::Receiver<Notice>,
    /// Read the configuration file again.
    pub reload: mpsc::Receiver<()>,
    /// Stop cleanly.
    pub stop: Stop,
}

/// What ends a control plane besides SIGTERM and SIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Nothing.
    Signal,
    /// The end of standard input: whoever started it is gone.
    StdinEnds,
}

/// Runs the control plane with the kernel and the signals of this process, until it is told to stop.
///
/// # Errors
/// What keeps it from starting or going on, in one sentence.
pub async fn run(config_file: PathBuf, journal: Option<PathBuf>, until: Until) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    // A configuration that is wrong leaves the kernel alone.
    read_config(&config_file)?;
    let (orders, notices) = kernel::spawn();
    let (reload_up, reload) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // One that waits reads what is there then.
            let _ = reload_up.try_send(());
        }
    });
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = proto::server::stdin_ended(), if until == Until::StdinEnds => {}
        }
    };
    run_in(World { config_file, journal, orders, notices, reload, stop }).await
}

/// Runs the control plane in a given world.
///
/// # Errors
/// As [`run`].
pub async fn run_in(world: World<impl Future<Output = ()>>) -> Result<()> {
    let World { config_file, journal, orders, mut notices, mut reload, stop } = world;
    let (config, credentials) = read_config(&config_file)?;
    let clock = Clock::new();
    let file = StateFile::new(&config.node.state_file);
    let _lock = file.lock()?;
    let began = clock.now();
    let leases = LeaseFile::new(&config.node.state_file);
    let (epoch, kept, recorded) = begin(&file, &leases, &config, began.0)?;
    let seed = seed(epoch, clock);
    let journal = journal.map(|path| begin_journal(&path, began, seed, &kept)).transpose()?;
    tracing::info!(node = %config.node.name, epoch = epoch.0, "starting");

    let (inputs_up, mut inputs) = mpsc::channel(INPUTS);
    let (requests_up, mut requests) = mpsc::channel(REQUESTS);
    let (events, _) = broadcast::channel(BEHIND);
    let hello = proto::Hello { epoch, name: config.node.name.clone() };
    let look_ups = LookUps::new(inputs_up.clone());
    let recorder = Recorder { file: leases, inputs: inputs_up.clone() };
    let sockets = Sockets::new(inputs_up.clone());
    let programmer = Programmer::spawn(config.dataplane.socket.clone(), hello, inputs_up);
    let (stop_serving, mut served) = serve(&config, requests_up, events.clone());

    let mut saver = Saver::new(file, epoch, clock);
    let mut conductor = Conductor::new(began, config, seed, kept);
    conductor.resume_leases(recorded);
    warn_of(&credentials);
    conductor.hold_credentials(credentials);
    if journal.is_some() {
        conductor.keep_journal();
    }
    let mut work = Work {
        clock,
        conductor,
        programmer,
        look_ups,
        recorder,
        sockets,
        orders,
        events,
        journal,
        failures: Failures::default(),
        outputs: Vec::new(),
        applied: Vec::new(),
    };
    work.handle(Input::Tick, &mut saver).await;

    let mut stop = std::pin::pin!(stop);
    let (mut drift, mut minute) = (Drift::default(), tokio::time::interval(MINUTE));
    let mut daily = tokio::time::interval_at(tokio::time::Instant::now() + DAY, DAY);
    loop {
        let deadline = work.conductor.next_deadline().map(|due| clock.tokio(due));
        tokio::select! {
            () = &mut stop => break,
            Some(()) = reload.recv() => work.reload(&config_file, &mut saver).await,
            Some(request) = requests.recv() => work.answer(request, &mut saver).await,
            Some(input) = inputs.recv() => work.handle(input, &mut saver).await,
            notice = notices.recv() => match notice {
                Some(notice) => work.handle(Input::Kernel(notice), &mut saver).await,
                None => bail!("the kernel's task ended"),
            },
            packet = work.programmer.packets_in.pop() => work.handle(Input::Packet(packet), &mut saver).await,
            datagram = work.sockets.datagrams.pop() => work.handle(Input::Datagram(datagram), &mut saver).await,
            _ = daily.tick() => warn_of(work.conductor.credentials()),
            _ = minute.tick() => drift.look(clock),
            () = until(deadline) => work.handle(Input::Tick, &mut saver).await,
            () = saver.due() => saver.save(&work.conductor),
            done = &mut served => return ended(done),
        }
    }
    work.stop(&mut inputs, &mut notices, &mut saver).await;
    drop(stop_serving);
    let _ = timeout(STOP_STEP, served).await;
    tracing::info!("stopped");
    Ok(())
}

/// What management ended with, though nobody had told it to stop.
fn ended(done: Result<Result<(), proto::server::Error>, tokio::task::JoinError>) -> Result<()> {
    match done {
        Ok(Err(error)) => Err(error).context("management"),
        Ok(Ok(())) => bail!("management ended"),
        Err(error) => Err(error).context("management"),
    }
}

/// Takes over from the last life. The new epoch, and which keys are lost, are on the disk before anybody hears of it.
fn begin(file: &StateFile, leases: &LeaseFile, config: &Config, now: u64) -> Result<(Epoch, Kept, Recorded)> {
    let (last, kept, named) = match file.load(now)? {
        Found::State(state) => {
            let named = Found::State(state.kept.sealed.clone());
            (Some(state.epoch), state.kept, named)
        }
        Found::Nothing => (None, Kept::default(), Found::Nothing),
        Found::Damaged(damage, aside) => {
            tracing::error!(
                "the state file is damaged, {damage}; it was moved to {}, and the node starts without it",
                aside.display()
            );
            (None, Kept::default(), Found::Damaged(damage, aside))
        }
    };
    let found = leases.load()?;
    if let Found::Damaged(damage, aside) = &found {
        tracing::error!(
            "the file of leases is damaged, {damage}; it was moved to {}, and no key that may have been in use is used again",
            aside.display()
        );
    }
    let peers = config.profiles.iter().flat_map(|profile| &profile.statics);
    let configured = peers.map(|peer| Fingerprint::of(&peer.outbound.key.0)).collect();
    let recorded = lease_file::resume(&found, &named, &configured);
    if !matches!(&found, Found::State(found) if *found == recorded) && recorded != Recorded::default() {
        leases.save(&recorded)?;
    }
    let kept = Kept { sealed: recorded.keys(), ..kept };
    let state = State { epoch: next_epoch(last, now), saved_at: now, kept };
    file.save(&state)?;
    Ok((state.epoch, state.kept, recorded))
}

/// Opens the journal with how this life began.
fn begin_journal(path: &Path, began: Instant, seed: u64, kept: &Kept) -> Result<JournalFile> {
    let mut journal = JournalFile::open(path).with_context(|| format!("journal {}", path.display()))?;
    journal.write(&Line::opened(began, seed, kept.nhrp.clone()));
    tracing::warn!("keeping a journal in {}; it can hold the authentication text", path.display());
    Ok(journal)
}

/// Serves management. Dropping the sender ends it.
fn serve(
    config: &Config,
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Event>,
) -> (oneshot::Sender<()>, JoinHandle<Result<(), proto::server::Error>>) {
    let (stop, stopped) = oneshot::channel();
    let socket = config.management.socket.clone();
    let dataplane = config.dataplane.socket.clone();
    let management = Arc::new(Management::new(config.node.name.clone(), requests, events, dataplane));
    let served = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        proto::server::serve_management(&socket, proto::Access::default(), management, stopped).await
    });
    (stop, served)
}

/// The conductor, and where its outputs go.
struct Work {
    clock: Clock,
    conductor: Conductor,
    programmer: Programmer,
    look_ups: LookUps,
    recorder: Recorder,
    sockets: Sockets,
    orders: mpsc::Sender<Order>,
    events: broadcast::Sender<Event>,
    journal: Option<JournalFile>,
    failures: Failures,
    outputs: Vec<Output>,
    applied: Vec<InForce>,
}

/// A configuration that runs, and who is told so when the data plane goes by it: what is protected from then on leaves by no way in the clear.
struct InForce {
    changes: Applied,
    /// By the steps of this number, when they are known.
    by: Option<u64>,
    reply: oneshot::Sender<Applied>,
}

impl Work {
    async fn handle(&mut self, input: Input, saver: &mut Saver) {
        self.conductor.handle(self.clock.now(), input, &mut self.outputs);
        self.carry_out(saver).await;
        self.say_what_is_in_force();
    }

    fn say_what_is_in_force(&mut self) {
        let conductor = &self.conductor;
        for applied in &mut self.applied {
            applied.by = applied.by.or_else(|| conductor.in_force_by());
        }
        for InForce { changes, reply, .. } in
            self.applied.extract_if(.., |applied| applied.by.is_some_and(|by| conductor.is_taken(by)))
        {
            // Who asked may be gone.
            let _ = reply.send(changes);
        }
    }

    async fn answer(&mut self, request: Request, saver: &mut Saver) {
        let now = self.clock.now();
        // Who asked may be gone; what was asked is done all the same.
        match request {
            Request::Show(what, reply) => {
                let _ = reply.send(self.conductor.show(now, what));
            }
            Request::Explain(table, address, reply) => {
                let tables = self.conductor.config().table_ids();
                let explained = match tables.contains(&table) {
                    true => Ok(self.conductor.explain(now, table, address)),
                    false => Err(tables),
                };
                let _ = reply.send(explained);
            }
            Request::Clear(proto::Clear::Nhrp { tunnel, address }, reply) => {
                let cleared = self.conductor.clear(now, nhrp::Clear { tunnel, address }, &mut self.outputs);
                self.carry_out(saver).await;
                let _ = reply.send(cleared);
            }
            Request::Clear(proto::Clear::Ike { peer }, reply) => {
                let cleared = self.conductor.clear_ike(now, &peer, &mut self.outputs);
                self.carry_out(saver).await;
                let _ = reply.send(cleared);
            }
            Request::Apply(mut apply, reply) => {
                let planned = self.plan(&apply.text);
                // Keys may stand in it.
                apply.text.zeroize();
                match planned {
                    Ok((config, credentials, changes)) if !apply.dry_run => {
                        self.apply(config, credentials);
                        self.carry_out(saver).await;
                        self.applied.push(InForce { changes: Ok(changes), by: None, reply });
                        self.say_what_is_in_force();
                    }
                    planned => {
                        let _ = reply.send(planned.map(|(_, _, changes)| changes));
                    }
                }
            }
        }
    }

    /// Everything up to the commit: the text, and the files that it names.
    fn plan(&self, text: &str) -> Result<(Config, AllCredentials, Vec<Change>), Fault> {
        let (config, changes) = self.conductor.plan(text)?;
        let credentials = credentials::load(&config)?;
        Ok((config, credentials, changes))
    }

    fn apply(&mut self, config: Config, credentials: AllCredentials) {
        warn_of(&credentials);
        self.conductor.hold_credentials(credentials);
        self.conductor.apply(self.clock.now(), config, &mut self.outputs);
    }

    /// SIGHUP: the file as a transaction.
    async fn reload(&mut self, file: &Path, saver: &mut Saver) {
        // Keys may stand in it.
        let text = match std::fs::read_to_string(file) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => {
                return tracing::error!("{}: {error}; nothing changed", file.display());
            }
        };
        match self.plan(&text) {
            Ok((config, credentials, changes)) => {
                for change in changes {
                    tracing::info!("{change}");
                }
                self.apply(config, credentials);
                self.carry_out(saver).await;
            }
            Err(fault) => tracing::error!("{}: {fault}; nothing changed", file.display()),
        }
    }

    async fn carry_out(&mut self, saver: &mut Saver) {
        for output in std::mem::take(&mut self.outputs) {
            match output {
                Output::Program(steps) => {
                    // If it cannot take them, it gives up the connection and says so: `Input::Away`.
                    let _ = self.programmer.program(steps);
                }
                Output::Send(packet) => self.programmer.packets_out.push(packet),
                Output::Datagram(datagram) => self.sockets.send(&datagram),
                Output::Listen(endpoints) => self.sockets.listen(endpoints),
                Output::Kernel(Order::Resolve(hop)) => {
                    // One that finds no room is asked for again with the next packet.
                    let _ = self.orders.try_send(Order::Resolve(hop));
                }
                Output::Kernel(order) => {
                    // If its task ended, its channel of notices says so.
                    let _ = self.orders.send(order).await;
                }
                Output::Record { number, recorded } => self.recorder.record(number, recorded),
                Output::Save => saver.want(),
                Output::Journal(line) => {
                    if let Some(journal) = &mut self.journal {
                        journal.write(&line);
                    }
                }
                Output::LookUp(what) => self.look_ups.start(what),
                Output::Event(what) => {
                    let node = self.conductor.config().node.name.clone();
                    log(&what, self.failures.level(&what, self.clock.now()));
                    // Nobody may be watching.
                    let _ = self.events.send(Event { time_us: self.clock.now().0, node, what });
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.flush();
        }
    }

    /// A clean stop: packets first, they need the program and its SAs; then peers are told that these go, and the program goes; then the kernel's
    /// side; the state at last.
    async fn stop(
        &mut self,
        inputs: &mut mpsc::Receiver<Input>,
        notices: &mut mpsc::Receiver<Notice>,
        saver: &mut Saver,
    ) {
        tracing::info!("stopping");
        let programmed = async {
            while self.conductor.is_waiting() {
                let Some(input) = inputs.recv().await else { return };
                self.handle(input, saver).await;
            }
        };
        let _ = timeout(STOP_STEP, programmed).await;
        let kept = self.conductor.stop(self.clock.now(), &mut self.outputs);
        let (last, first): (Vec<_>, Vec<_>) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition(|o| matches!(o, Output::Program(_) | Output::Kernel(_) | Output::Datagram(_)));
        self.outputs = first;
        self.carry_out(saver).await;
        let sent = async {
            while !self.programmer.packets_out.is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
            // From our socket to the data plane's port.
            sleep(Duration::from_millis(50)).await;
        };
        let _ = timeout(STOP_STEP, sent).await;

        let number = last.iter().find_map(|o| match o {
            Output::Program(Steps { number, .. }) => Some(*number),
            _ => None,
        });
        let (program, kernel): (Vec<_>, Vec<_>) =
            last.into_iter().partition(|o| matches!(o, Output::Program(_) | Output::Datagram(_)));
        self.outputs = program;
        self.carry_out(saver).await;
        if let Some(number) = number {
            let _ = timeout(STOP_STEP, taken(inputs, number)).await;
        }
        self.outputs = kernel;
        self.carry_out(saver).await;
        let _ = timeout(STOP_STEP, async { while notices.recv().await.is_some() {} }).await;
        saver.save_last(kept).await;
    }
}

/// An event as a line of the log.
fn log(what: &Happening, level: Level) {
    match level {
        Level::DEBUG => tracing::debug!("{what}"),
        Level::WARN => tracing::warn!("{what}"),
        _ => tracing::info!("{what}"),
    }
}

/// Failures of IKE that were written down within the second.
#[derive(Debug, Default)]
struct Failures {
    second: u64,
    written: u32,
}

impl Failures {
    /// Of an event. Of many failures a few are written down: why a peer is refused is what operators look for.
    fn level(&mut self, what: &Happening, now: Instant) -> Level {
        if !matches!(what, Happening::IkeFailed { .. }) {
            return level(what);
        }
        let second = now.0 / 1_000_000;
        if second != self.second {
            *self = Self { second, written: 0 };
        }
        self.written = self.written.saturating_add(1);
        if self.written <= FAILURES { Level::WARN } else { Level::DEBUG }
    }
}

/// What an operator has to know of certificates: that they end soon, or have.
fn warn_of(all: &AllCredentials) {
    for (profile, credentials) in all {
        for warning in credentials.warnings(calendar() / 1_000_000) {
            tracing::warn!(%profile, "{warning}");
        }
    }
}

/// What a host behind any node can cause by sending packets, thousands of times a second, is for who looks closer: a line is
/// written while the conductor waits. Peers and servers that come and go are few.
fn level(what: &Happening) -> Level {
    match what {
        Happening::Rejected { .. }
        | Happening::RedirectSent { .. }
        | Happening::RedirectReceived { .. }
        | Happening::ResolutionSent { .. }
        | Happening::ResolutionAnswered { .. }
        | Happening::Unresolved { .. }
        | Happening::ShortcutUp { .. }
        | Happening::ShortcutDown { .. }
        | Happening::PathMtu { .. }
        | Happening::ChildUp { rekey: true, .. }
        | Happening::ChildDown { .. }
        | Happening::IkeUp { rekey: true, .. }
        | Happening::IkeFailed { .. }
        | Happening::Registered { refresh: true, .. }
        | Happening::ServerUp { refresh: true, .. } => Level::DEBUG,
        Happening::KernelRefused { .. }
        | Happening::ProgramRefused { .. }
        | Happening::SaRefused { .. }
        | Happening::LeasesUnrecorded { .. }
        | Happening::SaLifetime { .. } => Level::WARN,
        Happening::Registered { .. }
        | Happening::ServerUp { .. }
        | Happening::ServerDown { .. }
        | Happening::Resolved { .. }
        | Happening::Gone { .. }
        | Happening::DataplaneUp { .. }
        | Happening::DataplaneDown { .. }
        | Happening::Port { .. }
        | Happening::SourceChanged { .. }
        | Happening::ConfigApplied { .. }
        | Happening::SaMoved { .. }
        | Happening::IkeUp { .. }
        | Happening::IkeDown { .. }
        | Happening::ChildUp { .. }
        | Happening::PeerMoved { .. }
        | Happening::Missed { .. } => Level::INFO,
    }
}

/// Waits until the data plane took these steps, or is gone.
async fn taken(inputs: &mut mpsc::Receiver<Input>, number: u64) {
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Taken(taken) if taken >= number => return,
            Input::Away { .. } => return,
            _ => {}
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Microseconds since 1970-01-01 UTC.
fn calendar() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

/// The time of this process: where the calendar stood at its start, and from there on steadily.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began_at: u64,
    began: tokio::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Self { began_at: calendar(), began: tokio::time::Instant::now() }
    }

    fn now(&self) -> Instant {
        Instant(self.began_at) + self.began.elapsed()
    }

    /// The runtime's timers count in milliseconds and never fire early.
    fn tokio(&self, at: Instant) -> tokio::time::Instant {
        self.began + at.since(Instant(self.began_at))
    }
}

/// Whether the calendar was set since this process began, whose time goes on steadily: an operator who set it ought to know.
#[derive(Debug, Default)]
struct Drift {
    is_told: bool,
}

impl Drift {
    fn look(&mut self, clock: Clock) {
        let by = calendar().abs_diff(clock.now().0) / 1_000_000;
        if by > DRIFT && !self.is_told {
            tracing::warn!(
                "the calendar was set by {by} s since this process began; certificates are judged by the old one until it starts again"
            );
        }
        self.is_told = by > DRIFT;
    }
}

/// What jitter starts from: different in each life and on each node.
fn seed(epoch: Epoch, clock: Clock) -> u64 {
    clock.began_at ^ epoch.0.rotate_left(32) ^ u64::from(std::process::id()).rotate_left(16)
}

/// Writes the file of leases, each time at once: keys wait for it. The conductor wants one at a time.
struct Recorder {
    file: LeaseFile,
    inputs: mpsc::Sender<Input>,
}

impl Recorder {
    fn record(&self, number: u64, recorded: Recorded) {
        let (file, inputs) = (self.file.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let written = tokio::task::spawn_blocking(move || file.save(&recorded)).await;
            let input = match written {
                Ok(Ok(())) => Input::Recorded(number),
                Ok(Err(error)) => Input::Unrecorded { number, reason: error.to_string() },
                Err(error) => Input::Unrecorded { number, reason: error.to_string() },
            };
            // Who asked may be gone.
            let _ = inputs.send(input).await;
        });
    }
}

/// Saves the state, not too often and one at a time.
struct Saver {
    file: StateFile,
    epoch: Epoch,
    clock: Clock,
    due_at: Option<tokio::time::Instant>,
    not_before: tokio::time::Instant,
    writing: Option<JoinHandle<bool>>,
    began: tokio::time::Instant,
}

impl Saver {
    fn new(file: StateFile, epoch: Epoch, clock: Clock) -> Self {
        let now = tokio::time::Instant::now();
        Self { file, epoch, clock, due_at: None, not_before: now, writing: None, began: now }
    }

    /// Something is worth saving.
    fn want(&mut self) {
        self.due_at.get_or_insert_with(|| tokio::time::Instant::now() + SAVE_AFTER);
    }

    /// Ready when something is to be written and nothing is being written.
    async fn due(&mut self) {
        if let Some(writing) = &mut self.writing {
            let is_written = writing.await.unwrap_or(false);
            self.writing = None;
            self.not_before = tokio::time::Instant::now() + self.began.elapsed() * (SAVE_SHARE - 1);
            if !is_written {
                self.due_at = Some(tokio::time::Instant::now() + SAVE_AGAIN);
            }
        }
        until(self.due_at.map(|due| due.max(self.not_before))).await;
    }

    fn save(&mut self, conductor: &Conductor) {
        self.due_at = None;
        self.began = tokio::time::Instant::now();
        let state = self.state(conductor.kept(self.clock.now()));
        let file = self.file.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || match file.save(&state) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!("{error}");
                false
            }
        }));
    }

    /// The last one of this life.
    async fn save_last(&mut self, kept: Kept) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
        if let Err(error) = self.file.save(&self.state(kept)) {
            tracing::error!("{error}");
        }
    }

    fn state(&self, kept: Kept) -> State {
        // The calendar may have been set since this process began, and the next life compares with the calendar.
        State { epoch: self.epoch, saved_at: calendar(), kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_packets_cause_is_not_written_down_by_default() {
        let tunnel = "tunnel0".parse().unwrap();
        let destination = "192.0.2.1".parse().unwrap();
        let to = "192.0.2.2".parse().unwrap();
        for caused in [
            Happening::RedirectSent { tunnel, to, destination },
            Happening::ResolutionSent { tunnel, destination },
            Happening::Unresolved { tunnel, destination },
        ] {
            assert_eq!(level(&caused), Level::DEBUG, "{caused}");
        }
        assert_eq!(level(&Happening::ServerDown { tunnel, nhs: destination }), Level::INFO);
    }

    #[tokio::test]
    async fn a_state_is_dated_by_the_calendar_of_its_save() {
        // The calendar stood in 1970 when this process began, and was set since.
        let clock = Clock { began_at: 0, began: tokio::time::Instant::now() };
        let saver = Saver::new(StateFile::new(Path::new("unused")), Epoch(1), clock);
        let before = calendar();
        let saved_at = saver.state(Kept::default()).saved_at;
        assert!(before > 1_700_000_000_000_000 && (before..=calendar()).contains(&saved_at), "{saved_at}");
    }
}
