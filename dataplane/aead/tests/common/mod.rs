//! Packets for the tests.
#![allow(dead_code, unsafe_code)] // Each test uses some of it.

use std::collections::{BTreeMap, BTreeSet};

use aead::{AHEAD, Burst, Key, Packet, Provider, Soon};

/// The providers that this machine can run.
pub(crate) fn usable() -> impl Iterator<Item = Provider> {
    Provider::ALL.into_iter().filter(|provider| provider.is_usable())
}

/// A burst of texts, each with a key of some.
pub(crate) struct Texts<'k> {
    keys: &'k [Key],
    /// Which key each has.
    of: Vec<usize>,
    pub(crate) texts: Vec<Vec<u8>>,
    /// Places that are empty.
    pub(crate) skip: BTreeSet<usize>,
    /// What was said of each: authentic or not.
    pub(crate) told: BTreeMap<usize, bool>,
    /// Those that were sealed.
    pub(crate) sealed: BTreeSet<usize>,
    /// How many were looked at before their turn.
    looked: usize,
}

impl<'k> Texts<'k> {
    /// Of each its key's place, and the length of text with room for the ICV.
    pub(crate) fn new(keys: &'k [Key], texts: impl Iterator<Item = (usize, usize)>) -> Self {
        let (of, texts) = texts
            .map(|(key, length)| (key, (0..length).map(|i| (i * 7 + length) as u8 | 1).collect()))
            .unzip();
        Self {
            keys,
            of,
            texts,
            skip: BTreeSet::new(),
            told: BTreeMap::new(),
            sealed: BTreeSet::new(),
            looked: 0,
        }
    }

    /// The packet at a place, with a text of the caller's.
    pub(crate) fn packet_of<'a>(&'a self, at: usize, text: &'a mut [u8]) -> Packet<'a> {
        packet(&self.keys[self.of[at]], at, text)
    }
}

fn packet<'a>(key: &'a Key, at: usize, text: &'a mut [u8]) -> Packet<'a> {
    let number = at as u64;
    let sequence = number << 31 | number;
    Packet {
        key,
        salt: [at as u8; 4],
        iv: !number,
        sequence,
        spi: 256 + at as u32,
        esn: at.is_multiple_of(3),
        text,
    }
}

impl Burst for Texts<'_> {
    fn len(&self) -> usize {
        self.of.len()
    }

    fn packet(&mut self, at: usize) -> Option<Packet<'_>> {
        assert!(
            (at + 1..=at + 1 + AHEAD).contains(&self.looked),
            "{} were looked at before {at}",
            self.looked
        );
        (!self.skip.contains(&at)).then(|| packet(&self.keys[self.of[at]], at, &mut self.texts[at]))
    }

    fn ahead(&mut self, at: usize) -> Option<Soon> {
        if at == 0 {
            self.looked = 0;
            self.sealed.clear();
        }
        assert_eq!(at, self.looked, "each once, in order");
        self.looked += 1;
        Some(Soon::of(&self.keys[*self.of.get(at)?], &self.texts[at]))
    }

    fn sealed(&mut self, at: usize) {
        assert!(self.sealed.insert(at), "told twice of {at}");
    }

    fn opened(&mut self, at: usize, authentic: bool) {
        assert_eq!(self.told.insert(at, authentic), None, "told twice of {at}");
    }
}

/// Bytes of the pages between two that cannot be touched.
const PAGES: usize = 4096;

/// Pages with one before and one behind them that fault when touched.
pub(crate) struct Guarded {
    at: *mut u8,
}

impl Guarded {
    pub(crate) fn new() -> Self {
        // SAFETY: a new mapping, of which only the middle is made accessible.
        let at = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), PAGES + 2 * 4096, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            let middle = at.cast::<u8>().add(4096);
            assert_eq!(libc::mprotect(middle.cast(), PAGES, libc::PROT_READ | libc::PROT_WRITE), 0);
            middle
        };
        Self { at }
    }

    /// The first bytes.
    pub(crate) fn first(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= PAGES);
        // SAFETY: within the mapping, which is ours as long as we are borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.at, length) }
    }

    /// The last bytes.
    pub(crate) fn last(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= PAGES);
        // SAFETY: within the mapping, which is ours as long as we are borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(PAGES - length), length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody borrows it.
        unsafe { libc::munmap(self.at.sub(4096).cast(), PAGES + 2 * 4096) };
    }
}
