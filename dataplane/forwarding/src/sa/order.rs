//! What the program side tells a worker of its SAs.
//!
//! Orders go by a ring of one producer and one consumer ([`memory::ring`]), and come back by another: whoever programs shares a core with others,
//! and a queue that several may push to would have the worker wait for it when it is preempted with a place claimed and not yet filled.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memory::{Pages, RingIn, RingOut, ring};
use model::sa::{Lease, Lifetimes, SaMode};

use super::inbound::SLOTS;
use super::window::Ring;

/// Orders that may wait for a worker. What does not fit waits on the program side.
const WAITING: usize = 1024;

/// An inbound SA to be installed.
#[derive(Debug)]
pub(crate) struct NewInbound {
    /// Its SPI.
    pub(crate) spi: u32,
    pub(crate) salt: [u8; 4],
    /// Number of its profile, underlay table and local address: what the tunnel of its packets must have too. Not 0.
    pub(crate) domain: u16,
    /// Where its packets come from.
    pub(crate) remote: IpAddr,
    /// UDP port that they come from; 0: they are not encapsulated.
    pub(crate) port: u16,
    pub(crate) mode: SaMode,
    pub(crate) esn: bool,
    /// Sequence numbers of the replay window: 64 to 4096, a multiple of 64.
    pub(crate) window: u16,
    pub(crate) lifetimes: Lifetimes,
    /// There, until the worker has taken it.
    pub(crate) key: Option<aead::Key>,
}

/// An outbound SA to be installed.
#[derive(Debug)]
pub(crate) struct NewOutbound {
    /// Its SPI.
    pub(crate) spi: u32,
    pub(crate) salt: [u8; 4],
    pub(crate) mode: SaMode,
    pub(crate) esn: bool,
    pub(crate) lease: Lease,
    pub(crate) lifetimes: Lifetimes,
    /// There, until the worker has taken it.
    pub(crate) key: Option<aead::Key>,
}

/// One change of one slot.
#[derive(Debug)]
pub(crate) struct Order {
    /// The slot: of inbound SAs [`model::sa::Spi::slot`], of outbound ones the number of the protection.
    pub(crate) slot: u32,
    pub(crate) change: Change,
}

/// What changes. Boxes come back without keys, so that no worker frees memory; what was in the slot is erased there.
#[derive(Debug)]
pub(crate) enum Change {
    /// Another inbound SA in the slot, or none.
    Inbound(Box<Option<NewInbound>>),
    /// The SA that is in the slot goes on with another peer address, domain, or lifetimes: its window stays.
    InboundPeer {
        /// Its SPI: nothing happens if the slot has another one.
        spi: u32,
        domain: u16,
        remote: IpAddr,
        port: u16,
        lifetimes: Lifetimes,
    },
    /// Another outbound SA in the slot, or none.
    Outbound(Box<Option<NewOutbound>>),
    /// Who seals for the slot if this worker has no SA of its own there; `None`: nobody.
    Elsewhere(Option<u16>),
    /// The SA that is in the slot goes on, may use sequence numbers up to this one, and has these lifetimes.
    Lease {
        /// Its SPI: nothing happens if the slot has another one.
        spi: u32,
        last: u64,
        lifetimes: Lifetimes,
    },
}

/// The program side.
#[derive(Debug)]
pub(crate) struct OrderSender {
    waiting: RingIn<Order>,
    returned: RingOut<Order>,
    /// Orders that the worker has carried out. Shared with it as long as it is there.
    taken: Arc<AtomicU64>,
    /// Orders that were given.
    given: u64,
    /// Pages of the worker's slots of inbound SAs, and of outbound ones.
    pages: [SlotPages; 2],
}

/// Pages of a worker's slots. Outbound SAs have no windows.
#[derive(Debug, Default)]
pub(crate) struct SlotPages {
    pub(super) lines: Pages,
    pub(super) windows: Pages,
    pub(super) limits: Pages,
    pub(super) keys: Pages,
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Orders {
    waiting: RingOut<Order>,
    returned: RingIn<Order>,
    taken: Arc<AtomicU64>,
}

/// Both sides of one worker's orders.
pub(crate) fn orders() -> (OrderSender, Orders) {
    // What comes back is at most what was given and not yet taken back: the sender takes it back before it gives more.
    let (to_worker, at_worker) = ring(WAITING);
    let (from_worker, back) = ring(2 * WAITING);
    let taken = Arc::new(AtomicU64::new(0));
    let pages = [SlotPages::default(), SlotPages::default()];
    (
        OrderSender { waiting: to_worker, returned: back, taken: Arc::clone(&taken), given: 0, pages },
        Orders { waiting: at_worker, returned: from_worker, taken },
    )
}

impl OrderSender {
    /// The worker's slots lie on these pages.
    pub(crate) fn lie_on(&mut self, pages: [SlotPages; 2]) {
        self.pages = pages;
    }

    /// Gives an order. What the worker needs memory for has it then: the worker does not wait until the kernel has cleared a page.
    ///
    /// # Errors
    /// The order, if as many as may are waiting.
    pub(crate) fn give(&mut self, order: Order) -> Result<(), Order> {
        // Room in `returned` for every order that is under way: what came back goes first.
        self.erase_returned();
        self.take_pages(&order);
        self.waiting.push(order)?;
        self.given += 1;
        Ok(())
    }

    /// Takes the memory that an order wants.
    fn take_pages(&mut self, order: &Order) {
        let [inbound, outbound] = &mut self.pages;
        let slot = order.slot as usize;
        let (pages, lifetimes) = match &order.change {
            Change::Inbound(new) => {
                if let Some(new) = &**new {
                    inbound.keys.take(slot);
                    inbound.windows.take(Ring::of(order.slot, SLOTS, Ring::size(new.window.into())).start());
                }
                (inbound, new.as_ref().as_ref().map(|new| new.lifetimes))
            }
            Change::InboundPeer { lifetimes, .. } => (inbound, Some(*lifetimes)),
            Change::Outbound(new) => {
                if new.is_some() {
                    outbound.keys.take(slot);
                }
                (outbound, new.as_ref().as_ref().map(|new| new.lifetimes))
            }
            Change::Elsewhere(_) => (outbound, None),
            Change::Lease { lifetimes, .. } => (outbound, Some(*lifetimes)),
        };
        pages.lines.take(slot);
        if lifetimes.is_some_and(|lifetimes| lifetimes != Lifetimes::default()) {
            pages.limits.take(slot);
        }
    }

    /// Whether an order can be given now.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.has_room()
    }

    /// Orders that were given so far.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// Orders that the worker has carried out; of one that has left all.
    pub(crate) fn taken(&self) -> u64 {
        if Arc::strong_count(&self.taken) == 1 {
            return self.given;
        }
        self.taken.load(Ordering::Acquire)
    }

    /// Erases the keys of what came back.
    pub(crate) fn erase_returned(&mut self) {
        while self.returned.pop().is_some() {}
    }

    /// Whether the worker has carried out all that it was given.
    pub(crate) fn are_taken(&self) -> bool {
        self.taken() == self.given
    }
}

impl Orders {
    /// Whether there is one.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Option<Order> {
        self.waiting.pop()
    }

    /// An order was carried out; it goes back with what is in its box now.
    pub(crate) fn done(&mut self, order: Order) {
        // There is room: the sender sees to it. If not, this worker frees it, which costs time and nothing else.
        let _ = self.returned.push(order);
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
