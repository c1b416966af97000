//! What a look at a packet of either family tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{checksum, ipv4, ipv6, tcp, udp};

use crate::DropReason;
use crate::adjacency::LINK_LEN;
use crate::burst::{Meta, family};
use crate::stage::count_hops;

/// What the first look at an IPv6 header tells.
pub(crate) struct Ip6 {
    pub(crate) destination: u128,
    /// Length of the packet in bytes, at most what is there.
    pub(crate) total: usize,
}

/// Checks an IPv6 header (RFC 8200 §3): version and length. A payload length of 0 is one, not a jumbogram (RFC 2675): no link here
/// carries those.
#[inline(always)]
pub(crate) fn check_ip6(bytes: &[u8]) -> Result<Ip6, DropReason> {
    let Some(header) = bytes.first_chunk::<{ ipv6::LEN }>() else { return Err(DropReason::BadHeader) };
    let total = ipv6::LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || total > bytes.len() {
        return Err(DropReason::BadHeader);
    }
    Ok(Ip6 { destination: number(header, 24), total })
}

/// The address at a place of an IPv6 header.
#[inline(always)]
pub(crate) fn number(header: &[u8; ipv6::LEN], at: usize) -> u128 {
    let octets = header.get(at..).and_then(<[u8]>::first_chunk::<16>);
    octets.map_or(0, |octets| u128::from_be_bytes(*octets))
}

/// Source and destination of an IP packet; `None` if it is none.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if packet.first()? >> 4 == 6 {
        let header = packet.first_chunk::<{ ipv6::LEN }>()?;
        let addr = |at| IpAddr::from(Ipv6Addr::from(number(header, at)));
        return Some((addr(8), addr(24)));
    }
    let [source, destination] = packet.get(12..20)?.as_chunks::<4>().0 else { return None };
    Some((Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into()))
}

/// The packet that the stages look at.
pub(crate) fn current<'a>(meta: &Meta, bytes: &'a [u8]) -> &'a [u8] {
    bytes.get(usize::from(meta.offset)..).unwrap_or_default()
}

/// Where a packet goes.
pub(crate) fn destination(meta: &Meta, bytes: &[u8]) -> IpAddr {
    if meta.family & family::V6 == 0 {
        return Ipv4Addr::from(meta.destination).into();
    }
    addresses(current(meta, bytes)).map_or(Ipv6Addr::UNSPECIFIED.into(), |(_, to)| to)
}

/// The source of the outer header that a packet came in; `None` if it came in none.
pub(crate) fn outer_source(meta: &Meta, bytes: &[u8]) -> Option<IpAddr> {
    if meta.family & (family::OUTER4 | family::OUTER6) == 0 {
        return None;
    }
    addresses(bytes.get(LINK_LEN..)?).map(|(from, _)| from)
}

/// The UDP port of the peer, 0 where ESP was not in UDP, and the SPI of the SA that a packet came by.
pub(crate) fn sealed_in(meta: &Meta, bytes: &[u8]) -> (u16, u32) {
    let read = || {
        let outer = bytes.get(LINK_LEN..)?;
        let behind = if meta.family & family::OUTER6 == 0 {
            usize::from(outer.first()? & 0xf) * 4
        } else {
            ipv6::upper(outer).ok()?.offset
        };
        let payload = outer.get(behind..)?;
        let (port, esp) = if meta.family & family::IN_UDP == 0 {
            (0, payload)
        } else {
            (u16::from_be_bytes(*payload.first_chunk()?), payload.get(udp::LEN..)?)
        };
        Some((port, u32::from_be_bytes(*esp.first_chunk()?)))
    };
    read().unwrap_or_default()
}

/// An address in 64 bits, for the tables of limits.
pub(crate) fn folded(addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            ((bits >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ bits as u64
        }
    }
}

/// A number that all packets of a flow have: of addresses, protocol and ports. Of a fragment without the ports, which only the
/// first has. (Mixed as in MurmurHash3's 64-bit finish, with a secret that is this node's own: nodes in a row do not decide alike.)
pub(crate) fn flow(packet: &[u8], secret: u64) -> u32 {
    let mix = |bits: u64, word: u64| {
        let bits = (bits ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits ^ bits >> 33
    };
    let word =
        |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |w| u64::from_be_bytes(*w));
    let (mut bits, protocol, ports) = if packet.first().is_some_and(|first| first >> 4 == 6) {
        let addresses = [8, 16, 24, 32].iter().fold(secret, |bits, at| mix(bits, word(*at)));
        match ipv6::upper(packet) {
            Ok(upper) => (addresses, upper.protocol, upper.part.is_none().then_some(upper.offset)),
            Err(_) => (addresses, 0, None),
        }
    } else {
        let Ok((header, _)) = ipv4::parse(packet) else { return 0 };
        (mix(secret, word(12)), header.protocol, (!header.is_fragment()).then(|| header.header_len()))
    };
    bits = mix(bits, protocol.into());
    if let (Some(at), ipv4::UDP | ipv6::TCP | SCTP | DCCP | UDP_LITE) = (ports, protocol) {
        bits = mix(bits, word(at) >> 32);
    }
    (mix(bits, 0xc4ce_b9fe_1a85_ec53) >> 32) as u32
}

/// Protocols with ports where TCP has them (RFC 9260, RFC 4340, RFC 3828).
const SCTP: u8 = 132;
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// Congestion marks: the two bits of RFC 3168 §5.
const ECT1: u8 = 1;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// DSCP and congestion mark of an IP packet.
#[inline(always)]
pub(crate) fn traffic_class(packet: &[u8]) -> u8 {
    match packet.first_chunk::<2>() {
        Some([first, second]) if first >> 4 == 6 => first << 4 | second >> 4,
        Some([_, second]) => *second,
        None => 0,
    }
}

/// What a congestion mark of the outer header does to the inner packet (RFC 6040 §4.2, figure 4).
///
/// | inner \ outer | not-ECT | ECT(0) | ECT(1) | CE |
/// | --- | --- | --- | --- | --- |
/// | not-ECT | not-ECT | not-ECT | not-ECT | drop |
/// | ECT(0) | ECT(0) | ECT(0) | ECT(1) | CE |
/// | ECT(1) | ECT(1) | ECT(1) | ECT(1) | CE |
/// | CE | CE | CE | CE | CE |
///
/// # Errors
/// [`DropReason::Congestion`] where it says drop.
#[cold]
pub(crate) fn merge_marks(outer: u8, inner: &mut [u8]) -> Result<(), DropReason> {
    let mark = match (traffic_class(inner) & 3, outer & 3) {
        (0, CE) => return Err(DropReason::Congestion),
        (ECT0 | ECT1, CE) => CE,
        (ECT0, ECT1) => ECT1,
        _ => return Ok(()),
    };
    set_mark(inner, mark);
    Ok(())
}

/// Lowers what a TCP SYN asks for to `most` bytes over IPv4, 20 less over IPv6, whose header is so much longer; 0 leaves it. Any other
/// packet stays as it is.
#[cold]
pub(crate) fn clamp_mss(packet: &mut [u8], most: u16) {
    const LONGER: u16 = (ipv6::LEN - ipv4::LEN) as u16;
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let at = if v6 {
        ipv6::upper(packet)
            .ok()
            .filter(|upper| upper.protocol == ipv6::TCP && !upper.is_later_fragment())
            .map(|upper| upper.offset)
    } else {
        let header = ipv4::parse(packet).map(|(header, _)| *header).ok();
        header
            .filter(|header| header.protocol == ipv4::TCP && header.fragment_offset() == 0)
            .map(|header| header.header_len())
    };
    if most != 0
        && let Some(segment) = at.and_then(|at| packet.get_mut(at..))
    {
        tcp::clamp_mss(segment, if v6 { most.saturating_sub(LONGER).max(1) } else { most });
    }
}

/// Takes the hops, 0 or 1, off the time to live or hop limit of a packet of either family.
///
/// # Errors
/// [`DropReason::TtlExpired`], and the packet as it was, if it ends here.
pub(crate) fn count_any_hops(packet: &mut [u8], hops: u8) -> Result<(), DropReason> {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        let limit = packet.get_mut(7).ok_or(DropReason::BadHeader)?;
        *limit = limit.checked_sub(hops).filter(|left| *left > 0).ok_or(DropReason::TtlExpired)?;
        return Ok(());
    }
    let header = packet.first_chunk_mut().ok_or(DropReason::BadHeader)?;
    if count_hops(header, hops) { Ok(()) } else { Err(DropReason::TtlExpired) }
}

fn set_mark(packet: &mut [u8], mark: u8) {
    if packet.first().is_some_and(|first| first >> 4 == 6) {
        if let Some(second) = packet.get_mut(1) {
            *second = *second & 0xcf | mark << 4;
        }
        return;
    }
    let Some(header) = packet.first_chunk_mut::<{ ipv4::LEN }>() else { return };
    let old = u16::from_be_bytes([header[0], header[1]]);
    header[1] = header[1] & 0xfc | mark;
    let new = u16::from_be_bytes([header[0], header[1]]);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    header[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::IntoBytes;

    fn v4(tos: u8, flags: u16, ports: [u8; 4]) -> Vec<u8> {
        let ip = ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), ipv4::UDP, 9, 8).unwrap();
        [ip.with_tos(tos).with_flags(flags).as_bytes(), &ports, &[0, 8, 0, 0]].concat()
    }

    fn v6(class: u8, ports: [u8; 4]) -> Vec<u8> {
        let ip = ipv6::Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, ipv6::UDP, 9, 8).unwrap();
        [ip.with_traffic_class(class).as_bytes(), &ports, &[0, 8, 0, 0]].concat()
    }

    #[test]
    fn marks_are_merged_as_rfc_6040_has_it() {
        const DROP: u8 = 9;
        let figure = [[0, 0, 0, DROP], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for (inner, row) in figure.iter().enumerate() {
            for (outer, wanted) in row.iter().enumerate() {
                let class = 0xb8 | inner as u8;
                for mut packet in [v4(class, 0, [0; 4]), v6(class, [0; 4])] {
                    let merged = merge_marks(0x48 | outer as u8, &mut packet);
                    assert_eq!(merged.is_err(), *wanted == DROP, "{inner} {outer}");
                    let now = if merged.is_err() { class } else { 0xb8 | wanted };
                    assert_eq!(traffic_class(&packet), now, "{inner} {outer}");
                    assert!(packet[0] >> 4 == 6 || ipv4::verify(&packet).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_flow_has_one_number_and_another_flow_another() {
        for packet in [v4, |class, _, ports| v6(class, ports)] {
            let number = |packet: &[u8]| flow(packet, 7);
            let one = packet(0, 0, [1, 2, 3, 4]);
            assert_eq!(number(&one), number(&packet(0xb8, 0, [1, 2, 3, 4])));
            assert_ne!(number(&one), number(&packet(0, 0, [1, 2, 3, 5])));
            assert_ne!(flow(&one, 7), flow(&one, 8));
            // Ports spread evenly over few members.
            let mut taken = [0; 5];
            for port in 0..1000_u16 {
                let [high, low] = port.to_be_bytes();
                let hash = number(&packet(0, 0, [high, low, 0, 53]));
                taken[((u64::from(hash) * 5) >> 32) as usize] += 1;
            }
            assert!(taken.iter().all(|count| (140..260).contains(count)), "{taken:?}");
        }
        let part = |flags, ports| flow(&v4(0, flags, ports), 7);
        assert_eq!(part(ipv4::MORE_FRAGMENTS, [1, 2, 3, 4]), part(5, [9, 9, 9, 9]), "all parts of a packet");
        for len in 0..48 {
            flow(&v6(0, [0; 4])[..len], 7);
            flow(&v4(0, 0, [0; 4])[..len.min(28)], 7);
        }
    }
}
