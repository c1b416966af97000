//! libFuzzer gives bytes to the codec of IKE.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ike_codec(bytes));
