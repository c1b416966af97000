//! What ring and `aes-gcm` do with one packet.

use aes_gcm::{AeadInOut, Nonce, Tag};
use ring::aead::{Aad, LessSafeKey};

use crate::key::Form;
use crate::packet::{ICV, Packet};

/// Encrypts the text and writes its ICV. What cannot be sealed is overwritten.
pub(crate) fn seal(packet: &mut Packet<'_>) {
    let (nonce, (aad, length)) = (packet.nonce(), packet.aad());
    let aad = &aad[..length];
    let sealed = packet.is_possible() && {
        let end = packet.text.len() - ICV;
        let (text, icv) = packet.text.split_at_mut(end);
        let made = match packet.key.form() {
            Some(Form::Ring(key)) => ring_seal(key, nonce, aad, text),
            Some(Form::AesGcm128(key)) => aes_gcm_seal(key, nonce, aad, text),
            Some(Form::AesGcm256(key)) => aes_gcm_seal(key, nonce, aad, text),
            None => None,
        };
        made.is_some_and(|made| {
            icv.copy_from_slice(&made);
            true
        })
    };
    if !sealed {
        packet.text.fill(0);
    }
}

/// Authenticates the text and decrypts it.
pub(crate) fn open(packet: &mut Packet<'_>) -> bool {
    let (nonce, (aad, length)) = (packet.nonce(), packet.aad());
    let aad = &aad[..length];
    if !packet.is_possible() {
        return false;
    }
    match packet.key.form() {
        Some(Form::Ring(key)) => {
            let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
            key.open_in_place(nonce, Aad::from(aad), packet.text).is_ok()
        }
        Some(Form::AesGcm128(key)) => aes_gcm_open(key, nonce, aad, packet.text),
        Some(Form::AesGcm256(key)) => aes_gcm_open(key, nonce, aad, packet.text),
        None => false,
    }
}

fn ring_seal(key: &LessSafeKey, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; ICV]> {
    let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
    let icv = key.seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
    icv.as_ref().try_into().ok()
}

/// Either key of `aes-gcm`.
trait Gcm: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16> {}

impl<T> Gcm for T where
    T: AeadInOut<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>
{
}

fn aes_gcm_seal<K: Gcm>(key: &K, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; ICV]> {
    let icv = key.encrypt_inout_detached(&Nonce::from(nonce), aad, text.into()).ok()?;
    Some(icv.into())
}

fn aes_gcm_open<K: Gcm>(key: &K, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> bool {
    let Some((text, icv)) = text.split_last_chunk_mut::<ICV>() else { return false };
    key.decrypt_inout_detached(&Nonce::from(nonce), aad, text.into(), &Tag::from(*icv)).is_ok()
}
