//! IKEv2 messages (RFC 7296 §3; fragments: RFC 7383), owned. What is encrypted stays sealed here: keys are not this crate's.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+  header, 28 bytes (§3.1)
//! | SPI of the IKE SA's initiator, 8 bytes                        |
//! +---------------------------------------------------------------+
//! | SPI of its responder, 8 bytes; 0 in the first request         |
//! +---------------+-------+-------+---------------+---------------+
//! | next payload  | major | minor | exchange type | X X R V I X X X
//! +---------------+-------+-------+---------------+---------------+
//! | message id                                                    |
//! +---------------------------------------------------------------+
//! | length of all this                                            |
//! +---------------+-+-------------+-------------------------------+  each payload (§3.2)
//! | next payload  |C| reserved    | length with this header       |
//! +---------------+-+-------------+-------------------------------+
//! ```
//!
//! On UDP port 4500 four zero bytes stand before the header ([`NON_ESP_MARKER`], RFC 3948 §2.2); they are not part of a message.

mod header;
mod payload;
mod proposal;
mod selector;

pub use header::{Exchange, Header};
pub use payload::{Identification, NotifyType, Payload, PayloadType};
pub use proposal::{Proposal, Protocol, Transform, TransformType};
pub use selector::Selector;

use crate::Malformed;

/// What stands before an IKE message on UDP port 4500, where ESP has its SPI (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The one byte of a NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: u8 = 0xff;

/// UDP port of IKE (RFC 7296 §2).
pub const PORT: u16 = 500;

/// UDP port of IKE and ESP where a NAT is on the way, or may be (RFC 7296 §2.23).
pub const NAT_PORT: u16 = 4500;

/// A message as it came: what is in the clear, and what is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// Payloads in the clear: all of them in IKE_SA_INIT, none in what follows (RFC 7296 §3.14).
    pub payloads: Vec<Payload>,
    /// The encrypted payload, the last one.
    pub sealed: Option<Sealed<'a>>,
}

/// An encrypted payload (RFC 7296 §3.14), or an encrypted fragment (RFC 7383 §2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// From the first byte of the message to the last one before the IV: what an AEAD authenticates beside (RFC 5282 §5.1).
    pub front: &'a [u8],
    /// IV, ciphertext and ICV.
    pub body: &'a [u8],
    /// Type of the first payload in it, as its number; in later fragments 0.
    pub first: u8,
    /// Number of this fragment and of all of them, 1 and up.
    pub fragment: Option<(u16, u16)>,
}

impl<'a> Message<'a> {
    /// Reads a message: the datagram without [`NON_ESP_MARKER`].
    ///
    /// # Errors
    /// It is not one. A payload of an unknown type is none: see [`Payload::Unknown`].
    pub fn decode(_bytes: &'a [u8]) -> Result<Self, Malformed> {
        Err(Malformed::Value { field: "message", found: 0 })
    }
}

/// A message in the clear. The payloads' lengths are those of messages: under 64 KiB in all.
#[must_use]
pub fn encode(_header: Header, _payloads: &[Payload]) -> Vec<u8> {
    Vec::new()
}

/// Reads what an encrypted payload holds: the chain whose first payload is of type `first`, without padding and its length.
///
/// # Errors
/// It is not a chain of payloads.
pub fn decode_payloads(_first: u8, _bytes: &[u8]) -> Result<Vec<Payload>, Malformed> {
    Err(Malformed::Value { field: "message", found: 0 })
}

/// A chain of payloads, and the type of the first (0 of none).
#[must_use]
pub fn encode_payloads(_payloads: &[Payload]) -> (u8, Vec<u8>) {
    (0, Vec::new())
}

/// Everything of a message before the IV of its one payload, which is encrypted: [`Sealed::front`]. `first`: type of the first payload in
/// it. `body`: length in bytes of what follows, IV, ciphertext and ICV.
#[must_use]
pub fn encode_front(_header: Header, _first: u8, _fragment: Option<(u16, u16)>, _body: usize) -> Vec<u8> {
    Vec::new()
}
