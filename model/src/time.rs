//! Time as the engines see it: an input, never read from a clock by them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since some beginning that the shell chose. Survives in state files as what it means there: see each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// How long a binding may be used, in seconds (RFC 2332 §5.2.0.1: 16 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldingTime(pub u16);

impl HoldingTime {
    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl fmt::Display for HoldingTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}

/// One timer for each key, in order of time.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    due: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// Sets the key's timer, in place of the one it had.
    pub fn set(&mut self, key: K, due: Instant) {
        if let Some(old) = self.due.insert(key, due) {
            self.order.remove(&(old, key));
        }
        self.order.insert((due, key));
    }

    /// Cancels the key's timer.
    pub fn cancel(&mut self, key: K) {
        if let Some(old) = self.due.remove(&key) {
            self.order.remove(&(old, key));
        }
    }

    /// When the key's timer is due.
    #[must_use]
    pub fn due(&self, key: K) -> Option<Instant> {
        self.due.get(&key).copied()
    }

    /// When the first timer is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes the first timer that is due at `now`.
    pub fn expire(&mut self, now: Instant) -> Option<K> {
        let (due, key) = *self.order.first()?;
        if due > now {
            return None;
        }
        self.order.pop_first();
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_expire_in_order_once_and_a_set_replaces() {
        let mut timers = Timers::default();
        let at = |s| Instant::default() + Duration::from_secs(s);
        timers.set('a', at(3));
        timers.set('b', at(1));
        timers.set('a', at(2));
        timers.set('c', at(9));
        timers.cancel('c');
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.expire(at(0)), None);
        assert_eq!(
            (timers.expire(at(2)), timers.expire(at(2)), timers.expire(at(99))),
            (Some('b'), Some('a'), None)
        );
        assert_eq!(timers.next(), None);
    }
}
