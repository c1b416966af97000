//! `inject`: what enters from above, or again.
//!
//! 1. What the last breath left for this one: to `ip-lookup` or `ip6-lookup`, to the adjacency that it was given, to `replicate`, or,
//!    a piece of a frame, to `tx`.
//! 2. From the twin of a port: out of that port as it is, with the tag of its VLAN if it is the twin of one. GRE, ESP and ESP in UDP are
//!    for tunnels alone: drop `inject-forbidden`.
//! 3. From the twin of a tunnel: multicast and broadcast to `replicate`, unicast to `ip-lookup` or `ip6-lookup` in the tunnel's table. To
//!    a link-local address on a point-to-point tunnel: to the peer, who is all that there is on that link. The time to live stays
//!    as the kernel set it. What is not IP: drop `inject-family`.
//! 4. From the control plane: see [`control`].
//! 5. What other workers handed off: see [`super::handoff`].
//! 6. The interface is gone: drop `stale-index`. What the last breath left goes in the clear, and its tunnel is protected by now: drop
//!    `no-outbound-sa`.

mod control;

use std::net::{Ipv4Addr, Ipv6Addr};

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use super::{check_ip, handoff, look_up};
use crate::DropReason;
use crate::adjacency::{Kind, LINK_LEN, flag, permit};
use crate::burst::{Meta, family};
use crate::graph::Node;
use crate::packet::check_ip6;
use crate::ports::{Injected, Origin, Ports};
use crate::sa::Sas;
use crate::tables::{Role, Tables};
use crate::walk::{Entry, INJECTED, RESUMED, Walk};

const ME: u8 = Node::Inject as u8;

/// Ethertypes of VLAN tags (IEEE 802.1Q, 802.1ad), and the one that was used for outer ones before.
const VLAN_TAGS: [u16; 3] = [ethernet::VLAN, ethernet::PROVIDER_VLAN, 0x9100];

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, sas: &Sas, ports: &mut P) {
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
                walk.adopt_injected(slot, &origin);
                walk.note(Node::Inject, slot);
                enter(walk, tables, sas, slot, origin);
            }
            Err(_) => unreachable!("a walk begins with more slots than packets are injected"),
        }
    }
    walk.injected = injected;
    packets += handoff::run(walk, tables, sas, ports);
    if packets > 0 {
        walk.counters.count_node(Node::Inject, packets);
        walk.end_lap(Some(Node::Inject));
    }
}

fn resume<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8, entry: Entry) {
    walk.note(Node::Inject, slot);
    let meta = walk.meta[usize::from(slot)];
    if is_outdated(tables, &meta, entry) {
        return walk.drop(slot, DropReason::NoOutboundSa);
    }
    match entry {
        Entry::Lookup => look_up::<ME>(&mut walk.frames, &meta, slot),
        Entry::Frame => walk.send(slot, meta.target),
        Entry::Replicate => {
            walk.replicating -= 1;
            walk.frames.hand::<ME, { Node::Replicate as u8 }>(slot);
        }
        Entry::Adjacency => match tables.adjacencies.at(meta.adjacency).map(|entry| entry.kind) {
            Some(Kind::Midchain) => walk.frames.hand::<ME, { Node::Midchain as u8 }>(slot),
            Some(Kind::Neighbour) => walk.frames.hand::<ME, { Node::Rewrite as u8 }>(slot),
            Some(Kind::Incomplete | Kind::Unprotected) => walk.frames.hand::<ME, { Node::Glean as u8 }>(slot),
            _ => walk.drop(slot, DropReason::StaleIndex),
        },
    }
}

/// Whether a packet that we have put into a tunnel in the clear may not leave any more: since then the tunnel has come to be protected.
fn is_outdated(tables: &Tables, meta: &Meta, entry: Entry) -> bool {
    if meta.family & family::SEALED != 0 {
        return false;
    }
    let sealed = tables.adjacencies.slot(meta.adjacency).flags & flag::ESP != 0;
    let of_control = meta.permits & permit::TUNNEL == 0 && meta.permits & permit::CLOSED_PORT != 0;
    let protected = || tables.tunnel(meta.interface).is_some_and(|tunnel| tunnel.domain != 0);
    entry == Entry::Frame && sealed || of_control && protected()
}

/// What comes from above enters in a slot.
pub(super) fn enter<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas, slot: u8, origin: Origin) {
    let id = match origin {
        Origin::Twin(id) | Origin::Control { tunnel: id, .. } => id,
    };
    let interface = tables.interface(id.0);
    let meta = &mut walk.meta[usize::from(slot)];
    meta.interface = id.0;
    meta.table = interface.map_or(0, |interface| interface.table);
    match (origin, interface.map(|interface| &interface.role)) {
        (Origin::Twin(_), Some(Role::Port(port))) => {
            let buf = &mut walk.bufs[usize::from(slot)];
            if is_for_tunnels(buf.bytes()) {
                walk.drop(slot, DropReason::InjectForbidden);
            } else if port.vlan == 0 {
                walk.send(slot, port.port.0);
            } else {
                match tag(buf, port.vlan) {
                    Ok(()) => walk.send(slot, port.port.0),
                    Err(reason) => walk.drop(slot, reason),
                }
            }
        }
        (Origin::Twin(_), Some(Role::Tunnel(tunnel))) => from_tunnel_twin(walk, slot, tunnel.point_to_point),
        (Origin::Control { .. }, Some(Role::Tunnel(tunnel))) => {
            control::enter(walk, tables, sas, slot, (origin, tunnel));
        }
        _ => walk.drop(slot, DropReason::StaleIndex),
    }
}

/// Puts the tag of a VLAN into a frame, of priority 0 as in all that we send.
fn tag<B: PacketBuf>(buf: &mut B, vlan: u16) -> Result<(), DropReason> {
    const ADDRESSES: usize = LINK_LEN - 2;
    let Ok((link, _)) = ethernet::parse(buf.bytes()) else { return Err(DropReason::Runt) };
    let tag = ethernet::Tag::new(0, vlan, link.ethertype());
    if buf.prepend(ethernet::TAG_LEN).is_none() {
        return Err(DropReason::NoHeadroom);
    }
    let bytes = buf.bytes_mut();
    bytes.copy_within(ethernet::TAG_LEN..ethernet::TAG_LEN + ADDRESSES, 0);
    bytes[ADDRESSES..LINK_LEN].copy_from_slice(&ethernet::VLAN.to_be_bytes());
    bytes[LINK_LEN..LINK_LEN + ethernet::TAG_LEN].copy_from_slice(tag.as_bytes());
    Ok(())
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

/// What is cut short in its extension headers, or has more of them than there are kinds, is no packet that a kernel sends.
fn is_for_tunnels_v6(packet: &[u8]) -> bool {
    match ipv6::upper(packet) {
        Ok(upper) => match upper.protocol {
            ipv6::GRE | ipv6::ESP => true,
            ipv6::UDP => !upper.is_later_fragment() && is_esp_in_udp(&packet[upper.offset..]),
            _ => false,
        },
        Err(_) => packet.len() >= ipv6::LEN,
    }
}

/// ESP in UDP (RFC 3948 §2.1) as against IKE, whose four zero bytes are no SPI (§2.2), and the keep-alive of one byte (§2.3).
/// Of a first fragment the rest need not be there; one that ends before the SPI is nobody's.
fn is_esp_in_udp(datagram: &[u8]) -> bool {
    let Some(&[a, b, c, d, high, low, _, _]) = datagram.first_chunk() else { return !datagram.is_empty() };
    if u16::from_be_bytes([a, b]) != udp::IKE_NAT && u16::from_be_bytes([c, d]) != udp::IKE_NAT {
        return false;
    }
    match datagram.get(udp::LEN..).and_then(|payload| payload.first_chunk::<4>()) {
        Some(spi) => *spi != [0; 4],
        None => usize::from(u16::from_be_bytes([high, low])) != datagram.len(),
    }
}

fn from_tunnel_twin<B: PacketBuf>(walk: &mut Walk<B>, slot: u8, point_to_point: bool) {
    let at = usize::from(slot);
    let bytes = walk.bufs[at].bytes();
    let seen = match bytes.first().map(|version| version >> 4) {
        Some(4) => check_ip(bytes).map(|ip| {
            let to = Ipv4Addr::from(ip.destination);
            (0, ip.destination, to.is_multicast() || to.is_broadcast())
        }),
        Some(6) => check_ip6(bytes).map(|ip| {
            let to = Ipv6Addr::from(ip.destination);
            (family::V6, 0, to.is_multicast() || point_to_point && to.is_unicast_link_local())
        }),
        _ => Err(DropReason::InjectFamily),
    };
    let (family, destination, for_all) = match seen {
        Ok(seen) => seen,
        Err(reason) => return walk.drop(slot, reason),
    };
    let meta = &mut walk.meta[at];
    (meta.family, meta.destination) = (family, destination);
    meta.permits = permit::TRANSIT | permit::TUNNEL;
    if for_all {
        walk.frames.hand::<ME, { Node::Replicate as u8 }>(slot);
    } else {
        look_up::<ME>(&mut walk.frames, &walk.meta[at], slot);
    }
}
