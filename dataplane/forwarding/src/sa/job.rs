//! Packets of a walk on their way through a cipher: those that were looked at and whose turn has not come, and the one whose turn it is.

/// Places for them: those that are looked at ahead, the one whose turn it is, and the one before, which may still be to be told of; a power
/// of two.
const PLACES: usize = 8;

const _: () = assert!(PLACES > aead::AHEAD + 1 && PLACES.is_power_of_two());

/// What is known of each of a few packets in a row, by its place in the burst. `None`: it goes no further here.
#[derive(Debug)]
pub(crate) struct Jobs<J>([Option<J>; PLACES]);

impl<J> Jobs<J> {
    pub(crate) const fn new() -> Self {
        Self([const { None }; PLACES])
    }

    /// That of a place.
    #[inline(always)]
    pub(crate) fn at(&mut self, at: usize) -> &mut Option<J> {
        &mut self.0[at % PLACES]
    }
}
