//! What numbers are called where people read them: as the registry of IKEv2 parameters has them, in the words of operators where those have some.

use std::fmt;

use super::{Exchange, NotifyType, PayloadType, Protocol, Transform, TransformType};

impl Exchange {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::IKE_SA_INIT => "IKE_SA_INIT",
            Self::IKE_AUTH => "IKE_AUTH",
            Self::CREATE_CHILD_SA => "CREATE_CHILD_SA",
            Self::INFORMATIONAL => "INFORMATIONAL",
            Self::IKE_INTERMEDIATE => "IKE_INTERMEDIATE",
            Self::IKE_FOLLOWUP_KE => "IKE_FOLLOWUP_KE",
            _ => return None,
        })
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "exchange {}", self.0),
        }
    }
}

impl PayloadType {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SA => "security association",
            Self::KE => "key exchange",
            Self::IDI => "identification of the initiator",
            Self::IDR => "identification of the responder",
            Self::CERT => "certificate",
            Self::CERTREQ => "certificate request",
            Self::AUTH => "authentication",
            Self::NONCE => "nonce",
            Self::NOTIFY => "notify",
            Self::DELETE => "delete",
            Self::VENDOR => "vendor id",
            Self::TSI => "traffic selectors of the initiator",
            Self::TSR => "traffic selectors of the responder",
            Self::SK => "encrypted",
            Self::CP => "configuration",
            Self::EAP => "extensible authentication",
            Self::SKF => "encrypted fragment",
            _ => return None,
        })
    }
}

/// A table of constants and their names, which are the same.
macro_rules! names {
    ($type:ident { $($name:ident)+ }) => {
        impl $type {
            /// Its name, as the registry has it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

names! {
    NotifyType {
        UNSUPPORTED_CRITICAL_PAYLOAD INVALID_IKE_SPI INVALID_MAJOR_VERSION INVALID_SYNTAX INVALID_MESSAGE_ID INVALID_SPI
        NO_PROPOSAL_CHOSEN INVALID_KE_PAYLOAD AUTHENTICATION_FAILED SINGLE_PAIR_REQUIRED NO_ADDITIONAL_SAS
        INTERNAL_ADDRESS_FAILURE FAILED_CP_REQUIRED TS_UNACCEPTABLE INVALID_SELECTORS TEMPORARY_FAILURE CHILD_SA_NOT_FOUND
        INITIAL_CONTACT SET_WINDOW_SIZE ADDITIONAL_TS_POSSIBLE IPCOMP_SUPPORTED NAT_DETECTION_SOURCE_IP
        NAT_DETECTION_DESTINATION_IP COOKIE USE_TRANSPORT_MODE HTTP_CERT_LOOKUP_SUPPORTED REKEY_SA
        ESP_TFC_PADDING_NOT_SUPPORTED NON_FIRST_FRAGMENTS_ALSO MOBIKE_SUPPORTED ADDITIONAL_IP4_ADDRESS ADDITIONAL_IP6_ADDRESS
        NO_ADDITIONAL_ADDRESSES UPDATE_SA_ADDRESSES COOKIE2 NO_NATS_ALLOWED MULTIPLE_AUTH_SUPPORTED ANOTHER_AUTH_FOLLOWS
        REDIRECT_SUPPORTED EAP_ONLY_AUTHENTICATION CHILDLESS_IKEV2_SUPPORTED IKEV2_MESSAGE_ID_SYNC_SUPPORTED
        IKEV2_FRAGMENTATION_SUPPORTED SIGNATURE_HASH_ALGORITHMS INTERMEDIATE_EXCHANGE_SUPPORTED ADDITIONAL_KEY_EXCHANGE
        SA_RESOURCE_INFO TS_MAX_QUEUE
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0 < 16384 { "error" } else { "status" };
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{kind} {}", self.0),
        }
    }
}

impl Protocol {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "IKE",
            2 => "AH",
            3 => "ESP",
            _ => return None,
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

impl TransformType {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "encryption",
            2 => "PRF",
            3 => "integrity",
            4 => "key exchange",
            5 => "sequence numbers",
            6 => "additional key exchange 1",
            7 => "additional key exchange 2",
            8 => "additional key exchange 3",
            9 => "additional key exchange 4",
            10 => "additional key exchange 5",
            11 => "additional key exchange 6",
            12 => "additional key exchange 7",
            _ => return None,
        })
    }
}

/// The name of a key exchange method.
#[must_use]
pub const fn method_name(method: u16) -> Option<&'static str> {
    Some(match method {
        0 => "none",
        1 => "MODP-768",
        2 => "MODP-1024",
        5 => "MODP-1536",
        14 => "MODP-2048",
        15 => "MODP-3072",
        16 => "MODP-4096",
        17 => "MODP-6144",
        18 => "MODP-8192",
        19 => "P-256",
        20 => "P-384",
        21 => "P-521",
        25 => "P-192",
        26 => "P-224",
        27 => "brainpoolP224r1",
        28 => "brainpoolP256r1",
        29 => "brainpoolP384r1",
        30 => "brainpoolP512r1",
        31 => "x25519",
        32 => "x448",
        35 => "ML-KEM-512",
        36 => "ML-KEM-768",
        37 => "ML-KEM-1024",
        _ => return None,
    })
}

const fn encryption(id: u16) -> Option<&'static str> {
    Some(match id {
        2 => "DES",
        3 => "3DES",
        7 => "Blowfish",
        11 => "NULL",
        12 => "AES-CBC",
        13 => "AES-CTR",
        14 => "AES-CCM-8",
        15 => "AES-CCM-12",
        16 => "AES-CCM-16",
        18 => "AES-GCM-8",
        19 => "AES-GCM-12",
        20 => "AES-GCM-16",
        21 => "NULL-AES-GMAC",
        23 => "Camellia-CBC",
        28 => "ChaCha20-Poly1305",
        _ => return None,
    })
}

const fn integrity(id: u16) -> Option<&'static str> {
    Some(match id {
        0 => "none",
        1 => "HMAC-MD5-96",
        2 => "HMAC-SHA1-96",
        5 => "AES-XCBC-96",
        8 => "AES-CMAC-96",
        12 => "HMAC-SHA2-256-128",
        13 => "HMAC-SHA2-384-192",
        14 => "HMAC-SHA2-512-256",
        _ => return None,
    })
}

const fn prf(id: u16) -> Option<&'static str> {
    Some(match id {
        1 => "HMAC-MD5",
        2 => "HMAC-SHA1",
        4 => "AES128-XCBC",
        5 => "HMAC-SHA2-256",
        6 => "HMAC-SHA2-384",
        7 => "HMAC-SHA2-512",
        8 => "AES128-CMAC",
        _ => return None,
    })
}

impl Transform {
    /// The name of its algorithm, without the length of a key.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match self.kind.0 {
            1 => encryption(self.id),
            2 => prf(self.id),
            3 => integrity(self.id),
            4 | 6..=12 => method_name(self.id),
            5 => match self.id {
                0 => Some("32 bits"),
                1 => Some("64 bits"),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.name() {
            Some(kind) => write!(f, "{kind} ")?,
            None => write!(f, "transform type {} ", self.kind.0)?,
        }
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "{}", self.id)?,
        }
        self.key_length.map_or(Ok(()), |bits| write!(f, " with a key of {bits} bits"))
    }
}
