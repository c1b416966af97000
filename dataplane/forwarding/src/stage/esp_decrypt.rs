//! `esp-decrypt`: ESP for us (RFC 4303 §3.4, RFC 4106).
//!
//! 1. Not even header, trailer and ICV: drop `esp-malformed`. The SPI names a worker and a slot of its SAs ([`model::sa::Spi`]): another
//!    worker: handed off to it (its queue is full: drop `handoff-full`).
//! 2. No SA with this SPI: drop `no-sa`. From another peer, or in UDP as against not: drop `sa-mismatch`. (The SA is in UDP: a NAT may
//!    have given its peer another address or port; that is found out when the packet is authentic.)
//! 3. Came before, or is too old: drop `replayed`. With ESN the high half of the sequence number is inferred (RFC 4303 §A2.2).
//! 4. All packets are opened in one burst. Not authentic: drop `bad-icv`.
//! 5. The window again, and now it moves: of two copies in one burst one has come before: drop `replayed`. A lifetime has ended: drop
//!    `lifetime-ended`.
//! 6. The newest packet of an SA, from elsewhere than its peer: a notice, once a second.
//! 7. Padding and what is behind it are cut off; wrong: drop `esp-malformed`. A dummy: drop `esp-dummy`. Transport mode has GRE in it;
//!    tunnel mode an IP packet between the same addresses as the outer one's SA, not a fragment, and GRE in that; all else: drop
//!    `sa-mismatch`.
//! 8. `gre-decap`, with what the SA protects: only a tunnel of that takes it.

use std::net::IpAddr;

use wire::buf::PacketBuf;
use wire::{esp, ipv4, ipv6};

use super::check_ip;
use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::burst::{End, Meta, family};
use crate::graph::Node;
use crate::packet::{addresses, check_ip6};
use crate::ports::{Notice, Ports};
use crate::sa::{Found, Job, Sas, open};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::EspDecrypt as u8;

#[inline(never)]
pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, sas: &mut Sas, ports: &mut P) {
    let frame = walk.frames.take(Node::EspDecrypt);
    walk.enter(frame);
    let Walk { bufs, meta, frames, jobs, .. } = walk;
    let (bufs, metas) = (bufs.as_mut_slice(), &mut **meta);
    for at in frame.places() {
        let slot = usize::from(frames.slot(frame, at));
        if let Some(header) = bufs.get(slot).and_then(|buf| head(buf, &metas[slot])) {
            sas.inbound.prefetch(header.spi(), header.sequence());
        }
    }
    let workers = tables.lines.len().max(1) as u32;
    jobs.clear();
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&bufs[usize::from(slot)], &mut metas[usize::from(slot)]);
        let Some(header) = head(buf, meta) else {
            frames.drop(meta, slot, DropReason::EspMalformed);
            continue;
        };
        let worker = worker_of(header.spi(), workers);
        if worker != sas.worker as u32 {
            meta.end = End::HandDecrypt;
            meta.target = worker as u16;
            continue;
        }
        match look(buf.bytes(), meta, header, slot, sas) {
            Ok(job) => jobs.push(job),
            Err(reason) => frames.drop(meta, slot, reason),
        }
    }
    open(sas, bufs, jobs);
    // Into the hands of the loop: what it calls wants the walk.
    let jobs = std::mem::take(&mut walk.jobs);
    for job in &jobs {
        finish(walk, sas, ports, job);
    }
    walk.jobs = jobs;
}

/// The header of the packet, if there is enough behind it.
#[inline(always)]
fn head<'a, B: PacketBuf>(buf: &'a B, meta: &Meta) -> Option<&'a esp::Header> {
    esp::parse(buf.bytes().get(usize::from(meta.offset)..)?).ok().map(|(header, _)| header)
}

/// Whose SA it is, of so many workers.
#[inline(always)]
fn worker_of(spi: u32, workers: u32) -> u32 {
    if workers == 1 { 0 } else { (spi >> SLOT_BITS & (WORKERS - 1)) % workers }
}

const SLOT_BITS: u32 = model::sa::Spi::SLOTS.trailing_zeros();
const WORKERS: u32 = model::sa::Spi::WORKERS as u32;

/// What can be said of a packet before it is opened.
#[inline(always)]
fn look(bytes: &[u8], meta: &Meta, header: &esp::Header, slot: u8, sas: &Sas) -> Result<Job, DropReason> {
    let found = sas.inbound.find(header.spi()).ok_or(DropReason::NoSa)?;
    let moved = is_elsewhere(bytes, meta, &found)?;
    let sequence = sas.inbound.admit(found.spi, header.sequence()).ok_or(DropReason::Replayed)?;
    Ok(Job::inbound(slot, meta.offset + esp::LEN as u16, &found, sequence, header.iv(), moved))
}

/// Whether a packet came from elsewhere than its SA's peer, if such a packet may.
#[inline(always)]
fn is_elsewhere(bytes: &[u8], meta: &Meta, found: &Found) -> Result<bool, DropReason> {
    let in_udp = meta.family & family::IN_UDP != 0;
    let (from, port) = source(bytes, meta).ok_or(DropReason::EspMalformed)?;
    match (in_udp, found.port != 0) {
        (true, true) => Ok((from, port) != (found.remote, found.port)),
        (false, false) if from == found.remote => Ok(false),
        _ => Err(DropReason::SaMismatch),
    }
}

/// Source of the outer header and, in UDP, its port.
#[inline(always)]
fn source(bytes: &[u8], meta: &Meta) -> Option<(IpAddr, u16)> {
    let (from, _) = addresses(bytes.get(LINK_LEN..)?)?;
    if meta.family & family::IN_UDP == 0 {
        return Some((from, 0));
    }
    let udp = usize::from(meta.offset).checked_sub(wire::udp::LEN)?;
    Some((from, u16::from_be_bytes(*bytes.get(udp..)?.first_chunk()?)))
}

/// What becomes of a packet that was opened.
#[inline(always)]
fn finish<P: Ports>(walk: &mut Walk<P::Buf>, sas: &mut Sas, ports: &mut P, job: &Job) {
    let (slot, at) = (job.packet, usize::from(job.packet));
    let (text, len) = (usize::from(job.text), walk.bufs[at].len());
    if !job.authentic {
        sas.inbound.refuse(job.spi);
        return walk.drop(slot, DropReason::BadIcv);
    }
    let end = len.saturating_sub(esp::ICV);
    let newest = match sas.inbound.accept(job.spi, job.sequence, end.saturating_sub(text)) {
        Ok(newest) => newest,
        Err(reason) => return walk.drop(slot, reason),
    };
    if job.moved && newest {
        note_move(walk, ports, job);
    }
    let (buf, meta) = (&mut walk.bufs[at], &mut walk.meta[at]);
    match payload(buf.bytes(), meta, text..end, sas, job.spi) {
        Ok((gre, end)) => {
            let cut = buf.truncate(end);
            debug_assert!(cut, "the payload is within the packet");
            meta.offset = gre as u16;
            meta.domain = job.domain;
            walk.frames.hand::<ME, { Node::GreDecap as u8 }>(slot);
        }
        Err(reason) => walk.drop(slot, reason),
    }
}

/// The control plane is told where an SA's peer is now.
#[cold]
#[inline(never)]
fn note_move<P: Ports>(walk: &mut Walk<P::Buf>, ports: &mut P, job: &Job) {
    let at = usize::from(job.packet);
    let Some((nbma, port)) = source(walk.bufs[at].bytes(), &walk.meta[at]) else { return };
    if walk.moves.pass(walk.now, job.spi.into()) {
        // A full queue loses the notice; the next packet in a second makes it again.
        ports.notice(Notice::SaMoved { spi: job.spi, nbma, port });
    }
}

/// Where GRE is in a decrypted text, and where it ends.
#[inline(always)]
fn payload(
    bytes: &[u8],
    meta: &Meta,
    text: std::ops::Range<usize>,
    sas: &Sas,
    spi: u32,
) -> Result<(usize, usize), DropReason> {
    let plain = bytes.get(text.clone()).ok_or(DropReason::EspMalformed)?;
    let trailer = esp::trailer(plain).map_err(|_| DropReason::EspMalformed)?;
    if trailer.next_header == ipv4::GRE {
        // RFC 4301 §5.2: as the SA is, so is the packet.
        let mode = sas.inbound.find(spi).map(|found| found.tunnel);
        return if mode == Some(false) {
            Ok((text.start, text.start + trailer.payload))
        } else {
            Err(DropReason::SaMismatch)
        };
    }
    let (start, end) = tunnel_mode(bytes, meta, &plain[..trailer.payload], trailer.next_header, sas, spi)?;
    Ok((text.start + start, text.start + end))
}

/// The same of a packet that has something else in it than GRE: places in `packet`.
#[inline(never)]
fn tunnel_mode(
    bytes: &[u8],
    meta: &Meta,
    packet: &[u8],
    next_header: u8,
    sas: &Sas,
    spi: u32,
) -> Result<(usize, usize), DropReason> {
    let malformed = |_| DropReason::EspMalformed;
    let (gre, end) = match next_header {
        esp::NO_NEXT_HEADER => return Err(DropReason::EspDummy),
        esp::IPV4 => {
            let ip = check_ip(packet).map_err(malformed)?;
            if ip.protocol != ipv4::GRE || ip.fragment {
                return Err(DropReason::SaMismatch);
            }
            (ip.header, ip.total)
        }
        esp::IPV6 => {
            let total = check_ip6(packet).map_err(malformed)?.total;
            let upper = ipv6::upper(&packet[..total]).map_err(|_| DropReason::EspMalformed)?;
            if upper.protocol != ipv6::GRE || upper.part.is_some() {
                return Err(DropReason::SaMismatch);
            }
            (upper.offset, total)
        }
        _ => return Err(DropReason::SaMismatch),
    };
    let found = sas.inbound.find(spi).filter(|found| found.tunnel).ok_or(DropReason::SaMismatch)?;
    let outer = addresses(bytes.get(LINK_LEN..).unwrap_or_default());
    let ours = outer.map(|(_, to)| (found.remote, to));
    debug_assert!(meta.family & (family::OUTER4 | family::OUTER6) != 0);
    if addresses(packet) == ours { Ok((gre, end)) } else { Err(DropReason::SaMismatch) }
}
