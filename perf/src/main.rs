//! `nave-perf`: what the data plane costs. See README.md for method and meaning.
#![forbid(unsafe_code)]

mod frame;
mod graph;
mod lane;
mod reference;
mod report;
mod scenario;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "nave-perf", version, about = "Measures what the data plane costs")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cycles per packet of the stage graph, in this process, over DPDK ring ports; every packet that comes out is checked
    Graph(graph::Args),
}

fn main() -> ExitCode {
    let What::Graph(args) = Command::parse().what;
    match graph::run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nave-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
