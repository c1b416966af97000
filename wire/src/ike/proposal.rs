//! Proposals of a security association payload (RFC 7296 §3.3.1, §3.3.2).

/// The protocol of an SA, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// IKE.
    pub const IKE: Self = Self(1);
    /// ESP.
    pub const ESP: Self = Self(3);
}

/// What a transform is for, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransformType(pub u8);

impl TransformType {
    /// Encryption: 12 AES-CBC, 20 AES-GCM with an ICV of 16 bytes.
    pub const ENCRYPTION: Self = Self(1);
    /// Pseudo-random function: 5 HMAC-SHA2-256, 6 -384, 7 -512.
    pub const PRF: Self = Self(2);
    /// Integrity: 12 HMAC-SHA2-256-128, 13 HMAC-SHA2-384-192.
    pub const INTEGRITY: Self = Self(3);
    /// Key exchange method.
    pub const KEY_EXCHANGE: Self = Self(4);
    /// Sequence numbers: 0 32 bits, 1 64 bits.
    pub const ESN: Self = Self(5);
    /// The first additional key exchange (RFC 9370 §2.1); six more follow.
    pub const ADDITIONAL_KEY_EXCHANGE_1: Self = Self(6);
}

/// One algorithm that a proposal offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Which it is, as the number of its registry.
    pub id: u16,
    /// The key length attribute, in bits (§3.3.5).
    pub key_length: Option<u16>,
    /// Other attributes, as they came: type with its format bit, and value.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

/// One combination of algorithms, to be taken or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its number, from 1 on.
    pub number: u8,
    /// What for.
    pub protocol: Protocol,
    /// The SPI that its sender would take packets by; none in the first exchange.
    pub spi: Vec<u8>,
    /// One of each type is to be chosen.
    pub transforms: Vec<Transform>,
}
