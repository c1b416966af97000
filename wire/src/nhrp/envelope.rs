//! What can be read of a packet that is wrong, or of which there is only the beginning.

use std::net::IpAddr;

use super::read;
use super::{FIXED, Families, Family};
use crate::Malformed;
use crate::reader::Reader;

/// The addresses of a packet and which request it is: enough to tell its sender what is wrong with it, and to know one's own packet again
/// in an error indication, which may have no more of it than that (RFC 2332 §5.2.7).
///
/// Lengths of the whole packet, version, type and checksum are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Of all its addresses.
    pub families: Families,
    /// `ar$op.type`, whatever it is.
    pub number: u8,
    /// Types 1 to 6: the request id.
    pub request_id: u32,
    /// NBMA address of who sent it.
    pub source_nbma: Option<IpAddr>,
    /// Protocol address of the same.
    pub source: Option<IpAddr>,
    /// Protocol address that it is about.
    pub destination: Option<IpAddr>,
}

impl Envelope {
    /// Reads it, from the fixed header on; `None` if the packet ends before its addresses do, or they are of families that are not spoken
    /// here.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; FIXED] = bytes.first_chunk()?;
        let nbma = Family::of_number(u16::from_be_bytes([header[0], header[1]]))?;
        let protocol = Family::of_ethertype(u16::from_be_bytes([header[2], header[3]]))?;
        let mut reader = Reader::new(&bytes[FIXED..]);
        let source_len = reader.u8("Src Proto Len").ok()?;
        let destination_len = reader.u8("Dst Proto Len").ok()?;
        let _flags = reader.u16("Flags").ok()?;
        let request_id = reader.u32("Request ID").ok()?;
        let nbma_len = read::address_len(header[18]);
        Some(Self {
            families: Families { nbma, protocol },
            number: header[17],
            request_id,
            source_nbma: reader.address(nbma, nbma_len, "Source NBMA Address").ok()?,
            source: reader.address(protocol, source_len, "Source Protocol Address").ok()?,
            destination: reader.address(protocol, destination_len, "Destination Protocol Address").ok()?,
        })
    }
}

/// Where in a packet the field is that could not be read, in bytes: of the fixed header exactly; 0 for what has no fixed place.
#[must_use]
pub fn offset_of(malformed: &Malformed) -> u16 {
    let field = match malformed {
        Malformed::Truncated { field, .. }
        | Malformed::Value { field, .. }
        | Malformed::Length { field, .. } => *field,
        Malformed::Checksum(_) => "ar$chksum",
    };
    match field {
        "ar$pro.type" => 2,
        "ar$pro.snap" => 4,
        "ar$hopcnt" => 9,
        "ar$pktsz" => 10,
        "ar$chksum" => 12,
        "ar$extoff" => 14,
        "ar$op.version" => 16,
        "ar$op.type" => 17,
        "ar$shtl" => 18,
        "ar$sstl" => 19,
        "Src Proto Len" => 20,
        "Dst Proto Len" => 21,
        "Flags" => 22,
        "Request ID" => 24,
        "Source NBMA Address" => 28,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nhrp::{Body, Flags, Kind, Message};

    fn message() -> Message {
        Message {
            families: Families { nbma: Family::V4, protocol: Family::V6 },
            hop_count: 255,
            source_nbma: Some("10.0.0.1".parse().unwrap()),
            source: Some("2001:db8::1".parse().unwrap()),
            destination: Some("2001:db8::2".parse().unwrap()),
            body: Body::Exchange {
                kind: Kind::ResolutionRequest,
                flags: Flags::ROUTER,
                request_id: 0x1234_5678,
                entries: vec![],
            },
            extensions: Some(vec![]),
        }
    }

    #[test]
    fn the_addresses_are_read_of_what_is_cut_off_or_wrong() {
        let message = message();
        let whole = message.encode();
        let addresses = FIXED + 8 + 4 + 16 + 16;
        for length in 0..=whole.len() {
            let read = Envelope::read(&whole[..length]);
            assert_eq!(read.is_some(), length >= addresses, "{length}");
        }
        let mut wrong = whole.clone();
        (wrong[12], wrong[16], wrong[17]) = (wrong[12] ^ 1, 9, 200);
        let read = Envelope::read(&wrong).unwrap();
        assert_eq!((read.number, read.request_id, read.families), (200, 0x1234_5678, message.families));
        assert_eq!(
            (read.source_nbma, read.source, read.destination),
            (message.source_nbma, message.source, message.destination)
        );
        // A family that is not spoken, an address of the wrong length.
        for (at, value) in [(1, 15), (3, 7), (18, 5), (20, 4), (21, 3)] {
            let mut wrong = whole.clone();
            wrong[at] = value;
            assert_eq!(Envelope::read(&wrong), None, "{at}");
        }
    }

    #[test]
    fn the_place_of_what_is_wrong_is_known() {
        let whole = message().encode();
        for (at, value) in
            [(16, 2), (17, 9), (11, 3), (15, 255), (19, 4), (3, 7), (1, 15), (13, whole[13] ^ 1)]
        {
            let mut wrong = whole.clone();
            wrong[at] = value;
            if at != 13 && at != 11 {
                // What is wrong in the first place is told of, and that is not the checksum.
                let sum = {
                    wrong[12..14].fill(0);
                    crate::checksum::checksum(&wrong)
                };
                wrong[12..14].copy_from_slice(&sum.to_be_bytes());
            }
            let found = offset_of(&Message::decode(&wrong).unwrap_err());
            assert_eq!(found & !1, at as u16 & !1, "{at}");
        }
    }
}
