//! What numbers are called where people read them.

use std::fmt;

use super::{CieCode, ErrorCode, ExtensionType, Family, Flags, MessageType};

impl MessageType {
    /// Its name, as dissectors have it but in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResolutionRequest => "resolution-request",
            Self::ResolutionReply => "resolution-reply",
            Self::RegistrationRequest => "registration-request",
            Self::RegistrationReply => "registration-reply",
            Self::PurgeRequest => "purge-request",
            Self::PurgeReply => "purge-reply",
            Self::ErrorIndication => "error-indication",
            Self::TrafficIndication => "traffic-indication",
        }
    }

    /// What the flags are called that are set and have a meaning in this type.
    #[must_use]
    pub fn flag_names(self, flags: Flags) -> Vec<&'static str> {
        let resolution: &[_] = &[
            (Flags::ROUTER, "router"),
            (Flags::AUTHORITATIVE, "authoritative"),
            (Flags::DESTINATION_STABLE, "destination-stable"),
            (Flags::UNIQUE_WANTED, "unique"),
            (Flags::SOURCE_STABLE, "source-stable"),
            (Flags::NAT, "nat"),
        ];
        let names = match self {
            Self::ResolutionRequest | Self::ResolutionReply => resolution,
            Self::RegistrationRequest | Self::RegistrationReply => {
                &[(Flags::UNIQUE, "unique"), (Flags::NAT, "nat")]
            }
            Self::PurgeRequest | Self::PurgeReply => &[(Flags::NO_REPLY, "no-reply")],
            Self::ErrorIndication | Self::TrafficIndication => &[],
        };
        names.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Family {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl CieCode {
    /// Its name (RFC 2332 §5.2.2, §5.2.4); `None` if it has none there.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SUCCESS => "success",
            Self::ADMINISTRATIVELY_PROHIBITED => "administratively prohibited",
            Self::INSUFFICIENT_RESOURCES => "insufficient resources",
            Self::NO_BINDING => "no binding exists",
            Self::NOT_UNIQUE => "binding is not unique",
            Self::ALREADY_REGISTERED => "unique address already registered",
            _ => return None,
        })
    }
}

impl ErrorCode {
    /// Those of RFC 2332, in order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::UNRECOGNIZED_EXTENSION,
        Self::LOOP_DETECTED,
        Self::PROTOCOL_ADDRESS_UNREACHABLE,
        Self::PROTOCOL_ERROR,
        Self::SDU_SIZE_EXCEEDED,
        Self::INVALID_EXTENSION,
        Self::INVALID_RESOLUTION_REPLY,
        Self::AUTHENTICATION_FAILURE,
        Self::HOP_COUNT_EXCEEDED,
    ];

    /// Its name (RFC 2332 §5.2.7; RFC 2735 §4); `None` if it has none there.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::UNRECOGNIZED_EXTENSION => "unrecognized extension",
            Self::LOOP_DETECTED => "loop detected",
            Self::PROTOCOL_ADDRESS_UNREACHABLE => "protocol address unreachable",
            Self::PROTOCOL_ERROR => "protocol error",
            Self::SDU_SIZE_EXCEEDED => "SDU size exceeded",
            Self::INVALID_EXTENSION => "invalid extension",
            Self::INVALID_RESOLUTION_REPLY => "invalid resolution reply",
            Self::AUTHENTICATION_FAILURE => "authentication failure",
            Self::HOP_COUNT_EXCEEDED => "hop count exceeded",
            Self(16) => "VPN mismatch",
            Self(17) => "VPN unsupported",
            _ => return None,
        })
    }
}

impl ExtensionType {
    /// Its name (RFC 2332 §5.3; RFC 2520; of the field); `None` if it has none.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::RESPONDER => "responder",
            Self::FORWARD_TRANSIT => "forward-transit",
            Self::REVERSE_TRANSIT => "reverse-transit",
            Self::AUTHENTICATION => "authentication",
            Self::VENDOR => "vendor",
            Self::NAT => "nat",
            Self::MOBILE_AUTHENTICATION => "mobile-authentication",
            _ => return None,
        })
    }
}
