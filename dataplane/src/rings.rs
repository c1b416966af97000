//! What passes between a worker and the rest of the process: bounded rings, one set for each worker. Nobody blocks on
//! them: who finds a ring full drops, and counts.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use dpdk::Mbuf;
use forwarding::{Command, Injected, InterfaceId, Notice, Origin};
use model::report::PuntReason;
use nix::sys::eventfd::{EfdFlags, EventFd};
use wire::buf::PacketBuf;

/// Slots of the ring to the host twins, of each worker: 2 ms of small packets at 1 Mpps, and they are answered by a kernel.
const HOST_SLOTS: usize = 2048;
/// Slots of the ring to the control plane, of each worker and reason.
const CONTROL_SLOTS: usize = 512;
/// Slots of the rings from above, of each worker.
const INJECT_SLOTS: usize = 1024;
/// Slots of the ring of notices, of each worker.
const NOTICE_SLOTS: usize = 1024;

/// A packet for the control plane.
#[derive(Debug)]
pub(crate) struct ForControl {
    /// The tunnel it came by.
    pub(crate) tunnel: InterfaceId,
    /// Source of the outer header.
    pub(crate) source: std::net::Ipv4Addr,
    /// Destination of the outer header.
    pub(crate) destination: std::net::Ipv4Addr,
    /// The packet.
    pub(crate) buf: Mbuf,
}

/// The rings of one worker. The worker is the only writer upwards and the only reader downwards.
#[derive(Debug)]
pub(crate) struct Rings {
    /// To the kernel twins.
    pub(crate) to_host: ArrayQueue<(InterfaceId, Mbuf)>,
    to_control: [ArrayQueue<ForControl>; PuntReason::ALL.len()],
    control_drops: [AtomicU64; PuntReason::ALL.len()],
    urgent: ArrayQueue<Injected<Mbuf>>,
    ordinary: ArrayQueue<Injected<Mbuf>>,
    /// What the worker saw.
    pub(crate) notices: ArrayQueue<Notice>,
    /// What the worker is told.
    pub(crate) commands: ArrayQueue<Command>,
    /// Packets of several segments that could not be joined.
    pub(crate) segmented: AtomicU64,
}

impl Rings {
    pub(crate) fn new() -> Self {
        Self {
            to_host: ArrayQueue::new(HOST_SLOTS),
            to_control: std::array::from_fn(|_| ArrayQueue::new(CONTROL_SLOTS)),
            control_drops: std::array::from_fn(|_| AtomicU64::new(0)),
            urgent: ArrayQueue::new(INJECT_SLOTS),
            ordinary: ArrayQueue::new(INJECT_SLOTS),
            notices: ArrayQueue::new(NOTICE_SLOTS),
            commands: ArrayQueue::new(16),
            segmented: AtomicU64::new(0),
        }
    }

    /// Queues a packet for the control plane; full rings are counted by reason, and the count travels with the next packet.
    pub(crate) fn push_control(&self, reason: PuntReason, packet: ForControl) -> Result<(), Mbuf> {
        self.to_control[reason as usize].push(packet).map_err(|packet| {
            self.count_control_drops(reason, 1);
            packet.buf
        })
    }

    /// The next packet for the control plane of this reason.
    pub(crate) fn pop_control(&self, reason: PuntReason) -> Option<ForControl> {
        self.to_control[reason as usize].pop()
    }

    /// Counts packets of this reason that did not get through.
    pub(crate) fn count_control_drops(&self, reason: PuntReason, count: u64) {
        self.control_drops[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Takes the count of packets that did not get through.
    pub(crate) fn take_control_drops(&self, reason: PuntReason) -> u64 {
        self.control_drops[reason as usize].swap(0, Ordering::Relaxed)
    }

    /// Queues a packet from above; control traffic goes ahead of the rest.
    pub(crate) fn inject(&self, injected: Injected<Mbuf>) -> Result<(), Mbuf> {
        let urgent = match injected.origin {
            Origin::Control { .. } => true,
            Origin::Twin(_) => is_urgent(injected.buf.bytes()),
        };
        let ring = if urgent { &self.urgent } else { &self.ordinary };
        ring.push(injected).map_err(|injected| injected.buf)
    }

    /// The next packet from above.
    pub(crate) fn pop_injected(&self) -> Option<Injected<Mbuf>> {
        self.urgent.pop().or_else(|| self.ordinary.pop())
    }

    /// Whether the host thread has something to do.
    pub(crate) fn wants_host(&self) -> bool {
        !self.to_host.is_empty() || self.to_control.iter().any(|ring| !ring.is_empty())
    }

    /// Frees what is left in the rings.
    pub(crate) fn drain(&self) {
        while let Some((_, buf)) = self.to_host.pop() {
            buf.free();
        }
        for ring in &self.to_control {
            while let Some(packet) = ring.pop() {
                packet.buf.free();
            }
        }
        while let Some(injected) = self.pop_injected() {
            injected.buf.free();
        }
    }
}

/// Class selector 6 in the upper six bits of the type of service (RFC 2474 §4.2.2.2): routing protocols mark themselves so.
const CS6: u8 = 48 << 2;
/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// Whether what the kernel sent by a twin goes ahead: ARP, and what is marked CS6.
fn is_urgent(bytes: &[u8]) -> bool {
    // A TUN's packet begins with its version, 4 or 6; a TAP's frame with a destination address, whose type tells more.
    let tos =
        |ip: &[u8]| ip.first().is_some_and(|b| b >> 4 == 4) && ip.get(1).is_some_and(|b| b & 0xfc == CS6);
    match bytes.get(12..ETHERNET_LEN) {
        Some([0x08, 0x06]) => true,
        Some([0x08, 0x00]) if tos(&bytes[ETHERNET_LEN..]) => true,
        _ => tos(bytes),
    }
}

/// Wakes the host thread, if it sleeps: a system call only then.
#[derive(Debug)]
pub(crate) struct Waker {
    asleep: AtomicBool,
    event: EventFd,
}

impl Waker {
    pub(crate) fn new() -> nix::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { asleep: AtomicBool::new(false), event })
    }

    /// Tells the host thread that a ring has something in it.
    pub(crate) fn wake(&self) {
        // Orders the push before the question; pairs with `about_to_sleep`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // It can only fail when the counter is at its end, and then the thread is awake.
            let _ = self.event.write(1);
        }
    }

    /// The host thread says that it is about to sleep; afterwards it looks at the rings once more.
    pub(crate) fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The host thread is awake.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let _ = self.event.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arp_and_cs6_go_ahead_on_taps_and_tuns() {
        let frame = |kind: [u8; 2], tos: u8| [&[0; 12][..], &kind, &[0x45, tos], &[0; 40]].concat();
        assert!(is_urgent(&frame([0x08, 0x06], 0)));
        assert!(is_urgent(&frame([0x08, 0x00], 0xc0)));
        assert!(is_urgent(&frame([0x08, 0x00], 0xc3)));
        assert!(!is_urgent(&frame([0x08, 0x00], 0xb8)));
        assert!(is_urgent(&[&[0x45, 0xc0], &[0; 40][..]].concat()));
        assert!(!is_urgent(&[&[0x45, 0], &[0; 40][..]].concat()));
        assert!(!is_urgent(&[]));
    }
}
