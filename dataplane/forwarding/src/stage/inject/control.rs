//! GRE payload of the control plane's for an NBMA address.
//!
//! 1. Outer IPv4 or IPv6 and GRE header in front, of network control (CS6). To an address of the other family than the tunnel's own: drop
//!    `no-route`.
//! 2. Of a protected tunnel it is sealed here and now, as esp-encrypt does it, by the SA to that address and UDP port. None: drop
//!    `no-outbound-sa`. Another worker's: handed off to that one, as it came.
//! 3. To an NBMA address that a binding or a replica of the tunnel has: by the link of that to `rewrite`, or to `glean` if the link is not
//!    resolved. Whatever routes the tunnel has brought, they do not take it along. To others by `ip-lookup` in the underlay's table, and
//!    never into a tunnel.

use std::net::IpAddr;

use model::sa::Lifetimes;
use wire::buf::PacketBuf;
use wire::{esp, gre, ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use super::ME;
use crate::DropReason;
use crate::adjacency::{Kind, permit};
use crate::burst::{End, family};
use crate::graph::Node;
use crate::ports::Origin;
use crate::sa::{OutboundSa, Sas, Sealer};
use crate::stage::esp_encrypt::{fill, sum_datagram};
use crate::stage::look_up;
use crate::tables::{Tables, TunnelInterface};
use crate::walk::Walk;

/// Times that a packet is handed from worker to worker: more than once only while its SA moves.
const TRIES: u8 = 4;

/// What a packet goes in.
struct Outer<'a> {
    tunnel: &'a TunnelInterface,
    destination: IpAddr,
    port: u16,
    protocol_type: u16,
    /// Identification of an IPv4 header.
    id: u16,
    /// The SA of a protected tunnel.
    sa: Option<(OutboundSa<'a>, Lifetimes)>,
}

pub(super) fn enter<B: PacketBuf>(
    walk: &mut Walk<B>,
    tables: &Tables,
    sas: &Sas,
    slot: u8,
    (origin, tunnel): (Origin, &TunnelInterface),
) {
    let Origin::Control { tunnel: id, destination, port, protocol_type } = origin else {
        return walk.drop(slot, DropReason::StaleIndex);
    };
    let at = usize::from(slot);
    let way = tables.way(id, tunnel, destination, port);
    let mut sa = None;
    if tunnel.domain != 0 {
        match sas.outbound.sealer(way.protection) {
            Sealer::Own(own) => sa = Some((own, sas.outbound.lifetimes(way.protection))),
            Sealer::Worker(worker) if walk.meta[at].tries < TRIES => {
                let meta = &mut walk.meta[at];
                meta.tries += 1;
                meta.end = End::HandControl;
                meta.target = worker;
                walk.origins.push((slot, origin));
                return;
            }
            Sealer::Worker(_) | Sealer::Nobody => return walk.drop(slot, DropReason::NoOutboundSa),
        }
    }
    walk.ip_id = walk.ip_id.wrapping_add(1);
    let outer = Outer { tunnel, destination, port, protocol_type, id: walk.ip_id, sa };
    if let Err(reason) = outer.put(&mut walk.bufs[at]) {
        return walk.drop(slot, reason);
    }
    let meta = &mut walk.meta[at];
    match destination {
        IpAddr::V4(addr) => meta.destination = addr.to_bits(),
        IpAddr::V6(_) => meta.family = family::V6,
    }
    if sa.is_some() {
        meta.family |= family::SEALED;
    }
    meta.table = tunnel.underlay;
    meta.permits = permit::TRANSIT | permit::CLOSED_PORT;
    let link = way.link.and_then(|link| Some((link, tables.adjacencies.at(link)?.kind)));
    let Some((link, kind @ (Kind::Neighbour | Kind::Incomplete))) = link else {
        return look_up::<ME>(&mut walk.frames, meta, slot);
    };
    meta.adjacency = link;
    meta.given = true;
    if kind == Kind::Neighbour {
        walk.frames.hand::<ME, { Node::Rewrite as u8 }>(slot);
    } else {
        walk.frames.hand::<ME, { Node::Glean as u8 }>(slot);
    }
}

impl Outer<'_> {
    /// Puts all of it in front of a packet, which is sealed then.
    fn put<B: PacketBuf>(&self, buf: &mut B) -> Result<(), DropReason> {
        let gre_len = gre::len(self.tunnel.key);
        let header = buf.prepend(gre_len).ok_or(DropReason::NoHeadroom)?;
        let written = gre::write(header, self.protocol_type, self.tunnel.key);
        debug_assert_eq!(written, Some(gre_len));
        let Some((sa, lifetimes)) = self.sa else {
            return self.put_ip(buf, ipv4::GRE, buf.len());
        };
        let tunnel_mode = sa.is_tunnel();
        if tunnel_mode {
            self.put_ip(buf, ipv4::GRE, buf.len())?;
        }
        let next_header = match (tunnel_mode, self.destination) {
            (false, _) => ipv4::GRE,
            (true, IpAddr::V4(_)) => esp::IPV4,
            (true, IpAddr::V6(_)) => esp::IPV6,
        };
        let esp_len = esp::packet_len(buf.len());
        buf.prepend(esp::LEN).ok_or(DropReason::NoHeadroom)?;
        let mut protocol = ipv4::ESP;
        let mut before = 0;
        if self.port != 0 {
            let header = udp::Header::new(udp::IKE_NAT, self.port, esp_len).ok_or(DropReason::TooBig)?;
            prepend(buf, header.as_bytes())?;
            (protocol, before) = (ipv4::UDP, udp::LEN);
        }
        let front = buf.len();
        self.put_ip(buf, protocol, esp_len + before)?;
        let start = buf.len() - front + before;
        aead::seal_one(fill(buf, start, next_header, sa, || lifetimes)?);
        if self.port != 0 && self.destination.is_ipv6() {
            sum_datagram(buf.bytes_mut(), start, 0);
        }
        Ok(())
    }

    /// Puts an IP header in front of a packet that will have `len` bytes behind it.
    fn put_ip<B: PacketBuf>(&self, buf: &mut B, protocol: u8, len: usize) -> Result<(), DropReason> {
        let ttl = self.tunnel.ttl;
        match (self.tunnel.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip = ipv4::Header::new(source, destination, protocol, ttl, len);
                let ip = ip.ok_or(DropReason::TooBig)?.with_tos(ipv4::CS6).with_id(self.id);
                prepend(buf, ip.as_bytes())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ip = ipv6::Header::new(source, destination, protocol, ttl, len);
                prepend(buf, ip.ok_or(DropReason::TooBig)?.with_traffic_class(ipv4::CS6).as_bytes())
            }
            _ => Err(DropReason::NoRoute),
        }
    }
}

fn prepend<B: PacketBuf>(buf: &mut B, bytes: &[u8]) -> Result<(), DropReason> {
    buf.prepend(bytes.len()).ok_or(DropReason::NoHeadroom)?.copy_from_slice(bytes);
    Ok(())
}
