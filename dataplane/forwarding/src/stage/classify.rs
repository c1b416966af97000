//! `classify`: what arrived at a port.
//!
//! 1. An 802.1Q tag: taken off, so that all behind here see frames without one; the frame belongs to the interface of that VLAN of the
//!    port. VLAN 0 is a priority and no VLAN. No interface of this VLAN, a second tag or a provider's (IEEE 802.1ad): drop `no-interface`.
//! 2. Ethernet: not for us: drop `not-for-us`; for a group, or not IP (ARP): `punt` to the port's twin as it is. So neighbour discovery
//!    is the twin's: what asks for all is for a group, what asks us alone is for one of our addresses.
//! 3. IP header: version, lengths, of IPv4 the checksum, else drop `bad-header` or `bad-checksum`. The frame's padding is cut off.
//!    A checksum that the port found right is not summed again; one that it found wrong is, so that each drop is our own finding.
//! 4. GRE to an address that a tunnel has in the table of the interface: `gre-decap`; a fragment of it: `reassemble`.
//! 5. To an address that a protected tunnel has: ESP, and ESP in UDP (port 4500, RFC 3948 §2.2: what begins with an SPI, which is not 0):
//!    `esp-decrypt`; a keepalive of a NAT: drop `nat-keepalive`; a fragment of ESP or of any UDP: `reassemble`, since the first one alone
//!    tells what it is. IKE goes on as all else.
//! 6. All else: `ip-lookup` or `ip6-lookup`. Our own addresses are found there.

use std::ops::Range;

use wire::buf::PacketBuf;
use wire::{esp, ethernet, ipv4, ipv6, udp};

use super::{Ahead, check_ip, destination, gre_decap, ip_lookup, is_summed, total_length};
use crate::DropReason;
use crate::adjacency::{LINK_LEN, TAGGED_LEN, permit};
use crate::burst::{AT_ONCE, End, Frames, Meta, Places, Train, family};
use crate::fib::Fib;
use crate::graph::Node;
use crate::packet::check_ip6;
use crate::ports::{InterfaceId, PortId};
use crate::sa::Sas;
use crate::tables::{PortInterface, Tables};
use crate::walk::Walk;

const ME: u8 = Node::Classify as u8;

/// An IPv4 header without options behind an Ethernet header.
const PLAIN_LEN: usize = LINK_LEN + ipv4::LEN;
/// No frame is for this station: of a port all of whose packets have tags.
const NO_STATION: u64 = u64::MAX;

/// What most of a port's packets are: a loop of its own looks at those, and says which are something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Most {
    /// To be looked up.
    Plain,
    /// GRE to this NBMA address of ours.
    Gre(u32),
    /// ESP to this one.
    Esp(u32),
}

/// What is the same for all packets of a burst; they came by one port.
pub(crate) struct Burst<'a> {
    unusual: Unusual<'a>,
    station: u64,
    /// Of those without a tag.
    table: u16,
    fib: &'a Fib,
    most: Most,
    /// What goes on at once: to be looked up, and GRE to one address of ours.
    plain: Train,
    in_tunnel: Places,
    local: u32,
}

impl<'a> Burst<'a> {
    /// The burst in slots from `first` on, whose first packets are asked for.
    pub(crate) fn new<B: PacketBuf>(
        walk: &Walk<B>,
        tables: &'a Tables,
        sas: &'a Sas,
        port: PortId,
        first: usize,
    ) -> Self {
        let ahead = Ahead { bufs: walk.bufs.get(first..).unwrap_or_default(), grows: walk.grows };
        (0..AT_ONCE).for_each(|at| ahead.ask(at));
        let untagged = tables.of_port(port).map(|(id, interface)| Arrival::by(tables, id, interface));
        let station = untagged.map_or(NO_STATION, |arrival| arrival.station);
        let table = untagged.map_or(Meta::NEW.table, |arrival| arrival.meta.table);
        let (most, decap) = (walk.most.get(usize::from(port.0)).copied(), &tables.decap.v4);
        let is_still = |most: &Most| match *most {
            Most::Plain => true,
            Most::Gre(to) => decap.is_local(to, table),
            Most::Esp(to) => decap.is_protected(to, table),
        };
        Self {
            unusual: Unusual { tables, sas, port, untagged },
            station,
            table,
            fib: &tables.fibs[usize::from(table)].v4,
            most: most.filter(is_still).unwrap_or(Most::Plain),
            plain: Train::EMPTY,
            in_tunnel: Places::NONE,
            local: 0,
        }
    }

    /// Looks at the packets in some of its slots, as many as a train has; `CHECKED`: by a port that checks IPv4 ([`crate::Ports::checks_ipv4`]).
    #[inline(never)]
    pub(crate) fn run<B: PacketBuf, const CHECKED: bool>(&mut self, walk: &mut Walk<B>, slots: Range<usize>) {
        walk.counters.count_node(Node::Classify, slots.len());
        let all = Places::up_to(slots.len());
        let Walk { bufs, meta: metas, frames, .. } = walk;
        let Some((bufs, ahead)) =
            bufs.get_mut(slots.start..).and_then(|bufs| bufs.split_at_mut_checked(slots.len()))
        else {
            return;
        };
        let Some(metas) = metas.get_mut(slots.clone()) else { return };
        let (station, new) = (self.station, self.unusual.new_meta());
        self.plain.slots = slots.clone();
        let others = match self.most {
            Most::Plain => {
                let to = &mut self.plain.destinations;
                let others = if self.unusual.tables.decap.v4.protects {
                    see_plain::<B, CHECKED, true>(bufs, to, station, self.fib)
                } else {
                    see_plain::<B, CHECKED, false>(bufs, to, station, self.fib)
                };
                self.plain.places = all.without(others);
                others
            }
            Most::Gre(to) => {
                let others = see_gre::<B, CHECKED>(bufs, station, to);
                (self.in_tunnel, self.local) = (all.without(others), to);
                others
            }
            Most::Esp(to) => {
                let new = Meta { destination: to, family: family::OUTER4, offset: PLAIN_LEN as u16, ..*new };
                let mut queue =
                    Protected { metas, frames, sas: self.unusual.sas, new, first: slots.start as u8 };
                see_esp::<B, CHECKED>(bufs, ahead, station, &mut queue)
            }
        };
        if !others.is_empty() {
            self.see_others::<B, CHECKED>(walk, others);
        }
        if walk.observes() {
            self.hand_on(walk);
            for slot in slots {
                walk.note(Node::Classify, slot as u8);
            }
        }
    }

    /// Looks at those that are not what most are, and remembers what to expect if they are more.
    #[inline(never)]
    fn see_others<B: PacketBuf, const CHECKED: bool>(&mut self, walk: &mut Walk<B>, others: Places) {
        let mut last = self.most;
        for at in others.iter() {
            last = self.see::<B, CHECKED>(walk, at).unwrap_or(last);
        }
        if others.count() * 2 > self.plain.slots.len()
            && let Some(most) = walk.most.get_mut(usize::from(self.unusual.port.0))
        {
            (self.most, *most) = (last, last);
        }
    }

    /// Looks at any packet; what it is, if there may be many of that.
    #[inline(always)]
    fn see<B: PacketBuf, const CHECKED: bool>(&mut self, walk: &mut Walk<B>, at: usize) -> Option<Most> {
        let Self { unusual, station, table, fib, .. } = *self;
        let (decap, new, slot) = (&unusual.tables.decap.v4, unusual.new_meta(), self.plain.slots.start + at);
        let Walk { bufs, meta: metas, frames, .. } = walk;
        let (buf, meta, slot) = (bufs.get_mut(slot)?, metas.get_mut(slot)?, slot as u8);
        let bytes = buf.bytes();
        let found_right = CHECKED && buf.is_ipv4_summed();
        let have = bytes.len().wrapping_sub(LINK_LEN);
        let is_there = |ip: &&[u8; ipv4::LEN]| (ipv4::LEN..=have).contains(&total_length(ip));
        let Some(ip) = plain(bytes, station, found_right).filter(is_there) else {
            unusual.look(buf, meta, frames, slot);
            return None;
        };
        let total = total_length(ip);
        let to = destination(ip);
        let (whole, most) = if ip[9] == ipv4::GRE && decap.is_local(to, table) {
            if self.in_tunnel.is_empty() {
                self.local = to;
            }
            *meta = Meta { destination: to, family: family::OUTER4, ..*new };
            if is_part(ip) {
                frames.hand::<ME, { Node::Reassemble as u8 }>(slot);
            } else if to == self.local {
                self.in_tunnel.insert(at);
            } else {
                meta.offset = PLAIN_LEN as u16;
                frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
            }
            (LINK_LEN + total, Most::Gre(to))
        } else if decap.protects && may_be_esp(ip, bytes) && decap.is_protected(to, table) {
            *meta = Meta { destination: to, ..*new };
            let whole = LINK_LEN + to_protected(ip, bytes, meta, frames, slot);
            prefetch_sa(unusual.sas, bytes, meta);
            (whole, Most::Esp(to))
        } else {
            fib.prefetch(to.into());
            if let Some(place) = self.plain.destinations.get_mut(at) {
                *place = to;
                self.plain.places.insert(at);
            }
            (LINK_LEN + total, Most::Plain)
        };
        if whole < bytes.len() {
            cut_padding(buf, whole);
        }
        Some(most)
    }

    /// What is most leaves at once.
    #[inline(always)]
    pub(crate) fn forward<B: PacketBuf>(&mut self, walk: &mut Walk<B>) {
        let Self { unusual, plain, in_tunnel, local, .. } = self;
        let new = unusual.new_meta();
        if !plain.places.is_empty() {
            ip_lookup::forward(walk, unusual.tables, unusual.sas, plain, new);
            plain.places = Places::NONE;
        }
        if !in_tunnel.is_empty() {
            gre_decap::forward(walk, unusual.tables, unusual.sas, &plain.slots, *in_tunnel, *local, new);
            *in_tunnel = Places::NONE;
        }
    }

    /// The same while somebody wants to see packets at nodes: each is handed on.
    #[cold]
    fn hand_on<B: PacketBuf>(&mut self, walk: &mut Walk<B>) {
        let (new, first) = (self.unusual.new_meta(), self.plain.slots.start);
        for at in self.plain.places.iter() {
            let destination = self.plain.destinations[at];
            walk.meta[first + at] = Meta { destination, ..*new };
            walk.frames.hand::<ME, { Node::IpLookup as u8 }>((first + at) as u8);
        }
        for at in self.in_tunnel.iter() {
            gre_decap::hand_in::<_, ME>(walk, (first + at) as u8, self.local, new);
        }
        (self.plain.places, self.in_tunnel) = (Places::NONE, Places::NONE);
    }
}

/// The loop for what is to be looked up, into whose places of `to` its destinations go; which packets are something else. `PROTECTS`: whether
/// ESP may be for a tunnel of ours.
#[inline(never)]
fn see_plain<B: PacketBuf, const CHECKED: bool, const PROTECTS: bool>(
    bufs: &mut [B],
    to: &mut [u32; AT_ONCE],
    station: u64,
    fib: &Fib,
) -> Places {
    let prefetch = fib.prefetches();
    Places::refused(bufs.iter_mut().zip(to), |_, (buf, to)| {
        let (bytes, found_right) = (buf.bytes(), CHECKED && buf.is_ipv4_summed());
        let Some(ip) = plain(bytes, station, found_right) else { return false };
        if ip[9] == ipv4::GRE || PROTECTS && may_be_esp(ip, bytes) {
            return false;
        }
        *to = destination(ip);
        prefetch((*to).into());
        let total = total_length(ip);
        fit(buf, total)
    })
}

/// The loop for GRE to our address `local`.
#[inline(never)]
fn see_gre<B: PacketBuf, const CHECKED: bool>(bufs: &mut [B], station: u64, local: u32) -> Places {
    Places::refused(bufs.iter_mut(), |_, buf| {
        let (bytes, found_right) = (buf.bytes(), CHECKED && buf.is_ipv4_summed());
        let Some(ip) = plain(bytes, station, found_right) else { return false };
        if ip[9] != ipv4::GRE || destination(ip) != local || is_part(ip) {
            return false;
        }
        let total = total_length(ip);
        fit(buf, total)
    })
}

/// Where ESP to one address of ours goes.
struct Protected<'a> {
    /// Of the packets that are looked at, of which `first` is the first one's slot.
    metas: &'a mut [Meta],
    frames: &'a mut Frames,
    sas: &'a Sas,
    new: Meta,
    first: u8,
}

/// The loop for ESP, not in UDP, to the address in `queue`.
#[inline(never)]
fn see_esp<B: PacketBuf, const CHECKED: bool>(
    bufs: &mut [B],
    ahead: &[B],
    station: u64,
    queue: &mut Protected<'_>,
) -> Places {
    let local = queue.new.destination;
    Places::refused(bufs.iter_mut().zip(&mut *queue.metas), |at, (buf, meta)| {
        if let Some(next) = ahead.get(at) {
            next.prefetch_received();
        }
        let (bytes, found_right) = (buf.bytes(), CHECKED && buf.is_ipv4_summed());
        let Some(ip) = plain(bytes, station, found_right) else { return false };
        if ip[9] != ipv4::ESP || destination(ip) != local || is_part(ip) {
            return false;
        }
        if let Some(spi) = bytes.get(PLAIN_LEN..).and_then(<[u8]>::first_chunk) {
            queue.sas.inbound.prefetch(u32::from_be_bytes(*spi));
        }
        let total = total_length(ip);
        if !fit(buf, total) {
            return false;
        }
        *meta = queue.new;
        queue.frames.hand::<ME, { Node::EspDecrypt as u8 }>(queue.first.wrapping_add(at as u8));
        true
    })
}

/// An Ethernet address as the first eight bytes of a frame have it, without the two that follow: at the upper end of a word.
#[inline(always)]
fn station(mac: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *mac;
    u64::from_le_bytes([0, 0, a, b, c, d, e, f])
}

/// The header of what is most: IPv4 without options, to our station, nothing wrong with it but perhaps its length ([`fit`]); not summed if the
/// port found it right.
#[inline(always)]
fn plain(bytes: &[u8], us: u64, found_right: bool) -> Option<&[u8; ipv4::LEN]> {
    const ETHERTYPE: [u8; 2] = ethernet::IPV4.to_be_bytes();
    let frame = bytes.first_chunk::<PLAIN_LEN>()?;
    let to = frame.first_chunk().map(|to| u64::from_le_bytes(*to) << 16)?;
    let (kind, ip) = (frame.get(LINK_LEN - 2..)?.first_chunk::<2>()?, frame.last_chunk::<{ ipv4::LEN }>()?);
    let is_plain = to == us && *kind == ETHERTYPE && ip[0] == 0x45 && (found_right || is_summed(ip));
    is_plain.then_some(ip)
}

/// Cuts off what is behind an IP packet of this length; `false`, and nothing is done, if it is not all there, or shorter than its header.
#[inline(always)]
fn fit<B: PacketBuf>(buf: &mut B, total: usize) -> bool {
    let have = buf.len() - LINK_LEN;
    total == have || cut_padded(buf, total, have)
}

#[inline(never)]
fn cut_padded<B: PacketBuf>(buf: &mut B, total: usize, have: usize) -> bool {
    let is_there = (ipv4::LEN..have).contains(&total);
    if is_there {
        cut_padding(buf, LINK_LEN + total);
    }
    is_there
}

/// Whether a packet without options is ESP, or may be ESP in UDP.
#[inline(always)]
fn may_be_esp(ip: &[u8; ipv4::LEN], bytes: &[u8]) -> bool {
    match ip[9] {
        ipv4::ESP => true,
        ipv4::UDP => {
            let port = bytes.get(PLAIN_LEN + 2..PLAIN_LEN + 4);
            is_part(ip) || port.is_some_and(|port| *port == udp::IKE_NAT.to_be_bytes())
        }
        _ => false,
    }
}

/// Whether an IPv4 packet is a fragment.
#[inline(always)]
fn is_part(ip: &[u8; ipv4::LEN]) -> bool {
    u16::from_be_bytes([ip[6], ip[7]]) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) != 0
}

/// ESP, or UDP that may be, for us, without options; its length.
#[inline(always)]
fn to_protected(ip: &[u8; ipv4::LEN], bytes: &[u8], meta: &mut Meta, frames: &mut Frames, slot: u8) -> usize {
    let total = total_length(ip);
    if is_part(ip) {
        meta.family = family::OUTER4;
        frames.hand::<ME, { Node::Reassemble as u8 }>(slot);
        return total;
    }
    if ip[9] == ipv4::ESP {
        meta.family = family::OUTER4;
        meta.offset = PLAIN_LEN as u16;
        frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot);
        return total;
    }
    let datagram = bytes.get(PLAIN_LEN..LINK_LEN + total).unwrap_or_default();
    match in_udp(datagram) {
        InUdp::Esp(len) => {
            meta.family = family::OUTER4 | family::IN_UDP;
            meta.offset = (PLAIN_LEN + udp::LEN) as u16;
            frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot);
            ipv4::LEN + len
        }
        InUdp::Keepalive => {
            frames.drop(meta, slot, DropReason::NatKeepalive);
            total
        }
        InUdp::Else => {
            frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
            total
        }
    }
}

/// Asks the cache for the SA of a packet for esp-decrypt. (Of what is something else it is as good a guess as any.)
#[inline(always)]
fn prefetch_sa(sas: &Sas, bytes: &[u8], meta: &Meta) {
    if let Some(spi) = bytes.get(usize::from(meta.offset)..).and_then(<[u8]>::first_chunk) {
        sas.inbound.prefetch(u32::from_be_bytes(*spi));
    }
}

/// What a datagram for a protected address is.
pub(super) enum InUdp {
    /// ESP; the length of the datagram, at most what is there.
    Esp(usize),
    Keepalive,
    /// IKE, or anything else that the kernel knows about.
    Else,
}

/// Looks at a whole datagram.
#[inline(always)]
pub(super) fn in_udp(datagram: &[u8]) -> InUdp {
    let Ok((header, _)) = udp::parse(datagram) else { return InUdp::Else };
    if header.destination_port() != udp::IKE_NAT {
        return InUdp::Else;
    }
    let len = usize::from(header.length());
    match esp::in_udp(datagram.get(udp::LEN..len).unwrap_or_default()) {
        esp::InUdp::Esp(_) => InUdp::Esp(len),
        esp::InUdp::Keepalive => InUdp::Keepalive,
        esp::InUdp::Ike(_) | esp::InUdp::Neither => InUdp::Else,
    }
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
#[derive(Clone, Copy)]
struct Unusual<'a> {
    tables: &'a Tables,
    sas: &'a Sas,
    port: PortId,
    untagged: Option<Arrival>,
}

impl Unusual<'_> {
    /// What is known of a packet without a tag before it is looked at.
    #[inline(always)]
    fn new_meta(&self) -> &Meta {
        self.untagged.as_ref().map_or(&Meta::NEW, |arrival| &arrival.meta)
    }

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
            Next::Decrypt => {
                prefetch_sa(self.sas, buf.bytes(), meta);
                frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot);
            }
        }
    }

    /// Where an IPv4 packet goes, and how long it is.
    fn see_v4(&self, packet: &[u8], meta: &mut Meta) -> Result<(Next, usize), DropReason> {
        let ip = check_ip(packet)?;
        meta.destination = ip.destination;
        let decap = &self.tables.decap.v4;
        let is_ours = match ip.protocol {
            ipv4::GRE => decap.is_local(ip.destination, meta.table),
            ipv4::ESP | ipv4::UDP => decap.is_protected(ip.destination, meta.table),
            _ => false,
        };
        if !is_ours {
            return Ok((Next::Lookup, ip.total));
        }
        if ip.fragment {
            meta.family = family::OUTER4;
            return Ok((Next::Reassemble, ip.total));
        }
        let found = open(ip.protocol, packet.get(ip.header..ip.total).unwrap_or_default())?;
        let Some(Opened { next, before, len, in_udp }) = found else { return Ok((Next::Lookup, ip.total)) };
        meta.family = family::OUTER4 | in_udp;
        meta.offset += (ip.header + before) as u16;
        Ok((next, ip.header + len))
    }

    /// The same of an IPv6 packet. What is wrong with its extension headers is for the kernel to say, if it is for us at all.
    fn see_v6(&self, packet: &[u8], meta: &mut Meta) -> Result<(Next, usize), DropReason> {
        let ip = check_ip6(packet)?;
        meta.family = family::V6;
        let on = Ok((Next::Lookup6, ip.total));
        let decap = &self.tables.decap.v6;
        if !decap.is_local(ip.destination, meta.table) {
            return on;
        }
        let protected = decap.is_protected(ip.destination, meta.table);
        // In this order: `upper` bounds the way over the headers that `is_under_way` goes too.
        let Ok(upper) = ipv6::upper(&packet[..ip.total]) else { return on };
        if is_under_way(packet) {
            return on;
        }
        let is_ours = |protocol| match protocol {
            ipv6::GRE => true,
            ipv6::ESP | ipv6::UDP => protected,
            _ => false,
        };
        let protocol = upper.part.map_or(upper.protocol, |part| part.next_header);
        if !is_ours(protocol) {
            return on;
        }
        if upper.part.is_some() {
            meta.family = family::OUTER6;
            return Ok((Next::Reassemble, ip.total));
        }
        let found = open(protocol, packet.get(upper.offset..ip.total).unwrap_or_default())?;
        let Some(Opened { next, before, len, in_udp }) = found else { return on };
        meta.family = family::OUTER6 | in_udp;
        meta.offset += (upper.offset + before) as u16;
        Ok((next, upper.offset + len))
    }
}

/// What GRE, ESP or UDP for us turns out to be.
struct Opened {
    next: Next,
    /// What stands before the next header, and how long all of it is.
    before: usize,
    len: usize,
    /// [`family::IN_UDP`], or nothing.
    in_udp: u8,
}

/// Looks at what an IP packet for us has in it; `None`: it is for the kernel.
fn open(protocol: u8, payload: &[u8]) -> Result<Option<Opened>, DropReason> {
    let len = payload.len();
    Ok(match protocol {
        ipv4::UDP => match in_udp(payload) {
            InUdp::Esp(len) => {
                Some(Opened { next: Next::Decrypt, before: udp::LEN, len, in_udp: family::IN_UDP })
            }
            InUdp::Keepalive => return Err(DropReason::NatKeepalive),
            InUdp::Else => None,
        },
        ipv4::ESP => Some(Opened { next: Next::Decrypt, before: 0, len, in_udp: 0 }),
        _ => Some(Opened { next: Next::Decap, before: 0, len, in_udp: 0 }),
    })
}

/// Where a packet that is not plain goes.
enum Next {
    /// To the twin of its interface, as it is.
    Host,
    Lookup,
    Lookup6,
    Reassemble,
    Decap,
    Decrypt,
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
