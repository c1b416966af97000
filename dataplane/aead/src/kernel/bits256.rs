//! Two blocks to a vector: AVX2 with VAES and VPCLMULQDQ.
//!
//! A packet of up to sixteen blocks is one piece; a longer one begins with pieces of eight vectors and ends with what is left. While the
//! rounds of AES of one piece run, sealing hashes the piece before it and opening that piece itself: multiplier and AES units have work
//! at the same time.
//!
//! Of every function here that is unsafe the caller knows that the processor has the instructions ([`is_possible`]). Those that are always
//! inlined take the right to use them from the function that they end in.
#![allow(unsafe_op_in_unsafe_fn)] // It would be around every line.

use std::arch::x86_64::*;

use super::setup::POLYNOMIAL;
use super::{Ahead, Coming, Fixed, Lines, MASKS, Opened, POWERS, ROUNDS_128, ROUNDS_256, bursts, rolled};
use crate::key::Form;
use crate::packet::{AHEAD, Burst, ICV};

/// Vectors of a whole piece, and its bytes.
const WHOLE: usize = 8;
/// Its blocks.
const PIECE: usize = 2 * WHOLE;
const BYTES: usize = 32 * WHOLE;

/// Products that have been added up, not reduced yet: low halves, high halves, and Karatsuba's.
#[derive(Clone, Copy)]
struct Sum {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

/// A piece to hash while others are encrypted: where its blocks are, and its first vector, which is not as it stands there.
#[derive(Clone, Copy)]
struct Piece {
    at: *const u8,
    first: __m256i,
}

/// Whether the processor has the instructions.
pub(crate) fn is_possible() -> bool {
    let vectors = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vaes");
    let rest = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    let bits = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    vectors && is_x86_feature_detected!("vpclmulqdq") && rest && bits
}

bursts!("avx2,aes,pclmulqdq,vaes,vpclmulqdq,bmi1,bmi2");

/// Reverses the bytes of each block.
#[inline(always)]
unsafe fn reverse(blocks: __m256i) -> __m256i {
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    _mm256_shuffle_epi8(blocks, _mm256_broadcastsi128_si256(order))
}

/// Each half of a block added to the other.
#[inline(always)]
unsafe fn folded(blocks: __m256i) -> __m256i {
    _mm256_xor_si256(blocks, _mm256_shuffle_epi32::<0b01_00_11_10>(blocks))
}

impl Sum {
    #[inline(always)]
    unsafe fn zero() -> Self {
        let zero = _mm256_setzero_si256();
        Self { low: zero, middle: zero, high: zero }
    }

    /// Adds the products of two blocks and their powers. Opening takes four multiplications, which are done sooner than Karatsuba's three
    /// and the additions before them; sealing has its blocks later and one after the other, where fewer instructions are more.
    #[inline(always)]
    unsafe fn add<const OPEN: bool>(&mut self, blocks: __m256i, powers: __m256i) {
        if !OPEN {
            let sums = folded(powers);
            return self.add_folded::<0x00>(blocks, powers, sums);
        }
        let middle = _mm256_xor_si256(
            _mm256_clmulepi64_epi128::<0x01>(blocks, powers),
            _mm256_clmulepi64_epi128::<0x10>(blocks, powers),
        );
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128::<0x00>(blocks, powers));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128::<0x11>(blocks, powers));
        self.middle = _mm256_xor_si256(self.middle, middle);
    }

    /// The same with the powers' halves added up before, of which two vectors have theirs in one: HALVES is 0x00 for the first, 0x10 for
    /// the second.
    #[inline(always)]
    unsafe fn add_folded<const HALVES: i32>(&mut self, blocks: __m256i, powers: __m256i, sums: __m256i) {
        let middle = _mm256_clmulepi64_epi128::<HALVES>(folded(blocks), sums);
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128::<0x00>(blocks, powers));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128::<0x11>(blocks, powers));
        self.middle = _mm256_xor_si256(self.middle, middle);
    }

    /// As [`Sum::reduced`], of products that were not Karatsuba's.
    #[inline(always)]
    unsafe fn plainly_reduced(mut self) -> __m128i {
        self.middle = _mm256_xor_si256(self.middle, _mm256_xor_si256(self.low, self.high));
        self.reduced()
    }

    /// All of it as one block: in each lane the lower 128 bits go into the upper ones, 64 at a time, then the lanes are added.
    #[inline(always)]
    unsafe fn reduced(self) -> __m128i {
        let polynomial = _mm256_set1_epi64x(POLYNOMIAL as i64);
        let swapped = |half| _mm256_shuffle_epi32::<0b01_00_11_10>(half);
        let middle = _mm256_xor_si256(
            _mm256_xor_si256(self.middle, self.low),
            _mm256_xor_si256(self.high, swapped(self.low)),
        );
        let middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128::<0x01>(polynomial, self.low));
        let high = _mm256_xor_si256(self.high, swapped(middle));
        let high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128::<0x01>(polynomial, middle));
        _mm_xor_si128(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high))
    }
}

impl Lines {
    /// A round key, in both lanes.
    #[inline(always)]
    unsafe fn round_twice(&self, round: usize) -> __m256i {
        // SAFETY: a round key has 16 bytes, and any alignment will do.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(self.rounds.as_ptr().add(round).cast()) })
    }

    /// Two powers: of the block that has so many behind it, itself counted, and of the next.
    ///
    /// # Safety
    /// 2 to 16 are left.
    #[inline(always)]
    unsafe fn powers_of(&self, left: usize) -> __m256i {
        // SAFETY: so many powers are there behind that place.
        unsafe { _mm256_loadu_si256(self.powers.as_ptr().add(POWERS - left).cast()) }
    }

    /// Key stream of V vectors, the first block's counter given; on the way the products of a whole piece are added to a sum if there
    /// is one, its first vector last: that is what has to be waited for.
    ///
    /// # Safety
    /// The piece's 256 bytes can be read, but for its first vector.
    #[inline(always)]
    unsafe fn stream<const V: usize>(
        &self,
        rounds: usize,
        counter: __m128i,
        piece: Option<Piece>,
        sum: &mut Sum,
        coming: &mut Coming,
    ) -> [__m256i; V] {
        let mut blocks = self.counters::<V>(counter);
        let mut round = 1;
        if let Some(piece) = piece {
            // The second vector; pairs of them; the first one.
            self.round(&mut blocks, 1);
            coming.ask();
            sum.add_folded::<0x10>(piece.vector(1), self.powers_at(1), self.folded_at(1));
            let (mut at, end) = (2, rolled(WHOLE));
            while at != end {
                self.round(&mut blocks, at);
                coming.ask();
                sum.add_folded::<0x00>(piece.vector(at), self.powers_at(at), self.folded_at(at));
                self.round(&mut blocks, at + 1);
                sum.add_folded::<0x10>(piece.vector(at + 1), self.powers_at(at + 1), self.folded_at(at + 1));
                at += 2;
            }
            self.round(&mut blocks, WHOLE);
            sum.add_folded::<0x00>(piece.first, self.powers_at(0), self.folded_at(0));
            round = WHOLE + 1;
        }
        while round != rounds {
            self.round(&mut blocks, round);
            round += 1;
        }
        let key = self.round_twice(rounds);
        for block in &mut blocks {
            *block = _mm256_aesenclast_epi128(*block, key);
        }
        blocks
    }

    /// Counter blocks of V vectors, the first one's given with bytes reversed, with the first round key added.
    #[inline(always)]
    unsafe fn counters<const V: usize>(&self, counter: __m128i) -> [__m256i; V] {
        let mut blocks = [_mm256_setzero_si256(); V];
        let key = self.round_twice(0);
        let first = _mm256_broadcastsi128_si256(_mm_sub_epi32(counter, _mm_set_epi64x(0, 1)));
        // The counter before the first one ends with four zero bits: but for the sixteenth, what follows is added without a carry.
        let base = _mm256_xor_si256(reverse(first), key);
        for (block, at) in blocks.iter_mut().zip(0..) {
            *block = if at + 1 < WHOLE as i64 {
                _mm256_xor_si256(base, _mm256_set_epi64x((2 * at + 2) << 56, 0, (2 * at + 1) << 56, 0))
            } else {
                let last = _mm256_add_epi32(first, _mm256_set_epi64x(0, 16, 0, 15));
                _mm256_xor_si256(reverse(last), key)
            };
        }
        blocks
    }

    /// One round of AES.
    #[inline(always)]
    unsafe fn round<const V: usize>(&self, blocks: &mut [__m256i; V], round: usize) {
        let key = self.round_twice(round);
        for block in blocks {
            *block = _mm256_aesenc_epi128(*block, key);
        }
    }

    /// The powers of a whole piece's vector.
    #[inline(always)]
    unsafe fn powers_at(&self, vector: usize) -> __m256i {
        _mm256_loadu_si256(self.powers.as_ptr().add(2 * vector).cast())
    }

    /// The sums of their halves, two of four.
    #[inline(always)]
    unsafe fn folded_at(&self, vector: usize) -> __m256i {
        _mm256_loadu_si256(self.folded.as_ptr().add(vector / 2).cast())
    }
}

impl Piece {
    /// One of its vectors but the first. (That of a text's first piece begins before the text, with the AAD's block, which is nowhere.)
    #[inline(always)]
    unsafe fn vector(&self, at: usize) -> __m256i {
        reverse(_mm256_loadu_si256(self.at.wrapping_add(32 * at).cast()))
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
    _mm_xor_si128(_mm256_castsi256_si128(reverse(_mm256_castsi128_si256(hash))), hidden)
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

/// A packet of more than sixteen blocks.
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
    // SAFETY: of the first piece all but the AAD's block is text, or the last block of it; of each other one all 256 bytes are, since
    // more blocks than the lengths are left or those are alone, and then it may reach into the ICV's 16 bytes and no further.
    unsafe {
        if OPEN && bare {
            _mm_storeu_si128(end.cast(), _mm_setzero_si128());
        }
        let aad_and = |block: __m128i| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(fixed.aad), block);
        let first = |at: *const u8| {
            aad_and(_mm256_castsi256_si128(reverse(_mm256_castsi128_si256(_mm_loadu_si128(at.cast())))))
        };
        let mut piece = Piece { at: begin.wrapping_sub(16), first: first(begin) };
        let stream = lines.stream::<WHOLE>(rounds, place.counter, OPEN.then_some(piece), &mut sum, coming);
        let hidden = _mm256_castsi256_si128(stream[0]);
        let block = _mm_xor_si128(_mm_loadu_si128(begin.cast()), _mm256_extracti128_si256::<1>(stream[0]));
        _mm_storeu_si128(begin.cast(), block);
        apply(&stream, 1, begin.wrapping_sub(16));
        if !OPEN {
            piece.first = first(begin);
        }
        place = Place { text: begin.add(BYTES - 16), counter: next(place.counter), left, ..place };
        while place.left > PIECE {
            if OPEN {
                let hash = std::mem::replace(&mut sum, Sum::zero()).reduced();
                piece = Piece { at: place.text, first: with(hash, place.text) };
            }
            let stream = lines.stream::<WHOLE>(rounds, place.counter, Some(piece), &mut sum, coming);
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

/// The first vector of a piece, with what was hashed so far added.
///
/// # Safety
/// 32 bytes can be read there.
#[inline(always)]
unsafe fn with(hash: __m128i, at: *const u8) -> __m256i {
    // SAFETY: as asked of the caller.
    let there = unsafe { _mm256_loadu_si256(at.cast()) };
    _mm256_xor_si256(reverse(there), _mm256_zextsi128_si256(hash))
}

/// Encrypts or decrypts a whole piece from a vector on.
///
/// # Safety
/// The piece can be read and written from there on.
#[inline(always)]
unsafe fn apply(stream: &[__m256i; WHOLE], from: usize, at: *mut u8) {
    for (place, stream) in stream.iter().enumerate().skip(from) {
        // SAFETY: as asked of the caller.
        unsafe {
            let at: *mut __m256i = at.wrapping_add(32 * place).cast();
            _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), *stream));
        }
    }
}

/// The last piece, of 1 to 16 blocks (2 to 16 if it is the first as well), of which the last are the lengths.
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
        ($($blocks:literal $vectors:literal),*) => {
            match place.left {
                $($blocks => end::<OPEN, FIRST, $blocks, $vectors>(lines, rounds, fixed, place, hash, pending, coming),)*
                _ => end::<OPEN, FIRST, 16, 8>(lines, rounds, fixed, place, hash, pending, coming),
            }
        };
    }
    // SAFETY: as asked of the caller.
    unsafe { by_blocks!(1 0, 2 1, 3 1, 4 2, 5 2, 6 3, 7 3, 8 4, 9 4, 10 5, 11 5, 12 6, 13 6, 14 7, 15 7) }
}

/// [`end_of`] with the number of blocks known: N, of which V vectors have text or the AAD. The hash, and what hides the tag if it is the
/// first piece as well.
///
/// # Safety
/// As [`work`].
#[inline(always)]
unsafe fn end<const OPEN: bool, const FIRST: bool, const N: usize, const V: usize>(
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
        lines.stream::<V>(rounds, place.counter, if FIRST || OPEN { None } else { pending }, &mut sum, coming)
    };
    if !FIRST && !OPEN {
        coming.ask_all();
        hash = sum.reduced();
        sum = Sum::zero();
    }
    let text = if FIRST { place.text.wrapping_sub(16) } else { place.text };
    let keep_last = _mm256_inserti128_si256::<1>(_mm256_set1_epi64x(-1), place.mask);
    for (at, stream) in stream.iter().enumerate() {
        let there = text.wrapping_add(32 * at);
        // Which of the two blocks is the last with text.
        let (lower_is_last, upper_is_last) = (2 * at + 2 == N, 2 * at + 3 == N);
        // SAFETY: block N − 2 is the last of the text, which goes on for 16 bytes behind its end: 16 bytes are there from where any
        // block begins, 32 from where one before the last does. Before the text nothing is touched: the first piece's block 0 is the AAD.
        let blocks = unsafe {
            if lower_is_last && FIRST && at == 0 {
                _mm256_set_m128i(fixed.lengths, fixed.aad)
            } else if lower_is_last {
                let block = half::<OPEN>(there, _mm256_castsi256_si128(*stream), place.mask);
                _mm256_set_m128i(fixed.lengths, block)
            } else if FIRST && at == 0 {
                let mask = if upper_is_last { place.mask } else { _mm_set1_epi64x(-1) };
                let block =
                    half::<OPEN>(there.wrapping_add(16), _mm256_extracti128_si256::<1>(*stream), mask);
                _mm256_set_m128i(block, fixed.aad)
            } else {
                let keep = if upper_is_last { keep_last } else { _mm256_set1_epi64x(-1) };
                let before = _mm256_loadu_si256(there.cast());
                let after = _mm256_xor_si256(before, _mm256_and_si256(*stream, keep));
                _mm256_storeu_si256(there.cast(), after);
                reverse(_mm256_and_si256(if OPEN { before } else { after }, keep))
            }
        };
        let blocks = if at == 0 { _mm256_xor_si256(blocks, _mm256_zextsi128_si256(hash)) } else { blocks };
        // SAFETY: 2 to 16 blocks are left here.
        sum.add::<OPEN>(blocks, unsafe { lines.powers_of(N - 2 * at) });
    }
    if N % 2 == 1 {
        let lengths = if N == 1 { _mm_xor_si128(fixed.lengths, hash) } else { fixed.lengths };
        // SAFETY: the last power has 16 bytes.
        let power = unsafe { _mm_loadu_si128(lines.powers.as_ptr().add(POWERS - 1).cast()) };
        sum.add::<OPEN>(_mm256_zextsi128_si256(lengths), _mm256_zextsi128_si256(power));
    }
    let hidden = stream.first().map_or(_mm_setzero_si128(), |first| _mm256_castsi256_si128(*first));
    (if OPEN { sum.plainly_reduced() } else { sum.reduced() }, hidden)
}

/// Encrypts or decrypts one block, of which the mask's part is text; what is hashed of it, bytes reversed.
///
/// # Safety
/// 16 bytes can be read and written there.
#[inline(always)]
unsafe fn half<const OPEN: bool>(there: *mut u8, stream: __m128i, mask: __m128i) -> __m128i {
    // SAFETY: as asked of the caller.
    let (before, after) = unsafe {
        let before = _mm_loadu_si128(there.cast());
        let after = _mm_xor_si128(before, _mm_and_si128(stream, mask));
        _mm_storeu_si128(there.cast(), after);
        (before, after)
    };
    let hashed = _mm_and_si128(if OPEN { before } else { after }, mask);
    _mm256_castsi256_si128(reverse(_mm256_castsi128_si256(hashed)))
}
