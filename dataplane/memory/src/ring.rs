//! A bounded ring between two threads, one that puts in and one that takes out.
//!
//! Neither end waits, whatever the other one does: what is put in is there from one store on, so that a thread that is preempted in the
//! middle of it holds up nobody. (In queues of several producers each claims a slot first and fills it then; the consumer spins on a slot
//! whose producer was preempted in between.) What one end knows of the other it keeps until the ring seems full or empty: the line that
//! the other end writes crosses from core to core once in many packets, not once in each.
//!
//! Model-checked: `tests/loom.rs`.

use std::fmt;
use std::mem::MaybeUninit;

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::LineAligned;

/// The cell of std with the two methods of loom's that are used here.
#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    #[inline(always)]
    fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}

/// What both ends share. Places are counted up and never start again; the slot of a place is its lower bits.
struct Shared<T> {
    /// The place that is taken out next; written by the consumer.
    head: LineAligned<AtomicUsize>,
    /// The place that is filled next; written by the producer.
    tail: LineAligned<AtomicUsize>,
    /// A power of two of them. Those of the places from head to tail hold something.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

impl<T> Shared<T> {
    #[inline(always)]
    fn slot(&self, place: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[place & (self.slots.len() - 1)]
    }
}

// SAFETY: a slot is touched by one end at a time: by the producer while its place is not before the tail that it has published, by the
// consumer from then on until it has published a head behind it. What is in it passes from thread to thread, and is never shared.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        let mut place = head;
        while place != tail {
            // SAFETY: both ends are gone, and what is between head and tail was put in and not taken out.
            self.slot(place).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            place = place.wrapping_add(1);
        }
    }
}

/// The end that things go into.
pub struct RingIn<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The head when it was last looked at: it may be further by now.
    head: usize,
}

/// The end that they come out of, in the same order.
pub struct RingOut<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The tail when it was last looked at: it may be further by now.
    tail: usize,
}

/// A ring with room for `slots` things, or up to the next power of two. Its memory is taken when it is used.
#[must_use]
pub fn ring<T>(slots: usize) -> (RingIn<T>, RingOut<T>) {
    let count = slots.max(1).next_power_of_two();
    let slots = (0..count).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let at_start = || LineAligned(AtomicUsize::new(0));
    let shared = Arc::new(Shared { head: at_start(), tail: at_start(), slots });
    let out = RingOut { shared: Arc::clone(&shared), head: 0, tail: 0 };
    (RingIn { shared, tail: 0, head: 0 }, out)
}

impl<T> RingIn<T> {
    /// Puts something behind what is there.
    ///
    /// # Errors
    /// The thing, if the ring is full.
    #[inline]
    pub fn push(&mut self, one: T) -> Result<(), T> {
        let shared = &*self.shared;
        if self.tail.wrapping_sub(self.head) == shared.slots.len() {
            // Pairs with the consumer's store: what it took out is out of the slot.
            self.head = shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == shared.slots.len() {
                return Err(one);
            }
        }
        // SAFETY: the place is behind the published tail, and what was in its slot a round before has been taken out: the slot is ours.
        shared.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(one) });
        self.tail = self.tail.wrapping_add(1);
        shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether all that was put in has been taken out.
    #[inline]
    #[must_use]
    pub fn is_empty(&mut self) -> bool {
        if self.head != self.tail {
            self.head = self.shared.head.load(Ordering::Acquire);
        }
        self.head == self.tail
    }

    /// Whether there is room for one more.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        let is_full = |head| self.tail.wrapping_sub(head) == self.shared.slots.len();
        !is_full(self.head) || !is_full(self.shared.head.load(Ordering::Relaxed))
    }
}

impl<T> RingOut<T> {
    /// Whether there is nothing in it.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.tail && self.head == self.shared.tail.load(Ordering::Relaxed)
    }

    /// Takes out what has been there for longest.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let shared = &*self.shared;
        if self.head == self.tail {
            // Pairs with the producer's store: what it put in is in the slot.
            self.tail = shared.tail.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        // SAFETY: the place is before a tail that the producer has published, and not before the head: it holds something that is ours.
        let one = shared.slot(self.head).with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        shared.head.store(self.head, Ordering::Release);
        Some(one)
    }
}

impl<T> fmt::Debug for RingIn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingIn({} of {})", self.tail.wrapping_sub(self.head), self.shared.slots.len())
    }
}

impl<T> fmt::Debug for RingOut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingOut({} of {})", self.tail.wrapping_sub(self.head), self.shared.slots.len())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_ring_is_a_queue_of_so_many() {
        let (mut into, mut out) = ring(6);
        let mut queue = VecDeque::new();
        // A walk that fills and empties it in steps of all sizes.
        let mut next = 0_u64;
        for step in 0..400_u64 {
            for _ in 0..step * 7 % 11 {
                assert_eq!((into.has_room(), into.is_empty()), (queue.len() < 8, queue.is_empty()));
                let taken = into.push(next);
                assert_eq!(taken, if queue.len() < 8 { Ok(()) } else { Err(next) });
                queue.extend(taken.is_ok().then_some(next));
                next += 1;
            }
            for _ in 0..step * 5 % 10 {
                assert_eq!(out.is_empty(), queue.is_empty());
                assert_eq!(out.pop(), queue.pop_front());
            }
        }
        assert!(next > 1000 && !queue.is_empty());
    }

    #[test]
    fn what_is_left_goes_with_the_ring() {
        let thing = Arc::new(());
        let (mut into, mut out) = ring(4);
        for _ in 0..4 {
            into.push(Arc::clone(&thing)).unwrap();
        }
        assert!(into.push(Arc::clone(&thing)).is_err() && out.pop().is_some());
        drop(into);
        assert!(out.pop().is_some());
        assert_eq!(Arc::strong_count(&thing), 3);
        drop(out);
        assert_eq!(Arc::strong_count(&thing), 1);
    }

    #[test]
    fn between_threads_all_comes_once_and_in_order() {
        const COUNT: u64 = if cfg!(miri) { 500 } else { 200_000 };
        let (mut into, mut out) = ring(16);
        let is_full = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    let mut pair = Box::new((number, !number));
                    while let Err(back) = into.push(pair) {
                        is_full.store(true, Ordering::Relaxed);
                        pair = back;
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < COUNT {
                match out.pop() {
                    Some(pair) => {
                        assert_eq!(*pair, (expected, !expected));
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        assert!(out.pop().is_none() && is_full.into_inner());
    }
}
