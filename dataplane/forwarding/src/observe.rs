//! Which addresses a packet names: for a person who asks for the packets of one.

use std::net::IpAddr;

use wire::{ethernet, gre, ipv4, ipv6};

use crate::adjacency::{LINK_LEN, TAGGED_LEN};
use crate::packet::addresses;

/// EtherTypes of tags: what follows one is read as what follows the header.
const TAGS: [u16; 2] = [ethernet::VLAN, ethernet::PROVIDER_VLAN];
/// Tags that are read over.
const TAGS_DEEP: usize = 2;

/// Whether `addr` is source or destination of the packet that `bytes` are, or of what it carries in GRE. They may begin with an
/// Ethernet header, tagged or not, or with an IP header: both are tried.
pub(crate) fn names(bytes: &[u8], addr: IpAddr) -> bool {
    ip_names(bytes, addr) || in_frame(bytes).is_some_and(|packet| ip_names(packet, addr))
}

/// Destination of bytes that are an IP packet.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 | 6 => addresses(packet).map(|(_, to)| to),
        _ => None,
    }
}

/// Length of the link's header of a frame that we send: with a tag, or without.
pub(crate) fn link_len(frame: &[u8]) -> usize {
    let is_tagged = ethernet::parse(frame).is_ok_and(|(link, _)| link.ethertype() == ethernet::VLAN);
    if is_tagged { TAGGED_LEN } else { LINK_LEN }
}

/// The IP packet in a frame.
fn in_frame(frame: &[u8]) -> Option<&[u8]> {
    let (link, mut payload) = ethernet::parse(frame).ok()?;
    let mut ethertype = link.ethertype();
    for _ in 0..TAGS_DEEP {
        if TAGS.contains(&ethertype) {
            let (tag, rest) = ethernet::parse_tag(payload).ok()?;
            (ethertype, payload) = (tag.ethertype(), rest);
        }
    }
    matches!(ethertype, ethernet::IPV4 | ethernet::IPV6).then_some(payload)
}

fn ip_names(packet: &[u8], addr: IpAddr) -> bool {
    let Some(inner) = inner(packet) else { return false };
    let named = |packet: &[u8]| addresses(packet).is_some_and(|(from, to)| from == addr || to == addr);
    named(packet) || inner.is_some_and(named)
}

/// What an IP packet carries in GRE, if it does; `None` if it is no IP packet.
fn inner(packet: &[u8]) -> Option<Option<&[u8]>> {
    let payload = match packet.first()? >> 4 {
        4 => {
            let (header, payload) = ipv4::parse(packet).ok()?;
            let whole = header.protocol == ipv4::GRE && header.fragment_offset() == 0;
            whole.then_some(payload)
        }
        6 => {
            ipv6::parse(packet).ok()?;
            let upper = ipv6::upper(packet).ok().filter(|upper| !upper.is_later_fragment());
            let gre = upper.filter(|upper| upper.protocol == ipv6::GRE);
            gre.and_then(|upper| packet.get(upper.offset..))
        }
        _ => return None,
    };
    let gre = payload.and_then(|payload| gre::parse(payload).ok());
    Some(gre.filter(|(fields, _)| matches!(fields.protocol, gre::IPV4 | gre::IPV6)).map(|(_, inner)| inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::IntoBytes;

    fn ip(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (from.parse().unwrap(), to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = ipv4::Header::new(from, to, protocol, 9, payload.len()).unwrap();
                [header.as_bytes(), payload].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = ipv6::Header::new(from, to, protocol, 9, payload.len()).unwrap();
                [header.as_bytes(), payload].concat()
            }
            _ => panic!("one family"),
        }
    }

    #[test]
    fn inner_and_outer_addresses_are_seen_behind_tags_in_both_families() {
        let families = [
            ("192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.0.2"),
            ("2001:db8::1", "2001:db8::2", "fd00::1", "fd00::2"),
        ];
        for outer in families {
            for inner in families {
                let ethertype = |addr: &str| if addr.contains(':') { ethernet::IPV6 } else { ethernet::IPV4 };
                let mut gre = vec![0; 8];
                gre::write(&mut gre, ethertype(inner.2), Some(7)).unwrap();
                gre.extend(ip(inner.2, inner.3, ipv4::UDP, b"12345678"));
                let packet = ip(outer.0, outer.1, ipv4::GRE, &gre);
                let link = ethernet::Header::new([2; 6], [4; 6], ethertype(outer.0));
                let plain = [link.as_bytes(), &packet].concat();
                let tagged = ethernet::Header::new([2; 6], [4; 6], ethernet::VLAN);
                let tag = ethernet::Tag::new(0, 7, ethertype(outer.0));
                let tagged = [tagged.as_bytes(), tag.as_bytes(), &packet].concat();
                for bytes in [&packet, &plain, &tagged] {
                    for named in [outer.0, outer.1, inner.2, inner.3] {
                        assert!(names(bytes, named.parse().unwrap()), "{named} {bytes:02x?}");
                    }
                    for other in ["192.0.2.3", "fd00::3"] {
                        assert!(!names(bytes, other.parse().unwrap()), "{other}");
                    }
                    for len in 0..bytes.len() {
                        names(&bytes[..len], outer.0.parse().unwrap());
                    }
                }
                assert_eq!(destination(&packet), Some(outer.1.parse().unwrap()));
                assert_eq!(destination(&plain), None);
            }
        }
    }
}
