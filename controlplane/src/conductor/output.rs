//! What the conductor wants done.

use model::program::Op;
use model::report::PacketOut;
use model::state::event::Happening;
use nhrp::journal::Line;

use super::{Datagram, Endpoint, Recorded};
use crate::kernel::Order;
use crate::lookup::LookUp;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Program these steps. The first of a connection are a resync.
    Program(Steps),
    /// Send this packet.
    Send(PacketOut),
    /// Send this by the socket of its address and port.
    Datagram(Datagram),
    /// Have these UDP sockets and no others.
    Listen(Vec<Endpoint>),
    /// Tell the kernel.
    Kernel(Order),
    /// Write down the leases, so that they survive a crash of the machine, and say so: [`super::Input::Recorded`]. What they cover is
    /// programmed then, and not before.
    Record {
        /// Counted up from 1.
        number: u64,
        /// The leases.
        recorded: Recorded,
    },
    /// What [`super::Conductor::kept`] returns is worth saving.
    Save,
    /// The engine was told something and did something ([`super::Conductor::keep_journal`]).
    Journal(Box<Line>),
    /// Look up a server's DNS name; [`super::Input::LookedUp`] is the answer.
    LookUp(LookUp),
    /// Tell whoever listens.
    Event(Happening),
}

/// Steps for the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// The connection that they are for; on another one they mean nothing.
    pub connection: u64,
    /// Counted up from 1.
    pub number: u64,
    /// The steps, in order.
    pub ops: Vec<Op>,
}
