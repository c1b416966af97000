//! How often something may be done about packets: once per interval for each key, a few times at once if it was not done for
//! as long, and so many times a second in all.

use std::time::Duration;

use model::time::Instant;

/// Entries of a table, a power of two.
const ENTRIES: usize = 4096;
/// Places where a key may stand.
const WAYS: usize = 4;

/// A limit over a bounded table. A key that finds all its places taken by others that are still within their interval is
/// refused: the limit never lets more through than it says, whatever is thrown at it. Which keys share places depends on a
/// secret: nobody can choose keys that take another's.
#[derive(Debug)]
pub(crate) struct Limit {
    interval: Duration,
    /// How far ahead of its time a key may be: the intervals of all but one of those at once.
    ahead: Duration,
    secret: u64,
    /// Microseconds of credit that one pass costs; credit grows by one a microsecond, up to a second's worth.
    cost: u64,
    /// When the credit was nothing.
    empty: Instant,
    entries: Box<[(u64, Instant)]>,
}

impl Limit {
    /// Once per `interval` for each key, and up to `at_once`, at least 1, after a pause of as many.
    pub(crate) fn new(interval: Duration, at_once: u32, per_second: u32, secret: u64) -> Self {
        Self {
            interval,
            ahead: interval * at_once.saturating_sub(1),
            secret,
            cost: 1_000_000 / u64::from(per_second.max(1)),
            empty: Instant::default(),
            entries: vec![(0, Instant::default()); ENTRIES].into_boxed_slice(),
        }
    }

    /// Whether the total allows anything now: to be asked before a packet is touched for the key.
    #[inline(always)]
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        now.0 >= self.empty.0 + self.cost
    }

    /// Whether it may be done for `key` now; counted if so.
    pub(crate) fn pass(&mut self, now: Instant, key: u64) -> bool {
        if !self.is_open(now) {
            return false;
        }
        // 0 marks an empty entry.
        let key = key.max(1);
        let first = self.first_place(key);
        let places = &mut self.entries[first..first + WAYS];
        let fresh = |until: Instant| until > now;
        let place = match places.iter().position(|(holder, _)| *holder == key) {
            Some(place) if places[place].1 > now + self.ahead => return false,
            Some(place) => place,
            None => match places.iter().position(|(_, until)| !fresh(*until)) {
                Some(place) => place,
                None => return false,
            },
        };
        // When its passes so far have had their intervals (the theoretical arrival time of the generic cell rate algorithm).
        let until = if places[place].0 == key { places[place].1.max(now) } else { now };
        places[place] = (key, until + self.interval);
        self.empty = Instant(self.empty.0.max(now.0.saturating_sub(1_000_000)) + self.cost);
        true
    }

    /// Where the places of a key begin. (Mixed as in MurmurHash3's 64-bit finish: each bit of key and secret changes half of
    /// the others.)
    fn first_place(&self, key: u64) -> usize {
        let mut bits = key.wrapping_add(self.secret);
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            bits = (bits ^ bits >> 33).wrapping_mul(factor);
        }
        (bits >> 33) as usize % (ENTRIES / WAYS) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_an_interval_for_each_key_and_so_many_in_all() {
        let at = |ms: u64| Instant(10_000_000 + ms * 1000);
        let mut limit = Limit::new(Duration::from_millis(500), 1, 10, 0);
        assert!(limit.pass(at(0), 7) && !limit.pass(at(499), 7) && limit.pass(at(500), 7));
        let passed =
            |limit: &mut Limit, ms: u64| (0..1000).filter(|key| limit.pass(at(ms), 100 + key)).count();
        assert!(passed(&mut limit, 500) <= 10);
        assert!(!limit.is_open(at(510)));
        assert_eq!(passed(&mut limit, 1500), 10);
        assert_eq!(passed(&mut limit, 1501), 0);
    }

    #[test]
    fn a_full_table_lets_nothing_more_through() {
        let mut limit = Limit::new(Duration::from_secs(1), 1, 1_000_000, 0);
        let now = Instant(5_000_000);
        let passed: Vec<u64> = (1..100_000).filter(|key| limit.pass(now, *key)).collect();
        assert!(passed.len() > ENTRIES / 2 && passed.len() <= ENTRIES, "{}", passed.len());
        assert!(passed.iter().all(|key| !limit.pass(now + Duration::from_millis(900), *key)));
    }

    #[test]
    fn a_few_at_once_and_then_one_per_interval() {
        let mut limit = Limit::new(Duration::from_millis(100), 3, 1_000_000, 0);
        let mut passed = Vec::new();
        for ms in 5000..5600 {
            if limit.pass(Instant(ms * 1000), 7) {
                passed.push(ms);
            }
        }
        assert_eq!(passed, [5000, 5001, 5002, 5100, 5200, 5300, 5400, 5500]);
    }

    #[test]
    fn keys_that_share_places_under_one_secret_do_not_under_another() {
        let limit = |secret| Limit::new(Duration::from_secs(1), 1, 1_000_000, secret);
        let (known, victim, now) = (limit(1), 77, Instant(5_000_000));
        let rivals = (1000..).filter(|key| known.first_place(*key) == known.first_place(victim));
        let rivals: Vec<u64> = rivals.take(WAYS).collect();
        for (secret, passes) in [(1, false), (2, true)] {
            let mut limit = limit(secret);
            assert!(rivals.iter().all(|key| limit.pass(now, *key)));
            assert_eq!(limit.pass(now, victim), passes);
        }
    }
}
