//! How addresses are read: their families and lengths stand elsewhere in the packet.

use std::net::IpAddr;

use crate::Malformed;
use crate::reader::Reader;

use super::Family;

/// The length in a type-and-length byte of an NBMA address. The flag for E.164 (0x40) means nothing beside length 0
/// (RFC 2332 §5.1), and makes a length that no IP address has elsewhere.
pub(super) const fn address_len(type_and_length: u8) -> u8 {
    if type_and_length == E164 { 0 } else { type_and_length }
}

/// The flag for E.164 in a type-and-length byte.
pub(super) const E164: u8 = 0x40;

impl Reader<'_> {
    /// An address whose length field says `len`: absent if that is 0, else as long as its family has it.
    pub(super) fn address(
        &mut self,
        family: Family,
        len: u8,
        field: &'static str,
    ) -> Result<Option<IpAddr>, Malformed> {
        if len == 0 {
            return Ok(None);
        }
        if usize::from(len) != family.bytes() {
            return Err(Malformed::Value { field, found: len.into() });
        }
        match family {
            Family::V4 => self.array::<4>(field).map(|a| Some(a.into())),
            Family::V6 => self.array::<16>(field).map(|a| Some(a.into())),
        }
    }
}
