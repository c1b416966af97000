//! A small RIB.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

use model::program::Hop;
use model::{Prefix, ProtocolAddr, TableId};
use nhrp::{Found, Routes, To};

use crate::net::{name, tunnel0};

/// A small RIB.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rib(pub(crate) BTreeMap<Prefix, Lead>);

/// Where its routes lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    Local,
    Lan,
    Attached,
    Via(ProtocolAddr),
}

/// The longest prefix of an ordered set that holds an address. `last_up_to` gives the last of the set that is not above a prefix.
///
/// What holds the address sorts below it, and of those the longest sorts last. Where what sorts last does not hold it, nothing longer than
/// what the two have in common does.
pub(crate) fn longest(addr: IpAddr, last_up_to: impl Fn(Prefix) -> Option<Prefix>) -> Option<Prefix> {
    let mut bound = Prefix::host(addr);
    loop {
        let last = last_up_to(bound)?;
        if last.contains(addr) {
            return Some(last);
        }
        let common = (0..bound.length().min(last.length()))
            .rev()
            .filter_map(|length| Prefix::new(addr, length))
            .find(|p| p.contains(last.addr()))?;
        bound = common;
    }
}

impl Rib {
    pub(crate) fn best(&self, addr: IpAddr) -> Option<(Prefix, Lead)> {
        let last = |bound| self.0.range(..=bound).next_back().map(|(p, _)| *p);
        let prefix = longest(addr, last)?;
        Some((prefix, self.0[&prefix]))
    }

    fn to(lead: Lead, addr: IpAddr) -> To {
        match lead {
            Lead::Local => To::Local,
            Lead::Lan => To::Elsewhere(name("lan0")),
            Lead::Attached => To::Tunnel(Hop { interface: tunnel0(), next_hop: addr }),
            Lead::Via(hop) => To::Tunnel(Hop { interface: tunnel0(), next_hop: hop.0 }),
        }
    }
}

impl Routes for Rib {
    fn lookup(&self, _: TableId, addr: ProtocolAddr) -> Option<Found> {
        let (prefix, lead) = self.best(addr.0)?;
        Some(Found { prefix, to: Self::to(lead, addr.0) })
    }

    fn is_split(&self, _: TableId, prefix: Prefix, to: &To) -> bool {
        let parts = self.0.range((Bound::Excluded(prefix), Bound::Unbounded));
        parts.take_while(|(p, _)| prefix.contains(p.addr())).any(|(p, lead)| {
            let part = Self::to(*lead, p.addr());
            part != To::Local && part != *to
        })
    }
}

#[test]
fn the_longest_of_the_bench_is_the_longest() {
    let all =
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/24", "10.1.2.0/24", "10.1.2.128/25", "fd00::/8"];
    let rib = Rib(all.iter().map(|p| (p.parse().unwrap(), Lead::Lan)).collect());
    let addresses = [
        "10.1.2.200",
        "10.1.2.3",
        "10.1.0.9",
        "10.1.3.1",
        "10.255.0.1",
        "9.0.0.1",
        "11.0.0.1",
        "fd00::1",
        "::1",
    ];
    for address in addresses {
        let address = address.parse().unwrap();
        let scanned = rib.0.keys().filter(|p| p.contains(address)).max_by_key(|p| p.length());
        assert_eq!(rib.best(address).map(|(p, _)| p), scanned.copied(), "{address}");
    }
    assert_eq!(Rib::default().best("10.0.0.1".parse().unwrap()), None);
}
