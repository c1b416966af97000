//! What a provider has to find before it is used: known answers for every length of text up to 600 bytes and some longer ones, with
//! both lengths of key, with and without ESN, at every alignment; and that nothing opens that was changed.

use crate::packet::{ICV, Packet};
use crate::{Key, Provider, open_any, seal_any};

/// Lengths of text in bytes: all up to here, and these.
const EVERY: usize = 600;
const LONGER: [usize; 7] = [1023, 1024, 1400, 1500, 2048, 4097, 9000];

/// FNV-1a over all ciphertexts and ICVs, made with OpenSSL: with keys of 16 and of 32 bytes.
const ANSWERS: [(usize, u64); 2] = [(16, 0x22f0_63d7_7289_ed36), (32, 0xb4ef_27b2_bfc3_7b09)];

/// Whether a provider finds the answers. The processor has to have its instructions.
pub(crate) fn passes(provider: Provider) -> bool {
    ANSWERS.into_iter().all(|(length, answer)| digest(provider, length) == Some(answer))
}

/// The digest of what a provider makes; none if it does not open that again, or opens it changed.
fn digest(provider: Provider, length: usize) -> Option<u64> {
    let mut key = [0; 32];
    key.iter_mut().zip(0..).for_each(|(byte, i)| *byte = (7 * i + length) as u8);
    let key = Key::untested(provider, key.get(..length)?).ok()?;
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    // Room to begin at any place of a line.
    let mut buffer = [0; 64 + 9000 + ICV];
    for (at, size) in (0..=EVERY).chain(LONGER).enumerate() {
        let buffer = buffer.get_mut(at % 64..at % 64 + size + ICV)?;
        let plain = |i: usize| (31 * i + size) as u8;
        buffer.iter_mut().zip(0..).for_each(|(byte, i)| *byte = plain(i));
        let number = size as u64;
        let mut packet = Packet {
            key: &key,
            salt: [number as u8, 0x5a, length as u8, 0xa5],
            iv: number.wrapping_mul(0x0123_4567_89ab_cdef),
            sequence: (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            spi: 0xdead_0000 + number as u32,
            esn: at % 2 == 1,
            text: buffer,
        };
        seal_any(&mut packet);
        for byte in &*packet.text {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if !open_any(&mut packet) || !packet.text.iter().take(size).zip(0..).all(|(b, i)| *b == plain(i)) {
            return None;
        }
        // Changed by one bit, here and there; what was opened is sealed again first.
        seal_any(&mut packet);
        let place = at * 7 % packet.text.len();
        *packet.text.get_mut(place)? ^= 1 << (at % 8);
        if open_any(&mut packet) {
            return None;
        }
    }
    Some(digest)
}
