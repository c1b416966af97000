//! The packet buffer: one contiguous packet with room before and behind it.
//!
//! It is here because both its owner on DPDK (`dpdk::Mbuf`) and its user (`forwarding`) need it, and neither may import
//! the other. Buffers are owned by a burst: they have no freeing `Drop`, whoever ends a packet's walk gives its buffer
//! back to the pool it came from.

/// One packet, contiguous, with headroom for encapsulation and tailroom for trailers.
///
/// Every resize is O(1) and moves no byte. Lengths are bytes.
pub trait PacketBuf {
    /// The packet's bytes, first byte of its outermost header first.
    fn bytes(&self) -> &[u8];

    /// The packet's bytes, writable.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Length of the packet in bytes.
    fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether the packet has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Free bytes in front of the packet.
    fn headroom(&self) -> usize;

    /// Free bytes behind the packet.
    fn tailroom(&self) -> usize;

    /// Puts `count` bytes in front of the packet and returns them (contents unspecified); `None`, and no change, without
    /// the headroom.
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]>;

    /// Puts `count` bytes behind the packet and returns them (contents unspecified); `None`, and no change, without the
    /// tailroom.
    fn append(&mut self, count: usize) -> Option<&mut [u8]>;

    /// The same, and returns the whole packet.
    #[inline(always)]
    fn grow(&mut self, count: usize) -> Option<&mut [u8]> {
        self.append(count)?;
        Some(self.bytes_mut())
    }

    /// Cuts `count` bytes off the front; `false`, and no change, if the packet is shorter.
    #[must_use]
    fn trim_front(&mut self, count: usize) -> bool;

    /// Cuts the packet to its first `len` bytes; `false`, and no change, if it is shorter.
    #[must_use]
    fn truncate(&mut self, len: usize) -> bool;

    /// Whether the port that received the packet found the checksum of its outermost IPv4 header right. `false`: it found it wrong, did not
    /// look, or may have looked at another header; then the header has to be summed to know. A word about the packet as it came: it says
    /// nothing of what was changed in it since.
    #[inline(always)]
    fn is_ipv4_summed(&self) -> bool {
        false
    }

    /// Asks the cache for the buffer's descriptor (where its length and place are kept). A hint: does nothing by default.
    #[inline(always)]
    fn prefetch_descriptor(&self) {}

    /// Asks the cache for the first bytes of the packet; reads the descriptor. A hint: does nothing by default.
    #[inline(always)]
    fn prefetch_bytes(&self) {}

    /// Asks the cache for descriptor and first bytes of a packet that a port has just put into a fresh buffer: where they are then is known
    /// without the descriptor. A hint: does nothing by default.
    #[inline(always)]
    fn prefetch_received(&self) {}

    /// Asks the cache for the byte so far before the first one of such a packet. A hint: does nothing by default.
    #[inline(always)]
    fn prefetch_before_received(&self, _before: usize) {}
}

/// A packet buffer on the heap, for tests: 256 bytes of headroom, as much room behind as asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct TestBuf {
    storage: Vec<u8>,
    start: usize,
    end: usize,
    is_ipv4_summed: bool,
}

impl TestBuf {
    /// Headroom of a new buffer in bytes.
    pub const HEADROOM: usize = 256;
    /// Tailroom of a new buffer in bytes.
    pub const TAILROOM: usize = 256;

    /// A buffer that holds `packet`.
    #[must_use]
    pub fn new(packet: &[u8]) -> Self {
        Self::with_room(Self::HEADROOM, packet, Self::TAILROOM)
    }

    /// A buffer that holds `packet` with `headroom` free bytes before and `tailroom` behind it.
    #[must_use]
    pub fn with_room(headroom: usize, packet: &[u8], tailroom: usize) -> Self {
        let mut storage = vec![0; headroom + packet.len() + tailroom];
        storage[headroom..headroom + packet.len()].copy_from_slice(packet);
        Self { storage, start: headroom, end: headroom + packet.len(), is_ipv4_summed: false }
    }

    /// The same, and its port says that it found the IPv4 header's checksum right.
    #[must_use]
    pub fn ipv4_summed(self) -> Self {
        Self { is_ipv4_summed: true, ..self }
    }
}

impl std::fmt::Debug for TestBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestBuf[{}]", self.len())?;
        self.bytes().iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

impl PacketBuf for TestBuf {
    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.storage.len() - self.end
    }

    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        Some(&mut self.storage[self.start..self.start + count])
    }

    fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = self.end;
        self.end += count;
        Some(&mut self.storage[old..self.end])
    }

    fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.len();
        if fits {
            self.start += count;
        }
        fits
    }

    fn truncate(&mut self, len: usize) -> bool {
        let fits = len <= self.len();
        if fits {
            self.end = self.start + len;
        }
        fits
    }

    fn is_ipv4_summed(&self) -> bool {
        self.is_ipv4_summed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizes_move_no_byte_and_refuse_without_room() {
        let mut buf = TestBuf::with_room(4, &[1, 2, 3], 2);
        assert!(buf.prepend(5).is_none());
        buf.prepend(2).unwrap().copy_from_slice(&[8, 9]);
        assert_eq!(buf.bytes(), [8, 9, 1, 2, 3]);
        assert!(buf.append(3).is_none());
        buf.append(1).unwrap()[0] = 7;
        assert_eq!((buf.bytes(), buf.headroom(), buf.tailroom()), (&[8, 9, 1, 2, 3, 7][..], 2, 1));
        assert!(!buf.trim_front(7) && buf.trim_front(2) && !buf.truncate(5) && buf.truncate(3));
        assert_eq!(buf.bytes(), [1, 2, 3]);
    }
}
