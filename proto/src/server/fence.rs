//! Who may speak to the data plane: the newest control plane, by one stream of each kind.
//!
//! ```text
//!   Hello(epoch) or open(instance, epoch):
//!       epoch older than the newest seen ──► FAILED_PRECONDITION
//!       another instance than this one   ──► FAILED_PRECONDITION
//!       epoch newer than any seen        ──► every stream that is open ends (ABORTED)
//!       open                             ──► the older stream of its kind ends (ABORTED)
//! ```

use std::sync::Mutex;
use std::task::{Poll, ready};

use model::{Epoch, Instance};
use tokio::sync::watch;
use tonic::Status;

use crate::{Open, Stream};

/// Kinds of streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Program,
    Reports,
    Punt,
}

/// The fence of one data plane.
pub(super) struct Fence {
    instance: Instance,
    newest: Mutex<Newest>,
}

struct Newest {
    epoch: Epoch,
    /// For each kind: the number of the stream whose turn it is.
    turns: [watch::Sender<u64>; 3],
}

impl Fence {
    pub(super) fn new(instance: Instance) -> Self {
        let turns = std::array::from_fn(|_| watch::Sender::new(0));
        Self { instance, newest: Mutex::new(Newest { epoch: Epoch(0), turns }) }
    }

    /// A control plane shows itself.
    pub(super) fn greet(&self, epoch: Epoch) -> Result<(), Status> {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        newest.raise(epoch)
    }

    /// A stream opens.
    pub(super) fn open(&self, kind: Kind, open: Open) -> Result<Turn, Status> {
        if open.instance != self.instance {
            return Err(Status::failed_precondition(format!(
                "open.instance: {:016x} is not this data plane, which is {:016x}",
                open.instance.0, self.instance.0
            )));
        }
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        newest.raise(open.epoch)?;
        let turns = &newest.turns[kind as usize];
        turns.send_modify(|turn| *turn += 1);
        let current = turns.subscribe();
        let number = *current.borrow();
        Ok(Turn { number, current })
    }
}

impl Newest {
    fn raise(&mut self, epoch: Epoch) -> Result<(), Status> {
        if epoch < self.epoch {
            return Err(Status::failed_precondition(format!(
                "epoch: {} is older than {}, which was seen",
                epoch.0, self.epoch.0
            )));
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            for turns in &self.turns {
                turns.send_modify(|turn| *turn += 1);
            }
        }
        Ok(())
    }
}

/// The turn of one stream; over when a newer one opens.
#[derive(Debug, Clone)]
pub struct Turn {
    number: u64,
    current: watch::Receiver<u64>,
}

impl Turn {
    /// Whether no newer stream has opened. What a newer stream brings comes only after this has become false.
    #[must_use]
    pub fn is_current(&self) -> bool {
        *self.current.borrow() == self.number && self.current.has_changed().is_ok()
    }

    /// The stream while its turn lasts; then one error, and the end.
    pub(super) fn of<T: Send + 'static>(
        &self,
        stream: impl futures::Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Stream<T> {
        let (number, mut current) = (self.number, self.current.clone());
        // Also over when the fence itself is gone.
        let mut over = Box::pin(async move { current.wait_for(|turn| *turn != number).await.map(|_| ()) });
        let mut stream = Box::pin(stream);
        let mut ended = false;
        Box::pin(futures::stream::poll_fn(move |cx| {
            if ended {
                return Poll::Ready(None);
            }
            if over.as_mut().poll(cx).is_ready() {
                ended = true;
                return Poll::Ready(Some(Err(Status::aborted("a newer stream has taken over"))));
            }
            let item = ready!(stream.as_mut().poll_next(cx));
            ended = !matches!(item, Some(Ok(_)));
            Poll::Ready(item)
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_lasts_until_a_newer_stream_of_its_kind_or_a_newer_control_plane() {
        let fence = Fence::new(Instance(7));
        let open = |fence: &Fence, kind, epoch| {
            fence.open(kind, Open { instance: Instance(7), epoch: Epoch(epoch) }).unwrap()
        };
        let first = open(&fence, Kind::Program, 1);
        // Also as whoever carries its last batch out has it.
        let carried = first.clone();
        let _punt = open(&fence, Kind::Punt, 1);
        assert!(first.is_current() && carried.is_current());
        let second = open(&fence, Kind::Program, 1);
        assert!(!first.is_current() && !carried.is_current() && second.is_current());
        fence.greet(Epoch(2)).unwrap();
        assert!(!second.is_current());
        let third = open(&fence, Kind::Program, 2);
        assert!(third.is_current());
        drop(fence);
        assert!(!third.is_current());
    }
}
