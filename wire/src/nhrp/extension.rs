//! Extensions: type, length, value. Their bytes are kept as they came, so that what is passed on is what was received;
//! those made of CIEs are read and made by [`Extension::entries`] and [`Extension::push`].

use crate::Malformed;

use super::{Cie, Families};
use crate::reader::Reader;

/// The End extension (RFC 2332 §5.3.0), compulsory, without value.
pub(super) const END: [u8; 4] = [0x80, 0, 0, 0];

/// The C bit.
const COMPULSORY: u16 = 0x8000;

/// The u bit: unused, sent as 0 (RFC 2332 §5.3). What has it set is passed on with it.
const UNUSED: u16 = 0x4000;

/// The bits of the type.
const TYPE: u16 = 0x3fff;

/// Type of an extension: 14 bits, not 0 (that is End, and never stands in a list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtensionType(u16);

impl ExtensionType {
    /// Who answered; one CIE in a reply, empty in a request (RFC 2332 §5.3.1).
    pub const RESPONDER: Self = Self(3);
    /// Servers that the request passed, one CIE each (§5.3.2).
    pub const FORWARD_TRANSIT: Self = Self(4);
    /// Servers that the reply passed, one CIE each (§5.3.3).
    pub const REVERSE_TRANSIT: Self = Self(5);
    /// Authentication (§5.3.4).
    pub const AUTHENTICATION: Self = Self(7);
    /// A vendor's own; the only one that may stand more than once (§5.3.5).
    pub const VENDOR: Self = Self(8);
    /// Addresses behind and before a NAT, as CIEs (Cisco).
    pub const NAT: Self = Self(9);
    /// Authentication of a mobile node (RFC 2520).
    pub const MOBILE_AUTHENTICATION: Self = Self(10);

    /// `None` if it is 0 or has more than 14 bits.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 || number > TYPE { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// One extension.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+---------------------------+-------------------------------+
/// |C|u| type                      | length of the value           |
/// +-+-+---------------------------+-------------------------------+
/// | value ...                                                     |
/// +---------------------------------------------------------------+
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    kind: ExtensionType,
    compulsory: bool,
    unused: bool,
    value: Vec<u8>,
}

impl Extension {
    /// Length in bytes without the value.
    pub const HEADER: usize = 4;

    /// One with a value; what of that does not fit into a length of 16 bits is cut off.
    #[must_use]
    pub fn new(kind: ExtensionType, compulsory: bool, mut value: Vec<u8>) -> Self {
        value.truncate(usize::from(u16::MAX));
        Self { kind, compulsory, unused: false, value }
    }

    /// One without a value.
    #[must_use]
    pub const fn empty(kind: ExtensionType, compulsory: bool) -> Self {
        Self { kind, compulsory, unused: false, value: Vec::new() }
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> ExtensionType {
        self.kind
    }

    /// Whether who answers the message must understand it.
    #[must_use]
    pub const fn compulsory(&self) -> bool {
        self.compulsory
    }

    /// Whether the bit is set that nobody uses.
    #[must_use]
    pub const fn unused(&self) -> bool {
        self.unused
    }

    /// Its value as it is on the wire.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Its value read as CIEs.
    ///
    /// # Errors
    /// It is something else.
    pub fn entries(&self, families: Families) -> Result<Vec<Cie>, Malformed> {
        super::cie::decode_all(&self.value, families).map(|(entries, _)| entries)
    }

    /// Appends a CIE to the value; `false`, and no change, if there is no room.
    #[must_use]
    pub fn push(&mut self, entry: &Cie, families: Families) -> bool {
        let fits = self.value.len() + entry.size(families) <= usize::from(u16::MAX);
        if fits {
            entry.encode(families, &mut self.value);
        }
        fits
    }

    /// Length in bytes as it is written.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::HEADER + self.value.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let bit = |set, bit| if set { bit } else { 0 };
        let kind = self.kind.0 | bit(self.compulsory, COMPULSORY) | bit(self.unused, UNUSED);
        out.extend(kind.to_be_bytes());
        out.extend((self.value.len() as u16).to_be_bytes());
        out.extend(&self.value);
    }
}

/// Reads extensions up to End. With them come the bytes from End on, where they are not just [`END`]: none of a peer that leaves End
/// out.
pub(super) fn decode_all(bytes: &[u8]) -> Result<(Vec<Extension>, Option<Vec<u8>>), Malformed> {
    let mut reader = Reader::new(bytes);
    let mut extensions = Vec::new();
    while !reader.is_empty() {
        let from_here = reader.left();
        let number = reader.u16("Extension Type")?;
        let len = reader.u16("Extension Length")?;
        let value = reader.take(len.into(), "Extension Value")?;
        let Some(kind) = ExtensionType::new(number & TYPE) else {
            return Ok((extensions, (from_here != END).then(|| from_here.to_vec())));
        };
        extensions.push(Extension {
            kind,
            compulsory: number & COMPULSORY != 0,
            unused: number & UNUSED != 0,
            value: value.to_vec(),
        });
    }
    Ok((extensions, Some(Vec::new())))
}
