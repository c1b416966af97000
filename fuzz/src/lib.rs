//! Functions that take any bytes, and panic where a promise is broken. libFuzzer drives them (`targets`, `make fuzz`); the corpus
//! that it has found so far is replayed by the tests on any toolchain.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)] // To panic is what a target is for.

mod afternoon;
mod codec;
mod esp;
mod ike_codec;
mod ike_engine;
mod ike_puppet;
mod promises;
mod providers;
mod rib;
mod script;

pub use afternoon::engine;
pub use codec::codec;
pub use esp::esp;
pub use ike_codec::ike_codec;
pub use ike_engine::ike_engine;
pub use providers::aead;
