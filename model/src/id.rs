//! Names and numbers that identify things.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{NotA, serde_as_text};

/// The name of an interface and of its kernel twin: 1 to 15 bytes, none of them `/`, space or control, as Linux wants it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName {
    bytes: [u8; 15],
    len: u8,
}

impl InterfaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Made from a `str` cut at no place but its end.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for InterfaceName {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let legal = !text.is_empty()
            && text.len() <= 15
            && text != "."
            && text != ".."
            && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':');
        if !legal {
            return Err(NotA::new(text, "an interface name (1 to 15 letters, digits, dots, dashes)"));
        }
        let mut bytes = [0; 15];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: u8::try_from(text.len()).unwrap_or(15) })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

serde_as_text!(InterfaceName);

/// One life of the data-plane process: random, made at its start, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Instance(pub u64);

/// One life of the control-plane process: one more than the last, kept in its state file. The data plane refuses an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A FIB table. 0 is the one that everything is in unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct TableId(pub u32);

/// An IEEE 802.1Q VLAN: 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// `None` for 0 (priority tag, no VLAN) and from 4095 on (reserved).
    #[must_use]
    pub const fn new(id: u16) -> Option<Self> {
        if id == 0 || id > 4094 { None } else { Some(Self(id)) }
    }
}

impl TryFrom<u16> for VlanId {
    type Error = NotA;
    fn try_from(id: u16) -> Result<Self, NotA> {
        Self::new(id).ok_or_else(|| NotA::new(&id.to_string(), "a VLAN (1 to 4094)"))
    }
}

impl From<VlanId> for u16 {
    fn from(vlan: VlanId) -> Self {
        vlan.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A worker, counted from 0 in the order of its cores on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub u16);
