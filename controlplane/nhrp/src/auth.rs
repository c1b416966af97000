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

/// Gives a message the text of the tunnel that it leaves by, and no other: in the place of the one it came with, else last.
/// An error indication that has no extensions gets none; that of a peer which gives it some is passed on as any message.
pub(crate) fn renew(message: &mut Message, text: Option<&str>) {
    let is_authentication = |e: &Extension| e.kind() == ExtensionType::AUTHENTICATION;
    let is_bare =
        message.extensions.is_none() && (text.is_none() || matches!(message.body, Body::Error { .. }));
    if is_bare {
        return;
    }
    let extensions = message.extensions.get_or_insert_default();
    let place = extensions.iter().position(is_authentication);
    extensions.retain(|e| !is_authentication(e));
    if let Some(text) = text {
        let renewed = Extension::new(ExtensionType::AUTHENTICATION, true, value(text));
        extensions.insert(place.unwrap_or(extensions.len()), renewed);
    }
}

fn value(text: &str) -> Vec<u8> {
    [&CLEARTEXT, text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use wire::nhrp::{ErrorCode, Families, Family};

    use super::*;

    fn error(extensions: Option<Vec<Extension>>) -> Message {
        Message {
            families: Families { nbma: Family::V4, protocol: Family::V4 },
            hop_count: 255,
            source_nbma: None,
            source: None,
            destination: None,
            body: Body::Error { code: ErrorCode::LOOP_DETECTED, offset: 0, packet: Vec::new() },
            extensions,
        }
    }

    /// Input: error indications as RFC 2332 has them and as others make them. Output: the text of one tunnel never leaves by another.
    #[test]
    fn an_error_indication_that_is_passed_on_has_the_text_of_its_way_or_none() {
        let tag = |text| Extension::new(ExtensionType::AUTHENTICATION, true, value(text));
        let other = Extension::empty(ExtensionType::NAT, false);
        let renewed = |extensions, text| {
            let mut message = error(extensions);
            renew(&mut message, text);
            message.extensions
        };
        assert_eq!(renewed(None, Some("wheel")), None);
        let came = vec![tag("axle"), other.clone(), tag("axle")];
        assert_eq!(renewed(Some(came.clone()), Some("wheel")), Some(vec![tag("wheel"), other.clone()]));
        assert_eq!(renewed(Some(came), None), Some(vec![other.clone()]));
        assert_eq!(renewed(Some(vec![other.clone()]), Some("wheel")), Some(vec![other, tag("wheel")]));
    }
}
