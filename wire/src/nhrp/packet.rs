//! A packet as it came: its message, and what is in it that says nothing.

use crate::Malformed;
use crate::checksum::{Sum, checksum};

use super::{Header, Message};

/// What a packet has in the places where RFC 2332 wants zeros, and how its extensions end. The sender should not have put it there, and
/// nobody acts on it; it is kept so that a packet can be written as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserved {
    /// `ar$pro.snap`.
    pub snap: [u8; 5],
    /// The absent source NBMA address is said to be an E.164 one.
    pub source_e164: bool,
    /// Types 7 and 8: what stands in the place of flags.
    pub flags: u16,
    /// Type 8: what stands behind the code.
    pub word: u16,
    /// Of those CIEs that have something, in their order.
    pub entries: Vec<ReservedOfEntry>,
    /// What stands from the End extension on, where that is not just End as it should be; empty where End is missing.
    pub end: Option<Vec<u8>>,
}

/// What a CIE has in the places where zeros belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReservedOfEntry {
    /// Place of the CIE in its list, from 0.
    pub at: usize,
    /// Its unused field.
    pub unused: u16,
    /// Its absent NBMA address is said to be an E.164 one.
    pub e164: bool,
}

impl Reserved {
    /// Nothing, as it should be.
    pub(super) const ZERO: Self =
        Self { snap: [0; 5], source_e164: false, flags: 0, word: 0, entries: Vec::new(), end: None };

    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Of the CIE in that place.
    pub(super) fn of_entry(&self, at: usize) -> ReservedOfEntry {
        self.entries.iter().find(|e| e.at == at).copied().unwrap_or_default()
    }
}

/// What `ar$chksum` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// As RFC 2332 §5.1 has it: the sum over the whole packet, an odd length padded with a zero at the end.
    Right,
    /// As FRR up to 10.3 has it: the last byte of an odd length added as if the zero stood before it. It is taken too: no other packet of
    /// the same bytes verifies under it by more than the chance of any 16-bit checksum.
    OddLength,
    /// Neither.
    Wrong,
}

impl Checksum {
    /// Verifies that of a whole packet.
    #[must_use]
    pub(super) fn of(packet: &[u8]) -> Self {
        if checksum(packet) == 0 {
            return Self::Right;
        }
        match packet.split_last() {
            Some((last, rest))
                if rest.len() % 2 == 0 && Sum::new().bytes(rest).u16(u16::from(*last)).checksum() == 0 =>
            {
                Self::OddLength
            }
            _ => Self::Wrong,
        }
    }
}

/// A packet as it came. What a dissector wants to know, and [`Message::decode`] does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What it says.
    pub message: Message,
    /// What it has beside that.
    pub reserved: Reserved,
    /// `ar$pktsz`: its length in bytes.
    pub size: usize,
    /// `ar$extoff`: where its extensions start; `None` if it has none.
    pub extensions_at: Option<usize>,
    /// `ar$chksum`.
    pub sum: u16,
    /// What to think of that.
    pub checksum: Checksum,
}

impl Packet {
    /// Where `ar$chksum` stands.
    pub const CHECKSUM: std::ops::Range<usize> = 12..14;

    /// Reads a packet whatever its checksum is. Bytes behind `ar$pktsz` are padding of a lower layer and ignored.
    ///
    /// # Errors
    /// What is wrong with the first field that is.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let header = Header::decode(bytes)?;
        let packet = &bytes[..header.size];
        let (message, reserved) = Message::read(&header, packet)?;
        Ok(Self {
            message,
            reserved,
            size: header.size,
            extensions_at: header.extensions_at,
            sum: u16::from_be_bytes([packet[Self::CHECKSUM.start], packet[Self::CHECKSUM.start + 1]]),
            checksum: Checksum::of(packet),
        })
    }

    /// Writes it as it was read, with a right checksum.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.message.write(&self.reserved)
    }
}
