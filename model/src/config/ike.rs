//! `[profiles.ike]`: peers whose keys IKEv2 agrees on (RFC 7296).

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::profile::HIDDEN;
use crate::ike::{EspSuite, Group, Identity, IdentityPattern, IkeSuite};

/// `[profiles.ike]`. Of a profile with static keys there is none. A certificate or at least one pre-shared key is needed; with both, ours is the
/// certificate, and a peer may prove itself by either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ike {
    /// Who we say we are. If not given: with a certificate its first name (DNS, address, mail; else its subject), without one our NBMA address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// PEM file of our certificate, and of those between it and an authority of the peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key (PKCS #8, or SEC1 of EC, or PKCS #1 of RSA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// PEM files of the authorities that peers' certificates come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<PathBuf>,
    /// PEM or DER files of their revocation lists. With any, a certificate whose issuer has none here is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<PathBuf>,
    /// Pre-shared keys. Of several that admit a peer the narrowest counts.
    #[serde(default, rename = "psk", skip_serializing_if = "Vec::is_empty")]
    pub psks: Vec<Psk>,
    /// Peers that are let in: everybody who proves an identity, if not given.
    #[serde(default = "everybody")]
    pub peers: Vec<IdentityPattern>,
    /// What a peer may register with NHRP.
    #[serde(default)]
    pub registers: Registers,
    /// Algorithms of IKE SAs, the preferred ones first.
    #[serde(default = "default_proposals")]
    pub proposals: Vec<IkeSuite>,
    /// Algorithms of child SAs, the preferred ones first.
    #[serde(default = "default_esp")]
    pub esp: Vec<EspSuite>,
    /// An IKE SA is rekeyed when it is this old, less up to a tenth. Seconds.
    #[serde(default = "default_lifetime")]
    pub lifetime: u32,
    /// A child SA is rekeyed when it is this old, less up to a tenth. Seconds. In bytes and packets: `lifetimes.soft` of the profile.
    #[serde(default = "default_child_lifetime")]
    pub child_lifetime: u32,
    /// A peer of whom nothing was heard for so long is asked whether it lives (RFC 7296 §2.4). Seconds.
    #[serde(default = "default_dead_peer_detection")]
    pub dead_peer_detection: u16,
    /// SAs of a peer that is not a server are let go when they carried nothing for so long. Seconds; 0: never.
    #[serde(default = "default_idle")]
    pub idle: u32,
    /// Where we are behind a NAT, something is sent this often to keep it open (RFC 3948 §4). Seconds.
    #[serde(default = "default_nat_keepalive")]
    pub nat_keepalive: u16,
    /// Largest IP packet in bytes that a message of ours goes in without being fragmented by IKE (RFC 7383).
    #[serde(default = "default_fragment_size")]
    pub fragment_size: u16,
    /// One pair of child SAs for each worker, where the peer takes that (RFC 9611).
    #[serde(default)]
    pub child_per_worker: bool,
    /// How much there may be.
    #[serde(default)]
    pub limits: IkeLimits,
}

/// `[[profiles.ike.psk]]`: a pre-shared key. One that people can remember is found by trying, by whoever hears the exchange and answers in the peer's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Psk {
    /// Whose.
    #[serde(default = "anybody")]
    pub peer: IdentityPattern,
    /// The key, as text. This or `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file that holds it, without the line's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A secret as it is written. It is read, and never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;
        impl serde::de::Visitor<'_> for OfText {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in quotes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                if text == HIDDEN {
                    return Err(E::custom(
                        "is the word that stands for a secret where one is shown, not a secret",
                    ));
                }
                Ok(Secret(text.to_owned()))
            }
            // What is wrong with one is said without saying it.
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret stands in quotes"))
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom("a secret stands in quotes"))
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret stands in quotes"))
            }
        }
        deserializer.deserialize_str(OfText)
    }
}

/// What a peer may register with NHRP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Registers {
    /// Any protocol address that nobody else has registered.
    #[default]
    Anything,
    /// Protocol addresses that its certificate names (subjectAltName), or that are its identity.
    Certified,
}

/// `[profiles.ike.limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IkeLimits {
    /// Peers that have begun and not proved who they are, in all.
    pub half_open: u32,
    /// Of one source address and port range: those of one address may be many behind a NAT.
    pub half_open_per_address: u32,
    /// From so many on, who begins has to show that it is where it says (a cookie, RFC 7296 §2.6).
    pub cookies_above: u32,
    /// Proofs that are checked per second.
    pub auth_per_second: u32,
    /// IKE SAs.
    pub sas: u32,
}

impl Default for IkeLimits {
    fn default() -> Self {
        Self {
            half_open: 8192,
            half_open_per_address: 256,
            cookies_above: 512,
            auth_per_second: 2000,
            sas: 65_536,
        }
    }
}

fn everybody() -> Vec<IdentityPattern> {
    vec![IdentityPattern::Any]
}

fn anybody() -> IdentityPattern {
    IdentityPattern::Any
}

fn default_proposals() -> Vec<IkeSuite> {
    use crate::ike::{Cipher, Integrity, Prf};
    let groups = [Group::X25519, Group::P256, Group::P384, Group::P521, Group::Modp2048];
    let kinds = [
        (Cipher::AesGcm256, None, Prf::Sha384),
        (Cipher::AesGcm128, None, Prf::Sha256),
        (Cipher::AesCbc256, Some(Integrity::Sha256), Prf::Sha256),
    ];
    let all = kinds.into_iter().flat_map(|(cipher, integrity, prf)| {
        groups.map(|group| IkeSuite { cipher, integrity, prf, group, additional: None })
    });
    all.collect()
}

fn default_esp() -> Vec<EspSuite> {
    use crate::sa::Suite;
    let kinds = [
        (Suite::AesGcm256, true),
        (Suite::AesGcm128, true),
        (Suite::AesGcm256, false),
        (Suite::AesGcm128, false),
    ];
    kinds.map(|(suite, esn)| EspSuite { suite, esn, group: None }).into()
}

fn default_lifetime() -> u32 {
    86_400
}

fn default_child_lifetime() -> u32 {
    3600
}

fn default_dead_peer_detection() -> u16 {
    15
}

fn default_idle() -> u32 {
    900
}

fn default_nat_keepalive() -> u16 {
    20
}

fn default_fragment_size() -> u16 {
    1280
}
