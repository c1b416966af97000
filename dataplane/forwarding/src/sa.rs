//! Security associations as a worker has them.
//!
//! ```text
//!  program side                              worker
//!  SA ─ key expanded ─► Order ──orders──►  at the start of a breath: exchanged with what is in the slot
//!       erased ◄───────────────returned──  the box comes back with what was there
//!  `nave show sa`, leases ◄── lines ─────  written by the worker alone, read by anybody
//! ```
//!
//! An inbound SA belongs to the worker that its SPI names ([`model::sa::Spi`]), and lies in the slot that it names. An outbound one belongs to one
//! worker, or each worker has one of its own (RFC 9611); its slot is the number of the peer's protection, which adjacencies carry
//! ([`crate::adjacency::Adjacency::protection`]) and which is the same in all workers. A slot tells a worker that is not its owner who is.
//!
//! Of each SA a line is shared, atomics that the worker alone writes; window and key are the worker's own.

mod lines;
mod order;

pub(crate) use lines::{InboundCount, InboundLine, Lines, OutboundCount, OutboundLine};
pub(crate) use order::{Change, NewInbound, NewOutbound, Order, OrderSender, Orders, orders};

/// What an adjacency has in place of a slot if nothing protects it.
pub(crate) const UNPROTECTED: u32 = u32::MAX;

/// Most outbound slots: protections of a data plane.
pub(crate) const PROTECTIONS: usize = 1 << 18;
