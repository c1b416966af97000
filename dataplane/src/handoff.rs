//! Packets from worker to worker: those of an SA go to the worker that has it. The same rings spread what a port with few queues receives, and
//! gather what is sent by it (see [`crate::ports`]).
//!
//! ```text
//!   worker 0 ──ring──▶ worker 1      one ring for each ordered pair: one producer, one consumer
//!   worker 0 ◀──ring── worker 1
//! ```
//!
//! A ring of a pair keeps the order of its packets, and with it the order within an SA of what one worker sent there. It costs each side one
//! store a packet; neither waits for the other, not even for one that is preempted in the middle ([`memory::ring`]), as it would with a
//! queue that several push to. Between 16 workers there are 240 of some 100 kB each, whose memory is taken when it is used.
//!
//! Nobody is woken: a worker that sleeps ([`crate::args::Idle::Adaptive`]) looks again after 250 µs at most, and that is what a packet may
//! wait here.
//!
//! The buffer of a packet goes back to the pool on the core where its walk ends. That is as good as any: caches belong to threads, not to
//! buffers, and what one thread has too much of goes to the pool's ring, from which another one fills its own.

use memory::{RingIn, RingOut, ring};

/// Slots of each ring: 1 ms of 1 Mpps, which is what an adaptive worker may sleep and a lot more.
pub(crate) const SLOTS: usize = 1024;

/// A worker's ends.
#[derive(Debug)]
pub(crate) struct Handoff<T> {
    /// To each worker; `None`: that is this one.
    to: Vec<Option<RingIn<T>>>,
    /// From each other worker.
    from: Vec<RingOut<T>>,
    /// Whose turn it is to be looked at first.
    first: usize,
}

/// The ends of so many workers, in order.
pub(crate) fn handoffs<T>(workers: usize) -> Vec<Handoff<T>> {
    let mut all: Vec<_> =
        (0..workers).map(|_| Handoff { to: Vec::new(), from: Vec::new(), first: 0 }).collect();
    for producer in 0..workers {
        for consumer in 0..workers {
            let into = (consumer != producer).then(|| {
                let (into, out) = ring(SLOTS);
                all[consumer].from.push(out);
                into
            });
            all[producer].to.push(into);
        }
    }
    all
}

impl<T> Handoff<T> {
    /// Queues a packet for another worker.
    ///
    /// # Errors
    /// The packet, if its ring is full or there is no such worker.
    pub(crate) fn push(&mut self, to: usize, packet: T) -> Result<(), T> {
        match self.to.get_mut(to) {
            Some(Some(ring)) => ring.push(packet),
            _ => Err(packet),
        }
    }

    /// Queues packets for another worker as far as there is room; those that are left stay, in order.
    pub(crate) fn push_all(&mut self, to: usize, packets: &mut Vec<T>) {
        packets.reverse();
        while let Some(packet) = packets.pop() {
            if let Err(packet) = self.push(to, packet) {
                packets.push(packet);
                break;
            }
        }
        packets.reverse();
    }

    /// Appends up to `max` packets: of each ring as many as there are, beginning with another ring each time.
    pub(crate) fn take(&mut self, into: &mut Vec<T>, max: usize) {
        let count = self.from.len();
        let mut left = max;
        for step in 0..count {
            let ring = &mut self.from[(self.first + step) % count];
            while left > 0
                && let Some(packet) = ring.pop()
            {
                into.push(packet);
                left -= 1;
            }
        }
        self.first = if self.first + 1 < count { self.first + 1 } else { 0 };
    }

    /// Takes out what is left, when nobody puts anything in any more.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.from.iter_mut().find_map(RingOut::pop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_sends_to_another_comes_there_in_order_and_nowhere_else() {
        let mut all = handoffs(3);
        // Producer, consumer, number.
        let mut sent = vec![];
        for number in 0..40 {
            let (from, to) = (number % 3, (number + 1 + number % 2) % 3);
            all[from].push(to, (from, to, number)).unwrap();
            sent.push((from, to, number));
        }
        // A worker has no ring to itself, and none to one that is not there.
        assert!(all[1].push(1, (1, 1, 0)).is_err() && all[1].push(3, (1, 3, 0)).is_err());
        for (worker, handoff) in all.iter_mut().enumerate() {
            let mut taken = Vec::new();
            while sent.iter().filter(|(_, to, _)| *to == worker).count() > taken.len() {
                let before = taken.len();
                handoff.take(&mut taken, 5);
                assert!((before + 1..=before + 5).contains(&taken.len()));
            }
            for producer in 0..3 {
                let of_pair = |all: &[(usize, usize, usize)]| -> Vec<_> {
                    all.iter().copied().filter(|(from, to, _)| (*from, *to) == (producer, worker)).collect()
                };
                assert_eq!(of_pair(&taken), of_pair(&sent));
            }
            assert_eq!(handoff.drain().count(), 0);
        }
    }

    #[test]
    fn a_full_ring_gives_back_and_a_full_neighbour_does_not_starve_the_other() {
        let mut all = handoffs(3);
        for number in 0..SLOTS {
            all[1].push(0, number).unwrap();
        }
        assert_eq!(all[1].push(0, 7), Err(7));
        // Two rings are full: what is left of these stays in order.
        let mut some: Vec<_> = (0..SLOTS + 3).collect();
        all[1].push_all(2, &mut some);
        assert_eq!(some, [SLOTS, SLOTS + 1, SLOTS + 2]);
        all[2].push(0, SLOTS).unwrap();
        let mut taken = Vec::new();
        for _ in 0..2 {
            all[0].take(&mut taken, 16);
        }
        assert!(taken.len() == 32 && taken.contains(&SLOTS), "{taken:?}");
        assert_eq!(all[0].drain().count(), SLOTS + 1 - 32);
    }

    #[test]
    fn one_worker_alone_has_nobody() {
        let mut all = handoffs(1);
        let mut taken = Vec::new();
        all[0].take(&mut taken, 16);
        assert!(all[0].push(0, 1).is_err() && taken.is_empty());
    }
}
