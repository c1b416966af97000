//! Both at once (RFC 7296 §2.8.1, §2.8.2, §2.25): who wins is a table of nonces, and no packet is lost whoever does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ike::crypto::fake::Fake;
use ike::crypto::{Begun, CryptoError, Secret};
use ike::{Clear, Crypto, Event, Input};
use model::ike::{Cipher, Group, Integrity, Prf};
use model::sa::{Direction, Reached};
use model::state::ike::Role;
use model::time::Instant;

use crate::net::*;

/// The nonces that are next.
type Nonces = Arc<Mutex<VecDeque<u8>>>;

/// As the fake one, but for nonces that a test chose: 32 bytes of one number.
#[derive(Debug)]
struct Chosen {
    fake: Fake,
    nonces: Nonces,
}

impl Crypto for Chosen {
    fn random(&mut self, bytes: &mut [u8]) {
        match (bytes.len() == 32).then(|| self.nonces.lock().unwrap().pop_front()).flatten() {
            Some(nonce) => bytes.fill(nonce),
            None => self.fake.random(bytes),
        }
    }
    fn begin(&mut self, group: Group) -> Result<Begun, CryptoError> {
        self.fake.begin(group)
    }
    fn answer(&mut self, group: Group, public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        self.fake.answer(group, public)
    }
    fn finish(&mut self, begun: Begun, public: &[u8]) -> Result<Secret, CryptoError> {
        self.fake.finish(begun, public)
    }
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        self.fake.prf(prf, key, parts)
    }
    fn seal(&self, cipher: Cipher, key: &[u8], iv: &[u8], aad: &[u8], text: &mut Vec<u8>) {
        self.fake.seal(cipher, key, iv, aad, text);
    }
    fn open(
        &self,
        cipher: Cipher,
        key: &[u8],
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.fake.open(cipher, key, iv, aad, text)
    }
    fn integrity(&self, integrity: Integrity, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        self.fake.integrity(integrity, key, parts)
    }
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        self.fake.sha1(parts)
    }
}

/// Two engines whose nonces are chosen.
fn chosen(config: &str) -> (Net, [Nonces; 2]) {
    let mut net = Net::new(2, &format!("{PSK}{config}"));
    let nonces = [Nonces::default(), Nonces::default()];
    for (node, nonces) in nonces.iter().enumerate() {
        let crypto = Chosen { fake: Fake::new(node as u64 + 1), nonces: nonces.clone() };
        net.nodes[node].engine = ike::Engine::new(Box::new(crypto));
        net.configure(node);
        net.greet(node, true);
    }
    (net, nonces)
}

/// All orders of four numbers.
fn orders() -> Vec<[u8; 4]> {
    let mut all = Vec::new();
    for n in 0..256_u32 {
        let order = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3].map(|d| d as u8 + 1);
        if (1..=4).all(|d| order.contains(&d)) {
            all.push(order);
        }
    }
    assert_eq!(all.len(), 24);
    all
}

fn give_nonces(nonces: &[Nonces; 2], [a_asks, a_answers, b_asks, b_answers]: [u8; 4]) {
    // Each asks first and is asked then.
    nonces[0].lock().unwrap().extend([a_asks, a_answers]);
    nonces[1].lock().unwrap().extend([b_asks, b_answers]);
}

/// RFC 7296 §2.8.1: the child that was made with the lowest of four nonces is closed by who asked for it.
#[test]
fn both_rekey_a_child_at_once() {
    for order in orders() {
        for late in [0, 3, 9] {
            let (mut net, nonces) = chosen("");
            net.want(0, 1);
            net.run(seconds(1));
            net.assert_one_pair(0, 1);
            net.converse(0, 1);
            give_nonces(&nonces, order);
            let lifetime = |net: &Net, node: usize| {
                let (peer, child) = (net.peer(node, 1 - node), net.established(node)[0].children[0].clone());
                Input::Lifetime {
                    peer,
                    spi: child.inbound,
                    direction: Direction::Inbound,
                    reached: Reached::Soft,
                }
            };
            let (first, second) = (lifetime(&net, 0), lifetime(&net, 1));
            net.give(0, first);
            net.run(millis(late));
            net.give(1, second);
            net.run(seconds(10));
            let (_, lost, held) = net.talked();
            assert_eq!((lost, held), (0, 0), "{order:?} {late}");
            net.assert_one_pair(0, 1);
            let [a_asks, a_answers, b_asks, b_answers] = order;
            let stays_theirs = a_asks.min(b_answers) < b_asks.min(a_answers);
            // At node 0 the peer's new one came up first, its own when the answer came.
            let made = net.nodes[0].events.iter().filter_map(|(_, event)| match event {
                Event::ChildUp { inbound, is_rekey: true, .. } => Some(*inbound),
                _ => None,
            });
            let made: Vec<_> = made.collect();
            assert_eq!(made.len(), 2, "{order:?} {late}");
            let expected = if stays_theirs { made[0] } else { made[1] };
            assert_eq!(net.established(0)[0].children[0].inbound, expected, "{order:?} {late}");
        }
    }
}

/// RFC 7296 §2.8.2: the same of IKE SAs; the children go with the one that stays.
#[test]
fn both_rekey_the_ike_sa_at_once() {
    for order in orders() {
        for late in [0, 3, 9] {
            let (mut net, nonces) = chosen("lifetime = 1000\nidle = 0\n");
            net.want(0, 1);
            net.run(seconds(1));
            net.assert_one_pair(0, 1);
            let child = net.established(0)[0].children[0].inbound;
            // Both find that it is time when they are given the time; one of them a little later.
            net.loses = Some(Box::new(|_, _| true));
            let due = |net: &Net, node: usize| net.established(node)[0].rekey_in.unwrap();
            let wait = due(&net, 0).max(due(&net, 1));
            for node in 0..2 {
                net.behead_quietly(node);
            }
            net.run(wait);
            net.loses = None;
            net.converse(0, 1);
            give_nonces(&nonces, order);
            net.wake(0);
            net.run(millis(late));
            net.wake(1);
            net.run(seconds(40));
            let (_, lost, held) = net.talked();
            assert_eq!((lost, held), (0, 0), "{order:?} {late}");
            net.assert_one_pair(0, 1);
            assert_eq!((net.sas(0).len(), net.sas(1).len()), (1, 1), "{order:?} {late}");
            let [a_asks, a_answers, b_asks, b_answers] = order;
            let stays_theirs = a_asks.min(b_answers) < b_asks.min(a_answers);
            let role = net.established(0)[0].role;
            assert_eq!(
                role,
                if stays_theirs { Role::Responder } else { Role::Initiator },
                "{order:?} {late}"
            );
            assert_eq!(net.established(0)[0].children[0].inbound, child, "the child is the same");
        }
    }
}

/// Both begin at once: of the two IKE SAs that of the initiator with the lower nonce goes.
#[test]
fn both_begin_at_once() {
    for (a, b) in [(1, 2), (2, 1)] {
        for late in 0..=60 {
            let (mut net, nonces) = chosen("");
            nonces[0].lock().unwrap().push_back(a);
            nonces[1].lock().unwrap().push_back(b);
            net.want(0, 1);
            net.run(millis(late));
            net.want(1, 0);
            net.run(millis(400));
            assert!(net.can_talk(0, 1), "{a} {b} {late}");
            net.converse(0, 1);
            net.run(seconds(40));
            let (_, lost, held) = net.talked();
            assert_eq!((lost, held), (0, 0), "{a} {b} {late}");
            net.assert_one_pair(0, 1);
            assert_eq!((net.sas(0).len(), net.sas(1).len()), (1, 1), "{a} {b} {late}");
            assert!(net.nodes.iter().all(|n| n.downs.is_empty()), "{a} {b} {late}");
            if late == 0 {
                let role = if a > b { Role::Initiator } else { Role::Responder };
                assert_eq!(net.established(0)[0].role, role);
            }
        }
    }
}

/// The one that goes is not closed by who ought to, and the one that stays is rekeyed meanwhile: it is closed all the same.
#[test]
fn what_goes_for_the_sake_of_one_that_is_rekeyed_goes_all_the_same() {
    let (mut net, nonces) = chosen("lifetime = 12\ndead_peer_detection = 600\n");
    nonces[0].lock().unwrap().push_back(1);
    nonces[1].lock().unwrap().push_back(2);
    net.want(0, 1);
    net.want(1, 0);
    net.run(millis(200));
    let spi = net.established(0).iter().find(|sa| sa.role == Role::Initiator).unwrap().spi_initiator;
    net.is_bad = true;
    net.loses = Some(Box::new(move |_, bytes| {
        wire::ike::Message::decode(bytes).is_ok_and(|message| message.header.initiator_spi == spi)
    }));
    net.run(seconds(28));
    let both = net.established(1);
    assert!(both.len() == 2 && net.nodes[1].engine.counts().rekeyed > 0, "{both:#?}");
    net.run(seconds(4));
    assert_eq!(net.established(1).len(), 1, "{:#?}", net.sas(1));
    net.run(seconds(30));
    net.assert_one_pair(0, 1);
}

/// The same where messages get lost, by chance.
#[test]
fn both_begin_at_once_over_a_bad_underlay() {
    for seed in 1..60 {
        let mut net = Net::seeded(2, PSK, seed);
        net.is_bad = true;
        (net.lost, net.doubled, net.shaken) = (250, 100, millis(100));
        net.start();
        net.want_server(0, 1);
        net.want_server(1, 0);
        net.run(seconds(20));
        (net.lost, net.doubled, net.shaken) = (0, 0, millis(0));
        net.run(seconds(60));
        net.assert_one_pair(0, 1);
    }
}

/// RFC 7296 §2.25.2: a child is rekeyed by one while the other rekeys the IKE SA.
#[test]
fn a_child_and_the_ike_sa_at_once() {
    for late in 0..=25 {
        let (mut net, _) = chosen("lifetime = 100\n");
        net.nodes[1].config = PSK.to_owned();
        net.configure(1);
        net.want(0, 1);
        net.run(seconds(1));
        net.converse(0, 1);
        let wait = net.established(0)[0].rekey_in.unwrap();
        net.run(wait - millis(12));
        net.run(millis(late));
        let (peer, child) = (net.peer(1, 0), net.established(1)[0].children[0].clone());
        let (spi, direction) = (child.outbound, Direction::Outbound);
        net.give(1, Input::Lifetime { peer, spi, direction, reached: Reached::Soft });
        net.run(seconds(20));
        let (_, lost, held) = net.talked();
        assert_eq!((lost, held), (0, 0), "{late}");
        net.assert_one_pair(0, 1);
        assert_ne!(net.established(1)[0].children[0].inbound, child.inbound, "{late}");
        let up = |node: usize| net.nodes[node].engine.counts().rekeyed;
        assert_eq!((up(0), up(1)), (1, 1), "{late}");
    }
}

/// One closes what the other rekeys.
#[test]
fn closing_and_rekeying_at_once() {
    for late in 0..=25 {
        for of_ike in [false, true] {
            let (mut net, _) = chosen("lifetime = 1000\nchild_lifetime = 100000\n");
            net.nodes[1].config = PSK.to_owned();
            net.configure(1);
            net.want(0, 1);
            net.run(seconds(1));
            if of_ike {
                let wait = net.established(0)[0].rekey_in.unwrap();
                net.run(wait - millis(12));
            } else {
                let (peer, child) = (net.peer(0, 1), net.established(0)[0].children[0].clone());
                let (spi, direction) = (child.outbound, Direction::Outbound);
                net.run(millis(1));
                net.give(0, Input::Lifetime { peer, spi, direction, reached: Reached::Soft });
            }
            net.run(millis(late));
            net.give(1, Input::Clear(Clear::default()));
            net.run(seconds(60));
            let sizes = |node: usize| net.nodes[node].engine.sizes();
            assert_eq!((sizes(0), sizes(1)), ((0, 0, 0), (0, 0, 0)), "{late} {of_ike} {:#?}", net.sas(0));
            assert!(net.nodes.iter().all(|n| n.inbound.is_empty() && n.outbound.is_empty()));
        }
    }
}

/// Both close at once.
#[test]
fn both_close_at_once() {
    for late in 0..=12 {
        let (mut net, _) = chosen("");
        net.want(0, 1);
        net.run(seconds(1));
        net.give(0, Input::Clear(Clear::default()));
        net.run(millis(late));
        net.give(1, Input::Clear(Clear::default()));
        net.run(seconds(30));
        let sizes = |node: usize| net.nodes[node].engine.sizes();
        assert_eq!((sizes(0), sizes(1)), ((0, 0, 0), (0, 0, 0)), "{late}");
    }
}

impl Net {
    /// A node hears no clock for a while.
    fn behead_quietly(&mut self, node: usize) {
        self.behead(node);
    }

    /// It hears it again.
    fn wake(&mut self, node: usize) {
        self.nodes[node].has_control = true;
        let _: Instant = self.now;
        self.give(node, Input::Tick);
    }
}
