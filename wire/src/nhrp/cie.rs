//! Client information entries.

use std::net::IpAddr;

use crate::Malformed;
use crate::reader::Reader;

use super::packet::ReservedOfEntry;
use super::read::{self, E164};
use super::{Families, address_len, write_address};

/// What became of an entry: 0 in requests and for success, else a refusal (RFC 2332 §5.2.2, §5.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CieCode(pub u8);

impl CieCode {
    /// It is so.
    pub const SUCCESS: Self = Self(0);
    /// Policy forbids it.
    pub const ADMINISTRATIVELY_PROHIBITED: Self = Self(4);
    /// No room.
    pub const INSUFFICIENT_RESOURCES: Self = Self(5);
    /// Nobody has this address.
    pub const NO_BINDING: Self = Self(12);
    /// Somebody has it, but not uniquely.
    pub const NOT_UNIQUE: Self = Self(13);
    /// Somebody else has it uniquely.
    pub const ALREADY_REGISTERED: Self = Self(14);
}

/// A client information entry (RFC 2332 §5.2.0.1): what is known of one client, or one prefix behind it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +---------------+---------------+-------------------------------+
/// | code          | prefix length | unused                        |
/// +---------------+---------------+-------------------------------+
/// | maximum transmission unit     | holding time (seconds)        |
/// +---------------+---------------+---------------+---------------+
/// | cli addr T/L  | cli saddr T/L | cli proto len | preference    |
/// +---------------+---------------+---------------+---------------+
/// | client NBMA address, client protocol address                  |
/// +---------------------------------------------------------------+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cie {
    /// Success or refusal.
    pub code: CieCode,
    /// Prefix length as written; 0 and 0xff mean a host, see [`Cie::length`].
    pub prefix: u8,
    /// MTU of the client in bytes; 0: not said.
    pub mtu: u16,
    /// How long this may be used, in seconds.
    pub holding_time: u16,
    /// Higher is better.
    pub preference: u8,
    /// Client's NBMA address; absent: that of the message's source, where the type of message says so.
    pub nbma: Option<IpAddr>,
    /// Client's protocol address; absent: that of the message's source, where the type of message says so.
    pub protocol: Option<IpAddr>,
}

impl Cie {
    /// Length in bytes without addresses.
    pub const FIXED: usize = 12;

    /// The prefix length in bits; `None`: a host. 0 and 0xff mean that (RFC 2332 §5.2.0.1), and so does what is as long as
    /// the address or longer.
    #[must_use]
    pub const fn length(&self, families: Families) -> Option<u8> {
        if self.prefix == 0 || self.prefix >= families.protocol.bits() { None } else { Some(self.prefix) }
    }

    /// Length in bytes as it is written.
    #[must_use]
    pub fn size(&self, families: Families) -> usize {
        Self::FIXED
            + usize::from(address_len(self.nbma, families.nbma))
            + usize::from(address_len(self.protocol, families.protocol))
    }

    /// Appends the entry.
    pub fn encode(&self, families: Families, out: &mut Vec<u8>) {
        self.encode_with(ReservedOfEntry::default(), families, out);
    }

    /// The same with what its sender put where nothing belongs.
    pub(super) fn encode_with(&self, reserved: ReservedOfEntry, families: Families, out: &mut Vec<u8>) {
        out.extend([self.code.0, self.prefix]);
        out.extend(reserved.unused.to_be_bytes());
        out.extend(self.mtu.to_be_bytes());
        out.extend(self.holding_time.to_be_bytes());
        let nbma = match address_len(self.nbma, families.nbma) {
            0 if reserved.e164 => E164,
            len => len,
        };
        out.extend([nbma, 0, address_len(self.protocol, families.protocol), self.preference]);
        write_address(out, self.nbma, families.nbma);
        write_address(out, self.protocol, families.protocol);
    }
}

fn decode(reader: &mut Reader<'_>, families: Families) -> Result<(Cie, ReservedOfEntry), Malformed> {
    let code = CieCode(reader.u8("CIE Code")?);
    let prefix = reader.u8("CIE Prefix Length")?;
    let unused = reader.u16("CIE unused")?;
    let mtu = reader.u16("CIE Maximum Transmission Unit")?;
    let holding_time = reader.u16("CIE Holding Time")?;
    let nbma_len = reader.u8("Cli Addr T/L")?;
    let sub_len = reader.u8("Cli SAddr T/L")?;
    let protocol_len = reader.u8("Cli Proto Len")?;
    let preference = reader.u8("CIE Preference")?;
    if sub_len != 0 {
        return Err(Malformed::Value { field: "Cli SAddr T/L", found: sub_len.into() });
    }
    let nbma = reader.address(families.nbma, read::address_len(nbma_len), "Client NBMA Address")?;
    let protocol = reader.address(families.protocol, protocol_len, "Client Protocol Address")?;
    let reserved = ReservedOfEntry { at: 0, unused, e164: nbma_len == E164 };
    Ok((Cie { code, prefix, mtu, holding_time, preference, nbma, protocol }, reserved))
}

/// Reads entries to the end of `bytes`, and what is in them where nothing belongs: only of those that have something there.
pub(super) fn decode_all(
    bytes: &[u8],
    families: Families,
) -> Result<(Vec<Cie>, Vec<ReservedOfEntry>), Malformed> {
    let mut reader = Reader::new(bytes);
    let (mut entries, mut reserved) = (Vec::new(), Vec::new());
    while !reader.is_empty() {
        let (entry, of_entry) = decode(&mut reader, families)?;
        if of_entry != ReservedOfEntry::default() {
            reserved.push(ReservedOfEntry { at: entries.len(), ..of_entry });
        }
        entries.push(entry);
    }
    Ok((entries, reserved))
}
