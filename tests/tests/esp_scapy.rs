//! Interop with scapy's ESP: what it seals we open to the bytes that it began with, and the reverse.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::path::Path;

use aead::{Key, Packet, Provider};
use serde_json::{Value, json};
use tests::scapy::Scapy;
use wire::layers::{Frame, Inside, Layer, Link};
use wire::{IntoBytes, esp, ipv4, ipv6, udp};

/// Numbers of a seed (Steele, Lea and Flood's SplitMix64): the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// An SA and a packet of it.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    /// Family of the outer header.
    family: u8,
    udp: bool,
    tunnel: bool,
    esn: bool,
    sequence: u64,
    iv: u64,
    spi: u32,
    /// Key and salt.
    key: Vec<u8>,
    /// Bytes that are carried by UDP in IP in GRE.
    size: usize,
}

impl Case {
    /// Every combination, each with several packets.
    fn all() -> Vec<Self> {
        let mut numbers = Numbers(42);
        let mut all = Vec::new();
        for bits in 0..32_u8 {
            let is = |bit: u8| bits & 1 << bit != 0;
            for packet in 0..6 {
                let esn = is(3);
                // Early, late, and behind the roll-over.
                let sequence = match packet {
                    0 => 1,
                    1 => u64::from(u32::MAX),
                    _ if esn => numbers.next() >> 8 | 1,
                    _ => numbers.next() >> 32 | 1,
                };
                // RFC 4303 has nothing of length 0 in GRE, but the shortest UDP is near; the longest fills a usual MTU.
                let size = [0, 1, 2, 3, 512, 1300][packet] + usize::from(bits);
                all.push(Self {
                    seed: numbers.next() >> 1,
                    family: if is(0) { 6 } else { 4 },
                    udp: is(1),
                    tunnel: is(2),
                    esn,
                    sequence,
                    iv: numbers.next(),
                    spi: numbers.next() as u32 | 0x100,
                    key: numbers.bytes(if is(4) { 36 } else { 20 }),
                    size,
                });
            }
        }
        all
    }

    /// As scapy is asked.
    fn asked(&self, what: &str) -> Value {
        json!({
            "do": what, "seed": self.seed, "family": self.family, "udp": self.udp,
            "outer": self.tunnel.then_some(self.family), "esn": self.esn, "sequence": self.sequence,
            "gre_key": self.seed as u32, "iv": hex(&self.iv.to_be_bytes()), "spi": self.spi, "key": hex(&self.key), "size": self.size,
        })
    }

    fn key(&self, provider: Provider) -> (Key, [u8; 4]) {
        let (key, salt) = self.key.split_last_chunk().unwrap();
        (Key::new(provider, key).unwrap(), *salt)
    }

    /// Opens an ESP packet: what was in it, and its protocol number; `None` if it is not authentic.
    fn open(&self, provider: Provider, packet: &[u8]) -> Option<(Vec<u8>, u8)> {
        let (header, sealed) = esp::parse(packet).unwrap();
        let (key, salt) = self.key(provider);
        let mut text = sealed.to_vec();
        // The high half of an extended sequence number is not on the wire.
        let (spi, iv, esn) = (header.spi(), header.iv(), self.esn);
        let sequence = self.sequence & !u64::from(u32::MAX) | u64::from(header.sequence());
        if !aead::open_one(Packet { key: &key, salt, iv, sequence, spi, esn, text: &mut text }) {
            return None;
        }
        text.truncate(sealed.len() - esp::ICV);
        let trailer = esp::trailer(&text).unwrap();
        text.truncate(trailer.payload);
        Some((text, trailer.next_header))
    }

    /// An ESP packet.
    fn seal(&self, provider: Provider, payload: &[u8], next_header: u8) -> Vec<u8> {
        let mut text = [payload, &[0; esp::TRAILER + esp::ALIGNMENT]].concat();
        let end = esp::write_trailer(&mut text, payload.len(), next_header).unwrap();
        text.truncate(end);
        text.extend([0; esp::ICV]);
        let (key, salt) = self.key(provider);
        let &Self { iv, sequence, spi, esn, .. } = self;
        aead::seal_one(Packet { key: &key, salt, iv, sequence, spi, esn, text: &mut text });
        assert_eq!(esp::LEN + text.len(), esp::packet_len(payload.len()));
        [esp::Header::new(spi, sequence, iv).as_bytes(), &text].concat()
    }

    /// The protocol number of what is sealed.
    fn next_header(&self) -> u8 {
        match (self.tunnel, self.family) {
            (false, _) => ipv4::GRE,
            (true, 4) => 4,
            (true, _) => 41,
        }
    }

    /// Of a clear packet what is sealed: behind the IP header, or all of it.
    fn payload<'a>(&self, clear: &'a [u8]) -> &'a [u8] {
        match (self.tunnel, self.family) {
            (true, _) => clear,
            (false, 4) => &clear[ipv4::LEN..],
            (false, _) => &clear[ipv6::LEN..],
        }
    }

    /// An ESP packet with what is in front of it on the wire.
    fn on_the_wire(&self, esp: &[u8]) -> Vec<u8> {
        let datagram = |esp: &[u8]| {
            let header = udp::Header::new(udp::IKE_NAT, udp::IKE_NAT, esp.len()).unwrap();
            [header.as_bytes(), esp].concat()
        };
        let (protocol, bytes) = if self.udp { (ipv4::UDP, datagram(esp)) } else { (ipv4::ESP, esp.to_vec()) };
        if self.family == 4 {
            let (from, to) = ([192, 0, 2, 9].into(), [192, 0, 2, 1].into());
            let header = ipv4::Header::new(from, to, protocol, 64, bytes.len()).unwrap();
            return [header.as_bytes(), &bytes].concat();
        }
        let [from, to] = ["2001:db8::9", "2001:db8::1"].map(|address| address.parse().unwrap());
        let header = ipv6::Header::new(from, to, protocol, 64, bytes.len()).unwrap();
        [header.as_bytes(), &bytes].concat()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a field of an answer.
fn bytes(answer: &Value, field: &str) -> Vec<u8> {
    let text = answer[field].as_str().unwrap_or_else(|| panic!("scapy said {answer}"));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn scapy() -> Scapy {
    Scapy::install(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

fn providers() -> Vec<Provider> {
    Provider::ALL.into_iter().filter(|provider| provider.is_usable()).collect()
}

/// Input: ESP that scapy made of seeds: transport and tunnel mode, GRE with a key inside, ESN on and off, native and in UDP, keys of 128
/// and 256 bits, over IPv4 and IPv6. Output: every provider opens each to the bytes that scapy sealed; a packet that was bent it refuses.
#[test]
fn what_scapy_seals_we_open() {
    let cases = Case::all();
    let asked: Vec<_> = cases.iter().map(|case| case.asked("seal")).collect();
    let answers = scapy().answers(&asked).unwrap();
    for (case, answer) in cases.iter().zip(&answers) {
        let (clear, packet) = (bytes(answer, "clear"), bytes(answer, "packet"));
        let frame = Frame::read(Link::Ip, &packet);
        let Inside::Esp { bytes: esp, .. } = frame.inside else { panic!("{case:?}: {frame:?}") };
        let ports = frame.layers.iter().any(|layer| matches!(layer, Layer::Udp { destination: 4500, .. }));
        assert_eq!(ports, case.udp, "{case:?}");
        for provider in providers() {
            let expected = (case.payload(&clear).to_vec(), case.next_header());
            assert_eq!(case.open(provider, esp), Some(expected), "{case:?}");
            let mut bent = esp.to_vec();
            let at = usize::try_from(case.seed % bent.len() as u64).unwrap();
            bent[at] ^= 0x40;
            assert_eq!(case.open(provider, &bent), None, "{case:?}, byte {at}");
        }
    }
}

/// Input: what scapy would seal, sealed by us, by each provider. Output: scapy opens it to the bytes that it was; bent, it refuses it.
#[test]
fn what_we_seal_scapy_opens() {
    let cases = Case::all();
    let scapy = scapy();
    let asked: Vec<_> = cases.iter().map(|case| case.asked("clear")).collect();
    let clear: Vec<_> = scapy.answers(&asked).unwrap().iter().map(|answer| bytes(answer, "packet")).collect();
    let (mut asked, mut expected) = (Vec::new(), Vec::new());
    let providers = providers();
    for (number, (case, clear)) in cases.iter().zip(&clear).enumerate() {
        let provider = providers[number % providers.len()];
        let esp = case.seal(provider, case.payload(clear), case.next_header());
        let mut bent = esp.clone();
        // Everything from the sequence number on is authenticated, or makes the nonce.
        let at = 4 + number * 7 % (esp.len() - 4);
        bent[at] ^= 1 << (number % 8);
        for (esp, clear) in [(esp, Some(clear)), (bent, None)] {
            let mut question = case.asked("open");
            question["packet"] = hex(&case.on_the_wire(&esp)).into();
            asked.push(question);
            expected.push((case, clear));
        }
    }
    for (answer, (case, clear)) in scapy.answers(&asked).unwrap().iter().zip(expected) {
        match clear {
            Some(clear) => {
                let opened = bytes(answer, "packet");
                assert_eq!(case.payload(&opened), case.payload(clear), "{case:?}");
            }
            None => {
                let refused = answer["refused"].as_str().unwrap_or_default();
                assert!(refused.starts_with("IPSecIntegrityError"), "{case:?}: {answer}");
            }
        }
    }
}
