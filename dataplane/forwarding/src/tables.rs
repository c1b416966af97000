//! What a worker looks things up in: one view, refreshed once a breath.
//!
//! All of it but the FIB is published whole and never changes once a worker has it. The FIB's words change in place: a
//! word may be newer than the rest of the view. Then its adjacency's epoch does not match, and the packet is looked at
//! again in the next breath.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::adjacency::{Adjacencies, AdjacencyId};
use crate::fib::Fib;
use crate::ports::{InterfaceId, PortId};

/// The view.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(crate) fib: Arc<Fib>,
    pub(crate) adjacencies: Adjacencies,
    pub(crate) interfaces: Arc<Interfaces>,
    pub(crate) decap: Arc<Decap>,
    pub(crate) nbmas: Arc<Nbmas>,
}

/// The neighbour behind which an NBMA address is, by tunnel and address: of those that a binding or a replica names.
pub(crate) type Nbmas = BTreeMap<(InterfaceId, u32), AdjacencyId>;

/// Interfaces by id and by port.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    /// By id.
    pub(crate) all: Vec<Option<Interface>>,
    /// The interface of each port.
    pub(crate) by_port: Vec<Option<InterfaceId>>,
}

/// What the stages know of an interface.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    /// Its own address, if it has one: the source of what we say about packets that came by it.
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) role: Role,
}

/// Port or tunnel.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    Port(PortInterface),
    Tunnel(TunnelInterface),
}

#[derive(Debug, Clone)]
pub(crate) struct PortInterface {
    pub(crate) port: PortId,
    pub(crate) mac: [u8; 6],
    pub(crate) forwarding: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct TunnelInterface {
    /// Own NBMA address.
    pub(crate) source: Ipv4Addr,
    pub(crate) key: Option<u32>,
    pub(crate) ttl: u8,
    /// Where packets go whose next hop here is not resolved.
    pub(crate) fallback: Option<AdjacencyId>,
    /// Point-to-point: its next hop is not resolved by NHRP.
    pub(crate) point_to_point: bool,
    /// Receivers of multicast.
    pub(crate) replicas: Arc<[AdjacencyId]>,
}

impl Tables {
    #[inline(always)]
    pub(crate) fn interface(&self, id: u16) -> Option<&Interface> {
        self.interfaces.all.get(usize::from(id))?.as_ref()
    }

    pub(crate) fn tunnel(&self, id: u16) -> Option<&TunnelInterface> {
        match &self.interface(id)?.role {
            Role::Tunnel(tunnel) => Some(tunnel),
            Role::Port(_) => None,
        }
    }

    pub(crate) fn port(&self, id: u16) -> Option<&PortInterface> {
        match &self.interface(id)?.role {
            Role::Port(port) => Some(port),
            Role::Tunnel(_) => None,
        }
    }

    /// The interface of a port.
    pub(crate) fn of_port(&self, port: PortId) -> Option<(InterfaceId, &PortInterface)> {
        let id = (*self.interfaces.by_port.get(usize::from(port.0))?)?;
        Some((id, self.port(id.0)?))
    }
}

/// What a GRE packet for us must have to belong to a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DecapKey {
    /// Its destination: our NBMA address.
    pub(crate) local: u32,
    /// Its GRE key.
    pub(crate) key: Option<u32>,
    /// Its source, for a point-to-point tunnel; 0 for a multipoint one, which takes any.
    pub(crate) remote: u32,
}

/// The tunnel that a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecapTunnel {
    pub(crate) interface: InterfaceId,
    /// Its network if it redirects, else 0.
    pub(crate) redirects: u16,
}

/// Tunnels by what their packets have: an open-addressed table, half empty, never changed.
#[derive(Debug, Default)]
pub(crate) struct Decap {
    slots: Vec<Option<(DecapKey, DecapTunnel)>>,
    /// Our NBMA addresses, in a table of the same kind. 0: empty.
    locals: Vec<u32>,
    /// Whether there is a point-to-point tunnel.
    pub(crate) point_to_point: bool,
}

impl Decap {
    pub(crate) fn new(tunnels: &[(DecapKey, DecapTunnel)]) -> Self {
        if tunnels.is_empty() {
            return Self::default();
        }
        let len = (tunnels.len() * 2).next_power_of_two();
        let mut decap = Self { slots: vec![None; len], locals: vec![0; len], point_to_point: false };
        for (key, tunnel) in tunnels {
            decap.point_to_point |= key.remote != 0;
            let mut at = key.hash() & (len - 1);
            while decap.slots[at].is_some() {
                at = (at + 1) & (len - 1);
            }
            decap.slots[at] = Some((*key, *tunnel));
            let mut at = spread(key.local.into()) & (len - 1);
            while decap.locals[at] != 0 && decap.locals[at] != key.local {
                at = (at + 1) & (len - 1);
            }
            decap.locals[at] = key.local;
        }
        decap
    }

    /// Whether GRE to this address is for a tunnel.
    #[inline(always)]
    pub(crate) fn is_local(&self, addr: u32) -> bool {
        let mask = self.locals.len().wrapping_sub(1);
        let mut at = spread(addr.into()) & mask;
        while let Some(local) = self.locals.get(at) {
            if *local == addr || *local == 0 {
                return *local == addr && addr != 0;
            }
            at = (at + 1) & mask;
        }
        false
    }

    /// The tunnel of a packet: the point-to-point one with its source, else the multipoint one.
    pub(crate) fn tunnel(&self, key: DecapKey) -> Option<DecapTunnel> {
        let exact = if self.point_to_point { self.find(key) } else { None };
        exact.or_else(|| self.find(DecapKey { remote: 0, ..key }))
    }

    fn find(&self, key: DecapKey) -> Option<DecapTunnel> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = key.hash() & mask;
        while let Some(Some((found, tunnel))) = self.slots.get(at) {
            if *found == key {
                return Some(*tunnel);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

impl DecapKey {
    fn hash(self) -> usize {
        spread(u64::from(self.local) << 32 | u64::from(self.key.unwrap_or(!0) ^ self.remote.rotate_left(16)))
    }
}

/// A number's bits, spread over a word (Fibonacci hashing).
#[inline(always)]
pub(crate) fn spread(value: u64) -> usize {
    (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_found_by_address_key_and_peer() {
        let key = |local, key, remote| DecapKey { local, key, remote };
        let tunnel = |id| DecapTunnel { interface: InterfaceId(id), redirects: 0 };
        let decap = Decap::new(&[
            (key(1, Some(7), 0), tunnel(1)),
            (key(1, Some(8), 0), tunnel(2)),
            (key(1, None, 0), tunnel(3)),
            (key(1, Some(9), 55), tunnel(4)),
            (key(1, Some(9), 56), tunnel(5)),
            (key(2, Some(7), 0), tunnel(6)),
        ]);
        let of = |local, k, remote| decap.tunnel(key(local, k, remote)).map(|t| t.interface.0);
        assert_eq!((of(1, Some(7), 99), of(1, Some(8), 99), of(1, None, 99)), (Some(1), Some(2), Some(3)));
        assert_eq!((of(1, Some(9), 55), of(1, Some(9), 56), of(1, Some(9), 57)), (Some(4), Some(5), None));
        assert_eq!((of(2, Some(7), 3), of(2, Some(0), 3), of(3, None, 3)), (Some(6), None, None));
        assert!(decap.is_local(1) && decap.is_local(2) && !decap.is_local(3) && !decap.is_local(0));
        let none = Decap::new(&[]);
        assert!(!none.is_local(1) && none.tunnel(key(1, None, 0)).is_none());
    }
}
