//! Workers that do what they are told of SAs and take new tables, and nothing else.

mod entries;
mod orders;
mod random;

use std::collections::HashMap;
use std::sync::Arc;

use model::WorkerId;
use model::program::{
    Batch, Binding, Fallback, Hop, InboundSa, Interface, Key, Neighbour, Object, Op, OutboundSa, OuterDf,
    Owner, Refusal, Refused, Replica, TcpMss, Tunnel, TunnelMode,
};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::time::Instant;
use model::{InterfaceName, Mac, NbmaAddr, ProtocolAddr, TableId};

use super::super::{Port, Program};
use crate::adjacency::{Adjacency, Kind, flag};
use crate::publish::Reader;
use crate::sa::{Change, Lines, NewInbound, NewOutbound, Orders, UNPROTECTED};
use crate::tables::Tables;

struct Listener {
    tables: Reader<Tables>,
    orders: Orders,
    lines: Arc<Lines>,
    inbound: HashMap<u32, NewInbound>,
    outbound: HashMap<u32, NewOutbound>,
    elsewhere: HashMap<u32, u16>,
    /// The next sequence number of each outbound SA.
    next: HashMap<u32, u64>,
    /// What it was told, in a word or two.
    told: Vec<String>,
}

impl Listener {
    fn breathe(&mut self) {
        self.tables.refresh();
        while let Some(mut order) = self.orders.next() {
            let slot = order.slot;
            let told = match &mut order.change {
                Change::Inbound(new) => {
                    let told = new.as_ref().as_ref().map_or("none".into(), |sa| format!("{:#x}", sa.spi));
                    swap(&mut self.inbound, slot, new);
                    format!("in {told}")
                }
                Change::InboundPeer { spi, domain, remote, port, lifetimes } => {
                    let sa = self.inbound.get_mut(&slot).filter(|sa| sa.spi == *spi).unwrap();
                    (sa.domain, sa.remote, sa.port, sa.lifetimes) = (*domain, *remote, *port, *lifetimes);
                    format!("in {spi:#x} peer")
                }
                Change::Outbound(new) => {
                    let told = new.as_ref().as_ref().map_or("none".into(), |sa| {
                        format!("{:#x} {}-{}", sa.spi, sa.lease.first, sa.lease.last)
                    });
                    if let Some(sa) = new.as_ref() {
                        self.next.insert(slot, sa.lease.first);
                    }
                    swap(&mut self.outbound, slot, new);
                    format!("out {told}")
                }
                Change::Elsewhere(Some(worker)) => {
                    self.elsewhere.insert(slot, *worker);
                    format!("elsewhere {worker}")
                }
                Change::Elsewhere(None) => {
                    self.elsewhere.remove(&slot);
                    "elsewhere none".into()
                }
                Change::Lease { spi, last, .. } => {
                    let sa = self.outbound.get_mut(&slot).filter(|sa| sa.spi == *spi).unwrap();
                    assert!(*last >= sa.lease.last);
                    sa.lease.last = *last;
                    format!("lease {spi:#x} {last}")
                }
            };
            self.told.push(told);
            self.orders.done(order);
        }
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }
}

fn swap<T>(all: &mut HashMap<u32, T>, slot: u32, new: &mut Option<T>) {
    let old = all.remove(&slot);
    if let Some(new) = std::mem::replace(new, old) {
        all.insert(slot, new);
    }
}

/// A hub with `wan` (192.0.2.1, 2001:db8::1) and a tunnel `tun`, protected by `one`.
struct Hub {
    program: Program,
    workers: Vec<Listener>,
}

impl Hub {
    fn new(workers: usize) -> Self {
        let port = Port { name: "p0".into(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1500 };
        let mut program = Program::new(vec![port]).unwrap();
        let workers = (0..workers).map(|_| {
            let (_, orders, lines) = program.add_worker().unwrap();
            Listener {
                tables: program.publisher.reader(),
                orders,
                lines,
                inbound: HashMap::new(),
                outbound: HashMap::new(),
                elsewhere: HashMap::new(),
                next: HashMap::new(),
                told: Vec::new(),
            }
        });
        let workers = workers.collect();
        let mut hub = Self { program, workers };
        hub.put([interface(None), Object::Tunnel(tunnel("tun", Some(42), Some("one")))]);
        hub
    }

    fn apply(&mut self, ops: Vec<Op>) -> Result<(), Refused> {
        self.program.apply(Instant::default(), &Batch { number: 1, ops })
    }

    fn put(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.apply(objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect()).unwrap();
    }

    fn remove(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.apply(keys.into_iter().map(|key| Op::Remove(Owner::Config, key)).collect()).unwrap();
    }

    fn refused(&mut self, object: Object) -> Refusal {
        self.apply(vec![Op::Put(Owner::Config, object)]).unwrap_err().reason
    }

    /// Until nothing is left to tell.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.workers.iter_mut().for_each(Listener::breathe);
            self.program.pump();
        }
        assert!(self.program.are_orders_taken());
    }

    fn told(&mut self) -> Vec<Vec<String>> {
        self.settle();
        self.workers.iter_mut().map(Listener::told).collect()
    }

    /// The entry of a next hop of a tunnel, as the first worker has it.
    fn entry(&self, tunnel: &str, next_hop: &str) -> Adjacency {
        let hop = Some(next_hop.parse().unwrap());
        let is_it = |a: &super::super::AdjacencyShow| a.next_hop == hop && a.interface == Some(name(tunnel));
        let id = self.program.adjacencies().find(is_it).unwrap().id;
        *self.workers[0].tables.adjacencies.at(id).unwrap()
    }
}

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn interface(vlan: Option<u16>) -> Object {
    Object::Interface(Interface {
        name: name("wan"),
        port: "p0".into(),
        vlan: vlan.map(|vlan| vlan.try_into().unwrap()),
        mtu: 1500,
        table: TableId(0),
        forwarding: false,
        netns: None,
    })
}

fn tunnel(tunnel: &str, key: Option<u32>, protection: Option<&str>) -> Tunnel {
    Tunnel {
        name: name(tunnel),
        mode: TunnelMode::Multipoint,
        source: nbma("192.0.2.1"),
        source_interface: name("wan"),
        key,
        mtu: 1400,
        ttl: 64,
        network_id: 1,
        redirect: false,
        table: TableId(0),
        underlay_table: TableId(0),
        outer_df: OuterDf::default(),
        tcp_mss: TcpMss::default(),
        protection: protection.map(|profile| profile.parse().unwrap()),
        netns: None,
    }
}

fn nbma(text: &str) -> NbmaAddr {
    text.parse().unwrap()
}

fn wan(next_hop: &str) -> Hop {
    Hop { interface: name("wan"), next_hop: next_hop.parse().unwrap() }
}

fn neighbour(addr: &str) -> Object {
    Object::Neighbour(Neighbour { hop: wan(addr), mac: Mac([2, 0, 0, 0, 0, 9]) })
}

fn binding(tunnel: &str, next_hop: &str, to: &str, port: u16) -> Object {
    Object::Binding(Binding {
        tunnel: name(tunnel),
        next_hop: ProtocolAddr(next_hop.parse().unwrap()),
        nbma: nbma(to),
        port,
        link: Some(wan(to)),
        expires_in: None,
    })
}

fn replica(tunnel: &str, to: &str, port: u16) -> Object {
    Object::Replica(Replica { tunnel: name(tunnel), nbma: nbma(to), port, link: Some(wan(to)) })
}

fn fallback(tunnel: &str, next_hop: &str) -> Object {
    Object::Fallback(Fallback { tunnel: name(tunnel), next_hop: ProtocolAddr(next_hop.parse().unwrap()) })
}

fn peer(profile: &str, remote: &str, port: u16) -> Protection {
    let local = if remote.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
    Protection {
        profile: profile.parse().unwrap(),
        table: TableId(0),
        local: nbma(local),
        remote: nbma(remote),
        port,
    }
}

fn key(number: u8) -> SaKey {
    SaKey::new(&[number; 20]).unwrap()
}

fn inbound_sa(spi: u32, protection: Protection, number: u8) -> InboundSa {
    InboundSa {
        spi: Spi::new(spi).unwrap(),
        protection,
        mode: SaMode::Transport,
        key: key(number),
        esn: false,
        window: 1000,
        lifetimes: Lifetimes::default(),
    }
}

fn outbound_sa(worker: u16, spi: u32, protection: Protection, number: u8, lease: (u64, u64)) -> OutboundSa {
    OutboundSa {
        protection,
        worker: WorkerId(worker),
        spi: Spi::new(spi).unwrap(),
        mode: SaMode::Transport,
        key: key(number),
        esn: false,
        lease: Lease { first: lease.0, last: lease.1 },
        lifetimes: Lifetimes::default(),
    }
}

#[test]
fn a_peer_of_a_protected_tunnel_is_sealed_for_or_not_reached() {
    let mut hub = Hub::new(1);
    let protection = peer("one", "192.0.2.9", 0);
    hub.put([neighbour("192.0.2.9"), binding("tun", "10.0.0.9", "192.0.2.9", 0)]);
    hub.settle();
    let entry = hub.entry("tun", "10.0.0.9");
    assert_eq!((entry.kind, entry.form, entry.protection), (Kind::Unprotected, 0, UNPROTECTED));
    assert_eq!(entry.next_hop(), "10.0.0.9".parse::<std::net::IpAddr>().unwrap());
    let (inbound, outbound) =
        (inbound_sa(0x0100_0007, protection, 1), outbound_sa(0, 0x1234, protection, 2, (5, 1000)));
    hub.put([Object::InboundSa(inbound.clone()), Object::OutboundSa(outbound.clone())]);
    assert_eq!(hub.told(), [["in 0x1000007", "out 0x1234 5-1000"]]);
    assert_eq!(hub.workers[0].inbound[&7].window, 1024, "whole words of it");
    let entry = hub.entry("tun", "10.0.0.9");
    assert_eq!((entry.kind, entry.flags & !flag::DF_COPY, entry.protection), (Kind::Midchain, flag::ESP, 0));
    let peer = (1, "192.0.2.9".parse().unwrap(), 0);
    assert_eq!(hub.workers[0].tables.protections.get(&peer), Some(0));
    // Ethernet, IPv4 with protocol 50, GRE with a key.
    assert_eq!((entry.form, entry.rewrite[14], entry.rewrite[14 + 9]), (42, 0x45, 50));
    assert_eq!(entry.rewrite[34..42], [0x20, 0, 8, 0, 0, 0, 0, 42]);

    hub.remove([Key::OutboundSa(protection, WorkerId(0))]);
    hub.workers[0].breathe();
    assert_eq!(hub.entry("tun", "10.0.0.9").kind, Kind::Unprotected);
    assert!(hub.workers[0].told().is_empty(), "the SA is there as long as packets may take to it");
    assert_eq!(hub.told(), [["out none"]]);
}
