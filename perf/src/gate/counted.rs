//! `nave-perf counted`: what callgrind looks on at.

use anyhow::ensure;
use dpdk::{Eal, EalArgs, Memory};

use crate::dimensions::Dimensions;
use crate::graph::{MEGABYTES, install, lanes, program};
use crate::size::Size;

/// Command line of `nave-perf counted`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dimensions: Dimensions,
    /// Bytes of the frame in the clear
    #[arg(long, default_value = "64")]
    size: Size,
}

/// Two passes of one worker, of which the second is counted; whether every packet came out right.
///
/// # Errors
/// What keeps it from running, or what is wrong with the first packet that is.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.dimensions.workers == 1, "--workers: one is counted");
    let scenario = args.dimensions.scenario(args.size)?;
    // valgrind has no place for DPDK's huge pages.
    let memory = Memory::NoHuge { mb: MEGABYTES };
    let file_prefix = Some("nave-perf-counted".into());
    let eal = Eal::start(&EalArgs { memory, file_prefix, ..EalArgs::default() })?;
    let mut program = program(&scenario)?;
    let mut lanes = lanes(&eal, 1, &scenario, &mut program)?;
    install(&mut program, &mut lanes, &scenario.sa_batches(1)?)?;
    for mut lane in lanes {
        lane.load()?;
        lane.run();
        lane.verify()?;
        lane.load()?;
        lane.run_counted();
        lane.verify()?;
    }
    Ok(true)
}
