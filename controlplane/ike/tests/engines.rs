//! Engines that talk to each other on a virtual clock: an underlay that delays, loses, doubles, reorders and translates addresses, and data
//! planes that do what they are programmed to do.
//!
//! Two laws are looked at with every action, in every test: no outbound SA takes another's place before its peer has the inbound one with the
//! same key; and no key is programmed for sealing twice.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)] // It is for other tests, too.
mod made;
#[path = "engines/net.rs"]
mod net;

#[path = "engines/certificates.rs"]
mod certificates;
#[path = "engines/collisions.rs"]
mod collisions;
#[path = "engines/coming_up.rs"]
mod coming_up;
#[path = "engines/crowds.rs"]
mod crowds;
#[path = "engines/living.rs"]
mod living;
#[path = "engines/losing.rs"]
mod losing;
#[path = "engines/rekeying.rs"]
mod rekeying;
#[path = "engines/storms.rs"]
mod storms;
