//! One call of the engine: what it is lent for that time, and what every part of it shares.

use std::collections::BTreeMap;
use std::time::Duration;

use model::program::{Key, Object};
use model::time::{Instant, Timers};
use model::{InterfaceName, NbmaAddr, Prefix, ProtocolAddr};

use crate::input::Peer;
use crate::limits::{Bucket, IDS_RESERVED};
use crate::nhs::ServerId;
use crate::{Action, Event, Limits, Reject, Routes};

/// What happens when a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A registration is due with this server: the first one, a refresh, or a retry.
    Register(InterfaceName, ServerId),
    /// The same for the link-local address.
    LinkLocal(InterfaceName, ServerId),
    /// This server has answered for long enough to take the place of a worse one.
    FallBack(InterfaceName, ServerId),
    /// A resolution is asked again, or its rest ends.
    Ask(InterfaceName, ProtocolAddr),
    /// The holding time of a binding ends.
    Binding(InterfaceName, ProtocolAddr),
    /// The holding time of a shortcut ends.
    Shortcut(InterfaceName, Prefix),
    /// A purge is sent again.
    Purge(InterfaceName, u32),
}

/// What all tunnels share.
#[derive(Debug, Default)]
pub(crate) struct Common {
    pub(crate) limits: Limits,
    pub(crate) timers: Timers<Timer>,
    pub(crate) ids: RequestIds,
    pub(crate) rng: Rng,
    pub(crate) rejects: BTreeMap<Reject, u64>,
    /// The network id of each tunnel that runs NHRP.
    pub(crate) networks: BTreeMap<InterfaceName, u32>,
    pub(crate) asks: Bucket,
    pub(crate) redirects: Bucket,
    pub(crate) errors: Bucket,
    /// The node is about to stop: it said goodbye, and answers nothing that would have to be taken back.
    pub(crate) is_leaving: bool,
    /// Who was sent an error indication lately, and when.
    pub(crate) complained: BTreeMap<NbmaAddr, (Instant, Bucket)>,
}

/// One call.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) routes: &'a dyn Routes,
    pub(crate) common: &'a mut Common,
    actions: &'a mut Vec<Action>,
    /// The snapshot is worth saving.
    save: bool,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        now: Instant,
        routes: &'a dyn Routes,
        common: &'a mut Common,
        actions: &'a mut Vec<Action>,
    ) -> Self {
        Self { now, routes, common, actions, save: false }
    }

    /// Ends the call.
    pub(crate) fn end(self) {
        if self.save {
            self.actions.push(Action::Save);
        }
    }

    pub(crate) fn put(&mut self, object: Object) {
        self.actions.push(Action::Put(object));
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.actions.push(Action::Remove(key));
    }

    pub(crate) fn send(&mut self, tunnel: InterfaceName, to: Peer, bytes: Vec<u8>) {
        let Peer { nbma: to, port } = to;
        self.actions.push(Action::Send { tunnel, to, port, bytes });
    }

    pub(crate) fn look_up(&mut self, tunnel: InterfaceName, name: String) {
        self.actions.push(Action::LookUp { tunnel, name });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.actions.push(Action::Event(event));
    }

    pub(crate) fn save(&mut self) {
        self.save = true;
    }

    /// Counts a reject.
    pub(crate) fn reject(&mut self, reject: Reject) {
        *self.common.rejects.entry(reject).or_default() += 1;
    }

    /// Counts a message that was not accepted, and tells of it.
    pub(crate) fn reject_from(&mut self, tunnel: InterfaceName, source: NbmaAddr, reject: Reject) {
        self.reject(reject);
        self.event(Event::Rejected { tunnel, source, reject });
    }

    /// Whether an interface is a tunnel of a network.
    pub(crate) fn is_in_network(&self, interface: InterfaceName, network_id: u32) -> bool {
        self.common.networks.get(&interface) == Some(&network_id)
    }

    /// A new request id. Now and then that makes the snapshot worth saving.
    pub(crate) fn request_id(&mut self) -> u32 {
        let ids = &mut self.common.ids;
        let id = ids.next;
        ids.next = ids.next.wrapping_add(1);
        // Half a reserve before its end, so that the snapshot is written before an id outside of it is used.
        if ids.reserved.wrapping_sub(ids.next) < IDS_RESERVED / 2 {
            ids.reserved = ids.reserved.wrapping_add(IDS_RESERVED);
            self.save = true;
        }
        id
    }

    /// `duration`, shortened by chance by up to a tenth: nodes that began together do not stay together.
    pub(crate) fn jittered(&mut self, duration: Duration) -> Duration {
        let parts = u32::try_from(self.common.rng.next() % 1024).unwrap_or(0);
        duration - duration / 10 * parts / 1024
    }

    pub(crate) fn set(&mut self, timer: Timer, after: Duration) {
        self.common.timers.set(timer, self.now + after);
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.common.timers.cancel(timer);
    }
}

/// Request ids: counted up over the life of the node, restarts included (RFC 2332 §5.2.3).
#[derive(Debug)]
pub(crate) struct RequestIds {
    next: u32,
    /// The snapshot says this one; ids below it may be in use.
    pub(crate) reserved: u32,
}

impl RequestIds {
    /// From `first` on.
    pub(crate) const fn new(first: u32) -> Self {
        Self { next: first, reserved: first.wrapping_add(IDS_RESERVED) }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new(1)
    }
}

/// SplitMix64: good enough to spread timers, and the same in every replay.
#[derive(Debug, Default)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Found;
    use model::{ProtocolAddr, TableId};

    struct Nowhere;

    impl Routes for Nowhere {
        fn lookup(&self, _: TableId, _: ProtocolAddr) -> Option<Found> {
            None
        }

        fn is_split(&self, _: TableId, _: Prefix, _: &crate::To) -> bool {
            false
        }
    }

    /// A save may take a second from when it is wanted: no id outside of what is saved is used meanwhile.
    #[test]
    fn ids_last_until_the_next_snapshot_is_written() {
        let mut common = Common::default();
        let mut saved = common.ids.reserved;
        for _ in 0..5 {
            let mut actions = Vec::new();
            let mut turn = Turn::new(Instant::default(), &Nowhere, &mut common, &mut actions);
            while !turn.save {
                turn.request_id();
            }
            let left = saved.wrapping_sub(turn.common.ids.next);
            assert!(left >= turn.common.limits.asks_per_second, "{left}");
            saved = turn.common.ids.reserved;
        }
    }
}
