//! Path MTU of the underlay: what its routers say about the packets that we send to peers (RFC 1191, RFC 8201).
//!
//! It is a look at what `punt` hands to the twins of ports, which get it all the same: their kernels have sockets there.
//!
//! 1. "Fragmentation needed", or "packet too big", to one of our NBMA addresses, its checksum right.
//! 2. About a packet of ours (RFC 5927 §4): from that address, GRE with the key of one of its tunnels, to a peer that a binding or a
//!    replica of the tunnel names. Who does not see our packets must guess all that, and gains a smaller packet by it, no more: not below
//!    576 bytes; over IPv6, who says less than 1,280 is not heard (RFC 8201 §4).
//!    Of a protected tunnel ESP with the SPI of the SA to such a peer, as it is now (RFC 4301 §8.2.1); of ESP in UDP, whose SPI need not
//!    be quoted, ports and addresses of one. All tunnels that this SA protects are told of it.
//! 3. Larger than the packet at fault: nothing. Of a router that says 0 (RFC 1191 §5), the next plateau below the packet at fault.
//! 4. Once a second for each peer and a hundred times in all: a notice to the control plane, which programs what it believes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

use wire::buf::PacketBuf;
use wire::{gre, icmp, icmpv6, ipv4, ipv6, udp};

use crate::burst::{End, family};
use crate::graph::Node;
use crate::packet::{current, folded, number};
use crate::ports::{InterfaceId, Notice, Ports};
use crate::tables::{DecapKey, Role, Tables, TunnelInterface};
use crate::walk::Walk;

/// Least that a path over IPv4 is believed to take: what every host does (RFC 791 §3.2), and no link of today less.
const FLOOR_V4: u16 = 576;
/// Least that a path over IPv6 takes (RFC 8200 §5).
const FLOOR_V6: u16 = ipv6::MIN_MTU as u16;
/// The MTUs that links have (RFC 1191 §7, table 7-1), down to our floor.
const PLATEAUS: [u16; 8] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, FLOOR_V4];

pub(crate) fn look<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
    let frame = walk.frames.peek(Node::Punt);
    for at in frame.places() {
        let slot = usize::from(walk.frames.slot(frame, at));
        let meta = walk.meta[slot];
        let outer = meta.family & (family::OUTER4 | family::OUTER6) == 0;
        if meta.end != End::Host || !outer || tables.port(meta.interface).is_none() {
            continue;
        }
        let Some(told) = read(current(&meta, walk.bufs[slot].bytes())) else { continue };
        for tunnel in told.tunnels(tables, meta.table) {
            let key = folded(told.nbma) ^ u64::from(tunnel.0).rotate_right(16);
            if walk.path_mtus.pass(walk.now, key) {
                // A full queue loses the notice; the router repeats it while larger packets come.
                ports.notice(Notice::PathMtu { tunnel, nbma: told.nbma, mtu: told.mtu });
            }
        }
    }
}

/// What the packet at fault was, behind its IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// GRE, with this key.
    Gre(Option<u32>),
    /// ESP, with this SPI.
    Esp(u32),
    /// ESP in UDP, to this port.
    Udp(u16),
}

/// What a router of the underlay says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    /// Source and destination of the packet at fault: we, and the peer.
    local: IpAddr,
    nbma: IpAddr,
    fault: Fault,
    /// Largest packet that it takes, in bytes.
    mtu: u16,
}

impl Told {
    /// The tunnels whose packet to this peer the one at fault may have been, if it was one of ours.
    fn tunnels(self, tables: &Tables, table: u16) -> impl Iterator<Item = InterfaceId> {
        let clear = match self.fault {
            Fault::Gre(key) => self.clear(tables, table, key),
            Fault::Esp(_) | Fault::Udp(_) => None,
        };
        let all = if matches!(self.fault, Fault::Gre(_)) { &[][..] } else { &tables.interfaces.all };
        let ids = (0..).zip(all).filter(move |(_, interface)| {
            interface.as_ref().is_some_and(|interface| match &interface.role {
                Role::Tunnel(tunnel) => self.is_by(tables, table, tunnel),
                Role::Port(_) => false,
            })
        });
        let peer = move |id: &InterfaceId| tables.is_peer(*id, self.nbma);
        clear.into_iter().chain(ids.map(|(id, _)| InterfaceId(id))).filter(peer)
    }

    /// The tunnel whose packets go in the clear and have this key.
    fn clear(self, tables: &Tables, table: u16, key: Option<u32>) -> Option<InterfaceId> {
        let found = match (self.local, self.nbma) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => tables.decap.v4.tunnel(DecapKey {
                local: local.to_bits(),
                remote: remote.to_bits(),
                key,
                table,
            }),
            (IpAddr::V6(local), IpAddr::V6(remote)) => tables.decap.v6.tunnel(DecapKey {
                local: local.to_bits(),
                remote: remote.to_bits(),
                key,
                table,
            }),
            _ => None,
        };
        found.filter(|tunnel| tunnel.domain == 0).map(|tunnel| tunnel.interface)
    }

    /// Whether a packet to this peer by a protected tunnel is sealed by the SA of the one at fault, whichever worker has it.
    fn is_by(self, tables: &Tables, table: u16, tunnel: &TunnelInterface) -> bool {
        let (spi, port) = match self.fault {
            Fault::Gre(_) => return false,
            Fault::Esp(spi) => (Some(spi), 0),
            Fault::Udp(port) => (None, port),
        };
        if tunnel.domain == 0 || tunnel.source != self.local || tunnel.underlay != table {
            return false;
        }
        let slot = tables.protections.get(&(tunnel.domain, self.nbma, port));
        slot.is_some_and(|slot| {
            let spis = tables.lines.iter().filter_map(|lines| lines.outbound.get(slot as usize));
            let mut spis = spis.map(|line| line.spi.load(Relaxed));
            spis.any(|of| of != 0 && spi.is_none_or(|spi| spi == of))
        })
    }
}

/// What an IP packet says of the path of another.
fn read(packet: &[u8]) -> Option<Told> {
    match packet.first()? >> 4 {
        4 => read_v4(packet),
        6 => read_v6(packet),
        _ => None,
    }
}

fn read_v4(packet: &[u8]) -> Option<Told> {
    let (ip, message) = ipv4::parse(packet).ok()?;
    if ip.protocol != ipv4::ICMP || ip.is_fragment() {
        return None;
    }
    let (error, quoted) = icmp::parse(message).ok()?;
    if (error.kind, error.code) != (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) {
        return None;
    }
    // The quoted packet is cut short: 8 bytes behind its header are all that there must be (RFC 792).
    let header = quoted.first_chunk::<{ ipv4::LEN }>()?;
    let (len, whole) = (usize::from(header[0] & 0xf) * 4, u16::from_be_bytes([header[2], header[3]]));
    let offset = u16::from_be_bytes([header[6], header[7]]) & ipv4::OFFSET_MASK;
    if header[0] >> 4 != 4 || len < ipv4::LEN || offset != 0 {
        return None;
    }
    let addr = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
    let (local, nbma) = (addr(12)?, addr(16)?);
    let mtu = match error.mtu() {
        0 => PLATEAUS.into_iter().find(|plateau| *plateau < whole)?,
        mtu => mtu,
    };
    let mtu = mtu.max(FLOOR_V4);
    let fault = fault(header[9], quoted.get(len..)?)?;
    let told = Told { local: local.into(), nbma: nbma.into(), fault, mtu };
    (ip.destination() == local && mtu < whole).then_some(told)
}

fn read_v6(packet: &[u8]) -> Option<Told> {
    let (ip, _) = ipv6::parse(packet).ok()?;
    let upper = ipv6::upper(packet).ok()?;
    if upper.protocol != ipv6::ICMPV6 || upper.part.is_some() {
        return None;
    }
    let (error, quoted) = icmpv6::parse(ip, packet.get(upper.offset..)?).ok()?;
    if error.kind != icmpv6::PACKET_TOO_BIG {
        return None;
    }
    let header = quoted.first_chunk::<{ ipv6::LEN }>()?;
    let whole = ipv6::LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let at_fault = ipv6::upper(quoted).ok()?;
    if header[0] >> 4 != 6 || at_fault.is_later_fragment() {
        return None;
    }
    let (local, nbma) = (Ipv6Addr::from(number(header, 8)), Ipv6Addr::from(number(header, 24)));
    // Less than every link takes is no message (RFC 8201 §4).
    let mtu = u16::try_from(error.mtu()).ok().filter(|mtu| *mtu >= FLOOR_V6)?;
    let fault = fault(at_fault.protocol, quoted.get(at_fault.offset..)?)?;
    let told = Told { local: local.into(), nbma: nbma.into(), fault, mtu };
    (ip.destination() == local && usize::from(mtu) < whole).then_some(told)
}

/// What is behind the IP header of a packet that is cut short, if it is something that we send.
fn fault(protocol: u8, payload: &[u8]) -> Option<Fault> {
    let word = u32::from_be_bytes(*payload.first_chunk::<4>()?);
    match protocol {
        ipv4::GRE => key(payload).map(Fault::Gre),
        ipv4::ESP => Some(Fault::Esp(word)),
        // Our port is the source.
        ipv4::UDP if (word >> 16) as u16 == udp::IKE_NAT => Some(Fault::Udp(word as u16)),
        _ => None,
    }
}

/// The key of a GRE header as we write it, of a packet that is cut short.
#[allow(clippy::option_option)]
fn key(gre: &[u8]) -> Option<Option<u32>> {
    let [a, b, ..] = *gre.first_chunk::<4>()?;
    match u16::from_be_bytes([a, b]) {
        0 => Some(None),
        gre::KEY => Some(Some(u32::from_be_bytes(*gre.get(4..)?.first_chunk()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::IntoBytes;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
    const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn gre(key: Option<u32>, len: usize) -> Vec<u8> {
        let mut gre = vec![0; gre::len(key)];
        gre::write(&mut gre, gre::IPV4, key).unwrap();
        gre.resize(len, 0x45);
        gre
    }

    /// What a router says about a packet of ours of 20 + `len` bytes of which it quotes so many.
    fn told_v4(mtu: u16, len: usize, quotes: usize) -> Vec<u8> {
        let ours =
            ipv4::Header::new(LOCAL, PEER, ipv4::GRE, 60, len).unwrap().with_flags(ipv4::DONT_FRAGMENT);
        let ours = [ours.as_bytes(), &gre(Some(42), len)].concat();
        icmp::packet(ROUTER, LOCAL, 64, 0, icmp::Header::fragmentation_needed(mtu), &ours[..quotes]).unwrap()
    }

    fn told_v6(mtu: u32, len: usize, quotes: usize) -> Vec<u8> {
        let ours = ipv6::Header::new(LOCAL6, PEER6, ipv6::GRE, 60, len).unwrap();
        let ours = [ours.as_bytes(), &gre(None, len)].concat();
        icmpv6::packet(ROUTER6, LOCAL6, 64, 0, icmpv6::Header::packet_too_big(mtu), &ours[..quotes]).unwrap()
    }

    #[test]
    fn a_router_is_understood_from_the_least_that_it_may_quote() {
        let told = Told { local: LOCAL.into(), nbma: PEER.into(), fault: Fault::Gre(Some(42)), mtu: 1300 };
        for quotes in [28, 100, 548] {
            assert_eq!(read(&told_v4(1300, 1400, quotes)), Some(told), "{quotes}");
        }
        assert_eq!((read(&told_v4(1300, 1400, 27)), read(&told_v4(1300, 1400, 20))), (None, None));
        let told = Told { local: LOCAL6.into(), nbma: PEER6.into(), fault: Fault::Gre(None), mtu: 1300 };
        for quotes in [44, 100, 1232] {
            assert_eq!(read(&told_v6(1300, 1400, quotes)), Some(told), "{quotes}");
        }
        assert_eq!(read(&told_v6(1300, 1400, 43)), None);
    }

    #[test]
    fn less_than_the_floor_is_the_floor_and_more_than_the_packet_is_nothing() {
        let mtu = |packet: &[u8]| read(packet).map(|told| told.mtu);
        assert_eq!([mtu(&told_v4(68, 1400, 60)), mtu(&told_v4(576, 1400, 60))], [Some(576); 2]);
        assert_eq!([mtu(&told_v4(1420, 1400, 60)), mtu(&told_v4(1419, 1400, 60))], [None, Some(1419)]);
        assert_eq!(mtu(&told_v4(500, 500, 60)), None, "it is smaller than the floor");
        // RFC 1191 §7: an old router's 0 is the plateau below.
        let plateau = |len: usize| mtu(&told_v4(0, len - 20, 60));
        assert_eq!([plateau(1500), plateau(1492), plateau(1006)], [Some(1492), Some(1006), Some(576)]);
        assert_eq!([plateau(9000), plateau(65_535), plateau(576)], [Some(8166), Some(32_000), None]);
        // RFC 8201 §4: what says less than every link takes is no message.
        let told = [0, 1000, 1279, 1280].map(|says| mtu(&told_v6(says, 1400, 60)));
        assert_eq!(told, [None, None, None, Some(1280)]);
        assert_eq!([mtu(&told_v6(1440, 1400, 60)), mtu(&told_v6(1 << 20, 1400, 60))], [None; 2]);
        assert_eq!(mtu(&told_v6(1300, 1240, 60)), None);
    }

    #[test]
    fn what_is_damaged_or_about_something_else_is_nothing() {
        for packet in [told_v4(1300, 1400, 100), told_v6(1300, 1400, 100)] {
            let message = if packet[0] >> 4 == 4 { 20 } else { 40 };
            for at in message..packet.len() {
                let mut broken = packet.clone();
                broken[at] ^= 0x10;
                assert_eq!(read(&broken), None, "the checksum is wrong: {at}");
            }
            for len in 0..packet.len() {
                assert_eq!(read(&packet[..len]), None);
            }
        }
        let other = |about: &[u8], header| read(&icmp::packet(ROUTER, LOCAL, 64, 0, header, about).unwrap());
        let needed = icmp::Header::fragmentation_needed(1300);
        let about = |protocol, offset| {
            let ip = ipv4::Header::new(LOCAL, PEER, protocol, 60, 1400).unwrap().with_flags(offset);
            [ip.as_bytes(), &gre(Some(42), 20)].concat()
        };
        assert!(other(&about(ipv4::GRE, 0), needed).is_some());
        assert_eq!(other(&about(ipv4::UDP, 0), needed), None);
        assert_eq!(other(&about(ipv4::GRE, 1), needed), None);
        assert_eq!(other(&about(ipv4::GRE, 0), icmp::Header::unreachable(icmp::HOST_UNREACHABLE)), None);
        assert_eq!(other(&about(ipv4::GRE, 0), icmp::Header::time_exceeded()), None);
        // Somebody else's packet, told to us.
        let theirs = ipv4::Header::new(PEER, LOCAL, ipv4::GRE, 60, 1400).unwrap();
        assert_eq!(other(&[theirs.as_bytes(), &gre(Some(42), 20)].concat(), needed), None);
        // GRE as we do not write it.
        let mut sequence = about(ipv4::GRE, 0);
        sequence[20] |= 0x10;
        assert_eq!(other(&sequence, needed), None);
    }
}
