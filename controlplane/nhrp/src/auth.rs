//! The authentication extension (RFC 2332 §5.3.4) as the field uses it: a text in clear, checked and made anew at every hop.
//! It keeps apart clouds that were plugged together by mistake; who must be kept out is kept out by IKE.

use wire::nhrp::{Body, Extension, ExtensionType, Message};

use crate::Reject;

/// What stands before the text: reserved, and SPI 1 "the text itself follows" (IOS; FRR).
const CLEARTEXT: [u8; 4] = [0, 0, 0, 1];

/// Checks a message against the text that its tunnel wants, if any.
///
/// An error indication without extensions passes: RFC 2332 §5.2.7 allows it none, and nothing is done upon one.
pub(crate) fn check(message: &Message, text: Option<&str>) -> Result<(), Reject> {
    let Some(text) = text else { return Ok(()) };
    if matches!(message.body, Body::Error { .. }) && message.extensions.is_none() {
        return Ok(());
    }
    let given = message.extension(ExtensionType::AUTHENTICATION).ok_or(Reject::Authentication)?;
    let wanted = value(text);
    let given = given.value();
    // In constant time for each length; which length it has is no secret.
    let differs =
        given.len() != wanted.len() || given.iter().zip(&wanted).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
    if differs { Err(Reject::Authentication) } else { Ok(()) }
}

/// Gives a message the text of the tunnel that it leaves by: in the place of the one it came with, else last.
/// Error indications have no extensions.
pub(crate) fn renew(message: &mut Message, text: Option<&str>) {
    if matches!(message.body, Body::Error { .. }) {
        return;
    }
    let Some(text) = text else {
        if let Some(extensions) = &mut message.extensions {
            extensions.retain(|e| e.kind() != ExtensionType::AUTHENTICATION);
        }
        return;
    };
    let renewed = Extension::new(ExtensionType::AUTHENTICATION, true, value(text));
    match message.extension_mut(ExtensionType::AUTHENTICATION) {
        Some(old) => *old = renewed,
        None => message.extensions.get_or_insert_default().push(renewed),
    }
}

fn value(text: &str) -> Vec<u8> {
    [&CLEARTEXT, text.as_bytes()].concat()
}
