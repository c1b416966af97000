//! The reference loops: what this machine, at this moment, needs for work that never changes. A figure divided by it can be
//! compared between machines, and between a quiet and a busy hour of one machine. One has what forwarding has, memory and arithmetic; the
//! other the sealing of a packet besides.

use std::hint::black_box;

use anyhow::anyhow;
use memory::{HugeVec, cycles};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of the table.
const TABLE: usize = 16 << 20;
/// Dependent steps of arithmetic (multiply, rotate) for each read.
const STEPS: usize = 8;
/// Bytes that are sealed for each read in the other loop.
const SEALED: usize = 1400;

/// A table of 16 MiB of numbers, and a packet.
pub(crate) struct Reference {
    table: HugeVec<u64>,
    /// Where the next reads are: never the places of the last round.
    random: Random,
    key: LessSafeKey,
    text: [u8; SEALED],
    nonces: u64,
}

impl Reference {
    /// # Errors
    /// There is no address space.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("ring takes no key"))?;
        let mut table = HugeVec::zeroed(TABLE / size_of::<u64>())?;
        let mut random = Random(1);
        table.iter_mut().for_each(|word| *word = random.next());
        Ok(Self { table, random, key: LessSafeKey::new(key), text: [0; SEALED], nonces: 0 })
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

    /// Cycles of one round, of `rounds`, of the loop that seals: one read as in the other loop, then 1,400 bytes sealed in place by ring with
    /// AES-GCM-128 and 12 bytes of AAD.
    pub(crate) fn measure_sealing(&mut self, rounds: usize) -> f64 {
        let begun = cycles();
        for _ in 0..rounds {
            let word = self.table[self.random.next() as usize % (TABLE / size_of::<u64>())];
            self.nonces += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.nonces.to_be_bytes());
            let mut aad = nonce;
            aad[..8].copy_from_slice(&word.to_ne_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let icv = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut self.text);
            let _ = black_box(icv.is_ok());
        }
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
        let mut reference = Reference::new().unwrap();
        // Nothing seals 1,400 bytes in as little as a read.
        assert!(reference.measure(1000) > 1.0 && reference.measure_sealing(1000) > 50.0);
    }
}
