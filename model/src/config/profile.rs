//! `[[profiles]]`: how tunnels are protected. By IKE (`ike`); or by static keys, which are for tests and closed labs: who has the file has
//! all that was ever sent, and nobody changes them but the operator.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Config, Ike, Tunnel};
use crate::NbmaAddr;
use crate::sa::{Encapsulation, Lifetimes, ProfileName, SaKey, SaMode, Spi};

/// `[[profiles]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What tunnels call it by.
    pub name: ProfileName,
    /// What ESP stands around.
    #[serde(default)]
    pub mode: SaMode,
    /// Packets that may overtake each other, in sequence numbers: 64 to 4096.
    #[serde(default = "default_replay_window")]
    pub replay_window: u16,
    /// How much an SA carries.
    #[serde(default)]
    pub lifetimes: Lifetimes,
    /// Peers whose keys IKEv2 agrees on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike: Option<Ike>,
    /// Peers with static keys.
    #[serde(default, rename = "static", skip_serializing_if = "Vec::is_empty")]
    pub statics: Vec<Static>,
}

fn default_replay_window() -> u16 {
    1024
}

/// `[[profiles.static]]`: a peer with keys that are written here. For tests and closed labs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Static {
    /// Our NBMA address; if not given: that of the tunnels of the profile, which then have but one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<NbmaAddr>,
    /// The peer's.
    pub remote: NbmaAddr,
    /// The peer's UDP port, if ESP is encapsulated (RFC 3948; ours is 4500); 0: it is not.
    #[serde(default)]
    pub port: u16,
    /// To us.
    pub inbound: StaticSa,
    /// From us.
    pub outbound: StaticSa,
}

/// One direction of a [`Static`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticSa {
    /// Its SPI. That of the inbound one says which worker has both.
    pub spi: Spi,
    /// Its key.
    pub key: StaticKey,
    /// Sequence numbers of 64 bits (RFC 4303 §2.2.1).
    #[serde(default)]
    pub esn: bool,
}

/// A key as it is written: hexadecimal digits of the key and four bytes of salt, 40 or 72. It is read, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticKey(pub SaKey);

/// What stands in the place of a key wherever a configuration is shown.
pub(super) const HIDDEN: &str = "(hidden)";

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for StaticKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for StaticKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(OfText)
    }
}

/// Reads a key. What is wrong with one is said without saying it.
struct OfText;

impl serde::de::Visitor<'_> for OfText {
    type Value = StaticKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StaticKey, E> {
        if text == HIDDEN {
            return Err(E::custom("is the word that stands for a key where one is shown, not a key"));
        }
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let Some(keymat) = bytes(digits) else {
            return Err(E::custom("a key is hexadecimal digits"));
        };
        let key = SaKey::new(&keymat).ok_or_else(|| {
            let len = keymat.len();
            E::custom(format_args!("{len} bytes are not a key of 16 or 32 and a salt of 4"))
        })?;
        Ok(StaticKey(key))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<StaticKey, E> {
        Err(E::custom("a key stands in quotes"))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<StaticKey, E> {
        Err(E::custom("a key stands in quotes"))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<StaticKey, E> {
        Err(E::custom("a key stands in quotes"))
    }
}

/// What hexadecimal digits say, two a byte.
fn bytes(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    // Room for all from the beginning: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for pair in pairs {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        bytes.push((high? << 4 | low?) as u8);
    }
    Some(bytes)
}

impl Config {
    /// The profile of that name.
    #[must_use]
    pub fn profile(&self, name: ProfileName) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }

    /// The MTU of a tunnel: the largest inner IP packet in bytes. Of a protected one for which the file has none it is what fits into
    /// its source's with ESP in UDP around it, since a NAT may stand before any peer.
    #[must_use]
    pub fn tunnel_mtu(&self, tunnel: &Tunnel) -> u16 {
        let fits = || {
            let profile = self.profile(tunnel.protection?)?;
            let source = self.interfaces.iter().find(|interface| interface.name == tunnel.source)?;
            let around = profile.encapsulation(tunnel.is_ipv6(source), true);
            u16::try_from(around.most(source.mtu.into()).saturating_sub(tunnel.gre_len())).ok()
        };
        tunnel.mtu.or_else(fits).unwrap_or(DEFAULT_TUNNEL_MTU)
    }
}

/// Of a tunnel in the clear.
const DEFAULT_TUNNEL_MTU: u16 = 1400;

impl Profile {
    /// What stands around its packets.
    #[must_use]
    pub fn encapsulation(&self, is_ipv6: bool, is_udp: bool) -> Encapsulation {
        Encapsulation { mode: self.mode, is_ipv6, is_udp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StaticSa, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// Input: right keys, and wrong ones of each kind. Output: they are read, and what is said of a wrong one has none of its digits.
    #[test]
    fn a_key_is_read_and_a_wrong_one_is_not_repeated() {
        let digits = "c0ffee11".repeat(9);
        for text in [digits.clone(), format!("0x{digits}"), digits.to_uppercase()] {
            let sa = read(&format!("spi = 0x1001\nkey = \"{text}\"\n")).unwrap();
            assert_eq!(sa.key.0.keymat(), [0xc0, 0xff, 0xee, 0x11].repeat(9));
            assert_eq!((sa.spi.value(), sa.esn), (0x1001, false));
            let shown = format!("{sa:?} {}", toml::to_string(&sa).unwrap());
            assert!(!shown.to_lowercase().contains("c0ff"), "{shown}");
        }
        for wrong in [
            "\"0xc0ffee\"",
            "\"c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff\\u00e9\"",
            "\"0xc0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffe\"",
            "\"c0ffee c0ffee c0ffee c0ffee c0ffee c0ffee c0ff\"",
            "\"(hidden)\"",
            "0xc0ffee",
            "12648430",
            "1.2648430",
            "[\"0xc0ffee\"]",
            "{ a = \"c0ffee\" }",
            "0xc0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee",
        ] {
            let said = read(&format!("spi = 0x1001\nkey = {wrong}\n")).unwrap_err();
            assert!(!said.contains("c0ff") && !said.contains("2648430"), "{wrong}: {said}");
        }
    }
}
