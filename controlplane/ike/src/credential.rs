//! Who we are and whom we believe, by one profile: what the files of its configuration hold.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::NbmaAddr;
use model::config::Ike;
use model::ike::Identity;
use wire::ike::{Identification, Payload};

/// The credentials of a profile.
pub struct Credentials {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// What is wrong with a file that a profile names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct BadFile {
    /// Field of the profile that names it, as `authorities[1]`.
    pub field: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// Who proved to be what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Who it is.
    pub identity: Identity,
    /// The addresses that its certificate names, if it has one.
    pub addresses: Vec<IpAddr>,
    /// In words: "pre-shared key", "ECDSA P-256, CN=...".
    pub by: String,
}

/// Why a proof is none, in words that an operator can act on. The peer is told AUTHENTICATION_FAILED and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unproven(pub String);

/// What is proved: all that an AUTH payload is computed from (RFC 7296 §2.15).
#[derive(Debug, Clone, Copy)]
pub struct Octets<'a> {
    /// The first message of the prover, as it was sent (or, with IKE_INTERMEDIATE, what RFC 9242 §3.3.2 adds comes in `intermediate`).
    pub message: &'a [u8],
    /// The nonce of the other.
    pub nonce: &'a [u8],
    /// prf(SK_p, body of the ID payload).
    pub identification: &'a [u8],
    /// IntAuth of RFC 9242, or nothing.
    pub intermediate: &'a [u8],
}

impl Credentials {
    /// Reads the files that a profile names, by `read`.
    ///
    /// # Errors
    /// The first that cannot be read or makes no sense, with its field.
    pub fn load(_ike: &Ike, _read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>) -> Result<Self, BadFile> {
        Ok(Self {})
    }

    /// Who we say we are, towards a peer from this address of ours.
    #[must_use]
    pub fn identification(&self, _ike: &Ike, local: NbmaAddr) -> Identification {
        let data = match local.0 {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        Identification { kind: if local.0.is_ipv4() { 1 } else { 5 }, data }
    }

    /// CERTREQ payloads for the peer.
    #[must_use]
    pub fn requests(&self) -> Vec<Payload> {
        Vec::new()
    }
}
