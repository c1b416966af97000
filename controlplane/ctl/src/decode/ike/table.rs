//! The keys that IKE is decrypted with: the table `ikev2_decryption_table` of a dissector (Wireshark's, "IKEv2 Decryption Table").
//!
//! ```text
//! 5bc2…,482c…,e35a…,16ba…,"AES-GCM-128 with 16 octet ICV [RFC5282]",,,"NONE [RFC4306]"
//!  │     │     │     │     │                                       ││  └ integrity algorithm
//!  │     │     │     │     └ encryption algorithm                  │└ SK_ar: none with AES-GCM
//!  │     │     │     └ SK_er, with AES-GCM the salt at its end     └ SK_ai
//!  │     │     └ SK_ei
//!  │     └ SPI of the responder
//!  └ SPI of the initiator
//! ```

use zeroize::Zeroizing;

use super::cipher::{Cipher, Keys};
use crate::decode::table::{self, BadLine};

/// A line: an IKE SA.
pub(super) struct Sa {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    /// SPIs of initiator and responder.
    pub(super) spis: [u64; 2],
    pub(super) cipher: Cipher,
    /// Keys of initiator and responder.
    pub(super) keys: [Keys; 2],
}

/// The IKE SAs of a table, in its order.
pub(super) fn read(text: &str) -> Result<Vec<Sa>, BadLine> {
    table::lines(text, sa)
}

fn sa(line: usize, written: &str) -> Result<Sa, String> {
    // No name of an algorithm has a comma or a quote in it.
    let fields: Vec<&str> = written.split(',').map(|field| field.trim().trim_matches('"')).collect();
    let &[initiator, responder, ei, er, encryption, ai, ar, integrity] = &fields[..] else {
        return Err(format!("{} fields: 8 are wanted", fields.len()));
    };
    let cipher = Cipher::named(encryption, integrity)?;
    let (encryption, integrity) = cipher.lengths();
    let keys = |e: (&str, &str), a: (&str, &str)| -> Result<Keys, String> {
        Ok(Keys { encryption: key(e.0, e.1, encryption)?, integrity: key(a.0, a.1, integrity)? })
    };
    Ok(Sa {
        line,
        spis: [spi(initiator)?, spi(responder)?],
        cipher,
        keys: [keys(("SK_ei", ei), ("SK_ai", ai))?, keys(("SK_er", er), ("SK_ar", ar))?],
    })
}

fn spi(written: &str) -> Result<u64, String> {
    let digits = written.trim_start_matches("0x");
    let is_spi = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let spi = u64::from_str_radix(digits, 16).ok().filter(|_| is_spi);
    spi.ok_or_else(|| format!("{written:?} is not an SPI of 16 hexadecimal digits"))
}

/// A key of this length. What is wrong with it is said without its digits.
fn key(name: &str, written: &str, length: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let digits = written.trim_start_matches("0x").as_bytes();
    if digits.len() != 2 * length {
        return Err(format!("{name} has {} hexadecimal digits: {} are wanted", digits.len(), 2 * length));
    }
    let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    bytes.map(Zeroizing::new).ok_or_else(|| format!("{name} has a digit that is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "0102030405060708,090a0b0c0d0e0f10,000102030405060708090a0b0c0d0e0f10111213,\
                        202122232425262728292a2b2c2d2e2f30313233,\"AES-GCM-128 with 16 octet ICV [RFC5282]\",,,\"NONE [RFC4306]\"";

    fn wrong(text: &str) -> String {
        read(text).map(|sas| sas.len()).unwrap_err().to_string()
    }

    #[test]
    fn lines_of_a_dissector_are_read() {
        let sas = read(&format!("# made by hand\n\n{GOOD}\r\n")).unwrap();
        assert_eq!(sas.len(), 1);
        assert_eq!((sas[0].line, sas[0].spis), (3, [0x0102_0304_0506_0708, 0x090a_0b0c_0d0e_0f10]));
        assert_eq!(sas[0].keys[0].encryption[16..], [0x10, 0x11, 0x12, 0x13]);
        assert_eq!(sas[0].keys[1].encryption[0], 0x20);
        assert!(sas[0].keys[0].integrity.is_empty());
        let spis = "\"0x0102030405060708\", 090a0b0c0d0e0f10";
        let (e, a) = ("00".repeat(16), "11".repeat(32));
        let cbc = format!("{spis},{e},{e},\"AES-CBC-128 [RFC3602]\",{a},{a},\"HMAC_SHA2_256_128 [RFC4868]\"");
        let sas = read(&cbc).unwrap();
        assert_eq!(sas[0].cipher.lengths(), (16, 32));
        assert_eq!(sas[0].keys[1].integrity[..], [0x11; 32]);
    }

    #[test]
    fn a_wrong_line_is_named_and_its_key_is_not() {
        for (text, problem) in [
            (GOOD.replace(",,,", ",,"), "7 fields: 8 are wanted".to_owned()),
            (
                GOOD.replace("01020304", "0102030x"),
                "\"0102030x05060708\" is not an SPI of 16 hexadecimal digits".to_owned(),
            ),
            (
                GOOD.replace("10111213", "101112"),
                "SK_ei has 38 hexadecimal digits: 40 are wanted".to_owned(),
            ),
            (GOOD.replace("3233,", "32zz,"), "SK_er has a digit that is not hexadecimal".to_owned()),
            (
                GOOD.replace(",,,", ",00,,"),
                "SK_ai has 2 hexadecimal digits: 0 are wanted".to_owned(),
            ),
            (
                GOOD.replace("NONE", "HMAC_MD5_96"),
                "AES-GCM-128 with 16 octet ICV goes with the integrity algorithm NONE, not HMAC_MD5_96".to_owned(),
            ),
            (
                GOOD.replace("AES-GCM-128 with 16 octet ICV", "3DES"),
                "3DES is not decrypted here: AES-GCM-128 with 16 octet ICV, AES-GCM-192 with 16 octet ICV, AES-GCM-256 with \
                 16 octet ICV, AES-CBC-128, AES-CBC-192, AES-CBC-256 are"
                    .to_owned(),
            ),
            (
                GOOD.replace("AES-GCM-128 with 16 octet ICV", "AES-CBC-256"),
                "AES-CBC-256 with NONE is not decrypted here: HMAC_SHA1_96, HMAC_SHA2_256_128, HMAC_SHA2_384_192, \
                 HMAC_SHA2_512_256 are"
                    .to_owned(),
            ),
        ] {
            let said = wrong(&format!("{GOOD}\n{text}"));
            assert_eq!(said, format!("line 2: {problem}"));
            assert!(!said.contains("0a0b"), "{said}");
        }
    }
}
