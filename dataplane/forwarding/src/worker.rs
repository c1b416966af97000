//! A worker and its breath.
//!
//! ```text
//! refresh tables → commands → orders about SAs → what the last breath left, what was injected or handed
//! in → a burst of each port → walk → transmit
//! ```
//!
//! What comes in the clear goes from classify to its end a few packets at a time ([`crate::burst::Train`]), before the next of the burst are
//! looked at; all else waits for its node's turn in the walk. While somebody wants to see packets at nodes, all do.

use std::sync::Arc;

use model::time::Instant;
use wire::buf::PacketBuf;

use crate::Flow;
use crate::burst::{AT_ONCE, Breath, Meta};
use crate::capture::Captured;
use crate::counters::Counters;
use crate::graph::Node;
use crate::ports::{Command, PortId, Ports};
use crate::publish::Reader;
use crate::sa::Sas;
use crate::stage;
use crate::tables::Tables;
use crate::trace::Step;
use crate::walk::{BURST, RECEIVED, Walk};

/// Commands that are taken in one breath.
const COMMANDS: usize = 4;
/// Orders about SAs that are carried out in one breath, and in one without packets: each moves some hundred bytes, which with packets at
/// hand takes them a few microseconds at most.
const ORDERS: usize = 8;
const ORDERS_IDLE: usize = 256;

/// One worker's own state. Made by [`crate::Program::worker`], moved to the worker's thread.
#[derive(Debug)]
pub struct Worker<B> {
    tables: Reader<Tables>,
    walk: Walk<B>,
    sas: Sas,
}

impl<B: PacketBuf> Worker<B> {
    pub(crate) fn new(
        tables: Reader<Tables>,
        counters: Arc<Counters>,
        sas: Sas,
        ports: usize,
        secret: u64,
        index: usize,
    ) -> Self {
        Self { tables, walk: Walk::new(counters, ports, secret, index), sas }
    }

    /// Its counters, for whoever wants to read them.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.walk.counters)
    }

    /// Generation of the tables that it walks by.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.tables.generation()
    }

    /// The steps that were traced since the last call, in the order of the walk.
    pub fn take_trace(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.walk.trace.steps)
    }

    /// The packets that were captured since the last call, in order.
    pub fn take_captured(&mut self) -> Vec<Captured> {
        self.walk.capture.take()
    }

    /// Whether there is something to take: steps of a trace, or packets of a capture.
    #[inline]
    #[must_use]
    pub fn has_observed(&self) -> bool {
        !self.walk.trace.steps.is_empty() || !self.walk.capture.packets.is_empty()
    }

    /// Steps and packets that there was no room for, because nobody took those before them.
    #[must_use]
    pub fn observed_lost(&self) -> u64 {
        self.walk.trace.lost + self.walk.capture.lost
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Measure(on) => self.walk.measure = on,
            Command::Trace(order) => self.walk.trace.order(order),
            Command::Capture(order) => self.walk.capture.order(order),
        }
    }
}

/// Nodes in walk order, those that have something to do.
macro_rules! stages {
    ($walk:ident: $($node:ident => $run:expr;)+) => {$(
        if !$walk.frames.is_empty(Node::$node) {
            $run;
            $walk.end_lap(Some(Node::$node));
        }
    )+};
}

/// One breath of a worker at the time `now`. Never waits.
pub fn breathe<P: Ports>(worker: &mut Worker<P::Buf>, now: Instant, ports: &mut P) -> Breath {
    worker.walk.start_laps();
    worker.tables.refresh();
    for _ in 0..COMMANDS {
        let Some(command) = ports.command() else { break };
        worker.command(command);
    }
    let Worker { tables, walk, sas } = worker;
    let tables: &Tables = tables;
    // Behind the tables: what they lead to an SA was ordered before they were published.
    if !sas.are_settled() {
        sas.carry_out(ORDERS);
    }
    walk.now = now;
    walk.flow = Flow::default();

    if walk.parking.len() > 0 {
        walk.unpark(tables, ports);
    }
    if walk.reassembly.len() > 0 {
        walk.expire();
    }
    stage::inject::run(walk, tables, sas, ports);
    receive(walk, tables, sas, ports);
    stages! {
        walk:
        Reassemble => stage::reassemble::run(walk);
        EspDecrypt => stage::esp_decrypt::run(walk, tables, sas, ports);
        GreDecap => stage::gre_decap::run(walk, tables);
        IpLookup => stage::ip_lookup::run(walk, tables, sas);
        Ip6Lookup => stage::ip6_lookup::run(walk, tables);
        Replicate => stage::replicate::run(walk, tables, ports);
        Redirect => stage::redirect::run(walk, tables, ports);
        Glean => stage::glean::run(walk, tables, ports);
        Midchain => stage::midchain::run(walk, tables, sas);
        EspEncrypt => stage::esp_encrypt::run(walk, tables, sas);
        Rewrite => stage::rewrite::run(walk, tables);
        Fragment => stage::fragment::run(walk, tables, ports);
        IcmpError => stage::icmp_error::run(walk, tables, ports);
        Punt => {
            stage::path_mtu::look(walk, tables, ports);
            stage::punt::run(walk, tables);
        };
        Drop => walk.count_drops();
    }
    let mut breath = walk.finish(tables, ports);
    if !sas.are_settled() {
        if breath.came == 0 {
            sas.carry_out(ORDERS_IDLE);
        }
        breath.more |= !sas.are_settled();
    }
    breath
}

/// A burst of each port, beginning with another port each time, as long as there are slots.
fn receive<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, sas: &Sas, ports: &mut P) {
    let count = ports.count();
    for step in 0..count {
        let port = PortId((walk.first_rx + step) % count);
        let first = walk.bufs.len();
        let room = RECEIVED.saturating_sub(first).min(BURST);
        if room == 0 {
            break;
        }
        walk.end_lap(Some(Node::Rx));
        ports.rx(port, &mut walk.bufs, room);
        walk.end_lap(None);
        let received = walk.bufs.len() - first;
        if received == 0 {
            continue;
        }
        walk.flow.received += received as u64;
        walk.counters.count_node(Node::Rx, received);
        if walk.trace.armed > 0 || walk.observes() || walk.capture.is_at_port(port) {
            observe(walk, tables, port, first);
        }
        walk.end_lap(Some(Node::Rx));
        let mut burst = stage::classify::Burst::new(walk, tables, sas, port, first);
        let (end, checked) = (walk.bufs.len(), ports.checks_ipv4(port));
        let mut from = first;
        while from < end {
            let slots = from..end.min((from / AT_ONCE + 1) * AT_ONCE);
            from = slots.end;
            if checked {
                burst.run::<_, true>(walk, slots);
            } else {
                burst.run::<_, false>(walk, slots);
            }
            walk.end_lap(Some(Node::Classify));
            burst.forward(walk);
        }
    }
    walk.first_rx = if walk.first_rx + 1 < count { walk.first_rx + 1 } else { 0 };
}

/// What came by a port, for those who want to see it.
#[cold]
fn observe<B: PacketBuf>(walk: &mut Walk<B>, tables: &Tables, port: PortId, first: usize) {
    for slot in first..walk.bufs.len() {
        if walk.capture.is_at_port(port) {
            walk.capture.at_port(walk.now, tables, port, false, walk.bufs[slot].bytes());
        }
        walk.meta[slot] = Meta::NEW;
        walk.adopt(slot as u8);
        walk.note(Node::Rx, slot as u8);
    }
}
