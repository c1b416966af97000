//! Raw bindings to libdpdk 22.11, statically linked. Only `dpdk` uses them; the safe names are there.
//!
//! `build.rs` says which part of libdpdk is bound and which drivers are linked, and why.
#![allow(unsafe_code, missing_docs, unreachable_pub)]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, unnecessary_transmutes, unsafe_op_in_unsafe_fn)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
