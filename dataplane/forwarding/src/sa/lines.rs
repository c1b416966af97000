//! The shared line of each SA: what a packet needs first, and what is shown. Written by the worker that has it alone, by relaxed loads
//! and stores; whoever reads sees each number whole, and several not quite at one moment.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memory::{HugeVec, LineAligned, MapError};
use model::sa::{Reached, Spi};
use zerocopy::FromZeros;

use super::PROTECTIONS;

/// Line of an inbound SA.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub(crate) struct InboundLine {
    /// 0: there is none in the slot.
    pub(crate) spi: AtomicU32,
    pub(crate) salt: AtomicU32,
    /// Domain in the upper half, flags in the lower one.
    pub(crate) domain_flags: AtomicU32,
    /// The peer's UDP port in the upper half; the [`Reached`] lifetime in the lower one: 0 none, 1 soft, 2 hard.
    pub(crate) port_reached: AtomicU32,
    /// The peer's address; one of IPv4 in the second word.
    pub(crate) remote: [AtomicU64; 2],
    /// The highest sequence number that was authentic.
    pub(crate) top: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) replayed: AtomicU32,
    pub(crate) forged: AtomicU32,
}

/// Line of an outbound SA, or of who has it.
#[derive(Debug, FromZeros)]
#[repr(C)]
pub(crate) struct OutboundLine {
    /// 0: there is none of this worker's in the slot.
    pub(crate) spi: AtomicU32,
    pub(crate) salt: AtomicU32,
    /// One more than the worker that seals for this one; 0: nobody does.
    pub(crate) elsewhere: AtomicU32,
    /// Flags in the upper half; as of [`InboundLine::port_reached`] in the lower one.
    pub(crate) flags_reached: AtomicU32,
    /// Sequence number of the next packet.
    pub(crate) next: AtomicU64,
    /// The last one that may be used: of the lease, or of the lifetime in packets if that ends before.
    pub(crate) last: AtomicU64,
    /// The last one of the lease.
    pub(crate) leased: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Where the next lifetime in bytes is.
    pub(crate) alarm: AtomicU64,
}

const _: () = assert!(size_of::<InboundLine>() == 64 && size_of::<OutboundLine>() == 64);

/// The lines of one worker.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) inbound: HugeVec<LineAligned<InboundLine>>,
    pub(crate) outbound: HugeVec<LineAligned<OutboundLine>>,
}

/// What is shown of an inbound SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct InboundCount {
    pub(crate) top: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) replayed: u64,
    pub(crate) forged: u64,
    pub(crate) reached: Option<Reached>,
}

/// What is shown of an outbound SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OutboundCount {
    pub(crate) next: u64,
    pub(crate) leased: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) reached: Option<Reached>,
}

impl Lines {
    /// Lines without an SA. Their memory is taken when it is used.
    ///
    /// # Errors
    /// [`MapError`] without address space (32 MiB).
    pub(crate) fn new() -> Result<Self, MapError> {
        Ok(Self { inbound: HugeVec::zeroed(Spi::SLOTS)?, outbound: HugeVec::zeroed(PROTECTIONS)? })
    }

    /// What the SA of this SPI has carried; `None` while the slot has another one or none.
    pub(crate) fn inbound(&self, spi: Spi) -> Option<InboundCount> {
        let line = self.inbound.get(spi.slot() as usize)?;
        (line.spi.load(Ordering::Acquire) == spi.value()).then(|| InboundCount {
            top: line.top.load(Ordering::Relaxed),
            packets: line.packets.load(Ordering::Relaxed),
            bytes: line.bytes.load(Ordering::Relaxed),
            replayed: line.replayed.load(Ordering::Relaxed).into(),
            forged: line.forged.load(Ordering::Relaxed).into(),
            reached: reached(line.port_reached.load(Ordering::Relaxed)),
        })
    }

    /// What the SA of this SPI in the slot of a protection has carried; `None` while the slot has another one or none.
    pub(crate) fn outbound(&self, slot: u32, spi: Spi) -> Option<OutboundCount> {
        let line = self.outbound.get(slot as usize)?;
        (line.spi.load(Ordering::Acquire) == spi.value()).then(|| OutboundCount {
            next: line.next.load(Ordering::Relaxed),
            leased: line.leased.load(Ordering::Relaxed),
            packets: line.packets.load(Ordering::Relaxed),
            bytes: line.bytes.load(Ordering::Relaxed),
            reached: reached(line.flags_reached.load(Ordering::Relaxed)),
        })
    }
}

fn reached(word: u32) -> Option<Reached> {
    match word & 0xffff {
        0 => None,
        1 => Some(Reached::Soft),
        _ => Some(Reached::Hard),
    }
}
