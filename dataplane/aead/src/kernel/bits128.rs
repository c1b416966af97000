//! One block to a vector: AES-NI and PCLMULQDQ, in the forms of AVX. For processors without VAES: before Ice Lake, before Zen 3.
//!
//! Pieces of eight blocks, as [`super::bits256`] has them of eight vectors: of AES as many are under way as two units finish in four cycles
//! each, and with sums, keys and powers they are what sixteen registers hold. A block is a vector here, so that there are no halves to care for; what
//! is the same besides stands twice, for the compiler's order of instructions is what either is about.
//!
//! Of every function here that is unsafe the caller knows that the processor has the instructions ([`is_possible`]). Those that are always
//! inlined take the right to use them from the function that they end in.
#![allow(unsafe_op_in_unsafe_fn)] // It would be around every line.

use std::arch::x86_64::*;

use super::setup::POLYNOMIAL;
use super::{Ahead, Coming, Fixed, Lines, MASKS, Opened, POWERS, ROUNDS_128, ROUNDS_256, bursts, rolled};
use crate::key::Form;
use crate::packet::{AHEAD, Burst, ICV};

/// Blocks of a whole piece, and its bytes.
const PIECE: usize = 8;
const BYTES: usize = 16 * PIECE;

/// Products that have been added up, not reduced yet: low halves, high halves, and Karatsuba's.
#[derive(Clone, Copy)]
struct Sum {
    low: __m128i,
    middle: __m128i,
    high: __m128i,
}

/// A piece to hash while others are encrypted: where its blocks are, and its first one, which is not as it stands there.
#[derive(Clone, Copy)]
struct Piece {
    at: *const u8,
    first: __m128i,
}

/// Whether the processor has the instructions.
pub(crate) fn is_possible() -> bool {
    let vectors = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("aes");
    let bits = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    vectors && is_x86_feature_detected!("pclmulqdq") && bits
}

bursts!("avx2,aes,pclmulqdq,bmi1,bmi2");

/// Reverses the bytes of a block.
#[inline(always)]
unsafe fn reverse(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f))
}

/// Each half of a block added to the other.
#[inline(always)]
unsafe fn folded(block: __m128i) -> __m128i {
    _mm_xor_si128(block, _mm_shuffle_epi32::<0b01_00_11_10>(block))
}

impl Sum {
    #[inline(always)]
    unsafe fn zero() -> Self {
        let zero = _mm_setzero_si128();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds the product of a block and its power. `sums` has the power's halves added up, in its lower half if HALF is 0x00, in the upper
    /// one if it is 0x10.
    #[inline(always)]
    unsafe fn add<const HALF: i32>(&mut self, block: __m128i, power: __m128i, sums: __m128i) {
        self.middle = _mm_xor_si128(self.middle, _mm_clmulepi64_si128::<HALF>(folded(block), sums));
        self.low = _mm_xor_si128(self.low, _mm_clmulepi64_si128::<0x00>(block, power));
        self.high = _mm_xor_si128(self.high, _mm_clmulepi64_si128::<0x11>(block, power));
    }

    /// All of it as one block: the lower 128 bits go into the upper ones, 64 at a time.
    #[inline(always)]
    unsafe fn reduced(self) -> __m128i {
        let polynomial = _mm_set1_epi64x(POLYNOMIAL as i64);
        let swapped = |half| _mm_shuffle_epi32::<0b01_00_11_10>(half);
        let middle =
            _mm_xor_si128(_mm_xor_si128(self.middle, self.low), _mm_xor_si128(self.high, swapped(self.low)));
        let middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x01>(polynomial, self.low));
        let high = _mm_xor_si128(self.high, swapped(middle));
        _mm_xor_si128(high, _mm_clmulepi64_si128::<0x01>(polynomial, middle))
    }
}

impl Lines {
    #[inline(always)]
    unsafe fn round_key(&self, round: usize) -> __m128i {
        _mm_loadu_si128(self.rounds.as_ptr().add(round).cast())
    }

    /// The power of the block that has so many behind it, itself counted.
    ///
    /// # Safety
    /// 1 to 16 are left.
    #[inline(always)]
    unsafe fn power_of(&self, left: usize) -> __m128i {
        _mm_loadu_si128(self.powers.as_ptr().add(POWERS - left).cast())
    }

    /// The sums of the halves of two powers: of the block of a whole piece at an even place, or of that behind it, and of the one two behind
    /// that.
    #[inline(always)]
    unsafe fn folded_of(&self, at: usize) -> __m128i {
        let sums: *const __m128i = self.folded.as_ptr().add((POWERS - PIECE + at) / 4).cast();
        _mm_loadu_si128(sums.add(at % 2))
    }

    /// Key stream of B blocks, the first one's counter given; on the way the products of a whole piece are added to a sum if there is one, its
    /// first block last: that is what has to be waited for.
    ///
    /// # Safety
    /// The piece's 128 bytes can be read, but for its first block.
    #[inline(always)]
    unsafe fn key_stream<const B: usize>(
        &self,
        rounds: usize,
        counter: __m128i,
        piece: Option<Piece>,
        sum: &mut Sum,
        coming: &mut Coming,
    ) -> [__m128i; B] {
        let mut blocks = self.counter_blocks::<B>(counter);
        let mut round = 1;
        if let Some(piece) = piece {
            // A round of AES beside the products of a block.
            macro_rules! step {
                ($round:literal: $block:expr, $at:literal $half:literal) => {
                    self.one_round(&mut blocks, $round);
                    sum.add::<$half>($block, self.power_of(PIECE - $at), self.folded_of($at));
                    in_step(&mut blocks, sum);
                };
            }
            step!(1: piece.block(1), 1 0x00);
            step!(2: piece.block(2), 2 0x10);
            coming.ask();
            step!(3: piece.block(3), 3 0x10);
            step!(4: piece.block(4), 4 0x00);
            step!(5: piece.block(5), 5 0x00);
            coming.ask();
            step!(6: piece.block(6), 6 0x10);
            step!(7: piece.block(7), 7 0x10);
            step!(8: piece.first, 0 0x00);
            round = PIECE + 1;
        }
        while round != rounds {
            self.one_round(&mut blocks, round);
            round += 1;
        }
        let key = self.round_key(rounds);
        for block in &mut blocks {
            *block = _mm_aesenclast_si128(*block, key);
        }
        blocks
    }

    /// Counter blocks of B blocks, the first one's given with bytes reversed, with the first round key added.
    #[inline(always)]
    unsafe fn counter_blocks<const B: usize>(&self, counter: __m128i) -> [__m128i; B] {
        let mut blocks = [_mm_setzero_si128(); B];
        let key = self.round_key(0);
        let before = _mm_sub_epi32(counter, _mm_set_epi64x(0, 1));
        // The counter before the first one ends with three zero bits: but for the eighth, what follows is added without a carry.
        let base = _mm_xor_si128(reverse(before), key);
        for (block, at) in blocks.iter_mut().zip(1..) {
            *block = if at < PIECE as i64 {
                _mm_xor_si128(base, _mm_set_epi64x(at << 56, 0))
            } else {
                _mm_xor_si128(reverse(_mm_add_epi32(before, _mm_set_epi64x(0, at))), key)
            };
        }
        blocks
    }

    /// One round of AES.
    #[inline(always)]
    unsafe fn one_round<const B: usize>(&self, blocks: &mut [__m128i; B], round: usize) {
        let key = self.round_key(round);
        for block in blocks {
            *block = _mm_aesenc_si128(*block, key);
        }
    }
}

/// Has the compiler finish a round and a product before it begins the next: it would do all rounds first and all products then, which want the
/// same units for too long.
#[inline(always)]
unsafe fn in_step<const B: usize>(blocks: &mut [__m128i; B], sum: &mut Sum) {
    if cfg!(miri) {
        return; // It has no assembler.
    }
    for block in blocks {
        // No instruction.
        std::arch::asm!(
            "/* {0} {1} {2} {3} */",
            inout(xmm_reg) *block,
            inout(xmm_reg) sum.low,
            inout(xmm_reg) sum.middle,
            inout(xmm_reg) sum.high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

impl Piece {
    /// One of its blocks but the first. (That of a text's first piece begins before the text, with the AAD's block, which is nowhere.)
    #[inline(always)]
    unsafe fn block(&self, at: usize) -> __m128i {
        reverse(_mm_loadu_si128(self.at.wrapping_add(16 * at).cast()))
    }
}

/// Seals or opens a text of so many bytes; the tag. What is behind the text is overwritten in its 16 bytes.
///
/// # Safety
/// The text goes on for 16 bytes behind its length.
#[inline(always)]
unsafe fn work<const OPEN: bool>(
    lines: &Lines,
    long: bool,
    fixed: Fixed,
    text: *mut u8,
    length: usize,
    coming: &mut Coming,
) -> __m128i {
    let (blocks, rest) = ((length + 31) / 16 + 1, length.wrapping_neg() % 16);
    // SAFETY: the rest is below 16; the others as asked of the caller.
    let (hash, hidden) = unsafe {
        let mask = _mm_loadu_si128(MASKS.as_ptr().add(rest).cast());
        let place = Place { text, mask, counter: fixed.counter, left: blocks };
        let zero = _mm_setzero_si128();
        if blocks > PIECE {
            let rounds = rolled(if long { ROUNDS_256 } else { ROUNDS_128 });
            many::<OPEN>(lines, rounds, fixed, place, length, coming)
        } else if long {
            end_of::<OPEN, true>(lines, ROUNDS_256, fixed, place, zero, None, coming)
        } else {
            end_of::<OPEN, true>(lines, ROUNDS_128, fixed, place, zero, None, coming)
        }
    };
    _mm_xor_si128(reverse(hash), hidden)
}

/// How far the work on a packet is.
#[derive(Clone, Copy)]
struct Place {
    /// The bytes of the next piece's block 0; of the first piece those of block 1, since the AAD is not there.
    text: *mut u8,
    /// What of the last block is text.
    mask: __m128i,
    /// Of the next piece's block 0.
    counter: __m128i,
    /// Blocks from there on, the AAD's and that of the lengths among them.
    left: usize,
}

/// A packet of more than eight blocks.
///
/// # Safety
/// As [`work`].
#[inline(always)]
unsafe fn many<const OPEN: bool>(
    lines: &Lines,
    rounds: usize,
    fixed: Fixed,
    mut place: Place,
    length: usize,
    coming: &mut Coming,
) -> (__m128i, __m128i) {
    let next = |counter| _mm_add_epi32(counter, _mm_set_epi64x(0, PIECE as i64));
    let (begin, end) = (place.text, place.text.wrapping_add(length));
    let left = place.left - PIECE;
    let mut sum = Sum::zero();
    // Where lengths alone are left, the last block of text is in a whole piece, which is hashed as it stands: with zeros behind the text.
    let bare = left % PIECE == 1;
    // SAFETY: of the first piece all but the AAD's block is text, or the last block of it; of each other one all 128 bytes are, since
    // more blocks than the lengths are left or those are alone, and then it may reach into the ICV's 16 bytes and no further.
    unsafe {
        if OPEN && bare {
            _mm_storeu_si128(end.cast(), _mm_setzero_si128());
        }
        let mut piece = Piece { at: begin.wrapping_sub(16), first: fixed.aad };
        let stream =
            lines.key_stream::<PIECE>(rounds, place.counter, OPEN.then_some(piece), &mut sum, coming);
        let hidden = stream[0];
        apply(&stream, 1, begin.wrapping_sub(16));
        place = Place { text: begin.add(BYTES - 16), counter: next(place.counter), left, ..place };
        while place.left > PIECE {
            if OPEN {
                let hash = std::mem::replace(&mut sum, Sum::zero()).reduced();
                piece = Piece { at: place.text, first: with(hash, place.text) };
            }
            let stream = lines.key_stream::<PIECE>(rounds, place.counter, Some(piece), &mut sum, coming);
            apply(&stream, 0, place.text);
            if !OPEN {
                let hash = std::mem::replace(&mut sum, Sum::zero()).reduced();
                piece = Piece { at: place.text, first: with(hash, place.text) };
            }
            let left = place.left - PIECE;
            place = Place { text: place.text.add(BYTES), counter: next(place.counter), left, ..place };
        }
        if !OPEN && bare {
            _mm_storeu_si128(end.cast(), _mm_setzero_si128());
        }
        let (hash, pending) = if OPEN { (sum.reduced(), None) } else { (_mm_setzero_si128(), Some(piece)) };
        (end_of::<OPEN, false>(lines, rounds, fixed, place, hash, pending, coming).0, hidden)
    }
}

/// The first block of a piece, with what was hashed so far added.
///
/// # Safety
/// 16 bytes can be read there.
#[inline(always)]
unsafe fn with(hash: __m128i, at: *const u8) -> __m128i {
    // SAFETY: as asked of the caller.
    _mm_xor_si128(reverse(unsafe { _mm_loadu_si128(at.cast()) }), hash)
}

/// Encrypts or decrypts a whole piece from a block on.
///
/// # Safety
/// The piece can be read and written from there on.
#[inline(always)]
unsafe fn apply(stream: &[__m128i; PIECE], from: usize, at: *mut u8) {
    for (place, stream) in stream.iter().enumerate().skip(from) {
        // SAFETY: as asked of the caller.
        unsafe {
            let at: *mut __m128i = at.wrapping_add(16 * place).cast();
            _mm_storeu_si128(at, _mm_xor_si128(_mm_loadu_si128(at), *stream));
        }
    }
}

/// The last piece, of 1 to 8 blocks (2 to 8 if it is the first as well), of which the last are the lengths.
///
/// # Safety
/// As [`work`].
#[inline(always)]
unsafe fn end_of<const OPEN: bool, const FIRST: bool>(
    lines: &Lines,
    rounds: usize,
    fixed: Fixed,
    place: Place,
    hash: __m128i,
    pending: Option<Piece>,
    coming: &mut Coming,
) -> (__m128i, __m128i) {
    macro_rules! by_blocks {
        ($($blocks:literal $text:literal),*) => {
            match place.left {
                $($blocks => end::<OPEN, FIRST, $blocks, $text>(lines, rounds, fixed, place, hash, pending, coming),)*
                _ => end::<OPEN, FIRST, 8, 7>(lines, rounds, fixed, place, hash, pending, coming),
            }
        };
    }
    // SAFETY: as asked of the caller.
    unsafe { by_blocks!(1 0, 2 1, 3 2, 4 3, 5 4, 6 5, 7 6) }
}

/// [`end_of`] with the number of blocks known: N, of which the first B are text or the AAD. The hash, and what hides the tag if it is the first
/// piece as well.
///
/// # Safety
/// As [`work`].
#[inline(always)]
unsafe fn end<const OPEN: bool, const FIRST: bool, const N: usize, const B: usize>(
    lines: &Lines,
    rounds: usize,
    fixed: Fixed,
    place: Place,
    mut hash: __m128i,
    pending: Option<Piece>,
    coming: &mut Coming,
) -> (__m128i, __m128i) {
    let mut sum = Sum::zero();
    if FIRST || OPEN {
        coming.ask_all();
    }
    // SAFETY: of the piece before, and of this one's blocks below.
    let stream = unsafe {
        lines.key_stream::<B>(
            rounds,
            place.counter,
            if FIRST || OPEN { None } else { pending },
            &mut sum,
            coming,
        )
    };
    if !FIRST && !OPEN {
        coming.ask_all();
        hash = sum.reduced();
        sum = Sum::zero();
    }
    let text = if FIRST { place.text.wrapping_sub(16) } else { place.text };
    for (at, stream) in stream.iter().enumerate() {
        let mut block = fixed.aad;
        if !FIRST || at != 0 {
            let mask = if at + 1 == B { place.mask } else { _mm_set1_epi64x(-1) };
            // SAFETY: block B − 1 is the last of the text, which goes on for 16 bytes behind its end: 16 bytes are there from where any begins.
            block = unsafe { apply_one::<OPEN>(text.wrapping_add(16 * at), *stream, mask) };
        }
        if at == 0 {
            block = _mm_xor_si128(block, hash);
        }
        // SAFETY: 2 to 8 blocks are left here.
        let power = unsafe { lines.power_of(N - at) };
        sum.add::<0x00>(block, power, folded(power));
    }
    let lengths = if B == 0 { _mm_xor_si128(fixed.lengths, hash) } else { fixed.lengths };
    // SAFETY: one is left.
    let power = unsafe { lines.power_of(1) };
    sum.add::<0x00>(lengths, power, folded(power));
    (sum.reduced(), stream.first().copied().unwrap_or(_mm_setzero_si128()))
}

/// Encrypts or decrypts one block, of which the mask's part is text; what is hashed of it, bytes reversed.
///
/// # Safety
/// 16 bytes can be read and written there.
#[inline(always)]
unsafe fn apply_one<const OPEN: bool>(there: *mut u8, stream: __m128i, mask: __m128i) -> __m128i {
    // SAFETY: as asked of the caller.
    let (before, after) = unsafe {
        let before = _mm_loadu_si128(there.cast());
        let after = _mm_xor_si128(before, _mm_and_si128(stream, mask));
        _mm_storeu_si128(there.cast(), after);
        (before, after)
    };
    reverse(_mm_and_si128(if OPEN { before } else { after }, mask))
}
