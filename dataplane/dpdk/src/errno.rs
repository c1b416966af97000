//! DPDK's error numbers.

use std::ffi::{CStr, c_int};
use std::fmt;

/// An error number as DPDK gives it: POSIX's, or one of its own above 1000. Displays as its sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `rte_errno`, which calls that return null or -1 have set.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer.
        Self(unsafe { dpdk_sys::nave_rte_errno() })
    }

    /// `Ok` with the value of a call that returns a negative error number on failure.
    pub(crate) fn check(returned: c_int) -> Result<c_int, Self> {
        if returned < 0 { Err(Self(-returned)) } else { Ok(returned) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror returns a string that lives until the thread's next call of it.
        let text = unsafe {
            let text = dpdk_sys::rte_strerror(self.0);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy()) }
        };
        match text {
            Some(text) => write!(f, "{text} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl std::error::Error for Errno {}

/// `ENOTSUP`: the driver has no such operation.
pub(crate) const ENOTSUP: Errno = Errno(nix::errno::Errno::EOPNOTSUPP as i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_sentences() {
        assert_eq!(Errno::check(3), Ok(3));
        assert_eq!(Errno::check(-19).unwrap_err().to_string(), "No such device (19)");
        assert_eq!(ENOTSUP.0, 95);
    }
}
