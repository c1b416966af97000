//! The codec: what is read is written again as it was.

use wire::layers::{Frame, Inside, Link};
use wire::nhrp::{Message, Packet};

/// Reads bytes as an NHRP packet and as frames of each link.
///
/// # Panics
/// What was read is not written again as it was.
pub fn codec(bytes: &[u8]) {
    packet(bytes);
    // Few bytes have a right checksum by chance; what is behind it is to be reached all the same.
    if let Ok(read) = Packet::read(bytes) {
        packet(&sealed(&bytes[..read.size]));
    }
    for link in [Link::Ethernet, Link::Cooked, Link::CookedV2, Link::Ip] {
        let frame = Frame::read(link, bytes);
        match frame.inside {
            Inside::Nhrp(inside) => packet(inside),
            Inside::Piece(piece) => {
                let whole = Frame::whole(frame.layers, piece.protocol, piece.bytes);
                assert!(whole.layers.len() <= bytes.len());
            }
            _ => {}
        }
    }
}

fn packet(bytes: &[u8]) {
    let Ok(packet) = Packet::read(bytes) else {
        assert!(Message::decode(bytes).is_err(), "a message that is no packet");
        return;
    };
    // As it came but for the checksum, which is right.
    let came = sealed(&bytes[..packet.size]);
    assert_eq!(packet.encode(), came);
    let again = Packet::read(&came).expect("what was written is read");
    assert_eq!((&again.message, &again.reserved), (&packet.message, &packet.reserved));

    let message = &packet.message;
    for extension in message.extensions.iter().flatten() {
        if let Ok(entries) = extension.entries(message.families) {
            // Nothing is longer as CIEs than it was.
            let len: usize = entries.iter().map(|entry| entry.size(message.families)).sum();
            assert_eq!(len, extension.value().len());
        }
    }
    // Written as it should be, it is the same message, and is written the same again. It is no longer than it was but for an End that
    // was missing; what does not fit then is left out, which only a packet of the greatest length can tell.
    let written = message.encode();
    let read = Message::decode(&written).expect("what is written is well formed");
    assert_eq!(read.encode(), written);
    if packet.size + 4 <= wire::nhrp::LONGEST {
        assert_eq!(&read, message);
    }
}

/// With a right checksum.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[Packet::CHECKSUM].fill(0);
    let sum = wire::checksum::checksum(&bytes);
    bytes[Packet::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    bytes
}
