//! Captured packets as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark, tshark and tcpdump read, also while it grows.
//!
//! ```text
//! section header │ interface (one for the port, or for each interface that packets of a node came by) │ packet │ packet │ …
//! ```

use std::borrow::Cow;
use std::io::{self, Write};
use std::num::NonZeroU16;
use std::time::Duration;

use model::InterfaceName;
use model::observe::{Captured, Direction, Tap};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

/// Time stamps count nanoseconds: ten to the minus so many seconds.
const RESOLUTION: u8 = 9;
/// `epb_flags`: which way the packet went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file that is being written. It is whole after each packet.
pub(crate) struct File<W: Write> {
    writer: PcapNgWriter<W>,
    at: Tap,
    snap: u32,
    /// Interfaces that the file has; at a port the first is all there is.
    interfaces: Vec<Option<InterfaceName>>,
}

impl<W: Write> File<W> {
    /// Begins a file of what is captured there.
    pub(crate) fn begin(out: W, at: Tap, snap: Option<NonZeroU16>) -> io::Result<Self> {
        let application = concat!("nave ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(out, section).map_err(io_error)?;
        let snap = snap.map_or(0, |snap| snap.get().into());
        let mut file = Self { writer, at, snap, interfaces: Vec::new() };
        if matches!(file.at, Tap::Port(_)) {
            file.add_interface(None)?;
        }
        file.flush()?;
        Ok(file)
    }

    /// Writes a packet.
    pub(crate) fn packet(&mut self, captured: &Captured) -> io::Result<()> {
        let interface = match self.at {
            Tap::Port(_) => None,
            Tap::Node(_) => captured.interface,
        };
        let interface_id = match self.interfaces.iter().position(|known| *known == interface) {
            Some(place) => place,
            None => self.add_interface(interface)?,
        };
        let mut options = Vec::new();
        if let Some(reason) = &captured.reason {
            options.push(EnhancedPacketOption::Comment(reason.to_string().into()));
        }
        if let Some(direction) = captured.direction {
            options.push(EnhancedPacketOption::Flags(match direction {
                Direction::In => INBOUND,
                Direction::Out => OUTBOUND,
            }));
        }
        if captured.lost > 0 {
            options.push(EnhancedPacketOption::DropCount(captured.lost));
        }
        self.write(&Block::EnhancedPacket(EnhancedPacketBlock {
            interface_id: u32::try_from(interface_id).unwrap_or(u32::MAX),
            timestamp: Duration::from_micros(captured.time_us),
            original_len: captured.len,
            data: Cow::Borrowed(&captured.bytes),
            options,
        }))?;
        self.flush()
    }

    /// Describes another interface; its number.
    fn add_interface(&mut self, interface: Option<InterfaceName>) -> io::Result<usize> {
        let name = match (interface, &self.at) {
            (Some(interface), _) => interface.to_string(),
            (None, Tap::Port(name) | Tap::Node(name)) => name.clone(),
        };
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfDescription(self.at.to_string().into()),
                InterfaceDescriptionOption::IfTsResol(RESOLUTION),
            ],
        };
        self.write(&block.into_block())?;
        self.interfaces.push(interface);
        Ok(self.interfaces.len() - 1)
    }

    fn write(&mut self, block: &Block<'_>) -> io::Result<()> {
        self.writer.write_block(block).map(drop).map_err(io_error)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }
}

/// Writing can only fail for what is below.
fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}
