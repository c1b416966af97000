//! Asks and prints.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use model::config::check::Fault;
use model::state::{View, count};
use proto::client::{Error, Management};
use proto::{Apply, Code};

use crate::arguments::{Arguments, Clear, Command, Show};
use crate::{decode, doctor, observe};

/// Why it did not work, as it is told to the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody serves the socket.
    #[error("{error}\nIs nave-controlplane running? `--socket` says where it is if that is elsewhere.")]
    Absent { error: Error },
    /// The node said no, or got lost.
    #[error("{0}")]
    Refused(Error),
    /// What does not end by itself has ended.
    #[error("nave-controlplane has ended the stream")]
    Ended,
    /// The configuration has a fault; nothing changed.
    #[error("{}: {fault}", .file.display())]
    Fault { file: PathBuf, fault: Fault },
    /// The file cannot be read.
    #[error("{}: {error}", .file.display())]
    File { file: PathBuf, error: io::Error },
    /// The capture cannot be read, or not to its end.
    #[error("{}: {bad}", .file.display())]
    Capture { file: PathBuf, bad: decode::Bad },
    /// The table of SAs has a line that says nothing.
    #[error("{}: {bad}", .file.display())]
    Table { file: PathBuf, bad: decode::BadLine },
    /// The check of a capture has findings.
    #[error("{}: {}", .file.display(), count(*.findings, "finding", "findings"))]
    Findings { file: PathBuf, findings: u64 },
    /// The machine has faults, which were told.
    #[error("what was found costs speed")]
    Diagnosed { status: u8 },
    /// The output cannot be written.
    #[error("output: {0}")]
    Output(io::Error),
    /// No signal can be waited for.
    #[error("signals: {0}")]
    Signal(io::Error),
    /// Nobody reads the output any more.
    #[error("output: nobody reads it")]
    Unread,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable { .. } => Self::Absent { error },
            _ => Self::Refused(error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Output(error),
        }
    }
}

/// Does what the command line says.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { socket, json, command } = arguments;
    let node = Management::at(socket);
    match command {
        Command::Show(show) => self::show(&node, show, json).await,
        Command::Clear(clear) => self::clear(&node, clear, json).await,
        Command::Apply { file, dry_run } => apply(&node, &file, dry_run, json).await,
        Command::Watch { tunnel } => watch(&node, tunnel, json).await,
        Command::Trace(trace) => observe::trace(&node, trace, json).await,
        Command::Capture(capture) => observe::capture(&node, capture, json).await,
        Command::Decode(decode) => decode::decode(&decode, json),
        Command::Doctor(doctor) => doctor::doctor(&node, doctor, json).await,
        Command::Explain(explain) => print_state(&node, explain.request(), View::Table, json).await,
    }
}

async fn show(node: &Management, show: Show, json: bool) -> Result<(), Failure> {
    let (request, view) = show.request();
    print_state(node, request, view, json).await
}

async fn print_state(
    node: &Management,
    request: model::state::Show,
    view: View,
    json: bool,
) -> Result<(), Failure> {
    let state = node.show(request).await?;
    if json { print_json(&state) } else { print(state.view(view)) }
}

async fn clear(node: &Management, clear: Clear, json: bool) -> Result<(), Failure> {
    let (clear, one, many) = match clear {
        Clear::Nhrp { tunnel, address } => {
            (proto::Clear::Nhrp { tunnel, address }, "NHRP entry", "NHRP entries")
        }
        Clear::Ike { peer } => (proto::Clear::Ike { peer }, "IKE SA", "IKE SAs"),
    };
    let cleared = node.clear(clear).await?;
    if json {
        return print_json(&serde_json::json!({ "cleared": cleared }));
    }
    print(format_args!("{} cleared\n", count(cleared, one, many)))
}

async fn apply(node: &Management, file: &Path, dry_run: bool, json: bool) -> Result<(), Failure> {
    let text = read(file).map_err(|error| Failure::File { file: file.to_owned(), error })?;
    let applied = node.apply(Apply { text, dry_run }).await?;
    let changes = match applied {
        Ok(changes) => changes,
        Err(fault) => {
            if json {
                print_json(
                    &serde_json::json!({ "fault": { "path": fault.path, "problem": fault.problem } }),
                )?;
            }
            return Err(Failure::Fault { file: file.to_owned(), fault });
        }
    };
    if json {
        return print_json(&serde_json::json!({ "applied": !dry_run, "changes": changes }));
    }
    let mut lines: String = changes.iter().map(|change| format!("{change}\n")).collect();
    lines.push_str(match (changes.is_empty(), dry_run) {
        (true, _) => "nothing changes\n",
        (false, false) => {
            "applied, until nave-controlplane starts again or reads its file; write it into the file to keep it\n"
        }
        (false, true) => "not applied: this was a dry run\n",
    });
    print(lines)
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

async fn watch(node: &Management, tunnel: Option<model::InterfaceName>, json: bool) -> Result<(), Failure> {
    let mut events = node.watch(tunnel).await?;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) if has_gone(&error) => break,
            Err(error) => return Err(error.into()),
        };
        if json { print_json_line(&event)? } else { print(format_args!("{event}\n"))? }
    }
    Err(Failure::Ended)
}

/// What a connection says that is cut: the process on the other side has gone.
pub(crate) fn has_gone(error: &Error) -> bool {
    matches!(error.code(), Some(Code::Unavailable | Code::Unknown | Code::Cancelled))
}

/// Prints, and sees that it is out.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    print(text + "\n")
}

/// One object a line.
pub(crate) fn print_json_line(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    print(text + "\n")
}
