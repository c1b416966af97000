//! libFuzzer gives bytes to the providers of AES-GCM.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::aead(bytes));
