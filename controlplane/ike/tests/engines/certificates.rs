//! Certificates, several profiles, and IPv6: who somebody is, and by which of our rules it is let in.

use crate::made::public_authority;
use crate::net::*;

/// Two nodes with certificates of one authority, with real cryptography; the second one's may be another's.
fn certified(algorithm: &'static rcgen::SignatureAlgorithm, is_stranger: bool, more: &str) -> Net {
    let config = |node: usize| {
        let peer = 1 - node;
        format!(
            "certificate = 'n{node}.pem'\nprivate_key = 'n{node}.key'\nauthorities = ['ca.pem']\n\
             peers = ['n{peer}.branch.example']\n{more}"
        )
    };
    let mut net = Net::new(2, &config(0));
    net.nodes[1].config = config(1);
    net.real = true;
    let (authority, stranger) = (public_authority(), public_authority());
    net.files.authority("ca.pem", &authority);
    for node in 0..2 {
        let (name, own) = (format!("n{node}.branch.example"), format!("172.16.0.{node}"));
        let by = if node == 1 && is_stranger { &stranger } else { &authority };
        net.files.signed(&format!("n{node}"), by, algorithm, &[&name, &own], |_| ());
    }
    net.start();
    net.want(0, 1);
    net.run(seconds(1));
    net
}

/// RFC 7427, in messages that go in fragments; and the addresses of the certificate are known of who sends by an SA.
#[test]
fn certificates_prove_who_peers_are() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ED25519,
    ] {
        for more in ["", "fragment_size = 400\n"] {
            let mut net = certified(algorithm, false, more);
            assert!(net.can_talk(0, 1), "{:?} {:?}", net.failures(0), net.failures(1));
            net.run(seconds(1));
            net.assert_one_pair(0, 1);
            let spi = net.established(0)[0].children[0].inbound;
            let (_, identity, addresses) = net.nodes[0].engine.peer_of(spi).unwrap();
            assert_eq!(identity.to_string(), "n1.branch.example");
            assert_eq!(addresses, ["172.16.0.1".parse::<std::net::IpAddr>().unwrap()]);
            let is_cut = net.nodes[0].sent.iter().filter(|(_, _, bytes)| bytes.len() > 400 - 28).count();
            assert!(more.is_empty() || is_cut <= 1, "all but the first message, which cannot be");
        }
    }
}

/// A stranger is refused by who begins, which says so, and both are left with nothing.
#[test]
fn a_stranger_is_refused_by_either_side() {
    for begins in [0, 1] {
        let mut net = certified(&rcgen::PKCS_ECDSA_P256_SHA256, true, "");
        net.nodes.iter_mut().for_each(|n| n.events.clear());
        net.run(seconds(100));
        net.want(begins, 1 - begins);
        net.run(seconds(1));
        assert!(!net.is_up(0, 1) && !net.is_up(1, 0));
        let words = net.failures(0).join(" ");
        assert!(words.contains("n1.branch.example"), "node 0 knows whom it refused: {words}");
        net.run(seconds(60));
        assert!(net.nodes.iter().all(|n| n.inbound.is_empty() && n.outbound.is_empty()));
        assert_eq!(net.nodes[0].engine.sizes(), (0, 0, 0));
        assert_eq!(net.nodes[1].engine.sizes(), (0, 0, 0));
    }
}

/// Two profiles of one source: who comes is let in by that which it can prove itself to.
#[test]
fn a_peer_comes_in_by_the_profile_that_is_for_it() {
    let mut net = Net::new(3, PSK);
    net.nodes[0]
        .others
        .push(("partners", "psk = [{ secret = 'of partners' }]\nesp = ['aes128gcm16']\n".to_owned()));
    net.nodes[2].config = "psk = [{ secret = 'of partners' }]\n".to_owned();
    net.start();
    net.want(1, 0);
    net.want(2, 0);
    net.run(seconds(1));
    let up: Vec<_> = net.nodes[0].up.keys().map(|peer| (peer.profile.to_string(), peer.remote)).collect();
    let nbma = |node| model::NbmaAddr(address(node));
    assert_eq!(up, [("branch".to_owned(), nbma(1)), ("partners".to_owned(), nbma(2))]);
    let suites: Vec<_> = net.established(0).iter().map(|sa| sa.children[0].suite.to_string()).collect();
    assert_eq!(suites, ["aes256gcm16-esn", "aes128gcm16"]);
}

#[test]
fn an_underlay_of_ipv6_is_one() {
    over_ipv6();
    for behind_nat in [false, true] {
        let mut net = Net::new(2, PSK);
        if behind_nat {
            net.nat.insert(0, Nat { outside: "2001:db8:7::1".parse().unwrap(), first: 30_000 });
        }
        net.start();
        net.want(0, 1);
        net.run(seconds(1));
        net.assert_one_pair(0, 1);
        assert!(net.nodes[0].sent.iter().all(|(_, to, _)| to.is_ipv6()));
    }
}
