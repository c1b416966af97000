//! The one writer of a table.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memory::{HugeVec, MapError};

use super::prefix::{Address, FibPrefix};
use super::{FIRST_LEN, Footprint, Full, GROUP, GROUP_LEN, Table, Word};

/// Unit in which memory is accounted: the kernel maps huge pages of this size where it can.
const PAGE: usize = 2 << 20;
/// Most groups: 24 bits of a word name one, so that a table's groups are no more than 16 GiB.
const GROUPS: usize = 1 << 24;

/// The one writer of a [`Table`]. It knows the routes (the shadow table), so that a removed route uncovers the next shorter.
#[derive(Debug)]
pub struct TableWriter<A: Address> {
    fib: Arc<Table<A>>,
    /// Every route.
    routes: BTreeMap<A::Key, u32>,
    groups: Groups,
    /// Which pages of the first array were written.
    touched: Touched,
}

type Touched = [bool; FIRST_LEN * size_of::<AtomicU32>() / PAGE];

/// The life of groups.
#[derive(Debug, Default)]
struct Groups {
    /// All of them.
    count: usize,
    /// Groups from here on were never used.
    fresh: u32,
    /// Groups to use again, now.
    free: Vec<u32>,
    /// Groups that no word points to since the last [`TableWriter::retire`].
    freed: Vec<u32>,
    /// Groups that await their generation.
    retired: VecDeque<(u64, Vec<u32>)>,
}

impl Groups {
    fn room(&self) -> usize {
        self.free.len() + self.count - self.fresh as usize
    }

    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let fresh = self.fresh;
            self.fresh += u32::from((fresh as usize) < self.count);
            (fresh < self.fresh).then_some(fresh)
        })
    }
}

impl<A: Address> TableWriter<A> {
    /// An empty table with room for so many `groups` (see [`Table`]). Address space is taken at once (64 MiB, and 1 KiB a
    /// group), memory when it is written.
    ///
    /// # Errors
    /// [`MapError`] if there is no address space.
    pub fn new(groups: usize) -> Result<Self, MapError> {
        let groups = groups.min(GROUPS);
        let fib = Table {
            first: HugeVec::zeroed(FIRST_LEN)?,
            groups: HugeVec::zeroed(groups * GROUP_LEN)?,
            default: AtomicU32::new(0),
            family: std::marker::PhantomData,
        };
        Ok(Self {
            fib: Arc::new(fib),
            routes: BTreeMap::new(),
            groups: Groups { count: groups, ..Groups::default() },
            touched: [false; _],
        })
    }

    /// The table, to look things up in.
    #[must_use]
    pub fn fib(&self) -> Arc<Table<A>> {
        Arc::clone(&self.fib)
    }

    /// Makes `prefix` lead to `word`; what it led to before.
    ///
    /// # Errors
    /// [`Full`], and nothing changed, if it needs more groups than there are ([`TableWriter::groups_needed`]).
    pub fn put(&mut self, prefix: FibPrefix<A>, word: Word) -> Result<Option<Word>, Full> {
        if prefix.depth() > 0 {
            self.make_groups(prefix)?;
        }
        let old = self.routes.insert(A::key(prefix), word.0);
        if old != Some(word.0) {
            self.cover(prefix, word.0);
        }
        Ok(old.map(Word))
    }

    /// Removes the route of exactly this prefix; what it led to, if there was one. What it covered falls to the next shorter prefix.
    pub fn remove(&mut self, prefix: FibPrefix<A>) -> Option<Word> {
        let old = self.routes.remove(&A::key(prefix))?;
        // The default route is not stored under every address: it has its own word.
        let cover = self.covering(prefix).filter(|(cover, _)| cover.length() > 0);
        let word = cover.map_or(0, |(_, word)| word);
        // The shortest block on the way to the prefix that needs no group any more.
        let empty = (0..prefix.depth())
            .find(|depth| within::<A>(&self.routes, block(prefix, *depth)).next().is_none());
        match empty {
            Some(depth) => self.drop_groups(prefix, depth, word),
            None => self.cover(prefix, word),
        }
        Some(Word(old))
    }

    /// The word of the route of exactly this prefix.
    #[must_use]
    pub fn route(&self, prefix: FibPrefix<A>) -> Option<Word> {
        self.routes.get(&A::key(prefix)).map(|word| Word(*word))
    }

    /// The longest prefix that holds `addr`, and its word.
    #[must_use]
    pub fn longest_match(&self, addr: A::Ip) -> Option<(FibPrefix<A>, Word)> {
        let host = FibPrefix::host(A::bits(addr));
        let exact = self.routes.get(&A::key(host)).map(|word| (host, *word));
        exact.or_else(|| self.covering(host)).map(|(prefix, word)| (prefix, Word(word)))
    }

    /// Every route, in order of prefix.
    pub fn routes(&self) -> impl Iterator<Item = (FibPrefix<A>, Word)> + '_ {
        self.routes.iter().map(|(key, word)| (A::prefix(*key), Word(*word)))
    }

    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether the first 24 bits of an address have a group: an IPv4 prefix in them needs no other.
    #[must_use]
    pub fn has_group(&self, addr: A::Ip) -> bool {
        self.fib.first[A::bits(addr).place(0)].load(Ordering::Relaxed) & GROUP != 0
    }

    /// The blocks for which a [`TableWriter::put`] of `prefix` would take a group, one for each: none for up to 24 bits, one
    /// at most for a longer IPv4 prefix, 13 for an IPv6 host. What a batch needs is the set of its prefixes' blocks.
    pub fn groups_needed(&self, prefix: FibPrefix<A>) -> impl Iterator<Item = FibPrefix<A>> + '_ {
        let mut words = Some(&self.fib.first[..]);
        (0..prefix.depth()).filter_map(move |depth| {
            let place = words.map(|words| &words[prefix.first().place(depth)]);
            words = place.and_then(|place| self.fib.group(place.load(Ordering::Relaxed)));
            words.is_none().then(|| block(prefix, depth))
        })
    }

    /// Groups that can be used now.
    #[must_use]
    pub fn free_groups(&self) -> usize {
        self.groups.room()
    }

    /// Memory of the table.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let groups = self.groups.fresh as usize * GROUP_LEN * size_of::<AtomicU32>();
        Footprint {
            first: self.touched.iter().filter(|touched| **touched).count() * PAGE,
            groups: groups.next_multiple_of(PAGE),
            // Nodes are two thirds full, and have fields of their own.
            shadow: self.routes.len() * (size_of::<A::Key>() + size_of::<u32>()) * 5 / 3,
        }
    }

    /// What was freed until now may be used again when every reader has acknowledged `generation`: one that was published
    /// after the stores that freed it.
    pub fn retire(&mut self, generation: u64) {
        if !self.groups.freed.is_empty() {
            self.groups.retired.push_back((generation, std::mem::take(&mut self.groups.freed)));
        }
    }

    /// Every reader has acknowledged `generation`.
    pub fn reclaim(&mut self, generation: u64) {
        while let Some((_, groups)) = self.groups.retired.pop_front_if(|(wanted, _)| *wanted <= generation) {
            self.groups.free.extend(groups);
        }
    }

    /// The longest route that is shorter than `prefix` and holds it.
    fn covering(&self, prefix: FibPrefix<A>) -> Option<(FibPrefix<A>, u32)> {
        let mut longest = prefix.length().checked_sub(1)?;
        loop {
            let bound = A::key(FibPrefix::of(prefix.first(), longest));
            let (key, word) = self.routes.range(..=bound).next_back()?;
            let found = A::prefix(*key);
            if found.contains(prefix) {
                return Some((found, *word));
            }
            // `found` lies between the prefix and whatever covers it, so that is no longer than what the two share.
            longest = found.first().shared(prefix.first());
        }
    }

    /// Stores `word` for every address of `prefix` that no longer route holds.
    fn cover(&mut self, prefix: FibPrefix<A>, word: u32) {
        if prefix.length() == 0 {
            self.fib.default.store(word, Ordering::Release);
            return;
        }
        let (fib, touched) = (&*self.fib, &mut self.touched);
        if prefix.length() == 24 {
            // Most prefixes of a public table are of this kind, and have nothing longer in them.
            let at = prefix.first().place(0);
            if fib.first[at].load(Ordering::Relaxed) & GROUP == 0 {
                fib.first[at].store(word, Ordering::Release);
                touched[page(at)] = true;
                return;
            }
        }
        let mut store = |from, to| store::<A>(fib, touched, &fib.first, 0, (from, to), word);
        // Addresses below it are done.
        let mut next = Some(prefix.first());
        for longer in within::<A>(&self.routes, prefix) {
            let Some(from) = next else { break };
            if longer.first() > from {
                store(from, longer.first().previous());
            }
            next = longer.last().next().map(|after| after.max(from));
        }
        if let Some(from) = next.filter(|from| *from <= prefix.last()) {
            store(from, prefix.last());
        }
    }

    /// Gives every block on the way to `prefix` a group that says what the block's word said, unless it has one.
    fn make_groups(&mut self, prefix: FibPrefix<A>) -> Result<(), Full> {
        if self.groups_needed(prefix).count() > self.groups.room() {
            return Err(Full { groups: self.groups.count });
        }
        let fib = &*self.fib;
        let mut words = &fib.first[..];
        for depth in 0..prefix.depth() {
            let place = &words[prefix.first().place(depth)];
            let word = place.load(Ordering::Relaxed);
            if word & GROUP == 0 {
                let Some(group) = self.groups.take() else { break };
                let pointer = GROUP | group;
                for place in fib.group(pointer).unwrap_or_default() {
                    place.store(word, Ordering::Relaxed);
                }
                // Release: who reads the pointer reads the group's words.
                place.store(pointer, Ordering::Release);
                if depth == 0 {
                    self.touched[page(prefix.first().place(0))] = true;
                }
            }
            words = fib.group(place.load(Ordering::Relaxed)).unwrap_or_default();
        }
        Ok(())
    }

    /// Puts `word` in place of the group of the block of `prefix` at this depth. The groups behind it, of the blocks in that
    /// block, are on the way to `prefix` too: nothing else needed one.
    fn drop_groups(&mut self, prefix: FibPrefix<A>, depth: usize, word: u32) {
        let fib = &*self.fib;
        let mut words = &fib.first[..];
        for above in 0..depth {
            words = fib.group(words[prefix.first().place(above)].load(Ordering::Relaxed)).unwrap_or_default();
        }
        let mut pointer = words[prefix.first().place(depth)].swap(word, Ordering::Release);
        let mut below = depth;
        while let Some(words) = fib.group(pointer) {
            below += 1;
            self.groups.freed.push(pointer & !GROUP);
            pointer = words[prefix.first().place(below)].load(Ordering::Relaxed);
        }
    }
}

/// Routes in `prefix` that are longer, in their order.
fn within<A: Address>(
    routes: &BTreeMap<A::Key, u32>,
    prefix: FibPrefix<A>,
) -> impl Iterator<Item = FibPrefix<A>> {
    let (from, to) = (A::key(prefix), A::key(FibPrefix::host(prefix.last())));
    // A host has none; the range would have no end behind its beginning.
    let longer = (from < to).then(|| routes.range((Bound::Excluded(from), Bound::Included(to))));
    longer.into_iter().flatten().map(|(key, _)| A::prefix(*key))
}

/// The addresses that share the word of `prefix` at this depth.
fn block<A: Address>(prefix: FibPrefix<A>, depth: usize) -> FibPrefix<A> {
    FibPrefix::of(prefix.first(), 24 + 8 * depth as u8)
}

/// Page of a word of the first array.
fn page(place: usize) -> usize {
    place * size_of::<AtomicU32>() / PAGE
}

/// Stores `word` for a range of addresses in the `words` of this depth. Where a block has a group, in the group; a block
/// without one is in the range whole.
fn store<A: Address>(
    fib: &Table<A>,
    touched: &mut Touched,
    words: &[AtomicU32],
    depth: usize,
    (from, to): (A, A),
    word: u32,
) {
    let (start, end) = (from.place(depth), to.place(depth));
    let len = 24 + 8 * depth as u8;
    for at in start..=end {
        // Below this depth only the bits behind count.
        let low = if at == start { from } else { A::MIN };
        let high = if at == end { to } else { A::MAX };
        if let Some(group) = fib.group(words[at].load(Ordering::Relaxed)) {
            store(fib, touched, group, depth + 1, (low, high), word);
            continue;
        }
        debug_assert!(low == low.floor(len) && high == high.ceil(len));
        words[at].store(word, Ordering::Release);
        if depth == 0 {
            touched[page(at)] = true;
        }
    }
}
