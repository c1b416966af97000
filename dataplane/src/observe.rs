//! Traces and captures: orders for the workers, and what these saw in the model's words.
//!
//! ```text
//! client ─ order ─▶ commands of every worker ─▶ steps or packets of each, in its ring ─ one task ─▶ client
//! ```
//!
//! There is one trace and one capture at a time. A task of its own sees it through: it waits until every worker has heard the order
//! before the client hears that it has begun, and until every worker has heard its end before the next one may begin. A client that
//! reads too slowly lets the rings fill; what finds no room is counted, and the next that finds some says how many.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forwarding::{AdjacencyId, CaptureOrder, Command, DropReason, Node, PortId, Program, Step, TraceOrder};
use model::observe::{CaptureRequest, Captured, Direction, Reason, Tap, TraceRequest, TraceStep};
use model::{WorkerId, time};
use proto::{Status, Stream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use crate::process::Process;
use crate::service::Service;

/// Steps or packets that may wait for a slow client, beyond those in the rings.
const WAITING: usize = 256;
/// Taken from the ring of one worker before the others get their turn.
const TURN: usize = 256;
/// Packets of one trace at most: each is remembered to its end, in some 30 bytes.
const MOST_TRACED: u32 = 100_000;
/// Time between looks into the rings.
const LOOK: Duration = Duration::from_millis(2);
/// How long workers may take to hear a command; they breathe some thousand times a second at least.
const HEAR: Duration = Duration::from_secs(2);
/// A trace of packets that have all met their end is over when nothing comes for this long: there may be copies.
const SETTLE: Duration = Duration::from_millis(20);
/// A trace is over when nothing comes for this long: a packet waits a second for its next hop or its other fragments.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Who may observe.
#[derive(Debug)]
pub(crate) struct Observers {
    traces: Arc<Semaphore>,
    captures: Arc<Semaphore>,
}

impl Observers {
    /// One trace and one capture.
    pub(crate) fn new() -> Self {
        Self { traces: Arc::new(Semaphore::new(1)), captures: Arc::new(Semaphore::new(1)) }
    }
}

/// What a task that observes has.
struct Watch {
    process: Arc<Process>,
    service: Weak<Service>,
    /// Microseconds from 1970 to the beginning of the workers' clock.
    beginning: u64,
}

impl Watch {
    fn new(process: &Arc<Process>) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_1970 = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX);
        Self {
            process: Arc::clone(process),
            service: process.service(),
            beginning: since_1970.saturating_sub(process.clock.microseconds()),
        }
    }

    fn time_us(&self, time: time::Instant) -> u64 {
        self.beginning.saturating_add(time.0)
    }
}

impl Service {
    /// See [`proto::server::Dataplane::trace`].
    pub(crate) async fn begin_trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        if request.packets.get() > MOST_TRACED {
            return Err(Status::invalid_argument(format!(
                "packets: {} are more than {MOST_TRACED} at once",
                request.packets
            )));
        }
        let permit = Arc::clone(&self.observers.traces).try_acquire_owned().map_err(|_| busy("trace"))?;
        let watch = Watch::new(&self.process);
        let order = TraceOrder { packets: request.packets.get(), only: request.address };
        let (begun, heard) = oneshot::channel();
        let (sender, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let armed = watch.process.command(Command::Trace(order)).await;
            if begun.send(armed).is_ok() {
                watch.trace(request.packets, &sender).await;
            }
            let disarm = Command::Trace(TraceOrder { packets: 0, only: None });
            if let Err(status) = watch.process.command(disarm).await {
                tracing::warn!(reason = status.message(), "the trace did not end");
            }
            watch.process.rings().for_each(|rings| while rings.steps.pop().is_some() {});
            // The client hears the end when the next may begin.
            drop((permit, sender));
        });
        heard.await.map_err(|_| Status::unavailable("the data plane is stopping"))??;
        Ok(proto::server::from_channel(stream))
    }

    /// See [`proto::server::Dataplane::capture`].
    pub(crate) async fn begin_capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        let at = self.process.tap(&request.at)?;
        let permit = Arc::clone(&self.observers.captures).try_acquire_owned().map_err(|_| busy("capture"))?;
        let watch = Watch::new(&self.process);
        let order = CaptureOrder {
            at,
            packets: request.packets.map_or(0, NonZeroU32::get),
            snap: request.snap.map_or(0, u16::from),
            only: request.address,
        };
        let (begun, heard) = oneshot::channel();
        let (sender, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let armed = watch.process.command(Command::Capture(Some(order))).await;
            if begun.send(armed).is_ok() {
                watch.capture(request.packets, &sender).await;
            }
            if let Err(status) = watch.process.command(Command::Capture(None)).await {
                tracing::warn!(reason = status.message(), "the capture did not end");
            }
            watch.process.rings().for_each(|rings| while rings.captured.pop().is_some() {});
            drop((permit, sender));
        });
        heard.await.map_err(|_| Status::unavailable("the data plane is stopping"))??;
        Ok(proto::server::from_channel(stream))
    }
}

fn busy(what: &str) -> Status {
    Status::resource_exhausted(format!("there is a {what} already, and one at a time is all there can be"))
}

impl Process {
    /// Where the workers know it; or what there is.
    fn tap(&self, tap: &Tap) -> Result<forwarding::Tap, Status> {
        let (field, wanted, known) = match tap {
            Tap::Port(wanted) => {
                let ports = self.ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(place) = ports.iter().position(|port| port.name == *wanted) {
                    return Ok(forwarding::Tap::Port(PortId(u16::try_from(place).unwrap_or(u16::MAX))));
                }
                ("port", wanted, ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>())
            }
            Tap::Node(wanted) => {
                if let Some(node) = Node::ALL.iter().find(|node| node.name() == wanted) {
                    return Ok(forwarding::Tap::Node(*node));
                }
                ("node", wanted, Node::ALL.iter().map(ToString::to_string).collect())
            }
        };
        let known = known.join(", ");
        Err(Status::invalid_argument(format!(
            "at.{field}: there is no {field} `{wanted}`; there are {known}"
        )))
    }

    /// Tells every worker, and waits until each has heard it and what it saw before lies in its ring.
    async fn command(&self, command: Command) -> Result<(), Status> {
        let deadline = Instant::now() + HEAR;
        let nap = async |index: usize| {
            if Instant::now() > deadline {
                return Err(Status::unavailable(format!("worker {index} does not breathe")));
            }
            sleep(Duration::from_millis(1)).await;
            Ok(())
        };
        for (index, worker) in self.workers.iter().enumerate() {
            while worker.rings.commands.push(command).is_err() {
                nap(index).await?;
            }
        }
        for (index, worker) in self.workers.iter().enumerate() {
            while !worker.rings.commands.is_empty() {
                nap(index).await?;
            }
            // The breath that took it may not be over; the next one has begun when that is.
            let breaths = worker.pulse.breaths.load(Ordering::Acquire);
            while worker.pulse.breaths.load(Ordering::Acquire) < breaths + 2 {
                nap(index).await?;
            }
        }
        Ok(())
    }
}

impl Watch {
    /// Packets, until there are enough or nobody wants them.
    async fn capture(&self, wanted: Option<NonZeroU32>, client: &mpsc::Sender<Captured>) {
        let mut left = wanted.map(NonZeroU32::get);
        while !client.is_closed() {
            for (index, rings) in self.process.rings().enumerate() {
                let taken: Vec<_> = std::iter::from_fn(|| rings.captured.pop()).take(TURN).collect();
                if taken.is_empty() {
                    continue;
                }
                let mut lost = rings.captured_lost.swap(0, Ordering::Relaxed);
                let Some(service) = self.service.upgrade() else { return };
                let told: Vec<_> = service.with_program(|program| {
                    let tell = |packet| self.captured(program, index, packet, std::mem::take(&mut lost));
                    taken.into_iter().map(tell).collect()
                });
                drop(service);
                for captured in told {
                    if left == Some(0) || client.send(captured).await.is_err() {
                        return;
                    }
                    left = left.map(|left| left - 1);
                }
            }
            if left == Some(0) {
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn captured(
        &self,
        program: &Program,
        worker: usize,
        packet: forwarding::Captured,
        lost: u64,
    ) -> Captured {
        let forwarding::Captured { at, out, interface, reason, time, len, bytes } = packet;
        let direction = if out { Direction::Out } else { Direction::In };
        // Of what has just arrived it is not known yet.
        let is_early = matches!(at, forwarding::Tap::Node(Node::Rx));
        Captured {
            worker: worker_id(worker),
            time_us: self.time_us(time),
            interface: if is_early { None } else { program.interface_name(interface) },
            direction: matches!(at, forwarding::Tap::Port(_)).then_some(direction),
            reason: reason.map(told),
            len: u32::try_from(len).unwrap_or(u32::MAX),
            bytes,
            lost,
        }
    }

    /// Steps of as many packets as are wanted, until all have met their end or nobody wants them.
    async fn trace(&self, wanted: NonZeroU32, client: &mpsc::Sender<TraceStep>) {
        let mut packets = Packets::default();
        let mut quiet_since = Instant::now();
        while !client.is_closed() {
            for (index, rings) in self.process.rings().enumerate() {
                let taken: Vec<_> = std::iter::from_fn(|| rings.steps.pop()).take(TURN).collect();
                if taken.is_empty() {
                    continue;
                }
                let mut lost = rings.steps_lost.swap(0, Ordering::Relaxed);
                let Some(service) = self.service.upgrade() else { return };
                let told: Vec<_> = service.with_program(|program| {
                    let tell = |step: Step| {
                        let number = packets.meet(&step, wanted)?;
                        Some(self.step(program, index, number, step, std::mem::take(&mut lost)))
                    };
                    taken.into_iter().filter_map(tell).collect()
                });
                drop(service);
                for step in told {
                    quiet_since = Instant::now();
                    if client.send(step).await.is_err() {
                        return;
                    }
                }
            }
            let quiet = quiet_since.elapsed();
            if packets.are(wanted) && quiet > if packets.have_ended() { SETTLE } else { GIVE_UP } {
                return;
            }
            sleep(LOOK).await;
        }
    }

    fn step(&self, program: &Program, worker: usize, packet: u32, step: Step, lost: u64) -> TraceStep {
        let Step { node, time, interface, table, destination, adjacency, offset, reason, len, bytes, .. } =
            step;
        let is_early = node == Node::Rx;
        TraceStep {
            packet,
            worker: worker_id(worker),
            node: node.name().to_owned(),
            time_us: self.time_us(time),
            interface: if is_early { None } else { program.interface_name(interface) },
            table: program.table_id(table).unwrap_or_default(),
            destination,
            adjacency: (adjacency != AdjacencyId::default()).then(|| adjacency.word()),
            offset,
            reason: reason.map(told),
            len: u32::try_from(len).unwrap_or(u32::MAX),
            bytes,
            lost,
        }
    }
}

fn worker_id(index: usize) -> WorkerId {
    WorkerId(u16::try_from(index).unwrap_or(u16::MAX))
}

fn told(reason: DropReason) -> Reason {
    Reason { name: reason.name().to_owned(), sentence: reason.sentence().to_owned() }
}

/// The packets of a trace. Each worker counts its own, in numbers that no other has, and goes on counting from trace to trace; here they
/// are counted together.
#[derive(Debug, Default)]
struct Packets {
    /// The number of each packet here, and whether it has met an end.
    met: HashMap<u32, (u32, bool)>,
}

impl Packets {
    /// The number of the packet of a step; `None` if it is not one of those that are wanted.
    fn meet(&mut self, step: &Step, wanted: NonZeroU32) -> Option<u32> {
        let key = step.packet;
        if !self.met.contains_key(&key) {
            // What begins elsewhere is of an earlier trace, and was parked.
            if self.are(wanted) || !matches!(step.node, Node::Rx | Node::Inject) {
                return None;
            }
            let number = u32::try_from(self.met.len()).unwrap_or(u32::MAX).saturating_add(1);
            self.met.insert(key, (number, false));
        }
        let (number, has_ended) = self.met.get_mut(&key)?;
        *has_ended |= matches!(step.node, Node::Tx | Node::Punt | Node::Drop);
        Some(*number)
    }

    /// Whether there are as many.
    fn are(&self, wanted: NonZeroU32) -> bool {
        self.met.len() >= wanted.get() as usize
    }

    fn have_ended(&self) -> bool {
        self.met.values().all(|(_, has_ended)| *has_ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(packet: u32, node: Node) -> Step {
        Step {
            packet,
            node,
            time: time::Instant(0),
            interface: forwarding::InterfaceId(0),
            table: 0,
            destination: None,
            adjacency: AdjacencyId::default(),
            offset: 0,
            reason: None,
            len: 0,
            bytes: Vec::new(),
        }
    }

    #[test]
    fn packets_of_all_workers_are_counted_together_and_no_more_than_wanted() {
        let two = NonZeroU32::new(2).unwrap();
        let mut packets = Packets::default();
        // Of an earlier trace.
        assert_eq!(packets.meet(&step(7, Node::Glean), two), None);
        assert_eq!(packets.meet(&step(1 << 24 | 8, Node::Rx), two), Some(1));
        assert_eq!(packets.meet(&step(8, Node::Inject), two), Some(2));
        assert!(packets.are(two) && !packets.have_ended());
        assert_eq!(packets.meet(&step(9, Node::Rx), two), None);
        assert_eq!(packets.meet(&step(8, Node::Tx), two), Some(2));
        assert!(!packets.have_ended());
        // Handed to the other worker.
        assert_eq!(packets.meet(&step(1 << 24 | 8, Node::Inject), two), Some(1));
        assert_eq!(packets.meet(&step(1 << 24 | 8, Node::Drop), two), Some(1));
        assert!(packets.have_ended());
        // A copy of it.
        assert_eq!(packets.meet(&step(1 << 24 | 8, Node::Punt), two), Some(1));
    }
}
