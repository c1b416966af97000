//! The stages, one file a node. Each begins with the path of a packet through it.

pub(crate) mod classify;
pub(crate) mod glean;
pub(crate) mod gre_decap;
pub(crate) mod host_unreachable;
pub(crate) mod inject;
pub(crate) mod ip_lookup;
pub(crate) mod midchain;
pub(crate) mod punt;
pub(crate) mod redirect;
pub(crate) mod replicate;
pub(crate) mod rewrite;

use wire::buf::PacketBuf;
use wire::ipv4;
use zerocopy::FromBytes;

use crate::DropReason;

/// Packets ahead of the current one whose descriptor is asked for, and whose bytes.
const AHEAD_DESCRIPTOR: usize = 8;
const AHEAD_BYTES: usize = 4;

/// What the first look at an IPv4 header tells.
struct Ip {
    source: u32,
    destination: u32,
    protocol: u8,
    /// Length of the header in bytes.
    header: usize,
    /// Length of the packet in bytes, at most what is there.
    total: usize,
    /// Whether it is a part of a packet.
    fragment: bool,
}

/// Checks an IPv4 header (RFC 1812 §5.2.2): version, lengths, checksum.
#[inline(always)]
fn check_ip(bytes: &[u8]) -> Result<Ip, DropReason> {
    let Ok((header, _)) = ipv4::Header::ref_from_prefix(bytes) else { return Err(DropReason::BadHeader) };
    if bytes[0] != 0x45 {
        return check_options(bytes);
    }
    let total = usize::from(header.total_length());
    if total < ipv4::LEN || total > bytes.len() {
        return Err(DropReason::BadHeader);
    }
    if !header.checksum_ok() {
        return Err(DropReason::BadChecksum);
    }
    Ok(ip(header, ipv4::LEN, total))
}

/// The same for a header with options, or none at all.
#[cold]
fn check_options(bytes: &[u8]) -> Result<Ip, DropReason> {
    let (header, _) = ipv4::parse(bytes).map_err(|_| DropReason::BadHeader)?;
    ipv4::verify(bytes).map_err(|_| DropReason::BadChecksum)?;
    Ok(ip(header, header.header_len(), header.total_length().into()))
}

#[inline(always)]
fn ip(header: &ipv4::Header, len: usize, total: usize) -> Ip {
    Ip {
        source: header.source().to_bits(),
        destination: header.destination().to_bits(),
        protocol: header.protocol,
        header: len,
        total,
        fragment: header.is_fragment(),
    }
}

/// Makes the packet start `len` bytes before what is at `offset` now; `false` without the headroom.
#[inline(always)]
fn start_before<B: PacketBuf>(buf: &mut B, offset: usize, len: usize) -> bool {
    if len > offset {
        return buf.prepend(len - offset).is_some();
    }
    offset == len || buf.trim_front(offset - len)
}

/// Takes the hops off the time to live of the IPv4 packet at the front of `bytes`, the checksum with it (RFC 1624); the time
/// to live ends here, or the packet is larger than `mtu`: the reason to drop it.
#[inline(always)]
fn forward(bytes: &mut [u8], hops: u8, mtu: u16) -> Result<(), DropReason> {
    if bytes.len() > usize::from(mtu) {
        return Err(DropReason::TooBig);
    }
    let Ok((header, _)) = ipv4::Header::mut_from_prefix(bytes) else { return Err(DropReason::BadHeader) };
    if header.ttl <= hops {
        return Err(DropReason::TtlExpired);
    }
    if hops != 0 {
        header.decrement_ttl();
    }
    Ok(())
}
