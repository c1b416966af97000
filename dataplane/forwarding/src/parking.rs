//! Packets that wait for their next hop to be resolved: a few for each, some more in all, up to a second.
//!
//! Any destination on an attached prefix may be waited for, whether there is somebody or not; so these have only a part of
//! the room, and who scans a prefix does not keep gateways and the links of midchains from being resolved.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use model::time::Instant;

use crate::adjacency::{AdjacencyId, Kind};
use crate::burst::Meta;
use crate::tables::{Role, Tables};

/// Packets that wait for one hop.
pub(crate) const PER_HOP: usize = 64;
/// Packets that wait in all.
pub(crate) const IN_ALL: usize = 1024;
/// Hops that are waited for.
const HOPS: usize = 256;
/// Of these, such as any destination is, and packets that wait for those.
const GLEAN_HOPS: usize = 192;
const GLEANS_IN_ALL: usize = 768;
/// Queues that are looked at in each breath.
const LOOKS: usize = 8;
/// How long a packet waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The port interface of the hop.
    pub(crate) interface: u16,
    /// The hop.
    pub(crate) next_hop: IpAddr,
    /// What the packets came to: the glean adjacency, or the incomplete one.
    pub(crate) adjacency: AdjacencyId,
    /// Whether it was given to them, not found in the FIB.
    pub(crate) given: bool,
    /// Whether it is the packet's destination, not a hop that the program names.
    pub(crate) glean: bool,
}

/// A packet that waits.
#[derive(Debug)]
pub(crate) struct Parked<B> {
    pub(crate) buf: B,
    pub(crate) meta: Meta,
    /// Its number in the trace.
    pub(crate) trace: u32,
}

/// Packets whose wait is over.
pub(crate) struct Leaving<'a, B> {
    /// Whether their time is over, too; else their hop is resolved.
    pub(crate) in_vain: bool,
    pub(crate) packets: std::vec::Drain<'a, Parked<B>>,
}

#[derive(Debug)]
struct Queue<B> {
    wait: Wait,
    /// Table and destination of its first packet: asks the FIB for all of them.
    asks: (u16, IpAddr),
    until: Instant,
    /// With those that are on their way here.
    count: usize,
    packets: Vec<Parked<B>>,
}

/// The parking of one worker.
#[derive(Debug)]
pub(crate) struct Parking<B> {
    /// The first `active` are in use; the others keep their room.
    queues: Vec<Queue<B>>,
    active: usize,
    count: usize,
    /// Of these, queues and packets of gleans.
    glean_hops: usize,
    gleans: usize,
    /// The queue that is looked at next.
    next: usize,
}

impl<B> Parking<B> {
    pub(crate) fn new() -> Self {
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let adjacency = AdjacencyId::default();
        let wait = Wait { interface: 0, next_hop: nobody, adjacency, given: false, glean: false };
        let queue = || Queue {
            wait,
            asks: (0, nobody),
            until: Instant::default(),
            count: 0,
            packets: Vec::with_capacity(PER_HOP),
        };
        Self {
            queues: (0..HOPS).map(|_| queue()).collect(),
            active: 0,
            count: 0,
            glean_hops: 0,
            gleans: 0,
            next: 0,
        }
    }

    /// Packets that wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// A place for a packet: the number of its queue, good until the next [`Parking::leave`]. `None`: full. `asks` is the packet's
    /// table and destination.
    pub(crate) fn reserve(&mut self, now: Instant, wait: Wait, asks: (u16, IpAddr)) -> Option<u16> {
        if self.count >= IN_ALL || wait.glean && self.gleans >= GLEANS_IN_ALL {
            return None;
        }
        let has_room = self.active < HOPS && !(wait.glean && self.glean_hops >= GLEAN_HOPS);
        let at = match self.queues[..self.active].iter().position(|queue| queue.wait == wait) {
            Some(at) => at,
            None if has_room => {
                let queue = &mut self.queues[self.active];
                queue.wait = wait;
                queue.asks = asks;
                queue.until = now + PATIENCE;
                queue.count = 0;
                self.active += 1;
                self.glean_hops += usize::from(wait.glean);
                self.active - 1
            }
            None => return None,
        };
        let queue = &mut self.queues[at];
        if queue.count >= PER_HOP {
            return None;
        }
        queue.count += 1;
        self.count += 1;
        self.gleans += usize::from(wait.glean);
        u16::try_from(at).ok()
    }

    /// Puts a packet in the place that was reserved for it.
    pub(crate) fn park(&mut self, queue: u16, parked: Parked<B>) {
        self.queues[usize::from(queue)].packets.push(parked);
    }

    /// Lets go the packets of a queue whose hop is resolved or whose time is over, one queue at a call, as long as there is
    /// `room` for all of them; `None` if there is no such queue among the next few.
    pub(crate) fn leave(&mut self, now: Instant, tables: &Tables, room: usize) -> Option<Leaving<'_, B>> {
        for _ in 0..LOOKS.min(self.active) {
            self.next = if self.next + 1 < self.active { self.next + 1 } else { 0 };
            let queue = &self.queues[self.next];
            let in_vain = now >= queue.until;
            if queue.count > room || !(in_vain || is_resolved(tables, queue)) {
                continue;
            }
            self.active -= 1;
            self.count -= queue.count;
            if queue.wait.glean {
                self.glean_hops -= 1;
                self.gleans -= queue.count;
            }
            self.queues.swap(self.next, self.active);
            return Some(Leaving { in_vain, packets: self.queues[self.active].packets.drain(..) });
        }
        None
    }
}

/// Whether the packets would come to something else now than a next hop that is to be waited for.
fn is_resolved<B>(tables: &Tables, queue: &Queue<B>) -> bool {
    let id = if queue.wait.given {
        queue.wait.adjacency
    } else {
        let (table, destination) = queue.asks;
        AdjacencyId::from_word(tables.fibs[usize::from(table)].lookup(destination))
    };
    let Some(entry) = tables.adjacencies.at(id) else { return queue.wait.given };
    let unresolved = matches!(entry.kind, Kind::Glean | Kind::Incomplete);
    let on_port = tables.interface(entry.interface).is_some_and(|i| matches!(i.role, Role::Port(_)));
    !(unresolved && on_port)
}
