//! A worker's inbound SAs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use memory::{HugeSlots, HugeVec, LineAligned, MapError, Pages};
use model::sa::{Lifetimes, SaMode, Spi};

use super::lines::{InboundLine, Lines};
use super::order::NewInbound;
use super::{reach, window};
use crate::DropReason;

/// What a line says besides the domain: one bit each, and the window.
mod flag {
    pub(super) const ESN: u32 = 1;
    pub(super) const TUNNEL: u32 = 2;
    /// The peer's address is IPv6.
    pub(super) const REMOTE6: u32 = 4;
    /// It has a lifetime in bytes or packets.
    pub(super) const LIMITED: u32 = 8;
    /// Where the window stands, in 64 numbers: 1 to 64.
    pub(super) const WINDOW: u32 = 8;
}

/// Lines, windows and keys by slot.
#[derive(Debug)]
pub(crate) struct Inbound {
    lines: Arc<Lines>,
    windows: HugeVec<LineAligned<window::Ring>>,
    sas: HugeSlots<NewInbound>,
}

/// They all as a burst of packets uses them.
#[derive(Debug)]
pub(crate) struct Opener<'a> {
    lines: &'a [LineAligned<InboundLine>],
    windows: &'a mut [LineAligned<window::Ring>],
    sas: &'a HugeSlots<NewInbound>,
}

/// An SA that a packet came by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboundSa<'a> {
    line: &'a InboundLine,
    sa: &'a NewInbound,
    /// Its slot.
    at: usize,
    /// Domain in the upper half, [`flag`]s in the lower one.
    flags: u32,
}

impl Inbound {
    /// None yet.
    pub(super) fn new(lines: Arc<Lines>) -> Result<Self, MapError> {
        Ok(Self { lines, windows: HugeVec::zeroed(Spi::SLOTS)?, sas: HugeSlots::new(Spi::SLOTS)? })
    }

    /// The pages of its slots.
    pub(super) fn pages(&self) -> Vec<Pages> {
        vec![self.lines.inbound.pages(), self.windows.pages(), self.sas.pages()]
    }

    /// Asks the cache for what a packet with this SPI needs first.
    #[inline(always)]
    pub(crate) fn prefetch(&self, spi: u32) {
        memory::prefetch_slice(&self.lines.inbound, slot(spi));
    }

    /// For a burst.
    #[inline(always)]
    pub(crate) fn opener(&mut self) -> Opener<'_> {
        Opener { lines: &self.lines.inbound, windows: &mut self.windows, sas: &self.sas }
    }

    /// Another SA in a slot, or none.
    pub(super) fn install(&mut self, slot: u32, new: &mut Option<NewInbound>) {
        let at = slot as usize;
        let (Some(line), Some(ring)) = (self.lines.inbound.get(at), self.windows.get_mut(at)) else { return };
        line.spi.store(0, Relaxed);
        if let Some(new) = &*new {
            ring.fill(0);
            line.salt.store(u32::from_be_bytes(new.salt), Relaxed);
            line.top.store(0, Relaxed);
            line.packets.store(0, Relaxed);
            line.bytes.store(0, Relaxed);
            line.replayed.store(0, Relaxed);
            line.forged.store(0, Relaxed);
            line.port_reached.store(0, Relaxed);
            describe(line, new);
            // Release: whoever reads this SPI reads its counts.
            line.spi.store(new.spi, Release);
        }
        self.sas.put(at, new);
    }

    /// The SA in a slot goes on with another peer, domain or lifetimes, if it is still this one.
    pub(super) fn move_peer(
        &mut self,
        slot: u32,
        spi: u32,
        (domain, remote, port): (u16, IpAddr, u16),
        lifetimes: Lifetimes,
    ) {
        let at = slot as usize;
        let (Some(line), Some(sa)) = (self.lines.inbound.get(at), self.sas.at_mut(at)) else { return };
        if sa.spi != spi {
            return;
        }
        if sa.lifetimes != lifetimes {
            let port_reached = line.port_reached.load(Relaxed);
            line.port_reached.store(port_reached & 0xffff_0000, Relaxed);
        }
        (sa.domain, sa.remote, sa.port, sa.lifetimes) = (domain, remote, port, lifetimes);
        describe(line, sa);
    }
}

impl<'a> Opener<'a> {
    /// As [`Inbound::prefetch`].
    #[inline(always)]
    pub(crate) fn prefetch(&self, spi: u32) {
        memory::prefetch_slice(self.lines, slot(spi));
    }

    /// The SA with an SPI.
    #[inline(always)]
    pub(crate) fn find(&self, spi: u32) -> Option<InboundSa<'a>> {
        let at = slot(spi);
        let line = &**self.lines.get(at)?;
        if line.spi.load(Relaxed) != spi || spi == 0 {
            return None;
        }
        Some(InboundSa { line, sa: self.sas.get(at)?, at, flags: line.domain_flags.load(Relaxed) })
    }

    /// The whole number of a packet of which the low half came, if it is neither too old nor there already (RFC 4303 §3.4.3: that is not
    /// worth the work); else it is counted. Asks the cache for where the number's bit is.
    #[inline(always)]
    pub(crate) fn admit(&self, sa: &InboundSa<'_>, low: u32) -> Option<u64> {
        let ring = self.windows.get(sa.at)?;
        memory::prefetch_slice(&**ring, window::word(low.into()));
        let (top, window) = (sa.line.top.load(Relaxed), window_of(sa.flags));
        let sequence = if sa.is_esn() { window::whole(low, top, window) } else { Some(low.into()) };
        let sequence = sequence.filter(|sequence| window::is_new(ring, top, window, *sequence));
        if sequence.is_none() {
            count_replayed(sa.line);
        }
        sequence
    }

    /// A packet is authentic, and decrypted it is `len` bytes: it is taken if it has not been taken since it was admitted. Whether it is
    /// the newest.
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::LifetimeEnded`].
    #[inline(always)]
    pub(crate) fn accept(
        &mut self,
        sa: &InboundSa<'_>,
        sequence: u64,
        len: usize,
    ) -> Result<bool, DropReason> {
        let (line, flags) = (sa.line, sa.flags);
        let ring = self.windows.get_mut(sa.at).ok_or(DropReason::NoSa)?;
        let top = line.top.load(Relaxed);
        let Some(now) = window::take(ring, top, window_of(flags), sequence) else {
            count_replayed(line);
            return Err(DropReason::Replayed);
        };
        line.top.store(now, Relaxed);
        let packets = line.packets.load(Relaxed) + 1;
        let bytes = line.bytes.load(Relaxed) + len as u64;
        if flags & flag::LIMITED != 0 && !is_within(line, &sa.sa.lifetimes, packets, bytes) {
            return Err(DropReason::LifetimeEnded);
        }
        line.packets.store(packets, Relaxed);
        line.bytes.store(bytes, Relaxed);
        Ok(now > top)
    }
}

impl<'a> InboundSa<'a> {
    #[inline(always)]
    pub(crate) fn key(&self) -> &'a aead::Key {
        &self.sa.key
    }

    #[inline(always)]
    pub(crate) fn salt(&self) -> [u8; 4] {
        self.line.salt.load(Relaxed).to_be_bytes()
    }

    #[inline(always)]
    pub(crate) fn is_esn(&self) -> bool {
        self.flags & flag::ESN != 0
    }

    #[inline(always)]
    pub(crate) fn is_tunnel(&self) -> bool {
        self.flags & flag::TUNNEL != 0
    }

    #[inline(always)]
    pub(crate) fn domain(&self) -> u16 {
        (self.flags >> 16) as u16
    }

    /// Where its packets come from.
    pub(crate) fn remote(&self) -> IpAddr {
        remote(self.line, self.flags)
    }

    /// Whether its packets come from this address.
    #[inline(always)]
    pub(crate) fn is_from(&self, v4: u32) -> bool {
        self.flags & flag::REMOTE6 == 0 && self.line.remote[1].load(Relaxed) == u64::from(v4)
    }

    /// UDP port that they come from; 0: they are not in UDP.
    #[inline(always)]
    pub(crate) fn port(&self) -> u16 {
        (self.line.port_reached.load(Relaxed) >> 16) as u16
    }

    /// A packet was not authentic.
    #[cold]
    pub(crate) fn refuse(&self) {
        self.line.forged.store(self.line.forged.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[cold]
fn count_replayed(line: &InboundLine) {
    line.replayed.store(line.replayed.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Writes what an SA says of itself to its line.
fn describe(line: &InboundLine, sa: &NewInbound) {
    let (bits, v6) = match sa.remote {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()), 0),
        IpAddr::V6(addr) => (addr.to_bits(), flag::REMOTE6),
    };
    line.remote[0].store((bits >> 64) as u64, Relaxed);
    line.remote[1].store(bits as u64, Relaxed);
    let blocks = (u64::from(sa.window) / 64).clamp(1, window::LARGEST / 64) as u32;
    let mut flags = u32::from(sa.domain) << 16 | blocks << flag::WINDOW | v6;
    flags |= if sa.esn { flag::ESN } else { 0 };
    flags |= if sa.mode == SaMode::Tunnel { flag::TUNNEL } else { 0 };
    flags |= if sa.lifetimes == Lifetimes::default() { 0 } else { flag::LIMITED };
    line.domain_flags.store(flags, Relaxed);
    let reached = line.port_reached.load(Relaxed) & 0xffff;
    line.port_reached.store(u32::from(sa.port) << 16 | reached, Relaxed);
}

/// Whether an SA may have carried so much; notes which lifetime it has reached.
fn is_within(line: &InboundLine, lifetimes: &Lifetimes, packets: u64, bytes: u64) -> bool {
    let word = line.port_reached.load(Relaxed);
    let (reached, within) = reach(word & 0xffff, lifetimes, packets, bytes);
    line.port_reached.store(word & 0xffff_0000 | reached, Relaxed);
    within
}

fn remote(line: &InboundLine, flags: u32) -> IpAddr {
    let low = line.remote[1].load(Relaxed);
    if flags & flag::REMOTE6 == 0 {
        return std::net::Ipv4Addr::from(low as u32).into();
    }
    std::net::Ipv6Addr::from(u128::from(line.remote[0].load(Relaxed)) << 64 | u128::from(low)).into()
}

#[inline(always)]
const fn slot(spi: u32) -> usize {
    spi as usize & (Spi::SLOTS - 1)
}

#[inline(always)]
const fn window_of(flags: u32) -> u64 {
    (flags >> flag::WINDOW & 0x7f) as u64 * 64
}
