//! Capture files, frame by frame: pcap and pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
//!
//! Read here and not by `pcap-file`, which takes no frame that is longer than what was kept of it, knows no resolution of times in
//! pcapng, and says of a damaged file neither where nor what.

use std::io::{self, Read};

use wire::layers::Link;

/// A frame as it lies in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Captured {
    /// Its number, from 1.
    pub(super) number: u64,
    /// When, in nanoseconds since 1970-01-01 UTC.
    pub(super) time_ns: Option<u128>,
    /// What it begins with; else the number of a link type that is not read.
    pub(super) link: Result<Link, u32>,
    /// Length of the whole frame in bytes.
    pub(super) len: u64,
    /// What was kept of it.
    pub(super) bytes: Vec<u8>,
}

/// Why a file cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    /// The system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("is not a capture: a pcap or pcapng file begins with other bytes{}", hint(.0))]
    Magic([u8; 4]),
    /// It contradicts itself.
    #[error("byte {at}, behind frame {behind}: {problem}")]
    Content {
        /// Where the record starts.
        at: u64,
        /// Frames before it.
        behind: u64,
        /// What is wrong with it.
        problem: String,
    },
}

fn hint(magic: &[u8; 4]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => " (it is compressed)",
        _ => "",
    }
}

/// The longest record that is believed in, in bytes.
const LONGEST: u32 = 64 << 20;

/// A file that is being read.
pub(super) struct File<R> {
    input: R,
    /// Bytes that have been read.
    position: u64,
    /// Where the current record starts.
    record: u64,
    frames: u64,
    format: Format,
}

enum Format {
    Pcap { big: bool, nano: bool, link: u32 },
    Ng { big: bool, interfaces: Vec<Interface> },
}

/// What an interface description of pcapng says.
struct Interface {
    link: u32,
    snap: u32,
    /// Units of time in a second.
    per_second: Option<u128>,
    /// Seconds to be added.
    offset: i64,
}

impl<R: Read> File<R> {
    /// Begins to read.
    pub(super) fn open(mut input: R) -> Result<Self, Bad> {
        let mut magic = [0; 4];
        let mut have = 0;
        while have < magic.len() {
            match input.read(&mut magic[have..])? {
                0 => return Err(Bad::Magic(magic)),
                more => have += more,
            }
        }
        let pcap = |big, nano| Format::Pcap { big, nano, link: 0 };
        let format = match u32::from_be_bytes(magic) {
            0xa1b2_c3d4 => pcap(true, false),
            0xd4c3_b2a1 => pcap(false, false),
            0xa1b2_3c4d => pcap(true, true),
            0x4d3c_b2a1 => pcap(false, true),
            SECTION => Format::Ng { big: false, interfaces: Vec::new() },
            _ => return Err(Bad::Magic(magic)),
        };
        let mut file = Self { input, position: 4, record: 0, frames: 0, format };
        match file.format {
            Format::Pcap { big, nano, .. } => {
                let header = file.take(20)?;
                // Above the low 16 bits there may be the length of a checksum behind each frame.
                let link = word(big, &header, 16) & 0xffff;
                file.format = Format::Pcap { big, nano, link };
            }
            Format::Ng { .. } => file.section()?,
        }
        Ok(file)
    }

    /// The next frame; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Captured>, Bad> {
        match self.format {
            Format::Pcap { big, nano, link } => self.next_pcap(big, nano, link),
            Format::Ng { .. } => self.next_ng(),
        }
    }

    fn next_pcap(&mut self, big: bool, nano: bool, link: u32) -> Result<Option<Captured>, Bad> {
        self.record = self.position;
        let Some(header) = self.take_or_end(16)? else { return Ok(None) };
        let [seconds, fraction, kept, len] = [0, 4, 8, 12].map(|at| word(big, &header, at));
        if kept > LONGEST {
            return Err(self.bad(format!("a frame of {kept} bytes is none")));
        }
        let bytes = self.take(kept)?;
        let fraction = u128::from(fraction) * if nano { 1 } else { 1000 };
        let time_ns = Some(u128::from(seconds) * NANOS + fraction);
        Ok(Some(self.frame(time_ns, link, len.into(), bytes)))
    }

    fn next_ng(&mut self) -> Result<Option<Captured>, Bad> {
        loop {
            self.record = self.position;
            let Some(kind) = self.take_or_end(4)? else { return Ok(None) };
            // The first word of a section header reads the same in both orders.
            if word(true, &kind, 0) == SECTION {
                self.section()?;
                continue;
            }
            let big = matches!(self.format, Format::Ng { big: true, .. });
            let kind = word(big, &kind, 0);
            let len = self.take(4).map(|len| word(big, &len, 0))?;
            let body = self.body(big, len, 8)?;
            match kind {
                INTERFACE => self.interface(big, &body)?,
                PACKET => {
                    self.needs(&body, 20)?;
                    let interface = u32::from(half(big, &body, 0));
                    return self.packet(big, interface, &body, 4).map(Some);
                }
                SIMPLE_PACKET => {
                    self.needs(&body, 4)?;
                    let len = word(big, &body, 0);
                    let (link, snap) = self.of_interface(0).map(|i| (i.link, i.snap))?;
                    let kept = if snap == 0 { len } else { len.min(snap) };
                    let bytes = self.kept(&body, 4, kept)?;
                    return Ok(Some(self.frame(None, link, len.into(), bytes)));
                }
                ENHANCED_PACKET => {
                    self.needs(&body, 20)?;
                    let interface = word(big, &body, 0);
                    return self.packet(big, interface, &body, 4).map(Some);
                }
                // What else there is says nothing of packets.
                _ => {}
            }
        }
    }

    /// What follows the first word of a section header. Interfaces are those of the section.
    fn section(&mut self) -> Result<(), Bad> {
        let head = self.take(8)?;
        let big = match word(true, &head, 4) {
            0x1a2b_3c4d => true,
            0x4d3c_2b1a => false,
            _ => return Err(self.bad("a section without its byte order".to_owned())),
        };
        let len = word(big, &head, 0);
        self.body(big, len, 12)?;
        self.format = Format::Ng { big, interfaces: Vec::new() };
        Ok(())
    }

    /// The rest of a block of which `read` bytes have been read, without the length that it ends with.
    fn body(&mut self, big: bool, len: u32, read: u32) -> Result<Vec<u8>, Bad> {
        if !len.is_multiple_of(4) || len < read + 4 || len > LONGEST {
            return Err(self.bad(format!("a block of {len} bytes is none")));
        }
        let mut body = self.take(len - read)?;
        let again = word(big, &body, body.len() - 4);
        if again != len {
            return Err(self.bad(format!("a block of {len} bytes says at its end that it has {again}")));
        }
        body.truncate(body.len() - 4);
        Ok(body)
    }

    fn interface(&mut self, big: bool, body: &[u8]) -> Result<(), Bad> {
        self.needs(body, 8)?;
        let (link, snap) = (half(big, body, 0).into(), word(big, body, 4));
        let (mut per_second, mut offset) = (Some(1_000_000), 0);
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, len) = (half(big, options, 0), usize::from(half(big, options, 2)));
            let value = options.get(4..4 + len).unwrap_or(&[]);
            match (code, value) {
                (0, _) => break,
                // if_tsresol: a power of two or of ten.
                (9, [power]) if power & 0x80 != 0 => {
                    per_second = 2_u128.checked_pow((power & 0x7f).into());
                }
                (9, [power]) => per_second = 10_u128.checked_pow((*power).into()),
                // if_tsoffset
                (14, value) if value.len() == 8 => {
                    let (first, second) = (u64::from(word(big, value, 0)), u64::from(word(big, value, 4)));
                    let bits = if big { first << 32 | second } else { second << 32 | first };
                    offset = bits.cast_signed();
                }
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        if let Format::Ng { interfaces, .. } = &mut self.format {
            interfaces.push(Interface { link, snap, per_second, offset });
        }
        Ok(())
    }

    fn of_interface(&self, number: u32) -> Result<&Interface, Bad> {
        let Format::Ng { interfaces, .. } = &self.format else {
            return Err(self.bad("no interface".to_owned()));
        };
        let interface = usize::try_from(number).ok().and_then(|number| interfaces.get(number));
        interface.ok_or_else(|| self.bad(format!("a packet of interface {number}, which is not described")))
    }

    /// A packet whose time stands at `at`, and then its lengths and bytes.
    fn packet(&mut self, big: bool, interface: u32, body: &[u8], at: usize) -> Result<Captured, Bad> {
        let [high, low, kept, len] = [0, 4, 8, 12].map(|more| word(big, body, at + more));
        let interface = self.of_interface(interface)?;
        let units = u128::from(u64::from(high) << 32 | u64::from(low));
        let time_ns = interface.per_second.and_then(|per_second| {
            let seconds = (units / per_second).checked_add_signed(interface.offset.into())?;
            // What does not fit is a fraction of a power that no clock has.
            let fraction = (units % per_second).checked_mul(NANOS)? / per_second;
            Some(seconds * NANOS + fraction)
        });
        let link = interface.link;
        let bytes = self.kept(body, at + 16, kept)?;
        Ok(self.frame(time_ns, link, len.into(), bytes))
    }

    fn kept(&self, body: &[u8], at: usize, kept: u32) -> Result<Vec<u8>, Bad> {
        let rest = &body[at..];
        let bytes = usize::try_from(kept).ok().and_then(|kept| rest.get(..kept));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| {
            self.bad(format!("a frame of {kept} bytes in a block that has {} for it", rest.len()))
        })
    }

    fn frame(&mut self, time_ns: Option<u128>, link: u32, len: u64, bytes: Vec<u8>) -> Captured {
        self.frames += 1;
        let len = len.max(bytes.len() as u64);
        Captured { number: self.frames, time_ns, link: Link::of_number(link).ok_or(link), len, bytes }
    }

    fn bad(&self, problem: String) -> Bad {
        Bad::Content { at: self.record, behind: self.frames, problem }
    }

    fn needs(&self, body: &[u8], bytes: usize) -> Result<(), Bad> {
        if body.len() < bytes {
            return Err(self.bad(format!("a block of {} bytes, which needs {bytes}", body.len())));
        }
        Ok(())
    }

    /// The next bytes, all of them.
    fn take(&mut self, count: u32) -> Result<Vec<u8>, Bad> {
        let mut bytes = Vec::new();
        self.input.by_ref().take(count.into()).read_to_end(&mut bytes)?;
        self.position += bytes.len() as u64;
        if bytes.len() as u64 != u64::from(count) {
            let problem = format!("the file ends where {count} bytes should be and {} are", bytes.len());
            return Err(self.bad(problem));
        }
        Ok(bytes)
    }

    /// As [`File::take`]; `None` at the end of the file.
    fn take_or_end(&mut self, count: u32) -> Result<Option<Vec<u8>>, Bad> {
        match self.take(count) {
            Err(Bad::Content { .. }) if self.position == self.record => Ok(None),
            taken => taken.map(Some),
        }
    }
}

const NANOS: u128 = 1_000_000_000;
/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// The word at a place that is there.
fn word(big: bool, bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

/// The half word at a place that is there.
fn half(big: bool, bytes: &[u8], at: usize) -> u16 {
    let half = [bytes[at], bytes[at + 1]];
    if big { u16::from_be_bytes(half) } else { u16::from_le_bytes(half) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames, and why there are no more.
    fn read(bytes: &[u8]) -> (Vec<Captured>, Option<String>) {
        let mut frames = Vec::new();
        let mut file = match File::open(bytes) {
            Ok(file) => file,
            Err(bad) => return (frames, Some(bad.to_string())),
        };
        loop {
            match file.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(bad) => return (frames, Some(bad.to_string())),
            }
        }
    }

    struct Writer(bool, Vec<u8>);

    impl Writer {
        fn words(mut self, words: &[u32]) -> Self {
            for word in words {
                self.1.extend(if self.0 { word.to_be_bytes() } else { word.to_le_bytes() });
            }
            self
        }

        fn bytes(mut self, bytes: &[u8]) -> Self {
            self.1.extend(bytes);
            self
        }

        /// A pcapng block with these words.
        fn block(self, kind: u32, words: &[u32]) -> Self {
            let len = u32::try_from(words.len()).unwrap() * 4 + 12;
            self.words(&[kind, len]).words(words).words(&[len])
        }
    }

    fn frame(number: u64, time_ns: u128, len: u64, bytes: &[u8]) -> Captured {
        Captured { number, time_ns: Some(time_ns), link: Ok(Link::Ethernet), len, bytes: bytes.to_vec() }
    }

    #[test]
    fn pcap_is_read_in_both_orders_and_both_resolutions() {
        for big in [true, false] {
            for (magic, fraction) in [(0xa1b2_c3d4, 5), (0xa1b2_3c4d, 5000)] {
                let file = Writer(big, vec![]).words(&[magic, 2 | 4 << 16, 0, 0, 96, 1 | 4 << 28]);
                // The second was longer than what was to be kept.
                let file = file.words(&[7, fraction, 2, 2]).bytes(&[1, 2]);
                let file = file.words(&[8, 0, 1, 1500]).bytes(&[3]);
                let frames = vec![frame(1, 7_000_005_000, 2, &[1, 2]), frame(2, 8_000_000_000, 1500, &[3])];
                assert_eq!(read(&file.1), (frames, None));
            }
        }
    }

    #[test]
    fn pcapng_is_read_in_both_orders_with_the_resolution_of_each_interface() {
        for big in [true, false] {
            let two = |first: u16, second: u16| {
                let (first, second) = (u32::from(first), u32::from(second));
                if big { first << 16 | second } else { second << 16 | first }
            };
            let byte = |byte: u32| if big { byte << 24 } else { byte };
            let padded =
                |bytes: [u8; 4]| if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
            let section = [0x1a2b_3c4d, two(1, 0), u32::MAX, u32::MAX];
            let file = Writer(big, vec![])
                .block(SECTION, &section)
                // Microseconds; nanoseconds, an hour later; 2^-10 s and a snap length.
                .block(INTERFACE, &[two(1, 0), 0])
                .block(
                    INTERFACE,
                    &[
                        two(1, 0),
                        0,
                        two(9, 1),
                        byte(9),
                        two(14, 8),
                        if big { 0 } else { 3600 },
                        if big { 3600 } else { 0 },
                    ],
                )
                .block(INTERFACE, &[two(1, 0), 2, two(9, 1), byte(0x8a), 0])
                // Something else.
                .block(5, &[0, 0, 0])
                .block(ENHANCED_PACKET, &[0, 0, 7, 3, 60, padded([1, 2, 3, 0])])
                .block(ENHANCED_PACKET, &[1, 1, 0, 0, 0])
                .block(PACKET, &[two(2, 0), 0, 1536, 1, 1, padded([4, 0, 0, 0])])
                .block(SIMPLE_PACKET, &[4, padded([5, 6, 7, 8])])
                // A section has interfaces of its own.
                .block(SECTION, &section)
                .block(INTERFACE, &[two(147, 0), 0])
                .block(ENHANCED_PACKET, &[0, 0, 0, 0, 0]);
            let hour = 3_600_000_000_000;
            let frames = vec![
                frame(1, 7000, 60, &[1, 2, 3]),
                frame(2, hour + (1 << 32), 0, &[]),
                frame(3, 1_500_000_000, 1, &[4]),
                Captured { time_ns: None, ..frame(4, 0, 4, &[5, 6, 7, 8]) },
                Captured { link: Err(147), ..frame(5, 0, 0, &[]) },
            ];
            assert_eq!(read(&file.1), (frames, None));
        }
    }

    #[test]
    fn a_damaged_file_says_where_and_what() {
        let ends = |bytes: &[u8]| read(bytes).1.unwrap();
        assert_eq!(ends(b"GET"), "is not a capture: a pcap or pcapng file begins with other bytes");
        assert!(ends(&[0x1f, 0x8b, 8, 0, 0]).ends_with("(it is compressed)"));
        let head = Writer(true, vec![]).words(&[0xa1b2_c3d4, 2 << 16 | 4, 0, 0, 96, 1]).1;
        assert_eq!(
            ends(&head[..20]),
            "byte 0, behind frame 0: the file ends where 20 bytes should be and 16 are"
        );
        let one = Writer(true, head).words(&[0, 0, 1, 1]).bytes(&[9]);
        assert_eq!(read(&one.1).1, None);
        let cut = Writer(true, one.1.clone()).words(&[0, 0, 4, 4]).bytes(&[1]).1;
        let (frames, why) = read(&cut);
        assert_eq!(
            (frames.len(), why.unwrap().as_str()),
            (1, "byte 41, behind frame 1: the file ends where 4 bytes should be and 1 are")
        );
        let huge = Writer(true, one.1).words(&[0, 0, u32::MAX, 4]).1;
        assert_eq!(ends(&huge), "byte 41, behind frame 1: a frame of 4294967295 bytes is none");

        let section = || Writer(true, vec![]).block(SECTION, &[0x1a2b_3c4d, 1 << 16, 0, 0]);
        let stranger = section().block(ENHANCED_PACKET, &[3, 0, 0, 0, 0]).1;
        assert_eq!(
            ends(&stranger),
            "byte 28, behind frame 0: a packet of interface 3, which is not described"
        );
        let short = section().block(ENHANCED_PACKET, &[0]).1;
        assert_eq!(ends(&short), "byte 28, behind frame 0: a block of 4 bytes, which needs 20");
        let full = section().block(INTERFACE, &[1 << 16, 0]).block(ENHANCED_PACKET, &[0, 0, 0, 5, 5, 0]).1;
        assert_eq!(ends(&full), "byte 48, behind frame 0: a frame of 5 bytes in a block that has 4 for it");
        let odd = section().words(&[INTERFACE, 10]).1;
        assert_eq!(ends(&odd), "byte 28, behind frame 0: a block of 10 bytes is none");
        let liar = section().words(&[5, 12, 16]).1;
        assert_eq!(
            ends(&liar),
            "byte 28, behind frame 0: a block of 12 bytes says at its end that it has 16"
        );
    }
}
