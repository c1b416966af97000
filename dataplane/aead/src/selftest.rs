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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Burst, Soon};

    fn of<'a>(key: &'a Key, length: usize, text: &'a mut [u8]) -> Packet<'a> {
        let (iv, sequence, esn) = (!(length as u64), 0x0102_0304_0506_0708, length.is_multiple_of(2));
        Packet { key, salt: [1, 2, 3, 4], iv, sequence, spi: 0xcafe_0000, esn, text }
    }

    /// Input: texts of lengths around everything that the kernels do at some length, each in memory of exactly its size, sealed by our
    /// kernels as far as the processor (or an interpreter that stands for one) has their instructions. Output: the bytes that `aes-gcm`
    /// makes; opened they are as before, and not if a bit of them is another. Under Miri (`make miri`) that is also: not a byte beside
    /// the text is touched, and nothing is done that the language does not define.
    #[test]
    fn kernels_agree_with_the_portable_provider_byte_by_byte() {
        let kernels = [Provider::Vaes512, Provider::Vaes256, Provider::Aesni]
            .into_iter()
            .filter(|kernel| kernel.is_possible());
        let lengths =
            (0..=50).chain([63, 64, 65, 79, 80, 95, 96, 97, 111, 112, 127, 128, 129, 143, 144, 159, 160]);
        let lengths =
            lengths.chain([175, 176, 191, 192, 207, 208]).chain(222..=242).chain([255, 256, 257, 272]);
        let longer =
            [287, 289, 304, 320, 336, 353, 369, 385, 401, 417, 433, 449, 465, 479, 480, 481, 495, 496, 497];
        let longest = [735, 736, 737, 1400, 4063, 4064, 4065, 4080, 4081, 4097];
        // An interpreter has patience for few long ones: behind 4,064 bytes the lowest byte of the counter wraps.
        let is_patient =
            |bytes, length| !cfg!(miri) || length < 500 || bytes == 16 && [736, 1400, 4081].contains(&length);
        let lengths = lengths.chain(longer).chain(longest);
        for bytes in [16, 32] {
            let key = |provider| Key::untested(provider, &[0x3c; 32][..bytes]).unwrap();
            let (portable, ours) = (key(Provider::AesGcm), kernels.clone().map(key).collect::<Vec<_>>());
            for length in lengths.clone().filter(|length| is_patient(bytes, *length)) {
                let plain: Vec<u8> = (0..length).map(|i| (i * 5 + 1) as u8).collect();
                let empty = [&plain[..], &[7; ICV]].concat();
                let mut wanted = empty.clone();
                seal_any(&mut of(&portable, length, &mut wanted));
                for key in &ours {
                    let (kernel, mut made, mut changed) = (key.provider(), empty.clone(), wanted.clone());
                    seal_any(&mut of(key, length, &mut made));
                    assert_eq!(made, wanted, "{kernel} {bytes} {length}");
                    assert!(open_any(&mut of(key, length, &mut made)), "{kernel} {bytes} {length}");
                    assert_eq!(made, [&plain[..], &wanted[length..]].concat(), "{kernel} {bytes} {length}");
                    let bit = length * 29 % (8 * changed.len());
                    changed[bit / 8] ^= 1 << (bit % 8);
                    assert!(!open_any(&mut of(key, length, &mut changed)), "{kernel} {bytes} {length}");
                }
            }
        }
    }

    /// Texts under one key, and what was said of each.
    struct Texts<'a> {
        key: &'a Key,
        texts: Vec<Vec<u8>>,
        said: Vec<Option<bool>>,
    }

    impl Burst for Texts<'_> {
        fn len(&self) -> usize {
            self.texts.len()
        }

        fn ahead(&mut self, at: usize) -> Option<Soon> {
            Some(Soon::of(self.key, self.texts.get(at)?))
        }

        fn packet(&mut self, at: usize) -> Option<Packet<'_>> {
            let text = self.texts.get_mut(at)?;
            Some(of(self.key, text.len() - ICV, text))
        }

        fn sealed(&mut self, at: usize) {
            self.said[at] = Some(true);
        }

        fn opened(&mut self, at: usize, authentic: bool) {
            self.said[at] = Some(authentic);
        }
    }

    /// Input: a burst of texts, each in memory of exactly its size, that are asked of memory while those before them are worked on, sealed and
    /// opened by our kernels; one was changed in between. Output: the bytes that `aes-gcm` makes; the changed one alone is not authentic.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn kernels_agree_in_bursts() {
        let lengths = [0, 64, 60, 300, 17, 257, 96, 96, 1, 2];
        let portable = Key::untested(Provider::AesGcm, &[0x3c; 16]).unwrap();
        let plain = lengths.map(|length| [vec![length as u8; length], vec![0; ICV]].concat());
        for kernel in [Provider::Vaes512, Provider::Vaes256, Provider::Aesni]
            .into_iter()
            .filter(|kernel| kernel.is_possible())
        {
            let key = Key::untested(kernel, &[0x3c; 16]).unwrap();
            let mut burst = Texts { key: &key, texts: plain.to_vec(), said: vec![None; lengths.len()] };
            // SAFETY: what is possible the processor has.
            unsafe {
                match kernel {
                    Provider::Vaes512 => crate::kernel::bits512::seal_burst(&mut burst),
                    Provider::Vaes256 => crate::kernel::bits256::seal_burst(&mut burst),
                    _ => crate::kernel::bits128::seal_burst(&mut burst),
                }
            }
            assert_eq!(burst.said, [Some(true); 10], "{kernel}");
            for (length, (plain, made)) in lengths.into_iter().zip(plain.iter().zip(&burst.texts)) {
                let mut wanted = plain.clone();
                seal_any(&mut of(&portable, length, &mut wanted));
                assert_eq!(*made, wanted, "{kernel} {length}");
            }
            burst.texts[5][200] ^= 1;
            // SAFETY: as above.
            unsafe {
                match kernel {
                    Provider::Vaes512 => crate::kernel::bits512::open_burst(&mut burst),
                    Provider::Vaes256 => crate::kernel::bits256::open_burst(&mut burst),
                    _ => crate::kernel::bits128::open_burst(&mut burst),
                }
            }
            for (at, (plain, made)) in plain.iter().zip(&burst.texts).enumerate() {
                assert_eq!(burst.said[at], Some(at != 5), "{kernel} {at}");
                assert!(at == 5 || made[..lengths[at]] == plain[..lengths[at]], "{kernel} {at}");
            }
        }
    }

    #[test]
    fn the_self_test_finds_a_wrong_answer() {
        assert_eq!(digest(Provider::AesGcm, 16), Some(ANSWERS[0].1));
        assert_ne!(digest(Provider::AesGcm, 16), digest(Provider::AesGcm, 32));
        assert!(passes(Provider::AesGcm) && passes(Provider::Ring));
    }
}
