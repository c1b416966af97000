//! `nave decode`: what NHRP and GRE a capture holds, read by the same code that the node reads it with. Nothing of a node is needed.
//!
//! Each frame is led to what it carries by [`wire::layers`]; a message is printed as a block, and counted. `--check` writes each message
//! again: what does not come out as it came in is a finding, and so is a wrong checksum. With the SAs of a dissector's table what is
//! inside ESP is read as well, and what is not authentic is a finding; and so it is with IKE.

mod carried;
mod file;
mod ike;
mod message;
mod pieces;
mod protection;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use wire::layers::{Frame, Inside, Layer};
use wire::nhrp::{Checksum, MessageType, Packet};
use wire::{gre, ipv4};
use zeroize::Zeroizing;

use crate::arguments::Decode;
use crate::run::Failure;
use file::Captured;
use ike::{Ike, Opening};
use message::Message;
use pieces::Pieces;
use protection::{Closed, Opened, Protection};

pub(crate) use file::Bad;
pub(crate) use table::BadLine;

/// Reads a capture, and prints what is in it.
pub(crate) fn decode(decode: &Decode, json: bool) -> Result<(), Failure> {
    let bad = |bad| Failure::Capture { file: decode.file.clone(), bad };
    let open = |error| Failure::File { file: decode.file.clone(), error };
    let protection =
        decode.esp_sa.as_deref().map(|file| table(file, |text| Ok(Protection::new(table::read(text)?))));
    let ike = decode.ike_keys.as_deref().map(|file| table(file, Ike::read_table));
    let (protection, ike) = (protection.transpose()?, ike.transpose()?);
    let input: Box<dyn Read> = if decode.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(std::fs::File::open(&decode.file).map_err(open)?))
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut file = file::File::open(input).map_err(bad)?;
    let mut reading = Reading { check: decode.check, protection, ike, ..Reading::default() };
    // What was read before a damaged place is told all the same.
    let ended = loop {
        match file.next() {
            Ok(Some(captured)) => {
                if let Some(block) = reading.frame(&captured) {
                    write_block(&mut out, &block, json)?;
                }
            }
            Ok(None) => break Ok(()),
            Err(why) => break Err(bad(why)),
        }
    };
    let end = reading.end();
    if json {
        serde_json::to_writer(&mut out, &end).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{end}")?;
    }
    out.flush()?;
    ended?;
    match end.findings.map_or(0, |findings| findings.len()) {
        0 => Ok(()),
        findings => Err(Failure::Findings { file: decode.file.clone(), findings: findings as u64 }),
    }
}

/// What a table of keys holds.
fn table<T>(file: &Path, read: impl FnOnce(&str) -> Result<T, BadLine>) -> Result<T, Failure> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| Failure::File { file: file.to_owned(), error })?;
    read(&text).map_err(|bad| Failure::Table { file: file.to_owned(), bad })
}

fn write_block(out: &mut impl Write, block: &Block, json: bool) -> Result<(), Failure> {
    if json {
        serde_json::to_writer(&mut *out, block).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{block}")?;
    }
    Ok(())
}

/// A frame as it is printed.
#[derive(Debug, Serialize)]
struct Block {
    frame: u64,
    time: Option<String>,
    /// Bytes of the whole frame.
    length: u64,
    /// Bytes that the capture kept, where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlans: Vec<u16>,
    /// Of a frame of a tunnel interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<TunnelSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    esp: Option<Esp>,
    /// Of the outer header: the last one in front of the message, or of GRE.
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// Ports of UDP, in front of IKE that is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<[u16; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gre: Option<Gre>,
    /// It is quoted by an ICMP error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    quoted: bool,
    /// How many pieces it came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<u64>,
    #[serde(flatten)]
    content: Content,
}

/// What the kernel says of a frame on a tunnel interface.
#[derive(Debug, Serialize)]
struct TunnelSide {
    sent: bool,
    nbma: Option<IpAddr>,
}

/// ESP that was decrypted.
#[derive(Debug, Serialize)]
struct Esp {
    /// Of the header in front of it.
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    /// Ports of UDP, where that is in front of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<[u16; 2]>,
    spi: String,
    /// With ESN all of it.
    sequence: u64,
    esn: bool,
    mode: &'static str,
}

#[derive(Debug, Serialize)]
struct Gre {
    protocol: String,
    key: Option<u32>,
    sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_right: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Nhrp(Box<Message>),
    Ike(Box<ike::Message>),
    /// An NHRP message that cannot be read, or a frame.
    Unreadable(String),
    /// In a line: of GRE what it carries; protected packets.
    Carries(String),
}

/// What was found in all.
#[derive(Debug, Default, Serialize)]
struct Count {
    frames: u64,
    /// NHRP messages by type, and those that cannot be read.
    nhrp: BTreeMap<&'static str, u64>,
    /// GRE packets, those with NHRP among them.
    gre: u64,
    esp: u64,
    /// What became of them, if there are SAs to decrypt them with.
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<OpenedCount>,
    ike: u64,
    /// What became of its encrypted messages, if there are keys to decrypt them with.
    #[serde(skip_serializing_if = "Option::is_none")]
    ike_opened: Option<OpenedCount>,
    /// Pieces of packets, those among them that made one whole.
    pieces: u64,
    /// Frames that cannot be read.
    unreadable: u64,
    /// All others.
    other: u64,
}

/// ESP packets, or encrypted messages of IKE, by what became of them.
#[derive(Debug, Default, Serialize)]
struct OpenedCount {
    decrypted: u64,
    /// The table does not have their SPIs.
    unknown: u64,
    /// They are not authentic, or no ESP.
    refused: u64,
    /// Packets or messages of which pieces are missing.
    incomplete: u64,
}

/// Messages that are not even read.
const UNREADABLE: &str = "unreadable";

/// Something that `--check` finds.
#[derive(Debug, Serialize)]
struct Finding {
    frame: u64,
    problem: String,
}

#[derive(Debug, Serialize)]
struct End {
    count: Count,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<Finding>>,
}

/// A capture that is being read.
#[derive(Default)]
struct Reading {
    check: bool,
    count: Count,
    findings: Vec<Finding>,
    pieces: Pieces,
    protection: Option<Protection>,
    ike: Option<Ike>,
}

impl Reading {
    /// Reads a frame; what is to be printed of it, if anything.
    fn frame(&mut self, captured: &Captured) -> Option<Block> {
        self.count.frames += 1;
        let Ok(link) = captured.link else {
            self.count.unreadable += 1;
            let number = captured.link.err().unwrap_or_default();
            let why = format!("link type {number} is not read: Ethernet, Linux cooked and raw IP are");
            return Some(Block::new(captured, &[], Content::Unreadable(why)));
        };
        self.follow(captured, Frame::read(link, &captured.bytes), None)
    }

    /// Puts pieces together and decrypts, for as long as there is something to.
    fn follow(&mut self, captured: &Captured, frame: Frame<'_>, pieces: Option<u64>) -> Option<Block> {
        let quoted = is_quoted(&frame.layers);
        match frame.inside {
            Inside::Piece(piece) => {
                self.count.pieces += 1;
                let number = (!quoted).then_some(captured.number);
                match self.pieces.add(&piece, number) {
                    Some((count, payload)) => {
                        let whole = Frame::whole(frame.layers, piece.protocol, &payload);
                        self.follow(captured, whole, Some(count))
                    }
                    // Of ESP each one is told, as nobody sees what is in it.
                    None if self.protection.is_some() && piece.protocol == ipv4::ESP => {
                        let content = Content::Carries(carried::what(&frame.inside, false));
                        Some(Block::new(captured, &frame.layers, content))
                    }
                    None => None,
                }
            }
            // A quotation seldom has all that is authenticated.
            Inside::Esp { bytes, .. } if !quoted && self.protection.is_some() => {
                self.protected(captured, frame.layers, bytes, pieces)
            }
            _ => self.whole(captured, &frame, pieces),
        }
    }

    /// Decrypts ESP and goes on inside, or says why not.
    fn protected(
        &mut self,
        captured: &Captured,
        mut layers: Vec<Layer>,
        bytes: &[u8],
        pieces: Option<u64>,
    ) -> Option<Block> {
        self.count.esp += 1;
        let (source, destination) = layers.iter().rev().find_map(|layer| match layer {
            Layer::Ip { source, destination } => Some((*source, *destination)),
            _ => None,
        })?;
        let opened = self.protection.as_mut()?.open(source, destination, bytes);
        let counts = self.count.opened.get_or_insert_default();
        let closed = match opened {
            Ok(Opened { layer, next_header, payload }) => {
                counts.decrypted += 1;
                layers.push(layer);
                return self.follow(captured, Frame::whole(layers, next_header, &payload), pieces);
            }
            Err(closed) => closed,
        };
        match closed {
            Closed::Unknown => counts.unknown += 1,
            Closed::Forged(_) | Closed::Short(_) | Closed::Trailer(_) => counts.refused += 1,
        }
        let what = carried::esp(bytes);
        let cut = match captured.bytes.len() {
            kept if (kept as u64) < captured.len => {
                format!("; the capture kept {kept} of {} bytes", captured.len)
            }
            _ => String::new(),
        };
        self.find(captured.number, format!("{what}: {closed}{cut}"));
        let content = Content::Carries(format!("{what}: {closed}{cut}"));
        Some(Block { pieces, ..Block::new(captured, &layers, content) })
    }

    /// A frame, or a packet that is whole with its last piece.
    fn whole(&mut self, captured: &Captured, frame: &Frame<'_>, pieces: Option<u64>) -> Option<Block> {
        let cut = captured.len > captured.bytes.len() as u64;
        let number = captured.number;
        let gres = frame.layers.iter().filter(|layer| matches!(layer, Layer::Gre { .. })).count() as u64;
        self.count.gre += gres;
        let summed =
            frame.layers.iter().any(|layer| matches!(layer, Layer::Gre { checksum: Some(false), .. }));
        if summed && !cut {
            self.find(number, "the checksum of GRE is wrong".to_owned());
        }
        let content = match &frame.inside {
            Inside::Nhrp(bytes) => self.nhrp(captured, bytes, is_quoted(&frame.layers)),
            // A quotation seldom has all that is authenticated.
            Inside::Ike(bytes) if self.ike.is_some() && !is_quoted(&frame.layers) => {
                self.ike(captured, bytes)
            }
            Inside::Malformed(malformed) => {
                self.count.unreadable += 1;
                Content::Unreadable(why(captured, malformed))
            }
            inside => {
                match inside {
                    Inside::Esp { .. } => self.count.esp += 1,
                    Inside::Ike(_) => self.count.ike += 1,
                    _ if told_behind(&frame.layers).is_none() => {
                        self.count.other += u64::from(pieces.is_none());
                        return None;
                    }
                    _ => {}
                }
                let behind = told_behind(&frame.layers).map_or(&[][..], |at| &frame.layers[at + 1..]);
                Content::Carries(
                    carried::inner(behind, inside).unwrap_or_else(|| carried::what(inside, false)),
                )
            }
        };
        Some(Block { pieces, ..Block::new(captured, &frame.layers, content) })
    }

    fn nhrp(&mut self, captured: &Captured, bytes: &[u8], quoted: bool) -> Content {
        let packet = match Packet::read(bytes) {
            Ok(packet) => packet,
            Err(malformed) => {
                *self.count.nhrp.entry(UNREADABLE).or_default() += 1;
                // A quotation is not expected to be whole.
                let whole = !(quoted && matches!(malformed, wire::Malformed::Truncated { .. }));
                let why = format!("NHRP: {}", why(captured, &malformed));
                if whole {
                    self.find(captured.number, why.clone());
                }
                return Content::Unreadable(why);
            }
        };
        let kind = packet.message.message_type();
        *self.count.nhrp.entry(kind.name()).or_default() += 1;
        self.compare(captured.number, kind, &packet, &bytes[..packet.size]);
        Content::Nhrp(Box::new(Message::new(&packet, bytes.len())))
    }

    /// Reads a message of IKE, and decrypts it.
    fn ike(&mut self, captured: &Captured, bytes: &[u8]) -> Content {
        self.count.ike += 1;
        let read = self.ike.as_mut().map(|ike| ike.read(captured.number, bytes));
        let read = match read {
            Some(Ok(read)) => read,
            Some(Err(malformed)) => {
                self.count.unreadable += 1;
                let why = format!("IKE: {}", why(captured, &malformed));
                self.find(captured.number, why.clone());
                return Content::Unreadable(why);
            }
            None => return Content::Carries(carried::what(&Inside::Ike(bytes), false)),
        };
        let counts = self.count.ike_opened.get_or_insert_default();
        match read.opened {
            Opening::Clear => {}
            Opening::Decrypted => counts.decrypted += 1,
            Opening::Unknown => counts.unknown += 1,
            Opening::Refused => counts.refused += 1,
        }
        read.findings.into_iter().for_each(|problem| self.find(captured.number, problem));
        Content::Ike(Box::new(read.message))
    }

    /// Whether a message is written as it came.
    fn compare(&mut self, frame: u64, kind: MessageType, packet: &Packet, bytes: &[u8]) {
        let written = packet.encode();
        let right = u16::from_be_bytes([written[12], written[13]]);
        let fault = match packet.checksum {
            Checksum::Right => None,
            Checksum::Wrong => Some(""),
            Checksum::OddLength => {
                Some("; it is what adding the last byte of an odd length in the wrong half makes")
            }
        };
        if let Some(hint) = fault {
            let problem = format!("{kind}: checksum {:#06x} should be {right:#06x}{hint}", packet.sum);
            self.find(frame, problem);
        }
        let differs = |at: &usize| {
            !Packet::CHECKSUM.contains(at) && bytes.get(*at).copied() != written.get(*at).copied()
        };
        if let Some(at) = (0..bytes.len().max(written.len())).find(differs) {
            let byte = |bytes: &[u8]| bytes.get(at).map_or_else(|| "none".to_owned(), |b| format!("{b:02x}"));
            let (came, goes) = (byte(bytes), byte(&written));
            self.find(frame, format!("{kind}: byte {at} is {came} and would be written as {goes}"));
        }
    }

    /// What was found in all.
    fn end(mut self) -> End {
        if self.protection.is_some() {
            let incomplete = self.pieces.incomplete_esp();
            self.count.opened.get_or_insert_default().incomplete = incomplete.len() as u64;
            for (frame, esp) in incomplete {
                self.find(frame, format!("{esp}: pieces of it are missing"));
            }
        }
        if let Some(ike) = &mut self.ike {
            let incomplete = ike.incomplete();
            self.count.ike_opened.get_or_insert_default().incomplete = incomplete.len() as u64;
            for (frame, what) in incomplete {
                self.find(frame, format!("{what}: fragments of it are missing"));
            }
        }
        let Self { count, findings, check, .. } = self;
        End { count, findings: check.then_some(findings) }
    }

    fn find(&mut self, frame: u64, problem: String) {
        if self.check {
            self.findings.push(Finding { frame, problem });
        }
    }
}

/// What is wrong, and whether the capture is to blame.
fn why(captured: &Captured, malformed: &wire::Malformed) -> String {
    match captured.bytes.len() {
        kept if kept as u64 == captured.len => malformed.to_string(),
        kept => format!("{malformed}; the capture kept {kept} of {} bytes", captured.len),
    }
}

fn is_quoted(layers: &[Layer]) -> bool {
    layers.iter().any(|layer| matches!(layer, Layer::IcmpError))
}

/// The layer that what is carried is told behind: the first GRE, or the last ESP that was decrypted.
fn told_behind(layers: &[Layer]) -> Option<usize> {
    let gre = layers.iter().position(|layer| matches!(layer, Layer::Gre { .. }));
    gre.or_else(|| layers.iter().rposition(|layer| matches!(layer, Layer::Esp { .. })))
}

impl Block {
    fn new(captured: &Captured, layers: &[Layer], content: Content) -> Self {
        let kept = captured.bytes.len();
        let mut block = Self {
            frame: captured.number,
            time: captured.time_ns.map(utc),
            length: captured.len,
            kept: (kept as u64 != captured.len).then_some(kept),
            vlans: Vec::new(),
            tunnel: None,
            esp: None,
            source: None,
            destination: None,
            ports: None,
            gre: None,
            quoted: is_quoted(layers),
            pieces: None,
            content,
        };
        // What is behind GRE, or ESP, is told with what it carries; NHRP is the last of its kind.
        let told = Some(&block.content).filter(|content| !matches!(content, Content::Nhrp(_)));
        let told = told.and_then(|_| told_behind(layers)).map_or(layers, |at| &layers[..=at]);
        let mut ports = None;
        for layer in told {
            match layer {
                Layer::Vlan(tag) => block.vlans.push(tag.vid()),
                Layer::Cooked { sent, nbma: Some(nbma) } => {
                    block.tunnel = Some(TunnelSide { sent: *sent, nbma: Some((*nbma).into()) });
                }
                Layer::Ip { source, destination } => {
                    (block.source, block.destination) = (Some(*source), Some(*destination));
                }
                Layer::Udp { source, destination } => ports = Some([*source, *destination]),
                Layer::Esp { spi, sequence, esn, next_header } => {
                    block.esp = Some(Esp {
                        source: block.source,
                        destination: block.destination,
                        ports: ports.take(),
                        spi: format!("{spi:#010x}"),
                        sequence: *sequence,
                        esn: *esn,
                        mode: if carried::IP_IN_IP.contains(next_header) { "tunnel" } else { "transport" },
                    });
                }
                Layer::Gre { fields: gre::Fields { protocol, key, sequence, .. }, checksum } => {
                    block.gre = Some(Gre {
                        protocol: format!("{protocol:#06x}"),
                        key: *key,
                        sequence: *sequence,
                        checksum_right: *checksum,
                    });
                }
                _ => {}
            }
        }
        if matches!(block.content, Content::Ike(_)) {
            block.ports = ports;
        }
        block
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {}", self.frame)?;
        if let Some(time) = &self.time {
            write!(f, ", {time}")?;
        }
        write!(f, ", {} bytes", self.length)?;
        if let Some(kept) = self.kept {
            write!(f, ", {kept} kept")?;
        }
        for vlan in &self.vlans {
            write!(f, ", VLAN {vlan}")?;
        }
        writeln!(f)?;
        let mut parts = Vec::new();
        if let Some(esp) = &self.esp {
            parts.push(esp.to_string());
        }
        let tunnel = self
            .esp
            .as_ref()
            .is_none_or(|esp| esp.source != self.source || esp.destination != self.destination);
        if tunnel && let (Some(source), Some(destination)) = (self.source, self.destination) {
            parts.push(format!("{source} > {destination}"));
        }
        if let Some([source, destination]) = self.ports {
            parts.push(format!("UDP {source} > {destination}"));
        }
        if let Some(TunnelSide { sent, nbma }) = &self.tunnel {
            let nbma = nbma.map(|nbma| format!(" from {nbma}")).unwrap_or_default();
            parts.push(format!("{} on a tunnel interface{nbma}", if *sent { "sent" } else { "received" }));
        }
        if let Some(gre) = &self.gre {
            let number = |name, number: Option<u32>| {
                number.map(|number| format!(" {name} {number}")).unwrap_or_default()
            };
            let checksum = match gre.checksum_right {
                None => "",
                Some(true) => " checksum right",
                Some(false) => " checksum wrong",
            };
            parts.push(format!(
                "GRE{}{}{checksum}",
                number("key", gre.key),
                number("sequence", gre.sequence)
            ));
        }
        if self.quoted {
            parts.push("quoted by an ICMP error".to_owned());
        }
        if let Some(pieces) = self.pieces {
            parts.push(format!("put together from {pieces} pieces"));
        }
        if !parts.is_empty() {
            writeln!(f, "  {}", parts.join(", "))?;
        }
        match &self.content {
            Content::Nhrp(message) => message.fmt(f),
            Content::Ike(message) => message.fmt(f),
            Content::Unreadable(why) => writeln!(f, "  not readable: {why}"),
            Content::Carries(what) => writeln!(f, "  {what}"),
        }
    }
}

impl fmt::Display for Esp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, ports, spi, sequence, esn, mode } = self;
        if let (Some(source), Some(destination)) = (source, destination) {
            write!(f, "{source} > {destination}, ")?;
        }
        if let Some([source, destination]) = ports {
            write!(f, "UDP {source} > {destination}, ")?;
        }
        let extended = if *esn { " extended" } else { "" };
        write!(f, "ESP {mode} SPI {spi} sequence {sequence}{extended}")
    }
}

impl fmt::Display for OpenedCount {
    /// Lines without the end of the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decrypted, unknown, refused, incomplete } = self;
        write!(f, "  {:<22}{decrypted:>8}", "decrypted")?;
        let rest = [("of an unknown SPI", unknown), ("not authentic", refused), ("incomplete", incomplete)];
        let mut rest = rest.into_iter().filter(|(_, count)| **count > 0);
        rest.try_for_each(|(name, count)| write!(f, "\n  {name:<22}{count:>8}"))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { frames, nhrp, gre, esp, opened, ike, ike_opened, pieces, unreadable, other } =
            &self.count;
        writeln!(f, "{:<24}{frames:>8}", "frames")?;
        writeln!(f, "{:<24}{:>8}", "NHRP messages", nhrp.values().sum::<u64>())?;
        let types = MessageType::ALL.iter().map(|kind| kind.name()).chain([UNREADABLE]);
        for kind in types.filter(|kind| nhrp.contains_key(kind)) {
            writeln!(f, "  {kind:<22}{:>8}", nhrp[kind])?;
        }
        writeln!(f, "{:<24}{gre:>8}", "GRE packets")?;
        match opened {
            None if *esp == 0 => {}
            None => writeln!(f, "{:<24}{esp:>8}", "ESP, protected")?,
            Some(opened) => writeln!(f, "{:<24}{esp:>8}\n{opened}", "ESP packets")?,
        }
        match ike_opened {
            None if *ike == 0 => {}
            None => writeln!(f, "{:<24}{ike:>8}", "IKE")?,
            Some(opened) => writeln!(f, "{:<24}{ike:>8}\n{opened}", "IKE messages")?,
        }
        let rest = [("pieces of packets", pieces), ("not readable", unreadable), ("others", other)];
        for (name, count) in rest.into_iter().filter(|(_, count)| **count > 0) {
            writeln!(f, "{name:<24}{count:>8}")?;
        }
        match self.findings.as_deref() {
            None => Ok(()),
            Some([]) => {
                f.write_str("check: every message is written as it came, every checksum is right")?;
                if opened.is_some() {
                    f.write_str(", every ESP packet is authentic")?;
                }
                if ike_opened.is_some() {
                    f.write_str(", every encrypted IKE message is authentic")?;
                }
                writeln!(f)
            }
            Some(findings) => findings
                .iter()
                .try_for_each(|found| writeln!(f, "check: frame {}: {}", found.frame, found.problem)),
        }
    }
}

/// A moment in nanoseconds since 1970, as RFC 3339 has it: with microseconds, or nanoseconds where there are some.
fn utc(time_ns: u128) -> String {
    let (seconds, nanos) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March on, so that a leap day is the last of its year; in eras of 400 years, which are equal.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u128::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if nanos % 1000 == 0 { format!("{:06}", nanos / 1000) } else { format!("{nanos:09}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        let at = |seconds: u128, nanos| utc(seconds * 1_000_000_000 + nanos);
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_827_696, 1000), "2000-02-29T12:34:56.000001Z");
        assert_eq!(at(951_868_800, 1), "2000-03-01T00:00:00.000000001Z");
        assert_eq!(at(1_795_467_592, 560_115_000), "2026-11-23T20:59:52.560115Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }
}
