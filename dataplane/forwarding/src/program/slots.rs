//! Places for adjacencies: which is whose, how many refer to it, and when it may be used again.

use std::collections::{HashMap, VecDeque};

use crate::adjacency::AdjacencyId;
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
    /// A next hop; on a point-to-point tunnel 0.
    Hop(InterfaceId, u32),
    /// A receiver of multicast, by NBMA address.
    Replica(InterfaceId, u32),
}

impl Target {
    /// Those that are always there, in the order of their slots.
    pub(super) const FIXED: [Self; 5] =
        [Self::NoRoute, Self::Unreachable, Self::Blackhole, Self::Multicast, Self::Martian];

    /// The interface that it is on.
    pub(super) fn interface(self) -> Option<InterfaceId> {
        match self {
            Self::Receive(id) | Self::Glean(id) | Self::Hop(id, _) | Self::Replica(id, _) => Some(id),
            Self::NoRoute | Self::Unreachable | Self::Blackhole | Self::Multicast | Self::Martian => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    id: AdjacencyId,
    references: u32,
}

/// The places.
#[derive(Debug)]
pub(super) struct Slots {
    by_target: HashMap<Target, Slot>,
    /// Most places.
    limit: usize,
    /// What is in each place.
    targets: Vec<Option<Target>>,
    /// Epoch of each place, for its next life.
    epochs: Vec<u8>,
    free: VecDeque<u32>,
    /// Places that workers may still refer to, with the generation after which they do not.
    retired: VecDeque<(u64, u32)>,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        let mut slots = Self {
            by_target: HashMap::new(),
            limit,
            targets: Vec::new(),
            epochs: Vec::new(),
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
        self.limit.saturating_sub(self.targets.len()) + self.free.len()
    }

    /// One more reference to a target; whether it has a new place for that. The caller has made sure that there is room.
    pub(super) fn refer(&mut self, target: Target) -> bool {
        if let Some(slot) = self.by_target.get_mut(&target) {
            slot.references += 1;
            return false;
        }
        let index = self.free.pop_front().unwrap_or_else(|| {
            debug_assert!(self.targets.len() < self.limit, "places were reserved");
            self.targets.push(None);
            self.epochs.push(0);
            (self.targets.len() - 1) as u32
        });
        let at = index as usize;
        self.targets[at] = Some(target);
        self.by_target.insert(target, Slot { id: AdjacencyId::new(index, self.epochs[at]), references: 1 });
        true
    }

    /// One reference less; the place that is nobody's then.
    pub(super) fn release(&mut self, target: Target) -> Option<AdjacencyId> {
        let slot = self.by_target.get_mut(&target)?;
        slot.references -= 1;
        if slot.references > 0 {
            return None;
        }
        let id = slot.id;
        self.by_target.remove(&target);
        self.targets[id.index()] = None;
        self.epochs[id.index()] = id.epoch().wrapping_add(1);
        Some(id)
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
        self.by_target.get(&target).map(|slot| slot.id)
    }

    /// All targets with their places, in order of place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Target, AdjacencyId)> + '_ {
        self.targets.iter().flatten().filter_map(|target| Some((*target, self.id(*target)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_after_its_grace_with_another_epoch() {
        let mut slots = Slots::new(100);
        let hop = |n| Target::Hop(InterfaceId(1), n);
        assert!(slots.refer(hop(1)) && !slots.refer(hop(1)));
        let id = slots.id(hop(1)).unwrap();
        assert_eq!((slots.release(hop(1)), slots.release(hop(1))), (None, Some(id)));
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
