//! A bounded queue that drops the oldest: for packets, of which the newest is worth most and none is worth waiting for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A queue; clones are the same one. Several may push, one pops.
#[derive(Debug)]
pub struct Queue<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    items: Mutex<Items<T>>,
    pushed: Notify,
}

#[derive(Debug)]
struct Items<T> {
    queue: VecDeque<T>,
    limit: usize,
    dropped: u64,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Queue<T> {
    /// Holds `limit` items at most.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let items = Mutex::new(Items { queue: VecDeque::new(), limit, dropped: 0 });
        Self(Arc::new(Shared { items, pushed: Notify::new() }))
    }

    /// Appends; drops the oldest if there is no room.
    pub fn push(&self, item: T) {
        let mut items = self.items();
        if items.queue.len() >= items.limit {
            items.queue.pop_front();
            items.dropped += 1;
        }
        items.queue.push_back(item);
        drop(items);
        self.0.pushed.notify_one();
    }

    /// The oldest item; waits for one. Dropping the future loses nothing.
    pub async fn pop(&self) -> T {
        loop {
            if let Some(item) = self.items().queue.pop_front() {
                return item;
            }
            self.0.pushed.notified().await;
        }
    }

    /// Forgets what is in it.
    pub fn clear(&self) {
        self.items().queue.clear();
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items().queue.is_empty()
    }

    /// How many items were dropped for want of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.items().dropped
    }

    fn items(&self) -> MutexGuard<'_, Items<T>> {
        // Nothing under the lock can panic half way.
        self.0.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_oldest_goes_and_is_counted() {
        let queue = Queue::new(2);
        for n in 1..=5 {
            queue.push(n);
        }
        assert_eq!((queue.pop().await, queue.pop().await, queue.dropped()), (4, 5, 3));
        assert!(queue.is_empty());
        let waiting = tokio::time::timeout(Duration::from_millis(20), queue.pop()).await;
        assert!(waiting.is_err());
        queue.clone().push(6);
        assert_eq!(queue.pop().await, 6, "a pop that was given up lost nothing");
    }
}
