//! Publication in every interleaving and every order that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p forwarding --test loom`
#![cfg(loom)]

use forwarding::publish::{Publisher, Reader};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, ThreadId};

/// A table of two halves that agree, which only its publisher's thread may free.
struct Table {
    halves: [usize; 2],
    publisher: ThreadId,
    freed: Arc<AtomicUsize>,
}

impl Table {
    fn new(value: usize, freed: &Arc<AtomicUsize>) -> Self {
        Self { halves: [value; 2], publisher: thread::current().id(), freed: Arc::clone(freed) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        assert_eq!(thread::current().id(), self.publisher, "a reader frees a table");
        self.halves = [usize::MAX, 0];
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Breathes `breaths` times; values only grow and are whole.
fn breathe(reader: &mut Reader<Table>, breaths: usize) {
    let mut last = 0;
    for _ in 0..breaths {
        reader.refresh();
        let [a, b] = reader.halves;
        assert_eq!(a, b, "a torn table, or one used after it was freed");
        assert!(a >= last, "an older table after a newer one");
        last = a;
    }
}

#[test]
fn tables_are_whole_and_freed_by_the_publisher_when_nobody_uses_them() {
    loom::model(|| {
        let freed = Arc::new(AtomicUsize::new(0));
        let mut publisher = Publisher::new(Table::new(1, &freed));
        let mut reader = publisher.reader();
        let worker = thread::spawn(move || {
            breathe(&mut reader, 2);
            reader
        });
        publisher.publish(Table::new(2, &freed));
        publisher.publish(Table::new(3, &freed));
        let mut reader = worker.join().unwrap();
        // Uncontended, one breath is enough; then the publisher is rid of all but the current table.
        reader.refresh();
        assert_eq!((reader.halves, reader.generation()), ([3, 3], 3));
        assert_eq!((publisher.collect(), freed.load(Ordering::Relaxed)), (0, 2));
    });
}

#[test]
fn readers_that_leave_hold_nothing_back_and_free_nothing() {
    loom::model(|| {
        let freed = Arc::new(AtomicUsize::new(0));
        let mut publisher = Publisher::new(Table::new(1, &freed));
        let mut leaver = publisher.reader();
        let worker = thread::spawn(move || breathe(&mut leaver, 1));
        publisher.publish(Table::new(2, &freed));
        // One comes while the other goes.
        let mut late = publisher.reader();
        publisher.publish(Table::new(3, &freed));
        worker.join().unwrap();
        assert_eq!(late.halves, [2, 2]);
        assert_eq!(
            (publisher.collect(), freed.load(Ordering::Relaxed)),
            (1, 1),
            "the late reader holds one back"
        );
        assert!(late.refresh());
        assert_eq!((publisher.collect(), freed.load(Ordering::Relaxed)), (0, 2));
    });
}

#[test]
fn two_readers_never_wait_for_each_other() {
    let mut model = loom::model::Builder::new();
    // Three threads: exhaustive up to this many involuntary switches.
    model.preemption_bound = Some(3);
    model.check(|| {
        let freed = Arc::new(AtomicUsize::new(0));
        let mut publisher = Publisher::new(Table::new(1, &freed));
        let workers = [publisher.reader(), publisher.reader()].map(|mut reader| {
            thread::spawn(move || {
                breathe(&mut reader, 2);
                reader
            })
        });
        publisher.publish(Table::new(2, &freed));
        for worker in workers {
            let mut reader = worker.join().unwrap();
            reader.refresh();
            assert_eq!(reader.halves, [2, 2]);
            drop(reader);
        }
        assert_eq!((publisher.collect(), freed.load(Ordering::Relaxed)), (0, 1));
    });
}

/// The FIB's groups: a word in place points to one, is withdrawn, and the group is used again after a generation.
#[test]
fn a_group_is_not_used_again_while_a_reader_may_look_into_it() {
    const NONE: usize = 9;
    loom::model(|| {
        let pointer = Arc::new(AtomicUsize::new(0));
        let group = Arc::new(AtomicUsize::new(1));
        let mut publisher = Publisher::new(());
        let mut reader = publisher.reader();
        let worker = {
            let (pointer, group) = (Arc::clone(&pointer), Arc::clone(&group));
            thread::spawn(move || {
                for _ in 0..2 {
                    reader.refresh();
                    if pointer.load(Ordering::Acquire) != NONE {
                        assert_eq!(group.load(Ordering::Acquire), 1, "another prefix's group");
                    }
                }
            })
        };
        pointer.store(NONE, Ordering::Release);
        let generation = publisher.advance();
        if publisher.acknowledged() >= generation {
            group.store(2, Ordering::Relaxed);
        }
        worker.join().unwrap();
        assert_eq!(publisher.acknowledged(), generation);
    });
}
