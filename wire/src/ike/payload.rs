//! Payloads (RFC 7296 §3.3 to §3.13).

use crate::Malformed;
use crate::reader::Reader;

use super::proposal::ended;
use super::{LONGEST_BODY, Proposal, Selector, proposal, selector};

/// The type of a payload, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadType(pub u8);

impl PayloadType {
    /// No further payload.
    pub const NONE: Self = Self(0);
    /// Security association.
    pub const SA: Self = Self(33);
    /// Key exchange.
    pub const KE: Self = Self(34);
    /// Identification of the initiator.
    pub const IDI: Self = Self(35);
    /// Identification of the responder.
    pub const IDR: Self = Self(36);
    /// Certificate.
    pub const CERT: Self = Self(37);
    /// Certificate request.
    pub const CERTREQ: Self = Self(38);
    /// Authentication.
    pub const AUTH: Self = Self(39);
    /// Nonce.
    pub const NONCE: Self = Self(40);
    /// Notify.
    pub const NOTIFY: Self = Self(41);
    /// Delete.
    pub const DELETE: Self = Self(42);
    /// Vendor id.
    pub const VENDOR: Self = Self(43);
    /// Traffic selectors of the initiator.
    pub const TSI: Self = Self(44);
    /// Traffic selectors of the responder.
    pub const TSR: Self = Self(45);
    /// Encrypted and authenticated.
    pub const SK: Self = Self(46);
    /// Configuration.
    pub const CP: Self = Self(47);
    /// Extensible authentication.
    pub const EAP: Self = Self(48);
    /// Encrypted and authenticated fragment (RFC 7383 §2.5).
    pub const SKF: Self = Self(53);
}

/// The body of an identification payload (RFC 7296 §3.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identification {
    /// ID type, as its number: 1 IPv4 address, 2 FQDN, 3 RFC 822 address, 5 IPv6 address, 9 DER of a distinguished name, 11 key id.
    pub kind: u8,
    /// What it is.
    pub data: Vec<u8>,
}

/// The type of a notification, as its number: errors below 16384, states from there on (RFC 7296 §3.10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotifyType(pub u16);

#[allow(missing_docs)] // Their names are those of the registry, and the sections stand beside them.
impl NotifyType {
    // RFC 7296 §3.10.1.
    pub const UNSUPPORTED_CRITICAL_PAYLOAD: Self = Self(1);
    pub const INVALID_IKE_SPI: Self = Self(4);
    pub const INVALID_MAJOR_VERSION: Self = Self(5);
    pub const INVALID_SYNTAX: Self = Self(7);
    pub const INVALID_MESSAGE_ID: Self = Self(9);
    pub const INVALID_SPI: Self = Self(11);
    pub const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub const INVALID_KE_PAYLOAD: Self = Self(17);
    pub const AUTHENTICATION_FAILED: Self = Self(24);
    pub const SINGLE_PAIR_REQUIRED: Self = Self(34);
    pub const NO_ADDITIONAL_SAS: Self = Self(35);
    pub const INTERNAL_ADDRESS_FAILURE: Self = Self(36);
    pub const FAILED_CP_REQUIRED: Self = Self(37);
    pub const TS_UNACCEPTABLE: Self = Self(38);
    pub const INVALID_SELECTORS: Self = Self(39);
    pub const TEMPORARY_FAILURE: Self = Self(43);
    pub const CHILD_SA_NOT_FOUND: Self = Self(44);
    pub const INITIAL_CONTACT: Self = Self(16384);
    pub const SET_WINDOW_SIZE: Self = Self(16385);
    pub const ADDITIONAL_TS_POSSIBLE: Self = Self(16386);
    pub const IPCOMP_SUPPORTED: Self = Self(16387);
    pub const NAT_DETECTION_SOURCE_IP: Self = Self(16388);
    pub const NAT_DETECTION_DESTINATION_IP: Self = Self(16389);
    pub const COOKIE: Self = Self(16390);
    pub const USE_TRANSPORT_MODE: Self = Self(16391);
    pub const HTTP_CERT_LOOKUP_SUPPORTED: Self = Self(16392);
    pub const REKEY_SA: Self = Self(16393);
    pub const ESP_TFC_PADDING_NOT_SUPPORTED: Self = Self(16394);
    pub const NON_FIRST_FRAGMENTS_ALSO: Self = Self(16395);
    // RFC 4555, RFC 4739, RFC 5685, RFC 5998, RFC 6023, RFC 6311, RFC 7383, RFC 7427, RFC 9242, RFC 9370, RFC 9611.
    pub const MOBIKE_SUPPORTED: Self = Self(16396);
    pub const ADDITIONAL_IP4_ADDRESS: Self = Self(16397);
    pub const ADDITIONAL_IP6_ADDRESS: Self = Self(16398);
    pub const NO_ADDITIONAL_ADDRESSES: Self = Self(16399);
    pub const UPDATE_SA_ADDRESSES: Self = Self(16400);
    pub const COOKIE2: Self = Self(16401);
    pub const NO_NATS_ALLOWED: Self = Self(16402);
    pub const MULTIPLE_AUTH_SUPPORTED: Self = Self(16404);
    pub const ANOTHER_AUTH_FOLLOWS: Self = Self(16405);
    pub const REDIRECT_SUPPORTED: Self = Self(16406);
    pub const EAP_ONLY_AUTHENTICATION: Self = Self(16417);
    pub const CHILDLESS_IKEV2_SUPPORTED: Self = Self(16418);
    pub const IKEV2_MESSAGE_ID_SYNC_SUPPORTED: Self = Self(16420);
    pub const IKEV2_FRAGMENTATION_SUPPORTED: Self = Self(16430);
    pub const SIGNATURE_HASH_ALGORITHMS: Self = Self(16431);
    pub const INTERMEDIATE_EXCHANGE_SUPPORTED: Self = Self(16438);
    pub const ADDITIONAL_KEY_EXCHANGE: Self = Self(16441);
    pub const SA_RESOURCE_INFO: Self = Self(16444);
    pub const TS_MAX_QUEUE: Self = Self(48);
}

/// A payload. What its protocol leaves open is kept as numbers and bytes, so that any message comes out as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Proposals, of which one is to be chosen (§3.3).
    Sa(Vec<Proposal>),
    /// A public value of a key exchange (§3.4).
    KeyExchange {
        /// Its method, as its number: 14 MODP-2048, 19 P-256, 20 P-384, 21 P-521, 31 x25519, 36 ML-KEM-768.
        method: u16,
        /// The value.
        data: Vec<u8>,
    },
    /// Who the initiator says it is (§3.5).
    IdInitiator(Identification),
    /// Who the responder says it is, or the initiator wants it to be (§3.5).
    IdResponder(Identification),
    /// A certificate (§3.6).
    Certificate {
        /// Its encoding, as its number: 4 X.509 signature.
        encoding: u8,
        /// DER.
        data: Vec<u8>,
    },
    /// Whose certificates would be believed (§3.7).
    CertificateRequest {
        /// As of a certificate.
        encoding: u8,
        /// SHA-1 hashes of public keys of authorities.
        data: Vec<u8>,
    },
    /// The proof (§3.8).
    Authentication {
        /// Its method, as its number: 1 RSA, 2 shared key, 9–11 ECDSA, 14 digital signature (RFC 7427).
        method: u8,
        /// The proof itself.
        data: Vec<u8>,
    },
    /// A nonce, 16 to 256 bytes (§3.9).
    Nonce(Vec<u8>),
    /// A notification (§3.10).
    Notify {
        /// Of which protocol's SA it speaks: 0 none, 1 IKE, 3 ESP.
        protocol: u8,
        /// The SPI of that SA, or nothing.
        spi: Vec<u8>,
        /// What it says.
        kind: NotifyType,
        /// More of it.
        data: Vec<u8>,
    },
    /// SAs that are no more (§3.11).
    Delete {
        /// 1 IKE, 3 ESP.
        protocol: u8,
        /// Inbound SPIs of the sender; none where it is the IKE SA itself.
        spis: Vec<Vec<u8>>,
    },
    /// A vendor's mark (§3.12).
    Vendor(Vec<u8>),
    /// What the initiator of the exchange sends from and takes (§3.13).
    SelectorsInitiator(Vec<Selector>),
    /// What its responder does.
    SelectorsResponder(Vec<Selector>),
    /// Anything else: configuration, EAP, what is not known.
    Unknown {
        /// Its type.
        kind: PayloadType,
        /// Flag C: who does not know it has to refuse the message (§2.5).
        is_critical: bool,
        /// Its body.
        data: Vec<u8>,
    },
}

impl Payload {
    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> PayloadType {
        match self {
            Self::Sa(_) => PayloadType::SA,
            Self::KeyExchange { .. } => PayloadType::KE,
            Self::IdInitiator(_) => PayloadType::IDI,
            Self::IdResponder(_) => PayloadType::IDR,
            Self::Certificate { .. } => PayloadType::CERT,
            Self::CertificateRequest { .. } => PayloadType::CERTREQ,
            Self::Authentication { .. } => PayloadType::AUTH,
            Self::Nonce(_) => PayloadType::NONCE,
            Self::Notify { .. } => PayloadType::NOTIFY,
            Self::Delete { .. } => PayloadType::DELETE,
            Self::Vendor(_) => PayloadType::VENDOR,
            Self::SelectorsInitiator(_) => PayloadType::TSI,
            Self::SelectorsResponder(_) => PayloadType::TSR,
            Self::Unknown { kind, .. } => *kind,
        }
    }
}

impl Payload {
    /// Reads the body of a payload.
    pub(super) fn decode(kind: PayloadType, is_critical: bool, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        Ok(match kind {
            PayloadType::SA => Self::Sa(proposal::decode(body)?),
            PayloadType::KE => {
                let method = reader.u16("Key Exchange Method")?;
                let _reserved = reader.u16("RESERVED")?;
                Self::KeyExchange { method, data: reader.rest().to_vec() }
            }
            PayloadType::IDI => Self::IdInitiator(Identification::decode(reader)?),
            PayloadType::IDR => Self::IdResponder(Identification::decode(reader)?),
            PayloadType::CERT => {
                let encoding = reader.u8("Cert Encoding")?;
                Self::Certificate { encoding, data: reader.rest().to_vec() }
            }
            PayloadType::CERTREQ => {
                let encoding = reader.u8("Cert Encoding")?;
                Self::CertificateRequest { encoding, data: reader.rest().to_vec() }
            }
            PayloadType::AUTH => {
                let method = reader.u8("Auth Method")?;
                let _reserved = reader.array::<3>("RESERVED")?;
                Self::Authentication { method, data: reader.rest().to_vec() }
            }
            // §3.9: 16 to 256 bytes.
            PayloadType::NONCE if !(16..=256).contains(&body.len()) => {
                return Err(Malformed::Value { field: "length of the nonce", found: body.len() as u64 });
            }
            PayloadType::NONCE => Self::Nonce(body.to_vec()),
            PayloadType::NOTIFY => {
                let protocol = reader.u8("Protocol ID")?;
                let spi_len = reader.u8("SPI Size")?;
                let kind = NotifyType(reader.u16("Notify Message Type")?);
                let spi = reader.take(spi_len.into(), "SPI")?.to_vec();
                Self::Notify { protocol, spi, kind, data: reader.rest().to_vec() }
            }
            PayloadType::DELETE => Self::decode_delete(reader)?,
            PayloadType::VENDOR => Self::Vendor(body.to_vec()),
            PayloadType::TSI => Self::SelectorsInitiator(selector::decode(body)?),
            PayloadType::TSR => Self::SelectorsResponder(selector::decode(body)?),
            // §3.14: what is encrypted is not encrypted again.
            PayloadType::NONE | PayloadType::SK | PayloadType::SKF => {
                return Err(Malformed::Value { field: "Next Payload", found: kind.0.into() });
            }
            kind => Self::Unknown { kind, is_critical, data: body.to_vec() },
        })
    }

    fn decode_delete(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let protocol = reader.u8("Protocol ID")?;
        let size = reader.u8("SPI Size")?;
        let count = reader.u16("Num of SPIs")?;
        // §3.11: SPIs have a size; where there is none, there are no SPIs, however many are said.
        if size == 0 && count != 0 {
            return Err(Malformed::Value { field: "Num of SPIs", found: count.into() });
        }
        let spi = |_| reader.take(size.into(), "SPI").map(<[u8]>::to_vec);
        let spis = (0..count).map(spi).collect::<Result<_, _>>()?;
        ended(&reader, "Num of SPIs")?;
        Ok(Self::Delete { protocol, spis })
    }

    /// Writes the body. What does not fit into [`LONGEST_BODY`] is left out.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Sa(proposals) => proposal::encode(proposals, out),
            Self::KeyExchange { method, data } => {
                let [high, low] = method.to_be_bytes();
                out.extend([high, low, 0, 0]);
                out.extend(data);
            }
            Self::IdInitiator(id) | Self::IdResponder(id) => out.extend(id.bytes()),
            Self::Certificate { encoding, data } | Self::CertificateRequest { encoding, data } => {
                out.push(*encoding);
                out.extend(data);
            }
            Self::Authentication { method, data } => {
                out.extend([*method, 0, 0, 0]);
                out.extend(data);
            }
            Self::Nonce(data) | Self::Vendor(data) | Self::Unknown { data, .. } => out.extend(data),
            Self::Notify { protocol, spi, kind, data } => {
                let spi = &spi[..spi.len().min(u8::MAX.into())];
                out.extend([*protocol, spi.len() as u8]);
                out.extend(kind.0.to_be_bytes());
                out.extend(spi);
                out.extend(data);
            }
            Self::Delete { protocol, spis } => {
                // They have one size: that of the first.
                let size = spis.first().map_or(0, Vec::len).min(u8::MAX.into());
                let room = (LONGEST_BODY - 4).checked_div(size).unwrap_or(0);
                let spis: Vec<_> = spis.iter().filter(|spi| spi.len() == size).take(room).collect();
                let size = if spis.is_empty() { 0 } else { size };
                out.extend([*protocol, size as u8]);
                out.extend((spis.len() as u16).to_be_bytes());
                spis.into_iter().for_each(|spi| out.extend(spi));
            }
            Self::SelectorsInitiator(selectors) | Self::SelectorsResponder(selectors) => {
                selector::encode(selectors, out);
            }
        }
        out.truncate(start + LONGEST_BODY);
    }
}

impl Identification {
    fn decode(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let kind = reader.u8("ID Type")?;
        let _reserved = reader.array::<3>("RESERVED")?;
        Ok(Self { kind, data: reader.rest().to_vec() })
    }

    /// The body of its payload: what AUTH is computed over (RFC 7296 §2.15), the reserved bytes 0.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [&[self.kind, 0, 0, 0], &self.data[..]].concat()
    }
}
