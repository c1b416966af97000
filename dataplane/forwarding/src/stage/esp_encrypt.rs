//! `esp-encrypt`: what goes to a peer whom an SA protects is sealed (RFC 4303 §3.3, RFC 4106).
//!
//! 1. Who has the SA of the slot that midchain found: nobody: drop `no-outbound-sa`; another worker: handed off to it, as it is, and from
//!    there here again (its queue is full: drop `handoff-full`).
//! 2. Padding 1, 2, 3 …, pad length, next header: GRE, or in tunnel mode IP; room for the ICV. The buffer has none: drop `no-headroom`.
//! 3. The next sequence number: nothing is left of the lease, of the numbers or of a lifetime: drop `lease-spent`, `sequence-overflow` or
//!    `lifetime-ended`. It is the IV too: no other packet under this key has it.
//! 4. SPI, sequence number and IV into the gap that midchain left. It is sealed.
//! 5. ESP in UDP over IPv6: the datagram's checksum (RFC 8200 §8.1). Over IPv4 it is 0 (RFC 3948 §2.1).
//! 6. `tx`; or `fragment`, if it is more than the underlay takes and has to pass all the same (see midchain).
//!
//! 1 and 2 are done some packets ahead of the rest, so that key and text are on their way from memory ([`aead::Burst`]).

use model::sa::Lifetimes;
use wire::buf::PacketBuf;
use wire::{esp, ipv4, ipv6, udp};
use zerocopy::{FromBytes, IntoBytes};

use crate::DropReason;
use crate::adjacency::{Adjacency, flag};
use crate::burst::{End, Frame, Frames, Meta, SLOTS, Sent, family};
use crate::graph::Node;
use crate::sa::{Jobs, Numbered, Outbound, OutboundSa, Sas, Sealer};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::EspEncrypt as u8;

/// Times that a packet is handed from worker to worker: more than once only while its SA moves.
const TRIES: u8 = 4;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::EspEncrypt);
    walk.enter(frame);
    let Walk { bufs, meta, frames, sent, .. } = walk;
    let outbound = &sas.outbound;
    let jobs = Jobs::new();
    aead::seal(sas.provider, &mut Sealing { bufs, meta, frames, sent, frame, tables, outbound, jobs });
}

/// The burst.
struct Sealing<'a, B> {
    bufs: &'a mut [B],
    meta: &'a mut [Meta; SLOTS],
    frames: &'a mut Frames,
    sent: &'a mut Sent,
    frame: Frame,
    tables: &'a Tables,
    outbound: &'a Outbound,
    jobs: Jobs<Job<'a>>,
}

/// A packet that has room for all of ESP.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    sa: OutboundSa<'a>,
    entry: &'a Adjacency,
    slot: u8,
    /// Where ESP starts.
    start: u16,
    /// Bytes of what is to be encrypted, without its trailer.
    payload: u16,
}

impl<B: PacketBuf> aead::Burst for Sealing<'_, B> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.frame.len()
    }

    #[inline(always)]
    fn ahead(&mut self, at: usize) -> Option<(&aead::Key, &[u8])> {
        if at >= self.frame.len() {
            return None;
        }
        let Self { bufs, meta, frames, frame, tables, outbound, jobs, .. } = self;
        let job = jobs.at(at);
        *job = None;
        let slot = frames.slot(*frame, at);
        let (buf, meta) = (bufs.get_mut(usize::from(slot))?, &mut meta[usize::from(slot)]);
        let sa = match outbound.sealer(meta.destination) {
            Sealer::Own(sa) => sa,
            other => {
                pass_on(frames, meta, slot, other);
                return None;
            }
        };
        let start = meta.offset;
        match make_room(buf, start.into()) {
            Ok(payload) => {
                let entry = tables.adjacencies.slot(meta.adjacency);
                *job = Some(Job { sa, entry, slot, start, payload: payload as u16 });
                Some((sa.key(), buf.bytes().get(usize::from(start)..)?))
            }
            Err(reason) => {
                frames.drop(meta, slot, reason);
                None
            }
        }
    }

    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<aead::Packet<'_>> {
        let job = (*self.jobs.at(at))?;
        let slot = usize::from(job.slot);
        let frame = self.bufs.get_mut(slot)?.bytes_mut();
        let (start, payload) = (usize::from(job.start), usize::from(job.payload));
        let (outbound, meta) = (self.outbound, &self.meta[slot]);
        let lifetimes = || outbound.lifetimes(meta.destination);
        match prepare(frame, start, payload, next_header(job.entry), job.sa, lifetimes) {
            Ok(numbered) => Some(numbered.packet(job.sa.key(), frame.get_mut(start + esp::LEN..)?)),
            Err(reason) => {
                self.frames.drop(&mut self.meta[slot], job.slot, reason);
                None
            }
        }
    }

    #[inline(always)]
    fn sealed(&mut self, at: usize) {
        let Some(Job { slot, entry, .. }) = *self.jobs.at(at) else { return };
        let meta = &mut self.meta[usize::from(slot)];
        if entry.flags & (flag::OUTER6 | flag::ESP_UDP) == flag::OUTER6 | flag::ESP_UDP
            && let Some(buf) = self.bufs.get_mut(usize::from(slot))
        {
            sum_datagram(buf.bytes_mut(), usize::from(meta.offset), usize::from(entry.link));
        }
        meta.family |= family::SEALED;
        if meta.end == End::Frame {
            self.frames.hand::<ME, { Node::Fragment as u8 }>(slot);
        } else {
            self.sent.expect(entry.port);
            self.sent.send(meta, entry.port);
        }
    }

    fn opened(&mut self, _: usize, _: bool) {}
}

/// A packet for which this worker has no SA.
#[cold]
#[inline(never)]
fn pass_on(frames: &mut Frames, meta: &mut Meta, slot: u8, sealer: Sealer<'_>) {
    match sealer {
        Sealer::Worker(worker) if meta.tries < TRIES => {
            meta.tries += 1;
            meta.end = End::HandEncrypt;
            meta.target = worker;
        }
        _ => frames.drop(meta, slot, DropReason::NoOutboundSa),
    }
}

/// What is behind the ESP header of what leaves by an adjacency.
#[inline(always)]
fn next_header(entry: &Adjacency) -> u8 {
    match entry.flags & (flag::ESP_TUNNEL | flag::OUTER6) {
        TUNNEL_V4 => esp::IPV4,
        TUNNEL_V6 => esp::IPV6,
        _ => ipv4::GRE,
    }
}

const TUNNEL_V4: u8 = flag::ESP_TUNNEL;
const TUNNEL_V6: u8 = flag::ESP_TUNNEL | flag::OUTER6;

/// Makes room for trailer and ICV behind a packet whose ESP starts at `start`; how much is to be encrypted, without the trailer.
#[inline(always)]
pub(super) fn make_room<B: PacketBuf>(buf: &mut B, start: usize) -> Result<usize, DropReason> {
    let payload = buf.len().checked_sub(start + esp::LEN).ok_or(DropReason::StaleIndex)?;
    buf.append(esp::text_len(payload) - payload + esp::ICV).ok_or(DropReason::NoHeadroom)?;
    Ok(payload)
}

/// Writes all of ESP that is not encrypted or is to be: header, and the trailer behind so many bytes.
#[inline(always)]
pub(super) fn prepare(
    frame: &mut [u8],
    start: usize,
    payload: usize,
    next_header: u8,
    sa: OutboundSa<'_>,
    lifetimes: impl FnOnce() -> Lifetimes,
) -> Result<Numbered, DropReason> {
    let esp = frame.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut);
    let (header, behind): (&mut [u8; esp::LEN], _) = esp.ok_or(DropReason::StaleIndex)?;
    let text = esp::write_trailer(behind, payload, next_header).ok_or(DropReason::StaleIndex)?;
    let numbered = sa.number(text, lifetimes)?;
    header.copy_from_slice(esp::Header::new(numbered.spi, numbered.sequence, numbered.sequence).as_bytes());
    Ok(numbered)
}

/// Writes the checksum of the datagram whose payload starts at `payload` of a frame, and whose IPv6 header behind `link`.
#[cold]
#[inline(never)]
pub(super) fn sum_datagram(frame: &mut [u8], payload: usize, link: usize) {
    let Some((head, payload)) = frame.split_at_mut_checked(payload) else { return };
    let Some(packet) = head.get_mut(link..) else { return };
    let Ok((ip, rest)) = ipv6::Header::ref_from_prefix(packet).map(|(ip, rest)| (*ip, rest.len())) else {
        return;
    };
    let at = packet.len() - rest;
    if let Ok((header, _)) = udp::Header::mut_from_prefix(&mut packet[at..]) {
        header.fill_checksum_v6(&ip, payload);
    }
}
