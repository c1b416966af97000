//! What the data plane touches outside: ports, buffers, queues to the host and to the control plane.
//!
//! [`Ports`] is what a worker breathes through. The DPDK process implements it with queue pairs and rings, nave-perf with
//! rings in memory, tests with vectors. Nothing behind it may block or allocate.

use std::net::IpAddr;

use model::report::PuntReason;
use wire::buf::PacketBuf;

use crate::Node;
use crate::burst::Meta;

/// A port, by its place in the list that the program was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// An interface or tunnel while it is programmed. Numbers are used again as late as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u16);

/// A packet leaves the graph upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Punt {
    /// To the kernel, by this interface's twin: an Ethernet frame for the TAP of a port, an IP packet for the TUN of a tunnel.
    Host(InterfaceId),
    /// To the control plane: an NHRP packet, or the first octets of an inner IP packet.
    Control {
        /// Why.
        reason: PuntReason,
        /// The tunnel it came by.
        tunnel: InterfaceId,
        /// Source of the outer header.
        source: IpAddr,
        /// Destination of the outer header, one of our own addresses.
        destination: IpAddr,
        /// UDP source port of the peer where encapsulated, else 0.
        port: u16,
        /// The SA that it came by; 0: none.
        spi: u32,
    },
}

/// Where a packet that enters from above comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The kernel sent it on this interface's twin: an Ethernet frame on the TAP of a port, an IP packet on the TUN of a tunnel.
    Twin(InterfaceId),
    /// The control plane: GRE payload for an NBMA address. We put the outer header in front.
    Control {
        /// The tunnel.
        tunnel: InterfaceId,
        /// Where to.
        destination: IpAddr,
        /// The peer's UDP port where ESP is encapsulated, else 0.
        port: u16,
        /// GRE protocol type.
        protocol_type: u16,
    },
}

/// A packet that enters from above.
#[derive(Debug)]
pub struct Injected<B> {
    /// Where from.
    pub origin: Origin,
    /// Its bytes.
    pub buf: B,
}

/// A packet on its way to the worker that has its SA.
#[derive(Debug)]
pub struct HandedOff<B> {
    pub(crate) buf: B,
    pub(crate) meta: Meta,
    /// Where it enters.
    pub(crate) entry: HandoffEntry,
    /// Its number in the trace that it is in; 0: none.
    pub(crate) trace: u32,
}

impl<B> HandedOff<B> {
    /// Its buffer, for whoever has to give it back.
    #[must_use]
    pub fn into_buf(self) -> B {
        self.buf
    }
}

/// Where a packet that was handed off enters the graph of the worker that has its SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandoffEntry {
    /// At esp-decrypt.
    Decrypt,
    /// At esp-encrypt, with the outer headers that midchain made.
    Encrypt,
    /// At inject: GRE payload of the control plane's.
    Control(Origin),
}

/// Something that a worker saw and the control plane may want to know. [`crate::Program::report`] says it in the control
/// plane's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Packets want a next hop that is not resolved. At most one a second for each hop and worker; two if
    /// it is both a destination and a next hop that the program names.
    Glean {
        /// Its interface.
        interface: InterfaceId,
        /// Its address.
        next_hop: IpAddr,
    },
    /// A router of the underlay says that the path to a peer takes no more than this. At most one a second for each peer and worker.
    PathMtu {
        /// The tunnel.
        tunnel: InterfaceId,
        /// The peer.
        nbma: IpAddr,
        /// Largest outer IP packet, in bytes.
        mtu: u16,
    },
    /// The newest packet of an inbound SA in UDP came from elsewhere than its peer, and is authentic. At most one a second for each SA.
    SaMoved {
        /// Its SPI.
        spi: u32,
        /// Where the peer is now.
        nbma: IpAddr,
        /// Its UDP port.
        port: u16,
    },
}

/// What changes a worker's own state; a few are taken in each breath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Whether to count each node's cycles.
    Measure(bool),
    /// Trace packets; takes the place of an order before it.
    Trace(TraceOrder),
    /// Capture packets, or no longer.
    Capture(Option<CaptureOrder>),
}

/// Which packets are traced from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceOrder {
    /// How many, the next that arrive or are injected; 0: no more.
    pub packets: u32,
    /// Of those only that name this address: as source or destination, in the outer or the inner header.
    pub only: Option<IpAddr>,
}

/// Which packets are copied, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureOrder {
    /// Where.
    pub at: Tap,
    /// How many; 0: until another order comes.
    pub packets: u32,
    /// Bytes that are kept of each; 0: all.
    pub snap: u16,
    /// As of [`TraceOrder`].
    pub only: Option<IpAddr>,
}

/// Where packets are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tap {
    /// At a port, both directions, as they are on the wire.
    Port(PortId),
    /// As they come to a node.
    Node(Node),
}

/// A worker's ports, buffers and queues.
pub trait Ports {
    /// A packet.
    type Buf: PacketBuf;

    /// Number of ports; the worker has a queue pair of each.
    fn count(&self) -> u16;

    /// Appends up to `max` packets that arrived on a port. Each is one segment.
    fn rx(&mut self, port: PortId, into: &mut Vec<Self::Buf>, max: usize);

    /// Whether the port looks at IPv4 header checksums and says of a packet when it found its right ([`PacketBuf::is_ipv4_summed`]).
    /// Of all other packets, and of other ports, the graph sums the header itself.
    #[inline(always)]
    fn checks_ipv4(&self, _port: PortId) -> bool {
        false
    }

    /// Takes as many packets off the front as the port takes now, in order. What is left is dropped as `tx-full`.
    fn tx(&mut self, port: PortId, from: &mut Vec<Self::Buf>);

    /// An empty packet with the usual headroom.
    fn alloc(&mut self) -> Option<Self::Buf>;

    /// Gives all of them back to where they came from and empties the vector.
    fn free(&mut self, bufs: &mut Vec<Self::Buf>);

    /// Queues a packet for the host or the control plane.
    ///
    /// # Errors
    /// The packet, if the queue for it is full: the worker drops and counts it.
    fn punt(&mut self, punt: Punt, buf: Self::Buf) -> Result<(), Self::Buf>;

    /// Appends up to `max` packets from the host and the control plane; control traffic (CS6) first.
    fn injected(&mut self, into: &mut Vec<Injected<Self::Buf>>, max: usize);

    /// Queues a packet for the worker of this number, counted as [`crate::Program::worker`] made them.
    ///
    /// # Errors
    /// The packet, if the queue is full or there is no such worker: the worker drops and counts it.
    fn hand_off(&mut self, _to: usize, packet: HandedOff<Self::Buf>) -> Result<(), HandedOff<Self::Buf>> {
        Err(packet)
    }

    /// Appends up to `max` packets that other workers handed off to this one.
    fn handed_in(&mut self, _into: &mut Vec<HandedOff<Self::Buf>>, _max: usize) {}

    /// Queues a notice; `false` if the queue is full: it will be repeated while its cause lasts.
    fn notice(&mut self, notice: Notice) -> bool;

    /// The next command for this worker.
    fn command(&mut self) -> Option<Command> {
        None
    }
}
