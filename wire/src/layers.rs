//! The way into a captured frame, for who wants to read it and not forward it: link, IP, GRE, and what is inside.
//!
//! ```text
//! frame → link ┬→ (VLAN tags) → IP ┬→ GRE ┬→ NHRP
//!              │                   │      ├→ IP, and so on
//!              │                   │      └→ something else
//!              │                   ├→ IP in IP, and so on
//!              │                   ├→ ICMP error → the IP packet that it quotes, and so on
//!              │                   ├→ ESP: protected, the way goes on when it is decrypted, by [`Frame::whole`]
//!              │                   ├→ IKE: its message, the way ends
//!              │                   ├→ a piece of a packet: the way goes on when it is whole, by [`Frame::whole`]
//!              │                   └→ something else
//!              └→ NHRP, IP: of a capture on a tunnel interface, where the kernel has taken GRE off
//! ```
//!
//! It is lenient: a length that says more than there is (a capture that keeps the beginning of each frame, a quoted packet) ends where
//! the bytes end, and checksums stop nobody.

use std::net::{IpAddr, Ipv4Addr};

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, esp, ethernet, gre, icmp, icmpv6, ipv4, ipv6, nhrp, udp, view};

/// What a frame begins with: the link type of a capture file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Ethernet.
    Ethernet,
    /// Linux cooked, version 1: any interface of Linux, with 16 bytes in front.
    Cooked,
    /// Linux cooked, version 2: with 20 bytes in front.
    CookedV2,
    /// IPv4 or IPv6, without anything in front.
    Ip,
}

impl Link {
    /// That of a number of the registry of link types (<https://www.tcpdump.org/linktypes.html>).
    #[must_use]
    pub const fn of_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Ethernet,
            113 => Self::Cooked,
            276 => Self::CookedV2,
            // RAW, as it is in files and as some systems have it; IPV4; IPV6.
            101 | 12 | 14 | 228 | 229 => Self::Ip,
            _ => return None,
        })
    }
}

/// `ARPHRD_IPGRE`, `ARPHRD_IP6GRE` of Linux: the frame's protocol is one of GRE.
const IPGRE: u16 = 778;
const IP6GRE: u16 = 823;

/// The header of Linux cooked frames, version 1 (LINKTYPE_LINUX_SLL).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CookedHeader {
    packet_type: U16,
    hardware: U16,
    address_len: U16,
    address: [u8; 8],
    protocol: U16,
}

/// The same, version 2 (LINKTYPE_LINUX_SLL2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CookedV2Header {
    protocol: U16,
    reserved: U16,
    interface: U32,
    hardware: U16,
    packet_type: u8,
    address_len: u8,
    address: [u8; 8],
}

/// One header on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet.
    Ethernet(ethernet::Header),
    /// A VLAN tag.
    Vlan(ethernet::Tag),
    /// Linux cooked. Frames of a tunnel interface have the NBMA address of who sent them, if that is an IPv4 one.
    Cooked {
        /// Whether this node sent it.
        sent: bool,
        /// Where it came from, of a tunnel interface.
        nbma: Option<Ipv4Addr>,
    },
    /// IPv4 or IPv6.
    Ip {
        /// Sender.
        source: IpAddr,
        /// Receiver.
        destination: IpAddr,
    },
    /// GRE.
    Gre {
        /// What its header says.
        fields: gre::Fields,
        /// Whether its checksum is right, if it has one.
        checksum: Option<bool>,
    },
    /// UDP in front of ESP or IKE.
    Udp {
        /// Port of the sender.
        source: u16,
        /// Port of the receiver.
        destination: u16,
    },
    /// ESP, which somebody who has the key took off.
    Esp {
        /// Which SA.
        spi: u32,
        /// Sequence number: with ESN all of it.
        sequence: u64,
        /// Whether it is an extended one (RFC 4303 §2.2.1).
        esn: bool,
        /// What the text is: a protocol number of IP.
        next_header: u8,
    },
    /// ICMP or ICMPv6 that tells of an error: what follows is the packet in error, or its beginning.
    IcmpError,
}

/// A piece of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What the whole packet carries.
    pub protocol: u8,
    /// What the pieces of one packet have in common.
    pub id: u32,
    /// Where the bytes belong.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Where the way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside<'a> {
    /// An NHRP packet, and what follows it.
    Nhrp(&'a [u8]),
    /// ESP, protected.
    Esp {
        /// Which SA.
        spi: u32,
        /// Its packet, from the SPI on.
        bytes: &'a [u8],
    },
    /// IKE: its message, without the marker in front of it.
    Ike(&'a [u8]),
    /// An upper protocol of IP.
    Upper {
        /// Its number.
        protocol: u8,
        /// Its packet.
        bytes: &'a [u8],
    },
    /// What GRE, or a link, carries that is not looked into: its Ethertype, or length.
    Ethertype(u16),
    /// A piece of a packet.
    Piece(Piece<'a>),
    /// A header is not what its place demands.
    Malformed(Malformed),
}

/// The way into a frame, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Headers, from the outermost.
    pub layers: Vec<Layer>,
    /// What they lead to.
    pub inside: Inside<'a>,
}

/// What comes next on the way.
enum Next<'a> {
    Ethernet(&'a [u8]),
    Cooked(&'a [u8]),
    CookedV2(&'a [u8]),
    /// What a link or GRE carries, by its Ethertype.
    Typed(u16, &'a [u8]),
    Ip(&'a [u8]),
    Upper(u8, &'a [u8]),
    End(Inside<'a>),
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    #[must_use]
    pub fn read(link: Link, bytes: &'a [u8]) -> Self {
        Self::follow(
            Vec::new(),
            match link {
                Link::Ethernet => Next::Ethernet(bytes),
                Link::Cooked => Next::Cooked(bytes),
                Link::CookedV2 => Next::CookedV2(bytes),
                Link::Ip => Next::Ip(bytes),
            },
        )
    }

    /// Goes on where [`Inside::Piece`] ended, with the payload of the whole packet, or [`Inside::Esp`], with the decrypted one.
    #[must_use]
    pub fn whole(layers: Vec<Layer>, protocol: u8, payload: &'a [u8]) -> Self {
        Self::follow(layers, Next::Upper(protocol, payload))
    }

    /// Each step takes bytes away, so that the way ends.
    fn follow(mut layers: Vec<Layer>, mut next: Next<'a>) -> Self {
        loop {
            let step = match next {
                Next::End(inside) => return Self { layers, inside },
                Next::Ethernet(bytes) => ethernet(&mut layers, bytes),
                Next::Cooked(bytes) => cooked(&mut layers, bytes),
                Next::CookedV2(bytes) => cooked_v2(&mut layers, bytes),
                Next::Typed(ethertype, bytes) => typed(&mut layers, ethertype, bytes),
                Next::Ip(bytes) => ip(&mut layers, bytes),
                Next::Upper(protocol, bytes) => upper(&mut layers, protocol, bytes),
            };
            next = step.unwrap_or_else(|malformed| Next::End(Inside::Malformed(malformed)));
        }
    }
}

fn ethernet<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, payload) = ethernet::parse(bytes)?;
    layers.push(Layer::Ethernet(*header));
    Ok(Next::Typed(header.ethertype(), payload))
}

fn cooked<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, payload) = view::split::<CookedHeader>(bytes, "linux cooked header")?;
    let address = (header.address_len.get() == 4).then_some(header.address);
    layers.push(cooked_layer(header.packet_type.get(), header.hardware.get(), address));
    Ok(Next::Typed(header.protocol.get(), payload))
}

fn cooked_v2<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, payload) = view::split::<CookedV2Header>(bytes, "linux cooked header")?;
    let address = (header.address_len == 4).then_some(header.address);
    layers.push(cooked_layer(header.packet_type.into(), header.hardware.get(), address));
    Ok(Next::Typed(header.protocol.get(), payload))
}

fn cooked_layer(packet_type: u16, hardware: u16, address: Option<[u8; 8]>) -> Layer {
    const SENT: u16 = 4;
    let tunnel = matches!(hardware, IPGRE | IP6GRE);
    let nbma = address.filter(|_| tunnel).map(|[a, b, c, d, ..]| Ipv4Addr::new(a, b, c, d));
    Layer::Cooked { sent: packet_type == SENT, nbma }
}

fn typed<'a>(layers: &mut Vec<Layer>, ethertype: u16, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    Ok(match ethertype {
        ethernet::VLAN | ethernet::PROVIDER_VLAN => {
            let (tag, payload) = ethernet::parse_tag(bytes)?;
            layers.push(Layer::Vlan(*tag));
            Next::Typed(tag.ethertype(), payload)
        }
        ethernet::IPV4 | ethernet::IPV6 => Next::Ip(bytes),
        nhrp::GRE_PROTOCOL => Next::End(Inside::Nhrp(bytes)),
        _ => Next::End(Inside::Ethertype(ethertype)),
    })
}

fn ip<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    match bytes.first().map_or(0, |byte| byte >> 4) {
        6 => ip_v6(layers, bytes),
        _ => ip_v4(layers, bytes),
    }
}

fn ip_v4<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, _) = view::split::<ipv4::Header>(bytes, "ipv4 header")?;
    let version = bytes[0] >> 4;
    if version != 4 {
        return Err(Malformed::Value { field: "ip version", found: version.into() });
    }
    let start = header.header_len();
    if start < ipv4::LEN {
        return Err(Malformed::Value { field: "ipv4 header length", found: start as u64 });
    }
    // Zero: a packet that the sender's interface has yet to cut into segments.
    let end = match usize::from(header.total_length()) {
        0 => bytes.len(),
        len => len.min(bytes.len()),
    };
    let payload = bytes.get(start..end).ok_or(Malformed::Truncated {
        field: "ipv4 options",
        needed: start,
        have: end,
    })?;
    let (source, destination) = (header.source().into(), header.destination().into());
    layers.push(Layer::Ip { source, destination });
    if !header.is_fragment() {
        return Ok(Next::Upper(header.protocol, payload));
    }
    Ok(Next::End(Inside::Piece(Piece {
        source,
        destination,
        protocol: header.protocol,
        id: header.id().into(),
        offset: header.fragment_offset().into(),
        more: header.more_fragments(),
        bytes: payload,
    })))
}

fn ip_v6<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, rest) = view::split::<ipv6::Header>(bytes, "ipv6 header")?;
    let packet = &bytes[..ipv6::LEN + usize::from(header.payload_length()).min(rest.len())];
    let found = ipv6::upper(packet)?;
    let (source, destination) = (header.source().into(), header.destination().into());
    layers.push(Layer::Ip { source, destination });
    Ok(match found.part {
        Some(part) if part.more || part.offset != 0 => Next::End(Inside::Piece(Piece {
            source,
            destination,
            protocol: part.next_header,
            id: part.id,
            offset: part.offset.into(),
            more: part.more,
            bytes: packet.get(part.at + ipv6::Fragment::LEN..).unwrap_or(&[]),
        })),
        _ => Next::Upper(found.protocol, packet.get(found.offset..).unwrap_or(&[])),
    })
}

fn upper<'a>(layers: &mut Vec<Layer>, protocol: u8, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    /// IP in IP (RFC 2003, RFC 2473).
    const IPV4_IN_IP: u8 = 4;
    const IPV6_IN_IP: u8 = 41;
    Ok(match protocol {
        ipv4::GRE => {
            let (fields, checksum, payload) = gre::read(bytes)?;
            layers.push(Layer::Gre { fields, checksum });
            match fields.protocol {
                // A tag would be one of a bridged frame, and that has addresses in front.
                ethernet::VLAN | ethernet::PROVIDER_VLAN => Next::End(Inside::Ethertype(fields.protocol)),
                protocol => Next::Typed(protocol, payload),
            }
        }
        ipv4::NARP => Next::End(Inside::Nhrp(bytes)),
        ipv4::ESP => Next::End(protected(bytes)?),
        ipv4::UDP => udp_ports(layers, bytes)?,
        IPV4_IN_IP | IPV6_IN_IP => Next::Ip(bytes),
        ipv4::ICMP => match view::split::<icmp::Header>(bytes, "icmp header")? {
            (header, quoted) if header.is_error() => {
                layers.push(Layer::IcmpError);
                Next::Ip(quoted)
            }
            _ => Next::End(Inside::Upper { protocol, bytes }),
        },
        ipv6::ICMPV6 => match view::split::<icmpv6::Header>(bytes, "icmpv6 header")? {
            (header, quoted) if header.is_error() => {
                layers.push(Layer::IcmpError);
                Next::Ip(quoted)
            }
            _ => Next::End(Inside::Upper { protocol, bytes }),
        },
        _ => Next::End(Inside::Upper { protocol, bytes }),
    })
}

/// IKE, and ESP in UDP (RFC 3948 §2): four zeros stand in front of IKE on the port that both use.
fn udp_ports<'a>(layers: &mut Vec<Layer>, bytes: &'a [u8]) -> Result<Next<'a>, Malformed> {
    let (header, rest) = view::split::<udp::Header>(bytes, "udp header")?;
    let (source, destination) = (header.source_port(), header.destination_port());
    let has = |port| source == port || destination == port;
    let end = usize::from(header.length()).checked_sub(udp::LEN);
    let payload = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    let inside = match esp::in_udp(payload) {
        _ if has(udp::IKE) => Inside::Ike(payload),
        esp::InUdp::Ike(message) if has(udp::IKE_NAT) => Inside::Ike(message),
        esp::InUdp::Esp(packet) if has(udp::IKE_NAT) => protected(packet)?,
        _ => return Ok(Next::End(Inside::Upper { protocol: ipv4::UDP, bytes })),
    };
    layers.push(Layer::Udp { source, destination });
    Ok(Next::End(inside))
}

fn protected(bytes: &[u8]) -> Result<Inside<'_>, Malformed> {
    let (spi, _) = view::split::<U32>(bytes, "esp header")?;
    Ok(Inside::Esp { spi: spi.get(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn over_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = ipv4::Header::new(FROM, TO, protocol, 64, payload.len()).unwrap();
        [header.as_bytes(), payload].concat()
    }

    fn over_v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (from, to) = (FROM.to_ipv6_mapped(), TO.to_ipv6_mapped());
        [ipv6::Header::new(from, to, protocol, 64, payload.len()).unwrap().as_bytes(), payload].concat()
    }

    fn in_gre(protocol: u16, payload: &[u8]) -> Vec<u8> {
        [gre::Keyed::new(protocol, 42).as_bytes(), payload].concat()
    }

    fn framed(ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [ethernet::Header::new([2; 6], [4; 6], ethertype).as_bytes(), payload].concat()
    }

    /// Names of the layers, and what is inside.
    fn way(link: Link, bytes: &[u8]) -> (String, Inside<'_>) {
        let frame = Frame::read(link, bytes);
        let names = frame.layers.iter().map(|layer| match layer {
            Layer::Ethernet(_) => "ethernet",
            Layer::Vlan(_) => "vlan",
            Layer::Cooked { .. } => "cooked",
            Layer::Ip { source: IpAddr::V4(_), .. } => "ipv4",
            Layer::Ip { .. } => "ipv6",
            Layer::Gre { .. } => "gre",
            Layer::Udp { .. } => "udp",
            Layer::Esp { .. } => "esp",
            Layer::IcmpError => "icmp-error",
        });
        (names.collect::<Vec<_>>().join(" "), frame.inside)
    }

    #[test]
    fn nhrp_is_found_on_every_link_and_both_families() {
        let nhrp = b"an nhrp packet";
        let gre = in_gre(gre::NHRP, nhrp);
        let (v4, v6) = (over_v4(ipv4::GRE, &gre), over_v6(ipv6::GRE, &gre));
        let expect = |link, bytes: &[u8], names: &str| {
            assert_eq!(way(link, bytes), (names.to_owned(), Inside::Nhrp(nhrp)));
        };
        expect(Link::Ip, &v4, "ipv4 gre");
        expect(Link::Ip, &v6, "ipv6 gre");
        // What pads a frame is not of the packet.
        expect(Link::Ethernet, &framed(ethernet::IPV4, &[&v4[..], &[0; 9]].concat()), "ethernet ipv4 gre");
        let tagged = [ethernet::Tag::new(0, 7, ethernet::IPV6).as_bytes(), &v6].concat();
        expect(Link::Ethernet, &framed(ethernet::VLAN, &tagged), "ethernet vlan ipv6 gre");
        let twice = [ethernet::Tag::new(0, 9, ethernet::VLAN).as_bytes(), &tagged].concat();
        expect(Link::Ethernet, &framed(ethernet::PROVIDER_VLAN, &twice), "ethernet vlan vlan ipv6 gre");
        let cooked = [&[0, 4, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0], &v4[..]].concat();
        expect(Link::Cooked, &cooked, "cooked ipv4 gre");
        let cooked = [&[0x86, 0xdd, 0, 0, 0, 0, 0, 3, 0, 1, 4, 6, 2, 2, 2, 2, 2, 2, 0, 0], &v6[..]].concat();
        expect(Link::CookedV2, &cooked, "cooked ipv6 gre");
        // On a tunnel interface GRE has been taken off.
        let tunnel = [&[0, 0, 3, 10, 0, 4, 10, 0, 0, 11, 0, 0, 0, 0, 0x20, 1], &nhrp[..]].concat();
        expect(Link::Cooked, &tunnel, "cooked");
        let nbma = Some(Ipv4Addr::new(10, 0, 0, 11));
        assert_eq!(Frame::read(Link::Cooked, &tunnel).layers, [Layer::Cooked { sent: false, nbma }]);
        let tunnel =
            [&[0x20, 1, 0, 0, 0, 0, 0, 3, 3, 10, 4, 4, 10, 0, 0, 11, 0, 0, 0, 0], &nhrp[..]].concat();
        expect(Link::CookedV2, &tunnel, "cooked");
        assert_eq!(Frame::read(Link::CookedV2, &tunnel).layers, [Layer::Cooked { sent: true, nbma }]);
        // NHRP may be carried by IP itself, and IP by IP.
        expect(Link::Ip, &over_v4(ipv4::NARP, nhrp), "ipv4");
        expect(Link::Ip, &over_v6(41, &over_v4(4, &v4)), "ipv6 ipv4 ipv4 gre");
        expect(Link::Ip, &over_v4(ipv4::GRE, &in_gre(gre::IPV6, &v6)), "ipv4 gre ipv6 gre");
    }

    #[test]
    fn link_types_have_their_numbers() {
        assert_eq!(
            [1, 113, 276, 101].map(Link::of_number),
            [Some(Link::Ethernet), Some(Link::Cooked), Some(Link::CookedV2), Some(Link::Ip)]
        );
        assert_eq!(Link::of_number(147), None);
    }

    #[test]
    fn a_gre_header_is_told_with_its_options_and_a_wrong_checksum_stops_nobody() {
        let mut gre = [0xb0, 0, 0x20, 0x01, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 0, 5].to_vec();
        let sum = checksum::checksum(&gre);
        gre[4..6].copy_from_slice(&sum.to_be_bytes());
        let fields = gre::Fields { protocol: gre::NHRP, key: Some(7), sequence: Some(256), len: 16 };
        for right in [true, false] {
            let packet = over_v4(ipv4::GRE, &gre);
            let frame = Frame::read(Link::Ip, &packet);
            assert_eq!(frame.layers[1], Layer::Gre { fields, checksum: Some(right) });
            assert!(matches!(frame.inside, Inside::Nhrp(&[5 | 4])));
            gre[16] ^= 1;
        }
        let refused = over_v4(ipv4::GRE, &[0x30, 0x81, 0x88, 0x0b, 0, 0, 0, 0]);
        let malformed = Malformed::Value { field: "gre flags", found: 0x3081 };
        assert_eq!(way(Link::Ip, &refused), ("ipv4".to_owned(), Inside::Malformed(malformed)));
    }

    #[test]
    fn what_is_protected_is_named() {
        let udp = |port, payload: &[u8]| {
            [udp::Header::new(1024, port, payload.len()).unwrap().as_bytes(), payload].concat()
        };
        let inside = |protocol, bytes: &[u8]| {
            let packet = over_v4(protocol, bytes);
            let (names, inside) = way(Link::Ip, &packet);
            (
                names,
                match inside {
                    Inside::Upper { protocol, .. } => Inside::Upper { protocol, bytes: &[] },
                    Inside::Esp { spi, .. } => Inside::Esp { spi, bytes: &[] },
                    Inside::Ike(message) => Inside::Ike(if message == [5] { &[5] } else { &[] }),
                    other => panic!("{other:?}"),
                },
            )
        };
        let esp = Inside::Esp { spi: 0x0102_0304, bytes: &[] };
        assert_eq!(inside(ipv4::ESP, &[1, 2, 3, 4, 0]), ("ipv4".to_owned(), esp));
        assert_eq!(inside(ipv4::UDP, &udp(4500, &[1, 2, 3, 4, 5])), ("ipv4 udp".to_owned(), esp));
        assert_eq!(inside(ipv4::UDP, &udp(4500, &[0, 0, 0, 0, 5])).1, Inside::Ike(&[5]));
        assert_eq!(inside(ipv4::UDP, &udp(500, &[9])).1, Inside::Ike(&[]));
        // A NAT keep-alive, and what has nothing to do with it.
        let other = Inside::Upper { protocol: ipv4::UDP, bytes: &[] };
        assert_eq!(inside(ipv4::UDP, &udp(4500, &[0xff])).1, other);
        assert_eq!(inside(ipv4::UDP, &udp(53, &[1, 2, 3, 4])).1, other);
        // In UDP it ends where the datagram does.
        let packet = over_v4(ipv4::UDP, &[&udp(4500, &[1, 2, 3, 4, 5])[..], &[0; 3]].concat());
        let bytes = &[1, 2, 3, 4, 5];
        assert_eq!(way(Link::Ip, &packet).1, Inside::Esp { spi: 0x0102_0304, bytes });
    }

    #[test]
    fn the_way_goes_on_behind_esp_when_it_is_decrypted() {
        let packet = over_v6(ipv6::ESP, &[1, 2, 3, 4, 5]);
        let mut frame = Frame::read(Link::Ip, &packet);
        let Inside::Esp { spi, bytes: &[1, 2, 3, 4, 5] } = frame.inside else { panic!("{frame:?}") };
        frame.layers.push(Layer::Esp { spi, sequence: 1 << 32, esn: true, next_header: ipv4::GRE });
        let text = in_gre(gre::NHRP, b"an nhrp packet");
        let frame = Frame::whole(frame.layers, ipv4::GRE, &text);
        assert_eq!((frame.layers.len(), frame.inside), (3, Inside::Nhrp(b"an nhrp packet")));
    }

    #[test]
    fn a_quoted_packet_is_read_as_far_as_it_is_quoted() {
        let packet = over_v4(ipv4::GRE, &in_gre(gre::NHRP, &[7; 100]));
        let told = [icmp::Header::unreachable(2).as_bytes(), &packet[..40]].concat();
        let told = over_v4(ipv4::ICMP, &told);
        assert_eq!(way(Link::Ip, &told), ("ipv4 icmp-error ipv4 gre".to_owned(), Inside::Nhrp(&[7; 12])));
        let packet = over_v6(ipv6::GRE, &in_gre(gre::NHRP, &[7; 100]));
        let told = [icmpv6::Header::time_exceeded().as_bytes(), &packet[..60]].concat();
        let told = over_v6(ipv6::ICMPV6, &told);
        assert_eq!(way(Link::Ip, &told), ("ipv6 icmp-error ipv6 gre".to_owned(), Inside::Nhrp(&[7; 12])));
        let ping = over_v4(ipv4::ICMP, icmp::Header::echo(1, 2).as_bytes());
        assert!(matches!(way(Link::Ip, &ping).1, Inside::Upper { protocol: ipv4::ICMP, .. }));
    }

    #[test]
    fn pieces_are_told_and_the_way_goes_on_when_they_are_whole() {
        let gre = in_gre(gre::NHRP, &[7; 24]);
        let first = ipv4::Header::new(FROM, TO, ipv4::GRE, 64, 16).unwrap();
        let first = first.with_id(9).with_flags(ipv4::MORE_FRAGMENTS);
        let bytes = [first.as_bytes(), &gre[..16]].concat();
        let frame = Frame::read(Link::Ip, &bytes);
        let Inside::Piece(piece) = frame.inside else { panic!("{frame:?}") };
        let expected = (ipv4::GRE, 9, 0, true, &gre[..16]);
        assert_eq!((piece.protocol, piece.id, piece.offset, piece.more, piece.bytes), expected);
        let whole = Frame::whole(frame.layers, piece.protocol, &gre);
        assert_eq!((whole.layers.len(), whole.inside), (2, Inside::Nhrp(&[7; 24])));

        let second = ipv6::Fragment::new(ipv6::GRE, 16, false, 9);
        let bytes = over_v6(ipv6::FRAGMENT, &[second.as_bytes(), &gre[16..]].concat());
        let Inside::Piece(piece) = way(Link::Ip, &bytes).1 else { panic!() };
        let expected = (ipv6::GRE, 9, 16, false, &gre[16..]);
        assert_eq!((piece.protocol, piece.id, piece.offset, piece.more, piece.bytes), expected);
        // One that is a fragment by itself is whole (RFC 6946).
        let alone = ipv6::Fragment::new(ipv6::GRE, 0, false, 9);
        let bytes = over_v6(ipv6::FRAGMENT, &[alone.as_bytes(), &gre].concat());
        assert_eq!(way(Link::Ip, &bytes), ("ipv6 gre".to_owned(), Inside::Nhrp(&[7; 24])));
    }

    #[test]
    fn what_ends_too_early_says_where() {
        let malformed = |link, bytes: &[u8]| match way(link, bytes).1 {
            Inside::Malformed(malformed) => malformed.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(malformed(Link::Ethernet, &[0; 13]), "ethernet header: needs 14 bytes, 13 are there");
        assert_eq!(malformed(Link::Cooked, &[0; 15]), "linux cooked header: needs 16 bytes, 15 are there");
        assert_eq!(malformed(Link::Ip, &[]), "ipv4 header: needs 20 bytes, 0 are there");
        assert_eq!(malformed(Link::Ip, &[0x50; 20]), "ip version: 5 is not allowed");
        let packet = over_v4(ipv4::GRE, &in_gre(gre::NHRP, b"x"));
        assert_eq!(malformed(Link::Ip, &packet[..26]), "gre key: needs 4 bytes, 2 are there");
        assert_eq!(way(Link::Ethernet, &framed(ethernet::ARP, &[])).1, Inside::Ethertype(ethernet::ARP));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any bytes lead somewhere.
        #[test]
        fn any_bytes_have_an_end(
            link in prop::sample::select(vec![Link::Ethernet, Link::Cooked, Link::CookedV2, Link::Ip]),
            bytes in prop::collection::vec(prop::sample::select(vec![0_u8, 4, 6, 8, 41, 47, 0x45, 0x60, 0x81, 0xdd]), 0..120),
        ) {
            let frame = Frame::read(link, &bytes);
            prop_assert!(frame.layers.len() <= bytes.len() / 4);
        }
    }
}
