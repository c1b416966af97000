//! What happens to a packet, node by node, for a person to read.
//!
//! A worker traces the next packets that arrive, or that name an address, when it is told to ([`crate::Command::Trace`]). Off, it
//! costs a branch per node and walk; on, it allocates. Steps that nobody takes are kept up to [`STEPS`]; what does not fit is counted.

use std::fmt;
use std::net::IpAddr;

use model::time::Instant;

use crate::adjacency::AdjacencyId;
use crate::burst::{Meta, SLOTS};
use crate::{DropReason, InterfaceId, Node, TraceOrder, observe};

/// Bytes of a packet that a step keeps.
const SNAP: usize = 96;
/// Steps that are kept: with 96 bytes and as many of description each, 1.5 MB.
const STEPS: usize = 8192;
/// Bits of the numbers that a worker gives to packets; what is above them is the worker.
const OWN_NUMBERS: u32 = 24;

/// A packet at a node, before the node changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The packet, numbered in the order of arrival from 1 more than what the worker's own numbers begin with. It keeps its number when it is
    /// handed off.
    pub packet: u32,
    /// The node.
    pub node: Node,
    /// When: the time of the breath.
    pub time: Instant,
    /// The interface that it came by, so far.
    pub interface: InterfaceId,
    /// Place of the FIB table that it is looked up in, so far.
    pub table: u16,
    /// Destination of the IP packet at `offset`, if there is one.
    pub destination: Option<IpAddr>,
    /// The adjacency, once known.
    pub adjacency: AdjacencyId,
    /// Where in the bytes the current header starts.
    pub offset: u16,
    /// Why it was dropped, at [`Node::Drop`].
    pub reason: Option<DropReason>,
    /// Length in bytes.
    pub len: usize,
    /// Its first bytes, 96 at most.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packet, node, interface, table, adjacency, offset, reason, len, bytes, .. } = self;
        write!(f, "#{packet} {node:<16} if {} table {table}", interface.0)?;
        if let Some(destination) = self.destination {
            write!(f, " to {destination}")?;
        }
        write!(f, " adjacency {} header at {offset} of {len}", adjacency.index())?;
        if let Some(reason) = reason {
            write!(f, " ({reason}: {})", reason.sentence())?;
        }
        for (at, chunk) in bytes.chunks(16).enumerate() {
            write!(f, "\n    {:04x} ", at * 16)?;
            chunk.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Trace {
    /// Packets that are still to be traced.
    pub(crate) armed: u32,
    /// The address that they must name.
    only: Option<IpAddr>,
    /// Whether a packet of this walk is traced.
    pub(crate) active: bool,
    last: u32,
    /// The number of the packet in a slot; 0: not traced.
    ids: [u32; SLOTS],
    pub(crate) steps: Vec<Step>,
    /// Steps that found no room.
    pub(crate) lost: u64,
}

impl Trace {
    /// `index` counts workers: each has numbers of its own.
    pub(crate) fn new(index: usize) -> Self {
        let last = (index as u32) << OWN_NUMBERS;
        Self { armed: 0, only: None, active: false, last, ids: [0; SLOTS], steps: Vec::new(), lost: 0 }
    }

    pub(crate) fn order(&mut self, order: TraceOrder) {
        (self.armed, self.only) = (order.packets, order.only);
    }

    /// Traces the new packet in a slot, if there are still packets to be traced and this is one of them. `to`: where it goes, if that
    /// is not in its bytes yet.
    #[cold]
    pub(crate) fn adopt(&mut self, slot: u8, bytes: &[u8], to: Option<IpAddr>) {
        let wanted = self.only.is_none_or(|only| to == Some(only) || observe::names(bytes, only));
        if self.armed > 0 && wanted {
            self.armed -= 1;
            self.last += 1;
            self.follow(slot, self.last);
        }
    }

    /// A packet that is traced already, or with 0 one that is not, is in this slot now.
    pub(crate) fn follow(&mut self, slot: u8, id: u32) {
        self.ids[usize::from(slot)] = id;
        self.active |= id != 0;
    }

    /// The packet in a slot; 0 if it is not traced.
    pub(crate) fn id(&self, slot: u8) -> u32 {
        if self.active { self.ids[usize::from(slot)] } else { 0 }
    }

    pub(crate) fn record(&mut self, now: Instant, node: Node, slot: u8, meta: &Meta, bytes: &[u8]) {
        let packet = self.id(slot);
        if packet == 0 {
            return;
        }
        if self.steps.len() >= STEPS {
            self.lost += 1;
            return;
        }
        // What leaves is a frame, wherever the packet was in what it came in.
        let offset = if node == Node::Tx { observe::link_len(bytes) as u16 } else { meta.offset };
        let is_packet = !matches!(node, Node::Rx | Node::EspDecrypt | Node::EspEncrypt);
        let current = if is_packet { bytes.get(usize::from(offset)..) } else { None };
        self.steps.push(Step {
            packet,
            node,
            time: now,
            interface: InterfaceId(meta.interface),
            table: meta.table,
            destination: current.and_then(observe::destination),
            adjacency: meta.adjacency,
            offset,
            reason: (node == Node::Drop).then_some(meta.reason),
            len: bytes.len(),
            bytes: bytes[..bytes.len().min(SNAP)].to_vec(),
        });
    }

    /// The walk is over.
    pub(crate) fn clear(&mut self) {
        if self.active {
            self.ids = [0; SLOTS];
            self.active = false;
        }
    }
}
