//! What ring and `aes-gcm` do with one packet.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::{AeadInOut, Nonce, Tag};
use ring::aead::{Aad, LessSafeKey};

use crate::packet::ICV;

/// Either key of `aes-gcm`.
pub(crate) trait Gcm: AeadInOut<NonceSize = U12, TagSize = U16> {}

impl<K: AeadInOut<NonceSize = U12, TagSize = U16>> Gcm for K {}

/// Encrypts the text and writes its ICV; whether it could.
pub(crate) fn ring_seal(key: &LessSafeKey, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> bool {
    let Some((text, icv)) = text.split_last_chunk_mut::<ICV>() else { return false };
    let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
    let Ok(made) = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text) else {
        return false;
    };
    icv.copy_from_slice(made.as_ref());
    true
}

/// Decrypts the text; whether it is authentic.
pub(crate) fn ring_open(key: &LessSafeKey, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> bool {
    let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
    key.open_in_place(nonce, Aad::from(aad), text).is_ok()
}

/// Encrypts the text and writes its ICV; whether it could. Never inlined, nor is [`aes_gcm_open`]: the gate of instructions counts what is
/// around them.
#[inline(never)]
pub(crate) fn aes_gcm_seal<K: Gcm>(key: &K, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> bool {
    let Some((text, icv)) = text.split_last_chunk_mut::<ICV>() else { return false };
    let Ok(made) = key.encrypt_inout_detached(&Nonce::from(nonce), aad, text.into()) else {
        return false;
    };
    *icv = made.into();
    true
}

/// Decrypts the text; whether it is authentic.
#[inline(never)]
pub(crate) fn aes_gcm_open<K: Gcm>(key: &K, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> bool {
    let Some((text, icv)) = text.split_last_chunk_mut::<ICV>() else { return false };
    key.decrypt_inout_detached(&Nonce::from(nonce), aad, text.into(), &Tag::from(*icv)).is_ok()
}
