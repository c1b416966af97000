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
    Curve(agreement::EphemeralPrivateKey),
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
                Ok((ours, curve_shared(group, private, public)?))
            }
        }
    }

    fn finish(&mut self, begun: Begun, public: &[u8]) -> Result<Secret, CryptoError> {
        let group = begun.group;
        match *begun.private.downcast::<Private>().map_err(|_| CryptoError::Refused)? {
            Private::Curve(private) => curve_shared(group, private, public),
            Private::Modp(exponent) => modp::shared(&exponent, public).ok_or(CryptoError::Public(group)),
            Private::Kem(private) => {
                let shared = private.decapsulate(public.into()).map_err(|_| CryptoError::Public(group))?;
                Ok(Zeroizing::new(shared.as_ref().to_vec()))
            }
        }
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        let algorithm = match prf {
            Prf::Sha256 => hmac::HMAC_SHA256,
            Prf::Sha384 => hmac::HMAC_SHA384,
            Prf::Sha512 => hmac::HMAC_SHA512,
        };
        Zeroizing::new(mac(algorithm, key, parts).as_ref().to_vec())
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
        let tag = mac(algorithm, key, parts);
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
        self.random(&mut *exponent);
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

fn mac(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
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

fn curve_key(group: Group) -> Result<(Vec<u8>, agreement::EphemeralPrivateKey), CryptoError> {
    let (algorithm, length) = curve(group)?;
    let private = agreement::EphemeralPrivateKey::generate(algorithm, &rand::SystemRandom::new());
    let private = private.map_err(refused)?;
    let public = private.compute_public_key().map_err(refused)?;
    let public = public.as_ref();
    Ok((public[public.len().saturating_sub(length)..].to_vec(), private))
}

/// The library refuses points that are not on the curve, the point at infinity, and x25519 values that give 0 (RFC 6989 §2.3, RFC 8031 §3.2).
fn curve_shared(
    group: Group,
    private: agreement::EphemeralPrivateKey,
    public: &[u8],
) -> Result<Secret, CryptoError> {
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
    agreement::agree_ephemeral(private, point, wrong, |shared| Ok(Zeroizing::new(shared.to_vec())))
}
