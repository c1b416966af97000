//! A worker's inbound SAs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use memory::{HugeSlots, HugeVec, LineAligned, MapError};
use model::sa::{Lifetimes, SaMode, Spi};

use super::limits::{Limit, Limits, lifetimes};
use super::lines::{InboundLine, Lines};
use super::order::{NewInbound, SlotPages};
use super::window::Ring;
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
    /// Its packets are in UDP.
    pub(super) const IN_UDP: u32 = 0x8000;
    /// Those that only the domain is beside: what does not change while the SA is there.
    pub(super) const LASTING: u32 = ESN | TUNNEL | 0x7ff0;
    /// Where the size of the window's ring stands, in three bits.
    pub(super) const RING: u32 = 4;
    /// Where the window stands, in 64 numbers: 1 to 64.
    pub(super) const WINDOW: u32 = 8;
}

pub(super) const SLOTS: u32 = Spi::SLOTS as u32;

/// Lines, the bits of windows, lifetimes and keys by slot.
#[derive(Debug)]
pub(crate) struct Inbound {
    lines: Arc<Lines>,
    windows: HugeVec<u64>,
    limits: Limits,
    keys: HugeSlots<aead::Key>,
}

/// They all as a burst of packets uses them.
#[derive(Debug)]
pub(crate) struct Opener<'a> {
    lines: &'a [LineAligned<InboundLine>],
    windows: &'a mut [u64],
    limits: &'a [Limit],
    keys: &'a HugeSlots<aead::Key>,
}

/// A packet's whole sequence number, and the word that has its bit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number {
    pub(crate) sequence: u64,
    word: u32,
}

/// An SA that a packet came by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InboundSa<'a> {
    line: &'a InboundLine,
    /// Domain in the upper half, [`flag`]s in the lower one.
    flags: u32,
}

impl Inbound {
    /// None yet.
    pub(super) fn new(lines: Arc<Lines>) -> Result<Self, MapError> {
        Ok(Self {
            lines,
            windows: HugeVec::zeroed(window::words(Spi::SLOTS))?,
            limits: Limits::new(Spi::SLOTS)?,
            keys: HugeSlots::new(Spi::SLOTS)?,
        })
    }

    /// The pages of its slots.
    pub(super) fn pages(&self) -> SlotPages {
        SlotPages {
            lines: self.lines.inbound.pages(),
            windows: self.windows.pages(),
            limits: self.limits.pages(),
            keys: self.keys.pages(),
        }
    }

    /// Asks the cache for what a packet with this SPI needs first.
    #[inline(always)]
    pub(crate) fn prefetch(&self, spi: u32) {
        memory::prefetch_slice(&self.lines.inbound, slot(spi));
    }

    /// For a burst.
    #[inline(always)]
    pub(crate) fn opener(&mut self) -> Opener<'_> {
        Opener {
            lines: &self.lines.inbound,
            windows: &mut self.windows,
            limits: self.limits.all(),
            keys: &self.keys,
        }
    }

    /// Another SA in a slot, or none.
    pub(super) fn install(&mut self, slot: u32, new: &mut Option<NewInbound>) {
        let at = slot as usize;
        let Some(line) = self.lines.inbound.get(at) else { return };
        line.spi.store(0, Relaxed);
        let Some(new) = new else { return self.keys.put(at, &mut None) };
        let size = Ring::size(new.window.into());
        Ring::of(slot, SLOTS, size).empty(&mut self.windows);
        line.salt.store(u32::from_be_bytes(new.salt), Relaxed);
        line.top.store(0, Relaxed);
        line.packets.store(0, Relaxed);
        line.bytes.store(0, Relaxed);
        line.replayed.store(0, Relaxed);
        line.forged.store(0, Relaxed);
        line.port_reached.store(0, Relaxed);
        let blocks = (u64::from(new.window) / 64).clamp(1, window::LARGEST / 64) as u32;
        let esn = if new.esn { flag::ESN } else { 0 };
        let tunnel = if new.mode == SaMode::Tunnel { flag::TUNNEL } else { 0 };
        line.domain_flags.store(blocks << flag::WINDOW | size << flag::RING | esn | tunnel, Relaxed);
        describe(line, (new.domain, new.remote, new.port), &new.lifetimes);
        self.limits.set(at, &new.lifetimes);
        self.keys.put(at, &mut new.key);
        // Release: whoever reads this SPI reads its counts.
        line.spi.store(new.spi, Release);
    }

    /// The SA in a slot goes on with another peer, domain or lifetimes, if it is still this one.
    pub(super) fn move_peer(&mut self, slot: u32, spi: u32, peer: (u16, IpAddr, u16), lifetimes: &Lifetimes) {
        let at = slot as usize;
        let line = self.lines.inbound.get(at).filter(|line| line.spi.load(Relaxed) == spi);
        let Some(line) = line else { return };
        if self.limits.set(at, lifetimes) {
            let port_reached = line.port_reached.load(Relaxed);
            line.port_reached.store(port_reached & 0xffff_0000, Relaxed);
        }
        describe(line, peer, lifetimes);
    }
}

impl<'a> Opener<'a> {
    /// The SA with an SPI, and its key.
    #[inline(always)]
    pub(crate) fn find(&self, spi: u32) -> Option<(InboundSa<'a>, &'a aead::Key)> {
        let at = slot(spi);
        let line = &**self.lines.get(at)?;
        // Where there is none it is 0, as is an SPI that nobody has; and no key.
        if line.spi.load(Relaxed) != spi {
            return None;
        }
        Some((InboundSa { line, flags: line.domain_flags.load(Relaxed) }, self.keys.get(at)?))
    }

    /// The whole number of a packet of which the low half came, if it is neither too old nor there already (RFC 4303 §3.4.3: that is not
    /// worth the work); else it is counted. Asks the cache for where the number's bit is.
    #[inline(always)]
    pub(crate) fn admit(&self, sa: InboundSa<'_>, spi: u32, low: u32) -> Option<Number> {
        let word = ring(spi, sa.flags).word(low.into()) as u32;
        memory::prefetch_slice(self.windows, word as usize);
        let ahead = window::ahead(low, sa.line.top.load(Relaxed), sa.is_esn());
        let sequence = if ahead.is_some() { ahead } else { self.admit_late(sa, spi, low) };
        Some(Number { sequence: sequence?, word })
    }

    /// The same of one that is not behind all that came.
    #[inline(never)]
    fn admit_late(&self, sa: InboundSa<'_>, spi: u32, low: u32) -> Option<u64> {
        let (top, window, ring) = (sa.line.top.load(Relaxed), window_of(sa.flags), ring(spi, sa.flags));
        let sequence = if sa.is_esn() { window::whole(low, top, window) } else { Some(low.into()) };
        let sequence = sequence.filter(|sequence| window::is_new(self.windows, ring, top, window, *sequence));
        if sequence.is_none() {
            count_replayed(sa.line);
        }
        sequence
    }

    /// A packet is authentic, and decrypted it is `len` bytes: it is taken if it has not been taken since it was admitted.
    ///
    /// # Errors
    /// [`DropReason::Replayed`], [`DropReason::LifetimeEnded`].
    #[inline(always)]
    pub(crate) fn accept(&mut self, sa: InboundSa<'_>, number: Number, len: usize) -> Result<(), DropReason> {
        let line = sa.line;
        let top = line.top.load(Relaxed);
        if number.sequence.wrapping_sub(top) == 1 {
            window::mark(self.windows, number.word as usize, number.sequence);
            line.top.store(number.sequence, Relaxed);
        } else {
            self.take(sa, number.sequence).ok_or(DropReason::Replayed)?;
        }
        if sa.flags & flag::LIMITED != 0 && !is_within(line, self.limits, len) {
            return Err(DropReason::LifetimeEnded);
        }
        line.packets.store(line.packets.load(Relaxed) + 1, Relaxed);
        line.bytes.store(line.bytes.load(Relaxed) + len as u64, Relaxed);
        Ok(())
    }

    /// Takes a number that is not the next one; `None`, and it is counted, if it has come or is too old.
    #[inline(never)]
    fn take(&mut self, sa: InboundSa<'_>, sequence: u64) -> Option<()> {
        let (line, top) = (sa.line, sa.line.top.load(Relaxed));
        let ring = ring(line.spi.load(Relaxed), sa.flags);
        match window::take(self.windows, ring, top, window_of(sa.flags), sequence) {
            Some(now) => line.top.store(now, Relaxed),
            None => {
                count_replayed(line);
                return None;
            }
        }
        Some(())
    }
}

impl InboundSa<'_> {
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

    /// Whether its packets come from this address, and not in UDP.
    #[inline(always)]
    pub(crate) fn is_plainly_from(&self, v4: u32) -> bool {
        self.flags & (flag::REMOTE6 | flag::IN_UDP) == 0 && self.line.remote[1].load(Relaxed) == u64::from(v4)
    }

    /// Mode and domain, to be compared with those of another.
    #[inline(always)]
    pub(crate) fn carries(&self) -> u32 {
        self.flags & (0xffff_0000 | flag::TUNNEL)
    }

    /// Whether it is in transport mode for a domain.
    pub(crate) fn is_transport_of(&self, domain: u16) -> bool {
        self.carries() == u32::from(domain) << 16
    }

    /// UDP port that they come from; 0: they are not in UDP.
    pub(crate) fn port(&self) -> u16 {
        (self.line.port_reached.load(Relaxed) >> 16) as u16
    }

    /// Whether a packet that was taken is the newest.
    pub(crate) fn is_newest(&self, number: Number) -> bool {
        self.line.top.load(Relaxed) == number.sequence
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

/// Writes to the line of an SA what may change while it is there.
fn describe(line: &InboundLine, (domain, remote, port): (u16, IpAddr, u16), lifetimes: &Lifetimes) {
    let (bits, v6) = match remote {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()), 0),
        IpAddr::V6(addr) => (addr.to_bits(), flag::REMOTE6),
    };
    line.remote[0].store((bits >> 64) as u64, Relaxed);
    line.remote[1].store(bits as u64, Relaxed);
    let limited = if *lifetimes == Lifetimes::default() { 0 } else { flag::LIMITED };
    let lasting = line.domain_flags.load(Relaxed) & flag::LASTING;
    let in_udp = if port == 0 { 0 } else { flag::IN_UDP };
    line.domain_flags.store(u32::from(domain) << 16 | lasting | v6 | limited | in_udp, Relaxed);
    let reached = line.port_reached.load(Relaxed) & 0xffff;
    line.port_reached.store(u32::from(port) << 16 | reached, Relaxed);
}

/// Whether an SA may carry a packet of so many bytes; notes which lifetime it has reached by that.
#[cold]
#[inline(never)]
fn is_within(line: &InboundLine, limits: &[Limit], len: usize) -> bool {
    let Some(limit) = limits.get(slot(line.spi.load(Relaxed))) else { return false };
    let (packets, bytes) = (line.packets.load(Relaxed) + 1, line.bytes.load(Relaxed) + len as u64);
    let word = line.port_reached.load(Relaxed);
    let (reached, within) = reach(word & 0xffff, &lifetimes(limit), packets, bytes);
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

/// Where the bits of an SA's window are.
#[inline(always)]
const fn ring(spi: u32, flags: u32) -> Ring {
    Ring::of(slot(spi) as u32, SLOTS, flags >> flag::RING & 7)
}

#[inline(always)]
const fn slot(spi: u32) -> usize {
    spi as usize & (Spi::SLOTS - 1)
}

#[inline(always)]
const fn window_of(flags: u32) -> u64 {
    (flags >> flag::WINDOW & 0x7f) as u64 * 64
}
