//! The SAs that ESP is decrypted with: the table `esp_sa` of a dissector (Wireshark's, "ESP SAs").
//!
//! ```text
//! "IPv4","10.0.0.*","*","0xc23be78f","AES-GCM with 16 octet ICV [RFC4106]","0x…","NULL",""
//!  │      │          │   │            │                                      │     └ authentication and its key: AES-GCM has none
//!  │      │          │   │            └ encryption                           └ its key, the salt behind it
//!  │      │          │   └ SPI: hexadecimal with `*` for any digit, decimal, or `*`
//!  └ IPv6 └ source   └ destination: `*` for all, for an octet, for a digit of IPv6; or with a prefix length
//! ```
//!
//! Newer dissectors write two fields more: how long sequence numbers are, and the high half of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aead::{Key, Provider};
use zeroize::Zeroizing;

/// The encryption that is read.
const READ: &str = "AES-GCM with 16 octet ICV [RFC4106]";
/// Its name of old, to which the authentication says how long the integrity check value is.
const OLD: &str = "AES-GCM [RFC4106]";
const OLD_ICV: &str = "ANY 128 bit authentication [no checking]";
/// Bytes of salt behind a key (RFC 4106 §8.1).
const SALT: usize = 4;

/// A line: an SA, or all SAs of a pattern that have this key.
pub(super) struct Sa {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    family: Option<Family>,
    source: Addresses,
    destination: Addresses,
    spi: Spis,
    pub(super) key: Box<Key>,
    pub(super) salt: [u8; SALT],
    /// High half of sequence numbers, where the table has it.
    pub(super) high: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Addresses whose bits under the mask are these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    All,
    V4 { bits: u32, mask: u32 },
    V6 { bits: u128, mask: u128 },
}

/// SPIs whose bits under the mask are these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spis {
    bits: u32,
    mask: u32,
}

/// What is wrong with a line. It says nothing of keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct BadLine {
    line: usize,
    problem: String,
}

impl Sa {
    /// Whether a packet may be of it.
    pub(super) fn holds(&self, source: IpAddr, destination: IpAddr, spi: u32) -> bool {
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        self.family.is_none_or(|own| own == family)
            && self.spi.hold(spi)
            && self.source.hold(source)
            && self.destination.hold(destination)
    }
}

/// The SAs of a table, in its order.
pub(super) fn read(text: &str) -> Result<Vec<Sa>, BadLine> {
    lines(text, sa)
}

/// What the lines of a table say, each with its number; those that are empty or begin with `#` say nothing.
pub(super) fn lines<T>(
    text: &str,
    read: impl Fn(usize, &str) -> Result<T, String>,
) -> Result<Vec<T>, BadLine> {
    let written = (1..).zip(text.lines().map(str::trim));
    let written = written.filter(|(_, written)| !written.is_empty() && !written.starts_with('#'));
    let one = |(line, written)| read(line, written).map_err(|problem| BadLine { line, problem });
    written.map(one).collect()
}

fn sa(line: usize, written: &str) -> Result<Sa, String> {
    let fields = fields(written)?;
    let fields: Vec<&str> = fields.iter().map(|field| field.as_str()).collect();
    let (&[family, source, destination, spi, cipher, key, authentication, _], rest) =
        fields.split_first_chunk().ok_or_else(|| count(fields.len()))?;
    let high = match rest {
        [] => None,
        [length, high] => high_half(length, high)?,
        _ => return Err(count(fields.len())),
    };
    let family = match family.to_ascii_lowercase().as_str() {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        "any" => None,
        _ => return Err(format!("protocol {family:?} is none: IPv4, IPv6 and Any are")),
    };
    let has_icv = cipher.eq_ignore_ascii_case(READ)
        || cipher.eq_ignore_ascii_case(OLD) && authentication.eq_ignore_ascii_case(OLD_ICV);
    if !has_icv {
        let with = if authentication.is_empty() || authentication.eq_ignore_ascii_case("NULL") {
            String::new()
        } else {
            format!(" with {authentication}")
        };
        return Err(format!("{cipher}{with} is not decrypted here: {READ} is"));
    }
    let key = key_bytes(key)?;
    // RFC 4106 §8.1: what is given as key has the salt at its end.
    let (key, salt) =
        key.split_last_chunk().filter(|(key, _)| matches!(key.len(), 16 | 32)).ok_or_else(|| {
            format!("{} bytes of key: 20 or 36 are wanted, the last 4 of them the salt", key.len())
        })?;
    let expanded = Key::new(Provider::best(), key).map_err(|error| error.to_string())?;
    Ok(Sa {
        line,
        family,
        source: Addresses::read(source, family)?,
        destination: Addresses::read(destination, family)?,
        spi: Spis::read(spi)?,
        key: Box::new(expanded),
        salt: *salt,
        high,
    })
}

fn count(fields: usize) -> String {
    format!("{fields} fields: 8 are wanted, or 10 with those of sequence numbers")
}

/// The fields of a line, each in quotes, with bytes that would end it written as `\x22`.
fn fields(written: &str) -> Result<Vec<Zeroizing<String>>, String> {
    let mut fields = Vec::new();
    let mut rest = written;
    loop {
        let number = fields.len() + 1;
        let inside = rest.strip_prefix('"').ok_or_else(|| format!("field {number} is not in quotes"))?;
        let end = inside.find('"').ok_or_else(|| format!("field {number} has no quote at its end"))?;
        let field = unescaped(&inside[..end]);
        fields.push(field.ok_or_else(|| format!("field {number}: a backslash without xNN behind it"))?);
        rest = inside[end + 1..].trim_start();
        if rest.is_empty() {
            return Ok(fields);
        }
        let behind = rest.strip_prefix(',').ok_or_else(|| format!("no comma behind field {number}"))?;
        rest = behind.trim_start();
    }
}

fn unescaped(field: &str) -> Option<Zeroizing<String>> {
    let mut parts = field.split('\\');
    let mut text = Zeroizing::new(parts.next()?.to_owned());
    for part in parts {
        let code = u8::from_str_radix(part.strip_prefix('x')?.get(..2)?, 16).ok()?;
        text.push(code.into());
        text.push_str(&part[3..]);
    }
    Some(text)
}

/// A key as it is written: hexadecimal behind `0x`, else its characters.
fn key_bytes(written: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let Some(digits) = written.strip_prefix("0x").or_else(|| written.strip_prefix("0X")) else {
        return Ok(Zeroizing::new(written.as_bytes().to_vec()));
    };
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = digits.bytes().map(digit).collect();
    let digits = Zeroizing::new(digits.ok_or("the key has a digit that is not hexadecimal")?);
    // Of an odd number of digits the first is a byte by itself.
    let (first, pairs) = digits.split_at(digits.len() % 2);
    let pairs = pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]);
    Ok(Zeroizing::new(first.iter().copied().chain(pairs).collect()))
}

/// What is said of sequence numbers.
fn high_half(length: &str, high: &str) -> Result<Option<u32>, String> {
    match length {
        "32-bit" => Ok(None),
        "64-bit" => {
            let digits = high.trim_start_matches("0x");
            let read = if digits.is_empty() { Ok(0) } else { u32::from_str_radix(digits, 16) };
            read.map(Some).map_err(|_| format!("{high:?} is not the high half of sequence numbers"))
        }
        _ => Err(format!("sequence numbers of {length:?}: 32-bit and 64-bit are there")),
    }
}

impl Addresses {
    fn read(written: &str, family: Option<Family>) -> Result<Self, String> {
        let (address, length) = match written.split_once('/') {
            None => (written, None),
            Some((address, length)) => {
                let length = length.parse().map_err(|_| format!("{length:?} is not a prefix length"))?;
                (address, Some(length))
            }
        };
        if address == "*" {
            return Ok(Self::All);
        }
        let none = || format!("{written:?} is not an address");
        let read = if address.contains(':') {
            Self::v6(address, length.unwrap_or(128))
        } else {
            Self::v4(address, length.unwrap_or(32))
        };
        let read = read.ok_or_else(none)?;
        match (family, read) {
            (Some(Family::V4), Self::V6 { .. }) => Err(format!("{written:?} in a line of IPv4")),
            (Some(Family::V6), Self::V4 { .. }) => Err(format!("{written:?} in a line of IPv6")),
            _ => Ok(read),
        }
    }

    /// Where the smallest and the largest address differ, there is a star.
    fn v4(written: &str, length: u32) -> Option<Self> {
        let filled = |digits: &str| {
            let octets: Vec<_> = written.split('.').map(|o| if o == "*" { digits } else { o }).collect();
            octets.join(".").parse::<Ipv4Addr>().ok().map(u32::from)
        };
        let (bits, last) = (filled("0")?, filled("255")?);
        let host = u32::MAX.checked_shr(length).unwrap_or(0);
        let mask = !(bits ^ last) & !host;
        (length <= 32).then_some(Self::V4 { bits: bits & mask, mask })
    }

    fn v6(written: &str, length: u32) -> Option<Self> {
        let filled = |digit: &str| {
            let all = digit.repeat(4);
            let group = |group: &str| if group == "*" { all.clone() } else { group.replace('*', digit) };
            let groups: Vec<_> = written.split(':').map(group).collect();
            groups.join(":").parse::<Ipv6Addr>().ok().map(u128::from)
        };
        let (bits, last) = (filled("0")?, filled("f")?);
        let host = u128::MAX.checked_shr(length).unwrap_or(0);
        let mask = !(bits ^ last) & !host;
        (length <= 128).then_some(Self::V6 { bits: bits & mask, mask })
    }

    fn hold(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::V4 { bits, mask }, IpAddr::V4(address)) => u32::from(address) & mask == bits,
            (Self::V6 { bits, mask }, IpAddr::V6(address)) => u128::from(address) & mask == bits,
            _ => false,
        }
    }
}

impl Spis {
    fn read(written: &str) -> Result<Self, String> {
        if written == "*" {
            return Ok(Self { bits: 0, mask: 0 });
        }
        let none = || format!("{written:?} is not an SPI");
        let Some(digits) = written.strip_prefix("0x").or_else(|| written.strip_prefix("0X")) else {
            return Ok(Self { bits: written.parse().map_err(|_| none())?, mask: u32::MAX });
        };
        // A star stands for one digit, so that all of them have to be there.
        if digits.contains('*') && digits.len() != 8 {
            return Err(none());
        }
        let filled = |digit| u32::from_str_radix(&digits.replace('*', digit), 16).map_err(|_| none());
        let (bits, last) = (filled("0")?, filled("f")?);
        Ok(Self { bits, mask: !(bits ^ last) })
    }

    fn hold(self, spi: u32) -> bool {
        spi & self.mask == self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";

    fn line(family: &str, source: &str, destination: &str, spi: &str) -> String {
        format!(r#""{family}","{source}","{destination}","{spi}","{READ}","{KEY}","NULL","""#)
    }

    fn one(text: &str) -> Sa {
        let mut sas = read(text).unwrap();
        assert_eq!(sas.len(), 1);
        sas.remove(0)
    }

    fn wrong(text: &str) -> String {
        read(text).map(|sas| sas.len()).unwrap_err().to_string()
    }

    #[test]
    fn stars_and_prefixes_stand_for_what_a_dissector_takes_them() {
        let holds = |source, destination, spi, packet: (&str, &str, u32)| {
            let (from, to) = (packet.0.parse().unwrap(), packet.1.parse().unwrap());
            let family = if packet.0.contains(':') { "IPv6" } else { "IPv4" };
            let [of_one, of_any] = [family, "Any"].map(|family| one(&line(family, source, destination, spi)));
            assert_eq!(of_one.holds(from, to, packet.2), of_any.holds(from, to, packet.2));
            of_one.holds(from, to, packet.2)
        };
        let v4 = ("10.0.0.11", "10.0.0.1", 0xc23b_e78f);
        for (source, destination, spi) in [
            ("*", "*", "*"),
            ("10.0.0.11", "10.0.0.1", "0xc23be78f"),
            ("10.*.0.*", "*", "3258705807"),
            ("10.0.0.8/29", "0.0.0.0/0", "0xC23BE78F"),
            ("*", "10.0.0.1/32", "0xc23b****"),
        ] {
            assert!(holds(source, destination, spi, v4), "{source} {destination} {spi}");
        }
        for (source, destination, spi) in [
            ("10.0.0.12", "*", "*"),
            ("10.0.*.12", "*", "*"),
            ("*", "10.0.0.8/29", "*"),
            ("*", "*", "0xc23be78e"),
            ("*", "*", "0xc23c****"),
            ("10.0.0.1", "10.0.0.11", "*"),
        ] {
            assert!(!holds(source, destination, spi, v4), "{source} {destination} {spi}");
        }
        let v6 = ("2001:db8::11", "2001:db8::1", 256);
        for (source, destination, spi) in [
            ("*", "*", "0x100"),
            ("2001:db8::11", "2001:DB8:0:0:0:0:0:1", "256"),
            ("2001:db8::*", "2001:*::1", "*"),
            ("2001:db8::1*", "2001:d**::/32", "0x00000***"),
        ] {
            assert!(holds(source, destination, spi, v6), "{source} {destination} {spi}");
        }
        assert!(!holds("2001:db8::2*", "*", "*", v6));
        assert!(!holds("*", "2001:db9::/32", "*", v6));
        // A line is of one family.
        assert!(!one(&line("IPv6", "*", "*", "*")).holds([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 256));
    }

    #[test]
    fn keys_are_hexadecimal_or_characters_and_have_the_salt_behind_them() {
        let with = |key: &str| format!(r#""IPv4","*","*","*","{READ}","{key}","NULL","""#);
        let sa = one(&with(KEY));
        assert_eq!((sa.salt, sa.key.length()), ([0x10, 0x11, 0x12, 0x13], 16));
        let long = one(&with("0123456789abcdef0123456789abcdefSALT"));
        assert_eq!((long.salt, long.key.length()), (*b"SALT", 32));
        // What would end a field is escaped; the first of an odd number of digits is a byte.
        assert_eq!(one(&with(r"0123456789abcdefa\x22\x5cz")).salt, *b"a\"\\z");
        assert_eq!(key_bytes("0x1fF").unwrap().as_slice(), [1, 0xff]);
        assert_eq!(
            wrong(&with("0x000102030405060708090a0b0c0d0e0f1011121314151617")),
            "line 1: 24 bytes of key: 20 or 36 are wanted, the last 4 of them the salt"
        );
        assert!(wrong(&with("0x0001")).starts_with("line 1: 2 bytes of key"));
        assert!(wrong(&with("")).starts_with("line 1: 0 bytes of key"));
        assert_eq!(wrong(&with("0x0g")), "line 1: the key has a digit that is not hexadecimal");
    }

    #[test]
    fn comments_and_fields_of_newer_dissectors_are_read() {
        let first = line("IPv4", "*", "*", "0x100");
        let text = format!("# made by hand\r\n\r\n{first}\r\n  {} , \"64-bit\" , \"0x00000002\"\n", first);
        let sas = read(&text).unwrap();
        assert_eq!(sas.iter().map(|sa| (sa.line, sa.high)).collect::<Vec<_>>(), [(3, None), (4, Some(2))]);
        assert_eq!(one(&format!("{first},\"32-bit\",\"0x00000000\"")).high, None);
        assert_eq!(one(&format!("{first},\"64-bit\",\"\"")).high, Some(0));
        let old = first.replace(READ, OLD).replace("NULL", OLD_ICV);
        assert_eq!(one(&old).salt, one(&first).salt);
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_line_is_named_and_its_key_is_not() {
        let good = line("IPv4", "*", "*", "0x100");
        let cases = [
            (good.replace("IPv4", "IPX"), "protocol \"IPX\" is none: IPv4, IPv6 and Any are"),
            (
                good.replace(READ, "TripleDES-CBC [RFC2451]").replace("NULL", "HMAC-SHA-1-96 [RFC2404]"),
                "TripleDES-CBC [RFC2451] with HMAC-SHA-1-96 [RFC2404] is not decrypted here: AES-GCM with 16 octet ICV \
                 [RFC4106] is",
            ),
            (
                good.replace("16 octet", "8 octet"),
                "AES-GCM with 8 octet ICV [RFC4106] is not decrypted here: AES-GCM with 16 octet ICV [RFC4106] is",
            ),
            (
                good.replace(READ, OLD),
                "AES-GCM [RFC4106] is not decrypted here: AES-GCM with 16 octet ICV [RFC4106] is",
            ),
            (line("IPv4", "10.0.0", "*", "*"), "\"10.0.0\" is not an address"),
            (line("IPv4", "10.0.0.*1", "*", "*"), "\"10.0.0.*1\" is not an address"),
            (line("IPv4", "*", "10.0.0.0/33", "*"), "\"10.0.0.0/33\" is not an address"),
            (line("IPv4", "*", "10.0.0.0/x", "*"), "\"x\" is not a prefix length"),
            (line("IPv4", "::1", "*", "*"), "\"::1\" in a line of IPv4"),
            (line("IPv6", "*", "10.0.0.1", "*"), "\"10.0.0.1\" in a line of IPv6"),
            (line("IPv4", "*", "*", "0x1*"), "\"0x1*\" is not an SPI"),
            (line("IPv4", "*", "*", "4294967296"), "\"4294967296\" is not an SPI"),
            (line("IPv4", "*", "*", ""), "\"\" is not an SPI"),
            (good.replace(",\"\"", ""), "7 fields: 8 are wanted, or 10 with those of sequence numbers"),
            (format!("{good},\"64-bit\""), "9 fields: 8 are wanted, or 10 with those of sequence numbers"),
            (
                format!("{good},\"16-bit\",\"0\""),
                "sequence numbers of \"16-bit\": 32-bit and 64-bit are there",
            ),
            (format!("{good},\"64-bit\",\"x\""), "\"x\" is not the high half of sequence numbers"),
            (good.replace("\"*\",", "*,"), "field 2 is not in quotes"),
            (good.replace("\",\"\"", "\""), "7 fields: 8 are wanted, or 10 with those of sequence numbers"),
            (good.trim_end_matches('"').to_owned(), "field 8 is not in quotes"),
            (format!("{good}\"x"), "no comma behind field 8"),
            (good.replace("NULL", r"N\ULL"), "field 7: a backslash without xNN behind it"),
        ];
        for (text, problem) in cases {
            let said = wrong(&format!("{good}\n{text}"));
            assert_eq!(said, format!("line 2: {problem}"));
            assert!(!said.contains("0102"), "{said}");
        }
    }
}
