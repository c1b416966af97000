//! What an object keeps in its place, used or not.

use std::collections::HashMap;
use std::net::IpAddr;

use model::program::Key;
use model::{InterfaceName, NbmaAddr, ProtocolAddr};

use super::slots::PEER;
use crate::adjacency::AdjacencyId;
use crate::ports::InterfaceId;

/// An object that keeps an adjacency: its key with the number of its interface in place of the name. There is one for each spoke, and a key takes
/// nearly three times as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pin {
    kind: Kind,
    on: InterfaceId,
    address: IpAddr,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Neighbour,
    Binding,
    Replica,
    Fallback,
    /// The peer of a point-to-point tunnel.
    Peer,
}

impl Pin {
    /// Of an object; `numbers` knows the numbers of interfaces and tunnels. `None`: one of this kind keeps nothing, or there is no such
    /// interface.
    pub(super) fn of(key: Key, numbers: impl FnOnce(InterfaceName) -> Option<InterfaceId>) -> Option<Self> {
        let (kind, name, address, port) = match key {
            Key::Neighbour(hop) => (Kind::Neighbour, hop.interface, hop.next_hop, 0),
            Key::Binding(tunnel, next_hop) => (Kind::Binding, tunnel, next_hop.0, 0),
            Key::Replica(tunnel, NbmaAddr(nbma), port) => (Kind::Replica, tunnel, nbma, port),
            Key::Fallback(tunnel) => (Kind::Fallback, tunnel, PEER, 0),
            Key::Tunnel(tunnel) => (Kind::Peer, tunnel, PEER, 0),
            Key::Interface(_)
            | Key::Route(..)
            | Key::PathMtu(..)
            | Key::InboundSa(_)
            | Key::OutboundSa(..) => {
                return None;
            }
        };
        Some(Self { kind, on: numbers(name)?, address, port })
    }
}

/// The pins, each with its place.
#[derive(Debug, Default)]
pub(super) struct Pins(HashMap<Pin, AdjacencyId>);

impl Pins {
    pub(super) fn get(&self, pin: Pin) -> Option<AdjacencyId> {
        self.0.get(&pin).copied()
    }

    /// Notes what an object keeps, or that it keeps nothing.
    pub(super) fn set(&mut self, pin: Pin, id: Option<AdjacencyId>) {
        match id {
            Some(id) => self.0.insert(pin, id),
            None => self.0.remove(&pin),
        };
    }

    /// The keys of a tunnel's bindings and fall-back that keep something.
    pub(super) fn of_peers(&self, tunnel: InterfaceName, on: InterfaceId) -> impl Iterator<Item = Key> + '_ {
        let on_it = self.0.keys().filter(move |pin| pin.on == on);
        on_it.filter_map(move |pin| match pin.kind {
            Kind::Binding => Some(Key::Binding(tunnel, ProtocolAddr(pin.address))),
            Kind::Fallback => Some(Key::Fallback(tunnel)),
            Kind::Neighbour | Kind::Replica | Kind::Peer => None,
        })
    }
}
