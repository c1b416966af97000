//! The packet buffer of DPDK.

use dpdk_sys::rte_mbuf;
use std::ptr::NonNull;
use wire::buf::PacketBuf;

/// Bytes in front of a packet in a fresh or received mbuf. Drivers are compiled with it (Debian's build: 128).
pub const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;

/// One packet in a buffer of a [`crate::Mempool`].
///
/// ```text
///   rte_mbuf (2 lines) | headroom | packet | tailroom |
///                      ^ buf_addr ^ + data_off        ^ + buf_len
///                                 <-data_len->
/// ```
///
/// It is a pointer with one owner. It has no `Drop`: whoever ends the packet's walk sends it or frees it
/// ([`free_bulk`]); an mbuf that goes out of scope is lost to its pool, which is a leak and never a dangling use.
///
/// A packet that was received in several segments ([`Mbuf::segments`]) shows its first one; [`Mbuf::linearise`] it
/// before it is resized, since resizing works on that segment.
#[repr(transparent)]
#[must_use = "an mbuf that is not sent, freed or kept is lost to its pool"]
pub struct Mbuf(NonNull<rte_mbuf>);

// SAFETY: an mbuf belongs to whoever holds it; the pools it returns to are thread-safe.
unsafe impl Send for Mbuf {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Mbuf {}

/// Flags that say whose memory the buffer is (`RTE_MBUF_F_EXTERNAL`, `RTE_MBUF_F_INDIRECT`).
const FOREIGN_MEMORY: u64 = 3 << 61;

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `mbuf` is allocated, initialised, and owned by nobody else.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(mbuf: NonNull<rte_mbuf>) -> Self {
        Self(mbuf)
    }

    #[inline(always)]
    fn raw(&self) -> &rte_mbuf {
        // SAFETY: an `Mbuf` owns a live buffer of a pool that is never freed.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn raw_mut(&mut self) -> &mut rte_mbuf {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.0.as_mut() }
    }

    /// First byte of the packet.
    #[inline(always)]
    fn start(&self) -> *mut u8 {
        let raw = self.raw();
        raw.buf_addr.cast::<u8>().wrapping_add(usize::from(raw.data_off))
    }

    /// Number of buffers that hold the packet; [`PacketBuf`] sees the first.
    #[inline(always)]
    #[must_use]
    pub fn segments(&self) -> u16 {
        self.raw().nb_segs
    }

    /// Length of the packet over all its segments, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn packet_len(&self) -> usize {
        self.raw().pkt_len as usize
    }

    /// Moves the bytes of all segments into the first and frees the others; `false`, and no change, without the
    /// tailroom.
    #[inline]
    #[must_use]
    pub fn linearise(&mut self) -> bool {
        // SAFETY: the mbuf and its chain are owned by `self`.
        self.segments() == 1 || unsafe { dpdk_sys::nave_pktmbuf_linearize(self.0.as_ptr()) } == 0
    }

    /// Makes the mbuf as good as a fresh one: no packet, the whole headroom, no flags.
    pub fn reset(&mut self) {
        let raw = self.raw_mut();
        if raw.nb_segs > 1 && !raw.next.is_null() {
            let rest = std::mem::replace(&mut raw.next, std::ptr::null_mut());
            raw.nb_segs = 1;
            // SAFETY: the rest of the chain is owned by `self`; nothing points to it any more. Freed one by one,
            // each as the single segment it now is, its count of segments does not matter.
            unsafe { free_chain(rest) };
        }
        let raw = self.raw_mut();
        raw.data_off = HEADROOM.min(raw.buf_len);
        raw.data_len = 0;
        raw.pkt_len = 0;
        raw.ol_flags &= FOREIGN_MEMORY;
        raw.port = u16::MAX;
        raw.vlan_tci = 0;
        raw.vlan_tci_outer = 0;
        raw.__bindgen_anon_1.packet_type = 0;
        raw.__bindgen_anon_3.tx_offload = 0;
    }

    /// Gives the buffer, all its segments, back to its pool.
    #[inline]
    pub fn free(self) {
        // SAFETY: `self` owns the chain and is consumed.
        unsafe { dpdk_sys::nave_pktmbuf_free(self.0.as_ptr()) }
    }
}

/// Frees a chain of segments.
///
/// # Safety
/// The caller owns the chain.
unsafe fn free_chain(first: *mut rte_mbuf) {
    // SAFETY: rte_pktmbuf_free walks `next` until null and gives each segment to its pool.
    unsafe { dpdk_sys::nave_pktmbuf_free(first) }
}

/// Gives all of `mbufs` back to their pools and empties the vector, which keeps its capacity.
#[inline]
pub fn free_bulk(mbufs: &mut Vec<Mbuf>) {
    let count = mbufs.len() as u32;
    // SAFETY: an `Mbuf` is a pointer to an mbuf that the vector owned; it owns them no more before they are freed.
    unsafe {
        mbufs.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(mbufs.as_mut_ptr().cast(), count);
    }
}

/// Packet types that begin with a tunnel, and of these the one that no card looks into.
const TUNNEL_TYPES: u32 = dpdk_sys::RTE_PTYPE_TUNNEL_MASK;
const TUNNEL_ESP: u32 = dpdk_sys::RTE_PTYPE_TUNNEL_ESP;

impl PacketBuf for Mbuf {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `data_len` bytes from `data_off` lie in the buffer, which is mapped and ours.
        unsafe { std::slice::from_raw_parts(self.start(), usize::from(self.raw().data_len)) }
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start(), usize::from(self.raw().data_len)) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        usize::from(self.raw().data_len)
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        usize::from(self.raw().data_off)
    }

    #[inline(always)]
    fn tailroom(&self) -> usize {
        let raw = self.raw();
        usize::from(raw.buf_len) - usize::from(raw.data_off) - usize::from(raw.data_len)
    }

    #[inline(always)]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.headroom() {
            return None;
        }
        let raw = self.raw_mut();
        raw.data_off -= count as u16;
        raw.data_len += count as u16;
        raw.pkt_len += count as u32;
        // SAFETY: the first `count` bytes of the packet lie in the buffer now.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start(), count) })
    }

    #[inline(always)]
    fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = self.len();
        let raw = self.raw_mut();
        raw.data_len += count as u16;
        raw.pkt_len += count as u32;
        // SAFETY: the last `count` bytes of the packet lie in the buffer now.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start().add(old), count) })
    }

    #[inline(always)]
    fn grow(&mut self, count: usize) -> Option<&mut [u8]> {
        let raw = self.raw_mut();
        let (room, len) = (usize::from(raw.buf_len) - usize::from(raw.data_off), usize::from(raw.data_len));
        let len = len + count;
        if len > room {
            return None;
        }
        raw.data_len = len as u16;
        raw.pkt_len += count as u32;
        // SAFETY: so many bytes lie in the buffer, which is mapped and ours, and `self` is borrowed exclusively.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start(), len) })
    }

    #[inline(always)]
    fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.len();
        if fits {
            let raw = self.raw_mut();
            raw.data_off += count as u16;
            raw.data_len -= count as u16;
            raw.pkt_len -= count as u32;
        }
        fits
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> bool {
        let cut = self.len().checked_sub(len);
        if let Some(cut) = cut {
            let raw = self.raw_mut();
            raw.data_len = len as u16;
            raw.pkt_len -= cut as u32;
        }
        cut.is_some()
    }

    /// Where the driver says that it found a tunnel, what it says of the checksum may be of the inner header: it is not taken then.
    #[inline(always)]
    fn is_ipv4_summed(&self) -> bool {
        let raw = self.raw();
        // SAFETY: a union of the whole type and of parts of it, all numbers.
        let tunnel = unsafe { raw.__bindgen_anon_1.packet_type } & TUNNEL_TYPES;
        raw.ol_flags & dpdk_sys::NAVE_MBUF_IPV4 == dpdk_sys::NAVE_MBUF_IPV4_GOOD
            && (tunnel == 0 || tunnel == TUNNEL_ESP)
    }

    #[inline(always)]
    fn prefetch_descriptor(&self) {
        memory::prefetch_address(self.0.as_ptr());
    }

    #[inline(always)]
    fn prefetch_bytes(&self) {
        memory::prefetch_address(self.start());
    }

    /// Drivers put a packet [`HEADROOM`] bytes into the buffer, which in our pools begins behind the descriptor.
    #[inline(always)]
    fn prefetch_received(&self) {
        memory::prefetch_address(self.0.as_ptr());
        self.prefetch_before_received(0);
    }

    #[inline(always)]
    fn prefetch_before_received(&self, before: usize) {
        let first = self.0.as_ptr().wrapping_add(1).cast::<u8>().wrapping_add(usize::from(HEADROOM));
        memory::prefetch_address(first.wrapping_sub(before));
    }
}

impl std::fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mbuf[{} in {}]", self.packet_len(), self.segments())?;
        self.bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Eal, EalArgs, Memory, Mempool, MempoolConfig};

    /// One packet in two segments, as a driver that scatters would deliver it.
    fn chain(pool: &Mempool, first: &[u8], second: &[u8]) -> Mbuf {
        let mut packet = pool.alloc_copy(first).unwrap();
        let rest = pool.alloc_copy(second).unwrap();
        let raw = packet.raw_mut();
        raw.next = rest.0.as_ptr();
        raw.nb_segs = 2;
        raw.pkt_len += second.len() as u32;
        packet
    }

    #[test]
    fn mbufs_resize_chain_and_return_to_their_pool() {
        let eal = Eal::start(&EalArgs { memory: Memory::NoHuge { mb: 64 }, ..EalArgs::default() }).unwrap();
        let config = MempoolConfig { name: "p", count: 31, cache: 0, data_room: 100, socket: None };
        let pool = Mempool::create(&eal, &config).unwrap();

        let mut buf = pool.alloc_copy(&[1, 2, 3]).unwrap();
        assert_eq!((buf.headroom(), buf.len(), buf.tailroom()), (128, 3, 97));
        assert!(buf.prepend(129).is_none() && buf.append(98).is_none());
        buf.prepend(128).unwrap()[127] = 9;
        buf.append(97).unwrap()[0] = 7;
        assert_eq!((buf.headroom(), buf.len(), buf.tailroom(), buf.packet_len()), (0, 228, 0, 228));
        assert!(!buf.trim_front(229) && buf.trim_front(127) && !buf.truncate(102) && buf.truncate(5));
        assert_eq!((buf.bytes(), buf.packet_len(), buf.headroom()), (&[9, 1, 2, 3, 7][..], 5, 127));
        buf.bytes_mut()[0] = 8;
        buf.prefetch_descriptor();
        buf.prefetch_bytes();
        assert_eq!(format!("{buf:?}"), "Mbuf[5 in 1] 08 01 02 03 07");
        assert!(buf.linearise());
        buf.reset();
        assert_eq!((buf.headroom(), buf.len(), buf.packet_len()), (128, 0, 0));
        assert_eq!(pool.in_use(), 1);
        buf.free();
        assert_eq!(pool.in_use(), 0);

        let mut packet = chain(&pool, &[1, 2], &[3, 4, 5]);
        assert_eq!((packet.segments(), packet.len(), packet.packet_len()), (2, 2, 5));
        assert!(packet.linearise());
        assert_eq!((packet.segments(), packet.bytes(), pool.in_use()), (1, &[1, 2, 3, 4, 5][..], 1));
        packet.free();

        let mut long = chain(&pool, &[1; 99], &[2; 2]);
        assert!(!long.linearise());
        assert_eq!((long.segments(), long.packet_len()), (2, 101));
        long.reset();
        assert_eq!((long.segments(), long.packet_len(), pool.in_use()), (1, 0, 1));
        let mut burst = vec![long, chain(&pool, &[1], &[2])];
        free_bulk(&mut burst);
        assert_eq!((burst.len(), pool.in_use()), (0, 0));

        assert!(pool.alloc_bulk(&mut burst, 31) && !pool.alloc_bulk(&mut burst, 1) && pool.alloc().is_none());
        assert_eq!((burst.len(), pool.available()), (31, 0));
        free_bulk(&mut burst);
        assert!(pool.alloc_copy(&[0; 101]).is_none());
        assert_eq!(pool.available(), 31);
    }
}
