//! `esp-decrypt`: ESP for us (RFC 4303 §3.4, RFC 4106).
//!
//! 1. Not even header, trailer and ICV: drop `esp-malformed`. The SPI names a worker and a slot of its SAs ([`model::sa::Spi`]): another
//!    worker: handed off to it (its queue is full: drop `handoff-full`).
//! 2. No SA with this SPI: drop `no-sa`. From another peer, or in UDP as against not: drop `sa-mismatch`. (The SA is in UDP: a NAT may
//!    have given its peer another address or port; that is found out when the packet is authentic.)
//! 3. Came before, or is too old: drop `replayed`. With ESN the high half of the sequence number is inferred (RFC 4303 §A2.2).
//! 4. It is opened. Not authentic: drop `bad-icv`.
//! 5. The window again, and now it moves: of two copies close to each other one has come before: drop `replayed`. A lifetime has ended:
//!    drop `lifetime-ended`.
//! 6. The newest packet of an SA, from elsewhere than its peer: a notice, once a second.
//! 7. Padding and what is behind it are cut off; wrong: drop `esp-malformed`. A dummy: drop `esp-dummy`. Transport mode has GRE in it;
//!    tunnel mode an IP packet between the same addresses as the outer one's SA, not a fragment, and GRE in that; all else: drop
//!    `sa-mismatch`.
//! 8. `gre-decap`, with what the SA protects: only a tunnel of that takes it. Its work with what is most is done here, while the packet is
//!    at hand, unless somebody wants to see packets at nodes.
//!
//! 1 to 3 are done some packets ahead of the rest, so that key and text are on their way from memory ([`aead::Burst`]).

use std::net::IpAddr;

use model::time::Instant;
use wire::buf::PacketBuf;
use wire::{esp, ipv4, ipv6};

use super::check_ip;
use super::gre_decap::{Inside, Plainly};
use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::burst::{End, Frames, Meta, SLOTS, family};
use crate::graph::Node;
use crate::limit::Limit;
use crate::packet::{addresses, check_ip6};
use crate::ports::{Notice, Ports};
use crate::sa::{InboundSa, Jobs, Number, Opener, Sas};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::EspDecrypt as u8;

#[inline(never)]
pub(crate) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, sas: &mut Sas, ports: &mut P) {
    let frame = walk.frames.take(Node::EspDecrypt);
    walk.enter(frame);
    let workers = tables.lines.len().max(1) as u32;
    let inside = Inside::new(tables, walk.observes());
    let tunnels = if walk.observes() { None } else { Some(Plainly::new(tables)) };
    let Walk { bufs, meta, frames, moves, now, .. } = walk;
    let Sas { worker, provider, inbound, .. } = &mut *sas;
    let (slots, len) = (frames.slots(frame), frame.len());
    let (opener, worker, now, jobs) = (inbound.opener(), *worker as u32, *now, Jobs::new());
    let mut opening = Opening {
        bufs,
        meta,
        frames,
        slots,
        len,
        moves,
        now,
        ports,
        sas: opener,
        worker,
        workers,
        jobs,
        refused: Jobs::new(),
        inside,
        tunnels,
        taken_out: 0,
    };
    aead::open(*provider, &mut opening);
    let Opening { inside, taken_out, .. } = opening;
    if taken_out != 0 {
        walk.counters.count_node(Node::GreDecap, taken_out);
    }
    if !inside.is_empty() {
        walk.end_lap(Some(Node::EspDecrypt));
        inside.forward(walk, sas);
    }
}

/// The burst, by tables that live longer.
struct Opening<'a, 't, P: Ports> {
    bufs: &'a mut [P::Buf],
    meta: &'a mut [Meta; SLOTS],
    frames: &'a mut Frames,
    /// The packets' slots, so many.
    slots: [u8; SLOTS],
    len: usize,
    moves: &'a mut Limit,
    now: Instant,
    ports: &'a mut P,
    sas: Opener<'a>,
    /// This one, of so many.
    worker: u32,
    workers: u32,
    jobs: Jobs<Job<'a>>,
    /// Why there is none.
    refused: Jobs<DropReason>,
    /// What most packets are taken out of as soon as they are opened, to be looked up together.
    inside: Inside<'t>,
    /// The same of other tunnels, and of what is not plain in itself; `None` while somebody wants to see packets at gre-decap.
    tunnels: Option<Plainly<'t>>,
    /// How many were of the latter.
    taken_out: usize,
}

/// A packet that may be opened.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    sa: InboundSa<'a>,
    key: &'a aead::Key,
    number: Number,
    iv: u64,
    spi: u32,
    /// Where the text starts in the buffer, behind the IV, and where it ends, before the ICV.
    text: u16,
    end: u16,
    slot: u8,
    /// Whether it came from elsewhere than its SA's packets do.
    moved: bool,
}

impl<P: Ports> aead::Burst for Opening<'_, '_, P> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn ahead(&mut self, at: usize) -> Option<aead::Soon> {
        self.approach(at);
        if at >= self.len {
            return None;
        }
        let slot = self.slots[usize::from(at as u8)];
        // Whatever is found, the place says what becomes of this packet, and nothing of the one that had it before.
        let bytes = self.bufs.get(usize::from(slot)).map(PacketBuf::bytes).unwrap_or_default();
        let meta = &self.meta[usize::from(slot)];
        match look(bytes, meta, slot, &self.sas) {
            Ok(job) => {
                *self.jobs.at(at) = Some(job);
                Some(aead::Soon::of(job.key, bytes.get(usize::from(job.text)..)?))
            }
            Err(reason) => {
                (*self.jobs.at(at), *self.refused.at(at)) = (None, Some(reason));
                None
            }
        }
    }

    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<aead::Packet<'_>> {
        let Some(Job { sa, key, number, iv, spi, text, slot, .. }) = *self.jobs.at(at) else {
            self.refuse(at);
            return None;
        };
        let text = self.bufs.get_mut(usize::from(slot))?.bytes_mut().get_mut(usize::from(text)..)?;
        let sequence = number.sequence;
        Some(aead::Packet { key, salt: sa.salt(), iv, sequence, spi, esn: sa.is_esn(), text })
    }

    fn sealed(&mut self, _: usize) {}

    #[inline(always)]
    fn opened(&mut self, at: usize, authentic: bool) {
        let Some(job) = self.jobs.at(at) else { return };
        let (sa, number, slot) = (job.sa, job.number, job.slot);
        let (text, end) = (usize::from(job.text), usize::from(job.end));
        if !authentic {
            sa.refuse();
            return self.drop(slot, DropReason::BadIcv);
        }
        let moved = job.moved;
        if let Err(reason) = self.sas.accept(sa, number, end - text) {
            return self.drop(slot, reason);
        }
        if moved {
            self.note_move(at);
        }
        let meta = &self.meta[usize::from(slot)];
        if let Some(buf) = self.bufs.get_mut(usize::from(slot))
            && self.inside.take(buf, (meta, slot), sa, text..end)
        {
            return;
        }
        self.finish_any(at);
    }
}

/// Packets ahead of the one that is looked at whose descriptor, first line and SA are asked for: classify has seen all of them, but that was
/// a burst ago, and each leads to the next.
const AHEAD_DESCRIPTOR: usize = 6;
const AHEAD_BYTES: usize = 4;

impl<P: Ports> Opening<'_, '_, P> {
    /// Asks the first cache for what the look at the packets behind a place wants.
    #[inline(always)]
    fn approach(&self, at: usize) {
        let slot = |at| usize::from(self.slots[usize::from(at as u8)]);
        if let Some(buf) = self.bufs.get(slot(at + AHEAD_DESCRIPTOR)) {
            buf.prefetch_descriptor();
        }
        if let Some(buf) = self.bufs.get(slot(at + AHEAD_BYTES)) {
            buf.prefetch_bytes();
        }
    }

    /// What becomes of a packet that was opened and is not plain, or of another tunnel than most.
    #[inline(never)]
    fn finish_any(&mut self, at: usize) {
        let Some(job) = *self.jobs.at(at) else { return };
        if let Err(reason) = self.take_out(&job) {
            self.drop(job.slot, reason);
        }
    }

    fn take_out(&mut self, job: &Job<'_>) -> Result<(), DropReason> {
        let buf = self.bufs.get_mut(usize::from(job.slot)).ok_or(DropReason::StaleIndex)?;
        let meta = &mut self.meta[usize::from(job.slot)];
        let (gre, end) = payload(buf.bytes(), meta, job.text.into()..job.end.into(), &job.sa)?;
        let cut = buf.truncate(end);
        debug_assert!(cut, "the payload is within the packet");
        meta.offset = gre as u16;
        meta.domain = job.sa.domain();
        match self.tunnels.as_mut().and_then(|tunnels| tunnels.take_out_decrypted(buf, meta)) {
            Some(taken) => {
                self.taken_out += 1;
                taken?;
                self.frames.hand::<{ Node::GreDecap as u8 }, { Node::IpLookup as u8 }>(job.slot);
            }
            None => self.frames.hand::<ME, { Node::GreDecap as u8 }>(job.slot),
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn drop(&mut self, slot: u8, reason: DropReason) {
        self.frames.drop(&mut self.meta[usize::from(slot)], slot, reason);
    }

    /// What is not opened here: it is another worker's, or something is wrong with it.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, at: usize) {
        let (slot, Some(reason)) = (self.slots[usize::from(at as u8)], *self.refused.at(at)) else { return };
        let meta = &mut self.meta[usize::from(slot)];
        let bytes = self.bufs.get(usize::from(slot)).map(PacketBuf::bytes).unwrap_or_default();
        let spi = bytes.get(usize::from(meta.offset)..).and_then(<[u8]>::first_chunk);
        let owner = spi.map_or(self.worker, |spi| worker_of(u32::from_be_bytes(*spi), self.workers));
        if reason == DropReason::NoSa && owner != self.worker {
            meta.end = End::HandDecrypt;
            meta.target = owner as u16;
            return;
        }
        self.drop(slot, reason);
    }

    /// The control plane is told where an SA's peer is now, if the packet is its newest.
    #[cold]
    #[inline(never)]
    fn note_move(&mut self, at: usize) {
        let Some(Job { sa, number, spi, slot, .. }) = *self.jobs.at(at) else { return };
        if !sa.is_newest(number) {
            return;
        }
        let bytes = self.bufs.get(usize::from(slot)).map(PacketBuf::bytes).unwrap_or_default();
        let Some((nbma, port)) = source(bytes, &self.meta[usize::from(slot)]) else { return };
        if self.moves.pass(self.now, spi.into()) {
            // A full queue loses the notice; the next packet in a second makes it again.
            self.ports.notice(Notice::SaMoved { spi, nbma, port });
        }
    }
}

/// Whose SA it is, of so many workers.
#[inline(always)]
fn worker_of(spi: u32, workers: u32) -> u32 {
    if workers == 1 { 0 } else { (spi >> SLOT_BITS & (WORKERS - 1)) % workers }
}

const SLOT_BITS: u32 = model::sa::Spi::SLOTS.trailing_zeros();
const WORKERS: u32 = model::sa::Spi::WORKERS as u32;

/// What can be said of a packet before it is opened. An SA that is found is this worker's: others have theirs elsewhere.
#[inline(always)]
fn look<'a>(bytes: &[u8], meta: &Meta, slot: u8, sas: &Opener<'a>) -> Result<Job<'a>, DropReason> {
    let esp = bytes.get(usize::from(meta.offset)..).and_then(|esp| esp::parse(esp).ok());
    let (header, _) = esp.ok_or(DropReason::EspMalformed)?;
    let spi = header.spi();
    let (sa, key) = sas.find(spi).ok_or(DropReason::NoSa)?;
    let moved = is_elsewhere(bytes, meta, sa)?;
    let number = sas.admit(sa, spi, header.sequence()).ok_or(DropReason::Replayed)?;
    let (text, end) = (meta.offset + esp::LEN as u16, (bytes.len() - esp::ICV) as u16);
    Ok(Job { sa, key, number, iv: header.iv(), spi, text, end, slot, moved })
}

/// Whether a packet came from elsewhere than its SA's peer, if such a packet may.
#[inline(always)]
fn is_elsewhere(bytes: &[u8], meta: &Meta, sa: InboundSa<'_>) -> Result<bool, DropReason> {
    // What is most: over IPv4, by itself, from where it is to come from.
    if meta.family & (family::OUTER6 | family::IN_UDP) == 0
        && source_v4(bytes).is_some_and(|from| sa.is_plainly_from(from))
    {
        return Ok(false);
    }
    is_elsewhere_at_all(bytes, meta, sa)
}

/// The same for all.
#[inline(never)]
fn is_elsewhere_at_all(bytes: &[u8], meta: &Meta, sa: InboundSa<'_>) -> Result<bool, DropReason> {
    let (from, port) = source(bytes, meta).ok_or(DropReason::EspMalformed)?;
    match (meta.family & family::IN_UDP != 0, sa.port() != 0) {
        (true, true) => Ok((from, port) != (sa.remote(), sa.port())),
        (false, false) if from == sa.remote() => Ok(false),
        _ => Err(DropReason::SaMismatch),
    }
}

/// Source of the outer header, if that is IPv4.
#[inline(always)]
fn source_v4(bytes: &[u8]) -> Option<u32> {
    bytes.get(LINK_LEN..)?.first_chunk().map(super::source)
}

/// Source of the outer header and, in UDP, its port.
fn source(bytes: &[u8], meta: &Meta) -> Option<(IpAddr, u16)> {
    let (from, _) = addresses(bytes.get(LINK_LEN..)?)?;
    if meta.family & family::IN_UDP == 0 {
        return Some((from, 0));
    }
    let udp = usize::from(meta.offset).checked_sub(wire::udp::LEN)?;
    Some((from, u16::from_be_bytes(*bytes.get(udp..)?.first_chunk()?)))
}

/// Where GRE is in a decrypted text, and where it ends.
#[inline(always)]
fn payload(
    bytes: &[u8],
    meta: &Meta,
    text: std::ops::Range<usize>,
    sa: &InboundSa<'_>,
) -> Result<(usize, usize), DropReason> {
    let plain = bytes.get(text.clone()).ok_or(DropReason::EspMalformed)?;
    let trailer = esp::trailer(plain).map_err(|_| DropReason::EspMalformed)?;
    if trailer.next_header == ipv4::GRE {
        // RFC 4301 §5.2: as the SA is, so is the packet.
        return if sa.is_tunnel() {
            Err(DropReason::SaMismatch)
        } else {
            Ok((text.start, text.start + trailer.payload))
        };
    }
    let (start, end) = tunnel_mode(bytes, meta, &plain[..trailer.payload], trailer.next_header, *sa)?;
    Ok((text.start + start, text.start + end))
}

/// The same of a packet that has something else in it than GRE: places in `packet`.
#[inline(never)]
fn tunnel_mode(
    bytes: &[u8],
    meta: &Meta,
    packet: &[u8],
    next_header: u8,
    sa: InboundSa<'_>,
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
    if !sa.is_tunnel() {
        return Err(DropReason::SaMismatch);
    }
    let outer = addresses(bytes.get(LINK_LEN..).unwrap_or_default());
    let ours = outer.map(|(_, to)| (sa.remote(), to));
    debug_assert!(meta.family & (family::OUTER4 | family::OUTER6) != 0);
    if addresses(packet) == ours { Ok((gre, end)) } else { Err(DropReason::SaMismatch) }
}
