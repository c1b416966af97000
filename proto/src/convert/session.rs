//! What opens a session.

use model::{Epoch, Instance};

use super::Malformed;
use super::kind::inners;
use crate::{Greeting, Hello, Open, pb};

impl From<Hello> for pb::HelloRequest {
    fn from(hello: Hello) -> Self {
        Self { epoch: hello.epoch.0, name: hello.name }
    }
}

impl From<pb::HelloRequest> for Hello {
    fn from(hello: pb::HelloRequest) -> Self {
        Self { epoch: Epoch(hello.epoch), name: hello.name }
    }
}

impl From<Greeting> for pb::HelloReply {
    fn from(greeting: Greeting) -> Self {
        Self {
            instance: greeting.instance.0,
            version: greeting.version,
            workers: inners::down(greeting.workers.0),
            ports: inners::down(greeting.ports.0),
            sa_slots: greeting.sa_slots,
        }
    }
}

impl TryFrom<pb::HelloReply> for Greeting {
    type Error = Malformed;
    fn try_from(greeting: pb::HelloReply) -> Result<Self, Malformed> {
        Ok(Self {
            instance: Instance(greeting.instance),
            version: greeting.version,
            workers: model::state::Workers(inners::up(greeting.workers, "workers")?),
            ports: model::state::Ports(inners::up(greeting.ports, "ports")?),
            sa_slots: greeting.sa_slots,
        })
    }
}

impl From<Open> for pb::Open {
    fn from(open: Open) -> Self {
        Self { instance: open.instance.0, epoch: open.epoch.0 }
    }
}

impl From<pb::Open> for Open {
    fn from(open: pb::Open) -> Self {
        Self { instance: Instance(open.instance), epoch: Epoch(open.epoch) }
    }
}
