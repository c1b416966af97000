//! `nave-controlplane`: the process that decides.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use controlplane::shell::{self, Until};

/// Control plane of a Nave node: NHRP, routes, configuration, management.
///
/// Signals: SIGHUP reads the configuration file again and applies it whole or not at all; SIGTERM and SIGINT stop it cleanly.
/// Log level by NAVE_LOG (error, warn, info, debug, trace; info if not set). Exit status: 0 after a clean stop, 1 with one
/// sentence on standard error if it cannot go on, 2 if the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "nave-controlplane", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/nave/nave.toml")]
    config: PathBuf,
    /// Keep a journal of everything that the NHRP engine is told and does, to replay it. Mode 0600: it can hold the authentication text. It is
    /// written on behind what is there and grows without end.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// End when standard input ends: with whoever started this process, even if that is killed.
    #[arg(long)]
    until_stdin_ends: bool,
    /// Only read and check the configuration file.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nave-controlplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    if arguments.check {
        shell::read_config(&arguments.config)?;
        println!("{}: ok", arguments.config.display());
        return Ok(());
    }
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .with_env_var("NAVE_LOG")
        .from_env()
        .map_err(|error| anyhow::anyhow!("NAVE_LOG: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let until = if arguments.until_stdin_ends { Until::StdinEnds } else { Until::Signal };
    runtime.block_on(shell::run(arguments.config, arguments.journal, until))
}
