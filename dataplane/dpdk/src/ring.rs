//! Rings of mbufs: queues between two owners, and the wires of ports that exist in this process only.

use crate::errno::Errno;
use crate::mbuf::Mbuf;
use crate::{Eal, queue};
use dpdk_sys::rte_ring;
use std::ffi::CString;
use std::ptr::NonNull;

/// The end of a ring that mbufs go into. One owner; moves between threads.
#[derive(Debug)]
pub struct RingTx(pub(crate) NonNull<rte_ring>);

/// The end of a ring that mbufs come out of. One owner; moves between threads.
#[derive(Debug)]
pub struct RingRx(pub(crate) NonNull<rte_ring>);

// SAFETY: the ring lives for good and is single-producer, single-consumer; each end is owned by one thread at a time.
unsafe impl Send for RingTx {}
// SAFETY: as above.
unsafe impl Send for RingRx {}

/// A ring could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ring {name:?} of {slots} slots: {errno}")]
pub struct RingError {
    /// The ring.
    pub name: String,
    /// Slots that were asked for.
    pub slots: u32,
    /// Why not: `EEXIST` for a name in use, `EINVAL` for an impossible size, `ENOMEM`.
    pub errno: Errno,
}

/// Makes a ring of exactly `slots` mbufs with one producer and one consumer, and returns its two ends. `name` is unique
/// in the process, at most 25 bytes. The ring lives as long as the process; mbufs left in it stay there.
///
/// # Errors
/// [`RingError`] when the name is taken or impossible, or memory is short.
pub fn ring(_: &Eal, name: &str, slots: u32) -> Result<(RingTx, RingRx), RingError> {
    let error = |errno| RingError { name: name.to_owned(), slots, errno };
    let c_name = CString::new(name).map_err(|_| error(Errno(nix::errno::Errno::EINVAL as i32)))?;
    let flags = dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ | dpdk_sys::RING_F_EXACT_SZ;
    // SAFETY: the EAL runs; the name is copied.
    let ring = unsafe { dpdk_sys::rte_ring_create(c_name.as_ptr(), slots, dpdk_sys::SOCKET_ID_ANY, flags) };
    let ring = NonNull::new(ring).ok_or_else(|| error(Errno::last()))?;
    Ok((RingTx(ring), RingRx(ring)))
}

impl RingTx {
    /// Puts mbufs into the ring from the front of `mbufs`, removes what fitted, and returns how many it was.
    #[inline]
    pub fn burst(&mut self, mbufs: &mut Vec<Mbuf>) -> usize {
        let count = mbufs.len() as u32;
        // SAFETY: the ring lives for good, `&mut self` is its only producer, and an `Mbuf` is a pointer.
        let taken =
            unsafe { dpdk_sys::nave_ring_enqueue_burst(self.0.as_ptr(), mbufs.as_ptr().cast(), count) }
                as usize;
        // SAFETY: the ring owns the first `taken` now.
        unsafe { queue::forget_front(mbufs, taken) };
        taken
    }
}

impl RingRx {
    /// Appends up to `max` mbufs to `into`, as far as it has capacity, and returns how many it was.
    #[inline]
    pub fn burst(&mut self, into: &mut Vec<Mbuf>, max: usize) -> usize {
        let spare = into.spare_capacity_mut();
        let (place, room) = (spare.as_mut_ptr().cast(), spare.len().min(max).min(u32::MAX as usize) as u32);
        // SAFETY: the ring lives for good, `&mut self` is its only consumer, and `into` has the room.
        let got = unsafe { dpdk_sys::nave_ring_dequeue_burst(self.0.as_ptr(), place, room) } as usize;
        // SAFETY: the call wrote `got` mbufs behind the length; the ring owns them no more.
        unsafe { into.set_len(into.len() + got) };
        got
    }
}
