//! All providers make the same bytes, touch nothing else, and open nothing that was changed.
#![allow(clippy::unwrap_used, clippy::panic, unsafe_code)]

mod common;

use aead::{ICV, Key, Packet, Provider, open_one, seal_one};
use common::{Guarded, usable};
use proptest::prelude::*;

/// Lengths of plaintext: 0 to here.
const LONGEST: usize = 2048;

fn keys(length: usize) -> Vec<Key> {
    let key: Vec<u8> = (0..length).map(|i| (i * 29 + length) as u8).collect();
    usable().map(|provider| Key::new(provider, &key).unwrap()).collect()
}

fn packet<'a>(key: &'a Key, number: usize, esn: bool, text: &'a mut [u8]) -> Packet<'a> {
    let sequence = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let iv = (number as u64).wrapping_mul(0xd134_2543_de82_ef95);
    Packet { key, salt: [number as u8, 2, 3, 4], iv, sequence, spi: 0xfeed_0000 | number as u32, esn, text }
}

fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 13 + length * 7) as u8).collect()
}

/// The text sealed in a vector of its own.
fn sealed(key: &Key, number: usize, esn: bool, text: &[u8]) -> Vec<u8> {
    let mut text = [text, &[0xee; ICV]].concat();
    seal_one(packet(key, number, esn, &mut text));
    text
}

/// Input: texts of 0 to 2,048 bytes, keys of both lengths, with and without ESN. Output: every provider makes the bytes that `aes-gcm`
/// makes, and opens them again; the ICV stays as it is.
#[test]
fn providers_make_the_same_bytes_of_every_length() {
    for length in [16, 32] {
        let keys = keys(length);
        assert_eq!(keys.last().map(Key::provider), Some(Provider::AesGcm));
        for size in 0..=LONGEST {
            for esn in [false, true] {
                let text = plain(size);
                let wanted = sealed(keys.last().unwrap(), size, esn, &text);
                for key in &keys {
                    let mut made = sealed(key, size, esn, &text);
                    let what = || format!("{key:?}, {size} bytes, ESN {esn}");
                    assert!(made == wanted, "{}", what());
                    assert!(open_one(packet(key, size, esn, &mut made)), "{}", what());
                    assert!(made[..size] == text, "{}", what());
                    assert!(made[size..] == wanted[size..], "{}", what());
                }
            }
        }
    }
}

/// Input: texts of every length up to 600 bytes and some of longer ones, at each place of a line; before and behind them other bytes.
/// Output: the same as anywhere else, and the other bytes are as they were.
#[test]
fn a_text_may_begin_anywhere_and_nothing_beside_it_is_touched() {
    for length in [16, 32] {
        for key in &keys(length) {
            for size in (0..=600).chain([1399, 1400, 2047]) {
                let text = plain(size);
                let wanted = sealed(key, size, true, &text);
                let start = 64 + size % 64;
                let mut place = vec![0xa5; start + size + ICV + 64];
                place[start..start + size].copy_from_slice(&text);
                for open in [false, true] {
                    let slice = &mut place[start..start + size + ICV];
                    if open {
                        assert!(open_one(packet(key, size, true, slice)), "{key:?} {size}");
                        assert!(slice[..size] == text, "{key:?} {size}");
                    } else {
                        seal_one(packet(key, size, true, slice));
                        assert!(*slice == wanted[..], "{key:?} {size}");
                    }
                    let beside = place[..start].iter().chain(&place[start + size + ICV..]);
                    assert!(beside.into_iter().all(|byte| *byte == 0xa5), "{key:?} {size} {open}");
                }
            }
        }
    }
}

/// Input: texts of every length up to 2,048 bytes that end with a page, or begin with one; the pages beside it cannot be touched.
/// Output: the same bytes, and no fault.
#[test]
fn nothing_is_read_or_written_beyond_the_page_that_a_text_ends_or_begins_with() {
    let mut pages = Guarded::new();
    for length in [16, 32] {
        for key in &keys(length) {
            for size in 0..=LONGEST {
                let text = plain(size);
                let wanted = sealed(key, size, false, &text);
                for at_end in [true, false] {
                    let slice = if at_end { pages.last(size + ICV) } else { pages.first(size + ICV) };
                    slice[..size].copy_from_slice(&text);
                    seal_one(packet(key, size, false, slice));
                    assert!(*slice == wanted[..], "{key:?} {size}");
                    assert!(open_one(packet(key, size, false, slice)), "{key:?} {size}");
                    assert!(slice[..size] == text, "{key:?} {size}");
                }
            }
        }
    }
}

/// Input: sealed packets of sampled lengths, with one bit of text, ICV, IV, salt, SPI or sequence number changed, each bit once. Output:
/// none is authentic, and unchanged it is.
#[test]
fn one_forged_bit_anywhere_is_refused() {
    for length in [16, 32] {
        for key in &keys(length) {
            for size in [0, 1, 15, 16, 17, 31, 64, 223, 224, 225, 239, 240, 241, 354, 480, 481, 500] {
                for esn in [false, true] {
                    let made = sealed(key, size, esn, &plain(size));
                    let opens = |forge: &dyn Fn(&mut Packet<'_>)| {
                        let mut text = made.clone();
                        let mut packet = packet(key, size, esn, &mut text);
                        forge(&mut packet);
                        open_one(packet)
                    };
                    assert!(opens(&|_| {}), "{key:?} {size}");
                    for bit in 0..8 * made.len() {
                        assert!(!opens(&|p| p.text[bit / 8] ^= 1 << (bit % 8)), "{key:?} {size}: bit {bit}");
                    }
                    for bit in 0..64 {
                        assert!(!opens(&|p| p.iv ^= 1 << bit), "{key:?} {size}: bit {bit} of the IV");
                        // Without ESN the high half is not authenticated: nobody sends it.
                        let changed = opens(&|p| p.sequence ^= 1 << bit);
                        assert_eq!(
                            changed,
                            !esn && bit >= 32,
                            "{key:?} {size}: bit {bit} of the sequence number"
                        );
                    }
                    for bit in 0..32 {
                        assert!(!opens(&|p| p.spi ^= 1 << bit), "{key:?} {size}: bit {bit} of the SPI");
                        assert!(
                            !opens(&|p| p.salt[bit / 8] ^= 1 << (bit % 8)),
                            "{key:?} {size}: bit {bit} of the salt"
                        );
                    }
                    assert!(!opens(&|p| p.esn = !p.esn), "{key:?} {size}: ESN");
                }
            }
        }
    }
}

/// Salt, IV, sequence number, SPI, and whether it is one of 64 bits.
type Fields = ([u8; 4], u64, u64, u32, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Input: any key, packet and text, also one of a jumbo frame, at any place. Output: one provider's packet is another's, and a packet
    /// cut short or made longer opens nowhere.
    #[test]
    fn what_one_provider_seals_any_other_opens(
        key in prop_oneof![prop::collection::vec(any::<u8>(), 16), prop::collection::vec(any::<u8>(), 32)],
        salt: [u8; 4],
        iv: u64,
        sequence: u64,
        spi: u32,
        esn: bool,
        text in prop_oneof![prop::collection::vec(any::<u8>(), 0..600), prop::collection::vec(any::<u8>(), 0..10_000)],
        start in 0_usize..64,
        last: u8,
    ) {
        let keys: Vec<Key> = usable().map(|provider| Key::new(provider, &key).unwrap()).collect();
        let mut place = [vec![0; start], text.clone(), vec![0; ICV]].concat();
        for (from, to) in keys.iter().zip(keys.iter().cycle().skip(1)) {
            fn of<'a>(key: &'a Key, fields: Fields, text: &'a mut [u8]) -> Packet<'a> {
                let (salt, iv, sequence, spi, esn) = fields;
                Packet { key, salt, iv, sequence, spi, esn, text }
            }
            let fields = (salt, iv, sequence, spi, esn);
            let slice = &mut place[start..];
            slice[..text.len()].copy_from_slice(&text);
            seal_one(of(from, fields, slice));
            let mut shorter = slice[1..].to_vec();
            prop_assert!(!open_one(of(to, fields, &mut shorter)));
            let mut longer = [&*slice, &[last]].concat();
            prop_assert!(!open_one(of(to, fields, &mut longer)));
            prop_assert!(open_one(of(to, fields, slice)));
            prop_assert_eq!(&slice[..text.len()], &text[..]);
        }
    }
}
