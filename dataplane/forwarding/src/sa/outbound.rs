//! A worker's outbound SAs.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use memory::{HugeSlots, MapError, Pages};
use model::sa::{Amount, Lifetimes, SaMode};

use super::limits::{Limits, lifetimes};
use super::lines::{Lines, OutboundLine};
use super::order::{NewOutbound, SlotPages};
use super::{ENDED, PROTECTIONS, reach};
use crate::DropReason;

/// What a line says of its SA: one bit each, in the upper half of a word.
mod flag {
    pub(super) const ESN: u32 = 1 << 16;
    pub(super) const TUNNEL: u32 = 2 << 16;
    pub(super) const ALL: u32 = 0xffff_0000;
}

/// The last sequence number there is without ESN (RFC 4303 §3.3.3: it does not cycle).
const LAST: u64 = u32::MAX as u64;
/// The same with ESN: one less than there is, so that the next one is a number too.
const LAST_ESN: u64 = u64::MAX - 1;

/// Lines, lifetimes and keys by slot.
#[derive(Debug)]
pub(crate) struct Outbound {
    lines: Arc<Lines>,
    limits: Limits,
    keys: HugeSlots<aead::Key>,
}

/// An SA of this worker's, which has a key: without one a packet would go in the clear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboundSa<'a> {
    line: &'a OutboundLine,
    key: &'a aead::Key,
}

/// What a packet is sealed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered {
    pub(crate) spi: u32,
    pub(crate) salt: [u8; 4],
    pub(crate) esn: bool,
    /// The sequence number, which no other packet of this SA has or will have; the IV too.
    pub(crate) sequence: u64,
}

/// Who seals for a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sealer<'a> {
    /// This worker, by an SA of its own.
    Own(OutboundSa<'a>),
    Worker(u16),
    Nobody,
}

impl Outbound {
    /// None yet.
    pub(super) fn new(lines: Arc<Lines>) -> Result<Self, MapError> {
        Ok(Self { lines, limits: Limits::new(PROTECTIONS)?, keys: HugeSlots::new(PROTECTIONS)? })
    }

    /// The pages of its slots.
    pub(super) fn pages(&self) -> SlotPages {
        SlotPages {
            lines: self.lines.outbound.pages(),
            windows: Pages::default(),
            limits: self.limits.pages(),
            keys: self.keys.pages(),
        }
    }

    /// Asks the cache for what a packet with this slot needs first.
    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: u32) {
        memory::prefetch_slice(&self.lines.outbound, slot as usize);
    }

    /// The SA of a slot, if it is this worker's.
    #[inline(always)]
    pub(crate) fn own(&self, slot: u32) -> Option<OutboundSa<'_>> {
        let at = slot as usize;
        let line = self.lines.outbound.get(at).filter(|line| line.spi.load(Relaxed) != 0)?;
        Some(OutboundSa { line, key: self.keys.get(at)? })
    }

    /// Where the key of a slot is, if there is one.
    #[inline(always)]
    pub(crate) fn key_address(&self, slot: u32) -> *const aead::Key {
        self.keys.address(slot as usize)
    }

    /// Who seals for a slot.
    pub(crate) fn sealer(&self, slot: u32) -> Sealer<'_> {
        if let Some(own) = self.own(slot) {
            return Sealer::Own(own);
        }
        let Some(line) = self.lines.outbound.get(slot as usize) else { return Sealer::Nobody };
        match line.elsewhere.load(Relaxed) {
            0 => Sealer::Nobody,
            worker => Sealer::Worker((worker - 1) as u16),
        }
    }

    /// The lifetimes of the SA in a slot.
    pub(crate) fn lifetimes(&self, slot: u32) -> Lifetimes {
        self.limits.all().get(slot as usize).map_or_else(Lifetimes::default, lifetimes)
    }

    /// Another SA in a slot, or none.
    pub(super) fn install(&mut self, slot: u32, new: &mut Option<NewOutbound>) {
        let at = slot as usize;
        let Some(line) = self.lines.outbound.get(at) else { return };
        line.spi.store(0, Relaxed);
        let Some(new) = new else { return self.keys.put(at, &mut None) };
        line.salt.store(u32::from_be_bytes(new.salt), Relaxed);
        line.next.store(new.lease.first.max(1), Relaxed);
        line.leased.store(new.lease.last, Relaxed);
        line.packets.store(0, Relaxed);
        line.bytes.store(0, Relaxed);
        let esn = if new.esn { flag::ESN } else { 0 };
        let tunnel = if new.mode == SaMode::Tunnel { flag::TUNNEL } else { 0 };
        line.flags_reached.store(esn | tunnel, Relaxed);
        set_bounds(line, &new.lifetimes);
        self.limits.set(at, &new.lifetimes);
        self.keys.put(at, &mut new.key);
        // Release: whoever reads this SPI reads its counts.
        line.spi.store(new.spi, Release);
    }

    /// Who seals for a slot if this worker has no SA there.
    pub(super) fn hand_to(&mut self, slot: u32, worker: Option<u16>) {
        if let Some(line) = self.lines.outbound.get(slot as usize) {
            line.elsewhere.store(worker.map_or(0, |worker| u32::from(worker) + 1), Relaxed);
        }
    }

    /// The SA in a slot, if it is still this one, may use the numbers up to `last`, and has these lifetimes. A lease does not shrink.
    pub(super) fn extend(&mut self, slot: u32, spi: u32, last: u64, lifetimes: Lifetimes) {
        let at = slot as usize;
        let line = self.lines.outbound.get(at).filter(|line| line.spi.load(Relaxed) == spi);
        let Some(line) = line else { return };
        line.leased.store(last.max(line.leased.load(Relaxed)), Relaxed);
        if self.limits.set(at, &lifetimes) {
            // The next packet finds out.
            set_reached(line, 0);
        }
        set_bounds(line, &lifetimes);
    }
}

impl<'a> OutboundSa<'a> {
    #[inline(always)]
    pub(crate) fn key(&self) -> &'a aead::Key {
        self.key
    }

    /// Whether it is of tunnel mode.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.line.flags_reached.load(Relaxed) & flag::TUNNEL != 0
    }

    /// The next number, for a packet that is sealed: `len` bytes of it are encrypted. The lifetimes of its slot are asked for where they may
    /// count.
    ///
    /// # Errors
    /// [`DropReason::LeaseSpent`], [`DropReason::SequenceOverflow`], [`DropReason::LifetimeEnded`].
    #[inline(always)]
    pub(crate) fn number(
        &self,
        len: usize,
        lifetimes: impl FnOnce() -> Lifetimes,
    ) -> Result<Numbered, DropReason> {
        let line = self.line;
        let (sequence, bytes) = (line.next.load(Relaxed), line.bytes.load(Relaxed) + len as u64);
        if sequence > line.last.load(Relaxed) || bytes > line.alarm.load(Relaxed) {
            look_closer(line, &lifetimes(), bytes)?;
        }
        line.next.store(sequence + 1, Relaxed);
        line.packets.store(line.packets.load(Relaxed) + 1, Relaxed);
        line.bytes.store(bytes, Relaxed);
        let flags = line.flags_reached.load(Relaxed);
        Ok(Numbered {
            spi: line.spi.load(Relaxed),
            salt: line.salt.load(Relaxed).to_be_bytes(),
            esn: flags & flag::ESN != 0,
            sequence,
        })
    }
}

/// Something is reached: of the lease, the numbers or a lifetime. Whether one more packet may go, with which it is so many bytes.
#[cold]
#[inline(never)]
fn look_closer(line: &OutboundLine, lifetimes: &Lifetimes, bytes: u64) -> Result<(), DropReason> {
    let before = reached(line);
    let packets = line.packets.load(Relaxed) + 1;
    let (after, within) = reach(before, lifetimes, packets, bytes);
    if after != before {
        set_reached(line, after);
    }
    set_bounds(line, lifetimes);
    let sequence = line.next.load(Relaxed);
    if !within {
        Err(DropReason::LifetimeEnded)
    } else if sequence > most(line) {
        Err(DropReason::SequenceOverflow)
    } else if sequence > line.leased.load(Relaxed) {
        Err(DropReason::LeaseSpent)
    } else {
        Ok(())
    }
}

impl Numbered {
    /// A packet with this number under its SA's key; RFC 4106 §3.1: an IV is used once with a key; so is a sequence number.
    #[inline(always)]
    pub(crate) fn packet<'a>(&self, key: &'a aead::Key, text: &'a mut [u8]) -> aead::Packet<'a> {
        let Self { spi, salt, esn, sequence } = *self;
        aead::Packet { key, salt, iv: sequence, sequence, spi, esn, text }
    }
}

/// Notes how far an SA may go before somebody looks closer.
fn set_bounds(line: &OutboundLine, lifetimes: &Lifetimes) {
    let reached = reached(line);
    let next = match reached {
        0 => [lifetimes.soft, lifetimes.hard],
        _ => [lifetimes.hard; 2],
    };
    let least = |of: fn(&Amount) -> Option<u64>| next.iter().filter_map(of).min();
    // The number of the packet before the one by which so many have gone; the next one is the first after those that are counted.
    let packets = least(|amount| amount.packets).map_or(u64::MAX, |most| {
        let left = most.saturating_sub(line.packets.load(Relaxed));
        line.next.load(Relaxed).saturating_add(left).saturating_sub(2)
    });
    let last = if reached == ENDED { 0 } else { packets.min(line.leased.load(Relaxed)).min(most(line)) };
    line.last.store(last, Relaxed);
    line.alarm.store(least(|amount| amount.bytes).map_or(u64::MAX, |most| most.saturating_sub(1)), Relaxed);
}

/// The last sequence number that there is.
fn most(line: &OutboundLine) -> u64 {
    if line.flags_reached.load(Relaxed) & flag::ESN != 0 { LAST_ESN } else { LAST }
}

fn reached(line: &OutboundLine) -> u32 {
    line.flags_reached.load(Relaxed) & !flag::ALL
}

fn set_reached(line: &OutboundLine, reached: u32) {
    line.flags_reached.store(line.flags_reached.load(Relaxed) & flag::ALL | reached, Relaxed);
}
