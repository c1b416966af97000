//! What Wireshark's dissector says of our messages.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::capture::{self, Frame};

/// An NHRP message as tshark sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dissected {
    /// Its number in the file.
    pub frame: u32,
    /// Sender on the underlay.
    pub source: String,
    /// `ar$op.type`.
    pub kind: u8,
    /// `ar$pktsz`.
    pub size: usize,
    /// Offset of the extensions.
    pub extensions_at: usize,
    /// The checksum is good.
    pub checksum_good: bool,
    /// What tshark finds wrong with it.
    pub complaints: String,
}

/// Dissects the NHRP messages of a capture file. Those that another packet only quotes are not counted.
///
/// # Errors
/// No tshark, or it does not understand the file.
pub fn nhrp(path: &Path) -> Result<Vec<Dissected>> {
    nhrp_in_esp(path, "")
}

/// As [`nhrp`], with those that are inside ESP of the SAs in a table `esp_sa`.
///
/// # Errors
/// As [`nhrp`].
pub fn nhrp_in_esp(path: &Path, sas: &str) -> Result<Vec<Dissected>> {
    const FIELDS: [&str; 8] = [
        "frame.number",
        "ip.src",
        "nhrp.hdr.op.type",
        "nhrp.hdr.pktsz",
        "nhrp.hdr.extoff",
        "nhrp.hdr.chksum.status",
        "_ws.malformed",
        "_ws.expert.message",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(path).args(["-Y", "nhrp", "-T", "fields", "-E", "occurrence=f"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    tshark.args(["-o", "esp.enable_encryption_decode:TRUE"]);
    for sa in sas.lines() {
        tshark.args(["-o", &format!("uat:esp_sa:{sa}")]);
    }
    let output = tshark.output().context("running tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| message(line).with_context(|| format!("tshark said: {line}"))).collect()
}

/// Payload types of each IKE message of a capture file, by frame: those that are encrypted too, with the keys of a table
/// `ikev2_decryption_table`; of a message in fragments with the one that completes it. Proposals and transforms are no payloads of their own.
///
/// # Errors
/// No tshark, or it does not understand the file.
pub fn ike_payloads(path: &Path, keys: &str) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(path).args(["-Y", "isakmp", "-T", "fields"]);
    tshark.args(["-e", "frame.number", "-e", "isakmp.typepayload"]);
    for sa in keys.lines() {
        tshark.args(["-o", &format!("uat:ikev2_decryption_table:{sa}")]);
    }
    let output = tshark.output().context("running tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let payloads = |line: &str| -> Result<(u64, Vec<u8>)> {
        let (frame, kinds) = line.split_once('\t').context("two fields")?;
        let kinds: Vec<u8> = kinds.split(',').map(str::parse).collect::<Result<_, _>>()?;
        // 2 and 3: a proposal, a transform; 46 and 53: what is encrypted.
        Ok((frame.parse()?, kinds.into_iter().filter(|kind| ![2, 3, 46, 53].contains(kind)).collect()))
    };
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| payloads(line).with_context(|| format!("tshark said: {line}"))).collect()
}

/// What an NHRP message says, as tshark reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// From whom, outside.
    pub source: IpAddr,
    /// To whom, outside.
    pub destination: IpAddr,
    /// `ar$op.type`.
    pub kind: u8,
    /// Flags, of those kinds that have them.
    pub flags: u16,
    /// Its request id.
    pub request: Option<u32>,
    /// Source protocol address: who asks, in a reply too.
    pub from: Option<IpAddr>,
    /// Destination protocol address.
    pub to: Option<IpAddr>,
    /// Codes of all client information entries, those in extensions too.
    pub codes: Vec<u8>,
    /// Protocol addresses of all client information entries, those in extensions too.
    pub clients: Vec<IpAddr>,
    /// Their NBMA addresses.
    pub nbmas: Vec<IpAddr>,
    /// Types of its extensions.
    pub extensions: Vec<u16>,
    /// Code of an error indication.
    pub error: Option<u16>,
}

impl Spoken {
    /// Whether it is of this kind and went from one node to another.
    #[must_use]
    pub fn is(&self, kind: u8, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> bool {
        (self.kind, self.source, self.destination) == (kind, source.into(), destination.into())
    }
}

/// What the NHRP messages among these frames say.
///
/// # Errors
/// No tshark, or it prints what nobody expects.
pub fn spoken(frames: &[Frame]) -> Result<Vec<Spoken>> {
    const NAMES: [&str; 18] = [
        "nhrp.hdr.op.type",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "nhrp.flags",
        "nhrp.reqid",
        "nhrp.src.prot.addr",
        "nhrp.src.prot.addr_bytes",
        "nhrp.dst.prot.addr",
        "nhrp.dst.prot.addr_byets",
        "nhrp.code",
        "nhrp.client.prot.addr",
        "nhrp.client.prot.addr_bytes",
        "nhrp.client.nbma.addr",
        "nhrp.client.nbma.addr_bytes",
        "nhrp.ext.type",
        "nhrp.err.code",
    ];
    let all = fields(&capture::pcap(frames)?, &NAMES)?;
    let nhrp = all.iter().filter(|fields| fields.first().is_some_and(|kind| !kind.is_empty()));
    nhrp.map(|fields| say(fields).with_context(|| format!("tshark said: {fields:?}"))).collect()
}

fn say(fields: &[String]) -> Result<Spoken> {
    let all = |at: usize| fields.get(at).into_iter().flat_map(|f| f.split(',')).filter(|f| !f.is_empty());
    let numbers = |at| all(at).map(number).collect::<Result<Vec<u32>>>();
    let addresses = |at| all(at).map(address).collect::<Result<Vec<IpAddr>>>();
    // What an error or a traffic indication quotes comes behind its own.
    let first = |at: usize, other: usize| {
        Ok::<_, anyhow::Error>([addresses(at)?, addresses(other)?].concat().first().copied())
    };
    let kind = *numbers(0)?.first().context("no kind")?;
    Ok(Spoken {
        source: first(1, 3)?.context("no source")?,
        destination: first(2, 4)?.context("no destination")?,
        kind: u8::try_from(kind)?,
        flags: u16::try_from(numbers(5)?.first().copied().unwrap_or(0))?,
        request: numbers(6)?.first().copied(),
        from: first(7, 8)?,
        to: first(9, 10)?,
        codes: numbers(11)?.into_iter().map(|code| Ok(u8::try_from(code)?)).collect::<Result<_>>()?,
        clients: [addresses(12)?, addresses(13)?].concat(),
        nbmas: [addresses(14)?, addresses(15)?].concat(),
        extensions: numbers(16)?.into_iter().map(|kind| Ok(u16::try_from(kind)?)).collect::<Result<_>>()?,
        error: numbers(17)?.first().map(|code| u16::try_from(*code)).transpose()?,
    })
}

/// A number as tshark prints it: in decimal, or in hexadecimal with 0x.
fn number(text: &str) -> Result<u32> {
    Ok(match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16)?,
        None => text.parse()?,
    })
}

/// An address as tshark prints it, or its bytes.
fn address(text: &str) -> Result<IpAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let digits = text.replace(':', "");
    match digits.len() {
        8 => Ok(Ipv4Addr::from(u32::from_str_radix(&digits, 16)?).into()),
        32 => Ok(Ipv6Addr::from(u128::from_str_radix(&digits, 16)?).into()),
        _ => bail!("{text} is no address"),
    }
}

/// The NHRP messages of a capture that tshark finds fault with, if they do not come from these addresses.
///
/// # Errors
/// As [`nhrp`], or there are none at all.
pub fn faults(path: &Path, except: &[String]) -> Result<Vec<Dissected>> {
    let messages = nhrp(path)?;
    ensure!(messages.len() > 6, "of {} messages not much can be said", messages.len());
    let is_bad = |m: &Dissected| !m.checksum_good || !m.complaints.is_empty();
    Ok(messages.into_iter().filter(|m| !except.contains(&m.source) && is_bad(m)).collect())
}

/// Fields of each packet in a capture, as tshark names and prints them; of one that occurs several times all, with commas.
///
/// # Errors
/// No tshark, or it does not understand the capture.
pub fn fields(capture: &[u8], names: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", "-", "-T", "fields", "-E", "occurrence=a"]);
    for name in names {
        tshark.args(["-e", name]);
    }
    let mut tshark = tshark
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("tshark")?;
    let mut input = tshark.stdin.take().context("tshark without input")?;
    let output = std::thread::scope(|scope| {
        // What tshark does not want to read is its complaint, below.
        scope.spawn(move || drop(input.write_all(capture)));
        tshark.wait_with_output()
    })?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn message(line: &str) -> Result<Dissected> {
    let fields: Vec<_> = line.split('\t').collect();
    let [frame, source, kind, size, offset, checksum, malformed, expert] = fields[..] else {
        anyhow::bail!("{} fields", fields.len());
    };
    Ok(Dissected {
        frame: frame.parse()?,
        source: source.to_owned(),
        kind: kind.parse()?,
        size: size.parse()?,
        extensions_at: offset.parse()?,
        checksum_good: checksum == "1",
        complaints: format!("{malformed}{expert}"),
    })
}
