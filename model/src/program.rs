//! What the control plane tells the data plane.
//!
//! Objects are named by what they are (an interface's name, a prefix, a next hop on an interface), never by a number that
//! one process handed out and the other might forget. So a put is idempotent, and after a restart of either process the
//! same desired program means the same thing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sa::{Lease, Lifetimes, ProfileName, Protection, SaKey, SaMode, Spi};
use crate::state::time::maybe_seconds;
use crate::{InterfaceName, Mac, NbmaAddr, Prefix, ProtocolAddr, TableId, VlanId, WorkerId};

/// On whose word an object exists. Resync marks and sweeps one owner's objects only.
///
/// Of several routes to one prefix the data plane forwards by a receive route if there is one, else by the route whose owner
/// stands first here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Learnt by NHRP: bindings, shortcuts, replicas, fall-backs.
    Nhrp,
    /// Keyed by IKE: security associations.
    Ike,
    /// Written in the configuration file.
    Config,
    /// Mirrored from the kernel's tables of the twins.
    Netlink,
}

impl Owner {
    /// All, in order of preference.
    pub const ALL: [Self; 4] = [Self::Nhrp, Self::Ike, Self::Config, Self::Netlink];
}

/// A port with an address, or one VLAN of a port: the data plane's side of a kernel twin (TAP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the interface and of its twin.
    pub name: InterfaceName,
    /// The data plane's port (the name given to it on its command line).
    pub port: String,
    /// The VLAN of that port that this is (IEEE 802.1Q); `None`: what comes and goes without a tag.
    #[serde(default)]
    pub vlan: Option<VlanId>,
    /// Largest IP packet in bytes, without Ethernet header.
    pub mtu: u16,
    /// The FIB table of what arrives here.
    pub table: TableId,
    /// Whether transit traffic may enter or leave here. Off on the source port of a tunnel unless the operator says so:
    /// nothing passes between underlay and overlay but through the tunnel.
    pub forwarding: bool,
    /// Network namespace of its twin, a name as of `ip netns`; `None`: where the data plane looks for twins.
    #[serde(default)]
    pub netns: Option<String>,
}

/// The don't-fragment bit of outer IPv4 headers (RFC 2003 §3.1; RFC 4459 weighs them). An outer IPv6 header has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OuterDf {
    /// As in the inner IPv4 header; of inner IPv6 set, but not on packets of up to 1,280 bytes, which must get through.
    #[default]
    Copy,
    /// On every packet.
    Set,
    /// On none: routers of the underlay may fragment them, and the peer puts them together.
    Clear,
}

/// What becomes of the maximum segment size in TCP SYNs that enter or leave a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpMss {
    /// Nothing.
    Off,
    /// Lowered to what the tunnel, or the path to the peer as far as it is known, takes without IP (20 or 40 bytes) and TCP
    /// headers (20).
    #[default]
    Auto,
    /// Lowered to this many bytes for IPv4, 20 less for IPv6.
    Most(u16),
}

/// Who is at the other end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelMode {
    /// mGRE: each next hop has its own NBMA address, given by a [`Binding`].
    Multipoint,
    /// Plain GRE with one peer. Its one binding has the unspecified next hop.
    PointToPoint {
        /// The peer.
        destination: NbmaAddr,
    },
}

/// A GRE tunnel (RFC 2784, RFC 2890) over IP; the data plane's side of a kernel twin (TUN).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Name of the tunnel and of its twin.
    pub name: InterfaceName,
    /// Multipoint or point-to-point.
    pub mode: TunnelMode,
    /// Own NBMA address: source of what is sent, destination of what is accepted.
    pub source: NbmaAddr,
    /// The interface whose port that address is on.
    pub source_interface: InterfaceName,
    /// GRE key (RFC 2890); what arrives with another key, or without one, is not for this tunnel.
    pub key: Option<u32>,
    /// Largest inner IP packet in bytes.
    pub mtu: u16,
    /// TTL of the outer header.
    pub ttl: u8,
    /// NHRP network id: a packet that leaves by a tunnel of the network it came from is a reason for a redirect.
    pub network_id: u32,
    /// Whether to punt the first octets of such packets.
    pub redirect: bool,
    /// The FIB table of inner packets.
    pub table: TableId,
    /// The FIB table that NBMA addresses are looked up in, and that outer headers come by.
    pub underlay_table: TableId,
    /// The don't-fragment bit of outer IPv4 headers.
    #[serde(default)]
    pub outer_df: OuterDf,
    /// TCP segment sizes.
    #[serde(default)]
    pub tcp_mss: TcpMss,
    /// The profile that protects it: then nothing leaves or enters it but through SAs of a [`Protection`] of this profile.
    #[serde(default)]
    pub protection: Option<ProfileName>,
    /// Network namespace of its twin, as [`Interface::netns`].
    #[serde(default)]
    pub netns: Option<String>,
}

/// A next hop on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// The port interface or tunnel.
    pub interface: InterfaceName,
    /// The next hop's address there; on a point-to-point tunnel the unspecified address.
    pub next_hop: IpAddr,
}

/// A resolved neighbour on a port interface (ARP, ND): completes the adjacency of that hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Interface and address.
    pub hop: Hop,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// A resolved next hop of a tunnel: completes (as a midchain) the adjacency of that hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// The peer's address in the overlay.
    pub next_hop: ProtocolAddr,
    /// Where its packets go.
    pub nbma: NbmaAddr,
    /// The peer's UDP port, as of [`Protection::port`].
    #[serde(default)]
    pub port: u16,
    /// What the midchain is stacked on: the port interface and neighbour by which the NBMA address is reached, never by the
    /// tunnel itself. `None` while the underlay has no route: the adjacency is incomplete.
    pub link: Option<Hop>,
    /// Remaining holding time when programmed (in JSON seconds); the data plane lets the binding go then if it is not told again. `None`: forever.
    #[serde(default, with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// To a next hop.
    Via(Hop),
    /// To one of several, 2 to 16, sorted and each once; each flow keeps to one as long as they stay the same.
    Balanced(Arc<[Hop]>),
    /// Attached: each destination is its own next hop (glean); on a point-to-point tunnel: to the peer.
    Attached(InterfaceName),
    /// To this box: the twin of the interface gets it.
    Receive(InterfaceName),
    /// Nowhere, and the sender is told (ICMP host unreachable).
    Unreachable,
    /// Nowhere, silently.
    Blackhole,
}

impl Path {
    /// Most next hops of a [`Path::Balanced`].
    pub const MOST_HOPS: usize = 16;

    /// The path to any of some next hops, of which there may be the same several times: the first 16 in their order, `None`
    /// without any.
    #[must_use]
    pub fn to(hops: impl IntoIterator<Item = Hop>) -> Option<Self> {
        let mut hops: Vec<Hop> = hops.into_iter().collect();
        hops.sort_unstable();
        hops.dedup();
        hops.truncate(Self::MOST_HOPS);
        match hops[..] {
            [] => None,
            [hop] => Some(Self::Via(hop)),
            _ => Some(Self::Balanced(hops.into())),
        }
    }

    /// The next hops that it names.
    #[must_use]
    pub fn hops(&self) -> &[Hop] {
        match self {
            Self::Via(hop) => std::slice::from_ref(hop),
            Self::Balanced(hops) => hops,
            Self::Attached(_) | Self::Receive(_) | Self::Unreachable | Self::Blackhole => &[],
        }
    }

    /// The interfaces and tunnels that it names; some perhaps several times.
    pub fn interfaces(&self) -> impl Iterator<Item = InterfaceName> + '_ {
        let own = match self {
            Self::Attached(name) | Self::Receive(name) => Some(*name),
            _ => None,
        };
        self.hops().iter().map(|hop| hop.interface).chain(own)
    }
}

/// A route. Different owners may have a route to one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Table.
    pub table: TableId,
    /// Destination.
    pub prefix: Prefix,
    /// Where to.
    pub path: Path,
    /// As [`Binding::expires_in`]; of shortcuts.
    #[serde(default, with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
}

/// One receiver of what is sent to a multicast group on a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// Where the copy goes.
    pub nbma: NbmaAddr,
    /// The peer's UDP port, as of [`Protection::port`].
    #[serde(default)]
    pub port: u16,
    /// As [`Binding::link`].
    pub link: Option<Hop>,
}

/// Where packets go whose next hop on this tunnel has no binding: to the NHS, on the same tunnel, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// The NHS's protocol address; its binding is programmed like any other.
    pub next_hop: ProtocolAddr,
}

/// What the path through the underlay to a peer takes, learnt from ICMP (RFC 1191, RFC 8201). Every midchain of the tunnel to
/// that address keeps to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMtu {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// The peer.
    pub nbma: NbmaAddr,
    /// Largest outer IP packet, in bytes.
    pub mtu: u16,
    /// As [`Binding::expires_in`]: then a larger packet tries again (RFC 1191 §6.3).
    #[serde(default, with = "maybe_seconds")]
    pub expires_in: Option<Duration>,
}

/// An SA by which packets come to us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundSa {
    /// Its SPI, which we chose; no two SAs of a worker have one slot.
    pub spi: Spi,
    /// Whose it is.
    pub protection: Protection,
    /// What ESP stands around.
    pub mode: SaMode,
    /// Key and salt.
    pub key: SaKey,
    /// Sequence numbers of 64 bits, of which 32 are sent (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Sequence numbers that the replay window spans (RFC 4303 §3.4.3): 64 to 4096, rounded up to whole words of 64. An SA that is there
    /// already (same SPI, key, mode and ESN) keeps the window that it has.
    pub window: u16,
    /// How much it carries.
    #[serde(default)]
    pub lifetimes: Lifetimes,
}

/// The SA by which packets of one worker go to a peer. A worker without one of its own hands its packets to the lowest one that has
/// one; with a child SA for each (RFC 9611) none has to. Another one in its place takes over between two packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundSa {
    /// Whose it is.
    pub protection: Protection,
    /// The worker that seals.
    pub worker: WorkerId,
    /// Its SPI, which the peer chose.
    pub spi: Spi,
    /// What ESP stands around.
    pub mode: SaMode,
    /// Key and salt.
    pub key: SaKey,
    /// As [`InboundSa::esn`].
    pub esn: bool,
    /// The sequence numbers that it may use here. A data plane that runs it already (same key of the object, SPI and SA key) goes on
    /// where it is and takes over the new end if that is higher; but where the lease begins behind a gap, there: what is between may be
    /// another's. Told of another mode or ESN, it goes on behind the old end.
    pub lease: Lease,
    /// How much it carries.
    #[serde(default)]
    pub lifetimes: Lifetimes,
}

/// Anything that is programmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// A port with addresses.
    Interface(Interface),
    /// A GRE tunnel.
    Tunnel(Tunnel),
    /// A LAN or underlay neighbour.
    Neighbour(Neighbour),
    /// An overlay next hop.
    Binding(Binding),
    /// A route.
    Route(Route),
    /// A receiver of multicast.
    Replica(Replica),
    /// The NHS of a tunnel.
    Fallback(Fallback),
    /// What the path to a peer takes.
    PathMtu(PathMtu),
    /// An SA to us.
    InboundSa(InboundSa),
    /// An SA from us.
    OutboundSa(OutboundSa),
}

/// What names an object. With the owner it is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Key {
    /// By name.
    Interface(InterfaceName),
    /// By name.
    Tunnel(InterfaceName),
    /// By interface and address.
    Neighbour(Hop),
    /// By tunnel and protocol address.
    Binding(InterfaceName, ProtocolAddr),
    /// By table and prefix.
    Route(TableId, Prefix),
    /// By tunnel, NBMA address and UDP port.
    Replica(InterfaceName, NbmaAddr, u16),
    /// By tunnel.
    Fallback(InterfaceName),
    /// By tunnel and NBMA address.
    PathMtu(InterfaceName, NbmaAddr),
    /// By SPI.
    InboundSa(Spi),
    /// By peer and worker.
    OutboundSa(Protection, WorkerId),
}

impl Object {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Interface(o) => Key::Interface(o.name),
            Self::Tunnel(o) => Key::Tunnel(o.name),
            Self::Neighbour(o) => Key::Neighbour(o.hop),
            Self::Binding(o) => Key::Binding(o.tunnel, o.next_hop),
            Self::Route(o) => Key::Route(o.table, o.prefix),
            Self::Replica(o) => Key::Replica(o.tunnel, o.nbma, o.port),
            Self::Fallback(o) => Key::Fallback(o.tunnel),
            Self::PathMtu(o) => Key::PathMtu(o.tunnel, o.nbma),
            Self::InboundSa(o) => Key::InboundSa(o.spi),
            Self::OutboundSa(o) => Key::OutboundSa(o.protection, o.worker),
        }
    }
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Make it so, whatever was there.
    Put(Owner, Object),
    /// Be rid of it; nothing happens if it is not there.
    Remove(Owner, Key),
    /// Marks all objects of the owner as stale. They keep forwarding.
    ResyncBegin(Owner),
    /// Sweeps the owner's objects that were not put since the mark.
    ResyncEnd(Owner),
}

/// Steps that are taken all or none: validated and reserved before the first store (not atomic as a packet sees them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Counted up by the control plane from 1 in each stream; acknowledged by it.
    pub number: u64,
    /// The steps, in order.
    pub ops: Vec<Op>,
}

/// Why a batch was refused; nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("ops[{op}]: {reason}")]
pub struct Refused {
    /// Index of the step at fault.
    pub op: usize,
    /// What is wrong with it.
    pub reason: Refusal,
}

/// What can be wrong with one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It names an interface or tunnel that is not programmed.
    #[error("no interface `{0}`")]
    NoInterface(InterfaceName),
    /// It names a port that the data plane does not have.
    #[error("no port `{0}`")]
    NoPort(String),
    /// The port or name is in use by another interface.
    #[error("`{0}` is already in use by `{1}`")]
    InUse(String, InterfaceName),
    /// Two tunnels that the same packet would belong to.
    #[error("`{0}` has the same source and key")]
    SameKey(InterfaceName),
    /// Something else still refers to it.
    #[error("`{0}` is still referred to")]
    Referred(InterfaceName),
    /// Another SA of the same worker has the slot that the SPI names.
    #[error("the slot of SPI {0} is taken by {1}")]
    SlotTaken(Spi, Spi),
    /// Numbers of a lease or a window that cannot be.
    #[error("{0}")]
    Senseless(String),
    /// A table of the data plane is full.
    #[error("no room for more {0}")]
    Full(String),
    /// Legal, but this build does not forward it.
    #[error("{0} is not supported")]
    Unsupported(String),
}

/// The data plane's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The batch.
    pub number: u64,
    /// Whether it was done.
    pub result: Result<(), Refused>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_to_several_hops_is_the_same_however_they_are_told() {
        let hop = |text: &str| Hop { interface: "lan".parse().unwrap(), next_hop: text.parse().unwrap() };
        let (a, b) = (hop("10.0.0.1"), hop("10.0.0.2"));
        assert_eq!(Path::to([b, a, b]), Path::to([a, b]));
        assert_eq!(Path::to([b, b]), Some(Path::Via(b)));
        assert_eq!(Path::to([]), None);
        let many = (0..40).map(|n| hop(&format!("10.0.1.{n}")));
        assert_eq!(Path::to(many).unwrap().hops().len(), Path::MOST_HOPS);
    }

    #[test]
    fn a_remaining_time_stands_in_json_as_seconds() {
        let route = Route {
            table: TableId(0),
            prefix: "192.0.2.0/24".parse().unwrap(),
            path: Path::Blackhole,
            expires_in: Some(Duration::from_millis(1500)),
        };
        let json = serde_json::to_value(&route).unwrap();
        assert_eq!(json["expires_in"], 1.5);
        assert_eq!(serde_json::from_value::<Route>(json).unwrap(), route);
    }
}
