//! Traffic selectors of a tunnel: GRE from host to host (RFC 7296 §2.9), also behind a NAT (§2.23.1).

use std::net::IpAddr;

use wire::ike::Selector;

use crate::path::{Nat, Path};

/// IP protocol of GRE.
const GRE: u8 = 47;

/// What we propose, ours first.
pub(crate) fn proposed(path: &Path) -> (Vec<Selector>, Vec<Selector>) {
    (vec![Selector::host(path.local.ip(), GRE)], vec![Selector::host(path.remote.ip(), GRE)])
}

/// Narrows the peer's proposal, its own first, to GRE between it and us; `None` if that is not in it.
///
/// Behind a NAT an end says the address that it has, or that it sees the other by: a single one that is not that which we see is taken for it,
/// and said back as it is (RFC 7296 §2.23.1).
pub(crate) fn narrowed(
    path: &Path,
    nat: Nat,
    theirs: &[Selector],
    ours: &[Selector],
) -> Option<(Vec<Selector>, Vec<Selector>)> {
    let theirs = one(theirs, path.remote.ip(), nat.them)?;
    let ours = one(ours, path.local.ip(), nat.us)?;
    Some((vec![theirs], vec![ours]))
}

/// The part of these that is GRE of one host.
fn one(selectors: &[Selector], host: IpAddr, is_translated: bool) -> Option<Selector> {
    let of_gre = || {
        selectors.iter().filter_map(|selector| match selector {
            Selector::Addresses { protocol: 0 | GRE, ports: (0, u16::MAX), addresses } => Some(*addresses),
            _ => None,
        })
    };
    if of_gre().any(|(first, last)| first.is_ipv4() == host.is_ipv4() && first <= host && host <= last) {
        return Some(Selector::host(host, GRE));
    }
    let said = of_gre().find(|(first, last)| is_translated && first == last)?;
    Some(Selector::host(said.0, GRE))
}

/// Whether the answer is what we proposed, or the same as it looks on the other side of a NAT: nothing is left to narrow.
pub(crate) fn is_answer(path: &Path, nat: Nat, ours: &[Selector], theirs: &[Selector]) -> bool {
    let is_host = |selectors: &[Selector]| matches!(selectors, [Selector::Addresses { protocol: GRE, addresses: (first, last), .. }] if first == last);
    is_host(ours) && is_host(theirs) && narrowed(path, nat, theirs, ours).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TableId;

    fn path() -> Path {
        Path {
            table: TableId(0),
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "198.51.100.7:31000".parse().unwrap(),
        }
    }

    fn range(protocol: u8, first: &str, last: &str) -> Selector {
        let addresses = (first.parse().unwrap(), last.parse().unwrap());
        Selector::Addresses { protocol, ports: (0, u16::MAX), addresses }
    }

    #[test]
    fn a_proposal_is_narrowed_to_gre_between_the_two() {
        let whole = [range(0, "0.0.0.0", "255.255.255.255")];
        let hosts = narrowed(&path(), Nat::default(), &whole, &whole).unwrap();
        let expected = (range(47, "198.51.100.7", "198.51.100.7"), range(47, "192.0.2.1", "192.0.2.1"));
        assert_eq!(hosts, (vec![expected.0], vec![expected.1]));
        for other in
            [range(6, "0.0.0.0", "255.255.255.255"), range(0, "10.0.0.1", "10.0.0.1"), range(0, "::", "::")]
        {
            assert_eq!(narrowed(&path(), Nat::default(), &[other], &whole), None);
        }
        let ports = Selector::Addresses {
            protocol: 0,
            ports: (80, 80),
            addresses: ("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap()),
        };
        assert_eq!(narrowed(&path(), Nat::default(), &[ports], &whole), None);
    }

    /// RFC 7296 §2.23.1: what stands in the selector is the address that the peer has behind its NAT.
    #[test]
    fn an_address_behind_a_nat_is_taken_and_said_back() {
        let (theirs, ours) = ([range(47, "10.0.0.5", "10.0.0.5")], [range(47, "203.0.113.1", "203.0.113.1")]);
        let nat = Nat { us: true, them: true };
        assert_eq!(narrowed(&path(), nat, &theirs, &ours), Some((theirs.to_vec(), ours.to_vec())));
        assert_eq!(narrowed(&path(), Nat { us: true, them: false }, &theirs, &ours), None);
        assert_eq!(narrowed(&path(), Nat { us: false, them: true }, &theirs, &ours), None);
        let wide = [range(47, "10.0.0.0", "10.0.0.255")];
        assert_eq!(narrowed(&path(), nat, &wide, &ours), None, "more than one host");
    }

    #[test]
    fn an_answer_is_what_was_proposed() {
        let (ours, theirs) = proposed(&path());
        let none = Nat::default();
        assert!(is_answer(&path(), none, &ours, &theirs));
        assert!(!is_answer(&path(), none, &theirs, &ours));
        assert!(!is_answer(&path(), none, &ours, &[range(0, "198.51.100.7", "198.51.100.7")]));
        assert!(!is_answer(&path(), none, &ours, &[range(47, "198.51.100.0", "198.51.100.255")]));
    }
}
