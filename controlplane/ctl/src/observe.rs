//! `nave trace` and `nave capture`: packets as they come, until there are enough, or until somebody has seen enough (SIGINT, SIGTERM).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use model::observe::{Captured, TraceStep};
use model::state::count;
use proto::Stream;
use proto::client::{Error, Management};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{Capture, Trace};
use crate::pcapng;
use crate::run::{Failure, has_gone, print, print_json_line};

/// Follows packets, and prints each step.
pub(crate) async fn trace(node: &Management, trace: Trace, json: bool) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let mut steps = node.trace(trace.request()).await?;
    // What was last seen of each packet: bytes are printed where they have changed.
    let mut seen: HashMap<u32, Vec<u8>> = HashMap::new();
    while let Some(step) = stop.next(&mut steps).await? {
        if json {
            print_json_line(&step)?;
        } else if seen.get(&step.packet) == Some(&step.bytes) {
            print(format_args!("{}\n", step.line()))?;
        } else {
            print(format_args!("{step}\n"))?;
        }
        let TraceStep { packet, bytes, .. } = step;
        seen.insert(packet, bytes);
    }
    Ok(())
}

/// Captures packets, and prints or writes each.
pub(crate) async fn capture(node: &Management, capture: Capture, json: bool) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let request = capture.request();
    let mut packets = node.capture(request.clone()).await?;
    // Not before the node has agreed: a capture that is refused leaves the file alone.
    let mut sink = match capture.write {
        None if json => Sink::Json,
        None => Sink::Text,
        Some(path) => {
            let out = create(&path).map_err(|error| Failure::File { file: path.clone(), error })?;
            let begun = pcapng::File::begin(out, request.at, request.snap);
            Sink::File(begun.map_err(|error| file_error(&path, error))?, path)
        }
    };
    let (mut all, mut lost) = (0, 0);
    while let Some(captured) = stop.next(&mut packets).await? {
        all += 1;
        lost += captured.lost;
        sink.put(&captured)?;
    }
    if let Sink::File(..) = sink {
        eprintln!("{} captured, {} lost", count(all, "packet", "packets"), count(lost, "packet", "packets"));
    }
    Ok(())
}

/// Where captured packets go.
enum Sink {
    Text,
    Json,
    File(pcapng::File<Box<dyn Write>>, PathBuf),
}

impl Sink {
    fn put(&mut self, captured: &Captured) -> Result<(), Failure> {
        match self {
            Self::Text => print(format_args!("{captured}\n")),
            Self::Json => print_json_line(captured),
            Self::File(file, path) => file.packet(captured).map_err(|error| file_error(path, error)),
        }
    }
}

/// The file, or standard output for `-`.
fn create(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        // Packets are written whole, one after the other: a reader sees each at once.
        return Ok(Box::new(io::BufWriter::new(io::stdout())));
    }
    Ok(Box::new(io::BufWriter::new(File::create(path)?)))
}

fn file_error(path: &Path, error: io::Error) -> Failure {
    if path == Path::new("-") { error.into() } else { Failure::File { file: path.to_owned(), error } }
}

/// The signals that end it in good order.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(Failure::Signal);
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// The next; `None` when there are enough, or somebody has seen enough.
    async fn next<T>(&mut self, stream: &mut Stream<T, Error>) -> Result<Option<T>, Failure> {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = self.interrupt.recv() => return Ok(None),
            _ = self.terminate.recv() => return Ok(None),
        };
        match next {
            None => Ok(None),
            Some(Ok(next)) => Ok(Some(next)),
            Some(Err(error)) if has_gone(&error) => Err(Failure::Ended),
            Some(Err(error)) => Err(error.into()),
        }
    }
}
