//! Messages that are not accepted: counted by reason, and not answered unless RFC 7296 says so.

use serde::{Deserialize, Serialize};

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reject {
    /// It is not an IKE message, or its payloads are not what they say.
    Malformed,
    /// No SA of ours has its SPIs.
    UnknownSpi,
}
