//! Both services over real sockets: what is served is what is called, streams are fenced, a stalled caller stalls nobody else.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use model::config::check::Fault;
use model::observe::{CaptureRequest, Captured, Direction, Tap, TraceRequest, TraceStep};
use model::program::{Ack, Batch, Hop, Op, Owner, Refusal, Refused};
use model::report::{PacketIn, PacketOut, PuntReason, Report};
use model::state::event::{Event, Happening};
use model::state::fib::FibEntry;
use model::state::{Fib, Filter, Ports, Show, State, What, Workers};
use model::{Epoch, Instance, InterfaceName, TableId, WorkerId};
use proto::client;
use proto::server::{self, from_channel};
use proto::{Access, Applied, Apply, Clear, Code, Greeting, Hello, Open, Status, Stream};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

const INSTANCE: Instance = Instance(0xfeed);

/// A socket path of one test; the file goes with the server.
fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("nave-{name}-{}.sock", std::process::id()))
}

/// A data plane that acks what has an odd number, refuses the rest, echoes packets, and reports one glean.
#[derive(Default)]
struct Odd {
    /// Streams that nobody reads any more.
    unread: Mutex<Vec<Stream<PacketOut>>>,
    /// Captures that go on.
    captures: Arc<AtomicU64>,
}

#[proto::async_trait]
impl server::Dataplane for Odd {
    fn instance(&self) -> Instance {
        INSTANCE
    }

    async fn hello(&self, _: Hello) -> Result<Greeting, Status> {
        Ok(Greeting {
            instance: INSTANCE,
            version: "1.2.3".into(),
            workers: Workers::default(),
            ports: Ports::default(),
            sa_slots: 1 << 18,
        })
    }

    async fn program(&self, _: server::Turn, batches: Stream<Batch>) -> Result<Stream<Ack>, Status> {
        Ok(Box::pin(batches.map(|batch| {
            let Batch { number, .. } = batch?;
            let refused = Refused { op: 7, reason: Refusal::Full("adjacencies".into()) };
            Ok(Ack { number, result: if number % 2 == 1 { Ok(()) } else { Err(refused) } })
        })))
    }

    async fn reports(&self, _: Open) -> Result<Stream<Report>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let hop = Hop { interface: "lan".parse().unwrap(), next_hop: "10.0.0.1".parse().unwrap() };
            while sender.send(Report::Glean(hop)).await.is_ok() {}
        });
        Ok(from_channel(receiver))
    }

    async fn punt(&self, _: Open, mut packets: Stream<PacketOut>) -> Result<Stream<PacketIn>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        // One packet is enough for these tests; the rest of the stream stays open and unread.
        if let Some(Ok(packet)) = packets.next().await {
            let punted = PacketIn {
                reason: PuntReason::Nhrp,
                tunnel: packet.tunnel,
                source: packet.destination,
                destination: packet.destination,
                udp_port: 0,
                bytes: packet.bytes,
                dropped_before: 0,
                spi: None,
            };
            sender.send(punted).await.unwrap();
        }
        self.unread.lock().unwrap().push(packets);
        Ok(from_channel(receiver))
    }

    async fn show(&self, show: Show) -> Result<State, Status> {
        assert_eq!(show.what, What::Fib);
        let entry = |n: u32| FibEntry {
            table: TableId(n % 2),
            prefix: model::Prefix::host(std::net::Ipv4Addr::from(n).into()),
            path: model::program::Path::Blackhole,
            owner: Owner::Config,
            adjacency: n,
        };
        Ok(State::Fib(Fib((0..100_000).map(entry).collect())))
    }

    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        let step = move |packet| TraceStep {
            packet,
            worker: WorkerId(1),
            node: "rx".into(),
            time_us: 7,
            interface: None,
            table: TableId(0),
            destination: request.address,
            adjacency: None,
            offset: 0,
            reason: None,
            len: 60,
            bytes: vec![1, 2],
            lost: 0,
        };
        Ok(Box::pin(futures::stream::iter((1..=request.packets.get()).map(step).map(Ok))))
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        if request.at != Tap::Port("wan".into()) {
            return Err(Status::invalid_argument("at.port"));
        }
        let (sender, receiver) = mpsc::channel(1);
        let captures = Arc::clone(&self.captures);
        captures.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let captured = Captured {
                worker: WorkerId(0),
                time_us: 9,
                interface: None,
                direction: Some(Direction::Out),
                reason: None,
                len: 60,
                bytes: vec![3; usize::from(request.snap.map_or(60, u16::from))],
                lost: 0,
            };
            while sender.send(captured.clone()).await.is_ok() {}
            captures.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(from_channel(receiver))
    }
}

/// A served data plane and the switch that stops it.
async fn dataplane(name: &str) -> (client::Dataplane, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    serving(name, Odd::default()).await
}

async fn serving(
    name: &str,
    odd: Odd,
) -> (client::Dataplane, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let (path, (stop, stopped)) = (path(name), oneshot::channel::<()>());
    let served = path.clone();
    let server = tokio::spawn(async move {
        let stopped = async move { drop(stopped.await) };
        server::serve_dataplane(&served, Access::default(), Arc::new(odd), stopped).await.unwrap();
    });
    served_on(&path).await;
    (client::Dataplane::at(path), stop, server)
}

/// Waits until somebody listens.
async fn served_on(path: &Path) {
    while UnixStream::connect(path).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn hello(epoch: u64) -> Hello {
    Hello { epoch: Epoch(epoch), name: "hub".into() }
}

fn open(epoch: u64) -> Open {
    Open { instance: INSTANCE, epoch: Epoch(epoch) }
}

#[tokio::test]
async fn batches_are_answered_in_order_and_packets_come_back() {
    let (client, stop, server) = dataplane("program").await;
    let greeting = client.hello(hello(1)).await.unwrap();
    assert_eq!((greeting.instance, &*greeting.version), (INSTANCE, "1.2.3"));

    let (batches, receiver) = mpsc::channel(8);
    let mut acks = client.program(open(1), receiver).await.unwrap();
    for number in 1..=5 {
        batches.send(Batch { number, ops: vec![Op::ResyncBegin(Owner::Nhrp)] }).await.unwrap();
    }
    drop(batches);
    let acks = collect(&mut acks).await;
    assert_eq!(acks.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(acks[0].result.is_ok());
    assert_eq!(acks[1].result.as_ref().unwrap_err().to_string(), "ops[7]: no room for more adjacencies");

    let (packets, receiver) = mpsc::channel(8);
    let packet = PacketOut {
        tunnel: "tunnel0".parse().unwrap(),
        destination: "203.0.113.2".parse().unwrap(),
        protocol_type: 0x2001,
        bytes: vec![0, 1, 2, 255],
        port: 0,
    };
    packets.send(packet.clone()).await.unwrap();
    let mut punted = client.punt(open(1), receiver).await.unwrap();
    let back = punted.next().await.unwrap().unwrap();
    assert_eq!((back.tunnel, back.source, back.bytes), (packet.tunnel, packet.destination, packet.bytes));

    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(!client.path().exists(), "a clean stop removes the socket");
}

/// All that comes.
async fn collect<T>(stream: &mut Stream<T, client::Error>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        all.push(item.unwrap());
    }
    all
}

#[tokio::test]
async fn an_older_control_plane_and_a_wrong_instance_are_fenced() {
    let (client, _stop, _server) = dataplane("fence").await;
    client.hello(hello(5)).await.unwrap();
    let (old_batches, receiver) = mpsc::channel(8);
    let mut old_acks = client.program(open(5), receiver).await.unwrap();
    old_batches.send(Batch { number: 1, ops: vec![] }).await.unwrap();
    assert_eq!(old_acks.next().await.unwrap().unwrap().number, 1);

    let refused = client.hello(hello(4)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::FailedPrecondition));
    assert!(refused.is_fenced());
    let refused = client.reports(open(4)).await.err().unwrap();
    assert_eq!(refused.to_string(), "epoch: 4 is older than 5, which was seen");
    let wrong = Open { instance: Instance(1), epoch: Epoch(5) };
    let refused = client.program(wrong, mpsc::channel(1).1).await.err().unwrap();
    assert_eq!(refused.code(), Some(Code::FailedPrecondition));

    // A newer one ends the older one's streams at once, and nothing that the older one sends is done.
    client.hello(hello(6)).await.unwrap();
    let ended = old_acks.next().await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Some(Code::Aborted));
    assert!(old_acks.next().await.is_none());
    let _ = old_batches.send(Batch { number: 2, ops: vec![] }).await;

    // A second stream of one control plane takes over from the first; a stream of another kind is not touched.
    let mut reports = client.reports(open(6)).await.unwrap();
    let (_first, receiver) = mpsc::channel(8);
    let mut first = client.program(open(6), receiver).await.unwrap();
    let (second_batches, receiver) = mpsc::channel(8);
    let mut second = client.program(open(6), receiver).await.unwrap();
    assert_eq!(first.next().await.unwrap().unwrap_err().code(), Some(Code::Aborted));
    second_batches.send(Batch { number: 1, ops: vec![] }).await.unwrap();
    assert_eq!(second.next().await.unwrap().unwrap().number, 1);
    assert!(matches!(reports.next().await, Some(Ok(Report::Glean(_)))));
}

#[tokio::test]
async fn a_table_of_many_messages_arrives_whole_and_filtered() {
    let (client, _stop, _server) = dataplane("show").await;
    let State::Fib(all) = client.show(What::Fib.into()).await.unwrap() else { panic!("not a FIB") };
    assert_eq!(all.0.len(), 100_000);
    assert!(all.0.iter().enumerate().all(|(n, e)| e.adjacency as usize == n));
    let filter = Filter { table: Some(TableId(1)), ..Filter::default() };
    let State::Fib(some) = client.show(Show { what: What::Fib, filter }).await.unwrap() else { panic!() };
    assert_eq!(some.0.len(), 50_000);
    let refused = client.show(What::Dmvpn.into()).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::InvalidArgument));
}

#[tokio::test]
async fn packets_are_observed_until_there_are_enough_or_nobody_listens() {
    let captures = Arc::new(AtomicU64::new(0));
    let (client, _stop, _server) =
        serving("observe", Odd { captures: Arc::clone(&captures), ..Odd::default() }).await;
    let address = Some("10.0.0.1".parse().unwrap());
    let request = TraceRequest { packets: 3.try_into().unwrap(), address };
    let steps = collect(&mut client.trace(request).await.unwrap()).await;
    assert_eq!(steps.iter().map(|step| step.packet).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((steps[0].destination, steps[0].worker), (address, WorkerId(1)));

    let request = |port: &str| CaptureRequest {
        at: Tap::Port(port.into()),
        packets: None,
        snap: Some(16.try_into().unwrap()),
        address: None,
    };
    let refused = client.capture(request("dmz")).await.err().unwrap();
    assert_eq!(refused.code(), Some(Code::InvalidArgument));
    let mut packets = client.capture(request("wan")).await.unwrap();
    let first = packets.next().await.unwrap().unwrap();
    assert_eq!((first.direction, first.bytes.len()), (Some(Direction::Out), 16));
    assert_eq!(captures.load(Ordering::Relaxed), 1);
    drop(packets);
    while captures.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stalled_caller_stalls_nobody_else() {
    let (client, _stop, _server) = dataplane("stall").await;
    client.hello(hello(1)).await.unwrap();
    // Reports come without end and nobody reads them; packets go up and nobody reads those.
    let _unread = client.reports(open(1)).await.unwrap();
    let (packets, receiver) = mpsc::channel(1024);
    for _ in 0..1024 {
        let (tunnel, destination) = ("tunnel0".parse().unwrap(), "203.0.113.2".parse().unwrap());
        let bytes = vec![0; 1400];
        packets.send(PacketOut { tunnel, destination, protocol_type: 0x2001, bytes, port: 0 }).await.unwrap();
    }
    let _stuck = client.punt(open(1), receiver).await.unwrap();
    let (batches, receiver) = mpsc::channel(8);
    let mut acks = client.program(open(1), receiver).await.unwrap();
    for number in 1..=100 {
        batches.send(Batch { number, ops: vec![] }).await.unwrap();
        let ack = tokio::time::timeout(Duration::from_secs(5), acks.next()).await.unwrap();
        assert_eq!(ack.unwrap().unwrap().number, number);
    }
}

#[tokio::test]
async fn a_caller_learns_which_socket_nobody_serves() {
    let absent = client::Dataplane::at("/nonexistent/nave.sock").hello(hello(1)).await.unwrap_err();
    assert!(absent.to_string().starts_with("/nonexistent/nave.sock: No such file"), "{absent}");
    assert_eq!(absent.code(), None);
}

/// A node whose configuration has one field, and which happens to see events without end.
#[derive(Default)]
struct Node {
    cleared: AtomicU64,
}

#[proto::async_trait]
impl server::Management for Node {
    async fn apply(&self, apply: Apply) -> Result<Applied, Status> {
        Ok(match &*apply.text {
            "good" => Ok(vec![]),
            _ => Err(Fault { path: "node.name".into(), problem: "bad".into() }),
        })
    }

    async fn show(&self, _: Show) -> Result<State, Status> {
        Err(Status::unavailable("the data plane is away"))
    }

    async fn watch(&self, interface: Option<InterfaceName>) -> Result<Stream<Event>, Status> {
        let tunnel = interface.ok_or_else(|| Status::invalid_argument("which"))?;
        let event = Event {
            time_us: 1,
            node: "hub".into(),
            what: Happening::ServerDown { tunnel, nhs: "10.0.0.1".parse().unwrap() },
        };
        Ok(Box::pin(futures::stream::repeat_with(move || Ok(event.clone()))))
    }

    async fn clear(&self, clear: Clear) -> Result<u64, Status> {
        let Clear::Nhrp { tunnel: None, address: Some(_) } = clear else {
            return Err(Status::invalid_argument("tunnel"));
        };
        Ok(self.cleared.fetch_add(1, Ordering::Relaxed))
    }

    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        server::Dataplane::trace(&Odd::default(), request).await
    }

    async fn capture(&self, _: CaptureRequest) -> Result<Stream<Captured>, Status> {
        Err(Status::unavailable("the data plane is away"))
    }
}

#[tokio::test]
async fn management_answers_each_call_and_health_and_reflection_are_there() {
    let path = path("management");
    let served = path.clone();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let stopped = async move { drop(stopped.await) };
        server::serve_management(&served, Access::default(), Arc::new(Node::default()), stopped).await
    });
    let client = client::Management::at(&path);
    served_on(&path).await;
    let apply = |text: &str| Apply { text: text.into(), dry_run: false };
    assert_eq!(client.apply(apply("good")).await.unwrap(), Ok(vec![]));
    assert_eq!(client.apply(apply("")).await.unwrap().unwrap_err().to_string(), "node.name: bad");
    let away = client.show(What::Ports.into()).await.unwrap_err();
    assert_eq!((away.code(), &*away.to_string()), (Some(Code::Unavailable), "the data plane is away"));
    let mut events = client.watch(Some("tunnel0".parse().unwrap())).await.unwrap();
    for _ in 0..1000 {
        assert!(matches!(events.next().await, Some(Ok(event)) if event.node == "hub"));
    }
    let clear = |address: &str| Clear::Nhrp { tunnel: None, address: Some(address.parse().unwrap()) };
    assert_eq!(client.clear(clear("10.0.0.2")).await.unwrap(), 0);
    assert_eq!(client.clear(clear("10.0.0.2")).await.unwrap(), 1);

    let request = TraceRequest { packets: 1.try_into().unwrap(), address: None };
    assert_eq!(collect(&mut client.trace(request).await.unwrap()).await.len(), 1);
    let request = CaptureRequest { at: Tap::Node("drop".into()), packets: None, snap: None, address: None };
    assert_eq!(client.capture(request).await.err().unwrap().code(), Some(Code::Unavailable));

    let channel = raw(&path).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let service = "nave.v1.Management".to_owned();
    let status = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap();
    assert_eq!(status.into_inner().status(), tonic_health::ServingStatus::Serving.into());

    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    };
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(raw(&path).await);
    let answers = reflection.server_reflection_info(futures::stream::iter([list])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(names.contains(&"nave.v1.Management".to_owned()), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
}

/// A connection of any other gRPC client.
async fn raw(path: &Path) -> tonic::transport::Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            let stream = UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://any");
    endpoint.connect_with_connector(connector).await.unwrap()
}
