//! TCP (RFC 9293), as far as one that forwards it needs: ports, flags, and the maximum segment size.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, checksum, view};

/// Flag: a connection is opened, or that is answered.
pub const SYN: u8 = 0x02;
/// Flag: the acknowledgment number counts.
pub const ACK: u8 = 0x10;
/// Kind of the option that ends the list.
const END: u8 = 0;
/// Kind of the option that is one byte of padding.
const NO_OPERATION: u8 = 1;
/// Kind of the option that says the largest segment which its sender takes, in four bytes (§3.7.1).
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Length of a header without options in bytes.
pub const LEN: usize = size_of::<Header>();

/// The fixed part of a header; options, if any, follow it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |          Source Port          |       Destination Port        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                        Sequence Number                        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                    Acknowledgment Number                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Data |       |C|E|U|A|P|R|S|F|                               |
/// | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
/// |       |       |R|E|G|K|H|T|N|N|                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Checksum            |         Urgent Pointer        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgment: U32,
    data_offset: u8,
    /// [`SYN`], [`ACK`] and others.
    pub flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl Header {
    /// Port of the sender.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// Port of the receiver.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Length of the header with options, in bytes, as it says itself.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }

    /// The checksum as it stands.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        self.checksum.get()
    }
}

/// Header, and options with payload.
///
/// # Errors
/// [`Malformed::Truncated`] below 20 bytes.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    view::split(bytes, "tcp header")
}

/// Lowers the maximum segment size that a SYN announces to `most` bytes, and corrects the checksum (RFC 1624). `segment` starts
/// with the TCP header and is no later fragment; its payload need not be there. Whether anything was changed: not if it is no
/// SYN, nor if what it announces is no more, nor if header or options are malformed (then it is for its receiver to say so).
///
/// A SYN that announces nothing stays as it is: its receiver takes the size for 536 bytes, 1,220 in IPv6 (RFC 9293 §3.7.1), which
/// every tunnel here takes.
#[inline(always)]
pub fn clamp_mss(segment: &mut [u8], most: u16) -> bool {
    match view::split_mut::<Header>(segment, "tcp header") {
        Ok((header, rest)) if header.flags & SYN != 0 => clamp(header, rest, most),
        _ => false,
    }
}

/// The rest of [`clamp_mss`]: what is rare.
fn clamp(header: &mut Header, rest: &mut [u8], most: u16) -> bool {
    let Some(options) = header.header_len().checked_sub(LEN).and_then(|len| rest.get_mut(..len)) else {
        return false;
    };
    let mut changed = false;
    let mut at = 0;
    while at < options.len() {
        match options[at..] {
            [NO_OPERATION, ..] => at += 1,
            [MAXIMUM_SEGMENT_SIZE, 4, high, low, ..] => {
                let old = u16::from_be_bytes([high, low]);
                if old > most {
                    options[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
                    // What stands at an odd place adds to the sum with its bytes the other way round (RFC 1071 §2 B).
                    let (old, new) =
                        if at % 2 == 0 { (old, most) } else { (old.swap_bytes(), most.swap_bytes()) };
                    header.checksum.set(checksum::update(header.checksum.get(), old, new));
                    changed = true;
                }
                at += 4;
            }
            [END | MAXIMUM_SEGMENT_SIZE, ..] | [_] | [_, 0 | 1, ..] => break,
            [_, len, ..] => at += usize::from(len),
            [] => break,
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipv4;
    use proptest::prelude::*;

    fn ip(len: usize) -> ipv4::Header {
        ipv4::Header::new([192, 0, 2, 1].into(), [198, 51, 100, 2].into(), ipv4::TCP, 64, len).unwrap()
    }

    /// A segment with these flags and options, padded with the end of the list, and a payload; its checksum right.
    fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let words = options.len().div_ceil(4);
        let header = Header {
            source_port: U16::new(40000),
            destination_port: U16::new(80),
            sequence: U32::new(0x1234_5678),
            acknowledgment: U32::ZERO,
            data_offset: ((5 + words) << 4) as u8,
            flags,
            window: U16::new(64240),
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        };
        let mut bytes = [header.as_bytes(), options].concat();
        bytes.resize(LEN + words * 4, END);
        bytes.extend(payload);
        let sum = sum(&bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn sum(segment: &[u8]) -> u16 {
        ip(segment.len()).pseudo_sum(segment.len() as u16).bytes(segment).checksum()
    }

    #[test]
    fn a_known_syn() {
        // What Linux sends: MSS 1460, SACK permitted, timestamps, no operation, window scale 7.
        let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0x9d, 0x01, 0x02, 0x03, 0, 0, 0, 0, 1, 3, 3, 7];
        for flags in [SYN, SYN | ACK] {
            let mut bytes = segment(flags, &options, b"");
            let before = bytes.clone();
            assert_eq!(parse(&bytes).unwrap().0.header_len(), 40);
            assert!(!clamp_mss(&mut bytes, 1460) && !clamp_mss(&mut bytes, u16::MAX));
            assert_eq!(bytes, before, "never raised");
            assert!(clamp_mss(&mut bytes, 1360));
            assert_eq!((&bytes[20..24], sum(&bytes)), (&[2, 4, 0x05, 0x50][..], 0));
            // By hand: 05b4 became 0550, so the checksum went up by 64.
            assert_eq!(parse(&bytes).unwrap().0.checksum(), parse(&before).unwrap().0.checksum() + 0x64);
        }
    }

    #[test]
    fn the_option_may_stand_at_an_odd_place_or_twice() {
        for options in [&[1, 2, 4, 0x05, 0xb4][..], &[1, 1, 1, 2, 4, 0x05, 0xb4], &[3, 3, 7, 2, 4, 5, 0xb4]] {
            let mut bytes = segment(SYN, options, b"odd");
            assert!(clamp_mss(&mut bytes, 1200));
            assert_eq!(sum(&bytes), 0, "{options:?}");
        }
        let mut bytes = segment(SYN, &[2, 4, 0x04, 0xb0, 2, 4, 0x05, 0xb4], b"");
        assert!(clamp_mss(&mut bytes, 1200));
        assert_eq!((&bytes[20..28], sum(&bytes)), (&[2, 4, 0x04, 0xb0, 2, 4, 0x04, 0xb0][..], 0));
    }

    #[test]
    fn what_is_no_syn_says_nothing_or_makes_no_sense_stays() {
        let mss = [2, 4, 0x05, 0xb4];
        let stays = |mut bytes: Vec<u8>| {
            let before = bytes.clone();
            assert!(!clamp_mss(&mut bytes, 1000), "{before:?}");
            assert_eq!(bytes, before);
        };
        stays(segment(ACK, &mss, b""));
        stays(segment(SYN, &[], &mss));
        stays(segment(SYN, &[1, 1, 4, 2], b""));
        stays(segment(SYN, &[0, 2, 4, 0x05, 0xb4], b""));
        stays(segment(SYN, &[3, 0, 2, 4, 0x05, 0xb4], b""));
        stays(segment(SYN, &[3, 1, 2, 4, 0x05, 0xb4], b""));
        stays(segment(SYN, &[1, 1, 1, 1, 1, 2, 4, 0x05], &[0xb4]));
        stays(segment(SYN, &[2, 3, 0x05, 0xb4], b""));
        stays(segment(SYN, &[3, 200, 2, 4, 0x05, 0xb4], b""));
        stays(segment(SYN, &mss, b"")[..23].to_vec());
        stays(segment(SYN, &mss, b"")[..19].to_vec());
        let mut short = segment(SYN, &mss, b"");
        short[12] = 0x40;
        stays(short);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the options are: a checksum that was right stays right, one that was wrong stays wrong, and nothing but sizes
        /// and the checksum changes.
        #[test]
        fn the_checksum_stays_what_it_was(
            options in prop::collection::vec(prop_oneof![
                Just(vec![NO_OPERATION]),
                any::<u16>().prop_map(|size| [&[2, 4][..], &size.to_be_bytes()].concat()),
                Just(vec![3, 3, 7]),
                prop::collection::vec(any::<u8>(), 1..5),
            ], 0..8),
            payload in prop::collection::vec(any::<u8>(), 0..9),
            most in any::<u16>(),
            spoilt in any::<bool>(),
        ) {
            let mut options = options.concat();
            options.truncate(40);
            let mut bytes = segment(SYN, &options, &payload);
            bytes[4] ^= u8::from(spoilt);
            let before = bytes.clone();
            let changed = clamp_mss(&mut bytes, most);
            prop_assert_eq!(changed, bytes != before);
            // Zero is written in two ways; a sum of all ones counts as either.
            prop_assert_eq!(sum(&bytes) == 0, !spoilt);
            prop_assert_eq!(&bytes[..16], &before[..16]);
            let options = LEN + options.len().div_ceil(4) * 4;
            prop_assert_eq!(&bytes[18..LEN], &before[18..LEN]);
            prop_assert_eq!(&bytes[options..], &before[options..]);
            prop_assert!(!clamp_mss(&mut bytes, most), "once is enough");
        }
    }
}
