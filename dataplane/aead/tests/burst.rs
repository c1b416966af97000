//! Bursts, as a worker gives them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use aead::{Burst, ICV, Key, MOST_TEXT, Packet, Provider, open, open_one, seal, seal_one};
use common::{Texts, usable};

/// Input: a burst with keys of both lengths, some places empty, texts of every length up to 64 and one too short. Output: each is sealed
/// as alone, the empty ones are passed over, opened it is as before and each is told of once.
#[test]
fn a_burst_is_worked_on_packet_by_packet_and_empty_places_are_passed_over() {
    for provider in usable() {
        let keys: Vec<Key> = (0..7_u8)
            .map(|n| Key::new(provider, &[n; 32][..if n % 2 == 0 { 16 } else { 32 }]).unwrap())
            .collect();
        let mut texts = Texts::new(&keys, (0..96).map(|n| (n % 7, n + ICV)));
        texts.skip.extend([3, 4, 95]);
        let plain = texts.texts.clone();
        seal_as_alone(provider, &mut texts);
        texts.texts[50][20] ^= 1;
        open(provider, &mut texts);
        for (at, plain) in plain.iter().enumerate() {
            let wanted = (!texts.skip.contains(&at)).then_some(at != 50);
            assert_eq!(texts.told.get(&at).copied(), wanted, "{provider} {at}");
            if wanted != Some(false) {
                assert_eq!(texts.texts[at][..at], plain[..at], "{provider} {at}");
            }
        }
    }
}

/// Input: bursts of texts of each length up to more than one piece of a kernel, some of another length or under a key of 256 bits among them,
/// some places empty. Output: each is sealed as alone.
#[test]
fn texts_of_any_lengths_beside_each_other_are_sealed_as_alone() {
    for provider in usable() {
        let keys = [(1, 16), (2, 16), (3, 32)].map(|(n, len)| Key::new(provider, &[n; 32][..len]).unwrap());
        for length in 0..260 {
            let others = [0, 1, 17, 64, 300].map(|other| (0, other));
            let alike = [0, 1, 1, 0, 2, 0, 1].map(|key| (key, length));
            let mixed = [(0, length), others[length % 5], (1, length), (0, length ^ 1), (1, length / 2)];
            let all = [&alike[..], &mixed, &alike].concat();
            let mut texts = Texts::new(&keys, all.into_iter().map(|(key, length)| (key, length + ICV)));
            texts.skip.extend([length % 19, 13]);
            seal_as_alone(provider, &mut texts);
        }
    }
}

/// Seals a burst: each text is as if it had been sealed alone, the empty places are as they were, and all others are told of.
fn seal_as_alone(provider: Provider, texts: &mut Texts<'_>) {
    let plain = texts.texts.clone();
    seal(provider, texts);
    for (at, plain) in plain.iter().enumerate() {
        let (mut alone, length) = (plain.clone(), plain.len());
        if !texts.skip.contains(&at) {
            seal_one(texts.packet_of(at, &mut alone));
        }
        assert_eq!(texts.sealed.contains(&at), !texts.skip.contains(&at), "{provider} {at} {length}");
        assert_eq!(texts.texts[at], alone, "{provider} {at} {length}");
    }
}

/// Input: a burst in which every provider's keys are mixed, given to each provider. Output: each packet is sealed and opened by its own
/// key all the same.
#[test]
fn a_key_of_another_provider_is_worked_on_by_that_one() {
    let keys: Vec<Key> = usable().map(|provider| Key::new(provider, &[9; 16]).unwrap()).collect();
    for provider in Provider::ALL {
        let mut texts = Texts::new(&keys, (0..32).map(|n| (n % keys.len(), 100)));
        let plain = texts.texts.clone();
        seal(provider, &mut texts);
        for (at, plain) in plain.iter().enumerate() {
            assert_ne!(texts.texts[at][..84], plain[..84]);
            // The same key in all of them, the same packet but for its number: the text differs by it alone.
            let mut alone = plain.clone();
            seal_one(Packet { key: &keys[0], ..texts.packet_of(at, &mut alone) });
            assert_eq!(texts.texts[at], alone);
        }
        open(provider, &mut texts);
        assert!(texts.told.len() == 32 && texts.told.values().all(|authentic| *authentic), "{provider}");
    }
}

/// Input: texts that have no room for an ICV, or are longer than any packet. Output: sealed they are zeros, so that nothing is left in
/// the clear; opened they are not authentic.
#[test]
fn what_cannot_be_sealed_is_overwritten_and_what_cannot_be_opened_is_not_authentic() {
    for provider in usable() {
        let key = Key::new(provider, &[1; 16]).unwrap();
        for length in [0, 1, 15, MOST_TEXT + 1] {
            let keys = std::slice::from_ref(&key);
            let mut texts = Texts::new(keys, [(0, length)].into_iter());
            open(provider, &mut texts);
            assert!(!texts.told[&0]);
            seal(provider, &mut texts);
            assert!(texts.texts[0].iter().all(|byte| *byte == 0), "{provider} {length}");
        }
    }
}

#[test]
fn one_packet_goes_through_a_burst_of_its_own() {
    let key = Key::new(Provider::best(), &[3; 16]).unwrap();
    let mut text = vec![1; 40];
    fn packet<'a>(key: &'a Key, text: &'a mut [u8]) -> Packet<'a> {
        Packet { key, salt: [1; 4], iv: 7, sequence: 7, spi: 256, esn: true, text }
    }
    seal_one(packet(&key, &mut text));
    assert_ne!(text[..24], [1; 24]);
    assert!(open_one(packet(&key, &mut text)));
    assert_eq!(text[..24], [1; 24]);
}

#[test]
fn a_provider_has_a_name_and_the_best_is_the_first_that_is_usable() {
    for provider in Provider::ALL {
        assert_eq!(provider.name().parse(), Ok(provider));
        assert_eq!(provider.to_string(), provider.name());
    }
    let error = "openssl".parse::<Provider>().unwrap_err().to_string();
    assert_eq!(error, "there is no AES-GCM provider \"openssl\": vaes512, vaes256, aesni, ring or aes-gcm");
    assert_eq!(usable().next(), Some(Provider::best()));
    assert!(Provider::AesGcm.is_usable() && Provider::Ring.is_usable());
    let mut empty = Texts::new(&[], std::iter::empty());
    assert_eq!((empty.len(), empty.ahead(0).is_none()), (0, true));
}
