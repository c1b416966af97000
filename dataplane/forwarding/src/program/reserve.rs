//! Whether there is room for a batch: before anything is stored.
//!
//! What is there already has its room, and what goes needs none: a full table can be put again, and be emptied.

use std::collections::{BTreeMap, BTreeSet};

use model::InterfaceName;
use model::program::{Hop, Key, Object, Op, Refusal, Refused, Tunnel};

use super::build::{is_on, is_point_to_point, v4};
use super::slots::Target;
use super::{INTERFACES, Program};
use crate::fib::V4Prefix;

/// What a batch needs that is not there.
#[derive(Debug, Default)]
struct Need {
    names: BTreeSet<InterfaceName>,
    targets: BTreeSet<Target>,
    /// Adjacencies of interfaces that have no number yet, and of those that become others.
    more_targets: usize,
    /// The first 24 bits of addresses whose /24 has no group.
    groups: BTreeSet<u32>,
}

impl Program {
    /// Whether there is room for all that the batch needs, counted from above; its steps are noted and not carried out.
    ///
    /// # Errors
    /// The step that finds none.
    pub(super) fn reserve(&self, ops: &[Op]) -> Result<(), Refused> {
        let mut puts = BTreeMap::new();
        for (op, step) in ops.iter().enumerate() {
            if let Op::Put(_, object) = step {
                puts.insert(object.key(), op);
            }
        }
        let last = puts.values().max().copied().unwrap_or(0);
        let (mut need, mut seen) = (Need::default(), BTreeSet::new());
        for (key, _) in self.objects.touched().filter(|(key, _)| seen.insert(*key)) {
            self.note_need(key, &mut need);
            if let Some(what) = self.lacks(&need) {
                // Without a put of its own it is what another step uncovers.
                let op = puts.get(&key).copied().unwrap_or(last);
                return Err(Refused { op, reason: Refusal::Full(what.to_owned()) });
            }
        }
        Ok(())
    }

    fn lacks(&self, need: &Need) -> Option<&'static str> {
        if self.slots.room() < need.targets.len() + need.more_targets {
            return Some("adjacencies");
        }
        if self.fib.free_groups() < need.groups.len() {
            return Some("long prefixes");
        }
        (self.ids.len() + need.names.len() > INTERFACES).then_some("interfaces")
    }

    fn note_need(&self, key: Key, need: &mut Need) {
        if let Key::Route(_, prefix) = key
            && let Ok(prefix) = V4Prefix::try_from(prefix)
        {
            // Whether it comes or goes, next hops in it may come to a host entry.
            let hosts = self.hosts_in(prefix).map(|(addr, _)| addr).filter(|addr| !self.has_group(*addr));
            need.groups.extend(
                hosts.filter(|addr| self.desired(V4Prefix::host(*addr)).is_some()).map(|addr| addr >> 8),
            );
        }
        let Some(object) = self.objects.winner(key) else { return };
        match object {
            Object::Interface(interface) => self.note_name(interface.name, need),
            Object::Tunnel(tunnel) => self.note_tunnel(tunnel, need),
            Object::Neighbour(neighbour) => {
                self.note_hop(neighbour.hop, need);
                self.note_host(neighbour.hop, need);
            }
            Object::Binding(binding) => {
                let hop = Hop { interface: binding.tunnel, next_hop: binding.next_hop.0 };
                self.note_hop(hop, need);
                self.note_host(hop, need);
                binding.link.into_iter().for_each(|link| self.note_hop(link, need));
            }
            Object::Route(route) => {
                self.note_target(self.along(route.path), need);
                if let Ok(prefix) = V4Prefix::try_from(route.prefix)
                    && prefix.length() > 24
                    && !self.has_group(prefix.first())
                {
                    need.groups.insert(prefix.first() >> 8);
                }
            }
            Object::Replica(replica) => {
                let id = self.ids.get(&replica.tunnel);
                self.note_target(id.and_then(|id| Some(Target::Replica(*id, v4(replica.nbma.0)?))), need);
                replica.link.into_iter().for_each(|link| self.note_hop(link, need));
            }
            Object::Fallback(fallback) => {
                self.note_hop(Hop { interface: fallback.tunnel, next_hop: fallback.next_hop.0 }, need);
            }
        }
    }

    fn note_name(&self, name: InterfaceName, need: &mut Need) {
        if !self.ids.contains_key(&name) {
            need.names.insert(name);
        }
    }

    fn note_tunnel(&self, tunnel: &Tunnel, need: &mut Need) {
        self.note_name(tunnel.name, need);
        if is_point_to_point(tunnel) != self.pins.contains_key(&Key::Tunnel(tunnel.name)) {
            // All that leads to next hops on it leads to others.
            let pins = self.pins.keys().filter(|key| is_on(**key, tunnel.name)).count();
            need.more_targets += 1 + pins + self.prefixes_on(tunnel.name).len();
        }
    }

    fn note_hop(&self, hop: Hop, need: &mut Need) {
        self.note_target(self.hop(hop.interface, hop.next_hop), need);
    }

    /// `None`: on an interface without a number.
    fn note_target(&self, target: Option<Target>, need: &mut Need) {
        match target {
            Some(target) if self.slots.id(target).is_some() => {}
            Some(target) => {
                need.targets.insert(target);
            }
            None => need.more_targets += 1,
        }
    }

    /// A next hop on an attached prefix has an entry in the FIB.
    fn note_host(&self, hop: Hop, need: &mut Need) {
        let Some(addr) = v4(hop.next_hop) else { return };
        if !self.has_group(addr) && self.attached_over(addr) == Some(hop.interface) {
            need.groups.insert(addr >> 8);
        }
    }

    fn has_group(&self, addr: u32) -> bool {
        self.fib.has_group(addr.into())
    }
}
