//! Memory as the fast path sees it: prefetch hints, cache lines, huge-page arrays, rings between two cores, and the cycle counter
//! and the counted heap that measure them. Small safe wrappers; the unsafe is here so that the crates above can forbid it.
#![allow(unsafe_code)]

mod cycles;
mod heap;
mod huge;
mod line;
mod prefetch;
mod ring;
mod slots;

pub use cycles::{Clock, cycles, cycles_per_second};
pub use heap::Heap;
pub use huge::{HugeVec, MapError, Pages};
pub use line::{LINE, LineAligned};
pub use prefetch::{prefetch_address, prefetch_read, prefetch_slice};
pub use ring::{RingIn, RingOut, ring};
pub use slots::HugeSlots;
