//! A cursor over the bytes of a packet: every read is checked, and names its field when it fails.

use std::net::IpAddr;

use crate::Malformed;

use super::Family;

/// The length in a type-and-length byte of an NBMA address. The flag for E.164 (0x40) means nothing beside length 0
/// (RFC 2332 §5.1), and makes a length that no IP address has elsewhere.
pub(super) const fn address_len(type_and_length: u8) -> u8 {
    if type_and_length == E164 { 0 } else { type_and_length }
}

/// The flag for E.164 in a type-and-length byte.
pub(super) const E164: u8 = 0x40;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What has not been read yet.
    pub(super) const fn left(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed::Truncated {
            field,
            needed: count,
            have: self.bytes.len(),
        })?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.array(field).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_be_bytes)
    }

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
