//! Serving. An implementation says what is so, in the model's types; this room keeps the protocol: conversion, fencing, limits,
//! reflection, health.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::program::{Ack, Batch};
use model::report::{PacketIn, PacketOut, Report};
use model::state::{Event, Show, State};
use model::{Instance, InterfaceName};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::socket::{self, Socket};
use crate::{
    Access, Applied, Apply, Clear, DESCRIPTORS, Greeting, Hello, MESSAGE_LIMIT, Malformed, Open, Stream,
    WINDOW, pb,
};

mod fence;
pub use fence::Turn;
use fence::{Fence, Kind};

/// How long a caller waits for the answer to a call, or for a stream to begin.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection whose other end does not answer for an interval and a time-out is closed.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// The data plane, as its process answers for it. Fencing is done before: see [`Dataplane::program`].
#[tonic::async_trait]
pub trait Dataplane: Send + Sync + 'static {
    /// Its life.
    fn instance(&self) -> Instance;

    /// A control plane introduces itself. Its epoch is not older than any that was seen.
    async fn hello(&self, hello: Hello) -> Result<Greeting, Status>;

    /// Takes batches and answers each with an ack, in order. The stream of batches ends with an error when a newer stream has
    /// taken over; so at any time one such stream delivers. Who carries a batch out asks `turn` once more, where no newer
    /// stream's batch can come between: a batch may have been on its way when its turn ended.
    async fn program(&self, turn: Turn, batches: Stream<Batch>) -> Result<Stream<Ack>, Status>;

    /// Facts from now on; first each port as it is. `open` names this instance and an epoch that is the newest.
    async fn reports(&self, open: Open) -> Result<Stream<Report>, Status>;

    /// Packets both ways.
    async fn punt(&self, open: Open, packets: Stream<PacketOut>) -> Result<Stream<PacketIn>, Status>;

    /// What is programmed and counted; of it what the filter admits ([`State::retain`] applies it afterwards, so an
    /// implementation uses it only to be quicker).
    async fn show(&self, show: Show) -> Result<State, Status>;

    /// Follows packets through the graph, until as many as were asked for have gone their way or the stream is dropped.
    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status>;

    /// Copies packets at a port or node, until as many as were asked for have passed or the stream is dropped.
    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status>;
}

/// The node, as the control plane answers for it.
#[tonic::async_trait]
pub trait Management: Send + Sync + 'static {
    /// Makes a configuration the running one; or says what is wrong with it, and nothing changed.
    async fn apply(&self, apply: Apply) -> Result<Applied, Status>;

    /// What is known, forwarded and counted; as [`Dataplane::show`].
    async fn show(&self, show: Show) -> Result<State, Status>;

    /// Events from now on, of one tunnel or of all. What the watcher is too slow for is replaced by a
    /// [`model::state::event::Happening::Missed`].
    async fn watch(&self, interface: Option<InterfaceName>) -> Result<Stream<Event>, Status>;

    /// Forgets; how many entries.
    async fn clear(&self, clear: Clear) -> Result<u64, Status>;

    /// As [`Dataplane::trace`].
    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status>;

    /// As [`Dataplane::capture`].
    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status>;
}

/// Why serving ended before it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be had.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// What the transport says.
    #[error("{}: {error}", .path.display())]
    Transport {
        /// The socket.
        path: PathBuf,
        /// Its words.
        error: tonic::transport::Error,
    },
    /// The listener cannot be handed to the runtime.
    #[error("{}: {error}", .path.display())]
    Listener {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Messages out of a channel, as a stream; ends when the sender is dropped.
#[must_use]
pub fn from_channel<T: Send + 'static>(receiver: tokio::sync::mpsc::Receiver<T>) -> Stream<T> {
    Box::pin(ReceiverStream::new(receiver).map(Ok))
}

/// The same of a channel that may say why it ends.
#[must_use]
pub fn from_results<T: Send + 'static>(
    receiver: tokio::sync::mpsc::Receiver<Result<T, Status>>,
) -> Stream<T> {
    Box::pin(ReceiverStream::new(receiver))
}

/// Ready when standard input ends: whoever started this process, and holds the other end of that pipe, is gone, however it went. What comes
/// there is read by a thread of its own, and forgotten.
pub async fn stdin_ended() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let read = move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    };
    match std::thread::Builder::new().name("nave-stdin".to_owned()).spawn(read) {
        Ok(_) => drop(end.await),
        Err(_) => std::future::pending().await,
    }
}

/// Serves a data plane on `path` until `stop` is ready.
///
/// # Errors
/// The socket cannot be had; what the transport says.
pub async fn serve_dataplane<T: Dataplane>(
    path: &std::path::Path,
    access: Access,
    dataplane: Arc<T>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let socket = Socket::bind(path, access)?;
    let fence = Fence::new(dataplane.instance());
    let service = pb::dataplane_server::DataplaneServer::new(DataplaneAdapter { dataplane, fence })
        .max_decoding_message_size(MESSAGE_LIMIT);
    let health = healthy("nave.v1.Dataplane").await;
    serve(socket, builder().add_service(service), health, stop).await
}

/// Serves a node's management on `path` until `stop` is ready.
///
/// # Errors
/// The socket cannot be had; what the transport says.
pub async fn serve_management<T: Management>(
    path: &std::path::Path,
    access: Access,
    management: Arc<T>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let socket = Socket::bind(path, access)?;
    let service = pb::management_server::ManagementServer::new(ManagementAdapter(management))
        .max_decoding_message_size(MESSAGE_LIMIT);
    let health = healthy("nave.v1.Management").await;
    serve(socket, builder().add_service(service), health, stop).await
}

fn builder() -> Server {
    Server::builder()
        .timeout(DEADLINE)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(64)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
}

/// What answers to health checks: all is well while it answers.
async fn healthy(
    service: &'static str,
) -> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let (reporter, server) = tonic_health::server::health_reporter();
    for name in ["", service] {
        reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    server
}

async fn serve<H: tonic_health::pb::health_server::Health>(
    mut socket: Socket,
    router: Router,
    health: tonic_health::pb::health_server::HealthServer<H>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let path = socket.path().to_owned();
    let Some(listener) = socket.take() else { return Ok(()) };
    let listener = tokio::net::UnixListener::from_std(listener);
    let listener = listener.map_err(|error| Error::Listener { path: path.clone(), error })?;
    let mut router = router.add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors are made with this program, so they are sound; without them only reflection is missing.
    if let (Ok(v1), Ok(v1alpha)) = (reflection().build_v1(), reflection().build_v1alpha()) {
        router = router.add_service(v1).add_service(v1alpha);
    }
    // Streams do not end by themselves: a stop ends them after a moment of grace.
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stopping.send(());
    };
    let served = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop);
    let served = tokio::select! {
        served = served => served,
        () = async { let _ = stopped.await; tokio::time::sleep(GRACE).await } => Ok(()),
    };
    drop(socket);
    served.map_err(|error| Error::Transport { path, error })
}

/// How long calls may go on after a stop.
const GRACE: Duration = Duration::from_millis(200);

type Reply<T> = Result<Response<T>, Status>;

/// A stream of model types as one of messages.
fn down<M: Into<P> + Send + 'static, P: 'static>(stream: Stream<M>) -> Stream<P> {
    Box::pin(stream.map(|item| item.map(Into::into)))
}

/// What is shown, in parts.
fn parts(mut state: State, show: &Show) -> Stream<pb::State> {
    state.retain(&show.filter);
    Box::pin(futures::stream::iter(state.parts()).map(|part| Ok(part.into())))
}

struct DataplaneAdapter<T> {
    dataplane: Arc<T>,
    fence: Fence,
}

#[tonic::async_trait]
impl<T: Dataplane> pb::dataplane_server::Dataplane for DataplaneAdapter<T> {
    type ProgramStream = Stream<pb::Ack>;
    type ReportsStream = Stream<pb::Report>;
    type PuntStream = Stream<pb::PacketIn>;
    type ShowStream = Stream<pb::State>;
    type TraceStream = Stream<pb::TraceStep>;
    type CaptureStream = Stream<pb::Captured>;

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Reply<pb::HelloReply> {
        let hello = Hello::from(request.into_inner());
        self.fence.greet(hello.epoch)?;
        Ok(Response::new(self.dataplane.hello(hello).await?.into()))
    }

    async fn program(&self, request: Request<tonic::Streaming<pb::ProgramUp>>) -> Reply<Self::ProgramStream> {
        use pb::program_up::Message;
        let mut messages = request.into_inner();
        let open = match first(&mut messages).await?.message {
            Some(Message::Open(open)) => open.into(),
            _ => return Err(not_opened()),
        };
        let turn = self.fence.open(Kind::Program, open)?;
        let batches = messages.map(|message| match message?.message {
            Some(Message::Batch(batch)) => Ok(Batch::try_from(batch).map_err(|e| within(e, "batch"))?),
            _ => Err(Status::invalid_argument("message: not a batch")),
        });
        let acks = self.dataplane.program(turn.clone(), turn.of(batches)).await?;
        Ok(Response::new(down(turn.of(acks))))
    }

    async fn reports(&self, request: Request<pb::Open>) -> Reply<Self::ReportsStream> {
        let open = request.into_inner().into();
        let turn = self.fence.open(Kind::Reports, open)?;
        let reports = self.dataplane.reports(open).await?;
        Ok(Response::new(down(turn.of(reports))))
    }

    async fn punt(&self, request: Request<tonic::Streaming<pb::PuntUp>>) -> Reply<Self::PuntStream> {
        use pb::punt_up::Message;
        let mut messages = request.into_inner();
        let open = match first(&mut messages).await?.message {
            Some(Message::Open(open)) => open.into(),
            _ => return Err(not_opened()),
        };
        let turn = self.fence.open(Kind::Punt, open)?;
        let packets = messages.map(|message| match message?.message {
            Some(Message::Packet(packet)) => {
                Ok(PacketOut::try_from(packet).map_err(|e| within(e, "packet"))?)
            }
            _ => Err(Status::invalid_argument("message: not a packet")),
        });
        let punted = self.dataplane.punt(open, turn.of(packets)).await?;
        Ok(Response::new(down(turn.of(punted))))
    }

    async fn show(&self, request: Request<pb::ShowRequest>) -> Reply<Self::ShowStream> {
        let show = Show::try_from(request.into_inner())?;
        if !show.what.is_of_dataplane() {
            return Err(Status::invalid_argument(
                "what: the data plane does not know it; ask the control plane",
            ));
        }
        Ok(Response::new(parts(self.dataplane.show(show).await?, &show)))
    }

    async fn trace(&self, request: Request<pb::TraceRequest>) -> Reply<Self::TraceStream> {
        let request = request.into_inner().try_into()?;
        Ok(Response::new(down(self.dataplane.trace(request).await?)))
    }

    async fn capture(&self, request: Request<pb::CaptureRequest>) -> Reply<Self::CaptureStream> {
        let request = request.into_inner().try_into()?;
        Ok(Response::new(down(self.dataplane.capture(request).await?)))
    }
}

/// The first message of a stream.
async fn first<T>(messages: &mut tonic::Streaming<T>) -> Result<T, Status> {
    messages.message().await?.ok_or_else(not_opened)
}

fn not_opened() -> Status {
    Status::invalid_argument("message: the first one must be `open`")
}

fn within(mut malformed: Malformed, field: &str) -> Malformed {
    malformed.path = format!("{field}.{}", malformed.path);
    malformed
}

struct ManagementAdapter<T>(Arc<T>);

#[tonic::async_trait]
impl<T: Management> pb::management_server::Management for ManagementAdapter<T> {
    type ShowStream = Stream<pb::State>;
    type WatchStream = Stream<pb::Event>;
    type TraceStream = Stream<pb::TraceStep>;
    type CaptureStream = Stream<pb::Captured>;

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Reply<pb::ApplyReply> {
        let apply = Apply::try_from(request.into_inner())?;
        Ok(Response::new(self.0.apply(apply).await?.into()))
    }

    async fn show(&self, request: Request<pb::ShowRequest>) -> Reply<Self::ShowStream> {
        let show = Show::try_from(request.into_inner())?;
        Ok(Response::new(parts(self.0.show(show).await?, &show)))
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Reply<Self::WatchStream> {
        let interface = crate::convert::watched(request.into_inner())?;
        Ok(Response::new(down(self.0.watch(interface).await?)))
    }

    async fn clear(&self, request: Request<pb::ClearRequest>) -> Reply<pb::ClearReply> {
        let clear = Clear::try_from(request.into_inner())?;
        Ok(Response::new(pb::ClearReply { cleared: self.0.clear(clear).await? }))
    }

    async fn trace(&self, request: Request<pb::TraceRequest>) -> Reply<Self::TraceStream> {
        let request = request.into_inner().try_into()?;
        Ok(Response::new(down(self.0.trace(request).await?)))
    }

    async fn capture(&self, request: Request<pb::CaptureRequest>) -> Reply<Self::CaptureStream> {
        let request = request.into_inner().try_into()?;
        Ok(Response::new(down(self.0.capture(request).await?)))
    }
}
