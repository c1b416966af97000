//! An ordered map that is published whole and changed a little at a time.
//!
//! ```text
//!   chunks  ─► [ a b c … ]   [ f g h … ]   [ p q … ]
//!                   ▲             │             ▲
//!                   │             ▼             │
//!   changed ────────┘       [ f g g' h … ] ─────┘
//! ```
//!
//! A map that was cloned shares all chunks with the old one; a change makes the one chunk anew that it is in. So a batch costs what it changes and
//! not what there is, and what is kept until workers have let go of it is little. For look-ups that are no packet's: each is two binary searches.

use std::sync::Arc;

/// Most entries of a chunk. One with fewer than a quarter of them joins a neighbour if both fit half a chunk.
const MOST: usize = 32;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ChunkMap<K, V> {
    /// In order, as are the entries of each. None is empty.
    chunks: Vec<Arc<[(K, V)]>>,
}

impl<K, V> Default for ChunkMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<K: Ord + Copy, V: Copy> ChunkMap<K, V> {
    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = place(chunk, key).ok()?;
        Some(chunk[at].1)
    }

    /// The first key that is not before this one.
    pub(crate) fn first_from(&self, key: &K) -> Option<K> {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get(at)?;
        let place = place(chunk, key).unwrap_or_else(|place| place);
        let entry = chunk.get(place).or_else(|| self.chunks.get(at + 1)?.first());
        entry.map(|(key, _)| *key)
    }

    /// Gives a key a value.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let at = self.chunk_of(&key);
        let Some(chunk) = self.chunks.get(at) else {
            self.chunks.push(Arc::new([(key, value)]));
            return;
        };
        match place(chunk, &key) {
            Ok(place) => self.chunks[at] = spliced(chunk, place, Some((key, value)), place + 1),
            Err(place) if chunk.len() < MOST => {
                self.chunks[at] = spliced(chunk, place, Some((key, value)), place);
            }
            // What comes in order leaves full chunks behind it.
            Err(MOST) => self.chunks.insert(at + 1, Arc::new([(key, value)])),
            Err(_) => {
                let (lower, upper) = chunk.split_at(MOST / 2);
                let halves = [lower.into(), upper.into()];
                self.chunks.splice(at..=at, halves);
                self.insert(key, value);
            }
        }
    }

    /// Takes a key away, if it is there.
    pub(crate) fn remove(&mut self, key: &K) {
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get(at) else { return };
        let Ok(place) = place(chunk, key) else { return };
        if chunk.len() == 1 {
            self.chunks.remove(at);
            return;
        }
        self.chunks[at] = spliced(chunk, place, None, place + 1);
        if self.chunks[at].len() < MOST / 4 {
            // The chunk itself and the one before it, or behind it.
            let first = at.saturating_sub(1);
            if let [one, two, ..] = &self.chunks[first..]
                && one.len() + two.len() <= MOST / 2
            {
                let joined = one.iter().chain(&**two).copied().collect();
                self.chunks.splice(first..=first + 1, [joined]);
            }
        }
    }

    /// All entries in order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The chunk that has a key, if one has; it is put there. None is there if the map is empty.
    fn chunk_of(&self, key: &K) -> usize {
        let begins_before = |chunk: &Arc<[(K, V)]>| chunk.first().is_some_and(|(first, _)| first <= key);
        self.chunks.partition_point(begins_before).saturating_sub(1)
    }
}

/// Where a key is in a chunk; or where it would be.
fn place<K: Ord, V>(chunk: &[(K, V)], key: &K) -> Result<usize, usize> {
    chunk.binary_search_by(|(there, _)| there.cmp(key))
}

/// A chunk with its entries before `until`, this one, and those behind `from`.
fn spliced<K: Copy, V: Copy>(
    chunk: &[(K, V)],
    until: usize,
    entry: Option<(K, V)>,
    from: usize,
) -> Arc<[(K, V)]> {
    chunk[..until].iter().copied().chain(entry).chain(chunk[from..].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Keys that are put (with a value) and taken away, in runs and scattered.
    fn changes() -> impl Strategy<Value = Vec<(u16, Option<u32>)>> {
        let scattered = (0..300_u16, any::<Option<u32>>()).prop_map(|change| vec![change]);
        let run = (0..200_u16, 1..100_u16, any::<Option<u32>>())
            .prop_map(|(first, count, value)| (first..first + count).map(|key| (key, value)).collect());
        vec(prop_oneof![scattered, run], 0..120).prop_map(|runs: Vec<Vec<_>>| runs.concat())
    }

    proptest! {
        /// Input: keys that come and go, and a copy that was kept on the way. Output: both have what maps of the standard library have, chunks
        /// are never empty nor too long, and what is looked for from any key on is what comes next.
        #[test]
        fn it_is_a_map_and_a_copy_stays_what_it_was(changes in changes(), kept_at in 0..2000_usize) {
            let (mut map, mut model) = (ChunkMap::default(), BTreeMap::new());
            let mut kept = None;
            for (number, (key, value)) in changes.into_iter().enumerate() {
                if number == kept_at {
                    kept = Some((map.clone(), model.clone()));
                }
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    None => {
                        map.remove(&key);
                        model.remove(&key);
                    }
                }
            }
            for (map, model) in kept.into_iter().chain([(map, model)]) {
                prop_assert!(map.iter().copied().eq(model.iter().map(|(key, value)| (*key, *value))));
                prop_assert!(map.chunks.iter().all(|chunk| (1..=MOST).contains(&chunk.len())));
                for key in 0..310 {
                    prop_assert_eq!(map.get(&key), model.get(&key).copied());
                    prop_assert_eq!(map.first_from(&key), model.range(key..).next().map(|(key, _)| *key));
                }
            }
        }
    }

    /// Input: 10,000 keys, of which a clone gets one more and loses another. Output: all chunks but those two are the same memory.
    #[test]
    fn a_change_copies_its_chunk_and_no_other() {
        let mut map = ChunkMap::default();
        (0..10_000_u32).for_each(|key| map.insert(key * 2, key));
        assert_eq!(map.chunks.len(), 10_000_usize.div_ceil(MOST), "what comes in order fills them");
        let mut changed = map.clone();
        changed.insert(5_001, 1);
        changed.remove(&12_000);
        let is_shared = |chunk: &&Arc<[_]>| map.chunks.iter().any(|old| Arc::ptr_eq(old, chunk));
        let own = changed.chunks.iter().filter(|chunk| !is_shared(chunk)).count();
        assert_eq!(own, 3, "the one that was full became two");
    }

    /// Input: 10,000 keys, of which all but one in fifty go. Output: those that are left take few chunks.
    #[test]
    fn what_is_left_of_many_lies_together() {
        let mut map = ChunkMap::default();
        (0..10_000_u32).for_each(|key| map.insert(key, ()));
        (0..10_000).filter(|key| key % 50 != 0).for_each(|key| map.remove(&key));
        assert_eq!(map.iter().count(), 200);
        assert!(map.chunks.len() <= 200 * 4 / MOST + 2, "{} chunks", map.chunks.len());
    }
}
