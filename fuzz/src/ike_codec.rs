//! The codec of IKE: what is read is written again, and is the same then.

use wire::ike::{
    Header, MOST_PAYLOADS, Message, Payload, decode_payloads, encode, encode_front, encode_payloads,
};

/// Reads bytes as an IKE message, as one whose length is right, and as the chain of payloads that an encrypted one holds.
///
/// # Panics
/// What was read is written otherwise, or there is more of it than bytes make.
pub fn ike_codec(bytes: &[u8]) {
    message(bytes);
    // Few bytes have their length in the right place by chance; what is behind it is to be reached all the same.
    if bytes.len() >= Header::LEN {
        let mut right = bytes.to_vec();
        right[17] = 0x20;
        right[24..Header::LEN].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        message(&right);
    }
    if let Some((&first, chain)) = bytes.split_first()
        && let Ok(payloads) = decode_payloads(first, chain)
    {
        assert_eq!(written(&payloads, first).len(), chain.len(), "a chain of another length");
    }
}

fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    let (header, next, length) = Header::decode(bytes).expect("a message has a header");
    assert_eq!((header, length as usize), (message.header, bytes.len()));
    let Some(sealed) = message.sealed else {
        let again = encode(header, &message.payloads);
        assert_eq!(again.len(), bytes.len());
        assert_eq!(Message::decode(&again).as_ref(), Ok(&message), "what is written is read as the same");
        written(&message.payloads, next.0);
        return;
    };
    // It is delimited without knowing its cipher: nothing of the message is beside front and body.
    assert_eq!([sealed.front, sealed.body].concat(), bytes);
    if message.payloads.is_empty() {
        let front = encode_front(header, sealed.first, sealed.fragment, sealed.body.len());
        let again = [&front, sealed.body].concat();
        let again = Message::decode(&again).expect("what is written is well formed");
        assert_eq!((again.header, again.sealed.map(|s| (s.body, s.first, s.fragment))), {
            (header, Some((sealed.body, sealed.first, sealed.fragment)))
        });
    }
}

/// A chain of payloads as it is written: it is read as the same, and written the same again.
fn written(payloads: &[Payload], first: u8) -> Vec<u8> {
    assert!(payloads.len() <= MOST_PAYLOADS);
    let (kind, chain) = encode_payloads(payloads);
    assert_eq!(kind, first);
    let again = decode_payloads(kind, &chain).expect("what is written is well formed");
    assert_eq!(again, payloads);
    assert_eq!(encode_payloads(&again), (kind, chain.clone()));
    chain
}
