//! Packets made by hand. Whoever wants a wrong one changes bytes of a right one.

use std::net::Ipv4Addr;

/// An Ethernet frame.
#[must_use]
pub fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet without options, don't-fragment set.
#[must_use]
pub fn ipv4(ends: (Ipv4Addr, Ipv4Addr), protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, protocol, 0, 0];
    packet.extend(ends.0.octets());
    packet.extend(ends.1.octets());
    packet.extend(payload);
    seal_ipv4(&mut packet);
    packet
}

/// Writes the length and header checksum of an IPv4 packet without options.
pub fn seal_ipv4(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A fragment of an IPv4 packet without options (RFC 791 §3.2): these bytes of its payload, from a multiple of 8 on, and whether
/// more follow. All fragments of equal packets have the same identification.
#[must_use]
pub fn fragment(packet: &[u8], bytes: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let place = u16::try_from(bytes.start / 8).unwrap_or(0) | if more { 0x2000 } else { 0 };
    let mut fragment = [&packet[..20], &packet[20..][bytes]].concat();
    fragment[6..8].copy_from_slice(&place.to_be_bytes());
    seal_ipv4(&mut fragment);
    fragment
}

/// A UDP datagram without checksum (RFC 768 allows that over IPv4).
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let header = [source, destination, length, 0].map(u16::to_be_bytes).concat();
    [&header, payload].concat()
}

/// A GRE packet (RFC 2784, with the key of RFC 2890).
#[must_use]
pub fn gre(key: Option<u32>, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let flags: u16 = if key.is_some() { 0x2000 } else { 0 };
    let key = key.map(u32::to_be_bytes);
    let key = key.as_ref().map_or(&[][..], |k| &k[..]);
    [&flags.to_be_bytes()[..], &protocol.to_be_bytes(), key, payload].concat()
}

/// An ARP packet: who has `target`, or (`is` given) `sender is at mac`.
#[must_use]
pub fn arp(reply: bool, mac: [u8; 6], sender: Ipv4Addr, to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, if reply { 2 } else { 1 }];
    [&head[..], &mac, &sender.octets(), &to, &target.octets()].concat()
}

/// An NHRP registration request with the authentication extension (RFC 2332 §5.2.3, §5.3.4) and no other.
#[must_use]
pub fn nhrp_registration(
    id: u32,
    nbma: Ipv4Addr,
    client: Ipv4Addr,
    server: Ipv4Addr,
    authentication: Option<&str>,
) -> Vec<u8> {
    // Type 3; flags: unique.
    nhrp_request(3, 0x8000, id, nbma, [client, server], authentication)
}

/// An NHRP resolution request (RFC 2332 §5.2.1), authoritative, with the authentication extension and no other.
#[must_use]
pub fn nhrp_resolution(
    id: u32,
    nbma: Ipv4Addr,
    client: Ipv4Addr,
    destination: Ipv4Addr,
    authentication: Option<&str>,
) -> Vec<u8> {
    // Type 1; flags: authoritative.
    nhrp_request(1, 0x4000, id, nbma, [client, destination], authentication)
}

fn nhrp_request(
    kind: u8,
    flags: u16,
    id: u32,
    nbma: Ipv4Addr,
    ends: [Ipv4Addr; 2],
    authentication: Option<&str>,
) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 52, 1, kind, 4, 0];
    let common = [&[4, 4][..], &flags.to_be_bytes(), &id.to_be_bytes()].concat();
    let addresses = [nbma.octets(), ends[0].octets(), ends[1].octets()].concat();
    // One client information entry: prefix length 32, MTU 1400, holding time 600.
    let entry = [0, 32, 0, 0, 0x05, 0x78, 0x02, 0x58, 0, 0, 0, 0];
    let mut packet = [&fixed[..], &common, &addresses, &entry].concat();
    if let Some(text) = authentication {
        let length = u16::try_from(4 + text.len()).unwrap_or(u16::MAX);
        packet.extend([&[0x80, 7][..], &length.to_be_bytes(), &[0, 0, 0, 1], text.as_bytes()].concat());
    }
    packet.extend([0x80, 0, 0, 0]);
    seal_nhrp(&mut packet);
    packet
}

/// Writes an NHRP packet's size and checksum.
pub fn seal_nhrp(packet: &mut [u8]) {
    let size = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    packet[10..12].copy_from_slice(&size.to_be_bytes());
    packet[12..14].fill(0);
    let sum = checksum(packet);
    packet[12..14].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}
