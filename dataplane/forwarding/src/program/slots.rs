//! Places for adjacencies: which is whose, how many refer to it, and when it may be used again.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use super::paths::PathId;
use crate::adjacency::AdjacencyId;
use crate::counters::Traffic;
use crate::ports::InterfaceId;

/// What a route, a binding or a copy of multicast leads to: the name of an adjacency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// No route: the FIB's own zero.
    NoRoute,
    Unreachable,
    Blackhole,
    Multicast,
    Martian,
    /// An own address, of this interface.
    Receive(InterfaceId),
    /// An attached prefix.
    Glean(InterfaceId),
    /// A next hop; on a point-to-point tunnel [`PEER`].
    Hop(InterfaceId, IpAddr),
    /// A receiver of multicast, by NBMA address and UDP port.
    Replica(InterfaceId, IpAddr, u16),
    /// The next hops of a path, flow by flow.
    Balanced(PathId),
}

/// The next hop on every point-to-point tunnel, of whatever family.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Target {
    /// Those that are always there, in the order of their slots.
    pub(super) const FIXED: [Self; 5] =
        [Self::NoRoute, Self::Unreachable, Self::Blackhole, Self::Multicast, Self::Martian];

    /// The interface that it is on.
    pub(super) fn interface(self) -> Option<InterfaceId> {
        match self {
            Self::Receive(id) | Self::Glean(id) | Self::Hop(id, _) | Self::Replica(id, ..) => Some(id),
            Self::NoRoute
            | Self::Unreachable
            | Self::Blackhole
            | Self::Multicast
            | Self::Martian
            | Self::Balanced(_) => None,
        }
    }
}

/// A place.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// What is in it.
    target: Option<Target>,
    references: u32,
    /// Its epoch; while it is free that of its next life.
    epoch: u8,
    /// What had been carried by it when this life began, and packets in this life when that was last asked about.
    before: Traffic,
    asked: u64,
}

/// The places.
#[derive(Debug)]
pub(super) struct Slots {
    by_target: HashMap<Target, AdjacencyId>,
    /// Most places.
    limit: usize,
    all: Vec<Slot>,
    free: VecDeque<u32>,
    /// Places that workers may still refer to, with the generation after which they do not.
    retired: VecDeque<(u64, u32)>,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        let mut slots = Self {
            by_target: HashMap::new(),
            limit,
            all: Vec::new(),
            free: VecDeque::new(),
            retired: VecDeque::new(),
        };
        for target in Target::FIXED {
            slots.refer(target);
        }
        slots
    }

    /// Places that can be given now.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.all.len()) + self.free.len()
    }

    /// One more reference to a target; its place, and whether that is new. The caller has made sure that there is room.
    pub(super) fn refer(&mut self, target: Target) -> (AdjacencyId, bool) {
        if let Some(id) = self.by_target.get(&target) {
            self.all[id.index()].references += 1;
            return (*id, false);
        }
        let index = self.free.pop_front().unwrap_or_else(|| {
            debug_assert!(self.all.len() < self.limit, "places were reserved");
            self.all.push(Slot {
                target: None,
                references: 0,
                epoch: 0,
                before: Traffic::default(),
                asked: 0,
            });
            (self.all.len() - 1) as u32
        });
        let slot = &mut self.all[index as usize];
        (slot.target, slot.references) = (Some(target), 1);
        let id = AdjacencyId::new(index, slot.epoch);
        self.by_target.insert(target, id);
        (id, true)
    }

    /// Notes what had been carried by a place when its target came.
    pub(super) fn note_before(&mut self, id: AdjacencyId, carried: Traffic) {
        let slot = &mut self.all[id.index()];
        (slot.before, slot.asked) = (carried, 0);
    }

    /// See [`Slots::note_before`].
    pub(super) fn before(&self, id: AdjacencyId) -> Traffic {
        self.all.get(id.index()).map_or_else(Traffic::default, |slot| slot.before)
    }

    /// Notes how many packets a target has carried; whether more than when this was noted last.
    pub(super) fn note_asked(&mut self, id: AdjacencyId, packets: u64) -> bool {
        std::mem::replace(&mut self.all[id.index()].asked, packets) != packets
    }

    /// One more reference to what is in a place.
    pub(super) fn refer_at(&mut self, id: AdjacencyId) {
        self.all[id.index()].references += 1;
    }

    /// One reference less; whether it was the last.
    pub(super) fn release(&mut self, target: Target) -> bool {
        let id = self.by_target.get(&target).copied();
        id.is_some_and(|id| self.release_at(id).is_some())
    }

    /// One reference less to what is in a place; what that is if it was the last.
    pub(super) fn release_at(&mut self, id: AdjacencyId) -> Option<Target> {
        let slot = &mut self.all[id.index()];
        debug_assert!(slot.references > 0 && slot.epoch == id.epoch());
        slot.references = slot.references.saturating_sub(1);
        slot.target.filter(|_| slot.references == 0)
    }

    /// Empties the place of a target that nothing refers to; which that was.
    pub(super) fn empty(&mut self, target: Target) -> Option<AdjacencyId> {
        let id = self.by_target.get(&target).copied()?;
        let slot = &mut self.all[id.index()];
        if slot.references > 0 {
            return None;
        }
        (slot.target, slot.epoch) = (None, id.epoch().wrapping_add(1));
        self.by_target.remove(&target)
    }

    /// The place may be used again when every reader has acknowledged `generation`.
    pub(super) fn retire(&mut self, id: AdjacencyId, generation: u64) {
        self.retired.push_back((generation, id.index() as u32));
    }

    /// Every reader has acknowledged `generation`.
    pub(super) fn reclaim(&mut self, generation: u64) {
        while let Some((_, index)) = self.retired.pop_front_if(|(wanted, _)| *wanted <= generation) {
            self.free.push_back(index);
        }
    }

    pub(super) fn id(&self, target: Target) -> Option<AdjacencyId> {
        self.by_target.get(&target).copied()
    }

    /// What is in a place in this life of it.
    pub(super) fn target(&self, id: AdjacencyId) -> Option<Target> {
        self.all.get(id.index()).filter(|slot| slot.epoch == id.epoch())?.target
    }

    /// How many places there are, in use or not.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The target in a place by its index, and the place.
    pub(super) fn at(&self, index: usize) -> Option<(Target, AdjacencyId)> {
        let slot = self.all.get(index)?;
        Some((slot.target?, AdjacencyId::new(index as u32, slot.epoch)))
    }

    /// All targets with their places, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Target, AdjacencyId)> + '_ {
        (0..self.len()).filter_map(|index| self.at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_after_its_grace_with_another_epoch() {
        let mut slots = Slots::new(100);
        let hop = |n: u32| Target::Hop(InterfaceId(1), Ipv4Addr::from(n).into());
        let (id, new) = slots.refer(hop(1));
        assert!(new && slots.refer(hop(1)) == (id, false));
        slots.refer_at(id);
        assert!(!slots.release(hop(1)) && !slots.release(hop(1)) && slots.empty(hop(1)).is_none());
        assert_eq!(slots.release_at(id), Some(hop(1)));
        assert_eq!((slots.target(id), slots.empty(hop(1)), slots.target(id)), (Some(hop(1)), Some(id), None));
        slots.retire(id, 7);
        slots.reclaim(6);
        slots.refer(hop(2));
        assert_ne!(slots.id(hop(2)).unwrap().index(), id.index());
        slots.reclaim(7);
        slots.refer(hop(1));
        let again = slots.id(hop(1)).unwrap();
        assert_eq!((again.index(), again.epoch()), (id.index(), id.epoch() + 1));
        assert_eq!(slots.iter().count(), Target::FIXED.len() + 2);
    }
}
