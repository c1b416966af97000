//! Management: what operators ask, answered. Each request is answered from the conductor's task by a copy, or by the data plane
//! within a deadline; a client that is slow waits for itself alone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use model::observe::{CaptureRequest, Captured, TraceRequest, TraceStep};
use model::state::counters::Counter;
use model::state::event::Happening;
use model::state::{Event, Explanation, Filter, Show, State, What};
use model::{InterfaceName, TableId};
use proto::client::Error;
use proto::server;
use proto::{Applied, Apply, Clear, Status, Stream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

/// How long the data plane may take to show something.
const SHOW: Duration = Duration::from_secs(3);
/// Events that a watcher may be behind.
pub const BEHIND: usize = 4096;
/// Requests that may wait for the conductor.
pub const REQUESTS: usize = 64;

/// What the conductor's task is asked.
#[derive(Debug)]
pub enum Request {
    /// Make this the configuration.
    Apply(Apply, oneshot::Sender<Applied>),
    /// Show what the control plane knows of this.
    Show(What, oneshot::Sender<State>),
    /// Say why packets to this address go where they go in this table; `None`: there is no such table. With the tables that there are.
    Explain(TableId, IpAddr, oneshot::Sender<Result<Explanation, Vec<TableId>>>),
    /// Forget.
    Clear(Clear, oneshot::Sender<u64>),
}

/// Serves the operators.
#[derive(Debug)]
pub struct Management {
    node: String,
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Event>,
    dataplane: proto::client::Dataplane,
}

impl Management {
    /// `node`: name of the node; `dataplane`: socket of the data plane.
    #[must_use]
    pub fn new(
        node: String,
        requests: mpsc::Sender<Request>,
        events: broadcast::Sender<Event>,
        dataplane: PathBuf,
    ) -> Self {
        Self { node, requests, events, dataplane: proto::client::Dataplane::at(dataplane) }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Status> {
        let stopping = |()| Status::unavailable("the control plane is stopping");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopping(()))?;
        answer.await.map_err(|_| stopping(()))
    }

    async fn ask_dataplane(&self, show: Show) -> Result<State, Status> {
        let answer = tokio::time::timeout(SHOW, self.dataplane.show(show)).await;
        match answer {
            Ok(answer) => answer.map_err(away),
            Err(_) => Err(is_away(&format!("no answer within {} s", SHOW.as_secs()))),
        }
    }

    /// What the RIB and NHRP know of an address, and what the data plane has of it, if it is there.
    async fn explain(&self, filter: Filter) -> Result<State, Status> {
        let address = filter.address.ok_or_else(|| Status::invalid_argument("address: missing"))?;
        let table = filter.table.unwrap_or_default();
        let explained = self.ask(|reply| Request::Explain(table, address, reply)).await?;
        let mut explanation = explained.map_err(|tables| {
            let tables: Vec<_> = tables.iter().map(|table| table.0.to_string()).collect();
            let there = tables.join(", ");
            Status::invalid_argument(format!("table: there is no table {}; there are {there}", table.0))
        })?;
        let filter = Filter { address: Some(address), table: Some(table), ..Filter::default() };
        let fib = self.ask_dataplane(Show { what: What::Fib, filter });
        let adjacencies = self.ask_dataplane(What::Adjacency.into());
        match tokio::try_join!(fib, adjacencies) {
            Ok((State::Fib(fib), State::Adjacency(adjacencies))) => {
                explanation.add_dataplane(fib, adjacencies);
            }
            Ok(_) => return Err(Status::internal("the data plane showed something else")),
            Err(status) => explanation.away = Some(status.message().to_owned()),
        }
        Ok(State::Explanation(Box::new(explanation)))
    }

    /// SAs of the data plane with the times of those that IKE made, and those that it is not given.
    async fn sas(&self, show: Show) -> Result<State, Status> {
        let mut refused = self.ask(|reply| Request::Show(What::Sa, reply)).await?;
        match self.ask_dataplane(show).await {
            Ok(mut theirs) => {
                let ike = self.ask(|reply| Request::Show(What::Ike, reply)).await?;
                if let (State::Sa(sas), State::Ike(ike)) = (&mut theirs, ike) {
                    sas.add_times(&ike);
                }
                theirs.join(refused).map_err(|_| Status::internal("the data plane showed something else"))?;
                Ok(theirs)
            }
            Err(status) => {
                refused.retain(&show.filter);
                if matches!(&refused, State::Sa(sas) if sas.0.is_empty()) { Err(status) } else { Ok(refused) }
            }
        }
    }

    /// Counters of both processes. Those of the control plane are shown without the other's as well.
    async fn counters(&self, show: Show) -> Result<State, Status> {
        let mut own = self.ask(|reply| Request::Show(What::Counters, reply)).await?;
        match self.ask_dataplane(show).await {
            Ok(theirs) => {
                own.join(theirs).map_err(|_| Status::internal("the data plane showed something else"))?;
            }
            Err(status) => {
                if let State::Counters(counters) = &mut own {
                    let sentence = format!("no counters of the data plane: {}", status.message());
                    counters.others.push(Counter { name: "data-plane-away".to_owned(), sentence, count: 1 });
                }
            }
        }
        Ok(own)
    }
}

#[proto::async_trait]
impl server::Management for Management {
    async fn apply(&self, apply: Apply) -> Result<Applied, Status> {
        self.ask(|reply| Request::Apply(apply, reply)).await
    }

    async fn show(&self, show: Show) -> Result<State, Status> {
        match show.what {
            What::Counters => self.counters(show).await,
            What::Sa => self.sas(show).await,
            What::Explain => self.explain(show.filter).await,
            what if what.is_of_dataplane() => self.ask_dataplane(show).await,
            what => self.ask(|reply| Request::Show(what, reply)).await,
        }
    }

    async fn watch(&self, interface: Option<InterfaceName>) -> Result<Stream<Event>, Status> {
        let node = self.node.clone();
        let mut last = 0;
        let events = BroadcastStream::new(self.events.subscribe()).map(move |event| match event {
            Ok(event) => {
                last = event.time_us;
                event
            }
            Err(BroadcastStreamRecvError::Lagged(events)) => {
                Event { time_us: last, node: node.clone(), what: Happening::Missed { events } }
            }
        });
        let wanted = events.filter(move |event| {
            let tunnel = event.what.tunnel();
            let is_wanted = interface.is_none() || tunnel.is_none() || tunnel == interface;
            std::future::ready(is_wanted)
        });
        Ok(Box::pin(wanted.map(Ok)))
    }

    async fn clear(&self, clear: Clear) -> Result<u64, Status> {
        self.ask(|reply| Request::Clear(clear, reply)).await
    }

    async fn trace(&self, request: TraceRequest) -> Result<Stream<TraceStep>, Status> {
        Ok(relay(self.dataplane.trace(request).await.map_err(away)?))
    }

    async fn capture(&self, request: CaptureRequest) -> Result<Stream<Captured>, Status> {
        Ok(relay(self.dataplane.capture(request).await.map_err(away)?))
    }
}

/// What the data plane sends, for an operator; who drops it drops the data plane's.
fn relay<T: Send + 'static>(stream: Stream<T, Error>) -> Stream<T> {
    Box::pin(stream.map(|item| item.map_err(away)))
}

/// What the data plane said; or that it says nothing.
fn away(error: Error) -> Status {
    match error {
        Error::Status(status) => status,
        error => is_away(&error.to_string()),
    }
}

fn is_away(reason: &str) -> Status {
    Status::unavailable(format!("the data plane is away: {reason}"))
}
