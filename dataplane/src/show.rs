//! What the process knows, in the model's words.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use forwarding::{AdjacencyId, DropReason, Flow, Kind, Node, Program};
use model::state::adjacency::{Adjacency, AdjacencyKind};
use model::state::counters::{Counter, NodeCounter};
use model::state::fib::FibEntry;
use model::state::ports::{Offload, OffloadKind, OffloadState, Port, Traffic};
use model::state::workers::{Idle, Worker};
use model::state::{Adjacencies, Counters, Drops, Fib, Filter, Ports, Sas, Show, State, What, Workers};
use model::{NbmaAddr, WorkerId, program, time};

use crate::process::{NamedPort, Process};

impl Process {
    /// What is asked for; `None` if only the control plane knows it.
    pub(crate) fn show(&self, program: &Program, now: time::Instant, show: Show) -> Option<State> {
        Some(match show.what {
            What::Fib => State::Fib(fib(program, now, &show.filter)),
            What::Adjacency => State::Adjacency(adjacencies(program, now)),
            What::Ports => State::Ports(self.ports(program)),
            What::Workers => State::Workers(self.workers(program)),
            What::Counters => State::Counters(self.counters(program)),
            What::Drops => State::Drops(self.drops(program)),
            What::Program => State::Program(model::state::Program(program.programmed(now).collect())),
            What::Sa => State::Sa(Sas(program.sas().collect())),
            What::Dmvpn
            | What::Nhrp
            | What::Nhs
            | What::Routes
            | What::Explain
            | What::NhrpTraffic
            | What::Ike => return None,
        })
    }

    pub(crate) fn ports(&self, program: &Program) -> Ports {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let show = |port: &NamedPort| {
            let stats = port.port.stats().unwrap_or_default();
            // What has no tag goes before the VLANs.
            let on_it = program.interfaces().filter(|shown| shown.interface.port == port.name);
            let interface = on_it.min_by_key(|shown| shown.interface.vlan);
            Port {
                name: port.name.clone(),
                driver: port.port.driver().to_owned(),
                interface: interface.map(|interface| interface.interface.name),
                mac: port.mac,
                up: port.port.link().is_ok_and(|link| link.up),
                mtu: port.mtu,
                queues: port.queues,
                rx: Traffic {
                    packets: stats.rx_packets,
                    bytes: stats.rx_bytes,
                    errors: stats.rx_missed + stats.rx_errors + stats.rx_no_mbuf,
                },
                tx: Traffic { packets: stats.tx_packets, bytes: stats.tx_bytes, errors: stats.tx_errors },
                offloads: offloads(port),
            }
        };
        Ports(ports.iter().map(show).collect())
    }

    pub(crate) fn workers(&self, program: &Program) -> Workers {
        let workers =
            self.workers.iter().zip(program.flows()).enumerate().map(|(index, (worker, flow))| Worker {
                id: WorkerId(u16::try_from(index).unwrap_or(u16::MAX)),
                core: u16::try_from(worker.core).unwrap_or(u16::MAX),
                idle: match worker.idle {
                    crate::args::Idle::Poll => Idle::Poll,
                    crate::args::Idle::Adaptive => Idle::Adaptive,
                },
                breaths: worker.pulse.breaths.load(Ordering::Relaxed),
                busy_breaths: worker.pulse.busy_breaths.load(Ordering::Relaxed),
                rx_packets: flow.received,
                tx_packets: flow.sent,
                dropped: flow.dropped,
                handed_in: flow.handed_in,
                handed_off: flow.handed_off,
                busy_cycles: worker.pulse.busy_cycles.load(Ordering::Relaxed),
                generation: worker.pulse.generation.load(Ordering::Relaxed),
                aead: worker.aead.name().to_owned(),
            });
        Workers(workers.collect())
    }

    fn counters(&self, program: &Program) -> Counters {
        let nodes = Node::ALL.iter().map(|node| {
            let count = program.node(*node);
            NodeCounter {
                node: node.name().to_owned(),
                bursts: count.calls,
                packets: count.packets,
                cycles: count.cycles,
            }
        });
        let mut all = Flow::default();
        for flow in program.flows() {
            all.received += flow.received;
            all.injected += flow.injected;
            all.copied += flow.copied;
            all.split += flow.split;
            all.unparked += flow.unparked;
            all.handed_in += flow.handed_in;
            all.sent += flow.sent;
            all.punted += flow.punted;
            all.dropped += flow.dropped;
            all.parked += flow.parked;
            all.handed_off += flow.handed_off;
            all.merged += flow.merged;
        }
        let flow = [
            ("received", "Packets that workers took from ports.", all.received),
            (
                "injected",
                "Packets that workers took from the kernel twins and the control plane.",
                all.injected,
            ),
            ("copied", "Copies, and packets of the workers' own making.", all.copied),
            ("split", "Further pieces of packets that were cut.", all.split),
            ("unparked", "Packets taken up again after they waited for a next hop.", all.unparked),
            ("handed-in", "Packets that workers took from other workers.", all.handed_in),
            ("sent", "Packets that ports took from workers.", all.sent),
            ("punted", "Packets for the kernel twins and the control plane.", all.punted),
            ("dropped", "Packets dropped, for whatever reason.", all.dropped),
            ("parked", "Packets put aside until a next hop is resolved.", all.parked),
            ("handed-off", "Packets that workers gave to the workers that have their SAs.", all.handed_off),
            ("merged", "Fragments that became part of a whole packet.", all.merged),
        ];
        let host = self.host.all();
        let others = flow.into_iter().chain(host).map(|(name, sentence, count)| Counter {
            name: name.to_owned(),
            sentence: sentence.to_owned(),
            count,
        });
        Counters {
            nodes: nodes.collect(),
            messages: Vec::new(),
            rejects: Vec::new(),
            others: others.collect(),
        }
    }

    fn drops(&self, program: &Program) -> Drops {
        let mut drops: Vec<_> = DropReason::ALL
            .iter()
            .map(|reason| Counter {
                name: reason.name().to_owned(),
                sentence: reason.sentence().to_owned(),
                count: program.dropped(*reason),
            })
            .collect();
        drops.push(Counter {
            name: "segmented".to_owned(),
            sentence: "The packet came in several buffers and did not fit into one.".to_owned(),
            count: self.rings().map(|rings| rings.segmented.load(Ordering::Relaxed)).sum(),
        });
        drops.push(Counter {
            name: "spread-full".to_owned(),
            sentence: "The port has fewer queues than there are workers, and the packet's worker is not fast enough."
                .to_owned(),
            count: self.rings().map(|rings| rings.spread_full.load(Ordering::Relaxed)).sum(),
        });
        Drops(drops)
    }
}

/// What a port's device does, and could do.
fn offloads(port: &NamedPort) -> Vec<Offload> {
    let (offered, used) = (port.port.offloads(), port.port.used());
    let state = |offered, used| match (offered, used) {
        (_, true) => OffloadState::Used,
        (true, false) => OffloadState::Unused,
        (false, false) => OffloadState::Refused,
    };
    let of = |kind| match kind {
        OffloadKind::Rss => state(offered.rss, used.rss),
        OffloadKind::Ipv4Checksum => state(offered.rx_ipv4_checksum, used.rx_ipv4_checksum),
        OffloadKind::EspSteering => port.steering,
        OffloadKind::InlineCrypto => state(offered.inline_ipsec, used.inline_ipsec),
    };
    OffloadKind::ALL.into_iter().map(|kind| Offload { kind, state: of(kind) }).collect()
}

fn fib(program: &Program, now: time::Instant, filter: &Filter) -> Fib {
    // Of a million entries perhaps three are wanted.
    let wanted = |table, prefix: model::Prefix| {
        filter.table.is_none_or(|wanted| wanted == table)
            && filter.address.is_none_or(|address| prefix.contains(address))
    };
    // The FIB knows where an entry leads, the routes know on whose word. An entry without a route is a next hop's own.
    let mut routes: std::collections::HashMap<_, _> = program
        .routes(now)
        .filter(|route| route.best && wanted(route.table, route.prefix))
        .map(|route| ((route.table, route.prefix), (route.owner, route.path)))
        .collect();
    let entries = program.fib().filter(|entry| wanted(entry.table, entry.prefix)).filter_map(|entry| {
        let (owner, path) = match routes.remove(&(entry.table, entry.prefix)) {
            Some(route) => route,
            None => {
                let via = entry.via?;
                (program.next_hop(via, now)?.owner, program::Path::Via(via))
            }
        };
        Some(FibEntry {
            table: entry.table,
            prefix: entry.prefix,
            path,
            owner,
            adjacency: entry.adjacency.word(),
        })
    });
    Fib(entries.collect())
}

fn adjacencies(program: &Program, now: time::Instant) -> Adjacencies {
    let all: Vec<_> = program.adjacencies().collect();
    let by_hop: std::collections::HashMap<_, _> = all
        .iter()
        .filter_map(|shown| {
            let hop = program::Hop { interface: shown.interface?, next_hop: shown.next_hop? };
            Some((hop, shown.id.word()))
        })
        .collect();
    let fallbacks: std::collections::HashMap<_, _> = program
        .tunnel_shows()
        .filter_map(|tunnel| {
            let hop = program::Hop { interface: tunnel.tunnel.name, next_hop: tunnel.fallback?.0 };
            Some((tunnel.tunnel.name, *by_hop.get(&hop)?))
        })
        .collect();
    let adjacencies = all.into_iter().map(|shown| {
        let hop = shown.interface.zip(shown.next_hop);
        let hop = hop.map(|(interface, next_hop)| program::Hop { interface, next_hop });
        let state = hop.and_then(|hop| program.next_hop(hop, now));
        Adjacency {
            index: shown.id.word(),
            kind: match shown.kind {
                Kind::Neighbour => AdjacencyKind::Neighbour,
                Kind::Midchain => AdjacencyKind::Midchain,
                Kind::Glean | Kind::Multicast => AdjacencyKind::Glean,
                Kind::Incomplete => AdjacencyKind::Incomplete,
                Kind::Receive => AdjacencyKind::Receive,
                Kind::Balanced => AdjacencyKind::Balanced,
                Kind::Unprotected => AdjacencyKind::Unprotected,
                _ => AdjacencyKind::Drop,
            },
            interface: shown.interface,
            next_hop: shown.next_hop,
            nbma: shown.nbma.map(NbmaAddr),
            stacked_on: shown.link.and_then(|link| by_hop.get(&link).copied()),
            fallback: match shown.kind {
                Kind::Glean | Kind::Incomplete | Kind::Unprotected => {
                    shown.interface.and_then(|name| fallbacks.get(&name).copied())
                }
                _ => None,
            },
            rewrite: shown.rewrite,
            expires_in: state.and_then(|state| state.expires_in),
            stale: state.is_some_and(|state| state.stale),
            packets: shown.traffic.packets,
            bytes: shown.traffic.bytes,
            mtu: shown.mtu.unwrap_or(0),
            members: shown.members.into_iter().map(AdjacencyId::word).collect(),
            multicast: shown.replica,
            spis: shown.spis,
        }
    });
    Adjacencies(adjacencies.collect())
}
