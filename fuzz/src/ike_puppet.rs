//! A peer that has the keys and keeps to nothing: what it says is authentic, and may be anything.

use ike::auth::Hashes;
use ike::credential::Octets;
use ike::crypto::fake::Fake;
use ike::keymat::{IkeKeys, Seeds, Side};
use ike::suite::{choose, choose_esp, esp_proposals, method, proposals};
use ike::{Credentials, Crypto, sk};
use model::ike::{EspSuite, Group, IkeSuite};
use model::sa::Spi;
use wire::ike::{
    Exchange, Header, Identification, Message, NotifyType, Payload, PayloadType, Proposal, Protocol, Selector,
};

use crate::script::Script;

/// Where it is.
pub(crate) const ADDRESS: [u8; 4] = [10, 0, 0, 9];

/// The other peer of its one conversation.
pub(crate) struct Puppet {
    crypto: Fake,
    credentials: Credentials,
    spi: u64,
    /// The first message of each side, and the nonces.
    messages: [Vec<u8>; 2],
    nonces: [Vec<u8>; 2],
    begun: Option<ike::crypto::Begun>,
    cookie: Option<Vec<u8>>,
    keys: Option<(IkeKeys, Side)>,
    spis: [u64; 2],
    /// Number of its next request.
    next: u32,
    /// The last request of the other: exchange, number, and what it said.
    asked: Option<(Exchange, u32, Vec<Payload>)>,
    /// SPIs of children that it heard of, and its own.
    children: Vec<Vec<u8>>,
    spi_of_child: u32,
}

fn suites() -> Vec<IkeSuite> {
    let words =
        ["aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519", "aes256-sha256-prfsha256-x25519"];
    words.map(|word| word.parse().expect("algorithms")).into()
}

fn esp_suites() -> Vec<EspSuite> {
    ["aes256gcm16-esn", "aes128gcm16", "aes256gcm16-esn-x25519"]
        .map(|w| w.parse().expect("algorithms"))
        .into()
}

pub(crate) fn notify(kind: NotifyType, data: Vec<u8>) -> Payload {
    Payload::Notify { protocol: 0, spi: Vec::new(), kind, data }
}

impl Puppet {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            crypto: Fake::new(77),
            credentials,
            spi: 0,
            messages: Default::default(),
            nonces: Default::default(),
            begun: None,
            cookie: None,
            keys: None,
            spis: [0; 2],
            next: 0,
            asked: None,
            children: Vec::new(),
            spi_of_child: 0x1000,
        }
    }

    fn header(&self, exchange: Exchange, is_response: bool, message_id: u32) -> Header {
        let is_initiator = self.keys.as_ref().is_none_or(|(_, side)| *side == Side::Initiator);
        let [initiator_spi, responder_spi] = self.spis;
        let version = (2, 0);
        Header {
            initiator_spi,
            responder_spi,
            version,
            exchange,
            is_response,
            can_higher: false,
            is_initiator,
            message_id,
        }
    }

    fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; 32];
        self.crypto.random(&mut nonce);
        nonce
    }

    fn public(&mut self, group: Group) -> Payload {
        let begun = self.crypto.begin(group).expect("a group");
        let data = begun.public.clone();
        self.begun = Some(begun);
        Payload::KeyExchange { method: method(group), data }
    }

    /// IKE_SA_INIT, with a cookie if one was wanted.
    pub(crate) fn begin(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        if self.cookie.is_none() {
            self.spi = self.spi.wrapping_add(0x0101_0101);
            self.nonces[0] = self.nonce();
        }
        self.keys = None;
        self.spis = [self.spi, 0];
        self.next = 1;
        let mut payloads = vec![
            Payload::Sa(proposals(&suites(), None)),
            self.public(Group::X25519),
            Payload::Nonce(self.nonces[0].clone()),
        ];
        if let Some(cookie) = self.cookie.take() {
            payloads.insert(0, notify(NotifyType::COOKIE, cookie));
        }
        self.bend(&mut payloads, script);
        self.messages[0] = wire::ike::encode(self.header(Exchange::IKE_SA_INIT, false, 0), &payloads);
        self.messages[0].clone()
    }

    /// A message came; perhaps it is answered at once.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let message = Message::decode(bytes).expect("what is sent is well formed");
        let find = |kind| message.payloads.iter().find(|payload| payload.kind() == kind);
        if let Some(sealed) = &message.sealed {
            self.hear_sealed(&message.header, sealed);
            return None;
        }
        if message.header.exchange != Exchange::IKE_SA_INIT {
            return None;
        }
        let parts = (find(PayloadType::SA), find(PayloadType::KE), find(PayloadType::NONCE));
        let (Some(Payload::Sa(offer)), Some(Payload::KeyExchange { data, .. }), Some(Payload::Nonce(nonce))) =
            parts
        else {
            let cookie = message.payloads.iter().find_map(|payload| match payload {
                Payload::Notify { kind: NotifyType::COOKIE, data, .. } => Some(data.clone()),
                _ => None,
            });
            self.cookie = cookie.or(self.cookie.take());
            return None;
        };
        if message.header.is_response {
            if message.header.initiator_spi != self.spi || self.keys.is_some() {
                return None;
            }
            let shared = self.crypto.finish(self.begun.take()?, data).ok()?;
            let chosen = ike::suite::accept(&suites(), offer, false).ok()?;
            self.nonces[1] = nonce.clone();
            self.messages[1] = bytes.to_vec();
            self.spis = [self.spi, message.header.responder_spi];
            self.agree(chosen.suite, &shared, Side::Initiator);
            return None;
        }
        let profile = "puppet".parse().expect("a name");
        let chosen = choose(&profile, &suites(), offer, Some(31), None).ok()?;
        let (public, shared) = self.crypto.answer(Group::X25519, data).ok()?;
        self.spi = self.spi.wrapping_add(0x0101_0101);
        self.spis = [message.header.initiator_spi, self.spi];
        self.nonces = [nonce.clone(), self.nonce()];
        self.messages[0] = bytes.to_vec();
        self.agree(chosen.suite, &shared, Side::Responder);
        self.next = 0;
        let payloads = [
            Payload::Sa(vec![chosen.answer]),
            Payload::KeyExchange { method: 31, data: public },
            Payload::Nonce(self.nonces[1].clone()),
        ];
        self.messages[1] = wire::ike::encode(self.header(Exchange::IKE_SA_INIT, true, 0), &payloads);
        Some(self.messages[1].clone())
    }

    fn agree(&mut self, suite: IkeSuite, shared: &[u8], side: Side) {
        let seeds = Seeds {
            initiator_nonce: &self.nonces[0],
            responder_nonce: &self.nonces[1],
            initiator_spi: self.spis[0],
            responder_spi: self.spis[1],
        };
        self.keys = Some((IkeKeys::first(&self.crypto, suite, shared, &seeds), side));
        self.asked = None;
    }

    fn hear_sealed(&mut self, header: &Header, sealed: &wire::ike::Sealed<'_>) {
        let Some((keys, side)) = &self.keys else { return };
        if [header.initiator_spi, header.responder_spi] != self.spis || sealed.fragment.is_some() {
            return;
        }
        let other = if *side == Side::Initiator { Side::Responder } else { Side::Initiator };
        let Ok(chain) = sk::open(&self.crypto, keys, other, sealed) else { return };
        let payloads = wire::ike::decode_payloads(sealed.first, &chain).expect("what is sent is well formed");
        for payload in &payloads {
            if let Payload::Sa(proposals) = payload {
                self.children.extend(proposals.iter().map(|one| one.spi.clone()));
            }
        }
        let more = self.children.len().saturating_sub(16);
        self.children.drain(..more);
        if !header.is_response {
            self.asked = Some((header.exchange, header.message_id, payloads));
        }
    }

    /// IKE_AUTH as it should be, as far as the script leaves it so: a request, or the answer to one.
    pub(crate) fn prove(&mut self, us: [u8; 4], script: &mut Script<'_>) -> Vec<Vec<u8>> {
        let Some((keys, side)) = &self.keys else { return Vec::new() };
        let side = *side;
        let id = Identification { kind: 1, data: ADDRESS.to_vec() };
        let at = usize::from(side == Side::Responder);
        let octets = Octets {
            message: &self.messages[at],
            nonce: &self.nonces[1 - at],
            identification: &keys.identification(&self.crypto, side, &id),
            intermediate: &[],
        };
        let prf = keys.suite().prf;
        let proof = self.credentials.prove(&self.crypto, prf, None, Hashes::default(), &octets);
        let (_, auth) = proof.expect("there is a key for everybody");
        let asked = self.asked.take();
        let id = if at == 0 { Payload::IdInitiator(id) } else { Payload::IdResponder(id) };
        let mut payloads = vec![id, auth];
        let offer = asked.as_ref().and_then(|(.., said)| offered(said));
        payloads.extend(self.child(offer, false, us));
        self.bend(&mut payloads, script);
        match asked {
            Some((exchange, number, _)) if at == 1 => self.seal(exchange, true, number, &payloads),
            _ => self.say(Exchange::IKE_AUTH, &payloads),
        }
    }

    /// What a child is made of: an offer, or the answer to one.
    fn child(&mut self, offer: Option<&[Proposal]>, keyed: bool, us: [u8; 4]) -> Vec<Payload> {
        self.spi_of_child += 1;
        let spi = Spi::new(self.spi_of_child).unwrap_or(Spi::FIRST);
        let profile = "puppet".parse().expect("a name");
        let chosen =
            offer.and_then(|offer| choose_esp(&profile, &esp_suites(), offer, None, spi, keyed).ok());
        let proposals = chosen
            .map_or_else(|| esp_proposals(&esp_suites()[..2], spi, keyed), |chosen| vec![chosen.answer]);
        let (own, others) = (Selector::host(ADDRESS.into(), 47), Selector::host(us.into(), 47));
        let (i, r) = if offer.is_some() { (others, own) } else { (own, others) };
        vec![
            notify(NotifyType::USE_TRANSPORT_MODE, Vec::new()),
            Payload::Sa(proposals),
            Payload::SelectorsInitiator(vec![i]),
            Payload::SelectorsResponder(vec![r]),
        ]
    }

    /// A request of the script's choice.
    pub(crate) fn speak(&mut self, us: [u8; 4], script: &mut Script<'_>) -> Vec<Vec<u8>> {
        let (exchange, mut payloads) = match script.of(8) {
            0 => (Exchange::INFORMATIONAL, Vec::new()),
            1 => (Exchange::INFORMATIONAL, vec![Payload::Delete { protocol: 1, spis: Vec::new() }]),
            2 => {
                let spi = self.known(script);
                (Exchange::INFORMATIONAL, vec![Payload::Delete { protocol: 3, spis: vec![spi] }])
            }
            3 | 4 => {
                let rekeyed = script.flip().then(|| self.known(script));
                let nonce = Payload::Nonce(self.nonce());
                let mut payloads = self.child(None, true, us);
                payloads.insert(2, nonce);
                payloads.extend(rekeyed.map(|spi| Payload::Notify {
                    protocol: 3,
                    spi,
                    kind: NotifyType::REKEY_SA,
                    data: Vec::new(),
                }));
                (Exchange::CREATE_CHILD_SA, payloads)
            }
            5 => {
                self.spi_of_child += 1;
                let offer = proposals(&suites(), Some(u64::from(self.spi_of_child)));
                let (nonce, public) = (self.nonce(), self.public(Group::X25519));
                (Exchange::CREATE_CHILD_SA, vec![Payload::Sa(offer), Payload::Nonce(nonce), public])
            }
            6 => (Exchange::IKE_INTERMEDIATE, vec![self.public(Group::MlKem768)]),
            _ => (Exchange(script.byte()), Vec::new()),
        };
        self.bend(&mut payloads, script);
        // Now and then the number is not the next one.
        if script.of(8) == 0 {
            self.next = u32::from(script.byte());
        }
        self.say(exchange, &payloads)
    }

    /// The answer to what was asked, if something was.
    pub(crate) fn answer(&mut self, us: [u8; 4], script: &mut Script<'_>) -> Vec<Vec<u8>> {
        let Some((exchange, number, said)) = self.asked.take() else { return Vec::new() };
        let mut payloads = Vec::new();
        if exchange == Exchange::CREATE_CHILD_SA
            && let Some(offer) = offered(&said)
        {
            let is_ike = offer.first().is_some_and(|one| one.protocol == Protocol::IKE);
            let nonce = Payload::Nonce(self.nonce());
            if is_ike {
                let profile = "puppet".parse().expect("a name");
                self.spi_of_child += 1;
                let spi = Some(u64::from(self.spi_of_child));
                if let Ok(chosen) = choose(&profile, &suites(), offer, Some(31), spi) {
                    payloads = vec![Payload::Sa(vec![chosen.answer]), nonce, self.public(Group::X25519)];
                }
            } else {
                payloads = self.child(Some(offer), true, us);
                payloads.push(nonce);
            }
        }
        self.bend(&mut payloads, script);
        self.seal(exchange, true, number, &payloads)
    }

    fn known(&self, script: &mut Script<'_>) -> Vec<u8> {
        let at = script.of(self.children.len());
        self.children.get(at).cloned().unwrap_or_else(|| vec![0, 0, 16, 1])
    }

    /// Changes what is to be said: leaves it, takes one away, doubles one, puts something in.
    fn bend(&mut self, payloads: &mut Vec<Payload>, script: &mut Script<'_>) {
        match script.of(8) {
            0 if !payloads.is_empty() => drop(payloads.remove(script.of(payloads.len()))),
            1 if !payloads.is_empty() => payloads.push(payloads[script.of(payloads.len())].clone()),
            2 => payloads.insert(script.of(payloads.len() + 1), self.anything(script)),
            3 => {
                // As any bytes, if those are payloads.
                let (first, mut chain) = wire::ike::encode_payloads(payloads);
                if !chain.is_empty() {
                    let at = usize::from(script.half()) % chain.len();
                    chain[at] ^= script.byte();
                }
                if let Ok(bent) = wire::ike::decode_payloads(first, &chain) {
                    *payloads = bent;
                }
            }
            _ => {}
        }
    }

    fn anything(&self, script: &mut Script<'_>) -> Payload {
        match script.of(10) {
            0 => Payload::Unknown {
                kind: PayloadType(200),
                is_critical: script.flip(),
                data: script.bytes(16),
            },
            1 => Payload::Nonce(vec![script.byte(); 16]),
            2 => Payload::KeyExchange { method: script.of(40) as u16, data: script.bytes(64) },
            3 => Payload::Delete { protocol: script.byte() % 4, spis: vec![self.known(script)] },
            4 => Payload::SelectorsInitiator(vec![Selector::host(
                script.bytes(4).first_chunk().map_or([0; 4], |a: &[u8; 4]| *a).into(),
                47,
            )]),
            5 => Payload::Certificate { encoding: 4, data: script.bytes(64) },
            6 => Payload::IdInitiator(Identification { kind: script.byte() % 12, data: script.bytes(20) }),
            7 => notify(NotifyType(script.half() & 0x3f), script.bytes(8)),
            8 => {
                let known = [
                    NotifyType::INITIAL_CONTACT,
                    NotifyType::ADDITIONAL_KEY_EXCHANGE,
                    NotifyType::SA_RESOURCE_INFO,
                    NotifyType::SET_WINDOW_SIZE,
                    NotifyType::IKEV2_FRAGMENTATION_SUPPORTED,
                    NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED,
                    NotifyType::SIGNATURE_HASH_ALGORITHMS,
                    NotifyType::NAT_DETECTION_SOURCE_IP,
                    NotifyType::TEMPORARY_FAILURE,
                    NotifyType::CHILD_SA_NOT_FOUND,
                    NotifyType::NO_ADDITIONAL_SAS,
                    NotifyType::TS_UNACCEPTABLE,
                    NotifyType::INVALID_KE_PAYLOAD,
                ];
                notify(known[script.of(known.len())], script.bytes(20))
            }
            _ => Payload::Notify {
                protocol: 3,
                spi: self.known(script),
                kind: NotifyType(16384 + u16::from(script.byte())),
                data: script.bytes(8),
            },
        }
    }

    fn say(&mut self, exchange: Exchange, payloads: &[Payload]) -> Vec<Vec<u8>> {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.seal(exchange, false, number, payloads)
    }

    fn seal(
        &mut self,
        exchange: Exchange,
        is_response: bool,
        number: u32,
        payloads: &[Payload],
    ) -> Vec<Vec<u8>> {
        let header = self.header(exchange, is_response, number);
        let Some((keys, side)) = &mut self.keys else { return Vec::new() };
        let largest = (payloads.len() % 3 == 2).then_some(200);
        sk::seal(&mut self.crypto, keys, *side, header, payloads, largest)
    }
}

fn offered(payloads: &[Payload]) -> Option<&[Proposal]> {
    payloads.iter().find_map(|one| if let Payload::Sa(all) = one { Some(&all[..]) } else { None })
}
