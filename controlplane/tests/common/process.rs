//! A control plane as its process runs it, on real sockets, with a data plane that is a map behind gRPC and a kernel that
//! agrees with everything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use controlplane::kernel::{Notice, Order};
use controlplane::shell::{self, World};
use futures::StreamExt;
use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::program::{Ack, Batch, Key, Object, Op, Owner, Refused};
use model::report::{PacketIn, PacketOut, PuntReason, Report};
use model::state::ports::{Port, Traffic};
use model::state::{Ports, Show, State, What, Workers};
use model::{Instance, Mac, NbmaAddr, TableId, WorkerId};
use proto::server::{self, from_channel};
use proto::{Access, Greeting, Hello, Open, Status, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Dataplane, name};

/// Who is at which NBMA address: packets go there.
pub(crate) type Underlay = Arc<Mutex<HashMap<NbmaAddr, mpsc::Sender<PacketIn>>>>;

/// A data plane behind its service.
pub(crate) struct Served {
    instance: Instance,
    pub(crate) program: Arc<Mutex<Dataplane>>,
    reports: Mutex<Option<mpsc::Sender<Report>>>,
    /// While it is set, batches are taken in and not answered.
    pub(crate) stalls: AtomicBool,
    underlay: Underlay,
    pub(crate) epochs: Mutex<Vec<u64>>,
    batches: AtomicU64,
}

impl Served {
    pub(crate) async fn report(&self, report: Report) {
        let sender = self.reports.lock().unwrap().clone().unwrap();
        sender.send(report).await.unwrap();
    }

    async fn take(&self, Batch { number, ops }: Batch) -> Ack {
        while self.stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.batches.fetch_add(1, Ordering::Relaxed);
        let mut program = self.program.lock().unwrap();
        // All or nothing.
        let is_whole = |op: &Op| matches!(op, Op::ResyncBegin(_) | Op::ResyncEnd(_));
        let before = ops.iter().any(is_whole).then(|| program.clone());
        let mut undo = Vec::new();
        for (op, step) in ops.iter().enumerate() {
            undo.push(program.undo(step));
            if let Err(reason) = program.take(step) {
                match before {
                    Some(before) => *program = before,
                    None => undo.into_iter().rev().flatten().for_each(|(at, old)| program.restore(at, old)),
                }
                return Ack { number, result: Err(Refused { op, reason }) };
            }
        }
        Ack { number, result: Ok(()) }
    }
}

struct Service(Arc<Served>);

#[proto::async_trait]
impl server::Dataplane for Service {
    fn instance(&self) -> Instance {
        self.0.instance
    }

    async fn hello(&self, hello: Hello) -> Result<Greeting, Status> {
        self.0.epochs.lock().unwrap().push(hello.epoch.0);
        let port = |name: &str| Port {
            name: name.to_owned(),
            driver: "none".to_owned(),
            interface: None,
            mac: Mac([2, 0, 0, 0, 0, name.len() as u8]),
            up: true,
            mtu: 1500,
            queues: 1,
            rx: Traffic::default(),
            tx: Traffic::default(),
            offloads: Vec::new(),
        };
        Ok(Greeting {
            instance: self.0.instance,
            version: "test".to_owned(),
            workers: Workers::default(),
            ports: Ports(vec![port("wan"), port("lan")]),
            sa_slots: 1 << 18,
        })
    }

    async fn program(&self, _: server::Turn, batches: Stream<Batch>) -> Result<Stream<Ack>, Status> {
        let served = Arc::clone(&self.0);
        Ok(Box::pin(batches.then(move |batch| {
            let served = Arc::clone(&served);
            async move { Ok(served.take(batch?).await) }
        })))
    }

    async fn reports(&self, _: Open) -> Result<Stream<Report>, Status> {
        let (sender, receiver) = mpsc::channel(16);
        *self.0.reports.lock().unwrap() = Some(sender);
        Ok(from_channel(receiver))
    }

    async fn punt(&self, _: Open, mut packets: Stream<PacketOut>) -> Result<Stream<PacketIn>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let served = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some(Ok(packet)) = packets.next().await {
                let tunnel = (Key::Tunnel(packet.tunnel), Owner::Config);
                let (own, is_protected, spi) = {
                    let program = served.program.lock().unwrap();
                    let Some(Object::Tunnel(own)) = program.object(tunnel.1, tunnel.0) else {
                        panic!("a packet through a tunnel that is not there")
                    };
                    (own.source, own.protection.is_some(), program.seals_for(packet.destination))
                };
                assert!(spi.is_some() || !is_protected, "a packet in the clear");
                let to = served.underlay.lock().unwrap().get(&packet.destination).cloned();
                let packet = PacketIn {
                    reason: PuntReason::Nhrp,
                    tunnel: packet.tunnel,
                    source: own,
                    destination: packet.destination,
                    udp_port: 0,
                    bytes: packet.bytes,
                    dropped_before: 0,
                    spi,
                };
                if let Some(to) = to {
                    let _ = to.send(packet).await;
                }
            }
        });
        // It hears what is sent to its tunnel's address, once it is programmed.
        let served = Arc::clone(&self.0);
        tokio::spawn(async move {
            let tunnel = (Key::Tunnel(name("tunnel0")), Owner::Config);
            while !sender.is_closed() {
                if let Some(Object::Tunnel(tunnel)) =
                    served.program.lock().unwrap().object(tunnel.1, tunnel.0)
                {
                    served.underlay.lock().unwrap().insert(tunnel.source, sender.clone());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Ok(from_channel(receiver))
    }

    async fn show(&self, show: Show) -> Result<State, Status> {
        match show.what {
            What::Program => Ok(State::Program(self.0.program.lock().unwrap().shown())),
            what => Ok(State::empty(what)),
        }
    }

    /// As many packets as are wanted, each at one node.
    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        let step = |packet| TraceStep {
            packet,
            worker: WorkerId(0),
            node: "rx".to_owned(),
            time_us: 0,
            interface: None,
            table: TableId(0),
            destination: None,
            adjacency: None,
            offset: 0,
            reason: None,
            len: 0,
            bytes: Vec::new(),
            lost: 0,
        };
        Ok(Box::pin(futures::stream::iter((1..=request.packets.get()).map(step).map(Ok))))
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        Err(Status::invalid_argument(format!("at: there is no {}", request.at)))
    }
}

/// The process of a data plane.
pub(crate) struct DataplaneProcess {
    pub(crate) served: Arc<Served>,
    task: JoinHandle<()>,
}

impl DataplaneProcess {
    pub(crate) fn start(folder: &Folder, instance: u64, underlay: &Underlay) -> Self {
        let served = Arc::new(Served {
            instance: Instance(instance),
            program: Arc::default(),
            reports: Mutex::default(),
            stalls: AtomicBool::new(false),
            underlay: Arc::clone(underlay),
            epochs: Mutex::default(),
            batches: AtomicU64::new(0),
        });
        let service = Arc::new(Service(Arc::clone(&served)));
        let socket = folder.path.join("dataplane.sock");
        let task = tokio::spawn(async move {
            let never = std::future::pending();
            server::serve_dataplane(&socket, Access::default(), service, never).await.unwrap();
        });
        Self { served, task }
    }

    /// SIGKILL, as far as a task can have one.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        // Connections are tasks of their own: they end with their streams.
        *self.served.reports.lock().unwrap() = None;
    }
}

/// A folder with the files of one node; gone afterwards.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new(test: &str, config: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nave-cp-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self { path };
        folder.write(config);
        folder
    }

    /// Writes the configuration, with this folder's paths.
    pub(crate) fn write(&self, config: &str) {
        std::fs::write(self.path.join("nave.toml"), self.config(config)).unwrap();
    }

    pub(crate) fn config(&self, config: &str) -> String {
        let path = |file: &str| self.path.join(file).display().to_string();
        let node = format!("[node]\nstate_file = {:?}\n", path("state.json"));
        let dataplane = format!("\n[dataplane]\nsocket = {:?}\n", path("dataplane.sock"));
        let management = format!("\n[management]\nsocket = {:?}\n", path("controlplane.sock"));
        config.replacen("[node]\n", &node, 1) + &dataplane + &management
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The process of a control plane.
pub(crate) struct ControlplaneProcess {
    task: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
    pub(crate) reload: mpsc::Sender<()>,
    /// The kernel's end; gone with it.
    notices: mpsc::WeakSender<Notice>,
    pub(crate) orders: Arc<Mutex<Vec<Order>>>,
    pub(crate) management: proto::client::Management,
}

impl ControlplaneProcess {
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_with(folder, None).await
    }

    /// Keeping a journal.
    pub(crate) async fn start_with(folder: &Folder, journal: Option<PathBuf>) -> Self {
        let (orders_up, orders_down) = mpsc::channel(64);
        let (notices, notices_down) = mpsc::channel(64);
        let orders = Arc::default();
        let weak = notices.downgrade();
        tokio::spawn(kernel(orders_down, notices, Arc::clone(&orders)));
        let (reload, reload_down) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let world = World {
            config_file: folder.path.join("nave.toml"),
            journal,
            orders: orders_up,
            notices: notices_down,
            reload: reload_down,
            stop: async {
                let _ = stopped.await;
            },
        };
        let task = tokio::spawn(shell::run_in(world));
        let socket = folder.path.join("controlplane.sock");
        wait("management", || socket_answers(&socket)).await;
        let management = proto::client::Management::at(socket);
        Self { task, stop, reload, notices: weak, orders, management }
    }

    pub(crate) async fn notice(&self, notice: Notice) {
        self.notices.upgrade().unwrap().send(notice).await.unwrap();
    }

    /// As SIGTERM.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap().unwrap();
    }

    /// As SIGKILL.
    pub(crate) async fn kill(self, folder: &Folder) {
        self.task.abort();
        let _ = self.task.await;
        // Its task of management is another one; a process would take it along.
        let socket = folder.path.join("controlplane.sock");
        wait("the end of management", || !socket_answers(&socket)).await;
        // And a file that is being written: what is written is a thread's of its own.
        let is_writing = |file: &str| folder.path.join(file).exists();
        wait("the end of its writing", || {
            !["state.json.new", "state.json.leases.new"].into_iter().any(is_writing)
        })
        .await;
    }
}

fn socket_answers(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}

async fn kernel(
    mut orders: mpsc::Receiver<Order>,
    notices: mpsc::Sender<Notice>,
    log: Arc<Mutex<Vec<Order>>>,
) {
    while let Some(order) = orders.recv().await {
        log.lock().unwrap().push(order.clone());
        match order {
            Order::Twins(_) => notices.send(Notice::Synced).await.unwrap(),
            Order::Resolve(hop) => {
                let mac = Some(Mac([2, 0xee, 0, 0, 0, 1]));
                let _ = notices.send(Notice::Neighbour { hop, mac }).await;
            }
            Order::Routes(_) => {}
            Order::Stop { .. } => return,
        }
    }
}

/// Waits for something that comes in a moment; on a machine that has much else to do, within half a minute.
pub(crate) async fn wait(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come");
}
