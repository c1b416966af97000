//! Those who are not friends: floods, garbage, messages that were changed on the way. State is bounded, and friends get through.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ike::Reject;
use wire::ike::{Exchange, Message};

use crate::net::*;

/// IKE_SA_INIT of a real engine.
fn first_message() -> Vec<u8> {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.nodes[0].sent[0].2.clone()
}

fn with_spi(mut message: Vec<u8>, spi: u64) -> Vec<u8> {
    message[..8].copy_from_slice(&spi.to_be_bytes());
    message
}

fn elsewhere(n: u32) -> SocketAddr {
    (IpAddr::from(Ipv4Addr::from(0x6400_0000 + n)), 500).into()
}

/// RFC 7296 §2.6: who does not show that it is where it says leaves nothing behind; who does gets in.
#[test]
fn a_flood_from_everywhere_meets_cookies() {
    let mut net = Net::new(2, &format!("{PSK}limits = {{ half_open = 64, cookies_above = 32 }}\n"));
    net.start();
    let message = first_message();
    for n in 0..10_000_u32 {
        net.inject(1, 500, elsewhere(n), with_spi(message.clone(), u64::from(n) + 1));
    }
    assert_eq!(net.nodes[1].engine.sizes(), (32, 32, 0));
    assert_eq!(net.rejects(1, Reject::Cookie), 10_000 - 32);
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    net.run(seconds(40));
    assert_eq!(net.nodes[1].engine.sizes(), (1, 0, 1), "the others are forgotten");
    assert_eq!(net.nodes[1].engine.counts().abandoned, 32);
}

/// Without cookies there is a limit of all and one of each address and range of ports: who fills its own leaves the others theirs.
#[test]
fn one_address_does_not_take_all_the_room() {
    let limits = "limits = { half_open = 64, half_open_per_address = 4, cookies_above = 1000 }\n";
    let mut net = Net::new(2, &format!("{PSK}{limits}"));
    net.start();
    let message = first_message();
    for n in 0..1000 {
        net.inject(1, 500, elsewhere(1), with_spi(message.clone(), n + 1));
    }
    assert_eq!(net.nodes[1].engine.sizes().1, 4);
    for port in 1024..60_000 {
        let from = SocketAddr::new(elsewhere(1).ip(), port);
        net.inject(1, 500, from, with_spi(message.clone(), u64::from(port)));
    }
    assert_eq!(net.nodes[1].engine.sizes().1, 32, "eight ranges' worth of one address");
    net.want(0, 1);
    net.run(seconds(1));
    net.assert_one_pair(0, 1);
    for n in 10..1000 {
        net.inject(1, 500, elsewhere(n), with_spi(message.clone(), 1));
    }
    assert_eq!(net.nodes[1].engine.sizes().1, 64);
}

/// The same first message again is answered again, and begins nothing new.
#[test]
fn the_same_first_message_is_one() {
    let mut net = Net::new(2, PSK);
    net.start();
    let message = first_message();
    for _ in 0..20 {
        net.inject(1, 500, elsewhere(1), message.clone());
    }
    assert_eq!(net.nodes[1].engine.sizes().1, 1);
    let answers: Vec<_> = net.nodes[1].sent.iter().map(|(_, _, bytes)| bytes.clone()).collect();
    assert!(answers.len() == 20 && answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn so_many_ike_sas_and_no_more() {
    let mut net = Net::new(12, PSK);
    net.nodes[0].config = format!("{PSK}limits = {{ sas = 5 }}\n");
    net.start();
    for node in 1..12 {
        net.want(node, 0);
    }
    net.run(seconds(30));
    assert_eq!(net.established(0).len(), 5);
    assert!(net.rejects(0, Reject::NoRoom) > 0);
}

/// Proofs cost; those beyond so many a second wait, and nobody is lost.
#[test]
fn proofs_are_checked_at_a_rate() {
    let mut net = Net::new(101, PSK);
    net.nodes[0].config = format!("{PSK}limits = {{ auth_per_second = 20 }}\n");
    net.start();
    for node in 1..101 {
        net.want_server(node, 0);
    }
    net.run(millis(900));
    let up = net.nodes[0].engine.counts().established;
    assert!((20..=40).contains(&up), "{up}");
    assert!(net.rejects(0, Reject::RateLimited) > 0);
    net.run(seconds(30));
    assert_eq!(net.established(0).len(), 100);
}

/// Whatever bit of whatever message is another one on its way: nothing comes of it.
#[test]
fn a_message_that_was_changed_changes_nothing() {
    let mut net = Net::new(2, &format!("{PSK}dead_peer_detection = 5\n"));
    net.start();
    net.want(0, 1);
    net.run(seconds(20));
    net.assert_one_pair(0, 1);
    let before = (net.nodes[1].inbound.clone(), net.nodes[1].outbound.clone());
    // One that the other has not seen.
    net.loses = Some(Box::new(|_, _| true));
    while net.nodes[0].sent.last().is_none_or(|(at, ..)| *at + millis(1) < net.now) {
        net.run(millis(1));
    }
    net.loses = None;
    let all: Vec<_> = net.nodes[0].sent.iter().map(|(_, _, bytes)| bytes.clone()).collect();
    let from = SocketAddr::new(address(0), 500);
    let mut half_open = 0;
    for message in &all {
        let is_first = Message::decode(message).unwrap().header.exchange == Exchange::IKE_SA_INIT;
        for bit in 0..message.len() * 8 {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            net.inject(1, 500, from, changed.clone());
            changed.truncate(bit / 8);
            net.inject(1, 500, from, changed);
        }
        if is_first {
            half_open = net.nodes[1].engine.sizes().1;
            assert!(half_open <= 256, "{half_open}");
        }
    }
    assert_eq!((net.nodes[1].inbound.clone(), net.nodes[1].outbound.clone()), before);
    // Old messages as they were: an answer again at most.
    for message in all.iter().skip(1) {
        net.inject(1, 500, from, message.clone());
    }
    assert!(net.rejects(1, Reject::NotAuthentic) > 200);
    assert_eq!(net.nodes[1].engine.sizes().1, half_open);
    net.run(seconds(40));
    net.assert_one_pair(0, 1);
    assert_eq!(net.nodes[1].engine.sizes(), (1, 0, 1));
}

/// Bytes of any kind, on both ports.
#[test]
fn garbage_is_counted_and_no_more() {
    let mut net = Net::new(2, PSK);
    net.start();
    for n in 0..20_000_u64 {
        let length = net.random() % 200;
        let mut bytes: Vec<_> = (0..length).map(|_| net.random() as u8).collect();
        if n % 2 == 0 && bytes.len() >= 28 {
            // At least the header is one.
            let length = (bytes.len() as u32).to_be_bytes();
            bytes[17] = 0x20;
            bytes[18] = 34 + (n % 4) as u8;
            bytes[19] = (n >> 2) as u8 & 0x28;
            bytes[24..28].copy_from_slice(&length);
        }
        let port = if n % 3 == 0 { 4500 } else { 500 };
        net.inject(1, port, elsewhere(n as u32), bytes);
    }
    assert_eq!(net.nodes[1].engine.sizes(), (0, 0, 0));
    let answered = net.nodes[1].sent.len();
    assert!(answered <= 40, "answers in the clear are few: {answered}");
    assert!(net.rejects(1, Reject::Malformed) > 10_000);
}

/// RFC 7296 §2.21.4: who says in the clear that it does not know us makes us ask, and no more.
#[test]
fn an_error_in_the_clear_ends_nothing() {
    let mut net = Net::new(2, PSK);
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    let sa = net.established(0)[0].clone();
    let mut bytes = vec![0; 28];
    bytes[..8].copy_from_slice(&sa.spi_initiator.to_be_bytes());
    bytes[8..16].copy_from_slice(&sa.spi_responder.to_be_bytes());
    bytes[16..20].copy_from_slice(&[41, 0x20, 37, 0x20]);
    bytes[20..24].copy_from_slice(&2_u32.to_be_bytes());
    bytes.extend([0, 0, 0, 8, 0, 0, 0, 4]);
    bytes[27] = 36;
    let before = net.nodes[0].sent.len();
    for _ in 0..100 {
        net.inject(0, 500, SocketAddr::new(address(1), 500), bytes.clone());
    }
    net.run(seconds(5));
    assert_eq!(net.nodes[0].sent.len(), before + 1, "one question");
    net.assert_one_pair(0, 1);
}

/// More come at once than are let in without a cookie, over a slow underlay that doubles and reorders: first messages come again while cookies
/// are asked for. Nobody's proof is over another message than the one that was taken.
#[test]
fn a_crowd_on_a_slow_underlay_fails_nobody() {
    let mut net = Net::new(201, PSK);
    net.nodes[0].config = format!("{PSK}limits = {{ cookies_above = 20 }}\n");
    (net.latency, net.shaken, net.doubled, net.lost, net.is_bad) = (millis(300), millis(900), 200, 50, true);
    net.start();
    for node in 1..201 {
        net.want_server(node, 0);
    }
    net.run(seconds(60));
    let failures: Vec<_> = (0..201).flat_map(|node| net.failures(node)).collect();
    assert_eq!((net.established(0).len(), failures), (200, Vec::<String>::new()));
    assert!(net.rejects(0, Reject::Cookie) > 100);
}
