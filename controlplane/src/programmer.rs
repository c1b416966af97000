//! The programmer: the connection to the data plane. It carries the conductor's steps down as batches, packets both ways, and
//! reports up; when the connection is lost it makes a new one, and says so.
//!
//! ```text
//!   conductor ── steps ──▶ ┌────────────┐ ── Program: batch ──▶ ┐
//!             ◀─ taken ─── │            │ ◀─ ack ────────────── │
//!             ◀─ reports ─ │  session   │ ◀─ Reports ────────── │ data plane
//!             ── packets ▶ │            │ ── Punt: out ───────▶ │
//!             ◀─ packets ─ └────────────┘ ◀─ Punt: in ───────── ┘
//! ```
//!
//! One batch is under way at a time. A batch that is refused was not done at all, so it is sent again without the step at
//! fault, before anything that stands behind it: an end of a resync must not overtake puts of that resync. Its begin and end
//! are never left out, or objects that nobody wants would stay for ever: where one of these is refused, the connection is given
//! up, and the next one begins with a resync. Meanwhile steps collect into the next batch, so a slow data plane gets fewer and
//! bigger ones.

use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use model::Epoch;
use model::program::{Ack, Batch, Object, Op, Owner, Refusal};
use model::report::{PacketIn, PacketOut, Report};
use model::state::{Filter, Show, State, What};
use proto::client::{Dataplane, Error};
use proto::{Hello, Open, Stream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::conductor::{Input, Steps};
use crate::queue::Queue;

/// Time between two attempts to connect: a data plane that starts is programmed within this and a few milliseconds.
const RECONNECT: Duration = Duration::from_millis(100);
/// As much later, where the data plane did not take a resync.
const RESYNC_AGAIN: Duration = Duration::from_secs(1);
/// An ack that takes longer than this will not come.
const ACK_DEADLINE: Duration = Duration::from_secs(10);
/// Steps in one batch at most: some 100 kB.
const BATCH: usize = 1024;
/// Messages of steps that may wait. With more, the data plane does not keep up: a resync is cheaper than the backlog.
const BACKLOG: usize = 4096;
/// How often the first session is tried with what the data plane forwards by; then it has to go without.
const LOOKS: u32 = 3;
/// Packets that may wait, each way.
const PACKETS: usize = 4096;

/// The conductor's end.
#[derive(Debug)]
pub struct Programmer {
    steps: mpsc::Sender<Steps>,
    /// Packets to the data plane.
    pub packets_out: Queue<PacketOut>,
    /// Packets from the data plane.
    pub packets_in: Queue<PacketIn>,
    /// The last connection that did not keep up.
    give_up: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Programmer {
    /// Starts the task. What it hears goes to `inputs`.
    #[must_use]
    pub fn spawn(socket: PathBuf, hello: Hello, inputs: mpsc::Sender<Input>) -> Self {
        let (steps, steps_down) = mpsc::channel(BACKLOG);
        let packets_out = Queue::new(PACKETS);
        let packets_in = Queue::new(PACKETS);
        let (give_up, given_up) = watch::channel(0);
        let line = Line {
            dataplane: Dataplane::at(socket),
            hello,
            connection: 0,
            looks: LOOKS,
            inputs,
            steps: steps_down,
            packets_out: packets_out.clone(),
            packets_in: packets_in.clone(),
            given_up,
        };
        let task = tokio::spawn(line.run());
        Self { steps, packets_out, packets_in, give_up, task }
    }

    /// Hands steps on; `false` if the data plane does not keep up. Then the connection is given up and a new one begins with
    /// a resync.
    #[must_use]
    pub fn program(&self, steps: Steps) -> bool {
        let connection = steps.connection;
        let is_sent = self.steps.try_send(steps).is_ok();
        if !is_sent {
            self.give_up.send_replace(connection);
        }
        is_sent
    }
}

impl Drop for Programmer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's end.
struct Line {
    dataplane: Dataplane,
    hello: Hello,
    connection: u64,
    /// How often it may still be asked what it forwards by.
    looks: u32,
    inputs: mpsc::Sender<Input>,
    steps: mpsc::Receiver<Steps>,
    packets_out: Queue<PacketOut>,
    packets_in: Queue<PacketIn>,
    given_up: watch::Receiver<u64>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Call(#[from] Error),
    #[error("a newer control plane programs it (our epoch is {}): {error}", ours.0)]
    Fenced { ours: Epoch, error: Error },
    #[error("{0} stream ended")]
    Stream(&'static str),
    #[error("no ack within {} s", ACK_DEADLINE.as_secs())]
    NoAck,
    #[error("it acknowledged batch {0} and not batch {1}")]
    Ack(u64, u64),
    #[error("it refused {0:?}: {1}")]
    Resync(Op, Refusal),
    #[error("it does not keep up")]
    Behind,
    /// The conductor is gone.
    #[error("stopping")]
    Stopping,
}

impl Line {
    async fn run(mut self) {
        let mut told = String::new();
        loop {
            let Err(ended) = self.session().await;
            if matches!(ended, Ended::Stopping) {
                return;
            }
            let reason = ended.to_string();
            // The same once, not ten times a second.
            if reason != told {
                tracing::debug!(%reason, "no session with the data plane");
                if let Ended::Fenced { .. } = ended {
                    tracing::error!("data plane: {reason}");
                }
                told.clone_from(&reason);
            }
            if self.inputs.send(Input::Away { reason }).await.is_err() {
                return;
            }
            sleep(if matches!(ended, Ended::Resync(..)) { RESYNC_AGAIN } else { RECONNECT }).await;
        }
    }

    /// One connection, from the greeting to its end.
    async fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let greeting = self.dataplane.hello(self.hello.clone()).await;
        let greeting = greeting.map_err(|error| match error {
            error if error.is_fenced() => Ended::Fenced { ours: self.hello.epoch, error },
            error => error.into(),
        })?;
        let open = Open { instance: greeting.instance, epoch: self.hello.epoch };
        let (batches, batches_up) = mpsc::channel(1);
        let (packets, packets_up) = mpsc::channel(64);
        let (reports, punts, acks) = tokio::try_join!(
            self.dataplane.reports(open),
            self.dataplane.punt(open, packets_up),
            self.dataplane.program(open, batches_up),
        )?;
        // What is left of the last connection means nothing here.
        self.connection += 1;
        while self.steps.try_recv().is_ok() {}
        self.packets_out.clear();

        if self.looks > 0 {
            self.looks -= 1;
            let learnt = self.forwarding().await?;
            self.looks = 0;
            tell(&self.inputs, learnt).await?;
        }
        let ike = self.owned(Owner::Ike).await?;
        for port in greeting.ports.0 {
            let report = Report::Port { port: port.name, mac: port.mac, up: port.up, mtu: port.mtu };
            tell(&self.inputs, Input::Report(report)).await?;
        }
        let (instance, version) = (greeting.instance, greeting.version);
        let workers = u16::try_from(greeting.workers.0.len()).unwrap_or(u16::MAX);
        let (connection, slots) = (self.connection, greeting.sa_slots);
        tell(&self.inputs, Input::Greeted { connection, instance, version, workers, slots, ike }).await?;

        tokio::select! {
            ended = carry_reports(reports, &self.inputs) => ended,
            ended = carry_packets_up(punts, &self.packets_in) => ended,
            ended = carry_packets_down(&self.packets_out, packets) => ended,
            ended = carry_steps(self.connection, &mut self.steps, batches, acks, &self.inputs) => ended,
            ended = fall_behind(self.connection, self.given_up.clone()) => ended,
        }
    }

    /// What the last life learnt and may not have saved. The data plane takes nothing from that life any more: it has our epoch.
    async fn forwarding(&self) -> Result<Input, Error> {
        let (mut bindings, mut path_mtus) = (Vec::new(), Vec::new());
        for object in self.owned(Owner::Nhrp).await? {
            match object {
                Object::Binding(binding) => bindings.push(binding),
                Object::PathMtu(path) => path_mtus.push(path),
                _ => {}
            }
        }
        Ok(Input::Forwarding { bindings, path_mtus })
    }

    /// What the data plane has of an owner. Keys are not told.
    async fn owned(&self, owner: Owner) -> Result<Vec<Object>, Error> {
        let filter = Filter { owner: Some(owner), ..Filter::default() };
        let State::Program(program) = self.dataplane.show(Show { what: What::Program, filter }).await? else {
            return Ok(Vec::new());
        };
        let owned = program.0.into_iter().filter(|programmed| programmed.owner == owner);
        Ok(owned.map(|programmed| programmed.object).collect())
    }
}

async fn tell(inputs: &mpsc::Sender<Input>, input: Input) -> Result<(), Ended> {
    inputs.send(input).await.map_err(|_| Ended::Stopping)
}

/// Ends when this connection was given up, whatever is said of earlier ones.
async fn fall_behind<T>(connection: u64, mut given_up: watch::Receiver<u64>) -> Result<T, Ended> {
    match given_up.wait_for(|of| *of == connection).await {
        Ok(_) => Err(Ended::Behind),
        Err(_) => Err(Ended::Stopping),
    }
}

async fn carry_reports<T>(
    mut reports: Stream<Report, Error>,
    inputs: &mpsc::Sender<Input>,
) -> Result<T, Ended> {
    while let Some(report) = reports.next().await {
        tell(inputs, Input::Report(report?)).await?;
    }
    Err(Ended::Stream("Reports"))
}

async fn carry_packets_up<T>(
    mut punts: Stream<PacketIn, Error>,
    packets: &Queue<PacketIn>,
) -> Result<T, Ended> {
    while let Some(packet) = punts.next().await {
        packets.push(packet?);
    }
    Err(Ended::Stream("Punt"))
}

async fn carry_packets_down<T>(
    packets: &Queue<PacketOut>,
    wire: mpsc::Sender<PacketOut>,
) -> Result<T, Ended> {
    loop {
        // First room, then the packet: what waits is dropped by age in the queue.
        let room = wire.reserve().await.map_err(|_| Ended::Stream("Punt"))?;
        room.send(packets.pop().await);
    }
}

/// What a batch under way was made of.
struct Flight {
    batch: Batch,
    /// Number of the last steps that are complete with it.
    completes: u64,
    due: Instant,
}

async fn carry_steps<T>(
    connection: u64,
    steps: &mut mpsc::Receiver<Steps>,
    wire: mpsc::Sender<Batch>,
    mut acks: Stream<Ack, Error>,
    inputs: &mpsc::Sender<Input>,
) -> Result<T, Ended> {
    let mut waiting = Waiting::default();
    let mut flight: Option<Flight> = None;
    let mut number = 0;
    loop {
        if flight.is_none()
            && let Some((ops, completes)) = waiting.next()
        {
            flight = Some(launch(&wire, &mut number, ops, completes).await?);
        }
        let late = async {
            match &flight {
                Some(flight) => sleep_until(flight.due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            more = steps.recv(), if waiting.ops.len() < BATCH => {
                let more = more.ok_or(Ended::Stopping)?;
                if more.connection == connection {
                    waiting.push(more);
                }
            }
            ack = acks.next() => {
                let ack = ack.ok_or(Ended::Stream("Program"))??;
                let Some(Flight { batch: Batch { number: wanted, mut ops }, completes, .. }) = flight.take() else {
                    return Err(Ended::Ack(ack.number, 0));
                };
                if ack.number != wanted {
                    return Err(Ended::Ack(ack.number, wanted));
                }
                if let Err(refused) = ack.result {
                    let at = refused.op.min(ops.len().saturating_sub(1));
                    let op = ops.remove(at);
                    if matches!(op, Op::ResyncBegin(_) | Op::ResyncEnd(_)) {
                        return Err(Ended::Resync(op, refused.reason));
                    }
                    tell(inputs, Input::Refused { op, reason: refused.reason }).await?;
                    if !ops.is_empty() {
                        flight = Some(launch(&wire, &mut number, ops, completes).await?);
                        continue;
                    }
                }
                tell(inputs, Input::Taken(completes)).await?;
            }
            () = late => return Err(Ended::NoAck),
        }
    }
}

async fn launch(
    wire: &mpsc::Sender<Batch>,
    number: &mut u64,
    ops: Vec<Op>,
    completes: u64,
) -> Result<Flight, Ended> {
    *number += 1;
    let batch = Batch { number: *number, ops };
    wire.send(batch.clone()).await.map_err(|_| Ended::Stream("Program"))?;
    Ok(Flight { batch, completes, due: Instant::now() + ACK_DEADLINE })
}

/// Steps that wait for the batch before them.
#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    /// After how many steps from the front each message ends, and its number.
    ends: VecDeque<(usize, u64)>,
    completed: u64,
}

impl Waiting {
    fn push(&mut self, steps: Steps) {
        self.ops.extend(steps.ops);
        self.ends.push_back((self.ops.len(), steps.number));
    }

    /// The next batch, and the number of the last message that ends in it.
    fn next(&mut self) -> Option<(Vec<Op>, u64)> {
        if self.ops.is_empty() {
            return None;
        }
        let count = self.ops.len().min(BATCH);
        let ops = self.ops.drain(..count).collect();
        while let Some((_, number)) = self.ends.pop_front_if(|(end, _)| *end <= count) {
            self.completed = number;
        }
        for (end, _) in &mut self.ends {
            *end -= count;
        }
        Some((ops, self.completed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::program::{Key, Refused};

    fn steps(number: u64, count: usize) -> Steps {
        Steps { connection: 1, number, ops: vec![Op::ResyncBegin(Owner::Config); count] }
    }

    #[tokio::test]
    async fn a_refused_step_is_left_out_but_for_the_marks_of_a_resync() {
        let (steps_in, mut steps) = mpsc::channel(1);
        let (wire, mut batches) = mpsc::channel(1);
        let (acks_in, acks) = mpsc::channel(1);
        let acks = Box::pin(futures::stream::unfold(acks, async |mut acks| Some((acks.recv().await?, acks))));
        let (inputs, mut heard) = mpsc::channel(8);
        let removal = Op::Remove(Owner::Config, Key::Tunnel("tunnel0".parse().unwrap()));
        let marks = [Op::ResyncBegin(Owner::Config), Op::ResyncEnd(Owner::Config)];
        let dataplane = async {
            let ops = vec![marks[0].clone(), removal.clone(), marks[1].clone()];
            steps_in.send(Steps { connection: 1, number: 1, ops }).await.unwrap();
            for refused in [1, 1] {
                let Batch { number, ops } = batches.recv().await.unwrap();
                assert_eq!((&ops[0], ops.last().unwrap()), (&marks[0], &marks[1]));
                let reason = Refusal::Full("routes".to_owned());
                acks_in.send(Ok(Ack { number, result: Err(Refused { op: refused, reason }) })).await.unwrap();
            }
            pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = carry_steps::<()>(1, &mut steps, wire, acks, &inputs) => ended.unwrap_err(),
            () = dataplane => unreachable!(),
        };
        assert_eq!(ended.to_string(), "it refused ResyncEnd(Config): no room for more routes");
        assert!(matches!(heard.recv().await, Some(Input::Refused { op, .. }) if op == removal));
    }

    #[tokio::test]
    async fn a_connection_does_not_end_for_what_an_earlier_one_did() {
        let (give_up, given_up) = watch::channel(0);
        give_up.send_replace(1);
        give_up.send_replace(1);
        let first = fall_behind::<()>(1, given_up.clone()).await;
        assert!(matches!(first, Err(Ended::Behind)));
        let mut second = Box::pin(fall_behind::<()>(2, given_up));
        assert!(futures::poll!(&mut second).is_pending());
        give_up.send_replace(2);
        assert!(matches!(second.await, Err(Ended::Behind)));
    }

    #[test]
    fn small_messages_join_and_big_ones_are_cut() {
        let mut waiting = Waiting::default();
        assert!(waiting.next().is_none());
        waiting.push(steps(1, 3));
        waiting.push(steps(2, 4));
        let next = |w: &mut Waiting| w.next().map(|(ops, completes)| (ops.len(), completes));
        assert_eq!(next(&mut waiting), Some((7, 2)));
        waiting.push(steps(3, BATCH + 1));
        waiting.push(steps(4, 1));
        assert_eq!(next(&mut waiting), Some((BATCH, 2)), "the third is not complete");
        assert_eq!(next(&mut waiting), Some((2, 4)));
        assert_eq!(next(&mut waiting), None);
    }
}
