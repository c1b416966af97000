//! Expanding a key: round keys and powers of H. With the instructions of one lane, for both kernels.

use std::arch::x86_64::*;

use zeroize::Zeroize as _;

use super::{Lines, POWERS};

/// x^127 + x^126 + x^121 + 1, the upper half of GHASH's polynomial with its bits reversed.
pub(super) const POLYNOMIAL: u64 = 0xc200_0000_0000_0000;

impl Lines {
    /// Expands a key of 16 or 32 bytes (FIPS 197 §5.2, SP 800-38D §6.3).
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut words = [0_u32; 60];
        let (length, rounds) = (key.len() / 4, key.len() / 4 + 6);
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
            bytes.iter().zip(0..).for_each(|(byte, at)| *word |= u32::from(*byte) << (8 * at));
        }
        let mut constant = 1_u32;
        for at in length..4 * (rounds + 1) {
            let mut word = words[at - 1];
            if at % length == 0 {
                word = substitute(word.rotate_right(8)) ^ constant;
                // Times x in AES's field.
                constant = constant << 1 ^ if constant & 0x80 != 0 { 0x11b } else { 0 };
            } else if length == 8 && at % 8 == 4 {
                word = substitute(word);
            }
            words[at] = words[at - length] ^ word;
        }
        let mut lines =
            Self { rounds: [[0; 16]; 15], powers: [[0; 16]; POWERS], folded: [[0; 4]; POWERS / 4] };
        for (key, words) in lines.rounds.iter_mut().zip(words.chunks_exact(4)).take(rounds + 1) {
            key.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        }
        words.zeroize();
        lines.hash_key(rounds);
        lines
    }

    /// H and its powers.
    #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
    fn hash_key(&mut self, rounds: usize) {
        // SAFETY: a round key has 16 bytes, and any alignment will do.
        let key = |round: usize| unsafe { _mm_loadu_si128(self.rounds[round].as_ptr().cast()) };
        let mut hash = key(0);
        for round in 1..rounds {
            hash = _mm_aesenc_si128(hash, key(round));
        }
        hash = _mm_aesenclast_si128(hash, key(rounds));
        hash = _mm_shuffle_epi8(hash, _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f));
        // Times x: all bits one to the left, and the polynomial for the one that falls out.
        let carries = _mm_srai_epi32::<31>(_mm_shuffle_epi32::<0b11_01_00_11>(hash));
        let fold = _mm_and_si128(carries, _mm_set_epi64x(POLYNOMIAL as i64 | 1, 1));
        hash = _mm_xor_si128(_mm_add_epi64(hash, hash), fold);
        let mut power = hash;
        for place in self.powers.iter_mut().rev() {
            // SAFETY: a power has 16 bytes, and any alignment will do.
            unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), power) };
            power = multiply(power, hash);
        }
        for (place, powers) in self.folded.iter_mut().zip(self.powers.chunks_exact(4)) {
            let of = |at: usize| {
                let power = u128::from_le_bytes(powers[at]);
                power as u64 ^ (power >> 64) as u64
            };
            *place = [of(0), of(2), of(1), of(3)];
        }
    }
}

/// AES's substitution of each byte of a word: the last round's, whose shift of rows changes nothing where all columns are alike.
#[target_feature(enable = "aes")]
fn substitute(word: u32) -> u32 {
    _mm_cvtsi128_si32(_mm_aesenclast_si128(_mm_set1_epi32(word as i32), _mm_setzero_si128())) as u32
}

/// A product in GHASH's field, of which one factor is times x.
#[target_feature(enable = "pclmulqdq")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let middle = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    let (low, high) = (_mm_clmulepi64_si128::<0x00>(a, b), _mm_clmulepi64_si128::<0x11>(a, b));
    let polynomial = _mm_set1_epi64x(POLYNOMIAL as i64);
    let fold = |of, onto| {
        let product = _mm_clmulepi64_si128::<0x01>(polynomial, of);
        _mm_xor_si128(onto, _mm_xor_si128(product, _mm_shuffle_epi32::<0b01_00_11_10>(of)))
    };
    fold(fold(low, middle), high)
}
