//! What is carried by a message or a tunnel, in a line.

use std::net::IpAddr;

use wire::layers::{Frame, Inside, Layer, Link, Piece};
use wire::{esp, icmp, icmpv6, ipv4, ipv6, nhrp};

use super::message::hex;

/// Protocol numbers of IPv4 and IPv6 in IP: what ESP carries in tunnel mode.
pub(super) const IP_IN_IP: [u8; 2] = [4, 41];

/// Bytes of what is not known that are printed.
const SHOWN: usize = 32;

/// An IP packet, or its beginning.
pub(super) fn ip(bytes: &[u8]) -> String {
    way(&Frame::read(Link::Ip, bytes), bytes)
}

/// The way of a packet from its first IP header on.
pub(super) fn way(frame: &Frame<'_>, bytes: &[u8]) -> String {
    inner(&frame.layers, &frame.inside).unwrap_or_else(|| beginning(bytes))
}

/// `None` if there is no IP header.
pub(super) fn inner(layers: &[Layer], inside: &Inside<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for layer in layers {
        match layer {
            Layer::Ip { source, destination } => {
                let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
                parts.push(format!("{family} {source} > {destination}"));
            }
            Layer::Gre { fields, .. } => parts.push(gre(fields)),
            Layer::Udp { source, destination } => parts.push(format!("UDP {source} > {destination}")),
            Layer::Esp { spi, sequence, .. } => {
                parts.push(format!("ESP SPI {spi:#010x} sequence {sequence}"))
            }
            Layer::IcmpError => parts.push("ICMP error about".to_owned()),
            Layer::Ethernet(_) | Layer::Vlan(_) | Layer::Cooked { .. } => {}
        }
    }
    if parts.is_empty() {
        return None;
    }
    let v6 = layers.iter().rev().find_map(|layer| match layer {
        Layer::Ip { source: IpAddr::V6(_), .. } => Some(true),
        Layer::Ip { .. } => Some(false),
        _ => None,
    });
    parts.push(what(inside, v6 == Some(true)));
    Some(parts.join(", "))
}

/// A GRE header.
pub(super) fn gre(fields: &wire::gre::Fields) -> String {
    let mut text = "GRE".to_owned();
    if let Some(key) = fields.key {
        text += &format!(" key {key}");
    }
    if let Some(sequence) = fields.sequence {
        text += &format!(" sequence {sequence}");
    }
    text
}

/// What the beginning of an ESP packet says.
pub(super) fn esp(bytes: &[u8]) -> String {
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    match (word(0), word(4)) {
        (Some(spi), Some(sequence)) => format!("ESP, SPI {spi:#010x}, sequence {sequence}"),
        (Some(spi), None) => format!("ESP, SPI {spi:#010x}"),
        _ => "ESP".to_owned(),
    }
}

/// What the way ends with.
pub(super) fn what(inside: &Inside<'_>, v6: bool) -> String {
    match inside {
        Inside::Nhrp(bytes) => nhrp(bytes),
        Inside::Esp { spi, .. } => format!("ESP, protected, SPI {spi:#010x}"),
        Inside::Ike(_) => "IKE".to_owned(),
        Inside::Upper { protocol, bytes } => upper(*protocol, bytes, v6),
        Inside::Ethertype(number) => format!("protocol {number:#06x}"),
        Inside::Piece(Piece { protocol, offset, bytes, .. }) => {
            let of = match (*protocol, *offset) {
                (ipv4::ESP, 0) => self::esp(bytes),
                (ipv4::ESP, _) => "ESP".to_owned(),
                (protocol, _) => format!("protocol {protocol}"),
            };
            format!("piece of {of}: {} bytes at {offset}", bytes.len())
        }
        Inside::Malformed(malformed) => malformed.to_string(),
    }
}

fn upper(protocol: u8, bytes: &[u8], v6: bool) -> String {
    let ports = |name: &str| match bytes {
        [a, b, c, d, ..] => {
            format!("{name} {} > {}", u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => name.to_owned(),
    };
    match (protocol, v6, bytes.first().copied()) {
        (ipv4::ICMP, false, Some(icmp::ECHO)) => "ICMP echo request".to_owned(),
        (ipv4::ICMP, false, Some(icmp::ECHO_REPLY)) => "ICMP echo reply".to_owned(),
        (ipv4::ICMP, false, Some(kind)) => format!("ICMP type {kind}"),
        (ipv6::ICMPV6, true, Some(icmpv6::ECHO)) => "ICMPv6 echo request".to_owned(),
        (ipv6::ICMPV6, true, Some(icmpv6::ECHO_REPLY)) => "ICMPv6 echo reply".to_owned(),
        (ipv6::ICMPV6, true, Some(kind)) => format!("ICMPv6 type {kind}"),
        (ipv4::TCP, _, _) => ports("TCP"),
        (ipv4::UDP, _, _) => ports("UDP"),
        (ipv4::OSPF, _, _) => "OSPF".to_owned(),
        (esp::NO_NEXT_HEADER, _, _) => "nothing, a dummy".to_owned(),
        _ => format!("protocol {protocol}"),
    }
}

/// An NHRP packet, or its beginning.
pub(super) fn nhrp(bytes: &[u8]) -> String {
    let or_dash = |address: Option<IpAddr>| address.map_or_else(|| "-".to_owned(), |a| a.to_string());
    match nhrp::Packet::read(bytes) {
        Ok(packet) => {
            let (message, size) = (&packet.message, packet.size);
            let (source, destination) = (or_dash(message.source), or_dash(message.destination));
            format!("NHRP {}, {source} > {destination}, {size} bytes", message.message_type())
        }
        Err(malformed) => {
            let kind = nhrp::MessageType::ALL.into_iter().find(|t| bytes.get(17) == Some(&(*t as u8)));
            let kind = kind.map_or_else(|| "NHRP".to_owned(), |kind| format!("NHRP {kind}"));
            format!("{kind}, not read ({malformed}): {}", beginning(bytes))
        }
    }
}

fn beginning(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN) {
        Some(first) if bytes.len() > SHOWN => format!("{}…", hex(first)),
        _ => hex(bytes),
    }
}
