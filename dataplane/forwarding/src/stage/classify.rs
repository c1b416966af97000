//! `classify`: what arrived at a port.
//!
//! 1. A port without an interface: drop `no-interface`.
//! 2. Ethernet: not for us: drop `not-for-us`; for a group, or not IPv4 (ARP, IPv6): `punt` to the port's twin as it is.
//! 3. IPv4 header: version, lengths, checksum, else drop `bad-header` or `bad-checksum`. The frame's padding is cut off.
//! 4. GRE to an address that a tunnel has: `gre-decap`; a fragment of it: drop `gre-fragment`.
//! 5. All else: `ip-lookup`. Our own addresses are found there.

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4};

use super::{AHEAD_BYTES, AHEAD_DESCRIPTOR, Ip, check_ip};
use crate::DropReason;
use crate::adjacency::{LINK_LEN, permit};
use crate::burst::{End, Meta};
use crate::graph::Node;
use crate::ports::PortId;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Classify as u8;

/// What a frame is.
enum Frame {
    Ip(Ip),
    /// For the kernel.
    Host,
    Bad(DropReason),
}

/// Looks at the packets in slots from `first` on; they came by `port`.
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, port: PortId, first: usize) {
    let end = walk.bufs.len();
    let Some((interface, port)) = tables.of_port(port) else {
        for slot in first..end {
            walk.meta[slot] = Meta::NEW;
            walk.drop(slot as u8, DropReason::NoInterface);
        }
        return;
    };
    walk.counters.count_node(Node::Classify, end - first);
    let transit = if port.forwarding { permit::TRANSIT } else { 0 };
    let new = Meta {
        offset: LINK_LEN as u16,
        interface: interface.0,
        permits: transit | permit::TUNNEL,
        hops: 1,
        ..Meta::NEW
    };
    let station = station(&port.mac);

    for buf in walk.bufs[first..].iter().take(AHEAD_DESCRIPTOR) {
        buf.prefetch_descriptor();
    }
    for buf in walk.bufs[first..].iter().take(AHEAD_BYTES) {
        buf.prefetch_bytes();
    }
    for at in first..end {
        let slot = at as u8;
        if let Some(ahead) = walk.bufs.get(at + AHEAD_DESCRIPTOR) {
            ahead.prefetch_descriptor();
        }
        if let Some(ahead) = walk.bufs.get(at + AHEAD_BYTES) {
            ahead.prefetch_bytes();
        }
        let buf = &mut walk.bufs[at];
        let bytes = buf.bytes();
        let meta = &mut walk.meta[usize::from(slot)];
        *meta = new;
        match look(bytes, station) {
            Frame::Ip(ip) => {
                if ip.total + LINK_LEN < bytes.len() {
                    cut_padding(buf, ip.total);
                }
                meta.destination = ip.destination;
                meta.outer_source = ip.source;
                if ip.protocol == ipv4::GRE && tables.decap.is_local(ip.destination) {
                    if ip.fragment {
                        walk.drop(slot, DropReason::GreFragment);
                        continue;
                    }
                    meta.offset = (LINK_LEN + ip.header) as u16;
                    walk.frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
                } else {
                    walk.frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
                }
            }
            Frame::Host => {
                meta.end = End::Host;
                meta.target = interface.0;
                walk.frames.hand::<ME, { Node::Punt as u8 }>(slot);
            }
            Frame::Bad(reason) => walk.drop(slot, reason),
        }
        if walk.trace.active {
            walk.note(Node::Classify, slot);
        }
    }
}

/// An Ethernet address and the two bytes behind it as the first eight bytes of a frame have them, the two being zero.
#[inline(always)]
fn station(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0])
}

#[inline(always)]
fn look(bytes: &[u8], station: u64) -> Frame {
    let Some(link) = bytes.first_chunk::<16>() else { return look_closer(bytes, station) };
    let words = u128::from_be_bytes(*link);
    let (to, ethertype) = ((words >> 64) as u64 & !0xffff, (words >> 16) as u16);
    if to != station || ethertype != ethernet::IPV4 {
        return look_closer(bytes, station);
    }
    match check_ip(&bytes[LINK_LEN..]) {
        Ok(ip) => Frame::Ip(ip),
        Err(reason) => Frame::Bad(reason),
    }
}

/// What is not IPv4 to our station.
#[cold]
fn look_closer(bytes: &[u8], station: u64) -> Frame {
    let Ok((link, payload)) = ethernet::parse(bytes) else { return Frame::Bad(DropReason::Runt) };
    if link.is_group() {
        return Frame::Host;
    }
    if self::station(&link.destination) != station {
        return Frame::Bad(DropReason::NotForUs);
    }
    if link.ethertype() != ethernet::IPV4 {
        return Frame::Host;
    }
    match check_ip(payload) {
        Ok(ip) => Frame::Ip(ip),
        Err(reason) => Frame::Bad(reason),
    }
}

#[cold]
fn cut_padding<B: PacketBuf>(buf: &mut B, total: usize) {
    let cut = buf.truncate(LINK_LEN + total);
    debug_assert!(cut, "the total length is within the frame");
}
