//! Certificates that are made for one run: authorities, what they issue and what they take back. The keys are nobody's but the run's.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};

use crate::esp;

/// What stands in all subjects of a run.
pub const ORGANIZATION: &str = "Nave";
/// What the names of a cloud's nodes end in.
pub const DOMAIN: &str = "cloud.example";

/// A kind of key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// RSA with 2048 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    fn pair(self) -> Result<KeyPair> {
        let algorithm = match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Rsa => &rcgen::PKCS_RSA_SHA256,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        };
        KeyPair::generate_for(algorithm).context("a key pair")
    }
}

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// From the beginning of last year to the end of the next.
    Now,
    /// Until years ago.
    Past,
    /// From next year but one on.
    Future,
}

impl Validity {
    /// First of January of the first year, and of the one after the last.
    fn years(self) -> Result<(i32, i32)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        // Of 365.2425 days.
        let this = 1970 + i32::try_from(now.as_secs() / 31_556_952)?;
        Ok(match self {
            Self::Now => (this - 1, this + 2),
            Self::Past => (this - 9, this - 7),
            Self::Future => (this + 2, this + 4),
        })
    }
}

/// A certificate and its private key.
#[derive(Debug)]
pub struct Issued {
    /// PEM: the certificate, and behind it those of authorities below the root.
    pub chain: String,
    /// PEM, PKCS #8.
    pub private_key: String,
    serial: SerialNumber,
}

/// Where an [`Issued`] was written to.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key, for nobody else to read.
    pub private_key: PathBuf,
}

impl Issued {
    /// Writes both into a directory, as `name`.pem and `name`.key.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn write(&self, directory: &Path, name: &str) -> Result<Files> {
        let [certificate, private_key] =
            ["pem", "key"].map(|suffix| directory.join(format!("{name}.{suffix}")));
        write(&certificate, &self.chain)?;
        write(&private_key, &self.private_key)?;
        Ok(Files { certificate, private_key })
    }
}

/// Writes a file that nobody else may read.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let mut file = File::options();
    file.create(true).truncate(true).write(true).mode(0o600);
    let mut file = file.open(path).with_context(|| path.display().to_string())?;
    file.write_all(text.as_bytes()).with_context(|| path.display().to_string())
}

/// Who issues certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    /// PEM of those between it and the root, itself first; nothing of a root.
    chain: String,
}

impl Authority {
    /// A root.
    ///
    /// # Errors
    /// No random bytes.
    pub fn root(name: &str, kind: KeyKind) -> Result<Self> {
        let (params, key) = (authority(name)?, kind.pair()?);
        let certificate = params.self_signed(&key)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, chain: String::new() })
    }

    /// One that this one vouches for.
    ///
    /// # Errors
    /// No random bytes.
    pub fn below(&self, name: &str, kind: KeyKind) -> Result<Self> {
        let (params, key) = (authority(name)?, kind.pair()?);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = certificate.pem() + &self.chain;
        Ok(Self { issuer: Issuer::new(params, key), certificate, chain })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for a node of this name (`hub` → `hub.cloud.example`) with these addresses.
    ///
    /// # Errors
    /// The name is none.
    pub fn issue(&self, name: &str, addresses: &[IpAddr], kind: KeyKind) -> Result<Issued> {
        self.issue_for(name, addresses, kind, Validity::Now)
    }

    /// As [`Authority::issue`], that holds then.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_for(
        &self,
        name: &str,
        addresses: &[IpAddr],
        kind: KeyKind,
        validity: Validity,
    ) -> Result<Issued> {
        let mut params = subject(name)?;
        let host = SanType::DnsName(format!("{name}.{DOMAIN}").try_into()?);
        params.subject_alt_names = vec![host];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let (from, to) = validity.years()?;
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        let serial = params.serial_number.clone().context("a serial number")?;
        let key = kind.pair()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain: certificate.pem() + &self.chain, private_key: key.serialize_pem(), serial })
    }

    /// PEM: the list of what it has taken back.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn revocation_list(&self, revoked: &[&Issued]) -> Result<String> {
        let (from, to) = Validity::Now.years()?;
        let entry = |issued: &&Issued| RevokedCertParams {
            serial_number: issued.serial.clone(),
            revocation_time: date_time_ymd(from, 2, 1),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 3, 1),
            next_update: date_time_ymd(to, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// Writes its certificate and its list into a directory: authority.pem and revoked.pem.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn write(&self, directory: &Path, revoked: &[&Issued]) -> Result<[PathBuf; 2]> {
        fs::create_dir_all(directory)?;
        let files = ["authority.pem", "revoked.pem"].map(|name| directory.join(name));
        write(&files[0], &self.pem())?;
        write(&files[1], &self.revocation_list(revoked)?)?;
        Ok(files)
    }
}

fn subject(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, name);
    // Positive, and so long that nobody guesses the next one.
    let mut serial = esp::random::<16>()?;
    serial[0] = serial[0] & 0x7f | 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn authority(name: &str) -> Result<CertificateParams> {
    let mut params = subject(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let (from, to) = Validity::Now.years()?;
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    Ok(params)
}
