//! The ring under every interleaving that loom finds: `make loom`, or
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p memory --test loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use loom::thread;
use memory::ring;

/// Input: three things through a ring of two. Output: they come once, whole and in order, and no slot is ever touched by both ends.
#[test]
fn all_comes_once_and_in_order() {
    loom::model(|| {
        let (mut into, mut out) = ring(2);
        let producer = thread::spawn(move || {
            for number in 0..3 {
                let mut one = Box::new(number);
                while let Err(back) = into.push(one) {
                    one = back;
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < 3 {
            match out.pop() {
                Some(one) => {
                    assert_eq!(*one, expected);
                    expected += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert!(out.pop().is_none());
        producer.join().unwrap();
    });
}

/// Input: an end that goes while the other one works. Output: what was left is dropped once.
#[test]
fn ends_go_in_any_order() {
    loom::model(|| {
        let (mut into, mut out) = ring(2);
        let thing = loom::sync::Arc::new(());
        let (one, two) = (thing.clone(), thing.clone());
        let producer = thread::spawn(move || {
            into.push(one).unwrap();
            into.push(two).unwrap();
        });
        drop(out.pop());
        drop(out);
        producer.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&thing), 1);
    });
}
