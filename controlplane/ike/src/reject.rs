//! Messages that are not accepted: counted by reason, and not answered unless RFC 7296 says so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reject {
    /// It is not an IKE message, or its payloads are not what they say.
    Malformed,
    /// Another major version.
    Version,
    /// No SA of ours has its SPIs.
    UnknownSpi,
    /// No profile is for where it came to, or no data plane is there.
    NoProfile,
    /// Neither the next one nor the last one.
    MessageId,
    /// It does not belong where its exchange is.
    Unexpected,
    /// Its integrity check fails.
    NotAuthentic,
    /// It lacks a payload that its exchange has to have, or a payload in it makes no sense there.
    Incomplete,
    /// A critical payload that is not known here.
    Critical,
    /// Nothing of what it proposes is accepted.
    NoProposal,
    /// A public value or a nonce that is none.
    KeyExchange,
    /// Who sent it did not prove to be who it says, or is not let in.
    Unproven,
    /// Selectors or mode that are not those of a tunnel.
    Selectors,
    /// Its cookie is missing or wrong, and the peer was sent one.
    Cookie,
    /// A fragment that does not fit to the others, or is too much.
    Fragment,
    /// A limit is reached.
    NoRoom,
    /// Too many in this second.
    RateLimited,
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Version,
        Self::UnknownSpi,
        Self::NoProfile,
        Self::MessageId,
        Self::Unexpected,
        Self::NotAuthentic,
        Self::Incomplete,
        Self::Critical,
        Self::NoProposal,
        Self::KeyExchange,
        Self::Unproven,
        Self::Selectors,
        Self::Cookie,
        Self::Fragment,
        Self::NoRoom,
        Self::RateLimited,
    ];

    /// Its name in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownSpi => "unknown-spi",
            Self::NoProfile => "no-profile",
            Self::MessageId => "message-id",
            Self::Unexpected => "unexpected",
            Self::NotAuthentic => "not-authentic",
            Self::Incomplete => "incomplete",
            Self::Critical => "critical",
            Self::NoProposal => "no-proposal",
            Self::KeyExchange => "key-exchange",
            Self::Unproven => "unproven",
            Self::Selectors => "selectors",
            Self::Cookie => "cookie",
            Self::Fragment => "fragment",
            Self::NoRoom => "no-room",
            Self::RateLimited => "rate-limited",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "The datagram is not an IKE message, or its payloads are not what they say.",
            Self::Version => "The message is of another major version of IKE.",
            Self::UnknownSpi => "No IKE SA here has the SPIs of the message.",
            Self::NoProfile => "No profile is for the address that the message came to.",
            Self::MessageId => "The message is neither the next one nor the last one of its IKE SA.",
            Self::Unexpected => "The message does not belong where its exchange is.",
            Self::NotAuthentic => "The integrity check of the message fails.",
            Self::Incomplete => "The message lacks a payload that its exchange has to have.",
            Self::Critical => "The message has a critical payload that is not known here.",
            Self::NoProposal => "Nothing of what the peer proposes is accepted by the profile.",
            Self::KeyExchange => "The message has a public value or a nonce that is none.",
            Self::Unproven => "The peer did not prove to be who it says it is, or is not let in.",
            Self::Selectors => "The traffic selectors or the mode are not those of a tunnel.",
            Self::Cookie => "The message had no good cookie; the peer was sent one.",
            Self::Fragment => "The fragment does not fit to the others, or there are too many.",
            Self::NoRoom => "A limit on IKE SAs is reached.",
            Self::RateLimited => "There were too many of these in this second.",
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
    fn names_differ_and_each_has_a_sentence() {
        let names: std::collections::BTreeSet<_> = Reject::ALL.map(Reject::name).into();
        assert_eq!(names.len(), Reject::ALL.len());
        assert!(Reject::ALL.iter().all(|reject| reject.sentence().ends_with('.')));
    }
}
