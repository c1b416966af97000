//! Keys that prove identities, and what they sign with: ECDSA on P-256 and P-384, RSA from 2048 bits on, Ed25519; never SHA-1.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::{AlgorithmIdentifier, PrivateKeyDer, alg_id};
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Hash functions of signatures, by their numbers (RFC 7427 §7, RFC 8420 §2). SHA-1, number 1, is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Hash {
    Sha256 = 2,
    Sha384 = 3,
    Sha512 = 4,
    /// What is signed is the text itself: of Ed25519.
    Identity = 5,
}

impl Hash {
    pub(crate) const ALL: [Self; 4] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Identity];
}

/// How something is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Ecdsa(Hash),
    Pkcs1(Hash),
    Pss(Hash),
    Ed25519,
}

impl Scheme {
    const ALL: [Self; 10] = [
        Self::Ecdsa(Hash::Sha256),
        Self::Ecdsa(Hash::Sha384),
        Self::Ecdsa(Hash::Sha512),
        Self::Pkcs1(Hash::Sha256),
        Self::Pkcs1(Hash::Sha384),
        Self::Pkcs1(Hash::Sha512),
        Self::Pss(Hash::Sha256),
        Self::Pss(Hash::Sha384),
        Self::Pss(Hash::Sha512),
        Self::Ed25519,
    ];

    /// What is in its AlgorithmIdentifier (RFC 7427, appendix A).
    fn content(self) -> AlgorithmIdentifier {
        match self {
            Self::Ecdsa(Hash::Sha256) => alg_id::ECDSA_SHA256,
            Self::Ecdsa(Hash::Sha384) => alg_id::ECDSA_SHA384,
            Self::Ecdsa(_) => alg_id::ECDSA_SHA512,
            Self::Pkcs1(Hash::Sha256) => alg_id::RSA_PKCS1_SHA256,
            Self::Pkcs1(Hash::Sha384) => alg_id::RSA_PKCS1_SHA384,
            Self::Pkcs1(_) => alg_id::RSA_PKCS1_SHA512,
            Self::Pss(Hash::Sha256) => alg_id::RSA_PSS_SHA256,
            Self::Pss(Hash::Sha384) => alg_id::RSA_PSS_SHA384,
            Self::Pss(_) => alg_id::RSA_PSS_SHA512,
            Self::Ed25519 => alg_id::ED25519,
        }
    }

    /// Its AlgorithmIdentifier in DER: under 128 bytes.
    pub(crate) fn identifier(self) -> Vec<u8> {
        let content = self.content();
        [&[SEQUENCE, content.len() as u8], content.as_ref()].concat()
    }

    /// The scheme of an AlgorithmIdentifier in DER; `None` if it is not one that is taken. Parameters that say nothing may be left out where
    /// RFC 4055 §2.1 and §5 have them so.
    pub(crate) fn of_identifier(der: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| {
            let whole = scheme.identifier();
            der == whole || matches!(scheme, Self::Pkcs1(_) | Self::Pss(_)) && der == without_nulls(&whole)
        })
    }

    /// The hash function that the other has to have named.
    pub(crate) const fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Pkcs1(hash) | Self::Pss(hash) => hash,
            Self::Ed25519 => Hash::Identity,
        }
    }
}

const SEQUENCE: u8 = 0x30;
const NULL: [u8; 2] = [5, 0];

/// An AlgorithmIdentifier, all lengths of which are below 128, with the NULLs in it left out, and the lengths of what they were in less.
fn without_nulls(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(der.len());
    let mut rest = der;
    while let [tag, length, after @ ..] = rest {
        let (value, next) = after.split_at((*length as usize).min(after.len()));
        // Constructed: sequences, and the tags of parameters of PSS.
        let value = if tag & 0x20 != 0 { without_nulls(value) } else { value.to_vec() };
        if [*tag, *length] != NULL {
            out.extend_from_slice(&[*tag, value.len() as u8]);
            out.extend_from_slice(&value);
        }
        rest = next;
    }
    out
}

/// Whether an AlgorithmIdentifier is one of those that hash with SHA-1: for the words of a refusal.
pub(crate) fn is_sha1(der: &[u8]) -> bool {
    // sha1WithRSAEncryption, ecdsa-with-SHA1, and RSASSA-PSS with its default parameters (RFC 7427, appendix A).
    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];
    const ECDSA: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
    const PSS: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10, SEQUENCE, 0];
    let content = der.get(2..).unwrap_or_default();
    content.starts_with(RSA) || content.starts_with(ECDSA) || content == PSS
}

/// The least length in bits of a modulus of RSA, and the most: longer ones only cost the one who checks them.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kind: Kind,
    /// Of RSA the DER of RSAPublicKey, of the others the point.
    bytes: Vec<u8>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    P256,
    P384,
    /// Length of the modulus in bits.
    Rsa(usize),
    Ed25519,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

impl PublicKey {
    /// The key of a certificate.
    ///
    /// # Errors
    /// It is of a kind that is not taken, or too weak: in words that follow "its key is ".
    pub(crate) fn of(spki: &SubjectPublicKeyInfoOwned) -> Result<Self, String> {
        let bytes = spki.subject_public_key.as_bytes().ok_or("no whole number of bytes")?.to_vec();
        let curve = || spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as().ok());
        let kind = match spki.algorithm.oid {
            EC_PUBLIC_KEY => match curve() {
                Some(P256) => Kind::P256,
                Some(P384) => Kind::P384,
                _ => return Err("on a curve that is not taken (P-256 and P-384 are)".to_owned()),
            },
            ED25519 => Kind::Ed25519,
            RSA_ENCRYPTION => {
                let bits = rsa_bits(&bytes).ok_or("not a key of RSA")?;
                if !RSA_BITS.contains(&bits) {
                    return Err(format!(
                        "RSA of {bits} bits ({} to {} are taken)",
                        RSA_BITS.start(),
                        RSA_BITS.end()
                    ));
                }
                Kind::Rsa(bits)
            }
            oid => return Err(format!("of a kind that is not taken ({oid}; ECDSA, RSA and Ed25519 are)")),
        };
        Ok(Self { kind, bytes })
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this was signed by its private half.
    pub(crate) fn verify(&self, scheme: Scheme, text: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, scheme) {
            (Kind::P256, Scheme::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P256_SHA256_ASN1,
            (Kind::P256, Scheme::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P256_SHA384_ASN1,
            (Kind::P256, Scheme::Ecdsa(Hash::Sha512)) => &signature::ECDSA_P256_SHA512_ASN1,
            (Kind::P384, Scheme::Ecdsa(Hash::Sha256)) => &signature::ECDSA_P384_SHA256_ASN1,
            (Kind::P384, Scheme::Ecdsa(Hash::Sha384)) => &signature::ECDSA_P384_SHA384_ASN1,
            (Kind::P384, Scheme::Ecdsa(Hash::Sha512)) => &signature::ECDSA_P384_SHA512_ASN1,
            (Kind::Rsa(_), Scheme::Pkcs1(Hash::Sha256)) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa(_), Scheme::Pkcs1(Hash::Sha384)) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa(_), Scheme::Pkcs1(Hash::Sha512)) => &signature::RSA_PKCS1_2048_8192_SHA512,
            (Kind::Rsa(_), Scheme::Pss(Hash::Sha256)) => &signature::RSA_PSS_2048_8192_SHA256,
            (Kind::Rsa(_), Scheme::Pss(Hash::Sha384)) => &signature::RSA_PSS_2048_8192_SHA384,
            (Kind::Rsa(_), Scheme::Pss(Hash::Sha512)) => &signature::RSA_PSS_2048_8192_SHA512,
            (Kind::Ed25519, Scheme::Ed25519) => &signature::ED25519,
            _ => return Err(BadSignature::OfAnotherKind),
        };
        self.verify_by(algorithm, text, signature)
    }

    /// The same where the signature is both numbers one after the other: of AUTH methods 9 and 10 (RFC 4754 §3).
    pub(crate) fn verify_fixed(&self, of: Kind, text: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match (self.kind, of) {
            (Kind::P256, Kind::P256) => self.verify_by(&signature::ECDSA_P256_SHA256_FIXED, text, signature),
            (Kind::P384, Kind::P384) => self.verify_by(&signature::ECDSA_P384_SHA384_FIXED, text, signature),
            _ => Err(BadSignature::OfAnotherKind),
        }
    }

    /// The same of AUTH method 1, where the signature itself says which hash function it is of (RFC 7296 §3.8).
    pub(crate) fn verify_rsa(&self, text: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
        let by = |hash| self.verify(Scheme::Pkcs1(hash), text, signature);
        match hashes.into_iter().map(by).find(|result| *result != Err(BadSignature::Wrong)) {
            Some(result) => result,
            // Looked at only to say so.
            None => match self.verify_by(
                &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                text,
                signature,
            ) {
                Ok(()) => Err(BadSignature::Sha1),
                wrong => wrong,
            },
        }
    }

    fn verify_by(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        text: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let key = UnparsedPublicKey::new(algorithm, &self.bytes);
        key.verify(text, signature).map_err(|_| BadSignature::Wrong)
    }
}

/// Why a signature is none: words that follow "its signature is".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSignature {
    #[error("not that of its certificate's key over this exchange")]
    Wrong,
    #[error("of another kind than its certificate's key")]
    OfAnotherKind,
    #[error("made with SHA-1, which is not taken")]
    Sha1,
}

/// Length in bits of the modulus of an RSAPublicKey (RFC 8017, appendix A.1.1).
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(der).ok()?;
    let modulus: UintRef<'_> = reader
        .sequence(|numbers| {
            let modulus = UintRef::decode(numbers)?;
            UintRef::decode(numbers)?;
            Ok::<_, x509_cert::der::Error>(modulus)
        })
        .ok()?;
    let bytes = modulus.as_bytes();
    let leading = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
    Some(8 * bytes.len() - leading)
}

/// Our private key. The library keeps it, and erases it.
pub(crate) enum PrivateKey {
    Ecdsa {
        kind: Kind,
        /// Whose signatures are in DER.
        der: EcdsaKeyPair,
        /// The same key, whose signatures are both numbers one after the other.
        fixed: EcdsaKeyPair,
    },
    Rsa(rsa::KeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// A key of a file.
    ///
    /// # Errors
    /// It is of a kind that is not taken, or too weak: in words that follow "holds a key that is ".
    pub(crate) fn of(der: &PrivateKeyDer<'_>) -> Result<Self, String> {
        if let Some(key) = rsa_key(der) {
            return key.map(Self::Rsa).map_err(|why| {
                format!(
                    "RSA, which the library refuses ({why}; {} to {} bits are taken)",
                    RSA_BITS.start(),
                    RSA_BITS.end()
                )
            });
        }
        for (kind, der_signing, fixed_signing) in [
            (
                Kind::P256,
                &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            (
                Kind::P384,
                &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
        ] {
            let read = |algorithm| match der {
                PrivateKeyDer::Pkcs8(key) => EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der()).ok(),
                PrivateKeyDer::Sec1(key) => {
                    EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok()
                }
                _ => None,
            };
            if let Some((der, fixed)) = read(der_signing).zip(read(fixed_signing)) {
                return Ok(Self::Ecdsa { kind, der, fixed });
            }
        }
        match der {
            PrivateKeyDer::Pkcs8(key) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
                .map(Self::Ed25519)
                .map_err(|_| "of no kind that is taken (ECDSA P-256 and P-384, RSA, Ed25519)".to_owned()),
            _ => Err("of no kind that is taken (ECDSA P-256 and P-384, RSA, Ed25519)".to_owned()),
        }
    }

    /// Whether this is its public half.
    pub(crate) fn is_of(&self, public: &PublicKey) -> bool {
        let (kind, ours) = match self {
            Self::Ecdsa { kind, der, .. } => (*kind, der.public_key().as_ref()),
            Self::Rsa(key) => (public.kind, key.public_key().as_ref()),
            Self::Ed25519(key) => (Kind::Ed25519, key.public_key().as_ref()),
        };
        kind == public.kind && ours == public.bytes
    }

    /// What it can sign with, the preferred ones first. Of RSA: PSS (RFC 8247 §3).
    pub(crate) fn schemes(&self) -> &'static [Scheme] {
        match self {
            Self::Ecdsa { kind: Kind::P256, .. } => &[Scheme::Ecdsa(Hash::Sha256)],
            Self::Ecdsa { .. } => &[Scheme::Ecdsa(Hash::Sha384)],
            Self::Rsa(_) => {
                &[Scheme::Pss(Hash::Sha256), Scheme::Pss(Hash::Sha384), Scheme::Pss(Hash::Sha512)]
            }
            Self::Ed25519(_) => &[Scheme::Ed25519],
        }
    }

    /// Signs by one of its schemes; `None` if the library refuses.
    pub(crate) fn sign(&self, scheme: Scheme, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Ecdsa { der, .. } => Some(der.sign(&SystemRandom::new(), text).ok()?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match scheme {
                    Scheme::Pss(Hash::Sha256) => &signature::RSA_PSS_SHA256,
                    Scheme::Pss(Hash::Sha384) => &signature::RSA_PSS_SHA384,
                    Scheme::Pss(_) => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; key.public_modulus_len()];
                key.sign(encoding, &SystemRandom::new(), text, &mut bytes).ok()?;
                Some(bytes)
            }
            Self::Ed25519(key) => Some(key.try_sign(text).ok()?.as_ref().to_vec()),
        }
    }

    /// Signs for a peer that does not know RFC 7427: AUTH method, and what is in it. Ed25519 is not for those.
    pub(crate) fn sign_old(&self, text: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self {
            Self::Ecdsa { kind, fixed, .. } => {
                let method = if *kind == Kind::P256 { 9 } else { 10 };
                Some((method, fixed.sign(&SystemRandom::new(), text).ok()?.as_ref().to_vec()))
            }
            Self::Rsa(_) => Some((1, self.sign(Scheme::Pkcs1(Hash::Sha256), text)?)),
            Self::Ed25519(_) => None,
        }
    }
}

/// A key of RSA, if it is one.
fn rsa_key(der: &PrivateKeyDer<'_>) -> Option<Result<rsa::KeyPair, aws_lc_rs::error::KeyRejected>> {
    match der {
        PrivateKeyDer::Pkcs1(key) => Some(rsa::KeyPair::from_der(key.secret_pkcs1_der())),
        // PrivateKeyInfo (RFC 5208 §5): version, algorithm, key.
        PrivateKeyDer::Pkcs8(key) => {
            let bytes = key.secret_pkcs8_der();
            let front = bytes.get(..40).unwrap_or(bytes);
            let oid = RSA_ENCRYPTION.as_bytes();
            front.windows(oid.len()).any(|window| window == oid).then(|| rsa::KeyPair::from_pkcs8(bytes))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::bytes;

    /// RFC 7427, appendix A, and RFC 8420, appendix A.
    #[test]
    fn algorithms_are_named_as_the_rfcs_name_them() {
        let pss = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d0609\
                   6086480165030402010500a203020120";
        let rsa = "300d06092a864886f70d01010b0500";
        for (scheme, der) in [
            (Scheme::Pkcs1(Hash::Sha256), rsa),
            (Scheme::Pkcs1(Hash::Sha512), "300d06092a864886f70d01010d0500"),
            (Scheme::Ecdsa(Hash::Sha256), "300a06082a8648ce3d040302"),
            (Scheme::Ecdsa(Hash::Sha384), "300a06082a8648ce3d040303"),
            (Scheme::Pss(Hash::Sha256), pss),
            (Scheme::Ed25519, "300506032b6570"),
        ] {
            assert_eq!(scheme.identifier(), bytes(der));
            assert_eq!(Scheme::of_identifier(&bytes(der)), Some(scheme));
        }
        // RFC 4055 §2.1, §5: NULL may be left out.
        let no_null = "303d06092a864886f70d01010a3030a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609\
                       608648016503040201a203020120";
        assert_eq!(Scheme::of_identifier(&bytes(no_null)), Some(Scheme::Pss(Hash::Sha256)));
        let no_null = "300b06092a864886f70d01010b";
        assert_eq!(Scheme::of_identifier(&bytes(no_null)), Some(Scheme::Pkcs1(Hash::Sha256)));
        for scheme in Scheme::ALL {
            assert_eq!(Scheme::of_identifier(&scheme.identifier()), Some(scheme));
            assert!(!is_sha1(&scheme.identifier()));
        }
    }

    #[test]
    fn what_is_not_taken_has_no_scheme() {
        // RFC 7427, appendix A: with SHA-1, and PSS with its default parameters, which are SHA-1.
        for sha1 in
            ["300d06092a864886f70d0101050500", "300906072a8648ce3d0401", "300d06092a864886f70d01010a3000"]
        {
            assert_eq!(Scheme::of_identifier(&bytes(sha1)), None);
            assert!(is_sha1(&bytes(sha1)));
        }
        let whole = Scheme::Pss(Hash::Sha384).identifier();
        for length in 0..whole.len() {
            assert_eq!(Scheme::of_identifier(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x80;
            assert_eq!(Scheme::of_identifier(&changed), None, "{at}");
        }
    }
}
