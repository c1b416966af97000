//! IKEv2 (RFC 7296 as DMVPN uses it) as a pure state machine: no sockets, no clock, and chance only by way of [`Crypto`].
//!
//! [`Engine::handle`] takes one [`Input`] at one time and appends everything that it wants done to a list of [`Action`]s;
//! [`Engine::next_deadline`] says when the next [`Input::Tick`] is due.
//!
//! ```text
//!   Want ─────┐                      ┌─▶ Send      a datagram
//!   Datagram ─┤   IKE SA ─ children  ├─▶ Put       SAs for the data plane, owner IKE
//!   Used ─────┤   (keys from Crypto) ├─▶ Up, Down  what NHRP is told of a peer
//!   Tick ─────┘                      └─▶ Event
//! ```
#![forbid(unsafe_code)]

pub mod action;
pub mod auth;
mod certificate;
pub mod credential;
pub mod crypto;
pub mod engine;
pub mod event;
pub mod input;
mod key;
pub mod keymat;
mod names;
pub mod reject;
pub mod sk;
pub mod suite;

pub use action::Action;
pub use credential::Credentials;
pub use crypto::Crypto;
pub use engine::Engine;
pub use event::Event;
pub use input::{Clear, Input, Profile};
pub use reject::Reject;
