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
use wire::{Malformed, gre};

use super::check_ip;
use crate::DropReason;
use crate::adjacency::permit;
use crate::burst::End;
use crate::graph::Node;
use crate::tables::{DecapKey, DecapTunnel, Tables};
use crate::walk::Walk;

const ME: u8 = Node::GreDecap as u8;

pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables) {
    let frame = walk.frames.take(Node::GreDecap);
    walk.enter(Node::GreDecap, frame.slots());
    let mut last = None;
    for &slot in frame.slots() {
        let at = usize::from(slot);
        let meta = &mut walk.meta[at];
        let offset = usize::from(meta.offset);
        let Some(bytes) = walk.bufs[at].bytes().get(offset..) else {
            walk.drop(slot, DropReason::GreMalformed);
            continue;
        };
        let (fields, inner) = match gre::parse(bytes) {
            Ok(parts) => parts,
            Err(malformed) => {
                walk.drop(slot, reason(malformed));
                continue;
            }
        };
        let key = DecapKey { local: meta.destination, key: fields.key, remote: meta.outer_source };
        let Some(tunnel) = tunnel(tables, &mut last, key) else {
            walk.drop(slot, DropReason::GreNoTunnel);
            continue;
        };
        meta.interface = tunnel.interface.0;
        meta.offset += fields.len as u16;
        if fields.protocol != gre::IPV4 {
            if fields.protocol == gre::NHRP {
                meta.end = End::Nhrp;
                walk.frames.hand::<ME, { Node::Punt as u8 }>(slot);
            } else {
                walk.drop(slot, DropReason::GreProtocol);
            }
            continue;
        }
        let ip = match check_ip(inner) {
            Ok(ip) => ip,
            Err(reason) => {
                walk.drop(slot, reason);
                continue;
            }
        };
        meta.destination = ip.destination;
        meta.network = tunnel.redirects;
        meta.permits = permit::TRANSIT | permit::TUNNEL;
        if ip.total < inner.len() {
            let len = usize::from(meta.offset) + ip.total;
            let cut = walk.bufs[at].truncate(len);
            debug_assert!(cut, "the total length is within the packet");
        }
        walk.frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
    }
}

/// The tunnel of a packet; most are of the one that the packet before was of.
#[inline(always)]
fn tunnel(tables: &Tables, last: &mut Option<(DecapKey, DecapTunnel)>, key: DecapKey) -> Option<DecapTunnel> {
    if let Some((found, tunnel)) = last
        && *found == key
    {
        return Some(*tunnel);
    }
    let tunnel = tables.decap.tunnel(key)?;
    *last = Some((key, tunnel));
    Some(tunnel)
}

#[cold]
fn reason(malformed: Malformed) -> DropReason {
    match malformed {
        Malformed::Checksum(_) => DropReason::GreChecksum,
        _ => DropReason::GreMalformed,
    }
}
