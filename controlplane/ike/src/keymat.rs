//! Keys of IKE SAs and of their children (RFC 7296 §2.13 to §2.18; with additional key exchanges RFC 9370 §2.2).
//!
//! ```text
//!   SKEYSEED ─ prf+ ─▶ SK_d │ SK_ai │ SK_ar │ SK_ei │ SK_er │ SK_pi │ SK_pr
//!                      │      └── of an IKE SA without AEAD ──┘  │
//!                      └ prf+ ─▶ KEYMAT of a child:             └ of the identities that are proved
//!                                initiator → responder, responder → initiator
//! ```

use std::fmt;
use std::ops::Range;

use model::ike::{Cipher, EspSuite, IkeSuite, Integrity, Prf};
use model::sa::SaKey;
use wire::ike::{Header, Identification};
use zeroize::Zeroizing;

use crate::crypto::{Crypto, CryptoError, Secret};

/// Who is meant, of the two of an IKE SA: the one that began it has flag I for all its life (RFC 7296 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who began the IKE SA, or its last rekeying.
    Initiator,
    /// The other.
    Responder,
}

/// What both sides contribute in the clear.
#[derive(Debug, Clone, Copy)]
pub struct Seeds<'a> {
    /// Nonce of the initiator, without its payload's header.
    pub initiator_nonce: &'a [u8],
    /// Nonce of the responder.
    pub responder_nonce: &'a [u8],
    /// SPI of the (new) IKE SA's initiator.
    pub initiator_spi: u64,
    /// SPI of its responder.
    pub responder_spi: u64,
}

/// The keys of an IKE SA. They are erased when they go, and cannot be copied: the IVs of what we seal with them are counted here.
pub struct IkeKeys {
    suite: IkeSuite,
    /// All of them, in the order of RFC 7296 §2.14.
    bytes: Zeroizing<Box<[u8]>>,
    /// IVs that were used.
    sealed: u64,
}

impl fmt::Debug for IkeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IkeKeys({}, hidden)", self.suite)
    }
}

/// Length in bytes of what a pseudo-random function gives, and of the keys that it prefers (RFC 4868 §2.1.2).
#[must_use]
pub const fn prf_len(prf: Prf) -> usize {
    match prf {
        Prf::Sha256 => 32,
        Prf::Sha384 => 48,
        Prf::Sha512 => 64,
    }
}

/// Length in bytes of SK_e: with the salt of an AEAD (RFC 5282 §7.1).
#[must_use]
pub const fn encryption_len(cipher: Cipher) -> usize {
    match cipher {
        Cipher::AesGcm256 => 36,
        Cipher::AesGcm128 => 20,
        Cipher::AesCbc256 => 32,
    }
}

/// Length in bytes of SK_a (RFC 4868 §2.1.1); without an integrity algorithm there is none.
#[must_use]
pub const fn integrity_len(integrity: Option<Integrity>) -> usize {
    match integrity {
        None => 0,
        Some(Integrity::Sha256) => 32,
        Some(Integrity::Sha384) => 48,
    }
}

impl IkeKeys {
    /// Those of a new IKE SA: `SKEYSEED = prf(Ni | Nr, g^ir)` (RFC 7296 §2.14).
    #[must_use]
    pub fn first(crypto: &dyn Crypto, suite: IkeSuite, shared: &[u8], seeds: &Seeds<'_>) -> Self {
        let nonces = Zeroizing::new([seeds.initiator_nonce, seeds.responder_nonce].concat());
        Self::of_seed(crypto, suite, &crypto.prf(suite.prf, &nonces, &[shared]), seeds)
    }

    /// Those of an IKE SA that takes the place of an old one: `SKEYSEED = prf_old(SK_d, g^ir | Ni | Nr)` (RFC 7296 §2.18), with the shared
    /// secrets of further key exchanges behind (RFC 9370 §2.2.4). The prf of the SKEYSEED is the old one's.
    #[must_use]
    pub fn rekeyed(
        crypto: &dyn Crypto,
        old: &Self,
        suite: IkeSuite,
        shared: &[&[u8]],
        seeds: &Seeds<'_>,
    ) -> Self {
        let (first, further) = shared.split_at(shared.len().min(1));
        let parts = [first, &[seeds.initiator_nonce, seeds.responder_nonce], further].concat();
        Self::of_seed(crypto, suite, &crypto.prf(old.suite.prf, old.d(), &parts), seeds)
    }

    /// Those after an additional key exchange in an IKE_INTERMEDIATE exchange: `SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr)`
    /// (RFC 9370 §2.2.2).
    #[must_use]
    pub fn mixed(crypto: &dyn Crypto, before: &Self, shared: &[u8], seeds: &Seeds<'_>) -> Self {
        let parts = [shared, seeds.initiator_nonce, seeds.responder_nonce];
        Self::of_seed(crypto, before.suite, &crypto.prf(before.suite.prf, before.d(), &parts), seeds)
    }

    /// Those that messages are sealed with alone, as a table of a dissector has them: each pair of the initiator and of the responder. `None`
    /// if one is not as long as the suite's.
    #[must_use]
    pub fn of_table(suite: IkeSuite, encryption: [&[u8]; 2], integrity: [&[u8]; 2]) -> Option<Self> {
        let cuts = Self::cuts(suite);
        let mut bytes = Zeroizing::new(vec![0; cuts[6].end].into_boxed_slice());
        for (cut, key) in [1, 2, 3, 4].into_iter().zip(integrity.into_iter().chain(encryption)) {
            let place = &mut bytes[cuts[cut].clone()];
            if place.len() != key.len() {
                return None;
            }
            place.copy_from_slice(key);
        }
        Some(Self { suite, bytes, sealed: 0 })
    }

    /// `prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)`.
    fn of_seed(crypto: &dyn Crypto, suite: IkeSuite, seed: &[u8], seeds: &Seeds<'_>) -> Self {
        let parts = [
            seeds.initiator_nonce,
            seeds.responder_nonce,
            &seeds.initiator_spi.to_be_bytes(),
            &seeds.responder_spi.to_be_bytes(),
        ];
        let mut bytes = Zeroizing::new(vec![0; Self::cuts(suite)[6].end].into_boxed_slice());
        crypto.prf_plus(suite.prf, seed, &parts, &mut bytes);
        Self { suite, bytes, sealed: 0 }
    }

    /// Where SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi and SK_pr are.
    fn cuts(suite: IkeSuite) -> [Range<usize>; 7] {
        let (p, a, e) = (prf_len(suite.prf), integrity_len(suite.integrity), encryption_len(suite.cipher));
        let mut end = 0;
        [p, a, a, e, e, p, p].map(|length| {
            end += length;
            end - length..end
        })
    }

    fn cut(&self, which: usize) -> &[u8] {
        let range = Self::cuts(self.suite)[which].clone();
        &self.bytes[range]
    }

    /// Algorithms that they are for.
    #[must_use]
    pub const fn suite(&self) -> IkeSuite {
        self.suite
    }

    /// SK_d: what keys of children, and of the next IKE SA, are computed from.
    pub(crate) fn d(&self) -> &[u8] {
        self.cut(0)
    }

    /// SK_a: integrity of what this side sends; empty with an AEAD.
    pub(crate) fn integrity(&self, from: Side) -> &[u8] {
        self.cut(if from == Side::Initiator { 1 } else { 2 })
    }

    /// SK_e: encryption of what this side sends, with the salt of an AEAD.
    pub(crate) fn encryption(&self, from: Side) -> &[u8] {
        self.cut(if from == Side::Initiator { 3 } else { 4 })
    }

    /// SK_p: what ties this side's identity to the keys.
    pub(crate) fn proof(&self, of: Side) -> &[u8] {
        self.cut(if of == Side::Initiator { 5 } else { 6 })
    }

    /// The next IV of an AEAD: counted, so that none comes twice (RFC 5282 §3.1). Each of the two keys is one side's alone, and we are one side.
    pub(crate) fn next_iv(&mut self) -> [u8; 8] {
        self.sealed += 1;
        self.sealed.to_be_bytes()
    }

    /// `prf(SK_p, RestOfIDPayload)`: the last of what is proved (RFC 7296 §2.15).
    #[must_use]
    pub fn identification(&self, crypto: &dyn Crypto, of: Side, id: &Identification) -> Secret {
        crypto.prf(self.suite.prf, self.proof(of), &[&[id.kind, 0, 0, 0], &id.data])
    }

    /// What an IKE_INTERMEDIATE message of this side adds to its proof, `before` being what the one before gave, or nothing
    /// (RFC 9242 §3.3.2): `prf(SK_p, before | A | P)`, where A is header and header of the encrypted payload as if that were neither
    /// encrypted nor in fragments, and P its chain of payloads `inner`, whose first one's type is `first`.
    #[must_use]
    pub fn intermediate(
        &self,
        crypto: &dyn Crypto,
        of: Side,
        before: &[u8],
        header: Header,
        first: u8,
        inner: &[u8],
    ) -> Secret {
        let front = wire::ike::encode_front(header, first, None, inner.len());
        crypto.prf(self.suite.prf, self.proof(of), &[before, &front, inner])
    }
}

/// IntAuth (RFC 9242 §3.3.2): what the last IKE_INTERMEDIATE messages of both sides gave, and the message id of the IKE_AUTH request.
#[must_use]
pub fn int_auth(initiator: &[u8], responder: &[u8], message_id: u32) -> Vec<u8> {
    [initiator, responder, &message_id.to_be_bytes()].concat()
}

/// The keys of a pair of child SAs: of what the initiator of its exchange sends, and of what the responder does (RFC 7296 §2.17).
/// `shared`: of a key exchange of its own.
///
/// # Errors
/// None, as long as `suite` has keys of the lengths that [`SaKey`] has.
pub fn child_keys(
    crypto: &dyn Crypto,
    keys: &IkeKeys,
    suite: EspSuite,
    shared: Option<&[u8]>,
    initiator_nonce: &[u8],
    responder_nonce: &[u8],
) -> Result<(SaKey, SaKey), CryptoError> {
    let length = suite.suite.key_len() + 4;
    let parts = [shared.unwrap_or_default(), initiator_nonce, responder_nonce];
    let mut keymat = Zeroizing::new(vec![0; 2 * length]);
    crypto.prf_plus(keys.suite.prf, keys.d(), &parts, &mut keymat);
    let (there, back) = keymat.split_at(length);
    SaKey::new(there).zip(SaKey::new(back)).ok_or(CryptoError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aws_lc::AwsLc;

    fn seeds() -> Seeds<'static> {
        Seeds { initiator_nonce: &[1; 32], responder_nonce: &[2; 20], initiator_spi: 3, responder_spi: 4 }
    }

    /// prf+ as RFC 7296 §2.13 writes it, block by block.
    #[test]
    fn keys_are_cut_from_prf_plus_in_their_order() {
        let suite: IkeSuite = "aes256-sha384-prfsha256-x25519".parse().unwrap();
        let keys = IkeKeys::first(&AwsLc, suite, &[9; 32], &seeds());
        let seed = AwsLc.prf(Prf::Sha256, &[&[1; 32][..], &[2; 20]].concat(), &[&[9; 32]]);
        let text = [&[1; 32][..], &[2; 20], &3u64.to_be_bytes(), &4u64.to_be_bytes()].concat();
        let (mut stream, mut last) = (Vec::new(), Vec::new());
        for number in 1..=9 {
            last = AwsLc.prf(Prf::Sha256, &seed, &[&last, &text, &[number]]).to_vec();
            stream.extend_from_slice(&last);
        }
        let mut lengths = [32, 48, 48, 32, 32, 32, 32].into_iter();
        let mut rest = &stream[..];
        let mut next = || {
            let (cut, after) = rest.split_at(lengths.next().unwrap());
            rest = after;
            cut
        };
        assert_eq!(keys.d(), next());
        assert_eq!(keys.integrity(Side::Initiator), next());
        assert_eq!(keys.integrity(Side::Responder), next());
        assert_eq!(keys.encryption(Side::Initiator), next());
        assert_eq!(keys.encryption(Side::Responder), next());
        assert_eq!(keys.proof(Side::Initiator), next());
        assert_eq!(keys.proof(Side::Responder), next());
    }

    #[test]
    fn keys_are_not_shown_and_no_iv_comes_twice() {
        let suite: IkeSuite = "aes128gcm16-prfsha256-x25519".parse().unwrap();
        let mut keys = IkeKeys::first(&AwsLc, suite, &[9; 32], &seeds());
        assert_eq!(format!("{keys:?}"), "IkeKeys(aes128gcm16-prfsha256-x25519, hidden)");
        assert!(keys.next_iv() < keys.next_iv());
    }

    /// RFC 7296 §2.18: by the prf of the old one; RFC 9370 §2.2.2 and §2.2.4.
    #[test]
    fn rekeyed_and_mixed_keys_come_from_the_old_ones() {
        let old: IkeSuite = "aes256gcm16-prfsha384-x25519".parse().unwrap();
        let new: IkeSuite = "aes128gcm16-prfsha256-x25519".parse().unwrap();
        let keys = IkeKeys::first(&AwsLc, old, &[9; 32], &seeds());
        let expected = |prf, suite, parts: &[&[u8]]| {
            IkeKeys::of_seed(&AwsLc, suite, &AwsLc.prf(prf, keys.d(), parts), &seeds()).d().to_vec()
        };
        let rekeyed = IkeKeys::rekeyed(&AwsLc, &keys, new, &[&[7; 32], &[8; 32]], &seeds());
        assert_eq!(rekeyed.d(), expected(Prf::Sha384, new, &[&[7; 32], &[1; 32], &[2; 20], &[8; 32]]));
        let mixed = IkeKeys::mixed(&AwsLc, &keys, &[6; 32], &seeds());
        assert_eq!(mixed.d(), expected(Prf::Sha384, old, &[&[6; 32], &[1; 32], &[2; 20]]));
    }

    #[test]
    fn children_have_two_keys_that_a_key_exchange_of_their_own_changes() {
        let suite: IkeSuite = "aes128gcm16-prfsha256-x25519".parse().unwrap();
        let keys = IkeKeys::first(&AwsLc, suite, &[9; 32], &seeds());
        let esp: EspSuite = "aes256gcm16".parse().unwrap();
        let of = |shared| child_keys(&AwsLc, &keys, esp, shared, &[1; 16], &[2; 16]).unwrap();
        let (there, back) = of(None);
        assert!(there != back && there.suite() == esp.suite);
        let first = AwsLc.prf(Prf::Sha256, keys.d(), &[&[1; 16], &[2; 16], &[1]]);
        assert_eq!(there.keymat()[..32], first[..]);
        assert!(of(Some(&[5; 32])).0 != there);
    }
}
