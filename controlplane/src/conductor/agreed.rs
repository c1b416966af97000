//! Peers that IKE protects: where they are, and who.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::NbmaAddr;
use model::ike::Identity;
use model::sa::Protection;

use super::topology::Domain;

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Who {
    /// As it proved; `None`: in a former life, and nobody remembers.
    pub(crate) identity: Option<Identity>,
    /// The addresses that its certificate names.
    pub(crate) addresses: Vec<IpAddr>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Agreed(BTreeMap<Protection, Who>);

impl Agreed {
    /// It is protected. Whether it was not before.
    pub(crate) fn insert(&mut self, peer: Protection, who: Who) -> bool {
        self.0.insert(peer, who).is_none()
    }

    /// It is not any more. Whether it was.
    pub(crate) fn remove(&mut self, peer: &Protection) -> bool {
        self.0.remove(peer).is_some()
    }

    /// Who it is.
    pub(crate) fn who(&self, peer: &Protection) -> Option<&Who> {
        self.0.get(peer)
    }

    /// Those at one address.
    fn at(&self, domain: Domain, remote: NbmaAddr) -> impl Iterator<Item = &Protection> {
        self.0.range(domain.peer(remote, 0)..=domain.peer(remote, u16::MAX)).map(|(peer, _)| peer)
    }

    /// The UDP port at an address where there is but one peer.
    pub(crate) fn only_port(&self, domain: Domain, remote: NbmaAddr) -> Option<u16> {
        let mut at = self.at(domain, remote);
        at.next().filter(|_| at.next().is_none()).map(|peer| peer.port)
    }

    /// The addresses of a domain where there is but one peer, and its port.
    pub(crate) fn only_ports(&self, domain: Domain) -> BTreeMap<NbmaAddr, u16> {
        let of_domain = self.0.keys().filter(|peer| Domain::of(peer) == domain);
        let remotes = of_domain.map(|peer| peer.remote);
        remotes.filter_map(|remote| Some((remote, self.only_port(domain, remote)?))).collect()
    }

    /// The peer that somebody means who heard this port of it (0: none): that one; without a port the only one there.
    pub(crate) fn find(&self, domain: Domain, remote: NbmaAddr, heard: u16) -> Option<Protection> {
        let port = if heard == 0 { self.only_port(domain, remote)? } else { heard };
        let peer = domain.peer(remote, port);
        self.0.contains_key(&peer).then_some(peer)
    }
}
