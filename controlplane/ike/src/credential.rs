//! Who we are and whom we believe, by one profile: what the files of its configuration hold.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use model::NbmaAddr;
use model::config::Ike;
use model::ike::{Identity, IdentityPattern};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use wire::ike::{Identification, Payload};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use crate::certificate::{Parsed, date};
use crate::crypto::Secret;
use crate::key::PrivateKey;
use crate::names::{canonical, identification_of, is_admitted, name_text};

/// The credentials of a profile.
pub struct Credentials {
    pub(crate) own: Option<Own>,
    pub(crate) authorities: Vec<TrustAnchor<'static>>,
    /// SHA-1 of the public keys of the authorities, one after the other (RFC 7296 §3.7).
    hashes: Vec<u8>,
    pub(crate) lists: Vec<CertRevocationList<'static>>,
    psks: Vec<(IdentityPattern, Secret)>,
    /// What ends some day.
    terms: Vec<Term>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// What we prove ourselves by.
pub(crate) struct Own {
    /// Our certificate, and those between it and an authority, in DER.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) certificate: Parsed,
    pub(crate) key: PrivateKey,
}

/// Something that is good from one time until another, in seconds since 1970.
struct Term {
    what: String,
    from: u64,
    until: u64,
}

/// What is wrong with a file that a profile names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {problem}", file.display())]
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
    pub fn load(ike: &Ike, read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>) -> Result<Self, BadFile> {
        let files = Files { read };
        let mut terms = Vec::new();
        let own = match (&ike.certificate, &ike.private_key) {
            (Some(certificate), Some(key)) => Some(files.own(ike, certificate, key)?),
            (None, None) => None,
            (Some(file), None) => return Err(bad("certificate", file, "goes with a `private_key`")),
            (None, Some(file)) => return Err(bad("private_key", file, "goes with a `certificate`")),
        };
        if let Some(own) = &own {
            terms.push(own.certificate.term("our certificate"));
        }
        let (mut authorities, mut hashes) = (Vec::new(), Vec::new());
        for (number, file) in ike.authorities.iter().enumerate() {
            for (anchor, certificate) in files.authorities(&format!("authorities[{number}]"), file)? {
                let hash = aws_lc_rs::digest::digest(
                    &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
                    &certificate.spki_der,
                );
                hashes.extend_from_slice(hash.as_ref());
                terms.push(certificate.term("the authority"));
                authorities.push(anchor);
            }
        }
        let mut lists = Vec::new();
        for (number, file) in ike.revocation_lists.iter().enumerate() {
            for (list, term) in files.lists(&format!("revocation_lists[{number}]"), file)? {
                lists.push(list);
                terms.push(term);
            }
        }
        let mut psks = Vec::new();
        for (number, psk) in ike.psks.iter().enumerate() {
            let secret = match (&psk.secret, &psk.file) {
                (Some(secret), _) => Zeroizing::new(secret.0.as_bytes().to_vec()),
                (None, Some(file)) => files.psk(&format!("psk[{number}].file"), file)?,
                // The configuration is refused before.
                (None, None) => continue,
            };
            psks.push((psk.peer.clone(), secret));
        }
        Ok(Self { own, authorities, hashes, lists, psks, terms })
    }

    /// Who we say we are, towards a peer from this address of ours.
    #[must_use]
    pub fn identification(&self, ike: &Ike, local: NbmaAddr) -> Identification {
        let certificate = self.own.as_ref().map(|own| &own.certificate);
        let given = ike.identity.as_ref().map(canonical);
        let named = given.or_else(|| certificate.and_then(first_name));
        let id = match (named, certificate) {
            // The subject as the certificate has it, byte for byte.
            (Some(Identity::Dn(text)), Some(certificate)) if text == certificate.subject => {
                Some(Identification { kind: DER_NAME, data: certificate.subject_der.clone() })
            }
            (Some(identity), _) => identification_of(&identity),
            (None, _) => None,
        };
        id.unwrap_or_else(|| address(local.0))
    }

    /// CERTREQ payloads for the peer: whose certificates are believed (RFC 7296 §3.7).
    #[must_use]
    pub fn requests(&self) -> Vec<Payload> {
        if self.hashes.is_empty() {
            return Vec::new();
        }
        vec![Payload::CertificateRequest { encoding: X509_SIGNATURE, data: self.hashes.clone() }]
    }

    /// What an operator has to know of these files at `now` (seconds since 1970), one sentence each: what is not valid yet, not any more, or
    /// not much longer.
    #[must_use]
    pub fn warnings(&self, now: u64) -> Vec<String> {
        self.terms.iter().filter_map(|term| term.warning(now)).collect()
    }

    /// The pre-shared key for a peer: of those that admit it, the narrowest one's, and of equally narrow ones the first.
    pub(crate) fn psk(&self, peer: &Identity) -> Option<(&IdentityPattern, &Secret)> {
        let admitting = self.psks.iter().rev().filter(|(pattern, _)| is_admitted(pattern, peer));
        admitting.max_by_key(|(pattern, _)| pattern.narrowness()).map(|(pattern, secret)| (pattern, secret))
    }

    /// The pre-shared key for a peer of which only the address is known: if none is for that, the only one that there is.
    pub(crate) fn psk_at(&self, peer: Option<&Identity>) -> Option<&Secret> {
        let known = peer.and_then(|peer| self.psk(peer)).map(|(_, secret)| secret);
        known.or(match &self.psks[..] {
            [(_, secret)] => Some(secret),
            _ => None,
        })
    }

    /// How many pre-shared keys there are.
    pub(crate) fn psk_count(&self) -> usize {
        self.psks.len()
    }
}

/// Encoding of certificates, and of requests for them: "X.509 certificate - signature" (RFC 7296 §3.6).
pub(crate) const X509_SIGNATURE: u8 = 4;

/// ID_DER_ASN1_DN (RFC 7296 §3.5).
const DER_NAME: u8 = 9;

fn address(address: IpAddr) -> Identification {
    match address {
        IpAddr::V4(v4) => Identification { kind: 1, data: v4.octets().to_vec() },
        IpAddr::V6(v6) => Identification { kind: 5, data: v6.octets().to_vec() },
    }
}

/// The first name of a certificate: DNS, address, mail; else its subject.
fn first_name(certificate: &Parsed) -> Option<Identity> {
    let kinds: [fn(&Identity) -> bool; 3] = [
        |name| matches!(name, Identity::Fqdn(_)),
        |name| matches!(name, Identity::Address(_)),
        |name| matches!(name, Identity::Email(_)),
    ];
    let of_kind = |is: fn(&Identity) -> bool| certificate.names.iter().find(|name| is(name)).cloned();
    let subject =
        || Some(Identity::Dn(certificate.subject.clone())).filter(|_| !certificate.subject.is_empty());
    kinds.into_iter().find_map(of_kind).or_else(subject)
}

impl Parsed {
    fn term(&self, what: &str) -> Term {
        let (from, until) = self.validity;
        Term { what: format!("{what} {}", self.subject), from, until }
    }
}

impl Term {
    /// How long before the end it is time to do something about it, in seconds: two weeks.
    const SOON: u64 = 14 * 86_400;

    fn warning(&self, now: u64) -> Option<String> {
        let Self { what, from, until } = self;
        if now < *from {
            Some(format!("{what} is not valid before {}; is the clock right?", date(*from)))
        } else if now > *until {
            Some(format!("{what} expired on {}", date(*until)))
        } else if now + Self::SOON > *until {
            Some(format!("{what} expires on {}", date(*until)))
        } else {
            None
        }
    }
}

fn bad(field: &str, file: &Path, problem: impl Into<String>) -> BadFile {
    BadFile { field: field.to_owned(), file: file.to_owned(), problem: problem.into() }
}

/// Where files are read from.
struct Files<'a> {
    read: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
}

impl Files<'_> {
    fn bytes(&self, field: &str, file: &Path) -> Result<Zeroizing<Vec<u8>>, BadFile> {
        let bytes = (self.read)(file).map_err(|why| bad(field, file, format!("cannot be read: {why}")))?;
        Ok(Zeroizing::new(bytes))
    }

    /// All objects of one kind in a file: of PEM, or one of DER.
    fn objects<T: PemObject + From<Vec<u8>>>(
        &self,
        field: &str,
        file: &Path,
        what: &str,
    ) -> Result<Vec<T>, BadFile> {
        let bytes = self.bytes(field, file)?;
        // DER of a SEQUENCE; PEM begins with text.
        if bytes.first() == Some(&0x30) {
            return Ok(vec![T::from(bytes.to_vec())]);
        }
        let objects = T::pem_slice_iter(&bytes).collect::<Result<Vec<T>, _>>();
        let objects = objects.map_err(|why| bad(field, file, format!("is not PEM: {why}")))?;
        if objects.is_empty() {
            return Err(bad(field, file, format!("holds no {what}")));
        }
        Ok(objects)
    }

    fn own(&self, ike: &Ike, certificate: &Path, key: &Path) -> Result<Own, BadFile> {
        let wrong = |problem: String| bad("certificate", certificate, problem);
        let chain: Vec<CertificateDer<'static>> = self.objects("certificate", certificate, "certificate")?;
        let mut parsed = Vec::new();
        for (number, der) in chain.iter().enumerate() {
            let one = Parsed::of(der);
            parsed.push(
                one.ok_or_else(|| wrong(format!("holds a certificate that is none, number {}", number + 1)))?,
            );
        }
        let leaf = parsed.swap_remove(0);
        let public = leaf.key.as_ref().map_err(|why| wrong(format!("has a key that is {why}")))?;
        if leaf.is_authority {
            return Err(wrong("begins with the certificate of an authority; ours comes first".to_owned()));
        }
        if leaf.signs_nothing {
            return Err(wrong("has a key usage without signatures".to_owned()));
        }
        let named = ike.identity.as_ref().map(canonical);
        if let Some(identity) = named.filter(|identity| !leaf.is_of(identity)) {
            let names = leaf.names_text();
            return Err(wrong(format!(
                "does not name `identity` {identity}, and peers would not believe it; it names {names}"
            )));
        }
        let private = self.private_key(key)?;
        if !private.is_of(public) {
            return Err(bad(
                "private_key",
                key,
                format!(
                    "is not the key of {}, the first certificate in {}",
                    leaf.subject,
                    certificate.display()
                ),
            ));
        }
        Ok(Own { chain, certificate: leaf, key: private })
    }

    fn private_key(&self, file: &Path) -> Result<PrivateKey, BadFile> {
        let wrong = |problem: String| bad("private_key", file, problem);
        let bytes = self.bytes("private_key", file)?;
        let is_encrypted = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
        if is_encrypted.iter().any(|mark| bytes.windows(mark.len()).any(|window| window == *mark)) {
            return Err(wrong(
                "is encrypted; a key that is read unattended is protected by who may read its file"
                    .to_owned(),
            ));
        }
        let none = |why: &dyn fmt::Display| {
            wrong(format!("holds no private key in PEM (PKCS #8, SEC1 or PKCS #1){why}"))
        };
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
            let (kind, der) = section.map_err(|why| none(&format_args!(": {why}")))?;
            // What the library makes of it is not erased by the library.
            let der = Zeroizing::new(der);
            let key = match kind {
                SectionKind::PrivateKey => PrivateKeyDer::Pkcs8(der[..].into()),
                SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(der[..].into()),
                SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(der[..].into()),
                _ => continue,
            };
            return PrivateKey::of(&key).map_err(|why| wrong(format!("holds a key that is {why}")));
        }
        Err(none(&""))
    }

    fn authorities(&self, field: &str, file: &Path) -> Result<Vec<(TrustAnchor<'static>, Parsed)>, BadFile> {
        let ders: Vec<CertificateDer<'static>> = self.objects(field, file, "certificate")?;
        let one = |der: &CertificateDer<'static>| {
            let parsed = Parsed::of(der);
            let parsed = parsed.ok_or_else(|| bad(field, file, "holds a certificate that is none"))?;
            if !parsed.is_authority {
                let problem = format!("holds the certificate of {}, which is no authority's", parsed.subject);
                return Err(bad(field, file, problem));
            }
            let anchor = webpki::anchor_from_trusted_cert(der)
                .map_err(|why| bad(field, file, format!("holds a certificate that is refused: {why}")))?;
            Ok((anchor.to_owned(), parsed))
        };
        ders.iter().map(one).collect()
    }

    fn lists(&self, field: &str, file: &Path) -> Result<Vec<(CertRevocationList<'static>, Term)>, BadFile> {
        let ders: Vec<CertificateRevocationListDer<'static>> =
            self.objects(field, file, "revocation list")?;
        let one = |der: &CertificateRevocationListDer<'static>| {
            let list = OwnedCertRevocationList::from_der(der)
                .map_err(|why| bad(field, file, format!("holds a revocation list that is refused: {why}")))?;
            let parsed = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
                .map_err(|why| bad(field, file, format!("holds a revocation list that is none: {why}")))?
                .tbs_cert_list;
            let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
            let term = Term {
                what: format!("the revocation list of {}", name_text(&parsed.issuer)),
                from: seconds(parsed.this_update),
                until: parsed.next_update.map_or(u64::MAX, seconds),
            };
            Ok((CertRevocationList::Owned(list), term))
        };
        ders.iter().map(one).collect()
    }

    fn psk(&self, field: &str, file: &Path) -> Result<Secret, BadFile> {
        let mut bytes = self.bytes(field, file)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(bad(field, file, "is empty"));
        }
        Ok(bytes)
    }
}
