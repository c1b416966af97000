//! What a tunnel's adjacencies are stacked on, and where they send: by place, since there are as many as spokes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::adjacency::AdjacencyId;
use crate::ports::InterfaceId;

/// Of the adjacency in a place.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Place of the neighbour that it is stacked on. (The first place is that of no route.)
    link: Option<NonZeroU32>,
    /// NBMA address, and UDP port; of what is not protected 0.
    to: Option<(IpAddr, u16)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// By place, as far as any has one.
    of: Vec<Way>,
    /// Places of neighbours, with those that are stacked on them.
    stacked: BTreeSet<(u32, u32)>,
    /// Tunnel, NBMA address and port, with the places that send there.
    to: BTreeSet<(InterfaceId, IpAddr, u16, u32)>,
}

impl Ways {
    fn of(&self, id: AdjacencyId) -> Way {
        self.of.get(id.index()).copied().unwrap_or_default()
    }

    fn of_mut(&mut self, id: AdjacencyId) -> &mut Way {
        let index = id.index();
        if index >= self.of.len() {
            self.of.resize(index + 1, Way::default());
        }
        &mut self.of[index]
    }

    /// The place of the neighbour that an adjacency is stacked on.
    pub(super) fn link(&self, id: AdjacencyId) -> Option<usize> {
        self.of(id).link.map(|link| link.get() as usize)
    }

    /// Stacks an adjacency on a neighbour, or on nothing.
    pub(super) fn stack(&mut self, id: AdjacencyId, link: Option<AdjacencyId>) {
        let (place, link) = (id.index() as u32, link.and_then(|link| NonZeroU32::new(link.index() as u32)));
        if let Some(old) = std::mem::replace(&mut self.of_mut(id).link, link) {
            self.stacked.remove(&(old.get(), place));
        }
        self.stacked.extend(link.map(|link| (link.get(), place)));
    }

    /// The places of what is stacked on a neighbour.
    pub(super) fn stacked_on(&self, link: AdjacencyId) -> impl Iterator<Item = usize> + '_ {
        let link = link.index() as u32;
        self.stacked.range((link, 0)..=(link, u32::MAX)).map(|(_, place)| *place as usize)
    }

    /// NBMA address and UDP port that an adjacency sends to.
    pub(super) fn to(&self, id: AdjacencyId) -> Option<(IpAddr, u16)> {
        self.of(id).to
    }

    /// Notes where an adjacency of a tunnel sends.
    pub(super) fn send(&mut self, id: AdjacencyId, tunnel: InterfaceId, to: Option<(IpAddr, u16)>) {
        let place = id.index() as u32;
        if let Some((nbma, port)) = std::mem::replace(&mut self.of_mut(id).to, to) {
            self.to.remove(&(tunnel, nbma, port, place));
        }
        self.to.extend(to.map(|(nbma, port)| (tunnel, nbma, port, place)));
    }

    /// The places of what a tunnel sends to an NBMA address; to one UDP port or to any.
    pub(super) fn all_to(
        &self,
        tunnel: InterfaceId,
        nbma: IpAddr,
        port: Option<u16>,
    ) -> impl Iterator<Item = usize> + '_ {
        let (first, last) = (port.unwrap_or(0), port.unwrap_or(u16::MAX));
        let all = self.to.range((tunnel, nbma, first, 0)..=(tunnel, nbma, last, u32::MAX));
        all.map(|(.., place)| *place as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: two adjacencies to one address, on different ports and neighbours; one moves, one goes. Output: what is stacked and who sends
    /// where is as it was last said, and nothing is left of what was before.
    #[test]
    fn what_is_stacked_and_sent_is_as_it_was_said_last() {
        let id = |index| AdjacencyId::new(index, 3);
        let (tunnel, nbma): (_, IpAddr) = (InterfaceId(7), [198, 51, 100, 1].into());
        let mut ways = Ways::default();
        let all = |ways: &Ways, port| ways.all_to(tunnel, nbma, port).collect::<Vec<_>>();
        for (place, port, link) in [(9, 0, 5), (12, 4500, 6)] {
            ways.send(id(place), tunnel, Some((nbma, port)));
            ways.stack(id(place), Some(id(link)));
        }
        assert_eq!(
            (all(&ways, None), all(&ways, Some(4500)), all(&ways, Some(1))),
            (vec![9, 12], vec![12], vec![])
        );
        assert_eq!(
            (ways.link(id(9)), ways.to(id(12)), ways.link(id(3))),
            (Some(5), Some((nbma, 4500)), None)
        );
        ways.stack(id(9), Some(id(6)));
        assert_eq!(
            (ways.stacked_on(id(5)).count(), ways.stacked_on(id(6)).collect::<Vec<_>>()),
            (0, vec![9, 12])
        );
        ways.send(id(9), tunnel, None);
        ways.stack(id(9), None);
        assert_eq!((all(&ways, None), ways.stacked_on(id(6)).collect::<Vec<_>>()), (vec![12], vec![12]));
        assert_eq!((ways.to(id(9)), ways.link(id(9))), (None, None));
    }
}
