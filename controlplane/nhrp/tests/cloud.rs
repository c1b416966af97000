//! Whole clouds on a virtual clock: engines, an underlay that delays, loses, doubles and reorders, and a data plane that does
//! what it is programmed to do.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "cloud/net.rs"]
mod net;
#[path = "cloud/rib.rs"]
mod rib;
#[path = "cloud/walk.rs"]
mod walk;

#[path = "cloud/authentication.rs"]
mod authentication;
#[path = "cloud/bytes.rs"]
mod bytes;
#[path = "cloud/clauses.rs"]
mod clauses;
#[path = "cloud/clouds.rs"]
mod clouds;
#[path = "cloud/day.rs"]
mod day;
#[path = "cloud/errors.rs"]
mod errors;
#[path = "cloud/families.rs"]
mod families;
#[path = "cloud/faults.rs"]
mod faults;
#[path = "cloud/forwarding.rs"]
mod forwarding;
#[path = "cloud/ike.rs"]
mod ike;
#[path = "cloud/invariants.rs"]
mod invariants;
#[path = "cloud/journal.rs"]
mod journal;
#[path = "cloud/limits.rs"]
mod limits;
#[path = "cloud/link_local.rs"]
mod link_local;
#[path = "cloud/names.rs"]
mod names;
#[path = "cloud/nat.rs"]
mod nat;
#[path = "cloud/prefixes.rs"]
mod prefixes;
#[path = "cloud/purge.rs"]
mod purge;
#[path = "cloud/registration.rs"]
mod registration;
#[path = "cloud/resolution.rs"]
mod resolution;
#[path = "cloud/restart.rs"]
mod restart;
#[path = "cloud/servers.rs"]
mod servers;
#[path = "cloud/shortcuts.rs"]
mod shortcuts;
#[path = "cloud/storms.rs"]
mod storms;
