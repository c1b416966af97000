//! The header of a message (RFC 7296 §3.1).

use crate::Malformed;
use crate::reader::Reader;

use super::PayloadType;

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
    /// Major and minor version, 4 bits each; 2 and 0.
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

    const INITIATOR: u8 = 0x08;
    const VERSION: u8 = 0x10;
    const RESPONSE: u8 = 0x20;

    /// Reads the header of a message of any version: one of a higher version is to be answered by it (RFC 7296 §2.5). Beside it the type of
    /// the first payload and the length of the message, as they are said.
    ///
    /// # Errors
    /// The bytes are too few.
    pub fn decode(bytes: &[u8]) -> Result<(Self, PayloadType, u32), Malformed> {
        let mut reader = Reader::new(bytes);
        let initiator_spi = reader.u64("IKE SA Initiator's SPI")?;
        let responder_spi = reader.u64("IKE SA Responder's SPI")?;
        let next = PayloadType(reader.u8("Next Payload")?);
        let version = reader.u8("Version")?;
        let exchange = Exchange(reader.u8("Exchange Type")?);
        // §3.1: bits X are ignored.
        let flags = reader.u8("Flags")?;
        let message_id = reader.u32("Message ID")?;
        let length = reader.u32("Length")?;
        let header = Self {
            initiator_spi,
            responder_spi,
            version: (version >> 4, version & 15),
            exchange,
            is_response: flags & Self::RESPONSE != 0,
            can_higher: flags & Self::VERSION != 0,
            is_initiator: flags & Self::INITIATOR != 0,
            message_id,
        };
        Ok((header, next, length))
    }

    /// Writes it, with the type of the first payload and the length of what follows it.
    pub(super) fn encode(&self, next: u8, rest: usize, out: &mut Vec<u8>) {
        out.extend(self.initiator_spi.to_be_bytes());
        out.extend(self.responder_spi.to_be_bytes());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(self.is_response, Self::RESPONSE)
            | flag(self.can_higher, Self::VERSION)
            | flag(self.is_initiator, Self::INITIATOR);
        let (major, minor) = self.version;
        out.extend([next, major << 4 | minor & 15, self.exchange.0, flags]);
        out.extend(self.message_id.to_be_bytes());
        let length = u32::try_from(Self::LEN + rest).unwrap_or(u32::MAX);
        out.extend(length.to_be_bytes());
    }
}
