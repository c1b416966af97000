//! What IKE says of peers: one that does not answer any more, and one that a NAT gave another place.

use model::{NbmaAddr, ProtocolAddr};

use crate::cache::Entry;
use crate::cloud::Cloud;
use crate::input::Peer;
use crate::nhs::Standing;
use crate::turn::Turn;

/// Whether an entry is of a peer. Where one of the two has no port, nobody else is at the address.
fn is_of(entry: &Entry, peer: Peer) -> bool {
    entry.nbma == peer.nbma && (entry.port == peer.port || entry.port.is_none() || peer.port.is_none())
}

impl Cloud {
    /// A peer is dead: packets for it go by the server, and whoever was told of it hears so.
    pub(crate) fn lose_peer(&mut self, turn: &mut Turn<'_>, peer: Peer) {
        for address in self.known_at(peer) {
            // What the configuration says of it stays.
            if self.cache.get(&address).is_some_and(|entry| entry.origin.is_configured()) {
                self.end_registration(turn, address);
            } else {
                self.forget(turn, address);
            }
        }
        self.heard.retain(|_, heard| heard.nbma != peer.nbma);
        self.lose_servers_at(turn, peer.nbma);
    }

    /// A peer is at another place: all that is known of it moves there.
    pub(crate) fn move_peer(&mut self, turn: &mut Turn<'_>, from: Peer, to: Peer) {
        if from.nbma.0.is_ipv4() != to.nbma.0.is_ipv4() || self.tunnel.nbma == Some(to.nbma) {
            return;
        }
        for address in self.known_at(from) {
            let Some(entry) = self.cache.get(&address).filter(|e| !e.origin.is_configured()) else {
                continue;
            };
            // It still is where it says that it is, behind its NAT.
            let claimed = entry.claimed.or(Some(from.nbma)).filter(|claimed| *claimed != to.nbma);
            let moved = Entry { nbma: to.nbma, port: to.port, claimed, ..entry.clone() };
            self.install(turn, address, moved);
        }
    }

    /// Servers at an address have a new SA with us: what they have of us may name a port that is another's now, and what we sent before
    /// may have been lost.
    pub(crate) fn meet_servers_at(&mut self, turn: &mut Turn<'_>, nbma: NbmaAddr) {
        let met = self.servers.iter().filter(|s| s.at() == Some(nbma) && s.standing != Standing::Waiting);
        for id in met.map(|server| server.id).collect::<Vec<_>>() {
            self.register_anew(turn, id);
        }
    }

    fn known_at(&self, peer: Peer) -> Vec<ProtocolAddr> {
        self.cache.iter().filter(|(_, entry)| is_of(entry, peer)).map(|(address, _)| *address).collect()
    }

    /// Servers at an address do not answer, as IKE says: that is known without asking them three times.
    fn lose_servers_at(&mut self, turn: &mut Turn<'_>, nbma: NbmaAddr) {
        let lost = self.servers.iter().filter(|s| s.at() == Some(nbma) && s.standing != Standing::Waiting);
        for id in lost.map(|server| server.id).collect::<Vec<_>>() {
            self.give_up(turn, id);
        }
    }
}
