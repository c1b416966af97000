//! Large arrays on huge pages.

use core::mem::{needs_drop, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::io;
use zerocopy::FromZeros;

/// Size and alignment of the huge pages that arrays are laid out for: 2 MiB, the common one of x86-64 and arm64.
const HUGE_PAGE: usize = 2 << 20;

/// A fixed-length array of zeroes, mapped anonymously, on 2 MiB pages where the kernel has them
/// (`MADV_HUGEPAGE`: a hint), so that a table of many megabytes costs few TLB entries.
///
/// It is mapped lazily: an element costs memory when its page is first touched. Any type for which all bits zero is a
/// value can be its element: integers, their atomics, arrays of them, and structs that derive
/// [`zerocopy::FromZeros`] (which needs no unsafe code). Elements do not run `Drop`.
pub struct HugeVec<T> {
    elements: NonNull<T>,
    len: usize,
    map: *mut libc::c_void,
    map_len: usize,
}

/// The kernel did not map the array.
#[derive(Debug)]
pub struct MapError {
    /// Bytes that were asked for.
    pub bytes: usize,
    /// What the kernel said.
    pub source: io::Error,
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mapping an array of {} bytes: {}", self.bytes, self.source)
    }
}

impl std::error::Error for MapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl<T: FromZeros> HugeVec<T> {
    /// An array of `len` elements whose bits are all zero. Empty arrays and arrays of less than a page are fine, if
    /// wasteful.
    ///
    /// # Errors
    /// [`MapError`] when the size overflows or the kernel refuses the mapping.
    pub fn zeroed(len: usize) -> Result<Self, MapError> {
        const { assert!(!needs_drop::<T>() && align_of::<T>() <= 4096) };
        let too_large = || MapError { bytes: usize::MAX, source: io::ErrorKind::OutOfMemory.into() };
        let bytes =
            len.checked_mul(size_of::<T>()).filter(|b| *b < isize::MAX as usize / 2).ok_or_else(too_large)?;
        if bytes == 0 {
            return Ok(Self { elements: NonNull::dangling(), len, map: core::ptr::null_mut(), map_len: 0 });
        }
        // One page of slack, never touched, lets the array start on a huge page.
        let slack = if bytes >= HUGE_PAGE { HUGE_PAGE } else { 0 };
        let map_len = bytes + slack;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let map = unsafe {
            libc::mmap(core::ptr::null_mut(), map_len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if map == libc::MAP_FAILED {
            return Err(MapError { bytes, source: io::Error::last_os_error() });
        }
        let skip = if slack == 0 { 0 } else { map.addr().wrapping_neg() % HUGE_PAGE };
        let start = map.cast::<u8>().wrapping_add(skip);
        // SAFETY: the range lies in the mapping made above. A refusal (no huge pages here) costs only speed.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        match NonNull::new(start.cast::<T>()) {
            Some(elements) => Ok(Self { elements, len, map, map_len }),
            None => Err(MapError { bytes, source: io::ErrorKind::OutOfMemory.into() }),
        }
    }
}

impl<T> Deref for HugeVec<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements are mapped, aligned (a page's start) and initialised (zeroes are a `T: FromZeros`).
        unsafe { core::slice::from_raw_parts(self.elements.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.elements.as_ptr(), self.len) }
    }
}

impl<T> Drop for HugeVec<T> {
    fn drop(&mut self) {
        if self.map_len != 0 {
            // SAFETY: the mapping was made by `zeroed` with this address and length and nobody borrows it any more.
            unsafe { libc::munmap(self.map, self.map_len) };
        }
    }
}

// SAFETY: a `HugeVec` owns its elements, as a boxed slice does.
unsafe impl<T: Send> Send for HugeVec<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for HugeVec<T> {}

impl<T> std::fmt::Debug for HugeVec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HugeVec[{}]", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    fn zeroes_on_a_huge_page_boundary_and_only_when_touched() {
        let before = resident();
        let array = HugeVec::<AtomicU32>::zeroed(64 << 20).unwrap(); // 256 MiB
        assert_eq!((array.len(), array.as_ptr().addr() % HUGE_PAGE), (64 << 20, 0));
        array[63 << 20].store(7, Ordering::Relaxed);
        assert_eq!(array[63 << 20].load(Ordering::Relaxed), 7);
        assert_eq!(array[(64 << 20) - 1].load(Ordering::Relaxed), 0);
        assert!(resident() - before < 64 << 20);
    }

    #[test]
    fn small_empty_and_impossible_sizes() {
        let mut small = HugeVec::<[u16; 3]>::zeroed(5).unwrap();
        small[4][2] = 9;
        assert_eq!(small.iter().flatten().map(|word| u32::from(*word)).sum::<u32>(), 9);
        assert!(HugeVec::<u64>::zeroed(0).unwrap().is_empty());
        assert!(HugeVec::<u64>::zeroed(usize::MAX / 2).is_err());
        assert!(HugeVec::<u8>::zeroed(1 << 60).is_err());
    }
}
