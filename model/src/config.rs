//! The operator's file, as it is written. Unknown fields are refused; defaults stand here and nowhere else.
//!
//! `Config::check` (see [`check`]) is the one place that says whether a file makes sense; it names what is wrong by path.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::program::{OuterDf, TcpMss};
use crate::sa::ProfileName;
use crate::{InterfaceAddr, InterfaceName, NbmaAddr, Prefix, TableId, VlanId};

pub mod check;
pub mod diff;
mod ike;
mod nhrp;
mod profile;

pub use ike::{Ike, IkeLimits, Psk, Registers, Secret};
pub use profile::{Profile, Static, StaticKey, StaticSa};

pub use nhrp::{
    Cluster, Map, MapMulticast, Nhrp, NhrpLimits, Nhs, NhsFallback, NhsNbma, NhsProtocol, Registration,
};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The node itself.
    pub node: Node,
    /// Where its data plane is.
    pub dataplane: Dataplane,
    /// Where its operator comes in.
    pub management: Management,
    /// Forwarding tables beside table 0.
    pub tables: Vec<Table>,
    /// Ports with addresses.
    pub interfaces: Vec<Interface>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// How tunnels are protected.
    pub profiles: Vec<Profile>,
    /// Tunnels.
    pub tunnels: Vec<Tunnel>,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Name of the node, for its own logs and `show`.
    pub name: String,
    /// File that keeps registrations and request ids over a restart; written atomically.
    pub state_file: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "nave".to_owned(), state_file: "/var/lib/nave/state.json".into() }
    }
}

/// `[dataplane]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dataplane {
    /// Unix socket that `nave-dataplane` serves.
    pub socket: PathBuf,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self { socket: "/run/nave/dataplane.sock".into() }
    }
}

/// `[management]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Management {
    /// Unix socket that `nave-controlplane` serves for `nave` and other gRPC clients; mode 0660.
    pub socket: PathBuf,
}

impl Default for Management {
    fn default() -> Self {
        Self { socket: "/run/nave/controlplane.sock".into() }
    }
}

/// `[[tables]]`: a forwarding table. Interfaces of different tables may have the same addresses: the twins of a table other than
/// 0 live in a network namespace of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its number, from 1 on.
    pub id: TableId,
    /// The network namespace of its twins, a name as of `ip netns`; made if it is not there. If not given: `nave-<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

impl Table {
    /// The network namespace of its twins.
    #[must_use]
    pub fn netns(&self) -> String {
        self.netns.clone().unwrap_or_else(|| format!("nave-{}", self.id.0))
    }
}

impl Config {
    /// The network namespace of a table's twins; `None`: that of the processes, which is that of table 0.
    #[must_use]
    pub fn netns(&self, table: TableId) -> Option<String> {
        self.tables.iter().find(|of| of.id == table).map(Table::netns)
    }

    /// The tables that there are: 0, which needs no words, and the others in their order.
    #[must_use]
    pub fn table_ids(&self) -> Vec<TableId> {
        std::iter::once(TableId::default()).chain(self.tables.iter().map(|table| table.id)).collect()
    }
}

/// `[[interfaces]]`: a data-plane port, or one VLAN of it, with a kernel twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Name of the interface and of its twin.
    pub name: InterfaceName,
    /// Port of the data plane; the interface's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The VLAN of that port that this is (IEEE 802.1Q); what comes and goes without a tag if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// Own addresses. An interface without any takes those that the twin gets from elsewhere (DHCP, `ip addr`).
    #[serde(default)]
    pub addresses: Vec<InterfaceAddr>,
    /// Largest IP packet in bytes.
    #[serde(default = "default_port_mtu")]
    pub mtu: u16,
    /// FIB table.
    #[serde(default)]
    pub table: TableId,
    /// Whether transit traffic may enter and leave here. If not given: yes, but no on a tunnel's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<bool>,
}

fn default_port_mtu() -> u16 {
    1500
}

/// `[[routes]]`: a static route; a next hop, an interface, or both. Several to one prefix, each with a next hop, are paths of
/// equal cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination.
    pub prefix: Prefix,
    /// Next hop; its interface is the connected one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// Interface: alone, every destination is its own next hop there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// FIB table.
    #[serde(default)]
    pub table: TableId,
}

/// What a tunnel connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Any number of peers, resolved by NHRP.
    GreMultipoint,
    /// One peer, at `destination`.
    Gre,
}

/// `[[tunnels]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Name of the tunnel and of its twin.
    pub name: InterfaceName,
    /// `gre-multipoint` or `gre`.
    pub mode: Mode,
    /// Interface whose address is the tunnel's NBMA address: its first, or the first of the family of the peers that are named here.
    pub source: InterfaceName,
    /// NBMA address of the peer; with mode `gre`, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<NbmaAddr>,
    /// GRE key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,
    /// Largest inner IP packet in bytes; see [`Config::tunnel_mtu`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The profile by which its packets are protected; without one they go in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<ProfileName>,
    /// TTL of the outer header.
    #[serde(default = "default_ttl")]
    pub ttl: u8,
    /// Own addresses in the overlay; the first of each family is the protocol address that is registered.
    pub addresses: Vec<InterfaceAddr>,
    /// FIB table of inner packets.
    #[serde(default)]
    pub table: TableId,
    /// FIB table in which NBMA addresses are looked up.
    #[serde(default)]
    pub underlay_table: TableId,
    /// The don't-fragment bit of outer IPv4 headers: `copy`, `set` or `clear`.
    #[serde(default)]
    pub outer_df: OuterDf,
    /// TCP segment sizes: `auto`, `off`, or the most for IPv4 in bytes (20 less for IPv6).
    #[serde(default)]
    pub tcp_mss: Mss,
    /// NHRP on this tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nhrp: Option<Nhrp>,
}

impl Tunnel {
    /// Whether its outer packets are IPv6, as far as the file says it.
    fn is_ipv6(&self, source: &Interface) -> bool {
        let own = self.nbma_of(source.addresses.iter().copied()).or(self.peers().next());
        own.is_some_and(|own| own.0.is_ipv6())
    }

    /// Length in bytes of its GRE header (RFC 2784 §2.1; RFC 2890 §2).
    fn gre_len(&self) -> usize {
        4 + if self.key.is_some() { 4 } else { 0 }
    }

    /// Every NBMA address of another node that it names; what stands as a DNS name has none yet.
    pub fn peers(&self) -> impl Iterator<Item = NbmaAddr> + '_ {
        let nhrp = self.nhrp.iter();
        let named = nhrp.flat_map(|nhrp| {
            let multicast = nhrp.map_multicast.iter().filter_map(|map| match map {
                MapMulticast::Nbma(nbma) => Some(*nbma),
                MapMulticast::Dynamic | MapMulticast::Nhs => None,
            });
            nhrp.nhs
                .iter()
                .filter_map(|nhs| nhs.nbma.addr())
                .chain(nhrp.map.iter().map(|map| map.nbma))
                .chain(multicast)
        });
        self.destination.into_iter().chain(named)
    }

    /// Its addresses in the overlay: those of the file, and one that is link-local if any is IPv6, since routing daemons go by those. Link-local
    /// ones stand last. Where the file has none it is made of the first other one: its last 64 bits behind fe80::/64 or, where those are
    /// zero, its first 64.
    #[must_use]
    pub fn overlay_addresses(&self) -> Vec<InterfaceAddr> {
        let is_last = |own: &InterfaceAddr| is_link_local(own.addr());
        let (link_local, mut all): (Vec<_>, Vec<_>) = self.addresses.iter().copied().partition(is_last);
        let made = all.iter().find_map(|own| match own.addr() {
            IpAddr::V6(addr) => InterfaceAddr::new(link_local_of(addr).into(), LINK_LOCAL_LEN),
            IpAddr::V4(_) => None,
        });
        if link_local.is_empty() {
            all.extend(made)
        } else {
            all.extend(link_local)
        }
        all
    }

    /// Its own NBMA address, of those that its source has: the first of the family of the peers that it names; if it names none, or
    /// the source has none of that family, the first. A link-local address is none.
    pub fn nbma_of(&self, addresses: impl IntoIterator<Item = InterfaceAddr>) -> Option<NbmaAddr> {
        let all = addresses.into_iter().map(|own| own.addr()).filter(|addr| !is_link_local(*addr));
        let all: Vec<IpAddr> = all.collect();
        let fits = |own: &&IpAddr| self.peers().next().is_none_or(|peer| peer.0.is_ipv4() == own.is_ipv4());
        all.iter().find(fits).or(all.first()).copied().map(NbmaAddr)
    }
}

/// Prefixes of link-local addresses have 64 bits (RFC 4291 §2.5.6).
const LINK_LOCAL_LEN: u8 = 64;

pub(crate) fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The link-local address that goes with another one.
fn link_local_of(addr: Ipv6Addr) -> Ipv6Addr {
    let id = match addr.to_bits() as u64 {
        // That of any router of the link (RFC 4291 §2.6.1).
        0 => (addr.to_bits() >> 64) as u64,
        id => id,
    };
    Ipv6Addr::from(0xfe80 << 112 | u128::from(id))
}

fn default_ttl() -> u8 {
    255
}

/// [`TcpMss`] as it is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mss(pub TcpMss);

impl Serialize for Mss {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            TcpMss::Off => serializer.serialize_str("off"),
            TcpMss::Auto => serializer.serialize_str("auto"),
            TcpMss::Most(most) => serializer.serialize_u16(most),
        }
    }
}

impl<'de> Deserialize<'de> for Mss {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Mss;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`auto`, `off`, or a number of bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mss, E> {
                match text {
                    "auto" => Ok(Mss(TcpMss::Auto)),
                    "off" => Ok(Mss(TcpMss::Off)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: serde::de::Error>(self, most: u64) -> Result<Mss, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(most), &self);
                u16::try_from(most).map(|most| Mss(TcpMss::Most(most))).map_err(|_| wrong())
            }
            fn visit_i64<E: serde::de::Error>(self, most: i64) -> Result<Mss, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(most), &self);
                u16::try_from(most).map(|most| Mss(TcpMss::Most(most))).map_err(|_| wrong())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_with_an_ipv6_address_has_a_link_local_one_and_that_stands_last() {
        let of = |addresses: &[&str]| {
            let list: Vec<_> = addresses.iter().map(|text| format!("\"{text}\"")).collect();
            let text = format!(
                "name = \"tunnel0\"\nmode = \"gre-multipoint\"\nsource = \"wan\"\naddresses = [{}]\n",
                list.join(", ")
            );
            let tunnel: Tunnel = toml::from_str(&text).unwrap();
            tunnel.overlay_addresses().iter().map(InterfaceAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&["10.0.0.1/24"]), ["10.0.0.1/24"]);
        assert_eq!(
            of(&["10.0.0.1/24", "2001:db8::7/64", "2001:db8:1::9/64"]),
            ["10.0.0.1/24", "2001:db8::7/64", "2001:db8:1::9/64", "fe80::7/64"]
        );
        assert_eq!(of(&["2001:db8:0:5::/128"]), ["2001:db8:0:5::/128", "fe80::2001:db8:0:5/64"]);
        assert_eq!(of(&["fe80::1:2/64", "2001:db8::7/64"]), ["2001:db8::7/64", "fe80::1:2/64"]);
        assert_eq!(of(&["fe80::1:2/64"]), ["fe80::1:2/64"]);
    }
}
