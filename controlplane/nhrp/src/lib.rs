//! NHRP (RFC 2332 as DMVPN uses it) as a pure state machine: no sockets, no clock, no randomness of its own.
//!
//! [`Engine::handle`] takes one [`Input`] at one time and appends everything that it wants done to a list of [`Action`]s;
//! [`Engine::next_deadline`] says when the next [`Input::Tick`] is due. Inputs and actions serialize, so a journal of a
//! production node replays in a test.
//!
//! A packet's way: `receive` reads and authenticates it; what is for others goes on in `forward`; the rest is `registration`, `nhs` (its client's side),
//! `resolution`, `redirect` or `purge`, which change the `cache` and the `shortcut`s of a `cloud` (one tunnel), and so what
//! is programmed. `complaint` sends error indications. Every limit and interval is in [`limits`].
#![forbid(unsafe_code)]

mod answer;
mod auth;
mod cache;
mod census;
mod cloud;
mod complaint;
mod extension;
mod forward;
mod heard;
mod hex;
mod lost;
mod nat;
mod nhs;
mod overlap;
mod purge;
mod reach;
mod receive;
mod redirect;
mod registration;
mod resolution;
mod shortcut;
mod turn;

pub mod action;
pub mod engine;
pub mod event;
pub mod input;
pub mod journal;
pub mod limits;
pub mod reject;
pub mod routes;
pub mod show;
pub mod snapshot;

pub use action::Action;
pub use census::Census;
pub use engine::Engine;
pub use event::Event;
pub use input::{Clear, Input, Sender, Tunnel};
pub use limits::Limits;
pub use reject::Reject;
pub use routes::{Found, Routes, To};
pub use show::Traffic;
pub use snapshot::Snapshot;

/// Whether these octets are an answer to a resolution request: it may go to who asked by another way than the straight one.
#[must_use]
pub fn is_resolution_reply(message: &[u8]) -> bool {
    let message = wire::nhrp::Message::decode(message);
    message.is_ok_and(|message| message.message_type() == wire::nhrp::MessageType::ResolutionReply)
}
