//! The reference loop: what this machine, at this moment, needs for work that never changes. A figure divided by it can be
//! compared between machines, and between a quiet and a busy hour of one machine.

use std::hint::black_box;

use memory::{HugeVec, MapError, cycles};

/// Bytes of the table.
const TABLE: usize = 16 << 20;
/// Dependent steps of arithmetic (multiply, rotate) for each read.
const STEPS: usize = 8;

/// A table of 16 MiB of numbers.
pub(crate) struct Reference {
    table: HugeVec<u64>,
    /// Where the next reads are: never the places of the last round.
    random: Random,
}

impl Reference {
    pub(crate) fn new() -> Result<Self, MapError> {
        let mut table = HugeVec::zeroed(TABLE / size_of::<u64>())?;
        let mut random = Random(1);
        table.iter_mut().for_each(|word| *word = random.next());
        Ok(Self { table, random })
    }

    /// Cycles of one round, of `rounds`: one read of eight bytes at a random place (the places do not depend on what was
    /// read, so that the processor may overlap the reads as it can those of packets), then eight dependent steps of a
    /// multiplication and a rotation.
    pub(crate) fn measure(&mut self, rounds: usize) -> f64 {
        let random = &mut self.random;
        let mut sum = 0_u64;
        let begun = cycles();
        for _ in 0..rounds {
            let word = self.table[random.next() as usize % (TABLE / size_of::<u64>())];
            sum ^= word;
            for _ in 0..STEPS {
                sum = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
            }
        }
        black_box(sum);
        (cycles() - begun) as f64 / rounds as f64
    }
}

/// Numbers that look random and are the same each time (xorshift64*, Vigna 2016).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    #[inline(always)]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero.
    #[inline(always)]
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut random = Random(7);
        let mut seen = [false; 10];
        (0..1000).for_each(|_| seen[random.below(10) as usize] = true);
        assert_eq!(seen, [true; 10]);
        assert!(Reference::new().unwrap().measure(1000) > 1.0);
    }
}
