//! Bytes as a script: whatever they are, they are numbers, and then they end.

/// What is left of the bytes.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl Script<'_> {
    /// The next byte; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or zero.
    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// The next two.
    pub(crate) fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next bit of a byte: no or yes.
    pub(crate) fn flip(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// One of so many, from 0.
    pub(crate) fn of(&mut self, many: usize) -> usize {
        usize::from(self.byte()) % many.max(1)
    }

    /// Up to so many bytes as they are.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken.to_vec()
    }
}
