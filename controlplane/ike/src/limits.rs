//! How much, how often, how long: everything that is not configuration, in one place.

use std::time::Duration;

use model::time::Instant;

/// The first retransmission of a request comes after this, the next after twice as long, and so on (RFC 7296 §2.1).
pub(crate) const RETRANSMIT_FIRST: Duration = Duration::from_millis(500);

/// So often a request is sent: at 0, 0.5, 1.5, 3.5, 7.5 s; at 15.5 s its peer is dead (RFC 7296 §2.4).
pub(crate) const TRANSMISSIONS: u32 = 5;

/// The longest time between two of them.
pub(crate) const RETRANSMIT_LONGEST: Duration = Duration::from_secs(8);

/// So often a request is sent to a peer whose packets come though it does not answer: for a quarter of an hour.
pub(crate) const TRANSMISSIONS_TO_THE_LIVING: u32 = 120;

/// An error in the clear may be anybody's: a better answer is waited for this long (RFC 7296 §2.21.1).
pub(crate) const BETTER_ANSWER: Duration = Duration::from_secs(2);

/// Answers to IKE_SA_INIT that make us begin it again: cookies and other groups.
pub(crate) const RESTARTS: u8 = 5;

/// Who began has to prove who it is within this.
pub(crate) const HALF_OPEN: Duration = Duration::from_secs(30);

/// The same while cookies are wanted of those who begin.
pub(crate) const HALF_OPEN_CROWDED: Duration = Duration::from_secs(8);

/// Ports of one address that share `half_open_per_address`, as a power of two: many peers may be behind one NAT.
pub(crate) const PORT_RANGE: u32 = 10;

/// One address has no more than so many times `half_open_per_address`, whatever its ports.
pub(crate) const RANGES_PER_ADDRESS: u32 = 8;

/// Cookies are wanted for so long after the last time that there were too many who had not proved anything: longer than a peer sends its first
/// message again.
pub(crate) const CALM: Duration = Duration::from_secs(10);

/// The secret behind cookies is replaced after this; the one before still counts (RFC 7296 §2.6).
pub(crate) const COOKIE_SECRET: Duration = Duration::from_secs(60);

/// An answer of a refusal is kept so long for who asks again.
pub(crate) const REFUSED: Duration = Duration::from_secs(10);

/// The responder's outbound SA is used this long after the last transmission of its answer, if nothing showed earlier that the peer
/// has its inbound one.
pub(crate) const OUTBOUND_AFTER: Duration = Duration::from_millis(150);

/// The same where another outbound SA has its place, which works meanwhile: longer than we ask for an answer, and than others wait before they
/// ask again.
pub(crate) const OUTBOUND_INSTEAD_AFTER: Duration = Duration::from_secs(16);

/// The same where that other one is nobody's: its peer may have forgotten it.
pub(crate) const OUTBOUND_FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

/// An inbound SA that was replaced takes packets that are on their way for this long.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// What the peer has to close and does not is closed by us after this.
pub(crate) const CLOSE_INSTEAD: Duration = Duration::from_secs(30);

/// A request that the peer could not take now is made again after this, less up to a tenth (RFC 7296 §2.25).
pub(crate) const TEMPORARY: Duration = Duration::from_secs(2);

/// The first rest after a failure; the next is twice as long, and so on.
pub(crate) const REST_FIRST: Duration = Duration::from_secs(1);

/// The longest rest.
pub(crate) const REST_LONGEST: Duration = Duration::from_secs(60);

/// The first rest after the peer did not believe who we are.
pub(crate) const REST_UNBELIEVED: Duration = Duration::from_secs(15);

/// A failure is forgotten this long after its rest.
pub(crate) const REST_MEMORY: Duration = Duration::from_secs(60);

/// An IKE SA without a child, whose peer did not get one or closed it, is let go after this.
pub(crate) const CHILDLESS: Duration = Duration::from_secs(30);

/// After INVALID_IKE_SPI, which may be anybody's, a peer is asked whether it lives, but not more often than this.
pub(crate) const PROBE_AGAIN: Duration = Duration::from_secs(10);

/// A peer moves no more often than this.
pub(crate) const MOVE_AGAIN: Duration = Duration::from_secs(1);

/// Children that are begun anew after the loss of a data plane, and peers after the loss of a control plane, per second.
pub(crate) const PACE_PER_SECOND: u32 = 1000;

/// Fragments that a message may have (RFC 7383 §2.6).
pub(crate) const FRAGMENTS: u16 = 64;

/// Bytes that a message in fragments may have in all.
pub(crate) const FRAGMENTED: usize = 48 * 1024;

/// The same of somebody who has not proved who it is.
pub(crate) const FRAGMENTED_UNPROVED: usize = 24 * 1024;

/// Bytes of fragments that are held in all.
pub(crate) const FRAGMENTS_HELD: usize = 32 << 20;

/// Notifications in the clear per second (RFC 7296 §2.21.4).
pub(crate) const CLEAR_PER_SECOND: u32 = 20;

/// Failures that are told per second; all are counted.
pub(crate) const FAILURES_PER_SECOND: u32 = 50;

/// Things that are still to be asked of one peer.
pub(crate) const TASKS: usize = 256;

/// Children of one IKE SA: one for each of 64 workers, each being replaced by both.
pub(crate) const CHILDREN: usize = 192;

/// Bytes of a nonce of ours: not less than half of any prf's key (RFC 7296 §2.10).
pub(crate) const NONCE: usize = 32;

/// `first`, doubled for every time before this one, but not above `longest`.
pub(crate) fn backoff(first: Duration, times_before: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times_before.min(16)).min(longest)
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
    fn a_peer_is_dead_after_fifteen_seconds() {
        let waits = (0..TRANSMISSIONS).map(|n| backoff(RETRANSMIT_FIRST, n, REST_LONGEST));
        assert_eq!(waits.sum::<Duration>(), Duration::from_millis(15_500));
    }
}
