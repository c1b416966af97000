//! Proofs of identity (RFC 7296 §2.15): pre-shared keys, and signatures (RFC 7427; those before it from old peers).

use model::config::Ike;
use model::ike::{Identity, Prf};
use rustls_pki_types::CertificateDer;
use wire::ike::{Identification, NotifyType, Payload};

use crate::Credentials;
use crate::certificate::{self, Parsed};
use crate::credential::{Octets, Own, Proven, Unproven, X509_SIGNATURE};
use crate::crypto::{Crypto, Secret};
use crate::key::{BadSignature, Hash, Kind, PublicKey, Scheme, is_sha1};
use crate::names::is_admitted;

pub use crate::names::identity_of;

/// AUTH methods (RFC 7296 §3.8, RFC 4754 §3, RFC 7427 §3).
const RSA: u8 = 1;
const SHARED_KEY: u8 = 2;
const ECDSA_P256: u8 = 9;
const ECDSA_P384: u8 = 10;
const SIGNATURE: u8 = 14;

/// Certificates of a peer that are looked at: its own, and those up to an authority.
const CERTIFICATES: usize = 8;

/// Hash algorithms that a peer takes signatures with (RFC 7427 §4). Of one that said nothing: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hashes(u8);

impl Hashes {
    /// As a SIGNATURE_HASH_ALGORITHMS notification says: numbers of 16 bits. Those that we do not know, and SHA-1, are passed over.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        let numbers = data.as_chunks::<2>().0.iter().map(|bytes| u16::from_be_bytes(*bytes));
        let known = numbers.filter(|number| Hash::ALL.iter().any(|hash| *hash as u16 == *number));
        Self(known.fold(Self::SPOKE, |bits, number| bits | 1 << number))
    }

    /// The notification that says ours.
    #[must_use]
    pub fn notify() -> Payload {
        Payload::Notify {
            protocol: 0,
            spi: Vec::new(),
            kind: NotifyType::SIGNATURE_HASH_ALGORITHMS,
            data: Hash::ALL.iter().flat_map(|hash| (*hash as u16).to_be_bytes()).collect(),
        }
    }

    /// The bit of number 0, which is reserved: the peer knows RFC 7427.
    const SPOKE: u8 = 1;

    const fn has(self, hash: Hash) -> bool {
        self.0 & 1 << hash as u16 != 0
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

impl Credentials {
    /// The proof of who we are, and the certificates that go with it. `peer`: whom it is for, as far as that is known; as initiator its
    /// address.
    ///
    /// # Errors
    /// There is no pre-shared key for the peer, or none of its hash algorithms goes with our key.
    pub fn prove(
        &self,
        crypto: &dyn Crypto,
        prf: Prf,
        peer: Option<&Identity>,
        hashes: Hashes,
        octets: &Octets<'_>,
    ) -> Result<(Vec<Payload>, Payload), Unproven> {
        if let Some(own) = &self.own {
            let certificate = |der: &CertificateDer<'_>| Payload::Certificate {
                encoding: X509_SIGNATURE,
                data: der.to_vec(),
            };
            let (method, data) = signature(own, hashes, &octets.signed())?;
            let certificates = own.chain.iter().map(certificate).collect();
            return Ok((certificates, Payload::Authentication { method, data }));
        }
        let psk = self.psk_at(peer).ok_or_else(|| {
            let peer = peer.map_or_else(|| "it".to_owned(), Identity::to_string);
            let problem = match self.psk_count() {
                0 => "there is neither a certificate of ours nor a pre-shared key".to_owned(),
                count => format!("there are {count} pre-shared keys and none is for {peer}"),
            };
            Unproven(format!("we cannot prove ourselves to the peer: {problem}"))
        })?;
        let data = mac(crypto, prf, psk, octets).to_vec();
        Ok((Vec::new(), Payload::Authentication { method: SHARED_KEY, data }))
    }

    /// Whether a peer is who it says, and let in. `now`: seconds since 1970.
    ///
    /// # Errors
    /// It is not; the words are for the operator alone.
    pub fn verify(
        &self,
        crypto: &dyn Crypto,
        prf: Prf,
        now: u64,
        ike: &Ike,
        claim: &Claim<'_>,
        octets: &Octets<'_>,
    ) -> Result<Proven, Unproven> {
        let identity = identity_of(claim.id)?;
        let Payload::Authentication { method, data } = claim.auth else {
            return Err(Unproven("peer proves nothing".to_owned()));
        };
        let (by, addresses) = match *method {
            SHARED_KEY => (self.verify_psk(crypto, prf, &identity, data, octets)?, Vec::new()),
            RSA | ECDSA_P256 | ECDSA_P384 | SIGNATURE => {
                let certificate = self.believed(now, &identity, claim.certificates)?;
                let key = usable(&certificate)?;
                verify_signature(key, *method, data, &octets.signed())
                    .map_err(|why| Unproven(format!("peer {identity}: its signature {why}")))?;
                (format!("{}, {}", key.kind(), certificate.subject), certificate.addresses())
            }
            other => {
                return Err(Unproven(format!(
                    "peer {identity}: it proves itself by method {other}, which is not taken"
                )));
            }
        };
        if !ike.peers.iter().any(|pattern| is_admitted(pattern, &identity)) {
            return Err(Unproven(format!("peer {identity} is who it says, and none of `peers`")));
        }
        Ok(Proven { identity, addresses, by })
    }

    fn verify_psk(
        &self,
        crypto: &dyn Crypto,
        prf: Prf,
        identity: &Identity,
        data: &[u8],
        octets: &Octets<'_>,
    ) -> Result<String, Unproven> {
        let (pattern, psk) = self.psk(identity).ok_or_else(|| {
            Unproven(format!(
                "peer {identity}: it proves itself by a pre-shared key, and there is none for it"
            ))
        })?;
        let expected = mac(crypto, prf, psk, octets);
        // In constant time: how much of it is right tells nobody anything.
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, data).map_err(|_| {
            Unproven(format!("peer {identity}: its pre-shared key is another one than ours for {pattern}"))
        })?;
        Ok("pre-shared key".to_owned())
    }

    /// The certificate of a peer, which is of this identity, and which an authority of ours stands for.
    fn believed(&self, now: u64, identity: &Identity, payloads: &[Payload]) -> Result<Parsed, Unproven> {
        let certificate = |payload| match payload {
            &Payload::Certificate { encoding: X509_SIGNATURE, ref data } => {
                Some(CertificateDer::from(&data[..]))
            }
            _ => None,
        };
        let mut certificates = payloads.iter().filter_map(certificate).take(CERTIFICATES);
        let wrong = |problem: String| Unproven(format!("peer {identity}: {problem}"));
        if self.authorities.is_empty() {
            return Err(wrong(
                "it proves itself by a certificate, and the profile has no `authorities`".to_owned(),
            ));
        }
        let der = certificates.next().ok_or_else(|| wrong("it sent no certificate".to_owned()))?;
        let others: Vec<_> = certificates.collect();
        let certificate = Parsed::of(&der).ok_or_else(|| wrong("its certificate is none".to_owned()))?;
        let wrong = |problem: String| {
            let Parsed { subject, issuer, .. } = &certificate;
            wrong(format!("its certificate ({subject}, issued by {issuer}) {problem}"))
        };
        certificate::validate(&der, &others, &self.authorities, &self.lists, now).map_err(wrong)?;
        if !certificate.is_of(identity) {
            return Err(wrong(format!("does not name it; it names {}", certificate.names_text())));
        }
        Ok(certificate)
    }
}

/// The key of a certificate, if it may sign.
fn usable(certificate: &Parsed) -> Result<&PublicKey, Unproven> {
    let wrong = |problem| Unproven(format!("the key of certificate {} {problem}", certificate.subject));
    if certificate.signs_nothing {
        return Err(wrong("is not for signatures, by its key usage".to_owned()));
    }
    certificate.key.as_ref().map_err(|why| wrong(format!("is {why}")))
}

impl Octets<'_> {
    /// What is signed, in one piece (RFC 7296 §2.15, RFC 9242 §3.3.2).
    fn signed(&self) -> Vec<u8> {
        [self.message, self.nonce, self.identification, self.intermediate].concat()
    }
}

/// `prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)` (RFC 7296 §2.15).
fn mac(crypto: &dyn Crypto, prf: Prf, psk: &[u8], octets: &Octets<'_>) -> Secret {
    let key = crypto.prf(prf, psk, &[b"Key Pad for IKEv2"]);
    crypto.prf(prf, &key, &[octets.message, octets.nonce, octets.identification, octets.intermediate])
}

/// Our signature: AUTH method, and what is in it.
fn signature(own: &Own, hashes: Hashes, text: &[u8]) -> Result<(u8, Vec<u8>), Unproven> {
    let refused = || Unproven("the cryptographic library refuses to sign with our key".to_owned());
    if hashes == Hashes::default() {
        return own.key.sign_old(text).ok_or_else(|| {
            Unproven("peer does not know RFC 7427, which a certificate with Ed25519 needs".to_owned())
        });
    }
    let scheme = own.key.schemes().iter().find(|scheme| hashes.has(scheme.hash()));
    let scheme = scheme.ok_or_else(|| {
        let ours: Vec<_> =
            own.key.schemes().iter().map(|scheme| (scheme.hash() as u16).to_string()).collect();
        Unproven(format!(
            "peer takes no hash algorithm that goes with our key (number {})",
            ours.join(" or ")
        ))
    })?;
    let identifier = scheme.identifier();
    let signature = own.key.sign(*scheme, text).ok_or_else(refused)?;
    // RFC 7427 §3: length of the AlgorithmIdentifier in one byte.
    Ok((SIGNATURE, [&[identifier.len() as u8][..], &identifier, &signature].concat()))
}

/// Whether what an AUTH payload has is a signature over the text. Words that follow "its signature ".
fn verify_signature(key: &PublicKey, method: u8, data: &[u8], text: &[u8]) -> Result<(), String> {
    let verified = match method {
        RSA if matches!(key.kind(), Kind::Rsa(_)) => key.verify_rsa(text, data),
        RSA => Err(BadSignature::OfAnotherKind),
        ECDSA_P256 => key.verify_fixed(Kind::P256, text, data),
        ECDSA_P384 => key.verify_fixed(Kind::P384, text, data),
        _ => {
            let (length, rest) = data.split_first().ok_or("is empty")?;
            let (identifier, signature) =
                rest.split_at_checked((*length).into()).ok_or("ends within the name of its algorithm")?;
            match Scheme::of_identifier(identifier) {
                Some(scheme) => key.verify(scheme, text, signature),
                None if is_sha1(identifier) => Err(BadSignature::Sha1),
                None => return Err("is made by an algorithm that is not taken".to_owned()),
            }
        }
    };
    verified.map_err(|why| format!("is {why}"))
}
