//! Publication of tables to workers: by generation, without a wait and without a reference count per packet.
//!
//! ```text
//!   publisher                         shared                    reader (one per worker)
//!   publish(table) ──► lock, replace, generation = n ──┐        once a breath:
//!   keep the old one, marked n                         └──────► generation changed? try_lock, take, unlock
//!   free what is marked ≤ every reader's mark  ◄─────────────── mark = n
//! ```
//!
//! - A reader looks at one atomic a breath. Only when that changed it tries the lock; contended, it keeps what it has for one
//!   more breath. It never waits.
//! - The publisher keeps what it replaced until every reader has acknowledged a newer generation. So the last reference is
//!   always the publisher's: no worker ever runs a destructor of a table.
//! - A reader that leaves acknowledges everything.
//!
//! The same generations tell when words stored in place are out of use ([`Publisher::advance`], [`crate::fib::Writer::retire`]).
//! The protocol is model-checked: `tests/loom.rs`.

use std::collections::VecDeque;

#[cfg(loom)]
use loom::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use std::sync::PoisonError;

/// The mark of a reader that has left.
const LEFT: u64 = u64::MAX;

/// What publisher and readers share.
#[derive(Debug)]
struct Shared<T> {
    /// Generation of `current`; changed only under its lock.
    generation: AtomicU64,
    current: Mutex<Arc<T>>,
}

/// The side that replaces the table. One of them; where several threads publish, they share it under a lock of their own.
///
/// It outlives its readers, else the last reader frees the last table.
#[derive(Debug)]
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// The last generation that each reader has acknowledged.
    marks: Vec<Arc<AtomicU64>>,
    /// What was replaced, with the generation that replaced it.
    replaced: VecDeque<(u64, Arc<T>)>,
    generation: u64,
}

impl<T> Publisher<T> {
    /// Publishes the first table, as generation 1.
    #[must_use]
    pub fn new(table: T) -> Self {
        let shared = Shared { generation: AtomicU64::new(1), current: Mutex::new(Arc::new(table)) };
        Self { shared: Arc::new(shared), marks: Vec::new(), replaced: VecDeque::new(), generation: 1 }
    }

    /// A new reader, which holds the current table.
    #[must_use]
    pub fn reader(&mut self) -> Reader<T> {
        let mark = Arc::new(AtomicU64::new(self.generation));
        self.marks.push(Arc::clone(&mark));
        let table = Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner));
        Reader { held: Some(table), seen: self.generation, mark, shared: Arc::clone(&self.shared) }
    }

    /// Replaces the table; its generation. Frees what no reader holds any more. Waits for a reader that is taking a table
    /// at this moment.
    pub fn publish(&mut self, table: T) -> u64 {
        self.replace(Arc::new(table))
    }

    /// Publishes the same table as a new generation; that generation. When it is acknowledged every reader has begun a breath
    /// after all stores that were made before this call.
    pub fn advance(&mut self) -> u64 {
        let same = Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner));
        self.replace(same)
    }

    fn replace(&mut self, table: Arc<T>) -> u64 {
        self.generation += 1;
        let old = {
            let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut *current, table);
            // Under the lock, so that who holds it sees a table and its own generation.
            self.shared.generation.store(self.generation, Ordering::Release);
            old
        };
        self.replaced.push_back((self.generation, old));
        self.collect();
        self.generation
    }

    /// The newest generation that every reader has acknowledged; without readers the current one. Forgets readers that left.
    pub fn acknowledged(&mut self) -> u64 {
        let mut oldest = self.generation;
        self.marks.retain(|mark| {
            // Acquire: what the reader did with older tables happened before.
            let mark = mark.load(Ordering::Acquire);
            oldest = oldest.min(mark);
            mark != LEFT
        });
        oldest
    }

    /// Frees the tables that no reader holds any more; how many are still kept. [`Publisher::publish`] does it too: this is for
    /// a publisher that has nothing to publish.
    pub fn collect(&mut self) -> usize {
        let acknowledged = self.acknowledged();
        while self.replaced.pop_front_if(|(by, _)| *by <= acknowledged).is_some() {}
        self.replaced.len()
    }

    /// The current generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The side that uses the table: one per worker, moved to its thread.
#[derive(Debug)]
pub struct Reader<T> {
    /// There until the reader is dropped.
    held: Option<Arc<T>>,
    seen: u64,
    mark: Arc<AtomicU64>,
    shared: Arc<Shared<T>>,
}

impl<T> Reader<T> {
    /// Takes the newest table, if there is a newer one and nobody is at it right now; whether it did. To be called when
    /// nothing derived from the old table is in use: once, at the beginning of a breath.
    #[inline(always)]
    pub fn refresh(&mut self) -> bool {
        // Acquire: words stored in place before this generation are seen after it.
        self.shared.generation.load(Ordering::Acquire) != self.seen && self.take()
    }

    #[cold]
    fn take(&mut self) -> bool {
        let Ok(current) = self.shared.current.try_lock() else { return false };
        let table = Arc::clone(&current);
        self.seen = self.shared.generation.load(Ordering::Acquire);
        drop(current);
        // The old reference goes before the mark: the publisher's is the last one then.
        self.held = Some(table);
        self.mark.store(self.seen, Ordering::Release);
        true
    }

    /// Generation of the table in use.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.seen
    }
}

impl<T> std::ops::Deref for Reader<T> {
    type Target = T;

    /// The table in use.
    #[inline(always)]
    fn deref(&self) -> &T {
        match &self.held {
            Some(table) => table,
            None => unreachable!("a reader holds a table until it is dropped"),
        }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.held = None;
        self.mark.store(LEFT, Ordering::Release);
    }
}
