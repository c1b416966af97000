//! `[tunnels.nhrp]`: NHRP on a tunnel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::NotA;
use crate::time::HoldingTime;
use crate::{NbmaAddr, Prefix, ProtocolAddr};

/// `[tunnels.nhrp]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nhrp {
    /// The cloud this tunnel is in; local to the node. Redirects are sent only within one.
    pub network_id: u32,
    /// Text of the authentication extension, 1 to 8 characters; in clear on the wire, a tag and no protection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
    /// How long others may use what we tell them, in seconds.
    #[serde(default = "default_holding_time")]
    pub holding_time: HoldingTime,
    /// Next-hop servers to register with.
    #[serde(default)]
    pub nhs: Vec<Nhs>,
    /// Static bindings.
    #[serde(default)]
    pub map: Vec<Map>,
    /// Receivers of multicast: NBMA addresses, `dynamic` for every registered client, `nhs` for every server that is registered with.
    #[serde(default)]
    pub map_multicast: Vec<MapMulticast>,
    /// Send traffic indications for what leaves by the cloud it came from (hub, phase 3).
    #[serde(default)]
    pub redirect: bool,
    /// Act on traffic indications: resolve, and install shortcuts (spoke, phase 3); answer for own prefixes.
    #[serde(default)]
    pub shortcut: bool,
    /// How this node registers.
    #[serde(default)]
    pub registration: Registration,
    /// Clusters of servers that are not registered with whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Cluster>,
    /// When a better server takes the place of a worse one.
    #[serde(default)]
    pub nhs_fallback: NhsFallback,
    /// Answer resolution requests for registered clients from the cache (server), instead of passing them on to the client.
    #[serde(default)]
    pub answer_from_cache: bool,
    /// Clients may register prefixes inside of these, if they do not want them unique. If not given: only their own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept_prefixes: Vec<Prefix>,
    /// How much others may ask.
    #[serde(default)]
    pub limits: NhrpLimits,
}

impl Nhrp {
    /// A section that says nothing but the network id.
    #[must_use]
    pub fn new(network_id: u32) -> Self {
        Self {
            network_id,
            authentication: None,
            holding_time: default_holding_time(),
            nhs: Vec::new(),
            map: Vec::new(),
            map_multicast: Vec::new(),
            redirect: false,
            shortcut: false,
            registration: Registration::default(),
            clusters: Vec::new(),
            nhs_fallback: NhsFallback::default(),
            answer_from_cache: false,
            accept_prefixes: Vec::new(),
            limits: NhrpLimits::default(),
        }
    }
}

fn default_holding_time() -> HoldingTime {
    HoldingTime(600)
}

/// A next-hop server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nhs {
    /// Its tunnel address, or `dynamic`.
    pub protocol: NhsProtocol,
    /// Its underlay address, or its DNS name.
    pub nbma: NhsNbma,
    /// Which servers of its cluster are taken first: 0 before 1, and so on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u8,
    /// The cluster that it is in.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cluster: u8,
}

// Serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl Nhs {
    /// A server whose addresses are known, of the first priority in cluster 0.
    #[must_use]
    pub const fn new(protocol: ProtocolAddr, nbma: NbmaAddr) -> Self {
        Self { protocol: NhsProtocol::Addr(protocol), nbma: NhsNbma::Addr(nbma), priority: 0, cluster: 0 }
    }
}

/// What is known of a server's tunnel address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NhsProtocol {
    /// It is this one.
    Addr(ProtocolAddr),
    /// The server tells it in its reply. Registered with it is the tunnel's IPv4 address, or if there is none its IPv6 address.
    Dynamic,
    /// As [`Self::Dynamic`], for the tunnel's IPv6 address.
    DynamicIpv6,
}

impl NhsProtocol {
    /// The address, if it stands there.
    #[must_use]
    pub const fn addr(self) -> Option<ProtocolAddr> {
        match self {
            Self::Addr(addr) => Some(addr),
            Self::Dynamic | Self::DynamicIpv6 => None,
        }
    }
}

impl fmt::Display for NhsProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Dynamic => f.write_str("dynamic"),
            Self::DynamicIpv6 => f.write_str("dynamic-ipv6"),
        }
    }
}

impl FromStr for NhsProtocol {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dynamic" => Ok(Self::Dynamic),
            "dynamic-ipv6" => Ok(Self::DynamicIpv6),
            _ => text
                .parse()
                .map(Self::Addr)
                .map_err(|_| NotA::new(text, "a tunnel address, `dynamic` or `dynamic-ipv6`")),
        }
    }
}

crate::address::serde_as_text!(NhsProtocol);

/// Where a server is in the underlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NhsNbma {
    /// At this address.
    Addr(NbmaAddr),
    /// At the address that this DNS name has.
    Name(String),
}

impl NhsNbma {
    /// The address, if it stands there.
    #[must_use]
    pub const fn addr(&self) -> Option<NbmaAddr> {
        match self {
            Self::Addr(addr) => Some(*addr),
            Self::Name(_) => None,
        }
    }
}

impl fmt::Display for NhsNbma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for NhsNbma {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(addr) => Ok(Self::Addr(addr)),
            Err(_) if is_host_name(text) => Ok(Self::Name(text.to_owned())),
            Err(_) => Err(NotA::new(text, "an NBMA address or a DNS name")),
        }
    }
}

crate::address::serde_as_text!(NhsNbma);

/// Whether a text is a host name (RFC 1123 §2.1): labels of letters, digits and hyphens. What ends in a number is meant as an address.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_numeric = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_numeric)
}

/// A cluster of servers, and how many of them are registered with at a time. A cluster that is not named is registered with whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its number.
    pub id: u8,
    /// So many servers of it are registered with, those of the best priority that answer.
    pub max_connections: u8,
}

/// How long a better server must have answered before it takes the place of a worse one: seconds, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NhsFallback {
    /// The worse one is kept for as long as it answers.
    Never,
    /// So many seconds.
    After(u16),
}

impl Default for NhsFallback {
    fn default() -> Self {
        Self::After(60)
    }
}

impl Serialize for NhsFallback {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str("never"),
            Self::After(seconds) => serializer.serialize_u16(*seconds),
        }
    }
}

impl<'de> Deserialize<'de> for NhsFallback {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = NhsFallback;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`never` or a number of seconds up to 65535")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NhsFallback, E> {
                match text {
                    "never" => Ok(NhsFallback::Never),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<NhsFallback, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(seconds), &self);
                u16::try_from(seconds).map(NhsFallback::After).map_err(|_| wrong())
            }
            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<NhsFallback, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(seconds), &self);
                u16::try_from(seconds).map(NhsFallback::After).map_err(|_| wrong())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `[tunnels.nhrp.limits]`: how much others may ask of this node on this tunnel. What is beyond is refused with "insufficient
/// resources" (RFC 2332 §5.2.0.1, code 5) where there is an answer, dropped where not, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NhrpLimits {
    /// Registered clients.
    pub registrations: u32,
    /// Entries of the cache, those of registered clients among them.
    pub entries: u32,
    /// Requests per second that are taken, of all peers together.
    pub requests_per_second: u32,
    /// Requests per second that are taken of one peer: one NBMA address, and one UDP port where encapsulated.
    pub requests_per_second_per_peer: u32,
}

impl Default for NhrpLimits {
    fn default() -> Self {
        Self {
            registrations: 100_000,
            entries: 200_000,
            requests_per_second: 50_000,
            requests_per_second_per_peer: 1_000,
        }
    }
}

/// A static binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Tunnel address.
    pub protocol: ProtocolAddr,
    /// Underlay address.
    pub nbma: NbmaAddr,
}

/// Who gets multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapMulticast {
    /// Every client that is registered.
    Dynamic,
    /// Every server that this node registers with, wherever it is.
    Nhs,
    /// This one.
    Nbma(NbmaAddr),
}

impl fmt::Display for MapMulticast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dynamic => f.write_str("dynamic"),
            Self::Nhs => f.write_str("nhs"),
            Self::Nbma(nbma) => nbma.fmt(f),
        }
    }
}

impl FromStr for MapMulticast {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dynamic" => Ok(Self::Dynamic),
            "nhs" => Ok(Self::Nhs),
            _ => text
                .parse()
                .map(Self::Nbma)
                .map_err(|_| NotA::new(text, "an NBMA address, `dynamic` or `nhs`")),
        }
    }
}

crate::address::serde_as_text!(MapMulticast);

/// `[tunnels.nhrp.registration]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registration {
    /// Ask the server to keep the binding against a registration from another NBMA address.
    pub unique: bool,
}

impl Default for Registration {
    fn default() -> Self {
        Self { unique: true }
    }
}
