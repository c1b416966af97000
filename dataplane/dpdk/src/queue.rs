//! Queues of a port: where packets come in and go out.

use crate::mbuf::Mbuf;
use crate::port::Device;
use dpdk_sys::rte_eth_fp_ops;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

/// A receive queue. One owner, which is one worker; it keeps its port running.
#[derive(Debug)]
pub struct RxQueue {
    device: Arc<Device>,
    queue: u16,
    wake: Option<RawFd>,
}

/// A transmit queue. One owner, which is one worker; it keeps its port running.
#[derive(Debug)]
pub struct TxQueue {
    device: Arc<Device>,
    queue: u16,
}

/// The functions and queues of a started port, where its driver keeps them: they may change while it runs (a card's
/// link going down), so they are read at each burst, as DPDK's inline functions do.
#[inline(always)]
fn fast_path(port: u16) -> *const rte_eth_fp_ops {
    (&raw const dpdk_sys::rte_eth_fp_ops).cast::<rte_eth_fp_ops>().wrapping_add(usize::from(port))
}

/// Takes the first `count` mbufs out of the vector, which no longer owns them.
///
/// # Safety
/// Somebody else owns them now.
#[inline(always)]
pub(crate) unsafe fn forget_front(mbufs: &mut Vec<Mbuf>, count: usize) {
    let left = mbufs.len() - count;
    if left != 0 && count != 0 {
        // SAFETY: both ranges lie in the vector.
        unsafe { std::ptr::copy(mbufs.as_ptr().add(count), mbufs.as_mut_ptr(), left) };
    }
    // SAFETY: the first `left` are initialised and owned; no element has a `Drop`.
    unsafe { mbufs.set_len(left) };
}

impl RxQueue {
    /// A queue of a port that is being opened.
    ///
    /// # Safety
    /// The device is started, has the queue, and nobody else has a handle to it.
    pub(crate) unsafe fn new(device: Arc<Device>, queue: u16, has_wake_fd: bool) -> Self {
        // SAFETY: the device is started and has the queue.
        let fd = || unsafe { dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(device.id(), queue) };
        let wake = has_wake_fd.then(fd).filter(|fd| *fd >= 0);
        Self { device, queue, wake }
    }

    /// A descriptor that is readable while packets wait, for a worker that sleeps when idle; `None` where the driver has
    /// none that works without more ado (all but net_tap).
    #[must_use]
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the driver keeps its queues' descriptors open for as long as the device is, and `self` holds it.
        self.wake.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Number of the queue on its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Appends up to `max` received packets to `into`, as far as it has capacity (nothing is allocated), and returns how
    /// many it was.
    #[inline]
    pub fn burst(&mut self, into: &mut Vec<Mbuf>, max: usize) -> usize {
        let spare = into.spare_capacity_mut();
        let (place, room) =
            (spare.as_mut_ptr().cast(), spare.len().min(max).min(usize::from(u16::MAX)) as u16);
        // SAFETY: the port runs for as long as `device` is held and has this queue; `&mut self` is its only user; the
        // driver writes at most `room` mbufs, which it owned, behind the vector's length.
        unsafe {
            let ops = fast_path(self.device.id());
            let Some(receive) = (*ops).rx_pkt_burst else { return 0 };
            let got = usize::from(receive(*(*ops).rxq.data.add(usize::from(self.queue)), place, room));
            into.set_len(into.len() + got);
            got
        }
    }
}

impl TxQueue {
    /// A queue of a port that is being opened.
    ///
    /// # Safety
    /// The device is started, has the queue, and nobody else has a handle to it.
    pub(crate) unsafe fn new(device: Arc<Device>, queue: u16) -> Self {
        Self { device, queue }
    }

    /// Number of the queue on its port.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Sends packets from the front of `packets`, removes those that the driver took, and returns how many it was. What
    /// is left was not sent for want of room: try again, or free it.
    #[inline]
    pub fn burst(&mut self, packets: &mut Vec<Mbuf>) -> usize {
        let count = packets.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port runs for as long as `device` is held and has this queue; `&mut self` is its only user; the
        // driver owns the mbufs that it took, which leave the vector.
        unsafe {
            let ops = fast_path(self.device.id());
            let Some(send) = (*ops).tx_pkt_burst else { return 0 };
            let queue = *(*ops).txq.data.add(usize::from(self.queue));
            let taken = usize::from(send(queue, packets.as_mut_ptr().cast(), count));
            forget_front(packets, taken);
            taken
        }
    }
}
