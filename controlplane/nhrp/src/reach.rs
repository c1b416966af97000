//! Peers of a tunnel that has host addresses only, as FRR's examples number their tunnels (10.255.255.1/32): no prefix of the tunnel
//! holds the peers, so each that is bound has a host route of its own. Static routes by a peer count while it is there, and so
//! traffic leaves a server that fell silent.

use std::net::IpAddr;

use model::program::{Key, Object, Path, Route};
use model::{Prefix, ProtocolAddr};

use crate::To;
use crate::cache::{Entry, Origin};
use crate::cloud::Cloud;
use crate::turn::Turn;

impl Cloud {
    /// Whether the tunnel has addresses of this family, and no prefix that may hold others. What is link-local is on the link, and holds
    /// nothing else.
    pub(crate) fn is_off_link(&self, address: IpAddr) -> bool {
        if ProtocolAddr(address).is_link_local() {
            return false;
        }
        let is_like = |own: IpAddr| own.is_ipv4() == address.is_ipv4() && !ProtocolAddr(own).is_link_local();
        let mut own = self.tunnel.addresses.iter().filter(|own| is_like(own.addr())).peekable();
        self.is_multipoint() && own.peek().is_some() && own.all(|own| own.prefix().is_host())
    }

    /// A peer has this binding now: it is reached through the tunnel. A server not while it is silent, or others are used in its place.
    pub(crate) fn reach(&mut self, turn: &mut Turn<'_>, peer: ProtocolAddr, entry: &Entry) {
        if !self.is_off_link(peer.0) {
            return;
        }
        let is_unused = entry.origin == Origin::Nhs && !self.uses_server(peer);
        if is_unused || self.is_somebody_elses(turn, peer) {
            return self.lose_reach(turn, peer);
        }
        self.reached.insert(peer);
        turn.put(Object::Route(Route {
            table: self.tunnel.table,
            prefix: Prefix::host(peer.0),
            path: Path::Attached(self.name()),
            expires_in: entry.expires.map(|at| at.since(turn.now)),
        }));
    }

    /// A server is used now, or not any more.
    pub(crate) fn reach_server(&mut self, turn: &mut Turn<'_>, server: ProtocolAddr) {
        if let Some(entry) = self.cache.get(&server).cloned() {
            self.reach(turn, server, &entry);
        }
    }

    /// A peer has no binding any more.
    pub(crate) fn lose_reach(&mut self, turn: &mut Turn<'_>, peer: ProtocolAddr) {
        if self.reached.remove(&peer) {
            turn.remove(Key::Route(self.tunnel.table, Prefix::host(peer.0)));
        }
    }

    /// Whether an address is reached otherwise than through a tunnel: what a client says of itself shall not take a LAN's host away.
    fn is_somebody_elses(&self, turn: &Turn<'_>, peer: ProtocolAddr) -> bool {
        let found = turn.routes.lookup(self.tunnel.table, peer);
        found.is_some_and(|found| match found.to {
            To::Local => true,
            To::Elsewhere(_) => !found.prefix.is_default(),
            To::Tunnel(_) | To::Nowhere => false,
        })
    }
}
