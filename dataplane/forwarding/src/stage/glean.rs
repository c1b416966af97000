//! `glean`: next hops that are not resolved.
//!
//! 1. Who is to be resolved: the destination, if the prefix is attached; the adjacency's next hop; of a midchain whose link
//!    is not resolved the link's.
//! 2. Report it, once a second; what is a destination, and not a hop that the program names, within a limit of its own.
//! 3. On a port: park, likewise. No room: drop `park-full`; not resolved within a second: drop `unresolved`.
//! 4. On a tunnel: on to the tunnel's NHS by `midchain` (to its link's parking, if that is not resolved), and nowhere else.
//!    On a protected tunnel a hop to which there is no SA goes the same way, and is reported: packets want the SA. No NHS, the NHS itself is not resolved, or the packet came from it by this tunnel (two servers of each other's would
//!    play it back and forth until its time ends): `icmp-error`, host unreachable. There is no SA to the hop, or the NHS: the same, for the
//!    reason `no-outbound-sa`.

use std::net::IpAddr;

use wire::buf::PacketBuf;

use crate::DropReason;
use crate::adjacency::Kind;
use crate::burst::End;
use crate::graph::Node;
use crate::packet::{destination, folded, outer_source};
use crate::parking::Wait;
use crate::ports::{InterfaceId, Notice, Ports};
use crate::tables::{Role, Tables};
use crate::walk::Walk;

const ME: u8 = Node::Glean as u8;

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::Glean);
    walk.enter(frame);
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let meta = walk.meta[usize::from(slot)];
        let entry = tables.adjacencies.slot(meta.adjacency);
        let glean = entry.kind == Kind::Glean;
        let bytes = walk.bufs[usize::from(slot)].bytes();
        let next_hop = if glean { destination(&meta, bytes) } else { entry.next_hop() };
        let interface = entry.interface;
        match tables.interface(interface).map(|interface| &interface.role) {
            Some(Role::Port(_)) => park(walk, ports, slot, (interface, next_hop), glean),
            Some(Role::Tunnel(tunnel)) => {
                let server = tunnel.fallback.and_then(|id| Some((id, tables.adjacencies.at(id)?)));
                let from_server = meta.interface == interface
                    && server.is_some_and(|(_, server)| {
                        server.kind == Kind::Midchain && outer_source(&meta, bytes) == Some(server.nbma())
                    });
                let unprotected = entry.kind == Kind::Unprotected;
                if !tunnel.point_to_point {
                    report(walk, ports, (interface, next_hop), glean);
                }
                let reason = if unprotected || server.is_some_and(|(_, s)| s.kind == Kind::Unprotected) {
                    DropReason::NoOutboundSa
                } else {
                    DropReason::HostUnreachable
                };
                match server {
                    _ if from_server => unreachable(walk, slot, reason),
                    Some((id, server)) if server.kind == Kind::Midchain => {
                        walk.meta[usize::from(slot)].adjacency = id;
                        walk.frames.hand::<ME, { Node::Midchain as u8 }>(slot);
                    }
                    // Its link is a port's: the server itself is resolved.
                    Some((id, server)) if tables.port(server.interface).is_some() => {
                        let meta = &mut walk.meta[usize::from(slot)];
                        meta.adjacency = id;
                        meta.given = true;
                        park(walk, ports, slot, (server.interface, server.next_hop()), false);
                    }
                    _ => unreachable(walk, slot, reason),
                }
            }
            None => walk.drop(slot, DropReason::StaleIndex),
        }
    }
}

fn unreachable<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, reason: DropReason) {
    walk.frames.refuse::<ME>(&mut walk.meta[usize::from(slot)], slot, reason);
}

fn park<P: Ports>(walk: &mut Walk<P::Buf>, ports: &mut P, slot: u8, hop: (u16, IpAddr), glean: bool) {
    report(walk, ports, hop, glean);
    let (interface, next_hop) = hop;
    let at = usize::from(slot);
    let meta = &mut walk.meta[at];
    let wait = Wait { interface, next_hop, adjacency: meta.adjacency, given: meta.given, glean };
    let asks = (meta.table, destination(meta, walk.bufs[at].bytes()));
    match walk.parking.reserve(walk.now, wait, asks) {
        Some(queue) => {
            meta.end = End::Park;
            meta.target = queue;
        }
        None => walk.drop(slot, DropReason::ParkFull),
    }
}

fn report<P: Ports>(
    walk: &mut Walk<P::Buf>,
    ports: &mut P,
    (interface, next_hop): (u16, IpAddr),
    glean: bool,
) {
    let limit = if glean { &mut walk.gleans } else { &mut walk.hops };
    if limit.pass(walk.now, u64::from(interface) << 32 ^ folded(next_hop)) {
        // A full queue loses the report; it is made again in a second if packets still come.
        ports.notice(Notice::Glean { interface: InterfaceId(interface), next_hop });
    }
}
