//! Cutting IP packets, and what a fragment says of itself: bytes to bytes.
//!
//! IPv4 is cut by whoever sends it on (RFC 791 §3.2), and a fragment may be cut again. IPv6 is cut by its sender alone (RFC 8200 §4.5):
//! here that are we, whose outer packets have no extension headers.

use std::ops::Range;

use wire::{checksum, ipv4, ipv6};
use zerocopy::IntoBytes;

use crate::DropReason;
use crate::packet::number;

/// Longest head of a piece: an IPv4 header with options, or an IPv6 and a fragment header.
const HEAD: usize = 60;
/// Largest IP packet in bytes, header included (of IPv6: behind the header).
const LARGEST: usize = 65_535;
/// The first flag, which nobody has a use for (RFC 791 §3.1). It stays as it is.
const RESERVED: u16 = 0x8000;

/// How a packet is cut. Positions are those in the packet.
#[derive(Debug, Clone)]
pub(crate) struct Pieces {
    /// What stands before the data of the first piece, and of the others.
    first: Head,
    further: Head,
    /// Where the data are.
    data: Range<usize>,
    /// Where they belong in a packet that this is a fragment of, and whether more follow there.
    base: usize,
    more: bool,
    /// Largest piece in bytes, its head included.
    limit: usize,
}

/// The head of a piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    bytes: [u8; HEAD],
    len: usize,
}

impl Head {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn new(parts: [&[u8]; 2]) -> Self {
        let mut head = Self { bytes: [0; HEAD], len: 0 };
        for (place, byte) in head.bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
            head.len += 1;
        }
        head
    }
}

/// A piece: its head, and which bytes of the packet follow that.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) head: Head,
    pub(crate) data: Range<usize>,
}

impl Pieces {
    /// Pieces of an IPv4 packet, of at most `limit` bytes each. Don't-fragment is cleared: whoever calls has decided.
    ///
    /// # Errors
    /// [`DropReason::BadHeader`] if the packet is none, or one that passes 65,535 bytes; [`DropReason::TooBig`] if `limit` leaves no room
    /// for 8 bytes of data.
    pub(crate) fn of_v4(packet: &[u8], limit: usize) -> Result<Self, DropReason> {
        let (header, payload) = ipv4::parse(packet).map_err(|_| DropReason::BadHeader)?;
        let data = header.header_len()..header.header_len() + payload.len();
        let base = usize::from(header.fragment_offset());
        if base + data.end > LARGEST {
            return Err(DropReason::BadHeader);
        }
        let mut copied = [0; ipv4::OPTIONS];
        let options = &packet[ipv4::LEN..data.start];
        let copied_len = ipv4::copied_options(options, &mut copied).map_err(|_| DropReason::BadHeader)?;
        let fixed = &packet[..ipv4::LEN];
        let mut further = Head::new([fixed, &copied[..copied_len]]);
        further.bytes[0] = 0x40 | (further.len / 4) as u8;
        let first = Head::new([fixed, options]);
        if limit < first.len + 8 {
            return Err(DropReason::TooBig);
        }
        Ok(Self { first, further, data, base, more: header.more_fragments(), limit })
    }

    /// Pieces of an IPv6 packet of our own without extension headers, as fragments with the identification `id`.
    ///
    /// # Errors
    /// As [`Pieces::of_v4`].
    pub(crate) fn of_v6(packet: &[u8], limit: usize, id: u32) -> Result<Self, DropReason> {
        let (header, payload) = ipv6::parse(packet).map_err(|_| DropReason::BadHeader)?;
        let fragment = ipv6::Fragment::new(header.next_header, 0, true, id);
        let mut head = Head::new([&packet[..ipv6::LEN], fragment.as_bytes()]);
        head.bytes[6] = ipv6::FRAGMENT;
        if limit < head.len + 8 {
            return Err(DropReason::TooBig);
        }
        let data = ipv6::LEN..ipv6::LEN + payload.len();
        Ok(Self { first: head, further: head, data, base: 0, more: false, limit })
    }

    /// The pieces in order. Data of all but the last are multiples of 8 bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece> {
        let mut at = self.data.start;
        std::iter::from_fn(move || {
            if at >= self.data.end {
                return None;
            }
            let head = if at == self.data.start { self.first } else { self.further };
            let (left, room) = (self.data.end - at, self.limit - head.len);
            let len = if left <= room { left } else { room & !7 };
            let data = at..at + len;
            at += len;
            Some(Piece { head: self.numbered(head, &data), data })
        })
    }

    /// A head with the place and the length of its data.
    fn numbered(&self, mut head: Head, data: &Range<usize>) -> Head {
        let offset = self.base + data.start - self.data.start;
        let more = self.more || data.end < self.data.end;
        let len = head.len;
        let bytes = &mut head.bytes;
        if bytes[0] >> 4 == 6 {
            bytes[4..6].copy_from_slice(&((len - ipv6::LEN + data.len()) as u16).to_be_bytes());
            bytes[42..44].copy_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
            return head;
        }
        let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
        let flags = u16::from_be_bytes([bytes[6], bytes[7]]) & RESERVED | more | (offset / 8) as u16;
        bytes[2..4].copy_from_slice(&((len + data.len()) as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum::checksum(&bytes[..len]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        head
    }
}

/// What the fragments of one packet have in common. Of IPv4 the addresses are the low bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) source: u128,
    pub(crate) destination: u128,
    pub(crate) id: u32,
    /// Its protocol, which packets are told apart by in IPv4 (RFC 791 §3.2); of IPv6 0: there the first fragment alone knows.
    pub(crate) protocol: u8,
    pub(crate) v6: bool,
    /// Place of the FIB table that it came by: address spaces of their own.
    pub(crate) table: u16,
}

/// What a fragment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) key: Key,
    /// Which bytes of the whole packet's data it has.
    pub(crate) start: u16,
    pub(crate) end: u16,
    /// Whether more follow.
    pub(crate) more: bool,
    /// Where in it its data start.
    pub(crate) data: u16,
    /// What of it stands before the whole packet's data.
    pub(crate) head: u16,
    /// Where in the head the protocol is named, and what of: an IPv6 header that names the fragment header names something else
    /// in the whole.
    pub(crate) names: (u16, u8),
    /// Its congestion mark.
    pub(crate) mark: u8,
}

impl Said {
    /// Whether it is the whole packet by itself (RFC 6946).
    pub(crate) fn is_atomic(&self) -> bool {
        self.start == 0 && !self.more
    }
}

/// Reads a fragment that came by the table with this place.
///
/// # Errors
/// [`DropReason::BadHeader`] if it is no IP packet; [`DropReason::FragmentOverlap`] if what it says cannot be: no data, or data of an
/// odd length with more to follow; [`DropReason::ReassemblyTooBig`] if the whole would pass 65,535 bytes.
pub(crate) fn read(packet: &[u8], table: u16) -> Result<Said, DropReason> {
    let said = match packet.first().map(|first| first >> 4) {
        Some(4) => read_v4(packet, table),
        Some(6) => read_v6(packet, table),
        _ => Err(DropReason::BadHeader),
    }?;
    let empty = said.start == said.end;
    let odd = said.more && (said.end - said.start) % 8 != 0;
    if empty && !said.is_atomic() || odd {
        return Err(DropReason::FragmentOverlap);
    }
    Ok(said)
}

fn read_v4(packet: &[u8], table: u16) -> Result<Said, DropReason> {
    let (header, payload) = ipv4::parse(packet).map_err(|_| DropReason::BadHeader)?;
    let (start, head) = (usize::from(header.fragment_offset()), header.header_len());
    if start + head + payload.len() > LARGEST {
        return Err(DropReason::ReassemblyTooBig);
    }
    Ok(Said {
        key: Key {
            source: header.source().to_bits().into(),
            destination: header.destination().to_bits().into(),
            id: header.id().into(),
            protocol: header.protocol,
            v6: false,
            table,
        },
        start: start as u16,
        end: (start + payload.len()) as u16,
        more: header.more_fragments(),
        data: head as u16,
        head: head as u16,
        names: (9, header.protocol),
        mark: header.tos & 3,
    })
}

fn read_v6(packet: &[u8], table: u16) -> Result<Said, DropReason> {
    let (header, payload) = ipv6::parse(packet).map_err(|_| DropReason::BadHeader)?;
    let whole = &packet[..ipv6::LEN + payload.len()];
    let part = ipv6::upper(whole).ok().and_then(|upper| upper.part).ok_or(DropReason::BadHeader)?;
    let fixed = whole.first_chunk::<{ ipv6::LEN }>().ok_or(DropReason::BadHeader)?;
    let data = part.at + ipv6::Fragment::LEN;
    let len = whole.len().checked_sub(data).ok_or(DropReason::BadHeader)?;
    let start = usize::from(part.offset);
    if start + len + part.at - ipv6::LEN > LARGEST {
        return Err(DropReason::ReassemblyTooBig);
    }
    Ok(Said {
        key: Key {
            source: number(fixed, 8),
            destination: number(fixed, 24),
            id: part.id,
            protocol: 0,
            v6: true,
            table,
        },
        start: part.offset,
        end: (start + len) as u16,
        more: part.more,
        data: data as u16,
        head: part.at as u16,
        names: (part.named_at as u16, part.next_header),
        mark: header.traffic_class() & 3,
    })
}

/// Makes a head that stands before `data` bytes the head of a whole packet; `named` as in [`Said::names`], `congested` if a router
/// marked a fragment of it.
pub(crate) fn make_whole(head: &mut [u8], data: usize, named: (u16, u8), congested: bool) {
    let len = head.len();
    if head.first().is_some_and(|first| first >> 4 == 6) {
        if let Some(at) = head.get_mut(usize::from(named.0)) {
            *at = named.1;
        }
        if let Some(fixed) = head.first_chunk_mut::<{ ipv6::LEN }>() {
            fixed[4..6].copy_from_slice(&((len - ipv6::LEN + data) as u16).to_be_bytes());
            fixed[1] |= if congested { 0x30 } else { 0 };
        }
        return;
    }
    let Some(fixed) = head.first_chunk_mut::<{ ipv4::LEN }>() else { return };
    fixed[1] |= if congested { 3 } else { 0 };
    fixed[2..4].copy_from_slice(&((len + data) as u16).to_be_bytes());
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]) & RESERVED;
    fixed[6..8].copy_from_slice(&flags.to_be_bytes());
    fixed[10..12].fill(0);
    let sum = checksum::checksum(head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(options: &[u8], flags: u16, len: usize) -> Vec<u8> {
        let header =
            ipv4::Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), ipv4::GRE, 9, options.len() + len);
        let mut packet = [header.unwrap().with_id(0x1234).with_flags(flags).as_bytes(), options].concat();
        packet[0] += (options.len() / 4) as u8;
        packet[10..12].fill(0);
        let sum = checksum::checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend((0..len).map(|at| at as u8));
        packet
    }

    fn bytes(pieces: &Pieces, packet: &[u8]) -> Vec<Vec<u8>> {
        pieces.iter().map(|piece| [piece.head.bytes(), &packet[piece.data]].concat()).collect()
    }

    #[test]
    fn the_example_of_rfc_791() {
        // §3.2, example fragmentation: 452 data bytes over a network that takes 280.
        let packet = v4(&[], 0, 452);
        let pieces = bytes(&Pieces::of_v4(&packet, 280).unwrap(), &packet);
        let said: Vec<_> =
            pieces.iter().map(|piece| read(piece, 0).unwrap()).map(|s| (s.start, s.end, s.more)).collect();
        assert_eq!(said, [(0, 256, true), (256, 452, false)]);
        assert_eq!([pieces[0].len(), pieces[1].len()], [276, 216]);
        for piece in &pieces {
            ipv4::verify(piece).unwrap();
            let (header, _) = ipv4::parse(piece).unwrap();
            assert_eq!(
                (header.id(), header.ttl, usize::from(header.total_length())),
                (0x1234, 9, piece.len())
            );
        }
    }

    #[test]
    fn options_that_are_not_copied_stand_in_the_first_piece_only() {
        // Record route is not copied, loose source route is.
        let options = [7, 4, 4, 0, 131, 7, 4, 10, 0, 0, 1, 0];
        let packet = v4(&options, 0, 400);
        let pieces = bytes(&Pieces::of_v4(&packet, 100).unwrap(), &packet);
        let headers: Vec<_> = pieces.iter().map(|piece| ipv4::options(piece).to_vec()).collect();
        assert_eq!(headers[0], options);
        assert!(headers[1..].iter().all(|options| *options == [131, 7, 4, 10, 0, 0, 1, 0]), "{headers:?}");
        assert!(pieces.iter().all(|piece| piece.len() <= 100 && ipv4::verify(piece).is_ok()));
        let broken = v4(&[131, 9, 0, 0], 0, 400);
        assert_eq!(Pieces::of_v4(&broken, 100).unwrap_err(), DropReason::BadHeader);
    }

    #[test]
    fn a_fragment_is_cut_into_fragments_of_the_same_packet() {
        let middle = v4(&[], ipv4::MORE_FRAGMENTS | 185, 1480);
        let said: Vec<_> = bytes(&Pieces::of_v4(&middle, 576).unwrap(), &middle)
            .iter()
            .map(|piece| read(piece, 0).unwrap())
            .map(|said| (said.start, said.end, said.more))
            .collect();
        assert_eq!(said, [(1480, 2032, true), (2032, 2584, true), (2584, 2960, true)]);
        // Whatever the flags were, nobody hears of don't-fragment any more.
        let whole = v4(&[], ipv4::DONT_FRAGMENT, 1000);
        let pieces = bytes(&Pieces::of_v4(&whole, 576).unwrap(), &whole);
        assert!(pieces.iter().all(|piece| !ipv4::parse(piece).unwrap().0.dont_fragment()));
    }

    #[test]
    fn ipv6_pieces_have_known_bytes() {
        let addr = std::net::Ipv6Addr::LOCALHOST;
        let header = ipv6::Header::new(addr, addr, ipv6::GRE, 64, 20).unwrap();
        let packet = [header.as_bytes(), &[7; 20]].concat();
        let pieces = bytes(&Pieces::of_v6(&packet, 64, 0xdead_beef).unwrap(), &packet);
        assert_eq!(pieces.len(), 2);
        assert_eq!((&pieces[0][4..8], pieces[0].len()), (&[0, 24, ipv6::FRAGMENT, 64][..], 64));
        assert_eq!(pieces[0][40..48], [ipv6::GRE, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!((&pieces[1][4..8], pieces[1].len()), (&[0, 12, ipv6::FRAGMENT, 64][..], 52));
        assert_eq!(pieces[1][40..48], [ipv6::GRE, 0, 0, 16, 0xde, 0xad, 0xbe, 0xef]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |packet: &[u8]| read(packet, 0).unwrap_err();
        assert_eq!(refused(&v4(&[], ipv4::MORE_FRAGMENTS, 9)), DropReason::FragmentOverlap);
        assert_eq!(refused(&v4(&[], ipv4::MORE_FRAGMENTS, 0)), DropReason::FragmentOverlap);
        assert_eq!(refused(&v4(&[], 7, 0)), DropReason::FragmentOverlap);
        assert_eq!(refused(&v4(&[], 0x1fff, 8)), DropReason::ReassemblyTooBig);
        assert_eq!(refused(&[0x45; 19]), DropReason::BadHeader);
        assert_eq!(refused(&[]), DropReason::BadHeader);
        assert!(read(&v4(&[], ipv4::MORE_FRAGMENTS | 0x1ffe, 8), 0).is_err());
        assert_eq!(Pieces::of_v4(&v4(&[], 0x1ff0, 1000), 576).unwrap_err(), DropReason::BadHeader);
        assert_eq!(Pieces::of_v4(&v4(&[], 0, 1000), 27).unwrap_err(), DropReason::TooBig);
    }
}
