//! Security associations as a worker has them.
//!
//! ```text
//!  program side                              worker
//!  SA ─ key expanded ─► Order ──orders──►  at the start of a breath: moved to its slot; what was there is erased
//!       freed ◄──────────────returned────  the empty box comes back
//!  `nave show sa`, leases ◄── lines ─────  written by the worker alone, read by anybody
//! ```
//!
//! An inbound SA belongs to the worker that its SPI names ([`model::sa::Spi`]), and lies in the slot that it names. An outbound one belongs to one
//! worker, or each worker has one of its own (RFC 9611); its slot is the number of the peer's protection, which adjacencies carry
//! ([`crate::adjacency::Adjacency::protection`]) and which is the same in all workers. A slot tells a worker that is not its owner who is.
//!
//! Of each SA a line is shared, atomics that the worker alone writes; window, lifetimes and key are the worker's own, inline in arrays of
//! slots: 64 bytes, the window's bits (128 for 1,024 of them, 64 at least), 640, and 32 if it has a lifetime.

mod inbound;
mod job;
mod limits;
mod lines;
mod order;
mod outbound;
pub mod window;

use std::sync::Arc;

use memory::MapError;
use model::sa::{Amount, Lifetimes};

pub(crate) use inbound::{Inbound, InboundSa, Number, Opener};
pub(crate) use job::Jobs;
pub(crate) use lines::{InboundCount, Lines};
pub(crate) use order::{Change, NewInbound, NewOutbound, Order, OrderSender, Orders, SlotPages, orders};
pub(crate) use outbound::{Outbound, OutboundSa, Sealer};

/// What an adjacency has in place of a slot if nothing protects it.
pub(crate) const UNPROTECTED: u32 = u32::MAX;

/// Most outbound slots: protections of a data plane.
pub(crate) const PROTECTIONS: usize = 1 << 18;

/// A lifetime that a line has reached, as it stands there: soft, or hard.
const SOFT: u32 = 1;
const ENDED: u32 = 2;

/// What an SA that had reached `before` has reached with a packet by which it has carried so much, and whether it may carry that.
fn reach(before: u32, lifetimes: &Lifetimes, packets: u64, bytes: u64) -> (u32, bool) {
    let at = |of: Amount| {
        of.packets.is_some_and(|most| packets >= most) || of.bytes.is_some_and(|most| bytes >= most)
    };
    let over = |of: Amount| {
        of.packets.is_some_and(|most| packets > most) || of.bytes.is_some_and(|most| bytes > most)
    };
    let reached = if at(lifetimes.hard) {
        ENDED
    } else if at(lifetimes.soft) {
        SOFT
    } else {
        0
    };
    (reached.max(before), before != ENDED && !over(lifetimes.hard))
}

/// What a worker has of its SAs.
#[derive(Debug)]
pub(crate) struct Sas {
    /// The worker's number.
    pub(crate) worker: usize,
    /// Whose keys they have.
    pub(crate) provider: aead::Provider,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    orders: Orders,
}

impl Sas {
    /// None yet.
    ///
    /// # Errors
    /// [`MapError`] without address space.
    pub(crate) fn new(
        orders: Orders,
        lines: Arc<Lines>,
        provider: aead::Provider,
        worker: usize,
    ) -> Result<Self, MapError> {
        let inbound = Inbound::new(Arc::clone(&lines))?;
        Ok(Self { worker, provider, inbound, outbound: Outbound::new(lines)?, orders })
    }

    /// The pages of the slots of inbound SAs, and of outbound ones: whoever gives orders takes their memory before.
    pub(crate) fn pages(&self) -> [SlotPages; 2] {
        [self.inbound.pages(), self.outbound.pages()]
    }

    /// Whether no order waits.
    #[inline(always)]
    pub(crate) fn are_settled(&self) -> bool {
        self.orders.is_empty()
    }

    /// Carries out so many orders.
    #[cold]
    pub(crate) fn carry_out(&mut self, most: usize) {
        for _ in 0..most {
            let Some(mut order) = self.orders.next() else { return };
            let slot = order.slot;
            match &mut order.change {
                Change::Inbound(new) => self.inbound.install(slot, new),
                Change::InboundPeer { spi, domain, remote, port, lifetimes } => {
                    self.inbound.move_peer(slot, *spi, (*domain, *remote, *port), lifetimes);
                }
                Change::Outbound(new) => self.outbound.install(slot, new),
                Change::Elsewhere(worker) => self.outbound.hand_to(slot, *worker),
                Change::Lease { spi, last, lifetimes } => self.outbound.extend(slot, *spi, *last, *lifetimes),
            }
            self.orders.done(order);
        }
    }
}
