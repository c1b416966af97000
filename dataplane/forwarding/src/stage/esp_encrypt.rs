//! `esp-encrypt`: what goes to a peer whom an SA protects is sealed (RFC 4303 §3.3, RFC 4106).
//!
//! 1. Who has the SA of the slot that midchain found: nobody: drop `no-outbound-sa`; another worker: handed off to it, as it is, and from
//!    there here again (its queue is full: drop `handoff-full`).
//! 2. Padding 1, 2, 3 …, pad length, next header: GRE, or in tunnel mode IP; room for the ICV. The buffer has none: drop `no-headroom`.
//! 3. The next sequence number: nothing is left of the lease, of the numbers or of a lifetime: drop `lease-spent`, `sequence-overflow` or
//!    `lifetime-ended`. It is the IV too: no other packet under this key has it.
//! 4. SPI, sequence number and IV into the gap that midchain left. All packets are sealed in one burst, in order.
//! 5. ESP in UDP over IPv6: the datagram's checksum (RFC 8200 §8.1). Over IPv4 it is 0 (RFC 3948 §2.1).
//! 6. `tx`; or `fragment`, if it is more than the underlay takes and has to pass all the same (see midchain).

use wire::buf::PacketBuf;
use wire::{esp, ipv4, ipv6, udp};
use zerocopy::{FromBytes, IntoBytes};

use crate::DropReason;
use crate::adjacency::{Adjacency, flag};
use crate::burst::{End, family};
use crate::graph::Node;
use crate::sa::{Job, Numbered, Sas, Sealer, seal};
use crate::tables::Tables;
use crate::walk::Walk;

const ME: u8 = Node::EspEncrypt as u8;

/// Times that a packet is handed from worker to worker: more than once only while its SA moves.
const TRIES: u8 = 4;

#[inline(never)]
pub(crate) fn run<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas) {
    let frame = walk.frames.take(Node::EspEncrypt);
    walk.enter(frame);
    let Walk { bufs, meta, frames, jobs, .. } = walk;
    let (bufs, meta) = (bufs.as_mut_slice(), &mut **meta);
    jobs.clear();
    for at in frame.places() {
        let slot = frames.slot(frame, at);
        let (buf, meta) = (&mut bufs[usize::from(slot)], &mut meta[usize::from(slot)]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        let protection = meta.destination;
        match sas.outbound.sealer(protection) {
            Sealer::Own => {}
            Sealer::Worker(worker) if meta.tries < TRIES => {
                meta.tries += 1;
                meta.end = End::HandEncrypt;
                meta.target = worker;
                continue;
            }
            Sealer::Worker(_) | Sealer::Nobody => {
                frames.drop(meta, slot, DropReason::NoOutboundSa);
                continue;
            }
        }
        match prepare(buf, usize::from(meta.offset), next_header(entry), sas, protection) {
            Ok(numbered) => {
                jobs.push(Job::outbound(slot, meta.offset + esp::LEN as u16, protection, &numbered));
            }
            Err(reason) => frames.drop(meta, slot, reason),
        }
    }
    seal(sas, bufs, jobs);
    let mut sent = walk.sent;
    for job in &*jobs {
        let (slot, at) = (job.packet, usize::from(job.packet));
        let (buf, meta) = (&mut bufs[at], &mut meta[at]);
        let entry = tables.adjacencies.slot(meta.adjacency);
        if entry.flags & (flag::OUTER6 | flag::ESP_UDP) == flag::OUTER6 | flag::ESP_UDP {
            sum_datagram(buf.bytes_mut(), usize::from(meta.offset), usize::from(entry.link));
        }
        meta.family |= family::SEALED;
        if meta.end == End::Frame {
            frames.hand::<ME, { Node::Fragment as u8 }>(slot);
        } else {
            sent.expect(entry.port);
            sent.send(meta, entry.port);
        }
    }
    walk.sent = sent;
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

/// Writes all of ESP that is not encrypted or is to be: the packet's own place is behind the gap at `start`.
#[inline(always)]
pub(super) fn prepare<B: PacketBuf>(
    buf: &mut B,
    start: usize,
    next_header: u8,
    sas: &Sas,
    protection: u32,
) -> Result<Numbered, DropReason> {
    let payload = buf.len().checked_sub(start + esp::LEN).ok_or(DropReason::StaleIndex)?;
    let text = esp::text_len(payload);
    // Before a number is taken for it.
    buf.append(text - payload + esp::ICV).ok_or(DropReason::NoHeadroom)?;
    let numbered = sas.outbound.number(protection, text)?;
    let sequence = numbered.sequence;
    let Some((header, behind)) = buf.bytes_mut().get_mut(start..).and_then(<[u8]>::split_first_chunk_mut)
    else {
        return Err(DropReason::StaleIndex);
    };
    let header: &mut [u8; esp::LEN] = header;
    header.copy_from_slice(esp::Header::new(numbered.spi, sequence, sequence).as_bytes());
    let written = esp::write_trailer(behind, payload, next_header);
    debug_assert_eq!(written, Some(text));
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
