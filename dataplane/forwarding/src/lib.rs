//! The data plane: the stage graph and its tables, on any packet buffer, without DPDK, clock or threads.
//!
//! [`Program`] is what the control plane's batches make; it publishes [`Tables`] to workers. A [`Worker`] on its core does
//! nothing but [`breathe`]: it takes packets from [`Ports`], walks them over the [`graph`], and gives them back. The process
//! that forwards, nave-perf and the tests run the same function.
#![forbid(unsafe_code)]

mod adjacency;
mod burst;
mod capture;
mod chunk_map;
mod counters;
mod drop;
pub mod fib;
pub mod graph;
mod limit;
mod observe;
mod packet;
mod parking;
mod pieces;
mod ports;
mod program;
pub mod publish;
mod reassembly;
mod sa;
mod spread;
mod stage;
mod tables;
mod trace;
mod walk;
mod worker;

pub use adjacency::{AdjacencyId, Kind};
pub use burst::Breath;
pub use capture::Captured;
pub use counters::{Counters, Flow, NodeCount, Traffic};
pub use drop::DropReason;
pub use graph::Node;
pub use ports::{
    CaptureOrder, Command, HandedOff, Injected, InterfaceId, Notice, Origin, PortId, Ports, Punt, Tap,
    TraceOrder,
};
pub use program::{AdjacencyShow, FibShow, InterfaceShow, NextHopShow, Port, Program, RouteShow, TunnelShow};
pub use sa::window;
pub use spread::worker_for;
pub use tables::Tables;
pub use trace::Step;
pub use worker::{Worker, breathe};
