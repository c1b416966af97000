//! Bytes: what crosses a wire, and the packet buffer that carries it.
//!
//! Two levels, by purpose. *Views* ([`ethernet`], [`ipv4`], [`gre`], …) are `#[repr(C)]` structs over borrowed bytes
//! for the fast path: checked once by length, then plain field reads; they allocate nothing and never panic.
//! *Messages* ([`nhrp`], [`ike`]) are owned and legal by construction, for the control plane.
//!
//! All multi-byte fields are big endian on the wire; accessors return host order and say so.
#![forbid(unsafe_code)]

pub mod arp;
pub mod buf;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod gre;
pub mod icmp;
pub mod icmpv6;
pub mod ike;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
pub mod malformed;
pub mod nhrp;
mod reader;
pub mod tcp;
pub mod udp;
mod view;

pub use malformed::Malformed;
/// Gives each header its `as_bytes`.
pub use zerocopy::IntoBytes;
