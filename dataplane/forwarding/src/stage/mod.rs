//! The stages, one file a node. Each begins with the path of a packet through it.

pub(crate) mod classify;
pub(crate) mod esp_decrypt;
pub(crate) mod esp_encrypt;
pub(crate) mod fragment;
pub(crate) mod glean;
pub(crate) mod gre_decap;
pub(crate) mod handoff;
pub(crate) mod icmp_error;
pub(crate) mod inject;
pub(crate) mod ip6_lookup;
pub(crate) mod ip_lookup;
pub(crate) mod midchain;
pub(crate) mod path_mtu;
pub(crate) mod punt;
pub(crate) mod reassemble;
pub(crate) mod redirect;
pub(crate) mod replicate;
pub(crate) mod rewrite;

use wire::buf::PacketBuf;
use wire::ipv4;
use zerocopy::FromBytes;

use crate::DropReason;
use crate::adjacency::{KEYED_LEN, LINK_LEN};
use crate::burst::{Frames, Meta, family};
use crate::graph::Node;
use crate::packet::current;

/// The packets behind those that are looked at together, which are asked for meanwhile, one with each of these: their pages have to be
/// found first, each in some hundred cycles, in which the processor gets 256 instructions ahead and no farther. So the loop that asks is the
/// shortest that there is: the less stands between one question and the next, the more of them are under way.
struct Ahead<'a, B> {
    bufs: &'a [B],
    /// Whether the line before a packet is wanted as well, for the outer header.
    grows: bool,
}

impl<B: PacketBuf> Ahead<'_, B> {
    #[inline(always)]
    fn ask(&self, at: usize) {
        if let Some(buf) = self.bufs.get(at) {
            buf.prefetch_received();
            if self.grows {
                buf.prefetch_before_received(KEYED_LEN - LINK_LEN);
            }
        }
    }
}

/// Place of the flags in a TCP header.
const TCP_FLAGS: usize = 13;

/// What the first look at an IPv4 header tells.
struct Ip {
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
        destination: header.destination().to_bits(),
        protocol: header.protocol,
        header: len,
        total,
        fragment: header.is_fragment(),
    }
}

/// What a header without options tells in one look: right version, header length, checksum, and a total length of which all
/// may be there. What fails here is looked at again by [`check_ip`], which says why.
#[inline(always)]
fn is_plain(header: &[u8; ipv4::LEN], have: usize) -> bool {
    let total = total_length(header);
    header[0] == 0x45 && is_summed(header) && total >= ipv4::LEN && total <= have
}

/// Whether the checksum is right: the ones' complement sum is 0xffff, so that the plain one is a multiple of it (RFC 1071 §2: any
/// byte order, words of any width, carries added at the low end). A sum of 0 is one too; a header with a version in it has none.
#[inline(always)]
fn is_summed(header: &[u8; ipv4::LEN]) -> bool {
    let ([first, second], rest) = header.as_chunks::<8>() else { return false };
    let last = rest.first_chunk().map_or(0, |last| u32::from_ne_bytes(*last));
    let (sum, carry) = u64::from_ne_bytes(*first).overflowing_add(u64::from_ne_bytes(*second));
    let (sum, again) = sum.overflowing_add(u64::from(last) + u64::from(carry));
    // A multiple of 0xffff is a small number once it is multiplied by the inverse of that modulo 2^64, and no other number is.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    (sum + u64::from(again)).wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

#[inline(always)]
fn total_length(header: &[u8; ipv4::LEN]) -> usize {
    u16::from_be_bytes([header[2], header[3]]).into()
}

#[inline(always)]
fn source(header: &[u8; ipv4::LEN]) -> u32 {
    u32::from_be_bytes([header[12], header[13], header[14], header[15]])
}

#[inline(always)]
fn destination(header: &[u8; ipv4::LEN]) -> u32 {
    u32::from_be_bytes([header[16], header[17], header[18], header[19]])
}

/// Makes the packet start `len` bytes before what is at `offset` now; `false` without the headroom.
#[inline(always)]
fn start_before<B: PacketBuf>(buf: &mut B, offset: usize, len: usize) -> bool {
    if len > offset {
        return buf.prepend(len - offset).is_some();
    }
    offset == len || buf.trim_front(offset - len)
}

/// To the look-up of the packet's family.
fn look_up<const ME: u8>(frames: &mut Frames, meta: &Meta, slot: u8) {
    if meta.family & family::V6 == 0 {
        frames.hand::<ME, { Node::IpLookup as u8 }>(slot);
    } else {
        frames.hand::<ME, { Node::Ip6Lookup as u8 }>(slot);
    }
}

/// Whether a packet that is too large may be cut by us: IPv4 without don't-fragment (RFC 791 §3.2). IPv6 is cut by its sender alone.
#[cold]
fn may_be_cut(meta: &Meta, bytes: &[u8]) -> bool {
    let flags = current(meta, bytes).get(6).copied().unwrap_or_default();
    meta.family & family::V6 == 0 && flags & (ipv4::DONT_FRAGMENT >> 8) as u8 == 0
}

/// Makes room for `ready` bytes in front of an IPv4 packet that starts at `offset`, over what is there; the length of the packet. `None`, and nothing is done, if it is larger than `mtu`, its hops are used up, or there is no headroom.
#[inline(always)]
fn room_v4<B: PacketBuf>(buf: &mut B, offset: usize, ready: usize, mtu: u16, hops: u8) -> Option<usize> {
    let bytes = buf.bytes();
    let header = bytes.get(offset..)?.first_chunk::<{ ipv4::LEN }>()?;
    let len = bytes.len() - offset;
    if len > mtu.into() || header[8] <= hops || !start_before(buf, offset, ready) {
        return None;
    }
    Some(len)
}

/// Takes the hops, 0 or 1, off the time to live, and the checksum with it (RFC 1624, equation 3). `false`, and the header as it was, if
/// the packet ends here.
///
/// Both stand in one word, read with its low byte first: the time to live is the low byte of the lower half, which goes down by 1, so
/// that the sum, in the upper half, goes up by 1, and 0xffff is written 0.
#[inline(always)]
pub(crate) fn count_hops(header: &mut [u8; ipv4::LEN], hops: u8) -> bool {
    let on = header[8] > hops;
    if on {
        take_hops(header, hops);
    }
    on
}

/// The same of a packet that has more hops before it.
#[inline(always)]
fn take_hops(header: &mut [u8; ipv4::LEN], hops: u8) {
    let ([_, _, word, _, _], _) = header.as_chunks_mut::<4>() else { return };
    let (old, hops) = (u32::from_le_bytes(*word), u32::from(hops));
    let carry = u32::from(old >= 0xfffe_0000) & hops;
    *word = old.wrapping_add(hops * 0xffff).wrapping_add(carry << 16).to_le_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn header(ttl: u8, id: u16) -> [u8; ipv4::LEN] {
        let header =
            ipv4::Header::new([10, 1, 2, 3].into(), [192, 0, 2, 200].into(), ipv4::UDP, ttl, 44).unwrap();
        let mut bytes = [0; ipv4::LEN];
        bytes.copy_from_slice(header.with_id(id).as_bytes());
        bytes
    }

    #[test]
    fn one_look_tells_what_a_closer_one_does() {
        for id in 0..=u16::MAX {
            let mut bytes = header(64, id);
            assert!(is_plain(&bytes, 64) && is_plain(&bytes, 99) && !is_plain(&bytes, 63), "{id:04x}");
            assert_eq!((source(&bytes), destination(&bytes)), (0x0a01_0203, 0xc000_02c8));
            // Another value of any byte is seen, but for the two ways to write nothing.
            let at = usize::from(id % 20);
            bytes[at] ^= 1 << (id % 8);
            let packet = [&bytes[..], &[0; 44]].concat();
            assert_eq!(is_plain(&bytes, 64), check_ip(&packet).is_ok() && bytes[0] == 0x45, "{id:04x} {at}");
        }
        assert!(!is_plain(&[0; ipv4::LEN], 64));
    }

    #[test]
    fn a_hop_less_and_the_checksum_still_right() {
        for id in 0..=u16::MAX {
            let mut bytes = header((id % 255) as u8 + 1, id);
            let before = bytes;
            assert!(count_hops(&mut bytes, 0) && bytes == before);
            let on = count_hops(&mut bytes, 1);
            assert_eq!(on, before[8] > 1);
            assert_eq!(bytes, header(before[8] - u8::from(on), id), "{id:04x}");
        }
    }
}
