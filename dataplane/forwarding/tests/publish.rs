//! Publication under load: many generations, readers that come and go, on real threads.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use forwarding::publish::{Publisher, Reader};

/// A table whose words all say its number, and which only the publisher's thread may free.
struct Table {
    words: Vec<usize>,
    publisher: thread::ThreadId,
    freed: Arc<AtomicUsize>,
}

impl Table {
    fn new(number: usize, freed: &Arc<AtomicUsize>) -> Self {
        Self { words: vec![number; 64], publisher: thread::current().id(), freed: Arc::clone(freed) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // A panic in a reader's drop would be swallowed by a join that nobody checks: count only what is right.
        if thread::current().id() == self.publisher {
            self.freed.fetch_add(1, Ordering::Relaxed);
        }
        self.words.fill(usize::MAX);
    }
}

/// Says so when it goes, also by a panic: a thread that waits for it ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn breathe(mut reader: Reader<Table>, breaths: usize, done: &AtomicBool) -> usize {
    let (mut last, mut refreshed) = (0, 0);
    for _ in 0..breaths {
        refreshed += usize::from(reader.refresh());
        let number = reader.words[0];
        assert!(reader.words.iter().all(|word| *word == number), "torn or freed");
        assert!(number >= last && number != usize::MAX);
        last = number;
        if done.load(Ordering::Relaxed) {
            break;
        }
    }
    refreshed
}

#[test]
fn twenty_thousand_generations_while_readers_come_and_go() {
    const GENERATIONS: usize = 20_000;
    let freed = Arc::new(AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let mut publisher = Publisher::new(Table::new(0, &freed));
    let refreshed = thread::scope(|scope| {
        let (give, take) = mpsc::channel::<Reader<Table>>();
        let steady = publisher.reader();
        let done = &done;
        let end = Done(done);
        let steady = scope.spawn(move || breathe(steady, usize::MAX, done));
        let passing =
            scope.spawn(move || take.into_iter().map(|reader| breathe(reader, 50, done)).sum::<usize>());
        for number in 1..=GENERATIONS {
            assert_eq!(publisher.publish(Table::new(number, &freed)), number as u64 + 1);
            if number % 100 == 0 {
                give.send(publisher.reader()).unwrap();
                thread::yield_now();
            }
        }
        drop(give);
        drop(end);
        steady.join().unwrap() + passing.join().unwrap()
    });
    assert!(refreshed > 0, "no reader ever saw a new table");
    assert_eq!((publisher.collect(), publisher.acknowledged()), (0, GENERATIONS as u64 + 1));
    // Every table but the current one is gone, and no reader freed any.
    assert_eq!(freed.load(Ordering::Relaxed), GENERATIONS);
}

#[test]
fn a_reader_at_rest_holds_back_what_it_holds_and_what_came_after_it() {
    let freed = Arc::new(AtomicUsize::new(0));
    let mut publisher = Publisher::new(Table::new(0, &freed));
    let mut reader = publisher.reader();
    for number in 1..=5 {
        publisher.publish(Table::new(number, &freed));
    }
    assert_eq!((publisher.collect(), reader.words[0]), (5, 0));
    assert!(reader.refresh() && !reader.refresh());
    assert_eq!((publisher.collect(), reader.words[0], freed.load(Ordering::Relaxed)), (0, 5, 5));
    let generation = publisher.advance();
    assert_eq!(publisher.acknowledged(), generation - 1);
    assert!(reader.refresh());
    assert_eq!((publisher.acknowledged(), reader.words[0]), (generation, 5));
}
