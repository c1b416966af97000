//! Cache lines.

use core::ops::{Deref, DerefMut};
use zerocopy::{FromZeros, KnownLayout};

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// A value that starts on a cache line of its own and shares none: what two cores write must not share a line, and
/// what one packet reads should not straddle two.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, FromZeros, KnownLayout)]
#[repr(C, align(64))]
pub struct LineAligned<T>(pub T);

impl<T> Deref for LineAligned<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for LineAligned<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_no_line() {
        let pair = [LineAligned(1_u8), LineAligned(2)];
        let place = |value: &u8| core::ptr::from_ref(value).addr();
        assert_eq!(place(&pair[0]) % LINE, 0);
        assert_eq!(place(&pair[1]) - place(&pair[0]), LINE);
        assert_eq!(*pair[1], 2);
    }
}
