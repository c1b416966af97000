//! Routes as their owners said them, in few bytes each: a table of a million of them is the rule, not the exception.

use std::collections::{BTreeMap, HashMap};

use model::program::{Owner, Path};
use model::time::Instant;

use super::family::Family;
use super::objects::Marks;
use super::paths::{PathId, Paths};
use crate::fib::FibPrefix;

/// What one owner says of one route. Eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteClaim {
    pub(super) path: PathId,
    /// The owner's mark when it was put (31 bits), and [`LASTING`].
    mark: u32,
}

/// Bit of a claim's mark: it goes of itself, when is in [`RouteClaims::dues`].
const LASTING: u32 = 1 << 31;

impl RouteClaim {
    fn is_lasting(self) -> bool {
        self.mark & LASTING != 0
    }

    fn mark(self) -> u32 {
        self.mark & !LASTING
    }
}

/// What a batch did to one route: the way back.
#[derive(Debug)]
struct Undo<A: Family> {
    place: u16,
    key: A::ClaimKey,
    old: Option<RouteClaim>,
    due: Option<Instant>,
    uncovers: bool,
}

/// All claims of one family, with a way back to where a batch began.
#[derive(Debug)]
pub(super) struct RouteClaims<A: Family> {
    /// By place of the table.
    tables: Vec<BTreeMap<A::ClaimKey, RouteClaim>>,
    /// When those go that go of themselves.
    dues: HashMap<(u16, A::ClaimKey), Instant>,
    undo: Vec<Undo<A>>,
}

impl<A: Family> Default for RouteClaims<A> {
    fn default() -> Self {
        Self { tables: Vec::new(), dues: HashMap::new(), undo: Vec::new() }
    }
}

/// A route that a batch touched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touched<A: Family> {
    pub(super) place: u16,
    pub(super) prefix: FibPrefix<A>,
    pub(super) owner: Owner,
    /// Whether there is, or was before, something that goes of itself.
    pub(super) lasting: bool,
    /// Whether this touch removed it, or made it lead elsewhere: what somebody else says may count then.
    pub(super) uncovers: bool,
}

impl<A: Family> RouteClaims<A> {
    /// One more table.
    pub(super) fn add_table(&mut self) {
        self.tables.push(BTreeMap::new());
    }

    /// Makes an owner's route so. The path's reference is the claim's now.
    pub(super) fn put(
        &mut self,
        marks: &mut Marks,
        (place, prefix, owner): (u16, FibPrefix<A>, Owner),
        path: PathId,
        due: Option<Instant>,
    ) {
        let key = A::claim_key(prefix, owner);
        let lasting = if due.is_some() { LASTING } else { 0 };
        let claim = RouteClaim { path, mark: marks.now(owner) | lasting };
        let old = self.tables[usize::from(place)].insert(key, claim);
        marks.count_put(owner, old.map(RouteClaim::mark));
        self.note_undo(place, key, old, old.is_some_and(|old| old.path != path));
        if let Some(due) = due {
            self.dues.insert((place, key), due);
        }
    }

    /// Removes an owner's route, if it has one.
    pub(super) fn remove(&mut self, marks: &mut Marks, place: u16, prefix: FibPrefix<A>, owner: Owner) {
        let key = A::claim_key(prefix, owner);
        if let Some(old) = self.tables[usize::from(place)].remove(&key) {
            marks.count_removed(owner, old.mark());
            self.note_undo(place, key, Some(old), true);
        }
    }

    fn note_undo(&mut self, place: u16, key: A::ClaimKey, old: Option<RouteClaim>, uncovers: bool) {
        let due = old.filter(|old| old.is_lasting()).and_then(|_| self.dues.remove(&(place, key)));
        self.undo.push(Undo { place, key, old, due, uncovers });
    }

    /// Takes back what was done since the last [`RouteClaims::settle`].
    pub(super) fn roll_back(&mut self, paths: &mut Paths) {
        while let Some(Undo { place, key, old, due, .. }) = self.undo.pop() {
            let table = &mut self.tables[usize::from(place)];
            let new = match old {
                Some(old) => table.insert(key, old),
                None => table.remove(&key),
            };
            if let Some(new) = new {
                paths.release(new.path);
                if new.is_lasting() {
                    self.dues.remove(&(place, key));
                }
            }
            if let Some(due) = due {
                self.dues.insert((place, key), due);
            }
        }
    }

    /// What was done is done for good.
    pub(super) fn settle(&mut self, paths: &mut Paths) {
        for undo in self.undo.drain(..) {
            if let Some(old) = undo.old {
                paths.release(old.path);
            }
        }
        // What a large batch took is not kept.
        self.undo.shrink_to(KEPT);
    }

    /// The routes that the batch touched, each once for every touch, in order.
    pub(super) fn touched(&self) -> impl Iterator<Item = Touched<A>> + '_ {
        self.undo.iter().map(|undo| {
            let (prefix, owner) = A::claimed(undo.key);
            let is = || self.tables[usize::from(undo.place)].get(&undo.key).is_some_and(|c| c.is_lasting());
            let lasting = undo.due.is_some() || !self.dues.is_empty() && is();
            Touched { place: undo.place, prefix, owner, lasting, uncovers: undo.uncovers }
        })
    }

    pub(super) fn is_touched(&self) -> bool {
        !self.undo.is_empty()
    }

    /// When an owner's route goes of itself.
    pub(super) fn due(&self, place: u16, prefix: FibPrefix<A>, owner: Owner) -> Option<Instant> {
        if self.dues.is_empty() {
            None
        } else {
            self.dues.get(&(place, A::claim_key(prefix, owner))).copied()
        }
    }

    /// What owners say of a route, in their order.
    fn claims(&self, place: u16, prefix: FibPrefix<A>) -> impl Iterator<Item = (Owner, PathId)> {
        let claims = self.tables[usize::from(place)].range(A::claim_key(prefix, Owner::Nhrp)..);
        claims.map_while(move |(key, claim)| {
            let (of, owner) = A::claimed(*key);
            (of == prefix).then_some((owner, claim.path))
        })
    }

    /// The owner and path that count: a receive route's, else the first owner's.
    fn best(&self, paths: &Paths, place: u16, prefix: FibPrefix<A>) -> Option<(Owner, PathId)> {
        let mut claims = self.claims(place, prefix);
        let first = claims.next()?;
        let Some(second) = claims.next() else { return Some(first) };
        let receives = |(_, id): &(Owner, PathId)| matches!(paths.path(*id), Some(Path::Receive(_)));
        [first, second].into_iter().chain(claims).find(receives).or(Some(first))
    }

    /// The path that counts.
    pub(super) fn winner(&self, paths: &Paths, place: u16, prefix: FibPrefix<A>) -> Option<PathId> {
        self.best(paths, place, prefix).map(|(_, path)| path)
    }

    /// The owner whose path counts.
    pub(super) fn best_owner(&self, paths: &Paths, place: u16, prefix: FibPrefix<A>) -> Option<Owner> {
        self.best(paths, place, prefix).map(|(owner, _)| owner)
    }

    /// The longest prefix with a route that is shorter than `prefix` and holds it.
    pub(super) fn covering(&self, place: u16, prefix: FibPrefix<A>) -> Option<FibPrefix<A>> {
        let table = &self.tables[usize::from(place)];
        let mut longest = prefix.length().checked_sub(1)?;
        loop {
            let bound = A::claim_key(FibPrefix::of(prefix.first(), longest), Owner::Netlink);
            let (key, _) = table.range(..=bound).next_back()?;
            let (found, _) = A::claimed(*key);
            if found.contains(prefix) {
                return Some(found);
            }
            // `found` lies between the prefix and whatever covers it, so that is no longer than what the two share.
            longest = found.first().shared(prefix.first());
        }
    }

    /// All claims: place of the table, prefix, owner.
    pub(super) fn all(&self) -> impl Iterator<Item = (u16, FibPrefix<A>, Owner, RouteClaim)> + '_ {
        let tables = self.tables.iter().enumerate();
        tables.flat_map(|(place, table)| {
            table.iter().map(move |(key, claim)| {
                let (prefix, owner) = A::claimed(*key);
                (place as u16, prefix, owner, *claim)
            })
        })
    }

    /// Removes those for which `is_gone` says so.
    pub(super) fn remove_if(
        &mut self,
        marks: &mut Marks,
        is_gone: impl Fn(&Marks, u16, Owner, RouteClaim) -> bool,
    ) {
        let gone: Vec<_> = self
            .all()
            .filter(|(place, _, owner, claim)| is_gone(marks, *place, *owner, *claim))
            .map(|(place, prefix, owner, _)| (place, prefix, owner))
            .collect();
        for (place, prefix, owner) in gone {
            self.remove(marks, place, prefix, owner);
        }
    }
}

/// Places for the way back that are kept from batch to batch.
const KEPT: usize = 1 << 14;

/// Whether a claim was put before its owner's last mark.
pub(super) fn is_stale(marks: &Marks, owner: Owner, claim: RouteClaim) -> bool {
    claim.mark() < marks.now(owner)
}
