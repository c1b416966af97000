//! An IKE message as it is printed, as text and as JSON.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use wire::ike::{
    self, Header, Identification, NotifyType, Payload, PayloadType, Proposal, Protocol, Sealed, Selector,
    method_name,
};
use x509_cert::der::Decode;

use crate::decode::message::hex;

/// A message, every field of it.
#[derive(Debug, Serialize)]
pub(in crate::decode) struct Message {
    exchange: String,
    version: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Who of the two that began the IKE SA sends it.
    from: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    can_higher_version: bool,
    id: u32,
    size: usize,
    initiator_spi: String,
    responder_spi: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted: Option<Encrypted>,
    /// How many fragments it came in, with the one that was missing last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pieces: Option<u16>,
    /// Why what was decrypted cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<String>,
    payloads: Vec<Shown>,
}

/// What is encrypted in it, and what became of that.
#[derive(Debug, Serialize)]
struct Encrypted {
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<[u16; 2]>,
    says: String,
}

/// A payload.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(rename = "type")]
    kind: u8,
    name: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    critical: bool,
    /// Its sentences.
    says: Vec<String>,
    /// What in it is bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
}

/// What a message is, in a few words.
pub(super) fn what(header: &Header) -> String {
    format!("{} {} {}", header.exchange, kind(header), header.message_id)
}

fn kind(header: &Header) -> &'static str {
    if header.is_response { "response" } else { "request" }
}

impl Message {
    pub(super) fn new(message: &ike::Message<'_>, size: usize) -> Self {
        let header = &message.header;
        let (major, minor) = header.version;
        let mut shown = Self {
            exchange: header.exchange.to_string(),
            version: format!("{major}.{minor}"),
            kind: kind(header),
            from: if header.is_initiator { "initiator" } else { "responder" },
            can_higher_version: header.can_higher,
            id: header.message_id,
            size,
            initiator_spi: format!("{:016x}", header.initiator_spi),
            responder_spi: format!("{:016x}", header.responder_spi),
            encrypted: None,
            pieces: None,
            fault: None,
            payloads: Vec::new(),
        };
        shown.add(&message.payloads);
        shown
    }

    pub(super) fn add(&mut self, payloads: &[Payload]) {
        self.payloads.extend(payloads.iter().map(Shown::new));
    }

    /// Says what became of what is encrypted.
    pub(super) fn sealed_says(&mut self, sealed: &Sealed<'_>, says: String) {
        let fragment = sealed.fragment.map(|(number, of)| [number, of]);
        self.encrypted = Some(Encrypted { bytes: sealed.body.len(), fragment, says });
    }
}

impl Shown {
    fn new(payload: &Payload) -> Self {
        let (says, data): (Vec<String>, &[u8]) = match payload {
            Payload::Sa(proposals) => (proposals.iter().map(proposal).collect(), &[]),
            Payload::KeyExchange { method, data } => (vec![named(method_name(*method), *method)], data),
            Payload::IdInitiator(id) | Payload::IdResponder(id) => (vec![identification(id)], &id.data),
            Payload::Certificate { encoding, data } => (certificate(*encoding, data), data),
            Payload::CertificateRequest { encoding, data } => {
                let authorities = if *encoding == X509 { data.len() / SHA1 } else { 0 };
                let of = format!("{}, {authorities} authorities", named(encoding_name(*encoding), *encoding));
                (vec![of], data)
            }
            Payload::Authentication { method, data } => (authentication(*method, data), data),
            Payload::Nonce(data) | Payload::Vendor(data) => (vec![format!("{} bytes", data.len())], data),
            Payload::Notify { protocol, spi, kind, data } => {
                (vec![notification(*protocol, spi, *kind, data)], data)
            }
            Payload::Delete { protocol, spis } => {
                let spis = spis.iter().map(|spi| format!(" {}", hex(spi))).collect::<String>();
                (vec![format!("{}{spis}", Protocol(*protocol))], &[])
            }
            Payload::SelectorsInitiator(selectors) | Payload::SelectorsResponder(selectors) => {
                (selectors.iter().map(selector).collect(), &[])
            }
            Payload::Unknown { data, .. } => (vec![format!("{} bytes", data.len())], data),
        };
        let kind = payload.kind();
        let critical = matches!(payload, Payload::Unknown { is_critical: true, .. });
        Self { kind: kind.0, name: kind.name().unwrap_or("unknown"), critical, says, data: hex(data) }
    }
}

/// Certificate encodings (RFC 7296 §3.6) and how long the hash of an authority is in bytes (§3.7).
const X509: u8 = 4;
const SHA1: usize = 20;

/// `name (number)`, or the number alone.
fn named(name: Option<&str>, number: impl fmt::Display) -> String {
    name.map_or_else(|| format!("{number}"), |name| format!("{name} ({number})"))
}

fn proposal(proposal: &Proposal) -> String {
    let Proposal { number, protocol, spi, transforms } = proposal;
    let spi = if spi.is_empty() { String::new() } else { format!(", SPI {}", hex(spi)) };
    let transforms: Vec<_> = transforms
        .iter()
        .map(|transform| {
            let other = transform.attributes.iter();
            let other = other.map(|(kind, value)| format!(", attribute {} {}", kind & 0x7fff, hex(value)));
            format!("{transform}{}", other.collect::<String>())
        })
        .collect();
    format!("proposal {number} for {protocol}{spi}: {}", transforms.join(", "))
}

fn identification(id: &Identification) -> String {
    let text = || String::from_utf8_lossy(&id.data).into_owned();
    let address = || match id.data.len() {
        4 => <[u8; 4]>::try_from(&id.data[..]).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(&id.data[..]).ok().map(IpAddr::from),
        _ => None,
    };
    match id.kind {
        1 | 5 => match address() {
            Some(address) => format!("address {address}"),
            None => format!("address of {} bytes", id.data.len()),
        },
        2 => format!("name {:?}", text()),
        3 => format!("mail address {:?}", text()),
        9 => match x509_cert::name::Name::from_der(&id.data) {
            Ok(name) => format!("distinguished name {name}"),
            Err(_) => "distinguished name that is none".to_owned(),
        },
        11 => "key id".to_owned(),
        kind => format!("identity of type {kind}"),
    }
}

const fn encoding_name(encoding: u8) -> Option<&'static str> {
    Some(match encoding {
        1 => "PKCS #7",
        X509 => "X.509",
        7 => "revocation list",
        11 => "raw RSA key",
        12 => "hash and URL of X.509",
        13 => "hash and URL of a bundle",
        14 => "OCSP",
        15 => "raw public key",
        _ => return None,
    })
}

fn certificate(encoding: u8, data: &[u8]) -> Vec<String> {
    let mut says = vec![named(encoding_name(encoding), encoding)];
    if encoding == X509 {
        match x509_cert::Certificate::from_der(data) {
            Ok(certificate) => {
                let of = certificate.tbs_certificate();
                let (from, to) = (of.validity().not_before, of.validity().not_after);
                says.push(format!("subject {}, issuer {}", of.subject(), of.issuer()));
                says.push(format!("serial {}, valid from {from} to {to}", of.serial_number()));
            }
            Err(error) => says.push(format!("it cannot be read: {error}")),
        }
    }
    says
}

fn authentication(method: u8, data: &[u8]) -> Vec<String> {
    let name = match method {
        1 => Some("RSA signature"),
        2 => Some("shared key"),
        3 => Some("DSS signature"),
        9 => Some("ECDSA P-256 with SHA-256"),
        10 => Some("ECDSA P-384 with SHA-384"),
        11 => Some("ECDSA P-521 with SHA-512"),
        12 => Some("password"),
        13 => Some("none"),
        14 => Some("digital signature"),
        _ => None,
    };
    let mut says = vec![named(name, method)];
    // RFC 7427 §3: the length of an algorithm's name, the name, the signature.
    if method == 14 {
        let algorithm = data.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len)));
        let algorithm =
            algorithm.and_then(|der| x509_cert::spki::AlgorithmIdentifierOwned::from_der(der).ok());
        says.push(match algorithm {
            Some(algorithm) => {
                let oid = algorithm.oid.to_string();
                named(SIGNATURES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name), oid)
            }
            None => "its algorithm cannot be read".to_owned(),
        });
    }
    says
}

/// Algorithms of digital signatures (RFC 7427 §A, RFC 8420).
const SIGNATURES: [(&str, &str); 9] = [
    ("1.2.840.113549.1.1.5", "RSA with SHA-1"),
    ("1.2.840.113549.1.1.11", "RSA with SHA-256"),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384"),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256"),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.3.101.112", "Ed25519"),
];

fn notification(protocol: u8, spi: &[u8], kind: NotifyType, data: &[u8]) -> String {
    let of = if spi.is_empty() { String::new() } else { format!(" of {} {}", Protocol(protocol), hex(spi)) };
    let words: Vec<u16> = data.as_chunks::<2>().0.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let more = match (kind, &words[..]) {
        // RFC 7427 §4: hash algorithms.
        (NotifyType::SIGNATURE_HASH_ALGORITHMS, words) => {
            let name = |word: &u16| match word {
                1 => "SHA-1".to_owned(),
                2 => "SHA2-256".to_owned(),
                3 => "SHA2-384".to_owned(),
                4 => "SHA2-512".to_owned(),
                5 => "identity".to_owned(),
                other => other.to_string(),
            };
            format!(": {}", words.iter().map(name).collect::<Vec<_>>().join(", "))
        }
        (NotifyType::INVALID_KE_PAYLOAD, [method]) => {
            format!(": {} is wanted", named(method_name(*method), *method))
        }
        (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, _) if data.len() == 1 => {
            let kind = PayloadType(data[0]);
            format!(": {}", named(kind.name(), kind.0))
        }
        _ if data.is_empty() => String::new(),
        _ => format!(", {} bytes", data.len()),
    };
    format!("{kind} ({}){of}{more}", kind.0)
}

fn selector(selector: &Selector) -> String {
    match selector {
        Selector::Addresses { protocol, ports, addresses: (first, last) } => {
            let addresses = if first == last { first.to_string() } else { format!("{first} to {last}") };
            let protocol = match protocol {
                0 => "any protocol".to_owned(),
                47 => "GRE".to_owned(),
                other => format!("protocol {other}"),
            };
            let ports = match ports {
                (0, u16::MAX) => String::new(),
                // §3.13.1: ports that are not to be seen.
                (u16::MAX, 0) => ", opaque ports".to_owned(),
                (first, last) => format!(", ports {first} to {last}"),
            };
            format!("{addresses}, {protocol}{ports}")
        }
        Selector::Unknown { kind, protocol, data } => {
            format!("selector of type {kind}, protocol {protocol}, {}", hex(data))
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind)?;
        if self.critical {
            f.write_str(", critical")?;
        }
        match &self.says[..] {
            [] => {}
            [one] => write!(f, ": {one}")?,
            several => several.iter().try_for_each(|line| write!(f, "\n      {line}"))?,
        }
        // What is long says little to people: JSON has it.
        if self.data.is_empty() || self.data.len() > 2 * 64 {
            return Ok(());
        }
        let sep = if self.says.len() > 1 { "\n      " } else { ": " };
        write!(f, "{sep}{}", self.data)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exchange, version, kind, from, id, size, initiator_spi, responder_spi, .. } = self;
        write!(f, "  {exchange} {kind} {id} from the {from}, SPIs {initiator_spi} {responder_spi}")?;
        write!(f, ", {size} bytes")?;
        if version != "2.0" {
            write!(f, ", version {version}")?;
        }
        if self.can_higher_version {
            f.write_str(", speaks a higher version")?;
        }
        writeln!(f)?;
        if let Some(Encrypted { bytes, fragment, says }) = &self.encrypted {
            let fragment = fragment.map(|[number, of]| format!(", fragment {number} of {of}"));
            writeln!(f, "    encrypted, {bytes} bytes{}: {says}", fragment.unwrap_or_default())?;
        }
        if let Some(pieces) = self.pieces {
            writeln!(f, "    put together from {pieces} fragments")?;
        }
        if let Some(fault) = &self.fault {
            writeln!(f, "    not readable: {fault}")?;
        }
        self.payloads.iter().try_for_each(|payload| writeln!(f, "    {payload}"))
    }
}
