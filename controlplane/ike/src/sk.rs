//! The encrypted payload (RFC 7296 §3.14; AEADs: RFC 5282), and its fragments (RFC 7383).
//!
//! ```text
//!   header │ SK header [ fragment │ of all ] │ IV │ payloads, padding, its length │ ICV
//!   └────────── AAD of an AEAD ────────────┘      └────────── encrypted ────────┘
//!   └────────── what an integrity algorithm stands for ─────────────────────────┘
//! ```

use model::ike::{Cipher, Integrity};
use wire::ike::{Header, Payload, Sealed, encode_front, encode_payloads};

use crate::crypto::{Crypto, CryptoError};
use crate::keymat::{IkeKeys, Side};

/// What a cipher puts around text, in bytes.
struct Form {
    iv: usize,
    block: usize,
    icv: usize,
}

impl Form {
    const fn of(cipher: Cipher, integrity: Option<Integrity>) -> Self {
        match cipher {
            // RFC 5282 §3: no padding is needed.
            Cipher::AesGcm128 | Cipher::AesGcm256 => Self { iv: 8, block: 1, icv: 16 },
            Cipher::AesCbc256 => Self { iv: 16, block: 16, icv: icv_len(integrity) },
        }
    }

    /// Length of all that comes behind the front, for so much text.
    const fn body(&self, text: usize) -> usize {
        self.iv + (text + 1).next_multiple_of(self.block) + self.icv
    }

    /// How much text goes into a body of this length.
    const fn text(&self, body: usize) -> usize {
        let room = body.saturating_sub(self.iv + self.icv);
        (room - room % self.block).saturating_sub(1)
    }
}

/// Length in bytes of what an integrity algorithm is cut to (RFC 4868 §2.6).
#[must_use]
pub const fn icv_len(integrity: Option<Integrity>) -> usize {
    match integrity {
        None => 0,
        Some(Integrity::Sha256) => 16,
        Some(Integrity::Sha384) => 24,
    }
}

/// Length in bytes of header and header of the encrypted payload, and of what a fragment has more.
const FRONT: usize = Header::LEN + 4;
const FRAGMENT: usize = 4;

/// Seals payloads into one message; or, if it would be longer than `largest` bytes from its header to its ICV, into fragments (RFC 7383
/// §2.5). What is retransmitted are these bytes: the same payloads are not sealed twice.
#[must_use]
pub fn seal(
    crypto: &mut dyn Crypto,
    keys: &mut IkeKeys,
    from: Side,
    header: Header,
    payloads: &[Payload],
    largest: Option<usize>,
) -> Vec<Vec<u8>> {
    let (first, chain) = encode_payloads(payloads);
    let form = Form::of(keys.suite().cipher, keys.suite().integrity);
    let room = largest.map(|largest| form.text(largest.saturating_sub(FRONT + FRAGMENT)).max(1));
    match room {
        Some(room) if largest.is_some_and(|largest| FRONT + form.body(chain.len()) > largest) => {
            // Fragments are counted in 16 bits; a chain is shorter than 64 KiB, and each takes a byte at least.
            let all = u16::try_from(chain.len().div_ceil(room)).unwrap_or(u16::MAX);
            let parts = (1..=all).zip(chain.chunks(room));
            // RFC 7383 §2.5.1: the type of the first payload is in the first fragment alone.
            parts
                .map(|(number, part)| {
                    let first = if number == 1 { first } else { 0 };
                    seal_one(crypto, keys, from, header, first, Some((number, all)), part)
                })
                .collect()
        }
        _ => vec![seal_one(crypto, keys, from, header, first, None, &chain)],
    }
}

/// Seals one message, or one fragment.
fn seal_one(
    crypto: &mut dyn Crypto,
    keys: &mut IkeKeys,
    from: Side,
    header: Header,
    first: u8,
    fragment: Option<(u16, u16)>,
    part: &[u8],
) -> Vec<u8> {
    let mut iv = [0; 16];
    let iv = match keys.suite().cipher {
        Cipher::AesGcm128 | Cipher::AesGcm256 => {
            iv[..8].copy_from_slice(&keys.next_iv());
            &iv[..8]
        }
        // RFC 3602 §3: one that nobody can guess.
        Cipher::AesCbc256 => {
            crypto.random(&mut iv);
            &iv[..]
        }
    };
    // RFC 7296 §3.14: padding of any content, then its length.
    let form = Form::of(keys.suite().cipher, keys.suite().integrity);
    let length = form.body(part.len()) - form.iv - form.icv;
    let mut text = Vec::with_capacity(length + form.icv);
    text.extend_from_slice(part);
    text.resize(length - 1, 0);
    text.push((length - 1 - part.len()) as u8);
    seal_padded(crypto, keys, from, header, (first, fragment), iv, text)
}

/// Seals text that has its padding, with this IV, which with an AEAD must be a new one: of [`seal`], and of who looks whether what somebody
/// else sealed comes out as it came.
#[must_use]
pub fn seal_padded(
    crypto: &dyn Crypto,
    keys: &IkeKeys,
    from: Side,
    header: Header,
    (first, fragment): (u8, Option<(u16, u16)>),
    iv: &[u8],
    mut text: Vec<u8>,
) -> Vec<u8> {
    let suite = keys.suite();
    let body = iv.len() + text.len() + Form::of(suite.cipher, suite.integrity).icv;
    let mut message = encode_front(header, first, fragment, body);
    crypto.seal(suite.cipher, keys.encryption(from), iv, &message, &mut text);
    message.extend_from_slice(iv);
    message.extend_from_slice(&text);
    if let Some(integrity) = suite.integrity {
        let icv = crypto.integrity(integrity, keys.integrity(from), &[&message]);
        message.extend_from_slice(&icv);
    }
    message
}

/// Opens an encrypted payload or a fragment that this side sent: the chain of payloads, or the part of it, without padding.
///
/// # Errors
/// It is not authentic, which is all that is said of it: integrity is looked at first.
pub fn open(
    crypto: &dyn Crypto,
    keys: &IkeKeys,
    from: Side,
    sealed: &Sealed<'_>,
) -> Result<Vec<u8>, CryptoError> {
    let (_, mut text) = open_padded(crypto, keys, from, sealed)?;
    let padding = text.pop().ok_or(CryptoError::NotAuthentic)?;
    let length = text.len().checked_sub(padding.into()).ok_or(CryptoError::NotAuthentic)?;
    text.truncate(length);
    Ok(text)
}

/// The same with padding and its length: and the IV.
///
/// # Errors
/// As [`open`].
pub fn open_padded<'a>(
    crypto: &dyn Crypto,
    keys: &IkeKeys,
    from: Side,
    sealed: &Sealed<'a>,
) -> Result<(&'a [u8], Vec<u8>), CryptoError> {
    let suite = keys.suite();
    let form = Form::of(suite.cipher, suite.integrity);
    if sealed.body.len() < form.body(0) {
        return Err(CryptoError::NotAuthentic);
    }
    let mut body = sealed.body;
    if let Some(integrity) = suite.integrity {
        let (text, icv) = body.split_at(body.len() - form.icv);
        let computed = crypto.integrity(integrity, keys.integrity(from), &[sealed.front, text]);
        aws_lc_rs::constant_time::verify_slices_are_equal(&computed, icv)
            .map_err(|_| CryptoError::NotAuthentic)?;
        body = text;
    }
    let (iv, text) = body.split_at(form.iv);
    let mut text = text.to_vec();
    crypto.open(suite.cipher, keys.encryption(from), iv, sealed.front, &mut text)?;
    Ok((iv, text))
}

#[cfg(test)]
mod tests {
    use model::ike::IkeSuite;
    use wire::ike::{Exchange, Message};

    use super::*;
    use crate::crypto::aws_lc::AwsLc;
    use crate::crypto::fake::Fake;
    use crate::keymat::Seeds;

    fn keys(crypto: &dyn Crypto, suite: &str, shared: &[u8]) -> IkeKeys {
        let suite: IkeSuite = suite.parse().unwrap();
        let seeds = Seeds {
            initiator_nonce: &[1; 16],
            responder_nonce: &[2; 16],
            initiator_spi: 3,
            responder_spi: 4,
        };
        IkeKeys::first(crypto, suite, shared, &seeds)
    }

    fn header() -> Header {
        Header {
            initiator_spi: 3,
            responder_spi: 4,
            version: (2, 0),
            exchange: Exchange::IKE_AUTH,
            is_response: false,
            can_higher: false,
            is_initiator: true,
            message_id: 1,
        }
    }

    const SUITES: [&str; 4] = [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm16-prfsha256-x25519",
        "aes256-sha256-prfsha256-x25519",
        "aes256-sha384-prfsha512-x25519",
    ];

    /// All lengths of payloads over the size of a block, by both implementations: whole, and changed in every byte.
    #[test]
    fn what_is_sealed_is_opened_by_the_same_keys_and_unchanged_alone() {
        let cryptos: [&mut dyn Crypto; 2] = [&mut AwsLc, &mut Fake::new(1)];
        for crypto in cryptos {
            for suite in SUITES {
                let mut ours = keys(crypto, suite, &[9; 32]);
                let others = keys(crypto, suite, &[8; 32]);
                for length in 0..=33 {
                    let payloads = [Payload::Vendor(vec![7; length])];
                    let sent = seal(crypto, &mut ours, Side::Initiator, header(), &payloads, Some(1000));
                    let [bytes] = &sent[..] else { panic!("{} messages", sent.len()) };
                    let message = Message::decode(bytes).unwrap();
                    let sealed = message.sealed.unwrap();
                    let chain = open(crypto, &ours, Side::Initiator, &sealed).unwrap();
                    assert_eq!(wire::ike::decode_payloads(sealed.first, &chain).unwrap(), payloads);
                    let (iv, text) = open_padded(crypto, &ours, Side::Initiator, &sealed).unwrap();
                    let again = (sealed.first, None);
                    assert_eq!(
                        seal_padded(crypto, &ours, Side::Initiator, message.header, again, iv, text),
                        *bytes
                    );
                    assert!(
                        open(crypto, &ours, Side::Responder, &sealed).is_err(),
                        "keys of the other direction"
                    );
                    assert!(open(crypto, &others, Side::Initiator, &sealed).is_err(), "other keys");
                }
            }
        }
    }

    #[test]
    fn a_message_that_was_changed_anywhere_is_not_authentic() {
        for suite in SUITES {
            let mut ours = keys(&AwsLc, suite, &[9; 32]);
            let sent =
                seal(&mut AwsLc, &mut ours, Side::Responder, header(), &[Payload::Nonce(vec![7; 20])], None);
            for at in 0..sent[0].len() {
                let mut bytes = sent[0].clone();
                bytes[at] ^= 1;
                // Some changes make it no message at all.
                let Ok(Message { sealed: Some(sealed), .. }) = Message::decode(&bytes) else { continue };
                let opened = open(&AwsLc, &ours, Side::Responder, &sealed);
                assert_eq!(opened, Err(CryptoError::NotAuthentic), "{suite}, byte {at}");
            }
            for length in 0..sent[0].len() - 32 {
                let body = &sent[0][32..][..length];
                let sealed = Sealed { front: &sent[0][..32], body, first: 40, fragment: None };
                assert!(open(&AwsLc, &ours, Side::Responder, &sealed).is_err(), "{suite}, {length} bytes");
            }
        }
    }

    /// RFC 7383 §2.5: each as large as may be, numbered from 1, the type of the first payload in the first alone.
    #[test]
    fn long_messages_are_fragments_that_make_the_whole() {
        for suite in SUITES {
            let mut ours = keys(&AwsLc, suite, &[9; 32]);
            let payloads =
                [Payload::Vendor((0..5000).map(|i| i as u8).collect()), Payload::Nonce(vec![7; 32])];
            for largest in [200, 576, 1280] {
                let sent = seal(&mut AwsLc, &mut ours, Side::Initiator, header(), &payloads, Some(largest));
                assert!(sent.iter().all(|bytes| bytes.len() <= largest), "{suite} {largest}");
                assert!(
                    sent[..sent.len() - 1].iter().all(|bytes| bytes.len() > largest - 17),
                    "{suite} {largest}"
                );
                let all = sent.len() as u16;
                let mut chain = Vec::new();
                let mut first = 0;
                for (number, bytes) in (1..).zip(&sent) {
                    let sealed = Message::decode(bytes).unwrap().sealed.unwrap();
                    assert_eq!(sealed.fragment, Some((number, all)));
                    if number == 1 {
                        first = sealed.first;
                    } else {
                        assert_eq!(sealed.first, 0);
                    }
                    chain.extend(open(&AwsLc, &ours, Side::Initiator, &sealed).unwrap());
                }
                assert_eq!(wire::ike::decode_payloads(first, &chain).unwrap(), payloads);
            }
            assert_eq!(seal(&mut AwsLc, &mut ours, Side::Initiator, header(), &payloads, None).len(), 1);
        }
    }

    /// Same payloads, other bytes: an IV is never used again.
    #[test]
    fn nothing_is_sealed_twice_alike() {
        for suite in SUITES {
            let mut ours = keys(&AwsLc, suite, &[9; 32]);
            let mut seal = || seal(&mut AwsLc, &mut ours, Side::Initiator, header(), &[], None);
            assert_ne!(seal(), seal(), "{suite}");
        }
    }
}
