//! AES-GCM as ESP wants it (RFC 4106): bursts of packets sealed and opened in place, each under a key of its own that lies inline in
//! its SA.
//!
//! ```text
//!   Burst::packet(i) ──▶ Packet { key, salt, iv, spi, sequence, text }
//!                          nonce = salt ‖ IV            (RFC 4106 §4)
//!                          AAD   = SPI ‖ sequence       (§5; with ESN all 64 bits of it)
//!                          text  = what is encrypted ‖ ICV of 16 bytes (§6)
//! ```
//!
//! A [`Provider`] does the work: the kernels of this crate, where the processor has AES and carry-less products, ring, or `aes-gcm`, which is
//! portable. All make the same bytes. One is used only after it has found the known answers of a self-test on this machine.
//!
//! While one packet is worked on, the key lines and the texts of the ones behind it are on their way from memory: with thousands of
//! SAs, or with long packets, that is most of what a packet costs.
//!
//! What is opened and turns out not to be authentic may have left its plaintext in the buffer: the caller drops it.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod kernel;
mod key;
mod libraries;
mod packet;
mod provider;
mod selftest;
#[cfg(test)]
mod vectors;

use key::Form;
pub use key::{Key, KeyError};
pub use packet::{AHEAD, Burst, ICV, MOST_TEXT, Packet, Soon};
pub use provider::{Provider, UnknownProvider};

/// Encrypts the packets of a burst and writes their ICVs, in order.
///
/// `provider` is the one whose keys the burst has; a packet with a key of another one is sealed by that one. A text that cannot be
/// sealed, since it is shorter than an ICV or longer than [`MOST_TEXT`], is overwritten with zeros.
#[inline]
pub fn seal<B: Burst>(provider: Provider, burst: &mut B) {
    #[cfg(target_arch = "x86_64")]
    if provider.is_usable() {
        match provider {
            // SAFETY: what is usable the processor has.
            Provider::Vaes512 => return unsafe { kernel::bits512::seal_burst(burst) },
            // SAFETY: as above.
            Provider::Vaes256 => return unsafe { kernel::bits256::seal_burst(burst) },
            // SAFETY: as above.
            Provider::Aesni => return unsafe { kernel::bits128::seal_burst(burst) },
            Provider::Ring | Provider::AesGcm => {}
        }
    }
    let _ = provider;
    for at in 0..burst.len() {
        let _ = burst.ahead(at);
        if let Some(mut packet) = burst.packet(at) {
            seal_any(&mut packet);
            burst.sealed(at);
        }
    }
}

/// Authenticates and decrypts the packets of a burst, in order, and says of each whether it is authentic ([`Burst::opened`]).
///
/// As [`seal`], with what cannot be opened being not authentic.
#[inline]
pub fn open<B: Burst>(provider: Provider, burst: &mut B) {
    #[cfg(target_arch = "x86_64")]
    if provider.is_usable() {
        match provider {
            // SAFETY: what is usable the processor has.
            Provider::Vaes512 => return unsafe { kernel::bits512::open_burst(burst) },
            // SAFETY: as above.
            Provider::Vaes256 => return unsafe { kernel::bits256::open_burst(burst) },
            // SAFETY: as above.
            Provider::Aesni => return unsafe { kernel::bits128::open_burst(burst) },
            Provider::Ring | Provider::AesGcm => {}
        }
    }
    let _ = provider;
    for at in 0..burst.len() {
        let _ = burst.ahead(at);
        if let Some(mut packet) = burst.packet(at) {
            let authentic = open_any(&mut packet);
            burst.opened(at, authentic);
        }
    }
}

/// Encrypts one packet and writes its ICV, as [`seal`] does.
#[inline(never)]
pub fn seal_one(mut packet: Packet<'_>) {
    seal_any(&mut packet);
}

/// Authenticates and decrypts one packet, as [`open`] does; whether it is authentic.
#[must_use]
#[inline(never)]
pub fn open_one(mut packet: Packet<'_>) -> bool {
    open_any(&mut packet)
}

/// Seals a packet by whomever its key is for.
fn seal_any(packet: &mut Packet<'_>) {
    let key = packet.key;
    let (nonce, (aad, length)) = (packet.nonce(), packet.aad());
    let aad = &aad[..length];
    let sealed = packet.is_possible()
        && match key.form() {
            Form::Ring(key) => libraries::ring_seal(key, nonce, aad, packet.text),
            Form::AesGcm128(key) => libraries::aes_gcm_seal(key, nonce, aad, packet.text),
            Form::AesGcm256(key) => libraries::aes_gcm_seal(key, nonce, aad, packet.text),
            #[cfg(target_arch = "x86_64")]
            Form::Kernel(lines) => kernel_text(key, lines, false, kernel::Fixed::of(packet), packet.text),
        };
    if !sealed {
        packet.text.fill(0);
    }
}

/// Opens a packet by whomever its key is for.
fn open_any(packet: &mut Packet<'_>) -> bool {
    let key = packet.key;
    let (nonce, (aad, length)) = (packet.nonce(), packet.aad());
    let aad = &aad[..length];
    packet.is_possible()
        && match key.form() {
            Form::Ring(key) => libraries::ring_open(key, nonce, aad, packet.text),
            Form::AesGcm128(key) => libraries::aes_gcm_open(key, nonce, aad, packet.text),
            Form::AesGcm256(key) => libraries::aes_gcm_open(key, nonce, aad, packet.text),
            #[cfg(target_arch = "x86_64")]
            Form::Kernel(lines) => kernel_text(key, lines, true, kernel::Fixed::of(packet), packet.text),
        }
}

/// Seals or opens a text with a key for one of our kernels: true, or whether it is authentic. A text shorter than an ICV cannot be.
#[cfg(target_arch = "x86_64")]
fn kernel_text(key: &Key, lines: &kernel::Lines, open: bool, fixed: kernel::Fixed, text: &mut [u8]) -> bool {
    let (long, coming) = (key.length() == 32, &mut kernel::Coming::nothing());
    if text.len() < ICV {
        return false;
    }
    // SAFETY: the text is as long as an ICV at least, and a key for a provider is there only if the processor has its instructions.
    unsafe {
        match (key.provider(), open) {
            (Provider::Vaes512, true) => return kernel::bits512::open(lines, long, fixed, text, coming),
            (Provider::Vaes512, false) => kernel::bits512::seal(lines, long, fixed, text, coming),
            (Provider::Vaes256, true) => return kernel::bits256::open(lines, long, fixed, text, coming),
            (Provider::Vaes256, false) => kernel::bits256::seal(lines, long, fixed, text, coming),
            (_, true) => return kernel::bits128::open(lines, long, fixed, text, coming),
            (_, false) => kernel::bits128::seal(lines, long, fixed, text, coming),
        }
    }
    true
}
