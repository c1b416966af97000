//! ESP (RFC 4303) with AES-GCM (RFC 4106), taken apart and put together by hand: what everybody sees of it, and what is in it
//! for who has the keys.
//!
//! ```text
//!   Ethernet │ IP │ [UDP 4500] │ SPI, sequence number, IV │ encrypted: GRE, padding, pad length, next header │ ICV
//!            │    │ (RFC 3948) │        4 + 4 + 8         │                                               │ 16
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit, Nonce, Tag};
use anyhow::{Context, Result, ensure};

use crate::capture::Frame;
use crate::{frame, trail};

/// Its IP protocol.
pub const ESP: u8 = 50;
/// IP protocol of GRE, which is what is in it.
pub const GRE: u8 = 47;
/// UDP port of IKE where a NAT may be on the way, and of ESP in UDP (RFC 3948).
pub const NAT_PORT: u16 = 4500;
/// Bytes of SPI, sequence number and IV.
const HEADER: usize = 16;
/// Bytes of the integrity check value.
const ICV: usize = 16;

/// An ESP packet as everybody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Esp<'a> {
    /// When.
    pub at: Duration,
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// UDP ports of both, if it is in UDP.
    pub ports: Option<(u16, u16)>,
    /// Which SA.
    pub spi: u32,
    /// Sequence number, its low half.
    pub sequence: u32,
    /// The initialization vector.
    pub iv: u64,
    /// The encrypted text.
    pub text: &'a [u8],
    /// What shows that nobody changed it.
    pub icv: &'a [u8],
}

/// The ESP packet in an Ethernet frame, if there is one: not of fragments, nor of a frame that was cut short.
#[must_use]
pub fn packet(frame: &Frame) -> Option<Esp<'_>> {
    if frame.bytes.len() < frame.length || !matches!(frame.bytes.get(12..14)?, [8, 0] | [0x86, 0xdd]) {
        return None;
    }
    let (source, destination, protocol, payload) = trail::ip(&frame.bytes[14..])?;
    let (ports, esp) = match protocol {
        ESP => (None, payload),
        17 => {
            let ports = udp_ports(payload)?;
            let esp = payload.get(8..)?;
            // The marker of IKE stands where an SPI would (RFC 3948 §2.2).
            if (ports.0 != NAT_PORT && ports.1 != NAT_PORT) || esp.get(..4)? == [0; 4] {
                return None;
            }
            (Some(ports), esp)
        }
        _ => return None,
    };
    let (header, rest) = esp.split_at_checked(HEADER)?;
    let (text, icv) = rest.split_at_checked(rest.len().checked_sub(ICV)?)?;
    let word = |at: usize| header[at..at + 4].try_into().map(u32::from_be_bytes).ok();
    let iv = u64::from_be_bytes(header[8..].try_into().ok()?);
    Some(Esp { at: frame.at, source, destination, ports, spi: word(0)?, sequence: word(4)?, iv, text, icv })
}

/// Source and destination port of a UDP datagram.
pub(crate) fn udp_ports(udp: &[u8]) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes([*udp.get(at)?, *udp.get(at + 1)?]));
    Some((port(0)?, port(2)?))
}

#[derive(Clone)]
enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
}

/// One SA: what its packets are sealed with.
#[derive(Clone)]
pub struct Sa {
    /// Its SPI.
    pub spi: u32,
    /// Key and four bytes of salt.
    keymat: Vec<u8>,
    cipher: Cipher,
    /// Sequence numbers of 64 bits, of which the low half is sent.
    pub esn: bool,
}

impl fmt::Debug for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SA 0x{:08x}", self.spi)
    }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes)
}

impl Sa {
    /// One with this key: of 16 or 32 bytes, and four of salt.
    ///
    /// # Errors
    /// Another length.
    pub fn new(spi: u32, keymat: &[u8], esn: bool) -> Result<Self> {
        ensure!(matches!(keymat.len(), 20 | 36), "{} bytes are no key", keymat.len());
        let key = &keymat[..keymat.len() - 4];
        let cipher = if key.len() == 16 {
            Cipher::Aes128(Box::new(Aes128Gcm::new_from_slice(key)?))
        } else {
            Cipher::Aes256(Box::new(Aes256Gcm::new_from_slice(key)?))
        };
        Ok(Self { spi, keymat: keymat.to_vec(), cipher, esn })
    }

    /// Key and salt in hexadecimal digits.
    #[must_use]
    pub fn digits(&self) -> String {
        let digits: String = self.keymat.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("0x{digits}")
    }

    /// RFC 4106 §4.
    fn nonce(&self, iv: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.keymat[self.keymat.len() - 4..]);
        nonce[4..].copy_from_slice(&iv.to_be_bytes());
        nonce
    }

    /// RFC 4106 §5. No run here is so long that the high half of a sequence number is more than 0.
    fn aad(&self, spi: u32, sequence: u32) -> Vec<u8> {
        let high: &[u8] = if self.esn { &[0; 4] } else { &[] };
        [&spi.to_be_bytes()[..], high, &sequence.to_be_bytes()].concat()
    }

    /// What is in a packet: its next header and payload; `None` if it is not authentic, or its padding is not that of RFC 4303 §2.4.
    #[must_use]
    pub fn open(&self, esp: &Esp<'_>) -> Option<(u8, Vec<u8>)> {
        let mut text = esp.text.to_vec();
        let (nonce, aad) = (Nonce::from(self.nonce(esp.iv)), self.aad(esp.spi, esp.sequence));
        let tag = Tag::from(<[u8; ICV]>::try_from(esp.icv).ok()?);
        match &self.cipher {
            Cipher::Aes128(key) => {
                key.decrypt_inout_detached(&nonce, &aad, text.as_mut_slice().into(), &tag).ok()?
            }
            Cipher::Aes256(key) => {
                key.decrypt_inout_detached(&nonce, &aad, text.as_mut_slice().into(), &tag).ok()?
            }
        }
        let (next, padding) = (text.pop()?, usize::from(text.pop()?));
        let payload = text.len().checked_sub(padding)?;
        text[payload..].iter().copied().eq((1..=255).take(padding)).then_some(())?;
        text.truncate(payload);
        Some((next, text))
    }

    /// A packet from SPI to ICV.
    ///
    /// # Errors
    /// It is too long to be sealed.
    pub fn seal(&self, sequence: u32, next: u8, payload: &[u8]) -> Result<Vec<u8>> {
        let padding = (4 - (payload.len() + 2) % 4) % 4;
        let mut text = payload.to_vec();
        text.extend(&[1, 2, 3][..padding]);
        text.extend([u8::try_from(padding)?, next]);
        let iv = u64::from(sequence);
        let (nonce, aad) = (Nonce::from(self.nonce(iv)), self.aad(self.spi, sequence));
        let icv: [u8; ICV] = match &self.cipher {
            Cipher::Aes128(key) => key.encrypt_inout_detached(&nonce, &aad, text.as_mut_slice().into()),
            Cipher::Aes256(key) => key.encrypt_inout_detached(&nonce, &aad, text.as_mut_slice().into()),
        }
        .map_err(|_| anyhow::anyhow!("{} bytes are not sealed", payload.len()))?
        .into();
        let header = [&self.spi.to_be_bytes()[..], &sequence.to_be_bytes(), &iv.to_be_bytes()].concat();
        Ok([header, text, icv.to_vec()].concat())
    }
}

/// The keys of a run, by SPI: no two of its SAs have one.
#[derive(Debug, Clone, Default)]
pub struct Keyring(BTreeMap<u32, Sa>);

/// A capture that was opened.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// All frames in order: those with ESP as if it had gone in the clear, the others as they were.
    pub frames: Vec<Frame>,
    /// How many of them were ESP.
    pub sealed: usize,
    /// And how many of those are of no SA of the run, or not authentic. They are left out.
    pub closed: usize,
}

impl Keyring {
    /// Adds an SA.
    pub fn add(&mut self, sa: Sa) {
        self.0.insert(sa.spi, sa);
    }

    /// There are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The SA of this SPI.
    #[must_use]
    pub fn sa(&self, spi: u32) -> Option<&Sa> {
        self.0.get(&spi)
    }

    /// As a dissector's table of SAs has them (Wireshark's `esp_sa`, which `nave decode --esp-sa` reads too).
    #[must_use]
    pub fn table(&self) -> String {
        let line = |(spi, sa): (&u32, &Sa)| {
            let what = if sa.esn { ",\"64-bit\",\"00000000\"" } else { "" };
            let cipher = "AES-GCM with 16 octet ICV [RFC4106]";
            format!(
                "\"IPv4\",\"*\",\"*\",\"0x{spi:08x}\",\"{cipher}\",\"{}\",\"NULL\",\"\"{what}\n",
                sa.digits()
            )
        };
        self.0.iter().map(line).collect()
    }

    /// Opens what is ESP.
    #[must_use]
    pub fn open(&self, frames: &[Frame]) -> Opened {
        let mut opened = Opened::default();
        for frame in frames {
            let Some(esp) = packet(frame) else {
                opened.frames.push(frame.clone());
                continue;
            };
            opened.sealed += 1;
            match self.sa(esp.spi).and_then(|sa| sa.open(&esp)) {
                Some((next, payload)) => opened.frames.push(in_the_clear(frame, &esp, next, &payload)),
                None => opened.closed += 1,
            }
        }
        opened
    }

    /// The frames as if all had gone in the clear.
    #[must_use]
    pub fn read(&self, frames: &[Frame]) -> Vec<Frame> {
        self.open(frames).frames
    }
}

/// The frame without its ESP. In tunnel mode its payload has an IP header of its own.
fn in_the_clear(frame: &Frame, esp: &Esp<'_>, next: u8, payload: &[u8]) -> Frame {
    let headers = frame.bytes.len() - trailing(frame, esp);
    let mut bytes = frame.bytes[..headers].to_vec();
    let is_ipv4 = bytes[12..14] == [8, 0];
    if matches!(next, 4 | 41) {
        bytes.truncate(14);
    } else {
        bytes.truncate(headers - if esp.ports.is_some() { 8 } else { 0 });
        bytes[if is_ipv4 { 23 } else { 20 }] = next;
    }
    bytes.extend(payload);
    if next != 4 && next != 41 {
        if is_ipv4 {
            frame::seal_ipv4(&mut bytes[14..]);
        } else {
            let length = u16::try_from(bytes.len() - 54).unwrap_or(u16::MAX);
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
        }
    }
    Frame { at: frame.at, length: bytes.len(), bytes }
}

/// Bytes of a frame from the SPI on, with what is behind the packet.
fn trailing(frame: &Frame, esp: &Esp<'_>) -> usize {
    let is_ipv4 = frame.bytes[12..14] == [8, 0];
    let total = if is_ipv4 {
        usize::from(u16::from_be_bytes([frame.bytes[16], frame.bytes[17]]))
    } else {
        40 + usize::from(u16::from_be_bytes([frame.bytes[18], frame.bytes[19]]))
    };
    let behind = frame.bytes.len().saturating_sub(14 + total);
    HEADER + esp.text.len() + ICV + behind
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;

    const ENDS: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(203, 0, 113, 11), Ipv4Addr::new(203, 0, 113, 1));

    fn bytes(digits: &str) -> Vec<u8> {
        let digits = digits.trim_start_matches("0x");
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    fn framed(packet: &[u8]) -> Frame {
        let mut bytes = frame::ethernet([2; 6], [4; 6], 0x0800, packet);
        // As Ethernet fills up what is short.
        bytes.resize(bytes.len().max(60), 0);
        Frame { at: Duration::ZERO, length: bytes.len(), bytes }
    }

    /// Input: ESP that the Linux kernel made, native and in UDP, with the keys that it had. Output: all of it opens, and is GRE.
    #[test]
    fn what_a_kernel_sealed_is_opened() {
        let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
        for (name, in_udp) in [("protected", false), ("encapsulated", true)] {
            let table = std::fs::read_to_string(captures.join(format!("{name}.esp_sa"))).unwrap();
            let mut ring = Keyring::default();
            for line in table.lines() {
                let fields: Vec<_> = line.split(',').map(|field| field.trim_matches('"')).collect();
                let spi = u32::from_str_radix(fields[3].trim_start_matches("0x"), 16).unwrap();
                ring.add(Sa::new(spi, &bytes(fields[5]), false).unwrap());
            }
            let file = File::open(captures.join(format!("{name}.pcap"))).unwrap();
            let mut file = pcap_file::pcap::PcapReader::new(file).unwrap();
            let mut frames = Vec::new();
            while let Some(packet) = file.next_packet() {
                let packet = packet.unwrap();
                let (at, bytes) = (packet.timestamp, packet.data.to_vec());
                frames.push(Frame { at, length: bytes.len(), bytes });
            }
            let sealed: Vec<_> = frames.into_iter().filter(|frame| packet(frame).is_some()).collect();
            assert!(sealed.iter().all(|frame| packet(frame).unwrap().ports.is_some() == in_udp));
            let opened = ring.open(&sealed);
            assert!(
                opened.sealed > 50 && opened.closed == 0,
                "{name}: {} of {}",
                opened.closed,
                opened.sealed
            );
            assert!(
                opened.frames.iter().all(|frame| trail::gre(frame).is_some_and(|gre| gre.key == Some(1)))
            );
            assert!(!trail::nhrp(&opened.frames).is_empty());
        }
    }

    #[test]
    fn what_was_sealed_is_read_as_if_it_had_gone_in_the_clear() {
        let gre = frame::gre(Some(42), 0x0800, &[7; 33]);
        let clear = framed(&frame::ipv4(ENDS, GRE, 64, &gre));
        let (mut ring, mut sealed) = (Keyring::default(), Vec::new());
        for (spi, length) in [(0x0100_0001, 20), (0x0200_0002, 36)] {
            for esn in [false, true] {
                let sa = Sa::new(spi + u32::from(esn) * 8, &vec![9; length], esn).unwrap();
                let esp = sa.seal(5, GRE, &gre).unwrap();
                sealed.push(framed(&frame::ipv4(ENDS, ESP, 64, &esp)));
                sealed.push(framed(&frame::ipv4(ENDS, 17, 64, &frame::udp(40_001, NAT_PORT, &esp))));
                ring.add(sa);
            }
        }
        sealed.push(clear.clone());
        let opened = ring.open(&sealed);
        assert_eq!((opened.sealed, opened.closed, opened.frames.len()), (8, 0, 9));
        for frame in &opened.frames {
            assert_eq!(trail::gre(frame).unwrap().payload, [7; 33]);
            assert_eq!(frame.bytes, clear.bytes[..frame.bytes.len()]);
        }
        // Any bit from the SPI on that is another is noticed.
        for at in 34..sealed[0].bytes.len() {
            let mut forged = sealed[0].clone();
            forged.bytes[at] ^= 0x10;
            assert_eq!(ring.open(&[forged]).closed, 1, "byte {at}");
        }
        // IKE is none, and neither is a keepalive.
        for udp in [&[0, 0, 0, 0, 1, 2, 3, 4][..], &[0xff]] {
            let frame = framed(&frame::ipv4(ENDS, 17, 64, &frame::udp(NAT_PORT, NAT_PORT, udp)));
            assert_eq!(packet(&frame), None);
        }
    }
}
