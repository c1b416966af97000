//! The process: what it is made of, from first to last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use aead::Provider;
use anyhow::Context as _;
use dpdk::{
    Eal, EalArgs, EspForm, EspRule, Mbuf, Memory, Mempool, MempoolConfig, Offloading, Opened, Port,
    PortConfig,
};
use forwarding::{Command, Injected, Program};
use model::report::Report;
use model::sa::{Spi, SpiBits};
use model::state::ports::OffloadState;
use model::{Instance, Mac};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{Aead, Args, MemoryArg, PortArg, why_not};
use crate::cores::Cores;
use crate::handoff::{self, handoffs};
use crate::host::{Host, HostCounters, Order, Orders};
use crate::ports::{PortEnd, QueuePorts};
use crate::rings::{Rings, Waker, rings};
use crate::service::Service;
use crate::worker::{Plan, Pulse};

/// Descriptors of each queue.
const RING: u16 = 1024;
/// Packet buffers of each worker beyond those that lie in queues or are handed off: bursts, rings, parked packets.
const SPARE: u32 = 8192;
/// Packet buffers that a worker's thread keeps to itself.
const CACHE: u32 = 256;
/// Bytes of a buffer beyond the IP packet that a port takes: Ethernet header and VLAN tag, and what a peer may have put around such a packet
/// that comes in fragments and is put together: IPv6 and UDP header, SPI, sequence number and IV, the IPv6 header of tunnel mode, GRE with
/// key and sequence number, padding, its length, next header and ICV. (What we put in front of a packet goes into the headroom; behind
/// it there is always room for our own trailer, which is shorter than this.)
const FRAME: u16 = 14 + 4 + (40 + 8 + 16 + 40 + 12) + (3 + 2 + 16);
/// Of what the length of a buffer is a multiple: cards count theirs in such steps, and ignore what is beyond the last.
const STEP: u16 = 128;
/// Smallest room of a buffer, in bytes.
const ROOM: u16 = 2048;
/// Punted packets on their way to the service.
const PUNTED: usize = 1024;

/// A port as the service sees it.
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) mac: Mac,
    pub(crate) mtu: u16,
    pub(crate) port: Port,
    /// Queue pairs.
    pub(crate) queues: u16,
    /// Whether it puts ESP into the queue of the worker that has its SA.
    pub(crate) steering: OffloadState,
}

/// What every part of the process may look at.
pub(crate) struct Process {
    pub(crate) instance: Instance,
    /// In the order of port ids.
    pub(crate) ports: Mutex<Vec<NamedPort>>,
    pub(crate) workers: Vec<WorkerSeen>,
    pub(crate) host: Arc<HostCounters>,
    /// The workers' clock.
    pub(crate) clock: memory::Clock,
    pool: Mempool,
    service: OnceLock<Weak<Service>>,
}

/// A worker as the service sees it.
pub(crate) struct WorkerSeen {
    pub(crate) core: usize,
    pub(crate) idle: crate::args::Idle,
    /// Who seals and opens its ESP.
    pub(crate) aead: Provider,
    pub(crate) rings: Arc<Rings>,
    pub(crate) pulse: Arc<Pulse>,
}

impl Process {
    pub(crate) fn rings(&self) -> impl Iterator<Item = &Rings> {
        self.workers.iter().map(|worker| &*worker.rings)
    }

    pub(crate) fn service(&self) -> Weak<Service> {
        self.service.get().cloned().unwrap_or_default()
    }

    /// Every port, as it is now.
    pub(crate) fn port_reports(&self) -> Vec<Report> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |port: &NamedPort| Report::Port {
            port: port.name.clone(),
            mac: port.mac,
            up: port.port.link().is_ok_and(|link| link.up),
            mtu: port.mtu,
        };
        ports.iter().map(report).collect()
    }

    /// Gives a packet to the first worker.
    pub(crate) fn inject(
        &self,
        packet: impl FnOnce(&Mempool) -> Result<Injected<Mbuf>, &'static str>,
    ) -> Result<(), &'static str> {
        let injected = packet(&self.pool)?;
        self.workers[0].rings.inject(injected).map_err(|buf| {
            buf.free();
            "the worker's ring is full"
        })
    }
}

/// Starts everything, serves until a signal, and stops everything.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let provider = args.aead.provider().map_err(anyhow::Error::msg)?;
    let cores = Cores::divide(&args.workers)?;
    if cores.shared() {
        tracing::warn!(cores = ?cores.workers, "no core is left for anything but workers: they share");
    }
    cores.keep_off_workers()?;
    let eal = start_eal(args, &cores)?;
    let pool = make_pool(eal, args)?;
    let opened =
        args.ports.iter().map(|port| open(eal, args, port, pool)).collect::<anyhow::Result<Vec<_>>>()?;

    let beginning = Instant::now();
    let known = args.ports.iter().zip(&opened).map(|(port, opened)| {
        Ok(forwarding::Port {
            name: port.name.clone(),
            mac: Mac(opened.port.mac()?),
            mtu: opened.port.mtu()?,
        })
    });
    let mut program = Program::new(known.collect::<anyhow::Result<_>>()?)
        .context("making the tables")?
        .with_secret(random_id())
        .with_provider(provider);
    tell_provider(args.aead, provider);

    let stop = Arc::new(AtomicBool::new(false));
    let waker = Arc::new(Waker::new().context("making the host thread's waker")?);
    let clock = memory::Clock::start();
    let shared = Shared { waker: &waker, clock, stop: &stop };
    let (ports, plans) = share(args, opened, pool, &mut program, &shared)?;
    let workers = plans.iter().map(|plan| WorkerSeen {
        core: plan.core,
        idle: plan.idle,
        aead: provider,
        rings: Arc::clone(&plan.ports.rings.shared),
        pulse: Arc::clone(&plan.pulse),
    });
    let process = Arc::new(Process {
        instance: Instance(random_id()),
        ports: Mutex::new(ports),
        workers: workers.collect(),
        host: Arc::new(HostCounters::default()),
        clock,
        pool,
        service: OnceLock::new(),
    });

    let (orders, from_service) = Orders::new(Arc::clone(&waker));
    let (punts, punted) = mpsc::channel(PUNTED);
    let rings = process.workers.iter().map(|worker| Arc::clone(&worker.rings)).collect();
    let host = Host::new(
        args.host_netns.clone(),
        from_service,
        rings,
        waker,
        pool,
        punts,
        Arc::clone(&process.host),
    )
    .context("starting the host thread")?;
    let host = std::thread::Builder::new().name("nave-host".to_owned()).spawn(move || host.run())?;
    let service = Arc::new(Service::new(Arc::clone(&process), program, orders.clone(), beginning));
    let _ = process.service.set(Arc::downgrade(&service));
    let threads = plans.into_iter().map(|plan| plan.start(eal)).collect::<anyhow::Result<Vec<_>>>()?;

    let served = serve(args, service, punted);
    orders.give(Order::Stop);
    stop.store(true, Ordering::Relaxed);
    finish(&process, host, threads);
    served
}

/// Says in the log who seals and opens ESP, and why not a faster one.
fn tell_provider(asked: Aead, provider: Provider) {
    let reason = |faster: Provider| match why_not(faster) {
        Some(why) => format!("not {faster}: {why}"),
        None => format!("not {faster}: --aead names another"),
    };
    let faster = Provider::ALL.into_iter().take_while(|faster| *faster != provider);
    let reasons: Vec<_> = faster.clone().map(reason).collect();
    tracing::info!(%provider, "AES-GCM of ESP{}", reasons.iter().map(|why| format!(", {why}")).collect::<String>());
    // What the processor has and what does not compute right is broken hardware, or ours.
    let broken = |faster: &Provider| faster.is_possible() && !faster.is_usable();
    if let Some(broken) = faster.into_iter().find(broken).filter(|_| asked == Aead::Auto) {
        tracing::warn!(provider = %broken, "fails its self-test on this machine: please report it");
    }
}

fn random_id() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The hasher's keys are random for each process; an id of 0 means "none".
    std::hash::RandomState::new().build_hasher().finish().max(1)
}

fn start_eal(args: &Args, cores: &Cores) -> anyhow::Result<Eal> {
    let of_kind = |wanted: bool| {
        args.ports.iter().filter(move |port| port.is_virtual() == wanted).map(PortArg::devargs).collect()
    };
    let memory = match args.memory {
        MemoryArg::Huge => Memory::Huge { dir: None },
        MemoryArg::InMemory => Memory::InMemory,
        MemoryArg::NoHuge(mb) => Memory::NoHuge { mb },
    };
    let eal = EalArgs {
        memory,
        vdevs: of_kind(true),
        pci: of_kind(false),
        file_prefix: Some(args.file_prefix.clone()),
        cpus: cores.others.clone(),
        ..EalArgs::default()
    };
    Eal::start(&eal).map_err(Into::into)
}

fn make_pool(eal: Eal, args: &Args) -> anyhow::Result<Mempool> {
    let queues = u32::try_from(args.ports.len() * args.workers.len()).unwrap_or(u32::MAX);
    let workers = u32::try_from(args.workers.len()).unwrap_or(u32::MAX);
    let count = args.buffers.unwrap_or_else(|| {
        let wanted = queues
            .saturating_mul(2 * u32::from(RING))
            .saturating_add(workers.saturating_mul(SPARE + 2 * CACHE + handoff::SLOTS as u32));
        // One less than a power of two wastes none of the pool's ring.
        wanted.checked_next_power_of_two().unwrap_or(1 << 31) - 1
    });
    let data_room = data_room(args.mtu);
    let config = MempoolConfig { name: "packets", count, cache: CACHE, data_room, socket: None };
    Mempool::create(&eal, &config).with_context(|| format!("{count} packet buffers of {data_room} bytes"))
}

/// Bytes of a buffer for a packet, behind the headroom.
fn data_room(mtu: u16) -> u16 {
    (mtu + FRAME).max(ROOM).next_multiple_of(STEP)
}

fn open(eal: Eal, args: &Args, port: &PortArg, pool: Mempool) -> anyhow::Result<Opened> {
    let workers = u16::try_from(args.workers.len()).context("--workers")?;
    let queues = args.queues_of(&port.name).map_or(workers, |queues| queues.min(workers));
    let config = PortConfig {
        rx_queues: queues,
        tx_queues: queues,
        rx_ring: RING,
        tx_ring: RING,
        mtu: args.mtu,
        promiscuous: false,
        offloading: args.offloading_of(&port.name),
        pools: vec![pool],
    };
    let opened = Port::open(&eal, &port.device, &config).with_context(|| format!("--port {}", port.name))?;
    let (rx, tx) = (opened.rx.len(), opened.tx.len());
    if rx.min(tx) < args.workers.len() {
        tracing::info!(
            port = port.name,
            rx,
            tx,
            workers,
            "fewer queues than workers: packets are spread by software"
        );
    }
    Ok(opened)
}

/// Has a card put ESP into the queue of the worker that has its SA, where each worker has one. If it refuses, packets come as RSS spreads
/// them, and are handed to that worker.
fn steer(args: &Args, port: &PortArg, opened: &Opened) -> OffloadState {
    let wanted = match args.offloading_of(&port.name) {
        Offloading::None => false,
        Offloading::Free => !port.is_virtual(),
        Offloading::All => true,
    };
    let workers = args.workers.len();
    if !wanted || workers < 2 || opened.rx.len() < workers {
        return OffloadState::Unused;
    }
    let asked = opened.port.steer_esp(&esp_rules(workers));
    let (taken, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, taken)| taken.is_ok());
    let forms =
        |some: &[(EspForm, _)]| some.iter().map(|(form, _)| form.to_string()).collect::<Vec<_>>().join(", ");
    if let Some((_, Err(why))) = refused.first() {
        let forms = forms(&refused);
        tracing::info!(port = port.name, refused = %why, "what comes by any queue, and is handed to its SA's worker: {forms}");
    }
    if taken.is_empty() {
        return OffloadState::Refused;
    }
    tracing::info!(port = port.name, "what comes by the queue of its SA's worker: {}", forms(&taken));
    OffloadState::Used
}

/// A rule for each of so many workers; worker n has the n-th queue.
fn esp_rules(workers: usize) -> Vec<EspRule> {
    let workers = u16::try_from(workers).unwrap_or(u16::MAX);
    let rule = |worker| {
        let SpiBits { mask, value } = Spi::bits_of(worker, workers);
        EspRule { mask, value, queue: worker }
    };
    (0..workers).map(rule).collect()
}

/// What all workers have.
struct Shared<'a> {
    waker: &'a Arc<Waker>,
    clock: memory::Clock,
    stop: &'a Arc<AtomicBool>,
}

/// Divides the ports: control sides for the service, an end of each for every worker.
fn share(
    args: &Args,
    opened: Vec<Opened>,
    pool: Mempool,
    program: &mut Program,
    shared: &Shared<'_>,
) -> anyhow::Result<(Vec<NamedPort>, Vec<Plan>)> {
    let mut ends: Vec<Vec<_>> = args.workers.iter().map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    for (port, opened) in args.ports.iter().zip(opened) {
        let steering = steer(args, port, &opened);
        let count = opened.rx.len().min(opened.tx.len());
        for (worker, end) in
            ends.iter_mut().zip(PortEnd::all(opened.rx, opened.tx, &opened.port, args.workers.len()))
        {
            worker.push(end);
        }
        ports.push(NamedPort {
            name: port.name.clone(),
            mac: Mac(opened.port.mac()?),
            mtu: opened.port.mtu()?,
            port: opened.port,
            queues: u16::try_from(count)?,
            steering,
        });
    }
    let mut plans = Vec::new();
    let workers = args.workers.len();
    let all = ends.into_iter().zip(handoffs(workers)).zip(&args.workers);
    for (index, ((ends, handoff), core)) in all.enumerate() {
        let (outside, rings) = rings();
        if args.measure_nodes {
            // The ring is new: there is room.
            let _ = outside.commands.push(Command::Measure(true));
        }
        plans.push(Plan {
            index,
            core: *core,
            idle: args.idle(),
            worker: program.worker().context("making a worker's counters")?,
            ports: QueuePorts::new(ends, (index, workers), pool, rings, handoff),
            pulse: Arc::new(Pulse::default()),
            waker: Arc::clone(shared.waker),
            clock: shared.clock,
            stop: Arc::clone(shared.stop),
        });
    }
    Ok((ports, plans))
}

/// Serves until SIGINT or SIGTERM, or the end of standard input if that was asked for. The runtime's threads inherit the cores of this one, which are no worker's.
fn serve(
    args: &Args,
    service: Arc<Service>,
    punted: mpsc::Receiver<crate::host::Punted>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("nave-service")
        .enable_all()
        .build()
        .context("starting the service's threads")?;
    let served = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(Arc::clone(&service).watch());
        tokio::spawn(Arc::clone(&service).hand_up(punted));
        let with_stdin = args.until_stdin_ends;
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
                () = proto::server::stdin_ended(), if with_stdin => (),
            }
        };
        tracing::info!(socket = %args.socket.display(), "serving");
        let served =
            proto::server::serve_dataplane(&args.socket, proto::Access::default(), service, stop).await;
        served.map_err(anyhow::Error::from)
    });
    runtime.shutdown_background();
    served
}

/// Joins all threads and gives every packet back, so that ports can be closed.
fn finish(process: &Process, host: JoinHandle<()>, threads: Vec<JoinHandle<QueuePorts>>) {
    let _ = host.join();
    let mut queues: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    // All have ended: nobody puts anything into a ring any more.
    for ports in &mut queues {
        ports.handoff.drain().for_each(|packet| packet.into_buf().free());
        ports.ends.iter_mut().for_each(PortEnd::drain);
        ports.rings.drain();
    }
    for rings in process.rings() {
        rings.drain();
    }
    // A port closes when its control side and the last of its queues are gone.
    drop(queues);
    process.ports.lock().unwrap_or_else(PoisonError::into_inner).clear();
    tracing::info!("stopped");
}

#[cfg(test)]
pub(crate) mod tests {
    use wire::buf::PacketBuf;

    use super::*;

    /// DPDK, which starts once in a process.
    pub(crate) fn eal() -> Eal {
        static EAL: OnceLock<Eal> = OnceLock::new();
        let args = EalArgs { memory: Memory::NoHuge { mb: 96 }, ..EalArgs::default() };
        *EAL.get_or_init(|| Eal::start(&args).unwrap())
    }

    /// Outer IPv6 and UDP header.
    const OUTER: usize = 40 + 8;
    /// SPI, sequence number, IV.
    const ESP: usize = 16;
    /// Tunnel mode's own IPv6 header, GRE with key.
    const INNER: usize = 40 + 8;
    /// Most padding, its length, next header, ICV (RFC 4303 §2).
    const TRAILER: usize = 3 + 2 + 16;
    /// Ethernet header with a VLAN tag.
    const LINK: usize = 14 + 4;

    /// Input: packets as large as ports of each MTU take. Output: there is room in one buffer for all that is put around them.
    #[test]
    fn a_buffer_holds_the_largest_packet_and_all_that_esp_puts_around_it() {
        let eal = eal();
        for (name, mtu) in [("a", 576_u16), ("b", 1280), ("c", 1500), ("d", 1900), ("e", 4000), ("f", 9000)] {
            let data_room = data_room(mtu);
            let config = MempoolConfig { name, count: 63, cache: 0, data_room, socket: None };
            let pool = Mempool::create(&eal, &config).unwrap();
            let size = usize::from(mtu);

            // Received with a tag, sealed in transport mode in UDP over IPv6, sent with a tag.
            let mut buf = pool.alloc_copy(&vec![1; LINK + size]).unwrap();
            assert!(buf.trim_front(LINK));
            assert!(buf.prepend(LINK + OUTER + ESP + 8).is_some() && buf.append(TRAILER).is_some(), "{mtu}");
            buf.free();
            // Sent by the kernel on a tunnel's twin, or a piece or copy of ours: nothing to trim. In tunnel mode.
            let mut buf = pool.alloc_copy(&vec![1; size]).unwrap();
            assert!(buf.prepend(14 + 40 + ESP + INNER).is_some() && buf.append(TRAILER).is_some(), "{mtu}");
            buf.free();
            // Put together of fragments that a peer with this MTU inside has sent.
            let mut buf = pool.alloc_copy(&[1; LINK + 40]).unwrap();
            assert!(buf.append(8 + ESP + INNER + size + TRAILER).is_some(), "{mtu}");
            buf.free();
        }
    }
}
