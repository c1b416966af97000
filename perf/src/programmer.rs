//! A control plane as far as a measurement needs one: batches and their acknowledgements, and what the data plane shows.

use std::collections::VecDeque;
use std::path::PathBuf;

use anyhow::Context as _;
use futures::StreamExt as _;
use model::program::{Ack, Batch, Op};
use model::state::{State, What};
use model::{Epoch, Mac};
use proto::client::{Dataplane, Error};
use proto::{Greeting, Hello, Open, Stream};
use tokio::sync::mpsc;

/// The stream of batches and that of acknowledgements.
pub(crate) struct Programmer {
    client: Dataplane,
    greeting: Greeting,
    /// Until it is closed.
    batches: Option<mpsc::Sender<Batch>>,
    acks: Stream<Ack, Error>,
    /// Number of the last batch that was made.
    number: u64,
}

impl Programmer {
    /// Greets a data plane and opens the streams.
    pub(crate) async fn connect(socket: PathBuf) -> anyhow::Result<Self> {
        let client = Dataplane::at(socket);
        let hello = Hello { epoch: Epoch(1), name: "nave-perf".to_owned() };
        let greeting = client.hello(hello).await.context("greeting the data plane")?;
        let open = Open { instance: greeting.instance, epoch: Epoch(1) };
        let (batches, receiver) = mpsc::channel(1);
        let acks = client.program(open, receiver).await.context("opening the stream of batches")?;
        Ok(Self { client, greeting, batches: Some(batches), acks, number: 0 })
    }

    /// Ethernet address of the port with this name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn mac(&self, name: &str) -> anyhow::Result<Mac> {
        let port = self.greeting.ports.0.iter().find(|port| port.name == name);
        Ok(port.with_context(|| format!("the data plane has no port `{name}`"))?.mac)
    }

    /// What the data plane says of itself.
    ///
    /// # Errors
    /// It went away.
    pub(crate) async fn show(&self, what: What) -> anyhow::Result<State> {
        self.client.show(what.into()).await.with_context(|| format!("asking the data plane for {what:?}"))
    }

    /// The next batch; batches are applied in the order in which they were made.
    pub(crate) fn batch(&mut self, ops: Vec<Op>) -> Batch {
        self.number += 1;
        Batch { number: self.number, ops }
    }

    /// Ends the streams, so that the data plane does not take it for a fault when this goes.
    pub(crate) async fn close(&mut self) {
        self.batches = None;
        while self.acks.next().await.is_some() {}
    }

    /// Has them applied, with so many on their way at once.
    ///
    /// # Errors
    /// One was refused, or the data plane went away.
    pub(crate) async fn apply(&mut self, batches: VecDeque<Batch>, window: usize) -> anyhow::Result<()> {
        let mut waiting = 0;
        for batch in batches {
            if waiting == window {
                self.ack().await?;
                waiting -= 1;
            }
            let batches = self.batches.as_ref().context("the stream of batches is closed")?;
            batches.send(batch).await.context("the stream of batches has ended")?;
            waiting += 1;
        }
        while waiting > 0 {
            self.ack().await?;
            waiting -= 1;
        }
        Ok(())
    }

    async fn ack(&mut self) -> anyhow::Result<()> {
        let ack = self.acks.next().await.context("the stream of acknowledgements has ended")??;
        ack.result.with_context(|| format!("batch {} was refused", ack.number))
    }
}
