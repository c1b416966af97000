//! Who is believed and who is not: certificates made here, each wrong in one way; and a few in `credentials/` that no library makes any more
//! (an RSA key of 1024 bits, SHA-1).
#![allow(clippy::unwrap_used, clippy::panic)]

mod made;

use ike::auth::{Claim, Hashes};
use ike::credential::{Octets, Proven};
use ike::crypto::aws_lc::AwsLc;
use ike::{Credentials, Crypto};
use made::{Files, NOW, YEAR, ike, public_authority};
use model::NbmaAddr;
use model::ike::{Identity, Prf};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use wire::ike::{Identification, Payload};

const OCTETS: Octets<'static> =
    Octets { message: b"message", nonce: b"nonce", identification: b"identification", intermediate: b"" };

/// Everything that we take.
fn ours() -> Hashes {
    let Payload::Notify { data, .. } = Hashes::notify() else { panic!("not a notification") };
    Hashes::of(&data)
}

fn local() -> NbmaAddr {
    NbmaAddr("10.0.0.1".parse().unwrap())
}

/// A proof as it goes over the wire.
struct Proof {
    id: Identification,
    certificates: Vec<Payload>,
    auth: Payload,
}

/// `side` proves itself.
fn prove(files: &Files, config: &str, hashes: Hashes) -> Result<Proof, String> {
    let ike = ike(config);
    let credentials = Credentials::load(&ike, &|path| files.read(path)).map_err(|bad| bad.to_string())?;
    let peer = Identity::Address("10.0.0.2".parse().unwrap());
    let proof = credentials.prove(&AwsLc, Prf::Sha256, Some(&peer), hashes, &OCTETS);
    let (certificates, auth) = proof.map_err(|why| why.to_string())?;
    Ok(Proof { id: credentials.identification(&ike, local()), certificates, auth })
}

/// `side` looks at the proof of another one.
fn verify_at(files: &Files, config: &str, proof: &Proof, now: u64) -> Result<Proven, String> {
    let ike = ike(config);
    let credentials = Credentials::load(&ike, &|path| files.read(path)).map_err(|bad| bad.to_string())?;
    let claim = Claim { id: &proof.id, certificates: &proof.certificates, auth: &proof.auth };
    credentials.verify(&AwsLc, Prf::Sha256, now, &ike, &claim, &OCTETS).map_err(|why| why.to_string())
}

fn verify(files: &Files, config: &str, proof: &Proof) -> Result<Proven, String> {
    verify_at(files, config, proof, NOW)
}

const OWN: &str = "certificate = 'spoke.pem'\nprivate_key = 'spoke.key'\n";
const BELIEVES: &str = "authorities = ['ca.pem']\n";

#[test]
fn every_kind_of_key_proves_its_identity() {
    for (algorithm, kind, method) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ECDSA P-256", 9),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA P-384", 10),
        (&rcgen::PKCS_RSA_SHA256, "RSA 2048", 1),
        (&rcgen::PKCS_ED25519, "Ed25519", 0),
    ] {
        let authority = public_authority();
        let mut files = Files::default();
        files.authority("ca.pem", &authority);
        let names = ["spoke.example", "10.0.0.2", "172.16.0.2", "2001:db8::2"];
        files.signed("spoke", &authority, algorithm, &names, |_| ());
        let proof = prove(&files, OWN, ours()).unwrap();
        assert!(matches!(proof.auth, Payload::Authentication { method: 14, .. }), "RFC 7427");
        let proven = verify(&files, BELIEVES, &proof).unwrap();
        assert_eq!(proven.identity.to_string(), "spoke.example");
        let addresses: Vec<_> = proven.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.2", "172.16.0.2", "2001:db8::2"]);
        assert_eq!(proven.by, format!("{kind}, CN=spoke,O=Example"));
        // To a peer that does not know RFC 7427.
        match prove(&files, OWN, Hashes::default()) {
            Ok(old) => {
                let Payload::Authentication { method: found, .. } = old.auth else { panic!() };
                assert_eq!(found, method, "{kind}");
                assert!(verify(&files, BELIEVES, &old).is_ok(), "{kind}");
            }
            Err(why) => {
                assert_eq!(method, 0, "{kind}");
                assert_eq!(why, "peer does not know RFC 7427, which a certificate with Ed25519 needs");
            }
        }
    }
}

/// Every byte of the signature, and of what it stands for.
#[test]
fn a_proof_that_was_changed_is_refused() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    let mut proof = prove(files, OWN, ours()).unwrap();
    let Payload::Authentication { data, .. } = proof.auth.clone() else { panic!() };
    for at in 0..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 1;
        proof.auth = Payload::Authentication { method: 14, data: changed };
        let refused = verify(files, BELIEVES, &proof).unwrap_err();
        assert!(refused.starts_with("peer spoke.example: its signature "), "{refused}");
    }
    let tampered =
        "peer spoke.example: its signature is not that of its certificate's key over this exchange";
    proof.auth = Payload::Authentication { method: 14, data: data[..data.len() - 1].to_vec() };
    assert_eq!(verify(files, BELIEVES, &proof).unwrap_err(), tampered);
    for length in 0..4 {
        proof.auth = Payload::Authentication { method: 14, data: data[..length].to_vec() };
        assert!(verify(files, BELIEVES, &proof).is_err());
    }
    proof.auth = Payload::Authentication { method: 14, data };
    let ike = ike(BELIEVES);
    let credentials = Credentials::load(&ike, &|path| files.read(path)).unwrap();
    let claim = Claim { id: &proof.id, certificates: &proof.certificates, auth: &proof.auth };
    for octets in [
        Octets { message: b"massage", ..OCTETS },
        Octets { nonce: b"once", ..OCTETS },
        Octets { identification: b"other", ..OCTETS },
        Octets { intermediate: b"more", ..OCTETS },
    ] {
        let refused = credentials.verify(&AwsLc, Prf::Sha256, NOW, &ike, &claim, &octets).unwrap_err();
        assert_eq!(refused.to_string(), tampered);
    }
    // A signature of another kind than the key, and methods that do not fit.
    for (method, words) in [
        (1, "its signature is of another kind than its certificate's key"),
        (10, "its signature is of another kind than its certificate's key"),
        (9, "its signature is not that of its certificate's key over this exchange"),
        (3, "it proves itself by method 3, which is not taken"),
        (2, "it proves itself by a pre-shared key, and there is none for it"),
    ] {
        proof.auth = Payload::Authentication { method, data: vec![1; 64] };
        assert_eq!(verify(files, BELIEVES, &proof).unwrap_err(), format!("peer spoke.example: {words}"));
    }
}

/// Every bit of a certificate counts: of what it says, and of its signature.
#[test]
fn a_certificate_that_was_changed_anywhere_is_refused() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example", "10.0.0.2"], |_| ());
    let mut proof = prove(files, OWN, ours()).unwrap();
    let ike = ike(BELIEVES);
    let credentials = Credentials::load(&ike, &|path| files.read(path)).unwrap();
    let Payload::Certificate { data, .. } = proof.certificates[0].clone() else { panic!() };
    let mut believed = |data: &[u8]| {
        proof.certificates[0] = Payload::Certificate { encoding: 4, data: data.to_vec() };
        let claim = Claim { id: &proof.id, certificates: &proof.certificates, auth: &proof.auth };
        credentials.verify(&AwsLc, Prf::Sha256, NOW, &ike, &claim, &OCTETS)
    };
    assert!(believed(&data).is_ok());
    for at in 0..data.len() {
        for bit in 0..8 {
            let mut changed = data.clone();
            changed[at] ^= 1 << bit;
            assert!(believed(&changed).is_err(), "byte {at}, bit {bit}");
        }
        assert!(believed(&data[..at]).is_err(), "{at} bytes");
    }
}

#[test]
fn an_identity_that_the_certificate_does_not_name_is_refused() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    let names = ["spoke.example", "10.0.0.2", "*.wild.example"];
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &names, |_| ());
    let mut proof = prove(files, OWN, ours()).unwrap();
    for identity in ["10.0.0.2", "SPOKE.example", "CN=spoke,O=Example", "cn=spoke, o=Example"] {
        proof = prove(files, &format!("identity = '{identity}'\n{OWN}"), ours()).unwrap();
        assert!(verify(files, BELIEVES, &proof).is_ok(), "{identity}");
    }
    for (kind, data) in [
        (1, &[10, 0, 0, 3][..]),
        (2, b"hub.example"),
        (2, b"a.wild.example"),
        (2, b"example"),
        (3, b"spoke@example"),
        (11, b"spoke.example"),
    ] {
        proof.id = Identification { kind, data: data.to_vec() };
        let refused = verify(files, BELIEVES, &proof).unwrap_err();
        assert!(
            refused.ends_with(
                ": its certificate (CN=spoke,O=Example, issued by CN=Authority,O=Example) does not name it; it names \
                 CN=spoke,O=Example | spoke.example | 10.0.0.2"
            ),
            "{refused}"
        );
    }
    // Nor is it loaded as our own.
    let refused = prove(files, &format!("identity = 'hub.example'\n{OWN}"), ours()).err().unwrap();
    assert_eq!(
        refused,
        "spoke.pem does not name `identity` hub.example, and peers would not believe it; it names CN=spoke,O=Example | \
         spoke.example | 10.0.0.2"
    );
}

/// Runs one wrong certificate: what is said of it behind its name.
fn refused_certificate(
    now: u64,
    change: impl FnOnce(&mut rcgen::CertificateParams),
) -> Result<Proven, String> {
    let (mut files, authority) = (Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], change);
    let proof = prove(&files, OWN, ours()).unwrap();
    let before =
        "peer spoke.example: its certificate (CN=spoke,O=Example, issued by CN=Authority,O=Example) ";
    verify_at(&files, BELIEVES, &proof, now)
        .map_err(|why| why.strip_prefix(before).map(str::to_owned).unwrap_or(why))
}

#[test]
fn a_certificate_is_believed_while_it_is_valid() {
    assert!(refused_certificate(NOW, |_| ()).is_ok());
    assert_eq!(refused_certificate(NOW + 2 * YEAR, |_| ()).unwrap_err(), "expired on 2027-06-01 00:00 UTC");
    let early = refused_certificate(NOW - 2 * YEAR, |_| ()).unwrap_err();
    assert_eq!(early, "is not valid before 2026-01-01 00:00 UTC; is the clock right?");
}

/// RFC 4945 §5.1.3.2 and §5.1.3.12.
#[test]
fn a_certificate_for_something_else_is_refused() {
    for good in [
        ExtendedKeyUsagePurpose::Any,
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        assert!(refused_certificate(NOW, |params| params.extended_key_usages = vec![good]).is_ok());
    }
    let ipsec_ike = vec![1, 3, 6, 1, 5, 5, 7, 3, 17];
    let usages = vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Other(ipsec_ike)];
    assert!(refused_certificate(NOW, |params| params.extended_key_usages = usages).is_ok());
    let code = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let refused = refused_certificate(NOW, |params| params.extended_key_usages = code).unwrap_err();
    assert_eq!(refused, "is not for IKE: its extended key usage says something else");
    for usage in [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment] {
        assert!(refused_certificate(NOW, |params| params.key_usages = vec![usage]).is_ok());
    }
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let (files, authority, other) = (&mut Files::default(), public_authority(), public_authority());
    files.authority("ca.pem", &authority);
    files.authority("other.pem", &other);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    let proof = prove(files, OWN, ours()).unwrap();
    // The other authority has the same name, and another key.
    assert_eq!(
        verify(files, "authorities = ['other.pem']", &proof).unwrap_err(),
        "peer spoke.example: its certificate (CN=spoke,O=Example, issued by CN=Authority,O=Example) is not signed by the \
         authority that it names"
    );
    assert!(verify(files, "authorities = ['other.pem', 'ca.pem']", &proof).is_ok());
    assert_eq!(
        verify(files, "[[psk]]\nsecret = 'x'", &proof).unwrap_err(),
        "peer spoke.example: it proves itself by a certificate, and the profile has no `authorities`"
    );
    let none = Proof { certificates: vec![], id: proof.id.clone(), auth: proof.auth.clone() };
    let refused = verify(files, BELIEVES, &none).unwrap_err();
    assert_eq!(refused, "peer spoke.example: it sent no certificate");
    let garbage = Payload::Certificate { encoding: 4, data: vec![0x30, 3, 1, 2, 3] };
    let none = Proof { certificates: vec![garbage], ..none };
    assert_eq!(verify(files, BELIEVES, &none).unwrap_err(), "peer spoke.example: its certificate is none");
}

#[test]
fn a_certificate_by_way_of_another_authority_is_believed_with_that_ones_certificate() {
    let (files, root) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &root);
    let between = made::authority_below(&root, "Between", |_| ());
    files.signed("spoke", &between, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    let alone = prove(files, OWN, ours()).unwrap();
    assert!(verify(files, BELIEVES, &alone).unwrap_err().ends_with("comes from none of `authorities`"));
    files.append("spoke.pem", &between.pem());
    let proof = prove(files, OWN, ours()).unwrap();
    assert_eq!(proof.certificates.len(), 2);
    assert!(verify(files, BELIEVES, &proof).is_ok());
    // One that is issued by a certificate that is no authority's.
    let spoke = files.issuer("spoke");
    files.signed("mallory", &spoke, &rcgen::PKCS_ECDSA_P256_SHA256, &["hub.example"], |_| ());
    let chain = files.text("spoke.pem");
    files.append("mallory.pem", &chain);
    let proof = prove(files, "certificate = 'mallory.pem'\nprivate_key = 'mallory.key'", ours()).unwrap();
    let refused = verify(files, BELIEVES, &proof).unwrap_err();
    assert!(refused.ends_with("is issued by one that is no authority"), "{refused}");
}

#[test]
fn a_revoked_certificate_is_refused_and_so_is_one_that_cannot_be_looked_up() {
    let (files, authority, other) = (&mut Files::default(), public_authority(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    let proof = prove(files, OWN, ours()).unwrap();
    let serial = made::serial_of(&proof.certificates[0]);
    files.revocation_list("good.crl", &authority, &[vec![0x77]]);
    files.revocation_list("bad.crl", &authority, &[vec![0x77], serial]);
    files.revocation_list("foreign.crl", &other, &[]);
    let with = |files: &Files, list: &str, now| {
        let config = format!("{BELIEVES}revocation_lists = ['{list}']");
        verify_at(files, &config, &proof, now)
            .map_err(|why| why.split_once("issued by CN=Authority,O=Example) ").unwrap().1.to_owned())
    };
    assert!(with(files, "good.crl", NOW).is_ok());
    assert_eq!(with(files, "bad.crl", NOW).unwrap_err(), "is revoked");
    assert_eq!(
        with(files, "foreign.crl", NOW).unwrap_err(),
        "cannot be looked up: the revocation list of its issuer has a wrong signature"
    );
    assert_eq!(
        with(files, "good.crl", NOW + YEAR / 4).unwrap_err(),
        "cannot be looked up: the revocation list of its issuer should have been renewed on 2027-01-01 00:00 UTC"
    );
    let between = made::authority_below(&authority, "Between", |_| ());
    files.revocation_list("between.crl", &between, &[]);
    assert_eq!(
        with(files, "between.crl", NOW).unwrap_err(),
        "cannot be looked up: there is no revocation list of its issuer in `revocation_lists`"
    );
    // DER as well as PEM.
    files.turn_into_der("bad.crl");
    assert_eq!(with(files, "bad.crl", NOW).unwrap_err(), "is revoked");
}

#[test]
fn names_that_an_authority_may_not_certify_are_refused() {
    let (files, root) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &root);
    let between = made::authority_below(&root, "Branch", |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("branch.example".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    for (name, good) in [("spoke.branch.example", true), ("hub.example", false)] {
        files.signed("spoke", &between, &rcgen::PKCS_ECDSA_P256_SHA256, &[name], |_| ());
        files.append("spoke.pem", &between.pem());
        let found = verify(files, BELIEVES, &prove(files, OWN, ours()).unwrap());
        assert_eq!(found.is_ok(), good, "{found:?}");
        if let Err(why) = found {
            assert!(why.ends_with("names what its authority may not certify"), "{why}");
        }
    }
}

#[test]
fn weak_keys_and_sha1_are_refused() {
    let mut files = Files::default();
    for name in ["ca.pem", "rsa1024.pem", "rsa1024.key", "sha1.pem", "rsa2048.pem"] {
        files.fixture(name);
    }
    let claim = |certificate: &str, method, data: &[u8]| Proof {
        id: Identification { kind: 2, data: b"spoke.example".to_vec() },
        certificates: vec![Payload::Certificate { encoding: 4, data: files.der(certificate) }],
        auth: Payload::Authentication { method, data: data.to_vec() },
    };
    // They are valid from the end of 2026 on.
    let verify = |files: &Files, config: &str, proof: &Proof| verify_at(files, config, proof, NOW + YEAR);
    let refused = |proof| verify(&files, BELIEVES, &proof).unwrap_err();
    assert_eq!(
        refused(claim("rsa1024.pem", 14, &[1; 100])),
        "the key of certificate CN=rsa1024,O=Weak is RSA of 1024 bits (2048 to 8192 are taken)"
    );
    assert_eq!(
        refused(claim("sha1.pem", 14, &[1; 100])),
        "peer spoke.example: its certificate (CN=sha1,O=Weak, issued by CN=Test authority,O=Weak) is signed by an algorithm \
         that is not taken (SHA-1, or a weak or unknown kind of key)"
    );
    // Method 1 with SHA-256 is taken, and with SHA-1, which others sign with, is not.
    let (sha1, sha256) = (files.bytes("rsa-sha1.signature"), files.bytes("rsa-sha256.signature"));
    let proven = verify(&files, BELIEVES, &claim("rsa2048.pem", 1, &sha256)).unwrap();
    assert_eq!(proven.by, "RSA 2048, CN=rsa2048,O=Weak");
    let of_sha1 = "peer spoke.example: its signature is made with SHA-1, which is not taken";
    assert_eq!(refused(claim("rsa2048.pem", 1, &sha1)), of_sha1);
    let sha1_with_rsa =
        [&[15, 0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0], &sha1[..]].concat();
    assert_eq!(refused(claim("rsa2048.pem", 14, &sha1_with_rsa)), of_sha1);
    // Our own.
    let own = "certificate = 'rsa1024.pem'\nprivate_key = 'rsa1024.key'";
    let refused = prove(&files, own, ours()).err().unwrap();
    assert_eq!(refused, "rsa1024.pem has a key that is RSA of 1024 bits (2048 to 8192 are taken)");
    let own = "certificate = 'rsa2048.pem'\nprivate_key = 'rsa1024.key'";
    let refused = prove(&files, own, ours()).err().unwrap();
    assert!(
        refused.starts_with("rsa1024.key holds a key that is RSA, which the library refuses ("),
        "{refused}"
    );
}

#[test]
fn pre_shared_keys_prove_identities_and_the_narrowest_counts() {
    let files = Files::default();
    let side = |identity: &str, secret: &str| {
        prove(&files, &format!("identity = '{identity}'\n[[psk]]\nsecret = '{secret}'"), ours()).unwrap()
    };
    let keys = "peers = ['*.example', '10.0.0.0/24', 'CN=dn,O=Example']
        psk = [{ secret = 'anybody' }, { peer = '*.branch.example', secret = 'branch' },
               { peer = 'one.branch.example', secret = 'one' }, { peer = '10.0.0.0/24', secret = 'net' },
               { peer = 'cn=dn, o=Example', secret = 'dn' }]";
    for (identity, secret) in [
        ("hub.example", "anybody"),
        ("two.branch.example", "branch"),
        ("one.branch.example", "one"),
        ("ONE.branch.example", "one"),
        ("10.0.0.77", "net"),
        ("CN=dn,O=Example", "dn"),
    ] {
        let proven = verify(&files, keys, &side(identity, secret)).unwrap();
        assert_eq!((proven.identity, &proven.by[..]), (identity.parse().unwrap(), "pre-shared key"));
        assert!(proven.addresses.is_empty());
        for other in ["anybody", "branch", "one", "net", "dn", "Anybody", ""] {
            if other != secret && !other.is_empty() {
                let refused = verify(&files, keys, &side(identity, other)).unwrap_err();
                assert!(refused.contains("its pre-shared key is another one than ours for "), "{refused}");
            }
        }
    }
    // Who it says, and not let in.
    let refused = verify(&files, keys, &side("hub.elsewhere", "anybody")).unwrap_err();
    assert_eq!(refused, "peer hub.elsewhere is who it says, and none of `peers`");
    let refused = verify(&files, "psk = [{ peer = 'hub.example', secret = 'x' }]", &side("a.example", "x"));
    assert_eq!(
        refused.unwrap_err(),
        "peer a.example: it proves itself by a pre-shared key, and there is none for it"
    );
}

/// RFC 7296 §2.15, written out.
#[test]
fn the_proof_of_a_pre_shared_key_is_that_of_the_rfc() {
    let proof = prove(&Files::default(), "[[psk]]\nsecret = 'lab'", ours()).unwrap();
    let key = AwsLc.prf(Prf::Sha256, b"lab", &[b"Key Pad for IKEv2"]);
    let data = AwsLc.prf(Prf::Sha256, &key, &[b"messagenonceidentification"]).to_vec();
    assert_eq!(proof.auth, Payload::Authentication { method: 2, data });
    // Without a certificate and an identity we are our address.
    assert_eq!(proof.id, Identification { kind: 1, data: vec![10, 0, 0, 1] });
}

#[test]
fn a_peer_of_which_the_address_alone_is_known_gets_the_key_for_that_or_the_only_one() {
    let files = Files::default();
    assert!(prove(&files, "psk = [{ peer = 'hub.example', secret = 'x' }]", ours()).is_ok());
    let two = "psk = [{ peer = 'hub.example', secret = 'x' }, { peer = 'hub2.example', secret = 'y' }]";
    assert_eq!(
        prove(&files, two, ours()).err().unwrap(),
        "we cannot prove ourselves to the peer: there are 2 pre-shared keys and none is for 10.0.0.2"
    );
    let known = "psk = [{ peer = 'hub.example', secret = 'x' }, { peer = '10.0.0.2', secret = 'y' }]";
    assert!(prove(&files, known, ours()).is_ok());
    assert_eq!(prove(&files, BELIEVES, ours()).err().unwrap(), "ca.pem cannot be read: entity not found");
}

#[test]
fn files_that_make_no_sense_are_named_with_what_is_wrong() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    files.signed("other", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["other.example"], |_| ());
    files.signed("p521", &authority, &rcgen::PKCS_ECDSA_P521_SHA512, &["p521.example"], |_| ());
    files.put("empty", b"");
    files.put("text", b"hello\n");
    files.put("torn.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n");
    files.put(
        "locked.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    files.put("psk", b"secret\r\n");
    let refused = |config: &str| {
        let bad = Credentials::load(&ike(config), &|path| files.read(path)).unwrap_err();
        (bad.field.clone(), bad.to_string())
    };
    for (config, field, words) in [
        ("certificate = 'spoke.pem'", "certificate", "spoke.pem goes with a `private_key`"),
        ("private_key = 'spoke.key'", "private_key", "spoke.key goes with a `certificate`"),
        (
            "certificate = 'spoke.pem'\nprivate_key = 'other.key'",
            "private_key",
            "other.key is not the key of CN=spoke,O=Example, the first certificate in spoke.pem",
        ),
        (
            "certificate = 'spoke.pem'\nprivate_key = 'locked.key'",
            "private_key",
            "locked.key is encrypted; a key that is read unattended is protected by who may read its file",
        ),
        (
            "certificate = 'p521.pem'\nprivate_key = 'p521.key'",
            "certificate",
            "p521.pem has a key that is on a curve that is not taken (P-256 and P-384 are)",
        ),
        (
            "certificate = 'ca.pem'\nprivate_key = 'spoke.key'",
            "certificate",
            "ca.pem begins with the certificate of an authority; ours comes first",
        ),
        (
            "certificate = 'spoke.key'\nprivate_key = 'spoke.key'",
            "certificate",
            "spoke.key holds no certificate",
        ),
        (
            "authorities = ['ca.pem', 'spoke.pem']",
            "authorities[1]",
            "spoke.pem holds the certificate of CN=spoke,O=Example, which is no authority's",
        ),
        ("authorities = ['text']", "authorities[0]", "text holds no certificate"),
        ("authorities = ['missing']", "authorities[0]", "missing cannot be read: entity not found"),
        ("revocation_lists = ['ca.pem']", "revocation_lists[0]", "ca.pem holds no revocation list"),
        ("psk = [{ secret = 'x' }, { file = 'empty' }]", "psk[1].file", "empty is empty"),
    ] {
        assert_eq!(refused(config), (field.to_owned(), words.to_owned()));
    }
    let (field, words) = refused("authorities = ['torn.pem']");
    assert!(field == "authorities[0]" && words.starts_with("torn.pem is not PEM: "), "{words}");
    let (field, words) = refused("certificate = 'spoke.pem'\nprivate_key = 'text'");
    assert!(field == "private_key" && words.starts_with("text holds no private key in PEM"), "{words}");
    // The line's end is no part of a key, and nothing else is left out.
    let of_file = prove(files, "psk = [{ file = 'psk' }]", ours()).unwrap();
    assert_eq!(of_file.auth, prove(files, "psk = [{ secret = 'secret' }]", ours()).unwrap().auth);
}

/// PKCS #8, SEC1 and PKCS #1.
#[test]
fn private_keys_are_read_in_each_of_their_forms() {
    for (certificate, key) in
        [("ec.pem", "ec-sec1.key"), ("ec.pem", "ec-pkcs8.key"), ("rsa.pem", "rsa-pkcs1.key")]
    {
        let mut files = Files::default();
        files.fixture(certificate);
        files.fixture(key);
        let proof = prove(&files, &format!("certificate = '{certificate}'\nprivate_key = '{key}'"), ours());
        assert!(proof.is_ok(), "{key}");
    }
}

#[test]
fn what_ends_soon_or_has_ended_is_said_beforehand() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.authority("ca.pem", &authority);
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P256_SHA256, &["spoke.example"], |_| ());
    files.revocation_list("ca.crl", &authority, &[]);
    let config = ike(&format!("{OWN}{BELIEVES}revocation_lists = ['ca.crl']"));
    let credentials = Credentials::load(&config, &|path| files.read(path)).unwrap();
    assert_eq!(credentials.warnings(NOW), Vec::<String>::new());
    // The list ends with the year, the certificate in June after.
    assert_eq!(
        credentials.warnings(NOW + 30 * 86_400),
        ["the revocation list of CN=Authority,O=Example expires on 2027-01-01 00:00 UTC"]
    );
    assert_eq!(
        credentials.warnings(NOW + YEAR),
        [
            "our certificate CN=spoke,O=Example expired on 2027-06-01 00:00 UTC",
            "the revocation list of CN=Authority,O=Example expired on 2027-01-01 00:00 UTC"
        ]
    );
    assert_eq!(credentials.warnings(0).len(), 3);
    assert_eq!(format!("{credentials:?}"), "Credentials(hidden)");
}

/// SHA-1 of the SubjectPublicKeyInfo of each authority (RFC 7296 §3.7).
#[test]
fn certificates_of_the_authorities_are_asked_for() {
    let (files, one, two) = (&mut Files::default(), public_authority(), public_authority());
    files.authority("ca.pem", &one);
    files.authority("two.pem", &two);
    let config = ike("authorities = ['ca.pem', 'two.pem']");
    let credentials = Credentials::load(&config, &|path| files.read(path)).unwrap();
    let [Payload::CertificateRequest { encoding: 4, data }] = &credentials.requests()[..] else { panic!() };
    let hash = |authority: &made::Authority| AwsLc.sha1(&[&made::spki_of(authority)]);
    assert_eq!(*data, [hash(&one), hash(&two)].concat());
    let none = Credentials::load(&ike("psk = [{ secret = 'x' }]"), &|path| files.read(path)).unwrap();
    assert!(none.requests().is_empty());
}

/// RFC 7427 §4: a peer that does not take what our key signs with is told nothing false.
#[test]
fn a_peer_gets_a_hash_algorithm_that_it_takes_or_none() {
    let (files, authority) = (&mut Files::default(), public_authority());
    files.signed("spoke", &authority, &rcgen::PKCS_ECDSA_P384_SHA384, &["spoke.example"], |_| ());
    assert!(prove(files, OWN, Hashes::of(&[0, 2, 0, 3])).is_ok());
    let refused = prove(files, OWN, Hashes::of(&[0, 1, 0, 2, 0, 9])).err().unwrap();
    assert_eq!(refused, "peer takes no hash algorithm that goes with our key (number 3)");
    // SHA-1 alone is not "said nothing": the old methods are not for it.
    assert!(prove(files, OWN, Hashes::of(&[0, 1])).is_err());
    files.signed("spoke", &authority, &rcgen::PKCS_RSA_SHA256, &["spoke.example"], |_| ());
    files.authority("ca.pem", &authority);
    for number in 2..=4 {
        let proof = prove(files, OWN, Hashes::of(&[0, number])).unwrap();
        assert!(verify(files, BELIEVES, &proof).is_ok(), "{number}");
    }
}
