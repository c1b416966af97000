//! Large arrays on huge pages.

use core::mem::{needs_drop, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::io;
use std::sync::Arc;
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
    /// `None`: it is empty.
    mapping: Option<Arc<Mapping>>,
}

/// Address space of the kernel's; given back when the last who refers to it is gone.
struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: it is numbers; nothing is read or written through it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and whoever used it is gone.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// The pages of a [`HugeVec`], for whoever takes their memory before its owner touches them: a worker should not wait for the kernel to
/// clear 2 MiB.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    mapping: Option<Arc<Mapping>>,
    start: usize,
    element: usize,
    len: usize,
    /// Huge pages that have been taken.
    taken: Vec<bool>,
}

impl Pages {
    /// Takes the memory of an element, if that has not been done; and with it that of its neighbours on the page. A kernel that cannot
    /// (Linux before 5.14) leaves it to the first touch.
    pub fn take(&mut self, at: usize) {
        let Some(mapping) = self.mapping.as_ref().filter(|_| at < self.len) else { return };
        let first = (at * self.element) / HUGE_PAGE;
        let last = ((at + 1) * self.element - 1) / HUGE_PAGE;
        for page in first..=last {
            if self.taken.len() <= page {
                self.taken.resize(page + 1, false);
            }
            if std::mem::replace(&mut self.taken[page], true) {
                continue;
            }
            let start = self.start + page * HUGE_PAGE;
            let end = (start + HUGE_PAGE).min(mapping.start.addr() + mapping.len);
            let start = mapping.start.with_addr(start);
            // SAFETY: the range is of the mapping, which `mapping` keeps; its bytes stay what they are.
            unsafe { libc::madvise(start, end - start.addr(), libc::MADV_POPULATE_WRITE) };
        }
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping[{}]", self.len)
    }
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
            return Ok(Self { elements: NonNull::dangling(), len, mapping: None });
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
        let mapping = Arc::new(Mapping { start: map, len: map_len });
        let skip = if slack == 0 { 0 } else { map.addr().wrapping_neg() % HUGE_PAGE };
        let start = map.cast::<u8>().wrapping_add(skip);
        // SAFETY: the range lies in the mapping made above. A refusal (no huge pages here) costs only speed.
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        match NonNull::new(start.cast::<T>()) {
            Some(elements) => Ok(Self { elements, len, mapping: Some(mapping) }),
            None => Err(MapError { bytes, source: io::ErrorKind::OutOfMemory.into() }),
        }
    }
}

impl<T> HugeVec<T> {
    /// Its pages, to take their memory from elsewhere.
    #[must_use]
    pub fn pages(&self) -> Pages {
        let (mapping, start) = (self.mapping.clone(), self.elements.as_ptr().addr());
        Pages { mapping, start, element: size_of::<T>(), len: self.len, taken: Vec::new() }
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

    /// Input: the pages of an array that goes meanwhile. Output: what is taken is zero still and costs the memory of its page, once; the rest
    /// costs nothing.
    #[test]
    fn pages_are_taken_from_elsewhere_and_keep_their_bytes() {
        let mut array = HugeVec::<[u64; 100]>::zeroed(100_000).unwrap();
        array[5] = [7; 100];
        let mut pages = array.pages();
        let before = resident();
        for at in [5, 50_000, 50_001, 99_999, 100_000, usize::MAX] {
            pages.take(at);
        }
        let grown = resident() - before;
        assert!((2 << 20..16 << 20).contains(&grown), "{grown}");
        assert_eq!((array[5], array[50_000]), ([7; 100], [0; 100]));
        drop(array);
        pages.take(70_000);
        HugeVec::<u64>::zeroed(0).unwrap().pages().take(0);
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
