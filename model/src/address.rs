//! Addresses. Overlay and underlay addresses are two types that nothing converts into each other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not an address, prefix or name of the kind its place wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct NotA {
    /// What was written.
    pub text: String,
    /// What it should have been, with an article: "an IP address".
    pub wanted: &'static str,
}

impl NotA {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

/// Serde as text, through `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

/// An address of the overlay: of a tunnel, or of a host behind one (RFC 2332: protocol address).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolAddr(pub IpAddr);

/// An address of the underlay: where the tunnel's packets go (RFC 2332: NBMA address).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NbmaAddr(pub IpAddr);

macro_rules! address {
    ($type:ident, $wanted:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `pad`-aware, so that tables line up.
                f.pad(&self.0.to_string())
            }
        }
        impl FromStr for $type {
            type Err = NotA;
            fn from_str(text: &str) -> Result<Self, NotA> {
                text.parse().map(Self).map_err(|_| NotA::new(text, $wanted))
            }
        }
        impl From<Ipv4Addr> for $type {
            fn from(addr: Ipv4Addr) -> Self {
                Self(addr.into())
            }
        }
        impl From<Ipv6Addr> for $type {
            fn from(addr: Ipv6Addr) -> Self {
                Self(addr.into())
            }
        }
    };
}
impl ProtocolAddr {
    /// Whether it has a meaning on its link alone (fe80::/10, RFC 4291 §2.5.6): on one tunnel, and no route leads to it.
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        matches!(self.0, IpAddr::V6(v6) if v6.is_unicast_link_local())
    }
}

address!(ProtocolAddr, "a protocol address");
address!(NbmaAddr, "an NBMA address");

/// An address prefix; bits behind the length are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that holds `addr`; `None` if the family has fewer bits.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        if len > width(addr) {
            return None;
        }
        let addr = match addr {
            IpAddr::V4(a) => {
                Ipv4Addr::from(u32::from(a) & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).into()
            }
            IpAddr::V6(a) => {
                Ipv6Addr::from(u128::from(a) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0))
                    .into()
            }
        };
        Some(Self { addr, len })
    }

    /// The prefix of one host.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: width(addr) }
    }

    /// First address of the prefix.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.len
    }

    /// Whether routes lead there: not if it lies within 0.0.0.0/8, 127.0.0.0/8 (RFC 1122 §3.2.1.3), 224.0.0.0/4 or 240.0.0.0/4
    /// (RFC 1112 §4), ff00::/8, or is `::` or `::1` (RFC 4291 §2.5, §2.7).
    #[must_use]
    pub fn is_routable(self) -> bool {
        match self.addr {
            IpAddr::V4(addr) => match addr.octets()[0] {
                0 | 127 => self.len < 8,
                first => self.len < 3 || first < 224,
            },
            IpAddr::V6(addr) if addr.is_multicast() => false,
            IpAddr::V6(addr) => self.len < 128 || !(addr.is_unspecified() || addr.is_loopback()),
        }
    }

    /// Whether this is the default route (length 0).
    #[must_use]
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Whether the prefix holds one host.
    #[must_use]
    pub fn is_host(self) -> bool {
        self.len == width(self.addr)
    }

    /// Whether `addr` is inside.
    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        Self::new(addr, self.len).is_some_and(|p| p == self)
    }
}

/// Bits of an address of this family.
fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl FromStr for Prefix {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let interface: InterfaceAddr =
            text.parse().map_err(|_| NotA::new(text, "a prefix (ADDRESS/LENGTH)"))?;
        let prefix = interface.prefix();
        if prefix.addr != interface.addr {
            return Err(NotA::new(text, "a prefix: bits behind its length are set"));
        }
        Ok(prefix)
    }
}

/// An interface's own address with the length of the prefix it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceAddr {
    addr: IpAddr,
    len: u8,
}

impl InterfaceAddr {
    /// `None` if the family has fewer than `len` bits.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        (len <= width(addr)).then_some(Self { addr, len })
    }

    /// The address itself.
    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// Length of its prefix in bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.len
    }

    /// The prefix that the address is in.
    #[must_use]
    pub fn prefix(self) -> Prefix {
        Prefix::new(self.addr, self.len).unwrap_or(Prefix::host(self.addr))
    }
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.len))
    }
}

impl FromStr for InterfaceAddr {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let bad = || NotA::new(text, "an interface address (ADDRESS/LENGTH)");
        let (addr, len) = text.split_once('/').ok_or_else(bad)?;
        Self::new(addr.parse().map_err(|_| bad())?, len.parse().map_err(|_| bad())?).ok_or_else(bad)
    }
}

/// An Ethernet address, bytes as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl FromStr for Mac {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let bad = || NotA::new(text, "an Ethernet address (xx:xx:xx:xx:xx:xx)");
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            *byte = parts.next().and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(bad)?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(mac))
    }
}

serde_as_text!(ProtocolAddr, NbmaAddr, Prefix, InterfaceAddr, Mac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_masks_and_text_with_host_bits_is_refused() {
        let prefix = Prefix::new("192.168.7.9".parse().unwrap(), 24).unwrap();
        assert_eq!(prefix.to_string(), "192.168.7.0/24");
        assert!(prefix.contains("192.168.7.255".parse().unwrap()));
        assert!(!prefix.contains("192.168.8.0".parse().unwrap()));
        assert!(!prefix.contains("::".parse().unwrap()));
        assert!("192.168.7.9/24".parse::<Prefix>().is_err());
        assert!("0.0.0.0/33".parse::<Prefix>().is_err());
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("255.1.2.3".parse().unwrap()));
        assert!("::/0".parse::<Prefix>().unwrap().is_default());
    }

    #[test]
    fn routes_lead_to_hosts_and_to_what_holds_them() {
        let routable = |text: &str| text.parse::<Prefix>().unwrap().is_routable();
        let hosts =
            ["0.0.0.0/0", "0.0.0.0/7", "126.0.0.0/7", "192.0.0.0/2", "223.255.255.0/24", "::/0", "fe80::/10"];
        assert_eq!(hosts.map(routable), [true; 7]);
        let none =
            ["0.0.0.0/8", "127.1.0.0/16", "224.0.0.0/4", "250.0.0.1/32", "ff02::/16", "::/128", "::1/128"];
        assert_eq!(none.map(routable), [false; 7]);
    }

    #[test]
    fn a_mac_has_six_bytes() {
        assert_eq!("02:00:00:00:00:0a".parse::<Mac>().unwrap().to_string(), "02:00:00:00:00:0a");
        assert!("02:00:00:00:00".parse::<Mac>().is_err());
        assert!("02:00:00:00:00:00:01".parse::<Mac>().is_err());
    }
}
