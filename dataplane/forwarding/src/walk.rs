//! One walk over the graph: the packets in hand, and what a worker keeps from breath to breath.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use model::time::Instant;
use wire::buf::PacketBuf;

use crate::burst::{Breath, End, Frame, Frames, Meta, SLOTS, Sent};
use crate::capture::Capture;
use crate::counters::Counters;
use crate::graph::Node;
use crate::limit::Limit;
use crate::packet::{outer_source, sealed_in};
use crate::parking::{Leaving, PER_HOP, Parked, Parking};
use crate::ports::{HandedOff, HandoffEntry, Injected, InterfaceId, Origin, PortId, Ports, Punt};
use crate::reassembly::{Fragment, Held, Reassembly};
use crate::stage::classify::Most;
use crate::stage::icmp_error;
use crate::tables::Tables;
use crate::trace::Trace;
use crate::{DropReason, Flow};
use model::report::PuntReason;

/// Packets from earlier breaths that are taken up in one breath. While there are so many, ports fill few slots: pieces of what is cut
/// are not made faster than they are sent.
pub(crate) const RESUMED: usize = 128;
/// Slots that are left to copies when the ports were asked.
const COPIES: usize = 64;
/// Packets of one port in one breath.
pub(crate) const BURST: usize = 128;
/// Slots that ports may fill.
pub(crate) const RECEIVED: usize = SLOTS - COPIES;
/// Packets from above in one breath.
pub(crate) const INJECTED: usize = 32;
/// Packets that other workers handed off, in one breath. With those from above and from earlier breaths they are as many as there are
/// slots.
pub(crate) const HANDED: usize = SLOTS - RESUMED - INJECTED;
/// Packets that wait for the next breath.
const CARRIED: usize = 1024;
/// Places of these that pieces leave to others, and to the last pieces of the same walk: those come when it ends, one a slot.
const UNCUT: usize = 256;
/// Multicast packets that wait for their copies.
pub(crate) const REPLICATED: usize = 64;

/// A packet that goes on in the next breath.
#[derive(Debug)]
pub(crate) struct Carried<B> {
    pub(crate) buf: B,
    pub(crate) meta: Meta,
    pub(crate) entry: Entry,
    /// Its number in the trace.
    pub(crate) trace: u32,
}

/// Where a packet enters again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// At ip-lookup or ip6-lookup.
    Lookup,
    /// At the adjacency that it has.
    Adjacency,
    /// At tx: a frame for port `target`.
    Frame,
    /// At replicate; the word of its adjacency says how many copies of it have been made.
    Replicate,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Walk<B> {
    pub(crate) now: Instant,
    pub(crate) bufs: Vec<B>,
    pub(crate) meta: Box<[Meta; SLOTS]>,
    pub(crate) frames: Frames,
    pub(crate) counters: Arc<Counters>,
    pub(crate) flow: Flow,
    pub(crate) trace: Trace,
    pub(crate) capture: Capture,
    /// Whether cycles are counted, and when the last lap ended.
    pub(crate) measure: bool,
    lap: u64,
    pub(crate) sent: Sent,
    /// Packets for each port, as they are sent.
    tx: Vec<Vec<B>>,
    free: Vec<B>,
    pub(crate) injected: Vec<Injected<B>>,
    pub(crate) handed: Vec<HandedOff<B>>,
    /// Where the control plane's packets come from that are handed off at the end of this walk, by slot.
    pub(crate) origins: Vec<(u8, Origin)>,
    pub(crate) carried: VecDeque<Carried<B>>,
    /// Multicast packets in `carried`.
    pub(crate) replicating: usize,
    pub(crate) parking: Parking<B>,
    /// Pieces of the packet that is cut just now.
    pub(crate) copies: Vec<B>,
    /// Pieces of this walk's packets, each with the slot whose packet they go before: that has the last piece. Those of one packet
    /// stay together, so that its receiver need not keep many in mind.
    pub(crate) pieces: VecDeque<(u8, Carried<B>)>,
    /// Packets that waited in vain, for as long as their senders are told.
    vain: Vec<Parked<B>>,
    pub(crate) reassembly: Reassembly<B>,
    /// Reports of hops: of those that any destination is, and of those that the program names.
    pub(crate) gleans: Limit,
    pub(crate) hops: Limit,
    pub(crate) redirects: Limit,
    /// ICMP errors, and those that say what a path takes.
    pub(crate) errors: Limit,
    pub(crate) too_bigs: Limit,
    pub(crate) path_mtus: Limit,
    /// Reports of peers that are elsewhere now.
    pub(crate) moves: Limit,
    /// What mostly came by each port.
    pub(crate) most: Vec<Most>,
    /// Whether what was sent last took more room in front than it had: then the line before a packet is wanted, too.
    pub(crate) grows: bool,
    /// Identification of the next outer header (RFC 6864: what may be fragmented needs one).
    pub(crate) ip_id: u16,
    /// The same of an outer IPv6 packet that is cut.
    pub(crate) ip6_id: u32,
    /// What flows are spread by.
    pub(crate) secret: u64,
    /// The port that is asked first.
    pub(crate) first_rx: u16,
}

impl<B: PacketBuf> Walk<B> {
    /// `secret` is nobody else's: see [`Limit`]. `index` counts workers: their identifications start as far apart as can be,
    /// however many come, so that two do not use the same ones within moments.
    pub(crate) fn new(counters: Arc<Counters>, ports: usize, secret: u64, index: usize) -> Self {
        Self {
            now: Instant::default(),
            bufs: Vec::with_capacity(SLOTS),
            meta: Box::new([Meta::NEW; SLOTS]),
            frames: Frames::new(),
            counters,
            flow: Flow::default(),
            trace: Trace::new(index),
            capture: Capture::new(),
            measure: false,
            lap: 0,
            sent: Sent::default(),
            tx: (0..ports).map(|_| Vec::with_capacity(SLOTS)).collect(),
            free: Vec::with_capacity(SLOTS),
            injected: Vec::with_capacity(INJECTED),
            handed: Vec::with_capacity(HANDED),
            origins: Vec::with_capacity(INJECTED + HANDED),
            carried: VecDeque::with_capacity(CARRIED),
            replicating: 0,
            parking: Parking::new(),
            copies: Vec::with_capacity(CARRIED - UNCUT),
            pieces: VecDeque::with_capacity(CARRIED - UNCUT),
            vain: Vec::with_capacity(PER_HOP),
            reassembly: Reassembly::new(secret),
            gleans: Limit::new(Duration::from_secs(1), 1, 1000, secret),
            hops: Limit::new(Duration::from_secs(1), 1, 1000, secret),
            redirects: Limit::new(Duration::from_secs(1), 1, 1000, secret),
            errors: Limit::new(Duration::from_millis(100), 10, 1000, secret),
            too_bigs: Limit::new(Duration::from_millis(100), 10, 1000, secret),
            path_mtus: Limit::new(Duration::from_secs(1), 1, 100, secret),
            moves: Limit::new(Duration::from_secs(1), 1, 1000, secret),
            ip_id: (index as u16).reverse_bits(),
            most: vec![Most::Plain; ports],
            grows: false,
            // Where it begins is not to be guessed (RFC 7739).
            ip6_id: (secret >> 32) as u32 ^ secret as u32 ^ (index as u32).reverse_bits(),
            secret,
            first_rx: 0,
        }
    }

    /// Begins the measurement of a breath.
    #[inline(always)]
    pub(crate) fn start_laps(&mut self) {
        if self.measure {
            self.lap = memory::cycles();
        }
    }

    /// Counts the cycles since the last lap for `node`; for the ports' own cost with `None`.
    #[inline(always)]
    pub(crate) fn end_lap(&mut self, node: Option<Node>) {
        if self.measure {
            let now = memory::cycles();
            self.counters.count_cycles(node, now.wrapping_sub(self.lap));
            self.lap = now;
        }
    }

    /// Hands a packet to `drop`.
    #[cold]
    pub(crate) fn drop(&mut self, slot: u8, reason: DropReason) {
        self.frames.drop(&mut self.meta[usize::from(slot)], slot, reason);
    }

    /// The node `drop`: counts what the others handed to it.
    #[cold]
    pub(crate) fn count_drops(&mut self) {
        let frame = self.frames.take(Node::Drop);
        self.enter(frame);
        for at in frame.places() {
            let slot = self.frames.slot(frame, at);
            self.counters.count_drop(self.meta[usize::from(slot)].reason, 1);
        }
    }

    /// Hands a packet to `tx`.
    pub(crate) fn send(&mut self, slot: u8, port: u16) {
        self.sent.expect(port);
        self.sent.send(&mut self.meta[usize::from(slot)], port);
    }

    /// Drops what was no packet of this walk: a copy that was not made, a packet that is not in a slot. It counts as copied.
    #[cold]
    pub(crate) fn drop_copy(&mut self, reason: DropReason) {
        self.flow.copied += 1;
        self.flow.dropped += 1;
        self.counters.count_drop(reason, 1);
        self.counters.count_node(Node::Drop, 1);
    }

    /// The same for a copy that there is and that has no place.
    #[cold]
    pub(crate) fn refuse_copy<P: Ports<Buf = B>>(&mut self, ports: &mut P, copy: B, reason: DropReason) {
        self.drop_copy(reason);
        self.free.push(copy);
        ports.free(&mut self.free);
    }

    /// The new packet in a slot came by a port: it may be one to be traced.
    pub(crate) fn adopt(&mut self, slot: u8) {
        if self.trace.armed > 0
            && let Some(buf) = self.bufs.get(usize::from(slot))
        {
            self.trace.adopt(slot, buf.bytes(), None);
        }
    }

    /// The same of one that was injected.
    pub(crate) fn adopt_injected(&mut self, slot: u8, origin: &Origin) {
        if self.trace.armed > 0
            && let Some(buf) = self.bufs.get(usize::from(slot))
        {
            let to = match origin {
                Origin::Control { destination, .. } => Some(*destination),
                Origin::Twin(_) => None,
            };
            self.trace.adopt(slot, buf.bytes(), to);
        }
    }

    /// Whether anybody wants to see packets at nodes.
    #[inline(always)]
    pub(crate) fn observes(&self) -> bool {
        self.trace.active || self.capture.is_at_nodes()
    }

    /// Traces and captures a packet at a node, if somebody wants to see it.
    #[inline(always)]
    pub(crate) fn note(&mut self, node: Node, slot: u8) {
        if self.observes() {
            self.record(node, slot);
        }
    }

    #[cold]
    fn record(&mut self, node: Node, slot: u8) {
        if let Some(buf) = self.bufs.get(usize::from(slot)) {
            let (meta, bytes) = (&self.meta[usize::from(slot)], buf.bytes());
            self.trace.record(self.now, node, slot, meta, bytes);
            self.capture.at_node(self.now, node, meta, bytes);
        }
    }

    /// Traces and counts the packets that a node is about to look at.
    #[inline(always)]
    pub(crate) fn enter(&mut self, frame: Frame) {
        self.counters.count_node(frame.node(), frame.len());
        if self.observes() {
            for at in frame.places() {
                self.record(frame.node(), self.frames.slot(frame, at));
            }
        }
    }

    /// Puts a packet into the next slot; `None` and the packet if there is none.
    pub(crate) fn seat(&mut self, buf: B, meta: Meta, trace: u32) -> Result<u8, B> {
        let Ok(slot) = u8::try_from(self.bufs.len()) else { return Err(buf) };
        self.bufs.push(buf);
        self.meta[usize::from(slot)] = meta;
        if trace != 0 || self.trace.active {
            self.trace.follow(slot, trace);
        }
        Ok(slot)
    }

    /// Keeps a packet for the next breath; the packet back if there is no room.
    pub(crate) fn carry(&mut self, carried: Carried<B>) -> Result<(), B> {
        if self.carried.len() >= CARRIED {
            return Err(carried.buf);
        }
        self.carried.push_back(carried);
        Ok(())
    }

    /// Whether so many pieces can wait for the next breaths.
    pub(crate) fn has_room_for(&self, pieces: usize) -> bool {
        self.carried.len() + self.pieces.len() + pieces <= CARRIED - UNCUT
    }

    /// Takes packets whose wait is over from the parking: resolved ones to the next breath, the others to their end, of which their
    /// senders are told.
    pub(crate) fn unpark<P: Ports<Buf = B>>(&mut self, tables: &Tables, ports: &mut P) {
        loop {
            let room = CARRIED - self.carried.len();
            let Some(Leaving { in_vain, packets }) = self.parking.leave(self.now, tables, room) else {
                return;
            };
            if in_vain {
                self.vain.extend(packets);
            } else {
                for Parked { buf, mut meta, trace } in packets {
                    meta.end = End::Open;
                    let entry = if meta.given { Entry::Adjacency } else { Entry::Lookup };
                    self.carried.push_back(Carried { buf, meta, entry, trace });
                }
            }
            if !self.vain.is_empty() {
                self.end_in_vain(tables, ports);
            }
        }
    }

    #[cold]
    fn end_in_vain<P: Ports<Buf = B>>(&mut self, tables: &Tables, ports: &mut P) {
        let mut vain = std::mem::take(&mut self.vain);
        for Parked { buf, meta, .. } in vain.drain(..) {
            let meta = Meta { reason: DropReason::Unresolved, ..meta };
            icmp_error::tell(self, tables, ports, buf.bytes(), &meta);
            if self.capture.is_at_nodes() {
                self.capture.at_node(self.now, Node::Drop, &meta, buf.bytes());
            }
            self.flow.unparked += 1;
            self.refuse(buf, DropReason::Unresolved);
        }
        self.vain = vain;
    }

    /// Ends packets whose fragments did not all come in time.
    pub(crate) fn expire(&mut self) {
        while let Some(place) = self.reassembly.expired(self.now) {
            self.forget(place, DropReason::ReassemblyTimeout);
        }
    }

    /// Waits no longer for a packet, and drops its fragments.
    #[cold]
    pub(crate) fn forget(&mut self, place: u16, reason: DropReason) {
        let mut fragments = self.reassembly.end(place);
        self.drop_fragments(&mut fragments, reason);
        self.reassembly.give_back(place, fragments);
    }

    /// Drops fragments, those of this walk and those of earlier ones.
    #[cold]
    pub(crate) fn drop_fragments(&mut self, fragments: &mut Vec<Fragment<B>>, reason: DropReason) {
        for fragment in fragments.drain(..) {
            match fragment.held {
                Held::Slot(slot) => self.drop(slot, reason),
                Held::Buf(buf) => self.end_parked(buf, reason),
            }
        }
    }

    /// Drops a packet of an earlier walk that was to go on.
    #[cold]
    pub(crate) fn end_parked(&mut self, buf: B, reason: DropReason) {
        self.flow.unparked += 1;
        self.refuse(buf, reason);
    }

    /// Ends a fragment of an earlier walk that is a part of another packet now.
    pub(crate) fn merge(&mut self, buf: B) {
        self.flow.unparked += 1;
        self.flow.merged += 1;
        self.free.push(buf);
    }

    /// Ends the walk: each packet goes where its walk ended.
    pub(crate) fn finish<P: Ports<Buf = B>>(&mut self, tables: &Tables, ports: &mut P) -> Breath {
        let packets = self.bufs.len();
        let sent = std::mem::take(&mut self.sent);
        if self.observes() {
            let is_sent = |slot: &usize| !sent.is_in_train(*slot) && self.meta[*slot].end == End::Tx;
            for slot in (0..packets).filter(is_sent).collect::<Vec<_>>() {
                self.record(Node::Tx, slot as u8);
            }
        }
        if sent.packets > 0 {
            self.counters.count_node(Node::Tx, sent.packets);
        }
        if sent.packets == packets && sent.differ == 0 {
            // The usual walk: everything leaves by one port, in one piece.
            if let Some(tx) = self.tx.get_mut(usize::from(sent.port)) {
                std::mem::swap(&mut self.bufs, tx);
            }
            self.end_lap(Some(Node::Tx));
            self.transmit(tables, ports, sent.port);
        } else {
            self.sort(tables, ports, &sent);
            self.end_lap(Some(Node::Tx));
            for port in 0..self.tx.len() {
                self.transmit(tables, ports, port as u16);
            }
        }
        if !self.free.is_empty() {
            ports.free(&mut self.free);
        }
        self.trace.clear();
        let (came, gone) = self.counters.count_flow(&self.flow);
        self.end_lap(None);
        debug_assert!(self.flow.balances(), "packets were lost or made up: {:?}", self.flow);
        Breath {
            came,
            gone,
            more: !self.carried.is_empty(),
            waiting: self.parking.len() + self.reassembly.len(),
        }
    }

    fn transmit<P: Ports<Buf = B>>(&mut self, tables: &Tables, ports: &mut P, port: u16) {
        let Some(tx) = self.tx.get_mut(usize::from(port)).filter(|tx| !tx.is_empty()) else { return };
        let (count, id) = (tx.len(), PortId(port));
        if self.capture.is_at_port(id) {
            let (capture, now) = (&mut self.capture, self.now);
            let captured: Vec<bool> =
                tx.iter().map(|buf| capture.at_port(now, tables, id, true, buf.bytes())).collect();
            ports.tx(id, tx);
            let refused = captured[count - tx.len()..].iter().filter(|captured| **captured).count();
            capture.take_back(refused);
        } else {
            ports.tx(id, tx);
        }
        self.flow.sent += (count - tx.len()) as u64;
        if !tx.is_empty() {
            self.flow.dropped += tx.len() as u64;
            self.counters.count_drop(DropReason::TxFull, tx.len());
            self.counters.count_node(Node::Drop, tx.len());
            self.free.append(tx);
        }
    }

    fn sort<P: Ports<Buf = B>>(&mut self, tables: &Tables, ports: &mut P, sent: &Sent) {
        let mut bufs = std::mem::take(&mut self.bufs);
        for (slot, buf) in bufs.drain(..).enumerate() {
            let (is_in_train, slot) = (sent.is_in_train(slot), slot as u8);
            let mut meta = self.meta[usize::from(slot)];
            if is_in_train {
                meta.leave(sent.port);
            }
            match meta.end {
                End::Tx => match self.tx.get_mut(usize::from(meta.target)) {
                    Some(tx) => tx.push(buf),
                    None => unreachable!("adjacencies name ports that are there"),
                },
                End::Host => self.punt(ports, Punt::Host(InterfaceId(meta.target)), buf),
                End::Nhrp => {
                    let mut buf = buf;
                    let punt = control_punt(tables, PuntReason::Nhrp, &meta, buf.bytes());
                    if buf.trim_front(meta.offset.into()) {
                        self.punt(ports, punt, buf);
                    } else {
                        self.refuse(buf, DropReason::GreMalformed);
                    }
                }
                End::Drop => {
                    self.flow.dropped += 1;
                    self.free.push(buf);
                }
                End::Park => {
                    self.flow.parked += 1;
                    let trace = self.trace.id(slot);
                    self.parking.park(meta.target, Parked { buf, meta, trace });
                }
                End::Replicate => self.keep(slot, buf, meta, Entry::Replicate),
                End::Again => self.keep(slot, buf, meta, Entry::Lookup),
                End::Piece => self.keep(slot, buf, meta, Entry::Adjacency),
                End::Frame => self.keep(slot, buf, meta, Entry::Frame),
                End::HandDecrypt => self.hand_off(ports, slot, buf, meta, HandoffEntry::Decrypt),
                End::HandEncrypt => self.hand_off(ports, slot, buf, meta, HandoffEntry::Encrypt),
                End::HandControl => match self.origins.iter().find(|(of, _)| *of == slot) {
                    Some((_, origin)) => {
                        let entry = HandoffEntry::Control(*origin);
                        self.hand_off(ports, slot, buf, meta, entry);
                    }
                    None => unreachable!("inject notes where each of them comes from"),
                },
                End::Hold => {
                    self.flow.parked += 1;
                    self.reassembly.hold(meta.target, slot, buf);
                }
                End::Merged => {
                    self.flow.merged += 1;
                    self.free.push(buf);
                }
                End::Open => unreachable!("every node ends a packet's walk or hands it on"),
            }
        }
        self.bufs = bufs;
        self.origins.clear();
    }

    /// Keeps a packet of this walk for the next breath, or drops it if it waits for too many others.
    fn keep(&mut self, slot: u8, buf: B, mut meta: Meta, entry: Entry) {
        meta.end = End::Open;
        while let Some(at) = self.pieces.iter().position(|(before, _)| *before == slot) {
            self.carried.extend(self.pieces.remove(at).map(|(_, piece)| piece));
        }
        let trace = self.trace.id(slot);
        match self.carry(Carried { buf, meta, entry, trace }) {
            Ok(()) => self.flow.parked += 1,
            Err(buf) if entry == Entry::Replicate => {
                self.replicating -= 1;
                self.refuse(buf, DropReason::ReplicateFull);
            }
            Err(buf) if matches!(entry, Entry::Adjacency | Entry::Frame) => {
                self.refuse(buf, DropReason::FragmentFull);
            }
            Err(buf) => self.refuse(buf, DropReason::StaleIndex),
        }
    }

    /// Gives a packet to the worker that has its SA.
    fn hand_off<P: Ports<Buf = B>>(
        &mut self,
        ports: &mut P,
        slot: u8,
        buf: B,
        meta: Meta,
        entry: HandoffEntry,
    ) {
        let packet = HandedOff { buf, meta, entry, trace: self.trace.id(slot) };
        match ports.hand_off(meta.target.into(), packet) {
            Ok(()) => self.flow.handed_off += 1,
            Err(packet) => self.refuse(packet.buf, DropReason::HandoffFull),
        }
    }

    fn punt<P: Ports<Buf = B>>(&mut self, ports: &mut P, punt: Punt, buf: B) {
        match ports.punt(punt, buf) {
            Ok(()) => self.flow.punted += 1,
            Err(buf) => self.refuse(buf, DropReason::PuntFull),
        }
    }

    #[cold]
    fn refuse(&mut self, buf: B, reason: DropReason) {
        self.flow.dropped += 1;
        self.counters.count_drop(reason, 1);
        self.counters.count_node(Node::Drop, 1);
        self.free.push(buf);
    }
}

/// What goes with a packet to the control plane. `bytes`: with the outer header that it came in.
pub(crate) fn control_punt(tables: &Tables, reason: PuntReason, meta: &Meta, bytes: &[u8]) -> Punt {
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (port, spi) = if meta.domain == 0 { (0, 0) } else { sealed_in(meta, bytes) };
    Punt::Control {
        reason,
        tunnel: InterfaceId(meta.interface),
        source: outer_source(meta, bytes).unwrap_or(nobody),
        destination: tables.tunnel(meta.interface).map_or(nobody, |tunnel| tunnel.source),
        port,
        spi,
    }
}
