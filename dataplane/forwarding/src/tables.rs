//! What a worker looks things up in: one view, refreshed once a breath.
//!
//! All of it but the FIB is published whole and never changes once a worker has it. The FIB's words change in place: a
//! word may be newer than the rest of the view. Then its adjacency's epoch does not match, and the packet is looked at
//! again in the next breath.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::adjacency::{Adjacencies, AdjacencyId};
use crate::chunk_map::ChunkMap;
use crate::fib::{Fib, Fib6};
use crate::ports::{InterfaceId, PortId};
use crate::sa::{Lines, UNPROTECTED};

/// The view.
#[derive(Debug, Clone)]
pub struct Tables {
    /// The FIBs of each table, by its place. Tables come and never go.
    pub(crate) fibs: Arc<[Fibs]>,
    pub(crate) adjacencies: Adjacencies,
    pub(crate) interfaces: Arc<Interfaces>,
    pub(crate) decap: Arc<Decap>,
    pub(crate) nbmas: Arc<Nbmas>,
    pub(crate) protections: Arc<Protections>,
    /// The lines of SAs of all workers, in their order.
    pub(crate) lines: Arc<[Arc<Lines>]>,
}

/// The FIBs of one table.
#[derive(Debug, Clone)]
pub(crate) struct Fibs {
    pub(crate) v4: Arc<Fib>,
    pub(crate) v6: Arc<Fib6>,
}

impl Fibs {
    /// The word of the longest prefix that holds `addr`; 0: no route.
    pub(crate) fn lookup(&self, addr: IpAddr) -> u32 {
        match addr {
            IpAddr::V4(addr) => self.v4.lookup(addr),
            IpAddr::V6(addr) => self.v6.lookup(addr),
        }
    }
}

/// A link-local address of a tunnel as the FIB has it: the tunnel's number stands where such an address has zeros (RFC 4291 §2.5.6), so that it
/// is another one on each link.
///
/// ```text
///  127    112 111     96 95             64 63                      0
/// +----------+----------+-----------------+-------------------------+
/// |   fe80   | number+1 |        0        |      interface id       |
/// +----------+----------+-----------------+-------------------------+
/// ```
///
/// All without those zeros are one address, which leads nowhere; what is not link-local stays as it is.
#[inline]
pub(crate) fn on_link(addr: u128, interface: u16) -> u128 {
    if addr >> 118 != 0xfe80 >> 6 {
        addr
    } else if is_on_link(addr) {
        addr | (u128::from(interface) + 1) << LINK_SHIFT
    } else {
        0xfe80 << 112
    }
}

/// Whether an address is in fe80::/64.
#[inline]
pub(crate) fn is_on_link(addr: u128) -> bool {
    addr >> 64 == 0xfe80 << 48
}

/// Where the number of the link stands.
pub(crate) const LINK_SHIFT: u32 = 96;

/// The neighbour behind which an NBMA address is, by tunnel, address and UDP port (0 where the tunnel is not protected): of those that
/// a binding or a replica names.
pub(crate) type Nbmas = ChunkMap<(InterfaceId, IpAddr, u16), AdjacencyId>;

/// The slots of the peers for which something can be sealed, by domain, address and UDP port. Bound or not: who is not yet may be
/// answered.
pub(crate) type Protections = ChunkMap<(u16, IpAddr, u16), u32>;

/// How a packet of the control plane's gets to an NBMA address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// The neighbour; `None`: the outer packet is looked up in the underlay's table.
    pub(crate) link: Option<AdjacencyId>,
    /// The slot of the peer's outbound SA; [`UNPROTECTED`]: it has none. On a tunnel with a domain there is no way then.
    pub(crate) protection: u32,
}

/// Interfaces by id and by port.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    /// By id.
    pub(crate) all: Vec<Option<Interface>>,
    /// The interface of each port's packets without a tag.
    pub(crate) by_port: Vec<Option<InterfaceId>>,
    /// Of those with one, by port and VLAN.
    pub(crate) by_vlan: BTreeMap<(PortId, u16), InterfaceId>,
}

/// What the stages know of an interface.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    /// Its own address, if it has one: the source of what we say about packets that came by it.
    pub(crate) address: Option<Ipv4Addr>,
    /// The same for IPv6: one that reaches farther than the link, if it has one.
    pub(crate) address6: Option<Ipv6Addr>,
    /// Place of its FIB table; of a tunnel that of inner packets.
    pub(crate) table: u16,
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
    /// Its VLAN; 0: packets without a tag.
    pub(crate) vlan: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct TunnelInterface {
    /// Own NBMA address.
    pub(crate) source: IpAddr,
    /// Place of the FIB table of outer packets.
    pub(crate) underlay: u16,
    pub(crate) key: Option<u32>,
    pub(crate) ttl: u8,
    /// Where packets go whose next hop here is not resolved.
    pub(crate) fallback: Option<AdjacencyId>,
    /// Point-to-point: its next hop is not resolved by NHRP.
    pub(crate) point_to_point: bool,
    /// Receivers of multicast.
    pub(crate) replicas: Arc<[AdjacencyId]>,
    /// As of [`DecapTunnel::domain`].
    pub(crate) domain: u16,
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

    /// How a tunnel's packets get to an NBMA address and UDP port.
    pub(crate) fn way(&self, id: InterfaceId, tunnel: &TunnelInterface, nbma: IpAddr, port: u16) -> Way {
        let port = if tunnel.domain == 0 { 0 } else { port };
        let protection = self.protections.get(&(tunnel.domain, nbma, port));
        Way { link: self.nbmas.get(&(id, nbma, port)), protection: protection.unwrap_or(UNPROTECTED) }
    }

    /// Whether a binding or a replica of a tunnel names an NBMA address.
    pub(crate) fn is_peer(&self, tunnel: InterfaceId, nbma: IpAddr) -> bool {
        let first = self.nbmas.first_from(&(tunnel, nbma, 0));
        first.is_some_and(|(on, addr, _)| (on, addr) == (tunnel, nbma))
    }

    /// The interface of a port's packets without a tag.
    pub(crate) fn of_port(&self, port: PortId) -> Option<(InterfaceId, &PortInterface)> {
        let id = (*self.interfaces.by_port.get(usize::from(port.0))?)?;
        Some((id, self.port(id.0)?))
    }

    /// The interface of a VLAN of a port.
    pub(crate) fn of_vlan(&self, port: PortId, vlan: u16) -> Option<(InterfaceId, &PortInterface)> {
        let id = *self.interfaces.by_vlan.get(&(port, vlan))?;
        Some((id, self.port(id.0)?))
    }
}

/// What a GRE packet for us must have to belong to a tunnel. `A`: an address of either family, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DecapKey<A> {
    /// Its destination: our NBMA address.
    pub(crate) local: A,
    /// Its source, for a point-to-point tunnel; 0 for a multipoint one, which takes any.
    pub(crate) remote: A,
    /// Its GRE key.
    pub(crate) key: Option<u32>,
    /// The FIB table of the port that it came by.
    pub(crate) table: u16,
}

/// The tunnel that a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecapTunnel {
    pub(crate) interface: InterfaceId,
    /// Its network if it redirects, else 0.
    pub(crate) redirects: u16,
    /// Place of the FIB table of its inner packets.
    pub(crate) table: u16,
    /// Most that TCP SYNs out of it may ask for, over IPv6 20 less; 0: whatever they want.
    pub(crate) mss: u16,
    /// What its packets must be protected by: the number of its profile, underlay table and own address; 0: nothing protects it.
    pub(crate) domain: u16,
}

/// Tunnels by what their packets have.
#[derive(Debug, Default)]
pub(crate) struct Decap {
    pub(crate) v4: DecapTable<u32>,
    pub(crate) v6: DecapTable<u128>,
}

/// An address as a number, to be found in a table.
pub(crate) trait Address: Copy + Eq + Default {
    /// Its bits, mixed into 64.
    fn mixed(self) -> u64;
}

impl Address for u32 {
    #[inline(always)]
    fn mixed(self) -> u64 {
        self.into()
    }
}

impl Address for u128 {
    #[inline(always)]
    fn mixed(self) -> u64 {
        (self >> 64) as u64 ^ (self as u64).rotate_left(29)
    }
}

/// Tunnels over one family: an open-addressed table, half empty, never changed.
#[derive(Debug)]
pub(crate) struct DecapTable<A> {
    slots: Vec<Option<(DecapKey<A>, DecapTunnel)>>,
    /// Our NBMA addresses with their tables, in a table of the same kind, and whether a tunnel there is protected.
    locals: Vec<Option<(A, u16, bool)>>,
    /// Whether there is a point-to-point tunnel.
    pub(crate) point_to_point: bool,
    /// Whether any tunnel is protected.
    pub(crate) protects: bool,
}

impl<A> Default for DecapTable<A> {
    fn default() -> Self {
        Self { slots: Vec::new(), locals: Vec::new(), point_to_point: false, protects: false }
    }
}

impl<A: Address> DecapTable<A> {
    pub(crate) fn new(tunnels: &[(DecapKey<A>, DecapTunnel)]) -> Self {
        if tunnels.is_empty() {
            return Self::default();
        }
        let len = (tunnels.len() * 2).next_power_of_two();
        let mut decap = Self { slots: vec![None; len], locals: vec![None; len], ..Self::default() };
        for (key, tunnel) in tunnels {
            let protected = tunnel.domain != 0;
            decap.point_to_point |= key.remote != A::default();
            decap.protects |= protected;
            let mut at = key.hash() & (len - 1);
            while decap.slots[at].is_some() {
                at = (at + 1) & (len - 1);
            }
            decap.slots[at] = Some((*key, *tunnel));
            let mut at = spread(key.local.mixed()) & (len - 1);
            let mut others = false;
            while let Some((local, table, protects)) = decap.locals[at] {
                if (local, table) == (key.local, key.table) {
                    others = protects;
                    break;
                }
                at = (at + 1) & (len - 1);
            }
            decap.locals[at] = Some((key.local, key.table, others | protected));
        }
        decap
    }

    /// Whether GRE to this address, come by this FIB table, is for a tunnel.
    pub(crate) fn is_local(&self, addr: A, table: u16) -> bool {
        self.local(addr, table).is_some()
    }

    /// Whether ESP to this address, come by this FIB table, is for a tunnel.
    pub(crate) fn is_protected(&self, addr: A, table: u16) -> bool {
        self.protects && self.local(addr, table) == Some(true)
    }

    /// Whether a tunnel with this address is protected; `None` if no tunnel has it.
    fn local(&self, addr: A, table: u16) -> Option<bool> {
        let mask = self.locals.len().wrapping_sub(1);
        let mut at = spread(addr.mixed()) & mask;
        while let Some(Some((local, of, protected))) = self.locals.get(at) {
            if (*local, *of) == (addr, table) {
                return Some(*protected);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// The tunnel of a packet: the point-to-point one with its source, else the multipoint one.
    pub(crate) fn tunnel(&self, key: DecapKey<A>) -> Option<DecapTunnel> {
        let exact = if self.point_to_point { self.find(key) } else { None };
        exact.or_else(|| self.find(DecapKey { remote: A::default(), ..key }))
    }

    fn find(&self, key: DecapKey<A>) -> Option<DecapTunnel> {
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

impl<A: Address> DecapKey<A> {
    fn hash(self) -> usize {
        let key = u64::from(self.key.unwrap_or(!0)) << 16 ^ u64::from(self.table);
        spread(self.local.mixed().rotate_left(32) ^ key ^ self.remote.mixed().rotate_left(16))
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

    fn found<A: Address + std::fmt::Debug>(address: impl Fn(u8) -> A) {
        let key = |local, key, remote, table| DecapKey {
            local: address(local),
            key,
            remote: if remote == 0 { A::default() } else { address(remote) },
            table,
        };
        let tunnel =
            |id| DecapTunnel { interface: InterfaceId(id), redirects: 0, table: 0, mss: 0, domain: 0 };
        let decap = DecapTable::new(&[
            (key(1, Some(7), 0, 0), tunnel(1)),
            (key(1, Some(8), 0, 0), tunnel(2)),
            (key(1, None, 0, 0), tunnel(3)),
            (key(1, Some(9), 55, 0), tunnel(4)),
            (key(1, Some(9), 56, 0), tunnel(5)),
            (key(2, Some(7), 0, 0), tunnel(6)),
            (key(1, Some(7), 0, 3), tunnel(7)),
        ]);
        let of = |local, k, remote, table| {
            decap.tunnel(key(local, k, remote, table)).map(|tunnel| tunnel.interface.0)
        };
        assert_eq!(
            [of(1, Some(7), 99, 0), of(1, Some(8), 99, 0), of(1, None, 99, 0)],
            [Some(1), Some(2), Some(3)]
        );
        assert_eq!(
            [of(1, Some(9), 55, 0), of(1, Some(9), 56, 0), of(1, Some(9), 57, 0)],
            [Some(4), Some(5), None]
        );
        assert_eq!([of(2, Some(7), 3, 0), of(2, Some(0), 3, 0), of(3, None, 3, 0)], [Some(6), None, None]);
        assert_eq!(
            [of(1, Some(7), 99, 3), of(1, Some(8), 99, 3), of(2, Some(7), 99, 3)],
            [Some(7), None, None]
        );
        let guarded = |id| DecapTunnel { domain: 5, ..tunnel(id) };
        let mixed = DecapTable::new(&[
            (key(1, Some(7), 0, 0), guarded(1)),
            (key(1, Some(8), 0, 0), tunnel(2)),
            (key(1, Some(7), 0, 1), tunnel(3)),
        ]);
        let protected = |local, table| mixed.is_protected(address(local), table);
        assert_eq!([protected(1, 0), protected(1, 1), protected(2, 0)], [true, false, false]);
        assert!(!decap.is_protected(address(1), 0));
        let locals = [(1, 0), (2, 0), (1, 3), (3, 0), (2, 3)];
        let is_local = locals.map(|(local, table)| decap.is_local(address(local), table));
        assert_eq!(is_local, [true, true, true, false, false]);
        let none = DecapTable::<A>::new(&[]);
        assert!(!none.is_local(address(1), 0) && none.tunnel(key(1, None, 0, 0)).is_none());
    }

    #[test]
    fn tunnels_are_found_by_address_key_peer_and_table() {
        found(|n| u32::from(n) << 24 | 0x0a01);
        found(|n| u128::from(n) << 120 | 0xfd);
    }
}
