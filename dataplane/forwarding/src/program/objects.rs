//! What was said: every object with its owner, as one batch after the other made it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use model::InterfaceName;
use model::WorkerId;
use model::program::{InboundSa, Key, Object, OutboundSa, Owner, Path};
use model::sa::{Protection, Spi};
use model::time::Instant;

use super::family::Family;
use super::paths::{PathId, Paths};
use super::routes::{RouteClaim, RouteClaims, is_stale};
use crate::fib::FibPrefix;

/// Which of the objects go that may not be on a tunnel or interface as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfits {
    /// Those that their owner is about to say anew.
    Stale,
    /// Whosesoever: what they stood on is swept away.
    All,
}

/// What one owner says of one object that is no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) object: Object,
    /// When it goes of itself.
    pub(super) expires: Option<Instant>,
    /// The owner's mark when it was put: older than the owner's mark now, it is stale.
    mark: u32,
}

/// Each owner's mark: how often it began to say everything anew. And how many routes it has, and how many that it said since.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    marks: [u32; Owner::ALL.len()],
    routes: [usize; Owner::ALL.len()],
    fresh: [usize; Owner::ALL.len()],
}

impl Marks {
    pub(super) fn now(&self, owner: Owner) -> u32 {
        self.marks[owner as usize]
    }

    /// A route was put, in place of one of this mark.
    pub(super) fn count_put(&mut self, owner: Owner, old: Option<u32>) {
        self.routes[owner as usize] += usize::from(old.is_none());
        self.fresh[owner as usize] += usize::from(old != Some(self.now(owner)));
    }

    /// A route of this mark was removed.
    pub(super) fn count_removed(&mut self, owner: Owner, old: u32) {
        self.routes[owner as usize] -= 1;
        self.fresh[owner as usize] -= usize::from(old == self.now(owner));
    }
}

/// A claim as it was; `None`: there was none.
type Undo = ((Key, Owner), Option<Box<Claim>>);

/// All claims, with a way back to where a batch began.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// All but routes. In pieces of their own: nodes of a tree that is filled in order are half empty.
    claims: BTreeMap<(Key, Owner), Box<Claim>>,
    /// The SPIs of inbound SAs by the slots that they name.
    inbound: BTreeSet<(u32, Spi)>,
    pub(super) v4: RouteClaims<u32>,
    pub(super) v6: RouteClaims<u128>,
    pub(super) paths: Paths,
    /// Paths that the batch names, with the first step that does, or the first since it looked at them anew.
    known: Vec<(PathId, usize)>,
    marks: Marks,
    /// What the batch changed: the claims as they were.
    undo: Vec<Undo>,
    marks_before: Marks,
}

impl Objects {
    /// One more table for routes.
    pub(super) fn add_table(&mut self) {
        self.v4.add_table();
        self.v6.add_table();
    }

    /// Begins a batch.
    pub(super) fn begin(&mut self) {
        self.marks_before = self.marks;
    }

    /// Takes everything back that the batch did.
    pub(super) fn roll_back(&mut self) {
        for (at, claim) in std::mem::take(&mut self.undo).into_iter().rev() {
            match claim {
                Some(claim) => self.claims.insert(at, claim),
                None => self.claims.remove(&at),
            };
            self.index(at.0);
        }
        self.v4.roll_back(&mut self.paths);
        self.v6.roll_back(&mut self.paths);
        self.marks = self.marks_before;
        self.known.drain(..).for_each(|(id, _)| self.paths.release(id));
    }

    /// What the batch did is done for good.
    pub(super) fn settle(&mut self) {
        self.undo.clear();
        self.v4.settle(&mut self.paths);
        self.v6.settle(&mut self.paths);
        self.known.drain(..).for_each(|(id, _)| self.paths.release(id));
    }

    pub(super) fn is_touched(&self) -> bool {
        !self.undo.is_empty() || self.v4.is_touched() || self.v6.is_touched()
    }

    /// The keys and owners that the batch touched, but routes; each once for every touch, in order.
    pub(super) fn touched(&self) -> impl Iterator<Item = (Key, Owner)> + '_ {
        self.undo.iter().map(|(at, _)| *at)
    }

    /// Makes an object so that is no route.
    pub(super) fn put(&mut self, owner: Owner, object: Object, expires: Option<Instant>) {
        let at = (object.key(), owner);
        let claim = Claim { object, expires, mark: self.marks.now(owner) };
        let old = self.claims.insert(at, Box::new(claim));
        self.index(at.0);
        self.undo.push((at, old));
    }

    /// Notes in which slot an inbound SA is, or that it is gone.
    fn index(&mut self, key: Key) {
        let Key::InboundSa(spi) = key else { return };
        if self.winner(key).is_some() {
            self.inbound.insert((spi.slot(), spi));
        } else {
            self.inbound.remove(&(spi.slot(), spi));
        }
    }

    /// The inbound SAs whose SPIs name a slot; those of all workers.
    pub(super) fn inbound_in(&self, slot: u32) -> impl Iterator<Item = &InboundSa> {
        let all = self.inbound.range((slot, Spi::FIRST)..).take_while(move |(of, _)| *of == slot);
        all.filter_map(|(_, spi)| match self.winner(Key::InboundSa(*spi))? {
            Object::InboundSa(sa) => Some(sa),
            _ => None,
        })
    }

    /// The outbound SAs of a peer, in order of worker.
    pub(super) fn outbound_of(&self, protection: Protection) -> impl Iterator<Item = &OutboundSa> {
        let first = (Key::OutboundSa(protection, WorkerId(0)), Owner::Nhrp);
        let all = self.claims.range(first..).map_while(move |((key, _), claim)| match &claim.object {
            Object::OutboundSa(sa) if sa.protection == protection => Some((*key, sa)),
            _ => None,
        });
        // Of several owners the first counts.
        let mut last = None;
        all.filter(move |(key, _)| last.replace(*key) != Some(*key)).map(|(_, sa)| sa)
    }

    /// The number of a path that a step names. It is referred to until the batch is settled or taken back.
    pub(super) fn know_path(&mut self, path: &Path, op: usize) -> PathId {
        let id = self.paths.refer(path);
        self.known.push((id, op));
        id
    }

    /// The paths that the batch names, with steps that do.
    pub(super) fn known(&self) -> impl Iterator<Item = (PathId, usize)> + '_ {
        self.known.iter().copied()
    }

    /// Makes a route so.
    pub(super) fn put_route(
        &mut self,
        place: u16,
        prefix: model::Prefix,
        owner: Owner,
        path: PathId,
        due: Option<Instant>,
    ) {
        self.paths.refer_again(path);
        match FibPrefix::<u32>::try_from(prefix) {
            Ok(prefix) => self.v4.put(&mut self.marks, (place, prefix, owner), path, due),
            Err(prefix) => {
                if let Ok(prefix) = FibPrefix::<u128>::try_from(prefix) {
                    self.v6.put(&mut self.marks, (place, prefix, owner), path, due);
                }
            }
        }
    }

    /// Removes an object that is no route.
    pub(super) fn remove(&mut self, owner: Owner, key: Key) {
        if let Some(old) = self.claims.remove(&(key, owner)) {
            self.undo.push(((key, owner), Some(old)));
            self.index(key);
        }
    }

    pub(super) fn remove_route(&mut self, place: u16, prefix: model::Prefix, owner: Owner) {
        match FibPrefix::<u32>::try_from(prefix) {
            Ok(prefix) => self.v4.remove(&mut self.marks, place, prefix, owner),
            Err(prefix) => {
                if let Ok(prefix) = FibPrefix::<u128>::try_from(prefix) {
                    self.v6.remove(&mut self.marks, place, prefix, owner);
                }
            }
        }
    }

    /// Marks all of an owner's objects as stale.
    pub(super) fn mark(&mut self, owner: Owner) {
        self.marks.marks[owner as usize] += 1;
        self.marks.fresh[owner as usize] = 0;
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The keys of an owner's stale objects, but routes.
    pub(super) fn stale(&self, owner: Owner) -> Vec<Key> {
        let stale = self.claims.iter().filter(|((_, of), claim)| *of == owner && self.is_stale(*of, claim));
        stale.map(|((key, _), _)| *key).collect()
    }

    pub(super) fn is_stale(&self, owner: Owner, claim: &Claim) -> bool {
        claim.mark < self.marks.now(owner)
    }

    /// Removes an owner's stale routes.
    pub(super) fn sweep_routes(&mut self, owner: Owner) {
        let Marks { routes, fresh, .. } = &self.marks;
        if routes[owner as usize] == fresh[owner as usize] {
            return;
        }
        let is_gone = |marks: &Marks, _, of, claim| of == owner && is_stale(marks, of, claim);
        self.v4.remove_if(&mut self.marks, is_gone);
        self.v6.remove_if(&mut self.marks, is_gone);
    }

    /// Removes everybody's routes that name an interface or tunnel.
    pub(super) fn remove_routes_on(&mut self, name: InterfaceName) {
        let on_it = self.paths_naming(name);
        if on_it.is_empty() {
            return;
        }
        self.v4.remove_if(&mut self.marks, |_, _, _, claim| on_it.contains(&claim.path));
        self.v6.remove_if(&mut self.marks, |_, _, _, claim| on_it.contains(&claim.path));
    }

    /// Removes the routes of these tables, families and paths, all or those that are stale; whether none is left.
    pub(super) fn remove_routes_by(&mut self, by: &HashSet<(u16, bool, PathId)>, which: Misfits) -> bool {
        if by.is_empty() {
            return true;
        }
        let is = |v4| {
            move |marks: &Marks, place, owner, claim: RouteClaim| {
                let goes = which == Misfits::All || is_stale(marks, owner, claim);
                by.contains(&(place, v4, claim.path)) && goes
            }
        };
        self.v4.remove_if(&mut self.marks, is(true));
        self.v6.remove_if(&mut self.marks, is(false));
        self.routed().all(|at| !by.contains(&at))
    }

    /// The paths that name an interface or tunnel. Those of routes that the batch removes are among them.
    pub(super) fn paths_naming(&self, name: InterfaceName) -> HashSet<PathId> {
        self.paths.naming(name).map(|(id, _)| id).collect()
    }

    /// The paths by which routes name an interface or tunnel, with the places of their tables, and whether they are of IPv4.
    pub(super) fn routed_on(&self, name: InterfaceName) -> HashSet<(u16, bool, PathId)> {
        let on_it = self.paths_naming(name);
        if on_it.is_empty() {
            return HashSet::new();
        }
        self.routed().filter(|(.., path)| on_it.contains(path)).collect()
    }

    /// Of every route: the place of its table, whether it is of IPv4, its path.
    fn routed(&self) -> impl Iterator<Item = (u16, bool, PathId)> + '_ {
        let v4 = self.v4.all().map(|(place, .., claim)| (place, true, claim.path));
        v4.chain(self.v6.all().map(|(place, .., claim)| (place, false, claim.path)))
    }

    /// The path that counts for a route.
    pub(super) fn route<A: Family>(&self, place: u16, prefix: FibPrefix<A>) -> Option<PathId> {
        A::routes(self).winner(&self.paths, place, prefix)
    }

    /// What owners say of an object that is no route, in their order.
    pub(super) fn claims(&self, key: Key) -> impl Iterator<Item = (Owner, &Claim)> {
        self.claims
            .range((key, Owner::Nhrp)..=(key, Owner::Netlink))
            .map(|((_, owner), claim)| (*owner, &**claim))
    }

    /// The claim that counts, of an object that is no route: the first owner's.
    pub(super) fn winner(&self, key: Key) -> Option<&Object> {
        self.claims(key).next().map(|(_, claim)| &claim.object)
    }

    /// All claims but of routes, in order of key and owner.
    pub(super) fn all(&self) -> impl Iterator<Item = (Owner, &Claim)> {
        self.claims.iter().map(|((_, owner), claim)| (*owner, &**claim))
    }

    /// All claims but of routes, from a key on.
    pub(super) fn from(&self, key: Key) -> impl Iterator<Item = (Key, &Claim)> {
        self.claims.range((key, Owner::Nhrp)..).map(|((key, _), claim)| (*key, &**claim))
    }
}

/// The interfaces and tunnels that an object names beside its own.
pub(super) fn names(object: &Object) -> [Option<InterfaceName>; 2] {
    match object {
        Object::Interface(_) | Object::Route(_) | Object::InboundSa(_) | Object::OutboundSa(_) => {
            [None, None]
        }
        Object::Tunnel(tunnel) => [Some(tunnel.source_interface), None],
        Object::Neighbour(neighbour) => [Some(neighbour.hop.interface), None],
        Object::Binding(binding) => [Some(binding.tunnel), binding.link.map(|hop| hop.interface)],
        Object::Replica(replica) => [Some(replica.tunnel), replica.link.map(|hop| hop.interface)],
        Object::Fallback(fallback) => [Some(fallback.tunnel), None],
        Object::PathMtu(path) => [Some(path.tunnel), None],
    }
}
