//! Proofs of identity (RFC 7296 §2.15; signatures: RFC 7427).

use model::config::Ike;
use model::ike::{Identity, Prf};
use wire::ike::{Identification, NotifyType, Payload};

use crate::Credentials;
use crate::credential::{Octets, Proven, Unproven};
use crate::crypto::Crypto;

/// Hash algorithms that a peer takes signatures with (RFC 7427 §4). Of one that said nothing: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hashes(u8);

impl Hashes {
    /// As a SIGNATURE_HASH_ALGORITHMS notification says: numbers of 16 bits. Those that we do not know, and SHA-1, are passed over.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        let _ = data;
        Self(0)
    }

    /// The notification that says ours.
    #[must_use]
    pub fn notify() -> Payload {
        Payload::Notify {
            protocol: 0,
            spi: Vec::new(),
            kind: NotifyType::SIGNATURE_HASH_ALGORITHMS,
            data: Vec::new(),
        }
    }
}

/// What a peer claims and how it proves that.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Who it says it is.
    pub id: &'a Identification,
    /// Its certificates, its own first. Payloads of other types among them are passed over.
    pub certificates: &'a [Payload],
    /// The proof.
    pub auth: &'a Payload,
}

/// Who is meant by the body of an ID payload.
///
/// # Errors
/// It is of a type that is not taken, or not what its type says.
pub fn identity_of(_id: &Identification) -> Result<Identity, Unproven> {
    Err(Unproven("not yet".to_owned()))
}

impl Credentials {
    /// The proof of who we are, and the certificates that go with it. `peer`: whom it is for, as far as that is known; as initiator its
    /// address.
    ///
    /// # Errors
    /// There is no pre-shared key for the peer, or none of its hash algorithms goes with our key.
    pub fn prove(
        &self,
        _crypto: &dyn Crypto,
        _prf: Prf,
        _ike: &Ike,
        _peer: Option<&Identity>,
        _hashes: Hashes,
        _octets: &Octets<'_>,
    ) -> Result<(Vec<Payload>, Payload), Unproven> {
        Err(Unproven("not yet".to_owned()))
    }

    /// Whether a peer is who it says, and let in. `now`: seconds since 1970.
    ///
    /// # Errors
    /// It is not; the words are for the operator alone.
    pub fn verify(
        &self,
        _crypto: &dyn Crypto,
        _prf: Prf,
        _now: u64,
        _ike: &Ike,
        _claim: &Claim<'_>,
        _octets: &Octets<'_>,
    ) -> Result<Proven, Unproven> {
        Err(Unproven("not yet".to_owned()))
    }
}
