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
mod child;
mod create;
pub mod credential;
mod crowd;
pub mod crypto;
pub mod engine;
mod establish;
pub mod event;
mod exchange;
mod fragment;
mod informational;
mod init;
pub mod input;
mod key;
pub mod keymat;
mod limits;
mod look;
mod moves;
mod names;
mod path;
mod programmed;
mod prove;
mod receive;
pub mod reject;
mod rekey;
mod sa;
mod selector;
pub mod show;
pub mod sk;
mod spi;
pub mod suite;
mod turn;
mod want;

pub use action::Action;
pub use credential::Credentials;
pub use crypto::Crypto;
pub use engine::Engine;
pub use event::Event;
pub use input::{Clear, Input, Profile};
pub use reject::Reject;
pub use show::Counts;
