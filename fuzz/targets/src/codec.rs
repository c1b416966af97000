//! libFuzzer gives bytes to the codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::codec(bytes));
