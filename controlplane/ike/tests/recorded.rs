//! Exchanges of other people's daemons, recorded with all their secrets (`recorded/make.py`), verified byte for byte by what the engine is made
//! of: key schedule, encrypted payloads and their fragments, proofs of identity, keys of children, rekeying of both kinds of SAs, cookies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)] // A test fails by panicking, in its helpers too.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ike::auth::Claim;
use ike::credential::Octets;
use ike::crypto::aws_lc::AwsLc;
use ike::keymat::{IkeKeys, Seeds, Side, child_keys};
use ike::suite::{accept, accept_esp, choose, choose_esp};
use ike::{Credentials, Crypto, sk};
use model::config::Ike;
use model::ike::{EspSuite, Identity, IkeSuite};
use model::sa::Spi;
use serde::Deserialize;
use serde_json::json;
use wire::ike::{
    Exchange, Header, Identification, Message, NotifyType, Payload, Proposal, Protocol, Selector,
    decode_payloads, encode, encode_payloads,
};

/// A capture, and what its daemons wrote into their logs.
#[derive(Deserialize)]
struct Recording {
    psk: Option<String>,
    messages: Vec<Datagram>,
    ike: Vec<Secrets>,
    /// Of IKE SAs that nothing was said in.
    silent: Vec<Secrets>,
    /// Shared secrets of children that have a key exchange of their own, by their SPIs.
    shared: HashMap<String, String>,
    /// Keys that were installed, by SPI.
    esp: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Datagram {
    frame: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: String,
}

/// Of an IKE SA.
#[derive(Deserialize)]
struct Secrets {
    #[serde(default)]
    spis: [String; 2],
    d: String,
    shared: String,
    skeyseed: String,
    ei: String,
    er: String,
    pi: String,
    pr: String,
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn spi(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// How much of each there was, so that nothing is passed over.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    ike_sas: usize,
    rekeyed: usize,
    children: usize,
    /// Children with a key exchange of their own.
    keyed: usize,
    proofs: usize,
    fragments: usize,
    cookies: usize,
    /// Encrypted messages and fragments, sealed again to the bytes that they were.
    sealed: usize,
}

/// An IKE SA of the recording.
struct Sa {
    keys: IkeKeys,
    /// Of the two first messages of the first one.
    init: Option<Init>,
    /// Payloads of requests whose response did not come yet, by who sent them and their number.
    requests: HashMap<(bool, u32), Vec<Payload>>,
    /// Fragments of messages that are not whole: their parts and the type of the first payload.
    fragments: HashMap<(bool, bool, u32), Parts>,
}

/// Parts of a message by their number, with the type of the first payload.
type Parts = BTreeMap<u16, (u8, Vec<u8>)>;

#[derive(Clone)]
struct Init {
    request: Vec<u8>,
    response: Vec<u8>,
    nonces: [Vec<u8>; 2],
}

struct Walk {
    recording: Recording,
    credentials: Option<(Ike, Credentials)>,
    /// When it was recorded, in seconds since 1970.
    now: u64,
    /// First requests, by the SPI of the initiator; of several, the last one.
    begun: HashMap<u64, Vec<u8>>,
    cookies: HashMap<u64, Vec<u8>>,
    sas: HashMap<[u64; 2], Sa>,
    seen: Seen,
}

fn recorded() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded"))
}

/// All that the daemons of the recordings agree on.
fn suites() -> Vec<IkeSuite> {
    ["aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-ecp256"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

/// What they agree on for children.
const ESP: [&str; 3] = ["aes128gcm16-esn", "aes128gcm16", "aes128gcm16-esn-ecp256"];

/// A profile, and what its files hold.
fn loaded(section: serde_json::Value) -> (Ike, Credentials) {
    let ike: Ike = serde_json::from_value(section).unwrap();
    let read = |file: &Path| std::fs::read(recorded().join("pki").join(file));
    let credentials = Credentials::load(&ike, &read).unwrap();
    (ike, credentials)
}

fn nonce(payloads: &[Payload]) -> Vec<u8> {
    let nonce =
        payloads.iter().find_map(|one| if let Payload::Nonce(data) = one { Some(data) } else { None });
    nonce.unwrap().clone()
}

fn proposals(payloads: &[Payload]) -> Option<&[Proposal]> {
    payloads.iter().find_map(|one| if let Payload::Sa(all) = one { Some(&all[..]) } else { None })
}

fn key_exchange(payloads: &[Payload]) -> Option<u16> {
    payloads.iter().find_map(|one| match one {
        Payload::KeyExchange { method, .. } => Some(*method),
        _ => None,
    })
}

fn notified(payloads: &[Payload], wanted: NotifyType) -> Option<&[u8]> {
    payloads.iter().find_map(|one| match one {
        Payload::Notify { kind, data, .. } if *kind == wanted => Some(&data[..]),
        _ => None,
    })
}

fn side(is_initiator: bool) -> Side {
    if is_initiator { Side::Initiator } else { Side::Responder }
}

impl Walk {
    fn of(name: &str, credentials: Option<(Ike, Credentials)>) -> Self {
        let text = std::fs::read_to_string(recorded().join(format!("{name}.json"))).unwrap();
        let recording: Recording = serde_json::from_str(&text).unwrap();
        let psk = recording.psk.as_ref().map(|secret| loaded(json!({ "psk": [{ "secret": secret }] })));
        Self {
            recording,
            credentials: credentials.or(psk),
            now: 1_795_467_349,
            begun: HashMap::new(),
            cookies: HashMap::new(),
            sas: HashMap::new(),
            seen: Seen::default(),
        }
    }

    fn whole(mut self) -> Seen {
        for datagram in std::mem::take(&mut self.recording.messages) {
            self.datagram(&datagram);
        }
        self.seen
    }

    fn datagram(&mut self, datagram: &Datagram) {
        let bytes = hex(&datagram.bytes);
        let message = Message::decode(&bytes).unwrap();
        let spis = [message.header.initiator_spi, message.header.responder_spi];
        let Some(sealed) = message.sealed else {
            assert_eq!(encode(message.header, &message.payloads), bytes, "frame {}", datagram.frame);
            return self.clear(datagram, &message, &bytes);
        };
        let from = side(message.header.is_initiator);
        let sa = self.sas.get_mut(&spis).unwrap();
        let of = |one: &&Secrets| one.spis == spis.map(|spi| format!("{spi:016x}"));
        let secrets = self.recording.ike.iter().find(of).unwrap();
        let (ei, er) = (hex(&secrets.ei), hex(&secrets.er));
        let of_log = IkeKeys::of_table(sa.keys.suite(), [&ei, &er], [&[], &[]]).unwrap();
        // Computed keys open it, and make the same bytes again; so do those of the log, which are the same therefore.
        let (iv, text) = sk::open_padded(&AwsLc, &sa.keys, from, &sealed).unwrap();
        for keys in [&sa.keys, &of_log] {
            let what = (sealed.first, sealed.fragment);
            let again = sk::seal_padded(&AwsLc, keys, from, message.header, what, iv, text.clone());
            assert_eq!(again, bytes, "frame {}", datagram.frame);
        }
        self.seen.sealed += 1;
        let mut chain = sk::open(&AwsLc, &sa.keys, from, &sealed).unwrap();
        let mut first = sealed.first;
        if let Some((number, of)) = sealed.fragment {
            self.seen.fragments += 1;
            let key = (message.header.is_initiator, message.header.is_response, message.header.message_id);
            let parts = sa.fragments.entry(key).or_default();
            parts.insert(number, (first, chain));
            if parts.len() < of.into() {
                return;
            }
            let parts = sa.fragments.remove(&key).unwrap();
            first = parts[&1].0;
            chain = parts.into_values().flat_map(|(_, part)| part).collect();
        }
        let payloads = decode_payloads(first, &chain).unwrap();
        assert_eq!(encode_payloads(&payloads), (first, chain), "frame {}", datagram.frame);
        let requester = message.header.is_initiator != message.header.is_response;
        let key = (requester, message.header.message_id);
        if !message.header.is_response {
            sa.requests.insert(key, payloads);
            return;
        }
        let request = sa.requests.remove(&key).unwrap();
        match message.header.exchange {
            Exchange::IKE_AUTH => self.proved(spis, &request, &payloads),
            Exchange::CREATE_CHILD_SA => self.created(spis, &request, &payloads),
            Exchange::INFORMATIONAL => {}
            other => panic!("{other}"),
        }
    }

    /// IKE_SA_INIT.
    fn clear(&mut self, datagram: &Datagram, message: &Message<'_>, bytes: &[u8]) {
        assert_eq!(message.header.exchange, Exchange::IKE_SA_INIT);
        self.check_nat_detection(datagram, message);
        let (ours, payloads) = (message.header.initiator_spi, &message.payloads[..]);
        if !message.header.is_response {
            // RFC 7296 §2.6: the cookie stands first, and all else is as it was.
            if let Some(cookie) = self.cookies.remove(&ours) {
                let before = Message::decode(&self.begun[&ours]).unwrap().payloads;
                let [Payload::Notify { kind: NotifyType::COOKIE, data, .. }, rest @ ..] = payloads else {
                    panic!("no cookie")
                };
                assert_eq!((data, rest), (&cookie, &before[..]));
                self.seen.cookies += 1;
            }
            self.begun.insert(ours, bytes.to_vec());
            return;
        }
        if let Some(cookie) = notified(payloads, NotifyType::COOKIE) {
            assert!((1..=64).contains(&cookie.len()) && message.header.responder_spi == 0);
            self.cookies.insert(ours, cookie.to_vec());
            return;
        }
        let begun = self.begun[&ours].clone();
        let request = Message::decode(&begun).unwrap().payloads;
        let spis = [ours, message.header.responder_spi];
        let suite = self.agreed(&request, payloads, None).0;
        let nonces = [nonce(&request), nonce(payloads)];
        let secrets = self.secrets(spis);
        let shared = hex(&secrets.shared);
        let seed = AwsLc.prf(suite.prf, &nonces.concat(), &[&shared]);
        assert_eq!(seed.to_vec(), hex(&secrets.skeyseed));
        let seeds = Seeds {
            initiator_nonce: &nonces[0],
            responder_nonce: &nonces[1],
            initiator_spi: spis[0],
            responder_spi: spis[1],
        };
        let keys = IkeKeys::first(&AwsLc, suite, &shared, &seeds);
        let init = Init { request: begun, response: bytes.to_vec(), nonces };
        self.sas.insert(spis, Sa::new(keys, Some(init)));
        self.seen.ike_sas += 1;
    }

    /// RFC 7296 §2.23: hashes of the SPIs, an address and a port.
    fn check_nat_detection(&self, datagram: &Datagram, message: &Message<'_>) {
        let Header { initiator_spi, responder_spi, .. } = message.header;
        let hash = |at: SocketAddr| {
            let IpAddr::V4(address) = at.ip() else { panic!("{at}") };
            let parts = [&initiator_spi.to_be_bytes()[..], &responder_spi.to_be_bytes()];
            AwsLc.sha1(&[parts[0], parts[1], &address.octets(), &at.port().to_be_bytes()])
        };
        for (kind, at) in [
            (NotifyType::NAT_DETECTION_SOURCE_IP, datagram.from),
            (NotifyType::NAT_DETECTION_DESTINATION_IP, datagram.to),
        ] {
            // Who wants UDP in any case says that its own address was changed.
            let is_forced = kind == NotifyType::NAT_DETECTION_SOURCE_IP && self.is_forced();
            if let Some(told) = notified(&message.payloads, kind) {
                assert_eq!(told == hash(at), !is_forced, "frame {}", datagram.frame);
            }
        }
    }

    /// Whether its daemons were told to put ESP into UDP.
    fn is_forced(&self) -> bool {
        let on_4500 = |secrets: &Secrets| secrets.spis[0] == "291ab0f578ab0644";
        self.recording.ike.iter().any(on_4500)
    }

    /// The algorithms of an IKE SA: what the initiator finds in the answer is what we would have answered. Beside them the SPI of the responder,
    /// where one is rekeyed.
    fn agreed(
        &self,
        request: &[Payload],
        response: &[Payload],
        ours: Option<u64>,
    ) -> (IkeSuite, Option<u64>) {
        let (offered, answer) = (proposals(request).unwrap(), proposals(response).unwrap());
        let accepted = accept(&suites(), answer, ours.is_some()).unwrap();
        let profile = "recorded".parse().unwrap();
        let chosen = choose(&profile, &suites(), offered, key_exchange(request), accepted.spi).unwrap();
        assert_eq!(std::slice::from_ref(&chosen.answer), answer);
        assert_eq!((chosen.suite, chosen.spi), (accepted.suite, ours));
        (accepted.suite, accepted.spi)
    }

    fn secrets(&self, spis: [u64; 2]) -> &Secrets {
        let of = |one: &&Secrets| one.spis == spis.map(|spi| format!("{spi:016x}"));
        self.recording.ike.iter().find(of).unwrap()
    }

    /// IKE_AUTH: both proofs, and the first child.
    fn proved(&mut self, spis: [u64; 2], request: &[Payload], response: &[Payload]) {
        let sa = &self.sas[&spis];
        let Init { request: first, response: second, nonces } = sa.init.clone().unwrap();
        let prf = sa.keys.suite().prf;
        let mut seen = 0;
        for (of, payloads) in [(Side::Initiator, request), (Side::Responder, response)] {
            let id = payloads.iter().find_map(|one| match (one, of) {
                (Payload::IdInitiator(id), Side::Initiator) | (Payload::IdResponder(id), Side::Responder) => {
                    Some(id)
                }
                _ => None,
            });
            let id: &Identification = id.unwrap();
            let identification = sa.keys.identification(&AwsLc, of, id);
            let secrets = self.secrets(spis);
            let proof = hex(if of == Side::Initiator { &secrets.pi } else { &secrets.pr });
            assert_eq!(identification, AwsLc.prf(prf, &proof, &[&id.bytes()]));
            let octets = Octets {
                message: if of == Side::Initiator { &first } else { &second },
                nonce: &nonces[if of == Side::Initiator { 1 } else { 0 }],
                identification: &identification,
                intermediate: &[],
            };
            let auth = payloads.iter().find(|one| matches!(one, Payload::Authentication { .. })).unwrap();
            let claim = Claim { id, certificates: payloads, auth };
            let (ike, credentials) = self.credentials.as_ref().unwrap();
            let verify = |now, claim: &Claim<'_>, octets: &Octets<'_>| {
                credentials.verify(&AwsLc, prf, now, ike, claim, octets)
            };
            let proven = verify(self.now, &claim, &octets).unwrap();
            let name = if of == Side::Initiator { "A.example" } else { "B.example" };
            match &proven.identity {
                Identity::Address(address) => {
                    assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&id.data[..]).unwrap()), *address)
                }
                identity => assert_eq!(*identity, Identity::Fqdn(name.to_owned())),
            }
            // What is proved is all of it: nothing may be otherwise.
            let mut message = octets.message.to_vec();
            message[30] ^= 1;
            let other = Identification { data: b"C.example".to_vec(), kind: 2 };
            assert!(verify(self.now, &claim, &Octets { message: &message, ..octets }).is_err());
            assert!(verify(self.now, &claim, &Octets { nonce: &[7; 32], ..octets }).is_err());
            assert!(verify(self.now, &claim, &Octets { identification: &[7; 32], ..octets }).is_err());
            if self.recording.psk.is_none() {
                assert!(verify(self.now, &Claim { id: &other, ..claim }, &octets).is_err(), "not its name");
                assert!(verify(2_200_000_000, &claim, &octets).is_err(), "expired");
                assert!(verify(self.now - 86_400, &claim, &octets).is_err(), "not yet valid");
            } else {
                // A pre-shared key makes the same proof each time.
                let ours = credentials.prove(&AwsLc, prf, None, ike::auth::Hashes::default(), &octets);
                assert_eq!(ours.unwrap(), (vec![], auth.clone()));
                let (ike, wrong) = loaded(json!({ "psk": [{ "secret": "another" }] }));
                assert!(wrong.verify(&AwsLc, prf, self.now, &ike, &claim, &octets).is_err(), "another key");
            }
            seen += 1;
        }
        self.seen.proofs += seen;
        self.child(spis, request, response, &nonces, false);
    }

    /// CREATE_CHILD_SA: another child, or another IKE SA in the place of this one.
    fn created(&mut self, spis: [u64; 2], request: &[Payload], response: &[Payload]) {
        let nonces = [nonce(request), nonce(response)];
        let [offer, ..] = proposals(request).unwrap() else { panic!("no proposal") };
        if offer.protocol == Protocol::ESP {
            // RFC 7296 §1.3.3: which one is rekeyed is one that there was.
            let rekeyed = request.iter().find_map(|one| match one {
                Payload::Notify { kind: NotifyType::REKEY_SA, protocol: 3, spi, .. } => Some(spi),
                _ => None,
            });
            assert!(self.recording.esp.contains_key(&digits(rekeyed.unwrap())));
            return self.child(spis, request, response, &nonces, true);
        }
        let ours = spi(&offer.spi);
        let (suite, theirs) = self.agreed(request, response, Some(ours));
        let new = [ours, theirs.unwrap()];
        let seeds = Seeds {
            initiator_nonce: &nonces[0],
            responder_nonce: &nonces[1],
            initiator_spi: new[0],
            responder_spi: new[1],
        };
        // RFC 7296 §2.18. The last ones were not used any more: which is whose is known by what they come from.
        let (prf, d) = (self.sas[&spis].keys.suite().prf, hex(&self.secrets(spis).d));
        let seed = |shared: &[u8]| digits(&AwsLc.prf(prf, &d, &[shared, &nonces[0], &nonces[1]]));
        let mut of_log = self.recording.ike.iter().chain(&self.recording.silent);
        let secrets = of_log.find(|one| seed(&hex(&one.shared)) == one.skeyseed).unwrap();
        assert!(
            secrets.spis == [String::new(), String::new()]
                || secrets.spis == new.map(|spi| format!("{spi:016x}"))
        );
        let shared = hex(&secrets.shared);
        let keys = IkeKeys::rekeyed(&AwsLc, &self.sas[&spis].keys, suite, &[&shared], &seeds);
        self.sas.insert(new, Sa::new(keys, None));
        self.seen.rekeyed += 1;
    }

    /// The keys of a child are those that were installed.
    fn child(
        &mut self,
        spis: [u64; 2],
        request: &[Payload],
        response: &[Payload],
        nonces: &[Vec<u8>; 2],
        is_own_exchange: bool,
    ) {
        let keyed = key_exchange(response);
        let answer = proposals(response).unwrap();
        let accept = |suite: EspSuite| accept_esp(&[suite], answer, is_own_exchange).ok();
        let accepted = ESP.iter().find_map(|suite| accept(suite.parse().unwrap())).unwrap();
        let suites = [accepted.suite];
        let profile = "recorded".parse().unwrap();
        let chosen =
            choose_esp(&profile, &suites, proposals(request).unwrap(), keyed, accepted.spi, is_own_exchange);
        let chosen = chosen.unwrap();
        assert_eq!((std::slice::from_ref(&chosen.answer), chosen.suite), (answer, accepted.suite));
        let text = |spi: Spi| digits(&spi.value().to_be_bytes());
        let [to_responder, to_initiator] = [text(accepted.spi), text(chosen.spi)];
        let shared = keyed.map(|_| hex(&self.recording.shared[&to_responder]));
        let keys = &self.sas[&spis].keys;
        let pair = child_keys(&AwsLc, keys, accepted.suite, shared.as_deref(), &nonces[0], &nonces[1]);
        let (there, back) = pair.unwrap();
        assert_eq!(there.keymat(), hex(&self.recording.esp[&to_responder]));
        assert_eq!(back.keymat(), hex(&self.recording.esp[&to_initiator]));
        // Transport mode, GRE, host to host.
        assert!(notified(request, NotifyType::USE_TRANSPORT_MODE).is_some());
        assert!(notified(response, NotifyType::USE_TRANSPORT_MODE).is_some());
        for payload in response {
            if let Payload::SelectorsInitiator(all) | Payload::SelectorsResponder(all) = payload {
                let [Selector::Addresses { protocol: 47, ports: (0, u16::MAX), addresses: (first, last) }] =
                    all[..]
                else {
                    panic!("{all:?}")
                };
                assert_eq!(first, last);
            }
        }
        self.seen.children += 1;
        self.seen.keyed += usize::from(keyed.is_some());
    }
}

impl Sa {
    fn new(keys: IkeKeys, init: Option<Init>) -> Self {
        Self { keys, init, requests: HashMap::new(), fragments: HashMap::new() }
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two rekeyings of children, by either side, one of the IKE SA, deletions; x25519, ESN.
#[test]
fn an_exchange_with_a_pre_shared_key_and_its_rekeyings_verify() {
    let seen = Walk::of("psk", None).whole();
    let wanted = Seen {
        ike_sas: 1,
        rekeyed: 1,
        children: 3,
        keyed: 0,
        proofs: 2,
        fragments: 0,
        cookies: 0,
        sealed: 16,
    };
    assert_eq!(seen, wanted);
}

/// ECDSA certificates by RFC 7427, IKE_AUTH in fragments both ways, a child with a key exchange of its own; P-256.
#[test]
fn an_exchange_with_certificates_in_fragments_verifies() {
    let section = json!({ "certificate": "A.pem", "private_key": "A.key", "authorities": ["ca.pem"] });
    let seen = Walk::of("certificates", Some(loaded(section))).whole();
    let wanted = Seen {
        ike_sas: 1,
        rekeyed: 0,
        children: 2,
        keyed: 1,
        proofs: 2,
        fragments: 4,
        cookies: 0,
        sealed: 8,
    };
    assert_eq!(seen, wanted);
}

/// RFC 7296 §2.6: what is proved is the request with its cookie.
#[test]
fn an_exchange_with_a_cookie_verifies() {
    let seen = Walk::of("cookie", None).whole();
    let wanted = Seen {
        ike_sas: 1,
        rekeyed: 0,
        children: 1,
        keyed: 0,
        proofs: 2,
        fragments: 0,
        cookies: 1,
        sealed: 4,
    };
    assert_eq!(seen, wanted);
}

/// A hub and two spokes of FRR with strongSwan 6.0.1: both spokes begin, towards the hub and each other; P-256.
#[test]
fn exchanges_of_a_cloud_verify() {
    let seen = Walk::of("protected", None).whole();
    let wanted = Seen {
        ike_sas: 4,
        rekeyed: 0,
        children: 4,
        keyed: 0,
        proofs: 8,
        fragments: 0,
        cookies: 0,
        sealed: 16,
    };
    assert_eq!(seen, wanted);
}

/// The same with `encap = yes`: source hashes of NAT detection that are none.
#[test]
fn exchanges_of_a_cloud_in_udp_verify() {
    let seen = Walk::of("encapsulated", None).whole();
    let wanted = Seen {
        ike_sas: 3,
        rekeyed: 0,
        children: 3,
        keyed: 0,
        proofs: 6,
        fragments: 0,
        cookies: 0,
        sealed: 6,
    };
    assert_eq!(seen, wanted);
}

/// Children every 20 s and IKE SAs every 45 s anew, each spoke and the hub by itself; liveness checks.
#[test]
fn exchanges_of_a_cloud_that_rekeys_verify() {
    let seen = Walk::of("rekeyed", None).whole();
    let wanted = Seen {
        ike_sas: 3,
        rekeyed: 3,
        children: 11,
        keyed: 0,
        proofs: 6,
        fragments: 0,
        cookies: 0,
        sealed: 67,
    };
    assert_eq!(seen, wanted);
}
