//! How a fixed header is laid over bytes: one length check, then plain field reads.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;

/// The first bytes as an `H`, and what follows it.
#[inline(always)]
pub(crate) fn split<'a, H>(bytes: &'a [u8], field: &'static str) -> Result<(&'a H, &'a [u8]), Malformed>
where
    H: FromBytes + KnownLayout + Immutable + Unaligned,
{
    H::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated {
        field,
        needed: size_of::<H>(),
        have: bytes.len(),
    })
}

/// As [`split`], writable.
#[inline(always)]
pub(crate) fn split_mut<'a, H>(
    bytes: &'a mut [u8],
    field: &'static str,
) -> Result<(&'a mut H, &'a mut [u8]), Malformed>
where
    H: FromBytes + IntoBytes + KnownLayout + Unaligned,
{
    let have = bytes.len();
    H::mut_from_prefix(bytes).map_err(|_| Malformed::Truncated { field, needed: size_of::<H>(), have })
}
