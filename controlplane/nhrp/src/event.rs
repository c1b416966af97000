//! What is worth telling: typed, without text. Log, metrics, `nave watch` and tests consume it.

use serde::{Deserialize, Serialize};

use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr};

use crate::Reject;

/// Something that happened in NHRP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A client registered with us, or refreshed (`refresh`).
    Registered {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The client.
        client: ProtocolAddr,
        /// Where it is.
        nbma: NbmaAddr,
        /// It was registered before.
        refresh: bool,
    },
    /// A server accepted our registration, or its refresh.
    ServerUp {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The server.
        nhs: ProtocolAddr,
        /// It was up before.
        refresh: bool,
    },
    /// A server does not answer any more, or refused.
    ServerDown {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The server.
        nhs: ProtocolAddr,
    },
    /// We told a sender of a better way.
    RedirectSent {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Who was told.
        to: NbmaAddr,
        /// Destination of the packet.
        destination: ProtocolAddr,
    },
    /// We were told of a better way.
    RedirectReceived {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Destination of the packet.
        destination: ProtocolAddr,
    },
    /// We ask for an address.
    ResolutionSent {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The address.
        destination: ProtocolAddr,
    },
    /// We answered for one of our prefixes.
    ResolutionAnswered {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Who asked.
        client: ProtocolAddr,
        /// What we answered for.
        prefix: Prefix,
    },
    /// A binding is complete.
    Resolved {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The next hop.
        next_hop: ProtocolAddr,
        /// Where it is.
        nbma: NbmaAddr,
    },
    /// An address could not be resolved; traffic stays on the server's path.
    Unresolved {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The address.
        destination: ProtocolAddr,
    },
    /// A shortcut is installed.
    ShortcutUp {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its prefix.
        prefix: Prefix,
        /// Its next hop.
        next_hop: ProtocolAddr,
    },
    /// A shortcut is gone.
    ShortcutDown {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its prefix.
        prefix: Prefix,
    },
    /// A binding's holding time ended, or it was purged.
    Gone {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its protocol address.
        address: ProtocolAddr,
    },
    /// A message was not accepted.
    Rejected {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Source of its outer header.
        source: NbmaAddr,
        /// Why.
        reject: Reject,
    },
}
