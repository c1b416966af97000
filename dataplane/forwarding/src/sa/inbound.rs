//! A worker's inbound SAs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use memory::{HugeSlots, HugeVec, LineAligned, MapError};
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

/// What there is to know of an SA before one of its packets is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) spi: u32,
    pub(crate) salt: [u8; 4],
    pub(crate) esn: bool,
    pub(crate) tunnel: bool,
    pub(crate) domain: u16,
    /// Where its packets come from.
    pub(crate) remote: IpAddr,
    /// UDP port that they come from; 0: they are not in UDP.
    pub(crate) port: u16,
}

impl Inbound {
    /// None yet.
    pub(super) fn new(lines: Arc<Lines>) -> Result<Self, MapError> {
        Ok(Self { lines, windows: HugeVec::zeroed(Spi::SLOTS)?, sas: HugeSlots::new(Spi::SLOTS)? })
    }

    /// Asks the cache for what a packet with this SPI needs first, and for where the bit of its number is.
    #[inline(always)]
    pub(crate) fn prefetch(&self, spi: u32, low: u32) {
        let at = slot(spi);
        memory::prefetch_slice(&self.lines.inbound, at);
        if let Some(ring) = self.windows.get(at) {
            memory::prefetch_slice(&**ring, window::word(low.into()));
        }
    }

    /// The SA with an SPI.
    #[inline(always)]
    pub(crate) fn find(&self, spi: u32) -> Option<Found> {
        let line = self.lines.inbound.get(slot(spi))?;
        if line.spi.load(Relaxed) != spi || spi == 0 {
            return None;
        }
        let flags = line.domain_flags.load(Relaxed);
        Some(Found {
            spi,
            salt: line.salt.load(Relaxed).to_be_bytes(),
            esn: flags & flag::ESN != 0,
            tunnel: flags & flag::TUNNEL != 0,
            domain: (flags >> 16) as u16,
            remote: remote(line, flags),
            port: (line.port_reached.load(Relaxed) >> 16) as u16,
        })
    }

    /// The whole number of a packet of which the low half came, if it is neither too old nor there already (RFC 4303 §3.4.3: that is not
    /// worth the work); else it is counted.
    #[inline(always)]
    pub(crate) fn admit(&self, spi: u32, low: u32) -> Option<u64> {
        let at = slot(spi);
        let (line, ring) = (self.lines.inbound.get(at)?, self.windows.get(at)?);
        let (flags, top) = (line.domain_flags.load(Relaxed), line.top.load(Relaxed));
        let window = window_of(flags);
        let esn = flags & flag::ESN != 0;
        let sequence = if esn { window::whole(low, top, window) } else { Some(low.into()) };
        let sequence = sequence.filter(|sequence| window::is_new(ring, top, window, *sequence));
        if sequence.is_none() {
            line.replayed.store(line.replayed.load(Relaxed).wrapping_add(1), Relaxed);
        }
        sequence
    }

    /// The key of the SA with an SPI that was found.
    #[inline(always)]
    pub(crate) fn key(&self, spi: u32) -> Option<&aead::Key> {
        Some(&self.sas.get(slot(spi))?.key)
    }

    /// A packet was not authentic.
    #[cold]
    pub(crate) fn refuse(&self, spi: u32) {
        if let Some(line) = self.lines.inbound.get(slot(spi)) {
            line.forged.store(line.forged.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// A packet is authentic, and decrypted it is `len` bytes: it is taken if it has not been taken since it was admitted. Whether it is
    /// the newest.
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::LifetimeEnded`].
    #[inline(always)]
    pub(crate) fn accept(&mut self, spi: u32, sequence: u64, len: usize) -> Result<bool, DropReason> {
        let at = slot(spi);
        let (Some(line), Some(ring)) = (self.lines.inbound.get(at), self.windows.get_mut(at)) else {
            return Err(DropReason::NoSa);
        };
        let (flags, top) = (line.domain_flags.load(Relaxed), line.top.load(Relaxed));
        let Some(now) = window::take(ring, top, window_of(flags), sequence) else {
            line.replayed.store(line.replayed.load(Relaxed).wrapping_add(1), Relaxed);
            return Err(DropReason::Replayed);
        };
        line.top.store(now, Relaxed);
        let packets = line.packets.load(Relaxed) + 1;
        let bytes = line.bytes.load(Relaxed) + len as u64;
        if flags & flag::LIMITED != 0
            && let Some(sa) = self.sas.get(at)
            && !is_within(line, &sa.lifetimes, packets, bytes)
        {
            return Err(DropReason::LifetimeEnded);
        }
        line.packets.store(packets, Relaxed);
        line.bytes.store(bytes, Relaxed);
        Ok(now > top)
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
