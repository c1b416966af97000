//! IKEv2 (RFC 7296) in the words that operators write and read: algorithms, proposals, identities.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{NotA, Prefix, serde_as_text};
use crate::sa::Suite;

/// Gives an enumeration its words, in one table.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All of them, the preferred ones first.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $name {
            type Err = NotA;
            fn from_str(text: &str) -> Result<Self, NotA> {
                Self::ALL.iter().copied().find(|one| one.word() == text).ok_or_else(|| NotA::new(text, $what))
            }
        }
    };
}

words! {
    /// What an IKE SA encrypts with.
    Cipher, "a cipher of IKE (aes256gcm16, aes128gcm16, aes256)" {
        /// AES-GCM with an ICV of 16 bytes and a key of 256 bits (RFC 5282).
        AesGcm256 = "aes256gcm16",
        /// The same with a key of 128 bits.
        AesGcm128 = "aes128gcm16",
        /// AES-CBC with a key of 256 bits (RFC 3602); an integrity algorithm goes with it.
        AesCbc256 = "aes256",
    }
}

words! {
    /// What an IKE SA without an AEAD is authenticated by (RFC 4868).
    Integrity, "an integrity algorithm of IKE (sha256, sha384)" {
        /// HMAC-SHA2-256, cut to 128 bits.
        Sha256 = "sha256",
        /// HMAC-SHA2-384, cut to 192 bits.
        Sha384 = "sha384",
    }
}

words! {
    /// Pseudo-random functions (RFC 4868).
    Prf, "a pseudo-random function (prfsha256, prfsha384, prfsha512)" {
        /// HMAC-SHA2-384.
        Sha384 = "prfsha384",
        /// HMAC-SHA2-256.
        Sha256 = "prfsha256",
        /// HMAC-SHA2-512.
        Sha512 = "prfsha512",
    }
}

words! {
    /// Key exchange methods.
    Group, "a key exchange method (x25519, ecp256, ecp384, ecp521, modp2048, mlkem768)" {
        /// Curve25519 (RFC 8031).
        X25519 = "x25519",
        /// NIST P-256 (RFC 5903).
        P256 = "ecp256",
        /// NIST P-384.
        P384 = "ecp384",
        /// NIST P-521.
        P521 = "ecp521",
        /// 2048 bits, modular (RFC 3526 §3).
        Modp2048 = "modp2048",
        /// ML-KEM-768 (FIPS 203): as an additional one alone (RFC 9370).
        MlKem768 = "mlkem768",
    }
}

/// Algorithms of an IKE SA, one of each kind: `aes256gcm16-prfsha384-ecp384`, `aes256-sha256-prfsha256-x25519`,
/// `aes256gcm16-prfsha384-x25519-mlkem768`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IkeSuite {
    /// What it encrypts with.
    pub cipher: Cipher,
    /// What it is authenticated by, where the cipher does not.
    pub integrity: Option<Integrity>,
    /// Where its keys come from.
    pub prf: Prf,
    /// The key exchange.
    pub group: Group,
    /// An additional one (RFC 9370): both have to be broken.
    pub additional: Option<Group>,
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cipher)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        write!(f, "-{}-{}", self.prf, self.group)?;
        self.additional.map_or(Ok(()), |additional| write!(f, "-{additional}"))
    }
}

impl FromStr for IkeSuite {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let wrong = || {
            NotA::new(
                text,
                "algorithms of IKE, as aes256gcm16-prfsha384-x25519 or aes256-sha256-prfsha256-ecp256",
            )
        };
        let mut words = text.split('-').peekable();
        let cipher: Cipher = words.next().ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        let integrity = match cipher {
            Cipher::AesCbc256 => Some(words.next().ok_or_else(wrong)?.parse().map_err(|_| wrong())?),
            _ => None,
        };
        let prf = words.next().ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        let group = words.next().ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        let additional = words.next().map(str::parse).transpose().map_err(|_: NotA| wrong())?;
        let is_whole = words.next().is_none()
            && group != Group::MlKem768
            && additional.is_none_or(|a| a == Group::MlKem768);
        is_whole.then_some(Self { cipher, integrity, prf, group, additional }).ok_or_else(wrong)
    }
}

serde_as_text!(IkeSuite);

/// Algorithms of a child SA: `aes256gcm16-esn`, `aes128gcm16`, with a key exchange of its own `aes256gcm16-esn-x25519`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EspSuite {
    /// What it seals with.
    pub suite: Suite,
    /// Sequence numbers of 64 bits (RFC 4303 §2.2.1).
    pub esn: bool,
    /// A key exchange of its own whenever it is rekeyed: what was sent before stays closed though the IKE SA be broken.
    pub group: Option<Group>,
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.suite, if self.esn { "-esn" } else { "" })?;
        self.group.map_or(Ok(()), |group| write!(f, "-{group}"))
    }
}

impl FromStr for EspSuite {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let wrong = || {
            NotA::new(text, "algorithms of ESP, as aes256gcm16-esn, aes128gcm16 or aes256gcm16-esn-x25519")
        };
        let mut words = text.split('-').peekable();
        let first = words.next().unwrap_or_default();
        let suite = Suite::ALL.into_iter().find(|suite| suite.to_string() == first).ok_or_else(wrong)?;
        let esn = words.next_if_eq(&"esn").is_some();
        let group = words.next().map(str::parse).transpose().map_err(|_: NotA| wrong())?;
        let is_whole = words.next().is_none() && group != Some(Group::MlKem768);
        is_whole.then_some(Self { suite, esn, group }).ok_or_else(wrong)
    }
}

serde_as_text!(EspSuite);

/// Who somebody is, as IKE proves it (RFC 7296 §3.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// An address: `192.0.2.1`.
    Address(IpAddr),
    /// A name: `hub.example`. Letters are of either case.
    Fqdn(String),
    /// A mail address: `admin@example`.
    Email(String),
    /// A distinguished name, as RFC 4514 writes it: `CN=hub,O=Example`.
    Dn(String),
    /// Bytes that mean something to both: `keyid:` and hexadecimal digits.
    KeyId(Vec<u8>),
}

impl Identity {
    /// The same; or, where its text would be read as another one (a name with spaces in it, an empty one), its bytes. What a peer says of
    /// itself is anything at all.
    #[must_use]
    pub fn legible(self) -> Self {
        let text = self.to_string();
        if text.parse().as_ref() == Ok(&self) {
            return self;
        }
        let bytes = match self {
            Self::KeyId(bytes) => bytes,
            _ => text.into_bytes(),
        };
        Self::KeyId(if bytes.is_empty() { vec![0] } else { bytes })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(text) | Self::Email(text) | Self::Dn(text) => f.write_str(text),
            Self::KeyId(bytes) => {
                f.write_str("keyid:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl FromStr for Identity {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let wrong = || NotA::new(text, "an identity (an address, a name, a mail address, CN=..., keyid:...)");
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(wrong());
        }
        if let Some(digits) = text.strip_prefix("keyid:") {
            let pairs = digits.as_bytes().as_chunks::<2>();
            let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let bytes = pairs.0.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|all| !all.is_empty());
            return bytes.filter(|_| pairs.1.is_empty()).map(Self::KeyId).ok_or_else(wrong);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains('=') {
            return Ok(Self::Dn(text.to_owned()));
        }
        if text.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(if text.contains('@') { Self::Email(text.to_owned()) } else { Self::Fqdn(text.to_owned()) })
    }
}

serde_as_text!(Identity);

/// Which identities are meant: one of them; `*.branch.example` or `*@branch.example`, every one that ends so; `192.0.2.0/24`, every
/// address of that prefix; `*`, every one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IdentityPattern {
    /// Everybody.
    Any,
    /// One.
    One(Identity),
    /// Names or mail addresses that end so: what stands behind the `*`, from the `.` or `@` on.
    Ending(String),
    /// Addresses of a prefix.
    Within(Prefix),
}

impl IdentityPattern {
    /// Whether this one is meant.
    #[must_use]
    pub fn admits(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Any, _) => true,
            (Self::One(Identity::Fqdn(one)), Identity::Fqdn(name))
            | (Self::One(Identity::Email(one)), Identity::Email(name)) => one.eq_ignore_ascii_case(name),
            (Self::One(one), identity) => one == identity,
            (Self::Ending(end), Identity::Fqdn(name) | Identity::Email(name)) => {
                let at = name.len().checked_sub(end.len()).filter(|at| *at > 0);
                at.and_then(|at| name.get(at..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
            (Self::Within(prefix), Identity::Address(address)) => prefix.contains(*address),
            (Self::Ending(_) | Self::Within(_), _) => false,
        }
    }

    /// How narrow it is: of several that admit one identity the narrowest counts.
    #[must_use]
    pub fn narrowness(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Within(prefix) => (1, prefix.length().into()),
            Self::Ending(end) => (1, end.len()),
            Self::One(_) => (2, 0),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::One(identity) => write!(f, "{identity}"),
            Self::Ending(end) => write!(f, "*{end}"),
            Self::Within(prefix) => write!(f, "{prefix}"),
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let wrong = || NotA::new(text, "identities (one, *, *.example, *@example, or a prefix of addresses)");
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(end) = text.strip_prefix('*') {
            let is_end =
                (end.starts_with('.') || end.starts_with('@')) && end.len() > 1 && !end.contains('*');
            return is_end.then(|| Self::Ending(end.to_owned())).ok_or_else(wrong);
        }
        if let Ok(prefix) = text.parse() {
            return Ok(Self::Within(prefix));
        }
        text.parse().map(Self::One).map_err(|_| wrong())
    }
}

serde_as_text!(IdentityPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_read_as_they_are_written() {
        for text in [
            "aes256gcm16-prfsha384-x25519",
            "aes256-sha384-prfsha512-modp2048",
            "aes128gcm16-prfsha256-ecp521-mlkem768",
        ] {
            assert_eq!(text.parse::<IkeSuite>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "aes256gcm16",
            "aes256-prfsha256-x25519",
            "aes256gcm16-prfsha256-mlkem768",
            "3des-sha1-modp1024",
            "aes256gcm16-prfsha256-x25519-x25519",
            "aes256gcm16-prfsha256-x25519-mlkem768-x25519",
        ] {
            assert!(text.parse::<IkeSuite>().is_err(), "{text}");
        }
        for text in ["aes256gcm16", "aes128gcm16-esn", "aes256gcm16-esn-ecp384", "aes128gcm16-x25519"] {
            assert_eq!(text.parse::<EspSuite>().unwrap().to_string(), text);
        }
        for text in
            ["", "esn", "aes256", "aes256gcm16-noesn", "aes256gcm16-esn-mlkem768", "aes256gcm16-x25519-esn"]
        {
            assert!(text.parse::<EspSuite>().is_err(), "{text}");
        }
    }

    #[test]
    fn identities_and_whom_patterns_mean() {
        for text in ["192.0.2.1", "2001:db8::1", "hub.example", "a@example", "CN=hub,O=Nave", "keyid:00ff"] {
            assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
        }
        for text in ["", "two words", "keyid:", "keyid:0", "keyid:xx", "a\nb"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
        for odd in [
            Identity::Fqdn("two words".into()),
            Identity::Fqdn("10.0.0.1".into()),
            Identity::Fqdn("CN=hub".into()),
            Identity::Dn("hub".into()),
            Identity::Fqdn(String::new()),
            Identity::KeyId(Vec::new()),
        ] {
            let legible = odd.clone().legible();
            assert!(matches!(legible, Identity::KeyId(_)), "{odd:?}");
            assert_eq!(legible.to_string().parse(), Ok(legible));
        }
        let hub = Identity::Fqdn("hub.example".into());
        assert_eq!(hub.clone().legible(), hub);
        let admits = |pattern: &str, identity: &str| {
            let pattern: IdentityPattern = pattern.parse().unwrap();
            assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
            pattern.admits(&identity.parse().unwrap())
        };
        for (pattern, identity) in [
            ("*", "CN=anybody"),
            ("*.branch.example", "one.branch.EXAMPLE"),
            ("*@example", "a@example"),
            ("192.0.2.0/24", "192.0.2.77"),
            ("192.0.2.7", "192.0.2.7"),
            ("Hub.example", "hub.example"),
        ] {
            assert!(admits(pattern, identity), "{pattern} {identity}");
        }
        for (pattern, identity) in [
            ("*.branch.example", ".branch.example"),
            ("*.branch.example", "evilbranch.example"),
            ("*.example", "a@b.example.org"),
            ("192.0.2.0/24", "192.0.3.1"),
            ("hub.example", "hub.example.org"),
            ("hub.example", "CN=hub.example"),
        ] {
            assert!(!admits(pattern, identity), "{pattern} {identity}");
        }
        for text in ["*x", "*.", "**", "*.a*"] {
            assert!(text.parse::<IdentityPattern>().is_err(), "{text}");
        }
    }
}
