//! Authorities, certificates and files as the tests need them, in memory.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use model::config::Ike;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use wire::ike::Payload;
use x509_cert::der::{Decode, Encode};

/// 2026-11-27 18:00 UTC.
pub(crate) const NOW: u64 = 1_795_802_400;
pub(crate) const YEAR: u64 = 365 * 86_400;

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// `[profiles.ike]` with this in it.
pub(crate) fn ike(text: &str) -> Ike {
    toml::from_str(text).unwrap()
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Example");
    subject.push(DnType::CommonName, name);
    subject
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params
}

/// An authority of its own.
pub(crate) fn public_authority() -> Authority {
    CertifiedIssuer::self_signed(authority_params("Authority"), KeyPair::generate().unwrap()).unwrap()
}

/// One that another one stands for.
pub(crate) fn authority_below(
    above: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Authority {
    let mut params = authority_params(name);
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap()
}

/// The SubjectPublicKeyInfo of an authority in DER.
pub(crate) fn spki_of(authority: &Authority) -> Vec<u8> {
    let certificate = x509_cert::Certificate::from_der(authority.der()).unwrap();
    certificate.tbs_certificate().subject_public_key_info().to_der().unwrap()
}

/// The serial number of a certificate.
pub(crate) fn serial_of(certificate: &Payload) -> Vec<u8> {
    let Payload::Certificate { data, .. } = certificate else { panic!("no certificate") };
    x509_cert::Certificate::from_der(data).unwrap().tbs_certificate().serial_number().as_bytes().to_vec()
}

/// Files in memory.
#[derive(Default)]
pub(crate) struct Files {
    files: HashMap<String, Vec<u8>>,
    issuers: HashMap<String, Authority>,
}

impl Files {
    pub(crate) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path.to_str().unwrap()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), bytes.to_vec());
    }

    pub(crate) fn append(&mut self, name: &str, text: &str) {
        self.files.get_mut(name).unwrap().extend_from_slice(text.as_bytes());
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/credentials").join(name)).unwrap()
    }

    /// One of those in the folder.
    pub(crate) fn fixture(&mut self, name: &str) {
        let bytes = self.bytes(name);
        self.put(name, &bytes);
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.files[name].clone()).unwrap()
    }

    /// The first certificate in a file, in DER.
    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        CertificateDer::from_pem_slice(&self.files[name]).unwrap().to_vec()
    }

    pub(crate) fn authority(&mut self, name: &str, authority: &Authority) {
        self.put(name, authority.pem().as_bytes());
    }

    /// `name.pem` and `name.key`: a certificate from 2026 until June 2027.
    pub(crate) fn signed(
        &mut self,
        name: &str,
        authority: &Authority,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = subject(name);
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 6, 1);
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        self.put(&format!("{name}.key"), key.serialize_pem().as_bytes());
        let issuer = CertifiedIssuer::signed_by(params, key, authority).unwrap();
        self.put(&format!("{name}.pem"), issuer.pem().as_bytes());
        self.issuers.insert(name.to_owned(), issuer);
    }

    /// What signs as a certificate that [`Self::signed`] made, though it is no authority's. It cannot be made again.
    pub(crate) fn issuer(&mut self, name: &str) -> Authority {
        self.issuers.remove(name).unwrap()
    }

    /// A list of revoked serial numbers, from November until the end of 2026.
    pub(crate) fn revocation_list(&mut self, name: &str, authority: &Authority, serials: &[Vec<u8>]) {
        let revoked = |serial: &Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: date_time_ymd(2026, 11, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 11, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(authority).unwrap();
        self.put(name, list.pem().unwrap().as_bytes());
    }

    /// A revocation list of PEM as DER.
    pub(crate) fn turn_into_der(&mut self, name: &str) {
        let der = CertificateRevocationListDer::from_pem_slice(&self.files[name]).unwrap().to_vec();
        self.put(name, &der);
    }
}
