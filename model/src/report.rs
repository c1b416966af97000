//! What the data plane tells the control plane, and the packets that pass between them.

use serde::{Deserialize, Serialize};

use crate::program::Hop;
use crate::sa::{Direction, Protection, Reached, Spi};
use crate::{InterfaceName, Mac, NbmaAddr, ProtocolAddr, WorkerId};

/// A fact that the control plane may want to act on. Repeated while it holds, but
/// [`Report::BindingExpired`] and [`Report::SaMoved`], which are said once; ports are told first on each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Packets want this next hop and its adjacency is not complete, or there is no SA with the peer behind it. On a port interface: resolve
    /// it with ARP; on a tunnel: with NHRP, and agree on an SA by IKE where it is protected. At most one a second for each hop while packets
    /// come.
    Glean(Hop),
    /// These next hops of a tunnel carried packets since the last such report (about one second).
    Used {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its next hops.
        next_hops: Vec<ProtocolAddr>,
    },
    /// These neighbours of a port interface carried packets since the last such report.
    UsedNeighbours(Vec<Hop>),
    /// A port, as it is now.
    Port {
        /// The port's name on the data plane's command line.
        port: String,
        /// Its own Ethernet address.
        mac: Mac,
        /// Whether its link is up.
        up: bool,
        /// Largest IP packet it takes, in bytes.
        mtu: u16,
    },
    /// The holding time of a binding ended before it was programmed again; the adjacency is incomplete now.
    BindingExpired {
        /// The tunnel.
        tunnel: InterfaceName,
        /// Its next hop.
        next_hop: ProtocolAddr,
    },
    /// A router of the underlay says that the path to a peer takes no more than this. The message quoted what we send there: our
    /// addresses, GRE and the tunnel's key, or ESP of a live SA (RFC 5927 §4; what it says is still to be taken with care).
    PathMtu {
        /// The tunnel.
        tunnel: InterfaceName,
        /// The peer.
        nbma: NbmaAddr,
        /// Largest outer IP packet, in bytes.
        mtu: u16,
    },
    /// More than half of the sequence numbers that an outbound SA may use here are used.
    LeaseLow {
        /// Whose SA.
        protection: Protection,
        /// Who seals with it.
        worker: WorkerId,
        /// Its SPI.
        spi: Spi,
        /// The sequence number of its next packet.
        next: u64,
    },
    /// An SA has reached a lifetime in bytes or packets.
    SaLifetime {
        /// Whose SA.
        protection: Protection,
        /// Its SPI.
        spi: Spi,
        /// Which way it goes.
        direction: Direction,
        /// Which lifetime.
        reached: Reached,
    },
    /// The newest packet of an SA that is encapsulated in UDP came from another address or port than its peer's, and is
    /// authentic: a NAT on the way gave it another one (RFC 7296 §2.23).
    SaMoved {
        /// The inbound SA.
        spi: Spi,
        /// Where the peer is now.
        nbma: NbmaAddr,
        /// Its UDP port.
        port: u16,
    },
    /// By these inbound SAs authentic packets came since the last such report (about one second).
    SaUsed {
        /// Their SPIs.
        spis: Vec<Spi>,
    },
}

/// Why a packet was handed to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PuntReason {
    /// GRE protocol type 0x2001: the payload is an NHRP packet.
    Nhrp,
    /// It left by the network it came from: the first octets of an inner IP packet that also went on.
    Redirect,
}

impl PuntReason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nhrp, Self::Redirect];
}

/// A packet on its way up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketIn {
    /// Why.
    pub reason: PuntReason,
    /// The tunnel it came by.
    pub tunnel: InterfaceName,
    /// Source address of the outer header.
    pub source: NbmaAddr,
    /// Destination address of the outer header: one of our own.
    pub destination: NbmaAddr,
    /// UDP source port of the peer where encapsulated, else 0.
    pub udp_port: u16,
    /// The SA that it came by, if it came protected.
    #[serde(default)]
    pub spi: Option<Spi>,
    /// The NHRP packet, or the first 128 octets at most of the inner IP packet.
    pub bytes: Vec<u8>,
    /// Packets of this reason that were dropped since the last one because the queue was full.
    pub dropped_before: u64,
}

/// A packet on its way down: sent as GRE payload through the tunnel, straight to an NBMA address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketOut {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// Where to.
    pub destination: NbmaAddr,
    /// The peer's UDP port, as of [`Protection::port`].
    #[serde(default)]
    pub port: u16,
    /// GRE protocol type, 0x2001 for NHRP.
    pub protocol_type: u16,
    /// The payload.
    pub bytes: Vec<u8>,
}
