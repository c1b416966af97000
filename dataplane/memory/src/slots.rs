//! Large arrays of places for values that are there or not.

use core::fmt;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use crate::huge::{HugeVec, MapError, Pages};

/// Bits of a word of the map.
const BITS: usize = u64::BITS as usize;

/// A fixed number of places on huge pages, each with a value or empty, all empty at first: what [`HugeVec`] is to numbers, for values
/// that have to be made and dropped. A place costs memory when its page is first used.
///
/// Values are dropped where they lie, and what is moved in leaves nothing behind: they may be keys.
pub struct HugeSlots<T> {
    places: HugeVec<MaybeUninit<T>>,
    /// Which of them have a value, a bit each.
    map: HugeVec<u64>,
}

impl<T> HugeSlots<T> {
    /// So many empty places.
    ///
    /// # Errors
    /// [`MapError`] when the size overflows or the kernel refuses the mapping.
    pub fn new(len: usize) -> Result<Self, MapError> {
        Ok(Self { places: HugeVec::zeroed(len)?, map: HugeVec::zeroed(len.div_ceil(BITS))? })
    }

    /// The pages of the places, to take their memory from elsewhere.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.places.pages()
    }

    /// The value in a place; `None` if it is empty, or there is no such place.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&T> {
        let place = self.places.get(at)?;
        if !self.has(at) {
            return None;
        }
        // SAFETY: its bit says that a value was put into it and not dropped since.
        Some(unsafe { place.assume_init_ref() })
    }

    /// Drops what is in a place, and moves `new` there if it is a value; `new` is empty then, and the bytes that it was are zero.
    /// Without such a place nothing happens.
    pub fn put(&mut self, at: usize, new: &mut Option<T>) {
        let had = self.has(at);
        let (Some(place), Some(word)) = (self.places.get_mut(at), self.map.get_mut(at / BITS)) else {
            return;
        };
        let bit = 1 << (at % BITS);
        // Before the drop: a value whose drop unwinds is not dropped again.
        *word &= !bit;
        if had {
            // SAFETY: there was a value, and its bit is gone.
            unsafe { place.assume_init_drop() };
        }
        let Some(value) = new.as_mut() else { return };
        let value: *mut T = value;
        // SAFETY: both are places of a `T`, of which only one has a value; they do not overlap, as each is borrowed alone. What the value
        // was moved from is written over as what it is, an `Option` without one, before anybody can look at it.
        unsafe {
            ptr::copy_nonoverlapping(value.cast_const(), place.as_mut_ptr(), 1);
            ptr::write_bytes(value.cast::<u8>(), 0, size_of::<T>());
            compiler_fence(Ordering::SeqCst);
            ptr::write(new, None);
        }
        *word |= bit;
    }

    /// Where a place is, if there is one: for who asks the cache for more of it than a line.
    #[inline(always)]
    #[must_use]
    pub fn address(&self, at: usize) -> *const T {
        self.places.as_ptr().wrapping_add(at).cast()
    }

    /// Asks the cache for the first line of a place.
    #[inline(always)]
    pub fn prefetch(&self, at: usize) {
        crate::prefetch_slice(&self.places, at);
    }

    #[inline(always)]
    fn has(&self, at: usize) -> bool {
        self.map.get(at / BITS).is_some_and(|word| word >> (at % BITS) & 1 != 0)
    }
}

impl<T> Drop for HugeSlots<T> {
    fn drop(&mut self) {
        for at in 0..self.map.len() {
            while self.map[at] != 0 {
                self.put(at * BITS + self.map[at].trailing_zeros() as usize, &mut None);
            }
        }
    }
}

impl<T> fmt::Debug for HugeSlots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeSlots[{}]", self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn values_are_there_until_others_take_their_place_and_are_dropped_once() {
        let counted = Rc::new(());
        let mut slots = HugeSlots::<(u64, Rc<()>)>::new(130).unwrap();
        let value = |n| Some((n, Rc::clone(&counted)));
        for at in [0, 63, 64, 129] {
            let mut new = value(at as u64);
            slots.put(at, &mut new);
            assert!(new.is_none());
        }
        assert_eq!(Rc::strong_count(&counted), 5);
        let there = |slots: &HugeSlots<(u64, Rc<()>)>, at| slots.get(at).map(|(n, _)| *n);
        let all = [0, 1, 63, 64, 65, 128, 129, 130, 9999].map(|at| there(&slots, at));
        assert_eq!(all, [Some(0), None, Some(63), Some(64), None, None, Some(129), None, None]);
        slots.put(63, &mut value(7));
        slots.put(64, &mut None);
        slots.put(5, &mut None);
        slots.put(0, &mut value(9));
        assert_eq!([0, 63, 64].map(|at| there(&slots, at)), [Some(9), Some(7), None]);
        assert_eq!(Rc::strong_count(&counted), 4);
        // No such place: it stays with its owner.
        let mut new = value(1);
        slots.put(130, &mut new);
        assert!(new.is_some());
        drop((slots, new));
        assert_eq!(Rc::strong_count(&counted), 1);
    }

    #[test]
    fn what_is_moved_in_leaves_nothing_behind() {
        let mut slots = HugeSlots::<[u64; 8]>::new(1).unwrap();
        let mut new = Box::new(Some([0x5a5a_5a5a_5a5a_5a5a; 8]));
        let at: *const u8 = (&raw const *new).cast();
        let count = || {
            // SAFETY: all bytes were written, with the value and its tag or with zeros, and the box is alive.
            (0..size_of::<Option<[u64; 8]>>())
                .filter(|n| unsafe { at.add(*n).read_volatile() } == 0x5a)
                .count()
        };
        assert_eq!(count(), 64);
        slots.put(0, &mut new);
        assert_eq!((count(), slots.get(0)), (0, Some(&[0x5a5a_5a5a_5a5a_5a5a; 8])));
    }
}
