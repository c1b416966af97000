//! `classify`: what arrived at a port.
//!
//! 1. A port without an interface: drop `no-interface`.
//! 2. Ethernet: not for us: drop `not-for-us`; for a group, or not IPv4 (ARP, IPv6): `punt` to the port's twin as it is.
//! 3. IPv4 header: version, lengths, checksum, else drop `bad-header` or `bad-checksum`. The frame's padding is cut off.
//! 4. GRE to an address that a tunnel has: `gre-decap`; a fragment of it: drop `gre-fragment`.
//! 5. All else: `ip-lookup`. Our own addresses are found there.

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4};

use super::{AHEAD_BYTES, AHEAD_DESCRIPTOR, Ip, check_ip, destination, is_plain, source, total_length};
use crate::DropReason;
use crate::adjacency::{LINK_LEN, permit};
use crate::burst::{End, Frames, Meta};
use crate::graph::Node;
use crate::ports::PortId;
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::Classify as u8;

/// An IPv4 header without options behind an Ethernet header.
const PLAIN_LEN: usize = LINK_LEN + ipv4::LEN;

/// Looks at the packets in slots from `first` on; they came by `port`.
#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, port: PortId, first: usize) {
    let end = walk.bufs.len();
    walk.counters.count_node(Node::Classify, end - first);
    let Some((interface, port)) = tables.of_port(port) else {
        for slot in first..end {
            walk.meta[slot] = Meta::NEW;
            walk.drop(slot as u8, DropReason::NoInterface);
        }
        return;
    };
    let transit = if port.forwarding { permit::TRANSIT } else { 0 };
    let new = Meta {
        offset: LINK_LEN as u16,
        interface: interface.0,
        permits: transit | permit::TUNNEL,
        hops: 1,
        ..Meta::NEW
    };
    let station = station(&port.mac);

    let Walk { bufs, meta, frames, .. } = walk;
    let (bufs, meta, fib) = (bufs.as_mut_slice(), &mut **meta, &*tables.fib);
    for buf in bufs[first..].iter().take(AHEAD_DESCRIPTOR) {
        buf.prefetch_descriptor();
    }
    for buf in bufs[first..].iter().take(AHEAD_BYTES) {
        buf.prefetch_bytes();
    }
    for at in first..end {
        if let Some(ahead) = bufs.get(at + AHEAD_DESCRIPTOR) {
            ahead.prefetch_descriptor();
        }
        if let Some(ahead) = bufs.get(at + AHEAD_BYTES) {
            ahead.prefetch_bytes();
        }
        let slot = at as u8;
        let (buf, meta) = (&mut bufs[at], &mut meta[usize::from(slot)]);
        let bytes = buf.bytes();
        let Some(ip) = plain(bytes, station) else {
            *meta = new;
            unusual(buf, meta, frames, tables, slot, station);
            continue;
        };
        let to = destination(ip);
        *meta = Meta { destination: to, outer_source: source(ip), ..new };
        fib.prefetch(to.into());
        let is_gre = ip[9] == ipv4::GRE;
        let whole = LINK_LEN + total_length(ip);
        if whole < bytes.len() {
            cut_padding(buf, whole);
        }
        if is_gre && tables.decap.is_local(to) {
            to_tunnel(buf, meta, frames, slot);
        } else {
            frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
        }
    }
    if walk.trace.active {
        for slot in first..end {
            walk.note(Node::Classify, slot as u8);
        }
    }
}

/// An Ethernet address as the first eight bytes of a frame have it, without the two that follow.
#[inline(always)]
fn station(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The header of what is most: IPv4 without options, to our station, nothing wrong with it.
#[inline(always)]
fn plain(bytes: &[u8], us: u64) -> Option<&[u8; ipv4::LEN]> {
    let frame = bytes.first_chunk::<PLAIN_LEN>()?;
    let to = frame.first_chunk::<8>().map(|to| u64::from_le_bytes(*to) & 0xffff_ffff_ffff)?;
    let ip = frame.last_chunk::<{ ipv4::LEN }>()?;
    let ours = to == us && u16::from_be_bytes([frame[12], frame[13]]) == ethernet::IPV4;
    (ours && is_plain(ip, bytes.len() - LINK_LEN)).then_some(ip)
}

/// GRE for us, without options: unless it is a fragment.
#[inline(always)]
fn to_tunnel<B: PacketBuf>(buf: &B, meta: &mut Meta, frames: &mut Frames, slot: u8) {
    let flags = buf.bytes().get(LINK_LEN + 6..LINK_LEN + 8).and_then(|flags| flags.first_chunk::<2>());
    if flags.is_none_or(|flags| u16::from_be_bytes(*flags) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0)
    {
        return frames.drop(meta, slot, DropReason::GreFragment);
    }
    meta.offset = PLAIN_LEN as u16;
    frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
}

/// What a frame is.
enum Frame {
    Ip(Ip),
    /// For the kernel.
    Host,
    Bad(DropReason),
}

/// The whole path of a packet that is not plain.
#[cold]
#[inline(never)]
fn unusual<B: PacketBuf>(
    buf: &mut B,
    meta: &mut Meta,
    frames: &mut Frames,
    tables: &Tables,
    slot: u8,
    station: u64,
) {
    match look(buf.bytes(), station) {
        Frame::Ip(ip) => {
            if LINK_LEN + ip.total < buf.len() {
                cut_padding(buf, LINK_LEN + ip.total);
            }
            (meta.destination, meta.outer_source) = (ip.destination, ip.source);
            if ip.protocol != ipv4::GRE || !tables.decap.is_local(ip.destination) {
                frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
            } else if ip.fragment {
                frames.drop(meta, slot, DropReason::GreFragment);
            } else {
                meta.offset = (LINK_LEN + ip.header) as u16;
                frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
            }
        }
        Frame::Host => {
            meta.end = End::Host;
            meta.target = meta.interface;
            frames.hand::<ME, { Node::Punt as u8 }>(slot);
        }
        Frame::Bad(reason) => frames.drop(meta, slot, reason),
    }
}

fn look(bytes: &[u8], us: u64) -> Frame {
    let Ok((link, payload)) = ethernet::parse(bytes) else { return Frame::Bad(DropReason::Runt) };
    if link.is_group() {
        return Frame::Host;
    }
    if station(&link.destination) != us {
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

fn cut_padding<B: PacketBuf>(buf: &mut B, whole: usize) {
    let cut = buf.truncate(whole);
    debug_assert!(cut, "the total length is within the frame");
}
