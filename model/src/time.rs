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
///
/// Most timers are put off again and again and hardly ever fire: holding times that are refreshed. So one that is put off keeps its old
/// place in the order and moves when it stands first there; the first is always where it belongs.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    all: HashMap<K, Timer>,
    /// By the time in their place, which is no later than that at which they are due.
    order: BTreeSet<(Instant, K)>,
}

#[derive(Debug, Clone, Copy)]
struct Timer {
    due: Instant,
    /// The time in its place.
    place: Instant,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { all: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// Sets the key's timer, in place of the one it had.
    pub fn set(&mut self, key: K, due: Instant) {
        if let Some(timer) = self.all.get_mut(&key) {
            let place = timer.place;
            timer.due = due;
            if due >= place {
                if due > place && self.order.first() == Some(&(place, key)) {
                    self.settle();
                }
                return;
            }
            timer.place = due;
            self.order.remove(&(place, key));
        } else {
            self.all.insert(key, Timer { due, place: due });
        }
        self.order.insert((due, key));
    }

    /// Brings the first to where it belongs, until one stands first that does.
    fn settle(&mut self) {
        while let Some(&(place, key)) = self.order.first() {
            let Some(timer) = self.all.get_mut(&key).filter(|timer| timer.due != place) else { return };
            timer.place = timer.due;
            self.order.pop_first();
            self.order.insert((timer.due, key));
        }
    }

    /// Cancels the key's timer.
    pub fn cancel(&mut self, key: K) {
        if let Some(timer) = self.all.remove(&key) {
            self.order.remove(&(timer.place, key));
            self.settle();
        }
    }

    /// When the key's timer is due.
    #[must_use]
    pub fn due(&self, key: K) -> Option<Instant> {
        self.all.get(&key).map(|timer| timer.due)
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
        self.all.remove(&key);
        self.settle();
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: thousands of timers set, put off, brought forward and cancelled in an order that looks random. Output: after each step the first
    /// is that of a list that is searched, and so is what expires.
    #[test]
    fn timers_are_those_of_a_list_whatever_is_done_with_them() {
        let mut timers = Timers::default();
        let mut list = std::collections::BTreeMap::<u64, Instant>::new();
        let mut state = 1_u64;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % bound
        };
        let mut now = 0;
        for _ in 0..20_000 {
            let key = random(60);
            match random(8) {
                0 => {
                    timers.cancel(key);
                    list.remove(&key);
                }
                1 => now += random(30),
                _ => {
                    let due = Instant(now + random(200));
                    timers.set(key, due);
                    list.insert(key, due);
                }
            }
            let first = |list: &std::collections::BTreeMap<u64, Instant>| {
                list.iter().map(|(key, due)| (*due, *key)).min()
            };
            while let Some(key) = timers.expire(Instant(now)) {
                let (due, expected) = first(&list).unwrap();
                assert!(key == expected && due <= Instant(now));
                list.remove(&key);
            }
            assert_eq!(timers.next(), first(&list).map(|(due, _)| due));
            assert_eq!((timers.len(), timers.due(key)), (list.len(), list.get(&key).copied()));
        }
    }

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
