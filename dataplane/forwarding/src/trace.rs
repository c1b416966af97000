//! What happens to a packet, node by node, for a person to read.
//!
//! A worker traces the next packets that arrive when it is told to ([`crate::Command::Trace`]). Off, it costs a branch per
//! node and walk; on, it allocates.

use std::fmt;
use std::net::Ipv4Addr;

use crate::adjacency::AdjacencyId;
use crate::burst::{Meta, SLOTS};
use crate::{DropReason, InterfaceId, Node};

/// Bytes of a packet that a step keeps.
const SNAP: usize = 96;

/// A packet at a node, before the node changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The packet, numbered from 1 in the order of arrival.
    pub packet: u32,
    /// The node.
    pub node: Node,
    /// The interface that it came by, so far.
    pub interface: InterfaceId,
    /// IPv4 destination, once known.
    pub destination: Ipv4Addr,
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
        let Self { packet, node, interface, destination, adjacency, offset, reason, len, bytes } = self;
        write!(
            f,
            "#{packet} {node:<16} if {} to {destination} adjacency {}",
            interface.0,
            adjacency.index()
        )?;
        write!(f, " header at {offset} of {len}")?;
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
    /// Whether a packet of this walk is traced.
    pub(crate) active: bool,
    last: u32,
    /// The number of the packet in a slot; 0: not traced.
    ids: [u32; SLOTS],
    pub(crate) steps: Vec<Step>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { armed: 0, active: false, last: 0, ids: [0; SLOTS], steps: Vec::new() }
    }

    /// Traces the new packet in a slot, if there are still packets to be traced.
    pub(crate) fn adopt(&mut self, slot: u8) {
        if self.armed > 0 {
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

    pub(crate) fn record(&mut self, node: Node, slot: u8, meta: &Meta, bytes: &[u8]) {
        let packet = self.id(slot);
        if packet != 0 {
            self.steps.push(Step {
                packet,
                node,
                interface: InterfaceId(meta.interface),
                destination: meta.destination.into(),
                adjacency: meta.adjacency,
                offset: meta.offset,
                reason: (node == Node::Drop).then_some(meta.reason),
                len: bytes.len(),
                bytes: bytes[..bytes.len().min(SNAP)].to_vec(),
            });
        }
    }

    /// The walk is over.
    pub(crate) fn clear(&mut self) {
        if self.active {
            self.ids = [0; SLOTS];
            self.active = false;
        }
    }
}
