//! Prefetch hints. None of them reads memory as far as the language is concerned, so every address is allowed: a hint
//! for an unmapped one is dropped by the processor.

/// Asks for the cache line at `address`, for reading or writing soon, in all cache levels.
#[inline(always)]
pub fn prefetch_address<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that neither faults nor changes memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: as above; `prfm` has no effect that the language can see.
        unsafe {
            core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// Asks for the first cache line of `value`.
#[inline(always)]
pub fn prefetch_read<T>(value: &T) {
    prefetch_address(value);
}

/// Asks for the first cache line of `slice[index]`; any index is allowed, one past the end is a useless hint.
#[inline(always)]
pub fn prefetch_slice<T>(slice: &[T], index: usize) {
    prefetch_address(slice.as_ptr().wrapping_add(index));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_allowed() {
        let values = [1_u64, 2, 3];
        prefetch_read(&values[0]);
        prefetch_slice(&values, usize::MAX / 16);
        prefetch_address(core::ptr::null::<u8>());
        assert_eq!(values, [1, 2, 3]);
    }
}
