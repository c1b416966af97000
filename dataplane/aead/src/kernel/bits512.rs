//! Four blocks to a vector: AVX-512 with VAES and VPCLMULQDQ.
//!
//! Pieces of four vectors, as [`super::bits256`] has them of eight. Masks leave out what is not text: they read and write nothing there,
//! so that the last piece, and a partial block in any, want no care.
//!
//! Of every function here that is unsafe the caller knows that the processor has the instructions ([`is_possible`]). Those that are always
//! inlined take the right to use them from the function that they end in.
#![allow(unsafe_op_in_unsafe_fn)] // It would be around every line.

use std::arch::x86_64::*;
use std::mem::offset_of;

use super::setup::POLYNOMIAL;
use super::{Ahead, Coming, Fixed, Lines, POWERS, ROUNDS_128, ROUNDS_256};
use crate::key::Form;
use crate::packet::{AHEAD, Burst, ICV};

/// Vectors of a whole piece.
const WHOLE: usize = 4;

/// Products that have been added up, not reduced yet: low halves, the two mixed ones, high halves.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

/// Whether the processor has the instructions, and the system keeps its registers.
pub(crate) fn is_possible() -> bool {
    let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    let shorter = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq");
    let both = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
    vectors && shorter && both && is_x86_feature_detected!("bmi2") && super::bits256::is_possible()
}

/// Encrypts the text and writes the ICV.
///
/// # Safety
/// The text has room for the ICV.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,aes,pclmulqdq,vaes,vpclmulqdq,bmi1,bmi2")]
pub(crate) unsafe fn seal(lines: &Lines, long: bool, fixed: Fixed, text: &mut [u8], coming: &mut Coming) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,aes,pclmulqdq,vaes,vpclmulqdq,bmi1,bmi2")]
pub(crate) unsafe fn open(
    lines: &Lines,
    long: bool,
    fixed: Fixed,
    text: &mut [u8],
    coming: &mut Coming,
) -> bool {
    let (length, text) = (text.len() - ICV, text.as_mut_ptr());
    // SAFETY: the text goes on for 16 bytes behind the length.
    let differs = unsafe {
        let tag = work::<true>(lines, long, fixed, text, length, coming);
        _mm_xor_si128(_mm_loadu_si128(text.add(length).cast()), tag)
    };
    _mm_testz_si128(differs, differs) == 1
}

/// [`crate::seal`] with keys for this kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,aes,pclmulqdq,vaes,vpclmulqdq,bmi1,bmi2")]
pub(crate) fn seal_burst<B: Burst>(burst: &mut B) {
    let mut ahead = Ahead::<POWERS>::of(burst);
    for at in 0..burst.len() {
        let mut coming = ahead.ask(burst, at + AHEAD);
        let Some(packet) = burst.packet(at) else { continue };
        let key = packet.key;
        ahead.long = key.length() == 32;
        match key.form() {
            // SAFETY: the text is as long as an ICV at least.
            Form::Kernel(lines) if packet.is_possible() => unsafe {
                seal(lines, ahead.long, Fixed::of(&packet), packet.text, &mut coming)
            },
            _ => crate::seal_one(packet),
        }
        burst.sealed(at);
    }
}

/// [`crate::open`] with keys for this kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,aes,pclmulqdq,vaes,vpclmulqdq,bmi1,bmi2")]
pub(crate) fn open_burst<B: Burst>(burst: &mut B) {
    let mut ahead = Ahead::<POWERS>::of(burst);
    for at in 0..burst.len() {
        let mut coming = ahead.ask(burst, at + AHEAD);
        let Some(packet) = burst.packet(at) else { continue };
        let key = packet.key;
        ahead.long = key.length() == 32;
        let authentic = match key.form() {
            // SAFETY: the text ends with an ICV.
            Form::Kernel(lines) if packet.is_possible() => unsafe {
                open(lines, ahead.long, Fixed::of(&packet), packet.text, &mut coming)
            },
            _ => crate::open_one(packet),
        };
        burst.opened(at, authentic);
    }
}

/// Reverses the bytes of each block.
#[inline(always)]
unsafe fn reverse(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

/// A sum of three; the compiler has one instruction for it.
#[inline(always)]
unsafe fn added(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_xor_si512(_mm512_xor_si512(a, b), c)
}

impl Sum {
    #[inline(always)]
    unsafe fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds the products of four blocks and their powers.
    #[inline(always)]
    unsafe fn add(&mut self, blocks: __m512i, powers: __m512i) {
        let mixed = _mm512_clmulepi64_epi128::<0x01>(blocks, powers);
        let other = _mm512_clmulepi64_epi128::<0x10>(blocks, powers);
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(blocks, powers));
        self.middle = added(self.middle, mixed, other);
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(blocks, powers));
    }

    /// All of it as one block: in each lane the lower 128 bits go into the upper ones, 64 at a time, then the lanes are added.
    #[inline(always)]
    unsafe fn reduced(self) -> __m128i {
        let polynomial = _mm512_set1_epi64(POLYNOMIAL as i64);
        let (low, middle) = (self.low, self.middle);
        let product = _mm512_clmulepi64_epi128::<0x01>(polynomial, low);
        let middle = added(middle, product, _mm512_shuffle_epi32::<0b01_00_11_10>(low));
        let product = _mm512_clmulepi64_epi128::<0x01>(polynomial, middle);
        let high = added(self.high, product, _mm512_shuffle_epi32::<0b01_00_11_10>(middle));
        let half = _mm256_xor_si256(_mm512_castsi512_si256(high), _mm512_extracti64x4_epi64::<1>(high));
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
    }
}

impl Lines {
    /// A round key, in all lanes.
    #[inline(always)]
    unsafe fn round_in_all(&self, round: usize) -> __m512i {
        _mm512_broadcast_i32x4(_mm_loadu_si128(self.rounds.as_ptr().add(round).cast()))
    }

    /// Key stream of V vectors, the first block's counter given, bytes reversed.
    #[inline(always)]
    unsafe fn stream_of<const V: usize>(&self, rounds: usize, counter: __m128i) -> [__m512i; V] {
        let mut blocks = [_mm512_setzero_si512(); V];
        let first = _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0);
        let mut counters = _mm512_add_epi32(_mm512_broadcast_i32x4(counter), first);
        let key = self.round_in_all(0);
        for block in &mut blocks {
            *block = _mm512_xor_si512(reverse(counters), key);
            counters = _mm512_add_epi32(counters, _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4));
        }
        for round in 1..rounds {
            let key = self.round_in_all(round);
            for block in &mut blocks {
                *block = _mm512_aesenc_epi128(*block, key);
            }
        }
        let key = self.round_in_all(rounds);
        for block in &mut blocks {
            *block = _mm512_aesenclast_epi128(*block, key);
        }
        blocks
    }
}

/// How far the work on a packet is.
#[derive(Clone, Copy)]
struct Place {
    /// Where the next piece's block 0 is, or would be: that of the first piece is the AAD.
    at: *mut u8,
    /// Bytes of text from there on; before the first piece with the 16 that are not there.
    text: usize,
    /// Of the next piece's block 0, bytes reversed.
    counter: __m128i,
    /// What was hashed before.
    hash: __m128i,
}

/// Seals or opens a text of so many bytes; the tag.
///
/// # Safety
/// The text is there.
#[inline(always)]
unsafe fn work<const OPEN: bool>(
    lines: &Lines,
    long: bool,
    fixed: Fixed,
    text: *mut u8,
    length: usize,
    coming: &mut Coming,
) -> __m128i {
    let rounds = if long { ROUNDS_256 } else { ROUNDS_128 };
    let mut left = length.div_ceil(16) + 2;
    let (at, zero) = (text.wrapping_sub(16), _mm_setzero_si128());
    let mut place = Place { at, text: length + 16, counter: fixed.counter, hash: zero };
    let (hash, hidden) = if left <= POWERS {
        end_of::<OPEN, true>(lines, rounds, fixed, place, left, coming)
    } else {
        let (hash, hidden) = piece::<OPEN, true, false, WHOLE>(lines, rounds, fixed, place, POWERS, coming);
        place = place.behind(hash);
        left -= POWERS;
        while left > POWERS {
            let (hash, _) = piece::<OPEN, false, false, WHOLE>(lines, rounds, fixed, place, POWERS, coming);
            place = place.behind(hash);
            left -= POWERS;
        }
        (end_of::<OPEN, false>(lines, rounds, fixed, place, left, coming).0, hidden)
    };
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    _mm_xor_si128(_mm_shuffle_epi8(hash, order), hidden)
}

impl Place {
    /// Behind a whole piece.
    #[inline(always)]
    unsafe fn behind(self, hash: __m128i) -> Self {
        Self {
            at: self.at.wrapping_add(16 * POWERS),
            text: self.text.saturating_sub(16 * POWERS),
            counter: _mm_add_epi32(self.counter, _mm_set_epi64x(0, POWERS as i64)),
            hash,
        }
    }
}

/// The last piece, of 1 to 16 blocks, of which the last are the lengths.
///
/// # Safety
/// As [`work`].
#[inline(always)]
unsafe fn end_of<const OPEN: bool, const FIRST: bool>(
    lines: &Lines,
    rounds: usize,
    fixed: Fixed,
    place: Place,
    blocks: usize,
    coming: &mut Coming,
) -> (__m128i, __m128i) {
    match blocks.div_ceil(4) {
        1 => piece::<OPEN, FIRST, true, 1>(lines, rounds, fixed, place, blocks, coming),
        2 => piece::<OPEN, FIRST, true, 2>(lines, rounds, fixed, place, blocks, coming),
        3 => piece::<OPEN, FIRST, true, 3>(lines, rounds, fixed, place, blocks, coming),
        _ => piece::<OPEN, FIRST, true, WHOLE>(lines, rounds, fixed, place, blocks, coming),
    }
}

/// A piece of V vectors and so many blocks; the hash with it, and its first block of key stream.
///
/// # Safety
/// As [`work`]. Not more blocks than V vectors have, nor than sixteen.
#[inline(always)]
unsafe fn piece<const OPEN: bool, const FIRST: bool, const LAST: bool, const V: usize>(
    lines: &Lines,
    rounds: usize,
    fixed: Fixed,
    place: Place,
    blocks: usize,
    coming: &mut Coming,
) -> (__m128i, __m128i) {
    if LAST {
        coming.ask_all();
    } else {
        (0..4).for_each(|_| coming.ask());
    }
    let stream = lines.stream_of::<V>(rounds, place.counter);
    let mut sum = Sum::zero();
    // The lane of the lengths, as a mask of 32-bit parts.
    let lengths = if LAST { 0xf_u64 << (4 * (blocks - 1)) } else { 0 };
    for (vector, stream) in stream.iter().enumerate() {
        let there = place.at.wrapping_add(64 * vector);
        let text = place.text.saturating_sub(64 * vector);
        let mut mask = if text >= 64 { !0 } else { _bzhi_u64(!0, text as u32) };
        if FIRST && vector == 0 {
            mask &= !0xffff;
        }
        // SAFETY: what the mask leaves is text.
        let (before, after) = unsafe {
            let before = _mm512_maskz_loadu_epi8(mask, there.cast());
            let after = _mm512_xor_si512(before, *stream);
            _mm512_mask_storeu_epi8(there.cast(), mask, after);
            (before, after)
        };
        let mut hashed = reverse(if OPEN { before } else { _mm512_maskz_mov_epi8(mask, after) });
        if FIRST && vector == 0 {
            hashed = _mm512_or_si512(hashed, _mm512_zextsi128_si512(fixed.aad));
        }
        if LAST {
            hashed = _mm512_mask_broadcast_i32x4(hashed, (lengths >> (16 * vector)) as u16, fixed.lengths);
        }
        if vector == 0 {
            hashed = _mm512_xor_si512(hashed, _mm512_zextsi128_si512(place.hash));
        }
        // SAFETY: of the powers those of the piece's blocks, and in its last vector up to 48 bytes of what is behind them in the key,
        // which are multiplied by zeros.
        let powers = unsafe {
            let first = std::ptr::from_ref(lines).cast::<u8>().add(offset_of!(Lines, powers));
            _mm512_loadu_si512(first.add(16 * (POWERS - blocks + 4 * vector)).cast())
        };
        sum.add(hashed, powers);
    }
    (sum.reduced(), _mm512_castsi512_si128(stream[0]))
}
