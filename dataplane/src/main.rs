//! `nave-dataplane`: the process that forwards.
//!
//! ```text
//! main ─ EAL, ports, tables ─┬─ nave-worker-N   one for each core given: forwarding::breathe, for ever; rings from each to each
//!                            ├─ nave-host       kernel twins ⇄ rings
//!                            └─ nave-service-N  tokio: Dataplane service, reports, punts     (never on a worker's core)
//! ```

mod args;
mod cores;
mod handoff;
mod host;
mod observe;
mod ports;
mod process;
mod rings;
mod service;
mod show;
mod worker;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    if let Err(fault) = args.check() {
        eprintln!("nave-dataplane: {fault}");
        return ExitCode::from(2);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("NAVE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match process::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nave-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
