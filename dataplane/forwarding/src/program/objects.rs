//! What was said: every object with its owner, as one batch after the other made it.

use std::collections::BTreeMap;

use model::InterfaceName;
use model::program::{Key, Object, Owner, Path};
use model::time::Instant;

/// What one owner says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) object: Object,
    /// When it goes of itself.
    pub(super) expires: Option<Instant>,
    /// The owner's mark when it was put: older than the owner's mark now, it is stale.
    mark: u64,
}

/// All claims, with a way back to where a batch began.
#[derive(Debug, Default)]
pub(super) struct Objects {
    claims: BTreeMap<(Key, Owner), Claim>,
    marks: [u64; Owner::ALL.len()],
    /// What the batch changed: the claims as they were.
    undo: Vec<((Key, Owner), Option<Claim>)>,
    marks_before: [u64; Owner::ALL.len()],
}

impl Objects {
    /// Begins a batch.
    pub(super) fn begin(&mut self) {
        self.undo.clear();
        self.marks_before = self.marks;
    }

    /// Takes everything back that the batch did.
    pub(super) fn roll_back(&mut self) {
        for (at, claim) in self.undo.drain(..).rev() {
            match claim {
                Some(claim) => self.claims.insert(at, claim),
                None => self.claims.remove(&at),
            };
        }
        self.marks = self.marks_before;
    }

    /// The keys and owners that the batch touched, each once for every touch, in order.
    pub(super) fn touched(&self) -> impl Iterator<Item = (Key, Owner)> + '_ {
        self.undo.iter().map(|(at, _)| *at)
    }

    pub(super) fn put(&mut self, owner: Owner, object: Object, expires: Option<Instant>) {
        let at = (object.key(), owner);
        let old = self.claims.insert(at, Claim { object, expires, mark: self.marks[owner as usize] });
        self.undo.push((at, old));
    }

    pub(super) fn remove(&mut self, owner: Owner, key: Key) {
        if let Some(old) = self.claims.remove(&(key, owner)) {
            self.undo.push(((key, owner), Some(old)));
        }
    }

    /// Marks all of an owner's objects as stale.
    pub(super) fn mark(&mut self, owner: Owner) {
        self.marks[owner as usize] += 1;
    }

    /// The keys of an owner's stale objects.
    pub(super) fn stale(&self, owner: Owner) -> Vec<Key> {
        let stale = |((_, of), claim): &(&(Key, Owner), &Claim)| *of == owner && self.is_stale(*of, claim);
        self.claims.iter().filter(stale).map(|((key, _), _)| *key).collect()
    }

    pub(super) fn is_stale(&self, owner: Owner, claim: &Claim) -> bool {
        claim.mark < self.marks[owner as usize]
    }

    /// What owners say of an object, in their order.
    pub(super) fn claims(&self, key: Key) -> impl Iterator<Item = (Owner, &Claim)> {
        self.claims
            .range((key, Owner::Nhrp)..=(key, Owner::Netlink))
            .map(|((_, owner), claim)| (*owner, claim))
    }

    /// The claim that counts: a receive route, else the first owner's.
    pub(super) fn winner(&self, key: Key) -> Option<&Object> {
        let receive =
            |object: &&Object| matches!(object, Object::Route(r) if matches!(r.path, Path::Receive(_)));
        let mut claims = self.claims(key).map(|(_, claim)| &claim.object);
        let first = claims.next()?;
        if receive(&first) {
            return Some(first);
        }
        claims.find(receive).or(Some(first))
    }

    /// All claims in order of key and owner.
    pub(super) fn all(&self) -> impl Iterator<Item = (Owner, &Claim)> {
        self.claims.iter().map(|((_, owner), claim)| (*owner, claim))
    }

    /// All claims from a key on.
    pub(super) fn from(&self, key: Key) -> impl Iterator<Item = (Key, &Claim)> {
        self.claims.range((key, Owner::Nhrp)..).map(|((key, _), claim)| (*key, claim))
    }
}

/// The interfaces and tunnels that an object names beside its own.
pub(super) fn names(object: &Object) -> [Option<InterfaceName>; 2] {
    match object {
        Object::Interface(_) => [None, None],
        Object::Tunnel(tunnel) => [Some(tunnel.source_interface), None],
        Object::Neighbour(neighbour) => [Some(neighbour.hop.interface), None],
        Object::Binding(binding) => [Some(binding.tunnel), binding.link.map(|hop| hop.interface)],
        Object::Route(route) => match route.path {
            Path::Via(hop) => [Some(hop.interface), None],
            Path::Attached(name) | Path::Receive(name) => [Some(name), None],
            Path::Unreachable | Path::Blackhole => [None, None],
        },
        Object::Replica(replica) => [Some(replica.tunnel), replica.link.map(|hop| hop.interface)],
        Object::Fallback(fallback) => [Some(fallback.tunnel), None],
    }
}
