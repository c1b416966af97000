//! Calling. Every call and every stream has a connection of its own: a Unix socket costs little, and what stalls stalls alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use model::InterfaceName;
use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::program::{Ack, Batch};
use model::report::{PacketIn, PacketOut, Report};
use model::state::{Event, Show, State};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::{Applied, Apply, Clear, Greeting, Hello, MESSAGE_LIMIT, Malformed, Open, Stream, WINDOW, pb};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a call may take, and a stream until it begins.
const DEADLINE: Duration = Duration::from_secs(10);

/// A connection whose other end does not answer for an interval and a time-out is lost.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("{}: {error}", .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody is there, and does not speak gRPC.
    #[error("{}: {error}", .path.display())]
    Transport {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        error: tonic::transport::Error,
    },
    /// It said no, or the connection was lost ([`Code::Unavailable`], [`Code::Unknown`]).
    #[error("{}", .0.message())]
    Status(Status),
    /// It did not answer in time.
    #[error("{}: no answer within {} s", .path.display(), .after.as_secs())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// It said what is no sense.
    #[error("answer: {0}")]
    Malformed(#[from] Malformed),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Error {
    /// What it said no with; `None` if it did not speak.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the data plane is of another life than we think, or a newer control plane speaks to it: begin again with
    /// [`Dataplane::hello`].
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self.code(), Some(Code::FailedPrecondition | Code::Aborted))
    }
}

/// A data plane.
#[derive(Debug, Clone)]
pub struct Dataplane {
    path: PathBuf,
}

impl Dataplane {
    /// The one on this socket; nothing is connected yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Introduces this control plane.
    ///
    /// # Errors
    /// See [`Error`]; fenced if a newer control plane was there.
    pub async fn hello(&self, hello: Hello) -> Result<Greeting, Error> {
        let mut client = self.connect().await?;
        let reply = in_time(&self.path, client.hello(pb::HelloRequest::from(hello))).await?;
        Ok(reply.try_into()?)
    }

    /// Sends batches as they come out of the channel; the acks come in the same order. Dropping the sender ends the stream.
    ///
    /// # Errors
    /// See [`Error`]; each ack may also be the error that ends the stream.
    pub async fn program(
        &self,
        open: Open,
        batches: mpsc::Receiver<Batch>,
    ) -> Result<Stream<Ack, Error>, Error> {
        use pb::program_up::Message;
        let up = |message| pb::ProgramUp { message: Some(message) };
        let first = futures::stream::iter([up(Message::Open(open.into()))]);
        let rest = ReceiverStream::new(batches).map(move |batch| up(Message::Batch(batch.into())));
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.program(first.chain(rest))).await?))
    }

    /// Facts from now on.
    ///
    /// # Errors
    /// As [`Dataplane::program`].
    pub async fn reports(&self, open: Open) -> Result<Stream<Report, Error>, Error> {
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.reports(pb::Open::from(open))).await?))
    }

    /// Packets both ways. Dropping the sender ends the stream.
    ///
    /// # Errors
    /// As [`Dataplane::program`].
    pub async fn punt(
        &self,
        open: Open,
        packets: mpsc::Receiver<PacketOut>,
    ) -> Result<Stream<PacketIn, Error>, Error> {
        use pb::punt_up::Message;
        let up = |message| pb::PuntUp { message: Some(message) };
        let first = futures::stream::iter([up(Message::Open(open.into()))]);
        let rest = ReceiverStream::new(packets).map(move |packet| up(Message::Packet(packet.into())));
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.punt(first.chain(rest))).await?))
    }

    /// What is programmed and counted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn show(&self, show: Show) -> Result<State, Error> {
        let mut client = self.connect().await?;
        let parts = in_time(&self.path, client.show(pb::ShowRequest::from(show))).await?;
        whole(show, parts).await
    }

    /// Follows packets through the graph. Dropping the stream ends it.
    ///
    /// # Errors
    /// See [`Error`]; a step may also be the error that ends the stream.
    pub async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep, Error>, Error> {
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.trace(pb::TraceRequest::from(request))).await?))
    }

    /// Copies packets at a port or node. Dropping the stream ends it.
    ///
    /// # Errors
    /// As [`Dataplane::trace`].
    pub async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured, Error>, Error> {
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.capture(pb::CaptureRequest::from(request))).await?))
    }

    async fn connect(&self) -> Result<pb::dataplane_client::DataplaneClient<Channel>, Error> {
        let client = pb::dataplane_client::DataplaneClient::new(connect(&self.path).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }
}

/// A node's management.
#[derive(Debug, Clone)]
pub struct Management {
    path: PathBuf,
}

impl Management {
    /// The one on this socket; nothing is connected yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Applies a configuration.
    ///
    /// # Errors
    /// See [`Error`]. A fault of the configuration is not an error of the call.
    pub async fn apply(&self, apply: Apply) -> Result<Applied, Error> {
        let mut client = self.connect().await?;
        let reply = in_time(&self.path, client.apply(pb::ApplyRequest::from(apply))).await?;
        Ok(reply.outcome()?)
    }

    /// What is known, forwarded and counted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn show(&self, show: Show) -> Result<State, Error> {
        let mut client = self.connect().await?;
        let parts = in_time(&self.path, client.show(pb::ShowRequest::from(show))).await?;
        whole(show, parts).await
    }

    /// Events from now on, of one tunnel or of all.
    ///
    /// # Errors
    /// See [`Error`]; an event may also be the error that ends the stream.
    pub async fn watch(&self, interface: Option<InterfaceName>) -> Result<Stream<Event, Error>, Error> {
        let mut client = self.connect().await?;
        let request = pb::WatchRequest { interface: interface.map(|i| i.to_string()) };
        Ok(model(in_time(&self.path, client.watch(request)).await?))
    }

    /// Forgets; how many entries.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clear(&self, clear: Clear) -> Result<u64, Error> {
        let mut client = self.connect().await?;
        Ok(in_time(&self.path, client.clear(pb::ClearRequest::from(clear))).await?.cleared)
    }

    /// As [`Dataplane::trace`].
    ///
    /// # Errors
    /// As there; [`Code::Unavailable`] while the data plane is away.
    pub async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep, Error>, Error> {
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.trace(pb::TraceRequest::from(request))).await?))
    }

    /// As [`Dataplane::capture`].
    ///
    /// # Errors
    /// As [`Management::trace`].
    pub async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured, Error>, Error> {
        let mut client = self.connect().await?;
        Ok(model(in_time(&self.path, client.capture(pb::CaptureRequest::from(request))).await?))
    }

    async fn connect(&self) -> Result<pb::management_client::ManagementClient<Channel>, Error> {
        let client = pb::management_client::ManagementClient::new(connect(&self.path).await?);
        Ok(client.max_decoding_message_size(MESSAGE_LIMIT))
    }
}

/// One connection. It is not made again when it is lost: the caller knows what to tell a new one.
async fn connect(path: &Path) -> Result<Channel, Error> {
    let timed_out = |_| Error::TimedOut { path: path.to_owned(), after: CONNECT };
    let stream = tokio::time::timeout(CONNECT, UnixStream::connect(path)).await.map_err(timed_out)?;
    let stream = stream.map_err(|error| Error::Unreachable { path: path.to_owned(), error })?;
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut slot| slot.take());
        std::future::ready(stream.ok_or(io::Error::from(io::ErrorKind::NotConnected)))
    });
    // The name stands in the HTTP/2 authority and means nothing on a Unix socket.
    let endpoint = Endpoint::from_static("http://nave")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true);
    let channel = tokio::time::timeout(CONNECT, endpoint.connect_with_connector(connector)).await;
    let channel = channel.map_err(timed_out)?;
    channel.map_err(|error| Error::Transport { path: path.to_owned(), error })
}

/// The answer, if it comes in time.
async fn in_time<T>(
    path: &Path,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(reply) => Ok(reply?.into_inner()),
        Err(_) => Err(Error::TimedOut { path: path.to_owned(), after: DEADLINE }),
    }
}

/// A stream of messages as one of model types.
fn model<P, M>(messages: tonic::Streaming<P>) -> Stream<M, Error>
where
    P: Send + 'static,
    M: TryFrom<P, Error = Malformed> + 'static,
{
    Box::pin(messages.map(|message| Ok(M::try_from(message?)?)))
}

/// The parts of a state, joined.
async fn whole(show: Show, mut parts: tonic::Streaming<pb::State>) -> Result<State, Error> {
    let mut all = State::empty(show.what);
    while let Some(part) = parts.message().await? {
        let part = State::try_from(part)?;
        all.join(part).map_err(|other| crate::convert::unasked(other.what()))?;
    }
    Ok(all)
}
