//! A sample of what came out, for others to look at: a pcap file, and beside it the keys that open it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use model::sa::Direction;
use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::scenario::{Family, Scenario};

/// Frames of a sample, of each worker.
pub(crate) const SAMPLE: usize = 1024;

/// Writes frames, a microsecond apart.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn pcap<'a>(file: &Path, frames: impl Iterator<Item = &'a [u8]>) -> anyhow::Result<()> {
    let written = || -> anyhow::Result<()> {
        let mut writer = PcapWriter::new(BufWriter::new(File::create(file)?))?;
        for (number, frame) in (0..).zip(frames) {
            writer.write_packet(&PcapPacket::new(
                Duration::from_micros(number),
                frame.len() as u32,
                frame,
            ))?;
        }
        std::io::Write::flush(&mut writer.into_writer())?;
        Ok(())
    };
    written().with_context(|| file.display().to_string())
}

/// Where the keys of a file's frames are.
fn keys_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".esp_sa");
    path.into()
}

/// Writes what came out. If it is sealed, the keys of all SAs that it may be of are written beside it, as Wireshark reads them: its table "ESP
/// SAs", the file esp_sa of a profile; `nave decode --esp-sa` takes the same.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn write(
    file: &Path,
    scenario: &Scenario,
    workers: u16,
    frames: Vec<Vec<u8>>,
) -> anyhow::Result<()> {
    pcap(file, frames.iter().map(Vec::as_slice))?;
    let Some(esp) = scenario.esp.filter(|_| scenario.kind.leaves_in_tunnel()) else { return Ok(()) };
    let family = if scenario.outer == Family::Ipv6 { "IPv6" } else { "IPv4" };
    let mut table = String::new();
    for worker in 0..workers {
        for spoke in 0..scenario.spokes {
            let spi = esp.spi(Direction::Outbound, worker, spoke)?.value();
            let key = esp.key(Direction::Outbound, worker, spoke)?;
            let hex = key.key().iter().chain(&key.salt()).fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            let _ = writeln!(
                table,
                "\"{family}\",\"*\",\"*\",\"{spi:#010x}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{hex}\",\"NULL\",\"\""
            );
        }
    }
    let file = keys_of(file);
    std::fs::write(&file, table).with_context(|| file.display().to_string())
}
