//! The cryptography that the engine stands on, behind a trait: real (`aws_lc`), or one for fuzzing that only looks like it.

pub mod aws_lc;
pub mod fake;
mod modp;

use std::fmt;

use model::ike::{Cipher, Group, Integrity, Prf};
use zeroize::Zeroizing;

/// Bytes that are erased when they go.
pub type Secret = Zeroizing<Vec<u8>>;

/// Primitives, and chance.
pub trait Crypto: fmt::Debug + Send {
    /// Fills with bytes that nobody can guess.
    fn random(&mut self, bytes: &mut [u8]);

    /// Begins a key exchange: what is to be sent, and what is to be kept for [`Crypto::finish`].
    ///
    /// # Errors
    /// The library refuses.
    fn begin(&mut self, group: Group) -> Result<Begun, CryptoError>;

    /// Answers one: what is to be sent back, and the shared secret (RFC 7296 §2.14: padded to the length of the modulus).
    ///
    /// # Errors
    /// The peer's public value is none of this method: of another length, not on the curve, 0, or the shared secret would be 0 (RFC 6989).
    fn answer(&mut self, group: Group, public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError>;

    /// The shared secret of one that we began.
    ///
    /// # Errors
    /// As [`Crypto::answer`].
    fn finish(&mut self, begun: Begun, public: &[u8]) -> Result<Secret, CryptoError>;

    /// The pseudo-random function over the parts one after the other.
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret;

    /// prf+ of the parts, as much of it as there is room for (RFC 7296 §2.13): at most 255 times what the prf gives.
    fn prf_plus(&self, prf: Prf, key: &[u8], parts: &[&[u8]], bytes: &mut [u8]) {
        prf_plus(crate::keymat::prf_len(prf), parts, bytes, |parts| self.prf(prf, key, parts));
    }

    /// Encrypts in place and appends the ICV; `text` is whole blocks for AES-CBC. Without an AEAD: no ICV is appended. `key`: all of SK_e,
    /// for AES-GCM with its 4 bytes of salt behind; `iv`: the 8 bytes that are sent (RFC 5282 §7.1), or 16 for AES-CBC.
    fn seal(&self, cipher: Cipher, key: &[u8], iv: &[u8], aad: &[u8], text: &mut Vec<u8>);

    /// Decrypts in place and cuts the ICV off.
    ///
    /// # Errors
    /// It is not authentic (AEAD), or not whole blocks.
    fn open(
        &self,
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoError>;

    /// The ICV over the parts, cut to its length.
    fn integrity(&self, integrity: Integrity, key: &[u8], parts: &[&[u8]]) -> Vec<u8>;

    /// SHA-1 over the parts: of NAT detection (RFC 7296 §2.23) and certificate requests alone, which it secures nothing in.
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20];
}

/// `T1 = prf(K, S | 0x01), T2 = prf(K, T1 | S | 0x02), ...` (RFC 7296 §2.13).
fn prf_plus(length: usize, parts: &[&[u8]], bytes: &mut [u8], mut prf: impl FnMut(&[&[u8]]) -> Secret) {
    let mut last = Secret::default();
    for (number, block) in (1u8..).zip(bytes.chunks_mut(length)) {
        let number = [number];
        let all = [&[&**last], parts, &[&number]].concat();
        last = prf(&all);
        block.copy_from_slice(&last[..block.len()]);
    }
}

/// A key exchange that was begun: its ephemeral private key is in it, and is used once.
pub struct Begun {
    /// Its method.
    pub group: Group,
    /// What is sent.
    pub public: Vec<u8>,
    /// What is kept: of the implementation's own making.
    pub private: Box<dyn std::any::Any + Send>,
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begun({})", self.group)
    }
}

/// Why something cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// A public value that is none.
    #[error("not a public value of {0}")]
    Public(Group),
    /// It is not authentic.
    #[error("not authentic")]
    NotAuthentic,
    /// The library refuses.
    #[error("the cryptographic library refuses")]
    Refused,
}

/// What every implementation keeps.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// Both sides have the same secret, another one each time; a public value that was changed gives another one or none.
    pub(super) fn keys_are_exchanged(crypto: &mut dyn Crypto) {
        for group in Group::ALL.iter().copied() {
            let mut secrets = Vec::new();
            for _ in 0..2 {
                let begun = crypto.begin(group).unwrap();
                assert_eq!(format!("{begun:?}"), format!("Begun({group})"), "no key is shown");
                let (public, theirs) = crypto.answer(group, &begun.public).unwrap();
                let ours = crypto.finish(begun, &public).unwrap();
                assert!(ours == theirs && ours.len() >= 32, "{group}");
                secrets.push(ours);
                let begun = crypto.begin(group).unwrap();
                let (mut public, theirs) = crypto.answer(group, &begun.public).unwrap();
                public[9] ^= 4;
                assert!(crypto.finish(begun, &public).ok() != Some(theirs), "{group}");
            }
            assert!(secrets[0] != secrets[1], "{group}");
        }
    }

    /// What is sealed comes out again, with this key, IV and AAD alone.
    pub(super) fn texts_are_sealed(crypto: &mut dyn Crypto) {
        for cipher in Cipher::ALL.iter().copied() {
            let is_aead = cipher != Cipher::AesCbc256;
            let mut key = vec![0; crate::keymat::encryption_len(cipher)];
            crypto.random(&mut key);
            let iv = if is_aead { vec![5; 8] } else { vec![5; 16] };
            let text = vec![7; 48];
            let mut sealed = text.clone();
            crypto.seal(cipher, &key, &iv, b"aad", &mut sealed);
            assert_eq!(sealed.len(), if is_aead { 64 } else { 48 });
            let opened = |key: &[u8], iv: &[u8], aad: &[u8], mut sealed: Vec<u8>| {
                crypto.open(cipher, key, iv, aad, &mut sealed).ok().map(|()| sealed)
            };
            assert_eq!(opened(&key, &iv, b"aad", sealed.clone()).as_ref(), Some(&text));
            for at in [0, key.len() - 1] {
                let mut other = key.clone();
                other[at] ^= 1;
                assert_ne!(opened(&other, &iv, b"aad", sealed.clone()).as_ref(), Some(&text), "{cipher}");
            }
            let mut other = iv.clone();
            other[0] ^= 1;
            assert_ne!(opened(&key, &other, b"aad", sealed.clone()).as_ref(), Some(&text), "{cipher}");
            for at in [0, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_ne!(opened(&key, &iv, b"aad", changed).as_ref(), Some(&text), "{cipher}");
            }
            if is_aead {
                assert_eq!(opened(&key, &iv, b"add", sealed.clone()), None, "{cipher}");
                assert_eq!(opened(&key, &iv, b"aad", sealed[..10].to_vec()), None, "{cipher}");
            }
        }
    }

    /// Every byte of every part moves the result, and where parts end does not; prf+ is made of the prf.
    pub(super) fn all_parts_count(crypto: &dyn Crypto) {
        for prf in Prf::ALL.iter().copied() {
            let one = crypto.prf(prf, b"key", &[b"ab", b"c"]);
            assert_eq!(one.len(), crate::keymat::prf_len(prf));
            assert!(one == crypto.prf(prf, b"key", &[b"", b"abc"]));
            assert!(one != crypto.prf(prf, b"kez", &[b"abc"]) && one != crypto.prf(prf, b"key", &[b"abd"]));
            let mut bytes = vec![0; 3 * one.len() - 5];
            crypto.prf_plus(prf, b"key", &[b"ab", b"c"], &mut bytes);
            let first = crypto.prf(prf, b"key", &[b"abc\x01"]);
            let second = crypto.prf(prf, b"key", &[&first, b"abc\x02"]);
            let third = crypto.prf(prf, b"key", &[&second, b"abc\x03"]);
            assert_eq!(bytes, [&first[..], &second, &third].concat()[..bytes.len()]);
        }
        for integrity in Integrity::ALL.iter().copied() {
            let one = crypto.integrity(integrity, b"key", &[b"ab", b"c"]);
            assert_eq!(one.len(), crate::sk::icv_len(Some(integrity)));
            assert_eq!(one, crypto.integrity(integrity, b"key", &[b"abc"]));
            assert_ne!(one, crypto.integrity(integrity, b"key", &[b"abcd"]));
        }
        assert_eq!(crypto.sha1(&[b"ab", b"c"]), crypto.sha1(&[b"abc"]));
        assert_ne!(crypto.sha1(&[b"abc"]), crypto.sha1(&[b"abd"]));
    }
}
