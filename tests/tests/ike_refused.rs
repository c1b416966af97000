//! IKE on the running system: who does not prove who he is stays out, and what no peer would say is refused, or passed over.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::capture::{Capture, Frame};
use tests::census::Lookout;
use tests::cloud::{self, BRIDGE, Cloud, HUB, Phase, Ports, SPOKE1, SPOKE2};
use tests::ike::{self, Stranger, good_offer};
use tests::node::Node;
use tests::pki::{Authority, KeyKind, Validity};
use tests::probe::Probe;
use tests::traffic::Stream;
use tests::{esp, frame, lock, wait};

/// What a node tells, as it comes.
struct Watch {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    fn start(node: &Node) -> Self {
        let mut child = node.watch().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (output, telling) = (child.stdout.take().unwrap(), told.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    telling.lock().unwrap().push(event);
                }
            }
        });
        Self { child, told }
    }

    /// Reasons of failures so far.
    fn failures(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let failed = told.iter().filter(|event| event["event"] == "ike-failed");
        failed.filter_map(|event| event["reason"].as_str()).map(str::to_owned).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// IKE SAs of a node with an address, that are up.
fn up_with(node: &Node, remote: impl Into<IpAddr>) -> Vec<Value> {
    let (sas, remote) = (node.nave_json("show ike").unwrap(), remote.into().to_string());
    let is_it = |sa: &&Value| sa["protection"]["remote"] == *remote && sa["state"] == "up";
    sas.as_array().unwrap().iter().filter(is_it).cloned().collect()
}

/// Has spoke 2 go to the hub again at once, whatever it has been told.
fn begin_anew(cloud: &Cloud) {
    cloud.nodes[SPOKE2].nave(&format!("clear ike {}", cloud.nodes[HUB].nbma)).unwrap();
}

const PSK: &str = "only hub and spokes have heard of it";

/// A spoke that proves itself by a pre-shared key as this name.
fn by_psk(spoke: &mut Node, name: &str, secret: &str) {
    let ike = spoke.ike().unwrap();
    for field in ["certificate", "private_key"] {
        ike.remove(field);
    }
    spoke.set_ike(&format!("identity = \"{name}\"\npsk = [{{ secret = \"{secret}\" }}]")).unwrap();
}

/// Input: a spoke, one after the other, with a certificate of an authority that only has the right name, of an unknown one, with one that has expired, that does not hold yet, that was
/// taken back, with a name that is not admitted, with a wrong pre-shared key, with the right one in the name of somebody who is not admitted, and
/// one that does not believe the hub. Output: each stays out, whoever it is is told why, in words; nothing of it is registered or in the clear,
/// and the other spoke's traffic loses nothing. With what is right it is let in without a restart.
#[test]
fn who_does_not_prove_who_he_is_stays_out() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let authority = cloud.protect_by_ike().unwrap();
    // Of the same name as the right one, and of another.
    let impostor = Authority::root("authority", KeyKind::P256).unwrap();
    let stranger = Authority::root("stranger", KeyKind::P256).unwrap();
    let addresses = cloud.nodes[SPOKE2].certified_addresses();
    let issue =
        |name: &str, validity| authority.issue_for(name, &addresses, KeyKind::P256, validity).unwrap();
    let right = cloud.nodes[SPOKE2].clone_ike();
    let revoked = issue("spoke2", Validity::Now);
    authority.write(&cloud.nodes[HUB].directory().join("pki"), &[&revoked]).unwrap();
    let peers = "peers = [\"spoke1.cloud.example\", \"spoke2.cloud.example\"]";
    cloud.nodes[HUB].set_ike(&format!("{peers}\npsk = [{{ secret = \"{PSK}\" }}]")).unwrap();

    let lookout = Lookout::start(&cloud).unwrap();
    for node in [HUB, SPOKE1] {
        cloud.start_node(node).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let others = Stream::start(cloud.flow(HUB, SPOKE1, 6500, 100)).unwrap();
    let watch = Watch::start(&cloud.nodes[HUB]);

    type Change<'a> = &'a dyn Fn(&mut Node);
    let show = |issued: tests::pki::Issued| move |node: &mut Node| node.show_certificate(&issued).unwrap();
    let cases: [(&str, Change<'_>); 8] = [
        (
            "is not signed by the authority that it names",
            &show(impostor.issue("spoke2", &addresses, KeyKind::P256).unwrap()),
        ),
        (
            "comes from none of `authorities`",
            &show(stranger.issue("spoke2", &addresses, KeyKind::P256).unwrap()),
        ),
        ("expired on", &show(issue("spoke2", Validity::Past))),
        ("is not valid before", &show(issue("spoke2", Validity::Future))),
        ("is revoked", &show(revoked)),
        ("spoke3.cloud.example", &show(issue("spoke3", Validity::Now))),
        ("its pre-shared key is another one", &|node| by_psk(node, "spoke2.cloud.example", "something else")),
        ("spoke3.cloud.example", &|node| by_psk(node, "spoke3.cloud.example", PSK)),
    ];
    let mut is_running = false;
    for (words, change) in cases {
        cloud.nodes[SPOKE2].set_profile(&right);
        change(&mut cloud.nodes[SPOKE2]);
        let before = watch.failures().len();
        if is_running {
            cloud.nodes[SPOKE2].apply().unwrap();
            begin_anew(&cloud);
        } else {
            cloud.start_node(SPOKE2).unwrap();
            is_running = true;
        }
        wait::until(&format!("refusal: {words}"), Duration::from_secs(20), || {
            let failures = watch.failures();
            ensure!(
                failures[before..].iter().any(|reason| reason.contains(words)),
                "{:?}",
                &failures[before..]
            );
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
        assert_eq!(cloud.nodes[HUB].entry_of(cloud.nodes[SPOKE2].tunnel).unwrap(), None, "{words}");
        assert_eq!(up_with(&cloud.nodes[SPOKE2], cloud.nodes[HUB].nbma), Vec::<Value>::new(), "{words}");
    }

    // The other way round: it does not believe the hub.
    cloud.nodes[SPOKE2].set_profile(&right);
    cloud.nodes[SPOKE2].show_certificate(&issue("spoke2", Validity::Now)).unwrap();
    let other = cloud.nodes[SPOKE2].directory().join("other");
    let [root, list] = stranger.write(&other, &[]).unwrap().map(|file| file.display().to_string());
    cloud.nodes[SPOKE2]
        .set_ike(&format!("authorities = [\"{root}\"]\nrevocation_lists = [\"{list}\"]"))
        .unwrap();
    let own = Watch::start(&cloud.nodes[SPOKE2]);
    cloud.nodes[SPOKE2].apply().unwrap();
    begin_anew(&cloud);
    wait::until_true("that it refuses the hub", Duration::from_secs(20), || {
        own.failures().iter().any(|reason| reason.contains("comes from none of `authorities`"))
    })
    .unwrap_or_else(|e| panic!("{e:#}: {:?}\n{}", own.failures(), cloud.what_is_known()));
    assert_eq!(cloud.nodes[HUB].entry_of(cloud.nodes[SPOKE2].tunnel).unwrap(), None);

    cloud.nodes[SPOKE2].set_profile(&right);
    cloud.nodes[SPOKE2].apply().unwrap();
    begin_anew(&cloud);
    cloud.wait_registered(SPOKE2).unwrap();
    let tally = others.finish().unwrap();
    assert!(tally.is_whole(), "{tally}");
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Input: a spoke whose certificate names another tunnel address than its own. Output: IKE lets it in, NHRP does not register it; with the right
/// certificate it is registered.
#[test]
fn a_spoke_registers_only_what_its_certificate_names() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    let authority = cloud.protect_by_ike().unwrap();
    let other = [IpAddr::from(cloud.nodes[SPOKE1].tunnel)];
    let own = authority.issue("spoke2", &other, KeyKind::P256).unwrap();
    cloud.nodes[SPOKE2].show_certificate(&own).unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    for node in [HUB, SPOKE2] {
        cloud.start_node(node).unwrap();
    }
    let server = cloud.nodes[HUB].tunnel;
    wait::until("a refusal", Duration::from_secs(20), || {
        let server = cloud.nodes[SPOKE2].server(server)?;
        ensure!(
            server.to_string().contains("refused") || server.to_string().contains("prohibited"),
            "{server:#}"
        );
        Ok(())
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    assert_eq!(up_with(&cloud.nodes[HUB], cloud.nodes[SPOKE2].nbma).len(), 1);
    for address in [cloud.nodes[SPOKE2].tunnel, cloud.nodes[SPOKE1].tunnel] {
        assert_eq!(cloud.nodes[HUB].entry_of(address).unwrap(), None);
    }
    let addresses = cloud.nodes[SPOKE2].certified_addresses();
    let own = authority.issue("spoke2", &addresses, KeyKind::P256).unwrap();
    cloud.nodes[SPOKE2].show_certificate(&own).unwrap();
    cloud.nodes[SPOKE2].apply().unwrap();
    begin_anew(&cloud);
    cloud.wait_registered(SPOKE2).unwrap();
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Numbers of key exchanges.
const X25519: u16 = 31;
const P256: u16 = 19;
/// Types of notifications (RFC 7296 §3.10.1).
const INVALID_KE_PAYLOAD: u16 = 17;
const NO_PROPOSAL_CHOSEN: u16 = 14;
const COOKIE: u16 = 16390;

/// A cloud of hub and spoke 1 with traffic between their hosts, and a stranger on its underlay.
fn besieged(hub: &str) -> (Cloud, Lookout, Stream, Stranger) {
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.protect_by_ike().unwrap();
    cloud.nodes[HUB].set_ike(hub).unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    for node in [HUB, SPOKE1] {
        cloud.start_node(node).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let stream = Stream::start(cloud.flow(SPOKE1, HUB, 6600, 100)).unwrap();
    let stranger = Stranger::come(&cloud).unwrap();
    (cloud, lookout, stream, stranger)
}

/// The spoke's SAs and traffic are as they were, and nothing is in the clear.
fn undisturbed(mut cloud: Cloud, lookout: Lookout, stream: Stream) {
    let sas = up_with(&cloud.nodes[HUB], cloud.nodes[SPOKE1].nbma);
    assert_eq!(sas.len(), 1, "{sas:#?}\n{}", cloud.what_is_known());
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}\n{}", cloud.what_is_known());
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}

/// Input: beginnings that are right but for one thing: weak algorithms, another key exchange than that of the key, keys that are no points, a
/// version of tomorrow, an unknown payload that counts; and bytes of any kind and length, to both ports. Output: no answer, or the one of the
/// standard, and never keys; what is right is answered; nothing is kept of it, and nothing else is disturbed.
#[test]
fn what_no_peer_would_say_is_refused() {
    let _turn = lock::take_turn().unwrap();
    let (cloud, lookout, stream, stranger) = besieged("");
    let hub = cloud.nodes[HUB].nbma;
    let mut spi = 0x1111_2222_3333_0000_u64;
    let mut next = || {
        spi += 1;
        spi
    };
    let nonce = [7; 32];
    let mut key = [9; 32];
    key[31] &= 0x7f;
    let says = |message: &[u8]| {
        stranger.ask(hub, message).unwrap().map_or_else(Default::default, |answer| ike::payloads(&answer))
    };

    // So it is right, and answered with SA, KE and Nonce.
    let (types, _) = says(&ike::init(next(), &good_offer(X25519), X25519, &key, &nonce));
    assert!([33, 34, 40].iter().all(|kind| types.contains(kind)), "{types:?}\n{}", cloud.what_is_known());

    // Triple DES, HMAC-SHA1 and 1024 bits; AES-CBC with HMAC-MD5; no encryption at all.
    for weak in [
        &[(1, 3, None), (3, 2, None), (2, 2, None), (4, 2, None)][..],
        &[(1, 12, Some(256)), (3, 1, None), (2, 1, None), (4, 14, None)],
        &[(1, 11, None), (3, 12, None), (2, 5, None), (4, X25519, None)],
        &[(1, 20, Some(256)), (2, 6, None)],
    ] {
        let (types, told) = says(&ike::init(next(), weak, X25519, &key, &nonce));
        assert_eq!((&types[..], &told[..]), (&[41][..], &[NO_PROPOSAL_CHOSEN][..]), "{weak:?}");
    }
    // The key of another group than the one that is chosen.
    let (_, told) = says(&ike::init(next(), &good_offer(P256), X25519, &key, &nonce));
    assert_eq!(told, [INVALID_KE_PAYLOAD]);

    // Keys that are none: points off the curve, of no order, cut short, too long; and nonces of a wrong length.
    let (off, infinite) = ([0x11; 64], [0; 64]);
    let long = [9; 300];
    for (group, key, nonce) in [
        (P256, &off[..], &nonce[..]),
        (P256, &infinite, &nonce),
        (P256, &off[..63], &nonce),
        (X25519, &[0; 32], &nonce),
        (X25519, &key[..31], &nonce),
        (X25519, &long, &nonce),
        (X25519, &[], &nonce),
        (X25519, &key, &[7; 15]),
        (X25519, &key, &long),
    ] {
        let (types, _) = says(&ike::init(next(), &good_offer(group), group, key, nonce));
        assert!(
            !types.contains(&34),
            "group {group}, {} bytes, nonce of {}: {types:?}",
            key.len(),
            nonce.len()
        );
    }
    // Version 3, and a payload that nobody knows and that has to be known.
    let mut tomorrow = ike::init(next(), &good_offer(X25519), X25519, &key, &nonce);
    tomorrow[17] = 0x30;
    assert!(!says(&tomorrow).0.contains(&34));
    let known = ike::init_payloads(&good_offer(X25519), X25519, &key, &nonce, 200);
    let unknown = [known, ike::payload(0, 0x80, &[1, 2, 3, 4])].concat();
    assert!(!says(&ike::whole([next(), 0], 33, 34, 8, 0, &unknown)).0.contains(&34));

    // Whatever comes: cut, stretched, changed, without sense, as large as a datagram can be.
    let right = ike::init(next(), &good_offer(X25519), X25519, &key, &nonce);
    for length in 0..right.len() {
        stranger.say(hub, &right[..length]).unwrap();
    }
    for at in 16..right.len() {
        let mut changed = right.clone();
        changed[at] ^= 0xff;
        stranger.say(hub, &changed).unwrap();
        stranger.say_to_nat_port(hub, &[&[0; 4][..], &changed].concat()).unwrap();
    }
    let noise = esp::random::<4096>().unwrap();
    for length in (0..noise.len()).step_by(37) {
        stranger.say(hub, &noise[..length]).unwrap();
        stranger.say_to_nat_port(hub, &[&[0; 4][..], &noise[..length]].concat()).unwrap();
    }
    let large = ike::whole([next(), 0], 33, 34, 8, 0, &vec![0; 60_000]);
    stranger.say(hub, &large).unwrap();
    // What belongs to no SA.
    for exchange in 34..=43 {
        stranger.say(hub, &ike::whole([next(), next()], 46, exchange, 8, 1, &[0; 64])).unwrap();
    }
    while stranger.hear().is_some() {}
    let (types, _) = says(&ike::init(next(), &good_offer(X25519), X25519, &key, &nonce));
    assert!(types.contains(&34), "it does not answer any more: {types:?}\n{}", cloud.what_is_known());
    // What began and did not go on is forgotten.
    let half = || cloud.nodes[HUB].nave_json("show ike").unwrap().as_array().unwrap().len() - 1;
    println!("{} began", half());
    wait::until_true("that it is forgotten", Duration::from_secs(60), || half() == 0)
        .unwrap_or_else(|e| panic!("{e:#}\n{}", cloud.what_is_known()));
    undisturbed(cloud, lookout, stream);
}

/// Input: thousands of beginnings. Output: from some number on each has to show that it is where it says; no more are kept than the limit is; a
/// spoke comes up among them.
#[test]
fn beginnings_without_end_are_bounded_and_a_spoke_comes_up_among_them() {
    let _turn = lock::take_turn().unwrap();
    let limits = "limits = { half_open = 64, half_open_per_address = 48, cookies_above = 16 }";
    let (mut cloud, lookout, stream, stranger) = besieged(limits);
    let hub = cloud.nodes[HUB].nbma;
    let (mut kept, mut cookies) = (0, 0);
    let flood = |from: u64, kept: &mut usize, cookies: &mut usize| {
        for spi in from..from + 1000 {
            stranger.say(hub, &ike::init(spi, &good_offer(X25519), X25519, &[9; 32], &[7; 32])).unwrap();
            if spi % 8 == 0 {
                std::thread::sleep(Duration::from_millis(1)); // Eight a millisecond: no socket buffer takes all at once.
            }
        }
        while let Some(answer) = stranger.hear() {
            let (types, told) = ike::payloads(&answer);
            *kept += usize::from(types.contains(&34));
            *cookies += usize::from(told.contains(&COOKIE));
        }
    };
    flood(0x5000, &mut kept, &mut cookies);
    assert!(
        (1..=17).contains(&kept) && cookies > 100,
        "{kept} kept, {cookies} cookies\n{}",
        cloud.what_is_known()
    );
    let rows = cloud.nodes[HUB].nave_json("show ike").unwrap().as_array().unwrap().len();
    assert!(rows <= 18, "{rows}");
    cloud.start_node(SPOKE2).unwrap();
    flood(0x9000, &mut kept, &mut cookies);
    cloud.wait_registered(SPOKE2).unwrap();
    println!("{kept} kept, {cookies} cookies");
    undisturbed(cloud, lookout, stream);
}

/// Messages on the underlay between two addresses, in order.
fn messages(frames: &[Frame], ends: [Ipv4Addr; 2]) -> Vec<(Ipv4Addr, Ipv4Addr, Vec<u8>)> {
    let message = |frame: &Frame| {
        let message = ike::message(frame)?;
        let (IpAddr::V4(from), IpAddr::V4(to)) = (message.source.ip(), message.destination.ip()) else {
            return None;
        };
        (ends.contains(&from) && ends.contains(&to)).then(|| (from, to, message.bytes.to_vec()))
    };
    frames.iter().filter_map(message).collect()
}

/// Input: everything that hub and spoke said to each other while they agreed, again, in order, backwards, and with a bit of it changed; and
/// requests of their SA that nobody could have made. Output: their SA is the same, and nothing is lost.
#[test]
fn what_comes_again_or_changed_or_in_disorder_changes_nothing() {
    let _turn = lock::take_turn().unwrap();
    let mut cloud = Cloud::lay(&cloud::test_prefix(), Phase::Three, Ports::Tap).unwrap();
    cloud.protect_by_ike().unwrap();
    let lookout = Lookout::start(&cloud).unwrap();
    let capture = Capture::start(&cloud.internet, BRIDGE, |_| true).unwrap();
    for node in [HUB, SPOKE1] {
        cloud.start_node(node).unwrap();
    }
    cloud.wait_registered(SPOKE1).unwrap();
    let [hub, spoke] = [HUB, SPOKE1].map(|node| cloud.nodes[node].nbma);
    let said = messages(&capture.finish().unwrap(), [hub, spoke]);
    assert!(said.len() >= 4, "{said:?}");
    let stream = Stream::start(cloud.flow(SPOKE1, HUB, 6700, 100)).unwrap();
    let spis = |cloud: &Cloud| {
        [(HUB, spoke), (SPOKE1, hub)].map(|(node, other)| {
            let sas = up_with(&cloud.nodes[node], other);
            assert_eq!(sas.len(), 1, "{sas:#?}");
            let children: Vec<_> =
                sas[0]["children"].as_array().unwrap().iter().map(|child| child["inbound"].clone()).collect();
            (sas[0]["spi_initiator"].clone(), sas[0]["spi_responder"].clone(), children)
        })
    };
    let before = spis(&cloud);
    let probe = Probe::plug_in(&cloud).unwrap();
    let stations = [hub, spoke].map(|address| (address, probe.resolve(address).unwrap()));
    let send = |from: Ipv4Addr, to: Ipv4Addr, bytes: &[u8]| {
        let (_, mac) = stations.iter().find(|(address, _)| *address == to).unwrap();
        let datagram = frame::udp(ike::PORT, ike::PORT, bytes);
        probe.send(*mac, &frame::ipv4((from, to), 17, 64, &datagram)).unwrap();
        std::thread::sleep(Duration::from_millis(2)); // One after the other.
    };
    for _ in 0..3 {
        said.iter().for_each(|(from, to, bytes)| send(*from, *to, bytes));
        said.iter().rev().for_each(|(from, to, bytes)| send(*from, *to, bytes));
    }
    // Each byte of what was sealed, one after the other; and the whole under another message ID.
    for (from, to, bytes) in said.iter().filter(|(_, _, bytes)| bytes[18] != 34) {
        for at in (20..bytes.len()).step_by(7) {
            let mut forged = bytes.clone();
            forged[at] ^= 0x40;
            send(*from, *to, &forged);
        }
        for id in [0, 2, 3, u32::MAX] {
            for exchange in 35..=37 {
                let mut forged = bytes.clone();
                forged[18] = exchange;
                forged[20..24].copy_from_slice(&u32::to_be_bytes(id));
                send(*from, *to, &forged);
            }
        }
    }
    let after = spis(&cloud);
    assert_eq!(before, after, "{}", cloud.what_is_known());
    let tally = stream.finish().unwrap();
    assert!(tally.is_whole(), "{tally}");
    cloud.check_alive().unwrap();
    cloud.stop().unwrap();
    lookout.finish().unwrap().check().unwrap();
}
