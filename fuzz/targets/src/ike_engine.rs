//! libFuzzer gives scripts to the engine of IKE.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::ike_engine(bytes));
