//! Interop with scapy's ESP through the whole graph: what it seals comes out on the LAN, and what comes from there it opens.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

#[path = "../../dataplane/forwarding/tests/lab/mod.rs"]
mod lab;

use std::path::Path;

use lab::{Dual, TestNode, any_udp, hop, hosts, open_frame, station, via, with_ttl};
use model::program::{Binding, InboundSa, Object, OutboundSa, Tunnel};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::{NbmaAddr, ProtocolAddr, TableId, WorkerId};
use serde_json::{Value, json};
use tests::scapy::Scapy;
use wire::{gre, ipv4, ipv6, udp};

/// The spoke that scapy plays.
const PEER: u8 = 9;
const GRE_KEY: u32 = 42;

/// How a tunnel is protected.
#[derive(Debug, Clone, Copy)]
struct Kind {
    over_v6: bool,
    udp: bool,
    mode: SaMode,
    esn: bool,
    bits: usize,
}

impl Kind {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for bits in [128, 256] {
            for (over_v6, udp, esn) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
                for mode in [SaMode::Transport, SaMode::Tunnel] {
                    // Its headers are too many for a rewrite, and the SA is refused.
                    if !(mode == SaMode::Tunnel && over_v6 && udp) {
                        all.push(Self { over_v6, udp, mode, esn, bits });
                    }
                }
            }
        }
        all
    }

    fn dual(self) -> Dual {
        Dual { over_v6: self.over_v6, tagged: false }
    }

    fn port(self) -> u16 {
        if self.udp { udp::IKE_NAT } else { 0 }
    }

    /// Key and salt: another one in each direction.
    fn keymat(self, inbound: bool) -> Vec<u8> {
        let first = if inbound { 7 } else { 131 };
        (0..self.bits / 8 + 4).map(|at| (first + at * 29) as u8).collect()
    }

    /// SPI of the SA of a direction.
    fn spi(inbound: bool) -> Spi {
        Spi::of(0, if inbound { 5 } else { 6 }, 0xa1).unwrap()
    }

    fn protection(self) -> Protection {
        let nbma = |node| NbmaAddr(self.dual().nbma(node).parse().unwrap());
        Protection {
            profile: "lab".parse().unwrap(),
            table: TableId(0),
            local: nbma(1),
            remote: nbma(PEER),
            port: self.port(),
        }
    }

    /// A hub with a protected tunnel and one peer, whose next sequence number is `first`.
    fn hub(self, first: u64) -> TestNode {
        let protect = |tunnel: &mut Tunnel| tunnel.protection = Some("lab".parse().unwrap());
        let mut node = self.dual().hub(&[], protect);
        let (protection, mode, esn) = (self.protection(), self.mode, self.esn);
        let lifetimes = Lifetimes::default();
        let key = |inbound| SaKey::new(&self.keymat(inbound)).unwrap();
        node.put([
            Object::InboundSa(InboundSa {
                spi: Self::spi(true),
                protection,
                mode,
                key: key(true),
                esn,
                window: 1024,
                lifetimes,
            }),
            Object::OutboundSa(OutboundSa {
                protection,
                worker: WorkerId(0),
                spi: Self::spi(false),
                mode,
                key: key(false),
                esn,
                lease: Lease { first, last: first + 100 },
                lifetimes,
            }),
        ]);
        let nbma = self.dual().nbma(PEER);
        node.put([lab::neighbour("wan", &nbma, station(PEER))]);
        for (next_hop, prefix) in [("10.0.0.9", "10.1.9.0/24"), ("fd00::9", "fd00:1:9::/64")] {
            node.put([
                Object::Binding(Binding {
                    tunnel: lab::name("tun"),
                    next_hop: ProtocolAddr(next_hop.parse().unwrap()),
                    nbma: NbmaAddr(nbma.parse().unwrap()),
                    port: self.port(),
                    link: Some(hop("wan", &nbma)),
                    expires_in: None,
                }),
                via(prefix, "tun", next_hop),
            ]);
        }
        node.settle();
        node
    }

    /// A packet as scapy is asked for it.
    fn asked(self, what: &str, sequence: u64, inbound: bool) -> Value {
        let tunnel = self.mode == SaMode::Tunnel;
        let family = if self.over_v6 { 6 } else { 4 };
        json!({
            "do": what, "seed": sequence >> 3 ^ 77, "size": sequence % 1300, "gre_key": GRE_KEY,
            "family": family, "outer": tunnel.then_some(family), "udp": self.udp, "esn": self.esn,
            "sequence": sequence, "iv": format!("{:016x}", sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            "spi": Self::spi(inbound).value(), "key": hex(&self.keymat(inbound)),
        })
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

/// What is in a GRE packet between peers.
fn inner(packet: &[u8]) -> (Option<u32>, Vec<u8>) {
    let payload = if packet[0] >> 4 == 6 { &packet[ipv6::LEN..] } else { &packet[ipv4::LEN..] };
    let (fields, inner) = gre::parse(payload).unwrap();
    (fields.key, inner.to_vec())
}

/// Input: ESP of scapy, in every form, with sequence numbers up to the roll-over of the low half and, with ESN, over it. Output: each
/// packet comes out on the LAN as scapy sealed it, with one hop less; again, and bent, it is dropped, as replayed and for its ICV.
#[test]
fn what_scapy_seals_comes_out_on_the_lan() {
    let sequences = |kind: &Kind| {
        let mut all = vec![1, 2, 700, 0x7fff_fff0, 0xffff_fff1];
        if kind.esn {
            all.extend([(1 << 32) + 3, (1 << 32) + 1200]);
        }
        all
    };
    let kinds = Kind::all();
    let asked: Vec<_> = kinds
        .iter()
        .flat_map(|kind| sequences(kind).into_iter().map(|sequence| kind.asked("seal", sequence, true)))
        .collect();
    let mut answers = scapy().answers(&asked).unwrap().into_iter();
    for kind in kinds {
        let mut node = kind.hub(1);
        for sequence in sequences(&kind) {
            let answer = answers.next().unwrap();
            let (clear, sealed) = (bytes(&answer, "clear"), bytes(&answer, "packet"));
            let frame = kind.dual().from_wan(station(PEER), &sealed);
            let mut bent = frame.clone();
            let last = bent.len() - 1;
            bent[last] ^= 1;
            node.receive(0, &bent);
            assert_eq!(node.sent(1), Vec::<Vec<u8>>::new());
            node.receive(0, &frame);
            let sent: Vec<_> = node.sent(1).iter().map(|frame| open_frame(frame).1).collect();
            let (_, inner) = inner(&clear);
            assert_eq!(sent, [with_ttl(&inner, 63)], "{kind:?} {sequence:#x}: {:?}", node.drops());
            node.receive(0, &frame);
            assert_eq!(node.sent(1), Vec::<Vec<u8>>::new());
        }
        let count = sequences(&kind).len() as u64;
        let drops: Vec<_> = node.drops().into_iter().map(|(reason, count)| (reason.name(), count)).collect();
        assert_eq!(drops, [("replayed", count), ("bad-icv", count)], "{kind:?}");
    }
}

/// Input: packets from the LAN for a peer, in every form of ESP, from sequence numbers at both ends of the low half. Output: scapy opens
/// what leaves by the WAN to the same packets, with one hop less, in GRE with the tunnel's key; their IVs are their sequence numbers.
#[test]
fn what_comes_from_the_lan_scapy_opens() {
    let (mut asked, mut expected) = (Vec::new(), Vec::new());
    for kind in Kind::all() {
        let first = if kind.esn { (5 << 32) - 2 } else { (1 << 32) - 10 };
        let mut node = kind.hub(first);
        for (number, size) in [0, 1, 2, 3, 700, 1300].into_iter().enumerate() {
            let sequence = first + number as u64;
            let (host, far) = hosts(number % 2 == 1, PEER);
            let packet = any_udp(&host, &far, &vec![number as u8; size]);
            node.receive(1, &kind.dual().from_lan(&packet));
            let sent = node.sent(0);
            assert_eq!(sent.len(), 1, "{kind:?}: {:?}", node.drops());
            let (_, sealed) = open_frame(&sent[0]);
            assert_esp(kind, sequence, &sealed);
            let mut question = kind.asked("open", sequence, false);
            question["packet"] = hex(&sealed).into();
            asked.push(question);
            expected.push((kind, with_ttl(&packet, 63)));
        }
    }
    for (answer, (kind, packet)) in scapy().answers(&asked).unwrap().iter().zip(expected) {
        assert_eq!(inner(&bytes(answer, "packet")), (Some(GRE_KEY), packet), "{kind:?}");
    }
}

/// The outer headers, SPI, sequence number and IV of what leaves.
fn assert_esp(kind: Kind, sequence: u64, packet: &[u8]) {
    let (protocol, payload) = if kind.over_v6 {
        let (header, payload) = ipv6::parse(packet).unwrap();
        if kind.udp {
            udp::verify_v6(header, payload).unwrap();
        }
        (header.next_header, payload)
    } else {
        ipv4::verify(packet).unwrap();
        let (header, payload) = ipv4::parse(packet).unwrap();
        (header.protocol, payload)
    };
    let esp = if kind.udp {
        assert_eq!(protocol, ipv4::UDP);
        let (header, esp) = udp::parse(payload).unwrap();
        assert_eq!((header.source_port(), header.destination_port()), (4500, 4500));
        esp
    } else {
        assert_eq!(protocol, ipv4::ESP);
        payload
    };
    let (header, _) = wire::esp::parse(esp).unwrap();
    assert_eq!(
        (header.spi(), header.sequence(), header.iv()),
        (Kind::spi(false).value(), sequence as u32, sequence)
    );
}
