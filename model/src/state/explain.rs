//! Why packets to an address go where they go (`nave explain`): the routes that compete for it, what each next hop of the chosen one
//! stands on, and what the data plane has of that.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::adjacency::{Adjacencies, Adjacency, AdjacencyKind};
use super::fib::{Fib, FibEntry};
use super::nhrp::Entry;
use super::routes::{RibRoute, owner, path};
use super::table::Table;
use super::time::expiry;
use crate::program::{Hop, Owner, Path};
use crate::{Mac, NbmaAddr, Prefix, ProtocolAddr, TableId};

/// Why packets to an address go where they go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The table in which it was looked up.
    pub table: TableId,
    /// The address.
    pub address: IpAddr,
    /// Every route to a prefix that holds it, longest prefix first, and of one prefix the preferred first.
    pub routes: Vec<Candidate>,
    /// What the next hops of the chosen route stand on.
    pub hops: Vec<Way>,
    /// What the data plane forwards it by.
    #[serde(default)]
    pub fib: Vec<FibEntry>,
    /// The adjacencies that takes, and those that these stand on.
    #[serde(default)]
    pub adjacencies: Vec<Adjacency>,
    /// Why nothing is known of the data plane; `None`: it has answered.
    #[serde(default)]
    pub away: Option<String>,
}

/// A route that competes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its prefix.
    pub prefix: Prefix,
    /// Whose it is.
    pub owner: Owner,
    /// Where it comes from, in a word or two: `static`, `shortcut`.
    pub origin: String,
    /// Where it leads; `None`: no next hop of it resolves, or its interface is not there.
    pub path: Option<Path>,
    /// Packets follow it.
    pub chosen: bool,
    /// Why, or why not.
    pub why: String,
}

/// A next hop, and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The next hop.
    pub hop: Hop,
    /// Its Ethernet address, where it is a neighbour of a port.
    pub mac: Option<Mac>,
    /// What stands below it, where it is a peer of a tunnel.
    pub peer: Option<Peer>,
    /// What becomes of packets to it.
    pub why: String,
}

/// What a peer of a tunnel stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What NHRP knows of it; `None` on a point-to-point tunnel, and if nothing is known.
    pub entry: Option<Entry>,
    /// Its NBMA address; `None` while unknown.
    pub nbma: Option<NbmaAddr>,
    /// The server that packets take while that is unknown.
    pub fallback: Option<ProtocolAddr>,
    /// The route that leads there, in the tunnel's underlay table.
    pub underlay: Option<RibRoute>,
    /// The neighbour that this comes to.
    pub link: Option<Hop>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Largest outer packet that the path takes, in bytes, where that was learnt.
    pub path_mtu: Option<u16>,
}

impl Explanation {
    /// Of an address of which nothing is known.
    #[must_use]
    pub fn nothing(table: TableId, address: IpAddr) -> Self {
        Self { table, address, routes: vec![], hops: vec![], fib: vec![], adjacencies: vec![], away: None }
    }

    /// Adds what the data plane has: the entry of its FIB by which it forwards the address, of all that hold it, and of its
    /// adjacencies the one that this takes with all that it stands on or falls back to.
    pub fn add_dataplane(&mut self, fib: Fib, adjacencies: Adjacencies) {
        let holds = |entry: &FibEntry| entry.table == self.table && entry.prefix.contains(self.address);
        let held = fib.0.into_iter().filter(holds);
        let Some(taken) = held.max_by_key(|entry| entry.prefix.length()) else { return };
        let mut wanted = vec![taken.adjacency];
        let mut seen = 0;
        while let Some(&index) = wanted.get(seen) {
            seen += 1;
            let Some(found) = adjacencies.0.iter().find(|adjacency| adjacency.index == index) else {
                continue;
            };
            let below = found.members.iter().copied().chain(found.stacked_on).chain(found.fallback);
            for index in below {
                if !wanted.contains(&index) {
                    wanted.push(index);
                }
            }
            self.adjacencies.push(found.clone());
        }
        self.fib.push(taken);
    }

    /// The route that packets follow.
    #[must_use]
    pub fn chosen(&self) -> Option<&Candidate> {
        self.routes.iter().find(|route| route.chosen)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = self.chosen().and_then(|route| route.path.as_ref()).map(path);
        let way = way.unwrap_or_else(|| "no route".to_owned());
        writeln!(f, "{} in table {}: {way}\n", self.address, self.table.0)?;
        let mut routes = Table::new(["", "Prefix", "Path", "Owner", "Origin", "Why"], "no routes hold it");
        for r in &self.routes {
            routes.row([
                if r.chosen { "*" } else { "" }.to_owned(),
                r.prefix.to_string(),
                r.path.as_ref().map_or_else(|| "unresolved".to_owned(), path),
                owner(r.owner).to_owned(),
                r.origin.clone(),
                r.why.clone(),
            ]);
        }
        routes.fmt(f)?;
        for way in &self.hops {
            write!(f, "\n{way}")?;
        }
        match &self.away {
            Some(reason) => write!(f, "\nData plane\nnot known: {reason}\n")?,
            None => write!(f, "\nData plane\n{}", Fib(self.fib.clone()))?,
        }
        if !self.adjacencies.is_empty() {
            write!(f, "\n{}", Adjacencies(self.adjacencies.clone()))?;
        }
        for unprotected in self.adjacencies.iter().filter(|a| a.kind == AdjacencyKind::Unprotected) {
            let nbma = unprotected.nbma.map_or_else(|| "the peer".to_owned(), |nbma| nbma.to_string());
            let instead = match unprotected.fallback {
                Some(index) => format!("packets take adjacency {index} meanwhile"),
                None => "packets are dropped and their senders told".to_owned(),
            };
            writeln!(f, "There is no SA to {nbma}, and nothing goes there in the clear: {instead}.")?;
        }
        Ok(())
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} on {}: {}", self.hop.next_hop, self.hop.interface, self.why)?;
        if let Some(mac) = self.mac {
            writeln!(f, "   Ethernet address: {mac}")?;
        }
        let Some(peer) = &self.peer else { return Ok(()) };
        if let Some(entry) = &peer.entry {
            let expires = expiry(entry.expires_in);
            writeln!(f, "   NHRP: {} entry, expires {expires}, flags {}", entry.entry_type, entry.flags)?;
        }
        if let Some(nbma) = peer.nbma {
            writeln!(f, "   NBMA address: {nbma}")?;
        }
        if let Some(fallback) = peer.fallback {
            writeln!(f, "   Server meanwhile: {fallback}")?;
        }
        if let Some(RibRoute { route, owner: whose, .. }) = &peer.underlay {
            let (table, whose) = (route.table.0, owner(*whose));
            writeln!(f, "   Underlay: {} {} (table {table}, {whose})", route.prefix, path(&route.path))?;
        }
        if let Some(link) = peer.link {
            let mac = peer.mac.map_or_else(|| "unresolved".to_owned(), |mac| mac.to_string());
            writeln!(f, "   Neighbour: {} on {}, {mac}", link.next_hop, link.interface)?;
        }
        if let Some(mtu) = peer.path_mtu {
            writeln!(f, "   Path MTU: {mtu} bytes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Route;
    use crate::state::nhrp::{EntryFlags, EntryType};

    #[test]
    fn an_explanation_reads_from_the_address_down_to_the_wire() {
        let hop = |interface: &str, next_hop: &str| Hop {
            interface: interface.parse().unwrap(),
            next_hop: next_hop.parse().unwrap(),
        };
        let by = hop("tunnel0", "10.0.0.3");
        let candidate = |prefix: &str, path, chosen, why: &str| Candidate {
            prefix: prefix.parse().unwrap(),
            owner: Owner::Nhrp,
            origin: "shortcut".to_owned(),
            path,
            chosen,
            why: why.to_owned(),
        };
        let entry = Entry {
            tunnel: by.interface,
            prefix: "10.0.0.3/32".parse().unwrap(),
            next_hop: "10.0.0.3".parse().unwrap(),
            entry_type: EntryType::Cached,
            flags: EntryFlags::default(),
            nbma: None,
            claimed_nbma: None,
            created: std::time::Duration::ZERO,
            expires_in: Some(std::time::Duration::from_secs(61)),
            mtu: 0,
        };
        let route = Route {
            table: TableId(0),
            prefix: "192.0.2.0/24".parse().unwrap(),
            path: Path::Attached("wan0".parse().unwrap()),
            expires_in: None,
        };
        let peer = Peer {
            entry: Some(entry),
            nbma: Some("192.0.2.3".parse().unwrap()),
            fallback: None,
            underlay: Some(RibRoute { route, owner: Owner::Config, best: true }),
            link: Some(hop("wan0", "192.0.2.3")),
            mac: None,
            path_mtu: Some(1300),
        };
        let explanation = Explanation {
            table: TableId(0),
            address: "192.168.3.9".parse().unwrap(),
            routes: vec![
                candidate("192.168.3.0/24", Some(Path::Via(by)), true, "the longest prefix"),
                candidate("0.0.0.0/0", None, false, "it leads nowhere"),
            ],
            hops: vec![Way { hop: by, mac: None, peer: Some(peer), why: "by its binding".to_owned() }],
            fib: vec![],
            adjacencies: vec![],
            away: Some("the data plane is away: no such file".to_owned()),
        };
        assert_eq!(
            explanation.to_string(),
            "192.168.3.9 in table 0: via 10.0.0.3 on tunnel0\n\n\
             \x20  Prefix          Path                     Owner  Origin    Why\n\
             *  192.168.3.0/24  via 10.0.0.3 on tunnel0  nhrp   shortcut  the longest prefix\n\
             \x20  0.0.0.0/0       unresolved               nhrp   shortcut  it leads nowhere\n\n\
             10.0.0.3 on tunnel0: by its binding\n\
             \x20  NHRP: cached entry, expires 00:01:01, flags -\n\
             \x20  NBMA address: 192.0.2.3\n\
             \x20  Underlay: 192.0.2.0/24 attached to wan0 (table 0, config)\n\
             \x20  Neighbour: 192.0.2.3 on wan0, unresolved\n\
             \x20  Path MTU: 1300 bytes\n\n\
             Data plane\n\
             not known: the data plane is away: no such file\n"
        );
        let json = serde_json::to_string(&explanation).unwrap();
        assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explanation);
    }

    #[test]
    fn of_the_data_plane_it_takes_the_longest_match_and_what_that_stands_on() {
        let entry = |table, prefix: &str, adjacency| FibEntry {
            table: TableId(table),
            prefix: prefix.parse().unwrap(),
            path: Path::Blackhole,
            owner: Owner::Config,
            adjacency,
        };
        let adjacency = |index, stacked_on, fallback, members: &[u32]| Adjacency {
            index,
            kind: AdjacencyKind::Drop,
            interface: None,
            next_hop: None,
            nbma: None,
            stacked_on,
            fallback,
            rewrite: vec![],
            expires_in: None,
            stale: false,
            packets: 0,
            bytes: 0,
            mtu: 0,
            members: members.to_vec(),
            multicast: false,
            spis: vec![],
        };
        let fib = vec![
            entry(0, "0.0.0.0/0", 1),
            entry(0, "10.0.0.0/24", 5),
            entry(0, "10.0.0.0/8", 1),
            entry(0, "10.0.0.128/25", 1),
            entry(9, "10.0.0.1/32", 1),
        ];
        // Balanced on two midchains, one of which is not resolved and falls back to the other; both on one neighbour.
        let adjacencies = vec![
            adjacency(1, None, None, &[]),
            adjacency(2, None, None, &[]),
            adjacency(3, Some(2), None, &[]),
            adjacency(4, None, Some(3), &[]),
            adjacency(5, None, None, &[3, 4]),
        ];
        let mut explanation = Explanation::nothing(TableId(0), "10.0.0.1".parse().unwrap());
        explanation.add_dataplane(Fib(fib), Adjacencies(adjacencies));
        assert_eq!(explanation.fib, [entry(0, "10.0.0.0/24", 5)]);
        let indexes: Vec<_> = explanation.adjacencies.iter().map(|adjacency| adjacency.index).collect();
        assert_eq!(indexes, [5, 3, 4, 2]);

        for (fallback, instead) in [
            (Some(7), "packets take adjacency 7 meanwhile"),
            (None, "packets are dropped and their senders told"),
        ] {
            let nbma = Some("192.0.2.9".parse().unwrap());
            let (kind, fallback) = (AdjacencyKind::Unprotected, fallback);
            explanation.adjacencies = vec![Adjacency { kind, nbma, ..adjacency(6, None, fallback, &[]) }];
            let said =
                format!("There is no SA to 192.0.2.9, and nothing goes there in the clear: {instead}.\n");
            assert!(explanation.to_string().ends_with(&said), "{explanation}");
        }

        let mut elsewhere = Explanation::nothing(TableId(1), "10.0.0.1".parse().unwrap());
        elsewhere.add_dataplane(Fib(vec![entry(0, "0.0.0.0/0", 1)]), Adjacencies::default());
        assert_eq!(elsewhere, Explanation::nothing(TableId(1), "10.0.0.1".parse().unwrap()));
    }
}
