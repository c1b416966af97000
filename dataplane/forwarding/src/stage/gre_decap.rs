//! `gre-decap`: GRE of our tunnels (RFC 2784, RFC 2890).
//!
//! 1. GRE header: version, flags, checksum if there is one, else drop `gre-malformed` or `gre-checksum`. A sequence number
//!    is read over.
//! 2. Tunnel by own address, key and, where point-to-point, source; else drop `gre-no-tunnel`. A multipoint tunnel takes
//!    any source with the right key: a direct reply may come before the binding does.
//! 3. NHRP: `punt` to the control plane.
//! 4. IPv4: the inner header is checked as classify does; then `ip-lookup`, as come by the tunnel.
//! 5. All else: drop `gre-protocol`.

use wire::buf::PacketBuf;
use wire::{Malformed, gre, ipv4};

use super::{check_ip, destination, is_plain, total_length};
use crate::DropReason;
use crate::adjacency::permit;
use crate::burst::{End, Frames, Meta};
use crate::graph::Node;
use crate::tables::{DecapKey, DecapTunnel, Tables};
use crate::walk::Walk;

const ME: u8 = Node::GreDecap as u8;

/// GRE header with a key.
const KEYED_LEN: usize = 8;

/// The tunnel of the packet before: most are of the same.
type Last = Option<(DecapKey, DecapTunnel)>;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::GreDecap);
    walk.enter(frame);
    let Walk { bufs, meta, frames, .. } = walk;
    let (bufs, meta, fib) = (bufs.as_mut_slice(), &mut **meta, &*tables.fib);
    let mut last = None;
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let bytes = buf.bytes();
        let Some((key, ip)) = plain(bytes, meta.offset.into()) else {
            unusual(buf, meta, frames, tables, &mut last, slot);
            continue;
        };
        let Some(tunnel) = tunnel(tables, &mut last, meta, Some(key)) else {
            frames.drop(meta, slot, DropReason::GreNoTunnel);
            continue;
        };
        let whole = usize::from(meta.offset) + KEYED_LEN + total_length(ip);
        let to = destination(ip);
        fib.prefetch(to.into());
        if whole < bytes.len() {
            cut(buf, whole);
        }
        enter(meta, tunnel, KEYED_LEN, to);
        frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
    }
}

/// Key and inner header of what is most: a key and nothing else optional, IPv4 without options, nothing wrong with it.
#[inline(always)]
fn plain(bytes: &[u8], offset: usize) -> Option<(u32, &[u8; ipv4::LEN])> {
    let gre = bytes.get(offset..)?;
    let head = gre.first_chunk::<{ KEYED_LEN + ipv4::LEN }>()?;
    let ip = head.last_chunk::<{ ipv4::LEN }>()?;
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let key = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let keyed = first == (gre::KEY as u32) << 16 | gre::IPV4 as u32;
    (keyed && is_plain(ip, gre.len() - KEYED_LEN)).then_some((key, ip))
}

/// From outer to inner packet, `len` bytes of GRE header further on.
#[inline(always)]
fn enter(meta: &mut Meta, tunnel: DecapTunnel, len: usize, destination: u32) {
    meta.destination = destination;
    meta.offset += len as u16;
    meta.interface = tunnel.interface.0;
    meta.network = tunnel.redirects;
    meta.permits = permit::TRANSIT | permit::TUNNEL;
}

/// The whole path of a packet that is not plain.
#[cold]
#[inline(never)]
fn unusual<B: PacketBuf>(
    buf: &mut B,
    meta: &mut Meta,
    frames: &mut Frames,
    tables: &Tables,
    last: &mut Last,
    slot: u8,
) {
    let Some(bytes) = buf.bytes().get(usize::from(meta.offset)..) else {
        return frames.drop(meta, slot, DropReason::GreMalformed);
    };
    let (fields, inner) = match gre::parse(bytes) {
        Ok(parts) => parts,
        Err(Malformed::Checksum(_)) => return frames.drop(meta, slot, DropReason::GreChecksum),
        Err(_) => return frames.drop(meta, slot, DropReason::GreMalformed),
    };
    let Some(tunnel) = tunnel(tables, last, meta, fields.key) else {
        return frames.drop(meta, slot, DropReason::GreNoTunnel);
    };
    if fields.protocol == gre::NHRP {
        enter(meta, tunnel, fields.len, 0);
        meta.end = End::Nhrp;
        return frames.hand::<ME, { Node::Punt as u8 }>(slot);
    }
    if fields.protocol != gre::IPV4 {
        return frames.drop(meta, slot, DropReason::GreProtocol);
    }
    match check_ip(inner) {
        Ok(ip) => {
            enter(meta, tunnel, fields.len, ip.destination);
            cut(buf, usize::from(meta.offset) + ip.total);
            frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
        }
        Err(reason) => frames.drop(meta, slot, reason),
    }
}

/// The tunnel of a packet.
#[inline(always)]
fn tunnel(tables: &Tables, last: &mut Last, meta: &Meta, key: Option<u32>) -> Option<DecapTunnel> {
    let remote = if tables.decap.point_to_point { meta.outer_source } else { 0 };
    let key = DecapKey { local: meta.destination, key, remote };
    if let Some((found, tunnel)) = last
        && *found == key
    {
        return Some(*tunnel);
    }
    let tunnel = tables.decap.tunnel(key)?;
    *last = Some((key, tunnel));
    Some(tunnel)
}

fn cut<B: PacketBuf>(buf: &mut B, whole: usize) {
    let cut = buf.truncate(whole);
    debug_assert!(cut, "the total length is within the packet");
}
