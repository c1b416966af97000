//! Every limit and every time of the engine that no configuration sets, in one place.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::time::Duration;

use model::time::{HoldingTime, Instant};

use crate::input::Peer;

/// How much of everything there may be, beside what the configuration says (`nhrp.limits`). What does not fit is refused where it would be made, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Shortcuts of one tunnel.
    pub shortcuts: usize,
    /// Addresses of one tunnel that are asked for, or rest after having been asked for in vain.
    pub asks: usize,
    /// Resolution requests begun per second, in all.
    pub asks_per_second: u32,
    /// Answers that are remembered for a purge, per tunnel.
    pub told: usize,
    /// Purge requests that wait for their reply, in all.
    pub purges: usize,
    /// Flows of one tunnel that redirects are counted for.
    pub redirects: usize,
    /// Traffic indications sent per second, in all.
    pub redirects_per_second: u32,
    /// Error indications sent per second, in all.
    pub errors_per_second: u32,
    /// Error indications sent per second to one peer.
    pub errors_per_second_per_peer: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shortcuts: 65_536,
            asks: 16_384,
            asks_per_second: 2_000,
            told: 65_536,
            purges: 16_384,
            redirects: 65_536,
            redirects_per_second: 2_000,
            errors_per_second: 100,
            errors_per_second_per_peer: 4,
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Hop count of what we send (as IOS does; 0 is refused there).
pub(crate) const HOP_COUNT: u8 = 255;

/// Hop count of a traffic indication: it goes to its neighbour and no further.
pub(crate) const INDICATION_HOP_COUNT: u8 = 1;

/// A registration or resolution request is sent again after this, then after twice as long, and so on.
pub(crate) const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest time between two registration requests to a server that does not answer.
pub(crate) const REGISTER_RETRY_LONGEST: Duration = Duration::from_secs(64);

/// Registration requests that a server may leave unanswered before it is down.
pub(crate) const REGISTER_PATIENCE: u32 = 3;

/// A server that refused is asked again after this, then after twice as long, and so on.
pub(crate) const REFUSED_FIRST: Duration = Duration::from_secs(5);

/// The DNS name of a server that has no address is looked up again after this, then after twice as long, and so on.
pub(crate) const LOOK_UP_FIRST: Duration = Duration::from_secs(5);

/// The longest time between two look-ups of such a name.
pub(crate) const LOOK_UP_LONGEST: Duration = Duration::from_secs(64);

/// A look-up that was not answered for this long was lost.
pub(crate) const LOOK_UP_PATIENCE: Duration = Duration::from_secs(30);

/// Addresses of one DNS name that are tried: the first so many.
pub(crate) const ADDRESSES_OF_A_NAME: usize = 16;

/// The longest time between two resolution requests.
pub(crate) const ASK_RETRY_LONGEST: Duration = Duration::from_secs(8);

/// Resolution requests for one address before it counts as unresolved.
pub(crate) const ASK_ATTEMPTS: u32 = 6;

/// An address that could not be resolved rests this long at first, twice as long after the next failure, and so on.
pub(crate) const REST_FIRST: Duration = Duration::from_secs(15);

/// The longest rest.
pub(crate) const REST_LONGEST: Duration = Duration::from_secs(240);

/// Failures are forgotten this long after a rest.
pub(crate) const REST_MEMORY: Duration = Duration::from_secs(300);

/// Purge requests are sent this often while no reply comes.
pub(crate) const PURGE_ATTEMPTS: u32 = 5;

/// Entries in one purge request, so that it fits into any MTU.
pub(crate) const PURGE_ENTRIES: usize = 32;

/// A flow is redirected again after this, then after twice as long, and so on.
pub(crate) const REDIRECT_AGAIN: Duration = Duration::from_secs(1);

/// The longest time between two redirects of a flow.
pub(crate) const REDIRECT_AGAIN_LONGEST: Duration = Duration::from_secs(64);

/// A flow that was not redirected for this long counts as new.
pub(crate) const REDIRECT_MEMORY: Duration = Duration::from_secs(360);

/// An entry counts as used this long after its last packet.
pub(crate) const USED_FOR: Duration = Duration::from_secs(60);

/// What is over by itself (answers, redirected flows) is swept this often.
pub(crate) const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Octets of the offending packet in an error indication: an even number, see [`crate::complaint`].
pub(crate) const ERROR_CONTENTS: usize = 256;

/// Peers whose error indications of this second are counted; beyond them nobody new is told.
pub(crate) const COMPLAINED_TO: usize = 1024;

/// Request ids are reserved in the snapshot this many at a time. RFC 2332 §5.2.3 says 50 or 100; but half of them must last until
/// the snapshot is on the disk, and there may be 2,000 a second ([`Limits::asks_per_second`]), and as many purges at once.
pub(crate) const IDS_RESERVED: u32 = 10_000;

/// Sources of requests that passed, per tunnel; beyond them nothing new is kept.
pub(crate) const HEARD: usize = 4096;

/// Request ids of answered resolutions that are remembered, so that a duplicate of the answer is no offence.
pub(crate) const ANSWERED: usize = 256;

/// Answers of one tunnel that are remembered for the next life: about a megabyte.
pub(crate) const ANSWERS_REMEMBERED: usize = 8_192;

/// The shortest prefixes that are answered with; a host is answered for instead of a shorter one, the default route above all.
pub(crate) const fn shortest_answer(is_ipv4: bool) -> u8 {
    if is_ipv4 { 8 } else { 16 }
}

/// Below this remaining time an entry in use is asked for again.
pub(crate) fn stale_below(holding: HoldingTime) -> Duration {
    (holding.duration() / 3).min(Duration::from_secs(120))
}

/// `first`, doubled for every time before this one, but not above `longest`.
pub(crate) fn backoff(first: Duration, times_before: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times_before.min(16)).min(longest)
}

/// Peers whose requests are counted each by itself. Those beyond share one allowance.
const PEERS_COUNTED: usize = 65_536;

/// So many a second of all peers together, and so many of each.
///
/// ```text
///   request --> bucket of its peer --> bucket of all --> taken
///                    | empty                | empty
///                    +----------------------+--> dropped
/// ```
/// A peer that asks too much uses up its own bucket and not that of all. A bucket that was left alone for a second is full again, as
/// a new one is, so the peers of the second before the last are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    all: Bucket,
    /// Since `turned`.
    peers: HashMap<Peer, Bucket>,
    /// The second before.
    before: HashMap<Peer, Bucket>,
    others: Bucket,
    turned: Instant,
}

impl Shares {
    /// Takes one for a peer, if there is one.
    pub(crate) fn take(&mut self, now: Instant, peer: Peer, per_second: u32, per_second_each: u32) -> bool {
        let elapsed = now.since(self.turned);
        if elapsed >= SECOND {
            self.before = std::mem::take(&mut self.peers);
            if elapsed >= 2 * SECOND {
                self.before.clear();
            }
            self.turned = now;
        }
        let counted = self.peers.len();
        let bucket = match self.peers.entry(peer) {
            MapEntry::Occupied(known) => known.into_mut(),
            MapEntry::Vacant(new) if counted < PEERS_COUNTED => {
                new.insert(self.before.get(&peer).copied().unwrap_or_default())
            }
            MapEntry::Vacant(_) => &mut self.others,
        };
        bucket.take(now, per_second_each) && self.all.take(now, per_second)
    }

    #[cfg(test)]
    fn counted(&self) -> usize {
        self.peers.len() + self.before.len()
    }
}

/// So many a second, and as many at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// Used-up part, in microseconds of one second's allowance.
    used: u64,
    at: Instant,
}

impl Bucket {
    /// Takes one if there is one.
    pub(crate) fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let elapsed = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        self.used = self.used.saturating_sub(elapsed);
        let cost = 1_000_000 / u64::from(per_second.max(1));
        let fits = self.used + cost <= 1_000_000;
        if fits {
            self.used += cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills() {
        let mut bucket = Bucket::default();
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        assert_eq!((0..30).filter(|_| bucket.take(at(0), 10)).count(), 10);
        assert!(bucket.take(at(100), 10) && !bucket.take(at(100), 10));
        assert_eq!((0..30).filter(|_| bucket.take(at(60_000), 10)).count(), 10);
    }

    #[test]
    fn a_peer_that_asks_too_much_leaves_the_others_their_share() {
        let mut shares = Shares::default();
        let peer = |n: u32| Peer::from(model::NbmaAddr::from(std::net::Ipv4Addr::from(n)));
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        let mut taken =
            |now, n: u32, times| (0..times).filter(|_| shares.take(now, peer(n), 100, 10)).count();
        assert_eq!((taken(at(0), 1, 1000), taken(at(0), 2, 5)), (10, 5));
        // It is not forgotten that it did, and what was not taken is there again later.
        assert_eq!(taken(at(1_050), 1, 1000), 10);
        assert_eq!((taken(at(1_060), 1, 1000), taken(at(1_160), 1, 1000)), (0, 1));
        // The same address with another port is another peer.
        let behind_nat = Peer { port: Some(4500), ..peer(1) };
        assert!(!shares.take(at(1_165), peer(1), 100, 10) && shares.take(at(1_165), behind_nat, 100, 10));
        // All together have no more than theirs.
        let all = (100..1100).filter(|n| shares.take(at(60_000), peer(*n), 100, 10)).count();
        assert_eq!(all, 100);
    }

    #[test]
    fn the_peers_that_are_counted_are_bounded_and_forgotten() {
        let mut shares = Shares::default();
        let at = |ms| Instant::default() + Duration::from_millis(ms);
        let mut ask = |now, n: u32| {
            let peer = Peer::from(model::NbmaAddr::from(std::net::Ipv4Addr::from(n)));
            shares.take(now, peer, 1_000_000, 10)
        };
        let most = u32::try_from(PEERS_COUNTED).unwrap();
        assert_eq!((0..most).filter(|n| ask(at(0), *n)).count(), PEERS_COUNTED);
        // Those beyond have one share together.
        assert_eq!((most..most + 1000).filter(|n| ask(at(0), *n)).count(), 10);
        assert_eq!(shares.counted(), PEERS_COUNTED);
        for second in 1..4 {
            shares.take(
                at(second * 1000),
                Peer::from(model::NbmaAddr::from(std::net::Ipv4Addr::from(7))),
                10,
                10,
            );
        }
        assert_eq!(shares.counted(), 2);
    }

    #[test]
    fn a_backoff_doubles_to_its_end() {
        let seconds = |n| backoff(RETRY_FIRST, n, REGISTER_RETRY_LONGEST).as_secs();
        assert_eq!([seconds(0), seconds(1), seconds(5), seconds(6), seconds(99)], [1, 2, 32, 64, 64]);
    }

    #[test]
    fn entries_are_stale_in_their_last_third_or_two_minutes() {
        assert_eq!(stale_below(HoldingTime(600)).as_secs(), 120);
        assert_eq!(stale_below(HoldingTime(30)).as_secs(), 10);
    }
}
