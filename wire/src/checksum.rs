//! The Internet checksum: ones' complement sums (RFC 1071) and their incremental update (RFC 1624).

/// A ones' complement sum under way.
///
/// It adds 32-bit words in the machine's own byte order, four times fewer than 16-bit words and without swaps; the sum
/// is the same but for its byte order (RFC 1071 §2 B), which [`Sum::checksum`] sets right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes of a packet. An odd number of them is padded with a zero, so only the last piece may have one.
    #[inline(always)]
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += u64::from(u32::from_ne_bytes(last));
        self
    }

    /// Adds a 16-bit field, given in host order.
    #[inline(always)]
    #[must_use]
    pub const fn u16(mut self, value: u16) -> Self {
        self.0 += value.to_be() as u64;
        self
    }

    /// Adds a 32-bit field, given in host order.
    #[inline(always)]
    #[must_use]
    pub const fn u32(mut self, value: u32) -> Self {
        self.0 += value.to_be() as u64;
        self
    }

    /// The checksum field, in host order: the complement of the folded sum. 0 if the summed bytes held a right checksum.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        // Each fold adds the halves; what it carries out of the low half comes in at the low end of the high one.
        let sum = (self.0.wrapping_add(self.0.rotate_left(32)) >> 32) as u32;
        let sum = (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16;
        u16::from_be(!sum)
    }
}

/// The checksum field over `bytes`, in host order; 0 if they hold a right checksum themselves.
#[inline(always)]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).checksum()
}

/// The checksum field after a 16-bit field changed from `old` to `new` (RFC 1624 §3, equation 3). All in host order.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 §4.1, as it is written there.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn known_sums() {
        // RFC 1071 §3: the sum of these is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&[0xff; 65536]), 0);
    }

    #[test]
    fn every_length_agrees_with_the_book() {
        let bytes: Vec<u8> = (0..1500_u32).map(|i| (i * i + 7 * i) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(checksum(&bytes[..len]), by_the_book(&bytes[..len]), "{len}");
        }
        let pieces = Sum::new().bytes(&bytes[..6]).u16(0x1234).u32(0xdead_beef).bytes(&bytes[6..9]);
        let whole = [&bytes[..6], &[0x12, 0x34, 0xde, 0xad, 0xbe, 0xef], &bytes[6..9]].concat();
        assert_eq!(pieces.checksum(), by_the_book(&whole));
    }

    #[test]
    fn an_update_is_a_new_sum() {
        // RFC 1624 §4: the corner that equation 4 gets right and RFC 1141 wrong.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
        let mut bytes: Vec<u8> = (1..=20).collect();
        for new in (0..=u16::MAX).step_by(7) {
            let (before, old) = (checksum(&bytes), u16::from_be_bytes([bytes[4], bytes[5]]));
            bytes[4..6].copy_from_slice(&new.to_be_bytes());
            assert_eq!(update(before, old, new), checksum(&bytes), "{old:04x} {new:04x}");
        }
    }
}
