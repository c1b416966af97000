//! `icmp-error`: the sender is told why its packet is dropped (RFC 792; RFC 1812 §5.2.7.1, §5.3.1; RFC 4443 §3).
//!
//! 1. What there is to say: see [`message_v4`] and [`message_v6`]. Who is told, and of what nobody is (RFC 1812 §4.3.2.7, RFC 4443 §2.4):
//!    the rules of `wire::icmp::error` and `wire::icmpv6::error`. Of the control plane's own packets nobody is.
//! 2. Ten times a second for each source, as many at once, and a thousand a second in all (§4.3.2.8). Of what nobody is told
//!    takes no part of that. What a path takes has a thousand of its own: a flood of other errors must not keep it from those whose
//!    packets end here without it.
//! 3. The error, from the address of the interface that the packet came by (it has none of the family, or a link-local one and the
//!    sender is farther: from another one of the same table), enters in the next breath by `inject` and is routed in that table like any
//!    packet: about what came by a tunnel, by the tunnel. About an IPv4 packet that our own kernel sent it comes from that one's
//!    destination: a kernel takes nothing that comes to it from an address of its own. To a link-local address it goes by the link that
//!    the packet came by, to the station that sent it.
//! 4. The packet itself: drop, for the reason that it was handed over with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::buf::PacketBuf;
use wire::{ethernet, icmp, icmpv6, ipv4, ipv6};
use zerocopy::IntoBytes;

use crate::DropReason;
use crate::adjacency::{LINK_LEN, TAGGED_LEN, permit};
use crate::burst::{Meta, family};
use crate::graph::Node;
use crate::limit::Limit;
use crate::packet::{addresses, current, folded};
use crate::ports::Ports;
use crate::tables::{Role, Tables};
use crate::walk::{Carried, Entry, Walk};

/// Least that "fragmentation needed" may name: every link takes so much (RFC 791 §3.2).
const MIN_MTU_V4: u16 = 68;

pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.take(Node::IcmpError);
    walk.enter(frame);
    let now = walk.now;
    for at in frame.places() {
        let slot = walk.frames.slot(frame, at);
        let meta = walk.meta[usize::from(slot)];
        // The total alone decides under a flood, before a packet is touched.
        if limit(walk, meta.reason).is_open(now)
            && let Some(error) = Error::about(tables, &meta, walk.bufs[usize::from(slot)].bytes())
            && let Some(mut buf) = begin(walk, ports, &error)
        {
            let filled = error.write(current(&meta, walk.bufs[usize::from(slot)].bytes()), &mut buf);
            send(walk, ports, &error, buf, filled);
        }
        walk.drop(slot, meta.reason);
    }
}

/// Tells the sender of a packet in `bytes` why it is dropped, which is for the caller to do.
pub(crate) fn tell<P: Ports>(
    walk: &mut Walk<P::Buf>,
    tables: &Tables,
    ports: &mut P,
    bytes: &[u8],
    meta: &Meta,
) {
    let now = walk.now;
    if limit(walk, meta.reason).is_open(now)
        && let Some(error) = Error::about(tables, meta, bytes)
        && let Some(mut buf) = begin(walk, ports, &error)
    {
        let filled = error.write(current(meta, bytes), &mut buf);
        send(walk, ports, &error, buf, filled);
    }
}

/// The limit of errors for a reason.
fn limit<B>(walk: &mut Walk<B>, reason: DropReason) -> &mut Limit {
    if reason == DropReason::TooBig { &mut walk.too_bigs } else { &mut walk.errors }
}

/// An error to be sent.
struct Error {
    /// What the packet is dropped for.
    reason: DropReason,
    /// Its IP and ICMP headers, the first so many of these bytes; how much of the packet it quotes behind them.
    headers: ([u8; icmpv6::HEADERS], usize),
    quoted: usize,
    /// Who is told.
    to: IpAddr,
    meta: Meta,
    /// The link's header, where it cannot be found by routing, and how much of it there is.
    link: ([u8; TAGGED_LEN], usize),
}

impl Error {
    /// The error about a packet, if there is to be one.
    fn about(tables: &Tables, meta: &Meta, bytes: &[u8]) -> Option<Self> {
        if meta.permits & permit::TUNNEL == 0 {
            return None;
        }
        let packet = current(meta, bytes);
        let (to, _) = addresses(packet)?;
        let table = tables.interface(meta.interface)?.table;
        let mtu = tables.adjacencies.slot(meta.adjacency).mtu;
        let mut error = Self {
            reason: meta.reason,
            headers: ([0; icmpv6::HEADERS], 0),
            quoted: 0,
            to,
            meta: Meta {
                interface: meta.interface,
                table,
                permits: permit::TRANSIT | permit::TUNNEL,
                ..Meta::NEW
            },
            link: ([0; TAGGED_LEN], 0),
        };
        match to {
            IpAddr::V4(to) => {
                let message = message_v4(meta, packet, mtu)?;
                error.meta.destination = to.to_bits();
                let from = own_v4(tables, meta.interface, table)?;
                let from = if meta.hops == 0 { Ipv4Addr::from(meta.destination) } else { from };
                error.put(icmp::error(from, message, packet)?);
            }
            IpAddr::V6(to) => {
                let message = message_v6(meta, packet, mtu)?;
                error.meta.family = family::V6;
                if to.is_unicast_link_local() {
                    (error.link, error.meta.target) = back(tables, meta, bytes)?;
                }
                error.put(icmpv6::error(own_v6(tables, meta.interface, table, to)?, message, packet)?);
            }
        }
        Some(error)
    }

    fn put<const LEN: usize>(&mut self, (headers, quoted): ([u8; LEN], &[u8])) {
        self.headers.0[..LEN].copy_from_slice(&headers);
        (self.headers.1, self.quoted) = (LEN, quoted.len());
    }

    /// Writes it, about `packet`, into an empty buffer; whether it holds it.
    fn write<B: PacketBuf>(&self, packet: &[u8], buf: &mut B) -> bool {
        let parts = [&self.link.0[..self.link.1], &self.headers.0[..self.headers.1], &packet[..self.quoted]];
        let Some(mut room) = buf.append(parts.iter().map(|part| part.len()).sum()) else { return false };
        for part in parts {
            let (place, behind) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
            room = behind;
        }
        true
    }
}

/// What there is to say about an IPv4 packet; `mtu` is that of the adjacency it was to leave by.
fn message_v4(meta: &Meta, packet: &[u8], mtu: u16) -> Option<icmp::Header> {
    match meta.reason {
        DropReason::HostUnreachable | DropReason::Unresolved | DropReason::NoOutboundSa => {
            Some(icmp::Header::unreachable(icmp::HOST_UNREACHABLE))
        }
        DropReason::NoRoute => Some(icmp::Header::unreachable(icmp::NET_UNREACHABLE)),
        DropReason::UnderlayTransit => Some(icmp::Header::unreachable(icmp::PROHIBITED)),
        DropReason::TtlExpired => Some(icmp::Header::time_exceeded()),
        DropReason::TooBig => {
            let flags = packet.get(6..8)?.first_chunk::<2>()?;
            let whole = u16::from_be_bytes(*flags) & ipv4::DONT_FRAGMENT != 0;
            whole.then(|| icmp::Header::fragmentation_needed(mtu.max(MIN_MTU_V4)))
        }
        _ => None,
    }
}

/// The same about an IPv6 packet. What is no larger than 1,280 bytes is taken whatever a tunnel's MTU is.
fn message_v6(meta: &Meta, packet: &[u8], mtu: u16) -> Option<icmpv6::Header> {
    match meta.reason {
        DropReason::HostUnreachable | DropReason::Unresolved | DropReason::NoOutboundSa => {
            Some(icmpv6::Header::unreachable(icmpv6::ADDRESS_UNREACHABLE))
        }
        DropReason::NoRoute => Some(icmpv6::Header::unreachable(icmpv6::NO_ROUTE)),
        DropReason::UnderlayTransit => Some(icmpv6::Header::unreachable(icmpv6::PROHIBITED)),
        // What is for one link, of a source that is of another reach: about the source (RFC 4443 §3.1).
        DropReason::Scope => {
            let (from, to) = addresses(packet)?;
            let of_link = |addr| matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local());
            let beyond = of_link(from) && !of_link(to);
            beyond.then(|| icmpv6::Header::unreachable(icmpv6::BEYOND_SCOPE))
        }
        DropReason::TtlExpired => Some(icmpv6::Header::time_exceeded()),
        DropReason::TooBig => Some(icmpv6::Header::packet_too_big(u32::from(mtu).max(ipv6::MIN_MTU as u32))),
        _ => None,
    }
}

/// Our address on an interface, or else in its table.
fn own_v4(tables: &Tables, interface: u16, table: u16) -> Option<Ipv4Addr> {
    let mut others = tables.interfaces.all.iter().flatten().filter(|other| other.table == table);
    tables.interface(interface)?.address.or_else(|| others.find_map(|other| other.address))
}

/// The same for IPv6, as far as it reaches `to` (RFC 4291 §2.5.6).
fn own_v6(tables: &Tables, interface: u16, table: u16, to: Ipv6Addr) -> Option<Ipv6Addr> {
    let others = tables.interfaces.all.iter().flatten().filter(|other| other.table == table);
    let own = std::iter::once(tables.interface(interface)?).chain(others);
    let reaches = |from: &Ipv6Addr| to.is_unicast_link_local() || !from.is_unicast_link_local();
    own.filter_map(|own| own.address6).find(reaches)
}

/// The link's header back to the station that a packet came from, and the port, if it came in a frame.
fn back(tables: &Tables, meta: &Meta, frame: &[u8]) -> Option<(([u8; TAGGED_LEN], usize), u16)> {
    let Role::Port(port) = &tables.interface(meta.interface)?.role else { return None };
    if usize::from(meta.offset) < LINK_LEN {
        return None;
    }
    let (came, _) = ethernet::parse(frame).ok()?;
    let mut link = [0; TAGGED_LEN];
    let ethertype = if port.vlan == 0 { ethernet::IPV6 } else { ethernet::VLAN };
    let header = ethernet::Header::new(came.source, port.mac, ethertype);
    link[..LINK_LEN].copy_from_slice(header.as_bytes());
    if port.vlan == 0 {
        return Some(((link, LINK_LEN), port.port.0));
    }
    link[LINK_LEN..].copy_from_slice(ethernet::Tag::new(0, port.vlan, ethernet::IPV6).as_bytes());
    Some(((link, TAGGED_LEN), port.port.0))
}

/// An empty buffer for an error, within the limits.
fn begin<P: Ports>(walk: &mut Walk<P::Buf>, ports: &mut P, error: &Error) -> Option<P::Buf> {
    let now = walk.now;
    if !limit(walk, error.reason).pass(now, folded(error.to)) {
        return None;
    }
    let buf = ports.alloc();
    if buf.is_none() {
        walk.drop_copy(DropReason::NoBuffer);
    }
    buf
}

/// Leaves an error, which the buffer holds if it is filled, for the next breath.
fn send<P: Ports>(walk: &mut Walk<P::Buf>, ports: &mut P, error: &Error, buf: P::Buf, filled: bool) {
    if !filled {
        return walk.refuse_copy(ports, buf, DropReason::NoBuffer);
    }
    let entry = if error.link.1 == 0 { Entry::Lookup } else { Entry::Frame };
    match walk.carry(Carried { buf, meta: error.meta, entry, trace: 0 }) {
        Ok(()) => {
            walk.flow.copied += 1;
            walk.flow.parked += 1;
        }
        Err(buf) => walk.refuse_copy(ports, buf, DropReason::NoBuffer),
    }
}
