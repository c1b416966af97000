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
//! Key and text are asked of memory some packets before their turn ([`aead::Burst`]).

use model::sa::Lifetimes;
use wire::buf::PacketBuf;
use wire::{esp, ipv6, udp};
use zerocopy::{FromBytes, IntoBytes};

use crate::DropReason;
use crate::burst::{End, Frame, Frames, Meta, SLOTS, Sent, family};
use crate::graph::Node;
use crate::sa::{Outbound, OutboundSa, Sas, Sealer};
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
    aead::seal(sas.provider, &mut Sealing { bufs, meta, frames, sent, frame, tables, outbound });
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
}

impl<B: PacketBuf> aead::Burst for Sealing<'_, B> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.frame.len()
    }

    #[inline(always)]
    fn ahead(&mut self, at: usize) -> Option<aead::Soon> {
        if at >= self.frame.len() {
            return None;
        }
        let slot = usize::from(self.frames.slot_of::<ME>(at));
        let (bytes, meta) = (self.bufs.get(slot)?.bytes(), &self.meta[slot]);
        self.outbound.prefetch(meta.destination);
        let start = usize::from(meta.offset) + esp::LEN;
        let (key, text) = (self.outbound.key_address(meta.destination), bytes.as_ptr().wrapping_add(start));
        let payload = bytes.len().saturating_sub(start);
        Some(aead::Soon { key, text, length: esp::text_len(payload) + esp::ICV })
    }

    /// Not before its turn is anything written: its trailer lies where nobody has looked yet, and a store that waits for memory holds up all
    /// that is stored behind it.
    #[inline(always)]
    fn packet(&mut self, at: usize) -> Option<aead::Packet<'_>> {
        let Self { bufs, meta, frames, sent, outbound, .. } = self;
        let slot = frames.slot_of::<ME>(at);
        let (buf, meta) = (bufs.get_mut(usize::from(slot))?, &mut meta[usize::from(slot)]);
        let Some(sa) = outbound.own(meta.destination) else {
            pass_on(frames, meta, slot, outbound.sealer(meta.destination));
            return None;
        };
        let lifetimes = || outbound.lifetimes(meta.destination);
        match fill(buf, meta.offset.into(), meta.next_header, sa, lifetimes) {
            Ok(packet) => {
                meta.family |= family::SEALED;
                if meta.end == End::Frame {
                    frames.hand::<ME, { Node::Fragment as u8 }>(slot);
                } else {
                    let port = meta.target;
                    sent.expect(port);
                    sent.send(meta, port);
                }
                Some(packet)
            }
            Err(reason) => {
                frames.drop(meta, slot, reason);
                None
            }
        }
    }

    #[inline(always)]
    fn sealed(&mut self, at: usize) {
        let slot = usize::from(self.frames.slot_of::<ME>(at));
        let meta = &self.meta[slot];
        if meta.family & family::TO_SUM != 0
            && let Some(buf) = self.bufs.get_mut(slot)
        {
            let link = self.tables.adjacencies.slot(meta.adjacency).link;
            sum_datagram(buf.bytes_mut(), meta.offset.into(), link.into());
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

/// Makes a packet, from `start` on, all of ESP but what the cipher makes: header, trailer, and room for the ICV. In front of its payload the
/// header's room is there.
#[inline(always)]
pub(super) fn fill<'a, B: PacketBuf>(
    buf: &'a mut B,
    start: usize,
    next_header: u8,
    sa: OutboundSa<'a>,
    lifetimes: impl FnOnce() -> Lifetimes,
) -> Result<aead::Packet<'a>, DropReason> {
    let payload = buf.len().checked_sub(start + esp::LEN).ok_or(DropReason::StaleIndex)?;
    let text = esp::text_len(payload);
    let frame = buf.grow(text - payload + esp::ICV).ok_or(DropReason::NoHeadroom)?;
    let esp = frame.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut);
    let (header, behind): (&mut [u8; esp::LEN], _) = esp.ok_or(DropReason::StaleIndex)?;
    esp::write_trailer(behind, payload, next_header).ok_or(DropReason::StaleIndex)?;
    let numbered = sa.number(text, lifetimes)?;
    header.copy_from_slice(esp::Header::new(numbered.spi, numbered.sequence, numbered.sequence).as_bytes());
    Ok(numbered.packet(sa.key(), behind))
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
