//! What the conductor is told.

use model::program::{Binding, Object, Op, PathMtu, Refusal};
use model::report::{PacketIn, Report};
use model::{Instance, InterfaceName, NbmaAddr};

use super::Datagram;
use crate::kernel::Notice;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The kernel says something about the twins.
    Kernel(Notice),
    /// The data plane says something.
    Report(Report),
    /// A packet came up.
    Packet(PacketIn),
    /// A datagram came to a socket of IKE.
    Datagram(Datagram),
    /// What a former life learnt and the data plane forwards by. Said before the first greeting.
    Forwarding {
        /// Bindings of NHRP.
        bindings: Vec<Binding>,
        /// What the paths to peers take.
        path_mtus: Vec<PathMtu>,
    },
    /// The data plane greeted; its ports were reported before.
    Greeted {
        /// The connection, to be named with what is sent by it.
        connection: u64,
        /// Its life.
        instance: Instance,
        /// Its version.
        version: String,
        /// How many workers it has.
        workers: u16,
        /// Places for inbound SAs of each of them.
        slots: u32,
        /// What it has of owner IKE.
        ike: Vec<Object>,
    },
    /// The record of leases of that number is on disk.
    Recorded(u64),
    /// It is not.
    Unrecorded {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// The data plane acknowledged every step up to and with those of this number.
    Taken(u64),
    /// The data plane cannot be reached, or did not keep up.
    Away {
        /// Why.
        reason: String,
    },
    /// The data plane did not take this step.
    Refused {
        /// The step.
        op: Op,
        /// Why.
        reason: Refusal,
    },
    /// A server's DNS name was looked up.
    LookedUp {
        /// The tunnel that it is for.
        tunnel: InterfaceName,
        /// The name.
        name: String,
        /// Its addresses, of whatever family; none if it could not be looked up.
        addresses: Vec<NbmaAddr>,
    },
    /// Time passed.
    Tick,
}
