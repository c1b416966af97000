//! Copies of packets, at a port or at a node, for Wireshark.
//!
//! At a port they are what the wire has, in both directions. At a node they are what the node finds in its buffer: what came in a
//! frame is one still, outer headers and all; in front of what has no Ethernet header stands one with addresses of zeros.
//!
//! Off, it costs a branch per node and walk. Packets that nobody takes are kept up to [`PACKETS`] and [`BYTES`]; what does not fit is
//! counted.

use std::net::IpAddr;

use model::time::Instant;
use wire::{ethernet, ipv4, ipv6};
use zerocopy::IntoBytes;

use crate::adjacency::LINK_LEN;
use crate::burst::Meta;
use crate::ports::{CaptureOrder, PortId, Tap};
use crate::tables::Tables;
use crate::{DropReason, InterfaceId, Node, observe};

/// Packets that are kept.
const PACKETS: usize = 4096;
/// Bytes of packets that are kept: 400 of full size over a link of 9,000 bytes.
const BYTES: usize = 4 << 20;

/// What has no interface: a port, or a VLAN of it, that is not programmed.
const NO_INTERFACE: InterfaceId = InterfaceId(u16::MAX);

/// A packet that was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Where.
    pub at: Tap,
    /// Whether the port sent it; else it came there. Of a node: `false`.
    pub out: bool,
    /// At a port its interface, or that of the VLAN (65,535: none); at a node the interface that the packet came by.
    pub interface: InterfaceId,
    /// Why it was dropped, at [`Node::Drop`].
    pub reason: Option<DropReason>,
    /// When: the time of the breath.
    pub time: Instant,
    /// Length of the whole frame in bytes.
    pub len: usize,
    /// The frame, from its Ethernet header on, or as much of it as was asked for.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Capture {
    /// The node, if packets are captured at one.
    node: Option<Node>,
    /// The port, if packets are captured at one.
    port: Option<PortId>,
    /// Packets that are still to be captured; `None`: no end.
    left: Option<u32>,
    snap: usize,
    only: Option<IpAddr>,
    pub(crate) packets: Vec<Captured>,
    /// Bytes of `packets`.
    bytes: usize,
    /// Packets that found no room.
    pub(crate) lost: u64,
}

impl Capture {
    pub(crate) fn new() -> Self {
        Self {
            node: None,
            port: None,
            left: None,
            snap: 0,
            only: None,
            packets: Vec::new(),
            bytes: 0,
            lost: 0,
        }
    }

    /// Begins to capture, or ends it with `None`. What was captured stays until it is taken.
    pub(crate) fn order(&mut self, order: Option<CaptureOrder>) {
        (self.node, self.port) = match order.map(|order| order.at) {
            Some(Tap::Node(node)) => (Some(node), None),
            Some(Tap::Port(port)) => (None, Some(port)),
            None => (None, None),
        };
        let Some(CaptureOrder { packets, snap, only, .. }) = order else { return };
        self.left = (packets > 0).then_some(packets);
        self.snap = if snap == 0 { usize::MAX } else { snap.into() };
        self.only = only;
    }

    /// Whether packets are captured at a node.
    #[inline(always)]
    pub(crate) fn is_at_nodes(&self) -> bool {
        self.node.is_some()
    }

    /// Whether packets are captured at this port.
    #[inline(always)]
    pub(crate) fn is_at_port(&self, port: PortId) -> bool {
        self.port == Some(port)
    }

    /// What was captured so far.
    pub(crate) fn take(&mut self) -> Vec<Captured> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }

    /// A packet comes to a node.
    pub(crate) fn at_node(&mut self, now: Instant, node: Node, meta: &Meta, bytes: &[u8]) {
        if self.node != Some(node) {
            return;
        }
        let bare = if usize::from(meta.offset) < LINK_LEN && node != Node::Tx { bare(bytes) } else { None };
        let link = bare.map(|ethertype| ethernet::Header::new([0; 6], [0; 6], ethertype));
        let link = link.as_ref().map_or(&[][..], |link| link.as_bytes());
        let (interface, reason) = (InterfaceId(meta.interface), (node == Node::Drop).then_some(meta.reason));
        self.keep(now, Tap::Node(node), false, (interface, reason), [link, bytes]);
    }

    /// A frame comes to a port, or leaves by it. Whether it was captured.
    pub(crate) fn at_port(
        &mut self,
        now: Instant,
        tables: &Tables,
        port: PortId,
        out: bool,
        frame: &[u8],
    ) -> bool {
        let interface = interface(tables, port, frame);
        self.keep(now, Tap::Port(port), out, (interface, None), [&[], frame])
    }

    /// The port did not take so many of the frames that were captured last as sent.
    pub(crate) fn take_back(&mut self, count: usize) {
        self.packets.truncate(self.packets.len().saturating_sub(count));
        self.bytes = self.packets.iter().map(|packet| packet.bytes.len()).sum();
        if let Some(left) = &mut self.left {
            *left += count as u32;
        }
    }

    fn keep(
        &mut self,
        time: Instant,
        at: Tap,
        out: bool,
        (interface, reason): (InterfaceId, Option<DropReason>),
        [link, rest]: [&[u8]; 2],
    ) -> bool {
        if self.left == Some(0) || self.only.is_some_and(|only| !observe::names(rest, only)) {
            return false;
        }
        let len = link.len() + rest.len();
        let size = len.min(self.snap);
        if self.packets.len() >= PACKETS || self.bytes + size > BYTES {
            self.lost += 1;
            return false;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        let bytes: Vec<u8> = link.iter().chain(rest).take(size).copied().collect();
        self.bytes += bytes.len();
        self.packets.push(Captured { at, out, interface, reason, time, len, bytes });
        true
    }
}

/// The EtherType for bytes that are an IP packet and nothing else. A frame begins with an address: it would have to belong to a
/// station with the right length in it, and the right checksum for IPv4.
fn bare(bytes: &[u8]) -> Option<u16> {
    match bytes.first()? >> 4 {
        4 => {
            let (header, _) = ipv4::parse(bytes).ok()?;
            let whole = usize::from(header.total_length()) == bytes.len() && ipv4::verify(bytes).is_ok();
            whole.then_some(ethernet::IPV4)
        }
        6 => {
            let (_, payload) = ipv6::parse(bytes).ok()?;
            (ipv6::LEN + payload.len() == bytes.len()).then_some(ethernet::IPV6)
        }
        _ => None,
    }
}

/// The interface of a frame on a port.
fn interface(tables: &Tables, port: PortId, frame: &[u8]) -> InterfaceId {
    let tag = match frame.get(12..).and_then(<[u8]>::first_chunk::<4>) {
        Some([0x81, 0x00, high, low]) => u16::from_be_bytes([*high, *low]) & ethernet::Tag::VID,
        _ => 0,
    };
    let found = if tag == 0 { tables.of_port(port) } else { tables.of_vlan(port, tag) };
    found.map_or(NO_INTERFACE, |(interface, _)| interface)
}
