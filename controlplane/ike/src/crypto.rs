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
