//! docs/ios-peer.md quotes what a router at its defaults is told.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking, in its helpers too.

use std::fs;
use std::path::Path;

use model::config::{Ike, Profile};
use model::sa::Spi;
use wire::ike::{Proposal, Protocol, Transform, TransformType};

const SHA384_AND_512: [(u8, u16); 4] = [(2, 7), (2, 6), (3, 14), (3, 13)];

fn proposal(protocol: Protocol, cipher: (u16, u16), others: &[(u8, u16)]) -> Proposal {
    let other = |&(kind, id): &(u8, u16)| Transform::new(TransformType(kind), id);
    let first =
        Transform { key_length: Some(cipher.1), ..Transform::new(TransformType::ENCRYPTION, cipher.0) };
    let transforms = std::iter::once(first).chain(others.iter().map(other)).collect();
    let spi = if protocol == Protocol::ESP { vec![1, 2, 3, 4] } else { Vec::new() };
    Proposal { number: 1, protocol, spi, transforms }
}

/// Input: the proposals of a router at its defaults, and a profile at ours. Output: the quoted words are those of the engine; what the page has
/// a router say is taken.
#[test]
fn what_a_router_is_told_is_what_the_page_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ios-peer.md");
    let page = fs::read_to_string(file).unwrap();
    let quotes: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let profile: Profile = toml::from_str("name = \"branch-v2\"\n[ike]\n").unwrap();
    let Ike { proposals, esp, .. } = profile.ike.unwrap();

    let groups = [(4, 19), (4, 14), (4, 21)];
    let default = proposal(Protocol::IKE, (12, 256), &[&SHA384_AND_512[..], &groups].concat());
    let said = ike::suite::choose(&profile.name, &proposals, &[default], Some(19), None).unwrap_err();
    assert_eq!(quotes[0], said);
    let cbc = proposal(Protocol::ESP, (12, 128), &[(3, 2), (5, 0)]);
    let spi = Spi::FIRST;
    let said = ike::suite::choose_esp(&profile.name, &esp, &[cbc], None, spi, false).unwrap_err();
    assert_eq!(quotes[1], said);

    let groups = [(2, 6), (4, 19), (4, 20), (4, 21), (4, 14)];
    let right = proposal(Protocol::IKE, (20, 256), &groups);
    let chosen = ike::suite::choose(&profile.name, &proposals, &[right], Some(19), None).unwrap();
    assert_eq!(chosen.suite.to_string(), "aes256gcm16-prfsha384-ecp256");
    let right = proposal(Protocol::ESP, (20, 256), &[(5, 0)]);
    let chosen = ike::suite::choose_esp(&profile.name, &esp, &[right], None, spi, false).unwrap();
    assert_eq!(chosen.suite.to_string(), "aes256gcm16");
}
