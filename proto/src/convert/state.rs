//! `model::state`.

use model::TableId;
use model::state::adjacency::{Adjacency, AdjacencyKind};
use model::state::counters::{Counter, ErrorCounter, MessageCounter, NodeCounter};
use model::state::dmvpn::{Peer, PeerAttributes, PeerState, Tunnel};
use model::state::explain::{self, Candidate, Explanation, Way};
use model::state::fib::FibEntry;
use model::state::ike::{Child, IkeSa, IkeState, Role};
use model::state::nhrp::{Entry, EntryFlags, EntryType};
use model::state::nhs::{Server, ServerState};
use model::state::ports::{Offload, OffloadKind, OffloadState, Port, Traffic};
use model::state::program::Programmed;
use model::state::routes::RibRoute;
use model::state::sa::Sa;
use model::state::workers::{Idle, Worker};
use model::state::{
    Adjacencies, Cache, Counters, Dmvpn, Drops, Fib, Filter, IkeSas, NhrpTraffic, Ports, Program, Routes,
    Sas, Servers, Show, State, What, Workers,
};

use super::kind::{enumerator, inners, maybe_text};
use super::{Malformed, enumeration, message, needed, up};
use crate::pb;

enumeration!(What => What {
    Dmvpn, Nhrp, Nhs, Routes, Fib, Adjacency, Ports, Workers, Counters, Drops, Program, Explain, NhrpTraffic, Sa,
    Ike,
});
enumeration!(PeerState => PeerState { Up, Interface, Route, Ike, Nhrp });
enumeration!(IkeState => IkeState { Waiting, Connecting, Authenticating, Up, Rekeying, Closing });
enumeration!(Role => IkeRole { Initiator, Responder });
enumeration!(EntryType => EntryType { Incomplete, Negative, Cached, Dynamic, Nhs, Static, Local });
enumeration!(ServerState => ServerState { Waiting, Expecting, Responding });
enumeration!(AdjacencyKind => AdjacencyKind { Neighbour, Midchain, Glean, Incomplete, Receive, Drop, Balanced, Unprotected });
enumeration!(Idle => Idle { Poll, Adaptive });
enumeration!(OffloadKind => OffloadKind { Rss, Ipv4Checksum, EspSteering, InlineCrypto });
enumeration!(OffloadState => OffloadState { Used, Unused, Refused });

message!(PeerAttributes => PeerAttributes {
    statically: same, dynamic: same, incomplete: same, local: same, nated: same, shortcut: same,
});
message!(Peer => Peer {
    entries: same, nbma: maybe_text, protocol: text, state: enumerator, since as since_us: micros,
    attributes: inner, nhs: same, reason: same, expires_in as expires_in_us: maybe_micros, link: maybe_inner,
    prefixes: texts,
});
message!(Tunnel => DmvpnTunnel {
    name: text, hub: same, spoke: same, network_id: same, addresses: texts, source_interface: text,
    source: maybe_text, key: same, mtu: small, fallback: maybe_text, replicas: texts, peers: inners,
});
message!(EntryFlags => EntryFlags {
    authoritative: same, implicit: same, registered: same, unique: same, used: same,
});
message!(Entry => Entry {
    tunnel: text, prefix: text, next_hop: text, entry_type: enumerator, flags: inner, nbma: maybe_text,
    claimed_nbma: maybe_text, created as created_us: micros, expires_in as expires_in_us: maybe_micros, mtu: small,
});
message!(Server => Server {
    tunnel: text, protocol: maybe_text, nbma: maybe_text, name: same, priority: small, cluster: small, state: enumerator,
    since as since_us: micros, requests: same, replies: same, refusals: same, refusal: same,
    next_request as next_request_us: maybe_micros,
});
message!(RibRoute => RibRoute { route: inner, owner: enumerator, best: same, });
message!(FibEntry => FibEntry {
    table: table, prefix: text, path: inner, owner: enumerator, adjacency: same,
});
message!(Adjacency => Adjacency {
    index: same, kind: enumerator, interface: maybe_text, next_hop: maybe_text, nbma: maybe_text, stacked_on: same,
    fallback: same, rewrite: same, expires_in as expires_in_us: maybe_micros, stale: same, packets: same, bytes: same,
    mtu: small, members: same, multicast: same, spis: spis,
});
message!(Traffic => Traffic { packets: same, bytes: same, errors: same, });
message!(Port => Port {
    name: same, driver: same, interface: maybe_text, mac: text, up: same, mtu: small, queues: small, rx: inner,
    tx: inner, offloads: inners,
});
message!(Offload => Offload { kind: enumerator, state: enumerator, });
message!(Worker => Worker {
    id: worker, core: small, idle: enumerator, breaths: same, busy_breaths: same, rx_packets: same,
    tx_packets: same, dropped: same, busy_cycles: same, generation: same, handed_in: same, handed_off: same, aead: same,
});
message!(NodeCounter => NodeCounter { node: same, bursts: same, packets: same, cycles: same, });
message!(MessageCounter => MessageCounter { tunnel: text, message: same, sent: same, received: same, });
message!(ErrorCounter => ErrorCounter { tunnel: text, code: small, name: same, sent: same, received: same, });
message!(Counter => Counter { name: same, sentence: same, count: same, });
message!(Sa => Sa {
    direction: enumerator, spi: spi, protection: inner, mode: enumerator, suite: enumerator, esn: same, worker: worker,
    packets: same, bytes: same, sequence: same, leased: same, replayed: same, bad_icv: same,
    reached: maybe_enumerator, refused: same, age as age_us: maybe_micros, rekey_in as rekey_in_us: maybe_micros,
});
message!(Child => Child {
    inbound: spi, outbound: spi, suite: text, worker: worker, age as age_us: micros, rekey_in as rekey_in_us: maybe_micros,
});
message!(IkeSa => IkeSa {
    protection: inner, identity: maybe_text, proof: same, addresses: texts, role: enumerator, state: enumerator,
    suite: maybe_text, spi_initiator: same, spi_responder: same, age as age_us: micros,
    rekey_in as rekey_in_us: maybe_micros, heard as heard_us: maybe_micros, nat_here: same, nat_there: same, server: same,
    retransmissions: same, failure: same, children: inners,
});
message!(Counters => Counters { nodes: inners, messages: inners, rejects: inners, others: inners, });
message!(NhrpTraffic => NhrpTraffic { messages: inners, errors: inners, rejects: inners, });
message!(Programmed => Programmed { owner: enumerator, object: inner, stale: same, });

message!(Candidate => Candidate {
    prefix: text, owner: enumerator, origin: same, path: maybe_inner, chosen: same, why: same,
});
message!(explain::Peer => PeerGround {
    entry: maybe_inner, nbma: maybe_text, fallback: maybe_text, underlay: maybe_inner, link: maybe_inner, mac: maybe_text,
    path_mtu: maybe_small,
});
message!(Way => Way { hop: inner, mac: maybe_text, peer: maybe_inner, why: same, });
message!(Explanation => Explanation {
    table: table, address: text, routes: inners, hops: inners, fib: inners, adjacencies: inners, away: same,
});

impl From<Show> for pb::ShowRequest {
    fn from(show: Show) -> Self {
        Self {
            what: enumerator::down(show.what),
            interface: maybe_text::down(show.filter.interface),
            address: maybe_text::down(show.filter.address),
            table: show.filter.table.map(|table| table.0),
            owner: show.filter.owner.map(enumerator::down),
        }
    }
}

impl TryFrom<pb::ShowRequest> for Show {
    type Error = Malformed;
    fn try_from(show: pb::ShowRequest) -> Result<Self, Malformed> {
        Ok(Self {
            what: enumerator::up(show.what, "what")?,
            filter: Filter {
                interface: maybe_text::up(show.interface, "interface")?,
                address: maybe_text::up(show.address, "address")?,
                table: show.table.map(TableId),
                owner: show.owner.map(|owner| enumerator::up(owner, "owner")).transpose()?,
            },
        })
    }
}

impl From<State> for pb::State {
    fn from(state: State) -> Self {
        use pb::state::State as Pb;
        let state = match state {
            State::Dmvpn(all) => Pb::Dmvpn(pb::Dmvpn { tunnels: inners::down(all.0) }),
            State::Nhrp(all) => Pb::Nhrp(pb::NhrpCache { entries: inners::down(all.0) }),
            State::Nhs(all) => Pb::Nhs(pb::Servers { servers: inners::down(all.0) }),
            State::Routes(all) => Pb::Routes(pb::Routes { routes: inners::down(all.0) }),
            State::Fib(all) => Pb::Fib(pb::Fib { entries: inners::down(all.0) }),
            State::Adjacency(all) => Pb::Adjacency(pb::Adjacencies { adjacencies: inners::down(all.0) }),
            State::Ports(all) => Pb::Ports(pb::Ports { ports: inners::down(all.0) }),
            State::Workers(all) => Pb::Workers(pb::Workers { workers: inners::down(all.0) }),
            State::Counters(counters) => Pb::Counters(counters.into()),
            State::Drops(all) => Pb::Drops(pb::Drops { drops: inners::down(all.0) }),
            State::Program(all) => Pb::Program(pb::Program { objects: inners::down(all.0) }),
            State::Explanation(explanation) => Pb::Explanation((*explanation).into()),
            State::NhrpTraffic(traffic) => Pb::NhrpTraffic(traffic.into()),
            State::Sa(all) => Pb::Sa(pb::Sas { sas: inners::down(all.0) }),
            State::Ike(all) => Pb::Ike(pb::IkeSas { sas: inners::down(all.0) }),
        };
        Self { state: Some(state) }
    }
}

impl TryFrom<pb::State> for State {
    type Error = Malformed;
    fn try_from(state: pb::State) -> Result<Self, Malformed> {
        use pb::state::State as Pb;
        Ok(match needed(state.state, "state")? {
            Pb::Dmvpn(all) => Self::Dmvpn(Dmvpn(inners::up(all.tunnels, "dmvpn.tunnels")?)),
            Pb::Nhrp(all) => Self::Nhrp(Cache(inners::up(all.entries, "nhrp.entries")?)),
            Pb::Nhs(all) => Self::Nhs(Servers(inners::up(all.servers, "nhs.servers")?)),
            Pb::Routes(all) => Self::Routes(Routes(inners::up(all.routes, "routes.routes")?)),
            Pb::Fib(all) => Self::Fib(Fib(inners::up(all.entries, "fib.entries")?)),
            Pb::Adjacency(all) => {
                Self::Adjacency(Adjacencies(inners::up(all.adjacencies, "adjacency.adjacencies")?))
            }
            Pb::Ports(all) => Self::Ports(Ports(inners::up(all.ports, "ports.ports")?)),
            Pb::Workers(all) => Self::Workers(Workers(inners::up(all.workers, "workers.workers")?)),
            Pb::Counters(counters) => Self::Counters(up(counters, "counters")?),
            Pb::Drops(all) => Self::Drops(Drops(inners::up(all.drops, "drops.drops")?)),
            Pb::Program(all) => Self::Program(Program(inners::up(all.objects, "program.objects")?)),
            Pb::Explanation(explanation) => Self::Explanation(Box::new(up(explanation, "explanation")?)),
            Pb::NhrpTraffic(traffic) => Self::NhrpTraffic(up(traffic, "nhrp_traffic")?),
            Pb::Sa(all) => Self::Sa(Sas(inners::up(all.sas, "sa.sas")?)),
            Pb::Ike(all) => Self::Ike(IkeSas(inners::up(all.sas, "ike.sas")?)),
        })
    }
}
