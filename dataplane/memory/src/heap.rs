//! The heap, counted: what something keeps, to the byte.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The system's allocator. It counts what this process has of it, and how often each thread asked it, while [`Heap::count`] says so;
/// otherwise it costs one look at a flag.
///
/// A program has it by `#[global_allocator] static HEAP: memory::Heap = memory::Heap;`. What libraries in C take is not in it.
#[derive(Debug, Clone, Copy)]
pub struct Heap;

static IS_COUNTED: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);
static PIECES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// How often this thread asked for memory or for more of it.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

impl Heap {
    /// Counts from now on, or does not any more.
    pub fn count(is_counted: bool) {
        IS_COUNTED.store(is_counted, Ordering::Relaxed);
    }

    /// Bytes asked for and not given back, and in how many pieces, since some time: only differences mean something.
    #[must_use]
    pub fn held() -> (i64, i64) {
        (BYTES.load(Ordering::Relaxed), PIECES.load(Ordering::Relaxed))
    }

    /// How often this thread has asked for memory, or for a piece to grow or shrink, while it was counted: only differences mean something.
    #[must_use]
    pub fn asked() -> u64 {
        ASKED.get()
    }

    #[inline]
    fn ask() {
        if IS_COUNTED.load(Ordering::Relaxed) {
            ASKED.set(ASKED.get() + 1);
        }
    }

    #[inline]
    fn add(size: usize, pieces: i64) {
        if IS_COUNTED.load(Ordering::Relaxed) {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            BYTES.fetch_add(size * pieces, Ordering::Relaxed);
            PIECES.fetch_add(pieces, Ordering::Relaxed);
        }
    }
}

// SAFETY: all of it is the system's allocator, called with what it was called with; counting allocates nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::ask();
        Self::add(layout.size(), 1);
        // SAFETY: the caller keeps the conditions of `alloc`, which are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::add(layout.size(), -1);
        // SAFETY: the caller has the pointer from this allocator, which has it from the system's with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::ask();
        Self::add(layout.size(), 1);
        // SAFETY: as of `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::ask();
        Self::add(layout.size(), -1);
        Self::add(size, 1);
        // SAFETY: as of `dealloc`, and the caller keeps the conditions for the new size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the allocator itself: this test's program has the system's.
    #[test]
    fn it_counts_what_is_taken_and_given_back_while_it_is_asked_to() {
        let take = |size| {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the layout has a size.
            (unsafe { Heap.alloc(layout) }, layout)
        };
        let (before, asked) = (Heap::held(), Heap::asked());
        let since = || (Heap::held().0 - before.0, Heap::held().1 - before.1);
        let (uncounted, of) = take(10);
        assert_eq!(since(), (0, 0));
        // SAFETY: it was taken with this layout.
        unsafe { Heap.dealloc(uncounted, of) };
        Heap::count(true);
        let (one, of_one) = take(100);
        let (two, of_two) = take(24);
        assert_eq!(since(), (124, 2));
        // SAFETY: it was taken with this layout, and has a size afterwards.
        let one = unsafe { Heap.realloc(one, of_one, 300) };
        assert_eq!(since(), (324, 2));
        // SAFETY: they were taken with these layouts, the first grown to 300 bytes.
        unsafe {
            Heap.dealloc(one, Layout::from_size_align(300, 8).unwrap());
            Heap.dealloc(two, of_two);
        }
        assert_eq!((since(), Heap::asked() - asked), ((0, 0), 3));
        let others = std::thread::spawn(|| {
            // SAFETY: the layout has a size.
            unsafe { Heap.dealloc(Heap.alloc(Layout::new::<u64>()), Layout::new::<u64>()) };
            Heap::asked()
        });
        assert_eq!((others.join().unwrap(), Heap::asked() - asked), (1, 3), "each thread's own");
        Heap::count(false);
    }
}
