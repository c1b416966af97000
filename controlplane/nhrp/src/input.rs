//! The alphabet in.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use model::config;
use model::program::TunnelMode;
use model::{InterfaceAddr, InterfaceName, NbmaAddr, Prefix, ProtocolAddr, TableId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// The tunnels that run NHRP are these now; replaces what was. Sent first, and whenever the configuration or the address
    /// of a source interface changes.
    Configure(Vec<Tunnel>),
    /// An NHRP packet came.
    Packet {
        /// By which tunnel.
        tunnel: InterfaceName,
        /// Who sent it, by the outer header and what protected it.
        from: Sender,
        /// Destination of the outer header.
        destination: NbmaAddr,
        /// The NHRP packet, from its fixed header on.
        #[serde(with = "crate::hex")]
        bytes: Vec<u8>,
    },
    /// The data plane forwarded a packet out by the network that it came from (hub, phase 3).
    Redirect {
        /// By which tunnel it came.
        tunnel: InterfaceName,
        /// Source of the outer header: who is to be told.
        source: NbmaAddr,
        /// UDP source port where encapsulated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The first octets of the inner IP packet.
        #[serde(with = "crate::hex")]
        bytes: Vec<u8>,
    },
    /// Packets want a next hop of a tunnel that has no binding (phase 2).
    Glean {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The next hop.
        next_hop: ProtocolAddr,
    },
    /// These next hops carried packets within the last second or so.
    Used {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its next hops.
        next_hops: Vec<ProtocolAddr>,
    },
    /// Routes to these prefixes changed (owner other than NHRP): what was answered or learnt from them may be wrong now.
    RoutesChanged(Vec<Prefix>),
    /// A server's DNS name was looked up ([`crate::Action::LookUp`]).
    LookedUp {
        /// The tunnel that it was looked up for.
        tunnel: InterfaceName,
        /// The name.
        name: String,
        /// Its addresses in the order in which they are to be tried, of the family of the tunnel's NBMA address; none if it has none or could
        /// not be looked up.
        addresses: Vec<NbmaAddr>,
    },
    /// A peer does not answer IKE any more (RFC 7296 §2.4), and nothing comes from it: what it registered and what was learnt of it is
    /// forgotten; a server is down, and asked again.
    Lost {
        /// By which tunnel it was reached.
        tunnel: InterfaceName,
        /// Where it was.
        nbma: NbmaAddr,
        /// Its UDP port, where encapsulated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// A peer has an SA that it had not: if it is a server, it is told at once where we are by that.
    Protected {
        /// By which tunnel it is reached.
        tunnel: InterfaceName,
        /// Where it is.
        nbma: NbmaAddr,
    },
    /// A NAT gave a peer another address or port, as IKE proved: what is known of it is true there.
    Moved {
        /// By which tunnel it is reached.
        tunnel: InterfaceName,
        /// Where it was.
        from: NbmaAddr,
        /// Its UDP port there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_port: Option<u16>,
        /// Where it is.
        to: NbmaAddr,
        /// Its UDP port here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_port: Option<u16>,
    },
    /// The operator wants entries gone.
    Clear(Clear),
    /// The node is about to stop for good: servers, and whoever was answered, are told to forget it. A node that is only
    /// restarted does not say this.
    Shutdown,
    /// The data plane is back: servers that had no way to answer are asked again at once.
    Reconnected,
    /// Time passed.
    Tick,
}

/// Who sent a packet: what tells one peer from another. Several behind one NAT have one NBMA address and, where their packets are
/// encapsulated in UDP, different ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Source of the outer header.
    pub nbma: NbmaAddr,
    /// UDP source port where encapsulated (RFC 3948).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Identity that was authenticated by IKE, where protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The protocol addresses that it may register, where that is bound to who it is: those that its certificate names. `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<Vec<IpAddr>>,
}

impl From<NbmaAddr> for Sender {
    fn from(nbma: NbmaAddr) -> Self {
        Self { nbma, port: None, identity: None, certified: None }
    }
}

impl Sender {
    /// The peer that it is, on its tunnel.
    pub(crate) const fn peer(&self) -> Peer {
        Peer { nbma: self.nbma, port: self.port }
    }
}

/// A peer of a tunnel: where its packets come from, and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Peer {
    pub(crate) nbma: NbmaAddr,
    /// UDP port where encapsulated: what tells apart those behind one NAT address.
    pub(crate) port: Option<u16>,
}

impl From<NbmaAddr> for Peer {
    fn from(nbma: NbmaAddr) -> Self {
        Self { nbma, port: None }
    }
}

/// A tunnel that runs NHRP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its name.
    pub name: InterfaceName,
    /// Multipoint, or point-to-point (phase 1 spoke).
    pub mode: TunnelMode,
    /// Own NBMA address; `None` while the source interface has none.
    pub nbma: Option<NbmaAddr>,
    /// Own addresses; the first of each family is registered.
    pub addresses: Vec<InterfaceAddr>,
    /// Largest inner packet in bytes, told in CIEs.
    pub mtu: u16,
    /// FIB table of inner packets.
    pub table: TableId,
    /// The operator's section.
    pub nhrp: config::Nhrp,
}

/// Which cache entries to forget: all dynamic and cached ones that match. Static and local ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Clear {
    /// Of this tunnel; of all if not given.
    pub tunnel: Option<InterfaceName>,
    /// Of this protocol address; of all if not given.
    pub address: Option<ProtocolAddr>,
}
