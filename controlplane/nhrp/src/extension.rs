//! Extensions of messages of types 1 to 6 (RFC 2332 §5.3): which of them keep a message from being acted upon, and where they stand.

use wire::nhrp::{Extension, ExtensionType, Message};

/// Those that are known here.
const KNOWN: [ExtensionType; 6] = [
    ExtensionType::RESPONDER,
    ExtensionType::FORWARD_TRANSIT,
    ExtensionType::REVERSE_TRANSIT,
    ExtensionType::AUTHENTICATION,
    ExtensionType::VENDOR,
    ExtensionType::NAT,
];

/// The place in the list of the first compulsory extension that is not known here.
pub(crate) fn unrecognized(message: &Message) -> Option<usize> {
    all(message).position(|e| e.compulsory() && !KNOWN.contains(&e.kind()))
}

/// The place in the list of the first known extension that is not what it must be: it stands there a second time, or is not made of
/// entries. Number 9 has another meaning in RFC 2735, so one that may be ignored is, if it cannot be read.
pub(crate) fn invalid(message: &Message) -> Option<usize> {
    all(message).enumerate().position(|(i, extension)| {
        let kind = extension.kind();
        let is_of_entries = match kind {
            ExtensionType::RESPONDER | ExtensionType::FORWARD_TRANSIT | ExtensionType::REVERSE_TRANSIT => {
                true
            }
            ExtensionType::NAT => extension.compulsory(),
            _ => false,
        };
        let is_single = KNOWN.contains(&kind) && kind != ExtensionType::VENDOR;
        (is_single && all(message).take(i).any(|e| e.kind() == kind))
            || (is_of_entries && extension.entries(message.families).is_err())
    })
}

/// Where an extension stands in the packet that the message was read from, in bytes.
pub(crate) fn offset(message: &Message, place: usize, bytes: &[u8]) -> u16 {
    let first = bytes.get(14..16).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let before: usize = all(message).take(place).map(Extension::size).sum();
    u16::try_from(before).map_or(0, |before| first.saturating_add(before))
}

fn all(message: &Message) -> impl Iterator<Item = &Extension> {
    message.extensions.iter().flatten()
}
