//! The header of a message (RFC 7296 §3.1).

/// The kind of exchange that a message belongs to, as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchange(pub u8);

impl Exchange {
    /// IKE_SA_INIT.
    pub const IKE_SA_INIT: Self = Self(34);
    /// IKE_AUTH.
    pub const IKE_AUTH: Self = Self(35);
    /// CREATE_CHILD_SA.
    pub const CREATE_CHILD_SA: Self = Self(36);
    /// INFORMATIONAL.
    pub const INFORMATIONAL: Self = Self(37);
    /// IKE_INTERMEDIATE (RFC 9242).
    pub const IKE_INTERMEDIATE: Self = Self(43);
    /// IKE_FOLLOWUP_KE (RFC 9370 §2.2.4).
    pub const IKE_FOLLOWUP_KE: Self = Self(44);
}

/// The header without what the rest of the message says: next payload and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// SPI of the initiator of the IKE SA.
    pub initiator_spi: u64,
    /// SPI of its responder; 0 in the first request.
    pub responder_spi: u64,
    /// Major and minor version; 2 and 0.
    pub version: (u8, u8),
    /// The exchange.
    pub exchange: Exchange,
    /// Flag R: it is a response.
    pub is_response: bool,
    /// Flag V: the sender could speak a higher major version.
    pub can_higher: bool,
    /// Flag I: it is from the initiator of the IKE SA.
    pub is_initiator: bool,
    /// Number of the request, from 0 on in each direction; a response has its request's.
    pub message_id: u32,
}

impl Header {
    /// Its length in bytes.
    pub const LEN: usize = 28;
}
