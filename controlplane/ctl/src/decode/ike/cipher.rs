//! What an IKE SA of a capture is decrypted with. It reads more than a node speaks: what others agreed on is to be read.

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::{aead, hmac};
use cbc::cipher::{Block, BlockModeDecrypt, BlockSizeUser, KeyIvInit};
use wire::ike::Sealed;
use zeroize::Zeroizing;

/// An encryption algorithm, and its key length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Cbc(usize),
    Gcm(usize),
}

/// Encryption algorithms as a dissector's table names them, without the number of an RFC behind.
const ENCRYPTION: [(&str, Encryption); 6] = [
    ("AES-GCM-128 with 16 octet ICV", Encryption::Gcm(16)),
    ("AES-GCM-192 with 16 octet ICV", Encryption::Gcm(24)),
    ("AES-GCM-256 with 16 octet ICV", Encryption::Gcm(32)),
    ("AES-CBC-128", Encryption::Cbc(16)),
    ("AES-CBC-192", Encryption::Cbc(24)),
    ("AES-CBC-256", Encryption::Cbc(32)),
];

/// Integrity algorithms as the table names them; the length of their ICV and of their key, in bytes.
const INTEGRITY: [(&str, hmac::Algorithm, usize, usize); 4] = [
    ("HMAC_SHA1_96", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 12, 20),
    ("HMAC_SHA2_256_128", hmac::HMAC_SHA256, 16, 32),
    ("HMAC_SHA2_384_192", hmac::HMAC_SHA384, 24, 48),
    ("HMAC_SHA2_512_256", hmac::HMAC_SHA512, 32, 64),
];

/// Salt behind a key of AES-GCM, and the IV that is sent (RFC 5282 §4, §7.1), in bytes.
const SALT: usize = 4;
const GCM_IV: usize = 8;
const GCM_ICV: usize = 16;
const BLOCK: usize = 16;

/// The algorithms of an IKE SA.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cipher {
    encryption: Encryption,
    /// Where the encryption does not authenticate; with the lengths of ICV and key.
    integrity: Option<(hmac::Algorithm, usize, usize)>,
}

/// The keys of a direction.
pub(super) struct Keys {
    pub(super) encryption: Zeroizing<Vec<u8>>,
    pub(super) integrity: Zeroizing<Vec<u8>>,
}

/// Why an encrypted payload was not decrypted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    #[error("it is not authentic")]
    Forged,
    /// It is of who has the key, who did not keep to RFC 7296 §3.14.
    #[error("it is authentic, but {0}")]
    Padding(String),
}

impl Cipher {
    /// By the names of the table.
    pub(super) fn named(encryption: &str, integrity: &str) -> Result<Self, String> {
        let bare = |name: &str| name.split('[').next().unwrap_or_default().trim().to_owned();
        let (cipher, hash) = (bare(encryption), bare(integrity));
        let found = ENCRYPTION.iter().find(|(name, _)| cipher.eq_ignore_ascii_case(name));
        let (_, encryption) = found.ok_or_else(|| {
            let read = ENCRYPTION.map(|(name, _)| name).join(", ");
            format!("{cipher} is not decrypted here: {read} are")
        })?;
        if matches!(encryption, Encryption::Gcm(_)) {
            if !hash.eq_ignore_ascii_case("NONE") {
                return Err(format!("{cipher} goes with the integrity algorithm NONE, not {hash}"));
            }
            return Ok(Self { encryption: *encryption, integrity: None });
        }
        let found = INTEGRITY.iter().find(|(name, ..)| hash.eq_ignore_ascii_case(name));
        let (_, algorithm, icv, key) = found.ok_or_else(|| {
            let read = INTEGRITY.map(|(name, ..)| name).join(", ");
            format!("{cipher} with {hash} is not decrypted here: {read} are")
        })?;
        Ok(Self { encryption: *encryption, integrity: Some((*algorithm, *icv, *key)) })
    }

    /// The lengths of the keys of a direction in bytes: SK_e with its salt, SK_a.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let encryption = match self.encryption {
            Encryption::Cbc(key) => key,
            Encryption::Gcm(key) => key + SALT,
        };
        (encryption, self.integrity.map_or(0, |(.., key)| key))
    }

    /// Decrypts what was sealed with these keys, and takes the padding off (RFC 7296 §3.14).
    pub(super) fn open(&self, keys: &Keys, sealed: &Sealed<'_>) -> Result<Vec<u8>, Closed> {
        let text = match self.encryption {
            Encryption::Gcm(_) => Self::open_gcm(keys, sealed),
            Encryption::Cbc(_) => self.open_cbc(keys, sealed),
        };
        let mut text = text.ok_or(Closed::Forged)?;
        let padding =
            text.pop().ok_or_else(|| Closed::Padding("there is no length of padding".to_owned()))?;
        let rest = text.len().checked_sub(padding.into());
        let rest = rest.ok_or_else(|| {
            Closed::Padding(format!("{padding} bytes of padding are more than there is ({})", text.len()))
        })?;
        text.truncate(rest);
        Ok(text)
    }

    fn open_gcm(keys: &Keys, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
        let (key, salt) = keys.encryption.split_last_chunk::<SALT>()?;
        let algorithm = match key.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            _ => &aead::AES_256_GCM,
        };
        let (iv, rest) = sealed.body.split_at_checked(GCM_IV)?;
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[..SALT].copy_from_slice(salt);
        nonce[SALT..].copy_from_slice(iv);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).ok()?);
        let mut text = rest.to_vec();
        key.open_in_place(nonce, aead::Aad::from(sealed.front), &mut text).ok()?;
        text.truncate(rest.len() - GCM_ICV);
        Some(text)
    }

    fn open_cbc(&self, keys: &Keys, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
        let (algorithm, icv, _) = self.integrity?;
        let (body, tag) = sealed.body.split_at_checked(sealed.body.len().checked_sub(icv)?)?;
        // §3.14: the ICV is over all of the message before it.
        let mut mac = hmac::Context::with_key(&hmac::Key::new(algorithm, &keys.integrity));
        mac.update(sealed.front);
        mac.update(body);
        if mac.sign().as_ref().get(..icv)? != tag {
            return None;
        }
        let (iv, rest) = body.split_at_checked(BLOCK)?;
        let mut text = rest.to_vec();
        match keys.encryption.len() {
            16 => decrypt_blocks::<Aes128>(&keys.encryption, iv, &mut text)?,
            24 => decrypt_blocks::<Aes192>(&keys.encryption, iv, &mut text)?,
            _ => decrypt_blocks::<Aes256>(&keys.encryption, iv, &mut text)?,
        }
        Some(text)
    }
}

/// Decrypts whole blocks in place; `None` if there is a part of one.
fn decrypt_blocks<C>(key: &[u8], iv: &[u8], text: &mut [u8]) -> Option<()>
where
    C: cbc::cipher::BlockCipherDecrypt + cbc::cipher::KeyInit + BlockSizeUser,
{
    let mut cbc = cbc::Decryptor::<C>::new_from_slices(key, iv).ok()?;
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(text);
    cbc.decrypt_blocks(blocks);
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use cbc::cipher::BlockModeEncrypt;

    use super::*;

    fn keys(cipher: &Cipher) -> Keys {
        let (encryption, integrity) = cipher.lengths();
        let key = |length: usize, first: u8| Zeroizing::new((first..).take(length).collect::<Vec<u8>>());
        Keys { encryption: key(encryption, 1), integrity: key(integrity, 100) }
    }

    fn encrypt<C>(key: &[u8], text: &mut [u8])
    where
        C: cbc::cipher::BlockCipherEncrypt + cbc::cipher::KeyInit + BlockSizeUser,
    {
        let mut cbc = cbc::Encryptor::<C>::new_from_slices(key, &[7; BLOCK]).unwrap();
        cbc.encrypt_blocks(Block::<C>::slice_as_chunks_mut(text).0);
    }

    /// What RFC 7296 §3.14 makes of text and its padding.
    fn sealed(cipher: &Cipher, keys: &Keys, text: &[u8]) -> Vec<u8> {
        let mut body = text.to_vec();
        match cipher.encryption {
            Encryption::Cbc(key) => {
                match key {
                    16 => encrypt::<Aes128>(&keys.encryption, &mut body),
                    24 => encrypt::<Aes192>(&keys.encryption, &mut body),
                    _ => encrypt::<Aes256>(&keys.encryption, &mut body),
                }
                body.splice(0..0, [7; BLOCK]);
                let (algorithm, icv, _) = cipher.integrity.unwrap();
                let key = hmac::Key::new(algorithm, &keys.integrity);
                let tag = hmac::sign(&key, &[b"front", &body[..]].concat());
                body.extend(&tag.as_ref()[..icv]);
            }
            Encryption::Gcm(length) => {
                let algorithm = match length {
                    16 => &aead::AES_128_GCM,
                    24 => &aead::AES_192_GCM,
                    _ => &aead::AES_256_GCM,
                };
                let (key, salt) = keys.encryption.split_at(length);
                let nonce = [salt, &[7; GCM_IV]].concat().try_into().unwrap();
                let key = aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).unwrap());
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, aead::Aad::from(b"front"), &mut body).unwrap();
                body.splice(0..0, [7; GCM_IV]);
            }
        }
        body
    }

    fn all() -> Vec<Cipher> {
        let named = |name: &str, hash: &str| Cipher::named(name, hash).unwrap();
        let hashes = INTEGRITY.map(|(hash, ..)| format!("{hash} [RFC4868]"));
        let each = |(name, encryption): &(&str, Encryption)| match encryption {
            Encryption::Gcm(_) => vec![named(name, "NONE [RFC4306]")],
            Encryption::Cbc(_) => hashes.iter().map(|hash| named(name, hash)).collect(),
        };
        ENCRYPTION.iter().flat_map(each).collect()
    }

    #[test]
    fn every_cipher_of_the_table_opens_what_it_sealed_and_nothing_else() {
        assert_eq!(all().len(), 15);
        for cipher in all() {
            let keys = keys(&cipher);
            let text = [&b"payloads of a message"[..], &[9; 10], &[10]].concat();
            let body = sealed(&cipher, &keys, &text);
            let of = |front: &'static [u8], body: &[u8]| {
                cipher.open(&keys, &Sealed { front, body, first: 41, fragment: None })
            };
            assert_eq!(of(b"front", &body).unwrap(), b"payloads of a message", "{cipher:?}");
            assert_eq!(of(b"Front", &body), Err(Closed::Forged), "{cipher:?}");
            for at in 0..body.len() {
                let mut changed = body.clone();
                changed[at] ^= 0x40;
                assert_eq!(of(b"front", &changed), Err(Closed::Forged), "{cipher:?}, byte {at}");
                assert_eq!(of(b"front", &body[..at]), Err(Closed::Forged), "{cipher:?}, cut to {at}");
            }
        }
    }

    #[test]
    fn padding_that_is_none_is_told() {
        let cipher = Cipher::named("AES-GCM-128 with 16 octet ICV [RFC5282]", "NONE [RFC4306]").unwrap();
        let keys = keys(&cipher);
        for (text, said) in [
            (&[1, 2, 4][..], "it is authentic, but 4 bytes of padding are more than there is (2)"),
            (&[], "it is authentic, but there is no length of padding"),
        ] {
            let body = sealed(&cipher, &keys, text);
            let sealed = Sealed { front: b"front", body: &body, first: 41, fragment: None };
            assert_eq!(cipher.open(&keys, &sealed).unwrap_err().to_string(), said);
        }
    }
}
