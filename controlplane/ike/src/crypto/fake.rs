//! One that only looks like cryptography: for fuzzing and for scenarios on a virtual clock. It protects nothing. What it keeps is what a state
//! machine can stumble over: other keys, other bytes or other parts do not open, shared secrets are the same on both sides, public values
//! have their lengths, and some are none.

use model::ike::{Cipher, Group, Integrity, Prf};
use zeroize::Zeroizing;

use super::{Begun, Crypto, CryptoError, Secret};

/// Deterministic from its seed, and fast.
#[derive(Debug, Clone)]
pub struct Fake {
    state: u64,
}

impl Fake {
    /// One whose chance comes from this seed alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mixed(self.state)
    }
}

/// 2^64 divided by the golden ratio: of splitmix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finishing steps of splitmix64: every bit of the input moves every bit of the output.
const fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number that depends on every byte of key and parts, and not on where parts end.
fn hash(purpose: u8, key: &[u8], parts: &[&[u8]]) -> u64 {
    // FNV-1a, mixed at the end.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let keyed = key.iter().fold(step(0xcbf2_9ce4_8422_2325, &purpose), step);
    mixed(parts.iter().copied().flatten().fold(mixed(keyed ^ key.len() as u64), step))
}

/// So many bytes from a number.
fn stretched(seed: u64, length: usize) -> impl Iterator<Item = u8> {
    let word = move |at: u64| mixed(seed.wrapping_add(GOLDEN.wrapping_mul(at)));
    (1..).flat_map(move |at| word(at).to_be_bytes()).take(length)
}

/// A Mersenne prime, small enough to multiply in 128 bits: numbers modulo it, and powers of 3.
const PRIME: u64 = (1 << 61) - 1;

fn power(base: u64, mut exponent: u64) -> u64 {
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64;
    let (mut result, mut square) = (1, base % PRIME);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

/// Length of public values: of the one that begins, or of its answer.
const fn public_len(group: Group, answer: bool) -> usize {
    match group {
        Group::X25519 => 32,
        Group::P256 => 64,
        Group::P384 => 96,
        Group::P521 => 132,
        Group::Modp2048 => 256,
        Group::MlKem768 => {
            if answer {
                1088
            } else {
                1184
            }
        }
    }
}

/// A public value: the number, and bytes that follow from it, up to the length.
fn public(group: Group, answer: bool, number: u64) -> Vec<u8> {
    let length = public_len(group, answer);
    number.to_be_bytes().into_iter().chain(stretched(number, length - 8)).collect()
}

fn shared(group: Group, answer: bool, exponent: u64, theirs: &[u8]) -> Result<Secret, CryptoError> {
    let number = theirs.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default();
    if !(2..PRIME - 1).contains(&number) || theirs != public(group, answer, number) {
        return Err(CryptoError::Public(group));
    }
    Ok(Zeroizing::new(stretched(power(number, exponent), 32).collect()))
}

impl Crypto for Fake {
    fn random(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]);
        }
    }

    fn begin(&mut self, group: Group) -> Result<Begun, CryptoError> {
        let exponent = self.next() % (PRIME - 2) + 1;
        let public = public(group, false, power(3, exponent));
        Ok(Begun { group, public, private: Box::new(exponent) })
    }

    fn answer(&mut self, group: Group, theirs: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        let exponent = self.next() % (PRIME - 2) + 1;
        let shared = shared(group, false, exponent, theirs)?;
        Ok((public(group, true, power(3, exponent)), shared))
    }

    fn finish(&mut self, begun: Begun, theirs: &[u8]) -> Result<Secret, CryptoError> {
        let exponent = begun.private.downcast::<u64>().map_err(|_| CryptoError::Refused)?;
        shared(begun.group, true, *exponent, theirs)
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        let length = crate::keymat::prf_len(prf);
        Zeroizing::new(stretched(hash(length as u8, key, parts), length).collect())
    }

    fn seal(&self, cipher: Cipher, key: &[u8], iv: &[u8], aad: &[u8], text: &mut Vec<u8>) {
        let length = text.len();
        text.iter_mut().zip(stretched(hash(1, key, &[iv]), length)).for_each(|(byte, pad)| *byte ^= pad);
        if cipher != Cipher::AesCbc256 {
            let icv = hash(2, key, &[iv, aad, text]);
            text.extend(stretched(icv, 16));
        }
    }

    fn open(
        &self,
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        if cipher == Cipher::AesCbc256 {
            if !text.len().is_multiple_of(16) {
                return Err(CryptoError::NotAuthentic);
            }
        } else {
            let length = text.len().checked_sub(16).ok_or(CryptoError::NotAuthentic)?;
            let icv = text.split_off(length);
            if !stretched(hash(2, key, &[iv, aad, text]), 16).eq(icv) {
                return Err(CryptoError::NotAuthentic);
            }
        }
        let length = text.len();
        text.iter_mut().zip(stretched(hash(1, key, &[iv]), length)).for_each(|(byte, pad)| *byte ^= pad);
        Ok(())
    }

    fn integrity(&self, integrity: Integrity, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let length = crate::sk::icv_len(Some(integrity));
        stretched(hash(length as u8, key, parts), length).collect()
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes.iter_mut().zip(stretched(hash(0, &[], parts), 20)).for_each(|(byte, of)| *byte = of);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::{all_parts_count, keys_are_exchanged, texts_are_sealed};

    #[test]
    fn it_looks_like_cryptography() {
        let mut fake = Fake::new(1);
        keys_are_exchanged(&mut fake);
        texts_are_sealed(&mut fake);
        all_parts_count(&fake);
    }

    #[test]
    fn it_is_the_same_again_from_the_same_seed() {
        let run = |seed| {
            let mut fake = Fake::new(seed);
            let mut bytes = [0; 20];
            fake.random(&mut bytes);
            (bytes, fake.begin(Group::P256).unwrap().public)
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
