//! Certificates of peers: what is in them, and whether they come from an authority that is believed (RFC 5280, as RFC 4945 profiles it for
//! IKE). The chain is validated by webpki.

use std::net::IpAddr;

use model::ike::Identity;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    RevocationOptionsBuilder, aws_lc_rs as algorithms,
};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::key::PublicKey;
use crate::names::name_text;

/// What is in a certificate.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Its subject as text (RFC 4514).
    pub(crate) subject: String,
    /// The same in DER.
    pub(crate) subject_der: Vec<u8>,
    /// Who issued it.
    pub(crate) issuer: String,
    /// Its alternative names that are identities, in its order.
    pub(crate) names: Vec<Identity>,
    /// Its key, or what is wrong with it.
    pub(crate) key: Result<PublicKey, String>,
    /// In DER, as it is hashed in certificate requests.
    pub(crate) spki_der: Vec<u8>,
    /// From and until when it is valid, in seconds since 1970.
    pub(crate) validity: (u64, u64),
    /// It says what its key is for, and signatures are not among that.
    pub(crate) signs_nothing: bool,
    /// It is an authority's.
    pub(crate) is_authority: bool,
}

impl Parsed {
    /// Reads one; `None` if it is none.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let spki = certificate.subject_public_key_info();
        let names = certificate.get_extension::<SubjectAltName>().ok()?.map(|(_, names)| names.0);
        let usage = certificate.get_extension::<KeyUsage>().ok()?.map(|(_, usage)| usage);
        let constraints = certificate.get_extension::<BasicConstraints>().ok()?;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        Some(Self {
            subject: name_text(certificate.subject()),
            subject_der: certificate.subject().to_der().ok()?,
            issuer: name_text(certificate.issuer()),
            names: names.unwrap_or_default().iter().filter_map(identity_in).collect(),
            key: PublicKey::of(spki),
            spki_der: spki.to_der().ok()?,
            validity: (seconds(certificate.validity().not_before), seconds(certificate.validity().not_after)),
            // RFC 4945 §5.1.3.2.
            signs_nothing: usage.is_some_and(|usage| !usage.digital_signature() && !usage.non_repudiation()),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
        })
    }

    /// Whether it is of this identity: its subject or one of its alternative names (RFC 4945 §3.1). A name with a `*` in it is of nobody.
    pub(crate) fn is_of(&self, identity: &Identity) -> bool {
        match identity {
            Identity::Dn(text) => *text == self.subject,
            Identity::Fqdn(name) => self
                .names
                .iter()
                .any(|one| matches!(one, Identity::Fqdn(of) if of.eq_ignore_ascii_case(name))),
            Identity::Email(name) => self
                .names
                .iter()
                .any(|one| matches!(one, Identity::Email(of) if of.eq_ignore_ascii_case(name))),
            Identity::Address(_) => self.names.contains(identity),
            Identity::KeyId(_) => false,
        }
    }

    /// The addresses that it names.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let address = |name: &Identity| match name {
            Identity::Address(address) => Some(*address),
            _ => None,
        };
        self.names.iter().filter_map(address).collect()
    }

    /// All that it names, in words.
    pub(crate) fn names_text(&self) -> String {
        let names = self.names.iter().map(Identity::to_string);
        std::iter::once(self.subject.clone())
            .filter(|subject| !subject.is_empty())
            .chain(names)
            .collect::<Vec<_>>()
            .join(" | ")
    }
}

/// An alternative name as an identity, if it is one that reads as itself.
fn identity_in(name: &GeneralName) -> Option<Identity> {
    let identity = match name {
        GeneralName::DnsName(name) if !name.as_str().contains('*') => Identity::Fqdn(name.to_string()),
        GeneralName::Rfc822Name(name) => Identity::Email(name.to_string()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            bytes @ [_, _, _, _] => Identity::Address(<[u8; 4]>::try_from(bytes).ok()?.into()),
            bytes => Identity::Address(<[u8; 16]>::try_from(bytes).ok()?.into()),
        },
        _ => return None,
    };
    (identity.to_string().parse().as_ref() == Ok(&identity)).then_some(identity)
}

/// Signatures that certificates and revocation lists may have.
const SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// What a certificate that proves an identity in IKE may be for, if it says so (RFC 4945 §5.1.3.12): IKE, anything; and, as many are made,
/// servers and clients of TLS, and what was before `ipsecIKE`.
struct UsableInIke;

impl UsableInIke {
    const PURPOSES: &[&[usize]] = &[
        &[1, 3, 6, 1, 5, 5, 7, 3, 17],
        &[2, 5, 29, 37, 0],
        &[1, 3, 6, 1, 5, 5, 7, 3, 1],
        &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        &[1, 3, 6, 1, 5, 5, 7, 3, 5],
        &[1, 3, 6, 1, 5, 5, 7, 3, 6],
        &[1, 3, 6, 1, 5, 5, 7, 3, 7],
        &[1, 3, 6, 1, 5, 5, 8, 2, 2],
    ];
}

impl ExtendedKeyUsageValidator for UsableInIke {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut says_nothing = true;
        for purpose in purposes {
            says_nothing = false;
            let purpose = purpose?.to_decoded_oid();
            if Self::PURPOSES.iter().any(|one| **one == purpose[..]) {
                return Ok(());
            }
        }
        // Of the errors that are to be had from outside the one that fits.
        if says_nothing { Ok(()) } else { Err(Error::ExtensionValueInvalid) }
    }
}

/// Whether a certificate, with those that came along, comes from one of these authorities, is valid now (seconds since 1970), and is not
/// revoked. With any revocation list, each certificate's issuer needs one that is not out of date.
///
/// # Errors
/// In words that follow "its certificate ".
pub(crate) fn validate(
    certificate: &[u8],
    others: &[CertificateDer<'_>],
    authorities: &[TrustAnchor<'static>],
    lists: &[CertRevocationList<'static>],
    now: u64,
) -> Result<(), String> {
    let der = CertificateDer::from(certificate);
    let end = EndEntityCert::try_from(&der).map_err(|why| words(&why))?;
    let lists: Vec<_> = lists.iter().collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok();
    let revocation =
        revocation.map(|options| options.with_expiration_policy(ExpirationPolicy::Enforce).build());
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    end.verify_for_usage(SIGNATURES, authorities, others, now, UsableInIke, revocation, None)
        .map(|_| ())
        .map_err(|why| words(&why))
}

/// Why a certificate is not believed, in words that follow "its certificate ".
fn words(why: &Error) -> String {
    match why {
        Error::CertExpired { not_after, .. } => format!("expired on {}", date(not_after.as_secs())),
        Error::CertNotValidYet { not_before, .. } => {
            format!("is not valid before {}; is the clock right?", date(not_before.as_secs()))
        }
        Error::CertRevoked => "is revoked".to_owned(),
        Error::CrlExpired { next_update, .. } => format!(
            "cannot be looked up: the revocation list of its issuer should have been renewed on {}",
            date(next_update.as_secs())
        ),
        Error::UnknownRevocationStatus => {
            "cannot be looked up: there is no revocation list of its issuer in `revocation_lists`".to_owned()
        }
        Error::UnknownIssuer => "comes from none of `authorities`".to_owned(),
        Error::InvalidSignatureForPublicKey => "is not signed by the authority that it names".to_owned(),
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "is signed by an algorithm that is not taken (SHA-1, or a weak or unknown kind of key)".to_owned()
        }
        Error::ExtensionValueInvalid => {
            "is not for IKE: its extended key usage says something else".to_owned()
        }
        Error::CaUsedAsEndEntity => "is an authority's, which proves no identity".to_owned(),
        Error::EndEntityUsedAsCa => "is issued by one that is no authority".to_owned(),
        Error::NameConstraintViolation => "names what its authority may not certify".to_owned(),
        Error::InvalidCrlSignatureForPublicKey => {
            "cannot be looked up: the revocation list of its issuer has a wrong signature".to_owned()
        }
        other => format!("is refused: {other}"),
    }
}

/// A day and a time of seconds since 1970: `2026-11-27 18:00 UTC`.
pub(crate) fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days from 0000-03-01 on, in eras of 400 years of 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, after) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + after;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_795_802_400, "2026-11-27 18:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
