//! What single operations take, by themselves and with all that they touch in the caches: `cargo bench -p perf`. For how an operation
//! does among packets, see `nave-perf graph`; for the FIB beside DPDK's, `nave-perf fib`; for AES-GCM beside ring, `nave-perf aead`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::Ipv4Addr;

use aead::{Key, Packet, Provider, open_one, seal_one};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use forwarding::fib::{V4Prefix, Word, Writer};
use forwarding::window;
use wire::ike::{Exchange, Header, Message, Payload};
use wire::nhrp;
use wire::{checksum, esp, gre, ipv4};

fn main() {
    divan::main();
}

/// Look-ups of one run.
const LOOKUPS: usize = 1024;

/// So many routes, one /24 behind the other, and addresses all over them.
fn fib(routes: u32) -> (Writer, Vec<Ipv4Addr>) {
    let mut writer = Writer::new(16).unwrap();
    for number in 0..routes {
        let prefix = V4Prefix::new(Ipv4Addr::from_bits(0x1400_0000 + (number << 8)), 24).unwrap();
        writer.put(prefix, Word::new(number + 1).unwrap()).unwrap();
    }
    let spread = |at: usize| (at as u32).wrapping_mul(0x9e37_79b9) % (routes << 8);
    (writer, (0..LOOKUPS).map(|at| Ipv4Addr::from_bits(0x1400_0000 + spread(at))).collect())
}

#[divan::bench(args = [10, 1000, 1_000_000])]
fn fib_single(bencher: Bencher<'_, '_>, routes: u32) {
    let (writer, addrs) = fib(routes);
    let fib = writer.fib();
    bencher
        .counter(ItemsCount::new(LOOKUPS))
        .bench_local(|| addrs.iter().map(|addr| fib.lookup(black_box(*addr))).fold(0, u32::wrapping_add));
}

#[divan::bench(args = [10, 1000, 1_000_000])]
fn fib_bulk(bencher: Bencher<'_, '_>, routes: u32) {
    let (writer, addrs) = fib(routes);
    let (fib, mut words) = (writer.fib(), vec![0; LOOKUPS]);
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for (addrs, words) in addrs.chunks(32).zip(words.chunks_mut(32)) {
            fib.lookup_bulk(addrs, words);
        }
        words[0]
    });
}

#[divan::bench(args = [20, 64, 1400])]
fn internet_checksum(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = vec![0x5a; bytes];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| checksum::checksum(black_box(&text)));
}

#[divan::bench]
fn ipv4_header(bencher: Bencher<'_, '_>) {
    let (from, to) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    bencher.bench_local(|| ipv4::Header::new(black_box(from), black_box(to), ipv4::GRE, 64, 1400));
}

#[divan::bench]
fn gre_parse(bencher: Bencher<'_, '_>) {
    let mut packet = [0; 64];
    gre::write(&mut packet, gre::IPV4, Some(42)).unwrap();
    bencher.bench_local(|| gre::parse(black_box(&packet)).map(|(fields, _)| fields.key));
}

#[divan::bench]
fn gre_write(bencher: Bencher<'_, '_>) {
    let mut packet = [0; 64];
    bencher.bench_local(|| gre::write(black_box(&mut packet), gre::IPV4, black_box(Some(42))));
}

#[divan::bench]
fn esp_parse_and_trailer(bencher: Bencher<'_, '_>) {
    let mut text = vec![0; 128];
    esp::write_trailer(&mut text, 112, ipv4::GRE).unwrap();
    bencher.bench_local(|| {
        let spi = esp::parse(black_box(&text)).map(|(header, _)| header.spi());
        (spi.is_ok(), esp::trailer(black_box(&text)).is_ok())
    });
}

/// Sequence numbers of one run: as many as the largest window has.
const NUMBERS: u64 = window::LARGEST;

/// Takes numbers as they come, each once and run by run further on: what esp-decrypt does before and behind the cipher.
fn replay(bencher: Bencher<'_, '_>, size: u64, numbers: &[u64]) {
    let ring = window::Ring::of(0, 1, window::Ring::size(size));
    let mut words = vec![0; window::words(1)];
    let (mut top, mut base) = (0, 1);
    bencher.counter(ItemsCount::new(numbers.len())).bench_local(|| {
        for number in numbers {
            let low = black_box(base + number) as u32;
            let sequence = window::whole(low, top, size).unwrap_or_default();
            assert!(window::is_new(&words, ring, top, size, sequence));
            top = window::take(&mut words, ring, top, size, sequence).unwrap_or_default();
        }
        base += NUMBERS;
    });
    assert_eq!(top + 1, base, "each was new");
}

#[divan::bench(args = [64, 1024, 4096])]
fn replay_window_in_order(bencher: Bencher<'_, '_>, size: u64) {
    replay(bencher, size, &(0..NUMBERS).collect::<Vec<_>>());
}

/// Within each half of a window the numbers are scattered.
#[divan::bench(args = [64, 1024, 4096])]
fn replay_window_at_random(bencher: Bencher<'_, '_>, size: u64) {
    let half = size / 2;
    let scattered = |at: u64| at / half * half + at.wrapping_mul(0x9e37_79b1) % half;
    replay(bencher, size, &(0..NUMBERS).map(scattered).collect::<Vec<_>>());
}

/// The first packet of a capture of FRR's: a registration.
fn registration() -> Vec<u8> {
    let capture = include_str!("../../wire/tests/fixtures/nhrp/clear-frr10-auth.hub-gre1.hex");
    let mut lines = capture.lines().filter(|line| !line.starts_with('#'));
    let (_, hex) = lines.next().and_then(|line| line.split_once(' ')).unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[divan::bench]
fn nhrp_decode(bencher: Bencher<'_, '_>) {
    let packet = registration();
    bencher.bench_local(|| nhrp::Message::decode(black_box(&packet)).unwrap());
}

#[divan::bench]
fn nhrp_encode(bencher: Bencher<'_, '_>) {
    let message = nhrp::Message::decode(&registration()).unwrap();
    bencher.bench_local(|| black_box(&message).encode());
}

fn ike_init() -> Vec<u8> {
    let header = Header {
        initiator_spi: 1,
        responder_spi: 2,
        version: (2, 0),
        exchange: Exchange::IKE_SA_INIT,
        is_response: true,
        can_higher: false,
        is_initiator: false,
        message_id: 0,
    };
    let exchange = Payload::KeyExchange { method: 31, data: vec![7; 32] };
    wire::ike::encode(header, &[exchange, Payload::Nonce(vec![9; 32])])
}

#[divan::bench]
fn ike_decode(bencher: Bencher<'_, '_>) {
    let message = ike_init();
    bencher.bench_local(|| Message::decode(black_box(&message)).is_ok());
}

#[divan::bench]
fn ike_encode(bencher: Bencher<'_, '_>) {
    bencher.bench_local(ike_init);
}

/// Each provider that is usable here, with each length of text, ICV included.
fn ciphers() -> impl Iterator<Item = (Provider, usize)> {
    let usable = Provider::ALL.into_iter().filter(|provider| provider.is_usable());
    usable.flat_map(|provider| [80, 370, 1416].map(|bytes| (provider, bytes)))
}

#[divan::bench(args = ciphers().map(Cipher))]
fn aes_gcm_128_seal(bencher: Bencher<'_, '_>, cipher: &Cipher) {
    let Cipher((provider, bytes)) = *cipher;
    let (key, mut text) = (Key::new(provider, &[7; 16]).unwrap(), vec![0; bytes]);
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        seal_one(Packet {
            key: &key,
            salt: [1; 4],
            iv: 9,
            sequence: 9,
            spi: 300,
            esn: true,
            text: &mut text,
        });
    });
}

#[divan::bench(args = ciphers().map(Cipher))]
fn aes_gcm_128_open(bencher: Bencher<'_, '_>, cipher: &Cipher) {
    let Cipher((provider, bytes)) = *cipher;
    let (key, mut text) = (Key::new(provider, &[7; 16]).unwrap(), vec![0; bytes]);
    // What is not authentic is decrypted or not, as the provider has it: it has to be right each time.
    seal_one(Packet { key: &key, salt: [1; 4], iv: 9, sequence: 9, spi: 300, esn: true, text: &mut text });
    let sealed = text.clone();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        text.copy_from_slice(&sealed);
        let authentic = open_one(Packet {
            key: &key,
            salt: [1; 4],
            iv: 9,
            sequence: 9,
            spi: 300,
            esn: true,
            text: &mut text,
        });
        assert!(authentic);
    });
}

/// Who seals, and how much.
struct Cipher((Provider, usize));

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0.0, self.0.1)
    }
}
