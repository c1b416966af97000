//! The Dataplane service: batches become tables here, and what the workers saw becomes reports. Nothing here runs on a
//! worker's thread, and no stream waits for another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forwarding::{Injected, Origin, Program};
use futures::StreamExt;
use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::program::{Ack, Batch};
use model::report::{PacketIn, PacketOut, Report};
use model::sa::Spi;
use model::state::{Show, State};
use model::{InterfaceName, NbmaAddr, time};
use proto::server::Turn;
use proto::{Code, Greeting, Hello, Open, Status, Stream};
use tokio::sync::{broadcast, mpsc};
use twin::Kind;

use crate::host::{Order, Orders, Punted, TwinSpec};
use crate::observe::Observers;
use crate::process::Process;

/// Acks, reports and packets that may wait for a slow control plane. Beyond: batches wait, reports are told again, packets
/// are dropped and counted.
const ACKS: usize = 64;
const REPORTS: usize = 4096;
const PACKETS: usize = 512;
/// Batches that are read ahead of the one that is carried out.
const AHEAD: usize = 4;

/// Time between looks at what the workers saw.
const LOOK: Duration = Duration::from_millis(5);
/// Looks between reports of what was used, how the ports are, and what SAs have reached.
const SURVEY: u32 = 200;
/// How long an ack waits for workers that have not taken what it is about; they breathe some thousand times a second at least.
const HEAR: Duration = Duration::from_secs(1);
/// Time between looks whether they have: as many orders as fit into a worker's queue are taken in less.
const HEARD: Duration = Duration::from_millis(1);

/// The service, and what it tells.
pub(crate) struct Service {
    pub(crate) process: Arc<Process>,
    pub(crate) observers: Observers,
    program: Mutex<Program>,
    host: Orders,
    epoch: Instant,
    reports: broadcast::Sender<Report>,
    /// The control plane's end of the current punt stream.
    punts: Mutex<Option<mpsc::Sender<PacketIn>>>,
}

/// A lock is never poisoned for long: the process aborts on a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    pub(crate) fn new(process: Arc<Process>, program: Program, host: Orders, epoch: Instant) -> Self {
        let (reports, _) = broadcast::channel(REPORTS);
        Self {
            process,
            observers: Observers::new(),
            program: Mutex::new(program),
            host,
            epoch,
            reports,
            punts: Mutex::new(None),
        }
    }

    /// Looks at what is programmed, while nothing changes it.
    pub(crate) fn with_program<T>(&self, look: impl FnOnce(&Program) -> T) -> T {
        look(&lock(&self.program))
    }

    fn now(&self) -> time::Instant {
        time::Instant::default() + self.epoch.elapsed()
    }

    /// `None`: a newer stream has taken over, and what it said of the program stands.
    fn apply(&self, turn: &Turn, batch: &Batch) -> Option<Ack> {
        let mut program = lock(&self.program);
        // While the program is held: what the newer stream says comes after this.
        if !turn.is_current() {
            return None;
        }
        let result = program.apply(self.now(), batch);
        // While the program is held, so that the last order is about the newest program.
        if result.is_ok() {
            let spec = |interface, name: InterfaceName, kind, netns: &Option<String>| TwinSpec {
                interface,
                name: name.to_string(),
                kind,
                netns: netns.clone(),
            };
            let taps = program
                .interfaces()
                .map(|shown| spec(shown.id, shown.interface.name, Kind::Tap, &shown.interface.netns));
            let tuns = program
                .tunnel_shows()
                .map(|shown| spec(shown.id, shown.tunnel.name, Kind::Tun, &shown.tunnel.netns));
            self.host.give(Order::Twins(taps.chain(tuns).collect()));
        }
        Some(Ack { number: batch.number, result })
    }

    /// Waits until all workers have carried out what there is to tell them of SAs, so that who reads an ack may count on it: what was put
    /// opens and seals, and what was removed does not any more. Whether they have.
    async fn settle(&self) -> bool {
        let deadline = Instant::now() + HEAR;
        loop {
            {
                let mut program = lock(&self.program);
                if program.are_orders_taken() {
                    return true;
                }
                program.pump();
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(HEARD).await;
        }
    }

    /// Turns what the workers saw and what time did into reports, for as long as the process runs.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        for turn in 0_u32.. {
            look.tick().await;
            for report in self.look(turn % SURVEY == 0) {
                // Without a listener nobody wants to know.
                let _ = self.reports.send(report);
            }
        }
    }

    fn look(&self, survey: bool) -> Vec<Report> {
        let mut program = lock(&self.program);
        let mut reports = program.expire(self.now());
        // What an ack did not wait for, what expired, and keys that came back.
        program.pump();
        for rings in self.process.rings() {
            while let Some(notice) = rings.notices.pop() {
                reports.extend(program.report(notice));
            }
        }
        if survey {
            reports.extend(program.used());
            reports.extend(program.sa_reports());
            reports.extend(program.sas_used());
            drop(program);
            reports.extend(self.process.port_reports());
        }
        reports
    }

    /// Hands punted packets to the control plane, for as long as the host thread runs. What it does not take is dropped, and
    /// the next packet of that reason says how many.
    pub(crate) async fn hand_up(self: Arc<Self>, mut punted: mpsc::Receiver<Punted>) {
        let mut lost = [0_u64; model::report::PuntReason::ALL.len()];
        while let Some(packet) = punted.recv().await {
            let lost = &mut lost[packet.reason as usize];
            *lost += packet.dropped_before;
            let Some(tunnel) = lock(&self.program).interface_name(packet.tunnel) else {
                *lost += 1;
                continue;
            };
            let up = PacketIn {
                reason: packet.reason,
                tunnel,
                source: NbmaAddr(packet.source),
                destination: NbmaAddr(packet.destination),
                udp_port: packet.port,
                bytes: packet.bytes,
                dropped_before: *lost,
                spi: Spi::new(packet.spi),
            };
            let sent = lock(&self.punts).as_ref().is_some_and(|stream| stream.try_send(up).is_ok());
            *lost = if sent { 0 } else { *lost + 1 };
        }
    }

    /// Gives a packet of the control plane to the first worker.
    fn hand_down(&self, packet: &PacketOut) -> Result<(), &'static str> {
        let tunnel = lock(&self.program).interface_id(packet.tunnel).ok_or("there is no such tunnel")?;
        let NbmaAddr(destination) = packet.destination;
        let (port, protocol_type) = (packet.port, packet.protocol_type);
        let origin = Origin::Control { tunnel, destination, port, protocol_type };
        self.process.inject(|pool| {
            let buf = pool.alloc_copy(&packet.bytes).ok_or("no packet buffer is free")?;
            Ok(Injected { origin, buf })
        })
    }
}

/// Whether a stream broke off because the other end or what is between went away, which nobody said: what we refuse ourselves has other codes.
fn has_gone(code: Code) -> bool {
    matches!(code, Code::Cancelled | Code::Unknown | Code::Unavailable)
}

#[proto::async_trait]
impl proto::server::Dataplane for Service {
    fn instance(&self) -> model::Instance {
        self.process.instance
    }

    async fn hello(&self, hello: Hello) -> Result<Greeting, Status> {
        tracing::info!(node = hello.name, epoch = hello.epoch.0, "control plane");
        let program = lock(&self.program);
        Ok(Greeting {
            instance: self.process.instance,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workers: self.process.workers(&program),
            ports: self.process.ports(&program),
            sa_slots: u32::try_from(Spi::SLOTS).unwrap_or(u32::MAX),
        })
    }

    async fn program(&self, turn: Turn, mut batches: Stream<Batch>) -> Result<Stream<Ack>, Status> {
        let (acks, stream) = mpsc::channel(ACKS);
        let service = self.process.service();
        // While one batch is carried out, the next ones are read and made out.
        let (ahead, mut batches_read) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            while let Some(batch) = batches.next().await {
                if ahead.send(batch).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(batch) = batches_read.recv().await {
                let batch = match batch {
                    Ok(batch) => batch,
                    Err(status) => {
                        let (code, reason) = (status.code(), status.message());
                        if has_gone(code) {
                            tracing::info!(?code, reason, "the control plane is gone");
                        } else {
                            tracing::warn!(?code, reason, "no more batches");
                        }
                        // The client hears it too, if it is still there.
                        let _ = acks.send(Err(status)).await;
                        return;
                    }
                };
                let Some(service) = service.upgrade() else { return };
                // A large one takes its time; other tasks go on elsewhere meanwhile.
                let applied = tokio::task::block_in_place(|| service.apply(&turn, &batch));
                let Some(ack) = applied else { return };
                if let Err(refused) = &ack.result {
                    tracing::warn!(batch = batch.number, %refused, "refused");
                }
                if !service.settle().await {
                    tracing::warn!(batch = ack.number, "a worker has not taken its SAs after {HEAR:?}");
                }
                if acks.send(Ok(ack)).await.is_err() {
                    return;
                }
            }
        });
        Ok(proto::server::from_results(stream))
    }

    async fn reports(&self, _: Open) -> Result<Stream<Report>, Status> {
        let (sender, stream) = mpsc::channel(ACKS);
        let mut reports = self.reports.subscribe();
        let process = Arc::clone(&self.process);
        tokio::spawn(async move {
            loop {
                // At the start, and after a control plane was too slow: ports are told again now; gleans and used next hops tell
                // themselves again while they last.
                for report in process.port_reports() {
                    if sender.send(report).await.is_err() {
                        return;
                    }
                }
                loop {
                    match reports.recv().await {
                        Ok(report) => {
                            if sender.send(report).await.is_err() {
                                return;
                            }
                        }
                        Err(broadcast::error::RecvError::Lagged(_)) => break,
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                }
            }
        });
        Ok(proto::server::from_channel(stream))
    }

    async fn punt(&self, _: Open, mut packets: Stream<PacketOut>) -> Result<Stream<PacketIn>, Status> {
        let (sender, stream) = mpsc::channel(PACKETS);
        *lock(&self.punts) = Some(sender);
        let service = self.process.service();
        tokio::spawn(async move {
            while let Some(Ok(packet)) = packets.next().await {
                let Some(service) = service.upgrade() else { return };
                if let Err(reason) = service.hand_down(&packet) {
                    tracing::warn!(tunnel = %packet.tunnel, destination = %packet.destination, reason, "packet not sent");
                }
            }
        });
        Ok(proto::server::from_channel(stream))
    }

    async fn show(&self, show: Show) -> Result<State, Status> {
        let program = lock(&self.program);
        self.process.show(&program, self.now(), show).ok_or_else(|| {
            Status::invalid_argument(format!("what: {:?} is known to the control plane", show.what))
        })
    }

    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        self.begin_trace(request).await
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        self.begin_capture(request).await
    }
}
