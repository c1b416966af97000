//! NHRP messages (RFC 2332 §5, and the types and extensions that DMVPN adds), owned.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+  fixed header, 20 bytes
//! | ar$afn: NBMA family           | ar$pro.type: overlay protocol |
//! +-------------------------------+-------------------------------+
//! | ar$pro.snap: 0                                                |
//! +---------------+---------------+-------------------------------+
//! |               | ar$hopcnt     | ar$pktsz: bytes of all this   |
//! +---------------+---------------+-------------------------------+
//! | ar$chksum                     | ar$extoff                     |
//! +---------------+---------------+---------------+---------------+
//! | ar$op.version | ar$op.type    | ar$shtl       | ar$sstl: 0    |
//! +---------------+---------------+---------------+---------------+  mandatory part
//! | src proto len | dst proto len | flags                         |
//! +---------------+---------------+-------------------------------+
//! | request id; or error code, offset; or traffic code, unused    |
//! +---------------------------------------------------------------+
//! | source NBMA, source protocol, destination protocol address    |
//! +---------------------------------------------------------------+
//! | types 1-6: CIEs; 7: packet in error; 8: redirected packet     |
//! +---------------------------------------------------------------+  at ar$extoff, if that is not 0
//! | extensions: type, length, value; last the End extension       |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`Message::encode`] is total: whatever a [`Message`] holds, the bytes are a well-formed packet. [`Message::decode`]
//! takes what real peers send (reserved bits, a missing End, the checksum fault of FRR), so `encode(decode(b)) == b` for
//! canonical `b`: reserved fields zero, lengths exact, checksum as RFC 2332 has it. A [`Packet`] holds what is not canonical too: it
//! reads and writes anything byte by byte.

use std::net::IpAddr;

use crate::Malformed;
use crate::checksum::checksum;

mod cie;
mod envelope;
mod extension;
mod name;
mod packet;
mod read;
#[cfg(test)]
mod tests;

pub use cie::{Cie, CieCode};
pub use envelope::{Envelope, offset_of};
pub use extension::{Extension, ExtensionType};
pub use packet::{Checksum, Packet, Reserved, ReservedOfEntry};

use crate::reader::Reader;

/// GRE protocol type of NHRP (RFC 2332 §2.4 leaves it to the NBMA network; this is what DMVPN uses).
pub const GRE_PROTOCOL: u16 = 0x2001;

/// Length of the fixed header in bytes.
pub const FIXED: usize = 20;

/// The longest message in bytes: `ar$pktsz` has 16 bits.
pub const LONGEST: usize = u16::MAX as usize;

/// `ar$op.version`: RFC 2332.
const VERSION: u8 = 1;

/// An address family, of NBMA or of protocol addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4: 4 bytes, address family number 1, Ethertype 0x0800.
    V4,
    /// IPv6: 16 bytes, address family number 2, Ethertype 0x86dd.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Length of an address in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// Length of an address in bits: the prefix length of a host.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    const fn of_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    const fn of_ethertype(ethertype: u16) -> Option<Self> {
        match ethertype {
            0x0800 => Some(Self::V4),
            0x86dd => Some(Self::V6),
            _ => None,
        }
    }

    const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }
}

/// The two families of a message: every address in it is of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Families {
    /// Of NBMA addresses (`ar$afn`).
    pub nbma: Family,
    /// Of protocol addresses (`ar$pro.type`).
    pub protocol: Family,
}

/// `ar$op.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageType {
    /// Who has this address, or a way to it?
    ResolutionRequest = 1,
    /// The answer.
    ResolutionReply = 2,
    /// I have this address.
    RegistrationRequest = 3,
    /// The answer.
    RegistrationReply = 4,
    /// Forget what you know of this.
    PurgeRequest = 5,
    /// It is forgotten.
    PurgeReply = 6,
    /// Your packet was wrong.
    ErrorIndication = 7,
    /// There is a better way for this packet (draft-detienne-dmvpn; not in RFC 2332).
    TrafficIndication = 8,
}

impl MessageType {
    /// All, in order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::ResolutionRequest,
        Self::ResolutionReply,
        Self::RegistrationRequest,
        Self::RegistrationReply,
        Self::PurgeRequest,
        Self::PurgeReply,
        Self::ErrorIndication,
        Self::TrafficIndication,
    ];

    fn new(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|t| *t as u8 == number)
    }
}

/// Types 1 to 6: those that share a mandatory part (RFC 2332 §5.2.0.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`MessageType::ResolutionRequest`]
    ResolutionRequest,
    /// [`MessageType::ResolutionReply`]
    ResolutionReply,
    /// [`MessageType::RegistrationRequest`]
    RegistrationRequest,
    /// [`MessageType::RegistrationReply`]
    RegistrationReply,
    /// [`MessageType::PurgeRequest`]
    PurgeRequest,
    /// [`MessageType::PurgeReply`]
    PurgeReply,
}

impl Kind {
    /// The message type.
    #[must_use]
    pub const fn message_type(self) -> MessageType {
        match self {
            Self::ResolutionRequest => MessageType::ResolutionRequest,
            Self::ResolutionReply => MessageType::ResolutionReply,
            Self::RegistrationRequest => MessageType::RegistrationRequest,
            Self::RegistrationReply => MessageType::RegistrationReply,
            Self::PurgeRequest => MessageType::PurgeRequest,
            Self::PurgeReply => MessageType::PurgeReply,
        }
    }

    /// Whether it answers a request: it travels towards its *source* protocol address.
    #[must_use]
    pub const fn is_reply(self) -> bool {
        matches!(self, Self::ResolutionReply | Self::RegistrationReply | Self::PurgeReply)
    }
}

/// The flags of the mandatory part; what a bit means depends on the type. Types 7 and 8 have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// Q, resolution: the requester is a router.
    pub const ROUTER: Self = Self(0x8000);
    /// A, resolution: authoritative information wanted, or given.
    pub const AUTHORITATIVE: Self = Self(0x4000);
    /// D, resolution: what the destination is bound to is stable.
    pub const DESTINATION_STABLE: Self = Self(0x2000);
    /// U, resolution: only a unique binding is wanted.
    pub const UNIQUE_WANTED: Self = Self(0x1000);
    /// S, resolution: what the source is bound to is stable; others may cache it.
    pub const SOURCE_STABLE: Self = Self(0x0800);
    /// U, registration: keep the binding against other registrations.
    pub const UNIQUE: Self = Self(0x8000);
    /// N, purge: no reply wanted.
    pub const NO_REPLY: Self = Self(0x8000);
    /// Resolution and registration: the NAT address extension is understood (Cisco).
    pub const NAT: Self = Self(0x0002);

    /// Whether all of these are set.
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitAnd for Flags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What is wrong, in an error indication (RFC 2332 §5.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// A compulsory extension is not known here.
    pub const UNRECOGNIZED_EXTENSION: Self = Self(1);
    /// The packet is forwarded in a loop.
    pub const LOOP_DETECTED: Self = Self(3);
    /// No way to the protocol address.
    pub const PROTOCOL_ADDRESS_UNREACHABLE: Self = Self(6);
    /// Version, type or the like is wrong.
    pub const PROTOCOL_ERROR: Self = Self(7);
    /// Longer than the NBMA network takes.
    pub const SDU_SIZE_EXCEEDED: Self = Self(8);
    /// An extension that has no place in this type of packet.
    pub const INVALID_EXTENSION: Self = Self(9);
    /// A reply to something that was not asked.
    pub const INVALID_RESOLUTION_REPLY: Self = Self(10);
    /// Authentication missing or wrong.
    pub const AUTHENTICATION_FAILURE: Self = Self(11);
    /// Too many hops.
    pub const HOP_COUNT_EXCEEDED: Self = Self(15);
}

/// What a message says besides its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Types 1 to 6.
    Exchange {
        /// Which of them.
        kind: Kind,
        /// Flags.
        flags: Flags,
        /// Number of the request; its reply has the same.
        request_id: u32,
        /// Client information entries.
        entries: Vec<Cie>,
    },
    /// Type 7.
    Error {
        /// What is wrong.
        code: ErrorCode,
        /// Offset in bytes of what is wrong in the packet, from its fixed header on.
        offset: u16,
        /// The packet in error, or its beginning.
        packet: Vec<u8>,
    },
    /// Type 8.
    Traffic {
        /// 0: redirect.
        code: u16,
        /// The beginning of the IP packet that there is a better way for.
        packet: Vec<u8>,
    },
}

/// A message.
///
/// An address of another family than `families` says is written as an absent one (length 0), in CIEs too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of all its addresses.
    pub families: Families,
    /// Servers that it may still pass.
    pub hop_count: u8,
    /// NBMA address of who sent the request or made the indication.
    pub source_nbma: Option<IpAddr>,
    /// Protocol address of the same; a reply travels to it.
    pub source: Option<IpAddr>,
    /// Protocol address that a request or indication travels to.
    pub destination: Option<IpAddr>,
    /// What it says.
    pub body: Body,
    /// Extensions in order, without the End that closes them. `None`: no extensions part at all.
    pub extensions: Option<Vec<Extension>>,
}

impl Message {
    /// Its type.
    #[must_use]
    pub const fn message_type(&self) -> MessageType {
        match &self.body {
            Body::Exchange { kind, .. } => kind.message_type(),
            Body::Error { .. } => MessageType::ErrorIndication,
            Body::Traffic { .. } => MessageType::TrafficIndication,
        }
    }

    /// The first extension of a type.
    #[must_use]
    pub fn extension(&self, kind: ExtensionType) -> Option<&Extension> {
        self.extensions.iter().flatten().find(|e| e.kind() == kind)
    }

    /// As [`Self::extension`], writable.
    #[must_use]
    pub fn extension_mut(&mut self, kind: ExtensionType) -> Option<&mut Extension> {
        self.extensions.iter_mut().flatten().find(|e| e.kind() == kind)
    }

    /// Reads a packet, from its fixed header on. Bytes behind `ar$pktsz` are padding of a lower layer and ignored.
    ///
    /// # Errors
    /// What is wrong with the first field that is.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let header = Header::decode(bytes)?;
        let packet = &bytes[..header.size];
        match Checksum::of(packet) {
            Checksum::Wrong => Err(Malformed::Checksum("NHRP")),
            Checksum::Right | Checksum::OddLength => Ok(Self::read(&header, packet)?.0),
        }
    }

    /// Reads a packet behind its fixed header.
    fn read(header: &Header, packet: &[u8]) -> Result<(Self, Reserved), Malformed> {
        let mut reserved = Reserved {
            snap: header.snap,
            source_e164: header.source_nbma_len == read::E164,
            ..Reserved::default()
        };
        let (mandatory, extensions) = match header.extensions_at {
            None => (&packet[FIXED..], None),
            Some(at) => {
                let (extensions, end) = extension::decode_all(&packet[at..])?;
                reserved.end = end;
                (&packet[FIXED..at], Some(extensions))
            }
        };
        let mut reader = Reader::new(mandatory);
        let source_len = reader.u8("Src Proto Len")?;
        let destination_len = reader.u8("Dst Proto Len")?;
        let flags = Flags(reader.u16("Flags")?);
        let word = reader.u32("Request ID")?;
        let Families { nbma, protocol } = header.families;
        let source_nbma =
            reader.address(nbma, read::address_len(header.source_nbma_len), "Source NBMA Address")?;
        let source = reader.address(protocol, source_len, "Source Protocol Address")?;
        let destination = reader.address(protocol, destination_len, "Destination Protocol Address")?;
        let (high, low) = ((word >> 16) as u16, word as u16);
        let mut exchange = |kind, reader: Reader<'_>| {
            let (entries, of_entries) = cie::decode_all(reader.rest(), header.families)?;
            reserved.entries = of_entries;
            Ok::<_, Malformed>(Body::Exchange { kind, flags, request_id: word, entries })
        };
        let body = match header.message_type {
            MessageType::ResolutionRequest => exchange(Kind::ResolutionRequest, reader)?,
            MessageType::ResolutionReply => exchange(Kind::ResolutionReply, reader)?,
            MessageType::RegistrationRequest => exchange(Kind::RegistrationRequest, reader)?,
            MessageType::RegistrationReply => exchange(Kind::RegistrationReply, reader)?,
            MessageType::PurgeRequest => exchange(Kind::PurgeRequest, reader)?,
            MessageType::PurgeReply => exchange(Kind::PurgeReply, reader)?,
            MessageType::ErrorIndication => {
                reserved.flags = flags.0;
                Body::Error { code: ErrorCode(high), offset: low, packet: reader.rest().to_vec() }
            }
            MessageType::TrafficIndication => {
                (reserved.flags, reserved.word) = (flags.0, low);
                Body::Traffic { code: high, packet: reader.rest().to_vec() }
            }
        };
        let message = Self {
            families: header.families,
            hop_count: header.hop_count,
            source_nbma,
            source,
            destination,
            body,
            extensions,
        };
        Ok((message, reserved))
    }

    /// Writes the packet, with its lengths and checksum.
    ///
    /// What would make it longer than [`LONGEST`] is left out: CIEs from the last one, the end of a carried packet,
    /// extensions from the last one. Nothing that was decoded comes near.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.write(&Reserved::ZERO)
    }

    /// Writes the packet, with something in the places where nothing belongs.
    fn write(&self, reserved: &Reserved) -> Vec<u8> {
        let Families { nbma, protocol } = self.families;
        let mut out = Vec::with_capacity(160);
        out.extend(nbma.number().to_be_bytes());
        out.extend(protocol.ethertype().to_be_bytes());
        out.extend(reserved.snap);
        out.push(self.hop_count);
        // ar$pktsz, ar$chksum and ar$extoff follow when they are known.
        out.extend([0; 6]);
        let source_len = match address_len(self.source_nbma, nbma) {
            0 if reserved.source_e164 => read::E164,
            len => len,
        };
        out.extend([VERSION, self.message_type() as u8, source_len, 0]);
        out.extend([address_len(self.source, protocol), address_len(self.destination, protocol)]);
        let (flags, word) = match &self.body {
            Body::Exchange { flags, request_id, .. } => (flags.0, *request_id),
            Body::Error { code, offset, .. } => {
                (reserved.flags, u32::from(code.0) << 16 | u32::from(*offset))
            }
            Body::Traffic { code, .. } => (reserved.flags, u32::from(*code) << 16 | u32::from(reserved.word)),
        };
        out.extend(flags.to_be_bytes());
        out.extend(word.to_be_bytes());
        write_address(&mut out, self.source_nbma, nbma);
        write_address(&mut out, self.source, protocol);
        write_address(&mut out, self.destination, protocol);
        let closing = reserved.end.as_deref().unwrap_or(&extension::END);
        let end = if self.extensions.is_some() { closing.len() } else { 0 };
        match &self.body {
            Body::Exchange { entries, .. } => {
                for (at, entry) in entries.iter().enumerate() {
                    if out.len() + entry.size(self.families) + end > LONGEST {
                        break;
                    }
                    entry.encode_with(reserved.of_entry(at), self.families, &mut out);
                }
            }
            Body::Error { packet, .. } | Body::Traffic { packet, .. } => {
                let room = LONGEST - out.len() - end;
                out.extend(&packet[..packet.len().min(room)]);
            }
        }
        if let Some(extensions) = &self.extensions {
            let at = out.len() as u16;
            out[14..16].copy_from_slice(&at.to_be_bytes());
            for extension in extensions {
                if out.len() + extension.size() + end > LONGEST {
                    break;
                }
                extension.encode(&mut out);
            }
            out.extend(closing);
        }
        let size = out.len() as u16;
        out[10..12].copy_from_slice(&size.to_be_bytes());
        let sum = checksum(&out);
        out[12..14].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// The fixed header, checked against the packet's length.
struct Header {
    families: Families,
    snap: [u8; 5],
    hop_count: u8,
    size: usize,
    extensions_at: Option<usize>,
    message_type: MessageType,
    source_nbma_len: u8,
}

impl Header {
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let afn = reader.u16("ar$afn")?;
        let protocol = reader.u16("ar$pro.type")?;
        // RFC 2332 §5.1: ignored unless ar$pro.type is 0x0080.
        let snap = reader.array("ar$pro.snap")?;
        let hop_count = reader.u8("ar$hopcnt")?;
        let size = usize::from(reader.u16("ar$pktsz")?);
        let _checksum = reader.u16("ar$chksum")?;
        let extensions_at = usize::from(reader.u16("ar$extoff")?);
        let version = reader.u8("ar$op.version")?;
        let number = reader.u8("ar$op.type")?;
        let shtl = reader.u8("ar$shtl")?;
        let sstl = reader.u8("ar$sstl")?;
        let value = |field, found: u64| Malformed::Value { field, found };
        if version != VERSION {
            return Err(value("ar$op.version", version.into()));
        }
        if size < FIXED {
            return Err(Malformed::Length { field: "ar$pktsz", says: size, have: bytes.len() });
        }
        if size > bytes.len() {
            return Err(Malformed::Truncated { field: "ar$pktsz", needed: size, have: bytes.len() });
        }
        if extensions_at != 0 && !(FIXED..=size).contains(&extensions_at) {
            return Err(Malformed::Length { field: "ar$extoff", says: extensions_at, have: size });
        }
        let nbma = Family::of_number(afn).ok_or(value("ar$afn", afn.into()))?;
        let protocol = Family::of_ethertype(protocol).ok_or(value("ar$pro.type", protocol.into()))?;
        if sstl != 0 {
            return Err(value("ar$sstl", sstl.into()));
        }
        Ok(Self {
            families: Families { nbma, protocol },
            snap,
            hop_count,
            size,
            extensions_at: (extensions_at != 0).then_some(extensions_at),
            message_type: MessageType::new(number).ok_or(value("ar$op.type", number.into()))?,
            source_nbma_len: shtl,
        })
    }
}

/// The length field of an address.
fn address_len(addr: Option<IpAddr>, family: Family) -> u8 {
    match addr {
        Some(addr) if Family::of(addr) == family => family.bytes() as u8,
        _ => 0,
    }
}

fn write_address(out: &mut Vec<u8>, addr: Option<IpAddr>, family: Family) {
    match addr {
        Some(IpAddr::V4(addr)) if family == Family::V4 => out.extend(addr.octets()),
        Some(IpAddr::V6(addr)) if family == Family::V6 => out.extend(addr.octets()),
        _ => {}
    }
}
