//! The process: what it is made of, from first to last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Context as _;
use dpdk::{Eal, EalArgs, Mbuf, Memory, Mempool, MempoolConfig, Opened, Port, PortConfig};
use forwarding::{Command, Injected, Program};
use model::report::Report;
use model::{Instance, Mac};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{Args, MemoryArg, PortArg};
use crate::cores::Cores;
use crate::handoff::{self, handoffs};
use crate::host::{Host, HostCounters, Order, Orders};
use crate::ports::{QueuePair, QueuePorts};
use crate::rings::{Rings, Waker};
use crate::service::Service;
use crate::worker::{Plan, Pulse};

/// Descriptors of each queue.
const RING: u16 = 1024;
/// Packet buffers of each worker beyond those that lie in queues or are handed off: bursts, rings, parked packets.
const SPARE: u32 = 8192;
/// Packet buffers that a worker's thread keeps to itself.
const CACHE: u32 = 256;
/// Bytes of a buffer beyond the IP packet: Ethernet header, VLAN tag, and what encapsulation appends.
const FRAME: u16 = 14 + 4 + 64;
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
        .with_secret(random_id());

    let stop = Arc::new(AtomicBool::new(false));
    let waker = Arc::new(Waker::new().context("making the host thread's waker")?);
    let clock = memory::Clock::start();
    let shared = Shared { waker: &waker, clock, stop: &stop };
    let (ports, plans) = share(args, opened, pool, &mut program, &shared)?;
    let workers = plans.iter().map(|plan| WorkerSeen {
        core: plan.core,
        idle: plan.idle,
        rings: Arc::clone(&plan.ports.rings),
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
    let data_room = (args.mtu + FRAME).max(ROOM);
    let config = MempoolConfig { name: "packets", count, cache: CACHE, data_room, socket: None };
    Mempool::create(&eal, &config).with_context(|| format!("{count} packet buffers of {data_room} bytes"))
}

fn open(eal: Eal, args: &Args, port: &PortArg, pool: Mempool) -> anyhow::Result<Opened> {
    let queues = u16::try_from(args.workers.len()).context("--workers")?;
    let config = PortConfig {
        rx_queues: queues,
        tx_queues: queues,
        rx_ring: RING,
        tx_ring: RING,
        mtu: args.mtu,
        promiscuous: false,
        pools: vec![pool],
    };
    let opened = Port::open(&eal, &port.device, &config).with_context(|| format!("--port {}", port.name))?;
    if opened.rx.len() < args.workers.len() || opened.tx.len() < args.workers.len() {
        anyhow::bail!(
            "--port {}: {} has {} receive and {} transmit queues, {} workers want one each",
            port.name,
            port.device,
            opened.rx.len(),
            opened.tx.len(),
            args.workers.len()
        );
    }
    Ok(opened)
}

/// What all workers have.
struct Shared<'a> {
    waker: &'a Arc<Waker>,
    clock: memory::Clock,
    stop: &'a Arc<AtomicBool>,
}

/// Divides the ports: control sides for the service, a queue pair of each for every worker.
fn share(
    args: &Args,
    opened: Vec<Opened>,
    pool: Mempool,
    program: &mut Program,
    shared: &Shared<'_>,
) -> anyhow::Result<(Vec<NamedPort>, Vec<Plan>)> {
    let mut queues: Vec<Vec<_>> = args.workers.iter().map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    for (port, opened) in args.ports.iter().zip(opened) {
        let driver = opened.port.driver().to_owned();
        let pairs = opened.rx.into_iter().zip(opened.tx).map(|(rx, tx)| QueuePair::new(rx, tx, &driver));
        let count = pairs.len().min(queues.len());
        for (worker, pair) in queues.iter_mut().zip(pairs) {
            worker.push(pair);
        }
        ports.push(NamedPort {
            name: port.name.clone(),
            mac: Mac(opened.port.mac()?),
            mtu: opened.port.mtu()?,
            port: opened.port,
            queues: u16::try_from(count)?,
        });
    }
    let mut plans = Vec::new();
    let all = queues.into_iter().zip(handoffs(args.workers.len())).zip(&args.workers);
    for (index, ((queues, handoff), core)) in all.enumerate() {
        let rings = Arc::new(Rings::new());
        if args.measure_nodes {
            // The ring is new: there is room.
            let _ = rings.commands.push(Command::Measure(true));
        }
        plans.push(Plan {
            index,
            core: *core,
            idle: args.idle(),
            worker: program.worker().context("making a worker's counters")?,
            ports: QueuePorts { queues, pool, rings, handoff },
            pulse: Arc::new(Pulse::default()),
            waker: Arc::clone(shared.waker),
            clock: shared.clock,
            stop: Arc::clone(shared.stop),
        });
    }
    Ok((ports, plans))
}

/// Serves until SIGINT or SIGTERM. The runtime's threads inherit the cores of this one, which are no worker's.
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
        let stop = async move {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
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
    }
    for rings in process.rings() {
        rings.drain();
    }
    // A port closes when its control side and the last of its queues are gone.
    drop(queues);
    process.ports.lock().unwrap_or_else(PoisonError::into_inner).clear();
    tracing::info!("stopped");
}
