//! Why bytes were refused: the one error type of this crate.

/// Bytes that are not what their place demands: which field, what was expected there, what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the field does.
    #[error("{field}: needs {needed} bytes, {have} are there")]
    Truncated {
        /// Field or header, as its RFC names it.
        field: &'static str,
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The field holds a value that its RFC does not allow, or that this build does not speak.
    #[error("{field}: {found} is not allowed")]
    Value {
        /// Field, as its RFC names it.
        field: &'static str,
        /// The value found, in host order.
        found: u64,
    },
    /// Two lengths contradict each other, or a length its packet.
    #[error("{field}: says {says} bytes, {have} are there")]
    Length {
        /// Field, as its RFC names it.
        field: &'static str,
        /// What the field says, in bytes.
        says: usize,
        /// What is there, in bytes.
        have: usize,
    },
    /// The checksum over the header or packet does not verify.
    #[error("{0}: bad checksum")]
    Checksum(&'static str),
}
