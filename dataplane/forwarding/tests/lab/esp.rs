//! Protected tunnels in a test: SAs of a hub, and the peers at their other ends, who seal and open by the portable provider.

use std::net::IpAddr;

use aead::{Key, Packet, Provider, open_one, seal_one};
use model::program::{Binding, InboundSa, Object, OutboundSa, Tunnel};
use model::sa::{Lease, Lifetimes, Protection, SaKey, SaMode, Spi};
use model::{NbmaAddr, ProtocolAddr, TableId, WorkerId};
use wire::{esp, ethernet, gre, ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use super::*;

/// How the tunnels of a hub are protected.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    pub over_v6: bool,
    pub tagged: bool,
    /// UDP port of peers; 0: ESP is not in UDP.
    pub port: u16,
    pub mode: SaMode,
    pub esn: bool,
    /// Bytes of the key.
    pub key_len: usize,
}

/// Transport mode over IPv4 with ESN.
pub const PLAIN: Guard =
    Guard { over_v6: false, tagged: false, port: 0, mode: SaMode::Transport, esn: true, key_len: 16 };

/// The last sequence number of leases, unless a test wants another.
pub const LEASED: u64 = 1_000_000;

impl Guard {
    /// All ways to protect.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for bits in 0..32_u8 {
            let has = |bit: u8| bits >> bit & 1 != 0;
            let guard = Self {
                over_v6: has(0),
                tagged: has(1),
                port: if has(2) { 4501 } else { 0 },
                mode: if has(3) { SaMode::Tunnel } else { SaMode::Transport },
                esn: has(4),
                key_len: if has(1) ^ has(4) { 32 } else { 16 },
            };
            // No rewrite is so long.
            if !(guard.over_v6 && guard.port != 0 && guard.mode == SaMode::Tunnel) {
                all.push(guard);
            }
        }
        all
    }

    pub fn under(&self) -> Dual {
        Dual { over_v6: self.over_v6, tagged: self.tagged }
    }

    /// A hub whose tunnel is protected, and spokes with SAs, all of worker 0.
    pub fn hub(&self, spokes: &[u8]) -> TestNode {
        let mut node = self.bare_hub(|_| {});
        for spoke in spokes {
            node.put(self.sas(*spoke));
            node.put(self.spoke(*spoke));
        }
        node.settle();
        node
    }

    /// The same without spokes.
    pub fn bare_hub(&self, change: impl FnOnce(&mut Tunnel)) -> TestNode {
        self.under().hub(&[], |tunnel| {
            tunnel.protection = Some("guard".parse().unwrap());
            tunnel.mtu = 1300;
            change(tunnel);
        })
    }

    /// What [`Dual::spoke`] says, with UDP ports.
    pub fn spoke(&self, spoke: u8) -> Vec<Object> {
        let with_port = |object| match object {
            Object::Binding(binding) => Object::Binding(Binding { port: self.port, ..binding }),
            other => other,
        };
        self.under().spoke(spoke).into_iter().map(with_port).collect()
    }

    pub fn nbma(&self, node: u8) -> NbmaAddr {
        NbmaAddr(self.under().nbma(node).parse().unwrap())
    }

    pub fn protection(&self, spoke: u8) -> Protection {
        Protection {
            profile: "guard".parse().unwrap(),
            table: TableId(0),
            local: self.nbma(1),
            remote: self.nbma(spoke),
            port: self.port,
        }
    }

    /// A key that nobody else has.
    pub fn key(&self, seed: u32) -> SaKey {
        let bytes =
            (0..self.key_len + 4).map(|at| (seed.wrapping_mul(0x9e37_79b9) >> (at % 4 * 8)) as u8 ^ at as u8);
        SaKey::new(&bytes.collect::<Vec<_>>()).unwrap()
    }

    pub fn inbound(&self, spoke: u8, spi: Spi) -> InboundSa {
        InboundSa {
            spi,
            protection: self.protection(spoke),
            mode: self.mode,
            key: self.key(spi.value()),
            esn: self.esn,
            window: 64,
            lifetimes: Lifetimes::default(),
        }
    }

    pub fn outbound(&self, spoke: u8, spi: Spi) -> OutboundSa {
        OutboundSa {
            protection: self.protection(spoke),
            worker: WorkerId(0),
            spi,
            mode: self.mode,
            key: self.key(spi.value()),
            esn: self.esn,
            lease: Lease { first: 1, last: LEASED },
            lifetimes: Lifetimes::default(),
        }
    }

    /// A pair of SAs, of worker 0.
    pub fn sas(&self, spoke: u8) -> [Object; 2] {
        [
            Object::InboundSa(self.inbound(spoke, in_spi(spoke))),
            Object::OutboundSa(self.outbound(spoke, out_spi(spoke))),
        ]
    }

    /// The other end of these.
    pub fn peer(&self, spoke: u8) -> Peer {
        Peer::new(*self, spoke, in_spi(spoke), out_spi(spoke))
    }
}

/// The SPI by which a spoke sends, and by which the hub sends to it.
pub fn in_spi(spoke: u8) -> Spi {
    Spi::of(0, spoke.into(), 7).unwrap()
}

pub fn out_spi(spoke: u8) -> Spi {
    Spi::new(0xabcd_0000 + u32::from(spoke)).unwrap()
}

/// A spoke.
pub struct Peer {
    pub guard: Guard,
    pub spoke: u8,
    /// Address and UDP port that it sends from.
    pub from: (String, u16),
    to_hub: (Spi, SaKey),
    from_hub: (Spi, SaKey),
    /// The number of the last packet that it sealed.
    pub sequence: u64,
}

impl Peer {
    pub fn new(guard: Guard, spoke: u8, to_hub: Spi, from_hub: Spi) -> Self {
        let key = |spi: Spi| (spi, guard.key(spi.value()));
        let from = (guard.under().nbma(spoke), guard.port);
        Self { guard, spoke, from, to_hub: key(to_hub), from_hub: key(from_hub), sequence: 0 }
    }

    /// A frame with an IP packet in GRE, sealed with the next number.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        self.seal_as(self.sequence, packet)
    }

    /// The same with a number of its own.
    pub fn seal_as(&self, sequence: u64, packet: &[u8]) -> Vec<u8> {
        self.seal_gre(sequence, &gre_bytes(Some(42), ethertype(packet), packet))
    }

    /// A frame with GRE, sealed as the SA's mode has it.
    pub fn seal_gre(&self, sequence: u64, gre: &[u8]) -> Vec<u8> {
        if self.guard.mode == SaMode::Transport {
            return self.seal_text(sequence, gre, ipv4::GRE, 0);
        }
        let packet =
            any_ip(&self.guard.under().nbma(self.spoke), &self.guard.under().nbma(1), ipv4::GRE, gre);
        self.seal_text(sequence, &packet, if self.guard.over_v6 { esp::IPV6 } else { esp::IPV4 }, 0)
    }

    /// A frame with anything in ESP, and more padding than has to be (times four bytes).
    pub fn seal_text(&self, sequence: u64, payload: &[u8], next_header: u8, more: usize) -> Vec<u8> {
        let mut text = payload.to_vec();
        let pad = esp::padding(payload.len()) + 4 * more;
        text.extend((1..=pad).map(|at| at as u8));
        text.extend([pad as u8, next_header]);
        self.seal_bytes(sequence, text)
    }

    /// A frame with a text, trailer included.
    pub fn seal_bytes(&self, sequence: u64, mut text: Vec<u8>) -> Vec<u8> {
        let (spi, key) = &self.to_hub;
        text.resize(text.len() + esp::ICV, 0);
        // An IV is the sender's own affair.
        let iv = sequence ^ 0x5a5a;
        let expanded = Key::new(Provider::AesGcm, key.key()).unwrap();
        seal_one(Packet {
            key: &expanded,
            salt: key.salt(),
            iv,
            sequence,
            spi: spi.value(),
            esn: self.guard.esn,
            text: &mut text,
        });
        let esp = [esp::Header::new(spi.value(), sequence, iv).as_bytes(), &text].concat();
        self.framed(&esp)
    }

    /// A frame with ESP as it is.
    pub fn framed(&self, esp: &[u8]) -> Vec<u8> {
        self.guard.under().from_wan(station(self.spoke), &self.packet(esp))
    }

    /// The outer packet of it.
    pub fn packet(&self, esp: &[u8]) -> Vec<u8> {
        let (from, to) = (self.from.0.as_str(), self.guard.under().nbma(1));
        if self.guard.port == 0 {
            return any_ip(from, &to, ipv4::ESP, esp);
        }
        let header = udp::Header::new(self.from.1, udp::IKE_NAT, esp.len()).unwrap();
        any_ip(from, &to, ipv4::UDP, &[header.as_bytes(), esp].concat())
    }

    /// The number, and the IP packet in GRE, of a frame that the hub sent to it; everything checked.
    pub fn open(&self, frame: &[u8]) -> (u64, Vec<u8>) {
        let (sequence, gre) = self.open_gre(frame);
        let (fields, inner) = gre::parse(&gre).unwrap();
        assert_eq!((fields.key, fields.protocol), (Some(42), ethertype(inner)));
        if fields.protocol == gre::IPV4 {
            ipv4::verify(inner).unwrap();
            let (header, _) = ipv4::parse(inner).unwrap();
            assert_eq!(usize::from(header.total_length()), inner.len());
        }
        (sequence, inner.to_vec())
    }

    /// The same up to GRE.
    pub fn open_gre(&self, frame: &[u8]) -> (u64, Vec<u8>) {
        let (vlan, outer) = open_frame(frame);
        assert_eq!(vlan, self.guard.under().vlan(0));
        let (from, to, esp) = open_outer(&outer, self.guard.port);
        assert_eq!((from, to), (self.guard.nbma(1).0, self.guard.nbma(self.spoke).0));
        self.open_esp(&esp)
    }

    /// The same of ESP.
    pub fn open_esp(&self, esp: &[u8]) -> (u64, Vec<u8>) {
        let (spi, key) = &self.from_hub;
        let (header, text) = esp::parse(esp).unwrap();
        assert_eq!((header.spi(), header.sequence()), (spi.value(), header.iv() as u32));
        assert_eq!(text.len() % esp::ALIGNMENT, 0);
        let (sequence, mut text) = (header.iv(), text.to_vec());
        let expanded = Key::new(Provider::AesGcm, key.key()).unwrap();
        let authentic = open_one(Packet {
            key: &expanded,
            salt: key.salt(),
            iv: header.iv(),
            sequence,
            spi: spi.value(),
            esn: self.guard.esn,
            text: &mut text,
        });
        assert!(authentic, "number {sequence}");
        text.truncate(text.len() - esp::ICV);
        let trailer = esp::trailer(&text).unwrap();
        text.truncate(trailer.payload);
        if self.guard.mode == SaMode::Transport {
            assert_eq!(trailer.next_header, ipv4::GRE);
            return (sequence, text);
        }
        let (from, to, gre) = if self.guard.over_v6 {
            assert_eq!(trailer.next_header, esp::IPV6);
            let (header, payload) = ipv6::parse(&text).unwrap();
            assert_eq!((header.next_header, ipv6::LEN + payload.len()), (ipv6::GRE, text.len()));
            (IpAddr::from(header.source()), IpAddr::from(header.destination()), payload)
        } else {
            assert_eq!(trailer.next_header, esp::IPV4);
            ipv4::verify(&text).unwrap();
            let (header, payload) = ipv4::parse(&text).unwrap();
            assert_eq!((header.protocol, usize::from(header.total_length())), (ipv4::GRE, text.len()));
            (IpAddr::from(header.source()), IpAddr::from(header.destination()), payload)
        };
        assert_eq!((from, to), (self.guard.nbma(1).0, self.guard.nbma(self.spoke).0));
        (sequence, gre.to_vec())
    }
}

/// Addresses and ESP of an outer packet, in UDP to a port or not.
pub fn open_outer(outer: &[u8], port: u16) -> (IpAddr, IpAddr, Vec<u8>) {
    let protocol = if port == 0 { ipv4::ESP } else { ipv4::UDP };
    let (from, to, payload): (IpAddr, IpAddr, _) = if outer[0] >> 4 == 6 {
        let (header, payload) = ipv6::parse(outer).unwrap();
        assert_eq!((header.next_header, ipv6::LEN + payload.len()), (protocol, outer.len()));
        if port != 0 {
            // RFC 8200 §8.1: no zero checksum.
            assert_ne!(udp::parse(payload).unwrap().0.checksum(), 0);
            udp::verify_v6(header, payload).unwrap();
        }
        (header.source().into(), header.destination().into(), payload)
    } else {
        ipv4::verify(outer).unwrap();
        let (header, payload) = ipv4::parse(outer).unwrap();
        assert_eq!((header.protocol, usize::from(header.total_length())), (protocol, outer.len()));
        (header.source().into(), header.destination().into(), payload)
    };
    if port == 0 {
        return (from, to, payload.to_vec());
    }
    let (header, esp) = udp::parse(payload).unwrap();
    assert_eq!((header.source_port(), header.destination_port()), (udp::IKE_NAT, port));
    assert_eq!(usize::from(header.length()), payload.len());
    if outer[0] >> 4 == 4 {
        // RFC 3948 §2.1.
        assert_eq!(header.checksum(), 0);
    }
    (from, to, esp.to_vec())
}

/// A GRE header and what is behind it.
pub fn gre_bytes(key: Option<u32>, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; gre::len(key)];
    gre::write(&mut header, protocol, key).unwrap();
    [&header, payload].concat()
}

/// Whether a frame may leave by the underlay port of a node all of whose tunnels are protected: nothing of an overlay is in it.
pub fn is_covered(frame: &[u8]) -> bool {
    let Ok((link, mut packet)) = ethernet::parse(frame) else { return false };
    let mut ethertype = link.ethertype();
    if ethertype == ethernet::VLAN {
        let Ok((tag, rest)) = ethernet::parse_tag(packet) else { return false };
        (ethertype, packet) = (tag.ethertype(), rest);
    }
    let (protocol, payload) = match ethertype {
        ethernet::ARP => return true,
        ethernet::IPV4 => {
            let Ok((header, payload)) = ipv4::parse(packet) else { return false };
            if header.fragment_offset() != 0 {
                return matches!(header.protocol, ipv4::ESP | ipv4::UDP | ipv4::ICMP);
            }
            (header.protocol, payload)
        }
        ethernet::IPV6 => {
            let Ok(upper) = ipv6::upper(packet) else { return false };
            if upper.is_later_fragment() {
                return matches!(upper.protocol, ipv6::ESP | ipv6::UDP | ipv6::ICMPV6);
            }
            (upper.protocol, &packet[upper.offset..])
        }
        _ => return false,
    };
    match protocol {
        ipv4::ESP | ipv4::ICMP | ipv6::ICMPV6 => true,
        ipv4::UDP => payload.first_chunk::<4>().is_some_and(|ports| {
            let ports = [u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]])];
            ports.contains(&udp::IKE_NAT) || ports.contains(&udp::IKE)
        }),
        _ => false,
    }
}

/// The next hop of a spoke.
pub fn protocol_addr(spoke: u8) -> ProtocolAddr {
    ProtocolAddr(format!("10.0.0.{spoke}").parse().unwrap())
}

/// A node with several workers, each with ports of its own.
pub struct Team {
    pub program: Program,
    pub workers: Vec<Worker<TestBuf>>,
    pub ports: Vec<TestPorts>,
    pub now: Instant,
    batches: u64,
}

impl Team {
    pub fn new(workers: usize) -> Self {
        let list = (0..2).map(|port| Port { name: format!("p{port}"), mac: port_mac(1, port), mtu: 1500 });
        let mut program = Program::new(list.collect()).unwrap();
        let all = (0..workers).map(|_| program.worker().unwrap()).collect();
        let ports = (0..workers).map(|_| TestPorts::new(2)).collect();
        Self { program, workers: all, ports, now: Instant::default() + Duration::from_secs(1000), batches: 0 }
    }

    pub fn put(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.batches += 1;
        let ops = objects.into_iter().map(|object| Op::Put(Owner::Config, object)).collect();
        self.program.apply(self.now, &Batch { number: self.batches, ops }).unwrap();
    }

    pub fn remove(&mut self, object: &Object) {
        self.batches += 1;
        let ops = vec![Op::Remove(Owner::Config, object.key())];
        self.program.apply(self.now, &Batch { number: self.batches, ops }).unwrap();
    }

    /// What may be refused.
    pub fn try_ops(&mut self, ops: Vec<Op>) {
        self.batches += 1;
        let _ = self.program.apply(self.now, &Batch { number: self.batches, ops });
        self.program.pump();
    }

    /// All drops, by reason.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.into_iter().map(|reason| (reason, self.program.dropped(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// One worker's breath; the law holds.
    pub fn breathe(&mut self, at: usize) -> Breath {
        self.now = self.now + Duration::from_micros(1);
        let breath = breathe(&mut self.workers[at], self.now, &mut self.ports[at]);
        assert_eq!(breath.came, breath.gone, "{breath:?}");
        breath
    }

    /// All breathe in turn, and what they hand off arrives, until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            let mut idle = true;
            for at in 0..self.workers.len() {
                idle &= self.breathe(at).is_idle();
                for (to, packet) in std::mem::take(&mut self.ports[at].handed_off) {
                    self.ports[to].handed_in.push_back(packet);
                }
            }
            if idle && self.ports.iter().all(|ports| ports.handed_in.is_empty()) {
                break;
            }
        }
        assert!(self.workers.iter().all(|worker| worker.counters().flow().balances()));
    }
}
