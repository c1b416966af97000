//! Lifetimes of SAs, by slot. Of few SAs anybody says any, and packets look at them only when one is near.

use memory::{HugeVec, MapError, Pages};
use model::sa::{Amount, Lifetimes};

/// Soft bytes, soft packets, hard bytes, hard packets; each number with its bits turned over, so that zero is no limit.
pub(super) type Limit = [u64; 4];

/// Those of all slots. Where nobody said any they cost no memory.
#[derive(Debug)]
pub(super) struct Limits(HugeVec<Limit>);

impl Limits {
    /// None yet.
    pub(super) fn new(slots: usize) -> Result<Self, MapError> {
        Ok(Self(HugeVec::zeroed(slots)?))
    }

    pub(super) fn pages(&self) -> Pages {
        self.0.pages()
    }

    /// All of them.
    #[inline(always)]
    pub(super) fn all(&self) -> &[Limit] {
        &self.0
    }

    /// Those of a slot from now on; whether they are others.
    pub(super) fn set(&mut self, at: usize, lifetimes: &Lifetimes) -> bool {
        let Lifetimes { soft, hard } = lifetimes;
        let new = [soft.bytes, soft.packets, hard.bytes, hard.packets].map(|most| !most.unwrap_or(u64::MAX));
        let others = self.0.get(at).is_some_and(|old| *old != new);
        // What is the same is not written: it may lie on a page that is not there.
        if others && let Some(old) = self.0.get_mut(at) {
            *old = new;
        }
        others
    }
}

/// What stands for these.
pub(super) fn lifetimes(limit: &Limit) -> Lifetimes {
    let [soft_bytes, soft_packets, hard_bytes, hard_packets] = limit.map(|most| (most != 0).then_some(!most));
    let soft = Amount { bytes: soft_bytes, packets: soft_packets };
    Lifetimes { soft, hard: Amount { bytes: hard_bytes, packets: hard_packets } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_what_was_said_last_and_none_where_nobody_said_any() {
        let mut limits = Limits::new(8).unwrap();
        let of = |limits: &Limits, at: usize| lifetimes(&limits.all()[at]);
        let some = Lifetimes {
            soft: Amount { bytes: Some(0), packets: None },
            hard: Amount { bytes: Some(u64::MAX - 1), packets: Some(7) },
        };
        assert!(limits.set(3, &some) && !limits.set(3, &some) && !limits.set(4, &Lifetimes::default()));
        assert_eq!((of(&limits, 3), of(&limits, 2)), (some, Lifetimes::default()));
        assert!(limits.set(3, &Lifetimes::default()) && !limits.set(8, &some));
        assert_eq!(of(&limits, 3), Lifetimes::default());
    }
}
