//! `nave-perf`: what the data plane costs. See README.md for method and meaning.
#![forbid(unsafe_code)]

mod ab;
mod aead;
mod destinations;
mod dimensions;
mod esp;
mod fib;
mod frame;
mod gate;
mod generator;
mod graph;
mod histogram;
mod hub;
mod ike;
mod intervals;
mod lane;
mod load;
mod machine;
mod mix;
mod ndr;
mod nhrp;
mod output;
mod packets;
mod peers;
mod process;
mod programmer;
mod progress;
mod reference;
mod report;
mod results;
mod routes;
mod scenario;
mod size;
mod soak;
mod spokes;
mod width;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "nave-perf", version, about = "Measures what forwarding, encryption, NHRP and IKEv2 cost")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cycles per packet of the stage graph, in this process, over DPDK ring ports; every packet that comes out is checked
    Graph(graph::Args),
    /// The same through a real data plane, a process of its own that is programmed over gRPC, between links by which another core sends: packets a
    /// second, cycles per packet of its workers and nodes, latency; every packet that comes back is checked
    Wire(Box<wire::Args>),
    /// The highest rate at which a real data plane loses no packet in a trial, by sizes of frames, found by halving (RFC 2544 §26.1)
    Ndr(Box<ndr::Args>),
    /// Cycles per packet of sealing and opening with AES-GCM, by each provider that this machine can run and by ring; every packet is checked
    Aead(aead::Args),
    /// Cycles per look-up of the FIB beside DPDK's tables, on routes as in a public table; every answer is checked
    Fib(fib::Args),
    /// Two revisions side by side: both built, run in turn, and the ratio of their cycles with how sure it is
    Ab(ab::Args),
    /// Instructions per packet, counted by callgrind, beside the committed numbers: what has grown, and in which function
    Gate(gate::Args),
    /// What `gate` has counted: two passes of one scenario, of which callgrind counts the second
    #[command(hide = true)]
    Counted(gate::counted::Args),
    /// What runs of graph, wire and others said (with --json), together: the table of what is wanted beside what there is, and a page with plots
    Report(results::Args),
    /// A million routes through gRPC into a data plane of its own: time, memory, and no packet lost while routes change
    Routes(routes::Args),
    /// Thousands of protected spokes through gRPC into a data plane of its own: time, memory, and what packets that run meanwhile notice of it
    Spokes(spokes::Args),
    /// Full load for minutes while SAs are renewed, routes go and come, and spokes come and go, in a data plane of its own: no packet lost or wrong,
    /// none dropped, no growth
    Soak(soak::Args),
    /// What a client costs a server: the NHRP engine alone, on one core: registrations, resolutions, memory; or (--process) both processes of a
    /// hub, registrations in packets through a port
    Nhrp(nhrp::Args),
    /// What a peer costs a responder: the IKEv2 engine alone, on one core: IKE SAs with a child SA each, from the first datagram on; memory
    Ike(ike::Args),
}

/// What peers keep is counted to the byte.
#[global_allocator]
static HEAP: memory::Heap = memory::Heap;

fn main() -> ExitCode {
    let right = match Command::parse().what {
        What::Graph(args) => graph::run(&args),
        What::Wire(args) => wire::run(&args),
        What::Ndr(args) => ndr::run(&args),
        What::Aead(args) => aead::run(&args),
        What::Fib(args) => fib::run(&args),
        What::Ab(args) => ab::run(&args),
        What::Gate(args) => gate::run(&args),
        What::Counted(args) => gate::counted::run(&args),
        What::Report(args) => results::run(&args),
        What::Routes(args) => routes::run(&args),
        What::Spokes(args) => spokes::run(&args),
        What::Soak(args) => soak::run(&args),
        What::Nhrp(args) => nhrp::run(&args),
        What::Ike(args) => ike::run(&args),
    };
    match right {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nave-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
