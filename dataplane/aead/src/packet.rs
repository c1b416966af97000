//! What is sealed and opened.

use crate::Key;

/// Bytes of the integrity check value behind the ciphertext (RFC 4106 §6: the 16 of AES-GCM-16).
pub const ICV: usize = 16;

/// Longest text, its ICV included, in bytes. No IP packet is longer; GCM could do 2³⁶ − 32.
pub const MOST_TEXT: usize = 1 << 20;

/// One ESP packet under its key.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The SA's key.
    pub key: &'a Key,
    /// The SA's salt: the first four bytes of the nonce (RFC 4106 §4).
    pub salt: [u8; 4],
    /// The IV on the wire, big-endian there: the other eight. Under one key and salt each is used once; we take the sequence number,
    /// peers may have a counter of their own.
    pub iv: u64,
    /// The sequence number, without ESN below 2³².
    pub sequence: u64,
    /// The SPI.
    pub spi: u32,
    /// Whether all 64 bits of the sequence number are authenticated (RFC 4106 §5), or the low 32.
    pub esn: bool,
    /// What is encrypted, payload to next header, then room for the ICV, or the ICV.
    pub text: &'a mut [u8],
}

/// What of a packet whose turn comes soon is to be asked of memory.
#[derive(Debug, Clone, Copy)]
pub struct Soon {
    /// Where its key is.
    pub key: *const Key,
    /// Where its text begins.
    pub text: *const u8,
    /// Bytes of the text, its ICV included.
    pub length: usize,
}

/// How many places before its turn a packet is looked at, at most.
pub const AHEAD: usize = 3;

/// A burst of packets, as the caller holds it. Its methods are called from within a kernel's loop and should inline there: what the caller
/// has to do with a packet before and after is done there as well, while its lines are in the first cache.
///
/// ```text
///   ahead(0), ahead(1), ahead(2),  ahead(3), packet(0), sealed(0),  ahead(4), packet(1), sealed(1),  …
/// ```
#[allow(clippy::len_without_is_empty)] // Nobody asks.
pub trait Burst {
    /// How many packets there may be.
    fn len(&self) -> usize;

    /// A look at a packet before its turn, once for each place in order, up to [`AHEAD`] places before its turn; `at` may be past the end.
    /// Where its key and text are, if that is known: what is wanted of both is asked of memory.
    fn ahead(&mut self, at: usize) -> Option<Soon>;

    /// The packet at a place below [`Burst::len`]; none: it is passed over.
    fn packet(&mut self, at: usize) -> Option<Packet<'_>>;

    /// Told of each packet that was given to [`seal`](crate::seal).
    fn sealed(&mut self, at: usize);

    /// Told of each packet that was given to [`open`](crate::open) whether it is authentic, in order; it may be that the next one is opened
    /// before that. If not, its text is worth nothing.
    fn opened(&mut self, at: usize, authentic: bool);
}

impl Soon {
    /// Of a key and a text that are there.
    #[inline(always)]
    #[must_use]
    pub fn of(key: &Key, text: &[u8]) -> Self {
        Self { key, text: text.as_ptr(), length: text.len() }
    }
}

impl Packet<'_> {
    /// Whether the text can be sealed or opened.
    pub(crate) fn is_possible(&self) -> bool {
        (ICV..=MOST_TEXT).contains(&self.text.len())
    }

    /// The nonce: salt and IV (RFC 4106 §4).
    pub(crate) fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&self.iv.to_be_bytes());
        nonce
    }

    /// What is authenticated besides (RFC 4106 §5), and how many bytes of that count: SPI and sequence number, which with ESN has its
    /// high half first.
    pub(crate) fn aad(&self) -> ([u8; 12], usize) {
        let mut aad = [0; 12];
        aad[..4].copy_from_slice(&self.spi.to_be_bytes());
        if self.esn {
            aad[4..].copy_from_slice(&self.sequence.to_be_bytes());
            return (aad, 12);
        }
        aad[4..8].copy_from_slice(&(self.sequence as u32).to_be_bytes());
        (aad, 8)
    }
}
