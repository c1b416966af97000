//! `inject`: what enters from above, or again.
//!
//! 1. What the last breath left for this one: to `ip-lookup`, to the adjacency that it was given, or to `replicate`.
//! 2. From the twin of a port: out of that port as it is. GRE, ESP and ESP in UDP are for tunnels alone: drop
//!    `inject-forbidden`.
//! 3. From the twin of a tunnel: multicast and broadcast to `replicate`, unicast to `ip-lookup`. The time to live stays as
//!    the kernel set it. What is not IPv4: drop `inject-family`.
//! 4. From the control plane: outer IPv4 and GRE header in front, of network control (CS6). To an NBMA address that a
//!    binding or a replica of the tunnel has: by the link of that to `rewrite`, or to `glean` if the link is not resolved.
//!    Whatever routes the tunnel has brought, they do not take it along. To others by `ip-lookup` in the underlay's table, and
//!    never into a tunnel.
//! 5. The interface is gone: drop `stale-index`.

use std::net::Ipv4Addr;

use wire::buf::PacketBuf;
use wire::{ethernet, gre, ipv4, udp};
use zerocopy::IntoBytes;

use super::check_ip;
use crate::DropReason;
use crate::adjacency::{AdjacencyId, Kind, permit};
use crate::burst::Meta;
use crate::graph::Node;
use crate::ports::{Injected, Origin, Ports};
use crate::tables::{Role, Tables};
use crate::walk::{Entry, INJECTED, RESUMED, Walk};

const ME: u8 = Node::Inject as u8;

/// UDP port of NAT traversal (RFC 3948).
const NAT_TRAVERSAL: u16 = 4500;
/// Ethertypes of VLAN tags (IEEE 802.1Q, 802.1ad), and the one that was used for outer ones before.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let mut packets = 0;
    for _ in 0..RESUMED {
        let Some(carried) = walk.carried.pop_front() else { break };
        packets += 1;
        walk.flow.unparked += 1;
        let entry = carried.entry;
        match walk.seat(carried.buf, carried.meta, carried.trace) {
            Ok(slot) => resume(walk, tables, slot, entry),
            Err(_) => unreachable!("a walk begins with more slots than it resumes packets"),
        }
    }
    let mut injected = std::mem::take(&mut walk.injected);
    ports.injected(&mut injected, INJECTED);
    for Injected { origin, buf } in injected.drain(..) {
        packets += 1;
        walk.flow.injected += 1;
        match walk.seat(buf, Meta::NEW, 0) {
            Ok(slot) => {
                walk.trace.adopt(slot);
                walk.note(Node::Inject, slot);
                enter(walk, tables, slot, origin);
            }
            Err(_) => unreachable!("a walk begins with more slots than packets are injected"),
        }
    }
    walk.injected = injected;
    if packets > 0 {
        walk.counters.count_node(Node::Inject, packets);
        walk.end_lap(Some(Node::Inject));
    }
}

fn resume<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8, entry: Entry) {
    walk.note(Node::Inject, slot);
    let meta = &mut walk.meta[usize::from(slot)];
    match entry {
        Entry::Lookup => walk.frames.hand::<ME, { Node::IpLookup as u8 }>(slot),
        Entry::Replicate => {
            walk.replicating -= 1;
            walk.frames.hand::<ME, { Node::Replicate as u8 }>(slot);
        }
        Entry::Adjacency => match tables.adjacencies.at(meta.adjacency).map(|entry| entry.kind) {
            Some(Kind::Midchain) => walk.frames.hand::<ME, { Node::Midchain as u8 }>(slot),
            Some(Kind::Neighbour) => walk.frames.hand::<ME, { Node::Rewrite as u8 }>(slot),
            Some(Kind::Incomplete) => walk.frames.hand::<ME, { Node::Glean as u8 }>(slot),
            _ => walk.drop(slot, DropReason::StaleIndex),
        },
    }
}

fn enter<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8, origin: Origin) {
    let id = match origin {
        Origin::Twin(id) | Origin::Control { tunnel: id, .. } => id,
    };
    walk.meta[usize::from(slot)].interface = id.0;
    match (origin, tables.interface(id.0).map(|interface| &interface.role)) {
        (Origin::Twin(_), Some(Role::Port(port))) => {
            if is_for_tunnels(walk.bufs[usize::from(slot)].bytes()) {
                walk.drop(slot, DropReason::InjectForbidden);
            } else {
                walk.send(slot, port.port.0);
            }
        }
        (Origin::Twin(_), Some(Role::Tunnel(_))) => from_tunnel_twin(walk, slot),
        (Origin::Control { destination, protocol_type, .. }, Some(Role::Tunnel(tunnel))) => {
            let gre = (protocol_type, tunnel.key);
            let link = tables.nbmas.get(&(id, destination.to_bits())).copied();
            let link = link.and_then(|link| Some((link, tables.adjacencies.at(link)?.kind)));
            from_control(walk, slot, (tunnel.source, destination), tunnel.ttl, gre, link);
        }
        _ => walk.drop(slot, DropReason::StaleIndex),
    }
}

/// Whether a frame holds what only tunnels may send, behind whatever it stands.
fn is_for_tunnels(frame: &[u8]) -> bool {
    let Ok((link, mut payload)) = ethernet::parse(frame) else { return false };
    let mut ethertype = link.ethertype();
    while VLAN_TAGS.contains(&ethertype) {
        let Some(([_, _, high, low], rest)) = payload.split_first_chunk() else { return false };
        (ethertype, payload) = (u16::from_be_bytes([*high, *low]), rest);
    }
    match ethertype {
        ethernet::IPV4 => is_for_tunnels_v4(payload),
        ethernet::IPV6 => is_for_tunnels_v6(payload),
        _ => false,
    }
}

fn is_for_tunnels_v4(packet: &[u8]) -> bool {
    let Ok((ip, payload)) = ipv4::parse(packet) else {
        // No station takes it; what it would be is plain all the same.
        return matches!(packet.get(9), Some(&(ipv4::GRE | ipv4::ESP)));
    };
    match (ip.protocol, ip.flags_offset() & ipv4::OFFSET_MASK) {
        (ipv4::GRE | ipv4::ESP, _) => true,
        (ipv4::UDP, 0) => is_esp_in_udp(payload),
        // Would lie over the place of the SPI.
        (ipv4::UDP, 1) => true,
        _ => false,
    }
}

/// Over the extension headers (RFC 8200 §4.1). What is cut short in them, or has more of them than there are kinds, is no
/// packet that a kernel sends.
fn is_for_tunnels_v6(packet: &[u8]) -> bool {
    const HEADER: usize = 40;
    let (Some(&first), Some(rest)) = (packet.get(6), packet.get(HEADER..)) else { return false };
    let (mut next, mut rest) = (first, rest);
    for _ in 0..8 {
        match next {
            ipv4::GRE | ipv4::ESP => return true,
            ipv4::UDP => return is_esp_in_udp(rest),
            // Hop-by-hop, routing, destination options, mobility: a length in units of eight bytes, less one. A fragment's
            // header has eight bytes, and its second is zero.
            0 | 43 | 60 | 135 | 44 => {
                let Some(&[kind, len, high, low]) = rest.first_chunk() else { return true };
                // A later fragment has no headers of its own.
                if next == 44 && u16::from_be_bytes([high, low]) >> 3 != 0 {
                    return matches!(kind, ipv4::GRE | ipv4::ESP);
                }
                let Some(behind) = rest.get(usize::from(len) * 8 + 8..) else { return true };
                (next, rest) = (kind, behind);
            }
            _ => return false,
        }
    }
    true
}

/// ESP in UDP (RFC 3948 §2.1) as against IKE, whose four zero bytes are no SPI (§2.2), and the keep-alive of one byte (§2.3).
/// Of a first fragment the rest need not be there; one that ends before the SPI is nobody's.
fn is_esp_in_udp(datagram: &[u8]) -> bool {
    let Some(&[a, b, c, d, high, low, _, _]) = datagram.first_chunk() else { return !datagram.is_empty() };
    if u16::from_be_bytes([a, b]) != NAT_TRAVERSAL && u16::from_be_bytes([c, d]) != NAT_TRAVERSAL {
        return false;
    }
    match datagram.get(udp::LEN..).and_then(|payload| payload.first_chunk::<4>()) {
        Some(spi) => *spi != [0; 4],
        None => usize::from(u16::from_be_bytes([high, low])) != datagram.len(),
    }
}

fn from_tunnel_twin<B: PacketBuf>(walk: &mut Walk<B>, slot: u8) {
    let at = usize::from(slot);
    let bytes = walk.bufs[at].bytes();
    if bytes.first().is_none_or(|version| version >> 4 != 4) {
        return walk.drop(slot, DropReason::InjectFamily);
    }
    let ip = match check_ip(bytes) {
        Ok(ip) => ip,
        Err(reason) => return walk.drop(slot, reason),
    };
    let meta = &mut walk.meta[at];
    meta.destination = ip.destination;
    meta.permits = permit::TRANSIT | permit::TUNNEL;
    let to = Ipv4Addr::from(ip.destination);
    if to.is_multicast() || to.is_broadcast() {
        walk.frames.hand::<ME, { Node::Replicate as u8 }>(slot);
    } else {
        walk.frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
    }
}

fn from_control<B: PacketBuf>(
    walk: &mut Walk<B>,
    slot: u8,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    (protocol_type, key): (u16, Option<u32>),
    link: Option<(AdjacencyId, Kind)>,
) {
    let at = usize::from(slot);
    walk.ip_id = walk.ip_id.wrapping_add(1);
    let gre_len = gre::len(key);
    let payload = gre_len + walk.bufs[at].len();
    let Some(ip) = ipv4::Header::new(source, destination, ipv4::GRE, ttl, payload) else {
        return walk.drop(slot, DropReason::TooBig);
    };
    let ip = ip.with_tos(ipv4::CS6).with_id(walk.ip_id);
    let Some(out) = walk.bufs[at].prepend(ipv4::LEN + gre_len) else {
        return walk.drop(slot, DropReason::NoHeadroom);
    };
    let (outer, rest) = out.split_at_mut(ipv4::LEN);
    outer.copy_from_slice(ip.as_bytes());
    let written = gre::write(rest, protocol_type, key);
    debug_assert_eq!(written, Some(gre_len));
    let meta = &mut walk.meta[at];
    meta.destination = destination.to_bits();
    meta.permits = permit::TRANSIT | permit::CLOSED_PORT;
    let Some((link, kind @ (Kind::Neighbour | Kind::Incomplete))) = link else {
        return walk.frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
    };
    meta.adjacency = link;
    meta.given = true;
    if kind == Kind::Neighbour {
        walk.frames.hand::<ME, { Node::Rewrite as u8 }>(slot);
    } else {
        walk.frames.hand::<ME, { Node::Glean as u8 }>(slot);
    }
}
