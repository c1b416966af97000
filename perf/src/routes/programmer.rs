//! The control plane's part: objects, batches, acknowledgements.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use futures::StreamExt as _;
use model::program::{Ack, Batch, Hop, Interface, Key, Neighbour, Object, Op, Owner, Path};
use model::{Epoch, InterfaceName, Mac, Prefix, TableId};
use proto::client::{Dataplane, Error};
use proto::{Greeting, Hello, Open, Stream};
use tokio::sync::mpsc;

use super::PORTS;
use crate::mix::Route;

/// Next hops that the routes lead to.
pub(super) const HOPS: u32 = 16;

/// Ethernet address of the next hop that a word leads to.
pub(super) fn station(word: u32) -> Mac {
    Mac([2, 3, 0, 0, 0, (word % HOPS) as u8])
}

/// What is programmed.
#[derive(Debug)]
pub(super) struct Plan {
    lan: InterfaceName,
    wan: InterfaceName,
}

impl Plan {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { lan: "perf-lan".parse()?, wan: "perf-wan".parse()? })
    }

    /// Two interfaces, the next hops, and a default route.
    pub(super) fn base(&self) -> anyhow::Result<Vec<Op>> {
        let interface = |name, port: &str| {
            let (table, port) = (TableId(0), port.to_owned());
            Object::Interface(Interface {
                name,
                port,
                vlan: None,
                mtu: 1500,
                table,
                forwarding: true,
                netns: None,
            })
        };
        let mut objects = vec![interface(self.lan, PORTS[0]), interface(self.wan, PORTS[1])];
        for word in 0..HOPS {
            objects.push(Object::Neighbour(Neighbour { hop: self.hop(word), mac: station(word) }));
        }
        let own: Prefix = "192.168.0.1/32".parse()?;
        objects.push(route(own, Path::Receive(self.lan)));
        let mut ops: Vec<Op> = objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect();
        ops.push(self.put(&Route { first: 0, len: 0, word: HOPS }));
        Ok(ops)
    }

    pub(super) fn put(&self, of: &Route<u32>) -> Op {
        Op::Put(Owner::Config, route(prefix(of), Path::Via(self.hop(of.word))))
    }

    pub(super) fn remove(&self, of: &Route<u32>) -> Op {
        Op::Remove(Owner::Config, Key::Route(TableId(0), prefix(of)))
    }

    fn hop(&self, word: u32) -> Hop {
        let next_hop = Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 2]) + word % HOPS).into();
        Hop { interface: self.wan, next_hop }
    }
}

fn prefix(of: &Route<u32>) -> Prefix {
    let addr = Ipv4Addr::from_bits(of.first).into();
    Prefix::new(addr, of.len).unwrap_or(Prefix::host(addr))
}

fn route(prefix: Prefix, path: Path) -> Object {
    Object::Route(model::program::Route { table: TableId(0), prefix, path, expires_in: None })
}

/// The stream of batches and that of acknowledgements.
pub(super) struct Programmer {
    greeting: Greeting,
    batches: mpsc::Sender<Batch>,
    acks: Stream<Ack, Error>,
    /// Number of the last batch that was made.
    number: u64,
}

impl Programmer {
    /// Greets a data plane and opens the streams.
    pub(super) async fn connect(socket: PathBuf) -> anyhow::Result<Self> {
        let client = Dataplane::at(socket);
        let hello = Hello { epoch: Epoch(1), name: "nave-perf".to_owned() };
        let greeting = client.hello(hello).await.context("greeting the data plane")?;
        let open = Open { instance: greeting.instance, epoch: Epoch(1) };
        let (batches, receiver) = mpsc::channel(1);
        let acks = client.program(open, receiver).await.context("opening the stream of batches")?;
        Ok(Self { greeting, batches, acks, number: 0 })
    }

    /// Ethernet address of the port that packets are sent to.
    pub(super) fn lan(&self) -> anyhow::Result<Mac> {
        let port = self.greeting.ports.0.iter().find(|port| port.name == PORTS[0]);
        Ok(port.context("the data plane has no port `lan`")?.mac)
    }

    /// The next batch; batches are applied in the order in which they were made.
    pub(super) fn batch(&mut self, ops: Vec<Op>) -> Batch {
        self.number += 1;
        Batch { number: self.number, ops }
    }

    /// Has them applied, with so many on their way at once.
    ///
    /// # Errors
    /// One was refused, or the data plane went away.
    pub(super) async fn apply(&mut self, batches: VecDeque<Batch>, window: usize) -> anyhow::Result<()> {
        let mut waiting = 0;
        for batch in batches {
            if waiting == window {
                self.ack().await?;
                waiting -= 1;
            }
            self.batches.send(batch).await.context("the stream of batches has ended")?;
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
