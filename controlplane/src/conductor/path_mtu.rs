//! What the paths through the underlay to peers take, as routers there say ([`Report::PathMtu`]).
//!
//! ```text
//!            less than what is known, or as much
//!          ┌────────────────────────────────────┐
//!          ▼                                    │
//!   (the tunnel's own MTU) ── less ──▶ learnt ──┘
//!          ▲                            │
//!          └── ten minutes, peer gone ──┘
//! ```
//!
//! Such a message can be forged by whoever guesses addresses and key (RFC 5927 §4), so it only ever lowers, not below what every
//! path carries, and for a peer that there is; and it is over by itself, when a larger packet tries again (RFC 1191 §6.3).
//!
//! The objects are owner NHRP's: they come and go with what NHRP learnt of peers, and a control plane that starts anew takes both
//! over from the data plane ([`super::Input::Forwarding`]).
//!
//! [`Report::PathMtu`]: model::report::Report::PathMtu

use std::collections::BTreeMap;
use std::time::Duration;

use model::program::{Key, Object, Owner, PathMtu, Tunnel};
use model::state::event::Happening;
use model::time::{Instant, Timers};
use model::{InterfaceName, NbmaAddr, TableId};

use super::{Conductor, Output};

/// What is known, and until when.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    known: BTreeMap<(InterfaceName, NbmaAddr), u16>,
    ends: Timers<(InterfaceName, NbmaAddr)>,
}

impl PathMtus {
    /// When the first of them ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.ends.next()
    }

    /// Largest outer packet to a peer, in bytes.
    pub(crate) fn of(&self, tunnel: InterfaceName, nbma: NbmaAddr) -> Option<u16> {
        self.known.get(&(tunnel, nbma)).copied()
    }
}

/// How long a word holds: as long as RFC 1191 §6.3 and RFC 8201 §4 recommend.
const HOLDS: Duration = Duration::from_secs(600);
/// Paths that are known at most: a word each for a third of the 50,000 peers of a hub, some 100 bytes each here and there.
const MOST: usize = 16_384;
/// Every IPv4 host takes packets of this size (RFC 791 §3.1); paths that carry no more are not to be believed in.
const LEAST_IPV4: u16 = 576;
/// Every IPv6 link carries packets of this size (RFC 8200 §5).
const LEAST_IPV6: u16 = 1280;

impl Conductor {
    /// A router says that the path to a peer takes no more than `mtu` bytes.
    pub(super) fn learn_path(
        &mut self,
        now: Instant,
        tunnel: InterfaceName,
        nbma: NbmaAddr,
        mtu: u16,
        out: &mut Vec<Output>,
    ) {
        let is_peer = self.underlay_table(tunnel).is_some_and(|t| self.stack.is_peer(t, tunnel, nbma));
        let mtu = mtu.max(if nbma.0.is_ipv4() { LEAST_IPV4 } else { LEAST_IPV6 });
        // What the largest packet of the tunnel fits into says nothing.
        if !is_peer || self.largest_outer(tunnel).is_none_or(|largest| mtu >= largest) {
            return;
        }
        let before = self.path_mtus.of(tunnel, nbma);
        if before.is_some_and(|known| known < mtu) {
            return;
        }
        if before.is_none() && self.path_mtus.known.len() >= MOST {
            self.counted.paths_without_room += 1;
            return;
        }
        self.know_path(now, PathMtu { tunnel, nbma, mtu, expires_in: Some(HOLDS) });
        if before != Some(mtu) {
            out.push(Output::Event(Happening::PathMtu { tunnel, nbma, mtu }));
        }
    }

    /// What a former life learnt: it holds as long as it would have.
    pub(super) fn adopt_paths(&mut self, now: Instant, forwarding: Vec<PathMtu>) {
        let is_there = |path: &PathMtu| self.topology.links.contains_key(&path.tunnel);
        let learnt: Vec<PathMtu> = forwarding.into_iter().filter(is_there).take(MOST).collect();
        for path in learnt {
            let remaining = path.expires_in.map_or(HOLDS, |remaining| remaining.min(HOLDS));
            if !remaining.is_zero() {
                self.know_path(now, PathMtu { expires_in: Some(remaining), ..path });
            }
        }
    }

    fn know_path(&mut self, now: Instant, path: PathMtu) {
        let at = (path.tunnel, path.nbma);
        self.path_mtus.known.insert(at, path.mtu);
        self.path_mtus.ends.set(at, now + path.expires_in.unwrap_or(HOLDS));
        self.desired.put(now, Owner::Nhrp, Object::PathMtu(path));
    }

    /// An object of a tunnel stood there and does not any more: if it was the last of the tunnel, the peer is gone.
    pub(super) fn forget_path(&mut self, key: Key, stood: Option<(TableId, NbmaAddr)>) {
        let (Key::Binding(tunnel, _) | Key::Replica(tunnel, _, _)) = key else { return };
        if let Some((table, nbma)) = stood
            && !self.stack.is_peer(table, tunnel, nbma)
        {
            self.unlearn_path(tunnel, nbma);
        }
    }

    /// Paths of tunnels that are not there any more, or have no source address.
    pub(super) fn forget_paths_of_gone_tunnels(&mut self) {
        let is_gone = |(tunnel, _): &&(InterfaceName, NbmaAddr)| !self.topology.links.contains_key(tunnel);
        let gone: Vec<_> = self.path_mtus.known.keys().filter(is_gone).copied().collect();
        for (tunnel, nbma) in gone {
            self.unlearn_path(tunnel, nbma);
        }
    }

    /// Those whose time is over.
    pub(super) fn expire_paths(&mut self, now: Instant) {
        while let Some((tunnel, nbma)) = self.path_mtus.ends.expire(now) {
            self.unlearn_path(tunnel, nbma);
        }
    }

    fn unlearn_path(&mut self, tunnel: InterfaceName, nbma: NbmaAddr) {
        if self.path_mtus.known.remove(&(tunnel, nbma)).is_some() {
            self.path_mtus.ends.cancel((tunnel, nbma));
            self.desired.remove(Owner::Nhrp, Key::PathMtu(tunnel, nbma));
        }
    }

    /// The outer packet around the largest inner one of a tunnel, in bytes; `None` if the tunnel is not there.
    fn largest_outer(&self, tunnel: InterfaceName) -> Option<u16> {
        let object = self.desired.object(Owner::Config, Key::Tunnel(tunnel))?;
        let Object::Tunnel(Tunnel { source, key, mtu, protection, .. }) = object else { return None };
        let gre = usize::from(*mtu) + if key.is_some() { 8 } else { 4 };
        let is_ipv6 = source.0.is_ipv6();
        let largest = match protection.and_then(|name| self.config.profile(name)) {
            // In UDP, as to a peer behind a NAT.
            Some(profile) => profile.encapsulation(is_ipv6, true).packet_len(gre),
            None => gre + if is_ipv6 { 40 } else { 20 },
        };
        Some(u16::try_from(largest).unwrap_or(u16::MAX))
    }
}
