//! What passes between a worker and the rest of the process: bounded rings, one set for each worker. Nobody blocks on
//! them: who finds a ring full drops, and counts.
//!
//! ```text
//!   worker ──RingIn════RingOut─┤lock├── host thread, service      up: packets, notices, what was traced and captured
//!   worker ◀─RingOut═══RingIn──┤lock├── host thread, service      down: packets, commands
//! ```
//!
//! Each ring has one producer and one consumer ([`memory::ring`]): a worker never waits for a thread that was preempted in the middle of putting
//! something in or taking it out, as it would with a queue that several push to or pop from. Those others are several, and take turns.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk::Mbuf;
use forwarding::{Captured, Command, Injected, InterfaceId, Notice, Origin, Step};
use memory::{RingIn, RingOut, ring};
use model::report::PuntReason;
use nix::sys::eventfd::{EfdFlags, EventFd};
use wire::buf::PacketBuf;
use wire::{icmpv6, ipv4, ipv6};

/// Slots of the rings to the host twins, of each worker and [`Rank`]: of ordinary ones 2 ms of small packets at 1 Mpps, and
/// they are answered by a kernel.
const HOST_SLOTS: [usize; 3] = [256, 512, 2048];
/// Slots of the ring to the control plane, of each worker and reason.
const CONTROL_SLOTS: usize = 512;
/// Slots of the rings from above, of each worker.
const INJECT_SLOTS: usize = 1024;
/// Slots of the ring of notices, of each worker.
const NOTICE_SLOTS: usize = 1024;
/// Slots of the rings of what was traced and captured, of each worker: 2 ms of 2 Mpps. Empty they take half a megabyte each; full of
/// packets of 9,000 bytes, 37.
const OBSERVED_SLOTS: usize = 4096;
/// Slots of the ring of commands, of each worker.
const COMMAND_SLOTS: usize = 16;

/// A packet for the control plane.
#[derive(Debug)]
pub(crate) struct ForControl {
    /// The tunnel it came by.
    pub(crate) tunnel: InterfaceId,
    /// Source of the outer header.
    pub(crate) source: std::net::IpAddr,
    /// Destination of the outer header.
    pub(crate) destination: std::net::IpAddr,
    /// UDP source port of the peer, or 0.
    pub(crate) port: u16,
    /// SPI of the SA that it came by, or 0.
    pub(crate) spi: u32,
    /// The packet.
    pub(crate) buf: Mbuf,
}

/// How urgent a packet to or from the kernel is. Each rank has a ring of its own: whatever anybody sends to an address of
/// ours, neighbours are resolved and routing protocols and IKE are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// ARP and Neighbour Discovery: only stations of the link can send it.
    Link,
    /// Marked as network control (CS6), OSPF, VRRP, IKE.
    Control,
    /// All else.
    Ordinary,
}

/// The end of a ring that is not the worker's. Threads that share it take turns; no worker is among them.
#[derive(Debug)]
pub(crate) struct End<E>(Mutex<E>);

impl<E> End<E> {
    fn lock(&self) -> MutexGuard<'_, E> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> End<RingIn<T>> {
    /// Puts one behind the others; it comes back if there are too many.
    pub(crate) fn push(&self, one: T) -> Result<(), T> {
        self.lock().push(one)
    }

    /// Whether the worker has taken all.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl<T> End<RingOut<T>> {
    /// The one that has been there for longest.
    pub(crate) fn pop(&self) -> Option<T> {
        self.lock().pop()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// A ring up, from a worker.
fn up<T>(slots: usize) -> (RingIn<T>, End<RingOut<T>>) {
    let (into, out) = ring(slots);
    (into, End(Mutex::new(out)))
}

/// A ring down, to a worker.
fn down<T>(slots: usize) -> (End<RingIn<T>>, RingOut<T>) {
    let (into, out) = ring(slots);
    (End(Mutex::new(into)), out)
}

/// An end of a ring for each rank.
#[derive(Debug)]
pub(crate) struct Ranked<E>(Vec<E>);

/// A ring up for each rank.
fn ranked<T>(slots: [usize; 3]) -> (Ranked<RingIn<T>>, Ranked<End<RingOut<T>>>) {
    let (into, out) = slots.into_iter().map(up).unzip();
    (Ranked(into), Ranked(out))
}

impl<T> Ranked<RingIn<T>> {
    /// Puts one behind those of its rank; it comes back if there are too many.
    pub(crate) fn push(&mut self, rank: Rank, one: T) -> Result<(), T> {
        self.0[rank as usize].push(one)
    }

    fn is_empty(&mut self) -> bool {
        self.0.iter_mut().all(RingIn::is_empty)
    }
}

impl<T> Ranked<End<RingOut<T>>> {
    /// The most urgent.
    pub(crate) fn pop(&self) -> Option<T> {
        self.0.iter().find_map(End::pop)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|ring| ring.is_empty())
    }
}

/// The rings of one worker as the rest of the process has them.
#[derive(Debug)]
pub(crate) struct Rings {
    /// To the kernel twins.
    pub(crate) to_host: Ranked<End<RingOut<(InterfaceId, Mbuf)>>>,
    to_control: Vec<End<RingOut<ForControl>>>,
    control_drops: [AtomicU64; PuntReason::ALL.len()],
    urgent: End<RingIn<Injected<Mbuf>>>,
    ordinary: End<RingIn<Injected<Mbuf>>>,
    /// What the worker saw.
    pub(crate) notices: End<RingOut<Notice>>,
    /// Steps of packets that are traced.
    pub(crate) steps: End<RingOut<Step>>,
    /// Steps that found no room.
    pub(crate) steps_lost: AtomicU64,
    /// Packets that were captured.
    pub(crate) captured: End<RingOut<Captured>>,
    /// Packets that found no room.
    pub(crate) captured_lost: AtomicU64,
    /// What the worker is told.
    pub(crate) commands: End<RingIn<Command>>,
    /// Packets of several segments that could not be joined.
    pub(crate) segmented: AtomicU64,
    /// Packets that there was no room for on their way to the workers that they are for.
    pub(crate) spread_full: AtomicU64,
}

/// The worker's ends of its rings, and what it counts there.
#[derive(Debug)]
pub(crate) struct WorkerRings {
    pub(crate) shared: Arc<Rings>,
    pub(crate) to_host: Ranked<RingIn<(InterfaceId, Mbuf)>>,
    to_control: Vec<RingIn<ForControl>>,
    urgent: RingOut<Injected<Mbuf>>,
    ordinary: RingOut<Injected<Mbuf>>,
    pub(crate) notices: RingIn<Notice>,
    pub(crate) steps: RingIn<Step>,
    pub(crate) captured: RingIn<Captured>,
    pub(crate) commands: RingOut<Command>,
}

/// Both sides of one worker's rings.
pub(crate) fn rings() -> (Arc<Rings>, WorkerRings) {
    let (to_host, at_host) = ranked(HOST_SLOTS);
    let (to_control, at_control) = PuntReason::ALL.iter().map(|_| up(CONTROL_SLOTS)).unzip();
    let ((to_urgent, urgent), (to_ordinary, ordinary)) = (down(INJECT_SLOTS), down(INJECT_SLOTS));
    let (notices, noticed) = up(NOTICE_SLOTS);
    let ((steps, traced), (captured, capture)) = (up(OBSERVED_SLOTS), up(OBSERVED_SLOTS));
    let (command, commands) = down(COMMAND_SLOTS);
    let shared = Arc::new(Rings {
        to_host: at_host,
        to_control: at_control,
        control_drops: std::array::from_fn(|_| AtomicU64::new(0)),
        urgent: to_urgent,
        ordinary: to_ordinary,
        notices: noticed,
        steps: traced,
        steps_lost: AtomicU64::new(0),
        captured: capture,
        captured_lost: AtomicU64::new(0),
        commands: command,
        segmented: AtomicU64::new(0),
        spread_full: AtomicU64::new(0),
    });
    let worker = WorkerRings {
        shared: Arc::clone(&shared),
        to_host,
        to_control,
        urgent,
        ordinary,
        notices,
        steps,
        captured,
        commands,
    };
    (shared, worker)
}

impl Rings {
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
            Origin::Twin(_) => rank(injected.buf.bytes()) != Rank::Ordinary,
        };
        let ring = if urgent { &self.urgent } else { &self.ordinary };
        ring.push(injected).map_err(|injected| injected.buf)
    }

    /// Whether the host thread has something to do.
    pub(crate) fn wants_host(&self) -> bool {
        !self.to_host.is_empty() || self.to_control.iter().any(|ring| !ring.is_empty())
    }

    /// Frees what the worker has left in the rings.
    pub(crate) fn drain(&self) {
        while let Some((_, buf)) = self.to_host.pop() {
            buf.free();
        }
        for ring in &self.to_control {
            while let Some(packet) = ring.pop() {
                packet.buf.free();
            }
        }
    }
}

impl WorkerRings {
    /// Queues a packet for the control plane; full rings are counted by reason, and the count travels with the next packet.
    pub(crate) fn push_control(&mut self, reason: PuntReason, packet: ForControl) -> Result<(), Mbuf> {
        self.to_control[reason as usize].push(packet).map_err(|packet| {
            self.shared.count_control_drops(reason, 1);
            packet.buf
        })
    }

    /// The next packet from above.
    pub(crate) fn pop_injected(&mut self) -> Option<Injected<Mbuf>> {
        self.urgent.pop().or_else(|| self.ordinary.pop())
    }

    /// Whether the host thread has something to do.
    pub(crate) fn wants_host(&mut self) -> bool {
        !self.to_host.is_empty() || self.to_control.iter_mut().any(|ring| !ring.is_empty())
    }

    /// Frees what the worker was not given any more.
    pub(crate) fn drain(&mut self) {
        while let Some(injected) = self.pop_injected() {
            injected.buf.free();
        }
    }
}

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// First bytes of ARP on Ethernet for IPv4 (RFC 826).
const ARP: [u8; 4] = [0, 1, 8, 0];
/// IP protocols of routers among themselves: OSPF (RFC 2328) and VRRP (RFC 5798).
const ROUTERS: [u8; 2] = [ipv4::OSPF, 112];
/// UDP ports of IKE (RFC 7296 §2).
const IKE: [u16; 2] = [500, 4500];

/// The rank of what passes a twin.
pub(crate) fn rank(bytes: &[u8]) -> Rank {
    // A TUN's packet begins with its version, 4 or 6; a TAP's frame with a destination address, whose type tells more.
    let control = match bytes.get(12..ETHERNET_LEN) {
        Some([0x08, 0x06]) if bytes[ETHERNET_LEN..].starts_with(&ARP) => return Rank::Link,
        Some([0x86, 0xdd]) if is_discovery(&bytes[ETHERNET_LEN..]) => return Rank::Link,
        Some([0x08, 0x00] | [0x86, 0xdd]) if is_control(&bytes[ETHERNET_LEN..]) => true,
        _ => is_control(bytes),
    };
    if control { Rank::Control } else { Rank::Ordinary }
}

/// Whether it is Neighbour Discovery that no router has passed on, which would have lowered the hop limit (RFC 4861 §7.1). It has
/// no extension headers that matter (RFC 6980).
fn is_discovery(packet: &[u8]) -> bool {
    let Ok((header, [kind, ..])) = ipv6::parse(packet) else { return false };
    header.hop_limit == u8::MAX
        && header.next_header == ipv6::ICMPV6
        && (icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT).contains(kind)
}

fn is_control(packet: &[u8]) -> bool {
    match packet.first().map(|version| version >> 4) {
        Some(4) => is_control_v4(packet),
        Some(6) => is_control_v6(packet),
        _ => false,
    }
}

fn is_control_v6(packet: &[u8]) -> bool {
    let (Ok((header, _)), Ok(upper)) = (ipv6::parse(packet), ipv6::upper(packet)) else { return false };
    header.traffic_class() & 0xfc == ipv4::CS6
        || ROUTERS.contains(&upper.protocol)
        || upper.protocol == ipv6::UDP && !upper.is_later_fragment() && is_ike(packet.get(upper.offset..))
}

fn is_control_v4(packet: &[u8]) -> bool {
    let Some(header) = packet.first_chunk::<{ ipv4::LEN }>() else { return false };
    let protocol = header[9];
    if header[1] & 0xfc == ipv4::CS6 || ROUTERS.contains(&protocol) {
        return true;
    }
    let is_first = u16::from_be_bytes([header[6], header[7]]) & ipv4::OFFSET_MASK == 0;
    protocol == ipv4::UDP && is_first && is_ike(packet.get(usize::from(header[0] & 15) * 4..))
}

fn is_ike(udp: Option<&[u8]>) -> bool {
    udp.and_then(|udp| udp.first_chunk::<4>()).is_some_and(|[a, b, c, d]| {
        IKE.contains(&u16::from_be_bytes([*a, *b])) || IKE.contains(&u16::from_be_bytes([*c, *d]))
    })
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
    fn arp_routers_and_ike_go_ahead_on_taps_and_tuns() {
        let packet = |tos: u8, protocol: u8, offset: u8, port: u16| {
            let mut packet = [0; 48];
            (packet[0], packet[1], packet[7], packet[9]) = (0x45, tos, offset, protocol);
            packet[22..24].copy_from_slice(&port.to_be_bytes());
            packet
        };
        let frame = |kind: [u8; 2], payload: &[u8]| [&[0; 12][..], &kind, payload].concat();
        let ranks = [
            (packet(0xc0, ipv4::TCP, 0, 179), Rank::Control),
            (packet(0xc3, ipv4::ICMP, 0, 0), Rank::Control),
            (packet(0xb8, ipv4::TCP, 0, 22), Rank::Ordinary),
            (packet(0, ipv4::OSPF, 0, 0), Rank::Control),
            (packet(0, 112, 0, 0), Rank::Control),
            (packet(0, ipv4::UDP, 0, 500), Rank::Control),
            (packet(0, ipv4::UDP, 0, 4500), Rank::Control),
            (packet(0, ipv4::UDP, 0, 53), Rank::Ordinary),
            (packet(0, ipv4::TCP, 0, 500), Rank::Ordinary),
            // The middle of something: no ports are there.
            (packet(0, ipv4::UDP, 9, 500), Rank::Ordinary),
        ];
        for (packet, expected) in ranks {
            assert_eq!(rank(&packet), expected, "{packet:?}");
            assert_eq!(rank(&frame([0x08, 0x00], &packet)), expected, "{packet:?}");
        }
        assert_eq!(rank(&frame([0x08, 0x06], &[&ARP[..], &[0; 24]].concat())), Rank::Link);
        // From 8.6.0.9 by a tunnel, and nothing at all.
        let mut tunnelled = packet(0, ipv4::UDP, 0, 53);
        tunnelled[12..16].copy_from_slice(&[8, 6, 0, 9]);
        assert_eq!(
            (rank(&tunnelled), rank(&[]), rank(&[0x45])),
            (Rank::Ordinary, Rank::Ordinary, Rank::Ordinary)
        );
    }

    #[test]
    fn discovery_routers_and_ike_go_ahead_over_ipv6_too() {
        // A header, perhaps another in front of the upper protocol, and what that begins with.
        let packet = |class: u8, hop_limit: u8, chain: &[u8], upper: &[u8]| {
            let mut packet = vec![0; 40];
            (packet[0], packet[1], packet[6], packet[7]) =
                (0x60 | class >> 4, class << 4, chain[0], hop_limit);
            for next in &chain[1..] {
                packet.extend([*next, 0, 0, 0, 0, 0, 0, 0]);
            }
            packet.extend(upper);
            packet[5] = u8::try_from(packet.len() - 40).unwrap();
            packet
        };
        let frame = |payload: &[u8]| [&[0; 12][..], &[0x86, 0xdd], payload].concat();
        let udp = |port: u16| [port.to_be_bytes(), port.to_be_bytes(), [0, 8], [0, 0]].concat();
        let ranks = [
            (packet(0xc0, 64, &[ipv6::TCP], &[0; 20]), Rank::Control),
            (packet(0xb8, 64, &[ipv6::TCP], &[0; 20]), Rank::Ordinary),
            (packet(0, 1, &[ipv6::OSPF], &[3; 16]), Rank::Control),
            (packet(0, 1, &[ipv6::DESTINATION_OPTIONS, ipv6::OSPF], &[3; 16]), Rank::Control),
            (packet(0, 255, &[112], &[0; 8]), Rank::Control),
            (packet(0, 64, &[ipv6::UDP], &udp(500)), Rank::Control),
            (packet(0, 64, &[ipv6::HOP_BY_HOP, ipv6::UDP], &udp(4500)), Rank::Control),
            (packet(0, 64, &[ipv6::UDP], &udp(53)), Rank::Ordinary),
            (packet(0, 255, &[ipv6::ICMPV6], &[icmpv6::ECHO, 0, 0, 0]), Rank::Ordinary),
        ];
        for (packet, expected) in ranks {
            assert_eq!(rank(&packet), expected, "{packet:?}");
            assert_eq!(rank(&frame(&packet)), expected, "{packet:?}");
        }
        for kind in icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT {
            let discovery = |hop_limit| packet(0, hop_limit, &[ipv6::ICMPV6], &[kind, 0, 0, 0]);
            assert_eq!(rank(&frame(&discovery(255))), Rank::Link);
            // From somewhere else, or from nobody's neighbour.
            assert_eq!(
                (rank(&frame(&discovery(254))), rank(&discovery(255))),
                (Rank::Ordinary, Rank::Ordinary)
            );
        }
        assert_eq!((rank(&frame(&[])), rank(&frame(&[0x60]))), (Rank::Ordinary, Rank::Ordinary));
    }

    #[test]
    fn a_flood_of_one_rank_leaves_the_others_their_room() {
        let (mut into, out) = ranked([2, 2, 4]);
        let flood: Vec<_> = (0..100).filter(|n| into.push(Rank::Ordinary, *n).is_ok()).collect();
        assert_eq!(flood, [0, 1, 2, 3]);
        assert_eq!((into.push(Rank::Control, 200), into.push(Rank::Link, 300)), (Ok(()), Ok(())));
        assert!(!into.is_empty() && !out.is_empty());
        assert_eq!(std::iter::from_fn(|| out.pop()).collect::<Vec<_>>(), [300, 200, 0, 1, 2, 3]);
        assert!(into.is_empty() && out.is_empty());
    }
}
