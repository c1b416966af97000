//! What is programmed: ports, next hops, routes.

use std::net::Ipv4Addr;

use model::program::{Hop, Interface, Key, Neighbour, Object, Op, Owner, Path};
use model::{InterfaceName, Mac, Prefix, TableId};

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
