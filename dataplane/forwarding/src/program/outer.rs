//! Headers that a midchain puts in front, in its rewrite. What depends on the packet is zero and filled in then: lengths, identification,
//! marks.
//!
//! ```text
//! clear      link │ IP, protocol 47                                            │ GRE
//! protected  link │ IP, protocol 50 or 17 │ UDP, if it is 17 ┆ tunnel mode: IP, protocol 47 │ GRE
//!                                                            └ 16 bytes of ESP that are not stored
//! ```

use std::net::IpAddr;

use model::program::{OuterDf, Tunnel};
use model::sa::SaMode;
use wire::{gre, ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use super::sas::Sealing;
use crate::adjacency::{Adjacency, TAGGED_LEN, flag};

/// The longest rewrite: over IPv6 on a link with a tag, in tunnel mode, with a key. (That in UDP is refused.)
const LONGEST: usize = TAGGED_LEN + 2 * ipv6::LEN + gre::len(Some(0));
const _: () = assert!(LONGEST <= Adjacency::FREE.rewrite.len());

/// Writes what stands between link and GRE of a midchain to an NBMA address and UDP port; its length.
pub(super) fn write(
    entry: &mut Adjacency,
    start: usize,
    tunnel: &Tunnel,
    (nbma, port): (IpAddr, u16),
    sealing: Option<Sealing>,
) -> Option<usize> {
    let Some(Sealing { slot, mode }) = sealing else {
        return write_ip(entry, start, tunnel, nbma, ipv4::GRE);
    };
    entry.protection = slot;
    entry.flags |= flag::ESP;
    let protocol = if port == 0 { ipv4::ESP } else { ipv4::UDP };
    let mut len = write_ip(entry, start, tunnel, nbma, protocol)?;
    if port != 0 {
        entry.flags |= flag::ESP_UDP;
        let ports = [udp::IKE_NAT.to_be_bytes(), port.to_be_bytes()].concat();
        entry.rewrite.get_mut(start + len..start + len + udp::LEN)?[..4].copy_from_slice(&ports);
        len += udp::LEN;
    }
    if mode == SaMode::Tunnel {
        entry.flags |= flag::ESP_TUNNEL;
        len += write_inner(entry.rewrite.get_mut(start + len..)?, tunnel, nbma)?;
    }
    Some(len)
}

/// Writes the outer IP header; its length.
fn write_ip(
    entry: &mut Adjacency,
    start: usize,
    tunnel: &Tunnel,
    nbma: IpAddr,
    protocol: u8,
) -> Option<usize> {
    match (tunnel.source.0, nbma) {
        (IpAddr::V4(source), IpAddr::V4(nbma)) => {
            let mut header = ipv4::Header::new(source, nbma, protocol, tunnel.ttl, 0)?;
            match tunnel.outer_df {
                OuterDf::Copy => entry.flags |= flag::DF_COPY,
                OuterDf::Set => {
                    entry.flags |= flag::DF_SET;
                    header = header.with_flags(ipv4::DONT_FRAGMENT);
                }
                OuterDf::Clear => {}
            }
            let outer = entry.rewrite.get_mut(start..start + ipv4::LEN)?;
            outer.copy_from_slice(header.as_bytes());
            outer[2..4].fill(0);
            outer[10..12].fill(0);
            entry.checksum = !wire::checksum::checksum(outer);
            Some(ipv4::LEN)
        }
        (IpAddr::V6(source), IpAddr::V6(nbma)) => {
            entry.flags |= flag::OUTER6;
            let header = ipv6::Header::new(source, nbma, protocol, tunnel.ttl, 0)?;
            entry.rewrite.get_mut(start..start + ipv6::LEN)?.copy_from_slice(header.as_bytes());
            Some(ipv6::LEN)
        }
        _ => None,
    }
}

/// Writes the IP header of tunnel mode, from and to the same addresses; its length.
fn write_inner(place: &mut [u8], tunnel: &Tunnel, nbma: IpAddr) -> Option<usize> {
    match (tunnel.source.0, nbma) {
        (IpAddr::V4(source), IpAddr::V4(nbma)) => {
            let header = ipv4::Header::new(source, nbma, ipv4::GRE, tunnel.ttl, 0)?;
            let inner = place.get_mut(..ipv4::LEN)?;
            inner.copy_from_slice(header.as_bytes());
            inner[2..4].fill(0);
            inner[10..12].fill(0);
            Some(ipv4::LEN)
        }
        (IpAddr::V6(source), IpAddr::V6(nbma)) => {
            let header = ipv6::Header::new(source, nbma, ipv6::GRE, tunnel.ttl, 0)?;
            place.get_mut(..ipv6::LEN)?.copy_from_slice(header.as_bytes());
            Some(ipv6::LEN)
        }
        _ => None,
    }
}
