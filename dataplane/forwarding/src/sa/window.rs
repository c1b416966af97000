//! The replay window of an inbound SA (RFC 4303 §3.4.3): which of the last sequence numbers have come.
//!
//! ```text
//!                  bit of a number: the number modulo the ring's size
//!  ... 0 0 1 1 0 1 1 1 1 0 1 1 1 1 1 1 1 1 1 0 1 | 0 0 0 0 ...
//!      ▲                                       ▲
//!      top - window + 1                        top: the highest that was authentic
//! ```
//!
//! The bits lie in a ring of a power of two of them, as many as the window has at least (the ring of RFC 6479, without its spare word: bits
//! between the old top and the new one are cleared as it moves). So the bit of a packet is in one word, whose address is known with the
//! number, and what a burst touches of a window is a line.

/// Sequence numbers of the largest window.
pub const LARGEST: u64 = 4096;

const BITS: u64 = u64::BITS as u64;

/// Binary logarithms of the words of the smallest ring, a line, and of the largest.
const SMALLEST: u32 = 3;
const WIDEST: u32 = (LARGEST / BITS).trailing_zeros();

/// Words of the rings that `slots` slots have, of all sizes: see [`Ring::of`].
#[must_use]
pub const fn words(slots: usize) -> usize {
    ((2 << WIDEST) - (1 << SMALLEST)) * slots
}

/// Where the bits of a window lie among those of all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    start: u32,
    /// Its words, less one.
    mask: u32,
}

impl Ring {
    /// The size of the ring of a window, as the binary logarithm of its words.
    #[must_use]
    pub const fn size(window: u64) -> u32 {
        let size = window.div_ceil(BITS).next_power_of_two().trailing_zeros();
        if size < SMALLEST { SMALLEST } else { size }
    }

    /// The ring of a size of a slot, of so many. Rings of one size lie together, behind all those of the smaller sizes: memory is taken
    /// for the sizes that there are.
    #[inline(always)]
    #[must_use]
    pub const fn of(slot: u32, slots: u32, size: u32) -> Self {
        Self { start: ((slots + slot) << size) - (slots << SMALLEST), mask: (1 << size) - 1 }
    }

    /// The place of its first word.
    #[must_use]
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// The place of the word that has the bit of a number.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, sequence: u64) -> usize {
        (self.start + ((sequence / BITS) as u32 & self.mask)) as usize
    }

    /// Sets all its bits to 0.
    pub fn empty(self, words: &mut [u64]) {
        if let Some(words) = words.get_mut(self.start as usize..=(self.start + self.mask) as usize) {
            words.fill(0);
        }
    }
}

/// The whole of an extended sequence number of which the low half came, as the highest number so far and the window tell (RFC 4303 §A2.2);
/// `None` if it would be below 0 or above 2^64 - 1. Before authentication it is a guess: one that is wrong is not authentic.
#[inline(always)]
#[must_use]
pub fn whole(low: u32, top: u64, window: u64) -> Option<u64> {
    // The numbers that it can be are those of one cycle from the bottom of the window on. The bottom may be in the cycle before the first
    // one, or the end of the cycle in the one behind the last: what comes out is a number if both or neither wrap.
    let reach = window - 1;
    let bottom = top.wrapping_sub(reach);
    let number = bottom.wrapping_add(low.wrapping_sub(bottom as u32).into());
    ((top < reach) == (number < bottom)).then_some(number)
}

/// The whole of a number of which the low half came, if that is behind the highest so far and not by half a cycle: what is most. It is new
/// then. The same as of [`whole`], in fewer steps; without ESN `top` is below 2^32 and so is what is behind it.
#[inline(always)]
#[must_use]
pub const fn ahead(low: u32, top: u64, esn: bool) -> Option<u64> {
    let by = low.wrapping_sub(top as u32);
    if by as i32 <= 0 {
        return None;
    }
    match top.checked_add(by as u64) {
        Some(number) if number >> 32 == 0 || esn => Some(number),
        _ => None,
    }
}

/// Whether a number has not come and is not too old. 0 is never sent (RFC 4303 §3.3.3).
#[inline(always)]
#[must_use]
pub fn is_new(words: &[u64], ring: Ring, top: u64, window: u64, sequence: u64) -> bool {
    if sequence > top {
        return true;
    }
    let came = || words.get(ring.word(sequence)).is_none_or(|word| word & bit(sequence) != 0);
    sequence != 0 && top - sequence < window && !came()
}

/// Marks a number as come; the top then. `None`, and no change, if it has come or is too old.
#[inline(always)]
pub fn take(words: &mut [u64], ring: Ring, top: u64, window: u64, sequence: u64) -> Option<u64> {
    if !is_new(words, ring, top, window, sequence) {
        return None;
    }
    if sequence > top && sequence - top > 1 {
        clear(words, ring, top + 1, sequence);
    }
    // Of the next one too: what is cleared there is set.
    mark(words, ring.word(sequence), sequence)?;
    Some(top.max(sequence))
}

/// Marks the number behind the highest so far as come, whose bit is in that word; it is the top then.
#[inline(always)]
pub fn mark(words: &mut [u64], word: usize, sequence: u64) -> Option<()> {
    *words.get_mut(word)? |= bit(sequence);
    Some(())
}

/// Clears the bits of the numbers from `from` to the one before `to`.
#[inline(never)]
fn clear(words: &mut [u64], ring: Ring, from: u64, to: u64) {
    if to - from > u64::from(ring.mask) * BITS {
        ring.empty(words);
        return;
    }
    let mut at = from;
    while at < to {
        let count = (BITS - at % BITS).min(to - at);
        let ones = if count == BITS { !0 } else { (1 << count) - 1 };
        if let Some(word) = words.get_mut(ring.word(at)) {
            *word &= !(ones << (at % BITS));
        }
        at += count;
    }
}

#[inline(always)]
const fn bit(sequence: u64) -> u64 {
    1 << (sequence % BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Naive {
        top: u64,
        came: BTreeSet<u64>,
    }

    impl Naive {
        fn take(&mut self, window: u64, sequence: u64) -> bool {
            let new =
                sequence != 0 && sequence.saturating_add(window) > self.top && self.came.insert(sequence);
            if new {
                self.top = self.top.max(sequence);
            }
            new
        }
    }

    /// Where the next packet's number is, seen from the highest so far.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            8 => -70_i64..70,
            4 => Just(1_i64),
            4 => -4200_i64..4200,
            1 => -9000_i64..1_000_000,
            1 => Just(1_i64 << 31),
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// What a set of all numbers that came says is what the window says, from any start, over the end of the low half, with jumps;
        /// and the low half of a number is enough to tell the whole of it, unless it is further ahead than half a cycle.
        #[test]
        fn a_window_is_as_good_as_a_set(
            start in prop_oneof![
                Just(0_u64),
                0_u64..10_000,
                (1_u64 << 32) - 5000..(1 << 32) + 5000,
                (7_u64 << 32) - 5000..(7 << 32) + 5000,
            ],
            blocks in prop_oneof![Just(1_u64), Just(16), Just(64), 1_u64..=64],
            steps in steps(),
        ) {
            let window = blocks * 64;
            // The ring of a slot among others, in memory that was not empty.
            let ring = Ring::of(2, 4, Ring::size(window));
            let mut words = vec![!0; super::words(4)];
            ring.empty(&mut words);
            let mut naive = Naive::default();
            let mut top = 0;
            let numbers = std::iter::once(0).chain(steps).scan(start, |at, step| {
                let number = at.saturating_add_signed(step);
                *at = (*at).max(number);
                Some(number)
            });
            for number in numbers {
                let new = is_new(&words, ring, top, window, number);
                for esn in [true, false].into_iter().filter(|esn| *esn || number.max(top) < 1 << 32) {
                    if let Some(ahead) = ahead(number as u32, top, esn) {
                        prop_assert_eq!(ahead, if esn { whole(number as u32, top, window).unwrap() } else { number });
                        prop_assert!(is_new(&words, ring, top, window, ahead));
                    } else {
                        prop_assert!(number <= top || number - top >= 1 << 31, "{} of {}", number, top);
                    }
                }
                let taken = take(&mut words, ring, top, window, number);
                prop_assert_eq!(new, taken.is_some());
                prop_assert_eq!(new, naive.take(window, number), "{} of {}", number, top);
                let known = naive.top.saturating_sub(number) < window && number.saturating_sub(top) < (1 << 32) - window;
                if new && known {
                    // Asked with the top as it was before the packet came.
                    prop_assert_eq!(whole(number as u32, top, window), Some(number));
                }
                top = taken.unwrap_or(top);
                prop_assert_eq!(top, naive.top);
                prop_assert_eq!(take(&mut words, ring, top, window, number), None, "twice");
            }
            let outside =
                (0_u32..).zip(&words).filter(|(at, _)| !(ring.start..=ring.start + ring.mask).contains(at));
            prop_assert!(outside.map(|(_, word)| *word).all(|word| word == !0), "the others' bits");
        }
    }

    #[test]
    fn the_high_half_as_rfc_4303_infers_it() {
        let top = |high: u64, low: u64| high << 32 | low;
        // Case A, within one cycle: at the bottom of the window, below it, at the top, above.
        for (low, high) in [(5000 - 63, 3), (5000 - 64, 4), (5000, 3), (u32::MAX, 3), (0, 4)] {
            assert_eq!(whole(low, top(3, 5000), 64), Some(top(high, low.into())), "{low}");
        }
        // Case B, over two.
        for (low, high) in [(9, 3), (1000, 3), (u32::MAX - 53, 2), (u32::MAX, 2), (u32::MAX - 54, 3)] {
            assert_eq!(whole(low, top(3, 9), 64), Some(top(high, low.into())), "{low}");
        }
        assert_eq!(whole(u32::MAX, 0, 64), None, "nothing was before the first cycle");
        assert_eq!(whole(1, top(u64::from(u32::MAX), 5000), 64), None, "nothing is behind the last one");
        assert_eq!(whole(1, 0, 64), Some(1));
    }

    #[test]
    fn rings_of_all_slots_and_sizes_lie_side_by_side() {
        let sizes = [64, 512, 513, 1024, 2048, 2112, 4096].map(Ring::size);
        assert_eq!(sizes, [3, 3, 4, 4, 5, 6, 6]);
        let mut next = 0;
        for (size, slot) in (SMALLEST..=WIDEST).flat_map(|size| (0..5).map(move |slot| (size, slot))) {
            let ring = Ring::of(slot, 5, size);
            assert_eq!((ring.start(), ring.mask + 1), (next, 1 << size));
            next += 1 << size;
        }
        assert_eq!(next, words(5));
    }

    #[test]
    fn numbers_end_where_they_end() {
        let (ring, mut words) = (Ring::of(0, 1, 6), vec![0; words(1)]);
        let mut take = |top, sequence| take(&mut words, ring, top, 4096, sequence);
        let top = take(0, u64::MAX - 1).unwrap();
        assert_eq!(top, u64::MAX - 1);
        assert_eq!(take(top, u64::MAX), Some(u64::MAX));
        assert_eq!(take(u64::MAX, u64::MAX), None);
        assert_eq!(take(u64::MAX, u64::MAX - 4095), Some(u64::MAX));
        assert_eq!(take(u64::MAX, u64::MAX - 4096), None);
        assert!(!is_new(&[0; 8], Ring::of(0, 1, 3), 0, 64, 0), "0 is never sent");
    }
}
