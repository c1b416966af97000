//! Why a message, or what the data plane told us, was not acted upon. Each is counted.

use std::fmt;

use serde::{Deserialize, Serialize};
use wire::Malformed;

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reject {
    /// The bytes end too early.
    Truncated,
    /// A field holds what it must not.
    Malformed,
    /// The checksum is wrong.
    Checksum,
    /// No NHRP on this tunnel.
    NoTunnel,
    /// Missing or wrong authentication.
    Authentication,
    /// A compulsory extension that is not known here.
    UnrecognizedExtension,
    /// A known extension that stands there twice, or cannot be read.
    InvalidExtension,
    /// It came back to us.
    Loop,
    /// Its hop count is used up.
    HopCount,
    /// An address in it is missing, our own, or none that a peer can have.
    Address,
    /// An answer to nothing that was asked.
    Unsolicited,
    /// It asks for what the configuration does not allow.
    Prohibited,
    /// The address is registered from elsewhere, uniquely.
    AlreadyRegistered,
    /// The binding that was asked for is not unique.
    NotUnique,
    /// Nobody here knows the address.
    NoBinding,
    /// No way to whom it is for.
    Unreachable,
    /// With what is added on its way it is larger than that way takes.
    TooLong,
    /// The way to a node behind a NAT, which nothing has come by yet.
    Unproven,
    /// A traffic indication for a flow that does not begin here.
    Intermediate,
    /// The flow was redirected a moment ago.
    Redirected,
    /// A limit is reached.
    NoRoom,
    /// Too many in this second.
    RateLimited,
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Truncated,
        Self::Malformed,
        Self::Checksum,
        Self::NoTunnel,
        Self::Authentication,
        Self::UnrecognizedExtension,
        Self::InvalidExtension,
        Self::Loop,
        Self::HopCount,
        Self::Address,
        Self::Unsolicited,
        Self::Prohibited,
        Self::AlreadyRegistered,
        Self::NotUnique,
        Self::NoBinding,
        Self::Unreachable,
        Self::TooLong,
        Self::Unproven,
        Self::Intermediate,
        Self::Redirected,
        Self::NoRoom,
        Self::RateLimited,
    ];

    /// Its name in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::NoTunnel => "no-tunnel",
            Self::Authentication => "authentication",
            Self::UnrecognizedExtension => "unrecognized-extension",
            Self::InvalidExtension => "invalid-extension",
            Self::Loop => "loop",
            Self::HopCount => "hop-count",
            Self::Address => "address",
            Self::Unsolicited => "unsolicited",
            Self::Prohibited => "prohibited",
            Self::AlreadyRegistered => "already-registered",
            Self::NotUnique => "not-unique",
            Self::NoBinding => "no-binding",
            Self::Unreachable => "unreachable",
            Self::TooLong => "too-long",
            Self::Unproven => "unproven",
            Self::Intermediate => "intermediate",
            Self::Redirected => "redirected",
            Self::NoRoom => "no-room",
            Self::RateLimited => "rate-limited",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Truncated => "The message ends before its fields do.",
            Self::Malformed => "A field of the message holds a value that RFC 2332 does not allow.",
            Self::Checksum => "The message's checksum is wrong.",
            Self::NoTunnel => "The message came by a tunnel that runs no NHRP.",
            Self::Authentication => "The authentication extension is missing or wrong.",
            Self::UnrecognizedExtension => "The message has a compulsory extension that is not known here.",
            Self::InvalidExtension => "An extension of the message stands there twice or cannot be read.",
            Self::Loop => "The message came back to a node that it had passed.",
            Self::HopCount => "The message had passed as many servers as it may.",
            Self::Address => "An address is missing, is our own, or is none that a peer can have.",
            Self::Unsolicited => "A reply came to a request that is not outstanding.",
            Self::Prohibited => "The configuration does not allow what was asked for.",
            Self::AlreadyRegistered => {
                "The protocol address is registered uniquely from another NBMA address."
            }
            Self::NotUnique => "A unique binding was asked for, and the one that there is is not.",
            Self::NoBinding => "No binding is known for the address that was asked for.",
            Self::Unreachable => "There is no way to whom the message, or the packet in it, is for.",
            Self::TooLong => "The message is larger than the way on takes.",
            Self::Unproven => {
                "The way to a node behind a NAT is not taken: nothing came straight from there."
            }
            Self::Intermediate => "A redirect for a packet whose source is not behind this node.",
            Self::Redirected => "The sender of the packet was told of a better way a moment ago.",
            Self::NoRoom => "A limit on entries is reached.",
            Self::RateLimited => "There were too many of these in this second.",
        }
    }
}

impl From<Malformed> for Reject {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated { .. } => Self::Truncated,
            Malformed::Checksum(_) => Self::Checksum,
            Malformed::Value { .. } | Malformed::Length { .. } => Self::Malformed,
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_serde_has_them_and_differ() {
        let names: std::collections::BTreeSet<_> = Reject::ALL.map(Reject::name).into();
        assert_eq!(names.len(), Reject::ALL.len());
        for reject in Reject::ALL {
            assert_eq!(serde_json::to_value(reject).unwrap(), reject.name());
            assert!(reject.sentence().ends_with('.'));
        }
    }
}
