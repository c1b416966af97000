//! What other workers handed off to this one, since it has the SA. It is a part of `inject`.
//!
//! 1. From their esp-decrypt: to `esp-decrypt`.
//! 2. From their esp-encrypt: to `esp-encrypt`, if the adjacency that it goes by is still one of the same SA; else drop `stale-index`.
//! 3. From their inject, a packet of the control plane's: as what comes from above.

use wire::buf::PacketBuf;
use wire::esp;

use super::{inject, midchain};
use crate::DropReason;
use crate::adjacency::{Kind, flag};
use crate::burst::End;
use crate::graph::Node;
use crate::ports::{HandedOff, HandoffEntry, Ports};
use crate::sa::Sas;
use crate::tables::Tables;
use crate::walk::{HANDED, Walk};

const ME: u8 = Node::Inject as u8;

/// How many there were.
pub(super) fn run<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, sas: &Sas, ports: &mut P) -> usize {
    let mut handed = std::mem::take(&mut walk.handed);
    ports.handed_in(&mut handed, HANDED);
    let packets = handed.len();
    for HandedOff { buf, mut meta, entry, trace } in handed.drain(..) {
        walk.flow.handed_in += 1;
        meta.end = End::Open;
        match walk.seat(buf, meta, trace) {
            Ok(slot) => {
                walk.note(Node::Inject, slot);
                enter(walk, tables, sas, slot, entry);
            }
            Err(_) => unreachable!("a walk begins with more slots than packets are handed in"),
        }
    }
    walk.handed = handed;
    packets
}

fn enter<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, sas: &Sas, slot: u8, entry: HandoffEntry) {
    match entry {
        HandoffEntry::Decrypt => walk.frames.hand::<ME, { Node::EspDecrypt as u8 }>(slot),
        HandoffEntry::Encrypt => to_encrypt(walk, tables, slot),
        HandoffEntry::Control(origin) => inject::enter(walk, tables, sas, slot, origin),
    }
}

fn to_encrypt<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, slot: u8) {
    let (buf, meta) = (&walk.bufs[usize::from(slot)], &mut walk.meta[usize::from(slot)]);
    let entry = tables.adjacencies.at(meta.adjacency).filter(|entry| {
        let sealed = entry.kind == Kind::Midchain && entry.flags & flag::ESP != 0;
        sealed && entry.protection == meta.destination && midchain::esp_at(entry) == usize::from(meta.offset)
    });
    let Some(entry) = entry else { return walk.drop(slot, DropReason::StaleIndex) };
    midchain::note_sealing(entry, meta);
    // Larger than the underlay takes: to be cut when it is sealed.
    let start = usize::from(meta.offset);
    let payload = buf.len().saturating_sub(start + esp::LEN);
    if start - usize::from(entry.link) + esp::packet_len(payload) > midchain::largest(entry) {
        meta.end = End::Frame;
    }
    walk.frames.hand::<ME, { Node::EspEncrypt as u8 }>(slot);
}
