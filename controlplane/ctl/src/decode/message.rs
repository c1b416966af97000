//! An NHRP message as it is printed, as text and as JSON.

use std::fmt::{self, Write};
use std::net::IpAddr;

use serde::Serialize;
use wire::nhrp::{self, Body, Checksum, Extension, ExtensionType, Families, Reserved};

use super::carried;

/// A message, every field of it.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    size: usize,
    nbma_family: &'static str,
    protocol_family: &'static str,
    hop_count: u8,
    checksum: String,
    #[serde(rename = "checksum_is")]
    verdict: &'static str,
    extensions_at: Option<usize>,
    source_nbma: Option<IpAddr>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    #[serde(flatten)]
    body: Said,
    extensions: Option<Vec<Shown>>,
    /// What is in it where nothing belongs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reserved: Vec<String>,
    /// Bytes behind it.
    #[serde(skip_serializing_if = "is_zero")]
    behind: usize,
}

// Serde says so: a condition takes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What it says besides its addresses.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Said {
    Exchange { request_id: u32, flags: String, flag_names: Vec<&'static str>, entries: Vec<Cie> },
    Error { code: u16, code_name: Option<&'static str>, offset: u16, packet: Carried },
    Traffic { code: u16, code_name: Option<&'static str>, packet: Carried },
}

/// A packet that an indication carries.
#[derive(Debug, Serialize)]
struct Carried {
    bytes: usize,
    summary: String,
}

/// A client information entry.
#[derive(Debug, Serialize)]
struct Cie {
    code: u8,
    code_name: Option<&'static str>,
    prefix_length: u8,
    mtu: u16,
    holding_time: u16,
    preference: u8,
    nbma: Option<IpAddr>,
    protocol: Option<IpAddr>,
}

/// An extension.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(rename = "type")]
    kind: u16,
    name: Option<&'static str>,
    compulsory: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unused_bit: bool,
    value: String,
    #[serde(flatten)]
    meaning: Meaning,
}

/// What the value of an extension says, where that is known.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Meaning {
    Entries {
        entries: Vec<Cie>,
    },
    /// `word`: the key as Cisco and FRR send it, in the clear.
    Authentication {
        spi: u16,
        word: Option<String>,
    },
    Vendor {
        vendor: String,
    },
    /// It is not what its type demands.
    Fault {
        fault: String,
    },
    Unknown {},
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Message {
    /// Of a packet that stands at the beginning of `bytes`.
    pub(super) fn new(packet: &nhrp::Packet, bytes: usize) -> Self {
        let message = &packet.message;
        let families = message.families;
        let extensions = message.extensions.as_ref();
        Self {
            kind: message.message_type().name(),
            size: packet.size,
            nbma_family: families.nbma.name(),
            protocol_family: families.protocol.name(),
            hop_count: message.hop_count,
            checksum: format!("{:#06x}", packet.sum),
            verdict: match packet.checksum {
                Checksum::Right => "right",
                Checksum::OddLength => "wrong, the last byte of an odd length is added in the wrong half",
                Checksum::Wrong => "wrong",
            },
            extensions_at: packet.extensions_at,
            source_nbma: message.source_nbma,
            source: message.source,
            destination: message.destination,
            body: Said::new(message),
            extensions: extensions.map(|all| all.iter().map(|e| Shown::new(e, families)).collect()),
            reserved: reserved(&packet.reserved),
            behind: bytes - packet.size,
        }
    }
}

impl Said {
    fn new(message: &nhrp::Message) -> Self {
        match &message.body {
            Body::Exchange { flags, request_id, entries, .. } => Self::Exchange {
                request_id: *request_id,
                flags: format!("{:#06x}", flags.0),
                flag_names: message.message_type().flag_names(*flags),
                entries: entries.iter().map(Cie::new).collect(),
            },
            Body::Error { code, offset, packet } => Self::Error {
                code: code.0,
                code_name: code.name(),
                offset: *offset,
                packet: Carried { bytes: packet.len(), summary: carried::nhrp(packet) },
            },
            Body::Traffic { code, packet } => Self::Traffic {
                code: *code,
                code_name: (*code == 0).then_some("redirect"),
                packet: Carried { bytes: packet.len(), summary: carried::ip(packet) },
            },
        }
    }
}

impl Cie {
    fn new(entry: &nhrp::Cie) -> Self {
        Self {
            code: entry.code.0,
            code_name: entry.code.name(),
            prefix_length: entry.prefix,
            mtu: entry.mtu,
            holding_time: entry.holding_time,
            preference: entry.preference,
            nbma: entry.nbma,
            protocol: entry.protocol,
        }
    }
}

impl Shown {
    fn new(extension: &Extension, families: Families) -> Self {
        let (kind, value) = (extension.kind(), extension.value());
        Self {
            kind: kind.number(),
            name: kind.name(),
            compulsory: extension.compulsory(),
            unused_bit: extension.unused(),
            value: hex(value),
            meaning: Meaning::new(extension, families),
        }
    }
}

impl Meaning {
    fn new(extension: &Extension, families: Families) -> Self {
        match (extension.kind(), extension.value()) {
            (
                ExtensionType::RESPONDER
                | ExtensionType::FORWARD_TRANSIT
                | ExtensionType::REVERSE_TRANSIT
                | ExtensionType::NAT,
                _,
            ) => match extension.entries(families) {
                Ok(entries) => Self::Entries { entries: entries.iter().map(Cie::new).collect() },
                Err(malformed) => Self::Fault { fault: malformed.to_string() },
            },
            // RFC 2332 §5.3.4: reserved, SPI; then what the field puts there.
            (ExtensionType::AUTHENTICATION, [_, _, high, low, word @ ..]) => {
                let plain = word.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
                let word = plain.then(|| String::from_utf8_lossy(word).into_owned());
                Self::Authentication { spi: u16::from_be_bytes([*high, *low]), word }
            }
            (ExtensionType::VENDOR, [a, b, c, ..]) => Self::Vendor { vendor: hex(&[*a, *b, *c]) },
            (ExtensionType::AUTHENTICATION | ExtensionType::VENDOR, value) => {
                Self::Fault { fault: format!("{} bytes are too few", value.len()) }
            }
            _ => Self::Unknown {},
        }
    }
}

/// A sentence for each thing that is where nothing belongs.
fn reserved(reserved: &Reserved) -> Vec<String> {
    let mut all = Vec::new();
    if reserved.snap != [0; 5] {
        all.push(format!("ar$pro.snap is {}", hex(&reserved.snap)));
    }
    if reserved.source_e164 {
        all.push("the absent source NBMA address is said to be an E.164 one".to_owned());
    }
    if reserved.flags != 0 {
        all.push(format!("{:#06x} stands in the place of flags", reserved.flags));
    }
    if reserved.word != 0 {
        all.push(format!("{:#06x} stands behind the code", reserved.word));
    }
    for entry in &reserved.entries {
        if entry.unused != 0 {
            all.push(format!("the unused field of entry {} is {:#06x}", entry.at + 1, entry.unused));
        }
        if entry.e164 {
            all.push(format!("the absent NBMA address of entry {} is said to be an E.164 one", entry.at + 1));
        }
    }
    match reserved.end.as_deref() {
        None => {}
        Some([]) => all.push("the End extension is missing".to_owned()),
        Some(end) => all.push(format!("the extensions end with {}", hex(end))),
    }
    all
}

fn or_dash(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

/// `name (number)`, or the number alone.
fn named(name: Option<&str>, number: impl fmt::Display) -> String {
    name.map_or_else(|| format!("{number}"), |name| format!("{name} ({number})"))
}

impl fmt::Display for Cie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, nbma {}, protocol {}, prefix length {}, mtu {}, holding time {} s, preference {}",
            named(self.code_name, self.code),
            or_dash(self.nbma),
            or_dash(self.protocol),
            self.prefix_length,
            self.mtu,
            self.holding_time,
            self.preference
        )
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "extension {}", named(self.name, self.kind))?;
        if self.compulsory {
            f.write_str(", compulsory")?;
        }
        if self.unused_bit {
            f.write_str(", unused bit set")?;
        }
        let value = &self.value;
        match &self.meaning {
            Meaning::Entries { entries } if entries.is_empty() => f.write_str(": empty"),
            Meaning::Entries { entries } => entries.iter().try_for_each(|entry| write!(f, "\n      {entry}")),
            Meaning::Authentication { spi, word: Some(word) } => write!(f, ": SPI {spi}, {word:?}"),
            Meaning::Authentication { spi, word: None } => write!(f, ": SPI {spi}, {value}"),
            Meaning::Vendor { vendor } => write!(f, ": vendor {vendor}, {}", &value[vendor.len()..]),
            Meaning::Fault { fault } => write!(f, ": {value} ({fault})"),
            Meaning::Unknown {} if value.is_empty() => f.write_str(": empty"),
            Meaning::Unknown {} => write!(f, ": {value}"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, size, nbma_family, protocol_family, hop_count, checksum, verdict, .. } = self;
        write!(f, "  NHRP {kind}, {protocol_family} over {nbma_family}, {size} bytes")?;
        match self.extensions_at {
            Some(at) => write!(f, ", extensions at {at}")?,
            None => f.write_str(", no extensions")?,
        }
        writeln!(f, ", hop count {hop_count}, checksum {checksum} {verdict}")?;
        if let Said::Exchange { request_id, flags, flag_names, .. } = &self.body {
            write!(f, "    request {request_id}, flags {flags}")?;
            flag_names.iter().try_for_each(|name| write!(f, " {name}"))?;
            writeln!(f)?;
        }
        let (source, nbma) = (or_dash(self.source), or_dash(self.source_nbma));
        writeln!(f, "    source {source} at {nbma}, destination {}", or_dash(self.destination))?;
        match &self.body {
            Said::Exchange { entries, .. } => {
                entries.iter().try_for_each(|entry| writeln!(f, "    entry: {entry}"))?;
            }
            Said::Error { code, code_name, offset, packet } => {
                writeln!(f, "    error {}, at byte {offset}", named(*code_name, code))?;
                writeln!(f, "    packet in error, {} bytes: {}", packet.bytes, packet.summary)?;
            }
            Said::Traffic { code, code_name, packet } => {
                writeln!(f, "    code {}", named(*code_name, code))?;
                writeln!(f, "    packet, {} bytes: {}", packet.bytes, packet.summary)?;
            }
        }
        self.extensions.iter().flatten().try_for_each(|extension| writeln!(f, "    {extension}"))?;
        self.reserved.iter().try_for_each(|said| writeln!(f, "    reserved: {said}"))?;
        if self.behind > 0 {
            writeln!(f, "    {} bytes behind it", self.behind)?;
        }
        Ok(())
    }
}
