//! Identities as ID payloads and certificates carry them (RFC 7296 §3.5; RFC 4945 §3.1), and distinguished names as text (RFC 4514).

use std::fmt::Write;
use std::net::IpAddr;

use model::ike::{Identity, IdentityPattern};
use wire::ike::Identification;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::SetOfVec;
use x509_cert::der::{Decode, Encode};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

use crate::credential::Unproven;

/// ID types (RFC 7296 §3.5).
const IPV4_ADDRESS: u8 = 1;
const FQDN: u8 = 2;
const RFC822_ADDRESS: u8 = 3;
const IPV6_ADDRESS: u8 = 5;
const DER_NAME: u8 = 9;
const KEY_ID: u8 = 11;

/// Bytes that an identity has at most: it is kept for each peer, and logged.
const MOST: usize = 512;

/// Who is meant by the body of an ID payload.
///
/// # Errors
/// It is of a type that is not taken, is not what its type says, or its text would be read as another identity: one that looks like somebody
/// else is nobody.
pub fn identity_of(id: &Identification) -> Result<Identity, Unproven> {
    if id.data.len() > MOST {
        return Err(Unproven(format!("peer's identity has {} bytes; {MOST} are the most", id.data.len())));
    }
    let text = || std::str::from_utf8(&id.data).ok().map(str::to_owned);
    let identity = match id.kind {
        IPV4_ADDRESS => <[u8; 4]>::try_from(&id.data[..]).ok().map(|v4| Identity::Address(v4.into())),
        IPV6_ADDRESS => <[u8; 16]>::try_from(&id.data[..]).ok().map(|v6| Identity::Address(v6.into())),
        FQDN => text().map(Identity::Fqdn),
        RFC822_ADDRESS => text().map(Identity::Email),
        DER_NAME => Name::from_der(&id.data).ok().map(|name| Identity::Dn(name_text(&name))),
        KEY_ID => Some(Identity::KeyId(id.data.clone())),
        kind => return Err(Unproven(format!("peer's identity is of type {kind}, which is not taken"))),
    };
    let is_itself = |identity: &Identity| identity.to_string().parse().as_ref() == Ok(identity);
    identity
        .filter(is_itself)
        .ok_or_else(|| Unproven(format!("peer's identity is none of its type, {}", kind_word(id.kind))))
}

fn kind_word(kind: u8) -> &'static str {
    match kind {
        IPV4_ADDRESS => "IPv4 address",
        FQDN => "FQDN",
        RFC822_ADDRESS => "mail address",
        IPV6_ADDRESS => "IPv6 address",
        DER_NAME => "distinguished name",
        _ => "key id",
    }
}

/// The body of an ID payload; `None` if a distinguished name is none.
pub(crate) fn identification_of(identity: &Identity) -> Option<Identification> {
    let (kind, data) = match identity {
        Identity::Address(IpAddr::V4(v4)) => (IPV4_ADDRESS, v4.octets().to_vec()),
        Identity::Address(IpAddr::V6(v6)) => (IPV6_ADDRESS, v6.octets().to_vec()),
        Identity::Fqdn(text) => (FQDN, text.as_bytes().to_vec()),
        Identity::Email(text) => (RFC822_ADDRESS, text.as_bytes().to_vec()),
        Identity::Dn(text) => (DER_NAME, name_of(text)?.to_der().ok()?),
        Identity::KeyId(bytes) => (KEY_ID, bytes.clone()),
    };
    Some(Identification { kind, data })
}

/// A distinguished name as text: the last relative name first, as RFC 4514 §2.1 has it. Names that differ in the type of a string alone have
/// the same text.
pub(crate) fn name_text(name: &Name) -> String {
    let mut text = String::new();
    // What cannot be written is nobody's name.
    if write!(text, "{}", name.as_ref()).is_err() {
        text.clear();
    }
    text
}

/// A distinguished name of text (RFC 4514 §3), with spaces around `,`, `+` and `=` that do not count; `None` if it is none.
pub(crate) fn name_of(text: &str) -> Option<Name> {
    let mut names = Vec::new();
    for relative in split(text, ',') {
        let attributes = split(relative, '+').into_iter().map(attribute).collect::<Option<Vec<_>>>()?;
        names.push(RelativeDistinguishedName::from(SetOfVec::try_from(attributes).ok()?));
    }
    names.reverse();
    let sequence = RdnSequence::from(names);
    // The way over DER, since a name is not made of its parts otherwise.
    Name::from_der(&sequence.to_der().ok()?).ok()
}

fn attribute(text: &str) -> Option<AttributeTypeAndValue> {
    let (kind, value) = text.split_once('=')?;
    let value = value.trim_start();
    let end = value.trim_end();
    // A space that is escaped belongs to the value.
    let escapes = end.chars().rev().take_while(|c| *c == '\\').count();
    let end = if escapes % 2 == 1 { value.get(..end.len() + 1)? } else { end };
    format!("{}={end}", kind.trim()).parse().ok()
}

/// Parts between separators that are not escaped.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut is_escaped) = (0, false);
    for (at, c) in text.char_indices() {
        if c == separator && !is_escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// An identity that the operator wrote, with a distinguished name as others are written: canonical.
pub(crate) fn canonical(identity: &Identity) -> Identity {
    match identity {
        Identity::Dn(text) => {
            Identity::Dn(name_of(text).map_or_else(|| text.clone(), |name| name_text(&name)))
        }
        other => other.clone(),
    }
}

/// Whether an identity, canonical, is meant by a pattern that the operator wrote.
pub(crate) fn is_admitted(pattern: &IdentityPattern, identity: &Identity) -> bool {
    match (pattern, identity) {
        (IdentityPattern::One(one @ Identity::Dn(_)), Identity::Dn(_)) => canonical(one) == *identity,
        (pattern, identity) => pattern.admits(identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_go_into_payloads_and_come_back() {
        for (text, kind) in [
            ("192.0.2.1", 1),
            ("hub.example", 2),
            ("admin@example", 3),
            ("2001:db8::1", 5),
            ("CN=hub,O=Example", 9),
            ("keyid:00ff", 11),
        ] {
            let identity: Identity = text.parse().unwrap();
            let id = identification_of(&identity).unwrap();
            assert_eq!(id.kind, kind);
            assert_eq!(identity_of(&id), Ok(identity));
        }
        assert_eq!(identification_of(&Identity::Dn("CN".to_owned())), None);
        // CN=hub,O=Example: O comes first in DER.
        let name = name_of("CN=hub,O=Example").unwrap().to_der().unwrap();
        let position = |part: &[u8]| name.windows(part.len()).position(|window| window == part).unwrap();
        assert!(position(b"Example") < position(b"hub"));
    }

    /// Its text in the log, in `show` and between the processes would be that of somebody else.
    #[test]
    fn an_identity_that_looks_like_another_one_is_refused() {
        for (kind, data) in [
            (2, &b"192.0.2.1"[..]),
            (2, b"CN=hub"),
            (2, b"admin@example"),
            (2, b"keyid:00"),
            (2, b"hub\n.example"),
            (2, b"hub\xff"),
            (2, b"two words"),
            (2, b""),
            (3, b"hub.example"),
            (3, b"CN=a@b"),
            (1, &[1, 2, 3]),
            (1, &[0; 16]),
            (5, &[0; 4]),
            (9, b"CN=hub"),
            (9, &[0x30, 0]),
            (11, b""),
            (4, &[0; 8]),
            (2, &[b'a'; 513]),
        ] {
            let refused = identity_of(&Identification { kind, data: data.to_vec() });
            assert!(refused.unwrap_err().0.starts_with("peer's identity "), "{kind} {data:?}");
        }
    }

    /// RFC 4514 §2, §3, §4.
    #[test]
    fn distinguished_names_have_one_text() {
        for (written, canonical) in [
            ("CN=hub,O=Example", "CN=hub,O=Example"),
            ("cn=hub , o = Example", "CN=hub,O=Example"),
            ("OU=Sales+CN=J.  Smith,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net"),
            ("CN=J.  Smith+OU=Sales,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net"),
            (r#"CN=James \"Jim\" Smith\, III,O=Example"#, r#"CN=James \"Jim\" Smith\, III,O=Example"#),
            (r"CN=ends with \\,O=Example", r"CN=ends with \\,O=Example"),
            (r"CN=ends with\ ,O=Example", r"CN=ends with\ ,O=Example"),
            (r"CN=\ begins,O=\#1", r"CN=\ begins,O=\#1"),
            (r"CN=Lu\C4\8Di\C4\87", "CN=Lučić"),
            ("2.5.4.3=hub", "CN=hub"),
        ] {
            let name = name_of(written).unwrap();
            assert_eq!(name_text(&name), canonical, "{written}");
            assert_eq!(name_of(canonical).unwrap(), name, "{written}");
        }
        for text in ["", "CN", "nonsense=1", "CN=a,,O=b", "=x"] {
            assert!(name_of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn patterns_mean_distinguished_names_however_they_are_written() {
        let admits = |pattern: &str, identity: &str| {
            is_admitted(&pattern.parse().unwrap(), &canonical(&identity.parse().unwrap()))
        };
        assert!(admits("cn=hub, o=Example", "CN=hub,O=Example"));
        assert!(!admits("CN=hub,O=Example", "CN=hub,O=Examples"));
        assert!(!admits("CN=hub,O=Example", "O=Example,CN=hub"));
        assert!(admits("*.example", "hub.example"));
    }
}
