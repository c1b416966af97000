//! What Wireshark's dissector says of our messages.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

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
    let output = tshark.output().context("running tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| message(line).with_context(|| format!("tshark said: {line}"))).collect()
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
