//! What libFuzzer has found so far: every input of the corpus keeps every promise, on any toolchain and with debug assertions.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Gives each file of a corpus to its target; how many there were.
fn replay(name: &str, target: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    for file in &files {
        let bytes = fs::read(file).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok(), "{}", file.display());
    }
    files.len()
}

#[test]
fn the_codec_keeps_its_promises_on_its_corpus() {
    assert!(replay("codec", fuzz::codec) >= 40);
}

#[test]
fn the_codec_of_ike_keeps_its_promises_on_its_corpus() {
    assert!(replay("ike_codec", fuzz::ike_codec) >= 40);
}

#[test]
fn providers_of_aes_gcm_agree_on_their_corpus() {
    assert!(replay("aead", fuzz::aead) >= 40);
}

#[test]
fn the_data_plane_keeps_its_promises_of_esp_on_its_corpus() {
    assert!(replay("esp", fuzz::esp) >= 20);
}

#[test]
fn the_engine_keeps_its_promises_on_its_corpus() {
    assert!(replay("engine", fuzz::engine) >= 40);
}

/// So many inputs of so many bytes by chance, the same on each toolchain: what finds a fault that a change of an engine makes before anybody
/// fuzzes.
fn by_chance(count: u64, length: usize, target: fn(&[u8])) {
    for seed in 0..count {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        assert!(catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_ok(), "seed {seed}");
    }
}

/// Input: afternoons by chance. Output: every promise is kept.
#[test]
fn the_engine_keeps_its_promises_on_afternoons_by_chance() {
    by_chance(2_000, 2_000, fuzz::engine);
}

#[test]
fn the_engine_of_ike_keeps_its_promises_on_its_corpus() {
    assert!(replay("ike_engine", fuzz::ike_engine) >= 40);
}

/// Input: two nodes, a peer with the keys that lies, and an underlay, by chance. Output: every promise is kept, and both nodes come up when
/// all is quiet again.
#[test]
fn the_engine_of_ike_keeps_its_promises_on_scripts_by_chance() {
    by_chance(1_000, 600, fuzz::ike_engine);
}
