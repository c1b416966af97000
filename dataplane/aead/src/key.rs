//! A key, expanded for one provider.

use std::fmt;
use std::mem::ManuallyDrop;

use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit as _};
use ring::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use thiserror::Error;
use zeroize::zeroize_flat_type;

use crate::Provider;
#[cfg(target_arch = "x86_64")]
use crate::kernel;

/// A key that is expanded for one provider: all that sealing and opening want of it, inline, on lines of its own. Erased when it is
/// dropped. A key that is moved leaves a copy behind where it was, which nobody erases: make it where it is to stay.
#[repr(C, align(64))]
pub struct Key {
    provider: Provider,
    /// Bytes of the key itself: 16 or 32.
    bytes: u8,
    expanded: Expanded,
}

/// Which of them it is, provider and length say.
#[repr(C)]
pub(crate) union Expanded {
    pub(crate) ring: ManuallyDrop<LessSafeKey>,
    pub(crate) aes_gcm_128: ManuallyDrop<Aes128Gcm>,
    pub(crate) aes_gcm_256: ManuallyDrop<Aes256Gcm>,
    #[cfg(target_arch = "x86_64")]
    pub(crate) kernel: ManuallyDrop<kernel::Lines>,
}

/// What keeps a key from being expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Only keys of 128 and 256 bits are used here.
    #[error("a key for AES-GCM has 16 or 32 bytes, not {0}")]
    Length(usize),
    /// See [`Provider::is_usable`].
    #[error("the AES-GCM provider {0} cannot be used on this machine")]
    Unusable(Provider),
}

/// A key as it can be used: by whom, and of which length.
pub(crate) enum Form<'a> {
    Ring(&'a LessSafeKey),
    AesGcm128(&'a Aes128Gcm),
    AesGcm256(&'a Aes256Gcm),
    /// For our kernels.
    #[cfg(target_arch = "x86_64")]
    Kernel(&'a kernel::Lines),
}

impl Key {
    /// Expands a key of 16 or 32 bytes (without the salt).
    ///
    /// # Errors
    /// Another length, or the provider cannot be used here.
    pub fn new(provider: Provider, key: &[u8]) -> Result<Self, KeyError> {
        if !provider.is_usable() {
            return Err(KeyError::Unusable(provider));
        }
        Self::untested(provider, key)
    }

    /// The same for the self-test itself; the processor has to have the instructions.
    pub(crate) fn untested(provider: Provider, key: &[u8]) -> Result<Self, KeyError> {
        let wrong = |_| KeyError::Length(key.len());
        let expanded = match (provider, key.len()) {
            (Provider::Ring, 16 | 32) => {
                let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let unbound = UnboundKey::new(algorithm, key).map_err(|_| KeyError::Length(key.len()))?;
                Expanded { ring: ManuallyDrop::new(LessSafeKey::new(unbound)) }
            }
            (Provider::AesGcm, 16) => {
                Expanded { aes_gcm_128: ManuallyDrop::new(Aes128Gcm::new_from_slice(key).map_err(wrong)?) }
            }
            (Provider::AesGcm, 32) => {
                Expanded { aes_gcm_256: ManuallyDrop::new(Aes256Gcm::new_from_slice(key).map_err(wrong)?) }
            }
            #[cfg(target_arch = "x86_64")]
            (Provider::Vaes512 | Provider::Vaes256 | Provider::Aesni, 16 | 32) if provider.is_possible() => {
                // SAFETY: the processor has these and more.
                Expanded { kernel: ManuallyDrop::new(unsafe { kernel::Lines::of(key) }) }
            }
            (_, 16 | 32) => return Err(KeyError::Unusable(provider)),
            (_, length) => return Err(KeyError::Length(length)),
        };
        Ok(Self { provider, bytes: key.len() as u8, expanded })
    }

    /// Who it was expanded for.
    #[must_use]
    #[inline]
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Length of the key itself in bytes: 16 or 32.
    #[must_use]
    #[inline]
    pub fn length(&self) -> usize {
        usize::from(self.bytes)
    }

    #[inline]
    pub(crate) fn form(&self) -> Form<'_> {
        // SAFETY: `untested` has written the member that provider and length name, and nothing changes any of them.
        unsafe {
            match (self.provider, self.bytes) {
                (Provider::Ring, _) => Form::Ring(&self.expanded.ring),
                (Provider::AesGcm, 16) => Form::AesGcm128(&self.expanded.aes_gcm_128),
                (Provider::AesGcm, _) => Form::AesGcm256(&self.expanded.aes_gcm_256),
                #[cfg(target_arch = "x86_64")]
                (Provider::Vaes512 | Provider::Vaes256 | Provider::Aesni, _) => {
                    Form::Kernel(&self.expanded.kernel)
                }
            }
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the member is the one that is there, as in `form`, and nobody looks at it again. All that is left of the union are
        // bytes, any of which may be zero.
        unsafe {
            match (self.provider, self.bytes) {
                (Provider::Ring, _) => ManuallyDrop::drop(&mut self.expanded.ring),
                (Provider::AesGcm, 16) => ManuallyDrop::drop(&mut self.expanded.aes_gcm_128),
                (Provider::AesGcm, _) => ManuallyDrop::drop(&mut self.expanded.aes_gcm_256),
                // Bytes.
                (Provider::Vaes512 | Provider::Vaes256 | Provider::Aesni, _) => {}
            }
            zeroize_flat_type(&raw mut self.expanded);
        }
    }
}

impl fmt::Debug for Key {
    /// Nothing of the key itself.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Key({}, {} bits)", self.provider, 8 * self.length())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;

    /// Input: a key of each provider and length, dropped where it lies. Output: not a byte of what was expanded is left.
    #[test]
    fn a_key_is_erased_when_it_is_dropped() {
        for provider in Provider::ALL.into_iter().filter(|p| p.is_usable()) {
            for length in [16, 32] {
                let mut place = Box::new(MaybeUninit::<Key>::zeroed());
                place.write(Key::new(provider, &[0x5a; 32][..length]).unwrap());
                let at = place.as_mut_ptr();
                // SAFETY: the key was written, is dropped once, and its place stays allocated; bytes are read as such, padding was zeroed
                // or is not looked at: the union is all there is behind its offset.
                let (before, after) = unsafe {
                    let bytes = (&raw const (*at).expanded).cast::<u8>();
                    let sum =
                        |_| (0..size_of::<Expanded>()).filter(|i| bytes.add(*i).read_volatile() != 0).count();
                    let before = sum(());
                    at.drop_in_place();
                    (before, sum(()))
                };
                assert!(before > 200, "{provider}: {before}");
                assert_eq!(after, 0, "{provider}");
            }
        }
    }

    #[test]
    fn a_key_is_inline_and_on_lines_of_its_own() {
        assert_eq!(align_of::<Key>(), 64);
        assert!(size_of::<Key>() <= 640, "{}", size_of::<Key>());
    }

    #[test]
    fn a_key_says_nothing_of_itself_and_has_16_or_32_bytes() {
        let key = Key::new(Provider::AesGcm, &[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "Key(aes-gcm, 256 bits)");
        assert_eq!((key.provider(), key.length()), (Provider::AesGcm, 32));
        for length in [0, 15, 17, 20, 24, 31, 33, 36] {
            for provider in Provider::ALL.into_iter().filter(|p| p.is_usable()) {
                assert_eq!(Key::new(provider, &[7; 40][..length]).err(), Some(KeyError::Length(length)));
            }
        }
    }
}
