//! Kernel twins: the interfaces by which the kernel takes part in what the data plane forwards. A port has a TAP twin, a
//! tunnel a TUN twin. Addresses, sockets and routing daemons live on the twin; the data plane feeds it and drains it.
//!
//! ```text
//!   nave-controlplane                      kernel                       nave-dataplane
//!   Anchor: a queue, detached ── carrier ─ tunnel0 ─ packets ─ Queue: a queue, attached
//! ```
//!
//! A twin is one device with several queues (`IFF_MULTI_QUEUE`), and it is persistent. The control plane holds an
//! [`Anchor`]: a queue that is detached (`IFF_DETACH_QUEUE`), which counts as an open one but takes no packets. The data
//! plane holds a [`Queue`]. So either process may be killed:
//!
//! - Data plane gone: the anchor keeps the carrier; addresses, routes and sockets stay as they are, what the kernel sends is
//!   dropped and counted (`tx_dropped` of the device). A new queue takes packets from the moment it is attached.
//! - Control plane gone: the queue goes on.
//! - Both gone: the device is persistent, and keeps addresses and routes; only the carrier goes (routes show `linkdown`),
//!   until either is back.
//!
//! Seen on Linux 6.18 and held by `tests/twin.rs`: a device whose only queue is detached keeps `LOWER_UP` and its routes;
//! nothing is delivered into the detached queue, and nothing that was sent meanwhile turns up in a queue that is attached
//! later. Anchoring a device that is in use attaches a second queue for the few microseconds until it is detached again; what
//! the kernel hashes to it in that time is lost. The kernel gives no way to attach a queue detached from the start.
#![allow(unsafe_code)]

mod anchor;
mod device;
mod netns;
mod queue;

use std::io;
use std::path::PathBuf;

pub use anchor::Anchor;
pub use netns::{NAMED, in_netns, in_netns_with_files, make_netns, netns_id, remove_netns};
pub use queue::{Queue, is_gone};

/// What a twin carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Ethernet frames, without FCS: the twin of a port.
    Tap,
    /// IP packets without any header in front (`IFF_NO_PI`): the twin of a tunnel. The device is
    /// `POINTOPOINT|MULTICAST|NOARP`: any address length is fine on it, and OSPF's multicast leaves by it.
    Tun,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tap => "TAP",
            Self::Tun => "TUN",
        })
    }
}

/// What could not be done, with which device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is empty, longer than 15 bytes, or has a NUL in it.
    #[error("`{0}` cannot be the name of a twin: 1 to 15 bytes")]
    Name(String),
    /// There is no such device (yet): the control plane makes it.
    #[error("twin `{0}` is not there")]
    Absent(String),
    /// A device of this name exists, but it is none that an anchor made.
    #[error("`{name}` exists and is not a persistent {kind} with several queues")]
    Foreign {
        /// Name of the device.
        name: String,
        /// What was wanted.
        kind: Kind,
    },
    /// The kernel refused.
    #[error("twin `{name}`: {step}: {source}")]
    Refused {
        /// Name of the device.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network namespace cannot be entered.
    #[error("network namespace `{netns}`: {step}: {source}")]
    Netns {
        /// File of the namespace.
        netns: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
