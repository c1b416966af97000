//! Proposals (RFC 7296 §2.7, §3.3): what is offered, what of an offer is chosen, and whether an answer is one of what was offered. What is
//! weak or not known has no number here, and so is never chosen.

use std::fmt::Write;

use model::ike::{Cipher, EspSuite, Group, IkeSuite, Integrity, Prf};
use model::sa::{ProfileName, Spi, Suite};
use wire::ike::{Proposal, Protocol, Transform, TransformType};

/// What was chosen for an IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenIke {
    /// The algorithms.
    pub suite: IkeSuite,
    /// The answer: what was chosen, and nothing else.
    pub answer: Proposal,
    /// The peer's SPI, where one is rekeyed.
    pub spi: Option<u64>,
}

/// What was chosen for a child SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenEsp {
    /// The algorithms.
    pub suite: EspSuite,
    /// The answer: what was chosen, and nothing else.
    pub answer: Proposal,
    /// The peer's inbound SPI.
    pub spi: Spi,
}

/// ENCR_AES_CBC and AES-GCM with an ICV of 16 bytes; AUTH_HMAC_SHA2_256_128 and _384_192; PRF_HMAC_SHA2_256, _384 and _512 (RFC 8247 §2).
const AES_CBC: u16 = 12;
const AES_GCM_16: u16 = 20;

/// "None", of integrity and key exchange; of sequence numbers: no extended ones.
const NONE: u16 = 0;

/// Number of a key exchange method.
#[must_use]
pub const fn method(group: Group) -> u16 {
    match group {
        Group::Modp2048 => 14,
        Group::P256 => 19,
        Group::P384 => 20,
        Group::P521 => 21,
        Group::X25519 => 31,
        Group::MlKem768 => 36,
    }
}

/// The key exchange method of this number.
#[must_use]
pub fn group(number: u16) -> Option<Group> {
    Group::ALL.iter().copied().find(|group| method(*group) == number)
}

const fn prf_number(prf: Prf) -> u16 {
    match prf {
        Prf::Sha256 => 5,
        Prf::Sha384 => 6,
        Prf::Sha512 => 7,
    }
}

const fn integrity_number(integrity: Option<Integrity>) -> u16 {
    match integrity {
        None => NONE,
        Some(Integrity::Sha256) => 12,
        Some(Integrity::Sha384) => 13,
    }
}

/// One algorithm: type, number, and key length in bits.
type Need = (TransformType, u16, Option<u16>);

/// Everything that an IKE SA of this suite needs, one of each type. `NONE` may as well be left out.
fn ike_needs(suite: &IkeSuite) -> Vec<Need> {
    let (cipher, bits) = match suite.cipher {
        Cipher::AesGcm256 => (AES_GCM_16, 256),
        Cipher::AesGcm128 => (AES_GCM_16, 128),
        Cipher::AesCbc256 => (AES_CBC, 256),
    };
    let mut needs = vec![
        (TransformType::ENCRYPTION, cipher, Some(bits)),
        (TransformType::PRF, prf_number(suite.prf), None),
        (TransformType::INTEGRITY, integrity_number(suite.integrity), None),
        (TransformType::KEY_EXCHANGE, method(suite.group), None),
    ];
    // RFC 9370 §2.1: of seven, the first one is ours.
    let additional = suite.additional.map_or(NONE, method);
    needs.push((TransformType::ADDITIONAL_KEY_EXCHANGE_1, additional, None));
    needs.extend((7..=12).map(|kind| (TransformType(kind), NONE, None)));
    needs
}

/// The same of a child SA. Without `keyed`, in IKE_AUTH, there is no key exchange (RFC 7296 §1.2).
fn esp_needs(suite: &EspSuite, keyed: bool) -> Vec<Need> {
    let bits = match suite.suite {
        Suite::AesGcm128 => 128,
        Suite::AesGcm256 => 256,
    };
    let group = suite.group.filter(|_| keyed).map_or(NONE, method);
    let mut needs = vec![
        (TransformType::ENCRYPTION, AES_GCM_16, Some(bits)),
        (TransformType::INTEGRITY, NONE, None),
        (TransformType::KEY_EXCHANGE, group, None),
        (TransformType::ESN, suite.esn.into(), None),
    ];
    needs.extend((6..=12).map(|kind| (TransformType(kind), NONE, None)));
    needs
}

/// A transform with nothing but what is needed.
fn transform((kind, id, key_length): Need) -> Transform {
    Transform { kind, id, key_length, attributes: Vec::new() }
}

/// What is sent of these needs: `NONE` only of sequence numbers, where it means something.
fn transforms(needs: &[Need]) -> impl Iterator<Item = Transform> + '_ {
    needs
        .iter()
        .filter(|(kind, id, _)| *id != NONE || *kind == TransformType::ESN)
        .map(|need| transform(*need))
}

/// One proposal for all suites that differ in the key exchange alone: any of these goes with the rest.
fn joined(suites: Vec<Vec<Need>>, protocol: Protocol, spi: &[u8]) -> Vec<Proposal> {
    let is_exchange = |need: &&Need| need.0 == TransformType::KEY_EXCHANGE;
    // A suite without one is a proposal of its own, in which the type is left out.
    let has_exchange = |needs: &[Need]| needs.iter().any(|need| is_exchange(&need) && need.1 != NONE);
    let rest = |needs: &[Need]| needs.iter().filter(|need| !is_exchange(need)).copied().collect::<Vec<_>>();
    let mut all: Vec<Vec<Need>> = Vec::new();
    for needs in suites {
        let is_alike = |other: &&mut Vec<Need>| {
            has_exchange(other) == has_exchange(&needs) && rest(other) == rest(&needs)
        };
        match all.iter_mut().find(is_alike) {
            Some(other) => {
                let new: Vec<_> = needs.iter().filter(|need| !other.contains(need)).copied().collect();
                other.extend(new);
                other.sort_by_key(|need| need.0);
            }
            None => all.push(needs),
        }
    }
    let proposal = |(number, needs): (u8, Vec<Need>)| Proposal {
        number,
        protocol,
        spi: spi.to_vec(),
        transforms: transforms(&needs).collect(),
    };
    (1..=u8::MAX).zip(all).map(proposal).collect()
}

/// What is offered for an IKE SA: these suites, and no other combination of what is in them. `spi`: where one is rekeyed, ours of the new one.
#[must_use]
pub fn proposals(suites: &[IkeSuite], spi: Option<u64>) -> Vec<Proposal> {
    let spi = spi.map(u64::to_be_bytes);
    joined(suites.iter().map(ike_needs).collect(), Protocol::IKE, spi.as_ref().map_or(&[], |spi| &spi[..]))
}

/// What is offered for a child SA whose inbound SPI of ours is `spi`. `keyed`: with their key exchanges.
#[must_use]
pub fn esp_proposals(suites: &[EspSuite], spi: Spi, keyed: bool) -> Vec<Proposal> {
    let needs = suites.iter().map(|suite| esp_needs(suite, keyed)).collect();
    joined(needs, Protocol::ESP, &spi.value().to_be_bytes())
}

/// What of this proposal is needed, if it has all of that: one transform of each type that is in it (RFC 7296 §3.3.6).
fn selected(proposal: &Proposal, needs: &[Need]) -> Option<Vec<Transform>> {
    let is_known = |one: &Transform| needs.iter().any(|need| need.0 == one.kind);
    // A type that is not known makes the whole proposal one that cannot be accepted.
    if !proposal.transforms.iter().all(is_known) {
        return None;
    }
    let mut selected = Vec::with_capacity(needs.len());
    for need in needs {
        let mut of_type = proposal.transforms.iter().filter(|one| one.kind == need.0).peekable();
        if of_type.peek().is_none() {
            // What is not spoken of is `NONE`. (ESN too: of old peers that do not know it.)
            if need.1 != NONE {
                return None;
            }
            continue;
        }
        // An attribute that is not known makes the transform one that cannot be accepted.
        let wanted =
            of_type.find(|one| (one.id, one.key_length) == (need.1, need.2) && one.attributes.is_empty());
        selected.push(wanted?.clone());
    }
    Some(selected)
}

/// Chooses for an IKE SA: the first of our suites that is in the offer. Among those that differ in the key exchange alone, the one whose
/// public value came along (`sent`), which saves a round trip. `spi`: where one is rekeyed, ours of the new one.
///
/// # Errors
/// None of our suites is in the offer: in words, what the peer proposed, and what is accepted.
pub fn choose(
    profile: &ProfileName,
    suites: &[IkeSuite],
    offered: &[Proposal],
    sent: Option<u16>,
    spi: Option<u64>,
) -> Result<ChosenIke, String> {
    let in_offer = |suite: &IkeSuite| {
        let needs = ike_needs(suite);
        let mut of_ike = offered.iter().filter(|proposal| proposal.protocol == Protocol::IKE);
        of_ike.find_map(|proposal| Some((*suite, proposal, selected(proposal, &needs)?)))
    };
    let first = suites.iter().find_map(in_offer);
    let first = first.ok_or_else(|| refusal(profile, "IKE", offered, suites))?;
    let is_alike = |suite: &&IkeSuite| {
        sent == Some(method(suite.group)) && IkeSuite { group: first.0.group, ..**suite } == first.0
    };
    let (suite, proposal, transforms) = suites.iter().filter(is_alike).find_map(in_offer).unwrap_or(first);
    let theirs = ike_spi(&proposal.spi, spi.is_some())?;
    let spi = spi.map_or_else(Vec::new, |spi| spi.to_be_bytes().to_vec());
    let answer = Proposal { number: proposal.number, protocol: Protocol::IKE, spi, transforms };
    Ok(ChosenIke { suite, answer, spi: theirs })
}

/// What the responder chose of what we offered for an IKE SA. `rekeyed`: an SPI is with it.
///
/// # Errors
/// It is not one of those, in words (RFC 7296 §2.7, §3.3.6).
pub fn accept(suites: &[IkeSuite], answer: &[Proposal], rekeyed: bool) -> Result<ChosenIke, String> {
    let offered = proposals(suites, None);
    let answer = one_of(&offered, answer, Protocol::IKE)?;
    let is_chosen = |suite: &&IkeSuite| selected(answer, &ike_needs(suite)).is_some();
    let suite = suites.iter().find(is_chosen).ok_or_else(|| not_offered(answer))?;
    Ok(ChosenIke { suite: *suite, spi: ike_spi(&answer.spi, rekeyed)?, answer: answer.clone() })
}

/// Chooses for a child SA, as [`choose`]. `spi`: ours.
///
/// # Errors
/// As [`choose`].
pub fn choose_esp(
    profile: &ProfileName,
    suites: &[EspSuite],
    offered: &[Proposal],
    sent: Option<u16>,
    spi: Spi,
    keyed: bool,
) -> Result<ChosenEsp, String> {
    let in_offer = |suite: &EspSuite| {
        let needs = esp_needs(suite, keyed);
        let mut of_esp = offered.iter().filter(|proposal| proposal.protocol == Protocol::ESP);
        of_esp.find_map(|proposal| Some((*suite, proposal, selected(proposal, &needs)?)))
    };
    let first = suites.iter().find_map(in_offer);
    let first = first.ok_or_else(|| refusal(profile, "ESP", offered, suites))?;
    let is_alike = |suite: &&EspSuite| {
        let is_sent = suite.group.is_some() && suite.group.map(method) == sent;
        is_sent && first.0.group.is_some() && EspSuite { group: first.0.group, ..**suite } == first.0
    };
    let (suite, proposal, transforms) = suites.iter().filter(is_alike).find_map(in_offer).unwrap_or(first);
    let theirs = esp_spi(&proposal.spi)?;
    let spi = spi.value().to_be_bytes().to_vec();
    let answer = Proposal { number: proposal.number, protocol: Protocol::ESP, spi, transforms };
    Ok(ChosenEsp { suite, answer, spi: theirs })
}

/// What the responder chose of what we offered for a child SA.
///
/// # Errors
/// As [`accept`].
pub fn accept_esp(suites: &[EspSuite], answer: &[Proposal], keyed: bool) -> Result<ChosenEsp, String> {
    let offered = esp_proposals(suites, Spi::FIRST, keyed);
    let answer = one_of(&offered, answer, Protocol::ESP)?;
    let is_chosen = |suite: &&EspSuite| selected(answer, &esp_needs(suite, keyed)).is_some();
    let suite = suites.iter().find(is_chosen).ok_or_else(|| not_offered(answer))?;
    Ok(ChosenEsp { suite: *suite, spi: esp_spi(&answer.spi)?, answer: answer.clone() })
}

/// The one proposal of an answer: with the number of one of ours, and one transform of each type.
fn one_of<'a>(
    offered: &[Proposal],
    answer: &'a [Proposal],
    protocol: Protocol,
) -> Result<&'a Proposal, String> {
    let [answer] = answer else {
        return Err(format!("peer answered with {} proposals; one is to be chosen", answer.len()));
    };
    let is_once =
        |one: &Transform| answer.transforms.iter().filter(|other| other.kind == one.kind).count() == 1;
    let ours = offered.iter().find(|ours| ours.number == answer.number && answer.protocol == protocol);
    // `NONE` may stand where nothing was said.
    let is_ours = |one: &Transform, ours: &Proposal| {
        let is_left_out = one.id == NONE && ours.transforms.iter().all(|other| other.kind != one.kind);
        is_left_out || ours.transforms.contains(one)
    };
    let is_chosen = |ours: &Proposal| answer.transforms.iter().all(|one| is_once(one) && is_ours(one, ours));
    ours.filter(|ours| is_chosen(ours)).map(|_| answer).ok_or_else(|| not_offered(answer))
}

fn ike_spi(spi: &[u8], rekeyed: bool) -> Result<Option<u64>, String> {
    match <[u8; 8]>::try_from(spi) {
        _ if !rekeyed && spi.is_empty() => Ok(None),
        Ok(spi) if rekeyed && spi != [0; 8] => Ok(Some(u64::from_be_bytes(spi))),
        _ => Err(format!("peer's proposal for IKE has an SPI of {} bytes that is none", spi.len())),
    }
}

fn esp_spi(spi: &[u8]) -> Result<Spi, String> {
    let spi = <[u8; 4]>::try_from(spi).ok().and_then(|spi| Spi::new(u32::from_be_bytes(spi)));
    spi.ok_or_else(|| "peer's proposal for ESP has an SPI that is none".to_owned())
}

fn not_offered(answer: &Proposal) -> String {
    format!("peer chose {}, which was not offered", words(answer))
}

/// Why nothing was chosen: "peer proposed only AES-CBC-256/HMAC-SHA1-96 for ESP; profile branch-v2 accepts aes128gcm16".
fn refusal<S: ToString>(profile: &ProfileName, of: &str, offered: &[Proposal], suites: &[S]) -> String {
    /// A peer may propose hundreds: what is logged of it is bounded.
    const MOST: usize = 4;
    let mut proposed = offered.iter().take(MOST).map(words).collect::<Vec<_>>().join(" or ");
    if offered.len() > MOST {
        let _ = write!(proposed, " or {} more", offered.len() - MOST);
    }
    if proposed.is_empty() {
        "nothing".clone_into(&mut proposed);
    }
    let accepted = suites.iter().map(S::to_string).collect::<Vec<_>>().join(", ");
    format!("peer proposed only {proposed} for {of}; profile {profile} accepts {accepted}")
}

/// A proposal in words: alternatives of a type with `|`, types with `/`.
fn words(proposal: &Proposal) -> String {
    /// As above, of the alternatives of one type.
    const MOST: usize = 8;
    let mut text = String::new();
    let mut kinds: Vec<_> = proposal.transforms.iter().map(|one| one.kind).collect();
    kinds.dedup();
    kinds.truncate(MOST);
    for kind in kinds {
        if !text.is_empty() {
            text.push('/');
        }
        let of_type = proposal.transforms.iter().filter(|one| one.kind == kind);
        let names: Vec<_> = of_type.clone().take(MOST).map(word).collect();
        text.push_str(&names.join("|"));
        if of_type.count() > MOST {
            text.push_str("|...");
        }
    }
    if text.is_empty() {
        "nothing".clone_into(&mut text);
    }
    text
}

/// A transform in words, as the registry of IKEv2 parameters names it, shortened; what is not known by its numbers.
fn word(one: &Transform) -> String {
    let known = match (one.kind, one.id) {
        (TransformType::ENCRYPTION, 2) => "DES",
        (TransformType::ENCRYPTION, 3) => "3DES",
        (TransformType::ENCRYPTION, 11) => "NULL",
        (TransformType::ENCRYPTION, AES_CBC) => "AES-CBC",
        (TransformType::ENCRYPTION, 13) => "AES-CTR",
        (TransformType::ENCRYPTION, 14..=16) => "AES-CCM",
        (TransformType::ENCRYPTION, 18) => "AES-GCM-8",
        (TransformType::ENCRYPTION, 19) => "AES-GCM-12",
        (TransformType::ENCRYPTION, AES_GCM_16) => "AES-GCM-16",
        (TransformType::ENCRYPTION, 21) => "NULL-GMAC",
        (TransformType::ENCRYPTION, 28) => "ChaCha20-Poly1305",
        (TransformType::PRF, 1) => "PRF-HMAC-MD5",
        (TransformType::PRF, 2) => "PRF-HMAC-SHA1",
        (TransformType::PRF, 5) => "PRF-HMAC-SHA2-256",
        (TransformType::PRF, 6) => "PRF-HMAC-SHA2-384",
        (TransformType::PRF, 7) => "PRF-HMAC-SHA2-512",
        (TransformType::INTEGRITY, NONE) => "no integrity",
        (TransformType::INTEGRITY, 1) => "HMAC-MD5-96",
        (TransformType::INTEGRITY, 2) => "HMAC-SHA1-96",
        (TransformType::INTEGRITY, 12) => "HMAC-SHA2-256-128",
        (TransformType::INTEGRITY, 13) => "HMAC-SHA2-384-192",
        (TransformType::INTEGRITY, 14) => "HMAC-SHA2-512-256",
        (TransformType::KEY_EXCHANGE, NONE) => "no key exchange",
        (TransformType::KEY_EXCHANGE, 2) => "MODP-1024",
        (TransformType::KEY_EXCHANGE, 5) => "MODP-1536",
        (TransformType::KEY_EXCHANGE, 15) => "MODP-3072",
        (TransformType::KEY_EXCHANGE, 16) => "MODP-4096",
        (TransformType::KEY_EXCHANGE | TransformType::ADDITIONAL_KEY_EXCHANGE_1, id) => {
            return group(id).map_or_else(|| format!("key exchange {id}"), |group| group.to_string());
        }
        (TransformType::ESN, 0) => "no ESN",
        (TransformType::ESN, 1) => "ESN",
        (kind, id) => return format!("transform {} of type {}", id, kind.0),
    };
    one.key_length.map_or_else(|| known.to_owned(), |bits| format!("{known}-{bits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites(texts: &[&str]) -> Vec<IkeSuite> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn esp(texts: &[&str]) -> Vec<EspSuite> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn profile() -> ProfileName {
        "branch-v2".parse().unwrap()
    }

    fn of(kind: TransformType, id: u16, key_length: Option<u16>) -> Transform {
        transform((kind, id, key_length))
    }

    fn defaults() -> (Vec<IkeSuite>, Vec<EspSuite>) {
        let ike = section();
        (ike.proposals, ike.esp)
    }

    /// The section with nothing in it but its defaults.
    fn section() -> model::config::Ike {
        use serde::Deserialize;
        use serde::de::value::{Error, MapDeserializer};
        let none: [(&str, u8); 0] = [];
        model::config::Ike::deserialize(MapDeserializer::<_, Error>::new(none.into_iter())).unwrap()
    }

    #[test]
    fn suites_that_differ_in_the_key_exchange_share_a_proposal() {
        let offer = proposals(&defaults().0, None);
        assert_eq!(offer.len(), 3);
        let groups = |proposal: &Proposal| {
            let of_kind = proposal.transforms.iter().filter(|one| one.kind == TransformType::KEY_EXCHANGE);
            of_kind.map(|one| one.id).collect::<Vec<_>>()
        };
        assert!(offer.iter().all(|proposal| groups(proposal) == [31, 19, 20, 21, 14]), "{offer:?}");
        assert_eq!(offer.iter().map(|proposal| proposal.number).collect::<Vec<_>>(), [1, 2, 3]);
        // With an AEAD there is no integrity algorithm (RFC 5282 §8).
        let has_integrity =
            |proposal: &Proposal| proposal.transforms.iter().any(|one| one.kind == TransformType::INTEGRITY);
        assert_eq!(offer.iter().map(has_integrity).collect::<Vec<_>>(), [false, false, true]);
        let rekeyed = proposals(&defaults().0, Some(0x0102));
        assert!(rekeyed.iter().all(|proposal| proposal.spi == [0, 0, 0, 0, 0, 0, 1, 2]));
    }

    /// No combination is offered that is not among the suites.
    #[test]
    fn what_is_offered_is_what_is_accepted() {
        let (all, _) = defaults();
        for suites in [
            &all[..],
            &all[2..7],
            &suites(&["aes256gcm16-prfsha384-x25519-mlkem768", "aes256gcm16-prfsha384-x25519"]),
        ] {
            let mut offered = Vec::new();
            for proposal in proposals(suites, None) {
                let of_kind = |kind| proposal.transforms.iter().filter(move |one| one.kind == kind);
                for group in of_kind(TransformType::KEY_EXCHANGE) {
                    let transforms = proposal
                        .transforms
                        .iter()
                        .filter(|one| one.kind != TransformType::KEY_EXCHANGE || *one == group);
                    let answer = Proposal { transforms: transforms.cloned().collect(), ..proposal.clone() };
                    offered.push(accept(suites, &[answer], false).unwrap().suite);
                }
            }
            offered.sort();
            let mut suites = suites.to_vec();
            suites.sort();
            assert_eq!(offered, suites);
        }
    }

    #[test]
    fn our_first_suite_that_is_offered_is_chosen() {
        let ours = suites(&[
            "aes256gcm16-prfsha384-ecp384",
            "aes128gcm16-prfsha256-x25519",
            "aes128gcm16-prfsha256-ecp256",
        ]);
        let theirs = suites(&["aes128gcm16-prfsha256-ecp256", "aes128gcm16-prfsha256-x25519"]);
        let chosen = choose(&profile(), &ours, &proposals(&theirs, None), None, None).unwrap();
        assert_eq!(chosen.suite.to_string(), "aes128gcm16-prfsha256-x25519");
        assert_eq!(accept(&theirs, &[chosen.answer], false).unwrap().suite, chosen.suite);
        // The key exchange whose value came along is taken among equals, and not against a better suite.
        let sent = Some(method(Group::P256));
        let chosen = choose(&profile(), &ours, &proposals(&theirs, None), sent, None).unwrap();
        assert_eq!(chosen.suite.to_string(), "aes128gcm16-prfsha256-ecp256");
        let chosen = choose(&profile(), &ours, &proposals(&ours, None), sent, None).unwrap();
        assert_eq!(chosen.suite, ours[0]);
    }

    #[test]
    fn a_refusal_says_what_was_proposed_and_what_is_accepted() {
        let cbc = Proposal {
            number: 1,
            protocol: Protocol::ESP,
            spi: vec![1, 2, 3, 4],
            transforms: vec![
                of(TransformType::ENCRYPTION, AES_CBC, Some(256)),
                of(TransformType::INTEGRITY, 2, None),
                of(TransformType::ESN, 0, None),
            ],
        };
        let refused =
            choose_esp(&profile(), &esp(&["aes128gcm16"]), &[cbc], None, Spi::FIRST, false).unwrap_err();
        assert_eq!(
            refused,
            "peer proposed only AES-CBC-256/HMAC-SHA1-96/no ESN for ESP; profile branch-v2 accepts aes128gcm16"
        );
        let nothing = choose(&profile(), &defaults().0, &[], None, None).unwrap_err();
        assert!(
            nothing.starts_with("peer proposed only nothing for IKE; profile branch-v2 accepts aes"),
            "{nothing}"
        );
    }

    #[test]
    fn what_a_peer_sends_makes_no_endless_words() {
        let one = of(TransformType(77), 1234, Some(9));
        let much = Proposal { number: 1, protocol: Protocol::IKE, spi: vec![], transforms: vec![one; 255] };
        let refused = choose(&profile(), &defaults().0, &vec![much; 255], None, None).unwrap_err();
        assert!(refused.len() < 3000, "{}", refused.len());
        assert!(refused.contains("or 251 more"), "{refused}");
    }

    /// RFC 7296 §3.3.6: a type or attribute that is not known, or a type that is missing, makes a proposal or transform one that is passed over.
    #[test]
    fn what_is_not_understood_is_passed_over() {
        let ours = suites(&["aes256gcm16-prfsha384-x25519"]);
        let good = proposals(&ours, None).remove(0);
        let changed = |change: &dyn Fn(&mut Vec<Transform>)| {
            let mut proposal = good.clone();
            change(&mut proposal.transforms);
            choose(&profile(), &ours, &[proposal], None, None).is_ok()
        };
        assert!(changed(&|_| ()));
        assert!(!changed(&|all| all.push(of(TransformType(13), 1, None))));
        assert!(!changed(&|all| all.push(of(TransformType::ESN, 0, None))));
        assert!(!changed(&|all| all.truncate(2)));
        assert!(!changed(&|all| all[0].key_length = None));
        assert!(!changed(&|all| all[0].key_length = Some(192)));
        assert!(!changed(&|all| all[0].attributes.push((15, vec![1]))));
        assert!(changed(&|all| all.insert(0, of(TransformType::ENCRYPTION, 3, None))));
        // Integrity "none" with an AEAD, and "none" of an additional key exchange, are the same as nothing said (RFC 5282 §8, RFC 9370 §2.2.1).
        assert!(changed(&|all| all.push(of(TransformType::INTEGRITY, NONE, None))));
        assert!(!changed(&|all| all.push(of(TransformType::INTEGRITY, 12, None))));
        assert!(changed(
            &|all| all.extend([of(TransformType(6), 36, None), of(TransformType(6), NONE, None)])
        ));
        assert!(!changed(&|all| all.push(of(TransformType(6), 36, None))));
        let unknown = Proposal { protocol: Protocol(2), ..good.clone() };
        assert!(choose(&profile(), &ours, &[unknown.clone(), good.clone()], None, None).is_ok());
        assert!(choose(&profile(), &ours, &[unknown], None, None).is_err());
    }

    /// Each type once, of what was offered (RFC 7296 §2.7).
    #[test]
    fn an_answer_that_was_not_offered_is_refused() {
        let ours = suites(&["aes256gcm16-prfsha384-x25519", "aes128gcm16-prfsha256-x25519"]);
        let offered = proposals(&ours, None);
        for answer in [
            vec![],
            offered.clone(),
            vec![Proposal { number: 3, ..offered[0].clone() }],
            vec![Proposal { number: 2, ..offered[0].clone() }],
            vec![Proposal { protocol: Protocol::ESP, ..offered[0].clone() }],
            vec![Proposal { spi: vec![1; 8], ..offered[0].clone() }],
            vec![Proposal { transforms: offered[0].transforms[..2].to_vec(), ..offered[0].clone() }],
            vec![Proposal {
                transforms: [&offered[0].transforms[..], &offered[0].transforms[..1]].concat(),
                ..offered[0].clone()
            }],
        ] {
            assert!(accept(&ours, &answer, false).is_err(), "{answer:?}");
        }
        assert!(accept(&ours, &offered[1..], false).is_ok());
        let rekeyed =
            |spi: &[u8]| accept(&ours, &[Proposal { spi: spi.to_vec(), ..offered[0].clone() }], true);
        assert_eq!(rekeyed(&[0, 0, 0, 0, 0, 0, 0, 9]).unwrap().spi, Some(9));
        assert!(rekeyed(&[]).is_err() && rekeyed(&[0; 8]).is_err() && rekeyed(&[1; 4]).is_err());
    }

    #[test]
    fn children_are_chosen_with_and_without_a_key_exchange() {
        let ours = esp(&["aes256gcm16-esn-x25519", "aes256gcm16-esn", "aes128gcm16"]);
        let spi = Spi::new(0x1000).unwrap();
        // IKE_AUTH: no key exchange is spoken of (RFC 7296 §1.2); the suite says what rekeying will have.
        let offer = esp_proposals(&ours, spi, false);
        assert_eq!(offer.len(), 2);
        assert!(
            offer.iter().flat_map(|one| &one.transforms).all(|one| one.kind != TransformType::KEY_EXCHANGE)
        );
        let chosen = choose_esp(&profile(), &ours, &offer, None, Spi::FIRST, false).unwrap();
        assert_eq!((chosen.suite, chosen.spi), (ours[0], spi));
        let accepted = accept_esp(&ours, &[chosen.answer], false).unwrap();
        assert_eq!((accepted.suite, accepted.spi), (ours[0], Spi::FIRST));
        // CREATE_CHILD_SA.
        let offer = esp_proposals(&ours, spi, true);
        assert_eq!(offer.len(), 3);
        let chosen = choose_esp(&profile(), &ours, &offer, Some(31), Spi::FIRST, true).unwrap();
        assert_eq!(chosen.suite, ours[0]);
        assert_eq!(accept_esp(&ours, &[chosen.answer], true).unwrap().suite, ours[0]);
        let chosen = choose_esp(&profile(), &ours[1..], &offer, Some(31), Spi::FIRST, true).unwrap();
        assert_eq!((chosen.suite, chosen.answer.number), (ours[1], 2));
        assert_eq!(accept_esp(&ours, &[chosen.answer], true).unwrap().suite, ours[1]);
        // SPIs up to 255 are reserved (RFC 4303 §2.1).
        let reserved = Proposal { spi: vec![0, 0, 0, 255], ..offer[0].clone() };
        assert!(choose_esp(&profile(), &ours, &[reserved], None, Spi::FIRST, true).is_err());
    }

    /// Old peers do not speak of sequence numbers: theirs are of 32 bits.
    #[test]
    fn a_peer_that_does_not_know_extended_sequence_numbers_gets_none() {
        let ours = esp(&["aes128gcm16-esn", "aes128gcm16"]);
        let mut offer = esp_proposals(&ours[1..], Spi::FIRST, false);
        offer[0].transforms.retain(|one| one.kind != TransformType::ESN);
        let chosen = choose_esp(&profile(), &ours, &offer, None, Spi::FIRST, false).unwrap();
        assert!(!chosen.suite.esn);
        assert!(choose_esp(&profile(), &ours[..1], &offer, None, Spi::FIRST, false).is_err());
    }

    #[test]
    fn the_hybrid_is_chosen_where_both_have_it() {
        let both = suites(&["aes256gcm16-prfsha384-x25519-mlkem768", "aes256gcm16-prfsha384-x25519"]);
        let offer = proposals(&both, None);
        assert_eq!(choose(&profile(), &both, &offer, Some(31), None).unwrap().suite, both[0]);
        assert_eq!(choose(&profile(), &both[1..], &offer, Some(31), None).unwrap().suite, both[1]);
        assert_eq!(choose(&profile(), &both, &offer[1..], Some(31), None).unwrap().suite, both[1]);
    }
}
