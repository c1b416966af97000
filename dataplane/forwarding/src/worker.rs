//! A worker and its breath.
//!
//! ```text
//! refresh tables → commands → what the last breath left, what was injected → a burst of each port → walk → transmit
//! ```

use std::sync::Arc;

use model::time::Instant;
use wire::buf::PacketBuf;

use crate::Flow;
use crate::burst::{Breath, Meta};
use crate::counters::Counters;
use crate::graph::Node;
use crate::ports::{Command, PortId, Ports};
use crate::publish::Reader;
use crate::stage;
use crate::tables::Tables;
use crate::trace::Step;
use crate::walk::{BURST, RECEIVED, Walk};

/// Commands that are taken in one breath.
const COMMANDS: usize = 4;

/// One worker's own state. Made by [`crate::Program::worker`], moved to the worker's thread.
#[derive(Debug)]
pub struct Worker<B> {
    tables: Reader<Tables>,
    walk: Walk<B>,
}

impl<B: PacketBuf> Worker<B> {
    pub(crate) fn new(
        tables: Reader<Tables>,
        counters: Arc<Counters>,
        ports: usize,
        secret: u64,
        index: usize,
    ) -> Self {
        Self { tables, walk: Walk::new(counters, ports, secret, index) }
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

    fn command(&mut self, command: Command) {
        match command {
            Command::Measure(on) => self.walk.measure = on,
            Command::Trace(packets) => self.walk.trace.armed = packets,
        }
    }
}

/// One breath of a worker at the time `now`. Never waits.
pub fn breathe<P: Ports>(worker: &mut Worker<P::Buf>, now: Instant, ports: &mut P) -> Breath {
    worker.walk.start_laps();
    worker.tables.refresh();
    for _ in 0..COMMANDS {
        let Some(command) = ports.command() else { break };
        worker.command(command);
    }
    let Worker { tables, walk } = worker;
    let tables: &Tables = tables;
    walk.now = now;
    walk.flow = Flow::default();

    if walk.parking.len() > 0 {
        walk.unpark(tables, ports);
    }
    stage::inject::run(walk, tables, ports);
    receive(walk, tables, ports);
    macro_rules! stages {
        ($($node:ident => $run:expr;)+) => {$(
            if !walk.frames.is_empty(Node::$node) {
                $run;
                walk.end_lap(Some(Node::$node));
            }
        )+};
    }
    stages! {
        GreDecap => stage::gre_decap::run(walk, tables);
        IpLookup => stage::ip_lookup::run(walk, tables);
        Replicate => stage::replicate::run(walk, tables, ports);
        Redirect => stage::redirect::run(walk, tables, ports);
        Glean => stage::glean::run(walk, tables, ports);
        Midchain => stage::midchain::run(walk, tables);
        Rewrite => stage::rewrite::run(walk, tables);
        IcmpError => stage::icmp_error::run(walk, tables, ports);
        Punt => stage::punt::run(walk, tables);
        Drop => walk.count_drops();
    }
    walk.finish(tables, ports)
}

/// A burst of each port, beginning with another port each time, as long as there are slots.
fn receive<P: Ports>(walk: &mut Walk<P::Buf>, tables: &Tables, ports: &mut P) {
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
        if walk.trace.armed > 0 {
            for slot in first..walk.bufs.len() {
                walk.meta[slot] = Meta::NEW;
                walk.trace.adopt(slot as u8);
                walk.note(Node::Rx, slot as u8);
            }
        }
        walk.end_lap(Some(Node::Rx));
        stage::classify::run(walk, tables, port, first);
        walk.end_lap(Some(Node::Classify));
    }
    walk.first_rx = if walk.first_rx + 1 < count { walk.first_rx + 1 } else { 0 };
}
