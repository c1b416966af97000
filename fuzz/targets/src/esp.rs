//! libFuzzer gives bytes to the data plane as what comes by its ports.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::esp(bytes));
