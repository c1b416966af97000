//! `classify`: what arrived at a port.
//!
//! 1. An 802.1Q tag: taken off, so that all behind here see frames without one; the frame belongs to the interface of that VLAN of the
//!    port. VLAN 0 is a priority and no VLAN. No interface of this VLAN, a second tag or a provider's (IEEE 802.1ad): drop `no-interface`.
//! 2. Ethernet: not for us: drop `not-for-us`; for a group, or not IP (ARP): `punt` to the port's twin as it is. So neighbour discovery
//!    is the twin's: what asks for all is for a group, what asks us alone is for one of our addresses.
//! 3. IP header: version, lengths, of IPv4 the checksum, else drop `bad-header` or `bad-checksum`. The frame's padding is cut off.
//! 4. GRE to an address that a tunnel has in the table of the interface: `gre-decap`; a fragment of it: `reassemble`.
//! 5. All else: `ip-lookup` or `ip6-lookup`. Our own addresses are found there.

use wire::buf::PacketBuf;
use wire::{ethernet, ipv4, ipv6};

use super::{AHEAD_BYTES, AHEAD_DESCRIPTOR, check_ip, destination, is_plain, total_length};
use crate::DropReason;
use crate::adjacency::{LINK_LEN, TAGGED_LEN, permit};
use crate::burst::{End, Frames, Meta, family};
use crate::graph::Node;
use crate::packet::check_ip6;
use crate::ports::{InterfaceId, PortId};
use crate::tables::{PortInterface, Tables};
use crate::walk::Walk;

const ME: u8 = Node::Classify as u8;

/// An IPv4 header without options behind an Ethernet header.
const PLAIN_LEN: usize = LINK_LEN + ipv4::LEN;
/// No frame is for this station: of a port all of whose packets have tags.
const NO_STATION: u64 = u64::MAX;
/// What is no IPv4 address.
const NO_ADDRESS: u64 = u64::MAX;

/// Looks at the packets in slots from `first` on; they came by `port`.
#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, port: PortId, first: usize) {
    let end = walk.bufs.len();
    walk.counters.count_node(Node::Classify, end - first);
    let untagged = tables.of_port(port).map(|(id, interface)| Arrival::by(tables, id, interface));
    let station = untagged.map_or(NO_STATION, |arrival| arrival.station);
    let unusual = Unusual { tables, port, untagged };
    // Where it stands, so that it is copied in two pieces and not field by field.
    let new = unusual.untagged.as_ref().map_or(&Meta::NEW, |arrival| &arrival.meta);
    let table = new.table;
    let fib = &*tables.fibs[usize::from(table)].v4;

    let Walk { bufs, meta, frames, .. } = walk;
    let (bufs, meta) = (bufs.as_mut_slice(), &mut **meta);
    for buf in bufs[first..].iter().take(AHEAD_DESCRIPTOR) {
        buf.prefetch_descriptor();
    }
    for buf in bufs[first..].iter().take(AHEAD_BYTES) {
        buf.prefetch_bytes();
    }
    // Our NBMA address that the GRE packet before was for: most are for the same.
    let mut local = NO_ADDRESS;
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
            unusual.look(buf, meta, frames, slot);
            continue;
        };
        let to = destination(ip);
        *meta = *new;
        meta.destination = to;
        if ip[9] == ipv4::GRE && (u64::from(to) == local || tables.decap.v4.is_local(to, table)) {
            local = to.into();
            to_tunnel(ip, meta, frames, slot);
        } else {
            fib.prefetch(to.into());
            frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
        }
        let whole = LINK_LEN + total_length(ip);
        if whole < bytes.len() {
            cut_padding(buf, whole);
        }
    }
    if walk.observes() {
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
fn to_tunnel(ip: &[u8; ipv4::LEN], meta: &mut Meta, frames: &mut Frames, slot: u8) {
    meta.family = family::OUTER4;
    if u16::from_be_bytes([ip[6], ip[7]]) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0 {
        return frames.hand::<ME, { Node::Reassemble as u8 }>(slot);
    }
    meta.offset = PLAIN_LEN as u16;
    frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
}

/// What is the same for all that arrives by an interface.
#[derive(Clone, Copy)]
struct Arrival {
    meta: Meta,
    station: u64,
}

impl Arrival {
    fn by(tables: &Tables, id: InterfaceId, port: &PortInterface) -> Self {
        let transit = if port.forwarding { permit::TRANSIT } else { 0 };
        let meta = Meta {
            offset: LINK_LEN as u16,
            interface: id.0,
            table: tables.interface(id.0).map_or(0, |interface| interface.table),
            permits: transit | permit::TUNNEL,
            hops: 1,
            ..Meta::NEW
        };
        Self { meta, station: station(&port.mac) }
    }
}

/// The whole path of packets that are not plain.
struct Unusual<'a> {
    tables: &'a Tables,
    port: PortId,
    untagged: Option<Arrival>,
}

impl Unusual<'_> {
    #[cold]
    #[inline(never)]
    fn look<B: PacketBuf>(&self, buf: &mut B, meta: &mut Meta, frames: &mut Frames, slot: u8) {
        *meta = Meta::NEW;
        let arrival = match vlan(buf.bytes()) {
            Err(reason) => return frames.drop(meta, slot, reason),
            Ok(0) => self.untagged,
            Ok(vlan) => self
                .tables
                .of_vlan(self.port, vlan)
                .map(|(id, interface)| Arrival::by(self.tables, id, interface)),
        };
        let Some(Arrival { meta: new, station: us }) = arrival else {
            return frames.drop(meta, slot, DropReason::NoInterface);
        };
        *meta = new;
        untag(buf);
        let Ok((link, packet)) = ethernet::parse(buf.bytes()) else {
            return frames.drop(meta, slot, DropReason::Runt);
        };
        let (ours, ethertype) = (station(&link.destination) == us, link.ethertype());
        if !ours && !link.is_group() {
            return frames.drop(meta, slot, DropReason::NotForUs);
        }
        let seen = match ethertype {
            ethernet::IPV4 if ours => self.see_v4(packet, meta),
            ethernet::IPV6 if ours => self.see_v6(packet, meta),
            _ => Ok((Next::Host, packet.len())),
        };
        let (next, len) = match seen {
            Ok(seen) => seen,
            Err(reason) => return frames.drop(meta, slot, reason),
        };
        if LINK_LEN + len < buf.len() {
            cut_padding(buf, LINK_LEN + len);
        }
        match next {
            Next::Host => {
                meta.end = End::Host;
                meta.target = meta.interface;
                frames.hand::<ME, { Node::Punt as u8 }>(slot);
            }
            Next::Lookup => frames.hand::<ME, { Node::IpLookup as u8 }>(slot),
            Next::Lookup6 => frames.hand::<ME, { Node::Ip6Lookup as u8 }>(slot),
            Next::Reassemble => frames.hand::<ME, { Node::Reassemble as u8 }>(slot),
            Next::Decap => frames.hand::<ME, { Node::GreDecap as u8 }>(slot),
        }
    }

    /// Where an IPv4 packet goes, and how long it is.
    fn see_v4(&self, packet: &[u8], meta: &mut Meta) -> Result<(Next, usize), DropReason> {
        let ip = check_ip(packet)?;
        meta.destination = ip.destination;
        if ip.protocol != ipv4::GRE || !self.tables.decap.v4.is_local(ip.destination, meta.table) {
            return Ok((Next::Lookup, ip.total));
        }
        meta.family = family::OUTER4;
        if ip.fragment {
            return Ok((Next::Reassemble, ip.total));
        }
        meta.offset += ip.header as u16;
        Ok((Next::Decap, ip.total))
    }

    /// The same of an IPv6 packet. What is wrong with its extension headers is for the kernel to say, if it is for us at all.
    fn see_v6(&self, packet: &[u8], meta: &mut Meta) -> Result<(Next, usize), DropReason> {
        let ip = check_ip6(packet)?;
        meta.family = family::V6;
        let on = Ok((Next::Lookup6, ip.total));
        if !self.tables.decap.v6.is_local(ip.destination, meta.table) {
            return on;
        }
        // In this order: `upper` bounds the way over the headers that `is_under_way` goes too.
        let Ok(upper) = ipv6::upper(&packet[..ip.total]) else { return on };
        if is_under_way(packet) {
            return on;
        }
        let next = match upper.part {
            Some(part) if part.next_header == ipv6::GRE => Next::Reassemble,
            None if upper.protocol == ipv6::GRE => {
                meta.offset += upper.offset as u16;
                Next::Decap
            }
            _ => return on,
        };
        meta.family = family::OUTER6;
        Ok((next, ip.total))
    }
}

/// Where a packet that is not plain goes.
enum Next {
    /// To the twin of its interface, as it is.
    Host,
    Lookup,
    Lookup6,
    Reassemble,
    Decap,
}

/// Whether a routing header wants an IPv6 packet elsewhere still (RFC 8200 §4.4): then it is not ours to open.
fn is_under_way(packet: &[u8]) -> bool {
    let (mut kind, mut at) = (packet.get(6).copied(), ipv6::LEN);
    while let Some(ipv6::HOP_BY_HOP | ipv6::DESTINATION_OPTIONS | ipv6::ROUTING) = kind {
        let Some(&[next, len, _, left]) = packet.get(at..).and_then(<[u8]>::first_chunk) else { return true };
        if kind == Some(ipv6::ROUTING) && left != 0 {
            return true;
        }
        at += (usize::from(len) + 1) * 8;
        kind = Some(next);
    }
    false
}

/// The VLAN that a frame is of; 0 without a tag.
fn vlan(frame: &[u8]) -> Result<u16, DropReason> {
    let Ok((link, payload)) = ethernet::parse(frame) else { return Err(DropReason::Runt) };
    match link.ethertype() {
        ethernet::PROVIDER_VLAN => Err(DropReason::NoInterface),
        ethernet::VLAN => {
            let Ok((tag, _)) = ethernet::parse_tag(payload) else { return Err(DropReason::Runt) };
            let another = matches!(tag.ethertype(), ethernet::VLAN | ethernet::PROVIDER_VLAN);
            if another { Err(DropReason::NoInterface) } else { Ok(tag.vid()) }
        }
        _ => Ok(0),
    }
}

/// Takes the tag off a frame that has one: the addresses move up to the payload's own EtherType.
fn untag<B: PacketBuf>(buf: &mut B) {
    const ADDRESSES: usize = LINK_LEN - 2;
    const TAG: usize = TAGGED_LEN - LINK_LEN;
    let bytes = buf.bytes_mut();
    if bytes.len() >= TAGGED_LEN && bytes[ADDRESSES..LINK_LEN] == ethernet::VLAN.to_be_bytes() {
        bytes.copy_within(..ADDRESSES, TAG);
        let cut = buf.trim_front(TAG);
        debug_assert!(cut, "a tag is within the frame");
    }
}

fn cut_padding<B: PacketBuf>(buf: &mut B, whole: usize) {
    let cut = buf.truncate(whole);
    debug_assert!(cut, "the total length is within the frame");
}
