//! Who does the work.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use thiserror::Error;

#[cfg(target_arch = "x86_64")]
use crate::kernel;
use crate::selftest;

/// An implementation of AES-GCM. All make the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Provider {
    /// Our kernel for VAES and VPCLMULQDQ in 512 bits (AVX-512).
    Vaes512,
    /// Our kernel for VAES and VPCLMULQDQ in 256 bits (AVX2).
    Vaes256,
    /// Our kernel for AES-NI and PCLMULQDQ (with AVX2).
    Aesni,
    /// ring.
    Ring,
    /// The crate `aes-gcm`: portable.
    AesGcm,
}

/// A word that names no provider.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no AES-GCM provider {0:?}: vaes512, vaes256, aesni, ring or aes-gcm")]
pub struct UnknownProvider(String);

impl Provider {
    /// All, the fastest first.
    pub const ALL: [Self; 5] = [Self::Vaes512, Self::Vaes256, Self::Aesni, Self::Ring, Self::AesGcm];

    /// As users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vaes512 => "vaes512",
            Self::Vaes256 => "vaes256",
            Self::Aesni => "aesni",
            Self::Ring => "ring",
            Self::AesGcm => "aes-gcm",
        }
    }

    /// Whether this processor can run it, and it has found the known answers of the self-test here. The first call runs that, in a
    /// few milliseconds; the others cost a load.
    #[must_use]
    #[inline]
    pub fn is_usable(self) -> bool {
        static USABLE: [OnceLock<bool>; Provider::ALL.len()] =
            [const { OnceLock::new() }; Provider::ALL.len()];
        *USABLE[self as usize].get_or_init(|| self.is_possible() && selftest::passes(self))
    }

    /// The fastest usable one.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|provider| provider.is_usable()).unwrap_or(Self::AesGcm)
    }

    /// Whether the processor has the instructions. What is possible and not usable has failed its self-test.
    #[must_use]
    pub fn is_possible(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vaes512 => kernel::bits512::is_possible(),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes256 => kernel::bits256::is_possible(),
            #[cfg(target_arch = "x86_64")]
            Self::Aesni => kernel::bits128::is_possible(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vaes512 | Self::Vaes256 | Self::Aesni => false,
            Self::Ring | Self::AesGcm => true,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        let named = Self::ALL.into_iter().find(|provider| provider.name() == name);
        named.ok_or_else(|| UnknownProvider(name.into()))
    }
}
