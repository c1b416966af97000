//! NHRP (RFC 2332 as DMVPN uses it) as a pure state machine: no sockets, no clock, no randomness of its own.
//!
//! [`Engine::handle`] takes one [`Input`] at one time and appends everything that it wants done to a list of [`Action`]s;
//! [`Engine::next_deadline`] says when the next [`Input::Tick`] is due. Inputs and actions serialize, so a journal of a
//! production node replays in a test.
#![forbid(unsafe_code)]

pub mod action;
pub mod event;
pub mod input;
pub mod routes;

pub use action::Action;
pub use event::Event;
pub use input::{Clear, Input, Tunnel};
pub use routes::{Found, Routes, To};
