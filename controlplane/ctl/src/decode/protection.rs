//! ESP of a capture, decrypted with the SAs of a table.

use std::collections::HashMap;
use std::net::IpAddr;

use aead::Packet;
use wire::esp;
use wire::layers::Layer;

use super::table::Sa;

/// High halves of the sequence number that are tried of an SA of which nothing has been authentic yet: a capture may begin long after
/// the SA.
const HIGHS: u32 = 256;

/// SAs, and what has been seen of them.
pub(super) struct Protection {
    sas: Vec<Sa>,
    /// By the place of the SA, as a line may be a pattern, and whose it was.
    seen: HashMap<(usize, IpAddr, u32), Seen>,
}

/// The newest packet that was authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    sequence: u64,
    esn: bool,
}

/// A packet that was decrypted.
#[derive(Debug)]
pub(super) struct Opened {
    /// What there is to say of its ESP.
    pub(super) layer: Layer,
    /// Protocol number of the payload.
    pub(super) next_header: u8,
    /// What was in it.
    pub(super) payload: Vec<u8>,
}

/// Why a packet was not decrypted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    #[error("no SA of the table has it")]
    Unknown,
    #[error("it is not authentic with {}", lines(.0))]
    Forged(Vec<usize>),
    #[error("{0}")]
    Short(wire::Malformed),
    /// It is of who has the key, who did not keep to RFC 4303.
    #[error("it is authentic, but {0}")]
    Trailer(wire::Malformed),
}

fn lines(lines: &[usize]) -> String {
    let numbers: Vec<_> = lines.iter().map(ToString::to_string).collect();
    format!("the key of line {}", numbers.join(", "))
}

impl Protection {
    pub(super) fn new(sas: Vec<Sa>) -> Self {
        Self { sas, seen: HashMap::new() }
    }

    /// Decrypts a packet, from its SPI on.
    pub(super) fn open(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        bytes: &[u8],
    ) -> Result<Opened, Closed> {
        let (header, rest) = esp::parse(bytes).map_err(Closed::Short)?;
        let spi = header.spi();
        let mut tried = Vec::new();
        for (at, sa) in self.sas.iter().enumerate().filter(|(_, sa)| sa.holds(source, destination, spi)) {
            tried.push(sa.line);
            let seen = self.seen.get(&(at, destination, spi)).copied();
            for guess in guesses(seen, sa.high, header) {
                let Some(text) = opened(sa, header, guess, rest) else { continue };
                let newest = seen.filter(|seen| seen.sequence > guess.sequence).unwrap_or(guess);
                self.seen.insert((at, destination, spi), newest);
                return read(spi, guess, text);
            }
        }
        Err(if tried.is_empty() { Closed::Unknown } else { Closed::Forged(tried) })
    }
}

/// The decrypted text, if the packet is authentic with this sequence number.
fn opened(sa: &Sa, header: &esp::Header, guess: Seen, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut text = sealed.to_vec();
    let packet = Packet {
        key: &sa.key,
        salt: sa.salt,
        iv: header.iv(),
        sequence: guess.sequence,
        spi: header.spi(),
        esn: guess.esn,
        text: &mut text,
    };
    if !aead::open_one(packet) {
        return None;
    }
    text.truncate(sealed.len() - esp::ICV);
    Some(text)
}

fn read(spi: u32, of: Seen, mut text: Vec<u8>) -> Result<Opened, Closed> {
    let esp::Trailer { payload, next_header } = esp::trailer(&text).map_err(Closed::Trailer)?;
    text.truncate(payload);
    let layer = Layer::Esp { spi, sequence: of.sequence, esn: of.esn, next_header };
    Ok(Opened { layer, next_header, payload: text })
}

/// What the sequence number may be, the likeliest first: the table does not say whether it is an extended one, and the high half of
/// that is not sent (RFC 4303 §2.2.1), but authenticated.
fn guesses(seen: Option<Seen>, high: Option<u32>, header: &esp::Header) -> Vec<Seen> {
    let low = u64::from(header.sequence());
    let plain = Seen { sequence: low, esn: false };
    let extended = |high: u64| Seen { sequence: high << 32 | low, esn: true };
    let mut highs = Vec::new();
    if let Some(Seen { sequence, esn: true }) = seen {
        // The nearest to the newest, then its neighbours.
        let near = sequence >> 32;
        highs.extend([near, near.wrapping_add(1), near.wrapping_sub(1)]);
        highs.sort_by_key(|high| sequence.abs_diff(extended(*high & u64::from(u32::MAX)).sequence));
    }
    highs.extend(high.map(u64::from));
    // Who takes the sequence number as IV sends all of it.
    if header.iv() & u64::from(u32::MAX) == low {
        highs.push(header.iv() >> 32);
    }
    if seen.is_none() {
        highs.extend(0..u64::from(HIGHS));
    }
    let mut all = Vec::new();
    for guess in highs.into_iter().filter(|high| *high <= u64::from(u32::MAX)).map(extended) {
        if !all.contains(&guess) {
            all.push(guess);
        }
    }
    let first = if seen.is_some_and(|seen| seen.esn) { all.len() } else { 0 };
    all.insert(first, plain);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use wire::IntoBytes;
    use wire::layers::{Frame, Inside, Link};

    use super::super::file::{Captured, File};
    use super::super::table;
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures").join(name)
    }

    fn frames(name: &str) -> Vec<Captured> {
        let bytes = std::fs::read(path(name)).unwrap();
        let mut file = File::open(bytes.as_slice()).unwrap();
        std::iter::from_fn(|| file.next().unwrap()).collect()
    }

    /// What is in a frame of a tunnel interface: whether it was sent, and what GRE had carried.
    fn of_tunnel(frame: &Captured) -> (bool, Vec<u8>) {
        assert_eq!((frame.link, frame.len), (Ok(Link::Cooked), frame.bytes.len() as u64));
        let Layer::Cooked { sent, nbma } = Frame::read(Link::Cooked, &frame.bytes).layers[0] else {
            panic!()
        };
        assert!(nbma.is_some());
        let mut carried = frame.bytes[16..].to_vec();
        if sent {
            complete(&mut carried);
        }
        (sent, carried)
    }

    /// The checksum of UDP is computed behind the place where a packet that is sent was recorded: computes it.
    fn complete(packet: &mut [u8]) {
        let Ok((ip, _)) = wire::ipv4::parse(packet) else { return };
        let (ip, start) = (*ip, ip.header_len());
        if ip.protocol == wire::ipv4::UDP {
            let (udp, payload) = wire::udp::parse_mut(&mut packet[start..]).unwrap();
            udp.fill_checksum(&ip, payload);
        }
    }

    /// What each node sent (`true`) and received: GRE payloads.
    type Payloads = BTreeMap<(IpAddr, bool), Vec<Vec<u8>>>;

    /// All that ESP carries in a capture, and how many packets there are.
    fn decrypted(capture: &str, sas: &str) -> (Payloads, usize) {
        let sas = table::read(&std::fs::read_to_string(path(sas)).unwrap()).unwrap();
        let (mut protection, mut payloads, mut count) = (Protection::new(sas), Payloads::new(), 0);
        for captured in frames(capture) {
            let frame = Frame::read(captured.link.unwrap(), &captured.bytes);
            let Inside::Esp { bytes, .. } = frame.inside else { continue };
            let (source, destination) = frame
                .layers
                .iter()
                .find_map(|layer| match layer {
                    Layer::Ip { source, destination } => Some((*source, *destination)),
                    _ => None,
                })
                .unwrap();
            let opened = protection.open(source, destination, bytes).unwrap();
            assert_eq!(opened.next_header, wire::ipv4::GRE);
            let (_, gre) = wire::gre::parse(&opened.payload).unwrap();
            payloads.entry((source, true)).or_default().push(gre.to_vec());
            payloads.entry((destination, false)).or_default().push(gre.to_vec());
            count += 1;
        }
        (payloads, count)
    }

    /// Input: ESP of strongSwan and Linux with the keys that they used: native, in UDP, with SAs that are renewed; what the peers recorded
    /// on their tunnel interfaces. Output: every ESP packet is decrypted to what its ends recorded, byte for byte.
    #[test]
    fn esp_of_real_peers_is_decrypted_to_what_they_recorded() {
        for (capture, sas, tunnels, packets) in [
            (
                "protected.pcap",
                "protected.esp_sa",
                &["protected-hub", "protected-spoke1", "protected-spoke2"][..],
                156,
            ),
            ("encapsulated.pcap", "encapsulated.esp_sa", &["encapsulated-hub", "encapsulated-spoke1"], 86),
            ("rekeyed.pcap", "rekeyed.esp_sa", &["rekeyed-hub", "rekeyed-spoke1"], 236),
        ] {
            let (payloads, count) = decrypted(capture, sas);
            assert_eq!(count, packets, "{capture}");
            for (tunnel, node) in tunnels.iter().zip([1, 11, 12]) {
                let recorded = frames(&format!("{tunnel}-tunnel.pcap"));
                for side in [true, false] {
                    let recorded = recorded.iter().map(of_tunnel).filter(|(sent, _)| *sent == side);
                    let mut recorded: Vec<_> = recorded.map(|(_, bytes)| bytes).collect();
                    let mut decrypted = payloads[&([10, 0, 0, node].into(), side)].clone();
                    // Two of them may have been recorded in another order than that in which they were sealed.
                    recorded.sort();
                    decrypted.sort();
                    assert!(decrypted == recorded, "{tunnel}, sent {side}");
                }
            }
        }
    }

    const SPI: u32 = 0x100;
    const KEY: [u8; 20] = *b"0123456789abcdefSALT";

    fn protection(lines: &[&str]) -> Protection {
        let line = |key: &&str| {
            format!(r#""Any","*","*","0x100","AES-GCM with 16 octet ICV [RFC4106]","{key}","NULL","""#)
        };
        Protection::new(table::read(&lines.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap())
    }

    /// A packet of `KEY` with the payload `hello`.
    fn sealed(sequence: u64, esn: bool, iv: u64, trailer: &[u8]) -> Vec<u8> {
        let key = aead::Key::new(aead::Provider::AesGcm, &KEY[..16]).unwrap();
        let mut text = [&b"hello"[..], trailer, &[0; esp::ICV]].concat();
        let salt = *b"SALT";
        aead::seal_one(Packet { key: &key, salt, iv, sequence, spi: SPI, esn, text: &mut text });
        [esp::Header::new(SPI, sequence, iv).as_bytes(), &text].concat()
    }

    const TRAILER: [u8; 3] = [1, 1, 47];
    const PEERS: [IpAddr; 2] =
        [IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2))];

    fn open(protection: &mut Protection, packet: &[u8]) -> Result<(u64, bool, Vec<u8>), Closed> {
        protection.open(PEERS[0], PEERS[1], packet).map(|opened| {
            let Layer::Esp { spi: SPI, sequence, esn, next_header: 47 } = opened.layer else { panic!() };
            (sequence, esn, opened.payload)
        })
    }

    #[test]
    fn the_high_half_of_extended_sequence_numbers_is_found() {
        let key = "0123456789abcdefSALT";
        // IVs that say nothing of the sequence number.
        let iv = |sequence: u64| sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for first in [1, 200 << 32 | 7, 0xffff_fff0, (255 << 32) | 0xffff_fffe] {
            let mut protection = protection(&[key]);
            // Forward over the end of the low half, back over it, and far.
            for sequence in
                [first, first + 5, first + 0x20, first + 3, first + 0x7000_0000, first + 0xe000_0000]
            {
                let opened = open(&mut protection, &sealed(sequence, true, iv(sequence), &TRAILER));
                assert_eq!(opened, Ok((sequence, true, b"hello".to_vec())), "{sequence:#x}");
            }
        }
        // Farther than any guess: by an IV that is the sequence number, or by the table.
        let far = 0x0012_3456_0000_0001;
        assert_eq!(open(&mut protection(&[key]), &sealed(far, true, far, &TRAILER)).unwrap().0, far);
        let told = sealed(far, true, 5, &TRAILER);
        assert_eq!(open(&mut protection(&[key]), &told), Err(Closed::Forged(vec![1])));
        let line = r#""IPv4","*","*","*","AES-GCM with 16 octet ICV [RFC4106]","0123456789abcdefSALT","NULL","","64-bit","0x00123456""#;
        let mut with = Protection::new(table::read(line).unwrap());
        assert_eq!(open(&mut with, &told).unwrap().0, far);
        // Without ESN the same bytes are another packet.
        let plain = sealed(7, false, 9, &TRAILER);
        assert_eq!(open(&mut protection(&[key]), &plain), Ok((7, false, b"hello".to_vec())));
    }

    #[test]
    fn what_is_not_decrypted_says_why() {
        let (key, other) = ("0123456789abcdefSALT", "fedcba9876543210SALT");
        let good = sealed(1, false, 1, &TRAILER);
        // The line whose key it is, wherever it stands.
        assert!(open(&mut protection(&[other, key]), &good).is_ok());
        assert_eq!(open(&mut protection(&[other, other]), &good), Err(Closed::Forged(vec![1, 2])));
        let mut stranger = good.clone();
        stranger[3] = 1;
        assert_eq!(open(&mut protection(&[key]), &stranger), Err(Closed::Unknown));
        // No bit of it may change, except that of another SPI.
        for at in 4..good.len() {
            let mut bent = good.clone();
            bent[at] ^= 0x10;
            assert_eq!(open(&mut protection(&[key]), &bent), Err(Closed::Forged(vec![1])), "byte {at}");
        }
        let said = open(&mut protection(&[key]), &good[..33]).unwrap_err().to_string();
        assert_eq!(said, "esp trailer and icv: needs 18 bytes, 17 are there");
        let said = open(&mut protection(&[key]), &sealed(1, false, 1, &[2, 1, 47])).unwrap_err().to_string();
        assert_eq!(said, "it is authentic, but esp padding: 2 is not allowed");
        let said = Closed::Forged(vec![3, 9]).to_string();
        assert_eq!(said, "it is not authentic with the key of line 3, 9");
    }
}
