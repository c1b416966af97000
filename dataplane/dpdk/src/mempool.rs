//! Pools of packet buffers.

use crate::Eal;
use crate::errno::Errno;
use crate::mbuf::{HEADROOM, Mbuf};
use dpdk_sys::rte_mempool;
use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;
use wire::buf::PacketBuf;

/// A pool of mbufs. It lives as long as the process; this is a handle to it.
///
/// Buffers beyond a thread's cache go through a ring in RTS mode (relaxed tail sync): a worker that is preempted in the
/// middle of an exchange does not hold up the others, as it would in DPDK's default mode.
#[derive(Debug, Clone, Copy)]
pub struct Mempool {
    pool: NonNull<rte_mempool>,
    count: u32,
    data_room: u16,
}

// SAFETY: the pool lives for good, and its operations are multi-producer and multi-consumer; caches are per lcore id,
// and an id belongs to one thread at a time.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

/// What a pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MempoolConfig<'a> {
    /// Its name: unique in the process, at most 25 bytes.
    pub name: &'a str,
    /// Number of mbufs; 2ⁿ − 1 wastes none of the ring.
    pub count: u32,
    /// Mbufs that a registered thread keeps to itself, at most 512 and a third of `count`. The caches of all threads
    /// together can hold 1.5 times as much back from the others.
    pub cache: u32,
    /// Bytes for a packet behind the headroom ([`HEADROOM`]): the largest frame and what encapsulation appends to it.
    pub data_room: u16,
    /// NUMA socket, `None`: any.
    pub socket: Option<u32>,
}

impl Default for MempoolConfig<'_> {
    /// 16,383 mbufs of 2,048 bytes, 256 of them in each thread's cache: 38 MB.
    fn default() -> Self {
        Self { name: "nave", count: 16_383, cache: 256, data_room: 2048, socket: None }
    }
}

/// A pool could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MempoolError {
    /// Name or numbers that no pool can have.
    #[error("mempool {name:?}: {reason}")]
    Config {
        /// The pool.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// DPDK refused, most often for want of memory.
    #[error("mempool {name:?} of {bytes} bytes: {errno}")]
    Refused {
        /// The pool.
        name: String,
        /// What its mbufs take, without padding.
        bytes: u64,
        /// Why.
        errno: Errno,
    },
}

impl Mempool {
    /// Makes a pool.
    ///
    /// # Errors
    /// [`MempoolError`] when the configuration is impossible or memory is short.
    pub fn create(_: &Eal, config: &MempoolConfig<'_>) -> Result<Self, MempoolError> {
        let MempoolConfig { name, count, cache, data_room, socket } = *config;
        let wrong = |reason| MempoolError::Config { name: name.to_owned(), reason };
        let c_name = CString::new(name).map_err(|_| wrong("the name holds a zero byte"))?;
        if name.len() > 25 {
            return Err(wrong("the name is longer than 25 bytes"));
        }
        if cache > dpdk_sys::RTE_MEMPOOL_CACHE_MAX_SIZE || cache.saturating_mul(3) > count {
            return Err(wrong("the cache is larger than 512 or a third of the pool"));
        }
        let room =
            data_room.checked_add(HEADROOM).ok_or_else(|| wrong("buffers of more than 65,535 bytes"))?;
        let socket = socket.map_or(Some(dpdk_sys::SOCKET_ID_ANY), |socket| i32::try_from(socket).ok());
        let socket = socket.ok_or_else(|| wrong("no such NUMA socket"))?;
        let ops: &CStr = c"ring_mt_rts";
        // SAFETY: the EAL runs; both strings are copied.
        let pool = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                count,
                cache,
                0,
                room,
                socket,
                ops.as_ptr(),
            )
        };
        let refused = || MempoolError::Refused {
            name: name.to_owned(),
            bytes: u64::from(count) * (u64::from(room) + 192),
            errno: Errno::last(),
        };
        Ok(Self { pool: NonNull::new(pool).ok_or_else(refused)?, count, data_room })
    }

    /// Number of mbufs that the pool was made with.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes for a packet behind the headroom.
    #[must_use]
    pub fn data_room(&self) -> u16 {
        self.data_room
    }

    /// Mbufs that are in the pool or in a thread's cache now; a snapshot that costs a walk over all caches.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives for good; the count may be stale, not wrong in kind.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Mbufs that are outside: in bursts, in rings, with drivers.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.count.saturating_sub(self.available())
    }

    /// An empty mbuf with its whole headroom, `None` if the pool is exhausted.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut mbuf = std::ptr::null_mut();
        // SAFETY: the pool lives for good; the call writes one pointer, or fails.
        let failed = unsafe { dpdk_sys::nave_pktmbuf_alloc_bulk(self.pool.as_ptr(), &raw mut mbuf, 1) } != 0;
        // SAFETY: what the pool hands out is a reset mbuf that nobody else owns.
        if failed { None } else { NonNull::new(mbuf).map(|mbuf| unsafe { Mbuf::from_raw(mbuf) }) }
    }

    /// Appends `count` empty mbufs to `into` (which grows if it has to); `false`, and no change, if the pool has fewer.
    #[inline]
    #[must_use]
    pub fn alloc_bulk(&self, into: &mut Vec<Mbuf>, count: u32) -> bool {
        into.reserve(count as usize);
        let place = into.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: the pool lives for good, and `into` has room for `count` pointers; an `Mbuf` is such a pointer.
        let done = unsafe { dpdk_sys::nave_pktmbuf_alloc_bulk(self.pool.as_ptr(), place, count) } == 0;
        if done {
            // SAFETY: the call above wrote `count` mbufs behind the length.
            unsafe { into.set_len(into.len() + count as usize) };
        }
        done
    }

    /// An mbuf that holds a copy of `packet`; `None` if the pool is exhausted or its buffers are too short.
    #[must_use]
    pub fn alloc_copy(&self, packet: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        match mbuf.append(packet.len()) {
            Some(room) => room.copy_from_slice(packet),
            None => {
                mbuf.free();
                return None;
            }
        }
        Some(mbuf)
    }

    /// The pool, for a driver's queue.
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.pool.as_ptr()
    }
}

/// Gives what the calling thread caches of every pool back to the pools: before it loses its lcore id.
pub(crate) fn flush_caches_of_this_thread() {
    unsafe extern "C" fn flush(pool: *mut rte_mempool, _: *mut c_void) {
        // SAFETY: the walk passes live pools, and the cache is this thread's own.
        unsafe { dpdk_sys::nave_mempool_cache_flush(pool) }
    }
    // SAFETY: the callback takes what the walk gives; nothing is passed through it.
    unsafe { dpdk_sys::rte_mempool_walk(Some(flush), std::ptr::null_mut()) }
}
