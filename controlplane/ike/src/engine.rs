//! The engine: inputs in, actions out.

use model::time::Instant;

use crate::{Action, Crypto, Input};

/// IKEv2 for all profiles of a node; initiator and responder at once.
#[derive(Debug)]
pub struct Engine {
    crypto: Box<dyn Crypto>,
}

impl Engine {
    /// An engine without profiles. All its chance is that of `crypto`.
    #[must_use]
    pub fn new(crypto: Box<dyn Crypto>) -> Self {
        Self { crypto }
    }

    /// Something happened at `now`, which never goes back. What is to be done is appended to `actions`, to be done in order.
    pub fn handle(&mut self, _now: Instant, _input: Input, _actions: &mut Vec<Action>) {
        let _ = &self.crypto;
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
}
