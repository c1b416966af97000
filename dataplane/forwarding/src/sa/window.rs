//! The replay window of an inbound SA (RFC 4303 §3.4.3): which of the last sequence numbers have come.
//!
//! ```text
//!                       bit of a number: the number modulo 4096
//!  ... 0 0 1 1 0 1 1 1 1 0 1 1 1 1 1 1 1 1 1 0 1 | 0 0 0 0 ...
//!      ▲                                       ▲
//!      top - window + 1                        top: the highest that was authentic
//! ```
//!
//! The bits lie in a ring of as many as the largest window has, whatever the size of this one (the ring of RFC 6479, without its spare
//! word: bits between the old top and the new one are cleared as it moves). So the bit of a packet is in one word, whose address is known
//! with the number, and what a burst touches of a window is a line.

/// Sequence numbers of the largest window.
pub(crate) const LARGEST: u64 = 4096;

const BITS: u64 = u64::BITS as u64;

/// The bits of a window.
pub(crate) type Ring = [u64; (LARGEST / BITS) as usize];

/// The whole of an extended sequence number of which the low half came, as the highest number so far and the window tell (RFC 4303 §A2.2);
/// `None` if it would be below 0 or above 2^64 - 1. Before authentication it is a guess: one that is wrong is not authentic.
#[inline(always)]
pub(crate) fn whole(low: u32, top: u64, window: u64) -> Option<u64> {
    // The numbers that it can be are those of one cycle from the bottom of the window on. The bottom may be in the cycle before the first
    // one, or the end of the cycle in the one behind the last: what comes out is a number if both or neither wrap.
    let reach = window - 1;
    let bottom = top.wrapping_sub(reach);
    let number = bottom.wrapping_add(low.wrapping_sub(bottom as u32).into());
    ((top < reach) == (number < bottom)).then_some(number)
}

/// Whether a number has not come and is not too old. 0 is never sent (RFC 4303 §3.3.3).
#[inline(always)]
pub(crate) fn is_new(ring: &Ring, top: u64, window: u64, sequence: u64) -> bool {
    if sequence > top {
        return true;
    }
    sequence != 0 && top - sequence < window && ring[word(sequence)] & bit(sequence) == 0
}

/// Marks a number as come; the top then. `None`, and no change, if it has come or is too old.
#[inline(always)]
pub(crate) fn take(ring: &mut Ring, top: u64, window: u64, sequence: u64) -> Option<u64> {
    if !is_new(ring, top, window, sequence) {
        return None;
    }
    if sequence > top && sequence - top > 1 {
        clear(ring, top + 1, sequence);
    }
    // Of the next one too: what is cleared there is set.
    ring[word(sequence)] |= bit(sequence);
    Some(top.max(sequence))
}

/// Clears the bits of the numbers from `from` to the one before `to`.
#[inline(never)]
fn clear(ring: &mut Ring, from: u64, to: u64) {
    if to - from >= LARGEST {
        ring.fill(0);
        return;
    }
    let mut at = from;
    while at < to {
        let count = (BITS - at % BITS).min(to - at);
        let ones = if count == BITS { !0 } else { (1 << count) - 1 };
        ring[word(at)] &= !(ones << (at % BITS));
        at += count;
    }
}

#[inline(always)]
pub(crate) const fn word(sequence: u64) -> usize {
    (sequence / BITS % (LARGEST / BITS)) as usize
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
            let mut ring: Ring = [0; 64];
            let mut naive = Naive::default();
            let mut top = 0;
            let numbers = std::iter::once(0).chain(steps).scan(start, |at, step| {
                let number = at.saturating_add_signed(step);
                *at = (*at).max(number);
                Some(number)
            });
            for number in numbers {
                let new = is_new(&ring, top, window, number);
                let taken = take(&mut ring, top, window, number);
                prop_assert_eq!(new, taken.is_some());
                prop_assert_eq!(new, naive.take(window, number), "{} of {}", number, top);
                let known = naive.top.saturating_sub(number) < window && number.saturating_sub(top) < (1 << 32) - window;
                if new && known {
                    // Asked with the top as it was before the packet came.
                    prop_assert_eq!(whole(number as u32, top, window), Some(number));
                }
                top = taken.unwrap_or(top);
                prop_assert_eq!(top, naive.top);
                prop_assert_eq!(take(&mut ring, top, window, number), None, "twice");
            }
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
    fn numbers_end_where_they_end() {
        let mut ring: Ring = [0; 64];
        let top = take(&mut ring, 0, 4096, u64::MAX - 1).unwrap();
        assert_eq!(top, u64::MAX - 1);
        assert_eq!(take(&mut ring, top, 4096, u64::MAX), Some(u64::MAX));
        assert_eq!(take(&mut ring, u64::MAX, 4096, u64::MAX), None);
        assert_eq!(take(&mut ring, u64::MAX, 4096, u64::MAX - 4095), Some(u64::MAX));
        assert_eq!(take(&mut ring, u64::MAX, 4096, u64::MAX - 4096), None);
        assert!(!is_new(&[0; 64], 0, 64, 0), "0 is never sent");
    }
}
