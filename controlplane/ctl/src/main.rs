//! `nave`: the operator's command. It asks `nave-controlplane` over its management socket and prints what it answers.
//!
//! Exit status: 0 done, 1 refused or failed, 2 wrong usage; of `nave doctor` what it found. Output that nobody reads any more (`nave watch | head`) ends it quietly.
#![forbid(unsafe_code)]

mod arguments;
mod decode;
mod doctor;
mod observe;
mod pcapng;
mod run;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nave: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(run::Failure::Unread) => ExitCode::SUCCESS,
        Err(run::Failure::Diagnosed { status }) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("nave: {failure}");
            ExitCode::FAILURE
        }
    }
}
