//! The kernels of this crate: AES-GCM with the processor's instructions for AES and carry-less products, in vectors of 128, 256 and 512 bits,
//! for packets as ESP has them.
//!
//! All authenticate one stream of n blocks (SP 800-38D §6.4; all of them fit since AAD is at most 12 bytes and J0 is IV ‖ 1, §7.1):
//!
//! ```text
//!   block     0      1    2   …   n−2    n−1
//!   hashed    AAD    C1   C2  …   Cm     lengths      times H^n … H^1, added up
//!   counter   1 (J0) 2    3   …   n−1
//! ```
//!
//! So the counter of a block is its place plus one, the block that hides the tag comes out of the lane where the AAD is, and AAD and
//! lengths cost no multiplication of their own. Sixteen powers of H lie in the key: a packet of up to sixteen blocks is reduced once,
//! a longer one once for each sixteen; in 128 bits eight in place of sixteen.
//!
//! The hash is kept with its bytes reversed, and H times x: then a carry-less product wants no shift (Gueron and Kounavis, "Intel
//! carry-less multiplication instruction and its usage for computing the GCM mode", 2010). A product is Karatsuba's: three
//! multiplications of 64 bits instead of four.
//!
//! Nothing is read or written outside the text. Its last block may be partial; then the ICV's room behind it is in the same 16 bytes.

pub(crate) mod bits128;
pub(crate) mod bits256;
pub(crate) mod bits512;
mod setup;

use std::arch::x86_64::*;

use crate::packet::{AHEAD, Burst, ICV, Packet, Soon};

/// What the kernels want of a key. It lies 16 bytes behind the beginning of a line ([`Key`](crate::Key)): three lines have all round keys
/// of a key of 128 bits, four those of one of 256, the powers are the next four; what texts of more
/// than one piece want of them besides are the last two, of pieces of eight blocks the last one.
#[derive(Clone)]
#[repr(C, align(16))]
pub(crate) struct Lines {
    /// Round keys: 11, or all 15.
    rounds: [[u8; 16]; 15],
    /// H^16 to H^1, times x, bytes reversed.
    powers: [[u8; 16]; POWERS],
    /// Of each power the sum of its halves, for Karatsuba's product: four in each 32 bytes, the first, third, second and fourth.
    folded: [[u64; 4]; POWERS / 4],
}

/// Powers of H in a key.
const POWERS: usize = 16;
/// Rounds of AES with keys of 128 and of 256 bits.
const ROUNDS_128: usize = 10;
const ROUNDS_256: usize = 14;

/// Bytes of a line.
const LINE: usize = 64;

/// What is asked of memory for the packets that come, by a kernel whose pieces have so many blocks. Of the keys of one burst the most are of one
/// length: whether a packet that comes has the long form is taken from the one before.
#[derive(Clone, Copy)]
struct Ahead<const PIECE: usize> {
    long: bool,
}

/// What of a text whose turn comes soon is still to be asked of memory. Each text lies on pages of its own, where the processor does not
/// see it coming, and is more lines than can be on their way at a time: they are asked for one by one while another text is worked on.
pub(crate) struct Coming {
    next: *const u8,
    /// In the last line.
    last: *const u8,
}

impl<const PIECE: usize> Ahead<PIECE> {
    /// At the beginning of a burst: asks for the keys and texts of its first packets.
    #[inline(always)]
    fn of<B: Burst>(burst: &mut B) -> Self {
        let ahead = Self { long: false };
        (0..AHEAD).for_each(|at| ahead.ask(burst, at).ask_all());
        ahead
    }

    /// Asks for the lines of a packet's key that its text will want; the text itself is left to be asked for.
    #[inline(always)]
    fn ask<B: Burst>(self, burst: &mut B, at: usize) -> Coming {
        let Some(Soon { key, text, length }) = burst.ahead(at) else { return Coming::nothing() };
        let key: *const u8 = key.cast();
        let line = |at: usize| ask(key.wrapping_add(LINE * at));
        line(0);
        line(1);
        line(2);
        // Powers from the last line on that has any, four in each; as many as a piece has blocks, and sums of halves of as many.
        let blocks = length.saturating_sub(ICV).div_ceil(16) + 2;
        line(7);
        if blocks > 4 {
            line(6);
        }
        if PIECE > 8 && blocks > 8 {
            line(5);
        }
        if PIECE > 8 && blocks > 12 {
            line(4);
        }
        if blocks > PIECE {
            line(9);
            if PIECE > 8 {
                line(8);
            }
        }
        if self.long {
            line(3);
        }
        Coming { next: text, last: text.wrapping_add(length).wrapping_sub(1) }
    }
}

impl Coming {
    pub(crate) const fn nothing() -> Self {
        Self { next: std::ptr::null(), last: std::ptr::null() }
    }

    /// Asks for the next line; when there is none for the last one again, which costs nothing.
    #[inline(always)]
    fn ask(&mut self) {
        ask(self.next);
        let next = self.next.wrapping_add(LINE);
        self.next = if next < self.last { next } else { self.last };
    }

    /// Asks for all that are left.
    #[inline(always)]
    fn ask_all(&mut self) {
        while self.next < self.last {
            self.ask();
        }
        self.ask();
    }
}

/// Asks for the line that an address is in.
#[inline(always)]
fn ask(address: *const u8) {
    // SAFETY: a prefetch is a hint that neither faults nor changes memory, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// A number of turns that the compiler does not know: it would unroll the loop, and then do one thing after the other where they are
/// meant to go side by side.
#[inline(always)]
fn rolled(turns: usize) -> usize {
    let mut hidden = turns;
    if cfg!(miri) {
        return turns; // It has no assembler.
    }
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) hidden, options(pure, nomem, nostack, preserves_flags))
    };
    hidden
}

/// What a kernel of a width does with a packet and with a burst, by the function `work` of the module that says this; `$features` are the
/// instructions that all of them may use.
macro_rules! bursts {
    ($features:literal) => {
        /// Encrypts the text and writes the ICV.
        ///
        /// # Safety
        /// The text has room for the ICV.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn seal(
            lines: &Lines,
            long: bool,
            fixed: Fixed,
            text: &mut [u8],
            coming: &mut Coming,
        ) {
            // SAFETY: as asked of the caller.
            unsafe { seal_here(lines, long, fixed, text, coming) }
        }

        /// [`seal`] as a part of its caller.
        ///
        /// # Safety
        /// As of [`seal`].
        #[inline(always)]
        unsafe fn seal_here(lines: &Lines, long: bool, fixed: Fixed, text: &mut [u8], coming: &mut Coming) {
            let (length, text) = (text.len() - ICV, text.as_mut_ptr());
            // SAFETY: the text goes on for 16 bytes behind the length.
            unsafe {
                let tag = work::<false>(lines, long, fixed, text, length, coming);
                _mm_storeu_si128(text.add(length).cast(), tag);
            }
        }

        /// Decrypts the text; whether the ICV is right. Compared in the same time wherever it differs.
        ///
        /// # Safety
        /// The text ends with the ICV.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn open(
            lines: &Lines,
            long: bool,
            fixed: Fixed,
            text: &mut [u8],
            coming: &mut Coming,
        ) -> bool {
            // SAFETY: as asked of the caller.
            unsafe { open_here(lines, long, fixed, text, coming) }
        }

        /// [`open`] as a part of its caller.
        ///
        /// # Safety
        /// As of [`open`].
        #[inline(always)]
        unsafe fn open_here(
            lines: &Lines,
            long: bool,
            fixed: Fixed,
            text: &mut [u8],
            coming: &mut Coming,
        ) -> bool {
            let (length, text) = (text.len() - ICV, text.as_mut_ptr());
            // SAFETY: the text goes on for 16 bytes behind the length.
            let differs = unsafe {
                let icv = _mm_loadu_si128(text.add(length).cast());
                let tag = work::<true>(lines, long, fixed, text, length, coming);
                _mm_storeu_si128(text.add(length).cast(), icv);
                _mm_xor_si128(icv, tag)
            };
            _mm_testz_si128(differs, differs) == 1
        }

        /// [`crate::seal`] with keys for this kernel.
        #[target_feature(enable = $features)]
        pub(crate) fn seal_burst<B: Burst>(burst: &mut B) {
            let mut ahead = Ahead::<PIECE>::of(burst);
            for at in 0..burst.len() {
                let mut coming = ahead.ask(burst, at + AHEAD);
                let Some(packet) = burst.packet(at) else { continue };
                let key = packet.key;
                ahead.long = key.length() == 32;
                match key.form() {
                    // SAFETY: the text is as long as an ICV at least.
                    Form::Kernel(lines) if packet.is_possible() => unsafe {
                        seal_here(lines, ahead.long, Fixed::of(&packet), packet.text, &mut coming)
                    },
                    _ => crate::seal_one(packet),
                }
                burst.sealed(at);
            }
        }

        /// [`crate::open`] with keys for this kernel.
        ///
        /// A packet is told of when the one behind it has been opened, too: what the caller does with it then need not wait for the end of
        /// its own cipher, and is done while that of the next one goes on.
        #[target_feature(enable = $features)]
        pub(crate) fn open_burst<B: Burst>(burst: &mut B) {
            let mut ahead = Ahead::<PIECE>::of(burst);
            // Of the place before.
            let mut before = Opened::Nothing;
            let (len, mut at) = (burst.len(), 0);
            loop {
                let mut now = Opened::Nothing;
                if at < len {
                    let mut coming = ahead.ask(burst, at + AHEAD);
                    if let Some(packet) = burst.packet(at) {
                        let key = packet.key;
                        ahead.long = key.length() == 32;
                        let authentic = match key.form() {
                            // SAFETY: the text ends with an ICV.
                            Form::Kernel(lines) if packet.is_possible() => unsafe {
                                open_here(lines, ahead.long, Fixed::of(&packet), packet.text, &mut coming)
                            },
                            _ => crate::open_one(packet),
                        };
                        now = if authentic { Opened::Authentic } else { Opened::Forged };
                    }
                }
                if before != Opened::Nothing {
                    burst.opened(at - 1, before == Opened::Authentic);
                }
                if at == len {
                    return;
                }
                before = now;
                at += 1;
            }
        }
    };
}
use bursts;

/// What was in a place of a burst.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Nothing,
    Forged,
    Authentic,
}

/// Masks for the last block of a text: from 16 − n on, the first n bytes are kept.
static MASKS: [u8; 32] = {
    let mut masks = [0; 32];
    let mut at = 0;
    while at < 16 {
        masks[at] = 0xff;
        at += 1;
    }
    masks
};

/// What is the same for every block of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Fixed {
    /// Blocks 0 and n − 1: AAD, lengths; bytes reversed.
    aad: __m128i,
    lengths: __m128i,
    /// IV and counter of block 0, bytes reversed.
    counter: __m128i,
}

impl Fixed {
    /// RFC 4106 §4 and §5, read as numbers of 128 bits: SPI and sequence number, with ESN both halves of it; salt, IV and 1.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        let text = packet.text.len() - ICV;
        let (sequence, bits) = if packet.esn { (packet.sequence, 96) } else { (packet.sequence << 32, 64) };
        let salt = u32::from_be_bytes(packet.salt);
        // SAFETY: whoever has a key for a kernel has its instructions.
        unsafe {
            let behind = |first: u32, rest: u64| {
                _mm_insert_epi32::<3>(_mm_slli_si128::<4>(_mm_cvtsi64_si128(rest as i64)), first as i32)
            };
            Self {
                aad: behind(packet.spi, sequence),
                lengths: _mm_insert_epi32::<2>(_mm_cvtsi64_si128(8 * text as i64), bits),
                counter: _mm_or_si128(behind(salt, packet.iv), _mm_set_epi64x(0, 1)),
            }
        }
    }
}

/// A number of 128 bits, from its halves.
#[cfg(test)]
fn number(high: u64, low: u64) -> __m128i {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { _mm_set_epi64x(high as i64, low as i64) }
}

#[cfg(test)]
impl Fixed {
    /// Of any nonce of 96 bits and AAD of one block at most, as test vectors have them.
    pub(crate) fn general(nonce: [u8; 12], aad: &[u8], text: usize) -> Self {
        let block = |bytes: &[u8]| {
            let mut block = [0; 16];
            block[..bytes.len()].copy_from_slice(bytes);
            u128::from_be_bytes(block)
        };
        let halves = |block: u128| number((block >> 64) as u64, block as u64);
        let counter = halves(block(&nonce) | 1);
        Self { aad: halves(block(aad)), lengths: number(8 * aad.len() as u64, 8 * text as u64), counter }
    }
}
