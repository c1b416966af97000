//! One call of the engine: its time, and what it wants done.

use model::program::{Key, Object};
use model::time::Instant;
use wire::ike::{NAT_PORT, NON_ESP_MARKER};

use crate::path::Path;
use crate::{Action, Event};

/// One call.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    actions: &'a mut Vec<Action>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(now: Instant, actions: &'a mut Vec<Action>) -> Self {
        Self { now, actions }
    }

    /// Sends a message, with what stands before it on port 4500 (RFC 3948 §2.2).
    pub(crate) fn send(&mut self, path: &Path, message: &[u8]) {
        let is_marked = path.local.port() == NAT_PORT;
        let mut bytes = Vec::with_capacity(message.len() + NON_ESP_MARKER.len());
        if is_marked {
            bytes.extend_from_slice(&NON_ESP_MARKER);
        }
        bytes.extend_from_slice(message);
        self.send_bare(path, bytes);
    }

    /// Sends exactly these bytes.
    pub(crate) fn send_bare(&mut self, path: &Path, bytes: Vec<u8>) {
        self.actions.push(Action::Send { table: path.table, local: path.local, remote: path.remote, bytes });
    }

    pub(crate) fn put(&mut self, object: Object) {
        self.actions.push(Action::Put(object));
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.actions.push(Action::Remove(key));
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.actions.push(Action::Event(event));
    }
}
