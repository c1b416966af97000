//! Pieces of IP packets in a capture, put together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use wire::layers::Piece;
use wire::{esp, ipv4, udp};

use super::carried;

/// Packets of which pieces may be kept at a time: the oldest goes.
const PACKETS: usize = 256;

/// What the pieces of one packet have in common.
type Key = (IpAddr, IpAddr, u8, u32);

#[derive(Default)]
struct Packet {
    /// By their place.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Where the last one ends, when it is known.
    end: Option<usize>,
    /// The frame that had the first, unless that was only quoted.
    frame: Option<u64>,
}

impl Packet {
    /// The payload, if no byte is missing.
    fn whole(&self) -> Option<Vec<u8>> {
        let end = self.end?;
        let mut payload = Vec::new();
        for (at, bytes) in &self.pieces {
            if *at > payload.len() {
                return None;
            }
            // What two of them have is taken of the first.
            payload.extend(bytes.get(payload.len() - at..).unwrap_or(&[]));
        }
        (payload.len() >= end).then(|| {
            payload.truncate(end);
            payload
        })
    }

    /// The frame and the SPI, if it is an ESP packet as far as it is there.
    fn esp(&self, protocol: u8) -> Option<(u64, String)> {
        let first = self.pieces.get(&0).map_or(&[][..], |bytes| bytes);
        let esp = match protocol {
            ipv4::ESP => first,
            ipv4::UDP => {
                let (ports, datagram) = first.split_at_checked(udp::LEN)?;
                let port = udp::IKE_NAT.to_be_bytes();
                let has = ports[..2] == port || ports[2..4] == port;
                match esp::in_udp(datagram) {
                    esp::InUdp::Esp(esp) if has => esp,
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((self.frame?, carried::esp(esp)))
    }
}

/// The pieces that wait for others.
#[derive(Default)]
pub(super) struct Pieces {
    packets: HashMap<Key, Packet>,
    order: VecDeque<Key>,
    /// ESP packets that went before they were whole.
    gone: Vec<(u64, String)>,
}

impl Pieces {
    /// Takes one of a frame, or one that is quoted; how many there are, and the payload of their packet, if it was the last that was
    /// missing.
    pub(super) fn add(&mut self, piece: &Piece<'_>, frame: Option<u64>) -> Option<(u64, Vec<u8>)> {
        let key = (piece.source, piece.destination, piece.protocol, piece.id);
        if !self.packets.contains_key(&key) {
            self.order.push_back(key);
            if self.order.len() > PACKETS
                && let Some(oldest) = self.order.pop_front()
            {
                let (_, _, protocol, _) = oldest;
                let packet = self.packets.remove(&oldest);
                self.gone.extend(packet.and_then(|packet| packet.esp(protocol)));
            }
        }
        let packet = self.packets.entry(key).or_default();
        packet.frame = packet.frame.or(frame);
        if !piece.more {
            packet.end = Some(piece.offset + piece.bytes.len());
        }
        packet.pieces.entry(piece.offset).or_insert_with(|| piece.bytes.to_vec());
        let whole = packet.whole()?;
        let count = packet.pieces.len() as u64;
        self.packets.remove(&key);
        self.order.retain(|other| *other != key);
        Some((count, whole))
    }

    /// ESP packets that were never whole: the frame of the first piece, and what is known of each.
    pub(super) fn incomplete_esp(&mut self) -> Vec<(u64, String)> {
        let mut all = std::mem::take(&mut self.gone);
        let left = self.order.iter().filter_map(|key| self.packets.get(key)?.esp(key.2));
        all.extend(left);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: u32, offset: usize, more: bool, bytes: &[u8]) -> Piece<'_> {
        let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        Piece { source, destination, protocol: 47, id, offset, more, bytes }
    }

    #[test]
    fn pieces_are_whole_in_any_order_and_when_nothing_is_missing() {
        let all = [piece(1, 0, true, &[1; 8]), piece(1, 8, true, &[2; 8]), piece(1, 16, false, &[3; 3])];
        let whole = [&[1; 8][..], &[2; 8], &[3; 3]].concat();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut pieces = Pieces::default();
            assert_eq!(pieces.add(&all[order[0]], None), None);
            // Another packet, and one that comes twice, change nothing.
            assert_eq!(pieces.add(&piece(2, 8, false, &[9; 8]), None), None);
            assert_eq!(pieces.add(&all[order[0]], None), None);
            assert_eq!(pieces.add(&all[order[1]], None), None);
            assert_eq!(pieces.add(&all[order[2]], None), Some((3, whole.clone())));
        }
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut pieces = Pieces::default();
        for id in 0..=u32::try_from(PACKETS).unwrap() {
            assert_eq!(pieces.add(&piece(id, 0, true, &[1; 8]), None), None);
        }
        assert_eq!(pieces.packets.len(), PACKETS);
        assert_eq!(pieces.add(&piece(0, 8, false, &[2]), None), None);
        assert_eq!(pieces.add(&piece(9, 8, false, &[2]), None).unwrap().1.len(), 9);
    }
}
